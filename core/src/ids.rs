//! Names for places in a model: heads and hook points. Spelling and parsing only; nothing here computes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Index of a vocabulary entry.
pub type TokenId = u32;

/// One attention head. Displays as `L5H1`; both indices count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(type = "string"))]
pub struct HeadId {
    /// Layer, from 0 at the input.
    pub layer: usize,
    /// Query head within the layer, from 0.
    pub head: usize,
}

/// A name that does not denote a head or a hook point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not of the form `L5H1`.
    #[error("\"{0}\" is not a head: write layer and head like L5H1, counting from 0")]
    Head(String),
    /// Not a TransformerLens hook name that Headlight knows.
    #[error("\"{0}\" is not a hook point: write one like blocks.5.attn.hook_pattern")]
    HookPoint(String),
}

impl HeadId {
    /// Head `head` of layer `layer`.
    pub const fn new(layer: usize, head: usize) -> Self {
        Self { layer, head }
    }
}

impl fmt::Display for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}H{}", self.layer, self.head)
    }
}

impl FromStr for HeadId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if plain { part.parse().ok() } else { None }
        };
        text.trim()
            .strip_prefix(['L', 'l'])
            .and_then(|rest| rest.split_once(['H', 'h']))
            .and_then(|(layer, head)| Some(Self::new(digits(layer)?, digits(head)?)))
            .ok_or_else(|| ParseIdError::Head(text.to_owned()))
    }
}

/// Reads and writes a type as its `Display` form in JSON.
macro_rules! serde_as_display {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_display!(HeadId);
serde_as_display!(HookPoint);

/// What a hook point inside a block observes. Shapes use `n_tokens` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockHook {
    /// Residual stream entering the block, `[pos, d_model]`.
    ResidPre,
    /// Input of attention after its norm, gain included, `[pos, d_model]`.
    Ln1Normalized,
    /// Queries before RoPE, `[pos, head, d_head]`.
    Q,
    /// Keys before RoPE, `[pos, kv_head, d_head]`.
    K,
    /// Values, `[pos, kv_head, d_head]`.
    V,
    /// Queries after RoPE, `[pos, head, d_head]`.
    RotQ,
    /// Keys after RoPE, `[pos, kv_head, d_head]`.
    RotK,
    /// Scaled scores before the softmax, `[head, query_pos, key_pos]`; `-inf` above the diagonal.
    AttnScores,
    /// Attention pattern, `[head, query_pos, key_pos]`; every row sums to 1.
    Pattern,
    /// Mixed values before the output projection, `[pos, head, d_head]`. Head edits act here.
    Z,
    /// Output of attention, `[pos, d_model]`.
    AttnOut,
    /// Residual stream between attention and MLP, `[pos, d_model]`.
    ResidMid,
    /// Input of the MLP after its norm, gain included, `[pos, d_model]`.
    Ln2Normalized,
    /// Gate of the MLP before its nonlinearity, `[pos, d_mlp]`.
    MlpPre,
    /// Linear half of a gated MLP, `[pos, d_mlp]`.
    MlpPreLinear,
    /// What enters the MLP's output matrix, `[pos, d_mlp]`.
    MlpPost,
    /// Output of the MLP, `[pos, d_model]`.
    MlpOut,
    /// Residual stream leaving the block, `[pos, d_model]`.
    ResidPost,
}

impl BlockHook {
    /// Every hook of a block, in the order in which a forward pass reaches them.
    pub const ALL: [Self; 18] = [
        Self::ResidPre,
        Self::Ln1Normalized,
        Self::Q,
        Self::K,
        Self::V,
        Self::RotQ,
        Self::RotK,
        Self::AttnScores,
        Self::Pattern,
        Self::Z,
        Self::AttnOut,
        Self::ResidMid,
        Self::Ln2Normalized,
        Self::MlpPre,
        Self::MlpPreLinear,
        Self::MlpPost,
        Self::MlpOut,
        Self::ResidPost,
    ];

    /// TransformerLens' name within the block, such as `attn.hook_pattern`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "hook_resid_pre",
            Self::Ln1Normalized => "ln1.hook_normalized",
            Self::Q => "attn.hook_q",
            Self::K => "attn.hook_k",
            Self::V => "attn.hook_v",
            Self::RotQ => "attn.hook_rot_q",
            Self::RotK => "attn.hook_rot_k",
            Self::AttnScores => "attn.hook_attn_scores",
            Self::Pattern => "attn.hook_pattern",
            Self::Z => "attn.hook_z",
            Self::AttnOut => "hook_attn_out",
            Self::ResidMid => "hook_resid_mid",
            Self::Ln2Normalized => "ln2.hook_normalized",
            Self::MlpPre => "mlp.hook_pre",
            Self::MlpPreLinear => "mlp.hook_pre_linear",
            Self::MlpPost => "mlp.hook_post",
            Self::MlpOut => "hook_mlp_out",
            Self::ResidPost => "hook_resid_post",
        }
    }
}

/// A place in the forward pass that can be observed. Displays as TransformerLens spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookPoint {
    /// Token embeddings, `[pos, d_model]`; shows `hook_embed`.
    Embed,
    /// A hook within a block; shows for example `blocks.5.attn.hook_pattern`.
    Block(usize, BlockHook),
    /// Output of the final norm, gain included, `[pos, d_model]`; shows `ln_final.hook_normalized`.
    FinalNormalized,
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("hook_embed"),
            Self::Block(layer, hook) => write!(f, "blocks.{layer}.{}", hook.name()),
            Self::FinalNormalized => f.write_str("ln_final.hook_normalized"),
        }
    }
}

impl FromStr for HookPoint {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let in_block = |text: &str| {
            let (layer, name) = text.strip_prefix("blocks.")?.split_once('.')?;
            let hook = BlockHook::ALL.into_iter().find(|hook| hook.name() == name)?;
            Some(Self::Block(layer.parse().ok()?, hook))
        };
        match text {
            "hook_embed" => Ok(Self::Embed),
            "ln_final.hook_normalized" => Ok(Self::FinalNormalized),
            _ => in_block(text).ok_or_else(|| ParseIdError::HookPoint(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_round_trip_and_reject_other_spellings() {
        assert_eq!("L18H6".parse(), Ok(HeadId::new(18, 6)));
        assert_eq!(HeadId::new(18, 6).to_string(), "L18H6");
        for wrong in ["", "L1", "H2", "1.2", "L-1H2", "L1H", "L1H2H3", "L+1H2", "L99999999999999999999H1"] {
            assert!(wrong.parse::<HeadId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn hook_points_round_trip() {
        let mut points = vec![HookPoint::Embed, HookPoint::FinalNormalized];
        points.extend(BlockHook::ALL.map(|hook| HookPoint::Block(5, hook)));
        for point in points {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        assert_eq!(HookPoint::Block(5, BlockHook::Pattern).to_string(), "blocks.5.attn.hook_pattern");
        assert!("blocks.x.attn.hook_pattern".parse::<HookPoint>().is_err());
    }
}
