//! Which lists are nearest to a query.
//!
//! Centroids are a small set of rows, packed in 8 bits: all queries of a batch are multiplied with all of them. The score is
//! that of a row (see `coding.rs`); the inner products of a query with the centroids it goes to are computed again in
//! float32, because estimates of rows are relative to them.

use nearest_kernels::{Kernels, PANEL_ROWS, PanelQueries, PanelRows, Rows, pack_panel_bytes, panel_depth};

use super::coding::CodedQueries;
use super::matches::{Matches, Trail};
use crate::metric::Metric;

/// Centroids, ready to be compared with queries.
#[derive(Clone, Debug)]
pub struct Router {
    dim: usize,
    /// Row-major.
    centroids: Vec<f32>,
    panels: Vec<u8>,
    scales: Vec<f32>,
    /// What centroids add to the score of queries.
    biases: Vec<f32>,
    /// −‖c‖²/2.
    norms: Vec<f32>,
}

/// Buffers for routing.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    best: Vec<(f32, u32)>,
    maxima: Vec<f32>,
}

/// Lists whose mean score others are measured against.
pub const NEAREST: usize = 8;
/// A query goes to so many times the average, at most.
const MOST: usize = 8;
/// Of so many times more lists are the nearest looked for, where a filter leaves too few rows in those that were.
const FARTHER: usize = 4;

/// The lists that queries go to.
#[derive(Debug, Default)]
pub struct Probes {
    /// Where the lists of each query end.
    pub ends: Vec<usize>,
    /// The lists; nearest first if there is one query.
    pub lists: Vec<u32>,
    /// What the query's inner product with each centroid is.
    pub bases: Vec<f32>,
}

impl Probes {
    fn clear(&mut self) {
        self.ends.clear();
        self.lists.clear();
        self.bases.clear();
    }

    /// Places of a query's lists.
    pub fn of(&self, query: usize) -> std::ops::Range<usize> {
        let start = if query == 0 { 0 } else { self.ends[query - 1] };
        start..self.ends[query]
    }
}

/// How many lists a query goes to.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// Lists: so many, or, with a gap, so many on average.
    pub n_probe: usize,
    /// By how much the score of a list may be below the mean of the [`NEAREST`] best. A query with many lists about as near as
    /// the nearest goes to more of them, one whose nearest stand out to fewer.
    pub gap: Option<f32>,
    /// Where a filter leads.
    pub wanted: Option<Wanted<'a>>,
    /// Whether the nearest are meant even where queries go by inner products: rows go to lists by distance.
    pub by_distance: bool,
}

/// What a filter asks of the lists: only those with rows that may be found, and so far that these are as many as a query wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Which rows may be found.
    pub matches: &'a Matches<'a>,
    /// Where each query was already, and how many rows it wants.
    pub trails: &'a [Trail],
    /// The queries, among the trails.
    pub queries: &'a [u32],
}

impl Router {
    /// Packs centroids.
    pub fn new(kernels: &Kernels, metric: Metric, dim: usize, centroids: Vec<f32>) -> Self {
        let depth = panel_depth(dim);
        let n = centroids.len() / dim;
        let n_panels = n.div_ceil(PANEL_ROWS);
        let mut codes = vec![0; n * dim];
        let zeros = vec![0.0; dim];
        let mut scales = vec![0.0; n_panels * PANEL_ROWS];
        let mut norms = vec![f32::NEG_INFINITY; n_panels * PANEL_ROWS];
        for (i, (centroid, code)) in centroids.chunks_exact(dim).zip(codes.chunks_exact_mut(dim)).enumerate()
        {
            let coded = kernels.quantise_row(centroid, &zeros, code);
            scales[i] = coded.scale;
            norms[i] = (-0.5 * kernels.canonical_squared_norm(centroid)) as f32;
        }
        let biases = match metric {
            Metric::InnerProduct => {
                norms.iter().map(|norm| if norm.is_finite() { 0.0 } else { *norm }).collect()
            }
            _ => norms.clone(),
        };
        let mut panels = vec![0; n_panels * PANEL_ROWS * depth];
        for (codes, panel) in codes.chunks(PANEL_ROWS * dim).zip(panels.chunks_exact_mut(PANEL_ROWS * depth))
        {
            pack_panel_bytes(codes, dim, panel);
        }
        Self { dim, centroids, panels, scales, biases, norms }
    }

    /// Numbers a centroid.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many lists there are.
    pub fn n_lists(&self) -> usize {
        self.centroids.len() / self.dim
    }

    /// All centroids, row-major.
    pub fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// One centroid.
    pub fn centroid(&self, list: u32) -> &[f32] {
        &self.centroids[list as usize * self.dim..][..self.dim]
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.panels.len() + 4 * (self.centroids.len() + 3 * self.scales.len())
    }

    /// The scores of all lists with one framed query, in float32.
    pub fn scores(&self, kernels: &Kernels, query: &[f32], scores: &mut Vec<f32>) {
        scores.resize(self.n_lists(), 0.0);
        kernels.dot::<f32>(query, Rows::Contiguous(&self.centroids), scores);
        scores.iter_mut().zip(&self.biases).for_each(|(score, bias)| *score += bias);
    }

