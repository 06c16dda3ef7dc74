//! Lists and short codes against exact search, brute force in float64, and a map.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use half::{bf16, f16};
use nearest_core::candidates::Candidate;
use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::Error;
use nearest_core::file::FileView;
use nearest_core::files::RealFiles;
use nearest_core::ids::IdList;
use nearest_core::index::{Allowed, Index, Knobs, Queries, Snapshot, Spec, Structure, Zeros};
use nearest_core::memory::{Allocator, Bytes, SystemAllocator};
use nearest_core::metric::Metric;
use nearest_core::random::Random;
use nearest_core::work::{Caller, Silent, Work};
use nearest_kernels::Kernels;
use proptest::prelude::*;

mod common;
use common::*;

fn spec(dim: usize, metric: Metric, encoding: Encoding, n_lists: u32) -> Spec {
    let structure = Structure::Lists { n_lists, spill: 40 };
    Spec { dim, metric, encoding, rerank: None, structure, shadow: false, seed: 3 }
}

// --- laws ---

/// Vectors as they are kept: all lists are an exact search, to the bit, and less effort never gives what is not there.
#[test]
fn all_lists_are_an_exact_search() {
    let mut random = Random::new(1, 1);
    for (i, &data) in DATA.iter().cycle().take(60).enumerate() {
        let encoding = RAW[(i + i / 10) % 5];
        let metric = METRICS[i % 5];
        let dim = [1, 2, 3, 7, 16, 33, 64, 100][random.below(8)];
        let n = [0, 1, 2, 31, 32, 33, 257, 700][random.below(8)];
        let n_lists = [0, 1, 2, 16, 40][random.below(5)];
        let values = vectors(data, n, dim, encoding, i as u64);
        let queries = queries(data, 7, dim, encoding, 100 + i as u64);
        let spec = spec(dim, metric, encoding, n_lists);
        let (listed, plain) = (filled(spec, &values), filled(exact(spec), &values));
        let (listed, plain) = (listed.snapshot(), plain.snapshot());
        assert_eq!(listed.is_trained(), n > 0);
        let all: Vec<BTreeMap<u32, f32>> = search(&plain, &queries, n + 1, Knobs::default())
            .iter()
            .map(|list| list.iter().map(|candidate| (candidate.row, candidate.distance)).collect())
            .collect();
        for k in [1, 10, n + 3] {
            let truth = search(&plain, &queries, k, Knobs::default());
            check_exact(metric, dim, &values, &queries, k, &truth);
            let found = search(&listed, &queries, k, ALL);
            assert_eq!(answers(&listed, &found), answers(&plain, &truth), "{data:?} {spec:?} {n} {k}");
            // What the lists themselves find, with everything compared again.
            for effort in [1, 2, 39] {
                let knobs = Knobs { effort: Some(effort), rerank_k: Some(n.max(k)) };
                let found = search(&listed, &queries, k, knobs);
                for ((found, truth), all) in found.iter().zip(&truth).zip(&all) {
                    check_order(found);
                    assert_eq!(found.len(), truth.len(), "{data:?} {spec:?} {n} {k} {effort}");
                    for (candidate, nearest) in found.iter().zip(truth) {
                        assert!(candidate.distance >= nearest.distance);
                        assert_eq!(candidate.distance, all[&candidate.row], "{candidate:?}");
                    }
                }
            }
        }
        check_file(&listed);
    }
}

/// One list of all rows, looked into as lists are: with everything compared again it is an exact search.
#[test]
fn lists_find_what_exact_search_finds() {
    for (i, &metric) in METRICS.iter().cycle().take(25).enumerate() {
        let encoding = RAW[i / 5];
        let dim = [5, 24, 48, 96, 129][i % 5];
        let n = 3000;
        let values = vectors(Data::Groups, n, dim, encoding, 1);
        let queries = queries(Data::Groups, 40, dim, encoding, 2);
        let spec = spec(dim, metric, encoding, 32);
        let (listed, plain) = (filled(spec, &values).snapshot(), filled(exact(spec), &values).snapshot());
        let truth = search(&plain, &queries, 10, Knobs::default());
        // All lists but one, and as many estimates compared again as lists choose by themselves.
        let found = search(&listed, &queries, 10, Knobs { effort: Some(31), rerank_k: None });
        let share = recall(&found, &truth);
        assert!(share > 0.995, "{encoding:?} {metric:?}: {share}");
        let few = recall(&search(&listed, &queries, 10, Knobs { effort: Some(8), rerank_k: None }), &truth);
        assert!(few > 0.9, "{encoding:?} {metric:?}: {few}");
    }
}

/// Integers are kept in the lists alone, and yet everything is as if they lay by row.
#[test]
fn integers_are_kept_once() {
    for (i, metric) in METRICS.into_iter().enumerate() {
        for encoding in [Encoding::UInt8, Encoding::Int8] {
            let (dim, n) = ([5, 8, 33][i % 3], 2000);
            let data = [Data::Groups, Data::Ties][i % 2];
            let spec = spec(dim, metric, encoding, 12);
            let mut values = vectors(data, n, dim, encoding, 15);
            let (listed, plain) = (filled(spec, &values), filled(exact(spec), &values));
            // What is replaced goes to the end: rows are not in the order of their ids.
            let ids: Vec<i64> = (0..n as i64).step_by(7).collect();
            let other = vectors(data, ids.len(), dim, encoding, 16);
            for index in [&listed, &plain] {
                change(index, &other, Some(IdList::Int(ids.clone())), true).unwrap();
                remove(index, (0..n as i64).step_by(31));
            }
            for (&id, x) in ids.iter().zip(other.chunks_exact(dim)) {
                values[id as usize * dim..][..dim].copy_from_slice(x);
            }
            let queries = queries(data, 9, dim, encoding, 17);
            let plain = plain.snapshot();
            let IdList::Int(ids) = plain.ids() else { panic!("numbers") };
            for listed in [listed.snapshot(), reopened(&listed.snapshot()).snapshot()] {
                let rows = listed.rows_of(&plain.ids()).unwrap();
                let expected: Vec<f32> =
                    ids.iter().flat_map(|&id| &values[id as usize * dim..][..dim]).copied().collect();
                assert!(values_of(&listed, &rows) == expected, "{spec:?}");
                assert_eq!(listed.values_encoding(), encoding);
                let stats = listed.stats();
                assert!(stats.vectors_bytes <= 6 * (stats.n_vectors + stats.n_removed) + 4096, "{stats:?}");
                let some = IdList::Int(ids.iter().copied().filter(|id| id % 70 == 3).collect());
                let nearest = search(&plain, &queries, 30, Knobs::default());
                for allowed in [None, Some(Allowed::Ids(&some))] {
                    // Few are looked at whatever the effort.
                    let efforts = if allowed.is_some() { vec![Knobs::default(), ALL] } else { vec![ALL] };
                    for (knobs, k) in efforts.into_iter().flat_map(|knobs| [1, 10, n].map(|k| (knobs, k))) {
                        let run = |snapshot: &Snapshot, knobs| {
                            let found = snapshot.search(
                                Queries::Numbers(&queries),
                                k,
                                allowed,
                                knobs,
                                &Work::inline(),
                            );
                            answers(snapshot, &found.unwrap().found)
                        };
                        assert_eq!(run(&listed, knobs), run(&plain, Knobs::default()), "{spec:?} {k}");
                        let near = |snapshot: &Snapshot, knobs| {
                            let found = snapshot.neighbors_of(&some, k, allowed, knobs, &Work::inline());
                            answers(snapshot, &found.unwrap().found)
                        };
                        assert_eq!(near(&listed, knobs), near(&plain, Knobs::default()), "{spec:?} {k}");
                        let within = |snapshot: &Snapshot, knobs| {
                            let radius = nearest[0][29].distance;
                            let queries = Queries::Numbers(&queries);
                            let found =
                                snapshot.search_radius(queries, radius, allowed, knobs, &Work::inline());
                            answers(snapshot, &found.unwrap().found)
                        };
                        assert_eq!(within(&listed, knobs), within(&plain, Knobs::default()), "{spec:?}");
                    }
                }
                // Of the other searches every distance is the right one.
                let mask = vec![true; listed.len()];
                let knobs = Knobs { effort: Some(3), rerank_k: None };
                let queries = Queries::Numbers(&queries);
                let found =
                    listed.search(queries, 10, Some(Allowed::Mask(&mask)), knobs, &Work::inline()).unwrap();
                let all = plain.search(queries, n, None, Knobs::default(), &Work::inline()).unwrap();
                for (found, all) in answers(&listed, &found.found).iter().zip(answers(&plain, &all.found)) {
                    assert!(found.len() == 10 && found.iter().all(|candidate| all.contains(candidate)));
                }
            }
        }
    }
}

/// More than is read out of the lists at once.
#[test]
fn many_integers_are_searched_in_parts() {
    let (dim, n) = (600, 30_000);
    let spec = spec(dim, Metric::Euclidean, Encoding::UInt8, 24);
    let values = vectors(Data::Ties, n, dim, Encoding::UInt8, 18);
    let index = index(spec);
    index.train(n, Values::Float32(&values[..2000 * dim]), &Work::inline()).unwrap();
    add(&index, &values);
    let plain = filled(exact(spec), &values).snapshot();
    let queries = queries(Data::Ties, 5, dim, Encoding::UInt8, 19);
    for n_threads in [1, 3] {
        let run = |snapshot: &Snapshot, knobs| {
            let work = Work::new(Some(n_threads), &Silent);
            snapshot.search(Queries::Numbers(&queries), 20, None, knobs, &work).unwrap().found
        };
        assert_eq!(run(&index.snapshot(), ALL), run(&plain, Knobs::default()));
    }
}

