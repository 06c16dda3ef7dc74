//! Coders: what a code stands for, that packing loses nothing, and that bounds hold.

use nearest_core::coder::{Coder, CoderScratch, ShortEncoding};
use nearest_core::rotation::Rotation;
use nearest_core::work::{Silent, Work};
use nearest_kernels::{Kernels, PANEL_ROWS, panel_depth};
use proptest::prelude::*;

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

    /// Roughly normal, of mean 0 and variance 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.bits() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
    }

    fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.normal()).collect()
    }
}

fn grids() -> Vec<ShortEncoding> {
    let rabitq = (1..=8).map(|bits| ShortEncoding::Rabitq { bits });
    [ShortEncoding::Scalar8, ShortEncoding::Scalar4].into_iter().chain(rabitq).collect()
}

fn products() -> Vec<(usize, ShortEncoding)> {
    let product = |dim, m, bits| (dim, ShortEncoding::Product { m, bits });
    let mut all: Vec<_> = (1..=40_u16).map(|m| product(usize::from(m) + usize::from(m) % 7, m, 4)).collect();
    all.extend([
        product(1, 1, 8),
        product(10, 3, 8),
        product(64, 16, 8),
        product(64, 1, 4),
        product(384, 96, 4),
        product(384, 192, 4),
        product(384, 96, 8),
        product(130, 17, 4),
        product(4096, 512, 4),
    ]);
    all
}

fn train(encoding: ShortEncoding, dim: usize, sample: &[f32]) -> Coder {
    Coder::train(encoding, dim, sample, 1, Kernels::best(), &Work::inline()).unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    norm(a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)))
}

/// Everything that a coder promises of some rows, 32 at most.
fn check_rows(coder: &Coder, rows: &[f32]) {
    let (dim, best) = (coder.dim(), Kernels::best());
    let mut scratch = CoderScratch::default();
    let mut codes = Vec::new();
    let mut decoded = Vec::new();
    for row in rows.chunks_exact(dim) {
        let mut code = vec![0xa5; coder.code_bytes()];
        let terms = coder.encode(best, row, &mut code, &mut scratch);
        for kernels in Kernels::available() {
            let mut again = vec![0x5a; coder.code_bytes()];
            assert_eq!(coder.encode(kernels, row, &mut again, &mut scratch), terms);
            assert_eq!(again, code, "{kernels:?} has another code");
        }
        let mut out = vec![7.0; dim];
        coder.decode(&code, terms.scale, &mut out);
        let lost = distance(row, &out);
        assert!(f64::from(terms.error) >= lost, "error {:e} < {lost:e}, row {row:?}", terms.error);
        assert!(!terms.scale.is_nan() && terms.scale.is_finite());
        codes.extend(code);
        decoded.push((terms.scale, out));
    }
    let mut panel = vec![0x77; coder.panel_bytes()];
    coder.pack_panel(&codes, &mut panel, &mut scratch);
    for kernels in Kernels::available() {
        let mut bytes = vec![0x55; PANEL_ROWS * panel_depth(dim)];
        coder.unpack_panel(kernels, &panel, &mut bytes);
        for (r, (scale, out)) in decoded.iter().enumerate() {
            for (j, value) in out.iter().enumerate() {
                let byte = i32::from(bytes[j / 4 * 128 + r * 4 + j % 4]);
                assert_eq!(
                    scale * (byte - coder.zero()) as f32,
                    *value,
                    "{kernels:?}, row {r}, component {j}"
                );
            }
        }
        if coder.is_identity() {
            assert_eq!(bytes, panel);
        }
    }
    for (r, code) in codes.chunks_exact(coder.code_bytes()).enumerate() {
        let mut taken = vec![0x11; coder.code_bytes()];
        coder.row_of_panel(&panel, r, &mut taken);
        assert_eq!(taken, code, "row {r}");
    }
}

#[test]
fn rows_come_back_from_panels_within_their_bounds() {
    let mut random = Random(1);
    for dim in (1..=70).chain([384, 4096]) {
        for encoding in grids() {
            if dim > 1000 && !matches!(encoding, ShortEncoding::Scalar4 | ShortEncoding::Rabitq { bits: 7 }) {
                continue;
            }
            let coder = train(encoding, dim, &[]);
            let n = if dim == 384 { PANEL_ROWS } else { 1 + dim % PANEL_ROWS };
            check_rows(&coder, &random.vector(n * dim));
        }
    }
}

