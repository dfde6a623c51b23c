//! The bundled model has the heads that its card promises, measured afresh.

use headlight_core::detect::{AttentionTarget, mean_over_rows};
use headlight_core::engine::{Engine, Loading};
use headlight_core::hooks::{LogitPositions, RunPlan};
use headlight_core::metrics::logsumexp;
use headlight_tests::tiny::Noise;

fn bundled() -> Engine {
    let folder = xtask::paths::root().join("static/models/induction-2l");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("the bundled model is in the clone");
    let loading = Loading::from_folder(
        &read("config.json"),
        &read("tokenizer.json"),
        vec![read("model.safetensors")],
        "induction-2l",
    );
    loading.and_then(Loading::finish).expect("the bundled model loads")
}

/// `[BOS] r r` with `n` distinct random ids.
fn repeated(engine: &Engine, noise: &mut Noise, n: usize) -> Vec<u32> {
    let mut block = Vec::new();
    while block.len() < n {
        let id = noise.id(engine.info().d_vocab);
        if id != 0 && !block.contains(&id) {
            block.push(id);
        }
    }
    std::iter::once(0).chain(block.iter().chain(&block).copied()).collect()
}

#[test]
fn it_has_an_induction_head_and_a_previous_token_head_at_every_block_length() {
    let engine = bundled();
    let mut noise = Noise(4);
    for n in [10, 17, 25, 40] {
        let ids = repeated(&engine, &mut noise, n);
        let targets = [AttentionTarget::Induction, AttentionTarget::PreviousToken].map(|t| t.keys(&ids));
        let plan = RunPlan { targets: targets.to_vec(), logits: LogitPositions::All, ..RunPlan::default() };
        let output = engine.forward(&ids, &plan).expect("runs");
        let best = |target: usize, layer: usize| -> f32 {
            let mass = &output.activations.target_mass()[target];
            mean_over_rows(mass, &targets[target]).0[layer].iter().copied().fold(0.0, f32::max)
        };
        assert!(best(0, 1) > 0.5, "block of {n}: the best induction score in layer 1 is {}", best(0, 1));
        assert!(best(1, 0) > 0.5, "block of {n}: the best previous-token score in layer 0 is {}", best(1, 0));
        assert!(best(0, 0) < 0.3, "block of {n}: no induction head fits in layer 0, but one scores {}", best(0, 0));
        let rows: Vec<&[f32]> = output.logits.rows().collect();
        let loss = |queries: std::ops::Range<usize>| -> f64 {
            let n = queries.len() as f64;
            queries.map(|q| logsumexp(rows[q]) - f64::from(rows[q][ids[q + 1] as usize])).sum::<f64>() / n
        };
        let (first, second) = (loss(0..n), loss(n + 1..2 * n));
        assert!(second < first - 3.0, "block of {n}: {first:.2} nats, then {second:.2}");
    }
}
