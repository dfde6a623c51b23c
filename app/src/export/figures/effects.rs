//! What edits do, beside what it must be compared with: the direct effect, random heads, the heads of a set one by one.

use headlight_core::report::{ControlsReport, TokenLogit};

use super::bars::{Bar, BarList};
use super::sheet;
use crate::export::ViewKind;
use crate::export::provenance::definition;
use crate::export::svg::{Anchor, Drawing, Sheet};
use crate::protocol::Reply;
use crate::state::AppState;
use crate::state::lab::Experiment;
use crate::view_model::colour::{ink, label_ink, target_ink};
use crate::view_model::lens::Lens;
use crate::view_model::{signed_text, token_text};

/// Width and height of the strip of random draws.
const STRIP: (f32, f32) = (560.0, 96.0);
/// Where its axis lies.
const AXIS: f32 = 56.0;

/// The whole effect of the edits beside what they do directly.
pub fn direct_effect(state: &AppState) -> Option<Sheet> {
    let Reply::Effect(report) = state.found(Experiment::Effect)? else { return None };
    let total_kl = *report.kl_nats.last()?;
    let direct_kl = report.direct_kl_nats?;
    let mut drawing = Drawing::new(state.theme(), BarList::WIDE.width, 0.0);
    let kl = [("KL, in all".to_owned(), total_kl), ("KL, directly".to_owned(), direct_kl)];
    let top = BarList::WIDE.draw(
        &mut drawing,
        (0.0, 0.0),
        "KL(before ‖ after) of the next token, nats",
        &Bar::of_sizes(kl),
    );
    let of_token = |(clean, (total, direct)): (&TokenLogit, (&TokenLogit, &TokenLogit))| {
        let token = token_text(&clean.token);
        let changes = [("in all", total), ("directly", direct)];
        changes.map(|(how, after)| (format!("{token}, {how}"), after.logprob - clean.logprob))
    };
    let after = report.edited_top.iter().zip(&report.direct_top);
    let rows = report.clean_top.iter().zip(after).flat_map(of_token);
    let title = "Change of the log-probability of the most probable tokens, nats";
    let list = BarList::WIDE.signed();
    drawing.height = list.draw(&mut drawing, (0.0, top + 10.0), title, &Bar::of_signed(rows));
    let own = "Directly: everything after the edits stays as in the clean run. Where that is more than the whole effect, later \
               layers made up for the edit; where it is less, the edit acts through them.";
    Some(sheet(state, ViewKind::DirectEffect, "Direct and whole effect", own, drawing))
}

/// The effect of the edited heads among those of random ones.
pub fn controls(state: &AppState) -> Option<Sheet> {
    let Reply::Controls(report) = state.found(Experiment::Controls)? else { return None };
    let found = &report.findings;
    let own = format!(
        "Change of the log-probability of the followed token, nats. Large: the edited heads, {}. Small: {} draws of as many random \
         heads of the same layers out of {} others, the edited ones excluded; line: their mean ± standard deviation, {} ± {:.2}.",
        signed_text(found.effect),
        found.random_effects.len(),
        found.n_others,
        signed_text(found.random_mean),
        found.random_sd,
    );
    let drawing = strip(state, report);
    Some(sheet(state, ViewKind::Controls, "Edited heads against random ones", &own, drawing))
}

fn strip(state: &AppState, report: &ControlsReport) -> Drawing {
    let (found, theme) = (&report.findings, state.theme());
    let ends = [found.effect, 0.0, found.random_mean - found.random_sd, found.random_mean + found.random_sd];
    let all = || found.random_effects.iter().copied().chain(ends).filter(|value| value.is_finite());
    let (low, high) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
    let x = |value: f32| {
        let along = if high > low { (value - low) / (high - low) } else { 0.5 };
        10.0 + along * (STRIP.0 - 20.0)
    };
    let mut drawing = Drawing::new(theme, STRIP.0, STRIP.1);
    drawing.line((0.0, AXIS), (STRIP.0, AXIS), label_ink(theme), 1.0);
    drawing.line((x(0.0), AXIS - 6.0), (x(0.0), AXIS + 6.0), label_ink(theme), 1.0);
    for (value, anchor) in [(low, Anchor::Start), (high, Anchor::End)] {
        drawing.label(x(value), AXIS + 24.0, anchor, &signed_text(value));
    }
    // No sign at the point that has none, and no second number where an end is 0.
    if low < 0.0 && high > 0.0 {
        drawing.label(x(0.0), AXIS + 24.0, Anchor::Middle, "0");
    }
    let mean = AXIS - 22.0;
    drawing.line(
        (x(found.random_mean - found.random_sd), mean),
        (x(found.random_mean + found.random_sd), mean),
        target_ink(theme),
        2.0,
    );
    let middle = x(found.random_mean);
    drawing.line((middle, mean - 5.0), (middle, mean + 5.0), target_ink(theme), 2.0);
    for (effect, heads) in found.random_effects.iter().zip(&found.draws) {
        let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
        let tip = format!("random {}: {}", heads.join(", "), signed_text(*effect));
        drawing.dot((x(*effect), AXIS), 3.5, target_ink(theme), &tip);
    }
    drawing.dot(
        (x(found.effect), AXIS),
        6.5,
        ink(theme),
        &format!("edited heads: {}", signed_text(found.effect)),
    );
    drawing
}

/// Each named set edited as a whole, beside the sum of its heads one by one.
pub fn set_effects(state: &AppState) -> Option<Sheet> {
    let rows = state.set_effects()?.into_iter().flat_map(|effect| {
        let (name, n_heads) = (effect.set.name, effect.set.heads.len());
        let together = Some((format!("together: {name} ({n_heads})"), effect.together));
        let one_by_one = effect.one_by_one.map(|sum| (format!("one by one: {name}"), sum));
        together.into_iter().chain(one_by_one)
    });
    let bars = Bar::of_signed(rows);
    let mut drawing = Drawing::new(state.theme(), BarList::WIDE.width, BarList::height(bars.len()));
    BarList::WIDE.signed().draw(&mut drawing, (0.0, 0.0), "Set (heads in it)", &bars);
    let own = format!(
        "Each set's heads edited together, beside the sum of the effects of its heads one by one, where every head was swept. {}",
        definition(state, Lens::Sweep)
    );
    Some(sheet(state, ViewKind::SetEffects, "Sets of heads edited as a whole", &own, drawing))
}
