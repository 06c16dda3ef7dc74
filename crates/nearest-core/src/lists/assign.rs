//! The lists that rows go to, and rows on their way there.
//!
//! A row goes to the list of its nearest centroid. A second copy helps where a query that is near the row is not near that
//! centroid, and it helps most if it fails elsewhere: SOAR (Sun et al. 2023) chooses the list c' with the least
//! ‖x − c'‖² + λ (⟨x − c, x − c'⟩ / ‖x − c‖)², whose error is not along that of the first. Not all rows gain alike: those
//! for which this is least above ‖x − c‖² get the second copy, as many as asked for.
//!
//! Measured (1 024 lists, rows looked at for a recall@10 of 0.95 and 0.99): wordnet 4.6 and 19.7 % without second copies, 3.5
//! and 16.2 % with 40 %, 3.0 and 11.4 % with all; photos 2.9 and 7.0, 2.5 and 6.1, 2.6 and 6.1 %. λ = 1; 0 and 2 are worse.

use nearest_kernels::{Kernels, Rows};

use super::coding::{self, CodedQueries};
use super::route::{self, Probes, Reach, Router};
use super::{Codec, Entries, Lists};
use crate::column::Row;
use crate::error::Result;
use crate::kmeans::Points;
use crate::work::Work;

/// Centroids that are looked at exactly, the nearest by their codes.
const CANDIDATES: usize = 16;
/// Rows coded together; more where they meet on groups of lists, if that leaves some for every thread.
const ROWS: usize = 128;
const GROUPED_ROWS: usize = 1024;

/// Where a row goes.
#[derive(Clone, Copy, Debug)]
pub struct Assigned {
    /// The list of the nearest centroid.
    pub first: u32,
    /// A second list, if one is worth it.
    pub second: Option<u32>,
    /// ‖x − c‖².
    pub distance: f32,
    /// By how much the second list's loss is above that.
    pub gap: f32,
}

/// Finds lists for rows; buffers of one worker.
#[derive(Debug, Default)]
pub struct Assigner {
    /// Gaps up to this are worth a second copy.
    spill_gap: f32,
    codes: CodedQueries,
    probes: Probes,
    route: route::Scratch,
    zeros: Vec<f32>,
    residuals: Vec<f32>,
}

impl Assigner {
    /// Gives second lists to rows whose gap is at most `spill_gap`.
    pub fn new(spill_gap: f32) -> Self {
        Self { spill_gap, ..Self::default() }
    }

    /// Where framed rows go.
    pub fn assign(&mut self, kernels: &Kernels, router: &Router, rows: &[f32]) -> Vec<Assigned> {
        let dim = router.dim();
        if router.n_lists() == 1 {
            let of = |row: &[f32]| kernels.canonical_sqeuclidean(row, router.centroid(0)) as f32;
            let only = |row| Assigned { first: 0, second: None, distance: of(row), gap: f32::INFINITY };
            return rows.chunks_exact(dim).map(only).collect();
        }
        self.zeros.resize(dim, 0.0);
        self.codes.code(kernels, rows, dim, &self.zeros);
        let reach = Reach { n_probe: CANDIDATES, gap: None, wanted: None, by_distance: true };
        router.route(kernels, rows, &self.codes, reach, &mut self.probes, &mut self.route);
        let spills = self.spill_gap > f32::NEG_INFINITY;
        let mut out = Vec::with_capacity(rows.len() / dim);
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            let lists = &self.probes.lists[self.probes.of(i)];
            let mut distances = [0.0f32; CANDIDATES];
            let distances = &mut distances[..lists.len()];
            let mut centroids: [&[f32]; CANDIDATES] = [&[]; CANDIDATES];
            let centroids = &mut centroids[..lists.len()];
            centroids.iter_mut().zip(lists).for_each(|(place, &list)| *place = router.centroid(list));
            kernels.sqeuclidean::<f32>(row, Rows::Scattered(centroids), distances);
            let best = |a: &usize, b: &usize| {
                distances[*a].total_cmp(&distances[*b]).then(lists[*a].cmp(&lists[*b]))
            };
            let nearest = (0..lists.len()).min_by(best).expect("there is a list");
            let mut assigned = Assigned {
                first: lists[nearest],
                second: None,
                distance: distances[nearest],
                gap: f32::INFINITY,
            };
            if spills {
                // ⟨x − c, x − c'⟩ of every c'.
                let residual = &mut self.residuals;
                residual.clear();
                residual.extend(row.iter().zip(centroids[nearest]).map(|(x, c)| x - c));
                let mut with_row = [0.0];
                kernels.dot::<f32>(residual, Rows::Contiguous(row), &mut with_row);
                let mut dots = [0.0f32; CANDIDATES];
                let dots = &mut dots[..lists.len()];
                kernels.dot::<f32>(residual, Rows::Scattered(centroids), dots);
                let scale = 1.0 / distances[nearest].max(f32::MIN_POSITIVE);
                for (other, &list) in lists.iter().enumerate() {
                    let along = with_row[0] - dots[other];
                    let gap = distances[other] + along * along * scale - distances[nearest];
                    if other != nearest && gap < assigned.gap {
                        assigned.gap = gap;
                        assigned.second = Some(list);
                    }
                }
                assigned.second = assigned.second.filter(|_| assigned.gap <= self.spill_gap);
            }
            out.push(assigned);
        }
        out
    }
}

