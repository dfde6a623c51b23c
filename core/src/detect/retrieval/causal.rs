//! Whether the model needs its retrieval heads: the answer's probability with the strongest heads switched off, against as
//! many other heads of the same layers. Which heads are strongest is found elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backend::{Backend, DeviceError};
use crate::detect::stimulus::Choice;
use crate::detect::{DetectError, Ground, HeadTable};
use crate::forward::{Finished, KvCache, Pass};
use crate::hooks::{self, Intervention, PatternTarget, RunPlan};
use crate::ids::{HeadId, TokenId};
use crate::metrics::logsumexp;

/// What is done to a head at the positions that foretell the answer; the prompt before is read unedited, as the authors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Edit {
    /// Its `z` is zero.
    Zero,
    /// Its `z` is the mean over every position of prompt and answer.
    Mean,
    /// It attends to every position alike: what the authors' repository calls masking a head (Wu et al. 2024, Retrieval Head
    /// Mechanistically Explains Long-Context Factuality).
    Uniform,
}

/// How many heads are switched off, and against what.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CausalParams {
    /// Strongest heads switched off together.
    pub k: usize,
    /// Random sets of as many heads.
    pub n_draws: usize,
    /// Prompts at most, of those that succeeded.
    pub n_prompts: usize,
    /// The edits, each measured on its own.
    pub edits: Vec<Edit>,
}

impl Default for CausalParams {
    fn default() -> Self {
        Self { k: 5, n_draws: 10, n_prompts: 4, edits: vec![Edit::Zero, Edit::Mean, Edit::Uniform] }
    }
}

impl CausalParams {
    /// Fails unless there is something to measure.
    pub(super) fn check(&self, n_heads: usize) -> Result<(), DetectError> {
        let counts = [
            ("k", self.k, 1, n_heads),
            ("n_draws", self.n_draws, 2, 1000),
            ("n_prompts", self.n_prompts, 1, 1000),
        ];
        for (name, value, least, most) in counts {
            if !(least..=most).contains(&value) {
                return Err(DetectError::Params(format!("causal.{name} is {value}; give {least} to {most}")));
            }
        }
        if self.edits.is_empty() {
            return Err(DetectError::Params(
                "causal.edits is empty; give some of \"zero\", \"mean\" and \"uniform\"".to_owned(),
            ));
        }
        Ok(())
    }

    /// Passes for one prompt: a clean one, and for each edit the strongest heads and every draw.
    pub(super) fn n_passes(&self) -> usize {
        1 + self.edits.len() * (1 + self.n_draws)
    }
}

/// A prompt and its right answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    /// At least two tokens.
    pub prompt: Vec<TokenId>,
    /// At least one.
    pub answer: Vec<TokenId>,
}

impl Question {
    /// What is read after the prompt without its last token, so that every row foretells a token of the answer.
    fn tail(&self) -> Vec<TokenId> {
        let (last, answer) = (self.prompt.last(), &self.answer[..self.answer.len() - 1]);
        last.into_iter().chain(answer).copied().collect()
    }
}

/// The heads that are compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Contest {
    /// The strongest, strongest first.
    pub top: Vec<HeadId>,
    /// Sets of as many heads of the same layers that are no retrieval heads.
    pub draws: Vec<Vec<HeadId>>,
    /// From how many such heads they are drawn.
    pub n_others: usize,
}

impl Contest {
    /// The `k` strongest heads, and draws among heads of their layers that score at most `threshold`; `None` when those
    /// are fewer than `k`.
    pub(super) fn draw(scores: &HeadTable, params: &CausalParams, threshold: f32, seed: u64) -> Option<Self> {
        let heads = scores.iter().enumerate().flat_map(|(layer, heads)| {
            heads.iter().enumerate().map(move |(head, &score)| (HeadId::new(layer, head), score))
        });
        let mut ranked: Vec<(HeadId, f32)> = heads.collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let (top, others) = ranked.split_at(params.k.min(ranked.len()));
        let top: Vec<HeadId> = top.iter().map(|(head, _)| *head).collect();
        let is_other = |(head, score): &&(HeadId, f32)| {
            *score <= threshold && top.iter().any(|strong| strong.layer == head.layer)
        };
        let others: Vec<HeadId> = others.iter().filter(is_other).map(|(head, _)| *head).collect();
        let mut choice = Choice::new(seed);
        let draws = (0..params.n_draws).map(|_| choice.some_of(&others, params.k)).collect();
        (others.len() >= params.k).then_some(Self { top, draws, n_others: others.len() })
    }

