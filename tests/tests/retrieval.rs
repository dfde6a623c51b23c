//! Retrieval heads and what they stand on: passes that continue after a cache, greedy decoding, the reference's scores on
//! SmolLM2, and every kind of request that must be refused.

use headlight_core::backend::Device;
use headlight_core::decode::{Generated, StopRules};
use headlight_core::engine::Engine;
use headlight_core::error::Error;
use headlight_core::forward::KvCache;
use headlight_core::hooks::{CaptureSet, Edit, Intervention, LogitPositions, RunPlan};
use headlight_core::ids::{BlockHook, HeadId, HookPoint, TokenId};
use headlight_core::report::{BosPolicy, DetectReport, DetectRequest};
use headlight_tests::tiny::{Noise, TinyConfig};
use headlight_tests::{backend, max_difference, reference_json, smollm2, tolerance};
use serde_json::{Value, json};

const CONFIG: TinyConfig = TinyConfig::SMALL;

fn random_ids(n: usize, seed: u64) -> Vec<TokenId> {
    let mut noise = Noise(seed);
    (0..n).map(|_| noise.id(CONFIG.d_vocab)).collect()
}

fn everywhere() -> RunPlan {
    RunPlan { logits: LogitPositions::All, n_argmax_rows: 1, ..RunPlan::default() }
}

/// Reads the parts one after another, each after the cache of those before; gives the logits of all, `[pos, d_vocab]`.
fn in_parts(engine: &Engine, parts: &[&[TokenId]]) -> (Vec<f32>, KvCache<Device>) {
    let mut logits = Vec::new();
    let mut cache = KvCache::default();
    for part in parts {
        let (output, longer) = engine.forward_after(cache, part, &everywhere()).expect("runs");
        logits.extend(output.logits.data);
        cache = longer;
    }
    (logits, cache)
}

/// Splits at every position given and compares with one pass over the whole.
fn check_splits(engine: &Engine, ids: &[TokenId], splits: &[usize]) {
    let whole = engine.forward(ids, &everywhere()).expect("runs").logits;
    for &split in splits {
        let (first, rest) = ids.split_at(split);
        let (middle, last) = rest.split_at(rest.len() / 2);
        let parts: Vec<&[TokenId]> =
            [first, middle, last].into_iter().filter(|part| !part.is_empty()).collect();
        let (logits, cache) = in_parts(engine, &parts);
        assert_eq!(cache.n_tokens(), ids.len());
        let difference = max_difference(&logits, &whole.data);
        assert!(difference < tolerance::CACHE, "split at {split}: logits differ by {difference}");
    }
}

#[test]
fn continuing_after_any_split_equals_one_pass() {
    let attention_only = TinyConfig { d_mlp: 0, n_kv_heads: 4, ..CONFIG };
    for (seed, config) in
        [(1, CONFIG), (2, attention_only), (3, TinyConfig { n_kv_heads: 1, tied: true, ..CONFIG })]
    {
        let splits: Vec<usize> = (1..33).collect();
        check_splits(&config.engine(seed), &random_ids(33, seed), &splits);
    }
    let engine = smollm2();
    let text = "The keeper of the lighthouse wrote down the weather every evening. On the third of May 1907 the keeper wrote";
    let ids = engine.tokenize(text, BosPolicy::Off).expect("tokenises").ids;
    check_splits(engine, &ids, &[1, 7, ids.len() - 1]);
}

#[test]
fn a_first_part_is_bit_equal_to_a_pass_without_a_cache() {
    let (engine, ids) = (CONFIG.engine(4), random_ids(20, 4));
    let (logits, _) = in_parts(&engine, &[&ids]);
    assert_eq!(logits, engine.forward(&ids, &everywhere()).expect("runs").logits.data);
}

