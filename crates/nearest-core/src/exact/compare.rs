//! One query against rows as they lie: bound by memory.

use std::borrow::Cow;

use nearest_kernels::{Kernels, Rows};

use super::Scope;
use super::distance::{canonical, largest_sqeuclidean, smallest_dot};
use super::multiply::Multiplier;
use crate::metric::Metric;
use crate::stored::Stored;

/// Bytes of rows compared at once: they stay in the first-level cache for a second look.
const GROUP_BYTES: usize = 24 << 10;

/// What one query is compared with rows by.
pub trait Comparer: Sync {
    /// What rows are made of.
    type Element: Stored;

    /// How many queries there are.
    fn n_queries(&self) -> usize;

    /// Appends the positions of rows whose distance to the query may be at most `limit`, and no row that is farther
    /// than rounding can explain.
    fn select(
        &self,
        query: usize,
        rows: Rows<'_, Self::Element>,
        limit: f32,
        scratch: &mut Scratch,
        positions: &mut Vec<u32>,
    );

    /// The metric, where rows have a centre.
    fn metric(&self) -> Option<Metric>;

    /// The canonical distance.
    fn distance(&self, query: usize, row: &[Self::Element]) -> f32;

    /// The queries coded for many at once, where the metric comes from inner products; `mutual` if rows have limits
    /// of their own.
    fn multiplier<'m>(
        &'m self,
        scope: &Scope<'_, Self::Element>,
        mutual: bool,
    ) -> Option<Multiplier<'m, Self::Element>>;

    /// How many rows to compare at once.
    fn group_rows(&self, width: usize) -> usize {
        (GROUP_BYTES / (width * size_of::<Self::Element>()).max(1)).clamp(8, super::BLOCK_ROWS)
    }
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    estimates: Vec<f32>,
    norms: Vec<f32>,
    sums: Vec<u64>,
    counts: Vec<u32>,
    values: Vec<f32>,
}

/// Queries against vectors of numbers.
#[derive(Debug)]
pub struct Numbers<'a, T: Stored> {
    pub(super) kernels: &'static Kernels,
    pub(super) metric: Metric,
    pub(super) dim: usize,
    pub(super) values: Cow<'a, [f32]>,
    /// The queries as the kernels take them; nothing where `T` cannot hold one of them.
    pub(super) native: Option<Vec<T::Query>>,
    pub(super) squared_norms: Vec<f64>,
}

impl<'a, T: Stored> Numbers<'a, T> {
    /// `values` are n queries of `dim` finite numbers.
    pub fn new(
        kernels: &'static Kernels,
        metric: Metric,
        dim: usize,
        values: impl Into<Cow<'a, [f32]>>,
    ) -> Self {
        let values = values.into();
        assert!(dim > 0 && values.len().is_multiple_of(dim) && !metric.is_binary());
        let squared_norms =
            values.chunks_exact(dim).map(|query| kernels.canonical_squared_norm(query)).collect();
        let native = T::query(&values);
        Self { kernels, metric, dim, values, native, squared_norms }
    }

    /// Rows as queries.
    pub fn of_rows(kernels: &'static Kernels, metric: Metric, dim: usize, rows: &[T]) -> Self {
        Self::new(kernels, metric, dim, rows.iter().map(|value| value.to_f32()).collect::<Vec<_>>())
    }

