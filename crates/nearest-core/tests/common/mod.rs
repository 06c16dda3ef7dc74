//! What tests of approximate indexes share: vectors, indexes, an oracle in float64, and a model of what an index holds.
#![allow(dead_code, reason = "each test uses a part")]

pub mod forge;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};
use nearest_core::candidates::Candidate;
use nearest_core::coder::ShortEncoding;
use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::{Error, Result};
use nearest_core::file::FileView;
use nearest_core::files::RealFiles;
use nearest_core::ids::{Id, IdList};
use nearest_core::index::{Allowed, Index, Knobs, Queries, Snapshot, Spec, Structure, Zeros, verify};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::random::Random;
use nearest_core::work::{Silent, Work};

pub const METRICS: [Metric; 5] =
    [Metric::Euclidean, Metric::SqEuclidean, Metric::Cosine, Metric::Angular, Metric::InnerProduct];
pub const RAW: [Encoding; 5] =
    [Encoding::Float32, Encoding::Float16, Encoding::BFloat16, Encoding::UInt8, Encoding::Int8];
pub const ALL: Knobs = Knobs { effort: Some(usize::MAX), rerank_k: None };

// --- vectors ---

pub fn uniform(random: &mut Random) -> f32 {
    (random.bits() >> 40) as f32 / (1 << 24) as f32
}

pub fn normal(random: &mut Random) -> f32 {
    (0..12).map(|_| uniform(random)).sum::<f32>() - 6.0
}

/// Kinds of data that break careless code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data {
    /// Groups, as real embeddings have.
    Groups,
    Normal,
    /// Integers all over what they can be.
    Wide,
    /// Far from the origin: differences are small beside the values.
    Offset,
    /// Few values, so that many distances are equal.
    Ties,
    /// Rows of very different lengths, some zero.
    Lengths,
    /// Half of the dimensions say nothing.
    Constant,
    Equal,
    /// A few vectors, again and again.
    Copies,
    Huge,
    Tiny,
}

pub const DATA: [Data; 11] = [
    Data::Groups,
    Data::Normal,
    Data::Wide,
    Data::Offset,
    Data::Ties,
    Data::Lengths,
    Data::Constant,
    Data::Equal,
    Data::Copies,
    Data::Huge,
    Data::Tiny,
];

/// Vectors that `encoding` holds, rounded where it must.
pub fn vectors(data: Data, n: usize, dim: usize, encoding: Encoding, seed: u64) -> Vec<f32> {
    // All of one kind come from the same places, whatever the seed.
    let mut random = Random::new(7, 0);
    let places: Vec<f32> = (0..12 * dim).map(|_| 3.0 * normal(&mut random)).collect();
    let mut random = Random::new(seed, 1);
    let mut out: Vec<f32> = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let (group, copy) = (random.below(12), Random::new(random.below(5) as u64, 3));
        let length = 10f32.powf(uniform(&mut random) * 4.0 - 2.0) * f32::from(u8::from(random.below(10) > 0));
        let mut copied = copy;
        out.extend((0..dim).map(|j| match data {
            Data::Groups => places[group * dim + j] + normal(&mut random),
            Data::Normal | Data::Wide => normal(&mut random),
            Data::Offset => 1000.0 + normal(&mut random),
            Data::Ties => random.below(3) as f32 - 1.0,
            Data::Lengths => length * normal(&mut random),
            Data::Constant if j % 2 == 0 => 5.0,
            Data::Constant => normal(&mut random),
            Data::Equal => j as f32 + 1.0,
            Data::Copies => normal(&mut copied),
            Data::Huge => 1e15 * normal(&mut random),
            Data::Tiny => 1e-15 * normal(&mut random),
        }));
    }
    let whole = |low: f32, high: f32, zero: f32| {
        let scale = match data {
            Data::Ties => 1.0,
            Data::Wide => 60.0,
            Data::Huge => 1e-14,
            Data::Tiny => 1e15,
            _ => 9.0,
        };
        move |x: &mut f32| *x = (*x * scale + zero).round().clamp(low, high)
    };
    match encoding {
        Encoding::UInt8 => out.iter_mut().for_each(whole(0.0, 255.0, 100.0)),
        Encoding::Int8 => out.iter_mut().for_each(whole(-128.0, 127.0, 0.0)),
        Encoding::Float16 => {
            out.iter_mut().for_each(|x| *x = f16::from_f32(x.clamp(-6e4, 6e4)).to_f32());
        }
        Encoding::BFloat16 => out.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        _ => {}
    }
    out
}

