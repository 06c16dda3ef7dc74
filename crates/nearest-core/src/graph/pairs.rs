//! Distances between rows, for building, from the codes that are walked along.
//!
//! Distances are squared and Euclidean, of what rows stand for as walks see them: so copies are at distance 0, and what is
//! compared are distances of points that exist. Under inner products, where a row is linked to those that it would find as a
//! query (Morozov and Babenko 2018), they are what the inner product is below the largest that there may be.

use nearest_kernels::{CodeQuery, CodeSums, Kernels, prefetch};

use super::codes::{Codes, Reader};
use crate::column::Row;
use crate::error::Result;
use crate::metric::Metric;
use crate::work::Work;

/// Rows that one task moves.
const MOVED_ROWS: usize = 256;

/// Rows numbered from 0.
#[derive(Debug)]
pub struct Pairs<'a> {
    bits: u32,
    dim: usize,
    rows: Vec<Coded<'a>>,
    /// Under inner products, added up for two rows: what makes their product that of the vectors out of the frame, and turns
    /// it round.
    moved: Option<Vec<f32>>,
}

/// A row: its code, and what a level is worth.
#[derive(Clone, Copy, Debug)]
struct Coded<'a> {
    code: &'a [u8],
    scale: f32,
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch<'a> {
    query: CodeQuery,
    codes: Vec<&'a [u8]>,
    scales: Vec<f32>,
    sums: Vec<CodeSums>,
}

impl<'a> Pairs<'a> {
    /// These rows, numbered from 0.
    pub fn new(codes: &'a Codes, rows: &[Row], work: &Work<'_>) -> Result<Self> {
        let (reader, unit) = (Reader::new(Kernels::best(), codes), codes.unit());
        let coded = |&row: &Row| Coded { code: reader.code(row), scale: unit * reader.scale(row) };
        let (bits, dim) = (codes.bits, codes.coding.dim());
        let mut pairs = Self { bits, dim, rows: rows.iter().map(coded).collect(), moved: None };
        if codes.coding.frame().metric() == Metric::InnerProduct {
            pairs.moved = Some(pairs.moved(codes, rows, work)?);
        }
        Ok(pairs)
    }

    /// What is added for each row, so that distances are inner products from the largest down.
    fn moved(&self, codes: &Codes, rows: &[Row], work: &Work<'_>) -> Result<Vec<f32>> {
        let (kernels, centre) = (Kernels::best(), codes.coding.frame().turned_centre());
        let squared = kernels.canonical_squared_norm(centre);
        // (x + c)·(y + c) = x·y + (x·c + c·c / 2) + (y·c + c·c / 2).
        let parts = work.map(
            "linking",
            rows.len().div_ceil(MOVED_ROWS),
            || vec![0.0; self.dim],
            |framed, i| {
                let rows = &rows[i * MOVED_ROWS..rows.len().min((i + 1) * MOVED_ROWS)];
                let mut longest = 0.0f64;
                let mut moved = Vec::with_capacity(rows.len());
                for &row in rows {
                    codes.decode(row, framed);
                    longest = longest.max(kernels.canonical_squared_norm(&framed[..]));
                    moved.push(kernels.canonical_dot(framed, centre) + squared / 2.0);
                }
                Ok((longest, moved))
            },
        )?;
        let longest = parts.iter().fold(0.0f64, |longest, part| longest.max(part.0));
        let largest = (longest.sqrt() + squared.sqrt()).powi(2);
        Ok(parts.into_iter().flat_map(|part| part.1).map(|moved| (largest / 2.0 - moved) as f32).collect())
    }

    /// Whether distances are what inner products are below the largest.
    pub fn is_product(&self) -> bool {
        self.moved.is_some()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Asks for rows that will be compared.
    pub fn ask(&self, rows: &[Row]) {
        rows.iter().for_each(|&row| prefetch(self.rows[row as usize].code));
    }

    /// Distances between a row and others.
    pub fn distances(
        &self,
        kernels: &Kernels,
        row: Row,
        others: &[Row],
        scratch: &mut Scratch<'a>,
        out: &mut Vec<f32>,
    ) {
        let Scratch { query, codes, scales, sums } = scratch;
        let own = self.rows[row as usize];
        query.set_row(self.bits, self.dim, own.code);
        codes.clear();
        scales.clear();
        for &other in others {
            let Coded { code, scale } = self.rows[other as usize];
            codes.push(code);
            scales.push(scale);
        }
        // Last the row itself, whose squares are summed up as those of the others are.
        codes.push(own.code);
        sums.clear();
        sums.resize(codes.len(), CodeSums::default());
        kernels.code_sums(query, codes, sums);
        let squares = |sums: CodeSums| sums.squares(self.bits, self.dim) as f32;
        let square = own.scale * own.scale * squares(sums[others.len()]);
        let sum = query.sum();
        let each = scales.iter().zip(&*sums);
        let product = |scale: f32, sums: CodeSums| own.scale * scale * sums.products(self.bits, sum) as f32;
        out.clear();
        match &self.moved {
            None => out.extend(each.map(|(&scale, &sums)| {
                (square + scale * scale * squares(sums) - 2.0 * product(scale, sums)).max(0.0)
            })),
            Some(moved) => out.extend(each.zip(others).map(|((&scale, &sums), &other)| {
                (moved[row as usize] + moved[other as usize] - product(scale, sums)).max(0.0)
            })),
        }
    }

    /// Rows of bytes, each relative to 128.
    #[cfg(test)]
    pub fn of_bytes(dim: usize, codes: &'a [u8], scale: f32) -> Self {
        let rows = codes.chunks_exact(dim).map(|code| Coded { code, scale }).collect();
        Self { bits: 8, dim, rows, moved: None }
    }
}
