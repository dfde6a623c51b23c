//! Exports are read back by others' parsers: SVG as XML, CSV by the csv crate, JSON as the reports that it came from.

use std::collections::BTreeSet;
use std::sync::Arc;

use headlight_core::ablate::Metric;
use headlight_core::ids::HeadId;
use headlight_core::report::{
    ControlsReport, DetectReport, DetectRequest, EffectReport, GenerateReport, HeadScores, LensReport,
    ModelInfo, OvReport, PatternReport, Provenance, RunReport, SweepReport, TokenDirect, TokenLogit,
    TokensReport,
};
use serde_json::{Value, json};

use super::svg::{escape, wrap};
use super::*;
use crate::protocol::{Call, Comparison, Reply, View};
use crate::state::detection::Detection;
use crate::state::edits::EditMsg;
use crate::state::job::JobStage;
use crate::state::lab::{Experiment, Job};
use crate::state::{Msg, ThemeChoice, update};
use crate::view_model::colour::Theme;

/// Markup, quotes, a formula, line ends, characters that XML does not know, and some that turn the line around.
const HOSTILE: &str =
    "</script>]]><!-- & \"a\", 'b'\u{1}\u{b}\u{fffe}\u{ffff}\r\n=1+1\t🙂 \u{202e}é </metadata></svg>";

fn provenance_of_run() -> Provenance {
    let [model, model_sha256, engine, build] = ["m", "aa", "cpu-f32", "0.1.0"].map(str::to_owned);
    Provenance { model, model_sha256, engine, build }
}

fn info() -> ModelInfo {
    ModelInfo { n_heads: 3, n_kv_heads: 3, d_mlp: 4, ..crate::state::tests::info() }
}

fn logit(id: u32, token: &str, logit: f32) -> TokenLogit {
    TokenLogit { id, token: token.to_owned(), piece: token.to_owned(), logit, logprob: logit - 2.7 }
}

fn run_of(first: f32) -> RunReport {
    RunReport {
        ids: vec![1, 2, 3],
        tokens: vec![HOSTILE.to_owned(), "=1+1".to_owned(), " b".to_owned()],
        logits_top: vec![logit(3, HOSTILE, first), logit(4, "=cmd|' /C calc'!A0", 0.123_456_79)],
        watched: Vec::new(),
        logsumexp: 2.7,
        nll_nats: vec![0.1, 0.2],
        provenance: provenance_of_run(),
    }
}

fn view(is_edited: bool) -> View {
    let run = run_of(1.0 / 3.0);
    let tokens = TokensReport {
        ids: run.ids.clone(),
        tokens: run.tokens.clone(),
        pieces: run.tokens.clone(),
        bytes: vec!["61".to_owned(); 3],
        added_bos: false,
    };
    let scores = vec![vec![0.1, 0.2, 0.3], vec![0.4, 0.987_654_3, 0.5]];
    let pattern = PatternReport {
        head: HeadId::new(1, 1),
        ids: run.ids.clone(),
        tokens: run.tokens.clone(),
        pattern: vec![vec![1.0, 0.0, 0.0], vec![0.25, 0.75, 0.0], vec![0.1, 0.2, 0.7]],
        provenance: provenance_of_run(),
    };
    let pair = || [logit(3, "a", 1.0), logit(4, "b", 0.5)];
    View {
        tokens,
        clean: is_edited.then(|| run_of(0.75)),
        run,
        kl_nats: is_edited.then_some(0.125),
        comparison: Comparison { clean: pair(), edited: pair() },
        scores: vec![HeadScores { target: "induction".to_owned(), scores, n_rows: 3 }],
        pattern: Some(pattern),
        elapsed_ms: 1.0,
    }
}

fn done(state: &mut AppState, experiment: Experiment, reply: Reply) {
    let call: Call = state.wanted_call(experiment).expect("it can be asked");
    let job = Job { job_id: 99, call, is_paused: false, stage: JobStage::Done(Arc::new(reply)) };
    state.lab.jobs.insert(experiment, job);
}

