//! Lists made ready for rows like those of a sample: frame, centroids, coders, and which rows get a second list.

use std::sync::{Mutex, PoisonError};

use nearest_kernels::Kernels;

use super::assign::{Assigned, Assigner};
use super::coding::{Codec, Coding, Loss};
use super::frame::Frame;
use super::groups::Grouping;
use super::route::{NEAREST, Router};
use super::{Lists, Second, efforts};
use crate::coder::{Coder, CoderScratch, ShortEncoding};
use crate::error::{Error, Result};
use crate::kmeans::{self, Points, Side};
use crate::metric::Metric;
use crate::random::Random;
use crate::rotation::Rotation;
use crate::work::Work;

/// Rows of the sample that coders are trained on, and that what they lose is measured on.
const CODER_ROWS: usize = 16_384;
/// Rows of a centroid that k-means looks at. More make centroids that are hardly better, and take longer.
const POINTS_PER_CENTROID: usize = 64;
const N_ITERATIONS: usize = 8;
/// Scores of lists that gaps are taken from.
const GAPS: usize = 1 << 19;

/// What lists are to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How distances are measured.
    pub metric: Metric,
    /// How rows are coded in the lists.
    pub codes: Codes,
    /// How they are coded to be compared again.
    pub second: Option<ShortEncoding>,
    /// How many lists.
    pub n_lists: usize,
    /// Up to so many of them queries are compared with all centroids: [`super::FLAT_UP_TO`], fewer in tests.
    pub flat_up_to: usize,
    /// The share of rows that get a second list.
    pub spill: f32,
    /// What random choices start from.
    pub seed: u64,
}

/// How rows are coded in lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// As the uint8 they are.
    UInt8,
    /// As the int8 they are.
    Int8,
    /// By short codes of what centroids leave.
    Short(ShortEncoding),
}

/// Trains lists on a sample; they have no rows yet.
pub fn train<P: Points>(sample: &P, plan: &Plan, work: &Work<'_>) -> Result<Lists> {
    let kernels = Kernels::best();
    let dim = sample.dim();
    let frame = frame_of(kernels, sample, plan)?;
    let framed = framed(kernels, sample, &frame, work)?;
    let mut centroids = if plan.n_lists == 1 {
        // The frame's own centre, where there is one; codes of a single list are relative to nothing else.
        vec![0.0; dim]
    } else {
        let settings = kmeans::Settings {
            n_iterations: N_ITERATIONS,
            max_points_per_centroid: POINTS_PER_CENTROID,
            seed: plan.seed,
            ..kmeans::Settings::new(plan.n_lists)
        };
        kmeans::kmeans(&Side::new(&framed, dim), &settings, work)?.centroids
    };
    let router = if plan.n_lists > plan.flat_up_to {
        let grouping = Grouping::new(&mut centroids, dim, plan.seed, work)?;
        Router::two_level(kernels, plan.metric, dim, centroids, grouping)
    } else {
        Router::new(kernels, plan.metric, dim, centroids)
    };
    let n = framed.len() / dim;
    let step = n.div_ceil(CODER_ROWS).max(1);
    let mut some = Vec::with_capacity(n.div_ceil(step) * dim);
    framed.chunks_exact(dim).step_by(step).for_each(|row| some.extend_from_slice(row));
    let found: Vec<Assigned> = in_parts(
        &some,
        dim,
        work,
        || Assigner::new(f32::INFINITY),
        |assigner, rows| assigner.assign(kernels, &router, rows),
    )?
    .concat();
    let mut residuals = some.clone();
    for (row, found) in residuals.chunks_exact_mut(dim).zip(&found) {
        row.iter_mut().zip(router.centroid(found.first)).for_each(|(x, c)| *x -= c);
    }
    let (codec, loss) = match plan.codes {
        Codes::UInt8 => (Codec::UInt8, loss_of(kernels, dim, &some, None, work)?),
        Codes::Int8 => (Codec::Int8, loss_of(kernels, dim, &some, None, work)?),
        Codes::Short(encoding) => {
            let coder = coder_of(encoding, dim, &residuals, plan.seed, kernels, work)?;
            let loss = loss_of(kernels, dim, &residuals, Some(&coder), work)?;
            (Codec::Short(coder), loss)
        }
    };
    let second =
        plan.second.map(|encoding| coder_of(encoding, dim, &some, plan.seed, kernels, work)).transpose()?;
    // The rows for which a second list promises most.
    let mut gaps: Vec<f32> = found.iter().map(|found| found.gap).collect();
    let spilled = (plan.spill.clamp(0.0, 1.0) * gaps.len() as f32) as usize;
    let spill_gap = match spilled {
        0 => f32::NEG_INFINITY,
        all if all == gaps.len() => f32::INFINITY,
        spilled => *gaps.select_nth_unstable_by(spilled, f32::total_cmp).1,
    };
    let distance =
        found.iter().map(|found| f64::from(found.distance)).sum::<f64>() / found.len().max(1) as f64;
    let gaps = gaps_of(kernels, &router, &some);
    let coding = Coding::new(frame, codec, loss);
    let lists =
        Lists::new(router, coding, second.map(|coder| Second::new(coder, plan.metric)), spill_gap, distance);
    Ok(Lists { gaps, ..lists })
}

