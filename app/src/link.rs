//! A view as a link: what the page shows, as data, in the address behind `#`. Versioned, defaults left out, deflated,
//! base64url: `#1.…`. Decoding trusts nothing: sizes are bounded before and while a link is unpacked, and what does not
//! fit is refused whole. What a link does to the page is decided in `state::share`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::report::BosPolicy;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lesson::Lesson;
use crate::models::FIRST_MODEL;
use crate::protocol::{BackendChoice, ErrorReport, ModelFormat, PlacedEdit};
use crate::state::edits::HeadSet;
use crate::state::lab::LabSettings;
use crate::state::settings::Settings;

/// The version that is written.
const VERSION: &str = "1";
/// Longest link that is read, letters behind `#`: a prompt of 8192 tokens takes a quarter of it.
const MAX_LETTERS: usize = 1 << 17;
/// A link without the sender's numbers is not made longer than this by what it can do without; with them it then stays below
/// 2,000 letters, which every program passes on.
pub const MAX_SENT_LETTERS: usize = 1650;
/// Most bytes that a link may unpack to.
const MAX_BYTES: usize = 1 << 20;
/// miniz_oxide's slowest level; a link is packed once.
const DEFLATE_LEVEL: u8 = 10;
/// The prompt of version 1 links that name none.
const PROMPT_1: &str = "On Monday Zorbax met Quill Mandrik. On Tuesday Zorbax met Quill";

/// What a link says. Fields that are left out stand for their defaults, which therefore never change within a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// The model.
    pub model: LinkedModel,
    /// The prompt.
    pub prompt: String,
    /// BOS policy.
    pub bos: BosPolicy,
    /// What colours the head map, such as `detector:induction`.
    pub lens: String,
    /// The scores of another program that colour it, under the lens `imported:0`.
    pub imported: Option<LinkedScores>,
    /// The head held.
    pub head: Option<HeadId>,
    /// The token held in the inspector.
    pub token: Option<usize>,
    /// Edits in force, in order.
    pub edits: Vec<PlacedEdit>,
    /// Named sets of heads.
    pub sets: Vec<HeadSet>,
    /// Two texts whose first tokens are compared.
    pub compare: [String; 2],
    /// What is asked of experiments.
    pub lab: LabSettings,
    /// What is asked of detectors.
    pub detectors: Settings,
    /// Parts of the page that are not shown.
    pub hide: BTreeSet<Part>,
    /// An assignment.
    pub lesson: Option<Lesson>,
    /// Which engine is wished for.
    pub backend: BackendChoice,
    /// What whoever made the link saw.
    pub numbers: Option<Numbers>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            model: LinkedModel::default(),
            prompt: PROMPT_1.to_owned(),
            bos: BosPolicy::default(),
            lens: "prompt:induction".to_owned(),
            imported: None,
            head: None,
            token: None,
            edits: Vec::new(),
            sets: Vec::new(),
            compare: [String::new(), String::new()],
            lab: LabSettings::default(),
            detectors: Settings::default(),
            hide: BTreeSet::new(),
            lesson: None,
            backend: BackendChoice::default(),
            numbers: None,
        }
    }
}

/// Which model a link is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default, deny_unknown_fields)]
pub struct LinkedModel {
    /// The manifest's id, or a file's name.
    pub id: String,
    /// sha256 of the weights, hex, of a model that is in no manifest; the manifest pins the others.
    pub sha256: Option<String>,
    /// Where the file is, of a model that is in no manifest; none of a local file.
    pub url: Option<String>,
    /// How that file is read.
    pub format: ModelFormat,
}

impl Default for LinkedModel {
    fn default() -> Self {
        Self { id: FIRST_MODEL.to_owned(), sha256: None, url: None, format: ModelFormat::Gguf }
    }
}