/// A model with a hostile prompt and a name to match, two heads edited, one held, and every experiment done.
fn state(theme: Theme) -> AppState {
    let mut state = crate::state::tests::loaded_with(info());
    update(&mut state, Msg::SetTheme(ThemeChoice::Fixed(theme)));
    update(&mut state, Msg::SetPrompt(HOSTILE.to_owned()));
    update(&mut state, Msg::Edit(EditMsg::Toggle(HeadId::new(0, 1))));
    update(&mut state, Msg::ToggleHead(HeadId::new(1, 1)));
    let view_id = state.view_id;
    update(&mut state, Msg::Viewed { view_id, view: Arc::new(view(true)) });
    update(&mut state, Msg::ToggleToken(1));
    let effect = EffectReport {
        kl_nats: vec![0.0, 0.5, 0.125],
        clean_nll_nats: vec![0.1, 0.2],
        edited_nll_nats: vec![0.3, 0.1],
        direct_kl_nats: Some(0.25),
        clean_top: vec![logit(3, HOSTILE, 1.0)],
        edited_top: vec![logit(3, HOSTILE, 0.5)],
        direct_top: vec![logit(3, HOSTILE, 0.25)],
    };
    done(&mut state, Experiment::Effect, Reply::Effect(Box::new(effect)));
    let direct = |id, logit| TokenDirect { id, token: HOSTILE.to_owned(), logit };
    let ov = OvReport {
        head: HeadId::new(1, 1),
        source_pos: 1,
        raised: vec![direct(1, 2.0)],
        lowered: vec![direct(2, -1.0)],
        own: direct(3, 0.5),
        own_rank: 4,
        provenance: provenance_of_run(),
    };
    done(&mut state, Experiment::Ov, Reply::Ov(Box::new(ov)));
    let cell = json!({"id": 1, "logprob": -0.5, "followed_logprob": -1.0, "followed_rank": 2});
    let lens: LensReport = serde_json::from_value(json!({
        "ids": [1, 2, 3], "cells": [[cell, cell, cell], [cell, cell, cell]],
        "texts": [[HOSTILE, "a", "b"], ["c", "d", "e"]], "provenance": provenance_of_run(),
    }))
    .expect("the shape of a report");
    done(&mut state, Experiment::LogitLens, Reply::Lens(Box::new(lens)));
    let Some(Call::Sweep(request)) = state.wanted_call(Experiment::Sweep) else { panic!("a sweep") };
    let sweep = SweepReport {
        ids: vec![1, 2, 3],
        metric: Metric::Logprob,
        token: Some(3),
        versus: None,
        clean: -1.0,
        effects: vec![vec![0.1, -0.2, 0.3], vec![0.0, -2.5, 1e-7]],
        provenance: provenance_of_run(),
        request,
    };
    done(&mut state, Experiment::Sweep, Reply::Sweep(Box::new(sweep.clone())));
    update(&mut state, Msg::Edit(EditMsg::SaveSet(HOSTILE.to_owned())));
    let Some(Call::Sweep(request)) = state.wanted_call(Experiment::SetSweep) else { panic!("a sweep") };
    let sets = SweepReport { effects: vec![vec![-0.5]], request, ..sweep };
    done(&mut state, Experiment::SetSweep, Reply::Sweep(Box::new(sets)));
    let controls: ControlsReport = serde_json::from_value(json!({
        "clean": -1.0, "effect": -2.0, "random_effects": [0.125, -0.5], "random_mean": -0.1875, "random_sd": 0.44,
        "draws": [["L0H0"], ["L0H2"]], "n_others": 2, "metric": {}, "provenance": provenance_of_run(),
    }))
    .expect("the shape of a report");
    done(&mut state, Experiment::Controls, Reply::Controls(Box::new(controls)));
    for experiment in [Experiment::CleanText, Experiment::EditedText] {
        let tokens = [HOSTILE, "=1+1"].map(str::to_owned);
        let written = GenerateReport {
            prompt_ids: vec![1, 2, 3],
            ids: vec![5, 6],
            text: tokens.concat(),
            tokens: tokens.into(),
            provenance: provenance_of_run(),
        };
        done(&mut state, experiment, Reply::Generate(Box::new(written)));
    }
    state
}

/// The same under a detector's lens, with its report.
fn detected(theme: Theme, detector: &'static str, evidence: Value) -> AppState {
    let mut state = state(theme);
    state.lens = Lens::of_key(&format!("detector:{detector}")).expect("a detector");
    let scores = vec![vec![0.0, 0.2, 0.3], vec![0.4, 0.9, 0.5]];
    let report =
        DetectReport { evidence, ..crate::view_model::lens::tests::report(detector, scores, Vec::new()) };
    let stage = JobStage::Done(Arc::new(report));
    let detection = Detection { detect_id: 7, request: DetectRequest::default(), is_paused: false, stage };
    state.detections.insert(detector, detection);
    state
}

