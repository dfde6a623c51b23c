//! Detectors: which heads do a known thing, as a published definition measures it.
//!
//! A detector is one file with its [`Doc`] and a plan function, and one line in [`DETECTORS`]. The plan is data, checked
//! before any work; [`Task`] carries it out a step at a time on any backend. The head map's readings of the prompt at
//! hand use the same [`target`]s.

pub mod attention;
pub mod doc;
pub mod ov;
pub mod stimulus;
pub mod target;
pub mod vocabulary;

mod copying;
mod copying_top1;
mod current_token;
mod custom;
mod duplicate_token;
mod entropy;
mod first_token;
mod induction;
mod induction_diagonal;
mod induction_jittered;
mod previous_token;
pub mod retrieval;
mod successor;
mod tl_detect_head;

pub use target::{AttentionTarget, mean_over_rows};

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::{Backend, DeviceError};
use crate::detect::attention::{AttentionTask, AttentionWork, Copies, CopyLosses};
use crate::detect::copying::{CopyingTask, CopyingWork};
use crate::detect::copying_top1::{CopyAccuracyTask, CopyAccuracyWork};
use crate::detect::doc::Doc;
use crate::detect::retrieval::{ReadPrompt, RetrievalTask, RetrievalWork};
use crate::detect::stimulus::{RepeatedBlocks, Stimulus};
use crate::detect::successor::{SuccessorTask, SuccessorWork};
use crate::detect::target::RepeatedBlock;
use crate::forward::{LoadedModel, RunError};
use crate::hooks::PlanError;
use crate::ids::TokenId;
use crate::model::ModelConfig;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// A number for every head, `[layer][head]`.
pub type HeadTable = Vec<Vec<f32>>;

/// A detector: what it says of itself, and how its work follows from a request.
pub struct Detector {
    /// Its description.
    pub doc: Doc,
    /// Checks a request and plans the work.
    plan: fn(&Ask<'_>) -> Result<Work, DetectError>,
}

/// Every detector, in the order in which people meet them.
const DETECTORS: [&Detector; 14] = [
    &induction::DETECTOR,
    &induction_diagonal::DETECTOR,
    &induction_jittered::DETECTOR,
    &previous_token::DETECTOR,
    &duplicate_token::DETECTOR,
    &first_token::DETECTOR,
    &current_token::DETECTOR,
    &entropy::DETECTOR,
    &tl_detect_head::DETECTOR,
    &copying::DETECTOR,
    &copying_top1::DETECTOR,
    &successor::DETECTOR,
    &retrieval::DETECTOR,
    &custom::DETECTOR,
];

/// Every detector's description, apart from its work: a page that only explains needs no engine.
pub static DOCS: [Doc; DETECTORS.len()] = {
    let mut docs = [DETECTORS[0].doc; DETECTORS.len()];
    let mut index = 1;
    while index < docs.len() {
        docs[index] = DETECTORS[index].doc;
        index += 1;
    }
    docs
};

/// A detector by its id; `previous-token` is `previous_token`.
pub fn find(id: &str) -> Result<&'static Detector, DetectError> {
    let wanted = id.replace('-', "_");
    let found = DETECTORS.into_iter().find(|detector| detector.doc.id == wanted);
    found.ok_or_else(|| DetectError::UnknownDetector {
        id: id.to_owned(),
        known: DETECTORS.map(|detector| detector.doc.id).join(", "),
    })
}

/// What a detector is asked, and about which model.
pub struct Ask<'a> {
    /// The model's sizes.
    pub config: &'a ModelConfig,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Put before generated sequences, if any.
    pub bos: Option<TokenId>,
    /// Seed of generated sequences.
    pub seed: u64,
    /// The caller's own sequences in place of generated ones.
    pub sequences: Option<Vec<Vec<TokenId>>>,
    /// The detector's own parameters, an object; null for the defaults.
    pub params: Value,
}