/// Queries like the vectors; of integers half are none, and none is zero, which is nobody's direction.
pub fn queries(data: Data, n: usize, dim: usize, encoding: Encoding, seed: u64) -> Vec<f32> {
    let encoding = if encoding.is_integer() { encoding } else { Encoding::Float32 };
    let mut out = vectors(data, n, dim, encoding, seed);
    for (i, query) in out.chunks_exact_mut(dim).enumerate() {
        if encoding.is_integer() && i % 2 == 1 {
            query.iter_mut().for_each(|x| *x += 0.3);
        }
        if query.iter().all(|&x| x == 0.0) {
            query.fill(1.0);
        }
    }
    out
}

// --- indexes ---

/// An exact index of float32 vectors.
pub fn plain(dim: usize, metric: Metric) -> Spec {
    let (encoding, structure) = (Encoding::Float32, Structure::Exact);
    Spec { dim, metric, encoding, rerank: None, structure, shadow: false, seed: 3 }
}

pub fn exact(spec: Spec) -> Spec {
    Spec { structure: Structure::Exact, ..spec }
}

pub fn scalar8() -> Encoding {
    Encoding::Short(ShortEncoding::Scalar8)
}

pub fn scalar4() -> Encoding {
    Encoding::Short(ShortEncoding::Scalar4)
}

pub fn rabitq(bits: u8) -> Encoding {
    Encoding::Short(ShortEncoding::Rabitq { bits })
}

pub fn product(m: u16, bits: u8) -> Encoding {
    Encoding::Short(ShortEncoding::Product { m, bits })
}

/// Short encodings with and without a second one, that vectors of `dim` dimensions can have.
pub fn coded(dim: usize) -> Vec<(Encoding, Option<Encoding>)> {
    let mut all = vec![
        (scalar8(), None),
        (scalar4(), None),
        (rabitq(3), None),
        (scalar4(), Some(scalar8())),
        (rabitq(1), Some(scalar8())),
        (scalar8(), Some(Encoding::Float16)),
        (scalar4(), Some(Encoding::Float32)),
        (rabitq(2), Some(Encoding::BFloat16)),
    ];
    let m = dim.min(4) as u16;
    for (encoding, rerank) in [(product(m, 4), Some(scalar8())), (product(m, 8), None)] {
        if is_there(encoding) {
            all.push((encoding, rerank));
        }
    }
    all
}

