//! The backend that was chosen when the program started, as one type: what stands above needs not be built once for each.

use std::ops::Range;
use std::rc::Rc;

use super::cpu::{Cpu, PackedMatrix};
use super::webgpu::{GpuBuffer, GpuMatrix, WebGpu};
use super::{AttentionEdit, AttnShape, Backend, DeviceError, LogitRead, Precision, RowEdit};
use crate::hooks::TargetKeys;
use crate::ids::TokenId;
use crate::tensor::HostTensor;
use crate::tensor::quantized::QuantizedMatrix;

/// Where to compute.
#[derive(Clone)]
pub enum Device {
    /// On the CPU.
    Cpu(Cpu),
    /// On a graphics device.
    WebGpu(Rc<WebGpu>),
}

/// A weight matrix of either.
pub enum DeviceMatrix {
    /// In host memory.
    Cpu(PackedMatrix),
    /// On the graphics device.
    WebGpu(GpuMatrix),
}

/// Activations of either.
#[derive(Clone)]
pub enum DeviceBuffer {
    /// In host memory.
    Cpu(Vec<f32>),
    /// On the graphics device.
    WebGpu(GpuBuffer),
}

impl Device {
    /// The same with products computed otherwise.
    pub fn with_precision(&self, precision: Precision) -> Self {
        match self {
            Self::Cpu(_) => Self::Cpu(Cpu { precision }),
            Self::WebGpu(gpu) => Self::WebGpu(Rc::clone(gpu)),
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::Cpu(Cpu::default())
    }
}

impl DeviceMatrix {
    /// Whether it is on the CPU and quantised there.
    pub fn is_quantized(&self) -> bool {
        matches!(self, Self::Cpu(PackedMatrix::Quantized(_)))
    }

    /// Host memory that it takes, bytes.
    pub fn host_bytes(&self) -> usize {
        match self {
            Self::Cpu(matrix) => matrix.size_bytes(),
            Self::WebGpu(_) => 0,
        }
    }

    /// The same matrix on another device.
    ///
    /// # Panics
    /// Of a matrix on a graphics device: weights are not read back.
    pub fn on(&self, device: &Device) -> Self {
        self.cpu().on(device)
    }

    fn cpu(&self) -> &PackedMatrix {
        match self {
            Self::Cpu(matrix) => matrix,
            Self::WebGpu(_) => unreachable!("a matrix stays on its device"),
        }
    }

    /// Memory of a graphics device that it takes, bytes.
    pub fn device_bytes(&self) -> usize {
        match self {
            Self::Cpu(_) => 0,
            Self::WebGpu(matrix) => matrix.size_bytes(),
        }
    }

    fn web_gpu(&self) -> &GpuMatrix {
        match self {
            Self::WebGpu(matrix) => matrix,
            Self::Cpu(_) => unreachable!("a matrix stays on its device"),
        }
    }
}

impl DeviceBuffer {
    /// The same values on another device.
    ///
    /// # Panics
    /// Of a buffer on a graphics device.
    pub fn on(&self, device: &Device) -> Self {
        device.vector(&HostTensor::new(vec![self.cpu().len()], self.cpu().clone()))
    }

    fn cpu(&self) -> &Vec<f32> {
        match self {
            Self::Cpu(values) => values,
            Self::WebGpu(_) => unreachable!("a buffer stays on its device"),
        }
    }

    fn web_gpu(&self) -> &GpuBuffer {
        match self {
            Self::WebGpu(buffer) => buffer,
            Self::Cpu(_) => unreachable!("a buffer stays on its device"),
        }
    }

    fn into_cpu(self) -> Vec<f32> {
        match self {
            Self::Cpu(values) => values,
            Self::WebGpu(_) => unreachable!("a buffer stays on its device"),
        }
    }

    fn into_web_gpu(self) -> GpuBuffer {
        match self {
            Self::WebGpu(buffer) => buffer,
            Self::Cpu(_) => unreachable!("a buffer stays on its device"),
        }
    }
}

/// The same call on whichever it is, with this device's form of each argument.
macro_rules! on {
    ($device:expr, |$backend:ident, $get:ident, $take:ident| $call:expr) => {
        match $device {
            Device::Cpu($backend) => {
                let ($get, $take) = (DeviceBuffer::cpu, DeviceBuffer::into_cpu);
                let _ = ($get, $take);
                DeviceBuffer::Cpu($call)
            }
            Device::WebGpu($backend) => {
                let ($get, $take) = (DeviceBuffer::web_gpu, DeviceBuffer::into_web_gpu);
                let _ = ($get, $take);
                DeviceBuffer::WebGpu($call)
            }
        }
    };
}

impl Backend for Device {
    type Matrix = DeviceMatrix;
    type Buffer = DeviceBuffer;

    fn name(&self) -> String {
        match self {
            Self::Cpu(cpu) => cpu.name(),
            Self::WebGpu(gpu) => gpu.name(),
        }
    }

    fn matrix(&self, weights: &HostTensor) -> DeviceMatrix {
        match self {
            Self::Cpu(cpu) => DeviceMatrix::Cpu(cpu.matrix(weights)),
            Self::WebGpu(gpu) => DeviceMatrix::WebGpu(gpu.matrix(weights)),
        }
    }

    fn quantized_matrix(&self, weights: &QuantizedMatrix<'_>) -> DeviceMatrix {
        match self {
            Self::Cpu(cpu) => DeviceMatrix::Cpu(cpu.quantized_matrix(weights)),
            Self::WebGpu(gpu) => DeviceMatrix::WebGpu(gpu.quantized_matrix(weights)),
        }
    }

