//! The index against a model: a map from id to vector.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::Error;
use nearest_core::files::{Files, RealFiles};
use nearest_core::ids::{Id, IdList};
use nearest_core::index::{Allowed, Index, Knobs, Queries, Snapshot, Spec, Structure, Zeros};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::work::{Silent, Work};

const DIM: usize = 5;

/// What an index should hold: vectors by the text of their id.
type Model = BTreeMap<String, Vec<f32>>;

fn spec(shadow: bool) -> Spec {
    Spec {
        dim: DIM,
        metric: Metric::Euclidean,
        encoding: Encoding::Float32,
        rerank: None,
        structure: Structure::Exact,
        shadow,
        seed: 0,
    }
}

fn index(shadow: bool) -> Arc<Index> {
    Arc::new(Index::new(spec(shadow)).unwrap())
}

fn add(index: &Arc<Index>, vectors: &[f32], ids: Option<IdList>, replace: bool) -> Result<IdList, Error> {
    let mut stage = index.stage(Zeros::Refuse, &Silent)?;
    stage.append(Values::Float32(vectors), ids, &Work::inline())?;
    stage.commit(replace, &Work::inline())
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn vectors(&mut self, n: usize) -> Vec<f32> {
        (0..n * DIM).map(|_| self.below(1000) as f32 / 7.0).collect()
    }
}

/// Every vector of the model is found, at distance 0 where it should be, and nothing else is.
fn check(snapshot: &Snapshot, model: &Model, text: bool, random: &mut Random) {
    assert_eq!(snapshot.len(), model.len());
    let as_text = |id: Id<'_>| match id {
        Id::Int(id) => id.to_string(),
        Id::Text(id) => id.to_owned(),
    };
    let ids = snapshot.ids();
    let mut seen: Vec<String> = ids.iter().map(as_text).collect();
    seen.sort();
    assert!(seen.iter().eq(model.keys()), "ids");
    for id in model.keys().take(50) {
        let there = match text {
            true => snapshot.contains(Id::Text(id)),
            false => snapshot.contains(Id::Int(id.parse().unwrap())),
        };
        assert!(there, "{id}");
    }
    let query = random.vectors(1);
    let mut expected: Vec<(f32, String)> = model
        .iter()
        .map(|(id, vector)| {
            let squared: f64 =
                vector.iter().zip(&query).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
            (squared.sqrt() as f32, id.clone())
        })
        .collect();
    let by_id = |a: &str, b: &str| match text {
        true => a.cmp(b),
        false => a.parse::<i64>().unwrap().cmp(&b.parse().unwrap()),
    };
    expected.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| by_id(&a.1, &b.1)));
    let found =
        snapshot.search(Queries::Numbers(&query), 10, None, Knobs::default(), &Work::inline()).unwrap();
    let rows = found.found[0].iter();
    let got: Vec<(f32, String)> =
        rows.map(|c| (c.distance, as_text(snapshot.ids_of([c.row].into_iter()).get(0)))).collect();
    expected.truncate(10);
    assert_eq!(got, expected);
    // A filter by mask and the same by ids.
    let mask: Vec<bool> = ids.iter().enumerate().map(|(i, _)| i % 3 == 0).collect();
    let allowed = match &ids {
        IdList::Int(ids) => IdList::Int(ids.iter().step_by(3).copied().collect()),
        IdList::Text(ids) => IdList::Text(ids.iter().step_by(3).cloned().collect()),
    };
    let by_mask = snapshot
        .search(Queries::Numbers(&query), 7, Some(Allowed::Mask(&mask)), Knobs::default(), &Work::inline())
        .unwrap();
    let by_ids = snapshot
        .search(Queries::Numbers(&query), 7, Some(Allowed::Ids(&allowed)), Knobs::default(), &Work::inline())
        .unwrap();
    assert_eq!(by_mask.found, by_ids.found);
    assert_eq!(by_mask.found[0].len(), allowed.len().min(7));
}

