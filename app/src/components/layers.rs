//! Layer by position: the logit lens, and where activation patching recovers the clean run.

use headlight_core::report::{LensReport, PatchReport};
use leptos::prelude::*;

use super::export::Export;
use super::lab::RunLine;
use super::page;
use crate::export::{ViewKind, pair_texts};
use crate::protocol::Reply;
use crate::state::lab::Experiment;
use crate::view_model::colour::{Theme, heat, signed};
use crate::view_model::lens::Lens;
use crate::view_model::{percent_text, short_text, signed_text, token_text, token_texts};

/// Characters of a token in a cell.
const N_CHARS: usize = 6;

/// The card: patching's tables under that lens, else the logit lens.
#[component]
pub fn LayersCard() -> impl IntoView {
    let page = page();
    let is_patching = page.select(|state| state.lens == Lens::Patching);
    let has_model = page.select(|state| state.view.is_some());
    view! {
        <Show when=move || has_model.get()>
            <section class="card wide-card" aria-labelledby="layers-title">
                <Show when=move || is_patching.get() fallback=move || view! { <LogitLens /> }>
                    <PatchTables />
                </Show>
            </section>
        </Show>
    }
}

#[component]
fn LogitLens() -> impl IntoView {
    let page = page();
    let theme = page.select(|state| state.theme());
    let report = page.select(|state| match state.found(Experiment::LogitLens) {
        Some(Reply::Lens(report)) => Some((report.clone(), token_texts(&state.view.as_ref()?.tokens))),
        _ => None,
    });
    view! {
        <div class="card-head">
            <h2 id="layers-title">"Logit lens"</h2>
            <Export views=|_| vec![ViewKind::Layers] />
        </div>
        <p class="caption">
            "What the model would say if it stopped after each layer: the residual stream through the final norm and the unembedding, your edits in force. Shade: the probability of the token that does come next."
        </p>
        <RunLine experiment=Experiment::LogitLens />
        {move || report.get().map(|(report, texts)| lens_table(&report, texts, theme.get()))}
    }
}

fn lens_table(report: &LensReport, texts: Vec<String>, theme: Theme) -> impl IntoView + use<> {
    let rows = report.cells.iter().zip(&report.texts).enumerate().rev();
    let rows = rows.map(|(layer, (cells, words))| {
        let cells = cells.iter().zip(words).enumerate().map(|(position, (cell, word))| {
            let fill = heat(theme, cell.followed_logprob.exp());
            let title = format!(
                "after layer {layer}, position {position}: “{}” {}; what comes next {}, rank {}",
                token_text(word),
                percent_text(cell.logprob.exp()),
                percent_text(cell.followed_logprob.exp()),
                cell.followed_rank + 1,
            );
            view! {
                <td title=title style:background=fill.css() style:color=fill.ink().css()>
                    {short_text(&token_text(word), N_CHARS)}
                </td>
            }
        });
        view! { <tr><th scope="row">{layer}</th>{cells.collect_view()}</tr> }
    });
    grid("logit-lens", "Logit lens", rows.collect_view().into_any(), texts)
}

#[component]
fn PatchTables() -> impl IntoView {
    let page = page();
    let theme = page.select(|state| state.theme());
    let report = page.select(|state| match state.found(Experiment::Patch) {
        Some(Reply::Patch(report)) => Some(report.clone()),
        _ => None,
    });
    view! {
        <div class="card-head">
            <h2 id="layers-title">"Patching by layer and position"</h2>
            <Export views=|_| vec![ViewKind::Layers] />
        </div>
        <p class="caption">
            "One activation of one run put into the other at one layer and position. Blue: as in the clean run; white: as in the corrupted one; red: beyond it."
        </p>
        {move || match report.get() {
            None => view! { <p class="quiet">"Run patching above the map."</p> }.into_any(),
            Some(report) => patch_tables(&report, theme.get()).into_any(),
        }}
    }
}

fn patch_tables(report: &PatchReport, theme: Theme) -> impl IntoView + use<> {
    let texts = pair_texts(report);
    let findings = &report.findings;
    let tables = [
        ("patch-resid", "Residual stream entering the layer", &findings.resid_pre),
        ("patch-attn", "Attention's output", &findings.attn_out),
        ("patch-mlp", "MLP's output", &findings.mlp_out),
    ];
    let tables = tables.into_iter().filter(|(_, _, table)| !table.is_empty());
    let tables = tables.map(|(testid, title, table)| {
        let rows = table.iter().enumerate().rev().map(|(layer, row)| {
            let cells = row.iter().enumerate().map(|(position, &value)| {
                let fill = signed(theme, value);
                let title = format!("layer {layer}, position {position}: {}", signed_text(value));
                let text = if value.abs() >= 0.05 { format!("{value:.1}") } else { String::new() };
                view! {
                    <td title=title style:background=fill.css() style:color=fill.ink().css()>{text}</td>
                }
            });
            view! { <tr><th scope="row">{layer}</th>{cells.collect_view()}</tr> }
        });
        view! { <h3>{title}</h3> {grid(testid, title, rows.collect_view().into_any(), texts.clone())} }
    });
    tables.collect_view()
}

/// A table of layers by positions, layer 0 at the bottom, tokens below.
fn grid(
    testid: &'static str,
    label: &'static str,
    rows: AnyView,
    texts: Vec<String>,
) -> impl IntoView + use<> {
    let foot = texts.into_iter().map(|text| view! { <th scope="col">{short_text(&text, N_CHARS + 4)}</th> });
    view! {
        <div class="table-scroll layers-scroll" tabindex="0" role="region" aria-label=label>
            <table class="layers" data-testid=testid>
                <tbody>{rows}</tbody>
                <tfoot>
                    <tr>
                        <th></th>
                        {foot.collect_view()}
                    </tr>
                </tfoot>
            </table>
        </div>
    }
}
