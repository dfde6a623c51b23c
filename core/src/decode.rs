//! Decoding: the next token, again and again, on the forward pass with a cache; the most probable one, or one drawn from a
//! seed. One layer a step, like the pass itself.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::activations::Activations;
use crate::backend::Backend;
use crate::forward::{Finished, KvCache, LoadedModel, Pass};
use crate::hooks::{Edits, PlanError, RunPlan};
use crate::ids::TokenId;
use crate::metrics::top_indices;

/// When decoding ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopRules {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Ids after which nothing follows; the one that stops is itself generated.
    pub stop_ids: Vec<TokenId>,
}

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it before the softmax; above 0.
    pub temperature: f32,
    /// Seed of the draws.
    pub seed: u64,
}

/// A generated token, and where the model looked when it chose it.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The token.
    pub id: TokenId,
    /// Its logit; not finite when the model computed something that is no number.
    pub logit: f32,
    /// The key that each head attends to most at the position before the token, `[layer][head]`.
    pub argmax_keys: Vec<Vec<usize>>,
}

/// Greedy decoding under way. Owns its state; backend and model are lent to each step.
pub struct Decode<B: Backend> {
    rules: StopRules,
    /// Draws, where tokens are not simply the most probable ones.
    sampler: Option<(f32, ChaCha8Rng)>,
    generated: Vec<Generated>,
    state: State<B>,
}

enum State<B: Backend> {
    /// Nothing in progress: these ids come next, with these edits.
    Ready(KvCache<B>, Vec<TokenId>, Edits),
    Layers(Box<Pass<B>>),
    Unembedding {
        normalized: B::Buffer,
        activations: Activations,
        cache: KvCache<B>,
        edits: Edits,
    },
    Done(KvCache<B>),
}

impl<B: Backend> Decode<B> {
    /// Begins after the positions of a cache with the rest of the prompt, at least one token.
    pub fn new(cache: KvCache<B>, ids: Vec<TokenId>, rules: StopRules) -> Self {
        Self::with_edits(cache, ids, rules, Edits::default(), None)
    }

    /// As [`Self::new`], with edits that have what they read of other runs. Those of every position go on after the prompt.
    pub fn with_edits(
        cache: KvCache<B>,
        ids: Vec<TokenId>,
        rules: StopRules,
        edits: Edits,
        sampling: Option<Sampling>,
    ) -> Self {
        let state = match rules.max_new_tokens {
            0 => State::Done(cache),
            _ => State::Ready(cache, ids, edits),
        };
        let sampler = sampling.map(|s| (s.temperature, ChaCha8Rng::seed_from_u64(s.seed)));
        Self { rules, sampler, generated: Vec::new(), state }
    }

    /// Tokens so far.
    pub fn generated(&self) -> &[Generated] {
        &self.generated
    }

    /// Layers done of the pass in progress.
    pub fn n_layers_done(&self) -> usize {
        match &self.state {
            State::Layers(pass) => pass.n_done(),
            _ => 0,
        }
    }

    /// Every token, and the cache: the prompt and all generated tokens but the last, which was not read.
    pub fn finish(self) -> (Vec<Generated>, KvCache<B>) {
        let cache = match self.state {
            State::Ready(cache, ..) | State::Unembedding { cache, .. } | State::Done(cache) => cache,
            State::Layers(_) => KvCache::default(),
        };
        (self.generated, cache)
    }

    /// One layer, or the choice of one token; true when nothing is left.
    pub fn step(&mut self, backend: &B, model: &LoadedModel<B>) -> Result<bool, PlanError> {
        let state = std::mem::replace(&mut self.state, State::Done(KvCache::default()));
        self.state = match state {
            State::Ready(cache, ids, edits) => {
                let plan = RunPlan { argmax_keys: true, edits, ..RunPlan::default() };
                State::Layers(Box::new(Pass::resume(backend, model, cache, &ids, plan)?))
            }
            State::Layers(mut pass) => match pass.step(backend, model) {
                false => State::Layers(pass),
                true => {
                    let Finished { normalized, activations, cache, edits_after, .. } =
                        pass.finish(backend, model);
                    State::Unembedding { normalized, activations, cache, edits: edits_after }
                }
            },
            State::Unembedding { normalized, activations, cache, edits } => {
                let (id, logit) = self.choose(&last_logits(backend, model, &normalized));
                let argmax_keys = activations.argmax_keys().to_vec();
                self.generated.push(Generated { id, logit, argmax_keys });
                self.after(id, cache, edits, model)
            }
            State::Done(cache) => State::Done(cache),
        };
        Ok(matches!(self.state, State::Done(_)))
    }

    /// What follows a token: itself as the next input, or the end.
    fn after(&self, id: TokenId, cache: KvCache<B>, edits: Edits, model: &LoadedModel<B>) -> State<B> {
        let is_full = cache.n_tokens() == model.config.n_ctx;
        let is_last = self.generated.len() == self.rules.max_new_tokens || is_full;
        if is_last || self.rules.stop_ids.contains(&id) {
            State::Done(cache)
        } else {
            State::Ready(cache, vec![id], edits)
        }
    }

    /// The next token and its logit; the lowest id among equals, unless it is drawn.
    fn choose(&mut self, logits: &[f32]) -> (TokenId, f32) {
        let best = top_indices(logits, 1)[0];
        let index = match &mut self.sampler {
            None => best,
            Some((temperature, rng)) => {
                let temperature = f64::from(*temperature);
                let weight = |logit: f32| (f64::from(logit - logits[best]) / temperature).exp();
                let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
                // 53 bits make every double in 0..1 that is a multiple of 2^-53.
                let mut left = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
                let drawn = logits.iter().position(|&logit| {
                    left -= weight(logit);
                    left < 0.0
                });
                // Rounding can leave a rest behind the last token.
                drawn.unwrap_or(best)
            }
        };
        (index as TokenId, logits[index])
    }
}

/// Logits after the last row of `[pos, d_model]`.
fn last_logits<B: Backend>(backend: &B, model: &LoadedModel<B>, normalized: &B::Buffer) -> Vec<f32> {
    let n_values = backend.download(normalized).len();
    let last = backend.slice(normalized, n_values - model.config.d_model..n_values);
    backend.download(&backend.matmul(&last, model.unembed()))
}
