//! Files of lists whose checksums are right and whose numbers are not: a format error, or an index that can be used.

mod common;

use std::sync::Arc;

use common::forge::*;
use common::{bytes_of, scalar4, scalar8};
use nearest_core::coder::ShortEncoding;
use nearest_core::encoding::{Encoding, Values};
use nearest_core::file::Dtype;
use nearest_core::ids::IdList;
use nearest_core::index::{Index, Knobs, Queries, Snapshot, Spec, Structure, Zeros, verify};
use nearest_core::metric::Metric;
use nearest_core::random::Random;
use nearest_core::work::{Silent, Work};

const DIM: usize = 6;
const N: usize = 700;

fn product() -> Encoding {
    Encoding::Short(ShortEncoding::Product { m: 3, bits: 4 })
}

/// A name, and an index of lists of that kind.
fn samples() -> Vec<(&'static str, Arc<Index>)> {
    let lists = Structure::Lists { n_lists: 2, spill: 40 };
    let of = |metric, encoding, rerank, structure| Spec {
        dim: DIM,
        metric,
        encoding,
        rerank,
        structure,
        shadow: false,
        seed: 9,
    };
    [
        ("raw", of(Metric::Euclidean, Encoding::Float32, None, lists), false),
        ("whole", of(Metric::Cosine, Encoding::UInt8, None, lists), true),
        ("second", of(Metric::InnerProduct, scalar4(), Some(scalar8()), lists), false),
        ("place", of(Metric::Angular, scalar4(), None, lists), true),
        ("words", of(Metric::Euclidean, product(), Some(Encoding::Float16), lists), false),
        ("words twice", of(Metric::Cosine, product(), Some(product()), lists), false),
        (
            "one",
            of(
                Metric::SqEuclidean,
                Encoding::Short(ShortEncoding::Rabitq { bits: 3 }),
                None,
                Structure::Exact,
            ),
            true,
        ),
    ]
    .map(|(name, spec, text)| {
        let index = Arc::new(Index::new(spec).unwrap());
        let mut random = Random::new(4, 4);
        let values: Vec<f32> = (0..N * DIM).map(|_| random.below(200) as f32 + 1.0).collect();
        let ids = text.then(|| IdList::Text((0..N).map(|i| format!("row {i}")).collect()));
        index.train(N, Values::Float32(&values), &Work::inline()).unwrap();
        let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
        stage.append(Values::Float32(&values), ids, &Work::inline()).unwrap();
        stage.commit(false, &Work::inline()).unwrap();
        (name, index)
    })
    .to_vec()
}

/// Bytes of scales, biases and row numbers of 32 places.
const TERMS: usize = 3 * 32 * 4;

fn panel_bytes(parts: &[Part]) -> usize {
    // The first block is of one list; all of them have the same panels.
    let blocks = &parts.iter().find(|part| part.name == "lists_blocks").unwrap().data;
    let rows = &parts.iter().find(|part| part.name == "lists_rows").unwrap().data;
    let n_panels: usize = blocks
        .chunks_exact(8)
        .map(|block| u32::from_le_bytes(block[4..8].try_into().unwrap()).div_ceil(32) as usize)
        .sum();
    rows.len() / n_panels - TERMS
}

#[test]
fn what_was_written_is_fine() {
    for (name, index) in samples() {
        let bytes = bytes_of(&index.snapshot());
        assert!(index.snapshot().is_trained(), "{name}");
        assert!(built(&parts(&bytes)) == bytes);
        view(&bytes).verify().unwrap();
        verify(&view(&bytes)).unwrap();
        assert!(use_them(&bytes), "{name}");
    }
}

