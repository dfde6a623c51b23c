//! The prompt: editor, examples, BOS chip, tokens as chips.

use headlight_core::report::BosPolicy;
use leptos::prelude::*;

use super::export::Export;
use super::page;
use crate::export::ViewKind;
use crate::state::lesson::Fixed;
use crate::state::{AppState, FIRST_PROMPT, Msg};
use crate::view_model::{Chip, chips};

/// Prompts to start from: label and text.
const EXAMPLES: [(&str, &str); 5] = [
    ("Names", FIRST_PROMPT),
    ("Letters", "Q7 K2 Z9 B4 M1 Q7 K2 Z9 B4"),
    ("Days", " Monday Tuesday"),
    ("Capital", "The capital of France is"),
    ("Pronoun", "When Mary and John went to the store, John gave a drink to"),
];

/// The prompt's card.
#[component]
pub fn PromptCard() -> impl IntoView {
    let page = page();
    let why = page.select(|state| state.why_fixed(Fixed::Prompt));
    view! {
        <section class="card prompt-card" aria-labelledby="prompt-title">
            <div class="card-head">
                <h2 id="prompt-title">"Prompt"</h2>
                <TokenCount />
            </div>
            <fieldset class="held" disabled=move || why.get().is_some() title=move || why.get()>
                <Editor />
            </fieldset>
            <p class="quiet why-held" data-testid="why-held">{move || why.get()}</p>
            <div class="tokens-part">
                <Tokens />
            </div>
        </section>
    }
}

#[component]
fn Editor() -> impl IntoView {
    let page = page();
    let prompt = page.select(|state| state.prompt.clone());
    view! {
        <textarea
            class="editor"
            data-testid="prompt"
            aria-labelledby="prompt-title"
            spellcheck="false"
            autocomplete="off"
            placeholder="Type something for the model to continue"
            prop:value=move || prompt.get()
            on:input=move |event| page.send(Msg::Typed(event_target_value(&event)))
        ></textarea>
        <div class="examples">
            <span class="quiet">"Try"</span>
            {EXAMPLES
                .into_iter()
                .map(|(label, text)| {
                    view! {
                        <button
                            class="example"
                            title=text
                            on:click=move |_| page.send(Msg::SetPrompt(text.to_owned()))
                        >
                            {label}
                        </button>
                    }
                })
                .collect_view()}
        </div>
    }
}

#[component]
fn TokenCount() -> impl IntoView {
    let page = page();
    let text = page.select(|state| {
        let view = state.view.as_ref()?;
        let n_ctx = state.model.as_ref()?.info.n_ctx;
        if state.is_stale {
            return Some("results of an earlier prompt".to_owned());
        }
        // A kept run took no time, which would read as a measurement.
        let time =
            if view.elapsed_ms < 1.0 { String::new() } else { format!(" · {:.0} ms", view.elapsed_ms) };
        Some(format!("{} of {n_ctx} tokens{time}", view.tokens.ids.len()))
    });
    view! { <span class="quiet" data-testid="token-count">{move || text.get()}</span> }
}

/// The tokens of the newest view; their note tells what the pointed-at one is.
#[component]
fn Tokens() -> impl IntoView {
    let page = page();
    let view = page.view();
    let chips = Memo::new(move |_| view.with(|view| view.as_ref().map(|view| chips(&view.0.tokens))));
    let is_empty = page.select(|state| state.model.is_some() && state.is_prompt_empty());
    let noted = RwSignal::new(None::<usize>);
    let note = move || {
        let noted = noted.get()?;
        chips.with(|chips| chips.as_ref()?.get(noted).map(|chip| chip.description.clone()))
    };
    view! {
        <div class="token-head">
            <h3>"Tokens"</h3>
            <BosChip />
            <Export views=|_| vec![ViewKind::Tokens] />
        </div>
        <ul class="tokens prompt-tokens" aria-label="Tokens of the prompt" on:mouseleave=move |_| noted.set(None)>
            {move || {
                chips
                    .get()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|chip| view! { <TokenChip chip noted /> })
                    .collect_view()
            }}
            {move || is_empty.get().then(|| view! { <li class="quiet">"Nothing to read yet: type a prompt."</li> })}
        </ul>
        <p class="token-note" data-testid="token-note">
            {move || note().unwrap_or_else(|| "Point at a token for its id and bytes.".to_owned())}
        </p>
    }
}

#[component]
fn TokenChip(chip: Chip, noted: RwSignal<Option<usize>>) -> impl IntoView {
    let position = chip.position;
    view! {
        <li>
            <span
                class="token"
                class:token-bos=chip.is_bos
                class:token-fragment=chip.is_fragment
                tabindex="0"
                data-testid=format!("token-chip-{position}")
                title=chip.description
                on:mouseenter=move |_| noted.set(Some(position))
                on:focus=move |_| noted.set(Some(position))
                on:blur=move |_| noted.set(None)
            >
                {chip.text}
            </span>
        </li>
        {chip.ends_line.then(|| view! { <li class="line-break" aria-hidden="true"></li> })}
    }
}

/// What the BOS chip says: on or off, and what the model's own metadata asks for.
fn bos_text(state: &AppState) -> (bool, bool, String) {
    let Some(info) = state.model.as_ref().map(|model| &model.info) else {
        return (false, false, "BOS".to_owned());
    };
    if info.bos_id.is_none() {
        return (false, false, "no BOS in this model".to_owned());
    }
    let word = |on: bool| if on { "on" } else { "off" };
    let text = format!("BOS {} · model default {}", word(state.has_bos()), word(info.adds_bos));
    (true, state.has_bos(), text)
}

#[component]
fn BosChip() -> impl IntoView {
    let page = page();
    let bos = page.select(bos_text);
    let is_fixed = page.select(|state| state.why_fixed(Fixed::Prompt).is_some());
    let toggle = move |_| {
        let (can_switch, is_on, _) = bos.get_untracked();
        let default =
            page.state.with_untracked(|state| state.model.as_ref().is_some_and(|m| m.info.adds_bos));
        if can_switch {
            page.send(Msg::SetBos(match !is_on {
                wanted if wanted == default => BosPolicy::Auto,
                true => BosPolicy::On,
                false => BosPolicy::Off,
            }));
        }
    };
    view! {
        <button
            class="bos-chip"
            data-testid="bos-chip"
            role="switch"
            aria-checked=move || bos.get().1.to_string()
            disabled=move || !bos.get().0 || is_fixed.get()
            title="Whether a beginning-of-sequence token is put before the prompt"
            on:click=toggle
        >
            {move || bos.get().2}
        </button>
    }
}