impl Ask<'_> {
    /// The parameters as the detector's own type.
    fn params<T: DeserializeOwned + Default>(&self) -> Result<T, DetectError> {
        if self.params.is_null() {
            return Ok(T::default());
        }
        serde_json::from_value(self.params.clone()).map_err(|error| DetectError::Params(error.to_string()))
    }

    /// The caller's sequences, or blocks of random tokens.
    fn blocks(&self, defaults: BlockDefaults, params: BlockParams) -> Result<Stimulus, DetectError> {
        if let Some(sequences) = &self.sequences {
            return Ok(Stimulus::given(sequences.clone()));
        }
        let lengths = params.n_tokens.map_or(defaults.lengths, |n_tokens| (n_tokens, n_tokens));
        let n_repeats = params.n_repeats.unwrap_or(defaults.n_repeats);
        let n_draws = params.n_draws.unwrap_or(N_DRAWS);
        for (name, value, least) in
            [("n_tokens", lengths.0, 1), ("n_repeats", n_repeats, 2), ("n_draws", n_draws, 1)]
        {
            if value < least || value > MAX_PARAM {
                return Err(DetectError::Params(format!("{name} is {value}; give {least} to {MAX_PARAM}")));
            }
        }
        let n_tokens = lengths.1.saturating_mul(n_repeats) + usize::from(self.bos.is_some());
        if n_tokens > self.config.n_ctx {
            return Err(PlanError::PromptTooLong { n_tokens, n_ctx: self.config.n_ctx }.into());
        }
        let blocks = RepeatedBlocks {
            d_vocab: self.config.d_vocab,
            bos: self.bos,
            min_len: lengths.0,
            max_len: lengths.1,
            n_repeats,
            n_draws,
            seed: self.seed,
        };
        Ok(blocks.draw())
    }
}

/// Draws of a generated stimulus, unless the caller says otherwise.
pub const N_DRAWS: usize = 4;
/// Largest value of a count among the parameters.
const MAX_PARAM: usize = 10_000;

/// What a detector's generated blocks are like.
#[derive(Clone, Copy)]
struct BlockDefaults {
    /// Shortest and longest block.
    lengths: (usize, usize),
    /// Times that a block is read.
    n_repeats: usize,
}

/// Parameters of generated blocks.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BlockParams {
    n_tokens: Option<usize>,
    n_repeats: Option<usize>,
    n_draws: Option<usize>,
}

/// The first two copies of each sequence, for their losses; `None` unless every sequence is one block over and over.
fn copies_of(stimulus: &Stimulus) -> Option<Vec<Copies>> {
    let copies = stimulus.sequences.iter().map(|ids| {
        let RepeatedBlock { start, period } = RepeatedBlock::of(ids)?;
        // The second copy's own loss needs a second token.
        (period > 1).then_some(Copies { first: start, second: start + period, end: start + 2 * period })
    });
    copies.collect()
}

/// A detector that reads attention to one target over repeated blocks of random tokens.
fn targeted(
    ask: &Ask<'_>,
    target: AttentionTarget,
    defaults: BlockDefaults,
    lacks: &'static str,
) -> Result<Work, DetectError> {
    let stimulus = ask.blocks(defaults, ask.params()?)?;
    let copies = (target == AttentionTarget::Induction).then(|| copies_of(&stimulus)).flatten();
    let mut work =
        AttentionWork::new(stimulus, |ids| attention::Reading::TargetedMass(target.keys_in_stimulus(ids)));
    work.copies = copies;
    work.check(lacks)?;
    Ok(Work::Attention(work))
}

/// What a detector does, as data.
#[derive(Clone, Debug, PartialEq)]
enum Work {
    Attention(AttentionWork),
    Copying(CopyingWork),
    CopyAccuracy(CopyAccuracyWork),
    Successor(SuccessorWork),
    Retrieval(RetrievalWork),
}

/// A loaded model to work on.
pub struct Ground<'a, B: Backend> {
    /// Where it computes.
    pub backend: &'a B,
    /// Its weights.
    pub model: &'a LoadedModel<B>,
}

