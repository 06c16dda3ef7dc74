//! Rows and queries as codes, and estimates from them.
//!
//! The nearer a row, the higher its score S. In the frame of the lists, with c the centroid of the row's list and
//! r = x − c coded as r̂ = t (u − z) (`t` the row's scale, `u` its bytes, `z` the code of zero), and the query coded as q̂ = s v:
//!
//! | metric | score S | base (query and list) | bias (row) |
//! |---|---|---|---|
//! | euclidean, cosine | q·x − ‖x‖²/2 = q·c + q·r − ‖x‖²/2 | q·c | −‖x‖²/2 + c·(r − r̂) |
//! | inner product | q·x = q·c + q·r | q·c | c·(r − r̂) |
//!
//! The last term stands for what coding the query less its centroid would bring: then the code's error meets only q − c, as
//! it should where q is near c, and yet the query is coded once for all lists (recall@10 of the estimates alone, 4 bits,
//! 1 024 lists: photos 0.898 without it, 0.926 with it; 1 bit 0.443 and 0.581).
//!
//! So S ≈ s (t Σ v (u − z) + bias / s) + base: what the tile computes, with weight 1 / s. Cosines are those of normalised
//! vectors, whose squared Euclidean distance is 2 − 2 cos.
//!
//! Integer vectors are packed as they are (base 0, no centroid subtracted), so that with integer queries sums are exact:
//!
//! | rows | bytes u | query code v | bias (euclidean) |
//! |---|---|---|---|
//! | uint8 | x | (q − 128) / s | 128 Σ x − ‖x‖²/2 |
//! | int8 | x + 128 | q / s | −‖x‖²/2 |

use nearest_kernels::{Hit, Kernels, PANEL_ROWS, PanelQueries, PanelRows, panel_depth};

use super::block::{Panel, Term};
use super::frame::Frame;
use crate::coder::{Coder, CoderScratch};
use crate::column::Row;
use crate::metric::Metric;

/// Below this, float32 holds all multiples of ½.
pub const EXACT_BELOW: f32 = (1 << 23) as f32;

/// How the rows of lists are coded.
#[derive(Clone, Debug)]
pub struct Coding {
    frame: Frame,
    codec: Codec,
    loss: Loss,
}

/// What coding loses, in the frame: root mean squares over the rows it was trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// ‖r − r̂‖.
    pub error: f32,
    /// ‖r‖.
    pub spread: f32,
}

/// What the bytes of a panel are.
#[derive(Clone, Debug, PartialEq)]
pub enum Codec {
    /// Vectors of uint8 as they are.
    UInt8,
    /// Vectors of int8, 128 higher.
    Int8,
    /// Codes of what centroids leave.
    Short(Coder),
}

/// Queries, coded.
#[derive(Debug, Default)]
pub struct QueryCodes {
    /// In the frame of the lists.
    pub framed: Vec<f32>,
    /// For centroids: codes, Σ v · −128, 1 / s.
    pub route: CodedQueries,
    /// For rows.
    pub rows: CodedQueries,
}

/// One side of a tile.
#[derive(Debug, Default)]
pub struct CodedQueries {
    /// n × depth.
    pub codes: Vec<i8>,
    /// What sums start from.
    pub start: Vec<i32>,
    /// 1 / s.
    pub weight: Vec<f32>,
    /// What a unit of the estimates is worth: s; s / ‖q‖ for integers where only directions count.
    pub unit: Vec<f32>,
}

impl QueryCodes {
    /// Adds one of others, of `depth` codes.
    pub fn take(&mut self, other: &Self, query: usize, dim: usize, depth: usize) {
        self.framed.extend_from_slice(&other.framed[query * dim..][..dim]);
        self.route.take(&other.route, query, depth);
        self.rows.take(&other.rows, query, depth);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.framed.clear();
        self.route.clear();
        self.rows.clear();
    }
}

impl CodedQueries {
    /// Codes vectors of `dim` numbers, relative to `centre`.
    pub fn code(&mut self, kernels: &Kernels, values: &[f32], dim: usize, centre: &[f32]) {
        let depth = panel_depth(dim);
        self.clear();
        self.codes.resize(values.len() / dim * depth, 0);
        for (i, query) in values.chunks_exact(dim).enumerate() {
            let code = kernels.quantise_query(query, centre, &mut self.codes[i * depth..][..depth]);
            self.push(code, 128);
        }
    }

