//! Weight matrices on the device: as f32, in 16 bits where those are the same numbers, or as whole numbers that kernels unpack where
//! they read them. A matrix larger than
//! one binding may be (the vocabulary of a large model) lies in parts.

use half::{bf16, f16};

use super::commands::{Commands, Param};
use super::kernels::Kernel;
use super::memory::GpuBuffer;
use crate::tensor::HostTensor;
use crate::tensor::quantized::{QUANT_BLOCK, QuantKind, QuantizedMatrix};

/// Outputs of a tile of a product.
const TILE: usize = 64;
/// From so many large tiles on they occupy a device.
const MIN_LARGE_TILES: usize = 100;
/// Rows of a product that a model's first passes compute: those of a short prompt.
const EXPECTED_ROWS: usize = 64;

/// How a product is shared out. Both sizes of tiles add in one order, so that a row's bits do not go with how many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tiling {
    /// Without tiles, for rows of f32 of any length.
    Any,
    /// Tiles of 32 rows.
    Small,
    /// Tiles of 128 rows.
    Large,
}

impl Tiling {
    /// For rows of `n_in` values; tiles are read four of them at a time.
    fn of(n_rows: usize, n_in: usize, n_out: usize) -> Self {
        match n_out.div_ceil(TILE) * n_rows.div_ceil(128) {
            _ if !n_in.is_multiple_of(4) => Self::Any,
            n_tiles if n_tiles >= MIN_LARGE_TILES => Self::Large,
            _ => Self::Small,
        }
    }

    /// Outputs and rows of a workgroup.
    fn tile(self) -> (usize, usize) {
        match self {
            Self::Any => (16, 16),
            Self::Small => (TILE, 32),
            Self::Large => (TILE, 128),
        }
    }
}

/// A weight matrix `[n_out, n_in]`.
pub struct GpuMatrix {
    form: Form,
    n_in: usize,
    n_out: usize,
    parts: Vec<Part>,
}

/// Some rows of it.
struct Part {
    first_row: usize,
    n_rows: usize,
    buffer: GpuBuffer,
}

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    F32,
    /// Two in a word.
    Bf16,
    /// Two in a word.
    F16,
    /// Blocks: a word of scale and minimum as f16, then so many words of codes; a code stands for `(code - zero) * scale +
    /// minimum`.
    Blocks {
        n_words: usize,
        zero: f32,
    },
}

impl Form {
    /// The code of nothing.
    fn zero(self) -> f32 {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => 0.0,
            Self::Blocks { zero, .. } => zero,
        }
    }

    /// Computes products.
    fn product(self, tiling: Tiling) -> Kernel {
        match (self, tiling) {
            (Self::Bf16 | Self::F16 | Self::Blocks { .. }, Tiling::Any) => {
                unreachable!("rows in 16 bits or in blocks are whole fours")
            }
            (Self::F32, Tiling::Any) => Kernel::MatmulF32Any,
            (Self::F32, Tiling::Small) => Kernel::MatmulF32,
            (Self::F32, Tiling::Large) => Kernel::MatmulF32Large,
            (Self::Bf16, Tiling::Small) => Kernel::MatmulBf16,
            (Self::Bf16, Tiling::Large) => Kernel::MatmulBf16Large,
            (Self::F16, Tiling::Small) => Kernel::MatmulF16,
            (Self::F16, Tiling::Large) => Kernel::MatmulF16Large,
            (Self::Blocks { n_words: 4, .. }, Tiling::Small) => Kernel::Matmul4Bit,
            (Self::Blocks { n_words: 4, .. }, Tiling::Large) => Kernel::Matmul4BitLarge,
            (Self::Blocks { .. }, Tiling::Small) => Kernel::Matmul8Bit,
            (Self::Blocks { .. }, Tiling::Large) => Kernel::Matmul8BitLarge,
        }
    }
}

impl GpuMatrix {
    /// Takes a matrix of f32; what was in 16 bits in its file is so again, to the same numbers.
    pub(super) fn of_f32(commands: &Commands, weights: &HostTensor) -> Self {
        let n_in = weights.row_len();
        let pairs = |form, bits: fn(f32) -> u16| {
            let (pairs, _) = weights.data.as_chunks::<2>();
            let words: Vec<u32> =
                pairs.iter().map(|&[low, high]| u32::from(bits(low)) | u32::from(bits(high)) << 16).collect();
            Self::in_parts(commands, form, n_in, bytemuck::cast_slice(&words), n_in * size_of::<u16>())
        };
        let has_all = |is_same: fn(f32) -> bool| {
            n_in.is_multiple_of(4) && weights.data.iter().all(|value| is_same(*value))
        };
        if has_all(|value| bf16::from_f32(value).to_f32().to_bits() == value.to_bits()) {
            return pairs(Form::Bf16, |value| bf16::from_f32(value).to_bits());
        }
        // Numbers that are not normal in 16 bits are 0 on some devices.
        let is_f16 = |value: f32| {
            let half = f16::from_f32(value);
            half.to_f32().to_bits() == value.to_bits() && (half.is_normal() || value == 0.0)
        };
        if has_all(is_f16) {
            return pairs(Form::F16, |value| f16::from_f32(value).to_bits());
        }
        let row_bytes = n_in * size_of::<f32>();
        Self::in_parts(commands, Form::F32, n_in, bytemuck::cast_slice(&weights.data), row_bytes)
    }

