//! The CPU backend: one thread, exact f32 unless `fast` is asked for, the same source natively and in wasm (where `simd128` is on).
//!
//! Loops are written over fixed-size arrays so that the compiler turns them into vector code for either target; the innermost
//! one of every product is also written in wasm's vector instructions.

mod attention;
mod codes;
mod edits;
mod elementwise;
mod exp;
mod kernel;
mod lanes;
mod matmul;
mod quantized;
mod rope;

use std::ops::Range;

pub use kernel::peak_work;
pub use matmul::PackedMatrix;
use quantized::QuantizedPanels;
pub use rope::{frequencies, turns};

use super::{AttentionEdit, AttnShape, Backend, DeviceError, LogitRead, Precision, RowEdit};
use crate::hooks::TargetKeys;
use crate::ids::TokenId;
use crate::metrics::{kl_nats, logprob};
use crate::tensor::HostTensor;
use crate::tensor::quantized::QuantizedMatrix;

/// The CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// How products are computed.
    pub precision: Precision,
}

impl Backend for Cpu {
    type Matrix = PackedMatrix;
    type Buffer = Vec<f32>;

    fn name(&self) -> String {
        match self.precision {
            Precision::Exact => "cpu-f32".to_owned(),
            Precision::Fast => "cpu-fast-i16".to_owned(),
        }
    }

    fn matrix(&self, weights: &HostTensor) -> PackedMatrix {
        PackedMatrix::pack(&weights.data, weights.row_len())
    }

    fn quantized_matrix(&self, weights: &QuantizedMatrix<'_>) -> PackedMatrix {
        PackedMatrix::Quantized(QuantizedPanels::pack(weights))
    }

    fn vector(&self, weights: &HostTensor) -> Vec<f32> {
        weights.data.clone()
    }

    fn gather_rows(&self, table: &PackedMatrix, ids: &[TokenId]) -> Vec<f32> {
        ids.iter().flat_map(|&id| table.row(id as usize)).collect()
    }

    fn rms_norm(&self, x: &Vec<f32>, gain: &Vec<f32>, eps: f32) -> Vec<f32> {
        elementwise::rms_norm(x, gain, eps)
    }

    fn matmul(&self, x: &Vec<f32>, weights: &PackedMatrix) -> Vec<f32> {
        match (self.precision, weights) {
            (Precision::Fast, PackedMatrix::Quantized(weights)) => codes::matmul(x, weights),
            _ => matmul::matmul(x, weights),
        }
    }

    fn rope(
        &self,
        x: &Vec<f32>,
        n_heads: usize,
        d_head: usize,
        theta: f32,
        positions: Range<usize>,
    ) -> Vec<f32> {
        rope::rope(x, n_heads, d_head, theta, positions)
    }

    fn wants_large_pieces(&self) -> bool {
        false
    }

    fn attn_scores(&self, q: &Vec<f32>, k: &Vec<f32>, shape: AttnShape, queries: Range<usize>) -> Vec<f32> {
        let of_lane = |lane: usize, shape: AttnShape| {
            let (q, k) = (lane_of(q, lane, shape.n_lanes), lane_of(k, lane, shape.n_lanes));
            attention::attn_scores(q, k, shape, queries.clone())
        };
        of_lanes(shape, of_lane)
    }

    fn softmax(&self, scores: &Vec<f32>, shape: AttnShape, queries: Range<usize>) -> Vec<f32> {
        elementwise::softmax(scores, shape.n_tokens, queries)
    }

    fn mix_values(
        &self,
        pattern: &Vec<f32>,
        v: &Vec<f32>,
        shape: AttnShape,
        queries: Range<usize>,
    ) -> Vec<f32> {
        let of_lane = |lane: usize, shape: AttnShape| {
            let (pattern, v) = (lane_of(pattern, lane, shape.n_lanes), lane_of(v, lane, shape.n_lanes));
            attention::mix_values(pattern, v, shape, queries.clone())
        };
        of_lanes(shape, of_lane)
    }

