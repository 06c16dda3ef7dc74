//! A query from its numbers to the best rows: coded, compared with hubs, walked, compared with rows that wait.

use nearest_kernels::Kernels;

use super::Graph;
use super::codes::{Buffers, Chunks, Query};
use super::pool::{self, Pool};
use super::walk::{self, Admitted, Steps, Walker};
use crate::column::Row;
use crate::lists::{Codec, CodingScratch, QueryCodes};
use crate::live::RowSet;
use crate::metric::Metric;

/// Rows that are followed in a round; more look at more distances, and are no faster.
const BEAM_WIDTH: usize = 1;
/// Rows that are compared together where many are.
const GROUP: usize = 64;

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    coding: CodingScratch,
    coded: QueryCodes,
    query: Query,
    entries: Vec<u64>,
    sums: Vec<i32>,
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
        (&self.coded.rows.codes, self.coded.rows.unit[0])
    }

    /// Whether distances of the last query are exact: squared and Euclidean.
    pub fn is_exact(&self) -> bool {
        self.query.is_native()
    }

    /// The last query in the frame.
    pub fn framed(&self) -> &[f32] {
        &self.coded.framed
    }
}

/// One version of a graph, made ready to be searched.
#[derive(Debug)]
pub struct Searcher<'a> {
    kernels: &'static Kernels,
    graph: &'a Graph,
    walker: Walker<'a>,
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
        let coding = &self.graph.codes.coding;
        let Scratch { coding: buffers, coded, query, .. } = scratch;
        coding.queries(self.kernels, values, coded, buffers);
        query.set(self.graph.codes.bits(), coding.dim(), &coded.rows);
        let euclidean = matches!(coding.frame().metric(), Metric::Euclidean | Metric::SqEuclidean);
        if matches!(coding.codec(), Codec::UInt8) && euclidean && coding.scores_exactly(values) {
            query.set_integers(values);
        }
    }

    /// Leaves the `ef` nearest rows that it comes to, and those of `others`, in the scratch.
    pub fn nearest(&self, ef: usize, others: &[Row], scratch: &mut Scratch) -> Steps {
        self.start(ef, scratch);
        let Scratch { query, starts, walk, .. } = scratch;
        let mut steps = self.walker.walk(query, starts, ef, BEAM_WIDTH, walk);
        steps.n_distances += self.compare(others.iter().copied(), scratch);
        steps
    }

    /// The same among selected rows, rows that wait included, with `most` distances at most: nothing where these do not do.
    pub fn nearest_among(
        &self,
        ef: usize,
        selected: &RowSet,
        most: usize,
        scratch: &mut Scratch,
    ) -> Option<Steps> {
        self.start(usize::MAX, scratch);
        let Scratch { query, starts, walk, .. } = scratch;
        let admitted = Admitted { words: &selected.all_words(), most };
        let mut steps = self.walker.walk_among(query, starts, ef, BEAM_WIDTH, &admitted, walk)?;
        let waiting = self.graph.waiting.iter().copied().filter(|&row| selected.contains(row));
        steps.n_distances += self.compare(waiting, scratch);
        Some(steps)
    }

    /// Compares all these rows and leaves the `ef` nearest in the scratch.
    pub fn scan(&self, ef: usize, rows: impl IntoIterator<Item = Row>, scratch: &mut Scratch) -> Steps {
        let mut best = std::mem::take(&mut scratch.starts);
        best.clear();
        let most = ef.saturating_mul(2).saturating_add(GROUP);
        let n_distances = self.compare_groups(rows, scratch, |_, entries| {
            best.append(entries);
            // Of twice as many as are wanted the better half, now and then.
            if best.len() > most {
                best.select_nth_unstable(ef);
                best.truncate(ef);
            }
        });
        scratch.walk.pool.reset(ef);
        scratch.walk.pool.merge(&mut best);
        scratch.starts = best;
        Steps { n_distances, ..Steps::default() }
    }

    /// All hubs that the pool has room for: so a walk goes on from whichever is nearer than what it found so far, and comes to
    /// groups that no links lead to from others.
    fn start(&self, n: usize, scratch: &mut Scratch) {
        let Scratch { query, sums, distances, starts, .. } = scratch;
        self.graph.hubs.nearest(self.kernels, query, n, starts, sums, distances);
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
