//! Every hook point of tiny random models against a float64 forward that shares no code with ours
//! (`tests/golden/generate.py`), on the CPU and on a graphics device. Runs natively and, for the kernels that the page uses, as wasm in
//! a browser.

use headlight_core::backend::Device;
use headlight_core::backend::webgpu::{Wanted, WebGpu};
use headlight_core::engine::{Engine, Loading};
use headlight_core::hooks::{CaptureSet, LogitPositions, RunPlan};
use headlight_core::ids::{BlockHook, HookPoint, TokenId};
use headlight_tests::tolerance;
#[cfg(not(target_arch = "wasm32"))]
use pollster::test as device_test;
use safetensors::SafeTensors;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as device_test, wasm_bindgen_test_configure};

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test_configure!(run_in_dedicated_worker);

/// One golden checkpoint's files.
struct Golden {
    config: Vec<u8>,
    tokenizer: Vec<u8>,
    weights: Vec<u8>,
    activations: Vec<u8>,
}

/// The files of a folder of `tests/golden`; wasm has no file system.
macro_rules! golden {
    ($name:literal) => {
        Golden {
            config: include_bytes!(concat!("../golden/", $name, "/config.json")).to_vec(),
            tokenizer: include_bytes!(concat!("../golden/", $name, "/tokenizer.json")).to_vec(),
            weights: include_bytes!(concat!("../golden/", $name, "/model.safetensors")).to_vec(),
            activations: include_bytes!(concat!("../golden/", $name, "/golden.safetensors")).to_vec(),
        }
    };
}

impl Golden {
    /// On the CPU and on a graphics device; a software one will do, none at all will not.
    async fn engines(&self) -> Vec<Engine> {
        let wanted = Wanted { software: true, ..Wanted::default() };
        let gpu = WebGpu::open(wanted).await.expect("the tests need an adapter; run cargo xtask setup");
        let loading =
            Loading::from_folder(&self.config, &self.tokenizer, vec![self.weights.clone()], "golden");
        let devices = vec![Device::default(), Device::WebGpu(gpu.into())];
        loading.and_then(|loading| loading.onto(devices).finish_all()).expect("the checkpoint loads")
    }

    /// The first place where our forward leaves the golden one, if it does.
    async fn first_divergence(&self, engine: &Engine) -> Option<String> {
        let golden = SafeTensors::deserialize(&self.activations).expect("safetensors");
        let ids = golden.tensor("ids").expect("ids");
        let ids: Vec<TokenId> = ids.data().as_chunks().0.iter().map(|b| TokenId::from_le_bytes(*b)).collect();
        let info = engine.info();
        let absent = |hook| info.d_mlp == 0 && hook_of_mlp(hook);
        let blocks = (0..info.n_layers).flat_map(|layer| BlockHook::ALL.map(|hook| (layer, hook)));
        let blocks =
            blocks.filter(|(_, hook)| !absent(*hook)).map(|(layer, hook)| HookPoint::Block(layer, hook));
        let points: Vec<HookPoint> =
            [HookPoint::Embed].into_iter().chain(blocks).chain([HookPoint::FinalNormalized]).collect();
        assert_eq!(points.len() + 2, golden.names().len(), "every golden tensor is compared");
        let capture = CaptureSet::of(points.iter().copied());
        let plan = RunPlan { capture, logits: LogitPositions::All, ..RunPlan::default() };
        let output = engine.run_plan(&ids, &plan).await.expect("runs");
        let captured =
            points.iter().map(|&point| (point.to_string(), output.activations.get(point).expect("captured")));
        captured.chain([("logits".to_owned(), &output.logits)]).find_map(|(name, got)| {
            let view = golden.tensor(&name).expect("the golden data has every hook point");
            assert_eq!(view.shape(), got.shape, "{name}");
            let wanted: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let difference = relative_difference(&got.data, &wanted);
            (difference > tolerance::GOLDEN_RELATIVE).then(|| format!("{name}: off by {difference:e}"))
        })
    }
}

fn hook_of_mlp(hook: BlockHook) -> bool {
    use BlockHook::{Ln2Normalized, MlpOut, MlpPost, MlpPre, MlpPreLinear, ResidMid};
    [ResidMid, Ln2Normalized, MlpPre, MlpPreLinear, MlpPost, MlpOut].contains(&hook)
}

/// Largest difference over the largest magnitude; infinite for NaN or misplaced infinities.
fn relative_difference(got: &[f32], wanted: &[f32]) -> f32 {
    let finite = |values: &[f32]| values.iter().filter(|v| v.is_finite()).fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = finite(wanted).max(1e-6);
    let difference = |(got, wanted): (&f32, &f32)| match got == wanted {
        true => 0.0,
        false if got.is_finite() && wanted.is_finite() => (got - wanted).abs() / scale,
        false => f32::INFINITY,
    };
    got.iter().zip(wanted).map(difference).fold(0.0, f32::max)
}

#[device_test]
async fn every_hook_point_agrees() {
    for (name, golden) in [("gqa", golden!("gqa")), ("attn-only", golden!("attn-only"))] {
        let engines = golden.engines().await;
        assert!(
            engines[0].engine_name().starts_with("cpu") && engines[1].engine_name().starts_with("webgpu")
        );
        for engine in engines {
            assert_eq!(golden.first_divergence(&engine).await, None, "{name} on {}", engine.engine_name());
        }
    }
}

#[device_test]
async fn a_changed_weight_is_found_where_it_first_acts() {
    let mut golden = golden!("gqa");
    let header = u64::from_le_bytes(*golden.weights.first_chunk().expect("a header")) as usize;
    let text = std::str::from_utf8(&golden.weights[8..8 + header]).expect("JSON");
    let json: serde_json::Value = serde_json::from_str(text.trim_end()).expect("JSON");
    let start =
        json["model.layers.1.self_attn.k_proj.weight"]["data_offsets"][0].as_u64().expect("an offset");
    let at = 8 + header + start as usize;
    golden.weights[at..at + 4].copy_from_slice(&3.0f32.to_le_bytes());
    for engine in golden.engines().await {
        let found = golden.first_divergence(&engine).await.expect("the change is seen");
        assert!(found.starts_with("blocks.1.attn.hook_k:"), "{found} on {}", engine.engine_name());
    }
}
