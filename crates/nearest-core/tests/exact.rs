//! Exact search against its slow twin: the canonical distance of every pair, sorted.

use std::sync::Arc;

use half::{bf16, f16};
use nearest_core::candidates::{ByRow, Candidate, sort};
use nearest_core::exact::{
    BLOCK_ROWS, Bits, Comparer, Numbers, Part, Scope, Shadow, knn_graph, pairwise, search, search_radius,
    shadow_bytes,
};
use nearest_core::memory::{Buffer, SystemAllocator};
use nearest_core::metric::Metric;
use nearest_core::stored::Stored;
use nearest_core::work::{Silent, Work};
use nearest_kernels::Kernels;

/// A small deterministic generator (splitmix64): tests print nothing and need no seed from outside.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

const NUMBERS: [Metric; 6] = [
    Metric::Euclidean,
    Metric::SqEuclidean,
    Metric::Cosine,
    Metric::Angular,
    Metric::InnerProduct,
    Metric::Manhattan,
];

/// Kinds of data that break careless code.
#[derive(Clone, Copy, Debug)]
enum Data {
    Normal,
    /// Far from the origin: differences are small beside the values.
    Offset,
    /// One dimension outweighs all others.
    Outlying,
    Huge,
    Tiny,
    /// Few values, so that many distances are equal.
    Ties,
    /// Rows of very different lengths, some zero.
    Lengths,
    Constant,
}

const DATA: [Data; 8] = [
    Data::Normal,
    Data::Offset,
    Data::Outlying,
    Data::Huge,
    Data::Tiny,
    Data::Ties,
    Data::Lengths,
    Data::Constant,
];

fn floats(data: Data, n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut values = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let length = 10f32.powf(random.uniform() * 8.0 - 4.0) * f32::from(u8::from(random.uniform() > 0.1));
        for j in 0..dim {
            let x = random.normal();
            values.push(match data {
                Data::Normal => x,
                Data::Offset => 100.0 + 0.1 * x,
                Data::Outlying => x * if j == 0 { 1e5 } else { 1.0 },
                Data::Huge => x * 1e30,
                Data::Tiny => x * 1e-30,
                Data::Ties => (x * 0.7).round(),
                Data::Lengths => x * length,
                Data::Constant => 0.75,
            });
        }
    }
    values
}

fn twin<C: Comparer>(
    comparer: &C,
    vectors: &[C::Element],
    width: usize,
    selected: Option<&[u64]>,
    keep: impl Fn(usize, &[Candidate]) -> Vec<Candidate>,
) -> Vec<Vec<Candidate>> {
    (0..comparer.n_queries())
        .map(|q| {
            let mut all: Vec<_> = vectors
                .chunks_exact(width)
                .enumerate()
                .filter(|(i, _)| selected.is_none_or(|words| words[i / 64] >> (i % 64) & 1 == 1))
                .map(|(i, row)| Candidate { distance: comparer.distance(q, row), row: i as u32 })
                .collect();
            sort(&mut all, &ByRow);
            keep(q, &all)
        })
        .collect()
}

/// Fails with the first query that differs.
fn same(found: &[Vec<Candidate>], expected: &[Vec<Candidate>], label: &str) {
    assert_eq!(found.len(), expected.len(), "{label}");
    for (q, (found, expected)) in found.iter().zip(expected).enumerate() {
        let missing: Vec<_> = expected.iter().filter(|c| !found.contains(c)).collect();
        let extra: Vec<_> = found.iter().filter(|c| !expected.contains(c)).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{label}: query {q} misses {missing:?}, has {extra:?}"
        );
        assert_eq!(found, expected, "{label}: query {q}");
    }
}