#[test]
fn sections_that_are_missing_or_of_another_shape() {
    for (name, index) in samples().into_iter().step_by(2) {
        let all = parts(&bytes_of(&index.snapshot()));
        for i in 0..all.len() {
            let mut fewer = all.clone();
            let gone = fewer.remove(i);
            let opens = use_them(&built(&fewer));
            // Without ids rows count, as long as the next one says so.
            assert!(
                !opens || ["lists", "ids", "text_places"].contains(&&*gone.name),
                "{name}: {}",
                gone.name
            );
            let n = gone.data.len() as u64;
            for shape in [vec![], vec![n, 1], vec![0, 7]] {
                let wrong = changed(&all, &gone.name, |part| {
                    part.data.resize(shape.iter().product::<u64>() as usize, 1);
                    part.shape = shape.clone();
                    part.dtype = Dtype::U8;
                });
                use_them(&built(&wrong));
            }
        }
        // Lists of an index that has none.
        let exact = changed(&all, "spec", |part| {
            put(part, 8 * 3, 0u64.to_le_bytes());
            if ["one", "place"].contains(&name) {
                put(part, 8 * 2, 0u64.to_le_bytes());
            }
        });
        use_them(&built(&exact));
        // The numbers of `spec`, one by one.
        for at in 0..8 {
            for value in [
                0u64,
                1,
                2,
                3,
                5,
                16,
                17,
                18,
                19,
                20,
                0x10_0000_0012,
                1 << 16,
                101 << 16 | 1,
                1 << 32,
                u64::MAX,
            ] {
                let other = changed(&all, "spec", |part| put(part, 8 * at, value.to_le_bytes()));
                use_them(&built(&other));
            }
        }
    }
}

#[test]
fn numbers_of_lists_that_cannot_be() {
    let nan = u64::from(f32::NAN.to_bits());
    let infinite = u64::from(f32::INFINITY.to_bits());
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        for (at, value, fine) in [
            (0, 0, false),
            (0, 1, false),
            (0, 5, false),
            (0, (1 << 20) + 1, false),
            (0, u64::MAX, false),
            // Which rows get a second list from now on.
            (1, nan, false),
            (1, 1 << 32, false),
            (1, infinite, true),
            (1, u64::from(f32::NEG_INFINITY.to_bits()), true),
            // What coding loses.
            (2, nan, false),
            (2, infinite, false),
            (2, u64::from((-1.0f32).to_bits()), false),
            (2, u64::from(f32::MAX.to_bits()), true),
            (3, nan, false),
            (3, 0, true),
            (4, f64::NAN.to_bits(), false),
            (4, (-1.0f64).to_bits(), false),
            (4, 0, true),
            (4, f64::INFINITY.to_bits(), true),
            // Rows added, how far they are, rows it was made for.
            (5, 0, true),
            (5, u64::MAX, true),
            (6, f64::NAN.to_bits(), false),
            (6, f64::MAX.to_bits(), true),
            (7, 0, true),
            (7, 1, true),
            (7, u64::MAX, true),
        ] {
            // There may be one list only.
            if name == "one" && at == 0 && value == 1 {
                continue;
            }
            let forged = changed(&all, "lists", |part| put(part, 8 * at, value.to_le_bytes()));
            assert_eq!(use_them(&built(&forged)), fine, "{name}: {at} {value}");
        }
    }
}

#[test]
fn centroids_and_centres_that_cannot_be() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        for section in ["lists_centre", "lists_centroids"] {
            for (value, fine) in [
                (f32::NAN, false),
                (f32::INFINITY, false),
                (f32::NEG_INFINITY, false),
                (f32::MAX, true),
                (-1e30, true),
                (1e-45, true),
            ] {
                let forged = changed(&all, section, |part| put(part, 4, value.to_le_bytes()));
                assert_eq!(use_them(&built(&forged)), fine, "{name}: {section} {value}");
                let forged = changed(&all, section, |part| {
                    part.data
                        .chunks_exact_mut(4)
                        .for_each(|place| place.copy_from_slice(&value.to_le_bytes()));
                });
                assert_eq!(use_them(&built(&forged)), fine, "{name}: {section} {value}");
            }
        }
        // More centroids than blocks know of, and fewer.
        for n_lists in [1u64, 2, 3, 100, 5000] {
            let forged = changed(&all, "lists", |part| put(part, 0, n_lists.to_le_bytes()));
            let forged = changed(&forged, "lists_centroids", |part| {
                part.shape[0] = n_lists;
                part.data.resize(n_lists as usize * DIM * 4, 0);
            });
            let opens = use_them(&built(&forged));
            assert_eq!(opens, n_lists >= if name == "one" { 1 } else { 2 }, "{name}: {n_lists}");
        }
        let forged = changed(&all, "lists", |part| put(part, 0, 0u64.to_le_bytes()));
        let forged = changed(&forged, "lists_centroids", |part| {
            part.shape[0] = 0;
            part.data.clear();
        });
        assert!(!use_them(&built(&forged)));
    }
}

