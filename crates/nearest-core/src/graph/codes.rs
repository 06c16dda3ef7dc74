//! Rows as short codes that lie where their numbers say, and queries made ready for them.
//!
//! In the frame a row stands for `x̂ = scale · unit · levels`: levels are `2 u − 15` of half bytes and `u − 128` of bytes, the
//! scale is the row's, the unit that of all. A walk sorts by `‖q̂ − x̂‖² / 2 − ‖q̂‖² / 2`, or by `−q̂·x̂` under inner products,
//! which is what the scores of lists are below 0 (`lists/coding.rs`). All of it comes from the code and two bytes of scale:
//! what else a row had, lying elsewhere, would be one more line of memory for each distance.
//!
//! | codes | what lies in a row | levels that walks read |
//! |---|---|---|
//! | `scalar4` | half bytes | all |
//! | bytes (`scalar8`, integers) | upper halves, then lower halves | the upper halves, each 8 units |
//! | integers that upper halves tell too little of | bytes | bytes |
//!
//! Integers are kept as they are; they have a scale of 1, and are relative to the middle of what they can be.

use std::sync::Arc;

use half::bf16;
use nearest_kernels::{CodeQuery, CodeSums, Kernels, prefetch};

use crate::coder::ShortEncoding;
use crate::column::{CHUNK_ROWS, Column, Row};
use crate::error::{Error, Result};
use crate::kmeans::Points;
use crate::lists::{self, Codec, CodedQueries, Coding, CodingScratch, Frame, Loss, Second};
use crate::metric::Metric;
use crate::work::Work;

/// Rows coded by one task.
const ROWS: usize = 128;
/// Rows that are looked at to see what upper halves tell, and how many are compared with all of them.
const SPLIT_ROWS: usize = 4096;
const COMPARED_ROWS: usize = 64;
/// How many of the rows nearest to each of these are looked at as walks see them.
const NEAR_ROWS: usize = 8;
/// Upper halves are enough to walk by if they blur squared distances of near rows by no more than this part.
const MOST_BLURRED: f64 = 0.06;

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

/// Rows of one version: codes and scales.
#[derive(Clone, Debug)]
pub struct Codes {
    /// How they are coded.
    pub coding: Arc<Coding>,
    /// How that is coded which walks do not see of them, to be compared again.
    pub second: Option<Arc<Second>>,
    /// Bits a component that walks read: 4 or 8.
    pub bits: u32,
    /// The codes.
    pub codes: Column<u8>,
    /// What a unit is worth, of each.
    pub scales: Column<bf16>,
}

/// Rows that were coded.
#[derive(Debug, Default)]
pub struct Coded {
    /// Codes, side by side.
    pub codes: Vec<u8>,
    /// Scale of each.
    pub scales: Vec<bf16>,
    /// Second codes, if there are any.
    pub kept: Vec<u8>,
}

impl Coded {
    /// Takes over others, which come after these.
    pub fn append(&mut self, other: Coded) {
        self.codes.extend(other.codes);
        self.scales.extend(other.scales);
        self.kept.extend(other.kept);
    }
}

/// Bytes of half a component each.
fn half_bytes(dim: usize) -> usize {
    dim.div_ceil(2)
}

impl Codes {
    /// No rows yet; trained on a sample.
    pub fn train<P: Points>(sample: &P, plan: &lists::Plan, work: &Work<'_>) -> Result<Self> {
        let trained = lists::train(sample, &lists::Plan { n_lists: 1, spill: 0.0, ..*plan }, work)?;
        let codes = Self::new(trained.coding, trained.second, 4);
        Ok(if codes.is_half() { codes } else { codes.split(sample) })
    }

    /// No rows yet.
    pub fn new(coding: Arc<Coding>, second: Option<Arc<Second>>, bits: u32) -> Self {
        let dim = coding.dim();
        let width = match (coding.is_bytes(), bits) {
            (false, _) => half_bytes(dim),
            (true, 4) => 2 * half_bytes(dim),
            (true, _) => dim,
        };
        let (codes, scales) = (Column::new(width, CHUNK_ROWS), Column::new(1, CHUNK_ROWS));
        Self { coding, second, bits, codes, scales }
    }

