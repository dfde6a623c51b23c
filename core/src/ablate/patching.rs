//! Activation patching (Meng et al. 2022; practice as in Heimersheim & Nanda 2024): one activation of one run put into another,
//! place by place, and how much of the difference between the runs that carries over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::metric::{Metric, MetricSpec, Scorer};
use super::trials::{Trials, lanes_per_batch};
use super::{AblateError, unembed_rows};
use crate::activations::Activations;
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::detect::{Ground, HeadTable};
use crate::forward::{Finished, Pass};
use crate::hooks::{CaptureSet, Edit, Edits, Intervention, RunPlan, Site, Sites, check_ids};
use crate::ids::{BlockHook, HeadId, HookPoint, TokenId};
use crate::metrics::top_indices;
use crate::model::ModelConfig;

/// Differences between the two runs' metrics below this are nothing to recover.
const LEAST_DIFFERENCE: f32 = 1e-3;

/// Which run is put into which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Clean activations into the corrupted run: what suffices.
    #[default]
    Denoise,
    /// Corrupted activations into the clean run: what is needed.
    Noise,
}

/// A patching sweep, apart from its clean prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchSpec {
    /// Ids of the corrupted prompt, as many as of the clean one.
    pub corrupted: Vec<TokenId>,
    /// Which run is put into which.
    pub direction: Direction,
    /// `logit_diff` (the default), `logit` or `logprob`.
    pub metric: Metric,
    /// The clean prompt's answer; its most probable next token when absent.
    pub token: Option<TokenId>,
    /// The corrupted prompt's answer; its most probable other next token when absent.
    pub versus: Option<TokenId>,
}

/// What carried over, by place: 0 as if nothing was patched in a corrupted run, 1 as the clean run. Noising reads alike: 1 as
/// the clean run, 0 as the corrupted one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PatchFindings {
    /// Metric of the clean run.
    pub clean: f32,
    /// Metric of the corrupted run.
    pub corrupted: f32,
    /// The clean prompt's answer.
    pub token: TokenId,
    /// The corrupted prompt's answer.
    pub versus: TokenId,
    /// The first position at which the prompts differ.
    pub first_difference: usize,
    /// Residual stream entering each layer, `[layer][pos]`.
    pub resid_pre: HeadTable,
    /// Attention's output, `[layer][pos]`.
    pub attn_out: HeadTable,
    /// The MLP's output, `[layer][pos]`; empty without MLPs.
    pub mlp_out: HeadTable,
    /// Each head's `z` at every position, `[layer][head]`.
    pub heads: HeadTable,
}

/// A patching sweep under way.
pub struct PatchTask<B: Backend> {
    clean: Vec<TokenId>,
    spec: PatchSpec,
    first_difference: usize,
    state: State<B>,
    donor: Option<Arc<Activations>>,
    /// Last logits of the clean and of the corrupted run.
    logits: Vec<Vec<f32>>,
    findings: PatchFindings,
    sites: Vec<Cell>,
    n_layers: usize,
    n_heads: usize,
    kinds: Vec<Kind>,
}

enum State<B: Backend> {
    Idle,
    Run(Box<Pass<B>>),
    Trials(Box<Trials<B>>),
}

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ResidPre,
    AttnOut,
    MlpOut,
}

/// Where a trial's value belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    At(Kind, usize, usize),
    Head(HeadId),
}

impl Kind {
    fn site(self, layer: usize) -> Site {
        match self {
            Self::ResidPre => Site::ResidPre(layer),
            Self::AttnOut => Site::AttnOut(layer),
            Self::MlpOut => Site::MlpOut(layer),
        }
    }
}