#[test]
fn states_of_coders_that_cannot_be() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        for section in ["lists_coder", "lists_second"] {
            let Some(part) = all.iter().find(|part| part.name == section) else { continue };
            let resized = |n: usize| {
                changed(&all, section, |part| {
                    part.data.resize(n, 7);
                    part.shape[0] = n as u64;
                })
            };
            let n = part.data.len();
            for other in [0, 1, 4, n + 1, n.saturating_sub(1), 2 * n + 4] {
                assert_eq!(use_them(&built(&resized(other))), other == n, "{name}: {section} {other}");
            }
            if n == 0 {
                continue;
            }
            for (unit, fine) in [
                (f32::NAN, false),
                (0.0, false),
                (-0.5, false),
                (1.0, false),
                (f32::INFINITY, false),
                (0.5, true),
            ] {
                let forged = changed(&all, section, |part| put(part, 0, unit.to_le_bytes()));
                assert_eq!(use_them(&built(&forged)), fine, "{name}: {unit}");
            }
            for (word, fine) in [(0u8, false), (1, true), (255, true)] {
                let forged = changed(&all, section, |part| put(part, 4 + 10, [word]));
                assert_eq!(use_them(&built(&forged)), fine, "{name}: {word}");
            }
        }
    }
}

#[test]
fn gaps_that_cannot_be() {
    let spec = Spec {
        dim: DIM,
        metric: Metric::Euclidean,
        encoding: Encoding::UInt8,
        rerank: None,
        structure: Structure::Lists { n_lists: 12, spill: 40 },
        shadow: false,
        seed: 9,
    };
    let index = Arc::new(Index::new(spec).unwrap());
    let mut random = Random::new(4, 5);
    let values: Vec<f32> = (0..N * DIM).map(|_| random.below(200) as f32).collect();
    index.train(N, Values::Float32(&values), &Work::inline()).unwrap();
    let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
    stage.append(Values::Float32(&values), None, &Work::inline()).unwrap();
    stage.commit(false, &Work::inline()).unwrap();
    let all = parts(&bytes_of(&index.snapshot()));
    assert!(use_them(&built(&all)));
    for (value, fine) in
        [(f32::NAN, false), (f32::INFINITY, false), (f32::MAX, true), (-f32::MAX, true), (0.0, true)]
    {
        let forged = changed(&all, "lists_gaps", |part| put(part, 8, value.to_le_bytes()));
        assert_eq!(use_them(&built(&forged)), fine, "{value}");
        let forged = changed(&all, "lists_gaps", |part| {
            part.data.chunks_exact_mut(4).for_each(|place| place.copy_from_slice(&value.to_le_bytes()));
        });
        assert_eq!(use_them(&built(&forged)), fine, "{value}");
    }
    for n in [0usize, 1, 6, 8, 1000] {
        let forged = changed(&all, "lists_gaps", |part| {
            part.shape[0] = n as u64;
            part.data.resize(4 * n, 1);
        });
        assert!(!use_them(&built(&forged)), "{n}");
    }
    // Without them every query goes to as many lists.
    let fewer: Vec<Part> = all.into_iter().filter(|part| part.name != "lists_gaps").collect();
    assert!(use_them(&built(&fewer)));
}

/// Adds groups of lists, which only files of very many lists have: `ends` says where they end, `centre` what is at each.
fn grouped(parts: &[Part], ends: &[u32], centre: f32) -> Vec<Part> {
    let part = |name: &str, dtype, shape: Vec<u64>, data: Vec<u8>| Part {
        name: name.into(),
        dtype,
        shape,
        data,
        is_required: false,
    };
    let n = ends.len() as u64;
    let centres = (0..ends.len() * DIM).flat_map(|i| (centre + (i * 7 % 31) as f32).to_le_bytes()).collect();
    let mut parts = parts.to_vec();
    let at = 1 + parts.iter().position(|part| part.name == "lists_centroids").unwrap();
    let ends = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
    parts.insert(at, part("lists_groups", Dtype::F32, vec![n, DIM as u64], centres));
    parts.insert(at + 1, part("lists_group_ends", Dtype::U32, vec![n], ends));
    parts
}

