//! Each view's numbers as a table, unrounded.

use headlight_core::ids::HeadId;
use headlight_core::report::{HeadScores, OvReport, RunReport, TokenLogit};

use super::table::{Cell, Table};
use crate::protocol::Reply;
use crate::state::AppState;
use crate::state::lab::Experiment;
use crate::view_model::evidence::{CopyLosses, classes, copy_losses};
use crate::view_model::lens::Lens;
use crate::view_model::measure::{Measure, rank_of, score_of};
use crate::view_model::retrieval::{Causal, RetrievalEvidence};

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

/// The most probable next tokens of the clean and of the edited run, and the two compared tokens.
pub fn next_tokens(state: &AppState) -> Option<Table> {
    let view = state.view.as_ref()?;
    let mut table = Table::new(&["run", "rank", "id", "token", "logit", "logprob"]);
    let mut add = |name: &str, run: &RunReport, compared: &[TokenLogit; 2]| {
        let ranked = run.logits_top.iter().enumerate().map(|(index, token)| (Some(index + 1), token));
        // Compared tokens below the top have no rank.
        let is_below = |token: &&TokenLogit| run.logits_top.iter().all(|top| top.id != token.id);
        let compared = compared.iter().filter(is_below).map(|token| (None, token));
        for (rank, token) in ranked.chain(compared) {
            let TokenLogit { id, token, logit, logprob, .. } = token;
            let row =
                [name.into(), rank.into(), (*id).into(), token.into(), (*logit).into(), (*logprob).into()];
            table.rows.push(row.into());
        }
    };
    match &view.clean {
        Some(clean) => {
            add("clean", clean, &view.comparison.clean);
            add("edited", &view.run, &view.comparison.edited);
        }
        None => add("clean", &view.run, &view.comparison.clean),
    }
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

/// The prompt's tokens as the tokenizer gives them.
pub fn tokens(state: &AppState) -> Option<Table> {
    let tokens = &state.view.as_ref()?.tokens;
    let mut table = Table::new(&["position", "id", "token", "piece", "bytes"]);
    let rows = tokens.ids.iter().zip(&tokens.tokens).zip(&tokens.pieces).zip(&tokens.bytes).enumerate();
    for (position, (((&id, token), piece), bytes)) in rows {
        table.rows.push(vec![position.into(), id.into(), token.into(), piece.into(), bytes.into()]);
    }
    Some(table)
}

/// The position whose attention the inspector reads: the held token's, else the last.
pub fn read_query(state: &AppState) -> Option<usize> {
    let last = state.view.as_ref()?.tokens.ids.len().checked_sub(1)?;
    Some(state.held_token.unwrap_or(last).min(last))
}

/// Where the shown head looks from one token.
pub fn attention_from(state: &AppState) -> Option<Table> {
    let query = read_query(state)?;
    let pattern = state.view.as_ref()?.pattern.as_ref()?;
    let mut table = Table::new(&["query", "key", "id", "token", "attention"]);
    let keys = pattern.ids.iter().zip(&pattern.tokens).zip(pattern.pattern.get(query)?);
    for (key, ((&id, token), &attention)) in keys.enumerate().take(query + 1) {
        table.rows.push(vec![query.into(), key.into(), id.into(), token.into(), attention.into()]);
    }
    Some(table)
}

/// The shown head's readings on the prompt; a rank is among the heads of the model.
pub fn head_scores(state: &AppState) -> Option<Table> {
    let (head, view) = (state.shown_head()?, state.view.as_ref()?);
    let mut table = Table::new(&["layer", "head", "measure", "score", "rank"]);
    for measure in Measure::all() {
        let reading = measure.reading(&view.scores, head);
        table.rows.push(vec![
            head.layer.into(),
            head.head.into(),
            measure.target().into(),
            reading.map(|(score, _)| score).into(),
            reading.map(|(_, rank)| rank).into(),
        ]);
    }
    Some(table)
}

/// The most probable next tokens of the clean run, in it, after the edits, and with their direct effect alone.
pub fn direct_effect(state: &AppState) -> Option<Table> {
    let Reply::Effect(report) = state.found(Experiment::Effect)? else { return None };
    let direct_kl = report.direct_kl_nats?;
    let mut table = Table::new(&["run", "id", "token", "logit", "logprob", "kl_nats"]);
    let runs = [
        ("clean", &report.clean_top, None),
        ("edited", &report.edited_top, report.kl_nats.last().copied()),
        ("direct", &report.direct_top, Some(direct_kl)),
    ];
    for (run, top, kl) in runs {
        for token in top {
            let TokenLogit { id, token, logit, logprob, .. } = token;
            let row = [run.into(), (*id).into(), token.into(), (*logit).into(), (*logprob).into(), kl.into()];
            table.rows.push(row.into());
        }
    }
    Some(table)
}

fn spaced<'a>(heads: impl IntoIterator<Item = &'a HeadId>) -> Cell {
    let heads: Vec<String> = heads.into_iter().map(ToString::to_string).collect();
    Cell::Text(heads.join(" "))
}

