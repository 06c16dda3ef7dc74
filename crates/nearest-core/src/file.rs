//! The container of every file that `nearest` writes: a header, named typed sections, a table, a trailer.
//!
//! docs/format.md specifies it. A [`FileWriter`] streams forward into any writer; a [`FileView`] looks at bytes that
//! may come from anywhere and never trusts them: it opens in time proportional to the table, and every count and
//! offset is checked before it is used. Checksums are for accidents. Whoever forges a file forges its checksums too,
//! so readers of sections still check every number in them where they use it.

use std::io::{self, Write};
use std::sync::Arc;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::files::STREAM;
use crate::memory::{ALIGNMENT, Bytes, Slots};

#[cfg(target_endian = "big")]
compile_error!("files are little-endian and are mapped as they are");

/// The version of the format that is written, and the newest that is read.
pub const FORMAT_VERSION: u32 = 1;
/// Sections of a file at most.
pub const MAX_SECTIONS: usize = 4_096;
/// Sections up to this size are verified when a file is opened.
pub const SMALL_SECTION_BYTES: u64 = 64 << 10;

const MAGIC: &[u8; 8] = b"\x89NEAR\r\n\x1a";
const END_MAGIC: &[u8; 8] = b"NEAR-END";
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 96;
const TRAILER_BYTES: usize = 64;
const KIND_BYTES: usize = 16;
const NAME_BYTES: usize = 32;
const MAX_DIMS: usize = 4;
const REQUIRED: u16 = 1;
/// Bytes written and checksummed at a time: they are still in the cache for the second of the two.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes verified between two reports.
const REPORT_BYTES: usize = 8 << 20;
/// How far before the end of a file with a damaged end a trailer is looked for, only to say what happened.
const SEARCH_BYTES: usize = 4096;
const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// The type of a section's elements. All are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// Unsigned, 8 bits; also packed bits and codes.
    U8 = 1,
    /// Signed, 8 bits.
    I8 = 2,
    /// Unsigned, 16 bits.
    U16 = 3,
    /// Signed, 16 bits.
    I16 = 4,
    /// Unsigned, 32 bits.
    U32 = 5,
    /// Signed, 32 bits.
    I32 = 6,
    /// Unsigned, 64 bits.
    U64 = 7,
    /// Signed, 64 bits.
    I64 = 8,
    /// IEEE 754 binary16.
    F16 = 9,
    /// The upper half of a binary32.
    Bf16 = 10,
    /// IEEE 754 binary32.
    F32 = 11,
    /// IEEE 754 binary64.
    F64 = 12,
    /// Bytes of UTF-8 text.
    Utf8 = 13,
}

impl Dtype {
    /// All of them, in the order of their numbers, which start at 1.
    pub const ALL: [Dtype; 13] = [
        Dtype::U8,
        Dtype::I8,
        Dtype::U16,
        Dtype::I16,
        Dtype::U32,
        Dtype::I32,
        Dtype::U64,
        Dtype::I64,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::F32,
        Dtype::F64,
        Dtype::Utf8,
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::U8 | Dtype::I8 | Dtype::Utf8 => 1,
            Dtype::U16 | Dtype::I16 | Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::U32 | Dtype::I32 | Dtype::F32 => 4,
            Dtype::U64 | Dtype::I64 | Dtype::F64 => 8,
        }
    }

    /// The name, as errors and `nearest info` show it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::U8 => "u8",
            Dtype::I8 => "i8",
            Dtype::U16 => "u16",
            Dtype::I16 => "i16",
            Dtype::U32 => "u32",
            Dtype::I32 => "i32",
            Dtype::U64 => "u64",
            Dtype::I64 => "i64",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::Utf8 => "utf8",
        }
    }

    /// The type of that number, as files hold it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// Plain data that is written as one [`Dtype`].
pub trait HasDtype: Pod {
    /// The type a section of these has.
    const DTYPE: Dtype;
}

macro_rules! has_dtype {
    ($($element:ty => $dtype:ident),* $(,)?) => {
        $(impl HasDtype for $element {
            const DTYPE: Dtype = Dtype::$dtype;
        })*
    };
}

has_dtype! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    half::f16 => F16, half::bf16 => Bf16, f32 => F32, f64 => F64,
}

