//! The k nearest, and all within a radius.
//!
//! The work is a grid: blocks of queries × runs of row blocks. Each task keeps candidates of its own and hands them
//! over when it ends; the k-th distances seen so far are shared at every block, so that late tasks let little through.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use nearest_kernels::Rows;

use super::compare::{Comparer, Scratch};
use super::multiply;
use super::{BLOCK_ROWS, Block, Scope};
use crate::candidates::{Candidate, Candidates, RowOrder, sort};
use crate::column::Row;
use crate::error::{Error, Result};
use crate::work::Work;

/// From this many queries on, packing rows costs less than comparing each query with them as they lie.
const MANY: usize = 4;
/// Bytes of query codes that stay in the second-level cache.
const QUERY_BYTES: usize = 512 << 10;
/// Multiply-adds of one task: some 10 ms.
const TASK_WORK: usize = 1 << 32;

/// What was found for each query, nearest first, ties by id.
pub type Found = Vec<Vec<Candidate>>;

/// The `k` nearest rows of each query; `exclude[i]` is never among those of query i.
pub fn search<C: Comparer>(
    scope: &Scope<'_, C::Element>,
    comparer: &C,
    k: usize,
    exclude: Option<&[Row]>,
    order: &dyn RowOrder,
    work: &Work<'_>,
) -> Result<Found> {
    let k = k.min(scope.n_rows());
    let n_bytes = (comparer.n_queries() as u64).checked_mul(k as u64).and_then(|n| n.checked_mul(16));
    work.check_memory(n_bytes, &format!("{k} neighbors of {} queries", comparer.n_queries()))?;
    run(scope, comparer, Goal::Nearest(k), exclude, order, work)
}

/// All rows at a distance of at most `radius`.
pub fn search_radius<C: Comparer>(
    scope: &Scope<'_, C::Element>,
    comparer: &C,
    radius: f32,
    exclude: Option<&[Row]>,
    order: &dyn RowOrder,
    work: &Work<'_>,
) -> Result<Found> {
    run(scope, comparer, Goal::Within(radius), exclude, order, work)
}

#[derive(Clone, Copy)]
enum Goal {
    Nearest(usize),
    Within(f32),
}

/// Where what is found by one task goes.
pub(super) struct Sink<'a> {
    first_query: usize,
    /// What distances of each query must not exceed.
    limits: Vec<f32>,
    found: Vec<Candidates>,
    /// For a radius: everything, since nothing is bounded.
    lists: Vec<Vec<Candidate>>,
    exclude: Option<&'a [Row]>,
    order: &'a dyn RowOrder,
}

impl<'a> Sink<'a> {
    fn new(goal: Goal, queries: Range<usize>, exclude: Option<&'a [Row]>, order: &'a dyn RowOrder) -> Self {
        let n = queries.len();
        let (limit, found, lists) = match goal {
            Goal::Nearest(k) => (f32::INFINITY, vec![Candidates::new(k); n], Vec::new()),
            Goal::Within(radius) => (radius, Vec::new(), vec![Vec::new(); n]),
        };
        Self { first_query: queries.start, limits: vec![limit; n], found, lists, exclude, order }
    }

    /// What a distance of query `q` of this task must not exceed.
    pub(super) fn limit(&self, q: usize) -> f32 {
        self.limits[q]
    }

    /// Takes a candidate; true if the limit of `q` became lower.
    pub(super) fn offer(&mut self, q: usize, candidate: Candidate) -> bool {
        // Not «greater»: what has no distance, in a damaged file, is nobody's neighbour.
        if !(candidate.distance <= self.limits[q])
            || self.exclude.is_some_and(|rows| rows[self.first_query + q] == candidate.row)
        {
            return false;
        }
        if let Some(list) = self.lists.get_mut(q) {
            list.push(candidate);
            return false;
        }
        let limit = {
            self.found[q].offer(candidate, self.order);
            self.found[q].limit()
        };
        let lower = limit < self.limits[q];
        if lower {
            self.limits[q] = limit;
        }
        lower
    }

    /// Exchanges limits with the other tasks.
    fn share(&mut self, shared: &[AtomicU32]) {
        for (limit, shared) in self.limits.iter_mut().zip(&shared[self.first_query..]) {
            let there = from_key(shared.load(Ordering::Relaxed));
            if there < *limit {
                *limit = there;
            } else if *limit < there {
                shared.fetch_min(to_key(*limit), Ordering::Relaxed);
            }
        }
    }
}

/// Unsigned integers in the order of the floats.
fn to_key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Buffers of one worker.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    positions: Vec<u32>,
    selected: Vec<u32>,
    multiply: multiply::Buffers,
}

