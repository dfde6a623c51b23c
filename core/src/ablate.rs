//! What edits do: sweeps over every head, direct logit attribution, the logit lens, activation patching, random controls.
//! Every piece of work is planned and checked first, then done a step at a time on any backend.

pub mod controls;
pub mod dla;
pub mod logit_lens;
pub mod metric;
pub mod ov;
pub mod patching;
pub mod sweep;
mod trials;

pub use metric::{Metric, MetricSpec};

use crate::backend::{Backend, DeviceError};
use crate::detect::Ground;
use crate::forward::RunError;
use crate::hooks::PlanError;

/// Why a measurement cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AblateError {
    /// A loss where there is no next token.
    #[error(
        "a loss needs a token and one before it: give a prompt of at least 2 tokens, and positions from 1 on"
    )]
    NoTarget,
    /// No position to measure at.
    #[error("there is no position to measure at; leave positions out, or give at least one")]
    NoPositions,
    /// A logit difference of a token with itself.
    #[error("the two tokens to compare are the same; give another for `versus`")]
    SameToken,
    /// A sweep of MLPs by an edit of attention.
    #[error("an edit of attention cannot sweep MLPs; sweep heads, or choose zero, mean or scale")]
    AttentionOfMlps,
    /// A sweep of layers that are not there.
    #[error("there is no layer {layer} to sweep; the model's layers are 0 to {}", n_layers - 1)]
    NoSuchLayer {
        /// The layer asked for.
        layer: usize,
        /// Layers of the model.
        n_layers: usize,
    },
    /// A sweep of no layer at all.
    #[error("the sweep names no layer; leave `layers` out to sweep all of them")]
    NoLayers,
    /// A sweep of no set.
    #[error("the sweep names no set of heads; give at least one, such as [[\"L5H1\", \"L6H9\"]]")]
    NoSets,
    /// A set without a head.
    #[error("set {set} of the sweep names no head; give it at least one, or leave it out")]
    EmptySetOfHeads {
        /// Which, counting from 0.
        set: usize,
    },
    /// Sets within some layers.
    #[error("a sweep of sets has no layers to choose from; leave `layers` out")]
    LayersOfSets,
    /// Too many logits to hold.
    #[error(
        "KL at {n_positions} positions needs {n_positions} whole distributions of the clean run in memory; give at most {most} positions"
    )]
    TooManyPositions {
        /// Positions asked for.
        n_positions: usize,
        /// Positions that fit.
        most: usize,
    },
    /// Not enough heads to draw controls from.
    #[error("the layers of these {n_heads} heads have only {n_others} others, too few to draw as many from")]
    TooFewOthers {
        /// Heads in the set.
        n_heads: usize,
        /// Other heads of their layers.
        n_others: usize,
    },
    /// No heads to compare with random ones.
    #[error("no head is edited, so there is nothing to compare random heads with")]
    NoHeads,
    /// Patching between prompts that do not line up.
    #[error(
        "the clean prompt has {n_clean} tokens and the corrupted one {n_corrupted}; make them equally long, so that every position has a counterpart"
    )]
    PromptsOfTwoLengths {
        /// Tokens of the clean prompt.
        n_clean: usize,
        /// Tokens of the corrupted one.
        n_corrupted: usize,
    },
    /// Patching between a prompt and itself.
    #[error("the clean and the corrupted prompt are the same; change what the answer depends on")]
    SamePrompts,
    /// A metric that no recovery can be measured in.
    #[error(
        "patching cannot be measured in {0}, which no clean answer defines; choose logit_diff, logit or logprob"
    )]
    MetricOfPatching(&'static str),
    /// Nothing to recover.
    #[error(
        "the clean and the corrupted prompt give the same metric ({metric:.3}); choose tokens that the two prompts decide differently"
    )]
    NothingToRecover {
        /// The metric of both.
        metric: f32,
    },
    /// The edits or the prompt.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl From<RunError> for AblateError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Plan(error) => error.into(),
            RunError::Device(error) => error.into(),
        }
    }
}

/// Logits of some rows of `[row, d_model]`, `[row, d_vocab]`.
pub(crate) fn unembed_rows<B: Backend>(
    ground: &Ground<'_, B>,
    normalized: &B::Buffer,
    rows: &[usize],
) -> B::Buffer {
    let (backend, d_model) = (ground.backend, ground.model.config.d_model);
    let row = |&row: &usize| backend.slice(normalized, row * d_model..(row + 1) * d_model);
    let rows = backend.concat(rows.iter().map(row).collect());
    backend.matmul(&rows, ground.model.unembed())
}
