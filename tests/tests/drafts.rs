//! Decoding with a draft against one token after another, on random models: the same tokens, logits and keys to the last bit,
//! whatever the draft says.

use headlight_core::decode::{Draft, Generated, StopRules};
use headlight_core::engine::Engine;
use headlight_core::ids::TokenId;
use headlight_core::report::{DetectReport, DetectRequest};
use headlight_tests::tiny::{Noise, TinyConfig};
use headlight_tests::{max_difference, tolerance};
use serde_json::{Value, json};

const CONFIG: TinyConfig = TinyConfig::SMALL;
const N_MODELS: u64 = 12;
/// Positions that the tiny models can read.
const N_CTX: usize = 256;
/// An id that they do not have.
const UNKNOWN: TokenId = 999;

fn random_ids(n: usize, noise: &mut Noise) -> Vec<TokenId> {
    (0..n).map(|_| noise.id(CONFIG.d_vocab)).collect()
}

fn ids_of(generated: &[Generated]) -> Vec<TokenId> {
    generated.iter().map(|token| token.id).collect()
}

/// Texts to copy from for a model that will generate `ids`, each with a name.
fn drafts(ids: &[TokenId], noise: &mut Noise) -> Vec<(&'static str, Vec<TokenId>)> {
    let half = &ids[..ids.len() / 2];
    let other: Vec<TokenId> = ids.iter().map(|id| (id + 1) % CONFIG.d_vocab as TokenId).collect();
    vec![
        ("right", ids.to_vec()),
        ("right, then more", [ids, &random_ids(40, noise)].concat()),
        ("right, too short", half.to_vec()),
        ("half right", [half, &other].concat()),
        ("right behind others", [&other[..1], ids].concat()),
        ("wrong", other),
        ("random", random_ids(30, noise)),
        ("one token again and again", vec![ids[0]; 30]),
        ("unknown from the middle on", [half, &[UNKNOWN], ids].concat()),
        ("unknown", vec![UNKNOWN; 3]),
        ("empty", Vec::new()),
    ]
}

/// Compares every draft with none, for a prompt of `n_tokens`.
fn check(seed: u64, n_tokens: usize, max_new_tokens: usize) {
    let (engine, mut noise) = (CONFIG.engine(seed), Noise(seed + 100));
    let prompt = random_ids(n_tokens, &mut noise);
    let free = StopRules { max_new_tokens, stop_ids: Vec::new() };
    let plain = engine.generate(&prompt, &free).expect("runs");
    let middle = plain[plain.len() / 2].id;
    for stop_ids in [Vec::new(), vec![middle], vec![plain[0].id], vec![UNKNOWN]] {
        let rules = StopRules { stop_ids, ..free.clone() };
        let wanted = engine.generate(&prompt, &rules).expect("runs");
        // What would follow a stop is in the draft too.
        for (name, text) in drafts(&ids_of(&plain), &mut noise) {
            let draft = Draft { first: noise.id(2) as usize..text.len(), text };
            let got = engine.generate_drafted(&prompt, &rules, &draft).expect("runs");
            assert_eq!(got, wanted, "{name}, model {seed}, {n_tokens} tokens, {rules:?}");
        }
    }
}

#[test]
fn any_draft_gives_what_none_gives() {
    for seed in 0..N_MODELS {
        for (n_tokens, max_new_tokens) in [(1, 9), (7, 1), (7, 2), (18, 14), (33, 5)] {
            check(seed, n_tokens, max_new_tokens);
        }
    }
}

#[test]
fn a_draft_ends_where_the_context_does() {
    for n_tokens in [N_CTX - 6, N_CTX - 1, N_CTX] {
        check(3, n_tokens, 14);
    }
    let engine = CONFIG.engine(3);
    let prompt = random_ids(N_CTX + 1, &mut Noise(1));
    let rules = StopRules { max_new_tokens: 2, stop_ids: Vec::new() };
    let error = engine
        .generate_drafted(&prompt, &rules, &Draft { text: vec![1], first: 0..1 })
        .expect_err("too long");
    assert!(error.to_string().contains("257 tokens long"), "{error}");
}

fn detected(engine: &Engine, prompts: &[Value]) -> DetectReport {
    let params = json!({"prompts": prompts});
    let request = DetectRequest { detector: "retrieval".to_owned(), params, ..DetectRequest::default() };
    engine.detect(&request).expect("runs")
}

/// Every prompt begins with the one before and a part of what that generated, so that it is read after a cache from which
/// wrong guesses were cut.
#[test]
fn prompts_together_are_answered_as_each_alone() {
    for seed in 0..N_MODELS {
        let (engine, mut noise) = (CONFIG.engine(seed), Noise(seed + 7));
        let rules = StopRules { max_new_tokens: 10, stop_ids: Vec::new() };
        let (mut ids, mut prompts) = (random_ids(12, &mut noise), Vec::new());
        for n_kept in [10, 4, 9, 1] {
            prompts.push(json!({"ids": ids, "span": [2, 2 + n_kept], "max_new_tokens": 10}));
            let generated = ids_of(&engine.generate(&ids, &rules).expect("runs"));
            ids.extend(&generated[..n_kept]);
            ids.extend(random_ids(2, &mut noise));
        }
        let together = detected(&engine, &prompts);
        let alone: Vec<DetectReport> =
            prompts.iter().map(|prompt| detected(&engine, std::slice::from_ref(prompt))).collect();
        for (index, alone) in alone.iter().enumerate() {
            let ids_in = |report: &DetectReport, index: usize| {
                report.evidence["prompts"][index]["generated_ids"].clone()
            };
            assert_eq!(ids_in(&together, index), ids_in(alone, 0), "prompt {index} of model {seed}");
        }
        let scores: Vec<Vec<f32>> = alone.iter().map(|report| report.scores.concat()).collect();
        let mean: Vec<f32> = (0..scores[0].len())
            .map(|head| scores.iter().map(|scores| scores[head]).sum::<f32>() / scores.len() as f32)
            .collect();
        assert!(max_difference(&together.scores.concat(), &mean) < tolerance::EXACT_SHARE, "model {seed}");
    }
}
