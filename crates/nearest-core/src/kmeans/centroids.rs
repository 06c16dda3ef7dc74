//! Centroids in the forms in which they are compared with points.
//!
//! With the centre taken off both, x̃ = x − centre and c̃ = c − centre, the nearest centroid is that with the largest
//! x̃·c̃ − ‖c̃‖²/2. Points become x̂ = s (u − 128), centroids ĉ = t v, in 8 bits each with a scale of its own, and what is
//! maximised is x̂·ĉ − ‖ĉ‖²/2, divided by s: the rounding of a centroid moves it a little, for all points alike, and with
//! its own norm it is compared as the point it was moved to.
//!
//! Data that 8 bits do not hold, such as one dimension a thousand times as wide as all others, are compared in float32, at
//! a quarter of the speed. Scores are in units in which neither small nor large data over- or underflow.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nearest_kernels::{
    Kernels, MAX_DIM, Nearest, PANEL_ROWS, PanelCentroids, PanelPoints, pack_panel_bytes, pack_panel_f32,
    panel_depth,
};

use super::lloyd::Coded;
use super::points::Points;
use crate::error::{Error, Result};
use crate::work::Work;

/// Codes of centroids that are compared with one panel after another: they stay in the second-level cache.
const CHUNK_BYTES: usize = 256 << 10;
/// Centroids that the widest kernel takes at a time.
const CHUNK_MULTIPLE: usize = 12;
/// Multiply-adds of one task: some milliseconds.
const TASK_PRODUCTS: usize = 1 << 31;
/// Panels of a task, at most.
const TASK_PANELS: usize = 32;
/// Points of a sample that are compared in float32 as well: at most so many panels, and at most every so-manyth.
const CHECKED_PANELS: usize = 32;
const CHECKED_SHARE: usize = 64;
/// How much farther centroids may be, on average, for being chosen from codes.
const TOLERANCE: f64 = 1e-3;
/// Two centroids are close to equally near if their distances differ by less than so many deviations of what codes lose.
const CLOSE: f64 = 4.0;
/// What codes lose is of account from this share of the distance on.
const TELLING: f64 = 0.01;
/// The bias of a point far smaller than the centroids must not overflow.
const LARGEST_WEIGHT: f64 = 1e30;

pub(super) fn check_dim(dim: usize) -> Result<()> {
    if (1..=MAX_DIM).contains(&dim) {
        return Ok(());
    }
    Err(Error::argument(format!("vectors must have between 1 and {MAX_DIM} dimensions, got {dim}")))
}

/// Cuts a slice into parts that one task each writes.
pub(super) fn split<T>(values: &mut [T], len: usize) -> Vec<Mutex<&mut [T]>> {
    values.chunks_mut(len).map(Mutex::new).collect()
}

/// Cuts a slice into parts that end where `ends` says.
pub(super) fn split_at<'a, T>(mut values: &'a mut [T], ends: &[usize]) -> Vec<Mutex<&'a mut [T]>> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(ends.len());
    for &end in ends {
        let (part, rest) = values.split_at_mut(end - start);
        parts.push(Mutex::new(part));
        (values, start) = (rest, end);
    }
    parts
}

pub(super) fn lock<T: ?Sized>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Centroids in the forms in which they are compared with points.
#[derive(Debug)]
pub(super) struct Centroids<'a> {
    pub(super) kernels: &'static Kernels,
    values: &'a [f32],
    pub(super) dim: usize,
    centre: Cow<'a, [f32]>,
    /// What scores are in units of, once for each side.
    unit: f64,
    depth: usize,
    codes: Vec<i8>,
    start: Vec<i32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    /// ≥ ‖c̃ − ĉ‖.
    errors: Vec<f32>,
    /// Made when they are needed first.
    floats: OnceLock<Floats>,
}

#[derive(Debug)]
struct Floats {
    /// (c − centre) / unit, row by row.
    values: Vec<f32>,
    /// −‖(c − centre) / unit‖² / 2.
    bias: Vec<f32>,
    zeros: Vec<f32>,
    ones: Vec<f32>,
}

/// A block of points in one worker's hands.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// As they are.
    rows: Vec<f32>,
    /// The last panel's, where floats are compared.
    panel_rows: Vec<f32>,
    panel_floats: Vec<f32>,
    pub(super) codes: Vec<u8>,
    pub(super) scales: Vec<f32>,
    /// ≥ ‖x̃ − x̂‖.
    errors: Vec<f32>,
    panels: Vec<u8>,
    weights: Vec<[f32; PANEL_ROWS]>,
    pub(super) two: Vec<[Nearest; 2]>,
    pub(super) best: Vec<Nearest>,
    /// Distances and places, nearest first.
    pub(super) found: Vec<[(f64, u32); 2]>,
}