#[test]
fn rows_come_back_from_product_panels_too() {
    let mut random = Random(11);
    for (dim, encoding) in products() {
        let sample = random.vector(dim * 50);
        let coder = train(encoding, dim, &sample);
        check_rows(&coder, &sample[..dim * (1 + dim % PANEL_ROWS)]);
        check_rows(&coder, &[vec![0.0; dim], vec![-3.0; dim], vec![1e36; dim], vec![1e-36; dim]].concat());
        let again = Coder::from_state(encoding, dim, &coder.state()).unwrap();
        assert_eq!(again.state(), coder.state());
        check_rows(&again, &sample[..dim]);
    }
}

#[test]
fn products_are_the_same_for_any_number_of_threads_and_level() {
    let mut random = Random(12);
    let (dim, encoding) = (70, ShortEncoding::Product { m: 33, bits: 4 });
    let sample = random.vector(dim * 300);
    let state = train(encoding, dim, &sample).state();
    for kernels in Kernels::available() {
        for n_threads in [1, 2, 5] {
            let work = Work::new(Some(n_threads), &Silent);
            let coder = Coder::train(encoding, dim, &sample, 1, kernels, &work).unwrap();
            assert_eq!(coder.state(), state, "{kernels:?}, {n_threads} threads");
        }
    }
    assert_ne!(
        Coder::train(encoding, dim, &sample, 2, Kernels::best(), &Work::inline()).unwrap().state(),
        state
    );
}

/// Rows that are made of as many words as there are lose next to nothing.
#[test]
fn products_find_the_words_that_rows_are_made_of() {
    let mut random = Random(13);
    let (dim, m) = (24, 6);
    let words: Vec<Vec<f32>> = (0..m * 4).map(|_| random.vector(dim / m)).collect();
    let sample: Vec<f32> = (0..2000)
        .flat_map(|_| {
            let chosen = (0..m).flat_map(|part| words[part * 4 + random.bits() as usize % 4].clone());
            let chosen: Vec<f32> = chosen.collect();
            // Words are of directions: rows of one length have as few of those.
            let length = norm(chosen.iter().map(|&x| f64::from(x))) as f32;
            chosen.into_iter().map(move |x| x / length * 5.0).collect::<Vec<_>>()
        })
        .collect();
    let coder = train(ShortEncoding::Product { m: m as u16, bits: 8 }, dim, &sample);
    let mut lost = 0.0;
    for row in sample.chunks_exact(dim) {
        let mut code = vec![0; coder.code_bytes()];
        let terms = coder.encode(Kernels::best(), row, &mut code, &mut CoderScratch::default());
        lost += f64::from(terms.error) / 5.0 / 2000.0;
    }
    assert!(lost < 0.06, "{lost}");
}

#[test]
fn samples_are_checked() {
    let encoding = ShortEncoding::Product { m: 4, bits: 4 };
    let error = |dim, sample: &[f32]| {
        Coder::train(encoding, dim, sample, 1, Kernels::best(), &Work::inline()).unwrap_err().to_string()
    };
    assert_eq!(error(3, &[1.0; 9]), "product(4, 4) needs at least 4 dimensions, got 3");
    assert_eq!(error(5, &[1.0; 9]), "a sample must be whole rows of 5, got 9 values");
    assert_eq!(error(5, &[]), "product(4, 4) needs rows other than zeros to train on");
    assert_eq!(error(5, &[0.0; 10]), "product(4, 4) needs rows other than zeros to train on");
    assert_eq!(error(5, &[f32::NAN; 10]), "product(4, 4) needs rows other than zeros to train on");
    assert_eq!(error(5, &[f32::INFINITY; 10]), "product(4, 4) needs rows other than zeros to train on");
}

