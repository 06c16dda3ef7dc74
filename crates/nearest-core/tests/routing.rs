//! Routing by groups against its slow twin, the comparison with all centroids.

use std::sync::Arc;

use nearest_core::coder::ShortEncoding;
use nearest_core::kmeans::Side;
use nearest_core::lists::{
    Assigner, Block, CodedQueries, Codes, Grouping, List, Matches, Plan, Probes, Reach, RouteScratch, Router,
    Term, Trail, Wanted, train,
};
use nearest_core::live::RowSet;
use nearest_core::memory::{Allocator, Slots, SystemAllocator};
use nearest_core::metric::Metric;
use nearest_core::random::Random;
use nearest_core::work::{Silent, Work};
use nearest_kernels::Kernels;
use proptest::prelude::*;

const METRICS: [Metric; 3] = [Metric::Euclidean, Metric::Cosine, Metric::InnerProduct];

/// Lists of so many rows.
fn lists(sizes: &[u32]) -> Vec<Arc<List>> {
    let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
    let mut rows = 0..;
    let mut list = |n: usize| {
        if n == 0 {
            return Arc::default();
        }
        let (slots, mut writer) = Slots::<u8>::with_capacity(Block::size(n, 0), &allocator).unwrap();
        let terms: Vec<Term> = rows.by_ref().take(n).map(|row| Term { scale: 1.0, bias: 0.0, row }).collect();
        writer.stage(Block::size(n, 0), |bytes| Block::write_terms(bytes, &terms));
        writer.publish();
        Arc::new(List { blocks: vec![Block::at(&slots, 0, n, 0).unwrap()] })
    };
    sizes.iter().map(|&n| list(n as usize)).collect()
}

/// Points around points around points.
fn points(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, 0);
    let mut number = move || random.below(2001) as f32 / 1000.0 - 1.0;
    let far: Vec<f32> = (0..12 * dim).map(|_| 3.0 * number()).collect();
    (0..n).flat_map(|i| far[i % 12 * dim..][..dim].iter().map(|c| c + number()).collect::<Vec<_>>()).collect()
}

/// Both routers of some centroids.
fn twins(metric: Metric, dim: usize, mut centroids: Vec<f32>) -> (Router, Router) {
    let grouping = Grouping::new(&mut centroids, dim, 7, &Work::inline()).unwrap();
    grouping.check(centroids.len() / dim, dim).unwrap();
    by_hand(metric, dim, centroids, grouping)
}

fn by_hand(metric: Metric, dim: usize, centroids: Vec<f32>, grouping: Grouping) -> (Router, Router) {
    let kernels = Kernels::best();
    let flat = Router::new(kernels, metric, dim, centroids.clone());
    (flat, Router::two_level(kernels, metric, dim, centroids, grouping))
}

fn reach<'a>(n_probe: usize) -> Reach<'a> {
    Reach { n_probe, gap: None, wanted: None, by_distance: false }
}

/// The lists of each query; in ascending order if there are several queries.
fn routed(router: &Router, queries: &[f32], reach: Reach<'_>) -> Vec<Vec<u32>> {
    let (kernels, dim) = (Kernels::best(), router.dim());
    let mut codes = CodedQueries::default();
    codes.code(kernels, queries, dim, &vec![0.0; dim]);
    let (mut probes, mut scratch) = (Probes::default(), RouteScratch::default());
    // Buffers that were used for something else.
    let other = Reach { n_probe: 3, gap: Some(0.5), wanted: None, by_distance: true };
    router.route(kernels, queries, &codes, other, &mut probes, &mut scratch);
    router.route(kernels, queries, &codes, reach, &mut probes, &mut scratch);
    assert_eq!(probes.lists.len(), probes.bases.len());
    let n = queries.len() / dim;
    (0..n)
        .map(|query| {
            let mut lists = probes.lists[probes.of(query)].to_vec();
            if n > 1 {
                lists.sort_unstable();
            }
            lists
        })
        .collect()
}