    /// The same without rows.
    pub fn without_rows(&self) -> Self {
        Self::new(self.coding.clone(), self.second.clone(), self.bits)
    }

    /// Codes of bytes, of which walks read the upper halves if these tell enough of rows like those of a sample.
    fn split<P: Points>(self, sample: &P) -> Self {
        let kernels = Kernels::best();
        let (dim, step) = (self.coding.dim(), sample.len().div_ceil(SPLIT_ROWS).max(1));
        let halves = self.with_bits(4, Loss::default());
        let mut worker = Worker::default();
        let (mut row, mut half) = (vec![0.0; dim], vec![0.0; dim]);
        let (mut framed, mut walked) = (Vec::new(), Vec::new());
        for i in (0..sample.len()).step_by(step) {
            sample.read(i..i + 1, &mut row);
            worker.values.clone_from(&row);
            let coded = halves.code_part(&mut worker);
            halves.decode_walked(&coded.codes, coded.scales[0], &mut half);
            framed.extend_from_slice(&worker.framed);
            walked.extend_from_slice(&half);
        }
        let n = (framed.len() / dim).max(1);
        let lost = kernels.canonical_sqeuclidean(&framed[..], &walked[..]) / n as f64;
        let spread = (kernels.canonical_squared_norm(&framed[..]) / n as f64).sqrt() as f32;
        // ‖q − x − e‖² is off by 2 (q − x)·e: by as much as if e went any way, or by more where components lose alike (photos 1.6
        // times as much, patches of 960 pixels 6 times).
        let (mut nearest, mut off, mut n_off) = (Vec::new(), 0.0, 0);
        for one in framed.chunks_exact(dim).step_by(n.div_ceil(COMPARED_ROWS)) {
            let distances = framed.chunks_exact(dim).map(|other| kernels.canonical_sqeuclidean(one, other));
            // Copies are at no distance from each other, and nothing blurs that.
            let mut others: Vec<(f64, usize)> =
                distances.zip(0..).filter(|&(distance, _)| distance > 0.0).collect();
            others.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
            nearest.extend(others.first().map(|other| other.0));
            for &(distance, other) in others.iter().take(NEAR_ROWS) {
                let seen = kernels.canonical_sqeuclidean(one, &walked[other * dim..][..dim]);
                off += (seen - distance - lost).powi(2) / (4.0 * distance);
                n_off += 1;
            }
        }
        nearest.sort_unstable_by(f64::total_cmp);
        let near = nearest.get(nearest.len() / 2).copied().unwrap_or(f64::INFINITY);
        let (any_way, seen) = ((lost / dim as f64).sqrt(), (off / f64::from(n_off.max(1))).sqrt());
        if 2.0 * any_way.max(seen) <= MOST_BLURRED * near.sqrt() {
            // Thrice that is the margin; twice what was seen is enough.
            let error = any_way.max(seen * 2.0 / 3.0) * (dim as f64).sqrt();
            self.with_bits(4, Loss { error: error as f32, spread })
        } else {
            self.with_bits(8, Loss { error: self.coding.loss().error, spread })
        }
    }

    /// The same without rows, read so by walks.
    fn with_bits(&self, bits: u32, loss: Loss) -> Self {
        let coding = &self.coding;
        let (codec, metric) = (coding.codec().clone(), coding.frame().metric());
        let frame = match native_centre(&codec, bits) {
            Some(centre) => Frame::new(Kernels::best(), metric, vec![centre; coding.dim()], None),
            None => coding.frame().clone(),
        };
        Self::new(Arc::new(Coding::new(frame, codec, loss)), self.second.clone(), bits)
    }

    /// Whether all there is of a row are half bytes.
    fn is_half(&self) -> bool {
        !self.coding.is_bytes()
    }

    /// Whether upper halves of bytes lie before lower ones.
    fn is_split(&self) -> bool {
        !self.is_half() && self.bits == 4
    }

    /// Bytes of a row that walks read.
    fn walked_bytes(&self) -> usize {
        if self.bits == 4 { half_bytes(self.coding.dim()) } else { self.coding.dim() }
    }

    /// What a level is worth, of those that walks read, in units of the row's scale.
    pub fn unit(&self) -> f32 {
        if self.is_split() { 8.0 } else { 1.0 }
    }

