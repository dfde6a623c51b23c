//! The page inside another one: a slim bar in place of the header, and the still frame that waits for its reader. An embed
//! writes no address and no history, asks for no focus and scrolls nothing.

use leptos::prelude::*;

use super::{address::address_of, header::EngineBadge, page};
use crate::state::lesson::Fixed;

/// What stands at the top of an embed: the model, its engine, and the way out.
#[component]
pub fn EmbedBar() -> impl IntoView {
    let page = page();
    let name = page.select(|state| state.model.as_ref().map(|model| model.title.clone()));
    let why = page.select(|state| state.why_fixed(Fixed::View));
    view! {
        <header class="embed-bar">
            <span class="lamp" aria-hidden="true"></span>
            <h1 class="embed-name" data-testid="embed-name">
                {move || name.get().unwrap_or_else(|| "Headlight".to_owned())}
            </h1>
            <EngineBadge />
            {move || why.get().map(|why| view! { <span class="badge" title=why>"read-only"</span> })}
            <OpenOutside />
        </header>
    }
}

/// The same view on a page of its own.
#[component]
fn OpenOutside() -> impl IntoView {
    let page = page();
    let address = page.select(|state| state.link());
    view! {
        <a
            class="embed-open"
            data-testid="embed-open"
            target="_blank"
            rel="noopener"
            href=move || address.with(address_of)
        >
            "Open in Headlight"
        </a>
    }
}

/// A still frame: what the view is about, and the button that begins. Until then nothing is loaded.
#[component]
pub fn Still(on_start: impl Fn() + 'static) -> impl IntoView {
    let page = page();
    let (title, prompt) = page.state.with_untracked(|state| {
        let lesson = state.assignment.lesson.as_ref().map(|lesson| lesson.title.clone());
        let title = lesson.filter(|title| !title.is_empty());
        let prompt: String = state.prompt.chars().take(160).collect();
        (title.unwrap_or_else(|| "What does each attention head do?".to_owned()), prompt)
    });
    view! {
        <section class="still" data-testid="embed-still">
            <h1>{title}</h1>
            <p class="still-prompt mono">{prompt}</p>
            <button class="button button-main" data-testid="embed-start" on:click=move |_| on_start()>
                "Start"
            </button>
            <p class="quiet">"Runs a small language model in this frame. Nothing is sent anywhere."</p>
            <OpenOutside />
        </section>
    }
}
