//! What it takes to make a view again: model, prompt, edits, lens, in words for a caption and as JSON for the file.

use headlight_core::report::BosPolicy;
use serde_json::{Value, json};

use super::ViewKind;
use crate::protocol::{PlacedEdit, Reply};
use crate::state::AppState;
use crate::state::edits::{kind_of, offered};
use crate::state::lab::Experiment;
use crate::view_model::edits::{edit_text, heads_text, layer_texts, strength_of, where_text};
use crate::view_model::lens::Lens;
use crate::view_model::measure::caption as measure_caption;
use crate::view_model::{short_text, token_text};

/// Letters of the prompt in a caption.
const N_PROMPT_LETTERS: usize = 160;
/// Heads of an edit named one by one.
const N_HEADS_NAMED: usize = 12;

/// Model, prompt and edits as JSON, with what the view is.
pub fn provenance(state: &AppState, kind: ViewKind) -> Value {
    let model = state.model.as_ref().map(|model| {
        let info = &model.info;
        json!({
            "id": model.id, "name": info.name, "sha256": info.sha256, "family": info.family,
            "n_layers": info.n_layers, "n_heads": info.n_heads,
        })
    });
    let view = state.view.as_ref();
    // What the numbers answer, not what has been typed since.
    let asked = state.viewed.as_ref();
    let n_tokens = view.map_or(0, |view| view.tokens.ids.len());
    let edits: Vec<_> =
        asked.into_iter().flat_map(|asked| &asked.edits).map(|edit| edit.resolve(n_tokens)).collect();
    json!({
        "view": kind.slug(),
        "headlight": view.map(|view| &view.run.provenance.build),
        "engine": view.map(|view| &view.run.provenance.engine),
        "model": model,
        "prompt": {
            "text": asked.map(|asked| &asked.text),
            "bos": asked.map_or(BosPolicy::Auto, |asked| asked.bos),
            "ids": view.map(|view| &view.tokens.ids),
        },
        "interventions": edits,
        "head": state.shown_head(),
        "lens": lens(state, kind.lens(state)),
    })
}

/// The lens with its definition and its request, of what the map shows.
fn lens(state: &AppState, lens: Lens) -> Value {
    let report = match lens {
        Lens::Detector(doc) => state.reports().find(|report| report.detector == doc.id),
        _ => None,
    };
    let request = match lens.experiment().and_then(|experiment| state.found(experiment)) {
        Some(Reply::Sweep(report)) => json!({"sweep": report.request.spec}),
        Some(Reply::Patch(report)) => json!({"patch": report.request}),
        Some(Reply::Dla(report)) => json!({"dla": {
            "token": report.parts.token, "versus": report.parts.versus, "position": report.parts.position,
        }}),
        _ => Value::Null,
    };
    json!({
        "key": lens.key(),
        "label": state.lens_label(lens),
        "definition": definition(state, lens),
        "engine": engine(state, lens),
        "detector": report.map(|report| json!({
            "version": report.version, "stimulus": report.stimulus, "n": report.n,
            "threshold": report.threshold, "request": report.provenance.request,
        })),
        "experiment": request,
    })
}

/// What computed the lens' numbers; nothing is known of those of other programs.
fn engine(state: &AppState, lens: Lens) -> Option<&str> {
    let run = match lens {
        Lens::Prompt(_) => &state.view.as_ref()?.run.provenance,
        Lens::Detector(doc) => &state.reports().find(|report| report.detector == doc.id)?.provenance.run,
        Lens::Sweep | Lens::Attribution | Lens::Patching => match state.found(lens.experiment()?)? {
            Reply::Sweep(report) => &report.provenance,
            Reply::Dla(report) => &report.provenance,
            Reply::Patch(report) => &report.provenance,
            _ => return None,
        },
        Lens::Imported(_) => return None,
    };
    Some(&run.engine)
}

/// How the lens' numbers are defined, in words, and what computed them where that is not what computed the run: they stay while one
/// changes the engine.
pub fn definition(state: &AppState, lens: Lens) -> String {
    let own = engine(state, lens);
    let of_run = engine(state, Lens::default());
    match own.filter(|own| of_run.is_some_and(|of_run| of_run != *own)) {
        Some(own) => format!("{} Computed by {own}.", meaning(state, lens)),
        None => meaning(state, lens),
    }
}

