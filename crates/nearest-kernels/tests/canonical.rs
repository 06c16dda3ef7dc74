//! The canonical order, written out, against every table: the same bits.

mod common;

use common::{Random, levels};
use half::{bf16, f16};
use nearest_kernels::{Element, Kernels};
use proptest::prelude::*;

/// The canonical order as the documentation states it.
fn canonical(terms: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 32];
    for (i, term) in terms.enumerate() {
        lanes[i % 32] += term;
    }
    for width in [16, 8, 4, 2, 1] {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
    }
    lanes[0] + 0.0
}

/// NaNs are equal to one another: their bits are not promised.
fn same(got: f64, expected: f64) -> bool {
    got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan()
}

fn check<T: Element>(kernels: &Kernels, query: &[f32], row: &[T]) {
    let pairs = || query.iter().zip(row).map(|(q, r)| (f64::from(*q), r.to_f64()));
    let all = [
        ("dot", kernels.canonical_dot(query, row), canonical(pairs().map(|(q, r)| q * r))),
        (
            "sqeuclidean",
            kernels.canonical_sqeuclidean(query, row),
            canonical(pairs().map(|(q, r)| (q - r) * (q - r))),
        ),
        (
            "manhattan",
            kernels.canonical_manhattan(query, row),
            canonical(pairs().map(|(q, r)| (q - r).abs())),
        ),
        ("squared_norm", kernels.canonical_squared_norm(row), canonical(pairs().map(|(_, r)| r * r))),
    ];
    for (name, got, expected) in all {
        assert!(
            same(got, expected),
            "{name} of {}, {kernels:?}, length {}: {got:e}, expected {expected:e}",
            std::any::type_name::<T>(),
            row.len()
        );
        assert!(got.to_bits() != (-0.0_f64).to_bits(), "{name} is -0");
    }
}

#[test]
fn every_length_and_type_has_the_same_bits_on_all_levels() {
    let mut random = Random::new(5);
    for kernels in levels() {
        for len in (0..=130).chain([384, 960, 4096, 32_768]) {
            for round in 0..4 {
                let mut float = || match round {
                    0 => random.normal(),
                    // Subnormals and zeros of both signs.
                    1 => f32::from_bits(random.bits() as u32 & 0x80ff_ffff),
                    // Near the largest.
                    2 => f32::MAX * random.normal() / 6.0,
                    _ => random.any_float(),
                };
                let query: Vec<f32> = (0..=len).map(|_| float()).collect();
                let row: Vec<f32> = (0..=len).map(|_| float()).collect();
                // Not aligned.
                let (query, row) = (&query[1..], &row[1..]);
                check::<f32>(kernels, query, row);
                check::<f32>(kernels, query, query);
                let bits: Vec<u64> = (0..len).map(|_| random.bits()).collect();
                let finite = |bits: u64| Some(f16::from_bits(bits as u16)).filter(|h| h.is_finite());
                let halves: Vec<f16> = bits.iter().map(|b| finite(*b).unwrap_or(f16::MIN)).collect();
                check::<f16>(kernels, query, &halves);
                let brains: Vec<bf16> = row.iter().map(|r| bf16::from_f32(*r)).collect();
                check::<bf16>(kernels, query, &brains);
                check::<i8>(kernels, query, &bits.iter().map(|b| *b as i8).collect::<Vec<_>>());
                check::<u8>(kernels, query, &bits.iter().map(|b| *b as u8).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn zeros_have_no_sign() {
    for kernels in levels() {
        for len in 0..70 {
            let zeros = vec![-0.0_f32; len];
            assert_eq!(kernels.canonical_dot(&vec![1.0; len], &zeros).to_bits(), 0);
            assert_eq!(kernels.canonical_manhattan(&zeros, &zeros).to_bits(), 0);
        }
    }
}

#[test]
fn integers_are_exact() {
    for kernels in levels() {
        let len = 32_768;
        assert_eq!(kernels.canonical_dot(&vec![255.0; len], &vec![255_u8; len]), 65_025.0 * 32_768.0);
        assert_eq!(
            kernels.canonical_sqeuclidean(&vec![127.0; len], &vec![-128_i8; len]),
            65_025.0 * 32_768.0
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_floats_have_the_same_bits_on_all_levels(
        pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 0..140)
    ) {
        let (query, row): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        for kernels in levels() {
            check::<f32>(kernels, &query, &row);
        }
    }
}
