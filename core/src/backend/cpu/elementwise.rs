//! Kernels that treat each row or value alone: norm, softmax, sums, the gated nonlinearity.

use std::ops::Range;

use super::exp::exp;
use super::lanes::{Lanes, N_LANES, map_in_place, map_two};

/// `x / sqrt(mean(x²) + eps) * gain` for each row of `gain.len()` values (Zhang & Sennrich 2019, RMSNorm).
pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gain.len()) {
        let sum_of_squares = lanes_of(row, |sum, value| sum + value * value);
        let mean_square = sum_of_squares / row.len() as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        let start = out.len();
        out.resize(start + row.len(), 0.0);
        let scale = Lanes::splat(scale);
        map_two(row, gain, &mut out[start..], |value, gain| value * scale * gain);
    }
    out
}

/// Running sums side by side: they round less than one. In a softmax a key adds to sum `key % SUMS`, so that keys behind the visible
/// ones change no bit.
const SUMS: usize = 8;

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
    let (chunks, rest) = scores.as_chunks::<N_LANES>();
    let infinity = Lanes::splat(f32::NEG_INFINITY);
    let max = chunks.iter().fold(infinity, |max, scores| max.larger(Lanes::load(scores))).values();
    let max =
        max.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &score| if score > max { score } else { max });
    let max = Lanes::splat(max);
    out.copy_from_slice(scores);
    map_in_place(out, |score| exp(score - max));
    let scale = Lanes::splat(1.0 / lanes_of(out, |sum, weight| sum + weight));
    map_in_place(out, |weight| weight * scale);
}

/// Sums values in lanes of their own, value `i` in lane `i % SUMS`, then the lanes in order.
fn lanes_of(values: &[f32], fold: impl Fn(Lanes, Lanes) -> Lanes) -> f32 {
    let mut sums = [Lanes::splat(0.0); SUMS / N_LANES];
    let mut take = |values: &[f32; SUMS]| {
        for (sum, values) in sums.iter_mut().zip(values.as_chunks::<N_LANES>().0) {
            *sum = fold(*sum, Lanes::load(values));
        }
    };
    let (chunks, rest) = values.as_chunks::<SUMS>();
    chunks.iter().for_each(&mut take);
    if !rest.is_empty() {
        let mut padded = [0.0; SUMS];
        padded[..rest.len()].copy_from_slice(rest);
        take(&padded);
    }
    sums.iter().flat_map(|sum| sum.values()).sum()
}

/// What a function makes of each value and its neighbour.
fn of_two(x: &[f32], y: &[f32], f: impl Fn(Lanes, Lanes) -> Lanes) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "{} values beside {}", y.len(), x.len());
    let mut out = vec![0.0; x.len()];
    map_two(x, y, &mut out, f);
    out
}

/// `x + y`.
pub fn add(x: &[f32], y: &[f32]) -> Vec<f32> {
    of_two(x, y, |x, y| x + y)
}

/// `x - y`.
pub fn subtract(x: &[f32], y: &[f32]) -> Vec<f32> {
    of_two(x, y, |x, y| x - y)
}

/// `silu(gate) * linear` with `silu(g) = g / (1 + exp(-g))` (Shazeer 2020, GLU Variants).
pub fn swiglu(gate: &[f32], linear: &[f32]) -> Vec<f32> {
    let (zero, one) = (Lanes::splat(0.0), Lanes::splat(1.0));
    of_two(gate, linear, |gate, linear| gate / (one + exp(zero - gate)) * linear)
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
