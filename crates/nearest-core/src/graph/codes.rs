//! Rows as short codes that lie where their numbers say, and queries made ready for them.
//!
//! As in lists (`lists/coding.rs`), the nearer a row the higher its score `S = s (t Σ v (u − z) + bias / s)`; all rows are
//! coded relative to the centre of the frame. A walk sorts by `−S`.

use std::sync::Arc;

use nearest_kernels::{CodeQuery, Kernels, Rows, prefetch};

use crate::coder::ShortEncoding;
use crate::column::{CHUNK_ROWS, Column, Row};
use crate::error::{Error, Result};
use crate::kmeans::Points;
use crate::lists::{self, Codec, CodedQueries, Coding, CodingScratch, Second};
use crate::work::Work;

/// Terms of a row: its scale and its bias.
pub const N_TERMS: usize = 2;
/// Rows coded by one task.
const ROWS: usize = 128;

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

    /// Rows that lie side by side.
    pub fn of(rows: &'a [T], width: usize) -> Self {
        Self { chunks: rows.chunks(CHUNK_ROWS * width).collect(), width }
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
    /// How they are coded a second time, to be compared again.
    pub second: Option<Arc<Second>>,
    /// The codes.
    pub codes: Column<u8>,
    /// Scale and bias of each.
    pub terms: Column<f32>,
}

/// Rows that were coded.
#[derive(Debug, Default)]
pub struct Coded {
    /// Codes, side by side.
    pub codes: Vec<u8>,
    /// Scale and bias of each.
    pub terms: Vec<f32>,
    /// Second codes, if there are any.
    pub kept: Vec<u8>,
}

impl Coded {
    /// Takes over others, which come after these.
    pub fn append(&mut self, other: Coded) {
        self.codes.extend(other.codes);
        self.terms.extend(other.terms);
        self.kept.extend(other.kept);
    }
}

impl Codes {
    /// No rows yet; trained on a sample.
    pub fn train<P: Points>(sample: &P, plan: &lists::Plan, work: &Work<'_>) -> Result<Self> {
        let trained = lists::train(sample, &lists::Plan { n_lists: 1, spill: 0.0, ..*plan }, work)?;
        Ok(Self::new(trained.coding, trained.second))
    }

    /// No rows yet.
    pub fn new(coding: Arc<Coding>, second: Option<Arc<Second>>) -> Self {
        let (codes, terms) = (Column::new(coding.code_bytes(), CHUNK_ROWS), Column::new(N_TERMS, CHUNK_ROWS));
        Self { coding, second, codes, terms }
    }

    /// The same without rows.
    pub fn without_rows(&self) -> Self {
        Self::new(self.coding.clone(), self.second.clone())
    }

    /// Bytes that are kept of a row beside, where vectors are not kept as they are: its second code, or else its code.
    pub fn kept_bytes(&self) -> usize {
        self.second.as_ref().map_or(self.codes.width(), |second| second.kept_bytes())
    }

    /// The row after the last, as far as chunks go.
    pub fn rows_end(&self) -> usize {
        let n_chunks = self.codes.n_chunks();
        n_chunks.checked_sub(1).map_or(0, |last| last * CHUNK_ROWS + self.codes.rows_in(last))
    }

    /// Codes rows.
    pub fn code<P: Points>(&self, rows: &P, work: &Work<'_>) -> Result<Coded> {
        let dim = rows.dim();
        let parts = work.map("coding vectors", rows.len().div_ceil(ROWS), Worker::default, |worker, i| {
            let range = i * ROWS..rows.len().min((i + 1) * ROWS);
            worker.values.resize(range.len() * dim, 0.0);
            rows.read(range, &mut worker.values);
            Ok(self.code_part(worker))
        })?;
        let mut coded = Coded::default();
        parts.into_iter().for_each(|part| coded.append(part));
        Ok(coded)
    }

    fn code_part(&self, worker: &mut Worker) -> Coded {
        let kernels = Kernels::best();
        let (coding, dim) = (&self.coding, self.coding.dim());
        let Worker { values, framed, spare, zeros, bytes, scratch } = worker;
        framed.resize(dim, 0.0);
        zeros.resize(dim, 0.0);
        let mut coded = Coded::default();
        for row in values.chunks_exact(dim) {
            coding.frame().row(kernels, row, spare, framed);
            let at = coded.codes.len();
            coded.codes.resize(at + coding.code_bytes(), 0);
            let code = &mut coded.codes[at..];
            let mut native = |byte: fn(f32) -> u8| {
                bytes.clear();
                bytes.extend(row.iter().map(|&x| byte(x)));
                coding.encode_native(kernels, bytes, 0, code)
            };
            let term = match coding.codec() {
                Codec::UInt8 => native(|x| x as u8),
                Codec::Int8 => native(|x| x as i8 as u8),
                Codec::Short(_) => coding.encode(kernels, framed, zeros, 0, code, scratch),
            };
            coded.terms.extend([term.scale, term.bias]);
            if let Some(second) = &self.second {
                second.keep(kernels, framed, &mut coded.kept, scratch);
            }
        }
        coded
    }

