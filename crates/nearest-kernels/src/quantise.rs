//! Rows and queries as bytes, with true bounds of what that loses.
//!
//! With `x̃ = x − centre` (subtracted in float32), `scale = max |x̃| / 127` and `v = round(x̃ / scale)`,
//! a row is held as `u = v + 128` in 1..=255 and a query as `v` in −127..=127.
//!
//! The bounds are about the true difference `x − centre`, not its rounded form. All sums are taken in units of
//! the scale, where nothing over- or underflows that matters: with `t = x̃ · (1 / scale)`, |t| ≤ 127 and
//! `t − v` (exact, |t − v| ≤ ½). Three roundings, of the subtraction, the inverse and the product, make `t` differ from
//! the true ratio by at most `FACTOR` of itself, so
//!
//! - `‖x − centre‖ / scale` is `‖t‖` up to a factor of `1 ± FACTOR`;
//! - `‖(x − centre) / scale − v‖ ≤ ‖t − v‖ + FACTOR · ‖t‖`.
//!
//! Sums of squares are taken in float32 in 32 lanes: each is off by at most `dim / 32 + 3` roundings of 2⁻²⁴, since all
//! terms are positive; squares that underflow are worth less than `TINY` in all. The last steps are in float64.
//!
//! Where the largest component is below `SMALLEST` there is no useful scale, and where it is infinite
//! there is none at all: then the scale is 0, every code is that of 0, and the error is the norm. A norm
//! too large for float32 is +∞; no field is ever NaN for rows without NaN.

use crate::element::Element;

/// The code of a row, apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowCode {
    /// `x − centre ≈ scale · (u − 128)`; 0 where there is no useful scale.
    pub scale: f32,
    /// At least `‖x − centre‖`.
    pub norm: f32,
    /// At most `‖x − centre‖`.
    pub least_norm: f32,
    /// At least `‖(x − centre) − scale · (u − 128)‖`.
    pub error: f32,
    /// `Σ (u − 128)`.
    pub sum: i32,
}

/// The code of a query, apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryCode {
    /// `x − centre ≈ scale · v`; 0 where there is no useful scale.
    pub scale: f32,
    /// At least `‖x − centre‖`.
    pub norm: f32,
    /// At least `‖(x − centre) − scale · v‖`.
    pub error: f32,
    /// At least `‖scale · v‖`.
    pub code_norm: f32,
    /// `Σ v`.
    pub sum: i32,
}

const LANES: usize = 32;
/// Three roundings of 2⁻²⁴ and some.
const FACTOR: f64 = 1.0 / (1 << 22) as f64;
/// The root of 32 768 squares, each below the smallest normal float32.
const TINY: f64 = 2e-17;
/// Results are rounded to float32 by less than this, or by less than its smallest subnormal.
const SLACK: f64 = 1.0 + 2e-7;
/// Scales of smaller components would be subnormal, and their inverses infinite.
const SMALLEST: f32 = 1e-35;
/// 1.5 · 2²³: a small float32 added to it is rounded to an integer, found in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// Quantises a row; `centre` and `codes` are as long as `row`.
///
/// # Safety
/// Here and below, with `X86` only inside functions that have F16C.
#[inline(always)]
pub(crate) unsafe fn row<T: Element, const X86: bool>(
    row: &[T],
    centre: &[f32],
    codes: &mut [u8],
) -> RowCode {
    // SAFETY: as the caller's.
    let found = unsafe { quantise::<_, _, _, X86>(row, centre, codes, |v| (v + 128) as u8) };
    RowCode {
        scale: found.scale,
        norm: found.norm,
        least_norm: found.least_norm,
        error: found.error,
        sum: found.sum,
    }
}

/// Quantises a query; `codes` may be longer and is padded with 0.
#[inline(always)]
pub(crate) unsafe fn query<const X86: bool>(query: &[f32], centre: &[f32], codes: &mut [i8]) -> QueryCode {
    let (codes, padding) = codes.split_at_mut(query.len());
    padding.fill(0);
    // SAFETY: as the caller's.
    let found = unsafe { quantise::<_, _, _, X86>(query, centre, codes, |v| v as i8) };
    let code_norm = f64::from(found.scale) * f64::from(found.squares).sqrt();
    QueryCode {
        scale: found.scale,
        norm: found.norm,
        error: found.error,
        code_norm: rounded_up(code_norm),
        sum: found.sum,
    }
}

struct Found {
    scale: f32,
    norm: f32,
    least_norm: f32,
    error: f32,
    sum: i32,
    squares: i32,
}

