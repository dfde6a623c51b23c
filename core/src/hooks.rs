//! What a run keeps and what it changes, as data: plans can be printed, sent, stored and replayed. Checking a plan
//! against a model happens here, before any work; applying it is the forward pass's.

mod edits;
mod intervention;

use std::collections::BTreeSet;

pub(crate) use edits::token_of;
pub use edits::{Edits, Entry, Stage};
pub use intervention::{ActivationDirection, Edit, Intervention, PatternTarget, Prompt, Site, Sites};

use crate::ids::{HeadId, HookPoint, TokenId};
use crate::model::ModelConfig;

/// The hook points whose activations a run keeps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaptureSet(BTreeSet<HookPoint>);

impl CaptureSet {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Keeps these.
    pub fn of(points: impl IntoIterator<Item = HookPoint>) -> Self {
        Self(points.into_iter().collect())
    }

    /// Keeps everything a model of this config has.
    pub fn all(config: &ModelConfig) -> Self {
        use crate::ids::BlockHook::{Ln2Normalized, MlpOut, MlpPost, MlpPre, MlpPreLinear, ResidMid};
        let absent = |hook| {
            let of_mlp = [ResidMid, Ln2Normalized, MlpPre, MlpPreLinear, MlpPost, MlpOut].contains(&hook);
            of_mlp && !config.has_mlp()
        };
        let blocks = (0..config.n_layers).flat_map(|layer| {
            crate::ids::BlockHook::ALL
                .into_iter()
                .filter(move |&hook| !absent(hook))
                .map(move |hook| HookPoint::Block(layer, hook))
        });
        Self::of([HookPoint::Embed, HookPoint::FinalNormalized].into_iter().chain(blocks))
    }

    /// Whether this point is kept.
    pub fn contains(&self, point: HookPoint) -> bool {
        self.0.contains(&point)
    }

    /// The kept points in order.
    pub fn iter(&self) -> impl Iterator<Item = HookPoint> + '_ {
        self.0.iter().copied()
    }
}

/// For each query position, the key positions of one attention target (empty where the query has none).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetKeys(pub Vec<Vec<usize>>);

impl TargetKeys {
    /// Queries that have a key.
    pub fn n_rows(&self) -> usize {
        self.0.iter().filter(|keys| !keys.is_empty()).count()
    }

    /// Cells in all.
    pub fn n_cells(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

/// At which positions logits are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogitPositions {
    /// Nowhere.
    None,
    /// At the last position.
    #[default]
    Last,
    /// Everywhere.
    All,
}

/// Everything a run keeps and changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunPlan {
    /// Activations to keep.
    pub capture: CaptureSet,
    /// Heads whose patterns to keep, beyond what `capture` keeps for whole layers.
    pub pattern_heads: Vec<HeadId>,
    /// Attention targets whose mass is summed for every head.
    pub targets: Vec<TargetKeys>,
    /// Whether the entropy of every head's rows is summed.
    pub entropy: bool,
    /// At how many of the last positions the key attended to most is kept for every head.
    pub n_argmax_rows: usize,
    /// What is changed.
    pub edits: Edits,
    /// Where logits are wanted.
    pub logits: LogitPositions,
}