/// Every kind of evidence: under which detector, and what the report holds.
fn evidences() -> [(&'static str, Value); 4] {
    let prompt = |placement: Value| {
        json!({
            "placement": placement, "n_tokens": 3, "span": [1, 2], "tokens": [HOSTILE, "=1+1", " b"],
            "answer": "=1+1", "generated": "=1+1", "generated_ids": [4], "generated_tokens": ["=1+1"],
            "looked_at": [[1]], "recall": 1.0, "succeeded": true,
        })
    };
    let retrieval = |prompts: Vec<Value>| {
        json!({
            "succeeded": {"n": 1}, "copying_heads": ["L1H1"], "prompts": prompts,
            "causal": {
                "heads": ["L1H1"], "n_draws": 10, "random_heads_from": 5, "n_prompts": 1, "clean_logprob_nats": -0.5,
                "edits": [{"edit": "zero", "top_drop_nats": 2.25, "random_drop_nats": -0.0, "random_drop_sd_nats": 0.125}],
            },
        })
    };
    let hidden = |length: usize| json!({"needle": HOSTILE, "length": length, "depth_percent": 50.0});
    [
        ("induction", json!({"first_copy_nll_nats": 6.5, "second_copy_nll_nats": 0.25})),
        (
            "successor",
            json!({"best": {"classes": [{
                "class": "days", "n": 1, "score": 1.0, "copy_rate": 0.0, "predecessor_rate": 0.0,
                "rows": [{"from": " Monday", "wanted": " Tuesday", "argmax": HOSTILE, "argmax_id": 7, "hit": true}],
            }]}}),
        ),
        ("retrieval", retrieval(vec![prompt(Value::Null)])),
        ("retrieval", retrieval(vec![prompt(hidden(256)), prompt(hidden(512))])),
    ]
}

/// Score against effect.
const SCATTER: ViewKind = ViewKind::Scatter(Lens::Prompt(crate::view_model::measure::Measure(
    headlight_core::detect::AttentionTarget::Induction,
)));

const PICTURES: [ViewKind; 14] = [
    ViewKind::Tokens,
    ViewKind::AttentionFrom,
    ViewKind::HeadScores,
    ViewKind::DirectEffect,
    ViewKind::Controls,
    ViewKind::SetEffects,
    ViewKind::Continuation,
    ViewKind::HeadMap,
    ViewKind::Pattern,
    ViewKind::Writes,
    ViewKind::NextTokens,
    ViewKind::Along,
    SCATTER,
    ViewKind::Layers,
];

fn text(state: &AppState, view: ViewKind, format: Format) -> String {
    view.file(state, format).unwrap_or_else(|| panic!("{view:?} as {format:?}")).text
}

#[test]
fn every_picture_is_xml_with_title_caption_and_the_whole_provenance_whatever_the_prompt() {
    for theme in [Theme::Light, Theme::Dark] {
        let evidence = [ViewKind::Evidence, ViewKind::RetrievalText(0), ViewKind::RetrievalCausal];
        let mut pictures: Vec<(AppState, ViewKind)> =
            PICTURES.into_iter().map(|view| (state(theme), view)).collect();
        for (detector, found) in evidences() {
            let n_views = if detector == "retrieval" { 3 } else { 1 };
            let state = detected(theme, detector, found);
            pictures.extend(evidence.into_iter().take(n_views).map(|view| (state.clone(), view)));
        }
        for (state, view) in &pictures {
            let (state, view) = (state, *view);
            let svg = text(state, view, Format::Svg);
            let parsed = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{view:?}: {error}"));
            let root = parsed.root_element();
            assert_eq!(root.tag_name().name(), "svg");
            let names: BTreeSet<&str> = parsed.descendants().map(|node| node.tag_name().name()).collect();
            let known = [
                "",
                "svg",
                "title",
                "desc",
                "metadata",
                "defs",
                "linearGradient",
                "stop",
                "rect",
                "g",
                "text",
                "line",
                "circle",
            ];
            assert!(names.iter().all(|name| known.contains(name)), "{view:?} has {names:?}");
            let child = |name: &str| {
                let found = root.children().find(|node| node.tag_name().name() == name);
                found.and_then(|node| node.text()).unwrap_or_default().to_owned()
            };
            assert!(!child("title").is_empty(), "{view:?}");
            assert!(
                child("desc").contains("Model:") && child("desc").contains("Edits: off (zero) L0H1"),
                "{view:?}"
            );
            let provenance: Value = serde_json::from_str(&child("metadata")).expect("JSON");
            assert_eq!(
                provenance["prompt"]["text"], HOSTILE,
                "{view:?} gives the prompt back, every character"
            );
            assert_eq!(provenance["model"]["sha256"], "aa");
            assert_eq!(provenance["interventions"], json!([{"kind": "zero", "heads": ["L0H1"]}]));
            assert_eq!(provenance["view"], view.slug());
            assert!(provenance["lens"]["definition"].as_str().is_some_and(|text| !text.is_empty()));
            // Within the sheet, sideways and downwards.
            let number = |node: roxmltree::Node<'_, '_>, name: &str| {
                node.attribute(name).and_then(|text| text.parse::<f32>().ok()).unwrap_or(f32::NAN)
            };
            let (width, height) = (number(root, "width"), number(root, "height"));
            assert!(width > 300.0 && height > 150.0, "{view:?}");
            let boxes = parsed.descendants().filter(|node| node.has_tag_name("rect"));
            for shape in boxes.filter(|shape| shape.attribute("x").is_some()) {
                let [x, y, w, h] = ["x", "y", "width", "height"].map(|name| number(shape, name));
                assert!(x >= -1.5 && y >= -1.5 && w > 0.0 && h > 0.0, "{view:?}: a box at {x}, {y}");
                assert!(x + w <= width && y + h <= height, "{view:?}: a box at {x}, {y} of {w} × {h}");
            }
            assert!(!svg.contains("href") && !svg.contains("NaN"), "{view:?}");
        }
    }
}

#[test]
fn the_head_map_shows_every_head_the_scale_the_edit_and_the_held_head() {
    let state = state(Theme::Light);
    let svg = text(&state, ViewKind::HeadMap, Format::Svg);
    let parsed = roxmltree::Document::parse(&svg).expect("XML");
    let tips: Vec<&str> =
        parsed.descendants().filter(|node| node.has_tag_name("title")).filter_map(|n| n.text()).collect();
    for head in ["L0H0", "L0H2", "L1H1, induction 0.99", "L0H1, induction 0.20, switched off"] {
        assert!(tips.iter().any(|tip| tip.contains(head)), "{head} in {tips:?}");
    }
    assert_eq!(parsed.descendants().filter(|node| node.tag_name().name() == "stop").count(), 17);
    assert!(svg.contains("crossed out: switched off") && svg.contains("framed: L1H1"));
    let named = svg.matches(">0.99</text>").count();
    assert_eq!(named, 1, "numbers in the cells of a small model");
}

#[test]
fn tables_read_back_to_the_same_numbers_and_tokens() {
    let state = state(Theme::Light);
    let read = |view: ViewKind| {
        let csv = text(&state, view, Format::Csv);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let names: Vec<String> = reader.headers().expect("names").iter().map(str::to_owned).collect();
        let rows: Vec<Vec<String>> = reader
            .records()
            .map(|row| row.expect("as long as the names").iter().map(str::to_owned).collect())
            .collect();
        (names, rows)
    };
    let (names, rows) = read(ViewKind::HeadMap);
    assert_eq!(names[..6], ["layer", "head", "score", "spread", "rank", "edited"]);
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[4][..6], ["1", "1", "0.9876543", "", "1", "0"]);
    assert_eq!((rows[1][5].as_str(), rows[1][6].as_str()), ("1", "0.2"));
    let (_, rows) = read(ViewKind::NextTokens);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[2][..4], ["edited", "1", "3", HOSTILE], "a token as it is");
    assert_eq!(rows[2][4].parse::<f32>(), Ok(1.0_f32 / 3.0), "the same f32");
    assert_eq!(rows[3][3], "=cmd|' /C calc'!A0", "formulas are data: nothing is put before them");
    let (names, rows) = read(ViewKind::Pattern);
    assert_eq!((names.len(), rows.len()), (5, 3));
    assert_eq!(rows[1][2..], ["0.25", "0.75", "0"]);
    let (_, rows) = read(ViewKind::Along);
    assert_eq!(rows[0][4..], ["", ""], "the first token is foretold by nothing");
    assert_eq!(rows[2][3..], ["0.125", "0.2", "0.1"]);
    assert_eq!(read(SCATTER).1.len(), 6);
    assert_eq!(read(ViewKind::Layers).1[0][3], HOSTILE);
    assert_eq!(read(ViewKind::Writes).1[2][..2], ["own", "5"]);
    assert_eq!(read(ViewKind::Tokens).1[0], ["0", "1", HOSTILE, HOSTILE, "61"]);
    let (_, rows) = read(ViewKind::AttentionFrom);
    assert_eq!(rows.len(), 2, "the held token sees itself and what stands before it");
    assert_eq!(rows[1], ["1", "1", "2", "=1+1", "0.75"]);
    let (_, rows) = read(ViewKind::HeadScores);
    assert_eq!(rows[0], ["1", "1", "induction", "0.9876543", "1"]);
    assert_eq!(rows[1][3..], ["", ""], "a prompt without such a token gives no score");
    let (_, rows) = read(ViewKind::DirectEffect);
    assert_eq!((rows[0][5].as_str(), &rows[1][..2]), ("", &["edited".to_owned(), "3".to_owned()][..]));
    assert_eq!((rows[1][5].as_str(), rows[2][5].as_str()), ("0.125", "0.25"));
    let (_, rows) = read(ViewKind::Controls);
    assert_eq!(rows[0], ["edited", "", "L0H1", "-2"]);
    assert_eq!(rows[2], ["random", "1", "L0H2", "-0.5"]);
    assert_eq!(read(ViewKind::SetEffects).1, [[HOSTILE, "L0H1", "-0.5", "-0.2"]]);
    assert_eq!(read(ViewKind::Continuation).1[3], ["edited", "1", "6", "=1+1"]);
}

