//! Inverted lists: a search looks only at the lists whose centroids are nearest to the query.
//!
//! | file | what it holds |
//! |---|---|
//! | `frame.rs` | the space that centroids and codes live in: normalised, centred, rotated |
//! | `coding.rs` | rows and queries as codes of that space, and estimates from them |
//! | `block.rs` | the rows of a list: packed codes, terms and row numbers, side by side |
//! | `packed.rs` | centroids packed to be multiplied with queries |
//! | `route.rs` | which lists are nearest to a query |
//! | `groups.rs` | many lists in groups, so that a query is not compared with all |
//! | `order.rs` | lists in an order in which neighbours lie together |
//! | `search.rs` | queries of a batch meet on their lists and share the tiles of each |
//! | `matches.rs` | what a filter leaves of the lists, and how far its queries go |
//! | `pool.rs` | the best estimates of one query |
//! | `train.rs` | frame, centroids and coders for rows like those of a sample |
//! | `assign.rs` | the lists that rows go to, and rows on their way there |
//! | `update.rs` | lists with rows added, dead rows dropped, or rows renumbered |
//! | `carry.rs` | rows that come from lists that were trained alike |
//!
//! A list is a small exact search: its rows are packed as [`crate::exact`] packs them, multiplied with all queries that
//! came to it, and compared in registers with what each query has found so far.

mod assign;
mod block;
mod carry;
mod coding;
mod frame;
mod groups;
mod matches;
mod order;
mod packed;
mod pool;
mod route;
mod search;
mod train;
mod update;

use std::sync::Arc;

pub use assign::{Assigned, Assigner, Coded};
pub use block::{BLOCK_PLACES, Block, List, Panel, Term};
pub use coding::{Codec, CodedQueries, Coding, EXACT_BELOW, Loss, QueryCodes, Scratch as CodingScratch};
pub use frame::Frame;
pub use groups::Grouping;
pub use matches::{Matches, Trail};
use nearest_kernels::{Kernels, PANEL_ROWS};
pub use pool::Estimate;
pub use route::{FLAT_UP_TO, Numbers, Probes, Reach, Router, Scratch as RouteScratch, Wanted};
pub use search::{Goal, Kept, ListSearch, Pair, PairBuffers};
pub use train::{Codes, Plan, train};
pub use update::{Entries, Packer};

use crate::coder::Coder;
use crate::metric::Metric;

/// How much farther from their centroids rows put in later are on average before lists are made anew.
const DRIFT: f64 = 1.5;

/// Lists as they were when they were published.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Centroids.
    pub router: Arc<Router>,
    /// Codes.
    pub coding: Arc<Coding>,
    /// Codes of whole rows that are kept beside the lists.
    pub second: Option<Arc<Second>>,
    /// Rows whose second list loses at most this much more get a second copy.
    pub spill_gap: f32,
    /// For the efforts of [`efforts`], by how much scores of lists may be below the best so that a query goes to so many
    /// lists on average; nothing: every query goes to as many.
    pub gaps: Vec<f32>,
    /// The mean squared distance of the rows it was trained on from their centroids.
    pub distance: f64,
    /// How many rows it was made for.
    pub made_for: u64,
    /// Rows put in since, and the sum of their squared distances from their centroids.
    pub added: (u64, f64),
    /// Rows in the lists, dead ones included, second copies not.
    pub n_rows: usize,
    /// The rows of each list.
    pub lists: Arc<Vec<Arc<List>>>,
}

/// Efforts for which gaps are kept: 1, 2, 3, 4, 6, 8, 12, … and all lists.
pub fn efforts(n_lists: usize) -> impl Iterator<Item = usize> {
    let steps = (0..31).flat_map(|i| [1usize << i, 3usize << i >> 1]);
    let mut last = 0;
    let rising = steps.take_while(move |&effort| effort < n_lists).filter(move |&effort| {
        let rises = effort > last;
        last = effort;
        rises
    });
    rising.chain(std::iter::once(n_lists))
}

/// Rows coded a second time, as a whole, to be compared again: scale and bias (float32), then the code.
#[derive(Clone, Debug)]
pub struct Second {
    /// Codes of rows of the frame.
    pub coder: Coder,
    metric: Metric,
}