/// One metric of a file of another program, as a link carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct LinkedScores {
    /// The file's name.
    pub file: String,
    /// The metric's name.
    pub metric: String,
    /// Whether the numbers are effects, which are ranked by size.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_effect: bool,
    /// sha256 of the weights that it was measured on, where the file says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// The numbers; none where the link would have become too long with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounded: Option<RoundedScores>,
}

/// Numbers of heads, each rounded to a thousandth of the largest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct RoundedScores {
    /// Size of the largest number.
    pub most: f32,
    /// `[layer][head]`, thousandths of `most`, -1000 to 1000.
    pub thousandths: Vec<Vec<i16>>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Parts of the page that a link can hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The prompt's editor.
    Prompt,
    /// The prompt's tokens.
    Tokens,
    /// Next-token probabilities.
    Output,
    /// Edits, and what follows from them.
    Ablation,
    /// The head map.
    Map,
    /// The head's attention pattern.
    Pattern,
    /// The rest of the inspector.
    Inspector,
    /// Effects along the prompt, plots and layers.
    Plots,
    /// The assignment.
    Lesson,
}

impl Part {
    /// Every part, from the top of the page.
    pub const ALL: [Self; 9] = [
        Self::Prompt,
        Self::Tokens,
        Self::Output,
        Self::Ablation,
        Self::Map,
        Self::Pattern,
        Self::Inspector,
        Self::Plots,
        Self::Lesson,
    ];

    /// Its name in links and addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Tokens => "tokens",
            Self::Output => "output",
            Self::Ablation => "ablation",
            Self::Map => "map",
            Self::Pattern => "pattern",
            Self::Inspector => "inspector",
            Self::Plots => "plots",
            Self::Lesson => "lesson",
        }
    }
}

/// What the sender saw, rounded to a millionth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// The first digits of the weights' sha256.
    pub model_sha256: String,
    /// The first digits of the vocabulary's sha256.
    pub tokenizer_sha256: String,
    /// Version of the lens' detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector_version: Option<u32>,
    /// The most probable next tokens of the (edited) run: id, text, log-probability in nats.
    pub top: Vec<(TokenId, String, f32)>,
    /// KL(clean ‖ edited) at the last position, nats, where there were edits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_nats: Option<f32>,
    /// The lens' number for the held head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// Why a link cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// Not one of ours, or of a version to come.
    Version(String),
    /// Letters behind `#`.
    TooLong(usize),
    /// Unpacks to more than is read.
    TooLarge,
    /// Cut off or changed on the way.
    Damaged,
    /// Unpacked, but no view.
    Unreadable(String),
}

impl LinkError {
    /// As the banner says it.
    pub fn report(&self) -> ErrorReport {
        let (what, detail) = match self {
            Self::Version(version) => {
                let what = "this link is of a version that this page does not know; reload the page, or open it where it was made";
                (what.to_owned(), Some(format!("version “{}”", shortened(version))))
            }
            Self::TooLong(n_letters) => {
                let what = format!(
                    "this link is too long to be one of Headlight's ({n_letters} letters); ask for it again"
                );
                (what, None)
            }
            Self::TooLarge => {
                ("this link unpacks to more than any view holds; it was not opened".to_owned(), None)
            }
            Self::Damaged => {
                let what =
                    "this link is damaged or was cut off on its way; ask for it again, or copy all of it";
                (what.to_owned(), None)
            }
            Self::Unreadable(cause) => {
                ("this link holds no view that this page can show".to_owned(), Some(shortened(cause)))
            }
        };
        ErrorReport { code: "bad_link".to_owned(), message: what, recoverable: true, detail }
    }
}

/// Text of a stranger's, short enough to show.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

impl Link {
    /// What stands behind `#`; empty for a view that is all defaults.
    pub fn encode(&self) -> String {
        let value = self.to_value();
        if value.as_object().is_some_and(serde_json::Map::is_empty) {
            return String::new();
        }
        let packed = compress_to_vec(value.to_string().as_bytes(), DEFLATE_LEVEL);
        format!("{VERSION}.{}", URL_SAFE_NO_PAD.encode(packed))
    }

