//! The palette: follows the system until the user chooses, and remembers the choice where storage is allowed.

use leptos::prelude::*;
use wasm_bindgen::prelude::*;

use super::{Page, kept, page};
use crate::state::{Msg, ThemeChoice};
use crate::view_model::colour::Theme;

/// Where the choice is kept; index.html reads it before the first paint.
const STORAGE_KEY: &str = "headlight-theme";

fn kept_choice() -> ThemeChoice {
    match kept::get(STORAGE_KEY).as_deref() {
        Some("light") => ThemeChoice::Fixed(Theme::Light),
        Some("dark") => ThemeChoice::Fixed(Theme::Dark),
        _ => ThemeChoice::System,
    }
}

/// Reads the kept choice and follows the system's palette.
pub fn follow(page: Page) {
    let flags = page.state.with_untracked(|state| state.embed.clone());
    let choice = match flags {
        // An embed neither follows nor changes what was chosen on the page.
        Some(flags) => flags.theme.map_or(ThemeChoice::System, ThemeChoice::Fixed),
        None => kept_choice(),
    };
    page.state.update(|state| state.theme_choice = choice);
    let Ok(Some(query)) = window().match_media("(prefers-color-scheme: dark)") else { return };
    let theme_of = |is_dark: bool| if is_dark { Theme::Dark } else { Theme::Light };
    page.send(Msg::SystemTheme(theme_of(query.matches())));
    let asked = query.clone();
    let on_change =
        Closure::<dyn FnMut()>::new(move || page.send(Msg::SystemTheme(theme_of(asked.matches()))));
    query.set_onchange(Some(on_change.as_ref().unchecked_ref()));
    // The page listens for as long as it lives.
    on_change.forget();
}

/// Applies a choice and remembers it.
pub fn keep(choice: ThemeChoice) {
    let name = match choice {
        ThemeChoice::System => None,
        ThemeChoice::Fixed(Theme::Light) => Some("light"),
        ThemeChoice::Fixed(Theme::Dark) => Some("dark"),
    };
    if let Some(root) = document().document_element() {
        let _ = match name {
            Some(name) => root.set_attribute("data-theme", name),
            None => root.remove_attribute("data-theme"),
        };
    }
    match name {
        Some(name) => kept::put(STORAGE_KEY, name),
        None => kept::forget(STORAGE_KEY),
    }
}

/// Switches between light and dark.
#[component]
pub fn ThemeToggle() -> impl IntoView {
    let page = page();
    let theme = page.select(|state| state.theme());
    let other = move || match theme.get() {
        Theme::Light => Theme::Dark,
        Theme::Dark => Theme::Light,
    };
    let label = move || match other() {
        Theme::Light => "Light colours",
        Theme::Dark => "Dark colours",
    };
    view! {
        <button
            class="button button-icon"
            data-testid="theme-toggle"
            aria-label=label
            title=label
            on:click=move |_| page.send(Msg::SetTheme(ThemeChoice::Fixed(other())))
        >
            <svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">
                <circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6" />
                <path d="M8 1.800a6.200 6.200 0 0 1 0 12.400z" fill="currentColor" />
            </svg>
        </button>
    }
}
