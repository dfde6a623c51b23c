//! Detectors: SmolLM2 against the reference, models planted with a known head, and every kind of request that must be
//! refused.

use headlight_core::engine::{Engine, Loading};
use headlight_core::error::Error;
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::report::{BosPolicy, DetectReport, DetectRequest};
use headlight_tests::tiny::{TinyCheckpoint, TinyConfig};
use headlight_tests::{max_difference, reference_json, smollm2, tolerance};
use serde_json::{Value, json};

fn request(detector: &str) -> DetectRequest {
    DetectRequest { detector: detector.to_owned(), ..DetectRequest::default() }
}

fn table(value: &Value) -> Vec<f32> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(value.clone()).expect("[layer][head]");
    rows.concat()
}

fn against(report: &DetectReport, wanted: &Value, tolerance: f32) {
    let difference = max_difference(&report.scores.concat(), &table(wanted));
    assert!(difference < tolerance, "{}: a head differs by {difference}", report.detector);
}

#[test]
fn attention_scores_match_the_reference_on_its_own_tokens() {
    let reference = reference_json("induction.json").expect("reference");
    let sequences: Vec<Vec<TokenId>> = serde_json::from_value(reference["tokens"].clone()).expect("ids");
    let scores = &reference["scores"]["nobos"];
    let duplicate_head = json!({"detection_pattern": "duplicate_token_head"});
    let cases = [
        ("induction", Value::Null, "induction"),
        ("induction_diagonal", Value::Null, "induction"),
        ("duplicate_token", Value::Null, "duplicate"),
        ("previous_token", Value::Null, "previous"),
        ("first_token", Value::Null, "first_token"),
        ("current_token", Value::Null, "current"),
        ("tl_detect_head", Value::Null, "tl_detect_head_mul_induction"),
        ("tl_detect_head", duplicate_head, "tl_detect_head_mul_duplicate"),
    ];
    for (detector, params, name) in cases {
        let request = DetectRequest { sequences: Some(sequences.clone()), params, ..request(detector) };
        let report = smollm2().detect(&request).expect("runs");
        against(&report, &scores[name], tolerance::REAL_SCORES);
        if detector == "induction" {
            assert_eq!(report.best.head, HeadId::new(18, 6));
            assert_eq!(
                report.found[..4],
                ["L18H6", "L17H3", "L17H4", "L17H5"].map(|head| head.parse().expect("a head"))
            );
            let losses = &reference["nll"]["nobos"];
            for (copy, wanted) in
                [("first_copy_nll_nats", "first_half_nll"), ("second_copy_nll_nats", "second_half_nll")]
            {
                let difference =
                    report.evidence[copy].as_f64().expect("nats") - losses[wanted].as_f64().expect("nats");
                assert!(difference.abs() < f64::from(tolerance::REAL_NATS), "{copy}: off by {difference}");
            }
        }
    }
}

#[test]
fn weight_scores_match_the_reference() {
    let reference = reference_json("copying.json").expect("reference");
    let report = smollm2().detect(&request("copying")).expect("runs");
    against(&report, &reference["scores"]["folded"], tolerance::EIGENVALUE_SCORE);
    let raw = DetectRequest { params: json!({"basis": "raw"}), ..request("copying") };
    let raw = smollm2().detect(&raw).expect("runs");
    assert!(max_difference(&raw.scores.concat(), &report.scores.concat()) > 0.1, "the basis matters");

    let reference = reference_json("successor.json").expect("reference");
    let report = smollm2().detect(&request("successor")).expect("runs");
    against(&report, &reference["scores"]["primary"], tolerance::EXACT_SHARE);
    let copy_rate = table(&report.evidence["copy_rate"]);
    let difference = max_difference(&copy_rate, &table(&reference["scores"]["primary_self_copy"]));
    assert!(difference < tolerance::EXACT_SHARE, "a copy rate differs by {difference}");
    assert_eq!(report.found, [], "SmolLM2 has no successor head");
    assert!(report.best.score > 0.1 && report.best.score < 0.25, "{:?}", report.best);
    let chance = report.evidence["chance"].as_f64().expect("a number");
    assert!((chance - reference["chance_level"].as_f64().expect("a number")).abs() < 1e-5);
    let coverage = report.evidence["coverage"].as_array().expect("classes");
    let numbers = coverage.iter().find(|class| class["class"] == "numbers").expect("numbers");
    assert_eq!((&numbers["n_single"], &numbers["n_pairs"]), (&json!(10), &json!(9)), "digits only");
}

