//! What the user asks of detectors beyond their defaults: the stimulus, a pattern of one's own, a text with a needle.
//! Plain data that becomes the parameters of a request; what is done with it is decided beside it, in `detection`.

use std::collections::BTreeSet;

use headlight_core::detect::AttentionTarget;
use headlight_core::ids::TokenId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What detectors that read attention are run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum StimulusChoice {
    /// The detector's own sequences.
    #[default]
    Generated,
    /// The tokens of the prompt.
    Prompt,
}

/// Which tokens compete in a score read off the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Candidates {
    /// The detector's own: the members of a class, or the tokens that are tried.
    #[default]
    Own,
    /// Every token of the vocabulary.
    Vocabulary,
}

/// Largest logits that count where more than the first does.
const TOP_K: usize = 5;

/// Every setting of detectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What attention is read on.
    pub stimulus: StimulusChoice,
    /// The pattern of the custom detector.
    pub custom: CustomPattern,
    /// What the retrieval detector hides and asks.
    pub retrieval: RetrievalSettings,
    /// What competes with the next item of a sequence, or with the copied token.
    pub candidates: Candidates,
    /// Whether the next item may be among the five largest, rather than the largest.
    pub is_in_top_five: bool,
}

impl Settings {
    /// Whether this detector reads the prompt in place of sequences of its own.
    pub fn reads_prompt(&self, detector: &str) -> bool {
        // Painted cells are cells of the prompt.
        self.stimulus == StimulusChoice::Prompt || detector == "custom" && !self.custom.cells.is_empty()
    }

    /// The detector's parameters, or what is still missing.
    pub fn params(&self, detector: &str) -> Result<Value, String> {
        match detector {
            "custom" => self.custom.params(),
            "retrieval" => Ok(self.retrieval.params()),
            "successor" => Ok(self.ov_params(self.is_in_top_five.then_some(TOP_K))),
            "copying_top1" => Ok(self.ov_params(None)),
            _ => Ok(Value::Null),
        }
    }

    /// The parameters that differ from the detector's defaults.
    fn ov_params(&self, top_k: Option<usize>) -> Value {
        let among = (self.candidates == Candidates::Vocabulary).then(|| ("among", json!("vocabulary")));
        let top_k = top_k.map(|top_k| ("top_k", json!(top_k)));
        match (among, top_k) {
            (None, None) => Value::Null,
            (among, top_k) => {
                among.into_iter().chain(top_k).map(|(name, value)| (name.to_owned(), value)).collect()
            }
        }
    }
}

/// A target pattern of the user's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default, deny_unknown_fields)]
pub struct CustomPattern {
    /// Offsets as typed, such as `-1, -2`.
    pub offsets_text: String,
    /// Named targets, in the order of [`AttentionTarget::ALL`].
    pub targets: Vec<AttentionTarget>,
    /// Painted cells (query, key) of the prompt.
    pub cells: BTreeSet<(usize, usize)>,
    /// The prompt on which they were painted.
    pub painted_ids: Vec<TokenId>,
    /// Whether clicks on the inspector's pattern paint.
    #[serde(skip)]
    pub is_painting: bool,
}

impl CustomPattern {
    /// The offsets, or which of them is none.
    pub fn offsets(&self) -> Result<Vec<i64>, String> {
        let words = self.offsets_text.split([',', ' ', ';']).filter(|word| !word.is_empty());
        let offset = |word: &str| {
            // A typographic minus is what people paste.
            let offset = word.replace('−', "-").parse::<i64>();
            offset.ok().filter(|offset| *offset <= 0).ok_or_else(|| {
                format!("“{word}” is no offset that attention can reach; write 0 or less, such as -1, -2")
            })
        };
        words.map(offset).collect()
    }

    /// The parameters of a request, or what is missing.
    pub fn params(&self) -> Result<Value, String> {
        let offsets = self.offsets()?;
        if offsets.is_empty() && self.targets.is_empty() && self.cells.is_empty() {
            return Err("Name offsets or targets, or paint cells on the pattern.".to_owned());
        }
        Ok(json!({ "offsets": offsets, "targets": self.targets, "cells": self.cells }))
    }

    /// The cells that this pattern reads on a prompt, `[query][keys]`; those of a broken offset are left out.
    pub fn keys(&self, ids: &[TokenId]) -> Vec<Vec<usize>> {
        let mut rows = vec![BTreeSet::new(); ids.len()];
        for target in &self.targets {
            rows.iter_mut().zip(target.keys(ids).0).for_each(|(row, keys)| row.extend(keys));
        }
        let offsets = self.offsets().unwrap_or_default();
        for (query, row) in rows.iter_mut().enumerate() {
            row.extend(offsets.iter().filter_map(|&offset| query.checked_add_signed(offset as isize)));
        }
        for &(query, key) in &self.cells {
            if let Some(row) = rows.get_mut(query) {
                row.insert(key);
            }
        }
        rows.into_iter().map(|row| row.into_iter().collect()).collect()
    }

    /// Names a target or takes its name back.
    pub fn toggle_target(&mut self, target: AttentionTarget) {
        let is_named = |named: &AttentionTarget| self.targets.contains(named) != (*named == target);
        self.targets = AttentionTarget::ALL.into_iter().filter(is_named).collect();
    }

    /// Paints a cell or wipes it; a cell above the diagonal, or outside the prompt, stays as it is.
    pub fn paint(&mut self, cell: (usize, usize), is_on: bool, ids: &[TokenId]) {
        let (query, key) = cell;
        if key > query || query >= ids.len() {
            return;
        }
        self.follow(ids);
        match is_on {
            true => self.cells.insert(cell),
            false => self.cells.remove(&cell),
        };
    }

