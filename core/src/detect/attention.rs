//! Scores read off attention patterns: forward passes over a stimulus, and for each one a [`Reading`] that turns a
//! head's attention into a number. What is read is a detector's affair; running and averaging are done here.

use crate::activations::Activations;
use crate::backend::Backend;
use crate::detect::stimulus::Stimulus;
use crate::detect::{DetectError, Draws, Ground, HeadTable};
use crate::forward::Pass;
use crate::hooks::{RunPlan, TargetKeys};
use crate::ids::TokenId;
use crate::metrics::logsumexp;

/// Positions unembedded in one step.
const UNEMBED_ROWS: usize = 16;

/// How a head's pattern on one sequence becomes its score.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Mean over the queries that have a target of the attention summed over its keys; 0 to 1.
    TargetedMass(TargetKeys),
    /// TransformerLens' `mul`: attention on the target's cells over all attention on allowed cells; 0 to 1.
    Share {
        /// Target cells.
        inside: TargetKeys,
        /// Cells that count.
        allowed: TargetKeys,
    },
    /// TransformerLens' `abs`: 1 minus the mean over rows of the L1 distance to the target matrix, rounded to three
    /// decimals as there; -1 to 1.
    Distance {
        /// Target cells, where the target matrix is 1.
        inside: TargetKeys,
        /// Cells that count.
        allowed: TargetKeys,
    },
    /// Mean over queries 1 and later of the pattern row's entropy, nats.
    Entropy,
}

impl Reading {
    /// The cell sets whose attention a pass must sum.
    fn targets(&self) -> Vec<TargetKeys> {
        match self {
            Self::TargetedMass(keys) => vec![keys.clone()],
            Self::Share { inside, allowed } | Self::Distance { inside, allowed } => {
                vec![inside.clone(), allowed.clone()]
            }
            Self::Entropy => Vec::new(),
        }
    }

    /// Whether there is a cell to read.
    fn has_target(&self, n_tokens: usize) -> bool {
        match self {
            Self::TargetedMass(keys) => keys.n_rows() > 0,
            Self::Share { inside, .. } | Self::Distance { inside, .. } => inside.n_rows() > 0,
            Self::Entropy => n_tokens > 1,
        }
    }

    /// `[layer][head]` from what a pass summed.
    fn scores(&self, activations: &Activations, n_tokens: usize) -> HeadTable {
        let sums = activations.target_mass();
        let pair = |score: &dyn Fn(f32, f32) -> f32| -> HeadTable {
            let layers = sums[0].iter().zip(&sums[1]);
            layers.map(|(inside, all)| inside.iter().zip(all).map(|(&i, &a)| score(i, a)).collect()).collect()
        };
        match self {
            Self::TargetedMass(keys) => scaled(&sums[0], keys.n_rows()),
            // A head with nothing on allowed cells has no share of it on the target.
            Self::Share { .. } => pair(&|inside, all| if all > 0.0 { inside / all } else { 0.0 }),
            Self::Distance { inside, .. } => {
                let n_inside = inside.n_cells() as f32;
                pair(&|mass, all| {
                    let distance = (n_inside - mass + (all - mass)) / n_tokens as f32;
                    1.0 - (distance * 1000.0).round() / 1000.0
                })
            }
            Self::Entropy => scaled(activations.entropy_nats(), n_tokens - 1),
        }
    }
}

fn scaled(sums: &[Vec<f32>], n_rows: usize) -> HeadTable {
    sums.iter().map(|heads| heads.iter().map(|sum| sum / n_rows as f32).collect()).collect()
}

/// A stimulus with the reading of each of its sequences.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionWork {
    /// How the sequences were made.
    pub stimulus: String,
    /// One forward pass each.
    pub draws: Vec<(Vec<TokenId>, Reading)>,
    /// The positions of each sequence whose losses are compared, if they are: the ends of the first copy and of the
    /// second.
    pub copies: Option<Vec<Copies>>,
}

/// Where the copies of a repeated block lie: `first..second` and `second..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Position of the first copy's first token.
    pub first: usize,
    /// Position of the second copy's first token.
    pub second: usize,
    /// Position after the second copy.
    pub end: usize,
}

impl AttentionWork {
    /// Reads every sequence of a stimulus the same way.
    pub fn new(stimulus: Stimulus, reading: impl Fn(&[TokenId]) -> Reading) -> Self {
        let draws = stimulus.sequences.into_iter().map(|ids| {
            let reading = reading(&ids);
            (ids, reading)
        });
        Self { draws: draws.collect(), stimulus: stimulus.description, copies: None }
    }

