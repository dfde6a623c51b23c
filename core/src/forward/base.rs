//! A run kept whole, so that others can begin in its middle: an edit changes nothing below the first layer and nothing
//! before the first position that it touches.

use super::kv_cache::LayerKv;
use super::{Keeping, LoadedModel, Pass};
use crate::activations::Activations;
use crate::backend::{AttnShape, Backend};
use crate::hooks::{Edits, Entry, PlanError, RunPlan, Stage, TargetKeys};
use crate::ids::{HeadId, TokenId};
use crate::model::ModelConfig;
use crate::tensor::HostTensor;

/// One layer of a kept run.
pub(super) struct BaseLayer<B: Backend> {
    /// Residual stream entering the layer, `[pos, d_model]`.
    pub resid_pre: B::Buffer,
    /// Rotated keys, and values.
    pub kv: LayerKv<B>,
    /// Mixed values, before edits, `[pos, head, d_head]`.
    pub z: B::Buffer,
    /// Residual stream between attention and MLP; there once attention is done.
    pub resid_mid: Option<B::Buffer>,
}

/// A run without edits, kept whole.
pub struct BaseRun<B: Backend> {
    ids: Vec<TokenId>,
    shape: AttnShape,
    pub(super) layers: Vec<BaseLayer<B>>,
    /// Residual stream leaving the last layer.
    pub(super) resid_final: B::Buffer,
}

/// The part of a restarted run's patterns that it computes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPart {
    /// The first layer.
    pub first_layer: usize,
    /// Query positions before the first.
    pub n_past: usize,
}

impl NewPart {
    /// Puts what comes before it to a restarted pass's activations, from the run that it started from and that kept every pattern
    /// needed: rows of patterns, and their part of the masses on `targets`.
    pub(crate) fn complete(
        self,
        run: &mut Activations,
        clean: &Activations,
        targets: &[TargetKeys],
        config: &ModelConfig,
    ) {
        let kept = |head| clean.pattern(head).expect("the run that another starts from kept its patterns");
        for head in run.pattern_heads_from(self.first_layer) {
            let (before, new) = (kept(head), run.pattern(head).expect("it is among those kept"));
            let n_keys = new.row_len();
            let rows = [&before.data[..self.n_past * n_keys], &new.data].concat();
            run.insert_pattern(head, HostTensor::new(vec![n_keys, n_keys], rows));
        }
        for (target, keys) in targets.iter().enumerate() {
            for layer in self.first_layer..config.n_layers {
                for head in (0..config.n_heads).map(|head| HeadId::new(layer, head)) {
                    let rows = kept(head).rows().zip(&keys.0).take(self.n_past);
                    let mass = rows.flat_map(|(row, keys)| keys.iter().map(|&key| row[key])).sum();
                    run.add_target_mass(target, head, mass);
                }
            }
        }
    }
}

impl<B: Backend> BaseRun<B> {
    pub(super) fn new(
        ids: Vec<TokenId>,
        shape: AttnShape,
        layers: Vec<BaseLayer<B>>,
        resid_final: B::Buffer,
    ) -> Self {
        Self { ids, shape, layers, resid_final }
    }

    /// What a kept run of `n_tokens` takes in memory, bytes.
    pub fn size_bytes(config: &ModelConfig, n_tokens: usize) -> usize {
        let row = 2 * config.d_model + (config.n_heads + 2 * config.n_kv_heads) * config.d_head;
        config.n_layers * n_tokens * row * size_of::<f32>()
    }

    /// The tokens that were read.
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// Residual stream between attention and MLP of a layer.
    pub(super) fn resid_mid(&self, layer: usize) -> &B::Buffer {
        self.layers[layer].resid_mid.as_ref().expect("attention of every layer is done")
    }

    /// Residual stream leaving a layer.
    pub(super) fn resid_post(&self, layer: usize) -> &B::Buffer {
        self.layers.get(layer + 1).map_or(&self.resid_final, |next| &next.resid_pre)
    }

