//! Tests of the state's one writer.

use headlight_core::ablate::Metric;
use headlight_core::ablate::sweep::Targets;
use headlight_core::hooks::{Edit, Intervention};
use headlight_core::report::{
    BenchReport, DetectRequest, HeadScores, PatternReport, Provenance, RunReport, SweepReport, TokenLogit,
};

use super::detection::{Outdated, Setting};
use super::edits::{HeadSet, LayerPart, of_layer};
use super::lab::{Experiment, LabSettings, SetEffect, repeated_positions};
use super::machine::{MachineMsg, Measurement};
use super::settings::StimulusChoice;
use super::*;
use crate::protocol::{Comparison, EditWhere, PlacedEdit, Reply};
use crate::view_model::measure::Measure;

fn provenance() -> Provenance {
    let text = || "x".to_owned();
    Provenance { model: text(), model_sha256: text(), engine: text(), build: text() }
}

pub(crate) fn info() -> ModelInfo {
    ModelInfo {
        name: "m".to_owned(),
        family: "llama".to_owned(),
        sha256: "aa".to_owned(),
        tokenizer_sha256: "tt".to_owned(),
        n_layers: 2,
        n_heads: 8,
        n_kv_heads: 8,
        d_model: 8,
        d_head: 1,
        d_mlp: 0,
        d_vocab: 10,
        n_ctx: 128,
        bos_id: Some(0),
        adds_bos: false,
        n_params: 1,
    }
}

pub(super) fn view(best: HeadId, pattern: Option<HeadId>) -> Arc<View> {
    let mut scores = vec![vec![0.0; 8]; 2];
    scores[best.layer][best.head] = 0.9;
    let tokens = TokensReport {
        ids: vec![1],
        tokens: vec!["a".to_owned()],
        pieces: vec!["a".to_owned()],
        bytes: vec!["61".to_owned()],
        added_bos: false,
    };
    let run = RunReport {
        ids: vec![1],
        tokens: vec!["a".to_owned()],
        logits_top: Vec::new(),
        watched: Vec::new(),
        logsumexp: 0.0,
        nll_nats: Vec::new(),
        provenance: provenance(),
    };
    let pattern = pattern.map(|head| PatternReport {
        head,
        ids: vec![1],
        tokens: vec!["a".to_owned()],
        pattern: vec![vec![1.0]],
        provenance: provenance(),
    });
    let scores = vec![HeadScores { target: "induction".to_owned(), scores, n_rows: 3 }];
    let token =
        |id| TokenLogit { id, token: "b".to_owned(), piece: "b".to_owned(), logit: 1.0, logprob: -1.0 };
    let pair = || [token(3), token(4)];
    let comparison = Comparison { clean: pair(), edited: pair() };
    Arc::new(View { tokens, run, clean: None, kl_nats: None, comparison, scores, pattern, elapsed_ms: 1.0 })
}

fn error(code: &str) -> ErrorReport {
    ErrorReport { code: code.to_owned(), message: "m".to_owned(), recoverable: true, detail: None }
}

fn load_id(state: &AppState) -> u32 {
    state.loading.as_ref().map(|loading| loading.load_id).expect("a model is being loaded")
}

/// A model comes in.
fn loaded_msg(load_id: u32, info: ModelInfo) -> Msg {
    let engine = EngineReport::default();
    Msg::Loaded { load_id, info, engine, cached: false, cache_note: None }
}

/// A state whose bundled model has loaded.
pub(super) fn loaded_state() -> AppState {
    loaded_with(info())
}

/// The same with a model of other sizes.
pub(crate) fn loaded_with(info: ModelInfo) -> AppState {
    let mut state = AppState::default();
    update(&mut state, Msg::WorkerReady { build: "1".to_owned() });
    let load_id = load_id(&state);
    update(&mut state, loaded_msg(load_id, info));
    state
}

fn view_task(tasks: &[Task]) -> Option<(u32, &ViewRequest)> {
    tasks.iter().find_map(|task| match task {
        Task::View { view_id, request, .. } => Some((*view_id, request)),
        _ => None,
    })
}

/// Answers the newest view.
fn answer(state: &mut AppState, view: Arc<View>) -> Vec<Task> {
    let view_id = state.view_id;
    update(state, Msg::Viewed { view_id, view })
}

#[test]
fn the_bundled_model_opens_first_and_the_prompt_runs() {
    let mut state = AppState::default();
    let tasks = update(&mut state, Msg::WorkerReady { build: "1".to_owned() });
    assert!(
        tasks.iter().any(|task| matches!(task, Task::Load { source, .. } if source.id == "induction-2l"))
    );
    let load_id = load_id(&state);
    let tasks = update(&mut state, loaded_msg(load_id, info()));
    assert_eq!(view_task(&tasks).map(|(_, request)| request.text.as_str()), Some(FIRST_PROMPT));
}

