//! Plain loops: the meaning of every selection kernel, on every CPU.
//!
//! Lanes are written out so that the compiler can vectorise; the order of float32 sums is no promise.

use crate::centroids::{Nearest, PanelCentroids, PanelPoints};
use crate::element::Element;
use crate::panel::{Hit, PANEL_ROWS, PanelCode, PanelQueries, PanelRows, push_hits};
use crate::rows::Rows;
use crate::unpack;

const LANES: usize = 16;

/// An integer kind: its sums are `i32` and exact (see [`crate::MAX_DIM`]).
pub(crate) trait Integer: Element<Query = Self, Sum = i32> + Into<i32> {}
impl Integer for i8 {}
impl Integer for u8 {}

/// A float kind: queries and sums are `f32`.
pub(crate) trait Float: Element<Query = f32, Sum = f32> {}
impl<T: Element<Query = f32, Sum = f32>> Float for T {}

#[inline(always)]
fn float_fold<T: Float>(query: &[f32], row: &[T], step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (query_blocks, query_rest) = query.as_chunks::<LANES>();
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    for (q, r) in query_blocks.iter().zip(row_blocks) {
        for j in 0..LANES {
            lanes[j] = step(lanes[j], q[j], r[j].to_f32());
        }
    }
    for (j, (q, r)) in query_rest.iter().zip(row_rest).enumerate() {
        lanes[j] = step(lanes[j], *q, r.to_f32());
    }
    let mut width = LANES / 2;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn integer_fold<T: Integer>(query: &[T], row: &[T], term: impl Fn(i32, i32) -> i32) -> i32 {
    query.iter().zip(row).map(|(q, r)| term((*q).into(), (*r).into())).sum()
}

#[inline(always)]
fn each<Q, R, S>(query: &[Q], rows: Rows<'_, R>, out: &mut [S], f: impl Fn(&[Q], &[R]) -> S) {
    for (row, place) in rows.each(query.len()).zip(out) {
        *place = f(query, row);
    }
}

pub(crate) fn float_dot<T: Float>(query: &[f32], rows: Rows<'_, T>, out: &mut [f32]) {
    each(query, rows, out, |q, r| float_fold(q, r, |sum, q, r| sum + q * r));
}

pub(crate) fn float_sqeuclidean<T: Float>(query: &[f32], rows: Rows<'_, T>, out: &mut [f32]) {
    each(query, rows, out, |q, r| float_fold(q, r, |sum, q, r| sum + (q - r) * (q - r)));
}

pub(crate) fn float_manhattan<T: Float>(query: &[f32], rows: Rows<'_, T>, out: &mut [f32]) {
    each(query, rows, out, |q, r| float_fold(q, r, |sum, q, r| sum + (q - r).abs()));
}

pub(crate) fn float_squared_norms<T: Float>(dim: usize, rows: Rows<'_, T>, out: &mut [f32]) {
    for (row, place) in rows.each(dim).zip(out) {
        let (blocks, rest) = row.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for block in blocks {
            for j in 0..LANES {
                lanes[j] += block[j].to_f32() * block[j].to_f32();
            }
        }
        for (lane, r) in lanes.iter_mut().zip(rest) {
            *lane += r.to_f32() * r.to_f32();
        }
        *place = lanes.iter().sum();
    }
}

pub(crate) fn integer_dot<T: Integer>(query: &[T], rows: Rows<'_, T>, out: &mut [i32]) {
    each(query, rows, out, |q, r| integer_fold(q, r, |q, r| q * r));
}

pub(crate) fn integer_sqeuclidean<T: Integer>(query: &[T], rows: Rows<'_, T>, out: &mut [i32]) {
    each(query, rows, out, |q, r| integer_fold(q, r, |q, r| (q - r) * (q - r)));
}

pub(crate) fn integer_manhattan<T: Integer>(query: &[T], rows: Rows<'_, T>, out: &mut [i32]) {
    each(query, rows, out, |q, r| integer_fold(q, r, |q, r| (q - r).abs()));
}

pub(crate) fn integer_squared_norms<T: Integer>(dim: usize, rows: Rows<'_, T>, out: &mut [i32]) {
    for (row, place) in rows.each(dim).zip(out) {
        *place = integer_fold(row, row, |r, _| r * r);
    }
}

pub(crate) fn hamming(query: &[u8], rows: Rows<'_, u8>, out: &mut [u32]) {
    each(query, rows, out, |q, r| bits(q, r, |q, r| q ^ r));
}

pub(crate) fn common_bits(query: &[u8], rows: Rows<'_, u8>, out: &mut [u32]) {
    each(query, rows, out, |q, r| bits(q, r, |q, r| q & r));
}

#[inline(always)]
fn bits(query: &[u8], row: &[u8], join: impl Fn(u64, u64) -> u64) -> u32 {
    let (query_words, query_rest) = query.as_chunks::<8>();
    let (row_words, row_rest) = row.as_chunks::<8>();
    let words = query_words.iter().zip(row_words);
    let whole: u32 =
        words.map(|(q, r)| join(u64::from_le_bytes(*q), u64::from_le_bytes(*r)).count_ones()).sum();
    let rest = query_rest.iter().zip(row_rest);
    whole + rest.map(|(q, r)| join(u64::from(*q), u64::from(*r)).count_ones()).sum::<u32>()
}

/// Rows of a panel that are summed at once: few enough for any CPU's registers.
const PART: usize = 8;

/// The sums of one query, or centroid, with a panel of bytes.
#[inline(always)]
fn byte_sums(panel: &[u8], codes: &[i8], start: i32) -> [i32; PANEL_ROWS] {
    let mut sums = [start; PANEL_ROWS];
    for (part, sums) in sums.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let mut lanes = *sums;
        for (group, codes) in panel.chunks_exact(4 * PANEL_ROWS).zip(codes.as_chunks::<4>().0) {
            let (rows, _) = group[part * 4 * PART..].as_chunks::<4>();
            for (lane, row) in lanes.iter_mut().zip(rows) {
                for k in 0..4 {
                    *lane = lane.wrapping_add(i32::from(row[k]) * i32::from(codes[k]));
                }
            }
        }
        *sums = lanes;
    }
    sums
}

