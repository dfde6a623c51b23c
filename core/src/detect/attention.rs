//! Scores read off attention patterns: forward passes over a stimulus, and for each one a [`Reading`] that turns a
//! head's attention into a number. What is read is a detector's affair; running and averaging are done here.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::activations::Activations;
use crate::backend::{Backend, DeviceError, LogitRead};
use crate::detect::stimulus::Stimulus;
use crate::detect::{DetectError, Draws, Findings, Ground, HeadTable, OfDraw};
use crate::forward::{Finished, Pass, unembed_chunk};
use crate::hooks::{RunPlan, TargetKeys};
use crate::ids::TokenId;

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

    /// The draws from the first of a range to before its end.
    pub fn part(mut self, draws: Range<usize>) -> Result<Self, DetectError> {
        let n_draws = self.draws.len();
        if draws.is_empty() || draws.end > n_draws {
            return Err(DetectError::NoSuchDraws { start: draws.start, end: draws.end, n_draws });
        }
        self.draws = self.draws.drain(draws.clone()).collect();
        self.copies = self.copies.map(|copies| copies[draws].to_vec());
        Ok(self)
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

/// Mean losses on the copies of a repeated block, nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct CopyLosses {
    /// Over the first copy, without its first token where nothing precedes it.
    pub first_nats: f32,
    /// Over the second copy without its first token, which nothing foretells.
    pub second_nats: f32,
}

/// What a stimulus' draws found together.
pub(super) fn findings(stimulus: String, of_draws: &[OfDraw]) -> Findings {
    let mut draws = Draws::default();
    of_draws.iter().for_each(|of_draw| draws.push(&of_draw.scores));
    let losses: Option<Vec<CopyLosses>> = of_draws.iter().map(|of_draw| of_draw.copies).collect();
    let mean = |losses: &[CopyLosses], of: fn(&CopyLosses) -> f32| {
        losses.iter().map(|of_draw| of(of_draw) / losses.len() as f32).sum::<f32>()
    };
    Findings {
        stimulus,
        n: draws.n(),
        scores: draws.mean(),
        spread: draws.spread(),
        evidence: losses.map_or(Value::Null, |losses| {
            json!({
                "first_copy_nll_nats": mean(&losses, |losses| losses.first_nats),
                "second_copy_nll_nats": mean(&losses, |losses| losses.second_nats),
            })
        }),
    }
}

/// An [`AttentionWork`] under way.
pub struct AttentionTask<B: Backend> {
    work: AttentionWork,
    next_draw: usize,
    state: State<B>,
    of_draws: Vec<OfDraw>,
    n_layers: usize,
}

enum State<B: Backend> {
    Idle,
    Layers(Box<Pass<B>>),
    Unembedding { normalized: B::Buffer, nll_nats: Vec<f32> },
}

impl<B: Backend> AttentionTask<B> {
    /// Nothing run yet.
    pub fn new(work: AttentionWork, n_layers: usize) -> Self {
        Self { work, next_draw: 0, state: State::Idle, of_draws: Vec::new(), n_layers }
    }

    /// Layers done, and in all, over every draw.
    pub fn progress(&self) -> (usize, usize) {
        let of_draw = match &self.state {
            State::Idle => 0,
            State::Layers(pass) => pass.n_done(),
            State::Unembedding { .. } => self.n_layers,
        };
        (self.next_draw * self.n_layers + of_draw, self.work.draws.len() * self.n_layers)
    }

    /// Mean scores of the draws so far; empty before the first.
    pub fn partial(&self) -> HeadTable {
        let mut draws = Draws::default();
        self.of_draws.iter().for_each(|of_draw| draws.push(&of_draw.scores));
        draws.mean()
    }

    /// How the stimulus was made, and what each draw gave.
    pub fn finish(self) -> (String, Vec<OfDraw>) {
        (self.work.stimulus, self.of_draws)
    }

