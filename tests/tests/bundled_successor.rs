//! The bundled model with a successor head: the detector finds it, and without it ordinal sequences break where
//! copying goes on.

use headlight_core::engine::Engine;
use headlight_core::hooks::{Intervention, RunPlan};
use headlight_core::ids::HeadId;
use headlight_core::metrics::{logsumexp, top_indices};
use headlight_core::report::{BosPolicy, DetectReport, DetectRequest};
use headlight_tests::{bundled, bundled_file, bundled_size_bytes, max_difference, tolerance};
use serde_json::{Value, json};

const MODEL: &str = "successor-2l";
/// The published threshold, and a copy rate that no head which copies stays below.
const LEAST_SCORE: f32 = 0.5;
const MOST_COPIED: f64 = 0.3;
/// Mean log-probability of the right next item that goes with the head, nats: it becomes less than a third as probable.
const LEAST_LOSS_NATS: f32 = 1.2;
/// Share of the ordinal prompts that are right with the head, and at most right without it.
const MOST_RIGHT: f32 = 0.75;
const FEWEST_RIGHT: f32 = 0.25;
/// Log-probabilities on the card against those of this machine's kernels.
const CARD_NATS: f64 = 1e-2;

/// Sequences to go on with, of every kind.
const ORDINAL: [(&str, &str); 12] = [
    (" Monday Tuesday", " Wednesday"),
    (" Thursday Friday Saturday", " Sunday"),
    (" January February March", " April"),
    (" Sep Oct Nov", " Dec"),
    (" one two three four", " five"),
    (" first second third", " fourth"),
    (" C D E", " F"),
    (" p q r", " s"),
    (" 3 4 5", " 6"),
    (" VII VIII IX", " X"),
    ("\n1. wash\n2. cut\n", "3"),
    (", Monday red, Tuesday blue,", " Wednesday"),
];
/// Words that come again.
const COPIED: [(&str, &str); 4] = [
    (" red blue red", " blue"),
    (" cat dog tree cat dog", " tree"),
    (" bread milk salt rice bread milk salt", " rice"),
    (" page moon fire page moon fire page", " moon"),
];

/// Log-probability of the right next token, nats, and whether it is the most probable.
struct Answer {
    logprob: f32,
    is_right: bool,
}

fn answer(engine: &Engine, (prompt, wanted): (&str, &str), zeroed: &[HeadId]) -> Answer {
    let wanted = engine.tokenize(wanted, BosPolicy::Off).expect("tokenises").ids;
    assert_eq!(wanted.len(), 1, "the answer to {prompt:?} is one token");
    let wanted = wanted[0] as usize;
    let ids = engine.tokenize(prompt, BosPolicy::Auto).expect("tokenises").ids;
    let zero = Intervention::zero(zeroed.to_vec());
    let plan = RunPlan { edits: vec![zero].into(), ..RunPlan::default() };
    let logits = engine.forward(&ids, &plan).expect("runs").logits.data;
    let logprob = (f64::from(logits[wanted]) - logsumexp(&logits)) as f32;
    Answer { logprob, is_right: top_indices(&logits, 1) == [wanted] }
}

/// Mean log-probability, nats, and share of right answers.
fn answers(engine: &Engine, prompts: &[(&str, &str)], zeroed: &[HeadId]) -> (f32, f32) {
    let answers: Vec<Answer> = prompts.iter().map(|&prompt| answer(engine, prompt, zeroed)).collect();
    let n = answers.len() as f32;
    let n_right = answers.iter().filter(|answer| answer.is_right).count();
    (answers.iter().map(|answer| answer.logprob).sum::<f32>() / n, n_right as f32 / n)
}

fn detect(engine: &Engine) -> DetectReport {
    let request = DetectRequest { detector: "successor".to_owned(), ..DetectRequest::default() };
    engine.detect(&request).expect("runs")
}

fn copy_rate(report: &DetectReport, head: HeadId) -> f64 {
    report.evidence["copy_rate"][head.layer][head.head].as_f64().expect("a rate")
}

#[test]
fn the_detector_finds_a_successor_head_that_does_not_copy() {
    let report = detect(&bundled(MODEL));
    let best = report.best;
    assert!(best.score > LEAST_SCORE, "{best:?}");
    assert!(report.found.contains(&best.head), "{:?}", report.found);
    assert!(copy_rate(&report, best.head) < MOST_COPIED, "{}", copy_rate(&report, best.head));
    let classes = report.evidence["best"]["classes"].as_array().expect("classes");
    assert_eq!(classes.len(), 20, "every class of the detector, in both spellings");
}

