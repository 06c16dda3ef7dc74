//! One query against many rows, eight rows at a time.
//!
//! Eight rows share each load of the query and give eight independent chains of additions, which is
//! what hides their latency; the last rows go in groups of 4, 2 and 1 with 2, 4 and 8 chains a row.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::array;
use std::ops::Add;

use crate::codes::CodeSums;
use crate::rows::Rows;

/// The vector operations of one kernel on one level.
///
/// # Safety
/// Methods may be called only inside functions that have the level's features. Loads read `WIDTH`
/// elements from the pointer; loads of parts read `n < WIDTH`, and what they put in the other lanes
/// adds nothing to a total.
pub(super) unsafe trait Step {
    type Query;
    type Row;
    /// What a load gives.
    type Vector: Copy;
    type Total: Total;
    /// Elements a step.
    const WIDTH: usize;

    /// What is added to every sum.
    fn start(query: &[Self::Query]) -> Sum<Self>;
    unsafe fn query(at: *const Self::Query) -> Self::Vector;
    unsafe fn query_part(at: *const Self::Query, n: usize) -> Self::Vector;
    unsafe fn row(at: *const Self::Row) -> Self::Vector;
    unsafe fn row_part(at: *const Self::Row, n: usize) -> Self::Vector;
    unsafe fn step(total: Self::Total, query: Self::Vector, row: Self::Vector) -> Self::Total;
}

/// Partial sums in a vector.
///
/// # Safety
/// As [`Step`].
pub(super) unsafe trait Total: Copy {
    type Sum: Copy + Add<Output = Self::Sum>;
    unsafe fn zero() -> Self;
    unsafe fn join(self, other: Self) -> Self;
    unsafe fn sum(self) -> Self::Sum;
    unsafe fn sum8(totals: [Self; 8]) -> [Self::Sum; 8];
}

/// Two totals of a row of codes.
#[derive(Clone, Copy)]
pub(super) struct Both<T> {
    pub(super) products: T,
    pub(super) squares: T,
}