/// Scores of several draws: their mean and spread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draws {
    n: usize,
    mean: Vec<Vec<f64>>,
    /// Sum of squared distances from the mean (Welford 1962).
    squares: Vec<Vec<f64>>,
}

impl Draws {
    /// Takes one draw's scores.
    pub fn push(&mut self, scores: &HeadTable) {
        if self.n == 0 {
            self.mean = scores.iter().map(|heads| vec![0.0; heads.len()]).collect();
            self.squares = self.mean.clone();
        }
        self.n += 1;
        let cells = self.mean.iter_mut().flatten().zip(self.squares.iter_mut().flatten());
        for ((mean, squares), score) in cells.zip(scores.iter().flatten()) {
            let from_old = f64::from(*score) - *mean;
            *mean += from_old / self.n as f64;
            *squares += from_old * (f64::from(*score) - *mean);
        }
    }

    /// Draws so far.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Mean over draws; empty before the first.
    pub fn mean(&self) -> HeadTable {
        self.mean.iter().map(|heads| heads.iter().map(|mean| *mean as f32).collect()).collect()
    }

    /// Standard deviation over draws (with n - 1); `None` of fewer than two.
    pub fn spread(&self) -> Option<HeadTable> {
        let deviation = |squares: &f64| (squares / (self.n - 1) as f64).sqrt() as f32;
        (self.n > 1).then(|| self.squares.iter().map(|heads| heads.iter().map(deviation).collect()).collect())
    }
}

/// What a detector found.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    /// What the model read, or what was read off its weights.
    pub stimulus: String,
    /// Draws, or for a weights-only score the items that each head was scored on.
    pub n: usize,
    /// Every head's score.
    pub scores: HeadTable,
    /// Standard deviation over draws, where there are several.
    pub spread: Option<HeadTable>,
    /// What stands behind the scores; the shape is the detector's own.
    pub evidence: Value,
}

/// What one draw of a stimulus gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct OfDraw {
    /// `[layer][head]`.
    pub scores: Vec<Vec<f32>>,
    /// The losses on its copies, where they are compared.
    pub copies: Option<CopyLosses>,
    /// What a prompt with an answer in it gave, where the draw is one.
    pub prompt: Option<ReadPrompt>,
}

/// What a stimulus' draws found together: their order counts, their division among workers does not.
pub fn findings(stimulus: String, of_draws: &[OfDraw]) -> Findings {
    match of_draws.iter().any(|of_draw| of_draw.prompt.is_some()) {
        true => retrieval::findings(stimulus, of_draws),
        false => attention::findings(stimulus, of_draws),
    }
}

/// Draws of a detector's stimulus, where its score is a mean over draws that can be read apart; `None` too of parameters that it
/// refuses. The detector may be any of [`DOCS`], `sequences` are those given in place of its own.
pub fn n_draws(doc: &Doc, sequences: Option<&[Vec<TokenId>]>, params: &Value) -> Option<usize> {
    if doc.id == retrieval::DETECTOR.doc.id {
        return retrieval::costs(params).map(|costs| costs.len());
    }
    let asked = || params.get("n_draws")?.as_u64().map(|n_draws| n_draws as usize);
    doc.reads_sequences().then(|| sequences.map(<[_]>::len).or_else(asked).unwrap_or(N_DRAWS))
}

/// What each draw of a detector's stimulus costs, in units of its own; `None` where all cost the same, or draws cannot be read apart.
pub fn draw_costs(doc: &Doc, params: &Value) -> Option<Vec<f64>> {
    (doc.id == retrieval::DETECTOR.doc.id).then(|| retrieval::costs(params)).flatten()
}

/// A detector at work.
pub struct Task<B: Backend>(TaskOf<B>);

enum TaskOf<B: Backend> {
    Attention(Box<AttentionTask<B>>),
    Copying(CopyingTask),
    CopyAccuracy(CopyAccuracyTask<B>),
    Successor(SuccessorTask<B>),
    Retrieval(Box<RetrievalTask<B>>),
}

