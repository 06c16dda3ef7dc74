//! How well short codes rank real vectors: the table of `docs/decisions/0005-short-codes.md`.
//!
//! `cargo run --release -p nearest-core --example short_codes -- FOLDER [NAME…]`, with a folder as `data` reads it.
//!
//! All rows are ranked by the estimate that lists can use. With c the centre of a row's list, µ the mean of all rows and r̂
//! the coded r = x − c,
//!
//! ‖q − x‖² ≈ ‖q − c‖² + ‖r‖² − 2 ⟨q − c, r̂⟩, and ⟨q − c, r̂⟩ = ⟨q − µ, r̂⟩ − ⟨c − µ, r̂⟩.
//!
//! The last term belongs to the row and is computed when it is coded. So a query is coded once, in 8 bits, for all lists,
//! and yet only ⟨q − c, r − r̂⟩ is lost, which is small where c is near. Cosine is Euclidean distance of unit vectors.
//! A column R says how many of the true 10 are among the R best by the estimate; neighbours count by distance.

mod data;

use std::path::Path;

use data::{Data, K};
use nearest_core::coder::{Coder, CoderScratch, ShortEncoding};
use nearest_core::pca::Pca;
use nearest_core::rotation::Rotation;
use nearest_core::work::{Silent, Work};
use nearest_kernels::{Kernels, PANEL_ROWS, PanelQueries, PanelRows, Rows, panel_depth};

const KEPT: usize = 100;
const COLUMNS: [usize; 5] = [10, 15, 20, 40, 100];

fn sqeuclidean(a: &[f32], b: &[f32]) -> f64 {
    Kernels::best().canonical_sqeuclidean(a, b)
}

/// Centres, and the rows of each.
struct Lists {
    centres: Vec<f32>,
    rows: Vec<Vec<usize>>,
}

fn mean(data: &Data, rows: &[usize]) -> Vec<f32> {
    let mut sums = vec![0.0f64; data.dim];
    for &row in rows {
        for (sum, x) in sums.iter_mut().zip(&data.base[row * data.dim..][..data.dim]) {
            *sum += f64::from(*x);
        }
    }
    sums.iter().map(|sum| (sum / rows.len().max(1) as f64) as f32).collect()
}

fn assign(data: &Data, centres: Vec<f32>) -> Lists {
    let n_lists = centres.len() / data.dim;
    let mut rows = vec![Vec::new(); n_lists];
    let mut distances = vec![0.0; n_lists];
    for (row, x) in data.base.chunks_exact(data.dim).enumerate() {
        Kernels::best().sqeuclidean::<f32>(x, Rows::Contiguous(&centres), &mut distances);
        let nearest = (0..n_lists).min_by(|&a, &b| distances[a].total_cmp(&distances[b])).unwrap_or(0);
        rows[nearest].push(row);
    }
    Lists { centres, rows }
}

/// Plain k-means (Lloyd).
fn cluster(data: &Data, n_lists: usize) -> Lists {
    let step = data.base.len() / data.dim / n_lists;
    let mut centres: Vec<f32> =
        (0..n_lists).flat_map(|i| &data.base[i * step * data.dim..][..data.dim]).copied().collect();
    for _ in 0..8 {
        let lists = assign(data, centres);
        centres = lists.rows.iter().flat_map(|rows| mean(data, rows)).collect();
    }
    assign(data, centres)
}

/// The best estimates of one query.
#[derive(Clone, Default)]
struct Best(Vec<(f32, usize)>);

impl Best {
    fn cut(&mut self) {
        if self.0.len() > KEPT {
            self.0.select_nth_unstable_by(KEPT - 1, |a, b| b.0.total_cmp(&a.0));
            self.0.truncate(KEPT);
        }
    }

    fn limit(&mut self) -> f32 {
        self.cut();
        if self.0.len() < KEPT {
            f32::NEG_INFINITY
        } else {
            self.0.iter().fold(f32::INFINITY, |a, b| a.min(b.0))
        }
    }
}