impl<B: Backend> PatchTask<B> {
    /// Checks everything before any work.
    pub fn plan(config: &ModelConfig, clean: Vec<TokenId>, spec: PatchSpec) -> Result<Self, AblateError> {
        check_ids(&clean, config)?;
        check_ids(&spec.corrupted, config)?;
        let (n_clean, n_corrupted) = (clean.len(), spec.corrupted.len());
        if n_clean != n_corrupted {
            return Err(AblateError::PromptsOfTwoLengths { n_clean, n_corrupted });
        }
        if matches!(spec.metric, Metric::Kl | Metric::Loss) {
            return Err(AblateError::MetricOfPatching(spec.metric.name()));
        }
        let tokens = [spec.token, spec.versus].into_iter().flatten().collect::<Vec<_>>();
        crate::hooks::check_vocabulary(&tokens, config)?;
        let mut pairs = clean.iter().zip(&spec.corrupted);
        let Some(first_difference) = pairs.position(|(a, b)| a != b) else {
            return Err(AblateError::SamePrompts);
        };
        let mut kinds = vec![Kind::ResidPre, Kind::AttnOut];
        kinds.extend(config.has_mlp().then_some(Kind::MlpOut));
        Ok(Self {
            clean,
            spec,
            first_difference,
            state: State::Idle,
            donor: None,
            logits: Vec::new(),
            findings: PatchFindings::default(),
            sites: Vec::new(),
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            kinds,
        })
    }

    /// The run that is put in, and the one that it is put into.
    fn donor_is_clean(&self) -> bool {
        self.spec.direction == Direction::Denoise
    }