#[test]
fn the_strongest_head_is_previewed_and_a_click_on_it_holds_it() {
    let mut state = loaded_state();
    let best = HeadId::new(1, 3);
    let tasks = answer(&mut state, view(best, None));
    assert_eq!(view_task(&tasks).and_then(|(_, request)| request.head), Some(best));
    assert!(answer(&mut state, view(best, Some(best))).is_empty(), "no second run for the same pattern");
    assert_eq!((state.selected, state.shown_head()), (None, Some(best)));
    update(&mut state, Msg::ToggleHead(best));
    assert_eq!(state.selected, Some(best));
    update(&mut state, Msg::ToggleHead(best));
    assert_eq!(state.selected, None);
}

#[test]
fn another_prompt_does_not_move_the_preview() {
    let mut state = loaded_state();
    let (first, second) = (HeadId::new(1, 3), HeadId::new(0, 2));
    answer(&mut state, view(first, Some(first)));
    update(&mut state, Msg::Typed("b".to_owned()));
    answer(&mut state, view(second, Some(first)));
    assert_eq!(state.shown_head(), Some(first));
    update(&mut state, Msg::SetLens(Lens::Prompt(Measure::default())));
    assert_eq!(state.shown_head(), Some(second));
}

#[test]
fn a_stand_in_gives_way_to_the_first_head_that_is_ranked() {
    let mut state = loaded_state();
    let mut nothing = View::clone(&view(HeadId::new(1, 3), None));
    nothing.scores[0].n_rows = 0;
    answer(&mut state, Arc::new(nothing));
    assert_eq!(state.shown_head(), Some(HeadId::new(0, 0)));
    answer(&mut state, view(HeadId::new(1, 3), None));
    assert_eq!(state.shown_head(), Some(HeadId::new(1, 3)));
}

#[test]
fn an_older_view_is_ignored() {
    let mut state = loaded_state();
    let old_id = state.view_id;
    update(&mut state, Msg::Typed("newer".to_owned()));
    update(&mut state, Msg::Viewed { view_id: old_id, view: view(HeadId::new(0, 0), None) });
    assert!(state.view.is_none() && state.is_running);
    update(&mut state, Msg::ViewFailed { view_id: old_id, error: error("not_finite") });
    assert!(state.problem.is_none());
}

#[test]
fn a_head_that_does_not_exist_is_neither_held_nor_switched_off() {
    let mut state = loaded_state();
    update(&mut state, Msg::ToggleHead(HeadId::new(2, 0)));
    update(&mut state, Msg::Edit(EditMsg::Toggle(HeadId::new(0, 8))));
    assert_eq!((state.selected, state.edits.list.len()), (None, 0));
}

#[test]
fn ablations_travel_as_one_edit_and_can_be_cleared() {
    let mut state = loaded_state();
    update(&mut state, Msg::Edit(EditMsg::Toggle(HeadId::new(1, 0))));
    let tasks = update(&mut state, Msg::Edit(EditMsg::Toggle(HeadId::new(0, 2))));
    let heads = vec![HeadId::new(0, 2), HeadId::new(1, 0)];
    let expected = vec![PlacedEdit { edit: Intervention::zero(heads), at: EditWhere::Everywhere }];
    assert_eq!(view_task(&tasks).map(|(_, request)| &request.edits), Some(&expected));
    let tasks = update(&mut state, Msg::Edit(EditMsg::Clear));
    assert_eq!(view_task(&tasks).map(|(_, request)| request.edits.len()), Some(0));
    assert!(update(&mut state, Msg::Edit(EditMsg::Clear)).is_empty());
}

#[test]
fn an_empty_prompt_runs_only_with_a_bos() {
    let mut state = loaded_state();
    answer(&mut state, view(HeadId::new(0, 0), None));
    assert_eq!(update(&mut state, Msg::Typed(String::new())), [Task::CancelView]);
    assert!(state.view.is_none() && !state.is_running);
    assert!(view_task(&update(&mut state, Msg::SetBos(BosPolicy::On))).is_some());
}

#[test]
fn a_prompt_that_is_too_long_can_be_cut_and_the_banner_goes_when_it_runs() {
    let mut state = loaded_state();
    let view_id = state.view_id;
    update(&mut state, Msg::ViewFailed { view_id, error: error("prompt_too_long") });
    assert!(state.is_stale);
    let remedy = state.problem.clone().and_then(|problem| problem.remedy).expect("an offer");
    assert_eq!(remedy, Remedy::CutPrompt { n_tokens: 128 });
    let tasks = update(&mut state, Msg::Remedy(remedy));
    assert!(matches!(&tasks[..], [Task::TokensForCut { n_tokens: 128, .. }]));
    assert_eq!(state.prompt, FIRST_PROMPT, "nothing is lost before the cut is known");
    let report = view(HeadId::new(0, 0), None).tokens.clone();
    update(&mut state, Msg::TokensForCut { report, n_tokens: 128 });
    assert_eq!(state.prompt, "a");
    answer(&mut state, view(HeadId::new(0, 0), None));
    assert!(state.problem.is_none() && !state.is_stale);
}

