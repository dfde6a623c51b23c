//! SmolLM2's heads against the reference: every head zeroed and averaged, attribution, signs and sizes that are known.

use headlight_core::ablate::dla::DlaSpec;
use headlight_core::ablate::sweep::{SweepSpec, Targets};
use headlight_core::ablate::{Metric, MetricSpec};
use headlight_core::backend::Precision;
use headlight_core::engine::Job;
use headlight_core::hooks::{Edit, Intervention, Prompt, Sites};
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::report::{BosPolicy, DlaRequest, GenerateRequest, RunRequest, SweepReport, SweepRequest};
use headlight_tests::{max_difference, reference_json, smollm2, tolerance};
use serde_json::Value;

fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().expect("ids").iter().filter_map(|id| Some(id.as_u64()? as TokenId)).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().expect("a number") as f32],
    }
}

fn sweep(ids: &[TokenId], spec: SweepSpec) -> SweepReport {
    let request = SweepRequest {
        prompt: Prompt::Ids(ids.to_vec()),
        bos: BosPolicy::Off,
        precision: Precision::Exact,
        spec,
    };
    let engine = smollm2();
    engine.start_sweep(&request).expect("starts").complete(engine).expect("runs")
}

#[test]
fn every_head_zeroed_and_averaged_matches_the_reference() {
    let reference = reference_json("ablation.json").expect("reference");
    let prompt = &reference["prompts"]["induction_name"];
    let (ids, token) = (ids(&prompt["ids"]), prompt["correct_id"].as_u64().map(|id| id as TokenId));
    for (edit, name) in [(Edit::Zero {}, "zero"), (Edit::Mean { over: None }, "mean")] {
        for (metric, clean) in [(Metric::Logprob, numbers(&prompt["clean_logprob"])[0]), (Metric::Kl, 0.0)] {
            let metric_spec = MetricSpec { metric, token, ..MetricSpec::default() };
            let report =
                sweep(&ids, SweepSpec { edit: edit.clone(), metric: metric_spec, ..SweepSpec::default() });
            assert!((report.clean - clean).abs() < tolerance::REAL_EFFECTS);
            let wanted: Vec<f32> =
                numbers(&prompt[name][metric.name()]).into_iter().map(|value| value - clean).collect();
            let difference = max_difference(&report.effects.concat(), &wanted);
            assert!(difference < tolerance::REAL_EFFECTS, "{name} {metric:?}: {difference} nats");
        }
    }
}

#[test]
fn the_loss_on_the_repeated_half_falls_with_the_reference() {
    let reference = reference_json("ablation.json").expect("reference");
    let repeat = &reference["repeat"];
    let sequences: Vec<Vec<TokenId>> =
        repeat["tokens"].as_array().expect("sequences").iter().map(ids).collect();
    let loss = |edit: Option<Edit>| -> f32 {
        let of_sequence = |ids: &Vec<TokenId>| {
            let heads = [HeadId::new(18, 6)];
            let request = RunRequest {
                prompt: Prompt::Ids(ids.clone()),
                interventions: edit.iter().map(|edit| Intervention::of_heads(edit.clone(), heads)).collect(),
                ..RunRequest::default()
            };
            let losses = smollm2().run(&request).expect("runs").nll_nats;
            losses[50..].iter().sum::<f32>() / losses[50..].len() as f32
        };
        sequences.iter().map(of_sequence).sum::<f32>() / sequences.len() as f32
    };
    let clean = numbers(&repeat["clean_second_half_nll"])[0];
    let zeroed = numbers(&repeat["zero_second_half_nll"])[18 * 9 + 6];
    assert!((loss(None) - clean).abs() < tolerance::REAL_EFFECTS);
    assert!((loss(Some(Edit::Zero {})) - zeroed).abs() < tolerance::REAL_EFFECTS);
    // Turned round, the head speaks against what it has found.
    let turned = loss(Some(Edit::Scale { alpha: -1.0 }));
    assert!((turned - 9.33).abs() < 0.005, "{turned} nats");
}

