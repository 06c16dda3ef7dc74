//! Many queries against packed rows: 8-bit multiply-adds with a proved error bound.
//!
//! With q̃ = q − c and x̃ = x − c for some centre c (Euclidean distances do not change; inner products change by q·c, which
//! is known), both are rounded to 8 bits: q̂ = s v and x̂ = t (u − 128). Then, by Cauchy and Schwarz,
//!
//! |q̃·x̃ − q̂·x̂| = |(q̃ − q̂)·x̃ + q̂·(x̃ − x̂)| ≤ ‖q̃ − q̂‖ ‖x̃‖ + ‖q̂‖ ‖x̃ − x̂‖
//!
//! and a row can be near enough only if its estimate, plus this bound, reaches what the query needs:
//!
//! | metric | must be | estimate / s | needed |
//! |---|---|---|---|
//! | euclidean | ‖q̃‖² + ‖x̃‖² − 2 q̃·x̃ ≤ D² | t·sum − ‖x̃‖²/2 · 1/s | (‖q̃‖² − D²) / 2 |
//! | inner product | q·x̃ + q·c ≥ −D | t·sum | −D − q·c |
//! | cosine | q·x̃/‖x‖ + q·c ≥ cos D · ‖q‖ | t/‖x‖ · sum | cos D · ‖q‖ − q·c |
//!
//! (for the last two q is not centred; for cosine x̃ = x − ‖x‖ c, as if rows had length 1). The bound is linear in ‖x̃‖ and
//! ‖x̃ − x̂‖: a threshold a panel uses the largest of its rows, and each hit is looked at again with its own, before its
//! distance is computed. Slack covers the float32 arithmetic of the estimate. Vectors so large or small that float32
//! could over- or underflow on the way are let through by a threshold of −∞. uint8 and int8 rows with queries of the same
//! type need no rounding: their sums are exact, and so is the distance computed from them.
//!
//! Among all pairs (`mutual`) rows have limits of their own. With the row's own T = (‖x̃‖² − D²)/2 (euclidean; −D for inner
//! products, cos D for cosine) the pair matters to the row if
//!
//! q̃·x̃ − T ≥ ‖q̃‖²/2 (euclidean), q·x̃ − T ≥ −q·c (inner product), q·x̃/‖x‖ − T ‖q‖ ≥ −q·c (cosine).

use std::ops::Range;

use nearest_kernels::{
    Hit, Kernels, PANEL_ROWS, PanelQueries, PanelRows, Rows, pack_panel_bytes, panel_depth,
};

use super::compare::{Numbers, down};
use super::distance::{canonical, largest_sqeuclidean, of_dot, of_sqeuclidean, smallest_dot};
use super::search::Sink;
use super::shadow::shadow_block;
use super::{BLOCK_ROWS, Block, Scope};
use crate::candidates::Candidate;
use crate::column::Row;
use crate::metric::Metric;
use crate::stored::Stored;

/// Rows from which the centre is taken.
const CENTRE_SAMPLE: usize = 1024;
/// Relative rounding allowed for in float32 arithmetic of estimates: four operations of 2⁻²⁴ and some.
const ROUNDING: f64 = 1.0 / (1 << 20) as f64;
/// The same for thresholds, which are computed in float32 too.
const UP: f32 = 1.0 + 1e-6;
/// Panels have thresholds of their own where the rows of a block differ by this factor.
const UNEVEN: f32 = 2.0;

/// One query's side of the bound.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// s, or 1 where sums are exact.
    scale: f64,
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
    depth: usize,
    codes: Vec<i8>,
    start: Vec<i32>,
    weight: Vec<f32>,
    terms: Vec<Terms>,
    /// ‖q̃ − q̂‖ / s and ‖q̂‖ / s: what the threshold loses per unit of a row's norm and error.
    slopes: Vec<(f32, f32)>,
    /// A query that sums up uint8 rows.
    ones: Vec<u8>,
}

