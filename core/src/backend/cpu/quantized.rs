//! Weights that stay quantised in memory: panels of codes, unpacked chunk by chunk into the f32 that products read. The values
//! are those that unpacking the whole file would give, bit for bit.

use std::ops::Range;

use half::f16;

use super::codes::{PAIRS, PairCodes};
use super::kernel::PANEL;
use crate::tensor::quantized::{QUANT_BLOCK, QuantKind, QuantizedMatrix};

/// A quantised matrix `[n_out, n_in]` in panels of [`PANEL`] outputs; those beyond `n_out` in the last panel are 0.
pub struct QuantizedPanels {
    kind: QuantKind,
    n_out: usize,
    n_in: usize,
    /// `[panel][block]`.
    scales: Vec<[f32; PANEL]>,
    /// The same; empty for kinds without a minimum.
    minimums: Vec<[f32; PANEL]>,
    /// `[panel][block][byte]`, the bytes as the file has them.
    codes: Vec<[u8; PANEL]>,
}

impl QuantizedPanels {
    /// Rearranges rows into panels.
    pub fn pack(matrix: &QuantizedMatrix<'_>) -> Self {
        let (kind, n_in) = (matrix.kind, matrix.n_in);
        let (header, n_codes) = (kind.header_bytes(), kind.code_bytes());
        let n_blocks = n_in / QUANT_BLOCK;
        let n_out = matrix.rows.len() / matrix.row_bytes();
        let n_slots = n_out.div_ceil(PANEL) * n_blocks;
        let mut scales = vec![[0.0; PANEL]; n_slots];
        let mut minimums = vec![[0.0; PANEL]; if kind == QuantKind::Q4_1 { n_slots } else { 0 }];
        let mut codes = vec![[0; PANEL]; n_slots * n_codes];
        let number = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        for (output, row) in matrix.rows.chunks_exact(matrix.row_bytes()).enumerate() {
            for (block, bytes) in row.chunks_exact(header + n_codes).enumerate() {
                let (slot, lane) = (output / PANEL * n_blocks + block, output % PANEL);
                scales[slot][lane] = number(bytes);
                if let Some(minimums) = minimums.get_mut(slot) {
                    minimums[lane] = number(&bytes[2..]);
                }
                for (codes, byte) in codes[slot * n_codes..].iter_mut().zip(&bytes[header..]) {
                    codes[lane] = *byte;
                }
            }
        }
        Self { kind, n_out, n_in, scales, minimums, codes }
    }

    /// Outputs.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Memory that it takes, bytes.
    pub fn size_bytes(&self) -> usize {
        let scales = [&self.scales, &self.minimums].map(|values| size_of_val(values.as_slice()));
        scales.into_iter().sum::<usize>() + size_of_val(self.codes.as_slice())
    }