    /// A short piece of the work; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        let (backend, model) = (ground.backend, ground.model);
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle if self.logits.len() < 2 => {
                let is_clean = self.logits.is_empty();
                let is_donor = is_clean == self.donor_is_clean();
                let ids = if is_clean { &self.clean } else { &self.spec.corrupted };
                let capture = if is_donor { self.capture() } else { CaptureSet::none() };
                State::Run(Box::new(Pass::start(
                    backend,
                    model,
                    ids,
                    RunPlan { capture, ..RunPlan::default() },
                )?))
            }
            State::Idle => State::Trials(Box::new(self.trials(ground)?)),
            State::Run(mut pass) => match pass.step(backend, model) {
                false => State::Run(pass),
                true => {
                    let Finished { normalized, activations, .. } = pass.finish(backend, model).await?;
                    if self.logits.is_empty() == self.donor_is_clean() {
                        self.donor = Some(Arc::new(activations));
                    }
                    let last = [self.clean.len() - 1];
                    self.logits.push(backend.download_one(unembed_rows(ground, &normalized, &last)).await?);
                    State::Idle
                }
            },
            State::Trials(mut trials) => {
                let is_done = trials.step(ground).await?;
                self.take_values(trials.values());
                self.state = State::Trials(trials);
                return Ok(is_done);
            }
        };
        Ok(false)
    }

    fn capture(&self) -> CaptureSet {
        let mut hooks = vec![BlockHook::ResidPre, BlockHook::AttnOut, BlockHook::Z];
        hooks.extend(self.kinds.contains(&Kind::MlpOut).then_some(BlockHook::MlpOut));
        let blocks =
            (0..self.n_layers).flat_map(|layer| hooks.iter().map(move |&hook| HookPoint::Block(layer, hook)));
        CaptureSet::of(blocks)
    }

    /// Chooses the tokens, reads the two runs' metrics, and plans a trial for every place.
    fn trials(&mut self, ground: &Ground<'_, B>) -> Result<Trials<B>, AblateError> {
        let config = &ground.model.config;
        let top = |logits: &[f32]| top_indices(logits, 2).into_iter().map(|id| id as TokenId);
        let token = self.spec.token.or(top(&self.logits[0]).next()).unwrap_or(0);
        let versus = self.spec.versus.or(top(&self.logits[1]).find(|&id| id != token)).unwrap_or(token);
        if token == versus {
            return Err(AblateError::SameToken);
        }
        let spec = MetricSpec {
            metric: self.spec.metric,
            token: Some(token),
            versus: Some(versus),
            positions: None,
        };
        let last = [self.clean.len() - 1];
        let value = |logits: &Vec<f32>| {
            let scorer = Scorer::new(&spec, &self.clean, &last, logits);
            scorer.value(scorer.read(&Cpu::default(), logits, config.d_vocab, &[0], None)[0])
        };
        let (clean, corrupted) = (value(&self.logits[0]), value(&self.logits[1]));
        if (clean - corrupted).abs() < LEAST_DIFFERENCE {
            return Err(AblateError::NothingToRecover { metric: clean });
        }
        // Before the first difference both runs hold the same values, so patching there changes nothing.
        let unpatched = if self.donor_is_clean() { 0.0 } else { 1.0 };
        let table = |width: usize| vec![vec![f32::NAN; width]; self.n_layers];
        let mut by_position = table(self.clean.len());
        by_position.iter_mut().for_each(|row| row[..self.first_difference].fill(unpatched));
        self.findings = PatchFindings {
            clean,
            corrupted,
            token,
            versus,
            first_difference: self.first_difference,
            resid_pre: by_position.clone(),
            attn_out: by_position.clone(),
            mlp_out: if config.has_mlp() { by_position } else { Vec::new() },
            heads: table(self.n_heads),
        };
        let base = if self.donor_is_clean() { self.spec.corrupted.clone() } else { self.clean.clone() };
        let mut trials = Trials::new(config, base, spec)?;
        let batches = self.batches(ground.backend.wants_large_pieces());
        trials.extend(batches);
        Ok(trials)
    }

    fn batches(&mut self, are_large: bool) -> Vec<Vec<Edits>> {
        let positions = self.first_difference..self.clean.len();
        let donor = self.donor.clone();
        let edits = |site: Site, positions: Vec<usize>| Edits {
            interventions: vec![
                Intervention {
                    edit: Edit::Patch { from: None, from_positions: None },
                    sites: Sites::one(site),
                    positions: None,
                }
                .at(positions),
            ],
            donors: vec![donor.clone()],
        };
        let (mut batches, mut cells) = (Vec::new(), Vec::new());
        for layer in (0..self.n_layers).rev() {
            let places: Vec<(Kind, usize)> = positions
                .clone()
                .flat_map(|position| self.kinds.iter().map(move |&kind| (kind, position)))
                .collect();
            // A pass begins at the first position that any of its lanes edits: together, later ones compute more than they need.
            let n_together = if are_large { lanes_per_batch(positions.len()) } else { self.kinds.len() };
            for places in places.chunks(n_together) {
                cells.extend(places.iter().map(|&(kind, position)| Cell::At(kind, layer, position)));
                let of_place = |&(kind, position): &(Kind, usize)| edits(kind.site(layer), vec![position]);
                batches.push(places.iter().map(of_place).collect());
            }
            let heads: Vec<HeadId> = (0..self.n_heads).map(|head| HeadId::new(layer, head)).collect();
            for heads in heads.chunks(lanes_per_batch(positions.len())) {
                cells.extend(heads.iter().map(|&head| Cell::Head(head)));
                let of_head = |head: &HeadId| edits(Site::Head(*head), positions.clone().collect());
                batches.push(heads.iter().map(of_head).collect());
            }
        }
        self.sites = cells;
        batches
    }

    fn take_values(&mut self, values: &[f32]) {
        let findings = &mut self.findings;
        for (value, cell) in values.iter().zip(&self.sites) {
            let recovered = (value - findings.corrupted) / (findings.clean - findings.corrupted);
            let (table, row, column) = match *cell {
                Cell::At(Kind::ResidPre, layer, position) => (&mut findings.resid_pre, layer, position),
                Cell::At(Kind::AttnOut, layer, position) => (&mut findings.attn_out, layer, position),
                Cell::At(Kind::MlpOut, layer, position) => (&mut findings.mlp_out, layer, position),
                Cell::Head(head) => (&mut findings.heads, head.layer, head.head),
            };
            table[row][column] = recovered;
        }
    }

    /// Places done and in all.
    pub fn progress(&self) -> (usize, usize) {
        let n_positions = self.clean.len() - self.first_difference;
        let total = self.n_layers * (n_positions * self.kinds.len() + self.n_heads);
        match &self.state {
            State::Trials(trials) => (trials.values().len(), total),
            _ => (0, total),
        }
    }

    /// What is known so far; NaN where nothing is.
    pub fn partial(&self) -> &PatchFindings {
        &self.findings
    }

    /// What was found, once nothing is left.
    pub fn finish(self) -> PatchFindings {
        self.findings
    }
}
