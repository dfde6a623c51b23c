//! The head map: one cell a head, layer 0 at the bottom, MLPs beside where the lens has numbers for them.

use headlight_core::ids::HeadId;

use super::sheet;
use crate::export::ViewKind;
use crate::export::provenance::definition;
use crate::export::svg::{Anchor, Drawing, Legend, Sheet};
use crate::state::AppState;
use crate::state::edits::EditMark;
use crate::view_model::colour::{ink, shade, target_ink};
use crate::view_model::measure::score_of;
use crate::view_model::{cell_label, signed_text};

/// Room for the layers' numbers.
const LEFT: f32 = 44.0;
/// Between cells.
const GAP: f32 = 2.0;
/// Models with at most this many layers have numbers in their cells, as on the page.
const MAX_LAYERS_WITH_NUMBERS: usize = 8;

/// The map as the lens shows it now; `None` before a model is there.
pub fn head_map(state: &AppState) -> Option<Sheet> {
    let info = &state.model.as_ref()?.info;
    let (n_layers, n_heads) = (info.n_layers, info.n_heads);
    let scores = state.exact_lens_scores()?;
    let scale = state.lens.scale(Some(&scores));
    let name = state.lens_name(state.lens);
    let mlps = state.experiment_scores().map(|(_, mlps)| mlps).unwrap_or_default();
    let has_numbers = n_layers <= MAX_LAYERS_WITH_NUMBERS;
    let w = if n_heads <= 12 { 52.0 } else { 30.0 };
    let h = (520.0 / n_layers.max(1) as f32).clamp(16.0, 40.0);
    let (theme, columns) = (state.theme(), n_heads + usize::from(!mlps.is_empty()));
    let rows_height = n_layers as f32 * h;
    let mut drawing = Drawing::new(theme, LEFT + columns as f32 * w, rows_height + 56.0);
    let x_of = |head: usize| LEFT + head as f32 * w;
    for layer in 0..n_layers {
        let y = rows_height - (layer + 1) as f32 * h;
        let middle = y + (h - GAP) / 2.0 + 4.0;
        drawing.label(LEFT - 8.0, middle, Anchor::End, &layer.to_string());
        for head in 0..n_heads {
            let id = HeadId::new(layer, head);
            let (score, mark) = (score_of(&scores, id), state.edits.mark(id));
            let (x, fill) = (x_of(head), shade(theme, scale, score.unwrap_or(0.0)));
            let size = (x, y, w - GAP, h - GAP);
            drawing.cell(size, fill, &cell_label(id, &name, score, mark));
            if let Some(score) = score.filter(|_| has_numbers) {
                let middle_x = x + (w - GAP) / 2.0;
                drawing.mono(middle_x, middle, 11.0, Anchor::Middle, fill.ink(), &format!("{score:.2}"));
            }
            match mark {
                Some(EditMark::Off) => {
                    let (right, bottom) = (x + w - GAP, y + h - GAP);
                    drawing.line((x, y), (right, bottom), fill.ink(), 1.5);
                    drawing.line((x, bottom), (right, y), fill.ink(), 1.5);
                }
                Some(EditMark::Edited) => {
                    drawing.dot((x + w - GAP - 6.0, y + 6.0), 3.0, target_ink(theme), "edited")
                }
                None => {}
            }
            if state.selected == Some(id) {
                drawing.frame((x - 1.0, y - 1.0, w, h), ink(theme), 2.5);
            }
        }
        if let Some(&value) = mlps.get(layer) {
            let fill = shade(theme, scale, value);
            let tip = format!("MLP {layer}, {name} {}", signed_text(value));
            drawing.cell((x_of(n_heads) + 6.0, y, w - GAP - 6.0, h - GAP), fill, &tip);
        }
    }
    for head in 0..n_heads {
        drawing.label(x_of(head) + w / 2.0, rows_height + 14.0, Anchor::Middle, &head.to_string());
    }
    if !mlps.is_empty() {
        drawing.label(x_of(n_heads) + w / 2.0, rows_height + 14.0, Anchor::Middle, "MLP");
    }
    drawing.label(x_of(0) + n_heads as f32 * w / 2.0, rows_height + 34.0, Anchor::Middle, "head");
    drawing.label(0.0, rows_height + 14.0, Anchor::Start, "layer");
    let mut marks = Vec::new();
    let has =
        |wanted: EditMark| state.edits.heads().iter().any(|&head| state.edits.mark(head) == Some(wanted));
    if has(EditMark::Off) {
        marks.push("crossed out: switched off".to_owned());
    }
    if has(EditMark::Edited) {
        marks.push("dot: edited".to_owned());
    }
    marks.extend(state.selected.map(|head| format!("framed: {head}")));
    drawing.label(LEFT, rows_height + 50.0, Anchor::Start, &marks.join(" · "));
    let label = state.lens_label(state.lens);
    Some(
        sheet(
            state,
            ViewKind::HeadMap,
            &format!("Attention heads: {label}"),
            &definition(state, state.lens),
            drawing,
        )
        .with_legend(Legend { scale, name: label, ends: state.lens.ends(scale) }),
    )
}
