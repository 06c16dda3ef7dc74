//! Queries of a batch meet on their lists and share the tiles of each.
//!
//! A block of queries is coded, routed, and sorted by list; each list is then multiplied once with all queries that
//! came to it. Where a thread has several blocks to search, all queries are routed first, and those that go to the same
//! lists share a block. Thresholds are what each query has found so far: the scores its pool still lets in. What is in the pool
//! at the end is compared again by [`Kept`], which knows the vectors best.

use std::cell::Cell;

use nearest_kernels::{Hit, Kernels, PANEL_ROWS, PanelQueries};

use super::Lists;
use super::block::{Block, Panel};
use super::coding::{self, CodedQueries, QueryCodes};
use super::matches::{Matches, TELLING, Trail};
use super::pool::{self, Estimate, Pool};
use super::route::{self, Probes, Reach, Wanted};
use crate::candidates::{Candidate, RowOrder, sort};
use crate::column::Row;
use crate::error::Result;
use crate::live::{RowSet, is_in};
use crate::work::Work;

/// Queries that meet on the lists at once, at most.
const BLOCK_QUERIES: usize = 1024;
/// Queries that are coded and routed at once before they are sorted into blocks, at most, and those that are sorted together.
const ROUTED_QUERIES: usize = 192;
const SORTED_QUERIES: usize = 16 * BLOCK_QUERIES;
/// Bytes of lists that are asked for before a single query comes to them: as many as memory brings in the time that passes.
const AHEAD_OF_ONE: usize = 12 << 10;
/// The same for many: they spend longer on a panel, and their codes want the first-level cache too.
const AHEAD_OF_MANY: usize = 4 << 10;
/// Queries of a list that are multiplied at once: their codes stay in the first-level cache with the panel.
const GROUP_QUERIES: usize = 96;

/// What knows the vectors best: gives the distances that are reported.
pub trait Kept: Sync {
    /// Fills in the distances of pairs. `numbers` are those of the queries of `framed`, which are the queries of the pairs in
    /// the frame of the lists.
    fn distances(&self, numbers: &[u32], framed: &[f32], pairs: &mut [Pair], buffers: &mut PairBuffers);

    /// Gives estimates of one query better scores, from second codes; false if it knows none. `query` holds the codes of the
    /// query and what a unit of them is worth.
    fn rescore(&self, query: (&[i8], f32), estimates: &mut [Estimate], buffers: &mut PairBuffers) -> bool;
}

/// A query and a row that was found.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The query, counted from the first of its block.
    pub query: u32,
    /// What was found.
    pub estimate: Estimate,
    /// How far it is.
    pub distance: f32,
}

/// Buffers for distances.
#[derive(Debug, Default)]
pub struct PairBuffers {
    /// The order in which pairs are looked at.
    pub order: Vec<u32>,
    /// A row.
    pub row: Vec<f32>,
    /// Queries.
    pub queries: Vec<f32>,
    /// Squared lengths of queries.
    pub squared_norms: Vec<f64>,
    /// An unpacked panel, or rows.
    pub bytes: Vec<u8>,
    /// Scores.
    pub scores: Vec<f32>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// The `k` nearest, of the `pool` best estimates.
    Nearest {
        /// Neighbours wanted.
        k: usize,
        /// Estimates compared again.
        pool: usize,
    },
    /// All within a distance.
    Within(f32),
}

/// One search.
pub struct ListSearch<'a> {
    /// The kernels.
    pub kernels: &'static Kernels,
    /// Where it looks.
    pub lists: &'a Lists,
    /// Rows that may be found.
    pub selected: &'a RowSet,
    /// The same, by chunk.
    pub selected_words: Vec<&'a [u64]>,
    /// Rows that live.
    pub live: &'a RowSet,
    /// Whether fewer may be found than live.
    pub is_filtered: bool,
    /// Rows of each query that may not be found.
    pub exclude: Option<&'a [Row]>,
    /// What turns estimates into distances.
    pub kept: &'a dyn Kept,
    /// Which of two rows at one distance comes first.
    pub order: &'a dyn RowOrder,
    /// Lists that each query goes to, at least.
    pub n_probe: usize,
    /// Whether no row lies in two lists.
    pub are_disjoint: bool,
}