/// The mean share of the lists of one that are lists of the other.
fn coverage(expected: &[Vec<u32>], got: &[Vec<u32>]) -> f64 {
    let of = |(expected, got): (&Vec<u32>, &Vec<u32>)| {
        let found = expected.iter().filter(|list| got.contains(list)).count();
        if expected.is_empty() { 1.0 } else { found as f64 / expected.len() as f64 }
    };
    expected.iter().zip(got).map(of).sum::<f64>() / expected.len() as f64
}

#[test]
fn the_nearest_lists_are_those_of_a_comparison_with_all() {
    for (metric, dim, n_lists) in
        [(METRICS[0], 8, 3000), (METRICS[1], 40, 2500), (METRICS[2], 24, 3000), (METRICS[0], 100, 2500)]
    {
        let (flat, two) = twins(metric, dim, points(n_lists, dim, 1));
        assert!(two.memory_bytes() < flat.memory_bytes(), "groups are packed when they are needed");
        let queries = points(300, dim, 2);
        for n_probe in [1, 5, 20, 64] {
            for gap in [None, Some(0.3)] {
                for by_distance in [false, true] {
                    let reach = Reach { gap, by_distance, ..reach(n_probe) };
                    let (expected, got) = (routed(&flat, &queries, reach), routed(&two, &queries, reach));
                    let covered = coverage(&expected, &got);
                    assert!(covered >= 0.99, "{metric:?} {dim} {n_probe} {gap:?} {by_distance}: {covered}");
                    if gap.is_none() {
                        assert!(got.iter().all(|lists| lists.len() == n_probe));
                    }
                }
            }
        }
        assert!(two.memory_bytes() > flat.memory_bytes());
        assert_eq!(two.centroids(), flat.centroids());
        let (mut one, mut other) = (Vec::new(), Vec::new());
        flat.scores(Kernels::best(), &queries[..dim], &mut one);
        two.scores(Kernels::best(), &queries[..dim], &mut other);
        assert_eq!(one, other);
    }
}

#[test]
fn all_lists_are_looked_at_if_asked_for() {
    let (flat, two) = twins(Metric::Euclidean, 6, points(2000, 6, 3));
    let queries = points(20, 6, 4);
    for n_probe in [2000, 2001, usize::MAX] {
        for gap in [None, Some(0.1)] {
            let reach = Reach { gap, ..reach(n_probe) };
            let got = routed(&two, &queries, reach);
            assert!(got.iter().all(|lists| lists.iter().copied().eq(0..2000)));
            // Nearest first if there is one query.
            assert_eq!(routed(&flat, &queries[..6], reach), routed(&two, &queries[..6], reach));
        }
    }
}

#[test]
fn a_batch_is_one_by_one() {
    for metric in METRICS {
        let (_, two) = twins(metric, 16, points(2500, 16, 5));
        let queries = points(1300, 16, 6);
        let sizes: Vec<u32> = (0..2500).map(|list| u32::from(list % 7 == 0)).collect();
        let (lists, selected) = (lists(&sizes), RowSet::first(1 << 12));
        let words = selected.all_words();
        let matches = Matches::new(&lists, &words, None);
        let mut trails = vec![Trail::default(); 1300];
        trails.iter_mut().for_each(|trail| trail.begin(12));
        let numbers: Vec<u32> = (0..1300).collect();
        for filtered in [false, true] {
            let wanted = |range: std::ops::Range<usize>| {
                filtered.then(|| Wanted { matches: &matches, trails: &trails, queries: &numbers[range] })
            };
            for gap in [None, Some(0.4)] {
                let reach = |range| Reach { gap, wanted: wanted(range), ..reach(12) };
                let all = routed(&two, &queries, reach(0..1300));
                for (i, expected) in all.iter().enumerate().step_by(29) {
                    let mut alone = routed(&two, &queries[i * 16..][..16], reach(i..i + 1)).remove(0);
                    alone.sort_unstable();
                    assert_eq!(&alone, expected, "{metric:?} {i}");
                }
                let some = routed(&two, &queries[100 * 16..800 * 16], reach(100..800));
                assert_eq!(&all[100..800], some);
            }
        }
    }
}

