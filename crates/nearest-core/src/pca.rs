//! Principal components: the directions in which vectors vary most, most first.
//!
//! Codes of the first few of them, with more bits for each, can tell more than codes of all components
//! (docs/decisions/0005-short-codes.md).

use std::sync::{Mutex, PoisonError};

use nearest_kernels::{Kernels, MAX_DIM, PANEL_ROWS, PanelQueries, PanelRows, Rows};

use crate::error::{Error, Result};
use crate::symmetric::{Eigen, eigen};
use crate::work::Work;

/// Columns whose products with as many others make a task.
const BLOCK: usize = 4 * PANEL_ROWS;
/// Rows that are summed in float32, before float64 takes over.
const CHUNK: usize = 512;
/// Rows that one task takes.
const GROUP: usize = 32 * CHUNK;

/// The mean of vectors, and the directions in which they vary most.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    mean: Vec<f32>,
    /// Row by row, orthonormal.
    components: Vec<f32>,
    /// Falling.
    variances: Vec<f64>,
    total_variance: f64,
}

impl Pca {
    /// The first components of `rows`, row-major. The same bits for any number of threads.
    pub fn train(
        rows: &[f32],
        dim: usize,
        n_components: usize,
        kernels: &Kernels,
        work: &Work<'_>,
    ) -> Result<Self> {
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(Error::argument(format!("dim must be in 1..={MAX_DIM}, got {dim}")));
        }
        if !(1..=dim).contains(&n_components) {
            return Err(Error::argument(format!("n_components must be in 1..={dim}, got {n_components}")));
        }
        if rows.is_empty() || !rows.len().is_multiple_of(dim) {
            return Err(Error::argument(format!(
                "rows must be whole rows of {dim}, got {} values",
                rows.len()
            )));
        }
        if !kernels.all_finite(rows) {
            return Err(Error::argument("rows must be finite"));
        }
        work.check_memory(
            dim.checked_mul(4 * size_of::<f64>() * dim).map(|n| n as u64),
            "principal components",
        )?;
        let mean = mean(rows, dim);
        let covariance = covariance(rows, &mean, kernels, work)?;
        let total_variance = (0..dim).map(|j| covariance[j * dim + j]).sum();
        let Eigen { values, mut vectors } = eigen(covariance, dim, n_components, kernels, work)?;
        for vector in vectors.chunks_exact_mut(dim) {
            // Either direction is one; the largest component shall be positive.
            let largest = vector.iter().fold(0.0f64, |a, b| if b.abs() > a.abs() { *b } else { a });
            vector.iter_mut().for_each(|value| *value *= largest.signum());
        }
        Ok(Self {
            mean,
            components: vectors.into_iter().map(|value| value as f32).collect(),
            variances: values.into_iter().take(n_components).map(|value| value.max(0.0)).collect(),
            total_variance,
        })
    }

    /// One from what [`Pca::mean`], [`Pca::components`], [`Pca::variances`] and [`Pca::total_variance`] gave; a format
    /// error where they cannot have.
    pub fn from_parts(
        mean: Vec<f32>,
        components: Vec<f32>,
        variances: Vec<f64>,
        total_variance: f64,
    ) -> Result<Self> {
        let (dim, n_components) = (mean.len(), variances.len());
        let wrong = |text: &str| Err(Error::format(format!("the principal components {text}")));
        if !(1..=MAX_DIM).contains(&dim) || !(1..=dim).contains(&n_components) {
            return wrong(&format!("cannot be {n_components} of {dim} dimensions"));
        }
        if components.len() != n_components * dim {
            return wrong(&format!("must be {n_components} · {dim} values, got {}", components.len()));
        }
        // Of length 1, so no value is larger, up to rounding.
        if !mean.iter().all(|value| value.is_finite()) || !components.iter().all(|value| value.abs() < 1.0001)
        {
            return wrong("have values that none can have");
        }
        let is_variance = |value: &f64| (0.0..f64::INFINITY).contains(value);
        if !variances.iter().all(is_variance) || !is_variance(&total_variance) {
            return wrong("have variances that are none");
        }
        Ok(Self { mean, components, variances, total_variance })
    }

    /// Components of a vector.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Components that are kept.
    pub fn n_components(&self) -> usize {
        self.variances.len()
    }

    /// The mean of all rows.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The directions, row by row, orthonormal.
    pub fn components(&self) -> &[f32] {
        &self.components
    }

    /// The variance (of a sample: divided by one less than the rows) in each direction, falling.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// The variance in all directions, those left out included.
    pub fn total_variance(&self) -> f64 {
        self.total_variance
    }

    /// `x − mean` in the directions kept. Rounds differently from one CPU level to the next.
    ///
    /// # Panics
    /// Unless `x` has `dim` components and `out` `n_components`.
    #[track_caller]
    pub fn apply(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        assert!(x.len() == self.dim(), "a vector must have {} components, got {}", self.dim(), x.len());
        let centred: Vec<f32> = x.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
        kernels.dot::<f32>(&centred, Rows::Contiguous(&self.components), out);
    }

    /// The vector that these are the kept components of, with nothing in the others.
    ///
    /// # Panics
    /// Unless `x` has `n_components` components and `out` `dim`.
    #[track_caller]
    pub fn invert(&self, x: &[f32], out: &mut [f32]) {
        let (n, dim) = (self.n_components(), self.dim());
        assert!(x.len() == n && out.len() == dim, "{n} components make vectors of {dim}");
        out.copy_from_slice(&self.mean);
        for (x, component) in x.iter().zip(self.components.chunks_exact(dim)) {
            for (out, value) in out.iter_mut().zip(component) {
                *out += x * value;
            }
        }
    }
}

fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let n_rows = (rows.len() / dim) as f64;
    sums.iter().map(|sum| (sum / n_rows) as f32).collect()
}

/// The lower triangle of the covariance; above it, anything.
///
/// Columns are multiplied with columns as tiles multiply rows with queries: a panel is 32 columns as they lie in the rows,
/// the queries are others, turned. Each pair of blocks of columns is one task, which goes through the rows in order.
fn covariance(rows: &[f32], mean: &[f32], kernels: &Kernels, work: &Work<'_>) -> Result<Vec<f64>> {
    let dim = mean.len();
    let n_blocks = dim.div_ceil(BLOCK);
    let pairs: Vec<_> = (0..n_blocks).flat_map(|a| (0..=a).map(move |b| (a, b))).collect();
    let sums: Vec<_> = pairs.iter().map(|_| Mutex::new(vec![0.0f64; BLOCK * BLOCK])).collect();
    for group in rows.chunks(GROUP * dim) {
        work.for_each("covariance", pairs.len(), Scratch::default, |scratch, i| {
            let (a, b) = pairs[i];
            let sums = &mut *sums[i].lock().unwrap_or_else(PoisonError::into_inner);
            for chunk in group.chunks(CHUNK * dim) {
                scratch.take(chunk, mean, a * BLOCK, b * BLOCK);
                scratch.multiply(kernels, chunk.len() / dim, sums);
            }
            Ok(())
        })?;
    }
    let divisor = (rows.len() / dim).saturating_sub(1).max(1) as f64;
    let mut covariance = vec![0.0; dim * dim];
    for ((a, b), sums) in pairs.into_iter().zip(sums) {
        let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (i, sums) in (a * BLOCK..dim).zip(sums.chunks_exact(BLOCK)) {
            for (j, sum) in (b * BLOCK..dim).zip(sums) {
                covariance[i * dim + j] = sum / divisor;
            }
        }
    }
    Ok(covariance)
}

/// Two blocks of columns of some rows, centred: one as panels, one as queries.
#[derive(Default)]
struct Scratch {
    panels: Vec<f32>,
    queries: Vec<f32>,
    hits: Vec<nearest_kernels::Hit<f32>>,
}

impl Scratch {
    fn take(&mut self, rows: &[f32], mean: &[f32], a: usize, b: usize) {
        let dim = mean.len();
        let n_rows = rows.len() / dim;
        // Columns that are not there stay 0.
        self.panels.clear();
        self.panels.resize(BLOCK * n_rows, 0.0);
        self.queries.clear();
        self.queries.resize(BLOCK * n_rows, 0.0);
        for (r, row) in rows.chunks_exact(dim).enumerate() {
            for (panel, columns) in (a..dim.min(a + BLOCK)).step_by(PANEL_ROWS).enumerate() {
                let end = dim.min(columns + PANEL_ROWS);
                let place = &mut self.panels[(panel * n_rows + r) * PANEL_ROWS..][..end - columns];
                for ((place, x), mean) in place.iter_mut().zip(&row[columns..end]).zip(&mean[columns..end]) {
                    *place = x - mean;
                }
            }
            let end = dim.min(b + BLOCK);
            let places = self.queries[r..].iter_mut().step_by(n_rows);
            for ((place, x), mean) in places.zip(&row[b..end]).zip(&mean[b..end]) {
                *place = x - mean;
            }
        }
    }

    fn multiply(&mut self, kernels: &Kernels, n_rows: usize, sums: &mut [f64]) {
        let Scratch { panels, queries, hits } = self;
        for (panel, sums) in
            panels.chunks_exact(PANEL_ROWS * n_rows).zip(sums.chunks_exact_mut(PANEL_ROWS * BLOCK))
        {
            hits.clear();
            let rows = PanelRows::unscaled(panel);
            // Nothing is below −∞: every sum comes back.
            let queries = PanelQueries {
                codes: queries,
                start: &[0.0; BLOCK],
                weight: &[0.0; BLOCK],
                threshold: &[f32::NEG_INFINITY; BLOCK],
                mutual_threshold: &[],
            };
            kernels.tile_f32(&rows, &queries, hits);
            for hit in hits.iter() {
                sums[hit.row as usize * BLOCK + hit.query as usize] += f64::from(hit.sum);
            }
        }
    }
}
