//! Direct logit attribution: the residual stream at a position is a sum of what the embedding, every head and every MLP
//! wrote there; with the final norm's scale held fixed the logit of a token is the sum of their parts (Elhage et al. 2021, A
//! Mathematical Framework for Transformer Circuits). What a part did through later layers is not in it.

use serde::{Deserialize, Serialize};

use super::metric::mean;
use super::{AblateError, unembed_rows};
use crate::activations::Activations;
use crate::backend::{Backend, DeviceError};
use crate::detect::{Ground, HeadTable};
use crate::forward::{Finished, Pass};
use crate::hooks::{CaptureSet, Edits, PlanError, RunPlan, check_vocabulary};
use crate::ids::{BlockHook, HookPoint, TokenId};
use crate::metrics::top_indices;
use crate::model::ModelConfig;
use crate::tensor::HostTensor;

/// Rows of the unembedding read in one step for its mean.
const MEAN_ROWS: usize = 4096;

/// An attribution, apart from its prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DlaSpec {
    /// Whose logit; the most probable token at the position when absent.
    #[serde(default)]
    pub token: Option<TokenId>,
    /// When given, the attribution is of the token's logit minus this one's.
    #[serde(default)]
    pub versus: Option<TokenId>,
    /// The position whose next token is attributed; the last when absent.
    #[serde(default)]
    pub position: Option<usize>,
}

/// Parts of a logit (or of a difference of two).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DlaFindings {
    /// Whose logit.
    pub token: TokenId,
    /// Whose logit is subtracted, if any.
    pub versus: Option<TokenId>,
    /// At which position.
    pub position: usize,
    /// The logit (or difference) that the run computed.
    pub logit: f32,
    /// Sum of the parts below.
    pub sum_of_parts: f32,
    /// Mean logit over the vocabulary; 0 for a difference.
    pub mean_logit: f32,
    /// The final norm's scale, held fixed.
    pub final_rms: f32,
    /// The embedding's part.
    pub embed: f32,
    /// Each head's part, `[layer][head]`.
    pub heads: HeadTable,
    /// Each MLP's part, `[layer]`; empty without MLPs.
    pub mlps: Vec<f32>,
    /// The embedding's part of the logit's distance from the vocabulary's mean.
    pub embed_centered: f32,
    /// Each head's part of it, `[layer][head]`.
    pub heads_centered: HeadTable,
    /// Each MLP's part of it.
    pub mlps_centered: Vec<f32>,
    /// Receipt: the largest difference, over layers and coordinates, between attention's output at the position and the sum
    /// of its heads' outputs.
    pub receipt: f32,
}

/// An attribution under way.
pub struct DlaTask<B: Backend> {
    spec: DlaSpec,
    position: usize,
    state: State<B>,
    n_layers: usize,
    n_done: usize,
}

enum State<B: Backend> {
    Layers(Box<Pass<B>>),
    Parts(Box<Parts>),
    Done(Box<DlaFindings>),
}

/// Parts collected layer by layer.
struct Parts {
    activations: Activations,
    /// Sum of the unembedding's rows read so far, and how many.
    sum_of_rows: (Vec<f64>, usize),
    /// Directions whose dot product with a part is its logit and its mean over the vocabulary; there once every row is read.
    directions: Option<[Vec<f32>; 2]>,
    findings: DlaFindings,
}

impl<B: Backend> DlaTask<B> {
    /// Checks everything, then begins the run; `edits` have what they read of other runs.
    pub fn start(
        ground: &Ground<'_, B>,
        ids: &[TokenId],
        edits: Edits,
        spec: DlaSpec,
    ) -> Result<Self, AblateError> {
        let config = &ground.model.config;
        let tokens: Vec<TokenId> = spec.token.iter().chain(&spec.versus).copied().collect();
        check_vocabulary(&tokens, config)?;
        if spec.versus.is_some() && spec.token == spec.versus {
            return Err(AblateError::SameToken);
        }
        let n_tokens = ids.len();
        let position = spec.position.unwrap_or(n_tokens.saturating_sub(1));
        if n_tokens > 0 && position >= n_tokens {
            return Err(PlanError::UnknownPosition { position, n_tokens }.into());
        }
        let plan = RunPlan { capture: capture(config), edits, ..RunPlan::default() };
        let pass = Pass::start(ground.backend, ground.model, ids, plan)?;
        Ok(Self {
            spec,
            position,
            state: State::Layers(Box::new(pass)),
            n_layers: config.n_layers,
            n_done: 0,
        })
    }

