//! What edits do at each position of a prompt, from a clean and an edited run; and their direct effect, with everything after
//! them frozen.

use std::rc::Rc;

use super::{Engine, Job, RunOutcome};
use crate::ablate::UNEMBED_ROWS;
use crate::backend::Backend;
use crate::error::Error;
use crate::forward::direct_resid;
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
        let ids = &self.clean.tokens.ids;
        let first = self.kl_nats.len();
        let end = (first + UNEMBED_ROWS / 2).min(ids.len());
        let clean = engine.logits(&self.clean.normalized, first..end).await?;
        let edited = engine.logits(&self.edited.normalized, first..end).await?;
        let rows = |logits: &'_ [f32]| -> Vec<Vec<f32>> {
            logits.chunks_exact(engine.info.d_vocab).map(<[f32]>::to_vec).collect()
        };
        for (position, (clean, edited)) in (first..).zip(rows(&clean).iter().zip(&rows(&edited))) {
            self.kl_nats.push(kl_nats(clean, edited));
            if let Some(&target) = ids.get(position + 1) {
                let nll = |logits: &[f32]| (logsumexp(logits) - f64::from(logits[target as usize])) as f32;
                self.clean_nll_nats.push(nll(clean));
                self.edited_nll_nats.push(nll(edited));
            }
        }
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
