//! Each view as JSON: the report that the command line prints, with what the page knows beside it under `view`.

use serde::Serialize;
use serde_json::{Value, json};

use super::provenance::provenance;
use super::table::Table;
use super::{ViewKind, tables};
use crate::protocol::Reply;
use crate::state::AppState;
use crate::state::detection::DetectionStage;
use crate::state::lab::Experiment;
use crate::view_model::lens::Lens;

/// A report's JSON with more fields behind its own. Spliced as text, because [`Value`] would widen every f32.
fn with<R: Serialize + ?Sized>(report: &R, more: &[(&str, String)]) -> Option<String> {
    let mut json = serde_json::to_string(report).ok()?;
    let end = json.pop().filter(|&end| end == '}')?;
    for (name, value) in more {
        let comma = if json.ends_with('{') { "" } else { "," };
        json.push_str(&format!("{comma}\"{name}\":{value}"));
    }
    json.push(end);
    json.push('\n');
    Some(json)
}

fn reply(reply: &Reply, more: &[(&str, String)]) -> Option<String> {
    match reply {
        Reply::Sweep(report) => with(report, more),
        Reply::Dla(report) => with(report, more),
        Reply::Lens(report) => with(report, more),
        Reply::Ov(report) => with(report, more),
        Reply::Patch(report) => with(report, more),
        Reply::Controls(report) => with(report, more),
        Reply::Generate(report) => with(report, more),
        Reply::Effect(report) => with(report, more),
        _ => None,
    }
}

/// The view's report; `None` while there is none.
pub fn json(state: &AppState, kind: ViewKind) -> Option<String> {
    let view = ("view", provenance(state, kind).to_string());
    let found =
        |experiment| state.found(experiment).and_then(|found| reply(found, std::slice::from_ref(&view)));
    let rows = |name: &str, table: Table| with(&json!({name: table.json()}), std::slice::from_ref(&view));
    let detected = || state.lens_report();
    match kind {
        ViewKind::HeadMap => head_map(state, view),
        ViewKind::Pattern => with(state.view.as_ref()?.pattern.as_ref()?, &[view]),
        ViewKind::NextTokens => {
            let shown = state.view.as_ref()?;
            let mut more = vec![view, ("comparison", serde_json::to_string(&shown.comparison).ok()?)];
            if let Some(clean) = &shown.clean {
                more.push(("clean", serde_json::to_string(clean).ok()?));
                more.push(("kl_nats", serde_json::to_string(&shown.kl_nats).ok()?));
            }
            with(&shown.run, &more)
        }
        ViewKind::Along => found(Experiment::Effect),
        ViewKind::Scatter(lens) => rows("heads", tables::scatter(state, lens)?),
        ViewKind::Layers if state.lens == Lens::Patching => found(Experiment::Patch),
        ViewKind::Layers => found(Experiment::LogitLens),
        ViewKind::Writes => found(Experiment::Ov),
        ViewKind::Tokens => with(&state.view.as_ref()?.tokens, &[view]),
        ViewKind::AttentionFrom => rows("keys", tables::attention_from(state)?),
        ViewKind::HeadScores => rows("scores", tables::head_scores(state)?),
        ViewKind::DirectEffect => tables::direct_effect(state).and_then(|_| found(Experiment::Effect)),
        ViewKind::Controls => found(Experiment::Controls),
        ViewKind::SetEffects => {
            let sets = tables::set_effects(state)?.json().to_string();
            reply(state.found(Experiment::SetSweep)?, &[("sets", sets), view])
        }
        ViewKind::Evidence => tables::evidence(state).and_then(|_| with(detected()?, &[view])),
        ViewKind::RetrievalText(prompt_idx) => {
            let looks = tables::retrieval_text(state, prompt_idx)?.json().to_string();
            with(detected()?.evidence["prompts"].get(prompt_idx)?, &[("rows", looks), view])
        }
        ViewKind::RetrievalCausal => {
            tables::retrieval_causal(state).and_then(|_| with(&detected()?.evidence["causal"], &[view]))
        }
        ViewKind::Continuation => {
            let text = |experiment| match state.found(experiment) {
                Some(Reply::Generate(report)) => serde_json::to_string(report).ok(),
                _ => None,
            };
            let runs = [("clean", Experiment::CleanText), ("edited", Experiment::EditedText)];
            let runs = runs.into_iter().filter_map(|(name, experiment)| Some((name, text(experiment)?)));
            let more: Vec<_> = runs.chain([view]).collect();
            (more.len() > 1).then(|| with(&Value::Object(serde_json::Map::new()), &more)).flatten()
        }
    }
}

fn head_map(state: &AppState, view: (&'static str, String)) -> Option<String> {
    match state.lens {
        Lens::Prompt(_) => {
            let scores = serde_json::to_string(tables::readings(state)?).ok()?;
            let run = serde_json::to_string(&state.view.as_ref()?.run.provenance).ok()?;
            let none = Value::Object(serde_json::Map::new());
            with(&none, &[("scores", scores), ("provenance", run), view])
        }
        Lens::Detector(_) => match &state.lens_detection()?.stage {
            DetectionStage::Done(report) => with(report.as_ref(), &[view]),
            _ => None,
        },
        Lens::Imported(_) => {
            let rows = tables::head_map(state)?.json();
            with(&json!({"heads": rows}), &[view])
        }
        lens => {
            let mut more = vec![view];
            if let (Lens::Sweep, Some(Reply::Sweep(mlps))) = (lens, state.found(Experiment::MlpSweep)) {
                more.push(("mlps", serde_json::to_string(mlps).ok()?));
            }
            reply(state.found(lens.experiment()?)?, &more)
        }
    }
}
