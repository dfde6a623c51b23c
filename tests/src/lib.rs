//! What several tests share: the real model, tiny random checkpoints, and every tolerance with its reason.

#[cfg(not(target_arch = "wasm32"))]
pub mod cli;
#[cfg(not(target_arch = "wasm32"))]
pub mod host;
#[cfg(not(target_arch = "wasm32"))]
pub mod page;
pub mod tiny;

use std::path::PathBuf;

use anyhow::Context;

/// Largest allowed differences. Each says why it is what it is; none may be widened to make a test pass.
pub mod tolerance {
    /// Logits of SmolLM2 against PyTorch f32: the noise floor between two f32 forwards is 2e-4, logits reach 37.
    pub const REAL_LOGITS: f32 = 2e-3;
    /// Attention patterns of SmolLM2 against PyTorch f32: the noise floor is 1e-5.
    pub const REAL_PATTERNS: f32 = 1e-4;
    /// Mean loss and logsumexp of SmolLM2 against PyTorch f32, nats: averages of logit noise.
    pub const REAL_NATS: f32 = 1e-3;
    /// Head scores of SmolLM2 that are means of attention, against PyTorch f32: a mean of pattern noise.
    pub const REAL_SCORES: f32 = 1e-4;
    /// OV eigenvalue scores against float64: single eigenvalues are sensitive, their sum's ratio is not.
    pub const EIGENVALUE_SCORE: f32 = 1e-3;
    /// Shares of counted hits against the reference's, which are rounded to six decimals.
    pub const EXACT_SHARE: f32 = 1e-6;
    /// Activations of tiny models against a float64 forward, relative to the largest value of the tensor.
    pub const GOLDEN_RELATIVE: f32 = 2e-5;
    /// Logits of tiny models against candle's f32 forward.
    pub const CANDLE_LOGITS: f32 = 2e-4;
    /// Logits and patterns of a pass that continues after a cache, against one pass over the whole prompt: the same sums in
    /// another grouping of rows.
    pub const CACHE: f32 = 1e-4;
    /// Effects of edits on SmolLM2 against PyTorch f32, nats or logits: two forwards, each with logit noise of 2e-4.
    pub const REAL_EFFECTS: f32 = 2e-3;
    /// A logit against the sum of its parts, of SmolLM2: 300 f32 sums of parts up to 5.
    pub const REAL_DLA_SUM: f32 = 1e-3;
    /// A restarted or batched pass against a full one: each row is the same sums in the same order.
    pub const RESTART: f32 = 1e-5;
    /// An activation on a graphics device against the CPU's, as a part of the largest: a few hundred f32 sums in another order.
    pub const DEVICE: f32 = 1e-5;
    /// Sums that must hold within one forward: rows of patterns, heads against the attention's output.
    pub const RECEIPT: f32 = 1e-4;
}

/// Environment variable that says on which backend tests run: `webgpu`, or the CPU when it is not set.
#[cfg(not(target_arch = "wasm32"))]
pub const BACKEND_VARIABLE: &str = "HEADLIGHT_TEST_BACKEND";

/// The graphics device, opened once a thread; a software one will do.
///
/// # Panics
/// When there is none: a test that needs it must fail, not pass.
#[cfg(not(target_arch = "wasm32"))]
pub fn web_gpu() -> headlight_core::backend::Device {
    use headlight_core::backend::Device;
    use headlight_core::backend::webgpu::{Wanted, WebGpu};
    // Never dropped: wgpu keeps state of its own by thread, which may be gone before this.
    thread_local! {
        static DEVICE: std::cell::OnceCell<&'static Device> = const { std::cell::OnceCell::new() };
    }
    let open = || {
        let gpu = pollster::block_on(WebGpu::open(Wanted { software: true, ..Wanted::default() }));
        let gpu = gpu.unwrap_or_else(|error| panic!("{error}; run cargo xtask setup"));
        &*Box::leak(Box::new(Device::WebGpu(gpu.into())))
    };
    DEVICE.with(|device| (*device.get_or_init(open)).clone())
}

/// Whether these tests run on a graphics device.
#[cfg(not(target_arch = "wasm32"))]
pub fn is_on_web_gpu() -> bool {
    std::env::var(BACKEND_VARIABLE).is_ok_and(|backend| backend == "webgpu")
}

