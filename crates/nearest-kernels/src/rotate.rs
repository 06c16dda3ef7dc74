//! Orthonormal rotations of any length in O(dim · log dim): signs, Hadamard transforms, mixing.
//!
//! A round multiplies by a factor a component (a random sign, and what keeps lengths) and transforms a block of the
//! largest power of two that fits, at the front in even rounds and at the back in odd ones. Where that block is not
//! everything, odd rounds end by replacing pairs half the length apart by their sums and differences, as a step of Kac's
//! walk does: so what only one block reaches comes into the other's. Every step but the factors is its own inverse up
//! to scale, and the scale is in the factors; the inverse is the same steps in the other order.
//!
//! Mixing after every round is worse: of a component that only the back reaches, a quarter of what is left stays in one
//! place each time (960 components: fourth moment of rotated unit vectors 6.1, now 3.0, that of normal values).
//!
//! Sums, differences and products only, in a fixed order: the same bits on every level.

const LANES: usize = 16;

/// Places `start..start + len` of the block that a round transforms.
#[inline(always)]
pub(crate) fn block(dim: usize, round: usize) -> (usize, usize) {
    let len = 1 << dim.ilog2();
    (if round.is_multiple_of(2) { 0 } else { dim - len }, len)
}

/// The part of a Hadamard transform that stays within a vector.
///
/// # Safety
/// To be called only inside functions that have the level's features.
pub(crate) unsafe trait Lanes {
    /// The transform of 16 values.
    unsafe fn hadamard(lanes: &mut [f32; LANES]);
}

/// Plain loops. Compilers make gathers of them where they can, hence the other levels' own forms.
pub(crate) struct Portable;

// SAFETY: no features are needed.
unsafe impl Lanes for Portable {
    #[inline(always)]
    unsafe fn hadamard(lanes: &mut [f32; LANES]) {
        *lanes = within::<8>(within::<4>(within::<2>(within::<1>(*lanes))));
    }
}

/// Whether the halves are mixed after a round.
#[inline(always)]
pub(crate) fn mixes(dim: usize, round: usize) -> bool {
    !dim.is_power_of_two() && !round.is_multiple_of(2)
}

/// Rotates `values` by `factors`, which hold as many for every round, and for the end.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn rotate<L: Lanes>(factors: &[f32], values: &mut [f32]) {
    let dim = values.len();
    let n_rounds = factors.len() / dim - 1;
    for (round, factors) in factors.chunks_exact(dim).enumerate() {
        multiply(values, factors);
        if round < n_rounds {
            let (start, len) = block(dim, round);
            // SAFETY: as the caller's.
            unsafe { hadamard::<L>(&mut values[start..start + len]) };
            if mixes(dim, round) {
                mix(values);
            }
        }
    }
}

/// The inverse of [`rotate`].
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn rotate_back<L: Lanes>(factors: &[f32], values: &mut [f32]) {
    let dim = values.len();
    let n_rounds = factors.len() / dim - 1;
    for (round, factors) in factors.chunks_exact(dim).enumerate().rev() {
        if round < n_rounds {
            let (start, len) = block(dim, round);
            if mixes(dim, round) {
                mix(values);
            }
            // SAFETY: as the caller's.
            unsafe { hadamard::<L>(&mut values[start..start + len]) };
        }
        multiply(values, factors);
    }
}

#[inline(always)]
fn multiply(values: &mut [f32], factors: &[f32]) {
    for (value, factor) in values.iter_mut().zip(factors) {
        *value *= factor;
    }
}

/// Sums and differences of components half the length apart; the middle one of an odd number stays.
#[inline(always)]
fn mix(values: &mut [f32]) {
    let (front, back) = values.split_at_mut(values.len().div_ceil(2));
    butterfly(front, back);
}

#[inline(always)]
fn butterfly(a: &mut [f32], b: &mut [f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (*a + *b, *a - *b);
    }
}

/// The Hadamard transform, unscaled; the length is a power of two.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn hadamard<L: Lanes>(values: &mut [f32]) {
    let n = values.len();
    let mut width = LANES;
    if n < LANES {
        let mut width = 1;
        while width < n {
            for pair in values.chunks_exact_mut(2 * width) {
                let (a, b) = pair.split_at_mut(width);
                butterfly(a, b);
            }
            width *= 2;
        }
        return;
    }
    for lanes in values.as_chunks_mut::<LANES>().0 {
        // SAFETY: as the caller's.
        unsafe { L::hadamard(lanes) };
    }
    // Two steps at a time: half the passes over memory.
    while 4 * width <= n {
        for part in values.chunks_exact_mut(4 * width) {
            let (front, back) = part.split_at_mut(2 * width);
            let ((a, b), (c, d)) = (front.split_at_mut(width), back.split_at_mut(width));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (sum, difference) = (*a + *b, *a - *b);
                let (sum_of_back, difference_of_back) = (*c + *d, *c - *d);
                (*a, *c) = (sum + sum_of_back, sum - sum_of_back);
                (*b, *d) = (difference + difference_of_back, difference - difference_of_back);
            }
        }
        width *= 4;
    }
    if width < n {
        let (a, b) = values.split_at_mut(width);
        butterfly(a, b);
    }
}

/// One step among the lanes of a vector.
#[inline(always)]
fn within<const WIDTH: usize>(lanes: [f32; LANES]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for j in 0..LANES {
        let other = lanes[j ^ WIDTH];
        out[j] = if j & WIDTH == 0 { lanes[j] + other } else { other - lanes[j] };
    }
    out
}
