//! Replacing files: whatever fails, and whenever the power goes, the old content or the new one is there.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use nearest_core::error::{Error, Result};
use nearest_core::files::{Fault, FaultyFiles, Files, Operation, RealFiles, replace_file};

/// A folder of its own for one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nearest-files-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const FAULTS: [Fault; 4] = [Fault::NoSpace, Fault::Device, Fault::Interrupted, Fault::Short];

/// Larger than the write buffer, in unequal pieces, so that there are several writes.
fn content(seed: u8) -> Vec<u8> {
    (0..700_001u32).map(|i| (i / 251) as u8 ^ seed).collect()
}

fn replace(files: &dyn Files, path: &Path, bytes: &[u8]) -> Result<()> {
    replace_file(files, path, |out| {
        bytes
            .chunks(200_000)
            .try_for_each(|part| out.write_all(part))
            .map_err(|error| Error::io("<stream>", error))
    })
}

#[test]
fn files_are_replaced_and_read_both_ways() {
    let folder = Folder::new();
    let path = folder.join("words.nearest");
    for seed in [1, 2] {
        replace(&RealFiles, &path, &content(seed)).unwrap();
        for memory_map in [true, false] {
            let bytes = RealFiles.open_bytes(&path, memory_map).unwrap();
            assert_eq!(bytes.is_mapped(), memory_map);
            assert!(*bytes == *content(seed));
        }
    }
    replace(&RealFiles, &path, b"").unwrap();
    for memory_map in [true, false] {
        assert!(RealFiles.open_bytes(&path, memory_map).unwrap().is_empty());
    }
    assert_eq!(folder.names(), ["words.nearest"]);
    assert!(RealFiles.available_bytes(&folder.0).unwrap() > 0);
    assert!(matches!(RealFiles.available_bytes(&folder.join("none")), Err(Error::Io { .. })));
}

#[test]
fn a_mapped_file_stays_as_it_was() {
    let folder = Folder::new();
    let path = folder.join("a");
    replace(&RealFiles, &path, &content(1)).unwrap();
    let old = RealFiles.open_bytes(&path, true).unwrap();
    replace(&RealFiles, &path, b"short").unwrap();
    assert!(*old == *content(1));
    assert_eq!(*RealFiles.open_bytes(&path, true).unwrap(), *b"short");
}

#[test]
fn names_are_plain_relative_or_long() {
    let folder = Folder::new();
    let long = folder.join(&"ü".repeat(127));
    replace(&RealFiles, &long, b"1").unwrap();
    assert_eq!(fs::read(&long).unwrap(), b"1");
    // Relative to the working folder, that of the crate: taken back at once.
    let name = PathBuf::from(format!("nearest-files-{}.tmp", std::process::id()));
    let written = replace(&RealFiles, &name, b"2");
    let read = fs::read(&name);
    let _ = fs::remove_file(&name);
    written.unwrap();
    assert_eq!(read.unwrap(), b"2");
    for path in ["", "/", ".."] {
        assert!(matches!(replace(&RealFiles, Path::new(path), b"3"), Err(Error::Io { .. })), "{path:?}");
    }
}

fn io_kind<T: std::fmt::Debug>(result: Result<T>, path: &Path) -> (ErrorKind, String) {
    match result {
        Err(Error::Io { path: at, source }) => {
            assert_eq!(at, path);
            (source.kind(), source.to_string())
        }
        other => panic!("expected an error of input or output, got {other:?}"),
    }
}

