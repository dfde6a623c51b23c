//! Many edits of one prompt, each scored by the same metric: a kept run of the prompt, then for each batch of edits a pass
//! that restarts where the first of them begins, with a lane for each.

use std::collections::VecDeque;
use std::pin::Pin;

use super::metric::{MetricSpec, Scorer, mean};
use super::{AblateError, unembed_rows};
use crate::backend::{Backend, DeviceError};
use crate::detect::Ground;
use crate::forward::{BaseRun, Finished, Pass, unembed_chunk};
use crate::hooks::{Edits, RunPlan, check_ids};
use crate::ids::TokenId;
use crate::model::ModelConfig;

/// Rows of lanes that go through the weights together: more would only take memory.
pub(super) const MAX_LANE_ROWS: usize = 1024;

/// Lanes of a prompt that go together.
pub(super) fn lanes_per_batch(n_rows: usize) -> usize {
    (MAX_LANE_ROWS / n_rows.max(1)).max(1)
}

/// Batches under way on a graphics device while the numbers of the first of them are waited for.
const N_UNDER_WAY: usize = 3;

/// The measurements under way.
pub(super) struct Trials<B: Backend> {
    ids: Vec<TokenId>,
    spec: MetricSpec,
    /// Rows of logits that the metric reads.
    rows: Vec<usize>,
    batches: VecDeque<Vec<Edits>>,
    /// The batch of the pass or the logits under way.
    current: Vec<Edits>,
    base: Option<BaseRun<B>>,
    clean: Option<Clean<B>>,
    under_way: VecDeque<UnderWay>,
    /// A value for each lane of the batches done.
    values: Vec<f32>,
    state: State<B>,
}

enum State<B: Backend> {
    /// Between two batches; at first, before the kept run.
    Idle,
    Base(Pass<B>),
    Clean(CleanRows<B>),
    Lanes(Pass<B>),
    Unembedding(Unembedding<B>),
}

/// What the clean run says.
struct Clean<B: Backend> {
    scorer: Scorer,
    /// The metric, by row.
    values: Vec<f32>,
    /// Logits by row, of a metric that compares with them.
    logits: Option<B::Buffer>,
}

/// The clean run on its way there, chunk of rows by chunk.
struct CleanRows<B: Backend> {
    normalized: B::Buffer,
    scorer: Scorer,
    values: Vec<f32>,
    logits: Vec<B::Buffer>,
}

/// Logits of a batch's lanes, chunk by chunk.
struct Unembedding<B: Backend> {
    normalized: B::Buffer,
    n_past: usize,
    /// Lanes and rows still to be read, in order.
    todo: VecDeque<(usize, usize)>,
    /// Those read, and what was read.
    done: Vec<(usize, usize)>,
    read: Vec<B::Buffer>,
}

/// Numbers on their way to host memory.
type Numbers = Pin<Box<dyn Future<Output = Result<Vec<Vec<f32>>, DeviceError>>>>;

/// A batch whose numbers are on their way.
struct UnderWay {
    batch: Vec<Edits>,
    /// Lane and row of each number.
    cells: Vec<(usize, usize)>,
    numbers: Numbers,
}

impl<B: Backend> Trials<B> {
    /// Checks prompt and metric.
    pub fn new(config: &ModelConfig, ids: Vec<TokenId>, spec: MetricSpec) -> Result<Self, AblateError> {
        check_ids(&ids, config)?;
        let rows = spec.rows(ids.len(), config)?;
        Ok(Self {
            ids,
            spec,
            rows,
            batches: VecDeque::new(),
            current: Vec::new(),
            base: None,
            clean: None,
            under_way: VecDeque::new(),
            values: Vec::new(),
            state: State::Idle,
        })
    }

    /// Adds batches; the lanes of one batch go together.
    pub fn extend(&mut self, batches: impl IntoIterator<Item = Vec<Edits>>) {
        self.batches.extend(batches);
    }

    /// The metric with its tokens, once they are known.
    pub fn scorer(&self) -> Option<&Scorer> {
        self.clean.as_ref().map(|clean| &clean.scorer)
    }

    /// The clean run's value, averaged over rows, once known.
    pub fn clean(&self) -> Option<f32> {
        self.clean.as_ref().map(|clean| mean(&clean.values))
    }

