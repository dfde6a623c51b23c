//! Passes that begin in the middle of a kept run, alone or several together, against full passes: on random models, prompts and
//! edits. And what each edit must leave alone.

use headlight_core::ablate::sweep::{SweepSpec, Targets};
use headlight_core::ablate::{Metric, MetricSpec};
use headlight_core::backend::Precision;
use headlight_core::engine::{EffectTask, Engine, Job, PatternsWanted, Want};
use headlight_core::hooks::{ActivationDirection, Edit, Intervention, PatternTarget, Prompt, Sites};
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::report::{BosPolicy, PatternReport, RunReport, RunRequest, SweepReport, SweepRequest};
use headlight_tests::tiny::{Noise, TinyConfig};
use headlight_tests::{max_difference, tolerance};
use std::collections::BTreeSet;
use std::rc::Rc;

const CONFIG: TinyConfig = TinyConfig { n_layers: 3, ..TinyConfig::SMALL };
const N_PLANS: u64 = 150;

/// Random choices for one plan.
struct Chance(Noise);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0.id(n) as usize
    }

    fn ids(&mut self, n: usize) -> Vec<TokenId> {
        (0..n).map(|_| self.0.id(CONFIG.d_vocab)).collect()
    }

    fn heads(&mut self) -> Vec<HeadId> {
        let n = 1 + self.below(3);
        (0..n).map(|_| HeadId::new(self.below(CONFIG.n_layers), self.below(CONFIG.n_heads))).collect()
    }

    fn positions(&mut self, n_tokens: usize) -> Option<Vec<usize>> {
        match self.below(3) {
            0 => None,
            1 => Some(vec![n_tokens - 1]),
            _ => {
                let first = self.below(n_tokens);
                Some((first..n_tokens).step_by(1 + self.below(3)).collect())
            }
        }
    }

    fn value_sites(&mut self) -> Sites {
        let layer = self.below(CONFIG.n_layers);
        match self.below(5) {
            0 => Sites { attn_out: [layer].into(), ..Sites::default() },
            1 => Sites { mlp_out: [layer].into(), ..Sites::default() },
            2 => Sites { layers: [layer].into(), ..Sites::default() },
            3 => Sites { resid_pre: [layer].into(), ..Sites::default() },
            _ => Sites::heads(self.heads()),
        }
    }

    fn intervention(&mut self, n_tokens: usize) -> Intervention {
        let strength = (self.0.next() + 1.0) / 2.0;
        let (sites, heads) = (self.value_sites(), Sites::heads(self.heads()));
        let positions = self.positions(n_tokens);
        let other = Prompt::Ids(self.ids(n_tokens));
        let (edit, sites, positions) = match self.below(10) {
            0 => (Edit::Zero {}, sites, positions),
            1 => (Edit::Mean { over: None }, sites, positions),
            2 => (Edit::Mean { over: Some(vec![other, Prompt::Ids(self.ids(4))]) }, sites, positions),
            3 => (Edit::Scale { alpha: 3.0 * strength - 1.0 }, sites, positions),
            4 => (Edit::Patch { from: Some(other), from_positions: None }, sites, positions),
            5 => {
                let direction = match self.below(2) {
                    0 => ActivationDirection::Values((0..CONFIG.d_model).map(|_| self.0.next()).collect()),
                    _ => ActivationDirection::of_token(Prompt::Ids(self.ids(1))),
                };
                let sites = Sites { resid_pre: [self.below(CONFIG.n_layers)].into(), ..Sites::default() };
                (Edit::ProjectOut { direction, strength }, sites, positions)
            }
            6 => (Edit::FreezePattern { from: Some(other) }, heads, positions),
            7 => {
                use PatternTarget::{First, Identity, Previous, Uniform};
                let towards = [First, Identity, Previous, Uniform][self.below(4)];
                (Edit::InterpolatePattern { towards, strength }, heads, positions)
            }
            8 => (Edit::PatternTemperature { tau: 0.2 + 2.0 * strength }, heads, positions),
            _ => {
                let query = 1 + self.below(n_tokens - 1);
                (Edit::Knockout { edges: vec![(query, self.below(query)), (n_tokens - 1, 0)] }, heads, None)
            }
        };
        Intervention { edit, sites, positions }
    }
}

