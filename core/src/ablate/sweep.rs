//! Every head (or every MLP, or set of heads) edited in turn, and what that does to a metric.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::AblateError;
use super::metric::MetricSpec;
use super::trials::{MAX_LANE_ROWS, Trials, lanes_per_batch};
use crate::backend::Backend;
use crate::detect::{Ground, HeadTable};
use crate::forward::Donors;
use crate::hooks::{Edit, Edits, Intervention, Site, Sites, check_head};
use crate::ids::{HeadId, TokenId};
use crate::model::ModelConfig;

/// What is edited in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// Every head.
    #[default]
    Heads,
    /// Every MLP.
    Mlps,
    /// Sets of heads; the heads of a set are edited together.
    Sets(#[cfg_attr(feature = "ts", ts(as = "Vec<Vec<HeadId>>"))] Vec<BTreeSet<HeadId>>),
}

/// Up to so many rows, lanes of several layers share a pass on the CPU: a matrix product with fewer spends its time reading
/// weights. On a graphics device they share it as long as there is room.
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
    /// In which layers, and in this order; all when absent, from the top: those passes are the shortest, so that the first results
    /// come soonest. A sweep in parts gives the same numbers, bit for bit.
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
    /// What is edited at a time, in the order of the work.
    fn targets(&self, config: &ModelConfig) -> Result<Vec<Target>, AblateError> {
        if let Targets::Sets(sets) = &self.targets {
            return self.targets_of_sets(sets, config);
        }
        let mut layers = self.layers.clone().unwrap_or_else(|| (0..config.n_layers).rev().collect());
        if let Some(&layer) = layers.iter().find(|layer| **layer >= config.n_layers) {
            return Err(AblateError::NoSuchLayer { layer, n_layers: config.n_layers });
        }
        if layers.is_empty() {
            return Err(AblateError::NoLayers);
        }
        let mut seen = BTreeSet::new();
        layers.retain(|layer| seen.insert(*layer));
        let target = |layer, column, site| Target { layer, cell: (layer, column), sites: Sites::one(site) };
        let of_layer = |layer: usize| -> Vec<Target> {
            let heads = (0..config.n_heads).map(|head| Site::Head(HeadId::new(layer, head)));
            match self.targets {
                Targets::Mlps => vec![target(layer, 0, Site::MlpOut(layer))],
                _ => heads.enumerate().map(|(head, site)| target(layer, head, site)).collect(),
            }
        };
        Ok(layers.into_iter().flat_map(of_layer).collect())
    }

    fn targets_of_sets(
        &self,
        sets: &[BTreeSet<HeadId>],
        config: &ModelConfig,
    ) -> Result<Vec<Target>, AblateError> {
        if self.layers.is_some() {
            return Err(AblateError::LayersOfSets);
        }
        if sets.is_empty() {
            return Err(AblateError::NoSets);
        }
        let target = |(set, heads): (usize, &BTreeSet<HeadId>)| {
            let lowest = heads.first().ok_or(AblateError::EmptySetOfHeads { set })?;
            heads.iter().try_for_each(|head| check_head(*head, config))?;
            Ok(Target { layer: lowest.layer, cell: (0, set), sites: Sites::heads(heads.iter().copied()) })
        };
        let mut targets = sets.iter().enumerate().map(target).collect::<Result<Vec<_>, AblateError>>()?;
        targets.sort_by_key(|target| std::cmp::Reverse(target.layer));
        Ok(targets)
    }

    /// Rows and columns of the effects' table.
    fn shape(&self, config: &ModelConfig) -> (usize, usize) {
        match &self.targets {
            Targets::Heads => (config.n_layers, config.n_heads),
            Targets::Mlps => (config.n_layers, 1),
            Targets::Sets(sets) => (1, sets.len()),
        }
    }

    fn intervention(&self, sites: Sites) -> Intervention {
        Intervention { edit: self.edit.clone(), sites, positions: self.edit_positions.clone() }
    }
}

