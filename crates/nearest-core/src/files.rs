//! All file access: one small interface, the real one, and one that fails on purpose.
//!
//! A file is only ever replaced as a whole: written beside its target under a temporary name, synced, renamed over
//! it, and the folder synced. So whoever opens the target, also after a power cut, finds the old content or the new
//! one, never a mixture; and a file that is mapped stays as it was for those who mapped it.
//!
//! Whoever writes a temporary file holds a lock on it, which ends with the process. So what a killed process left is told
//! from what is being written, and is removed when its target is written the next time.
//!
//! [`FaultyFiles`] runs the same code as [`RealFiles`]; the only difference is a question asked before each operation.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::memory::{self, Allocator, Buffer, Bytes, SystemAllocator};

mod faulty;
pub use faulty::{Fault, FaultyFiles, Operation};

/// The path shown by errors of a writer that has no path; [`replace_file`] puts the file's name in its place.
pub(crate) const STREAM: &str = "<stream>";
/// Operations are tried this often when signals interrupt them; a limit only so that nothing can hang.
const MAX_INTERRUPTS: usize = 10_000;
/// Small writes are gathered up to this size.
const WRITE_BUFFER_BYTES: usize = 256 << 10;
/// Symbolic links followed at most, as Linux does.
const MAX_LINKS: usize = 40;
/// Temporary names tried at most; one is taken only if a killed process with our number left it.
const MAX_NAMES: usize = 1_000;
/// Bytes of the target's name that the temporary's name keeps (names end at 255).
const NAME_BYTES: usize = 180;

/// Access to files. Everything in this crate that touches a file goes through it.
pub trait Files: Send + Sync + fmt::Debug {
    /// The bytes of a file: mapped, or read into an aligned buffer.
    ///
    /// A folder, a pipe or a device is an [`Error::Io`], as is what is missing or may not be read.
    fn open_bytes(&self, path: &Path, memory_map: bool) -> Result<Bytes>;

    /// A new temporary file in the folder of `path`, that [`OutputFile::commit`] puts in the place of `path`.
    ///
    /// If `path` is a symbolic link, the file it points to is the one replaced.
    fn create_beside(&self, path: &Path) -> Result<Box<dyn OutputFile + '_>>;

    /// How many bytes may still be written to the file system that holds `folder`.
    fn available_bytes(&self, folder: &Path) -> Result<u64>;
}

/// A file being written. Dropped without [`commit`](OutputFile::commit), it leaves nothing behind.
pub trait OutputFile: Write + Send {
    /// Syncs the file, renames it over the target and syncs the folder.
    ///
    /// On an error the target is as it was. One exception: when only the last step fails, the new file is in its
    /// place, but a power cut may bring the old one back; the error says so. A failed sync is never tried again,
    /// because systems forget what they could not write.
    fn commit(self: Box<Self>) -> Result<()>;
}

/// Writes the file at `path` anew, or leaves it as it was.
///
/// `write` gets a buffered writer; if it fails, nothing is left behind. Permissions and, where allowed, owner and
/// group of an existing file are kept.
pub fn replace_file(
    files: &dyn Files,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut out = files.create_beside(path)?;
    let mut buffered = BufWriter::with_capacity(WRITE_BUFFER_BYTES, &mut *out);
    let written = write(&mut buffered)
        .and_then(|()| buffered.flush().map_err(|error| Error::io(path, error)))
        .map_err(|error| match error {
            Error::Io { path: stream, source } if stream == Path::new(STREAM) => Error::io(path, source),
            other => other,
        });
    // Taken apart, because dropping it would write what is left.
    let _ = buffered.into_parts();
    written?;
    out.commit()
}

/// The file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealFiles;

impl Files for RealFiles {
    fn open_bytes(&self, path: &Path, memory_map: bool) -> Result<Bytes> {
        open_bytes(path, memory_map, None)
    }

    fn create_beside(&self, path: &Path) -> Result<Box<dyn OutputFile + '_>> {
        Ok(Box::new(Output::create(path, None)?))
    }

    fn available_bytes(&self, folder: &Path) -> Result<u64> {
        memory::disk_available_bytes(folder).map_err(|error| Error::io(folder, error))
    }
}

/// Asks before one operation; `true` means: do only a part of it.
fn ask(faults: Option<&FaultyFiles>, operation: Operation) -> io::Result<bool> {
    faults.map_or(Ok(false), |faults| faults.ask(operation))
}

