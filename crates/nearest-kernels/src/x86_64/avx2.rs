//! AVX2 with FMA and F16C (Haswell, Zen and later).
//!
//! Bytes are widened to `i16` and multiplied by `vpmaddwd`, whose sums of two products (at most
//! 2 · 65 025) are exact; the shorter `vpmaddubsw` saturates and is not used.

// Every `unsafe fn` here is a few intrinsics under one contract, that of the trait it implements: its
// caller has the level's features, and pointers are good for what the trait says is read.
#![allow(unsafe_op_in_unsafe_fn)]
// Vectors are never put through closures of the library (`array::map`): it is not compiled with the
// level's features, so intrinsics would become calls.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use bytemuck::Pod;
use half::{bf16, f16};

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
    "avx2",
    "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt",
    ["avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "popcnt"],
    narrow,
    estimates_narrow
);

/// Partial sums of float kinds.
#[derive(Clone, Copy)]
pub(super) struct Floats(__m256);
/// Partial sums of integer kinds.
#[derive(Clone, Copy)]
pub(super) struct Integers(__m256i);
/// Counts of bits, as `u64`.
#[derive(Clone, Copy)]
pub(super) struct Counts(__m256i);

/// Sums each of eight vectors.
#[inline(always)]
pub(super) unsafe fn sum8_f32(v: [__m256; 8]) -> [f32; 8] {
    let a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    let b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    // Each 128-bit half of `a` and `b` holds half sums of four vectors.
    let sums = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
    let mut out = [0.0; 8];
    _mm256_storeu_ps(out.as_mut_ptr(), sums);
    out
}

/// Sums each of eight vectors of `i32`, wrapping.
#[inline(always)]
pub(super) unsafe fn sum8_i32(v: [__m256i; 8]) -> [i32; 8] {
    let a = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    let b = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    let low = _mm256_permute2x128_si256::<0x20>(a, b);
    let sums = _mm256_add_epi32(low, _mm256_permute2x128_si256::<0x31>(a, b));
    let mut out = [0; 8];
    _mm256_storeu_si256(out.as_mut_ptr().cast(), sums);
    out
}

