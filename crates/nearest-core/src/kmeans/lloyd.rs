//! Lloyd's iterations: assign each point to its nearest centroid, move each centroid to the mean of its points.
//!
//! Points are coded once and keep their codes; only centroids are coded anew. Whatever is summed is summed in float64 in
//! one order, that of the points of one cluster and then that of the clusters, whoever computes it: for one seed results
//! have the same bits for any number of threads.

use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};

use nearest_kernels::{Kernels, PANEL_ROWS};

use super::centroids::{Buffers, Centroids, lock, split};
use super::nearby::Nearby;
use super::points::{Points, Sample};
use super::split::Splitter;
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::random::Random;
use crate::work::{Whole, Work};

/// Rows that one task codes.
const CODED_ROWS: usize = 512;
/// The last iterations, in which balanced clusters are left to settle.
const SETTLING: usize = 3;
/// How many rows ahead the next to be summed are asked for: they lie anywhere.
const AHEAD: usize = 2;
/// Rows that are compared with few centroids at a time.
const CHOSEN_ROWS: usize = 256;
/// Rows that one task sums, about.
const SUMMED_ROWS: usize = 2048;

/// Points, coded.
#[derive(Debug)]
pub(super) struct Coded<'a, P> {
    pub(super) kernels: &'static Kernels,
    pub(super) points: &'a Sample<'a, P>,
    pub(super) weights: Option<&'a [f32]>,
    pub(super) dim: usize,
    pub(super) centre: Vec<f32>,
    /// Of all points, row by row.
    codes: Buffer,
    scales: Vec<f32>,
    /// ‖x − centre‖².
    squares: Vec<f64>,
}

impl<'a, P: Points> Coded<'a, P> {
    /// Codes all points; `weights` are those of the points they were taken from.
    pub(super) fn new(
        points: &'a Sample<'a, P>,
        weights: Option<&'a [f32]>,
        work: &Work<'_>,
    ) -> Result<Self> {
        let kernels = Kernels::best();
        let (n, dim) = (points.len(), points.dim());
        let centre = centre_of(kernels, points)?;
        let mut codes = Buffer::zeroed(n * dim, work.allocator())?;
        let (mut scales, mut squares) = (vec![0.0; n], vec![0.0; n]);
        {
            let codes = split(&mut codes, CODED_ROWS * dim);
            let (scales, squares) = (split(&mut scales, CODED_ROWS), split(&mut squares, CODED_ROWS));
            work.for_each("coding", scales.len(), Buffers::default, |buffers, task| {
                let range = task * CODED_ROWS..n.min((task + 1) * CODED_ROWS);
                buffers.read(kernels, points, range)?;
                let (mut scales, mut squares) = (lock(&scales[task]), lock(&squares[task]));
                let mut codes = lock(&codes[task]);
                let rows = buffers.rows().chunks_exact(dim).zip(codes.chunks_exact_mut(dim));
                for (i, (row, codes)) in rows.enumerate() {
                    scales[i] = kernels.quantise_row(row, &centre, codes).scale;
                    squares[i] = kernels.canonical_sqeuclidean(&centre, row);
                }
                Ok(())
            })?;
        }
        Ok(Self { kernels, points, weights, dim, centre, codes, scales, squares })
    }

    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    pub(super) fn weight(&self, row: usize) -> f64 {
        self.weights.map_or(1.0, |weights| f64::from(weights[self.points.place(row)]))
    }

    /// Adds `sign` times the weighted points to `sums`.
    fn add(&self, rows: &[u32], sign: f64, sums: &mut [f64], scratch: &mut Vec<f32>) {
        for (i, &row) in rows.iter().enumerate() {
            if let Some(&next) = rows.get(i + AHEAD) {
                self.points.prefetch(next as usize);
            }
            self.points.add(self.kernels, row as usize, sign * self.weight(row as usize), sums, scratch);
        }
    }

    /// The nearest centroid of each of some points into `out`.
    pub(super) fn choose_of(
        &self,
        rows: &[u32],
        centroids: &Centroids<'_>,
        buffers: &mut Buffers,
        out: &mut [u32],
    ) {
        let (mut codes, mut scales) = (take(&mut buffers.codes), take(&mut buffers.scales));
        for (rows, out) in rows.chunks(CHOSEN_ROWS).zip(out.chunks_mut(CHOSEN_ROWS)) {
            codes.clear();
            scales.clear();
            for &row in rows {
                codes.extend_from_slice(&self.codes[row as usize * self.dim..][..self.dim]);
                scales.push(self.scales[row as usize]);
            }
            centroids.choose(&codes, &scales, buffers);
            for (i, out) in out.iter_mut().enumerate() {
                *out = buffers.best[i / PANEL_ROWS].place[i % PANEL_ROWS];
            }
        }
        (buffers.codes, buffers.scales) = (codes, scales);
    }

