//! Reads Llama-family GGUF files: config and tensors. The container and every quantised type are candle's work.
//!
//! GGUF stores the q and k rows of Llama models permuted for RoPE on interleaved pairs; they are put back, so that
//! everything above knows one RoPE only (half-split).

use std::borrow::Cow;
use std::io::Cursor;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use super::{BlockWeight, Checkpoint, ModelConfig, ModelError, Weight, check_shape};
use crate::tensor::HostTensor;
use crate::tensor::quantized::{QuantKind, QuantizedMatrix};

/// An opened GGUF file: its bytes and parsed header.
pub struct GgufCheckpoint {
    bytes: Vec<u8>,
    content: Content,
    config: ModelConfig,
}

impl GgufCheckpoint {
    /// Parses the header and checks that every tensor the model needs is there, in the right shape and whole.
    pub fn open(bytes: Vec<u8>) -> Result<Self, ModelError> {
        refuse_html(&bytes)?;
        if !bytes.starts_with(b"GGUF") {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(4)]).into_owned();
            return Err(ModelError::NotGguf(format!("it starts with {start:?} instead of \"GGUF\"")));
        }
        let content = Content::read(&mut Cursor::new(&bytes)).map_err(|error| {
            ModelError::Truncated(format!("its header cannot be read: {}", first_line(&error)))
        })?;
        let config = read_config(&content)?;
        config.check()?;
        let checkpoint = Self { bytes, content, config };
        for weight in checkpoint.config.tensors() {
            checkpoint.check_tensor(weight)?;
        }
        Ok(checkpoint)
    }

    /// The file's metadata, for the tokenizer.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { content: &self.content }
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn check_tensor(&self, weight: Weight) -> Result<(), ModelError> {
        let name = tensor_name(weight);
        let info =
            self.content.tensor_infos.get(&name).ok_or_else(|| ModelError::MissingTensor(name.clone()))?;
        check_shape(&name, info.shape.dims(), weight, &self.config)?;
        let size = info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size();
        let end = self.content.tensor_data_offset.saturating_add(info.offset).saturating_add(size as u64);
        if end > self.bytes.len() as u64 {
            return Err(ModelError::Truncated(format!(
                "tensor {name} ends at byte {end}, the file at {}",
                self.bytes.len()
            )));
        }
        Ok(())
    }
}

impl Checkpoint for GgufCheckpoint {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn tensor(&self, weight: Weight) -> Result<HostTensor, ModelError> {
        let name = tensor_name(weight);
        let read = || {
            let tensor = self.content.tensor(&mut Cursor::new(&self.bytes), &name, &Device::Cpu)?;
            tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()
        };
        let data = read()
            .map_err(|error| ModelError::Truncated(format!("tensor {name}: {}", first_line(&error))))?;
        let data = match weight {
            Weight::Block(_, BlockWeight::Q | BlockWeight::K) => {
                unpermute_rows(&data, self.config.d_head, self.config.d_model)
            }
            _ => data,
        };
        Ok(HostTensor::new(weight.shape(&self.config), data))
    }

    fn quantized(&self, weight: Weight) -> Option<QuantizedMatrix<'_>> {
        let info = self.content.tensor_infos.get(&tensor_name(weight))?;
        let kind = match info.ggml_dtype {
            GgmlDType::Q4_0 => QuantKind::Q4_0,
            GgmlDType::Q4_1 => QuantKind::Q4_1,
            GgmlDType::Q8_0 => QuantKind::Q8_0,
            _ => return None,
        };
        let [n_out, n_in] = *info.shape.dims() else { return None };
        let start = usize::try_from(self.content.tensor_data_offset + info.offset).ok()?;
        let matrix = QuantizedMatrix { kind, n_in, rows: Cow::Borrowed(&self.bytes[start..]) };
        let row_bytes = matrix.row_bytes();
        let rows = &self.bytes[start..][..n_out * row_bytes];
        let rows = match weight {
            Weight::Block(_, BlockWeight::Q | BlockWeight::K) => {
                Cow::Owned(unpermute_rows(rows, self.config.d_head, row_bytes))
            }
            _ => Cow::Borrowed(rows),
        };
        Some(QuantizedMatrix { rows, ..matrix })
    }
}

/// Typed access to GGUF metadata.
pub struct Metadata<'a> {
    content: &'a Content,
}

