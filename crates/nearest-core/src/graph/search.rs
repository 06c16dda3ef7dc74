//! A query from its numbers to the best rows: coded, compared with hubs, walked, compared with rows that wait.

use nearest_kernels::{CodeSums, Kernels};

use super::Graph;
use super::codes::{Buffers, Chunks, Query};
use super::pool::{self, Pool, Reach};
use super::walk::{self, Admitted, Limits, Steps, Walker};
use crate::column::Row;
use crate::lists::CodedQueries;
use crate::live::RowSet;

/// Rows that are followed in a round; more look at more distances, and are no faster.
const BEAM_WIDTH: usize = 1;
/// Of what is found, reaches are measured by the k-th nearest, or by this one: the very nearest may be a copy.
const ANCHOR: usize = 10;
/// A walk that is to keep about so many rows keeps so many times as many at most.
const MOST_KEPT: usize = 8;
/// Reaches are that power of what distances grow by: more rows are beyond what is usual than within it.
const TEMPER: f32 = 0.7;
/// Rows that are compared together where many are.
const GROUP: usize = 64;

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    spare: Vec<f32>,
    framed: Vec<f32>,
    zeros: Vec<f32>,
    coded: CodedQueries,
    query: Query,
    entries: Vec<u64>,
    sums: Vec<CodeSums>,
    distances: Vec<f32>,
    starts: Vec<u64>,
    rows: Vec<Row>,
    walk: walk::Scratch,
}

impl Scratch {
    /// What the last search found, nearest first: entries of `pool.rs`.
    pub fn found(&self) -> &[u64] {
        self.walk.pool.entries()
    }

    /// The codes of the last query, and what a unit of them is worth.
    pub fn codes(&self) -> (&[i8], f32) {
        (&self.coded.codes, self.coded.unit[0])
    }

    /// By how much a distance like this one from the last query is rarely off.
    pub fn margin(&self, distance: f32) -> f32 {
        self.query.margin(distance)
    }

    /// Leaves entries as if they had been found, nearest first.
    pub fn take_found(&mut self, entries: &mut [u64]) {
        self.walk.pool.reset(entries.len(), None);
        self.walk.pool.merge(entries);
    }

    /// The codes of the last query, filled up with zeros, and itself, which is no longer here.
    pub(super) fn take_query(&mut self) -> (&[i8], Query) {
        (&self.coded.codes, std::mem::take(&mut self.query))
    }

    /// The last query in the frame.
    pub fn framed(&self) -> &[f32] {
        &self.framed
    }
}

/// One version of a graph, made ready to be searched.
#[derive(Debug)]
pub struct Searcher<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) graph: &'a Graph,
    pub(super) walker: Walker<'a>,
}

impl<'a> Searcher<'a> {
    /// Searches a graph.
    pub fn new(graph: &'a Graph) -> Self {
        let links = Chunks::new(&graph.links);
        Self::along(graph, links)
    }

    /// Searches a graph with other links.
    pub fn along(graph: &'a Graph, links: Chunks<'a, Row>) -> Self {
        let kernels = Kernels::best();
        let walker = Walker::new(kernels, &graph.codes, links, graph.codes.rows_end());
        Self { kernels, graph, walker }
    }

    /// Makes a query ready.
    pub fn prepare(&self, values: &[f32], scratch: &mut Scratch) {
        let (codes, dim) = (&self.graph.codes, values.len());
        let Scratch { spare, framed, zeros, coded, query, .. } = scratch;
        zeros.resize(dim, 0.0);
        framed.resize(dim, 0.0);
        codes.coding.frame().query(self.kernels, values, spare, framed);
        coded.code(self.kernels, framed, dim, zeros);
        query.set(codes, framed, coded);
    }

    /// Leaves the nearest rows that it comes to, and those of `others`, in the scratch: `ef` of them, or, where only the `k`
    /// nearest count, about as many, more if these do not stand out.
    pub fn nearest(&self, ef: usize, k: Option<usize>, others: &[Row], scratch: &mut Scratch) -> Steps {
        let n_hubs = self.start(ef, scratch);
        let Scratch { query, starts, walk, .. } = scratch;
        let mut steps = self.walker.walk(query, starts, self.kept(ef, k, query), BEAM_WIDTH, walk);
        steps.n_distances += n_hubs + self.compare(others.iter().copied(), scratch);
        steps
    }

