//! k-means: centroids that many points are near to, and which of them is nearest.
//!
//! | file | what it holds |
//! |---|---|
//! | `points.rs` | what is clustered: rows that can be read as float32, wherever they lie |
//! | `centroids.rs` | centroids as 8-bit codes and as floats, and which of them are best |
//! | `assign.rs` | the nearest centroid, or the two nearest, of each of many points |
//! | `lloyd.rs` | the iterations of Lloyd (1982) |
//! | `hierarchical.rs` | many centroids from two levels |
//! | `groups.rs` | centroids in groups, where there are too many to compare with all |
//! | `nearby.rs` | iterations in which points are compared with few centroids |
//! | `split.rs` | clusters cut in two, for those that are empty and to even out sizes |

mod assign;
mod centroids;
mod groups;
mod hierarchical;
mod lloyd;
mod nearby;
mod points;
mod split;

pub use assign::{Assigned, Assigner, assign, assign_two};
pub use groups::{Grouped, grouped};
pub use points::{Points, Read, Side};

use hierarchical::{Steps, two_levels};
use lloyd::{Coded, Outcome, Plan, STAGE, check_weights, iterate, random_points};
use nearest_kernels::{Kernels, PANEL_ROWS, panel_depth};
use points::Sample;

use crate::error::{Error, Result};
use crate::random::Random;
use crate::work::{Whole, Work};

/// From so many centroids on, points are compared with all of them only in the first iterations, then with those near the one
/// they were nearest to: most points stay where they are, and those that move go to a neighbour. (1 024 centroids, ten
/// iterations: 1.8 times as fast, the objective 0.2 % higher on wordnet, 0.1 % on photos.)
const NEARBY_K: usize = 4 * NEARBY;
const WHOLE_ITERATIONS: usize = 3;
/// How many centroids nearby are compared.
const NEARBY: usize = 128;
/// From more centroids on, two levels of them are the default.
const HIERARCHICAL_K: usize = 4096;

/// How to cluster.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// How many centroids.
    pub k: usize,
    /// Iterations, at most: they end where nothing changes any more.
    pub n_iterations: usize,
    /// Whether only directions count: vectors and centroids have length 1, the objective is 2 − 2 cos.
    pub spherical: bool,
    /// Whether heavy clusters are cut in two and light ones given up, until none is much above the mean.
    pub balanced: bool,
    /// Whether centroids come from two levels and are refined in a few iterations, instead of `n_iterations` over all;
    /// nothing: above 4 096 centroids. The objective is that of the refining iterations.
    pub hierarchical: Option<bool>,
    /// How much each vector counts, finite and not negative; nothing: 1.
    pub weights: Option<&'a [f32]>,
    /// A random sample of so many points a centroid is used where there are more.
    pub max_points_per_centroid: usize,
    /// What random choices start from.
    pub seed: u64,
}

impl Settings<'_> {
    /// `k` centroids, with the defaults of the Python function.
    pub fn new(k: usize) -> Self {
        Settings {
            k,
            n_iterations: 10,
            spherical: false,
            balanced: false,
            hierarchical: None,
            weights: None,
            max_points_per_centroid: 256,
            seed: 0,
        }
    }
}

/// Centroids, and how they came about.
#[derive(Clone, Debug)]
pub struct KMeans {
    /// The centroids, row-major.
    pub centroids: Vec<f32>,
    /// The mean (weighted) squared distance of the points from their nearest centroids as each iteration found it.
    pub objective: Vec<f64>,
    /// How many points were assigned to each centroid in the last iteration.
    pub sizes: Vec<u64>,
}