/// Repeats what a signal interrupted.
fn retry<T>(mut action: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..MAX_INTERRUPTS {
        match action() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    // Another kind than «interrupted», because callers such as `write_all` would go on for ever.
    action().map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => {
            io::Error::other(format!("interrupted {MAX_INTERRUPTS} times in a row"))
        }
        _ => error,
    })
}

/// An error unless this is a plain file.
fn check_plain(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, expected a file"));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is a pipe or a device, expected a file"));
    }
    Ok(())
}

fn open_bytes(path: &Path, memory_map: bool, faults: Option<&FaultyFiles>) -> Result<Bytes> {
    let at_path = |error| Error::io(path, error);
    let file = retry(|| {
        ask(faults, Operation::Open)?;
        // Not blocking, so that opening a pipe returns and can be refused.
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
    })
    .map_err(at_path)?;
    let metadata = file.metadata().map_err(at_path)?;
    check_plain(&metadata).map_err(at_path)?;
    if memory_map {
        return retry(|| {
            ask(faults, Operation::Map)?;
            Bytes::map(&file)
        })
        .map_err(at_path);
    }
    // A file with holes can claim any size: what cannot fit is refused before it is asked for.
    let n_bytes = metadata.len();
    if n_bytes > memory::available_bytes() {
        return Err(Error::Memory(format!(
            "{}: {n_bytes} bytes do not fit in memory ({} bytes available); memory_map=True needs none",
            path.display(),
            memory::available_bytes()
        )));
    }
    let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
    let n_bytes = usize::try_from(n_bytes)
        .map_err(|_| Error::Memory(format!("{n_bytes} bytes do not fit in memory")))?;
    let mut buffer = Buffer::zeroed(n_bytes, &allocator)?;
    let mut n_read = 0;
    while n_read < n_bytes {
        let n = retry(|| {
            ask(faults, Operation::Read)?;
            (&file).read(&mut buffer[n_read..])
        })
        .map_err(at_path)?;
        if n == 0 {
            let text = format!("became shorter while it was read: {n_bytes} bytes, then {n_read}");
            return Err(at_path(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        n_read += n;
    }
    Ok(Bytes::Buffered(buffer))
}

/// Follows symbolic links by hand, since the last one may point to a file that does not exist yet.
fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => path = folder_of(&path).join(std::fs::read_link(&path)?),
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What temporary names of a target begin with, such as `.words.nearest.`.
fn temporary_start(name: &OsStr) -> Vec<u8> {
    let bytes = name.as_bytes();
    [b".", &bytes[..bytes.len().min(NAME_BYTES)], b"."].concat()
}

/// A name such as `.words.nearest.4711.0.tmp`.
fn temporary_name(name: &OsStr) -> OsString {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut temporary = temporary_start(name);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    temporary.extend_from_slice(format!("{}.{number}.tmp", std::process::id()).as_bytes());
    OsString::from_vec(temporary)
}

/// Whether a file has a temporary name of a target.
fn is_temporary(file: &OsStr, start: &[u8]) -> bool {
    let numbers = file.as_bytes().strip_prefix(start).and_then(|rest| rest.strip_suffix(b".tmp"));
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    numbers.is_some_and(|numbers| {
        let mut parts = numbers.split(|&byte| byte == b'.');
        parts.by_ref().take(2).filter(|part| is_number(part)).count() == 2 && parts.next().is_none()
    })
}

/// Removes temporary files of a target that nobody writes any more. What cannot be removed stays: it is in nobody's way.
fn remove_left(target: &Path, name: &OsStr, faults: Option<&FaultyFiles>) {
    let start = temporary_start(name);
    let Ok(entries) = std::fs::read_dir(folder_of(target)) else { return };
    for entry in entries.flatten().filter(|entry| is_temporary(&entry.file_name(), &start)) {
        let path = entry.path();
        // Not blocking and no link followed: it may have become anything.
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let Ok(file) = OpenOptions::new().write(true).custom_flags(flags).open(&path) else { continue };
        let is_plain = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_plain
            && file.try_lock().is_ok()
            && std::fs::remove_file(&path).is_ok()
            && let Some(faults) = faults
        {
            faults.disk().removed(&path);
        }
    }
}

/// Locks a file that was just made; false if somebody took it for one that was left, and removed it.
fn lock(file: &File, path: &Path) -> bool {
    // Where there are no locks, what killed processes leave stays.
    if retry(|| file.lock()).is_err() {
        return true;
    }
    let same = |there: Metadata, own: Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(own)) => same(there, own),
        (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
        _ => true,
    }
}

/// A temporary file on its way to its target.
#[derive(Debug)]
struct Output<'a> {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    /// Of the file that is replaced.
    replaced: Option<Metadata>,
    /// A write failed: what follows must not be committed.
    failed: bool,
    renamed: bool,
    faults: Option<&'a FaultyFiles>,
}

impl<'a> Output<'a> {
    fn create(path: &Path, faults: Option<&'a FaultyFiles>) -> Result<Self> {
        let at_path = |error| Error::io(path, error);
        let replaced = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at_path(error)),
        };
        if let Some(metadata) = &replaced {
            check_plain(metadata).map_err(at_path)?;
        }
        let target = follow_links(path).map_err(at_path)?;
        let name = target
            .file_name()
            .ok_or_else(|| at_path(io::Error::new(io::ErrorKind::InvalidInput, "has no file name")))?;
        remove_left(&target, name, faults);
        // Nobody reads along while a private file is replaced.
        let mode = if replaced.is_some() { 0o600 } else { 0o666 };
        let mut temporary = PathBuf::new();
        let mut n_names = 0;
        let file = retry(|| {
            loop {
                ask(faults, Operation::Create)?;
                temporary = folder_of(&target).join(temporary_name(name));
                n_names += 1;
                match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && n_names < MAX_NAMES => {}
                    Ok(file) if n_names < MAX_NAMES && !lock(&file, &temporary) => {}
                    other => return other,
                }
            }
        })
        .map_err(at_path)?;
        if let Some(faults) = faults {
            faults.disk().created(&temporary);
        }
        Ok(Self { file, temporary, target, replaced, failed: false, renamed: false, faults })
    }

    /// Gives the new file the owner, group and permissions of the old one, as far as the system allows.
    fn keep_permissions(&self) {
        let (Some(old), Ok(new)) = (&self.replaced, self.file.metadata()) else { return };
        let mut mode = old.mode() & 0o7777;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            use std::os::unix::fs::fchown;
            let both = fchown(&self.file, Some(old.uid()), Some(old.gid()));
            if both.is_err() {
                // Another owner: no set-user-id, and another group gets no more than everybody.
                mode &= 0o777;
                if old.gid() != new.gid() && fchown(&self.file, None, Some(old.gid())).is_err() {
                    mode = (mode & 0o707) | ((mode & 0o007) << 3);
                }
            }
        }
        // Some file systems have no permissions; the content matters more.
        let _ = self.file.set_permissions(std::fs::Permissions::from_mode(mode));
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("a write failed before; the file was not replaced"));
        }
        self.keep_permissions();
        ask(self.faults, Operation::Sync)?;
        self.file.sync_all()?;
        if let Some(faults) = self.faults {
            faults.disk().synced(&self.temporary);
        }
        retry(|| {
            ask(self.faults, Operation::Rename)?;
            std::fs::rename(&self.temporary, &self.target)
        })?;
        self.renamed = true;
        if let Some(faults) = self.faults {
            faults.disk().renamed(&self.temporary, &self.target);
        }
        self.sync_folder().map_err(|error| {
            let text = format!(
                "the new file is in its place, but its folder could not be synced, so that a power cut may \
                 bring the old file back: {error}"
            );
            io::Error::new(error.kind(), text)
        })
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = folder_of(&self.target);
        ask(self.faults, Operation::SyncFolder)?;
        match File::open(folder)?.sync_all() {
            // Some file systems cannot sync a folder at all and say so.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP)) => {}
            other => other?,
        }
        if let Some(faults) = self.faults {
            faults.disk().folder_synced(folder);
        }
        Ok(())
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = retry(|| {
            let short = ask(self.faults, Operation::Write)?;
            let part = if short { &bytes[..bytes.len().div_ceil(2)] } else { bytes };
            self.file.write(part)
        });
        match (&written, self.faults) {
            (Ok(n), Some(faults)) => faults.disk().written(&self.temporary, &bytes[..*n]),
            (Ok(_), None) => {}
            (Err(_), _) => self.failed = true,
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OutputFile for Output<'_> {
    fn commit(mut self: Box<Self>) -> Result<()> {
        self.finish().map_err(|error| Error::io(&self.target, error))
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if self.renamed || self.faults.is_some_and(|faults| faults.is_off()) {
            return;
        }
        // Nothing more can be done where this fails; the name tells what it is.
        let removed = std::fs::remove_file(&self.temporary).is_ok();
        if let (true, Some(faults)) = (removed, self.faults) {
            faults.disk().removed(&self.temporary);
        }
    }
}