    /// Whether rows differ in scale.
    pub fn is_scaled(&self) -> bool {
        matches!(self.coding.codec(), Codec::Short(_))
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
        let Worker { values, framed, walked, spare, bytes, scratch } = worker;
        framed.resize(dim, 0.0);
        let mut coded = Coded::default();
        for row in values.chunks_exact(dim) {
            coding.frame().row(kernels, row, spare, framed);
            let at = coded.codes.len();
            coded.codes.resize(at + self.codes.width(), 0);
            let code = &mut coded.codes[at..];
            bytes.resize(dim, 0);
            let scale = match coding.codec() {
                Codec::UInt8 => {
                    bytes.iter_mut().zip(row).for_each(|(byte, &x)| *byte = x as u8);
                    1.0
                }
                Codec::Int8 => {
                    bytes.iter_mut().zip(row).for_each(|(byte, &x)| *byte = x as i8 as u8 ^ 0x80);
                    1.0
                }
                Codec::Short(coder) if self.is_half() => {
                    coder.encode(kernels, framed, code, &mut scratch.coder).scale
                }
                Codec::Short(coder) => coder.encode(kernels, framed, bytes, &mut scratch.coder).scale,
            };
            match (self.is_half(), self.bits) {
                (true, _) => {}
                (false, 4) => split(bytes, code),
                (false, _) => code.copy_from_slice(bytes),
            }
            let scale = bf16::from_f32(scale);
            coded.scales.push(scale);
            if let Some(second) = &self.second {
                walked.resize(dim, 0.0);
                self.decode_walked(&coded.codes[at..], scale, walked);
                let bias = second.bias(kernels, framed) - second.bias(kernels, walked);
                walked.iter_mut().zip(&*framed).for_each(|(left, x)| *left = x - *left);
                second.keep(kernels, walked, bias, &mut coded.kept, scratch);
            }
        }
        coded
    }

    /// The bytes of a code, in the order of components.
    pub fn bytes_of(&self, code: &[u8], out: &mut [u8]) {
        if self.is_split() { join(code, out) } else { out.copy_from_slice(code) }
    }

    /// What a row stands for as far as its code tells, in the frame.
    pub fn decode(&self, row: Row, out: &mut [f32]) {
        let (code, scale) = (self.codes.row(row), self.scales.row(row)[0].to_f32());
        if let (Codec::Short(coder), true) = (self.coding.codec(), self.is_half()) {
            return coder.decode(code, scale, out);
        }
        let mut bytes = vec![0; self.coding.dim()];
        self.bytes_of(code, &mut bytes);
        match self.coding.codec() {
            Codec::Short(coder) => coder.decode(&bytes, scale, out),
            codec => {
                let middle = native_centre(codec, self.bits).expect("integers");
                let zero = if *codec == Codec::Int8 { 128.0 } else { 0.0 } + middle;
                out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = f32::from(byte) - zero);
            }
        }
    }

    /// What a row stands for by its code and by what is kept of it beside, in the frame.
    pub fn decode_whole(&self, row: Row, kept: &[u8], out: &mut [f32]) {
        let Some(second) = &self.second else { return self.decode(row, out) };
        second.decode(kept, out);
        self.walked(self.codes.row(row), self.scales.row(row)[0], out, |out, x| *out += x);
    }

    /// What a row stands for as far as walks see, in the frame.
    fn decode_walked(&self, code: &[u8], scale: bf16, out: &mut [f32]) {
        self.walked(code, scale, out, |out, x| *out = x);
    }

    /// Gives every component of what a row stands for, as far as walks see, to what it is for.
    #[inline(always)]
    fn walked(&self, code: &[u8], scale: bf16, out: &mut [f32], take: impl Fn(&mut f32, f32)) {
        let unit = self.unit() * scale.to_f32();
        if self.bits == 4 {
            let level = |half: u8| unit * f32::from(2 * half as i8 - 15);
            let (first, last) = out.split_at_mut(self.walked_bytes());
            first.iter_mut().zip(code).for_each(|(out, byte)| take(out, level(byte & 15)));
            last.iter_mut().zip(code).for_each(|(out, byte)| take(out, level(byte >> 4)));
        } else {
            out.iter_mut().zip(code).for_each(|(out, byte)| take(out, unit * f32::from((byte ^ 0x80) as i8)));
        }
    }
}

