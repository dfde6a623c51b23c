//! The forward pass: the only one. Generic over [`Backend`], one layer a step, so that a caller can yield, report or
//! cancel between layers. Families differ in config and weights, not here. A pass can continue after others whose keys
//! and values a [`KvCache`] holds.

mod kv_cache;

pub use kv_cache::KvCache;

use self::kv_cache::LayerKv;
use crate::activations::Activations;
use crate::backend::{AttnShape, Backend, HeadEdit};
use crate::hooks::{Intervention, PlanError, RunPlan, check_ids_after};
use crate::ids::BlockHook::{
    AttnOut, AttnScores, K, Ln1Normalized, Ln2Normalized, MlpOut, MlpPost, MlpPre, MlpPreLinear, Pattern, Q,
    ResidMid, ResidPost, ResidPre, RotK, RotQ, V, Z,
};
use crate::ids::{BlockHook, HeadId, HookPoint, TokenId};
use crate::model::{Block, Checkpoint, Mlp, Model, ModelConfig, ModelError, Weight};
use crate::tensor::HostTensor;

/// A model whose weights are in backend `B`'s layouts.
pub type LoadedModel<B> = Model<<B as Backend>::Matrix, <B as Backend>::Buffer>;

/// At most this many attention weights are in memory at once, 64 MiB of f32: longer prompts go in blocks of queries.
const MAX_BLOCK_WEIGHTS: usize = 1 << 24;

/// Takes a checkpoint's tensors into a backend, one a step.
pub struct Upload<B: Backend> {
    todo: std::vec::IntoIter<Weight>,
    matrices: Vec<B::Matrix>,
    vectors: Vec<B::Buffer>,
}

impl<B: Backend> Upload<B> {
    /// Nothing uploaded yet.
    pub fn new(config: &ModelConfig) -> Self {
        Self { todo: config.tensors().into_iter(), matrices: Vec::new(), vectors: Vec::new() }
    }

    /// Tensors taken so far.
    pub fn n_done(&self) -> usize {
        self.matrices.len() + self.vectors.len()
    }

    /// Takes one tensor; true when none was left.
    pub fn step(&mut self, backend: &B, checkpoint: &dyn Checkpoint) -> Result<bool, ModelError> {
        let Some(weight) = self.todo.next() else { return Ok(true) };
        let tensor = checkpoint.tensor(weight)?;
        if tensor.shape.len() == 1 {
            self.vectors.push(backend.vector(&tensor));
        } else {
            self.matrices.push(backend.matrix(&tensor));
        }
        Ok(false)
    }

    /// The model, once every tensor is in.
    ///
    /// # Panics
    /// When tensors are missing: callers step until nothing is left.
    pub fn finish(self, config: ModelConfig) -> LoadedModel<B> {
        let mut matrices = self.matrices.into_iter();
        let mut vectors = self.vectors.into_iter();
        // Both come in the order of `ModelConfig::tensors`.
        let mut matrix = || matrices.next().expect("every matrix was uploaded");
        let mut vector = || vectors.next().expect("every vector was uploaded");
        let w_e = matrix();
        let blocks = (0..config.n_layers)
            .map(|_| Block {
                attn_norm: vector(),
                w_q: matrix(),
                w_k: matrix(),
                w_v: matrix(),
                w_o: matrix(),
                mlp: config.has_mlp().then(|| Mlp {
                    norm: vector(),
                    w_gate: matrix(),
                    w_in: matrix(),
                    w_out: matrix(),
                }),
            })
            .collect();
        let final_norm = vector();
        let w_u = (!config.tied_embeddings).then(matrix);
        Model { config, w_e, blocks, final_norm, w_u }
    }
}

/// A forward pass under way. Owns its state; backend and model are lent to each step.
pub struct Pass<B: Backend> {
    plan: RunPlan,
    shape: AttnShape,
    next_layer: usize,
    resid: B::Buffer,
    activations: Activations,
    /// Keys and values read before, of the layers to come.
    past: std::vec::IntoIter<LayerKv<B>>,
    /// Keys and values of the layers done, if they are kept.
    kept: Option<Vec<LayerKv<B>>>,
}