    /// Steps done and in all: layers of the run, then layers of its parts.
    pub fn progress(&self) -> (usize, usize) {
        (self.n_done, 2 * self.n_layers)
    }

    /// A layer, or a chunk of the unembedding; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        match &mut self.state {
            State::Layers(pass) => {
                if !pass.step(ground.backend, ground.model) {
                    self.n_done += 1;
                    return Ok(false);
                }
            }
            State::Parts(parts) => {
                if parts.directions.is_none() {
                    parts.read_rows(ground, self.spec.versus).await?;
                    return Ok(false);
                }
                let layer = parts.findings.heads.len();
                if layer < self.n_layers {
                    parts.add_layer(ground, layer, self.position).await?;
                    self.n_done += 1;
                    return Ok(false);
                }
                self.state = State::Done(Box::new(parts.findings.clone()));
                return Ok(true);
            }
            State::Done(_) => return Ok(true),
        }
        let placeholder = State::Done(Box::new(DlaFindings::empty(self.position)));
        if let State::Layers(pass) = std::mem::replace(&mut self.state, placeholder) {
            let parts = Parts::begin(ground, *pass, &self.spec, self.position).await?;
            self.state = State::Parts(Box::new(parts));
        }
        Ok(false)
    }

    /// The parts, once nothing is left.
    ///
    /// # Panics
    /// When work is left.
    pub fn finish(self) -> DlaFindings {
        match self.state {
            State::Done(findings) => *findings,
            _ => unreachable!("the attribution was finished before its last step"),
        }
    }
}

/// What the parts are read from.
fn capture(config: &ModelConfig) -> CaptureSet {
    let hooks: &[BlockHook] = match config.has_mlp() {
        true => &[BlockHook::Z, BlockHook::AttnOut, BlockHook::MlpOut],
        false => &[BlockHook::Z, BlockHook::AttnOut],
    };
    let blocks =
        (0..config.n_layers).flat_map(|layer| hooks.iter().map(move |&hook| HookPoint::Block(layer, hook)));
    let last = HookPoint::Block(config.n_layers - 1, BlockHook::ResidPost);
    CaptureSet::of(blocks.chain([HookPoint::Embed, last]))
}

impl DlaFindings {
    fn empty(position: usize) -> Self {
        Self {
            token: 0,
            versus: None,
            position,
            logit: 0.0,
            sum_of_parts: 0.0,
            mean_logit: 0.0,
            final_rms: 0.0,
            embed: 0.0,
            heads: Vec::new(),
            mlps: Vec::new(),
            embed_centered: 0.0,
            heads_centered: Vec::new(),
            mlps_centered: Vec::new(),
            receipt: 0.0,
        }
    }
}

