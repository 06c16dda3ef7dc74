//! Which lists are nearest to a query.
//!
//! Centroids are a small set of rows, packed in 8 bits (`packed.rs`): all queries of a batch are multiplied with all of them, or,
//! where there are very many, with those of the groups that are nearest to each (`groups.rs`). The score is that of a row (see
//! `coding.rs`); the inner products of a query with the centroids it goes to are computed again in float32, because estimates
//! of rows are relative to them.

use std::sync::{Arc, OnceLock};

use nearest_kernels::{Kernels, Rows, panel_depth};

use super::coding::CodedQueries;
use super::groups::{self, Grouping, Groups};
use super::matches::{Matches, Trail};
use super::order;
use super::packed::Packed;
use crate::memory::Slots;
use crate::metric::Metric;

/// Up to so many lists a query is compared with all centroids.
pub const FLAT_UP_TO: usize = 1 << 16;
/// Queries that are compared with all centroids together.
const TILE_QUERIES: usize = 96;

/// Numbers in memory, or in the pages of a file.
#[derive(Clone, Debug)]
pub enum Numbers {
    /// Of their own.
    Owned(Vec<f32>),
    /// Of a file.
    Stored(Arc<Slots<f32>>),
}

impl Numbers {
    fn values(&self) -> &[f32] {
        match self {
            Numbers::Owned(values) => values,
            Numbers::Stored(slots) => slots.published(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Numbers::Owned(values) => size_of_val(&values[..]),
            Numbers::Stored(slots) => slots.memory_bytes(),
        }
    }
}

impl From<Vec<f32>> for Numbers {
    fn from(values: Vec<f32>) -> Self {
        Numbers::Owned(values)
    }
}

/// Centroids, ready to be compared with queries.
#[derive(Clone, Debug)]
pub struct Router {
    dim: usize,
    /// Row-major.
    centroids: Numbers,
    levels: Levels,
    /// Made when first asked for.
    ranks: OnceLock<Vec<u32>>,
}

#[derive(Clone, Debug)]
enum Levels {
    One(Packed),
    Two(Groups),
}

/// Buffers for routing.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    best: Vec<(f32, u32)>,
    maxima: Vec<f32>,
    levels: LevelScratch,
}

