//! Rows that a walk starts from: few, far apart, and compared with a query at once.

use nearest_kernels::{CodeSums, Kernels};

use super::codes::{Codes, Query, Reader};
use super::pool;
use super::vectors::{Vectors, sample};
use crate::candidates::ByRow;
use crate::column::Row;
use crate::error::Result;
use crate::exact::{self, Numbers, Scope};
use crate::kmeans::{self, Side};
use crate::work::Work;

/// How many there are, if rows are enough.
pub(super) const HUBS: usize = 256;
/// Rows of each at least.
const ROWS_PER_HUB: usize = 16;
/// Rows that each is chosen among.
const TRAINING_ROWS: usize = 64;

/// Rows to start from, with copies of their codes side by side.
#[derive(Clone, Debug, Default)]
pub struct Hubs {
    /// The rows.
    pub rows: Vec<Row>,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

/// Rows to start from: those nearest to the centroids of k-means.
pub fn choose(vectors: &Vectors<'_>, rows: &[Row], seed: u64, work: &Work<'_>) -> Result<Vec<Row>> {
    let n_hubs = HUBS.min(rows.len() / ROWS_PER_HUB).max(1);
    let rows = sample(seed, TRAINING_ROWS * n_hubs, rows);
    let (values, dim) = (vectors.read(&rows, work)?, vectors.dim());
    let settings = kmeans::Settings {
        max_points_per_centroid: TRAINING_ROWS,
        seed,
        ..kmeans::Settings::new(n_hubs.min(rows.len()))
    };
    let centroids = kmeans::kmeans(&Side::new(&values, dim), &settings, work)?.centroids;
    let comparer = Numbers::<f32>::new(Kernels::best(), vectors.metric(), dim, &centroids);
    let nearest = exact::search(&Scope::of(&values, dim), &comparer, 1, None, &ByRow, work)?;
    let mut hubs: Vec<Row> = nearest.into_iter().flatten().map(|near| rows[near.row as usize]).collect();
    hubs.sort_unstable();
    hubs.dedup();
    Ok(hubs)
}

impl Hubs {
    /// These rows.
    pub fn new(kernels: &'static Kernels, codes: &Codes, rows: Vec<Row>) -> Self {
        let reader = Reader::new(kernels, codes);
        let mut hubs = Hubs { rows, ..Hubs::default() };
        for &row in &hubs.rows {
            hubs.codes.extend_from_slice(reader.code(row));
            hubs.scales.push(reader.scale(row));
        }
        hubs
    }

    /// Leaves entries of the `n` nearest to a query.
    pub fn nearest(
        &self,
        kernels: &Kernels,
        query: &Query,
        n: usize,
        entries: &mut Vec<u64>,
        sums: &mut Vec<CodeSums>,
        distances: &mut Vec<f32>,
    ) {
        let n_hubs = self.rows.len().max(1);
        let codes: Vec<&[u8]> = self.codes.chunks_exact((self.codes.len() / n_hubs).max(1)).collect();
        query.distances(kernels, &codes, self.scales.iter().copied(), sums, distances);
        entries.clear();
        let of_hubs = self.rows.iter().zip(&*distances);
        entries.extend(of_hubs.map(|(&row, &distance)| pool::entry(distance, row)));
        if n < entries.len() {
            entries.select_nth_unstable(n);
            entries.truncate(n);
        }
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        4 * self.rows.len() + self.codes.len() + 4 * self.scales.len()
    }
}
