//! What is measured around edits, each against a plain way to the same number: patching against one full run a place, the logit lens
//! against the model's own output, a head's writing against matrix products, controls against runs of their sets.

use std::collections::BTreeSet;

use headlight_core::ablate::controls::ControlsSpec;
use headlight_core::ablate::patching::Direction;
use headlight_core::ablate::{Metric, MetricSpec};
use headlight_core::engine::{Engine, Job};
use headlight_core::hooks::{CaptureSet, Edit, Intervention, Prompt, RunPlan, Site, Sites};
use headlight_core::ids::{BlockHook, HeadId, HookPoint, TokenId};
use headlight_core::report::{
    BosPolicy, ControlsRequest, LensRequest, OvRequest, PatchReport, PatchRequest, RunReport, RunRequest,
};
use headlight_tests::tiny::{Noise, TinyConfig};
use headlight_tests::tolerance;
use safetensors::SafeTensors;

const CONFIG: TinyConfig = TinyConfig { n_layers: 3, ..TinyConfig::SMALL };
const TOKEN: TokenId = 4;
const VERSUS: TokenId = 11;

fn ids(noise: &mut Noise, n: usize) -> Vec<TokenId> {
    (0..n).map(|_| noise.id(CONFIG.d_vocab)).collect()
}

/// A prompt and the same with some tokens changed, the first of them at `first`.
fn pair(noise: &mut Noise, n_tokens: usize, first: usize) -> (Vec<TokenId>, Vec<TokenId>) {
    let clean = ids(noise, n_tokens);
    let mut corrupted = clean.clone();
    for position in (first..n_tokens).step_by(3) {
        corrupted[position] =
            (clean[position] + 1 + noise.id(CONFIG.d_vocab - 1)) % CONFIG.d_vocab as TokenId;
    }
    (clean, corrupted)
}

fn run(engine: &Engine, ids: &[TokenId], interventions: Vec<Intervention>) -> RunReport {
    let request = RunRequest {
        prompt: Prompt::Ids(ids.to_vec()),
        top: CONFIG.d_vocab,
        interventions,
        ..RunRequest::default()
    };
    engine.run(&request).expect("the plan runs")
}

fn logit(report: &RunReport, id: TokenId) -> f32 {
    report.logits_top.iter().find(|token| token.id == id).expect("every token is listed").logit
}

fn value(report: &RunReport, metric: Metric) -> f32 {
    match metric {
        Metric::LogitDiff => logit(report, TOKEN) - logit(report, VERSUS),
        Metric::Logit => logit(report, TOKEN),
        _ => logit(report, TOKEN) - report.logsumexp,
    }
}

/// A full run of one prompt with the other's values put in at a site.
fn patched(engine: &Engine, from: &[TokenId], into: &[TokenId], site: Site, at: Option<usize>) -> RunReport {
    let edit = Edit::Patch { from: Some(Prompt::Ids(from.to_vec())), from_positions: None };
    let positions = at.map(|position| vec![position]);
    run(engine, into, vec![Intervention { edit, sites: Sites::one(site), positions }])
}

fn patch(
    engine: &Engine,
    clean: &[TokenId],
    corrupted: &[TokenId],
    direction: Direction,
    metric: Metric,
) -> PatchReport {
    let request = PatchRequest {
        prompt: Prompt::Ids(clean.to_vec()),
        bos: BosPolicy::Off,
        corrupted: Prompt::Ids(corrupted.to_vec()),
        direction,
        metric,
        token: Some(TOKEN),
        versus: Some(VERSUS),
    };
    engine.start_patch(&request).expect("starts").complete(engine).expect("runs")
}

#[test]
fn patching_is_one_full_run_a_place_in_both_directions() {
    for seed in 0..12 {
        let config = if seed % 4 == 3 { TinyConfig { d_mlp: 0, ..CONFIG } } else { CONFIG };
        let engine = config.engine(seed % 5);
        let mut noise = Noise(300 + seed);
        let n_tokens = 3 + noise.id(7) as usize;
        let first = noise.id(n_tokens) as usize;
        let (clean, corrupted) = pair(&mut noise, n_tokens, first);
        let direction = [Direction::Denoise, Direction::Noise][seed as usize % 2];
        let metric = [Metric::LogitDiff, Metric::Logit, Metric::Logprob][seed as usize % 3];
        let found = patch(&engine, &clean, &corrupted, direction, metric).findings;
        assert_eq!(found.first_difference, first);
        let (of_clean, of_corrupted) = (
            value(&run(&engine, &clean, Vec::new()), metric),
            value(&run(&engine, &corrupted, Vec::new()), metric),
        );
        assert!((found.clean - of_clean).abs() < tolerance::RESTART);
        assert!((found.corrupted - of_corrupted).abs() < tolerance::RESTART);
        let (from, into) = match direction {
            Direction::Denoise => (&clean, &corrupted),
            Direction::Noise => (&corrupted, &clean),
        };
        let check = |recovered: f32, site: Site, at: Option<usize>| {
            let got = found.corrupted + recovered * (found.clean - found.corrupted);
            let wanted = value(&patched(&engine, from, into, site, at), metric);
            assert!(
                (got - wanted).abs() < 2.0 * tolerance::RESTART,
                "pair {seed}, {direction:?}, {metric:?}, {site:?} at {at:?}: {got} and {wanted}"
            );
        };
        for layer in 0..config.n_layers {
            for position in 0..n_tokens {
                let at = Some(position);
                check(found.resid_pre[layer][position], Site::ResidPre(layer), at);
                check(found.attn_out[layer][position], Site::AttnOut(layer), at);
                if config.d_mlp > 0 {
                    check(found.mlp_out[layer][position], Site::MlpOut(layer), at);
                }
            }
            for head in 0..config.n_heads {
                check(found.heads[layer][head], Site::Head(HeadId::new(layer, head)), None);
            }
        }
        assert_eq!(found.mlp_out.is_empty(), config.d_mlp == 0);
    }
}

