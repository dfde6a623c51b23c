//! One forward pass with what the page shows of it: next tokens, losses, every head's attention, patterns. A run with
//! edits can start from the clean run of its prompt, where that was kept whole.

use std::rc::Rc;

use super::{Buffer, Engine, block_on};
use crate::activations::Activations;
use crate::backend::{Backend, Device, DeviceError, LogitRead};
use crate::detect::{AttentionTarget, mean_over_rows};
use crate::error::Error;
use crate::forward::{BaseRun, Donors, Finished, NewPart, Pass, UNEMBED_ROWS, unembed_chunk};
use crate::hooks::{Edits, RunPlan, check_vocabulary};
use crate::ids::{HeadId, TokenId};
use crate::metrics::{logsumexp, top_indices};
use crate::report::{HeadScores, PatternReport, RunReport, RunRequest, TokensReport};

/// What a run gives beyond the next-token report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// The loss of every token of the prompt.
    pub nll: bool,
    /// Every head's attention on each [`AttentionTarget`].
    pub scores: bool,
    /// Whose patterns to keep.
    pub patterns: PatternsWanted,
    /// Whether to keep the run whole, for runs with edits to start from; of a run without edits only.
    pub base: bool,
}

/// Whose patterns to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatternsWanted {
    /// Nobody's.
    #[default]
    None,
    /// One head's.
    Head(HeadId),
    /// Every head's: `n_layers * n_heads * n_tokens²` f32.
    All,
}

/// A run under way.
pub struct RunTask {
    tokens: TokensReport,
    top: usize,
    watch: Vec<TokenId>,
    want: Want,
    n_layers: usize,
    /// The clean run of the same prompt, to start from.
    clean: Option<Rc<RunOutcome>>,
    /// What is not the clean run's, of a run that starts from it.
    new: Option<NewPart>,
    plan: RunPlan,
    /// Taken while a step changes it; never left empty.
    state: Option<RunState>,
}

enum RunState {
    /// Other runs, whose activations an edit reads.
    Donors(Box<Donors<Device>>),
    Layers(Box<Pass<Device>>),
    Unembedding(Box<Unembedding>),
}

/// Losses and last logits, chunk by chunk.
struct Unembedding {
    normalized: Buffer,
    activations: Activations,
    base: Option<BaseRun<Device>>,
    next_position: usize,
    nll_nats: Vec<f32>,
    logits: Vec<f32>,
}

impl Engine {
    /// Starts a run; everything is checked before any work.
    pub fn start(&self, request: &RunRequest, want: Want) -> Result<RunTask, Error> {
        self.start_from(None, request, want)
    }

    /// As [`Self::start`]; a kept clean run of the same prompt saves the work below the first edit, and before the first
    /// position that is edited. It must have kept the same patterns, or all of them.
    pub fn start_from(
        &self,
        clean: Option<Rc<RunOutcome>>,
        request: &RunRequest,
        want: Want,
    ) -> Result<RunTask, Error> {
        let tokens = self.prompt_tokens(&request.prompt, request.bos)?;
        check_vocabulary(&request.watch, &self.model.config)?;
        let pattern_heads = match want.patterns {
            PatternsWanted::None => Vec::new(),
            PatternsWanted::Head(head) => vec![head],
            PatternsWanted::All => self.heads().collect(),
        };
        let targets = if want.scores { AttentionTarget::ALL.as_slice() } else { &[] };
        let edits: Edits = self.resolve(&request.interventions, request.bos)?.into();
        let plan = RunPlan {
            pattern_heads,
            targets: targets.iter().map(|target| target.keys(&tokens.ids)).collect(),
            ..RunPlan::default()
        };
        plan.check(&self.model.config, tokens.ids.len())?;
        let donors = Donors::plan(&self.model.config, &tokens.ids, edits)?;
        let clean = clean.filter(|clean| {
            let is_same = clean.base.as_ref().is_some_and(|base| base.ids() == tokens.ids);
            is_same && !request.interventions.is_empty()
        });
        let (watch, n_layers) = (request.watch.clone(), self.info.n_layers);
        let state = Some(RunState::Donors(Box::new(donors)));
        Ok(RunTask { tokens, top: request.top, watch, want, n_layers, clean, new: None, plan, state })
    }
}

impl RunTask {
    /// The prompt.
    pub fn tokens(&self) -> &TokensReport {
        &self.tokens
    }

