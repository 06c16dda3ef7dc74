//! [`Kernels`]: one table a CPU level, chosen once a process, with safe methods.
//!
//! A table can be had only from [`Kernels::available`], [`Kernels::named`] or [`Kernels::best`], which
//! give it out after its CPU features were detected. That, and the lengths that the methods check, is
//! what the `unsafe` functions in a table rest on.

use std::fmt;
use std::sync::OnceLock;

use half::{bf16, f16};

use crate::MAX_DIM;
use crate::canonical;
use crate::centroids::{Nearest, PanelCentroids, PanelPoints};
use crate::codes::{self, CodeQuery, CodeSums};
use crate::element::Element;
use crate::grid::{self, GridCode};
use crate::panel::{Hit, PANEL_ROWS, PanelQueries, PanelRows, panel_depth};
use crate::panel_row;
use crate::portable;
use crate::quantise::{self, QueryCode, RowCode};
use crate::rotate;
use crate::rows::Rows;
use crate::sums;
use crate::symmetric::{self, RankTwo, STRIP, Turn};
use crate::unpack;
use crate::words::{self, WordTables};
#[cfg(target_arch = "x86_64")]
use crate::x86_64::detected;

pub(crate) type OneToMany<Q, R, S> = unsafe fn(query: &[Q], rows: Rows<'_, R>, out: &mut [S]);
pub(crate) type Norms<R, S> = unsafe fn(dim: usize, rows: Rows<'_, R>, out: &mut [S]);
pub(crate) type Canonical<R> = unsafe fn(query: &[f32], row: &[R]) -> f64;
pub(crate) type Tile<R, C, S> =
    unsafe fn(rows: &PanelRows<'_, R>, queries: &PanelQueries<'_, C>, depth: usize, hits: &mut Vec<Hit<S>>);
pub(crate) type TilePlanes = unsafe fn(
    bits: u32,
    rows: &PanelRows<'_, u8>,
    queries: &PanelQueries<'_, i8>,
    depth: usize,
    hits: &mut Vec<Hit<i32>>,
);
pub(crate) type Estimates<R, C> = unsafe fn(
    rows: &PanelRows<'_, R>,
    queries: &PanelQueries<'_, C>,
    depth: usize,
    out: *mut f32,
    stride: usize,
);
pub(crate) type Choose<R, C, B> = unsafe fn(
    points: &PanelPoints<'_, R>,
    centroids: &PanelCentroids<'_, C>,
    depth: usize,
    first: u32,
    best: &mut B,
);
pub(crate) type Scores<R, C> =
    unsafe fn(points: &PanelPoints<'_, R>, centroids: &PanelCentroids<'_, C>, depth: usize, out: &mut [f32]);

pub(crate) type UpdateRow =
    unsafe fn(row: &mut [f64], by: RankTwo<'_>, x: &[f64], x_row: f64, out: &mut [f64]) -> f64;

pub(crate) type DecodeRow =
    unsafe fn(panel: &[u8], row: usize, zero: i32, scale: f32, offset: &[f32], out: &mut [f32]);

pub(crate) type SumCodes =
    unsafe fn(bits: u32, query: &[[i8; 64]], row_bytes: usize, rows: &[&[u8]], out: &mut [CodeSums]);

/// The kernels of one type of element.
pub struct ElementTable<T: Element> {
    pub(crate) dot: OneToMany<T::Query, T, T::Sum>,
    pub(crate) sqeuclidean: OneToMany<T::Query, T, T::Sum>,
    pub(crate) manhattan: OneToMany<T::Query, T, T::Sum>,
    pub(crate) squared_norms: Norms<T, T::Sum>,
    pub(crate) canonical_dot: Canonical<T>,
    pub(crate) canonical_squared_norm: unsafe fn(row: &[T]) -> f64,
    pub(crate) canonical_sqeuclidean: Canonical<T>,
    pub(crate) canonical_manhattan: Canonical<T>,
    pub(crate) quantise_row: unsafe fn(row: &[T], centre: &[f32], codes: &mut [u8]) -> RowCode,
    pub(crate) add: unsafe fn(row: &[T], weight: f64, sums: &mut [f64]),
    pub(crate) all_finite: unsafe fn(values: &[T]) -> bool,
}

/// The kernels of one CPU level.
pub struct Kernels {
    pub(crate) name: &'static str,
    pub(crate) f32: ElementTable<f32>,
    pub(crate) f16: ElementTable<f16>,
    pub(crate) bf16: ElementTable<bf16>,
    pub(crate) i8: ElementTable<i8>,
    pub(crate) u8: ElementTable<u8>,
    pub(crate) hamming: OneToMany<u8, u8, u32>,
    pub(crate) common_bits: OneToMany<u8, u8, u32>,
    pub(crate) code_sums: SumCodes,
    pub(crate) tile_i8: Tile<u8, i8, i32>,
    pub(crate) tile_f32: Tile<f32, f32, f32>,
    pub(crate) estimates_i8: Estimates<u8, i8>,
    pub(crate) nearest_i8: Choose<u8, i8, Nearest>,
    pub(crate) nearest_f32: Choose<f32, f32, Nearest>,
    pub(crate) two_nearest_i8: Choose<u8, i8, [Nearest; 2]>,
    pub(crate) two_nearest_f32: Choose<f32, f32, [Nearest; 2]>,
    pub(crate) scores_i8: Scores<u8, i8>,
    pub(crate) quantise_query: unsafe fn(query: &[f32], centre: &[f32], codes: &mut [i8]) -> QueryCode,
    pub(crate) decode_panel_row: DecodeRow,
    pub(crate) rotate: unsafe fn(factors: &[f32], values: &mut [f32]),
    pub(crate) rotate_back: unsafe fn(factors: &[f32], values: &mut [f32]),
    pub(crate) quantise_grid: unsafe fn(values: &[f32], bits: u32, levels: &mut [u8]) -> GridCode,
    pub(crate) fit_grid: unsafe fn(values: &[f32], bits: u32, levels: &[u8]) -> GridCode,
    pub(crate) unpack_planes: unsafe fn(bits: u32, packed: &[u8], panel: &mut [u8]),
    pub(crate) tile_planes: TilePlanes,
    pub(crate) unpack_words: unsafe fn(words: &WordTables, packed: &[u8], panel: &mut [u8]),
    pub(crate) update_row: UpdateRow,
    pub(crate) reflect: unsafe fn(strip: &mut [f64], u: &[f64], factor: f64),
    pub(crate) turn: unsafe fn(strip: &mut [f64], turns: &[Turn]),
    pub(crate) nearest_words: unsafe fn(words: &[f32], n_words: usize, values: &[f32], codes: &mut [u8]),
}

macro_rules! portable_table {
    ($dot:ident, $sqeuclidean:ident, $manhattan:ident, $squared_norms:ident) => {
        ElementTable {
            dot: portable::$dot,
            sqeuclidean: portable::$sqeuclidean,
            manhattan: portable::$manhattan,
            squared_norms: portable::$squared_norms,
            canonical_dot: canonical::dot::<_, false>,
            canonical_squared_norm: canonical::squared_norm::<_, false>,
            canonical_sqeuclidean: canonical::sqeuclidean::<_, false>,
            canonical_manhattan: canonical::manhattan::<_, false>,
            quantise_row: quantise::row::<_, false>,
            add: sums::add::<_, false>,
            all_finite: quantise::all_finite,
        }
    };
    (float) => {
        portable_table!(float_dot, float_sqeuclidean, float_manhattan, float_squared_norms)
    };
    (integer) => {
        portable_table!(integer_dot, integer_sqeuclidean, integer_manhattan, integer_squared_norms)
    };
}

static PORTABLE: Kernels = Kernels {
    name: "portable",
    f32: portable_table!(float),
    f16: portable_table!(float),
    bf16: portable_table!(float),
    i8: portable_table!(integer),
    u8: portable_table!(integer),
    hamming: portable::hamming,
    common_bits: portable::common_bits,
    code_sums: codes::portable,
    tile_i8: portable::tile_i8,
    tile_f32: portable::tile_f32,
    estimates_i8: portable::estimates_i8,
    nearest_i8: portable::nearest_i8,
    nearest_f32: portable::nearest_f32,
    two_nearest_i8: portable::two_nearest_i8,
    two_nearest_f32: portable::two_nearest_f32,
    scores_i8: portable::scores_i8,
    quantise_query: quantise::query::<false>,
    decode_panel_row: panel_row::decode,
    rotate: rotate::rotate::<rotate::Portable>,
    rotate_back: rotate::rotate_back::<rotate::Portable>,
    quantise_grid: grid::quantise,
    fit_grid: grid::fit,
    unpack_planes: unpack::planes,
    tile_planes: portable::tile_planes,
    unpack_words: words::unpack::<words::Portable>,
    nearest_words: words::nearest,
    update_row: symmetric::update_row,
    reflect: symmetric::reflect,
    turn: symmetric::turn,
};

/// No other tables for this kind of CPU yet.
#[cfg(not(target_arch = "x86_64"))]
fn detected() -> impl Iterator<Item = &'static Kernels> {
    std::iter::empty()
}

/// The variable that chooses a table by name.
const VARIABLE: &str = "NEAREST_KERNELS";

fn requested() -> Option<&'static str> {
    static REQUESTED: OnceLock<Option<String>> = OnceLock::new();
    let read = || std::env::var_os(VARIABLE).map(|value| value.to_string_lossy().trim().to_ascii_lowercase());
    REQUESTED.get_or_init(read).as_deref().filter(|name| !name.is_empty())
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({})", self.name)
    }
}