    fn target_mass(
        &self,
        pattern: &Vec<f32>,
        shape: AttnShape,
        queries: Range<usize>,
        targets: &TargetKeys,
    ) -> Vec<f32> {
        attention::target_mass(pattern, shape, queries, targets)
    }

    fn entropy_sum(&self, pattern: &Vec<f32>, shape: AttnShape, queries: Range<usize>) -> Vec<f32> {
        attention::entropy_sum(pattern, shape, queries)
    }

    fn argmax_keys(
        &self,
        pattern: &Vec<f32>,
        shape: AttnShape,
        queries: Range<usize>,
        query: usize,
    ) -> Vec<f32> {
        attention::argmax_keys(pattern, shape, queries, query)
    }

    fn edit_attention(
        &self,
        weights: Vec<f32>,
        shape: AttnShape,
        queries: Range<usize>,
        head: usize,
        edit: &AttentionEdit,
        positions: Option<&[usize]>,
    ) -> Vec<f32> {
        edits::edit_attention(weights, shape, queries, head, edit, positions)
    }

    fn mean_of_rows(
        &self,
        x: &Vec<f32>,
        row_len: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Vec<f32> {
        edits::mean_of_rows(x, row_len, rows, columns)
    }

    fn edit_rows(
        &self,
        x: Vec<f32>,
        row_len: usize,
        rows: &[usize],
        columns: Range<usize>,
        edit: &RowEdit<Vec<f32>>,
    ) -> Vec<f32> {
        edits::edit_rows(x, row_len, rows, columns, edit)
    }

    fn add(&self, x: &Vec<f32>, y: &Vec<f32>) -> Vec<f32> {
        elementwise::add(x, y)
    }

    fn swiglu(&self, gate: &Vec<f32>, linear: &Vec<f32>) -> Vec<f32> {
        elementwise::swiglu(gate, linear)
    }

    fn concat(&self, blocks: Vec<Vec<f32>>) -> Vec<f32> {
        blocks.concat()
    }

    fn append(&self, mut rows: Vec<f32>, more: &Vec<f32>) -> Vec<f32> {
        rows.extend_from_slice(more);
        rows
    }

    fn slice(&self, x: &Vec<f32>, values: Range<usize>) -> Vec<f32> {
        x[values].to_vec()
    }

    fn subtract(&self, x: &Vec<f32>, y: &Vec<f32>) -> Vec<f32> {
        elementwise::subtract(x, y)
    }

    fn n_values(&self, x: &Vec<f32>) -> usize {
        x.len()
    }

    fn read_logits(&self, logits: &Vec<f32>, d_vocab: usize, read: &LogitRead<'_, Vec<f32>>) -> Vec<f32> {
        let rows = logits.chunks_exact(d_vocab).enumerate();
        let read = |(row, logits): (usize, &[f32])| match read {
            LogitRead::Logprob(tokens) => logprob(logits, tokens[row]),
            LogitRead::Logit(tokens) => logits[tokens[row] as usize],
            LogitRead::LogitDiff(tokens, versus) => logits[tokens[row] as usize] - logits[*versus as usize],
            LogitRead::Kl { clean, rows } => kl_nats(&clean[rows[row] * d_vocab..][..d_vocab], logits),
        };
        rows.map(read).collect()
    }

    fn download(
        &self,
        buffers: Vec<Vec<f32>>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, DeviceError>> + use<> {
        std::future::ready(Ok(buffers))
    }
}

/// One lane's values.
fn lane_of(x: &[f32], lane: usize, n_lanes: usize) -> &[f32] {
    let len = x.len() / n_lanes;
    &x[lane * len..(lane + 1) * len]
}

/// Lane after lane.
fn of_lanes(shape: AttnShape, of_lane: impl Fn(usize, AttnShape) -> Vec<f32>) -> Vec<f32> {
    match shape.n_lanes {
        1 => of_lane(0, shape),
        n_lanes => (0..n_lanes).flat_map(|lane| of_lane(lane, shape)).collect(),
    }
}