impl std::fmt::Debug for ListSearch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListSearch").field("n_probe", &self.n_probe).finish_non_exhaustive()
    }
}

/// Buffers of one worker.
#[derive(Default)]
struct Scratch {
    /// Of the queries of the block, among all.
    numbers: Vec<u32>,
    coding: coding::Scratch,
    codes: QueryCodes,
    route: route::Scratch,
    probes: Probes,
    pools: Vec<Pool>,
    within: Vec<Vec<Estimate>>,
    limits: Vec<f32>,
    pairs: Vec<u32>,
    starts: Vec<u32>,
    group: Group,
    trails: Vec<Trail>,
    /// Queries that go on, in the frame and coded.
    going: (Vec<f32>, CodedQueries),
    candidates: Vec<Estimate>,
    pairs_found: Vec<Pair>,
    pair_buffers: PairBuffers,
}

thread_local! {
    /// What the last search of this thread left: memory that need not be asked for again.
    static SPARE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Numbers of queries from which buffers are too large to be kept.
const SPARE_NUMBERS: usize = 4 << 20;

/// Buffers that go back to their thread.
struct Borrowed(Box<Scratch>);

impl Borrowed {
    fn take() -> Self {
        Self(SPARE.take().unwrap_or_default())
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.0.codes.framed.capacity() <= SPARE_NUMBERS {
            SPARE.set(Some(std::mem::take(&mut self.0)));
        }
    }
}

/// Queries, coded, and the lists that they go to.
#[derive(Default)]
struct Routed {
    codes: QueryCodes,
    probes: Probes,
    /// Where in the order of the lists the middle one of each query lies, and the rows of all.
    places: Vec<(u32, u64)>,
}

/// Queries at one list.
#[derive(Default)]
struct Group {
    codes: Vec<i8>,
    start: Vec<i32>,
    weight: Vec<f32>,
    unit: Vec<f32>,
    base: Vec<f32>,
    threshold: Vec<f32>,
    query: Vec<u32>,
    bytes: Vec<u8>,
    hits: Vec<Hit<i32>>,
}

/// Takes what a scan finds.
struct Sink<'a> {
    /// Of the queries of the block, among all.
    numbers: &'a [u32],
    pools: &'a mut [Pool],
    within: &'a mut [Vec<Estimate>],
    /// What scores must reach.
    limits: &'a mut [f32],
}

/// Searches block by block; gives what was found in the order of the queries, which are in the blocks by their numbers.
fn in_blocks(
    n: usize,
    blocks: &[Vec<u32>],
    work: &Work<'_>,
    search: impl Fn(&[u32], &mut Scratch) -> Vec<Vec<Candidate>> + Sync,
) -> Result<Vec<Vec<Candidate>>> {
    let done = work.map("searching", blocks.len(), Borrowed::take, |Borrowed(scratch), i| {
        scratch.numbers.clear();
        Ok(search(&blocks[i], scratch))
    })?;
    let mut all = vec![Vec::new(); n];
    for (block, found) in blocks.iter().zip(done) {
        block.iter().zip(found).for_each(|(&query, found)| all[query as usize] = found);
    }
    Ok(all)
}

impl Pair {
    fn new(query: usize, estimate: Estimate) -> Self {
        Self { query: query as u32, estimate, distance: f32::NAN }
    }
}