#[test]
fn a_crash_keeps_prompt_and_ablations_and_the_model_comes_back() {
    let mut state = loaded_state();
    update(&mut state, Msg::Typed("mine".to_owned()));
    update(&mut state, Msg::Edit(EditMsg::Toggle(HeadId::new(1, 0))));
    update(&mut state, Msg::WorkerCrashed(error("crashed")));
    assert!(view_task(&update(&mut state, Msg::Typed("mine".to_owned()))).is_none(), "nobody would answer");
    update(&mut state, Msg::WorkerReady { build: "1".to_owned() });
    assert!(state.problem.is_some(), "the banner stays until it is read");
    let load_id = load_id(&state);
    let tasks = update(&mut state, loaded_msg(load_id, info()));
    let request = view_task(&tasks).map(|(_, request)| request.clone()).expect("a run");
    assert_eq!((request.text.as_str(), request.edits.len()), ("mine", 1));
}

#[test]
fn a_failed_load_keeps_the_model_that_was_there() {
    let mut state = loaded_state();
    let source = state.models[0].source.clone();
    update(&mut state, Msg::ChooseModel(source.clone()));
    let failed = load_id(&state);
    assert!(view_task(&update(&mut state, Msg::Typed("while it loads".to_owned()))).is_some());
    update(&mut state, Msg::LoadFailed { load_id: failed, error: error("not_a_model") });
    assert!(state.model.as_ref().is_some_and(|model| model.is_live));
    assert_eq!(
        state.problem.as_ref().and_then(|p| p.remedy.clone()),
        Some(Remedy::LoadAgain(source.clone()))
    );
    update(&mut state, Msg::ChooseModel(source));
    let cancelled = load_id(&state);
    update(&mut state, Msg::CancelLoad);
    update(&mut state, Msg::LoadFailed { load_id: cancelled, error: error("cancelled") });
    assert!(state.problem.is_none());
}

#[test]
fn another_model_forgets_heads_of_the_old_one() {
    let mut state = loaded_state();
    update(&mut state, Msg::ToggleHead(HeadId::new(1, 7)));
    update(&mut state, Msg::Edit(EditMsg::Toggle(HeadId::new(1, 7))));
    let source = state.models[0].source.clone();
    update(&mut state, Msg::ChooseModel(source));
    let other = ModelInfo { sha256: "bb".to_owned(), ..info() };
    let load_id = load_id(&state);
    update(
        &mut state,
        Msg::Loaded { load_id, info: other, engine: EngineReport::default(), cached: true, cache_note: None },
    );
    assert_eq!((state.selected, state.edits.list.len()), (None, 0));
}

#[test]
fn escape_releases_the_token_first_and_then_the_head() {
    let mut state = loaded_state();
    update(&mut state, Msg::ToggleHead(HeadId::new(1, 0)));
    update(&mut state, Msg::ToggleToken(0));
    update(&mut state, Msg::Release);
    assert_eq!((state.held_token, state.selected), (None, Some(HeadId::new(1, 0))));
    update(&mut state, Msg::Release);
    assert_eq!(state.selected, None);
}

fn lens(id: &str) -> Lens {
    Lens::of_key(&format!("detector:{id}")).expect("a detector")
}

fn detect_task(tasks: &[Task]) -> Option<(u32, &DetectRequest)> {
    tasks.iter().find_map(|task| match task {
        Task::StartJob { job_id, call } => match call.as_ref() {
            Call::Detect(request) => Some((*job_id, request)),
            _ => None,
        },
        _ => None,
    })
}

fn progressed(detect_id: u32, scores: Vec<Vec<f32>>) -> Msg {
    let stage = crate::protocol::Stage::Detect;
    let progress = Progress {
        stage,
        done: 1,
        total: Some(4),
        elapsed_ms: 10.0,
        scores: Some(scores),
        preview: None,
        text: None,
    };
    Msg::Job { job_id: detect_id, event: JobEvent::Progress(progress) }
}

fn failed(detect_id: u32, error: ErrorReport) -> Msg {
    Msg::Job { job_id: detect_id, event: JobEvent::Failed(error) }
}

