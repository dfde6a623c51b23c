//! The graphics backend: f32 throughout, from WGSL that runs in the browser and natively alike. One file of WGSL for a stage,
//! under the names of the CPU's.
//!
//! Kernels are recorded and handed over in batches; the device is waited for only where numbers come to host memory
//! ([`Backend::download`]), and what went wrong before turns up there.

mod commands;
mod kernels;
mod matrix;
mod memory;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;

use self::commands::{Commands, Param};
pub use self::commands::{OpenError, Wanted};
use self::kernels::Kernel;
pub use self::matrix::GpuMatrix;
pub use self::memory::GpuBuffer;
use super::{AttentionEdit, AttnShape, Backend, DeviceError, LogitRead, RowEdit, cpu};
use crate::hooks::{PatternTarget, TargetKeys};
use crate::ids::TokenId;
use crate::tensor::HostTensor;
use crate::tensor::quantized::QuantizedMatrix;

#[cfg(test)]
mod tests;

/// Cells of attention targets that stay on the device: a pass asks for the same ones in every layer.
const N_KEPT_CELLS: usize = 16;
/// Positions for which angles are made at first.
const MIN_ANGLES: usize = 256;

/// A graphics device.
pub struct WebGpu {
    commands: Commands,
    /// Cells of the targets asked for last, newest first.
    cells: RefCell<VecDeque<Cells>>,
    /// Cosines and sines.
    angles: RefCell<Option<Angles>>,
}

/// A target's cells in a block of queries, on the device.
struct Cells {
    targets: TargetKeys,
    queries: Range<usize>,
    n_tokens: usize,
    n_cells: usize,
    buffer: GpuBuffer,
}

/// Cosine and sine of every angle, `[pos, d_head/2, 2]`.
struct Angles {
    d_head: usize,
    theta: f32,
    n_positions: usize,
    buffer: GpuBuffer,
}

impl WebGpu {
    /// Opens a device; kernels are compiled when they are first used.
    pub async fn open(wanted: Wanted) -> Result<Self, OpenError> {
        let commands = Commands::open(wanted).await?;
        Ok(Self { commands, cells: RefCell::default(), angles: RefCell::default() })
    }

    /// Compiles one of the kernels that a pass on the weights taken so far runs, and waits for it; tells how many are left, or nothing
    /// once all are there. Whatever was not compiled so is where it is first used.
    pub async fn compile_next(&self) -> Result<Option<usize>, DeviceError> {
        self.commands.compile_next().await
    }

    /// The adapter's name, as its driver tells it.
    pub fn adapter(&self) -> &str {
        self.commands.adapter()
    }

    /// Whether it only pretends: the adapter is a program on the CPU.
    pub fn is_software(&self) -> bool {
        self.commands.is_software()
    }

    /// Bytes that the device holds for this backend, those kept for reuse included.
    pub fn allocated_bytes(&self) -> usize {
        self.commands.allocated_bytes()
    }

    /// Gives the device up, as a driver's crash would.
    pub fn lose(&self) {
        self.commands.lose();
    }

    fn upload_u32(&self, values: impl IntoIterator<Item = u32>) -> GpuBuffer {
        let values: Vec<u32> = values.into_iter().collect();
        self.commands.upload(bytemuck::cast_slice(&values))
    }

    fn upload_f32(&self, values: &[f32]) -> GpuBuffer {
        self.commands.upload(bytemuck::cast_slice(values))
    }

    /// One value a thread of `n`: workgroups of 256 in two dimensions, and the threads of one row of them.
    fn over_values(n: usize) -> ([usize; 3], usize) {
        const MOST_ACROSS: usize = 1 << 15;
        let n_groups = n.div_ceil(256);
        let across = n_groups.clamp(1, MOST_ACROSS);
        ([across, n_groups.div_ceil(across), 1], across * 256)
    }