    pub(super) fn query(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    fn primitive<U: Stored>(
        &self,
        query: usize,
        native: &[U::Query],
        rows: Rows<'_, U>,
        limit: f32,
        scratch: &mut Scratch,
        positions: &mut Vec<u32>,
    ) {
        // Any order of d additions is off by at most d · 2⁻²⁴ of the sum of magnitudes (Higham, Accuracy and
        // Stability, 4.2), products and differences add 2 · 2⁻²⁴, the sum's conversion one more.
        let n = count(rows, self.dim);
        let rounding = (self.dim as f64 + 8.0) / f64::from(1 << 24);
        let estimates = sums(
            &mut scratch.sums,
            &mut scratch.estimates,
            n,
            |out| match self.metric {
                Metric::Euclidean | Metric::SqEuclidean => self.kernels.sqeuclidean::<U>(native, rows, out),
                Metric::Manhattan => self.kernels.manhattan::<U>(native, rows, out),
                _ => self.kernels.dot::<U>(native, rows, out),
            },
            U::sum_to_f32,
        );
        match self.metric {
            Metric::Euclidean | Metric::SqEuclidean | Metric::Manhattan => {
                let largest = if self.metric == Metric::Manhattan {
                    f64::from(limit.next_up())
                } else {
                    largest_sqeuclidean(self.metric, limit)
                };
                // Squares may vanish below the smallest float: 10⁻³⁸ a dimension. Sums that overflow mean nothing.
                let largest = largest * (1.0 + 2.0 * rounding) + 1e-38 * self.dim as f64;
                let largest = if largest < 1e38 { (largest as f32).next_up() } else { f32::INFINITY };
                select(estimates, positions, |_, estimate| estimate <= largest);
            }
            _ => {
                let squared = sums(
                    &mut scratch.sums,
                    &mut scratch.norms,
                    n,
                    |out| self.kernels.squared_norms::<U>(self.dim, rows, out),
                    U::sum_to_f32,
                );
                let norm = self.squared_norms[query].sqrt();
                let smallest = smallest_dot(self.metric, limit);
                if smallest == f64::NEG_INFINITY || norm > 1e18 {
                    return positions.extend(0..n as u32);
                }
                if self.metric == Metric::InnerProduct {
                    // |error| ≤ rounding · ‖q‖ ‖x‖, with the largest ‖x‖ of the group.
                    let largest = squared.iter().fold(0.0f32, |a, &b| a.max(b));
                    let slack = rounding * norm * (f64::from(largest).sqrt() * (1.0 + rounding) + 1e-19);
                    let smallest = down(smallest - slack - 1e-37);
                    select(estimates, positions, |_, estimate| !(estimate < smallest));
                } else {
                    // dot ≥ c ‖q‖ ‖x‖ squared, signs apart, needs no root: but roots are cheap here and clear.
                    let smallest = down((smallest - 4.0 * rounding - 1e-6) * norm - 1e-18);
                    select(estimates, positions, |i, estimate| {
                        let norm = squared[i].sqrt();
                        // Tiny and huge rows lose their norms in float32: let them through.
                        !(estimate < smallest * norm) || !(1e-15..1e15).contains(&norm)
                    });
                }
            }
        }
    }
}

/// How many rows there are.
fn count<T>(rows: Rows<'_, T>, width: usize) -> usize {
    match rows {
        Rows::Contiguous(values) => values.len() / width,
        Rows::Scattered(rows) => rows.len(),
    }
}

/// Rounds down to float32.
pub(super) fn down(value: f64) -> f32 {
    (value as f32).next_down()
}

/// Runs a kernel into sums and turns them into floats.
fn sums<'s, S: bytemuck::Pod>(
    buffer: &mut Vec<u64>,
    floats: &'s mut Vec<f32>,
    n: usize,
    kernel: impl FnOnce(&mut [S]),
    to_f32: impl Fn(S) -> f32,
) -> &'s [f32] {
    floats.resize(n.max(floats.len()), 0.0);
    let floats = &mut floats[..n];
    // Sums are f32 or i32: four bytes. Floats go to their place at once.
    if std::any::TypeId::of::<S>() == std::any::TypeId::of::<f32>() {
        kernel(bytemuck::cast_slice_mut(floats));
    } else {
        buffer.resize(n.div_ceil(2).max(buffer.len()), 0);
        let sums = &mut bytemuck::cast_slice_mut::<u64, S>(buffer)[..n];
        kernel(sums);
        floats.iter_mut().zip(sums).for_each(|(float, sum)| *float = to_f32(*sum));
    }
    floats
}

fn select(estimates: &[f32], positions: &mut Vec<u32>, keep: impl Fn(usize, f32) -> bool) {
    let (groups, rest) = estimates.as_chunks::<16>();
    for (g, group) in groups.iter().enumerate() {
        let mut mask = 0u32;
        for (i, &estimate) in group.iter().enumerate() {
            mask |= u32::from(keep(g * 16 + i, estimate)) << i;
        }
        while mask != 0 {
            positions.push(g as u32 * 16 + mask.trailing_zeros());
            mask &= mask - 1;
        }
    }
    for (i, &estimate) in rest.iter().enumerate() {
        let i = groups.len() * 16 + i;
        if keep(i, estimate) {
            positions.push(i as u32);
        }
    }
}