fn request(ids: &[TokenId], interventions: Vec<Intervention>) -> RunRequest {
    RunRequest { prompt: Prompt::Ids(ids.to_vec()), top: 50, interventions, ..RunRequest::default() }
}

fn logits(report: &RunReport) -> Vec<f32> {
    let mut tokens: Vec<_> = report.logits_top.iter().map(|token| (token.id, token.logit)).collect();
    tokens.sort_by_key(|token| token.0);
    tokens.into_iter().map(|token| token.1).collect()
}

fn full(engine: &Engine, ids: &[TokenId], interventions: Vec<Intervention>) -> RunReport {
    engine.run(&request(ids, interventions)).expect("the plan runs")
}

#[test]
fn a_restarted_run_is_the_full_run() {
    let mut n_by_position = 0;
    for seed in 0..N_PLANS {
        // With every pattern of the clean run at hand, positions before the first edit are not computed again.
        let patterns = [PatternsWanted::All, PatternsWanted::None][seed as usize % 2];
        let want = Want { nll: seed % 3 > 0, scores: true, base: true, patterns };
        let engine = CONFIG.engine(seed % 7);
        let mut chance = Chance(Noise(1000 + seed));
        let n_tokens = 2 + chance.below(14);
        let ids = chance.ids(n_tokens);
        let clean = engine.start(&request(&ids, Vec::new()), want).expect("starts").complete(&engine);
        let clean = Rc::new(clean.expect("runs"));
        let n_edits = 1 + chance.below(3);
        let edits: Vec<Intervention> = (0..n_edits).map(|_| chance.intervention(n_tokens)).collect();
        let request = request(&ids, edits.clone());
        let whole = engine.start(&request, want).expect("starts").complete(&engine).expect("runs");
        let restarted = engine.start_from(Some(Rc::clone(&clean)), &request, want).expect("starts");
        let restarted = restarted.complete(&engine).expect("runs");
        let difference = max_difference(&logits(&restarted.report), &logits(&whole.report));
        assert!(difference < tolerance::RESTART, "plan {seed}: logits differ by {difference}: {edits:?}");
        let difference = max_difference(&restarted.report.nll_nats, &whole.report.nll_nats);
        assert!(difference < tolerance::RESTART, "plan {seed}: losses differ by {difference}: {edits:?}");
        for (restarted, whole) in restarted.scores.iter().zip(&whole.scores) {
            let (restarted, whole) = (restarted.scores.concat(), whole.scores.concat());
            let difference = max_difference(&restarted, &whole);
            assert!(difference < tolerance::RESTART, "plan {seed}: scores differ by {difference}: {edits:?}");
        }
        for head in engine.heads().filter(|_| patterns == PatternsWanted::All) {
            let [restarted, whole] = [&restarted, &whole].map(|run| run.pattern(&engine, head));
            let rows = |report: Option<PatternReport>| report.expect("it was kept").pattern.concat();
            let difference = max_difference(&rows(restarted), &rows(whole));
            assert!(
                difference < tolerance::RESTART,
                "plan {seed}: {head} differs by {difference}: {edits:?}"
            );
        }
        // Every position's, not the last one's alone.
        let effect = |run| EffectTask::new(Rc::clone(&clean), Rc::new(run)).complete(&engine).expect("runs");
        let [restarted, whole] = [effect(restarted), effect(whole)];
        let difference = max_difference(&restarted.kl_nats, &whole.kl_nats);
        assert!(difference < tolerance::RESTART, "plan {seed}: KL differs by {difference}: {edits:?}");
        let first =
            edits.iter().map(|edit| edit.positions.as_ref().map_or(0, |positions| positions[0])).min();
        n_by_position += usize::from(patterns == PatternsWanted::All && first > Some(0));
    }
    assert!(n_by_position > 10, "{n_by_position} plans begin after the first position");
}

