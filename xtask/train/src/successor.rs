//! `successor-2l`: a model with one head that turns an item of an ordinal sequence into the next.
//!
//! Left to itself a model this small spreads that step over its first block, its embeddings and several heads. So its
//! residual stream is wired: each part writes where the table says, the entries for everything else stay zero, only what
//! the heads of layer 1 write reaches the unembedding, and what they move is what the first MLP has made of a token,
//! whatever stands around it. What the parts write is learned.
//!
//! | dimensions | written by | read by |
//! |---|---|---|
//! | [`TOKENS`] | the embeddings | block 0; W_Q and W_K of layer 1 |
//! | [`PLACES`] | the heads of layer 0 | W_Q and W_K of layer 1 |
//! | [`MEANINGS`] | the MLP of layer 0 | W_Q, W_K and W_V of layer 1 |
//! | [`ANSWERS`] | the heads of layer 1 | the unembedding |

mod card;
mod rows;

use std::ops::Range;

use candle_core::{DType, Device, Result as CandleResult, Tensor};
use headlight_core::engine::Engine;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::Recipe;
use crate::bundle::Card;
use crate::net::{self, Named, Net, Sizes, noise};
use crate::tokenizer;
use crate::training::Schedule;
use rows::OrdinalRows;

const D_MODEL: usize = 192;
const D_MLP: usize = 256;
const TOKENS: Range<usize> = 0..56;
const PLACES: Range<usize> = 56..96;
const MEANINGS: Range<usize> = 96..144;
const ANSWERS: Range<usize> = 144..D_MODEL;

/// More than the words of the rows have use for.
const MAX_VOCAB: usize = 4096;

/// The recipe.
pub struct Successor;

impl Recipe for Successor {
    type Source = OrdinalRows;

    const NAME: &str = "successor-2l";
    const INITIALIZATION: &str = "normal noise, embeddings with a shared part; in layer 1, W_O starts as half of W_V \
                                  transposed, W_U as what the first MLP makes of the embeddings";
    const SCHEDULE: Schedule =
        Schedule { steps: 2000, batch: 1024, lr: 3e-3, short_row: 32, long_row: 96, short_steps: 0.6 };

    fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        let words = rows::single_tokens();
        tokenizer::train(words.iter().map(String::as_str), MAX_VOCAB)
    }

    fn source(&self, tokenizer: &Tokenizer, rng: ChaCha8Rng) -> anyhow::Result<OrdinalRows> {
        OrdinalRows::new(tokenizer, rng)
    }

    /// - Embeddings: normal, standard deviation 0.5, plus one normal vector shared by all tokens.
    /// - W_Q, W_K: normal, standard deviation `1.5 / sqrt(d_model)`.
    /// - Layer 0: W_V, W_O and the MLP normal, with the standard deviation that keeps their input's size.
    /// - Layer 1: W_V normal; W_O half of its part that reads the MLP, transposed.
    /// - W_U: what the MLP makes of the embeddings without its mean, standard deviation `1 / sqrt(n)` over its n
    ///   dimensions. So a head of layer 1 starts as a weak copier.
    /// - Gains: 1.
    fn net(&self, d_vocab: usize, rng: &mut ChaCha8Rng) -> CandleResult<Net> {
        let sizes =
            Sizes { n_layers: 2, n_mlps: 1, n_heads: 3, d_head: 32, d_model: D_MODEL, d_mlp: D_MLP, d_vocab };
        let d_heads = sizes.n_heads * sizes.d_head;
        let std_for = |n_in: usize| 1.0 / (n_in as f64).sqrt();
        let embed = noise(rng, (d_vocab, D_MODEL), 0.5)?.broadcast_add(&noise(rng, (1, D_MODEL), 0.5)?)?;
        let embed = embed.broadcast_mul(&mask(TOKENS)?)?;
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), embed.clone())];
        for layer in 0..sizes.n_layers {
            let q = noise(rng, (d_heads, D_MODEL), 1.5 * std_for(D_MODEL))?;
            let k = noise(rng, (d_heads, D_MODEL), 1.5 * std_for(D_MODEL))?;
            let (v, o) = if layer == 0 {
                let o = noise(rng, (D_MODEL, d_heads), std_for(d_heads))?;
                (noise(rng, (d_heads, D_MODEL), std_for(D_MODEL))?, o)
            } else {
                let v = noise(rng, (d_heads, D_MODEL), std_for(MEANINGS.len()))?;
                let o = (moved_to_answers(&v)? * 0.5)?.t()?.contiguous()?;
                (v, o)
            };
            for (part, tensor) in [("q", q), ("k", k), ("v", v), ("o", o)] {
                tensors.push((format!("model.layers.{layer}.self_attn.{part}_proj.weight"), tensor));
            }
        }
        for (part, shape) in net::mlp_shapes(D_MODEL, D_MLP) {
            let n_in = if part == "down" { D_MLP } else { TOKENS.len() };
            let name = format!("model.layers.0.mlp.{part}_proj.weight");
            tensors.push((name, noise(rng, shape, std_for(n_in))?));
        }
        tensors.extend(net::unit_gains(sizes)?);
        tensors.push((UNEMBED.to_owned(), Tensor::zeros((d_vocab, D_MODEL), DType::F32, &Device::Cpu)?));
        let draft = Net::new(sizes, tensors.clone(), masks()?)?;
        let last = tensors.last_mut().expect("it was just pushed");
        last.1 = first_unembed(&draft.mlp_out(&embed, 0)?)?;
        Net::new(sizes, tensors, masks()?)
    }

    fn card(&self, engine: &Engine, source: &mut OrdinalRows, run: Value) -> anyhow::Result<Card> {
        Ok(card::measure(engine, source)?.into_card(&run))
    }
}