    /// The same among selected rows, rows that wait included: nothing where a walk takes more distances than it may.
    pub fn nearest_among(
        &self,
        (ef, k): (usize, Option<usize>),
        selected: &RowSet,
        limits: Limits,
        scratch: &mut Scratch,
    ) -> Option<Steps> {
        let n_hubs = self.start(usize::MAX, scratch);
        let Scratch { query, starts, walk, .. } = scratch;
        let admitted = Admitted { words: &selected.all_words(), limits };
        let kept = self.kept(ef, k, query);
        let mut steps = self.walker.walk_among(query, starts, kept, BEAM_WIDTH, &admitted, walk)?;
        let waiting = self.graph.waiting.iter().copied().filter(|&row| selected.contains(row));
        steps.n_distances += n_hubs + self.compare(waiting, scratch);
        Some(steps)
    }

    /// Compares all these rows and leaves the `ef` nearest in the scratch.
    pub fn scan(&self, ef: usize, rows: impl IntoIterator<Item = Row>, scratch: &mut Scratch) -> Steps {
        let mut best = std::mem::take(&mut scratch.starts);
        best.clear();
        let most = ef.saturating_mul(2).saturating_add(GROUP);
        let mut limit = u64::MAX;
        let n_distances = self.compare_groups(rows, scratch, |_, entries| {
            best.extend(entries.iter().filter(|&&entry| entry < limit));
            // Of twice as many as are wanted the better half, now and then.
            if best.len() > most {
                limit = *best.select_nth_unstable(ef).1;
                best.truncate(ef);
            }
        });
        scratch.walk.pool.reset(ef, None);
        scratch.walk.pool.merge(&mut best);
        scratch.starts = best;
        Steps { n_distances, ..Steps::default() }
    }

    /// Compares all these rows and leaves those up to a distance in the scratch.
    pub fn scan_within(
        &self,
        limit: f32,
        rows: impl IntoIterator<Item = Row>,
        scratch: &mut Scratch,
    ) -> Steps {
        let mut within = std::mem::take(&mut scratch.starts);
        within.clear();
        let n_distances = self.compare_groups(rows, scratch, |_, entries| {
            within.extend(entries.iter().filter(|&&entry| pool::distance(entry) <= limit));
        });
        scratch.take_found(&mut within);
        scratch.starts = within;
        Steps { n_distances, ..Steps::default() }
    }

    /// How many rows a walk keeps at most that is to keep `ef`, or about as many where only the `k` nearest count; and its reach.
    fn kept(&self, ef: usize, k: Option<usize>, query: &Query) -> (usize, Option<Reach>) {
        let (Some(k), Some(squared)) = (k, query.squared()) else { return (ef, None) };
        let anchor = k.max(ANCHOR);
        if ef <= anchor || self.graph.growth == 0.0 {
            return (ef, None);
        }
        let ratio = (ef as f32 / anchor as f32).powf(TEMPER * self.graph.growth);
        (ef.saturating_mul(MOST_KEPT), Some(Reach { anchor, ratio, squared }))
    }

    /// All hubs that the pool has room for: so a walk goes on from whichever is nearer than what it found so far, and comes to
    /// groups that no links lead to from others. All of them are compared; gives how many they are.
    fn start(&self, n: usize, scratch: &mut Scratch) -> usize {
        let Scratch { query, sums, distances, starts, .. } = scratch;
        self.graph.hubs.nearest(self.kernels, query, n, starts, sums, distances);
        self.graph.hubs.rows.len()
    }

    /// Compares rows and lets them into the pool; gives how many they were.
    fn compare(&self, rows: impl IntoIterator<Item = Row>, scratch: &mut Scratch) -> usize {
        self.compare_groups(rows, scratch, |pool, entries| {
            let limit = pool.limit();
            entries.retain(|&entry| entry < limit);
            pool.merge(entries);
        })
    }

    /// Compares rows, and has the entries of each group taken.
    fn compare_groups(
        &self,
        rows: impl IntoIterator<Item = Row>,
        scratch: &mut Scratch,
        mut take: impl FnMut(&mut Pool, &mut Vec<u64>),
    ) -> usize {
        let Scratch { query, entries, rows: groups, walk, .. } = scratch;
        let reader = self.walker.reader();
        let mut buffers = Buffers::default();
        let mut rows = rows.into_iter();
        let mut n = 0;
        groups.clear();
        groups.extend(rows.by_ref().take(GROUP));
        reader.ask(query, groups);
        while !groups.is_empty() {
            // The next group is asked for while this one is compared.
            let first = groups.len();
            groups.extend(rows.by_ref().take(GROUP));
            let (now, next) = groups.split_at(first);
            reader.ask(query, next);
            reader.distances(query, now, &mut buffers);
            entries.clear();
            entries.extend(now.iter().zip(&buffers.distances).map(|(&row, &d)| pool::entry(d, row)));
            take(&mut walk.pool, entries);
            n += first;
            groups.drain(..first);
        }
        n
    }
}
