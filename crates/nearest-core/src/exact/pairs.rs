//! All pairs: the neighbours of every vector, and the whole matrix of distances.
//!
//! `knn_graph` computes each pair once: a tile of two groups of rows lowers the k-th distances of both.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nearest_kernels::Rows;

use super::compare::{Comparer, Scratch};
use super::multiply::{self, Multiplier, MutualLists, Pair, centre_of};
use super::{BLOCK_ROWS, Scope};
use crate::candidates::{ByRow, Candidate, Candidates};
use crate::column::Row;
use crate::error::Result;
use crate::work::Work;

/// Bytes of the query side of a tile: they stay in the second-level cache.
const GROUP_BYTES: usize = 512 << 10;

/// The `k` nearest others of every row, nearest first, ties by row: for each row, and lists shorter than `k` where
/// there are fewer others. `as_queries` makes queries of some rows.
pub fn knn_graph<C: Comparer>(
    vectors: &[C::Element],
    width: usize,
    k: usize,
    as_queries: impl Fn(&[C::Element]) -> C + Sync,
    work: &Work<'_>,
) -> Result<Vec<Vec<Candidate>>> {
    let n = vectors.len() / width;
    let k = k.min(n.saturating_sub(1));
    work.check_memory((n as u64).checked_mul(k as u64 * 8 + 48), &format!("{k} neighbors of {n} vectors"))?;
    if k == 0 {
        return Ok(vec![Vec::new(); n]);
    }
    let group_rows = (GROUP_BYTES / width / BLOCK_ROWS).clamp(1, 4) * BLOCK_ROWS;
    let n_groups = n.div_ceil(group_rows);
    let rows_of = |group: usize| group * group_rows..((group + 1) * group_rows).min(n);
    let groups: Vec<Mutex<Vec<Candidates>>> =
        (0..n_groups).map(|group| Mutex::new(vec![Candidates::new(k); rows_of(group).len()])).collect();
    let mut scope = Scope::of(vectors, width);
    let centre = as_queries(&vectors[..width]).metric().map(|metric| centre_of(&scope, metric));
    scope.centre = centre.as_deref();
    // Pairs of groups by their distance apart: neighbouring tasks touch different groups, and each group meets
    // itself first, which gives its rows limits.
    let pairs: Vec<(usize, usize)> =
        (0..n_groups).flat_map(|apart| (0..n_groups - apart).map(move |a| (a, a + apart))).collect();
    work.for_each("comparing all pairs", pairs.len(), Buffers::default, |buffers, i| {
        let (a, b) = pairs[i];
        let rows = rows_of(a);
        let comparer = as_queries(&vectors[rows.start * width..rows.end * width]);
        let task = Task { scope: &scope, comparer: &comparer, a: rows, b: rows_of(b) };
        let multiplier = comparer.multiplier(&scope, true);
        let mut mine = lock(&groups[a]);
        let mut other = (a != b).then(|| lock(&groups[b]));
        match &multiplier {
            Some(multiplier) => task.multiply(multiplier, &mut mine, other.as_deref_mut(), buffers),
            None => task.compare(&mut mine, other.as_deref_mut(), buffers),
        }
        Ok(())
    })?;
    Ok(groups
        .into_iter()
        .flat_map(|group| group.into_inner().unwrap_or_else(PoisonError::into_inner))
        .map(|heap| heap.into_sorted(&ByRow))
        .collect())
}

fn lock(group: &Mutex<Vec<Candidates>>) -> MutexGuard<'_, Vec<Candidates>> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Buffers of one worker.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    positions: Vec<u32>,
    multiply: multiply::Buffers,
}

/// Two groups of rows to compare; the first are the queries.
struct Task<'t, 's, C: Comparer> {
    scope: &'t Scope<'s, C::Element>,
    comparer: &'t C,
    a: Range<usize>,
    b: Range<usize>,
}

/// The lists of both groups, for some rows of the second from `first` on.
struct Lists<'l> {
    mine: &'l mut [Candidates],
    /// Nothing where a group meets itself: then each pair comes up twice, once for each of its rows.
    other: Option<&'l mut [Candidates]>,
    a: usize,
    b: usize,
    first: usize,
}

