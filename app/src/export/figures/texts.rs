//! Running texts: the prompt's tokens, and the continuations before and after the edits.

use headlight_core::report::GenerateReport;

use super::flow::{Boxed, WIDTH, flow};
use super::sheet;
use crate::export::ViewKind;
use crate::export::svg::{Anchor, Drawing, Sheet};
use crate::protocol::Reply;
use crate::state::AppState;
use crate::state::lab::Experiment;
use crate::view_model::colour::heat;
use crate::view_model::{chips, token_text};

/// Shade of every second token, so that one sees where they end.
const SHADE: f32 = 0.12;

/// The prompt as the model reads it.
pub fn tokens(state: &AppState) -> Option<Sheet> {
    let view = state.view.as_ref()?;
    let mut drawing = Drawing::new(state.theme(), WIDTH, 0.0);
    let theme = drawing.theme;
    let boxed = chips(&view.tokens).into_iter().map(|chip| Boxed {
        fill: Some(heat(theme, if chip.position % 2 == 0 { SHADE } else { 0.0 })),
        is_framed: chip.is_bos,
        ends_line: chip.ends_line,
        ..Boxed::plain(chip.text, chip.description)
    });
    drawing.height = flow(&mut drawing, 0.0, boxed);
    let bos = if view.tokens.added_bos { " Framed: the token that was put before the prompt." } else { "" };
    let own = format!("The prompt's {} tokens. ·: a space; ↵: a line end.{bos}", view.tokens.ids.len());
    Some(sheet(state, ViewKind::Tokens, "Tokens", &own, drawing))
}

/// What the model writes on, before and after.
pub fn continuation(state: &AppState) -> Option<Sheet> {
    let runs = [("Before", Experiment::CleanText), ("After", Experiment::EditedText)];
    let runs: Vec<(&str, &GenerateReport)> = runs
        .into_iter()
        .filter_map(|(title, experiment)| match state.found(experiment) {
            Some(Reply::Generate(report)) => Some((title, report.as_ref())),
            _ => None,
        })
        .collect();
    runs.first()?;
    let mut drawing = Drawing::new(state.theme(), WIDTH, 0.0);
    let theme = drawing.theme;
    for (title, report) in &runs {
        let top = drawing.height;
        drawing.label(0.0, top + 10.0, Anchor::Start, title);
        let boxed = report.tokens.iter().zip(&report.ids).enumerate().map(|(index, (token, id))| Boxed {
            fill: Some(heat(theme, if index % 2 == 0 { SHADE } else { 0.0 })),
            ends_line: token.ends_with('\n'),
            ..Boxed::plain(token_text(token), format!("id {id}, text {token:?}"))
        });
        drawing.height = flow(&mut drawing, top + 18.0, boxed) + 10.0;
    }
    let settings = &state.lab.settings;
    let drawn = match settings.temperature > 0.0 {
        true => format!("drawn at temperature {}, seed {}", settings.temperature, settings.seed),
        false => "the most probable token each time".to_owned(),
    };
    let own = format!("How the model goes on, before and after the edits: {drawn}.");
    Some(sheet(state, ViewKind::Continuation, "Continuation", &own, drawing))
}