/// Buffers for routing by groups.
#[derive(Debug, Default)]
struct LevelScratch {
    near: groups::Near,
    /// What queries were compared with before that are compared with more.
    before: groups::Near,
    /// These queries, and their places there.
    open: Vec<u32>,
    places: Vec<u32>,
    still_open: Vec<u32>,
    /// What each query found, in `best`.
    found: Vec<(usize, usize)>,
    best: Vec<(f32, u32)>,
    one: Vec<(f32, u32)>,
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
    /// Forgets all.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.lists.clear();
        self.bases.clear();
    }

    /// Adds the lists of one query of others.
    pub fn take(&mut self, other: &Self, query: usize) {
        let of = other.of(query);
        self.lists.extend_from_slice(&other.lists[of.clone()]);
        self.bases.extend_from_slice(&other.bases[of]);
        self.ends.push(self.lists.len());
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
    /// Packs centroids; a query is compared with all.
    pub fn new(kernels: &Kernels, metric: Metric, dim: usize, centroids: impl Into<Numbers>) -> Self {
        let centroids = centroids.into();
        let levels = Levels::One(Packed::new(kernels, metric, dim, centroids.values()));
        Self { dim, centroids, levels, ranks: OnceLock::new() }
    }

    /// Takes centroids that lie in groups, as [`Grouping::new`] orders them; a query is compared with those of some groups.
    pub fn two_level(
        kernels: &Kernels,
        metric: Metric,
        dim: usize,
        centroids: impl Into<Numbers>,
        grouping: Grouping,
    ) -> Self {
        let levels = Levels::Two(Groups::new(kernels, metric, dim, grouping));
        Self { dim, centroids: centroids.into(), levels, ranks: OnceLock::new() }
    }

    /// Numbers a centroid.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many lists there are.
    pub fn n_lists(&self) -> usize {
        self.centroids().len() / self.dim
    }

    /// All centroids, row-major.
    pub fn centroids(&self) -> &[f32] {
        self.centroids.values()
    }

    /// One centroid.
    pub fn centroid(&self, list: u32) -> &[f32] {
        &self.centroids()[list as usize * self.dim..][..self.dim]
    }

    /// The groups that centroids lie in, if a query is not compared with all.
    pub fn grouping(&self) -> Option<&Grouping> {
        match &self.levels {
            Levels::One(_) => None,
            Levels::Two(groups) => Some(groups.grouping()),
        }
    }

    /// The place of each list in an order in which neighbours lie together.
    pub fn ranks(&self, kernels: &Kernels) -> &[u32] {
        self.ranks.get_or_init(|| match &self.levels {
            Levels::One(_) => order::ranks(kernels, self.centroids(), self.dim),
            // Group after group.
            Levels::Two(_) => (0..self.n_lists() as u32).collect(),
        })
    }

    /// Bytes held, without those of a map; groups that no query has gone to are not packed yet.
    pub fn memory_bytes(&self) -> usize {
        let levels = match &self.levels {
            Levels::One(packed) => packed.memory_bytes(),
            Levels::Two(groups) => groups.memory_bytes(),
        };
        self.centroids.memory_bytes() + levels + self.ranks.get().map_or(0, |ranks| 4 * ranks.len())
    }

    /// The scores of all lists with one framed query, in float32.
    pub fn scores(&self, kernels: &Kernels, query: &[f32], scores: &mut Vec<f32>) {
        scores.resize(self.n_lists(), 0.0);
        kernels.dot::<f32>(query, Rows::Contiguous(self.centroids()), scores);
        match &self.levels {
            Levels::One(packed) => packed.add_biases(scores),
            Levels::Two(groups) => {
                for group in 0..groups.len() {
                    let packed = groups.packed(kernels, group, self.centroids());
                    packed.add_biases(&mut scores[groups.lists(group)]);
                }
            }
        }
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
        let (n, n_lists, by_distance) = (queries.start.len(), self.n_lists(), reach.by_distance);
        let chooser = Chooser { reach, n_probe: reach.n_probe.min(n_lists), n_lists, is_single: n == 1 };
        probes.clear();
        let Scratch { scores, best, maxima, levels } = scratch;
        let of = |query: usize| &framed[query * self.dim..][..self.dim];
        match &self.levels {
            Levels::One(packed) => {
                let (depth, places) = (panel_depth(self.dim), packed.places());
                scores.resize(TILE_QUERIES.min(n) * places, 0.0);
                for first in (0..n).step_by(TILE_QUERIES) {
                    let block = first..(first + TILE_QUERIES).min(n);
                    packed.scores(kernels, by_distance, &queries.panel(block.clone(), depth), scores);
                    for (i, query) in block.enumerate() {
                        let scores = &scores[i * places..][..n_lists];
                        chooser.nearest(scores, queries.unit[query], maxima, best);
                        chooser.sort(best);
                        chooser.filter(query, best, |n_best, best| {
                            largest(scores, n_best, maxima, best);
                        });
                        self.go(kernels, of(query), best, probes);
                    }
                }
            }
            Levels::Two(groups) => {
                let candidates = groups.candidates(chooser.n_probe);
                let step = groups::queries_at_once(candidates);
                for first in (0..n).step_by(step) {
                    let block = first..(first + step).min(n);
                    self.near(
                        kernels,
                        groups,
                        (queries, block.clone()),
                        candidates,
                        &chooser,
                        levels,
                        maxima,
                    );
                    for query in block.clone() {
                        let (start, end) = levels.found[query - block.start];
                        best.clear();
                        best.extend_from_slice(&levels.best[start..end]);
                        let far = &mut levels.near;
                        chooser.filter(query, best, |n_best, best| {
                            let one = (queries, &[query as u32][..]);
                            let wide = (by_distance, groups.candidates(n_best));
                            groups.compare(kernels, self.centroids(), one, wide, None, far);
                            largest(far.scores(0), n_best, maxima, best);
                            best.iter_mut().for_each(|best| best.1 = far.list(0, best.1));
                        });
                        self.go(kernels, of(query), best, probes);
                    }
                }
            }
        }
    }

    /// The nearest lists of a block of queries, found by groups.
    #[allow(clippy::too_many_arguments)]
    fn near(
        &self,
        kernels: &Kernels,
        groups: &Groups,
        (queries, block): (&CodedQueries, std::ops::Range<usize>),
        mut candidates: usize,
        chooser: &Chooser<'_>,
        levels: &mut LevelScratch,
        maxima: &mut Vec<f32>,
    ) {
        let LevelScratch { near, before, open, places, still_open, found, best, one } = levels;
        best.clear();
        found.clear();
        found.resize(block.len(), (0, 0));
        open.clear();
        open.extend(block.start as u32..block.end as u32);
        for round in 0..=groups::DOUBLINGS {
            let last = round == groups::DOUBLINGS || candidates == self.n_lists();
            let known = (round > 0).then_some((&*before, &places[..]));
            let wide = (chooser.reach.by_distance, candidates);
            groups.compare(kernels, self.centroids(), (queries, open), wide, known, near);
            still_open.clear();
            places.clear();
            for (i, &query) in open.iter().enumerate() {
                chooser.nearest(near.scores(i), queries.unit[query as usize], maxima, one);
                if !last && !near.is_enough(i, one) {
                    still_open.push(query);
                    places.push(i as u32);
                    continue;
                }
                one.iter_mut().for_each(|best| best.1 = near.list(i, best.1));
                chooser.sort(one);
                let start = best.len();
                best.extend_from_slice(one);
                found[query as usize - block.start] = (start, best.len());
            }
            if still_open.is_empty() {
                break;
            }
            std::mem::swap(open, still_open);
            std::mem::swap(near, before);
            candidates = (2 * candidates).min(self.n_lists());
        }
    }

    /// Sends a query to lists.
    fn go(&self, kernels: &Kernels, framed: &[f32], best: &[(f32, u32)], probes: &mut Probes) {
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

/// Chooses lists by scores: those of the lists that a query was compared with.
struct Chooser<'a> {
    reach: Reach<'a>,
    n_probe: usize,
    n_lists: usize,
    is_single: bool,
}

impl Chooser<'_> {
    /// The places of the nearest lists, in no order; `unit` is what scores are in units of.
    fn nearest(&self, scores: &[f32], unit: f32, maxima: &mut Vec<f32>, best: &mut Vec<(f32, u32)>) {
        match self.reach.gap.filter(|_| self.n_probe < self.n_lists) {
            None => largest(scores, self.n_probe, maxima, best),
            Some(gap) => within(scores, gap / unit, (self.n_probe * MOST).min(self.n_lists), maxima, best),
        }
    }

    /// Puts the nearest list first if their order matters.
    fn sort(&self, best: &mut [(f32, u32)]) {
        if self.is_single || self.reach.wanted.is_some() {
            best.sort_unstable_by(best_first);
        }
    }

    /// Leaves of the nearest lists those that a filter lets a query go to; `farther` gives as many of the nearest as are
    /// asked for, in no order.
    fn filter(
        &self,
        query: usize,
        best: &mut Vec<(f32, u32)>,
        mut farther: impl FnMut(usize, &mut Vec<(f32, u32)>),
    ) {
        let Some(Wanted { matches, trails, queries }) = self.reach.wanted else { return };
        let (trail, n_within) = (&trails[queries[query] as usize], best.len());
        let mut n_best = n_within.max(1);
        while n_best < self.n_lists && matches.n_in(best) < trail.wanted {
            n_best = (n_best * FARTHER).min(self.n_lists);
            farther(n_best, best);
            best.sort_unstable_by(best_first);
        }
        trail.cut(best, n_within, matches);
    }
}

/// The `n` largest values and their places, ties by place, in no order.
pub(super) fn largest(values: &[f32], n: usize, maxima: &mut Vec<f32>, out: &mut Vec<(f32, u32)>) {
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
        out.select_nth_unstable_by(n - 1, best_first);
        out.truncate(n);
    }
}

/// The places of values at most `gap` below the mean of the [`NEAREST`] largest: the largest of all at least, and no more
/// than `most`.
fn within(values: &[f32], gap: f32, most: usize, maxima: &mut Vec<f32>, out: &mut Vec<(f32, u32)>) {
    const LANES: usize = 8;
    largest(values, NEAREST, maxima, out);
    let first = out.iter().copied().min_by(best_first);
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
        out.select_nth_unstable_by(most - 1, best_first);
        out.truncate(most);
    }
    if out.is_empty() {
        out.extend(first);
    }
}

/// The order of scores and places: the best first, ties by place.
pub(super) fn best_first(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
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
            found.sort_by(best_first);
            prop_assert_eq!(found, expected);
        }
    }
}