impl Kernels {
    /// The table this process uses: the one that `NEAREST_KERNELS` names, else the strongest available.
    ///
    /// Chosen on the first call. A name that is unknown or not available here is passed over;
    /// [`Kernels::requested_but_missing`] tells.
    pub fn best() -> &'static Kernels {
        static BEST: OnceLock<&'static Kernels> = OnceLock::new();
        BEST.get_or_init(|| {
            let strongest = Self::available().last().copied().unwrap_or(&PORTABLE);
            requested().and_then(Self::named).unwrap_or(strongest)
        })
    }

    /// The tables that run on this CPU, weakest first; `portable` is always among them.
    pub fn available() -> &'static [&'static Kernels] {
        static AVAILABLE: OnceLock<Vec<&'static Kernels>> = OnceLock::new();
        AVAILABLE.get_or_init(|| std::iter::once(&PORTABLE).chain(detected()).collect())
    }

    /// The available table of this name: `portable`, `avx2` or `avx512`.
    pub fn named(name: &str) -> Option<&'static Kernels> {
        Self::available().iter().copied().find(|kernels| kernels.name == name)
    }

    /// What `NEAREST_KERNELS` asks for and this CPU, or this library, does not have.
    pub fn requested_but_missing() -> Option<String> {
        let name = requested().filter(|name| Self::named(name).is_none())?;
        let available: Vec<_> = Self::available().iter().map(|kernels| kernels.name).collect();
        Some(format!("{VARIABLE} asks for {name:?}; available here: {}", available.join(", ")))
    }

    /// The name of this table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `Σ query · row` of each row.
    ///
    /// Float kinds sum in `f32`, in any order; integer kinds exactly.
    ///
    /// # Panics
    /// Unless `rows` are `out.len()` rows of `query.len()` elements, with 1 to [`MAX_DIM`] elements.
    #[track_caller]
    pub fn dot<T: Element>(&self, query: &[T::Query], rows: Rows<'_, T>, out: &mut [T::Sum]) {
        check_dim(query.len());
        rows.check(query.len(), out.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (T::table(self).dot)(query, rows, out) }
    }

    /// `Σ (query − row)²` of each row, from the differences themselves.
    ///
    /// # Panics
    /// As [`Kernels::dot`].
    #[track_caller]
    pub fn sqeuclidean<T: Element>(&self, query: &[T::Query], rows: Rows<'_, T>, out: &mut [T::Sum]) {
        check_dim(query.len());
        rows.check(query.len(), out.len());
        // SAFETY: as in `dot`.
        unsafe { (T::table(self).sqeuclidean)(query, rows, out) }
    }

    /// `Σ |query − row|` of each row.
    ///
    /// # Panics
    /// As [`Kernels::dot`].
    #[track_caller]
    pub fn manhattan<T: Element>(&self, query: &[T::Query], rows: Rows<'_, T>, out: &mut [T::Sum]) {
        check_dim(query.len());
        rows.check(query.len(), out.len());
        // SAFETY: as in `dot`.
        unsafe { (T::table(self).manhattan)(query, rows, out) }
    }

    /// `Σ row²` of each row.
    ///
    /// # Panics
    /// Unless `rows` are `out.len()` rows of `dim` elements, with 1 to [`MAX_DIM`] elements.
    #[track_caller]
    pub fn squared_norms<T: Element>(&self, dim: usize, rows: Rows<'_, T>, out: &mut [T::Sum]) {
        check_dim(dim);
        rows.check(dim, out.len());
        // SAFETY: as in `dot`.
        unsafe { (T::table(self).squared_norms)(dim, rows, out) }
    }

    /// The number of bits in which each row differs from the query; both are packed as by
    /// `numpy.packbits`, and `query.len()` counts bytes.
    ///
    /// # Panics
    /// As [`Kernels::dot`].
    #[track_caller]
    pub fn hamming(&self, query: &[u8], rows: Rows<'_, u8>, out: &mut [u32]) {
        check_dim(query.len());
        rows.check(query.len(), out.len());
        // SAFETY: as in `dot`.
        unsafe { (self.hamming)(query, rows, out) }
    }

    /// The number of bits that are set both in the query and in each row.
    ///
    /// # Panics
    /// As [`Kernels::dot`].
    #[track_caller]
    pub fn common_bits(&self, query: &[u8], rows: Rows<'_, u8>, out: &mut [u32]) {
        check_dim(query.len());
        rows.check(query.len(), out.len());
        // SAFETY: as in `dot`.
        unsafe { (self.common_bits)(query, rows, out) }
    }

    /// Sums over the levels of each row of codes, exactly.
    ///
    /// # Panics
    /// Unless `rows` are `out.len()` rows of [`CodeQuery::row_bytes`], at most [`MAX_DIM`].
    #[track_caller]
    pub fn code_sums(&self, query: &CodeQuery, rows: &[&[u8]], out: &mut [CodeSums]) {
        let row_bytes = query.row_bytes();
        check_dim(row_bytes);
        Rows::Scattered(rows).check(row_bytes, out.len());
        // SAFETY: the table's features were detected, the lengths are as checked, and a query has whole blocks for its rows.
        unsafe { (self.code_sums)(query.bits(), query.blocks(), row_bytes, rows, out) }
    }

    /// `Σ query · row` in float64, in the canonical order: the same bits on every level.
    ///
    /// # Panics
    /// Unless query and row are of one length.
    #[track_caller]
    pub fn canonical_dot<T: Element>(&self, query: &[f32], row: &[T]) -> f64 {
        check_pair(query.len(), row.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (T::table(self).canonical_dot)(query, row) }
    }

    /// `Σ row²` in float64, in the canonical order.
    pub fn canonical_squared_norm<T: Element>(&self, row: &[T]) -> f64 {
        // SAFETY: the table's features were detected.
        unsafe { (T::table(self).canonical_squared_norm)(row) }
    }

    /// `Σ (query − row)²` in float64, in the canonical order.
    ///
    /// # Panics
    /// Unless query and row are of one length.
    #[track_caller]
    pub fn canonical_sqeuclidean<T: Element>(&self, query: &[f32], row: &[T]) -> f64 {
        check_pair(query.len(), row.len());
        // SAFETY: as in `canonical_dot`.
        unsafe { (T::table(self).canonical_sqeuclidean)(query, row) }
    }

    /// `Σ |query − row|` in float64, in the canonical order.
    ///
    /// # Panics
    /// Unless query and row are of one length.
    #[track_caller]
    pub fn canonical_manhattan<T: Element>(&self, query: &[f32], row: &[T]) -> f64 {
        check_pair(query.len(), row.len());
        // SAFETY: as in `canonical_dot`.
        unsafe { (T::table(self).canonical_manhattan)(query, row) }
    }

    /// Multiplies a panel of byte rows with many queries and pushes the pairs whose estimate is not
    /// below the threshold; with [`PanelRows::mutual`], also those not below the second one.
    ///
    /// `sum = start + Σ panel · codes`, exactly (modulo 2³²). A NaN estimate is a hit. Hits come in any
    /// order; estimates may round differently from one level to the next.
    ///
    /// # Panics
    /// Unless panel and queries have one depth, a multiple of 4, and the other lengths fit.
    #[track_caller]
    pub fn tile_i8(
        &self,
        rows: &PanelRows<'_, u8>,
        queries: &PanelQueries<'_, i8>,
        hits: &mut Vec<Hit<i32>>,
    ) {
        let (_, depth) = rows.check(queries);
        assert!(depth.is_multiple_of(4), "a byte panel's depth must be a multiple of 4, got {depth}");
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.tile_i8)(rows, queries, depth, hits) }
    }

    /// As [`Kernels::tile_i8`], for one query and a panel that lies in planes of 1 to 7 bits (see [`Kernels::unpack_planes`]).
    ///
    /// # Panics
    /// Unless there is one query, the panel holds the planes of its depth, a multiple of 4, and the other lengths fit; if
    /// the panel has mutual biases.
    #[track_caller]
    pub fn tile_planes(
        &self,
        bits: u32,
        rows: &PanelRows<'_, u8>,
        query: &PanelQueries<'_, i8>,
        hits: &mut Vec<Hit<i32>>,
    ) {
        let depth = query.codes.len();
        assert!((1..=7).contains(&bits), "planes have 1 to 7 bits, got {bits}");
        assert!(
            depth > 0 && depth.is_multiple_of(4),
            "a byte panel's depth must be a multiple of 4, got {depth}"
        );
        unpack::check(bits, depth * PANEL_ROWS, rows.panel.len());
        let lengths = [query.start.len(), query.weight.len(), query.threshold.len()];
        assert!(lengths == [1; 3], "planes take one query, got {lengths:?}");
        assert!(rows.mutual.is_none(), "planes take no mutual biases");
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.tile_planes)(bits, rows, query, depth, hits) }
    }

    /// As [`Kernels::tile_i8`], for `f32` panels of any depth; sums round in any order.
    ///
    /// # Panics
    /// Unless panel and queries have one depth and the other lengths fit.
    #[track_caller]
    pub fn tile_f32(
        &self,
        rows: &PanelRows<'_, f32>,
        queries: &PanelQueries<'_, f32>,
        hits: &mut Vec<Hit<f32>>,
    ) {
        let (_, depth) = rows.check(queries);
        // SAFETY: as in `tile_i8`.
        unsafe { (self.tile_f32)(rows, queries, depth, hits) }
    }

    /// Writes the estimates of a panel of byte rows and many queries: that of query `q` and row `r` to
    /// `out[q * stride + r]`. Thresholds are not looked at; estimates may round differently from one level to the next.
    ///
    /// # Panics
    /// As [`Kernels::tile_i8`], and unless `stride` is at least 32 and `out` holds the places of all queries.
    #[track_caller]
    pub fn estimates_i8(
        &self,
        rows: &PanelRows<'_, u8>,
        queries: &PanelQueries<'_, i8>,
        out: &mut [f32],
        stride: usize,
    ) {
        let n = queries.start.len();
        let (_, depth) = rows.check(&PanelQueries { threshold: queries.weight, ..*queries });
        assert!(depth.is_multiple_of(4), "a byte panel's depth must be a multiple of 4, got {depth}");
        assert!(stride >= PANEL_ROWS, "estimates take 32 places a query, got a stride of {stride}");
        let places =
            n.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(PANEL_ROWS));
        assert!(
            places.is_some_and(|places| places <= out.len()),
            "out must hold the estimates of {n} queries, got {} places",
            out.len()
        );
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.estimates_i8)(rows, queries, depth, out.as_mut_ptr(), stride) }
    }

    /// Compares a panel of points with centroids and keeps, for each point, the one with the best score, in `best`,
    /// which holds what earlier calls found. Among equals the lower place wins, and what was found before; a NaN never does.
    ///
    /// Places count from `first`. Scores, see [`PanelCentroids`], have the same bits on every level.
    ///
    /// # Panics
    /// Unless points and centroids have one depth, a multiple of 4, and the other lengths fit.
    #[track_caller]
    pub fn nearest_i8(
        &self,
        points: &PanelPoints<'_, u8>,
        centroids: &PanelCentroids<'_, i8>,
        first: u32,
        best: &mut Nearest,
    ) {
        let depth = check_bytes(points, centroids);
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.nearest_i8)(points, centroids, depth, first, best) }
    }

    /// As [`Kernels::nearest_i8`], for `f32` panels of any depth; sums round in any order.
    ///
    /// # Panics
    /// Unless points and centroids have one depth and the other lengths fit.
    #[track_caller]
    pub fn nearest_f32(
        &self,
        points: &PanelPoints<'_, f32>,
        centroids: &PanelCentroids<'_, f32>,
        first: u32,
        best: &mut Nearest,
    ) {
        let (_, depth) = centroids.check(points);
        // SAFETY: as in `nearest_i8`.
        unsafe { (self.nearest_f32)(points, centroids, depth, first, best) }
    }

    /// As [`Kernels::nearest_i8`], for the best and the second best.
    ///
    /// # Panics
    /// As [`Kernels::nearest_i8`].
    #[track_caller]
    pub fn two_nearest_i8(
        &self,
        points: &PanelPoints<'_, u8>,
        centroids: &PanelCentroids<'_, i8>,
        first: u32,
        best: &mut [Nearest; 2],
    ) {
        let depth = check_bytes(points, centroids);
        // SAFETY: as in `nearest_i8`.
        unsafe { (self.two_nearest_i8)(points, centroids, depth, first, best) }
    }

    /// As [`Kernels::nearest_f32`], for the best and the second best.
    ///
    /// # Panics
    /// As [`Kernels::nearest_f32`].
    #[track_caller]
    pub fn two_nearest_f32(
        &self,
        points: &PanelPoints<'_, f32>,
        centroids: &PanelCentroids<'_, f32>,
        first: u32,
        best: &mut [Nearest; 2],
    ) {
        let (_, depth) = centroids.check(points);
        // SAFETY: as in `nearest_i8`.
        unsafe { (self.two_nearest_f32)(points, centroids, depth, first, best) }
    }

    /// The scores of all centroids with a panel of points: that of centroid `c` and point `r` at `out[c * 32 + r]`,
    /// the order in which they are computed.
    ///
    /// # Panics
    /// As [`Kernels::nearest_i8`], and unless `out` has 32 places a centroid.
    #[track_caller]
    pub fn scores_i8(
        &self,
        points: &PanelPoints<'_, u8>,
        centroids: &PanelCentroids<'_, i8>,
        out: &mut [f32],
    ) {
        let depth = check_bytes(points, centroids);
        let n = centroids.scale.len();
        assert!(out.len() == n * PANEL_ROWS, "out must have length {n} · 32, got {}", out.len());
        // SAFETY: as in `nearest_i8`.
        unsafe { (self.scores_i8)(points, centroids, depth, out) }
    }

    /// The numbers that one row of a byte panel stands for: `scale · (byte − zero) + offset`. The same bits on every level.
    ///
    /// # Panics
    /// Unless `offset` is as long as `out`, the panel that of so many dimensions, and `row` below 32.
    #[track_caller]
    pub fn decode_panel_row(
        &self,
        panel: &[u8],
        row: usize,
        (zero, scale): (i32, f32),
        offset: &[f32],
        out: &mut [f32],
    ) {
        check_pair(offset.len(), out.len());
        let expected = PANEL_ROWS * panel_depth(out.len());
        assert!(panel.len() == expected, "the panel must hold {expected} bytes, got {}", panel.len());
        assert!(row < PANEL_ROWS, "a panel has 32 rows, asked for row {row}");
        // SAFETY: the table's features were detected.
        unsafe { (self.decode_panel_row)(panel, row, zero, scale, offset, out) }
    }

    /// Adds `weight * row` to `sums`, in float64. The same bits on every level.
    ///
    /// # Panics
    /// Unless `row` and `sums` are of one length.
    #[track_caller]
    pub fn add<T: Element>(&self, row: &[T], weight: f64, sums: &mut [f64]) {
        assert!(row.len() == sums.len(), "sums must have length {}, got {}", row.len(), sums.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (T::table(self).add)(row, weight, sums) }
    }

    /// Quantises a row to bytes; see [`RowCode`]. The same bits on every level.
    ///
    /// # Panics
    /// Unless `row`, `centre` and `codes` are of one length, at most [`MAX_DIM`].
    #[track_caller]
    pub fn quantise_row<T: Element>(&self, row: &[T], centre: &[f32], codes: &mut [u8]) -> RowCode {
        check_dim(row.len());
        check_pair(centre.len(), row.len());
        assert!(codes.len() == row.len(), "codes must have length {}, got {}", row.len(), codes.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (T::table(self).quantise_row)(row, centre, codes) }
    }

    /// Quantises a query to signed bytes, padded with 0 to the length of `codes`; see [`QueryCode`].
    /// The same bits on every level.
    ///
    /// # Panics
    /// Unless `query` and `centre` are of one length, at most [`MAX_DIM`], and `codes` is not shorter.
    #[track_caller]
    pub fn quantise_query(&self, query: &[f32], centre: &[f32], codes: &mut [i8]) -> QueryCode {
        check_dim(query.len());
        check_pair(query.len(), centre.len());
        assert!(
            codes.len() >= query.len(),
            "codes must have length {} or more, got {}",
            query.len(),
            codes.len()
        );
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.quantise_query)(query, centre, codes) }
    }

    /// Rotates `values`: rounds of factors, a Hadamard transform and mixing, then the last factors. The same bits on
    /// every level.
    ///
    /// # Panics
    /// Unless `values` are 1 to [`MAX_DIM`], and `factors` as many for each round and for the end.
    #[track_caller]
    pub fn rotate(&self, factors: &[f32], values: &mut [f32]) {
        check_factors(factors.len(), values.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.rotate)(factors, values) }
    }

    /// The inverse of [`Kernels::rotate`], provided its factors make that orthonormal.
    ///
    /// # Panics
    /// As [`Kernels::rotate`].
    #[track_caller]
    pub fn rotate_back(&self, factors: &[f32], values: &mut [f32]) {
        check_factors(factors.len(), values.len());
        // SAFETY: as in `rotate`.
        unsafe { (self.rotate_back)(factors, values) }
    }

    /// Codes a row as levels of 1 to 8 bits; see [`GridCode`]. The same bits on every level.
    ///
    /// # Panics
    /// Unless there are 1 to 8 bits, and `values` and `levels` are of one length, at most [`MAX_DIM`].
    #[track_caller]
    pub fn quantise_grid(&self, values: &[f32], bits: u32, levels: &mut [u8]) -> GridCode {
        check_dim(values.len());
        assert!((1..=8).contains(&bits), "bits must be in 1..=8, got {bits}");
        assert!(
            levels.len() == values.len(),
            "levels must have length {}, got {}",
            values.len(),
            levels.len()
        );
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.quantise_grid)(values, bits, levels) }
    }

    /// The code of a row whose levels were chosen by other means; a scale of 0 where they say nothing about the row.
    ///
    /// # Panics
    /// As [`Kernels::quantise_grid`].
    #[track_caller]
    pub fn fit_grid(&self, values: &[f32], bits: u32, levels: &[u8]) -> GridCode {
        check_dim(values.len());
        assert!((1..=8).contains(&bits), "bits must be in 1..=8, got {bits}");
        assert!(
            levels.len() == values.len(),
            "levels must have length {}, got {}",
            values.len(),
            levels.len()
        );
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.fit_grid)(values, bits, levels) }
    }

    /// Unpacks planes of 1 to 7 bits to a panel of bytes, each twice its level.
    ///
    /// # Panics
    /// Unless there are 1 to 7 bits and the lengths fit.
    #[track_caller]
    pub fn unpack_planes(&self, bits: u32, packed: &[u8], panel: &mut [u8]) {
        unpack::check(bits, panel.len(), packed.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.unpack_planes)(bits, packed, panel) }
    }

    /// Unpacks product codes to a panel of bytes.
    ///
    /// # Panics
    /// Unless the lengths fit the tables.
    #[track_caller]
    pub fn unpack_words(&self, words: &WordTables, packed: &[u8], panel: &mut [u8]) {
        words.check(packed.len(), panel.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.unpack_words)(words, packed, panel) }
    }

    /// The nearest of `n_words` words for each part, parts being taken in groups of [`crate::PARTS`], one a lane; equally
    /// near ones by number. The same on every level.
    ///
    /// With `w` components a part: `values` has `w` vectors of lanes a group; `words`, for each group and number of a
    /// word, `w` vectors and one of half the squared norms.
    ///
    /// # Panics
    /// Unless the lengths fit.
    #[track_caller]
    pub fn nearest_words(&self, words: &[f32], n_words: usize, values: &[f32], codes: &mut [u8]) {
        words::check_nearest(words.len(), n_words, values.len(), codes.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.nearest_words)(words, n_words, values, codes) }
    }

    /// `row −= u_row · w + w_row · u`, then `out += x_row · row`; gives `row · x`. The same bits on every level.
    ///
    /// # Panics
    /// If a vector is shorter than `row`.
    #[track_caller]
    pub fn update_row(
        &self,
        row: &mut [f64],
        by: RankTwo<'_>,
        x: &[f64],
        x_row: f64,
        out: &mut [f64],
    ) -> f64 {
        let shortest = by.u.len().min(by.w.len()).min(x.len()).min(out.len());
        assert!(shortest >= row.len(), "vectors must have {} values, got {shortest}", row.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.update_row)(row, by, x, x_row, out) }
    }

    /// Reflects the first rows of a strip, of [`STRIP`] values each, as many as `u` has values:
    /// `rows −= factor · u · (uᵀ rows)`. The same bits on every level.
    ///
    /// # Panics
    /// If the strip has fewer rows.
    #[track_caller]
    pub fn reflect(&self, strip: &mut [f64], u: &[f64], factor: f64) {
        let n_rows = strip.len() / STRIP;
        assert!(n_rows >= u.len(), "the strip must have {} rows, got {n_rows}", u.len());
        // SAFETY: the table's features were detected, and the lengths are as checked.
        unsafe { (self.reflect)(strip, u, factor) }
    }

    /// Turns pairs of rows of a strip, of [`STRIP`] values each, one pair after the other. The same bits on every level.
    ///
    /// # Panics
    /// If a turn's rows are not there.
    #[track_caller]
    pub fn turn(&self, strip: &mut [f64], turns: &[Turn]) {
        // SAFETY: the table's features were detected.
        unsafe { (self.turn)(strip, turns) }
    }

    /// Whether no value is infinite or NaN.
    pub fn all_finite<T: Element>(&self, values: &[T]) -> bool {
        // SAFETY: the table's features were detected.
        unsafe { (T::table(self).all_finite)(values) }
    }
}

#[track_caller]
fn check_dim(dim: usize) {
    assert!((1..=MAX_DIM).contains(&dim), "dim must be in 1..={MAX_DIM}, got {dim}");
}

#[track_caller]
fn check_factors(factors: usize, dim: usize) {
    check_dim(dim);
    assert!(
        factors >= dim && factors.is_multiple_of(dim),
        "there must be {dim} factors a round and for the end, got {factors}"
    );
}

#[track_caller]
fn check_pair(query: usize, row: usize) {
    assert!(query == row, "query and row must be of one length, got {query} and {row}");
}

#[track_caller]
fn check_bytes(points: &PanelPoints<'_, u8>, centroids: &PanelCentroids<'_, i8>) -> usize {
    let (_, depth) = centroids.check(points);
    assert!(depth.is_multiple_of(4), "a byte panel's depth must be a multiple of 4, got {depth}");
    depth
}
