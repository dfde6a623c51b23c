//! Layer by position: the logit lens, and where activation patching recovers the clean run.

use headlight_core::report::{LensReport, PatchReport};

use super::sheet;
use crate::export::ViewKind;
use crate::export::svg::{Anchor, Drawing, Legend, Sheet};
use crate::protocol::Reply;
use crate::state::AppState;
use crate::state::lab::Experiment;
use crate::view_model::colour::{Rgb, heat, signed};
use crate::view_model::lens::{Lens, Scale};
use crate::view_model::{percent_text, short_text, signed_text, token_text, token_texts};

/// Room for the layers' numbers.
const LEFT: f32 = 36.0;
/// Height of a cell.
const CELL: f32 = 18.0;
/// Width of a cell that has a text, and of one in a long prompt.
const WIDE: f32 = 52.0;
const NARROW: f32 = 12.0;
/// Longer prompts have no texts in their cells.
const MAX_WITH_TEXTS: usize = 64;
/// Room for the tokens below.
const FOOT: f32 = 76.0;
/// Letters of a token in a cell and below.
const N_LETTERS: usize = 7;
const N_FOOT_LETTERS: usize = 11;

/// Patching's tables under that lens, else the logit lens; `None` before they were computed.
pub fn layers(state: &AppState) -> Option<Sheet> {
    if state.lens == Lens::Patching {
        let Reply::Patch(report) = state.found(Experiment::Patch)? else { return None };
        return Some(patching(state, report));
    }
    let Reply::Lens(report) = state.found(Experiment::LogitLens)? else { return None };
    logit_lens(state, report)
}

/// A cell's colour, text and tooltip.
type CellOf<'a> = &'a dyn Fn(usize, usize) -> (Rgb, String, String);

/// Draws a grid from `top` on; gives where it ends.
fn grid(drawing: &mut Drawing, top: f32, n_layers: usize, tokens: &[String], cell_of: CellOf<'_>) -> f32 {
    let w = cell_width(tokens.len());
    let bottom = top + n_layers as f32 * CELL;
    for layer in 0..n_layers {
        let y = bottom - (layer + 1) as f32 * CELL;
        drawing.label(LEFT - 8.0, y + 13.0, Anchor::End, &layer.to_string());
        for position in 0..tokens.len() {
            let x = LEFT + position as f32 * w;
            let (fill, text, tip) = cell_of(layer, position);
            drawing.cell((x, y, w - 1.0, CELL - 1.0), fill, &tip);
            if w == WIDE && !text.is_empty() {
                drawing.mono(x + w / 2.0, y + 12.5, 10.0, Anchor::Middle, fill.ink(), &text);
            }
        }
    }
    for (position, token) in tokens.iter().enumerate() {
        let x = LEFT + (position as f32 + 0.5) * w + 3.0;
        drawing.upward(x, bottom + 6.0, 9.5, &short_text(token, N_FOOT_LETTERS));
    }
    bottom + FOOT
}

fn cell_width(n_tokens: usize) -> f32 {
    if n_tokens <= MAX_WITH_TEXTS { WIDE } else { NARROW }
}

fn logit_lens(state: &AppState, report: &LensReport) -> Option<Sheet> {
    let tokens = token_texts(&state.view.as_ref()?.tokens);
    let (theme, n_layers) = (state.theme(), report.cells.len());
    let width = LEFT + tokens.len() as f32 * cell_width(tokens.len());
    let mut drawing = Drawing::new(theme, width, n_layers as f32 * CELL + FOOT);
    grid(&mut drawing, 0.0, n_layers, &tokens, &|layer, position| {
        let (cell, word) = (&report.cells[layer][position], token_text(&report.texts[layer][position]));
        let tip = format!(
            "after layer {layer}, position {position}: {word} {}; what comes next {}, rank {}",
            percent_text(cell.logprob.exp()),
            percent_text(cell.followed_logprob.exp()),
            cell.followed_rank + 1,
        );
        (heat(theme, cell.followed_logprob.exp()), short_text(&word, N_LETTERS), tip)
    });
    let own = "What the model would say if it stopped after each layer: the residual stream through the final norm and the \
               unembedding, edits in force. Shade: the probability of the token that does come next.";
    Some(sheet(state, ViewKind::Layers, "Logit lens", own, drawing).with_legend(Legend {
        scale: Scale::UpTo(1.0),
        name: "probability of what comes next".to_owned(),
        ends: ("0".to_owned(), "1".to_owned()),
    }))
}

/// The tokens of a pair of prompts, both where they differ.
pub fn pair_texts(report: &PatchReport) -> Vec<String> {
    let pairs = report.tokens.iter().zip(&report.corrupted_tokens);
    let text = |(clean, corrupted): (&String, &String)| match clean == corrupted {
        true => token_text(clean),
        false => format!("{}/{}", token_text(clean), token_text(corrupted)),
    };
    pairs.map(text).collect()
}

fn patching(state: &AppState, report: &PatchReport) -> Sheet {
    let tokens = pair_texts(report);
    let (theme, findings) = (state.theme(), &report.findings);
    let tables = [
        ("Residual stream entering the layer", &findings.resid_pre),
        ("Attention's output", &findings.attn_out),
        ("MLP's output", &findings.mlp_out),
    ];
    let tables = tables.into_iter().filter(|(_, table)| !table.is_empty());
    let width = LEFT + tokens.len() as f32 * cell_width(tokens.len());
    let mut drawing = Drawing::new(theme, width, 0.0);
    let mut top = 0.0;
    for (title, table) in tables {
        drawing.label(LEFT, top + 10.0, Anchor::Start, title);
        top = grid(&mut drawing, top + 18.0, table.len(), &tokens, &|layer, position| {
            let value = table[layer].get(position).copied().unwrap_or(f32::NAN);
            let tip = format!("{title}, layer {layer}, position {position}: {}", signed_text(value));
            let text = if value.abs() >= 0.05 { format!("{value:.1}") } else { String::new() };
            (signed(theme, value), text, tip)
        });
    }
    drawing.height = top;
    let own = "One activation of one run put into the other at one layer and position. Blue (1): as in the clean run; white (0): \
               as in the corrupted one; red: beyond it.";
    sheet(state, ViewKind::Layers, "Patching by layer and position", own, drawing).with_legend(Legend {
        scale: Scale::SignedUpTo(1.0),
        name: "recovered".to_owned(),
        ends: ("−1".to_owned(), "+1".to_owned()),
    })
}
