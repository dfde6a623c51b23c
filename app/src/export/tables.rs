//! Each view's numbers as a table, unrounded.

use headlight_core::ids::HeadId;
use headlight_core::report::{HeadScores, OvReport, RunReport};

use super::table::{Cell, Table};
use crate::protocol::Reply;
use crate::state::AppState;
use crate::state::lab::Experiment;
use crate::view_model::lens::Lens;
use crate::view_model::measure::{Measure, rank_of, score_of};

/// Every head with the lens' score, its spread over draws and its rank, whether it is edited, and the five readings of the
/// prompt. MLPs, where the lens has numbers for them, follow with `mlp` in place of a head.
pub fn head_map(state: &AppState) -> Option<Table> {
    let scores = state.exact_lens_scores()?;
    let spread = state.lens_report().and_then(|report| report.spread.as_ref());
    let readings = state.view.as_ref().map(|view| view.scores.as_slice()).unwrap_or_default();
    let mut table = Table::new(&["layer", "head", "score", "spread", "rank", "edited"]);
    table.columns.extend(Measure::all().map(|measure| format!("prompt_{}", measure.target())));
    for head in heads(&scores.scores) {
        let own_spread = spread.and_then(|spread| spread.get(head.layer)?.get(head.head).copied());
        let mut row: Vec<Cell> = vec![
            head.layer.into(),
            head.head.into(),
            score_of(&scores, head).into(),
            own_spread.into(),
            rank_of(&scores, head).into(),
            usize::from(state.edits.has(head)).into(),
        ];
        let reading = |measure: Measure| measure.scores(readings).and_then(|scores| score_of(scores, head));
        row.extend(Measure::all().map(|measure| Cell::from(reading(measure))));
        table.rows.push(row);
    }
    let mlps = state.experiment_scores().map(|(_, mlps)| mlps).unwrap_or_default();
    for (layer, value) in mlps.into_iter().enumerate() {
        let mut row: Vec<Cell> = vec![layer.into(), "mlp".into(), value.into()];
        row.resize(table.columns.len(), Cell::Empty);
        table.rows.push(row);
    }
    Some(table)
}

fn heads(table: &[Vec<f32>]) -> impl Iterator<Item = HeadId> + '_ {
    let rows = table.iter().enumerate();
    rows.flat_map(|(layer, row)| (0..row.len()).map(move |head| HeadId::new(layer, head)))
}

/// The pattern as a matrix: a row a query, a column a key.
pub fn pattern(state: &AppState) -> Option<Table> {
    let pattern = state.view.as_ref()?.pattern.as_ref()?;
    let mut table = Table::new(&["query", "token"]);
    table.columns.extend((0..pattern.pattern.len()).map(|key| format!("key_{key}")));
    for (query, (row, token)) in pattern.pattern.iter().zip(&pattern.tokens).enumerate() {
        let values = row.iter().map(|&value| Cell::from(value));
        table.rows.push([query.into(), token.into()].into_iter().chain(values).collect());
    }
    Some(table)
}

/// The most probable next tokens of the clean and of the edited run.
pub fn next_tokens(state: &AppState) -> Option<Table> {
    let view = state.view.as_ref()?;
    let mut table = Table::new(&["run", "rank", "id", "token", "logit", "logprob"]);
    let mut add = |name: &str, run: &RunReport| {
        for (index, token) in run.logits_top.iter().enumerate() {
            table.rows.push(vec![
                name.into(),
                (index + 1).into(),
                token.id.into(),
                (&token.token).into(),
                token.logit.into(),
                token.logprob.into(),
            ]);
        }
    };
    if let Some(clean) = &view.clean {
        add("clean", clean);
    }
    add(if view.clean.is_some() { "edited" } else { "clean" }, &view.run);
    Some(table)
}

/// What the edits do at each position.
pub fn along(state: &AppState) -> Option<Table> {
    let Reply::Effect(report) = state.found(Experiment::Effect)? else { return None };
    let tokens = &state.view.as_ref()?.tokens;
    let columns = ["position", "id", "token", "kl_nats", "clean_loss_nats", "edited_loss_nats"];
    let mut table = Table::new(&columns);
    for (position, (&id, token)) in tokens.ids.iter().zip(&tokens.tokens).enumerate() {
        let loss = |losses: &[f32]| position.checked_sub(1).and_then(|before| losses.get(before).copied());
        table.rows.push(vec![
            position.into(),
            id.into(),
            token.into(),
            report.kl_nats.get(position).copied().into(),
            loss(&report.clean_nll_nats).into(),
            loss(&report.edited_nll_nats).into(),
        ]);
    }
    Some(table)
}

/// Score and effect of each head.
pub fn scatter(state: &AppState, lens: Lens) -> Option<Table> {
    let plot = state.scatter(lens)?;
    let mut table = Table::new(&["layer", "head", "score", "effect"]);
    for dot in plot.dots {
        table.rows.push(vec![
            dot.head.layer.into(),
            dot.head.head.into(),
            dot.score.into(),
            dot.effect.into(),
        ]);
    }
    Some(table)
}

