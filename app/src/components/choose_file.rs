//! A button that asks for a file of the reader's.

use leptos::{html, prelude::*};
use web_sys::File;

/// The button and the input behind it, whose test id is `testid`; `on_file` gets what was chosen.
#[component]
pub fn ChooseFile(
    /// The button's text.
    text: &'static str,
    /// Its tooltip.
    #[prop(optional)]
    title: Option<&'static str>,
    /// Its class.
    class: &'static str,
    /// Endings and types of files, as the input's `accept`.
    accept: &'static str,
    /// What the file is.
    label: &'static str,
    /// Of the input; the button's has `-button` after it.
    testid: &'static str,
    on_file: Callback<File>,
) -> impl IntoView {
    let input = NodeRef::<html::Input>::new();
    view! {
        <input
            type="file"
            accept=accept
            class="sr-only"
            tabindex="-1"
            aria-label=label
            data-testid=testid
            node_ref=input
            on:change=move |_| {
                let Some(input) = input.get_untracked() else { return };
                if let Some(file) = input.files().and_then(|files| files.get(0)) {
                    on_file.run(file);
                }
                // So that the same file can be chosen again.
                input.set_value("");
            }
        />
        <button
            class=class
            data-testid=format!("{testid}-button")
            title=title
            on:click=move |_| {
                if let Some(input) = input.get_untracked() {
                    input.click();
                }
            }
        >
            {text}
        </button>
    }
}
