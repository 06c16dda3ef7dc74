//! Versions whose rows are linked: made from vectors that were kept as they came, searched, read back.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use nearest_kernels::Element;

use super::snapshot::{Goal, GraphStats, Knobs, Looked, Sought};
use super::{KeptAs, Snapshot, Spec, listed};
use crate::candidates::{Candidate, sort};
use crate::column::{Column, Row};
use crate::encoding::{Encoding, Kind, Values, Vectors, each_kind};
use crate::error::{Error, Result};
use crate::exact;
use crate::graph::scan::Together;
use crate::graph::search::{Scratch, Searcher};
use crate::graph::walk::{Limits, Steps};
use crate::graph::{Codes, Graph, MOST_WAITING, pool};
use crate::kmeans::{Read, Side};
use crate::live::RowSet;
use crate::memory::Allocator;
use crate::metric::Metric;
use crate::random::Random;
use crate::work::Work;

/// Vectors that are coded between two looks at whether to go on, when a graph is first made.
const FILL_ROWS: usize = 1 << 16;
/// Vectors that codes are trained on, at most.
const TRAINING_ROWS: usize = 16_384;
/// Rows kept by a walk where nothing is said and nothing was measured.
const DEFAULT_EFFORT: usize = 64;
/// Queries of one task.
const QUERIES: usize = 16;
/// Distances that a walk among all rows looks at for each row that it keeps; those of rows that are looked at one after
/// the other, as they lie, take so many times less.
const DISTANCES_PER_ROW: usize = 12;
const SCAN_GAIN: usize = 3;
/// The same where there is a filter: a scan takes from a third of that to a twentieth of it, the more queries look at rows
/// together, and whether to walk must not depend on how many there are.
const FILTERED_SCAN_GAIN: usize = 8;
/// A walk must have found as many rows as count after so many times the distances that it takes to meet them anywhere, and some:
/// else what matches is far away, and all is looked at.
const PATIENCE: usize = 4;
const LEAST_PATIENCE: usize = 256;
/// So many times as many as a walk keeps are kept by a scan, which has looked at all: far from a query, codes leave more in doubt.
const SCAN_KEPT: usize = 4;
/// Queries that look at rows together, at least and at most.
const LEAST_TOGETHER: usize = 8;
const MOST_TOGETHER: usize = 512;
/// So many distances take less than half a second.
const MOST_COMPARED_TOGETHER: usize = 1 << 27;
/// Candidates kept, of all queries together: 100 MB.
const MOST_KEPT_TOGETHER: usize = 1 << 23;
/// So few rows are compared one by one as they are kept.
const FEW: usize = 4;

thread_local! {
    /// Buffers of this thread: what a walk marks as seen need not be made anew for every query.
    static SCRATCH: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
}

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    walk: Scratch,
    kept: Vec<u8>,
    scores: Vec<f32>,
    row: Vec<f32>,
    bytes: Vec<u8>,
    query: Vec<f32>,
    rows: Vec<Row>,
    order: Vec<u64>,
}

/// Trains the codes of a graph on rows of `values`, row-major.
pub(super) fn train(spec: &Spec, values: Values<'_>, rows: &[usize], work: &Work<'_>) -> Result<Codes> {
    if rows.is_empty() {
        return Err(Error::argument("a graph is trained on vectors, got none"));
    }
    each_kind!(values, Values, values => {
        let read = |range: Range<usize>, out: &mut [f32]| {
            for (&row, out) in rows[range].iter().zip(out.chunks_exact_mut(spec.dim)) {
                let row = &values[row * spec.dim..][..spec.dim];
                out.iter_mut().zip(row).for_each(|(out, x)| *out = x.to_f32());
            }
        };
        Codes::train(&Read::new(rows.len(), spec.dim, read), &spec.plan(0), work)
    })
}

/// Codes vectors for a graph.
pub(super) fn code(codes: &Codes, values: Values<'_>, work: &Work<'_>) -> Result<crate::graph::codes::Coded> {
    let dim = codes.coding.dim();
    each_kind!(values, Values, values => codes.code(&Side::new(values, dim), work))
}