impl<'a> ListSearch<'a> {
    /// Searches for all queries (n × dim).
    pub fn run(&self, queries: &[f32], goal: Goal, work: &Work<'_>) -> Result<Vec<Vec<Candidate>>> {
        let dim = self.lists.coding.dim();
        let n = queries.len() / dim;
        if n == 0 || self.selected.is_empty() || matches!(goal, Goal::Nearest { k: 0, .. }) {
            return Ok(vec![Vec::new(); n]);
        }
        let live = (self.lists.n_rows > self.live.len()).then_some(self.live);
        let matches = self.is_filtered.then(|| Matches::new(&self.lists.lists, &self.selected_words, live));
        // Even blocks, one a thread at least.
        let n_blocks = |n: usize| n.div_ceil(BLOCK_QUERIES).max(work.n_threads().min(n.div_ceil(16)));
        // Threads that go through the lists side by side share what memory brings, whatever their queries: sorting these pays
        // where a thread would go through the lists again and again.
        if matches.is_some() || n_blocks(n) <= work.n_threads() {
            let size = n.div_ceil(n_blocks(n));
            let blocks: Vec<Vec<u32>> = (0..n)
                .step_by(size)
                .map(|first| (first as u32..n.min(first + size) as u32).collect())
                .collect();
            return in_blocks(n, &blocks, work, |block, scratch| {
                let values = &queries[block[0] as usize * dim..][..block.len() * dim];
                scratch.numbers.extend_from_slice(block);
                self.lists.coding.queries(self.kernels, values, &mut scratch.codes, &mut scratch.coding);
                self.begin(block.len(), goal, matches.is_some(), scratch);
                let all: Vec<u32> = (0..block.len() as u32).collect();
                match &matches {
                    None => {
                        let Scratch { codes, probes, route, .. } = &mut *scratch;
                        self.route(&codes.framed, &codes.route, None, probes, route);
                        self.scan_all(&all, None, scratch);
                    }
                    Some(matches) => self.scan_matches(all, goal, matches, scratch),
                }
                self.complete(goal, matches.as_ref(), scratch)
            });
        }
        let mut found = Vec::with_capacity(n);
        for part in queries.chunks(SORTED_QUERIES * dim) {
            let (first, n) = (found.len() as u32, part.len() / dim);
            // As many parts for every thread.
            let n_parts = n.div_ceil(ROUTED_QUERIES).next_multiple_of(work.n_threads());
            let size = n.div_ceil(n_parts);
            let routed = self.routed(part, size, work)?;
            let blocks = Self::blocks_of(&routed, n_blocks(n));
            found.extend(in_blocks(n, &blocks, work, |block, scratch| {
                scratch.codes.clear();
                scratch.probes.clear();
                for query in block.iter().map(|&query| query as usize) {
                    let (routed, at) = (&routed[query / size], query % size);
                    scratch.codes.take(&routed.codes, at, dim, self.lists.coding.depth());
                    scratch.probes.take(&routed.probes, at);
                }
                scratch.numbers.extend(block.iter().map(|query| first + query));
                self.begin(block.len(), goal, false, scratch);
                let all: Vec<u32> = (0..block.len() as u32).collect();
                self.scan_all(&all, None, scratch);
                self.complete(goal, None, scratch)
            })?);
        }
        Ok(found)
    }

    /// Codes and routes queries, `size` a part.
    fn routed(&self, queries: &[f32], size: usize, work: &Work<'_>) -> Result<Vec<Routed>> {
        let parts: Vec<&[f32]> = queries.chunks(size * self.lists.coding.dim()).collect();
        let ranks = self.lists.router.ranks(self.kernels);
        work.map("searching", parts.len(), Borrowed::take, |Borrowed(scratch), i| {
            let mut routed = Routed::default();
            let Routed { codes, probes, places } = &mut routed;
            self.lists.coding.queries(self.kernels, parts[i], codes, &mut scratch.coding);
            self.route(&codes.framed, &codes.route, None, probes, &mut scratch.route);
            places.extend((0..probes.ends.len()).map(|query| {
                let lists = &probes.lists[probes.of(query)];
                scratch.starts.clear();
                scratch.starts.extend(lists.iter().map(|&list| ranks[list as usize]));
                let middle = scratch.starts.len() / 2;
                let n_rows = lists.iter().map(|&list| self.lists.lists[list as usize].n_rows() as u64).sum();
                (*scratch.starts.select_nth_unstable(middle).1, n_rows)
            }));
            Ok(routed)
        })
    }

