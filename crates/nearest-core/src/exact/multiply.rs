//! Many queries against packed rows: 8-bit multiply-adds with a proved error bound.
//!
//! With q̃ = q − c and x̃ = x − c for some centre c (Euclidean distances do not change; inner products change by q·c, which
//! is known), both are rounded to 8 bits: q̂ = s v and x̂ = t (u − 128). Then, by Cauchy and Schwarz,
//!
//! |q̃·x̃ − q̂·x̂| = |(q̃ − q̂)·x̃ + q̂·(x̃ − x̂)| ≤ ‖q̃ − q̂‖ ‖x̃‖ + ‖q̂‖ ‖x̃ − x̂‖
//!
//! and a row can be near enough only if its estimate, plus this bound, reaches the threshold of the query:
//!
//! | metric | must be | estimate / s | threshold T |
//! |---|---|---|---|
//! | euclidean | ‖q̃‖² + ‖x̃‖² − 2 q̃·x̃ ≤ D² | t·sum − ‖x̃‖²/2 · 1/s | (‖q̃‖² − D²) / 2 |
//! | inner product | q̃·x̃ + q·c ≥ −D | t·sum | −D − q·c |
//! | cosine | (q̃·x̃ + q·c) / ‖x‖ ≥ cos D · ‖q‖ | t/‖x‖ · sum + 1/‖x‖ · q·c/s | cos D · ‖q‖ |
//!
//! (for the last two q is not centred: q̃ = q). Bounds use the largest ‖x̃‖ and ‖x̃ − x̂‖ of a block of rows, and slack for
//! the float32 arithmetic of the estimate. Vectors so large or small that float32 could over- or underflow on the way
//! are let through by a threshold of −∞. uint8 and int8 rows with queries of the same type need no rounding: their sums
//! are exact, and so is the distance computed from them.

use std::ops::Range;

use nearest_kernels::{Hit, Kernels, PANEL_ROWS, PanelQueries, PanelRows, pack_panel_bytes, panel_depth};

use super::compare::{Numbers, down};
use super::distance::{canonical, largest_sqeuclidean, of_dot, of_sqeuclidean, smallest_dot};
use super::search::Sink;
use super::shadow::ShadowBlock;
use super::{BLOCK_ROWS, Block, Scope};
use crate::candidates::Candidate;
use crate::column::Row;
use crate::metric::Metric;
use crate::stored::Stored;

/// Rows from which the centre is taken.
const CENTRE_SAMPLE: usize = 4096;
/// Relative rounding allowed for in float32 arithmetic of estimates: four operations of 2⁻²⁴ and some.
const ROUNDING: f64 = 1.0 / (1 << 20) as f64;

/// One query's side of the bound.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// s, or 1 where sums are exact.
    scale: f64,
    /// ‖q̃ − q̂‖.
    error: f64,
    /// ‖q̂‖; where sums are exact, the norm of the codes.
    code_norm: f64,
    /// q·c, where q is not centred.
    offset: f64,
    /// ‖q̃‖² or ‖q‖², as the threshold needs it.
    squared_norm: f64,
    /// Whether float32 holds all that is computed from it.
    tame: bool,
}

/// Queries, coded, for blocks of rows.
#[derive(Debug)]
pub struct Multiplier<'a, T: Stored> {
    numbers: &'a Numbers<'a, T>,
    centre: Vec<f32>,
    exact: bool,
    /// Whether rows have limits of their own, as among all pairs.
    mutual: bool,
    depth: usize,
    codes: Vec<i8>,
    start: Vec<i32>,
    weight: Vec<f32>,
    terms: Vec<Terms>,
}

/// What the rows of a block have at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) norm: f32,
    pub(super) error: f32,
    pub(super) bias: f32,
    /// Whether float32 holds all that is computed from them.
    pub(super) tame: bool,
}

/// What rows of one panel add to their estimates for thresholds of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mutual {
    pub(super) bias: [f32; PANEL_ROWS],
    /// The largest finite one.
    largest: f32,
}

/// One packed block.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) panels: Vec<u8>,
    pub(super) scale: Vec<[f32; PANEL_ROWS]>,
    pub(super) bias: Vec<[f32; PANEL_ROWS]>,
    pub(super) bounds: Bounds,
    /// Of exact rows: Σx·128 (uint8) or 0, and ‖x‖².
    shifts: Vec<(i32, i32)>,
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    packed: Packed,
    positions: Vec<u32>,
    codes: Vec<u8>,
    threshold: Vec<f32>,
    hits: Vec<Hit<i32>>,
}

