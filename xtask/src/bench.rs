//! Prefill speed and what edits and sweeps cost, natively and in Chromium (wasm, one thread), and there what detectors cost and how
//! fast other engines are, as JSON.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::browser::{Browser, BrowserOptions};
use crate::server::{Serving, serve_dir};
use crate::shell::{cargo, read, run};
use crate::{models, paths, peers};

/// Detectors that are timed in Chromium on SmolLM2.
const DETECTORS: [&str; 4] = ["induction", "copying", "copying_top1", "successor"];
/// Lengths at which retrieval is timed there, every needle at every depth.
const RETRIEVAL_LENGTHS: [usize; 2] = [256, 512];
/// The length at which each prompt is also run alone, to see what their shared beginnings save.
const RETRIEVAL_ALONE_LENGTH: usize = 512;
/// Times edits and sweeps on the page.
const EDITS_SCRIPT: &str = include_str!("bench_edits.js");
/// Prompt lengths.
const PREFILL: [usize; 3] = [64, 128, 512];

/// Loads the cached model anew, up to the first pattern.
const CACHED_LOAD_SCRIPT: &str = "(async () => { \
     await window.headlight.load({model: 'induction-2l'}); \
     const start = performance.now(); \
     await window.headlight.load({model: 'smollm2-135m'}); \
     await window.headlight.patterns({text: 'When Mary and John went to the store', head: 'L18H6'}); \
     const to_first_pattern_ms = performance.now() - start; \
     const {loading} = await window.headlight.bench({prefill: [8], repeats: 1}); \
     return {to_first_pattern_ms, ...loading}; })()";

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
    command.arg(model).args(["--prefill", &lengths, "--repeats", &repeats.to_string(), "--edits"]);
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
         window.timed = async (request) => {{ const start = performance.now(); \
         const found = await window.headlight.detect(request); const seconds = (performance.now() - start) / 1000; \
         return {{found, cost: {{seconds, forwards_of_128_tokens: seconds / forward_s}}}}; }}; \
         report.detectors = {{}}; \
         for (const detector of {DETECTORS:?}) {{ report.detectors[detector] = (await window.timed({{detector}})).cost; }} \
         return report; }})()"
    );
    let measure = async {
        let mut report = chromium_report(&browser, &script).await?;
        report["peers"] = peers::measure(&browser, address, &PREFILL, repeats).await?;
        anyhow::Ok(report)
    };
    let report = measure.await;
    browser.close().await?;
    report
}

/// The script's report, with retrieval's costs: each length in a script of its own, because a script may take only so
/// long.
async fn chromium_report(browser: &Browser, script: &str) -> anyhow::Result<Value> {
    let mut report = browser.eval(script).await?;
    report["cached_load"] = browser.eval(CACHED_LOAD_SCRIPT).await?;
    report["edits"] = browser.eval(EDITS_SCRIPT).await?;
    browser.eval("window.headlight.load({model: 'induction-2l'})").await?;
    report["edits_of_the_bundled_model"] = browser.eval(EDITS_SCRIPT).await?;
    browser.eval("window.headlight.load({model: 'smollm2-135m'})").await?;
    for length in RETRIEVAL_LENGTHS {
        let alone = length == RETRIEVAL_ALONE_LENGTH;
        report["detectors"][format!("retrieval_{length}")] =
            browser.eval(&retrieval_script(length, alone)).await?;
    }
    Ok(report)
}

/// Times retrieval at one length, and with `alone` each of its prompts by itself, with as many tokens generated.
fn retrieval_script(length: usize, alone: bool) -> String {
    format!(
        "(async () => {{ \
         const {{found, cost}} = await window.timed({{detector: 'retrieval', params: {{lengths: [{length}]}}, n_workers: 1}}); \
         const {{n_tokens, n_tokens_shared, prompts}} = found.evidence; \
         const report = {{...cost, n_prompts: prompts.length, n_tokens, n_tokens_shared}}; \
         if (!{alone}) {{ return report; }} \
         report.alone_seconds = 0; \
         for (const prompt of prompts) {{ \
         const {{ids}} = await window.headlight.tokenize(prompt.tokens.join(''), {{bos: 'off'}}); \
         const given = {{ids, span: prompt.span, max_new_tokens: prompt.generated_ids.length}}; \
         const {{cost}} = await window.timed({{detector: 'retrieval', params: {{prompts: [given]}}}}); \
         report.alone_seconds += cost.seconds; }} \
         report.share_of_alone = report.seconds / report.alone_seconds; \
         return report; }})()"
    )
}