#[test]
fn generated_stimuli_find_the_same_heads_and_controls_agree() {
    let found = |detector: &str, bos| {
        let report = smollm2().detect(&DetectRequest { bos, ..request(detector) }).expect("runs");
        assert_eq!(report.n, 4);
        assert!(
            report.spread.as_ref().is_some_and(|spread| spread.iter().flatten().all(|sd| sd.is_finite()))
        );
        report
    };
    let plain = found("induction", BosPolicy::Auto);
    let jittered = found("induction_jittered", BosPolicy::Auto);
    for report in [&plain, &jittered] {
        for head in ["L18H6", "L17H3", "L17H4", "L17H5"] {
            let head = head.parse().expect("a head");
            assert!(
                report.found.contains(&head),
                "{}: {head} is missing of {:?}",
                report.detector,
                report.found
            );
        }
    }
    let with_bos = found("induction", BosPolicy::On);
    assert!(with_bos.stimulus.contains("BOS 1"), "{}", with_bos.stimulus);
    assert_ne!(with_bos.scores, plain.scores, "a BOS changes scores");
    let again = smollm2().detect(&plain.provenance.request).expect("runs");
    assert_eq!(again, plain, "the provenance is enough to run it again");
}

/// Tokens of the planted models.
const N_PLANTED: usize = 12;

/// One head in one layer over one-hot embeddings, whose W_O says how strongly each token (first) raises each (second).
fn planted_writing(strength: impl Fn(usize, usize) -> f32) -> Engine {
    const N: usize = N_PLANTED;
    let config = TinyConfig {
        n_layers: 1,
        n_heads: 1,
        n_kv_heads: 1,
        d_head: N,
        d_model: N,
        d_mlp: 0,
        d_vocab: N,
        tied: true,
    };
    let TinyCheckpoint { config, tokenizer, weights } = config.checkpoint_of(|name, shape, index| {
        let (row, column) = (index / N, index % N);
        match name {
            _ if shape.len() == 1 => 1.0,
            "model.layers.0.self_attn.o_proj.weight" => strength(column, row),
            _ => f32::from(row == column),
        }
    });
    let loading = Loading::from_folder(&config, &tokenizer, vec![weights], "planted");
    loading.and_then(Loading::finish).expect("loads")
}

/// A planted head with which each token raises one token alone.
fn planted(written: impl Fn(usize) -> (usize, f32)) -> Engine {
    planted_writing(|from, to| {
        let (token, strength) = written(from);
        if to == token { strength } else { 0.0 }
    })
}

fn only_score(engine: &Engine, request: &DetectRequest) -> f32 {
    let report = engine.detect(request).expect("runs");
    assert_eq!((report.scores.len(), report.scores[0].len()), (1, 1));
    report.scores[0][0]
}

#[test]
fn planted_copiers_and_successors_are_told_apart() {
    let items: Vec<String> = (1..12).map(|token| format!("t{token}")).collect();
    let params = json!({"variant": "embedding", "classes": [{"name": "words", "items": items}]});
    let successor_request = DetectRequest { params, ..request("successor") };
    let (copying, top1) = (request("copying"), request("copying_top1"));
    let copier = planted(|token| (token, 1.0));
    assert!((only_score(&copier, &copying) - 1.0).abs() < 1e-5);
    assert_eq!(only_score(&copier, &top1), 1.0);
    assert_eq!(only_score(&copier, &successor_request), 0.0);
    let anti_copier = planted(|token| (token, -1.0));
    assert!((only_score(&anti_copier, &copying) + 1.0).abs() < 1e-5);
    assert_eq!(only_score(&anti_copier, &top1), 0.0);
    let successor = planted(|token| ((token + 1) % 12, 1.0));
    assert_eq!(only_score(&successor, &successor_request), 1.0);
    // A cycle's eigenvalues are spread evenly around 0.
    assert!(only_score(&successor, &copying).abs() < 1e-5);
    assert_eq!(only_score(&successor, &top1), 0.0);
    let off_by_one = planted(|token| ((token + 2) % 12, 1.0));
    assert_eq!(only_score(&off_by_one, &successor_request), 0.0);
}

/// A strength for each pair of tokens, no two of a row alike.
fn uneven(from: usize, to: usize) -> f32 {
    ((from * 31 + to * 17) as f32).sin()
}

/// How many tokens a source raises more than this one.
fn n_above(from: usize, to: usize, among: impl Iterator<Item = usize>) -> usize {
    among.filter(|&other| uneven(from, other) > uneven(from, to)).count()
}