    /// A pass over this prompt with the plan's edits, which begins at the first layer that they touch and at position
    /// `n_past`, before which they touch nothing. `activations` are what the kept run's plan, the same but for edits, kept:
    /// patterns and their sums below that layer are taken from it, and [`NewPart::complete`] puts the rows before that
    /// position to those above. Hook points are captured from the beginning of the pass on.
    pub fn restart(
        &self,
        backend: &B,
        model: &LoadedModel<B>,
        activations: &Activations,
        plan: RunPlan,
        n_past: usize,
    ) -> Result<(Pass<B>, NewPart), PlanError> {
        plan.check(&model.config, self.ids.len())?;
        plan.check_past(n_past)?;
        let lanes = vec![plan.edits.clone()];
        let entry = self.entry(model, &lanes);
        let first_layer = entry.layer + usize::from(entry.stage > Stage::ResidPre);
        let pass = self.pass(backend, model, lanes, entry, n_past);
        let pass = Pass { plan, activations: activations.below(first_layer), ..pass };
        Ok((pass, NewPart { first_layer, n_past }))
    }

    /// A pass over this prompt with several sets of edits, each a lane, which begins at the first layer and position that
    /// any of them touches.
    ///
    /// # Panics
    /// Without a lane.
    pub fn lanes(
        &self,
        backend: &B,
        model: &LoadedModel<B>,
        lanes: Vec<Edits>,
    ) -> Result<Pass<B>, PlanError> {
        assert!(!lanes.is_empty(), "a pass has a lane");
        lanes.iter().try_for_each(|edits| edits.check(&model.config, self.ids.len()))?;
        let first = lanes.iter().map(Edits::first_position).min().unwrap_or(0);
        // A pass has a row, also where nothing is edited.
        let n_past = first.min(self.ids.len() - 1);
        let entry = self.entry(model, &lanes);
        Ok(self.pass(backend, model, lanes, entry, n_past))
    }

    /// Where edits begin; at the last MLP, or the last W_O, where they touch nothing.
    fn entry(&self, model: &LoadedModel<B>, lanes: &[Edits]) -> Entry {
        let config = &model.config;
        let stage = if config.has_mlp() { Stage::ResidMid } else { Stage::Z };
        let last = Entry { layer: config.n_layers - 1, stage };
        lanes.iter().filter_map(|edits| edits.entry(config)).min().unwrap_or(last)
    }

    pub(super) fn pass(
        &self,
        backend: &B,
        model: &LoadedModel<B>,
        lanes: Vec<Edits>,
        entry: Entry,
        n_past: usize,
    ) -> Pass<B> {
        let (config, n_tokens) = (&model.config, self.ids.len());
        let rows = |x: &B::Buffer, width: usize| {
            let new = || backend.slice(x, n_past * width..n_tokens * width);
            backend.concat(lanes.iter().map(|_| new()).collect())
        };
        let layer = &self.layers[entry.layer];
        let (resid, z) = match entry.stage {
            Stage::ResidMid => (self.resid_mid(entry.layer), None),
            Stage::Z => (&layer.resid_pre, Some(rows(&layer.z, config.n_heads * config.d_head))),
            Stage::ResidPre => (&layer.resid_pre, None),
        };
        let resid = rows(resid, config.d_model);
        let begin = match (entry.stage, z) {
            (Stage::ResidPre, _) => None,
            (stage, z) => Some((stage, z.unwrap_or_else(|| resid.clone()))),
        };
        // A layer that begins after its attention needs no keys.
        let first_attention = entry.layer + usize::from(begin.is_some());
        let d_row = config.n_kv_heads * config.d_head;
        let past = match n_past {
            0 => Vec::new(),
            _ => {
                self.layers[first_attention..].iter().map(|l| l.kv.prefix(backend, n_past * d_row)).collect()
            }
        };
        let shape = AttnShape { n_past, n_lanes: lanes.len(), ..self.shape };
        Pass {
            plan: RunPlan::default(),
            lanes,
            ids: self.ids.clone(),
            shape,
            next_layer: entry.layer,
            entry: begin,
            resid,
            activations: Activations::default(),
            pending: Default::default(),
            first_wanted: n_past,
            past: past.into_iter(),
            keeping: Keeping::Nothing,
        }
    }
}
