//! Distances between rows, for building, from the codes that are walked along.
//!
//! Distances are squared and Euclidean, of what rows stand for as walks see them: so copies are at distance 0, and what is
//! compared are distances of points that exist. Under inner products, where a row is linked to those that it would find as a
//! query (Morozov and Babenko 2018), they are what the inner product is below the largest that there may be.

use nearest_kernels::{CodeQuery, CodeSums, Kernels, prefetch};

use super::codes::{Codes, Reader};
use crate::column::Row;
use crate::metric::Metric;

/// Rows numbered from 0.
#[derive(Debug)]
pub struct Pairs<'a> {
    bits: u32,
    dim: usize,
    codes: Vec<&'a [u8]>,
    /// What a level is worth.
    scales: Vec<f32>,
    /// Under inner products, added up for two rows: what makes their product that of the vectors out of the frame, and turns
    /// it round.
    moved: Option<Vec<f32>>,
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    query: CodeQuery,
    levels: Vec<i8>,
    sums: Vec<CodeSums>,
}

impl<'a> Pairs<'a> {
    /// These rows, numbered from 0.
    pub fn new(codes: &'a Codes, rows: &[Row]) -> Self {
        let (reader, unit) = (Reader::new(Kernels::best(), codes), codes.unit());
        let mut pairs = Self {
            bits: codes.bits,
            dim: codes.coding.dim(),
            codes: rows.iter().map(|&row| reader.code(row)).collect(),
            scales: rows.iter().map(|&row| unit * reader.scale(row)).collect(),
            moved: None,
        };
        if codes.coding.frame().metric() == Metric::InnerProduct {
            pairs.moved = Some(pairs.moved(codes, rows));
        }
        pairs
    }

    /// What is added for each row, so that distances are inner products from the largest down.
    fn moved(&self, codes: &Codes, rows: &[Row]) -> Vec<f32> {
        let (kernels, centre) = (Kernels::best(), codes.coding.frame().turned_centre());
        let squared = kernels.canonical_squared_norm(centre);
        let mut framed = vec![0.0; self.dim];
        let mut longest = 0.0f64;
        // (x + c)·(y + c) = x·y + (x·c + c·c / 2) + (y·c + c·c / 2).
        let moved: Vec<f64> = rows
            .iter()
            .map(|&row| {
                codes.decode(row, &mut framed);
                longest = longest.max(kernels.canonical_squared_norm(&framed[..]));
                kernels.canonical_dot(&framed, centre) + squared / 2.0
            })
            .collect();
        let largest = (longest.sqrt() + squared.sqrt()).powi(2);
        moved.into_iter().map(|moved| (largest / 2.0 - moved) as f32).collect()
    }

    /// Whether distances are what inner products are below the largest.
    pub fn is_product(&self) -> bool {
        self.moved.is_some()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Asks for rows that will be compared.
    pub fn ask(&self, rows: &[Row]) {
        rows.iter().for_each(|&row| prefetch(self.codes[row as usize]));
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
        let Scratch { query, levels, sums } = scratch;
        let code = self.codes[row as usize];
        levels.clear();
        if self.bits == 4 {
            let level = |half: u8| 2 * half as i8 - 15;
            levels.extend(code.iter().map(|u| level(u & 15)));
            levels.extend(code.iter().take(self.dim - code.len()).map(|u| level(u >> 4)));
        } else {
            levels.extend(code.iter().map(|&u| (u ^ 0x80) as i8));
        }
        query.set(self.bits, levels);
        let rows: Vec<&[u8]> = others.iter().map(|&other| self.codes[other as usize]).collect();
        sums.clear();
        sums.resize(rows.len(), CodeSums::default());
        kernels.code_sums(query, &rows, sums);
        let sum = query.sum();
        let scale = self.scales[row as usize];
        let squares: i32 = levels.iter().map(|&level| i32::from(level).pow(2)).sum();
        let square = scale * scale * squares as f32;
        out.clear();
        out.extend(others.iter().zip(&*sums).map(|(&other, &sums)| {
            let other = other as usize;
            let other_scale = self.scales[other];
            let product = scale * other_scale * sums.products(self.bits, sum) as f32;
            let distance = match &self.moved {
                Some(moved) => moved[row as usize] + moved[other] - product,
                None => {
                    let squares = sums.squares(self.bits, self.dim) as f32;
                    square + other_scale * other_scale * squares - 2.0 * product
                }
            };
            distance.max(0.0)
        }));
    }

    /// Rows of bytes, each relative to 128.
    #[cfg(test)]
    pub fn of_bytes(dim: usize, codes: &'a [u8], scale: f32) -> Self {
        let codes: Vec<&[u8]> = codes.chunks_exact(dim).collect();
        Self { bits: 8, dim, scales: vec![scale; codes.len()], codes, moved: None }
    }
}