/// Searches in every way there is and compares each with the twin.
fn check<T: Stored>(vectors: &[T], queries: &[f32], dim: usize, metric: Metric, k: usize, label: &str) {
    let n = vectors.len() / dim;
    let mut random = Random(n as u64 + k as u64);
    let some: Vec<u64> = (0..n.div_ceil(64)).map(|_| random.next() & random.next()).collect();
    let few: Vec<u64> = (0..n.div_ceil(64)).map(|i| u64::from(i % 7 == 3)).collect();
    let last = n % 64;
    let trim = |mut words: Vec<u64>| {
        if last > 0 {
            *words.last_mut().unwrap() &= (1 << last) - 1;
        }
        words
    };
    let selections = [None, Some(trim(some)), Some(trim(few)), Some(vec![0; n.div_ceil(64)])];
    let mut first_bits: Option<Vec<Vec<Candidate>>> = None;
    for kernels in Kernels::available().iter().copied() {
        let comparer = Numbers::<T>::new(kernels, metric, dim, queries);
        let shadow = (!T::IS_INTEGER && n >= BLOCK_ROWS).then(|| {
            let shadow = Shadow::for_rows(vectors, dim, metric);
            let size = shadow_bytes(dim);
            let mut blocks =
                Buffer::zeroed(n / BLOCK_ROWS * size, &(Arc::new(SystemAllocator) as _)).unwrap();
            for (block, rows) in blocks.chunks_exact_mut(size).zip(vectors.chunks_exact(BLOCK_ROWS * dim)) {
                shadow.pack(kernels, rows, block);
            }
            (shadow, blocks)
        });
        for selected in &selections {
            let selected = selected.as_deref();
            let expected = twin(&comparer, vectors, dim, selected, |_, all| all[..k.min(all.len())].to_vec());
            if selected.is_none() {
                match &first_bits {
                    None => first_bits = Some(expected.clone()),
                    Some(bits) => assert_eq!(bits, &expected, "{label}: kernels {}", kernels.name()),
                }
            }
            for with_shadow in [false, true] {
                let blocks = shadow.as_ref().filter(|_| with_shadow);
                let part = Part { first: 0, vectors, selected, shadow: blocks.map(|(_, blocks)| &**blocks) };
                let scope = Scope {
                    width: dim,
                    parts: vec![part],
                    centre: blocks.map(|(shadow, _)| &shadow.centre[..]),
                };
                for n_threads in [1, 3] {
                    let work = Work::new(Some(n_threads), &Silent);
                    let found = search(&scope, &comparer, k, None, &ByRow, &work).unwrap();
                    same(&found, &expected, &format!("{label} {} shadow {with_shadow}", kernels.name()));
                }
                // One by one gives what the batch gives.
                let one = Numbers::<T>::new(kernels, metric, dim, &queries[..dim]);
                let found = search(&scope, &one, k, None, &ByRow, &Work::inline()).unwrap();
                assert_eq!(found[0], expected[0], "{label} alone");
                if let Some(middle) = expected[0].get(expected[0].len() / 2) {
                    let radius = middle.distance;
                    let within = twin(&comparer, vectors, dim, selected, |_, all| {
                        all.iter().copied().take_while(|c| c.distance <= radius).collect()
                    });
                    let found =
                        search_radius(&scope, &comparer, radius, None, &ByRow, &Work::inline()).unwrap();
                    same(&found, &within, &format!("{label} radius {radius} {}", kernels.name()));
                }
            }
        }
    }
}

#[test]
fn floats_of_every_kind() {
    for (i, data) in DATA.into_iter().enumerate() {
        for metric in NUMBERS {
            let (n, dim) = ([1500, 700, 1100, 900][i % 4], [24, 37, 5, 64][i % 4]);
            let vectors = floats(data, n, dim, i as u64);
            let mut queries = floats(data, 6, dim, 99);
            // Some queries are members.
            queries[..dim].copy_from_slice(&vectors[7 * dim..8 * dim]);
            check(&vectors, &queries, dim, metric, 10, &format!("{data:?} {metric:?}"));
        }
    }
}

#[test]
fn short_floats() {
    for data in [Data::Normal, Data::Offset, Data::Ties, Data::Lengths] {
        for metric in NUMBERS {
            let (vectors, queries) = (floats(data, 1100, 19, 3), floats(data, 5, 19, 4));
            let half: Vec<f16> = vectors.iter().map(|&x| f16::from_f32(x)).collect();
            check(&half, &queries, 19, metric, 7, &format!("f16 {data:?} {metric:?}"));
            let brain: Vec<bf16> = vectors.iter().map(|&x| bf16::from_f32(x)).collect();
            check(&brain, &queries, 19, metric, 7, &format!("bf16 {data:?} {metric:?}"));
        }
    }
}

#[test]
fn integers_with_queries_they_can_and_cannot_hold() {
    for metric in NUMBERS {
        for dim in [1, 4, 33, 128] {
            let mut random = Random(dim as u64);
            let unsigned: Vec<u8> = (0..1200 * dim).map(|_| random.next() as u8).collect();
            let signed: Vec<i8> = unsigned.iter().map(|&x| x as i8).collect();
            let queries: Vec<f32> = (0..5 * dim).map(|_| f32::from(random.next() as u8)).collect();
            check(&unsigned, &queries, dim, metric, 10, &format!("u8 {metric:?} {dim}"));
            let around: Vec<f32> = queries.iter().map(|x| x - 128.0).collect();
            check(&signed, &around, dim, metric, 10, &format!("i8 {metric:?} {dim}"));
            let fractions: Vec<f32> = queries.iter().map(|x| x * 0.37).collect();
            check(&unsigned, &fractions, dim, metric, 10, &format!("u8 fractions {metric:?} {dim}"));
            check(&signed, &fractions, dim, metric, 3, &format!("i8 fractions {metric:?} {dim}"));
        }
    }
}

#[test]
fn sizes_at_the_edges() {
    for n in [0, 1, 2, 31, 32, 33, 63, 64, 65, BLOCK_ROWS, BLOCK_ROWS + 1] {
        for dim in [1, 3, 4, 130] {
            let (vectors, queries) = (floats(Data::Normal, n, dim, 1), floats(Data::Normal, 5, dim, 2));
            for metric in [Metric::Euclidean, Metric::Cosine, Metric::Manhattan] {
                check(&vectors, &queries, dim, metric, 3, &format!("n {n} dim {dim}"));
                check(&vectors, &queries, dim, metric, n + 5, &format!("n {n} dim {dim} all"));
            }
        }
    }
}

