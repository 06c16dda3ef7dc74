//! A query of signed bytes against rows of codes that lie anywhere: what a walk through a graph compares.
//!
//! A row of 8 bits has a byte a component. A row of 4 bits has `w = ⌈dim / 2⌉` bytes, of which byte `k` holds component `k`
//! in its lower half and component `k + w` in its upper one (as the codes of `scalar4` lie). The query is laid out once, in
//! blocks of 64 bytes that lie as the components of 64 bytes of a row do, and filled up with zeros.
//!
//! What a row stands for is relative to the middle of its levels `u`: `2 u − 15` of 4 bits, `u − 128` of 8. So that a distance
//! needs nothing that lies elsewhere, the squares of that are summed too.

use std::ops::Add;

/// Bytes of a block.
const BLOCK: usize = 64;

/// A query, laid out to be compared with rows of codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeQuery {
    bits: u32,
    row_bytes: usize,
    /// 8 bits: a block for 64 bytes of a row; 4 bits: two, for the lower halves and the upper ones.
    blocks: Vec<[i8; BLOCK]>,
    sum: i32,
}

impl CodeQuery {
    /// Lays out a query of as many components as it has codes, for rows of 4 or 8 bits.
    ///
    /// # Panics
    /// Unless there are 4 or 8 bits.
    #[track_caller]
    pub fn set(&mut self, bits: u32, codes: &[i8]) {
        let per_byte = self.make_room(bits, codes.len());
        self.sum = codes.iter().map(|&code| i32::from(code)).sum();
        for (half, codes) in codes.chunks(self.row_bytes.max(1)).enumerate() {
            for (block, codes) in codes.chunks(BLOCK).enumerate() {
                self.blocks[block * per_byte + half][..codes.len()].copy_from_slice(codes);
            }
        }
    }

    /// Lays out what a row of so many components stands for, to compare it with others.
    ///
    /// # Panics
    /// Unless there are 4 or 8 bits, and as many bytes as such a row has.
    #[track_caller]
    pub fn set_row(&mut self, bits: u32, dim: usize, row: &[u8]) {
        let per_byte = self.make_room(bits, dim);
        assert_eq!(row.len(), self.row_bytes, "bytes of a row of {dim} components of {bits} bits");
        let levels: u32 = if bits == 8 {
            for (block, bytes) in self.blocks.iter_mut().zip(row.chunks(BLOCK)) {
                block.iter_mut().zip(bytes).for_each(|(level, &u)| *level = (u ^ 0x80) as i8);
            }
            row.iter().map(|&u| u32::from(u)).sum()
        } else {
            let level = |u: u8| 2 * u as i8 - 15;
            for (blocks, bytes) in self.blocks.chunks_exact_mut(per_byte).zip(row.chunks(BLOCK)) {
                blocks[0].iter_mut().zip(bytes).for_each(|(low, &u)| *low = level(u & 15));
                blocks[1].iter_mut().zip(bytes).for_each(|(high, &u)| *high = level(u >> 4));
            }
            let uppers = &row[..dim - row.len()];
            if uppers.len() < row.len() {
                // Of an odd number of components the last upper half is none.
                self.blocks[uppers.len() / BLOCK * per_byte + 1][uppers.len() % BLOCK] = 0;
            }
            let lower: u32 = row.iter().map(|&u| u32::from(u & 15)).sum();
            lower + uppers.iter().map(|&u| u32::from(u >> 4)).sum::<u32>()
        };
        self.sum =
            if bits == 8 { levels as i32 - 128 * dim as i32 } else { 2 * levels as i32 - 15 * dim as i32 };
    }

    /// Blocks of zeros for so many components; how many of them belong to 64 bytes of a row.
    #[track_caller]
    fn make_room(&mut self, bits: u32, dim: usize) -> usize {
        assert!(bits == 4 || bits == 8, "rows of codes have 4 or 8 bits, got {bits}");
        let per_byte = (8 / bits) as usize;
        self.bits = bits;
        self.row_bytes = dim.div_ceil(per_byte);
        self.blocks.clear();
        self.blocks.resize(self.row_bytes.div_ceil(BLOCK) * per_byte, [0; BLOCK]);
        per_byte
    }

    /// Bits a component of the rows.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// `Σ query`.
    pub fn sum(&self) -> i32 {
        self.sum
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    pub(crate) fn blocks(&self) -> &[[i8; BLOCK]] {
        &self.blocks
    }
}

/// Sums over the levels of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeSums {
    /// `Σ query · u`.
    pub products: i32,
    /// 4 bits: `Σ u (u − 15)`; 8 bits: `Σ u (u − 256)`.
    pub squares: i32,
}

impl CodeSums {
    /// `Σ (2 u − 15)²` or `Σ (u − 128)²` of a row of so many components.
    pub fn squares(self, bits: u32, dim: usize) -> i32 {
        if bits == 4 { 4 * self.squares + 225 * dim as i32 } else { self.squares + (1 << 14) * dim as i32 }
    }

    /// `Σ query · (2 u − 15)` or `Σ query · (u − 128)`, with what the query sums up to.
    pub fn products(self, bits: u32, sum: i32) -> i32 {
        if bits == 4 { 2 * self.products - 15 * sum } else { self.products - 128 * sum }
    }

    /// `Σ query · u` of what [`products`](Self::products) gives.
    pub fn of_products(bits: u32, products: i32, sum: i32) -> i32 {
        if bits == 4 { (products + 15 * sum) / 2 } else { products + 128 * sum }
    }
}

impl Add for CodeSums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { products: self.products + other.products, squares: self.squares + other.squares }
    }
}

/// Sums of each row, exactly.
pub(crate) fn portable(
    bits: u32,
    query: &[[i8; BLOCK]],
    row_bytes: usize,
    rows: &[&[u8]],
    out: &mut [CodeSums],
) {
    for (row, out) in rows.iter().zip(out) {
        let blocks = row[..row_bytes].chunks(BLOCK);
        let none = CodeSums::default();
        *out = if bits == 8 {
            blocks.zip(query).map(|(row, query)| sums(row, query, 256, |byte| byte)).fold(none, Add::add)
        } else {
            let pairs = query.as_chunks::<2>().0;
            let both = |row: &[u8], [low, high]: &[[i8; BLOCK]; 2]| {
                sums(row, low, 15, |byte| byte & 15) + sums(row, high, 15, |byte| byte >> 4)
            };
            blocks.zip(pairs).map(|(row, pair)| both(row, pair)).fold(none, Add::add)
        };
    }
}

#[inline(always)]
fn sums(row: &[u8], query: &[i8; BLOCK], twice_zero: i32, level: impl Fn(u8) -> u8) -> CodeSums {
    let mut sums = CodeSums::default();
    for (&byte, &q) in row.iter().zip(query) {
        let level = i32::from(level(byte));
        sums.products += level * i32::from(q);
        sums.squares += level * (level - twice_zero);
    }
    sums
}