    fn of_two(&self, kernel: Kernel, x: &GpuBuffer, y: &GpuBuffer) -> GpuBuffer {
        assert_eq!(x.len(), y.len(), "{} values against {}", x.len(), y.len());
        let out = self.commands.room(x.len());
        let (groups, n_across) = Self::over_values(x.len());
        let params = [x.len(), n_across, x.start(), y.start()].map(Param::from);
        self.commands.dispatch(kernel, &params, &[x, y], &out, groups);
        out
    }

    /// Parameters of a kernel over a block of queries.
    fn block(
        shape: AttnShape,
        queries: &Range<usize>,
        a: &GpuBuffer,
        b_start: usize,
        extra: usize,
    ) -> [Param; 11] {
        let minus_infinity = f32::NEG_INFINITY.to_bits() as usize;
        [
            shape.n_heads,
            shape.n_kv_heads,
            shape.d_head,
            shape.n_past,
            shape.n_tokens,
            queries.start,
            queries.len(),
            a.start(),
            b_start,
            minus_infinity,
            extra,
        ]
        .map(Param::from)
    }

    /// A kernel of one workgroup for each head.
    fn of_heads(
        &self,
        kernel: Kernel,
        pattern: &GpuBuffer,
        shape: AttnShape,
        queries: &Range<usize>,
        extra: usize,
    ) -> GpuBuffer {
        let out = self.commands.room(shape.n_heads);
        let params = Self::block(shape, queries, pattern, 0, extra);
        self.commands.dispatch(kernel, &params, &[pattern], &out, [shape.n_heads, 1, 1]);
        out
    }

    /// A buffer with these values that nobody else reads.
    fn own(&self, x: GpuBuffer) -> GpuBuffer {
        if x.is_own() { x } else { self.commands.join(&[&x]) }
    }

    fn cells(&self, targets: &TargetKeys, shape: AttnShape, queries: &Range<usize>) -> (GpuBuffer, usize) {
        let mut kept = self.cells.borrow_mut();
        let n_tokens = shape.n_tokens;
        let is_same = |c: &&Cells| c.n_tokens == n_tokens && c.queries == *queries && c.targets == *targets;
        if let Some(cells) = kept.iter().find(is_same) {
            return (cells.buffer.clone(), cells.n_cells);
        }
        let rows = targets.0[queries.clone()].iter().enumerate();
        let cells: Vec<u32> =
            rows.flat_map(|(row, keys)| keys.iter().map(move |key| (row * n_tokens + key) as u32)).collect();
        // A binding has a value, also where nothing is summed.
        let buffer = self.upload_u32(cells.iter().copied().chain(cells.is_empty().then_some(0)));
        let (targets, queries) = (targets.clone(), queries.clone());
        kept.push_front(Cells { targets, queries, n_tokens, n_cells: cells.len(), buffer: buffer.clone() });
        kept.truncate(N_KEPT_CELLS);
        (buffer, cells.len())
    }

    fn angles(&self, d_head: usize, theta: f32, n_positions: usize) -> GpuBuffer {
        let mut kept = self.angles.borrow_mut();
        if let Some(angles) = kept.as_ref()
            && angles.d_head == d_head
            && angles.theta == theta
            && angles.n_positions >= n_positions
        {
            return angles.buffer.clone();
        }
        let n_positions = n_positions.next_power_of_two().max(MIN_ANGLES);
        let frequencies = cpu::frequencies(d_head, theta);
        let turns = (0..n_positions).flat_map(|position| cpu::turns(position, &frequencies));
        let values: Vec<f32> = turns.flat_map(|(sin, cos)| [cos, sin]).collect();
        let buffer = self.upload_f32(&values);
        *kept = Some(Angles { d_head, theta, n_positions, buffer: buffer.clone() });
        buffer
    }
}

impl Backend for WebGpu {
    type Matrix = GpuMatrix;
    type Buffer = GpuBuffer;

    fn name(&self) -> String {
        format!("webgpu-f32 ({})", self.adapter())
    }

