//! The menu with which a card's views are taken away: one small button, a row a view, a button a format.

use headlight_core::script::Library;
use leptos::task::spawn_local;
use leptos::{html, prelude::*};
use wasm_bindgen::JsCast;

use super::choose_file::ChooseFile;
use super::{Page, page};
use crate::download;
use crate::export::{Format, ViewKind};
use crate::import::{ImportError, MAX_BYTES};
use crate::protocol::ErrorReport;
use crate::state::Msg;

/// Sizes of pixel pictures, as multiples of the drawing's own.
const SCALES: [u32; 3] = [1, 2, 3];

/// What a menu holds beside its views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Also {
    /// Nothing.
    #[default]
    Nothing,
    /// Scores of other programs can be opened.
    Import,
    /// Scripts that reproduce the run.
    Python,
}

/// The button and its menu. Esc, a click elsewhere and another menu close it.
#[component]
pub fn Export(
    /// The views, the card's own first.
    #[prop(into)]
    views: Callback<(), Vec<ViewKind>>,
    #[prop(optional)] also: Also,
) -> impl IntoView {
    let is_open = RwSignal::new(false);
    let root = NodeRef::<html::Details>::new();
    let summary = NodeRef::<html::Summary>::new();
    let close = move || {
        if let Some(root) = root.get_untracked() {
            root.set_open(false);
        }
    };
    let handle = window_event_listener(leptos::ev::pointerdown, move |event| {
        let target = event.target().and_then(|target| target.dyn_into::<web_sys::Node>().ok());
        let is_inside = root.get_untracked().is_some_and(|root| root.contains(target.as_ref()));
        if !is_inside && is_open.get_untracked() {
            close();
        }
    });
    on_cleanup(move || handle.remove());
    let first = views.run(()).first().map_or("", |view| view.slug());
    let label = views.run(()).first().map_or_else(String::new, |view| format!("Export: {}", view.label()));
    view! {
        <details
            class="export"
            name="export"
            node_ref=root
            on:toggle=move |_| is_open.set(root.get_untracked().is_some_and(|root| root.open()))
            on:keydown=move |event| {
                if event.key() == "Escape" && is_open.get_untracked() {
                    // The page's own Esc releases the held head.
                    event.stop_propagation();
                    close();
                    if let Some(summary) = summary.get_untracked() {
                        let _ = summary.focus();
                    }
                }
            }
        >
            <summary
                class="button export-button"
                node_ref=summary
                aria-label=label.clone()
                title=label
                data-testid=format!("export-{first}")
            >
                <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
                    <path d="M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11" fill="none" stroke="currentColor" stroke-width="1.6" />
                </svg>
                <span class="export-word">"Export"</span>
            </summary>
            <Show when=move || is_open.get()>
                <Menu views also />
            </Show>
        </details>
    }
}

#[component]
fn Menu(views: Callback<(), Vec<ViewKind>>, also: Also) -> impl IntoView {
    let page = page();
    let said = RwSignal::new(String::new());
    let rows = page.select(move |state| {
        let views = views.run(()).into_iter();
        views.map(|view| (view, view.is_there(state))).collect::<Vec<_>>()
    });
    view! {
        <div class="export-menu" data-testid="export-menu">
            {move || {
                rows.get()
                    .into_iter()
                    // A second view is offered once it is there.
                    .enumerate()
                    .filter(|(index, (_, is_there))| *index == 0 || *is_there)
                    .map(|(_, (view, is_there))| view! { <Row view is_there said /> })
                    .collect_view()
            }}
            {match also {
                Also::Nothing => ().into_any(),
                Also::Import => view! { <ImportRow /> }.into_any(),
                Also::Python => view! { <PythonRow said /> }.into_any(),
            }}
            <p class="export-said" role="status" data-testid="export-said">{move || said.get()}</p>
        </div>
    }
}

