//! The shown head on this prompt: its scores, and where it looks from one token.

use super::bars::{Bar, BarList};
use super::flow::{Boxed, WIDTH, flow};
use super::sheet;
use crate::export::ViewKind;
use crate::export::svg::{Drawing, Legend, Sheet};
use crate::export::tables::read_query;
use crate::state::AppState;
use crate::view_model::chips;
use crate::view_model::colour::heat;
use crate::view_model::lens::Scale;
use crate::view_model::measure::Measure;

/// The head's five readings with their ranks.
pub fn head_scores(state: &AppState) -> Option<Sheet> {
    let (head, view) = (state.shown_head()?, state.view.as_ref()?);
    let bars = Measure::all().map(|measure| match measure.reading(&view.scores, head) {
        Some((score, rank)) => Bar::of_share(measure.name(), format!("{score:.2}, rank {rank}"), score),
        None => Bar::of_share(measure.name(), "none".to_owned(), 0.0),
    });
    let mut drawing = Drawing::new(state.theme(), BarList::WIDE.width, BarList::height(bars.len()));
    BarList::WIDE.draw(&mut drawing, (0.0, 0.0), "Score, 0 to 1", &bars);
    let n_heads = state.model.as_ref().map_or(0, |model| model.info.n_layers * model.info.n_heads);
    let docs = Measure::all().map(|measure| format!("{}: {}", measure.label(), measure.doc().score));
    let own = format!(
        "Scores of {head} on this prompt, its rank among {n_heads} heads; none: no token of the prompt to measure it on. {}",
        docs.join(" ")
    );
    Some(sheet(state, ViewKind::HeadScores, &format!("Scores of {head}"), &own, drawing))
}

/// The prompt's tokens, shaded by how strongly one of them attends to each.
pub fn attention_from(state: &AppState) -> Option<Sheet> {
    let (view, query) = (state.view.as_ref()?, read_query(state)?);
    let pattern = view.pattern.as_ref()?;
    let row = pattern.pattern.get(query)?;
    let mut drawing = Drawing::new(state.theme(), WIDTH, 0.0);
    let theme = drawing.theme;
    let all = chips(&view.tokens);
    let of = all.get(query)?.text.clone();
    let boxed = all.into_iter().zip(row).map(|(chip, &value)| {
        let key = chip.position;
        let is_read = key <= query;
        let told = if is_read { format!("attention {value:.4}") } else { "later than the query".to_owned() };
        Boxed {
            fill: is_read.then(|| heat(theme, value)),
            is_framed: key == query,
            ends_line: chip.ends_line,
            ..Boxed::plain(chip.text, format!("position {key}: {told}"))
        }
    });
    drawing.height = flow(&mut drawing, 0.0, boxed);
    let own = format!(
        "How strongly {} attends to each token from position {query} (“{of}”, framed); the weights sum to 1, and later tokens are \
         not seen. Your edits are in force.",
        pattern.head
    );
    let title = format!("Where {} looks from position {query}", pattern.head);
    Some(sheet(state, ViewKind::AttentionFrom, &title, &own, drawing).with_legend(Legend {
        scale: Scale::UpTo(1.0),
        name: "attention".to_owned(),
        ends: ("0".to_owned(), "1".to_owned()),
    }))
}
