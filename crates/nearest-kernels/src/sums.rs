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

/// Asks for `values` to be brought near, before they are needed: for rows that lie anywhere.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = values.as_ptr().cast::<i8>();
        for line in (0..size_of_val(values)).step_by(64) {
            // SAFETY: a prefetch reads nothing, and every x86-64 has it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