impl Snapshot {
    /// This version with its rows linked; codes are trained on them unless they are given.
    pub(super) fn graphed(
        self,
        trained: Option<Codes>,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Snapshot> {
        let plan = self.spec.graph_plan().expect("an index with a graph");
        assert!(self.graph.is_none());
        each_kind!(&self.vectors, Vectors, column => {
            // Vectors as they came are more than what is kept of them.
            let read = |rows: &[Row], out: &mut [f32]| {
                for (&row, out) in rows.iter().zip(out.chunks_exact_mut(self.spec.dim)) {
                    out.iter_mut().zip(column.row(row)).for_each(|(out, x)| *out = x.to_f32());
                }
                Ok(())
            };
            let (codes, vectors) = self.coded(column, &read, trained, allocator, work)?;
            let graph = Graph::new(plan, codes).awaiting(self.live.iter(), &self.live);
            let graph = match graph.waiting.len() < MOST_WAITING {
                true => graph,
                false => graph.linked_anew(&read, &self.live, allocator, work)?,
            };
            Ok(Snapshot { vectors, graph: Some(graph), ..self.clone() })
        })
    }

    /// Codes of all rows, and what is kept of them beside.
    fn coded<T: Kind>(
        &self,
        column: &Column<T>,
        read: crate::graph::Read<'_>,
        trained: Option<Codes>,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<(Codes, Vectors)> {
        let (spec, dim) = (self.spec, self.spec.dim);
        let rows: Vec<Row> = self.live.iter().collect();
        // Rows of a column are always there.
        let of = |rows: &[Row], out: &mut [f32]| read(rows, out).expect("rows of a column");
        let codes = match trained {
            Some(codes) => codes,
            None => {
                let chosen = Random::new(spec.seed, 1).choose(TRAINING_ROWS.min(rows.len()), rows.len());
                let chosen: Vec<Row> = chosen.into_iter().map(|place| rows[place as usize]).collect();
                let read = |range: Range<usize>, out: &mut [f32]| of(&chosen[range], out);
                Codes::train(&Read::new(chosen.len(), dim, read), &spec.plan(0), work)?
            }
        };
        let mut coded = crate::graph::codes::Coded::default();
        for part in rows.chunks(FILL_ROWS) {
            let read = |range: Range<usize>, out: &mut [f32]| of(&part[range], out);
            coded.append(codes.code(&Read::new(part.len(), dim, read), work)?);
        }
        let first = column.with_rows(codes.codes.width(), &rows, &coded.codes, allocator)?;
        let scales = column.with_rows(1, &rows, &coded.scales, allocator)?;
        let vectors = match spec.kept_as() {
            KeptAs::Raw(encoding) => listed::same_kind(&self.vectors, encoding, allocator)?,
            KeptAs::Place => Vectors::UInt8(first.clone()),
            KeptAs::Code(_) => {
                let width = codes.second.as_ref().expect("second codes").kept_bytes();
                Vectors::UInt8(column.with_rows(width, &rows, &coded.kept, allocator)?)
            }
        };
        Ok((Codes { codes: first, scales, ..codes }, vectors))
    }

    /// This version after a change, with rows linked that waited too long, but for some, and without too many dead ones.
    pub(super) fn maintained(
        self,
        held: &RowSet,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Snapshot> {
        let Some(graph) = &self.graph else { return Ok(self) };
        match graph.waiting.len() - held.len() {
            0..MOST_WAITING => {
                let all = graph.waiting_rows();
                self.linked(&all, allocator, work)
            }
            _ => self.linked(held, allocator, work),
        }
    }

    /// This version with all rows linked that wait, but for some, and without too many dead ones.
    pub(super) fn linked(
        self,
        held: &RowSet,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Snapshot> {
        let Some(graph) = &self.graph else { return Ok(self) };
        let read = |rows: &[Row], out: &mut [f32]| self.read_rows(rows, out);
        let graph = graph.linked(&read, &self.live, held, allocator, work)?;
        Ok(Snapshot { graph: Some(graph), ..self })
    }

    /// The graph of other live rows, as if those that are missing had never been there.
    pub(super) fn graph_without(&self, live: &RowSet, work: &Work<'_>) -> Result<Option<Graph>> {
        let Some(graph) = &self.graph else { return Ok(None) };
        let graph = graph.awaiting([], live);
        if graph.n_dead(live) == 0 {
            return Ok(Some(graph));
        }
        let read = |rows: &[Row], out: &mut [f32]| self.read_rows(rows, out);
        graph.linked_anew(&read, live, work.allocator(), work).map(Some)
    }

    /// The vectors of rows as far as they are known, in the original coordinates.
    fn read_rows(&self, rows: &[Row], out: &mut [f32]) -> Result<()> {
        let mut places = out.chunks_exact_mut(self.spec.dim);
        self.values_of(rows, |values| {
            let place = places.next().expect("a place for each row");
            each_kind!(values, Values, values => {
                place.iter_mut().zip(values).for_each(|(place, x)| *place = x.to_f32());
            });
        })
    }

    /// The vector of a row, as the bytes of the integers that its code is.
    pub(super) fn native_of_graph(&self, graph: &Graph, row: Row, out: &mut [u8]) {
        graph.codes.bytes_of(self.kept(row), out);
        if self.spec.encoding == Encoding::Int8 {
            out.iter_mut().for_each(|byte| *byte ^= 0x80);
        }
    }

    /// The vector of a row as far as its codes tell, in the original coordinates.
    pub(super) fn decoded_of_graph(&self, graph: &Graph, row: Row, out: &mut [f32]) {
        let mut framed = vec![0.0; self.spec.dim];
        self.framed_of_graph(graph, row, &mut framed);
        graph.codes.coding.frame().invert(self.kernels, &framed, out);
    }

    /// The same in the frame.
    pub(super) fn framed_of_graph(&self, graph: &Graph, row: Row, out: &mut [f32]) {
        graph.codes.decode_whole(row, self.kept(row), out);
    }

    /// Whether a search is to look at all selected rows one by one.
    pub(super) fn prefers_all(&self, graph: &Graph, selected: &RowSet, knobs: Knobs) -> bool {
        let all = knobs.effort.is_some_and(|effort| effort >= self.live.len());
        all || graph.n_linked == 0 || selected.len() <= FEW
    }

    /// Searches the graph.
    pub(super) fn search_graph(
        &self,
        graph: &Graph,
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<(Vec<Vec<Candidate>>, Looked)> {
        let dim = self.spec.dim;
        let n_queries = queries.len() / dim;
        if let Goal::Nearest(k) = sought.goal {
            let k = k.min(sought.selected.len());
            let n_bytes = (n_queries as u64).checked_mul(k as u64).and_then(|n| n.checked_mul(16));
            work.check_memory(n_bytes, &format!("{k} neighbors of {n_queries} queries"))?;
        }
        let search = GraphSearch {
            snapshot: self,
            graph,
            searcher: Searcher::new(graph),
            sought,
            // Dead rows are walked through, and not found.
            is_filtered: sought.selected.len() < self.live.len() || graph.n_dead(&self.live) > 0,
        };
        let values = |query: usize| &queries[query * dim..][..dim];
        let exclude = |query: usize| sought.exclude.map(|rows| rows[query]);
        let k = match sought.goal {
            Goal::Nearest(k) => k,
            Goal::Within(radius) => {
                return in_parts(
                    n_queries,
                    QUERIES,
                    work,
                    || (),
                    |(), range, buffers, looked| {
                        let within =
                            |query| search.within(values(query), radius, exclude(query), buffers, looked);
                        range.map(within).collect()
                    },
                );
            }
        };
        let (ef, least) = search.kept(k);
        let (mut found, mut looked) = match search.walks(ef) {
            true => in_parts(
                n_queries,
                QUERIES,
                work,
                || (),
                |(), range, buffers, looked| {
                    let one = |query| {
                        search.searcher.prepare(values(query), &mut buffers.walk);
                        let is_found = search.walk((ef, Some(least)), &mut buffers.walk, looked);
                        is_found.then(|| search.best(k, values(query), exclude(query), buffers, looked))
                    };
                    range.map(one).collect()
                },
            )?,
            false => (vec![None; n_queries], Looked::default()),
        };
        // What is not worth a walk, and what no walk found in time.
        let left: Vec<usize> = (0..n_queries).filter(|&query| found[query].is_none()).collect();
        if !left.is_empty() {
            let scanned = SCAN_KEPT.saturating_mul(ef);
            // As few parts as keep all threads busy: each fetches all rows once.
            // They must not take long before signals are looked for, nor much memory.
            let n = search.sought.selected.len();
            let most = (MOST_COMPARED_TOGETHER / n.max(1))
                .min(MOST_KEPT_TOGETHER / scanned.min(n).max(1))
                .clamp(LEAST_TOGETHER, MOST_TOGETHER);
            let size = left.len().div_ceil(work.n_threads()).clamp(LEAST_TOGETHER, most);
            let (of_left, of_scans) =
                in_parts(left.len(), size, work, Together::default, |block, range, buffers, looked| {
                    let part = &left[range];
                    let together = part.len() >= LEAST_TOGETHER;
                    if together {
                        let (of_part, selected) = (part.iter().map(|&query| values(query)), sought.selected);
                        let walk = &mut buffers.walk;
                        search.searcher.scan_together(scanned, of_part, selected.iter(), walk, block);
                        let (n_scans, n_compared) = (part.len(), part.len() * selected.len());
                        looked.add(Looked { n_scans, n_compared, ..Looked::default() });
                    }
                    let one = |(place, &query): (usize, &usize)| {
                        search.searcher.prepare(values(query), &mut buffers.walk);
                        match together {
                            true => buffers.walk.take_found(block.found(place)),
                            false => search.scan(scanned, &mut buffers.walk, looked),
                        }
                        search.best(k, values(query), exclude(query), buffers, looked)
                    };
                    part.iter().enumerate().map(one).collect()
                })?;
            left.into_iter().zip(of_left).for_each(|(query, one)| found[query] = Some(one));
            looked.add(of_scans);
        }
        Ok((found.into_iter().map(Option::unwrap_or_default).collect(), looked))
    }

    pub(super) fn graph_stats(&self, graph: &Graph) -> GraphStats {
        let codes = if self.spec.kept_as() == KeptAs::Place { graph.codes.codes.memory_bytes() } else { 0 };
        GraphStats {
            n_links: self.live.iter().map(|row| graph.links_of(row).count()).sum(),
            n_hubs: graph.hubs.rows.len(),
            n_waiting: graph.waiting.len(),
            n_unreachable: graph.n_unreachable(&self.live),
            graph_bytes: graph.memory_bytes() - codes,
        }
    }
}

/// What queries find, part after part, with buffers of the thread and of its own.
fn in_parts<S, T: Send>(
    n: usize,
    size: usize,
    work: &Work<'_>,
    own: impl Fn() -> S + Sync,
    part: impl Fn(&mut S, Range<usize>, &mut Buffers, &mut Looked) -> Vec<T> + Sync,
) -> Result<(Vec<T>, Looked)> {
    let parts = work.map("searching", n.div_ceil(size), own, |own, i| {
        let mut buffers = SCRATCH.take().unwrap_or_default();
        let mut looked = Looked::default();
        let found = part(own, i * size..n.min((i + 1) * size), &mut buffers, &mut looked);
        SCRATCH.set(Some(buffers));
        Ok((found, looked))
    })?;
    let mut all = (Vec::with_capacity(n), Looked::default());
    for (found, looked) in parts {
        all.0.extend(found);
        all.1.add(looked);
    }
    Ok(all)
}

/// One search of one version.
struct GraphSearch<'a> {
    snapshot: &'a Snapshot,
    graph: &'a Graph,
    searcher: Searcher<'a>,
    sought: &'a Sought<'a>,
    is_filtered: bool,
}

impl GraphSearch<'_> {
    /// How many rows a search for the nearest keeps, and how many of them count.
    fn kept(&self, k: usize) -> (usize, usize) {
        let least =
            k.saturating_add(usize::from(self.sought.exclude.is_some())).min(self.sought.selected.len());
        let knobs = self.sought.knobs;
        (knobs.effort.unwrap_or(DEFAULT_EFFORT).max(knobs.rerank_k.unwrap_or(0)).max(least), least)
    }

    /// How many rows stand for one that is selected.
    fn rows_per_selected(&self) -> usize {
        self.snapshot.live.len().div_ceil(self.sought.selected.len().max(1))
    }

    /// Whether a walk that keeps `ef` rows is likely to be less work than looking at all selected ones.
    fn walks(&self, ef: usize) -> bool {
        ef.saturating_mul(DISTANCES_PER_ROW).saturating_mul(self.rows_per_selected()) < self.most()
    }

    /// How many distances of a walk take as long as a scan.
    fn most(&self) -> usize {
        let n = self.sought.selected.len();
        n / if n < self.snapshot.live.len() { FILTERED_SCAN_GAIN } else { SCAN_GAIN }
    }

    /// Leaves the `ef` nearest of the selected rows, as far as a walk comes to them, in the buffers, about as many where only the
    /// `k` nearest count; false where it takes too long.
    fn walk(&self, (ef, k): (usize, Option<usize>), walk: &mut Scratch, looked: &mut Looked) -> bool {
        let selected = self.sought.selected;
        let steps = if self.is_filtered {
            let rows = PATIENCE.saturating_mul(k.unwrap_or(ef)).saturating_mul(self.rows_per_selected());
            let patience = rows.saturating_add(LEAST_PATIENCE);
            let limits = Limits { most: self.most(), patience, least: k.unwrap_or(ef) };
            self.searcher.nearest_among((ef, k), selected, limits, walk)
        } else {
            Some(self.searcher.nearest(ef, k, &self.graph.waiting, walk))
        };
        if let Some(Steps { n_rounds, n_followed, n_distances }) = steps {
            looked.add(Looked {
                n_walks: 1,
                n_rounds,
                n_followed,
                n_compared: n_distances,
                ..Looked::default()
            });
        }
        steps.is_some()
    }

    /// Leaves the `ef` nearest of the selected rows in the buffers.
    fn scan(&self, ef: usize, walk: &mut Scratch, looked: &mut Looked) {
        let n_compared = self.searcher.scan(ef, self.sought.selected.iter(), walk).n_distances;
        looked.add(Looked { n_scans: 1, n_compared, ..Looked::default() });
    }

    /// The `k` nearest of what is in the buffers.
    fn best(
        &self,
        k: usize,
        values: &[f32],
        exclude: Option<Row>,
        buffers: &mut Buffers,
        looked: &mut Looked,
    ) -> Vec<Candidate> {
        let (_, least) = self.kept(k);
        let rerank = self.sought.knobs.rerank_k.unwrap_or_else(|| self.in_doubt(least, &buffers.walk));
        looked.n_reranked += rerank.max(least).min(buffers.walk.found().len());
        let mut found = self.compare(values, rerank.max(least), least, buffers);
        found.retain(|near| Some(near.row) != exclude);
        found.truncate(k);
        found
    }

    /// What one query finds within a radius.
    fn within(
        &self,
        values: &[f32],
        radius: f32,
        exclude: Option<Row>,
        buffers: &mut Buffers,
        looked: &mut Looked,
    ) -> Vec<Candidate> {
        self.searcher.prepare(values, &mut buffers.walk);
        let n = self.sought.selected.len();
        let (mut ef, _) = self.kept(1.min(n));
        if self.snapshot.spec.metric == Metric::InnerProduct {
            // Links lead to what is long: enough for the nearest, and not for all within a distance.
            ef = n;
        }
        // More and more, until the farthest of them are beyond the radius.
        let limit = -self.graph.codes.coding.score_at(buffers.walk.framed(), radius) as f32;
        let limit = limit + buffers.walk.margin(limit);
        loop {
            if !(self.walks(ef) && self.walk((ef, None), &mut buffers.walk, looked)) {
                let selected = self.sought.selected.iter();
                let n_compared = self.searcher.scan_within(limit, selected, &mut buffers.walk).n_distances;
                looked.add(Looked { n_scans: 1, n_compared, ..Looked::default() });
                break;
            }
            let entries = buffers.walk.found();
            let is_beyond = entries.last().is_none_or(|&last| pool::distance(last) > limit);
            if entries.len() < ef || is_beyond || ef >= n {
                break;
            }
            ef = ef.saturating_mul(4).min(n);
        }
        let rerank = buffers.walk.found().partition_point(|&entry| pool::distance(entry) <= limit);
        looked.n_reranked += rerank;
        let mut found = self.compare(values, rerank, rerank, buffers);
        found.retain(|near| near.distance <= radius && Some(near.row) != exclude);
        found
    }

    /// How many of the best found may be among the `k` nearest: those that codes do not tell to be farther than the k-th.
    fn in_doubt(&self, k: usize, walk: &Scratch) -> usize {
        let entries = walk.found();
        let Some(&last) = k.checked_sub(1).and_then(|last| entries.get(last)) else { return k };
        let limit = pool::distance(last) + walk.margin(pool::distance(last));
        entries.partition_point(|&entry| pool::distance(entry) <= limit)
    }

    /// Compares the `rerank` best again and gives the `k` nearest of them.
    fn compare(&self, values: &[f32], rerank: usize, k: usize, buffers: &mut Buffers) -> Vec<Candidate> {
        let (snapshot, coding) = (self.snapshot, &self.graph.codes.coding);
        let (kernels, metric, dim) = (snapshot.kernels, snapshot.spec.metric, snapshot.spec.dim);
        let Buffers { walk, kept, scores, row, bytes, query, rows, order } = buffers;
        rows.clear();
        rows.extend(walk.found().iter().take(rerank).map(|&entry| pool::row(entry)));
        if let (Some(second), Vectors::UInt8(column)) = (&self.graph.codes.second, &snapshot.vectors) {
            rows.iter().for_each(|&row| nearest_kernels::prefetch(column.row(row)));
            let codes: Vec<&[u8]> = rows.iter().map(|&row| column.row(row)).collect();
            // Some more, since the query is coded too: wordnet, ef 128, recall 0.9899 with six more, 0.9886 without.
            let n = k.saturating_add(k / 2 + 1);
            if n < rows.len() && second.scores(kernels, walk.codes(), &codes, kept, scores).is_some() {
                order.clear();
                // What walks saw, and what they did not.
                let whole = scores.iter().zip(walk.found());
                order.extend(
                    whole.map(|(score, &entry)| pool::entry(pool::distance(entry) - score, pool::row(entry))),
                );
                order.select_nth_unstable(n);
                rows.clear();
                rows.extend(order[..n].iter().map(|&entry| pool::row(entry)));
            }
        }
        let mut found = Vec::with_capacity(rows.len());
        let mut push = |row: Row, distance: f32| found.push(Candidate { distance, row });
        match (snapshot.spec.encoding, snapshot.spec.kept_as(), &snapshot.vectors) {
            (_, KeptAs::Raw(_), vectors) => each_kind!(vectors, Vectors, column => {
                rows.iter().for_each(|&row| nearest_kernels::prefetch(column.row(row)));
                let norm = kernels.canonical_squared_norm(values);
                for &row in &*rows {
                    push(row, exact::distance(kernels, metric, values, norm, column.row(row)));
                }
            }),
            (Encoding::UInt8 | Encoding::Int8, ..) => {
                let norm = kernels.canonical_squared_norm(values);
                bytes.resize(dim, 0);
                rows.iter().for_each(|&row| nearest_kernels::prefetch(snapshot.kept(row)));
                for &row in &*rows {
                    snapshot.native_of_graph(self.graph, row, bytes);
                    push(
                        row,
                        match snapshot.spec.encoding {
                            Encoding::Int8 => exact::distance::<i8>(
                                kernels,
                                metric,
                                values,
                                norm,
                                bytemuck::cast_slice(bytes),
                            ),
                            _ => exact::distance::<u8>(kernels, metric, values, norm, bytes),
                        },
                    );
                }
            }
            // Vectors that are known by their codes, in the frame: it changes no distance.
            _ => {
                let centre = snapshot.moved_by(coding);
                query.clear();
                query.extend_from_slice(walk.framed());
                if metric.is_angular() {
                    query.iter_mut().zip(centre).for_each(|(q, c)| *q += c);
                }
                let norm = kernels.canonical_squared_norm(query);
                row.resize(dim, 0.0);
                for &number in &*rows {
                    snapshot.framed_of_graph(self.graph, number, row);
                    row.iter_mut().zip(centre).for_each(|(x, c)| *x += c);
                    push(number, exact::distance(kernels, metric, query, norm, row));
                }
            }
        }
        // Only a damaged file holds what has no distance, or links to a row that waits.
        found.retain(|near| !near.distance.is_nan());
        sort(&mut found, &snapshot.ids);
        found.dedup_by_key(|near| near.row);
        found.truncate(k);
        found
    }
}
