//! Saving and opening an index while files fail: whatever fails, and whenever the power goes, the old index opens or
//! the new one does, whole, and nothing else is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::{Error, Result};
use nearest_core::file::FileView;
use nearest_core::files::{Fault, FaultyFiles, Files, Operation, RealFiles};
use nearest_core::ids::IdList;
use nearest_core::index::{Index, Knobs, Queries, Snapshot, Spec, Structure, Zeros, verify};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::work::{Silent, Work};

/// A folder of its own for one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nearest-faults-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn clear(&self) {
        self.names().iter().for_each(|name| fs::remove_file(self.0.join(name)).unwrap());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const FAULTS: [Fault; 4] = [Fault::NoSpace, Fault::Device, Fault::Interrupted, Fault::Short];

/// `n` vectors of bytes or, with a shadow and texts as ids, of floats; all of them tell the version.
fn index(version: u8, n: usize, rich: bool) -> Arc<Snapshot> {
    let encoding = if rich { Encoding::Float32 } else { Encoding::UInt8 };
    let spec = Spec {
        dim: 3,
        metric: Metric::Euclidean,
        encoding,
        rerank: None,
        structure: Structure::Exact,
        shadow: rich,
        seed: u64::from(version),
    };
    let index = Arc::new(Index::new(spec).unwrap());
    let mut stage = index.stage(Zeros::Accept, &Silent).unwrap();
    let values: Vec<u8> = (0..n * 3).map(|i| (i % 200) as u8 ^ version).collect();
    if rich {
        let values: Vec<f32> = values.iter().map(|&value| f32::from(value)).collect();
        let texts = (0..n).map(|i| format!("{version} {i}")).collect();
        stage.append(Values::Float32(&values), Some(IdList::Text(texts)), &Work::inline()).unwrap();
    } else {
        stage.append(Values::UInt8(&values), None, &Work::inline()).unwrap();
    }
    stage.commit(false, &Work::inline()).unwrap();
    index.snapshot()
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write(&mut bytes).unwrap();
    bytes
}

/// Opens a file both ways, checks all of it, searches it, and gives its bytes.
fn opened(path: &Path) -> Result<Vec<u8>> {
    let mut answers = Vec::new();
    for map in [true, false] {
        let index = Index::open(&RealFiles, path, map)?;
        let snapshot = index.snapshot();
        answers.push(
            snapshot
                .search(Queries::Numbers(&[1.0, 2.0, 3.0]), 5, None, Knobs::default(), &Work::inline())?
                .found,
        );
    }
    assert_eq!(answers[0], answers[1]);
    let view = FileView::open(Arc::new(RealFiles.open_bytes(path, true)?), Some("index"))?;
    view.verify()?;
    verify(&view)?;
    Ok(fs::read(path).unwrap())
}

