//! Many lists in groups: a query is compared with the centres of groups, then with the centroids of the nearest groups only.
//!
//! Lists of a group have numbers side by side, so that a group is a range of centroids, and what is near lies together in a
//! file. Nearest groups first, a query is compared with eight times the lists it goes to, and if it still goes to some of the
//! last ones, with more: how many that must be depends on the query, the data and the number of lists.
//!
//! Measured: the share of the lists that a comparison with all finds, and centroids compared (photos, 70 000 lists, 39 and 161
//! lists a query): 0.982 and 0.951 with 4 096 of them, 0.994 and 0.995 if more are compared where that promises something.
//! Groups of half the size miss a third less of 4 096, and take a third longer: more centres, more panels that are not full.
//!
//! Queries of a block share the tiles of the groups as they share those of lists. Scores do not depend on who shares them.

use std::ops::Range;
use std::sync::OnceLock;

use nearest_kernels::{Kernels, panel_depth};

use super::coding::CodedQueries;
use super::packed::Packed;
use super::route::{best_first, largest};
use crate::error::{Error, Result};
use crate::kmeans;
use crate::metric::Metric;
use crate::work::Work;

/// Groups are so many times the square root of the lists.
const PER_ROOT: usize = 4;
/// A query is compared with so many times the lists it goes to on average,
const CANDIDATES_PER_LIST: usize = 8;
/// and with as many as so many groups hold on average.
const LEAST_GROUPS: usize = 64;
/// If more than this share of the lists it goes to are in the farther half of the groups, it is compared with twice as many,
const TAIL: f64 = 0.06;
/// so often at most.
pub const DOUBLINGS: usize = 3;
/// Queries whose codes stay in cache with a panel.
const TILE_QUERIES: usize = 96;
/// Queries that are compared together, at most, and scores that are held for them, about.
const BLOCK_QUERIES: usize = 1024;
const BLOCK_SCORES: usize = 2 << 20;

/// How many queries are compared together with so many lists each.
pub fn queries_at_once(candidates: usize) -> usize {
    (BLOCK_SCORES / candidates.max(1)).clamp(1, BLOCK_QUERIES)
}

/// Which lists are in which group.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    /// Row-major.
    pub centres: Vec<f32>,
    /// Where the lists of each group end.
    pub ends: Vec<u32>,
}

impl Grouping {
    /// Groups centroids, and puts those of a group side by side.
    pub fn new(centroids: &mut Vec<f32>, dim: usize, seed: u64, work: &Work<'_>) -> Result<Self> {
        let n_lists = centroids.len() / dim;
        let n_groups = (PER_ROOT * n_lists.isqrt()).clamp(1, n_lists.max(1));
        let kmeans::Grouped { centres, order, ends } = kmeans::grouped(centroids, dim, n_groups, seed, work)?;
        *centroids =
            order.iter().flat_map(|&list| &centroids[list as usize * dim..][..dim]).copied().collect();
        Ok(Self { centres, ends })
    }

    /// An error unless `n_lists` lists can be in such groups; their centres are of `dim` numbers each.
    pub fn check(&self, n_lists: usize, dim: usize) -> Result<()> {
        let n_groups = self.ends.len();
        if n_groups == 0 || n_groups > n_lists || self.centres.len() != n_groups * dim {
            return Err(Error::format(format!(
                "there must be 1 to {n_lists} groups of lists, got {n_groups}"
            )));
        }
        if !Kernels::best().all_finite(&self.centres) {
            return Err(Error::format("centres of groups of lists must be finite numbers"));
        }
        if !self.ends.is_sorted() || self.ends.last().is_none_or(|&end| end as usize != n_lists) {
            return Err(Error::format(format!(
                "groups of lists must end one after the other, the last at {n_lists}"
            )));
        }
        Ok(())
    }
}

/// Groups, ready to be compared with queries.
#[derive(Clone, Debug)]
pub struct Groups {
    metric: Metric,
    dim: usize,
    grouping: Grouping,
    centres: Packed,
    /// Centroids of each group, packed when a query first goes there: files of many lists open as fast as others.
    packed: Vec<OnceLock<Box<Packed>>>,
}