/// What integers are relative to, by their codec and the bits that walks read.
fn native_centre(codec: &Codec, bits: u32) -> Option<f32> {
    // In the middle of a half byte's values there is none of them.
    let below = if bits == 4 { 0.5 } else { 0.0 };
    match codec {
        Codec::UInt8 => Some(128.0 - below),
        Codec::Int8 => Some(-below),
        Codec::Short(_) => None,
    }
}

/// Upper halves of bytes, packed as `scalar4` packs half bytes, then lower ones.
fn split(bytes: &[u8], code: &mut [u8]) {
    let (upper, lower) = code.split_at_mut(half_bytes(bytes.len()));
    let (first, last) = bytes.split_at(upper.len());
    for (i, (upper, lower)) in upper.iter_mut().zip(lower).enumerate() {
        let (a, b) = (first[i], last.get(i).copied().unwrap_or_default());
        (*upper, *lower) = (a >> 4 | b & 0xf0, a & 15 | b << 4);
    }
}

/// The bytes whose halves were split.
fn join(code: &[u8], bytes: &mut [u8]) {
    let (upper, lower) = code.split_at(half_bytes(bytes.len()));
    let (first, last) = bytes.split_at_mut(upper.len());
    for ((byte, upper), lower) in first.iter_mut().zip(upper).zip(lower) {
        *byte = upper << 4 | lower & 15;
    }
    for ((byte, upper), lower) in last.iter_mut().zip(upper).zip(lower) {
        *byte = upper & 0xf0 | lower >> 4;
    }
}

/// Whether rows can be compared by codes of this encoding where they lie.
pub fn check_encoding(encoding: ShortEncoding) -> Result<()> {
    match encoding {
        ShortEncoding::Scalar8 | ShortEncoding::Scalar4 => Ok(()),
        _ => Err(Error::NotImplemented(format!(
            "Graph goes with scalar8, scalar4 and all encodings that keep numbers as they are, got encoding={}",
            encoding.name()
        ))),
    }
}

/// Buffers of one worker that codes rows.
#[derive(Debug, Default)]
struct Worker {
    values: Vec<f32>,
    framed: Vec<f32>,
    walked: Vec<f32>,
    spare: Vec<f32>,
    bytes: Vec<u8>,
    scratch: CodingScratch,
}

/// A query made ready.
#[derive(Debug, Default)]
pub struct Query {
    codes: CodeQuery,
    /// A distance is `−scale · (product · Σ query · u + start) + scale² · (square · Σ u (u − …) + squares)`, with the sums of
    /// [`CodeSums`].
    product: f32,
    start: f32,
    square: f32,
    squares: f32,
    /// Whether rows have scales other than 1.
    is_scaled: bool,
    /// Whether distances are inner products.
    is_product: bool,
    /// `‖q̂‖²`.
    squared: f32,
    /// By how much a distance may be off: at a distance of 1, or of all rows under inner products; and whatever the distance.
    error: f32,
    coarse: f32,
}

impl Query {
    /// Takes over the one query that was coded relative to the centre, for such rows.
    pub fn set(&mut self, codes: &Codes, framed: &[f32], coded: &CodedQueries) {
        let (coding, dim, unit) = (&codes.coding, codes.coding.dim(), coded.unit[0]);
        self.codes.set(codes.bits, &coded.codes[..dim]);
        // Sums started from −128 Σ v.
        let sum = coded.start[0] / -128;
        let none = CodeSums::default();
        let one = CodeSums { products: 1, squares: 1 };
        let of_levels = |sums: CodeSums| sums.products(codes.bits, sum) as f32;
        let level = codes.unit();
        self.start = unit * level * of_levels(none);
        self.product = unit * level * (of_levels(one) - of_levels(none));
        self.is_product = coding.frame().metric() == Metric::InnerProduct;
        let half = if self.is_product { 0.0 } else { level * level / 2.0 };
        self.squares = half * none.squares(codes.bits, dim) as f32;
        self.square = half * (one.squares(codes.bits, 0) as f32);
        self.is_scaled = codes.is_scaled();
        self.squared = framed.iter().map(|x| x * x).sum();
        let loss = coding.loss();
        self.error = 3.0 * loss.error / (dim as f32).sqrt();
        // A component of the query is off by √1/12 of a unit.
        self.coarse = 3.0 * 0.29 * unit * loss.spread;
    }

