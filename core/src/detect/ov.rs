//! A layer's output-value circuits as host matrices: what weights-only detectors compute with.
//!
//! A head that attends to one token with input `y` writes `y W_V W_O` into the residual stream; both factors have rank
//! `d_head`, so everything is done in that small space.

use std::ops::Range;

use crate::backend::{Backend, DeviceError};
use crate::detect::Ground;
use crate::ids::TokenId;
use crate::tensor::HostTensor;

/// Rows of a matrix `[n_out, n_in]` as they were before the backend took them.
pub async fn rows_of<B: Backend>(
    backend: &B,
    matrix: &B::Matrix,
    rows: Range<usize>,
) -> Result<Vec<f32>, DeviceError> {
    let ids: Vec<TokenId> = rows.map(|row| row as TokenId).collect();
    backend.download_one(backend.gather_rows(matrix, &ids)).await
}

/// `[n_cols, n_rows]` from `[n_rows, n_cols]`.
pub fn transpose(values: &[f32], n_cols: usize) -> HostTensor {
    let n_rows = values.len() / n_cols;
    let mut out = vec![0.0; values.len()];
    for (row, values) in values.chunks_exact(n_cols).enumerate() {
        for (col, value) in values.iter().enumerate() {
            out[col * n_rows + row] = *value;
        }
    }
    HostTensor::new(vec![n_cols, n_rows], out)
}

/// W_O of a layer with one row a head's dimension, `[n_heads * d_head, d_model]`: row `h * d_head + i` is what dimension
/// `i` of head `h`'s z writes.
pub async fn w_o_rows<B: Backend>(ground: &Ground<'_, B>, layer: usize) -> Result<HostTensor, DeviceError> {
    let config = &ground.model.config;
    let rows = rows_of(ground.backend, &ground.model.blocks[layer].w_o, 0..config.d_model).await?;
    Ok(transpose(&rows, config.n_heads * config.d_head))
}

/// Multiplies column `i` of every row by `gain[i]`.
pub fn scale_columns(values: &mut [f32], gain: &[f32]) {
    for row in values.chunks_exact_mut(gain.len()) {
        row.iter_mut().zip(gain).for_each(|(value, gain)| *value *= gain);
    }
}

/// What one head of a layer says of each source, over some candidates: `logits[source][candidate]` from the sources'
/// values `[n_sources, n_kv_heads * d_head]` and the candidates as the layer's heads see them,
/// `[n_candidates, n_heads * d_head]`.
pub fn ov_logits(values: &[f32], seen: &[f32], head: usize, shape: OvShape) -> Vec<Vec<f32>> {
    let OvShape { n_heads, n_kv_heads, d_head } = shape;
    let kv_head = head / (n_heads / n_kv_heads);
    let part = |row: &'_ [f32], index: usize| -> Range<usize> {
        debug_assert!((index + 1) * d_head <= row.len());
        index * d_head..(index + 1) * d_head
    };
    let sources = values.chunks_exact(n_kv_heads * d_head);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    sources
        .map(|source| {
            let value = &source[part(source, kv_head)];
            let candidates = seen.chunks_exact(n_heads * d_head);
            candidates.map(|candidate| dot(value, &candidate[part(candidate, head)])).collect()
        })
        .collect()
}

/// Extents of a layer's heads.
#[derive(Clone, Copy, Debug)]
pub struct OvShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
}

/// Candidates as a layer's heads see them: `[n_candidates, n_heads * d_head]`, entry `(h, i)` is the logit that a unit
/// of dimension `i` of head `h`'s z adds to the candidate (final gain included, its norm left out).
pub async fn candidates_seen<B: Backend>(
    ground: &Ground<'_, B>,
    layer: usize,
    unembed: &B::Buffer,
) -> Result<Vec<f32>, DeviceError> {
    let w_o = ground.backend.matrix(&w_o_rows(ground, layer).await?);
    candidates_seen_by(ground, &w_o, unembed).await
}

/// As [`candidates_seen`], of a layer whose [`w_o_rows`] the backend has taken.
pub async fn candidates_seen_by<B: Backend>(
    ground: &Ground<'_, B>,
    w_o: &B::Matrix,
    unembed: &B::Buffer,
) -> Result<Vec<f32>, DeviceError> {
    ground.backend.download_one(ground.backend.matmul(unembed, w_o)).await
}

/// Rows of W_U for some tokens with the final gain on them, `[n_tokens, d_model]`.
pub async fn unembed_rows<B: Backend>(
    ground: &Ground<'_, B>,
    tokens: &[TokenId],
) -> Result<B::Buffer, DeviceError> {
    let rows = ground.backend.gather_rows(ground.model.unembed(), tokens);
    let mut rows = ground.backend.download_one(rows).await?;
    scale_columns(&mut rows, &ground.backend.download_one(ground.model.final_norm.clone()).await?);
    let shape = vec![tokens.len(), ground.model.config.d_model];
    Ok(ground.backend.vector(&HostTensor::new(shape, rows)))
}

/// Index of the largest value; the first among equals.
pub fn argmax(values: &[f32]) -> usize {
    let larger = |best: usize, index: usize| if values[index] > values[best] { index } else { best };
    (0..values.len()).fold(0, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_its_own_columns_and_its_groups_values() {
        let shape = OvShape { n_heads: 4, n_kv_heads: 2, d_head: 2 };
        let values = [1.0, 2.0, 10.0, 20.0];
        let seen = [1.0, 0.0, 0.0, 1.0, 5.0, 0.0, 0.0, 7.0];
        let logits: Vec<f32> = (0..4).map(|head| ov_logits(&values, &seen, head, shape)[0][0]).collect();
        assert_eq!(logits, [1.0, 2.0, 50.0, 140.0]);
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3).data, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
