//! `induction-2l`: an attention-only model with a previous-token head and the induction heads that it feeds.

mod card;
mod data;

use std::path::Path;

use anyhow::Context;
use candle_core::Result as CandleResult;
use headlight_core::engine::Engine;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::Recipe;
use crate::bundle::Card;
use crate::net::{self, Net, Sizes, noise};
use crate::tokenizer;
use crate::training::Schedule;
use data::Sampler;

const D_VOCAB: usize = 512;
/// Shorter documents are left out.
const LEAST_TOKENS: usize = 2 * SCHEDULE.long_row;
const SCHEDULE: Schedule =
    Schedule { steps: 4000, batch: 2048, lr: 3e-3, short_row: 32, long_row: 128, short_steps: 0.6 };

/// The recipe, with its texts.
pub struct Induction {
    texts: Vec<String>,
}

impl Induction {
    /// Reads the texts out of the unpacked package.
    pub fn new(package: Option<&Path>) -> anyhow::Result<Self> {
        let package = package.context("induction-2l is trained on texts; give --data")?;
        Ok(Self { texts: data::read_texts(package)? })
    }
}

impl Recipe for Induction {
    type Source = Sampler;

    const NAME: &str = "induction-2l";
    const INITIALIZATION: &str =
        "embeddings share a part; W_O starts as half of W_V transposed, W_U as the embeddings";
    const SCHEDULE: Schedule = SCHEDULE;

    fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        tokenizer::train(self.texts.iter().step_by(4).map(String::as_str), D_VOCAB)
    }

    fn source(&self, tokenizer: &Tokenizer, rng: ChaCha8Rng) -> anyhow::Result<Sampler> {
        Sampler::new(&self.texts, tokenizer, LEAST_TOKENS, rng)
    }

    /// Starts every head as a weak copier and every token with a shared part, which is what a head needs to look at
    /// a position whatever stands there. From plain noise, heads with a purpose take tens of millions of tokens.
    ///
    /// - Embeddings: normal, standard deviation 0.5, plus one normal vector shared by all tokens.
    /// - W_U: the embeddings without their mean, scaled by `2 / sqrt(d_model)`.
    /// - W_Q, W_K, W_V: normal, standard deviation `1 / sqrt(d_model)`, W_Q and W_K times 1.5; W_O: half W_V transposed.
    /// - Gains: 1.
    fn net(&self, d_vocab: usize, rng: &mut ChaCha8Rng) -> CandleResult<Net> {
        let sizes = Sizes { n_layers: 2, n_mlps: 0, n_heads: 4, d_head: 32, d_model: 128, d_mlp: 0, d_vocab };
        let (d, scale) = (sizes.d_model, 1.0 / (sizes.d_model as f64).sqrt());
        let embed = noise(rng, (d_vocab, d), 0.5)?.broadcast_add(&noise(rng, (1, d), 0.5)?)?;
        let unembed = (embed.broadcast_sub(&embed.mean_keepdim(0)?)? * (2.0 * scale))?;
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), embed)];
        for layer in 0..sizes.n_layers {
            let q = noise(rng, (d, d), 1.5 * scale)?;
            let k = noise(rng, (d, d), 1.5 * scale)?;
            let v = noise(rng, (d, d), scale)?;
            let o = (v.t()? * 0.5)?.contiguous()?;
            for (part, tensor) in [("q", q), ("k", k), ("v", v), ("o", o)] {
                tensors.push((format!("model.layers.{layer}.self_attn.{part}_proj.weight"), tensor));
            }
        }
        tensors.push(("lm_head.weight".to_owned(), unembed));
        tensors.extend(net::unit_gains(sizes)?);
        Net::new(sizes, tensors, Vec::new())
    }

    fn card(&self, engine: &Engine, source: &mut Sampler, run: Value) -> anyhow::Result<Card> {
        Ok(card::measure(engine, source)?.into_card(&run))
    }
}
