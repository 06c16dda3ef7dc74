//! The number types that vectors are stored as.

use std::fmt::Debug;

use bytemuck::Pod;
use half::{bf16, f16};

use crate::kernels::{ElementTable, Kernels};

/// A number type that vectors are stored as: `f32`, `half::f16`, `half::bf16`, `i8` or `u8`.
///
/// The set is closed: each type has its kernels in every table.
pub trait Element: Pod + PartialEq + Send + Sync + Debug + 'static + sealed::Tables {
    /// What a query is made of: `f32` for the float kinds, the type itself for integers.
    type Query: Pod + PartialEq + Send + Sync + Debug + 'static;
    /// What a selection kernel sums in: `f32` for the float kinds, `i32` (exactly) for integers.
    type Sum: Pod + PartialEq + PartialOrd + Send + Sync + Debug + Default + 'static;

    /// The value as `f32`, exactly.
    fn to_f32(self) -> f32;

    /// The value as `f64`, exactly.
    fn to_f64(self) -> f64 {
        f64::from(self.to_f32())
    }

    /// The nearest value of this type, ties to even; `None` where the value cannot be held.
    ///
    /// Integers refuse fractions, NaN and what is out of range. `f16` and `bf16` refuse finite values
    /// that would become infinite.
    fn from_f32(value: f32) -> Option<Self>;
}

pub(crate) mod sealed {
    use super::{ElementTable, Kernels};

    /// Where a table keeps the kernels of a type; also keeps [`super::Element`] closed.
    pub trait Tables: Sized {
        fn table(kernels: &Kernels) -> &ElementTable<Self>
        where
            Self: super::Element;

        /// The values of a block as `f32`, exactly; `F16C` allows that instruction set.
        ///
        /// # Safety
        /// With `F16C`, only inside functions that have that feature.
        unsafe fn widen<const F16C: bool>(block: &[Self; 32]) -> [f32; 32];
    }
}

macro_rules! tables {
    ($($kind:ident)*) => {$(
        impl sealed::Tables for $kind {
            fn table(kernels: &Kernels) -> &ElementTable<Self> {
                &kernels.$kind
            }

            #[inline(always)]
            unsafe fn widen<const F16C: bool>(block: &[Self; 32]) -> [f32; 32] {
                let mut values = [0.0; 32];
                for j in 0..32 {
                    values[j] = block[j].to_f32();
                }
                values
            }
        }
    )*};
}
tables!(f32 bf16 i8 u8);

impl sealed::Tables for f16 {
    fn table(kernels: &Kernels) -> &ElementTable<Self> {
        &kernels.f16
    }

    // In loops of the plain form this instruction halves the time of canonical kernels.
    #[inline(always)]
    unsafe fn widen<const F16C: bool>(block: &[Self; 32]) -> [f32; 32] {
        let mut values = [0.0; 32];
        #[cfg(target_arch = "x86_64")]
        if F16C {
            use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
            for j in (0..32).step_by(8) {
                // SAFETY: the caller vouches for the feature; 8 of 32 elements from `j` on.
                unsafe {
                    let eight = _mm256_cvtph_ps(_mm_loadu_si128(block.as_ptr().add(j).cast()));
                    _mm256_storeu_ps(values.as_mut_ptr().add(j), eight);
                }
            }
            return values;
        }
        for j in 0..32 {
            values[j] = Element::to_f32(block[j]);
        }
        values
    }
}

impl Element for f32 {
    type Query = f32;
    type Sum = f32;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    fn from_f32(value: f32) -> Option<Self> {
        Some(value)
    }
}

impl Element for f16 {
    type Query = f32;
    type Sum = f32;

    // `half` asks the CPU on every call; this form has no branch and vectorises in loops.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        // Read as float32, `magnitude` is the value times 2⁻¹¹², subnormals included: exact both ways.
        let scaled = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
        let special = if magnitude >= 0x7c00 << 13 { 0x7f80_0000 } else { 0 };
        f32::from_bits(scaled | special | (bits & 0x8000) << 16)
    }

    fn from_f32(value: f32) -> Option<Self> {
        let held = f16::from_f32(value);
        (!(held.is_infinite() && value.is_finite())).then_some(held)
    }
}

impl Element for bf16 {
    type Query = f32;
    type Sum = f32;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn from_f32(value: f32) -> Option<Self> {
        let held = bf16::from_f32(value);
        (!(held.is_infinite() && value.is_finite())).then_some(held)
    }
}

macro_rules! integer {
    ($($kind:ident)*) => {$(
        impl Element for $kind {
            type Query = $kind;
            type Sum = i32;

            #[inline(always)]
            fn to_f32(self) -> f32 {
                f32::from(self)
            }

            fn from_f32(value: f32) -> Option<Self> {
                // `as` saturates and takes NaN to 0, so what cannot be held does not come back equal.
                let held = value as $kind;
                (f32::from(held) == value).then_some(held)
            }
        }
    )*};
}
integer!(i8 u8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_converts_as_half_does() {
        for bits in 0..=u16::MAX {
            let (short, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            if short.is_nan() {
                assert!(Element::to_f32(short).is_nan());
            } else {
                assert_eq!(Element::to_f32(short).to_bits(), f32::from(short).to_bits());
                assert_eq!(<f16 as Element>::from_f32(Element::to_f32(short)).unwrap().to_bits(), bits);
            }
            if brain.is_nan() {
                assert!(Element::to_f32(brain).is_nan());
            } else {
                assert_eq!(Element::to_f32(brain).to_bits(), f32::from(brain).to_bits());
                assert_eq!(<bf16 as Element>::from_f32(Element::to_f32(brain)).unwrap().to_bits(), bits);
            }
        }
    }

    #[test]
    fn values_that_cannot_be_held_are_refused() {
        assert_eq!(<u8 as Element>::from_f32(255.0), Some(255));
        assert_eq!(<u8 as Element>::from_f32(-0.0), Some(0));
        assert_eq!(<i8 as Element>::from_f32(-128.0), Some(-128));
        for value in [0.5, -1.0, 256.0, f32::NAN, f32::INFINITY, 1e30] {
            assert_eq!(<u8 as Element>::from_f32(value), None, "{value}");
        }
        for value in [-0.5, -129.0, 128.0, f32::NAN, f32::NEG_INFINITY] {
            assert_eq!(<i8 as Element>::from_f32(value), None, "{value}");
        }
        assert_eq!(<f16 as Element>::from_f32(65_519.0), Some(f16::MAX));
        assert_eq!(<f16 as Element>::from_f32(65_520.0), None);
        assert_eq!(<f16 as Element>::from_f32(f32::INFINITY), Some(f16::INFINITY));
        assert_eq!(<bf16 as Element>::from_f32(f32::MAX), None);
        // Ties go to even.
        assert_eq!(<f16 as Element>::from_f32(2049.0), Some(f16::from_f32_const(2048.0)));
        assert_eq!(<f16 as Element>::from_f32(2051.0), Some(f16::from_f32_const(2052.0)));
        assert_eq!(<bf16 as Element>::from_f32(257.0), Some(bf16::from_f32_const(256.0)));
        assert_eq!(<bf16 as Element>::from_f32(259.0), Some(bf16::from_f32_const(260.0)));
    }
}
