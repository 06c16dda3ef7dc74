//! Tiles against a naive loop.

mod common;

use common::{Random, levels};
use nearest_kernels::{
    Hit, Kernels, PANEL_ROWS, PanelQueries, PanelRows, pack_panel_bytes, pack_panel_f32, panel_depth,
};

/// Everything a tile reads, random; estimates fall on both sides of the thresholds.
struct Case {
    scale: [f32; PANEL_ROWS],
    bias: [f32; PANEL_ROWS],
    mutual: [f32; PANEL_ROWS],
    weight: Vec<f32>,
    threshold: Vec<f32>,
    mutual_threshold: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, n: usize, spread: f32, quantile: f32) -> Self {
        Case {
            scale: [0.0; 32].map(|_| random.uniform() + 0.1),
            bias: [0.0; 32].map(|_| random.normal() * spread * 0.1),
            mutual: [0.0; 32].map(|_| random.normal() * spread * 0.1),
            weight: (0..n).map(|_| random.uniform() + 0.5).collect(),
            threshold: (0..n).map(|_| (quantile + random.normal() * 0.2) * spread).collect(),
            mutual_threshold: (0..n).map(|_| (quantile + random.normal() * 0.2) * spread).collect(),
        }
    }

    /// Whether (query, row) with this sum is a hit, or is so near a threshold that either is right.
    fn expected(&self, query: usize, row: usize, sum: f64, sum_error: f64, mutual: bool) -> Option<bool> {
        let over = |bias: f32, threshold: f32| {
            let scaled = f64::from(self.scale[row]) * sum;
            let biased = f64::from(bias) * f64::from(self.weight[query]);
            let estimate = scaled + biased;
            let slack = (scaled.abs() + biased.abs()) * 1e-6 + f64::from(self.scale[row]) * sum_error;
            if (estimate - f64::from(threshold)).abs() <= slack {
                return None;
            }
            // No sum or bias here is NaN.
            Some(estimate >= f64::from(threshold))
        };
        let first = over(self.bias[row], self.threshold[query]);
        if !mutual {
            return first;
        }
        match (first, over(self.mutual[row], self.mutual_threshold[query])) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (None, _) | (_, None) => None,
            _ => Some(false),
        }
    }
}

fn depths() -> impl Iterator<Item = usize> {
    (1..=40).chain([64, 100, 128, 384, 960, 4096])
}