    /// Sorts queries by where their lists lie, and cuts them into blocks that cost about the same.
    fn blocks_of(routed: &[Routed], n_blocks: usize) -> Vec<Vec<u32>> {
        let places = routed.iter().flat_map(|routed| &routed.places);
        let mut queries: Vec<(u32, u32, u64)> =
            places.zip(0..).map(|(&(place, n_rows), query)| (place, query, n_rows)).collect();
        queries.sort_unstable();
        // What is not about rows costs as much again on average.
        let n = queries.len();
        let n_rows: u64 = queries.iter().map(|query| query.2).sum();
        let fixed = (n_rows / n as u64).max(1);
        let total = n_rows + fixed * n as u64;
        let mut blocks = vec![Vec::with_capacity(n / n_blocks + 1); n_blocks];
        let mut cost = 0;
        for (_, query, n_rows) in queries {
            blocks[(cost * n_blocks as u64 / total) as usize].push(query);
            cost += n_rows + fixed;
        }
        blocks.retain(|block| !block.is_empty());
        blocks
    }

    /// Looks at all lists for queries that found too little, and at distances.
    fn complete(
        &self,
        goal: Goal,
        matches: Option<&Matches<'_>>,
        scratch: &mut Scratch,
    ) -> Vec<Vec<Candidate>> {
        let n = scratch.numbers.len();
        // Lists may hold fewer rows than were asked for: then all of them are looked at.
        if let Goal::Nearest { k, .. } = goal {
            let there = |number: u32| {
                let excluded = self.exclude.is_some_and(|rows| self.selected.contains(rows[number as usize]));
                k.min(self.selected.len() - usize::from(excluded))
            };
            let Scratch { numbers, pools, .. } = &mut *scratch;
            let short: Vec<usize> = (0..n).filter(|&q| pools[q].len() < there(numbers[q])).collect();
            if !short.is_empty() {
                // What they found comes again.
                short.iter().for_each(|&q| pools[q].clear());
                self.scan_all_lists(&short, matches, scratch);
            }
        }
        self.finish(n, goal, scratch)
    }

    /// Distances of what was found, in the order of these.
    fn finish(&self, n: usize, goal: Goal, scratch: &mut Scratch) -> Vec<Vec<Candidate>> {
        let Scratch { numbers, codes, pools, within, candidates, pairs_found, pair_buffers, .. } = scratch;
        let dim = self.lists.coding.dim();
        let framed = &codes.framed[..n * dim];
        let pairs = pairs_found;
        pairs.clear();
        let mut found: Vec<Vec<Candidate>> = Vec::with_capacity(n);
        match goal {
            Goal::Nearest { k, pool: n_again } => {
                let depth = self.lists.coding.depth();
                let mut rescored = false;
                for (q, pool) in pools[..n].iter_mut().enumerate() {
                    candidates.clear();
                    let best = pool.best();
                    candidates.extend_from_slice(&best[..best.len().min(n_again)]);
                    let mut n_compared = k;
                    if candidates.len() > k {
                        let query = (&codes.route.codes[q * depth..][..depth], codes.route.unit[q]);
                        rescored = self.kept.rescore(query, candidates, pair_buffers);
                        if rescored {
                            candidates.sort_unstable_by(pool::order);
                            // The codes of the query lose a little too.
                            n_compared = k + k / 4 + 2;
                        }
                    }
                    candidates.truncate(n_compared);
                    pairs.extend(candidates.iter().map(|&estimate| Pair::new(q, estimate)));
                }
                self.kept.distances(numbers, framed, pairs, pair_buffers);
                self.collect(n, pairs, &mut found);
                if rescored {
                    found.iter_mut().for_each(|found| found.truncate(k));
                    return found;
                }
                // Best first: once an estimate is worse than the k-th distance by all that coding usually costs, so are the
                // others.
                pairs.clear();
                for (q, pool) in pools[..n].iter_mut().enumerate() {
                    let best = pool.best();
                    let best = &best[..best.len().min(n_again)];
                    if let (Some(rest), Some(last)) = (best.get(k..), found[q].last()) {
                        let least = self.lists.coding.least_score(&framed[q * dim..][..dim], last.distance);
                        let rest = rest.iter().take_while(|estimate| estimate.score >= least);
                        pairs.extend(rest.map(|&estimate| Pair::new(q, estimate)));
                    }
                }
                if !pairs.is_empty() {
                    self.kept.distances(numbers, framed, pairs, pair_buffers);
                    self.collect(n, pairs, &mut found);
                    found.iter_mut().for_each(|found| found.truncate(k));
                }
            }
            Goal::Within(radius) => {
                for (q, within) in within[..n].iter_mut().enumerate() {
                    candidates.clear();
                    candidates.append(within);
                    candidates.sort_unstable_by(|a, b| a.row.cmp(&b.row).then(b.score.total_cmp(&a.score)));
                    candidates.dedup_by_key(|estimate| estimate.row);
                    pairs.extend(candidates.iter().map(|&estimate| Pair::new(q, estimate)));
                }
                self.kept.distances(numbers, framed, pairs, pair_buffers);
                pairs.retain(|pair| pair.distance <= radius);
                self.collect(n, pairs, &mut found);
            }
        }
        found
    }