impl Groups {
    /// Takes groups whose ends [`Grouping::check`] would not mind.
    pub fn new(kernels: &Kernels, metric: Metric, dim: usize, grouping: Grouping) -> Self {
        let centres = Packed::new(kernels, metric, dim, &grouping.centres);
        let packed = grouping.ends.iter().map(|_| OnceLock::new()).collect();
        Self { metric, dim, grouping, centres, packed }
    }

    /// Which lists are in which group.
    pub fn grouping(&self) -> &Grouping {
        &self.grouping
    }

    /// How many groups.
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// The lists of a group.
    pub fn lists(&self, group: usize) -> Range<usize> {
        let start = if group == 0 { 0 } else { self.grouping.ends[group - 1] };
        start as usize..self.grouping.ends[group] as usize
    }

    /// A group's centroids, packed; `centroids` are those of all lists.
    pub fn packed(&self, kernels: &Kernels, group: usize, centroids: &[f32]) -> &Packed {
        self.packed[group].get_or_init(|| {
            let lists = self.lists(group);
            let values = &centroids[lists.start * self.dim..lists.end * self.dim];
            Box::new(Packed::new(kernels, self.metric, self.dim, values))
        })
    }

    /// How many lists a query is compared with at first that goes to `n_probe` of them on average.
    pub fn candidates(&self, n_probe: usize) -> usize {
        let (n_groups, n_lists) = (self.len(), self.lists(self.len() - 1).end);
        let least = (LEAST_GROUPS * n_lists).div_ceil(n_groups);
        n_probe.saturating_mul(CANDIDATES_PER_LIST).max(least).min(n_lists)
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        let packed = self.packed.iter().filter_map(OnceLock::get).map(|packed| packed.memory_bytes());
        let Grouping { centres, ends } = &self.grouping;
        packed.sum::<usize>()
            + self.centres.memory_bytes()
            + size_of_val(&centres[..])
            + size_of_val(&ends[..])
            + size_of_val(&self.packed[..])
    }

    /// Compares queries with at least `candidates` lists each, those of the nearest groups. Where they are among those that
    /// `before` holds, which says of each query the place there, they are not compared with the same lists again.
    pub fn compare(
        &self,
        kernels: &Kernels,
        centroids: &[f32],
        (queries, numbers): (&CodedQueries, &[u32]),
        (by_distance, candidates): (bool, usize),
        before: Option<(&Near, &[u32])>,
        near: &mut Near,
    ) {
        let depth = panel_depth(self.dim);
        near.clear();
        for part in numbers.chunks(TILE_QUERIES) {
            self.choose(kernels, queries, part, by_distance, candidates, near);
        }
        let Near { groups, group_ends, starts, halves, offsets, scores, pairs, together, tile, .. } = near;
        let (mut at, mut first) = (0, 0);
        for (i, (&query, &end)) in numbers.iter().zip(&*group_ends).enumerate() {
            let known = before.map_or(0, |(before, places)| before.of(places[i] as usize).len());
            let start = at;
            for (nth, &group) in groups[first..end].iter().enumerate() {
                let lists = self.lists(group as usize);
                if nth >= known {
                    pairs.push(Pair { group, query, start: at });
                }
                if at - start < candidates / 2 {
                    halves[i] = (at + lists.len() - start) as u32;
                }
                starts.push(at);
                offsets.push(lists.start as u32);
                at += lists.len();
            }
            first = end;
        }
        starts.push(at);
        // All places are written.
        scores.resize(at, 0.0);
        if let Some((before, places)) = before {
            let mut first = 0;
            for (&place, &end) in places.iter().zip(&*group_ends) {
                let known = before.scores(place as usize);
                scores[starts[first]..][..known.len()].copy_from_slice(known);
                first = end;
            }
        }
        pairs.sort_unstable_by_key(|pair| (pair.group, pair.query));
        for of_group in pairs.chunk_by(|a, b| a.group == b.group) {
            let group = of_group[0].group as usize;
            let n_lists = self.lists(group).len();
            if n_lists == 0 {
                continue;
            }
            let packed = self.packed(kernels, group, centroids);
            let places = packed.places();
            for part in of_group.chunks(TILE_QUERIES) {
                together.clear();
                part.iter().for_each(|pair| together.take(queries, pair.query as usize, depth));
                tile.resize(part.len() * places, 0.0);
                packed.scores(kernels, by_distance, &together.panel(0..part.len(), depth), tile);
                for (pair, found) in part.iter().zip(tile.chunks_exact(places)) {
                    scores[pair.start..pair.start + n_lists].copy_from_slice(&found[..n_lists]);
                }
            }
        }
    }

