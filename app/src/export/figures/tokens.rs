//! Lists of tokens with bars: next tokens before and after the edits, and what a head writes.

use headlight_core::report::TokenDirect;

use crate::export::ViewKind;
use crate::export::provenance::{caption, provenance};
use crate::export::svg::{Anchor, Drawing, Sheet};
use crate::protocol::Reply;
use crate::state::lab::Experiment;
use crate::state::{AppState, N_NEXT_TOKENS};
use crate::view_model::colour::{heat, ink, signed};
use crate::view_model::{next_tokens as rows_of, short_text, signed_text, token_text};

/// A list's width.
const WIDTH: f32 = 300.0;
/// Between lists.
const GAP: f32 = 28.0;
/// A row's height.
const ROW: f32 = 22.0;
/// Room for a token.
const TOKEN: f32 = 116.0;
/// Letters of a token.
const N_LETTERS: usize = 15;
/// Room for the numbers.
const NUMBERS: f32 = 64.0;

/// A row: token, number, bar from 0 to 1, and whether the number is below 0.
type Row = (String, String, f32, bool);

fn list(drawing: &mut Drawing, x: f32, title: &str, rows: &[Row], is_signed: bool) {
    let theme = drawing.theme;
    drawing.label(x, 10.0, Anchor::Start, title);
    for (index, (token, number, share, is_below)) in rows.iter().enumerate() {
        let y = 18.0 + index as f32 * ROW;
        let fill = match (is_signed, is_below) {
            (false, _) => heat(theme, 0.45),
            (true, true) => signed(theme, -0.7),
            (true, false) => signed(theme, 0.7),
        };
        let bar = (WIDTH - TOKEN - NUMBERS) * share.clamp(0.0, 1.0);
        drawing.cell((x + TOKEN, y + 3.0, bar.max(0.5), ROW - 8.0), fill, &format!("{token} {number}"));
        drawing.mono(x, y + 14.0, 12.0, Anchor::Start, ink(theme), &short_text(token, N_LETTERS));
        drawing.mono(x + WIDTH, y + 14.0, 11.0, Anchor::End, ink(theme), number);
    }
}

fn height(n_rows: usize) -> f32 {
    24.0 + n_rows as f32 * ROW
}

/// The most probable next tokens, before and after the edits where there are any.
pub fn next_tokens(state: &AppState) -> Option<Sheet> {
    let view = state.view.as_ref()?;
    let lists = match &view.clean {
        Some(clean) => vec![("Before", clean), ("After", &view.run)],
        None => vec![("Probability", &view.run)],
    };
    let width = lists.len() as f32 * (WIDTH + GAP) - GAP;
    let mut drawing = Drawing::new(state.theme(), width, height(N_NEXT_TOKENS));
    for (index, (title, run)) in lists.into_iter().enumerate() {
        let rows = rows_of(run, N_NEXT_TOKENS).into_iter();
        let rows: Vec<Row> = rows.map(|row| (row.text, row.percent, row.probability, false)).collect();
        list(&mut drawing, index as f32 * (WIDTH + GAP), title, &rows, false);
    }
    let own = match view.kl_nats {
        Some(kl) => format!("The next token before and after the edits; KL(before ‖ after) {kl:.4} nats."),
        None => "Probability of the next token.".to_owned(),
    };
    Some(Sheet {
        title: "Next token".to_owned(),
        legend: None,
        caption: caption(state, own),
        provenance: provenance(state, ViewKind::NextTokens),
        drawing,
    })
}

/// What the shown head writes when it attends to the held token.
pub fn writes(state: &AppState) -> Option<Sheet> {
    let Reply::Ov(report) = state.found(Experiment::Ov)? else { return None };
    let all = || report.raised.iter().chain(&report.lowered);
    let most = all().fold(1e-6, |most: f32, token| most.max(token.logit.abs()));
    let row = |token: &TokenDirect| {
        (token_text(&token.token), signed_text(token.logit), token.logit.abs() / most, token.logit < 0.0)
    };
    let n_rows = report.raised.len().max(report.lowered.len());
    let mut drawing = Drawing::new(state.theme(), 2.0 * WIDTH + GAP, height(n_rows));
    for (index, (title, tokens)) in
        [("Raises", &report.raised), ("Lowers", &report.lowered)].into_iter().enumerate()
    {
        let rows: Vec<Row> = tokens.iter().map(row).collect();
        list(&mut drawing, index as f32 * (WIDTH + GAP), title, &rows, true);
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
    Some(Sheet {
        title: format!("What {} writes", report.head),
        legend: None,
        caption: caption(state, own),
        provenance: provenance(state, ViewKind::Writes),
        drawing,
    })
}
