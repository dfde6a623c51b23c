//! Copying by the OV circuit's argmax: does the attended token win?

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::doc::{Doc, Threshold};
use super::ov::{OvShape, argmax, candidates_seen, ov_logits, unembed_rows};
use super::stimulus::RepeatedBlocks;
use super::vocabulary::{TopOfVocabulary, n_chunks};
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
                x W_V W_O W_U among the candidates (gains folded in, positive 1/rms left out). 0 to 1; chance is 1 of the \
                candidates. Parameters: n_tokens (default 200); among: sample (default: the sampled tokens \
                themselves) or vocabulary (every token, as the paper's matrix has it: hundreds of times the work).",
        stimulus: "200 distinct random tokens, each alone; the commonest 2 % and rarest 10 % of ids are left out.",
        source: "Elhage et al. 2021, “A Mathematical Framework for Transformer Circuits”",
        known_confusions: "Unless among is vocabulary, near-duplicates of a token (case, leading space) rarely compete. \
                           The input is the raw embedding, which only layer 0 really reads.",
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
        Ok(Work::CopyAccuracy(CopyAccuracyWork {
            tokens,
            among: params.among,
            seed: ask.seed,
            n_layers: ask.config.n_layers,
            d_vocab: ask.config.d_vocab,
        }))
    },
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    n_tokens: Option<usize>,
    among: Among,
}

/// Which tokens compete with the attended one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Among {
    /// The tokens that are tried.
    #[default]
    Sample,
    /// Every token.
    Vocabulary,
}

/// Which tokens are tried.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CopyAccuracyWork {
    tokens: Vec<TokenId>,
    among: Among,
    seed: u64,
    n_layers: usize,
    d_vocab: usize,
}

impl CopyAccuracyWork {
    fn steps_per_layer(&self) -> usize {
        match self.among {
            Among::Sample => 1,
            Among::Vocabulary => n_chunks(self.d_vocab),
        }
    }
}

/// The work under way, a layer or a chunk of its vocabulary a step.
pub(super) struct CopyAccuracyTask<B: Backend> {
    work: CopyAccuracyWork,
    /// A layer under way, where the whole vocabulary competes.
    layer: Option<TopOfVocabulary<B>>,
    scores: HeadTable,
}

impl<B: Backend> CopyAccuracyTask<B> {
    pub(super) fn new(work: CopyAccuracyWork) -> Self {
        Self { work, layer: None, scores: Vec::new() }
    }

    pub(super) fn progress(&self) -> (usize, usize) {
        let of_layer = self.layer.as_ref().map_or(0, TopOfVocabulary::n_done);
        let per_layer = self.work.steps_per_layer();
        (self.scores.len() * per_layer + of_layer, self.work.n_layers * per_layer)
    }

    pub(super) fn partial(&self) -> HeadTable {
        self.scores.clone()
    }

    pub(super) async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DeviceError> {
        if self.scores.len() < self.work.n_layers {
            match self.work.among {
                Among::Sample => self.scores.push(self.among_sample(ground, self.scores.len()).await?),
                Among::Vocabulary => self.step_in_vocabulary(ground, self.scores.len()).await?,
            }
        }
        Ok(self.scores.len() == self.work.n_layers)
    }

    /// The tokens' values in a layer, `[n_tokens, n_kv_heads * d_head]`.
    async fn values(&self, ground: &Ground<'_, B>, layer: usize) -> Result<Vec<f32>, DeviceError> {
        let (backend, model) = (ground.backend, ground.model);
        let block = &model.blocks[layer];
        let embed = backend.gather_rows(&model.w_e, &self.work.tokens);
        let x = backend.rms_norm(&embed, &block.attn_norm, model.config.rms_eps);
        backend.download_one(backend.matmul(&x, &block.w_v)).await
    }

    async fn among_sample(&self, ground: &Ground<'_, B>, layer: usize) -> Result<Vec<f32>, DeviceError> {
        let config = &ground.model.config;
        let values = self.values(ground, layer).await?;
        let unembed = unembed_rows(ground, &self.work.tokens).await?;
        let seen = candidates_seen(ground, layer, &unembed).await?;
        let shape = OvShape { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, d_head: config.d_head };
        Ok((0..config.n_heads)
            .map(|head| {
                let logits = ov_logits(&values, &seen, head, shape);
                let n_hits = logits.iter().enumerate().filter(|(token, row)| argmax(row) == *token).count();
                n_hits as f32 / self.work.tokens.len() as f32
            })
            .collect())
    }

    async fn step_in_vocabulary(&mut self, ground: &Ground<'_, B>, layer: usize) -> Result<(), DeviceError> {
        let mut under_way = match self.layer.take() {
            Some(under_way) => under_way,
            None => {
                let values = self.values(ground, layer).await?;
                TopOfVocabulary::new(ground, layer, &values, 1).await?
            }
        };
        if !under_way.step(ground).await? {
            self.layer = Some(under_way);
            return Ok(());
        }
        let tokens = &self.work.tokens;
        let share_of = |tops: Vec<Vec<TokenId>>| {
            let n_hits = tops.iter().zip(tokens).filter(|(top, token)| top[0] == **token).count();
            n_hits as f32 / tokens.len() as f32
        };
        self.scores.push(under_way.finish().into_iter().map(share_of).collect());
        Ok(())
    }

    pub(super) fn finish(self) -> Findings {
        let n = self.work.tokens.len();
        let (competing, n_candidates) = match self.work.among {
            Among::Sample => ("", n),
            Among::Vocabulary => (" against the whole vocabulary", self.work.d_vocab),
        };
        Findings {
            stimulus: format!("{n} tokens, each alone{competing}, seed {}", self.work.seed),
            n,
            scores: self.scores,
            spread: None,
            evidence: json!({
                "among": self.work.among, "candidates": n_candidates, "chance": 1.0 / n_candidates as f32,
            }),
        }
    }
}