#[inline(always)]
unsafe fn quantise<T: Element, C: Copy, F: Fn(i32) -> C, const X86: bool>(
    row: &[T],
    centre: &[f32],
    codes: &mut [C],
    code: F,
) -> Found {
    // SAFETY: as the caller's.
    let largest = unsafe { largest::<T, X86>(row, centre) };
    let scaled = (SMALLEST..f32::INFINITY).contains(&largest);
    let scale = if scaled { largest / 127.0 } else { 0.0 };
    // |x̃ / scale| exceeds 127 by roundings of 2⁻²⁴ only, so that it still rounds to 127.
    let inverse = if scaled { 1.0 / scale } else { 0.0 };

    let mut totals = Totals::new();
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    let (centre_blocks, centre_rest) = centre.as_chunks::<LANES>();
    let (code_blocks, code_rest) = codes.as_chunks_mut::<LANES>();
    for ((x, c), out) in row_blocks.iter().zip(centre_blocks).zip(code_blocks) {
        // SAFETY: as the caller's.
        let v = totals.add(&unsafe { T::widen::<X86>(x) }, c, inverse);
        for j in 0..LANES {
            out[j] = code(v[j]);
        }
    }
    if !row_rest.is_empty() {
        // Padding has difference 0 and code 0: it adds nothing to any total.
        let mut x = [T::zeroed(); LANES];
        let mut c = [0.0; LANES];
        x[..row_rest.len()].copy_from_slice(row_rest);
        c[..centre_rest.len()].copy_from_slice(centre_rest);
        // SAFETY: as the caller's.
        let v = totals.add(&unsafe { T::widen::<X86>(&x) }, &c, inverse);
        for (out, v) in code_rest.iter_mut().zip(v) {
            *out = code(v);
        }
    }
    if largest == f32::INFINITY {
        // Infinite differences times an inverse of 0 left no meaning in the codes.
        codes.fill(code(0));
        let norm = f32::INFINITY;
        return Found { scale: 0.0, norm, least_norm: 0.0, error: norm, sum: 0, squares: 0 };
    }
    if !scaled {
        // Every code is that of 0: what is lost is all there is.
        let norm = rounded_up(f64::from(largest) * (row.len() as f64).sqrt() * (1.0 + FACTOR));
        return Found { scale: 0.0, norm, least_norm: 0.0, error: norm, sum: 0, squares: 0 };
    }
    let rounding = (row.len() / LANES + 4) as f64 / f64::from(1 << 24);
    let root = |lanes: &[f32; LANES]| lanes.iter().copied().map(f64::from).sum::<f64>().sqrt();
    let (ratio, rest) = (root(&totals.ratio), root(&totals.rest) * (1.0 + rounding) + TINY);
    let ratio_above = ratio * (1.0 + rounding) + TINY;
    let unit = f64::from(scale);
    Found {
        scale,
        norm: rounded_up(unit * ratio_above * (1.0 + FACTOR)),
        least_norm: ((unit * ratio * (1.0 - rounding) * (1.0 - FACTOR) / SLACK) as f32).next_down(),
        error: rounded_up(unit * (rest + ratio_above * FACTOR)),
        sum: totals.sum.iter().fold(0, |a: i32, &b| a.wrapping_add(b)),
        squares: totals.squares.iter().fold(0, |a: i32, &b| a.wrapping_add(b)),
    }
}

/// The largest `|row − centre|`, NaN passed over.
#[inline(always)]
unsafe fn largest<T: Element, const X86: bool>(row: &[T], centre: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    let (centre_blocks, centre_rest) = centre.as_chunks::<LANES>();
    for (x, c) in row_blocks.iter().zip(centre_blocks) {
        // SAFETY: as the caller's.
        let x = unsafe { T::widen::<X86>(x) };
        for j in 0..LANES {
            let size = (x[j] - c[j]).abs();
            lanes[j] = if size > lanes[j] { size } else { lanes[j] };
        }
    }
    for (x, c) in row_rest.iter().zip(centre_rest) {
        let size = (x.to_f32() - c).abs();
        lanes[0] = if size > lanes[0] { size } else { lanes[0] };
    }
    lanes.iter().fold(0.0, |a, b| if *b > a { *b } else { a })
}

/// Sums over all components, in lanes.
struct Totals {
    /// Of t².
    ratio: [f32; LANES],
    /// Of (t − v)².
    rest: [f32; LANES],
    sum: [i32; LANES],
    squares: [i32; LANES],
}

impl Totals {
    #[inline(always)]
    fn new() -> Self {
        Totals { ratio: [0.0; LANES], rest: [0.0; LANES], sum: [0; LANES], squares: [0; LANES] }
    }

    #[inline(always)]
    fn add(&mut self, x: &[f32; LANES], c: &[f32; LANES], inverse: f32) -> [i32; LANES] {
        let mut codes = [0; LANES];
        for j in 0..LANES {
            let t = (x[j] - c[j]) * inverse;
            let shifted = t + MAGIC;
            let v = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
            codes[j] = v;
            let rest = t - (shifted - MAGIC);
            self.ratio[j] += t * t;
            self.rest[j] += rest * rest;
            self.sum[j] = self.sum[j].wrapping_add(v);
            self.squares[j] = self.squares[j].wrapping_add(v.wrapping_mul(v));
        }
        codes
    }
}

/// A float32 that is not below `value`, though `value` may be short by what the file's head allows.
fn rounded_up(value: f64) -> f32 {
    let value = if value > 0.0 { value * SLACK + 1.5e-45 } else { value };
    if value.is_nan() { f32::INFINITY } else { value as f32 }
}

/// Whether no value is infinite or NaN.
#[inline(always)]
pub(crate) fn all_finite<T: Element>(values: &[T]) -> bool {
    let (blocks, rest) = values.as_chunks::<LANES>();
    blocks.iter().all(|block| {
        let mut bad = [0_u32; LANES];
        for j in 0..LANES {
            bad[j] = u32::from(block[j].to_f32().abs().to_bits() >= 0x7f80_0000);
        }
        bad.iter().fold(0, |a, b| a | b) == 0
    }) && rest.iter().all(|value| value.to_f32().is_finite())
}