#[test]
fn a_run_patched_at_every_position_is_the_other_run_bit_for_bit() {
    let engine = CONFIG.engine(2);
    let (clean, corrupted) = pair(&mut Noise(41), 9, 2);
    let other = run(&engine, &clean, Vec::new());
    for layer in 0..CONFIG.n_layers {
        let report = patched(&engine, &clean, &corrupted, Site::ResidPre(layer), None);
        assert_eq!(report.logits_top, other.logits_top, "resid_pre of layer {layer}");
    }
    // The last position alone does not carry all, or the test above would see nothing.
    let last = patched(&engine, &clean, &corrupted, Site::ResidPre(0), Some(8));
    assert_ne!(last.logits_top, other.logits_top);
}

#[test]
fn a_stream_patched_below_the_first_layer_is_another_token() {
    let engine = CONFIG.engine(3);
    let (prompt, donor) = (ids(&mut Noise(17), 7), ids(&mut Noise(18), 4));
    let edit = Edit::Patch { from: Some(Prompt::Ids(donor.clone())), from_positions: Some(vec![3, 0]) };
    let sites = Sites::one(Site::ResidPre(0));
    let patched = run(&engine, &prompt, vec![Intervention { edit, sites, positions: Some(vec![1, 5]) }]);
    let mut replaced = prompt.clone();
    (replaced[1], replaced[5]) = (donor[3], donor[0]);
    assert_eq!(patched.logits_top, run(&engine, &replaced, Vec::new()).logits_top);
    assert_ne!(patched.logits_top, run(&engine, &prompt, Vec::new()).logits_top);
}

#[test]
fn the_lens_ends_in_the_models_own_output() {
    let engine = CONFIG.engine(4);
    let prompt = ids(&mut Noise(5), 40);
    let edits = vec![Intervention::zero([HeadId::new(1, 2)])];
    for interventions in [Vec::new(), edits] {
        let request = LensRequest {
            prompt: Prompt::Ids(prompt.clone()),
            bos: BosPolicy::Off,
            interventions: interventions.clone(),
            token: None,
        };
        let lens = engine.start_lens(&request).expect("starts").complete(&engine).expect("runs");
        let last_layer = lens.cells.last().expect("a layer");
        let whole = run(&engine, &prompt, interventions.clone());
        for (position, nll) in whole.nll_nats.iter().enumerate() {
            let got = last_layer[position].followed_logprob;
            assert!((got + nll).abs() < tolerance::RESTART, "position {position}: {got} and {nll}");
        }
        let (cell, best) = (last_layer[39], &whole.logits_top[0]);
        assert_eq!((cell.id, cell.followed_rank), (best.id, 0));
        assert!((cell.logprob - best.logprob).abs() < tolerance::RESTART);
        assert_ne!(lens.cells[0], lens.cells[2], "an earlier layer says something else");
        // Read after layer 0, the model without its later layers speaks.
        let later = Sites { layers: [1, 2].into(), ..Sites::default() };
        let mut cut = interventions;
        cut.push(Intervention { edit: Edit::Zero {}, sites: later, positions: None });
        let cut = run(&engine, &prompt, cut);
        assert_eq!(lens.cells[0][39].id, cut.logits_top[0].id);
        assert!((lens.cells[0][39].logprob - cut.logits_top[0].logprob).abs() < tolerance::RESTART);
    }
}

