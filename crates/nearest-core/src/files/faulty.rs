//! Files that fail on purpose, and a disk that forgets.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Files, Output, OutputFile, RealFiles, folder_of, open_bytes};
use crate::error::{Error, Result};
use crate::memory::Bytes;

/// One step of file access, as [`FaultyFiles`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening a file to read it.
    Open,
    /// Reading once from an open file.
    Read,
    /// Mapping an open file.
    Map,
    /// Making a new temporary file.
    Create,
    /// Writing once.
    Write,
    /// Syncing a file.
    Sync,
    /// Renaming the temporary file over its target.
    Rename,
    /// Syncing a folder.
    SyncFolder,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space is left (ENOSPC).
    NoSpace,
    /// The device reports an error (EIO).
    Device,
    /// A signal came (EINTR).
    Interrupted,
    /// A write takes only half of its bytes, at least one, and succeeds; other operations are left alone.
    Short,
    /// The machine is off: nothing happens any more, not even tidying up, until [`FaultyFiles::cut`].
    PowerOff,
}

/// Files that fail on purpose, for tests: the n-th operation fails, and a power cut forgets what was not synced.
///
/// It works in one real folder (not in folders below it) and remembers in memory what every file holds, so it is
/// meant for small files. What is in the folder at the start counts as synced.
#[derive(Debug)]
pub struct FaultyFiles {
    folder: PathBuf,
    disk: Mutex<Disk>,
}

/// What the device holds, beside what processes see.
#[derive(Debug, Default)]
pub(super) struct Disk {
    operations: Vec<Operation>,
    plan: Option<(usize, Fault, bool)>,
    fired: bool,
    off: bool,
    /// Every file ever seen; files of one name are told apart, as the system does by inode.
    contents: Vec<Content>,
    /// Names as every process sees them.
    names: BTreeMap<PathBuf, usize>,
    /// Names as the device holds them.
    synced_names: BTreeMap<PathBuf, usize>,
    /// What happened to names since their folder was synced, in order.
    pending: Vec<NameChange>,
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Created(PathBuf, usize),
    Renamed(PathBuf, PathBuf, usize),
    Removed(PathBuf),
}

impl NameChange {
    fn folder(&self) -> &Path {
        match self {
            NameChange::Created(path, _) | NameChange::Renamed(_, path, _) | NameChange::Removed(path) => {
                folder_of(path)
            }
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Created(path, file) => {
                names.insert(path, file);
            }
            NameChange::Renamed(from, to, file) => {
                names.remove(&from);
                names.insert(to, file);
            }
            NameChange::Removed(path) => {
                names.remove(&path);
            }
        }
    }
}

impl Disk {
    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending.push(change);
    }

    pub(super) fn created(&mut self, path: &Path) {
        self.contents.push(Content::default());
        self.change(NameChange::Created(path.to_path_buf(), self.contents.len() - 1));
    }

    pub(super) fn written(&mut self, path: &Path, bytes: &[u8]) {
        // A file from before a cut has no name any more.
        if let Some(&file) = self.names.get(path) {
            self.contents[file].now.extend_from_slice(bytes);
        }
    }

    pub(super) fn synced(&mut self, path: &Path) {
        if let Some(&file) = self.names.get(path) {
            self.contents[file].synced = self.contents[file].now.clone();
        }
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        if let Some(&file) = self.names.get(from) {
            self.change(NameChange::Renamed(from.to_path_buf(), to.to_path_buf(), file));
        }
    }

    pub(super) fn removed(&mut self, path: &Path) {
        self.change(NameChange::Removed(path.to_path_buf()));
    }

    pub(super) fn folder_synced(&mut self, folder: &Path) {
        for change in std::mem::take(&mut self.pending) {
            if change.folder() == folder {
                change.apply(&mut self.synced_names);
            } else {
                self.pending.push(change);
            }
        }
    }
}

impl FaultyFiles {
    /// Files in `folder`; nothing fails until [`fail_at`](Self::fail_at) says so.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let at_folder = |error| Error::io(&folder, error);
        let mut disk = Disk::default();
        for entry in std::fs::read_dir(&folder).map_err(at_folder)? {
            let path = entry.map_err(at_folder)?.path();
            if path.is_file() {
                let now = std::fs::read(&path).map_err(at_folder)?;
                disk.names.insert(path, disk.contents.len());
                disk.contents.push(Content { synced: now.clone(), now });
            }
        }
        disk.synced_names = disk.names.clone();
        Ok(Self { folder, disk: Mutex::new(disk) })
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_off(&self) -> bool {
        self.disk().off
    }

