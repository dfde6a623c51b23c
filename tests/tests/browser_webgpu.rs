//! The built page on WebGPU, on Chromium's software adapter: right or wrong, never fast or slow. Choosing it, losing it in the middle
//! of work, a driver that computes wrong numbers, and browsers that have none.

use anyhow::ensure;
use headlight_tests::page::{LONG, SOON, by_id, open, type_prompt};
use serde_json::{Value, json};
use xtask::browser::{Browser, BrowserOptions};

const PROMPT: &str = "On Monday Zorbax met Quill Mandrik. On Tuesday Zorbax met Quill";
/// As a visitor's browser has it, kernels compiled in full.
const SOFTWARE: BrowserOptions = BrowserOptions { software_gpu: true, ..BrowserOptions::DEFAULT };

/// The 20 best logits of a run, by token.
async fn logits(browser: &Browser) -> anyhow::Result<Vec<(u64, f64)>> {
    let report = browser.eval(&format!("headlight.run({})", json!({"text": PROMPT, "top": 20}))).await?;
    let top = report["logits_top"].as_array().into_iter().flatten();
    let mut logits: Vec<(u64, f64)> = top
        .map(|token| (token["id"].as_u64().unwrap_or_default(), token["logit"].as_f64().unwrap_or(f64::NAN)))
        .collect();
    logits.sort_by_key(|(id, _)| *id);
    Ok(logits)
}

fn assert_close(got: &[(u64, f64)], wanted: &[(u64, f64)]) -> anyhow::Result<()> {
    ensure!(!wanted.is_empty() && got.len() == wanted.len());
    for ((got_id, got), (wanted_id, wanted)) in got.iter().zip(wanted) {
        ensure!(got_id == wanted_id && (got - wanted).abs() < 2e-3, "{got} for {got_id}, the CPU's {wanted}");
    }
    Ok(())
}

async fn load(browser: &Browser, backend: &str) -> anyhow::Result<String> {
    let load = json!({"model": "induction-2l", "backend": backend});
    browser.eval(&format!("headlight.load({load}).then(() => true)")).await?;
    let run = format!("headlight.run({}).then((r) => r.provenance.engine)", json!({"text": PROMPT}));
    let engine = browser.eval(&run).await?;
    Ok(engine.as_str().unwrap_or_default().to_owned())
}

