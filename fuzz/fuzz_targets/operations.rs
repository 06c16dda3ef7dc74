//! A program of bytes: changes, searches, saving and opening, against a model that is a map and brute force in float64.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::Error;
use nearest_core::file::FileView;
use nearest_core::ids::{Id, IdList};
use nearest_core::index::{Allowed, Index, Neighbors, Queries, Snapshot, Spec, Zeros, verify, Knobs, Structure};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::work::{Silent, Work};
use nearest_fuzz::{Random, mapped};

/// Rows from which much is removed, so that programs stay quick.
const MANY: usize = 1800;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Int(i64),
    Text(String),
}

impl Key {
    fn of(id: Id<'_>) -> Self {
        match id {
            Id::Int(id) => Key::Int(id),
            Id::Text(id) => Key::Text(id.to_owned()),
        }
    }

    fn id(&self) -> Id<'_> {
        match self {
            Key::Int(id) => Id::Int(*id),
            Key::Text(id) => Id::Text(id),
        }
    }
}

fn list(keys: &[Key], text: bool) -> IdList {
    let word = |key: &Key| match key {
        Key::Text(id) => id.clone(),
        Key::Int(_) => unreachable!("one kind"),
    };
    let number = |key: &Key| match key {
        Key::Int(id) => *id,
        Key::Text(_) => unreachable!("one kind"),
    };
    match text {
        true => IdList::Text(keys.iter().map(word).collect()),
        false => IdList::Int(keys.iter().map(number).collect()),
    }
}

/// Bits are one number each in the model.
type Model = BTreeMap<Key, Vec<f32>>;

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }
}

struct Player<'a> {
    program: Program<'a>,
    spec: Spec,
    scale: f32,
    text: bool,
    zeros: Zeros,
    index: Arc<Index>,
    model: Model,
    next_id: i64,
    n_bulk: usize,
    held: Vec<(Arc<Snapshot>, Model)>,
}

fuzz_target!(|data: &[u8]| {
    let mut program = Program(data);
    let encoding = Encoding::ALL[program.byte() % 6];
    let metrics: &[Metric] = if encoding == Encoding::Binary { &Metric::ALL[6..] } else { &Metric::ALL[..6] };
    let metric = metrics[program.byte() % metrics.len()];
    let dim = 1 + program.byte() % 19;
    let flags = program.byte();
    let shadow = flags & 1 == 1 && !encoding.is_short() && metric != Metric::Manhattan;
    // Powers of two keep the model's numbers what the index holds.
    let scale = match encoding {
        Encoding::Int8 | Encoding::UInt8 | Encoding::Binary => 1.0,
        Encoding::Float32 => [0.25, 1.0, (2.0f32).powi(-40), (2.0f32).powi(40)][flags >> 1 & 3],
        _ => [0.25, 1.0, 0.125, 16.0][flags >> 1 & 3],
    };
    let spec = Spec { dim, metric, encoding, rerank: None, structure: Structure::Exact, shadow, seed: 7 };
    let mut player = Player {
        program,
        spec,
        scale,
        text: flags & 8 == 8,
        zeros: if flags & 16 == 16 { Zeros::Accept } else { Zeros::Refuse },
        index: Arc::new(Index::new(spec).unwrap()),
        model: Model::new(),
        next_id: 0,
        n_bulk: 0,
        held: Vec::new(),
    };
    for _ in 0..60 {
        if player.program.0.is_empty() {
            break;
        }
        player.step();
    }
    let snapshot = player.index.snapshot();
    player.check(&snapshot, &player.model);
    for (snapshot, model) in std::mem::take(&mut player.held) {
        player.check(&snapshot, &model);
    }
});