#[test]
fn folders_pipes_and_missing_files_are_errors() {
    let folder = Folder::new();
    for memory_map in [true, false] {
        let (kind, text) = io_kind(RealFiles.open_bytes(&folder.0, memory_map), &folder.0);
        assert_eq!((kind, &*text), (ErrorKind::IsADirectory, "is a folder, expected a file"));
        let missing = folder.join("missing");
        assert_eq!(io_kind(RealFiles.open_bytes(&missing, memory_map), &missing).0, ErrorKind::NotFound);
        let device = Path::new("/dev/null");
        assert!(io_kind(RealFiles.open_bytes(device, memory_map), device).1.contains("pipe or a device"));
    }
    let pipe = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(io_kind(RealFiles.open_bytes(&pipe, true), &pipe).1.contains("pipe or a device"));
    // None of them is replaced.
    assert_eq!(io_kind(replace(&RealFiles, &folder.0, b"x"), &folder.0).0, ErrorKind::IsADirectory);
    assert!(io_kind(replace(&RealFiles, &pipe, b"x"), &pipe).1.contains("pipe or a device"));
    let device = Path::new("/dev/null");
    assert!(io_kind(replace(&RealFiles, device, b"x"), device).1.contains("pipe or a device"));
    let nowhere = folder.join("none/a");
    assert_eq!(io_kind(replace(&RealFiles, &nowhere, b"x"), &nowhere).0, ErrorKind::NotFound);
    assert_eq!(folder.names(), ["pipe"]);
}

#[test]
fn links_stay_and_their_files_are_replaced() {
    let folder = Folder::new();
    fs::create_dir(folder.join("below")).unwrap();
    fs::write(folder.join("below/file"), b"old").unwrap();
    symlink("below/file", folder.join("link")).unwrap();
    symlink("link", folder.join("link to link")).unwrap();
    replace(&RealFiles, &folder.join("link to link"), b"new").unwrap();
    assert_eq!(fs::read(folder.join("below/file")).unwrap(), b"new");
    assert!(fs::symlink_metadata(folder.join("link")).unwrap().is_symlink());
    // One that points to nothing yet, and two that point to each other.
    symlink("below/later", folder.join("dangling")).unwrap();
    replace(&RealFiles, &folder.join("dangling"), b"made").unwrap();
    assert_eq!(fs::read(folder.join("below/later")).unwrap(), b"made");
    symlink("b", folder.join("a")).unwrap();
    symlink("a", folder.join("b")).unwrap();
    assert!(replace(&RealFiles, &folder.join("a"), b"x").is_err());
    assert!(fs::read_dir(folder.join("below")).unwrap().count() == 2);
    assert_eq!(folder.names(), ["a", "b", "below", "dangling", "link", "link to link"]);
}

