//! Long requests as the page sees them: what the worker says of one, and how far it is.

use std::sync::Arc;

use crate::protocol::{ErrorReport, Progress, Reply};

/// How far a long request is, whose answer is an `R`.
#[derive(Clone, Debug, PartialEq)]
pub enum JobStage<R> {
    /// At work, with its last report.
    Running(Option<Progress>),
    /// Done.
    Done(Arc<R>),
    /// Stopped by the user, or because its model went.
    Stopped,
    /// It cannot run.
    Failed(ErrorReport),
}

impl<R> JobStage<R> {
    /// After a failure: being stopped is none.
    pub fn after(error: ErrorReport) -> Self {
        let is_stopped = ["cancelled", "crashed", "no_model"].contains(&error.code.as_str());
        if is_stopped { Self::Stopped } else { Self::Failed(error) }
    }

    /// Whether the worker has it in hand, paused or not.
    pub fn is_at_work(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

/// What the worker says of a long request.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEvent {
    /// It is so far.
    Progress(Progress),
    /// It is done.
    Done(Arc<Reply>),
    /// It failed or was stopped.
    Failed(ErrorReport),
}