    /// Adds pairs, which are sorted by query, to what their queries have found.
    fn collect(&self, n: usize, pairs: &[Pair], found: &mut Vec<Vec<Candidate>>) {
        found.resize(n, Vec::new());
        for of_query in pairs.chunk_by(|a, b| a.query == b.query) {
            let found = &mut found[of_query[0].query as usize];
            let candidates =
                of_query.iter().map(|pair| Candidate { distance: pair.distance, row: pair.estimate.row });
            // Only a damaged file holds what has no distance; it is nobody's neighbour.
            found.extend(candidates.filter(|candidate| !candidate.distance.is_nan()));
            sort(found, self.order);
        }
    }

    /// Finds the lists of queries.
    fn route(
        &self,
        framed: &[f32],
        codes: &CodedQueries,
        wanted: Option<Wanted<'_>>,
        probes: &mut Probes,
        scratch: &mut route::Scratch,
    ) {
        let reach =
            Reach { n_probe: self.n_probe, gap: self.lists.gap(self.n_probe), wanted, by_distance: false };
        self.lists.router.route(self.kernels, framed, codes, reach, probes, scratch);
    }

    /// How many rows a filtered query meets before it asks whether to go on. Where a share p of all rows matches, its k
    /// nearest lie among its k / p nearest rows, which reach farther: it begins with √p of what it would look at without a
    /// filter, in 1 / √p times the lists.
    fn first_wanted(&self, goal: Goal) -> u64 {
        let n = self.live.len().max(1) as f64;
        let share = (self.selected.len() as f64 / n).min(1.0);
        let looked_at = n * self.n_probe as f64 / self.lists.lists.len() as f64;
        let least = match goal {
            // Rows may lie in two lists.
            Goal::Nearest { k, .. } => 2 * k.max(TELLING) as u64,
            Goal::Within(_) => 1,
        };
        ((looked_at * share.sqrt()) as u64).max(least)
    }

    fn begin(&self, n: usize, goal: Goal, is_filtered: bool, scratch: &mut Scratch) {
        scratch.limits.clear();
        match goal {
            Goal::Nearest { k, pool } => {
                let least = if is_filtered { k.max(TELLING) } else { 0 };
                let pool = pool.max(least).min(self.selected.len());
                scratch.pools.resize_with(n.max(scratch.pools.len()), Pool::default);
                scratch.pools[..n].iter_mut().for_each(|p| p.reset(pool, self.are_disjoint));
                scratch.limits.resize(n, f32::NEG_INFINITY);
            }
            Goal::Within(radius) => {
                scratch.within.resize(n.max(scratch.within.len()), Vec::new());
                scratch.pools.clear();
                let framed = scratch.codes.framed.chunks_exact(self.lists.coding.dim());
                scratch.limits.extend(framed.map(|query| self.lists.coding.least_score(query, radius)));
            }
        }
    }

