//! Rotations, grid codes, packed planes and words: what they mean, and that every level agrees to the bit.

mod common;

use common::{Random, levels};
use nearest_kernels::{
    Kernels, PANEL_ROWS, PARTS, PanelQueries, PanelRows, WordTables, pack_planes, panel_depth, planes_bytes,
    row_of_planes,
};
use proptest::prelude::*;

fn portable() -> &'static Kernels {
    Kernels::named("portable").unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn rotations_have_the_same_bits_on_every_level() {
    let mut random = Random::new(1);
    for dim in (1..=130).chain([384, 960, 1000, 4096]) {
        for n_rounds in [0, 1, 4] {
            let factors: Vec<f32> = (0..(n_rounds + 1) * dim).map(|_| random.normal()).collect();
            let values: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
            let (mut there, mut back) = (values.clone(), values.clone());
            portable().rotate(&factors, &mut there);
            portable().rotate_back(&factors, &mut back);
            for kernels in levels() {
                let (mut its_there, mut its_back) = (values.clone(), values.clone());
                kernels.rotate(&factors, &mut its_there);
                kernels.rotate_back(&factors, &mut its_back);
                assert_eq!(bits(&its_there), bits(&there), "{kernels:?}, dim {dim}");
                assert_eq!(bits(&its_back), bits(&back), "{kernels:?}, dim {dim}");
            }
        }
    }
}

#[test]
fn a_round_is_a_hadamard_transform() {
    // One round with factors 1: component i of the transform is Σ ±x, minus where i and j share an odd number of bits.
    for dim in [1, 2, 4, 16, 64, 256] {
        let mut random = Random::new(dim as u64);
        let values: Vec<f32> = (0..dim).map(|_| (random.bits() % 100) as f32).collect();
        for kernels in levels() {
            let mut transformed = values.clone();
            kernels.rotate(&vec![1.0; 2 * dim], &mut transformed);
            for (i, value) in transformed.iter().enumerate() {
                let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                let expected: f32 = values.iter().enumerate().map(|(j, x)| sign(j) * x).sum();
                assert_eq!(*value, expected, "{kernels:?}, dim {dim}, component {i}");
            }
        }
    }
}

/// Checks the levels of a row, and the bound of what they lose.
fn check_grid(kernels: &Kernels, row: &[f32], bits: u32) {
    let what = || format!("{kernels:?}, {bits} bits, row {row:?}");
    let mut levels = vec![99; row.len()];
    let code = kernels.quantise_grid(row, bits, &mut levels);
    let mut again = vec![98; row.len()];
    assert_eq!(portable().quantise_grid(row, bits, &mut again), code, "{}", what());
    assert_eq!(again, levels, "{}", what());

    assert!(code.scale >= 0.0 && code.scale.is_finite() && code.error >= 0.0, "{code:?}: {}", what());
    let value = |level: u8| match bits {
        8 => f32::from(level) - 128.0,
        _ => 2.0 * f32::from(level) + 1.0 - (1 << bits) as f32,
    };
    for &level in &levels {
        assert!(
            if bits == 8 { level >= 1 } else { u32::from(level) < 1 << bits },
            "level {level}: {}",
            what()
        );
    }
    let decoded = || levels.iter().map(|&level| f64::from(code.scale * value(level)));
    let exact = norm(row.iter().map(|&x| f64::from(x)));
    let lost = norm(row.iter().zip(decoded()).map(|(&x, y)| f64::from(x) - y));
    assert!(f64::from(code.error) >= lost, "error {:e} < {lost:e}: {}", code.error, what());
    let largest = row.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    if (1e-30..1e30).contains(&largest) {
        assert!(f64::from(code.error) <= lost * 1.0001 + exact * 2e-6, "error {:e}: {}", code.error, what());
        let dot: f64 = row.iter().zip(decoded()).map(|(&x, y)| f64::from(x) * y).sum();
        assert!(
            (dot / exact / exact - 1.0).abs() < 1e-5,
            "⟨x̂, x⟩ is {dot:e}, not {:e}: {}",
            exact * exact,
            what()
        );
    } else {
        assert_eq!(code.scale, 0.0);
        let at_most = exact.max(f64::from(largest) * (row.len() as f64).sqrt()) * 1.00001 + 5e-45;
        assert!(f64::from(code.error) <= at_most || at_most > f64::from(f32::MAX), "{}", what());
    }
}

