//! TransformerLens' `detect_head`, both of its measures, for parity with it.

use serde::Deserialize;

use super::attention::{AttentionWork, Reading};
use super::doc::Doc;
use super::target::AttentionTarget;
use super::{Ask, BlockDefaults, BlockParams, DetectError, Detector, Work};
use crate::hooks::TargetKeys;
use crate::ids::TokenId;

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "tl_detect_head",
        version: 1,
        title: "TransformerLens detect_head",
        looks_for: "A previous-token, duplicate-token or induction pattern on any text, as TransformerLens compares them.",
        why_it_matters: "Numbers in papers and notebooks come from this function; here they can be checked.",
        score: "With the 0/1 target matrix D: mul = Σ A·D / Σ A; abs = 1 - n·mean|A - D|, rounded to three decimals. \
                exclude_bos drops column 0 and exclude_current_token the diagonal, from both. Parameters: detection_pattern \
                (previous_token_head, duplicate_token_head, induction_head), error_measure (mul, abs), exclude_bos, \
                exclude_current_token.",
        stimulus: "50 distinct random tokens, repeated twice, in 4 draws; made for given sequences. TransformerLens adds a BOS \
                   to text by itself: give the ids that it read.",
        source: "Nanda & Bloom 2022, TransformerLens, head_detector.py (MIT)",
        known_confusions: "mul cannot exceed the share of rows that have a target: about .5 for a perfect induction head on \
                           [BOS] r r. With exclude_bos it is a ratio of leftovers: a head with .999 on the BOS and .001 on the \
                           target scores 1. Rows with several targets help mul and hurt abs.",
        threshold: None,
        weights_only: false,
    },
    plan,
};

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    detection_pattern: DetectionPattern,
    error_measure: ErrorMeasure,
    exclude_bos: bool,
    exclude_current_token: bool,
    n_tokens: Option<usize>,
    n_repeats: Option<usize>,
    n_draws: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum DetectionPattern {
    #[serde(rename = "previous_token_head")]
    PreviousToken,
    #[serde(rename = "duplicate_token_head")]
    DuplicateToken,
    #[default]
    #[serde(rename = "induction_head")]
    Induction,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorMeasure {
    #[default]
    Mul,
    Abs,
}

fn plan(ask: &Ask<'_>) -> Result<Work, DetectError> {
    let params: Params = ask.params()?;
    let Params { n_tokens, n_repeats, n_draws, .. } = params;
    let blocks = BlockParams { n_tokens, n_repeats, n_draws };
    let stimulus = ask.blocks(BlockDefaults { lengths: (50, 50), n_repeats: 2 }, blocks)?;
    let work = AttentionWork::new(stimulus, |ids| reading(params, ids));
    work.check("has no cell of the target pattern left; use a longer text, or exclude less")?;
    Ok(Work::Attention(work))
}

fn reading(params: Params, ids: &[TokenId]) -> Reading {
    let target = match params.detection_pattern {
        DetectionPattern::PreviousToken => AttentionTarget::PreviousToken,
        DetectionPattern::DuplicateToken => AttentionTarget::DuplicateToken,
        DetectionPattern::Induction => AttentionTarget::Induction,
    };
    let is_allowed = |query: usize, key: usize| {
        !(params.exclude_bos && key == 0 || params.exclude_current_token && key == query)
    };
    let mut inside = target.keys(ids);
    for (query, keys) in inside.0.iter_mut().enumerate() {
        keys.retain(|&key| is_allowed(query, key));
    }
    let allowed = (0..ids.len()).map(|query| (0..=query).filter(|&key| is_allowed(query, key)).collect());
    let allowed = TargetKeys(allowed.collect());
    match params.error_measure {
        ErrorMeasure::Mul => Reading::Share { inside, allowed },
        ErrorMeasure::Abs => Reading::Distance { inside, allowed },
    }
}