#[test]
fn patterns_after_a_cache_have_the_keys_before_and_the_argmax_is_theirs() {
    let (engine, ids) = (CONFIG.engine(5), random_ids(20, 5));
    let head = HeadId::new(1, 2);
    let points = [HookPoint::Block(1, BlockHook::Pattern), HookPoint::Block(1, BlockHook::Z)];
    let plan = RunPlan {
        capture: CaptureSet::of(points),
        pattern_heads: vec![head],
        n_argmax_rows: 1,
        ..RunPlan::default()
    };
    let whole = engine.forward(&ids, &plan).expect("runs").activations;
    let (_, cache) = in_parts(&engine, &[&ids[..13]]);
    let (output, _) = engine.forward_after(cache, &ids[13..], &plan).expect("runs");
    let part = output.activations;
    assert_eq!(part.get(points[0]).expect("captured").shape, [4, 7, 20]);
    assert_eq!(part.get(points[1]).expect("captured").shape, [7, 4, 6]);
    let (wanted, got) = (whole.pattern(head).expect("kept"), part.pattern(head).expect("kept"));
    assert_eq!(got.shape, [7, 20]);
    assert!(max_difference(&got.data, &wanted.data[13 * 20..]) < tolerance::CACHE);
    assert_eq!(part.argmax_keys(), whole.argmax_keys());
    let last = got.rows().last().expect("rows");
    let key = part.argmax_keys()[0][1][2];
    assert!(last.iter().all(|&weight| weight <= last[key]));
}

#[test]
fn a_cache_is_cut_to_a_shared_beginning() {
    let (engine, ids) = (CONFIG.engine(6), random_ids(24, 6));
    let (_, cache) = in_parts(&engine, &[&ids]);
    let other: Vec<TokenId> = ids[..9].iter().copied().chain(random_ids(8, 7)).collect();
    let shared = cache.prefix(&backend(), 9);
    assert_eq!(shared.n_tokens(), 9);
    let (output, _) = engine.forward_after(shared, &other[9..], &RunPlan::default()).expect("runs");
    let whole = engine.forward(&other, &RunPlan::default()).expect("runs");
    assert!(max_difference(&output.logits.data, &whole.logits.data) < tolerance::CACHE);
    assert_eq!(cache.prefix(&backend(), 99).n_tokens(), 24);
    assert_eq!(cache.prefix(&backend(), 0).n_tokens(), 0);
}

#[test]
fn edits_after_a_cache_are_those_of_one_pass_or_are_refused() {
    let (engine, ids) = (CONFIG.engine(8), random_ids(16, 8));
    let heads = vec![HeadId::new(0, 1), HeadId::new(1, 3)];
    let plan = |edit| RunPlan { edits: vec![edit].into(), ..RunPlan::default() };
    let cached = || in_parts(&engine, &[&ids[..10]]).1;
    let zero = plan(Intervention::zero(heads.clone()).at((10..16).collect()));
    let (output, _) = engine.forward_after(cached(), &ids[10..], &zero).expect("runs");
    let whole = engine.forward(&ids, &zero).expect("runs").logits;
    assert!(max_difference(&output.logits.data, &whole.data) < tolerance::CACHE);
    let everywhere_new = plan(Intervention::zero(heads.clone()));
    let (same, _) = engine.forward_after(cached(), &ids[10..], &everywhere_new).expect("runs");
    assert_eq!(same.logits, output.logits, "all positions are all of this pass");
    let refused = |edit| {
        let error = engine.forward_after(cached(), &ids[10..], &plan(edit)).err();
        error.expect("refused").to_string()
    };
    let before = refused(Intervention::zero(heads.clone()).at(vec![9]));
    assert!(before.contains("positions 10 and later"), "{before}");
    let mean = refused(Intervention::of_heads(Edit::Mean { over: None }, heads));
    assert!(mean.contains("whole prompt"), "{mean}");
    let full =
        engine.forward_after(cached(), &random_ids(247, 1), &RunPlan::default()).err().expect("too long");
    assert!(full.to_string().contains("257 tokens long"), "{full}");
}

