//! Seeded random rotations: after one, every component carries as much as any other, roughly normally distributed.
//!
//! Rounds of random signs and Hadamard transforms, which cost O(dim · log dim) where a random matrix costs dim²
//! (Ailon and Chazelle 2009); lengths that are no power of two take turns between a block at the front and one at the back
//! and mix the halves (see `rotate.rs` of the kernels). Nothing but length and seed is kept in files.

use nearest_kernels::{Kernels, MAX_DIM};

use crate::error::{Error, Result};
use crate::random::Random;

/// Rounds where one Hadamard transform takes in everything, and where it takes two blocks.
const ROUNDS: (usize, usize) = (3, 4);

/// An orthonormal map of vectors of `dim` components, the same for the same seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    dim: usize,
    seed: u64,
    /// By round, and for the end: random signs, times what makes the transforms before and after orthonormal.
    factors: Vec<f32>,
}

impl Rotation {
    /// The rotation of this seed.
    pub fn new(dim: usize, seed: u64) -> Result<Self> {
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(Error::argument(format!("dim must be in 1..={MAX_DIM}, got {dim}")));
        }
        let block = 1 << dim.ilog2();
        let n_rounds = if block == dim { ROUNDS.0 } else { ROUNDS.1 };
        let mut random = Random::new(seed, 0);
        let mut factors = Vec::with_capacity((n_rounds + 1) * dim);
        for round in 0..=n_rounds {
            // In odd rounds the block is at the back.
            let start = if round % 2 == 0 { 0 } else { dim - block };
            for j in 0..dim {
                let mut scale = if random.bits() >> 63 == 0 { 1.0 } else { -1.0 };
                if round < n_rounds && (start..start + block).contains(&j) {
                    scale /= (block as f64).sqrt();
                }
                // What the mixing after an odd round made too long; it leaves out the middle one of an odd number.
                let is_middle = dim % 2 == 1 && j == dim / 2;
                if round > 0 && round % 2 == 0 && block < dim && !is_middle {
                    scale *= std::f64::consts::FRAC_1_SQRT_2;
                }
                factors.push(scale as f32);
            }
        }
        Ok(Self { dim, seed, factors })
    }

    /// Components of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What it was made of.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Rotates `x` into `out`. The same bits on every CPU.
    ///
    /// # Panics
    /// Unless both have `dim` components.
    #[track_caller]
    pub fn apply(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        assert!(x.len() == self.dim, "a vector to rotate must have {} components, got {}", self.dim, x.len());
        out.copy_from_slice(x);
        kernels.rotate(&self.factors, out);
    }

    /// The inverse of [`Rotation::apply`], up to rounding.
    ///
    /// # Panics
    /// Unless both have `dim` components.
    #[track_caller]
    pub fn invert(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        assert!(x.len() == self.dim, "a vector to rotate must have {} components, got {}", self.dim, x.len());
        out.copy_from_slice(x);
        kernels.rotate_back(&self.factors, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims() -> impl Iterator<Item = usize> {
        (1..=130).chain([384, 960, 4096])
    }

    fn vector(dim: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, 0);
        (0..dim).map(|_| (random.bits() as i32) as f32 / (1u32 << 31) as f32).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    fn rotated(rotation: &Rotation, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        rotation.apply(Kernels::best(), x, &mut out);
        out
    }

    #[test]
    fn it_keeps_lengths_and_angles_and_can_be_undone() {
        for dim in dims() {
            let rotation = Rotation::new(dim, 9).unwrap();
            let (a, b) = (vector(dim, 1), vector(dim, 2));
            let (ra, rb) = (rotated(&rotation, &a), rotated(&rotation, &b));
            let size = (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!((dot(&ra, &ra) / dot(&a, &a) - 1.0).abs() < 2e-6, "dim {dim}");
            assert!((dot(&ra, &rb) - dot(&a, &b)).abs() < 2e-6 * size, "dim {dim}");
            let mut back = vec![0.0; dim];
            rotation.invert(Kernels::best(), &ra, &mut back);
            assert!(back.iter().zip(&a).all(|(x, y)| (x - y).abs() < 1e-5), "dim {dim}");
        }
    }

    #[test]
    fn it_depends_on_its_seed_alone() {
        let x = vector(100, 3);
        let of_seed = |seed| rotated(&Rotation::new(100, seed).unwrap(), &x);
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
        assert!(Rotation::new(0, 1).is_err() && Rotation::new(MAX_DIM + 1, 1).is_err());
    }

    /// Vectors with everything in one component look like any others afterwards.
    #[test]
    fn one_component_is_spread_over_all() {
        for dim in (48..=130).chain([384, 960, 4096]) {
            let rotation = Rotation::new(dim, 4).unwrap();
            let (mut largest, mut fourth, mut n) = (0.0f64, 0.0, 0.0);
            for j in (0..dim).step_by(dim.div_ceil(97)) {
                let mut x = vec![0.0; dim];
                x[j] = (dim as f32).sqrt();
                for y in rotated(&rotation, &x) {
                    largest = largest.max(f64::from(y).abs());
                    fourth += f64::from(y).powi(4);
                    n += 1.0;
                }
            }
            // Normal values have a fourth moment of 3, and 5 at most among so many.
            assert!(largest < 5.5, "dim {dim}: {largest}");
            assert!((2.5..3.5).contains(&(fourth / n)), "dim {dim}: {}", fourth / n);
        }
    }
}