    /// Sends the queries of a filtered search through lists, round after round, as long as it pays.
    fn scan_matches(&self, mut queries: Vec<u32>, goal: Goal, matches: &Matches<'_>, scratch: &mut Scratch) {
        let (dim, depth, n) = (self.lists.coding.dim(), self.lists.coding.depth(), queries.len());
        let wanted = self.first_wanted(goal);
        scratch.trails.resize_with(n.max(scratch.trails.len()), Trail::default);
        scratch.trails[..n].iter_mut().for_each(|trail| trail.begin(wanted));
        loop {
            let Scratch { codes, trails, going, probes, route, .. } = scratch;
            let wanted = Some(Wanted { matches, trails, queries: &queries });
            if queries.len() == n {
                self.route(&codes.framed, &codes.route, wanted, probes, route);
            } else {
                going.0.clear();
                going.1.clear();
                for query in queries.iter().map(|&query| query as usize) {
                    going.0.extend_from_slice(&codes.framed[query * dim..][..dim]);
                    going.1.take(&codes.route, query, depth);
                }
                self.route(&going.0, &going.1, wanted, probes, route);
            }
            self.scan_all(&queries, Some(matches), scratch);
            let Scratch { trails, probes, pools, within, .. } = scratch;
            for (i, &query) in queries.iter().enumerate() {
                trails[query as usize].follow(&probes.lists[probes.of(i)], matches);
            }
            queries.retain(|&query| {
                let best = match goal {
                    Goal::Nearest { k, .. } => {
                        let best = pools[query as usize].best();
                        &best[..best.len().min(k.max(TELLING))]
                    }
                    Goal::Within(_) => &within[query as usize],
                };
                trails[query as usize].pays(best, matches)
            });
            if queries.is_empty() {
                return;
            }
        }
    }

    /// Sends queries through their lists.
    fn scan_all(&self, queries: &[u32], matches: Option<&Matches<'_>>, scratch: &mut Scratch) {
        let Scratch { numbers, codes, probes, pools, within, limits, pairs, starts, group, .. } = scratch;
        let mut sink = Sink { numbers, pools, within, limits };
        if let &[query] = queries {
            // Nearest first: the threshold is good from the second list on.
            let mut ahead = ReadAhead::new(self.bytes_of(probes.lists.iter().copied()), AHEAD_OF_ONE);
            for at in probes.of(0) {
                group.clear();
                self.join(group, codes, query as usize, probes.bases[at], &sink);
                self.scan(probes.lists[at], matches, group, &mut sink, &mut |n| {
                    ahead.advance(n);
                    &[]
                });
            }
            return;
        }
        // Pairs of query and list, by list.
        let n_lists = self.lists.lists.len();
        starts.clear();
        starts.resize(n_lists + 1, 0);
        probes.lists.iter().for_each(|&list| starts[list as usize + 1] += 1);
        for list in 0..n_lists {
            starts[list + 1] += starts[list];
        }
        pairs.clear();
        pairs.resize(probes.lists.len() * 2, 0);
        for (i, &query) in queries.iter().enumerate() {
            for at in probes.of(i) {
                let place = &mut starts[probes.lists[at] as usize];
                pairs[2 * *place as usize] = query;
                pairs[2 * *place as usize + 1] = at as u32;
                *place += 1;
            }
        }
        // starts[list] has moved to where the list ends.
        let bounds =
            |list: usize| if list == 0 { 0 } else { starts[list - 1] as usize }..starts[list] as usize;
        let visited = (0..n_lists as u32).filter(|&list| !bounds(list as usize).is_empty());
        let mut ahead = ReadAhead::new(self.bytes_of(visited), AHEAD_OF_MANY);
        for list in 0..n_lists {
            let of_list = bounds(list);
            for (i, part) in pairs[2 * of_list.start..2 * of_list.end].chunks(2 * GROUP_QUERIES).enumerate() {
                group.clear();
                for pair in part.chunks_exact(2) {
                    self.join(group, codes, pair[0] as usize, probes.bases[pair[1] as usize], &sink);
                }
                // Those after the first meet what was read.
                let ahead: &mut dyn FnMut(usize) -> &'a [u8] =
                    if i == 0 { &mut |n| ahead.take(n) } else { &mut |_| &[] };
                self.scan(list as u32, matches, group, &mut sink, ahead);
            }
        }
    }