/// What the table says of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    name: Box<str>,
    dtype: Dtype,
    n_dims: u8,
    shape: [u64; MAX_DIMS],
    flags: u16,
    checksum: u32,
    offset: u64,
    n_bytes: u64,
}

impl Section {
    /// The name, unique in its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape, row-major. Its product is backed by bytes of the file, unless one of the dimensions is 0: then the
    /// others may be anything that was forged.
    pub fn shape(&self) -> &[u64] {
        &self.shape[..usize::from(self.n_dims)]
    }

    /// Where it starts in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its size without padding.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The CRC-32 of its bytes.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Whether a reader that does not know this section must refuse the file.
    pub fn is_required(&self) -> bool {
        self.flags & REQUIRED != 0
    }

    fn padded_end(&self) -> Option<u64> {
        padded(self.offset.checked_add(self.n_bytes)?)
    }

    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..self.name.len()].copy_from_slice(self.name.as_bytes());
        entry[32] = self.dtype as u8;
        entry[33] = self.n_dims;
        entry[34..36].copy_from_slice(&self.flags.to_le_bytes());
        entry[36..40].copy_from_slice(&self.checksum.to_le_bytes());
        entry[40..48].copy_from_slice(&self.offset.to_le_bytes());
        entry[48..56].copy_from_slice(&self.n_bytes.to_le_bytes());
        for (i, dim) in self.shape.iter().enumerate() {
            entry[56 + 8 * i..64 + 8 * i].copy_from_slice(&dim.to_le_bytes());
        }
        entry
    }

    fn decode(entry: &[u8]) -> std::result::Result<Self, String> {
        let name = decode_name(&entry[..NAME_BYTES]).ok_or("its name is not a name")?;
        let wrong = |text: String| format!("section '{name}': {text}");
        let dtype = Dtype::from_number(entry[32]).ok_or_else(|| {
            wrong(format!("element type number {}, expected 1 to {}", entry[32], Dtype::ALL.len()))
        })?;
        let n_dims = entry[33];
        if usize::from(n_dims) > MAX_DIMS {
            return Err(wrong(format!("{n_dims} dimensions, expected at most {MAX_DIMS}")));
        }
        let flags = u16_at(entry, 34);
        if flags & !REQUIRED != 0 {
            return Err(wrong(format!("flags {flags:#06x} are not known")));
        }
        let shape: [u64; MAX_DIMS] = std::array::from_fn(|i| u64_at(entry, 56 + 8 * i));
        if shape[usize::from(n_dims)..].iter().any(|&dim| dim != 0) {
            return Err(wrong("dimensions beyond its last one".into()));
        }
        if entry[88..].iter().any(|&byte| byte != 0) {
            return Err(wrong("reserved bytes are not zero".into()));
        }
        let n_bytes = u64_at(entry, 48);
        let used = &shape[..usize::from(n_dims)];
        if shape_bytes(dtype, used) != Some(n_bytes) {
            return Err(wrong(format!("{n_bytes} bytes for {} of shape {used:?}", dtype.name())));
        }
        Ok(Self {
            name: name.into(),
            dtype,
            n_dims,
            shape,
            flags,
            checksum: u32_at(entry, 36),
            offset: u64_at(entry, 40),
            n_bytes,
        })
    }
}

/// Bytes of that many elements. All dimensions count for the overflow, also beside one of 0.
fn shape_bytes(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let bound = shape.iter().try_fold(dtype.size() as u64, |n, &dim| n.checked_mul(dim.max(1)))?;
    Some(if shape.contains(&0) { 0 } else { bound })
}

/// The next multiple of the alignment.
fn padded(n_bytes: u64) -> Option<u64> {
    n_bytes.checked_next_multiple_of(ALIGNMENT as u64)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Names and kinds: such characters only, so that they can be shown anywhere.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(byte))
}

/// A name padded with zeros.
fn decode_name(field: &[u8]) -> Option<&str> {
    let len = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let (name, rest) = field.split_at(len);
    if !is_name(name) || rest.iter().any(|&byte| byte != 0) {
        return None;
    }
    std::str::from_utf8(name).ok()
}

/// Writes one file, front to back, into any writer. Nothing is ever gone back to.
#[derive(Debug)]
pub struct FileWriter<W: Write> {
    out: W,
    position: u64,
    sections: Vec<Section>,
    failed: bool,
}