#[test]
fn what_stands_behind_a_detector_reads_back() {
    let mut tables = Vec::new();
    for (detector, found) in evidences() {
        let state = detected(Theme::Light, detector, found);
        let csv = text(&state, ViewKind::Evidence, Format::Csv);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let rows = reader.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect());
        tables.push(rows.collect::<Vec<Vec<String>>>());
        // The report as it is, whatever was found.
        let json: Value =
            serde_json::from_str(&text(&state, ViewKind::Evidence, Format::Json)).expect("JSON");
        assert_eq!((&json["detector"], &json["view"]["view"]), (&json!(detector), &json!("evidence")));
        let is_retrieval = detector == "retrieval";
        for view in [ViewKind::RetrievalText(0), ViewKind::RetrievalCausal] {
            assert_eq!(view.is_there(&state), is_retrieval, "{view:?} of {detector}");
        }
    }
    assert_eq!(tables[0], [["first", "6.5"], ["second", "0.25"]]);
    assert_eq!(tables[1], [["days", " Monday", HOSTILE, "1", "1", "1", "0", "0"]]);
    assert_eq!(tables[2][0][..4], ["0", "", "", ""], "a text of one's own lies nowhere");
    assert_eq!(tables[3][1][..5], ["1", HOSTILE, "512", "50", "3"]);
    let [.., (detector, found)] = evidences();
    let state = detected(Theme::Light, detector, found);
    let csv = text(&state, ViewKind::RetrievalText(1), Format::Csv);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[rows.len() - 1], "generated,3,=1+1,,1,=1+1,1");
    assert!(csv.contains("prompt,1,=1+1,1,,,"), "{csv}");
    let csv = text(&state, ViewKind::RetrievalCausal, Format::Csv);
    assert!(csv.ends_with("zero,2.25,-0,0.125\r\n"), "{csv}");
    assert_eq!(ViewKind::RetrievalText(2).file(&state, Format::Svg), None, "no such prompt");
    let svg = text(&state, ViewKind::Evidence, Format::Svg);
    assert!(svg.contains("50 % deep in 512 tokens: 1.000"), "a cell a length and depth");
}

