//! The container: golden bytes, damage of every kind, and what is written comes back.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use nearest_core::error::{Error, Result};
use nearest_core::file::{
    Dtype, FORMAT_VERSION, FileView, FileWriter, HasDtype, MAX_SECTIONS, SMALL_SECTION_BYTES,
};
use nearest_core::memory::Bytes;
use proptest::prelude::*;

fn open(bytes: &[u8], kind: Option<&str>) -> Result<FileView> {
    FileView::open(Arc::new(Bytes::copied(bytes).unwrap()), kind)
}

fn open_and_verify(bytes: &[u8]) -> Result<FileView> {
    let view = open(bytes, None)?;
    view.verify()?;
    Ok(view)
}

/// The text of a format error; anything else fails the test.
fn format_error(result: Result<FileView>) -> String {
    match result {
        Err(Error::Format(text)) => text,
        other => panic!("expected a format error, got {other:?}"),
    }
}

/// A small file of kind `neighbors`: three rows of two neighbours.
fn tiny() -> Vec<u8> {
    let mut writer = FileWriter::new(Vec::new(), "neighbors").unwrap();
    writer.text("meta", r#"{"metric":"euclidean"}"#).unwrap();
    writer.mark_required();
    writer.array("ids", &[3, 2], &[1i64, 2, 0, 2, 1, -1]).unwrap();
    writer.mark_required();
    writer.array("distances", &[3, 2], &[1.0f32, 2.0, 1.0, 3.0, 2.0, f32::INFINITY]).unwrap();
    writer.mark_required();
    writer.finish().unwrap()
}

/// A file with a section of every type, an empty one, a scalar, and one too large to be verified when it is opened.
fn varied() -> Vec<u8> {
    let mut writer = FileWriter::new(Vec::new(), "index").unwrap();
    writer.array("u8", &[5], &[1u8, 2, 3, 4, 5]).unwrap();
    writer.array("i8", &[1], &[-1i8]).unwrap();
    writer.array("u16", &[2, 1, 1, 2], &[1u16, 2, 3, 4]).unwrap();
    writer.array("i16", &[], &[-7i16]).unwrap();
    writer.array("u32", &[0, 128], &[0u32; 0]).unwrap();
    writer.array("i32", &[16], &[9i32; 16]).unwrap();
    writer.array("u64", &[1], &[u64::MAX]).unwrap();
    writer.array("i64", &[2], &[i64::MIN, 3]).unwrap();
    writer.array("f16", &[1], &[half::f16::ONE]).unwrap();
    writer.array("bf16", &[1], &[half::bf16::ONE]).unwrap();
    let large: Vec<f32> = (0..17_000).map(|i| i as f32).collect();
    writer.array("f32", &[17_000], &large).unwrap();
    writer.array("f64", &[1], &[std::f64::consts::PI]).unwrap();
    writer.text("utf8", "Löffel").unwrap();
    writer.finish().unwrap()
}

/// CRC-32 bit by bit, so that the checksum is pinned by another program than the one that writes it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Where the table starts and ends, if that lies inside the file.
fn table_of(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let trailer = bytes.len().checked_sub(64)?;
    let start = usize::try_from(get_u64(bytes, trailer)).ok()?;
    let end = start.checked_add(usize::try_from(get_u64(bytes, trailer + 8)).ok()?)?;
    (end <= bytes.len()).then_some(start..end)
}

/// Makes all checksums right again, as a forger would, as far as what they are of lies inside the file.
fn forge(bytes: &mut [u8]) {
    if bytes.len() < 128 {
        return;
    }
    let header = crc32fast::hash(&bytes[..60]);
    put_u32(bytes, 60, header);
    let trailer = bytes.len() - 64;
    if let Some(table) = table_of(bytes) {
        for entry in table.clone().step_by(96).filter(|entry| entry + 96 <= table.end) {
            let (start, n_bytes) = (get_u64(bytes, entry + 40) as usize, get_u64(bytes, entry + 48) as usize);
            if let Some(section) = start.checked_add(n_bytes).and_then(|end| bytes.get(start..end)) {
                let checksum = crc32fast::hash(section);
                put_u32(bytes, entry + 36, checksum);
            }
        }
        let checksum = crc32fast::hash(&bytes[table]);
        put_u32(bytes, trailer + 28, checksum);
    }
    let checksum = crc32fast::hash(&bytes[trailer..trailer + 60]);
    put_u32(bytes, trailer + 60, checksum);
}

/// Everything a reader may do with a file. Errors are fine, panics are not.
fn use_all(bytes: &[u8]) {
    let view = match open(bytes, None) {
        Ok(view) => view,
        Err(Error::Format(_)) => return,
        Err(other) => panic!("not a format error: {other:?}"),
    };
    assert!(view.sections().len() * 96 <= bytes.len());
    let total: u64 = view.sections().iter().map(|section| section.n_bytes()).sum();
    assert!(total <= view.file_bytes());
    for section in view.sections() {
        assert_eq!(view.section(section.name()), Some(section));
        assert_eq!(view.bytes_of(section).len() as u64, section.n_bytes());
        assert_eq!(section.offset() % 64, 0);
        let _ = view.text(section.name());
        let _ = view.array::<f32>(section);
        let _ = view.array::<[u64; 2]>(section);
        let _ = view.slots::<i64>(section, 1, 1);
        let _ = view.slots::<u8>(section, usize::MAX, 2);
        let shape: Vec<_> = section.shape().iter().map(|&dim| Some(dim)).collect();
        view.require(section.name(), section.dtype(), &shape).unwrap();
    }
    let _ = view.refuse_unknown(|name| name == "meta");
    let _ = view.verify();
}

/// SplitMix64, for mutations with a fixed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn golden_file_is_written_byte_for_byte_and_opens() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/1/neighbors.nearest");
    if std::env::var_os("NEAREST_REMAKE_GOLDEN").is_some() {
        std::fs::write(&path, tiny()).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(golden, tiny(), "the format changed: a new version is needed");
    let view = open(&golden, Some("neighbors")).unwrap();
    view.verify().unwrap();
    assert_eq!((view.kind(), view.version()), ("neighbors", 1));
    assert_eq!(view.text("meta").unwrap(), r#"{"metric":"euclidean"}"#);
    let ids = view.require("ids", Dtype::I64, &[None, Some(2)]).unwrap();
    assert_eq!(view.array::<i64>(ids).unwrap(), [1, 2, 0, 2, 1, -1]);
    let distances = view.require("distances", Dtype::F32, &[Some(3), Some(2)]).unwrap();
    assert_eq!(view.array::<f32>(distances).unwrap(), [1.0, 2.0, 1.0, 3.0, 2.0, f32::INFINITY]);
    assert_eq!(ids.checksum(), crc32(view.bytes_of(ids)));
    assert_eq!(&golden[60..64], crc32(&golden[..60]).to_le_bytes());
}

#[test]
fn every_type_comes_back() {
    fn check<T: HasDtype + PartialEq + std::fmt::Debug>(view: &FileView, shape: &[u64], expected: &[T]) {
        let section = view.section(T::DTYPE.name()).unwrap();
        assert_eq!((section.dtype(), section.shape()), (T::DTYPE, shape));
        assert_eq!(view.array::<T>(section).unwrap(), expected);
    }
    let view = open_and_verify(&varied()).unwrap();
    check(&view, &[5], &[1u8, 2, 3, 4, 5]);
    check(&view, &[1], &[-1i8]);
    check(&view, &[2, 1, 1, 2], &[1u16, 2, 3, 4]);
    check(&view, &[], &[-7i16]);
    check(&view, &[0, 128], &[0u32; 0]);
    check(&view, &[16], &[9i32; 16]);
    check(&view, &[1], &[u64::MAX]);
    check(&view, &[2], &[i64::MIN, 3]);
    check(&view, &[1], &[half::f16::ONE]);
    check(&view, &[1], &[half::bf16::ONE]);
    check(&view, &[1], &[std::f64::consts::PI]);
    assert_eq!(view.text("utf8").unwrap(), "Löffel");
    let large = view.section("f32").unwrap();
    assert!(large.n_bytes() > SMALL_SECTION_BYTES);
    let slots = view.slots::<f32>(large, 100, 3).unwrap();
    assert_eq!(slots.published(), [100.0, 101.0, 102.0]);
    assert_eq!(view.array::<[f32; 4]>(large).unwrap()[1], [4.0, 5.0, 6.0, 7.0]);
    assert!(matches!(view.slots::<f32>(large, 16_999, 2), Err(Error::Format(_))));
    assert!(matches!(view.array::<[f32; 3]>(large), Err(Error::Format(_))));
    assert!(matches!(view.array::<u8>(large), Err(Error::Format(_))));
}

#[test]
fn types_have_numbers_and_names() {
    for (i, dtype) in Dtype::ALL.into_iter().enumerate() {
        assert_eq!(dtype as usize, i + 1);
        assert_eq!(Dtype::from_number(dtype as u8), Some(dtype));
        assert!(Dtype::ALL.iter().filter(|other| other.name() == dtype.name()).count() == 1);
    }
    assert_eq!((Dtype::from_number(0), Dtype::from_number(14), Dtype::from_number(255)), (None, None, None));
}

#[test]
fn every_truncation_is_found() {
    for file in [tiny(), varied()] {
        // Every length of the small one; of the other, those near its ends and some between.
        let lengths = (0..file.len()).filter(|&len| len < 2000 || len > file.len() - 2000 || len % 97 == 0);
        for len in lengths {
            let text = format_error(open(&file[..len], None));
            assert!(
                text.contains("empty") || text.contains("cut short") || text.contains("the file says"),
                "{len}: {text}"
            );
        }
    }
}

#[test]
fn bytes_at_the_end_are_found() {
    let mut file = tiny();
    let len = file.len();
    file.extend_from_slice(b"\n");
    assert_eq!(format_error(open(&file, None)), format!("the file says {len} bytes, got {}", len + 1));
    file.extend_from_slice(&[0; 100]);
    assert_eq!(format_error(open(&file, None)), format!("the file says {len} bytes, got {}", len + 101));
    // Two files, one after the other.
    let twice = [tiny(), tiny()].concat();
    assert_eq!(format_error(open(&twice, None)), format!("the file says {len} bytes, got {}", 2 * len));
}

#[test]
fn every_flipped_bit_is_found() {
    let file = tiny();
    let mut damaged = file.clone();
    for at in 0..file.len() {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            format_error(open_and_verify(&damaged));
            damaged[at] = file[at];
        }
    }
    // A sample of the other one, whose large section is found by `verify` alone.
    let file = varied();
    let view = open(&file, None).unwrap();
    let large = view.section("f32").unwrap();
    let inside = large.offset() as usize..(large.offset() + large.n_bytes()) as usize;
    let mut damaged = file.clone();
    for at in (0..file.len()).filter(|at| !inside.contains(at) || at % 331 == 0) {
        damaged[at] ^= 1 << (at % 8);
        let text = format_error(open_and_verify(&damaged));
        assert!(
            !inside.contains(&at) || text.contains("section 'f32'") && open(&damaged, None).is_ok(),
            "{text}"
        );
        damaged[at] = file[at];
    }
}

#[test]
fn mutations_with_right_checksums_never_panic() {
    let mut random = Random(20_260);
    let files = [tiny(), varied()];
    let odd = [
        0,
        1,
        63,
        64,
        65,
        96,
        127,
        1 << 31,
        1 << 32,
        (1 << 32) + 64,
        1 << 62,
        1 << 63,
        u64::MAX - 63,
        u64::MAX,
    ];
    let mut n_opened = 0;
    for round in 0..20_000 {
        // The large one is slower, and has more sections.
        let mut file = files[usize::from(round % 10 == 0)].clone();
        for _ in 0..=random.below(4) {
            let table = table_of(&file).unwrap_or(0..file.len().min(64));
            let at = match random.below(4) {
                0 => random.below(64.min(file.len())),
                1 => table.start + random.below(table.len().max(1)),
                2 => file.len().saturating_sub(64) + random.below(64),
                _ => random.below(file.len()),
            }
            .min(file.len() - 1);
            match random.below(6) {
                0 => file[at] ^= 1 << random.below(8),
                1 => file[at] = random.next() as u8,
                2 | 3 => {
                    // A field of the table or the trailer: an offset, a length, a dimension.
                    let at = (at & !7).min(file.len().saturating_sub(8));
                    let value = odd[random.below(odd.len())].wrapping_add(random.below(3) as u64);
                    if file.len() >= 8 {
                        put_u64(&mut file, at, value);
                    }
                }
                4 => {
                    let from = random.below(file.len());
                    let n = random.below(file.len() - from.max(at) + 1).min(200);
                    file.copy_within(from..from + n, at);
                }
                _ if file.len() > 256 && random.below(4) == 0 => {
                    let cut = at.min(file.len() - 200);
                    file.drain(cut..cut + random.below(130));
                }
                _ => file[at] = 0,
            }
        }
        forge(&mut file);
        let used = catch_unwind(AssertUnwindSafe(|| use_all(&file)));
        assert!(used.is_ok(), "round {round} panicked");
        n_opened += usize::from(open(&file, None).is_ok());
    }
    // Otherwise the mutations test little.
    assert!(n_opened > 1_000, "only {n_opened} files opened");
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(7);
    for n_bytes in 0..2_000 {
        let mut bytes: Vec<u8> = (0..n_bytes).map(|_| random.next() as u8).collect();
        use_all(&bytes);
        let magic = &tiny()[..60];
        let n = bytes.len().min(60);
        bytes[..n].copy_from_slice(&magic[..n]);
        forge(&mut bytes);
        use_all(&bytes);
    }
}

/// Changes one field of the tiny file, makes the checksums right, and gives the error.
fn forged(change: impl FnOnce(&mut Vec<u8>, usize, usize)) -> String {
    let mut file = tiny();
    let (table, trailer) = (table_of(&file).unwrap().start, file.len() - 64);
    change(&mut file, table, trailer);
    forge(&mut file);
    format_error(open(&file, None))
}

#[test]
fn forged_tables_are_refused() {
    // Shapes whose product overflows back to the length, or hides behind a zero.
    let text = forged(|file, table, _| {
        file[table + 33] = 2;
        put_u64(file, table + 56, 1 << 32);
        put_u64(file, table + 64, 1 << 32);
        put_u64(file, table + 48, 0);
    });
    assert!(text.contains("section 'meta': 0 bytes for utf8 of shape [4294967296, 4294967296]"), "{text}");
    let text = forged(|file, table, _| {
        file[table + 33] = 3;
        put_u64(file, table + 56, 0);
        put_u64(file, table + 64, 1 << 32);
        put_u64(file, table + 72, 1 << 32);
        put_u64(file, table + 48, 0);
    });
    assert!(text.contains("0 bytes for utf8"), "{text}");
    // Two sections over the same bytes, a gap, an offset that overflows.
    let text = forged(|file, table, _| put_u64(file, table + 96 + 40, 64));
    assert!(text.contains("section 'ids' at byte 64: expected it at byte 128"), "{text}");
    forged(|file, table, _| put_u64(file, table + 96 + 40, 192));
    forged(|file, table, _| put_u64(file, table + 96 + 40, u64::MAX - 63));
    let text = forged(|file, table, _| {
        put_u64(file, table + 48, u64::MAX);
        put_u64(file, table + 56, u64::MAX);
    });
    assert!(text.contains("do not fit before the table"), "{text}");
    // Two sections of one name.
    let text = forged(|file, table, _| file.copy_within(table..table + 32, table + 96));
    assert!(text.contains("two sections 'meta'"), "{text}");
    // Numbers that mean nothing.
    assert!(forged(|file, table, _| file[table + 32] = 14).contains("type number 14"));
    assert!(forged(|file, table, _| file[table + 33] = 5).contains("5 dimensions"));
    assert!(forged(|file, table, _| file[table + 34] = 2).contains("flags"));
    assert!(forged(|file, table, _| file[table + 95] = 1).contains("reserved"));
    assert!(forged(|file, table, _| file[table] = b'\n').contains("not a name"));
    assert!(forged(|file, _, _| file[12] = 1).contains("reserved"));
    assert!(forged(|file, _, _| file[16] = 0).contains("kind"));
    assert!(forged(|file, _, trailer| file[trailer + 50] = 1).contains("reserved"));
    // Sections, table and file that do not fit one another.
    forged(|file, _, trailer| put_u32(file, trailer + 24, 2));
    forged(|file, _, trailer| put_u32(file, trailer + 24, u32::MAX));
    forged(|file, _, trailer| put_u64(file, trailer + 8, 2 * 96));
    forged(|file, _, trailer| put_u64(file, trailer, 0));
    forged(|file, _, trailer| put_u64(file, trailer, u64::MAX - 63));
    assert!(
        forged(|file, _, trailer| put_u64(file, trailer + 16, 1234)).contains("the file says 1234 bytes")
    );
}

#[test]
fn other_versions_and_kinds_are_named() {
    let mut file = tiny();
    put_u32(&mut file, 8, 2);
    forge(&mut file);
    let text = format_error(open(&file, None));
    assert!(text.starts_with("format version 2, this nearest reads up to 1"), "{text}");
    assert_eq!(FORMAT_VERSION, 1);
    put_u32(&mut file, 8, 0);
    forge(&mut file);
    format_error(open(&file, None));
    let text = format_error(open(&tiny(), Some("index")));
    assert_eq!(text, "a file of kind 'neighbors', expected 'index'");
}

#[test]
fn foreign_files_are_recognised() {
    for (start, what) in [
        (&b""[..], "empty"),
        (b"\x89N", "cut short"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "numpy array"),
        (b"PK\x03\x04\x14\0", "zip archive"),
        (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"ARROW1\0\0", "Arrow"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"IxF2\x80\0\0\0", "Faiss"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html>", "web page"),
        (b"name,age\n", "a text"),
        (b"\x89NEAR\n\x1a\x01", "text mode"),
        (b"\xef\xbf\xbdNEAR\r\n", "UTF-8"),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0", "zeros"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08\x09", "it starts with \"\\x01\\x02"),
    ] {
        let text = format_error(open(start, None));
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn requirements_are_checked() {
    let view = open(&tiny(), None).unwrap();
    for (name, dtype, shape) in [
        ("links", Dtype::I64, &[Some(3), Some(2)][..]),
        ("ids", Dtype::U64, &[Some(3), Some(2)]),
        ("ids", Dtype::I64, &[Some(3), Some(1)]),
        ("ids", Dtype::I64, &[None]),
    ] {
        assert!(matches!(view.require(name, dtype, shape), Err(Error::Format(_))));
    }
    let error = view.require("ids", Dtype::F32, &[None, Some(9)]).unwrap_err().to_string();
    assert_eq!(error, "section 'ids' at byte 128: expected f32 of shape [any, 9], got i64 of shape [3, 2]");
    assert!(matches!(view.text("ids"), Err(Error::Format(_))));
    view.refuse_unknown(|name| ["meta", "ids", "distances"].contains(&name)).unwrap();
    assert!(view.refuse_unknown(|name| ["meta", "ids"].contains(&name)).is_err());
    // Not marked as required: ignored.
    open(&varied(), None).unwrap().refuse_unknown(|_| false).unwrap();
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let mut writer = FileWriter::new(Vec::new(), "index").unwrap();
    writer.section("meta", Dtype::Utf8, &[2], |out| out.write_all(b"\xff\xfe")).unwrap();
    let file = writer.finish().unwrap();
    assert!(matches!(open(&file, None).unwrap().text("meta"), Err(Error::Format(_))));
}

#[test]
fn the_writer_refuses_what_would_not_open() {
    let is_argument = |result: Result<()>| assert!(matches!(result, Err(Error::Argument(_))), "{result:?}");
    for kind in ["", "a kind", "seventeen-letters", "käfer"] {
        assert!(matches!(FileWriter::new(Vec::new(), kind), Err(Error::Argument(_))));
    }
    let mut writer = FileWriter::new(Vec::new(), "index").unwrap();
    writer.array("a", &[1], &[1u8]).unwrap();
    is_argument(writer.array("a", &[1], &[1u8]));
    is_argument(writer.array("", &[1], &[1u8]));
    is_argument(writer.array(&"x".repeat(33), &[1], &[1u8]));
    is_argument(writer.array("b", &[1, 1, 1, 1, 1], &[1u8]));
    is_argument(writer.array("b", &[u64::MAX, 2, 0], &[0u8; 0]));
    writer.array(&"x".repeat(32), &[1], &[1u8]).unwrap();
    for elements in [&[1u8, 2][..], &[1, 2, 3, 4]] {
        let mut writer = FileWriter::new(Vec::new(), "index").unwrap();
        is_argument(writer.array("b", &[3], elements));
        is_argument(writer.array("c", &[1], &[1u8]));
        assert!(matches!(writer.finish(), Err(Error::Argument(_))));
    }
    // Too much, and the closure hides it.
    let mut writer = FileWriter::new(Vec::new(), "index").unwrap();
    is_argument(writer.section("b", Dtype::U8, &[3], |out| {
        let _ = out.write_all(&[0; 4]);
        out.write_all(&[0; 3])
    }));
    // Errors of this crate come through.
    let mut writer = FileWriter::new(Vec::new(), "index").unwrap();
    let stopped = writer.section("b", Dtype::U8, &[3], |_| Err(std::io::Error::other(Error::Cancelled)));
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let mut writer = FileWriter::new(Vec::new(), "index").unwrap();
    for i in 0..MAX_SECTIONS {
        writer.array(&format!("s{i}"), &[1], &[1u8]).unwrap();
    }
    is_argument(writer.array("one-more", &[1], &[1u8]));
    assert_eq!(open_and_verify(&writer.finish().unwrap()).unwrap().sections().len(), MAX_SECTIONS);
}

/// Takes `room` bytes, a few at a time, then fails.
struct Tight {
    room: usize,
    written: Vec<u8>,
}

impl Write for Tight {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = bytes.len().min(7).min(self.room - self.written.len());
        if n == 0 && !bytes.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        self.written.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_anywhere_is_an_error() {
    let write = |room| -> Result<Tight> {
        let mut writer = FileWriter::new(Tight { room, written: Vec::new() }, "neighbors")?;
        writer.text("meta", r#"{"metric":"euclidean"}"#)?;
        writer.mark_required();
        writer.array("ids", &[3, 2], &[1i64, 2, 0, 2, 1, -1])?;
        writer.mark_required();
        writer.array("distances", &[3, 2], &[1.0f32, 2.0, 1.0, 3.0, 2.0, f32::INFINITY])?;
        writer.mark_required();
        writer.finish()
    };
    let file = tiny();
    for room in 0..file.len() {
        assert!(matches!(write(room), Err(Error::Io { .. })), "{room}");
    }
    assert_eq!(write(file.len()).unwrap().written, file);
}

#[test]
fn verification_can_be_stopped() {
    let view = open(&varied(), None).unwrap();
    let mut n_bytes = 0;
    view.verify_with(&mut |n| {
        n_bytes += n;
        Ok(())
    })
    .unwrap();
    assert_eq!(n_bytes, view.sections().iter().map(|section| section.n_bytes()).sum::<u64>());
    assert!(matches!(view.verify_with(&mut |_| Err(Error::Cancelled)), Err(Error::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_comes_back(
        kind in "[a-zA-Z0-9_./-]{1,16}",
        sections in prop::collection::btree_map(
            "[a-zA-Z0-9_./-]{1,32}",
            (0..13usize, prop::collection::vec(0..6u64, 0..=4), any::<u64>(), any::<bool>()),
            0..12,
        ),
    ) {
        let mut writer = FileWriter::new(Vec::new(), &kind).unwrap();
        let mut expected = Vec::new();
        for (name, (dtype, shape, seed, required)) in &sections {
            let dtype = Dtype::ALL[*dtype];
            let n_bytes = shape.iter().product::<u64>() as usize * dtype.size();
            let mut random = Random(*seed);
            let bytes: Vec<u8> = (0..n_bytes).map(|_| random.next() as u8).collect();
            writer.section(name, dtype, shape, |out| bytes.chunks(13).try_for_each(|part| out.write_all(part))).unwrap();
            if *required {
                writer.mark_required();
            }
            expected.push(bytes);
        }
        let file = writer.finish().unwrap();
        let view = open_and_verify(&file).unwrap();
        prop_assert_eq!(view.kind(), kind);
        prop_assert_eq!(view.sections().len(), sections.len());
        for ((name, (dtype, shape, _, required)), bytes) in sections.iter().zip(&expected) {
            let section = view.section(name).unwrap();
            prop_assert_eq!(section.dtype(), Dtype::ALL[*dtype]);
            prop_assert_eq!(section.shape(), &shape[..]);
            prop_assert_eq!(section.is_required(), *required);
            prop_assert_eq!(view.bytes_of(section), &bytes[..]);
        }
        prop_assert_eq!(view.section("no such name"), None);
    }
}
