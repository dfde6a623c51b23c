//! Retrieval heads: what they attend to is the very token that the model is about to write.

mod causal;
mod copies;
mod evidence;
mod haystack;
mod texts;

pub use self::copies::CopyScores;
pub(super) use self::evidence::findings;
pub use self::evidence::{ReadPrompt, ShownPrompt};
pub use self::haystack::Placement;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::causal::{CausalParams, CausalTask, Contest, Question};
use self::copies::recall;
use self::haystack::{Haystacks, NEEDLES, deepest_first};
use self::texts::GivenText;
use super::doc::{Doc, Threshold};
use super::{Ask, DetectError, Detector, Draws, Findings, Ground, HeadTable, MAX_PARAM, OfDraw, Work};
use crate::backend::Backend;
use crate::decode::{Decode, Draft, Generated, StopRules};
use crate::forward::KvCache;
use crate::hooks::{PlanError, check_ids};
use crate::ids::TokenId;
use crate::tokenizer::{Tokenizer, TokenizerError};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "retrieval",
        version: 1,
        title: "Retrieval",
        looks_for: "Heads that, while the model answers from a long text, attend to the very token of the text that the model \
                    writes next.",
        why_it_matters: "Few heads carry facts from the prompt into the answer; switched off, the model answers fluently and \
                         wrongly.",
        score: "While the model decodes greedily, a head copies token w if the key with the largest attention (the first among \
                equals) of the row that produces w lies in the needle's answer and holds w. Score |g ∩ k| / |k|: of the set k of \
                the answer's token ids, the share that the head copied; mean over prompts, also over those that the model got \
                wrong. 0 to 1. Parameters: scoring \"set\" (the paper's, default) or \"count\" (the authors' script: every \
                copying step adds 1 / the answer's length, repeats included); lengths ([256] tokens), depths ([0, 25, 50, 75, \
                100] percent), n_needles (3 of 6), max_new_tokens (20), or prompts of your own ([{\"ids\", \"span\": [start, \
                end], \"max_new_tokens\", \"stop_ids\"}]), or texts of your own ([{\"text\", \"needle\", \"question\"}]: the needle is \
                the part of the text that answers, the question ends where the answer begins); causal ({\"k\": 5, \"n_draws\": 10, \"n_prompts\": 4, \"edits\": [\"zero\", \
                \"mean\", \"uniform\"]}; uniform attention is what the authors' script masks heads with) also measures how much less probable the right answer is without the k strongest heads, against k \
                other heads of their layers.",
        stimulus: "Sentences with an answer (needles), put after a sentence's end at several depths of public-domain prose \
                   (Moby-Dick), then a question and the beginning of the answer; the answer itself comes next. Decoding stops \
                   at a new line or a special token. The seed says with which sentence the prose begins.",
        source: "Wu et al. 2024, “Retrieval Head Mechanistically Explains Long-Context Factuality”",
        known_confusions: "Mechanically close to induction: the same heads often lead both. A model that answers wrongly gives \
                           its heads nothing to copy, so the scores over the prompts that succeeded (more than half of the \
                           answer's token ids generated) stand beside. A head whose largest key is the first token scores 0 \
                           whatever its second is.",
        threshold: Some(Threshold { value: THRESHOLD, source: "Wu et al. 2024" }),
        weights_only: false,
    },
    plan,
};

/// Scores above this name a retrieval head.
const THRESHOLD: f32 = 0.1;
/// Tokens generated at most, unless the caller says otherwise.
const MAX_NEW_TOKENS: usize = 20;
/// Lengths of prompts, tokens, unless the caller says otherwise.
const DEFAULT_LENGTHS: [usize; 1] = [256];
/// Depths, percent.
const DEFAULT_DEPTHS: [f32; 5] = [0.0, 25.0, 50.0, 75.0, 100.0];
/// Needles.
const DEFAULT_N_NEEDLES: usize = 3;
/// What question and answer cost, tokens: most are read one by one, each about five times as dear as in a long row.
const ANSWER_COST: f64 = 120.0;
/// Bytes that a token of English stands for, roughly.
const BYTES_A_TOKEN: f64 = 4.0;
/// A prompt succeeded when more than this share of the answer's token ids was generated (the authors' filter, which
/// takes ROUGE-1 recall).
const SUCCESS_RECALL: f32 = 0.5;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    scoring: Scoring,
    prompts: Option<Vec<GivenPrompt>>,
    texts: Option<Vec<GivenText>>,
    lengths: Option<Vec<usize>>,
    depths: Option<Vec<f32>>,
    n_needles: Option<usize>,
    max_new_tokens: Option<usize>,
    causal: Option<CausalParams>,
}