// SAFETY: the methods use the level's features only, and no pointers.
unsafe impl Total for Floats {
    type Sum = f32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Floats(_mm256_setzero_ps())
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        Floats(_mm256_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [f32; 8] {
        let mut vectors = [_mm256_setzero_ps(); 8];
        for k in 0..8 {
            vectors[k] = totals[k].0;
        }
        sum8_f32(vectors)
    }
}

// SAFETY: as for `Floats`.
unsafe impl Total for Integers {
    type Sum = i32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Integers(_mm256_setzero_si256())
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        Integers(_mm256_add_epi32(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sum(self) -> i32 {
        let four = _mm_add_epi32(_mm256_castsi256_si128(self.0), _mm256_extracti128_si256::<1>(self.0));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [i32; 8] {
        let mut vectors = [_mm256_setzero_si256(); 8];
        for k in 0..8 {
            vectors[k] = totals[k].0;
        }
        sum8_i32(vectors)
    }
}

// SAFETY: as for `Floats`.
unsafe impl Total for Counts {
    type Sum = u32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Counts(_mm256_setzero_si256())
    }
    #[inline(always)]
    unsafe fn join(self, other: Self) -> Self {
        Counts(_mm256_add_epi64(self.0, other.0))
    }
    // Counts are below 2³², so the upper halves of the lanes are zero.
    #[inline(always)]
    unsafe fn sum(self) -> u32 {
        Integers(self.0).sum() as u32
    }
    #[inline(always)]
    unsafe fn sum8(totals: [Self; 8]) -> [u32; 8] {
        let mut vectors = [_mm256_setzero_si256(); 8];
        for k in 0..8 {
            vectors[k] = totals[k].0;
        }
        bytemuck::cast(sum8_i32(vectors))
    }
}

/// The `n` elements from `at` on, then zeros.
#[inline(always)]
unsafe fn padded<T: Pod, const N: usize>(at: *const T, n: usize) -> [T; N] {
    let mut part = [T::zeroed(); N];
    std::ptr::copy_nonoverlapping(at, part.as_mut_ptr(), n);
    part
}

/// Loads elements as the lanes that a kernel steps with; parts are filled up with zeros.
///
/// # Safety
/// As [`Step`].
pub(super) unsafe trait Load<Vector>: Pod {
    unsafe fn load(at: *const Self) -> Vector;
    unsafe fn load_part(at: *const Self, n: usize) -> Vector;
}

/// 32 bytes as they are.
#[derive(Clone, Copy)]
pub(super) struct Raw(__m256i);
/// 16 bytes as `i16`.
#[derive(Clone, Copy)]
pub(super) struct Words(__m256i);

macro_rules! load {
    ($($kind:ty => $vector:ty, |$at:ident, $n:ident| $load:expr, $part:expr;)*) => {$(
        // SAFETY: reads a vector's elements, or `n` of them, or nothing.
        unsafe impl Load<$vector> for $kind {
            #[inline(always)]
            unsafe fn load($at: *const $kind) -> $vector {
                $load
            }
            #[inline(always)]
            unsafe fn load_part($at: *const $kind, $n: usize) -> $vector {
                $part
            }
        }
    )*};
}
load!(
    f32 => __m256, |at, n| _mm256_loadu_ps(at), _mm256_maskload_ps(at, first(n));
    f16 => __m256, |at, n| _mm256_cvtph_ps(_mm_loadu_si128(at.cast())), Self::load(padded::<_, 8>(at, n).as_ptr());
    bf16 => __m256, |at, n| widen_bf16(_mm_loadu_si128(at.cast())), Self::load(padded::<_, 8>(at, n).as_ptr());
    () => __m256, |_at, _n| _mm256_setzero_ps(), _mm256_setzero_ps();
    u8 => Words, |at, n| Words(_mm256_cvtepu8_epi16(_mm_loadu_si128(at.cast()))),
        <Self as Load<Words>>::load(padded::<_, 16>(at, n).as_ptr());
    i8 => Words, |at, n| Words(_mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast()))),
        <Self as Load<Words>>::load(padded::<_, 16>(at, n).as_ptr());
    () => Words, |_at, _n| Words(_mm256_setzero_si256()), Words(_mm256_setzero_si256());
    u8 => Raw, |at, n| Raw(_mm256_loadu_si256(at.cast())),
        <Self as Load<Raw>>::load(padded::<_, 32>(at, n).as_ptr());
    // The top bit is flipped, which shifts both sides of a difference by 128.
    i8 => Raw, |at, n| Raw(_mm256_xor_si256(_mm256_loadu_si256(at.cast()), _mm256_set1_epi8(i8::MIN))),
        <Self as Load<Raw>>::load(padded::<_, 32>(at, n).as_ptr());
);

/// A mask of the first `n` of eight lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

#[inline(always)]
unsafe fn widen_bf16(bits: __m128i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}

/// A kernel: what its query and rows are made of and loaded as, and its step.
macro_rules! step {
    ([$($bounds:tt)*] $name:ty, $query:ty, $row:ty => $vector:ty, $width:literal, $total:ty,
     |$t:ident, $q:ident, $r:ident| $step:expr) => {
        // SAFETY: loads are those of `Load`; steps of padding add nothing.
        unsafe impl<$($bounds)*> Step for $name {
            type Query = $query;
            type Row = $row;
            type Vector = $vector;
            type Total = $total;
            const WIDTH: usize = $width;

            #[inline(always)]
            fn start(_: &[$query]) -> Sum<Self> {
                Default::default()
            }
            #[inline(always)]
            unsafe fn query(at: *const $query) -> $vector {
                <$query as Load<$vector>>::load(at)
            }
            #[inline(always)]
            unsafe fn query_part(at: *const $query, n: usize) -> $vector {
                <$query as Load<$vector>>::load_part(at, n)
            }
            #[inline(always)]
            unsafe fn row(at: *const $row) -> $vector {
                <$row as Load<$vector>>::load(at)
            }
            #[inline(always)]
            unsafe fn row_part(at: *const $row, n: usize) -> $vector {
                <$row as Load<$vector>>::load_part(at, n)
            }
            #[inline(always)]
            unsafe fn step($t: $total, $q: $vector, $r: $vector) -> $total {
                $step
            }
        }
    };
}

step!([T: Load<__m256>] Dot<T>, f32, T => __m256, 8, Floats, |t, q, r| Floats(_mm256_fmadd_ps(q, r, t.0)));
step!([T: Load<__m256>] SqEuclidean<T>, f32, T => __m256, 8, Floats, |t, q, r| {
    let difference = _mm256_sub_ps(q, r);
    Floats(_mm256_fmadd_ps(difference, difference, t.0))
});
step!([T: Load<__m256>] Manhattan<T>, f32, T => __m256, 8, Floats, |t, q, r| {
    let size = _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(q, r));
    Floats(_mm256_add_ps(t.0, size))
});
step!([T: Load<__m256>] Norm<T>, (), T => __m256, 8, Floats, |t, _q, r| Floats(_mm256_fmadd_ps(r, r, t.0)));

