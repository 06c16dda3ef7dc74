//! AVX-512 with VNNI and VPOPCNTDQ.
//!
//! Products of bytes come from `vpdpbusd`, which multiplies unsigned with signed bytes and sums four
//! products into an `i32` without saturating. Two signed or two unsigned operands are brought into that
//! form by flipping the top bit of one (`x ^ 0x80` read the other way is `x ± 128`) and adding
//! `±128 · Σ` of the other. All intermediate sums stay below 2³¹: 255 · 128 · 32 768 ≈ 1.07·10⁹.

// Every `unsafe fn` here is a few intrinsics under one contract, that of the trait it implements: its
// caller has the level's features, and pointers are good for what the trait says is read.
#![allow(unsafe_op_in_unsafe_fn)]
// Vectors are never put through closures of the library (`array::map`): it is not compiled with the
// level's features, so intrinsics would become calls.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use half::{bf16, f16};

use super::avx2;
use super::centroids::{self, All, Best, Keep};
use super::group::{self, Both, Step, Sum, Total};
use super::level;
use super::planes::{self, Levels};
use super::tile::{self, Multiply};
use crate::canonical;
use crate::centroids::{Nearest, PanelCentroids, PanelPoints};
use crate::codes::CodeSums;
use crate::element::Element;
use crate::grid::{self, GridCode};
use crate::kernels::{ElementTable, Kernels};
use crate::panel::{Hit, PanelQueries, PanelRows};
use crate::panel_row;
use crate::quantise::{self, QueryCode, RowCode};
use crate::rotate::{self, Lanes};
use crate::rows::Rows;
use crate::sums;
use crate::symmetric::{self, RankTwo, Turn};
use crate::unpack;
use crate::words::{self, Select, WordTables};

level!(
    "avx512",
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vpopcntdq,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt",
    ["avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avx512vpopcntdq" "avx2" "fma" "f16c" "bmi1" "bmi2"
     "lzcnt" "popcnt"],
    wide,
    estimates_wide
);

/// The lowest `n` of a mask's bits; `n` is below 64.
#[inline(always)]
fn low(n: usize) -> u64 {
    (1 << n) - 1
}

/// Partial sums of float kinds.
#[derive(Clone, Copy)]
pub(super) struct Floats(__m512);
/// Partial sums of integer kinds.
#[derive(Clone, Copy)]
pub(super) struct Integers(__m512i);
/// Partial sums of squares of unsigned bytes `d`: of `d · (d − 128)`, and of `d`.
#[derive(Clone, Copy)]
pub(super) struct Squares(__m512i, __m512i);
/// Counts of bits, as `u64`.
#[derive(Clone, Copy)]
pub(super) struct Counts(__m512i);