    fn vector(&self, weights: &HostTensor) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.vector(weights))
    }

    fn gather_rows(&self, table: &DeviceMatrix, ids: &[TokenId]) -> DeviceBuffer {
        match self {
            Self::Cpu(cpu) => DeviceBuffer::Cpu(cpu.gather_rows(table.cpu(), ids)),
            Self::WebGpu(gpu) => DeviceBuffer::WebGpu(gpu.gather_rows(table.web_gpu(), ids)),
        }
    }

    fn rms_norm(&self, x: &DeviceBuffer, gain: &DeviceBuffer, eps: f32) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.rms_norm(get(x), get(gain), eps))
    }

    fn matmul(&self, x: &DeviceBuffer, weights: &DeviceMatrix) -> DeviceBuffer {
        match self {
            Self::Cpu(cpu) => DeviceBuffer::Cpu(cpu.matmul(x.cpu(), weights.cpu())),
            Self::WebGpu(gpu) => DeviceBuffer::WebGpu(gpu.matmul(x.web_gpu(), weights.web_gpu())),
        }
    }

    fn rope(
        &self,
        x: &DeviceBuffer,
        n_heads: usize,
        d_head: usize,
        theta: f32,
        positions: Range<usize>,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.rope(get(x), n_heads, d_head, theta, positions))
    }

    fn wants_large_pieces(&self) -> bool {
        match self {
            Self::Cpu(cpu) => cpu.wants_large_pieces(),
            Self::WebGpu(gpu) => gpu.wants_large_pieces(),
        }
    }

    fn attn_scores(
        &self,
        q: &DeviceBuffer,
        k: &DeviceBuffer,
        shape: AttnShape,
        queries: Range<usize>,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.attn_scores(get(q), get(k), shape, queries))
    }

    fn softmax(&self, scores: &DeviceBuffer, shape: AttnShape, queries: Range<usize>) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.softmax(get(scores), shape, queries))
    }

    fn mix_values(
        &self,
        pattern: &DeviceBuffer,
        v: &DeviceBuffer,
        shape: AttnShape,
        queries: Range<usize>,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.mix_values(get(pattern), get(v), shape, queries))
    }

    fn target_mass(
        &self,
        pattern: &DeviceBuffer,
        shape: AttnShape,
        queries: Range<usize>,
        targets: &TargetKeys,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.target_mass(get(pattern), shape, queries, targets))
    }

    fn entropy_sum(&self, pattern: &DeviceBuffer, shape: AttnShape, queries: Range<usize>) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.entropy_sum(get(pattern), shape, queries))
    }

    fn argmax_keys(
        &self,
        pattern: &DeviceBuffer,
        shape: AttnShape,
        queries: Range<usize>,
        query: usize,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.argmax_keys(get(pattern), shape, queries, query))
    }

    fn edit_attention(
        &self,
        weights: DeviceBuffer,
        shape: AttnShape,
        queries: Range<usize>,
        head: usize,
        edit: &AttentionEdit,
        positions: Option<&[usize]>,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| {
            backend.edit_attention(take(weights), shape, queries, head, edit, positions)
        })
    }

    fn mean_of_rows(
        &self,
        x: &DeviceBuffer,
        row_len: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.mean_of_rows(get(x), row_len, rows, columns))
    }

    fn edit_rows(
        &self,
        x: DeviceBuffer,
        row_len: usize,
        rows: &[usize],
        columns: Range<usize>,
        edit: &RowEdit<DeviceBuffer>,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| {
            backend.edit_rows(take(x), row_len, rows, columns, &edit.with(|values| get(values).clone()))
        })
    }

    fn add(&self, x: &DeviceBuffer, y: &DeviceBuffer) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.add(get(x), get(y)))
    }

    fn subtract(&self, x: &DeviceBuffer, y: &DeviceBuffer) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.subtract(get(x), get(y)))
    }

    fn swiglu(&self, gate: &DeviceBuffer, linear: &DeviceBuffer) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.swiglu(get(gate), get(linear)))
    }

    fn concat(&self, blocks: Vec<DeviceBuffer>) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.concat(blocks.into_iter().map(take).collect()))
    }

    fn append(&self, rows: DeviceBuffer, more: &DeviceBuffer) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.append(take(rows), get(more)))
    }

    fn slice(&self, x: &DeviceBuffer, values: Range<usize>) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.slice(get(x), values))
    }

    fn n_values(&self, x: &DeviceBuffer) -> usize {
        match x {
            DeviceBuffer::Cpu(values) => values.len(),
            DeviceBuffer::WebGpu(buffer) => buffer.len(),
        }
    }

    fn read_logits(
        &self,
        logits: &DeviceBuffer,
        d_vocab: usize,
        read: &LogitRead<'_, DeviceBuffer>,
    ) -> DeviceBuffer {
        on!(self, |backend, get, take| backend.read_logits(get(logits), d_vocab, &read.with(get)))
    }

    fn download(
        &self,
        buffers: Vec<DeviceBuffer>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, DeviceError>> + use<> {
        let buffers = buffers.into_iter();
        // Asked for here, so that it is under way; waited for in whichever it is.
        let (cpu, gpu) = match self {
            Self::Cpu(cpu) => (Some(cpu.download(buffers.map(DeviceBuffer::into_cpu).collect())), None),
            Self::WebGpu(gpu) => {
                (None, Some(gpu.download(buffers.map(DeviceBuffer::into_web_gpu).collect())))
            }
        };
        async {
            match (cpu, gpu) {
                (Some(cpu), _) => cpu.await,
                (_, Some(gpu)) => gpu.await,
                (None, None) => unreachable!("it is one of them"),
            }
        }
    }
}
