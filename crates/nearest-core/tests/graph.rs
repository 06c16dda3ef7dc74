//! Graphs against exact search, brute force in float64, and a map.

mod common;

use std::sync::Arc;

use common::*;
use nearest_core::candidates::Candidate;
use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::Error;
use nearest_core::ids::IdList;
use nearest_core::index::{Allowed, Index, Knobs, Queries, Snapshot, Spec, Structure};
use nearest_core::metric::Metric;
use nearest_core::random::Random;
use nearest_core::work::{Silent, Work};

/// Vectors that an index has before it links any, and that wait later.
const FIRST: usize = 1024;

fn spec(dim: usize, metric: Metric, encoding: Encoding) -> Spec {
    let structure = Structure::Graph { degree: 16, ef_build: 32 };
    Spec { encoding, structure, ..plain(dim, metric) }
}

/// Encodings, each with one to compare candidates again.
fn kinds() -> Vec<(Encoding, Option<Encoding>)> {
    let mut all: Vec<_> = RAW.iter().map(|&encoding| (encoding, None)).collect();
    all.extend([
        (scalar8(), None),
        (scalar4(), None),
        (scalar4(), Some(scalar8())),
        (scalar8(), Some(Encoding::Float16)),
        (scalar4(), Some(Encoding::Float32)),
    ]);
    all
}

fn effort(effort: usize) -> Knobs {
    Knobs { effort: Some(effort), rerank_k: None }
}

/// Links lead to every vector, and none waits too long.
fn check_links(snapshot: &Snapshot) {
    let graph = snapshot.stats().graph.expect("a graph");
    assert_eq!(graph.n_unreachable, 0);
    assert!(graph.n_waiting < FIRST, "{} wait", graph.n_waiting);
}

// --- laws ---

/// With all candidates a search is exact, to the bit where vectors are kept as they are; with fewer it gives no distance that is
/// not there.
#[test]
fn all_candidates_are_an_exact_search() {
    for (i, &data) in DATA.iter().cycle().take(30).enumerate() {
        let (encoding, metric) = (RAW[(i + i / 10) % 5], METRICS[i % 5]);
        let dim = [1, 2, 7, 16, 33, 64][i % 6];
        let n = [1024, 1500, 2000][i % 3];
        let values = vectors(data, n, dim, encoding, i as u64);
        let queries = queries(data, 7, dim, encoding, 100 + i as u64);
        let spec = spec(dim, metric, encoding);
        let (linked, plain) = (filled(spec, &values).snapshot(), filled(exact(spec), &values).snapshot());
        check_links(&linked);
        let all = search(&plain, &queries, n, Knobs::default());
        for k in [1, 10, n + 3] {
            let truth = search(&plain, &queries, k, Knobs::default());
            let found = search(&linked, &queries, k, effort(n));
            assert_eq!(answers(&linked, &found), answers(&plain, &truth), "{data:?} {spec:?} {n} {k}");
            for knobs in [Knobs::default(), effort(1), Knobs { effort: Some(40), rerank_k: Some(k.max(40)) }]
            {
                for ((found, truth), all) in search(&linked, &queries, k, knobs).iter().zip(&truth).zip(&all)
                {
                    check_order(found);
                    assert_eq!(found.len(), truth.len(), "{data:?} {spec:?} {n} {k} {knobs:?}");
                    for candidate in found {
                        let same = all.iter().find(|other| other.row == candidate.row).expect("a row");
                        assert_eq!(candidate.distance, same.distance);
                    }
                }
            }
        }
        check_file(&linked);
    }
}

