//! The kernels that a forward pass is made of. A backend differs in where numbers live and how fast they move,
//! never in what is computed; [`cpu::Cpu`] is the plain one.
//!
//! Activations are row-major `[pos, width]`; attention works on blocks of queries, so that a long prompt never needs
//! all of a layer's patterns at once. Positions, of queries too, count from the prompt's first token, also where a pass
//! continues after others.

pub mod cpu;
mod device;
pub mod webgpu;

use std::ops::Range;

pub use device::{Device, DeviceBuffer, DeviceMatrix};
use serde::{Deserialize, Serialize};

use crate::hooks::{PatternTarget, TargetKeys};
use crate::ids::TokenId;
use crate::tensor::HostTensor;
use crate::tensor::quantized::QuantizedMatrix;

/// Extents of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttnShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; query head `h` reads `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Tokens read before, whose keys and values are there already; queries begin after them.
    pub n_past: usize,
    /// Tokens in the prompt, those read before included.
    pub n_tokens: usize,
    /// Runs of the prompt that go together: rows are `[lane, pos]`, heads of scores and patterns `[lane, head]`.
    pub n_lanes: usize,
}

impl AttnShape {
    /// Tokens that this pass reads: rows of queries.
    pub fn n_new(self) -> usize {
        self.n_tokens - self.n_past
    }

    /// Query heads of all lanes.
    pub fn n_lane_heads(self) -> usize {
        self.n_lanes * self.n_heads
    }
}

/// What happens to the values of some rows and columns.
#[derive(Clone, Debug, PartialEq)]
pub enum RowEdit<Buffer> {
    /// Multiplied by a factor; 0 leaves zeros whatever was there.
    Scale(f32),
    /// Replaced, `[row, column]`.
    Replace(Vec<f32>),
    /// Each replaced by the same values, `[column]`.
    Repeat(Buffer),
    /// Freed of a part of their component along a direction, as wide as the columns.
    ProjectOut {
        /// The direction.
        direction: Buffer,
        /// The part.
        strength: f32,
    },
}

impl<Buffer> RowEdit<Buffer> {
    /// The same with another form of buffer.
    pub fn with<Other>(&self, of: impl Fn(&Buffer) -> Other) -> RowEdit<Other> {
        match self {
            Self::Scale(alpha) => RowEdit::Scale(*alpha),
            Self::Replace(values) => RowEdit::Replace(values.clone()),
            Self::Repeat(values) => RowEdit::Repeat(of(values)),
            Self::ProjectOut { direction, strength } => {
                RowEdit::ProjectOut { direction: of(direction), strength: *strength }
            }
        }
    }
}

/// What happens to one head's rows of scores or of its pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum AttentionEdit {
    /// Divided by a number: a softmax' temperature, on scores.
    Divide(f32),
    /// `-inf` at pairs of query and key position, on scores.
    Mask(Vec<(usize, usize)>),
    /// Moved towards a target by a part from 0 to 1, on patterns.
    Towards(PatternTarget, f32),
    /// Replaced by rows of a pattern, `[query_pos, key_pos]` over all positions of the prompt.
    Replace(Vec<f32>),
}

