//! Kernels that treat each row or value alone: norm, softmax, sums, the gated nonlinearity.

/// `x / sqrt(mean(x²) + eps) * gain` for each row of `gain.len()` values (Zhang & Sennrich 2019, RMSNorm).
pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gain.len()) {
        let mean_square = sum_of_squares(row) / row.len() as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        out.extend(row.iter().zip(gain).map(|(value, gain)| value * scale * gain));
    }
    out
}

/// Sum of squares in eight running sums, which vectorises and rounds less than one.
fn sum_of_squares(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * value;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}

/// Softmax of each row of `row_len` values; `-inf` becomes 0.
pub fn softmax_rows(scores: &[f32], row_len: usize) -> Vec<f32> {
    let mut out = scores.to_vec();
    for row in out.chunks_exact_mut(row_len) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for value in row.iter_mut() {
            // Keys after the query are -inf: their weight is exactly 0, and costs no exponential.
            *value = if *value == f32::NEG_INFINITY { 0.0 } else { (*value - max).exp() };
            sum += *value;
        }
        let scale = 1.0 / sum;
        row.iter_mut().for_each(|value| *value *= scale);
    }
    out
}

/// `x + y`.
pub fn add(x: &[f32], y: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "adding {} values to {}", y.len(), x.len());
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

/// `silu(gate) * linear` with `silu(g) = g / (1 + exp(-g))` (Shazeer 2020, GLU Variants).
pub fn swiglu(gate: &[f32], linear: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), linear.len(), "gating {} values with {}", linear.len(), gate.len());
    gate.iter().zip(linear).map(|(gate, linear)| gate / (1.0 + (-gate).exp()) * linear).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_rows_sum_to_one_and_masked_keys_get_nothing() {
        let pattern = softmax_rows(&[1.0, 2.0, f32::NEG_INFINITY, 80.0, 80.0, 80.0], 3);
        assert!((pattern[..3].iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((pattern[1] / pattern[0] - 1f32.exp()).abs() < 1e-5);
        assert_eq!(pattern[2], 0.0);
        assert!((pattern[4] - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn rms_norm_of_a_constant_row_is_its_gain() {
        let row = rms_norm(&[3.0; 10], &[2.0; 10], 1e-12);
        assert!(row.iter().all(|value| (value - 2.0).abs() < 1e-6), "{row:?}");
    }
}