#[test]
fn filters_meet_as_many_rows() {
    let dim = 12;
    let (flat, two) = twins(Metric::Euclidean, dim, points(3000, dim, 8));
    let queries = points(100, dim, 9);
    let sets: [(&str, Vec<u32>); 4] = [
        ("many", (0..3000).map(|list| 4 + list % 5).collect()),
        ("few", (0..3000).map(|list| u32::from(list % 150 == 3)).collect()),
        // Only far from these queries.
        ("far", (0..3000).map(|list| if list < 200 { 10 } else { 0 }).collect()),
        ("none", vec![0; 3000]),
    ];
    for (name, sizes) in &sets {
        let there = sizes.iter().sum::<u32>();
        let (lists, selected) = (lists(sizes), RowSet::first(there as usize));
        let words = selected.all_words();
        let matches = Matches::new(&lists, &words, None);
        for rows in [1, 15, 100, 1_000_000] {
            let mut trails = vec![Trail::default(); 100];
            trails.iter_mut().for_each(|trail| trail.begin(rows));
            let numbers: Vec<u32> = (0..100).collect();
            let wanted = Some(Wanted { matches: &matches, trails: &trails, queries: &numbers });
            let reach = Reach { wanted, ..reach(8) };
            let (expected, got) = (routed(&flat, &queries, reach), routed(&two, &queries, reach));
            let covered = coverage(&expected, &got);
            assert!(covered >= 0.99, "{name} {rows}: {covered}");
            for lists in got {
                let met: u64 = lists.iter().map(|&list| u64::from(sizes[list as usize])).sum();
                assert!(met >= rows.min(there.into()), "{name}: {met} of {rows} rows");
            }
        }
    }
}

#[test]
fn odd_groups_serve() {
    let dim = 3;
    let centroids: Vec<f32> = (0..30).map(|i| (i * 7 % 10) as f32).collect();
    let queries: Vec<f32> = (0..30).map(|i| (i * 3 % 11) as f32 - 2.0).collect();
    let ends: [&[u32]; 6] = [
        &[10],
        &[0, 10],
        &[10, 10, 10],
        &[0, 0, 3, 3, 9, 10, 10],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        &[9, 10],
    ];
    for (metric, ends) in METRICS.into_iter().flat_map(|metric| ends.map(|ends| (metric, ends))) {
        for centre in [0.0, 4.0, 1e30, f32::MAX] {
            let grouping = Grouping { centres: vec![centre; ends.len() * dim], ends: ends.to_vec() };
            grouping.check(10, dim).unwrap();
            let (flat, two) = by_hand(metric, dim, centroids.clone(), grouping);
            for (n_probe, queries) in [(1, &queries[..]), (4, &queries), (10, &queries), (3, &queries[..3])] {
                let reach = reach(n_probe);
                assert_eq!(routed(&flat, queries, reach), routed(&two, queries, reach), "{ends:?} {centre}");
            }
        }
    }
    for (centres, ends) in [
        (vec![0.0; 3], vec![]),
        (vec![], vec![]),
        (vec![0.0; 3], vec![9]),
        (vec![0.0; 3], vec![11]),
        (vec![0.0; 6], vec![7, 6]),
        (vec![0.0; 6], vec![11, 10]),
        (vec![0.0; 3], vec![u32::MAX]),
        (vec![0.0, f32::NAN, 0.0], vec![10]),
        (vec![0.0; 33], vec![10; 11]),
    ] {
        let grouping = Grouping { centres, ends };
        assert!(grouping.check(10, dim).is_err(), "{grouping:?}");
    }
}

