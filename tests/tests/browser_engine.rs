//! The engine's two builds in a real Chromium, and the page's measurement of the machine that runs them.

use std::path::Path;

use anyhow::ensure;
use headlight_tests::page::{LONG, SOON, by_id, click, open, text_of, type_prompt};
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

/// Cells of the map with a number, and those whose number is in fast precision.
async fn cells(browser: &Browser) -> anyhow::Result<(u64, u64)> {
    let count = |selector: &str| format!("document.querySelectorAll('{selector}').length");
    let counts = browser.eval(&format!("[{}, {}]", count(".cell[data-score]"), count(".cell-fast"))).await?;
    Ok((counts[0].as_u64().unwrap_or_default(), counts[1].as_u64().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_sweep_shows_fast_numbers_first_and_ends_with_exact_ones() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    // What an earlier visit measured is kept, and not measured again.
    let timings = json!({
        "cpu_ms": 200.0, "gpu_ms": null,
        "fast": {"ms": 100.0, "max_difference": 0.03, "passed": true},
    });
    let key = format!("headlight-engine-{}-smollm2-135m", env!("CARGO_PKG_VERSION"));
    let kept = Value::String(timings.to_string());
    browser.eval(&format!("localStorage.setItem('{key}', {kept})")).await?;
    browser.eval("headlight.load({model: 'smollm2-135m', backend: 'cpu'})").await?;
    let text = "On Monday Zorbax met Quill Mandrik. On Tuesday Zorbax met Quill";
    type_prompt(&browser, text).await?;
    let measure = by_id("measure");
    let choose = format!(
        "{measure}.value = 'effect:sweep', {measure}.dispatchEvent(new Event('change', {{bubbles: true}}))"
    );
    browser.eval(&choose).await?;
    browser.wait_until(&format!("!!{}", by_id("fast-first")), LONG).await?;
    let told = text_of(&browser, "lab").await?;
    ensure!(told.contains("2.0 times as quick") && told.contains("logits within 0.03"), "{told}");
    browser.wait_until(&format!("!{}.disabled", by_id("sweep-run")), LONG).await?;
    click(&browser, "sweep-run").await?;
    browser.wait_until("document.querySelectorAll('.cell-fast').length > 0", LONG).await?;
    let (_, n_fast) = cells(&browser).await?;
    let label = browser.eval("document.querySelector('.cell-fast').getAttribute('aria-label')").await?;
    ensure!(label.as_str().is_some_and(|label| label.contains("in fast precision")), "{label}");
    ensure!(n_fast > 0);
    browser.wait_until(&format!("{} === null", by_id("sweep-stop")), LONG).await?;
    ensure!(cells(&browser).await? == (270, 0), "{:?}", cells(&browser).await?);
    // The cells hold what an exact sweep gives.
    let request = json!({"text": text, "layers": [16], "n_workers": 1});
    let exact = browser.eval(&format!("headlight.sweep({request})")).await?;
    ensure!(exact["provenance"]["engine"] == "cpu-f32", "{}", exact["provenance"]);
    for head in 0..9 {
        let shown = browser.eval(&format!("{}.dataset.score", by_id(&format!("head-L16H{head}")))).await?;
        let wanted = exact["effects"][16][head].as_f64().map(|effect| format!("{effect:.4}"));
        ensure!(shown.as_str() == wanted.as_deref(), "L16H{head}: {shown}, not {wanted:?}");
    }
    // The same in fast precision is another number that is near, and says so.
    let request = json!({"text": text, "layers": [16], "n_workers": 1, "precision": "fast"});
    let fast = browser.eval(&format!("headlight.sweep({request})")).await?;
    ensure!(fast["provenance"]["engine"] == "cpu-fast-i16", "{}", fast["provenance"]);
    let pairs = (0..9)
        .filter_map(|head| Some((fast["effects"][16][head].as_f64()?, exact["effects"][16][head].as_f64()?)));
    let difference = pairs.map(|(fast, exact)| (fast - exact).abs()).fold(0.0, f64::max);
    ensure!(difference > 0.0 && difference < 5e-3, "effects differ by {difference}");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_share_a_detectors_draws_find_what_one_finds() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let detect = |n_workers: usize| {
        let request = json!({"detector": "induction", "params": {"n_draws": 6}, "n_workers": n_workers});
        format!("headlight.detect({request})")
    };
    let alone = browser.eval(&detect(1)).await?;
    ensure!(alone["n"] == 6 && alone["spread"].is_array(), "{alone}");
    for n_workers in [2, 4] {
        let shared = browser.eval(&detect(n_workers)).await?;
        ensure!(shared == alone, "{n_workers} workers: {shared} is not {alone}");
    }
    // A helper that cannot begin: its share is done again, which is said and changes nothing.
    browser.eval(COUNT_WORKERS).await?;
    browser.eval("window.spoilWorkers = true").await?;
    let shared = browser.eval(&detect(2)).await?;
    ensure!(shared == alone, "without a helper: {shared} is not {alone}");
    ensure!(n_started(&browser).await? > 0, "there was a helper to lose");
    let told = format!("document.body.textContent.includes({:?})", "its share is computed again without it");
    browser.wait_until(&told, SOON).await?;
    browser.close().await
}

/// Counts the workers that are started from now on, and spoils them when told.
const COUNT_WORKERS: &str = "(() => { \
    const {Worker} = window; \
    window.nWorkers = 0; \
    window.Worker = function (address, options) { \
        window.nWorkers += 1; \
        return new Worker(window.spoilWorkers ? 'no-such-file.js' : address, options); }; \
    return true; })()";

/// Workers started since the last time.
async fn n_started(browser: &Browser) -> anyhow::Result<u64> {
    let n_workers = browser.eval("[window.nWorkers, window.nWorkers = 0][0]").await?;
    Ok(n_workers.as_u64().unwrap_or_default())
}

/// Has the page use so many workers.
async fn choose_workers(browser: &Browser, choice: &str) -> anyhow::Result<()> {
    let menu = by_id("workers-choice");
    let script =
        format!("{menu}.value = '{choice}', {menu}.dispatchEvent(new Event('change', {{bubbles: true}}))");
    browser.eval(&script).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_chooses_how_many_workers_share_long_work() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let told = text_of(&browser, "workers-told").await?;
    ensure!(told.contains("one worker") && told.contains("so small"), "{told}");
    browser.eval("headlight.load({model: 'smollm2-135m', backend: 'cpu'})").await?;
    let options = browser
        .eval(&format!(
            "[{0}.labels[0].textContent.startsWith('Workers'), {0}.value, {0}.options.length - 1, navigator.hardwareConcurrency]",
            by_id("workers-choice")
        ))
        .await?;
    ensure!(options[0] == true && options[1] == "auto", "{options}");
    ensure!(options[2].as_u64() == options[3].as_u64().map(|n_cores| n_cores.min(16)), "{options}");
    browser.eval(COUNT_WORKERS).await?;
    let short = json!({"n_draws": 16, "n_tokens": 4});
    let induction = format!("headlight.detect({})", json!({"detector": "induction", "params": short}));
    let prompts = json!({"lengths": [128], "depths": [20, 80], "n_needles": 4, "max_new_tokens": 6});
    let retrieval = format!("headlight.detect({})", json!({"detector": "retrieval", "params": prompts}));
    choose_workers(&browser, "1").await?;
    let told = text_of(&browser, "workers-told").await?;
    ensure!(told.contains("one worker") && told.contains("as you chose"), "{told}");
    let alone = [browser.eval(&induction).await?, browser.eval(&retrieval).await?];
    ensure!(n_started(&browser).await? == 0, "one worker has no helper");
    choose_workers(&browser, "2").await?;
    for (detector, alone) in [&induction, &retrieval].into_iter().zip(&alone) {
        let shared = browser.eval(detector).await?;
        ensure!(n_started(&browser).await? == 1, "{detector}: two workers are one and a helper");
        ensure!(shared == *alone, "{shared} is not {alone}");
    }
    // Kept for the next visit.
    browser.client.refresh().await?;
    browser.wait_until("!!window.headlight", SOON).await?;
    browser.eval("headlight.ready").await?;
    let chosen = browser.eval(&format!("{}.value", by_id("workers-choice"))).await?;
    ensure!(chosen == "2", "{chosen}");
    choose_workers(&browser, "auto").await?;
    let kept = browser.eval("localStorage.getItem('headlight-workers')").await?;
    ensure!(kept == Value::Null, "{kept}");
    browser.close().await
}