/// What is found by default is nearly all of what there is, whatever the metric and encoding.
#[test]
fn a_walk_finds_the_neighbours() {
    for (i, &metric) in METRICS.iter().enumerate() {
        for (j, (encoding, rerank)) in kinds().into_iter().enumerate() {
            // Of integers walks read all bits or four, as is enough.
            let is_wide = encoding.is_integer() && i % 2 == 1;
            let data = if is_wide { Data::Wide } else { Data::Groups };
            let dim = if is_wide { 15 } else { [16, 24, 48, 33][(i + j) % 4] };
            let values = vectors(data, 4000, dim, encoding, 1);
            let queries = queries(data, 50, dim, encoding, 2);
            let spec = Spec { rerank, ..spec(dim, metric, encoding) };
            let linked = filled(spec, &values).snapshot();
            check_links(&linked);
            // Of the codes, where these are all there is.
            let truth = match rerank.unwrap_or(encoding).is_raw() {
                true => search(
                    &filled(
                        Spec { rerank: None, encoding: rerank.unwrap_or(encoding), ..exact(spec) },
                        &values,
                    )
                    .snapshot(),
                    &queries,
                    10,
                    Knobs::default(),
                ),
                false => search(&linked, &queries, 10, effort(4000)),
            };
            let found = search(&linked, &queries, 10, Knobs::default());
            // Under inner products what is short is chosen by nobody.
            // Nor are there any groups where values are all over what they can be.
            let is_hard = metric == Metric::InnerProduct || matches!(data, Data::Wide);
            let least = if is_hard { 0.9 } else { 0.95 };
            let reached = recall(&found, &truth);
            assert!(reached >= least, "{metric:?} {encoding:?} {rerank:?}: {reached}");
            // More candidates find more, but for what codes lose.
            let found = search(&linked, &queries, 10, effort(400));
            assert!(recall(&found, &truth) >= reached - 0.01);
        }
    }
}

/// Integers whose components lose alike by their upper halves, as pixels of smooth pictures do: what these blur is not spread over
/// all directions, and walks must not rely on them.
#[test]
fn components_that_lose_alike_are_found() {
    let (n, n_blocks, dim) = (6000, 8, 256);
    let blocks = |n: usize, seed: u64| -> Vec<f32> {
        let mut random = Random::new(seed, 0);
        (0..n * n_blocks).map(|_| f32::from(random.bits() as u8)).collect()
    };
    let smooth = |blocks: &[f32]| -> Vec<f32> {
        blocks.iter().flat_map(|&block| std::iter::repeat_n(block, dim / n_blocks)).collect()
    };
    let (values, queries) = (smooth(&blocks(n, 3)), smooth(&blocks(200, 4)));
    for encoding in [Encoding::UInt8, Encoding::Int8] {
        let below = if encoding == Encoding::Int8 { 128.0 } else { 0.0 };
        let moved = |values: &[f32]| -> Vec<f32> { values.iter().map(|value| value - below).collect() };
        let index = filled(spec(dim, Metric::Euclidean, encoding), &moved(&values));
        let snapshot = index.snapshot();
        let queries = moved(&queries);
        let truth = search(&snapshot, &queries, 10, effort(n));
        let found = search(&snapshot, &queries, 10, effort(64));
        assert!(recall(&found, &truth) >= 0.97, "{encoding:?}: {}", recall(&found, &truth));
    }
}

/// Lengths that differ by a factor of a hundred, and inner products.
#[test]
fn inner_products_of_very_different_lengths_are_found() {
    let (dim, n) = (24, 5000);
    let mut random = Random::new(4, 0);
    let mut values = vectors(Data::Normal, n, dim, Encoding::Float32, 5);
    for x in values.chunks_exact_mut(dim) {
        let length = 10f32.powf(2.0 * uniform(&mut random) - 1.0);
        x.iter_mut().for_each(|x| *x *= length);
    }
    let queries = queries(Data::Normal, 100, dim, Encoding::Float32, 6);
    let spec = spec(dim, Metric::InnerProduct, Encoding::Float32);
    let truth = search(&filled(exact(spec), &values).snapshot(), &queries, 10, Knobs::default());
    let linked = filled(spec, &values);
    check_links(&linked.snapshot());
    assert!(recall(&search(&linked.snapshot(), &queries, 10, Knobs::default()), &truth) >= 0.95);
    // The same where vectors come little by little.
    let grown = index(spec);
    values.chunks(300 * dim).for_each(|part| add(&grown, part));
    check_links(&grown.snapshot());
    assert!(recall(&search(&grown.snapshot(), &queries, 10, Knobs::default()), &truth) >= 0.95);
}