impl<T: Stored> Comparer for Numbers<'_, T> {
    type Element = T;

    fn n_queries(&self) -> usize {
        self.squared_norms.len()
    }

    fn select(
        &self,
        query: usize,
        rows: Rows<'_, T>,
        limit: f32,
        scratch: &mut Scratch,
        positions: &mut Vec<u32>,
    ) {
        if let Some(native) = &self.native {
            let native = &native[query * self.dim..(query + 1) * self.dim];
            return self.primitive::<T>(query, native, rows, limit, scratch, positions);
        }
        // A query that integers cannot hold: the rows become floats.
        let mut values = std::mem::take(&mut scratch.values);
        values.clear();
        match rows {
            Rows::Contiguous(rows) => values.extend(rows.iter().map(|value| value.to_f32())),
            Rows::Scattered(rows) => {
                values.extend(rows.iter().copied().flatten().map(|value| value.to_f32()))
            }
        }
        self.primitive::<f32>(query, self.query(query), Rows::Contiguous(&values), limit, scratch, positions);
        scratch.values = values;
    }

    fn metric(&self) -> Option<Metric> {
        Some(self.metric)
    }

    fn multiplier<'m>(&'m self, scope: &Scope<'_, T>, mutual: bool) -> Option<Multiplier<'m, T>> {
        Multiplier::new(self, scope, mutual)
    }

    fn distance(&self, query: usize, row: &[T]) -> f32 {
        canonical(self.kernels, self.metric, self.query(query), self.squared_norms[query], row)
    }
}

/// Queries against packed bits.
#[derive(Debug)]
pub struct Bits<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) metric: Metric,
    pub(super) n_bytes: usize,
    values: Cow<'a, [u8]>,
}

impl<'a> Bits<'a> {
    /// `values` are n queries of `n_bytes` packed bytes.
    pub fn new(
        kernels: &'static Kernels,
        metric: Metric,
        n_bytes: usize,
        values: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        let values = values.into();
        assert!(n_bytes > 0 && values.len().is_multiple_of(n_bytes) && metric.is_binary());
        Self { kernels, metric, n_bytes, values }
    }

    fn query(&self, i: usize) -> &[u8] {
        &self.values[i * self.n_bytes..(i + 1) * self.n_bytes]
    }
}

/// 1 − |q ∧ x| / |q ∨ x|, rounded once.
fn jaccard(differing: u32, common: u32) -> f32 {
    if differing == 0 { 0.0 } else { (f64::from(differing) / f64::from(differing + common)) as f32 }
}

impl Comparer for Bits<'_> {
    type Element = u8;

    fn n_queries(&self) -> usize {
        self.values.len() / self.n_bytes
    }

    fn select(
        &self,
        query: usize,
        rows: Rows<'_, u8>,
        limit: f32,
        scratch: &mut Scratch,
        positions: &mut Vec<u32>,
    ) {
        let query = self.query(query);
        let n = count(rows, self.n_bytes);
        scratch.counts.resize(2 * n, 0);
        let (differing, common) = scratch.counts.split_at_mut(n);
        self.kernels.hamming(query, rows, differing);
        if self.metric == Metric::Jaccard {
            self.kernels.common_bits(query, rows, common);
        }
        for i in 0..n {
            let distance = if self.metric == Metric::Jaccard {
                jaccard(differing[i], common[i])
            } else {
                differing[i] as f32
            };
            if distance <= limit {
                positions.push(i as u32);
            }
        }
    }

    fn metric(&self) -> Option<Metric> {
        None
    }

    fn multiplier<'m>(&'m self, _: &Scope<'_, u8>, _: bool) -> Option<Multiplier<'m, u8>> {
        None
    }

    fn distance(&self, query: usize, row: &[u8]) -> f32 {
        let (query, rows) = (self.query(query), Rows::Contiguous(row));
        let (mut differing, mut common) = ([0], [0]);
        self.kernels.hamming(query, rows, &mut differing);
        if self.metric == Metric::Hamming {
            return differing[0] as f32;
        }
        self.kernels.common_bits(query, rows, &mut common);
        jaccard(differing[0], common[0])
    }
}
