//! Tiny random Llama checkpoints, made from a seed: kilobytes, no download.

use std::collections::BTreeMap;

use headlight_core::engine::{Engine, Loading};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

/// Sizes of a tiny model.
#[derive(Clone, Copy, Debug)]
pub struct TinyConfig {
    /// Layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Head width.
    pub d_head: usize,
    /// Residual width.
    pub d_model: usize,
    /// MLP width; 0 for attention only.
    pub d_mlp: usize,
    /// Vocabulary.
    pub d_vocab: usize,
    /// Whether the unembedding is the embedding.
    pub tied: bool,
}

/// A checkpoint's files.
pub struct TinyCheckpoint {
    /// `config.json`.
    pub config: Vec<u8>,
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// `model.safetensors`.
    pub weights: Vec<u8>,
}

impl TinyConfig {
    /// Two layers with grouped heads and an MLP: enough for most tests.
    pub const SMALL: Self = Self {
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        d_head: 6,
        d_model: 20,
        d_mlp: 24,
        d_vocab: 50,
        tied: false,
    };

    /// The engine of [`Self::checkpoint`].
    ///
    /// # Panics
    /// When the checkpoint does not load, which only our own bug can cause.
    pub fn engine(self, seed: u64) -> Engine {
        crate::finished(self.loading(seed)).expect("a tiny checkpoint loads")
    }

    /// The checkpoint on its way into an engine.
    ///
    /// # Panics
    /// As [`Self::engine`].
    pub fn loading(self, seed: u64) -> Loading {
        let files = self.checkpoint(seed);
        let loading = Loading::from_folder(&files.config, &files.tokenizer, vec![files.weights], "tiny");
        loading.expect("a tiny checkpoint opens")
    }

    /// A checkpoint with random weights.
    ///
    /// # Panics
    /// When the files cannot be written as JSON or safetensors, which only our own bug can cause.
    pub fn checkpoint(self, seed: u64) -> TinyCheckpoint {
        let mut noise = Noise(seed);
        // Gains near 1; matrices of standard deviation about 0.3, so that patterns are far from uniform.
        self.checkpoint_of(
            |_, shape, _| {
                if shape.len() == 1 { 1.0 + 0.2 * noise.next() } else { 0.5 * noise.next() }
            },
        )
    }

    /// A checkpoint whose weights a function of name, shape and index makes.
    ///
    /// # Panics
    /// As [`Self::checkpoint`].
    pub fn checkpoint_of(self, mut weight: impl FnMut(&str, &[usize], usize) -> f32) -> TinyCheckpoint {
        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
        for (name, shape) in self.tensors() {
            let n: usize = shape.iter().product();
            let bytes = (0..n).flat_map(|index| weight(&name, &shape, index).to_le_bytes()).collect();
            tensors.insert(name, (shape, bytes));
        }
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shape and bytes agree"))
        });
        TinyCheckpoint {
            config: self.config_json(),
            tokenizer: self.tokenizer_json(),
            weights: safetensors::serialize(views, None).expect("the tensors are plain"),
        }
    }

    fn config_json(self) -> Vec<u8> {
        let config = json!({
            "model_type": "llama", "hidden_size": self.d_model, "intermediate_size": self.d_mlp,
            "num_hidden_layers": self.n_layers, "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads, "head_dim": self.d_head, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "vocab_size": self.d_vocab, "max_position_embeddings": 256,
            "tie_word_embeddings": self.tied, "hidden_act": "silu",
        });
        serde_json::to_vec(&config).expect("plain JSON")
    }

    /// A word-level tokenizer with the words `t0`, `t1`, ….
    fn tokenizer_json(self) -> Vec<u8> {
        let vocab: BTreeMap<String, usize> = (0..self.d_vocab).map(|id| (format!("t{id}"), id)).collect();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
        });
        serde_json::to_vec(&tokenizer).expect("plain JSON")
    }

    fn tensors(self) -> Vec<(String, Vec<usize>)> {
        let (d, d_q, d_kv) = (self.d_model, self.n_heads * self.d_head, self.n_kv_heads * self.d_head);
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.d_vocab, d]),
            ("model.norm.weight".to_owned(), vec![d]),
        ];
        if !self.tied {
            tensors.push(("lm_head.weight".to_owned(), vec![self.d_vocab, d]));
        }
        for layer in 0..self.n_layers {
            let mut push =
                |name: &str, shape| tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
            push("input_layernorm", vec![d]);
            push("self_attn.q_proj", vec![d_q, d]);
            push("self_attn.k_proj", vec![d_kv, d]);
            push("self_attn.v_proj", vec![d_kv, d]);
            push("self_attn.o_proj", vec![d, d_q]);
            if self.d_mlp > 0 {
                push("post_attention_layernorm", vec![d]);
                push("mlp.gate_proj", vec![self.d_mlp, d]);
                push("mlp.up_proj", vec![self.d_mlp, d]);
                push("mlp.down_proj", vec![d, self.d_mlp]);
            }
        }
        tensors
    }
}

/// Uniform numbers in -1..1 from SplitMix64 (Steele et al. 2014).
pub struct Noise(pub u64);

impl Noise {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "endless, and read one by one")]
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A token id below `d_vocab`.
    pub fn id(&mut self, d_vocab: usize) -> u32 {
        ((self.next() + 1.0) / 2.0 * d_vocab as f32) as u32 % d_vocab as u32
    }
}