#[test]
fn groups_that_cannot_be() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        let n_lists = if name == "one" { 1 } else { 2 };
        let whole: &[&[u32]] = match n_lists {
            1 => &[&[1]],
            _ => &[&[2], &[1, 2], &[0, 2], &[2, 2]],
        };
        for ends in whole {
            for centre in [0.0, 90.0, -1e30, f32::MAX / 2.0] {
                let forged = built(&grouped(&all, ends, centre));
                assert!(use_them(&forged), "{name}: {ends:?} {centre}");
                verify(&view(&forged)).unwrap();
                let opened = opened(&forged, true).unwrap();
                assert!(bytes_of(&opened.snapshot()) == forged, "{name}: groups are saved as they are");
                // They say where to look first; whoever looks everywhere finds the same.
                let queries: Vec<f32> = (0..12 * DIM).map(|i| (i * 31 % 200) as f32).collect();
                let knobs = Knobs { effort: Some(2), ..Knobs::default() };
                let search = |snapshot: &Snapshot| {
                    let queries = Queries::Numbers(&queries);
                    snapshot.search(queries, 7, None, knobs, &Work::inline()).unwrap().found
                };
                assert_eq!(search(&index.snapshot()), search(&opened.snapshot()), "{name}");
            }
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let forged = changed(&grouped(&all, ends, 1.0), "lists_groups", |part| {
                    put(part, 4, value.to_le_bytes());
                });
                assert!(!use_them(&built(&forged)), "{name}: {value}");
            }
        }
        let wrong: [&[u32]; 8] = [
            &[],
            &[0],
            &[n_lists + 1],
            &[u32::MAX],
            &[1, 0],
            &[n_lists, 1 << 31],
            &[n_lists; 3],
            &[0, 0, n_lists],
        ];
        for ends in wrong {
            assert!(!use_them(&built(&grouped(&all, ends, 1.0))), "{name}: {ends:?}");
        }
        // One without the other, more of one than of the other, and of another type.
        let both = grouped(&all, whole[0], 1.0);
        for gone in ["lists_groups", "lists_group_ends"] {
            let fewer: Vec<Part> = both.iter().filter(|part| part.name != gone).cloned().collect();
            assert!(!use_them(&built(&fewer)), "{name}: {gone}");
            let more = changed(&both, gone, |part| {
                part.shape[0] = 9;
                part.data.resize(9 * if gone == "lists_groups" { 4 * DIM } else { 4 }, 0);
            });
            assert!(!use_them(&built(&more)), "{name}: {gone}");
            let other = changed(&both, gone, |part| part.dtype = Dtype::I32);
            assert!(!use_them(&built(&other)), "{name}: {gone}");
        }
    }
}

