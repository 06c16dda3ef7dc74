//! What two levels of centroids miss and save: the numbers of `docs/decisions/0006-inverted-lists.md`.
//!
//! `cargo run --release -p nearest-core --example routing -- N_LISTS METRIC DATA [QUERIES]`, where DATA is `N,DIM` for that many
//! made vectors, or a `.npy` file; every hundredth vector is a query, and in no list.
//!
//! Of the lists that a query is sent to when compared with all centroids, «same» is the share that it is sent to by groups:
//! the mean, and that of the worst twentieth of the queries. Then both are searched.

use std::sync::Arc;
use std::time::Instant;

use nearest_core::encoding::{Encoding, Values};
use nearest_core::file::{FileView, FileWriter};
use nearest_core::index::{Index, Knobs, Queries, Snapshot, Spec, Structure, Zeros};
use nearest_core::kmeans::Side;
use nearest_core::lists::{CodedQueries, Codes, Lists, Plan, Probes, Reach, RouteScratch, Router, train};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::random::Random;
use nearest_core::work::{Silent, Work};
use nearest_kernels::Kernels;

const EFFORTS: [usize; 8] = [1, 4, 16, 32, 64, 128, 256, 1024];
const K: usize = 10;

fn normal(random: &mut Random) -> f32 {
    (0..4).map(|_| random.bits() as f64 / u64::MAX as f64 - 0.5).sum::<f64>() as f32 * 1.7
}

/// Clusters of clusters, of all sizes.
fn made(n: usize, dim: usize) -> Vec<f32> {
    let mut random = Random::new(1, 1);
    let centres: Vec<f32> = (0..300 * dim).map(|_| 2.0 * normal(&mut random)).collect();
    let below: Vec<(usize, f32)> =
        (0..20_000).map(|_| (random.below(300), 0.2 + random.below(100) as f32 / 100.0)).collect();
    let middles: Vec<f32> = below
        .iter()
        .flat_map(|&(of, _)| centres[of * dim..][..dim].to_vec())
        .map(|c| c + normal(&mut random))
        .collect();
    (0..n)
        .flat_map(|_| {
            let at = random.below(below.len() * below.len()).isqrt();
            let spread = below[at].1;
            let row: Vec<f32> =
                middles[at * dim..][..dim].iter().map(|c| c + spread * normal(&mut random)).collect();
            row
        })
        .collect()
}

fn read(path: &str) -> (usize, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    let shape = text.split('(').nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let dim = shape.split(',').nth(1).unwrap().trim().parse().unwrap();
    let values = &bytes[header..];
    let values = match text.split('\'').nth(3) {
        Some("<f4") => values.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
        Some("<f2") => values.as_chunks().0.iter().map(|&x| half::f16::from_le_bytes(x).to_f32()).collect(),
        Some("|u1") => values.iter().map(|&x| f32::from(x)).collect(),
        _ => panic!("{path}: cannot read {text}"),
    };
    (dim, values)
}

struct Routed {
    probes: Probes,
    seconds: f64,
}

