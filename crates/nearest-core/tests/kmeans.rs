//! k-means against float64, and on data that are easy to get wrong.

use half::f16;
use nearest_core::error::{Error, Result};
use nearest_core::kmeans::{KMeans, Points, Read, Settings, Side, assign, assign_two, kmeans};
use nearest_core::random::Random;
use nearest_core::work::{Caller, Silent, Work};

fn uniform(random: &mut Random) -> f32 {
    (random.bits() >> 40) as f32 / (1 << 24) as f32
}

fn normal(random: &mut Random) -> f32 {
    (0..12).map(|_| uniform(random)).sum::<f32>() - 6.0
}

/// `n` points around `n_groups` places.
fn groups(n: usize, dim: usize, n_groups: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, 99);
    let places: Vec<f32> = (0..n_groups * dim).map(|_| normal(&mut random)).collect();
    let mut points = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let group = random.below(n_groups);
        points.extend((0..dim).map(|j| places[group * dim + j] + spread * normal(&mut random)));
    }
    points
}

fn squared(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Distances from each point to its nearest centroid, and to the next.
fn truth(points: &[f32], centroids: &[f32], dim: usize) -> Vec<(f64, f64)> {
    let two = |point: &[f32]| {
        let mut all: Vec<f64> = centroids.chunks_exact(dim).map(|c| squared(point, c)).collect();
        all.sort_by(f64::total_cmp);
        (all[0], all.get(1).copied().unwrap_or(f64::INFINITY))
    };
    points.chunks_exact(dim).map(two).collect()
}

fn cost(points: &[f32], centroids: &[f32], dim: usize) -> f64 {
    let all = truth(points, centroids, dim);
    all.iter().map(|pair| pair.0).sum::<f64>() / all.len() as f64
}

/// Lloyd's iterations in float64, from the first `k` points.
fn plain(points: &[f32], dim: usize, k: usize, n_iterations: usize) -> f64 {
    let mut centroids = points[..k * dim].to_vec();
    for _ in 0..n_iterations {
        let (mut sums, mut counts) = (vec![0.0f64; k * dim], vec![0.0f64; k]);
        for point in points.chunks_exact(dim) {
            let distance = |c: usize| squared(point, &centroids[c * dim..][..dim]);
            let best = (0..k).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap();
            counts[best] += 1.0;
            (0..dim).for_each(|j| sums[best * dim + j] += f64::from(point[j]));
        }
        for c in (0..k).filter(|&c| counts[c] > 0.0) {
            (0..dim).for_each(|j| centroids[c * dim + j] = (sums[c * dim + j] / counts[c]) as f32);
        }
    }
    cost(points, &centroids, dim)
}

fn run(points: &[f32], dim: usize, settings: &Settings<'_>) -> Result<KMeans> {
    kmeans(&Side::new(points, dim), settings, &Work::inline())
}

#[test]
fn the_objective_is_that_of_plain_loops() {
    for (dim, spread) in [(2, 0.3), (16, 1.0), (33, 0.1)] {
        let points = groups(3000, dim, 40, spread, dim as u64);
        let expected = plain(&points, dim, 40, 15);
        let settings = Settings { n_iterations: 15, ..Settings::new(40) };
        // Random beginnings differ: of a few, the best is not worse than a plain one.
        let best = (0..4)
            .map(|seed| {
                let found = run(&points, dim, &Settings { seed, ..settings }).unwrap();
                let got = cost(&points, &found.centroids, dim);
                let last = *found.objective.last().unwrap();
                assert!(found.objective.len() <= 15 && got <= last * 1.001, "{got} after {last}");
                assert!(last / got < 1.05);
                assert!(found.sizes.iter().sum::<u64>() == 3000 && found.sizes.iter().all(|&size| size > 0));
                got
            })
            .fold(f64::INFINITY, f64::min);
        assert!(best <= expected * 1.02, "dim {dim}: {best}, plain {expected}");
    }
}

#[test]
fn the_objective_falls_and_is_exact() {
    let points = groups(2000, 24, 30, 0.5, 3);
    let mut before = f64::INFINITY;
    for n_iterations in 1..5 {
        let settings = Settings { n_iterations, ..Settings::new(25) };
        let found = run(&points, 24, &settings).unwrap();
        let last = found.objective[n_iterations - 1];
        assert!(last <= before);
        before = last;
        // What iteration i + 1 reports is the cost of the centroids that iteration i left.
        let next = run(&points, 24, &Settings { n_iterations: n_iterations + 1, ..settings }).unwrap();
        let exact = cost(&points, &found.centroids, 24);
        let reported = next.objective[n_iterations];
        assert!(
            (reported / exact - 1.0).abs() < 1e-3 && reported >= exact * (1.0 - 1e-9),
            "{reported} {exact}"
        );
    }
}

#[test]
fn threads_and_element_types_change_no_bit() {
    let values: Vec<u8> =
        groups(5000, 20, 50, 0.5, 4).iter().map(|value| (value * 20.0 + 128.0) as u8).collect();
    let floats: Vec<f32> = values.iter().map(|&value| f32::from(value)).collect();
    let halves: Vec<f16> = floats.iter().map(|&value| f16::from_f32(value)).collect();
    let copy = |rows: std::ops::Range<usize>, out: &mut [f32]| {
        out.copy_from_slice(&floats[rows.start * 20..rows.end * 20]);
    };
    let weights: Vec<f32> = (0..5000).map(|i| (i % 7) as f32).collect();
    for (spherical, weights, most) in [
        (false, None, 256),
        (true, None, 20),
        (false, Some(&weights[..]), 256),
        (true, Some(&weights[..]), 30),
    ] {
        let settings = Settings { spherical, weights, max_points_per_centroid: most, ..Settings::new(64) };
        let expected = run(&floats, 20, &settings).unwrap();
        for n_threads in [1, 2, 3, 7] {
            let work = Work::new(Some(n_threads), &Silent);
            let same = |found: Result<KMeans>| {
                let found = found.unwrap();
                assert_eq!(found.centroids, expected.centroids);
                assert_eq!(found.objective, expected.objective);
                assert_eq!(found.sizes, expected.sizes);
            };
            same(kmeans(&Side::new(&values, 20), &settings, &work));
            same(kmeans(&Side::new(&floats, 20), &settings, &work));
            same(kmeans(&Side::new(&halves, 20), &settings, &work));
            same(kmeans(&Read::new(5000, 20, copy), &settings, &work));
            let one = assign(&Side::new(&values, 20), &expected.centroids, &work).unwrap();
            let two = assign_two(&Read::new(5000, 20, copy), &expected.centroids, &work).unwrap();
            assert_eq!(one, two[0]);
        }
        let other = run(&floats, 20, &Settings { seed: 1, ..settings }).unwrap();
        assert_ne!(other.centroids, expected.centroids);
    }
}

#[test]
fn assigning_finds_the_nearest_and_measures_exactly() {
    for (dim, k) in [(1, 3), (3, 2), (20, 100), (130, 37)] {
        let points = groups(700, dim, 60, 0.7, dim as u64);
        let centroids = groups(k, dim, 60, 0.7, 1000 + dim as u64);
        let expected = truth(&points, &centroids, dim);
        let [first, second] = assign_two(&Side::new(&points, dim), &centroids, &Work::inline()).unwrap();
        let mut wrong = 0;
        for (i, point) in points.chunks_exact(dim).enumerate() {
            let at = |place: u32| squared(point, &centroids[place as usize * dim..][..dim]);
            assert_eq!(first.distances[i], at(first.places[i]) as f32);
            assert_eq!(second.distances[i], at(second.places[i]) as f32);
            assert!(first.distances[i] <= second.distances[i] && first.places[i] != second.places[i]);
            assert!(at(first.places[i]) <= expected[i].0 * 1.01, "dim {dim}");
            wrong += usize::from(at(first.places[i]) > expected[i].0);
        }
        assert!(wrong <= 2, "dim {dim}: {wrong} of 700");
    }
}

#[test]
fn few_points_and_many_copies() {
    let settings = |k| Settings { n_iterations: 5, ..Settings::new(k) };
    // One vector again and again: one centroid holds all, the others lie on it too.
    for value in [0.0, -3.25, 1e6, 1e-20, 1e15] {
        let same = vec![value; 1000 * 3];
        for k in [1, 2, 7] {
            let found = run(&same, 3, &settings(k)).unwrap();
            assert!(found.centroids.iter().all(|&c| c == value), "{value}: {:?}", found.centroids);
            assert!(found.objective.iter().all(|&cost| cost == 0.0), "{value} {k} {:?}", found.objective);
            assert_eq!(found.sizes[0], (256 * k as u64).min(1000));
        }
    }
    // As many centroids as points.
    let points = groups(50, 5, 50, 1.0, 1);
    let found = run(&points, 5, &settings(50)).unwrap();
    assert_eq!(found.centroids, points);
    assert!(found.sizes.iter().all(|&size| size == 1) && found.objective.iter().all(|&cost| cost < 1e-12));
    // One.
    let found = run(&points, 5, &settings(1)).unwrap();
    let mean: f64 = (0..50).map(|i| f64::from(points[i * 5])).sum::<f64>() / 50.0;
    assert_eq!(found.centroids[0], mean as f32);
    // Three different values a thousand times: found whatever the beginning, far from zero too.
    for seed in 0..10 {
        for offset in [0.0, 1e5] {
            let points: Vec<f32> = (0..1000).map(|i| [0.0, 1.0, 5.0][i % 3] + offset).collect();
            let found = run(&points, 1, &Settings { seed, ..settings(3) }).unwrap();
            let mut centroids = found.centroids.clone();
            centroids.sort_by(f32::total_cmp);
            assert_eq!(centroids, [offset, 1.0 + offset, 5.0 + offset], "{seed}");
        }
    }
}

#[test]
fn empty_clusters_are_filled() {
    // All but a few points in one place: random beginnings miss the others.
    let mut points = vec![0.5f32; 4000 * 8];
    for i in 0..40 {
        points[i * 100 * 8 + i % 8] = 10.0 + i as f32;
    }
    let found = run(&points, 8, &Settings { n_iterations: 20, ..Settings::new(41) }).unwrap();
    assert_eq!(cost(&points, &found.centroids, 8), 0.0, "{:?}", found.objective);
    assert!(found.sizes.iter().all(|&size| size > 0));
}

#[test]
fn what_eight_bits_do_not_hold_is_compared_in_floats() {
    // One dimension of two far values; all the others tell the groups apart.
    let (n, dim) = (4000, 24);
    let mut random = Random::new(5, 5);
    let mut points = groups(n, dim, 20, 0.05, 6);
    points.chunks_exact_mut(dim).for_each(|p| p[0] = if random.below(2) == 0 { -300.0 } else { 300.0 });
    let expected = plain(&points, dim, 80, 20);
    let clusters = |seed| {
        let settings = Settings { n_iterations: 20, seed, ..Settings::new(80) };
        let found = run(&points, dim, &settings).unwrap();
        (cost(&points, &found.centroids, dim), found)
    };
    let (got, found) = (0..4).map(clusters).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(got <= expected * 1.05, "{got}, plain {expected}");
    let assigned = assign(&Side::new(&points, dim), &found.centroids, &Work::inline()).unwrap();
    let sum: f64 = assigned.distances.iter().map(|&d| f64::from(d)).sum();
    // float32 itself does not tell all of them apart next to squares of 300.
    assert!((sum / n as f64 / got - 1.0).abs() < 1e-2, "{} {got}", sum / n as f64);
}

#[test]
fn scale_and_offset_change_little() {
    let points = groups(2000, 10, 30, 0.3, 8);
    let settings = Settings { n_iterations: 10, ..Settings::new(30) };
    let expected = run(&points, 10, &settings).unwrap();
    for exponent in [-60, -30, 30, 60] {
        let factor = 2f32.powi(exponent);
        let scaled: Vec<f32> = points.iter().map(|value| value * factor).collect();
        let found = run(&scaled, 10, &settings).unwrap();
        let back: Vec<f32> = found.centroids.iter().map(|value| value / factor).collect();
        assert_eq!(back, expected.centroids, "2^{exponent}");
    }
    let moved: Vec<f32> = points.iter().map(|value| value + 1000.0).collect();
    let found = run(&moved, 10, &settings).unwrap();
    let ratio = found.objective.last().unwrap() / expected.objective.last().unwrap();
    assert!((ratio - 1.0).abs() < 0.01, "{ratio}");
}

#[test]
fn balanced_clusters_are_of_like_sizes() {
    // Groups of very different sizes and spreads.
    let mut points = groups(9000, 12, 5, 0.2, 20);
    points.extend(groups(900, 12, 200, 0.5, 21));
    let largest = |found: &KMeans| *found.sizes.iter().max().unwrap() as f64 / (9900.0 / 100.0);
    for weights in [None, Some(vec![0.25; 9900])] {
        let settings = Settings { n_iterations: 15, weights: weights.as_deref(), ..Settings::new(100) };
        let plain = run(&points, 12, &settings).unwrap();
        let found = run(&points, 12, &Settings { balanced: true, ..settings }).unwrap();
        assert!(largest(&found) <= 2.2, "{} (plain: {})", largest(&found), largest(&plain));
        assert_eq!(found.sizes.iter().sum::<u64>(), 9900);
    }
    // What is all in one place cannot be cut.
    let mut points = vec![1.0f32; 3000 * 4];
    points.extend(groups(1000, 4, 50, 0.5, 22));
    let found = run(&points, 4, &Settings { balanced: true, ..Settings::new(40) }).unwrap();
    assert!(found.sizes.iter().any(|&size| size >= 3000));
    assert!(found.objective[9] < found.objective[1]);
}

#[test]
fn two_levels_come_close_to_one() {
    let points = groups(20_000, 16, 300, 0.5, 23);
    let weights: Vec<f32> = (0..20_000).map(|i| (1 + i % 3) as f32).collect();
    for (spherical, balanced, weights) in
        [(false, false, None), (true, false, Some(&weights[..])), (false, true, None)]
    {
        let settings = Settings { spherical, balanced, weights, ..Settings::new(1000) };
        let flat = run(&points, 16, &settings).unwrap();
        let settings = Settings { hierarchical: Some(true), ..settings };
        let found = run(&points, 16, &settings).unwrap();
        assert_eq!((found.centroids.len(), found.objective.len()), (16_000, 6));
        let ratio = found.objective[5] / flat.objective.last().unwrap();
        assert!(ratio < 1.03, "{ratio}");
        let again = kmeans(&Side::new(&points, 16), &settings, &Work::new(Some(3), &Silent)).unwrap();
        assert_eq!(again.centroids, found.centroids);
    }
    for k in [1, 2, 3, 50] {
        let settings = Settings { hierarchical: Some(true), ..Settings::new(k) };
        let found = run(&points[..50 * 16], 16, &settings).unwrap();
        assert_eq!(found.centroids.len(), k * 16);
        let same = run(&[2.5; 50 * 4], 4, &settings).unwrap();
        assert!(same.centroids == vec![2.5; k * 4] && same.objective.iter().all(|&cost| cost == 0.0));
    }
}

#[test]
fn weights_count_as_copies() {
    let points = groups(500, 6, 10, 0.5, 9);
    let weights: Vec<f32> = (0..500).map(|i| (i % 4) as f32).collect();
    let found = run(&points, 6, &Settings { weights: Some(&weights), ..Settings::new(10) }).unwrap();
    let copies: Vec<f32> = (0..500)
        .flat_map(|i| {
            std::iter::repeat_n(&points[i * 6..][..6], i % 4).flatten().copied().collect::<Vec<_>>()
        })
        .collect();
    let work = Work::inline();
    let assigned = assign(&Side::new(&copies, 6), &found.centroids, &work).unwrap();
    // At a fixed point each centroid is the mean of the copies nearest to it.
    let more = Settings { weights: Some(&weights), n_iterations: 200, ..Settings::new(10) };
    let fixed = run(&points, 6, &more).unwrap();
    assert!(fixed.objective.len() < 200);
    let places = assign(&Side::new(&copies, 6), &fixed.centroids, &work).unwrap().places;
    for c in 0..10 {
        let mine: Vec<&[f32]> =
            copies.chunks_exact(6).zip(&places).filter(|pair| *pair.1 == c).map(|pair| pair.0).collect();
        let mean: f64 = mine.iter().map(|row| f64::from(row[0])).sum::<f64>() / mine.len() as f64;
        assert!((mean - f64::from(fixed.centroids[c as usize * 6])).abs() < 0.05);
    }
    assert_eq!(assigned.places.len(), copies.len() / 6);
}

#[test]
fn directions_alone_count_on_the_sphere() {
    let mut points = groups(1000, 8, 12, 0.2, 10);
    let settings = Settings { spherical: true, ..Settings::new(12) };
    let expected = run(&points, 8, &settings).unwrap();
    for row in expected.centroids.chunks_exact(8) {
        assert!((squared(row, &[0.0; 8]) - 1.0).abs() < 1e-6);
    }
    for (i, row) in points.chunks_exact_mut(8).enumerate() {
        row.iter_mut().for_each(|value| *value *= 2f32.powi(i as i32 % 9 - 4));
    }
    let found = run(&points, 8, &settings).unwrap();
    let ratio = found.objective.last().unwrap() / expected.objective.last().unwrap();
    assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
    points[..8].fill(0.0);
    assert!(run(&points, 8, &settings).unwrap_err().to_string().contains("row 0"));
}

#[test]
fn long_vectors_and_short_ones() {
    let points = groups(200, 4096, 5, 0.1, 11);
    let found = run(&points, 4096, &Settings { n_iterations: 20, ..Settings::new(5) }).unwrap();
    assert!(cost(&points, &found.centroids, 4096) <= plain(&points, 4096, 5, 20) * 1.001);
    // Dimensions that never change stay as they are.
    let mut points = groups(300, 4, 3, 0.1, 12);
    points.chunks_exact_mut(4).for_each(|p| p[2] = 7.5);
    let found = run(&points, 4, &Settings::new(3)).unwrap();
    assert!(found.centroids.chunks_exact(4).all(|c| c[2] == 7.5));
}

#[test]
fn wrong_arguments_are_told() {
    let mut points = groups(20, 3, 4, 0.5, 13);
    let told = |settings: Settings<'_>, points: &[f32]| match run(points, 3, &settings) {
        Err(Error::Argument(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(told(Settings::new(0), &points).contains("k must be between 1 and the number of vectors, 20"));
    assert!(told(Settings::new(21), &points).contains("got 21"));
    assert!(told(Settings { n_iterations: 0, ..Settings::new(2) }, &points).contains("n_iterations"));
    assert!(told(Settings { weights: Some(&[1.0; 19]), ..Settings::new(2) }, &points).contains("got 19"));
    assert!(told(Settings { weights: Some(&[0.0; 20]), ..Settings::new(2) }, &points).contains("all be 0"));
    let weights = [f32::NAN; 20];
    assert!(told(Settings { weights: Some(&weights), ..Settings::new(2) }, &points).contains("finite"));
    points[3 * 7] = f32::NAN;
    assert!(told(Settings::new(2), &points).contains("row 7"));
    let work = Work::inline();
    let side = Side::new(&points, 3);
    assert!(assign(&side, &[0.0; 3], &work).unwrap_err().to_string().contains("row 7"));
    assert!(assign(&side, &[f32::NAN; 3], &work).is_err() && assign(&side, &[], &work).is_err());
    assert!(assign(&side, &[0.0; 4], &work).is_err() && assign_two(&side, &[0.0; 3], &work).is_err());
    let nothing = assign(&Side::new(&[0.0f32; 0], 3), &[0.0; 3], &work).unwrap();
    assert!(nothing.places.is_empty());
    assert!(Side::new(&[0.0f32; 0], 3).is_empty());
}

#[test]
fn it_can_be_stopped() {
    struct After(std::cell::Cell<usize>);
    impl Caller for After {
        fn poll(&self, done: u64, total: u64, stage: &str) -> bool {
            assert!(done <= total && !stage.is_empty());
            self.0.set(self.0.get() + 1);
            false
        }
    }
    let points = groups(40_000, 10, 30, 1.0, 14);
    for (n_threads, hierarchical) in [(1, false), (2, false), (1, true), (2, true)] {
        let caller = After(std::cell::Cell::new(0));
        let work = Work::new(Some(n_threads), &caller);
        let hierarchical = Some(hierarchical);
        let settings = Settings { n_iterations: 100_000, hierarchical, ..Settings::new(1000) };
        let result = kmeans(&Side::new(&points, 10), &settings, &work);
        assert!(matches!(result, Err(Error::Cancelled)));
    }
    let work = Work::inline().with_memory(1000);
    assert!(matches!(kmeans(&Side::new(&points, 10), &Settings::new(5), &work), Err(Error::Memory(_))));
}