impl Metadata<'_> {
    /// A string.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number of any width.
    pub fn number(&self, key: &str) -> Option<usize> {
        as_number(self.content.metadata.get(key)?)
    }

    /// A float of either width.
    pub fn float(&self, key: &str) -> Option<f32> {
        match self.content.metadata.get(key)? {
            Value::F32(value) => Some(*value),
            Value::F64(value) => Some(*value as f32),
            _ => None,
        }
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.content.metadata.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A list of strings; `None` when absent or of mixed types.
    pub fn strings(&self, key: &str) -> Option<Vec<&str>> {
        let Value::Array(values) = self.content.metadata.get(key)? else { return None };
        values
            .iter()
            .map(|value| match value {
                Value::String(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// A list of whole numbers; `None` when absent or of mixed types.
    pub fn numbers(&self, key: &str) -> Option<Vec<usize>> {
        let Value::Array(values) = self.content.metadata.get(key)? else { return None };
        values.iter().map(as_number).collect()
    }
}

fn as_number(value: &Value) -> Option<usize> {
    let wide = match value {
        Value::U8(v) => u64::from(*v),
        Value::U16(v) => u64::from(*v),
        Value::U32(v) => u64::from(*v),
        Value::U64(v) => *v,
        Value::I8(v) => u64::try_from(*v).ok()?,
        Value::I16(v) => u64::try_from(*v).ok()?,
        Value::I32(v) => u64::try_from(*v).ok()?,
        Value::I64(v) => u64::try_from(*v).ok()?,
        _ => return None,
    };
    usize::try_from(wide).ok()
}

/// candle's errors carry a backtrace below their first line.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A saved web page is the commonest wrong file: name it as such.
fn refuse_html(bytes: &[u8]) -> Result<(), ModelError> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).to_lowercase();
    let start = start.trim_start();
    if start.starts_with("<!doctype") || start.starts_with("<html") {
        return Err(ModelError::Html);
    }
    Ok(())
}

fn read_config(content: &Content) -> Result<ModelConfig, ModelError> {
    let metadata = Metadata { content };
    let family = metadata
        .string("general.architecture")
        .ok_or_else(|| ModelError::MissingConfig("general.architecture".to_owned()))?;
    if family != "llama" {
        return Err(ModelError::Family(family.to_owned()));
    }
    let number = |key: &str| {
        let key = format!("{family}.{key}");
        metadata.number(&key).ok_or(ModelError::MissingConfig(key))
    };
    if let Some(scaling) = metadata.string("llama.rope.scaling.type").filter(|kind| *kind != "none") {
        return Err(ModelError::Config(format!("its RoPE scaling \"{scaling}\" is not supported yet")));
    }
    let d_model = number("embedding_length")?;
    let n_heads = number("attention.head_count")?;
    let d_head = number("attention.key_length").unwrap_or(d_model / n_heads.max(1));
    let rotary = number("rope.dimension_count").unwrap_or(d_head);
    if rotary != d_head {
        return Err(ModelError::Config(format!("RoPE turns {rotary} of {d_head} dimensions")));
    }
    let embed = content
        .tensor_infos
        .get("token_embd.weight")
        .ok_or_else(|| ModelError::MissingTensor("token_embd.weight".to_owned()))?;
    Ok(ModelConfig {
        family: family.to_owned(),
        name: metadata.string("general.name").map(str::to_owned),
        n_layers: number("block_count")?,
        n_heads,
        n_kv_heads: number("attention.head_count_kv").unwrap_or(n_heads),
        d_model,
        d_head,
        d_mlp: number("feed_forward_length")?,
        d_vocab: embed.shape.dims().first().copied().unwrap_or(0),
        n_ctx: number("context_length")?,
        rms_eps: metadata
            .float("llama.attention.layer_norm_rms_epsilon")
            .ok_or_else(|| ModelError::MissingConfig("llama.attention.layer_norm_rms_epsilon".to_owned()))?,
        rope_theta: metadata.float("llama.rope.freq_base").unwrap_or(10_000.0),
        tied_embeddings: !content.tensor_infos.contains_key("output.weight"),
    })
}

fn tensor_name(weight: Weight) -> String {
    match weight {
        Weight::Embed => "token_embd.weight".to_owned(),
        Weight::FinalNorm => "output_norm.weight".to_owned(),
        Weight::Unembed => "output.weight".to_owned(),
        Weight::Block(layer, weight) => {
            let name = match weight {
                BlockWeight::AttnNorm => "attn_norm",
                BlockWeight::Q => "attn_q",
                BlockWeight::K => "attn_k",
                BlockWeight::V => "attn_v",
                BlockWeight::O => "attn_output",
                BlockWeight::MlpNorm => "ffn_norm",
                BlockWeight::Gate => "ffn_gate",
                BlockWeight::Up => "ffn_up",
                BlockWeight::Down => "ffn_down",
            };
            format!("blk.{layer}.{name}.weight")
        }
    }
}

/// Puts interleaved rows of `row_len` items back: row `2i + half` of a head in the file is row `half * d_head/2 + i` of the model.
fn unpermute_rows<T: Copy>(items: &[T], d_head: usize, row_len: usize) -> Vec<T> {
    let mut rows = Vec::with_capacity(items.len());
    for head in items.chunks_exact(d_head * row_len) {
        for half in 0..2 {
            for pair in 0..d_head / 2 {
                let row = 2 * pair + half;
                rows.extend_from_slice(&head[row * row_len..(row + 1) * row_len]);
            }
        }
    }
    rows
}
