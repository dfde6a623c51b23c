//! The model picker: every model with its size and state, a local file, and deletion from the cache.

use leptos::prelude::*;

use super::choose_file::ChooseFile;
use super::modal::Modal;
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
    let is_open = RwSignal::new(false);
    let name = page.select(|state| state.model.as_ref().map(|model| model.title.clone()));
    let models = page.select(|state| state.models.clone());
    let why_fixed = page.select(|state| state.why_fixed(Fixed::Model));
    view! {
        <button
            class="button picker-button"
            data-testid="model-picker"
            disabled=move || why_fixed.get().is_some()
            title=move || why_fixed.get()
            aria-haspopup="dialog"
            on:click=move |_| is_open.set(true)
        >
            <span class="sr-only">"Model: "</span>
            <span class="picker-name">
                {move || name.get().unwrap_or_else(|| "Choose a model".to_owned())}
            </span>
            <svg width="10" height="6" viewBox="0 0 10 6" aria-hidden="true">
                <path d="M1 1l4 4 4-4" fill="none" stroke="currentColor" stroke-width="1.600" />
            </svg>
        </button>
        <Modal title="Models" is_open>
            <ul class="model-list">
                <For each=move || models.get() key=|model| model.source.id.clone() let:model>
                    <ModelRow model is_open />
                </For>
            </ul>
            <CurrentModel />
            <div class="picker-foot">
                <LocalFile is_open />
                <p class="quiet">"A local file is read by this page and goes nowhere else."</p>
            </div>
        </Modal>
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
fn ModelRow(model: ManifestModel, is_open: RwSignal<bool>) -> impl IntoView {
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
                    is_open.set(false);
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
fn LocalFile(is_open: RwSignal<bool>) -> impl IntoView {
    let page = page();
    let on_file = Callback::new(move |file| {
        is_open.set(false);
        open(page, &file);
    });
    view! {
        <ChooseFile
            text="Open a local .gguf …"
            class="button"
            accept=".gguf"
            label="GGUF file"
            testid="local-file"
            on_file
        />
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
            golden: None,
        }));
    }
}