impl Packed {
    /// One panel of it.
    pub(super) fn panel(&self, panel: usize, depth: usize) -> PanelRows<'_, u8> {
        let size = PANEL_ROWS * depth;
        PanelRows {
            panel: &self.panels[panel * size..(panel + 1) * size],
            scale: &self.scale[panel],
            bias: &self.bias[panel],
            mutual: None,
        }
    }
}

impl<'a, T: Stored> Multiplier<'a, T> {
    /// Codes all queries; `mutual` if rows have limits of their own.
    pub(super) fn new(numbers: &'a Numbers<'a, T>, scope: &Scope<'_, T>, mutual: bool) -> Option<Self> {
        if numbers.metric == Metric::Manhattan {
            return None;
        }
        let dim = numbers.dim;
        // Between rows, cosines have two terms of the query, of which one must vanish: that of the centre, or that of
        // the shift of exact uint8 sums.
        let mutual_angle = mutual && numbers.metric.is_angular();
        let exact = T::IS_INTEGER && numbers.native.is_some() && !mutual_angle;
        let centre = match scope.centre {
            _ if mutual_angle => vec![0.0; dim],
            Some(centre) => centre.to_vec(),
            None if exact => Vec::new(),
            None => centre_of(scope),
        };
        let depth = panel_depth(dim);
        let n = numbers.squared_norms.len();
        let mut multiplier = Self {
            numbers,
            centre,
            exact,
            mutual,
            depth,
            codes: vec![0; n * depth],
            start: Vec::with_capacity(n),
            weight: Vec::with_capacity(n),
            terms: Vec::with_capacity(n),
        };
        for i in 0..n {
            if exact { multiplier.code_exactly(i) } else { multiplier.code(i) }
        }
        Some(multiplier)
    }

    pub(super) fn kernels(&self) -> &'static Kernels {
        self.numbers.kernels
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    fn code(&mut self, i: usize) {
        let numbers = self.numbers;
        let (kernels, query) = (numbers.kernels, numbers.query(i));
        let euclidean = matches!(numbers.metric, Metric::Euclidean | Metric::SqEuclidean);
        let zeros;
        let centre = if euclidean {
            &self.centre
        } else {
            zeros = vec![0.0; query.len()];
            &zeros
        };
        let codes = &mut self.codes[i * self.depth..(i + 1) * self.depth];
        let code = kernels.quantise_query(query, centre, codes);
        // A query equal to the centre has no scale: all its codes are 0, and any scale serves.
        let scale = if code.scale > 0.0 { f64::from(code.scale) } else { 1.0 };
        let offset = if euclidean { 0.0 } else { kernels.canonical_dot(query, &self.centre) };
        let squared_norm = if euclidean {
            kernels.canonical_sqeuclidean(query, &self.centre[..])
        } else {
            numbers.squared_norms[i]
        };
        let weight = match numbers.metric {
            Metric::Euclidean | Metric::SqEuclidean => 1.0 / scale,
            Metric::InnerProduct => 1.0 / scale,
            _ if self.mutual => squared_norm.sqrt() / scale,
            _ => offset / scale,
        };
        self.start.push(-128 * code.sum);
        self.weight.push(weight as f32);
        self.terms.push(Terms {
            scale,
            error: f64::from(code.error),
            code_norm: f64::from(code.code_norm),
            offset,
            squared_norm,
            tame: (1e-12..1e12).contains(&scale) && code.norm < 1e12 && weight.abs() < 1e12,
        });
    }

    fn code_exactly(&mut self, i: usize) {
        let dim = self.numbers.dim;
        let native = self.numbers.native.as_ref().expect("exact queries are native");
        let codes = &mut self.codes[i * self.depth..i * self.depth + dim];
        // Rows are packed as unsigned bytes, so queries are the signed side: uint8 queries go down by 128, and each
        // row's 128 Σx makes up for it; int8 rows went up by 128, and the query's start makes up for it.
        let query: &[T] = bytemuck::cast_slice(native);
        let mut sum = 0;
        let mut squares = 0.0;
        for (code, value) in codes.iter_mut().zip(&query[i * dim..]) {
            *code = (value.panel_byte() ^ 0x80) as i8;
            sum += i32::from(*code);
            squares += f64::from(*code) * f64::from(*code);
        }
        self.start.push(if T::SIGNED { -128 * sum } else { 0 });
        self.weight.push(1.0);
        self.terms.push(Terms {
            scale: 1.0,
            error: 0.0,
            code_norm: squares.sqrt(),
            offset: 0.0,
            squared_norm: self.numbers.squared_norms[i],
            tame: true,
        });
    }