#[test]
fn greedy_decoding_is_the_argmax_of_one_pass_after_another() {
    let (engine, prompt) = (CONFIG.engine(9), random_ids(7, 9));
    let rules = StopRules { max_new_tokens: 12, stop_ids: Vec::new() };
    let generated = engine.generate(&prompt, &rules).expect("runs");
    let mut ids = prompt.clone();
    for Generated { id, argmax_keys, .. } in &generated {
        let output = engine.forward(&ids, &everywhere()).expect("runs");
        assert_eq!(Some(argmax_keys), output.activations.argmax_keys().last());
        let logits = output.logits.rows().last().expect("rows");
        assert!(logits.iter().all(|&logit| logit <= logits[*id as usize] + tolerance::CACHE));
        ids.push(*id);
    }
    assert_eq!(generated.len(), 12);
    let stop = StopRules { max_new_tokens: 12, stop_ids: vec![generated[3].id] };
    let first = generated.iter().position(|token| token.id == generated[3].id).expect("generated");
    assert_eq!(engine.generate(&prompt, &stop).expect("runs"), generated[..=first]);
    let none = StopRules { max_new_tokens: 0, stop_ids: Vec::new() };
    assert_eq!(engine.generate(&prompt, &none).expect("nothing to do"), []);
}

fn request(params: Value) -> DetectRequest {
    DetectRequest { detector: "retrieval".to_owned(), params, ..DetectRequest::default() }
}

fn table(value: &Value) -> Vec<f32> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(value.clone()).expect("[layer][head]");
    rows.concat()
}

fn ids_of(value: &Value) -> Vec<TokenId> {
    serde_json::from_value(value.clone()).expect("ids")
}

/// The reference's stops: a new line, the end of a turn, the end of a text.
const STOP_IDS: [TokenId; 3] = [198, 2, 0];

fn reference_prompts(reference: &Value) -> Value {
    let prompts = reference["prompts"].as_array().expect("prompts").iter();
    let prompts = prompts.map(|prompt| {
        json!({"ids": prompt["ids"], "span": prompt["span"], "max_new_tokens": 20, "stop_ids": STOP_IDS})
    });
    prompts.collect()
}

fn against(got: &Value, wanted: &Value, name: &str) {
    let difference = max_difference(&table(got), &table(wanted));
    assert!(difference < tolerance::EXACT_SHARE, "{name}: a head differs by {difference}");
}

#[test]
fn scores_match_the_reference_on_its_own_prompts() {
    let reference = reference_json("retrieval.json").expect("reference");
    let report = smollm2().detect(&request(json!({"prompts": reference_prompts(&reference)}))).expect("runs");
    let (scores, evidence) = (&reference["scores"], &report.evidence);
    against(&json!(report.scores), &scores["set_len256"], "set");
    against(&evidence["count_scores"], &scores["count_len256"], "count");
    let succeeded = &evidence["succeeded"];
    against(&succeeded["set_scores"], &scores["set_success_len256"], "set over successes");
    against(&succeeded["count_scores"], &scores["count_success_len256"], "count over successes");
    assert_eq!((report.n, &succeeded["n"]), (15, &json!(13)));
    assert_eq!(report.best.head, HeadId::new(18, 6));
    for head in ["L18H6", "L18H7", "L17H3", "L17H4"] {
        assert!(report.found.contains(&head.parse().expect("a head")), "{head} is missing");
    }
    let got = evidence["prompts"].as_array().expect("prompts");
    for (got, wanted) in got.iter().zip(reference["prompts"].as_array().expect("prompts")) {
        assert_eq!(got["generated_ids"], wanted["generated_ids"]);
        assert_eq!(got["generated"], wanted["generated"]);
        assert_eq!(got["recall"], wanted["recall"]);
    }
}