    /// `‖q̂‖²`, where twice a distance and this are a squared distance.
    pub fn squared(&self) -> Option<f32> {
        (!self.is_product).then_some(self.squared)
    }

    /// By how much a distance like this one is rarely off: thrice what coding usually costs. What rows lose meets only where they
    /// are from the query, or all of the query under inner products.
    pub fn margin(&self, distance: f32) -> f32 {
        let squared = if self.is_product { self.squared } else { 2.0 * distance + self.squared };
        self.error * squared.max(0.0).sqrt() + self.coarse
    }

    /// Leaves distances of rows with these codes and scales.
    #[inline(always)]
    pub fn distances(
        &self,
        kernels: &Kernels,
        codes: &[&[u8]],
        scales: impl Iterator<Item = f32>,
        sums: &mut Vec<CodeSums>,
        out: &mut Vec<f32>,
    ) {
        sums.clear();
        sums.resize(codes.len(), CodeSums::default());
        kernels.code_sums(&self.codes, codes, sums);
        out.clear();
        out.extend(sums.iter().zip(scales).map(|(&sums, scale)| self.distance(sums, scale)));
    }

    /// What a unit of its products with a row's levels is worth, in units of the row's scale.
    pub fn unit(&self) -> f32 {
        if self.codes.bits() == 4 { self.product / 2.0 } else { self.product }
    }

    /// `‖q̂‖²`.
    pub fn squared_norm(&self) -> f32 {
        self.squared
    }

    /// The distance of a row with such sums and scale.
    #[inline(always)]
    pub fn distance(&self, sums: CodeSums, scale: f32) -> f32 {
        let product = self.product * sums.products as f32 + self.start;
        let square = self.square * sums.squares as f32 + self.squares;
        let distance = scale * (scale * square - product);
        // What float32 cannot hold is far.
        if distance < f32::INFINITY { distance } else { f32::INFINITY }
    }
}

/// What walks read of the codes.
#[derive(Debug)]
pub struct Reader<'a> {
    kernels: &'static Kernels,
    codes: Chunks<'a, u8>,
    /// Bytes of each that are read.
    n_bytes: usize,
    scales: Chunks<'a, bf16>,
}

/// Buffers for distances.
#[derive(Debug, Default)]
pub struct Buffers<'a> {
    codes: Vec<&'a [u8]>,
    sums: Vec<CodeSums>,
    /// The distances of the rows that were looked at last.
    pub distances: Vec<f32>,
}

impl<'a> Reader<'a> {
    /// Reads codes.
    pub fn new(kernels: &'static Kernels, codes: &'a Codes) -> Self {
        let n_bytes = codes.walked_bytes();
        Self { kernels, codes: Chunks::new(&codes.codes), n_bytes, scales: Chunks::new(&codes.scales) }
    }

    /// What is read of a row.
    #[inline(always)]
    pub fn code(&self, row: Row) -> &'a [u8] {
        &self.codes.row(row)[..self.n_bytes]
    }

    /// The scale of a row.
    #[inline(always)]
    pub fn scale(&self, row: Row) -> f32 {
        self.scales.row(row)[0].to_f32()
    }

    /// Asks for rows that a query will be compared with.
    #[inline(always)]
    pub fn ask(&self, query: &Query, rows: &[Row]) {
        for &row in rows {
            prefetch(self.code(row));
            if query.is_scaled {
                prefetch(self.scales.row(row));
            }
        }
    }

    /// Looks at rows: leaves their distances in the buffers.
    #[inline(always)]
    pub fn distances(&self, query: &Query, rows: &[Row], buffers: &mut Buffers<'a>) {
        let Buffers { codes, sums, distances } = buffers;
        codes.clear();
        codes.extend(rows.iter().map(|&row| self.code(row)));
        if query.is_scaled {
            let scales = rows.iter().map(|&row| self.scale(row));
            query.distances(self.kernels, codes, scales, sums, distances);
        } else {
            query.distances(self.kernels, codes, rows.iter().map(|_| 1.0), sums, distances);
        }
    }
}
