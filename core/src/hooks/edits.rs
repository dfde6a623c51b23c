//! The interventions of one run together: whether they fit a model and a prompt, where in the pass they begin, and what
//! stays of them when the prompt goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::{ActivationDirection, Edit, Intervention, PlanError, Prompt, Site, check_head, check_vocabulary};
use crate::activations::Activations;
use crate::ids::{HeadId, TokenId};
use crate::model::ModelConfig;

/// Largest factor of a [`Edit::Scale`] or [`Edit::ProjectOut`]: beyond it numbers overflow before they mean anything.
const MAX_STRENGTH: f32 = 100.0;

/// Interventions in order, with the activations of other runs that they read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// What is changed, in order.
    pub interventions: Vec<Intervention>,
    /// For each intervention the other run that it reads, once that has run; a tensor with one row stands for every
    /// position.
    pub donors: Vec<Option<Arc<Activations>>>,
}

impl From<Vec<Intervention>> for Edits {
    fn from(interventions: Vec<Intervention>) -> Self {
        let donors = vec![None; interventions.len()];
        Self { interventions, donors }
    }
}

/// The first place that an edit touches: below it a pass computes what it would have computed without the edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The layer.
    pub layer: usize,
    /// Where in it.
    pub stage: Stage,
}

/// Places of a layer at which a pass can begin, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// With the residual stream entering the layer.
    ResidPre,
    /// With `z`, before W_O.
    Z,
    /// With the residual stream before the MLP.
    ResidMid,
}

impl Intervention {
    fn entry(&self, config: &ModelConfig) -> Option<Entry> {
        let of_site = |site: Site| {
            let stage = match site {
                _ if self.edit.is_of_attention() => Stage::ResidPre,
                Site::ResidPre(_) => Stage::ResidPre,
                Site::Head(_) | Site::AttnOut(_) => Stage::Z,
                Site::MlpOut(_) => Stage::ResidMid,
            };
            Entry { layer: site.layer(), stage }
        };
        self.sites.iter(config).map(of_site).min()
    }

    /// The first position whose values can change.
    fn first_position(&self) -> usize {
        match (&self.edit, &self.positions) {
            // Its mean is over rows that must be computed.
            (Edit::Mean { over: None }, _) => 0,
            (Edit::Knockout { edges }, _) => edges.iter().map(|edge| edge.0).min().unwrap_or(usize::MAX),
            (_, Some(positions)) => positions.iter().copied().min().unwrap_or(usize::MAX),
            (_, None) => 0,
        }
    }

    fn check(&self, config: &ModelConfig, n_tokens: usize) -> Result<(), PlanError> {
        self.sites.heads.iter().try_for_each(|&head| check_head(head, config))?;
        if let Some(layer) = self.sites.named_layers().find(|&layer| layer >= config.n_layers) {
            return Err(PlanError::UnknownLayer { layer, n_layers: config.n_layers });
        }
        if !self.sites.mlp_out.is_empty() && !config.has_mlp() {
            return Err(PlanError::NoMlp);
        }
        if self.edit.is_of_attention() && self.sites.named_layers().next().is_some() {
            return Err(PlanError::AttentionNeedsHeads);
        }
        self.check_positions(n_tokens)?;
        self.check_numbers(config, n_tokens)
    }

    fn check_positions(&self, n_tokens: usize) -> Result<(), PlanError> {
        let positions = self.positions.as_deref().unwrap_or_default();
        if let Some(&position) = positions.iter().find(|&&position| position >= n_tokens) {
            return Err(PlanError::UnknownPosition { position, n_tokens });
        }
        let mut seen = BTreeSet::new();
        match positions.iter().find(|&&position| !seen.insert(position)) {
            Some(&position) => Err(PlanError::PositionTwice { position }),
            None => Ok(()),
        }
    }