fn check_i8(kernels: &Kernels, random: &mut Random, dim: usize, n: usize, mutual: bool, quantile: f32) {
    let depth = panel_depth(dim);
    let n_rows = if dim.is_multiple_of(3) { 1 + random.bits() as usize % 32 } else { PANEL_ROWS };
    let rows: Vec<u8> = (0..n_rows * dim).map(|_| random.bits() as u8).collect();
    let mut panel = vec![1; 32 * depth];
    pack_panel_bytes(&rows, dim, &mut panel);
    let codes: Vec<i8> =
        (0..n * depth).map(|i| if i % depth < dim { random.bits() as i8 } else { 0 }).collect();
    let start: Vec<i32> = (0..n).map(|_| random.bits() as i32 >> 16).collect();
    let spread = (dim as f32).sqrt() * 128.0 * 74.0;
    let mut case = Case::new(random, n, spread, quantile);
    for r in n_rows..PANEL_ROWS {
        (case.scale[r], case.bias[r], case.mutual[r]) = (0.0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    }
    let mut hits = vec![Hit { query: 99, row: 99, sum: 99 }];
    kernels.tile_i8(
        &PanelRows {
            panel: &panel,
            scale: &case.scale,
            bias: &case.bias,
            mutual: mutual.then_some(&case.mutual),
            // Changes nothing, however long it is.
            ahead: &[7; 5000][..n * 397 % 5000],
        },
        &PanelQueries {
            codes: &codes,
            start: &start,
            weight: &case.weight,
            threshold: &case.threshold,
            mutual_threshold: if mutual { &case.mutual_threshold } else { &[] },
        },
        &mut hits,
    );
    assert_eq!(hits.remove(0).query, 99, "hits are added to those there");
    hits.sort_by_key(|hit| (hit.query, hit.row));
    assert!(hits.is_sorted_by(|a, b| (a.query, a.row) < (b.query, b.row)), "a pair came twice");
    for query in 0..n {
        for row in 0..PANEL_ROWS {
            let place = hits.binary_search_by_key(&(query as u32, row as u32), |hit| (hit.query, hit.row));
            if row >= n_rows {
                assert!(place.is_err(), "a place without a row is a hit");
                continue;
            }
            let products =
                (0..dim).map(|j| i32::from(rows[row * dim + j]) * i32::from(codes[query * depth + j]));
            let sum = start[query] + products.sum::<i32>();
            if let Ok(place) = place {
                assert_eq!(hits[place].sum, sum, "{kernels:?}, dim {dim}, n {n}, query {query}, row {row}");
            }
            if let Some(hit) = case.expected(query, row, f64::from(sum), 0.0, mutual) {
                assert_eq!(hit, place.is_ok(), "{kernels:?}, dim {dim}, n {n}, query {query}, row {row}");
            }
        }
    }
}

fn check_f32(kernels: &Kernels, random: &mut Random, dim: usize, n: usize, mutual: bool, quantile: f32) {
    let n_rows = if dim.is_multiple_of(3) { 1 + random.bits() as usize % 32 } else { PANEL_ROWS };
    let rows: Vec<f32> = (0..n_rows * dim).map(|_| random.normal()).collect();
    let mut panel = vec![1.0; 32 * dim];
    pack_panel_f32(&rows, dim, &mut panel);
    let codes: Vec<f32> = (0..n * dim).map(|_| random.normal()).collect();
    let start: Vec<f32> = (0..n).map(|_| random.normal()).collect();
    let mut case = Case::new(random, n, (dim as f32).sqrt(), quantile);
    for r in n_rows..PANEL_ROWS {
        (case.scale[r], case.bias[r], case.mutual[r]) = (0.0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    }
    let mut hits = Vec::new();
    kernels.tile_f32(
        &PanelRows {
            panel: &panel,
            scale: &case.scale,
            bias: &case.bias,
            mutual: mutual.then_some(&case.mutual),
            // Changes nothing, however long it is.
            ahead: &[7; 5000][..n * 397 % 5000],
        },
        &PanelQueries {
            codes: &codes,
            start: &start,
            weight: &case.weight,
            threshold: &case.threshold,
            mutual_threshold: if mutual { &case.mutual_threshold } else { &[] },
        },
        &mut hits,
    );
    hits.sort_by_key(|hit| (hit.query, hit.row));
    assert!(hits.is_sorted_by(|a, b| (a.query, a.row) < (b.query, b.row)), "a pair came twice");
    for query in 0..n {
        for row in 0..PANEL_ROWS {
            let place = hits.binary_search_by_key(&(query as u32, row as u32), |hit| (hit.query, hit.row));
            if row >= n_rows {
                assert!(place.is_err(), "a place without a row is a hit");
                continue;
            }
            let mut sum = f64::from(start[query]);
            let mut size = sum.abs();
            for j in 0..dim {
                let product = f64::from(rows[row * dim + j]) * f64::from(codes[query * dim + j]);
                sum += product;
                size += product.abs();
            }
            let error = (dim + 2) as f64 * size / f64::from(1 << 24);
            if let Ok(place) = place {
                let got = f64::from(hits[place].sum);
                assert!((got - sum).abs() <= error, "{kernels:?}, dim {dim}, n {n}: {got}, expected {sum}");
            }
            if let Some(hit) = case.expected(query, row, sum, error, mutual) {
                assert_eq!(hit, place.is_ok(), "{kernels:?}, dim {dim}, n {n}, query {query}, row {row}");
            }
        }
    }
}

#[test]
fn tiles_agree_with_a_naive_loop() {
    let mut random = Random::new(3);
    for kernels in levels() {
        for mutual in [false, true] {
            for n in 0..=40 {
                for dim in [1, 4, 7, 20, 33] {
                    check_i8(kernels, &mut random, dim, n, mutual, 1.0);
                    check_f32(kernels, &mut random, dim, n, mutual, 1.0);
                }
            }
            for dim in depths() {
                for n in [1, 2, 5, 13, 31] {
                    // From nearly all pairs to nearly none.
                    let quantile = [-2.0, 0.0, 2.0][(dim + n) % 3];
                    check_i8(kernels, &mut random, dim, n, mutual, quantile);
                    check_f32(kernels, &mut random, dim, n, mutual, quantile);
                }
            }
        }
    }
}

#[test]
fn extreme_bytes_are_summed_exactly() {
    for kernels in levels() {
        for (row, code) in [(255_u8, -128_i8), (255, 127)] {
            let depth = 32_768;
            let (panel, codes) = (vec![row; 32 * depth], vec![code; 3 * depth]);
            let mut hits = Vec::new();
            kernels.tile_i8(
                &PanelRows::unscaled(&panel),
                &PanelQueries {
                    codes: &codes,
                    start: &[1, 2, 3],
                    weight: &[1.0; 3],
                    threshold: &[f32::NEG_INFINITY; 3],
                    mutual_threshold: &[],
                },
                &mut hits,
            );
            assert_eq!(hits.len(), 96);
            let product = i32::from(row) * i32::from(code) * depth as i32;
            assert!(hits.iter().all(|hit| hit.sum == product + hit.query as i32 + 1), "{kernels:?}");
        }
    }
}

#[test]
fn a_nan_estimate_is_a_hit() {
    for kernels in levels() {
        for n in [1, 2, 4, 12] {
            let mut bias = [-1.0; 32];
            bias[17] = f32::NAN;
            let mut hits = Vec::new();
            kernels.tile_f32(
                &PanelRows {
                    panel: &[0.0; 32],
                    scale: &[1.0; 32],
                    bias: &bias,
                    mutual: Some(&[-2.0; 32]),
                    ahead: &[],
                },
                &PanelQueries {
                    codes: &vec![0.0; n],
                    start: &vec![0.0; n],
                    weight: &vec![1.0; n],
                    threshold: &vec![0.0; n],
                    mutual_threshold: &vec![0.0; n],
                },
                &mut hits,
            );
            assert!(hits.len() == n && hits.iter().all(|hit| hit.row == 17), "{kernels:?}: {hits:?}");
        }
    }
}

#[test]
#[should_panic(expected = "mutual_threshold must have length 1, got 0")]
fn lengths_are_checked() {
    Kernels::best().tile_f32(
        &PanelRows {
            panel: &[0.0; 32],
            scale: &[1.0; 32],
            bias: &[0.0; 32],
            mutual: Some(&[0.0; 32]),
            ahead: &[],
        },
        &PanelQueries {
            codes: &[0.0],
            start: &[0.0],
            weight: &[0.0],
            threshold: &[0.0],
            mutual_threshold: &[],
        },
        &mut Vec::new(),
    );
}