    /// Sends a few queries through all lists.
    fn scan_all_lists(&self, queries: &[usize], matches: Option<&Matches<'_>>, scratch: &mut Scratch) {
        let Scratch { numbers, codes, pools, within, limits, group, .. } = scratch;
        let dim = self.lists.coding.dim();
        let mut sink = Sink { numbers, pools, within, limits };
        let lists = 0..self.lists.lists.len() as u32;
        for list in lists.filter(|&list| matches.is_none_or(|matches| matches.n(list) > 0)) {
            for part in queries.chunks(GROUP_QUERIES) {
                group.clear();
                for &query in part {
                    let mut base = [0.0];
                    let framed = &codes.framed[query * dim..][..dim];
                    let centroid = nearest_kernels::Rows::Contiguous(self.lists.router.centroid(list));
                    self.kernels.dot::<f32>(framed, centroid, &mut base);
                    self.join(group, codes, query, base[0], &sink);
                }
                self.scan(list, matches, group, &mut sink, &mut |_| &[]);
            }
        }
    }

    fn join(&self, group: &mut Group, codes: &QueryCodes, query: usize, base: f32, sink: &Sink<'_>) {
        let (rows, depth) = (&codes.rows, self.lists.coding.depth());
        let base = if self.lists.coding.is_relative() { base } else { 0.0 };
        group.codes.extend_from_slice(&rows.codes[query * depth..][..depth]);
        group.start.push(rows.start[query]);
        group.weight.push(rows.weight[query]);
        group.unit.push(rows.unit[query]);
        group.base.push(base);
        group.query.push(query as u32);
        group.threshold.push(threshold(sink.limits[query], base, rows.unit[query]));
    }

