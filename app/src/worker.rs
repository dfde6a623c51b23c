//! The worker: receives [`Request`]s, runs the engine stepwise, answers with [`Event`]s. One engine at a time for each page.
//!
//! Between steps it lets the event loop run, so that a cancellation or a newer view is seen at once. Several pages may use one
//! worker: whoever started it passes on `{connect: number}` with a port for each further one, and `{disconnect: number}` once that
//! is gone.

mod cancel;
mod fetch;
mod load;
mod post;
mod session;
mod shared;

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent, MessagePort};

use crate::protocol::{Call, Event, PROTOCOL, Request};

/// A request: whose, and the number that it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// The page's connection.
    connection: u32,
    /// The page's number for it.
    number: u32,
}

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
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(|event: MessageEvent| match word_of(&event) {
        Some(Word::Connect(connection, port)) => connect(connection, port),
        Some(Word::Disconnect(connection)) => shared::close(connection),
        None => receive(post::OWN, &event),
    });
    scope().set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    // The worker listens for as long as it lives.
    on_message.forget();
    greet(post::OWN);
}

/// What whoever started the worker says of other pages.
enum Word {
    Connect(u32, MessagePort),
    Disconnect(u32),
}

fn word_of(event: &MessageEvent) -> Option<Word> {
    let number = |name: &str| {
        let value = js_sys::Reflect::get(&event.data(), &name.into()).ok()?.as_f64();
        value.map(|value| value as u32).filter(|connection| *connection != post::OWN)
    };
    let port = || event.ports().get(0).dyn_into::<MessagePort>().ok();
    match number("connect") {
        Some(connection) => Some(Word::Connect(connection, port()?)),
        None => number("disconnect").map(Word::Disconnect),
    }
}

fn connect(connection: u32, port: MessagePort) {
    let on_message =
        Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| receive(connection, &event));
    // Opens the port as well; collected with it.
    port.set_onmessage(Some(on_message.into_js_value().unchecked_ref()));
    post::open(connection, port);
    greet(connection);
}

fn greet(connection: u32) {
    post::event(
        connection,
        &Event::Ready { protocol: PROTOCOL, build: env!("CARGO_PKG_VERSION").to_owned() },
    );
}

fn receive(connection: u32, event: &MessageEvent) {
    let Request { id: number, call } = match serde_wasm_bindgen::from_value::<Request>(event.data()) {
        Ok(request) => request,
        Err(error) => {
            let error =
                post::error("protocol", &format!("the worker does not understand a message: {error}"));
            return post::event(connection, &Event::Failed { id: 0, error });
        }
    };
    let of = move |number: u32| RequestId { connection, number };
    match call {
        Call::Cancel(other) => cancel::cancel(of(other)),
        Call::Pause(other) => cancel::pause(of(other)),
        Call::Resume(other) => cancel::resume(of(other)),
        // For tests of the page's recovery.
        Call::Crash => panic!("asked to crash"),
        call => {
            let session = shared::session_of(connection);
            wasm_bindgen_futures::spawn_local(async move {
                let event = match session::answer(&session, of(number), call).await {
                    Ok(reply) => Event::Done { id: number, reply: Box::new(reply) },
                    Err(error) => Event::Failed { id: number, error },
                };
                cancel::forget(of(number));
                post::event(connection, &event);
            });
        }
    }
}