    /// A layer of a pass, or a chunk of its losses; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DetectError> {
        let Some((ids, reading)) = self.work.draws.get(self.next_draw) else { return Ok(true) };
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {
                let plan = RunPlan {
                    targets: reading.targets(),
                    entropy: *reading == Reading::Entropy,
                    ..RunPlan::default()
                };
                State::Layers(Box::new(Pass::start(ground.backend, ground.model, ids, plan)?))
            }
            State::Layers(mut pass) => {
                if !pass.step(ground.backend, ground.model) {
                    self.state = State::Layers(pass);
                    return Ok(false);
                }
                let Finished { normalized, activations, .. } =
                    pass.finish(ground.backend, ground.model).await?;
                let scores = reading.scores(&activations, ids.len());
                self.of_draws.push(OfDraw { scores, copies: None, prompt: None });
                match self.work.copies {
                    Some(_) => State::Unembedding { normalized, nll_nats: Vec::new() },
                    None => State::Idle,
                }
            }
            State::Unembedding { normalized, mut nll_nats } => {
                more_losses(ground, &normalized, ids, &mut nll_nats).await?;
                if nll_nats.len() + 1 < ids.len() {
                    State::Unembedding { normalized, nll_nats }
                } else {
                    self.take_losses(&nll_nats);
                    State::Idle
                }
            }
        };
        if matches!(self.state, State::Idle) {
            self.next_draw += 1;
        }
        Ok(self.next_draw == self.work.draws.len())
    }

    fn take_losses(&mut self, nll_nats: &[f32]) {
        let Some(copies) = self.work.copies.as_ref().map(|copies| copies[self.next_draw]) else { return };
        // The loss of the token at position p is at p - 1: nothing foretells the first token of all.
        let mean = |tokens: Range<usize>| {
            let losses = &nll_nats[tokens.start.max(1) - 1..tokens.end - 1];
            losses.iter().sum::<f32>() / losses.len().max(1) as f32
        };
        if let Some(of_draw) = self.of_draws.last_mut() {
            of_draw.copies = Some(CopyLosses {
                first_nats: mean(copies.first..copies.second),
                second_nats: mean(copies.second + 1..copies.end),
            });
        }
    }
}