impl<B: Backend> Pass<B> {
    /// Checks ids and plan, then embeds.
    pub fn start(
        backend: &B,
        model: &LoadedModel<B>,
        ids: &[TokenId],
        plan: RunPlan,
    ) -> Result<Self, PlanError> {
        let mut pass = Self::resume(backend, model, KvCache::default(), ids, plan)?;
        pass.kept = None;
        Ok(pass)
    }

    /// As [`Self::start`], after the positions of a cache: activations have rows for `ids` alone, patterns also have the
    /// keys before. [`Self::finish_keeping`] gives the cache back, `ids` included.
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
        };
        let (past, kept) = (cache.into_layers(), Some(Vec::new()));
        let mut pass =
            Self { plan, shape, next_layer: 0, resid, activations: Activations::default(), past, kept };
        if pass.plan.capture.contains(HookPoint::Embed) {
            let tensor = HostTensor::new(vec![ids.len(), config.d_model], backend.download(&pass.resid));
            pass.activations.insert(HookPoint::Embed, tensor);
        }
        Ok(pass)
    }

    /// Layers done.
    pub fn n_done(&self) -> usize {
        self.next_layer
    }

    /// Runs one layer; true when none was left.
    pub fn step(&mut self, backend: &B, model: &LoadedModel<B>) -> bool {
        let Some(block) = model.blocks.get(self.next_layer) else { return true };
        let layer = LayerStep { backend, config: &model.config, layer: self.next_layer };
        layer.attention(self, block);
        if let Some(mlp) = &block.mlp {
            layer.mlp(self, mlp);
        }
        layer.keep_resid(self, ResidPost);
        self.next_layer += 1;
        false
    }

    /// Output of the final norm, `[pos, d_model]`, and what was kept.
    ///
    /// # Panics
    /// When layers are left.
    pub fn finish(self, backend: &B, model: &LoadedModel<B>) -> (B::Buffer, Activations) {
        let (normalized, activations, _) = self.finish_keeping(backend, model);
        (normalized, activations)
    }

    /// As [`Self::finish`], with the keys and values of every position read so far; of a pass that did not begin with
    /// [`Self::resume`], none.
    ///
    /// # Panics
    /// When layers are left.
    pub fn finish_keeping(
        mut self,
        backend: &B,
        model: &LoadedModel<B>,
    ) -> (B::Buffer, Activations, KvCache<B>) {
        assert_eq!(self.next_layer, model.config.n_layers, "the pass was finished before its last layer");
        let normalized = backend.rms_norm(&self.resid, &model.final_norm, model.config.rms_eps);
        if self.plan.capture.contains(HookPoint::FinalNormalized) {
            let shape = vec![self.shape.n_new(), model.config.d_model];
            let tensor = HostTensor::new(shape, backend.download(&normalized));
            self.activations.insert(HookPoint::FinalNormalized, tensor);
        }
        let cache = self.kept.map(|layers| KvCache::of_layers(layers, self.shape)).unwrap_or_default();
        (normalized, self.activations, cache)
    }
}

/// One layer of one pass.
struct LayerStep<'a, B: Backend> {
    backend: &'a B,
    config: &'a ModelConfig,
    layer: usize,
}