    /// What a row stands for as far as its code tells, in the frame.
    pub fn decode(&self, row: Row, out: &mut [f32]) {
        let code = self.codes.row(row);
        match self.coding.codec() {
            Codec::UInt8 => out.iter_mut().zip(code).for_each(|(out, &u)| *out = f32::from(u)),
            Codec::Int8 => out.iter_mut().zip(code).for_each(|(out, &u)| *out = f32::from((u ^ 0x80) as i8)),
            Codec::Short(coder) => coder.decode(code, self.terms.row(row)[0], out),
        }
    }

    /// Bits a component.
    pub fn bits(&self) -> u32 {
        match self.coding.codec() {
            Codec::UInt8 | Codec::Int8 => 8,
            Codec::Short(coder) if coder.is_identity() => 8,
            Codec::Short(_) => 4,
        }
    }
}

/// Whether rows can be compared by codes of this encoding where they lie.
pub fn check_encoding(encoding: ShortEncoding) -> Result<()> {
    match encoding {
        ShortEncoding::Scalar8 | ShortEncoding::Scalar4 => Ok(()),
        _ => Err(Error::NotImplemented(format!(
            "a graph of {} codes; scalar8, scalar4 and all encodings that keep numbers as they are go with it",
            encoding.name()
        ))),
    }
}

/// Buffers of one worker that codes rows.
#[derive(Debug, Default)]
struct Worker {
    values: Vec<f32>,
    framed: Vec<f32>,
    spare: Vec<f32>,
    zeros: Vec<f32>,
    bytes: Vec<u8>,
    scratch: CodingScratch,
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
    /// What one unit of the sums is worth, and of the biases.
    unit: f32,
    bias_unit: f32,
    /// Whether rows are compared with `bytes`.
    is_native: bool,
}

impl Query {
    /// Takes over the one query that was coded for rows of so many bits.
    pub fn set(&mut self, bits: u32, dim: usize, coded: &CodedQueries) {
        self.codes.set(bits, &coded.codes[..dim]);
        self.start = coded.start[0];
        self.shift = u32::from(bits < 8);
        self.unit = coded.unit[0];
        self.bias_unit = coded.unit[0] * coded.weight[0];
        self.is_native = false;
    }

    /// Takes over a query of whole numbers, to be compared with rows of uint8 as they are: their squared distances are exact,
    /// and need no terms.
    pub fn set_integers(&mut self, values: &[f32]) {
        self.bytes.clear();
        self.bytes.extend(values.iter().map(|&value| value as u8));
        self.is_native = true;
    }

    /// Whether it is compared with rows of uint8 as they are.
    pub fn is_native(&self) -> bool {
        self.is_native
    }

    /// Appends distances of rows with these codes and terms.
    #[inline(always)]
    pub fn distances<'a>(
        &self,
        kernels: &Kernels,
        codes: &[&[u8]],
        terms: impl Iterator<Item = &'a [f32]>,
        sums: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        sums.clear();
        sums.resize(codes.len(), 0);
        if self.is_native {
            kernels.sqeuclidean::<u8>(&self.bytes, Rows::Scattered(codes), sums);
            out.extend(sums.iter().map(|&sum| sum as f32));
        } else {
            kernels.code_sums(&self.codes, codes, sums);
            out.extend(sums.iter().zip(terms).map(|(&sum, terms)| self.distance(sum, terms)));
        }
    }

    /// The distance of a row with such a sum and terms.
    #[inline(always)]
    fn distance(&self, sum: i32, terms: &[f32]) -> f32 {
        let sum = self.start + (sum << self.shift);
        -(self.unit * terms[0] * sum as f32 + self.bias_unit * terms[1])
    }
}

/// What walks read of the codes.
#[derive(Debug)]
pub struct Reader<'a> {
    kernels: &'static Kernels,
    codes: Chunks<'a, u8>,
    terms: Chunks<'a, f32>,
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
        Self { kernels, codes: Chunks::new(&codes.codes), terms: Chunks::new(&codes.terms) }
    }

    /// Code and terms of a row.
    pub fn row(&self, row: Row) -> (&'a [u8], &'a [f32]) {
        (self.codes.row(row), self.terms.row(row))
    }

    /// Asks for rows that a query will be compared with.
    #[inline(always)]
    pub fn ask(&self, query: &Query, rows: &[Row]) {
        for &row in rows {
            prefetch(self.codes.row(row));
            if !query.is_native {
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
        distances.clear();
        let terms = rows.iter().map(|&row| self.terms.row(row));
        query.distances(self.kernels, codes, terms, sums, distances);
    }
}