    /// Some inputs of a panel as f32, whole blocks of them, `[input][PANEL]`.
    pub fn unpack(&self, panel: usize, inputs: Range<usize>, out: &mut [[f32; PANEL]]) {
        let first = (panel * self.n_in + inputs.start) / QUANT_BLOCK;
        let blocks = out[..inputs.len()].as_chunks_mut::<QUANT_BLOCK>().0;
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { self.unpack_avx2(first, blocks) };
        }
        self.unpack_blocks(first, blocks);
    }

    /// The same loop with wider vectors.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn unpack_avx2(&self, first: usize, blocks: &mut [[[f32; PANEL]; QUANT_BLOCK]]) {
        self.unpack_blocks(first, blocks);
    }

    #[inline(always)]
    fn unpack_blocks(&self, first: usize, blocks: &mut [[[f32; PANEL]; QUANT_BLOCK]]) {
        for (slot, out) in (first..).zip(blocks) {
            self.unpack_block(slot, out);
        }
    }

    #[inline(always)]
    fn unpack_block(&self, slot: usize, out: &mut [[f32; PANEL]; QUANT_BLOCK]) {
        let n_codes = self.kind.code_bytes();
        let (scales, codes) = (&self.scales[slot], &self.codes[slot * n_codes..][..n_codes]);
        match self.kind {
            QuantKind::Q4_0 => unpack::q4_0(out, codes, scales),
            QuantKind::Q4_1 => unpack::q4_1(out, codes, scales, &self.minimums[slot]),
            QuantKind::Q8_0 => unpack::q8_0(out, codes, scales),
        }
    }

    /// The scales of a panel's blocks.
    pub fn scales(&self, panel: usize) -> &[[f32; PANEL]] {
        self.of_panel(panel, &self.scales)
    }

    /// The minimums of a panel's blocks, of kinds that have them.
    pub fn minimums(&self, panel: usize) -> Option<&[[f32; PANEL]]> {
        (!self.minimums.is_empty()).then(|| self.of_panel(panel, &self.minimums))
    }

    fn of_panel<'a>(&self, panel: usize, values: &'a [[f32; PANEL]]) -> &'a [[f32; PANEL]] {
        let n_blocks = self.n_in / QUANT_BLOCK;
        &values[panel * n_blocks..][..n_blocks]
    }

    /// The codes of a panel's blocks from one on, without their scales and minimums, in pairs of inputs.
    pub fn unpack_codes(&self, panel: usize, first_block: usize, out: &mut [PairCodes]) {
        let first = panel * self.n_in / QUANT_BLOCK + first_block;
        let n_codes = self.kind.code_bytes();
        for (slot, out) in (first..).zip(out.as_chunks_mut::<PAIRS>().0) {
            let codes = &self.codes[slot * n_codes..][..n_codes];
            match self.kind {
                QuantKind::Q4_0 => unpack::pairs_of_halves(out, codes, 8),
                QuantKind::Q4_1 => unpack::pairs_of_halves(out, codes, 0),
                QuantKind::Q8_0 => unpack::pairs_of_bytes(out, codes),
            }
        }
    }

    /// The matrix as its file had it.
    pub fn matrix(&self) -> QuantizedMatrix<'static> {
        let (n_codes, n_blocks) = (self.kind.code_bytes(), self.n_in / QUANT_BLOCK);
        let mut rows = Vec::with_capacity(self.n_out * n_blocks * (self.kind.header_bytes() + n_codes));
        for output in 0..self.n_out {
            let lane = output % PANEL;
            for slot in output / PANEL * n_blocks..(output / PANEL + 1) * n_blocks {
                // Both were f16 in the file.
                let numbers = [self.scales.get(slot), self.minimums.get(slot)].into_iter().flatten();
                rows.extend(numbers.flat_map(|numbers| f16::from_f32(numbers[lane]).to_le_bytes()));
                rows.extend(self.codes[slot * n_codes..][..n_codes].iter().map(|codes| codes[lane]));
            }
        }
        QuantizedMatrix { kind: self.kind, n_in: self.n_in, rows: rows.into() }
    }

    /// Row `output` as f32.
    pub fn row(&self, output: usize) -> Vec<f32> {
        let mut block = [[0.0; PANEL]; QUANT_BLOCK];
        let n_blocks = self.n_in / QUANT_BLOCK;
        let mut row = Vec::with_capacity(self.n_in);
        for slot in output / PANEL * n_blocks..(output / PANEL + 1) * n_blocks {
            self.unpack_block(slot, &mut block);
            row.extend(block.iter().map(|inputs| inputs[output % PANEL]));
        }
        row
    }
}

/// One block of each kind. The low halves of bytes with two codes are the block's first inputs, the high halves its last.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod unpack {
    use super::{PAIRS, PANEL, PairCodes, QUANT_BLOCK};

    type Block = [[f32; PANEL]; QUANT_BLOCK];

    #[inline(always)]
    pub fn pairs_of_halves(out: &mut [PairCodes; PAIRS], codes: &[[u8; PANEL]], zero: i16) {
        for (out, codes) in out.iter_mut().zip(codes) {
            for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
                *pair = [byte & 15, byte >> 4].map(|code| i16::from(code) - zero);
            }
        }
    }

    #[inline(always)]
    pub fn pairs_of_bytes(out: &mut [PairCodes; PAIRS], codes: &[[u8; PANEL]]) {
        let (first, second) = codes.split_at(PAIRS);
        for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
            for ((pair, first), second) in out.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
                *pair = [first, second].map(|byte| i16::from(byte.cast_signed()));
            }
        }
    }

    #[inline(always)]
    pub fn q4_0(out: &mut Block, codes: &[[u8; PANEL]], scales: &[f32; PANEL]) {
        halves(out, codes, |code, lane| (code - 8.0) * scales[lane]);
    }

    #[inline(always)]
    pub fn q4_1(out: &mut Block, codes: &[[u8; PANEL]], scales: &[f32; PANEL], minimums: &[f32; PANEL]) {
        halves(out, codes, |code, lane| code * scales[lane] + minimums[lane]);
    }

    #[inline(always)]
    pub fn q8_0(out: &mut Block, codes: &[[u8; PANEL]], scales: &[f32; PANEL]) {
        for (out, codes) in out.iter_mut().zip(codes) {
            for (lane, out) in out.iter_mut().enumerate() {
                *out = f32::from(codes[lane].cast_signed()) * scales[lane];
            }
        }
    }

    #[inline(always)]
    fn halves(out: &mut Block, codes: &[[u8; PANEL]], value: impl Fn(f32, usize) -> f32) {
        let (low, high) = out.split_at_mut(QUANT_BLOCK / 2);
        for ((low, high), codes) in low.iter_mut().zip(high).zip(codes) {
            for (lane, byte) in codes.iter().enumerate() {
                low[lane] = value(f32::from(byte & 15), lane);
                high[lane] = value(f32::from(byte >> 4), lane);
            }
        }
    }
}

