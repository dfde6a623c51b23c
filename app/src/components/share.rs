//! Links to the page: the dialog that makes one, and the note that says whether an opened one was reproduced.

use leptos::{html, prelude::*};
use wasm_bindgen_futures::JsFuture;

use super::address::address_of;
use super::modal::Modal;
use super::page;
use crate::state::Msg;
use crate::state::share::Verdict;
use crate::view_model::share::{imported_note, markdown, qr_path, verdict_text};

/// The header's button and its dialog.
#[component]
pub fn Share() -> impl IntoView {
    let page = page();
    let is_open = RwSignal::new(false);
    let has_numbers = RwSignal::new(true);
    // Made only while somebody looks: a link is packed anew at every change.
    let link = Memo::new(move |_| {
        is_open.get().then(|| {
            page.state.with(|state| if has_numbers.get() { state.link_with_numbers() } else { state.link() })
        })
    });
    let address = Memo::new(move |_| link.with(|link| link.as_ref().map(address_of)).unwrap_or_default());
    let text = move || {
        link.with(|link| link.as_ref().map(|link| markdown(link, &address.get()))).unwrap_or_default()
    };
    let is_local = move || {
        link.with(|link| {
            link.as_ref().is_some_and(|link| link.model.sha256.is_some() && link.model.url.is_none())
        })
    };
    let of_imports = move || link.with(|link| link.as_ref().and_then(imported_note));
    let lacks_numbers = move || {
        has_numbers.get() && link.with(|link| link.as_ref().is_some_and(|link| link.numbers.is_none()))
    };
    view! {
        <button
            class="button"
            data-testid="share"
            aria-haspopup="dialog"
            on:click=move |_| is_open.set(true)
        >
            "Share"
        </button>
        <Modal title="Share this view" is_open>
            <div class="share">
                <p class="quiet">
                    "The link holds everything that is shown: model, prompt, heads, edits, settings. It goes nowhere by itself; the part behind # is never sent to a server."
                </p>
                <CopyLine text=Signal::derive(move || address.get()) label="Copy link" testid="share-link" />
                <CopyLine text=Signal::derive(text) label="Copy Markdown" testid="share-markdown" />
                <label class="setting">
                    <input
                        type="checkbox"
                        data-testid="share-numbers"
                        prop:checked=move || has_numbers.get()
                        on:change=move |event| has_numbers.set(event_target_checked(&event))
                    />
                    <span>"With my numbers, so that whoever opens it sees whether theirs are the same"</span>
                </label>
                <p class="quiet" data-testid="share-length">
                    {move || format!("{} letters.", address.get().chars().count())}
                    {move || lacks_numbers().then_some(" The numbers are still being computed.")}
                    {move || is_local().then_some(" The model is a file of yours: whoever opens the link needs the same file.")}
                    " "
                    {of_imports}
                </p>
                {move || match qr_path(&address.get()) {
                    Some((size, path)) => {
                        view! {
                            <svg
                                class="qr"
                                data-testid="share-qr"
                                role="img"
                                aria-label="The link as a QR code"
                                viewBox=format!("0 0 {size} {size}")
                                shape-rendering="crispEdges"
                            >
                                <rect width=size height=size fill="#fff" />
                                <path d=path fill="#000" />
                            </svg>
                        }
                            .into_any()
                    }
                    None => view! { <p class="quiet">"Too long for a QR code that a phone can read."</p> }.into_any(),
                }}
            </div>
        </Modal>
    }
}

/// A text to copy. Where the clipboard is refused, as in a sandbox, the text stays selected for the keyboard's own copy.
#[component]
fn CopyLine(#[prop(into)] text: Signal<String>, label: &'static str, testid: &'static str) -> impl IntoView {
    let field = NodeRef::<html::Input>::new();
    let is_copied = RwSignal::new(false);
    Effect::new(move |_| {
        text.track();
        is_copied.set(false);
    });
    let copy = move |_| {
        if let Some(field) = field.get_untracked() {
            field.select();
        }
        let copied = window().navigator().clipboard().write_text(&text.get_untracked());
        leptos::task::spawn_local(async move {
            is_copied.set(JsFuture::from(copied).await.is_ok());
        });
    };
    view! {
        <div class="copy-line">
            <input
                class="field"
                readonly
                aria-label=label
                data-testid=testid
                node_ref=field
                prop:value=move || text.get()
                on:focus=move |_| {
                    if let Some(field) = field.get_untracked() {
                        field.select();
                    }
                }
            />
            <button class="button" data-testid=format!("{testid}-copy") on:click=copy>
                <span aria-live="polite">{move || if is_copied.get() { "Copied" } else { label }}</span>
            </button>
        </div>
    }
}

/// What became of the numbers in the link that was opened.
#[component]
pub fn SharedNote() -> impl IntoView {
    let page = page();
    let verdict = page.select(|state| state.verdict());
    view! {
        <div aria-live="polite">
            {move || {
                let verdict = verdict.get()?;
                let (text, lines) = verdict_text(&verdict);
                Some(view! {
                    <section
                        class="shared-note"
                        class:shared-good=matches!(verdict, Verdict::Reproduced { .. })
                        class:shared-bad=matches!(verdict, Verdict::Different(_))
                        data-testid="shared-note"
                    >
                        <div>
                            <p>{text}</p>
                            {(!lines.is_empty())
                                .then(|| {
                                    view! {
                                        <ul>{lines.into_iter().map(|line| view! { <li>{line}</li> }).collect_view()}</ul>
                                    }
                                })}
                        </div>
                        <button
                            class="button button-icon"
                            aria-label="Close this note"
                            on:click=move |_| page.send(Msg::DismissShared)
                        >
                            "×"
                        </button>
                    </section>
                })
            }}
        </div>
    }
}