#[test]
fn a_chosen_detector_runs_once_and_shows_what_it_knows() {
    let mut state = loaded_state();
    let tasks = update(&mut state, Msg::SetLens(lens("induction")));
    let (detect_id, request) = detect_task(&tasks).expect("it starts");
    assert_eq!(request.detector, "induction");
    assert_eq!(state.lens_scores(), None);
    update(&mut state, progressed(detect_id, vec![vec![0.5; 8]]));
    assert_eq!(state.lens_scores().expect("partial").scores.len(), 1, "the layers done so far");
    // Away and back: it goes on, and is not started twice.
    update(&mut state, Msg::SetLens(Lens::default()));
    assert_eq!(detect_task(&update(&mut state, Msg::SetLens(lens("induction")))), None);
    // An older run's report changes nothing.
    update(&mut state, failed(detect_id + 7, error("cancelled")));
    assert!(state.lens_scores().is_some());
}

#[test]
fn a_stopped_detector_waits_to_be_asked_again_and_a_failed_one_says_why() {
    let mut state = loaded_state();
    let (detect_id, _) = detect_task(&update(&mut state, Msg::SetLens(lens("successor")))).expect("starts");
    assert_eq!(update(&mut state, Msg::Detector(DetectorMsg::Stop)), [Task::StopJob(detect_id)]);
    update(&mut state, failed(detect_id, error("cancelled")));
    assert_eq!(state.detections["successor"].stage, DetectionStage::Stopped);
    let (again, _) = detect_task(&update(&mut state, Msg::Detector(DetectorMsg::Run))).expect("runs again");
    assert_ne!(again, detect_id);
    update(&mut state, failed(again, error("model_lacks")));
    assert_eq!(state.detections["successor"].stage, DetectionStage::Failed(error("model_lacks")));
    assert_eq!(state.problem, None, "told in its place, not over the page");
}

#[test]
fn another_model_or_bos_forgets_detections_and_runs_the_lens_anew() {
    let mut state = loaded_state();
    let (first, _) = detect_task(&update(&mut state, Msg::SetLens(lens("copying")))).expect("starts");
    let tasks = update(&mut state, Msg::SetBos(BosPolicy::On));
    assert!(tasks.contains(&Task::StopJob(first)));
    let (second, request) = detect_task(&tasks).expect("anew");
    assert_eq!(request.bos, BosPolicy::On);
    let source = state.models[1].source.clone();
    let tasks = update(&mut state, Msg::ChooseModel(source));
    assert!(tasks.contains(&Task::StopJob(second)), "it must not hold the old model in memory");
    let load_id = load_id(&state);
    let info = ModelInfo { sha256: "bb".to_owned(), ..info() };
    let tasks = update(
        &mut state,
        Msg::Loaded { load_id, info, engine: EngineReport::default(), cached: true, cache_note: None },
    );
    assert!(detect_task(&tasks).is_some_and(|(id, _)| id > second));
}

#[test]
fn a_paused_detector_goes_on_or_stops_and_its_last_report_is_kept() {
    let mut state = loaded_state();
    let (detect_id, _) = detect_task(&update(&mut state, Msg::SetLens(lens("induction")))).expect("starts");
    let send = |state: &mut AppState, msg| update(state, Msg::Detector(msg));
    assert!(send(&mut state, DetectorMsg::Resume).is_empty(), "it is not paused");
    assert_eq!(send(&mut state, DetectorMsg::Pause), [Task::PauseJob(detect_id)]);
    assert!(send(&mut state, DetectorMsg::Pause).is_empty(), "once is enough");
    // A report that was on its way does not undo the pause, and shows.
    update(&mut state, progressed(detect_id, vec![vec![0.5; 8]]));
    assert!(state.lens_detection().is_some_and(|detection| detection.is_paused && detection.is_at_work()));
    assert!(state.lens_scores().is_some());
    // Away and back: it waits, and is not started twice.
    update(&mut state, Msg::SetLens(Lens::default()));
    assert_eq!(detect_task(&update(&mut state, Msg::SetLens(lens("induction")))), None);
    assert_eq!(send(&mut state, DetectorMsg::Resume), [Task::ResumeJob(detect_id)]);
    send(&mut state, DetectorMsg::Pause);
    assert_eq!(send(&mut state, DetectorMsg::Stop), [Task::StopJob(detect_id)]);
    update(&mut state, failed(detect_id, error("cancelled")));
    assert!(send(&mut state, DetectorMsg::Resume).is_empty(), "nothing is at work");
    // Another run begins unpaused.
    assert!(detect_task(&send(&mut state, DetectorMsg::Run)).is_some());
    assert!(state.lens_detection().is_some_and(|detection| !detection.is_paused));
}

fn set(state: &mut AppState, setting: Setting) -> Vec<Task> {
    update(state, Msg::Detector(DetectorMsg::Set(setting)))
}