#[test]
fn json_is_the_report_with_the_view_beside_it() {
    let mut state = state(Theme::Light);
    let json = text(&state, ViewKind::NextTokens, Format::Json);
    let run: RunReport = serde_json::from_str(&json).expect("a run's report");
    assert_eq!(run, run_of(1.0 / 3.0));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["kl_nats"], &json["clean"]["ids"]), (&json!(0.125), &json!([1, 2, 3])));
    assert_eq!(json["view"]["prompt"]["text"], HOSTILE);
    state.lens = Lens::Sweep;
    let json = text(&state, ViewKind::HeadMap, Format::Json);
    let Some(Reply::Sweep(report)) = state.found(Experiment::Sweep) else { panic!("a sweep") };
    let printed = serde_json::to_string(report).expect("plain");
    assert!(json.starts_with(&printed[..printed.len() - 1]), "the command line's very digits");
    for view in PICTURES {
        let parsed: Value = serde_json::from_str(&text(&state, view, Format::Json)).expect("JSON");
        assert_eq!(parsed["view"]["view"], view.slug());
    }
}

#[test]
fn exports_are_imported_again_and_lens_and_scatter_show_them() {
    let mut state = state(Theme::Light);
    for format in [Format::Csv, Format::Json] {
        state.lens = Lens::Sweep;
        let file = ViewKind::HeadMap.file(&state, format).expect("the sweep is done");
        update(&mut state, Msg::Import { file: file.name(), text: file.text });
        assert_eq!(state.problem, None);
        let lens = state.lens;
        assert!(matches!(lens, Lens::Imported(_)), "{lens:?}");
        assert_eq!(state.lens_scores().map(|scores| scores.scores[1][1]), Some(-2.5));
        assert!(state.lens_label(lens).contains("headlight-induction-2l-head-map"));
        assert!(state.scatter(lens).is_some_and(|plot| plot.dots.len() == 6));
    }
    let before = (state.lens, state.imports.clone());
    update(&mut state, Msg::Import { file: "bad.json".to_owned(), text: "{\"a\": [[NaN]]}".to_owned() });
    assert!(state.problem.as_ref().is_some_and(|problem| problem.error.message.contains("NaN")));
    assert_eq!((state.lens, state.imports.clone()), before, "a bad file changes nothing");
    update(&mut state, Msg::SetLens(Lens::Imported(77)));
    assert_eq!(state.lens_scores(), None, "a lens of a link that nothing was imported for");
}