// SAFETY: as of `T`, for each of the two.
unsafe impl<T: Total<Sum = i32>> Total for Both<T> {
    type Sum = CodeSums;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the caller's.
        unsafe { Both { products: T::zero(), squares: T::zero() } }
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        // SAFETY: as the caller's.
        unsafe {
            Both { products: self.products.join(other.products), squares: self.squares.join(other.squares) }
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> CodeSums {
        // SAFETY: as the caller's.
        unsafe { CodeSums { products: self.products.sum(), squares: self.squares.sum() } }
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [CodeSums; 8] {
        // SAFETY: as the caller's.
        let (products, squares) =
            unsafe { (T::sum8(totals.map(|both| both.products)), T::sum8(totals.map(|both| both.squares))) };
        array::from_fn(|k| CodeSums { products: products[k], squares: squares[k] })
    }
}

pub(super) type Sum<S> = <<S as Step>::Total as Total>::Sum;

/// How far ahead of side-by-side rows to prefetch, in bytes.
const AHEAD: usize = 4096;
/// How much of each scattered row of the next group to prefetch, in bytes.
const SCATTERED_AHEAD: usize = 512;

/// Compares a query with rows.
///
/// # Safety
/// `query` points to `dim` elements and `rows` are `out.len()` rows of `dim` elements.
#[inline(always)]
pub(super) unsafe fn one_to_many<S: Step>(
    dim: usize,
    query: *const S::Query,
    start: Sum<S>,
    rows: Rows<'_, S::Row>,
    out: &mut [Sum<S>],
) {
    let n = out.len();
    match rows {
        Rows::Contiguous(values) => {
            let first = values.as_ptr();
            // SAFETY: row `i < n` starts at `i * dim`, inside the slice; prefetching reads nothing.
            unsafe { walk::<S, true>(dim, query, start, out, |i| first.add(i * dim), |_| ()) }
        }
        Rows::Scattered(rows) => {
            let row_bytes = (dim * size_of::<S::Row>()).min(SCATTERED_AHEAD);
            // SAFETY: `rows` has `n` places, of `dim` elements each; prefetching reads nothing.
            unsafe {
                let row = |i: usize| rows.get_unchecked(i).as_ptr();
                walk::<S, false>(dim, query, start, out, row, |i| {
                    for next in i..(i + 8).min(n) {
                        let at = row(next).cast::<i8>();
                        for offset in (0..row_bytes).step_by(64) {
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(offset));
                        }
                    }
                });
            }
        }
    }
}

/// Compares a query with rows that were asked for before.
///
/// # Safety
/// `query` points to `dim` elements and `rows` are `out.len()` rows of `dim` elements.
#[inline(always)]
pub(super) unsafe fn scattered<S: Step>(
    dim: usize,
    query: *const S::Query,
    rows: &[&[S::Row]],
    out: &mut [Sum<S>],
) {
    // SAFETY: `rows` has as many places as `out`, of `dim` elements each.
    unsafe { walk::<S, false>(dim, query, S::start(&[]), out, |i| rows.get_unchecked(i).as_ptr(), |_| ()) }
}

/// # Safety
/// `row(i)` points to `dim` elements for every `i < out.len()`, and `query` to as many.
#[inline(always)]
unsafe fn walk<S: Step, const AHEAD: bool>(
    dim: usize,
    query: *const S::Query,
    start: Sum<S>,
    out: &mut [Sum<S>],
    row: impl Fn(usize) -> *const S::Row,
    prefetch: impl Fn(usize),
) {
    let n = out.len();
    let mut at = 0;
    // SAFETY: each call takes rows `at..at + N`, all below `n`.
    unsafe {
        while n - at >= 8 {
            prefetch(at + 8);
            let totals = totals::<S, 8, 1, AHEAD>(dim, query, array::from_fn(|k| row(at + k)));
            let sums = S::Total::sum8(totals);
            for k in 0..8 {
                out[at + k] = sums[k] + start;
            }
            at += 8;
        }
        if n - at >= 4 {
            let totals = totals::<S, 4, 2, AHEAD>(dim, query, array::from_fn(|k| row(at + k)));
            for k in 0..4 {
                out[at + k] = totals[k].sum() + start;
            }
            at += 4;
        }
        if n - at >= 2 {
            let totals = totals::<S, 2, 4, AHEAD>(dim, query, array::from_fn(|k| row(at + k)));
            for k in 0..2 {
                out[at + k] = totals[k].sum() + start;
            }
            at += 2;
        }
        if n - at >= 1 {
            let [total] = totals::<S, 1, 8, AHEAD>(dim, query, [row(at)]);
            out[at] = total.sum() + start;
        }
    }
}

/// Partial sums of `N` rows, with `U` chains a row.
///
/// # Safety
/// `query` and each of `rows` point to `dim` elements.
#[inline(always)]
unsafe fn totals<S: Step, const N: usize, const U: usize, const PREFETCH: bool>(
    dim: usize,
    query: *const S::Query,
    rows: [*const S::Row; N],
) -> [S::Total; N] {
    // SAFETY: every load ends at or before `dim`.
    unsafe {
        let mut totals = [[S::Total::zero(); U]; N];
        let mut at = 0;
        while dim - at >= S::WIDTH * U {
            for u in 0..U {
                let place = at + u * S::WIDTH;
                let q = S::query(query.add(place));
                for k in 0..N {
                    if PREFETCH {
                        _mm_prefetch::<_MM_HINT_T0>(rows[k].add(place).cast::<i8>().wrapping_add(AHEAD));
                    }
                    totals[k][u] = S::step(totals[k][u], q, S::row(rows[k].add(place)));
                }
            }
            at += S::WIDTH * U;
        }
        let mut joined = [S::Total::zero(); N];
        for k in 0..N {
            joined[k] = totals[k][0];
            for u in 1..U {
                joined[k] = joined[k].join(totals[k][u]);
            }
        }
        if U > 1 {
            while dim - at >= S::WIDTH {
                let q = S::query(query.add(at));
                for k in 0..N {
                    joined[k] = S::step(joined[k], q, S::row(rows[k].add(at)));
                }
                at += S::WIDTH;
            }
        }
        if at < dim {
            let q = S::query_part(query.add(at), dim - at);
            for k in 0..N {
                joined[k] = S::step(joined[k], q, S::row_part(rows[k].add(at), dim - at));
            }
        }
        joined
    }
}