// SAFETY: the methods use the level's features only, and no pointers.
unsafe impl Total for Floats {
    type Sum = f32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Floats(_mm512_setzero_ps())
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        Floats(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        _mm512_reduce_add_ps(self.0)
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [f32; 8] {
        let mut halves = [_mm256_setzero_ps(); 8];
        for k in 0..8 {
            let Floats(t) = totals[k];
            halves[k] = _mm256_add_ps(_mm512_castps512_ps256(t), _mm512_extractf32x8_ps::<1>(t));
        }
        avx2::sum8_f32(halves)
    }
}

// SAFETY: as for `Floats`.
unsafe impl Total for Integers {
    type Sum = i32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Integers(_mm512_setzero_si512())
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        Integers(_mm512_add_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sum(self) -> i32 {
        _mm512_reduce_add_epi32(self.0)
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [i32; 8] {
        let mut halves = [_mm256_setzero_si256(); 8];
        for k in 0..8 {
            let Integers(t) = totals[k];
            halves[k] = _mm256_add_epi32(_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64::<1>(t));
        }
        avx2::sum8_i32(halves)
    }
}

impl Squares {
    #[inline(always)]
    unsafe fn add(self, d: __m512i) -> Self {
        Squares(_mm512_dpbusd_epi32(self.0, d, flip(d)), _mm512_dpbusd_epi32(self.1, d, _mm512_set1_epi8(1)))
    }
    /// `Σ d² = Σ d · (d − 128) + 128 · Σ d`.
    #[inline(always)]
    unsafe fn whole(self) -> Integers {
        Integers(_mm512_add_epi32(self.0, _mm512_slli_epi32::<7>(self.1)))
    }
}

// SAFETY: as for `Floats`.
unsafe impl Total for Squares {
    type Sum = i32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Squares(_mm512_setzero_si512(), _mm512_setzero_si512())
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        Squares(_mm512_add_epi32(self.0, other.0), _mm512_add_epi32(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn sum(self) -> i32 {
        self.whole().sum()
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [i32; 8] {
        let mut wholes = [Integers::zero(); 8];
        for k in 0..8 {
            wholes[k] = totals[k].whole();
        }
        Integers::sum8(wholes)
    }
}

// SAFETY: as for `Floats`.
unsafe impl Total for Counts {
    type Sum = u32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Counts(_mm512_setzero_si512())
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        Counts(_mm512_add_epi64(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sum(self) -> u32 {
        _mm512_reduce_add_epi64(self.0) as u32
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [u32; 8] {
        // Counts are below 2³², so the upper halves of the lanes are zero.
        let mut counts = [Integers::zero(); 8];
        for k in 0..8 {
            counts[k] = Integers(totals[k].0);
        }
        bytemuck::cast(Integers::sum8(counts))
    }
}

/// Loads 16 elements as `f32`; parts are filled up with zeros.
///
/// # Safety
/// As [`Step`].
pub(super) unsafe trait Load {
    unsafe fn load(at: *const Self) -> __m512;
    unsafe fn load_part(at: *const Self, n: usize) -> __m512;
}

// SAFETY: reads nothing.
unsafe impl Load for () {
    #[inline(always)]
    unsafe fn load(_: *const ()) -> __m512 {
        _mm512_setzero_ps()
    }
    #[inline(always)]
    unsafe fn load_part(_: *const (), _: usize) -> __m512 {
        _mm512_setzero_ps()
    }
}

// SAFETY: `load` reads 16 elements, a masked load reads those whose bit is set.
unsafe impl Load for f32 {
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512 {
        _mm512_loadu_ps(at)
    }
    #[inline(always)]
    unsafe fn load_part(at: *const f32, n: usize) -> __m512 {
        _mm512_maskz_loadu_ps(low(n) as u16, at)
    }
}

// SAFETY: as for `f32`.
unsafe impl Load for f16 {
    #[inline(always)]
    unsafe fn load(at: *const f16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()))
    }
    #[inline(always)]
    unsafe fn load_part(at: *const f16, n: usize) -> __m512 {
        _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(low(n) as u16, at.cast()))
    }
}

// SAFETY: as for `f32`.
unsafe impl Load for bf16 {
    #[inline(always)]
    unsafe fn load(at: *const bf16) -> __m512 {
        widen_bf16(_mm256_loadu_si256(at.cast()))
    }
    #[inline(always)]
    unsafe fn load_part(at: *const bf16, n: usize) -> __m512 {
        widen_bf16(_mm256_maskz_loadu_epi16(low(n) as u16, at.cast()))
    }
}

#[inline(always)]
unsafe fn widen_bf16(bits: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

macro_rules! float_step {
    ($name:ident, $query:ty, |$total:ident, $q:ident, $r:ident| $step:expr) => {
        // SAFETY: loads are those of `Load`; steps of zeros add nothing.
        unsafe impl<T: Load> Step for $name<T> {
            type Query = $query;
            type Row = T;
            type Vector = __m512;
            type Total = Floats;
            const WIDTH: usize = 16;

            #[inline(always)]
            fn start(_: &[$query]) -> f32 {
                0.0
            }
            #[inline(always)]
            unsafe fn query(at: *const $query) -> __m512 {
                Load::load(at)
            }
            #[inline(always)]
            unsafe fn query_part(at: *const $query, n: usize) -> __m512 {
                Load::load_part(at, n)
            }
            #[inline(always)]
            unsafe fn row(at: *const T) -> __m512 {
                T::load(at)
            }
            #[inline(always)]
            unsafe fn row_part(at: *const T, n: usize) -> __m512 {
                T::load_part(at, n)
            }
            #[inline(always)]
            unsafe fn step(Floats($total): Floats, $q: __m512, $r: __m512) -> Floats {
                Floats($step)
            }
        }
    };
}

float_step!(Dot, f32, |total, q, r| _mm512_fmadd_ps(q, r, total));
float_step!(SqEuclidean, f32, |total, q, r| {
    let difference = _mm512_sub_ps(q, r);
    _mm512_fmadd_ps(difference, difference, total)
});
float_step!(Manhattan, f32, |total, q, r| _mm512_add_ps(total, _mm512_abs_ps(_mm512_sub_ps(q, r))));
float_step!(Norm, (), |total, _q, r| _mm512_fmadd_ps(r, r, total));

/// Each byte with its top bit flipped: `i8` to `u8` or back, shifted by 128.
#[inline(always)]
unsafe fn flip(bytes: __m512i) -> __m512i {
    _mm512_xor_si512(bytes, _mm512_set1_epi8(i8::MIN))
}

/// `|a − b|` of unsigned bytes.
#[inline(always)]
unsafe fn distance(a: __m512i, b: __m512i) -> __m512i {
    _mm512_or_si512(_mm512_subs_epu8(a, b), _mm512_subs_epu8(b, a))
}

/// Loads 64 bytes; parts are filled up with zeros.
///
/// # Safety
/// As [`Step`].
unsafe trait Bytes {
    unsafe fn load(at: *const Self) -> __m512i;
    unsafe fn load_part(at: *const Self, n: usize) -> __m512i;
}

macro_rules! bytes {
    ($($kind:ty, |$at:ident, $n:ident| $load:expr, $part:expr;)*) => {$(
        // SAFETY: reads 64 bytes, or those whose mask bit is set, or nothing.
        unsafe impl Bytes for $kind {
            #[inline(always)]
            unsafe fn load($at: *const $kind) -> __m512i {
                $load
            }
            #[inline(always)]
            unsafe fn load_part($at: *const $kind, $n: usize) -> __m512i {
                $part
            }
        }
    )*};
}
bytes!(
    u8, |at, n| _mm512_loadu_si512(at.cast()), _mm512_maskz_loadu_epi8(low(n), at.cast());
    i8, |at, n| _mm512_loadu_si512(at.cast()), _mm512_maskz_loadu_epi8(low(n), at);
    (), |_at, _n| _mm512_setzero_si512(), _mm512_setzero_si512();
);

/// A kernel of bytes: what its sums start from, and its step.
macro_rules! byte_step {
    ($name:ty, $query:ty, $row:ty, $total:ty, |$values:ident| $start:expr,
     |$t:ident, $q:ident, $r:ident| $step:expr) => {
        // SAFETY: loads are those of `Bytes`; steps of zeros add nothing.
        unsafe impl Step for $name {
            type Query = $query;
            type Row = $row;
            type Vector = __m512i;
            type Total = $total;
            const WIDTH: usize = 64;

            #[inline(always)]
            fn start($values: &[$query]) -> Sum<Self> {
                $start
            }
            #[inline(always)]
            unsafe fn query(at: *const $query) -> __m512i {
                Bytes::load(at)
            }
            #[inline(always)]
            unsafe fn query_part(at: *const $query, n: usize) -> __m512i {
                Bytes::load_part(at, n)
            }
            #[inline(always)]
            unsafe fn row(at: *const $row) -> __m512i {
                Bytes::load(at)
            }
            #[inline(always)]
            unsafe fn row_part(at: *const $row, n: usize) -> __m512i {
                Bytes::load_part(at, n)
            }
            #[inline(always)]
            unsafe fn step($t: $total, $q: __m512i, $r: __m512i) -> $total {
                $step
            }
        }
    };
}

/// `Σ query`.
#[inline(always)]
fn total<T: Copy + Into<i32>>(query: &[T]) -> i32 {
    query.iter().map(|value| (*value).into()).sum()
}

// In both dots a padded query byte is 0 as it is multiplied, whatever the row's flipped padding.
byte_step!(Dot<u8>, u8, u8, Integers, |query| 128 * total(query), |t, q, r| {
    Integers(_mm512_dpbusd_epi32(t.0, q, flip(r)))
});
byte_step!(Dot<i8>, i8, i8, Integers, |query| -128 * total(query), |t, q, r| {
    Integers(_mm512_dpbusd_epi32(t.0, flip(r), q))
});
byte_step!(SqEuclidean<u8>, u8, u8, Squares, |_query| 0, |t, q, r| t.add(distance(q, r)));
byte_step!(SqEuclidean<i8>, i8, i8, Squares, |_query| 0, |t, q, r| t.add(distance(flip(q), flip(r))));
byte_step!(Norm<u8>, (), u8, Squares, |_query| 0, |t, _q, r| t.add(r));
// |−128| comes out as 128, read as unsigned.
byte_step!(Norm<i8>, (), i8, Squares, |_query| 0, |t, _q, r| t.add(_mm512_abs_epi8(r)));
byte_step!(Manhattan<u8>, u8, u8, Integers, |_query| 0, |t, q, r| {
    Integers(_mm512_add_epi32(t.0, _mm512_sad_epu8(q, r)))
});
byte_step!(Manhattan<i8>, i8, i8, Integers, |_query| 0, |t, q, r| {
    Integers(_mm512_add_epi32(t.0, _mm512_sad_epu8(flip(q), flip(r))))
});
byte_step!(Hamming, u8, u8, Counts, |_query| 0, |t, q, r| {
    Counts(_mm512_add_epi64(t.0, _mm512_popcnt_epi64(_mm512_xor_si512(q, r))))
});
byte_step!(CommonBits, u8, u8, Counts, |_query| 0, |t, q, r| {
    Counts(_mm512_add_epi64(t.0, _mm512_popcnt_epi64(_mm512_and_si512(q, r))))
});

byte_step!(Codes8, i8, u8, Both<Integers>, |_query| CodeSums::default(), |t, q, r| {
    // r (r − 256) = r (r − 128) − 128 r.
    let minus_128 = _mm512_set1_epi8(-128);
    let squares = _mm512_dpbusd_epi32(t.squares.0, r, _mm512_xor_si512(r, minus_128));
    Both {
        products: Integers(_mm512_dpbusd_epi32(t.products.0, r, q)),
        squares: Integers(_mm512_dpbusd_epi32(squares, r, minus_128)),
    }
});

// SAFETY: a query has 128 bytes for every 64 of a row, begun or whole; a row's loads are those of `Bytes`, and its padding is 0.
unsafe impl Step for Codes4 {
    type Query = [i8; 2];
    type Row = u8;
    type Vector = [__m512i; 2];
    type Total = Both<Integers>;
    const WIDTH: usize = 64;

    #[inline(always)]
    fn start(_: &[[i8; 2]]) -> CodeSums {
        CodeSums::default()
    }
    #[inline(always)]
    unsafe fn query(at: *const [i8; 2]) -> [__m512i; 2] {
        let at = at.cast::<i8>();
        [Bytes::load(at), Bytes::load(at.add(64))]
    }
    #[inline(always)]
    unsafe fn query_part(at: *const [i8; 2], _: usize) -> [__m512i; 2] {
        Self::query(at)
    }
    #[inline(always)]
    unsafe fn row(at: *const u8) -> [__m512i; 2] {
        halves(Bytes::load(at))
    }
    #[inline(always)]
    unsafe fn row_part(at: *const u8, n: usize) -> [__m512i; 2] {
        halves(Bytes::load_part(at, n))
    }
    #[inline(always)]
    unsafe fn step(total: Both<Integers>, query: [__m512i; 2], row: [__m512i; 2]) -> Both<Integers> {
        let Both { products: Integers(mut products), squares: Integers(mut squares) } = total;
        for half in 0..2 {
            let below = _mm512_sub_epi8(row[half], _mm512_set1_epi8(15));
            products = _mm512_dpbusd_epi32(products, row[half], query[half]);
            squares = _mm512_dpbusd_epi32(squares, row[half], below);
        }
        Both { products: Integers(products), squares: Integers(squares) }
    }
}

/// The lower and the upper halves of bytes.
#[inline(always)]
unsafe fn halves(bytes: __m512i) -> [__m512i; 2] {
    let low = _mm512_set1_epi8(15);
    [_mm512_and_si512(bytes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low)]
}

/// `scale * sum + bias * weight`.
///
/// # Safety
/// In functions that have the level's features; `scale` and `bias` are good for a vector each.
#[inline(always)]
unsafe fn estimated(sums: __m512, scale: *const f32, bias: *const f32, weight: f32) -> __m512 {
    let bias = _mm512_mul_ps(_mm512_loadu_ps(bias), _mm512_set1_ps(weight));
    _mm512_fmadd_ps(_mm512_loadu_ps(scale), sums, bias)
}

/// A bit per lane: whether `scale * sums + bias * weight < threshold`; a NaN is not.
#[inline(always)]
unsafe fn below(sums: __m512, scale: *const f32, bias: *const f32, weight: f32, threshold: f32) -> u32 {
    let estimate = estimated(sums, scale, bias, weight);
    u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(estimate, _mm512_set1_ps(threshold)))
}

// SAFETY: a panel load reads 16 · 4 bytes, a spread 4 codes; sums wrap.
unsafe impl Multiply for TileI8 {
    type Row = u8;
    type Code = i8;
    type Sum = i32;
    type Total = __m512i;
    type Panel = __m512i;
    type Spread = __m512i;
    const LANES: usize = 16;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn start(sum: i32) -> __m512i {
        _mm512_set1_epi32(sum)
    }
    #[inline(always)]
    unsafe fn panel(at: *const u8) -> __m512i {
        _mm512_loadu_si512(at.cast())
    }
    #[inline(always)]
    unsafe fn spread(at: *const i8) -> __m512i {
        _mm512_set1_epi32(at.cast::<i32>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn step(total: __m512i, panel: __m512i, spread: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(total, panel, spread)
    }
    #[inline(always)]
    unsafe fn join(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(a, b)
    }
    #[inline(always)]
    unsafe fn below(total: __m512i, scale: *const f32, bias: *const f32, weight: f32, threshold: f32) -> u32 {
        below(_mm512_cvtepi32_ps(total), scale, bias, weight, threshold)
    }
    #[inline(always)]
    unsafe fn store(total: __m512i, at: *mut i32) {
        _mm512_storeu_si512(at.cast(), total);
    }
    #[inline(always)]
    unsafe fn estimate(total: __m512i, scale: *const f32, bias: *const f32, weight: f32, at: *mut f32) {
        _mm512_storeu_ps(at, estimated(_mm512_cvtepi32_ps(total), scale, bias, weight));
    }
}

// SAFETY: as for `Multiply`; no pointers.
unsafe impl Levels for TileI8 {
    #[inline(always)]
    unsafe fn levels(line: __m512i, shift: u32, mask: u8) -> __m512i {
        let shifted = _mm512_srl_epi16(line, _mm_cvtsi32_si128(shift as i32));
        _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
    }
    #[inline(always)]
    unsafe fn shifted(total: __m512i, by: u32) -> __m512i {
        _mm512_sll_epi32(total, _mm_cvtsi32_si128(by as i32))
    }
}

// SAFETY: a panel load reads 16 floats, a spread one code.
unsafe impl Multiply for TileF32 {
    type Row = f32;
    type Code = f32;
    type Sum = f32;
    type Total = __m512;
    type Panel = __m512;
    type Spread = __m512;
    const LANES: usize = 16;
    const GROUP: usize = 1;

    #[inline(always)]
    unsafe fn start(sum: f32) -> __m512 {
        _mm512_set1_ps(sum)
    }
    #[inline(always)]
    unsafe fn panel(at: *const f32) -> __m512 {
        _mm512_loadu_ps(at)
    }
    #[inline(always)]
    unsafe fn spread(at: *const f32) -> __m512 {
        _mm512_set1_ps(*at)
    }
    #[inline(always)]
    unsafe fn step(total: __m512, panel: __m512, spread: __m512) -> __m512 {
        _mm512_fmadd_ps(panel, spread, total)
    }
    #[inline(always)]
    unsafe fn join(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn below(total: __m512, scale: *const f32, bias: *const f32, weight: f32, threshold: f32) -> u32 {
        below(total, scale, bias, weight, threshold)
    }
    #[inline(always)]
    unsafe fn store(total: __m512, at: *mut f32) {
        _mm512_storeu_ps(at, total);
    }
    #[inline(always)]
    unsafe fn estimate(total: __m512, scale: *const f32, bias: *const f32, weight: f32, at: *mut f32) {
        _mm512_storeu_ps(at, estimated(total, scale, bias, weight));
    }
}

/// `scale * sums + bias * weight`, each product rounded on its own.
#[inline(always)]
unsafe fn score(sums: __m512, scale: f32, bias: f32, weight: __m512) -> __m512 {
    let bias = _mm512_mul_ps(_mm512_set1_ps(bias), weight);
    _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(scale), sums), bias)
}

macro_rules! keep {
    ($($tile:ty, |$total:ident| $sums:expr;)*) => {$(
        // SAFETY: loads and stores are of 16 elements.
        unsafe impl Keep for $tile {
            type Scores = __m512;
            type Places = __m512i;
            type Mask = __mmask16;

            #[inline(always)]
            unsafe fn score($total: Self::Total, scale: f32, bias: f32, weight: __m512) -> __m512 {
                score($sums, scale, bias, weight)
            }
            #[inline(always)]
            unsafe fn load(at: *const f32) -> __m512 {
                _mm512_loadu_ps(at)
            }
            #[inline(always)]
            unsafe fn save(scores: __m512, at: *mut f32) {
                _mm512_storeu_ps(at, scores);
            }
            #[inline(always)]
            unsafe fn load_places(at: *const u32) -> __m512i {
                _mm512_loadu_si512(at.cast())
            }
            #[inline(always)]
            unsafe fn save_places(places: __m512i, at: *mut u32) {
                _mm512_storeu_si512(at.cast(), places);
            }
            #[inline(always)]
            unsafe fn place(place: u32) -> __m512i {
                _mm512_set1_epi32(place as i32)
            }
            #[inline(always)]
            unsafe fn greater(a: __m512, b: __m512) -> __mmask16 {
                _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b)
            }
            #[inline(always)]
            unsafe fn either(mask: __mmask16, a: __m512, b: __m512) -> __m512 {
                _mm512_mask_blend_ps(mask, b, a)
            }
            #[inline(always)]
            unsafe fn either_place(mask: __mmask16, a: __m512i, b: __m512i) -> __m512i {
                _mm512_mask_blend_epi32(mask, b, a)
            }
        }
    )*};
}
keep!(
    TileI8, |total| _mm512_cvtepi32_ps(total);
    TileF32, |total| total;
);
// SAFETY: reads and writes the 16 values.
unsafe impl Lanes for Hadamard {
    #[inline(always)]
    unsafe fn hadamard(lanes: &mut [f32; 16]) {
        let mut x = _mm512_loadu_ps(lanes.as_ptr());
        x = add_signed::<0b1010_1010_1010_1010>(_mm512_permute_ps::<0b10_11_00_01>(x), x);
        x = add_signed::<0b1100_1100_1100_1100>(_mm512_permute_ps::<0b01_00_11_10>(x), x);
        x = add_signed::<0b1111_0000_1111_0000>(_mm512_shuffle_f32x4::<0b10_11_00_01>(x, x), x);
        x = add_signed::<0b1111_1111_0000_0000>(_mm512_shuffle_f32x4::<0b01_00_11_10>(x, x), x);
        _mm512_storeu_ps(lanes.as_mut_ptr(), x);
    }
}

/// `a + b`, and `a − b` in the lanes of `MINUS`.
#[inline(always)]
unsafe fn add_signed<const MINUS: u16>(a: __m512, b: __m512) -> __m512 {
    _mm512_mask_sub_ps(_mm512_add_ps(a, b), MINUS, a, b)
}

// SAFETY: reads the 16 bytes of each part, writes 128.
unsafe impl Select for Choose {
    #[inline(always)]
    unsafe fn four(tables: &[[u32; 16]], parts: &[u32], packed: &[u8], out: &mut [u8; 128]) {
        let (mut front, mut back) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for (table, part) in tables.iter().zip(parts) {
            let table = _mm512_loadu_si512(table.as_ptr().cast());
            let packed = packed.as_ptr().add(*part as usize * 16);
            // Only the lowest four bits of a lane choose.
            let nibbles = _mm512_cvtepu8_epi32(_mm_loadu_si128(packed.cast()));
            front = _mm512_or_si512(front, _mm512_permutexvar_epi32(nibbles, table));
            let nibbles = _mm512_srli_epi32::<4>(nibbles);
            back = _mm512_or_si512(back, _mm512_permutexvar_epi32(nibbles, table));
        }
        _mm512_storeu_si512(out.as_mut_ptr().cast(), front);
        _mm512_storeu_si512(out.as_mut_ptr().add(64).cast(), back);
    }
}