fn meaning(state: &AppState, lens: Lens) -> String {
    match lens {
        Lens::Prompt(measure) => {
            let scores = state.view.as_ref().and_then(|view| measure.scores(&view.scores));
            format!("{} {}", measure_caption(measure, scores), measure.doc().score)
        }
        Lens::Detector(doc) => match state.reports().find(|report| report.detector == doc.id) {
            Some(report) => format!("{} Stimulus: {}. {}", report.definition, report.stimulus, doc.source),
            None => doc.score.to_owned(),
        },
        Lens::Sweep => match state.found(Experiment::Sweep) {
            Some(Reply::Sweep(report)) => format!(
                "Effect of editing each head in turn ({}) on the unedited model: {}, edited minus clean.",
                edit_name(&report.request.spec.edit),
                report.metric.name().replace('_', " "),
            ),
            _ => "Effect of editing each head in turn on the unedited model.".to_owned(),
        },
        Lens::Attribution => {
            "What each head adds to the token's logit by its own path, the final norm's scale held fixed."
                .to_owned()
        }
        Lens::Patching => {
            "How much of the clean run each head carries over into the corrupted one.".to_owned()
        }
        Lens::Imported(_) => {
            state.imported(lens).map_or_else(String::new, |imported| imported.caption(state))
        }
    }
}

/// An edit's name as the menu has it, else in words.
fn edit_name(edit: &headlight_core::hooks::Edit) -> String {
    kind_of(edit).map_or_else(|| edit_text(edit), |index| offered()[index].0.to_owned())
}

/// An edit with its strength, heads and place.
fn edit_line(placed: &PlacedEdit) -> String {
    let edit = &placed.edit;
    let mut line = edit_name(&edit.edit);
    if let Some(strength) = strength_of(&edit.edit) {
        line.push_str(&format!(" {} {}", strength.name, strength.value));
    }
    let heads: Vec<_> = edit.sites.heads.iter().copied().collect();
    let places: Vec<String> = layer_texts(edit);
    for place in [heads_text(&heads, N_HEADS_NAMED), places.join(", ")] {
        if !place.is_empty() {
            line.push_str(&format!(" {place}"));
        }
    }
    match &edit.positions {
        Some(positions) if placed.at == Default::default() => {
            line.push_str(&format!(" at positions {positions:?}"));
        }
        _ => line.push_str(&format!(" at {}", where_text(placed.at))),
    }
    line
}

/// Sentences on model, prompt and edits, below the view's own.
pub fn caption(state: &AppState, own: String) -> Vec<String> {
    let mut lines = vec![own];
    if let Some(model) = &state.model {
        let (build, engine) = state.view.as_ref().map_or(("", ""), |view| {
            (view.run.provenance.build.as_str(), view.run.provenance.engine.as_str())
        });
        let sha256: String = model.info.sha256.chars().take(12).collect();
        lines.push(format!("Model: {} (sha256 {sha256}…). Headlight {build}, {engine}.", model.title));
    }
    if let Some(asked) = &state.viewed {
        let prompt: String = asked.text.split(' ').map(shown_word).collect::<Vec<_>>().join(" ");
        let bos = state.view.as_ref().is_some_and(|view| view.tokens.added_bos);
        let before = if bos { "after BOS" } else { "no BOS" };
        lines.push(format!("Prompt ({before}): “{}”", short_text(&prompt, N_PROMPT_LETTERS)));
        let edits: Vec<String> = asked.edits.iter().map(edit_line).collect();
        lines.push(match edits.is_empty() {
            true => "Edits: none.".to_owned(),
            false => format!("Edits: {}.", edits.join("; ")),
        });
    }
    lines
}

/// A word with what cannot be seen spelt out; characters that turn the line around would reach beyond the prompt.
fn shown_word(word: &str) -> String {
    let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if word.is_empty() { String::new() } else { token_text(&word.replace(turns, "\u{1}")) }
}