impl<B: Backend> Task<B> {
    /// Checks a request and plans its work, or that of some of its draws.
    pub fn plan(
        detector: &Detector,
        ask: &Ask<'_>,
        draws: Option<Range<usize>>,
    ) -> Result<Self, DetectError> {
        let mut work = (detector.plan)(ask)?;
        if let Some(draws) = draws {
            work = match work {
                Work::Attention(whole) => Work::Attention(whole.part(draws)?),
                Work::Retrieval(whole) => Work::Retrieval(whole.part(draws)?),
                _ => return Err(DetectError::NoDraws),
            };
        }
        Ok(Self(match work {
            Work::Attention(work) => {
                TaskOf::Attention(Box::new(AttentionTask::new(work, ask.config.n_layers)))
            }
            Work::Copying(work) => TaskOf::Copying(CopyingTask::new(work)),
            Work::CopyAccuracy(work) => TaskOf::CopyAccuracy(CopyAccuracyTask::new(work)),
            Work::Successor(work) => TaskOf::Successor(SuccessorTask::new(work)),
            Work::Retrieval(work) => TaskOf::Retrieval(Box::new(RetrievalTask::new(work))),
        }))
    }

    /// A short piece of the work; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DetectError> {
        match &mut self.0 {
            TaskOf::Attention(task) => task.step(ground).await,
            TaskOf::Copying(task) => Ok(task.step(ground).await?),
            TaskOf::CopyAccuracy(task) => Ok(task.step(ground).await?),
            TaskOf::Successor(task) => Ok(task.step(ground).await?),
            TaskOf::Retrieval(task) => task.step(ground).await,
        }
    }

    /// Steps done and in all, in units of the detector's own.
    pub fn progress(&self) -> (usize, usize) {
        match &self.0 {
            TaskOf::Attention(task) => task.progress(),
            TaskOf::Copying(task) => task.progress(),
            TaskOf::CopyAccuracy(task) => task.progress(),
            TaskOf::Successor(task) => task.progress(),
            TaskOf::Retrieval(task) => task.progress(),
        }
    }

    /// Scores as far as they are known: the mean of the draws so far, or the layers done.
    pub fn partial(&self) -> HeadTable {
        match &self.0 {
            TaskOf::Attention(task) => task.partial(),
            TaskOf::Copying(task) => task.partial(),
            TaskOf::CopyAccuracy(task) => task.partial(),
            TaskOf::Successor(task) => task.partial(),
            TaskOf::Retrieval(task) => task.partial(),
        }
    }

    /// What was found, once nothing is left, and what each draw gave to it where the score is a mean over draws; the tokenizer
    /// spells what was generated.
    pub fn finish(self, tokenizer: &Tokenizer) -> (Findings, Vec<OfDraw>) {
        let findings = match self.0 {
            TaskOf::Attention(task) => {
                let (stimulus, of_draws) = task.finish();
                let findings = attention::findings(stimulus, &of_draws);
                return (findings, of_draws);
            }
            TaskOf::Retrieval(task) => return task.finish(tokenizer),
            TaskOf::Copying(task) => task.finish(),
            TaskOf::CopyAccuracy(task) => task.finish(),
            TaskOf::Successor(task) => task.finish(tokenizer),
        };
        (findings, Vec::new())
    }
}