    /// Takes over another prompt: a cell stays while the text up to its query is the same.
    pub fn follow(&mut self, ids: &[TokenId]) {
        let n_same = self.painted_ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
        self.cells.retain(|(query, _)| *query < n_same);
        self.painted_ids = ids.to_vec();
    }
}

/// What the retrieval detector hides and asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default, deny_unknown_fields)]
pub struct RetrievalSettings {
    /// Whether the text below takes the place of the generated ones.
    pub is_own: bool,
    /// A text.
    pub text: String,
    /// The part of it that answers.
    pub needle: String,
    /// What is asked behind it, up to where the answer begins.
    pub question: String,
    /// Whether the strongest heads are switched off too.
    pub is_causal: bool,
}

impl Default for RetrievalSettings {
    fn default() -> Self {
        Self {
            is_own: false,
            text: "The library closes at six. The password of the archive is velvet thunder under orange snow. Bring \
                   a lamp, because the stairs are dark."
                .to_owned(),
            needle: "velvet thunder under orange snow".to_owned(),
            question:
                "Question: What is the password of the archive?\nAnswer: The password of the archive is"
                    .to_owned(),
            is_causal: false,
        }
    }
}

impl RetrievalSettings {
    fn params(&self) -> Value {
        let text = json!({ "text": self.text, "needle": self.needle, "question": self.question });
        match (self.is_own, self.is_causal) {
            (false, false) => Value::Null,
            (false, true) => json!({ "causal": {} }),
            (true, false) => json!({ "texts": [text] }),
            (true, true) => json!({ "texts": [text], "causal": {} }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(offsets: &str) -> CustomPattern {
        CustomPattern { offsets_text: offsets.to_owned(), ..CustomPattern::default() }
    }

    #[test]
    fn offsets_are_read_as_people_write_them_and_the_future_is_refused() {
        assert_eq!(custom("-1, −2;0 -10").offsets(), Ok(vec![-1, -2, 0, -10]));
        assert_eq!(custom("  ").offsets(), Ok(Vec::new()));
        for bad in ["1", "-1, x", "--2", "1.5"] {
            assert!(custom(bad).offsets().is_err_and(|told| told.contains("0 or less")), "{bad}");
        }
        assert!(custom("").params().is_err_and(|told| told.contains("paint cells")));
    }

    #[test]
    fn a_pattern_reads_its_offsets_targets_and_cells_once_each() {
        let mut pattern = custom("-1");
        pattern.toggle_target(AttentionTarget::DuplicateToken);
        pattern.paint((2, 1), true, &[7, 8, 7]);
        pattern.paint((2, 2), true, &[7, 8, 7]);
        assert_eq!(pattern.keys(&[7, 8, 7]), [vec![], vec![0], vec![0, 1, 2]]);
        let params = pattern.params().expect("a pattern");
        assert_eq!(
            params,
            json!({ "offsets": [-1], "targets": ["duplicate_token"], "cells": [[2, 1], [2, 2]] })
        );
        pattern.toggle_target(AttentionTarget::DuplicateToken);
        assert!(pattern.targets.is_empty());
    }

    #[test]
    fn cells_ahead_or_outside_are_not_painted_and_an_edited_prompt_keeps_those_before_the_edit() {
        let ids = [5, 6, 7, 8];
        let mut pattern = CustomPattern::default();
        for cell in [(1, 2), (4, 0), (1, 0), (3, 3)] {
            pattern.paint(cell, true, &ids);
        }
        assert_eq!(pattern.cells, BTreeSet::from([(1, 0), (3, 3)]));
        pattern.follow(&[5, 6, 9, 8]);
        assert_eq!(pattern.cells, BTreeSet::from([(1, 0)]));
        pattern.paint((1, 0), false, &[5, 6, 9, 8]);
        assert!(pattern.cells.is_empty());
    }

    #[test]
    fn painted_cells_are_read_on_the_prompt_whatever_was_chosen() {
        let mut settings = Settings::default();
        assert!(!settings.reads_prompt("custom"));
        settings.custom.paint((0, 0), true, &[1]);
        assert!(settings.reads_prompt("custom") && !settings.reads_prompt("induction"));
        settings.stimulus = StimulusChoice::Prompt;
        assert!(settings.reads_prompt("induction"));
    }

    #[test]
    fn weights_are_read_against_what_was_chosen() {
        let mut settings = Settings::default();
        let params = |settings: &Settings| ["successor", "copying_top1"].map(|id| settings.params(id));
        assert_eq!(params(&settings), [Ok(Value::Null), Ok(Value::Null)]);
        settings.is_in_top_five = true;
        assert_eq!(params(&settings), [Ok(json!({ "top_k": 5 })), Ok(Value::Null)]);
        settings.candidates = Candidates::Vocabulary;
        let wanted = [json!({ "among": "vocabulary", "top_k": 5 }), json!({ "among": "vocabulary" })];
        assert_eq!(params(&settings), wanted.map(Ok));
        assert_eq!(settings.params("copying"), Ok(Value::Null));
    }

    #[test]
    fn retrieval_asks_for_what_was_chosen_and_for_nothing_by_default() {
        let mut settings = Settings::default();
        assert_eq!(settings.params("retrieval"), Ok(Value::Null));
        settings.retrieval.is_own = true;
        settings.retrieval.is_causal = true;
        let params = settings.params("retrieval").expect("parameters");
        assert!(params["causal"].is_object());
        let text = &params["texts"][0];
        let holds =
            text["text"].as_str().zip(text["needle"].as_str()).map(|(text, needle)| text.contains(needle));
        assert_eq!(holds, Some(true), "the first text holds its needle");
    }
}
