//! One layer of one pass: its kernels in order, the edits between them, and what is kept on the way.

use std::ops::Range;

use super::base::BaseLayer;
use super::kept_weights::KeptWeights;
use super::kv_cache::LayerKv;
use super::pending::Slot;
use super::{Keeping, LoadedModel, Pass};
use crate::activations::Activations;
use crate::backend::{AttentionEdit, AttnShape, Backend, RowEdit};
use crate::hooks::{ActivationDirection, Edit, Edits, Intervention, Site, token_of};
use crate::ids::BlockHook::{
    AttnOut, AttnScores, K, Ln1Normalized, Ln2Normalized, MlpOut, MlpPost, MlpPre, MlpPreLinear, Pattern, Q,
    ResidMid, ResidPre, RotK, RotQ, V, Z,
};
use crate::ids::{BlockHook, HeadId, HookPoint};
use crate::model::{Block, Mlp, ModelConfig};
use crate::tensor::HostTensor;

/// At most this many attention weights are in memory at once, 64 MiB of f32: longer prompts go in blocks of queries.
pub(crate) const MAX_BLOCK_WEIGHTS: usize = 1 << 24;

/// One layer of one pass.
pub(super) struct LayerStep<'a, B: Backend> {
    pub backend: &'a B,
    pub model: &'a LoadedModel<B>,
    pub layer: usize,
}

