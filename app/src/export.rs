//! Views of the page to take away: pictures as SVG, numbers as CSV and JSON. Pure texts of the state as it is; the page turns
//! a picture into pixels and saves files.

mod figures;
mod provenance;
mod reports;
mod svg;
mod table;
mod tables;

pub use figures::pair_texts;
pub use provenance::definition;

use self::svg::Sheet;
use self::table::Table;
use crate::state::AppState;
use crate::view_model::lens::Lens;

/// A view that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ViewKind {
    /// The head map under its lens.
    HeadMap,
    /// What stands behind a detector's scores.
    Evidence,
    /// The shown head's pattern.
    Pattern,
    /// What the shown head writes for the held token.
    Writes,
    /// Next tokens before and after.
    NextTokens,
    /// Effects along the prompt.
    Along,
    /// The scores of a lens against effects.
    Scatter(Lens),
    /// The logit lens, or patching by layer and position.
    Layers,
    /// Continuations before and after.
    Continuation,
    /// The prompt's tokens.
    Tokens,
    /// The prompt as one of its tokens attends to it.
    AttentionFrom,
    /// The shown head's scores on the prompt.
    HeadScores,
    /// The whole effect of the edits beside the direct one.
    DirectEffect,
    /// Edited heads beside random ones.
    Controls,
    /// Named sets of heads, each edited as a whole.
    SetEffects,
    /// A prompt of retrieval, by its place in the report, with where the shown head looked.
    RetrievalText(usize),
    /// What retrieval loses without the strongest heads.
    RetrievalCausal,
}

/// What a view is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A picture.
    Svg,
    /// A table.
    Csv,
    /// The command line's report.
    Json,
}

/// A file to save.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its name without an ending.
    pub stem: String,
    /// `svg`, `csv`, `json` or `py`.
    pub ending: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// What is in it.
    pub text: String,
}

impl File {
    /// Its name.
    pub fn name(&self) -> String {
        format!("{}.{}", self.stem, self.ending)
    }
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Svg, Self::Csv, Self::Json];

    /// The ending of its files.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Svg => "image/svg+xml",
            Self::Csv => "text/csv",
            Self::Json => "application/json",
        }
    }
}

impl ViewKind {
    /// A name for files and for tests.
    pub fn slug(self) -> &'static str {
        match self {
            Self::HeadMap => "head-map",
            Self::Evidence => "evidence",
            Self::Pattern => "pattern",
            Self::Writes => "writes",
            Self::NextTokens => "next-tokens",
            Self::Along => "along-prompt",
            Self::Scatter(_) => "score-against-effect",
            Self::Layers => "layers",
            Self::Continuation => "continuation",
            Self::Tokens => "tokens",
            Self::AttentionFrom => "attention-from-token",
            Self::HeadScores => "head-scores",
            Self::DirectEffect => "direct-effect",
            Self::Controls => "random-heads",
            Self::SetEffects => "sets",
            Self::RetrievalText(_) => "retrieval-text",
            Self::RetrievalCausal => "retrieval-causal",
        }
    }

    /// As the menu calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::HeadMap => "Head map",
            Self::Evidence => "Evidence",
            Self::Pattern => "Pattern",
            Self::Writes => "What it writes",
            Self::NextTokens => "Next tokens",
            Self::Along => "Along the prompt",
            Self::Scatter(_) => "Score against effect",
            Self::Layers => "Layer by position",
            Self::Continuation => "Continuation",
            Self::Tokens => "Tokens",
            Self::AttentionFrom => "Where it looks from a token",
            Self::HeadScores => "Its scores on this prompt",
            Self::DirectEffect => "Direct and whole effect",
            Self::Controls => "Against random heads",
            Self::SetEffects => "Sets, each as a whole",
            Self::RetrievalText(_) => "Text and looks",
            Self::RetrievalCausal => "Without the strongest heads",
        }
    }

    /// The lens whose numbers it shows.
    fn lens(self, state: &AppState) -> Lens {
        match self {
            Self::Scatter(lens) => lens,
            _ => state.lens,
        }
    }

    /// Whether its numbers are there.
    pub fn is_there(self, state: &AppState) -> bool {
        match self {
            Self::HeadMap => state.lens_scores().is_some(),
            Self::NextTokens | Self::Tokens => state.view.is_some(),
            Self::Pattern => state.view.as_ref().is_some_and(|view| view.pattern.is_some()),
            _ => self.table(state).is_some(),
        }
    }

    fn sheet(self, state: &AppState) -> Option<Sheet> {
        match self {
            Self::HeadMap => figures::head_map(state),
            Self::Pattern => figures::pattern(state),
            Self::Writes => figures::writes(state),
            Self::NextTokens => figures::next_tokens(state),
            Self::Along => figures::along(state),
            Self::Scatter(lens) => figures::scatter(state, lens),
            Self::Layers => figures::layers(state),
            Self::Evidence => figures::evidence(state),
            Self::Continuation => figures::continuation(state),
            Self::Tokens => figures::tokens(state),
            Self::AttentionFrom => figures::attention_from(state),
            Self::HeadScores => figures::head_scores(state),
            Self::DirectEffect => figures::direct_effect(state),
            Self::Controls => figures::controls(state),
            Self::SetEffects => figures::set_effects(state),
            Self::RetrievalText(prompt_idx) => figures::retrieval_text(state, prompt_idx),
            Self::RetrievalCausal => figures::retrieval_causal(state),
        }
    }

    fn table(self, state: &AppState) -> Option<Table> {
        match self {
            Self::HeadMap => tables::head_map(state),
            Self::Evidence => tables::evidence(state),
            Self::Pattern => tables::pattern(state),
            Self::Writes => tables::writes(state),
            Self::NextTokens => tables::next_tokens(state),
            Self::Along => tables::along(state),
            Self::Scatter(lens) => tables::scatter(state, lens),
            Self::Layers => tables::layers(state),
            Self::Continuation => tables::continuation(state),
            Self::Tokens => tables::tokens(state),
            Self::AttentionFrom => tables::attention_from(state),
            Self::HeadScores => tables::head_scores(state),
            Self::DirectEffect => tables::direct_effect(state),
            Self::Controls => tables::controls(state),
            Self::SetEffects => tables::set_effects(state),
            Self::RetrievalText(prompt_idx) => tables::retrieval_text(state, prompt_idx),
            Self::RetrievalCausal => tables::retrieval_causal(state),
        }
    }

    /// The view as a file; `None` while its numbers are not there.
    pub fn file(self, state: &AppState, format: Format) -> Option<File> {
        let text = match format {
            Format::Svg => self.sheet(state)?.svg(),
            Format::Csv => self.table(state)?.csv(),
            Format::Json => reports::json(state, self)?,
        };
        let (ending, media_type) = (format.ending(), format.media_type());
        Some(File { stem: stem(state, self.slug()), ending, media_type, text })
    }
}

/// Python as a file.
pub fn python(state: &AppState, library: headlight_core::script::Library, text: String) -> File {
    let what = library.name().replace('_', "-");
    File { stem: stem(state, &what), ending: "py", media_type: "text/x-python", text }
}

/// `headlight-induction-2l-head-map`: letters, digits and dashes alone, whatever a model is called.
fn stem(state: &AppState, what: &str) -> String {
    let model = state.model.as_ref().map_or("", |model| model.id.as_str());
    let model = model.strip_suffix(".gguf").unwrap_or(model);
    let plain = model.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let words: String = plain.take(60).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    let name = if words.is_empty() { "model".to_owned() } else { words.join("-") };
    format!("headlight-{name}-{what}")
}

#[cfg(test)]
mod tests;
