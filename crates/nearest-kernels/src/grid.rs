//! Rows as levels of an even grid, 1 to 8 bits each, with a true bound of what that loses.
//!
//! `x̂ = scale · (u − zero)` with unsigned bytes `u`:
//!
//! | bits | level `n` | `u` | zero | `u − zero` |
//! |---|---|---|---|---|
//! | 1..=7 | 0..2ᵇ | `2n` | `2ᵇ − 1` | odd numbers from `1 − 2ᵇ` to `2ᵇ − 1` |
//! | 8 | 1..=255 | `n` | 128 | whole numbers from −127 to 127 |
//!
//! With `y` for the value of a level in steps of the grid (halves of odd numbers, or whole ones), every step length gives
//! the levels nearest to `x`. The best levels are those whose direction is nearest to the row's: all that matter come from
//! some step length (Gao et al., arXiv 2409.09913), and the search here is a bounded one: a few lengths between what is
//! best for normal values and what reaches the largest value, then a few about the best of these. What is lost of normal
//! rows (in squares, 384 dimensions) is then 0.2 % more than with 600 lengths at 2 to 4 bits, 4 % more at 8.
//!
//! The length of `x̂` is then free. As in RaBitQ (Gao and Long, arXiv 2405.12497) it makes `⟨x̂, x⟩ = ‖x‖²`, so that over
//! random rotations inner products are unbiased. The length that makes `‖x − x̂‖` least ranks worse, the fewer bits the
//! more, because it shortens rows unevenly (`docs/decisions/0005-short-codes.md`).
//!
//! **The bound.** With `s` the final step and `t = x · (1 / s)`, two roundings off the true ratio,
//! `‖x/s − y‖ ≤ ‖t − y‖ + FACTOR · ‖t‖`, and rounding `scale · (u − zero)` to float32 adds at most `2⁻²⁴ · ‖y‖`. Sums of
//! squares are float32 in 16 lanes, each off by at most `dim / 16 + 4` roundings of 2⁻²⁴; the last steps are in float64.
//! Values outside `SMALLEST..LARGEST` have no useful scale: it is 0 then, and the error is the norm.
//!
//! Multiplications and additions in a fixed order only: the same bits on every level.

/// The code of a row, apart from its levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GridCode {
    /// `x ≈ scale · (u − zero)`; 0 where there is no useful scale.
    pub scale: f32,
    /// At least `‖x − scale · (u − zero)‖`, each component of the latter rounded to float32.
    pub error: f32,
}

const LANES: usize = 16;
/// Step lengths that are tried at once.
const WAYS: usize = 4;
/// Four roundings of 2⁻²⁴.
const FACTOR: f64 = 1.0 / (1 << 22) as f64;
/// The root of 32 768 squares, each below the smallest normal float32.
const TINY: f64 = 2e-17;
/// Results are rounded to float32 by less than this.
const SLACK: f64 = 1.0 + 2e-7;
const SMALLEST: f32 = 1e-30;
const LARGEST: f32 = 1e30;
/// 1.5 · 2²³: a small float32 added to it is rounded to an integer, found in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// The cosine of a row and its levels from which they say anything about it.
const AIM: f64 = 1e-3;
/// The best steps for normal values of variance 1 (Max 1960), by bits.
const NORMAL_STEP: [f32; 9] = [0.0, 1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308];

/// The levels of a number of bits, in steps: `y = q + offset` with whole `q` in `low..=high`.
#[derive(Clone, Copy)]
struct Grid {
    offset: f32,
    low: f32,
    high: f32,
    /// `n − q`.
    first: i32,
    /// The largest `y`.
    reach: f32,
}

impl Grid {
    #[inline(always)]
    fn new(bits: u32) -> Self {
        if bits == 8 {
            return Grid { offset: 0.0, low: -127.0, high: 127.0, first: 128, reach: 127.0 };
        }
        let half = (1 << (bits - 1)) as f32;
        Grid { offset: 0.5, low: -half, high: half - 1.0, first: 1 << (bits - 1), reach: half - 0.5 }
    }

    /// The nearest `q` to `t`, as a float; ties and what is out of range as they come.
    #[inline(always)]
    fn nearest(self, t: f32) -> f32 {
        let t = t - self.offset;
        let t = if t < self.high { t } else { self.high };
        let t = if t > self.low { t } else { self.low };
        (t + MAGIC) - MAGIC
    }

    #[inline(always)]
    fn levels(self, x: &[f32; LANES], inverse: f32) -> [u8; LANES] {
        let mut levels = [0; LANES];
        for j in 0..LANES {
            let shifted = self.nearest(x[j] * inverse) + MAGIC;
            let q = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
            levels[j] = q.wrapping_add(self.first) as u8;
        }
        levels
    }
}