/// Appends the losses of the next few targets, nats.
async fn more_losses<B: Backend>(
    ground: &Ground<'_, B>,
    normalized: &B::Buffer,
    ids: &[TokenId],
    nll_nats: &mut Vec<f32>,
) -> Result<(), DeviceError> {
    let (start, d_model) = (nll_nats.len(), ground.model.config.d_model);
    let end = (start + unembed_chunk(ground.backend)).min(ids.len() - 1);
    let rows = ground.backend.slice(normalized, start * d_model..end * d_model);
    let logits = ground.backend.matmul(&rows, ground.model.unembed());
    let read = LogitRead::Logprob(&ids[start + 1..end + 1]);
    let logprobs = ground.backend.read_logits(&logits, ground.model.config.d_vocab, &read);
    nll_nats.extend(ground.backend.download_one(logprobs).await?.into_iter().map(|logprob| -logprob));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::AttnShape;
    use crate::backend::cpu::Cpu;
    use crate::detect::AttentionTarget;

    /// A pattern that puts each query's attention on one key.
    fn planted(n_tokens: usize, key_of: impl Fn(usize) -> usize) -> Vec<f32> {
        let mut pattern = vec![0.0; n_tokens * n_tokens];
        (0..n_tokens).for_each(|query| pattern[query * n_tokens + key_of(query)] = 1.0);
        pattern
    }

    /// The score of one planted head, through the kernels that a pass uses.
    fn score(reading: &Reading, pattern: &Vec<f32>, n_tokens: usize) -> f32 {
        let shape = AttnShape { n_heads: 1, n_kv_heads: 1, d_head: 2, n_past: 0, n_tokens, n_lanes: 1 };
        let mut activations = Activations::default();
        let targets = reading.targets();
        for (target, keys) in targets.iter().enumerate() {
            activations
                .push_target_mass(target, Cpu::default().target_mass(pattern, shape, 0..n_tokens, keys));
        }
        activations.push_entropy(Cpu::default().entropy_sum(pattern, shape, 0..n_tokens));
        reading.scores(&activations, n_tokens)[0][0]
    }

    /// `[BOS] r r` of `2 m + 1` distinct-in-the-block tokens.
    fn repeated(m: usize) -> Vec<TokenId> {
        let block = (1..=m as TokenId).chain(1..=m as TokenId);
        std::iter::once(0).chain(block).collect()
    }

    #[test]
    fn a_planted_head_scores_one_on_its_own_target_and_nothing_on_its_neighbours() {
        let (m, n) = (10, 21);
        let ids = repeated(m);
        let previous = planted(n, |query| query.saturating_sub(1));
        let duplicate = planted(n, |query| query.saturating_sub(m));
        let induction = planted(n, |query| if query > m { query - m + 1 } else { 0 });
        let off_by_one = planted(n, |query| if query > m + 1 { query - m - 1 } else { 0 });
        let of = |target: AttentionTarget, pattern: &Vec<f32>| {
            score(&Reading::TargetedMass(target.keys_in_stimulus(&ids)), pattern, n)
        };
        assert_eq!(of(AttentionTarget::Induction, &induction), 1.0);
        assert_eq!(of(AttentionTarget::DuplicateToken, &duplicate), 1.0);
        assert_eq!(of(AttentionTarget::PreviousToken, &previous), 1.0);
        for neighbour in [&previous, &duplicate, &off_by_one] {
            assert_eq!(of(AttentionTarget::Induction, neighbour), 0.0);
        }
        for neighbour in [&previous, &induction, &off_by_one] {
            assert_eq!(of(AttentionTarget::DuplicateToken, neighbour), 0.0);
        }
        // Both rest on position 0 over the first copy, which is the previous token of position 1.
        for neighbour in [&duplicate, &induction] {
            assert!(of(AttentionTarget::PreviousToken, neighbour) < 0.06);
        }
        assert_eq!(of(AttentionTarget::FirstToken, &planted(n, |_| 0)), 1.0);
        assert_eq!(of(AttentionTarget::CurrentToken, &planted(n, |query| query)), 1.0);
        assert!((of(AttentionTarget::CurrentToken, &previous) - 1.0 / n as f32).abs() < 1e-6);
    }

    #[test]
    fn detect_heads_closed_forms_hold() {
        let reading = |keys: &TargetKeys, exclude_bos: bool, is_mul: bool| {
            let keep = |key: &usize| !exclude_bos || *key > 0;
            let inside =
                TargetKeys(keys.0.iter().map(|row| row.iter().copied().filter(keep).collect()).collect());
            let allowed = (0..keys.0.len()).map(|query| (0..=query).filter(keep).collect());
            let allowed = TargetKeys(allowed.collect());
            if is_mul { Reading::Share { inside, allowed } } else { Reading::Distance { inside, allowed } }
        };
        let close = |got: f32, wanted: f32| assert!((got - wanted).abs() < 1e-6, "{got}, not {wanted}");
        // A perfect previous-token head on 21 tokens, row 0 on itself.
        let ids = repeated(10);
        let (keys, pattern) =
            (AttentionTarget::PreviousToken.keys(&ids), planted(21, |query| query.saturating_sub(1)));
        close(score(&reading(&keys, false, true), &pattern, 21), 20.0 / 21.0);
        close(score(&reading(&keys, false, false), &pattern, 21), 1.0 - 0.048);
        close(score(&reading(&keys, true, true), &pattern, 21), 1.0);
        close(score(&reading(&keys, true, false), &pattern, 21), 1.0);
        // A perfect induction head, the other rows on the BOS.
        let keys = AttentionTarget::Induction.keys(&ids);
        let pattern = planted(21, |query| if query > 10 { query - 9 } else { 0 });
        close(score(&reading(&keys, false, true), &pattern, 21), 10.0 / 21.0);
        close(score(&reading(&keys, false, false), &pattern, 21), 1.0 - 0.524);
        close(score(&reading(&keys, true, true), &pattern, 21), 1.0);
        close(score(&reading(&keys, true, false), &pattern, 21), 1.0);
    }

    #[test]
    fn entropy_tells_a_fixed_head_from_an_even_one() {
        let even: Vec<f32> = (0..4usize)
            .flat_map(|query| {
                (0..4).map(move |key| if key <= query { 1.0 / (query + 1) as f32 } else { 0.0 })
            })
            .collect();
        let wanted = (2f32.ln() + 3f32.ln() + 4f32.ln()) / 3.0;
        assert!((score(&Reading::Entropy, &even, 4) - wanted).abs() < 1e-6);
        assert_eq!(score(&Reading::Entropy, &planted(4, |query| query), 4), 0.0);
    }

    #[test]
    fn a_sequence_without_a_target_is_refused() {
        let stimulus = Stimulus::given(vec![vec![1, 2, 1], vec![1, 2, 3]]);
        let work = AttentionWork::new(stimulus, |ids| {
            Reading::TargetedMass(AttentionTarget::Induction.keys_in_stimulus(ids))
        });
        let error = work.check("holds no token twice").expect_err("the second has no repeat");
        assert_eq!(error.to_string(), "sequence 1 holds no token twice");
    }
}
