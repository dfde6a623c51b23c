//! What the worker says to the page.

use super::cancel::paused_ms;
use crate::protocol::{ErrorReport, Event, Progress, Stage};

/// Sends an event.
///
/// # Panics
/// When an event cannot be serialised or posted, which only our own bug can cause.
pub fn event(event: &Event) {
    let message = serde_wasm_bindgen::to_value(event).expect("events are plain data");
    super::scope().post_message(&message).expect("plain data can be posted");
}

/// An error that can be recovered from.
pub fn error(code: &str, message: &str) -> ErrorReport {
    ErrorReport { code: code.to_owned(), message: message.to_owned(), recoverable: true, detail: None }
}

/// The engine's error as it crosses to the page.
pub fn engine_error(error: &headlight_core::error::Error) -> ErrorReport {
    ErrorReport {
        code: error.code().to_owned(),
        message: error.to_string(),
        recoverable: error.recoverable(),
        detail: Some(format!("{error:?}").chars().take(400).collect()),
    }
}

/// Reports the progress of one stage, at most every tenth of a second, and always its end.
pub struct Reporter {
    id: u32,
    stage: Stage,
    start_ms: f64,
    /// How long the request had been paused when the stage began, milliseconds.
    paused_before_ms: f64,
    last_ms: f64,
}

impl Reporter {
    /// A stage of request `id` begins.
    pub fn new(id: u32, stage: Stage) -> Self {
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
        event(&Event::Progress { id: self.id, progress });
    }
    /// Time at work by `now_ms`: a pause tells nothing of how fast the work goes.
    pub fn elapsed_ms(&self, now_ms: f64) -> f64 {
        now_ms - self.start_ms - (paused_ms(self.id) - self.paused_before_ms)
    }
}