/// What rows have at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) norm: f32,
    pub(super) error: f32,
    /// The least any of them has.
    pub(super) smallest_error: f32,
    pub(super) bias: f32,
    /// Whether float32 holds all that is computed from them.
    pub(super) tame: bool,
}

impl Bounds {
    pub(super) const NONE: Bounds =
        Bounds { norm: 0.0, error: 0.0, smallest_error: f32::INFINITY, bias: 0.0, tame: true };
}

/// One row's side of the bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowTerms {
    pub(super) scale: f32,
    pub(super) bias: f32,
    /// ≥ ‖x̃‖, in units of the estimate.
    pub(super) norm: f32,
    /// ≥ ‖x̃ − x̂‖, in units of the estimate.
    pub(super) error: f32,
}

/// Terms of a row of a panel, as kinds of arrays.
pub(super) const N_TERMS: usize = 4;

/// A packed block: panels of codes, and the terms of their rows as four arrays.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedBlock<'a> {
    pub(super) panels: &'a [u8],
    /// Scales of all rows, then biases, norms, errors.
    pub(super) terms: &'a [f32],
    pub(super) depth: usize,
    pub(super) bounds: Bounds,
}

impl<'a> PackedBlock<'a> {
    fn places(&self) -> usize {
        self.terms.len() / N_TERMS
    }

    fn term(&self, kind: usize, panel: usize) -> &'a [f32; PANEL_ROWS] {
        self.terms[kind * self.places() + panel * PANEL_ROWS..].first_chunk().expect("32 places a panel")
    }

    /// One panel of it.
    pub(super) fn panel(&self, panel: usize) -> PanelRows<'a, u8> {
        let size = PANEL_ROWS * self.depth;
        let panel_bytes = &self.panels[panel * size..(panel + 1) * size];
        PanelRows {
            panel: panel_bytes,
            scale: self.term(0, panel),
            bias: self.term(1, panel),
            mutual: None,
            ahead: &[],
        }
    }

    /// The largest norm and error of a panel.
    fn largest(&self, panel: usize) -> (f32, f32) {
        let largest = |kind| self.term(kind, panel).iter().fold(0.0f32, |a, &b| a.max(b));
        (largest(2), largest(3))
    }

    /// Whether thresholds of the block are much lower than some of its panels need.
    fn is_uneven(&self) -> bool {
        self.bounds.smallest_error * UNEVEN < self.bounds.error
    }

    fn row(&self, at: usize) -> RowTerms {
        let term = |kind: usize| self.terms[kind * self.places() + at];
        RowTerms { scale: term(0), bias: term(1), norm: term(2), error: term(3) }
    }
}

/// What packing a block leaves.
#[derive(Debug)]
pub(super) struct Packed {
    panels: Vec<u8>,
    terms: Vec<f32>,
    bounds: Bounds,
    /// Of exact rows: Σx·128 (uint8) or 0, and ‖x‖².
    shifts: Vec<(i32, i32)>,
    rows: Vec<RowTerms>,
    codes: Vec<u8>,
    gathered: Vec<u8>,
    order: Vec<u32>,
    centre: Vec<f32>,
}

impl Default for Packed {
    fn default() -> Self {
        Self {
            panels: Vec::new(),
            terms: Vec::new(),
            bounds: Bounds::NONE,
            shifts: Vec::new(),
            rows: Vec::new(),
            codes: Vec::new(),
            gathered: Vec::new(),
            order: Vec::new(),
            centre: Vec::new(),
        }
    }
}

impl Packed {
    pub(super) fn block(&self, depth: usize) -> PackedBlock<'_> {
        PackedBlock { panels: &self.panels, terms: &self.terms, depth, bounds: self.bounds }
    }
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    packed: Packed,
    positions: Vec<u32>,
    thresholds: Thresholds,
    hits: Vec<Hit<i32>>,
}