/// Whether lists can be made with an encoding.
pub fn is_there(encoding: Encoding) -> bool {
    let structure = Structure::Lists { n_lists: 1, spill: 0 };
    let index = index(Spec { encoding, structure, ..plain(4, Metric::Euclidean) });
    let sample = vectors(Data::Normal, 64, 4, Encoding::Float32, 0);
    match index.train(64, Values::Float32(&sample), &Work::inline()) {
        Ok(()) => true,
        Err(Error::NotImplemented(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

pub fn index(spec: Spec) -> Arc<Index> {
    Arc::new(Index::new(spec).unwrap())
}

pub fn change(index: &Arc<Index>, values: &[f32], ids: Option<IdList>, replace: bool) -> Result<IdList> {
    let mut stage = index.stage(Zeros::Accept, &Silent)?;
    stage.append(Values::Float32(values), ids, &Work::inline())?;
    stage.commit(replace, &Work::inline())
}

pub fn add(index: &Arc<Index>, values: &[f32]) {
    change(index, values, None, false).unwrap();
}

/// An index trained on the vectors that it then holds.
pub fn filled(spec: Spec, values: &[f32]) -> Arc<Index> {
    let index = index(spec);
    if !values.is_empty() && spec.is_trained() {
        index.train(values.len() / spec.dim, Values::Float32(values), &Work::inline()).unwrap();
    }
    add(&index, values);
    index
}

pub fn remove(index: &Arc<Index>, ids: impl IntoIterator<Item = i64>) -> usize {
    index.remove(&IdList::Int(ids.into_iter().collect()), &Work::inline()).unwrap()
}

pub fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write(&mut bytes).unwrap();
    bytes
}

pub fn reopened(snapshot: &Snapshot) -> Arc<Index> {
    Arc::new(Index::from_bytes(Arc::new(Bytes::copied(&bytes_of(snapshot)).unwrap())).unwrap())
}

/// Opened as a map.
pub fn mapped(snapshot: &Snapshot) -> Arc<Index> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("nearest-lists-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    snapshot.save(&RealFiles, &path).unwrap();
    let index = Index::open(&RealFiles, &path, true).unwrap();
    std::fs::remove_file(&path).unwrap();
    Arc::new(index)
}

/// All that a file of it must keep to, and that opening it gives the same bytes again.
pub fn check_file(snapshot: &Snapshot) {
    let bytes = bytes_of(snapshot);
    let view = FileView::open(Arc::new(Bytes::copied(&bytes).unwrap()), Some("index")).unwrap();
    view.verify().unwrap();
    verify(&view).unwrap();
    assert!(bytes_of(&reopened(snapshot).snapshot()) == bytes, "opened and written again");
}

pub fn search(snapshot: &Snapshot, queries: &[f32], k: usize, knobs: Knobs) -> Vec<Vec<Candidate>> {
    snapshot.search(Queries::Numbers(queries), k, None, knobs, &Work::inline()).unwrap().found
}

/// Ids and bits of distances.
pub fn answers(snapshot: &Snapshot, found: &[Vec<Candidate>]) -> Vec<Vec<(String, u32)>> {
    let of = |list: &Vec<Candidate>| {
        let ids = snapshot.ids_of(list.iter().map(|candidate| candidate.row));
        ids.iter().zip(list).map(|(id, candidate)| (id.to_string(), candidate.distance.to_bits())).collect()
    };
    found.iter().map(of).collect()
}

pub fn values_of(snapshot: &Snapshot, rows: &[u32]) -> Vec<f32> {
    let mut out = Vec::new();
    snapshot
        .values_of(rows, |values| match values {
            Values::Float32(values) => out.extend_from_slice(values),
            Values::Float16(values) => out.extend(values.iter().map(|x| x.to_f32())),
            Values::BFloat16(values) => out.extend(values.iter().map(|x| x.to_f32())),
            Values::Int8(values) => out.extend(values.iter().map(|&x| f32::from(x))),
            Values::UInt8(values) => out.extend(values.iter().map(|&x| f32::from(x))),
        })
        .unwrap();
    out
}

// --- the oracle ---

pub fn distance(metric: Metric, q: &[f32], x: &[f32]) -> f64 {
    let pairs = || q.iter().zip(x).map(|(&q, &x)| (f64::from(q), f64::from(x)));
    let dot: f64 = pairs().map(|(q, x)| q * x).sum();
    let norms = (pairs().map(|(q, _)| q * q).sum::<f64>() * pairs().map(|(_, x)| x * x).sum::<f64>()).sqrt();
    let cosine = if norms > 0.0 { (dot / norms).clamp(-1.0, 1.0) } else { 0.0 };
    let squared: f64 = pairs().map(|(q, x)| (q - x) * (q - x)).sum();
    match metric {
        Metric::Euclidean => squared.sqrt(),
        Metric::SqEuclidean => squared,
        Metric::Cosine => 1.0 - cosine,
        Metric::Angular => cosine.acos(),
        Metric::InnerProduct => -dot,
        _ => unreachable!("not listed"),
    }
}

/// How far a reported distance may be from the oracle's.
pub fn slack(metric: Metric, q: &[f32], x: &[f32], distance: f64) -> f64 {
    let norm = |v: &[f32]| v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let floor = match metric {
        Metric::InnerProduct => 1e-13 * norm(q) * norm(x),
        Metric::Cosine => 1e-14,
        Metric::Angular => 4e-8,
        _ => 1e-37,
    };
    3e-7 * distance.abs() + floor
}

/// Every list holds exactly the nearest, with their distances, in order, ties by row.
pub fn check_exact(
    metric: Metric,
    dim: usize,
    values: &[f32],
    queries: &[f32],
    k: usize,
    found: &[Vec<Candidate>],
) {
    assert_eq!(found.len(), queries.len() / dim);
    for (query, list) in queries.chunks_exact(dim).zip(found) {
        let mut truth: Vec<(f64, u32)> =
            values.chunks_exact(dim).zip(0..).map(|(x, row)| (distance(metric, query, x), row)).collect();
        for candidate in list {
            let x = &values[candidate.row as usize * dim..][..dim];
            let expected = truth[candidate.row as usize].0;
            let off = (f64::from(candidate.distance) - expected).abs();
            assert!(off <= slack(metric, query, x, expected), "{} for {expected}", candidate.distance);
        }
        check_order(list);
        truth.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(list.len(), k.min(truth.len()));
        if let Some(last) = list.last() {
            let x = &values[last.row as usize * dim..][..dim];
            let kth = truth[list.len() - 1].0;
            assert!(f64::from(last.distance) <= kth + 2.0 * slack(metric, query, x, kth));
        }
    }
}

/// Nearest first, ties by row, no row twice.
pub fn check_order(list: &[Candidate]) {
    for pair in list.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!(a.distance < b.distance || a.distance == b.distance && a.row < b.row, "{a:?} before {b:?}");
    }
    let rows: HashSet<u32> = list.iter().map(|candidate| candidate.row).collect();
    assert_eq!(rows.len(), list.len(), "a row comes twice");
}

pub fn recall(found: &[Vec<Candidate>], truth: &[Vec<Candidate>]) -> f64 {
    let (mut hits, mut n) = (0, 0);
    for (found, truth) in found.iter().zip(truth) {
        let right: HashSet<u32> = truth.iter().map(|candidate| candidate.row).collect();
        hits += found.iter().filter(|candidate| right.contains(&candidate.row)).count();
        n += truth.len();
    }
    hits as f64 / n.max(1) as f64
}

// --- a model ---

/// What an index should hold.
pub type Model = BTreeMap<i64, Vec<f32>>;

struct Played {
    index: Arc<Index>,
    model: Model,
    next: i64,
    text: bool,
    random: Random,
    data: Data,
}

impl Played {
    fn names(&self, ids: &[i64]) -> IdList {
        match self.text {
            false => IdList::Int(ids.to_vec()),
            true => IdList::Text(ids.iter().map(|id| format!("{id:09}")).collect()),
        }
    }

    fn vectors(&mut self, n: usize) -> Vec<f32> {
        let spec = *self.index.spec();
        vectors(self.data, n, spec.dim, spec.encoding, self.random.bits())
    }

    fn learn(&mut self, ids: &[i64], values: &[f32]) {
        let dim = self.index.spec().dim;
        for (&id, x) in ids.iter().zip(values.chunks_exact(dim)) {
            self.model.insert(id, x.to_vec());
            self.next = self.next.max(id + 1);
        }
    }

    fn step(&mut self, largest: usize) {
        let n = 1 + self.random.below(largest);
        match self.random.below(9) {
            0..=2 => {
                let ids: Vec<i64> = (self.next..self.next + n as i64).collect();
                let values = self.vectors(n);
                let given = (self.text || self.random.below(2) == 0).then(|| self.names(&ids));
                assert_eq!(change(&self.index, &values, given, false).unwrap(), self.names(&ids));
                self.learn(&ids, &values);
            }
            3 | 4 if self.next > 0 => {
                let first = self.random.below(self.next as usize) as i64;
                let ids: Vec<i64> = (first..first + n as i64).collect();
                let values = self.vectors(n);
                change(&self.index, &values, Some(self.names(&ids)), true).unwrap();
                self.learn(&ids, &values);
            }
            5 | 6 if self.next > 0 => {
                let first = self.random.below(self.next as usize) as i64;
                let ids: Vec<i64> = (first..first + 2 * n as i64).collect();
                let gone = ids.iter().filter(|id| self.model.remove(id).is_some()).count();
                assert_eq!(self.index.remove(&self.names(&ids), &Work::inline()).unwrap(), gone);
            }
            7 => self.index = reopened(&self.index.snapshot()),
            _ => {
                // What is refused or given up changes nothing, and leaves nothing in the lists.
                let before = bytes_of(&self.index.snapshot());
                let values = self.vectors(n);
                let mut bad = values.clone();
                bad[(n - 1) * self.index.spec().dim] = f32::NAN;
                assert!(change(&self.index, &bad, None, false).is_err());
                let mut stage = self.index.stage(Zeros::Accept, &Silent).unwrap();
                let ids: Vec<i64> = (self.next..self.next + n as i64).collect();
                stage.append(Values::Float32(&values), Some(self.names(&ids)), &Work::inline()).unwrap();
                drop(stage);
                if let Some(&id) = self.model.keys().next() {
                    let two =
                        [values[..self.index.spec().dim].to_vec(), values[..self.index.spec().dim].to_vec()];
                    assert!(
                        change(&self.index, &two.concat(), Some(self.names(&[self.next, id])), false)
                            .is_err()
                    );
                }
                assert!(bytes_of(&self.index.snapshot()) == before);
            }
        }
    }

    fn check(&mut self) {
        let snapshot = self.index.snapshot();
        let spec = *snapshot.spec();
        assert_eq!(snapshot.len(), self.model.len());
        let ids = snapshot.ids();
        let id_of = |id: Id<'_>| match id {
            Id::Int(id) => id,
            Id::Text(id) => id.parse().unwrap(),
        };
        let there: BTreeSet<i64> = ids.iter().map(id_of).collect();
        assert!(there.iter().eq(self.model.keys()), "ids");
        let query = queries(self.data, 1, spec.dim, spec.encoding, self.random.bits());
        let k = 1 + self.random.below(30);
        let mask: Vec<bool> = ids.iter().map(|id| id_of(id) % 3 == 0).collect();
        let n_masked = mask.iter().filter(|keep| **keep).count();
        let is_raw = spec.rerank.unwrap_or(spec.encoding).is_raw();
        for knobs in [Knobs::default(), Knobs { effort: Some(1), rerank_k: None }, ALL] {
            for allowed in [None, Some(Allowed::Mask(&mask))] {
                let found = snapshot
                    .search(Queries::Numbers(&query), k, allowed, knobs, &Work::inline())
                    .unwrap()
                    .found;
                let list = &found[0];
                let matches = if allowed.is_some() { n_masked } else { self.model.len() };
                assert_eq!(
                    list.len(),
                    k.min(matches),
                    "{spec:?} {knobs:?} {query:?} {:?} {:?}",
                    allowed.is_some(),
                    snapshot.stats()
                );
                let found_ids: Vec<i64> =
                    snapshot.ids_of(list.iter().map(|c| c.row)).iter().map(id_of).collect();
                let unique: BTreeSet<i64> = found_ids.iter().copied().collect();
                assert_eq!(unique.len(), list.len());
                for (pair, ids) in list.windows(2).zip(found_ids.windows(2)) {
                    let tied = pair[0].distance == pair[1].distance;
                    assert!(pair[0].distance < pair[1].distance || tied && ids[0] < ids[1]);
                }
                if allowed.is_some() {
                    assert!(found_ids.iter().all(|id| id % 3 == 0));
                }
                if !is_raw {
                    continue;
                }
                for (id, candidate) in found_ids.iter().zip(list) {
                    let x = &self.model[id];
                    let expected = distance(spec.metric, &query, x);
                    let off = (f64::from(candidate.distance) - expected).abs();
                    let rounding = if spec.rerank.is_some_and(|rerank| rerank != Encoding::Float32) {
                        1e-2 * (1.0 + expected.abs())
                    } else {
                        0.0
                    };
                    assert!(off <= slack(spec.metric, &query, x, expected) + rounding);
                }
                if knobs.effort == ALL.effort && allowed.is_none() && spec.rerank.is_none() {
                    let mut all: Vec<f64> =
                        self.model.values().map(|x| distance(spec.metric, &query, x)).collect();
                    all.sort_by(f64::total_cmp);
                    if let Some(last) = list.last() {
                        let kth = all[list.len() - 1];
                        assert!(f64::from(last.distance) <= kth + 1e-6 * (1.0 + kth.abs()));
                    }
                }
            }
        }
        check_file(&snapshot);
    }
}

pub fn play(seed: u64, spec: Spec, text: bool, data: Data, n_steps: usize, largest: usize) {
    let mut played =
        Played { index: index(spec), model: Model::new(), next: 0, text, random: Random::new(seed, 2), data };
    let mut held: Vec<(Arc<Snapshot>, Vec<u8>)> = Vec::new();
    for step in 0..n_steps {
        played.step(largest);
        if step % 3 == 0 {
            played.check();
        }
        if step % 10 == 9 {
            let snapshot = played.index.snapshot();
            held.push((snapshot.clone(), bytes_of(&snapshot)));
        }
    }
    played.check();
    // Versions that were kept are as they were.
    for (snapshot, bytes) in held {
        assert!(bytes_of(&snapshot) == bytes);
    }
}
