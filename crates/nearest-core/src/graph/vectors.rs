//! Vectors of rows, as building reads them.

use std::sync::{Mutex, PoisonError};

use super::codes::Codes;
use crate::column::Row;
use crate::error::Result;
use crate::metric::Metric;
use crate::random::Random;
use crate::work::Work;

/// Rows read by one task.
const ROWS: usize = 256;

/// Reads the vectors of rows, in the original coordinates and side by side.
pub type Read<'a> = &'a (dyn Fn(&[Row], &mut [f32]) -> Result<()> + Sync);

/// Vectors of rows.
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    /// How they are coded.
    pub codes: &'a Codes,
    /// Reads them.
    pub read: Read<'a>,
}

impl std::fmt::Debug for Vectors<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vectors").field("codes", self.codes).finish_non_exhaustive()
    }
}

impl Vectors<'_> {
    /// How distances are measured.
    pub fn metric(&self) -> Metric {
        self.codes.coding.frame().metric()
    }

    /// Numbers a vector.
    pub fn dim(&self) -> usize {
        self.codes.coding.dim()
    }

    /// These vectors, side by side.
    pub fn read(&self, rows: &[Row], work: &Work<'_>) -> Result<Vec<f32>> {
        let dim = self.dim();
        let n_bytes = (rows.len() as u64).checked_mul(4 * dim as u64);
        work.check_memory(n_bytes, "vectors to build a graph from")?;
        let mut out = vec![0.0; rows.len() * dim];
        let parts: Vec<Mutex<&mut [f32]>> = out.chunks_mut(ROWS * dim).map(Mutex::new).collect();
        work.for_each(
            "reading vectors",
            parts.len(),
            || (),
            |(), i| {
                let mut part = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
                (self.read)(&rows[i * ROWS..][..part.len() / dim], &mut part)
            },
        )?;
        drop(parts);
        Ok(out)
    }
}

/// Some of the rows, ascending.
pub fn sample(seed: u64, most: usize, rows: &[Row]) -> Vec<Row> {
    let mut places = Random::new(seed, 3).choose(most.min(rows.len()), rows.len());
    places.sort_unstable();
    places.into_iter().map(|place| rows[place as usize]).collect()
}