impl Buffers {
    /// Takes some points over.
    pub(super) fn read<P: Points>(
        &mut self,
        kernels: &Kernels,
        points: &P,
        range: Range<usize>,
    ) -> Result<()> {
        let dim = points.dim();
        // Every value is written: what is left from before does no harm.
        self.rows.resize(range.len() * dim, 0.0);
        points.read(range.clone(), &mut self.rows);
        if kernels.all_finite(&self.rows) {
            return Ok(());
        }
        let wrong = self.rows.iter().position(|value| !value.is_finite()).map_or(0, |at| at / dim);
        Err(Error::argument(format!(
            "vectors must be finite, got NaN or infinity in row {}",
            points.origin(range.start + wrong)
        )))
    }

    pub(super) fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Takes some of another's points over.
    pub(super) fn copy(&mut self, other: &Buffers, some: &[usize], dim: usize) {
        self.rows.clear();
        for &i in some {
            self.rows.extend_from_slice(&other.rows[i * dim..][..dim]);
        }
    }
}

impl<'a> Centroids<'a> {
    pub(super) fn new(
        kernels: &'static Kernels,
        values: &'a [f32],
        dim: usize,
        centre: impl Into<Cow<'a, [f32]>>,
    ) -> Self {
        let centre = centre.into();
        let k = values.len() / dim;
        let depth = panel_depth(dim);
        let mut codes = vec![0; k * depth];
        let found: Vec<_> = values
            .chunks_exact(dim)
            .zip(codes.chunks_exact_mut(depth))
            .map(|(row, codes)| kernels.quantise_query(row, &centre, codes))
            .collect();
        let largest = found.iter().fold(0.0f32, |largest, code| largest.max(code.scale));
        let unit = if largest > 0.0 { f64::from(largest) } else { 1.0 };
        let squares = |codes: &[i8]| codes.iter().map(|&v| i32::from(v) * i32::from(v)).sum::<i32>();
        Self {
            kernels,
            values,
            dim,
            centre,
            unit,
            depth,
            start: found.iter().map(|code| -128 * code.sum).collect(),
            scale: found.iter().map(|code| (f64::from(code.scale) / unit) as f32).collect(),
            bias: (found.iter().zip(codes.chunks_exact(depth)))
                .map(|(code, codes)| {
                    let scale = f64::from(code.scale) / unit;
                    (scale * scale * f64::from(squares(codes)) / -2.0) as f32
                })
                .collect(),
            codes,
            errors: found.iter().map(|code| code.error).collect(),
            floats: OnceLock::new(),
        }
    }

    /// No centroids yet, to be filled by [`Centroids::some`].
    pub(super) fn none<P: Points>(coded: &'a Coded<'_, P>) -> Self {
        Self::new(coded.kernels, &[], coded.dim, &coded.centre[..])
    }

    /// Copies those in `places`, in that order, to `out`.
    pub(super) fn some(&self, places: &[u32], out: &mut Self) {
        out.unit = self.unit;
        out.codes.clear();
        for &place in places {
            out.codes.extend_from_slice(&self.codes[place as usize * self.depth..][..self.depth]);
        }
        let copy = |from: &[f32], to: &mut Vec<f32>| {
            to.clear();
            to.extend(places.iter().map(|&place| from[place as usize]));
        };
        copy(&self.scale, &mut out.scale);
        copy(&self.bias, &mut out.bias);
        out.start.clear();
        out.start.extend(places.iter().map(|&place| self.start[place as usize]));
    }

    fn k(&self) -> usize {
        self.scale.len()
    }

