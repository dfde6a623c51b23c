//! Tests of opening links and of comparing with the sender's numbers.

use headlight_core::hooks::{Edit, Intervention};
use headlight_core::report::TokenLogit;

use super::*;
use crate::protocol::{EditWhere, EngineReport, PlacedEdit};
use crate::state::edits::EditMsg;
use crate::state::tests::{loaded_state, view};
use crate::state::{Msg, update};
use crate::view_model::share::verdict_text;

fn token(id: u32, logprob: f32) -> TokenLogit {
    TokenLogit { id, token: format!(" t{id}"), piece: format!(" t{id}"), logit: 1.0, logprob }
}

/// A page that shows a view with these next tokens.
fn page(top: &[TokenLogit]) -> AppState {
    let mut state = loaded_state();
    answer(&mut state, top);
    state
}

/// The worker answers the newest view.
fn answer(state: &mut AppState, top: &[TokenLogit]) {
    let mut view = view(HeadId::new(1, 2), state.shown_head()).as_ref().clone();
    view.run.logits_top = top.to_vec();
    let view_id = state.view_id;
    update(state, Msg::Viewed { view_id, view: view.into() });
}

fn zeroed(head: HeadId) -> PlacedEdit {
    PlacedEdit { edit: Intervention::of_heads(Edit::Zero {}, [head]), at: EditWhere::Everywhere }
}

#[test]
fn a_link_opens_as_the_page_that_it_was_made_on() {
    let mut sender = page(&[token(3, -0.5)]);
    update(&mut sender, Msg::Typed("hello".to_owned()));
    update(&mut sender, Msg::ToggleHead(HeadId::new(1, 2)));
    update(&mut sender, Msg::Edit(EditMsg::Toggle(HeadId::new(0, 3))));
    update(&mut sender, Msg::SetLens(Lens::of_key("prompt:previous_token").expect("a lens")));
    let link = Link::decode(&sender.link().encode()).expect("our own link");
    let mut opener = page(&[token(3, -0.5)]);
    let tasks = update(&mut opener, Msg::Open(Box::new(link)));
    assert_eq!(opener.link(), sender.link());
    assert!(tasks.iter().any(|task| matches!(task, Task::View { request, .. } if request.text == "hello")));
}

#[test]
fn the_senders_numbers_are_reproduced_or_told_apart() {
    let mut sender = page(&[token(3, -0.5), token(4, -1.5)]);
    update(&mut sender, Msg::Typed("hello".to_owned()));
    update(&mut sender, Msg::ToggleHead(HeadId::new(1, 2)));
    answer(&mut sender, &[token(3, -0.5), token(4, -1.5)]);
    let link = sender.link_with_numbers();
    assert_eq!(link.numbers.as_ref().map(|numbers| numbers.top.len()), Some(2));
    assert!(link.numbers.as_ref().is_some_and(|numbers| numbers.score.is_some()));
    let open = |top: &[TokenLogit]| {
        let mut state = page(top);
        update(&mut state, Msg::Open(Box::new(link.clone())));
        let before = state.verdict();
        answer(&mut state, top);
        (before, state)
    };
    let (before, state) = open(&[token(3, -0.5001), token(4, -1.5)]);
    assert_eq!(before, Some(Verdict::Waiting));
    let Some(Verdict::Reproduced { max_difference, lacks_score: false, other_engine: None }) =
        state.verdict()
    else {
        panic!("{:?}", state.verdict())
    };
    assert!((max_difference - 1e-4).abs() < 1e-5, "{max_difference}");
    let (_, state) = open(&[token(3, -0.7), token(5, -1.5)]);
    let Some(Verdict::Different(lines)) = state.verdict() else { panic!("{:?}", state.verdict()) };
    assert!(lines[0].contains("·t3") && lines[0].contains("-0.5000 there, -0.7000 here"), "{lines:?}");
    assert!(lines[1].contains("·t4") && lines[1].contains("not among"), "{lines:?}");
    let (_, mut state) = open(&[token(3, f32::NAN), token(4, -1.5)]);
    assert!(matches!(state.verdict(), Some(Verdict::Different(_))), "NaN never passes");
    update(&mut state, Msg::Typed("something else".to_owned()));
    assert_eq!(state.verdict(), Some(Verdict::Changed));
}