    fn matrix(&self, weights: &HostTensor) -> GpuMatrix {
        GpuMatrix::of_f32(&self.commands, weights)
    }

    fn quantized_matrix(&self, weights: &QuantizedMatrix<'_>) -> GpuMatrix {
        GpuMatrix::of_blocks(&self.commands, weights)
    }

    fn vector(&self, weights: &HostTensor) -> GpuBuffer {
        self.upload_f32(&weights.data)
    }

    fn gather_rows(&self, table: &GpuMatrix, ids: &[TokenId]) -> GpuBuffer {
        table.gather(&self.commands, &self.upload_u32(ids.iter().copied()), ids.len())
    }

    fn rms_norm(&self, x: &GpuBuffer, gain: &GpuBuffer, eps: f32) -> GpuBuffer {
        let out = self.commands.room(x.len());
        let row_len = gain.len();
        let params = [row_len.into(), x.start().into(), gain.start().into(), Param::from(eps)];
        self.commands.dispatch(Kernel::RmsNorm, &params, &[x, gain], &out, [x.len() / row_len, 1, 1]);
        out
    }

    fn matmul(&self, x: &GpuBuffer, weights: &GpuMatrix) -> GpuBuffer {
        weights.times(&self.commands, x)
    }

    fn rope(
        &self,
        x: &GpuBuffer,
        n_heads: usize,
        d_head: usize,
        theta: f32,
        positions: Range<usize>,
    ) -> GpuBuffer {
        let angles = self.angles(d_head, theta, positions.end);
        let n_pairs = x.len() / 2;
        let (groups, n_across) = Self::over_values(n_pairs);
        let out = self.commands.room(x.len());
        let params = [n_pairs, n_heads, d_head, positions.start, positions.len(), x.start(), n_across]
            .map(Param::from);
        self.commands.dispatch(Kernel::Rope, &params, &[x, &angles], &out, groups);
        out
    }

    fn wants_large_pieces(&self) -> bool {
        true
    }

    fn attn_scores(
        &self,
        q: &GpuBuffer,
        k: &GpuBuffer,
        shape: AttnShape,
        queries: Range<usize>,
    ) -> GpuBuffer {
        let out = self.commands.room(shape.n_lane_heads() * queries.len() * shape.n_tokens);
        let params = Self::block(shape, &queries, q, k.start(), 0);
        let groups = [shape.n_tokens.div_ceil(64), queries.len().div_ceil(32), shape.n_lane_heads()];
        self.commands.dispatch(Kernel::AttnScores, &params, &[q, k], &out, groups);
        out
    }

    fn softmax(&self, scores: &GpuBuffer, shape: AttnShape, queries: Range<usize>) -> GpuBuffer {
        let out = self.commands.room(scores.len());
        let params = Self::block(shape, &queries, scores, 0, 0);
        self.commands.dispatch(
            Kernel::Softmax,
            &params,
            &[scores],
            &out,
            [queries.len(), shape.n_lane_heads(), 1],
        );
        out
    }

    fn mix_values(
        &self,
        pattern: &GpuBuffer,
        v: &GpuBuffer,
        shape: AttnShape,
        queries: Range<usize>,
    ) -> GpuBuffer {
        let out = self.commands.room(queries.len() * shape.n_lane_heads() * shape.d_head);
        let params = Self::block(shape, &queries, pattern, v.start(), 0);
        let groups = [shape.d_head.div_ceil(64), queries.len().div_ceil(32), shape.n_lane_heads()];
        self.commands.dispatch(Kernel::MixValues, &params, &[pattern, v], &out, groups);
        out
    }

    fn target_mass(
        &self,
        pattern: &GpuBuffer,
        shape: AttnShape,
        queries: Range<usize>,
        targets: &TargetKeys,
    ) -> GpuBuffer {
        let (cells, n_cells) = self.cells(targets, shape, &queries);
        let out = self.commands.room(shape.n_heads);
        let params = Self::block(shape, &queries, pattern, 0, n_cells);
        let inputs = [pattern, &cells];
        self.commands.dispatch(Kernel::TargetMass, &params, &inputs, &out, [shape.n_heads, 1, 1]);
        out
    }