fn reopened(snapshot: &Snapshot, map: bool) -> Arc<Index> {
    let folder = std::env::temp_dir().join(format!(
        "nearest-index-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("x.nearest");
    snapshot.save(&RealFiles, &path).unwrap();
    let index = Arc::new(Index::open(&RealFiles, &path, map).unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
    index
}

fn play(seed: u64, n_steps: usize, largest: usize, text: bool, shadow: bool) {
    let mut random = Random(seed);
    let mut index = index(shadow);
    let mut model = Model::new();
    let mut old: Vec<(Arc<Snapshot>, Model)> = Vec::new();
    let mut next = 0i64;
    for step in 0..n_steps {
        let n = random.below(largest) + 1;
        let names = |ids: &[i64]| match text {
            false => IdList::Int(ids.to_vec()),
            true => IdList::Text(ids.iter().map(i64::to_string).collect()),
        };
        match random.below(8) {
            0..=2 => {
                let vectors = random.vectors(n);
                let ids: Vec<i64> = (next..next + n as i64).collect();
                let given = if text || random.below(2) == 0 { Some(names(&ids)) } else { None };
                let got = add(&index, &vectors, given, false).unwrap();
                assert_eq!(got, names(&ids));
                for (id, vector) in ids.iter().zip(vectors.chunks(DIM)) {
                    model.insert(id.to_string(), vector.to_vec());
                }
                next += n as i64;
            }
            3 | 4 if next > 0 => {
                // Some are there, some are not.
                let first = random.below(next as usize) as i64;
                let ids: Vec<i64> = (first..first + n as i64).collect();
                let vectors = random.vectors(n);
                add(&index, &vectors, Some(names(&ids)), true).unwrap();
                for (id, vector) in ids.iter().zip(vectors.chunks(DIM)) {
                    model.insert(id.to_string(), vector.to_vec());
                }
                next = next.max(first + n as i64);
            }
            5 | 6 if next > 0 => {
                let first = random.below(next as usize) as i64;
                let ids: Vec<i64> = (first..first + 2 * n as i64).collect();
                let gone = ids.iter().filter(|id| model.remove(&id.to_string()).is_some()).count();
                assert_eq!(index.remove(&names(&ids), &Work::inline()).unwrap(), gone);
            }
            7 if step % 5 == 0 => {
                let snapshot = index.snapshot();
                check(&reopened(&snapshot, true).snapshot(), &model, text, &mut random);
                index = reopened(&snapshot, false);
            }
            _ => {
                // A refused change changes nothing.
                let before = index.snapshot();
                let bad = vec![f32::NAN; DIM];
                assert!(add(&index, &bad, None, false).is_err());
                if let Some(id) = model.keys().next() {
                    let ids = names(&[next + 5, id.parse().unwrap()]);
                    assert!(add(&index, &random.vectors(2), Some(ids), false).is_err());
                    assert!(add(&index, &random.vectors(2), Some(names(&[next, next])), false).is_err());
                }
                assert_eq!(index.snapshot().ids(), before.ids());
            }
        }
        check(&index.snapshot(), &model, text, &mut random);
        if step % 7 == 0 {
            old.push((index.snapshot(), model.clone()));
        }
    }
    for (snapshot, model) in old {
        check(&snapshot, &model, text, &mut random);
    }
}

#[test]
fn it_behaves_as_the_model_int_ids() {
    for seed in 0..4 {
        play(seed, 60, 40, false, false);
    }
}

#[test]
fn it_behaves_as_the_model_text_ids() {
    for seed in 10..13 {
        play(seed, 60, 40, true, false);
    }
}

#[test]
fn it_behaves_as_the_model_with_shadow_and_compaction() {
    for seed in 20..23 {
        play(seed, 60, 3000, seed % 2 == 0, true);
    }
}

#[test]
fn steady_churn_stays_bounded() {
    for shadow in [false, true] {
        let index = index(shadow);
        let mut random = Random(1);
        add(&index, &random.vectors(3000), None, false).unwrap();
        for _ in 0..100 {
            let ids: Vec<i64> = (0..1500).map(|i| i * 2).collect();
            add(&index, &random.vectors(1500), Some(IdList::Int(ids)), true).unwrap();
        }
        let stats = index.snapshot().stats();
        assert_eq!(stats.n_vectors, 3000);
        assert!(stats.n_removed <= 3 * 3000, "{stats:?}");
        // A query against two moments of the same snapshot.
        let snapshot = index.snapshot();
        let query = random.vectors(1);
        let before =
            snapshot.search(Queries::Numbers(&query), 5, None, Knobs::default(), &Work::inline()).unwrap();
        index.remove(&snapshot.ids(), &Work::inline()).unwrap();
        let after =
            snapshot.search(Queries::Numbers(&query), 5, None, Knobs::default(), &Work::inline()).unwrap();
        assert_eq!(before.found, after.found);
        assert_eq!(index.snapshot().len(), 0);
    }
}

#[test]
fn more_than_one_chunk() {
    let index = index(true);
    let mut random = Random(3);
    let n = 150_000;
    let vectors = random.vectors(n);
    add(&index, &vectors[..100_000 * DIM], None, false).unwrap();
    add(&index, &vectors[100_000 * DIM..], None, false).unwrap();
    for index in [index.clone(), reopened(&index.snapshot(), true)] {
        let snapshot = index.snapshot();
        for row in [0, 65_535, 65_536, 99_999, 100_000, 149_999] {
            let ids = IdList::Int(vec![row as i64]);
            let query = &vectors[row * DIM..(row + 1) * DIM];
            let found = snapshot
                .search(
                    Queries::Numbers(query),
                    1,
                    Some(Allowed::Ids(&ids)),
                    Knobs::default(),
                    &Work::inline(),
                )
                .unwrap();
            assert_eq!((found.found[0][0].row as usize, found.found[0][0].distance), (row, 0.0));
            let others = snapshot.neighbors_of(&ids, 3, None, Knobs::default(), &Work::inline()).unwrap();
            assert!(others.found[0].iter().all(|c| c.row as usize != row));
        }
    }
    // Most of the first chunk goes; what is left moves, and ids still lead to their vectors.
    let gone: Vec<i64> = (0..60_000).collect();
    index.remove(&IdList::Int(gone), &Work::inline()).unwrap();
    let snapshot = index.snapshot();
    assert_eq!(snapshot.stats().n_removed, 0);
    let rows = snapshot.rows_of(&IdList::Int(vec![60_001, 149_999])).unwrap();
    let mut got = Vec::new();
    let take = |values: Values<'_>| {
        let Values::Float32(values) = values else { panic!("{values:?}") };
        got.extend_from_slice(values);
    };
    snapshot.values_of(&rows, take).unwrap();
    assert_eq!(got[..DIM], vectors[60_001 * DIM..60_002 * DIM]);
    assert_eq!(got[DIM..], vectors[149_999 * DIM..150_000 * DIM]);
    assert!(matches!(snapshot.rows_of(&IdList::Int(vec![5])), Err(Error::UnknownId(_))));
}

/// A chunk that goes free while the table of ids is made anew is given out once, not twice.
#[test]
fn chunks_go_free_again_and_again() {
    for text in [false, true] {
        let index = index(false);
        let mut random = Random(4);
        let mut model: BTreeMap<i64, Vec<f32>> = BTreeMap::new();
        let names = |ids: &[i64]| match text {
            false => IdList::Int(ids.to_vec()),
            true => IdList::Text(ids.iter().map(i64::to_string).collect()),
        };
        let mut next = 0;
        for (n_added, n_kept) in [(80_000, 40_000), (50_000, 500), (90_000, 20_000), (70_000, 100)] {
            let ids: Vec<i64> = (next..next + n_added).collect();
            let vectors = random.vectors(ids.len());
            add(&index, &vectors, Some(names(&ids)), false).unwrap();
            model.extend(ids.iter().copied().zip(vectors.chunks(DIM).map(<[f32]>::to_vec)));
            next += n_added;
            let gone: Vec<i64> = model.keys().copied().take(model.len() - n_kept).collect();
            gone.iter().for_each(|id| drop(model.remove(id)));
            assert_eq!(index.remove(&names(&gone), &Work::inline()).unwrap(), gone.len());
            let snapshot = index.snapshot();
            let ids: Vec<i64> = model.keys().copied().collect();
            let mut got = Vec::new();
            let take = |values: Values<'_>| {
                let Values::Float32(values) = values else { panic!("{values:?}") };
                got.extend_from_slice(values);
            };
            snapshot.values_of(&snapshot.rows_of(&names(&ids)).unwrap(), take).unwrap();
            assert!(got.chunks(DIM).eq(model.values()));
            assert_eq!(snapshot.ids().len(), model.len());
            assert!(
                !snapshot.contains(Id::Int(gone[0])) && !snapshot.contains(Id::Text(&gone[0].to_string()))
            );
        }
    }
}

#[test]
fn encodings_hold_what_they_hold() {
    for (encoding, good, bad) in [
        (Encoding::Float16, 2048.0, 70_000.0),
        (Encoding::BFloat16, 1e30, f32::MAX),
        (Encoding::Int8, -128.0, 128.0),
        (Encoding::UInt8, 255.0, 0.5),
    ] {
        let spec = Spec {
            dim: 1,
            metric: Metric::InnerProduct,
            encoding,
            rerank: None,
            structure: Structure::Exact,
            shadow: false,
            seed: 0,
        };
        let index = Arc::new(Index::new(spec).unwrap());
        let error = add(&index, &[good, bad], None, false).unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains(&encoding.name()), "{error}");
        add(&index, &[good], None, false).unwrap();
        let found = index
            .snapshot()
            .search(Queries::Numbers(&[2.0]), 1, None, Knobs::default(), &Work::inline())
            .unwrap();
        let held = if encoding == Encoding::BFloat16 { f32::from(half::bf16::from_f32(good)) } else { good };
        assert_eq!(found.found[0][0].distance, -2.0 * held);
    }
}