#[test]
fn whatever_fails_the_old_or_the_new_index_opens() {
    for rich in [false, true] {
        // Large enough for several writes.
        let n = if rich { 20_000 } else { 200_000 };
        let (old, new) = (index(1, n, rich), index(2, n, rich));
        let (old_bytes, new_bytes) = (bytes_of(&old), bytes_of(&new));
        let folder = Folder::new();
        let path = folder.0.join("a.nearest");
        for fault in FAULTS {
            for (always, existed) in [(false, true), (true, true), (false, false)] {
                for n in 0.. {
                    folder.clear();
                    if existed {
                        old.save(&RealFiles, &path).unwrap();
                    }
                    let files = FaultyFiles::new(&folder.0).unwrap();
                    files.fail_at(n, fault, always);
                    let saved = new.save(&files, &path);
                    let context = format!("{fault:?}, always {always}, at {n}: {saved:?}");
                    if let Err(error) = &saved {
                        assert!(matches!(error, Error::Io { path: at, .. } if *at == path), "{context}");
                    }
                    // The only error after which the new index is there is that of the last step.
                    let in_place = saved.is_ok() || files.operations().contains(&Operation::SyncFolder);
                    let expected = match (in_place, existed) {
                        (true, _) => Some(&new_bytes),
                        (false, true) => Some(&old_bytes),
                        (false, false) => None,
                    };
                    let left = if expected.is_some() { vec!["a.nearest"] } else { Vec::new() };
                    assert_eq!(folder.names(), left, "{context}");
                    if let Some(expected) = expected {
                        assert!(fs::read(&path).unwrap() == *expected, "{context}");
                        let found = Index::open(&RealFiles, &path, true).unwrap().snapshot();
                        assert_eq!(found.len(), new.len(), "{context}");
                    }
                    let fired = files.fired();
                    // When the fault is over, the same index saves.
                    files.fail_at(usize::MAX, fault, false);
                    new.save(&files, &path).unwrap();
                    assert!(fs::read(&path).unwrap() == new_bytes, "{context}");
                    if !fired {
                        assert!(opened(&path).unwrap() == new_bytes);
                        assert!(n >= 6, "several writes: {context}");
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn an_index_opens_whole_or_says_what_the_system_said() {
    let folder = Folder::new();
    let path = folder.0.join("a.nearest");
    let snapshot = index(1, 2000, true);
    snapshot.save(&RealFiles, &path).unwrap();
    let files = FaultyFiles::new(&folder.0).unwrap();
    for fault in FAULTS {
        for always in [false, true] {
            for map in [false, true] {
                for n in 0.. {
                    files.fail_at(n, fault, always);
                    match Index::open(&files, &path, map) {
                        Ok(index) => assert!(bytes_of(&index.snapshot()) == bytes_of(&snapshot)),
                        Err(Error::Io { path: at, .. }) => assert_eq!(at, path),
                        // A fault of the device is not a fault of the file.
                        Err(error) => panic!("{fault:?} at {n}: {error}"),
                    }
                    if !files.fired() {
                        assert!(n >= 2);
                        break;
                    }
                }
            }
        }
    }
    assert_eq!(folder.names(), ["a.nearest"]);
}

#[test]
fn a_power_cut_leaves_the_old_or_the_new_index() {
    for rich in [false, true] {
        let versions: Vec<_> = (0..3).map(|version| index(version, 1500, rich)).collect();
        let bytes: Vec<_> = versions.iter().map(|version| bytes_of(version)).collect();
        let folder = Folder::new();
        let path = folder.0.join("a.nearest");
        let (mut n_old, mut n_new, mut n_torn) = (0, 0, 0);
        for existed in [false, true] {
            for n in 0.. {
                let mut fired = false;
                for seed in 0..25 {
                    folder.clear();
                    if existed {
                        versions[0].save(&RealFiles, &path).unwrap();
                    }
                    // Mapped before, it answers to the end.
                    let mapped = existed.then(|| Index::open(&RealFiles, &path, true).unwrap());
                    let files = FaultyFiles::new(&folder.0).unwrap();
                    files.fail_at(n, Fault::PowerOff, false);
                    let acknowledged =
                        (1..3).take_while(|&i| versions[i].save(&files, &path).is_ok()).count();
                    fired |= files.fired();
                    files.cut(seed).unwrap();
                    let context = format!("existed {existed}, cut at {n}, seed {seed}");
                    // Nothing acknowledged is lost; what was in flight is there as a whole or not at all.
                    if path.exists() {
                        let found = opened(&path).unwrap_or_else(|error| panic!("{context}: {error}"));
                        let is_old = found == bytes[acknowledged] && (existed || acknowledged > 0);
                        let is_new = bytes.get(acknowledged + 1) == Some(&found);
                        assert!(is_old || is_new, "{context}");
                        n_old += usize::from(is_old);
                        n_new += usize::from(is_new);
                    } else {
                        assert!(!existed && acknowledged == 0, "{context}");
                    }
                    // What an interrupted save left beside is an index or no file of ours, but nothing between.
                    for name in folder.names().iter().filter(|name| name.ends_with(".tmp")) {
                        match opened(&folder.0.join(name)) {
                            Ok(found) => assert!(bytes.contains(&found), "{context}"),
                            Err(Error::Format(_)) => n_torn += 1,
                            Err(error) => panic!("{context}: {error}"),
                        }
                    }
                    if let Some(mapped) = mapped {
                        assert!(bytes_of(&mapped.snapshot()) == bytes[0], "{context}");
                    }
                    // Life goes on.
                    versions[2].save(&files, &path).unwrap();
                    files.cut(0).unwrap();
                    assert!(opened(&path).unwrap() == bytes[2], "{context}");
                }
                if !fired {
                    break;
                }
            }
        }
        // All of these do happen: otherwise the simulation is blind.
        assert!(n_old > 50 && n_new > 10 && n_torn > 10, "{n_old} {n_new} {n_torn}");
    }
}

#[test]
fn no_part_of_an_index_opens() {
    let whole = bytes_of(&index(1, 1100, true));
    let open = |bytes: &[u8]| Index::from_bytes(Arc::new(Bytes::copied(bytes).unwrap()));
    assert!(open(&whole).is_ok());
    for n in (0..whole.len()).filter(|n| n % 64 < 2 || n + 300 > whole.len()) {
        assert!(matches!(open(&whole[..n]), Err(Error::Format(_))), "the first {n} bytes");
        // As a disk may leave it: the length is there, the rest is not.
        let mut zeros = whole[..n].to_vec();
        zeros.resize(whole.len(), 0);
        let same = zeros == whole;
        assert_eq!(open(&zeros).is_ok(), same, "zeros from {n} on");
    }
}

#[test]
fn saving_where_nothing_can_be_saved_changes_nothing() {
    let folder = Folder::new();
    let snapshot = index(1, 10, false);
    for path in [folder.0.clone(), folder.0.join("none/a"), PathBuf::from("/dev/null"), PathBuf::new()] {
        assert!(matches!(snapshot.save(&RealFiles, &path), Err(Error::Io { .. })), "{path:?}");
    }
    assert!(folder.names().is_empty());
}