    fn push(&mut self, code: nearest_kernels::QueryCode, zero: i32) {
        // A query that is all centre has no scale: its codes are 0 and any will do.
        let unit = if code.scale > 0.0 { code.scale } else { 1.0 };
        self.start.push(code.sum.wrapping_mul(-zero));
        self.weight.push(1.0 / unit);
        self.unit.push(unit);
    }

    /// Some of them, `depth` codes each, as a tile takes them that looks at no threshold.
    pub fn panel(&self, range: std::ops::Range<usize>, depth: usize) -> PanelQueries<'_, i8> {
        PanelQueries {
            codes: &self.codes[range.start * depth..range.end * depth],
            start: &self.start[range.clone()],
            weight: &self.weight[range],
            threshold: &[],
            mutual_threshold: &[],
        }
    }

    /// Adds one of others.
    pub fn take(&mut self, other: &Self, query: usize, depth: usize) {
        self.codes.extend_from_slice(&other.codes[query * depth..][..depth]);
        self.start.push(other.start[query]);
        self.weight.push(other.weight[query]);
        self.unit.push(other.unit[query]);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.codes.clear();
        self.start.clear();
        self.weight.clear();
        self.unit.clear();
    }
}

/// Buffers for coding.
#[derive(Debug, Default)]
pub struct Scratch {
    frame: Vec<f32>,
    residual: Vec<f32>,
    decoded: Vec<f32>,
    zeros: Vec<f32>,
    /// For coders.
    pub coder: CoderScratch,
}

impl Coding {
    /// Codes in a frame.
    pub fn new(frame: Frame, codec: Codec, loss: Loss) -> Self {
        Self { frame, codec, loss }
    }

    /// What coding loses.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The space of centroids and codes.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// What the bytes of a panel are.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Numbers a vector.
    pub fn dim(&self) -> usize {
        self.frame.dim()
    }

    /// Bytes of a panel as the tile takes it, of one row.
    pub fn depth(&self) -> usize {
        panel_depth(self.dim())
    }

    /// Bytes of one row's code.
    pub fn code_bytes(&self) -> usize {
        match &self.codec {
            Codec::UInt8 | Codec::Int8 => self.dim(),
            Codec::Short(coder) => coder.code_bytes(),
        }
    }

    /// Bytes of a packed panel.
    pub fn panel_bytes(&self) -> usize {
        match &self.codec {
            Codec::UInt8 | Codec::Int8 => PANEL_ROWS * self.depth(),
            Codec::Short(coder) => coder.panel_bytes(),
        }
    }

    /// Packs up to 32 codes.
    pub fn pack_panel(&self, codes: &[u8], panel: &mut [u8], scratch: &mut CoderScratch) {
        match &self.codec {
            Codec::UInt8 | Codec::Int8 => nearest_kernels::pack_panel_bytes(codes, self.dim(), panel),
            Codec::Short(coder) => coder.pack_panel(codes, panel, scratch),
        }
    }

    /// The code of one row of a panel.
    pub fn row_of_panel(&self, panel: &[u8], row: usize, code: &mut [u8]) {
        match &self.codec {
            Codec::UInt8 | Codec::Int8 => {
                for (group, out) in panel.chunks_exact(4 * PANEL_ROWS).zip(code.chunks_mut(4)) {
                    out.copy_from_slice(&group[4 * row..][..out.len()]);
                }
            }
            Codec::Short(coder) => coder.row_of_panel(panel, row, code),
        }
    }

    /// One row of a panel as the integers it was, as bytes.
    pub fn native_row(&self, panel: &[u8], row: usize, out: &mut [u8]) {
        self.row_of_panel(panel, row, out);
        if matches!(self.codec, Codec::Int8) {
            out.iter_mut().for_each(|byte| *byte ^= 0x80);
        }
    }

    /// A panel as the tile takes it: itself, or unpacked into `bytes`.
    pub fn unpacked<'a>(&self, kernels: &Kernels, panel: &'a [u8], bytes: &'a mut Vec<u8>) -> &'a [u8] {
        match &self.codec {
            Codec::Short(coder) if !coder.is_identity() => {
                bytes.resize(PANEL_ROWS * self.depth(), 0);
                coder.unpack_panel(kernels, panel, bytes);
                bytes
            }
            _ => panel,
        }
    }

