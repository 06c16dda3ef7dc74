//! Rows near each row, found by inverted lists: the tiles that answer batches of queries, with the rows as queries.

use std::sync::Arc;

use nearest_kernels::Kernels;

use super::NONE;
use super::vectors::{Vectors, sample};
use crate::candidates::ByRow;
use crate::coder::ShortEncoding;
use crate::column::Row;
use crate::error::Result;
use crate::kmeans::Side;
use crate::lists::{self, Codec, Estimate, Goal, Kept, ListSearch, Lists, Pair, PairBuffers};
use crate::live::RowSet;
use crate::memory::{Allocator, SystemAllocator};
use crate::work::Work;

/// Lists, times √n.
const PER_ROOT: f64 = 2.5;
/// The part of them that each row is looked for in, how many at least and how many at most: with 44 of 2 911 lists (photos1m) as
/// good a graph as with 72, with 33 it finds 0.0006 less.
const PART: f64 = 0.025;
const LEAST_PROBES: usize = 16;
const MOST_PROBES: usize = 44;
/// Rows of a list that it is trained on.
const TRAINING_ROWS: usize = 64;
/// Rows that are looked for at once.
const ROWS: usize = 1 << 15;

/// Distances are good enough as the lists estimate them.
struct Estimates;

impl Kept for Estimates {
    fn distances(&self, _: &[u32], _: &[f32], pairs: &mut [Pair], _: &mut PairBuffers) {
        pairs.iter_mut().for_each(|pair| pair.distance = -pair.estimate.score);
    }

    fn rescore(&self, _: (&[i8], f32), _: &mut [Estimate], _: &mut PairBuffers) -> bool {
        false
    }
}

/// Rows near each of some rows, which are numbered from 0.
#[derive(Debug)]
pub struct Near {
    k: usize,
    rows: Vec<Row>,
}

impl Near {
    /// Those near a row, nearest first.
    pub fn of(&self, row: usize) -> impl Iterator<Item = Row> + '_ {
        let of_row = &self.rows[row * self.k..][..self.k];
        of_row.iter().copied().take_while(|&other| other != NONE)
    }
}

/// Lists of rows, in which those near a vector are found.
pub struct Around<'a> {
    vectors: Vectors<'a>,
    rows: &'a [Row],
    lists: Lists,
    live: RowSet,
}

impl std::fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around").field("n_lists", &self.lists.n_lists()).finish_non_exhaustive()
    }
}

impl<'a> Around<'a> {
    /// Puts rows into lists.
    pub fn new(vectors: Vectors<'a>, rows: &'a [Row], seed: u64, work: &Work<'_>) -> Result<Self> {
        let n = rows.len();
        let metric = vectors.metric();
        let n_lists = ((n as f64).sqrt() * PER_ROOT) as usize;
        let native = matches!(vectors.codes.coding.codec(), Codec::UInt8) && !metric.is_angular();
        let plan = lists::Plan {
            metric,
            codes: match native {
                true => lists::Codes::UInt8,
                false => lists::Codes::Short(ShortEncoding::Scalar8),
            },
            second: None,
            n_lists: n_lists.next_multiple_of(32).min(n),
            flat_up_to: lists::FLAT_UP_TO,
            spill: 0.0,
            seed,
        };
        let dim = vectors.dim();
        let values = vectors.read(&sample(seed, TRAINING_ROWS * plan.n_lists, rows), work)?;
        let mut lists = lists::train(&Side::new(&values, dim), &plan, work)?;
        drop(values);
        let live = RowSet::first(n);
        let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
        for (first, part) in (0..).step_by(ROWS).zip(rows.chunks(ROWS)) {
            let values = vectors.read(part, work)?;
            let mut coded = lists.code(&Side::new(&values, dim), false, work)?;
            coded.entries.terms.iter_mut().for_each(|term| term.row += first);
            lists = lists.with(&coded, part.len(), &live, &allocator, work)?;
        }
        Ok(Self { vectors, rows, lists, live })
    }

    /// The `k` rows near each, itself left out.
    pub fn each(&self, k: usize, work: &Work<'_>) -> Result<Near> {
        let mut rows = vec![NONE; self.rows.len() * k];
        if k == 0 {
            // One row alone is near nobody.
            return Ok(Near { k, rows });
        }
        let mut places = rows.chunks_exact_mut(k);
        for (first, part) in (0..).step_by(ROWS).zip(self.rows.chunks(ROWS)) {
            let values = self.vectors.read(part, work)?;
            let numbers: Vec<Row> = (first..first + part.len() as Row).collect();
            for found in self.of(&values, &numbers, k, work)? {
                let place = places.next().expect("one place a row");
                place.iter_mut().zip(found).for_each(|(place, row)| *place = row);
            }
        }
        Ok(Near { k, rows })
    }

    /// The `k` rows near vectors, one left out for each.
    fn of(&self, values: &[f32], exclude: &[Row], k: usize, work: &Work<'_>) -> Result<Vec<Vec<Row>>> {
        let n_lists = self.lists.n_lists();
        let n_probe = ((n_lists as f64 * PART) as usize).clamp(LEAST_PROBES, MOST_PROBES).min(n_lists);
        let search = ListSearch {
            kernels: Kernels::best(),
            lists: &self.lists,
            selected: &self.live,
            selected_words: self.live.all_words(),
            live: &self.live,
            is_filtered: false,
            exclude: Some(exclude),
            kept: &Estimates,
            order: &ByRow,
            n_probe,
            are_disjoint: true,
        };
        let found = search.run(values, Goal::Nearest { k, pool: k }, work)?;
        Ok(found.into_iter().map(|found| found.into_iter().map(|near| near.row).collect()).collect())
    }
}