fn report(request: &DetectRequest) -> DetectReport {
    let best = headlight_core::report::HeadScore { head: HeadId::new(1, 3), score: 0.9 };
    let provenance = headlight_core::report::DetectProvenance { run: provenance(), request: request.clone() };
    DetectReport {
        detector: request.detector.clone(),
        version: 1,
        definition: String::new(),
        stimulus: String::new(),
        n: 1,
        scores: vec![vec![0.0; 8]; 2],
        spread: None,
        threshold: None,
        found: Vec::new(),
        best,
        of_draws: None,
        evidence: serde_json::Value::Null,
        provenance,
    }
}

/// A detector's run ends well.
fn done(state: &mut AppState, (detect_id, request): (u32, &DetectRequest)) {
    let reply = Reply::Detect(Box::new(report(request)));
    update(state, Msg::Job { job_id: detect_id, event: JobEvent::Done(Arc::new(reply)) });
}

#[test]
fn the_prompt_as_stimulus_runs_anew_and_a_later_prompt_makes_it_an_earlier_text() {
    let mut state = loaded_state();
    answer(&mut state, view(HeadId::new(0, 0), Some(HeadId::new(0, 0))));
    let first = detect_task(&update(&mut state, Msg::SetLens(lens("induction")))).map(|(id, _)| id);
    let tasks = set(&mut state, Setting::Stimulus(StimulusChoice::Prompt));
    assert!(first.is_some_and(|first| tasks.contains(&Task::StopJob(first))), "{tasks:?}");
    let asked = detect_task(&tasks).expect("anew");
    assert_eq!(asked.1.sequences, Some(vec![vec![1]]));
    done(&mut state, asked);
    assert_eq!(state.outdated(), None);
    let mut other = View::clone(&view(HeadId::new(0, 0), Some(HeadId::new(0, 0))));
    other.tokens.ids = vec![2];
    update(&mut state, Msg::Typed("b".to_owned()));
    let tasks = answer(&mut state, Arc::new(other));
    assert_eq!(detect_task(&tasks), None, "it is the user who runs it again");
    assert_eq!(state.outdated(), Some(Outdated::Text));
    assert!(state.run_offer().is_some_and(|offer| offer.can_run && offer.text.contains("earlier text")));
    // Another detector follows the choice; weights have no stimulus.
    let tasks = update(&mut state, Msg::SetLens(lens("entropy")));
    assert_eq!(detect_task(&tasks).and_then(|(_, request)| request.sequences.clone()), Some(vec![vec![2]]));
    let tasks = update(&mut state, Msg::SetLens(lens("copying")));
    assert_eq!(detect_task(&tasks).map(|(_, request)| request.sequences.clone()), Some(None));
    // Back to what was generated: the first detector's own sequences again.
    update(&mut state, Msg::SetLens(lens("induction")));
    let tasks = set(&mut state, Setting::Stimulus(StimulusChoice::Generated));
    assert_eq!(detect_task(&tasks).map(|(_, request)| request.sequences.clone()), Some(None));
}

#[test]
fn a_prompt_that_is_not_there_yet_is_waited_for() {
    let mut state = loaded_state();
    set(&mut state, Setting::Stimulus(StimulusChoice::Prompt));
    assert_eq!(detect_task(&update(&mut state, Msg::SetLens(lens("induction")))), None);
    assert!(detect_task(&answer(&mut state, view(HeadId::new(0, 0), None))).is_some());
}

#[test]
fn a_pattern_of_ones_own_runs_when_asked_and_on_the_prompt_once_painted() {
    let mut state = loaded_state();
    answer(&mut state, view(HeadId::new(0, 0), Some(HeadId::new(0, 0))));
    assert_eq!(detect_task(&update(&mut state, Msg::SetLens(lens("custom")))), None, "it has no cell");
    assert!(state.run_offer().is_some_and(|offer| !offer.can_run && offer.text.contains("paint cells")));
    set(&mut state, Setting::Offsets("-1".to_owned()));
    let run = |state: &mut AppState| update(state, Msg::Detector(DetectorMsg::Run));
    let tasks = run(&mut state);
    let asked = detect_task(&tasks).expect("runs");
    assert_eq!((&asked.1.sequences, asked.1.params["offsets"][0].as_i64()), (&None, Some(-1)));
    done(&mut state, asked);
    assert!(state.lens_scores().is_some() && state.outdated().is_none());
    set(&mut state, Setting::Paint { cell: (0, 1), is_on: true });
    assert_eq!(state.outdated(), None, "a cell ahead is refused");
    set(&mut state, Setting::Paint { cell: (0, 0), is_on: true });
    assert_eq!(state.outdated(), Some(Outdated::Settings));
    let tasks = run(&mut state);
    let asked = detect_task(&tasks).expect("runs");
    assert_eq!(asked.1.sequences, Some(vec![vec![1]]));
    assert_eq!(asked.1.params["cells"], serde_json::json!([[0, 0]]));
    // A broken offset is never sent.
    set(&mut state, Setting::Offsets("1".to_owned()));
    done(&mut state, asked);
    assert_eq!(run(&mut state), []);
    assert_eq!(state.outdated(), Some(Outdated::Settings));
}