impl Player<'_> {
    fn step(&mut self) {
        match self.program.byte() % 16 {
            0 => self.add(true, false),
            1 | 2 => self.add(false, false),
            3 | 4 => self.add(false, true),
            5 => self.remove(),
            6..=8 => self.search(),
            9 => self.search_radius(),
            10 => self.neighbors_of(),
            11 => self.save_and_open(),
            12 => self.bulk(),
            13 => self.hold(),
            14 => self.refused(),
            _ => self.get(),
        }
        if self.model.len() > MANY {
            self.thin_out();
        }
    }

    fn value(&mut self) -> f32 {
        let byte = self.program.byte() as u8;
        match self.spec.encoding {
            Encoding::UInt8 => f32::from(byte),
            Encoding::Binary => f32::from(byte & 1),
            _ => f32::from(byte as i8) * self.scale,
        }
    }

    /// One in four repeats the value before it: ties, duplicates and zeros.
    fn vector(&mut self) -> Vec<f32> {
        let flat = self.program.byte() % 4 == 0;
        let first = self.value();
        (0..self.spec.dim).map(|i| if flat || i == 0 { first } else { self.value() }).collect()
    }

    fn random_vector(&self, random: &mut Random) -> Vec<f32> {
        let value = |random: &mut Random| match self.spec.encoding {
            Encoding::UInt8 => random.below(256) as f32,
            Encoding::Binary => random.below(2) as f32,
            _ => (random.below(256) as f32 - 128.0) * self.scale,
        };
        (0..self.spec.dim).map(|_| value(random)).collect()
    }

    /// As the index takes them.
    fn packed(&self, vectors: &[Vec<f32>]) -> Vec<u8> {
        let byte =
            |bits: &[f32]| bits.iter().enumerate().fold(0, |byte, (i, &bit)| byte | (bit as u8) << (7 - i));
        vectors.iter().flat_map(|vector| vector.chunks(8).map(byte)).collect()
    }

    fn change(&self, vectors: &[Vec<f32>], ids: Option<IdList>, replace: bool) -> Result<IdList, Error> {
        let mut stage = self.index.stage(self.zeros, &Silent)?;
        if self.spec.encoding == Encoding::Binary {
            stage.append(Values::UInt8(&self.packed(vectors)), ids, &Work::inline())?;
        } else {
            stage.append(Values::Float32(&vectors.concat()), ids, &Work::inline())?;
        }
        stage.commit(replace, &Work::inline())
    }

    fn key(&mut self) -> Key {
        let byte = self.program.byte() as i64;
        match self.text {
            true => Key::Text("é".repeat(byte as usize % 3) + &(byte % 48).to_string()),
            false => Key::Int(if byte >= 200 { byte << 40 } else { byte % 48 }),
        }
    }

    fn has_zero(&self, vectors: &[Vec<f32>]) -> bool {
        vectors.iter().any(|vector| vector.iter().all(|&value| value == 0.0))
    }

    fn add(&mut self, automatic: bool, replace: bool) {
        let n = self.program.byte() % 5;
        let vectors: Vec<_> = (0..n).map(|_| self.vector()).collect();
        let refused = self.zeros == Zeros::Refuse && self.spec.metric.is_angular() && self.has_zero(&vectors);
        if automatic {
            let added = self.change(&vectors, None, false);
            // Of no kind before the first vector, also if it is to be text in this program.
            if refused || n > 0 && self.text && !self.model.is_empty() {
                assert!(added.is_err());
            } else if n > 0 && self.text {
                // An index that held text keeps to it; else this made it an index of numbers: undo by starting anew.
                if added.is_ok() {
                    self.restart();
                }
            } else {
                let expected: Vec<Key> = (self.next_id..).take(n).map(Key::Int).collect();
                assert_eq!(added.unwrap(), list(&expected, false));
                self.learn(expected, vectors);
            }
            return;
        }
        let keys: Vec<Key> = (0..n).map(|_| self.key()).collect();
        let repeated = (1..n).any(|i| keys[..i].contains(&keys[i]));
        let there = keys.iter().any(|key| self.model.contains_key(key));
        let added = self.change(&vectors, Some(list(&keys, self.text)), replace);
        if refused || repeated || there && !replace {
            assert!(matches!(added, Err(Error::Argument(_))), "{added:?}");
        } else {
            assert_eq!(added.unwrap(), list(&keys, self.text));
            self.learn(keys, vectors);
        }
    }

    fn learn(&mut self, keys: Vec<Key>, vectors: Vec<Vec<f32>>) {
        for (key, vector) in keys.into_iter().zip(vectors) {
            if let Key::Int(id) = key {
                self.next_id = self.next_id.max(id + 1);
            }
            self.model.insert(key, vector);
        }
    }

    fn restart(&mut self) {
        self.index = Arc::new(Index::new(self.spec).unwrap());
        self.model.clear();
        self.next_id = 0;
    }

    fn remove(&mut self) {
        let keys: Vec<Key> = (0..self.program.byte() % 6).map(|_| self.key()).collect();
        self.forget(&keys);
    }

    fn forget(&mut self, keys: &[Key]) {
        let gone = keys.iter().filter(|key| self.model.remove(key).is_some()).count();
        assert_eq!(self.index.remove(&list(keys, self.text), &Work::inline()).unwrap(), gone);
    }

    /// Enough rows for chunks to be compacted once they are gone, and for blocks of a shadow.
    fn bulk(&mut self) {
        let (n, seed) = (600 + self.program.byte() * 4, self.program.byte());
        // They are slow: few a program.
        if self.n_bulk > 3000 || seed % 2 == 1 {
            return;
        }
        let mut random = Random(seed as u64);
        let mut vectors: Vec<_> = (0..n).map(|_| self.random_vector(&mut random)).collect();
        vectors.iter_mut().filter(|vector| vector.iter().all(|&value| value == 0.0)).for_each(|vector| {
            vector[0] = self.scale;
        });
        let first = 1000 + self.n_bulk;
        self.n_bulk += n;
        let key = |i: usize| match self.text {
            true => Key::Text(format!("bulk {i}")),
            false => Key::Int(i as i64),
        };
        let keys: Vec<Key> = (first..first + n).map(key).collect();
        // Numbers may have reached these; then they are replaced.
        self.change(&vectors, Some(list(&keys, self.text)), true).unwrap();
        self.learn(keys, vectors);
        if seed % 3 == 0 {
            self.thin_out();
        }
    }

    fn thin_out(&mut self) {
        let keys: Vec<Key> =
            self.model.keys().cloned().enumerate().filter(|(i, _)| i % 7 > 0).map(|(_, key)| key).collect();
        self.forget(&keys);
    }

    fn save_and_open(&mut self) {
        let mut bytes = Vec::new();
        self.index.snapshot().write(&mut bytes).unwrap();
        let view = FileView::open(Arc::new(Bytes::copied(&bytes).unwrap()), Some("index")).unwrap();
        view.verify().unwrap();
        verify(&view).unwrap();
        if self.program.byte() % 2 == 0 {
            let index = Arc::new(Index::from_bytes(Arc::new(mapped(&bytes))).unwrap());
            self.check(&index.snapshot(), &self.model);
            let mut again = Vec::new();
            index.snapshot().write(&mut again).unwrap();
            assert!(again == bytes, "the same content gives the same bytes");
        }
        self.index = Arc::new(Index::from_bytes(Arc::new(Bytes::copied(&bytes).unwrap())).unwrap());
    }

    fn hold(&mut self) {
        if self.held.len() < 4 {
            self.held.push((self.index.snapshot(), self.model.clone()));
        }
    }

    /// Changes that are refused or given up change nothing.
    fn refused(&mut self) {
        let before = self.index.snapshot();
        let n = 1 + self.program.byte() % 300;
        let mut vectors = vec![vec![1.0; self.spec.dim]; n];
        let keys: Vec<Key> = (0..n).map(|i| Key::Int(i as i64 + 500)).collect();
        let mut stage = self.index.stage(self.zeros, &Silent).unwrap();
        if self.spec.encoding == Encoding::Binary {
            let _ = stage.append(Values::UInt8(&self.packed(&vectors)), None, &Work::inline());
            drop(stage);
            assert!(self.change(&vectors, Some(IdList::Int(vec![1; n + 1])), true).is_err());
        } else {
            let _ = stage.append(Values::Float32(&vectors.concat()), None, &Work::inline());
            drop(stage);
            vectors[n - 1][0] = f32::NAN;
            assert!(self.change(&vectors, Some(list(&keys, false)), true).is_err());
        }
        let mixed = if self.text { IdList::Int(vec![1]) } else { IdList::Text(vec!["1".into()]) };
        if !self.model.is_empty() {
            assert!(self.change(&vec![vec![1.0; self.spec.dim]], Some(mixed), true).is_err());
        }
        assert!(self.change(&vec![vec![1.0; self.spec.dim]], Some(IdList::Int(vec![-1])), true).is_err());
        assert_eq!(self.index.snapshot().ids(), before.ids());
    }

    fn get(&mut self) {
        let key = self.key();
        let snapshot = self.index.snapshot();
        assert_eq!(snapshot.contains(key.id()), self.model.contains_key(&key));
        let rows = snapshot.rows_of(&list(&[key.clone()], self.text));
        let Some(expected) = self.model.get(&key) else {
            assert!(rows.is_err() || snapshot.id_kind() == "none");
            return;
        };
        let mut got = Vec::new();
        snapshot.values_of(&rows.unwrap(), |values| match values {
            Values::Float32(values) => got.extend_from_slice(values),
            Values::Float16(values) => got.extend(values.iter().map(|value| value.to_f32())),
            Values::BFloat16(values) => got.extend(values.iter().map(|value| value.to_f32())),
            Values::Int8(values) => got.extend(values.iter().map(|&value| f32::from(value))),
            Values::UInt8(values) if self.spec.encoding == Encoding::Binary => {
                let bits = values.iter().flat_map(|byte| (0..8).map(move |i| f32::from(byte >> (7 - i) & 1)));
                got.extend(bits.take(self.spec.dim));
            }
            Values::UInt8(values) => got.extend(values.iter().map(|&value| f32::from(value))),
        });
        assert_eq!(&got, expected);
    }

    /// The distance in float64; the model's numbers make sums nearly or wholly exact.
    fn distance(&self, query: &[f32], vector: &[f32]) -> f64 {
        let pairs = || query.iter().zip(vector).map(|(&q, &x)| (f64::from(q), f64::from(x)));
        let squares: f64 = pairs().map(|(q, x)| (q - x) * (q - x)).sum();
        let dot: f64 = pairs().map(|(q, x)| q * x).sum();
        let norms =
            (pairs().map(|(q, _)| q * q).sum::<f64>() * pairs().map(|(_, x)| x * x).sum::<f64>()).sqrt();
        let cosine = if norms > 0.0 { (dot / norms).clamp(-1.0, 1.0) } else { 0.0 };
        let both: f64 = pairs().map(|(q, x)| q * x).sum();
        let either: f64 = pairs().map(|(q, x)| q.max(x)).sum();
        match self.spec.metric {
            Metric::Euclidean => squares.sqrt(),
            Metric::SqEuclidean => squares,
            Metric::Cosine => 1.0 - cosine,
            Metric::Angular => cosine.acos(),
            Metric::InnerProduct => -dot,
            Metric::Manhattan => pairs().map(|(q, x)| (q - x).abs()).sum(),
            Metric::Hamming => squares,
            Metric::Jaccard => {
                if either > 0.0 {
                    1.0 - both / either
                } else {
                    0.0
                }
            }
        }
    }

    /// How far a reported distance may be from the model's: its rounding to float32, and where angles are steep.
    fn slack(&self, distance: f64) -> f64 {
        match self.spec.metric {
            Metric::Angular => 2e-6 + distance * 1e-6,
            Metric::Cosine | Metric::Jaccard => 1e-6,
            _ => distance.abs() * 1e-6,
        }
    }

    fn ask(
        &self,
        queries: &[Vec<f32>],
        ask: impl Fn(Queries<'_>) -> Result<Neighbors, Error>,
    ) -> Option<Neighbors> {
        let found = if self.spec.encoding == Encoding::Binary {
            ask(Queries::Bits(&self.packed(queries)))
        } else {
            ask(Queries::Numbers(&queries.concat()))
        };
        if self.spec.metric.is_angular() && self.has_zero(queries) {
            assert!(matches!(found, Err(Error::Argument(_))));
            return None;
        }
        Some(found.unwrap())
    }

    /// Each list holds the nearest of `among`, with their distances, in order, ties by id.
    fn compare(
        &self,
        snapshot: &Snapshot,
        query: &[f32],
        found: &[nearest_core::candidates::Candidate],
        among: &BTreeMap<&Key, &Vec<f32>>,
        goal: Result<usize, f32>,
    ) {
        let ids = snapshot.ids_of(found.iter().map(|candidate| candidate.row));
        let keys: Vec<Key> = ids.iter().map(Key::of).collect();
        for (i, (key, candidate)) in keys.iter().zip(found).enumerate() {
            let vector = among.get(key).unwrap_or_else(|| panic!("{key:?} was not to be found"));
            let expected = self.distance(query, vector);
            let got = f64::from(candidate.distance);
            assert!((got - expected).abs() <= self.slack(expected), "{key:?}: {got} for {expected}");
            if i > 0 {
                let (before, now) = (found[i - 1].distance, candidate.distance);
                assert!(before < now || before == now && keys[i - 1] < *key, "order at {i}");
            }
        }
        let limit = match goal {
            Ok(k) => {
                assert_eq!(found.len(), k.min(among.len()));
                found.last().map_or(f64::NEG_INFINITY, |last| f64::from(last.distance))
            }
            Err(radius) => f64::from(radius),
        };
        if goal.is_ok_and(|k| k >= among.len()) {
            return;
        }
        let got: std::collections::BTreeSet<&Key> = keys.iter().collect();
        for (key, vector) in among.iter().filter(|(key, _)| !got.contains(*key)) {
            let distance = self.distance(query, vector);
            assert!(
                distance + self.slack(distance) >= limit,
                "{key:?} at {distance} was left out, limit {limit}"
            );
        }
    }

    fn queries(&mut self) -> Vec<Vec<f32>> {
        let n = [1, 1, 2, 5, 17][self.program.byte() % 5];
        let first = self.vector();
        let mut random = Random(self.program.byte() as u64);
        let mut queries = vec![first];
        queries.extend((1..n).map(|_| self.random_vector(&mut random)));
        queries
    }

    fn search(&mut self) {
        let queries = self.queries();
        let k = 1 + self.program.byte() % 12;
        let filter = self.program.byte();
        let threads = if filter & 64 == 64 { 2 } else { 1 };
        let work = Work::new(Some(threads), &Silent);
        let snapshot = self.index.snapshot();
        let ids = snapshot.ids();
        assert_eq!(ids.len(), self.model.len());
        let step = [1, 2, 3, 50][filter >> 2 & 3];
        let mask: Vec<bool> = (0..ids.len()).map(|i| i % step == 0).collect();
        let mut allowed_keys: Vec<Key> = ids.iter().step_by(step).map(Key::of).collect();
        let mut among: BTreeMap<&Key, &Vec<f32>> = self.model.iter().collect();
        if filter & 3 > 0 {
            among = allowed_keys.iter().map(|key| self.model.get_key_value(key).unwrap()).collect();
        }
        // One that is not there is no error.
        if self.text {
            allowed_keys.push(Key::Text("nobody".into()));
        } else {
            allowed_keys.push(Key::Int(i64::MAX));
        }
        let allowed_ids = list(&allowed_keys, self.text);
        let allowed = match filter & 3 {
            0 => None,
            1 if snapshot.id_kind() != "none" => Some(Allowed::Ids(&allowed_ids)),
            _ => Some(Allowed::Mask(&mask)),
        };
        let Some(found) = self.ask(&queries, |queries| snapshot.search(queries, k, allowed, Knobs::default(), &work)) else {
            return;
        };
        for (query, list) in queries.iter().zip(&found.found) {
            self.compare(&snapshot, query, list, &among, Ok(k));
        }
        // One by one gives what all at once gave, to the bit.
        let one =
            self.ask(&queries[..1], |query| snapshot.search(query, k, allowed, Knobs::default(), &Work::inline())).unwrap();
        assert_eq!(one.found[0], found.found[0]);
    }

    fn search_radius(&mut self) {
        let queries = self.queries();
        let snapshot = self.index.snapshot();
        let Some(some) = self.model.values().next() else { return };
        let radius = self.distance(&queries[0], some) as f32;
        let work = Work::inline();
        let Some(found) = self.ask(&queries, |queries| snapshot.search_radius(queries, radius, None, Knobs::default(), &work))
        else {
            return;
        };
        let among: BTreeMap<&Key, &Vec<f32>> = self.model.iter().collect();
        for (query, list) in queries.iter().zip(&found.found) {
            assert!(list.iter().all(|candidate| candidate.distance <= radius));
            self.compare(&snapshot, query, list, &among, Err(radius));
        }
    }

    fn neighbors_of(&mut self) {
        let key = self.key();
        let Some(vector) = self.model.get(&key).cloned() else { return };
        let snapshot = self.index.snapshot();
        let k = 1 + self.program.byte() % 9;
        let found = snapshot.neighbors_of(&list(&[key.clone()], self.text), k, None, Knobs::default(), &Work::inline());
        if self.spec.metric.is_angular() && self.has_zero(std::slice::from_ref(&vector)) {
            return;
        }
        let among: BTreeMap<&Key, &Vec<f32>> =
            self.model.iter().filter(|(other, _)| **other != key).collect();
        self.compare(&snapshot, &vector, &found.unwrap().found[0], &among, Ok(k));
    }

    /// All of a version.
    fn check(&self, snapshot: &Snapshot, model: &Model) {
        assert_eq!(snapshot.len(), model.len());
        let mut keys: Vec<Key> = snapshot.ids().iter().map(Key::of).collect();
        keys.sort();
        assert!(keys.iter().eq(model.keys()));
        let Some((key, vector)) = model.iter().last() else { return };
        assert!(snapshot.contains(key.id()));
        let among = model.iter().collect();
        let query = std::slice::from_ref(vector);
        if self.spec.metric.is_angular() && self.has_zero(query) {
            return;
        }
        let found = self.ask(query, |query| snapshot.search(query, 5, None, Knobs::default(), &Work::inline())).unwrap();
        self.compare(snapshot, vector, &found.found[0], &among, Ok(5));
    }
}
