//! Rows that a walk starts from: few, far apart, and compared with a query at once.

use super::codes::{Codes, Query, Reader};
use super::pool;
use crate::column::Row;
use nearest_kernels::Kernels;

/// Rows to start from, with copies of their codes side by side.
#[derive(Clone, Debug, Default)]
pub struct Hubs {
    /// The rows.
    pub rows: Vec<Row>,
    codes: Vec<u8>,
    terms: Vec<f32>,
}

impl Hubs {
    /// These rows.
    pub fn new(kernels: &'static Kernels, codes: &Codes, rows: Vec<Row>) -> Self {
        let reader = Reader::new(kernels, codes);
        let mut hubs = Hubs { rows, ..Hubs::default() };
        for &row in &hubs.rows {
            let (code, terms) = reader.row(row);
            hubs.codes.extend_from_slice(code);
            hubs.terms.extend_from_slice(terms);
        }
        hubs
    }

    /// The `n` nearest to a query.
    pub fn nearest(
        &self,
        kernels: &Kernels,
        query: &Query,
        n: usize,
        entries: &mut Vec<u64>,
        sums: &mut Vec<i32>,
        starts: &mut Vec<Row>,
    ) {
        let rows: Vec<&[u8]> = self.codes.chunks_exact(query.row_bytes()).collect();
        sums.clear();
        sums.resize(rows.len(), 0);
        query.sums(kernels, &rows, sums);
        entries.clear();
        let terms = self.terms.as_chunks::<2>().0;
        entries.extend(
            sums.iter()
                .zip(terms)
                .zip(0..)
                .map(|((&sum, terms), i)| pool::entry(query.distance(sum, terms), i)),
        );
        let n = n.min(entries.len());
        if n < entries.len() {
            entries.select_nth_unstable(n);
        }
        starts.clear();
        starts.extend(entries[..n].iter().map(|&entry| self.rows[pool::row(entry) as usize]));
    }
}