#[test]
fn forged_codebooks_are_refused() {
    let encoding = ShortEncoding::Product { m: 2, bits: 4 };
    let state = train(encoding, 5, &Random(1).vector(100)).state();
    assert_eq!(state.len(), 4 + 16 * 5);
    for (at, byte) in (0..state.len()).flat_map(|at| [0, 1, 127, 128, 255].map(|byte| (at, byte))) {
        let mut forged = state.clone();
        forged[at] = byte;
        // An error, or a coder that works.
        if let Ok(coder) = Coder::from_state(encoding, 5, &forged) {
            check_rows(&coder, &[1.0, -2.0, 3.0, -4.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        } else {
            assert!(at < 4 || byte == 0);
        }
    }
    for unit in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-30, 2.0] {
        let mut forged = state.clone();
        forged[..4].copy_from_slice(&unit.to_le_bytes());
        let error = Coder::from_state(encoding, 5, &forged).unwrap_err();
        assert_eq!(error.to_string(), "the codebooks of product(2, 4) hold values that none can have");
    }
    assert!(Coder::from_state(encoding, 5, &state[1..]).is_err());
    assert!(Coder::from_state(encoding, 1, &state).is_err());
    assert!(Coder::from_state(ShortEncoding::Product { m: 0, bits: 4 }, 5, &state).is_err());
    assert!(Coder::from_state(ShortEncoding::Product { m: 2, bits: 5 }, 5, &state).is_err());
}

#[test]
fn odd_rows_are_coded_too() {
    let mut random = Random(2);
    for dim in [1, 2, 3, 31, 64, 100] {
        let normal = random.vector(dim);
        let mut spiked = normal.clone();
        spiked[dim - 1] = 3e7;
        let rows: Vec<Vec<f32>> = vec![
            vec![0.0; dim],
            vec![-0.0; dim],
            vec![2.5; dim],
            vec![-1e-3; dim],
            spiked,
            vec![f32::from_bits(1); dim],
            vec![f32::MAX; dim],
            normal.iter().map(|x| x * 1e-38).collect(),
            normal.iter().map(|x| x * 1e36).collect(),
        ];
        for encoding in grids() {
            check_rows(&train(encoding, dim, &[]), &rows.concat());
        }
    }
}

#[test]
fn what_is_not_finite_does_not_panic() {
    for encoding in grids() {
        let coder = train(encoding, 5, &[]);
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut code = vec![0; coder.code_bytes()];
            let terms = coder.encode(
                Kernels::best(),
                &[1.0, bad, 2.0, 3.0, 4.0],
                &mut code,
                &mut CoderScratch::default(),
            );
            if !bad.is_nan() {
                assert_eq!((terms.scale, terms.error), (0.0, f32::INFINITY));
            }
        }
    }
}

/// Of normal rows 4 bits lose at most 12 % of the length, 1 bit √(1 − 2/π) of it, each bit more about half.
#[test]
fn errors_are_as_theory_has_them() {
    let mut random = Random(3);
    let dim = 384;
    let expected = [0.76, 0.37, 0.20, 0.11, 0.061, 0.034, 0.018, 0.0095];
    let rotation = Rotation::new(dim, 5).unwrap();
    for (bits, expected) in (1..).zip(expected) {
        let coder = train(ShortEncoding::Rabitq { bits }, dim, &[]);
        let mut of_length = 0.0;
        for _ in 0..40 {
            // Uneven components, which the rotation evens out.
            let row: Vec<f32> =
                random.vector(dim).iter().enumerate().map(|(j, x)| x / (1 + j % 50) as f32).collect();
            let mut rotated = vec![0.0; dim];
            rotation.apply(Kernels::best(), &row, &mut rotated);
            let mut code = vec![0; coder.code_bytes()];
            let terms = coder.encode(Kernels::best(), &rotated, &mut code, &mut CoderScratch::default());
            of_length += f64::from(terms.error) / norm(row.iter().map(|&x| f64::from(x))) / 40.0;
        }
        assert!(
            of_length < expected && of_length > 0.75 * expected,
            "{bits} bits: {of_length}, not {expected}"
        );
    }
}