#[test]
fn bits() {
    let mut random = Random(5);
    for n_bytes in [1, 7, 16, 33] {
        let vectors: Vec<u8> = (0..1300 * n_bytes).map(|_| (random.next() & random.next()) as u8).collect();
        let queries: Vec<u8> = (0..6 * n_bytes).map(|_| random.next() as u8).collect();
        for metric in [Metric::Hamming, Metric::Jaccard] {
            for kernels in Kernels::available().iter().copied() {
                let comparer = Bits::new(kernels, metric, n_bytes, &queries);
                let expected = twin(&comparer, &vectors, n_bytes, None, |_, all| all[..10].to_vec());
                let scope = Scope::of(&vectors, n_bytes);
                for n_threads in [1, 2] {
                    let work = Work::new(Some(n_threads), &Silent);
                    assert_eq!(search(&scope, &comparer, 10, None, &ByRow, &work).unwrap(), expected);
                }
            }
        }
    }
}

#[test]
fn excluded_rows_are_left_out() {
    let vectors = floats(Data::Normal, 2000, 16, 1);
    let rows = [3u32, 1999, 1024, 5, 6];
    let queries: Vec<f32> =
        rows.iter().flat_map(|&row| vectors[row as usize * 16..][..16].iter().copied()).collect();
    let comparer = Numbers::<f32>::new(Kernels::best(), Metric::Euclidean, 16, &queries);
    let expected = twin(&comparer, &vectors, 16, None, |q, all| {
        all.iter().copied().filter(|c| c.row != rows[q]).take(4).collect()
    });
    let found = search(&Scope::of(&vectors, 16), &comparer, 4, Some(&rows), &ByRow, &Work::inline()).unwrap();
    assert_eq!(found, expected);
}

fn check_graph<T: Stored>(vectors: &[T], dim: usize, metric: Metric, k: usize, label: &str) {
    let comparer = Numbers::of_rows(Kernels::best(), metric, dim, vectors);
    let expected = twin(&comparer, vectors, dim, None, |q, all| {
        all.iter().copied().filter(|c| c.row as usize != q).take(k).collect()
    });
    for kernels in Kernels::available().iter().copied() {
        for n_threads in [1, 2] {
            let work = Work::new(Some(n_threads), &Silent);
            let make = |rows: &[T]| Numbers::of_rows(kernels, metric, dim, rows);
            let found = knn_graph(vectors, dim, k, make, &work).unwrap();
            assert_eq!(found, expected, "{label} {metric:?} {}", kernels.name());
        }
    }
}

#[test]
fn graphs_of_all_pairs() {
    for metric in NUMBERS {
        for data in [Data::Normal, Data::Offset, Data::Ties, Data::Lengths, Data::Huge] {
            check_graph(&floats(data, 1500, 12, 8), 12, metric, 5, &format!("{data:?}"));
        }
        let mut random = Random(6);
        let unsigned: Vec<u8> = (0..1300 * 20).map(|_| random.next() as u8).collect();
        check_graph(&unsigned, 20, metric, 5, "u8");
        let signed: Vec<i8> = unsigned.iter().map(|&x| x as i8).collect();
        check_graph(&signed, 20, metric, 5, "i8");
    }
    // Several groups, so that rows of one group meet limits of another.
    let mut random = Random(7);
    let unsigned: Vec<u8> = (0..5000 * 8).map(|_| random.next() as u8).collect();
    check_graph(&unsigned, 8, Metric::Euclidean, 5, "u8 groups");
    check_graph(&floats(Data::Normal, 5000, 8, 3), 8, Metric::Cosine, 5, "groups");
    for n in 0..4 {
        check_graph(&floats(Data::Normal, n, 3, 1), 3, Metric::Euclidean, 5, "few");
    }
    let bytes: Vec<u8> = (0..1100 * 4).map(|_| random.next() as u8).collect();
    let comparer = Bits::new(Kernels::best(), Metric::Jaccard, 4, &bytes);
    let expected = twin(&comparer, &bytes, 4, None, |q, all| {
        all.iter().copied().filter(|c| c.row as usize != q).take(3).collect()
    });
    let make = |rows: &[u8]| Bits::new(Kernels::best(), Metric::Jaccard, 4, rows.to_vec());
    assert_eq!(knn_graph(&bytes, 4, 3, make, &Work::inline()).unwrap(), expected);
}

#[test]
fn matrices_hold_canonical_distances() {
    let (vectors, queries) = (floats(Data::Lengths, 777, 9, 1), floats(Data::Normal, 130, 9, 2));
    for metric in NUMBERS {
        let comparer = Numbers::<f32>::new(Kernels::best(), metric, 9, &queries);
        let mut out = vec![f32::NAN; 777 * 130];
        pairwise(&comparer, &vectors, 9, &mut out, &Work::new(Some(2), &Silent)).unwrap();
        for (i, distance) in out.iter().enumerate() {
            let row = &vectors[i % 777 * 9..][..9];
            assert_eq!(*distance, comparer.distance(i / 777, row));
        }
    }
}
