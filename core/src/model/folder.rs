//! Reads Llama-family checkpoints as Hugging Face lays them out: `config.json` and safetensors shards.

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{BlockWeight, ModelConfig, ModelError, Weight, check_shape};
use crate::ids::TokenId;
use crate::tensor::HostTensor;

/// A checkpoint held as its files' bytes.
pub struct FolderCheckpoint {
    shards: Vec<Vec<u8>>,
    config: ModelConfig,
    bos_id: Option<TokenId>,
}

impl FolderCheckpoint {
    /// Parses the config and checks that every tensor the model needs is there, in the right shape.
    pub fn open(config_json: &[u8], shards: Vec<Vec<u8>>) -> Result<Self, ModelError> {
        let raw: LlamaConfig =
            serde_json::from_slice(config_json).map_err(|error| ModelError::ConfigJson(error.to_string()))?;
        let bos_id = raw.bos_token_id;
        let config = raw.into_config()?;
        config.check()?;
        let checkpoint = Self { shards, config, bos_id };
        for weight in checkpoint.config.tensors() {
            let name = tensor_name(weight);
            checkpoint.find(&name, |_, shape, _| check_shape(&name, shape, weight, &checkpoint.config))??;
        }
        Ok(checkpoint)
    }

    /// The BOS id that `config.json` names.
    pub fn bos_id(&self) -> Option<TokenId> {
        self.bos_id
    }

    /// The shards' bytes, in order.
    pub fn shards(&self) -> &[Vec<u8>] {
        &self.shards
    }

    /// Calls `read` with number type, shape and bytes of a tensor.
    fn find<R>(&self, name: &str, read: impl FnOnce(Dtype, &[usize], &[u8]) -> R) -> Result<R, ModelError> {
        for (index, shard) in self.shards.iter().enumerate() {
            let file = SafeTensors::deserialize(shard).map_err(|error| ModelError::NotSafetensors {
                file: format!("weights file {}", index + 1),
                reason: error.to_string(),
            })?;
            if let Ok(view) = file.tensor(name) {
                return Ok(read(view.dtype(), view.shape(), view.data()));
            }
        }
        Err(ModelError::MissingTensor(name.to_owned()))
    }

    /// Its sizes, already checked.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Reads one tensor as f32.
    pub fn tensor(&self, weight: Weight) -> Result<HostTensor, ModelError> {
        let name = tensor_name(weight);
        let data = self.find(&name, |dtype, _, bytes| to_f32(&name, dtype, bytes))??;
        Ok(HostTensor::new(weight.shape(&self.config), data))
    }
}

/// The keys of Hugging Face's `LlamaConfig` that matter.
#[derive(Deserialize)]
struct LlamaConfig {
    model_type: Option<String>,
    #[serde(rename = "_name_or_path")]
    name: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<serde_json::Value>,
    vocab_size: usize,
    max_position_embeddings: usize,
    tie_word_embeddings: Option<bool>,
    bos_token_id: Option<TokenId>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
}

/// Where newer configs keep RoPE's base.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
}

impl LlamaConfig {
    fn into_config(self) -> Result<ModelConfig, ModelError> {
        let family = self.model_type.unwrap_or_default();
        if family != "llama" {
            return Err(ModelError::Family(family));
        }
        if self.attention_bias == Some(true) || self.mlp_bias == Some(true) {
            return Err(ModelError::Config("biases in Llama blocks are not supported yet".to_owned()));
        }
        if let Some(act) = self.hidden_act.filter(|act| act != "silu") {
            return Err(ModelError::Config(format!("its activation \"{act}\" is not SiLU")));
        }
        let rope_type = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_deref());
        if self.rope_scaling.is_some_and(|scaling| !scaling.is_null())
            || rope_type.is_some_and(|kind| kind != "default")
        {
            return Err(ModelError::Config("RoPE scaling is not supported yet".to_owned()));
        }
        let rope_theta = self.rope_theta.or(self.rope_parameters.and_then(|rope| rope.rope_theta));
        Ok(ModelConfig {
            family,
            name: self.name.filter(|name| !name.is_empty()),
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            d_model: self.hidden_size,
            d_head: self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1)),
            d_mlp: self.intermediate_size,
            d_vocab: self.vocab_size,
            n_ctx: self.max_position_embeddings,
            rms_eps: self.rms_norm_eps,
            rope_theta: rope_theta.unwrap_or(10_000.0),
            tied_embeddings: self.tie_word_embeddings.unwrap_or(false),
        })
    }
}

fn tensor_name(weight: Weight) -> String {
    match weight {
        Weight::Embed => "model.embed_tokens.weight".to_owned(),
        Weight::FinalNorm => "model.norm.weight".to_owned(),
        Weight::Unembed => "lm_head.weight".to_owned(),
        Weight::Block(layer, weight) => {
            let name = match weight {
                BlockWeight::AttnNorm => "input_layernorm",
                BlockWeight::Q => "self_attn.q_proj",
                BlockWeight::K => "self_attn.k_proj",
                BlockWeight::V => "self_attn.v_proj",
                BlockWeight::O => "self_attn.o_proj",
                BlockWeight::MlpNorm => "post_attention_layernorm",
                BlockWeight::Gate => "mlp.gate_proj",
                BlockWeight::Up => "mlp.up_proj",
                BlockWeight::Down => "mlp.down_proj",
            };
            format!("model.layers.{layer}.{name}.weight")
        }
    }
}

fn to_f32(name: &str, dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>, ModelError> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        Dtype::F16 => Ok(halves().map(|b| half::f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Ok(halves().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()),
        other => Err(ModelError::Dtype { name: name.to_owned(), dtype: format!("{other:?}") }),
    }
}
