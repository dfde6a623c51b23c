//! Sums that must hold in any model: rows of patterns, heads against the attention's output, edits against captures.

use headlight_core::activations::Activations;
use headlight_core::engine::Engine;
use headlight_core::hooks::{CaptureSet, Intervention, RunPlan};
use headlight_core::ids::{BlockHook, HeadId, HookPoint};
use headlight_tests::tiny::{Noise, TinyConfig};
use headlight_tests::{max_difference, tolerance};

const CONFIG: TinyConfig = TinyConfig::SMALL;

fn engine(config: TinyConfig) -> Engine {
    config.engine(5)
}

fn ids() -> Vec<u32> {
    let mut noise = Noise(9);
    (0..20).map(|_| noise.id(CONFIG.d_vocab)).collect()
}

fn capture_all(engine: &Engine, interventions: Vec<Intervention>) -> Activations {
    let blocks =
        (0..CONFIG.n_layers).flat_map(|layer| BlockHook::ALL.map(|hook| HookPoint::Block(layer, hook)));
    let capture = CaptureSet::of(blocks.chain([HookPoint::Embed, HookPoint::FinalNormalized]));
    let plan = RunPlan { capture, edits: interventions.into(), ..RunPlan::default() };
    engine.forward(&ids(), &plan).expect("runs").activations
}

fn get(activations: &Activations, layer: usize, hook: BlockHook) -> &[f32] {
    &activations.get(HookPoint::Block(layer, hook)).expect("captured").data
}

#[test]
fn rows_of_patterns_sum_to_one_and_see_no_future() {
    let activations = capture_all(&engine(CONFIG), Vec::new());
    for layer in 0..CONFIG.n_layers {
        for (row, pattern) in get(&activations, layer, BlockHook::Pattern).chunks_exact(20).enumerate() {
            let query = row % 20;
            assert!((pattern.iter().sum::<f32>() - 1.0).abs() < tolerance::RECEIPT);
            assert!(pattern[query + 1..].iter().all(|&weight| weight == 0.0), "row {row} attends ahead");
        }
    }
}

#[test]
fn the_residual_stream_is_the_sum_of_its_parts() {
    let activations = capture_all(&engine(CONFIG), Vec::new());
    for layer in 0..CONFIG.n_layers {
        let sum: Vec<f32> = get(&activations, layer, BlockHook::ResidPre)
            .iter()
            .zip(get(&activations, layer, BlockHook::AttnOut))
            .zip(get(&activations, layer, BlockHook::MlpOut))
            .map(|((resid, attn), mlp)| resid + attn + mlp)
            .collect();
        let difference = max_difference(&sum, get(&activations, layer, BlockHook::ResidPost));
        assert!(difference < tolerance::RECEIPT, "layer {layer}: {difference}");
    }
}

#[test]
fn a_zeroed_head_has_no_z_and_the_others_keep_theirs() {
    let engine = engine(CONFIG);
    let clean = capture_all(&engine, Vec::new());
    let head = HeadId::new(0, 2);
    let edited = capture_all(&engine, vec![Intervention::zero([head]).at(vec![4, 7])]);
    let rows = |activations: &Activations| -> Vec<Vec<f32>> {
        get(activations, 0, BlockHook::Z).chunks_exact(CONFIG.d_head).map(<[f32]>::to_vec).collect()
    };
    for (row, (clean, edited)) in rows(&clean).iter().zip(rows(&edited)).enumerate() {
        let (position, row_head) = (row / CONFIG.n_heads, row % CONFIG.n_heads);
        if row_head == 2 && [4, 7].contains(&position) {
            assert!(edited.iter().all(|&value| value == 0.0));
        } else {
            assert_eq!(*clean, edited, "position {position}, head {row_head}");
        }
    }
    assert_eq!(get(&clean, 0, BlockHook::Pattern), get(&edited, 0, BlockHook::Pattern));
    assert_ne!(get(&clean, 1, BlockHook::Pattern), get(&edited, 1, BlockHook::Pattern));
}

#[test]
fn an_attention_only_model_has_no_mlp_hooks() {
    let engine = engine(TinyConfig { d_mlp: 0, ..CONFIG });
    let plan = |hook| RunPlan { capture: CaptureSet::of([HookPoint::Block(0, hook)]), ..RunPlan::default() };
    let error = engine.forward(&ids(), &plan(BlockHook::MlpOut)).err().expect("there is no MLP");
    assert!(error.to_string().contains("blocks.0.hook_mlp_out"), "{error}");
    assert!(engine.forward(&ids(), &plan(BlockHook::AttnOut)).is_ok());
}