/// The logit lens, or patching's tables under that lens.
pub fn layers(state: &AppState) -> Option<Table> {
    if state.lens == Lens::Patching {
        return patching(state);
    }
    let Reply::Lens(report) = state.found(Experiment::LogitLens)? else { return None };
    let columns = ["layer", "position", "id", "token", "logprob", "followed_logprob", "followed_rank"];
    let mut table = Table::new(&columns);
    for (layer, (cells, texts)) in report.cells.iter().zip(&report.texts).enumerate() {
        for (position, (cell, text)) in cells.iter().zip(texts).enumerate() {
            table.rows.push(vec![
                layer.into(),
                position.into(),
                cell.id.into(),
                text.into(),
                cell.logprob.into(),
                cell.followed_logprob.into(),
                (cell.followed_rank + 1).into(),
            ]);
        }
    }
    Some(table)
}

fn patching(state: &AppState) -> Option<Table> {
    let Reply::Patch(report) = state.found(Experiment::Patch)? else { return None };
    let findings = &report.findings;
    let mut table = Table::new(&["site", "layer", "position", "head", "recovered"]);
    let sites = [
        ("resid_pre", &findings.resid_pre),
        ("attn_out", &findings.attn_out),
        ("mlp_out", &findings.mlp_out),
    ];
    for (site, layers) in sites {
        for (layer, row) in layers.iter().enumerate() {
            for (position, &value) in row.iter().enumerate() {
                table.rows.push(vec![site.into(), layer.into(), position.into(), Cell::Empty, value.into()]);
            }
        }
    }
    for head in heads(&findings.heads) {
        let value = findings.heads[head.layer][head.head];
        let at = [head.layer.into(), Cell::Empty, head.head.into()];
        table.rows.push(["z".into()].into_iter().chain(at).chain([value.into()]).collect());
    }
    Some(table)
}

/// What the shown head writes for the held token.
pub fn writes(state: &AppState) -> Option<Table> {
    let Reply::Ov(report) = state.found(Experiment::Ov)? else { return None };
    let OvReport { raised, lowered, own, .. } = report.as_ref();
    let mut table = Table::new(&["side", "rank", "id", "token", "logit"]);
    let lists = [("raised", raised.as_slice()), ("lowered", lowered), ("own", std::slice::from_ref(own))];
    for (side, tokens) in lists {
        for (index, token) in tokens.iter().enumerate() {
            let rank = if side == "own" { report.own_rank } else { index } + 1;
            table.rows.push(vec![
                side.into(),
                rank.into(),
                token.id.into(),
                (&token.token).into(),
                token.logit.into(),
            ]);
        }
    }
    Some(table)
}

/// The continuations before and after.
pub fn continuation(state: &AppState) -> Option<Table> {
    let mut table = Table::new(&["run", "index", "id", "token"]);
    for (name, experiment) in [("clean", Experiment::CleanText), ("edited", Experiment::EditedText)] {
        let Some(Reply::Generate(report)) = state.found(experiment) else { continue };
        for (index, (&id, token)) in report.ids.iter().zip(&report.tokens).enumerate() {
            table.rows.push(vec![name.into(), index.into(), id.into(), token.into()]);
        }
    }
    Some(table).filter(|table| !table.rows.is_empty())
}

/// What stands behind a detector's scores: the classes of `successor`, the prompts of `retrieval`.
pub fn evidence(state: &AppState) -> Option<Table> {
    let evidence = &state.lens_report()?.evidence;
    let text = |value: &serde_json::Value| Cell::from(value.as_str());
    let number = |value: &serde_json::Value| Cell::from(value.as_f64().map(|value| value as f32));
    if let Some(classes) = evidence["best"]["classes"].as_array() {
        let columns = ["class", "from", "argmax", "hit", "n", "score", "copy_rate", "predecessor_rate"];
        let mut table = Table::new(&columns);
        for class in classes {
            for row in class["rows"].as_array().into_iter().flatten() {
                table.rows.push(vec![
                    text(&class["class"]),
                    text(&row["from"]),
                    text(&row["argmax"]),
                    usize::from(row["hit"] == true).into(),
                    number(&class["n"]),
                    number(&class["score"]),
                    number(&class["copy_rate"]),
                    number(&class["predecessor_rate"]),
                ]);
            }
        }
        return Some(table);
    }
    let prompts = evidence["prompts"].as_array()?;
    let mut table = Table::new(&["prompt", "n_tokens", "answer", "generated", "recall"]);
    for (index, prompt) in prompts.iter().enumerate() {
        table.rows.push(vec![
            index.into(),
            number(&prompt["n_tokens"]),
            text(&prompt["answer"]),
            text(&prompt["generated"]),
            number(&prompt["recall"]),
        ]);
    }
    Some(table)
}

/// The scores that the prompt gives every head, for a report of their own.
pub fn readings(state: &AppState) -> Option<&[HeadScores]> {
    Some(&state.view.as_ref()?.scores)
}