/// Why a plan does not fit a model or a prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No tokens.
    #[error("the prompt is empty; type at least one character")]
    EmptyPrompt,
    /// Longer than the model can read.
    #[error(
        "the prompt is {n_tokens} tokens long and this model reads at most {n_ctx}; cut it to {n_ctx} tokens"
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        n_tokens: usize,
        /// Tokens the model reads.
        n_ctx: usize,
    },
    /// An id outside the vocabulary.
    #[error("token id {id} does not exist: this model's ids go from 0 to {}", d_vocab - 1)]
    UnknownToken {
        /// The id.
        id: TokenId,
        /// Vocabulary size.
        d_vocab: usize,
    },
    /// A head that the model does not have.
    #[error(
        "head {head} does not exist: this model has layers 0 to {} and heads 0 to {}",
        n_layers - 1,
        n_heads - 1
    )]
    UnknownHead {
        /// The head.
        head: HeadId,
        /// Layers of the model.
        n_layers: usize,
        /// Heads a layer.
        n_heads: usize,
    },
    /// A position outside the prompt.
    #[error("position {position} does not exist: the prompt has positions 0 to {}", n_tokens - 1)]
    UnknownPosition {
        /// The position.
        position: usize,
        /// Tokens in the prompt.
        n_tokens: usize,
    },
    /// An edit at a position that an earlier pass has read.
    #[error(
        "position {position} was read before this edit; edit positions {n_past} and later, or read the whole prompt in one pass"
    )]
    PastPosition {
        /// The position.
        position: usize,
        /// Tokens read before.
        n_past: usize,
    },
    /// A mean over positions of which some were read before.
    #[error(
        "a mean over the prompt needs the whole prompt in one pass; edit by zero or scale, or start afresh"
    )]
    MeanOfPart,
    /// A layer that the model does not have.
    #[error("layer {layer} does not exist: this model has layers 0 to {}", n_layers - 1)]
    UnknownLayer {
        /// The layer.
        layer: usize,
        /// Layers of the model.
        n_layers: usize,
    },
    /// An MLP of a model that has none.
    #[error("this model has attention only: there is no MLP to edit")]
    NoMlp,
    /// An edit of attention at something other than a head.
    #[error("an edit of attention acts on heads alone; name them under heads")]
    AttentionNeedsHeads,
    /// A number outside what means something.
    #[error("{name} is {value}; give {range}")]
    OutOfRange {
        /// Which number.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        range: &'static str,
    },
    /// A position named twice.
    #[error("position {position} stands twice in an edit; name it once")]
    PositionTwice {
        /// The position.
        position: usize,
    },
    /// A reference set without a prompt.
    #[error("a mean over an empty set of prompts is nothing; give at least one prompt, or leave `over` out")]
    EmptySet,
    /// A prompt to take values from that does not line up.
    #[error(
        "the prompt to patch from has {n_donor} tokens and this one {n_tokens}; make them equally long, or say which positions align: positions and as many from_positions"
    )]
    DonorLength {
        /// Tokens of the other prompt.
        n_donor: usize,
        /// Tokens of this one.
        n_tokens: usize,
    },
    /// A prompt to take a pattern from that does not line up.
    #[error(
        "the prompt whose pattern is to be frozen has {n_donor} tokens and this one {n_tokens}; make them equally long"
    )]
    PatternLength {
        /// Tokens of the other prompt.
        n_donor: usize,
        /// Tokens of this one.
        n_tokens: usize,
    },
    /// Edges and positions, which would name the queries twice.
    #[error("edges name their queries themselves; leave positions out of a knockout")]
    EdgesAndPositions,
    /// Positions that do not pair.
    #[error("{n_positions} positions and {n_from} from_positions do not pair; give as many of each")]
    FromPositions {
        /// Positions edited.
        n_positions: usize,
        /// Positions named in the other run.
        n_from: usize,
    },
    /// A text that was to be one token.
    #[error(
        "a direction is read from one token and this is {n_tokens}; give one that the vocabulary has, often with a space before it"
    )]
    NotOneToken {
        /// Tokens given.
        n_tokens: usize,
    },
    /// A direction of another width, or none.
    #[error("the direction has {got} numbers and must have {wanted}, not all of them 0")]
    Direction {
        /// Numbers given.
        got: usize,
        /// Width of the site.
        wanted: usize,
    },
    /// An edge to a later key.
    #[error(
        "edge [{query}, {key}] looks ahead, which attention never does; the key comes second and is at most the query"
    )]
    EdgeAhead {
        /// Query position.
        query: usize,
        /// Key position.
        key: usize,
    },
    /// A row without a key.
    #[error(
        "query {query} of {head} would have no key left to attend to; leave it at least one, such as itself"
    )]
    NoKeyLeft {
        /// The head.
        head: HeadId,
        /// Query position.
        query: usize,
    },
    /// A hook point that the model does not have.
    #[error("this model has no hook point {0}")]
    UnknownHook(HookPoint),
}

/// Fails unless the model has this head.
pub fn check_head(head: HeadId, config: &ModelConfig) -> Result<(), PlanError> {
    if head.layer < config.n_layers && head.head < config.n_heads {
        return Ok(());
    }
    Err(PlanError::UnknownHead { head, n_layers: config.n_layers, n_heads: config.n_heads })
}

/// Fails unless the model can run these ids.
pub fn check_ids(ids: &[TokenId], config: &ModelConfig) -> Result<(), PlanError> {
    check_ids_after(0, ids, config)
}

/// Fails unless the model can run these ids after `n_past` others.
pub fn check_ids_after(n_past: usize, ids: &[TokenId], config: &ModelConfig) -> Result<(), PlanError> {
    if ids.is_empty() {
        return Err(PlanError::EmptyPrompt);
    }
    let n_tokens = n_past + ids.len();
    if n_tokens > config.n_ctx {
        return Err(PlanError::PromptTooLong { n_tokens, n_ctx: config.n_ctx });
    }
    check_vocabulary(ids, config)
}

/// Fails unless the model knows these ids.
pub fn check_vocabulary(ids: &[TokenId], config: &ModelConfig) -> Result<(), PlanError> {
    match ids.iter().find(|&&id| id as usize >= config.d_vocab) {
        Some(&id) => Err(PlanError::UnknownToken { id, d_vocab: config.d_vocab }),
        None => Ok(()),
    }
}

impl RunPlan {
    /// Fails unless the plan fits a pass after `n_past` positions.
    pub fn check_past(&self, n_past: usize) -> Result<(), PlanError> {
        self.edits.check_past(n_past)
    }

    /// Fails unless the plan fits the model and a prompt of `n_tokens`.
    pub fn check(&self, config: &ModelConfig, n_tokens: usize) -> Result<(), PlanError> {
        let everything = CaptureSet::all(config);
        if let Some(point) = self.capture.iter().find(|&point| !everything.contains(point)) {
            return Err(PlanError::UnknownHook(point));
        }
        self.pattern_heads.iter().try_for_each(|&head| check_head(head, config))?;
        self.edits.check(config, n_tokens)
    }
}