#[inline(always)]
unsafe fn add_products(total: Integers, a: __m256i, b: __m256i) -> Integers {
    Integers(_mm256_add_epi32(total.0, _mm256_madd_epi16(a, b)))
}

macro_rules! integer_steps {
    ($($kind:ty)*) => {$(
        step!([] Dot<$kind>, $kind, $kind => Words, 16, Integers, |t, q, r| add_products(t, q.0, r.0));
        step!([] SqEuclidean<$kind>, $kind, $kind => Words, 16, Integers, |t, q, r| {
            let difference = _mm256_sub_epi16(q.0, r.0);
            add_products(t, difference, difference)
        });
        step!([] Manhattan<$kind>, $kind, $kind => Raw, 32, Integers, |t, q, r| {
            Integers(_mm256_add_epi32(t.0, _mm256_sad_epu8(q.0, r.0)))
        });
        step!([] Norm<$kind>, (), $kind => Words, 16, Integers, |t, _q, r| add_products(t, r.0, r.0));
    )*};
}
integer_steps!(u8 i8);

/// Adds the counts of set bits, looked up by halves of bytes (Muła).
#[inline(always)]
unsafe fn add_counts(total: Counts, bits: __m256i) -> Counts {
    let counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    let nibble = _mm256_set1_epi8(15);
    let low = _mm256_shuffle_epi8(counts, _mm256_and_si256(bits, nibble));
    let high = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble));
    let sums = _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256());
    Counts(_mm256_add_epi64(total.0, sums))
}

step!([] Hamming, u8, u8 => Raw, 32, Counts, |t, q, r| add_counts(t, _mm256_xor_si256(q.0, r.0)));
step!([] CommonBits, u8, u8 => Raw, 32, Counts, |t, q, r| add_counts(t, _mm256_and_si256(q.0, r.0)));

step!([] Codes8, i8, u8 => Words, 16, Both<Integers>, |t, q, r| Both {
    products: add_products(t.products, q.0, r.0),
    squares: add_products(t.squares, r.0, _mm256_sub_epi16(r.0, _mm256_set1_epi16(256))),
});

/// Components of the lower halves of 64 bytes and of the upper ones.
#[derive(Clone, Copy)]
pub(super) struct Nibbles([__m256i; 4]);

impl Nibbles {
    #[inline(always)]
    unsafe fn of(at: *const u8) -> Self {
        let low = _mm256_set1_epi8(15);
        let (a, b) = (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast()));
        let (above_a, above_b) = (_mm256_srli_epi16::<4>(a), _mm256_srli_epi16::<4>(b));
        Nibbles([
            _mm256_and_si256(a, low),
            _mm256_and_si256(b, low),
            _mm256_and_si256(above_a, low),
            _mm256_and_si256(above_b, low),
        ])
    }
}

// SAFETY: a query has 128 bytes for every 64 of a row, begun or whole; of a row 64 bytes are read, or `n`. Products of 15 and
// 128, four of pairs of which are summed, fit `i16`.
unsafe impl Step for Codes4 {
    type Query = [i8; 2];
    type Row = u8;
    type Vector = Nibbles;
    type Total = Both<Integers>;
    const WIDTH: usize = 64;

