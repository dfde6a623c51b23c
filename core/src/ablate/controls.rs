//! A set of edited heads against random others of the same layers: an effect means little until as many heads drawn at random
//! are seen to have less.

use serde::{Deserialize, Serialize};

use super::AblateError;
use super::metric::{MetricSpec, mean};
use super::trials::{Trials, lanes_per_batch};
use crate::backend::Backend;
use crate::detect::Ground;
use crate::detect::stimulus::Choice;
use crate::forward::Donors;
use crate::hooks::{Edits, Intervention, PlanError};
use crate::ids::{HeadId, TokenId};
use crate::model::ModelConfig;

/// Fewer have no standard deviation.
const LEAST_DRAWS: usize = 2;
/// More take long and tell nothing new.
const MOST_DRAWS: usize = 1000;

/// A comparison, apart from its prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ControlsSpec {
    /// The edits; their heads are the set.
    pub interventions: Vec<Intervention>,
    /// Random sets.
    #[serde(default = "ten")]
    pub n_draws: usize,
    /// Seed of the draws.
    #[serde(default)]
    pub seed: u64,
    /// In what the effect is measured.
    #[serde(flatten)]
    pub metric: MetricSpec,
}

fn ten() -> usize {
    10
}

/// What the comparison found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ControlsFindings {
    /// The metric without an edit.
    pub clean: f32,
    /// Edited minus clean with the set.
    pub effect: f32,
    /// The same with each random set.
    pub random_effects: Vec<f32>,
    /// Their mean.
    pub random_mean: f32,
    /// Their standard deviation (n - 1).
    pub random_sd: f32,
    /// The sets.
    pub draws: Vec<Vec<HeadId>>,
    /// Heads that they were drawn from.
    pub n_others: usize,
}

/// A comparison under way.
pub struct ControlsTask<B: Backend> {
    draws: Vec<Vec<HeadId>>,
    n_others: usize,
    donors: std::vec::IntoIter<Donors<B>>,
    resolved: Vec<Edits>,
    current: Option<Donors<B>>,
    trials: Trials<B>,
    n_tokens: usize,
}

impl<B: Backend> ControlsTask<B> {
    /// Checks everything and draws the sets.
    pub fn plan(config: &ModelConfig, ids: Vec<TokenId>, spec: ControlsSpec) -> Result<Self, AblateError> {
        let set: std::collections::BTreeSet<HeadId> =
            spec.interventions.iter().flat_map(|edit| edit.sites.heads.iter().copied()).collect();
        if set.is_empty() {
            return Err(AblateError::NoHeads);
        }
        if !(LEAST_DRAWS..=MOST_DRAWS).contains(&spec.n_draws) {
            let value = spec.n_draws.to_string();
            return Err(PlanError::OutOfRange { name: "n_draws", value, range: "2 to 1000" }.into());
        }
        let layers: std::collections::BTreeSet<usize> = set.iter().map(|head| head.layer).collect();
        let all =
            layers.iter().flat_map(|&layer| (0..config.n_heads).map(move |head| HeadId::new(layer, head)));
        let others: Vec<HeadId> = all.filter(|head| !set.contains(head)).collect();
        if others.len() < set.len() {
            return Err(AblateError::TooFewOthers { n_heads: set.len(), n_others: others.len() });
        }
        let mut choice = Choice::new(spec.seed);
        let draws: Vec<Vec<HeadId>> = (0..spec.n_draws).map(|_| choice.some_of(&others, set.len())).collect();
        let with = |draw: &Vec<HeadId>| -> Vec<Intervention> {
            let stand_in: std::collections::BTreeMap<HeadId, HeadId> =
                set.iter().copied().zip(draw.iter().copied()).collect();
            let mut interventions = spec.interventions.clone();
            for edit in &mut interventions {
                edit.sites.heads = edit.sites.heads.iter().map(|head| stand_in[head]).collect();
            }
            interventions
        };
        let sets = std::iter::once(spec.interventions.clone()).chain(draws.iter().map(with));
        let donors: Result<Vec<_>, _> = sets.map(|edits| Donors::plan(config, &ids, edits.into())).collect();
        let (donors, n_tokens) = (donors?.into_iter(), ids.len());
        let trials = Trials::new(config, ids, spec.metric)?;
        let n_others = others.len();
        Ok(Self { draws, n_others, donors, resolved: Vec::new(), current: None, trials, n_tokens })
    }

    /// A short piece of the work; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        let Some(mut donors) = self.current.take().or_else(|| self.donors.next()) else {
            let lanes = std::mem::take(&mut self.resolved);
            self.trials.extend(lanes.chunks(lanes_per_batch(self.n_tokens)).map(<[Edits]>::to_vec));
            return self.trials.step(ground).await;
        };
        match donors.step(ground.backend, ground.model).await? {
            true => self.resolved.push(donors.finish()),
            false => self.current = Some(donors),
        }
        Ok(false)
    }

    /// Sets done and in all, the edited one included.
    pub fn progress(&self) -> (usize, usize) {
        (self.trials.values().len(), self.draws.len() + 1)
    }

    /// What was found, once nothing is left.
    ///
    /// # Panics
    /// When work is left.
    pub fn finish(self) -> ControlsFindings {
        let clean = self.trials.clean().expect("the comparison is done");
        let effects: Vec<f32> = self.trials.values().iter().map(|value| value - clean).collect();
        let (effect, random_effects) = (effects[0], effects[1..].to_vec());
        let random_mean = mean(&random_effects);
        let squares: f32 = random_effects.iter().map(|effect| (effect - random_mean).powi(2)).sum();
        ControlsFindings {
            clean,
            effect,
            random_sd: (squares / (random_effects.len() - 1) as f32).sqrt(),
            random_effects,
            random_mean,
            draws: self.draws,
            n_others: self.n_others,
        }
    }
}