    /// The values so far, lane by lane in the order of the batches.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// A layer of a pass, or a chunk of logits; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        let (backend, model) = (ground.backend, ground.model);
        let n_under_way = if backend.wants_large_pieces() { N_UNDER_WAY } else { 1 };
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => match &self.base {
                None => State::Base(Pass::start_keeping(backend, model, &self.ids, RunPlan::default())?),
                Some(base) => {
                    let Some(batch) = self.batches.pop_front() else {
                        return match self.under_way.is_empty() {
                            true => Ok(true),
                            false => self.take_numbers().await.map(|()| false),
                        };
                    };
                    self.current.clone_from(&batch);
                    let pass = base.lanes(backend, model, batch)?;
                    // Rows before the first that is edited are the clean run's.
                    let wanted = self.rows.iter().copied().filter(|&row| row >= pass.n_past()).min();
                    State::Lanes(pass.want_from(wanted.unwrap_or(self.ids.len() - 1)))
                }
            },
            State::Base(mut pass) => match pass.step(backend, model) {
                false => State::Base(pass),
                true => {
                    let Finished { normalized, base, .. } = pass.finish(backend, model).await?;
                    self.base = base;
                    let last = &self.rows[self.rows.len() - 1..];
                    let logits = backend.download_one(unembed_rows(ground, &normalized, last)).await?;
                    let scorer = Scorer::new(&self.spec, &self.ids, &self.rows, &logits);
                    State::Clean(CleanRows { normalized, scorer, values: Vec::new(), logits: Vec::new() })
                }
            },
            State::Clean(mut rows) => match rows.step(ground, &self.rows).await? {
                false => State::Clean(rows),
                true => {
                    let logits = rows.scorer.is_kl().then(|| backend.concat(rows.logits));
                    self.clean = Some(Clean { scorer: rows.scorer, values: rows.values, logits });
                    State::Idle
                }
            },
            State::Lanes(mut pass) => match pass.step(backend, model) {
                false => State::Lanes(pass),
                true => {
                    let n_past = pass.n_past();
                    let normalized = pass.finish(backend, model).await?.normalized;
                    State::Unembedding(self.unembedding(normalized, n_past))
                }
            },
            State::Unembedding(mut unembedding) => {
                let clean = self.clean.as_ref().expect("the clean run comes first");
                if unembedding.step(ground, clean, &self.rows, self.ids.len()) {
                    let Unembedding { done: cells, read, .. } = unembedding;
                    let batch = std::mem::take(&mut self.current);
                    let numbers = Box::pin(backend.download(read));
                    self.under_way.push_back(UnderWay { batch, cells, numbers });
                    if self.under_way.len() >= n_under_way {
                        self.take_numbers().await?;
                    }
                    State::Idle
                } else {
                    State::Unembedding(unembedding)
                }
            }
        };
        Ok(false)
    }

    /// Waits for the numbers of the first batch under way.
    async fn take_numbers(&mut self) -> Result<(), AblateError> {
        // It stays there until its numbers are: a device may fail.
        let Some(UnderWay { batch, cells, numbers }) = self.under_way.front_mut() else { return Ok(()) };
        let numbers = numbers.as_mut().await?;
        let clean = self.clean.as_ref().expect("the clean run comes first");
        let mut values = vec![clean.values.clone(); batch.len()];
        for (&(lane, row), read) in cells.iter().zip(numbers.into_iter().flatten()) {
            values[lane][row] = clean.scorer.value(read);
        }
        self.values.extend(values.iter().map(|rows| mean(rows)));
        self.under_way.pop_front();
        Ok(())
    }

    /// Goes on elsewhere after a device failed: what was on it is computed anew, the values so far stay. False before there is
    /// a batch.
    pub fn go_on(&mut self) -> bool {
        let lost = self.under_way.drain(..).map(|under_way| under_way.batch);
        let lost: Vec<_> =
            lost.chain([std::mem::take(&mut self.current)]).filter(|b| !b.is_empty()).collect();
        lost.into_iter().rev().for_each(|batch| self.batches.push_front(batch));
        (self.base, self.clean, self.state) = (None, None, State::Idle);
        !self.batches.is_empty()
    }

    fn unembedding(&self, normalized: B::Buffer, n_past: usize) -> Unembedding<B> {
        let rows: Vec<usize> = (0..self.rows.len()).filter(|&row| self.rows[row] >= n_past).collect();
        let todo =
            (0..self.current.len()).flat_map(|lane| rows.iter().map(move |&row| (lane, row))).collect();
        Unembedding { normalized, n_past, todo, done: Vec::new(), read: Vec::new() }
    }
}

impl<B: Backend> CleanRows<B> {
    /// One chunk; true when none is left.
    async fn step(&mut self, ground: &Ground<'_, B>, rows: &[usize]) -> Result<bool, DeviceError> {
        let first = self.values.len();
        let chunk: Vec<usize> = (first..(first + unembed_chunk(ground.backend)).min(rows.len())).collect();
        let at: Vec<usize> = chunk.iter().map(|&row| rows[row]).collect();
        let logits = unembed_rows(ground, &self.normalized, &at);
        if self.scorer.is_kl() {
            // Of a run from itself.
            self.values.resize(first + chunk.len(), 0.0);
            self.logits.push(logits);
        } else {
            let d_vocab = ground.model.config.d_vocab;
            let read = self.scorer.read(ground.backend, &logits, d_vocab, &chunk, None);
            let read = ground.backend.download_one(read).await?;
            self.values.extend(read.into_iter().map(|read| self.scorer.value(read)));
        }
        Ok(self.values.len() == rows.len())
    }
}

impl<B: Backend> Unembedding<B> {
    /// One chunk; true when none is left.
    fn step(&mut self, ground: &Ground<'_, B>, clean: &Clean<B>, rows: &[usize], n_tokens: usize) -> bool {
        let n_new = n_tokens - self.n_past;
        let n_chunk = self.todo.len().min(unembed_chunk(ground.backend));
        let chunk: Vec<(usize, usize)> = self.todo.drain(..n_chunk).collect();
        if !chunk.is_empty() {
            let at: Vec<usize> =
                chunk.iter().map(|&(lane, row)| lane * n_new + rows[row] - self.n_past).collect();
            let logits = unembed_rows(ground, &self.normalized, &at);
            let of_rows: Vec<usize> = chunk.iter().map(|&(_, row)| row).collect();
            let d_vocab = ground.model.config.d_vocab;
            let logits_of_clean = clean.logits.as_ref();
            self.read.push(clean.scorer.read(ground.backend, &logits, d_vocab, &of_rows, logits_of_clean));
            self.done.extend(chunk);
        }
        self.todo.is_empty()
    }
}