/// The same in wasm's vectors, which the compiler does not find by itself.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod unpack {
    use core::arch::wasm32::{
        f32x4_convert_i32x4, i8x16_shuffle, i8x16_splat, i8x16_sub, i16x8_extend_high_i8x16,
        i16x8_extend_low_i8x16, i32x4_extend_high_i16x8, i32x4_extend_low_i16x8, u8x16_shr, v128, v128_and,
        v128_load, v128_store,
    };

    use super::{PAIRS, PANEL, PairCodes, QUANT_BLOCK};
    use crate::backend::cpu::lanes::{Lanes, N_LANES};

    type Block = [[f32; PANEL]; QUANT_BLOCK];
    /// A panel's outputs.
    type Row = [Lanes; PANEL / N_LANES];

    #[inline(always)]
    pub fn pairs_of_halves(out: &mut [PairCodes; PAIRS], codes: &[[u8; PANEL]], zero: i8) {
        let zero = i8x16_splat(zero);
        for (out, codes) in out.iter_mut().zip(codes) {
            let bytes = load(codes);
            let (low, high) = (v128_and(bytes, i8x16_splat(15)), u8x16_shr(bytes, 4));
            store_pairs(out, i8x16_sub(low, zero), i8x16_sub(high, zero));
        }
    }

    #[inline(always)]
    pub fn pairs_of_bytes(out: &mut [PairCodes; PAIRS], codes: &[[u8; PANEL]]) {
        let (first, second) = codes.split_at(PAIRS);
        for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
            store_pairs(out, load(first), load(second));
        }
    }

    /// Signed bytes of two inputs, a pair an output.
    #[inline(always)]
    fn store_pairs(out: &mut PairCodes, first: v128, second: v128) {
        let low = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(first, second);
        let high =
            i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(first, second);
        let quarters = [
            i16x8_extend_low_i8x16(low),
            i16x8_extend_high_i8x16(low),
            i16x8_extend_low_i8x16(high),
            i16x8_extend_high_i8x16(high),
        ];
        for (out, codes) in out.as_chunks_mut::<8>().0.iter_mut().zip(quarters) {
            // SAFETY: eight codes are a vector.
            unsafe { v128_store(out.as_mut_ptr().cast(), codes) };
        }
    }

    #[inline(always)]
    pub fn q4_0(out: &mut Block, codes: &[[u8; PANEL]], scales: &[f32; PANEL]) {
        let (scales, eight) = (row(scales), Lanes::splat(8.0));
        halves(out, codes, |code, part| (code - eight) * scales[part]);
    }

    #[inline(always)]
    pub fn q4_1(out: &mut Block, codes: &[[u8; PANEL]], scales: &[f32; PANEL], minimums: &[f32; PANEL]) {
        let (scales, minimums) = (row(scales), row(minimums));
        halves(out, codes, |code, part| minimums[part] + code * scales[part]);
    }

    #[inline(always)]
    pub fn q8_0(out: &mut Block, codes: &[[u8; PANEL]], scales: &[f32; PANEL]) {
        let scales = row(scales);
        for (out, codes) in out.iter_mut().zip(codes) {
            store(out, widen(load(codes)), |code, part| code * scales[part]);
        }
    }

    #[inline(always)]
    fn halves(out: &mut Block, codes: &[[u8; PANEL]], value: impl Fn(Lanes, usize) -> Lanes) {
        let (low, high) = out.split_at_mut(QUANT_BLOCK / 2);
        for ((low, high), codes) in low.iter_mut().zip(high).zip(codes) {
            let bytes = load(codes);
            store(low, widen(v128_and(bytes, i8x16_splat(15))), &value);
            store(high, widen(u8x16_shr(bytes, 4)), &value);
        }
    }

    #[inline(always)]
    fn store(out: &mut [f32; PANEL], codes: Row, value: impl Fn(Lanes, usize) -> Lanes) {
        for (part, (out, codes)) in out.as_chunks_mut::<N_LANES>().0.iter_mut().zip(codes).enumerate() {
            value(codes, part).store(out);
        }
    }

    #[inline(always)]
    fn row(values: &[f32; PANEL]) -> Row {
        let parts = values.as_chunks::<N_LANES>().0;
        std::array::from_fn(|part| Lanes::load(&parts[part]))
    }

    #[inline(always)]
    fn load(bytes: &[u8; PANEL]) -> v128 {
        // SAFETY: sixteen bytes are a vector.
        unsafe { v128_load(bytes.as_ptr().cast()) }
    }

    /// Sixteen signed bytes as f32.
    #[inline(always)]
    fn widen(bytes: v128) -> Row {
        let (low, high) = (i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes));
        let quarters = [
            i32x4_extend_low_i16x8(low),
            i32x4_extend_high_i16x8(low),
            i32x4_extend_low_i16x8(high),
            i32x4_extend_high_i16x8(high),
        ];
        quarters.map(|quarter| Lanes::of(f32x4_convert_i32x4(quarter)))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::backend::cpu::matmul::{PackedMatrix, matmul};

    /// A matrix quantised by candle, packed by us and unpacked by candle.
    fn both(dtype: GgmlDType, kind: QuantKind, n_out: usize, n_in: usize) -> (QuantizedPanels, Vec<f32>) {
        let values: Vec<f32> = (0..n_out * n_in).map(|i| ((i * 7919 % 1013) as f32 - 400.0) / 97.0).collect();
        let tensor = Tensor::from_vec(values, (n_out, n_in), &Device::Cpu).expect("a tensor");
        let quantized = QTensor::quantize(&tensor, dtype).expect("candle quantises");
        let unpacked = quantized.dequantize(&Device::Cpu).and_then(|tensor| tensor.flatten_all()?.to_vec1());
        let rows = quantized.data().expect("bytes").into_owned();
        let matrix = QuantizedMatrix { kind, n_in, rows: Cow::Owned(rows) };
        (QuantizedPanels::pack(&matrix), unpacked.expect("candle unpacks"))
    }

    const KINDS: [(GgmlDType, QuantKind); 3] = [
        (GgmlDType::Q4_0, QuantKind::Q4_0),
        (GgmlDType::Q4_1, QuantKind::Q4_1),
        (GgmlDType::Q8_0, QuantKind::Q8_0),
    ];

    #[test]
    fn every_kind_unpacks_to_candles_bits() {
        for (dtype, kind) in KINDS {
            for n_out in [1, 16, 37] {
                let (panels, wanted) = both(dtype, kind, n_out, 96);
                let rows: Vec<f32> = (0..n_out).flat_map(|output| panels.row(output)).collect();
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&rows), bits(&wanted), "{kind:?}, {n_out} rows");
            }
        }
    }

    #[test]
    fn products_have_the_bits_of_unpacked_weights() {
        for (dtype, kind) in KINDS {
            // More inputs than a product takes at once.
            let (n_out, n_in) = (37, 704);
            let (panels, unpacked) = both(dtype, kind, n_out, n_in);
            let quantized = PackedMatrix::Quantized(panels);
            let plain = PackedMatrix::pack(&unpacked, n_in);
            for n_rows in [1, 2, 5] {
                let x: Vec<f32> = (0..n_rows * n_in).map(|i| ((i * 31 % 89) as f32 - 44.0) / 30.0).collect();
                assert_eq!(matmul(&x, &quantized), matmul(&x, &plain), "{kind:?}, {n_rows} rows");
            }
        }
    }
}
