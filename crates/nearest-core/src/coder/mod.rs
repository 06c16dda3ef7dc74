//! Coders: vectors as short codes that unpack, 32 rows at a time, to the panels of bytes that kernels multiply.
//!
//! | file | what it holds |
//! |---|---|
//! | `grid.rs` | `scalar8`, `scalar4` and `rabitq`: levels of an even grid |
//! | `product.rs` | `product`: codebooks of parts of the vector |
//!
//! Whatever the encoding, a row stands for `x̂ = scale · (u − zero)`, with a float32 scale a row, unsigned bytes `u` and one
//! whole number `zero`. So inner products with a query of signed bytes `v` are had from one kind of tile:
//! `⟨q̂, x̂⟩ = query scale · scale · Σ v · (u − zero)`, where `−zero · Σ v` is what the query's sums start from.
//!
//! Vectors come as the caller wants them coded: centred, rotated, or as they are.

use nearest_kernels::{Kernels, MAX_DIM, PANEL_ROWS, panel_depth};

use crate::error::{Error, Result};
use crate::work::Work;

mod grid;
mod product;

pub use grid::GridCoder;
pub use product::ProductCoder;

/// A short encoding, as named in Python, on the command line and in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShortEncoding {
    /// 255 levels a component.
    Scalar8,
    /// 16 levels a component.
    Scalar4,
    /// `m` parts of the vector, each one of 2ᵇ centroids.
    Product {
        /// Parts.
        m: u16,
        /// 4 or 8.
        bits: u8,
    },
    /// 2ᵇ levels a component, whose inner products with the row are unbiased.
    Rabitq {
        /// 1 to 8.
        bits: u8,
    },
}

impl ShortEncoding {
    /// The name, with its parameters: `scalar8`, `scalar4`, `product(96, 4)`, `rabitq(2)`.
    pub fn name(self) -> String {
        match self {
            ShortEncoding::Scalar8 => "scalar8".into(),
            ShortEncoding::Scalar4 => "scalar4".into(),
            ShortEncoding::Product { m, bits } => format!("product({m}, {bits})"),
            ShortEncoding::Rabitq { bits } => format!("rabitq({bits})"),
        }
    }

    /// The encoding of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        let wrong = || {
            Error::argument(format!(
                "a short encoding must be scalar8, scalar4, product(m, bits) with m in 1..=65535 and bits 4 or 8, or \
                 rabitq(bits) with bits in 1..=8, got '{name}'"
            ))
        };
        let (kind, numbers) = match name.trim().split_once('(') {
            None => (name.trim(), Vec::new()),
            Some((kind, rest)) => {
                let inside = rest.strip_suffix(')').ok_or_else(wrong)?;
                let numbers = inside.split(',').map(|number| number.trim().parse());
                (kind.trim_end(), numbers.collect::<std::result::Result<_, _>>().map_err(|_| wrong())?)
            }
        };
        let found = match (kind, &numbers[..]) {
            ("scalar8", []) => ShortEncoding::Scalar8,
            ("scalar4", []) => ShortEncoding::Scalar4,
            ("product", &[m, bits]) => {
                ShortEncoding::Product { m, bits: u8::try_from(bits).map_err(|_| wrong())? }
            }
            ("rabitq", &[bits]) => ShortEncoding::Rabitq { bits: u8::try_from(bits).map_err(|_| wrong())? },
            _ => return Err(wrong()),
        };
        if found.is_valid() { Ok(found) } else { Err(wrong()) }
    }

    /// Kind, parts and bits, as files hold them.
    pub fn to_numbers(self) -> [u64; 3] {
        match self {
            ShortEncoding::Scalar8 => [0, 0, 0],
            ShortEncoding::Scalar4 => [1, 0, 0],
            ShortEncoding::Product { m, bits } => [2, m.into(), bits.into()],
            ShortEncoding::Rabitq { bits } => [3, 0, bits.into()],
        }
    }

    /// The encoding of these numbers.
    pub fn from_numbers(numbers: [u64; 3]) -> Option<Self> {
        let found = match numbers {
            [0, 0, 0] => ShortEncoding::Scalar8,
            [1, 0, 0] => ShortEncoding::Scalar4,
            [2, m, bits] => ShortEncoding::Product { m: m.try_into().ok()?, bits: bits.try_into().ok()? },
            [3, 0, bits] => ShortEncoding::Rabitq { bits: bits.try_into().ok()? },
            _ => return None,
        };
        found.is_valid().then_some(found)
    }

    fn is_valid(self) -> bool {
        match self {
            ShortEncoding::Scalar8 | ShortEncoding::Scalar4 => true,
            ShortEncoding::Product { m, bits } => m >= 1 && (bits == 4 || bits == 8),
            ShortEncoding::Rabitq { bits } => (1..=8).contains(&bits),
        }
    }

    /// An error unless vectors of `dim` components can be coded so.
    pub fn check_dim(self, dim: usize) -> Result<()> {
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(Error::argument(format!("dim must be in 1..={MAX_DIM}, got {dim}")));
        }
        match self {
            _ if !self.is_valid() => {
                // Made by hand: the fields are public.
                Err(Error::argument(format!("there is no encoding {}", self.name())))
            }
            ShortEncoding::Product { m, .. } if usize::from(m) > dim => {
                Err(Error::argument(format!("{} needs at least {m} dimensions, got {dim}", self.name())))
            }
            _ => Ok(()),
        }
    }
}