/// A sweep of some edit at some positions, in some metric, of a model and prompt of its own.
fn some_sweep(seed: u64) -> (Engine, Vec<TokenId>, SweepRequest) {
    let engine = CONFIG.engine(seed % 5);
    let mut chance = Chance(Noise(5000 + seed));
    let n_tokens = 3 + chance.below(10);
    let ids = chance.ids(n_tokens);
    let mut edit = chance.intervention(n_tokens).edit;
    while matches!(edit, Edit::ProjectOut { .. } | Edit::Knockout { .. }) {
        edit = chance.intervention(n_tokens).edit;
    }
    let edit_positions = chance.positions(n_tokens);
    let metric = Metric::ALL[chance.below(5)];
    let metric = MetricSpec { metric, token: Some(3), versus: Some(7), positions: None };
    let spec = SweepSpec { edit, edit_positions, metric, ..SweepSpec::default() };
    let request = SweepRequest {
        prompt: Prompt::Ids(ids.clone()),
        bos: BosPolicy::Off,
        precision: Precision::Exact,
        spec,
    };
    (engine, ids, request)
}

fn swept(engine: &Engine, request: &SweepRequest) -> SweepReport {
    engine.start_sweep(request).expect("starts").complete(engine).expect("runs")
}

/// A run's value in a sweep's metric.
fn value_of(metric: Metric, report: &RunReport, clean: &RunReport) -> f32 {
    let logits = logits(report);
    match metric {
        Metric::Logprob => logits[3] - report.logsumexp,
        Metric::Logit => logits[3],
        Metric::LogitDiff => logits[3] - logits[7],
        Metric::Loss => report.nll_nats.iter().sum::<f32>() / report.nll_nats.len() as f32,
        Metric::Kl => headlight_core::metrics::kl_nats(&self::logits(clean), &logits),
    }
}

