//! What is clustered: rows that can be read as float32, wherever they lie.

use std::ops::Range;

use nearest_kernels::{Kernels, prefetch};

use crate::stored::Stored;

/// Vectors that can be read, a few at a time, as float32. There is never a copy of all of them.
pub trait Points: Sync {
    /// How many.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Dimensions of each.
    fn dim(&self) -> usize;

    /// Copies some of them, row by row, to `out`, which is as long as they are.
    fn read(&self, rows: Range<usize>, out: &mut [f32]);

    /// What a vector is called in errors.
    fn origin(&self, row: usize) -> usize {
        row
    }

    /// Says that a vector will be added soon.
    fn prefetch(&self, _row: usize) {}

    /// Adds `weight` times a vector to `sums`. `scratch` is this worker's, for those that must be converted.
    fn add(&self, kernels: &Kernels, row: usize, weight: f64, sums: &mut [f64], scratch: &mut Vec<f32>) {
        scratch.resize(self.dim(), 0.0);
        self.read(row..row + 1, scratch);
        kernels.add(&scratch[..], weight, sums);
    }
}

/// Vectors that lie side by side, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a, T> {
    vectors: &'a [T],
    dim: usize,
}

impl<'a, T: Stored> Side<'a, T> {
    /// # Panics
    /// Unless the vectors are whole ones of `dim` dimensions.
    pub fn new(vectors: &'a [T], dim: usize) -> Self {
        assert!(dim > 0 && vectors.len().is_multiple_of(dim), "vectors of {dim} dimensions must be whole");
        Self { vectors, dim }
    }

    fn row(&self, row: usize) -> &'a [T] {
        &self.vectors[row * self.dim..][..self.dim]
    }
}

impl<T: Stored> Points for Side<'_, T> {
    fn len(&self) -> usize {
        self.vectors.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        let values = &self.vectors[rows.start * self.dim..rows.end * self.dim];
        for (out, value) in out.iter_mut().zip(values) {
            *out = value.to_f32();
        }
    }

    fn prefetch(&self, row: usize) {
        prefetch(self.row(row));
    }

    fn add(&self, kernels: &Kernels, row: usize, weight: f64, sums: &mut [f64], _: &mut Vec<f32>) {
        kernels.add(self.row(row), weight, sums);
    }
}

/// Vectors that a function copies: `read(rows, out)`, as [`Points::read`].
#[derive(Clone, Copy, Debug)]
pub struct Read<F> {
    n: usize,
    dim: usize,
    read: F,
}

impl<F: Fn(Range<usize>, &mut [f32]) + Sync> Read<F> {
    /// `n` vectors of `dim` dimensions.
    pub fn new(n: usize, dim: usize, read: F) -> Self {
        Self { n, dim, read }
    }
}

impl<F: Fn(Range<usize>, &mut [f32]) + Sync> Points for Read<F> {
    fn len(&self) -> usize {
        self.n
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        (self.read)(rows, out);
    }
}

/// Some of the points, each with a factor.
#[derive(Debug)]
pub(super) struct Sample<'a, P> {
    pub(super) points: &'a P,
    /// Which; nothing: all.
    pub(super) places: Option<Vec<u32>>,
    /// What each is multiplied by, such as the inverse of its length; nothing: 1.
    pub(super) factors: Option<Vec<f32>>,
}

impl<'a, P: Points> Sample<'a, P> {
    /// Some of these.
    pub(super) fn part(&self, rows: &[u32]) -> Sample<'a, P> {
        Sample {
            points: self.points,
            places: Some(rows.iter().map(|&row| self.place(row as usize) as u32).collect()),
            factors: (self.factors.as_ref())
                .map(|factors| rows.iter().map(|&row| factors[row as usize]).collect()),
        }
    }

    /// Where a point is among those it was taken from.
    pub(super) fn place(&self, row: usize) -> usize {
        self.places.as_ref().map_or(row, |places| places[row] as usize)
    }
}

impl<P: Points> Points for Sample<'_, P> {
    fn len(&self) -> usize {
        self.places.as_ref().map_or(self.points.len(), Vec::len)
    }

    fn dim(&self) -> usize {
        self.points.dim()
    }

    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        match &self.places {
            None => self.points.read(rows.clone(), out),
            Some(places) => {
                for (&place, out) in places[rows.clone()].iter().zip(out.chunks_exact_mut(self.dim())) {
                    self.points.read(place as usize..place as usize + 1, out);
                }
            }
        }
        if let Some(factors) = &self.factors {
            for (factor, row) in factors[rows].iter().zip(out.chunks_exact_mut(self.dim())) {
                row.iter_mut().for_each(|value| *value *= factor);
            }
        }
    }

    fn origin(&self, row: usize) -> usize {
        self.points.origin(self.place(row))
    }

    fn prefetch(&self, row: usize) {
        self.points.prefetch(self.place(row));
    }

    fn add(&self, kernels: &Kernels, row: usize, weight: f64, sums: &mut [f64], scratch: &mut Vec<f32>) {
        let factor = self.factors.as_ref().map_or(1.0, |factors| f64::from(factors[row]));
        self.points.add(kernels, self.place(row), weight * factor, sums, scratch);
    }
}
