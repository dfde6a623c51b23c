//! The forward pass: the only one. Generic over [`Backend`], one layer a step, so that a caller can yield, report or
//! cancel between layers. Families differ in config and weights, not here.
//!
//! A pass can continue after others whose keys and values a [`KvCache`] holds, and it can restart in the middle of a run
//! that was kept whole ([`BaseRun`]), at the first layer and position that an edit touches. Several edits of one prompt can
//! share a restarted pass: each is a lane, and the lanes' rows go through every weight matrix together.

mod base;
mod direct;
mod donors;
mod kept_weights;
mod kv_cache;
mod layer;
mod pending;
mod upload;

use std::collections::BTreeMap;

pub use base::{BaseRun, NewPart};
pub use direct::direct_resid;
pub use donors::Donors;
pub use kv_cache::KvCache;
pub(crate) use layer::MAX_BLOCK_WEIGHTS;
pub use upload::Upload;

use self::base::BaseLayer;
use self::kv_cache::LayerKv;
use self::layer::LayerStep;
use self::pending::{Pending, Slot};
use crate::activations::Activations;
use crate::backend::{AttnShape, Backend, DeviceError};
use crate::hooks::{Edits, PlanError, RunPlan, Stage, check_ids_after};
use crate::ids::{BlockHook::ResidPost, HookPoint, TokenId};
use crate::model::Model;

/// Rows unembedded in one step: 16 rows of SmolLM2's vocabulary are about 0.9 GFLOP.
pub const UNEMBED_ROWS: usize = 16;
/// Rows unembedded in one step on a graphics device, where their logits stay.
const LARGE_UNEMBED_ROWS: usize = 128;

/// Rows to unembed in one step.
pub(crate) fn unembed_chunk(backend: &impl Backend) -> usize {
    if backend.wants_large_pieces() { LARGE_UNEMBED_ROWS } else { UNEMBED_ROWS }
}

/// A model whose weights are in backend `B`'s layouts.
pub type LoadedModel<B> = Model<<B as Backend>::Matrix, <B as Backend>::Buffer>;

/// What a pass holds on to, layer by layer.
enum Keeping<B: Backend> {
    Nothing,
    /// Keys and values, to continue after.
    Kv(Vec<LayerKv<B>>),
    /// All that a restart needs.
    Base(Vec<BaseLayer<B>>),
}

/// A forward pass under way. Owns its state; backend and model are lent to each step.
pub struct Pass<B: Backend> {
    plan: RunPlan,
    /// Edits of each lane; a plain pass has one.
    lanes: Vec<Edits>,
    ids: Vec<TokenId>,
    shape: AttnShape,
    next_layer: usize,
    /// Where the next layer begins, if not at its beginning, with what stands in for the residual stream there.
    entry: Option<(Stage, B::Buffer)>,
    /// `[lane, pos, d_model]`.
    resid: B::Buffer,
    /// What a restart takes from the run that it starts from.
    activations: Activations,
    pending: Pending<B>,
    /// The first position whose final row anyone reads; the last layer computes no row before it.
    first_wanted: usize,
    /// Keys and values read before, of the layers to come.
    past: std::vec::IntoIter<LayerKv<B>>,
    keeping: Keeping<B>,
}

/// A finished pass.
pub struct Finished<B: Backend> {
    /// Output of the final norm, `[lane, pos, d_model]`.
    pub normalized: B::Buffer,
    /// What the plan kept.
    pub activations: Activations,
    /// Keys and values of every position read so far; of a pass that keeps none, empty.
    pub cache: KvCache<B>,
    /// What a restart needs, of a pass begun with [`Pass::start_keeping`].
    pub base: Option<BaseRun<B>>,
    /// Edits in force after the prompt.
    pub edits_after: Edits,
}

impl<B: Backend> Pass<B> {
    /// Checks ids and plan, then embeds.
    pub fn start(
        backend: &B,
        model: &LoadedModel<B>,
        ids: &[TokenId],
        plan: RunPlan,
    ) -> Result<Self, PlanError> {
        let pass = Self::resume(backend, model, KvCache::default(), ids, plan)?;
        Ok(Self { keeping: Keeping::Nothing, ..pass })
    }

