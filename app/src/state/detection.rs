//! The detectors' part of the state: what each one was asked and how far it is, and what follows from the user's wishes
//! and the worker's answers.

use std::sync::Arc;

use headlight_core::detect::AttentionTarget;
use headlight_core::report::{DetectReport, DetectRequest};

use super::job::{JobEvent, JobStage};
use super::settings::{Candidates, Settings, StimulusChoice};
use super::{AppState, Task, preview_strongest, run_for_pattern};
use crate::protocol::{Call, Reply};
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
        self.stage.is_at_work()
    }
}

/// How far a detector is.
pub type DetectionStage = JobStage<DetectReport>;

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
    /// Another setting; a change of stimulus runs anew, others wait for [`Self::Run`].
    Set(Setting),
}

/// A setting that the user changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// What attention is read on.
    Stimulus(StimulusChoice),
    /// Offsets of the custom pattern, as typed.
    Offsets(String),
    /// A named target of the custom pattern, switched on or off.
    ToggleTarget(AttentionTarget),
    /// Whether clicks on the inspector's pattern paint.
    Painting(bool),
    /// A cell (query, key) of the custom pattern.
    Paint {
        /// Which.
        cell: (usize, usize),
        /// Painted, or wiped.
        is_on: bool,
    },
    /// Wipes every painted cell.
    ClearCells,
    /// A text of the user's in place of generated ones.
    OwnText(bool),
    /// That text.
    Text(String),
    /// The part of it that answers.
    Needle(String),
    /// What is asked behind it.
    Question(String),
    /// Whether the strongest heads are switched off too.
    Causal(bool),
    /// What competes in a score read off the weights.
    Candidates(Candidates),
    /// Whether the next item may be among the five largest.
    InTopFive(bool),
}

/// Why a finished detector's scores are not those of the settings as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outdated {
    /// The prompt has changed.
    Text,
    /// Another setting has.
    Settings,
}

/// The line with the button that runs a detector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOffer {
    /// Why one would run it, or what is missing.
    pub text: String,
    /// Whether nothing is missing.
    pub can_run: bool,
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
            at_work.map(|detection| Task::StopJob(detection.detect_id)).into_iter().collect()
        }
        DetectorMsg::Pause => hold(state, true),
        DetectorMsg::Resume => hold(state, false),
        DetectorMsg::Set(setting) => set(state, setting),
    }
}

/// Takes in what the worker says of a detector.
pub(super) fn take(state: &mut AppState, detect_id: u32, event: JobEvent) -> Vec<Task> {
    match event {
        JobEvent::Progress(progress) => {
            set_stage(state, detect_id, DetectionStage::Running(Some(progress)));
            Vec::new()
        }
        JobEvent::Done(reply) => {
            if let Reply::Detect(report) = reply.as_ref() {
                set_stage(state, detect_id, DetectionStage::Done(Arc::new(report.as_ref().clone())));
            }
            preview_strongest(state);
            run_for_pattern(state)
        }
        JobEvent::Failed(error) => {
            set_stage(state, detect_id, DetectionStage::after(error));
            Vec::new()
        }
    }
}

impl AppState {
    /// The lens' detector, if it was ever asked.
    pub fn lens_detection(&self) -> Option<&Detection> {
        match self.lens {
            Lens::Detector(doc) => self.detections.get(doc.id),
            _ => None,
        }
    }

    /// What the lens' detector found, once it is done.
    pub fn lens_report(&self) -> Option<&DetectReport> {
        match &self.lens_detection()?.stage {
            DetectionStage::Done(report) => Some(report),
            _ => None,
        }
    }

    /// What the lens' detector would be asked now, or why it cannot be asked yet; `None` without such a lens.
    pub fn wanted_request(&self) -> Option<Result<DetectRequest, String>> {
        let Lens::Detector(doc) = self.lens else { return None };
        let sequences = || match self.settings.reads_prompt(doc.id) && self.lens.takes_sequences() {
            false => Ok(None),
            true => match self.view.as_ref().filter(|_| !self.is_stale) {
                Some(view) => Ok(Some(vec![view.tokens.ids.clone()])),
                None => Err("The prompt has no tokens yet.".to_owned()),
            },
        };
        Some(self.settings.params(doc.id).and_then(|params| {
            let (detector, bos) = (doc.id.to_owned(), self.bos);
            Ok(DetectRequest { detector, bos, sequences: sequences()?, params, ..DetectRequest::default() })
        }))
    }

