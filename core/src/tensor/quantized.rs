//! A matrix as a GGUF file stores it: whole numbers of few bits in blocks, each block with a scale of its own.

use std::borrow::Cow;

/// Inputs in a block of every [`QuantKind`].
pub const QUANT_BLOCK: usize = 32;

/// How a block is stored: scale and minimum as f16, then the codes. Of 4-bit codes a byte holds those of input `i` (low) and
/// `i + 16` (high).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantKind {
    /// `(code - 8) * scale`, 4 bits.
    Q4_0,
    /// `code * scale + minimum`, 4 bits.
    Q4_1,
    /// `code * scale`, 8 bits with a sign.
    Q8_0,
}

impl QuantKind {
    /// Bytes before a block's codes.
    pub fn header_bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q8_0 => 2,
            Self::Q4_1 => 4,
        }
    }

    /// Bytes of a block's codes.
    pub fn code_bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 => QUANT_BLOCK / 2,
            Self::Q8_0 => QUANT_BLOCK,
        }
    }
}

/// A quantised matrix `[n_out, n_in]`.
pub struct QuantizedMatrix<'a> {
    /// How blocks are stored.
    pub kind: QuantKind,
    /// Inputs: whole blocks of [`QUANT_BLOCK`].
    pub n_in: usize,
    /// Rows one after another, each its blocks in order.
    pub rows: Cow<'a, [u8]>,
}

impl QuantizedMatrix<'_> {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.n_in / QUANT_BLOCK * (self.kind.header_bytes() + self.kind.code_bytes())
    }
}
