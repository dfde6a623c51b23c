//! Causal attention in its three steps (scores, softmax elsewhere, mixing) and the sums that detectors need. Keys and
//! values are packed as matrices, so that both products run on the matmul's register block.

use std::ops::Range;

use super::kernel::{PANEL, ROWS};
use super::matmul::{Panels, RowBlocks};
use crate::backend::AttnShape;
use crate::hooks::TargetKeys;

/// Column `head` of `[pos, n_heads, d_head]` up to position `end`, beginning at its first value.
fn head_rows(x: &[f32], head: usize, n_heads: usize, d_head: usize, end: usize) -> &[f32] {
    let stride = n_heads * d_head;
    &x[head * d_head..(end - 1) * stride + (head + 1) * d_head]
}

/// `q·k / sqrt(d_head)` of one lane, `[head, query, key_pos]`; keys after the query are `-inf`.
pub fn attn_scores(q: &[f32], k: &[f32], shape: AttnShape, queries: Range<usize>) -> Vec<f32> {
    let AttnShape { n_heads, n_kv_heads, d_head, n_past, n_tokens, .. } = shape;
    let scale = 1.0 / (d_head as f32).sqrt();
    let mut scores = vec![f32::NEG_INFINITY; n_heads * queries.len() * n_tokens];
    for kv_head in 0..n_kv_heads {
        let keys = head_rows(k, kv_head, n_kv_heads, d_head, queries.end);
        let keys = Panels::pack(keys, d_head, n_kv_heads * d_head);
        for head in heads_of(kv_head, shape) {
            let scores = &mut scores[head * queries.len() * n_tokens..][..queries.len() * n_tokens];
            let rows = head_rows(q, head, n_heads, d_head, queries.end - n_past);
            let rows = &rows[(queries.start - n_past) * n_heads * d_head..];
            let rows = RowBlocks::pack(rows, d_head, n_heads * d_head);
            for (block, first) in queries.clone().step_by(ROWS).enumerate() {
                let last = (first + ROWS).min(queries.end);
                for panel in 0..last.div_ceil(PANEL) {
                    let products = rows.times(block, keys.panel(panel));
                    for (query, products) in (first..last).zip(products) {
                        let row = &mut scores[(query - queries.start) * n_tokens..][..=query];
                        let visible = row.iter_mut().skip(panel * PANEL);
                        visible.zip(products).for_each(|(score, product)| *score = product * scale);
                    }
                }
            }
        }
    }
    scores
}

/// `Σ_key pattern·v` of one lane, `[query, head, d_head]`.
pub fn mix_values(pattern: &[f32], v: &[f32], shape: AttnShape, queries: Range<usize>) -> Vec<f32> {
    let AttnShape { n_heads, n_kv_heads, d_head, n_tokens, .. } = shape;
    let mut z = vec![0.0; queries.len() * n_heads * d_head];
    for kv_head in 0..n_kv_heads {
        let values = head_rows(v, kv_head, n_kv_heads, d_head, queries.end);
        let values = Panels::pack_transposed(values, d_head, n_kv_heads * d_head);
        for head in heads_of(kv_head, shape) {
            let pattern = &pattern[head * queries.len() * n_tokens..][..queries.len() * n_tokens];
            for (index, rows) in pattern.chunks(ROWS * n_tokens).enumerate() {
                let first = index * ROWS;
                // Later keys have no weight in any of these rows.
                let n_keys = (queries.start + first + ROWS).min(queries.end);
                let block = RowBlocks::pack(&rows[..rows.len() - (n_tokens - n_keys)], n_keys, n_tokens);
                for panel in 0..d_head.div_ceil(PANEL) {
                    let n_cols = PANEL.min(d_head - panel * PANEL);
                    let sums = block.times(0, &values.panel(panel)[..n_keys]);
                    for (row, sums) in sums.iter().enumerate().take(rows.len() / n_tokens) {
                        let start = ((first + row) * n_heads + head) * d_head + panel * PANEL;
                        z[start..start + n_cols].copy_from_slice(&sums[..n_cols]);
                    }
                }
            }
        }
    }
    z
}

/// The query heads that read one key/value head.
fn heads_of(kv_head: usize, shape: AttnShape) -> Range<usize> {
    let group = shape.n_heads / shape.n_kv_heads;
    kv_head * group..(kv_head + 1) * group
}

/// For each head, attention on the target's keys summed over a block of queries.
pub fn target_mass(
    pattern: &[f32],
    shape: AttnShape,
    queries: Range<usize>,
    targets: &TargetKeys,
) -> Vec<f32> {
    let n_tokens = shape.n_tokens;
    let mass_of = |rows: &[f32]| -> f32 {
        let rows = rows.chunks_exact(n_tokens).zip(&targets.0[queries.clone()]);
        rows.map(|(row, keys)| keys.iter().map(|&key| row[key]).sum::<f32>()).sum()
    };
    pattern.chunks_exact(queries.len() * n_tokens).map(mass_of).collect()
}