    /// Multiplies a panel with queries and pushes the pairs that thresholds let in; asks for what is looked at next.
    pub fn tile(
        &self,
        kernels: &Kernels,
        panel: Panel<'_>,
        queries: &PanelQueries<'_, i8>,
        ahead: &[u8],
        bytes: &mut Vec<u8>,
        hits: &mut Vec<Hit<i32>>,
    ) {
        let mut rows =
            PanelRows { panel: panel.codes, scale: panel.scales, bias: panel.biases, mutual: None, ahead };
        match &self.codec {
            // What only one query looks at is not worth unpacking.
            Codec::Short(coder) if let (Some(bits), 1) = (coder.plane_bits(), queries.start.len()) => {
                nearest_kernels::prefetch(ahead);
                kernels.tile_planes(bits, &rows, queries, hits);
            }
            _ => {
                rows.panel = self.unpacked(kernels, panel.codes, bytes);
                kernels.tile_i8(&rows, queries, hits);
            }
        }
    }

    /// Whether packed panels are the bytes that tiles take.
    pub fn is_bytes(&self) -> bool {
        match &self.codec {
            Codec::UInt8 | Codec::Int8 => true,
            Codec::Short(coder) => coder.is_identity(),
        }
    }

    /// Codes a row of integers as they are.
    pub fn encode_native(&self, kernels: &Kernels, bytes: &[u8], row: Row, code: &mut [u8]) -> Term {
        let (sum, squares) = match &self.codec {
            Codec::UInt8 => {
                code.copy_from_slice(bytes);
                let sum: u32 = bytes.iter().map(|&x| u32::from(x)).sum();
                (f64::from(sum) * 128.0, kernels.canonical_squared_norm(bytes))
            }
            Codec::Int8 => {
                let signed: &[i8] = bytemuck::cast_slice(bytes);
                code.iter_mut().zip(bytes).for_each(|(code, x)| *code = x ^ 0x80);
                (0.0, kernels.canonical_squared_norm(signed))
            }
            Codec::Short(_) => unreachable!("integers are coded as they are"),
        };
        let (scale, bias) = match self.frame.metric() {
            Metric::InnerProduct => (1.0, sum),
            metric if metric.is_angular() && squares == 0.0 => (0.0, 0.0),
            metric if metric.is_angular() => (1.0 / squares.sqrt(), sum / squares.sqrt()),
            _ => (1.0, sum - squares / 2.0),
        };
        Term { scale: scale as f32, bias: bias as f32, row }
    }

    /// Codes a row of the frame, relative to its centroid.
    pub fn encode(
        &self,
        kernels: &Kernels,
        framed: &[f32],
        centroid: &[f32],
        row: Row,
        code: &mut [u8],
        scratch: &mut Scratch,
    ) -> Term {
        let Codec::Short(coder) = &self.codec else { unreachable!("integers are coded as they are") };
        scratch.residual.clear();
        scratch.residual.extend(framed.iter().zip(centroid).map(|(x, c)| x - c));
        let terms = coder.encode(kernels, &scratch.residual, code, &mut scratch.coder);
        scratch.decoded.resize(framed.len(), 0.0);
        coder.decode(code, terms.scale, &mut scratch.decoded);
        let lost = scratch.residual.iter().zip(&scratch.decoded).map(|(r, decoded)| r - decoded);
        let along: f64 = lost.zip(centroid).map(|(lost, &c)| f64::from(lost) * f64::from(c)).sum();
        let bias = match self.frame.metric() {
            Metric::InnerProduct => along,
            _ => along - 0.5 * kernels.canonical_squared_norm(framed),
        };
        // No score is infinitely good.
        Term { scale: terms.scale, bias: bias.min(f32::MAX.into()) as f32, row }
    }

    /// What a row of a panel stands for, plus `offset`; integers as they are.
    pub fn decode_in_panel(
        &self,
        kernels: &Kernels,
        (panel, row): (&[u8], usize),
        scale: f32,
        offset: &[f32],
        bytes: &mut Vec<u8>,
        out: &mut [f32],
    ) {
        let (zero, scale) = match &self.codec {
            Codec::UInt8 => (0, 1.0),
            Codec::Int8 => (128, 1.0),
            Codec::Short(coder) => (coder.zero(), scale),
        };
        let panel = self.unpacked(kernels, panel, bytes);
        kernels.decode_panel_row(panel, row, (zero, scale), offset, out);
    }

    /// The score that a row at most `radius` away has at least, less what coding usually costs.
    pub fn least_score(&self, framed: &[f32], radius: f32) -> f32 {
        (self.score_at(framed, radius) - self.margin(framed)) as f32
    }

