//! Greedy decoding: the most probable token, again and again, on the forward pass with a cache. One layer a step, like
//! the pass itself; sampling is not done here.

use crate::activations::Activations;
use crate::backend::Backend;
use crate::forward::{KvCache, LoadedModel, Pass};
use crate::hooks::{PlanError, RunPlan};
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
    generated: Vec<Generated>,
    state: State<B>,
}

enum State<B: Backend> {
    /// Nothing in progress: these ids come next.
    Ready(KvCache<B>, Vec<TokenId>),
    Layers(Pass<B>),
    Unembedding {
        normalized: B::Buffer,
        activations: Activations,
        cache: KvCache<B>,
    },
    Done(KvCache<B>),
}

impl<B: Backend> Decode<B> {
    /// Begins after the positions of a cache with the rest of the prompt, at least one token.
    pub fn new(cache: KvCache<B>, ids: Vec<TokenId>, rules: StopRules) -> Self {
        let state = if rules.max_new_tokens == 0 { State::Done(cache) } else { State::Ready(cache, ids) };
        Self { rules, generated: Vec::new(), state }
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
            State::Ready(cache, _) | State::Unembedding { cache, .. } | State::Done(cache) => cache,
            State::Layers(_) => KvCache::default(),
        };
        (self.generated, cache)
    }

    /// One layer, or the choice of one token; true when nothing is left.
    pub fn step(&mut self, backend: &B, model: &LoadedModel<B>) -> Result<bool, PlanError> {
        let state = std::mem::replace(&mut self.state, State::Done(KvCache::default()));
        self.state = match state {
            State::Ready(cache, ids) => {
                let plan = RunPlan { argmax_keys: true, ..RunPlan::default() };
                State::Layers(Pass::resume(backend, model, cache, &ids, plan)?)
            }
            State::Layers(mut pass) => match pass.step(backend, model) {
                false => State::Layers(pass),
                true => {
                    let (normalized, activations, cache) = pass.finish_keeping(backend, model);
                    State::Unembedding { normalized, activations, cache }
                }
            },
            State::Unembedding { normalized, activations, cache } => {
                let (id, logit) = most_probable(backend, model, &normalized);
                let argmax_keys = activations.argmax_keys().to_vec();
                self.generated.push(Generated { id, logit, argmax_keys });
                self.after(id, cache, model)
            }
            State::Done(cache) => State::Done(cache),
        };
        Ok(matches!(self.state, State::Done(_)))
    }

    /// What follows a token: itself as the next input, or the end.
    fn after(&self, id: TokenId, cache: KvCache<B>, model: &LoadedModel<B>) -> State<B> {
        let is_full = cache.n_tokens() == model.config.n_ctx;
        let is_last = self.generated.len() == self.rules.max_new_tokens || is_full;
        if is_last || self.rules.stop_ids.contains(&id) {
            State::Done(cache)
        } else {
            State::Ready(cache, vec![id])
        }
    }
}

/// The token with the largest logit after the last row of `[pos, d_model]`, and the logit; the lowest id among equals.
fn most_probable<B: Backend>(backend: &B, model: &LoadedModel<B>, normalized: &B::Buffer) -> (TokenId, f32) {
    let rows = backend.download(normalized).len();
    let last = backend.slice(normalized, rows - model.config.d_model..rows);
    let logits = backend.download(&backend.matmul(&last, model.unembed()));
    let best = top_indices(&logits, 1)[0];
    (best as TokenId, logits[best])
}
