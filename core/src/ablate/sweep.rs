//! Every head (or every MLP) edited in turn, and what that does to a metric.

use serde::{Deserialize, Serialize};

use super::AblateError;
use super::metric::MetricSpec;
use super::trials::{Trials, lanes_per_batch};
use crate::backend::Backend;
use crate::detect::{Ground, HeadTable};
use crate::forward::Donors;
use crate::hooks::{Edit, Edits, Intervention, Site, Sites};
use crate::ids::{HeadId, TokenId};
use crate::model::ModelConfig;

/// What is edited in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// Every head.
    #[default]
    Heads,
    /// Every MLP.
    Mlps,
}

/// Up to so many rows, lanes of several layers share a pass: a matrix product with fewer spends its time reading weights.
const MERGED_ROWS: usize = 40;

/// A sweep, apart from its prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct SweepSpec {
    /// What is done to each; zero when absent.
    #[serde(default = "zero")]
    pub edit: Edit,
    /// At which positions; all when absent.
    #[serde(default)]
    pub edit_positions: Option<Vec<usize>>,
    /// What is edited in turn.
    #[serde(default)]
    pub targets: Targets,
    /// In which layers; all when absent. A sweep in parts gives the same numbers, bit for bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// In what the effect is measured.
    #[serde(flatten)]
    pub metric: MetricSpec,
}

fn zero() -> Edit {
    Edit::Zero {}
}

impl Default for SweepSpec {
    fn default() -> Self {
        Self {
            edit: zero(),
            edit_positions: None,
            targets: Targets::Heads,
            layers: None,
            metric: MetricSpec::default(),
        }
    }
}

impl SweepSpec {
    /// Sites of one layer, in order.
    fn sites(&self, config: &ModelConfig, layer: usize) -> Vec<Site> {
        match self.targets {
            Targets::Heads => (0..config.n_heads).map(|head| Site::Head(HeadId::new(layer, head))).collect(),
            Targets::Mlps => vec![Site::MlpOut(layer)],
        }
    }

    fn intervention(&self, sites: Sites) -> Intervention {
        Intervention { edit: self.edit.clone(), sites, positions: self.edit_positions.clone() }
    }
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepFindings {
    /// The metric without an edit.
    pub clean: f32,
    /// Edited minus clean, `[layer][head]`, or `[layer][0]` of MLPs; NaN in layers that were not asked for.
    pub effects: HeadTable,
    /// The metric's token, where it has one.
    pub token: Option<TokenId>,
    /// The token that it is compared with, where there is one.
    pub versus: Option<TokenId>,
}

/// A sweep under way.
pub struct SweepTask<B: Backend> {
    spec: SweepSpec,
    n_layers: usize,
    /// Layers swept, from the top: those passes are the shortest, so that the first results come soonest.
    layers: Vec<usize>,
    /// Sites a layer.
    n_sites: usize,
    n_tokens: usize,
    donors: Option<Donors<B>>,
    trials: Trials<B>,
}

impl<B: Backend> SweepTask<B> {
    /// Checks everything before any work.
    pub fn plan(config: &ModelConfig, ids: Vec<TokenId>, spec: SweepSpec) -> Result<Self, AblateError> {
        if spec.targets == Targets::Mlps && spec.edit.is_of_attention() {
            return Err(AblateError::AttentionOfMlps);
        }
        let mut layers = spec.layers.clone().unwrap_or_else(|| (0..config.n_layers).collect());
        if let Some(&layer) = layers.iter().find(|layer| **layer >= config.n_layers) {
            return Err(AblateError::NoSuchLayer { layer, n_layers: config.n_layers });
        }
        if layers.is_empty() {
            return Err(AblateError::NoLayers);
        }
        layers.sort_unstable_by(|a, b| b.cmp(a));
        layers.dedup();
        let mut all = Sites::default();
        for &layer in &layers {
            for site in spec.sites(config, layer) {
                let Sites { heads, mlp_out, .. } = Sites::one(site);
                all.heads.extend(heads);
                all.mlp_out.extend(mlp_out);
            }
        }
        let n_tokens = ids.len();
        let (n_layers, n_sites) = (config.n_layers, spec.sites(config, 0).len());
        // One run of each other prompt serves every site.
        let edits: Edits = vec![spec.intervention(all)].into();
        let trials = Trials::new(config, ids.clone(), spec.metric.clone())?;
        let donors = Some(Donors::plan(config, &ids, edits)?);
        Ok(Self { spec, n_layers, layers, n_sites, n_tokens, donors, trials })
    }

    /// A short piece of the work; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        if let Some(mut donors) = self.donors.take() {
            if !donors.step(ground.backend, ground.model).await? {
                self.donors = Some(donors);
                return Ok(false);
            }
            let batches = self.batches(&ground.model.config, &donors.finish());
            self.trials.extend(batches);
        }
        self.trials.step(ground).await
    }

    /// The edits of each site, those of one layer together as far as there is room.
    fn batches(&self, config: &ModelConfig, whole: &Edits) -> Vec<Vec<Edits>> {
        let n_rows = self.n_tokens - whole.first_position().min(self.n_tokens - 1);
        let edits_of = |site: &Site| Edits {
            interventions: vec![self.spec.intervention(Sites::one(*site))],
            donors: whole.donors.clone(),
        };
        // Lanes of neighbouring layers go together where a layer's are few: they then begin lower than some of them need, but
        // every weight is read once for all of them.
        let n_together = (MERGED_ROWS / (n_rows * self.n_sites)).max(1);
        let mut batches = Vec::new();
        for layers in self.layers.chunks(n_together) {
            let sites: Vec<Site> = layers.iter().flat_map(|&layer| self.spec.sites(config, layer)).collect();
            let lanes = sites.chunks(lanes_per_batch(n_rows));
            batches.extend(lanes.map(|sites| sites.iter().map(edits_of).collect()));
        }
        batches
    }

    /// Sites done and in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.trials.values().len(), self.layers.len() * self.n_sites)
    }

    /// Effects so far; NaN where nothing is known yet.
    pub fn partial(&self) -> HeadTable {
        let mut effects = vec![vec![f32::NAN; self.n_sites]; self.n_layers];
        let clean = self.trials.scorer().map_or(f32::NAN, |scorer| scorer.clean());
        for (index, value) in self.trials.values().iter().enumerate() {
            effects[self.layers[index / self.n_sites]][index % self.n_sites] = value - clean;
        }
        effects
    }

    /// What was found, once nothing is left.
    ///
    /// # Panics
    /// When work is left.
    pub fn finish(self) -> SweepFindings {
        let scorer = self.trials.scorer().expect("the sweep is done");
        let (clean, token, versus) = (scorer.clean(), scorer.token(), scorer.versus());
        SweepFindings { clean, effects: self.partial(), token, versus }
    }
}