/// Rows that were coded: their entries in lists, and what is kept of each beside.
#[derive(Debug, Default)]
pub struct Coded {
    /// Entries, by row; row numbers count from 0.
    pub entries: Entries,
    /// [`Lists::kept_bytes`] a row, if anything is kept.
    pub kept: Vec<u8>,
    /// The sum of the squared distances from their centroids.
    pub distance: f64,
}

impl Coded {
    /// Takes over others, which come after these.
    pub fn append(&mut self, mut other: Coded) {
        self.entries.append(other.entries);
        if self.kept.is_empty() {
            self.kept = other.kept;
        } else {
            self.kept.append(&mut other.kept);
        }
        self.distance += other.distance;
    }
}

impl Lists {
    /// Bytes that are kept of a row beside its lists, where vectors are not kept as they are: its second code, or else
    /// the number of its list.
    pub fn kept_bytes(&self) -> usize {
        self.second.as_ref().map_or(4, |second| second.kept_bytes())
    }

    /// Codes rows; `keeps` if something is to be kept beside.
    pub fn code<P: Points>(&self, rows: &P, keeps: bool, work: &Work<'_>) -> Result<Coded> {
        let n = rows.len();
        let grouped = self.router.grouping().is_some() && n >= 16 * GROUPED_ROWS;
        let size = if grouped { GROUPED_ROWS } else { ROWS };
        let worker = || Worker { assigner: Assigner::new(self.spill_gap), ..Worker::default() };
        let parts = work.map("coding vectors", n.div_ceil(size), worker, |worker, i| {
            let first = i * size;
            Ok(self.code_part(rows, first..n.min(first + size), keeps, worker))
        })?;
        let distance = parts.iter().map(|part| part.distance).sum();
        let mut kept = Vec::with_capacity(parts.iter().map(|part| part.kept.len()).sum());
        parts.iter().for_each(|part| kept.extend_from_slice(&part.kept));
        let entries = Entries::joined(parts.into_iter().map(|part| part.entries));
        Ok(Coded { entries, kept, distance })
    }

    fn code_part<P: Points>(
        &self,
        rows: &P,
        range: std::ops::Range<usize>,
        keeps: bool,
        worker: &mut Worker,
    ) -> Coded {
        let kernels = Kernels::best();
        let (coding, dim) = (&self.coding, rows.dim());
        let Worker { assigner, values, framed, frame, coding: scratch, bytes, .. } = worker;
        values.resize(range.len() * dim, 0.0);
        framed.resize(range.len() * dim, 0.0);
        rows.read(range.clone(), values);
        for (row, out) in values.chunks_exact(dim).zip(framed.chunks_exact_mut(dim)) {
            coding.frame().row(kernels, row, frame, out);
        }
        let found = assigner.assign(kernels, &self.router, framed);
        let code_bytes = coding.code_bytes();
        let mut coded = Coded::default();
        let entries = &mut coded.entries;
        for (i, assigned) in found.iter().enumerate() {
            let row = (range.start + i) as Row;
            let (raw, framed) = (&values[i * dim..][..dim], &framed[i * dim..][..dim]);
            for list in [Some(assigned.first), assigned.second].into_iter().flatten() {
                let start = entries.codes.len();
                entries.codes.resize(start + code_bytes, 0);
                let code = &mut entries.codes[start..];
                let term = match coding.codec() {
                    Codec::Short(_) => {
                        coding.encode(kernels, framed, self.router.centroid(list), row, code, scratch)
                    }
                    Codec::UInt8 => {
                        bytes.clear();
                        bytes.extend(raw.iter().map(|&x| x as u8));
                        coding.encode_native(kernels, bytes, row, code)
                    }
                    Codec::Int8 => {
                        bytes.clear();
                        bytes.extend(raw.iter().map(|&x| x as i8 as u8));
                        coding.encode_native(kernels, bytes, row, code)
                    }
                };
                entries.lists.push(list);
                entries.terms.push(term);
            }
            coded.distance += f64::from(assigned.distance);
            if keeps {
                match &self.second {
                    None => coded.kept.extend(assigned.first.to_le_bytes()),
                    Some(second) => {
                        let bias = second.bias(kernels, framed);
                        second.keep(kernels, framed, bias, &mut coded.kept, scratch);
                    }
                }
            }
        }
        coded
    }
}

#[derive(Debug, Default)]
struct Worker {
    assigner: Assigner,
    values: Vec<f32>,
    framed: Vec<f32>,
    frame: Vec<f32>,
    coding: coding::Scratch,
    bytes: Vec<u8>,
}
