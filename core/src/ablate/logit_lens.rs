//! The logit lens: the residual stream after each layer, read as if it were the last (nostalgebraist 2020, Interpreting GPT: the
//! Logit Lens): final norm, then unembedding.

use serde::{Deserialize, Serialize};

use super::{AblateError, unembed_rows};
use crate::backend::Backend;
use crate::detect::Ground;
use crate::forward::{Pass, UNEMBED_ROWS};
use crate::hooks::{CaptureSet, Edits, RunPlan, check_vocabulary};
use crate::ids::{BlockHook, HookPoint, TokenId};
use crate::metrics::{logsumexp, top_indices};

/// One layer at one position.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct LensCell {
    /// The most probable next token.
    pub id: TokenId,
    /// Its log-probability, nats.
    pub logprob: f32,
    /// Log-probability of the followed token, nats: the one asked for, else the token that does come next (at the last
    /// position, the one the whole model finds most probable).
    pub followed_logprob: f32,
    /// How many tokens are more probable than the followed one.
    pub followed_rank: usize,
}

/// The lens under way.
pub struct LensTask<B: Backend> {
    ids: Vec<TokenId>,
    followed: Option<TokenId>,
    pass: Option<Pass<B>>,
    /// Streams after each layer, `[layer][pos][d_model]`, normalised.
    streams: Vec<B::Buffer>,
    /// `[layer][pos]`, from the last layer down, so that the last position's followed token is known.
    cells: Vec<Vec<LensCell>>,
    n_layers: usize,
}

impl<B: Backend> LensTask<B> {
    /// Checks everything, then begins the run.
    pub fn start(
        ground: &Ground<'_, B>,
        ids: &[TokenId],
        edits: Edits,
        followed: Option<TokenId>,
    ) -> Result<Self, AblateError> {
        let n_layers = ground.model.config.n_layers;
        check_vocabulary(followed.as_slice(), &ground.model.config)?;
        let points = (0..n_layers).map(|layer| HookPoint::Block(layer, BlockHook::ResidPost));
        let plan = RunPlan { capture: CaptureSet::of(points), edits, ..RunPlan::default() };
        let pass = Some(Pass::start(ground.backend, ground.model, ids, plan)?);
        Ok(Self { ids: ids.to_vec(), followed, pass, streams: Vec::new(), cells: Vec::new(), n_layers })
    }

    /// Rows of logits done and in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.cells.iter().map(Vec::len).sum(), self.n_layers * self.ids.len())
    }

    /// A layer, or a chunk of logits; true when nothing is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, AblateError> {
        let (backend, model) = (ground.backend, ground.model);
        if let Some(mut pass) = self.pass.take() {
            if !pass.step(backend, model) {
                self.pass = Some(pass);
                return Ok(false);
            }
            let activations = pass.finish(backend, model).await?.activations;
            for layer in 0..self.n_layers {
                let point = HookPoint::Block(layer, BlockHook::ResidPost);
                let stream = backend.vector(activations.get(point).expect("the run kept every layer"));
                self.streams.push(backend.rms_norm(&stream, &model.final_norm, model.config.rms_eps));
            }
            self.cells.push(Vec::new());
            return Ok(false);
        }
        let layer = self.n_layers - self.cells.len();
        let n_done = self.cells.last().map_or(0, Vec::len);
        let rows: Vec<usize> = (n_done..(n_done + UNEMBED_ROWS).min(self.ids.len())).collect();
        let logits = unembed_rows(ground, &self.streams[layer], &rows);
        let logits = ground.backend.download_one(logits).await?;
        for (row, logits) in rows.into_iter().zip(logits.chunks_exact(model.config.d_vocab)) {
            let cell = self.cell(row, logits);
            self.cells.last_mut().expect("a layer is in progress").push(cell);
        }
        if self.cells.last().is_some_and(|cells| cells.len() == self.ids.len()) {
            if self.cells.len() == self.n_layers {
                return Ok(true);
            }
            self.cells.push(Vec::new());
        }
        Ok(false)
    }

    fn cell(&self, position: usize, logits: &[f32]) -> LensCell {
        let id = top_indices(logits, 1)[0];
        let of_last_layer = self.cells.first().and_then(|cells| cells.get(position)).map(|cell| cell.id);
        let next = self.ids.get(position + 1).copied().or(of_last_layer);
        let followed = self.followed.or(next).unwrap_or(id as TokenId) as usize;
        let lse = logsumexp(logits);
        let logprob = |id: usize| (f64::from(logits[id]) - lse) as f32;
        LensCell {
            id: id as TokenId,
            logprob: logprob(id),
            followed_logprob: logprob(followed),
            followed_rank: logits.iter().filter(|&&logit| logit > logits[followed]).count(),
        }
    }

    /// `[layer][pos]`, once nothing is left.
    pub fn finish(mut self) -> Vec<Vec<LensCell>> {
        self.cells.reverse();
        self.cells
    }
}