/// The same vectors, turned so that the first components vary most, the others left out. (That the rows'
/// lengths are known would not help: near neighbours are alike in what is left out, too.)
fn turned(data: &Data, n_components: usize) -> Data {
    let (kernels, work) = (Kernels::best(), Work::new(None, &Silent));
    let pca = Pca::train(&data.base, data.dim, n_components, kernels, &work).expect("components");
    let turn = |vectors: &[f32]| {
        let mut out = vec![0.0; vectors.len() / data.dim * n_components];
        for (x, out) in vectors.chunks_exact(data.dim).zip(out.chunks_exact_mut(n_components)) {
            pca.apply(kernels, x, out);
        }
        out
    };
    Data {
        dim: n_components,
        base: turn(&data.base),
        queries: turn(&data.queries),
        limits: data.limits.clone(),
        metric: data.metric,
        is_uint8: false,
    }
}

/// Ranks the rows of `data`, which has those of `whole` in one form or another.
fn rank(whole: &Data, data: &Data, lists: &Lists, encoding: ShortEncoding, rotated: bool) -> (Vec<f64>, f64) {
    let (dim, kernels) = (data.dim, Kernels::best());
    let depth = panel_depth(dim);
    let n_queries = data.queries.len() / dim;
    let rotation = Rotation::new(dim, 1).expect("a dimension");
    let difference = |x: &[f32], from: &[f32], out: &mut [f32]| {
        let difference: Vec<f32> = x.iter().zip(from).map(|(x, from)| x - from).collect();
        if rotated { rotation.apply(kernels, &difference, out) } else { out.copy_from_slice(&difference) }
    };
    let row = |row: usize| &data.base[row * dim..][..dim];
    let n_rows = data.base.len() / dim;
    let mean = mean(data, &(0..n_rows).collect::<Vec<_>>());
    let mut out = vec![0.0; dim];

    let mut sample = Vec::new();
    for (rows, centre) in lists.rows.iter().zip(lists.centres.chunks_exact(dim)) {
        for &i in rows.iter().step_by((n_rows / 16_384).max(1)) {
            difference(row(i), centre, &mut out);
            sample.extend_from_slice(&out);
        }
    }
    let work = Work::new(None, &Silent);
    let coder = Coder::train(encoding, dim, &sample, 1, kernels, &work).expect("a coder");

    let (mut codes, mut start) = (vec![0i8; n_queries * depth], vec![0i32; n_queries]);
    let mut weight = vec![0.0f32; n_queries];
    let zeros = vec![0.0; dim];
    for (q, query) in data.queries.chunks_exact(dim).enumerate() {
        difference(query, &mean, &mut out);
        let code = kernels.quantise_query(&out, &zeros, &mut codes[q * depth..][..depth]);
        start[q] = -coder.zero() * code.sum;
        weight[q] = 1.0 / code.scale;
    }

    let mut best = vec![Best::default(); n_queries];
    let mut scratch = CoderScratch::default();
    let mut panel = vec![0; coder.panel_bytes()];
    let mut bytes = vec![0; PANEL_ROWS * depth];
    let mut hits = Vec::new();
    let (mut from_mean, mut decoded) = (vec![0.0; dim], vec![0.0; dim]);
    let mut relative = 0.0;
    for (rows, centre) in lists.rows.iter().zip(lists.centres.chunks_exact(dim)) {
        difference(centre, &mean, &mut from_mean);
        let of_query = |query| (-0.5 * sqeuclidean(query, centre)) as f32;
        let offset: Vec<f32> = data.queries.chunks_exact(dim).map(of_query).collect();
        for group in rows.chunks(PANEL_ROWS) {
            let (mut scale, mut bias) = ([0.0; PANEL_ROWS], [f32::NEG_INFINITY; PANEL_ROWS]);
            let mut of_rows = vec![0; group.len() * coder.code_bytes()];
            for (r, (&i, code)) in group.iter().zip(of_rows.chunks_exact_mut(coder.code_bytes())).enumerate()
            {
                difference(row(i), centre, &mut out);
                let terms = coder.encode(kernels, &out, code, &mut scratch);
                coder.decode(code, terms.scale, &mut decoded);
                let squared = kernels.canonical_squared_norm(&out);
                scale[r] = terms.scale;
                bias[r] = (-0.5 * squared - kernels.canonical_dot(&from_mean, &decoded)) as f32;
                relative += if squared > 0.0 { f64::from(terms.error) / squared.sqrt() } else { 0.0 };
            }
            coder.pack_panel(&of_rows, &mut panel, &mut scratch);
            coder.unpack_panel(kernels, &panel, &mut bytes);
            let limits = best.iter_mut().zip(&offset).zip(&weight);
            let threshold: Vec<f32> = limits.map(|((best, o), w)| (best.limit() - o) * w).collect();
            let tile = PanelRows { panel: &bytes, scale: &scale, bias: &bias, mutual: None, ahead: &[] };
            let queries = PanelQueries {
                codes: &codes,
                start: &start,
                weight: &weight,
                threshold: &threshold,
                mutual_threshold: &[],
            };
            hits.clear();
            kernels.tile_i8(&tile, &queries, &mut hits);
            for hit in &hits {
                let (q, r) = (hit.query as usize, hit.row as usize);
                if let Some(&i) = group.get(r) {
                    best[q].0.push((scale[r] * hit.sum as f32 / weight[q] + bias[r] + offset[q], i));
                }
            }
        }
    }
    let mut found = vec![0.0; COLUMNS.len()];
    for ((best, query), limit) in
        best.iter_mut().zip(whole.queries.chunks_exact(whole.dim)).zip(&whole.limits)
    {
        best.0.sort_by(|a, b| b.0.total_cmp(&a.0));
        let is_true: Vec<bool> = best
            .0
            .iter()
            .map(|&(_, row)| sqeuclidean(query, &whole.base[row * whole.dim..][..whole.dim]) <= *limit)
            .collect();
        for (found, &column) in found.iter_mut().zip(&COLUMNS) {
            let n = is_true[..column].iter().filter(|is| **is).count().min(K);
            *found += n as f64 / (K * n_queries) as f64;
        }
    }
    (found, relative / n_rows as f64)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a folder of .npy files");
    let names: Vec<String> = arguments.collect();
    let data = Data::read(Path::new(&folder));
    let n_rows = data.base.len() / data.dim;
    println!("{folder}: {n_rows} × {}, kernels {}", data.dim, Kernels::best().name());
    let all: Vec<usize> = (0..n_rows).collect();
    let centre = mean(&data, &all);
    let one = Lists { centres: centre, rows: vec![all] };
    let many = cluster(&data, 1024);
    let m = |per: usize| (data.dim / per) as u16;
    let mut encodings =
        vec![(ShortEncoding::Scalar8, false), (ShortEncoding::Scalar8, true), (ShortEncoding::Scalar4, true)];
    encodings.extend((1..=6).map(|bits| (ShortEncoding::Rabitq { bits }, true)));
    for (m, bits) in [(m(4), 4), (m(2), 4), (m(4), 8)] {
        encodings.extend([false, true].map(|rotated| (ShortEncoding::Product { m, bits }, rotated)));
    }
    println!("| encoding | rotated | lists | ‖x − x̂‖/‖x‖ | {} |", COLUMNS.map(|n| n.to_string()).join(" | "));
    println!("|---|---|---|---|{}", "---|".repeat(COLUMNS.len()));
    let is_asked = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let print = |name: &str, rotated: bool, n_lists: usize, (found, relative): (Vec<f64>, f64)| {
        let found: Vec<String> = found.iter().map(|found| format!("{found:.3}")).collect();
        let rotated = if rotated { "yes" } else { "no" };
        println!("| {name} | {rotated} | {n_lists} | {relative:.4} | {} |", found.join(" | "));
    };
    for (encoding, rotated) in encodings {
        if is_asked(&encoding.name()) {
            for lists in [&one, &many] {
                print(
                    &encoding.name(),
                    rotated,
                    lists.rows.len(),
                    rank(&data, &data, lists, encoding, rotated),
                );
            }
        }
    }
    for (part, bits) in [(2, 4), (2, 8), (4, 8)] {
        let encoding = ShortEncoding::Rabitq { bits };
        let name = format!("first 1/{part} of the principal components, {}", encoding.name());
        if is_asked(&name) {
            let turned = turned(&data, data.dim / part);
            let centre = Lists { centres: vec![0.0; turned.dim], rows: one.rows.clone() };
            print(&name, true, 1, rank(&data, &turned, &centre, encoding, true));
        }
    }
}
