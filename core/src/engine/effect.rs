//! What edits do at each position of a prompt, from a clean and an edited run; and their direct effect, with everything after
//! them frozen.

use std::rc::Rc;

use super::{Buffer, Engine, Job, RunOutcome};
use crate::backend::{Backend, LogitRead};
use crate::error::Error;
use crate::forward::{direct_resid, unembed_chunk};
use crate::ids::TokenId;
use crate::metrics::{kl_nats, logsumexp, top_indices};
use crate::report::{EffectReport, TokenLogit};

/// Tokens whose direct effect is told.
const N_DIRECT: usize = 5;

/// The comparison under way.
pub struct EffectTask {
    clean: Rc<RunOutcome>,
    edited: Rc<RunOutcome>,
    kl_nats: Vec<f32>,
    clean_nll_nats: Vec<f32>,
    edited_nll_nats: Vec<f32>,
}

impl EffectTask {
    /// Of a clean and an edited run of the same prompt; the direct effect needs the clean one kept whole.
    ///
    /// # Panics
    /// When the prompts differ.
    pub fn new(clean: Rc<RunOutcome>, edited: Rc<RunOutcome>) -> Self {
        assert_eq!(clean.tokens.ids, edited.tokens.ids, "the runs are of different prompts");
        let (kl_nats, clean_nll_nats, edited_nll_nats) = (Vec::new(), Vec::new(), Vec::new());
        Self { clean, edited, kl_nats, clean_nll_nats, edited_nll_nats }
    }

    async fn direct_logits(&self, engine: &Engine) -> Result<Option<Vec<f32>>, Error> {
        let Some(base) = &self.clean.base else { return Ok(None) };
        let resid = direct_resid(&engine.backend, &engine.model, base, &self.edited.edits)?;
        let config = &engine.model.config;
        let normalized = engine.backend.rms_norm(&resid, &engine.model.final_norm, config.rms_eps);
        let n_tokens = self.clean.tokens.ids.len();
        Ok(Some(engine.logits(&normalized, n_tokens - 1..n_tokens).await?))
    }
}

impl Job for EffectTask {
    type Report = EffectReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        let (backend, d_vocab) = (&engine.backend, engine.info.d_vocab);
        let ids = &self.clean.tokens.ids;
        let first = self.kl_nats.len();
        let end = (first + unembed_chunk(backend) / 2).min(ids.len());
        let clean = engine.unembed(&self.clean.normalized, first..end);
        let edited = engine.unembed(&self.edited.normalized, first..end);
        // The last position has no target: what is read there is left out.
        let targets = (first..end).map(|position| ids.get(position + 1).copied().unwrap_or_default());
        let (targets, rows): (Vec<TokenId>, Vec<usize>) = (targets.collect(), (0..end - first).collect());
        let nll = |logits: &Buffer| backend.read_logits(logits, d_vocab, &LogitRead::Logprob(&targets));
        let kl = backend.read_logits(&edited, d_vocab, &LogitRead::Kl { clean: &clean, rows: &rows });
        let numbers = backend.download(vec![kl, nll(&clean), nll(&edited)]).await?;
        self.kl_nats.extend(&numbers[0]);
        let n_targets = end.min(ids.len() - 1) - first;
        self.clean_nll_nats.extend(numbers[1][..n_targets].iter().map(|logprob| -logprob));
        self.edited_nll_nats.extend(numbers[2][..n_targets].iter().map(|logprob| -logprob));
        Ok(end == ids.len())
    }

    fn progress(&self) -> (usize, usize) {
        (self.kl_nats.len(), self.clean.tokens.ids.len())
    }

    async fn finish(self, engine: &Engine) -> Result<EffectReport, Error> {
        let direct = self.direct_logits(engine).await?;
        let top = top_indices(&self.clean.logits, N_DIRECT);
        let of = |logits: &[f32]| -> Vec<TokenLogit> {
            let lse = logsumexp(logits);
            top.iter().map(|&index| engine.token_logit(index as TokenId, logits, lse)).collect()
        };
        Ok(EffectReport {
            direct_kl_nats: direct.as_ref().map(|direct| kl_nats(&self.clean.logits, direct)),
            clean_top: of(&self.clean.logits),
            edited_top: of(&self.edited.logits),
            direct_top: direct.as_deref().map(of).unwrap_or_default(),
            kl_nats: self.kl_nats,
            clean_nll_nats: self.clean_nll_nats,
            edited_nll_nats: self.edited_nll_nats,
        })
    }
}