impl<W: Write> FileWriter<W> {
    /// Starts a file of that kind: at most 16 ASCII letters, digits, `_`, `-`, `.` or `/`.
    pub fn new(out: W, kind: &str) -> Result<Self> {
        if kind.len() > KIND_BYTES || !is_name(kind.as_bytes()) {
            return Err(Error::argument(format!("a kind has 1 to {KIND_BYTES} ASCII letters, got {kind:?}")));
        }
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[16..16 + kind.len()].copy_from_slice(kind.as_bytes());
        let checksum = crc32fast::hash(&header[..60]);
        header[60..].copy_from_slice(&checksum.to_le_bytes());
        let mut writer = Self { out, position: 0, sections: Vec::new(), failed: false };
        writer.put(&header)?;
        Ok(writer)
    }

    /// Adds a section whose bytes `write` gives, exactly as many as the shape says.
    ///
    /// An error of this crate that `write` wraps with [`io::Error::other`] (`Cancelled`, say) comes out as itself.
    pub fn section(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[u64],
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        self.check_usable()?;
        if name.len() > NAME_BYTES || !is_name(name.as_bytes()) {
            return Err(Error::argument(format!("a name has 1 to {NAME_BYTES} ASCII letters, got {name:?}")));
        }
        if self.sections.iter().any(|section| &*section.name == name) {
            return Err(Error::argument(format!("there are two sections '{name}'")));
        }
        if self.sections.len() == MAX_SECTIONS {
            return Err(Error::argument(format!("a file has at most {MAX_SECTIONS} sections")));
        }
        if shape.len() > MAX_DIMS {
            return Err(Error::argument(format!(
                "section '{name}': at most {MAX_DIMS} dimensions, got {shape:?}"
            )));
        }
        let n_bytes = shape_bytes(dtype, shape)
            .ok_or_else(|| Error::argument(format!("section '{name}': shape {shape:?} is too large")))?;
        let mut out = Checked {
            out: &mut self.out,
            left: n_bytes,
            too_many: false,
            checksum: crc32fast::Hasher::new(),
        };
        let written = write(&mut out);
        let (left, too_many, checksum) = (out.left, out.too_many, out.checksum.finalize());
        // Only a section that came out whole makes the writer usable again.
        self.failed = true;
        let expected =
            || format!("section '{name}' of shape {shape:?} has {n_bytes} bytes of {}", dtype.name());
        if too_many {
            return Err(Error::argument(format!("{}, got more", expected())));
        }
        written.map_err(stream_error)?;
        if left > 0 {
            return Err(Error::argument(format!("{}, got {}", expected(), n_bytes - left)));
        }
        self.failed = false;
        let mut dims = [0; MAX_DIMS];
        dims[..shape.len()].copy_from_slice(shape);
        self.sections.push(Section {
            name: name.into(),
            dtype,
            n_dims: shape.len() as u8,
            shape: dims,
            flags: 0,
            checksum,
            offset: self.position,
            n_bytes,
        });
        self.position += n_bytes;
        self.pad()
    }

    /// Adds an array.
    pub fn array<T: HasDtype>(&mut self, name: &str, shape: &[u64], elements: &[T]) -> Result<()> {
        self.section(name, T::DTYPE, shape, |out| out.write_all(bytemuck::cast_slice(elements)))
    }

    /// Adds text.
    pub fn text(&mut self, name: &str, text: &str) -> Result<()> {
        self.section(name, Dtype::Utf8, &[text.len() as u64], |out| out.write_all(text.as_bytes()))
    }

