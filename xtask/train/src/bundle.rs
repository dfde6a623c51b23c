//! A model's folder: written from what was trained, read back by Headlight's own engine.

use std::collections::HashMap;
use std::path::Path;

use candle_core::DType;
use headlight_core::engine::{Engine, Loading};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::net::{self, Net};
use crate::tokenizer::BOS_ID;

/// What a card says, for people in a line and in Markdown, and for programs.
pub struct Card {
    /// One line for whoever watches the training.
    pub summary: String,
    /// The card.
    pub markdown: String,
    /// The same numbers.
    pub json: Value,
}

/// Writes config, tokenizer and f16 weights.
pub fn write_model(out: &Path, name: &str, net: &Net, tokenizer: &Tokenizer) -> anyhow::Result<()> {
    std::fs::create_dir_all(out)?;
    let sizes = net.sizes();
    let config = json!({
        "model_type": "llama", "_name_or_path": name,
        "hidden_size": sizes.d_model, "intermediate_size": sizes.d_mlp, "num_hidden_layers": sizes.n_layers,
        "num_attention_heads": sizes.n_heads, "num_key_value_heads": sizes.n_heads, "head_dim": sizes.d_head,
        "rms_norm_eps": net::RMS_EPS, "rope_theta": net::ROPE_THETA, "vocab_size": sizes.d_vocab,
        "max_position_embeddings": 512, "tie_word_embeddings": false, "hidden_act": "silu",
        "bos_token_id": BOS_ID, "torch_dtype": "float16",
    });
    std::fs::write(out.join("config.json"), serde_json::to_string_pretty(&config)? + "\n")?;
    tokenizer.save(out.join("tokenizer.json"), false).map_err(anyhow::Error::msg)?;
    let mut tensors = HashMap::new();
    for (name, tensor) in net.tensors()? {
        tensors.insert(name, tensor.to_dtype(DType::F16)?);
    }
    candle_core::safetensors::save(&tensors, out.join("model.safetensors"))?;
    Ok(())
}

/// The written model in Headlight's own engine.
pub fn load(out: &Path, name: &str) -> anyhow::Result<Engine> {
    let read = |name: &str| std::fs::read(out.join(name));
    let (config, tokenizer) = (read("config.json")?, read("tokenizer.json")?);
    let loading = Loading::from_folder(&config, &tokenizer, vec![read("model.safetensors")?], name)?;
    Ok(loading.finish()?)
}

/// Writes both forms of a card.
pub fn write_card(out: &Path, card: &Card) -> anyhow::Result<()> {
    std::fs::write(out.join("card.md"), &card.markdown)?;
    std::fs::write(out.join("card.json"), serde_json::to_string_pretty(&card.json)? + "\n")?;
    Ok(())
}
