//! What stands behind a detector's scores: losses, classes, recall by depth and length; and of retrieval the text with where
//! the head looked, and what switching heads off did.

use headlight_core::report::DetectReport;

use super::bars::{Bar, BarList, GAP};
use super::flow::{Boxed, WIDTH, flow};
use super::sheet;
use crate::export::ViewKind;
use crate::export::svg::{Anchor, Drawing, Legend, Sheet};
use crate::state::AppState;
use crate::view_model::colour::{Theme, heat};
use crate::view_model::evidence::{ClassEvidence, CopyLosses, classes, copy_losses};
use crate::view_model::lens::Scale;
use crate::view_model::retrieval::{Causal, PromptEvidence, RecallGrid, RetrievalEvidence};
use crate::view_model::token_text;

/// A cell of the grid of recall, and the room for its depths.
const CELL: (f32, f32) = (58.0, 26.0);
const LEFT: f32 = 64.0;
/// A list of rates, three of which stand side by side.
const RATES: BarList = BarList { width: 300.0, label: 104.0, numbers: 84.0, is_signed: false };
/// Shade of the answer in the text.
const ANSWER: f32 = 0.3;

/// What stands behind the scores of the map's detector, where it has something to show.
pub fn evidence(state: &AppState) -> Option<Sheet> {
    let report = state.lens_report()?;
    let theme = state.theme();
    let (what, own, drawing, legend) = if let Some(classes) = classes(report) {
        let own = format!(
            "What {} raises most when it reads each item of a class. Filled: the successor is among it.",
            report.best.head
        );
        ("each class", own, class_lists(theme, &classes), None)
    } else if let Some(losses) = copy_losses(report) {
        let own =
            "Mean loss of the model on the two copies of the repeated sequences, nats a token.".to_owned();
        ("the two copies", own, loss_bars(theme, losses), None)
    } else {
        let evidence = RetrievalEvidence::of(report)?;
        let grid = evidence.recall_grid();
        let (by, drawing, legend) = match &grid {
            Some(grid) => ("length and depth", recall_cells(theme, grid), Some(recall_legend())),
            None => ("prompt", recall_bars(theme, &evidence.prompts), None),
        };
        let own =
            format!("Share of the answer's tokens that were generated, by {by}. {}.", evidence.summary());
        ("what was found again", own, drawing, legend)
    };
    let title = format!("{}: {what}", state.lens_label(state.lens));
    let own = format!("{own} {}", stimulus(report));
    let sheet = sheet(state, ViewKind::Evidence, &title, &own, drawing);
    Some(match legend {
        Some(legend) => sheet.with_legend(legend),
        None => sheet,
    })
}

fn stimulus(report: &DetectReport) -> String {
    format!("Stimulus: {}.", report.stimulus)
}

fn loss_bars(theme: Theme, losses: CopyLosses) -> Drawing {
    let rows = [("first copy", losses.first_nats), ("second copy", losses.second_nats)];
    let bars = Bar::of_sizes(rows.map(|(label, nats)| (label.to_owned(), nats)));
    let mut drawing = Drawing::new(theme, BarList::WIDE.width, BarList::height(bars.len()));
    BarList::WIDE.draw(&mut drawing, (0.0, 0.0), "Loss, nats a token", &bars);
    drawing
}

/// Three lists of rates, and below them what was raised for each item.
fn class_lists(theme: Theme, classes: &[ClassEvidence]) -> Drawing {
    type Rate = fn(&ClassEvidence) -> f32;
    let rates: [(&str, Rate); 3] = [
        ("Successor", |class| class.score),
        ("Same item", |class| class.copy_rate),
        ("Predecessor", |class| class.predecessor_rate),
    ];
    let step = RATES.width + GAP;
    let mut drawing = Drawing::new(theme, 3.0 * step - GAP, 0.0);
    let mut top = 0.0_f32;
    for (index, (title, rate)) in rates.into_iter().enumerate() {
        let bar = |class: &ClassEvidence| {
            let number = format!("{:.2} of {}", rate(class), class.n);
            Bar::of_share(class.class.clone(), number, rate(class))
        };
        let bars: Vec<Bar> = classes.iter().map(bar).collect();
        let end = RATES.draw(&mut drawing, (index as f32 * step, 0.0), title, &bars);
        top = top.max(end);
    }
    for class in classes {
        drawing.label(0.0, top + 14.0, Anchor::Start, &class.class);
        let pairs = class.rows.iter().map(|pair| {
            let text = format!("{}→{}", token_text(&pair.from), token_text(&pair.argmax));
            let tip = format!("{text}{}", if pair.hit { ", the successor" } else { "" });
            Boxed { fill: pair.hit.then(|| heat(theme, 0.45)), ..Boxed::plain(text, tip) }
        });
        top = flow(&mut drawing, top + 20.0, pairs);
    }
    drawing.height = top;
    drawing
}

fn recall_legend() -> Legend {
    Legend {
        scale: Scale::UpTo(1.0),
        name: "share of the answer".to_owned(),
        ends: ("0".to_owned(), "1".to_owned()),
    }
}