/// Why a detector cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No such detector.
    #[error("there is no detector \"{id}\"; choose one of {known}")]
    UnknownDetector {
        /// What was asked for.
        id: String,
        /// Every id.
        known: String,
    },
    /// Parameters that do not fit.
    #[error("the detector's parameters do not fit: {0}")]
    Params(String),
    /// An empty list of sequences.
    #[error("there is no sequence to read; give at least one list of token ids")]
    NoSequences,
    /// Draws that the stimulus does not have.
    #[error("there are no draws {start} to {end}; the stimulus has {n_draws}")]
    NoSuchDraws {
        /// The first.
        start: usize,
        /// The one after the last.
        end: usize,
        /// How many there are.
        n_draws: usize,
    },
    /// A part of the draws of a detector whose score is no mean over draws, or which goes on with what all of them gave.
    #[error("this work is not divided by draws; leave `draws` out")]
    NoDraws,
    /// A sequence without anything the detector could read.
    #[error("sequence {sequence} {lacks}")]
    NothingToRead {
        /// Which, counting from 0.
        sequence: usize,
        /// What it lacks and what would work.
        lacks: &'static str,
    },
    /// No prompts, where the detector reads prompts with an answer hidden in them.
    #[error("there is no prompt to read; give at least one like {{\"ids\": [5, 6, 7, 8], \"span\": [1, 3]}}")]
    NoPrompts,
    /// A span that is empty or not within its prompt.
    #[error(
        "the needle of prompt {prompt} is at {start} to {end}, which is no span of its {n_tokens} tokens; give [start, end] with start < end and end at most {n_tokens}"
    )]
    NeedleSpan {
        /// Which, counting from 0.
        prompt: usize,
        /// First position.
        start: usize,
        /// Position after the last.
        end: usize,
        /// Tokens of the prompt.
        n_tokens: usize,
    },
    /// A needle that is not in its text.
    #[error("text {text} does not hold the needle \"{needle}\"; copy it from the text, letter by letter")]
    NeedleNotFound {
        /// Which, counting from 0.
        text: usize,
        /// What was looked for.
        needle: String,
    },
    /// A prompt that leaves no room for its answer.
    #[error(
        "prompt {prompt} has {n_tokens} tokens and may be answered by {max_new_tokens}, but this model reads at most {n_ctx}; together they must not exceed it"
    )]
    PromptFillsContext {
        /// Which, counting from 0.
        prompt: usize,
        /// Tokens of the prompt.
        n_tokens: usize,
        /// Tokens of the answer at most.
        max_new_tokens: usize,
        /// Tokens the model reads.
        n_ctx: usize,
    },
    /// The model lacks a part that the definition reads.
    #[error("{0}")]
    ModelLacks(&'static str),
    /// No class has two members in a row that are single tokens.
    #[error(
        "no ordinal sequence has two neighbours that are single tokens in this tokenizer; give classes of your own in params"
    )]
    NoClasses,
    /// Sequences that the model cannot read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Words that cannot be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl From<RunError> for DetectError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Plan(error) => error.into(),
            RunError::Device(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detector_is_registered_once_and_says_what_it_is() {
        let ids: std::collections::BTreeSet<_> = DETECTORS.iter().map(|detector| detector.doc.id).collect();
        assert_eq!(ids.len(), DETECTORS.len());
        for detector in DETECTORS {
            let Doc {
                id, title, looks_for, why_it_matters, score, stimulus, source, known_confusions, ..
            } = detector.doc;
            for section in [title, looks_for, why_it_matters, score, stimulus, source, known_confusions] {
                assert!(section.len() > 6, "{id} has an empty section");
            }
            assert!(detector.doc.version > 0);
            assert!(DOCS.contains(&detector.doc));
            assert_eq!(find(id).expect("registered").doc, detector.doc);
        }
        assert_eq!(find("previous-token").expect("registered").doc.id, "previous_token");
        assert!(find("no_such_detector").is_err_and(|error| error.to_string().contains("induction")));
    }

    #[test]
    fn mean_and_spread_of_draws() {
        let mut draws = Draws::default();
        assert_eq!(draws.spread(), None);
        for score in [1.0, 2.0, 6.0] {
            draws.push(&vec![vec![score, 5.0]]);
        }
        assert_eq!(draws.mean(), vec![vec![3.0, 5.0]]);
        let spread = draws.spread().expect("three draws");
        assert!((spread[0][0] - 7f32.sqrt()).abs() < 1e-6 && spread[0][1] == 0.0);
    }
}
