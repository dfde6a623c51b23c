//! The attention-only transformer in candle, for training: the same function as `headlight-core`'s forward pass for
//! a Llama-family config with `intermediate_size` 0.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// Sizes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Layers.
    pub n_layers: usize,
    /// Heads a layer.
    pub n_heads: usize,
    /// Head width.
    pub d_head: usize,
    /// Vocabulary.
    pub d_vocab: usize,
}

/// RMSNorm's epsilon.
pub const RMS_EPS: f64 = 1e-5;
/// RoPE's base: low, so that most dimensions tell neighbouring positions apart.
pub const ROPE_THETA: f64 = 100.0;

impl Sizes {
    /// Residual width.
    pub fn d_model(self) -> usize {
        self.n_heads * self.d_head
    }
}

/// The weights by Hugging Face name, in a fixed order.
pub struct Net {
    sizes: Sizes,
    weights: Vec<(String, Var)>,
}

impl Net {
    /// Starts every head as a weak copier and every token with a shared part, which is what a head needs to look at
    /// a position whatever stands there. From plain noise, heads with a purpose take tens of millions of tokens.
    ///
    /// - Embeddings: normal, standard deviation 0.5, plus one normal vector shared by all tokens.
    /// - W_U: the embeddings without their mean, scaled by `2 / sqrt(d_model)`.
    /// - W_Q, W_K, W_V: normal, standard deviation `1 / sqrt(d_model)`, W_Q and W_K times 1.5; W_O: half W_V transposed.
    /// - Gains: 1.
    pub fn init(sizes: Sizes, rng: &mut ChaCha8Rng) -> Result<Self> {
        let (d, scale) = (sizes.d_model(), 1.0 / (sizes.d_model() as f64).sqrt());
        let mut noise = |shape: (usize, usize), std: f64| -> Result<Tensor> {
            let values = (0..shape.0 * shape.1).map(|_| (normal(rng) * std) as f32).collect::<Vec<_>>();
            Tensor::from_vec(values, shape, &Device::Cpu)
        };
        let embed = noise((sizes.d_vocab, d), 0.5)?.broadcast_add(&noise((1, d), 0.5)?)?;
        let unembed = (embed.broadcast_sub(&embed.mean_keepdim(0)?)? * (2.0 * scale))?;
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), embed)];
        for layer in 0..sizes.n_layers {
            let (q, k, v) = (noise((d, d), 1.5 * scale)?, noise((d, d), 1.5 * scale)?, noise((d, d), scale)?);
            let o = (v.t()? * 0.5)?.contiguous()?;
            for (part, tensor) in [("q", q), ("k", k), ("v", v), ("o", o)] {
                tensors.push((format!("model.layers.{layer}.self_attn.{part}_proj.weight"), tensor));
            }
        }
        tensors.push(("lm_head.weight".to_owned(), unembed));
        let norms = (0..sizes.n_layers).map(|layer| format!("model.layers.{layer}.input_layernorm.weight"));
        for name in norms.chain(["model.norm.weight".to_owned()]) {
            tensors.push((name, Tensor::ones(d, DType::F32, &Device::Cpu)?));
        }
        let weights = tensors.into_iter().map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)));
        Ok(Self { sizes, weights: weights.collect::<Result<_>>()? })
    }

    /// Every weight, for the optimiser.
    pub fn vars(&self) -> Vec<Var> {
        self.weights.iter().map(|(_, var)| var.clone()).collect()
    }

    /// Every weight with its name, in order.
    pub fn weights(&self) -> &[(String, Var)] {
        &self.weights
    }

    fn weight(&self, name: &str) -> &Tensor {
        let found = self.weights.iter().find(|(known, _)| known == name);
        found.expect("every name is made by `init`").1.as_tensor()
    }

    /// Logits `[row, pos, d_vocab]` of `ids`, `[row, pos]`.
    pub fn logits(&self, ids: &Tensor) -> Result<Tensor> {
        let (n_rows, n) = ids.dims2()?;
        let Sizes { n_layers, n_heads, d_head, .. } = self.sizes;
        let d = self.sizes.d_model();
        let (cos, sin) = rope_tables(n, d_head)?;
        let mask = causal_mask(n)?;
        let embed = self.weight("model.embed_tokens.weight");
        let mut resid = embed.index_select(&ids.flatten_all()?, 0)?.reshape((n_rows, n, d))?;
        for layer in 0..n_layers {
            let x = rms_norm(&resid, self.weight(&format!("model.layers.{layer}.input_layernorm.weight")))?;
            let project = |part: &str| -> Result<Tensor> {
                let w = self.weight(&format!("model.layers.{layer}.self_attn.{part}_proj.weight"));
                let y = x.reshape((n_rows * n, d))?.matmul(&w.t()?)?;
                y.reshape((n_rows, n, n_heads, d_head))?.transpose(1, 2)?.contiguous()
            };
            let q = rope(&project("q")?, &cos, &sin)?;
            let k = rope(&project("k")?, &cos, &sin)?;
            let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (d_head as f64).sqrt())?;
            let pattern = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?;
            let z = pattern.matmul(&project("v")?)?.transpose(1, 2)?.contiguous()?;
            let w_o = self.weight(&format!("model.layers.{layer}.self_attn.o_proj.weight"));
            let out = z.reshape((n_rows * n, d))?.matmul(&w_o.t()?)?.reshape((n_rows, n, d))?;
            resid = (resid + out)?;
        }
        let x = rms_norm(&resid, self.weight("model.norm.weight"))?.reshape((n_rows * n, d))?;
        x.matmul(&self.weight("lm_head.weight").t()?)?.reshape((n_rows, n, self.sizes.d_vocab))
    }
}

