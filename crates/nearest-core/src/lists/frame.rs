//! The space that centroids and codes live in: vectors normalised where only directions count, centred, rotated.
//!
//! Euclidean distances, and with them cosines of normalised vectors, do not change under x ↦ R (x − c). Inner products
//! with a query that is rotated but not centred change by q·c, which is the same for all rows.

use nearest_kernels::Kernels;

use crate::metric::Metric;
use crate::rotation::Rotation;

/// A change of coordinates.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    metric: Metric,
    /// What is subtracted, in the original coordinates; of normalised vectors where only directions count.
    centre: Vec<f32>,
    rotation: Option<Rotation>,
    /// What is subtracted, rotated.
    turned: Vec<f32>,
}

impl Frame {
    /// The frame with a given centre; `rotation` if coordinates are to be mixed.
    pub fn new(kernels: &Kernels, metric: Metric, centre: Vec<f32>, rotation: Option<Rotation>) -> Self {
        let mut turned = centre.clone();
        if let Some(rotation) = &rotation {
            rotation.apply(kernels, &centre, &mut turned);
        }
        Self { metric, centre, rotation, turned }
    }

    /// Numbers a vector.
    pub fn dim(&self) -> usize {
        self.centre.len()
    }

    /// How distances are measured.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// What is subtracted.
    pub fn centre(&self) -> &[f32] {
        &self.centre
    }

    /// How coordinates are mixed, if they are.
    pub fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// What is subtracted, in the coordinates of this frame.
    pub fn turned_centre(&self) -> &[f32] {
        &self.turned
    }

    /// The inner product of a query and what is subtracted from rows.
    pub fn offset(&self, framed_query: &[f32]) -> f64 {
        framed_query.iter().zip(&self.turned).map(|(q, c)| f64::from(*q) * f64::from(*c)).sum()
    }

    /// A row in this frame. `scratch` is a buffer of any size.
    pub fn row(&self, kernels: &Kernels, row: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
        self.apply(kernels, row, true, scratch, out);
    }

    /// A query in this frame.
    pub fn query(&self, kernels: &Kernels, query: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
        self.apply(kernels, query, self.metric != Metric::InnerProduct, scratch, out);
    }

    fn apply(&self, kernels: &Kernels, x: &[f32], centred: bool, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let norm = if self.metric.is_angular() { kernels.canonical_squared_norm(x).sqrt() } else { 1.0 };
        let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        let factor = inverse as f32;
        let into = |out: &mut [f32], limit: f32| {
            for ((out, x), c) in out.iter_mut().zip(x).zip(&self.centre) {
                // The inverse of a subnormal length is too large for float32.
                let x = if factor.is_finite() { x * factor } else { (f64::from(*x) * inverse) as f32 };
                *out = (x - if centred { *c } else { 0.0 }).clamp(-limit, limit);
            }
        };
        let mut turn = |out: &mut [f32], limit| match &self.rotation {
            None => into(out, limit),
            Some(rotation) => {
                scratch.resize(x.len(), 0.0);
                into(scratch, limit);
                rotation.apply(kernels, scratch, out);
            }
        };
        turn(out, f32::INFINITY);
        if !kernels.all_finite(out) {
            // Sums of the largest numbers there are; a little smaller, they are still farther than all others.
            turn(out, 1e30);
        }
    }

    /// The vector that lies at `x` of this frame, in the original coordinates (normalised where only directions count).
    pub fn invert(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        match &self.rotation {
            None => out.copy_from_slice(x),
            Some(rotation) => rotation.invert(kernels, x, out),
        }
        for (out, c) in out.iter_mut().zip(&self.centre) {
            *out += c;
        }
    }
}
