//! Distances between rows, for building: squared and Euclidean, from codes of 8 bits.
//!
//! A row stands for `scale · (u − 128)`; norms are those of what it stands for, so that copies are at distance 0 and what is
//! compared are distances of points that exist.

use nearest_kernels::{CodeQuery, Kernels};

use crate::column::Row;

/// Rows of 8 bits, side by side.
#[derive(Debug)]
pub struct Pairs {
    dim: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    /// `‖x‖²`.
    norms: Vec<f32>,
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    query: CodeQuery,
    signed: Vec<i8>,
    sums: Vec<i32>,
}

impl Pairs {
    /// Rows of codes with their scales.
    pub fn new(dim: usize, codes: Vec<u8>, scales: Vec<f32>) -> Self {
        let norm = |(row, &scale): (&[u8], &f32)| {
            let squares: i32 = row.iter().map(|&u| (i32::from(u) - 128).pow(2)).sum();
            (f64::from(squares) * f64::from(scale) * f64::from(scale)) as f32
        };
        let norms = codes.chunks_exact(dim).zip(&scales).map(norm).collect();
        Self { dim, codes, scales, norms }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// The bytes of a row.
    pub fn code(&self, row: Row) -> &[u8] {
        &self.codes[row as usize * self.dim..][..self.dim]
    }

    /// Squared distances between a row and others.
    pub fn distances(
        &self,
        kernels: &Kernels,
        row: Row,
        others: &[Row],
        scratch: &mut Scratch,
        out: &mut Vec<f32>,
    ) {
        let Scratch { query, signed, sums } = scratch;
        signed.clear();
        signed.extend(self.code(row).iter().map(|&u| (u ^ 0x80) as i8));
        query.set(8, signed);
        let rows: Vec<&[u8]> = others.iter().map(|&other| self.code(other)).collect();
        sums.clear();
        sums.resize(rows.len(), 0);
        kernels.code_sums(query, &rows, sums);
        let start = -128 * query.sum();
        let (scale, norm) = (self.scales[row as usize], self.norms[row as usize]);
        out.clear();
        out.extend(others.iter().zip(&*sums).map(|(&other, sum)| {
            let other = other as usize;
            let dot = scale * self.scales[other] * (sum + start) as f32;
            (norm + self.norms[other] - 2.0 * dot).max(0.0)
        }));
    }
}
