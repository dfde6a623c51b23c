//! This machine: how fast it runs the model, measured when the user asks, and how many workers share long work.

use std::sync::Arc;

use headlight_core::report::BenchReport;

use super::{AppState, Task};
use crate::protocol::ErrorReport;

/// Prompt lengths that are timed, as far as the model reads them.
const LENGTHS: [usize; 3] = [64, 128, 512];
/// Runs of each.
pub const N_REPEATS: usize = 3;

/// A measurement of the model that answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Measurement {
    /// Under way.
    Running,
    /// What was measured.
    Done(Arc<BenchReport>),
    /// Why nothing was.
    Failed(ErrorReport),
}

/// What happens to the measurement and to the number of workers.
#[derive(Clone, Debug, PartialEq)]
pub enum MachineMsg {
    /// The user asks for it.
    Measure,
    /// It ended.
    Ended(Result<Arc<BenchReport>, ErrorReport>),
    /// The user chooses how many workers share long work; `None` for as many as the machine bears.
    ChooseWorkers(Option<usize>),
}

/// Changes either and says what follows.
pub(super) fn update(state: &mut AppState, msg: MachineMsg) -> Vec<Task> {
    match msg {
        MachineMsg::Measure => {
            let Some(model) = &state.model else { return Vec::new() };
            if state.measurement == Some(Measurement::Running) {
                return Vec::new();
            }
            let n_ctx = model.info.n_ctx;
            state.measurement = Some(Measurement::Running);
            let mut prefill: Vec<usize> = LENGTHS.iter().map(|&length| length.min(n_ctx)).collect();
            prefill.dedup();
            return vec![Task::Measure { prefill }];
        }
        // Of a model that has gone meanwhile: nothing waits for it any more.
        MachineMsg::Ended(_) if state.measurement != Some(Measurement::Running) => {}
        MachineMsg::Ended(Ok(report)) => state.measurement = Some(Measurement::Done(report)),
        MachineMsg::Ended(Err(error)) => state.measurement = Some(Measurement::Failed(error)),
        MachineMsg::ChooseWorkers(n_workers) => {
            state.n_workers = n_workers;
            return vec![Task::KeepWorkers(n_workers)];
        }
    }
    Vec::new()
}
