//! The number types vectors are stored as, with what the kernels leave to the core.

use half::{bf16, f16};
use nearest_kernels::Element;

/// A number type that vectors are stored as: `f32`, `f16`, `bf16`, `i8` or `u8`.
pub trait Stored: Element {
    /// Whether sums are exact integers, and queries must be of the same type.
    const IS_INTEGER: bool;

    /// A query in the form the kernels take, or nothing where this type cannot hold its values.
    fn query(values: &[f32]) -> Option<Vec<Self::Query>>;

    /// A kernel's sum as a float, rounded if it must be.
    fn sum_to_f32(sum: Self::Sum) -> f32;

    /// Whether values may be negative.
    const SIGNED: bool;

    /// The value as an unsigned byte, for panels: signed ones go up by 128. Integers only.
    fn panel_byte(self) -> u8 {
        unreachable!("only integers are packed as they are")
    }
}

macro_rules! floats {
    ($($kind:ident)*) => {$(
        impl Stored for $kind {
            const IS_INTEGER: bool = false;
            const SIGNED: bool = true;

            fn query(values: &[f32]) -> Option<Vec<f32>> {
                Some(values.to_vec())
            }

            fn sum_to_f32(sum: f32) -> f32 {
                sum
            }
        }
    )*};
}
floats!(f32 f16 bf16);

macro_rules! integers {
    ($($kind:ident $signed:literal $panel_byte:expr;)*) => {$(
        impl Stored for $kind {
            const IS_INTEGER: bool = true;
            const SIGNED: bool = $signed;

            fn query(values: &[f32]) -> Option<Vec<$kind>> {
                values.iter().map(|&value| <$kind as Element>::from_f32(value)).collect()
            }

            fn sum_to_f32(sum: i32) -> f32 {
                sum as f32
            }

            #[inline(always)]
            fn panel_byte(self) -> u8 {
                $panel_byte(self)
            }
        }
    )*};
}
integers! {
    u8 false |value| value;
    i8 true |value: i8| (value as u8) ^ 0x80;
}