#[test]
fn block_tables_that_lie() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        let blocks: Vec<[u32; 2]> = all
            .iter()
            .find(|part| part.name == "lists_blocks")
            .unwrap()
            .data
            .chunks_exact(8)
            .map(|block| [0, 4].map(|at| u32::from_le_bytes(block[at..at + 4].try_into().unwrap())))
            .collect();
        assert!(blocks.len() >= 3 && blocks[0][1] == 256, "{name}: {blocks:?}");
        let forge = |change: &dyn Fn(&mut Vec<[u32; 2]>)| {
            let mut blocks = blocks.clone();
            change(&mut blocks);
            let forged = changed(&all, "lists_blocks", |part| {
                part.shape[0] = blocks.len() as u64;
                part.data = blocks.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
            });
            use_them(&built(&forged))
        };
        assert!(forge(&|_| ()));
        // Rows and lists that are not there.
        assert!(!forge(&|blocks| blocks[0][1] = 0), "{name}");
        assert!(!forge(&|blocks| blocks[0][1] = 257));
        assert!(!forge(&|blocks| blocks[0][1] = u32::MAX));
        assert!(!forge(&|blocks| blocks.last_mut().unwrap()[0] = 2));
        assert!(!forge(&|blocks| blocks.last_mut().unwrap()[0] = u32::MAX));
        // Bytes that are too few or too many.
        assert!(!forge(&|blocks| blocks.push([1, 32])));
        assert!(!forge(&|blocks| blocks.truncate(blocks.len() - 1)));
        assert!(!forge(&|blocks| blocks.clear()));
        // Lists out of order, and blocks in the middle of a list that are not full.
        assert!(!forge(&|blocks| blocks.reverse()) || name == "one");
        assert!(!forge(&|blocks| blocks[0][1] = 255));
        // The last block of a list may say less: rows are missing, and nobody minds.
        let last = blocks.len() - 1;
        if blocks[last][1] % 32 != 1 {
            assert!(forge(&|blocks| blocks[last][1] -= 1));
        }
        // All in the first list: then those before the last are not full.
        let full = blocks[..last].iter().all(|block| block[1] == 256);
        assert_eq!(forge(&|blocks| blocks.iter_mut().for_each(|block| block[0] = 0)), full, "{name}");
    }
}

#[test]
fn rows_and_terms_that_lie() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        let panel = panel_bytes(&all);
        let is_verified = |parts: &[Part]| verify(&view(&built(parts))).is_ok();
        assert!(is_verified(&all));
        let (scales, biases, rows) = (panel, panel + 128, panel + 256);
        for row in [N as u32, N as u32 + 1, 65_535, 65_536, 1 << 31, u32::MAX - 1, u32::MAX] {
            let forged = changed(&all, "lists_rows", |part| put(part, rows + 4, row.to_le_bytes()));
            assert!(use_them(&built(&forged)), "{name}");
            assert!(!is_verified(&forged), "{name}: {row}");
            // All of a block.
            let forged = changed(&all, "lists_rows", |part| {
                (0..32).for_each(|at| put(part, rows + 4 * at, row.to_le_bytes()));
            });
            assert!(use_them(&built(&forged)));
        }
        // The same row twice in a list, and again and again.
        let forged = changed(&all, "lists_rows", |part| {
            let first: [u8; 4] = part.data[rows..rows + 4].try_into().unwrap();
            put(part, rows + 4, first);
        });
        assert!(use_them(&built(&forged)) && !is_verified(&forged), "{name}");
        let forged = changed(&all, "lists_rows", |part| {
            for unit in part.data.chunks_exact_mut(panel + TERMS) {
                unit[panel + 256..].fill(0);
            }
        });
        assert!(use_them(&built(&forged)) && !is_verified(&forged));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -f32::MAX, 1e-45] {
            let finite = value.is_finite();
            let forged = changed(&all, "lists_rows", |part| put(part, scales + 8, value.to_le_bytes()));
            assert!(use_them(&built(&forged)));
            assert_eq!(is_verified(&forged), finite, "{name}: {value}");
            let forged = changed(&all, "lists_rows", |part| put(part, biases + 8, value.to_le_bytes()));
            assert!(use_them(&built(&forged)));
            assert_eq!(is_verified(&forged), finite || value == f32::NEG_INFINITY, "{name}: {value}");
            let forged = changed(&all, "lists_rows", |part| {
                for unit in part.data.chunks_exact_mut(panel + TERMS) {
                    unit[panel..panel + 256]
                        .chunks_exact_mut(4)
                        .for_each(|at| at.copy_from_slice(&value.to_le_bytes()));
                }
            });
            assert!(use_them(&built(&forged)));
        }
        // Places after the last row that say they are ones.
        let forged = changed(&all, "lists_rows", |part| {
            let start = part.data.len() - TERMS;
            put(part, start + 4 * 31, 1.0f32.to_le_bytes());
            put(part, start + 128 + 4 * 31, 1e30f32.to_le_bytes());
            put(part, start + 256 + 4 * 31, 3u32.to_le_bytes());
        });
        assert!(use_them(&built(&forged)) && !is_verified(&forged), "{name}");
        // Codes are any bytes.
        let mut random = Random::new(3, 3);
        let forged = changed(&all, "lists_rows", |part| {
            for unit in part.data.chunks_exact_mut(panel + TERMS) {
                unit[..panel].iter_mut().for_each(|byte| *byte = random.bits() as u8);
            }
        });
        assert!(use_them(&built(&forged)));
    }
}