impl<B: Backend> LayerStep<'_, B> {
    /// Attention from the residual stream on.
    pub fn attention(&self, pass: &mut Pass<B>, block: &Block<B::Matrix, B::Buffer>) {
        let AttnShape { n_heads, n_kv_heads, d_head, n_past, n_tokens, .. } = pass.shape;
        let (backend, config, n_new) = (self.backend, &self.model.config, pass.shape.n_new());
        self.edit_resid(pass);
        self.keep_resid(pass, ResidPre);
        let x = backend.rms_norm(&pass.resid, &block.attn_norm, config.rms_eps);
        self.keep(pass, Ln1Normalized, &x, &[n_new, config.d_model]);
        let k = backend.matmul(&x, &block.w_k);
        let v = backend.matmul(&x, &block.w_v);
        self.keep(pass, K, &k, &[n_new, n_kv_heads, d_head]);
        self.keep(pass, V, &v, &[n_new, n_kv_heads, d_head]);
        // Keys and values are needed of every position, queries of those alone that are still read.
        let x = self.narrowed(pass, x, config.d_model);
        self.narrow_resid(pass);
        let (first_query, n_queries) = (pass.shape.n_past, pass.shape.n_new());
        let q = backend.matmul(&x, &block.w_q);
        self.keep(pass, Q, &q, &[n_queries, n_heads, d_head]);
        let mut past = pass.past.next();
        let mut z_lanes = Vec::new();
        let mut kept_kv = None;
        let n_lanes = pass.lanes.len();
        let n_together = self.lanes_together(pass.shape);
        for first in (0..n_lanes).step_by(n_together) {
            let lanes = first..(first + n_together).min(n_lanes);
            let rows = |x: &B::Buffer, n_values: usize| {
                backend.slice(x, lanes.start * n_values..lanes.end * n_values)
            };
            let (q, k) = (rows(&q, n_queries * n_heads * d_head), rows(&k, n_new * n_kv_heads * d_head));
            let q = backend.rope(&q, n_heads, d_head, config.rope_theta, first_query..n_tokens);
            let k = backend.rope(&k, n_kv_heads, d_head, config.rope_theta, n_past..n_tokens);
            self.keep(pass, RotQ, &q, &[n_queries, n_heads, d_head]);
            self.keep(pass, RotK, &k, &[n_new, n_kv_heads, d_head]);
            let new = LayerKv { k, v: rows(&v, n_new * n_kv_heads * d_head) };
            // The last lanes may have what the others copied.
            let before = if lanes.end == n_lanes { past.take() } else { past.clone() };
            let kv = match before {
                Some(before) => before.and(backend, &new, lanes.len()),
                None => new,
            };
            z_lanes.push(self.mix(pass, lanes, &q, &kv));
            kept_kv = Some(kv);
        }
        let z = backend.concat(z_lanes);
        if let Some(kv) = kept_kv {
            match &mut pass.keeping {
                Keeping::Nothing => {}
                Keeping::Kv(layers) => layers.push(kv),
                Keeping::Base(layers) => {
                    let (resid_pre, z) = (pass.resid.clone(), z.clone());
                    layers.push(BaseLayer { resid_pre, kv, z, resid_mid: None });
                }
            }
        }
        self.attention_from_z(pass, block, z);
    }

    /// The first position that this layer must compute a row of: in the last layer the first whose final row is read, unless an
    /// edit here takes a mean over every row.
    fn first_row(&self, pass: &Pass<B>) -> usize {
        let is_last = self.layer + 1 == self.model.config.n_layers;
        let takes_mean = |edits: &Edits| {
            let here = edits.in_layer(&self.model.config, self.layer);
            here.into_iter()
                .any(|(_, intervention, _)| matches!(intervention.edit, Edit::Mean { over: None }))
        };
        match is_last && !pass.lanes.iter().any(takes_mean) {
            true => pass.first_wanted.max(pass.shape.n_past),
            false => pass.shape.n_past,
        }
    }

    /// The rows of `[lane, pos, row_len]` that this layer must still compute.
    fn narrowed(&self, pass: &Pass<B>, x: B::Buffer, row_len: usize) -> B::Buffer {
        let n_new = pass.shape.n_new();
        let n_left_out = self.first_row(pass) - pass.shape.n_past;
        if n_left_out == 0 {
            return x;
        }
        let rows = |lane: usize| {
            self.backend.slice(&x, (lane * n_new + n_left_out) * row_len..(lane + 1) * n_new * row_len)
        };
        self.backend.concat((0..pass.lanes.len()).map(rows).collect())
    }

    /// Leaves out the rows of the residual stream that nobody reads any more; the pass goes on without them.
    pub fn narrow_resid(&self, pass: &mut Pass<B>) {
        pass.resid = self.narrowed(pass, pass.resid.clone(), self.model.config.d_model);
        pass.shape.n_past = self.first_row(pass);
    }

    /// The same where the layer begins with `z`.
    pub fn narrow_entry(&self, pass: &mut Pass<B>, z: B::Buffer) -> B::Buffer {
        let z = self.narrowed(pass, z, self.model.config.n_heads * self.model.config.d_head);
        self.narrow_resid(pass);
        z
    }

    /// Edits of the residual stream entering the layer.
    pub fn edit_resid(&self, pass: &mut Pass<B>) {
        let resid = self.edit(pass, pass.resid.clone(), |site| matches!(site, Site::ResidPre(_)));
        pass.resid = resid;
    }

    /// What is left of attention once `z` is there, `[lane, pos, head, d_head]`.
    pub fn attention_from_z(&self, pass: &mut Pass<B>, block: &Block<B::Matrix, B::Buffer>, z: B::Buffer) {
        let AttnShape { n_heads, d_head, .. } = pass.shape;
        let (backend, d_model, n_new) = (self.backend, self.model.config.d_model, pass.shape.n_new());
        let z = self.edit(pass, z, |site| matches!(site, Site::Head(_)));
        self.keep(pass, Z, &z, &[n_new, n_heads, d_head]);
        let attn_out = backend.matmul(&z, &block.w_o);
        let attn_out = self.edit(pass, attn_out, |site| matches!(site, Site::AttnOut(_)));
        self.keep(pass, AttnOut, &attn_out, &[n_new, d_model]);
        pass.resid = backend.add(&pass.resid, &attn_out);
        if let Keeping::Base(layers) = &mut pass.keeping
            && let Some(layer) = layers.last_mut()
        {
            layer.resid_mid = Some(pass.resid.clone());
        }
    }

    /// The MLP.
    pub fn mlp(&self, pass: &mut Pass<B>, mlp: &Mlp<B::Matrix, B::Buffer>) {
        let (backend, config, n_new) = (self.backend, &self.model.config, pass.shape.n_new());
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
        let mlp_out = self.edit(pass, mlp_out, |site| matches!(site, Site::MlpOut(_)));
        self.keep(pass, MlpOut, &mlp_out, &[n_new, config.d_model]);
        pass.resid = backend.add(&pass.resid, &mlp_out);
    }

    /// Lanes that go through attention together: where there are several, all their weights are one block.
    fn lanes_together(&self, shape: AttnShape) -> usize {
        let n_weights = shape.n_heads * shape.n_new() * shape.n_tokens;
        match self.backend.wants_large_pieces() {
            true => (MAX_BLOCK_WEIGHTS / n_weights).clamp(1, shape.n_lanes),
            false => 1,
        }
    }

    /// Scores, patterns and mixed values of some lanes, in blocks of queries; gives `z`.
    fn mix(&self, pass: &mut Pass<B>, lanes: Range<usize>, q: &B::Buffer, kv: &LayerKv<B>) -> B::Buffer {
        let shape = AttnShape { n_lanes: lanes.len(), ..pass.shape };
        let block_len = (MAX_BLOCK_WEIGHTS / (shape.n_lane_heads() * shape.n_tokens)).max(1);
        let mut kept = self.kept_weights(pass);
        let mut mass: Vec<Option<B::Buffer>> = vec![None; pass.plan.targets.len()];
        let mut entropy = None;
        // Sums over blocks of queries.
        let sum = |sum: &mut Option<B::Buffer>, more: B::Buffer| {
            *sum = Some(match sum.take() {
                Some(sum) => self.backend.add(&sum, &more),
                None => more,
            });
        };
        let first_argmax = shape.n_tokens.saturating_sub(pass.plan.n_argmax_rows).max(shape.n_past);
        let mut z_blocks = Vec::new();
        let edits = self.attention_edits(&pass.lanes[lanes]);
        for first in (shape.n_past..shape.n_tokens).step_by(block_len) {
            let queries = first..(first + block_len).min(shape.n_tokens);
            let edited = |mut weights: B::Buffer, of_scores: bool| {
                for HeadAttentionEdit { head, edit, positions } in &edits {
                    if matches!(edit, AttentionEdit::Divide(_) | AttentionEdit::Mask(_)) == of_scores {
                        let queries = queries.clone();
                        weights =
                            self.backend.edit_attention(weights, shape, queries, *head, edit, *positions);
                    }
                }
                weights
            };
            let scores = edited(self.backend.attn_scores(q, &kv.k, shape, queries.clone()), true);
            let pattern = edited(self.backend.softmax(&scores, shape, queries.clone()), false);
            for weights in &mut kept {
                let source = if weights.hook == AttnScores { &scores } else { &pattern };
                weights.take(self.backend, source, shape, queries.clone());
            }
            for (mass, keys) in mass.iter_mut().zip(&pass.plan.targets) {
                sum(mass, self.backend.target_mass(&pattern, shape, queries.clone(), keys));
            }
            if pass.plan.entropy {
                sum(&mut entropy, self.backend.entropy_sum(&pattern, shape, queries.clone()));
            }
            for query in queries.clone().filter(|&query| query >= first_argmax) {
                let keys = self.backend.argmax_keys(&pattern, shape, queries.clone(), query);
                pass.pending.push(Slot::ArgmaxKeys(query - first_argmax), keys);
            }
            z_blocks.push(self.backend.mix_values(&pattern, &kv.v, shape, queries));
        }
        for weights in kept {
            weights.store(self.backend, &mut pass.pending, self.layer, shape);
        }
        for (target, mass) in mass.into_iter().enumerate() {
            pass.pending.push(Slot::TargetMass(target), mass.expect("a pass has a block of queries"));
        }
        if let Some(entropy) = entropy {
            pass.pending.push(Slot::Entropy, entropy);
        }
        self.backend.concat(z_blocks)
    }

    /// Room for the scores and patterns of this layer that the plan keeps.
    fn kept_weights(&self, pass: &Pass<B>) -> Vec<KeptWeights<B>> {
        let all = 0..pass.shape.n_heads;
        let whole = [AttnScores, Pattern].into_iter();
        let whole = whole.filter(|&hook| pass.plan.capture.contains(HookPoint::Block(self.layer, hook)));
        let mut kept: Vec<_> = whole.map(|hook| KeptWeights::new(hook, all.clone(), None)).collect();
        let heads = pass.plan.pattern_heads.iter().filter(|head| head.layer == self.layer);
        kept.extend(heads.map(|id| KeptWeights::new(Pattern, id.head..id.head + 1, Some(*id))));
        kept
    }

    /// The edits of this layer's attention in some lanes, in order.
    fn attention_edits<'e>(&self, lanes: &'e [Edits]) -> Vec<HeadAttentionEdit<'e>> {
        let config = &self.model.config;
        let of_lane = |(lane, edits): (usize, &'e Edits)| {
            let here = edits.in_layer(config, self.layer).into_iter();
            here.map(move |(index, intervention, site)| (lane, edits, index, intervention, site))
        };
        let mut found = Vec::new();
        for (lane, edits, index, intervention, site) in lanes.iter().enumerate().flat_map(of_lane) {
            let Site::Head(id) = site else { continue };
            let edit = match &intervention.edit {
                Edit::PatternTemperature { tau } => AttentionEdit::Divide(*tau),
                Edit::Knockout { edges } => AttentionEdit::Mask(edges.clone()),
                Edit::InterpolatePattern { towards, strength } => AttentionEdit::Towards(*towards, *strength),
                Edit::FreezePattern { .. } => AttentionEdit::Replace(donor_pattern(edits, index, id)),
                _ => continue,
            };
            found.push(HeadAttentionEdit {
                head: lane * config.n_heads + id.head,
                edit,
                positions: intervention.positions.as_deref(),
            });
        }
        found
    }

    /// Applies every lane's edits of values at this layer's sites of one kind to `[lane, pos, row_len]`.
    fn edit(&self, pass: &mut Pass<B>, mut x: B::Buffer, is_here: impl Fn(Site) -> bool) -> B::Buffer {
        let (n_past, n_new) = (pass.shape.n_past, pass.shape.n_new());
        for (lane, edits) in pass.lanes.iter().enumerate() {
            let first_row = lane * n_new;
            for (index, intervention, site) in edits.in_layer(&self.model.config, self.layer) {
                if !is_here(site) || intervention.edit.is_of_attention() {
                    continue;
                }
                let (row_len, columns) = (site.row_len(&self.model.config), site.columns(&self.model.config));
                let positions = rows_edited(intervention, n_past..n_past + n_new);
                let edit = match &intervention.edit {
                    Edit::Zero {} => RowEdit::Scale(0.0),
                    Edit::Scale { alpha } => RowEdit::Scale(*alpha),
                    Edit::ProjectOut { direction, strength } => {
                        RowEdit::ProjectOut { direction: self.direction(direction), strength: *strength }
                    }
                    Edit::Mean { .. } if edits.donors[index].is_none() => {
                        let rows = first_row..first_row + n_new;
                        let mean = self.backend.mean_of_rows(&x, row_len, rows, columns.clone());
                        let (point, columns) = (site.point(), columns.clone());
                        pass.pending.push(Slot::Mean { index, point, row_len, columns }, mean.clone());
                        RowEdit::Repeat(mean)
                    }
                    _ => RowEdit::Replace(donor_rows(edits, index, site, &positions, &self.model.config)),
                };
                let rows: Vec<usize> =
                    positions.iter().map(|(position, _)| first_row + position - n_past).collect();
                x = self.backend.edit_rows(x, row_len, &rows, columns, &edit);
            }
        }
        x
    }

    /// A direction's numbers, up to a factor.
    fn direction(&self, direction: &ActivationDirection) -> B::Buffer {
        match direction {
            ActivationDirection::Values(values) => {
                self.backend.vector(&HostTensor::new(vec![values.len()], values.clone()))
            }
            ActivationDirection::OfToken { unembedding_of } => {
                let id = token_of(unembedding_of).expect("the plan was checked");
                let unembedding = self.backend.gather_rows(self.model.unembed(), &[id]);
                // Times the norm's weights; that the norm also scales it changes no direction.
                self.backend.rms_norm(&unembedding, &self.model.final_norm, self.model.config.rms_eps)
            }
        }
    }

    /// Keeps the residual stream, if the plan wants it.
    pub fn keep_resid(&self, pass: &mut Pass<B>, hook: BlockHook) {
        if pass.plan.capture.contains(HookPoint::Block(self.layer, hook)) {
            let (resid, n_new) = (pass.resid.clone(), pass.shape.n_new());
            self.keep(pass, hook, &resid, &[n_new, self.model.config.d_model]);
        }
    }

    fn keep(&self, pass: &mut Pass<B>, hook: BlockHook, buffer: &B::Buffer, shape: &[usize]) {
        let point = HookPoint::Block(self.layer, hook);
        if pass.plan.capture.contains(point) {
            pass.pending.push(Slot::Point(point, shape.to_vec()), buffer.clone());
        }
    }
}