fn route(router: &Router, framed: &[f32], codes: &CodedQueries, reach: Reach<'_>) -> Routed {
    let mut probes = Probes::default();
    let mut scratch = RouteScratch::default();
    let mut seconds = f64::INFINITY;
    for _ in 0..2 {
        let start = Instant::now();
        router.route(Kernels::best(), framed, codes, reach, &mut probes, &mut scratch);
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Routed { probes, seconds }
}

fn compare(lists: &Lists, framed: &[f32], dim: usize) {
    let flat =
        Router::new(Kernels::best(), lists.coding.frame().metric(), dim, lists.router.centroids().to_vec());
    let n = framed.len() / dim;
    let mut codes = CodedQueries::default();
    codes.code(Kernels::best(), framed, dim, &vec![0.0; dim]);
    println!("effort  lists  same   worst 5 %  µs/query flat, groups; one by one flat, groups");
    for effort in EFFORTS.into_iter().chain([0]) {
        // 0 stands for how rows are assigned.
        let reach = match effort {
            0 => Reach { n_probe: 16, gap: None, wanted: None, by_distance: true },
            n_probe => Reach { n_probe, gap: lists.gap(n_probe), wanted: None, by_distance: false },
        };
        let one = route(&flat, framed, &codes, reach);
        let two = route(&lists.router, framed, &codes, reach);
        let mut same: Vec<f64> = (0..n)
            .map(|query| {
                let mut expected = one.probes.lists[one.probes.of(query)].to_vec();
                let mut got = two.probes.lists[two.probes.of(query)].to_vec();
                expected.sort_unstable();
                got.sort_unstable();
                let found = expected.iter().filter(|list| got.binary_search(list).is_ok()).count();
                found as f64 / expected.len() as f64
            })
            .collect();
        same.sort_unstable_by(f64::total_cmp);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let mut singles = [0.0; 2];
        let some = 50.min(n);
        for query in 0..some {
            let framed = &framed[query * dim..][..dim];
            let mut codes = CodedQueries::default();
            codes.code(Kernels::best(), framed, dim, &vec![0.0; dim]);
            singles[0] += route(&flat, framed, &codes, reach).seconds;
            singles[1] += route(&lists.router, framed, &codes, reach).seconds;
        }
        let each = |seconds: f64, n: usize| seconds / n as f64 * 1e6;
        println!(
            "{effort:6}  {:5.0}  {:.4}  {:.4}     {:7.1} {:7.1}   {:7.1} {:7.1}",
            one.probes.lists.len() as f64 / n as f64,
            mean(&same),
            mean(&same[..n.div_ceil(20)]),
            each(one.seconds, n),
            each(two.seconds, n),
            each(singles[0], some),
            each(singles[1], some),
        );
    }
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write(&mut bytes).unwrap();
    bytes
}

/// The same index without groups.
fn flat_twin(bytes: &[u8]) -> Index {
    let view = FileView::open(Arc::new(Bytes::copied(bytes).unwrap()), None).unwrap();
    let mut out = Vec::new();
    let mut file = FileWriter::new(&mut out, view.kind()).unwrap();
    for section in view.sections().iter().filter(|section| !section.name().starts_with("lists_group")) {
        let data = view.bytes_of(section);
        file.section(section.name(), section.dtype(), section.shape(), |out| out.write_all(data)).unwrap();
    }
    file.finish().unwrap();
    Index::from_bytes(Arc::new(Bytes::copied(&out).unwrap())).unwrap()
}

fn search(spec: Spec, base: &[f32], queries: &[f32], work: &Work<'_>) {
    let index = Arc::new(Index::new(spec).unwrap());
    let n = base.len() / spec.dim;
    let start = Instant::now();
    index.train(n, Values::Float32(base), work).unwrap();
    println!("trained in {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
    for part in base.chunks(100_000 * spec.dim) {
        stage.append(Values::Float32(part), None, work).unwrap();
    }
    stage.commit(false, work).unwrap();
    println!("filled in {:.1} s", start.elapsed().as_secs_f64());
    let bytes = bytes_of(&index.snapshot());
    let flat = flat_twin(&bytes);
    drop(bytes);
    let exact =
        Index::new(Spec { encoding: Encoding::Float32, structure: Structure::Exact, ..spec }).unwrap();
    let exact = Arc::new(exact);
    let mut stage = exact.stage(Zeros::Accept, &Silent).unwrap();
    stage.append(Values::Float32(base), None, work).unwrap();
    stage.commit(false, work).unwrap();
    let one = Work::inline();
    let truth =
        exact.snapshot().search(Queries::Numbers(queries), K, None, Knobs::default(), work).unwrap().found;
    println!("effort  recall flat, groups   queries/s flat, groups; one by one flat, groups");
    for effort in EFFORTS {
        let knobs = Knobs { effort: Some(effort), ..Knobs::default() };
        let (mut recalls, mut batches, mut singles) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        for (i, index) in [&flat, &*index].into_iter().enumerate() {
            let snapshot = index.snapshot();
            for _ in 0..2 {
                let start = Instant::now();
                let found = snapshot.search(Queries::Numbers(queries), K, None, knobs, &one).unwrap().found;
                let rate = truth.len() as f64 / start.elapsed().as_secs_f64();
                batches[i] = f64::max(batches[i], rate);
                let hits = found.iter().zip(&truth).map(|(found, truth)| {
                    let limit = truth.last().map_or(0.0, |last| last.distance) * 1.000_01;
                    found.iter().filter(|candidate| candidate.distance <= limit).count()
                });
                recalls[i] = hits.sum::<usize>() as f64 / (K * truth.len()) as f64;
            }
            let start = Instant::now();
            for query in queries.chunks_exact(spec.dim).take(100) {
                snapshot.search(Queries::Numbers(query), K, None, knobs, &one).unwrap();
            }
            singles[i] = 100.0 / start.elapsed().as_secs_f64();
        }
        println!(
            "{effort:6}  {:.4} {:.4}   {:8.0} {:8.0}   {:8.0} {:8.0}",
            recalls[0], recalls[1], batches[0], batches[1], singles[0], singles[1]
        );
    }
    let (flat, groups) = (flat.snapshot().stats(), index.snapshot().stats());
    println!("{:?}\n{:?}", flat.lists, groups.lists);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let n_lists: usize = args[0].parse().unwrap();
    let metric = [Metric::Euclidean, Metric::Cosine, Metric::InnerProduct];
    let metric = metric.into_iter().find(|metric| metric.name() == args[1]).expect("a metric");
    let (dim, mut values) = match args[2].split_once(',') {
        Some((n, dim)) => {
            let dim = dim.parse().unwrap();
            (dim, made(n.parse().unwrap(), dim))
        }
        None => read(&args[2]),
    };
    let queries: Vec<f32> = values.chunks_exact(dim).step_by(100).flatten().copied().collect();
    let mut n = 0;
    for row in 0..values.len() / dim {
        if row % 100 != 0 {
            values.copy_within(row * dim..(row + 1) * dim, n * dim);
            n += 1;
        }
    }
    values.truncate(n * dim);
    let queries = &queries[..queries.len().min(2000 * dim)];
    let work = Work::new(Some(2), &Silent);
    let encoding = Encoding::Short(nearest_core::coder::ShortEncoding::Scalar8);
    let structure = Structure::Lists { n_lists: n_lists as u32, spill: 0 };
    let spec = Spec { dim, metric, encoding, rerank: None, structure, shadow: false, seed: 1 };
    if std::env::var_os("SEARCH").is_some() {
        search(spec, &values, queries, &work);
        return;
    }
    let plan = Plan {
        metric,
        codes: Codes::Short(nearest_core::coder::ShortEncoding::Scalar8),
        second: None,
        n_lists,
        flat_up_to: 0,
        spill: 0.0,
        seed: 1,
    };
    let start = Instant::now();
    let lists = train(&Side::new(&values, dim), &plan, &work).unwrap();
    println!("{n} vectors of {dim}, {n_lists} lists, trained in {:.1} s", start.elapsed().as_secs_f64());
    let mut scratch = Vec::new();
    let mut framed = vec![0.0; queries.len()];
    for (query, out) in queries.chunks_exact(dim).zip(framed.chunks_exact_mut(dim)) {
        lists.coding.frame().query(Kernels::best(), query, &mut scratch, out);
    }
    compare(&lists, &framed, dim);
}