#[test]
fn numbers_of_webgpu_are_reproduced_on_the_cpu_all_the_same() {
    let mut state = page(&[token(3, -0.5)]);
    // What the page was opened with: it has been tried.
    state.backend = BackendChoice::Webgpu;
    let link = state.link_with_numbers();
    update(&mut state, Msg::Open(Box::new(link.clone())));
    answer(&mut state, &[token(3, -0.5)]);
    let verdict = state.verdict().expect("one");
    assert!(matches!(verdict, Verdict::Reproduced { .. }), "{verdict:?}");
    let (_, lines) = verdict_text(&verdict);
    assert!(
        lines.len() == 1 && lines[0].starts_with("The link asks for WebGPU; the CPU answers:"),
        "{lines:?}"
    );
    // Without numbers that alone is to be told.
    update(&mut state, Msg::Open(Box::new(Link { numbers: None, ..link })));
    assert!(matches!(state.verdict(), Some(Verdict::Different(lines)) if lines.len() == 1));
}

#[test]
fn other_weights_are_told() {
    let link = {
        let mut link = page(&[token(3, -0.5)]).link_with_numbers();
        if let Some(numbers) = &mut link.numbers {
            numbers.model_sha256 = "0000".to_owned();
        }
        link
    };
    let mut state = page(&[token(3, -0.5)]);
    update(&mut state, Msg::Open(Box::new(link)));
    answer(&mut state, &[token(3, -0.5)]);
    assert!(matches!(state.verdict(), Some(Verdict::Different(lines)) if lines[0].contains("weights")));
}

#[test]
fn heads_that_are_not_there_are_told_and_left_out() {
    let mut state = page(&[token(3, -0.5)]);
    let mut link = state.link_with_numbers();
    link.head = Some(HeadId::new(99, 0));
    link.edits = vec![zeroed(HeadId::new(0, 99)), zeroed(HeadId::new(0, 1))];
    link.lens = "detector:telepathy".to_owned();
    update(&mut state, Msg::Open(Box::new(link)));
    assert_eq!((state.selected, state.edits.list.len()), (None, 1));
    answer(&mut state, &[token(3, -0.5)]);
    let Some(Verdict::Different(lines)) = state.verdict() else { panic!("{:?}", state.verdict()) };
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("2 layers of 8 heads")), "{lines:?}");
}

#[test]
fn a_link_waits_for_its_model() {
    let mut state = page(&[token(3, -0.5)]);
    let link = Link {
        model: LinkedModel { id: "smollm2-135m".to_owned(), ..LinkedModel::default() },
        edits: vec![zeroed(HeadId::new(0, 1))],
        ..Link::default()
    };
    let tasks = update(&mut state, Msg::Open(Box::new(link.clone())));
    let Some(Task::Load { load_id, source, .. }) =
        tasks.iter().find(|task| matches!(task, Task::Load { .. }))
    else {
        panic!("{tasks:?}")
    };
    assert_eq!(source.id, "smollm2-135m");
    assert!(state.edits.list.is_empty(), "nothing is edited in the model that is still there");
    assert_eq!(state.link().model, link.model);
    let info = state.model.as_ref().map(|model| model.info.clone()).expect("a model");
    let info = headlight_core::report::ModelInfo { sha256: "other".to_owned(), ..info };
    update(
        &mut state,
        Msg::Loaded {
            load_id: *load_id,
            info,
            engine: EngineReport::default(),
            cached: true,
            cache_note: None,
        },
    );
    assert_eq!(state.edits.list, link.edits);
    assert!(state.opening.is_none());
}

#[test]
fn a_model_from_elsewhere_is_asked_about_and_a_local_one_explained() {
    let mut state = page(&[token(3, -0.5)]);
    let elsewhere = |url: Option<&str>| Link {
        model: LinkedModel {
            id: "x.gguf".to_owned(),
            sha256: Some("cc".to_owned()),
            url: url.map(str::to_owned),
            ..LinkedModel::default()
        },
        ..Link::default()
    };
    let tasks = update(&mut state, Msg::Open(Box::new(elsewhere(Some("https://example.org/x.gguf")))));
    assert!(!tasks.iter().any(|task| matches!(task, Task::Load { .. })), "{tasks:?}");
    let remedy = state.problem.as_ref().and_then(|problem| problem.remedy.clone());
    assert!(matches!(remedy, Some(Remedy::LoadLinked(source)) if source.sha256.as_deref() == Some("cc")));
    update(&mut state, Msg::Open(Box::new(elsewhere(Some("javascript:alert(1)")))));
    assert!(state.problem.as_ref().is_some_and(|problem| problem.remedy.is_none()));
    update(&mut state, Msg::Open(Box::new(elsewhere(None))));
    assert!(
        state.problem.as_ref().is_some_and(|problem| problem.error.message.contains("open it under Models"))
    );
}

