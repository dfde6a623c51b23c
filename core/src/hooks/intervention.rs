//! Edits of the forward pass as data: what is done, where, and at which positions. Their JSON is read strictly, so that a
//! misspelt field never edits something else; applying them is the forward pass's.
//!
//! Within a layer they act in the order in which the pass gets there: the residual stream, scores, pattern, `z`,
//! attention's output, the MLP's output; at one place, in the order of the list.

use std::collections::BTreeSet;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ids::{BlockHook, HeadId, HookPoint, TokenId};
use crate::model::ModelConfig;

/// A prompt: a text to tokenise, or ids that are used as they are (no BOS is added to ids).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Prompt {
    /// Text, tokenised by the model's tokenizer; special tokens written in it are parsed.
    Text(String),
    /// Token ids.
    Ids(Vec<TokenId>),
}

/// Towards which a pattern is moved; rows are query positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum PatternTarget {
    /// Every query attends to itself.
    Identity,
    /// Every query attends to all keys up to itself alike.
    Uniform,
    /// Every query attends to the first position: the BOS, where there is one.
    First,
    /// Every query attends to the one before; the first to itself.
    Previous,
}

impl PatternTarget {
    /// The weight of a key in the target's row, which sums to 1 over keys `0..=query`.
    pub fn weight(self, query: usize, key: usize) -> f32 {
        let one_hot = |wanted: usize| if key == wanted { 1.0 } else { 0.0 };
        match self {
            Self::Uniform if key <= query => 1.0 / (query + 1) as f32,
            Self::Uniform => 0.0,
            Self::Identity => one_hot(query),
            Self::First => one_hot(0),
            Self::Previous => one_hot(query.saturating_sub(1)),
        }
    }
}

/// What is done. The first five act on values at any [`Site`], the others on a head's attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields, remote = "Self")]
pub enum Edit {
    /// `x := 0`.
    Zero {},
    /// `x := ` its mean over every position of this prompt or, with `over`, over every position of those prompts.
    Mean {
        /// The reference set; this prompt when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over: Option<Vec<Prompt>>,
    },
    /// `x := alpha x`; 1 changes nothing, 0 is [`Edit::Zero`], below 0 the sign turns.
    Scale {
        /// The factor.
        alpha: f32,
    },
    /// `x := ` its value in another run, position by position: activation patching, or resampling.
    #[serde(alias = "resample")]
    Patch {
        /// The other run's prompt; this prompt without edits when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Prompt>,
        /// Which of its positions goes to each of the edit's `positions`; the same ones when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_positions: Option<Vec<usize>>,
    },
    /// `x := x - strength (x·d) d / |d|²`: takes a direction out; strength 0 changes nothing.
    ProjectOut {
        /// The direction `d`.
        direction: ActivationDirection,
        /// How much of it goes.
        #[serde(default = "one")]
        strength: f32,
    },
    /// `pattern := ` that of another run; values stay free.
    FreezePattern {
        /// The other run's prompt; this prompt without edits when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Prompt>,
    },
    /// `pattern := (1 - strength) pattern + strength target`; strength 0 changes nothing.
    InterpolatePattern {
        /// Towards what.
        towards: PatternTarget,
        /// From 0 to 1.
        strength: f32,
    },
    /// `scores := scores / tau` before the softmax; 1 changes nothing, small values leave the largest score alone.
    PatternTemperature {
        /// Above 0.
        tau: f32,
    },
    /// `score := -inf` at these pairs of query and key position, before the softmax: the rest of the row renormalises.
    Knockout {
        /// `[query_pos, key_pos]`.
        edges: Vec<(usize, usize)>,
    },
}

/// A direction in activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(
    untagged,
    expecting = "a direction is a list of numbers or {\"unembedding_of\": {\"text\": \" Paris\"}}"
)]
pub enum ActivationDirection {
    /// Its numbers, as many as the site is wide.
    Values(Vec<f32>),
    /// That along which a token's logit reads the residual stream: the token's column of W_U times the final norm's weights,
    /// `[d_model]`.
    OfToken {
        /// The token, alone.
        unembedding_of: Prompt,
    },
}

impl ActivationDirection {
    /// Of a token.
    pub fn of_token(unembedding_of: Prompt) -> Self {
        Self::OfToken { unembedding_of }
    }
}

fn one() -> f32 {
    1.0
}

// Read by way of a plain value, whatever it stands in: one reader in the page's wasm, where each format's own would take 20 KB.
impl<'de> Deserialize<'de> for Edit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Edit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Edit {
    /// Whether it acts on a head's attention rather than on values.
    pub fn is_of_attention(&self) -> bool {
        matches!(
            self,
            Self::FreezePattern { .. }
                | Self::InterpolatePattern { .. }
                | Self::PatternTemperature { .. }
                | Self::Knockout { .. }
        )
    }