#[test]
fn kept_codes_and_places_that_lie() {
    for (name, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        let is_verified = |parts: &[Part]| verify(&view(&built(parts))).is_ok();
        if ["whole", "place", "one"].contains(&name) {
            for list in [2u32, 5, 1 << 20, u32::MAX] {
                let forged = changed(&all, "vectors", |part| put(part, 4, list.to_le_bytes()));
                assert!(use_them(&built(&forged)) && !is_verified(&forged), "{name}: {list}");
                let forged = changed(&all, "vectors", |part| {
                    part.data
                        .chunks_exact_mut(4)
                        .for_each(|place| place.copy_from_slice(&list.to_le_bytes()));
                });
                assert!(use_them(&built(&forged)));
            }
        }
        if ["second", "words twice"].contains(&name) {
            let width = all.iter().find(|part| part.name == "vectors").unwrap().shape[1] as usize;
            for value in [f32::NAN, f32::INFINITY, f32::MAX] {
                for at in [0, 4] {
                    let forged = changed(&all, "vectors", |part| put(part, at + width, value.to_le_bytes()));
                    assert!(use_them(&built(&forged)));
                    assert_eq!(is_verified(&forged), value.is_finite(), "{name}: {at} {value}");
                    let forged = changed(&all, "vectors", |part| {
                        for kept in part.data.chunks_exact_mut(width) {
                            kept[at..at + 4].copy_from_slice(&value.to_le_bytes());
                        }
                    });
                    assert!(use_them(&built(&forged)));
                }
            }
        }
        // Fewer vectors than the lists know, and more.
        for n in [0, 1, N - 1, N + 1] {
            let forged: Vec<Part> = all
                .iter()
                .cloned()
                .map(|mut part| {
                    if ["vectors", "ids", "text_places"].contains(&&*part.name) {
                        let size = part.data.len() / N;
                        part.shape[0] = n as u64;
                        part.data.resize(n * size, 0);
                    }
                    part
                })
                .collect();
            use_them(&built(&forged));
            assert!(!is_verified(&forged), "{name}: {n}");
        }
    }
}

#[test]
fn a_calibration_that_is_no_text() {
    for (_, index) in samples().into_iter().take(2) {
        index.set_calibration("{}", &Silent).unwrap();
        let all = parts(&bytes_of(&index.snapshot()));
        assert!(use_them(&built(&all)));
        let forged = changed(&all, "calibration", |part| put(part, 0, [0xff, 0xfe]));
        assert!(!use_them(&built(&forged)));
        let forged = changed(&all, "calibration", |part| part.dtype = Dtype::U8);
        assert!(!use_them(&built(&forged)));
    }
}

/// Anything at all, in any of the sections.
#[test]
fn random_damage() {
    let mut random = Random::new(20, 26);
    let (mut n_open, mut n) = (0, 0);
    for (_, index) in samples() {
        let all = parts(&bytes_of(&index.snapshot()));
        for _ in 0..80 {
            let mut forged = all.clone();
            for _ in 0..1 + random.below(3) {
                let i = random.below(forged.len());
                let part = &mut forged[i];
                if part.data.len() < 8 {
                    continue;
                }
                let size = [1, 4, 8][random.below(3)];
                for _ in 0..[1, 1, 2, 30][random.below(4)] {
                    let at = random.below(part.data.len() / size) * size;
                    let value = match random.below(4) {
                        0 => random.bits(),
                        1 => random.below(40) as u64,
                        2 => u64::MAX - random.below(3) as u64,
                        _ => u64::from(f32::NAN.to_bits()) << 32 | u64::from(f32::INFINITY.to_bits()),
                    };
                    part.data[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
                }
            }
            n_open += usize::from(use_them(&built(&forged)));
            n += 1;
        }
    }
    assert!(n_open > n / 5 && n_open < n * 9 / 10, "{n_open} of {n}");
}
