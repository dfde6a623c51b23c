//! The transformer in candle, for training: the same function as `headlight-core`'s forward pass for a Llama-family
//! config. What a model starts as is its recipe's business.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// Sizes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Layers.
    pub n_layers: usize,
    /// Layers, from the first, whose MLP is trained; those of the other layers are zero where `d_mlp` is not.
    pub n_mlps: usize,
    /// Heads a layer.
    pub n_heads: usize,
    /// Head width.
    pub d_head: usize,
    /// Residual width.
    pub d_model: usize,
    /// MLP width, 0 for a model without MLPs.
    pub d_mlp: usize,
    /// Vocabulary.
    pub d_vocab: usize,
}

/// RMSNorm's epsilon.
pub const RMS_EPS: f64 = 1e-5;
/// RoPE's base: low, so that most dimensions tell neighbouring positions apart.
pub const ROPE_THETA: f64 = 100.0;

/// A weight by its Hugging Face name, with its first values.
pub type Named = (String, Tensor);

/// The weights in a fixed order, and which of their entries stay zero.
pub struct Net {
    sizes: Sizes,
    weights: Vec<(String, Var)>,
    masks: Vec<Named>,
}

impl Net {
    /// Starts from `tensors`. A mask is 0 where its weight stays zero and 1 elsewhere, in a shape that broadcasts to the
    /// weight's.
    pub fn new(sizes: Sizes, tensors: Vec<Named>, masks: Vec<Named>) -> Result<Self> {
        let weights = tensors.into_iter().map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)));
        let net = Self { sizes, weights: weights.collect::<Result<_>>()?, masks };
        net.restore_zeros()?;
        Ok(net)
    }

    /// Puts back the zeros that an optimiser's step has moved.
    pub fn restore_zeros(&self) -> Result<()> {
        for (name, mask) in &self.masks {
            let var = self.var(name);
            var.set(&var.as_tensor().broadcast_mul(mask)?)?;
        }
        Ok(())
    }

    /// Sizes.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Every weight, for the optimiser.
    pub fn vars(&self) -> Vec<Var> {
        self.weights.iter().map(|(_, var)| var.clone()).collect()
    }

    /// Every tensor of the model's file: the trained weights and the MLPs that are zero.
    pub fn tensors(&self) -> Result<Vec<Named>> {
        let Sizes { n_layers, n_mlps, d_model, d_mlp, .. } = self.sizes;
        let trained = self.weights.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        let mut tensors: Vec<Named> = trained.collect();
        for layer in if d_mlp == 0 { 0..0 } else { n_mlps..n_layers } {
            for (part, shape) in mlp_shapes(d_model, d_mlp) {
                let zero = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
                tensors.push((format!("model.layers.{layer}.mlp.{part}_proj.weight"), zero));
            }
            let gain = Tensor::ones(d_model, DType::F32, &Device::Cpu)?;
            tensors.push((format!("model.layers.{layer}.post_attention_layernorm.weight"), gain));
        }
        Ok(tensors)
    }

    fn var(&self, name: &str) -> &Var {
        let found = self.weights.iter().find(|(known, _)| known == name);
        &found.expect("a recipe makes every weight that its sizes ask for").1
    }

    fn weight(&self, name: &str) -> &Tensor {
        self.var(name).as_tensor()
    }

    /// Logits `[row, pos, d_vocab]` of `ids`, `[row, pos]`.
    pub fn logits(&self, ids: &Tensor) -> Result<Tensor> {
        let (n_rows, n) = ids.dims2()?;
        let Sizes { n_layers, n_mlps, d_head, d_model, d_vocab, .. } = self.sizes;
        let places = Places { tables: rope_tables(n, d_head)?, mask: causal_mask(n)? };
        let embed = self.weight("model.embed_tokens.weight");
        let mut resid = embed.index_select(&ids.flatten_all()?, 0)?.reshape((n_rows, n, d_model))?;
        for layer in 0..n_layers {
            resid = (&resid + self.attn_out(&resid, layer, &places)?)?;
            if layer < n_mlps {
                resid = (&resid + self.mlp_out(&resid, layer)?)?;
            }
        }
        let x = rms_norm(&resid, self.weight("model.norm.weight"))?.reshape((n_rows * n, d_model))?;
        x.matmul(&self.weight("lm_head.weight").t()?)?.reshape((n_rows, n, d_vocab))
    }

    fn attn_out(&self, resid: &Tensor, layer: usize, places: &Places) -> Result<Tensor> {
        let (n_rows, n, d_model) = resid.dims3()?;
        let Sizes { n_heads, d_head, .. } = self.sizes;
        let (cos, sin) = &places.tables;
        let x = rms_norm(resid, self.weight(&format!("model.layers.{layer}.input_layernorm.weight")))?;
        let project = |part: &str| -> Result<Tensor> {
            let w = self.weight(&format!("model.layers.{layer}.self_attn.{part}_proj.weight"));
            let y = x.reshape((n_rows * n, d_model))?.matmul(&w.t()?)?;
            y.reshape((n_rows, n, n_heads, d_head))?.transpose(1, 2)?.contiguous()
        };
        let q = rope(&project("q")?, cos, sin)?;
        let k = rope(&project("k")?, cos, sin)?;
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (d_head as f64).sqrt())?;
        let pattern = candle_nn::ops::softmax(&scores.broadcast_add(&places.mask)?, D::Minus1)?;
        let z = pattern.matmul(&project("v")?)?.transpose(1, 2)?.contiguous()?;
        let w_o = self.weight(&format!("model.layers.{layer}.self_attn.o_proj.weight"));
        z.reshape((n_rows * n, n_heads * d_head))?.matmul(&w_o.t()?)?.reshape((n_rows, n, d_model))
    }

    /// What a layer's MLP adds to `resid`, in the same shape.
    pub fn mlp_out(&self, resid: &Tensor, layer: usize) -> Result<Tensor> {
        let weight = |part: &str| self.weight(&format!("model.layers.{layer}.mlp.{part}_proj.weight")).t();
        let gain = self.weight(&format!("model.layers.{layer}.post_attention_layernorm.weight"));
        let x = rms_norm(resid, gain)?.flatten_to(D::Minus2)?;
        let gated = (x.matmul(&weight("gate")?)?.silu()? * x.matmul(&weight("up")?)?)?;
        gated.matmul(&weight("down")?)?.reshape(resid.shape())
    }
}

