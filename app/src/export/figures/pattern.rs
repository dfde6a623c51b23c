//! The shown head's attention pattern: query down, key across.

use headlight_core::report::PatternReport;

use super::sheet;
use crate::export::ViewKind;
use crate::export::svg::{Anchor, Drawing, Legend, Sheet};
use crate::state::AppState;
use crate::view_model::colour::{heat, label_ink, target_ink};
use crate::view_model::lens::Scale;
use crate::view_model::{short_text, token_texts};

/// Longer prompts have no token texts.
const MAX_LABELLED_TOKENS: usize = 72;
/// Letters of a token on an axis.
const LABEL_LETTERS: usize = 12;
/// Room for them.
const LABEL_ROOM: f32 = 84.0;
/// Longer prompts are drawn in this many shades, cells of one shade together, to keep the file small.
const MAX_SINGLE_CELLS: usize = 96;
const N_SHADES: f32 = 64.0;

/// The pattern of the view; `None` before there is one.
pub fn pattern(state: &AppState) -> Option<Sheet> {
    let view = state.view.as_ref()?;
    let pattern = view.pattern.as_ref()?;
    let (n, theme) = (pattern.pattern.len(), state.theme());
    let cell = (560.0 / n.max(1) as f32).clamp(2.0, 26.0);
    let is_labelled = n <= MAX_LABELLED_TOKENS;
    let room = if is_labelled { LABEL_ROOM } else { 24.0 };
    let extent = cell * n as f32;
    let mut drawing = Drawing::new(theme, room + extent, extent + room + 16.0);
    if n <= MAX_SINGLE_CELLS {
        cells(&mut drawing, pattern, room, cell);
    } else {
        shaded_runs(&mut drawing, pattern, room, cell);
    }
    let target = state.lens.target().filter(|_| cell >= 6.0);
    for (query, keys) in target.iter().flat_map(|target| target.keys(&pattern.ids).0.into_iter().enumerate())
    {
        for key in keys {
            let place = (room + key as f32 * cell + 0.5, query as f32 * cell + 0.5, cell - 1.0, cell - 1.0);
            drawing.frame(place, target_ink(theme), 1.0);
        }
    }
    if is_labelled {
        let size = cell.clamp(6.0, 11.0);
        for (position, text) in token_texts(&view.tokens).iter().enumerate() {
            let (text, middle) =
                (short_text(text, LABEL_LETTERS), (position as f32 + 0.5) * cell + size * 0.35);
            drawing.mono(room - 6.0, middle, size, Anchor::End, label_ink(theme), &text);
            drawing.upward(room + middle, extent + 6.0, size, &text);
        }
    }
    drawing.label(0.0, -4.0, Anchor::Start, "query ↓  key →");
    let own = "Attention weights; each row sums to 1. Your edits are in force.";
    let outlined = target.map_or_else(String::new, |target| {
        format!(" Outlined: the cells that the {} score reads.", target.name().replace('_', " "))
    });
    Some(
        sheet(
            state,
            ViewKind::Pattern,
            &format!("Attention pattern of {}", pattern.head),
            &format!("{own}{outlined}"),
            drawing,
        )
        .with_legend(Legend {
            scale: Scale::UpTo(1.0),
            name: "attention".to_owned(),
            ends: ("0".to_owned(), "1".to_owned()),
        }),
    )
}

fn cells(drawing: &mut Drawing, pattern: &PatternReport, room: f32, cell: f32) {
    for (query, row) in pattern.pattern.iter().enumerate() {
        for (key, &value) in row.iter().enumerate().take(query + 1) {
            let place = (room + key as f32 * cell, query as f32 * cell, cell, cell);
            let fill = heat(drawing.theme, value);
            drawing.cell(place, fill, &format!("query {query}, key {key}: {value:.4}"));
        }
    }
}

fn shaded_runs(drawing: &mut Drawing, pattern: &PatternReport, room: f32, cell: f32) {
    for (query, row) in pattern.pattern.iter().enumerate() {
        let shades: Vec<f32> = row.iter().take(query + 1).map(|value| (value * N_SHADES).round()).collect();
        let mut first = 0;
        while first < shades.len() {
            let n_alike = shades[first..].iter().take_while(|&&shade| shade == shades[first]).count();
            let place = (room + first as f32 * cell, query as f32 * cell, n_alike as f32 * cell, cell);
            drawing.block(place, heat(drawing.theme, shades[first] / N_SHADES));
            first += n_alike;
        }
    }
}