/// An edit of one head's scores or pattern.
struct HeadAttentionEdit<'a> {
    /// Which, counting through all lanes.
    head: usize,
    edit: AttentionEdit,
    positions: Option<&'a [usize]>,
}

fn donor(edits: &Edits, index: usize) -> &Activations {
    edits.donors[index].as_deref().expect("the other run was made before this one")
}

fn donor_pattern(edits: &Edits, index: usize, head: HeadId) -> Vec<f32> {
    donor(edits, index).pattern(head).expect("the other run kept the pattern").data.clone()
}

/// The positions of a pass' rows that an edit changes, each with the position in another run that it reads there.
fn rows_edited(intervention: &Intervention, rows: Range<usize>) -> Vec<(usize, usize)> {
    let Some(positions) = &intervention.positions else {
        let from = match &intervention.edit {
            Edit::Patch { from_positions: Some(from), .. } => from.as_slice(),
            _ => &[],
        };
        return rows.map(|position| (position, from.get(position).copied().unwrap_or(position))).collect();
    };
    let from = match &intervention.edit {
        Edit::Patch { from_positions: Some(from), .. } => from,
        _ => positions,
    };
    // In the last layer rows may be left out that nobody reads.
    positions
        .iter()
        .copied()
        .zip(from.iter().copied())
        .filter(|(position, _)| rows.contains(position))
        .collect()
}

/// What stands at a site in the other run, a row for each position.
fn donor_rows(
    edits: &Edits,
    index: usize,
    site: Site,
    positions: &[(usize, usize)],
    config: &ModelConfig,
) -> Vec<f32> {
    let tensor = donor(edits, index).get(site.point()).expect("the other run kept the site");
    let (row_len, columns): (usize, Range<usize>) = (site.row_len(config), site.columns(config));
    let n_rows = tensor.data.len() / row_len;
    let row_of = |&(_, from): &(usize, usize)| if n_rows == 1 { 0 } else { from };
    let rows = positions.iter().map(row_of);
    rows.flat_map(|row| &tensor.data[row * row_len..][columns.clone()]).copied().collect()
}