    /// What lists hold, block by block.
    fn bytes_of(&self, lists: impl Iterator<Item = u32>) -> impl Iterator<Item = &'a [u8]> {
        let all = &self.lists.lists;
        lists.flat_map(move |list| all[list as usize].blocks.iter().map(Block::bytes))
    }

    /// Multiplies a list with the queries of a group. `ahead` is told of bytes that will be done with, and gives those that are
    /// to be asked for meanwhile.
    fn scan(
        &self,
        list: u32,
        matches: Option<&Matches<'_>>,
        group: &mut Group,
        sink: &mut Sink<'_>,
        ahead: &mut dyn FnMut(usize) -> &'a [u8],
    ) {
        let coding = &self.lists.coding;
        let matching = matches.map(|matches| matches.of(list));
        let mut place = 0;
        for block in &self.lists.lists[list as usize].blocks {
            for panel in block.panels() {
                let ahead = ahead(block.unit_bytes());
                nearest_kernels::prefetch(&ahead[panel.codes.len().min(ahead.len())..]);
                let first_place = place;
                place += panel.rows.len() as u32;
                let bits = matching.map(|matching| matching.panel(first_place as usize / PANEL_ROWS));
                if bits == Some(0) {
                    nearest_kernels::prefetch(ahead);
                    continue;
                }
                let Group { codes, start, weight, threshold, bytes, hits, .. } = group;
                hits.clear();
                let queries = PanelQueries { codes, start, weight, threshold, mutual_threshold: &[] };
                coding.tile(self.kernels, panel, &queries, ahead, bytes, hits);
                if !group.hits.is_empty() {
                    self.take(list, (first_place, panel, bits), group, sink);
                }
            }
        }
    }

    /// Takes the hits of a panel that begins at a place of its list; of a filtered search with the rows that may be found.
    fn take(
        &self,
        list: u32,
        (first_place, panel, bits): (u32, Panel<'_>, Option<u32>),
        group: &mut Group,
        sink: &mut Sink<'_>,
    ) {
        for hit in &group.hits {
            let (q, at) = (hit.query as usize, hit.row as usize);
            let query = group.query[q] as usize;
            // As the tile has it, up to a rounding of the estimate: not of its terms, which may be far larger. Otherwise
            // it would depend on the order of the lists which of two equal rows is found.
            let bias = panel.biases[at] * group.weight[q];
            let estimate = (f64::from(panel.scales[at]) * f64::from(hit.sum as f32) + f64::from(bias)) as f32;
            let score = group.unit[q] * estimate + group.base[q];
            // What has no score, since float32 cannot hold it, is found after all others.
            let score = if score.is_nan() { f32::NEG_INFINITY } else { score };
            if !(score >= sink.limits[query]) {
                continue;
            }
            let Some(&row) = panel.rows.get(at) else { continue };
            let is_selected = match bits {
                Some(bits) => bits >> at & 1 == 1,
                None => is_in(&self.selected_words, row),
            };
            if !is_selected
                || self.exclude.is_some_and(|exclude| exclude[sink.numbers[query] as usize] == row)
            {
                continue;
            }
            let estimate = Estimate { score, row, list, place: first_place + at as u32 };
            if sink.pools.is_empty() {
                sink.within[query].push(estimate);
                continue;
            }
            let pool = &mut sink.pools[query];
            pool.offer(estimate);
            let limit = pool.limit();
            if limit > sink.limits[query] {
                sink.limits[query] = limit;
                group.threshold[q] = threshold(limit, group.base[q], group.unit[q]);
            }
        }
    }
}

/// Asks for what is looked at next, from one list into the next: hardware stops reading ahead at pages.
struct ReadAhead<'a, I> {
    rest: &'a [u8],
    blocks: I,
}

impl<'a, I: Iterator<Item = &'a [u8]>> ReadAhead<'a, I> {
    /// Asks for the first `n` bytes.
    fn new(blocks: I, n: usize) -> Self {
        let mut ahead = Self { rest: &[], blocks };
        ahead.advance(n);
        ahead
    }

    /// The next bytes, `n` at most; the rest of the `n` is asked for.
    fn take(&mut self, n: usize) -> &'a [u8] {
        if self.rest.is_empty() {
            self.rest = self.blocks.next().unwrap_or_default();
        }
        let part;
        (part, self.rest) = self.rest.split_at(n.min(self.rest.len()));
        self.advance(n - part.len());
        part
    }

    /// Asks for `n` bytes more.
    fn advance(&mut self, mut n: usize) {
        while n > 0 {
            if self.rest.is_empty() {
                let Some(next) = self.blocks.next() else { return };
                self.rest = next;
            }
            let part;
            (part, self.rest) = self.rest.split_at(n.min(self.rest.len()));
            nearest_kernels::prefetch(part);
            n -= part.len();
        }
    }
}

impl Group {
    fn clear(&mut self) {
        self.codes.clear();
        self.start.clear();
        self.weight.clear();
        self.unit.clear();
        self.base.clear();
        self.threshold.clear();
        self.query.clear();
    }
}

/// What an estimate must reach for its score to reach `limit`; a little less, since both are rounded.
fn threshold(limit: f32, base: f32, unit: f32) -> f32 {
    (limit - base - (limit.abs() + base.abs()) * 1e-6) / unit
}
