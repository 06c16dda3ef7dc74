//! Choosing centroids, against plain loops; sums of rows, against sums in order.

mod common;

use common::{Random, levels};
use half::{bf16, f16};
use nearest_kernels::{
    Element, Kernels, Nearest, PANEL_ROWS, PanelCentroids, PanelPoints, pack_panel_bytes, pack_panel_f32,
    panel_depth,
};

/// A panel of bytes and centroids to choose from; many scores are equal where `narrow`.
struct Case {
    depth: usize,
    panel: Vec<u8>,
    weight: [f32; PANEL_ROWS],
    codes: Vec<i8>,
    start: Vec<i32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, dim: usize, n: usize, narrow: bool) -> Self {
        let depth = panel_depth(dim);
        let mut byte = || if narrow { random.bits() as u8 % 2 } else { random.bits() as u8 };
        let rows: Vec<u8> = (0..PANEL_ROWS * dim).map(|_| byte()).collect();
        let codes = (0..n * depth).map(|i| if i % depth < dim { byte() as i8 } else { 0 }).collect();
        let mut panel = vec![1; PANEL_ROWS * depth];
        pack_panel_bytes(&rows, dim, &mut panel);
        let start = (0..n).map(|_| if narrow { 0 } else { random.bits() as i32 >> 16 }).collect();
        let mut factor = |one: f32| if narrow { one } else { random.uniform() + 0.1 };
        let scale = (0..n).map(|_| factor(1.0)).collect();
        let bias = (0..n).map(|_| factor(0.0) * (dim as f32) * -1e4).collect();
        let weight = [0.0; PANEL_ROWS].map(|_| factor(1.0));
        Case { depth, panel, weight, codes, start, scale, bias }
    }

    fn points(&self) -> PanelPoints<'_, u8> {
        PanelPoints { panel: &self.panel, weight: &self.weight }
    }

    fn centroids(&self, places: std::ops::Range<usize>) -> PanelCentroids<'_, i8> {
        PanelCentroids {
            codes: &self.codes[places.start * self.depth..places.end * self.depth],
            start: &self.start[places.clone()],
            scale: &self.scale[places.clone()],
            bias: &self.bias[places],
        }
    }

    fn n(&self) -> usize {
        self.scale.len()
    }

    fn score(&self, place: usize, row: usize) -> f32 {
        let codes = &self.codes[place * self.depth..];
        let byte = |j: usize| self.panel[(j / 4) * 128 + row * 4 + j % 4];
        let sum: i64 = (0..self.depth).map(|j| i64::from(byte(j)) * i64::from(codes[j])).sum();
        let sum = (i64::from(self.start[place]) + sum) as i32 as f32;
        self.scale[place] * sum + self.bias[place] * self.weight[row]
    }

    /// The two best of one point: the first of those with the largest scores.
    fn expected(&self, row: usize) -> [(f32, u32); 2] {
        let mut order: Vec<(f32, u32)> =
            (0..self.n()).map(|place| (self.score(place, row), place as u32)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let at = |i: usize| order.get(i).copied().unwrap_or((f32::NEG_INFINITY, 0));
        [at(0), at(1)]
    }
}

fn check_bytes(kernels: &Kernels, case: &Case, cut: usize) {
    let n = case.n();
    let mut out = vec![f32::NAN; n * PANEL_ROWS];
    kernels.scores_i8(&case.points(), &case.centroids(0..n), &mut out);
    // In two calls, the second of which goes on from the first.
    let (mut best, mut two) = (Nearest::NONE, [Nearest::NONE; 2]);
    for places in [0..cut, cut..n] {
        let (first, centroids) = (places.start as u32, case.centroids(places));
        kernels.nearest_i8(&case.points(), &centroids, first, &mut best);
        kernels.two_nearest_i8(&case.points(), &centroids, first, &mut two);
    }
    assert_eq!(two[0], best, "{kernels:?}, n {n}");
    for row in 0..PANEL_ROWS {
        for place in 0..n {
            let (got, expected) = (out[place * PANEL_ROWS + row], case.score(place, row));
            assert_eq!(got.to_bits(), expected.to_bits(), "{kernels:?}, n {n}, {place}, {row}");
        }
        let got = two.map(|kept| (kept.score[row], kept.place[row]));
        assert_eq!(got, case.expected(row), "{kernels:?}, n {n}, row {row}");
    }
}

#[test]
fn bytes_are_scored_and_chosen_as_plain_loops_do_bit_for_bit() {
    let mut random = Random::new(11);
    for kernels in levels() {
        for narrow in [false, true] {
            for n in (0..=30).chain([48, 61, 100]) {
                for dim in [1, 4, 7, 33] {
                    let case = Case::new(&mut random, dim, n, narrow);
                    check_bytes(kernels, &case, random.bits() as usize % (n + 1));
                }
            }
            for dim in [64, 100, 128, 384, 960, 4096] {
                check_bytes(kernels, &Case::new(&mut random, dim, 29, narrow), 13);
            }
        }
    }
}

