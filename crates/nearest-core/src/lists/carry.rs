//! Rows that come from lists that were trained alike: their codes mean the same in both, and are not made again.
//!
//! Rows of which only codes are known lose by being coded a second time. (4 bits, 1.3 million rows of four shards: recall@10
//! 0.932 in one index, 0.865 where the shards' codes were decoded and coded anew.)

use std::sync::{Arc, Mutex, PoisonError};

use super::{Entries, List, Lists, Term};
use crate::column::Row;
use crate::error::Result;
use crate::work::Work;

/// Lists whose rows are taken between two looks at whether to go on.
const LISTS: usize = 64;

impl Lists {
    /// The same, without rows.
    pub fn without_rows(&self) -> Self {
        let lists = (0..self.n_lists()).map(|_| Arc::default()).collect();
        Self { added: (0, 0.0), n_rows: 0, lists: Arc::new(lists), ..self.clone() }
    }

    /// Whether a row has the same codes in both, in lists of the same numbers.
    pub fn is_trained_as(&self, other: &Self) -> bool {
        let (router, others) = (&self.router, &other.router);
        self.coding.frame() == other.coding.frame()
            && self.coding.codec() == other.coding.codec()
            && self.second.as_ref().map(|second| &second.coder)
                == other.second.as_ref().map(|second| &second.coder)
            && router.centroids() == others.centroids()
    }

    /// The entries of some rows, list by list; `number` gives the numbers that they are to have, and nothing for all others.
    pub fn entries_of(&self, number: impl Fn(Row) -> Option<Row> + Sync, work: &Work<'_>) -> Result<Entries> {
        // On one thread, into memory that is all there from the beginning: a copy of the parts would be as much again.
        let all = Mutex::new(Entries::with_capacity(self.n_entries(), self.coding.code_bytes()));
        let parts: Vec<&[Arc<List>]> = self.lists.chunks(LISTS).collect();
        Work::new(Some(1), work.caller()).for_each(
            "merging",
            parts.len(),
            || (),
            |(), part| {
                let mut entries = all.lock().unwrap_or_else(PoisonError::into_inner);
                for (list, of) in (part * LISTS..).zip(parts[part]) {
                    self.take(list as u32, of, &number, &mut entries);
                }
                Ok(())
            },
        )?;
        Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(
        &self,
        number_of_list: u32,
        list: &List,
        number: impl Fn(Row) -> Option<Row>,
        entries: &mut Entries,
    ) {
        let code_bytes = self.coding.code_bytes();
        for block in &list.blocks {
            for (at, row) in block.rows().enumerate() {
                let Some(row) = number(row) else { continue };
                entries.lists.push(number_of_list);
                entries.terms.push(Term { row, ..block.term(at) });
                let start = entries.codes.len();
                entries.codes.resize(start + code_bytes, 0);
                block.code(&self.coding, at, &mut entries.codes[start..]);
            }
        }
    }

    /// The sum of squared distances from centroids of `n` rows like those it holds, as far as it is known.
    pub fn distance_of(&self, n: usize) -> f64 {
        let (n_added, sum) = self.added;
        let mean = if n_added == 0 { self.distance } else { sum / n_added as f64 };
        mean * n as f64
    }
}