/// The backend that these tests run on.
#[cfg(not(target_arch = "wasm32"))]
pub fn backend() -> headlight_core::backend::Device {
    if is_on_web_gpu() { web_gpu() } else { headlight_core::backend::Device::default() }
}

/// The engine on the backend that these tests run on.
fn finished(
    loading: headlight_core::engine::Loading,
) -> Result<headlight_core::engine::Engine, headlight_core::error::Error> {
    #[cfg(not(target_arch = "wasm32"))]
    return loading.onto(vec![backend()]).finish();
    #[cfg(target_arch = "wasm32")]
    loading.finish()
}

/// SmolLM2-135M, loaded once a thread: an engine belongs to one.
///
/// # Panics
/// When the model is missing: a test that needs it must fail, not pass.
#[cfg(not(target_arch = "wasm32"))]
pub fn smollm2() -> &'static headlight_core::engine::Engine {
    use headlight_core::engine::Engine;
    thread_local! {
        static ENGINE: std::cell::OnceCell<&'static Engine> = const { std::cell::OnceCell::new() };
    }
    let load = || {
        let engine = finished(smollm2_loading());
        &*Box::leak(Box::new(engine.unwrap_or_else(|error| panic!("SmolLM2 does not load: {error}"))))
    };
    ENGINE.with(|engine| *engine.get_or_init(load))
}

/// SmolLM2-135M on its way into an engine.
///
/// # Panics
/// As [`smollm2`].
#[cfg(not(target_arch = "wasm32"))]
pub fn smollm2_loading() -> headlight_core::engine::Loading {
    let path = xtask::models::smollm2_path();
    let bytes = std::fs::read(&path);
    let bytes = bytes.unwrap_or_else(|error| panic!("{}: {error}; run cargo xtask models", path.display()));
    let mut loading = headlight_core::engine::Loading::gguf("smollm2-135m", Some(bytes.len() as u64));
    loading.feed(bytes);
    loading
}

/// A file of a bundled model's folder.
///
/// # Panics
/// When it is missing.
#[cfg(not(target_arch = "wasm32"))]
pub fn bundled_file(model: &str, name: &str) -> Vec<u8> {
    let path = xtask::paths::root().join("static/models").join(model).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A bundled model, loaded.
///
/// # Panics
/// When it does not load.
#[cfg(not(target_arch = "wasm32"))]
pub fn bundled(model: &str) -> headlight_core::engine::Engine {
    use headlight_core::engine::Loading;
    let file = |name| bundled_file(model, name);
    let shards = vec![file("model.safetensors")];
    let loading = Loading::from_folder(&file("config.json"), &file("tokenizer.json"), shards, model);
    loading.and_then(finished).unwrap_or_else(|error| panic!("{model} does not load: {error}"))
}

/// What a bundled model's folder weighs, card included.
#[cfg(not(target_arch = "wasm32"))]
pub fn bundled_size_bytes(model: &str) -> usize {
    let names = ["config.json", "tokenizer.json", "model.safetensors", "card.md", "card.json"];
    names.iter().map(|name| bundled_file(model, name).len()).sum()
}

/// A file of `tests/reference`.
pub fn reference(name: &str) -> anyhow::Result<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("reference").join(name);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// A JSON file of `tests/reference`.
pub fn reference_json(name: &str) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::from_slice(&reference(name)?)?)
}

/// The largest difference between two slices; infinite when they differ in length or hold a NaN.
pub fn max_difference(got: &[f32], wanted: &[f32]) -> f32 {
    if got.len() != wanted.len() {
        return f32::INFINITY;
    }
    let differences = got.iter().zip(wanted).map(|(got, wanted)| (got - wanted).abs());
    differences.fold(0.0, |largest, d| if d.is_nan() { f32::INFINITY } else { largest.max(d) })
}

#[cfg(test)]
mod tests {
    use super::max_difference;

    #[test]
    fn nan_and_wrong_lengths_never_pass() {
        assert_eq!(max_difference(&[1.0, f32::NAN], &[1.0, 2.0]), f32::INFINITY);
        assert_eq!(max_difference(&[1.0], &[1.0, 2.0]), f32::INFINITY);
        assert_eq!(max_difference(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
    }
}