impl<B: Backend> LayerStep<'_, B> {
    fn attention(&self, pass: &mut Pass<B>, block: &Block<B::Matrix, B::Buffer>) {
        let AttnShape { n_heads, n_kv_heads, d_head, n_past, .. } = pass.shape;
        let (backend, config, n_new) = (self.backend, self.config, pass.shape.n_new());
        self.keep_resid(pass, ResidPre);
        let x = backend.rms_norm(&pass.resid, &block.attn_norm, config.rms_eps);
        self.keep(pass, Ln1Normalized, &x, &[n_new, config.d_model]);
        let q = backend.matmul(&x, &block.w_q);
        let k = backend.matmul(&x, &block.w_k);
        let v = backend.matmul(&x, &block.w_v);
        self.keep(pass, Q, &q, &[n_new, n_heads, d_head]);
        self.keep(pass, K, &k, &[n_new, n_kv_heads, d_head]);
        self.keep(pass, V, &v, &[n_new, n_kv_heads, d_head]);
        let q = backend.rope(&q, n_heads, d_head, config.rope_theta, n_past);
        let k = backend.rope(&k, n_kv_heads, d_head, config.rope_theta, n_past);
        self.keep(pass, RotQ, &q, &[n_new, n_heads, d_head]);
        self.keep(pass, RotK, &k, &[n_new, n_kv_heads, d_head]);
        let new = LayerKv { k, v };
        let kv = match pass.past.next() {
            Some(past) => past.and(backend, &new),
            None => new,
        };
        let z = self.mix(pass, &q, &kv);
        if let Some(kept) = &mut pass.kept {
            kept.push(kv);
        }
        let z = self.edit_heads(pass, z);
        self.keep(pass, Z, &z, &[n_new, n_heads, d_head]);
        let attn_out = backend.matmul(&z, &block.w_o);
        self.keep(pass, AttnOut, &attn_out, &[n_new, config.d_model]);
        pass.resid = backend.add(&pass.resid, &attn_out);
    }

    fn mlp(&self, pass: &mut Pass<B>, mlp: &Mlp<B::Matrix, B::Buffer>) {
        let (backend, config, n_new) = (self.backend, self.config, pass.shape.n_new());
        self.keep_resid(pass, ResidMid);
        let x = backend.rms_norm(&pass.resid, &mlp.norm, config.rms_eps);
        self.keep(pass, Ln2Normalized, &x, &[n_new, config.d_model]);
        let gate = backend.matmul(&x, &mlp.w_gate);
        let linear = backend.matmul(&x, &mlp.w_in);
        self.keep(pass, MlpPre, &gate, &[n_new, config.d_mlp]);
        self.keep(pass, MlpPreLinear, &linear, &[n_new, config.d_mlp]);
        let post = backend.swiglu(&gate, &linear);
        self.keep(pass, MlpPost, &post, &[n_new, config.d_mlp]);
        let mlp_out = backend.matmul(&post, &mlp.w_out);
        self.keep(pass, MlpOut, &mlp_out, &[n_new, config.d_model]);
        pass.resid = backend.add(&pass.resid, &mlp_out);
    }

    /// Scores, pattern and mixed values, in blocks of queries; gives `z`.
    fn mix(&self, pass: &mut Pass<B>, q: &B::Buffer, kv: &LayerKv<B>) -> B::Buffer {
        let shape = pass.shape;
        let block_len = (MAX_BLOCK_WEIGHTS / (shape.n_heads * shape.n_tokens)).max(1);
        let mut kept = self.kept_weights(pass);
        let mut mass = vec![vec![0.0; shape.n_heads]; pass.plan.targets.len()];
        let mut entropy = vec![0.0; shape.n_heads];
        let mut z_blocks = Vec::new();
        for first in (shape.n_past..shape.n_tokens).step_by(block_len) {
            let queries = first..(first + block_len).min(shape.n_tokens);
            let scores = self.backend.attn_scores(q, &kv.k, shape, queries.clone());
            let pattern = self.backend.softmax(&scores, shape);
            for weights in &mut kept {
                let source = if weights.hook == AttnScores { &scores } else { &pattern };
                weights.take(self.backend, source, shape, queries.clone());
            }
            for (mass, keys) in mass.iter_mut().zip(&pass.plan.targets) {
                let block = self.backend.target_mass(&pattern, shape, queries.clone(), keys);
                mass.iter_mut().zip(block).for_each(|(sum, more)| *sum += more);
            }
            if pass.plan.entropy {
                let block = self.backend.entropy_sum(&pattern, shape, queries.clone());
                entropy.iter_mut().zip(block).for_each(|(sum, more)| *sum += more);
            }
            if pass.plan.argmax_keys && queries.end == shape.n_tokens {
                let keys = self.backend.argmax_keys(&pattern, shape, queries.clone());
                pass.activations.push_argmax_keys(keys);
            }
            z_blocks.push(self.backend.mix_values(&pattern, &kv.v, shape, queries));
        }
        for weights in kept {
            weights.store(&mut pass.activations, self.layer, shape);
        }
        if !pass.plan.targets.is_empty() {
            pass.activations.push_target_mass(mass);
        }
        if pass.plan.entropy {
            pass.activations.push_entropy(entropy);
        }
        self.backend.concat(z_blocks)
    }

    /// Room for the scores and patterns of this layer that the plan keeps.
    fn kept_weights(&self, pass: &Pass<B>) -> Vec<KeptWeights> {
        let all = 0..pass.shape.n_heads;
        let whole = [AttnScores, Pattern].into_iter();
        let whole = whole.filter(|&hook| pass.plan.capture.contains(HookPoint::Block(self.layer, hook)));
        let mut kept: Vec<_> =
            whole.map(|hook| KeptWeights::new(hook, all.clone(), None, pass.shape)).collect();
        let heads = pass.plan.pattern_heads.iter().filter(|head| head.layer == self.layer);
        kept.extend(heads.map(|id| KeptWeights::new(Pattern, id.head..id.head + 1, Some(*id), pass.shape)));
        kept
    }

    fn edit_heads(&self, pass: &Pass<B>, mut z: B::Buffer) -> B::Buffer {
        for intervention in &pass.plan.interventions {
            let edit = match intervention {
                Intervention::Zero { .. } => HeadEdit::Scale(0.0),
                Intervention::Scale { alpha, .. } => HeadEdit::Scale(*alpha),
                Intervention::Mean { .. } => HeadEdit::Mean,
            };
            for head in intervention.heads().iter().filter(|head| head.layer == self.layer) {
                z = self.backend.edit_head(z, pass.shape, head.head, edit, intervention.positions());
            }
        }
        z
    }

    fn keep_resid(&self, pass: &mut Pass<B>, hook: BlockHook) {
        if pass.plan.capture.contains(HookPoint::Block(self.layer, hook)) {
            let shape = vec![pass.shape.n_new(), self.config.d_model];
            let tensor = HostTensor::new(shape, self.backend.download(&pass.resid));
            pass.activations.insert(HookPoint::Block(self.layer, hook), tensor);
        }
    }

    fn keep(&self, pass: &mut Pass<B>, hook: BlockHook, buffer: &B::Buffer, shape: &[usize]) {
        let point = HookPoint::Block(self.layer, hook);
        if pass.plan.capture.contains(point) {
            let tensor = HostTensor::new(shape.to_vec(), self.backend.download(buffer));
            pass.activations.insert(point, tensor);
        }
    }
}

