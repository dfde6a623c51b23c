//! What a retrieval report shows: the text with its needle, what was generated and where a head looked at each token, and
//! what switching the strongest heads off did. Read from the report's evidence.

use std::ops::Range;

use headlight_core::ids::HeadId;
use serde::Deserialize;
use serde_json::Value;

use super::{signed_text, token_text};

/// The evidence of a retrieval report.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RetrievalEvidence {
    succeeded: Succeeded,
    copying_heads: Vec<HeadId>,
    /// Every prompt, in the order in which they were read.
    pub prompts: Vec<PromptEvidence>,
    causal: Option<RawCausal>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Succeeded {
    n: usize,
}

/// One prompt with its answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PromptEvidence {
    placement: Option<Placement>,
    span: (usize, usize),
    /// The prompt's tokens as text.
    pub tokens: Vec<String>,
    /// What was generated.
    pub generated_tokens: Vec<String>,
    /// The answer as it stands in the text.
    pub answer: String,
    /// Share of the answer's tokens that were generated, 0 to 1.
    pub recall: f32,
    looked_at: Vec<Vec<usize>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Placement {
    needle: String,
    length: usize,
    depth_percent: f32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum RawCausal {
    Skipped {
        skipped: String,
    },
    Measured {
        heads: Vec<HeadId>,
        n_draws: usize,
        n_prompts: usize,
        clean_logprob_nats: f32,
        edits: Vec<RawEdit>,
    },
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct RawEdit {
    edit: String,
    top_drop_nats: f32,
    random_drop_nats: f32,
    random_drop_sd_nats: f32,
}

/// A generated token and where a head looked when it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The token as printed.
    pub token: String,
    /// Position looked at: in the prompt, or behind it in what was generated.
    pub key: usize,
    /// The token there as printed.
    pub key_text: String,
    /// Whether it is the very token, within the needle: a copying step.
    pub is_copy: bool,
}

/// What the model lost with the strongest heads.
#[derive(Clone, Debug, PartialEq)]
pub enum Causal {
    /// Why there is nothing to tell.
    Skipped(String),
    /// A sentence and a row an edit: what was done, the drop with the strongest heads, the drop with random ones.
    Measured {
        /// Which heads, against what, on how much.
        sentence: String,
        /// Printed rows.
        rows: Vec<[String; 3]>,
    },
}

impl RetrievalEvidence {
    /// The evidence of a report, if it is of this shape.
    pub fn of(evidence: &Value) -> Option<Self> {
        serde_json::from_value(evidence.clone()).ok()
    }

    /// How many prompts were answered from the needle, in a sentence.
    pub fn summary(&self) -> String {
        match self.prompts.len() {
            1 if self.succeeded.n == 1 => "The prompt was answered from the needle".to_owned(),
            1 => "The prompt was not answered from the needle".to_owned(),
            n => format!("{} of {n} prompts answered from the needle", self.succeeded.n),
        }
    }

    /// Where a head looked as each token of a prompt's answer was chosen; `None` of a head that copied nothing anywhere.
    pub fn looks(&self, prompt_idx: usize, head: HeadId) -> Option<Vec<Look>> {
        let prompt = self.prompts.get(prompt_idx)?;
        let head_idx = self.copying_heads.iter().position(|copying| *copying == head)?;
        let keys = prompt.looked_at.get(head_idx)?;
        Some(prompt.generated_tokens.iter().zip(keys).map(|(token, &key)| prompt.look(token, key)).collect())
    }

    /// What the causal half found, if it was asked for.
    pub fn causal(&self) -> Option<Causal> {
        Some(match self.causal.as_ref()? {
            RawCausal::Skipped { skipped } => {
                Causal::Skipped(format!("Nothing was switched off: {skipped}."))
            }
            RawCausal::Measured { heads, n_draws, n_prompts, clean_logprob_nats, edits } => {
                let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
                let sentence = format!(
                    "Without {} the right answer's log-probability (clean: {clean_logprob_nats:.2} nats a token) drops by as \
                     much; beside it {n_draws} random draws of as many other heads of their layers. {n_prompts} {}.",
                    heads.join(", "),
                    if *n_prompts == 1 { "prompt" } else { "prompts" },
                );
                Causal::Measured { sentence, rows: edits.iter().map(RawEdit::row).collect() }
            }
        })
    }
}

impl RawEdit {
    fn row(&self) -> [String; 3] {
        [
            self.edit.clone(),
            signed_text(self.top_drop_nats),
            format!("{} ± {:.2}", signed_text(self.random_drop_nats), self.random_drop_sd_nats),
        ]
    }
}

impl PromptEvidence {
    /// Positions of the needle's answer.
    pub fn span(&self) -> Range<usize> {
        self.span.0..self.span.1
    }

    /// For a menu: the needle's name, how deep it lies and in how much.
    pub fn title(&self) -> String {
        match &self.placement {
            Some(Placement { needle, length, depth_percent }) => {
                format!("{needle}, {depth_percent} % deep in {length} tokens")
            }
            None => format!("your text, {} tokens", self.tokens.len()),
        }
    }

    fn look(&self, token: &str, key: usize) -> Look {
        let n_tokens = self.tokens.len();
        let there = self.tokens.get(key).or_else(|| self.generated_tokens.get(key.checked_sub(n_tokens)?));
        Look {
            token: token_text(token),
            key,
            key_text: there.map_or_else(String::new, |text| token_text(text)),
            is_copy: self.span().contains(&key) && there.is_some_and(|there| there == token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evidence(causal: Value) -> RetrievalEvidence {
        let evidence = json!({
            "scoring": "set",
            "succeeded": {"n": 1},
            "copying_heads": ["L1H0", "L1H2"],
            "prompts": [{
                "placement": null, "n_tokens": 4, "span": [1, 3], "tokens": ["a", " red", " fox", "?"],
                "answer": " red fox", "generated": " red fox fox", "generated_ids": [1, 2, 2],
                "generated_tokens": [" red", " fox", " fox"], "looked_at": [[1, 2, 4], [0, 0, 2]],
                "recall": 1, "succeeded": true,
            }],
            "causal": causal,
        });
        RetrievalEvidence::of(&evidence).expect("the shape of a report")
    }

    #[test]
    fn looks_tell_copies_from_looks_elsewhere() {
        let evidence = evidence(Value::Null);
        let looks = |head: &str| evidence.looks(0, head.parse().expect("a head"));
        let copies =
            |head: &str| looks(head).map(|looks| looks.iter().map(|look| look.is_copy).collect::<Vec<_>>());
        // The third look is at the first generated token, which is " red" and no part of the text.
        assert_eq!(copies("L1H0"), Some(vec![true, true, false]));
        assert_eq!(looks("L1H0").expect("it copied")[2].key_text, "·red");
        assert_eq!(copies("L1H2"), Some(vec![false, false, true]));
        assert_eq!(looks("L0H0"), None);
        assert_eq!(evidence.summary(), "The prompt was answered from the needle");
        assert_eq!(evidence.prompts[0].title(), "your text, 4 tokens");
        assert_eq!(evidence.causal(), None);
    }

    #[test]
    fn the_causal_table_sets_the_strongest_heads_beside_random_ones() {
        let measured = evidence(json!({
            "heads": ["L1H0"], "n_draws": 10, "random_heads_from": 5, "n_prompts": 1, "clean_logprob_nats": -0.5,
            "edits": [{"edit": "zero", "top_drop_nats": 2.25, "random_drop_nats": -0.01, "random_drop_sd_nats": 0.125}],
        }));
        let Some(Causal::Measured { sentence, rows }) = measured.causal() else { panic!("{measured:?}") };
        assert_eq!(rows, [["zero", "+2.25", "−0.01 ± 0.12"]]);
        assert!(
            sentence.contains("L1H0") && sentence.contains("10 random") && sentence.contains("1 prompt.")
        );
        let skipped = evidence(json!({"skipped": "the model answered no prompt"}));
        let told = "Nothing was switched off: the model answered no prompt.".to_owned();
        assert_eq!(skipped.causal(), Some(Causal::Skipped(told)));
    }
}