    fn check_numbers(&self, config: &ModelConfig, n_tokens: usize) -> Result<(), PlanError> {
        let within = |name, value: f32, allowed: Range<f32>, range| {
            // NaN is in no range.
            let is_inside = value >= allowed.start && value <= allowed.end;
            let told = || PlanError::OutOfRange { name, value: value.to_string(), range };
            if is_inside { Ok(()) } else { Err(told()) }
        };
        match &self.edit {
            Edit::Scale { alpha } => {
                within("alpha", *alpha, -MAX_STRENGTH..MAX_STRENGTH, "a number from -100 to 100")
            }
            Edit::InterpolatePattern { strength, .. } => within("strength", *strength, 0.0..1.0, "0 to 1"),
            Edit::PatternTemperature { tau } => {
                within("tau", *tau, 1e-3..1e3, "a temperature from 0.001 to 1000")
            }
            Edit::ProjectOut { direction, strength } => {
                within("strength", *strength, -MAX_STRENGTH..MAX_STRENGTH, "a number from -100 to 100")?;
                let is_bad = |d: &[f32]| d.iter().any(|x| !x.is_finite()) || d.iter().all(|&x| x == 0.0);
                let (got, is_bad) = match direction {
                    ActivationDirection::Values(values) => (values.len(), is_bad(values)),
                    ActivationDirection::OfToken { unembedding_of } => {
                        check_vocabulary(&[token_of(unembedding_of)?], config)?;
                        (config.d_model, false)
                    }
                };
                let mut widths = self.sites.iter(config).map(|site| site.columns(config).len());
                match widths.find(|&wanted| wanted != got || is_bad) {
                    Some(wanted) => Err(PlanError::Direction { got, wanted }),
                    None => Ok(()),
                }
            }
            Edit::Mean { over: Some(prompts) } if prompts.is_empty() => Err(PlanError::EmptySet),
            Edit::Patch { from_positions: Some(from), .. } => {
                let n_positions = self.positions.as_ref().map_or(n_tokens, Vec::len);
                match from.len() == n_positions {
                    true => Ok(()),
                    false => Err(PlanError::FromPositions { n_positions, n_from: from.len() }),
                }
            }
            Edit::Knockout { edges } => {
                if self.positions.is_some() {
                    return Err(PlanError::EdgesAndPositions);
                }
                edges.iter().try_for_each(|&(query, key)| match (query < n_tokens, key <= query) {
                    (false, _) => Err(PlanError::UnknownPosition { position: query, n_tokens }),
                    (_, false) => Err(PlanError::EdgeAhead { query, key }),
                    _ => Ok(()),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The one token that a prompt is.
///
/// # Panics
/// At a text that was not tokenised before: an engine's bug.
pub(crate) fn token_of(prompt: &Prompt) -> Result<TokenId, PlanError> {
    match ids_of(prompt) {
        [id] => Ok(*id),
        ids => Err(PlanError::NotOneToken { n_tokens: ids.len() }),
    }
}

fn ids_of(prompt: &Prompt) -> &[TokenId] {
    match prompt {
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) => unreachable!("the text {text:?} was not tokenised"),
    }
}

impl Edits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.interventions.is_empty()
    }

    /// The first place that they touch; `None` when they touch nothing.
    pub fn entry(&self, config: &ModelConfig) -> Option<Entry> {
        self.interventions.iter().filter_map(|intervention| intervention.entry(config)).min()
    }

    /// The first position whose values can change; beyond every prompt when there is none.
    pub fn first_position(&self) -> usize {
        self.interventions.iter().map(Intervention::first_position).min().unwrap_or(usize::MAX)
    }

    /// The interventions with their index, and their sites in one layer.
    pub fn in_layer(&self, config: &ModelConfig, layer: usize) -> Vec<(usize, &Intervention, Site)> {
        let mut found = Vec::new();
        for (index, intervention) in self.interventions.iter().enumerate() {
            let sites = intervention.sites.iter(config).filter(|site| site.layer() == layer);
            found.extend(sites.map(|site| (index, intervention, site)));
        }
        found
    }

    /// Fails unless they fit a pass after `n_past` positions.
    pub fn check_past(&self, n_past: usize) -> Result<(), PlanError> {
        for (index, intervention) in self.interventions.iter().enumerate().filter(|_| n_past > 0) {
            if matches!(intervention.edit, Edit::Mean { over: None }) && self.donors[index].is_none() {
                return Err(PlanError::MeanOfPart);
            }
            let edges = match &intervention.edit {
                Edit::Knockout { edges } => edges.as_slice(),
                _ => &[],
            };
            let positions = intervention.positions.iter().flatten().chain(edges.iter().map(|edge| &edge.0));
            if let Some(&position) = positions.into_iter().find(|&&position| position < n_past) {
                return Err(PlanError::PastPosition { position, n_past });
            }
        }
        Ok(())
    }

    /// Fails unless they fit the model and a prompt of `n_tokens`.
    pub fn check(&self, config: &ModelConfig, n_tokens: usize) -> Result<(), PlanError> {
        let mut cut: BTreeMap<(HeadId, usize), BTreeSet<usize>> = BTreeMap::new();
        for intervention in &self.interventions {
            intervention.check(config, n_tokens)?;
            let Edit::Knockout { edges } = &intervention.edit else { continue };
            for &head in &intervention.sites.heads {
                for &(query, key) in edges {
                    cut.entry((head, query)).or_default().insert(key);
                }
            }
        }
        match cut.into_iter().find(|((_, query), keys)| keys.len() > *query) {
            Some(((head, query), _)) => Err(PlanError::NoKeyLeft { head, query }),
            None => Ok(()),
        }
    }

    /// Fails unless another run's prompt of `n_donor` tokens lines up with one of `n_tokens`.
    pub(crate) fn check_donor(&self, index: usize, n_donor: usize, n_tokens: usize) -> Result<(), PlanError> {
        match &self.interventions[index].edit {
            Edit::Patch { from_positions: Some(from), .. } => {
                match from.iter().find(|&&position| position >= n_donor) {
                    Some(&position) => Err(PlanError::UnknownPosition { position, n_tokens: n_donor }),
                    None => Ok(()),
                }
            }
            Edit::Patch { .. } if n_donor != n_tokens => Err(PlanError::DonorLength { n_donor, n_tokens }),
            Edit::FreezePattern { .. } if n_donor != n_tokens => {
                Err(PlanError::PatternLength { n_donor, n_tokens })
            }
            _ => Ok(()),
        }
    }

    /// The other runs that intervention `index` reads, as ids; `None` in place of this prompt's own run. Nothing when it
    /// reads none, or has read them.
    ///
    /// # Panics
    /// At a text that was not tokenised before: an engine's bug.
    pub(crate) fn donor_ids(&self, index: usize) -> Vec<Option<Vec<TokenId>>> {
        let prompts = match &self.donors[index] {
            Some(_) => Vec::new(),
            None => self.interventions[index].edit.donors().unwrap_or_default(),
        };
        prompts.into_iter().map(|prompt| prompt.map(|prompt| ids_of(prompt).to_vec())).collect()
    }

    /// What stays in force at positions after a prompt of which these were the edits. Edits of named positions, and those
    /// that take another run's values position by position, end with the prompt; a mean over the prompt, of which `means`
    /// has the values by intervention, stays what it was there.
    pub(crate) fn after_prompt(&self, means: &BTreeMap<usize, Activations>) -> Self {
        let mut after = Self::default();
        for (index, intervention) in self.interventions.iter().enumerate() {
            let ends = matches!(
                intervention.edit,
                Edit::Patch { .. } | Edit::FreezePattern { .. } | Edit::Knockout { .. }
            );
            if !ends && intervention.positions.is_none() {
                let mean = means.get(&index).cloned().map(Arc::new);
                after.interventions.push(intervention.clone());
                after.donors.push(mean.or_else(|| self.donors[index].clone()));
            }
        }
        after
    }
}