fn rms_norm(x: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + RMS_EPS)?.sqrt()?)?.broadcast_mul(gain)
}

/// Half-split rotary embedding of `[row, head, pos, d_head]`.
fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

fn rope_tables(n: usize, d_head: usize) -> Result<(Tensor, Tensor)> {
    let half = d_head / 2;
    let angle = |position: usize, i: usize| {
        let frequency = ROPE_THETA.powf(-((2 * i) as f64) / d_head as f64) as f32;
        position as f32 * frequency
    };
    let angles: Vec<f32> = (0..n).flat_map(|position| (0..half).map(move |i| angle(position, i))).collect();
    let angles = Tensor::from_vec(angles, (n, half), &Device::Cpu)?;
    Ok((angles.cos()?, angles.sin()?))
}

fn causal_mask(n: usize) -> Result<Tensor> {
    let hidden = |i: usize, j: usize| if j > i { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..n).flat_map(|i| (0..n).map(move |j| hidden(i, j))).collect();
    Tensor::from_vec(mask, (n, n), &Device::Cpu)
}

/// A standard normal number by Box and Muller's method.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / f64::from(u32::MAX).mul_add(1.0, 1.0);
    let (a, b) = (uniform(), uniform());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng as _;

    const SIZES: Sizes = Sizes { n_layers: 2, n_heads: 2, d_head: 4, d_vocab: 11 };

    fn loss(net: &Net) -> Result<Tensor> {
        let ids = Tensor::new(&[[1u32, 4, 7, 1, 4, 9, 2, 1]], &Device::Cpu)?;
        let targets = Tensor::new(&[[4u32], [7], [1], [4], [9], [2], [1], [4]], &Device::Cpu)?;
        let logprobs = candle_nn::ops::log_softmax(&net.logits(&ids)?.flatten(0, 1)?, D::Minus1)?;
        logprobs.gather(&targets, 1)?.sum_all()?.neg()
    }

    #[test]
    fn gradients_agree_with_finite_differences() -> Result<()> {
        let net = Net::init(SIZES, &mut ChaCha8Rng::seed_from_u64(3))?;
        let grads = loss(&net)?.backward()?;
        for (name, var) in net.weights() {
            let weight = var.as_tensor();
            let grad =
                grads.get(weight).expect("every weight has a gradient").flatten_all()?.to_vec1::<f32>()?;
            let values = weight.flatten_all()?.to_vec1::<f32>()?;
            let largest =
                (0..values.len()).max_by(|&a, &b| grad[a].abs().total_cmp(&grad[b].abs())).expect("values");
            let at = |shift: f32| -> Result<f32> {
                let mut moved = values.clone();
                moved[largest] += shift;
                var.set(&Tensor::from_vec(moved, weight.shape().clone(), &Device::Cpu)?)?;
                loss(&net)?.to_scalar::<f32>()
            };
            let difference = (at(1e-2)? - at(-1e-2)?) / 2e-2;
            at(0.0)?;
            let relative = (difference - grad[largest]).abs() / grad[largest].abs().max(1e-3);
            assert!(relative < 0.05, "{name}: {} by backward, {difference} by differences", grad[largest]);
        }
        Ok(())
    }
}