#[test]
fn a_batch_is_one_by_one() {
    let dim = 20;
    for (i, (encoding, rerank)) in kinds().into_iter().enumerate() {
        let metric = METRICS[i % METRICS.len()];
        let values = vectors(Data::Groups, 2500, dim, encoding, 11);
        let queries = queries(Data::Groups, 60, dim, encoding, 12);
        let index = filled(Spec { rerank, ..spec(dim, metric, encoding) }, &values);
        remove(&index, (0..2500).filter(|id| id % 90 == 2));
        add(&index, &vectors(Data::Groups, 200, dim, encoding, 13));
        let snapshot = index.snapshot();
        // Of those that pass, all are looked at, many queries together; or a walk finds them.
        let (some, most): (Vec<bool>, Vec<bool>) =
            (0..snapshot.len()).map(|i| (i % 3 == 0, i % 5 != 0)).unzip();
        for allowed in [None, Some(Allowed::Mask(&some)), Some(Allowed::Mask(&most))] {
            for n_threads in [1, 3] {
                let work = Work::new(Some(n_threads), &Silent);
                let run = |queries: &[f32]| {
                    let queries = Queries::Numbers(queries);
                    let found = snapshot.search(queries, 10, allowed, Knobs::default(), &work).unwrap();
                    answers(&snapshot, &found.found)
                };
                let one_by_one: Vec<_> = queries.chunks_exact(dim).flat_map(run).collect();
                assert_eq!(run(&queries), one_by_one);
            }
        }
    }
}

/// While a few are dead, searches find what they found before, but for those.
#[test]
fn a_few_dead_rows_change_little() {
    let (dim, n) = (24, 4000);
    let values = vectors(Data::Groups, n, dim, Encoding::Float32, 31);
    let queries = queries(Data::Groups, 100, dim, Encoding::Float32, 32);
    let index = filled(spec(dim, Metric::Euclidean, Encoding::Float32), &values);
    for knobs in [effort(16), effort(64)] {
        let before = index.snapshot();
        let found = search(&before, &queries, 10, knobs);
        let gone: Vec<i64> = found.iter().step_by(20).map(|list| list[3].row.into()).collect();
        remove(&index, gone.iter().copied());
        let after = search(&index.snapshot(), &queries, 10, knobs);
        let left = |list: &Vec<Candidate>| -> Vec<Candidate> {
            list.iter().copied().filter(|near| !gone.contains(&near.row.into())).collect()
        };
        let left: Vec<_> = found.iter().map(left).collect();
        assert!(recall(&after, &left) >= 0.99, "{}", recall(&after, &left));
    }
}

/// Exactly as many as match, whatever is kept, and nearly all of the nearest of them.
#[test]
fn filters_return_all_that_match() {
    let (dim, n) = (16, 6000);
    let mut random = Random::new(3, 0);
    for (encoding, rerank) in kinds() {
        let values = vectors(Data::Groups, n, dim, encoding, 21);
        let queries = queries(Data::Groups, 30, dim, encoding, 22);
        let spec = Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) };
        let linked = filled(spec, &values).snapshot();
        // The same codes, all looked at.
        let along = |row: usize| values[row * dim] < values[dim];
        let against =
            |row: usize| distance(Metric::Euclidean, &queries[..dim], &values[row * dim..][..dim]) > 12.0;
        let masks: Vec<Vec<bool>> = vec![
            (0..n).map(|_| random.below(2) == 0).collect(),
            (0..n).map(|_| random.below(20) == 0).collect(),
            (0..n).map(|_| random.below(500) == 0).collect(),
            (0..n).map(along).collect(),
            (0..n).map(against).collect(),
            vec![false; n],
        ];
        for mask in &masks {
            let matches = mask.iter().filter(|keep| **keep).count();
            let run = |k, knobs| {
                let (queries, allowed) = (Queries::Numbers(&queries), Some(Allowed::Mask(mask)));
                linked.search(queries, k, allowed, knobs, &Work::inline()).unwrap().found
            };
            for k in [1, 10, 5000] {
                let truth = run(k, effort(n));
                let found = run(k, Knobs::default());
                for list in found.iter().chain(&truth) {
                    check_order(list);
                    assert_eq!(list.len(), k.min(matches), "{encoding:?} {matches} {k}");
                    assert!(list.iter().all(|near| mask[near.row as usize]));
                }
                let reached = recall(&found, &truth);
                assert!(matches == 0 || reached >= 0.9, "{encoding:?} {rerank:?} {matches} {k}: {reached}");
            }
        }
    }
}