impl Second {
    /// Rows coded by `coder`.
    pub fn new(coder: Coder, metric: Metric) -> Self {
        Self { coder, metric }
    }

    /// Bytes that are kept of a row.
    pub fn kept_bytes(&self) -> usize {
        8 + self.coder.code_bytes()
    }

    /// What the score of a row has besides its product with the query.
    pub fn bias(&self, kernels: &Kernels, framed: &[f32]) -> f64 {
        match self.metric {
            Metric::InnerProduct => 0.0,
            _ => -0.5 * kernels.canonical_squared_norm(framed),
        }
    }

    /// Appends what is kept of a row: the code of these numbers, and a bias.
    pub fn keep(
        &self,
        kernels: &Kernels,
        values: &[f32],
        bias: f64,
        kept: &mut Vec<u8>,
        scratch: &mut CodingScratch,
    ) {
        let start = kept.len() + 8;
        kept.resize(start + self.coder.code_bytes(), 0);
        let (head, code) = kept.split_at_mut(start);
        let terms = self.coder.encode(kernels, values, code, &mut scratch.coder);
        head[start - 8..start - 4].copy_from_slice(&terms.scale.to_le_bytes());
        head[start - 4..].copy_from_slice(&(bias as f32).to_le_bytes());
    }

    fn parts(kept: &[u8]) -> (f32, f32, &[u8]) {
        let (scale, rest) = kept.split_first_chunk().expect("a scale, a bias and a code");
        let (bias, code) = rest.split_first_chunk().expect("a scale, a bias and a code");
        (f32::from_le_bytes(*scale), f32::from_le_bytes(*bias), code)
    }

    /// The numbers that are kept as these bytes.
    pub fn decode(&self, kept: &[u8], out: &mut [f32]) {
        let (scale, _, code) = Self::parts(kept);
        self.coder.decode(code, scale, out);
    }

    /// Scores of rows that are kept as these bytes, from the codes of one query; nothing where codes are not bytes.
    ///
    /// `query` holds the codes v, and one unit of them is worth `unit`.
    pub fn scores(
        &self,
        kernels: &Kernels,
        (query, unit): (&[i8], f32),
        rows: &[&[u8]],
        bytes: &mut Vec<u8>,
        scores: &mut Vec<f32>,
    ) -> Option<()> {
        if !self.coder.is_identity() {
            return None;
        }
        // Bytes with the top bit flipped are what is above 128, signed.
        bytes.clear();
        rows.iter().for_each(|kept| bytes.extend(kept[8..].iter().map(|byte| byte ^ 0x80)));
        let mut sums = vec![0; rows.len()];
        let query = &query[..self.coder.dim()];
        kernels.dot::<i8>(query, nearest_kernels::Rows::Contiguous(bytemuck::cast_slice(bytes)), &mut sums);
        scores.clear();
        scores.extend(rows.iter().zip(sums).map(|(kept, sum)| {
            let (scale, bias, _) = Self::parts(kept);
            unit * scale * sum as f32 + bias
        }));
        Some(())
    }
}

impl Lists {
    /// No rows yet.
    pub fn new(
        router: Router,
        coding: Coding,
        second: Option<Second>,
        spill_gap: f32,
        distance: f64,
    ) -> Self {
        let lists = Arc::new((0..router.n_lists()).map(|_| Arc::default()).collect());
        let (router, coding, second) = (Arc::new(router), Arc::new(coding), second.map(Arc::new));
        Self {
            router,
            coding,
            second,
            spill_gap,
            gaps: Vec::new(),
            distance,
            made_for: 0,
            added: (0, 0.0),
            n_rows: 0,
            lists,
        }
    }

    /// How many lists.
    pub fn n_lists(&self) -> usize {
        self.lists.len()
    }

    /// By how much scores may be below the best where a query is to go to `n_probe` lists on average.
    pub fn gap(&self, n_probe: usize) -> Option<f32> {
        let above = efforts(self.n_lists()).position(|effort| effort >= n_probe)?;
        let gap = *self.gaps.get(above)?;
        let Some(before) = above.checked_sub(1) else { return Some(gap) };
        let mut around = efforts(self.n_lists()).skip(before);
        let (low, high) = (around.next()? as f32, around.next()? as f32);
        Some(self.gaps[before] + (gap - self.gaps[before]) * (n_probe as f32 - low) / (high - low))
    }