    /// Marks the section added last as required: a reader that does not know it must refuse the file.
    pub fn mark_required(&mut self) {
        if let Some(section) = self.sections.last_mut() {
            section.flags |= REQUIRED;
        }
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes the table and the trailer, flushes, and gives the writer back.
    pub fn finish(mut self) -> Result<W> {
        self.check_usable()?;
        let table: Vec<u8> = self.sections.iter().flat_map(Section::encode).collect();
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&self.position.to_le_bytes());
        trailer[8..16].copy_from_slice(&(table.len() as u64).to_le_bytes());
        trailer[24..28].copy_from_slice(&(self.sections.len() as u32).to_le_bytes());
        trailer[28..32].copy_from_slice(&crc32fast::hash(&table).to_le_bytes());
        trailer[32..40].copy_from_slice(END_MAGIC);
        self.put(&table)?;
        self.pad()?;
        trailer[16..24].copy_from_slice(&(self.position + TRAILER_BYTES as u64).to_le_bytes());
        let checksum = crc32fast::hash(&trailer[..60]);
        trailer[60..].copy_from_slice(&checksum.to_le_bytes());
        self.put(&trailer)?;
        self.out.flush().map_err(stream_error)?;
        Ok(self.out)
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::argument("a section failed before; this file cannot be finished"));
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| {
            self.failed = true;
            stream_error(error)
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<()> {
        let rest = (self.position % ALIGNMENT as u64) as usize;
        if rest == 0 { Ok(()) } else { self.put(&ZEROS[rest..]) }
    }
}

/// An error of the writer below, or the error of this crate that travels in it.
fn stream_error(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::io(STREAM, error))
}

/// Counts and checksums what passes.
struct Checked<'a, W> {
    out: &'a mut W,
    left: u64,
    too_many: bool,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.too_many || bytes.len() as u64 > self.left {
            self.too_many = true;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more bytes than the section's shape says",
            ));
        }
        let n = self.out.write(&bytes[..bytes.len().min(PIECE_BYTES)])?;
        self.checksum.update(&bytes[..n]);
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file that was opened: its bytes and the sections in them.
#[derive(Clone, Debug)]
pub struct FileView {
    bytes: Arc<Bytes>,
    kind: Box<str>,
    version: u32,
    sections: Vec<Section>,
    /// Positions in `sections`, sorted by name.
    by_name: Vec<u32>,
    table_end: usize,
}

impl FileView {
    /// Checks the header, the trailer, the table and every section of at most 64 KiB; larger ones are left to
    /// [`verify`](Self::verify). With `kind`, a file of another kind is refused.
    pub fn open(bytes: Arc<Bytes>, kind: Option<&str>) -> Result<Self> {
        let (version, found_kind) = check_header(&bytes)?;
        if kind.is_some_and(|kind| kind != found_kind) {
            return Err(Error::format(format!(
                "a file of kind '{found_kind}', expected '{}'",
                kind.unwrap_or_default()
            )));
        }
        let (table, sections) = check_table(&bytes)?;
        let mut by_name: Vec<u32> = (0..sections.len() as u32).collect();
        by_name.sort_unstable_by_key(|&i| sections[i as usize].name());
        for pair in by_name.windows(2) {
            let [first, second] = [&sections[pair[0] as usize], &sections[pair[1] as usize]];
            if first.name == second.name {
                return Err(Error::format(format!("there are two sections '{}'", first.name)));
            }
        }
        let kind = found_kind.into();
        let view = Self { bytes, kind, version, sections, by_name, table_end: table.end };
        for section in view.sections.iter().filter(|section| section.n_bytes <= SMALL_SECTION_BYTES) {
            view.check_sum(section, &mut |_| Ok(()))?;
        }
        Ok(view)
    }

    /// The kind of file, such as `index` or `neighbors`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The version of the format it was written in.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The size of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes of the whole file.
    pub fn bytes(&self) -> &Arc<Bytes> {
        &self.bytes
    }

