//! Which requests are cancelled, and letting the event loop run so that a cancellation arrives.

use std::cell::RefCell;
use std::collections::HashSet;

use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::MessageChannel;

use super::post;
use crate::protocol::ErrorReport;

/// Longest stretch of work between two looks at the event loop, milliseconds.
const MAX_BUSY_MS: f64 = 12.0;

thread_local! {
    static CANCELLED: RefCell<HashSet<u32>> = RefCell::default();
}

/// Cancels a request; nothing happens when it has ended.
pub fn cancel(id: u32) {
    CANCELLED.with_borrow_mut(|cancelled| cancelled.insert(id));
}

/// A request has ended.
pub fn forget(id: u32) {
    CANCELLED.with_borrow_mut(|cancelled| cancelled.remove(&id));
}

/// Fails once a request is cancelled.
pub fn check(id: u32) -> Result<(), ErrorReport> {
    if CANCELLED.with_borrow(|cancelled| cancelled.contains(&id)) {
        return Err(post::error("cancelled", "cancelled"));
    }
    Ok(())
}

/// Keeps one request from blocking the worker's event loop.
pub struct Breather {
    id: u32,
    since_ms: f64,
}

impl Breather {
    /// For request `id`.
    pub fn new(id: u32) -> Self {
        Self { id, since_ms: super::now_ms() }
    }

    /// Lets the event loop run if it has not for a while; fails when the request was cancelled meanwhile.
    pub async fn breathe(&mut self) -> Result<(), ErrorReport> {
        if super::now_ms() - self.since_ms > MAX_BUSY_MS {
            next_task().await;
            self.since_ms = super::now_ms();
        }
        check(self.id)
    }
}

/// Resolves in a task of its own, after the messages that wait now. A message channel, because timers are held back
/// to 4 ms.
async fn next_task() {
    let promise = Promise::new(&mut |resolve, _| {
        let channel = MessageChannel::new().expect("workers have message channels");
        let port = channel.port1();
        let done = Closure::once_into_js(move || {
            let _ = resolve.call0(&JsValue::NULL);
        });
        port.set_onmessage(Some(done.unchecked_ref()));
        channel.port2().post_message(&JsValue::NULL).expect("null can be posted");
    });
    // The promise never rejects.
    let _ = JsFuture::from(promise).await;
}

#[cfg(test)]
mod tests {
    use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

    use super::*;

    wasm_bindgen_test_configure!(run_in_dedicated_worker);

    #[wasm_bindgen_test]
    async fn a_cancellation_arrives_while_a_request_works() {
        let channel = MessageChannel::new().expect("workers have message channels");
        let heard = Closure::once_into_js(|| cancel(7));
        channel.port1().set_onmessage(Some(heard.unchecked_ref()));
        channel.port2().post_message(&JsValue::NULL).expect("null can be posted");
        let (mut cancelled, mut other) = (Breather::new(7), Breather::new(8));
        let start = super::super::now_ms();
        let mut outcome = Ok(());
        while outcome.is_ok() && super::super::now_ms() - start < 5000.0 {
            outcome = cancelled.breathe().await;
        }
        assert_eq!(outcome.map_err(|error| error.code), Err("cancelled".to_owned()));
        assert!(other.breathe().await.is_ok());
        forget(7);
        assert!(check(7).is_ok());
    }
}
