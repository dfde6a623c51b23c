//! Runs of other prompts (or of this one without edits) whose activations an edit reads: planned from the edits, made one
//! layer a step, and handed to them.

use std::sync::Arc;

use super::{LoadedModel, Pass, RunError};
use crate::activations::Activations;
use crate::backend::Backend;
use crate::hooks::{CaptureSet, Edit, Edits, PlanError, RunPlan, Site};
use crate::ids::TokenId;
use crate::model::ModelConfig;
use crate::tensor::HostTensor;

/// One run to make.
struct Donor {
    /// Which intervention reads it.
    index: usize,
    ids: Vec<TokenId>,
}

/// The runs to make before a run with edits.
pub struct Donors<B: Backend> {
    edits: Edits,
    todo: std::vec::IntoIter<Donor>,
    pass: Option<(usize, Pass<B>)>,
    /// Sums over positions of the runs made so far for the mean in progress, with the number of positions.
    sum: Option<(usize, Activations, usize)>,
}

impl<B: Backend> Donors<B> {
    /// Checks that every run the edits read fits the model and lines up with the prompt.
    pub fn plan(config: &ModelConfig, ids: &[TokenId], edits: Edits) -> Result<Self, PlanError> {
        edits.check(config, ids.len())?;
        let mut todo = Vec::new();
        for index in 0..edits.interventions.len() {
            for donor in edits.donor_ids(index) {
                let donor = donor.unwrap_or_else(|| ids.to_vec());
                crate::hooks::check_ids(&donor, config)?;
                edits.check_donor(index, donor.len(), ids.len())?;
                todo.push(Donor { index, ids: donor });
            }
        }
        Ok(Self { edits, todo: todo.into_iter(), pass: None, sum: None })
    }

    /// One layer of one run; true when none is left.
    pub async fn step(&mut self, backend: &B, model: &LoadedModel<B>) -> Result<bool, RunError> {
        let Some((index, mut pass)) = self.pass.take() else {
            let Some(donor) = self.todo.next() else {
                self.end_mean();
                return Ok(true);
            };
            let plan = self.capture_plan(donor.index, &model.config);
            self.pass = Some((donor.index, Pass::start(backend, model, &donor.ids, plan)?));
            return Ok(false);
        };
        if !pass.step(backend, model) {
            self.pass = Some((index, pass));
            return Ok(false);
        }
        let activations = pass.finish(backend, model).await?.activations;
        match self.edits.interventions[index].edit {
            Edit::Mean { .. } => self.add_to_mean(index, &activations, &model.config),
            _ => self.edits.donors[index] = Some(Arc::new(activations)),
        }
        Ok(false)
    }

    /// The edits with the other runs in place, once none is left.
    pub fn finish(self) -> Edits {
        self.edits
    }

    /// What intervention `index` reads of a run.
    fn capture_plan(&self, index: usize, config: &ModelConfig) -> RunPlan {
        let intervention = &self.edits.interventions[index];
        if intervention.edit.is_of_attention() {
            let pattern_heads = intervention.sites.heads.iter().copied().collect();
            return RunPlan { pattern_heads, ..RunPlan::default() };
        }
        let points = intervention.sites.iter(config).map(Site::point);
        RunPlan { capture: CaptureSet::of(points), ..RunPlan::default() }
    }

    fn add_to_mean(&mut self, index: usize, activations: &Activations, config: &ModelConfig) {
        if self.sum.as_ref().is_some_and(|(of, ..)| *of != index) {
            self.end_mean();
        }
        let (_, sum, n_positions) = self.sum.get_or_insert_with(|| (index, Activations::default(), 0));
        let points: std::collections::BTreeSet<_> = self.edits.interventions[index]
            .sites
            .iter(config)
            .map(|site| (site.point(), site.row_len(config)))
            .collect();
        let mut n_rows = 0;
        for (point, row_len) in points {
            let tensor = activations.get(point).expect("the run kept every site");
            let mut total = sum.get(point).map_or_else(|| vec![0.0; row_len], |sum| sum.data.clone());
            n_rows = tensor.data.len() / row_len;
            for row in tensor.data.chunks_exact(row_len) {
                total.iter_mut().zip(row).for_each(|(total, value)| *total += value);
            }
            sum.insert(point, HostTensor::new(vec![1, row_len], total));
        }
        *n_positions += n_rows;
    }

    fn end_mean(&mut self) {
        if let Some((index, sum, n_positions)) = self.sum.take() {
            self.edits.donors[index] = Some(Arc::new(sum.scaled(1.0 / n_positions as f32)));
        }
    }
}
