//! The detectors' part of the state: what each one was asked and how far it is, and what follows from the user's wishes
//! and the worker's answers.

use std::sync::Arc;

use headlight_core::report::{DetectReport, DetectRequest};

use super::{AppState, Task, preview_strongest, run_for_pattern};
use crate::protocol::{ErrorReport, Progress};
use crate::view_model::lens::Lens;

/// One detector on the current model.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Which run; replies to older ones are ignored.
    pub detect_id: u32,
    /// What it was asked.
    pub request: DetectRequest,
    /// Whether the user holds it.
    pub is_paused: bool,
    /// How far it is.
    pub stage: DetectionStage,
}

impl Detection {
    /// Whether the worker has it in hand, paused or not.
    pub fn is_at_work(&self) -> bool {
        matches!(self.stage, DetectionStage::Running(_))
    }
}

/// How far a detector is.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectionStage {
    /// At work, with its last report.
    Running(Option<Progress>),
    /// Done.
    Done(Arc<DetectReport>),
    /// Stopped by the user, or because its model went.
    Stopped,
    /// It cannot run.
    Failed(ErrorReport),
}

/// What happened to a detector; the user's wishes are about the lens' one.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectorMsg {
    /// Run it (again).
    Run,
    /// Stop it.
    Stop,
    /// Hold it.
    Pause,
    /// Let it go on.
    Resume,
    /// It is so far.
    Progress {
        /// Which run.
        detect_id: u32,
        /// How far, with the scores so far.
        progress: Progress,
    },
    /// It is done.
    Done {
        /// Which run.
        detect_id: u32,
        /// What it found.
        report: Arc<DetectReport>,
    },
    /// It failed or was stopped.
    Failed {
        /// Which run.
        detect_id: u32,
        /// Why.
        error: ErrorReport,
    },
}

/// Whether a detector that has run, or was stopped, runs once more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    No,
}

/// Changes the detectors' part of the state and says what follows.
pub(super) fn update(state: &mut AppState, msg: DetectorMsg) -> Vec<Task> {
    match msg {
        DetectorMsg::Run => start_detector(state, Again::Yes),
        DetectorMsg::Stop => {
            let at_work = state.lens_detection().filter(|detection| detection.is_at_work());
            at_work.map(|detection| Task::StopDetect(detection.detect_id)).into_iter().collect()
        }
        DetectorMsg::Pause => hold(state, true),
        DetectorMsg::Resume => hold(state, false),
        DetectorMsg::Progress { detect_id, progress } => {
            set_stage(state, detect_id, DetectionStage::Running(Some(progress)));
            Vec::new()
        }
        DetectorMsg::Done { detect_id, report } => {
            set_stage(state, detect_id, DetectionStage::Done(report));
            preview_strongest(state);
            run_for_pattern(state)
        }
        DetectorMsg::Failed { detect_id, error } => {
            let is_stopped = ["cancelled", "crashed", "no_model"].contains(&error.code.as_str());
            let stage = if is_stopped { DetectionStage::Stopped } else { DetectionStage::Failed(error) };
            set_stage(state, detect_id, stage);
            Vec::new()
        }
    }
}

impl AppState {
    /// The lens' detector, if it was ever asked.
    pub fn lens_detection(&self) -> Option<&Detection> {
        match self.lens {
            Lens::Detector(doc) => self.detections.get(doc.id),
            Lens::Prompt(_) => None,
        }
    }
}

/// Pauses the lens' detector or lets it go on, where that changes anything.
fn hold(state: &mut AppState, is_paused: bool) -> Vec<Task> {
    let Lens::Detector(doc) = state.lens else { return Vec::new() };
    let detection = state.detections.get_mut(doc.id);
    let Some(detection) = detection.filter(|d| d.is_at_work() && d.is_paused != is_paused) else {
        return Vec::new();
    };
    detection.is_paused = is_paused;
    vec![match is_paused {
        true => Task::PauseDetect(detection.detect_id),
        false => Task::ResumeDetect(detection.detect_id),
    }]
}

/// Starts the lens' detector, unless it is at work, has run, or there is no model.
pub(super) fn start_detector(state: &mut AppState, again: Again) -> Vec<Task> {
    let Lens::Detector(doc) = state.lens else { return Vec::new() };
    let is_idle = match state.lens_detection() {
        None => true,
        Some(detection) => !detection.is_at_work() && again == Again::Yes,
    };
    if !is_idle || !state.model.as_ref().is_some_and(|model| model.is_live) {
        return Vec::new();
    }
    state.detect_id += 1;
    let detect_id = state.detect_id;
    let request = DetectRequest { detector: doc.id.to_owned(), bos: state.bos, ..DetectRequest::default() };
    let stage = DetectionStage::Running(None);
    let detection = Detection { detect_id, request: request.clone(), is_paused: false, stage };
    state.detections.insert(doc.id, detection);
    vec![Task::Detect { detect_id, request }]
}

fn set_stage(state: &mut AppState, detect_id: u32, stage: DetectionStage) {
    let found = state.detections.values_mut().find(|detection| detection.detect_id == detect_id);
    if let Some(detection) = found {
        detection.stage = stage;
    }
}

/// Stops every detector at work.
pub(super) fn stop_detections(state: &AppState) -> Vec<Task> {
    let at_work = state.detections.values().filter(|detection| detection.is_at_work());
    at_work.map(|detection| Task::StopDetect(detection.detect_id)).collect()
}

/// Lets go of every detector's result and stops those at work.
pub(super) fn forget_detections(state: &mut AppState) -> Vec<Task> {
    let stops = stop_detections(state);
    state.detections.clear();
    stops
}
