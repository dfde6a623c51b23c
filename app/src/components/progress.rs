//! How far a long request is, with the buttons that hold and end it.

use leptos::prelude::*;

use crate::view_model::ProgressText;

/// A line, two buttons and a bar; `id` begins their test ids.
#[component]
pub fn JobProgress(
    id: String,
    #[prop(into)] progress: Signal<Option<ProgressText>>,
    #[prop(into)] is_paused: Signal<bool>,
    on_hold: impl Fn(bool) + 'static,
    on_stop: impl Fn() + 'static,
) -> impl IntoView {
    let fraction = move || progress.get().and_then(|progress| progress.fraction).unwrap_or(0.0);
    let line = move || match progress.get() {
        Some(progress) if is_paused.get() => format!("Paused at {}", progress.amount),
        Some(progress) => progress.detail,
        None if is_paused.get() => "Paused".to_owned(),
        None => "Starting …".to_owned(),
    };
    view! {
        <div class="toast-line">
            <p class="quiet" data-testid=format!("{id}-progress")>{line}</p>
            <button
                class="button"
                data-testid=format!("{id}-pause")
                on:click=move |_| on_hold(!is_paused.get_untracked())
            >
                {move || if is_paused.get() { "Resume" } else { "Pause" }}
            </button>
            <button class="button" data-testid=format!("{id}-stop") on:click=move |_| on_stop()>
                "Stop"
            </button>
        </div>
        <div
            class="progress"
            role="progressbar"
            aria-label="Progress"
            aria-valuemin="0"
            aria-valuemax="100"
            aria-valuenow=move || format!("{:.0}", fraction() * 100.0)
        >
            <div class="progress-fill" style:width=move || format!("{:.1}%", fraction() * 100.0)></div>
        </div>
    }
}