/// What a coded row has beside its code.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CodeTerms {
    /// `x̂ = scale · (u − zero)`; 0 where no scale is useful (zeros, values beyond 1e±30).
    pub scale: f32,
    /// At least `‖x − x̂‖`; infinite where float32 cannot hold that.
    pub error: f32,
}

/// Buffers of coding, kept from row to row.
#[derive(Debug, Default)]
pub struct CoderScratch {
    levels: Vec<u8>,
    panel: Vec<u8>,
    lanes: Vec<f32>,
    numbers: Vec<u8>,
}

/// A trained encoding of vectors of one length.
#[derive(Clone, Debug)]
pub enum Coder {
    /// `scalar8`, `scalar4` and `rabitq`.
    Grid(GridCoder),
    /// `product`.
    Product(ProductCoder),
}

/// Whether codes mean the same.
impl PartialEq for Coder {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Coder::Grid(one), Coder::Grid(other)) => one == other,
            (Coder::Product(one), Coder::Product(other)) => one.state() == other.state(),
            _ => false,
        }
    }
}

impl Coder {
    /// A coder for vectors like those of `sample`, row-major. Only `product` looks at it.
    pub fn train(
        encoding: ShortEncoding,
        dim: usize,
        sample: &[f32],
        seed: u64,
        kernels: &Kernels,
        work: &Work<'_>,
    ) -> Result<Self> {
        encoding.check_dim(dim)?;
        if !sample.len().is_multiple_of(dim) {
            return Err(Error::argument(format!(
                "a sample must be whole rows of {dim}, got {} values",
                sample.len()
            )));
        }
        match encoding {
            ShortEncoding::Product { m, bits } => {
                ProductCoder::train(m.into(), bits.into(), dim, sample, seed, kernels, work)
                    .map(Coder::Product)
            }
            _ => Ok(Coder::Grid(GridCoder::new(encoding, dim))),
        }
    }

    /// What [`Coder::from_state`] makes the same coder of.
    pub fn state(&self) -> Vec<u8> {
        match self {
            Coder::Grid(_) => Vec::new(),
            Coder::Product(coder) => coder.state(),
        }
    }

    /// The coder of this state, as files hold it; a format error where there is none.
    pub fn from_state(encoding: ShortEncoding, dim: usize, state: &[u8]) -> Result<Self> {
        encoding.check_dim(dim).map_err(|error| Error::format(error.to_string()))?;
        match encoding {
            ShortEncoding::Product { m, bits } => {
                ProductCoder::from_state(m.into(), bits.into(), dim, state).map(Coder::Product)
            }
            _ if state.is_empty() => Ok(Coder::Grid(GridCoder::new(encoding, dim))),
            _ => Err(Error::format(format!("{} has no state, got {} bytes", encoding.name(), state.len()))),
        }
    }

    /// Components of a vector.
    pub fn dim(&self) -> usize {
        match self {
            Coder::Grid(coder) => coder.dim(),
            Coder::Product(coder) => coder.dim(),
        }
    }

    /// What the unpacked bytes are relative to.
    pub fn zero(&self) -> i32 {
        match self {
            Coder::Grid(coder) => coder.zero(),
            Coder::Product(coder) => coder.zero(),
        }
    }

    /// Bytes of one row's code.
    pub fn code_bytes(&self) -> usize {
        match self {
            Coder::Grid(coder) => coder.code_bytes(),
            Coder::Product(coder) => coder.code_bytes(),
        }
    }

    /// Bytes of a packed panel of 32 rows.
    pub fn panel_bytes(&self) -> usize {
        match self {
            Coder::Grid(coder) => coder.panel_bytes(),
            Coder::Product(coder) => coder.panel_bytes(),
        }
    }

    /// The bits of the planes that packed panels are made of, if they are.
    pub fn plane_bits(&self) -> Option<u32> {
        match self {
            Coder::Grid(coder) if !coder.is_identity() => Some(coder.bits()),
            _ => None,
        }
    }