/// The same with a panel of floats.
#[inline(always)]
fn float_sums(panel: &[f32], codes: &[f32], start: f32) -> [f32; PANEL_ROWS] {
    let (columns, _) = panel.as_chunks::<PANEL_ROWS>();
    let mut sums = [start; PANEL_ROWS];
    for (part, sums) in sums.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let mut lanes = *sums;
        for (column, code) in columns.iter().zip(codes) {
            let values = &column.as_chunks::<PART>().0[part];
            for r in 0..PART {
                lanes[r] += values[r] * code;
            }
        }
        *sums = lanes;
    }
    sums
}

pub(crate) fn tile_i8(
    rows: &PanelRows<'_, u8>,
    queries: &PanelQueries<'_, i8>,
    depth: usize,
    hits: &mut Vec<Hit<i32>>,
) {
    for (query, codes) in queries.codes.chunks_exact(depth).enumerate() {
        let sums = byte_sums(rows.panel, codes, queries.start[query]);
        let estimated = sums.map(|sum| sum as f32);
        compare(rows, queries, query, &estimated, &sums, hits);
    }
}

pub(crate) fn tile_planes(
    bits: u32,
    rows: &PanelRows<'_, u8>,
    queries: &PanelQueries<'_, i8>,
    depth: usize,
    hits: &mut Vec<Hit<i32>>,
) {
    let mut panel = vec![0; depth * PANEL_ROWS];
    unpack::planes(bits, rows.panel, &mut panel);
    tile_i8(&PanelRows { panel: &panel, ..*rows }, queries, depth, hits);
}

/// # Safety
/// `out` takes 32 floats from each multiple of `stride` on, one a query.
pub(crate) unsafe fn estimates_i8(
    rows: &PanelRows<'_, u8>,
    queries: &PanelQueries<'_, i8>,
    depth: usize,
    out: *mut f32,
    stride: usize,
) {
    for (query, codes) in queries.codes.chunks_exact(depth).enumerate() {
        let sums = byte_sums(rows.panel, codes, queries.start[query]);
        for r in 0..PANEL_ROWS {
            let estimate = estimated(rows.scale[r], sums[r] as f32, rows.bias[r], queries.weight[query]);
            // SAFETY: as the caller promises.
            unsafe { out.add(query * stride + r).write(estimate) };
        }
    }
}

pub(crate) fn tile_f32(
    rows: &PanelRows<'_, f32>,
    queries: &PanelQueries<'_, f32>,
    depth: usize,
    hits: &mut Vec<Hit<f32>>,
) {
    for (query, codes) in queries.codes.chunks_exact(depth).enumerate() {
        let sums = float_sums(rows.panel, codes, queries.start[query]);
        compare(rows, queries, query, &sums, &sums, hits);
    }
}

/// Pushes the rows whose estimate is not below the query's threshold.
#[inline(always)]
fn compare<T, C: PanelCode>(
    rows: &PanelRows<'_, T>,
    queries: &PanelQueries<'_, C>,
    query: usize,
    floats: &[f32; PANEL_ROWS],
    sums: &[C::Sum; PANEL_ROWS],
    hits: &mut Vec<Hit<C::Sum>>,
) {
    let weight = queries.weight[query];
    let mut mask = below(floats, rows.scale, rows.bias, weight, queries.threshold[query]);
    if let Some(mutual) = rows.mutual {
        mask &= below(floats, rows.scale, mutual, weight, queries.mutual_threshold[query]);
    }
    if mask != u32::MAX {
        push_hits(query, !mask, sums, hits);
    }
}