    /// The nearest groups of each query, nearest first.
    fn choose(
        &self,
        kernels: &Kernels,
        queries: &CodedQueries,
        numbers: &[u32],
        by_distance: bool,
        candidates: usize,
        near: &mut Near,
    ) {
        let Near { groups, group_ends, halves, together, tile, best, maxima, .. } = near;
        let (n_groups, n_lists) = (self.len(), self.lists(self.len() - 1).end);
        let (depth, places) = (panel_depth(self.dim), self.centres.places());
        // A quarter more than those of the mean size.
        let enough = ((candidates * n_groups).div_ceil(n_lists) * 5 / 4 + 1).min(n_groups);
        together.clear();
        numbers.iter().for_each(|&query| together.take(queries, query as usize, depth));
        tile.resize(numbers.len() * places, 0.0);
        self.centres.scores(kernels, by_distance, &together.panel(0..numbers.len(), depth), tile);
        for scores in tile.chunks_exact(places) {
            let mut n = enough;
            loop {
                largest(&scores[..n_groups], n, maxima, best);
                best.sort_unstable_by(best_first);
                let mut held = 0;
                let last = best.iter().position(|&(_, group)| {
                    held += self.lists(group as usize).len();
                    held >= candidates
                });
                if let Some(last) = last {
                    best.truncate(last + 1);
                    groups.extend(best.iter().map(|best| best.1));
                    break;
                }
                if n == n_groups {
                    // Centres without a score come last: of numbers that float32 cannot hold.
                    groups.extend(best.iter().map(|best| best.1));
                    groups.extend((0..n_groups as u32).filter(|&group| scores[group as usize].is_nan()));
                    break;
                }
                n = (2 * n).min(n_groups);
            }
            group_ends.push(groups.len());
            halves.push(0);
        }
    }
}

/// A query and a group it is compared with.
#[derive(Clone, Copy, Debug)]
struct Pair {
    group: u32,
    query: u32,
    /// Where its scores go.
    start: usize,
}

/// The lists that queries were compared with, and their scores: of each query those of the nearest group first.
#[derive(Debug, Default)]
pub struct Near {
    groups: Vec<u32>,
    /// Where the groups of each query end.
    group_ends: Vec<usize>,
    /// For each group of a query where its scores start, and where the last ones end.
    starts: Vec<usize>,
    /// For each of them its first list.
    offsets: Vec<u32>,
    /// How many lists of each query are in the nearer groups, which hold half of those it was to be compared with.
    halves: Vec<u32>,
    scores: Vec<f32>,
    pairs: Vec<Pair>,
    /// Codes of queries that meet on a group.
    together: CodedQueries,
    tile: Vec<f32>,
    best: Vec<(f32, u32)>,
    maxima: Vec<f32>,
}

impl Near {
    fn clear(&mut self) {
        self.groups.clear();
        self.group_ends.clear();
        self.starts.clear();
        self.offsets.clear();
        self.halves.clear();
        self.pairs.clear();
    }

    /// The groups of the `i`-th query.
    fn of(&self, i: usize) -> Range<usize> {
        let start = if i == 0 { 0 } else { self.group_ends[i - 1] };
        start..self.group_ends[i]
    }

    /// The scores of the `i`-th query.
    pub fn scores(&self, i: usize) -> &[f32] {
        let of = self.of(i);
        &self.scores[self.starts[of.start]..self.starts[of.end]]
    }

    /// The list that one of these scores is of.
    pub fn list(&self, i: usize, place: u32) -> u32 {
        let of = self.of(i);
        let starts = &self.starts[of.clone()];
        let at = starts[0] + place as usize;
        // The last that does not start behind it: those without lists start where the next one does.
        let group = starts.partition_point(|&start| start <= at) - 1;
        self.offsets[of.start + group] + (at - starts[group]) as u32
    }

    /// Whether so few of the lists that the `i`-th query goes to are in the farther groups that hardly any are beyond.
    pub fn is_enough(&self, i: usize, best: &[(f32, u32)]) -> bool {
        let farther = best.iter().filter(|best| best.1 >= self.halves[i]).count();
        farther as f64 <= TAIL * best.len() as f64
    }
}
