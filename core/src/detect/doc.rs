//! What every detector says of itself: the sections that the command line prints and the page's help is made of.

use serde::Serialize;

/// A detector's own description. Sections are sentences for people; formulas are plain text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Doc {
    /// Stable name, such as `previous_token`.
    pub id: &'static str,
    /// Raised whenever the same input can give another score.
    pub version: u32,
    /// As a label.
    pub title: &'static str,
    /// What a head that scores high does.
    pub looks_for: &'static str,
    /// Why anyone wants to know.
    pub why_it_matters: &'static str,
    /// Definition and formula.
    pub score: &'static str,
    /// What the model reads.
    pub stimulus: &'static str,
    /// Authors, year, title.
    pub source: &'static str,
    /// What else scores high, and what does not although it should.
    pub known_confusions: &'static str,
    /// From which score on a head is called by this name; `None` where the score names nothing by itself.
    pub threshold: Option<Threshold>,
    /// Whether the score is read off the weights, with no prompt at all.
    pub weights_only: bool,
}

impl Doc {
    /// Whether it reads sequences of tokens, its own or given ones, and averages over them. Retrieval reads prompts with an answer
    /// in them, which sequences alone are not.
    pub fn reads_sequences(&self) -> bool {
        !self.weights_only && self.id != "retrieval"
    }
}

/// A cut-off and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Threshold {
    /// Scores above this name a head.
    pub value: f32,
    /// Who drew the line.
    pub source: &'static str,
}
