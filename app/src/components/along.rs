//! What the edits do along the prompt: at each position the KL of the next token's distribution and the change of loss.

use headlight_core::report::EffectReport;
use leptos::prelude::*;

use super::effect::probability_change;
use super::export::Export;
use super::page;
use crate::export::ViewKind;
use crate::protocol::Reply;
use crate::state::lab::Experiment;
use crate::view_model::colour::{heat, signed};
use crate::view_model::{signed_text, token_texts};

/// Height of the tallest bar, CSS pixels.
const BAR_HEIGHT: f32 = 56.0;

/// One position.
#[derive(Clone, PartialEq)]
struct Place {
    position: usize,
    text: String,
    kl: f32,
    /// Change of the loss of this position's token, nats; none at the first.
    loss: Option<(f32, f32)>,
}

fn places(report: &EffectReport, texts: Vec<String>) -> Vec<Place> {
    let losses = report.clean_nll_nats.iter().copied().zip(report.edited_nll_nats.iter().copied());
    // The first token is foretold by nothing.
    let losses = std::iter::once(None).chain(losses.map(Some));
    let rows = texts.into_iter().zip(&report.kl_nats).zip(losses).enumerate();
    rows.map(|(position, ((text, &kl), loss))| Place { position, text, kl, loss }).collect()
}

/// The card; there while something is edited.
#[component]
pub fn AlongCard() -> impl IntoView {
    let page = page();
    let has_edits = page.select(|state| !state.edits.list.is_empty());
    let rows = page.select(|state| {
        let Some(Reply::Effect(report)) = state.found(Experiment::Effect) else { return None };
        Some(places(report, token_texts(&state.view.as_ref()?.tokens)))
    });
    let theme = page.select(|state| state.theme());
    let summary = move || {
        let rows = rows.get()?;
        let n = rows.len().saturating_sub(1).max(1) as f32;
        let losses = |edited: bool| {
            let of = |place: &Place| place.loss.map(|(clean, after)| if edited { after } else { clean });
            rows.iter().filter_map(of).sum::<f32>() / n
        };
        Some(format!("Mean loss {:.3} → {:.3} nats.", losses(false), losses(true)))
    };
    view! {
        <Show when=move || has_edits.get()>
            <section class="card wide-card" aria-labelledby="along-title" data-testid="along">
                <div class="card-head">
                    <h2 id="along-title">"Along the prompt"</h2>
                    <span class="quiet">{summary}</span>
                    <Export views=|_| vec![ViewKind::Along] />
                </div>
                <p class="caption">
                    "Bars: KL(before ‖ after) of what comes next, nats. Shade of a token: its own loss, red where it became harder to foretell."
                </p>
                {move || match rows.get() {
                    None => view! { <p class="quiet">"Computing …"</p> }.into_any(),
                    Some(rows) => {
                        let most = rows.iter().map(|place| place.kl).fold(1e-6, f32::max);
                        let theme = theme.get();
                        view! {
                            <ol class="along" tabindex="0" aria-label="Effect at each position">
                                {rows
                                    .into_iter()
                                    .map(|place| {
                                        let height = place.kl / most * BAR_HEIGHT;
                                        let change = place.loss.map(|(clean, edited)| edited - clean);
                                        let shade = signed(theme, -change.unwrap_or(0.0) / 2.0);
                                        let loss = place.loss.map_or_else(String::new, |(clean, edited)| {
                                            format!(
                                                ", loss {} nats ({})",
                                                signed_text(edited - clean),
                                                probability_change(clean, edited)
                                            )
                                        });
                                        let title =
                                            format!("position {}: KL {:.3} nats{loss}", place.position, place.kl);
                                        view! {
                                            <li title=title.clone() aria-label=title>
                                                <span
                                                    class="along-bar"
                                                    style:height=format!("{height:.1}px")
                                                    style:background=heat(theme, 0.7).css()
                                                ></span>
                                                <span
                                                    class="token"
                                                    style:background=shade.css()
                                                    style:color=shade.ink().css()
                                                >
                                                    {place.text}
                                                </span>
                                                <span class="along-number">{format!("{:.2}", place.kl)}</span>
                                            </li>
                                        }
                                    })
                                    .collect_view()}
                            </ol>
                        }
                            .into_any()
                    }
                }}
            </section>
        </Show>
    }
}
