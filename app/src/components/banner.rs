//! What floats over the page: the error banner and the progress of a load. Nothing under them moves.

use leptos::prelude::*;

use super::page;
use crate::state::{Msg, Problem, Remedy};
use crate::view_model::progress_text;

/// What went wrong, what to do, and the detail for a bug report.
#[component]
pub fn Banner() -> impl IntoView {
    let page = page();
    let problem = page.select(|state| state.problem.clone());
    view! {
        <div aria-live="assertive">
            {move || problem.get().map(|problem| view! { <BannerOf problem /> })}
        </div>
    }
}

#[component]
fn BannerOf(problem: Problem) -> impl IntoView {
    let page = page();
    let Problem { error, remedy } = problem;
    let sentence = sentence(&error.message);
    let detail = error.detail.unwrap_or_else(|| "no further detail".to_owned());
    view! {
        <section class="banner" role="alert" data-testid="error-banner" data-code=error.code.clone()>
            <div class="banner-line">
                <p>{sentence}</p>
                <button class="button" data-testid="error-dismiss" on:click=move |_| page.send(Msg::Dismiss)>
                    "Dismiss"
                </button>
            </div>
            {remedy
                .map(|remedy| {
                    let label = remedy_label(&remedy);
                    view! {
                        <div class="banner-actions">
                            <button
                                class="button button-main"
                                data-testid="error-remedy"
                                on:click=move |_| page.send(Msg::Remedy(remedy.clone()))
                            >
                                {label}
                            </button>
                        </div>
                    }
                })}
            {(!error.recoverable)
                .then(|| {
                    view! {
                        <div class="banner-actions">
                            <button
                                class="button button-main"
                                on:click=move |_| {
                                    let _ = window().location().reload();
                                }
                            >
                                "Reload the page"
                            </button>
                        </div>
                    }
                })}
            <details>
                <summary>"Detail"</summary>
                <pre>{format!("{}: {detail}", error.code)}</pre>
            </details>
        </section>
    }
}

fn remedy_label(remedy: &Remedy) -> String {
    match remedy {
        Remedy::CutPrompt { n_tokens } => format!("Cut to {n_tokens} tokens"),
        Remedy::BosOff => "Switch BOS off".to_owned(),
        Remedy::LoadAgain(_) => "Try again".to_owned(),
        Remedy::LoadLinked(_) => "Load it".to_owned(),
    }
}

/// The core's messages start lower case and end without a full stop; the page's are sentences.
fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    let mut text: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

/// How far a load is, and the way out of it.
#[component]
pub fn LoadToast() -> impl IntoView {
    let page = page();
    let title = page.select(|state| state.loading.as_ref().map(|loading| loading.title.clone()));
    let progress = page.select(|state| state.loading.as_ref()?.progress.as_ref().map(progress_text));
    let line = move || match progress.get() {
        Some(progress) => format!("{} · {}", progress.stage, progress.detail),
        None => "Opening …".to_owned(),
    };
    let fraction = move || progress.get().and_then(|progress| progress.fraction);
    view! {
        <Show when=move || title.get().is_some()>
            <section class="toast" data-testid="load-progress" aria-label="Model loading">
                <div class="toast-line">
                    <div class="toast-text">
                        <p><strong>{move || title.get()}</strong></p>
                        <p class="quiet">{line}</p>
                    </div>
                    <button
                        class="button"
                        data-testid="load-cancel"
                        on:click=move |_| page.send(Msg::CancelLoad)
                    >
                        "Cancel"
                    </button>
                </div>
                <div
                    class="progress"
                    role="progressbar"
                    aria-label="Loading"
                    aria-valuemin="0"
                    aria-valuemax="100"
                    aria-valuenow=move || fraction().map(|fraction| format!("{:.0}", fraction * 100.0))
                >
                    <div
                        class="progress-fill"
                        class:progress-unknown=move || fraction().is_none()
                        style:width=move || fraction().map(|fraction| format!("{:.1}%", fraction * 100.0))
                    ></div>
                </div>
            </section>
        </Show>
    }
}