    /// The prompts of other runs that it reads; `None` stands for this prompt without edits.
    pub fn donors(&self) -> Option<Vec<Option<&Prompt>>> {
        match self {
            Self::Mean { over: Some(prompts) } => Some(prompts.iter().map(Some).collect()),
            Self::Patch { from, .. } | Self::FreezePattern { from } => Some(vec![from.as_ref()]),
            _ => None,
        }
    }

    /// The same with every prompt replaced by what a function makes of it.
    pub fn try_map_prompts<E>(self, mut f: impl FnMut(Prompt) -> Result<Prompt, E>) -> Result<Self, E> {
        Ok(match self {
            Self::Mean { over: Some(prompts) } => {
                Self::Mean { over: Some(prompts.into_iter().map(f).collect::<Result<_, E>>()?) }
            }
            Self::Patch { from: Some(prompt), from_positions } => {
                Self::Patch { from: Some(f(prompt)?), from_positions }
            }
            Self::FreezePattern { from: Some(prompt) } => Self::FreezePattern { from: Some(f(prompt)?) },
            other => other,
        })
    }
}

/// A place whose values can be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// The residual stream entering a layer, `[pos, d_model]`.
    ResidPre(usize),
    /// A head's `z`, `[pos, d_head]`.
    Head(HeadId),
    /// Attention's output, `[pos, d_model]`.
    AttnOut(usize),
    /// The MLP's output, `[pos, d_model]`.
    MlpOut(usize),
}

impl Site {
    /// Its layer.
    pub fn layer(self) -> usize {
        match self {
            Self::Head(head) => head.layer,
            Self::ResidPre(layer) | Self::AttnOut(layer) | Self::MlpOut(layer) => layer,
        }
    }

    /// The hook point that observes it.
    pub fn point(self) -> HookPoint {
        let hook = match self {
            Self::ResidPre(_) => BlockHook::ResidPre,
            Self::Head(_) => BlockHook::Z,
            Self::AttnOut(_) => BlockHook::AttnOut,
            Self::MlpOut(_) => BlockHook::MlpOut,
        };
        HookPoint::Block(self.layer(), hook)
    }

    /// Its columns within a row of its hook point.
    pub fn columns(self, config: &ModelConfig) -> std::ops::Range<usize> {
        match self {
            Self::Head(head) => head.head * config.d_head..(head.head + 1) * config.d_head,
            _ => 0..config.d_model,
        }
    }

    /// Width of a row of its hook point.
    pub fn row_len(self, config: &ModelConfig) -> usize {
        match self {
            Self::Head(_) => config.n_heads * config.d_head,
            _ => config.d_model,
        }
    }
}

/// Where an edit acts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(default)]
pub struct Sites {
    /// Heads: their `z`, before W_O, or their attention.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub heads: BTreeSet<HeadId>,
    /// Layers whose attention and MLP outputs are both edited.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub layers: BTreeSet<usize>,
    /// Layers whose attention output is edited.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub attn_out: BTreeSet<usize>,
    /// Layers whose MLP output is edited.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub mlp_out: BTreeSet<usize>,
    /// Layers before which the residual stream is edited.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub resid_pre: BTreeSet<usize>,
}

impl Sites {
    /// These heads.
    pub fn heads(heads: impl IntoIterator<Item = HeadId>) -> Self {
        Self { heads: heads.into_iter().collect(), ..Self::default() }
    }

    /// One site.
    pub fn one(site: Site) -> Self {
        let mut sites = Self::default();
        match site {
            Site::Head(head) => sites.heads.insert(head),
            Site::AttnOut(layer) => sites.attn_out.insert(layer),
            Site::MlpOut(layer) => sites.mlp_out.insert(layer),
            Site::ResidPre(layer) => sites.resid_pre.insert(layer),
        };
        sites
    }

    /// Every site, in a model of this config; a whole layer of an attention-only model has no MLP.
    pub fn iter(&self, config: &ModelConfig) -> impl Iterator<Item = Site> + use<'_> {
        let attn_out = self.attn_out.union(&self.layers).copied().map(Site::AttnOut);
        let has_mlp = config.has_mlp();
        let of_layers = self.layers.iter().filter(move |_| has_mlp);
        let mlps: BTreeSet<usize> = self.mlp_out.iter().chain(of_layers).copied().collect();
        let heads = self.heads.iter().copied().map(Site::Head);
        let resid = self.resid_pre.iter().copied().map(Site::ResidPre);
        resid.chain(heads).chain(attn_out).chain(mlps.into_iter().map(Site::MlpOut))
    }

    /// Every layer named outside of `heads`.
    pub fn named_layers(&self) -> impl Iterator<Item = usize> + '_ {
        let sets = [&self.layers, &self.attn_out, &self.mlp_out, &self.resid_pre];
        sets.into_iter().flatten().copied()
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.named_layers().next().is_none()
    }
}

