//! Distances between rows, for building, from the codes that are walked along.
//!
//! A row stands for `x = scale · (u − zero)` in the frame. Distances are squared and Euclidean, with the norms of what rows
//! stand for: so copies are at distance 0, and what is compared are distances of points that exist. Under inner products, where
//! a row is linked to those that it would find as a query (Morozov and Babenko 2018), they are what the inner product is below
//! the largest that there may be.

use nearest_kernels::{CodeQuery, Kernels};

use super::codes::Codes;
use crate::column::Row;
use crate::lists::Codec;
use crate::metric::Metric;

/// Rows numbered from 0.
#[derive(Debug)]
pub struct Pairs<'a> {
    levels: Levels,
    dim: usize,
    codes: Vec<&'a [u8]>,
    scales: Vec<f32>,
    /// Added up for two rows: `‖x‖²`; under inner products what makes their product that of the vectors out of the frame.
    terms: Vec<f32>,
    /// What their product in the frame counts.
    factor: f32,
    /// `Σ u`, where the zero is 0.
    sums: Vec<i32>,
}

/// What the bits of a code say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Levels {
    /// Half bytes; `2 u − 15`.
    Half,
    /// Bytes; `u − 128`.
    Byte,
    /// Bytes; `u`.
    Whole,
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    query: CodeQuery,
    signed: Vec<i8>,
    sums: Vec<i32>,
}

impl<'a> Pairs<'a> {
    /// These rows, numbered from 0.
    pub fn new(codes: &'a Codes, rows: &[Row]) -> Self {
        let metric = codes.coding.frame().metric();
        let levels = match codes.coding.codec() {
            // Vectors that are not scaled have the same distances from any zero.
            Codec::UInt8 if metric.is_angular() || metric == Metric::InnerProduct => Levels::Whole,
            _ if codes.bits() == 8 => Levels::Byte,
            _ => Levels::Half,
        };
        let scales = rows.iter().map(|&row| codes.terms.row(row)[0]).collect();
        let of_rows = rows.iter().map(|&row| codes.codes.row(row)).collect();
        let mut pairs = Self::of(levels, codes.coding.dim(), of_rows, scales);
        if metric == Metric::InnerProduct {
            pairs.take_products(codes, rows);
        }
        pairs
    }

    /// Distances become inner products, from the largest down.
    fn take_products(&mut self, codes: &Codes, rows: &[Row]) {
        let (kernels, centre) = (Kernels::best(), codes.coding.frame().turned_centre());
        let longest = self.terms.iter().copied().fold(0.0, f32::max).sqrt();
        let largest = (f64::from(longest) + kernels.canonical_squared_norm(centre).sqrt()).powi(2);
        let squared = kernels.canonical_squared_norm(centre);
        let mut framed = vec![0.0; self.dim];
        // (x + c)·(y + c) = x·y + (x·c + c·c / 2) + (y·c + c·c / 2).
        for (term, &row) in self.terms.iter_mut().zip(rows) {
            codes.decode(row, &mut framed);
            let moved = kernels.canonical_dot(&framed, centre) + squared / 2.0;
            *term = (largest / 2.0 - moved) as f32;
        }
        self.factor = 1.0;
    }

    fn of(levels: Levels, dim: usize, codes: Vec<&'a [u8]>, scales: Vec<f32>) -> Self {
        let squares = |code: &[u8]| match levels {
            Levels::Half => {
                let level = |half: u8| 2 * i32::from(half) - 15;
                let both = |&u: &u8| level(u & 15).pow(2) + level(u >> 4).pow(2);
                let all: i32 = code.iter().map(both).sum();
                // A half byte that is no component.
                all - if dim.is_multiple_of(2) { 0 } else { level(code[code.len() - 1] >> 4).pow(2) }
            }
            Levels::Byte => code.iter().map(|&u| (i32::from(u) - 128).pow(2)).sum(),
            Levels::Whole => code.iter().map(|&u| i32::from(u).pow(2)).sum(),
        };
        let norm = |(code, &scale): (&&[u8], &f32)| {
            (f64::from(squares(code)) * f64::from(scale) * f64::from(scale)) as f32
        };
        let terms = codes.iter().zip(&scales).map(norm).collect();
        let sum = |code: &&[u8]| code.iter().map(|&u| i32::from(u)).sum();
        let sums = if levels == Levels::Whole { codes.iter().map(sum).collect() } else { Vec::new() };
        Self { levels, dim, codes, scales, terms, factor: 2.0, sums }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Distances between a row and others.
    pub fn distances(
        &self,
        kernels: &Kernels,
        row: Row,
        others: &[Row],
        scratch: &mut Scratch,
        out: &mut Vec<f32>,
    ) {
        let Scratch { query, signed, sums } = scratch;
        let code = self.codes[row as usize];
        signed.clear();
        if self.levels == Levels::Half {
            let level = |half: u8| 2 * half as i8 - 15;
            signed.extend(code.iter().map(|u| level(u & 15)));
            signed.extend(code.iter().take(self.dim - code.len()).map(|u| level(u >> 4)));
            query.set(4, signed);
        } else {
            signed.extend(code.iter().map(|&u| (u ^ 0x80) as i8));
            query.set(8, signed);
        }
        let rows: Vec<&[u8]> = others.iter().map(|&other| self.codes[other as usize]).collect();
        sums.clear();
        sums.resize(rows.len(), 0);
        kernels.code_sums(query, &rows, sums);
        let sum = query.sum();
        let (scale, term) = (self.factor * self.scales[row as usize], self.terms[row as usize]);
        out.clear();
        out.extend(others.iter().zip(&*sums).map(|(&other, &products)| {
            let other = other as usize;
            let products = match self.levels {
                Levels::Half => 2 * products - 15 * sum,
                Levels::Byte => products - 128 * sum,
                Levels::Whole => products + 128 * self.sums[other],
            };
            (term + self.terms[other] - scale * self.scales[other] * products as f32).max(0.0)
        }));
    }

    /// Rows of bytes, each relative to 128.
    #[cfg(test)]
    pub fn of_bytes(dim: usize, codes: &'a [u8], scale: f32) -> Self {
        let rows: Vec<&[u8]> = codes.chunks_exact(dim).collect();
        let n = rows.len();
        Self::of(Levels::Byte, dim, rows, vec![scale; n])
    }
}