    /// Steps in all: layers, then chunks of positions to unembed.
    pub fn n_total(&self) -> usize {
        let n_tokens = self.tokens.ids.len();
        self.n_layers + if self.want.nll { n_tokens.div_ceil(UNEMBED_ROWS) } else { 1 }
    }

    /// Steps done.
    pub fn n_done(&self) -> usize {
        match &self.state {
            Some(RunState::Layers(pass)) => pass.n_done(),
            Some(RunState::Unembedding(state)) if self.want.nll => {
                self.n_layers + state.next_position.div_ceil(UNEMBED_ROWS)
            }
            Some(RunState::Unembedding(state)) => self.n_layers + usize::from(!state.logits.is_empty()),
            Some(RunState::Donors(_)) | None => 0,
        }
    }

    /// One layer, or one chunk of positions; true when nothing is left.
    pub async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        self.try_step(engine).await.map_err(|error| engine.told(error))
    }

    async fn try_step(&mut self, engine: &Engine) -> Result<bool, Error> {
        let (backend, model) = (&engine.backend, &engine.model);
        let state = self.state.take().expect("a step puts the state back");
        let mut finished = false;
        self.state = Some(match state {
            RunState::Donors(mut donors) => match donors.step(backend, model).await? {
                false => RunState::Donors(donors),
                true => {
                    self.plan.edits = donors.finish();
                    RunState::Layers(Box::new(self.pass(engine)?))
                }
            },
            RunState::Layers(mut pass) => match pass.step(backend, model) {
                false => RunState::Layers(pass),
                true => {
                    let finished = pass.finish(backend, model).await?;
                    let Finished { normalized, activations, base, .. } = self.completed(engine, finished);
                    let mut nll_nats = Vec::new();
                    let next_position = if self.want.nll { self.n_past() } else { self.tokens.ids.len() - 1 };
                    if let Some(clean) = self.clean.as_ref().filter(|_| self.want.nll) {
                        nll_nats.extend_from_slice(&clean.report.nll_nats[..next_position]);
                    }
                    let logits = Vec::new();
                    RunState::Unembedding(Box::new(Unembedding {
                        normalized,
                        activations,
                        base,
                        next_position,
                        nll_nats,
                        logits,
                    }))
                }
            },
            RunState::Unembedding(mut state) => {
                finished = state.step(engine, &self.tokens.ids).await?;
                RunState::Unembedding(state)
            }
        });
        Ok(finished)
    }

    /// Runs what is left, waits for it, and reports.
    pub fn complete(self, engine: &Engine) -> Result<RunOutcome, Error> {
        block_on(self.finish(engine))
    }

    fn pass(&mut self, engine: &Engine) -> Result<Pass<Device>, Error> {
        let (backend, model, plan) = (&engine.backend, &engine.model, self.plan.clone());
        if let Some((clean, base)) = self.clean.as_ref().and_then(|clean| Some((clean, clean.base.as_ref()?)))
        {
            // What is not computed anew must be there: patterns to take sums from, and losses.
            let has_patterns =
                !self.want.scores || engine.heads().all(|head| clean.activations.pattern(head).is_some());
            let has_losses = !self.want.nll || !clean.report.nll_nats.is_empty();
            let n_past = match has_patterns && has_losses {
                true => plan.edits.first_position().min(self.tokens.ids.len() - 1),
                false => 0,
            };
            let (pass, new) = base.restart(backend, model, &clean.activations, plan, n_past)?;
            self.new = Some(new);
            return Ok(pass);
        }
        let keeps_base = self.want.base && plan.edits.is_empty();
        let start = if keeps_base { Pass::start_keeping } else { Pass::start };
        Ok(start(backend, model, &self.tokens.ids, plan)?)
    }

    /// Positions that are the clean run's.
    fn n_past(&self) -> usize {
        self.new.map_or(0, |new| new.n_past)
    }

    /// A finished pass with the clean run's rows before its own.
    fn completed(&self, engine: &Engine, mut finished: Finished<Device>) -> Finished<Device> {
        let (Some(clean), Some(new)) = (&self.clean, self.new.filter(|new| new.n_past > 0)) else {
            return finished;
        };
        let config = &engine.model.config;
        new.complete(&mut finished.activations, &clean.activations, &self.plan.targets, config);
        let before = engine.backend.slice(&clean.normalized, 0..new.n_past * engine.info.d_model);
        finished.normalized = engine.backend.concat(vec![before, finished.normalized]);
        finished
    }

    /// Runs what is left and reports.
    pub async fn finish(mut self, engine: &Engine) -> Result<RunOutcome, Error> {
        while !self.step(engine).await? {}
        let Some(RunState::Unembedding(state)) = self.state else {
            unreachable!("a run ends in its unembedding");
        };
        let logsumexp = logsumexp(&state.logits);
        if !logsumexp.is_finite() {
            return Err(Error::NotFinite);
        }
        let token_logit = |id: TokenId| engine.token_logit(id, &state.logits, logsumexp);
        let top = top_indices(&state.logits, self.top).into_iter().map(|index| index as TokenId);
        let report = RunReport {
            ids: self.tokens.ids.clone(),
            tokens: self.tokens.tokens.clone(),
            logits_top: top.map(token_logit).collect(),
            watched: self.watch.iter().copied().map(token_logit).collect(),
            logsumexp: logsumexp as f32,
            nll_nats: state.nll_nats,
            provenance: engine.provenance(),
        };
        let scores = head_scores(&self.tokens.ids, &state.activations);
        Ok(RunOutcome {
            report,
            tokens: self.tokens,
            scores,
            logits: state.logits,
            normalized: state.normalized,
            edits: self.plan.edits,
            base: state.base,
            activations: state.activations,
        })
    }
}

