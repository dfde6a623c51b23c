//! The header: name, model picker, engine badge, palette.

use leptos::prelude::*;

use super::{page, picker::ModelPicker, share::Share, theme::ThemeToggle};
use crate::state::WorkerState;

/// The page's header.
#[component]
pub fn Header() -> impl IntoView {
    view! {
        <header class="top">
            <div class="brand">
                <h1 class="wordmark"><span class="lamp" aria-hidden="true"></span>"Headlight"</h1>
                <span class="tagline">"What each attention head of a language model does"</span>
            </div>
            <EngineBadge />
            <ModelPicker />
            <Share />
            // Its dialog is a script of its own that index.html loads at the first click.
            <button class="button" data-testid="embed-button" aria-haspopup="dialog">"Embed"</button>
            <ThemeToggle />
        </header>
    }
}

/// Which engine answers, and whether it does.
#[component]
pub fn EngineBadge() -> impl IntoView {
    let page = page();
    let worker = page.select(|state| state.worker.clone());
    let engine = page.select(|state| state.view.as_ref().map(|view| view.run.provenance.engine.clone()));
    let is_ready = move || matches!(worker.get(), WorkerState::Ready { .. });
    let text = move || match worker.get() {
        WorkerState::Starting => "engine starting".to_owned(),
        WorkerState::Ready { .. } => "CPU · SIMD · exact f32".to_owned(),
        WorkerState::Dead => "engine stopped".to_owned(),
    };
    let title = move || match worker.get() {
        WorkerState::Ready { build } => {
            let engine = engine.get().unwrap_or_else(|| "cpu-f32".to_owned());
            format!(
                "Engine {engine}, build {build}: one thread of WebAssembly with SIMD, f32 arithmetic on dequantised \
                 weights. Everything runs in this browser; nothing is uploaded."
            )
        }
        _ => String::new(),
    };
    view! {
        <span class="badge engine-badge" data-testid="engine-badge" title=title>
            <span
                class="dot"
                class:dot-on=is_ready
                class:dot-bad=move || worker.get() == WorkerState::Dead
                aria-hidden="true"
            ></span>
            {text}
        </span>
    }
}