/// Of rows that are few all codes are compared: the nearest by what `values_of` gives are found.
#[test]
fn few_codes_are_all_compared() {
    let (dim, n) = (24, 3000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 25);
    let queries = vectors(Data::Groups, 6, dim, Encoding::Float32, 26);
    for metric in METRICS {
        for (encoding, rerank) in coded(dim) {
            let index = filled(Spec { rerank, ..spec(dim, metric, encoding, 16) }, &values);
            remove(&index, (0..n as i64).step_by(9));
            let snapshot = index.snapshot();
            let ids = IdList::Int((0..n as i64).filter(|id| id % 90 == 7).collect());
            let rows = snapshot.rows_of(&ids).unwrap();
            let kept = values_of(&snapshot, &rows);
            for knobs in [Knobs::default(), Knobs { effort: Some(1), rerank_k: Some(10) }] {
                let allowed = Some(Allowed::Ids(&ids));
                let found =
                    snapshot.search(Queries::Numbers(&queries), 10, allowed, knobs, &Work::inline()).unwrap();
                for (query, list) in queries.chunks_exact(dim).zip(&found.found) {
                    check_order(list);
                    let mut truth: Vec<f64> =
                        kept.chunks_exact(dim).map(|x| distance(metric, query, x)).collect();
                    truth.sort_by(f64::total_cmp);
                    assert_eq!(list.len(), 10);
                    for (candidate, expected) in list.iter().zip(truth) {
                        // Codes are compared in the frame, and rounded on the way.
                        let off = (f64::from(candidate.distance) - expected).abs();
                        assert!(off <= 2e-3 * (1.0 + expected.abs()), "{encoding:?} {rerank:?}: {off}");
                    }
                }
                let near = snapshot.neighbors_of(&ids, 3, allowed, knobs, &Work::inline()).unwrap().found;
                for (row, list) in rows.iter().zip(near) {
                    assert!(list.len() == 3 && list.iter().all(|c| c.row != *row && rows.contains(&c.row)));
                }
            }
        }
    }
}

/// Codes alone: what is reported is the distance of what `values_of` gives, and that is near the vectors.
#[test]
fn distances_are_those_of_the_codes() {
    for (i, &metric) in METRICS.iter().cycle().take(10).enumerate() {
        let dim = [8, 24, 65, 100][i % 4];
        let values = vectors(Data::Groups, 1500, dim, Encoding::Float32, 5);
        let queries = vectors(Data::Groups, 20, dim, Encoding::Float32, 6);
        for (encoding, rerank) in coded(dim) {
            let structure = Structure::Lists { n_lists: 16, spill: 0 };
            let spec = Spec { rerank, structure, ..spec(dim, metric, encoding, 16) };
            let snapshot = filled(spec, &values).snapshot();
            let rows: Vec<u32> = (0..1500).collect();
            let kept = values_of(&snapshot, &rows);
            let found = search(&snapshot, &queries, 10, ALL);
            for (query, list) in queries.chunks_exact(dim).zip(&found) {
                check_order(list);
                assert_eq!(list.len(), 10);
                for candidate in list {
                    let x = &kept[candidate.row as usize * dim..][..dim];
                    let expected = distance(metric, query, x);
                    // Codes are compared in the frame: turned and moved, and rounded on the way.
                    let size = query.iter().chain(x).map(|v| f64::from(*v).powi(2)).sum::<f64>();
                    let allowed = match metric {
                        Metric::Euclidean => 4e-6 * size.sqrt(),
                        Metric::Angular => 2e-3,
                        Metric::Cosine => 4e-6,
                        _ => 8e-6 * size,
                    };
                    let off = (f64::from(candidate.distance) - expected).abs();
                    assert!(off <= allowed, "{spec:?}: {} for {expected}", candidate.distance);
                }
            }
        }
    }
}

/// `get` of short codes gives the vectors up to what the coder loses.
#[test]
fn vectors_are_read_back_as_well_as_codes_say() {
    let dim = 64;
    let values = vectors(Data::Groups, 2000, dim, Encoding::Float32, 8);
    let rows: Vec<u32> = (0..2000).collect();
    let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    // Relative to what centroids leave, in the root mean square; codes of whole rows to what the centre leaves.
    let limits = [
        (scalar8(), None, 0.01),
        (scalar4(), None, 0.12),
        (rabitq(1), None, 1.0),
        (rabitq(4), None, 0.12),
        (rabitq(8), None, 0.01),
        (scalar4(), Some(scalar8()), 0.04),
        (scalar4(), Some(Encoding::Float16), 0.001),
        (scalar4(), Some(Encoding::BFloat16), 0.03),
        (rabitq(1), Some(Encoding::Float32), 0.0),
    ];
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::InnerProduct] {
        for (encoding, rerank, limit) in limits {
            let spec = Spec { rerank, ..spec(dim, metric, encoding, 12) };
            let snapshot = filled(spec, &values).snapshot();
            let is_raw = rerank.is_some_and(Encoding::is_raw);
            let got = values_of(&snapshot, &rows);
            let (mut lost, mut spread) = (0.0, 0.0);
            for (x, got) in values.chunks_exact(dim).zip(got.chunks_exact(dim)) {
                // Where only directions count, codes are of normalised vectors.
                let scale = if metric.is_angular() && !is_raw { norm(x) } else { 1.0 };
                let off: Vec<f32> = x.iter().zip(got).map(|(x, got)| x - got * scale as f32).collect();
                lost += norm(&off).powi(2);
                spread += dim as f64;
            }
            let share = (lost / spread).sqrt();
            assert!(share <= limit, "{spec:?}: {share}");
        }
    }
}

/// A batch gives what one by one gives, to the bit, for any number of threads and any split.
#[test]
fn a_batch_is_one_by_one() {
    let dim = 20;
    for (i, &metric) in METRICS.iter().enumerate() {
        let mut kinds: Vec<_> = RAW.iter().map(|&encoding| (encoding, None)).collect();
        kinds.extend(coded(dim));
        for (j, &(encoding, rerank)) in kinds.iter().enumerate() {
            // Every metric and every kind, two by two.
            if (i + j) % 5 > 1 {
                continue;
            }
            let data = [Data::Groups, Data::Ties, Data::Copies, Data::Lengths][(i + j / 5) % 4];
            let values = vectors(data, 2500, dim, encoding, 3);
            let n = 230;
            // Some are where the vectors are, some are not: there the terms of scores are large and nearly cancel.
            let mut queries = queries(data, n - 100, dim, encoding, 4);
            queries.extend(self::queries(data, 100, dim, Encoding::Float32, 4));
            let spec = Spec { rerank, ..spec(dim, metric, encoding, 24) };
            let index = filled(spec, &values);
            remove(&index, (0..2500).step_by(11));
            let snapshot = index.snapshot();
            let mask: Vec<bool> = (0..snapshot.len()).map(|i| i % 9 < 2).collect();
            let knobs = [
                Knobs::default(),
                Knobs { effort: Some(1), rerank_k: Some(30) },
                Knobs { effort: Some(11), rerank_k: None },
            ];
            for knobs in knobs {
                for allowed in [None, Some(Allowed::Mask(&mask))] {
                    let run = |part: &[f32], work: &Work<'_>| {
                        snapshot.search(Queries::Numbers(part), 10, allowed, knobs, work).unwrap().found
                    };
                    let one_by_one: Vec<_> =
                        queries.chunks_exact(dim).flat_map(|q| run(q, &Work::inline())).collect();
                    assert_eq!(run(&queries, &Work::inline()), one_by_one, "{spec:?} {data:?} {knobs:?}");
                    for n_threads in [2, 3] {
                        let work = Work::new(Some(n_threads), &Silent);
                        assert_eq!(run(&queries, &work), one_by_one, "{n_threads} threads");
                    }
                    let parts: Vec<_> =
                        queries.chunks(97 * dim).flat_map(|part| run(part, &Work::inline())).collect();
                    assert_eq!(parts, one_by_one, "{spec:?} {data:?} {knobs:?}");
                    // All within a distance, likewise.
                    let radius = one_by_one[0].last().map_or(1.0, |last| last.distance);
                    let within = |part: &[f32]| {
                        snapshot
                            .search_radius(Queries::Numbers(part), radius, allowed, knobs, &Work::inline())
                            .unwrap()
                            .found
                    };
                    let each: Vec<_> = queries[..20 * dim].chunks_exact(dim).flat_map(within).collect();
                    assert_eq!(within(&queries)[..20], each);
                }
            }
        }
    }
}

/// Queries of large batches are sorted into blocks: each gets its own answer all the same.
#[test]
fn a_large_batch_is_many_small_ones() {
    let (dim, n, n_queries) = (5, 3000, 17_000);
    for (metric, encoding) in [(Metric::Euclidean, scalar4()), (Metric::InnerProduct, Encoding::UInt8)] {
        let values = vectors(Data::Groups, n, dim, encoding, 3);
        let queries = queries(Data::Groups, n_queries, dim, encoding, 4);
        let snapshot = filled(spec(dim, metric, encoding, 40), &values).snapshot();
        let knobs = Knobs { effort: Some(3), rerank_k: None };
        let run = |part: &[f32], work: &Work<'_>| {
            snapshot.search(Queries::Numbers(part), 4, None, knobs, work).unwrap().found
        };
        let small: Vec<_> = queries.chunks(500 * dim).flat_map(|part| run(part, &Work::inline())).collect();
        // Of members: they are not their own neighbours.
        let ids = |range: Range<usize>| IdList::Int(range.map(|id| id as i64).collect());
        let others =
            |range, work: &Work<'_>| snapshot.neighbors_of(&ids(range), 4, None, knobs, work).unwrap().found;
        let of_few: Vec<_> =
            (0..n).step_by(600).flat_map(|first| others(first..first + 600, &Work::inline())).collect();
        for n_threads in [1, 2, 3] {
            let work = Work::new(Some(n_threads), &Silent);
            assert_eq!(run(&queries, &work), small, "{metric:?}, {n_threads} threads");
            assert_eq!(others(0..n, &work), of_few, "{metric:?}, {n_threads} threads");
        }
        assert!(of_few.iter().zip(0..).all(|(found, row)| found.iter().all(|one| one.row != row)));
    }
}

