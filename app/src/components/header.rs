//! The header: name, model picker, engine badge, palette.

use leptos::prelude::*;

use super::{page, picker::ModelPicker, share::Share, theme::ThemeToggle};
use crate::protocol::{BackendChoice, EngineReport};
use crate::state::{Msg, WorkerState};

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

/// What the user can have the model computed on.
const CHOICES: [(BackendChoice, &str); 3] =
    [(BackendChoice::Auto, "auto"), (BackendChoice::Cpu, "CPU"), (BackendChoice::Webgpu, "WebGPU")];

fn choice_of(label: &str) -> BackendChoice {
    CHOICES.into_iter().find(|(_, known)| *known == label).map_or(BackendChoice::Auto, |(choice, _)| choice)
}

/// Which engine answers and why, whether it does, and the switch to another.
#[component]
pub fn EngineBadge() -> impl IntoView {
    let page = page();
    let worker = page.select(|state| state.worker.clone());
    let engine =
        page.select(|state| state.model.as_ref().map(|model| model.engine.clone()).unwrap_or_default());
    let choice = page.select(|state| state.backend);
    let n_workers = page.select(|state| state.workers().map_or(1, |(n_workers, _)| n_workers));
    let is_ready = move || matches!(worker.get(), WorkerState::Ready { .. });
    let text = move || match worker.get() {
        WorkerState::Starting => "engine starting".to_owned(),
        WorkerState::Ready { .. } if engine.with(|engine| engine.is_gpu) => "WebGPU · f32".to_owned(),
        WorkerState::Ready { .. } => "CPU · SIMD · exact f32".to_owned(),
        WorkerState::Dead => "engine stopped".to_owned(),
    };
    let title = move || match worker.get() {
        WorkerState::Ready { build } => {
            let EngineReport { name, why, timings, .. } = engine.get();
            let fast =
                timings.and_then(|timings| timings.fast_speedup()).map_or_else(String::new, |speedup| {
                    format!(" Fast precision is {speedup:.1} times as quick here: long sweeps show it first.")
                });
            let shared = match n_workers.get() {
                1 => String::new(),
                n_workers => format!(" Long work is shared by {n_workers} workers."),
            };
            format!(
                "Engine {name}, build {build}: {why}.{fast}{shared} Everything runs in this browser; nothing is uploaded."
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
            <select
                aria-label="Compute on"
                data-testid="backend-choice"
                on:change=move |event| {
                    let backend = choice_of(&event_target_value(&event));
                    page.send(Msg::ChooseBackend { backend, reload: true });
                }
            >
                {CHOICES
                    .map(|(value, label)| {
                        view! {
                            <option value=label selected=move || choice.get() == value>
                                {label}
                            </option>
                        }
                    })}
            </select>
        </span>
    }
}