#[test]
fn what_a_head_writes_is_its_value_through_the_matrices() {
    let weights = CONFIG.checkpoint(6).weights;
    let weights = SafeTensors::deserialize(&weights).expect("safetensors");
    let tensor = |name: &str| -> Vec<f64> {
        let view = weights.tensor(name).expect("the checkpoint has it");
        view.data().as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
    };
    let (unembed, gain) = (tensor("lm_head.weight"), tensor("model.norm.weight"));
    let engine = CONFIG.engine(6);
    let prompt = ids(&mut Noise(8), 7);
    let TinyConfig { n_heads, n_kv_heads, d_head, d_model, .. } = CONFIG;
    for (layer, head, source_pos) in [(0, 3, 2), (1, 0, 6), (2, 1, 0)] {
        let points = [HookPoint::Block(layer, BlockHook::V), HookPoint::Block(2, BlockHook::ResidPost)];
        let plan = RunPlan { capture: CaptureSet::of(points), ..RunPlan::default() };
        let kept = engine.forward(&prompt, &plan).expect("runs").activations;
        let data = |point| kept.get(point).expect("captured").data.clone();
        let kv_head = head / (n_heads / n_kv_heads);
        let value = &data(points[0])[(source_pos * n_kv_heads + kv_head) * d_head..][..d_head];
        let last = &data(points[1])[6 * d_model..];
        let squares: f64 = last.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let rms = (squares / d_model as f64 + 1e-5).sqrt();
        let w_o = tensor(&format!("model.layers.{layer}.self_attn.o_proj.weight"));
        let written = |coordinate: usize| -> f64 {
            let row = &w_o[coordinate * n_heads * d_head + head * d_head..][..d_head];
            row.iter().zip(value).map(|(w, v)| w * f64::from(*v)).sum()
        };
        let direct = |id: usize| -> f64 {
            (0..d_model).map(|i| written(i) * gain[i] / rms * unembed[id * d_model + i]).sum()
        };
        let mut wanted: Vec<(TokenId, f64)> =
            (0..CONFIG.d_vocab).map(|id| (id as TokenId, direct(id))).collect();
        wanted.sort_by(|a, b| b.1.total_cmp(&a.1));
        let request = OvRequest {
            prompt: Prompt::Ids(prompt.clone()),
            bos: BosPolicy::Off,
            interventions: Vec::new(),
            head: HeadId::new(layer, head),
            source_pos,
            top: 10,
        };
        let ov = engine.start_ov(&request).expect("starts").complete(&engine).expect("runs");
        let close = |got: f32, wanted: f64| (f64::from(got) - wanted).abs() < f64::from(tolerance::RESTART);
        for (got, wanted) in ov.raised.iter().zip(&wanted).chain(ov.lowered.iter().zip(wanted.iter().rev())) {
            assert_eq!(got.id, wanted.0);
            assert!(close(got.logit, wanted.1), "L{layer}H{head}: {} and {}", got.logit, wanted.1);
        }
        assert_eq!((ov.raised.len(), ov.lowered.len(), ov.own.id), (10, 10, prompt[source_pos]));
        let own_rank = wanted.iter().position(|(id, _)| *id == prompt[source_pos]);
        assert_eq!(Some(ov.own_rank), own_rank);
        assert!(close(ov.own.logit, direct(prompt[source_pos] as usize)));
    }
}

#[test]
fn controls_are_runs_of_other_heads_of_the_same_layers() {
    let engine = CONFIG.engine(1);
    for seed in 0..6 {
        let prompt = ids(&mut Noise(60 + seed), 8);
        let set = [[HeadId::new(0, 1), HeadId::new(2, 3)], [HeadId::new(1, 0), HeadId::new(2, 2)]]
            [seed as usize % 2];
        let edit = [Edit::Zero {}, Edit::Mean { over: None }, Edit::PatternTemperature { tau: 4.0 }]
            [seed as usize % 3]
            .clone();
        let metric = MetricSpec { metric: Metric::Logprob, token: Some(TOKEN), ..MetricSpec::default() };
        let interventions = vec![Intervention::of_heads(edit.clone(), set)];
        let spec = ControlsSpec { interventions, n_draws: 9, seed, metric };
        let request = ControlsRequest { prompt: Prompt::Ids(prompt.clone()), bos: BosPolicy::Off, spec };
        let found =
            engine.start_controls(&request).expect("starts").complete(&engine).expect("runs").findings;
        let layers: BTreeSet<usize> = set.iter().map(|head| head.layer).collect();
        assert_eq!((found.draws.len(), found.random_effects.len()), (9, 9));
        assert_eq!(found.n_others, layers.len() * CONFIG.n_heads - 2);
        let effect = |heads: &[HeadId]| {
            let edited =
                run(&engine, &prompt, vec![Intervention::of_heads(edit.clone(), heads.iter().copied())]);
            value(&edited, Metric::Logprob) - value(&run(&engine, &prompt, Vec::new()), Metric::Logprob)
        };
        assert!((found.effect - effect(&set)).abs() < 2.0 * tolerance::RESTART);
        for (draw, got) in found.draws.iter().zip(&found.random_effects) {
            assert!(draw.iter().all(|head| !set.contains(head) && layers.contains(&head.layer)), "{draw:?}");
            assert_eq!(draw.iter().collect::<BTreeSet<_>>().len(), 2, "{draw:?}");
            assert!((got - effect(draw)).abs() < 2.0 * tolerance::RESTART, "{draw:?}");
        }
        let n_kinds =
            found.draws.iter().map(|draw| draw.iter().collect::<BTreeSet<_>>()).collect::<BTreeSet<_>>();
        assert!(n_kinds.len() > 1, "the draws differ");
    }
}