    /// The nearest centroid of each point into `places`; how many changed.
    fn assign(
        &self,
        centroids: &Centroids<'_>,
        floats: bool,
        places: &mut [u32],
        work: &Work<'_>,
    ) -> Result<usize> {
        let n = self.len();
        let rows = centroids.task_rows();
        let moved = AtomicUsize::new(0);
        let places = split(places, rows);
        work.for_each(STAGE, places.len(), Buffers::default, |buffers, task| {
            let range = task * rows..n.min((task + 1) * rows);
            let mut places = lock(&places[task]);
            let mut n_moved = 0;
            let mut put = |i: usize, place: u32| {
                n_moved += usize::from(places[i] != place);
                places[i] = place;
            };
            if floats {
                buffers.read(self.kernels, self.points, range.clone())?;
                centroids.choose_floats(buffers);
                for i in 0..range.len() {
                    put(i, buffers.two[i / PANEL_ROWS][0].place[i % PANEL_ROWS]);
                }
            } else {
                let codes = &self.codes[range.start * self.dim..range.end * self.dim];
                centroids.choose(codes, &self.scales[range.clone()], buffers);
                for i in 0..range.len() {
                    put(i, buffers.best[i / PANEL_ROWS].place[i % PANEL_ROWS]);
                }
            }
            moved.fetch_add(n_moved, Ordering::Relaxed);
            Ok(())
        })?;
        Ok(moved.into_inner())
    }
}

pub(super) const STAGE: &str = "k-means";

/// The mean of a sample of at most so many points.
const CENTRE_ROWS: usize = 4096;

fn centre_of<P: Points>(kernels: &Kernels, points: &P) -> Result<Vec<f32>> {
    let (n, dim) = (points.len(), points.dim());
    let mut sums = vec![0.0; dim];
    let mut buffers = Buffers::default();
    let n_rows = n.clamp(1, CENTRE_ROWS);
    for i in 0..n_rows.min(n) {
        let row = (i as u64 * n as u64 / n_rows as u64) as usize;
        buffers.read(kernels, points, row..row + 1)?;
        kernels.add(buffers.rows(), 1.0, &mut sums);
    }
    Ok(sums.into_iter().map(|sum| (sum / n_rows as f64) as f32).collect())
}

/// Points by cluster.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// The points, by cluster and then by position.
    order: Vec<u32>,
    /// Where each cluster ends.
    ends: Vec<usize>,
}

impl Members {
    /// Those of `places` that `wanted` wants.
    pub(super) fn sort(&mut self, places: &[u32], k: usize, wanted: impl Fn(usize) -> bool) {
        let mut starts = vec![0usize; k + 1];
        for (row, &place) in places.iter().enumerate() {
            starts[place as usize + 1] += usize::from(wanted(row));
        }
        for i in 0..k {
            starts[i + 1] += starts[i];
        }
        self.order.resize(starts[k], 0);
        for (row, &place) in places.iter().enumerate().filter(|(row, _)| wanted(*row)) {
            let at = &mut starts[place as usize];
            self.order[*at] = row as u32;
            *at += 1;
        }
        starts.pop();
        self.ends = starts;
    }

    /// All of them.
    pub(super) fn all(&self) -> &[u32] {
        &self.order
    }

    /// How many are in clusters before this one.
    pub(super) fn before(&self, cluster: usize) -> usize {
        if cluster == 0 { 0 } else { self.ends[cluster - 1] }
    }

    pub(super) fn of(&self, cluster: usize) -> &[u32] {
        &self.order[self.before(cluster)..self.ends[cluster]]
    }
}

/// Who is where, who came and who left.
#[derive(Debug, Default)]
struct Changes {
    all: Members,
    came: Members,
    left: Members,
}

impl Changes {
    /// From `before`, which holds no places in the first iteration, to `places`.
    fn sort(&mut self, before: &[u32], places: &[u32], k: usize, first: bool) {
        self.all.sort(places, k, |_| true);
        self.came.sort(places, k, |row| first || before[row] != places[row]);
        if first {
            self.left = Members { order: Vec::new(), ends: vec![0; k] };
        } else {
            self.left.sort(before, k, |row| before[row] != places[row]);
        }
    }
}

/// What a cluster has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cluster {
    pub(super) size: usize,
    /// Of all its points together.
    pub(super) weight: f64,
    /// Σ weight ‖x − c‖², c being what the points were assigned by.
    cost: f64,
    /// The same with their mean.
    pub(super) cost_after: f64,
}