#[test]
fn a_link_that_asks_for_webgpu_has_it_tried_and_says_why_the_cpu_answers() {
    let mut state = loaded_state();
    let link = Link { backend: BackendChoice::Webgpu, prompt: "on WebGPU".to_owned(), ..state.link() };
    let misfits =
        |state: &AppState| state.shared.iter().filter(|shared| shared.other_engine.is_some()).count();
    let n_loads = |tasks: &[Task], wanted: BackendChoice| {
        let is_one = |task: &&Task| matches!(task, Task::Load { backend, .. } if *backend == wanted);
        tasks.iter().filter(is_one).count()
    };
    let open = |state: &mut AppState, backend| {
        let tasks = update(state, Msg::Open(Box::new(Link { backend, ..link.clone() })));
        (n_loads(&tasks, backend), misfits(state))
    };
    // The model is there, on another engine than the link asks for.
    assert_eq!(open(&mut state, BackendChoice::Webgpu), (1, 0));
    let loaded = |state: &mut AppState, is_gpu: bool| {
        let info = state.model.as_ref().expect("a model").info.clone();
        let engine = EngineReport { is_gpu, why: "no adapter".to_owned(), ..EngineReport::default() };
        let load_id = state.load_id;
        update(state, Msg::Loaded { load_id, info, engine, cached: false, cache_note: None })
    };
    let tasks = loaded(&mut state, false);
    assert!(
        tasks.iter().any(|task| matches!(task, Task::View { request, .. } if request.text == "on WebGPU"))
    );
    assert_eq!(misfits(&state), 1, "{:?}", state.shared);
    // What was tried is not tried again at every step through the history.
    assert_eq!(open(&mut state, BackendChoice::Webgpu), (0, 1));
    if let Some(model) = &mut state.model {
        model.engine.is_gpu = true;
    }
    assert_eq!(open(&mut state, BackendChoice::Webgpu), (0, 0));
    assert_eq!(open(&mut state, BackendChoice::Auto), (0, 0), "any engine will do");
    assert_eq!(open(&mut state, BackendChoice::Cpu), (1, 0));
    loaded(&mut state, false);
    assert_eq!(misfits(&state), 0, "{:?}", state.shared);
}

#[test]
fn the_addresss_query_says_where_to_compute_until_somebody_chooses() {
    let mut state = loaded_state();
    state.backend_of_query = Some(BackendChoice::Cpu);
    let link = Link { backend: BackendChoice::Webgpu, ..state.link() };
    update(&mut state, Msg::Open(Box::new(link.clone())));
    assert_eq!(state.backend, BackendChoice::Cpu);
    update(&mut state, Msg::ChooseBackend { backend: BackendChoice::Auto, reload: false });
    update(&mut state, Msg::Open(Box::new(link)));
    assert_eq!(state.backend, BackendChoice::Webgpu);
}

/// A metric of a file, on the map.
fn import(state: &mut AppState, scores: &[Vec<f32>]) {
    let text = serde_json::json!({ "their score": scores }).to_string();
    update(state, Msg::Import { file: "theirs.json".to_owned(), text });
    assert!(matches!(state.lens, Lens::Imported(_)), "{:?}", state.problem);
}

/// A page that opened another one's link, sent as letters.
fn opened(sender: &AppState) -> AppState {
    let link = Link::decode(&sender.link_with_numbers().encode()).expect("our own link");
    let mut opener = page(&[token(3, -0.5)]);
    update(&mut opener, Msg::Open(Box::new(link)));
    answer(&mut opener, &[token(3, -0.5)]);
    opener
}