    /// Whether a block is better multiplied than compared as it lies.
    pub(super) fn suits(&self, scope: &Scope<'_, T>, block: Block, many: bool) -> bool {
        many || self.shadow(scope, block).is_some_and(|_| {
            // Packed rows come 32 at a time, wanted or not.
            scope.selected(block).is_none_or(|words| {
                words.iter().map(|word| word.count_ones() as usize).sum::<usize>() * 4 > BLOCK_ROWS
            })
        })
    }

    fn shadow<'s>(&self, scope: &Scope<'s, T>, block: Block) -> Option<ShadowBlock<'s>> {
        scope.centre?;
        if block.end - block.start < BLOCK_ROWS {
            // An older version may see fewer rows than the block has been packed with since.
            return None;
        }
        ShadowBlock::of(scope.parts[block.part].shadow?, self.numbers.dim, block.start / BLOCK_ROWS)
    }

    /// Compares queries with the rows of a block.
    pub(super) fn run(
        &self,
        scope: &Scope<'_, T>,
        block: Block,
        queries: Range<usize>,
        sink: &mut Sink<'_>,
        buffers: &mut Buffers,
    ) {
        let Buffers { packed, positions, codes, threshold, hits, .. } = buffers;
        let shadow = self.shadow(scope, block);
        let selected = if shadow.is_some() { scope.selected(block) } else { None };
        let bounds = match &shadow {
            Some(shadow) => shadow.bounds(),
            None => {
                scope.positions(block, positions);
                self.pack(scope.vectors(block), positions, packed, codes);
                packed.bounds
            }
        };
        let n_rows = if shadow.is_some() { BLOCK_ROWS } else { positions.len() };
        let first = scope.first_row(block);
        let vectors = scope.vectors(block);
        threshold.clear();
        threshold.extend(queries.clone().map(|q| self.threshold(q, sink.limit(q - queries.start), bounds)));
        for panel in 0..n_rows.div_ceil(PANEL_ROWS) {
            let rows = match &shadow {
                Some(shadow) => {
                    let (scale, bias) = shadow.terms(panel);
                    PanelRows { panel: shadow.panel(panel), scale, bias, mutual: None }
                }
                None => packed.panel(panel, self.depth),
            };
            hits.clear();
            self.kernels().tile_i8(&rows, &self.panel_queries(queries.clone(), threshold, &[]), hits);
            for hit in hits.iter() {
                let (q, at) = (hit.query as usize, panel * PANEL_ROWS + hit.row as usize);
                if at >= n_rows || selected.is_some_and(|words| words[at / 64] >> (at % 64) & 1 == 0) {
                    continue;
                }
                let position = if shadow.is_some() { at as u32 } else { positions[at] };
                let row = &vectors[position as usize * scope.width..][..scope.width];
                let distance = self.hit_distance(queries.start + q, hit.sum, packed, at, row);
                if sink.offer(q, Candidate { distance, row: first + position as Row }) {
                    threshold[q] = self.threshold(queries.start + q, sink.limit(q), bounds);
                }
            }
        }
    }

    /// The coded queries of a range.
    pub(super) fn panel_queries<'q>(
        &'q self,
        queries: Range<usize>,
        threshold: &'q [f32],
        mutual_threshold: &'q [f32],
    ) -> PanelQueries<'q, i8> {
        PanelQueries {
            codes: &self.codes[queries.start * self.depth..queries.end * self.depth],
            start: &self.start[queries.clone()],
            weight: &self.weight[queries],
            threshold,
            mutual_threshold,
        }
    }

    /// The distance of a hit: from its sum where that is exact, else computed again.
    pub(super) fn hit_distance(&self, query: usize, sum: i32, packed: &Packed, at: usize, row: &[T]) -> f32 {
        if self.exact {
            return self.exact_distance(query, sum, packed.shifts[at]);
        }
        let numbers = self.numbers;
        canonical(numbers.kernels, numbers.metric, numbers.query(query), numbers.squared_norms[query], row)
    }

    fn exact_distance(&self, query: usize, sum: i32, (shift, squared_norm): (i32, i32)) -> f32 {
        let metric = self.numbers.metric;
        let norms = (self.numbers.squared_norms[query], f64::from(squared_norm));
        let dot = f64::from(sum) + f64::from(shift);
        match metric {
            Metric::Euclidean | Metric::SqEuclidean => of_sqeuclidean(metric, norms.0 + norms.1 - 2.0 * dot),
            _ => of_dot(metric, dot, norms),
        }
    }

    /// What an estimate must reach for the row to be possibly at most `limit` away.
    pub(super) fn threshold(&self, query: usize, limit: f32, bounds: Bounds) -> f32 {
        let terms = &self.terms[query];
        if !(terms.tame && bounds.tame) || limit == f32::INFINITY {
            return f32::NEG_INFINITY;
        }
        let metric = self.numbers.metric;
        let (needed, magnitude) = match metric {
            Metric::Euclidean | Metric::SqEuclidean => {
                let squared = largest_sqeuclidean(metric, limit);
                ((terms.squared_norm - squared) / 2.0, terms.squared_norm + squared)
            }
            Metric::InnerProduct => {
                let smallest = smallest_dot(metric, limit);
                (smallest - terms.offset, smallest.abs() + terms.offset.abs())
            }
            _ => {
                let norm = terms.squared_norm.sqrt();
                (smallest_dot(metric, limit) * norm, norm)
            }
        };
        self.reachable(query, needed, magnitude, bounds)
    }

    /// `needed`, less all that the estimate may be off, in units of the estimate. `magnitude`: of what `needed` was
    /// computed from.
    fn reachable(&self, query: usize, needed: f64, magnitude: f64, bounds: Bounds) -> f32 {
        let terms = &self.terms[query];
        let (norm, row_error) = (f64::from(bounds.norm), f64::from(bounds.error));
        let error = terms.error * norm + terms.code_norm * row_error;
        let bias = f64::from(bounds.bias) * f64::from(self.weight[query]).abs() * terms.scale;
        let slack =
            ROUNDING * (terms.code_norm * (norm + row_error) + bias + magnitude) + terms.scale * 1e-37;
        down((needed - error - slack) / terms.scale)
    }

    /// What rows of a panel add to their estimates so that one threshold a query serves all: bias and own limit.
    pub(super) fn mutual(&self, packed: &Packed, panel: usize, limits: impl Iterator<Item = f32>) -> Mutual {
        let metric = self.numbers.metric;
        let mut mutual = Mutual { bias: [f32::NEG_INFINITY; PANEL_ROWS], largest: 0.0 };
        for ((own, bias), limit) in mutual.bias.iter_mut().zip(&packed.bias[panel]).zip(limits) {
            let reach = match metric {
                Metric::Euclidean | Metric::SqEuclidean => largest_sqeuclidean(metric, limit) / 2.0,
                _ => -smallest_dot(metric, limit),
            };
            *own = ((f64::from(*bias) + reach) as f32).next_up();
            if own.is_finite() {
                mutual.largest = mutual.largest.max(own.abs());
            }
        }
        mutual
    }

    /// What an estimate with the rows' own limits must reach for a query to be possibly near enough to a row.
    pub(super) fn mutual_threshold(&self, query: usize, bounds: Bounds, mutual: &Mutual) -> f32 {
        let terms = &self.terms[query];
        if !(terms.tame && bounds.tame) {
            return f32::NEG_INFINITY;
        }
        let needed = match self.numbers.metric {
            Metric::Euclidean | Metric::SqEuclidean => terms.squared_norm / 2.0,
            Metric::InnerProduct => -terms.offset,
            _ => 0.0,
        };
        let bounds = Bounds { bias: bounds.bias + mutual.largest, ..bounds };
        self.reachable(query, needed, needed.abs(), bounds)
    }

    /// Packs the rows at `positions` of a block.
    pub(super) fn pack(&self, vectors: &[T], positions: &[u32], packed: &mut Packed, codes: &mut Vec<u8>) {
        let (dim, depth) = (self.numbers.dim, self.depth);
        let panels = positions.len().div_ceil(PANEL_ROWS);
        packed.panels.resize(panels * PANEL_ROWS * depth, 0);
        packed.scale.resize(panels, [0.0; PANEL_ROWS]);
        packed.bias.resize(panels, [0.0; PANEL_ROWS]);
        packed.shifts.clear();
        packed.bounds = Bounds { tame: true, ..Bounds::default() };
        codes.resize(PANEL_ROWS * dim, 0);
        for (panel, positions) in positions.chunks(PANEL_ROWS).enumerate() {
            let (scale, bias) = (&mut packed.scale[panel], &mut packed.bias[panel]);
            // Places without a row: callers skip them.
            scale.fill(0.0);
            bias.fill(0.0);
            for (i, &position) in positions.iter().enumerate() {
                let row = &vectors[position as usize * dim..][..dim];
                let codes = &mut codes[i * dim..(i + 1) * dim];
                (scale[i], bias[i]) = if self.exact {
                    self.code_row_exactly(row, codes, &mut packed.shifts, &mut packed.bounds)
                } else {
                    let terms = RowTerms::of(self.kernels(), row, &self.centre, codes);
                    let (scale, bias) = terms.bound(self.numbers.metric, &mut packed.bounds);
                    (scale, if self.mutual && self.numbers.metric.is_angular() { 0.0 } else { bias })
                };
            }
            let place = &mut packed.panels[panel * PANEL_ROWS * depth..][..PANEL_ROWS * depth];
            pack_panel_bytes(&codes[..positions.len() * dim], dim, place);
        }
    }

    fn code_row_exactly(
        &self,
        row: &[T],
        codes: &mut [u8],
        shifts: &mut Vec<(i32, i32)>,
        bounds: &mut Bounds,
    ) -> (f32, f32) {
        let (mut sum, mut squares) = (0i32, 0i32);
        for (code, &value) in codes.iter_mut().zip(row) {
            *code = value.panel_byte();
            let value = value.to_i32();
            sum += value;
            squares += value * value;
        }
        let shift = if T::SIGNED { 0 } else { 128 * sum };
        shifts.push((shift, squares));
        let (shifted, squared) = (f64::from(shift), f64::from(squares));
        let (scale, bias) = match self.numbers.metric {
            Metric::Euclidean | Metric::SqEuclidean => (1.0, shifted - squared / 2.0),
            Metric::InnerProduct => (1.0, shifted),
            _ if squares == 0 => (0.0, 0.0),
            _ => (1.0 / squared.sqrt(), shifted / squared.sqrt()),
        };
        // Sums are of the packed bytes, which are up to 128 √dim longer than the row where it is signed.
        let packed_norm = if T::SIGNED { 255.0 * (row.len() as f64).sqrt() } else { squared.sqrt() };
        bounds.norm = bounds.norm.max((packed_norm * scale) as f32);
        bounds.bias = bounds.bias.max(bias.abs() as f32);
        (scale as f32, bias as f32)
    }
}