/// How a head's copying steps on one prompt become its score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Scoring {
    /// Each of the answer's token ids counts once.
    #[default]
    Set,
    /// Each copying step counts.
    Count,
}

/// A prompt of the caller's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenPrompt {
    ids: Vec<TokenId>,
    /// First position of the answer, and the position after its last.
    span: (usize, usize),
    max_new_tokens: Option<usize>,
    #[serde(default)]
    stop_ids: Vec<TokenId>,
}

/// A prompt with an answer hidden in it.
#[derive(Clone, Debug, PartialEq)]
struct RetrievalPrompt {
    ids: Vec<TokenId>,
    /// Positions of the answer.
    span: Range<usize>,
    rules: StopRules,
    /// Where the needle was put; `None` of a prompt of the caller's.
    placement: Option<Placement>,
    /// Tokens at its beginning that are those of the prompt before: their keys and values are there.
    n_shared: usize,
}

impl RetrievalPrompt {
    fn answer(&self) -> &[TokenId] {
        &self.ids[self.span.clone()]
    }

    /// The model is likely to write the answer with the token behind it, mostly a full stop; a model that answers wrongly
    /// often copies too.
    fn draft(&self) -> Draft {
        let end = (self.span.end + 1).min(self.ids.len());
        Draft { text: self.ids.clone(), first: self.span.start..end }
    }
}

/// What is read and how it is scored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RetrievalWork {
    stimulus: String,
    prompts: Vec<RetrievalPrompt>,
    scoring: Scoring,
    /// Whether the model's need for the heads found is measured too.
    causal: Option<CausalParams>,
    seed: u64,
    n_layers: usize,
}

impl RetrievalWork {
    /// The prompts from the first of a range to before its end. What is done with the heads that all of them found is no part's work.
    pub(super) fn part(mut self, prompts: Range<usize>) -> Result<Self, DetectError> {
        let n_draws = self.prompts.len();
        if self.causal.is_some() {
            return Err(DetectError::NoDraws);
        }
        if prompts.is_empty() || prompts.end > n_draws {
            return Err(DetectError::NoSuchDraws { start: prompts.start, end: prompts.end, n_draws });
        }
        self.prompts = self.prompts.drain(prompts).collect();
        Ok(self)
    }
}

/// What each prompt that a request's parameters name costs, in tokens read, where prompts can be read apart.
pub(super) fn costs(params: &Value) -> Option<Vec<f64>> {
    let params: Params =
        if params.is_null() { Params::default() } else { Params::deserialize(params).ok()? };
    if params.causal.is_some() {
        return None;
    }
    let costs: Vec<f64> = match (&params.prompts, &params.texts) {
        (Some(prompts), _) => {
            let before = std::iter::once(&[][..]).chain(prompts.iter().map(|prompt| &prompt.ids[..]));
            let pairs = prompts.iter().zip(before);
            pairs.map(|(prompt, before)| (prompt.ids.len() - n_same(before, &prompt.ids)) as f64).collect()
        }
        (None, Some(texts)) => texts.iter().map(|text| text.n_bytes() as f64 / BYTES_A_TOKEN).collect(),
        (None, None) => {
            let lengths = params.lengths.unwrap_or_else(|| DEFAULT_LENGTHS.to_vec());
            let depths = deepest_first(params.depths.as_deref().unwrap_or(&DEFAULT_DEPTHS));
            let n_needles = params.n_needles.unwrap_or(DEFAULT_N_NEEDLES);
            if n_needles > NEEDLES.len() {
                return None;
            }
            // What comes before the needle is there from the prompt before.
            let of_depth = |length: usize, depth: f32| length as f64 * (1.0 - f64::from(depth) / 100.0);
            let of_length = |&length: &usize| depths.iter().map(move |&depth| of_depth(length, depth));
            let costs = lengths.iter().flat_map(of_length);
            costs.flat_map(|cost| std::iter::repeat_n(cost, n_needles)).collect()
        }
    };
    Some(costs.into_iter().map(|cost| cost + ANSWER_COST).collect())
}

