//! All pairs: the neighbours of every vector, and the whole matrix of distances.
//!
//! `knn_graph` computes each pair once: a tile of two groups of rows lowers the k-th distances of both. Estimates are
//! compared with the threshold of the query and, in the same registers, with that of the row (`mutual` of the tile):
//! with the row's own T = (‖x̃‖² − D²)/2 (euclidean; see `multiply.rs` for the others) the pair matters to the row if
//!
//! q̃·x̃ − T ≥ ‖q̃‖²/2 (euclidean), q·x − T ≥ 0 (inner product, cosine with T = cos D and ‖q‖ as weight).

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nearest_kernels::{Hit, PANEL_ROWS, PanelRows, Rows};

use super::compare::{Comparer, Scratch};
use super::multiply::{Multiplier, Mutual, Packed, centre_of};
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
    let centre = centre_of(&scope);
    scope.centre = Some(&centre);
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
    packed: Packed,
    codes: Vec<u8>,
    hits: Vec<Hit<i32>>,
    threshold: Vec<f32>,
    mutual_threshold: Vec<f32>,
}

/// Two groups of rows to compare; the first are the queries.
struct Task<'t, 's, C: Comparer> {
    scope: &'t Scope<'s, C::Element>,
    comparer: &'t C,
    a: Range<usize>,
    b: Range<usize>,
}

impl<'s, C: Comparer> Task<'_, 's, C> {
    fn rows(&self, rows: Range<usize>) -> &'s [C::Element] {
        let width = self.scope.width;
        &self.scope.parts[0].vectors[rows.start * width..rows.end * width]
    }

    /// Offers a pair to both its rows.
    fn offer(
        &self,
        (q, r): (usize, usize),
        distance: f32,
        mine: &mut [Candidates],
        other: Option<&mut Vec<Candidates>>,
    ) {
        let (query, row) = ((self.a.start + q) as Row, (self.b.start + r) as Row);
        if query == row {
            return;
        }
        mine[q].offer(Candidate { distance, row }, &ByRow);
        if let Some(other) = other {
            other[r].offer(Candidate { distance, row: query }, &ByRow);
        }
    }

    fn multiply(
        &self,
        multiplier: &Multiplier<'_, C::Element>,
        mine: &mut [Candidates],
        mut other: Option<&mut Vec<Candidates>>,
        buffers: &mut Buffers,
    ) {
        let Buffers { positions, packed, codes, hits, threshold, mutual_threshold, .. } = buffers;
        let width = self.scope.width;
        for start in self.b.clone().step_by(BLOCK_ROWS) {
            let rows = start..(start + BLOCK_ROWS).min(self.b.end);
            positions.clear();
            positions.extend(0..rows.len() as u32);
            let vectors = self.rows(rows.clone());
            multiplier.pack(vectors, positions, packed, codes);
            let bounds = packed.bounds;
            threshold.clear();
            threshold.extend(
                mine.iter().enumerate().map(|(q, heap)| multiplier.threshold(q, heap.limit(), bounds)),
            );
            for panel in 0..rows.len().div_ceil(PANEL_ROWS) {
                let first = start - self.b.start + panel * PANEL_ROWS;
                let n_rows = PANEL_ROWS.min(rows.len() - panel * PANEL_ROWS);
                let own = other.as_deref().map(|other| {
                    let limits = other[first..first + n_rows].iter().map(Candidates::limit);
                    multiplier.mutual(packed, panel, limits)
                });
                mutual_threshold.clear();
                if let Some(own) = &own {
                    mutual_threshold
                        .extend((0..mine.len()).map(|q| multiplier.mutual_threshold(q, bounds, own)));
                }
                let tile = PanelRows {
                    mutual: own.as_ref().map(|own: &Mutual| &own.bias),
                    ..packed.panel(panel, multiplier.depth())
                };
                hits.clear();
                let queries = multiplier.panel_queries(0..mine.len(), threshold, mutual_threshold);
                multiplier.kernels().tile_i8(&tile, &queries, hits);
                for hit in hits.iter() {
                    let (q, r) = (hit.query as usize, hit.row as usize);
                    if r >= n_rows {
                        continue;
                    }
                    let at = panel * PANEL_ROWS + r;
                    let row = &vectors[at * width..(at + 1) * width];
                    let distance = multiplier.hit_distance(q, hit.sum, packed, at, row);
                    let limit = mine[q].limit();
                    self.offer((q, first + r), distance, mine, other.as_deref_mut());
                    if mine[q].limit() < limit {
                        threshold[q] = multiplier.threshold(q, mine[q].limit(), bounds);
                    }
                }
            }
        }
    }

    fn compare(
        &self,
        mine: &mut [Candidates],
        mut other: Option<&mut Vec<Candidates>>,
        buffers: &mut Buffers,
    ) {
        let Buffers { scratch, positions, .. } = buffers;
        let width = self.scope.width;
        let group = self.comparer.group_rows(width);
        for start in self.b.clone().step_by(group) {
            let rows = start..(start + group).min(self.b.end);
            let vectors = self.rows(rows.clone());
            let first = start - self.b.start;
            for q in 0..mine.len() {
                let others = other.as_deref().map_or(f32::NEG_INFINITY, |other| {
                    other[first..first + rows.len()]
                        .iter()
                        .map(Candidates::limit)
                        .fold(f32::NEG_INFINITY, f32::max)
                });
                let limit = mine[q].limit().max(others);
                positions.clear();
                self.comparer.select(q, Rows::Contiguous(vectors), rows.len(), limit, scratch, positions);
                for &position in positions.iter() {
                    let r = position as usize;
                    let distance = self.comparer.distance(q, &vectors[r * width..(r + 1) * width]);
                    self.offer((q, first + r), distance, mine, other.as_deref_mut());
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