/// Codes a row; `levels` is as long as `values`.
#[inline(always)]
pub(crate) fn quantise(values: &[f32], bits: u32, levels: &mut [u8]) -> GridCode {
    let grid = Grid::new(bits);
    let largest = largest(values);
    if !(SMALLEST..LARGEST).contains(&largest) {
        levels.fill(grid.first as u8);
        return unscaled(largest, values.len());
    }
    let step = largest * best_step(values, largest, bits, grid);
    code(values, 1.0 / step, grid, levels);
    fitted(values, largest, bits, grid, levels)
}

/// The code of a row whose levels were chosen by other means.
#[inline(always)]
pub(crate) fn fit(values: &[f32], bits: u32, levels: &[u8]) -> GridCode {
    let largest = largest(values);
    if (SMALLEST..LARGEST).contains(&largest) {
        fitted(values, largest, bits, Grid::new(bits), levels)
    } else {
        unscaled(largest, values.len())
    }
}

/// A row without a useful scale.
fn unscaled(largest: f32, dim: usize) -> GridCode {
    let norm = f64::from(largest) * (dim as f64).sqrt() * (1.0 + FACTOR);
    GridCode { scale: 0.0, error: rounded_up(norm) }
}

/// Scale and error of levels.
#[inline(always)]
fn fitted(values: &[f32], largest: f32, bits: u32, grid: Grid, levels: &[u8]) -> GridCode {
    let shift = grid.offset - grid.first as f32;
    let none = [0.0; LANES];
    let sums = Sums { inverse: 1.0 / largest, shift, dots: none, squares: none, ratios: none };
    let sums = each_pair(values, levels, sums);
    let (dot, squares, ratio) = (total(&sums.dots), total(&sums.squares), total(&sums.ratios));
    let stretch = ratio / dot;
    let unit = (f64::from(largest) * stretch) as f32;
    // Levels that were chosen by other means may point anywhere.
    let is_useful = dot > AIM * (squares * ratio).sqrt() && unit > 0.0 && unit < LARGEST * 1e3;
    if !is_useful {
        return unscaled(largest, values.len());
    }
    let rests = each_pair(values, levels, Rests { inverse: 1.0 / unit, shift, sums: none }).sums;
    let rounding = 1.0 + (values.len() / LANES + 4) as f64 / f64::from(1 << 24);
    let lengths = (ratio.sqrt() / stretch + squares.sqrt()) * rounding;
    let lost = (total(&rests).sqrt() * rounding + lengths * FACTOR + TINY) * f64::from(unit);
    GridCode { scale: if bits == 8 { unit } else { unit / 2.0 }, error: rounded_up(lost) }
}

/// The best step length found, as a part of the largest value.
#[inline(always)]
fn best_step(values: &[f32], largest: f32, bits: u32, grid: Grid) -> f32 {
    // The signs do not depend on it.
    if bits == 1 {
        return 1.0;
    }
    let squares = each_block(values, Squares { inverse: 1.0 / largest, sums: [0.0; LANES] }).sums;
    let spread = (total(&squares) / values.len() as f64).sqrt() as f32;
    let high = 1.05 / grid.reach;
    let low = (0.8 * NORMAL_STEP[bits as usize] * spread).min(0.8 * high);
    // Closer together near the low end, where normal rows have their best; rows with outliers have it anywhere.
    let mut tried = [low; 2 * WAYS];
    for (i, step) in tried.iter_mut().enumerate() {
        *step = low + (high - low) * (i as f32 / 7.0) * (i as f32 / 7.0);
    }
    let mut best = (f64::NEG_INFINITY, low);
    try_steps(values, largest, [tried[0], tried[1], tried[2], tried[3]], grid, &mut best);
    try_steps(values, largest, [tried[4], tried[5], tried[6], tried[7]], grid, &mut best);
    let coarse = best.1;
    let fine = [coarse * 0.94, coarse * 0.97, coarse * 1.03, coarse * 1.06];
    try_steps(values, largest, fine, grid, &mut best);
    best.1
}

/// Replaces the best step length, and `⟨x, y⟩² / ⟨y, y⟩` of its levels up to a common factor, by better ones.
#[inline(always)]
fn try_steps(values: &[f32], largest: f32, steps: [f32; WAYS], grid: Grid, best: &mut (f64, f32)) {
    let mut inverse = [0.0f32; WAYS];
    for way in 0..WAYS {
        inverse[way] = 1.0 / (largest * steps[way]);
    }
    let empty = [[0.0; LANES]; WAYS];
    let sums = each_block(values, Trials { inverse, grid, dots: empty, squares: empty });
    for way in 0..WAYS {
        let dot = total(&sums.dots[way]) * f64::from(steps[way]);
        let score = dot * dot / total(&sums.squares[way]);
        if score > best.0 {
            *best = (score, steps[way]);
        }
    }
}

/// The levels nearest to the values, in steps whose inverse is given.
#[inline(always)]
fn code(values: &[f32], inverse: f32, grid: Grid, levels: &mut [u8]) {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let (places, rest_places) = levels.as_chunks_mut::<LANES>();
    for (block, place) in blocks.iter().zip(places) {
        *place = grid.levels(block, inverse);
    }
    if !rest.is_empty() {
        rest_places.copy_from_slice(&grid.levels(&padded(rest).0, inverse)[..rest.len()]);
    }
}

