//! The engine's two builds in a real Chromium, and the page's measurement of the machine that runs them.

use std::path::Path;

use anyhow::ensure;
use headlight_tests::page::{LONG, SOON, by_id, click, open, text_of};
use serde_json::{Value, json};
use xtask::browser::{Browser, BrowserOptions};
use xtask::paths;
use xtask::server::{Serving, serve_dir};

/// The worker's build that fuses products and sums.
const RELAXED: &str = "headlight-worker-relaxed_bg.wasm";

/// The page without the second build, as a server of an older deployment has it.
fn plain_copy(of: &Path) -> anyhow::Result<std::path::PathBuf> {
    let copy = std::env::temp_dir().join(format!("headlight-plain-{}", std::process::id()));
    std::fs::create_dir_all(copy.join("models/induction-2l"))?;
    std::fs::create_dir_all(copy.join("worker"))?;
    for folder in ["", "models/induction-2l", "worker"] {
        for entry in std::fs::read_dir(of.join(folder))? {
            let entry = entry?;
            if entry.file_type()?.is_file() && entry.file_name() != RELAXED {
                std::fs::copy(entry.path(), copy.join(folder).join(entry.file_name()))?;
            }
        }
    }
    Ok(copy)
}

/// The engine's name, and every logit of a prompt by id.
async fn logits(browser: &Browser) -> anyhow::Result<(String, Vec<f64>)> {
    let bench = browser.eval("headlight.bench({prefill: [16], repeats: 1})").await?;
    let run = json!({"text": "On Monday Zorbax met Quill. On Tuesday Zorbax met", "top": 100_000});
    let report = browser.eval(&format!("headlight.run({run})")).await?;
    let mut top: Vec<(u64, f64)> = Vec::new();
    for token in report["logits_top"].as_array().into_iter().flatten() {
        top.extend(token["id"].as_u64().zip(token["logit"].as_f64()));
    }
    top.sort_by_key(|token| token.0);
    ensure!(top.len() == 512, "{} logits", top.len());
    let name = bench["engine"].as_str().unwrap_or_default().to_owned();
    Ok((name, top.into_iter().map(|token| token.1).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_builds_give_the_same_numbers_and_the_plain_one_stands_in() -> anyhow::Result<()> {
    let relaxed = open(BrowserOptions::default()).await?;
    let (name, fused) = logits(&relaxed).await?;
    ensure!(name == "cpu-f32 wasm32 (relaxed SIMD)", "{name}");
    relaxed.close().await?;
    let copy = plain_copy(&paths::dist())?;
    let address = serve_dir(&copy, Serving::default()).await?;
    let plain = Browser::start(BrowserOptions::default()).await?;
    plain.client.goto(&format!("http://{address}/index.html")).await?;
    plain.wait_until("!!window.headlight", SOON).await?;
    plain.eval("window.headlight.ready").await?;
    let (name, unfused) = logits(&plain).await?;
    ensure!(name == "cpu-f32 wasm32 (SIMD)", "{name}");
    plain.close().await?;
    let difference = fused.iter().zip(&unfused).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    ensure!(difference < 1e-4, "logits differ by {difference}");
    // One rounding instead of two is seen somewhere: the builds are two.
    ensure!(difference > 0.0, "not one bit differs");
    Ok(std::fs::remove_dir_all(copy)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_measures_the_machine_when_asked() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    browser.eval(&format!("{}.open = true", by_id("machine"))).await?;
    click(&browser, "machine-measure").await?;
    browser.wait_until(&format!("{} !== null", by_id("measured")), LONG).await?;
    let told = text_of(&browser, "machine").await?;
    for part in ["relaxed SIMD", "512", "one thread", " % of the ", "Memory: "] {
        ensure!(told.contains(part), "{part} is not in {told}");
    }
    // The same figures for scripts.
    let report = browser.eval("headlight.bench({prefill: [32], repeats: 2})").await?;
    let kernel = &report["kernel"];
    let [peak, matmul, part] =
        ["peak_gmacs", "matmul_gmacs", "matmul_of_peak"].map(|name| kernel[name].as_f64());
    let (Some(peak), Some(matmul), Some(part)) = (peak, matmul, part) else { anyhow::bail!("{kernel}") };
    ensure!(matmul > 0.0 && peak > 0.0 && (part - matmul / peak).abs() < 1e-9, "{kernel}");
    ensure!(report["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{report}");
    ensure!(report["prefill"][0]["runs_ms"].as_array().map(Vec::len) == Some(2), "{report}");
    // What was measured of one model is not shown of another.
    browser.eval("headlight.load({model: 'successor-2l'})").await?;
    browser.wait_until(&format!("{} === null", by_id("measured")), SOON).await?;
    ensure!(browser.eval("headlight.run({text: 'Monday Tuesday'})").await? != Value::Null);
    browser.close().await
}