/// What is asked of the iterations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) n_iterations: usize,
    pub(super) spherical: bool,
    pub(super) balanced: bool,
    pub(super) seed: u64,
    /// From this iteration on, points are compared with so many centroids near the last one.
    pub(super) n_whole: usize,
    pub(super) n_nearby: Option<usize>,
    /// What an iteration counts for in progress.
    pub(super) units: u64,
}

impl Plan {
    /// What all iterations with `k` centroids count for in progress.
    pub(super) fn total(&self, k: usize) -> u64 {
        let n_near = self.n_nearby.map_or(0, |_| self.n_iterations.saturating_sub(self.n_whole));
        let near = self.n_nearby.map_or(0, |m| (self.units * m as u64).div_ceil(k as u64));
        self.units * (self.n_iterations - n_near) as u64 + near * n_near as u64
    }
}

/// What they came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) centroids: Vec<f32>,
    /// Mean squared distance, iteration by iteration.
    pub(super) objective: Vec<f64>,
    /// Points of each cluster, when they were last assigned.
    pub(super) sizes: Vec<u64>,
    /// The clusters of the points, then.
    pub(super) places: Vec<u32>,
}

/// What iterations begin from.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) centroids: Vec<f32>,
    /// Clusters that points were in, for iterations that compare them with centroids nearby.
    pub(super) places: Option<Vec<u32>>,
}

/// Iterates from `start` on.
pub(super) fn iterate<P: Points>(
    coded: &Coded<'_, P>,
    start: Start,
    plan: &Plan,
    whole: &Whole<'_>,
) -> Result<Outcome> {
    let (n, dim) = (coded.len(), coded.dim);
    let Start { mut centroids, places } = start;
    let k = centroids.len() / dim;
    let mut changes = Changes::default();
    let n_whole = if let Some(places) = &places {
        changes.all.sort(places, k, |_| true);
        plan.n_whole
    } else {
        plan.n_whole.max(1)
    };
    let (mut places, mut before) = (places.unwrap_or_else(|| vec![u32::MAX; n]), Vec::new());
    let mut sums = vec![0.0; k * dim];
    let mut clusters = vec![Cluster::default(); k];
    let mut objective = Vec::with_capacity(plan.n_iterations);
    let mut floats = false;
    // Centroids that were put elsewhere since points were last assigned.
    let mut moved = vec![false; k];
    // Good for as long as centroids only drift.
    let mut nearby = None;
    for iteration in 0..plan.n_iterations {
        let prepared = Centroids::new(coded.kernels, &centroids, dim, &coded.centre[..]);
        // A sample tells. Codes serve worse as clusters become tighter, which they do fast at first.
        if !floats && (iteration == 0 || iteration.is_power_of_two()) {
            floats = prepared.need_floats(coded.points, STAGE, &whole.part(0)?)?;
        }
        before.clone_from(&places);
        let near = plan.n_nearby.filter(|_| iteration >= n_whole && !floats);
        let n_moved = match near.filter(|&m| m < k) {
            Some(m) => {
                let nearby = match &mut nearby {
                    Some(nearby) => nearby,
                    None => nearby.insert(Nearby::new(coded, &centroids, m, plan.seed, &whole.part(0)?)?),
                };
                let work = whole.part((plan.units * m as u64).div_ceil(k as u64))?;
                nearby.assign(coded, &prepared, &changes.all, &moved, &mut places, &work)?
            }
            None => coded.assign(&prepared, floats, &mut places, &whole.part(plan.units)?)?,
        };
        changes.sort(&before, &places, k, iteration == 0);
        let mut means = vec![0.0; k * dim];
        let state = State { sums: &mut sums, means: &mut means, clusters: &mut clusters };
        update(coded, &centroids, &changes, plan, state, &whole.part(0)?)?;
        let (cost, weight) = clusters.iter().fold((0.0, 0.0), |sums, c| (sums.0 + c.cost, sums.1 + c.weight));
        objective.push(cost / weight);
        let last = iteration + 1 == plan.n_iterations;
        let mut splitter = Splitter::new(coded, &changes.all, &mut moved, plan, iteration);
        let mut n_split = splitter.fill_empty(&mut means, &clusters, last)?;
        if plan.balanced && iteration + SETTLING < plan.n_iterations {
            n_split += splitter.balance(&mut means, &clusters)?;
        }
        if n_split > 0 {
            nearby = None;
        }
        centroids = means;
        if n_moved == 0 && n_split == 0 {
            break;
        }
    }
    let sizes = (0..k).map(|cluster| changes.all.of(cluster).len() as u64).collect();
    Ok(Outcome { centroids, objective, sizes, places })
}