#[test]
fn centroids_that_are_alike() {
    // All of them, or a few many times: all that are as near are as good.
    for n_different in [1, 2, 40] {
        let centroids: Vec<f32> = (0..2000).flat_map(|i| [(i % n_different) as f32, 1.0]).collect();
        let (flat, two) = twins(Metric::Euclidean, 2, centroids);
        let queries: Vec<f32> = (0..50).flat_map(|i| [i as f32 * 0.8, 2.0]).collect();
        for n_probe in [1, 30, 300, 2000] {
            let kind = |lists: Vec<Vec<u32>>| -> Vec<Vec<u32>> {
                let of = |&list: &u32| flat.centroid(list)[0] as u32;
                lists
                    .iter()
                    .map(|lists| {
                        let mut kinds: Vec<u32> = lists.iter().map(of).collect();
                        kinds.sort_unstable();
                        kinds
                    })
                    .collect()
            };
            let expected = kind(routed(&flat, &queries, reach(n_probe)));
            let got = routed(&two, &queries, reach(n_probe));
            for lists in &got {
                assert!(lists.windows(2).all(|pair| pair[0] < pair[1]), "a list twice");
            }
            assert_eq!(kind(got), expected, "{n_different} {n_probe}");
        }
    }
}

#[test]
fn rows_go_to_the_same_lists() {
    let (dim, kernels) = (20, Kernels::best());
    let rows = points(1000, dim, 11);
    for metric in METRICS {
        let (flat, two) = twins(metric, dim, points(3000, dim, 10));
        let of = |router: &Router| Assigner::new(f32::INFINITY).assign(kernels, router, &rows);
        let same = of(&flat).into_iter().zip(of(&two));
        let n_same = same.filter(|(a, b)| (a.first, a.second) == (b.first, b.second)).count();
        assert!(n_same >= 990, "{metric:?}: {n_same}");
    }
}

#[test]
fn lists_are_made_in_the_order_of_their_groups() {
    let (dim, rows) = (9, points(4000, 9, 12));
    let plan = |flat_up_to| Plan {
        metric: Metric::Euclidean,
        codes: Codes::Short(ShortEncoding::Scalar8),
        second: None,
        n_lists: 600,
        flat_up_to,
        spill: 0.4,
        seed: 3,
    };
    let train = |flat_up_to, work: &Work<'_>| train(&Side::new(&rows, dim), &plan(flat_up_to), work).unwrap();
    let (flat, two) = (train(600, &Work::inline()), train(599, &Work::inline()));
    assert!(flat.router.grouping().is_none());
    let grouping = two.router.grouping().unwrap();
    grouping.check(600, dim).unwrap();
    let sorted = |router: &Router| {
        let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let mut rows: Vec<_> = router.centroids().chunks_exact(dim).map(bits).collect();
        rows.sort();
        rows
    };
    assert_eq!(sorted(&flat.router), sorted(&two.router));
    assert_eq!(flat.gaps.len(), two.gaps.len());
    let again = train(599, &Work::new(Some(3), &Silent));
    assert_eq!(again.router.centroids(), two.router.centroids());
    assert_eq!(again.router.grouping(), two.router.grouping());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_lists_are_those_of_a_comparison_with_all(
        n_lists in 1usize..700,
        dim in 1usize..20,
        n_values in 1usize..100,
        n_probe in 1usize..50,
        n_queries in 1usize..40,
        seed in 0u64..1000,
    ) {
        let mut random = Random::new(seed, 1);
        let mut values = |n: usize| (0..n).map(|_| random.below(n_values) as f32 - 20.0).collect::<Vec<f32>>();
        let (flat, two) = twins(METRICS[seed as usize % 3], dim, values(n_lists * dim));
        let queries = values(n_queries * dim);
        let got = routed(&two, &queries, reach(n_probe));
        prop_assert!(got.iter().all(|lists| lists.len() == n_probe.min(n_lists)));
        // Fewer groups than a query is compared with at least: then with all.
        if n_lists < 200 {
            let expected = routed(&flat, &queries, reach(n_probe));
            // Of lists that are as near as 8 bits can tell, either may be taken.
            for ((query, got), expected) in queries.chunks(dim).zip(&got).zip(&expected) {
                let mut scores = Vec::new();
                flat.scores(Kernels::best(), query, &mut scores);
                let least = |lists: &[u32]| lists.iter().map(|&list| scores[list as usize]).fold(f32::MAX, f32::min);
                let far = scores.iter().fold(1.0f32, |far, score| far.max(score.abs()));
                prop_assert!((least(got) - least(expected)).abs() <= 0.02 * far, "{:?} {:?}", got, expected);
            }
        }
    }
}
