//! Rows as short codes that lie where their numbers say, and queries made ready for them.
//!
//! As in lists (`lists/coding.rs`), the nearer a row the higher its score `S = s (t Σ v (u − z) + bias / s)`; all rows are
//! coded relative to the centre of the frame. A walk sorts by `−S`.

use std::sync::Arc;

use nearest_kernels::{CodeQuery, Kernels, Rows, prefetch};

use crate::column::{CHUNK_ROWS, Column, Row};
use crate::lists::{Codec, Coding};

/// Rows of a column, found without looking into it.
#[derive(Debug)]
pub struct Chunks<'a, T> {
    chunks: Vec<&'a [T]>,
    width: usize,
}

impl<'a, T: bytemuck::Pod> Chunks<'a, T> {
    /// All rows of a column whose chunks have [`CHUNK_ROWS`].
    pub fn new(column: &'a Column<T>) -> Self {
        Self { chunks: (0..column.n_chunks()).map(|i| column.chunk(i)).collect(), width: column.width() }
    }

    /// One row that is there.
    #[inline(always)]
    pub fn row(&self, row: Row) -> &'a [T] {
        let at = row as usize % CHUNK_ROWS * self.width;
        &self.chunks[row as usize / CHUNK_ROWS][at..at + self.width]
    }
}

/// Rows of one version: codes and terms.
#[derive(Clone, Debug)]
pub struct Codes {
    /// How they are coded.
    pub coding: Arc<Coding>,
    /// The codes.
    pub codes: Column<u8>,
    /// Scale and bias of each.
    pub terms: Column<f32>,
}

impl Codes {
    /// Bits a component.
    pub fn bits(&self) -> u32 {
        match self.coding.codec() {
            Codec::UInt8 | Codec::Int8 => 8,
            Codec::Short(coder) if coder.is_identity() => 8,
            Codec::Short(_) => 4,
        }
    }
}

/// A query made ready.
#[derive(Debug, Default)]
pub struct Query {
    /// The query itself, where rows are integers that it can be compared with.
    bytes: Vec<u8>,
    codes: CodeQuery,
    /// What sums start from.
    start: i32,
    /// By how much sums are shifted.
    shift: u32,
    /// What one unit of the sums is worth.
    unit: f32,
}

impl Query {
    /// Takes over a query that was coded for rows of so many bits.
    pub fn set(&mut self, bits: u32, codes: &[i8], start: i32, unit: f32) {
        self.codes.set(bits, codes);
        self.start = start;
        self.shift = u32::from(bits < 8);
        self.unit = unit;
    }

    /// Takes over a query of whole numbers, to be compared with rows of uint8 as they are: their squared distances are exact,
    /// and need no terms.
    pub fn set_integers(&mut self, values: &[f32]) {
        self.bytes.clear();
        self.bytes.extend(values.iter().map(|&value| value as u8));
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.codes.row_bytes()
    }

    /// Sums of rows of codes.
    pub fn sums(&self, kernels: &Kernels, rows: &[&[u8]], sums: &mut [i32]) {
        kernels.code_sums(&self.codes, rows, sums);
    }

    /// The distance of a row with such a sum and terms.
    #[inline(always)]
    pub fn distance(&self, sum: i32, terms: &[f32; 2]) -> f32 {
        let sum = self.start + (sum << self.shift);
        -(self.unit * terms[0] * sum as f32 + terms[1])
    }
}

/// What walks read of the codes.
#[derive(Debug)]
pub struct Reader<'a> {
    kernels: &'static Kernels,
    codes: Chunks<'a, u8>,
    terms: Chunks<'a, f32>,
    native: bool,
}

/// Buffers for distances.
#[derive(Debug, Default)]
pub struct Buffers<'a> {
    codes: Vec<&'a [u8]>,
    sums: Vec<i32>,
    /// The distances of the rows that were looked at last.
    pub distances: Vec<f32>,
}

impl<'a> Reader<'a> {
    /// Reads codes.
    pub fn new(kernels: &'static Kernels, codes: &'a Codes) -> Self {
        let native = matches!(codes.coding.codec(), Codec::UInt8);
        Self { kernels, codes: Chunks::new(&codes.codes), terms: Chunks::new(&codes.terms), native }
    }

    /// Code and terms of a row.
    pub fn row(&self, row: Row) -> (&'a [u8], &'a [f32]) {
        (self.codes.row(row), self.terms.row(row))
    }

    /// Asks for rows.
    #[inline(always)]
    pub fn ask(&self, rows: &[Row]) {
        for &row in rows {
            prefetch(self.codes.row(row));
            if !self.native {
                prefetch(self.terms.row(row));
            }
        }
    }

    /// Looks at rows: leaves their distances in the buffers.
    #[inline(always)]
    pub fn distances(&self, query: &Query, rows: &[Row], buffers: &mut Buffers<'a>) {
        let Buffers { codes, sums, distances } = buffers;
        codes.clear();
        codes.extend(rows.iter().map(|&row| self.codes.row(row)));
        sums.clear();
        sums.resize(rows.len(), 0);
        distances.clear();
        if self.native {
            self.kernels.sqeuclidean::<u8>(&query.bytes, Rows::Scattered(codes), sums);
            distances.extend(sums.iter().map(|&sum| sum as f32));
        } else {
            query.sums(self.kernels, codes, sums);
            distances.extend(rows.iter().zip(sums).map(|(&row, sum)| {
                query.distance(*sum, self.terms.row(row).first_chunk().expect("two terms"))
            }));
        }
    }
}
