//! Effects along the prompt: at each position the KL of what comes next, and the change of the token's own loss.

use super::sheet;
use crate::export::ViewKind;
use crate::export::svg::{Anchor, Drawing, Legend, Sheet};
use crate::protocol::Reply;
use crate::state::AppState;
use crate::state::lab::Experiment;
use crate::view_model::colour::{heat, ink, signed};
use crate::view_model::lens::Scale;
use crate::view_model::{short_text, signed_text, token_texts};

/// Positions in a line.
const PER_LINE: usize = 14;
/// Room of a position.
const WIDTH: f32 = 58.0;
/// Height of the tallest bar.
const BAR: f32 = 56.0;
/// Room of a line.
const LINE: f32 = BAR + 56.0;
/// Letters of a token.
const N_LETTERS: usize = 7;
/// Change of loss at full colour, nats; as on the page.
const FULL_NATS: f32 = 2.0;

/// The plot; `None` while nothing is edited or not yet known.
pub fn along(state: &AppState) -> Option<Sheet> {
    let Reply::Effect(report) = state.found(Experiment::Effect)? else { return None };
    let texts = token_texts(&state.view.as_ref()?.tokens);
    let theme = state.theme();
    let n_lines = texts.len().div_ceil(PER_LINE);
    let width = WIDTH * texts.len().min(PER_LINE) as f32;
    let mut drawing = Drawing::new(theme, width, LINE * n_lines as f32);
    let most = report.kl_nats.iter().copied().fold(1e-6, f32::max);
    for (position, (text, &kl)) in texts.iter().zip(&report.kl_nats).enumerate() {
        let x = (position % PER_LINE) as f32 * WIDTH;
        let top = (position / PER_LINE) as f32 * LINE;
        // The first token is foretold by nothing.
        let change = position.checked_sub(1).and_then(|before| {
            Some(report.edited_nll_nats.get(before)? - report.clean_nll_nats.get(before)?)
        });
        let height = kl / most * BAR;
        let loss = change.map_or_else(String::new, |change| format!(", loss {}", signed_text(change)));
        let tip = format!("position {position}: KL {kl:.4} nats{loss}");
        drawing.cell((x + 20.0, top + BAR - height, 14.0, height.max(0.5)), heat(theme, 0.7), &tip);
        let shade = signed(theme, -change.unwrap_or(0.0) / FULL_NATS);
        drawing.cell((x + 1.0, top + BAR + 2.0, WIDTH - 4.0, 18.0), shade, &tip);
        let middle = x + WIDTH / 2.0 - 1.0;
        drawing.mono(
            middle,
            top + BAR + 15.0,
            10.5,
            Anchor::Middle,
            shade.ink(),
            &short_text(text, N_LETTERS),
        );
        drawing.mono(middle, top + BAR + 33.0, 9.5, Anchor::Middle, ink(theme), &format!("{kl:.2}"));
    }
    let own = "Bars and numbers: KL(before ‖ after) of what comes next, nats. Shade of a token: change of its own loss, red where \
               it became harder to foretell.";
    Some(sheet(state, ViewKind::Along, "Along the prompt", own, drawing).with_legend(Legend {
        scale: Scale::SignedUpTo(1.0),
        name: "token easier to foretell (nats)".to_owned(),
        ends: (signed_text(-FULL_NATS), signed_text(FULL_NATS)),
    }))
}
