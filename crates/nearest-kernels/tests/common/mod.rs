//! What the tests share.
#![allow(dead_code, reason = "each test file uses a part")]

use nearest_kernels::Kernels;

/// The tables to test.
///
/// With `NEAREST_REQUIRE_KERNELS=avx512` a CPU that lacks that level fails the tests.
pub fn levels() -> &'static [&'static Kernels] {
    if let Ok(required) = std::env::var("NEAREST_REQUIRE_KERNELS") {
        assert!(Kernels::named(&required).is_some(), "this CPU lacks {required}: {:?}", Kernels::available());
    }
    Kernels::available()
}

/// Numbers from a seed (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    /// Roughly normal, of mean 0 and variance 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    /// Any finite float, of any magnitude.
    pub fn any_float(&mut self) -> f32 {
        let value = f32::from_bits(self.bits() as u32);
        if value.is_finite() { value } else { 1.0 }
    }
}