    fn entropy_sum(&self, pattern: &GpuBuffer, shape: AttnShape, queries: Range<usize>) -> GpuBuffer {
        let rows = self.commands.room(shape.n_heads * queries.len());
        let params = Self::block(shape, &queries, pattern, 0, 0);
        self.commands.dispatch(
            Kernel::Entropies,
            &params,
            &[pattern],
            &rows,
            [queries.len(), shape.n_heads, 1],
        );
        self.of_heads(Kernel::SumOfRows, &rows, shape, &queries, 0)
    }

    fn argmax_keys(
        &self,
        pattern: &GpuBuffer,
        shape: AttnShape,
        queries: Range<usize>,
        query: usize,
    ) -> GpuBuffer {
        self.of_heads(Kernel::ArgmaxKeys, pattern, shape, &queries, query - queries.start)
    }

    fn edit_attention(
        &self,
        weights: GpuBuffer,
        shape: AttnShape,
        queries: Range<usize>,
        head: usize,
        edit: &AttentionEdit,
        positions: Option<&[usize]>,
    ) -> GpuBuffer {
        let n_tokens = shape.n_tokens;
        let is_edited = |query: &usize| positions.is_none_or(|positions| positions.contains(query));
        let edited: Vec<usize> = queries.clone().filter(is_edited).collect();
        let head_start = head * queries.len() * n_tokens;
        if edited.is_empty() {
            return weights;
        }
        if let AttentionEdit::Mask(edges) = edit {
            let edges = edges.iter().filter(|(query, _)| edited.contains(query));
            let cell = |&(query, key): &(usize, usize)| {
                (head_start + (query - queries.start) * n_tokens + key) as u32
            };
            let cells: Vec<u32> = edges.map(cell).collect();
            if cells.is_empty() {
                return weights;
            }
            let weights = self.own(weights);
            let params = [cells.len(), f32::NEG_INFINITY.to_bits() as usize].map(Param::from);
            let groups = [cells.len().div_ceil(64), 1, 1];
            self.commands.dispatch(Kernel::FillAt, &params, &[&self.upload_u32(cells)], &weights, groups);
            return weights;
        }
        let (kind, number, rows) = match edit {
            AttentionEdit::Mask(_) => unreachable!("edges were cut above"),
            AttentionEdit::Divide(divisor) => (0, *divisor, None),
            AttentionEdit::Towards(PatternTarget::Identity, strength) => (1, *strength, None),
            AttentionEdit::Towards(PatternTarget::Uniform, strength) => (2, *strength, None),
            AttentionEdit::Towards(PatternTarget::First, strength) => (3, *strength, None),
            AttentionEdit::Towards(PatternTarget::Previous, strength) => (4, *strength, None),
            AttentionEdit::Replace(pattern) => {
                let rows = edited.iter().flat_map(|query| &pattern[query * n_tokens..][..n_tokens]);
                (5, 0.0, Some(rows.copied().collect::<Vec<f32>>()))
            }
        };
        let weights = self.own(weights);
        let queries_edited = self.upload_u32(edited.iter().map(|query| (query - queries.start) as u32));
        // What has no rows to read is handed something to bind.
        let rows = rows.map_or_else(|| queries_edited.clone(), |rows| self.upload_f32(&rows));
        let [n_tokens, head_start, first, kind] =
            [n_tokens, head_start, queries.start, kind].map(Param::from);
        let params = [n_tokens, head_start, first, kind, Param::from(number)];
        let inputs = [&queries_edited, &rows];
        self.commands.dispatch(Kernel::EditAttention, &params, &inputs, &weights, [edited.len(), 1, 1]);
        weights
    }

