//! Memory: the allocator interface, huge pages, memory maps, and slots that one writer fills while readers read.
//!
//! This is the only file of the crate with `unsafe`. Three ideas, each safe to use from outside:
//! - [`Buffer`]: zeroed bytes, 64-byte aligned, given back to the [`Allocator`] they came from;
//! - [`Bytes`]: immutable bytes, from a map, a buffer or a vector, shared by reference count;
//! - [`Slots`]: a fixed number of elements of which the first `filled` are published. They never change again, so
//!   any number of readers may hold slices of them while the one holder of the [`SlotWriter`] fills the rest.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Pod;

use crate::error::{Error, Result};

/// Alignment of every buffer and of every section of a file: one cache line, one AVX-512 register.
pub const ALIGNMENT: usize = 64;
/// Buffers from this size on ask for huge pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Where large buffers come from: the system here, the server's own allocator inside a server.
pub trait Allocator: Send + Sync + fmt::Debug {
    /// `n_bytes` (> 0) of zeroed memory aligned to [`ALIGNMENT`], or nothing.
    fn allocate(&self, n_bytes: usize) -> Option<NonNull<u8>>;
    /// Gives back what `allocate(n_bytes)` returned.
    ///
    /// # Safety
    /// `memory` came from `allocate(n_bytes)` of this allocator, and nothing refers to it any more.
    unsafe fn release(&self, memory: NonNull<u8>, n_bytes: usize);
}

/// The system's memory; huge pages (`madvise`) from 2 MiB on.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemAllocator;

impl SystemAllocator {
    fn layout(n_bytes: usize) -> Option<Layout> {
        Layout::from_size_align(n_bytes, ALIGNMENT).ok()
    }

    fn mapped_len(n_bytes: usize) -> Option<usize> {
        n_bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)
    }
}

impl Allocator for SystemAllocator {
    fn allocate(&self, n_bytes: usize) -> Option<NonNull<u8>> {
        if n_bytes < HUGE_PAGE_BYTES {
            // SAFETY: the layout's size is not zero (callers ask for > 0 bytes).
            return NonNull::new(unsafe { std::alloc::alloc_zeroed(Self::layout(n_bytes)?) });
        }
        // One huge page more than needed, so that the start can be moved to a huge page's boundary.
        let len = Self::mapped_len(n_bytes)?;
        let with_slack = len.checked_add(HUGE_PAGE_BYTES)?;
        // SAFETY: an anonymous private map of a length > 0; no existing memory is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                with_slack,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let address = start as usize;
        let aligned = address.next_multiple_of(HUGE_PAGE_BYTES);
        // SAFETY: both ranges lie inside the map just made, are page-aligned, and nothing refers to them.
        unsafe {
            if aligned > address {
                libc::munmap(start, aligned - address);
            }
            let tail = address + with_slack - (aligned + len);
            if tail > 0 {
                libc::munmap((aligned + len) as *mut libc::c_void, tail);
            }
            // Advice only: where the kernel refuses, small pages serve as well.
            #[cfg(target_os = "linux")]
            libc::madvise(aligned as *mut libc::c_void, len, libc::MADV_HUGEPAGE);
        }
        NonNull::new(aligned as *mut u8)
    }

    unsafe fn release(&self, memory: NonNull<u8>, n_bytes: usize) {
        if n_bytes < HUGE_PAGE_BYTES {
            let layout = Self::layout(n_bytes).expect("the layout it was allocated with");
            // SAFETY: the caller promises that `memory` came from `allocate(n_bytes)`, which used this layout.
            unsafe { std::alloc::dealloc(memory.as_ptr(), layout) }
        } else {
            let len = Self::mapped_len(n_bytes).expect("the length it was mapped with");
            // SAFETY: `allocate` left exactly this range mapped, and the caller promises that nothing refers to it.
            unsafe {
                libc::munmap(memory.as_ptr().cast(), len);
            }
        }
    }
}