/// Scores or patterns of a layer's heads, collected block by block, `[head, query_pos, key_pos]`.
struct KeptWeights {
    hook: BlockHook,
    heads: std::ops::Range<usize>,
    single: Option<HeadId>,
    data: Vec<f32>,
}

impl KeptWeights {
    fn new(hook: BlockHook, heads: std::ops::Range<usize>, single: Option<HeadId>, shape: AttnShape) -> Self {
        let data = vec![0.0; heads.len() * shape.n_new() * shape.n_tokens];
        Self { hook, heads, single, data }
    }

    fn take<B: Backend>(
        &mut self,
        backend: &B,
        block: &B::Buffer,
        shape: AttnShape,
        queries: std::ops::Range<usize>,
    ) {
        let n_block = queries.len() * shape.n_tokens;
        for (slot, head) in self.heads.clone().enumerate() {
            let rows = backend.download(&backend.slice(block, head * n_block..(head + 1) * n_block));
            let start = (slot * shape.n_new() + queries.start - shape.n_past) * shape.n_tokens;
            self.data[start..start + n_block].copy_from_slice(&rows);
        }
    }

    fn store(self, activations: &mut Activations, layer: usize, shape: AttnShape) {
        let (n_queries, n_keys) = (shape.n_new(), shape.n_tokens);
        match self.single {
            Some(head) => {
                activations.insert_pattern(head, HostTensor::new(vec![n_queries, n_keys], self.data))
            }
            None => activations.insert(
                HookPoint::Block(layer, self.hook),
                HostTensor::new(vec![self.heads.len(), n_queries, n_keys], self.data),
            ),
        }
    }
}
