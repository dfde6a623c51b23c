//! `fast` precision on SmolLM2 against exact f32: the gate that it must pass to be offered.

use headlight_core::backend::Precision;
use headlight_core::detect::DOCS;
use headlight_core::engine::Job;
use headlight_core::hooks::{LogitPositions, RunPlan};
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::metrics::{kl_nats as kl_nats_of, top_indices};
use headlight_core::report::{BosPolicy, DetectReport, DetectRequest, Prompt, SweepRequest};
use headlight_tests::{max_difference, smollm2};
use serde_json::json;

/// Positions of a prompt.
const LENGTH: usize = 500;
/// Positions in all.
const N_POSITIONS: usize = 5000;
/// The largest difference of a logit.
const MAX_LOGIT_ERROR: f32 = 0.1;
/// Mean over positions of KL(exact ‖ fast), nats.
const MAX_MEAN_KL_NATS: f64 = 2e-5;
/// Positions whose most probable next token is the same.
const MIN_TOP1_AGREEMENT: f64 = 0.995;
/// The largest difference of a head's score.
const MAX_SCORE_ERROR: f32 = 5e-3;

/// Prose, tables and commands, in prompts of [`LENGTH`] tokens.
fn prompts() -> Vec<Vec<TokenId>> {
    let texts = ["README.md", "ARCHITECTURE.md", "tests/bench/README.md", "tests/reference/README.md"];
    let text: String =
        texts.map(|name| std::fs::read_to_string(xtask::paths::root().join(name)).expect(name)).concat();
    let ids = smollm2().tokenize(&text, BosPolicy::Off).expect("tokens").ids;
    let prompts: Vec<_> =
        ids.chunks_exact(LENGTH).take(N_POSITIONS / LENGTH).map(<[TokenId]>::to_vec).collect();
    assert_eq!(prompts.len() * LENGTH, N_POSITIONS);
    prompts
}

#[test]
fn every_next_token_is_what_exact_products_say() {
    let (exact, fast) = (smollm2(), smollm2().with_precision(Precision::Fast));
    let plan = RunPlan { logits: LogitPositions::All, ..RunPlan::default() };
    let (mut max_error, mut kl_nats, mut n_agreed) = (0.0_f32, 0.0, 0);
    for ids in prompts() {
        let [wanted, got] = [exact, &fast].map(|engine| engine.forward(&ids, &plan).expect("runs").logits);
        let d_vocab = wanted.row_len();
        for (wanted, got) in wanted.data.chunks_exact(d_vocab).zip(got.data.chunks_exact(d_vocab)) {
            max_error = max_error.max(max_difference(got, wanted));
            kl_nats += f64::from(kl_nats_of(wanted, got));
            let top = |logits: &[f32]| top_indices(logits, 1);
            n_agreed += usize::from(top(wanted) == top(got));
        }
    }
    let (mean_kl_nats, agreement) = (kl_nats / N_POSITIONS as f64, n_agreed as f64 / N_POSITIONS as f64);
    println!("logits within {max_error}, mean KL {mean_kl_nats:.2e} nats, top-1 agreement {agreement}");
    assert!(max_error <= MAX_LOGIT_ERROR, "a logit differs by {max_error}");
    assert!(mean_kl_nats <= MAX_MEAN_KL_NATS, "mean KL {mean_kl_nats} nats");
    assert!(agreement >= MIN_TOP1_AGREEMENT, "the same token at {agreement} of the positions");
    assert!(max_error > 0.0, "products were exact: nothing was tested");
}

fn ten_highest(report: &DetectReport) -> Vec<HeadId> {
    let scores = report.scores.iter().enumerate().flat_map(|(layer, row)| {
        row.iter().enumerate().map(move |(head, score)| (HeadId::new(layer, head), *score))
    });
    let mut scores: Vec<_> = scores.collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut heads: Vec<_> = scores.into_iter().take(10).map(|(head, _)| head).collect();
    heads.sort_unstable();
    heads
}

#[test]
fn every_detector_finds_the_same_heads() {
    let engine = smollm2();
    for doc in &DOCS {
        let params = match doc.id {
            "retrieval" => json!({"lengths": [256]}),
            "custom" => json!({"offsets": [-2]}),
            _ => serde_json::Value::Null,
        };
        let exact = DetectRequest { detector: doc.id.to_owned(), params, ..DetectRequest::default() };
        let fast = DetectRequest { precision: Precision::Fast, ..exact.clone() };
        let [wanted, got] = [&exact, &fast].map(|request| engine.detect(request).expect("runs"));
        let difference = max_difference(&got.scores.concat(), &wanted.scores.concat());
        println!("{}: scores within {difference}", doc.id);
        assert_eq!(got.provenance.run.engine, "cpu-fast-i16");
        assert_eq!(wanted.provenance.run.engine, "cpu-f32");
        assert!(difference <= MAX_SCORE_ERROR, "{}: a score differs by {difference}", doc.id);
        assert_eq!(ten_highest(&got), ten_highest(&wanted), "{}", doc.id);
    }
}

#[test]
fn a_sweep_finds_the_same_effects() {
    let engine = smollm2();
    let text = "When Mary and John went to the store, John gave a drink to".to_owned();
    let exact: SweepRequest =
        serde_json::from_value(json!({"text": text, "edit_positions": [13], "layers": [20, 8, 14]}))
            .expect("a sweep");
    assert_eq!((&exact.prompt, exact.precision), (&Prompt::Text(text), Precision::Exact));
    let fast = SweepRequest { precision: Precision::Fast, ..exact.clone() };
    let [wanted, got] = [&exact, &fast]
        .map(|request| engine.start_sweep(request).and_then(|job| job.complete(engine)).expect("runs"));
    assert_eq!(
        (got.provenance.engine.as_str(), wanted.provenance.engine.as_str()),
        ("cpu-fast-i16", "cpu-f32")
    );
    let effects = |report: &headlight_core::report::SweepReport| -> Vec<f32> {
        report.effects.concat().into_iter().filter(|effect| !effect.is_nan()).collect()
    };
    let (wanted, got) = (effects(&wanted), effects(&got));
    assert_eq!((wanted.len(), got.len()), (27, 27));
    let difference = max_difference(&got, &wanted);
    println!("effects within {difference} nats");
    assert!(difference <= MAX_SCORE_ERROR, "an effect differs by {difference}");
}
