//! The distances that are reported: the same bits on every CPU.
//!
//! 32 float64 lanes: element `i` is added to lane `i % 32`, in the order of `i`; then lane `j` takes
//! lane `j + 16` for `j < 16`, then `j + 8`, `+ 4`, `+ 2`, `+ 1`; and the result is never −0. Each
//! product and each sum is rounded once, in float64.
//!
//! Why the levels agree: there is one source, compiled per level, and Rust neither reorders nor fuses
//! floating-point operations by itself. `FUSED` asks for fused multiply-add where it cannot be seen: the
//! product of two float32 values (24 bits each, exponents within ±149) is exact in float64, so rounding
//! it first changes nothing. Differences do not have that property, so they are never fused.
//!
//! A last block of fewer than 32 elements is padded with zeros. Lanes start at +0 and a sum in float64
//! is −0 only if both terms are, so no lane is ever −0 and adding +0 changes nothing.

use crate::element::Element;

/// Elements taken at once, and float64 lanes.
const LANES: usize = 32;

/// `Σ query · row`.
#[inline(always)]
pub(crate) fn dot<T: Element, const FUSED: bool>(query: &[f32], row: &[T]) -> f64 {
    fold(
        query,
        row,
        #[inline(always)]
        |sum, q, r| if FUSED { q.mul_add(r, sum) } else { sum + q * r },
    )
}

/// `Σ row²`.
#[inline(always)]
pub(crate) fn squared_norm<T: Element, const FUSED: bool>(row: &[T]) -> f64 {
    fold(
        row,
        row,
        #[inline(always)]
        |sum, _, r| if FUSED { r.mul_add(r, sum) } else { sum + r * r },
    )
}

/// `Σ (query − row)²`.
#[inline(always)]
pub(crate) fn sqeuclidean<T: Element>(query: &[f32], row: &[T]) -> f64 {
    fold(
        query,
        row,
        #[inline(always)]
        |sum, q, r| {
            let difference = q - r;
            sum + difference * difference
        },
    )
}

/// `Σ |query − row|`.
#[inline(always)]
pub(crate) fn manhattan<T: Element>(query: &[f32], row: &[T]) -> f64 {
    fold(
        query,
        row,
        #[inline(always)]
        |sum, q, r| sum + (q - r).abs(),
    )
}

#[inline(always)]
fn fold<Q: Element, R: Element>(query: &[Q], row: &[R], step: impl Fn(f64, f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (query_blocks, query_rest) = query.as_chunks::<LANES>();
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    for (q, r) in query_blocks.iter().zip(row_blocks) {
        block(&mut lanes, q, r, &step);
    }
    if !row_rest.is_empty() {
        let mut q = [Q::zeroed(); LANES];
        let mut r = [R::zeroed(); LANES];
        q[..query_rest.len()].copy_from_slice(query_rest);
        r[..row_rest.len()].copy_from_slice(row_rest);
        block(&mut lanes, &q, &r, &step);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0] + 0.0
}

#[inline(always)]
fn block<Q: Element, R: Element>(
    lanes: &mut [f64; LANES],
    q: &[Q; LANES],
    r: &[R; LANES],
    step: &impl Fn(f64, f64, f64) -> f64,
) {
    for j in 0..LANES {
        lanes[j] = step(lanes[j], q[j].to_f64(), r[j].to_f64());
    }
}