/// What attention knows of positions: RoPE's cosines and sines, and who may look at whom.
struct Places {
    tables: (Tensor, Tensor),
    mask: Tensor,
}

/// An MLP's matrices and their shapes `[n_out, n_in]`.
pub fn mlp_shapes(d_model: usize, d_mlp: usize) -> [(&'static str, (usize, usize)); 3] {
    [("gate", (d_mlp, d_model)), ("up", (d_mlp, d_model)), ("down", (d_model, d_mlp))]
}

/// Gains of 1 for every norm of a model, in the order in which they are trained.
pub fn unit_gains(sizes: Sizes) -> Result<Vec<Named>> {
    let name = |layer: usize, norm: &str| format!("model.layers.{layer}.{norm}.weight");
    let attn = (0..sizes.n_layers).map(|layer| name(layer, "input_layernorm"));
    let mlp = (0..sizes.n_mlps).map(|layer| name(layer, "post_attention_layernorm"));
    let names = attn.chain(mlp).chain(["model.norm.weight".to_owned()]);
    names.map(|name| Ok((name, Tensor::ones(sizes.d_model, DType::F32, &Device::Cpu)?))).collect()
}

/// A matrix of independent normal numbers.
pub fn noise(rng: &mut ChaCha8Rng, shape: (usize, usize), std: f64) -> Result<Tensor> {
    let values = (0..shape.0 * shape.1).map(|_| (normal(rng) * std) as f32).collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &Device::Cpu)
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

    /// A net with both kinds of layers, one with an MLP and one without, and heads that do not fill the residual stream.
    fn net() -> Result<Net> {
        let sizes =
            Sizes { n_layers: 2, n_mlps: 1, n_heads: 2, d_head: 4, d_model: 10, d_mlp: 6, d_vocab: 11 };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut tensors = Vec::new();
        let mut push = |name: String, shape| -> Result<()> {
            tensors.push((name, noise(&mut rng, shape, 0.5)?));
            Ok(())
        };
        push("model.embed_tokens.weight".to_owned(), (11, 10))?;
        push("lm_head.weight".to_owned(), (11, 10))?;
        for layer in 0..2 {
            for (part, shape) in [("q", (8, 10)), ("k", (8, 10)), ("v", (8, 10)), ("o", (10, 8))] {
                push(format!("model.layers.{layer}.self_attn.{part}_proj.weight"), shape)?;
            }
        }
        for (part, shape) in mlp_shapes(10, 6) {
            push(format!("model.layers.0.mlp.{part}_proj.weight"), shape)?;
        }
        tensors.extend(unit_gains(sizes)?);
        Net::new(sizes, tensors, Vec::new())
    }

    fn loss(net: &Net) -> Result<Tensor> {
        let ids = Tensor::new(&[[1u32, 4, 7, 1, 4, 9, 2, 1]], &Device::Cpu)?;
        let targets = Tensor::new(&[[4u32], [7], [1], [4], [9], [2], [1], [4]], &Device::Cpu)?;
        let logprobs = candle_nn::ops::log_softmax(&net.logits(&ids)?.flatten(0, 1)?, D::Minus1)?;
        logprobs.gather(&targets, 1)?.sum_all()?.neg()
    }

    #[test]
    fn gradients_agree_with_finite_differences() -> Result<()> {
        let net = net()?;
        let grads = loss(&net)?.backward()?;
        for (name, var) in &net.weights {
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

    #[test]
    fn masked_entries_stay_zero() -> Result<()> {
        let mut net = net()?;
        let mask = Tensor::new(&[[0f32], [1.0], [1.0], [1.0], [1.0], [1.0]], &Device::Cpu)?;
        let name = "model.layers.0.mlp.gate_proj.weight";
        net.masks = vec![(name.to_owned(), mask)];
        net.restore_zeros()?;
        let rows = net.weight(name).to_vec2::<f32>()?;
        assert!(rows[0].iter().all(|&value| value == 0.0));
        assert!(rows[1..].iter().flatten().all(|&value| value != 0.0));
        Ok(())
    }

    #[test]
    fn a_file_has_zero_mlps_where_none_is_trained() -> Result<()> {
        let tensors = net()?.tensors()?;
        let sum = |name: &str| -> Result<f32> {
            let found = tensors.iter().find(|(known, _)| known == name).expect("in the file");
            found.1.sqr()?.sum_all()?.to_scalar::<f32>()
        };
        assert!(sum("model.layers.0.mlp.down_proj.weight")? > 0.0);
        assert_eq!(sum("model.layers.1.mlp.down_proj.weight")?, 0.0);
        Ok(())
    }
}