/// Bytes that were zero when allocated, aligned to [`ALIGNMENT`].
pub struct Buffer {
    memory: NonNull<u8>,
    n_bytes: usize,
    allocator: Arc<dyn Allocator>,
}

// SAFETY: a buffer owns its memory; access follows the borrow of the buffer, as with a Vec<u8>.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared references only read (`Slots` adds its own rule for its interior writes).
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `n_bytes` zero bytes, or an error that names the size.
    pub fn zeroed(n_bytes: usize, allocator: &Arc<dyn Allocator>) -> Result<Self> {
        let memory = if n_bytes == 0 {
            NonNull::new(ALIGNMENT as *mut u8).expect("not null")
        } else {
            allocator
                .allocate(n_bytes)
                .ok_or_else(|| Error::Memory(format!("could not allocate {n_bytes} bytes")))?
        };
        Ok(Self { memory, n_bytes, allocator: allocator.clone() })
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` is valid for `n_bytes`, initialised with zeros, and borrowed as long as the buffer.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.n_bytes) }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow of the buffer is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.n_bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.n_bytes > 0 {
            // SAFETY: the memory came from this allocator with this size, and the owner is going away.
            unsafe { self.allocator.release(self.memory, self.n_bytes) }
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.n_bytes)
    }
}

/// Immutable bytes: a memory map, a buffer or a vector.
pub enum Bytes {
    /// A file mapped read-only.
    Mapped(memmap2::Mmap),
    /// Aligned bytes in memory.
    Buffered(Buffer),
}

impl Bytes {
    /// Maps a whole file read-only.
    ///
    /// Files of this project are only ever replaced by rename, never changed in place; a file that somebody
    /// truncates while it is mapped ends the process (SIGBUS), as with every memory map.
    pub fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::Buffered(Buffer {
                memory: NonNull::new(ALIGNMENT as *mut u8).expect("not null"),
                n_bytes: 0,
                allocator: Arc::new(SystemAllocator),
            }));
        }
        // SAFETY: the map is read-only and private to this value. Its bytes could change only if another process
        // wrote the file in place; every value read from it is range-checked where it is used, and plain bytes
        // have no invalid values.
        unsafe { memmap2::MmapOptions::new().map(file) }.map(Bytes::Mapped)
    }

    /// Copies bytes into an aligned buffer.
    pub fn copied(bytes: &[u8]) -> Result<Self> {
        let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
        let mut buffer = Buffer::zeroed(bytes.len(), &allocator)?;
        buffer.copy_from_slice(bytes);
        Ok(Bytes::Buffered(buffer))
    }

    /// Whether these bytes are a memory map.
    pub fn is_mapped(&self) -> bool {
        matches!(self, Bytes::Mapped(_))
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Buffered(buffer) => buffer,
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes, mapped: {})", self.len(), self.is_mapped())
    }
}

/// Elements of which the first `filled` are published and never change again.
///
/// The memory is either a growing buffer with one writer, or a part of immutable [`Bytes`] (all of it published).
pub struct Slots<T> {
    memory: SlotMemory,
    capacity: usize,
    filled: AtomicUsize,
    element: std::marker::PhantomData<T>,
}

enum SlotMemory {
    Growing(Buffer),
    Fixed { bytes: Arc<Bytes>, start: usize },
}

impl<T: Pod> Slots<T> {
    /// Room for `capacity` elements, none of them published, and the one writer for them.
    pub fn with_capacity(
        capacity: usize,
        allocator: &Arc<dyn Allocator>,
    ) -> Result<(Arc<Self>, SlotWriter<T>)> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        let n_bytes = capacity
            .checked_mul(size_of::<T>())
            .ok_or_else(|| Error::Memory(format!("{capacity} elements do not fit in memory")))?;
        let slots = Arc::new(Self {
            memory: SlotMemory::Growing(Buffer::zeroed(n_bytes, allocator)?),
            capacity,
            filled: AtomicUsize::new(0),
            element: std::marker::PhantomData,
        });
        let writer = SlotWriter { slots: slots.clone(), staged: 0 };
        Ok((slots, writer))
    }

    /// `len` elements inside immutable bytes, from byte `start` on.
    pub fn fixed(bytes: Arc<Bytes>, start: usize, len: usize) -> Result<Arc<Self>> {
        let end = len.checked_mul(size_of::<T>()).and_then(|n_bytes| n_bytes.checked_add(start));
        let part = end.and_then(|end| bytes.get(start..end)).ok_or_else(|| {
            Error::format(format!("{len} elements from byte {start} on lie outside the file"))
        })?;
        if bytemuck::try_cast_slice::<u8, T>(part).is_err() {
            return Err(Error::format(format!("elements at byte {start} are not aligned")));
        }
        Ok(Arc::new(Self {
            memory: SlotMemory::Fixed { bytes, start },
            capacity: len,
            filled: AtomicUsize::new(len),
            element: std::marker::PhantomData,
        }))
    }

    /// How many elements there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The published elements.
    pub fn published(&self) -> &[T] {
        let filled = self.filled.load(Ordering::Acquire);
        match &self.memory {
            SlotMemory::Growing(buffer) => {
                // SAFETY: the first `filled` elements were written before the store that published them (Release,
                // paired with the Acquire above) and are never written again; T is plain data, and the buffer's
                // alignment is at least T's. The slice covers no unpublished element, so no write can meet it.
                unsafe { std::slice::from_raw_parts(buffer.memory.as_ptr().cast::<T>(), filled) }
            }
            SlotMemory::Fixed { bytes, start } => {
                bytemuck::cast_slice(&bytes[*start..*start + filled * size_of::<T>()])
            }
        }
    }

    /// Bytes of memory held, without those of a map.
    pub fn memory_bytes(&self) -> usize {
        match &self.memory {
            // What was never written takes none: large buffers come from the system page by page.
            SlotMemory::Growing(buffer) if buffer.n_bytes >= HUGE_PAGE_BYTES => {
                let written = self.filled.load(Ordering::Relaxed) * size_of::<T>();
                written.next_multiple_of(HUGE_PAGE_BYTES).min(buffer.n_bytes)
            }
            SlotMemory::Growing(buffer) => buffer.n_bytes,
            SlotMemory::Fixed { bytes, .. } if bytes.is_mapped() => 0,
            SlotMemory::Fixed { .. } => self.capacity * size_of::<T>(),
        }
    }
}

impl<T> fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({} of {})", self.filled.load(Ordering::Relaxed), self.capacity)
    }
}

/// The one right to fill the unpublished elements of some [`Slots`].
#[derive(Debug)]
pub struct SlotWriter<T> {
    slots: Arc<Slots<T>>,
    staged: usize,
}

impl<T: Pod> SlotWriter<T> {
    /// The slots it writes to.
    pub fn slots(&self) -> &Arc<Slots<T>> {
        &self.slots
    }

    /// Elements written and not yet published or dropped, counted with the published ones.
    pub fn staged(&self) -> usize {
        self.staged
    }

    /// Room left.
    pub fn room(&self) -> usize {
        self.slots.capacity - self.staged
    }

    /// Writes `n` elements through `fill` after those staged so far; they stay unseen until [`publish`](Self::publish).
    pub fn stage(&mut self, n: usize, fill: impl FnOnce(&mut [T])) {
        assert!(n <= self.room(), "room for {} elements, got {n}", self.room());
        let SlotMemory::Growing(buffer) = &self.slots.memory else {
            unreachable!("only growing slots have a writer")
        };
        // SAFETY: the range [staged, staged + n) lies inside the buffer and above `filled` (staged ≥ filled always),
        // so `published` never hands it out; `&mut self` of the only writer makes this the only reference to it.
        let part =
            unsafe { std::slice::from_raw_parts_mut(buffer.memory.as_ptr().cast::<T>().add(self.staged), n) };
        fill(part);
        self.staged += n;
    }

    /// Publishes what was staged.
    pub fn publish(&mut self) {
        self.slots.filled.store(self.staged, Ordering::Release);
    }

    /// Everything written so far, published or not.
    pub fn written(&self) -> &[T] {
        let SlotMemory::Growing(buffer) = &self.slots.memory else {
            unreachable!("only growing slots have a writer")
        };
        // SAFETY: the first `staged` elements were written by this writer, which is the only one and is borrowed, so
        // nothing writes them meanwhile; T is plain data and the buffer is aligned for it.
        unsafe { std::slice::from_raw_parts(buffer.memory.as_ptr().cast::<T>(), self.staged) }
    }

    /// Forgets what was staged beyond the first `n` elements, which include all that were published.
    pub fn rewind_to(&mut self, n: usize) {
        assert!(
            n <= self.staged && n >= self.slots.filled.load(Ordering::Acquire),
            "published elements stay"
        );
        self.staged = n;
    }
}

/// How much physical memory this process may still use, in bytes.
pub fn available_bytes() -> u64 {
    // The tightest of the system's own estimate and the address space limit; files of the kernel, so no parsing
    // surprises: a missing one means «no limit known».
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib * 1024);
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a valid place for the kernel to write one rlimit to.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    if known && limit.rlim_cur != libc::RLIM_INFINITY { available.min(limit.rlim_cur) } else { available }
}

/// How many bytes this process may still write in the file system that holds `path`.
pub fn disk_available_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a NUL, and `answer` is a valid place for the kernel to write one statvfs to.
    if unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statvfs returned 0, so it filled the whole struct.
    let answer = unsafe { answer.assume_init() };
    // The widths of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    Ok((answer.f_bavail as u64).saturating_mul(answer.f_frsize as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> Arc<dyn Allocator> {
        Arc::new(SystemAllocator)
    }

    #[test]
    fn buffers_are_zero_and_aligned() {
        for n_bytes in [0, 1, 63, 4096, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 5 * HUGE_PAGE_BYTES + 17] {
            let mut buffer = Buffer::zeroed(n_bytes, &system()).unwrap();
            assert_eq!(buffer.len(), n_bytes);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(7);
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(matches!(Buffer::zeroed(usize::MAX / 2, &system()), Err(Error::Memory(_))));
        assert!(matches!(Slots::<f32>::with_capacity(usize::MAX / 2, &system()), Err(Error::Memory(_))));
    }

    #[test]
    fn staged_elements_are_unseen_until_published() {
        let (slots, mut writer) = Slots::<f32>::with_capacity(10, &system()).unwrap();
        writer.stage(4, |part| part.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]));
        assert!(slots.published().is_empty());
        writer.publish();
        assert_eq!(slots.published(), [1.0, 2.0, 3.0, 4.0]);
        writer.stage(2, |part| part.fill(9.0));
        writer.rewind_to(4);
        assert_eq!(writer.room(), 6);
        writer.stage(1, |part| part.fill(5.0));
        writer.publish();
        assert_eq!(slots.published(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn fixed_slots_are_checked() {
        let bytes = Arc::new(Bytes::copied(&[0u8; 64]).unwrap());
        assert_eq!(Slots::<f32>::fixed(bytes.clone(), 0, 16).unwrap().published().len(), 16);
        assert!(Slots::<f32>::fixed(bytes.clone(), 0, 17).is_err());
        assert!(Slots::<f32>::fixed(bytes.clone(), 2, 1).is_err());
        assert!(Slots::<f32>::fixed(bytes, usize::MAX, usize::MAX).is_err());
    }

    #[test]
    fn readers_and_the_writer_share_slots() {
        let (slots, mut writer) = Slots::<u64>::with_capacity(20_000, &system()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < 20_000 {
                        let part = slots.published();
                        assert!(part.len() >= seen);
                        assert!(part.iter().enumerate().all(|(i, &value)| value == i as u64));
                        seen = part.len();
                    }
                });
            }
            for i in 0..2_000u64 {
                writer
                    .stage(10, |part| part.iter_mut().enumerate().for_each(|(j, v)| *v = i * 10 + j as u64));
                writer.publish();
            }
        });
    }
}