impl Params {
    /// Fails when more than one stimulus is named.
    fn check_one_stimulus(&self) -> Result<(), DetectError> {
        let is_generated = self.lengths.is_some() || self.depths.is_some() || self.n_needles.is_some();
        let n_named =
            [self.prompts.is_some(), self.texts.is_some(), is_generated].into_iter().filter(|is| *is);
        if n_named.count() > 1 {
            return Err(DetectError::Params(
                "prompts or texts of your own exclude each other, and lengths, depths and n_needles; leave out the one or \
                 the others"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

fn plan(ask: &Ask<'_>) -> Result<Work, DetectError> {
    let mut params: Params = ask.params()?;
    if ask.sequences.is_some() {
        return Err(DetectError::Params(
            "sequences alone do not say where the answer is; give {\"prompts\": [{\"ids\": [5, 6, 7, 8], \"span\": [1, 3]}]} in \
             params"
                .to_owned(),
        ));
    }
    if let Some(causal) = &params.causal {
        causal.check(ask.config.n_layers * ask.config.n_heads)?;
    }
    let causal = params.causal.clone();
    params.check_one_stimulus()?;
    let (stimulus, mut prompts) = match (params.prompts.take(), &params.texts) {
        (Some(given), _) => given_prompts(given, params.max_new_tokens),
        (None, Some(texts)) => prompts_of_texts(ask, texts, params.max_new_tokens)?,
        (None, None) => generated_prompts(ask, &params)?,
    };
    check_prompts(ask, &prompts, causal.is_some())?;
    for index in 1..prompts.len() {
        // At least one token is read anew: its row is the first that is scored.
        let n_same = n_same(&prompts[index - 1].ids, &prompts[index].ids);
        prompts[index].n_shared = n_same.min(prompts[index].ids.len() - 1);
    }
    let n_layers = ask.config.n_layers;
    let (scoring, seed) = (params.scoring, ask.seed);
    Ok(Work::Retrieval(RetrievalWork { stimulus, prompts, scoring, causal, seed, n_layers }))
}

fn given_prompts(given: Vec<GivenPrompt>, max_new_tokens: Option<usize>) -> (String, Vec<RetrievalPrompt>) {
    let stimulus = format!("{} given prompts, used as they are", given.len());
    let prompts = given.into_iter().map(|GivenPrompt { ids, span, max_new_tokens: own, stop_ids }| {
        let max_new_tokens = own.or(max_new_tokens).unwrap_or(MAX_NEW_TOKENS);
        let rules = StopRules { max_new_tokens, stop_ids };
        RetrievalPrompt { ids, span: span.0..span.1, rules, placement: None, n_shared: 0 }
    });
    (stimulus, prompts.collect())
}

fn prompts_of_texts(
    ask: &Ask<'_>,
    texts: &[GivenText],
    max_new_tokens: Option<usize>,
) -> Result<(String, Vec<RetrievalPrompt>), DetectError> {
    let rules = StopRules {
        max_new_tokens: max_new_tokens.unwrap_or(MAX_NEW_TOKENS),
        stop_ids: stop_ids(ask.tokenizer)?,
    };
    let prompts = texts
        .iter()
        .enumerate()
        .map(|(number, text)| text.prompt(number, ask.bos, rules.clone(), ask.tokenizer))
        .collect::<Result<Vec<_>, _>>()?;
    let noun = if texts.len() == 1 { "given text" } else { "given texts" };
    let stimulus = format!("{} {noun} with their own needles, {}", texts.len(), bos_text(ask.bos));
    Ok((stimulus, prompts))
}

/// Whether a BOS comes first, for people.
fn bos_text(bos: Option<TokenId>) -> String {
    bos.map_or_else(|| "no BOS".to_owned(), |id| format!("BOS {id} in front"))
}

fn generated_prompts(ask: &Ask<'_>, params: &Params) -> Result<(String, Vec<RetrievalPrompt>), DetectError> {
    let haystacks = Haystacks {
        lengths: params.lengths.clone().unwrap_or_else(|| DEFAULT_LENGTHS.to_vec()),
        depths: params.depths.clone().unwrap_or_else(|| DEFAULT_DEPTHS.to_vec()),
        n_needles: params.n_needles.unwrap_or(DEFAULT_N_NEEDLES),
        bos: ask.bos,
        seed: ask.seed,
    };
    check_haystacks(ask, &haystacks)?;
    let rules = StopRules {
        max_new_tokens: params.max_new_tokens.unwrap_or(MAX_NEW_TOKENS),
        stop_ids: stop_ids(ask.tokenizer)?,
    };
    let prompts = haystacks.build(ask.tokenizer)?.into_iter().map(|hidden| RetrievalPrompt {
        ids: hidden.ids,
        span: hidden.span,
        rules: rules.clone(),
        placement: Some(hidden.placement),
        n_shared: 0,
    });
    let bos = bos_text(ask.bos);
    let stimulus = format!(
        "{} needles at depths of {} percent in prompts of at most {} tokens, {bos}, seed {}",
        haystacks.n_needles,
        listed(&haystacks.depths),
        listed(&haystacks.lengths),
        ask.seed,
    );
    Ok((stimulus, prompts.collect()))
}

/// Numbers one after another, for people.
fn listed(numbers: &[impl ToString]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn check_haystacks(ask: &Ask<'_>, haystacks: &Haystacks) -> Result<(), DetectError> {
    let refuse = |message: String| Err(DetectError::Params(message));
    if haystacks.lengths.is_empty() || haystacks.depths.is_empty() {
        return refuse("lengths and depths need at least one number each, such as [256] and [50]".to_owned());
    }
    if let Some(&n_tokens) = haystacks.lengths.iter().find(|&&length| length > ask.config.n_ctx) {
        return Err(PlanError::PromptTooLong { n_tokens, n_ctx: ask.config.n_ctx }.into());
    }
    if let Some(depth) = haystacks.depths.iter().find(|depth| !(0.0..=100.0).contains(*depth)) {
        return refuse(format!("depth {depth} is no percentage; give 0 (the beginning) to 100 (the end)"));
    }
    if !(1..=NEEDLES.len()).contains(&haystacks.n_needles) {
        return refuse(format!("n_needles is {}; give 1 to {}", haystacks.n_needles, NEEDLES.len()));
    }
    Ok(())
}

/// A new line, where it is one token, and every special token.
fn stop_ids(tokenizer: &Tokenizer) -> Result<Vec<TokenId>, TokenizerError> {
    let newline = tokenizer.encode("\n")?;
    let newline = newline.first().copied().filter(|_| newline.len() == 1);
    Ok(newline.into_iter().chain(tokenizer.special_ids()).collect())
}

fn check_prompts(ask: &Ask<'_>, prompts: &[RetrievalPrompt], is_causal: bool) -> Result<(), DetectError> {
    if prompts.is_empty() {
        return Err(DetectError::NoPrompts);
    }
    for (index, prompt) in prompts.iter().enumerate() {
        let (n_tokens, n_ctx) = (prompt.ids.len(), ask.config.n_ctx);
        if prompt.ids.is_empty() {
            return Err(DetectError::Params(format!(
                "prompt {index} is empty; give it at least one token id"
            )));
        }
        check_ids(&prompt.ids, ask.config)?;
        let Range { start, end } = prompt.span;
        if start >= end || end > n_tokens {
            return Err(DetectError::NeedleSpan { prompt: index, start, end, n_tokens });
        }
        let max_new_tokens = prompt.rules.max_new_tokens;
        if !(1..=MAX_PARAM).contains(&max_new_tokens) {
            let message = format!("max_new_tokens is {max_new_tokens}; give 1 to {MAX_PARAM}");
            return Err(DetectError::Params(message));
        }
        // The right answer is read too where its probability is measured.
        let max_new_tokens = max_new_tokens.max(if is_causal { end - start } else { 0 });
        if n_tokens + max_new_tokens > n_ctx {
            return Err(DetectError::PromptFillsContext { prompt: index, n_tokens, max_new_tokens, n_ctx });
        }
    }
    Ok(())
}

/// What came of one prompt.
struct PromptResult {
    generated: Vec<Generated>,
    scores: CopyScores,
    recall: f32,
    /// Forward passes that it took.
    n_passes: usize,
}

impl PromptResult {
    fn succeeded(&self) -> bool {
        self.recall > SUCCESS_RECALL
    }
}

/// The work under way: prompt by prompt, a layer or the choice of what a pass foretells a step.
pub(super) struct RetrievalTask<B: Backend> {
    work: RetrievalWork,
    /// The prompt in progress.
    decode: Option<Decode<B>>,
    /// Keys and values of the prompt before.
    cache: KvCache<B>,
    results: Vec<PromptResult>,
    causal: Causal<B>,
}

/// The second half of the work.
enum Causal<B: Backend> {
    /// Not begun, or not asked for.
    Ahead,
    /// Why there is nothing to measure.
    Skipped(&'static str),
    Running(Box<CausalTask<B>>),
}

impl<B: Backend> RetrievalTask<B> {
    pub(super) fn new(work: RetrievalWork) -> Self {
        Self { work, decode: None, cache: KvCache::default(), results: Vec::new(), causal: Causal::Ahead }
    }

    /// A prompt counts its layers, then the tokens that may be generated.
    pub(super) fn progress(&self) -> (usize, usize) {
        let n_layers = self.work.n_layers;
        let steps = |prompt: &RetrievalPrompt| n_layers + prompt.rules.max_new_tokens;
        let of_prompt = self.decode.as_ref().map_or(0, |decode| match decode.generated().len() {
            0 => decode.n_layers_done(),
            n_generated => n_layers + n_generated,
        });
        let done: usize = self.work.prompts[..self.results.len()].iter().map(steps).sum();
        let all: usize = self.work.prompts.iter().map(steps).sum();
        let (causal_done, causal_all) = self.causal_progress();
        (done + of_prompt + causal_done, all + causal_all)
    }

    /// Layers of the passes with and without the heads, done and at most.
    fn causal_progress(&self) -> (usize, usize) {
        let Some(params) = &self.work.causal else { return (0, 0) };
        let all = params.n_prompts * params.n_passes() * self.work.n_layers;
        match &self.causal {
            Causal::Ahead => (0, all),
            Causal::Running(task) => (task.n_done() * self.work.n_layers, all),
            Causal::Skipped(_) => (all, all),
        }
    }

    pub(super) fn partial(&self) -> HeadTable {
        let mut draws = Draws::default();
        self.results.iter().for_each(|result| draws.push(result.scores.by(self.work.scoring)));
        draws.mean()
    }

    /// One layer, or the choice of the tokens that a pass foretells; true when nothing is left.
    pub(super) async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DetectError> {
        let Some(prompt) = self.work.prompts.get(self.results.len()) else {
            return self.causal_step(ground).await;
        };
        let mut decode = self.decode.take().unwrap_or_else(|| {
            let cache = self.cache.prefix(ground.backend, prompt.n_shared);
            let rest = prompt.ids[cache.n_tokens()..].to_vec();
            Decode::with_draft(cache, rest, prompt.rules.clone(), prompt.draft())
        });
        if decode.step(ground.backend, ground.model).await? {
            self.take(decode);
        } else {
            self.decode = Some(decode);
        }
        Ok(self.results.len() == self.work.prompts.len() && self.work.causal.is_none())
    }

    async fn causal_step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DetectError> {
        match (&mut self.causal, &self.work.causal) {
            (_, None) | (Causal::Skipped(_), _) => Ok(true),
            (Causal::Running(task), _) => task.step(ground).await,
            (Causal::Ahead, Some(params)) => {
                self.causal = self.begin_causal(params.clone());
                Ok(matches!(self.causal, Causal::Skipped(_)))
            }
        }
    }

    fn begin_causal(&self, params: CausalParams) -> Causal<B> {
        let prompts = self.work.prompts.iter().zip(&self.results);
        let questions: Vec<Question> = prompts
            .filter(|(prompt, result)| result.succeeded() && prompt.ids.len() > 1)
            .map(|(prompt, _)| Question { prompt: prompt.ids.clone(), answer: prompt.answer().to_vec() })
            .collect();
        if questions.is_empty() {
            return Causal::Skipped(
                "the model answered no prompt, so there is nothing that a head could lose",
            );
        }
        match Contest::draw(&self.partial(), &params, THRESHOLD, self.work.seed) {
            Some(contest) => Causal::Running(Box::new(CausalTask::new(params, contest, questions))),
            None => Causal::Skipped(
                "the strongest heads' layers have fewer than k other heads below the threshold to compare with; lower k",
            ),
        }
    }

    /// Scores a prompt that is done, and keeps what was read for the next.
    fn take(&mut self, decode: Decode<B>) {
        let prompt = &self.work.prompts[self.results.len()];
        let n_passes = decode.n_passes();
        let (generated, cache) = decode.finish();
        self.cache = cache;
        let scores = CopyScores::of(&prompt.ids, prompt.span.clone(), &generated);
        let ids: Vec<TokenId> = generated.iter().map(|token| token.id).collect();
        self.results.push(PromptResult {
            recall: recall(prompt.answer(), &ids),
            scores,
            generated,
            n_passes,
        });
    }

    /// What was found, and what each prompt gave to it.
    pub(super) fn finish(self, tokenizer: &Tokenizer) -> (Findings, Vec<OfDraw>) {
        let RetrievalWork { stimulus, prompts, scoring, .. } = self.work;
        let of_draws: Vec<OfDraw> = (prompts.iter().zip(self.results))
            .map(|(prompt, result)| evidence::of_draw(prompt, result, scoring, tokenizer))
            .collect();
        let mut findings = findings(stimulus, &of_draws);
        findings.evidence["causal"] = match &self.causal {
            Causal::Ahead => Value::Null,
            Causal::Skipped(why) => json!({ "skipped": why }),
            Causal::Running(task) => task.evidence(),
        };
        (findings, of_draws)
    }
}

/// Ids that two sequences have in common at their beginning.
fn n_same(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