#[test]
fn permissions_are_kept() {
    let folder = Folder::new();
    let path = folder.join("a");
    for mode in [0o600, 0o640, 0o666, 0o755, 0o444] {
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        replace(&RealFiles, &path, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        fs::remove_file(&path).unwrap();
    }
    // A private file is never readable by others on its way.
    fs::write(&path, b"old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    replace_file(&RealFiles, &path, |_| {
        for name in folder.names() {
            assert_eq!(fs::metadata(folder.join(&name)).unwrap().mode() & 0o077, 0, "{name}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn read_only_folders_are_errors() {
    let folder = Folder::new();
    fs::write(folder.join("a"), b"old").unwrap();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write everywhere; then there is nothing to see.
    let is_root = fs::write(folder.join("probe"), b"").is_ok();
    if !is_root {
        let path = folder.join("a");
        assert_eq!(io_kind(replace(&RealFiles, &path, b"new"), &path).0, ErrorKind::PermissionDenied);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn errors_of_the_caller_leave_nothing_behind() {
    let folder = Folder::new();
    let path = folder.join("a");
    fs::write(&path, b"old").unwrap();
    let stopped = replace_file(&RealFiles, &path, |out| {
        out.write_all(&content(3)).unwrap();
        Err(Error::Cancelled)
    });
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let panicked = std::panic::catch_unwind(|| {
        replace_file(&RealFiles, &path, |out| {
            out.write_all(b"half").unwrap();
            panic!("on purpose")
        })
    });
    assert!(panicked.is_err());
    drop(RealFiles.create_beside(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(folder.names(), ["a"]);
    // The writer of a container knows no path; the error names it all the same.
    let (_, text) = io_kind(
        replace_file(&RealFiles, &path, |_| Err(Error::io("<stream>", io::Error::other("no more")))),
        &path,
    );
    assert_eq!(text, "no more");
}

#[test]
fn what_killed_processes_left_is_removed() {
    let folder = Folder::new();
    let path = folder.join("a.b");
    // Of other targets, or no names of ours.
    let others = [
        ".a.1.0.tmp",
        ".a.b..1.tmp",
        ".a.b.1.0",
        ".a.b.1.tmp",
        ".a.b.1.2.3.tmp",
        ".a.b.x.0.tmp",
        "a.b.1.0.tmp",
    ];
    for name in others.into_iter().chain([".a.b.1.0.tmp", ".a.b.2.77.tmp", ".a.b.3.0.tmp"]) {
        fs::write(folder.join(name), name).unwrap();
    }
    fs::create_dir(folder.join(".a.b.4.0.tmp")).unwrap();
    symlink(folder.join(".a.1.0.tmp"), folder.join(".a.b.5.0.tmp")).unwrap();
    let written = fs::File::open(folder.join(".a.b.3.0.tmp")).unwrap();
    written.lock().unwrap();
    let mut kept: Vec<&str> =
        [&others[..], &["a.b", ".a.b.3.0.tmp", ".a.b.4.0.tmp", ".a.b.5.0.tmp"]].concat();
    kept.sort_unstable();
    // While one file is written another is written for the same target.
    replace_file(&RealFiles, &path, |out| {
        replace(&RealFiles, &path, b"first")?;
        out.write_all(b"second").map_err(|error| Error::io("<stream>", error))
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(folder.names(), kept);
    drop(written);
    replace(&RealFiles, &path, b"third").unwrap();
    kept.retain(|&name| name != ".a.b.3.0.tmp");
    assert_eq!(folder.names(), kept);
}

#[test]
fn a_failed_write_cannot_be_committed() {
    let folder = Folder::new();
    let files = FaultyFiles::new(&folder.0).unwrap();
    files.fail_at(1, Fault::NoSpace, false);
    let mut out = files.create_beside(&folder.join("a")).unwrap();
    assert!(out.write(b"lost").is_err());
    out.write_all(b"kept").unwrap();
    assert!(out.commit().is_err());
    assert!(folder.names().is_empty());
}

#[test]
fn whatever_fails_the_old_or_the_new_content_is_there() {
    let (old, new) = (content(1), content(2));
    let folder = Folder::new();
    let path = folder.join("a");
    for fault in FAULTS {
        for always in [false, true] {
            for existed in [false, true] {
                for n in 0.. {
                    let _ = fs::remove_file(&path);
                    if existed {
                        fs::write(&path, &old).unwrap();
                    }
                    let files = FaultyFiles::new(&folder.0).unwrap();
                    files.fail_at(n, fault, always);
                    let replaced = replace(&files, &path, &new);
                    let context = format!("{fault:?} always {always} at {n}: {replaced:?}");
                    let found = fs::read(&path).ok();
                    let operations = files.operations();
                    // The only error after which the new content is there is that of the last step.
                    let in_place = replaced.is_ok() || operations.contains(&Operation::SyncFolder);
                    let expected = if in_place { Some(&new) } else { existed.then_some(&old) };
                    assert!(found.as_ref() == expected, "{context}");
                    assert_eq!(folder.names().len(), usize::from(expected.is_some()), "{context}");
                    // Failed syncs are not tried again.
                    for sync in [Operation::Sync, Operation::SyncFolder] {
                        assert!(operations.iter().filter(|&&done| done == sync).count() <= 1, "{context}");
                    }
                    let harmless = match fault {
                        Fault::Short => true,
                        Fault::Interrupted => {
                            !always
                                && !matches!(operations.get(n), Some(Operation::Sync | Operation::SyncFolder))
                        }
                        _ => false,
                    };
                    assert_eq!(replaced.is_ok(), harmless || !files.fired(), "{context}");
                    if !files.fired() {
                        assert!(n >= 7, "{context}");
                        break;
                    }
                    // And when the fault is over, it works.
                    files.fail_at(usize::MAX, fault, false);
                    replace(&files, &path, &old).unwrap();
                    assert!(fs::read(&path).unwrap() == old);
                }
            }
        }
    }
}

#[test]
fn reading_with_faults_gives_all_or_an_error() {
    let folder = Folder::new();
    let path = folder.join("a");
    fs::write(&path, content(1)).unwrap();
    let files = FaultyFiles::new(&folder.0).unwrap();
    for fault in FAULTS {
        for always in [false, true] {
            for memory_map in [false, true] {
                for n in 0.. {
                    files.fail_at(n, fault, always);
                    let read = files.open_bytes(&path, memory_map);
                    match &read {
                        Ok(bytes) => assert!(**bytes == *content(1)),
                        Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
                    }
                    let harmless = fault == Fault::Short || fault == Fault::Interrupted && !always;
                    assert_eq!(read.is_ok(), harmless || !files.fired(), "{fault:?} at {n}");
                    if !files.fired() {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn a_power_cut_leaves_the_old_or_the_new_content() {
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| content(seed)[..3_000].to_vec()).collect();
    let folder = Folder::new();
    let path = folder.join("a");
    let (mut n_old, mut n_new, mut n_left) = (0, 0, 0);
    for existed in [false, true] {
        for n in 0.. {
            let mut fired = false;
            for seed in 0..40 {
                for name in folder.names() {
                    fs::remove_file(folder.join(&name)).unwrap();
                }
                if existed {
                    fs::write(&path, &contents[0]).unwrap();
                }
                let files = FaultyFiles::new(&folder.0).unwrap();
                files.fail_at(n, Fault::PowerOff, false);
                // Two commits; the power goes in one of them, or after both.
                let acknowledged =
                    (1..3).take_while(|&i| replace(&files, &path, &contents[i]).is_ok()).count();
                fired |= files.fired();
                files.cut(seed).unwrap();
                let found = fs::read(&path).ok();
                // Nothing acknowledged is lost, and what was in flight is wholly there or wholly absent.
                let least = if acknowledged > 0 {
                    Some(&contents[acknowledged])
                } else {
                    existed.then_some(&contents[0])
                };
                let in_flight = contents.get(acknowledged + 1);
                let is_old = found.as_ref() == least;
                let is_new = found.is_some() && found.as_ref() == in_flight;
                assert!(is_old || is_new, "existed {existed}, cut at {n}, seed {seed}");
                n_old += usize::from(is_old);
                n_new += usize::from(is_new);
                n_left += folder.names().iter().filter(|name| name.ends_with(".tmp")).count();
                // Life goes on.
                replace(&files, &path, b"after").unwrap();
                files.cut(0).unwrap();
                assert_eq!(fs::read(&path).unwrap(), b"after");
                assert_eq!(folder.names(), ["a"], "what was left is removed");
            }
            if !fired {
                break;
            }
        }
    }
    // All of these do happen: otherwise the simulation is blind.
    assert!(n_old > 100 && n_new > 10 && n_left > 10, "{n_old} {n_new} {n_left}");
}

#[test]
fn the_simulation_finds_a_forgotten_sync() {
    // Renamed without syncing the file first: some seed must show an empty or torn file.
    let folder = Folder::new();
    let path = folder.join("a");
    let mut outcomes = [0; 3];
    for seed in 0..200 {
        let _ = fs::remove_file(&path);
        let files = FaultyFiles::new(&folder.0).unwrap();
        let mut out = files.create_beside(&path).unwrap();
        out.write_all(&content(9)[..5_000]).unwrap();
        files.fail_at(0, Fault::PowerOff, false);
        assert!(out.commit().is_err());
        files.cut(seed).unwrap();
        assert!(!path.exists());
        let Some(left) = folder.names().first().map(|name| fs::read(folder.join(name)).unwrap()) else {
            continue;
        };
        let whole = left == content(9)[..5_000];
        outcomes[if whole { 0 } else { 1 + usize::from(left.is_empty()) }] += 1;
        for name in folder.names() {
            fs::remove_file(folder.join(&name)).unwrap();
        }
    }
    assert!(outcomes.iter().all(|&n| n > 5), "{outcomes:?}");
}

#[test]
fn a_mapped_file_survives_a_cut() {
    let folder = Folder::new();
    let path = folder.join("a");
    let files = FaultyFiles::new(&folder.0).unwrap();
    replace(&files, &path, &content(1)).unwrap();
    let mapped = files.open_bytes(&path, true).unwrap();
    files.cut(1).unwrap();
    assert!(*mapped == *content(1));
    assert!(fs::read(&path).unwrap() == content(1));
}
