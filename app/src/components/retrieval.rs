//! A retrieval report drawn: the text with the needle marked, the answer token by token with where the shown head looked,
//! and what switching the strongest heads off did.

use std::sync::Arc;

use leptos::prelude::*;

use super::evidence::evidence_table;
use super::export::Export;
use super::page;
use crate::export::ViewKind;
use crate::view_model::retrieval::{Causal, CausalEdit, Look, PromptEvidence, RetrievalEvidence};
use crate::view_model::token_text;

/// What the drawn parts share.
#[derive(Clone)]
struct Drawn {
    evidence: Arc<RetrievalEvidence>,
    prompt_idx: RwSignal<usize>,
    /// The shown head's looks on the chosen prompt.
    looks: Memo<Option<Vec<Look>>>,
    /// The generated token pointed at.
    pointed: RwSignal<Option<usize>>,
}

/// Everything that a retrieval report has to show.
#[component]
pub fn RetrievalDrawn(evidence: RetrievalEvidence) -> impl IntoView {
    let page = page();
    let evidence = Arc::new(evidence);
    let prompt_idx = RwSignal::new(0_usize);
    let head = page.select(|state| state.shown_head());
    let of_looks = Arc::clone(&evidence);
    let looks = Memo::new(move |_| of_looks.looks(prompt_idx.get(), head.get()?));
    let drawn = Drawn { evidence: Arc::clone(&evidence), prompt_idx, looks, pointed: RwSignal::new(None) };
    let rows = evidence.prompts.iter().map(prompt_row).collect_view();
    let columns = ["Tokens", "Recall", "Needle → generated"];
    view! {
        {evidence.causal().map(|causal| view! { <CausalTable causal /> })}
        <details class="detector-doc" open>
            <summary>"The text, the answer and where the head looked"</summary>
            <div class="toast-line">
                <PromptMenu drawn=drawn.clone() />
                <Export views=move |_| vec![ViewKind::RetrievalText(prompt_idx.get_untracked())] />
            </div>
            <Text drawn=drawn.clone() />
            <Looks drawn />
        </details>
        {evidence_table(evidence.summary(), "retrieval-prompts", &columns, rows)}
    }
}

#[component]
fn PromptMenu(drawn: Drawn) -> impl IntoView {
    let titles = drawn.evidence.prompts.iter().map(PromptEvidence::title).enumerate();
    let options = titles.map(|(index, title)| view! { <option value=index>{title}</option> }).collect_view();
    let Drawn { prompt_idx, pointed, .. } = drawn;
    view! {
        <label class="setting">
            <span>"Prompt"</span>
            <select
                class="select"
                data-testid="retrieval-prompt"
                on:change=move |event| {
                    if let Ok(index) = event_target_value(&event).parse() {
                        pointed.set(None);
                        prompt_idx.set(index);
                    }
                }
            >
                {options}
            </select>
        </label>
    }
}

/// The prompt as running text: the needle marked, what the head looked at underlined.
#[component]
fn Text(drawn: Drawn) -> impl IntoView {
    let Drawn { evidence, prompt_idx, looks, pointed } = drawn;
    let now = Memo::new(move |_| {
        looks.with(|looks| pointed.get().and_then(|index| Some(looks.as_ref()?.get(index)?.key)))
    });
    let looked = Memo::new(move |_| {
        looks.with(|looks| looks.iter().flatten().map(|look| look.key).collect::<Vec<_>>())
    });
    view! {
        <p class="retrieval-text" data-testid="retrieval-text" tabindex="0" aria-label="Text with the needle marked">
            {move || {
                let prompt = evidence.prompts.get(prompt_idx.get())?;
                let span = prompt.span();
                let token = |(position, text): (usize, &String)| {
                    view! {
                        <span
                            class:needle=span.contains(&position)
                            class:looked=move || looked.with(|looked| looked.contains(&position))
                            class:looked-now=move || now.get() == Some(position)
                        >
                            {text.clone()}
                        </span>
                    }
                };
                Some(prompt.tokens.iter().enumerate().map(token).collect_view())
            }}
        </p>
    }
}