    /// The score of a row at `radius`.
    pub fn score_at(&self, framed: &[f32], radius: f32) -> f64 {
        let squared = framed.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let radius = f64::from(radius);
        let cosine = match self.frame.metric() {
            Metric::Angular => 1.0 - radius.clamp(0.0, std::f64::consts::PI).cos(),
            _ => radius,
        };
        match (self.frame.metric(), &self.codec) {
            (Metric::InnerProduct, _) => -radius - self.frame.offset(framed),
            (Metric::Cosine | Metric::Angular, Codec::Short(_)) => squared / 2.0 - cosine,
            (Metric::Cosine | Metric::Angular, _) => 1.0 - cosine,
            (Metric::SqEuclidean, _) => (squared - radius) / 2.0,
            _ => (squared - radius.max(0.0).powi(2)) / 2.0,
        }
    }

    /// By how much scores of this query are rarely off: thrice what coding usually costs.
    pub fn margin(&self, framed: &[f32]) -> f64 {
        let squared = framed.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let per_norm = 3.0 * f64::from(self.loss.error) / (self.dim() as f64).sqrt()
            + 0.004 * f64::from(self.loss.spread);
        per_norm * squared.sqrt()
    }

    /// Whether scores of rows that are kept as they are are exact for a query of integers like theirs, below
    /// [`EXACT_BELOW`]: sums, biases and scores are then whole multiples of ½ that float32 holds.
    pub fn scores_exactly(&self, query: &[f32]) -> bool {
        let least = match &self.codec {
            Codec::UInt8 => 0.0,
            Codec::Int8 => -128.0,
            Codec::Short(_) => return false,
        };
        // At most dim · 255 · 128 is added to a score.
        let fits = self.dim() as f32 * 255.0 * 128.0 < EXACT_BELOW;
        fits && !self.frame.metric().is_angular() && are_bytes(query, least)
    }

    /// Whether codes are relative to centroids.
    pub fn is_relative(&self) -> bool {
        matches!(self.codec, Codec::Short(_))
    }

    /// Codes queries.
    pub fn queries(&self, kernels: &Kernels, values: &[f32], out: &mut QueryCodes, scratch: &mut Scratch) {
        let (dim, depth) = (self.dim(), self.depth());
        let n = values.len() / dim;
        scratch.zeros.resize(dim, 0.0);
        out.framed.resize(n * dim, 0.0);
        for (query, framed) in values.chunks_exact(dim).zip(out.framed.chunks_exact_mut(dim)) {
            self.frame.query(kernels, query, &mut scratch.frame, framed);
        }
        out.route.code(kernels, &out.framed, dim, &scratch.zeros);
        out.rows.clear();
        match &self.codec {
            Codec::Short(coder) => {
                let zero = coder.zero();
                out.rows.codes.clone_from(&out.route.codes);
                out.rows.weight.clone_from(&out.route.weight);
                out.rows.unit.clone_from(&out.route.unit);
                // start was −128 Σ v, exactly, and dim is small enough for either not to wrap.
                out.rows.start.extend(out.route.start.iter().map(|start| start / -128 * -zero));
            }
            Codec::UInt8 | Codec::Int8 => {
                let signed = matches!(self.codec, Codec::Int8);
                let centre = vec![if signed { 0.0 } else { 128.0 }; dim];
                let mut codes = std::mem::take(&mut out.rows.codes);
                codes.resize(n * depth, 0);
                let angular = self.frame.metric().is_angular();
                for (query, place) in values.chunks_exact(dim).zip(codes.chunks_exact_mut(depth)) {
                    let norm = if angular { kernels.canonical_squared_norm(query).sqrt() } else { 1.0 };
                    let length = if norm > 0.0 { norm as f32 } else { 1.0 };
                    if are_bytes(query, if signed { -128.0 } else { 0.0 }) {
                        let mut sum = 0i32;
                        for ((place, &x), &c) in place.iter_mut().zip(query).zip(&centre) {
                            *place = (x - c) as i8;
                            sum += i32::from(*place);
                        }
                        out.rows.start.push(if signed { -128 * sum } else { 0 });
                        out.rows.weight.push(1.0);
                        out.rows.unit.push(1.0 / length);
                    } else {
                        let code = kernels.quantise_query(query, &centre, place);
                        out.rows.push(code, if signed { 128 } else { 0 });
                        *out.rows.unit.last_mut().expect("just pushed") /= length;
                    }
                }
                out.rows.codes = codes;
            }
        }
    }
}

/// Whether all numbers are integers from `least` to `least + 255`.
fn are_bytes(values: &[f32], least: f32) -> bool {
    // Without a branch for each: many at once.
    values.iter().fold(true, |all, &x| {
        let whole = x as i32 as f32 == x;
        all & whole & (x >= least) & (x <= least + 255.0)
    })
}
