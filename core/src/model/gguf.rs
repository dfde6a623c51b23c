//! Reads Llama-family GGUF files: config and tensors. The container and every quantised type are candle's work; how the file's bytes
//! come is `stream`'s.
//!
//! GGUF stores the q and k rows of Llama models permuted for RoPE on interleaved pairs; they are put back, so that
//! everything above knows one RoPE only (half-split).

mod stream;

pub use stream::GgufStream;

use std::borrow::Cow;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};

use super::{BlockWeight, ModelConfig, ModelError, StoredTensor, Weight, check_shape};
use crate::tensor::HostTensor;
use crate::tensor::quantized::{QUANT_BLOCK, QuantKind, QuantizedMatrix};

/// A GGUF file's header.
pub struct GgufHeader {
    content: Content,
    config: ModelConfig,
    places: Vec<TensorPlace>,
}

/// Where in the file a tensor is, and how it is stored.
pub struct TensorPlace {
    /// Its place among [`ModelConfig::tensors`].
    pub index: usize,
    /// From its first byte to behind its last.
    pub bytes: Range<u64>,
    weight: Weight,
    info: TensorInfo,
}

impl GgufHeader {
    /// Reads the header from the first bytes of a file of `size_bytes`, and checks that every tensor the model needs is listed, in the
    /// right shape. `None` when these bytes do not say it all; when they are all that there is, that is an error.
    pub fn read(start: &[u8], size_bytes: u64) -> Result<Option<Self>, ModelError> {
        let is_all = start.len() as u64 >= size_bytes;
        let content = match Content::read(&mut Beginning { start, size_bytes, position: 0 }) {
            Ok(content) => content,
            Err(_) if !is_all => return Ok(None),
            Err(error) => {
                let told = format!("its header cannot be read: {}", first_line(&error));
                return Err(ModelError::Truncated(told));
            }
        };
        let config = read_config(&content)?;
        config.check()?;
        let mut places: Vec<TensorPlace> = (config.tensors().into_iter().enumerate())
            .map(|(index, weight)| place_of(&content, &config, index, weight))
            .collect::<Result<_, _>>()?;
        places.sort_by_key(|place| place.bytes.start);
        if let Some(pair) = places.windows(2).find(|pair| pair[1].bytes.start < pair[0].bytes.end) {
            return Err(ModelError::Overlap(tensor_name(pair[1].weight)));
        }
        Ok(Some(Self { content, config, places }))
    }

    /// The file's metadata, for the tokenizer.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { content: &self.content }
    }

    /// The model's sizes, already checked.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}

/// Where a tensor is, once its shape is seen to be the right one.
fn place_of(
    content: &Content,
    config: &ModelConfig,
    index: usize,
    weight: Weight,
) -> Result<TensorPlace, ModelError> {
    let name = tensor_name(weight);
    let Some(TensorInfo { shape, offset, ggml_dtype }) = content.tensor_infos.get(&name) else {
        return Err(ModelError::MissingTensor(name));
    };
    check_shape(&name, shape.dims(), weight, config)?;
    let n_values = shape.dims().iter().fold(1u64, |n, &extent| n.saturating_mul(extent as u64));
    let n_blocks = n_values / ggml_dtype.block_size() as u64;
    let start = content.tensor_data_offset.saturating_add(*offset);
    let end = start.saturating_add(n_blocks.saturating_mul(ggml_dtype.type_size() as u64));
    let info = TensorInfo { shape: shape.clone(), offset: 0, ggml_dtype: *ggml_dtype };
    Ok(TensorPlace { index, bytes: start..end, weight, info })
}

impl TensorPlace {
    /// The tensor of these bytes.
    pub fn read<'a>(&self, config: &ModelConfig, bytes: &'a [u8]) -> Result<StoredTensor<'a>, ModelError> {
        if let Some(matrix) = self.quantized(config, bytes) {
            return Ok(StoredTensor::Quantized(matrix));
        }
        let read = || {
            let tensor = self.info.read(&mut Cursor::new(bytes), 0, &Device::Cpu)?;
            tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()
        };
        let data = read().map_err(|error| {
            ModelError::Truncated(format!("tensor {}: {}", tensor_name(self.weight), first_line(&error)))
        })?;
        let data = match self.weight {
            Weight::Block(_, BlockWeight::Q | BlockWeight::K) => {
                unpermute_rows(&data, config.d_head, config.d_model)
            }
            _ => data,
        };
        Ok(StoredTensor::Full(HostTensor::new(self.weight.shape(config), data)))
    }

    /// The matrix as the file stores it, where the engine keeps it so.
    fn quantized<'a>(&self, config: &ModelConfig, rows: &'a [u8]) -> Option<QuantizedMatrix<'a>> {
        let kind = match self.info.ggml_dtype {
            GgmlDType::Q4_0 => QuantKind::Q4_0,
            GgmlDType::Q4_1 => QuantKind::Q4_1,
            GgmlDType::Q8_0 => QuantKind::Q8_0,
            _ => return None,
        };
        let [_, n_in] = *self.info.shape.dims() else { return None };
        if !n_in.is_multiple_of(QUANT_BLOCK) {
            return None;
        }
        let matrix = QuantizedMatrix { kind, n_in, rows: Cow::Borrowed(rows) };
        let row_bytes = matrix.row_bytes();
        match self.weight {
            Weight::Block(_, BlockWeight::Q | BlockWeight::K) => {
                let rows = Cow::Owned(unpermute_rows(rows, config.d_head, row_bytes));
                Some(QuantizedMatrix { rows, ..matrix })
            }
            _ => Some(matrix),
        }
    }
}

/// The first bytes of a file, to a reader that asks how long all of it is.
struct Beginning<'a> {
    start: &'a [u8],
    size_bytes: u64,
    position: u64,
}

impl Read for Beginning<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let position = usize::try_from(self.position).unwrap_or(usize::MAX).min(self.start.len());
        let n_read = (&self.start[position..]).read(buffer)?;
        self.position += n_read as u64;
        Ok(n_read)
    }
}

impl Seek for Beginning<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.size_bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
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