/// Depths down, lengths across.
fn recall_cells(theme: Theme, grid: &RecallGrid) -> Drawing {
    let (w, h) = CELL;
    let bottom = grid.depths.len() as f32 * h;
    let mut drawing = Drawing::new(theme, LEFT + grid.lengths.len() as f32 * w, bottom + 40.0);
    for (row, (depth, recall)) in grid.depths.iter().zip(&grid.recall).enumerate() {
        let y = row as f32 * h;
        drawing.label(LEFT - 8.0, y + 17.0, Anchor::End, &format!("{depth} %"));
        for (column, (length, recall)) in grid.lengths.iter().zip(recall).enumerate() {
            let Some(recall) = *recall else { continue };
            let (x, fill) = (LEFT + column as f32 * w, heat(theme, recall));
            let tip = format!("{depth} % deep in {length} tokens: {recall:.3}");
            drawing.cell((x, y, w - 2.0, h - 2.0), fill, &tip);
            drawing.mono(
                x + w / 2.0 - 1.0,
                y + 16.0,
                11.0,
                Anchor::Middle,
                fill.ink(),
                &format!("{recall:.2}"),
            );
        }
    }
    for (column, length) in grid.lengths.iter().enumerate() {
        let x = LEFT + (column as f32 + 0.5) * w;
        drawing.label(x, bottom + 14.0, Anchor::Middle, &length.to_string());
    }
    drawing.label(0.0, bottom + 14.0, Anchor::Start, "depth");
    let middle = LEFT + grid.lengths.len() as f32 * w / 2.0;
    drawing.label(middle, bottom + 32.0, Anchor::Middle, "length, tokens");
    drawing
}

fn recall_bars(theme: Theme, prompts: &[PromptEvidence]) -> Drawing {
    let bar = |prompt: &PromptEvidence| {
        Bar::of_share(prompt.title(), format!("{:.2}", prompt.recall), prompt.recall)
    };
    let bars: Vec<Bar> = prompts.iter().map(bar).collect();
    let mut drawing = Drawing::new(theme, BarList::WIDE.width, BarList::height(bars.len()));
    BarList::WIDE.draw(&mut drawing, (0.0, 0.0), "Recall", &bars);
    drawing
}

/// A prompt of retrieval with its answer marked, and what was generated with where the shown head looked.
pub fn retrieval_text(state: &AppState, prompt_idx: usize) -> Option<Sheet> {
    let evidence = RetrievalEvidence::of(state.lens_report()?)?;
    let prompt = evidence.prompts.get(prompt_idx)?;
    let head = state.shown_head();
    let looks = head.and_then(|head| evidence.looks(prompt_idx, head));
    let theme = state.theme();
    let mut drawing = Drawing::new(theme, WIDTH, 0.0);
    let is_looked_at = |position| looks.iter().flatten().any(|look| look.key == position);
    let text = prompt.tokens.iter().enumerate().map(|(position, token)| Boxed {
        fill: prompt.span().contains(&position).then(|| heat(theme, ANSWER)),
        is_framed: is_looked_at(position),
        ends_line: token.ends_with('\n'),
        ..Boxed::plain(token_text(token), format!("position {position}"))
    });
    let top = flow(&mut drawing, 0.0, text);
    drawing.label(0.0, top + 22.0, Anchor::Start, "Generated ← looked at");
    let generated = prompt.generated_tokens.iter().enumerate().map(|(index, token)| {
        let look = looks.as_ref().and_then(|looks| looks.get(index));
        let token = token_text(token);
        match look {
            Some(look) => Boxed {
                fill: look.is_copy.then(|| heat(theme, 0.45)),
                ..Boxed::plain(
                    format!("{token} ← {}", look.key_text),
                    format!("looking at position {}{}", look.key, if look.is_copy { ", a copy" } else { "" }),
                )
            },
            None => Boxed::plain(token, "generated".to_owned()),
        }
    });
    drawing.height = flow(&mut drawing, top + 30.0, generated);
    let looked = match (head, &looks) {
        (Some(head), Some(_)) => {
            format!("Framed: where {head} looked while the answer was written; filled below: a copy.")
        }
        (Some(head), None) => format!("{head} copied nothing from any needle."),
        _ => String::new(),
    };
    let own = format!("Filled: the answer as it stands in the text. {looked} Recall {:.2}.", prompt.recall);
    let title = format!("Retrieval: {}", prompt.title());
    Some(sheet(state, ViewKind::RetrievalText(prompt_idx), &title, &own, drawing))
}

/// What the right answer loses without the strongest heads, beside random ones.
pub fn retrieval_causal(state: &AppState) -> Option<Sheet> {
    let evidence = RetrievalEvidence::of(state.lens_report()?)?;
    let Causal::Measured { sentence, edits } = evidence.causal()? else { return None };
    let rows = edits.iter().flat_map(|edit| {
        [("strongest heads", edit.top_drop_nats), ("random heads", edit.random_drop_nats)]
            .map(|(heads, drop)| (format!("{}, {heads}", edit.edit), drop))
    });
    let mut bars = Bar::of_signed(rows);
    for (bar, number) in bars.iter_mut().zip(edits.iter().flat_map(|edit| edit.drops())) {
        bar.number = number;
    }
    let mut drawing = Drawing::new(state.theme(), BarList::WIDE.width, BarList::height(bars.len()));
    BarList::WIDE.signed().draw(&mut drawing, (0.0, 0.0), "Drop of log-probability, nats a token", &bars);
    let own = format!("{sentence} Random: mean ± standard deviation over draws.");
    Some(sheet(state, ViewKind::RetrievalCausal, "Retrieval: without the strongest heads", &own, drawing))
}
