//! What the shown head writes when it attends to the held token alone: tokens that it raises and lowers.

use headlight_core::report::{OvReport, TokenDirect};
use leptos::prelude::*;

use super::page;
use crate::protocol::Reply;
use crate::state::lab::Experiment;
use crate::view_model::{signed_text, token_text};

/// Below the linked tokens of the inspector.
#[component]
pub fn Writes() -> impl IntoView {
    let page = page();
    let report = page.select(|state| match state.found(Experiment::Ov) {
        Some(Reply::Ov(report)) => Some(report.clone()),
        _ => None,
    });
    let is_at_work = page.select(|state| state.at_work(Experiment::Ov).is_some());
    view! {
        <div class="writes" data-testid="writes">
            <h3>"What does it write?"</h3>
            {move || match report.get() {
                Some(report) => written(&report).into_any(),
                None if is_at_work.get() => view! { <p class="quiet">"Computing …"</p> }.into_any(),
                None => {
                    view! {
                        <p class="quiet">"Click a token above: what this head writes when it attends to that token alone."</p>
                    }
                        .into_any()
                }
            }}
        </div>
    }
}

fn written(report: &OvReport) -> impl IntoView + use<> {
    let list = |tokens: &[TokenDirect]| {
        let chips = tokens.iter().map(|token| {
            let text = format!("{} {}", token_text(&token.token), signed_text(token.logit));
            view! { <li class="token" title=format!("id {}", token.id)>{text}</li> }
        });
        chips.collect_view()
    };
    let own = format!(
        "“{}” itself {} ({} tokens are raised more).",
        token_text(&report.own.token),
        signed_text(report.own.logit),
        report.own_rank,
    );
    view! {
        <p class="quiet">"Raises"</p>
        <ul class="tokens">{list(&report.raised)}</ul>
        <p class="quiet">"Lowers"</p>
        <ul class="tokens">{list(&report.lowered)}</ul>
        <p class="quiet">{own} " Logits, with the final norm's scale of the last position held fixed."</p>
    }
}