/// Exactly min(k, matches), whatever a filter leaves, and nothing that it does not.
#[test]
fn filters_return_all_that_match() {
    let (dim, n) = (12, 2600);
    for (i, &metric) in METRICS.iter().enumerate() {
        let mut kinds: Vec<_> = RAW.iter().map(|&encoding| (encoding, None)).collect();
        kinds.extend(coded(dim));
        for (j, &(encoding, rerank)) in kinds.iter().enumerate() {
            if (i + j) % 5 > 2 {
                continue;
            }
            let data = [Data::Groups, Data::Copies, Data::Equal][(i + j) % 3];
            let values = vectors(data, n, dim, encoding, 11);
            let structure = Structure::Lists { n_lists: 20, spill: [0, 40, 100][j % 3] };
            let index = filled(Spec { rerank, structure, ..spec(dim, metric, encoding, 20) }, &values);
            remove(&index, (0..n as i64).filter(|id| id % 10 == 3));
            let snapshot = index.snapshot();
            let IdList::Int(ids) = snapshot.ids() else { panic!("numbers") };
            let queries = queries(data, 6, dim, encoding, 12);
            // Rows in the order of their distance from the first query: filters along it and against it.
            let order = search(&snapshot, &queries[..dim], n, ALL).remove(0);
            assert_eq!(order.len(), ids.len());
            let mut place = vec![0; n];
            order.iter().enumerate().for_each(|(at, candidate)| place[candidate.row as usize] = at);
            let mut random = Random::new(j as u64, 5);
            let mut shuffled = ids.clone();
            (1..ids.len()).for_each(|at| shuffled.swap(at, random.below(at + 1)));
            for n_matches in [0, 1, 2, 26, 260, 1300, ids.len()] {
                let mut along = ids.clone();
                along.sort_by_key(|&id| place[id as usize]);
                let against: Vec<i64> = along.iter().rev().copied().collect();
                for some in [&shuffled, &along, &against] {
                    let wanted: BTreeSet<i64> = some[..n_matches].iter().copied().collect();
                    let mut list: Vec<i64> = wanted.iter().copied().collect();
                    // Removed ones and strangers are no error.
                    list.extend([3, 13, 1 << 40]);
                    let list = IdList::Int(list);
                    let mask: Vec<bool> = ids.iter().map(|id| wanted.contains(id)).collect();
                    for k in [1, 10, 300, n + 50] {
                        for knobs in [Knobs::default(), Knobs { effort: Some(1), rerank_k: None }, ALL] {
                            let run = |allowed| {
                                snapshot
                                    .search(
                                        Queries::Numbers(&queries),
                                        k,
                                        Some(allowed),
                                        knobs,
                                        &Work::inline(),
                                    )
                                    .unwrap()
                                    .found
                            };
                            let found = run(Allowed::Ids(&list));
                            for rows in &found {
                                check_order(rows);
                                let n_found = k.min(n_matches);
                                assert_eq!(
                                    rows.len(),
                                    n_found,
                                    "{encoding:?} {rerank:?} {metric:?} {knobs:?}"
                                );
                                assert!(rows.iter().all(|c| wanted.contains(&i64::from(c.row))));
                            }
                            if k == 10 {
                                assert_eq!(run(Allowed::Mask(&mask)), found);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// With the effort that finds 0.955 of the true neighbours without a filter, as many are found with one: at random, along or
/// across the groups, or against the queries, keeping what is farthest from all of them.
#[test]
fn filters_keep_the_recall() {
    let (dim, n) = (24, 20_000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 21);
    let queries = vectors(Data::Groups, 100, dim, Encoding::Float32, 22);
    let random: Vec<f32> = (0..n).map(|i| (i * 7919 % n) as f32).collect();
    let along: Vec<f32> = values.chunks_exact(dim).map(|x| x[0] + x[1]).collect();
    let across: Vec<f32> = along.iter().map(|x| -x).collect();
    let squared = |x: &[f32], q: &[f32]| x.iter().zip(q).map(|(x, q)| (x - q) * (x - q)).sum::<f32>();
    let nearness = |x: &[f32]| queries.chunks_exact(dim).map(|q| -squared(x, q)).fold(f32::MIN, f32::max);
    let against: Vec<f32> = values.chunks_exact(dim).map(nearness).collect();
    for (encoding, rerank) in [(Encoding::Float32, None), (scalar4(), Some(Encoding::Float16))] {
        let spec = Spec { rerank, ..spec(dim, Metric::Euclidean, encoding, 128) };
        let whole = Spec { encoding: Encoding::Float32, rerank: None, ..exact(spec) };
        let (listed, plain) = (filled(spec, &values).snapshot(), filled(whole, &values).snapshot());
        let truth = search(&plain, &queries, 10, Knobs::default());
        // Many are compared again: it is the lists that are tried, not the codes.
        let knobs = |effort| Knobs { effort: Some(effort), rerank_k: Some(100) };
        let free = |effort| recall(&search(&listed, &queries, 10, knobs(effort)), &truth);
        let effort = (1..128).find(|&effort| free(effort) >= 0.955).unwrap();
        assert!(effort < 40, "{encoding:?}: {effort}");
        for share in [0.5, 0.1, 0.03] {
            for (name, by) in
                [("random", &random), ("along", &along), ("across", &across), ("against", &against)]
            {
                let mut sorted = by.clone();
                sorted.sort_by(f32::total_cmp);
                let limit = sorted[(n as f64 * share) as usize];
                let mask: Vec<bool> = by.iter().map(|&x| x < limit).collect();
                let run = |snapshot: &Snapshot, queries: &[f32], knobs| {
                    let allowed = Some(Allowed::Mask(&mask));
                    snapshot
                        .search(Queries::Numbers(queries), 10, allowed, knobs, &Work::inline())
                        .unwrap()
                        .found
                };
                let found = run(&listed, &queries, knobs(effort));
                let share_found = recall(&found, &run(&plain, &queries, Knobs::default()));
                assert!(share_found >= 0.955, "{encoding:?} {name} {share}: {share_found}");
                for i in (0..100).step_by(9) {
                    assert_eq!(run(&listed, &queries[i * dim..][..dim], knobs(effort))[0], found[i]);
                }
            }
        }
    }
}

/// A filter that keeps nearly all makes a search look no farther.
#[test]
fn filters_that_hardly_matter_change_nothing() {
    let (dim, n) = (16, 6000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 23);
    let queries = vectors(Data::Groups, 40, dim, Encoding::Float32, 24);
    let snapshot = filled(spec(dim, Metric::Euclidean, Encoding::Float32, 48), &values).snapshot();
    let knobs = Knobs { effort: Some(4), rerank_k: None };
    let free = search(&snapshot, &queries, 40, knobs);
    let passes = |row: usize| row % 20 != 7;
    let mask: Vec<bool> = (0..n).map(passes).collect();
    let allowed = Some(Allowed::Mask(&mask));
    let found =
        snapshot.search(Queries::Numbers(&queries), 20, allowed, knobs, &Work::inline()).unwrap().found;
    for (found, mut free) in found.into_iter().zip(free) {
        free.retain(|candidate| passes(candidate.row as usize));
        assert_eq!(found, free[..20]);
    }
}

#[test]
fn all_within_a_distance_are_found() {
    for (i, &metric) in METRICS.iter().enumerate() {
        for &encoding in &RAW {
            let (dim, n) = (9, 1200);
            let data = [Data::Groups, Data::Ties, Data::Copies][i % 3];
            let values = vectors(data, n, dim, encoding, 31);
            let queries = queries(data, 5, dim, encoding, 32);
            let spec = spec(dim, metric, encoding, 12);
            let (listed, plain) = (filled(spec, &values).snapshot(), filled(exact(spec), &values).snapshot());
            let nearest = search(&plain, &queries, 40, Knobs::default());
            let mut radii: Vec<f32> =
                nearest.iter().flat_map(|list| [list[0].distance, list[39].distance]).collect();
            radii.extend([-1e9, -1.0, 0.0, f32::INFINITY, f32::NEG_INFINITY]);
            for radius in radii {
                let run = |snapshot: &Snapshot, knobs| {
                    let queries = Queries::Numbers(&queries);
                    snapshot.search_radius(queries, radius, None, knobs, &Work::inline()).unwrap().found
                };
                let (all, truth) = (run(&listed, ALL), run(&plain, Knobs::default()));
                assert_eq!(all, truth, "{metric:?} {encoding:?} {radius}");
                for knobs in [Knobs::default(), Knobs { effort: Some(11), rerank_k: None }] {
                    for (found, truth) in run(&listed, knobs).iter().zip(&truth) {
                        check_order(found);
                        assert!(found.iter().all(|candidate| truth.contains(candidate)));
                    }
                }
            }
            let error =
                listed.search_radius(Queries::Numbers(&queries), f32::NAN, None, ALL, &Work::inline());
            assert!(matches!(error, Err(Error::Argument(_))));
        }
    }
}

/// Codes say how far they may be off: what lies well within a distance is found among the lists looked at.
#[test]
fn all_within_a_distance_of_codes() {
    let (dim, n) = (32, 3000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 41);
    let queries = vectors(Data::Groups, 30, dim, Encoding::Float32, 42);
    for metric in METRICS {
        for (encoding, rerank) in coded(dim) {
            let snapshot = filled(Spec { rerank, ..spec(dim, metric, encoding, 16) }, &values).snapshot();
            let nearest = search(&snapshot, &queries, 20, ALL);
            let mut n_missed = 0;
            for (query, nearest) in queries.chunks_exact(dim).zip(&nearest) {
                let radius = nearest[19].distance;
                let found = snapshot
                    .search_radius(Queries::Numbers(query), radius, None, ALL, &Work::inline())
                    .unwrap()
                    .found
                    .remove(0);
                check_order(&found);
                assert!(found.iter().all(|candidate| candidate.distance <= radius));
                n_missed += nearest.iter().filter(|candidate| !found.contains(candidate)).count();
            }
            // Of 600; «usually» is what the codes promise.
            assert!(n_missed <= 6, "{encoding:?} {rerank:?} {metric:?}: {n_missed}");
        }
    }
}

#[test]
fn a_vector_is_no_neighbour_of_itself() {
    let (dim, n) = (10, 1500);
    for (i, metric) in METRICS.into_iter().enumerate() {
        let mut kinds: Vec<_> = RAW.iter().map(|&encoding| (encoding, None)).collect();
        kinds.extend(coded(dim));
        for (j, (encoding, rerank)) in kinds.into_iter().enumerate() {
            if (i + j) % 5 > 2 {
                continue;
            }
            let data = if i % 2 == 0 { Data::Copies } else { Data::Groups };
            let values = vectors(data, n, dim, encoding, 51);
            let index = filled(Spec { rerank, ..spec(dim, metric, encoding, 12) }, &values);
            remove(&index, [0, 7, 8]);
            let snapshot = index.snapshot();
            let ids: Vec<i64> = (1..40).filter(|id| ![7, 8].contains(id)).collect();
            for knobs in [Knobs::default(), ALL, Knobs { effort: Some(1), rerank_k: None }] {
                for k in [1, 9, n] {
                    let list = IdList::Int(ids.clone());
                    let found = snapshot.neighbors_of(&list, k, None, knobs, &Work::inline()).unwrap().found;
                    for (id, found) in ids.iter().zip(&found) {
                        check_order(found);
                        assert_eq!(found.len(), k.min(n - 4), "{encoding:?} {metric:?}");
                        assert!(found.iter().all(|c| i64::from(c.row) != *id && ![0, 7, 8].contains(&c.row)));
                    }
                }
            }
            // With itself as the only one allowed there is nobody.
            let alone = IdList::Int(vec![5]);
            let allowed = Some(Allowed::Ids(&alone));
            let found = snapshot.neighbors_of(&alone, 3, allowed, Knobs::default(), &Work::inline()).unwrap();
            assert!(found.found[0].is_empty());
            // Its copies are neighbours.
            if data == Data::Copies && encoding.is_raw() {
                let found =
                    snapshot.neighbors_of(&alone, 3, None, Knobs::default(), &Work::inline()).unwrap();
                assert!(
                    found.found[0].iter().all(|c| c.distance.abs() < 1e-6 || metric == Metric::InnerProduct)
                );
            }
            let gone = snapshot.neighbors_of(&IdList::Int(vec![7]), 3, None, ALL, &Work::inline());
            assert!(matches!(gone, Err(Error::UnknownId(_))));
        }
    }
}

// --- odd sets ---

#[test]
fn few_vectors_are_searched_exactly_until_there_are_lists() {
    for (encoding, rerank) in
        [(Encoding::Float32, None), (Encoding::UInt8, None), (scalar4(), Some(scalar8()))]
    {
        let spec = Spec { rerank, ..spec(6, Metric::Euclidean, encoding, 8) };
        let index = index(spec);
        assert_eq!(spec.training_rows(), 1024);
        let values = vectors(Data::Groups, 1100, 6, Encoding::UInt8, 61);
        for (start, end) in [(0, 0), (0, 1), (1, 500), (500, 1023)] {
            add(&index, &values[start * 6..end * 6]);
            let snapshot = index.snapshot();
            assert!(!snapshot.is_trained() && snapshot.stats().lists.is_none());
            let found = search(&snapshot, &values[..12], 5, Knobs { effort: Some(1), rerank_k: None });
            check_exact(Metric::Euclidean, 6, &values[..end * 6], &values[..12], 5, &found);
            check_file(&snapshot);
        }
        // The vectors that are missing come, and are no different from those that waited.
        let untrained = reopened(&index.snapshot());
        for index in [&index, &untrained] {
            add(index, &values[1023 * 6..]);
            let snapshot = index.snapshot();
            let stats = snapshot.stats().lists.unwrap();
            assert_eq!((snapshot.len(), stats.n_lists), (1100, 8));
            assert!((1100..=2200).contains(&stats.n_entries));
            check_file(&snapshot);
        }
        assert!(bytes_of(&index.snapshot()) == bytes_of(&untrained.snapshot()));
    }
}

/// Vectors that wait for lists are such as will be kept, so that making lists is not refused for what came before.
#[test]
fn what_waits_can_be_kept() {
    for (rerank, good, bad) in [
        (Encoding::UInt8, 255.0, 0.5),
        (Encoding::Int8, -128.0, 128.0),
        (Encoding::Float16, 6e4, 7e4),
        (Encoding::BFloat16, 3e38, f32::MAX),
    ] {
        let spec = Spec { rerank: Some(rerank), ..spec(2, Metric::InnerProduct, scalar4(), 4) };
        let index = index(spec);
        let error = change(&index, &[1.0, 2.0, 3.0, bad], None, false).unwrap_err();
        assert!(matches!(&error, Error::Argument(text) if text.contains("row 1, dimension 1")), "{error}");
        assert!(error.to_string().contains(&rerank.name()));
        let values: Vec<f32> = (0..2200).map(|i| if i == 7 { good } else { (i % 100) as f32 }).collect();
        add(&index, &values[..1000]);
        assert!(!index.snapshot().is_trained());
        add(&index, &values[1000..]);
        let snapshot = index.snapshot();
        assert!(snapshot.is_trained());
        assert!(change(&index, &[1.0, bad], None, false).is_err());
        let kept = values_of(&snapshot, &(0..1100).collect::<Vec<_>>());
        let rounded = |x: f32| match rerank {
            Encoding::Float16 => f16::from_f32(x).to_f32(),
            Encoding::BFloat16 => bf16::from_f32(x).to_f32(),
            _ => x,
        };
        assert!(kept.iter().copied().eq(values.iter().map(|&x| rounded(x))), "{rerank:?}");
        let found = search(&snapshot, &[1.0, 2.0], 1200, ALL);
        assert_eq!(found[0].len(), 1100);
        check_file(&snapshot);
        check_file(&mapped(&snapshot).snapshot());
    }
}

#[test]
fn lists_may_be_made_before_there_are_vectors() {
    let sample = vectors(Data::Groups, 400, 5, Encoding::Float32, 71);
    for (encoding, rerank) in
        coded(5).into_iter().chain([(Encoding::Float32, None), (Encoding::BFloat16, None)])
    {
        let spec = Spec { rerank, ..spec(5, Metric::Cosine, encoding, 6) };
        let index = index(spec);
        index.train(400, Values::Float32(&sample), &Work::inline()).unwrap();
        let error = index.train(400, Values::Float32(&sample), &Work::inline()).unwrap_err();
        assert!(matches!(&error, Error::Argument(text) if text.contains("made already")), "{error}");
        for empty in [index.clone(), reopened(&index.snapshot())] {
            let snapshot = empty.snapshot();
            assert!(snapshot.is_trained() && snapshot.is_empty());
            check_file(&snapshot);
            assert!(search(&snapshot, &sample[..10], 3, Knobs::default()).iter().all(Vec::is_empty));
            assert!(mapped(&snapshot).snapshot().is_trained());
            let queries = Queries::Numbers(&sample[..5]);
            let within = snapshot.search_radius(queries, 9.0, None, Knobs::default(), &Work::inline());
            assert!(within.unwrap().found[0].is_empty());
            add(&empty, &sample[..5]);
            let found = search(&empty.snapshot(), &sample[..5], 3, Knobs::default());
            assert_eq!((found[0].len(), found[0][0].row), (1, 0));
            assert_eq!(remove(&empty, [0]), 1);
            assert!(search(&empty.snapshot(), &sample[..5], 3, Knobs::default())[0].is_empty());
            check_file(&empty.snapshot());
        }
    }
    let plain = index(exact(spec(5, Metric::Cosine, Encoding::Float32, 1)));
    let error = plain.train(9, Values::Float32(&sample), &Work::inline()).unwrap_err();
    assert!(matches!(&error, Error::Argument(text) if text.contains("nothing to train")), "{error}");
    let listed = index(spec(5, Metric::Cosine, Encoding::Float32, 1));
    assert!(matches!(listed.train(9, Values::Float32(&[]), &Work::inline()), Err(Error::Argument(_))));
    let bad = [1.0, f32::NAN, 1.0, 1.0, 1.0];
    assert!(matches!(listed.train(9, Values::Float32(&bad), &Work::inline()), Err(Error::Argument(_))));
    assert!(!listed.snapshot().is_trained());
    listed.train(9, Values::Float32(&sample), &Work::inline()).unwrap();
}

#[test]
fn there_may_be_fewer_vectors_than_lists() {
    for n in [1, 2, 5, 31] {
        let values = vectors(Data::Normal, n, 3, Encoding::Float32, 81);
        for (encoding, rerank) in coded(3).into_iter().chain([(Encoding::Float32, None)]) {
            let snapshot =
                filled(Spec { rerank, ..spec(3, Metric::Euclidean, encoding, 64) }, &values).snapshot();
            let stats = snapshot.stats().lists.unwrap();
            assert!(stats.n_lists <= n && stats.n_entries >= n, "{stats:?}");
            let found = search(&snapshot, &values, 40, Knobs::default());
            assert!(found.iter().all(|list| list.len() == n));
            check_file(&snapshot);
        }
    }
}

#[test]
fn odd_vectors_have_right_answers() {
    let sets = [
        (Data::Equal, 1300, 16),
        (Data::Copies, 1000, 40),
        (Data::Constant, 1300, 15),
        (Data::Ties, 1500, 1),
        (Data::Groups, 1200, 1),
        (Data::Groups, 300, 4096),
        (Data::Lengths, 1500, 20),
        (Data::Offset, 1500, 20),
        (Data::Huge, 1200, 10),
        (Data::Tiny, 1200, 10),
    ];
    for (set, (data, n, dim)) in sets.into_iter().enumerate() {
        for (i, metric) in METRICS.into_iter().enumerate() {
            let mut kinds: Vec<_> =
                [Encoding::Float32, Encoding::BFloat16].map(|encoding| (encoding, None)).to_vec();
            kinds.extend(coded(dim));
            if dim == 4096 {
                kinds.truncate(5);
            }
            for (j, (encoding, rerank)) in kinds.into_iter().enumerate() {
                if rerank == Some(Encoding::Float16) && data == Data::Huge || (set + i + j) % 5 > 1 {
                    continue;
                }
                let values = vectors(data, n, dim, encoding, 91);
                let queries = queries(data, 8, dim, encoding, 92);
                let spec = Spec { rerank, ..spec(dim, metric, encoding, 10) };
                let snapshot = filled(spec, &values).snapshot();
                let plain =
                    filled(exact(Spec { encoding: Encoding::Float32, rerank: None, ..spec }), &values);
                let truth = search(&plain.snapshot(), &queries, 10, Knobs::default());
                for knobs in [Knobs::default(), Knobs { effort: Some(1), rerank_k: None }, ALL] {
                    for k in [1, 10, n + 9] {
                        let found = search(&snapshot, &queries, k, knobs);
                        for list in &found {
                            check_order(list);
                            assert_eq!(list.len(), k.min(n), "{data:?} {spec:?} {knobs:?}");
                            assert!(list.iter().all(|candidate| candidate.distance.is_finite()));
                        }
                        // All vectors are alike, so any will do, if its distance is right.
                        if data == Data::Equal && k == 10 {
                            for (list, truth) in found.iter().zip(&truth) {
                                for (a, b) in list.iter().zip(truth) {
                                    let off = (a.distance - b.distance).abs();
                                    let size = if metric.is_angular() { 1.0 } else { 2000.0 };
                                    assert!(off <= 2e-3 * size, "{spec:?}: {a:?} {b:?}");
                                }
                            }
                        }
                    }
                }
                if encoding.is_raw() || rerank == Some(Encoding::Float32) {
                    let found =
                        search(&snapshot, &queries, 10, Knobs { effort: Some(9), rerank_k: Some(100) });
                    let mean = |found: &[Vec<Candidate>]| {
                        let all = found.iter().flatten().map(|candidate| f64::from(candidate.distance));
                        all.sum::<f64>() / found.len() as f64
                    };
                    // By distance: ties count.
                    let (got, best) = (mean(&found), mean(&truth));
                    let allowed = match metric {
                        Metric::Angular => 0.05 * best.abs() + 1e-3,
                        _ => {
                            0.05 * best.abs()
                                + 1e-6 * values.iter().fold(0.0, |m: f64, &x| m.max(f64::from(x).abs()))
                        }
                    };
                    if encoding != Encoding::BFloat16 {
                        assert!(got <= best + allowed, "{data:?} {spec:?}: {got} for {best}");
                    }
                }
                check_file(&snapshot);
            }
        }
    }
}

/// Vectors whose squares float32 cannot hold are found as often as they are there.
#[test]
fn vectors_beyond_squares_are_not_lost() {
    for scale in [1e18f32, 1e20, 1e25, 1e37, 1e-20, 1e-30, 1e-40] {
        let values: Vec<f32> = vectors(Data::Groups, 600, 4, Encoding::Float32, 95)
            .iter()
            .map(|x| x.clamp(-9.0, 9.0) * scale)
            .collect();
        for metric in METRICS {
            for (encoding, rerank) in coded(4).into_iter().chain([(Encoding::Float32, None)]) {
                if rerank == Some(Encoding::Float16) && scale > 1.0 {
                    continue;
                }
                let snapshot = filled(Spec { rerank, ..spec(4, metric, encoding, 12) }, &values).snapshot();
                for knobs in [Knobs::default(), Knobs { effort: Some(1), rerank_k: None }, ALL] {
                    for k in [1, 20, 700] {
                        for list in search(&snapshot, &values[..40], k, knobs) {
                            assert_eq!(
                                list.len(),
                                k.min(600),
                                "{scale} {encoding:?} {rerank:?} {metric:?} {knobs:?}"
                            );
                            check_order(&list);
                        }
                    }
                }
                check_file(&snapshot);
                let ids = IdList::Int((0..20).collect());
                let found = snapshot.neighbors_of(&ids, 9, None, Knobs::default(), &Work::inline());
                // What was read back may be zero, which is nobody's neighbour where only directions count.
                assert!(found.is_ok() || metric.is_angular());
            }
        }
    }
}

/// The largest numbers there are, among ordinary ones: nothing of them is a number in the frame of the lists.
#[test]
fn the_largest_numbers_are_found() {
    let dim = 6;
    let values = vectors(Data::Groups, 1500, dim, Encoding::Float32, 96);
    let mut large: Vec<f32> = vectors(Data::Groups, 30, dim, Encoding::Float32, 99);
    large.iter_mut().for_each(|x| *x = f32::MAX.copysign(*x));
    for metric in METRICS {
        for (encoding, rerank) in coded(dim).into_iter().chain([(Encoding::Float32, None)]) {
            if matches!(rerank, Some(Encoding::Float16 | Encoding::BFloat16)) {
                continue;
            }
            let index = filled(Spec { rerank, ..spec(dim, metric, encoding, 12) }, &values);
            add(&index, &large);
            for k in [10, 1600] {
                for knobs in [Knobs::default(), Knobs { effort: Some(1), rerank_k: None }, ALL] {
                    let queries = [&values[..2 * dim], &large[..dim]].concat();
                    for list in search(&index.snapshot(), &queries, k, knobs) {
                        check_order(&list);
                        assert_eq!(list.len(), k.min(1530), "{metric:?} {encoding:?} {rerank:?} {knobs:?}");
                    }
                }
            }
            if encoding == Encoding::Float32 && metric.is_angular() {
                let found = search(&index.snapshot(), &large[..dim], 1, Knobs::default());
                assert!(found[0][0].row >= 1500 && found[0][0].distance < 1e-6);
            }
            check_file(&index.snapshot());
            remove(&index, (0..1500).chain([1503]));
            assert_eq!(search(&index.snapshot(), &values[..dim], 40, Knobs::default())[0].len(), 29);
            check_file(&index.snapshot());
        }
    }
}

#[test]
fn zeros_are_at_cosine_distance_one() {
    let mut values = vectors(Data::Groups, 1200, 8, Encoding::Float32, 97);
    values[..80].fill(0.0);
    for metric in [Metric::Cosine, Metric::Angular] {
        for encoding in [Encoding::Float32, Encoding::Int8, Encoding::UInt8] {
            let mut held = vectors(Data::Groups, 1200, 8, encoding, 97);
            held[..80].fill(0.0);
            let snapshot = filled(spec(8, metric, encoding, 8), &held).snapshot();
            let query = [1.0; 8];
            let zeros = IdList::Int((0..10).collect());
            let found = snapshot.search(
                Queries::Numbers(&query),
                20,
                Some(Allowed::Ids(&zeros)),
                ALL,
                &Work::inline(),
            );
            let expected = if metric == Metric::Cosine { 1.0 } else { std::f32::consts::FRAC_PI_2 };
            assert!(found.unwrap().found[0].iter().map(|c| c.distance).eq([expected; 10]));
            let all = search(&snapshot, &query, 1200, Knobs { effort: Some(7), rerank_k: None });
            assert_eq!(all[0].len(), 1200);
            assert_eq!(all[0].iter().filter(|c| c.row < 10 && c.distance == expected).count(), 10);
        }
        for (encoding, rerank) in coded(8) {
            let snapshot = filled(Spec { rerank, ..spec(8, metric, encoding, 8) }, &values).snapshot();
            assert_eq!(search(&snapshot, &[1.0; 8], 1300, Knobs::default())[0].len(), 1200);
        }
    }
}

// --- changes ---

#[test]
fn it_behaves_as_the_model() {
    for (seed, &metric) in METRICS.iter().enumerate() {
        let seed = seed as u64;
        let spill = [0, 40, 100][seed as usize % 3];
        let structure = Structure::Lists { n_lists: 5, spill };
        let of = |encoding| Spec { structure, ..spec(6, metric, encoding, 5) };
        for (i, encoding) in RAW.into_iter().enumerate() {
            play(seed + 10 * i as u64, of(encoding), i % 2 == 0, Data::Groups, 40, 700);
        }
    }
}

#[test]
fn codes_behave_as_the_model() {
    for (i, (encoding, rerank)) in coded(7).into_iter().enumerate() {
        let structure =
            if i % 3 == 0 { Structure::Exact } else { Structure::Lists { n_lists: 4, spill: 50 } };
        let spec = Spec { rerank, structure, ..spec(7, METRICS[i % 5], encoding, 4) };
        play(100 + i as u64, spec, i % 2 == 0, Data::Groups, 40, 700);
        play(200 + i as u64, spec, i % 2 == 1, Data::Copies, 25, 700);
    }
}

/// More than a chunk: rows that move together when a chunk is mostly dead are found under their new numbers.
#[test]
fn rows_may_move_to_other_chunks() {
    let (dim, n) = (4, 80_000);
    let int8 = (Encoding::Int8, None);
    for (encoding, rerank) in
        [(Encoding::Float32, None), int8, (scalar4(), None), (scalar4(), Some(scalar8()))]
    {
        let values = vectors(Data::Groups, n, dim, encoding, 111);
        let spec = Spec { rerank, ..spec(dim, Metric::Euclidean, encoding, 16) };
        let index = filled(spec, &values);
        let get = |id: i64| {
            let snapshot = index.snapshot();
            values_of(&snapshot, &snapshot.rows_of(&IdList::Int(vec![id])).unwrap())
        };
        let before = [get(50_000), get(65_535), get(65_536), get(79_999)];
        // Cluster by cluster would empty lists; this empties chunks.
        assert_eq!(remove(&index, 0..40_000), 40_000);
        let snapshot = index.snapshot();
        assert!(snapshot.stats().n_removed < 40_000, "the first chunk moved");
        assert_eq!([get(50_000), get(65_535), get(65_536), get(79_999)], before);
        check_file(&snapshot);
        for id in [50_000i64, 65_535, 65_536, 79_999] {
            let query = &values[id as usize * dim..][..dim];
            let found = search(&snapshot, query, 300, Knobs::default());
            let IdList::Int(ids) = snapshot.ids_of(found[0].iter().map(|c| c.row)) else { panic!("numbers") };
            assert!(ids.iter().all(|&id| id >= 40_000));
            assert!(ids.contains(&id), "{encoding:?} {id}");
        }
        // The numbers of the freed rows are given to others, who are nobody else.
        let more = vectors(Data::Groups, 50_000, dim, encoding, 112);
        add(&index, &more);
        let snapshot = index.snapshot();
        check_file(&snapshot);
        let stats = snapshot.stats();
        assert_eq!(stats.n_vectors, 90_000);
        for at in [0, 777, 49_999] {
            let query = &more[at * dim..][..dim];
            let found = search(&snapshot, query, 100, Knobs { effort: Some(8), rerank_k: Some(400) });
            let IdList::Int(ids) = snapshot.ids_of(found[0].iter().map(|c| c.row)) else { panic!("numbers") };
            assert!(ids.contains(&(n as i64 + at as i64)), "{encoding:?} {at}");
            if encoding.is_raw() {
                assert_eq!(found[0][0].distance, 0.0);
            }
        }
        // Nearly all go, and come back.
        remove(&index, 40_500..130_000);
        let snapshot = index.snapshot();
        assert_eq!(snapshot.len(), 500);
        assert!(snapshot.stats().lists.unwrap().n_entries <= 1000 + 256);
        check_file(&snapshot);
        assert_eq!(search(&snapshot, &values[..dim], 600, Knobs::default())[0].len(), 500);
    }
}

/// Dead rows are not in the file, and nobody misses them.
#[test]
fn saving_changes_no_answer() {
    let dim = 10;
    for (i, metric) in METRICS.into_iter().enumerate() {
        let mut kinds: Vec<_> = RAW.iter().map(|&encoding| (encoding, None)).collect();
        kinds.extend(coded(dim));
        for (j, (encoding, rerank)) in kinds.into_iter().enumerate() {
            let data = [Data::Groups, Data::Copies, Data::Ties][(i + j) % 3];
            let values = vectors(data, 3000, dim, encoding, 121);
            let queries = queries(data, 40, dim, encoding, 122);
            let index = filled(Spec { rerank, ..spec(dim, metric, encoding, 16) }, &values);
            remove(&index, (0..3000).filter(|id| id % 7 == 2));
            let again: Vec<i64> = (0..3000).filter(|id| id % 14 == 1).collect();
            let other = vectors(data, again.len(), dim, encoding, 123);
            change(&index, &other, Some(IdList::Int(again)), true).unwrap();
            let snapshot = index.snapshot();
            assert!(snapshot.stats().n_removed > 0);
            let mask: Vec<bool> = (0..snapshot.len()).map(|i| i % 5 == 0).collect();
            for opened in [reopened(&snapshot), mapped(&snapshot)] {
                let opened = opened.snapshot();
                assert_eq!((opened.len(), opened.ids()), (snapshot.len(), snapshot.ids()));
                let IdList::Int(ids) = opened.ids() else { panic!("numbers") };
                let some = IdList::Int(ids.iter().copied().step_by(90).collect());
                for knobs in [Knobs::default(), Knobs { effort: Some(3), rerank_k: None }, ALL] {
                    for allowed in [None, Some(Allowed::Mask(&mask))] {
                        let run = |snapshot: &Snapshot| {
                            let queries = Queries::Numbers(&queries);
                            let found =
                                snapshot.search(queries, 10, allowed, knobs, &Work::inline()).unwrap();
                            answers(snapshot, &found.found)
                        };
                        assert_eq!(
                            run(&opened),
                            run(&snapshot),
                            "{encoding:?} {rerank:?} {metric:?} {knobs:?}"
                        );
                    }
                    let near = |snapshot: &Snapshot| {
                        snapshot
                            .neighbors_of(&some, 5, None, knobs, &Work::inline())
                            .map(|found| answers(snapshot, &found.found))
                            .map_err(|error| error.to_string())
                    };
                    assert_eq!(near(&opened), near(&snapshot));
                }
                let rows = |snapshot: &Snapshot| values_of(snapshot, &snapshot.rows_of(&some).unwrap());
                assert_eq!(rows(&opened), rows(&snapshot));
                let stats = opened.stats();
                assert_eq!((stats.n_vectors, stats.n_removed), (snapshot.len(), 0));
                let drift = |snapshot: &Snapshot| snapshot.stats().lists.unwrap().drift;
                assert_eq!(drift(&opened), drift(&snapshot));
            }
        }
    }
}

#[test]
fn a_mapped_index_is_not_changed() {
    let values = vectors(Data::Groups, 1500, 6, Encoding::Float32, 131);
    let index = mapped(&filled(spec(6, Metric::Euclidean, scalar4(), 8), &values).snapshot());
    for error in [
        change(&index, &values[..6], None, false).unwrap_err(),
        index.remove(&IdList::Int(vec![1]), &Work::inline()).unwrap_err(),
        index.set_calibration("x", &Silent).unwrap_err(),
        index.train(9, Values::Float32(&values), &Work::inline()).unwrap_err(),
    ] {
        assert!(matches!(&error, Error::ReadOnly(text) if text.contains("memory_map=False")), "{error}");
    }
}

#[test]
fn a_calibration_is_kept_as_text() {
    let values = vectors(Data::Groups, 1500, 6, Encoding::Float32, 141);
    let index = filled(spec(6, Metric::Euclidean, Encoding::Float32, 8), &values);
    assert_eq!(index.snapshot().calibration(), None);
    let before = index.snapshot();
    index.set_calibration("{\"recall\": 0.95, \"é\": 1}", &Silent).unwrap();
    assert_eq!(before.calibration(), None);
    add(&index, &values[..60]);
    remove(&index, [3]);
    let text = Some("{\"recall\": 0.95, \"é\": 1}");
    assert_eq!(index.snapshot().calibration(), text);
    for opened in [reopened(&index.snapshot()), mapped(&index.snapshot())] {
        assert_eq!(opened.snapshot().calibration(), text);
    }
    check_file(&index.snapshot());
    index.set_calibration("", &Silent).unwrap();
    assert_eq!(index.snapshot().calibration(), None);
    assert_eq!(reopened(&index.snapshot()).snapshot().calibration(), None);
}

/// Bytes that are held now, and were at most.
#[derive(Debug, Default)]
struct Counting {
    now: AtomicUsize,
}

/// What the system's allocator takes for so many bytes: whole huge pages.
fn resident(n_bytes: usize) -> usize {
    if n_bytes < 2 << 20 { n_bytes } else { n_bytes.next_multiple_of(2 << 20) }
}

#[allow(unsafe_code)]
impl Allocator for Counting {
    fn allocate(&self, n_bytes: usize) -> Option<NonNull<u8>> {
        let memory = SystemAllocator.allocate(n_bytes);
        self.now.fetch_add(if memory.is_some() { resident(n_bytes) } else { 0 }, Ordering::Relaxed);
        memory
    }

    unsafe fn release(&self, memory: NonNull<u8>, n_bytes: usize) {
        self.now.fetch_sub(resident(n_bytes), Ordering::Relaxed);
        // SAFETY: as the caller's; it came from this allocator, which had it from the system's.
        unsafe { SystemAllocator.release(memory, n_bytes) }
    }
}

#[test]
fn memory_does_not_grow_under_churn() {
    let (dim, n) = (8, 6000);
    let uint8 = (Encoding::UInt8, None);
    for (encoding, rerank) in
        [(Encoding::Float32, None), uint8, (scalar4(), None), (scalar4(), Some(scalar8()))]
    {
        for by_group in [false, true] {
            let counting = Arc::new(Counting::default());
            let structure = Structure::Lists { n_lists: 12, spill: 40 };
            let spec = Spec { rerank, structure, ..spec(dim, Metric::Euclidean, encoding, 12) };
            let index = Arc::new(Index::with_allocator(spec, counting.clone()).unwrap());
            let values = vectors(Data::Groups, n, dim, encoding, 151);
            index.train(n, Values::Float32(&values), &Work::inline()).unwrap();
            add(&index, &values);
            // In the order of one component, groups go and come one after the other.
            let mut order: Vec<usize> = (0..n).collect();
            if by_group {
                order.sort_by(|&a, &b| values[a * dim].total_cmp(&values[b * dim]));
            }
            let mut held = Vec::new();
            let rounds = 60;
            for round in 0..rounds {
                let part: Vec<usize> = (0..n / 5).map(|i| order[(round * n / 5 + i) % n]).collect();
                let ids: Vec<i64> = part.iter().map(|&i| i as i64).collect();
                remove(&index, ids.iter().copied());
                let again: Vec<f32> = part.iter().flat_map(|&i| values[i * dim..][..dim].to_vec()).collect();
                // In small steps and in one.
                if round % 2 == 0 {
                    change(&index, &again, Some(IdList::Int(ids)), false).unwrap();
                } else {
                    for (values, ids) in again.chunks(100 * dim).zip(ids.chunks(100)) {
                        change(&index, values, Some(IdList::Int(ids.to_vec())), false).unwrap();
                    }
                }
                let snapshot = index.snapshot();
                assert_eq!(snapshot.len(), n);
                held.push((counting.now.load(Ordering::Relaxed), snapshot.stats().lists.unwrap()));
            }
            let largest = |part: &[(usize, _)]| part.iter().map(|held| held.0).max().unwrap();
            let (early, late) = (largest(&held[..20]), largest(&held[40..]));
            assert!(late <= early + early / 10, "{encoding:?}: {early} bytes, later {late}");
            let stats = &held[rounds - 1].1;
            assert!(stats.n_entries <= 2 * n + n / 2, "{stats:?}");
            // What is held is little more than what is said to be held.
            let said = index.snapshot().stats();
            let said = said.vectors_bytes + said.ids_bytes + said.lists.unwrap().lists_bytes;
            let now = counting.now.load(Ordering::Relaxed);
            assert!(now <= 3 * said, "{encoding:?}: {now} bytes held, {said} said");
            check_file(&index.snapshot());
        }
    }
}

#[test]
fn what_is_held_is_what_is_said() {
    let (dim, n) = (128, 100_000);
    let values = vectors(Data::Groups, n, dim, Encoding::UInt8, 155);
    let counting = Arc::new(Counting::default());
    let spec = spec(dim, Metric::Euclidean, Encoding::UInt8, 300);
    let index = Arc::new(Index::with_allocator(spec, counting.clone()).unwrap());
    index.train(n, Values::Float32(&values[..5000 * dim]), &Work::inline()).unwrap();
    add(&index, &values);
    let stats = index.snapshot().stats();
    let said = stats.vectors_bytes + stats.ids_bytes + stats.lists.unwrap().lists_bytes;
    let now = counting.now.load(Ordering::Relaxed);
    // The last huge page of what a change brings is not full.
    assert!(now <= said + said / 20 + (3 << 20), "{now} bytes held, {said} said");
}

/// Removed and added again, at random or group by group, rows are found as well as in an index made anew.
#[test]
fn recall_stays_under_churn() {
    let (dim, n) = (16, 8000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 161);
    let queries = vectors(Data::Groups, 100, dim, Encoding::Float32, 162);
    let spec = Spec { rerank: Some(scalar8()), ..spec(dim, Metric::Euclidean, scalar4(), 48) };
    let plain = filled(exact(Spec { encoding: Encoding::Float32, rerank: None, ..spec }), &values).snapshot();
    let truth = search(&plain, &queries, 10, Knobs::default());
    let knobs = Knobs { effort: Some(8), rerank_k: None };
    let share = |index: &Arc<Index>| {
        let snapshot = index.snapshot();
        let found = search(&snapshot, &queries, 10, knobs);
        let by_id = |list: &Vec<Candidate>| {
            let IdList::Int(ids) = snapshot.ids_of(list.iter().map(|c| c.row)) else { panic!("numbers") };
            ids.iter().zip(list).map(|(&id, c)| Candidate { row: id as u32, ..*c }).collect()
        };
        recall(&found.iter().map(by_id).collect::<Vec<_>>(), &truth)
    };
    let fresh = share(&filled(spec, &values));
    let mut random = Random::new(163, 0);
    for by_group in [false, true] {
        let index = filled(spec, &values);
        let mut order: Vec<usize> = (0..n).collect();
        if by_group {
            order.sort_by(|&a, &b| values[a * dim].total_cmp(&values[b * dim]));
        } else {
            (1..n).for_each(|at| order.swap(at, random.below(at + 1)));
        }
        let entries = |index: &Arc<Index>| index.snapshot().stats().lists.unwrap().n_entries as f64;
        let of_fresh = entries(&index);
        for part in order.chunks(n / 5).cycle().take(10) {
            let ids: Vec<i64> = part.iter().map(|&i| i as i64).collect();
            remove(&index, ids.iter().copied());
            // Dead rows are looked at too: they must not be many.
            assert!(entries(&index) < 1.15 * 0.8 * of_fresh, "{} of {of_fresh}", entries(&index));
            let again: Vec<f32> = part.iter().flat_map(|&i| values[i * dim..][..dim].to_vec()).collect();
            change(&index, &again, Some(IdList::Int(ids)), false).unwrap();
            let now = share(&index);
            assert!(now >= fresh - 0.005, "{now} after, {fresh} before");
            assert!(entries(&index) < 1.15 * of_fresh, "{} of {of_fresh}", entries(&index));
        }
        assert!(index.snapshot().stats().lists.unwrap().drift < 1.1);
    }
}

/// The centroids in a file.
fn centroids(index: &Arc<Index>) -> Vec<u8> {
    let bytes = bytes_of(&index.snapshot());
    let view = FileView::open(Arc::new(Bytes::copied(&bytes).unwrap()), Some("index")).unwrap();
    view.bytes_of(view.section("lists_centroids").unwrap()).to_vec()
}

#[test]
fn drift_is_told() {
    let values = vectors(Data::Groups, 2000, 8, Encoding::Float32, 171);
    let far: Vec<f32> =
        vectors(Data::Normal, 2000, 8, Encoding::Float32, 172).iter().map(|x| 9.0 * x).collect();
    let drift = |index: &Arc<Index>| index.snapshot().stats().lists.unwrap().drift;
    // What is kept of codes alone is too little to make lists anew from.
    let index = filled(spec(8, Metric::Euclidean, scalar4(), 12), &values);
    assert!((drift(&index) - 1.0).abs() < 0.2, "{}", drift(&index));
    let before = centroids(&index);
    add(&index, &far);
    assert!(drift(&index) > 3.0);
    assert_eq!(drift(&reopened(&index.snapshot())), drift(&index));
    assert!(centroids(&index) == before);
    // Of all others there is enough.
    for (encoding, rerank) in [(Encoding::Float32, None), (scalar4(), Some(scalar8()))] {
        let index = filled(Spec { rerank, ..spec(8, Metric::Euclidean, encoding, 12) }, &values);
        let before = centroids(&index);
        add(&index, &far);
        assert!(drift(&index) < 1.2 && centroids(&index) != before);
        assert_eq!(drift(&reopened(&index.snapshot())), drift(&index));
        check_file(&index.snapshot());
        let (snapshot, after) = (index.snapshot(), centroids(&index));
        assert_eq!(search(&snapshot, &far[..8], 1, Knobs::default())[0][0].row, 2000);
        add(&index, &far[..800]);
        assert!(centroids(&index) == after, "once is enough");
    }
}

/// Many times as many vectors want other lists.
#[test]
fn lists_grow_with_the_vectors() {
    let (dim, n) = (6, 9000);
    let (int8, uint8) = ((Encoding::Int8, None), (Encoding::UInt8, None));
    for (encoding, rerank) in
        [(Encoding::Float32, None), int8, uint8, (scalar4(), Some(scalar8())), (scalar8(), None)]
    {
        let values = vectors(Data::Groups, n, dim, encoding, 175);
        let index = index(Spec { rerank, ..spec(dim, Metric::Cosine, encoding, 0) });
        index.train(1500, Values::Float32(&values[..1500 * dim]), &Work::inline()).unwrap();
        let n_lists = |index: &Arc<Index>| index.snapshot().stats().lists.unwrap().n_lists;
        let first = n_lists(&index);
        let mut seen = vec![first];
        for part in values.chunks(1000 * dim) {
            add(&index, part);
            seen.push(n_lists(&index));
        }
        assert!(seen.is_sorted(), "{seen:?}");
        // Codes alone cannot be coded again.
        assert_eq!(n_lists(&index) > first, rerank.is_some() || encoding.is_raw(), "{seen:?}");
        let snapshot = index.snapshot();
        check_file(&snapshot);
        if encoding.is_integer() {
            assert!(values_of(&snapshot, &(0..n as u32).collect::<Vec<_>>()) == values);
        }
        let mut found = 0;
        for id in (0..n).step_by(97) {
            let list = search(&snapshot, &values[id * dim..][..dim], 10, Knobs::default()).remove(0);
            found += usize::from(list.iter().any(|candidate| candidate.row == id as u32));
        }
        assert!(found >= 85, "{encoding:?}: {found} of 93");
    }
}

/// Lists of a number that was asked for stay once they were made from as many vectors as they ever are.
#[test]
fn lists_that_would_not_gain_stay() {
    let values = vectors(Data::Groups, 9000, 6, Encoding::Float32, 176);
    for (n_first, changes) in [(1024, true), (2000, false)] {
        let index = index(spec(6, Metric::Euclidean, Encoding::Float32, 24));
        index.train(n_first, Values::Float32(&values[..n_first * 6]), &Work::inline()).unwrap();
        let before = centroids(&index);
        add(&index, &values);
        assert_eq!(centroids(&index) != before, changes, "{n_first}");
    }
}

/// A few vectors that are far from all centroids do not make every change a training.
#[test]
fn lists_are_not_made_anew_again_and_again() {
    let (dim, n) = (4, 60_000);
    let mut values = vectors(Data::Groups, n, dim, Encoding::Float32, 178);
    for row in [5017, 9_999, 25_000] {
        values[row * dim..][..dim].fill(1e5 + row as f32);
    }
    for sample in [0, n] {
        let index = index(spec(dim, Metric::Euclidean, Encoding::Float32, 16));
        if sample > 0 {
            // Most of it, and none of these.
            let ordinary: Vec<f32> =
                values.chunks_exact(dim).filter(|x| x[0] < 1e4).flatten().copied().collect();
            index.train(n, Values::Float32(&ordinary[..n / 2 * dim]), &Work::inline()).unwrap();
        }
        add(&index, &values);
        add(&index, &values[..100 * dim]);
        let before = centroids(&index);
        for part in values[..3000 * dim].chunks(300 * dim) {
            add(&index, part);
        }
        remove(&index, 100..200);
        assert!(centroids(&index) == before);
        check_file(&index.snapshot());
    }
}

// --- threads, seeds, kernels ---

#[test]
fn the_same_calls_give_the_same_bytes() {
    let (dim, n) = (24, 5000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 181);
    let mut kinds: Vec<_> = [Encoding::Float32, Encoding::Float16].map(|encoding| (encoding, None)).to_vec();
    kinds.extend(coded(dim));
    for (encoding, rerank) in kinds {
        for by_itself in [false, true] {
            let made = |n_threads, seed| {
                let work = Work::new(Some(n_threads), &Silent);
                let index = index(Spec { rerank, seed, ..spec(dim, Metric::Cosine, encoding, 32) });
                if !by_itself {
                    index.train(n, Values::Float32(&values), &work).unwrap();
                }
                for part in values.chunks(1700 * dim) {
                    let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
                    stage.append(Values::Float32(part), None, &work).unwrap();
                    stage.commit(false, &work).unwrap();
                }
                index.remove(&IdList::Int((0..900).collect()), &work).unwrap();
                bytes_of(&index.snapshot())
            };
            let one = made(1, 5);
            assert!(one == made(2, 5) && one == made(3, 5), "{encoding:?} {rerank:?}");
            assert!(one != made(1, 6));
        }
    }
}

/// Run by the test after it, in a process for each level: says what a few searches find.
#[test]
fn tell() {
    let Ok(path) = std::env::var("NEAREST_TEST_LISTS") else { return };
    let (dim, n) = (33, 3000);
    for (i, (encoding, rerank)) in
        RAW.map(|encoding| (encoding, None)).into_iter().chain(coded(dim)).enumerate()
    {
        let metric = METRICS[i % 5];
        let values = vectors(Data::Groups, n, dim, encoding, 191);
        let queries = queries(Data::Groups, 30, dim, encoding, 192);
        let spec = Spec { rerank, ..spec(dim, metric, encoding, 20) };
        // Its own lists, and those of whoever came first.
        let own = filled(spec, &values);
        let file = format!("{path}-{i}");
        if !std::fs::exists(&file).unwrap() {
            own.snapshot().save(&RealFiles, file.as_ref()).unwrap();
        }
        let shared = Arc::new(Index::open(&RealFiles, file.as_ref(), true).unwrap());
        for (name, index) in [("own", own), ("shared", shared)] {
            let snapshot = index.snapshot();
            for (effort, knobs) in [("all", ALL), ("some", Knobs { effort: Some(6), rerank_k: Some(60) })] {
                for (q, list) in search(&snapshot, &queries, 10, knobs).iter().enumerate() {
                    let found: Vec<String> =
                        list.iter().map(|c| format!("{}:{:08x}", c.row, c.distance.to_bits())).collect();
                    println!("found {i} {name} {effort} {q} {}", found.join(" "));
                }
            }
            let rows: Vec<u32> = (0..50).collect();
            let sum = values_of(&snapshot, &rows)
                .iter()
                .fold(0u64, |sum, x| sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(x.to_bits())));
            println!("values {i} {name} {sum:016x}");
        }
    }
}

#[test]
fn kernels_of_all_levels_agree() {
    let path = std::env::temp_dir().join(format!("nearest-lists-kernels-{}", std::process::id()));
    let told = |level: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "tell", "--nocapture"]);
        let command = command.env("NEAREST_KERNELS", level).env("NEAREST_TEST_LISTS", &path);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).unwrap();
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            // The test harness may have begun a line of its own.
            let Some(at) = line.find("found ").or_else(|| line.find("values ")) else { continue };
            let words: Vec<&str> = line[at..].split(' ').collect();
            let head = if words[0] == "found" { 5 } else { 3 };
            if words.len() > head || words[0] == "values" {
                lines.insert(
                    words[..head].join(" "),
                    words[head..].iter().map(|word| word.to_string()).collect(),
                );
            }
        }
        lines
    };
    let levels: Vec<_> = Kernels::available().iter().map(|kernels| told(kernels.name())).collect();
    let first = &levels[0];
    assert!(first.len() > 500);
    for other in &levels[1..] {
        assert!(first.keys().eq(other.keys()));
        let (mut common, mut n) = (0, 0);
        for (key, a) in first {
            let b = &other[key];
            let words: Vec<&str> = key.split(' ').collect();
            let kind: usize = words[1].parse().unwrap();
            let exact = kind < RAW.len() && words.get(3) == Some(&"all");
            // What is read back from the same file is the same.
            if exact || words[0] == "values" && words[2] == "shared" {
                assert_eq!(a, b, "{key}");
            } else if words[0] == "found" && words[2] == "shared" {
                // Kernels select, and may round differently; distances are canonical.
                let rows: HashSet<&str> = a.iter().map(|word| word.split(':').next().unwrap()).collect();
                common += b.iter().filter(|word| a.contains(word)).count();
                n += b.len();
                for word in b {
                    if rows.contains(word.split(':').next().unwrap()) && kind < RAW.len() {
                        assert!(a.contains(word), "{key}: {word} has another distance");
                    }
                }
            }
        }
        assert!(common as f64 >= 0.995 * f64::from(n as u32), "{common} of {n}");
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap() {
        let found = entry.unwrap().path();
        if found.to_string_lossy().starts_with(&*path.to_string_lossy()) {
            std::fs::remove_file(found).unwrap();
        }
    }
}

// --- work ---

/// Says no after so many polls.
struct Impatient {
    left: AtomicUsize,
    asked: AtomicBool,
}

impl Caller for Impatient {
    fn poll(&self, _: u64, _: u64, _: &str) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            self.asked.store(true, Ordering::Relaxed);
            return false;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        true
    }
}

#[test]
fn a_change_that_is_stopped_leaves_nothing() {
    // Long enough to be asked a few times, 50 ms apart.
    let (dim, n) = (48, 30_000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 201);
    let mut n_stopped = 0;
    for (encoding, rerank) in [(Encoding::Float32, None), (scalar4(), None), (scalar4(), Some(scalar8()))] {
        let spec = Spec { rerank, ..spec(dim, Metric::Euclidean, encoding, 100) };
        for (n_threads, trained) in [(1, false), (2, false), (2, true)] {
            let index = index(spec);
            if trained {
                index.train(n, Values::Float32(&values[..6400 * dim]), &Work::inline()).unwrap();
            }
            // The vectors that waited go into lists with those that come.
            add(&index, &values[..900 * dim]);
            for patience in [0, 1, 4] {
                let before = bytes_of(&index.snapshot());
                let caller = Impatient { left: AtomicUsize::new(patience), asked: AtomicBool::new(false) };
                let work = Work::new(Some(n_threads), &caller);
                let done = || {
                    let mut stage = index.stage(Zeros::Accept, &Silent)?;
                    stage.append(Values::Float32(&values[900 * dim..]), None, &work)?;
                    stage.commit(false, &work)
                };
                let result = done();
                assert_eq!(result.is_err(), caller.asked.load(Ordering::Relaxed));
                let Err(error) = result else { break };
                assert!(matches!(error, Error::Cancelled), "{error}");
                assert!(bytes_of(&index.snapshot()) == before);
                n_stopped += 1;
            }
            // It goes on as if nothing had been.
            let n_there = index.snapshot().len();
            add(&index, &values[n_there * dim..]);
            assert_eq!(index.snapshot().len(), n);
            check_file(&index.snapshot());
            if n_threads == 1 && n_there == 900 {
                let whole = self::index(spec);
                add(&whole, &values[..900 * dim]);
                add(&whole, &values[900 * dim..]);
                assert!(bytes_of(&index.snapshot()) == bytes_of(&whole.snapshot()));
            }
        }
    }
    assert!(n_stopped > 0);
}

#[test]
fn specs_that_make_no_sense_are_refused() {
    let base = spec(8, Metric::Euclidean, Encoding::Float32, 4);
    let many = |n_lists| Structure::Lists { n_lists, spill: 0 };
    for (bad, word) in [
        (Spec { metric: Metric::Manhattan, ..base }, "manhattan"),
        (Spec { metric: Metric::Hamming, encoding: Encoding::Binary, ..base }, "hamming"),
        (Spec { metric: Metric::Manhattan, encoding: scalar8(), ..exact(base) }, "scalar8"),
        (Spec { rerank: Some(scalar8()), ..base }, "rerank"),
        (Spec { rerank: Some(Encoding::Binary), encoding: scalar4(), ..base }, "binary"),
        (Spec { shadow: true, ..base }, "shadow"),
        (Spec { shadow: true, encoding: scalar8(), ..exact(base) }, "shadow"),
        (Spec { structure: many((1 << 20) + 1), ..base }, "n_lists"),
        (Spec { structure: Structure::Lists { n_lists: 4, spill: 101 }, ..base }, "spill"),
        (Spec { encoding: product(9, 8), ..base }, "product(9, 8)"),
        (Spec { encoding: scalar4(), rerank: Some(product(9, 8)), ..base }, "product(9, 8)"),
    ] {
        let error = Index::new(bad).unwrap_err();
        assert!(matches!(error, Error::Argument(_) | Error::NotImplemented(_)));
        assert!(error.to_string().contains(word), "{bad:?}: {error}");
    }
    Index::new(Spec { structure: many(1 << 20), ..base }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Any few vectors, lists, filter and k.
    #[test]
    fn any_small_set_is_searched_right(
        seed in any::<u64>(),
        (n, dim, n_lists, spill) in (0usize..90, 1usize..20, 1u32..20, 0u8..=100),
        (metric, encoding, data) in (0usize..5, 0usize..5, 0usize..10),
        (k, effort, kept) in (1usize..100, 1usize..25, 1u64..10),
        gone in prop::collection::vec(0i64..90, 0..60),
    ) {
        let (metric, encoding, data) = (METRICS[metric], RAW[encoding], DATA[data]);
        let values = vectors(data, n, dim, encoding, seed);
        let spec = Spec { structure: Structure::Lists { n_lists, spill }, ..spec(dim, metric, encoding, 1) };
        let (listed, plain) = (filled(spec, &values), filled(exact(spec), &values));
        for index in [&listed, &plain] {
            remove(index, gone.iter().copied());
        }
        let queries = queries(data, 3, dim, encoding, seed ^ 1);
        let (listed, plain) = (listed.snapshot(), plain.snapshot());
        let mask: Vec<bool> = (0..listed.len() as u64).map(|i| (i * 7 + seed % 13) % 10 < kept).collect();
        let allowed = Some(Allowed::Mask(&mask));
        let run = |snapshot: &Snapshot, knobs| {
            snapshot.search(Queries::Numbers(&queries), k, allowed, knobs, &Work::inline()).unwrap().found
        };
        let truth = run(&plain, Knobs::default());
        prop_assert_eq!(&run(&listed, ALL), &truth);
        for (found, truth) in run(&listed, Knobs { effort: Some(effort), rerank_k: None }).iter().zip(&truth) {
            check_order(found);
            prop_assert_eq!(found.len(), truth.len());
        }
        check_file(&listed);
        prop_assert_eq!(answers(&listed, &truth), answers(&reopened(&listed).snapshot(), &run(&reopened(&listed).snapshot(), ALL)));
    }
}