/// A coder for rows like these. Where all of them are zeros, as what centroids leave of a few vectors is, any directions will
/// do to train on: what comes later may have some.
fn coder_of(
    encoding: ShortEncoding,
    dim: usize,
    rows: &[f32],
    seed: u64,
    kernels: &Kernels,
    work: &Work<'_>,
) -> Result<Coder> {
    match Coder::train(encoding, dim, rows, seed, kernels, work) {
        Err(Error::Argument(_)) => {
            let mut random = Random::new(seed, 2);
            let any: Vec<f32> = (0..1024 * dim).map(|_| (random.bits() >> 32) as i32 as f32).collect();
            Coder::train(encoding, dim, &any, seed, kernels, work)
        }
        trained => trained,
    }
}

/// By how much scores of lists are below the best ones of rows: for each effort what leaves so many on average.
fn gaps_of(kernels: &Kernels, router: &Router, rows: &[f32]) -> Vec<f32> {
    let (dim, n_lists) = (router.dim(), router.n_lists());
    if n_lists <= NEAREST {
        return Vec::new();
    }
    let n = rows.len() / dim;
    let wanted = (GAPS / n_lists).clamp(32, 1024).min(n);
    let mut gaps = Vec::with_capacity(wanted * n_lists);
    let mut scores = Vec::new();
    for row in rows.chunks_exact(dim).step_by(n / wanted.max(1)).take(wanted) {
        router.scores(kernels, row, &mut scores);
        let first = gaps.len();
        gaps.extend_from_slice(&scores);
        let of_row = &mut gaps[first..];
        of_row.select_nth_unstable_by(NEAREST - 1, |a, b| b.total_cmp(a));
        let mean = of_row[..NEAREST].iter().sum::<f32>() / NEAREST as f32;
        of_row.iter_mut().for_each(|score| *score = mean - *score);
    }
    let n_rows = gaps.len() / n_lists;
    if !kernels.all_finite(&gaps) {
        // Squares that float32 cannot hold: then every query goes to as many lists.
        return Vec::new();
    }
    // From the largest on, each among those that are not above the last: much less work than sorting all.
    let places: Vec<usize> = efforts(n_lists).map(|effort| (effort * n_rows).min(gaps.len()) - 1).collect();
    let mut found = vec![0.0; places.len()];
    let mut rest = &mut gaps[..];
    for (&place, found) in places.iter().zip(&mut found).rev() {
        let (below, gap, _) = rest.select_nth_unstable_by(place, f32::total_cmp);
        *found = *gap;
        rest = below;
    }
    found
}

