//! What a head writes when it attends to one source token alone: the token's value through W_O, read by the final norm and the
//! unembedding. The norm's scale is that of the prompt's last position, so that the numbers are in logits there.

use serde::{Deserialize, Serialize};

use super::{AblateError, unembed_rows};
use crate::backend::{Backend, DeviceError};
use crate::detect::Ground;
use crate::forward::{Finished, Pass};
use crate::hooks::{CaptureSet, Edits, PlanError, RunPlan, check_head};
use crate::ids::{BlockHook, HeadId, HookPoint, TokenId};
use crate::metrics::top_indices;
use crate::tensor::HostTensor;

/// A head's writing for one source position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct OvFindings {
    /// Tokens that it raises most, with the change of their logits, the largest first.
    pub raised: Vec<(TokenId, f32)>,
    /// Tokens that it lowers most, the most lowered first.
    pub lowered: Vec<(TokenId, f32)>,
    /// The change of the source token's own logit.
    pub own: f32,
    /// How many tokens are raised more than the source token.
    pub own_rank: usize,
}

/// Runs the prompt and reads the head's writing for a source position; `top` tokens each way.
pub fn start<B: Backend>(
    ground: &Ground<'_, B>,
    ids: &[TokenId],
    edits: Edits,
    head: HeadId,
    source_pos: usize,
) -> Result<Pass<B>, AblateError> {
    check_head(head, &ground.model.config)?;
    if source_pos >= ids.len() && !ids.is_empty() {
        return Err(PlanError::UnknownPosition { position: source_pos, n_tokens: ids.len() }.into());
    }
    let last = ground.model.config.n_layers - 1;
    let points = [HookPoint::Block(head.layer, BlockHook::V), HookPoint::Block(last, BlockHook::ResidPost)];
    let plan = RunPlan { capture: CaptureSet::of(points), edits, ..RunPlan::default() };
    Ok(Pass::start(ground.backend, ground.model, ids, plan)?)
}

/// Reads the writing off the finished run.
pub async fn read<B: Backend>(
    ground: &Ground<'_, B>,
    pass: Pass<B>,
    ids: &[TokenId],
    head: HeadId,
    source_pos: usize,
    top: usize,
) -> Result<OvFindings, DeviceError> {
    let (backend, config) = (ground.backend, &ground.model.config);
    let Finished { activations, .. } = pass.finish(backend, ground.model).await?;
    let get = |point| &activations.get(point).expect("the run kept it").data;
    let v = get(HookPoint::Block(head.layer, BlockHook::V));
    let kv_head = head.head / config.heads_per_kv();
    let v = &v[(source_pos * config.n_kv_heads + kv_head) * config.d_head..][..config.d_head];
    let mut z = vec![0.0; config.n_heads * config.d_head];
    z[head.head * config.d_head..][..config.d_head].copy_from_slice(v);
    let z = backend.vector(&HostTensor::new(vec![1, z.len()], z));
    let output = backend.download_one(backend.matmul(&z, &ground.model.blocks[head.layer].w_o)).await?;
    let resid = get(HookPoint::Block(config.n_layers - 1, BlockHook::ResidPost));
    let last = &resid[resid.len() - config.d_model..];
    let squares: f64 = last.iter().map(|x| f64::from(*x).powi(2)).sum();
    let rms = (squares / config.d_model as f64 + f64::from(config.rms_eps)).sqrt() as f32;
    let gain = backend.download_one(ground.model.final_norm.clone()).await?;
    let scaled: Vec<f32> = output.iter().zip(&gain).map(|(x, gain)| x * gain / rms).collect();
    let scaled = backend.vector(&HostTensor::new(vec![1, config.d_model], scaled));
    let logits = backend.download_one(unembed_rows(ground, &scaled, &[0])).await?;
    let negated: Vec<f32> = logits.iter().map(|logit| -logit).collect();
    let pairs = |indices: Vec<usize>| indices.into_iter().map(|i| (i as TokenId, logits[i])).collect();
    let own = logits[ids[source_pos] as usize];
    Ok(OvFindings {
        raised: pairs(top_indices(&logits, top)),
        lowered: pairs(top_indices(&negated, top)),
        own,
        own_rank: logits.iter().filter(|&&logit| logit > own).count(),
    })
}