#[test]
fn retrieval_waits_for_its_button_after_a_change() {
    let mut state = loaded_state();
    let tasks = update(&mut state, Msg::SetLens(lens("retrieval")));
    let asked = detect_task(&tasks).expect("runs");
    assert!(asked.1.params.is_null());
    done(&mut state, asked);
    assert_eq!(set(&mut state, Setting::OwnText(true)), []);
    assert_eq!(set(&mut state, Setting::Causal(true)), []);
    assert_eq!(state.outdated(), Some(Outdated::Settings));
    let tasks = update(&mut state, Msg::Detector(DetectorMsg::Run));
    assert!(detect_task(&tasks).is_some_and(|(_, request)| request.params["texts"][0].is_object()));
}

fn edit(state: &mut AppState, msg: EditMsg) -> Vec<Task> {
    update(state, Msg::Edit(msg))
}

#[test]
fn heads_with_the_same_edit_stand_together_and_a_head_has_one() {
    let mut state = loaded_state();
    edit(&mut state, EditMsg::Toggle(HeadId::new(0, 1)));
    edit(&mut state, EditMsg::SetNext(Edit::Scale { alpha: 0.5 }));
    edit(&mut state, EditMsg::EditHeads(vec![HeadId::new(0, 1), HeadId::new(1, 2), HeadId::new(5, 5)]));
    assert_eq!(state.edits.list.len(), 1, "the head left the edit that it had");
    assert_eq!(state.edits.heads().len(), 2, "a head of no layer is not edited");
    edit(&mut state, EditMsg::Add(of_layer(Edit::Zero {}, 1, LayerPart::Attention)));
    assert_eq!(state.edits.list.len(), 2);
    // Another strength is another view, the same one is none.
    let mut placed = state.edits.list[0].clone();
    assert!(edit(&mut state, EditMsg::Change(0, placed.clone())).is_empty());
    placed.edit.edit = Edit::Scale { alpha: -1.0 };
    assert!(view_task(&edit(&mut state, EditMsg::Change(0, placed))).is_some());
    edit(&mut state, EditMsg::SaveSet(" mine ".to_owned()));
    assert_eq!(
        state.edits.sets.iter().map(|set| (set.name.as_str(), set.heads.len())).collect::<Vec<_>>(),
        [("mine", 2)]
    );
    edit(&mut state, EditMsg::Clear);
    edit(&mut state, EditMsg::SaveSet("none".to_owned()));
    assert_eq!(state.edits.sets.len(), 1, "an empty set is no set");
    edit(&mut state, EditMsg::Toggle(HeadId::new(1, 2)));
    edit(&mut state, EditMsg::Toggle(HeadId::new(1, 2)));
    assert!(state.edits.list.is_empty());
}

#[test]
fn where_an_edit_acts_follows_the_prompts_length() {
    let placed = |at| PlacedEdit { edit: Intervention::zero([HeadId::new(0, 0)]), at };
    let positions = |at, n_tokens| placed(at).resolve(n_tokens).positions;
    assert_eq!(positions(EditWhere::Everywhere, 3), None);
    assert_eq!(positions(EditWhere::NotFirst, 3), Some(vec![1, 2]));
    assert_eq!(
        (positions(EditWhere::Last, 3), positions(EditWhere::Last, 9)),
        (Some(vec![2]), Some(vec![8]))
    );
}

fn job_task(tasks: &[Task]) -> Option<(u32, &Call)> {
    tasks.iter().find_map(|task| match task {
        Task::StartJob { job_id, call } => Some((*job_id, call.as_ref())),
        _ => None,
    })
}

/// A sweep's answer to the call of a task.
fn swept(state: &mut AppState, (job_id, call): (u32, &Call), effect: f32) -> Vec<Task> {
    let Call::Sweep(request) = call else { panic!("{call:?} is no sweep") };
    let report = SweepReport {
        ids: vec![1],
        metric: Metric::Logprob,
        token: Some(3),
        versus: None,
        clean: -1.0,
        effects: vec![vec![effect; 8]; 2],
        provenance: provenance(),
        request: request.clone(),
    };
    let event = JobEvent::Done(Arc::new(Reply::Sweep(Box::new(report))));
    update(state, Msg::Job { job_id, event })
}

