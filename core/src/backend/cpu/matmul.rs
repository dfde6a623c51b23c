//! Matrix product `y[r, o] = Σ_i x[r, i] w[o, i]`.
//!
//! Weights are packed once into panels of [`PANEL`] outputs, `[panel][n_in][PANEL]`, so that the inner loop reads
//! both operands in order. A register block holds [`ROWS`] rows of `x` against one panel; every output is one
//! running sum over `i` in order, whatever the block it falls in.

/// Outputs in a panel: four vectors of four lanes.
pub const PANEL: usize = 16;
/// Rows in a register block.
pub const ROWS: usize = 4;

/// A weight matrix `[n_out, n_in]` in panels; outputs beyond `n_out` in the last panel are 0.
pub struct PackedMatrix {
    n_out: usize,
    n_in: usize,
    panels: Vec<f32>,
}

impl PackedMatrix {
    /// Packs rows of `n_in` values that begin `stride` apart.
    pub fn pack(rows: &[f32], n_in: usize, stride: usize) -> Self {
        let n_out = (rows.len() + stride - n_in) / stride;
        let mut panels = vec![0.0; n_out.div_ceil(PANEL) * PANEL * n_in];
        for (output, row) in rows.chunks(stride).enumerate() {
            let panel = &mut panels[output / PANEL * PANEL * n_in..][..PANEL * n_in];
            for (i, value) in row[..n_in].iter().enumerate() {
                panel[i * PANEL + output % PANEL] = *value;
            }
        }
        Self { n_out, n_in, panels }
    }

    /// Packs the transpose: `n_in` rows of `n_out` values that begin `stride` apart.
    pub fn pack_transposed(rows: &[f32], n_out: usize, stride: usize) -> Self {
        let n_in = (rows.len() + stride - n_out) / stride;
        let mut panels = vec![0.0; n_out.div_ceil(PANEL) * PANEL * n_in];
        for (i, row) in rows.chunks(stride).enumerate() {
            for (panel, values) in row[..n_out].chunks(PANEL).enumerate() {
                panels[(panel * n_in + i) * PANEL..][..values.len()].copy_from_slice(values);
            }
        }
        Self { n_out, n_in, panels }
    }

    /// Outputs.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Inputs.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Row `output` as it was before packing.
    pub fn row(&self, output: usize) -> impl Iterator<Item = f32> + '_ {
        assert!(output < self.n_out, "row {output} of {}", self.n_out);
        self.panel(output / PANEL).iter().map(move |inputs| inputs[output % PANEL])
    }

    /// A panel, `[n_in][PANEL]`.
    pub fn panel(&self, panel: usize) -> &[[f32; PANEL]] {
        &self.panels.as_chunks().0[panel * self.n_in..][..self.n_in]
    }
}

/// `x Wᵀ` for all rows of `x`, `[n_rows, n_in]` to `[n_rows, n_out]`.
pub fn matmul(x: &[f32], weights: &PackedMatrix) -> Vec<f32> {
    let n_in = weights.n_in;
    let n_rows = x.len() / n_in;
    assert_eq!(n_rows * n_in, x.len(), "{} values are no rows of {n_in}", x.len());
    let mut out = vec![0.0; n_rows * weights.n_out];
    let blocks: Vec<RowBlock> = x.chunks(ROWS * n_in).map(|rows| RowBlock::pack(rows, n_in, n_in)).collect();
    for panel in 0..weights.n_out.div_ceil(PANEL) {
        let n_cols = PANEL.min(weights.n_out - panel * PANEL);
        for (index, block) in blocks.iter().enumerate() {
            let sums = block.times(weights.panel(panel));
            for (row, sums) in sums.iter().enumerate().take(block.n_rows) {
                let start = (index * ROWS + row) * weights.n_out + panel * PANEL;
                out[start..start + n_cols].copy_from_slice(&sums[..n_cols]);
            }
        }
    }
    out
}

/// Up to [`ROWS`] rows of `x`, interleaved `[n_in][ROWS]`; missing rows are 0.
pub struct RowBlock {
    n_rows: usize,
    values: Vec<[f32; ROWS]>,
}

impl RowBlock {
    /// Interleaves rows of `n_in` values that begin `stride` apart.
    pub fn pack(rows: &[f32], n_in: usize, stride: usize) -> Self {
        let mut values = vec![[0.0; ROWS]; n_in];
        let mut n_rows = 0;
        for (row, x) in rows.chunks(stride).enumerate() {
            for (slot, value) in values.iter_mut().zip(&x[..n_in]) {
                slot[row] = *value;
            }
            n_rows = row + 1;
        }
        Self { n_rows, values }
    }

    /// Rows that are not padding.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The block against one panel, over the first `panel.len()` inputs.
    pub fn times(&self, panel: &[[f32; PANEL]]) -> [[f32; PANEL]; ROWS] {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { times_avx2(&self.values, panel) };
        }
        times(&self.values, panel)
    }
}

/// The same loop with wider vectors; no fused multiply-add, so that the result is bit-equal.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn times_avx2(rows: &[[f32; ROWS]], panel: &[[f32; PANEL]]) -> [[f32; PANEL]; ROWS] {
    times(rows, panel)
}

#[inline(always)]
fn times(rows: &[[f32; ROWS]], panel: &[[f32; PANEL]]) -> [[f32; PANEL]; ROWS] {
    let mut sums = [[0.0f32; PANEL]; ROWS];
    for (x, weights) in rows.iter().zip(panel) {
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += x * weight;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| (((i * 37 + salt * 11) % 101) as f32 - 50.0) / 25.0).collect()
    }

    #[test]
    fn agrees_with_three_plain_loops_at_every_edge() {
        for (n_rows, n_in, n_out) in [(1, 1, 1), (4, 8, 16), (5, 7, 17), (9, 33, 50), (3, 16, 15)] {
            let (x, w) = (values(n_rows * n_in, 1), values(n_out * n_in, 2));
            let got = matmul(&x, &PackedMatrix::pack(&w, n_in, n_in));
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
    fn packing_keeps_rows_and_the_transpose_packs_alike() {
        let w = values(6 * 5, 3);
        let packed = PackedMatrix::pack(&w, 5, 5);
        assert_eq!(packed.row(4).collect::<Vec<_>>(), &w[20..25]);
        let transpose: Vec<f32> =
            (0..5).flat_map(|i| (0..6).map(move |o| (o, i))).map(|(o, i)| w[o * 5 + i]).collect();
        assert_eq!(PackedMatrix::pack_transposed(&transpose, 6, 6).panels, packed.panels);
    }
}