#[test]
fn all_within_a_distance_are_found() {
    let (dim, n) = (12, 4000);
    for (i, &metric) in METRICS.iter().enumerate() {
        for encoding in [Encoding::Float32, Encoding::UInt8] {
            let values = vectors(Data::Groups, n, dim, encoding, 31);
            let queries = queries(Data::Groups, 20, dim, encoding, 32 + i as u64);
            let spec = spec(dim, metric, encoding);
            let (linked, plain) = (filled(spec, &values).snapshot(), filled(exact(spec), &values).snapshot());
            for rank in [0, 5, 500] {
                let all = search(&plain, &queries, 501, Knobs::default());
                let radius = all[0][rank].distance;
                let run = |snapshot: &Snapshot, knobs| {
                    let queries = Queries::Numbers(&queries);
                    snapshot.search_radius(queries, radius, None, knobs, &Work::inline()).unwrap().found
                };
                let truth = run(&plain, Knobs::default());
                let found = run(&linked, Knobs::default());
                let reached = recall(&found, &truth);
                let least = if metric == Metric::InnerProduct { 0.9 } else { 0.97 };
                assert!(reached >= least, "{metric:?} {encoding:?} {rank}: {reached}");
                assert!(found.iter().flatten().all(|near| near.distance <= radius));
                assert_eq!(answers(&linked, &run(&linked, effort(n))), answers(&plain, &truth));
            }
        }
    }
}

#[test]
fn a_vector_is_no_neighbour_of_itself() {
    let (dim, n) = (10, 2000);
    for (encoding, rerank) in kinds() {
        // Each twice.
        let mut values = vectors(Data::Groups, n / 2, dim, encoding, 41);
        values.extend(values.clone());
        let linked = filled(Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) }, &values).snapshot();
        let ids: Vec<i64> = (0..n as i64).step_by(37).collect();
        let list = IdList::Int(ids.clone());
        let found = linked.neighbors_of(&list, 5, None, Knobs::default(), &Work::inline()).unwrap().found;
        let half = n as i64 / 2;
        let mut n_twins = 0;
        for (id, list) in ids.iter().zip(&found) {
            check_order(list);
            assert_eq!(list.len(), 5);
            assert!(list.iter().all(|near| i64::from(near.row) != *id));
            n_twins += usize::from(list.iter().any(|near| i64::from(near.row) == (id + half) % n as i64));
        }
        assert!(n_twins * 100 >= 95 * ids.len(), "{encoding:?}: {n_twins} of {}", ids.len());
    }
}

// --- odd sets ---

#[test]
fn few_vectors_are_searched_exactly_until_there_are_links() {
    let dim = 8;
    for (encoding, rerank) in kinds() {
        let values = vectors(Data::Groups, 1100, dim, encoding, 51);
        let index = index(Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) });
        for (n, part) in (1..).zip(values[..1000 * dim].chunks(100 * dim)) {
            add(&index, part);
            let snapshot = index.snapshot();
            assert!(!snapshot.is_trained() && snapshot.len() == 100 * n);
            let found = search(&snapshot, &values[..dim], 1, Knobs::default());
            assert_eq!((found[0][0].row, found[0][0].distance), (0, 0.0));
            check_file(&snapshot);
        }
        add(&index, &values[1000 * dim..]);
        let snapshot = index.snapshot();
        assert!(snapshot.is_trained());
        check_links(&snapshot);
        assert_eq!(snapshot.stats().graph.unwrap().n_waiting, 0);
        check_file(&snapshot);
    }
}

/// What waits is found at once, and counted.
#[test]
fn new_vectors_are_found_before_they_are_linked() {
    let dim = 16;
    for (encoding, rerank) in kinds() {
        let values = vectors(Data::Groups, 2000, dim, encoding, 61);
        let index = filled(Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) }, &values);
        let mut n_waiting = 0;
        for i in 0..40 {
            let n = 1 + i % 60;
            let new = vectors(Data::Normal, n, dim, encoding, i as u64);
            let IdList::Int(ids) = change(&index, &new, None, false).unwrap() else { panic!("numbers") };
            n_waiting = (n_waiting + n) % 100_000;
            let snapshot = index.snapshot();
            check_links(&snapshot);
            if n_waiting < FIRST {
                assert_eq!(snapshot.stats().graph.unwrap().n_waiting, n_waiting);
            }
            let found = search(&snapshot, &new[..dim], 10, Knobs::default());
            let rows = found[0].iter().map(|near| near.row);
            let IdList::Int(found) = snapshot.ids_of(rows) else { panic!("numbers") };
            assert!(found.contains(&ids[0]), "{encoding:?} {i}");
        }
        check_file(&index.snapshot());
    }
}