#[test]
fn the_whole_vocabulary_is_the_stricter_judge() {
    let engine = bundled(MODEL);
    let of_class = detect(&engine);
    let asked = |detector: &str, params: Value, sequences| {
        let request =
            DetectRequest { detector: detector.to_owned(), params, sequences, ..DetectRequest::default() };
        engine.detect(&request).expect("runs")
    };
    let first = asked("successor", json!({"among": "vocabulary"}), None);
    let first_five = asked("successor", json!({"among": "vocabulary", "top_k": 5}), None);
    let cells = |report: &DetectReport| report.scores.concat();
    for ((class, first), five) in cells(&of_class).iter().zip(cells(&first)).zip(cells(&first_five)) {
        assert!(first <= *class, "what wins in the vocabulary wins in its class: {first}, {class}");
        assert!(first <= five, "{first}, {five}");
    }
    assert!(cells(&first) != cells(&of_class) && cells(&first) != cells(&first_five));
    assert!(first.stimulus.contains("whole vocabulary"), "{}", first.stimulus);
    let head = of_class.best.head;
    assert!(first_five.scores[head.layer][head.head] > LEAST_SCORE, "{:?}", first_five.best);
    // With every token sampled, sample and vocabulary are one.
    let every = Some(vec![(0..engine.info().d_vocab as u32).collect()]);
    let copying = |among: &str| asked("copying_top1", json!({"among": among}), every.clone()).scores;
    assert_eq!(copying("sample"), copying("vocabulary"));
}

#[test]
fn without_the_head_sequences_break() {
    let engine = bundled(MODEL);
    let head = detect(&engine).best.head;
    let (clean, clean_right) = answers(&engine, &ORDINAL, &[]);
    let (without, without_right) = answers(&engine, &ORDINAL, &[head]);
    assert!(clean_right >= MOST_RIGHT, "{clean_right} are right");
    assert!(without_right <= FEWEST_RIGHT, "{without_right} are right without {head}");
    assert!(clean - without > LEAST_LOSS_NATS, "{clean} nats, {without} without {head}");
    let others = (0..engine.info().n_heads).map(|other| HeadId::new(head.layer, other));
    for other in others.filter(|other| *other != head) {
        let (without_other, _) = answers(&engine, &ORDINAL, &[other]);
        assert!(without_other > without, "{other} matters more ({without_other}) than {head} ({without})");
    }
    let monday = (" Monday Tuesday", " Wednesday");
    assert!(answer(&engine, monday, &[]).is_right);
    assert!(!answer(&engine, monday, &[head]).is_right, "{head} is zeroed and Wednesday still comes first");
}

#[test]
fn without_the_head_copying_goes_on() {
    let engine = bundled(MODEL);
    let head = detect(&engine).best.head;
    for prompt in COPIED {
        assert!(answer(&engine, prompt, &[]).is_right, "{prompt:?}");
        assert!(answer(&engine, prompt, &[head]).is_right, "{prompt:?} without {head}");
    }
}

#[test]
fn its_card_tells_what_it_measures() {
    let card: Value = serde_json::from_slice(&bundled_file(MODEL, "card.json")).expect("JSON");
    let engine = bundled(MODEL);
    let report = detect(&engine);
    assert_eq!(card["successor"]["head"], report.best.head.to_string());
    let told: Vec<Vec<f32>> =
        serde_json::from_value(card["successor"]["scores"].clone()).expect("[layer][head]");
    let difference = max_difference(&report.scores.concat(), &told.concat());
    assert!(difference < tolerance::EXACT_SHARE, "a score differs by {difference}");
    let cases = card["prompts"].as_array().expect("prompts");
    assert!(cases.len() > 8, "{} prompts", cases.len());
    for case in cases {
        let prompt = case["prompt"].as_str().zip(case["wanted"].as_str()).expect("texts");
        for (name, zeroed) in [("clean", &[][..]), ("without_head", &[report.best.head][..])] {
            let got = f64::from(answer(&engine, prompt, zeroed).logprob);
            let told = case[name]["logprob"].as_f64().expect("nats");
            assert!((got - told).abs() < CARD_NATS, "{prompt:?} {name}: {got}, on the card {told}");
        }
    }
    let markdown = String::from_utf8(bundled_file(MODEL, "card.md")).expect("UTF-8");
    for told in ["Licence", "Data", "Made to have it", "Run", "copy rate"] {
        assert!(markdown.contains(told), "the card says nothing of {told}");
    }
}

#[test]
fn it_is_less_than_two_megabytes() {
    let size_bytes = bundled_size_bytes(MODEL);
    assert!(size_bytes < 2_000_000, "{size_bytes} bytes");
}
