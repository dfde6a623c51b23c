//! What a retrieval report shows: the text with its needle, what was generated and where a head looked at each token, and
//! what switching the strongest heads off did. Read from the report's evidence.

use std::ops::Range;

use headlight_core::ids::HeadId;
use headlight_core::report::DetectReport;
use serde::Deserialize;

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
        edits: Vec<CausalEdit>,
    },
}

/// What one way of editing heads does to the right answer's log-probability, nats a token.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CausalEdit {
    /// What is done, such as `zero`.
    pub edit: String,
    /// By how much it drops with the strongest heads.
    pub top_drop_nats: f32,
    /// The same with as many random heads of the same layers, mean over draws.
    pub random_drop_nats: f32,
    /// Standard deviation over draws.
    pub random_drop_sd_nats: f32,
}

/// Share of the answer that was generated, by how deep it lay and in how much.
#[derive(Clone, Debug, PartialEq)]
pub struct RecallGrid {
    /// Tokens of the texts, from short to long.
    pub lengths: Vec<usize>,
    /// Depths of the needles, per cent, from the start down.
    pub depths: Vec<f32>,
    /// `[depth][length]`, 0 to 1, mean over needles; none where no needle lay.
    pub recall: Vec<Vec<Option<f32>>>,
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
    /// A sentence and a row an edit.
    Measured {
        /// Which heads, against what, on how much.
        sentence: String,
        /// One a way of editing.
        edits: Vec<CausalEdit>,
    },
}

impl RetrievalEvidence {
    /// The evidence of a report of `retrieval`.
    pub fn of(report: &DetectReport) -> Option<Self> {
        (report.detector == "retrieval").then(|| Self::deserialize(&report.evidence).ok()).flatten()
    }

    /// Recall by depth and length; `None` where texts of one's own have neither.
    pub fn recall_grid(&self) -> Option<RecallGrid> {
        let places: Option<Vec<(&Placement, f32)>> =
            self.prompts.iter().map(|prompt| Some((prompt.placement.as_ref()?, prompt.recall))).collect();
        let places = places.filter(|places| !places.is_empty())?;
        let mut lengths: Vec<usize> = places.iter().map(|(placement, _)| placement.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut depths: Vec<f32> = places.iter().map(|(placement, _)| placement.depth_percent).collect();
        depths.sort_by(f32::total_cmp);
        depths.dedup();
        let cell = |depth: f32, length: usize| {
            let is_here = |(placement, _): &&(&Placement, f32)| {
                placement.depth_percent == depth && placement.length == length
            };
            let found: Vec<f32> = places.iter().filter(is_here).map(|(_, recall)| *recall).collect();
            (!found.is_empty()).then(|| found.iter().sum::<f32>() / found.len() as f32)
        };
        let row = |&depth: &f32| lengths.iter().map(|&length| cell(depth, length)).collect();
        let recall = depths.iter().map(row).collect();
        Some(RecallGrid { lengths, depths, recall })
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
                Causal::Measured { sentence, edits: edits.clone() }
            }
        })
    }
}

impl CausalEdit {
    /// The drop with the strongest heads and that with random ones, as printed.
    pub fn drops(&self) -> [String; 2] {
        [
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

    /// The token at a position of the prompt or, behind it, of what was generated.
    pub fn token_at(&self, position: usize) -> Option<&str> {
        let generated = || self.generated_tokens.get(position.checked_sub(self.tokens.len())?);
        self.tokens.get(position).or_else(generated).map(String::as_str)
    }

    /// Name, length in tokens and depth in per cent of a needle that was hidden; `None` of texts of one's own.
    pub fn placement(&self) -> Option<(&str, usize, f32)> {
        self.placement.as_ref().map(|place| (place.needle.as_str(), place.length, place.depth_percent))
    }

    fn look(&self, token: &str, key: usize) -> Look {
        let there = self.token_at(key);
        Look {
            token: token_text(token),
            key,
            key_text: there.map_or_else(String::new, token_text),
            is_copy: self.span().contains(&key) && there == Some(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view_model::lens::tests::report;
    use serde_json::{Value, json};

    fn evidence(causal: Value) -> RetrievalEvidence {
        let mut report = report("retrieval", vec![vec![0.0, 0.5]], Vec::new());
        report.evidence = json!({
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
        RetrievalEvidence::of(&report).expect("the shape of a report")
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
        let Some(Causal::Measured { sentence, edits }) = measured.causal() else { panic!("{measured:?}") };
        assert_eq!((edits.len(), edits[0].drops()), (1, ["+2.25", "−0.01 ± 0.12"].map(str::to_owned)));
        assert!(
            sentence.contains("L1H0") && sentence.contains("10 random") && sentence.contains("1 prompt.")
        );
        let skipped = evidence(json!({"skipped": "the model answered no prompt"}));
        let told = "Nothing was switched off: the model answered no prompt.".to_owned();
        assert_eq!(skipped.causal(), Some(Causal::Skipped(told)));
    }
    #[test]
    fn recall_is_told_by_depth_and_length_where_needles_were_hidden() {
        let mut evidence = evidence(Value::Null);
        assert_eq!(evidence.recall_grid(), None, "a text of one's own lies at no depth");
        let own = evidence.prompts[0].clone();
        let hidden = |needle: &str, length, depth_percent, recall| PromptEvidence {
            placement: Some(Placement { needle: needle.to_owned(), length, depth_percent }),
            recall,
            ..own.clone()
        };
        evidence.prompts = vec![
            hidden("key", 512, 50.0, 1.0),
            hidden("fox", 512, 50.0, 0.5),
            hidden("key", 256, 50.0, 0.25),
            hidden("key", 512, 0.0, 0.0),
        ];
        let wanted = RecallGrid {
            lengths: vec![256, 512],
            depths: vec![0.0, 50.0],
            recall: vec![vec![None, Some(0.0)], vec![Some(0.25), Some(0.75)]],
        };
        assert_eq!(evidence.recall_grid(), Some(wanted));
    }
}