#[test]
fn files_are_named_after_model_and_view_in_plain_letters() {
    let mut state = state(Theme::Light);
    let name = |state: &AppState| ViewKind::HeadMap.file(state, Format::Svg).map(|file| file.name());
    assert_eq!(name(&state).as_deref(), Some("headlight-induction-2l-head-map.svg"));
    if let Some(model) = &mut state.model {
        model.id = "../Ünder \"x\".gguf".to_owned();
    }
    assert_eq!(name(&state).as_deref(), Some("headlight-nder-x-head-map.svg"));
}

#[test]
fn texts_are_escaped_and_wrapped() {
    assert_eq!(escape("<a b='1'>&\"\u{0}\n"), "&lt;a b='1'&gt;&amp;&quot;\u{fffd}&#10;");
    assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
    assert_eq!(wrap("", 3), [""]);
}

#[test]
fn numbers_of_another_engine_than_the_runs_name_it() {
    use super::provenance::{definition, provenance};
    let mut state = state(Theme::Light);
    update(&mut state, Msg::SetLens(Lens::Sweep));
    let lens_of = |state: &AppState| provenance(state, ViewKind::HeadMap)["lens"].clone();
    assert_eq!(lens_of(&state)["engine"], "cpu-f32");
    assert!(!definition(&state, Lens::Sweep).contains("Computed by"));
    let Some(Reply::Sweep(report)) = state.found(Experiment::Sweep) else { panic!("a sweep") };
    let mut report = report.clone();
    report.provenance.engine = "webgpu-f32 (a card)".to_owned();
    done(&mut state, Experiment::Sweep, Reply::Sweep(report));
    assert_eq!(lens_of(&state)["engine"], "webgpu-f32 (a card)");
    assert!(definition(&state, Lens::Sweep).ends_with(" Computed by webgpu-f32 (a card)."));
    update(&mut state, Msg::SetLens(Lens::default()));
    assert_eq!(lens_of(&state)["engine"], "cpu-f32", "the run's own");
}
