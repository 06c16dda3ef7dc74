//! Principal components against a plain covariance in float64.

use nearest_core::pca::Pca;
use nearest_core::work::{Silent, Work};
use nearest_kernels::Kernels;

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.bits() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }
}

/// Rows with a mean far from 0, whose components depend on one another.
fn rows(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut rows = Vec::new();
    for _ in 0..n {
        let mut last = 0.0;
        for j in 0..dim {
            last = 0.7 * last + random.normal() / (1 + j / 4) as f32;
            rows.push(last + 10.0 + j as f32);
        }
    }
    rows
}

fn train(rows: &[f32], dim: usize, n_components: usize, n_threads: usize) -> Pca {
    Pca::train(rows, dim, n_components, Kernels::best(), &Work::new(Some(n_threads), &Silent)).unwrap()
}

fn covariance(rows: &[f32], dim: usize) -> Vec<f64> {
    let n = (rows.len() / dim) as f64;
    let mean: Vec<f64> =
        (0..dim).map(|j| rows[j..].iter().step_by(dim).map(|&x| f64::from(x)).sum::<f64>() / n).collect();
    let mut covariance = vec![0.0; dim * dim];
    for row in rows.chunks_exact(dim) {
        for i in 0..dim {
            for j in 0..dim {
                covariance[i * dim + j] +=
                    (f64::from(row[i]) - mean[i]) * (f64::from(row[j]) - mean[j]) / (n - 1.0);
            }
        }
    }
    covariance
}

#[test]
fn components_are_eigenvectors_of_the_covariance() {
    for (n, dim) in [(50, 1), (100, 2), (600, 7), (1200, 33), (2000, 130), (200, 150)] {
        let rows = rows(n, dim, dim as u64);
        let covariance = covariance(&rows, dim);
        let total: f64 = (0..dim).map(|j| covariance[j * dim + j]).sum();
        let pca = train(&rows, dim, dim, 1);
        assert!((pca.total_variance() / total - 1.0).abs() < 1e-5);
        assert!((pca.variances().iter().sum::<f64>() / total - 1.0).abs() < 1e-5);
        assert!(pca.variances().is_sorted_by(|a, b| a >= b));
        for (variance, component) in pca.variances().iter().zip(pca.components().chunks_exact(dim)) {
            for (row, value) in covariance.chunks_exact(dim).zip(component) {
                let product: f64 = row.iter().zip(component).map(|(a, b)| a * f64::from(*b)).sum();
                assert!((product - variance * f64::from(*value)).abs() < 1e-5 * total, "dim {dim}");
            }
        }
    }
}

#[test]
fn rows_are_turned_there_and_back() {
    let (dim, n_components) = (40, 10);
    let rows = rows(1000, dim, 3);
    let pca = train(&rows, dim, n_components, 2);
    let all = train(&rows, dim, dim, 2);
    assert_eq!(pca.components(), &all.components()[..n_components * dim]);
    assert_eq!(pca.variances(), &all.variances()[..n_components]);
    let (mut squares, mut lost) = (vec![0.0; n_components], 0.0);
    for row in rows.chunks_exact(dim) {
        let (mut kept, mut back) = (vec![0.0; n_components], vec![0.0; dim]);
        pca.apply(Kernels::best(), row, &mut kept);
        pca.invert(&kept, &mut back);
        squares.iter_mut().zip(&kept).for_each(|(sum, x)| *sum += f64::from(x * x));
        lost += row.iter().zip(&back).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>();
        let (mut whole, mut same) = (vec![0.0; dim], vec![0.0; dim]);
        all.apply(Kernels::best(), row, &mut whole);
        all.invert(&whole, &mut same);
        assert!(row.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-4));
    }
    // Along a component rows vary by its variance; what is left out varies by the rest.
    for (sum, variance) in squares.iter().zip(pca.variances()) {
        assert!((sum / 999.0 / variance - 1.0).abs() < 1e-4);
    }
    let rest = pca.total_variance() - pca.variances().iter().sum::<f64>();
    assert!((lost / 999.0 / rest - 1.0).abs() < 1e-3);
}

#[test]
fn threads_change_nothing() {
    // Several blocks of columns, and several groups of rows.
    let rows = rows(20_000, 150, 5);
    let one = train(&rows, 150, 20, 1);
    assert_eq!(train(&rows, 150, 20, 2), one);
    assert_eq!(train(&rows, 150, 20, 5), one);
}

#[test]
fn odd_rows_are_turned_too() {
    let same = train(&[3.0; 12], 4, 4, 1);
    assert!(same.variances() == [0.0; 4] && same.total_variance() == 0.0);
    assert_eq!(train(&[1.0, 2.0], 2, 1, 1).variances(), [0.0]);
    let huge = train(&[1e18, 0.0, -1e18, 0.0], 2, 2, 1);
    assert!((huge.variances()[0] / 2e36 - 1.0).abs() < 1e-5 && huge.components()[0] == 1.0);
    let parts = |pca: &Pca| {
        (pca.mean().to_vec(), pca.components().to_vec(), pca.variances().to_vec(), pca.total_variance())
    };
    let (mean, components, variances, total) = parts(&huge);
    let from = |components: &[f32], variances: &[f64], total| {
        Pca::from_parts(mean.clone(), components.to_vec(), variances.to_vec(), total)
    };
    assert_eq!(from(&components, &variances, total).unwrap(), huge);
    assert!(from(&components[1..], &variances, total).is_err());
    assert!(from(&[f32::NAN; 4], &variances, total).is_err());
    assert!(from(&components, &[-1.0, 0.0], total).is_err());
    assert!(from(&components, &variances, f64::INFINITY).is_err());
    assert!(Pca::from_parts(vec![], vec![], vec![], 0.0).is_err());
    let error = |rows: &[f32], dim, n| {
        Pca::train(rows, dim, n, Kernels::best(), &Work::inline()).unwrap_err().to_string()
    };
    assert_eq!(error(&[1.0; 4], 2, 3), "n_components must be in 1..=2, got 3");
    assert_eq!(error(&[1.0; 5], 2, 1), "rows must be whole rows of 2, got 5 values");
    assert_eq!(error(&[], 2, 1), "rows must be whole rows of 2, got 0 values");
    assert_eq!(error(&[f32::NAN; 4], 2, 1), "rows must be finite");
    assert_eq!(error(&[1.0; 4], 0, 1), "dim must be in 1..=32768, got 0");
}
