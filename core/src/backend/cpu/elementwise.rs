//! Kernels that treat each row or value alone: norm, softmax, sums, the gated nonlinearity.

use std::ops::Range;

use super::exp::exp;

/// `x / sqrt(mean(x²) + eps) * gain` for each row of `gain.len()` values (Zhang & Sennrich 2019, RMSNorm).
pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gain.len()) {
        // Running sums in lanes vectorise, and round less than one.
        let sum_of_squares: f32 = lanes_of(row, 0.0, |sum, value| sum + value * value).iter().sum();
        let mean_square = sum_of_squares / row.len() as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        out.extend(row.iter().zip(gain).map(|(value, gain)| value * scale * gain));
    }
    out
}

/// Lanes of running sums. In a softmax a key adds to lane `key % LANES`, so that keys behind the visible ones change no bit.
const LANES: usize = 8;

/// Softmax of each row of `[head, query, key_pos]` over the keys up to its query; later keys get 0, as those do that are masked.
pub fn softmax(scores: &[f32], n_tokens: usize, queries: Range<usize>) -> Vec<f32> {
    let mut out = vec![0.0; scores.len()];
    let rows = scores.chunks_exact(n_tokens).zip(out.chunks_exact_mut(n_tokens));
    for ((scores, out), query) in rows.zip(queries.cycle()) {
        softmax_row(&scores[..=query], &mut out[..=query]);
    }
    out
}

fn softmax_row(scores: &[f32], out: &mut [f32]) {
    let max = lanes_of(scores, f32::NEG_INFINITY, |max, score| if score > max { score } else { max });
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(scores).for_each(|(weight, score)| *weight = exp(score - max));
    let scale = 1.0 / lanes_of(out, 0.0, |sum, weight| sum + weight).iter().sum::<f32>();
    out.iter_mut().for_each(|weight| *weight *= scale);
}

/// Folds values into lanes, value `i` into lane `i % LANES`.
fn lanes_of(values: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = fold(*lane, *value));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, value)| *lane = fold(*lane, *value));
    lanes
}

/// `x + y`.
pub fn add(x: &[f32], y: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "adding {} values to {}", y.len(), x.len());
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

/// `x - y`.
pub fn subtract(x: &[f32], y: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "subtracting {} values from {}", y.len(), x.len());
    x.iter().zip(y).map(|(x, y)| x - y).collect()
}

/// `silu(gate) * linear` with `silu(g) = g / (1 + exp(-g))` (Shazeer 2020, GLU Variants).
pub fn swiglu(gate: &[f32], linear: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), linear.len(), "gating {} values with {}", linear.len(), gate.len());
    gate.iter().zip(linear).map(|(gate, linear)| gate / (1.0 + exp(-gate)) * linear).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_rows_sum_to_one_and_masked_keys_get_nothing() {
        let inf = f32::NEG_INFINITY;
        let pattern = softmax(&[1.0, 2.0, inf, 80.0, 80.0, 80.0], 3, 1..3);
        assert!((pattern[..3].iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((pattern[1] / pattern[0] - 1f32.exp()).abs() < 1e-5);
        assert_eq!(pattern[2], 0.0);
        assert!((pattern[4] - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(softmax(&[inf, 3.0], 2, 1..2), [0.0, 1.0], "a masked key among the visible ones");
        assert!(softmax(&[f32::NAN, 3.0], 2, 1..2).iter().all(|weight| weight.is_nan()));
    }

    #[test]
    fn softmax_weights_do_not_depend_on_the_keys_to_come() {
        let scores: Vec<f32> = (0..40).map(|key| ((key * 31 % 17) as f32 - 8.0) / 3.0).collect();
        for query in 0..40 {
            let alone = softmax(&scores[..=query], query + 1, query..query + 1);
            assert_eq!(softmax(&scores, 40, query..query + 1)[..=query], alone);
        }
    }

    #[test]
    fn rms_norm_of_a_constant_row_is_its_gain() {
        let row = rms_norm(&[3.0; 10], &[2.0; 10], 1e-12);
        assert!(row.iter().all(|value| (value - 2.0).abs() < 1e-6), "{row:?}");
    }
}
