//! What the worker says to its pages, each over a connection of its own.

use std::cell::RefCell;
use std::collections::HashMap;

use web_sys::MessagePort;

use super::cancel::paused_ms;
use super::{RequestId, shared};
use crate::protocol::{ErrorReport, Event, Progress, Stage};

/// The connection of the page that started the worker, over the worker itself.
pub const OWN: u32 = 0;

thread_local! {
    /// The other pages' ends.
    static PORTS: RefCell<HashMap<u32, MessagePort>> = RefCell::default();
}

/// Another page listens at this port.
pub fn open(connection: u32, port: MessagePort) {
    PORTS.with_borrow_mut(|ports| ports.insert(connection, port));
}

/// The page is gone.
pub fn close(connection: u32) {
    if let Some(port) = PORTS.with_borrow_mut(|ports| ports.remove(&connection)) {
        port.close();
    }
}

/// Sends an event to a page; to one that is gone, nothing.
///
/// # Panics
/// When an event cannot be serialised or posted, which only our own bug can cause.
pub fn event(connection: u32, event: &Event) {
    let message = serde_wasm_bindgen::to_value(event).expect("events are plain data");
    let posted = match connection {
        OWN => super::scope().post_message(&message),
        _ => PORTS
            .with_borrow(|ports| ports.get(&connection).map_or(Ok(()), |port| port.post_message(&message))),
    };
    posted.expect("plain data can be posted");
}

/// An error that can be recovered from.
pub fn error(code: &str, message: &str) -> ErrorReport {
    ErrorReport { code: code.to_owned(), message: message.to_owned(), recoverable: true, detail: None }
}

/// The engine's error as it crosses to the page; a device's has what happened for its detail.
pub fn engine_error(error: &headlight_core::error::Error) -> ErrorReport {
    let detail = error.device_event().unwrap_or_else(|| format!("{error:?}"));
    ErrorReport {
        code: error.code().to_owned(),
        message: error.to_string(),
        recoverable: error.recoverable(),
        detail: Some(detail.chars().take(400).collect()),
    }
}

/// Reports the progress of one stage, at most every tenth of a second, and always its end.
pub struct Reporter {
    id: RequestId,
    stage: Stage,
    start_ms: f64,
    /// How long the request had been paused when the stage began, milliseconds.
    paused_before_ms: f64,
    last_ms: f64,
}

impl Reporter {
    /// A stage of request `id` begins.
    pub fn new(id: RequestId, stage: Stage) -> Self {
        Self {
            id,
            stage,
            start_ms: super::now_ms(),
            paused_before_ms: paused_ms(id),
            last_ms: f64::NEG_INFINITY,
        }
    }

    /// `done` of `total` units are done.
    pub fn report(&mut self, done: u64, total: Option<u64>) {
        self.report_with(done, total, || (None, None));
    }

    /// The same, with the numbers and the text so far.
    pub fn report_with(
        &mut self,
        done: u64,
        total: Option<u64>,
        partial: impl FnOnce() -> (Option<Vec<Vec<f32>>>, Option<String>),
    ) {
        let now = super::now_ms();
        if now - self.last_ms < 100.0 && total != Some(done) {
            return;
        }
        self.last_ms = now;
        let elapsed_ms = self.elapsed_ms(now);
        let (scores, text) = partial();
        let progress = Progress { stage: self.stage, done, total, elapsed_ms, scores, preview: None, text };
        for id in shared::followers_of(self.id).into_iter().chain([self.id]) {
            event(id.connection, &Event::Progress { id: id.number, progress: progress.clone() });
        }
    }
    /// Time at work by `now_ms`: a pause tells nothing of how fast the work goes.
    pub fn elapsed_ms(&self, now_ms: f64) -> f64 {
        now_ms - self.start_ms - (paused_ms(self.id) - self.paused_before_ms)
    }
}