/// A thousand copies of a vector, tight groups, one dimension, all alike: every vector can be reached, and is found.
#[test]
fn every_vector_can_be_reached() {
    for (i, &data) in DATA.iter().enumerate() {
        for dim in [1, 5, 40] {
            for (encoding, rerank) in
                [(Encoding::Float32, None), (Encoding::UInt8, None), (scalar4(), Some(scalar8()))]
            {
                let mut values = vectors(data, 1500, dim, encoding, i as u64);
                let copied = values[..dim].to_vec();
                values.extend((0..1000).flat_map(|_| copied.iter().copied()));
                let spec = Spec { rerank, ..spec(dim, METRICS[i % 5], encoding) };
                let whole = filled(spec, &values);
                check_links(&whole.snapshot());
                let grown = index(spec);
                values.chunks(900 * dim).for_each(|part| add(&grown, part));
                check_links(&grown.snapshot());
                for index in [whole, grown] {
                    let found = search(&index.snapshot(), &values[..dim], 1000, Knobs::default());
                    check_order(&found[0]);
                    assert_eq!(found[0].len(), 1000);
                    check_file(&index.snapshot());
                }
            }
        }
    }
}

/// More groups of copies than there may be hubs, each larger than what its links are chosen from: no group leads to another by
/// itself.
#[test]
fn many_groups_of_copies_are_found_without_as_many_hubs() {
    const COPIES: usize = 12;
    for (metric, encoding) in [(Metric::Euclidean, Encoding::Float32), (Metric::Cosine, Encoding::UInt8)] {
        let dim = 8;
        let of_groups = vectors(Data::Normal, 1500, dim, encoding, 5);
        let structure = Structure::Graph { degree: 8, ef_build: 8 };
        let spec = Spec { structure, ..spec(dim, metric, encoding) };
        let values: Vec<f32> = of_groups
            .chunks(dim)
            .flat_map(|group| group.iter().cycle().take(COPIES * dim))
            .copied()
            .collect();
        let whole = filled(spec, &values);
        let grown = index(spec);
        values.chunks(3000 * dim).for_each(|part| add(&grown, part));
        for index in [whole, grown] {
            let snapshot = index.snapshot();
            check_links(&snapshot);
            let stats = snapshot.stats().graph.unwrap();
            assert!((200..=512).contains(&stats.n_hubs), "{} hubs", stats.n_hubs);
            let found = search(&snapshot, &of_groups, COPIES, effort(64));
            let n_found = found.iter().flatten().filter(|near| near.distance <= 1e-6).count();
            let recall = n_found as f64 / (1500 * COPIES) as f64;
            assert!(recall >= 0.97, "{metric:?} {encoding:?}: {recall}");
        }
    }
}

// --- changes ---

#[test]
fn it_behaves_as_the_model() {
    for (i, (encoding, rerank)) in kinds().into_iter().enumerate() {
        let spec = Spec { rerank, ..spec(6, METRICS[i % 5], encoding) };
        play(i as u64, spec, i % 2 == 0, Data::Groups, 40, 900);
        play(100 + i as u64, spec, i % 2 == 1, Data::Copies, 25, 900);
    }
}

/// Of each row found: it is where its vector says, with the id that it was given.
fn check_found(index: &Arc<Index>, expected: &[(i64, Vec<f32>)]) {
    let snapshot = index.snapshot();
    assert_eq!(snapshot.len(), expected.len());
    let mut n_found = 0;
    for (id, vector) in expected.iter().step_by(1 + expected.len() / 300) {
        let found = search(&snapshot, vector, 3, effort(200));
        let IdList::Int(ids) = snapshot.ids_of(found[0].iter().map(|near| near.row)) else {
            panic!("numbers")
        };
        n_found += usize::from(ids.contains(id));
    }
    let n = expected.len().div_ceil(1 + expected.len() / 300);
    assert!(n_found * 100 >= 98 * n, "{n_found} of {n}");
}