    /// As [`Self::start`], and keeps what a restart needs.
    pub fn start_keeping(
        backend: &B,
        model: &LoadedModel<B>,
        ids: &[TokenId],
        plan: RunPlan,
    ) -> Result<Self, PlanError> {
        let pass = Self::resume(backend, model, KvCache::default(), ids, plan)?;
        Ok(Self { keeping: Keeping::Base(Vec::new()), ..pass })
    }

    /// As [`Self::start`], after the positions of a cache: activations have rows for `ids` alone, patterns also have the
    /// keys before. The cache comes back when the pass is finished, `ids` included.
    pub fn resume(
        backend: &B,
        model: &LoadedModel<B>,
        cache: KvCache<B>,
        ids: &[TokenId],
        plan: RunPlan,
    ) -> Result<Self, PlanError> {
        let (config, n_past) = (&model.config, cache.n_tokens());
        check_ids_after(n_past, ids, config)?;
        plan.check(config, n_past + ids.len())?;
        plan.check_past(n_past)?;
        let resid = backend.gather_rows(&model.w_e, ids);
        let shape = AttnShape {
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            d_head: config.d_head,
            n_past,
            n_tokens: n_past + ids.len(),
            n_lanes: 1,
        };
        let mut pending = Pending::default();
        if plan.capture.contains(HookPoint::Embed) {
            pending.push(Slot::Point(HookPoint::Embed, vec![ids.len(), config.d_model]), resid.clone());
        }
        Ok(Self {
            lanes: vec![plan.edits.clone()],
            plan,
            ids: ids.to_vec(),
            shape,
            next_layer: 0,
            entry: None,
            resid,
            activations: Activations::default(),
            pending,
            first_wanted: n_past,
            past: cache.into_layers(),
            keeping: Keeping::Kv(Vec::new()),
        })
    }

    /// Layers done.
    pub fn n_done(&self) -> usize {
        self.next_layer
    }

    /// The first position that has a row in this pass.
    pub fn n_past(&self) -> usize {
        self.shape.n_past
    }

    /// Says from which position on the final rows are read, in a pass that keeps nothing: the last layer then leaves out those
    /// before, and [`Self::n_past`] moves there.
    pub(crate) fn want_from(mut self, position: usize) -> Self {
        assert!(matches!(self.keeping, Keeping::Nothing), "what is kept is kept whole");
        self.first_wanted = position;
        self
    }

    /// Runs one layer; true when none was left.
    pub fn step(&mut self, backend: &B, model: &LoadedModel<B>) -> bool {
        let Some(block) = model.blocks.get(self.next_layer) else { return true };
        let layer = LayerStep { backend, model, layer: self.next_layer };
        match self.entry.take() {
            None => layer.attention(self, block),
            Some((Stage::Z, z)) => {
                let z = layer.narrow_entry(self, z);
                layer.attention_from_z(self, block, z);
            }
            Some((Stage::ResidPre | Stage::ResidMid, _)) => layer.narrow_resid(self),
        }
        if let Some(mlp) = &block.mlp {
            layer.mlp(self, mlp);
        }
        layer.keep_resid(self, ResidPost);
        self.next_layer += 1;
        false
    }

    /// Applies the final norm and brings what was kept to host memory.
    ///
    /// # Panics
    /// When layers are left.
    pub async fn finish(mut self, backend: &B, model: &LoadedModel<B>) -> Result<Finished<B>, DeviceError> {
        assert_eq!(self.next_layer, model.config.n_layers, "the pass was finished before its last layer");
        let normalized = backend.rms_norm(&self.resid, &model.final_norm, model.config.rms_eps);
        if self.plan.capture.contains(HookPoint::FinalNormalized) {
            let shape = vec![self.shape.n_new(), model.config.d_model];
            self.pending.push(Slot::Point(HookPoint::FinalNormalized, shape), normalized.clone());
        }
        let mut means = BTreeMap::new();
        self.pending.settle(backend, &mut self.activations, &mut means).await?;
        let (mut cache, mut base) = (KvCache::default(), None);
        match self.keeping {
            Keeping::Nothing => {}
            Keeping::Kv(layers) => cache = KvCache::of_layers(layers, self.shape),
            Keeping::Base(layers) => base = Some(BaseRun::new(self.ids, self.shape, layers, self.resid)),
        }
        let edits_after = self.plan.edits.after_prompt(&means);
        Ok(Finished { normalized, activations: self.activations, cache, base, edits_after })
    }
}

/// Why a run could not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
