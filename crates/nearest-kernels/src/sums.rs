//! Sums of rows, for their means: float64, so that neither their number nor their distance from 0 matters.
//!
//! A product by a weight is rounded before it is added, as plain loops do: each sum is of its own terms in the order they
//! come, and has the same bits on every level.

use crate::element::Element;

const LANES: usize = 32;

/// Adds `weight * row` to `sums`, which are as long.
///
/// # Safety
/// With `X86` only inside functions that have F16C.
#[inline(always)]
pub(crate) unsafe fn add<T: Element, const X86: bool>(row: &[T], weight: f64, sums: &mut [f64]) {
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    let (sum_blocks, sum_rest) = sums.as_chunks_mut::<LANES>();
    for (x, sums) in row_blocks.iter().zip(sum_blocks) {
        // SAFETY: as the caller's.
        let x = unsafe { T::widen::<X86>(x) };
        for j in 0..LANES {
            sums[j] += weight * f64::from(x[j]);
        }
    }
    for (x, sum) in row_rest.iter().zip(sum_rest) {
        *sum += weight * x.to_f64();
    }
}
