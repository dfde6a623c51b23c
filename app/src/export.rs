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
    /// Continuations, and edited heads beside random ones.
    Continuation,
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
        }
    }

    /// The lens whose numbers it shows.
    fn lens(self, state: &AppState) -> Lens {
        match self {
            Self::Scatter(lens) => lens,
            _ => state.lens,
        }
    }

    /// What it can be written as, whether or not its numbers are there.
    pub fn formats(self) -> &'static [Format] {
        match self {
            Self::Evidence => &[Format::Csv],
            Self::Continuation => &[Format::Csv, Format::Json],
            _ => &Format::ALL,
        }
    }

    /// Whether its numbers are there.
    pub fn is_there(self, state: &AppState) -> bool {
        match self {
            Self::HeadMap => state.lens_scores().is_some(),
            Self::NextTokens => state.view.is_some(),
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
            Self::Evidence | Self::Continuation => None,
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