/// For each head, `-Σ_key p ln p` of its rows, summed over a block of queries, nats; `0 ln 0` is 0.
pub fn entropy_sum(pattern: &[f32], shape: AttnShape, queries: Range<usize>) -> Vec<f32> {
    let entropy = |p: &f32| if *p > 0.0 { -f64::from(*p) * f64::from(*p).ln() } else { 0.0 };
    let heads = pattern.chunks_exact(queries.len() * shape.n_tokens);
    heads.map(|rows| rows.iter().map(entropy).sum::<f64>() as f32).collect()
}

/// For each head, the key with the largest weight in the row of one query of a block; the first among equals.
pub fn argmax_keys(pattern: &[f32], shape: AttnShape, queries: Range<usize>, query: usize) -> Vec<f32> {
    let largest = |(best, most): (usize, f32), (key, &weight): (usize, &f32)| {
        if weight > most { (key, weight) } else { (best, most) }
    };
    let argmax = |row: &[f32]| row.iter().enumerate().fold((0, f32::NEG_INFINITY), largest).0 as f32;
    let heads = pattern.chunks_exact(queries.len() * shape.n_tokens);
    let start = (query - queries.start) * shape.n_tokens;
    heads.map(|rows| argmax(&rows[start..start + shape.n_tokens])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::elementwise::softmax;

    const SHAPE: AttnShape =
        AttnShape { n_heads: 4, n_kv_heads: 2, d_head: 6, n_past: 0, n_tokens: 23, n_lanes: 1 };

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| (((i * 31 + salt * 17) % 89) as f32 - 44.0) / 30.0).collect()
    }

    fn plain_score(q: &[f32], k: &[f32], head: usize, query: usize, key: usize) -> f32 {
        let q = &q[(query * 4 + head) * 6..][..6];
        let k = &k[(key * 2 + head / 2) * 6..][..6];
        q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>() / 6f32.sqrt()
    }

    #[test]
    fn any_block_of_queries_agrees_with_plain_loops() {
        let (q, k, v) = (values(23 * 24, 1), values(23 * 12, 2), values(23 * 12, 3));
        for queries in [0..23, 0..5, 5..12, 22..23] {
            let n_queries = queries.len();
            let scores = attn_scores(&q, &k, SHAPE, queries.clone());
            let pattern = softmax(&scores, 23, queries.clone());
            let z = mix_values(&pattern, &v, SHAPE, queries.clone());
            for head in 0..4 {
                for (row, query) in queries.clone().enumerate() {
                    for key in 0..23 {
                        let got = scores[(head * n_queries + row) * 23 + key];
                        if key > query {
                            assert_eq!(got, f32::NEG_INFINITY, "key {key} is after query {query}");
                        } else {
                            assert!((got - plain_score(&q, &k, head, query, key)).abs() < 1e-5);
                        }
                    }
                    for i in 0..6 {
                        let weight = |key: usize| pattern[(head * n_queries + row) * 23 + key];
                        let wanted: f32 =
                            (0..23).map(|key| weight(key) * v[(key * 2 + head / 2) * 6 + i]).sum();
                        assert!((z[(row * 4 + head) * 6 + i] - wanted).abs() < 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn queries_after_a_past_see_the_keys_that_they_see_in_one_pass() {
        let (q, k, v) = (values(23 * 24, 1), values(23 * 12, 2), values(23 * 12, 3));
        for n_past in [1, 9, 22] {
            let shape = AttnShape { n_past, ..SHAPE };
            let scores = attn_scores(&q[n_past * 24..], &k, shape, n_past..23);
            assert_eq!(scores, attn_scores(&q, &k, SHAPE, n_past..23));
            let pattern = softmax(&scores, 23, n_past..23);
            let z = mix_values(&pattern, &v, shape, n_past..23);
            assert_eq!(z, mix_values(&pattern, &v, SHAPE, n_past..23));
        }
    }

    #[test]
    fn the_argmax_is_of_the_row_asked_for_and_the_first_among_equals() {
        let shape = AttnShape { n_heads: 2, n_kv_heads: 1, d_head: 2, n_past: 0, n_tokens: 3, n_lanes: 1 };
        let pattern = [1.0, 0.0, 0.0, 0.2, 0.4, 0.4, 0.0, 1.0, 0.0, 0.1, 0.3, 0.6];
        assert_eq!(argmax_keys(&pattern, shape, 1..3, 1), [0.0, 1.0]);
        assert_eq!(argmax_keys(&pattern, shape, 1..3, 2), [1.0, 2.0]);
    }

    #[test]
    fn entropy_of_an_even_row_is_the_logarithm_of_its_keys() {
        let shape = AttnShape { n_heads: 1, n_kv_heads: 1, d_head: 2, n_past: 0, n_tokens: 4, n_lanes: 1 };
        let pattern = [1.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25];
        assert!((entropy_sum(&pattern, shape, 0..2)[0] - 4f32.ln()).abs() < 1e-6);
    }
}