/// Over random rotations, inner products with codes of one bit are right on average.
#[test]
fn one_bit_is_unbiased() {
    let mut random = Random(4);
    let dim = 128;
    let row = random.vector(dim);
    let query: Vec<f32> = row.iter().map(|x| x + random.normal()).collect();
    let exact: f64 = row.iter().zip(&query).map(|(x, q)| f64::from(*x) * f64::from(*q)).sum();
    let coder = train(ShortEncoding::Rabitq { bits: 1 }, dim, &[]);
    let (mut sum, mut squares, n) = (0.0, 0.0, 2000);
    for seed in 0..n {
        let rotation = Rotation::new(dim, seed).unwrap();
        let (mut x, mut q, mut decoded) = (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
        rotation.apply(Kernels::best(), &row, &mut x);
        rotation.apply(Kernels::best(), &query, &mut q);
        let mut code = vec![0; coder.code_bytes()];
        let terms = coder.encode(Kernels::best(), &x, &mut code, &mut CoderScratch::default());
        coder.decode(&code, terms.scale, &mut decoded);
        let estimate: f64 = decoded.iter().zip(&q).map(|(x, q)| f64::from(*x) * f64::from(*q)).sum();
        sum += estimate / exact;
        squares += (estimate / exact).powi(2);
    }
    let n = n as f64;
    let mean = sum / n;
    let deviation = (squares / n - mean * mean).sqrt();
    assert!((mean - 1.0).abs() < 4.0 * deviation / n.sqrt(), "{mean} ± {}", deviation / n.sqrt());
}

#[test]
fn names_and_numbers_come_back() {
    let mut all = grids();
    all.extend([(1, 4), (96, 4), (65_535, 8)].map(|(m, bits)| ShortEncoding::Product { m, bits }));
    for encoding in all {
        assert_eq!(ShortEncoding::from_name(&encoding.name()).unwrap(), encoding);
        assert_eq!(ShortEncoding::from_numbers(encoding.to_numbers()), Some(encoding));
    }
    assert_eq!(ShortEncoding::from_name(" product(3,8) ").unwrap(), ShortEncoding::Product { m: 3, bits: 8 });
    for name in [
        "",
        "scalar",
        "scalar8()",
        "scalar4(1)",
        "rabitq",
        "rabitq()",
        "rabitq(0)",
        "rabitq(9)",
        "rabitq(1, 2)",
        "rabitq(260)",
        "product(96)",
        "product(0, 4)",
        "product(96, 5)",
        "product(70000, 4)",
        "product(96, 4",
        "product(-1, 4)",
        "product(96, 4))",
    ] {
        let error = ShortEncoding::from_name(name).unwrap_err().to_string();
        assert!(error.contains(&format!("got '{name}'")) && error.contains("product(m, bits)"), "{error}");
    }
    for numbers in [
        [0, 0, 1],
        [1, 1, 0],
        [2, 0, 4],
        [2, 65_536, 4],
        [2, 1, 5],
        [3, 0, 0],
        [3, 0, 9],
        [3, 1, 1],
        [4, 0, 0],
    ] {
        assert_eq!(ShortEncoding::from_numbers(numbers), None);
    }
}

#[test]
fn states_are_checked() {
    for encoding in grids() {
        let state = train(encoding, 10, &[]).state();
        assert!(Coder::from_state(encoding, 10, &state).is_ok());
        assert!(Coder::from_state(encoding, 10, &[0]).is_err());
        assert!(Coder::from_state(encoding, 0, &state).is_err());
        assert!(Coder::from_state(encoding, 1 << 20, &state).is_err());
    }
    assert!(Coder::from_state(ShortEncoding::Rabitq { bits: 9 }, 10, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_rows_come_back(
        values in prop::collection::vec(any::<f32>(), 1..300),
        dim in 1_usize..40,
        which in 0_usize..10,
        exponent in -38_i32..38,
    ) {
        let finite = |x: f32| if x.is_finite() { x } else { 1.0 };
        let mut rows: Vec<f32> = values.iter().map(|x| finite(*x) % 10.0 * 10_f32.powi(exponent)).collect();
        let n = rows.len().div_ceil(dim).min(PANEL_ROWS);
        rows.resize(n * dim, 0.5);
        check_rows(&train(grids()[which], dim, &[]), &rows);
    }
}
