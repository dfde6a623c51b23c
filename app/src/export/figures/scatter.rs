//! Score against effect: one dot a head.

use super::sheet;
use crate::export::ViewKind;
use crate::export::provenance::definition;
use crate::export::svg::{Anchor, Drawing, Sheet};
use crate::state::AppState;
use crate::view_model::colour::{ink, label_ink, target_ink};
use crate::view_model::lens::Lens;
use crate::view_model::signed_text;

const WIDTH: f32 = 640.0;
const HEIGHT: f32 = 360.0;
/// Room for the axes' texts.
const MARGIN: f32 = 40.0;
/// Heads whose names stand beside their dots: those of the largest effects.
const N_NAMED: usize = 5;

/// The plot with this lens on the x axis; `None` before the sweep is done.
pub fn scatter(state: &AppState, lens: Lens) -> Option<Sheet> {
    let plot = state.scatter(lens)?;
    let theme = state.theme();
    let x = |along: f32| MARGIN + along * (WIDTH - 2.0 * MARGIN);
    let y = |along: f32| HEIGHT - MARGIN - along * (HEIGHT - 2.0 * MARGIN);
    let (low, high) = plot.effects;
    let zero = y(if high > low { -low / (high - low) } else { 0.5 });
    let mut drawing = Drawing::new(theme, WIDTH, HEIGHT);
    let axis = label_ink(theme);
    drawing.line((MARGIN, zero), (WIDTH - MARGIN, zero), axis, 1.0);
    drawing.line((MARGIN, MARGIN - 16.0), (MARGIN, HEIGHT - MARGIN), axis, 1.0);
    let label = state.lens_label(lens);
    drawing.label(MARGIN, HEIGHT - 10.0, Anchor::Start, &format!("{:.2}", plot.scores.0));
    drawing.label(WIDTH - MARGIN, HEIGHT - 10.0, Anchor::End, &format!("{:.2}", plot.scores.1));
    drawing.label(WIDTH / 2.0, HEIGHT - 10.0, Anchor::Middle, &label);
    drawing.label(MARGIN + 6.0, MARGIN - 10.0, Anchor::Start, &format!("effect {}", signed_text(high)));
    drawing.label(MARGIN + 6.0, HEIGHT - MARGIN + 12.0, Anchor::Start, &signed_text(low));
    let mut by_effect = plot.dots.clone();
    by_effect.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    for (rank, dot) in by_effect.iter().enumerate() {
        let place = (x(dot.x), y(dot.y));
        let tip = format!("{}: score {:.4}, effect {}", dot.head, dot.score, signed_text(dot.effect));
        let is_held = state.selected == Some(dot.head);
        drawing.dot(
            place,
            if is_held { 6.0 } else { 3.5 },
            if is_held { ink(theme) } else { target_ink(theme) },
            &tip,
        );
        if rank < N_NAMED || is_held {
            let (at, anchor) = match dot.x > 0.85 {
                true => (place.0 - 7.0, Anchor::End),
                false => (place.0 + 7.0, Anchor::Start),
            };
            drawing.label(at, place.1 + 4.0, anchor, &dot.head.to_string());
        }
    }
    let own = format!(
        "One dot a head; named are the largest effects. Rank correlation of the score with the effect's size: {:.2} over {} \
         heads. Score: {} {}",
        plot.rank_correlation,
        plot.dots.len(),
        definition(state, lens),
        definition(state, Lens::Sweep),
    );
    Some(sheet(state, ViewKind::Scatter(lens), &format!("{label} against effect"), &own, drawing))
}
