//! Vectors of a folder that holds `base.npy`, `queries.npy`, `gt.npy` (rows of the true neighbours) and `metric.npy`, as
//! `unzip data.npz` makes them.
#![allow(dead_code, reason = "each example uses a part")]

use std::path::Path;

use half::f16;
use nearest_core::metric::Metric;
use nearest_kernels::Kernels;

/// Neighbours that recall is about.
pub const K: usize = 10;

pub struct Data {
    pub dim: usize,
    /// Normalised where only directions count.
    pub base: Vec<f32>,
    pub queries: Vec<f32>,
    /// Largest squared distance of the true neighbours, by query.
    pub limits: Vec<f64>,
    pub metric: Metric,
    /// Whether the vectors came as uint8.
    pub is_uint8: bool,
}

/// What a `.npy` file holds: type, shape and bytes.
fn read_npy(path: &Path) -> (String, Vec<usize>, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..10 + header_bytes]).into_owned();
    let after = |key: &str| header.split_once(key).map_or("", |(_, rest)| rest);
    let kind = after("'descr': '").split('\'').next().unwrap_or("").to_owned();
    let shape = after("'shape': (").split(')').next().unwrap_or("");
    let shape = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    (kind, shape, bytes[10 + header_bytes..].to_vec())
}

fn read_floats(path: &Path) -> (String, usize, Vec<f32>) {
    let (kind, shape, bytes) = read_npy(path);
    let values = match kind.as_str() {
        "|u1" => bytes.iter().map(|&byte| f32::from(byte)).collect(),
        "<f2" => bytes.as_chunks().0.iter().map(|&half| f16::from_le_bytes(half).to_f32()).collect(),
        "<f4" => bytes.as_chunks().0.iter().map(|&float| f32::from_le_bytes(float)).collect(),
        _ => panic!("{}: cannot read {kind}", path.display()),
    };
    (kind, shape[1], values)
}

impl Data {
    pub fn read(folder: &Path) -> Self {
        let (kind, dim, mut base) = read_floats(&folder.join("base.npy"));
        let (_, _, mut queries) = read_floats(&folder.join("queries.npy"));
        let (_, shape, truth) = read_npy(&folder.join("gt.npy"));
        let (_, _, metric) = read_npy(&folder.join("metric.npy"));
        let metric = if metric.starts_with(b"c") { Metric::Cosine } else { Metric::Euclidean };
        let kernels = Kernels::best();
        if metric == Metric::Cosine {
            for vector in base.chunks_exact_mut(dim).chain(queries.chunks_exact_mut(dim)) {
                let length = kernels.canonical_squared_norm(vector).sqrt() as f32;
                vector.iter_mut().for_each(|x| *x /= length);
            }
        }
        let truth: Vec<usize> =
            truth.as_chunks().0.iter().map(|&row| i32::from_le_bytes(row) as usize).collect();
        let limits = queries.chunks_exact(dim).zip(truth.chunks_exact(shape[1])).map(|(query, rows)| {
            let of = |&row: &usize| kernels.canonical_sqeuclidean(query, &base[row * dim..][..dim]);
            rows[..K].iter().map(of).fold(0.0, f64::max) * (1.0 + 1e-6)
        });
        let limits = limits.collect();
        Self { dim, base, queries, limits, metric, is_uint8: kind == "|u1" }
    }

    pub fn n(&self) -> usize {
        self.base.len() / self.dim
    }

    pub fn n_queries(&self) -> usize {
        self.limits.len()
    }

    /// The share of the true neighbours among rows that were found, by query.
    pub fn recall(&self, found: &[Vec<u32>]) -> f64 {
        let near = |(query, limit, rows): (&[f32], f64, &Vec<u32>)| {
            let is_near = |&&row: &&u32| {
                let row = &self.base[row as usize * self.dim..][..self.dim];
                Kernels::best().canonical_sqeuclidean(query, row) <= limit
            };
            rows.iter().take(K).filter(is_near).count()
        };
        let all = self.queries.chunks_exact(self.dim).zip(&self.limits).zip(found);
        let n: usize = all.map(|((query, &limit), rows)| near((query, limit, rows))).sum();
        n as f64 / (K * self.n_queries()) as f64
    }
}