    /// Whether a packed panel is the panel of bytes itself, so that [`Coder::unpack_panel`] would only copy it.
    pub fn is_identity(&self) -> bool {
        match self {
            Coder::Grid(coder) => coder.is_identity(),
            Coder::Product(_) => false,
        }
    }

    /// Codes a row. The same bits on every CPU.
    ///
    /// # Panics
    /// Unless `x` has `dim` components and `code` [`Coder::code_bytes`].
    #[track_caller]
    pub fn encode(
        &self,
        kernels: &Kernels,
        x: &[f32],
        code: &mut [u8],
        scratch: &mut CoderScratch,
    ) -> CodeTerms {
        self.check_row(x.len(), code.len());
        match self {
            Coder::Grid(coder) => coder.encode(kernels, x, code, scratch),
            Coder::Product(coder) => coder.encode(kernels, x, code, scratch),
        }
    }

    /// What a code stands for: `scale · (u − zero)`, each component rounded once.
    ///
    /// # Panics
    /// Unless `out` has `dim` components and `code` [`Coder::code_bytes`].
    #[track_caller]
    pub fn decode(&self, code: &[u8], scale: f32, out: &mut [f32]) {
        self.check_row(out.len(), code.len());
        let zero = self.zero();
        if self.is_identity() {
            let levels = out.iter_mut().zip(code);
            return levels.for_each(|(out, &byte)| *out = scale * (i32::from(byte) - zero) as f32);
        }
        let bytes = &mut vec![0; self.dim()][..];
        match self {
            Coder::Grid(coder) => coder.row_bytes(code, bytes),
            Coder::Product(coder) => coder.row_bytes(code, bytes),
        }
        for (out, &byte) in out.iter_mut().zip(&*bytes) {
            *out = scale * (i32::from(byte) - zero) as f32;
        }
    }

    /// Packs the codes of up to 32 rows, side by side. Places without a row are filled with whatever unpacks.
    ///
    /// # Panics
    /// Unless `codes` are whole codes, 32 at most, and `panel` has [`Coder::panel_bytes`].
    #[track_caller]
    pub fn pack_panel(&self, codes: &[u8], panel: &mut [u8], scratch: &mut CoderScratch) {
        let code_bytes = self.code_bytes();
        assert!(
            codes.len().is_multiple_of(code_bytes) && codes.len() / code_bytes <= PANEL_ROWS,
            "at most 32 codes of {code_bytes} bytes make a panel, got {} bytes",
            codes.len()
        );
        self.check_panel(panel.len());
        match self {
            Coder::Grid(coder) => coder.pack_panel(codes, panel, scratch),
            Coder::Product(coder) => coder.pack_panel(codes, panel),
        }
    }

    /// Unpacks a panel to bytes, laid out as tiles of the kernels take them. The same on every CPU.
    ///
    /// # Panics
    /// Unless `panel` has [`Coder::panel_bytes`] and `bytes` 32 · `panel_depth(dim)`.
    #[track_caller]
    pub fn unpack_panel(&self, kernels: &Kernels, panel: &[u8], bytes: &mut [u8]) {
        self.check_panel(panel.len());
        let expected = PANEL_ROWS * panel_depth(self.dim());
        assert!(bytes.len() == expected, "an unpacked panel must have {expected} bytes, got {}", bytes.len());
        match self {
            Coder::Grid(coder) => coder.unpack_panel(kernels, panel, bytes),
            Coder::Product(coder) => coder.unpack_panel(kernels, panel, bytes),
        }
    }

    /// The code of one row of a packed panel.
    ///
    /// # Panics
    /// Unless `panel` has [`Coder::panel_bytes`], `code` [`Coder::code_bytes`], and `row` is below 32.
    #[track_caller]
    pub fn row_of_panel(&self, panel: &[u8], row: usize, code: &mut [u8]) {
        self.check_panel(panel.len());
        self.check_row(self.dim(), code.len());
        assert!(row < PANEL_ROWS, "a panel has 32 rows, asked for row {row}");
        match self {
            Coder::Grid(coder) => coder.row_of_panel(panel, row, code),
            Coder::Product(coder) => coder.row_of_panel(panel, row, code),
        }
    }

    #[track_caller]
    fn check_row(&self, dim: usize, code: usize) {
        assert!(dim == self.dim(), "a vector must have {} components, got {dim}", self.dim());
        assert!(code == self.code_bytes(), "a code must have {} bytes, got {code}", self.code_bytes());
    }

    #[track_caller]
    fn check_panel(&self, panel: usize) {
        assert!(panel == self.panel_bytes(), "a panel must have {} bytes, got {panel}", self.panel_bytes());
    }
}