/// Thresholds of some queries against one block.
#[derive(Debug, Default)]
pub(super) struct Thresholds {
    /// Without what a row's norm and error take off.
    base: Vec<f32>,
    /// With the largest of the panel, or of the block.
    reached: Vec<f32>,
    mutual_base: Vec<f32>,
    mutual_reached: Vec<f32>,
}

fn reach(base: f32, slopes: (f32, f32), (norm, error): (f32, f32)) -> f32 {
    // Both products are positive: rounding them up lowers the threshold; so does the last term for that of `base`.
    base - (slopes.0 * norm + slopes.1 * error) * UP - base.abs() * (UP - 1.0)
}

impl<'a, T: Stored> Multiplier<'a, T> {
    /// Codes all queries; `mutual` if rows have limits of their own.
    pub(super) fn new(numbers: &'a Numbers<'a, T>, scope: &Scope<'_, T>, mutual: bool) -> Option<Self> {
        if numbers.metric == Metric::Manhattan {
            return None;
        }
        let dim = numbers.dim;
        // Between rows, cosines of exact uint8 sums would have two terms of the query: the shift and the limit.
        let exact = T::IS_INTEGER && numbers.native.is_some() && !(mutual && numbers.metric.is_angular());
        let centre = match scope.centre {
            Some(centre) => centre.to_vec(),
            None if exact => Vec::new(),
            None => centre_of(scope, numbers.metric),
        };
        let depth = panel_depth(dim);
        let n = numbers.squared_norms.len();
        let mut multiplier = Self {
            numbers,
            centre,
            exact,
            depth,
            codes: vec![0; n * depth],
            start: Vec::with_capacity(n),
            weight: Vec::with_capacity(n),
            terms: Vec::with_capacity(n),
            slopes: Vec::with_capacity(n),
            ones: if exact { vec![1; dim] } else { Vec::new() },
        };
        let zeros = vec![0.0; dim];
        for i in 0..n {
            if exact { multiplier.code_exactly(i) } else { multiplier.code(i, &zeros) }
        }
        Some(multiplier)
    }