/// The root mean squares of rows and of what coding them loses.
fn loss_of(
    kernels: &Kernels,
    dim: usize,
    rows: &[f32],
    coder: Option<&Coder>,
    work: &Work<'_>,
) -> Result<Loss> {
    let n = (rows.len() / dim).max(1) as f64;
    let buffers = || (CoderScratch::default(), vec![0; coder.map_or(0, Coder::code_bytes)]);
    let sums = in_parts(rows, dim, work, buffers, |(scratch, code), rows| {
        let (mut error, mut spread) = (0.0, 0.0);
        for row in rows.chunks_exact(dim) {
            spread += kernels.canonical_squared_norm(row);
            if let Some(coder) = coder {
                let lost = coder.encode(kernels, row, code, scratch).error;
                error += f64::from(lost).powi(2);
            }
        }
        (error, spread)
    })?;
    let (error, spread) = sums.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    Ok(Loss { error: (error / n).sqrt() as f32, spread: (spread / n).sqrt() as f32 })
}

/// What `task` gives for each part of some rows, in order, so that sums do not depend on the number of threads.
fn in_parts<S, T: Send>(
    rows: &[f32],
    dim: usize,
    work: &Work<'_>,
    scratch: impl Fn() -> S + Sync,
    task: impl Fn(&mut S, &[f32]) -> T + Sync,
) -> Result<Vec<T>> {
    const ROWS: usize = 256;
    let parts: Vec<&[f32]> = rows.chunks(ROWS * dim).collect();
    work.map("training", parts.len(), scratch, |scratch, i| Ok(task(scratch, parts[i])))
}

fn frame_of<P: Points>(kernels: &Kernels, sample: &P, plan: &Plan) -> Result<Frame> {
    let dim = sample.dim();
    let Codes::Short(_) = plan.codes else {
        // Integers are coded as they are, and routed as they are.
        return plan.frame(kernels, vec![0.0; dim]);
    };
    let mut sums = vec![0.0f64; dim];
    let mut n = 0.0;
    let mut row = vec![0.0; dim];
    let step = sample.len().div_ceil(CODER_ROWS).max(1);
    for i in (0..sample.len()).step_by(step) {
        sample.read(i..i + 1, &mut row);
        let norm = if plan.metric.is_angular() { kernels.canonical_squared_norm(&row).sqrt() } else { 1.0 };
        if norm > 0.0 {
            sums.iter_mut().zip(&row).for_each(|(sum, x)| *sum += f64::from(*x) / norm);
            n += 1.0;
        }
    }
    let centre = sums.into_iter().map(|sum| (sum / f64::max(n, 1.0)) as f32).collect();
    plan.frame(kernels, centre)
}

impl Plan {
    /// The frame with a given centre.
    pub fn frame(&self, kernels: &Kernels, centre: Vec<f32>) -> Result<Frame> {
        let rotation = match self.codes {
            // Parts of a vector that codebooks are made of should stay together; grids want all components alike.
            Codes::Short(ShortEncoding::Product { .. }) | Codes::UInt8 | Codes::Int8 => None,
            Codes::Short(_) => Some(Rotation::new(centre.len(), self.seed)?),
        };
        Ok(Frame::new(kernels, self.metric, centre, rotation))
    }
}

/// All rows of the sample in the frame.
fn framed<P: Points>(kernels: &Kernels, sample: &P, frame: &Frame, work: &Work<'_>) -> Result<Vec<f32>> {
    const ROWS: usize = 256;
    let (n, dim) = (sample.len(), sample.dim());
    work.check_memory((n as u64).checked_mul(4 * dim as u64), "a sample to train on")?;
    let mut out = vec![0.0; n * dim];
    let parts: Vec<Mutex<&mut [f32]>> = out.chunks_mut(ROWS * dim).map(Mutex::new).collect();
    work.for_each("training", parts.len(), <(Vec<f32>, Vec<f32>)>::default, |(rows, scratch), i| {
        let mut part = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
        rows.resize(part.len(), 0.0);
        sample.read(i * ROWS..i * ROWS + part.len() / dim, rows);
        for (row, out) in rows.chunks_exact(dim).zip(part.chunks_exact_mut(dim)) {
            frame.row(kernels, row, scratch, out);
        }
        Ok(())
    })?;
    drop(parts);
    Ok(out)
}