/// The effect of the edited heads, and of each random draw.
pub fn controls(state: &AppState) -> Option<Table> {
    let Reply::Controls(report) = state.found(Experiment::Controls)? else { return None };
    let found = &report.findings;
    let mut table = Table::new(&["set", "draw", "heads", "effect"]);
    let edited = spaced(&state.edits.heads());
    table.rows.push(vec!["edited".into(), Cell::Empty, edited, found.effect.into()]);
    for (draw, (heads, &effect)) in found.draws.iter().zip(&found.random_effects).enumerate() {
        table.rows.push(vec!["random".into(), draw.into(), spaced(heads), effect.into()]);
    }
    Some(table)
}

/// Each named set's effect as a whole, and the sum of its heads' one by one.
pub fn set_effects(state: &AppState) -> Option<Table> {
    let mut table = Table::new(&["set", "heads", "together", "one_by_one"]);
    for effect in state.set_effects()? {
        let (set, heads) = ((&effect.set.name).into(), spaced(&effect.set.heads));
        table.rows.push(vec![set, heads, effect.together.into(), effect.one_by_one.into()]);
    }
    Some(table)
}

/// What stands behind a detector's scores: the classes of `successor`, the losses of `induction`, the prompts of `retrieval`.
pub fn evidence(state: &AppState) -> Option<Table> {
    let report = state.lens_report()?;
    if let Some(classes) = classes(report) {
        let columns = ["class", "from", "argmax", "hit", "n", "score", "copy_rate", "predecessor_rate"];
        let mut table = Table::new(&columns);
        for class in &classes {
            for pair in &class.rows {
                table.rows.push(vec![
                    (&class.class).into(),
                    (&pair.from).into(),
                    (&pair.argmax).into(),
                    usize::from(pair.hit).into(),
                    class.n.into(),
                    class.score.into(),
                    class.copy_rate.into(),
                    class.predecessor_rate.into(),
                ]);
            }
        }
        return Some(table);
    }
    if let Some(CopyLosses { first_nats, second_nats }) = copy_losses(report) {
        let mut table = Table::new(&["copy", "nll_nats"]);
        table.rows.push(vec!["first".into(), first_nats.into()]);
        table.rows.push(vec!["second".into(), second_nats.into()]);
        return Some(table);
    }
    let columns =
        ["prompt", "needle", "length", "depth_percent", "n_tokens", "answer", "generated", "recall"];
    let mut table = Table::new(&columns);
    for (index, prompt) in RetrievalEvidence::of(report)?.prompts.iter().enumerate() {
        let place = prompt.placement();
        table.rows.push(vec![
            index.into(),
            place.map(|(needle, ..)| needle).into(),
            place.map(|(_, length, _)| length).into(),
            place.map(|(.., depth_percent)| depth_percent).into(),
            prompt.tokens.len().into(),
            (&prompt.answer).into(),
            (&prompt.generated_tokens.concat()).into(),
            prompt.recall.into(),
        ]);
    }
    Some(table)
}

/// A prompt of retrieval and what was generated, token by token, with where the shown head looked.
pub fn retrieval_text(state: &AppState, prompt_idx: usize) -> Option<Table> {
    let evidence = RetrievalEvidence::of(state.lens_report()?)?;
    let prompt = evidence.prompts.get(prompt_idx)?;
    let looks = state.shown_head().and_then(|head| evidence.looks(prompt_idx, head)).unwrap_or_default();
    let columns = ["part", "position", "token", "is_answer", "looked_at", "looked_at_token", "is_copy"];
    let mut table = Table::new(&columns);
    for (position, token) in prompt.tokens.iter().enumerate() {
        let is_answer = usize::from(prompt.span().contains(&position));
        let mut row: Vec<Cell> = vec!["prompt".into(), position.into(), token.into(), is_answer.into()];
        row.resize(columns.len(), Cell::Empty);
        table.rows.push(row);
    }
    for (index, token) in prompt.generated_tokens.iter().enumerate() {
        let look = looks.get(index);
        table.rows.push(vec![
            "generated".into(),
            (prompt.tokens.len() + index).into(),
            token.into(),
            Cell::Empty,
            look.map(|look| look.key).into(),
            look.and_then(|look| prompt.token_at(look.key)).into(),
            look.map(|look| usize::from(look.is_copy)).into(),
        ]);
    }
    Some(table)
}

/// What the right answer's log-probability loses, with the strongest heads and with random ones.
pub fn retrieval_causal(state: &AppState) -> Option<Table> {
    let evidence = RetrievalEvidence::of(state.lens_report()?)?;
    let Causal::Measured { edits, .. } = evidence.causal()? else { return None };
    let columns = ["edit", "top_drop_nats", "random_drop_nats", "random_drop_sd_nats"];
    let mut table = Table::new(&columns);
    for edit in edits {
        table.rows.push(vec![
            (&edit.edit).into(),
            edit.top_drop_nats.into(),
            edit.random_drop_nats.into(),
            edit.random_drop_sd_nats.into(),
        ]);
    }
    Some(table)
}

/// The scores that the prompt gives every head, for a report of their own.
pub fn readings(state: &AppState) -> Option<&[HeadScores]> {
    Some(&state.view.as_ref()?.scores)
}