    pub(super) fn kernels(&self) -> &'static Kernels {
        self.numbers.kernels
    }

    fn is_euclidean(&self) -> bool {
        matches!(self.numbers.metric, Metric::Euclidean | Metric::SqEuclidean)
    }

    fn code(&mut self, i: usize, zeros: &[f32]) {
        let numbers = self.numbers;
        let (kernels, query) = (numbers.kernels, numbers.query(i));
        let euclidean = self.is_euclidean();
        let codes = &mut self.codes[i * self.depth..(i + 1) * self.depth];
        let code = kernels.quantise_query(query, if euclidean { &self.centre } else { zeros }, codes);
        // A query equal to the centre has no scale: all its codes are 0, and any scale serves.
        let scale = if code.scale > 0.0 { f64::from(code.scale) } else { 1.0 };
        let (offset, squared_norm) = if euclidean {
            (0.0, kernels.canonical_sqeuclidean(query, &self.centre[..]))
        } else {
            (kernels.canonical_dot(query, &self.centre[..]), numbers.squared_norms[i])
        };
        let weight = if numbers.metric.is_angular() { squared_norm.sqrt() / scale } else { 1.0 / scale };
        // Damaged rows may have nonsense sums: they must not overflow.
        self.start.push(code.sum.wrapping_mul(-128));
        self.weight.push(weight as f32);
        let (error, code_norm) = (f64::from(code.error), f64::from(code.code_norm));
        self.slopes.push(((error / scale) as f32 * UP, (code_norm / scale) as f32 * UP));
        let tame = (1e-12..1e12).contains(&scale) && code.norm < 1e12 && weight < 1e12;
        self.terms.push(Terms { scale, code_norm, offset, squared_norm, tame });
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
        self.slopes.push((0.0, 0.0));
        let squared_norm = self.numbers.squared_norms[i];
        self.terms.push(Terms {
            scale: 1.0,
            code_norm: squares.sqrt(),
            offset: 0.0,
            squared_norm,
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

    fn shadow<'s>(&self, scope: &Scope<'s, T>, block: Block) -> Option<PackedBlock<'s>> {
        scope.centre?;
        if block.end - block.start < BLOCK_ROWS {
            // An older version may see fewer rows than the block has been packed with since.
            return None;
        }
        shadow_block(scope.parts[block.part].shadow?, self.numbers.dim, block.start / BLOCK_ROWS)
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
        let Buffers { packed, positions, thresholds, hits } = buffers;
        let vectors = scope.vectors(block);
        let shadow = self.shadow(scope, block);
        let selected = if shadow.is_some() { scope.selected(block) } else { None };
        let rows = match shadow {
            Some(shadow) => shadow,
            None => {
                scope.positions(block, positions);
                self.pack(vectors, positions, packed);
                packed.block(self.depth)
            }
        };
        let n_rows = if shadow.is_some() { BLOCK_ROWS } else { positions.len() };
        let first = scope.first_row(block);
        self.begin(queries.clone(), rows.bounds, thresholds, |q| sink.limit(q));
        for panel in 0..n_rows.div_ceil(PANEL_ROWS) {
            self.reach_panel(queries.clone(), rows, panel, thresholds);
            hits.clear();
            let tile_queries = self.panel_queries(queries.clone(), thresholds);
            self.kernels().tile_i8(&rows.panel(panel), &tile_queries, hits);
            for hit in hits.iter() {
                let (q, at) = (hit.query as usize, panel * PANEL_ROWS + hit.row as usize);
                if at >= n_rows || selected.is_some_and(|words| words[at / 64] >> (at % 64) & 1 == 0) {
                    continue;
                }
                let query = queries.start + q;
                if !self.may_be_near(query, hit.sum, thresholds.base[q], rows.row(at)) {
                    continue;
                }
                let position = if shadow.is_some() { at as u32 } else { positions[at] };
                let row = &vectors[position as usize * scope.width..][..scope.width];
                let distance = self.hit_distance(query, hit.sum, packed, at, row);
                if sink.offer(q, Candidate { distance, row: first + position as Row }) {
                    thresholds.base[q] = self.base(query, sink.limit(q), rows.bounds);
                    let largest = (rows.bounds.norm, rows.bounds.error);
                    thresholds.reached[q] = reach(thresholds.base[q], self.slopes[query], largest);
                }
            }
        }
    }

    /// Sets thresholds for a block.
    pub(super) fn begin(
        &self,
        queries: Range<usize>,
        bounds: Bounds,
        thresholds: &mut Thresholds,
        limit: impl Fn(usize) -> f32,
    ) {
        let Thresholds { base, reached, .. } = thresholds;
        base.clear();
        base.extend(queries.clone().enumerate().map(|(q, query)| self.base(query, limit(q), bounds)));
        reached.clear();
        let largest = (bounds.norm, bounds.error);
        reached.extend(
            base.iter().zip(&self.slopes[queries]).map(|(&base, &slopes)| reach(base, slopes, largest)),
        );
    }

    /// Sets the thresholds of one panel, where the rows of the block differ.
    fn reach_panel(
        &self,
        queries: Range<usize>,
        rows: PackedBlock<'_>,
        panel: usize,
        thresholds: &mut Thresholds,
    ) {
        if rows.is_uneven() {
            let largest = rows.largest(panel);
            let Thresholds { base, reached, .. } = thresholds;
            for ((reached, &base), &slopes) in reached.iter_mut().zip(base.iter()).zip(&self.slopes[queries])
            {
                *reached = reach(base, slopes, largest);
            }
        }
    }

    /// Whether a hit stays one with the terms of its own row.
    fn may_be_near(&self, query: usize, sum: i32, base: f32, row: RowTerms) -> bool {
        let estimate = row.scale * sum as f32 + row.bias * self.weight[query];
        !(estimate < reach(base, self.slopes[query], (row.norm, row.error)))
    }

    /// The coded queries of a range, with the thresholds of a panel.
    fn panel_queries<'q>(
        &'q self,
        queries: Range<usize>,
        thresholds: &'q Thresholds,
    ) -> PanelQueries<'q, i8> {
        PanelQueries {
            codes: &self.codes[queries.start * self.depth..queries.end * self.depth],
            start: &self.start[queries.clone()],
            weight: &self.weight[queries],
            threshold: &thresholds.reached,
            mutual_threshold: &thresholds.mutual_reached,
        }
    }

    /// The distance of a hit: from its sum where that is exact, else computed again.
    fn hit_distance(&self, query: usize, sum: i32, packed: &Packed, at: usize, row: &[T]) -> f32 {
        let numbers = self.numbers;
        if !self.exact {
            return canonical(
                numbers.kernels,
                numbers.metric,
                numbers.query(query),
                numbers.squared_norms[query],
                row,
            );
        }
        let (shift, squared_norm) = packed.shifts[at];
        let norms = (numbers.squared_norms[query], f64::from(squared_norm));
        let dot = f64::from(sum) + f64::from(shift);
        match numbers.metric {
            Metric::Euclidean | Metric::SqEuclidean => {
                of_sqeuclidean(numbers.metric, norms.0 + norms.1 - 2.0 * dot)
            }
            metric => of_dot(metric, dot, norms),
        }
    }

    /// What an estimate must reach for a row without norm and error to be possibly at most `limit` away.
    fn base(&self, query: usize, limit: f32, bounds: Bounds) -> f32 {
        let terms = &self.terms[query];
        if limit == f32::INFINITY {
            return f32::NEG_INFINITY;
        }
        let metric = self.numbers.metric;
        let (needed, magnitude) = if self.is_euclidean() {
            let squared = largest_sqeuclidean(metric, limit);
            ((terms.squared_norm - squared) / 2.0, terms.squared_norm + squared)
        } else {
            let norm = if metric.is_angular() { terms.squared_norm.sqrt() } else { 1.0 };
            let smallest = smallest_dot(metric, limit) * norm;
            (smallest - terms.offset, smallest.abs() + terms.offset.abs() + norm)
        };
        self.slackened(query, needed, magnitude, bounds)
    }

    /// `needed`, less what rounding of the estimate may cost, in units of the estimate. `magnitude`: of what `needed`
    /// was computed from.
    fn slackened(&self, query: usize, needed: f64, magnitude: f64, bounds: Bounds) -> f32 {
        let terms = &self.terms[query];
        if !(terms.tame && bounds.tame) {
            return f32::NEG_INFINITY;
        }
        let products = terms.code_norm * (f64::from(bounds.norm) + f64::from(bounds.error));
        let bias = f64::from(bounds.bias) * f64::from(self.weight[query]) * terms.scale;
        let slack = ROUNDING * (products + bias + magnitude) + terms.scale * 1e-37;
        down((needed - slack) / terms.scale)
    }

    /// Packs the rows at `positions` of a block, and puts `positions` in the order they were packed in.
    pub(super) fn pack(&self, vectors: &[T], positions: &mut [u32], packed: &mut Packed) {
        let (dim, n) = (self.numbers.dim, positions.len());
        packed.bounds = Bounds::NONE;
        packed.shifts.clear();
        packed.rows.clear();
        packed.codes.resize(n * dim, 0);
        let rows = positions.iter().map(|&position| &vectors[position as usize * dim..][..dim]);
        let places = packed.codes.chunks_exact_mut(dim);
        if self.exact {
            for (row, place) in rows.zip(places) {
                place.copy_from_slice(bytemuck::cast_slice(row));
            }
            self.code_rows_exactly(packed);
        } else {
            let metric = self.numbers.metric;
            for (row, place) in rows.zip(places) {
                let terms = RowTerms::of(
                    self.kernels(),
                    metric,
                    row,
                    &self.centre,
                    &mut packed.centre,
                    place,
                    &mut packed.bounds,
                );
                packed.rows.push(terms);
            }
            if packed.bounds.smallest_error * UNEVEN < packed.bounds.error {
                // Rows of like errors share panels, so that one bad row spoils the threshold of few others.
                packed.order.clear();
                packed.order.extend(0..n as u32);
                packed.order.sort_unstable_by(|&a, &b| {
                    packed.rows[a as usize].error.total_cmp(&packed.rows[b as usize].error)
                });
                let Packed { order, rows, codes, gathered, .. } = packed;
                gathered.clear();
                for &i in order.iter() {
                    gathered.extend_from_slice(&codes[i as usize * dim..][..dim]);
                }
                std::mem::swap(codes, gathered);
                *rows = order.iter().map(|&i| rows[i as usize]).collect();
                let before = positions.to_vec();
                positions.iter_mut().zip(order).for_each(|(place, &mut i)| *place = before[i as usize]);
            }
        }
        pack_rows(&packed.codes, dim, &packed.rows, &mut packed.panels, &mut packed.terms);
    }

    /// Turns rows of integers, side by side, into panel bytes, with their terms.
    fn code_rows_exactly(&self, packed: &mut Packed) {
        let Packed { codes, shifts, bounds, rows, .. } = packed;
        let (dim, kernels) = (self.numbers.dim, self.kernels());
        for codes in codes.chunks_mut(PANEL_ROWS * dim) {
            let n = codes.len() / dim;
            let (mut sums, mut squares) = ([0i32; PANEL_ROWS], [0i32; PANEL_ROWS]);
            if T::SIGNED {
                kernels.squared_norms::<i8>(
                    dim,
                    Rows::Contiguous(bytemuck::cast_slice(codes)),
                    &mut squares[..n],
                );
                codes.iter_mut().for_each(|byte| *byte ^= 0x80);
            } else {
                kernels.squared_norms::<u8>(dim, Rows::Contiguous(codes), &mut squares[..n]);
                kernels.dot::<u8>(&self.ones, Rows::Contiguous(codes), &mut sums[..n]);
            }
            for i in 0..n {
                let shift = 128 * sums[i];
                shifts.push((shift, squares[i]));
                let (shifted, squared) = (f64::from(shift), f64::from(squares[i]));
                let (scale, bias) = match self.numbers.metric {
                    Metric::Euclidean | Metric::SqEuclidean => (1.0, shifted - squared / 2.0),
                    Metric::InnerProduct => (1.0, shifted),
                    _ if squares[i] == 0 => (0.0, 0.0),
                    _ => (1.0 / squared.sqrt(), shifted / squared.sqrt()),
                };
                // Sums are of the packed bytes, which are up to 255 each where the row is signed.
                let packed_norm = if T::SIGNED { 255.0 * (dim as f64).sqrt() } else { squared.sqrt() };
                bounds.norm = bounds.norm.max((packed_norm * scale) as f32);
                bounds.bias = bounds.bias.max(bias.abs() as f32);
                // No error: norm and error take nothing off.
                rows.push(RowTerms { scale: scale as f32, bias: bias as f32, norm: 0.0, error: 0.0 });
            }
        }
    }
}