/// What the badge says of the engine and why it answers; its text names every choice.
async fn badge(browser: &Browser) -> anyhow::Result<String> {
    let title = browser.eval(&format!("{}.title", by_id("engine-badge"))).await?;
    Ok(title.as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn webgpu_gives_the_cpus_numbers_and_its_loss_is_survived() -> anyhow::Result<()> {
    let browser = open(SOFTWARE).await?;
    // A program that pretends to be a device is not taken unasked.
    let title = badge(&browser).await?;
    ensure!(title.contains("cpu-f32") && title.contains("program on the CPU"), "{title}");
    let wanted = logits(&browser).await?;
    let sweep = json!({"text": PROMPT, "kind": "zero", "metric": "logprob"});
    let sweep_of = |value: &Value| -> Vec<f64> {
        value["effects"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|row| row.as_array())
            .flatten()
            .filter_map(Value::as_f64)
            .collect()
    };
    let effects = sweep_of(&browser.eval(&format!("headlight.sweep({sweep})")).await?);
    // Another than the first, whose numbers are kept.
    let other = json!({"text": PROMPT, "kind": "zero", "metric": "loss"});
    let other_effects = sweep_of(&browser.eval(&format!("headlight.sweep({other})")).await?);
    let detect = json!({"detector": "induction"});
    let scores = browser.eval(&format!("headlight.detect({detect}).then((r) => r.scores)")).await?;

    let engine = load(&browser, "webgpu").await?;
    let title = badge(&browser).await?;
    ensure!(engine.starts_with("webgpu-f32 ("), "{engine}: {title}");
    ensure!(
        title.contains("in its self-test logits differ by at most") && title.contains("from known ones"),
        "{title}"
    );
    assert_close(&logits(&browser).await?, &wanted)?;
    type_prompt(&browser, PROMPT).await?;
    browser.wait_until(&format!("{} !== null", by_id("next-token-0")), SOON).await?;
    let on_gpu = sweep_of(&browser.eval(&format!("headlight.sweep({sweep})")).await?);
    ensure!(on_gpu.len() == effects.len() && on_gpu.len() == 8);
    ensure!(on_gpu.iter().zip(&effects).all(|(a, b)| (a - b).abs() < 2e-3), "{on_gpu:?} {effects:?}");
    let on_gpu = browser.eval(&format!("headlight.detect({detect}).then((r) => r.scores)")).await?;
    let flat = |value: &Value| -> Vec<f64> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(Value::as_f64)
            .collect()
    };
    ensure!(flat(&on_gpu).iter().zip(&flat(&scores)).all(|(a, b)| (a - b).abs() < 2e-3), "{on_gpu} {scores}");
    let generate = json!({"text": PROMPT, "max_new_tokens": 4});
    let text = browser.eval(&format!("headlight.generate({generate}).then((r) => r.ids.length)")).await?;
    ensure!(text == 4, "{text}");

    // Lost in the middle: the call in progress is answered all the same, the device opened again, and the page says so.
    let lost = format!("Promise.all([headlight.sweep({other}), headlight.debug.loseGpu()]).then(([r]) => r)");
    let survived = browser.eval(&lost).await?;
    let after = sweep_of(&survived);
    let is_close = after.iter().zip(&other_effects).all(|(a, b)| (a - b).abs() < 2e-3);
    ensure!(is_close && after.len() == 8, "{survived} {other_effects:?}");
    assert_close(&logits(&browser).await?, &wanted)?;
    let opened_again = format!("{}.title.includes('opened again')", by_id("engine-badge"));
    browser.wait_until(&opened_again, SOON).await?;
    let title = badge(&browser).await?;
    ensure!(title.contains("webgpu-f32"), "{title}");

    // Lost once more: the CPU answers.
    let lost =
        format!("Promise.all([headlight.detect({detect}), headlight.debug.loseGpu()]).then(([r]) => r)");
    let survived = browser.eval(&format!("{lost}.then((r) => r.scores)")).await?;
    ensure!(flat(&survived).iter().zip(&flat(&scores)).all(|(a, b)| (a - b).abs() < 2e-3), "{survived}");
    assert_close(&logits(&browser).await?, &wanted)?;
    let taken_over = format!("{}.title.includes('took over')", by_id("engine-badge"));
    browser.wait_until(&taken_over, SOON).await?;
    let title = badge(&browser).await?;
    ensure!(title.contains("cpu-f32") && title.contains("the graphics device "), "{title}");
    ensure!(!title.contains("; run"), "what was done is asked for: {title}");

    // And it can be chosen again.
    let engine = load(&browser, "webgpu").await?;
    ensure!(engine.starts_with("webgpu-f32 ("), "{engine}");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_computes_wrong_numbers_is_not_used() -> anyhow::Result<()> {
    let browser = open(SOFTWARE).await?;
    browser.eval("headlight.debug.breakGpu().then(() => true)").await?;
    let load = json!({"model": "successor-2l", "backend": "webgpu"});
    browser.eval(&format!("headlight.load({load}).then(() => true)")).await?;
    let told = format!("{}.title.includes('computes wrong numbers')", by_id("engine-badge"));
    browser.wait_until(&told, LONG).await?;
    let run = json!({"text": "Monday Tuesday"});
    let engine = browser.eval(&format!("headlight.run({run}).then((r) => r.provenance.engine)")).await?;
    ensure!(engine == "cpu-f32", "{engine}");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_without_webgpu_says_why_the_cpu_answers() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let engine = load(&browser, "webgpu").await?;
    ensure!(engine == "cpu-f32", "{engine}");
    let title = badge(&browser).await?;
    ensure!(title.contains("no graphics device through WebGPU"), "{title}");
    browser.close().await
}