#[test]
fn grid_codes_keep_their_bounds() {
    let mut random = Random::new(7);
    for kernels in levels() {
        for dim in (1..=70).chain([128, 384, 1000, 4096]) {
            let row: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
            let mut spiked = row.clone();
            spiked[dim / 2] = 1e6;
            for bits in 1..=8 {
                check_grid(kernels, &row, bits);
                check_grid(kernels, &spiked, bits);
                check_grid(kernels, &vec![-3.7; dim], bits);
                check_grid(kernels, &vec![0.0; dim], bits);
                if dim <= 40 {
                    for size in [1e-44, 1e-37, 1e-31, 1e-29, 1e-10, 1e10, 1e29, 1e31, 1e38] {
                        let sized: Vec<f32> = row.iter().map(|x| x * size).collect();
                        check_grid(kernels, &sized, bits);
                    }
                    check_grid(kernels, &vec![f32::MAX; dim], bits);
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_does_no_harm() {
    for kernels in levels() {
        for bits in 1..=8 {
            let mut levels = [99; 20];
            let mut row = [1.0; 20];
            row[3] = f32::NEG_INFINITY;
            let code = kernels.quantise_grid(&row, bits, &mut levels);
            assert_eq!((code.scale, code.error), (0.0, f32::INFINITY));
            row[3] = f32::NAN;
            kernels.quantise_grid(&row, bits, &mut levels);
        }
    }
}

/// How much of normal rows is lost, against what the best even grid loses (Max 1960).
#[test]
fn grid_codes_are_nearly_the_best() {
    let mut random = Random::new(3);
    let best = [0.363, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041, 0.0003035, 0.0000869];
    for (bits, best) in (1..=8).zip(best) {
        let (mut lost, mut n) = (0.0, 0.0);
        for _ in 0..50 {
            let row: Vec<f32> = (0..384).map(|_| random.normal()).collect();
            let mut levels = vec![0; row.len()];
            let code = Kernels::best().quantise_grid(&row, bits, &mut levels);
            // The angle between row and code, whose tangent the unbiased code's error is.
            let squared = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            let tangent = f64::from(code.error).powi(2) / squared;
            lost += tangent / (1.0 + tangent);
            n += 1.0;
        }
        // A scale a row does a little better than one scale for all.
        assert!(lost / n < best * 1.01, "{bits} bits lose {} of the squares, {best} is best", lost / n);
    }
}

#[test]
fn planes_unpack_to_what_was_packed() {
    let mut random = Random::new(5);
    for bits in 1..=7 {
        for dim in (1..=40).chain([128, 384, 388]) {
            let depth = panel_depth(dim);
            let panel: Vec<u8> = (0..PANEL_ROWS * depth).map(|_| random.bits() as u8).collect();
            let mut packed = vec![99; planes_bytes(bits, depth)];
            pack_planes(bits, &panel, &mut packed);
            assert!(packed.len() < panel.len() * bits as usize / 8 + 2 * 64);
            let mask = (1 << bits) - 1;
            for row in 0..PANEL_ROWS {
                let mut of_row = vec![99; dim];
                row_of_planes(bits, &packed, row, &mut of_row);
                for (j, level) in of_row.iter().enumerate() {
                    assert_eq!(*level, panel[j / 4 * 128 + row * 4 + j % 4] & mask, "{bits} bits, row {row}");
                }
            }
            for kernels in levels() {
                let mut unpacked = vec![99; panel.len()];
                kernels.unpack_planes(bits, &packed, &mut unpacked);
                assert!(
                    unpacked.iter().zip(&panel).all(|(u, n)| *u == 2 * (n & mask)),
                    "{kernels:?}, {bits} bits"
                );
            }
        }
    }
}

#[test]
fn a_tile_of_planes_is_the_tile_of_what_they_unpack_to() {
    let mut random = Random::new(15);
    for bits in 1..=7 {
        for depth in (4..=76).step_by(4).chain([128, 384, 388]) {
            // Bits behind the last component, too: a damaged file may have any.
            let packed: Vec<u8> = (0..planes_bytes(bits, depth)).map(|_| random.bits() as u8).collect();
            let codes: Vec<i8> = (0..depth).map(|_| random.bits() as i8).collect();
            let mut of_32 = |least: f32| [(); PANEL_ROWS].map(|()| least + random.normal().abs());
            let (scale, bias) = (of_32(0.1), of_32(-1.0));
            for kernels in levels() {
                let mut panel = vec![99; depth * PANEL_ROWS];
                kernels.unpack_planes(bits, &packed, &mut panel);
                for threshold in [[f32::NEG_INFINITY], [0.0], [f32::INFINITY]] {
                    let query = PanelQueries {
                        codes: &codes,
                        start: &[-77],
                        weight: &[3.0],
                        threshold: &threshold,
                        mutual_threshold: &[],
                    };
                    let rows =
                        PanelRows { panel: &packed, scale: &scale, bias: &bias, mutual: None, ahead: &[] };
                    let (mut found, mut expected) = (Vec::new(), Vec::new());
                    kernels.tile_planes(bits, &rows, &query, &mut found);
                    let unpacked = PanelRows { panel: &panel, ..rows };
                    kernels.tile_i8(&unpacked, &query, &mut expected);
                    assert_eq!(
                        found, expected,
                        "{kernels:?}, {bits} bits, depth {depth}, from {threshold:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn words_unpack_to_what_they_are() {
    let mut random = Random::new(6);
    for bits in [4, 8] {
        for dim in (1..=25).chain([64, 100]) {
            // Parts of random widths.
            let mut ends: Vec<usize> = (1..dim).filter(|_| random.bits().is_multiple_of(3)).collect();
            ends.push(dim);
            let words: Vec<u8> = (0..dim << bits).map(|_| random.bits() as u8).collect();
            let tables = WordTables::new(bits, &ends, &words);
            let packed: Vec<u8> = (0..tables.packed_bytes()).map(|_| random.bits() as u8).collect();
            for kernels in levels() {
                let mut panel = vec![99; PANEL_ROWS * panel_depth(dim)];
                kernels.unpack_words(&tables, &packed, &mut panel);
                for (at, byte) in panel.iter().enumerate() {
                    let (j, r) = (at / 128 * 4 + at % 4, at % 128 / 4);
                    let part = ends.partition_point(|&end| end <= j);
                    let expected = ends.get(part).map_or(0, |&end| {
                        let start = if part == 0 { 0 } else { ends[part - 1] };
                        let number = match bits {
                            4 => packed[part * 16 + r % 16] >> (r / 16 * 4) & 15,
                            _ => packed[part * 32 + r],
                        };
                        words[(start << bits) + usize::from(number) * (end - start) + (j - start)]
                    });
                    assert_eq!(
                        *byte, expected,
                        "{kernels:?}, {bits} bits, ends {ends:?}, row {r}, component {j}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_nearest_word_is_found() {
    let mut random = Random::new(8);
    for (n_words, width, groups) in [(1, 1, 1), (16, 4, 3), (16, 1, 1), (256, 3, 2), (7, 70, 1)] {
        // Small whole numbers: sums are exact, and words may be equal.
        let mut whole = |n: usize| -> Vec<f32> { (0..n).map(|_| (random.bits() % 9) as f32 - 4.0).collect() };
        let values = whole(groups * width * PARTS);
        let mut words = whole(groups * n_words * (width + 1) * PARTS);
        for word in words.chunks_exact_mut((width + 1) * PARTS) {
            let (values, halves) = word.split_at_mut(width * PARTS);
            for (j, half) in halves.iter_mut().enumerate() {
                *half = values[j..].iter().step_by(PARTS).map(|x| x * x / 2.0).sum();
            }
        }
        for kernels in levels() {
            let mut codes = vec![99; groups * PARTS];
            kernels.nearest_words(&words, n_words, &values, &mut codes);
            for (part, code) in codes.iter().enumerate() {
                let (group, lane) = (part / PARTS, part % PARTS);
                let distance = |number: usize| -> f32 {
                    let word = (group * n_words + number) * (width + 1);
                    let pairs = (0..width).map(|j| {
                        values[(group * width + j) * PARTS + lane] - words[(word + j) * PARTS + lane]
                    });
                    pairs.map(|difference| difference * difference).sum()
                };
                let nearest = (0..n_words).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
                assert_eq!(Some(usize::from(*code)), nearest, "{kernels:?}, part {part}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "planes must have 64 bytes, got 63")]
fn lengths_are_checked() {
    Kernels::best().unpack_planes(4, &[0; 63], &mut [0; 128]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn bounds_hold_for_any_floats(
        row in prop::collection::vec(any::<f32>(), 1..80),
        exponent in -34_i32..34,
        bits in 1_u32..=8,
    ) {
        // Of one magnitude, so that more than one component counts.
        let finite = |x: f32| if x.is_finite() { x } else { 1.0 };
        let row: Vec<f32> = row.iter().map(|x| finite(*x) % 10.0 * 10_f32.powi(exponent)).collect();
        for kernels in levels() {
            check_grid(kernels, &row, bits);
        }
    }
}
