//! The worker: receives [`Request`]s, runs the engine stepwise, answers with [`Event`]s. One engine at a time.
//!
//! Between steps it lets the event loop run, so that a cancellation or a newer view is seen at once.

mod cancel;
mod fetch;
mod load;
mod post;
mod session;

use std::cell::RefCell;
use std::rc::Rc;

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

use crate::protocol::{Call, Event, PROTOCOL, Request};
use session::Session;

/// This worker's global scope.
fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// Milliseconds since the worker started.
fn now_ms() -> f64 {
    scope().performance().map_or(0.0, |performance| performance.now())
}

/// What the worker's start script says of it under a name.
fn told(name: &str) -> Option<String> {
    js_sys::Reflect::get(&scope(), &name.into()).ok()?.as_string()
}

/// The machine's memory, GiB, where the browser tells it.
fn memory_gib() -> Option<f64> {
    js_sys::Reflect::get(&scope().navigator(), &"deviceMemory".into()).ok()?.as_f64()
}

/// The CPU as reports name it, with the instructions that this build uses.
fn cpu_name(engine: &str) -> String {
    format!("{engine} ({})", told("headlightSimd").unwrap_or_else(|| "SIMD".to_owned()))
}

/// What a future gives, or nothing if that takes longer.
async fn within_ms<T>(limit_ms: i32, future: impl Future<Output = T>) -> Option<T> {
    let late = js_sys::Promise::new(&mut |resolve, _| {
        let set = scope().set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, limit_ms);
        set.expect("workers have timers");
    });
    let future = std::pin::pin!(future);
    match futures::future::select(future, wasm_bindgen_futures::JsFuture::from(late)).await {
        futures::future::Either::Left((value, _)) => Some(value),
        futures::future::Either::Right(_) => None,
    }
}

/// Listens for requests, then tells the page so.
pub fn start() {
    console_error_panic_hook::set_once();
    let session = Rc::new(RefCell::new(Session::default()));
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
        match serde_wasm_bindgen::from_value::<Request>(event.data()) {
            Ok(request) => receive(&session, request),
            Err(error) => {
                let error =
                    post::error("protocol", &format!("the worker does not understand a message: {error}"));
                post::event(&Event::Failed { id: 0, error });
            }
        }
    });
    scope().set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    // The worker listens for as long as it lives.
    on_message.forget();
    post::event(&Event::Ready { protocol: PROTOCOL, build: env!("CARGO_PKG_VERSION").to_owned() });
}

fn receive(session: &Rc<RefCell<Session>>, request: Request) {
    let Request { id, call } = request;
    match call {
        Call::Cancel(other) => cancel::cancel(other),
        Call::Pause(other) => cancel::pause(other),
        Call::Resume(other) => cancel::resume(other),
        // For tests of the page's recovery.
        Call::Crash => panic!("asked to crash"),
        call => {
            let session = Rc::clone(session);
            wasm_bindgen_futures::spawn_local(async move {
                let event = match session::answer(&session, id, call).await {
                    Ok(reply) => Event::Done { id, reply: Box::new(reply) },
                    Err(error) => Event::Failed { id, error },
                };
                cancel::forget(id);
                post::event(&event);
            });
        }
    }
}