#[component]
fn Row(view: ViewKind, is_there: bool, said: RwSignal<String>) -> impl IntoView {
    let page = page();
    let slug = view.slug();
    let buttons = Format::ALL.map(|format| {
        let ending = format.ending();
        let own = view! {
            <button
                class="button export-format"
                data-testid=format!("export-{slug}-{ending}")
                on:click=move |_| save(page, view, format, None, said)
            >
                {ending.to_uppercase()}
            </button>
        };
        let pixels = (format == Format::Svg).then(|| {
            SCALES
                .map(|scale| {
                    view! {
                        <button
                            class="button export-format"
                            aria-label=format!("PNG, {scale} times the size")
                            data-testid=format!("export-{slug}-png-{scale}")
                            on:click=move |_| save(page, view, format, Some(scale), said)
                        >
                            {if scale == 1 { "PNG 1×".to_owned() } else { format!("{scale}×") }}
                        </button>
                    }
                })
                .collect_view()
        });
        view! { {own} {pixels} }
    });
    let buttons = is_there.then(|| buttons.collect_view());
    view! {
        <div class="export-row" role="group" aria-label=view.label()>
            <span class="export-label">{view.label()}</span>
            {match buttons {
                Some(buttons) => view! { <div class="export-formats">{buttons}</div> }.into_any(),
                None => view! { <p class="quiet">"Nothing to export yet."</p> }.into_any(),
            }}
        </div>
    }
}

/// Saves a view, as pixels where a scale is given, and says what became of it.
fn save(page: Page, view: ViewKind, format: Format, scale: Option<u32>, said: RwSignal<String>) {
    let Some(file) = page.state.with_untracked(|state| view.file(state, format)) else {
        return said.set("The numbers have changed since; try again once they are there.".to_owned());
    };
    spawn_local(async move {
        let saved = match scale {
            None => download::save(&file),
            Some(scale) => download::save_png(&file, scale).await,
        };
        let text = match saved {
            Ok(name) => format!("Saved {name}."),
            Err(why) => format!("Not saved: {why}."),
        };
        said.try_set(text);
    });
}

/// Scripts for Python.
#[component]
fn PythonRow(said: RwSignal<String>) -> impl IntoView {
    let page = page();
    let buttons = [("TransformerLens", Library::TransformerLens), ("nnsight", Library::Nnsight)]
        .map(|(name, library)| {
            view! {
                <button
                    class="button export-format"
                    data-testid=format!("export-python-{}", library.name())
                    on:click=move |_| {
                        said.set("Writing the script …".to_owned());
                        page.send(Msg::Script(library));
                    }
                >
                    {format!("Python: {name}")}
                </button>
            }
        })
        .collect_view();
    view! {
        <div class="export-row" role="group" aria-label="Python">
            <span class="export-label">"This run in Python"</span>
            <div class="export-formats">{buttons}</div>
        </div>
    }
}

/// Opens a file with scores of heads.
#[component]
fn ImportRow() -> impl IntoView {
    let page = page();
    let on_file = Callback::new(move |file| open(page, file));
    view! {
        <div class="export-row" role="group" aria-label="Import">
            <span class="export-label">"Scores of another run or program"</span>
            <div class="export-formats">
                <ChooseFile
                    text="Import JSON or CSV …"
                    title="A report of detect or sweep, {metric: [[number per head] per layer]}, or CSV with layer, head and one column a metric"
                    class="button export-format"
                    accept=".json,.csv,application/json,text/csv"
                    label="File with scores of heads"
                    testid="import-file"
                    on_file
                />
            </div>
        </div>
    }
}

fn open(page: Page, file: web_sys::File) {
    let (name, size_bytes) = (file.name(), file.size() as usize);
    let refused = |message: String| {
        let code = "bad_import".to_owned();
        Msg::Failed(ErrorReport { code, message, recoverable: true, detail: None })
    };
    if size_bytes > MAX_BYTES {
        let error = ImportError::TooLarge { size_bytes };
        return page.send(refused(format!("the file {name} was not imported: {error}")));
    }
    spawn_local(async move {
        page.send(match download::read_text(&file).await {
            Some(text) => Msg::Import { file: name, text },
            None => refused(format!("the file {name} cannot be read; choose it again")),
        });
    });
}