    /// The strongest heads, then the draws.
    fn sets(&self) -> impl Iterator<Item = &Vec<HeadId>> {
        std::iter::once(&self.top).chain(&self.draws)
    }
}

/// The measurement under way, a layer a step.
pub(super) struct CausalTask<B: Backend> {
    params: CausalParams,
    contest: Contest,
    questions: Vec<Question>,
    /// Keys and values of the prompt in progress without its last token, once they are there.
    cache: Option<KvCache<B>>,
    pass: Option<Pass<B>>,
    /// Mean log-probability of the answer's tokens in each pass over the prompt in progress, nats.
    measured: Vec<f32>,
    /// The same of the prompts done, `[question][pass]`.
    logprobs: Vec<Vec<f32>>,
}

impl<B: Backend> CausalTask<B> {
    /// Nothing run yet; of many questions some are taken.
    pub(super) fn new(params: CausalParams, contest: Contest, questions: Vec<Question>) -> Self {
        // Evenly over the prompts that succeeded, which come ordered by depth.
        let every = questions.len().div_ceil(params.n_prompts).max(1);
        let questions = questions.into_iter().step_by(every).collect();
        Self {
            params,
            contest,
            questions,
            cache: None,
            pass: None,
            measured: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    /// Passes done.
    pub(super) fn n_done(&self) -> usize {
        self.logprobs.len() * self.params.n_passes() + self.measured.len()
    }

    /// A layer of a pass; true when nothing is left.
    pub(super) async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DetectError> {
        let Some(question) = self.questions.get(self.logprobs.len()) else { return Ok(true) };
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => self.begin(ground, question)?,
        };
        if !pass.step(ground.backend, ground.model) {
            self.pass = Some(pass);
            return Ok(false);
        }
        let Finished { normalized, cache, .. } = pass.finish(ground.backend, ground.model).await?;
        if self.cache.is_none() {
            self.cache = Some(cache);
            return Ok(false);
        }
        self.measured.push(mean_logprob(ground, &normalized, &question.answer).await?);
        if self.measured.len() == self.params.n_passes() {
            self.logprobs.push(std::mem::take(&mut self.measured));
            self.cache = None;
        }
        Ok(self.logprobs.len() == self.questions.len())
    }

    /// The next pass over a prompt: the prompt itself first, then clean, then edited.
    fn begin(&self, ground: &Ground<'_, B>, question: &Question) -> Result<Pass<B>, DetectError> {
        let (backend, model) = (ground.backend, ground.model);
        let (_, before) = question.prompt.split_last().unwrap_or((&0, &[]));
        let Some(cache) = &self.cache else {
            return Ok(Pass::resume(backend, model, KvCache::default(), before, RunPlan::default())?);
        };
        let plan = |edit: Option<Intervention>| RunPlan {
            edits: edit.into_iter().collect::<Vec<_>>().into(),
            ..RunPlan::default()
        };
        let n_sets = 1 + self.params.n_draws;
        let edit = self
            .measured
            .len()
            .checked_sub(1)
            .map(|index| (self.params.edits[index / n_sets], index % n_sets));
        let heads = |set: usize| self.contest.sets().nth(set).cloned().unwrap_or_default();
        let after_prompt = |edit: Option<Intervention>| {
            let cache = cache.prefix(backend, before.len());
            Pass::resume(backend, model, cache, &question.tail(), plan(edit))
        };
        let pass = match edit {
            None => after_prompt(None),
            Some((Edit::Zero, set)) => after_prompt(Some(Intervention::zero(heads(set)))),
            Some((Edit::Uniform, set)) => {
                let towards = PatternTarget::Uniform;
                let uniform = hooks::Edit::InterpolatePattern { towards, strength: 1.0 };
                after_prompt(Some(Intervention::of_heads(uniform, heads(set))))
            }
            Some((Edit::Mean, set)) => {
                // A mean needs the prompt's own rows.
                let ids = [before, &question.tail()].concat();
                let positions = Some((before.len()..ids.len()).collect());
                let mean = Intervention {
                    positions,
                    ..Intervention::of_heads(hooks::Edit::Mean { over: None }, heads(set))
                };
                Pass::start(backend, model, &ids, plan(Some(mean)))
            }
        };
        Ok(pass?)
    }

    /// Drops of the answer's mean log-probability, nats a token.
    pub(super) fn evidence(&self) -> Value {
        let mean = |numbers: Vec<f32>| numbers.iter().sum::<f32>() / numbers.len().max(1) as f32;
        let drop = |pass: usize| mean(self.logprobs.iter().map(|passes| passes[0] - passes[pass]).collect());
        let n_sets = 1 + self.params.n_draws;
        let edits = self.params.edits.iter().enumerate().map(|(index, edit)| {
            let top = 1 + index * n_sets;
            let random: Vec<f32> = (top + 1..top + n_sets).map(drop).collect();
            let random_mean = mean(random.clone());
            let squares: f32 = random.iter().map(|drop| (drop - random_mean).powi(2)).sum();
            json!({
                "edit": edit,
                "top_drop_nats": drop(top),
                "random_drop_nats": random_mean,
                "random_drop_sd_nats": (squares / (random.len() - 1) as f32).sqrt(),
                "random_drops_nats": random,
            })
        });
        json!({
            "heads": self.contest.top,
            "n_draws": self.params.n_draws,
            "random_heads_from": self.contest.n_others,
            "n_prompts": self.questions.len(),
            "positions": "those that foretell the answer, given the right tokens before; the prompt is read unedited",
            "clean_logprob_nats": mean(self.logprobs.iter().map(|passes| passes[0]).collect()),
            "edits": edits.collect::<Vec<_>>(),
        })
    }
}

/// Mean log-probability of the answer's tokens, nats, from the last rows of `[pos, d_model]`.
async fn mean_logprob<B: Backend>(
    ground: &Ground<'_, B>,
    normalized: &B::Buffer,
    answer: &[TokenId],
) -> Result<f32, DeviceError> {
    let (backend, config) = (ground.backend, &ground.model.config);
    let n_values = backend.n_values(normalized);
    let rows = backend.slice(normalized, n_values - answer.len() * config.d_model..n_values);
    let logits = backend.download_one(backend.matmul(&rows, ground.model.unembed())).await?;
    let rows = logits.chunks_exact(config.d_vocab).zip(answer);
    let sum: f64 = rows.map(|(logits, &id)| f64::from(logits[id as usize]) - logsumexp(logits)).sum();
    Ok((sum / answer.len() as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_heads_are_others_of_the_same_layers() {
        let scores = vec![vec![0.9, 0.0, 0.05, 0.2], vec![0.0; 4], vec![0.8, 0.0, 0.0, 0.1]];
        let params = CausalParams { k: 2, n_draws: 20, ..CausalParams::default() };
        let contest = Contest::draw(&scores, &params, 0.1, 7).expect("there are others");
        assert_eq!(contest.top, [HeadId::new(0, 0), HeadId::new(2, 0)]);
        assert_eq!((contest.n_others, contest.draws.len()), (5, 20));
        for draw in &contest.draws {
            assert_eq!(draw.len(), 2);
            assert_ne!(draw[0], draw[1]);
            assert!(draw.iter().all(|head| head.layer != 1 && scores[head.layer][head.head] <= 0.1));
        }
        assert_eq!(Contest::draw(&scores, &params, 0.1, 7), Some(contest), "a seed gives the same draws");
        assert_eq!(Contest::draw(&scores, &CausalParams { k: 6, ..params }, 0.1, 7), None);
    }
}