#[test]
fn the_whole_vocabulary_competes_when_asked() {
    let engine = planted_writing(uneven);
    let share = |hits: Vec<bool>| hits.iter().filter(|hit| **hit).count() as f32 / hits.len() as f32;
    let members = [2, 5, 3, 9, 7, 11];
    let items: Vec<String> = members.iter().map(|token| format!("t{token}")).collect();
    let mut scores = Vec::new();
    for (among, top_k) in
        [("class", 1), ("class", 3), ("vocabulary", 1), ("vocabulary", 3), ("vocabulary", 12)]
    {
        let classes = json!([{"name": "words", "items": items}]);
        let params = json!({"variant": "embedding", "classes": classes, "among": among, "top_k": top_k});
        let report = engine.detect(&DetectRequest { params, ..request("successor") }).expect("runs");
        let candidates: Vec<usize> =
            if among == "class" { members.to_vec() } else { (0..N_PLANTED).collect() };
        let is_hit = |pair: &[usize]| n_above(pair[0], pair[1], candidates.iter().copied()) < top_k;
        let wanted = share(members.windows(2).map(is_hit).collect());
        assert_eq!(report.scores, [[wanted]], "{among} {top_k}");
        assert_eq!((&report.evidence["among"], &report.evidence["top_k"]), (&json!(among), &json!(top_k)));
        let chance = (top_k.min(candidates.len()) as f64) / candidates.len() as f64;
        assert!((report.evidence["chance"].as_f64().expect("a number") - chance).abs() < 1e-9);
        scores.push(wanted);
    }
    assert!(
        scores[2] < scores[0] && scores[2] < scores[3],
        "{scores:?}: the rules must differ to be told apart"
    );
    assert_eq!(scores[4], 1.0);

    let sample: Vec<TokenId> = (5..9).collect();
    let score = |among: &str| {
        let (params, sequences) = (json!({"among": among}), Some(vec![sample.clone()]));
        only_score(&engine, &DetectRequest { params, sequences, ..request("copying_top1") })
    };
    let wanted = |first, last| share((5..9).map(|token| n_above(token, token, first..last) == 0).collect());
    assert_eq!((score("sample"), score("vocabulary")), (wanted(5, 9), wanted(0, N_PLANTED)));
    assert_ne!(wanted(5, 9), wanted(0, N_PLANTED));
}

fn refusal(engine: &Engine, request: &DetectRequest) -> (String, &'static str) {
    let error: Error = engine.detect(request).expect_err("refused");
    (error.to_string(), error.code())
}

#[test]
fn requests_that_cannot_be_scored_are_refused_in_a_sentence() {
    let engine = planted(|token| (token, 1.0));
    let with = |detector: &str, sequences: Option<Vec<Vec<TokenId>>>, params: Value| DetectRequest {
        sequences,
        params,
        ..request(detector)
    };
    let given = |ids: &[TokenId]| Some(vec![ids.to_vec()]);
    let cases = [
        (with("inductoin", None, Value::Null), "there is no detector", "unknown_detector"),
        (with("induction", given(&[1, 2, 3]), Value::Null), "no token twice", "nothing_to_read"),
        (with("induction", Some(Vec::new()), Value::Null), "no sequence", "nothing_to_read"),
        (with("induction", given(&[1, 2, 1, 99]), Value::Null), "token id 99", "unknown_token"),
        (with("induction", None, json!({"n_tokens": 400})), "at most 256", "prompt_too_long"),
        (with("induction", None, json!({"n_repeats": 1})), "n_repeats is 1", "bad_request"),
        (with("induction", None, json!({"colour": "red"})), "colour", "bad_request"),
        (with("previous_token", given(&[4]), Value::Null), "single token", "nothing_to_read"),
        (with("successor", None, Value::Null), "no MLP", "model_lacks"),
        (with("successor", None, json!({"variant": "embedding"})), "single tokens", "model_lacks"),
        (with("successor", None, json!({"variant": "embedding", "top_k": 0})), "top_k is 0", "bad_request"),
        (with("successor", None, json!({"variant": "embedding", "among": "words"})), "words", "bad_request"),
        (with("custom", None, Value::Null), "name offsets", "bad_request"),
        (with("custom", None, json!({"offsets": [1]})), "looks ahead", "bad_request"),
        (with("custom", None, json!({"cells": [[2, 5]]})), "looks ahead", "bad_request"),
        (with("custom", given(&[1, 2]), json!({"offsets": [-7]})), "too short", "nothing_to_read"),
        (with("copying_top1", None, json!({"n_tokens": 1})), "n_tokens is 1", "bad_request"),
    ];
    for (request, told, code) in cases {
        let (message, got) = refusal(&engine, &request);
        assert!(message.contains(told), "{request:?}: {message}");
        assert_eq!(got, code, "{message}");
        assert!(message.starts_with(char::is_lowercase), "{message}");
    }
    let bos = DetectRequest { bos: BosPolicy::On, ..request("induction") };
    assert_eq!(refusal(&engine, &bos).1, "no_bos");
}

#[test]
fn a_custom_pattern_is_the_detector_that_it_spells() {
    let sequences = Some(vec![vec![5, 6, 7, 8, 5, 6, 7, 8], vec![9, 3, 9, 3]]);
    let engine = TinyConfig::SMALL.engine(9);
    let scores = |detector: &str, params: Value| {
        let request = DetectRequest { sequences: sequences.clone(), params, ..request(detector) };
        engine.detect(&request).expect("runs").scores
    };
    assert_eq!(scores("custom", json!({"offsets": [-1]})), scores("previous_token", Value::Null));
    assert_eq!(scores("custom", json!({"targets": ["induction"]})), scores("induction", Value::Null));
    assert_ne!(scores("custom", json!({"offsets": [-2]})), scores("previous_token", Value::Null));
}
