//! Prefill speed, natively and in Chromium (wasm, one thread), and there what detectors cost, as JSON.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::browser::{Browser, BrowserOptions};
use crate::server::{Serving, serve_dir};
use crate::shell::{cargo, read, run};
use crate::{models, paths};

/// Detectors that are timed in Chromium on SmolLM2.
const DETECTORS: [&str; 4] = ["induction", "copying", "copying_top1", "successor"];
/// Prompt lengths.
const PREFILL: [usize; 3] = [64, 128, 512];

/// Runs both and prints one JSON object.
pub async fn bench(repeats: usize, native_only: bool) -> anyhow::Result<()> {
    let model = models::smollm2_path();
    let native = native(&model, repeats)?;
    let chromium = if native_only { Value::Null } else { chromium(repeats).await? };
    let report = json!({ "native": native, "chromium": chromium });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn native(model: &Path, repeats: usize) -> anyhow::Result<Value> {
    run(cargo().args(["build", "--quiet", "--release", "--bin", "headlight"]))?;
    let lengths = PREFILL.map(|n| n.to_string()).join(",");
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--bin", "headlight", "--", "bench", "--model"]);
    command.arg(model).args(["--prefill", &lengths, "--repeats", &repeats.to_string()]);
    serde_json::from_str(&read(&mut command)?).context("headlight bench printed no JSON")
}

async fn chromium(repeats: usize) -> anyhow::Result<Value> {
    let address = serve_dir(&paths::dist(), Serving::default()).await?;
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("http://{address}/")).await?;
    // A detector's cost is told in forward passes at T = 128, which both engines and machines share.
    let script = format!(
        "(async () => {{ await window.headlight.ready; await window.headlight.load({{model: 'smollm2-135m'}}); \
         const report = await window.headlight.bench({{prefill: {PREFILL:?}, repeats: {repeats}}}); \
         const forward_s = 128 / report.prefill.find(speed => speed.n_tokens === 128).tokens_per_s; \
         report.detectors = {{}}; \
         for (const detector of {DETECTORS:?}) {{ const start = performance.now(); \
         await window.headlight.detect({{detector}}); const seconds = (performance.now() - start) / 1000; \
         report.detectors[detector] = {{seconds, forwards_of_128_tokens: seconds / forward_s}}; }} \
         return report; }})()"
    );
    let report = browser.eval(&script).await;
    browser.close().await?;
    report
}