    /// All sections, in the order of the file.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section of that name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        let found = self.by_name.binary_search_by_key(&name, |&i| self.sections[i as usize].name()).ok()?;
        Some(&self.sections[self.by_name[found] as usize])
    }

    /// The section of that name, type and shape; `None` in the shape stands for any number.
    pub fn require(&self, name: &str, dtype: Dtype, shape: &[Option<u64>]) -> Result<&Section> {
        let section = self
            .section(name)
            .ok_or_else(|| Error::format(format!("the {} file has no section '{name}'", self.kind)))?;
        let fits = section.shape().len() == shape.len()
            && section
                .shape()
                .iter()
                .zip(shape)
                .all(|(&got, expected)| expected.is_none_or(|dim| dim == got));
        if section.dtype != dtype || !fits {
            let dims: Vec<_> =
                shape.iter().map(|dim| dim.map_or_else(|| "any".into(), |dim| dim.to_string())).collect();
            return Err(wrong(
                section,
                format!(
                    "expected {} of shape [{}], got {} of shape {:?}",
                    dtype.name(),
                    dims.join(", "),
                    section.dtype.name(),
                    section.shape()
                ),
            ));
        }
        Ok(section)
    }

    /// Refuses the file if a section is marked as required and `is_known` does not know its name.
    pub fn refuse_unknown(&self, is_known: impl Fn(&str) -> bool) -> Result<()> {
        match self.sections.iter().find(|section| section.is_required() && !is_known(section.name())) {
            None => Ok(()),
            Some(section) => Err(wrong(
                section,
                "it is required to understand the file, and this version of nearest does not know it".into(),
            )),
        }
    }

    /// The bytes of one of this file's sections.
    pub fn bytes_of(&self, section: &Section) -> &[u8] {
        let start = section.offset as usize;
        &self.bytes[start..start + section.n_bytes as usize]
    }

    /// `n` elements of a section from `from_element` on, as the slots of a chunk. They keep the file's bytes alive.
    pub fn slots<T: Pod>(&self, section: &Section, from_element: usize, n: usize) -> Result<Arc<Slots<T>>> {
        let len = self.array::<T>(section)?.len();
        if from_element.checked_add(n).is_none_or(|end| end > len) {
            return Err(wrong(
                section,
                format!("elements from {from_element} on: {n} expected, it has {len}"),
            ));
        }
        Slots::fixed(self.bytes.clone(), section.offset as usize + from_element * size_of::<T>(), n)
    }

    /// A section as a slice of `T`, which is its element or a group of them, such as `[f32; 4]`.
    pub fn array<T: Pod>(&self, section: &Section) -> Result<&[T]> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= ALIGNMENT) };
        if !size_of::<T>().is_multiple_of(section.dtype.size()) {
            return Err(wrong(
                section,
                format!("{} does not make elements of {} bytes", section.dtype.name(), size_of::<T>()),
            ));
        }
        bytemuck::try_cast_slice(self.bytes_of(section)).map_err(|_| {
            wrong(section, format!("{} bytes are not elements of {}", section.n_bytes, size_of::<T>()))
        })
    }

    /// The text of that name.
    pub fn text(&self, name: &str) -> Result<&str> {
        let section = self.require(name, Dtype::Utf8, &[None])?;
        std::str::from_utf8(self.bytes_of(section))
            .map_err(|error| wrong(section, format!("not UTF-8: {error}")))
    }

    /// Checks every byte: the checksums of all sections, and that all padding is zero.
    pub fn verify(&self) -> Result<()> {
        self.verify_with(&mut |_| Ok(()))
    }

    /// As [`verify`](Self::verify); `step` is told now and then how many more bytes were checked, and may stop it.
    pub fn verify_with(&self, step: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        for section in &self.sections {
            self.check_sum(section, step)?;
            let end = (section.offset + section.n_bytes) as usize;
            self.check_zero(end, &format!("the padding after section '{}'", section.name))?;
        }
        self.check_zero(self.table_end, "the padding after the table")
    }

    fn check_sum(&self, section: &Section, step: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut checksum = crc32fast::Hasher::new();
        for part in self.bytes_of(section).chunks(REPORT_BYTES) {
            checksum.update(part);
            step(part.len() as u64)?;
        }
        let got = checksum.finalize();
        if got != section.checksum {
            return Err(wrong(
                section,
                format!(
                    "its {} bytes are damaged: checksum {:#010x} expected, got {got:#010x}",
                    section.n_bytes, section.checksum
                ),
            ));
        }
        Ok(())
    }

    /// Checks the padding from `at` up to the next multiple of the alignment.
    fn check_zero(&self, at: usize, what: &str) -> Result<()> {
        let padding = &self.bytes[at..at.next_multiple_of(ALIGNMENT)];
        match padding.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(i) => Err(Error::format(format!(
                "byte {}: {what} is damaged: 0 expected, got {}",
                at + i,
                padding[i]
            ))),
        }
    }
}

fn wrong(section: &Section, text: String) -> Error {
    Error::format(format!("section '{}' at byte {}: {text}", section.name, section.offset))
}