#[test]
fn one_layer_of_the_repeated_sweep_matches_and_the_mlps_have_a_column() {
    let reference = reference_json("ablation.json").expect("reference");
    let repeat = &reference["repeat"];
    let sequences: Vec<Vec<TokenId>> =
        repeat["tokens"].as_array().expect("sequences").iter().map(ids).collect();
    let metric =
        || MetricSpec { metric: Metric::Loss, positions: Some((51..100).collect()), ..MetricSpec::default() };
    let spec = || SweepSpec { targets: Targets::Mlps, metric: metric(), ..SweepSpec::default() };
    let of_mlps = sweep(&sequences[0], spec());
    assert_eq!((of_mlps.effects.len(), of_mlps.effects[0].len()), (30, 1));
    let engine = smollm2();
    let without = RunRequest {
        prompt: Prompt::Ids(sequences[0].clone()),
        interventions: vec![Intervention {
            edit: Edit::Zero {},
            sites: Sites { mlp_out: [12].into(), ..Sites::default() },
            positions: None,
        }],
        ..RunRequest::default()
    };
    let losses = engine.run(&without).expect("runs").nll_nats;
    let loss = losses[50..].iter().sum::<f32>() / 49.0;
    assert!((of_mlps.effects[12][0] + of_mlps.clean - loss).abs() < tolerance::REAL_EFFECTS);
}

#[test]
fn attribution_matches_the_reference_and_sums_to_the_logit() {
    let reference = reference_json("dla.json").expect("reference");
    let wanted = &reference["prompts"]["induction_name"];
    let engine = smollm2();
    let token = wanted["correct_id"].as_u64().map(|id| id as TokenId);
    let dla = |ids: Vec<TokenId>, spec: DlaSpec| {
        let request =
            DlaRequest { prompt: Prompt::Ids(ids), bos: BosPolicy::Off, interventions: Vec::new(), spec };
        engine.start_dla(&request).expect("starts").complete(engine).expect("runs").parts
    };
    let parts = dla(ids(&wanted["ids"]), DlaSpec { token, ..DlaSpec::default() });
    for (name, got) in [
        ("logit", vec![parts.logit]),
        ("mean_logit", vec![parts.mean_logit]),
        ("final_rms", vec![parts.final_rms]),
        ("embed", vec![parts.embed]),
        ("heads", parts.heads.concat()),
        ("mlps", parts.mlps.clone()),
        ("embed_centered", vec![parts.embed_centered]),
        ("heads_centered", parts.heads_centered.concat()),
        ("mlps_centered", parts.mlps_centered.clone()),
    ] {
        let difference = max_difference(&got, &numbers(&wanted[name]));
        assert!(difference < tolerance::REAL_EFFECTS, "{name}: {difference} logits");
    }
    assert!((parts.sum_of_parts - parts.logit).abs() < tolerance::REAL_DLA_SUM);
    assert!(parts.receipt < tolerance::RECEIPT, "heads against attention's output: {}", parts.receipt);
    // On another prompt, at another position, of a difference.
    let tokens = engine.tokenize("The old lighthouse keeper counted nine lanterns", BosPolicy::Off);
    let other = DlaSpec { token: Some(260), versus: Some(282), position: Some(3) };
    let parts = dla(tokens.expect("tokenises").ids, other);
    assert!((parts.sum_of_parts - parts.logit).abs() < tolerance::REAL_DLA_SUM);
    let centered = parts.embed_centered
        + parts.heads_centered.concat().iter().sum::<f32>()
        + parts.mlps_centered.iter().sum::<f32>();
    assert!((centered - parts.logit).abs() < tolerance::REAL_DLA_SUM, "the mean drops out of a difference");
}

#[test]
fn continuations_are_greedy_repeatable_and_edited() {
    let engine = smollm2();
    let generate = |request: GenerateRequest| {
        engine.start_generate(&request).expect("starts").complete(engine).expect("runs")
    };
    let request = |interventions: Vec<Intervention>| GenerateRequest {
        prompt: Prompt::Text("The capital of France is".to_owned()),
        bos: BosPolicy::Off,
        interventions,
        max_new_tokens: 6,
        temperature: 0.0,
        seed: 0,
        stop_ids: Vec::new(),
    };
    let clean = generate(request(Vec::new()));
    assert!(clean.text.starts_with(" Paris."), "{:?}", clean.text);
    let mean = Intervention::of_heads(Edit::Mean { over: None }, [HeadId::new(18, 6), HeadId::new(0, 4)]);
    for edit in [
        Intervention::of_heads(Edit::Scale { alpha: 1.0 }, [HeadId::new(3, 1)]),
        Intervention::zero([HeadId::new(18, 6)]).at(Vec::new()),
    ] {
        assert_eq!(generate(request(vec![edit])).ids, clean.ids, "a neutral edit changes no token");
    }
    let broken = Intervention {
        edit: Edit::Zero {},
        sites: Sites { layers: [0].into(), ..Sites::default() },
        positions: None,
    };
    assert_ne!(generate(request(vec![broken])).ids, clean.ids);
    assert_eq!(generate(request(vec![mean])).ids.len(), 6);
    let drawn = |seed| generate(GenerateRequest { temperature: 1.5, seed, ..request(Vec::new()) }).ids;
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
