//! SmolLM2-135M against the reference numbers, and what must hold on any prompt.

use headlight_app::models::manifest;
use headlight_core::engine::Golden;
use headlight_core::hooks::{CaptureSet, Edit, Intervention, LogitPositions, RunPlan};
use headlight_core::ids::{BlockHook, HeadId, HookPoint};
use headlight_core::report::{BosPolicy, Prompt, RunReport, RunRequest};
use headlight_tests::{
    bundled, is_on_web_gpu, max_difference, reference, reference_json, smollm2, tolerance,
};
use serde_json::Value;

fn request(text: &str) -> RunRequest {
    RunRequest { prompt: Prompt::Text(text.to_owned()), ..RunRequest::default() }
}

fn run(text: &str) -> RunReport {
    smollm2().run(&request(text)).expect("the prompt runs")
}

fn number(value: &Value) -> f32 {
    value.as_f64().expect("a number") as f32
}

#[test]
fn every_tokenizer_row_is_exact() {
    let rows = reference_json("tokenizer.json").expect("reference");
    for row in rows["rows"].as_array().expect("rows") {
        let text = row["text"].as_str().expect("text");
        let wanted: Vec<u64> = row["ids"].as_array().expect("ids").iter().filter_map(Value::as_u64).collect();
        let report = smollm2().tokenize(text, BosPolicy::Auto).expect("the text tokenises");
        let got: Vec<u64> = report.ids.iter().copied().map(u64::from).collect();
        assert_eq!(got, wanted, "{text:?}");
        let bytes: String = report.bytes.concat();
        let text_hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, text_hex, "the tokens' bytes are the text's: {text:?}");
    }
}

#[test]
fn logits_losses_and_order_match_the_reference() {
    let prompts = reference_json("logits.json").expect("reference");
    for (name, wanted) in prompts.as_object().expect("prompts") {
        let report = run(wanted["text"].as_str().expect("text"));
        let top = wanted["top20"].as_array().expect("top20");
        let ids: Vec<u64> = report.logits_top.iter().map(|token| u64::from(token.id)).collect();
        let wanted_ids: Vec<u64> = top.iter().filter_map(|token| token["id"].as_u64()).collect();
        assert_eq!(ids, wanted_ids, "{name}: order of the 20 most probable tokens");
        let got: Vec<f32> = report.logits_top.iter().map(|token| token.logit).collect();
        let logits: Vec<f32> = top.iter().map(|token| number(&token["logit"])).collect();
        let difference = max_difference(&got, &logits);
        assert!(difference < tolerance::REAL_LOGITS, "{name}: logits differ by {difference}");
        let nll = report.nll_nats.iter().sum::<f32>() / report.nll_nats.len() as f32;
        assert!((nll - number(&wanted["mean_nll_nats"])).abs() < tolerance::REAL_NATS, "{name}: loss {nll}");
        assert!((report.logsumexp - number(&wanted["logsumexp"])).abs() < tolerance::REAL_NATS, "{name}");
    }
}

#[test]
fn every_pattern_matches_the_reference() {
    let file = reference("patterns.safetensors").expect("reference");
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
    let view = tensors.tensor("induction_name").expect("the prompt's patterns");
    let wanted: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let prompts = reference_json("logits.json").expect("reference");
    let text = prompts["induction_name"]["text"].as_str().expect("text");
    let engine = smollm2();
    let ids = engine.tokenize(text, BosPolicy::Off).expect("tokenises").ids;
    let points = (0..30).map(|layer| HookPoint::Block(layer, BlockHook::Pattern));
    let plan = RunPlan { capture: CaptureSet::of(points), ..RunPlan::default() };
    let output = engine.forward(&ids, &plan).expect("runs");
    for (layer, wanted) in wanted.chunks_exact(9 * ids.len() * ids.len()).enumerate() {
        let got = output.activations.get(HookPoint::Block(layer, BlockHook::Pattern)).expect("captured");
        let difference = max_difference(&got.data, wanted);
        assert!(difference < tolerance::REAL_PATTERNS, "layer {layer}: patterns differ by {difference}");
    }
}