    #[inline(always)]
    fn start(_: &[[i8; 2]]) -> CodeSums {
        CodeSums::default()
    }
    #[inline(always)]
    unsafe fn query(at: *const [i8; 2]) -> Nibbles {
        let at = at.cast::<__m256i>();
        let mut parts = [_mm256_setzero_si256(); 4];
        for i in 0..4 {
            parts[i] = _mm256_loadu_si256(at.add(i));
        }
        Nibbles(parts)
    }
    #[inline(always)]
    unsafe fn query_part(at: *const [i8; 2], _: usize) -> Nibbles {
        Self::query(at)
    }
    #[inline(always)]
    unsafe fn row(at: *const u8) -> Nibbles {
        Nibbles::of(at)
    }
    #[inline(always)]
    unsafe fn row_part(at: *const u8, n: usize) -> Nibbles {
        Nibbles::of(padded::<_, 64>(at, n).as_ptr())
    }
    #[inline(always)]
    unsafe fn step(total: Both<Integers>, Nibbles(query): Nibbles, Nibbles(row): Nibbles) -> Both<Integers> {
        let zero = _mm256_setzero_si256();
        let (mut products, mut squares) = (zero, zero);
        for i in 0..4 {
            let below = _mm256_sub_epi8(row[i], _mm256_set1_epi8(15));
            products = _mm256_add_epi16(products, _mm256_maddubs_epi16(row[i], query[i]));
            squares = _mm256_add_epi16(squares, _mm256_maddubs_epi16(row[i], below));
        }
        let one = _mm256_set1_epi16(1);
        Both {
            products: add_products(total.products, products, one),
            squares: add_products(total.squares, squares, one),
        }
    }
}

/// `scale * sum + bias * weight`.
///
/// # Safety
/// In functions that have the level's features; `scale` and `bias` are good for a vector each.
#[inline(always)]
unsafe fn estimated(sums: __m256, scale: *const f32, bias: *const f32, weight: f32) -> __m256 {
    let bias = _mm256_mul_ps(_mm256_loadu_ps(bias), _mm256_set1_ps(weight));
    _mm256_fmadd_ps(_mm256_loadu_ps(scale), sums, bias)
}

/// A bit per lane: whether `scale * sums + bias * weight < threshold`; a NaN is not.
#[inline(always)]
unsafe fn below(sums: __m256, scale: *const f32, bias: *const f32, weight: f32, threshold: f32) -> u32 {
    let estimate = estimated(sums, scale, bias, weight);
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(estimate, _mm256_set1_ps(threshold))) as u32
}

/// Four bytes a lane as two vectors of `i16`: bytes 0 and 2 of each lane, and bytes 1 and 3.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    even: __m256i,
    odd: __m256i,
}

// SAFETY: a panel load reads 8 · 4 bytes, a spread 4 codes; sums wrap.
unsafe impl Multiply for TileI8 {
    type Row = u8;
    type Code = i8;
    type Sum = i32;
    type Total = __m256i;
    type Panel = Halves;
    type Spread = Halves;
    const LANES: usize = 8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn start(sum: i32) -> __m256i {
        _mm256_set1_epi32(sum)
    }
    #[inline(always)]
    unsafe fn panel(at: *const u8) -> Halves {
        let bytes = _mm256_loadu_si256(at.cast());
        let even = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
        Halves { even, odd: _mm256_srli_epi16::<8>(bytes) }
    }
    #[inline(always)]
    unsafe fn spread(at: *const i8) -> Halves {
        let bytes = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes));
        Halves { even, odd: _mm256_srai_epi16::<8>(bytes) }
    }
    #[inline(always)]
    unsafe fn step(total: __m256i, panel: Halves, spread: Halves) -> __m256i {
        let even = _mm256_madd_epi16(panel.even, spread.even);
        let odd = _mm256_madd_epi16(panel.odd, spread.odd);
        _mm256_add_epi32(total, _mm256_add_epi32(even, odd))
    }
    #[inline(always)]
    unsafe fn join(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(a, b)
    }
    #[inline(always)]
    unsafe fn below(total: __m256i, scale: *const f32, bias: *const f32, weight: f32, threshold: f32) -> u32 {
        below(_mm256_cvtepi32_ps(total), scale, bias, weight, threshold)
    }
    #[inline(always)]
    unsafe fn store(total: __m256i, at: *mut i32) {
        _mm256_storeu_si256(at.cast(), total);
    }
    #[inline(always)]
    unsafe fn estimate(total: __m256i, scale: *const f32, bias: *const f32, weight: f32, at: *mut f32) {
        _mm256_storeu_ps(at, estimated(_mm256_cvtepi32_ps(total), scale, bias, weight));
    }
}

