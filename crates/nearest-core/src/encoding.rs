//! Encodings: how vectors are stored.

use half::{bf16, f16};

use crate::column::{Column, ColumnWriter, Row};
use crate::error::{Error, Result};
use crate::metric::Metric;

/// How vectors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Single precision.
    Float32 = 0,
    /// Half precision: 11 bits, up to 65 504.
    Float16 = 1,
    /// The upper half of single precision: 8 bits, its whole range.
    BFloat16 = 2,
    /// Whole numbers from −128 to 127.
    Int8 = 3,
    /// Whole numbers from 0 to 255.
    UInt8 = 4,
    /// Bits, packed eight to a byte, the first in the highest place.
    Binary = 5,
}

impl Encoding {
    /// All of them, in the order of their numbers.
    pub const ALL: [Encoding; 6] = [
        Encoding::Float32,
        Encoding::Float16,
        Encoding::BFloat16,
        Encoding::Int8,
        Encoding::UInt8,
        Encoding::Binary,
    ];

    /// The name used in Python, on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Float32 => "float32",
            Encoding::Float16 => "float16",
            Encoding::BFloat16 => "bfloat16",
            Encoding::Int8 => "int8",
            Encoding::UInt8 => "uint8",
            Encoding::Binary => "binary",
        }
    }

    /// The encoding of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|encoding| encoding.name()).collect();
            Error::argument(format!("encoding must be one of {}, got '{name}'", names.join(", ")))
        })
    }

    /// The encoding of that number, as files hold it.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Elements that a vector of `dim` dimensions takes.
    pub fn width(self, dim: usize) -> usize {
        if self == Encoding::Binary { dim.div_ceil(8) } else { dim }
    }

    /// Whether values are kept in fewer than 8 bits a step or as whole numbers: no 8-bit shadow makes them shorter.
    pub fn is_short(self) -> bool {
        matches!(self, Encoding::Int8 | Encoding::UInt8 | Encoding::Binary)
    }

    /// An error unless vectors stored so can be compared by `metric`.
    pub fn check_metric(self, metric: Metric) -> Result<()> {
        if (self == Encoding::Binary) == metric.is_binary() {
            return Ok(());
        }
        Err(Error::argument(if self == Encoding::Binary {
            format!("encoding binary goes with the metrics hamming and jaccard, got {}", metric.name())
        } else {
            format!("the metric {} goes with encoding binary, got {}", metric.name(), self.name())
        }))
    }
}

macro_rules! vectors {
    ($($variant:ident $element:ty, $name:literal;)*) => {
        /// The vectors of one version, by the type of their elements. Bits are bytes.
        #[derive(Clone, Debug)]
        #[allow(missing_docs)]
        pub enum Vectors {
            $($variant(Column<$element>),)*
        }

        /// What appends to [`Vectors`].
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum VectorsWriter {
            $($variant(ColumnWriter<$element>),)*
        }

        /// Vectors as they come in or go out: row-major, of one element type.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)]
        pub enum Values<'a> {
            $($variant(&'a [$element]),)*
        }

        impl Values<'_> {
            /// How many elements.
            pub fn len(&self) -> usize {
                match self { $(Values::$variant(values) => values.len(),)* }
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The name of the element type.
            pub fn element(&self) -> &'static str {
                match self { $(Values::$variant(_) => $name,)* }
            }
        }

        /// A type that vectors can be stored as, with its place in the closed enums.
        pub trait Kind: crate::stored::Stored {
            /// These values, if they are of this type.
            fn values<'a>(values: &Values<'a>) -> Option<&'a [Self]>;
            /// The name of the type.
            const NAME: &'static str;
        }

        $(impl Kind for $element {
            const NAME: &'static str = $name;
            fn values<'a>(values: &Values<'a>) -> Option<&'a [Self]> {
                match values { Values::$variant(values) => Some(values), _ => None }
            }
        })*

        /// Runs one generic body for whatever element type it is: `each_kind!(vectors, Vectors, column => …)`.
        macro_rules! each_kind {
            ($value:expr, $kind:ident, $inner:ident => $body:expr) => {
                match $value { $($crate::encoding::$kind::$variant($inner) => $body,)* }
            };
        }
        pub(crate) use each_kind;
    };
}
vectors! {
    Float32 f32, "float32";
    Float16 f16, "float16";
    BFloat16 bf16, "bfloat16";
    Int8 i8, "int8";
    UInt8 u8, "uint8";
}

impl Vectors {
    /// No vectors yet.
    pub fn empty(encoding: Encoding, dim: usize) -> Self {
        use crate::column::CHUNK_ROWS;
        let width = encoding.width(dim);
        match encoding {
            Encoding::Float32 => Vectors::Float32(Column::new(width, CHUNK_ROWS)),
            Encoding::Float16 => Vectors::Float16(Column::new(width, CHUNK_ROWS)),
            Encoding::BFloat16 => Vectors::BFloat16(Column::new(width, CHUNK_ROWS)),
            Encoding::Int8 => Vectors::Int8(Column::new(width, CHUNK_ROWS)),
            Encoding::UInt8 | Encoding::Binary => Vectors::UInt8(Column::new(width, CHUNK_ROWS)),
        }
    }

    /// Chunks, freed ones included.
    pub fn n_chunks(&self) -> usize {
        each_kind!(self, Vectors, column => column.n_chunks())
    }

    /// Rows of a chunk.
    pub fn rows_in(&self, chunk: usize) -> usize {
        each_kind!(self, Vectors, column => column.rows_in(chunk))
    }

    /// Rows, live or not.
    pub fn n_rows(&self) -> usize {
        (0..self.n_chunks()).map(|chunk| self.rows_in(chunk)).sum()
    }

    /// Bytes of memory held, without those of a map.
    pub fn memory_bytes(&self) -> usize {
        each_kind!(self, Vectors, column => column.memory_bytes())
    }

    /// Appends a row's values as floats; bits as bytes.
    pub fn extend_f32(&self, row: Row, out: &mut Vec<f32>) {
        use nearest_kernels::Element;
        each_kind!(self, Vectors, column => out.extend(column.row(row).iter().map(|value| value.to_f32())));
    }
}