/// Columns of vectors, codes and ids stay in step whatever happened before links are made, and whatever was undone.
#[test]
fn what_belongs_to_a_row_stays_together() {
    let (dim, n) = (8, 1000);
    for (encoding, rerank) in
        [(Encoding::Float32, None), (Encoding::UInt8, None), (scalar8(), None), (scalar4(), Some(scalar8()))]
    {
        for n_upserts in 0..6 {
            let index = index(Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) });
            let values = vectors(Data::Normal, n + 500, dim, encoding, 151);
            let row = |id: i64| values[id as usize * dim..][..dim].to_vec();
            let some = |range: std::ops::Range<i64>| -> (Vec<f32>, Option<IdList>) {
                (range.clone().flat_map(row).collect(), Some(IdList::Int(range.collect())))
            };
            let put = |range, replace| {
                let (values, ids) = some(range);
                change(&index, &values, ids, replace)
            };
            put(0..n as i64, false).unwrap();
            for _ in 0..n_upserts {
                put(0..n as i64, true).unwrap();
            }
            for first in (n as i64..n as i64 + 500).step_by(100) {
                put(first..first + 100, false).unwrap();
                // An id that is there: all of it is undone.
                assert!(put(first..first + 100, false).is_err());
            }
            let expected: Vec<(i64, Vec<f32>)> = (0..n as i64 + 500).map(|id| (id, row(id))).collect();
            check_found(&index, &expected);
            check_file(&index.snapshot());
        }
    }
}

/// The same with several chunks, free ones among them.
#[test]
fn changes_that_are_undone_leave_free_chunks_as_they_are() {
    let (dim, n) = (4, 140_000);
    let values = vectors(Data::Normal, n, dim, Encoding::UInt8, 161);
    let index =
        filled(Spec { encoding: Encoding::UInt8, ..spec(dim, Metric::Euclidean, Encoding::UInt8) }, &values);
    assert_eq!(remove(&index, 0..100_000), 100_000);
    let row = |id: i64| values[(id as usize % n) * dim..][..dim].to_vec();
    let of = |range: std::ops::Range<i64>| {
        (range.clone().flat_map(row).collect::<Vec<f32>>(), IdList::Int(range.collect()))
    };
    let (many, mut ids) = of(200_000..350_000);
    if let IdList::Int(ids) = &mut ids {
        ids[140_000] = 120_000;
    }
    assert!(change(&index, &many, Some(ids), false).is_err());
    let (some, ids) = of(200_000..330_000);
    change(&index, &some, Some(ids), false).unwrap();
    let expected: Vec<(i64, Vec<f32>)> =
        (100_000..140_000).chain(200_000..330_000).map(|id| (id, row(id))).collect();
    let snapshot = index.snapshot();
    assert_eq!(snapshot.len(), expected.len());
    for (id, vector) in expected.iter().step_by(97) {
        let rows = snapshot.rows_of(&IdList::Int(vec![*id])).unwrap();
        let mut found = Vec::new();
        let take = |values: Values<'_>| match values {
            Values::UInt8(values) => found.extend(values.iter().map(|&x| f32::from(x))),
            other => panic!("{}", other.element()),
        };
        snapshot.values_of(&rows, take).unwrap();
        assert_eq!(found, *vector, "{id}");
    }
}

/// More than a chunk: rows that move together when a chunk is mostly dead are found under their new numbers.
#[test]
fn rows_may_move_to_other_chunks() {
    let (dim, n) = (4, 80_000);
    for (encoding, rerank) in
        [(Encoding::Float32, None), (Encoding::UInt8, None), (scalar4(), Some(scalar8()))]
    {
        let values = vectors(Data::Groups, n, dim, encoding, 111);
        let index = filled(Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) }, &values);
        assert_eq!(remove(&index, 0..40_000), 40_000);
        let snapshot = index.snapshot();
        assert_eq!(snapshot.stats().n_removed, 0, "both chunks, half empty, became one");
        check_links(&snapshot);
        check_file(&snapshot);
        let more = vectors(Data::Groups, 50_000, dim, encoding, 112);
        add(&index, &more);
        let snapshot = index.snapshot();
        check_links(&snapshot);
        check_file(&snapshot);
        let (mut n_found, at): (usize, Vec<usize>) = (0, (0..50_000).step_by(500).collect());
        for &at in &at {
            let found = search(&snapshot, &more[at * dim..][..dim], 20, effort(200));
            let IdList::Int(ids) = snapshot.ids_of(found[0].iter().map(|near| near.row)) else {
                panic!("numbers")
            };
            n_found += usize::from(ids.contains(&(n as i64 + at as i64)) || found[0][19].distance == 0.0);
        }
        assert!(n_found * 100 >= 95 * at.len(), "{encoding:?}: {n_found} of {}", at.len());
        remove(&index, 40_500..130_000);
        let snapshot = index.snapshot();
        assert_eq!(snapshot.len(), 500);
        check_links(&snapshot);
        check_file(&snapshot);
        assert_eq!(search(&snapshot, &values[..dim], 600, Knobs::default())[0].len(), 500);
    }
}