    /// Reads what stands behind `#`.
    pub fn decode(fragment: &str) -> Result<Self, LinkError> {
        let fragment = fragment.strip_prefix('#').unwrap_or(fragment);
        if fragment.is_empty() {
            return Ok(Self::default());
        }
        if fragment.len() > MAX_LETTERS {
            return Err(LinkError::TooLong(fragment.len()));
        }
        match fragment.split_once('.') {
            Some((VERSION, packed)) => Self::of_value(unpack(packed)?),
            Some((version, _)) => Err(LinkError::Version(version.to_owned())),
            None => Err(LinkError::Version(fragment.to_owned())),
        }
    }

    /// The view as JSON without what is left at its default: what `headlight.state()` gives.
    pub fn to_value(&self) -> Value {
        let json = |link: &Self| serde_json::to_value(link).expect("a link is plain data");
        without_defaults(json(self), &json(&Self::default()))
    }

    /// Reads the same.
    pub fn of_value(value: Value) -> Result<Self, LinkError> {
        if !value.is_object() {
            return Err(LinkError::Unreadable("a view is an object".to_owned()));
        }
        if !is_finite(&value) {
            return Err(LinkError::Unreadable("a number is larger than any that a view holds".to_owned()));
        }
        let link: Self =
            serde_json::from_value(value).map_err(|error| LinkError::Unreadable(error.to_string()))?;
        link.lesson.as_ref().map_or(Ok(()), Lesson::check).map_err(LinkError::Unreadable)?;
        Ok(link)
    }

    /// The view alone, without the sender's numbers.
    pub fn without_numbers(&self) -> Self {
        Self { numbers: None, ..self.clone() }
    }

    /// Whether going from another view to this one is a step that the browser's back button should take back: anything but
    /// typing and moving sliders.
    pub fn is_step_from(&self, other: &Self) -> bool {
        let typed = Self {
            prompt: other.prompt.clone(),
            compare: other.compare.clone(),
            lab: other.lab.clone(),
            detectors: other.detectors.clone(),
            token: other.token,
            ..self.clone()
        };
        let is_slider = typed.edits.len() == other.edits.len()
            && typed.edits.iter().zip(&other.edits).all(|(a, b)| a.edit.sites == b.edit.sites);
        let rest = match is_slider {
            true => Self { edits: other.edits.clone(), ..typed },
            false => typed,
        };
        rest != *other
    }
}

fn unpack(packed: &str) -> Result<Value, LinkError> {
    let bytes = URL_SAFE_NO_PAD.decode(packed).map_err(|_| LinkError::Damaged)?;
    let json = decompress_to_vec_with_limit(&bytes, MAX_BYTES).map_err(|error| match error.status {
        TINFLStatus::HasMoreOutput => LinkError::TooLarge,
        _ => LinkError::Damaged,
    })?;
    serde_json::from_slice(&json).map_err(|error| LinkError::Unreadable(error.to_string()))
}

/// Whether every number in it is one in 32 bits too: serde takes larger ones for infinite.
fn is_finite(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| (number as f32).is_finite()),
        Value::Array(values) => values.iter().all(is_finite),
        Value::Object(fields) => fields.values().all(is_finite),
        _ => true,
    }
}

/// An object without the fields that are as in another one.
fn without_defaults(value: Value, defaults: &Value) -> Value {
    let (Value::Object(fields), Value::Object(defaults)) = (value, defaults) else {
        unreachable!("both are views")
    };
    let differs = |(name, value): (String, Value)| match defaults.get(&name) {
        Some(default) if *default == value => None,
        Some(default @ Value::Object(_)) if value.is_object() => {
            Some((name, without_defaults(value, default)))
        }
        _ => Some((name, value)),
    };
    fields.into_iter().filter_map(differs).collect()
}

#[cfg(test)]
mod builders;
#[cfg(test)]
mod tests;