fn run<C: Comparer>(
    scope: &Scope<'_, C::Element>,
    comparer: &C,
    goal: Goal,
    exclude: Option<&[Row]>,
    order: &dyn RowOrder,
    work: &Work<'_>,
) -> Result<Found> {
    let n_queries = comparer.n_queries();
    if matches!(goal, Goal::Nearest(0)) || n_queries == 0 {
        return Ok(vec![Vec::new(); n_queries]);
    }
    let blocks = scope.blocks();
    let many = n_queries >= MANY;
    let multiplier = (many || scope.centre.is_some()).then(|| comparer.multiplier(scope, false)).flatten();

    let query_block = (QUERY_BYTES / scope.width).clamp(64, 1024).min(n_queries);
    let query_blocks = n_queries.div_ceil(query_block);
    // Even blocks: 1 025 queries are not 1 024 and 1.
    let query_block = n_queries.div_ceil(query_blocks);
    let run_blocks = (TASK_WORK / (BLOCK_ROWS * scope.width * query_block)).clamp(1, blocks.len().max(1));
    let wanted_runs = (4 * work.n_threads()).div_ceil(query_blocks);
    let run_blocks =
        if work.n_threads() > 1 { run_blocks.min(blocks.len().div_ceil(wanted_runs)) } else { run_blocks };
    let runs = blocks.len().div_ceil(run_blocks.max(1));

    let shared: Vec<AtomicU32> = (0..n_queries).map(|_| AtomicU32::new(to_key(f32::INFINITY))).collect();
    let queries_of = |i: usize| i * query_block..((i + 1) * query_block).min(n_queries);
    let results: Vec<Mutex<Option<Sink<'_>>>> = (0..query_blocks).map(|_| Mutex::new(None)).collect();

    work.for_each("searching", query_blocks * runs, Buffers::default, |buffers, task| {
        let (i, run) = (task / runs, task % runs);
        let queries = queries_of(i);
        let mut sink = Sink::new(goal, queries.clone(), exclude, order);
        for &block in &blocks[run * run_blocks..((run + 1) * run_blocks).min(blocks.len())] {
            sink.share(&shared);
            match &multiplier {
                Some(multiplier) if multiplier.suits(scope, block, queries.len() >= MANY) => {
                    multiplier.run(scope, block, queries.clone(), &mut sink, &mut buffers.multiply);
                }
                _ => compare(scope, comparer, block, queries.clone(), &mut sink, buffers),
            }
        }
        sink.share(&shared);
        let mut result = results[i].lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *result {
            None => *result = Some(sink),
            Some(result) => {
                for (mine, other) in result.found.iter_mut().zip(sink.found) {
                    mine.merge(other, order);
                }
                for (mine, other) in result.lists.iter_mut().zip(sink.lists) {
                    mine.extend(other);
                }
            }
        }
        Ok(())
    })?;

    let mut found = Vec::with_capacity(n_queries);
    for (i, result) in results.into_iter().enumerate() {
        match result.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => found.extend(queries_of(i).map(|_| Vec::new())),
            Some(sink) => {
                found.extend(sink.found.into_iter().map(|heap| heap.into_sorted(order)));
                found.extend(sink.lists.into_iter().map(|mut list| {
                    sort(&mut list, order);
                    list
                }));
            }
        }
    }
    if found.len() == n_queries { Ok(found) } else { Err(Error::Cancelled) }
}

/// Compares queries with the rows of a block as they lie.
fn compare<C: Comparer>(
    scope: &Scope<'_, C::Element>,
    comparer: &C,
    block: Block,
    queries: Range<usize>,
    sink: &mut Sink<'_>,
    buffers: &mut Buffers,
) {
    let Buffers { scratch, positions, selected, .. } = buffers;
    let (width, vectors, first) = (scope.width, scope.vectors(block), scope.first_row(block));
    let group = comparer.group_rows(width);
    let row = |position: u32| &vectors[position as usize * width..(position as usize + 1) * width];
    if scope.selected(block).is_none() {
        for (g, rows) in vectors.chunks(group * width).enumerate() {
            for query in queries.clone() {
                let q = query - queries.start;
                positions.clear();
                comparer.select(query, Rows::Contiguous(rows), sink.limit(q), scratch, positions);
                for &position in positions.iter() {
                    let position = (g * group) as u32 + position;
                    let distance = comparer.distance(query, row(position));
                    sink.offer(q, Candidate { distance, row: first + position });
                }
            }
        }
        return;
    }
    scope.positions(block, selected);
    let mut rows: [&[C::Element]; 64] = [&[]; 64];
    for group in selected.chunks(group.min(64)) {
        for (place, &position) in rows.iter_mut().zip(group) {
            *place = row(position);
        }
        let rows = &rows[..group.len()];
        for query in queries.clone() {
            let q = query - queries.start;
            positions.clear();
            comparer.select(query, Rows::Scattered(rows), sink.limit(q), scratch, positions);
            for &position in positions.iter() {
                let distance = comparer.distance(query, rows[position as usize]);
                sink.offer(q, Candidate { distance, row: first + group[position as usize] });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_floats() {
        let values = [f32::NEG_INFINITY, -1e30, -1.0, -0.0, 0.0, 1e-40, 1.0, 2.5, f32::MAX, f32::INFINITY];
        for pair in values.windows(2) {
            assert!(to_key(pair[0]) < to_key(pair[1]));
        }
        for value in values {
            assert_eq!(from_key(to_key(value)).to_bits(), value.to_bits());
        }
    }
}