/// Opened again it answers as before; dead rows, which are ways no longer, aside.
#[test]
fn saving_changes_no_answer() {
    let dim = 10;
    for (i, (encoding, rerank)) in kinds().into_iter().enumerate() {
        let data = [Data::Groups, Data::Copies, Data::Ties][i % 3];
        let values = vectors(data, 3000, dim, encoding, 121);
        let queries = queries(data, 40, dim, encoding, 122);
        let index = filled(Spec { rerank, ..spec(dim, METRICS[i % 5], encoding) }, &values);
        // So many that they are linked around at once.
        remove(&index, (0..3000).filter(|id| id % 7 == 2));
        add(&index, &vectors(data, 300, dim, encoding, 123));
        let snapshot = index.snapshot();
        assert!(snapshot.stats().n_removed > 0);
        let mask: Vec<bool> = (0..snapshot.len()).map(|i| i % 5 == 0).collect();
        for opened in [reopened(&snapshot), mapped(&snapshot)] {
            let opened = opened.snapshot();
            check_links(&opened);
            assert_eq!((opened.len(), opened.ids()), (snapshot.len(), snapshot.ids()));
            for knobs in [Knobs::default(), effort(20), effort(5000)] {
                for allowed in [None, Some(Allowed::Mask(&mask))] {
                    let run = |snapshot: &Snapshot| {
                        let queries = Queries::Numbers(&queries);
                        let found = snapshot.search(queries, 10, allowed, knobs, &Work::inline()).unwrap();
                        answers(snapshot, &found.found)
                    };
                    assert_eq!(run(&opened), run(&snapshot), "{encoding:?} {rerank:?} {knobs:?}");
                }
            }
            let IdList::Int(ids) = opened.ids() else { panic!("numbers") };
            let some = IdList::Int(ids.iter().copied().step_by(90).collect());
            let rows = |snapshot: &Snapshot| values_of(snapshot, &snapshot.rows_of(&some).unwrap());
            assert_eq!(rows(&opened), rows(&snapshot));
        }
    }
}

/// A fifth goes and comes back, ten times: neither recall nor links get worse.
#[test]
fn recall_stays_under_churn() {
    let (dim, n) = (24, 6000);
    for (encoding, rerank) in
        [(Encoding::Float32, None), (Encoding::UInt8, None), (scalar4(), Some(scalar8()))]
    {
        let values = vectors(Data::Groups, n, dim, encoding, 131);
        let queries = queries(Data::Groups, 100, dim, encoding, 132);
        let spec = Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) };
        let index = filled(spec, &values);
        let fresh = search(&index.snapshot(), &queries, 10, effort(30));
        let whole = Spec {
            rerank: None,
            encoding: if rerank.is_some() { Encoding::Float32 } else { encoding },
            ..exact(spec)
        };
        let truth = search(&filled(whole, &values).snapshot(), &queries, 10, Knobs::default());
        let mut random = Random::new(9, 0);
        for round in 0..10 {
            let some: Vec<i64> = match round % 2 {
                0 => (0..n as i64).filter(|_| random.below(5) == 0).collect(),
                _ => {
                    let first = random.below(n * 4 / 5) as i64;
                    (first..first + n as i64 / 5).collect()
                }
            };
            remove(&index, some.iter().copied());
            check_links(&index.snapshot());
            for part in some.chunks(250) {
                let of = |id: &i64| values[*id as usize * dim..][..dim].to_vec();
                let rows: Vec<f32> = part.iter().flat_map(of).collect();
                change(&index, &rows, Some(IdList::Int(part.to_vec())), false).unwrap();
            }
            check_links(&index.snapshot());
        }
        let snapshot = index.snapshot();
        let by_id = |snapshot: &Snapshot, found: Vec<Vec<Candidate>>| -> Vec<Vec<Candidate>> {
            let of = |list: Vec<Candidate>| {
                let IdList::Int(ids) = snapshot.ids_of(list.iter().map(|near| near.row)) else {
                    panic!("numbers")
                };
                list.iter().zip(ids).map(|(near, id)| Candidate { row: id as u32, ..*near }).collect()
            };
            found.into_iter().map(of).collect()
        };
        let found = by_id(&snapshot, search(&snapshot, &queries, 10, effort(30)));
        let (before, after) = (recall(&fresh, &truth), recall(&found, &truth));
        assert!(after >= before - 0.01, "{encoding:?}: {before} became {after}");
    }
}

