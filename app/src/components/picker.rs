//! The model picker: every model with its size and state, a local file, and deletion from the cache.

use leptos::{html, prelude::*};

use super::{Page, page};
use crate::models::ManifestModel;
use crate::protocol::{ModelFormat, ModelSource};
use crate::state::lesson::Fixed;
use crate::state::{AppState, Msg};
use crate::view_model::{count_text, size_text};

/// The header's button and its dialog.
#[component]
pub fn ModelPicker() -> impl IntoView {
    let page = page();
    let dialog = NodeRef::<html::Dialog>::new();
    let name = page.select(|state| state.model.as_ref().map(|model| model.title.clone()));
    let close = move || {
        if let Some(dialog) = dialog.get_untracked() {
            dialog.close();
        }
    };
    let models = page.select(|state| state.models.clone());
    let why_fixed = page.select(|state| state.why_fixed(Fixed::Model));
    view! {
        <button
            class="button picker-button"
            data-testid="model-picker"
            disabled=move || why_fixed.get().is_some()
            title=move || why_fixed.get()
            aria-haspopup="dialog"
            on:click=move |_| {
                if let Some(dialog) = dialog.get_untracked() {
                    let _ = dialog.show_modal();
                }
            }
        >
            <span class="sr-only">"Model: "</span>
            <span class="picker-name">
                {move || name.get().unwrap_or_else(|| "Choose a model".to_owned())}
            </span>
            <svg width="10" height="6" viewBox="0 0 10 6" aria-hidden="true">
                <path d="M1 1l4 4 4-4" fill="none" stroke="currentColor" stroke-width="1.600" />
            </svg>
        </button>
        <dialog
            class="picker"
            node_ref=dialog
            aria-label="Models"
            on:click=move |event| {
                let is_backdrop = dialog
                    .get_untracked()
                    .is_some_and(|dialog| event.target().as_ref() == Some(dialog.as_ref()));
                if is_backdrop {
                    close();
                }
            }
        >
            <div class="picker-head">
                <h2>"Models"</h2>
                <button class="button" on:click=move |_| close()>"Close"</button>
            </div>
            <ul class="model-list">
                <For each=move || models.get() key=|model| model.source.id.clone() let:model>
                    <ModelRow model close=Callback::new(move |()| close()) />
                </For>
            </ul>
            <CurrentModel />
            <div class="picker-foot">
                <LocalFile close=Callback::new(move |()| close()) />
                <p class="quiet">"A local file is read by this page and goes nowhere else."</p>
            </div>
        </dialog>
    }
}

/// What the picker says of a model.
fn state_text(state: &AppState, model: &ManifestModel) -> String {
    let id = &model.source.id;
    if state.loading.as_ref().is_some_and(|loading| &loading.source.id == id) {
        return "loading".to_owned();
    }
    let size = model.source.size_bytes.map(size_text);
    match (model.bundled, state.cached.contains(id)) {
        (true, _) => "comes with the page".to_owned(),
        (false, true) => size.map_or_else(|| "cached".to_owned(), |size| format!("{size} · cached")),
        (false, false) => size.map_or_else(|| "to download".to_owned(), |size| format!("{size} to download")),
    }
}

#[component]
fn ModelRow(model: ManifestModel, close: Callback<()>) -> impl IntoView {
    let page = page();
    let id = model.source.id.clone();
    let is_current = {
        let id = id.clone();
        page.select(move |state| state.model.as_ref().is_some_and(|model| model.id == id))
    };
    let is_cached = {
        let id = id.clone();
        page.select(move |state| state.cached.contains(&id))
    };
    let text = {
        let model = model.clone();
        page.select(move |state| state_text(state, &model))
    };
    let (chosen, deleted) = (model.source.clone(), StoredValue::new(model.source.clone()));
    view! {
        <li class="model-row" class:model-row-current=move || is_current.get()>
            <button
                class="model-choose"
                data-testid=format!("model-option-{id}")
                aria-current=move || is_current.get().then_some("true")
                on:click=move |_| {
                    close.run(());
                    page.send(Msg::ChooseModel(chosen.clone()));
                }
            >
                <span class="model-name">
                    {model.title.clone()} <span class="badge">{move || text.get()}</span>
                    {move || is_current.get().then(|| view! { <span class="badge">"current"</span> })}
                </span>
                <span class="quiet">{model.description.clone()} " " {model.licence.clone()} "."</span>
            </button>
            <Show when=move || is_cached.get() && !model.bundled>
                <button
                    class="button"
                    aria-label="Delete from this browser's cache"
                    title="Delete from this browser's cache"
                    on:click=move |_| page.send(Msg::DeleteCached(deleted.get_value()))
                >
                    "Delete"
                </button>
            </Show>
        </li>
    }
}

/// What the loaded model is.
#[component]
fn CurrentModel() -> impl IntoView {
    let page = page();
    let text = page.select(|state| {
        let model = state.model.as_ref()?;
        let info = &model.info;
        let note = model.cache_note.as_ref().map_or_else(String::new, |note| format!(" Not cached: {note}."));
        Some(format!(
            "Current: {}, {} parameters, {} layers of {} heads{}, d_model {}, context {} tokens, vocabulary {}.{note}",
            model.title,
            count_text(info.n_params),
            info.n_layers,
            info.n_heads,
            if info.n_kv_heads == info.n_heads {
                String::new()
            } else {
                format!(" ({} key/value heads)", info.n_kv_heads)
            },
            info.d_model,
            info.n_ctx,
            info.d_vocab,
        ))
    });
    view! { <p class="quiet picker-note">{move || text.get()}</p> }
}

/// Opens a GGUF file of the user's machine.
#[component]
fn LocalFile(close: Callback<()>) -> impl IntoView {
    let page = page();
    let input = NodeRef::<html::Input>::new();
    view! {
        <input
            type="file"
            accept=".gguf"
            class="sr-only"
            tabindex="-1"
            aria-label="GGUF file"
            data-testid="local-file"
            node_ref=input
            on:change=move |_| {
                let Some(input) = input.get_untracked() else { return };
                if let Some(file) = input.files().and_then(|files| files.get(0)) {
                    close.run(());
                    open(page, &file);
                }
                // So that the same file can be chosen again.
                input.set_value("");
            }
        />
        <button
            class="button"
            on:click=move |_| {
                if let Some(input) = input.get_untracked() {
                    input.click();
                }
            }
        >
            "Open a local .gguf …"
        </button>
    }
}

/// The address stays valid as long as the page, so that the model can be loaded again after a crash.
fn open(page: Page, file: &web_sys::File) {
    if let Ok(url) = web_sys::Url::create_object_url_with_blob(file) {
        page.send(Msg::ChooseModel(ModelSource {
            id: file.name(),
            format: ModelFormat::Gguf,
            sha256: None,
            size_bytes: Some(file.size() as u64),
            urls: vec![url],
        }));
    }
}