impl MutualLists for Lists<'_> {
    fn limit(&self, query: usize) -> f32 {
        self.mine[query].limit()
    }

    fn row_limit(&self, row: usize) -> f32 {
        self.other.as_deref().map_or(f32::NEG_INFINITY, |other| other[self.first + row].limit())
    }

    fn offer(&mut self, Pair { query: q, row, distance }: Pair) -> bool {
        let r = self.first + row;
        let (query, row) = ((self.a + q) as Row, (self.b + r) as Row);
        if query == row {
            return false;
        }
        if let Some(other) = self.other.as_deref_mut() {
            other[r].offer(Candidate { distance, row: query }, &ByRow);
        }
        let limit = self.mine[q].limit();
        self.mine[q].offer(Candidate { distance, row }, &ByRow) && self.mine[q].limit() < limit
    }
}

impl<'s, C: Comparer> Task<'_, 's, C> {
    fn rows(&self, rows: Range<usize>) -> &'s [C::Element] {
        let width = self.scope.width;
        &self.scope.parts[0].vectors[rows.start * width..rows.end * width]
    }

    fn lists<'l>(&self, mine: &'l mut [Candidates], other: Option<&'l mut Vec<Candidates>>) -> Lists<'l> {
        Lists { mine, other: other.map(Vec::as_mut_slice), a: self.a.start, b: self.b.start, first: 0 }
    }

    fn multiply(
        &self,
        multiplier: &Multiplier<'_, C::Element>,
        mine: &mut [Candidates],
        other: Option<&mut Vec<Candidates>>,
        buffers: &mut Buffers,
    ) {
        let is_mutual = other.is_some();
        let mut lists = self.lists(mine, other);
        for start in self.b.clone().step_by(BLOCK_ROWS) {
            lists.first = start - self.b.start;
            let vectors = self.rows(start..(start + BLOCK_ROWS).min(self.b.end));
            multiplier.run_mutual(vectors, &mut buffers.multiply, &mut lists, is_mutual);
        }
    }

    fn compare(&self, mine: &mut [Candidates], other: Option<&mut Vec<Candidates>>, buffers: &mut Buffers) {
        let Buffers { scratch, positions, .. } = buffers;
        let width = self.scope.width;
        let group = self.comparer.group_rows(width);
        let mut lists = self.lists(mine, other);
        for start in self.b.clone().step_by(group) {
            let vectors = self.rows(start..(start + group).min(self.b.end));
            let n = vectors.len() / width;
            lists.first = start - self.b.start;
            for q in 0..self.a.len() {
                let rows_limit = (0..n).map(|row| lists.row_limit(row)).fold(f32::NEG_INFINITY, f32::max);
                let limit = lists.limit(q).max(rows_limit);
                positions.clear();
                self.comparer.select(q, Rows::Contiguous(vectors), limit, scratch, positions);
                for &position in positions.iter() {
                    let row = position as usize;
                    let distance = self.comparer.distance(q, &vectors[row * width..(row + 1) * width]);
                    lists.offer(Pair { query: q, row, distance });
                }
            }
        }
    }
}

/// Canonical distances of queries and rows: `out` has a row of distances for each query.
pub fn pairwise<C: Comparer>(
    comparer: &C,
    vectors: &[C::Element],
    width: usize,
    out: &mut [f32],
    work: &Work<'_>,
) -> Result<()> {
    let n = vectors.len() / width;
    if n == 0 {
        return Ok(());
    }
    assert!(out.len() == n * comparer.n_queries(), "out must hold {} distances", n * comparer.n_queries());
    // One query against rows that stay in the cache while all queries of the task pass.
    let query_rows = (1usize << 16).div_ceil(n).clamp(1, 64);
    let parts: Vec<Mutex<&mut [f32]>> = out.chunks_mut(query_rows * n).map(Mutex::new).collect();
    let cached = (GROUP_BYTES / (width * size_of::<C::Element>()).max(1)).max(8);
    work.for_each(
        "computing distances",
        parts.len(),
        || (),
        |(), i| {
            let mut part = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
            for (g, rows) in vectors.chunks(cached * width).enumerate() {
                for (q, out) in part.chunks_exact_mut(n).enumerate() {
                    for (place, row) in out[g * cached..].iter_mut().zip(rows.chunks_exact(width)) {
                        *place = comparer.distance(i * query_rows + q, row);
                    }
                }
            }
            Ok(())
        },
    )
}