/// Whether two keys of a head's last row have the same weight, up to what two f32 forwards differ by.
fn is_tie(ids: &[TokenId], head: HeadId, keys: [usize; 2]) -> bool {
    let plan = RunPlan { pattern_heads: vec![head], logits: LogitPositions::None, ..RunPlan::default() };
    let activations = smollm2().forward(ids, &plan).expect("runs").activations;
    let row = activations.pattern(head).expect("kept").rows().last().expect("rows");
    (row[keys[0]] - row[keys[1]]).abs() < tolerance::REAL_PATTERNS
}

#[test]
fn the_attended_keys_are_the_references_up_to_ties() {
    let reference = reference_json("retrieval.json").expect("reference");
    let prompts = reference["prompts"].as_array().expect("prompts").iter();
    let (mut n_cells, mut ties) = (0, Vec::new());
    for prompt in prompts.filter(|prompt| prompt.get("argmax_positions").is_some()) {
        let ids = ids_of(&prompt["ids"]);
        let rules = StopRules { max_new_tokens: 20, stop_ids: STOP_IDS.to_vec() };
        let generated = smollm2().generate(&ids, &rules).expect("runs");
        let wanted: Vec<Vec<Vec<usize>>> =
            serde_json::from_value(prompt["argmax_positions"].clone()).expect("[step][layer][head]");
        assert_eq!(generated.len(), wanted.len());
        for (step, (token, wanted)) in generated.iter().zip(&wanted).enumerate() {
            let read: Vec<TokenId> =
                ids.iter().copied().chain(generated[..step].iter().map(|token| token.id)).collect();
            for (layer, (keys, wanted)) in token.argmax_keys.iter().zip(wanted).enumerate() {
                for (head, (&key, &wanted)) in keys.iter().zip(wanted).enumerate() {
                    n_cells += 1;
                    if key != wanted {
                        let head = HeadId::new(layer, head);
                        assert!(
                            is_tie(&read, head, [key, wanted]),
                            "{head}, step {step}: {key}, not {wanted}"
                        );
                        ties.push(format!("{head} step {step}: {key} or {wanted}"));
                    }
                }
            }
        }
    }
    println!("{} ties of {n_cells}: {ties:?}", ties.len());
    assert!(n_cells > 10_000 && ties.len() < 10, "{} ties of {n_cells}", ties.len());
}

fn generated_report(params: Value) -> DetectReport {
    smollm2().detect(&request(params)).expect("runs")
}

#[test]
fn its_own_needles_find_the_same_heads_and_share_what_was_read() {
    let report = generated_report(json!({"n_needles": 2, "depths": [30, 80]}));
    for head in ["L18H6", "L18H7", "L17H3", "L17H4"] {
        assert!(report.found.contains(&head.parse().expect("a head")), "{head} of {:?}", report.found);
    }
    assert_eq!(report.threshold, Some(0.1));
    let evidence = &report.evidence;
    assert_eq!(evidence["succeeded"]["n"], json!(4), "{}", evidence["prompts"]);
    for prompt in evidence["prompts"].as_array().expect("prompts") {
        assert_eq!(prompt["generated"].as_str().map(|text| text.starts_with(' ')), Some(true));
    }
    let shared = evidence["n_tokens_shared"].as_u64().expect("a number");
    assert!(shared > 250, "{shared} tokens were shared");
    // The answers were drafted right: all that was written after a prompt came of the pass that read it.
    assert_eq!(evidence["n_passes"], json!(4));
    let counted = generated_report(json!({"n_needles": 2, "depths": [30, 80], "scoring": "count"}));
    assert_eq!(json!(counted.scores), evidence["count_scores"]);
    assert_eq!(counted.evidence["set_scores"], json!(report.scores));
}

fn own_text(text: &str, needle: &str) -> Value {
    json!({"texts": [{"text": text, "needle": needle, "question": "Question: What?\nAnswer:"}]})
}