/// What a full run with a sweep's edit at these heads gives, edited minus clean.
fn effect_of(
    engine: &Engine,
    ids: &[TokenId],
    spec: &SweepSpec,
    heads: impl IntoIterator<Item = HeadId>,
) -> f32 {
    let clean = full(engine, ids, Vec::new());
    let intervention = Intervention {
        edit: spec.edit.clone(),
        sites: Sites::heads(heads),
        positions: spec.edit_positions.clone(),
    };
    let edited = full(engine, ids, vec![intervention]);
    let metric = spec.metric.metric;
    value_of(metric, &edited, &clean) - value_of(metric, &clean, &clean)
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_batched_sweep_is_one_full_run_a_head() {
    for seed in 0..40 {
        let (engine, ids, sweep) = some_sweep(seed);
        let report = swept(&engine, &sweep);
        // The same sweep in parts, as several workers do it: bit for bit.
        for layer in 0..CONFIG.n_layers {
            let mut part = sweep.clone();
            part.spec.layers = Some(vec![layer]);
            let part = swept(&engine, &part);
            assert_eq!(part.clean.to_bits(), report.clean.to_bits());
            assert_eq!(
                bits(&part.effects[layer]),
                bits(&report.effects[layer]),
                "sweep {seed}, layer {layer}"
            );
            let others = (0..CONFIG.n_layers).filter(|&other| other != layer);
            assert!(others.flat_map(|other| &part.effects[other]).all(|effect| effect.is_nan()));
        }
        let clean = full(&engine, &ids, Vec::new());
        let metric = sweep.spec.metric.metric;
        assert!((report.clean - value_of(metric, &clean, &clean)).abs() < tolerance::RESTART);
        for layer in 0..CONFIG.n_layers {
            for head in 0..CONFIG.n_heads {
                let wanted = effect_of(&engine, &ids, &sweep.spec, [HeadId::new(layer, head)]);
                let got = report.effects[layer][head];
                assert!(
                    (got - wanted).abs() < 2.0 * tolerance::RESTART,
                    "sweep {seed}, L{layer}H{head}: {got} and {wanted}: {:?}",
                    sweep.spec
                );
            }
        }
    }
}

#[test]
fn sets_of_heads_are_swept_as_one_each() {
    for seed in 0..40 {
        let (engine, ids, mut sweep) = some_sweep(seed);
        let heads = swept(&engine, &sweep);
        let head = |index: usize| HeadId::new(index / CONFIG.n_heads, index % CONFIG.n_heads);
        let n_heads = CONFIG.n_layers * CONFIG.n_heads;
        // Sets of one, in an order of their own: each is that head, bit for bit.
        let order: Vec<HeadId> = (0..n_heads).map(|index| head((index * 5 + 2) % n_heads)).collect();
        sweep.spec.targets = Targets::Sets(order.iter().map(|head| BTreeSet::from([*head])).collect());
        let alone = swept(&engine, &sweep);
        assert_eq!(alone.effects.len(), 1);
        let wanted: Vec<f32> = order.iter().map(|head| heads.effects[head.layer][head.head]).collect();
        assert_eq!(bits(&alone.effects[0]), bits(&wanted), "sweep {seed}");
        // Sets of two and three, within a layer and across.
        let mut chance = Chance(Noise(9000 + seed));
        let sets: Vec<BTreeSet<HeadId>> =
            (0..5).map(|set| (0..2 + set % 2).map(|_| head(chance.below(n_heads))).collect()).collect();
        sweep.spec.targets = Targets::Sets(sets.clone());
        let together = swept(&engine, &sweep);
        assert_eq!(together.effects[0].len(), sets.len());
        for (got, set) in together.effects[0].iter().zip(sets) {
            let wanted = effect_of(&engine, &ids, &sweep.spec, set.clone());
            assert!(
                (got - wanted).abs() < 2.0 * tolerance::RESTART,
                "sweep {seed}, {set:?}: {got} and {wanted}: {:?}",
                sweep.spec
            );
        }
    }
}

#[test]
fn every_edit_is_no_edit_at_its_neutral_setting() {
    let engine = CONFIG.engine(3);
    let ids = Chance(Noise(77)).ids(12);
    let clean = full(&engine, &ids, Vec::new());
    let heads = || Sites::heads([HeadId::new(0, 1), HeadId::new(2, 3)]);
    let everywhere =
        || Sites { heads: heads().heads, layers: [1].into(), resid_pre: [0, 2].into(), ..Sites::default() };
    let streams = || Sites { resid_pre: [1].into(), ..Sites::default() };
    let direction = ActivationDirection::Values(vec![0.5; CONFIG.d_model]);
    let towards = PatternTarget::Uniform;
    let own = || Some(Prompt::Ids(ids.clone()));
    let neutral = [
        (Edit::Scale { alpha: 1.0 }, everywhere()),
        (Edit::Patch { from: None, from_positions: None }, everywhere()),
        (Edit::Patch { from: own(), from_positions: Some((0..12).collect()) }, everywhere()),
        (Edit::ProjectOut { direction, strength: 0.0 }, streams()),
        (Edit::FreezePattern { from: None }, heads()),
        (Edit::InterpolatePattern { towards, strength: 0.0 }, heads()),
        (Edit::PatternTemperature { tau: 1.0 }, heads()),
        (Edit::Knockout { edges: Vec::new() }, heads()),
    ];
    for (edit, sites) in neutral {
        let run = full(&engine, &ids, vec![Intervention { edit: edit.clone(), sites, positions: None }]);
        assert_eq!(
            (run.logits_top, run.nll_nats),
            (clean.logits_top.clone(), clean.nll_nats.clone()),
            "{edit:?}"
        );
    }
}

#[test]
fn an_edit_changes_nothing_before_its_first_position() {
    let engine = CONFIG.engine(4);
    for seed in 0..40 {
        let mut chance = Chance(Noise(9000 + seed));
        let ids = chance.ids(12);
        let mut intervention = chance.intervention(12);
        if matches!(intervention.edit, Edit::Knockout { .. }) {
            continue;
        }
        intervention.positions = Some(vec![7, 9]);
        let (clean, edited) = (full(&engine, &ids, Vec::new()), full(&engine, &ids, vec![intervention]));
        assert_eq!(
            clean.nll_nats[..7],
            edited.nll_nats[..7],
            "the first seven tokens are foretold as before"
        );
    }
}

#[test]
fn the_direct_effect_is_the_run_with_everything_else_patched_back() {
    let want = Want { base: true, ..Want::default() };
    for seed in 0..40 {
        let engine = CONFIG.engine(seed % 5);
        let mut chance = Chance(Noise(20_000 + seed));
        let ids = chance.ids(9);
        let layer = chance.below(CONFIG.n_layers);
        let head = HeadId::new(layer, chance.below(CONFIG.n_heads));
        let edit = match chance.below(3) {
            0 => Edit::Zero {},
            1 => Edit::Scale { alpha: -0.7 },
            _ => Edit::InterpolatePattern { towards: PatternTarget::Uniform, strength: 0.8 },
        };
        let edit = Intervention::of_heads(edit, [head]);
        let start = |edits: Vec<Intervention>| engine.start(&request(&ids, edits), want).expect("starts");
        let run = |edits| Rc::new(start(edits).complete(&engine).expect("runs"));
        let (clean, edited) = (run(Vec::new()), run(vec![edit.clone()]));
        let effect = EffectTask::new(clean, edited).complete(&engine).expect("runs");
        // All that comes after the head, held to the clean run by patches.
        let later = Intervention {
            edit: Edit::Patch { from: None, from_positions: None },
            sites: Sites {
                attn_out: (layer + 1..CONFIG.n_layers).collect(),
                mlp_out: (layer..CONFIG.n_layers).collect(),
                ..Sites::default()
            },
            positions: None,
        };
        let held = logits(&full(&engine, &ids, vec![edit, later]));
        assert!(effect.direct_kl_nats.is_some_and(|kl| kl > 0.0));
        for token in &effect.direct_top {
            let wanted = held[token.id as usize];
            assert!(
                (token.logit - wanted).abs() < tolerance::RECEIPT,
                "plan {seed}: {} and {wanted}",
                token.logit
            );
        }
        assert_eq!(effect.kl_nats.len(), 9);
    }
}

#[test]
fn a_continuation_keeps_its_edits_and_its_mean() {
    let engine = CONFIG.engine(6);
    let ids = Chance(Noise(31)).ids(8);
    let heads = [HeadId::new(0, 1), HeadId::new(1, 2)];
    let generate = |interventions: Vec<Intervention>, n: usize| {
        let request = headlight_core::report::GenerateRequest {
            prompt: Prompt::Ids(ids.clone()),
            bos: BosPolicy::Off,
            interventions,
            max_new_tokens: n,
            temperature: 0.0,
            seed: 0,
            stop_ids: Vec::new(),
        };
        engine.start_generate(&request).expect("starts").complete(&engine).expect("runs").ids
    };
    // Zero acts on every new position too: the same as reading all that was written under the edit.
    let zero = || vec![Intervention::zero(heads)];
    let written = generate(zero(), 5);
    for (n, &id) in written.iter().enumerate() {
        let read: Vec<TokenId> = ids.iter().chain(&written[..n]).copied().collect();
        assert_eq!(full(&engine, &read, zero()).logits_top[0].id, id, "token {n}");
    }
    // A mean over the prompt stays that of the prompt: as if its value had been written down.
    let mean = || vec![Intervention::of_heads(Edit::Mean { over: None }, heads)];
    let over_prompt = || {
        vec![Intervention::of_heads(Edit::Mean { over: Some(vec![Prompt::Ids(ids.clone())]) }, [heads[0]])]
    };
    let single = || vec![Intervention::of_heads(Edit::Mean { over: None }, [heads[0]])];
    assert_eq!(generate(single(), 6), generate(over_prompt(), 6));
    assert_eq!(generate(mean(), 1)[0], full(&engine, &ids, mean()).logits_top[0].id);
    // An edit of the prompt's positions alone leaves later ones be.
    let first = vec![Intervention::zero(heads).at(vec![0, 1])];
    assert_eq!(generate(first.clone(), 1)[0], full(&engine, &ids, first).logits_top[0].id);
}
