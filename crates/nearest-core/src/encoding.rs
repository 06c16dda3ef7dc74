//! Encodings: how vectors are stored.

use half::{bf16, f16};

use crate::coder::ShortEncoding;
use crate::column::{Column, ColumnWriter};
use crate::error::{Error, Result};
use crate::metric::Metric;

/// From here on, the numbers of kinds are those of short encodings.
const SHORT_NUMBERS: u64 = 16;

/// How vectors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Single precision.
    Float32,
    /// Half precision: 11 bits, up to 65 504.
    Float16,
    /// The upper half of single precision: 8 bits, its whole range.
    BFloat16,
    /// Whole numbers from −128 to 127.
    Int8,
    /// Whole numbers from 0 to 255.
    UInt8,
    /// Bits, packed eight to a byte, the first in the highest place.
    Binary,
    /// Codes that say less than the vectors, and are trained on some of them.
    Short(ShortEncoding),
}

impl Encoding {
    /// Those that keep vectors as they are, in the order of their numbers.
    pub const ALL: [Encoding; 6] = [
        Encoding::Float32,
        Encoding::Float16,
        Encoding::BFloat16,
        Encoding::Int8,
        Encoding::UInt8,
        Encoding::Binary,
    ];

    /// The name used in Python, on the command line and in files.
    pub fn name(self) -> String {
        match self {
            Encoding::Float32 => "float32".into(),
            Encoding::Float16 => "float16".into(),
            Encoding::BFloat16 => "bfloat16".into(),
            Encoding::Int8 => "int8".into(),
            Encoding::UInt8 => "uint8".into(),
            Encoding::Binary => "binary".into(),
            Encoding::Short(short) => short.name(),
        }
    }

    /// The encoding of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        if let Some(encoding) = Self::ALL.into_iter().find(|encoding| encoding.name() == name) {
            return Ok(encoding);
        }
        ShortEncoding::from_name(name).map(Encoding::Short).map_err(|error| {
            let names: Vec<_> = Self::ALL.iter().map(|encoding| encoding.name()).collect();
            Error::argument(format!("encoding must be one of {}, or a short one: {error}", names.join(", ")))
        })
    }

    /// The number that files hold: kind, then 16 bits each of what short encodings have beside.
    pub fn number(self) -> u64 {
        match self {
            Encoding::Float32 => 0,
            Encoding::Float16 => 1,
            Encoding::BFloat16 => 2,
            Encoding::Int8 => 3,
            Encoding::UInt8 => 4,
            Encoding::Binary => 5,
            Encoding::Short(short) => {
                let [kind, m, bits] = short.to_numbers();
                SHORT_NUMBERS + kind + (m << 16) + (bits << 32)
            }
        }
    }

    /// The encoding of that number.
    pub fn from_number(number: u64) -> Option<Self> {
        let kind = number & 0xffff;
        if kind < SHORT_NUMBERS {
            return Self::ALL.get(usize::try_from(number).ok()?).copied();
        }
        let numbers = [kind - SHORT_NUMBERS, number >> 16 & 0xffff, number >> 32];
        ShortEncoding::from_numbers(numbers).map(Encoding::Short)
    }

    /// Whether vectors are kept as they are, up to rounding to the element type.
    pub fn is_raw(self) -> bool {
        !matches!(self, Encoding::Short(_))
    }

    /// Elements that a vector of `dim` dimensions takes where it is kept as it is.
    pub fn width(self, dim: usize) -> usize {
        if self == Encoding::Binary { dim.div_ceil(8) } else { dim }
    }

    /// Whether vectors are kept in at most 8 bits a dimension: no 8-bit shadow makes them shorter.
    pub fn is_short(self) -> bool {
        matches!(self, Encoding::Int8 | Encoding::UInt8 | Encoding::Binary | Encoding::Short(_))
    }

    /// Whether vectors are whole numbers of 8 bits.
    pub fn is_integer(self) -> bool {
        matches!(self, Encoding::Int8 | Encoding::UInt8)
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
            // Short codes are made once there are enough vectors to train on; until then these are kept as they are.
            Encoding::Float32 | Encoding::Short(_) => Vectors::Float32(Column::new(width, CHUNK_ROWS)),
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
}