    /// The nearest lists of each query, as many as `reach` asks for.
    pub fn route(
        &self,
        kernels: &Kernels,
        framed: &[f32],
        queries: &CodedQueries,
        reach: Reach<'_>,
        probes: &mut Probes,
        scratch: &mut Scratch,
    ) {
        const GROUP: usize = 96;
        let (n, depth, places) = (queries.start.len(), panel_depth(self.dim), self.scales.len());
        let n_lists = self.n_lists();
        let n_probe = reach.n_probe.min(n_lists);
        let biases = if reach.by_distance { &self.norms } else { &self.biases };
        probes.clear();
        scratch.scores.resize(GROUP.min(n) * places, 0.0);
        for first in (0..n).step_by(GROUP) {
            let group = first..(first + GROUP).min(n);
            let tile = PanelQueries {
                codes: &queries.codes[group.start * depth..group.end * depth],
                start: &queries.start[group.clone()],
                weight: &queries.weight[group.clone()],
                threshold: &[],
                mutual_threshold: &[],
            };
            for (panel, bytes) in self.panels.chunks_exact(PANEL_ROWS * depth).enumerate() {
                let at = panel * PANEL_ROWS;
                let rows = PanelRows {
                    panel: bytes,
                    scale: self.scales[at..].first_chunk().expect("32 places a panel"),
                    bias: biases[at..].first_chunk().expect("32 places a panel"),
                    mutual: None,
                };
                kernels.estimates_i8(&rows, &tile, &mut scratch.scores[at..], places);
            }
            for (i, query) in group.enumerate() {
                let scores = &scratch.scores[i * places..][..n_lists];
                let (best, maxima) = (&mut scratch.best, &mut scratch.maxima);
                match reach.gap.filter(|_| n_probe < n_lists) {
                    None => largest(scores, n_probe, maxima, best),
                    Some(gap) => {
                        let unit = queries.unit[query];
                        within(scores, gap / unit, (n_probe * MOST).min(n_lists), maxima, best);
                    }
                }
                if n == 1 || reach.wanted.is_some() {
                    best.sort_unstable_by(order);
                }
                if let Some(Wanted { matches, trails, queries }) = reach.wanted {
                    let (trail, n_within) = (&trails[queries[query] as usize], best.len());
                    let mut n_best = n_within.max(1);
                    while n_best < n_lists && matches.n_in(best) < trail.wanted {
                        n_best = (n_best * FARTHER).min(n_lists);
                        largest(scores, n_best, maxima, best);
                        best.sort_unstable_by(order);
                    }
                    trail.cut(best, n_within, matches);
                }
                let framed = &framed[query * self.dim..][..self.dim];
                probes.lists.extend(best.iter().map(|best| best.1));
                probes.ends.push(probes.lists.len());
                let mut bases = [0.0; 16];
                for best in best.chunks(16) {
                    let mut rows: [&[f32]; 16] = [&[]; 16];
                    rows.iter_mut().zip(best).for_each(|(row, best)| *row = self.centroid(best.1));
                    let bases = &mut bases[..best.len()];
                    kernels.dot::<f32>(framed, Rows::Scattered(&rows[..best.len()]), bases);
                    probes.bases.extend_from_slice(bases);
                }
            }
        }
    }
}

/// The `n` largest values and their places, ties by place, in no order.
fn largest(values: &[f32], n: usize, maxima: &mut Vec<f32>, out: &mut Vec<(f32, u32)>) {
    const LANES: usize = 8;
    out.clear();
    let n = n.min(values.len());
    if n == 0 {
        return;
    }
    // Of the largest values of some 3 n groups the n-th largest is a bound that n values reach, and few more.
    let n_groups = (3 * n).next_multiple_of(LANES);
    let mut limit = f32::NEG_INFINITY;
    if 2 * n_groups <= values.len() {
        let (first, rest) = values.split_at(n_groups);
        maxima.clear();
        maxima.extend_from_slice(first);
        for chunk in rest.chunks(n_groups) {
            // Group by group, so that many are compared at once.
            for (largest, &value) in maxima.iter_mut().zip(chunk) {
                *largest = if value > *largest { value } else { *largest };
            }
        }
        limit = *maxima.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1;
    }
    for (c, chunk) in values.chunks(LANES).enumerate() {
        let above = chunk.iter().fold(false, |any, &value| any | (value >= limit));
        if above {
            let reached = chunk.iter().zip((c * LANES) as u32..).filter(|(value, _)| **value >= limit);
            out.extend(reached.map(|(&value, place)| (value, place)));
        }
    }
    if out.len() > n {
        out.select_nth_unstable_by(n - 1, order);
        out.truncate(n);
    }
}

/// The places of values at most `gap` below the mean of the [`NEAREST`] largest: the largest of all at least, and no more
/// than `most`.
fn within(values: &[f32], gap: f32, most: usize, maxima: &mut Vec<f32>, out: &mut Vec<(f32, u32)>) {
    const LANES: usize = 8;
    largest(values, NEAREST, maxima, out);
    let first = out.iter().copied().min_by(order);
    let limit = out.iter().map(|best| best.0).sum::<f32>() / out.len() as f32 - gap;
    out.clear();
    for (c, chunk) in values.chunks(LANES).enumerate() {
        let above = chunk.iter().fold(false, |any, &value| any | (value >= limit));
        if above {
            let reached = chunk.iter().zip((c * LANES) as u32..).filter(|(value, _)| **value >= limit);
            out.extend(reached.map(|(&value, place)| (value, place)));
        }
    }
    if out.len() > most {
        out.select_nth_unstable_by(most - 1, order);
        out.truncate(most);
    }
    if out.is_empty() {
        out.extend(first);
    }
}

fn order(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_largest_come_first(values in prop::collection::vec(-20i8..20, 0..300), n in 0usize..80) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut expected: Vec<(f32, u32)> = values.iter().copied().zip(0..).collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            expected.truncate(n);
            let mut found = Vec::new();
            largest(&values, n, &mut Vec::new(), &mut found);
            found.sort_by(order);
            prop_assert_eq!(found, expected);
        }
    }
}
