//! What the fuzz targets share: the container of docs/format.md taken apart, put together and given right checksums
//! (nothing of it from `nearest_core::file`, which it is to try), and files that are maps without a name.
#![allow(missing_docs)]

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use nearest_core::memory::Bytes;

const ALIGNMENT: usize = 64;
const ENTRY: usize = 96;
const END: usize = 64;

/// One section of a container.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: [u8; 32],
    pub dtype: u8,
    pub n_dims: u8,
    pub flags: u16,
    pub dims: [u64; 4],
    pub data: Vec<u8>,
}

impl Part {
    /// Bytes of one row: of all dimensions but the first.
    fn row_bytes(&self) -> usize {
        const SIZES: [usize; 14] = [1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8, 1];
        let size = SIZES.get(usize::from(self.dtype)).copied().unwrap_or(1);
        let rest = self.dims[1..].iter().take(usize::from(self.n_dims).saturating_sub(1));
        rest.fold(size, |n, &dim| n.saturating_mul(dim.max(1) as usize)).max(1)
    }

    /// Makes the shape tell the truth about the data, by way of the first dimension.
    pub fn fit(&mut self) {
        let row = self.row_bytes();
        self.data.truncate(self.data.len() / row * row);
        if self.n_dims > 0 {
            self.dims[0] = (self.data.len() / row) as u64;
        }
    }

    /// Makes the data as long as the shape says, if that is not long.
    pub fn fill(&mut self) {
        let n = self.row_bytes().saturating_mul(if self.n_dims > 0 { self.dims[0] as usize } else { 1 });
        if n <= 1 << 17 {
            self.data.resize(n, 1);
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn put(bytes: &mut [u8], at: usize, checksum: u32) {
    bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// The kind and the sections, as far as they can be made out.
pub fn parse(file: &[u8]) -> Option<([u8; 16], Vec<Part>)> {
    let trailer = file.len().checked_sub(END).filter(|&at| at >= 64)?;
    let (at, n) = (u64_at(file, trailer) as usize, u32_at(file, trailer + 24) as usize);
    let table = file.get(at..at.checked_add(n.checked_mul(ENTRY)?)?)?;
    let mut parts = Vec::new();
    for entry in table.chunks_exact(ENTRY) {
        let (offset, n_bytes) = (u64_at(entry, 40) as usize, u64_at(entry, 48) as usize);
        parts.push(Part {
            name: entry[..32].try_into().expect("32 bytes"),
            dtype: entry[32],
            n_dims: entry[33],
            flags: u16::from_le_bytes([entry[34], entry[35]]),
            dims: std::array::from_fn(|i| u64_at(entry, 56 + 8 * i)),
            data: file.get(offset..offset.checked_add(n_bytes)?)?.to_vec(),
        });
    }
    Some((file[16..32].try_into().expect("16 bytes"), parts))
}

/// A file of these sections; all its checksums are right.
pub fn build(kind: &[u8; 16], parts: &[Part]) -> Vec<u8> {
    let mut file = b"\x89NEAR\r\n\x1a\x01\0\0\0\0\0\0\0".to_vec();
    file.extend_from_slice(kind);
    file.resize(64, 0);
    let checksum = crc32fast::hash(&file[..60]);
    put(&mut file, 60, checksum);
    let mut table = Vec::new();
    for part in parts {
        let mut entry = [0; ENTRY];
        entry[..32].copy_from_slice(&part.name);
        entry[32..34].copy_from_slice(&[part.dtype, part.n_dims]);
        entry[34..36].copy_from_slice(&part.flags.to_le_bytes());
        put(&mut entry, 36, crc32fast::hash(&part.data));
        entry[40..48].copy_from_slice(&(file.len() as u64).to_le_bytes());
        entry[48..56].copy_from_slice(&(part.data.len() as u64).to_le_bytes());
        for (i, dim) in part.dims.iter().enumerate() {
            entry[56 + 8 * i..64 + 8 * i].copy_from_slice(&dim.to_le_bytes());
        }
        table.extend_from_slice(&entry);
        file.extend_from_slice(&part.data);
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    }
    let mut end = [0; END];
    end[..8].copy_from_slice(&(file.len() as u64).to_le_bytes());
    end[8..16].copy_from_slice(&(table.len() as u64).to_le_bytes());
    end[24..28].copy_from_slice(&(parts.len() as u32).to_le_bytes());
    put(&mut end, 28, crc32fast::hash(&table));
    end[32..40].copy_from_slice(b"NEAR-END");
    file.extend_from_slice(&table);
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    end[16..24].copy_from_slice(&((file.len() + END) as u64).to_le_bytes());
    let checksum = crc32fast::hash(&end[..60]);
    put(&mut end, 60, checksum);
    file.extend_from_slice(&end);
    file
}

/// Makes all checksums right that can be found, and changes nothing else.
pub fn repair(file: &mut [u8]) {
    let Some(trailer) = file.len().checked_sub(END).filter(|&at| at >= 64) else { return };
    let (at, n_bytes) = (u64_at(file, trailer) as usize, u64_at(file, trailer + 8) as usize);
    if at.checked_add(n_bytes).is_some_and(|end| end <= trailer) {
        for entry in (at..at + n_bytes / ENTRY * ENTRY).step_by(ENTRY) {
            let (offset, n_bytes) = (u64_at(file, entry + 40) as usize, u64_at(file, entry + 48) as usize);
            let end = offset.checked_add(n_bytes).filter(|&end| end <= file.len());
            if let Some(checksum) = end.map(|end| crc32fast::hash(&file[offset..end])) {
                put(file, entry + 36, checksum);
            }
        }
        let checksum = crc32fast::hash(&file[at..at + n_bytes]);
        put(file, trailer + 28, checksum);
    }
    for start in [0, trailer] {
        let checksum = crc32fast::hash(&file[start..start + 60]);
        put(file, start + 60, checksum);
    }
}

/// The bytes as a map of a file without a name: what is opened by map is checked less at first.
pub fn mapped(bytes: &[u8]) -> Bytes {
    // SAFETY: the name is a C string; the descriptor is new, and the file owns it.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"fuzz".as_ptr(), 0);
        assert!(descriptor >= 0, "no file in memory");
        File::from_raw_fd(descriptor)
    };
    file.write_all(bytes).expect("room in memory");
    Bytes::map(&file).expect("a map")
}

/// Numbers from a seed: the generator of Steele, Lea and Flood (2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}