const UNEMBED: &str = "lm_head.weight";

/// The wiring.
fn masks() -> CandleResult<Vec<Named>> {
    let column = |range: Range<usize>| mask(range)?.reshape((D_MODEL, 1));
    let masks = [
        ("model.embed_tokens.weight", mask(TOKENS)?),
        ("model.layers.0.self_attn.o_proj.weight", column(PLACES)?),
        ("model.layers.0.post_attention_layernorm.weight", mask(TOKENS)?),
        ("model.layers.0.mlp.down_proj.weight", column(MEANINGS)?),
        ("model.layers.1.self_attn.v_proj.weight", mask(MEANINGS)?),
        ("model.layers.1.self_attn.o_proj.weight", column(ANSWERS)?),
        ("model.norm.weight", mask(ANSWERS)?),
        (UNEMBED, mask(ANSWERS)?),
    ];
    Ok(masks.map(|(name, mask)| (name.to_owned(), mask)).to_vec())
}

/// 1 within `range` and 0 elsewhere, `[d_model]`.
fn mask(range: Range<usize>) -> CandleResult<Tensor> {
    let values = (0..D_MODEL).map(|i| if range.contains(&i) { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
    Tensor::from_vec(values, D_MODEL, &Device::Cpu)
}

/// `[n, d_model]` with the columns of [`MEANINGS`] at [`ANSWERS`], and zero elsewhere.
fn moved_to_answers(x: &Tensor) -> CandleResult<Tensor> {
    let meanings = x.narrow(1, MEANINGS.start, MEANINGS.len())?;
    let zeros = Tensor::zeros((x.dim(0)?, ANSWERS.start), DType::F32, &Device::Cpu)?;
    Tensor::cat(&[zeros, meanings], 1)
}

/// W_U from what the first MLP writes for each token, `[d_vocab, d_model]`.
fn first_unembed(mlp_out: &Tensor) -> CandleResult<Tensor> {
    let centred = moved_to_answers(&mlp_out.broadcast_sub(&mlp_out.mean_keepdim(0)?)?)?;
    let n_entries = (centred.dim(0)? * ANSWERS.len()) as f64;
    let std = (f64::from(centred.sqr()?.sum_all()?.to_scalar::<f32>()?) / n_entries).sqrt();
    centred / (std * (ANSWERS.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn only_the_last_layers_heads_reach_the_logits() -> CandleResult<()> {
        let net = Successor.net(300, &mut ChaCha8Rng::seed_from_u64(5))?;
        let ids = Tensor::new(&[[0u32, 7, 8, 7]], &Device::Cpu)?;
        let spread = |logits: Tensor| logits.abs()?.max_all()?.to_scalar::<f32>();
        assert!(spread(net.logits(&ids)?)? > 0.1);
        let (sizes, mut tensors) = (net.sizes(), net.tensors()?);
        tensors.retain(|(name, _)| !name.contains("layers.1.mlp") && !name.contains("layers.1.post"));
        for (name, tensor) in &mut tensors {
            if name == "model.layers.1.self_attn.o_proj.weight" {
                *tensor = tensor.zeros_like()?;
            }
        }
        let without = Net::new(sizes, tensors, masks()?)?;
        assert_eq!(spread(without.logits(&ids)?)?, 0.0);
        Ok(())
    }
}