/// One edit at its sites and positions. In JSON the three are one object:
/// `{"kind": "scale", "alpha": 0.5, "heads": ["L0H1"], "positions": [3]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "ts",
    derive(ts_rs::TS),
    ts(type = "Edit & Partial<Sites> & { positions?: Array<number> | null }")
)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Intervention {
    /// What is done.
    pub edit: Edit,
    /// Where.
    pub sites: Sites,
    /// At which positions (query positions, of attention); all when absent.
    pub positions: Option<Vec<usize>>,
}

impl Intervention {
    /// An edit of heads at every position.
    pub fn of_heads(edit: Edit, heads: impl IntoIterator<Item = HeadId>) -> Self {
        Self { edit, sites: Sites::heads(heads), positions: None }
    }

    /// Heads switched off at every position.
    pub fn zero(heads: impl IntoIterator<Item = HeadId>) -> Self {
        Self::of_heads(Edit::Zero {}, heads)
    }

    /// The same at these positions.
    pub fn at(self, positions: Vec<usize>) -> Self {
        Self { positions: Some(positions), ..self }
    }
}

/// The names under which [`Sites`] and positions stand in an intervention's JSON.
const SITE_FIELDS: [&str; 5] = ["heads", "layers", "attn_out", "mlp_out", "resid_pre"];

impl TryFrom<Map<String, Value>> for Intervention {
    type Error = String;

    fn try_from(mut map: Map<String, Value>) -> Result<Self, String> {
        let mut sites = Map::new();
        for field in SITE_FIELDS {
            sites.extend(map.remove(field).map(|value| (field.to_owned(), value)));
        }
        // An empty list is no edit; none at all is more likely a misspelt field.
        if sites.is_empty() {
            return Err(format!("an edit names no place; give {}", SITE_FIELDS.join(", ")));
        }
        let positions = map.remove("positions").unwrap_or_default();
        let edit = serde_json::from_value(Value::Object(map)).map_err(|error| error.to_string())?;
        let sites = serde_json::from_value(Value::Object(sites)).map_err(|error| error.to_string())?;
        let positions = serde_json::from_value(positions).map_err(|error| format!("positions: {error}"))?;
        Ok(Self { edit, sites, positions })
    }
}

impl From<Intervention> for Map<String, Value> {
    fn from(intervention: Intervention) -> Self {
        let part = |value: Result<Value, serde_json::Error>| match value {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("edits and sites are plain objects"),
        };
        let mut map = part(serde_json::to_value(&intervention.edit));
        map.extend(part(serde_json::to_value(&intervention.sites)));
        if intervention.sites.is_empty() {
            map.insert("heads".to_owned(), Value::Array(Vec::new()));
        }
        map.extend(intervention.positions.map(|positions| ("positions".to_owned(), positions.into())));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: Value) -> Result<Intervention, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn json_round_trips_and_unknown_fields_are_refused() {
        let all = [
            json!({"kind": "zero", "heads": ["L18H6"]}),
            json!({"kind": "zero", "heads": []}),
            json!({"kind": "zero", "layers": [3], "mlp_out": [4], "positions": [0, 2]}),
            json!({"kind": "mean", "heads": ["L1H0"], "over": [{"text": "a"}, {"ids": [1, 2]}]}),
            json!({"kind": "scale", "heads": ["L0H1"], "alpha": -1.0}),
            json!({"kind": "patch", "resid_pre": [2], "from": {"ids": [5]}, "positions": [1], "from_positions": [0]}),
            json!({"kind": "project_out", "resid_pre": [1], "direction": [1.0, 0.0], "strength": 0.5}),
            json!({"kind": "project_out", "resid_pre": [1], "direction": {"unembedding_of": {"text": " a"}}, "strength": 1.0}),
            json!({"kind": "freeze_pattern", "heads": ["L0H0"]}),
            json!({"kind": "interpolate_pattern", "heads": ["L0H0"], "towards": "uniform", "strength": 0.5}),
            json!({"kind": "pattern_temperature", "heads": ["L0H0"], "tau": 2.0}),
            json!({"kind": "knockout", "heads": ["L0H0"], "edges": [[3, 1]]}),
        ];
        for json in all {
            let intervention = read(json.clone()).expect("valid");
            assert_eq!(serde_json::to_value(intervention).expect("plain"), json);
        }
        for wrong in [
            json!({"kind": "zero", "heads": ["L18H6"], "position": [3]}),
            json!({"kind": "zero", "heads": ["L18H6"], "alpha": 0.5}),
            json!({"kind": "scale", "heads": ["L18H6"]}),
            json!({"kind": "blur", "heads": ["L18H6"]}),
            json!({"heads": ["L18H6"]}),
            json!({"kind": "zero"}),
            json!({"kind": "zero", "heads": ["18.6"]}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn rows_of_targets_sum_to_one() {
        use PatternTarget::{First, Identity, Previous, Uniform};
        for target in [Identity, Uniform, First, Previous] {
            for query in 0..5 {
                let sum: f32 = (0..8).map(|key| target.weight(query, key)).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{target:?} row {query}: {sum}");
            }
        }
        assert_eq!(Previous.weight(3, 2), 1.0);
    }
}
