//! Copying by the OV circuit's argmax: does the attended token win?

use serde::Deserialize;
use serde_json::json;

use super::doc::{Doc, Threshold};
use super::ov::{OvShape, argmax, candidates_seen, ov_logits, unembed_rows};
use super::stimulus::RepeatedBlocks;
use super::{Ask, DetectError, Detector, Findings, Ground, HeadTable, Work};
use crate::backend::{Backend, DeviceError};
use crate::ids::TokenId;

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "copying_top1",
        version: 1,
        title: "Copying (OV top-1 accuracy)",
        looks_for: "Heads whose output, attending to a token, raises that token above all other candidates.",
        why_it_matters: "Stricter and easier to read than eigenvalues: the share of tokens that the head really copies.",
        score: "For n sampled tokens t with x = RMSNorm(W_E[t]): share of t for which t itself has the largest logit of \
                x W_V W_O W_U among the sampled tokens (gains folded in, positive 1/rms left out). 0 to 1; chance 1/n. \
                Parameter n_tokens (default 200).",
        stimulus: "200 distinct random tokens, each alone; the commonest 2 % and rarest 10 % of ids are left out.",
        source: "Elhage et al. 2021, “A Mathematical Framework for Transformer Circuits”",
        known_confusions: "The candidates are the sample, not the whole vocabulary: near-duplicates of a token (case, leading \
                           space) rarely compete. The input is the raw embedding, which only layer 0 really reads.",
        threshold: Some(Threshold { value: 0.5, source: "no published line; more than half of the tokens" }),
        weights_only: true,
    },
    plan: |ask: &Ask<'_>| -> Result<Work, DetectError> {
        let params: Params = ask.params()?;
        let n_tokens = params.n_tokens.unwrap_or(200);
        if !(2..=4096).contains(&n_tokens) {
            return Err(DetectError::Params(format!("n_tokens is {n_tokens}; give 2 to 4096")));
        }
        let sample = RepeatedBlocks {
            d_vocab: ask.config.d_vocab,
            bos: None,
            min_len: n_tokens,
            max_len: n_tokens,
            n_repeats: 1,
            n_draws: 1,
            seed: ask.seed,
        };
        let tokens = match &ask.sequences {
            Some(sequences) => {
                let mut tokens = sequences.concat();
                tokens.sort_unstable();
                tokens.dedup();
                crate::hooks::check_vocabulary(&tokens, ask.config)?;
                tokens
            }
            None => sample.draw().sequences.concat(),
        };
        if tokens.is_empty() {
            return Err(DetectError::NoSequences);
        }
        Ok(Work::CopyAccuracy(CopyAccuracyWork { tokens, seed: ask.seed, n_layers: ask.config.n_layers }))
    },
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    n_tokens: Option<usize>,
}

/// Which tokens are tried.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CopyAccuracyWork {
    tokens: Vec<TokenId>,
    seed: u64,
    n_layers: usize,
}

/// The work under way, a layer a step.
pub(super) struct CopyAccuracyTask {
    work: CopyAccuracyWork,
    scores: HeadTable,
}

impl CopyAccuracyTask {
    pub(super) fn new(work: CopyAccuracyWork) -> Self {
        Self { work, scores: Vec::new() }
    }

    pub(super) fn progress(&self) -> (usize, usize) {
        (self.scores.len(), self.work.n_layers)
    }

    pub(super) fn partial(&self) -> HeadTable {
        self.scores.clone()
    }

    pub(super) async fn step<B: Backend>(&mut self, ground: &Ground<'_, B>) -> Result<bool, DeviceError> {
        if self.scores.len() < self.work.n_layers {
            self.scores.push(self.layer(ground, self.scores.len()).await?);
        }
        Ok(self.scores.len() == self.work.n_layers)
    }

    async fn layer<B: Backend>(&self, ground: &Ground<'_, B>, layer: usize) -> Result<Vec<f32>, DeviceError> {
        let (backend, model) = (ground.backend, ground.model);
        let (config, block) = (&model.config, &model.blocks[layer]);
        let embed = backend.gather_rows(&model.w_e, &self.work.tokens);
        let x = backend.rms_norm(&embed, &block.attn_norm, config.rms_eps);
        let values = backend.download_one(backend.matmul(&x, &block.w_v)).await?;
        let seen = candidates_seen(ground, layer, &unembed_rows(ground, &self.work.tokens).await?).await?;
        let shape = OvShape { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, d_head: config.d_head };
        Ok((0..config.n_heads)
            .map(|head| {
                let logits = ov_logits(&values, &seen, head, shape);
                let n_hits = logits.iter().enumerate().filter(|(token, row)| argmax(row) == *token).count();
                n_hits as f32 / self.work.tokens.len() as f32
            })
            .collect())
    }

    pub(super) fn finish(self) -> Findings {
        let n = self.work.tokens.len();
        Findings {
            stimulus: format!("{n} tokens, each alone, seed {}", self.work.seed),
            n,
            scores: self.scores,
            spread: None,
            evidence: json!({ "candidates": n, "chance": 1.0 / n as f32 }),
        }
    }
}
