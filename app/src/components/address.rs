//! The address bar follows the page, and the page follows the address bar: a view is opened from what stands behind `#`,
//! kept there as it changes, and gone back to by the browser's own buttons.

use std::time::Duration;

use leptos::prelude::*;
use wasm_bindgen::JsValue;

use super::Page;
use crate::link::Link;
use crate::state::Msg;

/// Pause after the last keystroke before the address is written.
const WRITE_PAUSE: Duration = Duration::from_millis(400);

/// Opens what the address says and keeps it up to date.
pub fn follow(page: Page) {
    if !fragment().is_empty() {
        open(page);
    }
    // An embed is part of its host's history, and writes nothing there.
    if page.state.with_untracked(|state| state.embed.is_some()) {
        return;
    }
    let handle = window_event_listener(leptos::ev::popstate, move |_| open(page));
    on_cleanup(move || handle.remove());
    let link = page.select(|state| state.link());
    let is_settled = page.select(|state| state.model.is_some() && state.loading.is_none());
    let written = StoredValue::new(link.get_untracked());
    // A change that waits for its pause: typing makes one entry of the history, not one a letter.
    let waiting = StoredValue::new(None::<TimeoutHandle>);
    Effect::new(move |_| {
        let now = link.get();
        if !is_settled.get() || written.with_value(|written| *written == now) {
            return;
        }
        // What was opened stands there already, with the sender's numbers.
        if page.state.with_untracked(|state| state.is_as_opened()) {
            return written.set_value(now);
        }
        let is_pending =
            waiting.try_update_value(Option::take).flatten().map(|handle| handle.clear()).is_some();
        let is_step = written.with_value(|written| now.is_step_from(written));
        if is_step {
            if is_pending {
                written.with_value(|written| write(written, false));
            }
            write(&now, true);
        } else {
            let late = now.clone();
            let write_late = move || {
                waiting.set_value(None);
                write(&late, false);
            };
            waiting.set_value(set_timeout_with_handle(write_late, WRITE_PAUSE).ok());
        }
        written.set_value(now);
    });
}

fn fragment() -> String {
    window().location().hash().unwrap_or_default()
}

fn open(page: Page) {
    page.send(match Link::decode(&fragment()) {
        Ok(link) => Msg::Open(Box::new(link)),
        Err(error) => Msg::Failed(error.report()),
    });
}

/// Where the page is, without query and fragment.
fn page_address() -> String {
    let location = window().location();
    [location.origin(), location.pathname()].map(Result::unwrap_or_default).concat()
}

/// The address of a view, or of this page alone.
pub fn address_of(link: &Link) -> String {
    match link.encode() {
        letters if letters.is_empty() => page_address(),
        letters => format!("{}#{letters}", page_address()),
    }
}

/// Browsers that take too many changes for a flood refuse one; the next one succeeds.
fn write(link: &Link, is_step: bool) {
    let Ok(history) = window().history() else { return };
    let location = window().location();
    let path = [location.pathname(), location.search()].map(Result::unwrap_or_default).concat();
    let address = match link.encode() {
        letters if letters.is_empty() => path,
        letters => format!("{path}#{letters}"),
    };
    let _ = match is_step {
        true => history.push_state_with_url(&JsValue::NULL, "", Some(&address)),
        false => history.replace_state_with_url(&JsValue::NULL, "", Some(&address)),
    };
}