#[test]
fn a_text_of_ones_own_is_answered_and_its_evidence_says_who_looked_where() {
    let text = "The library closes at six. The password of the archive is velvet thunder under orange snow. Bring a lamp.";
    let question = "Question: What is the password of the archive?\nAnswer: The password of the archive is";
    let needle = "velvet thunder under orange snow";
    let own = |needle: &str| json!({"texts": [{"text": text, "needle": needle, "question": question}]});
    let report = generated_report(own(needle));
    assert!(report.stimulus.starts_with("1 given text"), "{}", report.stimulus);
    let prompt = &report.evidence["prompts"][0];
    assert_eq!(prompt["answer"].as_str().map(str::trim), Some(needle));
    assert_eq!(prompt["recall"], json!(1.0), "{prompt}");
    let tokens: Vec<String> = serde_json::from_value(prompt["tokens"].clone()).expect("tokens");
    assert_eq!(tokens.concat(), format!("{text}\n\n{question}"));
    // The strongest head's score again, from the evidence alone.
    let copying: Vec<HeadId> =
        serde_json::from_value(report.evidence["copying_heads"].clone()).expect("heads");
    let best = copying.iter().position(|head| *head == report.best.head).expect("it copied");
    let looked_at: Vec<Vec<usize>> = serde_json::from_value(prompt["looked_at"].clone()).expect("positions");
    let generated: Vec<String> = serde_json::from_value(prompt["generated_tokens"].clone()).expect("tokens");
    let span: [usize; 2] = serde_json::from_value(prompt["span"].clone()).expect("a span");
    let copied: std::collections::BTreeSet<&String> = (looked_at[best].iter().zip(&generated))
        .filter(|(key, token)| (span[0]..span[1]).contains(*key) && tokens[**key] == **token)
        .map(|(_, token)| token)
        .collect();
    let score = copied.len() as f32 / (span[1] - span[0]) as f32;
    assert!((score - report.best.score).abs() < 1e-6, "{score}, not {}", report.best.score);
    // Half a word is no row of tokens.
    let error = smollm2().detect(&request(own("vet thun"))).expect_err("refused");
    assert!(error.to_string().contains("whole words"), "{error}");
}

#[test]
fn the_provenance_runs_it_again_and_a_bos_shifts_the_needle() {
    let params = json!({"n_needles": 1, "depths": [50], "lengths": [128]});
    let report = generated_report(params.clone());
    let again = smollm2().detect(&report.provenance.request).expect("runs");
    assert_eq!(again, report);
    let bos = DetectRequest { bos: BosPolicy::On, seed: 3, ..request(params) };
    let with_bos = smollm2().detect(&bos).expect("runs");
    let prompt = &with_bos.evidence["prompts"][0];
    assert_eq!(prompt["answer"], report.evidence["prompts"][0]["answer"]);
    assert!(
        with_bos.stimulus.contains("BOS 1") && with_bos.stimulus.contains("seed 3"),
        "{}",
        with_bos.stimulus
    );
}

#[test]
fn the_answer_needs_the_strongest_heads_more_than_others() {
    let causal = json!({"k": 5, "n_draws": 6, "n_prompts": 1});
    let report =
        generated_report(json!({"n_needles": 1, "depths": [50], "lengths": [160], "causal": causal}));
    let causal = &report.evidence["causal"];
    assert_eq!((&causal["n_prompts"], &causal["n_draws"]), (&json!(1), &json!(6)));
    let heads: Vec<HeadId> = serde_json::from_value(causal["heads"].clone()).expect("heads");
    assert_eq!(heads, report.found[..5], "the strongest heads");
    let edits = causal["edits"].as_array().expect("edits");
    assert_eq!(
        edits.iter().map(|edit| &edit["edit"]).collect::<Vec<_>>(),
        [&json!("zero"), &json!("mean"), &json!("uniform")]
    );
    for edit in edits {
        let nats = |name: &str| edit[name].as_f64().expect("nats");
        let others = nats("random_drop_nats") + 2.0 * nats("random_drop_sd_nats");
        assert!(nats("top_drop_nats") > others, "{edit}");
    }
}

