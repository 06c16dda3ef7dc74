//! Codes and their bounds, verified in float64.

mod common;

use common::{Random, levels};
use half::{bf16, f16};
use nearest_kernels::{Element, Kernels, panel_depth};
use proptest::prelude::*;

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Checks codes and bounds of a row, and of the query of the same values.
fn check<T: Element>(kernels: &Kernels, row: &[T], centre: &[f32]) {
    let dim = row.len();
    let differences: Vec<f64> = row.iter().zip(centre).map(|(x, c)| x.to_f64() - f64::from(*c)).collect();
    let what = || format!("{kernels:?}, dim {dim}, row {row:?}, centre {centre:?}");

    let mut codes = vec![7; dim];
    let code = kernels.quantise_row(row, centre, &mut codes);
    let scale = f64::from(code.scale);
    assert!(code.scale >= 0.0 && code.scale.is_finite(), "{}", what());
    assert!(codes.iter().all(|u| *u >= 1), "{}", what());
    let exact = norm(differences.iter().copied());
    let pairs = differences.iter().zip(&codes);
    let lost = norm(pairs.map(|(x, u)| x - scale * (f64::from(*u) - 128.0)));
    assert!(f64::from(code.norm) >= exact, "norm {:e} < {exact:e}: {}", code.norm, what());
    assert!(f64::from(code.least_norm) <= exact, "least norm {:e} > {exact:e}: {}", code.least_norm, what());
    assert!(f64::from(code.error) >= lost, "error {:e} < {lost:e}: {}", code.error, what());
    assert_eq!(code.sum, codes.iter().map(|u| i32::from(*u) - 128).sum::<i32>());
    // The bounds are tight where nothing under- or overflows.
    let largest = differences.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    if largest > 1e-30 && exact < 1e38 {
        let tight = 1e-5 + dim as f64 / f64::from(1 << 28);
        assert!(f64::from(code.norm) <= exact * (1.0 + tight), "norm {:e}: {}", code.norm, what());
        assert!(
            f64::from(code.least_norm) >= exact * (1.0 - tight),
            "least norm {:e}: {}",
            code.least_norm,
            what()
        );
        assert!(f64::from(code.error) <= lost * (1.0 + tight) + exact * 1e-6, "error {}", what());
        assert!(lost <= scale * 0.5001 * (dim as f64).sqrt() + exact * 1e-6, "{}", what());
        assert!((scale * 127.0 / largest - 1.0).abs() < 1e-6, "{}", what());
    } else if largest == 0.0 {
        assert!(code.scale == 0.0 && code.norm == 0.0 && code.error == 0.0 && code.sum == 0);
    }

    let query: Vec<f32> = row.iter().map(|x| x.to_f32()).collect();
    let mut signed = vec![7; panel_depth(dim) + 4];
    let of_query = kernels.quantise_query(&query, centre, &mut signed);
    assert_eq!((of_query.scale, of_query.norm, of_query.error), (code.scale, code.norm, code.error));
    assert_eq!(of_query.sum, code.sum);
    for (v, u) in signed.iter().zip(&codes) {
        assert_eq!(i32::from(*v), i32::from(*u) - 128);
    }
    assert!(signed[dim..].iter().all(|v| *v == 0), "padding");
    let code_norm = norm(signed.iter().map(|v| scale * f64::from(*v)));
    assert!(f64::from(of_query.code_norm) >= code_norm, "{}", what());
    assert!(code_norm > 1e38 || f64::from(of_query.code_norm) <= code_norm * (1.0 + 1e-5) + 2e-45);

    let mut again = vec![9; dim];
    assert_eq!(Kernels::named("portable").unwrap().quantise_row(row, centre, &mut again), code);
    assert_eq!(again, codes, "portable has other codes than {}", what());
}

#[test]
fn bounds_hold_at_every_magnitude() {
    let mut random = Random::new(13);
    for kernels in levels() {
        for dim in (1..=70).chain([128, 384, 1000]) {
            let zeros = vec![0.0; dim];
            let row: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
            let centre: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
            for size in [1.0, 1e-10, 1e10, 1e30, 3e37, 1e-30, 1e-35, 1e-37, 1e-40, 1e-44] {
                let row: Vec<f32> = row.iter().map(|x| x * size).collect();
                let near: Vec<f32> = centre.iter().map(|c| c * size).collect();
                check(kernels, &row, &zeros);
                check(kernels, &row, &near);
                check(kernels, &row, &centre);
                check(kernels, &row, &row);
            }
            check(kernels, &vec![3.7_f32; dim], &zeros);
            check(kernels, &vec![f32::MAX; dim], &zeros);
            check(kernels, &vec![f32::from_bits(1); dim], &zeros);
            check(kernels, &row.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>(), &centre);
            check(kernels, &row.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), &centre);
            check(kernels, &row.iter().map(|x| (x * 20.0) as i8).collect::<Vec<_>>(), &centre);
            check(kernels, &row.iter().map(|x| (x * 20.0 + 99.0) as u8).collect::<Vec<_>>(), &centre);
        }
    }
}

#[test]
fn overflow_gives_infinite_bounds() {
    for kernels in levels() {
        for dim in [1, 31, 33, 100] {
            let (row, centre) = (vec![f32::MAX; dim], vec![-f32::MAX; dim]);
            let mut codes = vec![7; dim];
            let code = kernels.quantise_row(&row, &centre, &mut codes);
            assert_eq!((code.scale, code.norm, code.error), (0.0, f32::INFINITY, f32::INFINITY));
            assert!(code.sum == 0 && codes.iter().all(|u| *u == 128));
            let mut codes = vec![7; panel_depth(dim)];
            let code = kernels.quantise_query(&row, &centre, &mut codes);
            assert_eq!((code.norm, code.error, code.code_norm), (f32::INFINITY, f32::INFINITY, 0.0));
            assert!(codes.iter().all(|v| *v == 0));
        }
        // A norm beyond float32, of components within it.
        let mut codes = [0; 8];
        let code = kernels.quantise_row(&[3e38_f32; 8], &[0.0; 8], &mut codes);
        assert!(code.norm == f32::INFINITY && code.scale > 2e36 && codes == [255; 8]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bounds_hold_for_any_floats(
        pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 1..80),
        exponent in -40_i32..38,
    ) {
        let finite = |x: f32| if x.is_finite() { x } else { 1.0 };
        // Of one magnitude, so that more than one component counts.
        let (row, centre): (Vec<f32>, Vec<f32>) = pairs
            .iter()
            .map(|(x, c)| (finite(*x) % 10.0 * 10_f32.powi(exponent), finite(*c) % 10.0 * 10_f32.powi(exponent)))
            .unzip();
        for kernels in levels() {
            check(kernels, &row, &centre);
        }
    }
}