/// Packs rows of codes into panels, and their terms into arrays.
pub(super) fn pack_rows(
    codes: &[u8],
    dim: usize,
    rows: &[RowTerms],
    panels: &mut Vec<u8>,
    terms: &mut Vec<f32>,
) {
    let depth = panel_depth(dim);
    let n_panels = rows.len().div_ceil(PANEL_ROWS);
    let places = n_panels * PANEL_ROWS;
    panels.resize(places * depth, 0);
    for (codes, panel) in codes.chunks(PANEL_ROWS * dim).zip(panels.chunks_exact_mut(PANEL_ROWS * depth)) {
        pack_panel_bytes(codes, dim, panel);
    }
    // Places without a row stay 0; callers skip them.
    terms.clear();
    terms.resize(N_TERMS * places, 0.0);
    for (at, row) in rows.iter().enumerate() {
        for (kind, value) in [row.scale, row.bias, row.norm, row.error].into_iter().enumerate() {
            terms[kind * places + at] = value;
        }
    }
}

impl RowTerms {
    /// Codes a row; takes it into the bounds of its block. `scratch` holds a scaled centre.
    pub(super) fn of<T: Stored>(
        kernels: &Kernels,
        metric: Metric,
        row: &[T],
        centre: &[f32],
        scratch: &mut Vec<f32>,
        codes: &mut [u8],
        bounds: &mut Bounds,
    ) -> Self {
        let (length, centre) = if metric.is_angular() {
            let length = kernels.canonical_squared_norm(row).sqrt();
            let factor = length as f32;
            scratch.clear();
            scratch.extend(centre.iter().map(|c| c * factor));
            (length, &scratch[..])
        } else {
            (1.0, centre)
        };
        let code = kernels.quantise_row(row, centre, codes);
        let factor = if length > 0.0 { (1.0 / length) as f32 } else { 0.0 };
        let bias = match metric {
            // Not too low: the row must not seem farther than it is.
            Metric::Euclidean | Metric::SqEuclidean => -0.5 * code.least_norm * code.least_norm,
            // A zero row has cosine 0 with everything, which no estimate with a centre says: it is always a hit.
            _ if length == 0.0 => f32::INFINITY,
            _ => 0.0,
        };
        let (norm, error) = (code.norm * factor * UP, code.error * factor * UP);
        bounds.tame &= code.norm < 1e12 && (code.norm == 0.0 || code.scale > 1e-15) && factor < 1e12;
        bounds.norm = bounds.norm.max(norm);
        bounds.error = bounds.error.max(error);
        bounds.smallest_error = bounds.smallest_error.min(error);
        if bias.is_finite() {
            bounds.bias = bounds.bias.max(bias.abs());
        }
        Self { scale: code.scale * factor, bias, norm, error }
    }
}