#[inline(always)]
fn below(
    sums: &[f32; PANEL_ROWS],
    scale: &[f32; PANEL_ROWS],
    bias: &[f32; PANEL_ROWS],
    weight: f32,
    threshold: f32,
) -> u32 {
    let mut mask = 0;
    for r in 0..PANEL_ROWS {
        mask |= u32::from(estimated(scale[r], sums[r], bias[r], weight) < threshold) << r;
    }
    mask
}

/// `scale * sum + bias * weight`, the first product not rounded, as in the kernels that fuse it with the sum: a row whose
/// terms are large and nearly cancel has the same estimate on every level, up to a rounding of the estimate itself.
#[inline(always)]
fn estimated(scale: f32, sum: f32, bias: f32, weight: f32) -> f32 {
    (f64::from(scale) * f64::from(sum) + f64::from(bias * weight)) as f32
}

/// Gives the scores of one centroid after the other.
#[inline(always)]
fn each_score<T, C: PanelCode>(
    points: &PanelPoints<'_, T>,
    centroids: &PanelCentroids<'_, C>,
    depth: usize,
    sums: impl Fn(&[T], &[C], C::Sum) -> [f32; PANEL_ROWS],
    mut take: impl FnMut(usize, [f32; PANEL_ROWS]),
) {
    for (place, codes) in centroids.codes.chunks_exact(depth).enumerate() {
        let mut scores = sums(points.panel, codes, centroids.start[place]);
        for (score, weight) in scores.iter_mut().zip(points.weight) {
            *score = centroids.scale[place] * *score + centroids.bias[place] * weight;
        }
        take(place, scores);
    }
}

#[inline(always)]
fn floats_of_bytes(panel: &[u8], codes: &[i8], start: i32) -> [f32; PANEL_ROWS] {
    byte_sums(panel, codes, start).map(|sum| sum as f32)
}

/// Takes the scores of one centroid where they are better; `second` the same for what comes after the best.
#[inline(always)]
fn keep(best: &mut Nearest, second: Option<&mut Nearest>, place: u32, scores: [f32; PANEL_ROWS]) {
    let before = *best;
    for r in 0..PANEL_ROWS {
        if scores[r] > best.score[r] {
            (best.score[r], best.place[r]) = (scores[r], place);
        }
    }
    if let Some(second) = second {
        for r in 0..PANEL_ROWS {
            if scores[r] > before.score[r] {
                (second.score[r], second.place[r]) = (before.score[r], before.place[r]);
            } else if scores[r] > second.score[r] {
                (second.score[r], second.place[r]) = (scores[r], place);
            }
        }
    }
}

pub(crate) fn nearest_i8(
    points: &PanelPoints<'_, u8>,
    centroids: &PanelCentroids<'_, i8>,
    depth: usize,
    first: u32,
    best: &mut Nearest,
) {
    each_score(points, centroids, depth, floats_of_bytes, |place, scores| {
        keep(best, None, first.wrapping_add(place as u32), scores);
    });
}

pub(crate) fn nearest_f32(
    points: &PanelPoints<'_, f32>,
    centroids: &PanelCentroids<'_, f32>,
    depth: usize,
    first: u32,
    best: &mut Nearest,
) {
    each_score(points, centroids, depth, float_sums, |place, scores| {
        keep(best, None, first.wrapping_add(place as u32), scores);
    });
}

pub(crate) fn two_nearest_i8(
    points: &PanelPoints<'_, u8>,
    centroids: &PanelCentroids<'_, i8>,
    depth: usize,
    first: u32,
    [best, second]: &mut [Nearest; 2],
) {
    each_score(points, centroids, depth, floats_of_bytes, |place, scores| {
        keep(best, Some(second), first.wrapping_add(place as u32), scores);
    });
}

pub(crate) fn two_nearest_f32(
    points: &PanelPoints<'_, f32>,
    centroids: &PanelCentroids<'_, f32>,
    depth: usize,
    first: u32,
    [best, second]: &mut [Nearest; 2],
) {
    each_score(points, centroids, depth, float_sums, |place, scores| {
        keep(best, Some(second), first.wrapping_add(place as u32), scores);
    });
}

pub(crate) fn scores_i8(
    points: &PanelPoints<'_, u8>,
    centroids: &PanelCentroids<'_, i8>,
    depth: usize,
    out: &mut [f32],
) {
    each_score(points, centroids, depth, floats_of_bytes, |place, scores| {
        out[place * PANEL_ROWS..][..PANEL_ROWS].copy_from_slice(&scores);
    });
}