/// Clusters points around `k` centroids.
///
/// The first centroids are random points. A centroid that no point is nearest to is moved into the cluster that costs
/// most; only where there are fewer than `k` different points some stay empty.
pub fn kmeans<P: Points>(points: &P, settings: &Settings<'_>, work: &Work<'_>) -> Result<KMeans> {
    let (n, dim) = (points.len(), points.dim());
    let Settings { k, weights, seed, .. } = *settings;
    let hierarchical = settings.hierarchical.unwrap_or(k > HIERARCHICAL_K);
    centroids::check_dim(dim)?;
    if k == 0 || k > n {
        return Err(Error::argument(format!("k must be between 1 and the number of vectors, {n}, got {k}")));
    }
    if u32::try_from(n).is_err() {
        return Err(Error::argument(format!("k-means takes at most 2³² − 1 vectors, got {n}")));
    }
    if settings.max_points_per_centroid == 0 || settings.n_iterations == 0 {
        return Err(Error::argument("n_iterations and max_points_per_centroid must be at least 1, got 0"));
    }
    if let Some(weights) = weights {
        check_weights(weights, n)?;
    }
    let mut sample = Sample { points, places: sampled_rows(n, settings), factors: None };
    let n_bytes = (sample.len() as u64)
        .checked_mul(panel_depth(dim) as u64 + 24)
        .and_then(|bytes| bytes.checked_add(10 * (k * dim) as u64));
    work.check_memory(n_bytes, &format!("k-means of {} vectors", sample.len()))?;
    if settings.spherical {
        sample.factors = Some(inverse_lengths(&sample, work)?);
    }
    if let Some(weights) = weights
        && (0..sample.len()).all(|row| weights[sample.place(row)] == 0.0)
    {
        return Err(Error::argument("weights must not all be 0"));
    }
    let n = sample.len();
    let steps = hierarchical.then(|| Steps::new(n, settings));
    let flat = Plan {
        n_iterations: settings.n_iterations,
        spherical: settings.spherical,
        balanced: settings.balanced,
        seed,
        n_whole: WHOLE_ITERATIONS,
        n_nearby: (k >= NEARBY_K).then_some(NEARBY),
        units: n as u64,
    };
    let plan = steps.map_or(flat, |steps| steps.refining(flat));
    let total = steps.map_or(flat.total(k), |steps| steps.total());
    let whole = Whole::new(work, STAGE, total);
    let levels = match &steps {
        Some(steps) => Some(two_levels(&sample, settings, steps, &whole)?),
        None => None,
    };
    let coded = Coded::new(&sample, weights, &whole.part(0)?)?;
    let start = match levels {
        Some(start) => start,
        None => random_points(&coded, k, seed)?,
    };
    let Outcome { centroids, objective, sizes, .. } = iterate(&coded, start, &plan, &whole)?;
    Ok(KMeans { centroids, objective, sizes })
}

/// Which of `n` points are used, in ascending order; nothing: all.
pub fn sampled_rows(n: usize, settings: &Settings<'_>) -> Option<Vec<u32>> {
    let most = settings.k.saturating_mul(settings.max_points_per_centroid);
    (n > most).then(|| Random::new(settings.seed, u64::MAX).choose(most, n))
}

/// 1 / ‖x‖ of each point.
fn inverse_lengths<P: Points>(points: &Sample<'_, P>, work: &Work<'_>) -> Result<Vec<f32>> {
    const ROWS: usize = 16 * PANEL_ROWS;
    let kernels = Kernels::best();
    let (n, dim) = (points.len(), points.dim());
    let mut inverse = vec![0.0; n];
    {
        let parts = centroids::split(&mut inverse, ROWS);
        work.for_each("measuring", parts.len(), centroids::Buffers::default, |buffers, task| {
            let range = task * ROWS..n.min((task + 1) * ROWS);
            buffers.read(kernels, points, range.clone())?;
            for (i, row) in buffers.rows().chunks_exact(dim).enumerate() {
                let squared = kernels.canonical_squared_norm(row);
                if squared == 0.0 {
                    let row = points.origin(range.start + i);
                    return Err(Error::argument(format!(
                        "vectors must not be zero where only directions count; row {row} is"
                    )));
                }
                centroids::lock(&parts[task])[i] = (1.0 / squared.sqrt()) as f32;
            }
            Ok(())
        })?;
    }
    Ok(inverse)
}
