//! Requests and reports of what edits do: sweeps, attribution, patching, lens, controls, continuations.

use serde::{Deserialize, Serialize};

use super::{BosPolicy, Prompt, Provenance, TokenLogit};
use crate::ablate::controls::{ControlsFindings, ControlsSpec};
use crate::ablate::dla::{DlaFindings, DlaSpec};
use crate::ablate::logit_lens::LensCell;
use crate::ablate::patching::{Direction, PatchFindings};
use crate::ablate::sweep::SweepSpec;
use crate::ablate::{Metric, MetricSpec};
use crate::backend::Precision;
use crate::hooks::Intervention;
use crate::ids::{HeadId, TokenId};

/// `sweep`: every head, MLP or set of heads edited in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct SweepRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// How products are computed.
    #[serde(default, skip_serializing_if = "Precision::is_exact")]
    pub precision: Precision,
    /// What is done, and in what it is measured.
    #[serde(flatten)]
    pub spec: SweepSpec,
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct SweepReport {
    /// Token ids of the prompt.
    pub ids: Vec<TokenId>,
    /// The metric.
    pub metric: Metric,
    /// The metric's token, where it has one.
    pub token: Option<TokenId>,
    /// The token that it is compared with, where there is one.
    pub versus: Option<TokenId>,
    /// The metric without an edit.
    pub clean: f32,
    /// Edited minus clean, `[layer][head]`, `[layer][0]` of MLPs, or `[0][set]` of sets of heads.
    pub effects: Vec<Vec<f32>>,
    /// What produced the numbers.
    pub provenance: Provenance,
    /// The request.
    pub request: SweepRequest,
}

/// `dla`: which parts of the residual stream make a logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DlaRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// Edits in force.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// Whose logit, and where.
    #[serde(flatten)]
    pub spec: DlaSpec,
}

/// Parts of a logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DlaReport {
    /// Token ids of the prompt.
    pub ids: Vec<TokenId>,
    /// The token's text.
    pub token_text: String,
    /// The other token's text, of a difference.
    pub versus_text: Option<String>,
    /// The parts.
    #[serde(flatten)]
    pub parts: DlaFindings,
    /// What produced the numbers.
    pub provenance: Provenance,
}

/// `lens`: what the model would say after each layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct LensRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// Edits in force.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// The token followed through the layers; each position's own next token when absent.
    #[serde(default)]
    pub token: Option<TokenId>,
}

/// What the model would say after each layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct LensReport {
    /// Token ids of the prompt.
    pub ids: Vec<TokenId>,
    /// `[layer][pos]`.
    pub cells: Vec<Vec<LensCell>>,
    /// Text of each cell's most probable token, `[layer][pos]`.
    pub texts: Vec<Vec<String>>,
    /// What produced the numbers.
    pub provenance: Provenance,
}

/// `ov`: what a head writes when it attends to one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct OvRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// Edits in force.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// The head.
    pub head: HeadId,
    /// The position that it attends to.
    pub source_pos: usize,
    /// Tokens each way.
    #[serde(default = "default_ov_top")]
    pub top: usize,
}

fn default_ov_top() -> usize {
    10
}

/// A token with what is written for it directly, logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct TokenDirect {
    /// Vocabulary index.
    pub id: TokenId,
    /// Decoded text.
    pub token: String,
    /// Change of its logit.
    pub logit: f32,
}

/// What a head writes when it attends to one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct OvReport {
    /// The head.
    pub head: HeadId,
    /// The position that it attends to.
    pub source_pos: usize,
    /// Tokens raised most.
    pub raised: Vec<TokenDirect>,
    /// Tokens lowered most.
    pub lowered: Vec<TokenDirect>,
    /// The source token itself.
    pub own: TokenDirect,
    /// How many tokens are raised more than the source token.
    pub own_rank: usize,
    /// What produced the numbers.
    pub provenance: Provenance,
}

/// `patch`: activations of one prompt put into the run of another, place by place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PatchRequest {
    /// The clean prompt: text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// The corrupted prompt, of as many tokens.
    pub corrupted: Prompt,
    /// Which run is put into which.
    #[serde(default)]
    pub direction: Direction,
    /// `logit_diff`, `logit` or `logprob`.
    #[serde(default = "logit_diff")]
    pub metric: Metric,
    /// The clean prompt's answer; its most probable next token when absent.
    #[serde(default)]
    pub token: Option<TokenId>,
    /// The corrupted prompt's answer; its most probable other next token when absent.
    #[serde(default)]
    pub versus: Option<TokenId>,
}

fn logit_diff() -> Metric {
    Metric::LogitDiff
}

/// What carried over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PatchReport {
    /// Tokens of the clean prompt.
    pub tokens: Vec<String>,
    /// Tokens of the corrupted prompt.
    pub corrupted_tokens: Vec<String>,
    /// The clean prompt's answer, as text.
    pub token_text: String,
    /// The corrupted prompt's answer, as text.
    pub versus_text: String,
    /// The tables.
    #[serde(flatten)]
    pub findings: PatchFindings,
    /// What produced the numbers.
    pub provenance: Provenance,
    /// The request.
    pub request: PatchRequest,
}

/// `controls`: edited heads against random others of their layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ControlsRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// Edits, draws, metric.
    #[serde(flatten)]
    pub spec: ControlsSpec,
}

/// Edited heads against random others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ControlsReport {
    /// The numbers.
    #[serde(flatten)]
    pub findings: ControlsFindings,
    /// What they measure.
    pub metric: MetricSpec,
    /// What produced the numbers.
    pub provenance: Provenance,
}

/// `generate`: a continuation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct GenerateRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// Edits; those of every position go on in the continuation.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// Tokens at most.
    #[serde(default = "default_new_tokens")]
    pub max_new_tokens: usize,
    /// Softmax temperature of the draws; 0 takes the most probable token each time.
    #[serde(default)]
    pub temperature: f32,
    /// Seed of the draws.
    #[serde(default)]
    pub seed: u64,
    /// Ids after which nothing follows.
    #[serde(default)]
    pub stop_ids: Vec<TokenId>,
}

fn default_new_tokens() -> usize {
    20
}

/// A continuation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct GenerateReport {
    /// Token ids of the prompt.
    pub prompt_ids: Vec<TokenId>,
    /// Generated ids.
    pub ids: Vec<TokenId>,
    /// Decoded text of each.
    pub tokens: Vec<String>,
    /// Their text as a whole.
    pub text: String,
    /// What produced them.
    pub provenance: Provenance,
}

/// What edits do at each position, and by which path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct EffectReport {
    /// KL(clean ‖ edited) of the next token's distribution at each position, nats.
    pub kl_nats: Vec<f32>,
    /// Loss of each target `ids[1..]` in the clean run, nats.
    pub clean_nll_nats: Vec<f32>,
    /// The same in the edited run.
    pub edited_nll_nats: Vec<f32>,
    /// KL(clean ‖ directly edited) at the last position, nats: everything after the edits as in the clean run. Null where the
    /// clean run is too long to be kept for it.
    pub direct_kl_nats: Option<f32>,
    /// The clean run's most probable next tokens: clean, in the edited run, and with the direct effect alone.
    pub clean_top: Vec<TokenLogit>,
    /// Their values in the edited run.
    pub edited_top: Vec<TokenLogit>,
    /// Their values with the direct effect alone; empty where that is unknown.
    pub direct_top: Vec<TokenLogit>,
}
