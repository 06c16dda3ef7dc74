//! One query against many rows: every table against `portable`, and `portable` against naive loops.

mod common;

use common::{Random, levels};
use half::{bf16, f16};
use nearest_kernels::{Element, Kernels, Rows};

/// Lengths that meet every remainder of every block, and some large ones.
fn dims() -> impl Iterator<Item = usize> {
    (1..=130).chain([255, 256, 257, 384, 960, 4096, 32_768])
}

/// What the kernels of one type are compared with.
trait Kind: Element {
    fn random(random: &mut Random) -> Self;
    fn query(self) -> Self::Query;
    fn query_value(query: Self::Query) -> f64;
    fn sum_value(sum: Self::Sum) -> f64;
    /// How far a sum of `dim` terms, of `size` in all, may be off.
    fn slack(dim: usize, size: f64) -> f64;
}

macro_rules! float_kind {
    ($($kind:ty)*) => {$(
        impl Kind for $kind {
            fn random(random: &mut Random) -> Self {
                <$kind as Element>::from_f32(random.normal()).unwrap()
            }
            fn query(self) -> f32 {
                self.to_f32()
            }
            fn query_value(query: f32) -> f64 {
                f64::from(query)
            }
            fn sum_value(sum: f32) -> f64 {
                f64::from(sum)
            }
            fn slack(dim: usize, size: f64) -> f64 {
                (dim + 4) as f64 * size / f64::from(1 << 24)
            }
        }
    )*};
}
float_kind!(f32 f16 bf16);

macro_rules! integer_kind {
    ($($kind:ty)*) => {$(
        impl Kind for $kind {
            fn random(random: &mut Random) -> Self {
                random.bits() as $kind
            }
            fn query(self) -> $kind {
                self
            }
            fn query_value(query: $kind) -> f64 {
                f64::from(query)
            }
            fn sum_value(sum: i32) -> f64 {
                f64::from(sum)
            }
            fn slack(_: usize, _: f64) -> f64 {
                0.0
            }
        }
    )*};
}
integer_kind!(i8 u8);

