//! What the model says next: ten candidates, and with edits the clean run beside the edited one.

use leptos::prelude::*;

use super::effect::Compare;
use super::export::{Also, Export};
use super::{ViewRef, page};
use crate::export::ViewKind;
use crate::protocol::View;
use crate::state::N_NEXT_TOKENS;
use crate::view_model::{NextToken, logprob_change, next_tokens, percent_text, signed_text, token_text};

/// The next-token card.
#[component]
pub fn OutputCard() -> impl IntoView {
    let page = page();
    let view = page.view();
    let is_running = page.select(|state| state.is_running);
    view! {
        <section class="card output-card" aria-labelledby="output-title" aria-busy=move || is_running.get().to_string()>
            <div class="card-head">
                <h2 id="output-title">"Next token"</h2>
                <span class="quiet">{format!("top {N_NEXT_TOKENS}, probability")}</span>
                <Export views=|_| vec![ViewKind::NextTokens] also=Also::Python />
            </div>
            {move || match view.get() {
                Some(ViewRef(view)) => view! { <Runs view=ViewRef(view) /> }.into_any(),
                None => view! { <NoRun /> }.into_any(),
            }}
            <Show when=move || view.with(Option::is_some)>
                <Compare />
            </Show>
        </section>
    }
}

/// Why there is nothing.
#[component]
fn NoRun() -> impl IntoView {
    let page = page();
    let is_empty = page.select(|state| state.model.is_some() && state.is_prompt_empty());
    let sent = page.select(|state| state.sent_tokens());
    view! {
        {move || match sent.get() {
            Some(rows) => {
                let row = |(text, probability): (String, f32)| {
                    view! {
                        <li class="next-row" data-testid="sent-token">
                            <span class="bar-fill" style:width=format!("{:.2}%", probability * 100.0)></span>
                            <span class="next-token">{text}</span>
                            <span class="next-percent">{percent_text(probability)}</span>
                        </li>
                    }
                };
                view! {
                    <p class="quiet">"What the link's sender saw, until this browser has computed it:"</p>
                    <ol class="next-list">{rows.into_iter().map(row).collect_view()}</ol>
                }
                    .into_any()
            }
            None => {
                let text = match is_empty.get() {
                    true => {
                        "The prompt is empty. Type something, or take an example, to see what the model expects next."
                    }
                    false => "The model's expectations appear here.",
                };
                view! { <div class="empty" data-testid="no-run">{text}</div> }.into_any()
            }
        }}
    }
}

#[component]
fn Runs(view: ViewRef) -> impl IntoView {
    let view = view.0;
    let after = next_tokens(&view.run, N_NEXT_TOKENS);
    let before = view.clean.as_ref().map(|clean| next_tokens(clean, N_NEXT_TOKENS));
    let is_pair = before.is_some();
    let engine = view.run.provenance.engine.clone();
    view! {
        <div class="runs" data-testid="runs" data-engine=engine>
            {before.map(|rows| view! { <NextList rows title="Before" testid="clean-token" is_narrow=true /> })}
            <NextList
                rows=after
                title=if is_pair { "After" } else { "" }
                testid="next-token"
                is_narrow=is_pair
            />
        </div>
        {effect_text(&view).map(|(kl, change)| {
            view! {
                <div class="effect">
                    <p class="effect-numbers">
                        <strong data-testid="kl-nats">{kl}</strong>
                        <span>{change}</span>
                    </p>
                </div>
            }
        })}
    }
}

/// The size of the edits' effect: KL, and what became of the clean run's favourite.
fn effect_text(view: &View) -> Option<(String, String)> {
    let favourite = view.clean.as_ref()?.logits_top.first()?;
    let token = token_text(&favourite.token);
    let before = percent_text(favourite.logprob.exp());
    let change = match logprob_change(favourite, &view.run) {
        Some(change) => {
            let after = percent_text((favourite.logprob + change).exp());
            format!("“{token}” {before} → {after}, log-probability {} nats", signed_text(change))
        }
        None => format!("“{token}” {before} → below the top {}", view.run.logits_top.len()),
    };
    Some((format!("KL(before ‖ after) {:.3} nats", view.kl_nats?), change))
}

#[component]
fn NextList(
    rows: Vec<NextToken>,
    title: &'static str,
    testid: &'static str,
    is_narrow: bool,
) -> impl IntoView {
    view! {
        <div>
            <p class="list-head">
                <span>{title}</span>
                {(!is_narrow).then(|| view! { <span>"logit"</span> })}
                <span class="next-percent">"prob."</span>
            </p>
            <ol class="next-list">
                {rows
                    .into_iter()
                    .enumerate()
                    .map(|(rank, row)| {
                        let width = format!("{:.2}%", row.probability * 100.0);
                        let title = format!("id {} · logit {} · probability {}", row.id, row.logit, row.percent);
                        view! {
                            <li class="next-row" data-testid=format!("{testid}-{rank}") data-id=row.id data-logit=row.exact.to_string() title=title>
                                <span class="bar-fill" style:width=width></span>
                                <span class="next-token">{row.text}</span>
                                {(!is_narrow).then(|| view! { <span class="next-logit">{row.logit}</span> })}
                                <span class="next-percent">{row.percent}</span>
                            </li>
                        }
                    })
                    .collect_view()}
            </ol>
        </div>
    }
}