/// What a metric reads off each row of logits.
#[derive(Debug, PartialEq)]
pub enum LogitRead<'a, Buffer> {
    /// Log-probability of a row's token, nats.
    Logprob(&'a [TokenId]),
    /// Logit of a row's token.
    Logit(&'a [TokenId]),
    /// Logit of a row's token minus that of another.
    LogitDiff(&'a [TokenId], TokenId),
    /// KL(clean ‖ row) of the next token, nats.
    Kl {
        /// Logits of clean rows, `[row, d_vocab]`.
        clean: &'a Buffer,
        /// Which of them belongs to each row.
        rows: &'a [usize],
    },
}

impl<'a, Buffer> LogitRead<'a, Buffer> {
    /// The same with another form of buffer.
    pub fn with<Other>(&self, of: impl Fn(&'a Buffer) -> &'a Other) -> LogitRead<'a, Other> {
        match self {
            Self::Logprob(tokens) => LogitRead::Logprob(tokens),
            Self::Logit(tokens) => LogitRead::Logit(tokens),
            Self::LogitDiff(tokens, versus) => LogitRead::LogitDiff(tokens, *versus),
            Self::Kl { clean, rows } => LogitRead::Kl { clean: of(clean), rows },
        }
    }
}

/// How products are computed on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// In f32.
    #[default]
    Exact,
    /// Products with quantised weights in whole numbers, what meets them rounded to sixteen bits; everything else in f32. Of a model
    /// whose weights are f32, and on a graphics device, nothing changes.
    Fast,
}

impl Precision {
    /// Whether this is the default.
    pub fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

/// Why a backend could not do its work: what happened, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The device is gone: unplugged, reset by the system, or its driver crashed.
    #[error("{}; run again on the CPU, or reload the page", self.event())]
    Lost(String),
    /// Not enough memory on the device.
    #[error("{}; shorten the prompt, or run on the CPU", self.event())]
    OutOfMemory {
        /// What it held when it gave no more, bytes.
        held_bytes: usize,
    },
    /// The device refused a command.
    #[error("{}; run on the CPU", self.event())]
    Refused(String),
}

impl DeviceError {
    /// What happened, for a sentence that goes on otherwise than with what to do.
    pub fn event(&self) -> String {
        match self {
            Self::Lost(why) => format!("the graphics device was lost ({why})"),
            Self::OutOfMemory { .. } => "the graphics device has too little memory for this".to_owned(),
            Self::Refused(why) => format!("the graphics device refused a command ({why})"),
        }
    }
}

/// A place to compute. Every kernel takes buffers of this backend and gives a new one.
pub trait Backend {
    /// A weight matrix in the layout that [`Backend::matmul`] reads.
    type Matrix;
    /// Activations.
    type Buffer: Clone;

    /// Engine and precision for reports, such as `cpu-f32`.
    fn name(&self) -> String;

    /// Takes a weight matrix `[n_out, n_in]`.
    fn matrix(&self, weights: &HostTensor) -> Self::Matrix;

    /// Takes a quantised weight matrix; products have the bits that its unpacked values give.
    fn quantized_matrix(&self, weights: &QuantizedMatrix<'_>) -> Self::Matrix;

    /// Takes a vector, such as a norm's gain.
    fn vector(&self, weights: &HostTensor) -> Self::Buffer;

    /// Rows `ids` of a matrix, `[n_ids, n_in]`.
    fn gather_rows(&self, table: &Self::Matrix, ids: &[TokenId]) -> Self::Buffer;

    /// `x / sqrt(mean(x²) + eps) * gain` for each row.
    fn rms_norm(&self, x: &Self::Buffer, gain: &Self::Buffer, eps: f32) -> Self::Buffer;

    /// `x Wᵀ`, `[pos, n_out]`.
    fn matmul(&self, x: &Self::Buffer, weights: &Self::Matrix) -> Self::Buffer;

    /// Rotary position embedding on half-split pairs of `[lane, pos, head, d_head]`, each lane at these positions.
    fn rope(
        &self,
        x: &Self::Buffer,
        n_heads: usize,
        d_head: usize,
        theta: f32,
        positions: Range<usize>,
    ) -> Self::Buffer;

    /// Whether work is better in few large pieces, several of them under way: a graphics device pays for every kernel and every
    /// wait, the CPU for what its cache does not hold.
    fn wants_large_pieces(&self) -> bool;

    /// `q·k / sqrt(d_head)` for a block of queries, `[lane, head, query, key_pos]`, `-inf` for keys after the query. `q` has
    /// rows for positions `n_past..n_tokens`, `k` for all.
    fn attn_scores(
        &self,
        q: &Self::Buffer,
        k: &Self::Buffer,
        shape: AttnShape,
        queries: Range<usize>,
    ) -> Self::Buffer;

    /// Softmax of each row of a block's scores, over the keys up to its query; later keys get 0.
    fn softmax(&self, scores: &Self::Buffer, shape: AttnShape, queries: Range<usize>) -> Self::Buffer;

    /// `Σ_key pattern·v` for a block of queries, `[lane, query, head, d_head]`.
    fn mix_values(
        &self,
        pattern: &Self::Buffer,
        v: &Self::Buffer,
        shape: AttnShape,
        queries: Range<usize>,
    ) -> Self::Buffer;

    /// For each head, the attention that a block of queries pays to its target's keys, summed, `[head]`.
    fn target_mass(
        &self,
        pattern: &Self::Buffer,
        shape: AttnShape,
        queries: Range<usize>,
        targets: &TargetKeys,
    ) -> Self::Buffer;

    /// For each head, the entropy of a block's pattern rows, summed, nats, `[head]`.
    fn entropy_sum(&self, pattern: &Self::Buffer, shape: AttnShape, queries: Range<usize>) -> Self::Buffer;

    /// For each head, the key that one query of a block attends to most, the first among equals; whole numbers, `[head]`.
    fn argmax_keys(
        &self,
        pattern: &Self::Buffer,
        shape: AttnShape,
        queries: Range<usize>,
        query: usize,
    ) -> Self::Buffer;

    /// Edits one head's scores or pattern `[lane, head, query, key_pos]` of a block of queries, at some query positions or all;
    /// heads count through all lanes.
    fn edit_attention(
        &self,
        weights: Self::Buffer,
        shape: AttnShape,
        queries: Range<usize>,
        head: usize,
        edit: &AttentionEdit,
        positions: Option<&[usize]>,
    ) -> Self::Buffer;

    /// Mean over rows of some columns of `[row, row_len]`, `[column]`.
    fn mean_of_rows(
        &self,
        x: &Self::Buffer,
        row_len: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Self::Buffer;

    /// Edits some columns of some rows of `[row, row_len]`.
    fn edit_rows(
        &self,
        x: Self::Buffer,
        row_len: usize,
        rows: &[usize],
        columns: Range<usize>,
        edit: &RowEdit<Self::Buffer>,
    ) -> Self::Buffer;

    /// `x + y`.
    fn add(&self, x: &Self::Buffer, y: &Self::Buffer) -> Self::Buffer;

    /// `silu(gate) * linear`.
    fn swiglu(&self, gate: &Self::Buffer, linear: &Self::Buffer) -> Self::Buffer;

    /// Puts blocks of rows one after another.
    fn concat(&self, blocks: Vec<Self::Buffer>) -> Self::Buffer;

    /// Puts more rows behind those that are there.
    fn append(&self, rows: Self::Buffer, more: &Self::Buffer) -> Self::Buffer;

    /// A range of values as a buffer of its own.
    fn slice(&self, x: &Self::Buffer, values: Range<usize>) -> Self::Buffer;

    /// `x - y`.
    fn subtract(&self, x: &Self::Buffer, y: &Self::Buffer) -> Self::Buffer;

    /// Values in a buffer.
    fn n_values(&self, x: &Self::Buffer) -> usize;

    /// What a metric reads off rows of logits `[row, d_vocab]`, `[row]`.
    fn read_logits(
        &self,
        logits: &Self::Buffer,
        d_vocab: usize,
        read: &LogitRead<'_, Self::Buffer>,
    ) -> Self::Buffer;

    /// Copies buffers to host memory, all of them in one go; what was asked of the backend before is done by then. The one
    /// place where work can turn out to have failed. The copy is under way once this returns: more may be asked of the backend
    /// before the numbers are waited for.
    fn download(
        &self,
        buffers: Vec<Self::Buffer>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, DeviceError>> + use<Self> + 'static;

    /// The same of one buffer.
    fn download_one(
        &self,
        buffer: Self::Buffer,
    ) -> impl Future<Output = Result<Vec<f32>, DeviceError>> + use<Self> + 'static {
        let downloaded = self.download(vec![buffer]);
        async { Ok(downloaded.await?.pop().unwrap_or_default()) }
    }
}