impl Unembedding {
    /// Unembeds one chunk; true when the last position is done.
    async fn step(&mut self, engine: &Engine, ids: &[TokenId]) -> Result<bool, DeviceError> {
        let backend = &engine.backend;
        let positions = self.next_position..(self.next_position + unembed_chunk(backend)).min(ids.len());
        if positions.is_empty() {
            return Ok(true);
        }
        let (d_vocab, n_rows, is_last) = (engine.info.d_vocab, positions.len(), positions.end == ids.len());
        let logits = engine.unembed(&self.normalized, positions.clone());
        // The last position has no target: what is read there is left out.
        let targets = positions.clone().map(|position| ids.get(position + 1).copied().unwrap_or_default());
        let targets: Vec<TokenId> = targets.collect();
        let logprobs = backend.read_logits(&logits, d_vocab, &LogitRead::Logprob(&targets));
        let mut wanted = vec![logprobs];
        wanted.extend(is_last.then(|| backend.slice(&logits, (n_rows - 1) * d_vocab..n_rows * d_vocab)));
        let mut numbers = backend.download(wanted).await?;
        if is_last {
            self.logits = numbers.pop().unwrap_or_default();
            numbers[0].pop();
        }
        self.nll_nats.extend(numbers[0].iter().map(|logprob| -logprob));
        self.next_position = positions.end;
        Ok(is_last)
    }
}

fn head_scores(ids: &[TokenId], activations: &Activations) -> Vec<HeadScores> {
    let targets = AttentionTarget::ALL.iter().zip(activations.target_mass());
    targets
        .map(|(target, mass)| {
            let (scores, n_rows) = mean_over_rows(mass, &target.keys(ids));
            HeadScores { target: target.name().to_owned(), scores, n_rows }
        })
        .collect()
}

/// A finished run.
pub struct RunOutcome {
    /// Next tokens and losses.
    pub report: RunReport,
    /// The prompt.
    pub tokens: TokensReport,
    /// Every head's scores, if they were wanted.
    pub scores: Vec<HeadScores>,
    /// Logits at the last position, `[d_vocab]`.
    pub logits: Vec<f32>,
    /// Output of the final norm, `[pos, d_model]`.
    pub(super) normalized: Buffer,
    /// The edits, with what they read of other runs.
    pub(super) edits: Edits,
    pub(super) base: Option<BaseRun<Device>>,
    activations: Activations,
}

impl RunOutcome {
    /// One head's pattern, if it was kept.
    pub fn pattern(&self, engine: &Engine, head: HeadId) -> Option<PatternReport> {
        let pattern = self.activations.pattern(head)?;
        Some(PatternReport {
            head,
            ids: self.tokens.ids.clone(),
            tokens: self.tokens.tokens.clone(),
            pattern: pattern.rows().map(<[f32]>::to_vec).collect(),
            provenance: engine.provenance(),
        })
    }
}