/// The generated tokens, each with what the head looked at when it was chosen.
#[component]
fn Looks(drawn: Drawn) -> impl IntoView {
    let page = page();
    let head = page.select(|state| state.shown_head());
    let Drawn { looks, pointed, evidence, prompt_idx } = drawn;
    let sentence = move || {
        let head = head.get()?;
        Some(
            match looks
                .with(|looks| looks.as_ref().map(|looks| looks.iter().filter(|look| look.is_copy).count()))
            {
                Some(n_copies) => format!("{head} copied at {n_copies} of the answer's tokens (✓)."),
                None => format!(
                    "{head} copied nothing from any needle. Choose a head with a score to see where it looked."
                ),
            },
        )
    };
    view! {
        <p class="quiet" data-testid="retrieval-looks">{sentence}</p>
        <ol class="looks" aria-label="Generated tokens">
            {move || match looks.get() {
                Some(looks) => {
                    looks.into_iter().enumerate().map(|(index, look)| look_item(index, look, pointed)).collect_view().into_any()
                }
                None => {
                    let prompt = evidence.prompts.get(prompt_idx.get());
                    let texts = prompt.map(|prompt| prompt.generated_tokens.clone()).unwrap_or_default();
                    let plain = |text: String| view! { <li><span class="token">{token_text(&text)}</span></li> };
                    texts.into_iter().map(plain).collect_view().into_any()
                }
            }}
        </ol>
    }
}

fn look_item(index: usize, look: Look, pointed: RwSignal<Option<usize>>) -> impl IntoView {
    let told = format!("“{}”, looking at position {} “{}”", look.token, look.key, look.key_text);
    let told = if look.is_copy { format!("{told}, a copy") } else { told };
    let mark = if look.is_copy { " ✓" } else { "" };
    view! {
        <li>
            <button
                class="token"
                class:token-copy=look.is_copy
                title=told.clone()
                aria-label=told
                aria-pressed=move || (pointed.get() == Some(index)).to_string()
                on:mouseenter=move |_| pointed.set(Some(index))
                on:focus=move |_| pointed.set(Some(index))
                on:click=move |_| pointed.set(Some(index))
            >
                {look.token}
                <small>{format!(" ← {}{mark}", look.key_text)}</small>
            </button>
        </li>
    }
}

fn prompt_row(prompt: &PromptEvidence) -> impl IntoView + use<> {
    let text = |text: &str| token_text(text.trim());
    let generated = prompt.generated_tokens.concat();
    view! {
        <tr>
            <td>{prompt.tokens.len()}</td>
            <td>{format!("{:.2}", prompt.recall)}</td>
            <td class="mono evidence-text">{format!("{} → {}", text(&prompt.answer), text(&generated))}</td>
        </tr>
    }
}

#[component]
fn CausalTable(causal: Causal) -> impl IntoView {
    match causal {
        Causal::Skipped(why) => {
            view! { <p class="quiet" data-testid="retrieval-causal">{why}</p> }.into_any()
        }
        Causal::Measured { sentence, edits } => {
            let row = |edit: CausalEdit| {
                let drops = edit.drops().map(|drop| view! { <td>{drop}</td> });
                view! { <tr><td>{edit.edit}</td>{drops.collect_view()}</tr> }
            };
            view! {
                <p class="quiet">{sentence}</p>
                <table class="causal" data-testid="retrieval-causal">
                    <thead>
                        <tr>
                            <th scope="col">"Edit"</th>
                            <th scope="col">"Drop, strongest (nats)"</th>
                            <th scope="col">"Drop, random (mean ± sd)"</th>
                        </tr>
                    </thead>
                    <tbody>{edits.into_iter().map(row).collect_view()}</tbody>
                </table>
            }
            .into_any()
        }
    }
}