    /// Rows in all lists, dead ones and second copies included.
    pub fn n_entries(&self) -> usize {
        self.lists.iter().map(|list| list.n_rows()).sum()
    }

    /// How much farther from their centroids rows are that were put in since training, as a factor of squared distances.
    pub fn drift(&self) -> f64 {
        let (n, sum) = self.added;
        if n == 0 || self.distance <= 0.0 { 1.0 } else { sum / n as f64 / self.distance }
    }

    /// Whether it should be made anew: there are many more rows than it was made for, if more would make it better, or most
    /// are of another kind.
    pub fn is_outgrown(&self, n_live: usize, would_gain: bool) -> bool {
        let grown = would_gain && n_live as u64 / 4 >= self.made_for.max(1);
        grown || (self.added.0 >= (n_live as u64).div_ceil(2) && self.drift() > DRIFT)
    }

    /// Bytes of codes, terms, row numbers and centroids.
    pub fn memory_bytes(&self) -> usize {
        self.lists.iter().map(|list| list.n_bytes()).sum::<usize>() + self.router.memory_bytes()
    }

    /// The place of a row that is in a list; nothing if it is not there.
    pub fn place(&self, list: u32, row: crate::column::Row) -> Option<u32> {
        let blocks = self.lists.get(list as usize)?.blocks.iter().zip(0u32..);
        let mut panels =
            blocks.flat_map(|(block, i)| block.panels().zip(0u32..).map(move |(panel, j)| (panel, i, j)));
        // Whole panels are compared at once; few have the row.
        let (panel, block, number) = panels.find(|(panel, ..)| panel.rows.contains(&row))?;
        let at = panel.rows.iter().position(|&other| other == row)?;
        Some(block * BLOCK_PLACES as u32 + number * PANEL_ROWS as u32 + at as u32)
    }

    /// The block of a place of a list, and the place in it.
    pub fn block(&self, list: u32, place: u32) -> (&Block, usize) {
        // All but the last are full.
        let (block, at) = (place as usize / BLOCK_PLACES, place as usize % BLOCK_PLACES);
        (&self.lists[list as usize].blocks[block], at)
    }

    /// Asks for what [`Lists::decode_at`] will read.
    pub fn prefetch_at(&self, list: u32, place: u32) {
        let (block, at) = self.block(list, place);
        let (panel, row) = (block.panel(at / PANEL_ROWS), at % PANEL_ROWS);
        if self.coding.is_bytes() {
            for group in panel.codes.chunks_exact(4 * PANEL_ROWS) {
                nearest_kernels::prefetch(&group[4 * row..4 * row + 4]);
            }
        } else {
            nearest_kernels::prefetch(panel.codes);
        }
    }

    /// The vector at a place of a list, as the bytes of the integers it is made of. Only where codes are these.
    pub fn native_at(&self, list: u32, place: u32, out: &mut [u8]) {
        let (block, at) = self.block(list, place);
        self.coding.native_row(block.panel(at / PANEL_ROWS).codes, at % PANEL_ROWS, out);
    }

    /// The vector at a place of a list, in the frame. Only where codes are relative to centroids.
    pub fn decode_at(&self, kernels: &Kernels, list: u32, place: u32, bytes: &mut Vec<u8>, out: &mut [f32]) {
        let (block, at) = self.block(list, place);
        let (panel, row) = (block.panel(at / PANEL_ROWS), at % PANEL_ROWS);
        let centroid = self.router.centroid(list);
        self.coding.decode_in_panel(kernels, (panel.codes, row), panel.scales[row], centroid, bytes, out);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn efforts_rise_to_all_lists() {
        let efforts = |n| super::efforts(n).collect::<Vec<_>>();
        assert_eq!(efforts(1), [1]);
        assert_eq!(efforts(20), [1, 2, 3, 4, 6, 8, 12, 16, 20]);
        assert_eq!(efforts(1 << 20).len(), 40);
    }
}