    /// The `n`-th operation from now on, counted from 0, fails; with `always`, so do all after it.
    pub fn fail_at(&self, n: usize, fault: Fault, always: bool) {
        let mut disk = self.disk();
        disk.operations.clear();
        disk.fired = false;
        disk.plan = Some((n, fault, always));
    }

    /// The operations since the last [`fail_at`](Self::fail_at), those that failed among them.
    pub fn operations(&self) -> Vec<Operation> {
        self.disk().operations.clone()
    }

    /// Whether the planned fault has happened.
    pub fn fired(&self) -> bool {
        self.disk().fired
    }

    pub(super) fn ask(&self, operation: Operation) -> io::Result<bool> {
        let mut disk = self.disk();
        let n = disk.operations.len();
        disk.operations.push(operation);
        if disk.off {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let Some((at, fault, always)) = disk.plan else { return Ok(false) };
        if n < at || n > at && !always {
            return Ok(false);
        }
        disk.fired = true;
        match fault {
            Fault::NoSpace => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Fault::Device => Err(io::Error::from_raw_os_error(libc::EIO)),
            Fault::Interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
            Fault::Short => Ok(operation == Operation::Write),
            Fault::PowerOff => {
                disk.off = true;
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
    }

    /// Cuts the power and starts again: the folder then shows what a device may hold that honours syncs.
    ///
    /// Seed 0 forgets all that was not synced. Other seeds decide for every change of a name whether it was kept,
    /// and for every unsynced file whether its content was dropped, kept or torn: cut at some length, with 512-byte
    /// blocks that are new or zero. Planned faults are over.
    pub fn cut(&self, seed: u64) -> Result<()> {
        let mut disk = self.disk();
        let mut random = Random(seed);
        let mut names = std::mem::take(&mut disk.synced_names);
        for change in std::mem::take(&mut disk.pending) {
            if seed != 0 && random.below(2) == 1 {
                change.apply(&mut names);
            }
        }
        let mut contents = Vec::new();
        for content in &disk.contents {
            let part = match if seed == 0 { 0 } else { random.below(3) } {
                _ if content.synced == content.now => content.now.clone(),
                0 => content.synced.clone(),
                1 => content.now.clone(),
                _ => tear(content, &mut random),
            };
            contents.push(Content { synced: part.clone(), now: part });
        }
        // Removed and made anew, never changed in place: somebody may have mapped them.
        let at_folder = |error| Error::io(&self.folder, error);
        for path in disk.names.keys().chain(names.keys()) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at_folder(error)),
                _ => {}
            }
        }
        for (path, file) in &names {
            std::fs::write(path, &contents[*file].now).map_err(at_folder)?;
        }
        *disk = Disk { contents, synced_names: names.clone(), names, ..Disk::default() };
        Ok(())
    }
}

/// Unsynced content as a cut may leave it; what was synced is a prefix, since files are only appended to.
fn tear(content: &Content, random: &mut Random) -> Vec<u8> {
    const BLOCK: usize = 512;
    let start = content.synced.len();
    let len = start + random.below(content.now.len() - start + 1);
    let mut torn = content.now[..len].to_vec();
    for block in (start - start % BLOCK..len).step_by(BLOCK) {
        if random.below(2) == 1 {
            torn[block.max(start)..len.min(block + BLOCK)].fill(0);
        }
    }
    torn
}

/// SplitMix64 (Steele, Lea and Flood 2014): enough for choosing faults.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

impl Files for FaultyFiles {
    fn open_bytes(&self, path: &Path, memory_map: bool) -> Result<Bytes> {
        open_bytes(path, memory_map, Some(self))
    }

    fn create_beside(&self, path: &Path) -> Result<Box<dyn OutputFile + '_>> {
        Ok(Box::new(Output::create(path, Some(self))?))
    }

    fn available_bytes(&self, folder: &Path) -> Result<u64> {
        RealFiles.available_bytes(folder)
    }
}