/// Compares the report of parts with that of the whole, every number and word of it.
fn check_parts(engine: &Engine, params: Value, cuts: &[usize]) -> DetectReport {
    let request = request(params);
    let whole = engine.detect(&request).expect("runs");
    let n_draws = request.n_draws().expect("prompts are read apart");
    assert_eq!(n_draws, whole.n);
    let bounds: Vec<usize> = [0].iter().chain(cuts).copied().chain([n_draws]).collect();
    let part = |bounds: &[usize]| {
        let draws = Some(bounds[0]..bounds[1]);
        let part = engine.detect(&DetectRequest { draws, ..request.clone() }).expect("a part runs");
        // As a report comes from a worker.
        let sent = serde_json::to_string(&part).expect("is JSON");
        serde_json::from_str::<DetectReport>(&sent).expect("is a report")
    };
    let parts: Vec<DetectReport> = bounds.windows(2).map(part).collect();
    assert!(parts.iter().all(|part| part.of_draws.as_ref().is_some_and(|of_draws| of_draws.len() == part.n)));
    assert_eq!(DetectReport::whole(request, parts).as_ref(), Some(&whole), "in parts at {bounds:?}");
    whole
}

#[test]
fn parts_of_the_prompts_give_what_all_of_them_give() {
    let engine = CONFIG.engine(1);
    // Prompts that begin alike, so that a part's first reads anew what the whole has from the one before.
    let beginning = random_ids(30, 11);
    let prompts: Vec<Value> = (0..7)
        .map(|index| {
            let ids: Vec<TokenId> = beginning.iter().copied().chain(random_ids(9, 20 + index)).collect();
            json!({"ids": ids, "span": [3, 9], "max_new_tokens": 8})
        })
        .collect();
    for scoring in ["set", "count"] {
        let params = json!({"prompts": prompts, "scoring": scoring});
        for cuts in [&[][..], &[3], &[1, 2, 6]] {
            let whole = check_parts(&engine, params.clone(), cuts);
            assert_eq!(whole.evidence["n_tokens_shared"].as_u64(), Some(6 * 30));
            assert_ne!(whole.evidence["copying_heads"], json!([]), "there are looks to compare");
        }
    }
    let part = |params: Value, draws| engine.detect(&DetectRequest { draws: Some(draws), ..request(params) });
    let beyond = part(json!({"prompts": prompts}), 5..8).expect_err("prompts that are not there").to_string();
    assert!(beyond.contains("5 to 8") && beyond.contains("has 7"), "{beyond}");
    // What the strongest heads of all prompts are needed for is no part's work.
    let causal = json!({"prompts": prompts, "causal": {}});
    assert_eq!(request(causal.clone()).n_draws(), None);
    let told = part(causal, 0..3).expect_err("not divided").to_string();
    assert!(told.contains("leave `draws` out"), "{told}");
}

#[test]
fn parts_of_its_own_prompts_on_the_real_model_too() {
    let whole =
        check_parts(smollm2(), json!({"n_needles": 2, "depths": [30, 80], "lengths": [160]}), &[1, 3]);
    assert_eq!((whole.n, whole.best.head), (4, HeadId::new(18, 6)));
    // As many as it makes unless told otherwise, and none of parameters that it refuses.
    assert_eq!(request(Value::Null).n_draws(), Some(15));
    assert_eq!(request(json!({"lengths": [128, 256], "depths": [50]})).n_draws(), Some(6));
    assert_eq!(request(json!({"texts": own_text("a b", "b")["texts"]})).n_draws(), Some(1));
    assert_eq!(request(json!({"depth": [50]})).n_draws(), None);
}

