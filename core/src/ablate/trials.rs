//! Many edits of one prompt, each scored by the same metric: a kept run of the prompt, then for each batch of edits a pass
//! that restarts where the first of them begins, with a lane for each.

use std::collections::VecDeque;

use super::metric::{MetricSpec, Scorer, mean};
use super::{AblateError, UNEMBED_ROWS, unembed_rows};
use crate::backend::{Backend, DeviceError};
use crate::detect::Ground;
use crate::forward::{BaseRun, Finished, Pass};
use crate::hooks::{Edits, RunPlan, check_ids};
use crate::ids::TokenId;
use crate::model::ModelConfig;

/// Rows of lanes that go through the weights together: more would only take memory.
const MAX_LANE_ROWS: usize = 1024;

/// Lanes of a prompt that go together.
pub(super) fn lanes_per_batch(n_rows: usize) -> usize {
    (MAX_LANE_ROWS / n_rows.max(1)).max(1)
}

/// The measurements under way.
pub(super) struct Trials<B: Backend> {
    ids: Vec<TokenId>,
    spec: MetricSpec,
    /// Rows of logits that the metric reads.
    rows: Vec<usize>,
    batches: VecDeque<Vec<Edits>>,
    base: Option<BaseRun<B>>,
    scorer: Option<Scorer>,
    /// A value for each lane of the batches done.
    values: Vec<f32>,
    state: State<B>,
}

enum State<B: Backend> {
    /// Between two batches; at first, before the kept run.
    Idle,
    Base(Pass<B>),
    /// Logits of the kept run, row by row.
    Clean {
        normalized: B::Buffer,
        logits: Vec<Vec<f32>>,
    },
    Lanes(Pass<B>, usize),
    Unembedding(Unembedding<B>),
}

/// Logits of a batch's lanes, chunk by chunk.
struct Unembedding<B: Backend> {
    normalized: B::Buffer,
    n_past: usize,
    /// Lanes and rows still to be read, in order.
    todo: VecDeque<(usize, usize)>,
    /// `[lane][row]`, the clean run's where the lane has no row.
    values: Vec<Vec<f32>>,
}

impl<B: Backend> Trials<B> {
    /// Checks prompt and metric.
    pub fn new(config: &ModelConfig, ids: Vec<TokenId>, spec: MetricSpec) -> Result<Self, AblateError> {
        check_ids(&ids, config)?;
        let rows = spec.rows(ids.len(), config)?;
        let batches = VecDeque::new();
        let (values, state) = (Vec::new(), State::Idle);
        Ok(Self { ids, spec, rows, batches, base: None, scorer: None, values, state })
    }

    /// Adds batches; the lanes of one batch go together.
    pub fn extend(&mut self, batches: impl IntoIterator<Item = Vec<Edits>>) {
        self.batches.extend(batches);
    }

    /// The clean run's value and its tokens, once known.
    pub fn scorer(&self) -> Option<&Scorer> {
        self.scorer.as_ref()
    }

    /// The values so far, lane by lane in the order of the batches.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// A layer of a pass, or a chunk of logits; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        let (backend, model) = (ground.backend, ground.model);
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => match &self.base {
                None => State::Base(Pass::start_keeping(backend, model, &self.ids, RunPlan::default())?),
                Some(base) => {
                    let Some(batch) = self.batches.pop_front() else { return Ok(true) };
                    let n_lanes = batch.len();
                    let pass = base.lanes(backend, model, batch)?;
                    // Rows before the first that is edited are the clean run's.
                    let wanted = self.rows.iter().copied().filter(|&row| row >= pass.n_past()).min();
                    State::Lanes(pass.want_from(wanted.unwrap_or(self.ids.len() - 1)), n_lanes)
                }
            },
            State::Base(mut pass) => match pass.step(backend, model) {
                false => State::Base(pass),
                true => {
                    let Finished { normalized, base, .. } = pass.finish(backend, model).await?;
                    self.base = base;
                    State::Clean { normalized, logits: Vec::new() }
                }
            },
            State::Clean { normalized, mut logits } => {
                let rows = &self.rows[logits.len()..];
                let chunk = unembed_rows(ground, &normalized, &rows[..rows.len().min(UNEMBED_ROWS)]).await?;
                logits.extend(chunk.chunks_exact(model.config.d_vocab).map(<[f32]>::to_vec));
                if logits.len() < self.rows.len() {
                    State::Clean { normalized, logits }
                } else {
                    self.scorer = Some(Scorer::new(&self.spec, &self.ids, &self.rows, logits));
                    State::Idle
                }
            }
            State::Lanes(mut pass, n_lanes) => match pass.step(backend, model) {
                false => State::Lanes(pass, n_lanes),
                true => {
                    let n_past = pass.n_past();
                    let normalized = pass.finish(backend, model).await?.normalized;
                    State::Unembedding(self.unembedding(normalized, n_past, n_lanes))
                }
            },
            State::Unembedding(mut unembedding) => {
                let scorer = self.scorer.as_ref().expect("the clean run comes first");
                if unembedding.step(ground, scorer, &self.rows, self.ids.len()).await? {
                    self.values.extend(unembedding.values.iter().map(|rows| mean(rows)));
                    State::Idle
                } else {
                    State::Unembedding(unembedding)
                }
            }
        };
        Ok(false)
    }

    fn unembedding(&self, normalized: B::Buffer, n_past: usize, n_lanes: usize) -> Unembedding<B> {
        let scorer = self.scorer.as_ref().expect("the clean run comes first");
        let clean: Vec<f32> = (0..self.rows.len()).map(|row| scorer.clean_value(row)).collect();
        let rows: Vec<usize> = (0..self.rows.len()).filter(|&row| self.rows[row] >= n_past).collect();
        let todo = (0..n_lanes).flat_map(|lane| rows.iter().map(move |&row| (lane, row))).collect();
        Unembedding { normalized, n_past, todo, values: vec![clean; n_lanes] }
    }
}

impl<B: Backend> Unembedding<B> {
    /// One chunk; true when none is left.
    async fn step(
        &mut self,
        ground: &Ground<'_, B>,
        scorer: &Scorer,
        rows: &[usize],
        n_tokens: usize,
    ) -> Result<bool, DeviceError> {
        let n_new = n_tokens - self.n_past;
        let chunk: Vec<(usize, usize)> = self.todo.drain(..self.todo.len().min(UNEMBED_ROWS)).collect();
        let at: Vec<usize> =
            chunk.iter().map(|&(lane, row)| lane * n_new + rows[row] - self.n_past).collect();
        let logits = unembed_rows(ground, &self.normalized, &at).await?;
        for (&(lane, row), logits) in chunk.iter().zip(logits.chunks_exact(ground.model.config.d_vocab)) {
            self.values[lane][row] = scorer.value(row, logits);
        }
        Ok(self.todo.is_empty())
    }
}
