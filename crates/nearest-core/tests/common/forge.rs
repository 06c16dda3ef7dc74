//! Files taken apart, put together with other numbers and right checksums, and used.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nearest_core::encoding::Values;
use nearest_core::error::{Error, Result};
use nearest_core::file::{Dtype, FileView, FileWriter};
use nearest_core::files::{Files, RealFiles, replace_file};
use nearest_core::ids::IdList;
use nearest_core::index::{Allowed, Index, Knobs, Queries, Snapshot, Zeros, verify};
use nearest_core::memory::Bytes;
use nearest_core::random::Random;
use nearest_core::work::{Silent, Work};

use super::bytes_of;

/// One section, taken out of a file.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
    pub is_required: bool,
}

pub fn view(bytes: &[u8]) -> FileView {
    FileView::open(Arc::new(Bytes::copied(bytes).unwrap()), None).unwrap()
}

pub fn parts(bytes: &[u8]) -> Vec<Part> {
    let view = view(bytes);
    let part = |section: &nearest_core::file::Section| Part {
        name: section.name().into(),
        dtype: section.dtype(),
        shape: section.shape().to_vec(),
        data: view.bytes_of(section).to_vec(),
        is_required: section.is_required(),
    };
    view.sections().iter().map(part).collect()
}

pub fn built(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = FileWriter::new(&mut bytes, "index").unwrap();
    for part in parts {
        file.section(&part.name, part.dtype, &part.shape, |out| out.write_all(&part.data)).unwrap();
        if part.is_required {
            file.mark_required();
        }
    }
    file.finish().unwrap();
    bytes
}

pub fn opened(bytes: &[u8], map: bool) -> Result<Index> {
    if !map {
        return Index::from_bytes(Arc::new(Bytes::copied(bytes)?));
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("nearest-forged-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    replace_file(&RealFiles, &path, |out| out.write_all(bytes).map_err(|error| Error::io(&path, error)))?;
    let mapped = RealFiles.open_bytes(&path, true);
    std::fs::remove_file(&path).unwrap();
    Index::from_bytes(Arc::new(mapped?))
}

/// What may go wrong with an index whose file lies: nothing but these.
pub fn may_fail<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Argument(_) | Error::Format(_) | Error::UnknownId(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// All that reads.
pub fn look(snapshot: &Snapshot) {
    let (work, dim) = (Work::inline(), snapshot.spec().dim);
    let ids = snapshot.ids();
    assert_eq!(ids.len(), snapshot.len());
    let mut random = Random::new(1, 2);
    let queries: Vec<f32> = (0..20 * dim).map(|_| random.below(200) as f32 + 0.5).collect();
    let mask: Vec<bool> = (0..snapshot.len()).map(|i| i % 3 == 0).collect();
    // So few that they are read out of the lists.
    let rare: Vec<bool> = (0..snapshot.len()).map(|i| i % 80 == 1).collect();
    // What ids lead to; fewer rows than there are where some are damaged.
    let live: HashSet<u32> =
        snapshot.rows_of(&ids).map_or_else(|_| HashSet::new(), |rows| rows.into_iter().collect());
    let few = Knobs { effort: Some(2), rerank_k: Some(50) };
    let many = Knobs { effort: Some(1 << 40), rerank_k: Some(1 << 40) };
    for (n, knobs, mask) in [
        (20, Knobs::default(), None),
        (20, few, Some(&mask)),
        (1, Knobs::default(), Some(&mask)),
        (1, few, None),
        (1, many, None),
        (1, many, Some(&mask)),
        (20, Knobs::default(), Some(&rare)),
        (1, few, Some(&rare)),
    ] {
        let queries = Queries::Numbers(&queries[..n * dim]);
        let allowed = mask.map(|mask| Allowed::Mask(mask));
        let found = may_fail(snapshot.search(queries, 9, allowed, knobs, &work));
        for list in found.iter().flat_map(|found| &found.found) {
            let rows: HashSet<u32> = list.iter().map(|candidate| candidate.row).collect();
            assert!(rows.len() == list.len() && list.len() <= 9);
            assert!(live.len() < snapshot.len() || rows.is_subset(&live));
            assert!(list.iter().all(|candidate| !candidate.distance.is_nan()));
            snapshot.ids_of(rows.into_iter());
        }
        if n == 1 {
            for radius in [500.0, f32::INFINITY] {
                may_fail(snapshot.search_radius(queries, radius, allowed, knobs, &work));
            }
        }
    }
    let first = snapshot.ids_of((0..9u32.min(snapshot.len() as u32)).chain([u32::MAX - 1]));
    may_fail(snapshot.neighbors_of(&first, 3, None, Knobs::default(), &work));
    let some: Vec<u32> = live.into_iter().take(50).collect();
    may_fail(snapshot.neighbors_of(&snapshot.ids_of(some.iter().copied().take(9)), 3, None, many, &work));
    for row in some {
        may_fail(snapshot.values_of(&[row], |values| assert_eq!(values.len(), dim)));
    }
    snapshot.stats();
}

/// All that can be done with bytes. Tells whether they open.
pub fn use_them(bytes: &[u8]) -> bool {
    let work = Work::inline();
    let verified = view(bytes).verify().and_then(|()| verify(&view(bytes)));
    if let Err(error) = &verified {
        assert!(matches!(error, Error::Format(_)), "{error}");
    }
    let mut opens = Vec::new();
    for map in [true, false] {
        let index = match opened(bytes, map) {
            Ok(index) => Arc::new(index),
            Err(Error::Format(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        opens.push(map);
        let snapshot = index.snapshot();
        look(&snapshot);
        let again = opened(&bytes_of(&snapshot), false);
        assert!(verified.is_err() || again.is_ok());
        if map {
            continue;
        }
        let ids = snapshot.ids();
        let text = matches!(ids, IdList::Text(_));
        let named = |first: i64, n: usize| match text {
            true => IdList::Text((0..n).map(|i| format!("row {}", first + i as i64)).collect()),
            false => IdList::Int((first..first + n as i64).collect()),
        };
        let mut random = Random::new(7, 7);
        for (first, n, replace) in [(1 << 20, 1, false), (400, 500, true), (1 << 21, 1800, false)] {
            let values: Vec<f32> = (0..n * index.spec().dim).map(|_| random.below(200) as f32).collect();
            let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
            let staged = stage.append(Values::Float32(&values), Some(named(first, n)), &work);
            if may_fail(staged).is_some() {
                may_fail(stage.commit(replace, &work));
            }
        }
        look(&index.snapshot());
        may_fail(index.remove(&named(0, 650), &work));
        may_fail(index.remove(&named(1 << 21, 1500), &work));
        look(&index.snapshot());
        if let Some(again) = may_fail(opened(&bytes_of(&index.snapshot()), false)) {
            look(&again.snapshot());
        }
    }
    assert!(opens.len() != 1 || !opens[0] || verified.is_err(), "a map and a copy open alike");
    !opens.is_empty()
}

/// Changes one section of a file.
pub fn changed(parts: &[Part], name: &str, change: impl FnOnce(&mut Part)) -> Vec<Part> {
    let mut parts = parts.to_vec();
    change(parts.iter_mut().find(|part| part.name == name).unwrap_or_else(|| panic!("no section {name}")));
    parts
}

pub fn put<const W: usize>(part: &mut Part, at: usize, value: [u8; W]) {
    part.data[at..at + W].copy_from_slice(&value);
}
