//! Our forward against candle-transformers' own Llama, on tiny random checkpoints.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaEosToks};
use headlight_core::engine::{Engine, Loading};
use headlight_core::hooks::RunPlan;
use headlight_tests::tiny::{Noise, TinyCheckpoint, TinyConfig};
use headlight_tests::{max_difference, tolerance};

const CONFIGS: [TinyConfig; 3] = [
    TinyConfig {
        n_layers: 3,
        n_heads: 4,
        n_kv_heads: 2,
        d_head: 8,
        d_model: 32,
        d_mlp: 48,
        d_vocab: 61,
        tied: false,
    },
    TinyConfig {
        n_layers: 2,
        n_heads: 6,
        n_kv_heads: 1,
        d_head: 10,
        d_model: 60,
        d_mlp: 33,
        d_vocab: 40,
        tied: true,
    },
    TinyConfig {
        n_layers: 1,
        n_heads: 3,
        n_kv_heads: 3,
        d_head: 4,
        d_model: 12,
        d_mlp: 20,
        d_vocab: 17,
        tied: true,
    },
];

fn ours(files: &TinyCheckpoint) -> Engine {
    let loading = Loading::from_folder(&files.config, &files.tokenizer, vec![files.weights.clone()], "tiny");
    loading.and_then(Loading::finish).expect("the checkpoint loads")
}

fn theirs(config: TinyConfig, files: &TinyCheckpoint, ids: &[u32]) -> Vec<f32> {
    let llama_config = Config {
        hidden_size: config.d_model,
        intermediate_size: config.d_mlp,
        vocab_size: config.d_vocab,
        num_hidden_layers: config.n_layers,
        num_attention_heads: config.n_heads,
        num_key_value_heads: config.n_kv_heads,
        use_flash_attn: false,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        bos_token_id: None,
        eos_token_id: None::<LlamaEosToks>,
        rope_scaling: None,
        max_position_embeddings: 256,
        tie_word_embeddings: config.tied,
    };
    let weights = VarBuilder::from_buffered_safetensors(files.weights.clone(), DType::F32, &Device::Cpu);
    let model =
        Llama::load(weights.expect("safetensors"), &llama_config).expect("candle loads the checkpoint");
    let mut cache = Cache::new(false, DType::F32, &llama_config, &Device::Cpu).expect("a cache");
    let ids = Tensor::new(ids, &Device::Cpu).and_then(|ids| ids.unsqueeze(0)).expect("ids");
    let logits = model.forward(&ids, 0, &mut cache).expect("candle runs");
    logits.flatten_all().and_then(|logits| logits.to_vec1()).expect("logits")
}

#[test]
fn logits_agree_on_every_config_and_length() {
    for config in CONFIGS {
        // candle's Llama takes the head width from the residual width.
        if config.n_heads * config.d_head != config.d_model {
            continue;
        }
        for seed in 0..3 {
            let files = config.checkpoint(seed);
            let engine = ours(&files);
            let mut noise = Noise(seed + 100);
            for n_tokens in [1, 2, 5, 16, 17, 63] {
                let ids: Vec<u32> = (0..n_tokens).map(|_| noise.id(config.d_vocab)).collect();
                let got = engine.forward(&ids, &RunPlan::default()).expect("runs").logits;
                let difference = max_difference(&got.data, &theirs(config, &files, &ids));
                assert!(difference < tolerance::CANDLE_LOGITS, "{config:?}, {n_tokens} tokens: {difference}");
            }
        }
    }
}

#[test]
fn a_changed_weight_is_seen() {
    let config = CONFIGS[0];
    let (files, other) = (config.checkpoint(1), config.checkpoint(2));
    let ids = [1, 2, 3, 4];
    let got = ours(&files).forward(&ids, &RunPlan::default()).expect("runs").logits;
    assert!(max_difference(&got.data, &theirs(config, &other, &ids)) > 100.0 * tolerance::CANDLE_LOGITS);
}