/// Rows that died little by little count as much as those that die at once: when an eighth has, all links are chosen anew.
#[test]
fn links_around_dead_rows_do_not_last() {
    let (dim, n) = (12, 6000);
    for (encoding, rerank) in
        [(Encoding::Float32, None), (Encoding::UInt8, None), (scalar4(), Some(scalar8()))]
    {
        let values = vectors(Data::Groups, n, dim, encoding, 141);
        let spec = Spec { rerank, ..spec(dim, Metric::Euclidean, encoding) };
        let [little_by_little, at_once] = [filled(spec, &values), filled(spec, &values)];
        for first in (0..600).step_by(100) {
            remove(&little_by_little, first..first + 100);
        }
        let linked_around = bytes_of(&little_by_little.snapshot());
        let not_yet = filled(spec, &values);
        remove(&not_yet, 0..600);
        assert_ne!(linked_around, bytes_of(&not_yet.snapshot()), "{encoding:?}");
        // What is opened remembers.
        let opened = reopened(&little_by_little.snapshot());
        for index in [&little_by_little, &opened] {
            remove(index, 600..800);
        }
        remove(&at_once, 0..800);
        let expected = bytes_of(&at_once.snapshot());
        assert!(bytes_of(&little_by_little.snapshot()) == expected, "{encoding:?}");
        assert!(bytes_of(&opened.snapshot()) == expected, "{encoding:?}, opened");
    }
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let dim = 12;
    for (encoding, rerank) in kinds() {
        let values = vectors(Data::Groups, 5000, dim, encoding, 141);
        let made = |n_threads: usize| {
            let work = Work::new(Some(n_threads), &Silent);
            let index: Arc<Index> = index(Spec { rerank, ..spec(dim, Metric::Cosine, encoding) });
            for part in [&values[..3000 * dim], &values[3000 * dim..4300 * dim], &values[4300 * dim..]] {
                let mut stage = index.stage(nearest_core::index::Zeros::Accept, &Silent).unwrap();
                stage.append(Values::Float32(part), None, &work).unwrap();
                stage.commit(false, &work).unwrap();
            }
            index.remove(&IdList::Int((0..700).collect()), &work).unwrap();
            bytes_of(&index.snapshot())
        };
        assert!(made(1) == made(3), "{encoding:?} {rerank:?}");
    }
}

#[test]
fn graphs_that_make_no_sense_are_refused() {
    let of = |degree, ef_build| Structure::Graph { degree, ef_build };
    let good = spec(8, Metric::Euclidean, Encoding::Float32);
    for (spec, word) in [
        (Spec { structure: of(1, 32), ..good }, "degree"),
        (Spec { structure: of(300, 32), ..good }, "degree"),
        (Spec { structure: of(32, 1), ..good }, "ef_build"),
        (
            Spec { metric: Metric::Manhattan, ..good },
            "Graph goes with the metrics euclidean, sqeuclidean, cosine, angular and inner_product, got metric=manhattan",
        ),
        (Spec { rerank: Some(product(4, 4)), encoding: scalar4(), ..good }, "got rerank=product(4, 4)"),
        (Spec { encoding: rabitq(2), ..good }, "scalar8, scalar4"),
        (Spec { encoding: product(4, 8), ..good }, "scalar8, scalar4"),
        (Spec { shadow: true, ..good }, "in a graph"),
    ] {
        match Index::new(spec) {
            Err(Error::Argument(text) | Error::NotImplemented(text)) => {
                assert!(text.contains(word), "{text}")
            }
            other => panic!("{other:?}"),
        }
    }
}
