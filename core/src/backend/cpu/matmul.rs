//! Matrix product `y[r, o] = Σ_i x[r, i] w[o, i]`.
//!
//! Weights are packed once into panels of [`PANEL`] outputs, `[panel][n_in][PANEL]`, and rows of `x` are interleaved in blocks,
//! so that the inner loop ([`super::kernel`]) reads both operands in order. A panel goes through in chunks of inputs that
//! stay in the first-level cache while every block of rows meets them; quantised weights are unpacked a chunk at a time.

use std::ops::Range;

use super::kernel::{PANEL, ROWS, Sums, add_products};
use super::quantized::QuantizedPanels;
use crate::backend::Backend;
use crate::tensor::HostTensor;

/// Inputs of a panel that are taken at once: 18 KiB, which leaves room for rows in the smallest first-level caches (32 KiB).
/// Whole blocks of quantised weights.
const CHUNK: usize = 288;

/// A weight matrix `[n_out, n_in]` as products read it.
pub enum PackedMatrix {
    /// As f32.
    F32(Panels),
    /// As its file had it, unpacked where it is read.
    Quantized(QuantizedPanels),
}

impl PackedMatrix {
    /// Packs rows of `n_in` values.
    pub fn pack(rows: &[f32], n_in: usize) -> Self {
        Self::F32(Panels::pack(rows, n_in, n_in))
    }

    /// Outputs.
    pub fn n_out(&self) -> usize {
        match self {
            Self::F32(panels) => panels.n_out,
            Self::Quantized(panels) => panels.n_out(),
        }
    }

    /// Inputs.
    pub fn n_in(&self) -> usize {
        match self {
            Self::F32(panels) => panels.n_in,
            Self::Quantized(panels) => panels.n_in(),
        }
    }

    /// Memory that it takes, bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::F32(panels) => size_of_val(panels.panels.as_slice()),
            Self::Quantized(panels) => panels.size_bytes(),
        }
    }

    /// The same matrix for another backend.
    pub fn on<B: Backend>(&self, backend: &B) -> B::Matrix {
        match self {
            Self::F32(panels) => {
                let values: Vec<f32> = (0..panels.n_out).flat_map(|output| panels.row(output)).collect();
                backend.matrix(&HostTensor::new(vec![panels.n_out, panels.n_in], values))
            }
            Self::Quantized(panels) => backend.quantized_matrix(&panels.matrix()),
        }
    }

    /// Row `output` as it was before packing.
    pub fn row(&self, output: usize) -> Vec<f32> {
        assert!(output < self.n_out(), "row {output} of {}", self.n_out());
        match self {
            Self::F32(panels) => panels.row(output),
            Self::Quantized(panels) => panels.row(output),
        }
    }

    /// Some inputs of a panel, `[input][PANEL]`; quantised ones are unpacked into `room`.
    fn chunk<'a>(
        &'a self,
        panel: usize,
        inputs: Range<usize>,
        room: &'a mut [[f32; PANEL]; CHUNK],
    ) -> &'a [[f32; PANEL]] {
        match self {
            Self::F32(panels) => &panels.panel(panel)[inputs],
            Self::Quantized(panels) => {
                panels.unpack(panel, inputs.clone(), room);
                &room[..inputs.len()]
            }
        }
    }
}

/// A matrix `[n_out, n_in]` in panels of f32; outputs beyond `n_out` in the last panel are 0.
pub struct Panels {
    n_out: usize,
    n_in: usize,
    panels: Vec<[f32; PANEL]>,
}

impl Panels {
    /// Packs rows of `n_in` values that begin `stride` apart.
    pub fn pack(rows: &[f32], n_in: usize, stride: usize) -> Self {
        let n_out = (rows.len() + stride - n_in) / stride;
        let mut panels = vec![[0.0; PANEL]; n_out.div_ceil(PANEL) * n_in];
        for (output, row) in rows.chunks(stride).enumerate() {
            let panel = &mut panels[output / PANEL * n_in..][..n_in];
            for (inputs, value) in panel.iter_mut().zip(&row[..n_in]) {
                inputs[output % PANEL] = *value;
            }
        }
        Self { n_out, n_in, panels }
    }

    /// Packs the transpose: `n_in` rows of `n_out` values that begin `stride` apart.
    pub fn pack_transposed(rows: &[f32], n_out: usize, stride: usize) -> Self {
        let n_in = (rows.len() + stride - n_out) / stride;
        let mut panels = vec![[0.0; PANEL]; n_out.div_ceil(PANEL) * n_in];
        for (i, row) in rows.chunks(stride).enumerate() {
            for (panel, values) in row[..n_out].chunks(PANEL).enumerate() {
                panels[panel * n_in + i][..values.len()].copy_from_slice(values);
            }
        }
        Self { n_out, n_in, panels }
    }

    fn row(&self, output: usize) -> Vec<f32> {
        self.panel(output / PANEL).iter().map(|inputs| inputs[output % PANEL]).collect()
    }

    /// A panel, `[n_in][PANEL]`.
    pub fn panel(&self, panel: usize) -> &[[f32; PANEL]] {
        &self.panels[panel * self.n_in..][..self.n_in]
    }
}