#[test]
fn nothing_answered_means_nothing_to_lose() {
    let prompts = json!([{"ids": [1, 2, 3, 4, 5], "span": [1, 4], "max_new_tokens": 1}]);
    let report = CONFIG.engine(1).detect(&request(json!({"prompts": prompts, "causal": {}}))).expect("runs");
    assert_eq!(report.evidence["succeeded"]["n"], json!(0));
    assert_eq!(report.evidence["succeeded"]["set_scores"], Value::Null, "an average of nothing is no number");
    let why = report.evidence["causal"]["skipped"].as_str().expect("a reason");
    assert!(why.contains("answered no prompt"), "{why}");
}

#[test]
fn requests_that_cannot_be_scored_are_refused_in_a_sentence() {
    let engine = CONFIG.engine(1);
    let prompt = |ids: Value, span: Value| json!({"prompts": [{"ids": ids, "span": span}]});
    let cases = [
        (json!({"prompts": []}), "at least one", "nothing_to_read"),
        (prompt(json!([]), json!([0, 1])), "prompt 0 is empty", "bad_request"),
        (prompt(json!([1, 2, 3]), json!([2, 4])), "no span of its 3 tokens", "bad_request"),
        (prompt(json!([1, 2, 3]), json!([2, 2])), "start < end", "bad_request"),
        (prompt(json!([1, 2, 50]), json!([0, 1])), "token id 50", "unknown_token"),
        (prompt(json!(vec![1; 240]), json!([0, 1])), "at most 256", "prompt_too_long"),
        (prompt(json!(vec![1; 257]), json!([0, 1])), "cut it to 256", "prompt_too_long"),
        (prompt(json!([1, 2]), json!([-1, 1])), "-1", "bad_request"),
        (json!({"prompts": [{"ids": [1, 2]}]}), "span", "bad_request"),
        (json!({"prompts": [{"ids": [1, 2], "span": [0, 1]}], "depths": [5]}), "exclude", "bad_request"),
        (
            json!({"max_new_tokens": 0, "prompts": [{"ids": [1], "span": [0, 1]}]}),
            "max_new_tokens is 0",
            "bad_request",
        ),
        (json!({"texts": []}), "at least one", "nothing_to_read"),
        (own_text("a b c", "d"), "does not hold the needle \"d\"", "bad_request"),
        (own_text("a b c", " "), "needle of text 0 is empty", "bad_request"),
        (own_text("a b a", "a"), "more than once", "bad_request"),
        (json!({"texts": [], "lengths": [64]}), "exclude", "bad_request"),
        (json!({"texts": [{"text": "a", "needle": "a"}]}), "question", "bad_request"),
        (json!({"lengths": [300]}), "at most 256", "prompt_too_long"),
        (json!({"lengths": []}), "at least one number", "bad_request"),
        (json!({"lengths": [20]}), "leaves no room", "bad_request"),
        (json!({"depths": [101]}), "no percentage", "bad_request"),
        (json!({"n_needles": 0}), "n_needles is 0", "bad_request"),
        (json!({"scoring": "rouge"}), "rouge", "bad_request"),
        (json!({"causal": {"k": 0}}), "causal.k is 0; give 1 to 8", "bad_request"),
        (json!({"causal": {"n_draws": 1}}), "causal.n_draws is 1", "bad_request"),
        (json!({"causal": {"edits": []}}), "causal.edits is empty", "bad_request"),
        (json!({"causal": {"edits": ["melt"]}}), "melt", "bad_request"),
        (json!({"lengths": [200]}), "cannot spell the needles", "model_lacks"),
    ];
    for (params, told, code) in cases {
        let error: Error = engine.detect(&request(params.clone())).expect_err("refused");
        let message = error.to_string();
        assert!(message.contains(told), "{params}: {message}");
        assert_eq!(error.code(), code, "{message}");
        assert!(message.starts_with(char::is_lowercase), "{message}");
    }
    let sequences = DetectRequest { sequences: Some(vec![vec![1, 2, 1]]), ..request(Value::Null) };
    let error = engine.detect(&sequences).expect_err("refused");
    assert!(error.to_string().contains("where the answer is"), "{error}");
}