/// What an update writes, cluster by cluster.
struct State<'a> {
    /// Σ weight x.
    sums: &'a mut [f64],
    means: &'a mut [f32],
    clusters: &'a mut [Cluster],
}

/// Moves centroids to the means of their points: from `centroids` to `means`.
///
/// Only who came and who left is added and taken off, where that is less than all.
fn update<P: Points>(
    coded: &Coded<'_, P>,
    centroids: &[f32],
    changes: &Changes,
    plan: &Plan,
    State { sums, means, clusters }: State<'_>,
    work: &Work<'_>,
) -> Result<()> {
    let (n, k, dim) = (coded.len(), clusters.len(), coded.dim);
    let per_task = (k * SUMMED_ROWS).div_ceil(n).clamp(1, k);
    let (sums, means) = (split(sums, per_task * dim), split(means, per_task * dim));
    let clusters = split(clusters, per_task);
    work.for_each(STAGE, clusters.len(), Vec::new, |row, task| {
        let (mut sums, mut means) = (lock(&sums[task]), lock(&means[task]));
        for (i, cluster) in lock(&clusters[task]).iter_mut().enumerate() {
            let place = task * per_task + i;
            let sums = &mut sums[i * dim..][..dim];
            let (before, mean) = (&centroids[place * dim..][..dim], &mut means[i * dim..][..dim]);
            let (all, came, left) = (changes.all.of(place), changes.came.of(place), changes.left.of(place));
            if came.len() + left.len() < all.len() {
                coded.add(left, -1.0, sums, row);
                coded.add(came, 1.0, sums, row);
            } else {
                sums.fill(0.0);
                coded.add(all, 1.0, sums, row);
            }
            let (mut weight, mut squares) = (0.0, 0.0);
            for &member in all {
                let w = coded.weight(member as usize);
                weight += w;
                squares += w * coded.squares[member as usize];
            }
            mean.copy_from_slice(before);
            *cluster = Cluster { size: all.len(), weight, ..Cluster::default() };
            if weight > 0.0 {
                let cost = |c: &[f32]| cost(squares, weight, sums, c, &coded.centre);
                cluster.cost = cost(before);
                mean.iter_mut().zip(&*sums).for_each(|(mean, sum)| *mean = (sum / weight) as f32);
                if plan.spherical {
                    normalise(mean, before);
                }
                cluster.cost_after = cost(mean);
            }
        }
        Ok(())
    })
}

/// Σ weight ‖x − c‖² = Σ weight ‖x̃‖² − 2 c̃·Σ weight x̃ + Σ weight ‖c̃‖², with the centre taken off.
fn cost(squares: f64, weight: f64, sums: &[f64], centroid: &[f32], centre: &[f32]) -> f64 {
    let (mut product, mut norm) = (0.0, 0.0);
    for ((sum, c), centre) in sums.iter().zip(centroid).zip(centre) {
        let (c, centre) = (f64::from(*c), f64::from(*centre));
        product += (sum - weight * centre) * (c - centre);
        norm += (c - centre) * (c - centre);
    }
    // What is nothing but rounding must not be negative.
    (squares - 2.0 * product + weight * norm).max(0.0)
}

/// Gives a mean length 1; points in all directions leave the centroid where it was.
pub(super) fn normalise(mean: &mut [f32], before: &[f32]) {
    let length = mean.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
    if length > 0.0 {
        mean.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    } else {
        mean.copy_from_slice(before);
    }
}

/// The first centroids: random points, each at most once.
pub(super) fn random_points<P: Points>(coded: &Coded<'_, P>, k: usize, seed: u64) -> Result<Start> {
    let mut centroids = Vec::with_capacity(k * coded.dim);
    let mut row = Buffers::default();
    for place in Random::new(seed, 0).choose(k, coded.len()) {
        let place = place as usize;
        row.read(coded.kernels, coded.points, place..place + 1)?;
        centroids.extend_from_slice(row.rows());
    }
    Ok(Start { centroids, places: None })
}

/// An error unless weights are right for `n` points.
pub(super) fn check_weights(weights: &[f32], n: usize) -> Result<()> {
    if weights.len() != n {
        let got = weights.len();
        return Err(Error::argument(format!("weights must have length {n}, one a vector, got {got}")));
    }
    match weights.iter().position(|weight| !(0.0..f32::INFINITY).contains(weight)) {
        Some(at) => Err(Error::argument(format!(
            "weights must be finite and not negative, got {} at position {at}",
            weights[at]
        ))),
        None => Ok(()),
    }
}