fn row(activations: &Activations, point: HookPoint, position: usize, row_len: usize) -> &[f32] {
    let tensor = activations.get(point).expect("the run kept every part");
    &tensor.data[position * row_len..][..row_len]
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

impl Parts {
    async fn begin<B: Backend>(
        ground: &Ground<'_, B>,
        pass: Pass<B>,
        spec: &DlaSpec,
        position: usize,
    ) -> Result<Self, AblateError> {
        let config = &ground.model.config;
        let Finished { normalized, activations, .. } = pass.finish(ground.backend, ground.model).await?;
        let logits = ground.backend.download_one(unembed_rows(ground, &normalized, &[position])).await?;
        let token = spec.token.unwrap_or(top_indices(&logits, 1)[0] as TokenId);
        if spec.versus == Some(token) {
            return Err(AblateError::SameToken);
        }
        let last = HookPoint::Block(config.n_layers - 1, BlockHook::ResidPost);
        let resid = row(&activations, last, position, config.d_model);
        let squares: f64 = resid.iter().map(|x| f64::from(*x).powi(2)).sum();
        let final_rms = (squares / config.d_model as f64 + f64::from(config.rms_eps)).sqrt() as f32;
        let minus = spec.versus.map_or(0.0, |id| logits[id as usize]);
        let logit = logits[token as usize] - minus;
        let mean_logit = if spec.versus.is_some() { 0.0 } else { mean(&logits) };
        let findings = DlaFindings {
            token,
            versus: spec.versus,
            logit,
            mean_logit,
            final_rms,
            ..DlaFindings::empty(position)
        };
        let sum_of_rows = (vec![0.0; config.d_model], 0);
        Ok(Self { activations, sum_of_rows, directions: None, findings })
    }

    /// Reads a chunk of the unembedding's rows for their mean; after the last, the directions are there.
    async fn read_rows<B: Backend>(
        &mut self,
        ground: &Ground<'_, B>,
        versus: Option<TokenId>,
    ) -> Result<(), DeviceError> {
        let (backend, config) = (ground.backend, &ground.model.config);
        let unembed = ground.model.unembed();
        let (sum, n_read) = &mut self.sum_of_rows;
        let end = (*n_read + MEAN_ROWS).min(config.d_vocab);
        let ids: Vec<TokenId> = (*n_read..end).map(|id| id as TokenId).collect();
        let rows = backend.download_one(backend.gather_rows(unembed, &ids)).await?;
        for row in rows.chunks_exact(config.d_model) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        *n_read = end;
        if end < config.d_vocab {
            return Ok(());
        }
        let gain = backend.download_one(ground.model.final_norm.clone()).await?;
        let scaled = |row: &[f64]| -> Vec<f32> {
            let pairs = row.iter().zip(&gain);
            pairs.map(|(w, g)| (w * f64::from(*g) / f64::from(self.findings.final_rms)) as f32).collect()
        };
        let of_token = async |id: TokenId| -> Result<Vec<f64>, DeviceError> {
            let row = backend.download_one(backend.gather_rows(unembed, &[id])).await?;
            Ok(row.into_iter().map(f64::from).collect())
        };
        let mut token = of_token(self.findings.token).await?;
        let mut mean_row: Vec<f64> = sum.iter().map(|sum| sum / config.d_vocab as f64).collect();
        if let Some(versus) = versus {
            token.iter_mut().zip(of_token(versus).await?).for_each(|(token, versus)| *token -= versus);
            // The vocabulary's mean drops out of a difference.
            mean_row.fill(0.0);
        }
        self.directions = Some([scaled(&token), scaled(&mean_row)]);
        let embed = row(&self.activations, HookPoint::Embed, self.findings.position, config.d_model);
        let [part, centered] = self.parts(embed);
        self.findings.embed = part;
        self.findings.embed_centered = centered;
        self.findings.sum_of_parts = part;
        Ok(())
    }

    /// A part's logit, and the same minus its mean over the vocabulary.
    fn parts(&self, part: &[f32]) -> [f32; 2] {
        let [token, mean] = self.directions.as_ref().expect("every row was read");
        let logit = dot(part, token);
        [logit, logit - dot(part, mean)]
    }

    async fn add_layer<B: Backend>(
        &mut self,
        ground: &Ground<'_, B>,
        layer: usize,
        position: usize,
    ) -> Result<(), DeviceError> {
        let (backend, config) = (ground.backend, &ground.model.config);
        let (n_heads, d_head, d_model) = (config.n_heads, config.d_head, config.d_model);
        let z = row(&self.activations, HookPoint::Block(layer, BlockHook::Z), position, n_heads * d_head);
        // Row h holds the z of head h alone, so that W_O gives each head's own output.
        let mut alone = vec![0.0; n_heads * n_heads * d_head];
        for head in 0..n_heads {
            let own = head * d_head..(head + 1) * d_head;
            alone[head * n_heads * d_head..][own.clone()].copy_from_slice(&z[own]);
        }
        let alone = backend.vector(&HostTensor::new(vec![n_heads, n_heads * d_head], alone));
        let outputs = backend.download_one(backend.matmul(&alone, &ground.model.blocks[layer].w_o)).await?;
        let parts: Vec<[f32; 2]> = outputs.chunks_exact(d_model).map(|output| self.parts(output)).collect();
        let attn_out = row(&self.activations, HookPoint::Block(layer, BlockHook::AttnOut), position, d_model);
        for (column, wanted) in attn_out.iter().enumerate() {
            let sum: f32 = outputs.iter().skip(column).step_by(d_model).sum();
            self.findings.receipt = self.findings.receipt.max((sum - wanted).abs());
        }
        let mlp = config.has_mlp().then(|| {
            self.parts(row(&self.activations, HookPoint::Block(layer, BlockHook::MlpOut), position, d_model))
        });
        let findings = &mut self.findings;
        findings.heads.push(parts.iter().map(|part| part[0]).collect());
        findings.heads_centered.push(parts.iter().map(|part| part[1]).collect());
        findings.mlps.extend(mlp.map(|part| part[0]));
        findings.mlps_centered.extend(mlp.map(|part| part[1]));
        findings.sum_of_parts += parts.iter().chain(&mlp).map(|part| part[0]).sum::<f32>();
        Ok(())
    }
}