// SAFETY: as for `Multiply`; no pointers.
unsafe impl Levels for TileI8 {
    #[inline(always)]
    unsafe fn levels(line: Halves, shift: u32, mask: u8) -> Halves {
        let (shift, mask) = (_mm_cvtsi32_si128(shift as i32), _mm256_set1_epi16(mask.into()));
        Halves {
            even: _mm256_and_si256(_mm256_srl_epi16(line.even, shift), mask),
            odd: _mm256_and_si256(_mm256_srl_epi16(line.odd, shift), mask),
        }
    }
    #[inline(always)]
    unsafe fn shifted(total: __m256i, by: u32) -> __m256i {
        _mm256_sll_epi32(total, _mm_cvtsi32_si128(by as i32))
    }
}

// SAFETY: a panel load reads 8 floats, a spread one code.
unsafe impl Multiply for TileF32 {
    type Row = f32;
    type Code = f32;
    type Sum = f32;
    type Total = __m256;
    type Panel = __m256;
    type Spread = __m256;
    const LANES: usize = 8;
    const GROUP: usize = 1;

    #[inline(always)]
    unsafe fn start(sum: f32) -> __m256 {
        _mm256_set1_ps(sum)
    }
    #[inline(always)]
    unsafe fn panel(at: *const f32) -> __m256 {
        _mm256_loadu_ps(at)
    }
    #[inline(always)]
    unsafe fn spread(at: *const f32) -> __m256 {
        _mm256_set1_ps(*at)
    }
    #[inline(always)]
    unsafe fn step(total: __m256, panel: __m256, spread: __m256) -> __m256 {
        _mm256_fmadd_ps(panel, spread, total)
    }
    #[inline(always)]
    unsafe fn join(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn below(total: __m256, scale: *const f32, bias: *const f32, weight: f32, threshold: f32) -> u32 {
        below(total, scale, bias, weight, threshold)
    }
    #[inline(always)]
    unsafe fn store(total: __m256, at: *mut f32) {
        _mm256_storeu_ps(at, total);
    }
    #[inline(always)]
    unsafe fn estimate(total: __m256, scale: *const f32, bias: *const f32, weight: f32, at: *mut f32) {
        _mm256_storeu_ps(at, estimated(total, scale, bias, weight));
    }
}

/// `scale * sums + bias * weight`, each product rounded on its own.
#[inline(always)]
unsafe fn score(sums: __m256, scale: f32, bias: f32, weight: __m256) -> __m256 {
    let bias = _mm256_mul_ps(_mm256_set1_ps(bias), weight);
    _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(scale), sums), bias)
}