#[test]
fn specs_that_make_no_sense_are_refused() {
    let base = spec(false);
    for bad in [
        Spec { dim: 0, ..base },
        Spec { dim: 32_769, ..base },
        Spec { metric: Metric::Hamming, ..base },
        Spec { encoding: Encoding::Binary, ..base },
        Spec { encoding: Encoding::UInt8, shadow: true, ..base },
        Spec { metric: Metric::Manhattan, shadow: true, ..base },
    ] {
        assert!(Index::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn bits_beyond_dim_are_refused() {
    let spec = Spec {
        dim: 11,
        metric: Metric::Hamming,
        encoding: Encoding::Binary,
        rerank: None,
        structure: Structure::Exact,
        shadow: false,
        seed: 0,
    };
    let index = Arc::new(Index::new(spec).unwrap());
    let mut stage = index.stage(Zeros::Refuse, &Silent).unwrap();
    stage.append(Values::UInt8(&[0xff, 0xe0]), None, &Work::inline()).unwrap();
    let error = stage.append(Values::UInt8(&[0, 0, 0, 0x10]), None, &Work::inline()).unwrap_err().to_string();
    assert!(error.contains("row 2"), "{error}");
    stage.commit(false, &Work::inline()).unwrap();
    let found =
        index.snapshot().search(Queries::Bits(&[0, 0]), 1, None, Knobs::default(), &Work::inline()).unwrap();
    assert_eq!(found.found[0][0].distance, 11.0);
}

#[test]
fn a_mapped_index_says_how_to_change_it() {
    let index = index(false);
    add(&index, &[1.0; DIM], None, false).unwrap();
    let mapped = reopened(&index.snapshot(), true);
    let error = add(&mapped, &[2.0; DIM], None, false).unwrap_err();
    assert!(matches!(&error, Error::ReadOnly(text) if text.contains("memory_map=False")));
}

#[test]
fn readers_see_whole_versions_while_a_writer_works() {
    let index = index(true);
    // Every version holds pairs of equal vectors; a reader must never see half a pair.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (index, stop) = (&index, &stop);
        let readers: Vec<_> = (0..3u64)
            .map(|seed| {
                scope.spawn(move || {
                    let mut random = Random(seed);
                    let mut n_searches = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let snapshot = index.snapshot();
                        assert_eq!(snapshot.len() % 2, 0);
                        let query = random.vectors(1);
                        let found = snapshot
                            .search(Queries::Numbers(&query), 2, None, Knobs::default(), &Work::inline())
                            .unwrap();
                        if !snapshot.is_empty() {
                            let pair = &found.found[0];
                            assert_eq!(pair[0].distance, pair[1].distance);
                            let IdList::Int(ids) = snapshot.ids_of(pair.iter().map(|c| c.row)) else {
                                panic!()
                            };
                            assert_eq!(ids[0] + 1, ids[1]);
                        }
                        n_searches += 1;
                    }
                    n_searches
                })
            })
            .collect();
        let mut random = Random(77);
        for round in 0..300 {
            let first = random.below(2000) as i64 * 2;
            if round % 3 == 2 {
                index.remove(&IdList::Int((first..first + 400).collect()), &Work::inline()).unwrap();
                continue;
            }
            let mut vectors = Vec::new();
            for _ in 0..100 {
                let vector = random.vectors(1);
                vectors.extend_from_slice(&vector);
                vectors.extend_from_slice(&vector);
            }
            add(index, &vectors, Some(IdList::Int((first..first + 200).collect())), true).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}

#[test]
fn damaged_files_are_errors_or_work() {
    let index = index(true);
    let mut random = Random(9);
    let texts: Vec<String> = (0..1100).map(|i| format!("text {i}")).collect();
    add(&index, &random.vectors(1100), Some(IdList::Text(texts)), false).unwrap();
    let mut bytes = Vec::new();
    index.snapshot().write(&mut bytes).unwrap();
    let whole = Index::from_bytes(Arc::new(Bytes::copied(&bytes).unwrap())).unwrap();
    assert_eq!(whole.snapshot().ids(), index.snapshot().ids());
    let query = random.vectors(3);
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        // Mostly in the first and last bytes, where structure is, without repairing checksums; and in the middle.
        let at = match random.below(3) {
            0 => random.below(256),
            1 => bytes.len() - 1 - random.below(1500),
            _ => random.below(bytes.len()),
        };
        damaged[at] ^= 1 << random.below(8);
        match Index::from_bytes(Arc::new(Bytes::copied(&damaged).unwrap())) {
            Err(Error::Format(_)) => {}
            Err(other) => panic!("{other}"),
            Ok(index) => {
                let snapshot = index.snapshot();
                let found = snapshot
                    .search(Queries::Numbers(&query), 5, None, Knobs::default(), &Work::inline())
                    .unwrap();
                snapshot.ids_of(found.found[0].iter().map(|c| c.row));
                snapshot.contains(Id::Text("text 7"));
            }
        }
    }
}

#[test]
fn missing_files_are_io_errors() {
    let files: &dyn Files = &RealFiles;
    assert!(matches!(Index::open(files, Path::new("/nonexistent/x"), true), Err(Error::Io { .. })));
    assert!(matches!(Index::open(files, &std::env::temp_dir(), true), Err(Error::Io { .. })));
}

#[test]
fn a_change_may_come_in_blocks_and_after_one_that_was_given_up() {
    let index = index(false);
    let mut random = Random(5);
    let mut first = 0i64;
    for n in [10, 300, 5, 700] {
        // Given up, it leaves larger chunks behind.
        let mut stage = index.stage(Zeros::Refuse, &Silent).unwrap();
        stage.append(Values::Float32(&random.vectors(n + 100)), None, &Work::inline()).unwrap();
        drop(stage);
        let mut stage = index.stage(Zeros::Refuse, &Silent).unwrap();
        let vectors = random.vectors(3 * n);
        for part in vectors.chunks(n * DIM) {
            let ids = (first..first + n as i64).map(|id| 7 * id).collect();
            stage.append(Values::Float32(part), Some(IdList::Int(ids)), &Work::inline()).unwrap();
            first += n as i64;
        }
        stage.commit(false, &Work::inline()).unwrap();
        let snapshot = index.snapshot();
        let ids: Vec<i64> = (first - 3 * n as i64..first).map(|id| 7 * id).collect();
        let mut got = Vec::new();
        let take = |values: Values<'_>| {
            let Values::Float32(values) = values else { panic!("{values:?}") };
            got.extend_from_slice(values);
        };
        snapshot.values_of(&snapshot.rows_of(&IdList::Int(ids)).unwrap(), take).unwrap();
        assert_eq!(got, vectors);
    }
}