#[test]
fn a_sweep_counts_only_for_the_prompt_and_settings_that_it_was_asked_for() {
    let mut state = loaded_state();
    assert_eq!(job_task(&update(&mut state, Msg::SetLens(Lens::Sweep))), None, "there is no view yet");
    let tasks = answer(&mut state, view(HeadId::new(0, 0), Some(HeadId::new(0, 0))));
    let first = job_task(&tasks).expect("a small model sweeps by itself");
    assert_eq!(state.lens_scores(), None);
    swept(&mut state, first, -0.5);
    assert_eq!(state.lens_scores().map(|scores| scores.scores[0][0]), Some(-0.5));
    // Another metric: the numbers go until the new ones come.
    let settings = LabSettings { metric: Metric::Kl, ..LabSettings::default() };
    let tasks = update(&mut state, Msg::Lab(LabMsg::Set(settings)));
    let second = job_task(&tasks).expect("runs anew");
    assert_eq!(state.lens_scores(), None);
    // A late answer to the first question changes nothing.
    swept(&mut state, first, 9.0);
    assert_eq!(state.lens_scores(), None);
    // While it runs, what is known shows.
    let progress = Progress {
        stage: crate::protocol::Stage::Sweep,
        done: 1,
        total: Some(16),
        elapsed_ms: 1.0,
        scores: Some(vec![vec![f32::NAN; 8], vec![0.25; 8]]),
        preview: None,
        text: None,
    };
    update(&mut state, Msg::Job { job_id: second.0, event: JobEvent::Progress(progress.clone()) });
    assert_eq!(state.lens_scores().map(|scores| ranking(&scores).len()), Some(8), "NaN ranks nowhere");
    // Numbers in fast precision show where there are no exact ones yet, and leave the page nowhere.
    assert!(state.fast_heads().is_empty());
    let progress = Progress { preview: Some(vec![vec![0.5; 8], vec![0.26; 8]]), ..progress };
    update(&mut state, Msg::Job { job_id: second.0, event: JobEvent::Progress(progress) });
    assert_eq!(state.fast_heads(), (0..8).map(|head| HeadId::new(0, head)).collect());
    let rows = |scores: HeadScores| [scores.scores[0][3], scores.scores[1][3]];
    assert_eq!(state.lens_scores().map(rows), Some([0.5, 0.25]));
    assert!(state.exact_lens_scores().map(rows).is_some_and(|[fast, exact]| fast.is_nan() && exact == 0.25));
    // Another prompt ends it.
    update(&mut state, Msg::Typed("other".to_owned()));
    assert_eq!(state.lens_scores(), None);
    let tasks = answer(&mut state, view(HeadId::new(0, 0), Some(HeadId::new(0, 0))));
    assert!(tasks.contains(&Task::StopJob(second.0)), "{tasks:?}");
}

#[test]
fn named_sets_are_swept_beside_the_heads_and_compared_with_them() {
    let mut state = loaded_state();
    answer(&mut state, view(HeadId::new(0, 0), Some(HeadId::new(0, 0))));
    let set = |name: &str, heads: &[(usize, usize)]| HeadSet {
        name: name.to_owned(),
        heads: heads.iter().map(|&(layer, head)| HeadId::new(layer, head)).collect(),
    };
    let mine = set("mine", &[(0, 1), (1, 7)]);
    state.edits.sets = vec![mine.clone(), set("another model's", &[(9, 0)])];
    let tasks = update(&mut state, Msg::SetLens(Lens::Sweep));
    let calls: Vec<(u32, &Call)> =
        tasks.iter().filter_map(|task| job_task(std::slice::from_ref(task))).collect();
    let targets = |(_, call): &(u32, &Call)| match call {
        Call::Sweep(request) => request.spec.targets.clone(),
        call => panic!("{call:?} is no sweep"),
    };
    assert_eq!(
        calls.iter().map(targets).collect::<Vec<_>>(),
        [Targets::Heads, Targets::Sets(vec![mine.heads.clone()])]
    );
    swept(&mut state, calls[1], -0.75);
    let effect = |one_by_one| SetEffect { set: mine.clone(), together: -0.75, one_by_one };
    assert_eq!(state.set_effects(), Some(vec![effect(None)]));
    swept(&mut state, calls[0], -0.25);
    assert_eq!(state.set_effects(), Some(vec![effect(Some(-0.5))]));
    // Another set: the numbers of the old ones go until the new ones come.
    let tasks = update(&mut state, Msg::Edit(EditMsg::DropSet(1)));
    assert_eq!(tasks, [], "the one that is left is the one that was swept");
    update(&mut state, Msg::Edit(EditMsg::DropSet(0)));
    assert_eq!((state.set_effects(), state.wanted_call(Experiment::SetSweep)), (None, None));
}