#[test]
fn a_prefix_gives_the_logits_of_the_longer_prompt_at_its_end() {
    let texts = [
        "naïve café — 日本語のテスト 🙂🙃 e\u{301}",
        "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
        "   \n\n\t  indented    text  ",
    ];
    let engine = smollm2();
    // A software device takes seconds for each.
    let step = if is_on_web_gpu() { 10 } else { 3 };
    for text in texts {
        let ids = engine.tokenize(text, BosPolicy::Off).expect("tokenises").ids;
        let plan = RunPlan { logits: LogitPositions::All, ..RunPlan::default() };
        let whole = engine.forward(&ids, &plan).expect("runs").logits;
        for (end, wanted) in whole.rows().enumerate().step_by(step) {
            let part = engine.forward(&ids[..=end], &RunPlan::default()).expect("runs").logits;
            let difference = max_difference(&part.data, wanted);
            assert!(difference < tolerance::RECEIPT, "{text:?} up to {end}: {difference}");
        }
    }
}

#[test]
fn a_long_prompt_and_a_single_token_run() {
    let sentence = "The river left the hills in a narrow gorge and widened as it reached the plain. ";
    let long = run(&sentence.repeat(30));
    assert!(long.ids.len() >= 500, "{} tokens", long.ids.len());
    assert!(long.nll_nats.iter().all(|nll| nll.is_finite()));
    let first = long.nll_nats[..16].iter().sum::<f32>();
    let repeated = long.nll_nats[17..33].iter().sum::<f32>();
    assert!(repeated < first / 2.0, "a repeated sentence is foreseen: {first} then {repeated} nats");
    let one = run("Hello");
    assert_eq!((one.ids.len(), one.nll_nats.len(), one.logits_top.len()), (1, 0, 20));
}

#[test]
fn neutral_edits_change_no_bit_and_real_ones_change_the_answer() {
    let text = "The wizard Grindelhof greeted the knight. The knight bowed and thanked Grindel";
    let clean = run(text);
    let with = |edit: Intervention| {
        smollm2().run(&RunRequest { interventions: vec![edit], ..request(text) }).expect("runs")
    };
    let heads = vec![HeadId::new(18, 6), HeadId::new(17, 3)];
    let neutral = with(Intervention::of_heads(Edit::Scale { alpha: 1.0 }, heads.clone()));
    assert_eq!(neutral.logits_top, clean.logits_top);
    assert_eq!(neutral.nll_nats, clean.nll_nats);
    let zeroed = with(Intervention::zero(heads.clone()));
    assert!(zeroed.logits_top[0].logprob < clean.logits_top[0].logprob - 0.01);
    let nowhere = with(Intervention::zero(heads).at(Vec::new()));
    assert_eq!(nowhere.logits_top, clean.logits_top, "an edit at no position is no edit");
}

#[test]
fn every_model_of_the_manifest_gives_its_golden_logits() {
    let test = |engine: &headlight_core::engine::Engine, golden: &Golden| {
        pollster::block_on(engine.self_test(None, Some(golden))).expect("runs")
    };
    let models = manifest();
    assert!(models.len() >= 3);
    for model in models {
        let id = model.source.id;
        let golden = model.source.golden.expect("it has some");
        let small;
        let engine = if model.bundled {
            small = bundled(&id);
            &small
        } else {
            assert_eq!(smollm2().info().sha256, model.source.sha256.expect("it is pinned"));
            smollm2()
        };
        let right = test(engine, &golden);
        assert!(right.max_difference() < tolerance::REAL_LOGITS, "{id}: {right:?}");
        let mut other = golden.clone();
        other.logits[7][3] += 0.01;
        assert!(!test(engine, &other).passed(), "{id}");
        // Of a model that has not so many ids.
        other.ids[0] = engine.info().d_vocab as u32;
        assert!(pollster::block_on(engine.self_test(None, Some(&other))).is_err(), "{id}");
    }
}
