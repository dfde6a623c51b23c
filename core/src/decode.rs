//! Decoding: the next token, again and again, on the forward pass with a cache; the most probable one, or one drawn from a
//! seed. One layer a step, like the pass itself.
//!
//! A pass over one token reads every weight for it. Where the caller knows what is likely to come (a draft), a pass reads
//! that too, and what turns out not to be the model's own choice is taken back (Leviathan et al. 2022, “Fast Inference from
//! Transformers via Speculative Decoding”). Rows do not depend on later ones nor on how many there are, so that the result
//! is, bit for bit, that of one token after another.

mod draft;

pub use draft::Draft;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::activations::Activations;
use crate::backend::{Backend, DeviceError};
use crate::forward::{Finished, KvCache, LoadedModel, Pass, RunError};
use crate::hooks::{Edits, RunPlan};
use crate::ids::TokenId;
use crate::metrics::top_indices;
use crate::model::ModelConfig;

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
    draft: Draft,
    /// Tokens of the draft that the pass in progress reads behind those that are certain.
    guess: Vec<TokenId>,
    n_passes: usize,
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

    /// As [`Self::new`], with a text that is likely to be copied from. What is generated does not depend on the draft; how
    /// fast does.
    pub fn with_draft(cache: KvCache<B>, ids: Vec<TokenId>, rules: StopRules, draft: Draft) -> Self {
        // A mean over the prompt would take the guessed rows in: a draft comes without edits.
        Self { draft, ..Self::new(cache, ids, rules) }
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
        let (generated, draft, guess) = (Vec::new(), Draft::default(), Vec::new());
        Self { rules, sampler, generated, draft, guess, n_passes: 0, state }
    }

    /// Tokens so far.
    pub fn generated(&self) -> &[Generated] {
        &self.generated
    }

    /// Passes begun: one a token without a draft, fewer with a good one.
    pub fn n_passes(&self) -> usize {
        self.n_passes
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

    /// One layer, or the choice of the tokens that a pass foretells; true when nothing is left.
    pub async fn step(&mut self, backend: &B, model: &LoadedModel<B>) -> Result<bool, RunError> {
        let state = std::mem::replace(&mut self.state, State::Done(KvCache::default()));
        self.state = match state {
            State::Ready(cache, ids, edits) => {
                self.n_passes += 1;
                self.guess = self.next_guess(cache.n_tokens() + ids.len(), &model.config);
                let plan = RunPlan { n_argmax_rows: 1 + self.guess.len(), edits, ..RunPlan::default() };
                let ids = [ids.as_slice(), &self.guess].concat();
                State::Layers(Box::new(Pass::resume(backend, model, cache, &ids, plan)?))
            }
            State::Layers(mut pass) => match pass.step(backend, model) {
                false => State::Layers(pass),
                true => {
                    let Finished { normalized, activations, cache, edits_after, .. } =
                        pass.finish(backend, model).await?;
                    State::Unembedding { normalized, activations, cache, edits: edits_after }
                }
            },
            State::Unembedding { normalized, activations, cache, edits } => {
                let logits = last_logits(backend, model, &normalized, 1 + self.guess.len()).await?;
                let n_sure = cache.n_tokens() - self.guess.len();
                let (n_right, next) = self.take(&logits, &activations, n_sure, &model.config);
                let cache = cache.cut(backend, n_sure + n_right);
                match next {
                    Some(id) => State::Ready(cache, vec![id], edits),
                    None => State::Done(cache),
                }
            }
            State::Done(cache) => State::Done(cache),
        };
        Ok(matches!(self.state, State::Done(_)))
    }

    /// What the next pass reads behind the `n_read` positions that are certain: the draft's continuation, as far as it can
    /// be generated and something can follow it.
    fn next_guess(&self, n_read: usize, config: &ModelConfig) -> Vec<TokenId> {
        let generated: Vec<TokenId> = self.generated.iter().map(|token| token.id).collect();
        // A pass foretells one token more than it guesses.
        let n_left = self.rules.max_new_tokens - generated.len() - 1;
        let n_most = n_left.min(config.n_ctx.saturating_sub(n_read));
        let goes_on = |id: &&TokenId| (**id as usize) < config.d_vocab && !self.rules.stop_ids.contains(*id);
        let guess = self.draft.continuation(&generated).iter().take_while(goes_on);
        guess.take(n_most).copied().collect()
    }

    /// Takes the tokens that a pass foretells, row after row, up to the first that is not the one guessed or that ends it
    /// all. Gives how many guesses were right, and the token to read next, if any.
    fn take(
        &mut self,
        logits: &[f32],
        activations: &Activations,
        n_sure: usize,
        config: &ModelConfig,
    ) -> (usize, Option<TokenId>) {
        let guess = std::mem::take(&mut self.guess);
        let rows = logits.chunks_exact(config.d_vocab).zip(activations.argmax_keys());
        for (n_right, (logits, argmax_keys)) in rows.enumerate() {
            let (id, logit) = self.choose(logits);
            self.generated.push(Generated { id, logit, argmax_keys: argmax_keys.clone() });
            let is_full = n_sure + n_right == config.n_ctx;
            let is_last = self.generated.len() == self.rules.max_new_tokens || is_full;
            if is_last || self.rules.stop_ids.contains(&id) {
                return (n_right, None);
            }
            if guess.get(n_right) != Some(&id) {
                return (n_right, Some(id));
            }
        }
        unreachable!("nothing is guessed for the last row, so that no guess can be right there")
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

/// Logits of the last rows of `[pos, d_model]`, `[row, d_vocab]`.
async fn last_logits<B: Backend>(
    backend: &B,
    model: &LoadedModel<B>,
    normalized: &B::Buffer,
    n_rows: usize,
) -> Result<Vec<f32>, DeviceError> {
    let n_values = backend.n_values(normalized);
    let last = backend.slice(normalized, n_values - n_rows * model.config.d_model..n_values);
    backend.download_one(backend.matmul(&last, model.unembed())).await
}