#[test]
fn floats_are_chosen_as_plain_loops_do_up_to_rounding() {
    let mut random = Random::new(12);
    for kernels in levels() {
        for (dim, n) in [(1, 1), (1, 40), (3, 2), (7, 5), (20, 12), (33, 31), (128, 50), (384, 19)] {
            let rows: Vec<f32> = (0..PANEL_ROWS * dim).map(|_| random.normal()).collect();
            let codes: Vec<f32> = (0..n * dim).map(|_| random.normal()).collect();
            let mut panel = vec![1.0; PANEL_ROWS * dim];
            pack_panel_f32(&rows, dim, &mut panel);
            let mut draw = || (0..n).map(|_| random.uniform() + 0.1).collect::<Vec<f32>>();
            let (start, scale, bias) = (draw(), draw(), draw());
            let weight = [0.0; PANEL_ROWS].map(|_| random.uniform());
            let points = PanelPoints { panel: &panel, weight: &weight };
            let centroids = PanelCentroids { codes: &codes, start: &start, scale: &scale, bias: &bias };
            let (mut best, mut two) = (Nearest::NONE, [Nearest::NONE; 2]);
            kernels.nearest_f32(&points, &centroids, 5, &mut best);
            kernels.two_nearest_f32(&points, &centroids, 5, &mut two);
            assert_eq!(two[0], best);
            for r in 0..PANEL_ROWS {
                let score = |place: usize| {
                    let products = (0..dim).map(|j| f64::from(rows[r * dim + j] * codes[place * dim + j]));
                    let sum = f64::from(start[place]) + products.sum::<f64>();
                    f64::from(scale[place]) * sum + f64::from(bias[place]) * f64::from(weight[r])
                };
                let mut scores: Vec<f64> = (0..n).map(score).collect();
                scores.sort_by(|a, b| b.total_cmp(a));
                for (rank, kept) in two.iter().enumerate().take(n) {
                    let got = kept.place[r] as usize - 5;
                    let slack = 1e-5 * (dim as f64).sqrt() * (1.0 + scores[rank].abs());
                    assert!((scores[rank] - score(got)).abs() <= slack, "{kernels:?}, dim {dim}, n {n}");
                    assert!((scores[rank] - f64::from(kept.score[r])).abs() <= slack);
                }
            }
        }
    }
}

#[test]
fn nothing_is_better_than_nothing_but_scores() {
    for kernels in levels() {
        for n in [1, 4, 12] {
            let mut bias = vec![f32::NAN; n];
            bias[n - 1] = f32::NEG_INFINITY;
            let points = PanelPoints { panel: &[1.0; 32], weight: &[1.0; 32] };
            let (codes, scale) = (vec![1.0; n], vec![1.0; n]);
            let centroids = PanelCentroids { codes: &codes, start: &codes, scale: &scale, bias: &bias };
            let mut two = [Nearest::NONE; 2];
            kernels.two_nearest_f32(&points, &centroids, 7, &mut two);
            assert_eq!(two, [Nearest::NONE; 2], "{kernels:?}");
            bias[0] = -3.0;
            let centroids = PanelCentroids { codes: &codes, start: &codes, scale: &scale, bias: &bias };
            kernels.two_nearest_f32(&points, &centroids, 7, &mut two);
            assert_eq!(two[0], Nearest { score: [-1.0; 32], place: [7; 32] }, "{kernels:?}");
            assert_eq!(two[1], Nearest::NONE, "{kernels:?}");
        }
    }
}

#[test]
#[should_panic(expected = "bias must have length 1, got 0")]
fn lengths_are_checked() {
    let points = PanelPoints { panel: &[0.0; 32], weight: &[0.0; 32] };
    let centroids = PanelCentroids { codes: &[0.0], start: &[0.0], scale: &[0.0], bias: &[] };
    Kernels::best().nearest_f32(&points, &centroids, 0, &mut Nearest::NONE.clone());
}

fn check_sums<T: Element>(random: &mut Random) {
    for dim in (1..=40).chain([64, 100, 1000]) {
        let rows: Vec<T> = (0..3 * dim).map(|_| T::from_f32((random.bits() % 100) as f32).unwrap()).collect();
        let weights = [1.0, 0.3, 7.7];
        for kernels in levels() {
            let mut sums = vec![0.1; dim];
            for (row, weight) in rows.chunks_exact(dim).zip(weights) {
                kernels.add(row, weight, &mut sums);
            }
            for (j, sum) in sums.iter().enumerate() {
                let term = |i: usize| weights[i] * rows[i * dim + j].to_f64();
                let expected = 0.1 + term(0) + term(1) + term(2);
                assert_eq!(sum.to_bits(), expected.to_bits(), "{kernels:?}, dim {dim}");
            }
        }
    }
}

#[test]
fn sums_are_those_of_plain_loops_bit_for_bit() {
    let mut random = Random::new(13);
    check_sums::<f32>(&mut random);
    check_sums::<f16>(&mut random);
    check_sums::<bf16>(&mut random);
    check_sums::<i8>(&mut random);
    check_sums::<u8>(&mut random);
}
