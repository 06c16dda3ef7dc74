//! The distances that are reported: the same bits on every CPU.
//!
//! 32 float64 lanes: element `i` is added to lane `i % 32`, in the order of `i`; then lane `j` takes
//! lane `j + 16` for `j < 16`, then `j + 8`, `+ 4`, `+ 2`, `+ 1`; and the result is never −0. Each
//! product and each sum is rounded once, in float64.
//!
//! Why the levels agree: there is one source, compiled per level, and Rust neither reorders nor fuses
//! floating-point operations by itself. `X86` (FMA and F16C are there) asks for fused multiply-add where it cannot be seen: the
//! product of two float32 values (24 bits each, exponents within ±149) is exact in float64, so rounding
//! it first changes nothing. Differences do not have that property, so they are never fused.
//!
//! A last block of fewer than 32 elements is padded with zeros. Lanes start at +0 and a sum in float64
//! is −0 only if both terms are, so no lane is ever −0 and adding +0 changes nothing.

use crate::element::Element;

/// Elements taken at once, and float64 lanes.
const LANES: usize = 32;

/// `Σ query · row`.
///
/// # Safety
/// Here and below, with `X86` only inside functions that have FMA and F16C.
#[inline(always)]
pub(crate) unsafe fn dot<T: Element, const X86: bool>(query: &[f32], row: &[T]) -> f64 {
    // SAFETY: as the caller's.
    unsafe {
        fold::<_, _, _, X86>(
            query,
            row,
            #[inline(always)]
            |sum, q: f64, r| if X86 { q.mul_add(r, sum) } else { sum + q * r },
        )
    }
}

/// `Σ row²`.
#[inline(always)]
pub(crate) unsafe fn squared_norm<T: Element, const X86: bool>(row: &[T]) -> f64 {
    // SAFETY: as the caller's.
    unsafe {
        fold::<_, _, _, X86>(
            row,
            row,
            #[inline(always)]
            |sum, _, r: f64| if X86 { r.mul_add(r, sum) } else { sum + r * r },
        )
    }
}

/// `Σ (query − row)²`.
#[inline(always)]
pub(crate) unsafe fn sqeuclidean<T: Element, const X86: bool>(query: &[f32], row: &[T]) -> f64 {
    // SAFETY: as the caller's.
    unsafe {
        fold::<_, _, _, X86>(
            query,
            row,
            #[inline(always)]
            |sum, q: f64, r: f64| {
                let difference = q - r;
                sum + difference * difference
            },
        )
    }
}

/// `Σ |query − row|`.
#[inline(always)]
pub(crate) unsafe fn manhattan<T: Element, const X86: bool>(query: &[f32], row: &[T]) -> f64 {
    // SAFETY: as the caller's.
    unsafe {
        fold::<_, _, _, X86>(
            query,
            row,
            #[inline(always)]
            |sum, q: f64, r: f64| sum + (q - r).abs(),
        )
    }
}

#[inline(always)]
unsafe fn fold<Q: Element, R: Element, F: Fn(f64, f64, f64) -> f64, const X86: bool>(
    query: &[Q],
    row: &[R],
    step: F,
) -> f64 {
    let mut lanes = [0.0; LANES];
    let (query_blocks, query_rest) = query.as_chunks::<LANES>();
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    for (q, r) in query_blocks.iter().zip(row_blocks) {
        // SAFETY: as the caller's.
        unsafe { block::<_, _, _, X86>(&mut lanes, q, r, &step) };
    }
    if !row_rest.is_empty() {
        let mut q = [Q::zeroed(); LANES];
        let mut r = [R::zeroed(); LANES];
        q[..query_rest.len()].copy_from_slice(query_rest);
        r[..row_rest.len()].copy_from_slice(row_rest);
        // SAFETY: as the caller's.
        unsafe { block::<_, _, _, X86>(&mut lanes, &q, &r, &step) };
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
unsafe fn block<Q: Element, R: Element, F: Fn(f64, f64, f64) -> f64, const X86: bool>(
    lanes: &mut [f64; LANES],
    q: &[Q; LANES],
    r: &[R; LANES],
    step: &F,
) {
    // SAFETY: as the caller's.
    let (q, r) = unsafe { (Q::widen::<X86>(q), R::widen::<X86>(r)) };
    for j in 0..LANES {
        lanes[j] = step(lanes[j], f64::from(q[j]), f64::from(r[j]));
    }
}
