//! The kernels for x86-64: AVX2, and AVX-512 with VNNI and VPOPCNTDQ (Ice Lake, Zen 4 and later).
//!
//! `group.rs`, `tile.rs`, `planes.rs` and `centroids.rs` hold the loops, once, over traits of a few vector operations; `avx2.rs` and
//! `avx512.rs` hold those operations. Everything generic is `#[inline(always)]` and ends up inside the
//! functions that `level!` makes, which are the only ones compiled with the level's features.
//!
//! Canonical kernels, quantising, rotating and unpacking are compiled from their one portable source.

mod avx2;
mod avx512;
mod centroids;
mod group;
mod planes;
mod tile;

use crate::kernels::Kernels;

/// The tables whose features this CPU has, weakest first.
pub(crate) fn detected() -> impl Iterator<Item = &'static Kernels> {
    [(avx2::detected(), &avx2::KERNELS), (avx512::detected(), &avx512::KERNELS)]
        .into_iter()
        .filter_map(|(detected, kernels)| detected.then_some(kernels))
}

/// Makes the table of a level and the markers of its kernels; the level then says how each of them
/// steps, by `impl Step for Dot<f32>` and so on.
macro_rules! level {
    ($name:literal, $features:literal, [$($feature:tt)*], $blocks:ident, $estimates:ident) => {
        /// `Σ query · row`.
        pub(super) struct Dot<T>(PhantomData<T>);
        /// `Σ (query − row)²`.
        pub(super) struct SqEuclidean<T>(PhantomData<T>);
        /// `Σ |query − row|`.
        pub(super) struct Manhattan<T>(PhantomData<T>);
        /// `Σ row²`.
        pub(super) struct Norm<T>(PhantomData<T>);
        /// Bits that differ.
        pub(super) struct Hamming;
        /// Bits that are set in both.
        pub(super) struct CommonBits;

        /// `Σ query · u` and `Σ u (u − 256)` of signed queries and unsigned rows.
        pub(super) struct Codes8;
        /// `Σ query · u` and `Σ u (u − 15)` of rows that have two components a byte.
        pub(super) struct Codes4;
        /// Tiles of bytes.
        pub(super) struct TileI8;
        /// Tiles of `f32`.
        pub(super) struct TileF32;
        /// Hadamard transforms of 16 values.
        pub(super) struct Hadamard;
        /// Words of 4 bits.
        pub(super) struct Choose;

        /// Whether this CPU has every feature that the table's functions are compiled with.
        pub(super) fn detected() -> bool {
            $(std::arch::is_x86_feature_detected!($feature))&&*
        }

        #[target_feature(enable = $features)]
        unsafe fn one_to_many<S: Step>(query: &[S::Query], rows: Rows<'_, S::Row>, out: &mut [Sum<S>]) {
            // SAFETY: as the caller's; this function has the level's features.
            unsafe { group::one_to_many::<S>(query.len(), query.as_ptr(), S::start(query), rows, out) }
        }

        #[target_feature(enable = $features)]
        unsafe fn code_sums(
            bits: u32,
            query: &[[i8; 64]],
            row_bytes: usize,
            rows: &[&[u8]],
            out: &mut [CodeSums],
        ) {
            let query = query.as_ptr();
            // SAFETY: as the caller's; this function has the level's features, and queries have whole blocks.
            unsafe {
                match bits {
                    4 => group::scattered::<Codes4>(row_bytes, query.cast(), rows, out),
                    _ => group::scattered::<Codes8>(row_bytes, query.cast(), rows, out),
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn norms<S: Step<Query = ()>>(dim: usize, rows: Rows<'_, S::Row>, out: &mut [Sum<S>]) {
            // SAFETY: as the caller's; a query of units is never read.
            unsafe {
                group::one_to_many::<S>(dim, std::ptr::NonNull::dangling().as_ptr(), S::start(&[]), rows, out)
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn canonical_dot<T: Element>(query: &[f32], row: &[T]) -> f64 {
            // SAFETY: this function has FMA and F16C.
            unsafe { canonical::dot::<T, true>(query, row) }
        }

        #[target_feature(enable = $features)]
        unsafe fn canonical_squared_norm<T: Element>(row: &[T]) -> f64 {
            // SAFETY: this function has FMA and F16C.
            unsafe { canonical::squared_norm::<T, true>(row) }
        }

        #[target_feature(enable = $features)]
        unsafe fn canonical_sqeuclidean<T: Element>(query: &[f32], row: &[T]) -> f64 {
            // SAFETY: this function has FMA and F16C.
            unsafe { canonical::sqeuclidean::<T, true>(query, row) }
        }

        #[target_feature(enable = $features)]
        unsafe fn canonical_manhattan<T: Element>(query: &[f32], row: &[T]) -> f64 {
            // SAFETY: this function has FMA and F16C.
            unsafe { canonical::manhattan::<T, true>(query, row) }
        }

        #[target_feature(enable = $features)]
        unsafe fn quantise_row<T: Element>(row: &[T], centre: &[f32], codes: &mut [u8]) -> RowCode {
            // SAFETY: this function has FMA and F16C.
            unsafe { quantise::row::<T, true>(row, centre, codes) }
        }

        #[target_feature(enable = $features)]
        unsafe fn quantise_query(query: &[f32], centre: &[f32], codes: &mut [i8]) -> QueryCode {
            // SAFETY: this function has FMA and F16C.
            unsafe { quantise::query::<true>(query, centre, codes) }
        }

        #[target_feature(enable = $features)]
        unsafe fn decode_panel_row(
            panel: &[u8],
            row: usize,
            zero: i32,
            scale: f32,
            offset: &[f32],
            out: &mut [f32],
        ) {
            panel_row::decode(panel, row, zero, scale, offset, out);
        }

        #[target_feature(enable = $features)]
        unsafe fn rotate(factors: &[f32], values: &mut [f32]) {
            // SAFETY: this function has the level's features.
            unsafe { rotate::rotate::<Hadamard>(factors, values) }
        }

        #[target_feature(enable = $features)]
        unsafe fn rotate_back(factors: &[f32], values: &mut [f32]) {
            // SAFETY: this function has the level's features.
            unsafe { rotate::rotate_back::<Hadamard>(factors, values) }
        }

        #[target_feature(enable = $features)]
        unsafe fn quantise_grid(values: &[f32], bits: u32, levels: &mut [u8]) -> GridCode {
            grid::quantise(values, bits, levels)
        }

        #[target_feature(enable = $features)]
        unsafe fn fit_grid(values: &[f32], bits: u32, levels: &[u8]) -> GridCode {
            grid::fit(values, bits, levels)
        }

        #[target_feature(enable = $features)]
        unsafe fn unpack_words(tables: &WordTables, packed: &[u8], panel: &mut [u8]) {
            // SAFETY: as the caller's; this function has the level's features.
            unsafe { words::unpack::<Choose>(tables, packed, panel) }
        }

        #[target_feature(enable = $features)]
        unsafe fn nearest_words(table: &[f32], n_words: usize, values: &[f32], codes: &mut [u8]) {
            words::nearest(table, n_words, values, codes)
        }

        #[target_feature(enable = $features)]
        unsafe fn update_row(row: &mut [f64], by: RankTwo<'_>, x: &[f64], x_row: f64, out: &mut [f64]) -> f64 {
            symmetric::update_row(row, by, x, x_row, out)
        }

        #[target_feature(enable = $features)]
        unsafe fn reflect(strip: &mut [f64], u: &[f64], factor: f64) {
            symmetric::reflect(strip, u, factor)
        }

        #[target_feature(enable = $features)]
        unsafe fn turn(strip: &mut [f64], turns: &[Turn]) {
            symmetric::turn(strip, turns)
        }

        #[target_feature(enable = $features)]
        unsafe fn unpack_planes(bits: u32, packed: &[u8], panel: &mut [u8]) {
            unpack::planes(bits, packed, panel)
        }

        #[target_feature(enable = $features)]
        unsafe fn tile_planes(
            bits: u32,
            rows: &PanelRows<'_, u8>,
            queries: &PanelQueries<'_, i8>,
            depth: usize,
            hits: &mut Vec<Hit<i32>>,
        ) {
            // SAFETY: as the caller's; this function has the level's features. Each number of bits is a function of its own.
            unsafe {
                match bits {
                    1 => planes::one_query::<TileI8>(1, rows, queries, depth, hits),
                    2 => planes::one_query::<TileI8>(2, rows, queries, depth, hits),
                    4 => planes::one_query::<TileI8>(4, rows, queries, depth, hits),
                    _ => planes::one_query::<TileI8>(bits, rows, queries, depth, hits),
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn all_finite<T: Element>(values: &[T]) -> bool {
            quantise::all_finite(values)
        }

        #[target_feature(enable = $features)]
        unsafe fn tile<M: Multiply>(
            rows: &PanelRows<'_, M::Row>,
            queries: &PanelQueries<'_, M::Code>,
            depth: usize,
            hits: &mut Vec<Hit<M::Sum>>,
        ) {
            // SAFETY: as the caller's; this function has the level's features.
            unsafe { tile::$blocks::<M>(rows, queries, depth, hits) }
        }

        #[target_feature(enable = $features)]
        unsafe fn estimates<M: Multiply>(
            rows: &PanelRows<'_, M::Row>,
            queries: &PanelQueries<'_, M::Code>,
            depth: usize,
            out: *mut f32,
            stride: usize,
        ) {
            // SAFETY: as the caller's; this function has the level's features.
            unsafe { tile::$estimates::<M>(rows, queries, depth, out, stride) }
        }

        #[target_feature(enable = $features)]
        unsafe fn nearest<M: Keep>(
            points: &PanelPoints<'_, M::Row>,
            centroids: &PanelCentroids<'_, M::Code>,
            depth: usize,
            first: u32,
            best: &mut Nearest,
        ) {
            let mut second = Nearest::NONE;
            let sink = Best::<false> { first, best, second: &mut second };
            // SAFETY: as the caller's; this function has the level's features.
            unsafe { centroids::$blocks::<M, _>(points, centroids, depth, sink) }
        }

        #[target_feature(enable = $features)]
        unsafe fn two_nearest<M: Keep>(
            points: &PanelPoints<'_, M::Row>,
            centroids: &PanelCentroids<'_, M::Code>,
            depth: usize,
            first: u32,
            best: &mut [Nearest; 2],
        ) {
            let [best, second] = best;
            let sink = Best::<true> { first, best, second };
            // SAFETY: as the caller's; this function has the level's features.
            unsafe { centroids::$blocks::<M, _>(points, centroids, depth, sink) }
        }

        #[target_feature(enable = $features)]
        unsafe fn scores<M: Keep>(
            points: &PanelPoints<'_, M::Row>,
            centroids: &PanelCentroids<'_, M::Code>,
            depth: usize,
            out: &mut [f32],
        ) {
            // SAFETY: as the caller's; this function has the level's features.
            unsafe { centroids::$blocks::<M, _>(points, centroids, depth, All(out)) }
        }

        #[target_feature(enable = $features)]
        unsafe fn add<T: Element>(row: &[T], weight: f64, sums: &mut [f64]) {
            // SAFETY: this function has FMA and F16C.
            unsafe { sums::add::<T, true>(row, weight, sums) }
        }

        const fn element_table<T: Element>() -> ElementTable<T>
        where
            Dot<T>: Step<Query = T::Query, Row = T, Total: Total<Sum = T::Sum>>,
            SqEuclidean<T>: Step<Query = T::Query, Row = T, Total: Total<Sum = T::Sum>>,
            Manhattan<T>: Step<Query = T::Query, Row = T, Total: Total<Sum = T::Sum>>,
            Norm<T>: Step<Query = (), Row = T, Total: Total<Sum = T::Sum>>,
        {
            ElementTable {
                dot: one_to_many::<Dot<T>>,
                sqeuclidean: one_to_many::<SqEuclidean<T>>,
                manhattan: one_to_many::<Manhattan<T>>,
                squared_norms: norms::<Norm<T>>,
                canonical_dot: canonical_dot::<T>,
                canonical_squared_norm: canonical_squared_norm::<T>,
                canonical_sqeuclidean: canonical_sqeuclidean::<T>,
                canonical_manhattan: canonical_manhattan::<T>,
                quantise_row: quantise_row::<T>,
                add: add::<T>,
                all_finite: all_finite::<T>,
            }
        }

        /// To be given out only where [`detected`] says so.
        pub(super) static KERNELS: Kernels = Kernels {
            name: $name,
            f32: element_table(),
            f16: element_table(),
            bf16: element_table(),
            i8: element_table(),
            u8: element_table(),
            hamming: one_to_many::<Hamming>,
            common_bits: one_to_many::<CommonBits>,
            code_sums,
            tile_i8: tile::<TileI8>,
            tile_f32: tile::<TileF32>,
            estimates_i8: estimates::<TileI8>,
            nearest_i8: nearest::<TileI8>,
            nearest_f32: nearest::<TileF32>,
            two_nearest_i8: two_nearest::<TileI8>,
            two_nearest_f32: two_nearest::<TileF32>,
            scores_i8: scores::<TileI8>,
            quantise_query,
            decode_panel_row,
            rotate,
            rotate_back,
            quantise_grid,
            fit_grid,
            unpack_planes,
            tile_planes,
            unpack_words,
            nearest_words,
            update_row,
            reflect,
            turn,
        };
    };
}
use level;