    fn value(&self, place: u32) -> &'a [f32] {
        &self.values[place as usize * self.dim..][..self.dim]
    }

    /// Points of a task.
    pub(super) fn task_rows(&self) -> usize {
        let panel = PANEL_ROWS * self.depth * self.k();
        (TASK_PRODUCTS / panel).clamp(1, TASK_PANELS) * PANEL_ROWS
    }

    /// What a point of this scale weighs the centroids' bias with.
    fn weight(&self, scale: f32) -> f32 {
        if scale > 0.0 { (self.unit / f64::from(scale)).min(LARGEST_WEIGHT) as f32 } else { 1.0 }
    }

    /// Runs `choose` for one panel after the other with centroids that stay in cache.
    fn each_chunk(&self, n_panels: usize, mut choose: impl FnMut(usize, &PanelCentroids<'_, i8>, u32)) {
        let size = (CHUNK_BYTES / self.depth).next_multiple_of(CHUNK_MULTIPLE);
        for first in (0..self.k()).step_by(size) {
            let places = first..self.k().min(first + size);
            let centroids = PanelCentroids {
                codes: &self.codes[places.start * self.depth..places.end * self.depth],
                start: &self.start[places.clone()],
                scale: &self.scale[places.clone()],
                bias: &self.bias[places],
            };
            (0..n_panels).for_each(|panel| choose(panel, &centroids, first as u32));
        }
    }

    /// The best for each point of a block, by its codes and scales.
    pub(super) fn choose(&self, codes: &[u8], scales: &[f32], buffers: &mut Buffers) {
        let Buffers { panels, weights, best, .. } = buffers;
        self.pack(codes, scales, panels, weights);
        let size = PANEL_ROWS * self.depth;
        best.clear();
        best.resize(weights.len(), Nearest::NONE);
        self.each_chunk(weights.len(), |panel, centroids, first| {
            let points =
                PanelPoints { panel: &panels[panel * size..(panel + 1) * size], weight: &weights[panel] };
            self.kernels.nearest_i8(&points, centroids, first, &mut best[panel]);
        });
    }

    /// Packs codes of points, and what their scales weigh.
    fn pack(&self, codes: &[u8], scales: &[f32], panels: &mut Vec<u8>, weights: &mut Vec<[f32; PANEL_ROWS]>) {
        let (dim, n_panels) = (self.dim, scales.len().div_ceil(PANEL_ROWS));
        let size = PANEL_ROWS * self.depth;
        panels.resize(n_panels * size, 0);
        for (codes, panel) in codes.chunks(PANEL_ROWS * dim).zip(panels.chunks_exact_mut(size)) {
            pack_panel_bytes(codes, dim, panel);
        }
        weights.clear();
        weights.resize(n_panels, [1.0; PANEL_ROWS]);
        for (weights, scales) in weights.iter_mut().zip(scales.chunks(PANEL_ROWS)) {
            for (weight, &scale) in weights.iter_mut().zip(scales) {
                *weight = self.weight(scale);
            }
        }
    }

    /// Codes and packs a block of points.
    fn code(&self, buffers: &mut Buffers) {
        let Buffers { rows, codes, scales, errors, panels, weights, .. } = buffers;
        let dim = self.dim;
        codes.resize(rows.len(), 0);
        scales.clear();
        errors.clear();
        for (row, codes) in rows.chunks_exact(dim).zip(codes.chunks_exact_mut(dim)) {
            let code = self.kernels.quantise_row(row, &self.centre, codes);
            scales.push(code.scale);
            errors.push(code.error);
        }
        self.pack(codes, scales, panels, weights);
    }

    /// The two best of a block of points, by codes.
    pub(super) fn choose_bytes(&self, buffers: &mut Buffers) {
        self.code(buffers);
        let Buffers { panels, weights, two, .. } = buffers;
        let size = PANEL_ROWS * self.depth;
        two.clear();
        two.resize(weights.len(), [Nearest::NONE; 2]);
        self.each_chunk(weights.len(), |panel, centroids, first| {
            let points =
                PanelPoints { panel: &panels[panel * size..(panel + 1) * size], weight: &weights[panel] };
            self.kernels.two_nearest_i8(&points, centroids, first, &mut two[panel]);
        });
    }

    fn floats(&self) -> &Floats {
        self.floats.get_or_init(|| {
            let (k, dim) = (self.k(), self.dim);
            let mut values = Vec::with_capacity(k * dim);
            for row in self.values.chunks_exact(dim) {
                values.extend(
                    row.iter().zip(&*self.centre).map(|(value, centre)| self.scaled(*value, *centre)),
                );
            }
            let bias = |row| (self.kernels.canonical_squared_norm(row) / -2.0) as f32;
            let bias = values.chunks_exact(dim).map(bias).collect();
            Floats { values, bias, zeros: vec![0.0; k], ones: vec![1.0; k] }
        })
    }

    /// (x − centre) / unit: for centroids about 127 at most.
    fn scaled(&self, value: f32, centre: f32) -> f32 {
        ((f64::from(value) - f64::from(centre)) / self.unit) as f32
    }

    /// The two best of a block of points, in float32.
    pub(super) fn choose_floats(&self, buffers: &mut Buffers) {
        let Buffers { rows, panel_rows, panel_floats, two, .. } = buffers;
        let dim = self.dim;
        let floats = self.floats();
        let centroids = PanelCentroids {
            codes: &floats.values,
            start: &floats.zeros,
            scale: &floats.ones,
            bias: &floats.bias,
        };
        panel_floats.resize(PANEL_ROWS * dim, 0.0);
        two.clear();
        for rows in rows.chunks(PANEL_ROWS * dim) {
            panel_rows.clear();
            for row in rows.chunks_exact(dim) {
                panel_rows.extend(
                    row.iter().zip(&*self.centre).map(|(value, centre)| self.scaled(*value, *centre)),
                );
            }
            pack_panel_f32(panel_rows, dim, panel_floats);
            let mut best = [Nearest::NONE; 2];
            let points = PanelPoints { panel: panel_floats, weight: &[1.0; PANEL_ROWS] };
            self.kernels.two_nearest_f32(&points, &centroids, 0, &mut best);
            two.push(best);
        }
    }

    /// Squared distances of a block of points from its two best, in float64; the nearer first, of equal ones the one in
    /// the lower place.
    pub(super) fn compare(&self, buffers: &mut Buffers) {
        let Buffers { rows, two, found, .. } = buffers;
        found.clear();
        found.extend(rows.chunks_exact(self.dim).enumerate().map(|(i, row)| {
            let mut pair = [0, 1].map(|rank| {
                let place = two[i / PANEL_ROWS][rank].place[i % PANEL_ROWS];
                (self.kernels.canonical_sqeuclidean(self.value(place), row), place)
            });
            if pair[1] < pair[0] {
                pair.swap(0, 1);
            }
            pair
        }));
    }

    /// Which points of a block, coded and compared, may be nearer to a third centroid, by more than a little: see the head
    /// of `assign.rs`.
    pub(super) fn doubtful(&self, buffers: &Buffers, out: &mut Vec<usize>) {
        out.clear();
        for (i, [(first, place), (second, other)]) in buffers.found.iter().enumerate() {
            let codes = self.errors[*place as usize].max(self.errors[*other as usize]);
            let error = f64::from(buffers.errors[i]) + f64::from(codes);
            let noise = 2.0 * error * (first.sqrt() + second.sqrt()) / (self.dim as f64).sqrt();
            if *first > 0.0 && second - first < CLOSE * noise && noise > TELLING * first {
                out.push(i);
            }
        }
    }

    /// Whether codes choose too badly for these points (at least one), by a sample of them.
    pub(super) fn need_floats<P: Points>(&self, points: &P, stage: &str, work: &Work<'_>) -> Result<bool> {
        let n = points.len();
        let n_panels = (n / (CHECKED_SHARE * PANEL_ROWS)).clamp(1, CHECKED_PANELS);
        let n_rows = n.min(n_panels * PANEL_ROWS);
        let mut sums = vec![(0.0f64, 0.0f64); n_rows.div_ceil(PANEL_ROWS)];
        let slots = split(&mut sums, 1);
        work.for_each(stage, slots.len(), Buffers::default, |buffers, panel| {
            let mut rows = Vec::new();
            for i in panel * PANEL_ROWS..n_rows.min((panel + 1) * PANEL_ROWS) {
                // Spread evenly: what lies side by side is often alike.
                let row = (i as u64 * n as u64 / n_rows as u64) as usize;
                buffers.read(self.kernels, points, row..row + 1)?;
                rows.extend_from_slice(&buffers.rows);
            }
            buffers.rows = rows;
            self.choose_bytes(buffers);
            let coded = self.sum_of_distances(buffers);
            self.choose_floats(buffers);
            lock(&slots[panel])[0] = (coded, self.sum_of_distances(buffers));
            Ok(())
        })?;
        let (coded, exact) = sums.iter().fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        Ok(coded - exact > TOLERANCE * exact)
    }

    /// Squared distances of one panel's points from the best of each.
    fn sum_of_distances(&self, buffers: &Buffers) -> f64 {
        let distance = |(i, row): (usize, &[f32])| {
            let place = buffers.two[0][0].place[i];
            self.kernels.canonical_sqeuclidean(self.value(place), row)
        };
        buffers.rows.chunks_exact(self.dim).enumerate().map(distance).sum()
    }
}