/// A row's side of the bound, for any metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowTerms {
    /// t.
    pub(super) scale: f32,
    /// ≥ ‖x̃‖.
    pub(super) norm: f32,
    /// ≥ ‖x̃ − x̂‖.
    pub(super) error: f32,
    /// 1/‖x‖, or 0 for a zero row.
    pub(super) inverse_norm: f32,
}

impl RowTerms {
    pub(super) fn of<T: Stored>(kernels: &Kernels, row: &[T], centre: &[f32], codes: &mut [u8]) -> Self {
        let code = kernels.quantise_row(row, centre, codes);
        let norm = kernels.canonical_squared_norm(row).sqrt();
        let inverse_norm = if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 };
        Self { scale: code.scale, norm: code.norm, error: code.error, inverse_norm }
    }

    /// (scale, bias) of the estimate; takes the row into the bounds of its block.
    pub(super) fn bound(self, metric: Metric, bounds: &mut Bounds) -> (f32, f32) {
        let Self { scale, norm, error, inverse_norm } = self;
        bounds.tame &= norm < 1e12 && (scale == 0.0 && norm == 0.0 || scale > 1e-15) && inverse_norm < 1e12;
        let (factor, bias) = match metric {
            // The norm was rounded up by at most 3 · 10⁻⁶; the bias must not be too low.
            Metric::Euclidean | Metric::SqEuclidean => (1.0, -0.5 * (norm * (1.0 - 4e-6)).powi(2)),
            Metric::InnerProduct => (1.0, 0.0),
            _ => (inverse_norm, inverse_norm),
        };
        // Rounded up by more than the products can be rounded down.
        bounds.norm = bounds.norm.max(norm * factor * (1.0 + 1e-6));
        bounds.error = bounds.error.max(error * factor * (1.0 + 1e-6));
        bounds.bias = bounds.bias.max(bias.abs());
        (scale * factor, bias)
    }
}

/// The mean of a sample of the rows.
pub(super) fn centre_of<T: Stored>(scope: &Scope<'_, T>) -> Vec<f32> {
    let width = scope.width;
    let step = scope.n_rows().div_ceil(CENTRE_SAMPLE).max(1);
    let mut sums = vec![0.0f64; width];
    let mut n = 0u32;
    for part in &scope.parts {
        for row in part.vectors.chunks_exact(width).step_by(step) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(value.to_f32()));
            n += 1;
        }
    }
    sums.into_iter().map(|sum| (sum / f64::from(n.max(1))) as f32).collect()
}
