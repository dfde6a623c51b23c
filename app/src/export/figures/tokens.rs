//! Lists of tokens with bars: next tokens before and after the edits, and what a head writes.

use headlight_core::report::{TokenDirect, TokenLogit};

use super::bars::{Bar, BarList, GAP};
use super::sheet;
use crate::export::ViewKind;
use crate::export::svg::{Drawing, Sheet};
use crate::protocol::{Comparison, Reply};
use crate::state::lab::Experiment;
use crate::state::{AppState, N_NEXT_TOKENS};
use crate::view_model::{next_tokens as rows_of, signed_text, token_text};

/// The most probable next tokens, before and after the edits where there are any.
pub fn next_tokens(state: &AppState) -> Option<Sheet> {
    let view = state.view.as_ref()?;
    let lists = match &view.clean {
        Some(clean) => vec![("Before", clean), ("After", &view.run)],
        None => vec![("Probability", &view.run)],
    };
    let step = BarList::TOKENS.width + GAP;
    let width = lists.len() as f32 * step - GAP;
    let mut drawing = Drawing::new(state.theme(), width, BarList::height(N_NEXT_TOKENS));
    for (index, (title, run)) in lists.into_iter().enumerate() {
        let rows = rows_of(run, N_NEXT_TOKENS).into_iter();
        let bars: Vec<Bar> = rows.map(|row| Bar::of_share(row.text, row.percent, row.probability)).collect();
        BarList::TOKENS.draw(&mut drawing, (index as f32 * step, 0.0), title, &bars);
    }
    let own = match view.kl_nats {
        Some(kl) => format!("The next token before and after the edits; KL(before ‖ after) {kl:.4} nats."),
        None => "Probability of the next token.".to_owned(),
    };
    let own = format!("{own} {}", compared(&view.comparison, view.clean.is_some()));
    Some(sheet(state, ViewKind::NextTokens, "Next token", &own, drawing))
}

/// The two compared tokens, in a sentence.
fn compared(Comparison { clean, edited }: &Comparison, is_edited: bool) -> String {
    let difference = |[a, b]: &[TokenLogit; 2]| signed_text(a.logit - b.logit);
    let [a, b] = clean.each_ref().map(|token| token_text(&token.token));
    let after = if is_edited { format!(", after the edits {}", difference(edited)) } else { String::new() };
    format!("Logit of “{a}” minus that of “{b}”: {}{after}.", difference(clean))
}

/// What the shown head writes when it attends to the held token.
pub fn writes(state: &AppState) -> Option<Sheet> {
    let Reply::Ov(report) = state.found(Experiment::Ov)? else { return None };
    let row = |token: &TokenDirect| (token_text(&token.token), token.logit);
    // One scale for both lists.
    let bars = Bar::of_signed(report.raised.iter().chain(&report.lowered).map(row));
    let (raised, lowered) = bars.split_at(report.raised.len());
    let (list, step) = (BarList::TOKENS.signed(), BarList::TOKENS.width + GAP);
    let height = BarList::height(raised.len().max(lowered.len()));
    let mut drawing = Drawing::new(state.theme(), 2.0 * step - GAP, height);
    for (index, (title, bars)) in [("Raises", raised), ("Lowers", lowered)].into_iter().enumerate() {
        list.draw(&mut drawing, (index as f32 * step, 0.0), title, bars);
    }
    let source = state.view.as_ref()?.tokens.tokens.get(report.source_pos)?;
    let own = format!(
        "Logits that {} adds when it attends to position {} (“{}”) alone, the final norm's scale of the last position held \
         fixed. The source token itself: {} ({} tokens are raised more).",
        report.head,
        report.source_pos,
        token_text(source),
        signed_text(report.own.logit),
        report.own_rank,
    );
    Some(sheet(state, ViewKind::Writes, &format!("What {} writes", report.head), &own, drawing))
}
