//! Vectors as they come, checked, in the type that is kept.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use nearest_kernels::Kernels;

use super::Spec;
use super::snapshot::check_numbers;
use crate::column::{ColumnWriter, Row};
use crate::encoding::{Encoding, Kind, Values, each_kind};
use crate::error::{Error, Result};
use crate::metric::Metric;

/// Whether zero vectors are taken where only directions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// They are an error.
    Refuse,
    /// They are at cosine distance 1 from everything.
    Accept,
}

impl Zeros {
    /// The metric for which vectors must have a meaning.
    fn checked_for(self, spec: &Spec) -> Metric {
        match self {
            Zeros::Refuse => spec.metric,
            Zeros::Accept => Metric::Euclidean,
        }
    }
}

/// Stages vectors of any type that can be held exactly enough, after checking them.
pub(super) fn stage_values<T: Kind>(
    column: &mut ColumnWriter<T>,
    values: Values<'_>,
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<Vec<Range<Row>>> {
    column.append(&held::<T>(values, spec, first, zeros, kernels)?)
}

/// What `code` makes of vectors of which only codes are kept, after checking them; integers come to it as these.
pub(super) fn of_checked<R>(
    values: Values<'_>,
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
    code: impl FnOnce(Values<'_>) -> Result<R>,
) -> Result<R> {
    match spec.encoding {
        Encoding::UInt8 => code(Values::UInt8(&held::<u8>(values, spec, first, zeros, kernels)?)),
        Encoding::Int8 => code(Values::Int8(&held::<i8>(values, spec, first, zeros, kernels)?)),
        _ => {
            let metric = zeros.checked_for(spec);
            each_kind!(values, Values, values => {
                check_numbers(kernels, "vectors", values, spec.dim, first, metric)?;
            });
            code(values)
        }
    }
}

/// Vectors as this type, after checking them; an error where it cannot hold them exactly enough.
pub(super) fn held<'a, T: Kind>(
    values: Values<'a>,
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<Cow<'a, [T]>> {
    if let Some(values) = T::values(&values) {
        let metric = zeros.checked_for(spec);
        check_numbers(kernels, "vectors", values, spec.width(), first, metric)?;
        return Ok(Cow::Borrowed(values));
    }
    let Values::Float32(values) = values else {
        return Err(Error::argument(format!(
            "vectors must be float32 or {}, got {}",
            T::NAME,
            values.element()
        )));
    };
    converted::<T>(values, spec, first, zeros, kernels).map(Cow::Owned)
}

/// Vectors in another type that can hold them exactly enough.
fn converted<T: Kind>(
    values: &[f32],
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<Vec<T>> {
    let width = spec.width();
    let metric = zeros.checked_for(spec);
    check_numbers(kernels, "vectors", values, width, first, metric)?;
    let mut converted = Vec::with_capacity(values.len());
    for (i, &value) in values.iter().enumerate() {
        converted.push(T::from_f32(value).ok_or_else(|| {
            Error::argument(format!(
                "vectors must hold values of {}, got {value} in row {}, dimension {}",
                T::NAME,
                first + i / width,
                i % width
            ))
        })?);
    }
    // What was not zero may have become so.
    check_numbers(kernels, "vectors", &converted, width, first, metric)?;
    Ok(converted)
}

/// An error unless vectors can be held in an encoding that keeps them as they are.
pub(super) fn check_held(
    encoding: Encoding,
    values: &[f32],
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<()> {
    match encoding {
        Encoding::Float16 => converted::<f16>(values, spec, first, zeros, kernels).map(drop),
        Encoding::BFloat16 => converted::<bf16>(values, spec, first, zeros, kernels).map(drop),
        Encoding::Int8 => converted::<i8>(values, spec, first, zeros, kernels).map(drop),
        Encoding::UInt8 => converted::<u8>(values, spec, first, zeros, kernels).map(drop),
        Encoding::Float32 | Encoding::Binary | Encoding::Short(_) => Ok(()),
    }
}
