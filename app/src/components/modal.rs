//! A dialog over the page: its title, a button that closes it, and whatever stands in it.

use leptos::{html, prelude::*};

/// Shown while `is_open`. Esc, a click beside it and its own button close it; the focus goes back to where it was.
#[component]
pub fn Modal(title: &'static str, is_open: RwSignal<bool>, children: Children) -> impl IntoView {
    let dialog = NodeRef::<html::Dialog>::new();
    Effect::new(move |_| {
        let Some(dialog) = dialog.get() else { return };
        match (is_open.get(), dialog.open()) {
            (true, false) => {
                let _ = dialog.show_modal();
            }
            (false, true) => dialog.close(),
            _ => {}
        }
    });
    view! {
        <dialog
            class="picker"
            node_ref=dialog
            aria-label=title
            on:close=move |_| is_open.set(false)
            on:click=move |event| {
                let dialog = dialog.get_untracked();
                // What stands in the dialog is the target of its own clicks; the dialog itself is that of those beside it.
                if dialog.is_some_and(|dialog| event.target().as_ref() == Some(dialog.as_ref())) {
                    is_open.set(false);
                }
            }
        >
            <div class="picker-head">
                <h2>{title}</h2>
                <button class="button" on:click=move |_| is_open.set(false)>"Close"</button>
            </div>
            {children()}
        </dialog>
    }
}