    fn mean_of_rows(
        &self,
        x: &GpuBuffer,
        row_len: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> GpuBuffer {
        let out = self.commands.room(columns.len());
        let params = [row_len, rows.start, rows.len(), columns.start, columns.len(), x.start()];
        let groups = [columns.len().div_ceil(64), 1, 1];
        self.commands.dispatch(Kernel::MeanOfRows, &params.map(Param::from), &[x], &out, groups);
        out
    }

    fn edit_rows(
        &self,
        x: GpuBuffer,
        row_len: usize,
        rows: &[usize],
        columns: Range<usize>,
        edit: &RowEdit<GpuBuffer>,
    ) -> GpuBuffer {
        if rows.is_empty() {
            return x;
        }
        let x = self.own(x);
        let edited = self.upload_u32(rows.iter().map(|&row| row as u32));
        let (kind, alpha, values) = match edit {
            RowEdit::Scale(alpha) => (0, *alpha, edited.clone()),
            RowEdit::Replace(values) => (1, 0.0, self.upload_f32(values)),
            RowEdit::Repeat(values) => (2, 0.0, values.clone()),
            RowEdit::ProjectOut { direction, strength } => (3, *strength, direction.clone()),
        };
        let [row_len, first, n_columns, n_rows, kind] =
            [row_len, columns.start, columns.len(), rows.len(), kind].map(Param::from);
        let params = [row_len, first, n_columns, n_rows, kind, alpha.into(), values.start().into()];
        self.commands.dispatch(Kernel::EditRows, &params, &[&edited, &values], &x, [rows.len(), 1, 1]);
        x
    }

    fn add(&self, x: &GpuBuffer, y: &GpuBuffer) -> GpuBuffer {
        self.of_two(Kernel::Add, x, y)
    }

    fn subtract(&self, x: &GpuBuffer, y: &GpuBuffer) -> GpuBuffer {
        self.of_two(Kernel::Subtract, x, y)
    }

    fn swiglu(&self, gate: &GpuBuffer, linear: &GpuBuffer) -> GpuBuffer {
        self.of_two(Kernel::Swiglu, gate, linear)
    }

    fn concat(&self, mut blocks: Vec<GpuBuffer>) -> GpuBuffer {
        match blocks.len() {
            1 => blocks.remove(0),
            _ => self.commands.join(&blocks.iter().collect::<Vec<_>>()),
        }
    }

    fn append(&self, rows: GpuBuffer, more: &GpuBuffer) -> GpuBuffer {
        self.commands.join(&[&rows, more])
    }

    fn slice(&self, x: &GpuBuffer, values: Range<usize>) -> GpuBuffer {
        x.part(values)
    }

    fn n_values(&self, x: &GpuBuffer) -> usize {
        x.len()
    }

    fn read_logits(&self, logits: &GpuBuffer, d_vocab: usize, read: &LogitRead<'_, GpuBuffer>) -> GpuBuffer {
        let (kind, asked, clean, versus) = match read {
            LogitRead::Logprob(tokens) => (0, self.upload_u32(tokens.iter().copied()), logits, 0),
            LogitRead::Logit(tokens) => (1, self.upload_u32(tokens.iter().copied()), logits, 0),
            LogitRead::LogitDiff(tokens, versus) => {
                (2, self.upload_u32(tokens.iter().copied()), logits, *versus as usize)
            }
            LogitRead::Kl { clean, rows } => {
                (3, self.upload_u32(rows.iter().map(|&row| row as u32)), *clean, 0)
            }
        };
        let n_rows = logits.len() / d_vocab;
        let out = self.commands.room(n_rows);
        let params = [d_vocab, kind, logits.start(), clean.start(), versus].map(Param::from);
        self.commands.dispatch(Kernel::ReadLogits, &params, &[logits, clean, &asked], &out, [n_rows, 1, 1]);
        out
    }

    fn download(
        &self,
        buffers: Vec<GpuBuffer>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, DeviceError>> + use<> {
        self.commands.download(buffers)
    }
}