/// The version and the kind.
fn check_header(bytes: &[u8]) -> Result<(u32, &str)> {
    if bytes.is_empty() {
        return Err(Error::format("the file is empty"));
    }
    let n_bytes = bytes.len();
    if !bytes.starts_with(MAGIC) {
        if MAGIC.starts_with(bytes) {
            return Err(Error::format(format!("the file is cut short: {n_bytes} bytes")));
        }
        return Err(Error::format(match recognise(bytes) {
            Some(what) => format!("not a file of nearest: it looks like {what}"),
            None => {
                let start = bytes[..n_bytes.min(MAGIC.len())].escape_ascii();
                format!(
                    "not a file of nearest: it starts with \"{start}\", expected \"{}\"",
                    MAGIC.escape_ascii()
                )
            }
        }));
    }
    let least = HEADER_BYTES + TRAILER_BYTES;
    if n_bytes < least {
        return Err(Error::format(format!(
            "the file is cut short: {n_bytes} bytes, expected at least {least}"
        )));
    }
    let (expected, got) = (u32_at(bytes, 60), crc32fast::hash(&bytes[..60]));
    if expected != got {
        return Err(Error::format(format!(
            "the header at byte 0 is damaged: checksum {expected:#010x} expected, got {got:#010x}"
        )));
    }
    let version = u32_at(bytes, 8);
    if version > FORMAT_VERSION {
        return Err(Error::format(format!(
            "format version {version}, this nearest reads up to {FORMAT_VERSION}; a newer one is needed"
        )));
    }
    if version == 0 {
        return Err(Error::format("format version 0 at byte 8, expected at least 1"));
    }
    if bytes[12..16].iter().chain(&bytes[32..60]).any(|&byte| byte != 0) {
        return Err(Error::format("reserved bytes of the header, 12 to 15 and 32 to 59, are not zero"));
    }
    let kind =
        decode_name(&bytes[16..32]).ok_or_else(|| Error::format("the kind at byte 16 is not a name"))?;
    Ok((version, kind))
}

/// Where the table lies, and what it says, all of it checked against the file's size. The header was checked before.
fn check_table(bytes: &[u8]) -> Result<(std::ops::Range<usize>, Vec<Section>)> {
    let trailer_at = bytes.len() - TRAILER_BYTES;
    let trailer = &bytes[trailer_at..];
    if !is_trailer(trailer) {
        return Err(explain_end(bytes));
    }
    let at_trailer = |text: String| Error::format(format!("the trailer at byte {trailer_at}: {text}"));
    let total = u64_at(trailer, 16);
    if total != bytes.len() as u64 {
        return Err(Error::format(format!("the file says {total} bytes, got {}", bytes.len())));
    }
    if trailer[40..60].iter().any(|&byte| byte != 0) {
        return Err(at_trailer("reserved bytes are not zero".into()));
    }
    let (table_at, table_bytes, n_sections) = (u64_at(trailer, 0), u64_at(trailer, 8), u32_at(trailer, 24));
    if n_sections as usize > MAX_SECTIONS {
        return Err(at_trailer(format!("{n_sections} sections, expected at most {MAX_SECTIONS}")));
    }
    if table_bytes != u64::from(n_sections) * ENTRY_BYTES as u64 {
        return Err(at_trailer(format!(
            "a table of {table_bytes} bytes for {n_sections} sections of {ENTRY_BYTES} each"
        )));
    }
    let table_end = table_at.checked_add(table_bytes);
    if table_at % ALIGNMENT as u64 != 0
        || table_at < HEADER_BYTES as u64
        || table_end.and_then(padded) != Some(trailer_at as u64)
    {
        return Err(at_trailer(format!(
            "a table of {table_bytes} bytes at byte {table_at} does not fit between header and trailer"
        )));
    }
    // It ends before the trailer, so both fit a usize.
    let table = table_at as usize..(table_at + table_bytes) as usize;
    let (expected, got) = (u32_at(trailer, 28), crc32fast::hash(&bytes[table.clone()]));
    if expected != got {
        return Err(Error::format(format!(
            "the table at byte {table_at} is damaged: checksum {expected:#010x} expected, got {got:#010x}"
        )));
    }
    let mut sections = Vec::with_capacity(n_sections as usize);
    // Sections follow one another without gaps: this one rule keeps them in bounds, aligned and apart.
    let mut next = HEADER_BYTES as u64;
    for (i, entry) in bytes[table.clone()].chunks_exact(ENTRY_BYTES).enumerate() {
        let section = Section::decode(entry).map_err(|text| {
            Error::format(format!(
                "entry {i} of the table, at byte {}: {text}",
                table.start + i * ENTRY_BYTES
            ))
        })?;
        if section.offset != next {
            return Err(wrong(&section, format!("expected it at byte {next}")));
        }
        next = section.padded_end().filter(|&end| end <= table_at).ok_or_else(|| {
            wrong(
                &section,
                format!("{} bytes do not fit before the table at byte {table_at}", section.n_bytes),
            )
        })?;
        sections.push(section);
    }
    if next != table_at {
        return Err(Error::format(format!(
            "the sections end at byte {next}, the table starts at byte {table_at}"
        )));
    }
    Ok((table, sections))
}