    /// Takes a quantised matrix: codes of 8 bits without a sign, and everything in whole words.
    pub(super) fn of_blocks(commands: &Commands, weights: &QuantizedMatrix<'_>) -> Self {
        let kind = weights.kind;
        let n_words = kind.code_bytes() / size_of::<u32>();
        let block_bytes = kind.header_bytes() + kind.code_bytes();
        let half = |bytes: &[u8]| u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        let mut words: Vec<u32> = Vec::with_capacity(weights.rows.len() / block_bytes * (1 + n_words));
        for block in weights.rows.chunks_exact(block_bytes) {
            let (header, codes) = block.split_at(kind.header_bytes());
            let minimum = if kind == QuantKind::Q4_1 { half(&header[2..]) } else { 0 };
            words.push(half(header) | minimum << 16);
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            // A code with a sign, counted from -128 on.
            let flip = if kind == QuantKind::Q8_0 { 0x8080_8080 } else { 0 };
            words.extend(codes.chunks_exact(4).map(|bytes| word(bytes) ^ flip));
        }
        let zero = match kind {
            QuantKind::Q4_0 => 8.0,
            QuantKind::Q4_1 => 0.0,
            QuantKind::Q8_0 => 128.0,
        };
        let row_bytes = weights.n_in / QUANT_BLOCK * (1 + n_words) * size_of::<u32>();
        Self::in_parts(
            commands,
            Form::Blocks { n_words, zero },
            weights.n_in,
            bytemuck::cast_slice(&words),
            row_bytes,
        )
    }

    fn in_parts(commands: &Commands, form: Form, n_in: usize, bytes: &[u8], row_bytes: usize) -> Self {
        let n_out = bytes.len() / row_bytes;
        commands.expect(form.product(Tiling::of(EXPECTED_ROWS, n_in, n_out)));
        // Whole tiles, so that no tile lies in two parts.
        let most = (commands.max_binding_bytes() / row_bytes / TILE * TILE).max(1);
        let part = |(index, bytes): (usize, &[u8])| Part {
            first_row: index * most,
            n_rows: bytes.len() / row_bytes,
            buffer: commands.upload(bytes),
        };
        let parts = bytes.chunks(most * row_bytes).enumerate().map(part).collect();
        Self { form, n_in, n_out, parts }
    }

    /// `x Wᵀ`, `[pos, n_out]`.
    pub(super) fn times(&self, commands: &Commands, x: &GpuBuffer) -> GpuBuffer {
        let n_rows = x.len() / self.n_in;
        let y = commands.room(n_rows * self.n_out);
        let tiling = Tiling::of(n_rows, self.n_in, self.n_out);
        // Tiles are read from a whole four on.
        let moved = (!x.start().is_multiple_of(4)).then(|| commands.join(&[x]));
        let x = moved.as_ref().unwrap_or(x);
        let (tile_outs, tile_rows) = tiling.tile();
        for part in &self.parts {
            let params = [n_rows, self.n_in, part.n_rows, part.first_row, self.n_out, x.start()];
            let params: Vec<Param> =
                params.into_iter().map(Param::from).chain([Param::from(self.form.zero())]).collect();
            let groups = [part.n_rows.div_ceil(tile_outs), n_rows.div_ceil(tile_rows), 1];
            commands.dispatch(self.form.product(tiling), &params, &[x, &part.buffer], &y, groups);
            commands.worked(2 * n_rows as u64 * self.n_in as u64 * part.n_rows as u64);
        }
        y
    }

    /// What it takes on the device, bytes.
    pub fn size_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.buffer.len() * size_of::<f32>()).sum()
    }

    /// Rows by number, `[n_ids, n_in]`.
    pub(super) fn gather(&self, commands: &Commands, ids: &GpuBuffer, n_ids: usize) -> GpuBuffer {
        let y = commands.room(n_ids * self.n_in);
        let kernel = match self.form {
            Form::F32 => Kernel::GatherF32,
            Form::Bf16 => Kernel::GatherBf16,
            Form::F16 => Kernel::GatherF16,
            Form::Blocks { n_words: 4, .. } => Kernel::Gather4Bit,
            Form::Blocks { .. } => Kernel::Gather8Bit,
        };
        for part in &self.parts {
            let params = [self.n_in, part.first_row, part.n_rows];
            let params: Vec<Param> =
                params.into_iter().map(Param::from).chain([Param::from(self.form.zero())]).collect();
            let groups = [self.n_in.div_ceil(64), n_ids, 1];
            commands.dispatch(kernel, &params, &[ids, &part.buffer], &y, groups);
        }
        y
    }
}