macro_rules! keep {
    ($($tile:ty, |$total:ident| $sums:expr;)*) => {$(
        // SAFETY: loads and stores are of 8 elements.
        unsafe impl Keep for $tile {
            type Scores = __m256;
            type Places = __m256i;
            type Mask = __m256;

            #[inline(always)]
            unsafe fn score($total: Self::Total, scale: f32, bias: f32, weight: __m256) -> __m256 {
                score($sums, scale, bias, weight)
            }
            #[inline(always)]
            unsafe fn load(at: *const f32) -> __m256 {
                _mm256_loadu_ps(at)
            }
            #[inline(always)]
            unsafe fn save(scores: __m256, at: *mut f32) {
                _mm256_storeu_ps(at, scores);
            }
            #[inline(always)]
            unsafe fn load_places(at: *const u32) -> __m256i {
                _mm256_loadu_si256(at.cast())
            }
            #[inline(always)]
            unsafe fn save_places(places: __m256i, at: *mut u32) {
                _mm256_storeu_si256(at.cast(), places);
            }
            #[inline(always)]
            unsafe fn place(place: u32) -> __m256i {
                _mm256_set1_epi32(place as i32)
            }
            #[inline(always)]
            unsafe fn greater(a: __m256, b: __m256) -> __m256 {
                _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)
            }
            #[inline(always)]
            unsafe fn either(mask: __m256, a: __m256, b: __m256) -> __m256 {
                _mm256_blendv_ps(b, a, mask)
            }
            #[inline(always)]
            unsafe fn either_place(mask: __m256, a: __m256i, b: __m256i) -> __m256i {
                _mm256_blendv_epi8(b, a, _mm256_castps_si256(mask))
            }
        }
    )*};
}
keep!(
    TileI8, |total| _mm256_cvtepi32_ps(total);
    TileF32, |total| total;
);
// SAFETY: reads and writes the 16 values.
unsafe impl Lanes for Hadamard {
    #[inline(always)]
    unsafe fn hadamard(lanes: &mut [f32; 16]) {
        let halves = lanes.as_mut_ptr();
        let (a, b) = (within_8(_mm256_loadu_ps(halves)), within_8(_mm256_loadu_ps(halves.add(8))));
        _mm256_storeu_ps(halves, _mm256_add_ps(a, b));
        _mm256_storeu_ps(halves.add(8), _mm256_sub_ps(a, b));
    }
}

/// The Hadamard transform of 8 values.
#[inline(always)]
unsafe fn within_8(x: __m256) -> __m256 {
    let other = _mm256_permute_ps::<0b10_11_00_01>(x);
    let x = _mm256_blend_ps::<0b1010_1010>(_mm256_add_ps(other, x), _mm256_sub_ps(other, x));
    let other = _mm256_permute_ps::<0b01_00_11_10>(x);
    let x = _mm256_blend_ps::<0b1100_1100>(_mm256_add_ps(other, x), _mm256_sub_ps(other, x));
    let other = _mm256_permute2f128_ps::<0x01>(x, x);
    _mm256_blend_ps::<0b1111_0000>(_mm256_add_ps(other, x), _mm256_sub_ps(other, x))
}

// SAFETY: reads the 16 bytes of each part, writes 128.
unsafe impl Select for Choose {
    #[inline(always)]
    unsafe fn four(tables: &[[u32; 16]], parts: &[u32], packed: &[u8], out: &mut [u8; 128]) {
        let mut rows = [_mm256_setzero_si256(); 4];
        for (table, part) in tables.iter().zip(parts) {
            let table = table.as_ptr().cast::<__m256i>();
            let (low, high) = (_mm256_loadu_si256(table), _mm256_loadu_si256(table.add(1)));
            let packed = packed.as_ptr().add(*part as usize * 16);
            for half in 0..2 {
                let nibbles = _mm256_cvtepu8_epi32(_mm_loadl_epi64(packed.add(8 * half).cast()));
                rows[half] = _mm256_or_si256(rows[half], choose(low, high, nibbles));
                let nibbles = _mm256_srli_epi32::<4>(nibbles);
                rows[half + 2] = _mm256_or_si256(rows[half + 2], choose(low, high, nibbles));
            }
        }
        for i in 0..4 {
            _mm256_storeu_si256(out.as_mut_ptr().cast::<__m256i>().add(i), rows[i]);
        }
    }
}

/// Entries of a table of 16, by the lowest four bits of each lane.
#[inline(always)]
unsafe fn choose(low: __m256i, high: __m256i, nibbles: __m256i) -> __m256i {
    let low = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(low, nibbles));
    let high = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(high, nibbles));
    let is_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(nibbles));
    _mm256_castps_si256(_mm256_blendv_ps(low, high, is_high))
}