/// `x Wᵀ` for all rows of `x`, `[n_rows, n_in]` to `[n_rows, n_out]`.
pub fn matmul(x: &[f32], weights: &PackedMatrix) -> Vec<f32> {
    let n_in = weights.n_in();
    let n_rows = x.len() / n_in;
    assert_eq!(n_rows * n_in, x.len(), "{} values are no rows of {n_in}", x.len());
    match n_rows {
        // One row, as in decoding, is its own block.
        1 => multiply(x.as_chunks::<1>().0, 1, weights),
        _ => multiply(&RowBlocks::pack(x, n_in, n_in).values, n_rows, weights),
    }
}

/// The product of rows in blocks of `N`, `[block][n_in][N]`.
fn multiply<const N: usize>(blocks: &[[f32; N]], n_rows: usize, weights: &PackedMatrix) -> Vec<f32> {
    let (n_in, n_out) = (weights.n_in(), weights.n_out());
    let mut out = vec![0.0; n_rows * n_out];
    let mut sums: Vec<Sums<N>> = vec![[[0.0; PANEL]; N]; n_rows.div_ceil(N)];
    let mut room = [[0.0; PANEL]; CHUNK];
    for panel in 0..n_out.div_ceil(PANEL) {
        sums.fill([[0.0; PANEL]; N]);
        for first in (0..n_in).step_by(CHUNK) {
            let inputs = first..(first + CHUNK).min(n_in);
            let weights = weights.chunk(panel, inputs.clone(), &mut room);
            for (block, sums) in blocks.chunks_exact(n_in).zip(&mut sums) {
                add_products(&block[inputs.clone()], weights, sums);
            }
        }
        let n_cols = PANEL.min(n_out - panel * PANEL);
        for (out, sums) in out.chunks_exact_mut(n_out).zip(sums.as_flattened()) {
            out[panel * PANEL..][..n_cols].copy_from_slice(&sums[..n_cols]);
        }
    }
    out
}

/// Rows in blocks of [`ROWS`], interleaved `[block][n_in][ROWS]`; rows missing in the last block are 0.
pub struct RowBlocks {
    n_in: usize,
    values: Vec<[f32; ROWS]>,
}

impl RowBlocks {
    /// Interleaves rows of `n_in` values that begin `stride` apart.
    pub fn pack(rows: &[f32], n_in: usize, stride: usize) -> Self {
        let n_rows = (rows.len() + stride - n_in) / stride;
        let mut values = vec![[0.0; ROWS]; n_rows.div_ceil(ROWS) * n_in];
        for (block, rows) in values.chunks_exact_mut(n_in).zip(rows.chunks(ROWS * stride)) {
            for (row, x) in rows.chunks(stride).enumerate() {
                for (slot, value) in block.iter_mut().zip(&x[..n_in]) {
                    slot[row] = *value;
                }
            }
        }
        Self { n_in, values }
    }

    /// A block against one panel, over the first `panel.len()` inputs.
    pub fn times(&self, block: usize, panel: &[[f32; PANEL]]) -> Sums<ROWS> {
        let mut sums = [[0.0; PANEL]; ROWS];
        add_products(&self.values[block * self.n_in..][..panel.len()], panel, &mut sums);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| (((i * 37 + salt * 11) % 101) as f32 - 50.0) / 25.0).collect()
    }

    #[test]
    fn agrees_with_three_plain_loops_at_every_edge() {
        for (n_rows, n_in, n_out) in
            [(1, 1, 1), (4, 8, 16), (5, 7, 17), (9, 33, 50), (3, 16, 15), (3, 700, 5)]
        {
            let (x, w) = (values(n_rows * n_in, 1), values(n_out * n_in, 2));
            let got = matmul(&x, &PackedMatrix::pack(&w, n_in));
            for row in 0..n_rows {
                for output in 0..n_out {
                    let wanted: f32 = (0..n_in).map(|i| x[row * n_in + i] * w[output * n_in + i]).sum();
                    let got = got[row * n_out + output];
                    assert!((got - wanted).abs() < 1e-4, "{n_rows}x{n_in}x{n_out} at {row},{output}");
                }
            }
        }
    }

    #[test]
    fn a_row_alone_gives_the_bits_that_it_gives_among_others() {
        let (n_rows, n_in, n_out) = (7, 600, 33);
        let (x, w) = (values(n_rows * n_in, 1), values(n_out * n_in, 2));
        let w = PackedMatrix::pack(&w, n_in);
        let together = matmul(&x, &w);
        for n in 1..n_rows {
            assert_eq!(matmul(&x[..n * n_in], &w), together[..n * n_out], "{n} rows");
            assert_eq!(matmul(&x[n * n_in..], &w), together[n * n_out..], "rows from {n}");
        }
    }

    #[test]
    fn packing_keeps_rows_and_the_transpose_packs_alike() {
        let w = values(6 * 5, 3);
        let packed = Panels::pack(&w, 5, 5);
        assert_eq!(packed.row(4), &w[20..25]);
        let transpose: Vec<f32> =
            (0..5).flat_map(|i| (0..6).map(move |o| (o, i))).map(|(o, i)| w[o * 5 + i]).collect();
        assert_eq!(Panels::pack_transposed(&transpose, 6, 6).panels, packed.panels);
    }
}