#[test]
fn imported_scores_go_with_a_link_rounded_to_a_thousandth_of_the_largest() {
    let mut scores = vec![vec![0.123_456; 8]; 2];
    (scores[1][2], scores[0][7]) = (-2.5, 0.0);
    let mut sender = page(&[token(3, -0.5)]);
    import(&mut sender, &scores);
    update(&mut sender, Msg::ToggleHead(HeadId::new(1, 2)));
    answer(&mut sender, &[token(3, -0.5)]);
    let sent = sender.link_with_numbers();
    assert_eq!(sent.numbers.as_ref().and_then(|numbers| numbers.score), None, "no browser computes it again");
    let opener = opened(&sender);
    assert!(matches!(opener.verdict(), Some(Verdict::Reproduced { .. })), "{:?}", opener.verdict());
    let shown = opener.lens_scores().expect("the sender's scores").scores;
    assert_eq!((shown[1][2], shown[0][7]), (-2.5, 0.0));
    assert!((shown[0][0] - 0.123_456).abs() <= 2.5 / 2000.0 && shown[0][0] != 0.123_456, "{}", shown[0][0]);
    let imported = opener.imported(opener.lens).expect("an import");
    assert!(imported.caption(&opener).contains("rounded to a thousandth"), "{}", imported.caption(&opener));
    assert!(opener.lens_label(opener.lens).contains("their score (theirs.json)"));
    // What was rounded once is sent on as it is.
    assert_eq!(opener.link().imported, sender.link().imported);
    assert_eq!(opened(&opener).lens_scores(), opener.lens_scores());
    // A page that has the file shows the file's own digits, and has it once.
    let mut owner = opened(&sender);
    import(&mut owner, &scores);
    update(&mut owner, Msg::SetLens(Lens::default()));
    let mut again = sender.clone();
    update(&mut again, Msg::Open(Box::new(sent)));
    assert_eq!(again.imports.len(), 1);
    assert_eq!(again.lens_scores().map(|scores| scores.scores[0][0]), Some(0.123_456));
}

#[test]
fn imported_scores_that_a_link_cannot_hold_are_named_and_not_passed_over() {
    let mut sender = page(&[token(3, -0.5)]);
    import(&mut sender, &vec![vec![0.5; 8]; 2]);
    // Letters that do not pack.
    let words = (0..400_u32).map(|word| format!("{:x}", word.wrapping_mul(2_654_435_761)));
    update(&mut sender, Msg::Typed(words.collect::<Vec<_>>().join(" ")));
    answer(&mut sender, &[token(3, -0.5)]);
    let link = sender.link();
    assert_eq!(link.imported.as_ref().map(|imported| imported.rounded.is_some()), Some(false));
    let opener = opened(&sender);
    let Some(Verdict::Different(lines)) = opener.verdict() else { panic!("{:?}", opener.verdict()) };
    for part in ["their score", "theirs.json", "too many for a link", "shows Induction instead"] {
        assert!(lines[0].contains(part), "no {part} in {lines:?}");
    }
    assert_eq!(opener.lens, Lens::default());
    // A page on which the file is open has them.
    let mut owner = page(&[token(3, -0.5)]);
    import(&mut owner, &vec![vec![0.5; 8]; 2]);
    update(&mut owner, Msg::Open(Box::new(link)));
    assert!(matches!(owner.lens, Lens::Imported(0)));
    // Tables that no page wrote.
    let hostile = |most: f32, thousandths: Vec<Vec<i16>>| {
        let mut link = page(&[token(3, -0.5)]).link();
        link.lens = "imported:0".to_owned();
        let rounded = Some(crate::link::RoundedScores { most, thousandths });
        let [file, metric] = ["f\u{7}".repeat(500), "m".to_owned()];
        link.imported =
            Some(crate::link::LinkedScores { file, metric, is_effect: false, model_sha256: None, rounded });
        let mut state = page(&[token(3, -0.5)]);
        update(&mut state, Msg::Open(Box::new(link)));
        (state.lens, state.imports.len())
    };
    assert_eq!(hostile(1.0, vec![vec![1000; 8]; 2]).1, 1, "the shape that is right");
    for (most, table) in [
        (1.0, vec![vec![1000; 8]; 3]),
        (1.0, vec![vec![1000; 7]; 2]),
        (1.0, vec![vec![i16::MIN; 8]; 2]),
        (f32::INFINITY, vec![vec![0; 8]; 2]),
        (-1.0, vec![vec![0; 8]; 2]),
    ] {
        assert_eq!(hostile(most, table.clone()), (Lens::default(), 0), "{most} × {table:?}");
    }
    // A link from before links named files.
    let mut state = page(&[token(3, -0.5)]);
    update(
        &mut state,
        Msg::Open(Box::new(Link { lens: "imported:0".to_owned(), ..page(&[token(3, -0.5)]).link() })),
    );
    assert!(matches!(state.verdict(), Some(Verdict::Different(lines)) if lines[0].contains("does not name")));
}