#[test]
fn an_experiment_is_held_stopped_and_run_again() {
    let mut state = loaded_state();
    answer(&mut state, view(HeadId::new(0, 0), Some(HeadId::new(0, 0))));
    let lab = |state: &mut AppState, msg| update(state, Msg::Lab(msg));
    let tasks = lab(&mut state, LabMsg::Start(Experiment::LogitLens));
    let (job_id, _) = job_task(&tasks).expect("starts");
    assert!(lab(&mut state, LabMsg::Start(Experiment::LogitLens)).is_empty(), "it is at work");
    assert_eq!(lab(&mut state, LabMsg::Pause(Experiment::LogitLens)), [Task::PauseJob(job_id)]);
    assert!(lab(&mut state, LabMsg::Pause(Experiment::LogitLens)).is_empty());
    assert_eq!(lab(&mut state, LabMsg::Resume(Experiment::LogitLens)), [Task::ResumeJob(job_id)]);
    assert_eq!(lab(&mut state, LabMsg::Stop(Experiment::LogitLens)), [Task::StopJob(job_id)]);
    update(&mut state, Msg::Job { job_id, event: JobEvent::Failed(error("cancelled")) });
    assert!(state.at_work(Experiment::LogitLens).is_none());
    assert!(job_task(&lab(&mut state, LabMsg::Start(Experiment::LogitLens))).is_some());
    // What cannot be asked does not start.
    assert!(lab(&mut state, LabMsg::Start(Experiment::Patch)).is_empty(), "no corrupted prompt");
    assert!(lab(&mut state, LabMsg::Start(Experiment::Controls)).is_empty(), "no edited head");
}

#[test]
fn repeated_tokens_are_those_that_follow_a_pair_seen_before() {
    assert_eq!(repeated_positions(&[5, 6, 7, 5, 6, 7]), [4, 5]);
    assert_eq!(repeated_positions(&[5, 6, 7]), Vec::<usize>::new());
    assert_eq!(repeated_positions(&[]), Vec::<usize>::new());
}

#[test]
fn another_backend_loads_the_model_there_and_a_wish_alone_loads_nothing() {
    let mut state = loaded_state();
    let wish = |reload| Msg::ChooseBackend { backend: BackendChoice::Webgpu, reload };
    assert_eq!(update(&mut state, wish(false)), Vec::new());
    assert_eq!(state.backend, BackendChoice::Webgpu);
    let tasks = update(&mut state, wish(true));
    let loads = |task: &Task| matches!(task, Task::Load { backend: BackendChoice::Webgpu, .. });
    assert!(tasks.iter().any(loads), "{tasks:?}");
    let engine = EngineReport { is_gpu: true, ..EngineReport::default() };
    update(&mut state, Msg::Engine(engine.clone()));
    assert_eq!(state.model.map(|model| model.engine), Some(engine));
}

#[test]
fn this_machine_is_measured_once_at_a_time_and_for_the_model_that_answers() {
    let measure = || Msg::Machine(MachineMsg::Measure);
    let report = || {
        Arc::new(BenchReport {
            prefill_fast: None,
            loading: None,
            engine: "cpu-f32".to_owned(),
            model: "m".to_owned(),
            prefill: Vec::new(),
            kernel: None,
            memory_bytes: None,
        })
    };
    assert_eq!(update(&mut AppState::default(), measure()), [], "without a model nothing is measured");
    let mut state = loaded_state();
    // No longer than the model reads, and no length twice.
    assert_eq!(update(&mut state, measure()), [Task::Measure { prefill: vec![64, 128] }]);
    assert_eq!(update(&mut state, measure()), [], "one at a time");
    update(&mut state, Msg::Machine(MachineMsg::Ended(Err(error("crashed")))));
    assert_eq!(state.measurement, Some(Measurement::Failed(error("crashed"))));
    update(&mut state, measure());
    update(&mut state, Msg::Machine(MachineMsg::Ended(Ok(report()))));
    assert_eq!(state.measurement, Some(Measurement::Done(report())));
    // What ends after the model has changed is not shown of the new one.
    update(&mut state, measure());
    state.measurement = None;
    update(&mut state, Msg::Machine(MachineMsg::Ended(Ok(report()))));
    assert_eq!(state.measurement, None);
}

#[test]
fn a_chosen_number_of_workers_is_kept_and_is_no_part_of_a_link() {
    let mut state = loaded_state();
    let link = state.link();
    let choose = |n_workers| Msg::Machine(MachineMsg::ChooseWorkers(n_workers));
    assert_eq!(update(&mut state, choose(Some(3))), [Task::KeepWorkers(Some(3))]);
    assert_eq!((state.n_workers, state.link()), (Some(3), link.clone()));
    // Whoever opens a link has another machine.
    update(&mut state, Msg::Open(Box::new(link)));
    assert_eq!(state.n_workers, Some(3));
    assert_eq!(update(&mut state, choose(None)), [Task::KeepWorkers(None)]);
    assert_eq!(state.n_workers, None);
}