/// Sums over blocks of lanes. Methods, not closures: those would be compiled without the level's features.
trait Fold {
    /// Adds a block; `counts` is 1 for places that count, 0 for those that do not.
    fn step(&mut self, x: &[f32; LANES], counts: &[f32; LANES]);
}

#[inline(always)]
fn each_block<F: Fold>(values: &[f32], mut fold: F) -> F {
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        fold.step(block, &[1.0; LANES]);
    }
    if !rest.is_empty() {
        let (block, counts) = padded(rest);
        fold.step(&block, &counts);
    }
    fold
}

/// The same over values with their levels.
trait FoldPair {
    fn step(&mut self, x: &[f32; LANES], levels: &[u8; LANES], counts: &[f32; LANES]);
}

#[inline(always)]
fn each_pair<F: FoldPair>(values: &[f32], levels: &[u8], mut fold: F) -> F {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let (of_blocks, of_rest) = levels.as_chunks::<LANES>();
    for (block, levels) in blocks.iter().zip(of_blocks) {
        fold.step(block, levels, &[1.0; LANES]);
    }
    if !rest.is_empty() {
        let (block, counts) = padded(rest);
        let mut levels = [0; LANES];
        levels[..rest.len()].copy_from_slice(of_rest);
        fold.step(&block, &levels, &counts);
    }
    fold
}

/// Values filled up with zeros, and 1 for places that have one.
#[inline(always)]
fn padded(rest: &[f32]) -> ([f32; LANES], [f32; LANES]) {
    let (mut block, mut counts) = ([0.0; LANES], [0.0; LANES]);
    block[..rest.len()].copy_from_slice(rest);
    counts[..rest.len()].fill(1.0);
    (block, counts)
}

/// The largest `|x|`, NaN passed over.
struct Largest([f32; LANES]);

impl Fold for Largest {
    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], _: &[f32; LANES]) {
        for j in 0..LANES {
            let size = x[j].abs();
            self.0[j] = if size > self.0[j] { size } else { self.0[j] };
        }
    }
}

/// `⟨t, t⟩`.
struct Squares {
    inverse: f32,
    sums: [f32; LANES],
}

impl Fold for Squares {
    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], _: &[f32; LANES]) {
        for j in 0..LANES {
            let t = x[j] * self.inverse;
            self.sums[j] += t * t;
        }
    }
}

/// `⟨t, y⟩` and `⟨y, y⟩` for some step lengths.
struct Trials {
    inverse: [f32; WAYS],
    grid: Grid,
    dots: [[f32; LANES]; WAYS],
    squares: [[f32; LANES]; WAYS],
}

impl Fold for Trials {
    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], counts: &[f32; LANES]) {
        for way in 0..WAYS {
            for j in 0..LANES {
                let t = x[j] * self.inverse[way];
                let y = (self.grid.nearest(t) + self.grid.offset) * counts[j];
                self.dots[way][j] += t * y;
                self.squares[way][j] += y * y;
            }
        }
    }
}

/// `⟨t, y⟩`, `⟨y, y⟩` and `⟨t, t⟩`.
struct Sums {
    inverse: f32,
    /// `y − n`.
    shift: f32,
    dots: [f32; LANES],
    squares: [f32; LANES],
    ratios: [f32; LANES],
}

impl FoldPair for Sums {
    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], levels: &[u8; LANES], counts: &[f32; LANES]) {
        for j in 0..LANES {
            let t = x[j] * self.inverse;
            let y = (f32::from(levels[j]) + self.shift) * counts[j];
            self.dots[j] += t * y;
            self.squares[j] += y * y;
            self.ratios[j] += t * t;
        }
    }
}

/// `‖t − y‖²`.
struct Rests {
    inverse: f32,
    shift: f32,
    sums: [f32; LANES],
}

impl FoldPair for Rests {
    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], levels: &[u8; LANES], counts: &[f32; LANES]) {
        for j in 0..LANES {
            let y = (f32::from(levels[j]) + self.shift) * counts[j];
            let rest = x[j] * self.inverse - y;
            self.sums[j] += rest * rest;
        }
    }
}

/// The largest `|value|`, NaN passed over.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let lanes = each_block(values, Largest([0.0; LANES])).0;
    lanes.iter().fold(0.0, |a, b| if *b > a { *b } else { a })
}

/// The sum of the lanes, in float64.
#[inline(always)]
fn total(lanes: &[f32; LANES]) -> f64 {
    lanes.iter().copied().map(f64::from).sum()
}

/// A float32 that is not below `value`.
fn rounded_up(value: f64) -> f32 {
    let value = if value > 0.0 { value * SLACK + 1.5e-45 } else { value };
    if value.is_nan() { f32::INFINITY } else { value as f32 }
}