type Run<T> = fn(&Kernels, &[<T as Element>::Query], Rows<'_, T>, &mut [<T as Element>::Sum]);
type Term = fn(query: f64, row: f64) -> f64;

/// Runs the four kernels on `rows` and checks each sum against float64.
fn check<T: Kind>(kernels: &Kernels, query: &[T::Query], rows: &[T]) {
    let dim = query.len();
    let n = rows.len() / dim;
    let scattered: Vec<&[T]> = rows.chunks_exact(dim).collect();
    let mut out = vec![T::Sum::default(); n];
    let mut again = out.clone();
    let all: [(&str, Run<T>, Term); 4] = [
        ("dot", |k, q, r, o| k.dot(q, r, o), |q, r| q * r),
        ("sqeuclidean", |k, q, r, o| k.sqeuclidean(q, r, o), |q, r| (q - r) * (q - r)),
        ("manhattan", |k, q, r, o| k.manhattan(q, r, o), |q, r| (q - r).abs()),
        ("squared_norms", |k, q, r, o| k.squared_norms(q.len(), r, o), |_, r| r * r),
    ];
    for (name, run, term) in all {
        run(kernels, query, Rows::Contiguous(rows), &mut out);
        run(kernels, query, Rows::Scattered(&scattered), &mut again);
        assert_eq!(out, again, "{name} of scattered rows, {kernels:?}, dim {dim}, n {n}");
        for (row, sum) in scattered.iter().zip(&out) {
            let terms: Vec<f64> =
                query.iter().zip(*row).map(|(q, r)| term(T::query_value(*q), r.to_f64())).collect();
            let expected: f64 = terms.iter().sum();
            let size = terms.iter().map(|term| term.abs()).sum();
            let got = T::sum_value(*sum);
            assert!(
                (got - expected).abs() <= T::slack(dim, size),
                "{name}, {kernels:?}, dim {dim}, n {n}: {got}, expected {expected}"
            );
        }
    }
}

fn check_kind<T: Kind>() {
    let mut random = Random::new(7);
    for kernels in levels() {
        for dim in dims() {
            let most = if dim > 300 { 13 } else { 20 };
            // One element in front, so that rows are not aligned.
            let values: Vec<T> = (0..=most * dim).map(|_| T::random(&mut random)).collect();
            let query: Vec<T::Query> = (0..=dim).map(|_| T::random(&mut random).query()).collect();
            for n in 0..=most {
                check(kernels, &query[1..], &values[1..=n * dim]);
                if dim > 130 && n == 2 {
                    break;
                }
            }
            check(kernels, &query[1..], &values[1..]);
        }
    }
}

#[test]
fn f32_sums() {
    check_kind::<f32>();
}

#[test]
fn f16_sums() {
    check_kind::<f16>();
}

#[test]
fn bf16_sums() {
    check_kind::<bf16>();
}

#[test]
fn i8_sums() {
    check_kind::<i8>();
}

#[test]
fn u8_sums() {
    check_kind::<u8>();
}

#[test]
fn extreme_integers_do_not_overflow() {
    for kernels in levels() {
        for dim in [1, 63, 64, 65, 4096, 32_768] {
            for (a, b) in [(255, 255), (255, 0), (0, 255), (128, 255)] {
                check::<u8>(kernels, &vec![a; dim], &vec![b; 9 * dim]);
            }
            for (a, b) in [(-128, -128), (-128, 127), (127, -128), (127, 127)] {
                check::<i8>(kernels, &vec![a; dim], &vec![b; 9 * dim]);
            }
        }
    }
}

#[test]
fn extreme_floats_pass_through() {
    for kernels in levels() {
        let mut out = [0.0];
        kernels.dot::<f32>(&[f32::MAX; 20], Rows::Contiguous(&[2.0; 20]), &mut out);
        assert_eq!(out, [f32::INFINITY]);
        let tiny = f16::from_bits(1);
        kernels.dot::<f16>(&[1.0; 5], Rows::Contiguous(&[tiny; 5]), &mut out);
        assert_eq!(out, [5.0 * 2.0_f32.powi(-24)]);
        kernels.manhattan::<bf16>(&[0.0; 5], Rows::Contiguous(&[bf16::from_f32(-1e38); 5]), &mut out);
        assert!((out[0] / 5e38f64 as f32 - 1.0).abs() < 0.01 || out[0].is_infinite());
    }
}

#[test]
fn bits_are_counted() {
    let mut random = Random::new(11);
    for kernels in levels() {
        for bytes in dims() {
            let most = if bytes > 130 { 9 } else { 20 };
            let values: Vec<u8> = (0..=most * bytes).map(|_| random.bits() as u8).collect();
            let query: Vec<u8> = (0..=bytes).map(|_| random.bits() as u8).collect();
            for n in 0..=most {
                let (query, rows) = (&query[1..], &values[1..=n * bytes]);
                let scattered: Vec<&[u8]> = rows.chunks_exact(bytes).collect();
                let count = |join: fn(u8, u8) -> u8| -> Vec<u32> {
                    let row =
                        |row: &&[u8]| query.iter().zip(*row).map(|(q, r)| join(*q, *r).count_ones()).sum();
                    scattered.iter().map(row).collect()
                };
                let (differ, common) = (count(|q, r| q ^ r), count(|q, r| q & r));
                let mut out = vec![0; n];
                for rows in [Rows::Contiguous(rows), Rows::Scattered(&scattered)] {
                    kernels.hamming(query, rows, &mut out);
                    assert_eq!(out, differ, "{kernels:?}, {bytes} bytes, n {n}");
                    kernels.common_bits(query, rows, &mut out);
                    assert_eq!(out, common, "{kernels:?}, {bytes} bytes, n {n}");
                }
            }
        }
        let mut out = [0; 8];
        let (query, rows) = (vec![255; 32_768], vec![0; 8 * 32_768]);
        kernels.hamming(&query, Rows::Contiguous(&rows), &mut out);
        assert_eq!(out, [8 * 32_768; 8]);
    }
}

#[test]
fn finite_values_are_told_from_others() {
    for kernels in levels() {
        for len in 0..100 {
            let mut values = vec![f32::MAX; len];
            assert!(kernels.all_finite(&values));
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    assert!(!kernels.all_finite(&values), "{kernels:?}, {bad} at {at} of {len}");
                    // -1 and MAX become finite halves; what is not finite stays so.
                    let half = |v: &f32| f16::from_f32(if *v == f32::MAX { 1.0 } else { *v });
                    let halves: Vec<f16> = values.iter().map(half).collect();
                    assert!(!kernels.all_finite(&halves));
                    let brains: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v / 2.0)).collect();
                    assert!(!kernels.all_finite(&brains));
                }
                values[at] = -1.0;
            }
            assert!(kernels.all_finite(&vec![-128_i8; len]));
            assert!(kernels.all_finite(&vec![255_u8; len]));
        }
    }
}

#[test]
#[should_panic(expected = "rows must hold 2 · 3 elements, got 5")]
fn lengths_are_checked() {
    Kernels::best().dot::<f32>(&[0.0; 3], Rows::Contiguous(&[0.0; 5]), &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "rows must have 3 elements, got 2")]
fn lengths_of_scattered_rows_are_checked() {
    let rows: [&[u8]; 2] = [&[1, 2, 3], &[1, 2]];
    Kernels::best().hamming(&[0; 3], Rows::Scattered(&rows), &mut [0; 2]);
}

#[test]
#[should_panic(expected = "dim must be in 1..=32768")]
fn dim_is_checked() {
    Kernels::best().dot::<i8>(&[], Rows::Contiguous(&[]), &mut []);
}