    /// Fails when a sequence has nothing to read: a score that was not measured is never shown.
    pub fn check(&self, lacks: &'static str) -> Result<(), DetectError> {
        if self.draws.is_empty() {
            return Err(DetectError::NoSequences);
        }
        match self.draws.iter().position(|(ids, reading)| !reading.has_target(ids.len())) {
            Some(sequence) => Err(DetectError::NothingToRead { sequence, lacks }),
            None => Ok(()),
        }
    }
}

/// Losses on the copies of a repeated block, nats, means over draws.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CopyLosses {
    /// Over the first copy, without its first token where nothing precedes it.
    pub first_nats: f32,
    /// Over the second copy without its first token, which nothing foretells.
    pub second_nats: f32,
}

/// An [`AttentionWork`] under way.
pub struct AttentionTask<B: Backend> {
    work: AttentionWork,
    next_draw: usize,
    state: State<B>,
    draws: Draws,
    losses: CopyLosses,
}

enum State<B: Backend> {
    Idle,
    Layers(Pass<B>),
    Unembedding { normalized: B::Buffer, nll_nats: Vec<f32> },
}

impl<B: Backend> AttentionTask<B> {
    /// Nothing run yet.
    pub fn new(work: AttentionWork) -> Self {
        Self {
            work,
            next_draw: 0,
            state: State::Idle,
            draws: Draws::default(),
            losses: CopyLosses::default(),
        }
    }

    /// Forward passes done, and in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.next_draw, self.work.draws.len())
    }

    /// Scores of the draws so far.
    pub fn draws(&self) -> &Draws {
        &self.draws
    }

    /// Losses on the copies, if they were asked for.
    pub fn losses(&self) -> Option<CopyLosses> {
        self.work.copies.is_some().then_some(self.losses)
    }

    /// How the stimulus was made.
    pub fn stimulus(&self) -> &str {
        &self.work.stimulus
    }

    /// A layer of a pass, or a chunk of its losses; true when nothing is left.
    pub fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DetectError> {
        let Some((ids, reading)) = self.work.draws.get(self.next_draw) else { return Ok(true) };
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {
                let plan = RunPlan {
                    targets: reading.targets(),
                    entropy: *reading == Reading::Entropy,
                    ..RunPlan::default()
                };
                State::Layers(Pass::start(ground.backend, ground.model, ids, plan)?)
            }
            State::Layers(mut pass) => {
                if !pass.step(ground.backend, ground.model) {
                    self.state = State::Layers(pass);
                    return Ok(false);
                }
                let (normalized, activations) = pass.finish(ground.backend, ground.model);
                self.draws.push(reading.scores(&activations, ids.len()));
                match self.work.copies {
                    Some(_) => State::Unembedding { normalized, nll_nats: Vec::new() },
                    None => State::Idle,
                }
            }
            State::Unembedding { normalized, mut nll_nats } => {
                more_losses(ground, &normalized, ids, &mut nll_nats);
                if nll_nats.len() + 1 < ids.len() {
                    State::Unembedding { normalized, nll_nats }
                } else {
                    self.add_losses(&nll_nats);
                    State::Idle
                }
            }
        };
        if matches!(self.state, State::Idle) {
            self.next_draw += 1;
        }
        Ok(self.next_draw == self.work.draws.len())
    }

    fn add_losses(&mut self, nll_nats: &[f32]) {
        let Some(copies) = self.work.copies.as_ref().map(|copies| copies[self.next_draw]) else { return };
        let n_draws = self.work.draws.len() as f32;
        // The loss of the token at position p is at p - 1: nothing foretells the first token of all.
        let mean = |tokens: std::ops::Range<usize>| {
            let losses = &nll_nats[tokens.start.max(1) - 1..tokens.end - 1];
            losses.iter().sum::<f32>() / losses.len().max(1) as f32
        };
        self.losses.first_nats += mean(copies.first..copies.second) / n_draws;
        self.losses.second_nats += mean(copies.second + 1..copies.end) / n_draws;
    }
}

/// Appends the losses of the next few targets, nats.
fn more_losses<B: Backend>(
    ground: &Ground<'_, B>,
    normalized: &B::Buffer,
    ids: &[TokenId],
    nll_nats: &mut Vec<f32>,
) {
    let (start, d_model) = (nll_nats.len(), ground.model.config.d_model);
    let end = (start + UNEMBED_ROWS).min(ids.len() - 1);
    let rows = ground.backend.slice(normalized, start * d_model..end * d_model);
    let logits = ground.backend.download(&ground.backend.matmul(&rows, ground.model.unembed()));
    for (logits, &target) in logits.chunks_exact(ground.model.config.d_vocab).zip(&ids[start + 1..]) {
        nll_nats.push((logsumexp(logits) - f64::from(logits[target as usize])) as f32);
    }
}