/// The mean of a sample of the rows; of their directions where only these count.
pub(super) fn centre_of<T: Stored>(scope: &Scope<'_, T>, metric: Metric) -> Vec<f32> {
    let width = scope.width;
    let step = scope.n_rows().div_ceil(CENTRE_SAMPLE).max(1);
    let mut sums = vec![0.0f64; width];
    let mut n = 0u32;
    for part in &scope.parts {
        for row in part.vectors.chunks_exact(width).step_by(step) {
            let squares = || row.iter().map(|value| value.to_f64() * value.to_f64()).sum::<f64>();
            let length = if metric.is_angular() { squares().sqrt() } else { 1.0 };
            if length > 0.0 {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.to_f64() / length);
                n += 1;
            }
        }
    }
    sums.into_iter().map(|sum| (sum / f64::from(n.max(1))) as f32).collect()
}

// --- all pairs ---

/// A pair that may matter to the query, the row or both.
pub(super) struct Pair {
    pub(super) query: usize,
    pub(super) row: usize,
    pub(super) distance: f32,
}

impl<T: Stored> Multiplier<'_, T> {
    /// Compares all queries with rows that have limits of their own. `limits(q)` and `row_limits(r)` tell what distances
    /// must not exceed; `offer` takes a pair and tells whether the limit of its query became lower.
    pub(super) fn run_mutual(
        &self,
        vectors: &[T],
        buffers: &mut Buffers,
        lists: &mut impl MutualLists,
        is_mutual: bool,
    ) {
        let Buffers { packed, positions, thresholds, hits } = buffers;
        let (dim, n_queries) = (self.numbers.dim, self.terms.len());
        let n_rows = vectors.len() / dim;
        positions.clear();
        positions.extend(0..n_rows as u32);
        self.pack(vectors, positions, packed);
        let rows = packed.block(self.depth);
        self.begin(0..n_queries, rows.bounds, thresholds, |q| lists.limit(q));
        thresholds.mutual_base.clear();
        thresholds.mutual_reached.clear();
        if is_mutual {
            thresholds.mutual_base.extend((0..n_queries).map(|q| self.mutual_base(q, rows.bounds)));
            thresholds.mutual_reached.resize(n_queries, 0.0);
        }
        for panel in 0..n_rows.div_ceil(PANEL_ROWS) {
            self.reach_panel(0..n_queries, rows, panel, thresholds);
            let of_panel = &positions[panel * PANEL_ROWS..n_rows.min((panel + 1) * PANEL_ROWS)];
            let own = is_mutual.then(|| {
                let limits = of_panel.iter().map(|&position| lists.row_limit(position as usize));
                self.own_biases(rows, panel, limits)
            });
            if let Some((_, largest)) = own {
                let Thresholds { mutual_base, mutual_reached, .. } = &mut *thresholds;
                let panel_largest = rows.largest(panel);
                for (q, (reached, &base)) in mutual_reached.iter_mut().zip(mutual_base.iter()).enumerate() {
                    // Own biases are rounded too.
                    let base = base - largest * self.weight[q] * ROUNDING as f32;
                    *reached = reach(base, self.slopes[q], panel_largest);
                }
            }
            let tile = PanelRows { mutual: own.as_ref().map(|(biases, _)| biases), ..rows.panel(panel) };
            hits.clear();
            self.kernels().tile_i8(&tile, &self.panel_queries(0..n_queries, thresholds), hits);
            for hit in hits.iter() {
                let (q, at) = (hit.query as usize, panel * PANEL_ROWS + hit.row as usize);
                if at >= n_rows {
                    continue;
                }
                let position = positions[at] as usize;
                let row = &vectors[position * dim..][..dim];
                let distance = self.hit_distance(q, hit.sum, packed, at, row);
                if lists.offer(Pair { query: q, row: position, distance }) {
                    thresholds.base[q] = self.base(q, lists.limit(q), rows.bounds);
                    let largest = (rows.bounds.norm, rows.bounds.error);
                    thresholds.reached[q] = reach(thresholds.base[q], self.slopes[q], largest);
                }
            }
        }
    }

    /// Biases of a panel's rows with their own limits in them, and the largest finite one.
    fn own_biases(
        &self,
        rows: PackedBlock<'_>,
        panel: usize,
        limits: impl Iterator<Item = f32>,
    ) -> ([f32; PANEL_ROWS], f32) {
        let metric = self.numbers.metric;
        let mut own = [f32::NEG_INFINITY; PANEL_ROWS];
        let mut largest = 0.0f32;
        for ((own, bias), limit) in own.iter_mut().zip(rows.panel(panel).bias).zip(limits) {
            let reach = match metric {
                Metric::Euclidean | Metric::SqEuclidean => largest_sqeuclidean(metric, limit) / 2.0,
                _ => -smallest_dot(metric, limit),
            };
            *own = ((f64::from(*bias) + reach) as f32).next_up();
            if own.is_finite() {
                largest = largest.max(own.abs());
            }
        }
        (own, largest)
    }

    /// What an estimate with the rows' own limits must reach for a query to be possibly near enough to a row.
    fn mutual_base(&self, query: usize, bounds: Bounds) -> f32 {
        let terms = &self.terms[query];
        let needed = if self.is_euclidean() { terms.squared_norm / 2.0 } else { -terms.offset };
        let norm = if self.numbers.metric.is_angular() { terms.squared_norm.sqrt() } else { 0.0 };
        self.slackened(query, needed, needed.abs() + norm, bounds)
    }
}

/// The lists of two groups of rows that meet.
pub(super) trait MutualLists {
    /// What distances of a query must not exceed.
    fn limit(&self, query: usize) -> f32;
    /// What distances of a row of this block must not exceed.
    fn row_limit(&self, row: usize) -> f32;
    /// Takes a pair; true if the limit of its query became lower.
    fn offer(&mut self, pair: Pair) -> bool;
}