fn is_trailer(trailer: &[u8]) -> bool {
    trailer[32..40] == *END_MAGIC && u32_at(trailer, 60) == crc32fast::hash(&trailer[..60])
}

/// What happened to a file whose last bytes are no trailer.
fn explain_end(bytes: &[u8]) -> Error {
    let n_bytes = bytes.len();
    let trailer_at = n_bytes - TRAILER_BYTES;
    if bytes[trailer_at + 32..trailer_at + 40] == *END_MAGIC {
        return Error::format(format!(
            "the trailer at byte {trailer_at} is damaged: its checksum does not match"
        ));
    }
    for at in (trailer_at.saturating_sub(SEARCH_BYTES)..trailer_at).rev() {
        let trailer = &bytes[at..at + TRAILER_BYTES];
        if trailer[32..40] == *END_MAGIC && is_trailer(trailer) {
            return Error::format(format!("the file says {} bytes, got {n_bytes}", u64_at(trailer, 16)));
        }
    }
    Error::format(format!(
        "the file is cut short, or was never finished: it has {n_bytes} bytes, and the last {TRAILER_BYTES} are not \
         the end of a file of nearest"
    ))
}

/// What a file that is not ours seems to be.
fn recognise(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 22] = [
        (b"\x89NEAR\n", "a file of nearest whose line ends were changed, as by a transfer in text mode"),
        (b"\x89NEAR\r\r", "a file of nearest whose line ends were changed, as by a transfer in text mode"),
        (b"\x09NEAR", "a file of nearest whose high bits were lost, as by a transfer in text mode"),
        (b"\xc2\x89NEAR", "a file of nearest that was converted from Latin-1 to UTF-8"),
        (b"\xef\xbf\xbdNEAR", "a file of nearest that was read and written as UTF-8 text"),
        (b"\x93NUMPY", "a numpy array (.npy); numpy.load reads it, nearest.build makes an index of it"),
        (b"PK\x03\x04", "a zip archive, such as .npz; numpy.load may read it"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"PAR1", "a Parquet file"),
        (b"ARROW1", "an Arrow file"),
        (b"\x1f\x8b", "compressed by gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
        (b"\xfd7zXZ\0", "compressed by xz"),
        (b"BZh", "compressed by bzip2"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"REDIS0", "a Redis dump"),
        (b"version https://git-lfs", "a pointer of Git LFS; the file itself was not fetched"),
        (b"<!DOCTYPE", "a web page"),
        (b"<html", "a web page"),
        (b"\x7fELF", "a program"),
        (b"\x80\x04", "a Python pickle"),
        (b"\x80\x05", "a Python pickle"),
    ];
    if let Some((_, what)) = KNOWN.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(what);
    }
    // Faiss names the kind of index in four characters.
    let faiss: [&[u8]; 7] = [b"Ix", b"IH", b"Iw", b"IB", b"IM", b"IN", b"II"];
    let start = &bytes[..bytes.len().min(MAGIC.len())];
    if start.len() >= 4
        && faiss.iter().any(|faiss| start.starts_with(faiss))
        && start[..4].iter().all(u8::is_ascii_alphanumeric)
    {
        return Some("an index of Faiss; nearest.doors.faiss reads it");
    }
    let part = &bytes[..bytes.len().min(HEADER_BYTES)];
    if part.iter().all(|&byte| byte == 0) {
        return Some("nothing but zeros, as an interrupted copy leaves them");
    }
    if part.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return Some("a text");
    }
    None
}