/// Sites that are edited together.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    /// The lowest layer of its sites.
    layer: usize,
    /// Where its effect stands: row and column.
    cell: (usize, usize),
    sites: Sites,
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepFindings {
    /// The metric without an edit.
    pub clean: f32,
    /// Edited minus clean, `[layer][head]`, `[layer][0]` of MLPs, or `[0][set]`; NaN in layers that were not asked for.
    pub effects: HeadTable,
    /// The metric's token, where it has one.
    pub token: Option<TokenId>,
    /// The token that it is compared with, where there is one.
    pub versus: Option<TokenId>,
}

/// A sweep under way.
pub struct SweepTask<B: Backend> {
    spec: SweepSpec,
    targets: Vec<Target>,
    /// Rows and columns of the effects' table.
    shape: (usize, usize),
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
        let targets = spec.targets(config)?;
        let mut all = Sites::default();
        for Target { sites, .. } in &targets {
            all.heads.extend(&sites.heads);
            all.mlp_out.extend(&sites.mlp_out);
        }
        let n_tokens = ids.len();
        // One run of each other prompt serves every site.
        let edits: Edits = vec![spec.intervention(all)].into();
        let trials = Trials::new(config, ids.clone(), spec.metric.clone())?;
        let donors = Some(Donors::plan(config, &ids, edits)?);
        Ok(Self { shape: spec.shape(config), spec, targets, n_tokens, donors, trials })
    }

    /// A short piece of the work; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        if let Some(mut donors) = self.donors.take() {
            if !donors.step(ground.backend, ground.model).await? {
                self.donors = Some(donors);
                return Ok(false);
            }
            let merged_rows = if ground.backend.wants_large_pieces() { MAX_LANE_ROWS } else { MERGED_ROWS };
            let batches = self.batches(&donors.finish(), merged_rows);
            self.trials.extend(batches);
        }
        self.trials.step(ground).await
    }

    /// The edits of each target, those that begin in one layer together as far as there is room.
    fn batches(&self, whole: &Edits, merged_rows: usize) -> Vec<Vec<Edits>> {
        let n_rows = self.n_tokens - whole.first_position().min(self.n_tokens - 1);
        let edits_of = |target: &Target| Edits {
            interventions: vec![self.spec.intervention(target.sites.clone())],
            donors: whole.donors.clone(),
        };
        // Lanes of neighbouring layers go together where a layer's are few: they then begin lower than some of them need, but
        // every weight is read once for all of them.
        let layers: Vec<&[Target]> = self.targets.chunk_by(|a, b| a.layer == b.layer).collect();
        let n_widest = layers.iter().map(|layer| layer.len()).max().unwrap_or(1);
        let n_together = (merged_rows / (n_rows * n_widest)).max(1);
        let mut batches = Vec::new();
        for layers in layers.chunks(n_together) {
            let targets: Vec<&Target> = layers.iter().copied().flatten().collect();
            let lanes = targets.chunks(lanes_per_batch(n_rows));
            batches.extend(lanes.map(|targets| targets.iter().copied().map(edits_of).collect()));
        }
        batches
    }

    /// Goes on elsewhere after a device failed, from the values that are known; false where none can be yet.
    pub fn go_on(&mut self) -> bool {
        self.donors.is_none() && self.trials.go_on()
    }

    /// Targets done and in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.trials.values().len(), self.targets.len())
    }

    /// Effects so far; NaN where nothing is known yet.
    pub fn partial(&self) -> HeadTable {
        let (n_rows, n_columns) = self.shape;
        let mut effects = vec![vec![f32::NAN; n_columns]; n_rows];
        let clean = self.trials.clean().unwrap_or(f32::NAN);
        for (value, Target { cell: (row, column), .. }) in self.trials.values().iter().zip(&self.targets) {
            effects[*row][*column] = value - clean;
        }
        effects
    }

    /// What was found, once nothing is left.
    ///
    /// # Panics
    /// When work is left.
    pub fn finish(self) -> SweepFindings {
        let scorer = self.trials.scorer().expect("the sweep is done");
        let (token, versus) = (scorer.token(), scorer.versus());
        let clean = self.trials.clean().expect("the sweep is done");
        SweepFindings { clean, effects: self.partial(), token, versus }
    }
}