    /// Whether the lens' finished detector was asked something else than it would be now.
    pub fn outdated(&self) -> Option<Outdated> {
        let detection = self.lens_detection().filter(|detection| !detection.is_at_work())?;
        match self.wanted_request()? {
            Ok(wanted) if wanted == detection.request => None,
            Ok(wanted) if wanted.params == detection.request.params => Some(Outdated::Text),
            _ => Some(Outdated::Settings),
        }
    }
}

impl AppState {
    /// What the panel offers while the lens' detector is not at work; `None` when its result is that of the settings.
    pub fn run_offer(&self) -> Option<RunOffer> {
        let can_run = match self.wanted_request()? {
            Ok(_) => true,
            Err(text) => return Some(RunOffer { text, can_run: false }),
        };
        let offer = |text: &str| Some(RunOffer { text: text.to_owned(), can_run });
        let Some(detection) = self.lens_detection() else { return offer("Not run yet.") };
        match (&detection.stage, self.outdated()) {
            (DetectionStage::Running(_), _) => None,
            (DetectionStage::Stopped, _) => offer("Stopped."),
            (DetectionStage::Done(_), Some(Outdated::Text)) => offer("These scores are of an earlier text."),
            (DetectionStage::Done(_), Some(Outdated::Settings)) => {
                offer("These scores are of earlier settings.")
            }
            (DetectionStage::Failed(_), Some(Outdated::Text)) => offer("The text has changed since."),
            (DetectionStage::Failed(_), Some(Outdated::Settings)) => {
                offer("The settings have changed since.")
            }
            (_, None) => None,
        }
    }
}

fn set(state: &mut AppState, setting: Setting) -> Vec<Task> {
    let Settings { stimulus, custom, retrieval, candidates, is_in_top_five } = &mut state.settings;
    match setting {
        Setting::Stimulus(choice) => {
            *stimulus = choice;
            return start_detector(state, Again::No);
        }
        Setting::Offsets(text) => custom.offsets_text = text,
        Setting::ToggleTarget(target) => custom.toggle_target(target),
        Setting::Painting(is_painting) => custom.is_painting = is_painting,
        Setting::Paint { cell, is_on } => {
            if let Some(view) = &state.view {
                custom.paint(cell, is_on, &view.tokens.ids);
            }
        }
        Setting::ClearCells => custom.cells.clear(),
        Setting::OwnText(is_own) => retrieval.is_own = is_own,
        Setting::Text(text) => retrieval.text = text,
        Setting::Needle(needle) => retrieval.needle = needle,
        Setting::Question(question) => retrieval.question = question,
        Setting::Causal(is_causal) => retrieval.is_causal = is_causal,
        Setting::Candidates(choice) => *candidates = choice,
        Setting::InTopFive(is_in) => *is_in_top_five = is_in,
    }
    Vec::new()
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
        true => Task::PauseJob(detection.detect_id),
        false => Task::ResumeJob(detection.detect_id),
    }]
}

/// Starts the lens' detector, unless it is at work or has run on this kind of stimulus, there is no model, or a setting
/// is missing. One at work on the other kind of stimulus is stopped.
pub(super) fn start_detector(state: &mut AppState, again: Again) -> Vec<Task> {
    let (Lens::Detector(doc), Some(Ok(request))) = (state.lens, state.wanted_request()) else {
        return Vec::new();
    };
    let known = state.lens_detection();
    let is_same_kind = |known: &Detection| known.request.sequences.is_some() == request.sequences.is_some();
    let is_wanted =
        known.is_none_or(|known| !is_same_kind(known) || (again == Again::Yes && !known.is_at_work()));
    if !is_wanted || !state.model.as_ref().is_some_and(|model| model.is_live) {
        return Vec::new();
    }
    let older = known.filter(|known| known.is_at_work()).map(|known| Task::StopJob(known.detect_id));
    state.job_id += 1;
    let detect_id = state.job_id;
    let stage = DetectionStage::Running(None);
    let detection = Detection { detect_id, request: request.clone(), is_paused: false, stage };
    state.detections.insert(doc.id, detection);
    older
        .into_iter()
        .chain([Task::StartJob { job_id: detect_id, call: Box::new(Call::Detect(request)) }])
        .collect()
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
    at_work.map(|detection| Task::StopJob(detection.detect_id)).collect()
}

/// Lets go of every detector's result and stops those at work.
pub(super) fn forget_detections(state: &mut AppState) -> Vec<Task> {
    let stops = stop_detections(state);
    state.detections.clear();
    stops
}
