//! The built page in a real Chromium: open it, type, look at heads, load SmolLM2, break things.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use headlight_tests::page::{
    LONG, SOON, by_id, choose, click, is_ours, open, text_of, type_prompt, wait_for_numbers,
};
use serde_json::{Value, json};
use xtask::browser::{Browser, BrowserOptions};
use xtask::paths;

fn artifact(name: &str) -> PathBuf {
    paths::artifacts().join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundled_model_reacts_to_a_prompt_and_shows_its_heads() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let prompt = "The wizard Grindelhof greeted the knight. The knight bowed and thanked Grindel";
    type_prompt(&browser, prompt).await?;
    let report = browser.eval(&format!("headlight.run({{text: {}, top: 5}})", json!(prompt))).await?;
    ensure!(report["logits_top"].as_array().map(Vec::len) == Some(5) && is_ours(&report), "{report}");
    let n_tokens = report["ids"].as_array().map_or(0, Vec::len);
    let last_chip = by_id(&format!("token-chip-{}", n_tokens - 1));
    browser.wait_until(&format!("{last_chip} !== null"), SOON).await?;
    click(&browser, "head-L1H0").await?;
    browser.wait_until(&format!("{} !== null", by_id("pattern-heatmap")), SOON).await?;
    let patterns =
        browser.eval(&format!("headlight.patterns({{text: {}, head: 'L1H0'}})", json!(prompt))).await?;
    let rows = patterns["pattern"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(rows.len() == n_tokens);
    for row in rows {
        let sum: f64 = row.as_array().into_iter().flatten().filter_map(Value::as_f64).sum();
        ensure!((sum - 1.0).abs() < 1e-4, "a row sums to {sum}");
    }
    let native = std::process::Command::new(program())
        .args(["run", "--model", "induction-2l", "--top", "5", "--text", prompt])
        .current_dir(paths::root())
        .output()?;
    let native: Value = serde_json::from_slice(&native.stdout)?;
    for (page, native) in report["logits_top"]
        .as_array()
        .into_iter()
        .flatten()
        .zip(native["logits_top"].as_array().into_iter().flatten())
    {
        ensure!(page["id"] == native["id"], "{page} in the page, {native} natively");
        let difference =
            page["logit"].as_f64().unwrap_or(f64::NAN) - native["logit"].as_f64().unwrap_or(f64::NAN);
        ensure!(difference.abs() < 1e-4, "logits differ by {difference}");
    }
    browser.close().await
}

/// The program that `cargo build --bin headlight` leaves beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors().nth(2).expect("target/profile/deps/test").join("headlight")
}

#[tokio::test(flavor = "multi_thread")]
async fn smollm2_names_paris_and_survives_a_crash() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let info = browser.eval("headlight.load({model: 'smollm2-135m'})").await?;
    ensure!(info["n_layers"] == 30 && info["n_heads"] == 9, "{info}");
    type_prompt(&browser, "The capital of France is").await?;
    let paris = format!("({} || {{textContent: ''}}).textContent.includes('Paris')", by_id("next-token-0"));
    browser.wait_until(&paris, LONG).await?;
    let report = browser.eval("headlight.run({text: 'The capital of France is'})").await?;
    ensure!(report["logits_top"][0]["token"] == " Paris", "{}", report["logits_top"][0]);
    let logit = report["logits_top"][0]["logit"].as_f64().unwrap_or(f64::NAN);
    ensure!((logit - 17.37127).abs() < 2e-3, "logit {logit}");
    browser.wait_until(&format!("{} !== null", by_id("head-L29H8")), SOON).await?;
    for (name, edit) in [("zero", json!({"kind": "zero", "heads": ["L18H6"]}))] {
        let request = json!({"text": "The capital of France is", "interventions": [edit]});
        let edited = browser.eval(&format!("headlight.run({request})")).await?;
        ensure!(edited["logits_top"] != report["logits_top"], "{name} changed nothing");
    }
    browser.screenshot(&artifact("smollm2.png")).await?;
    choose(&browser, "measure", "detector:successor").await?;
    browser.wait_until(&format!("{} !== null", by_id("detector-verdict")), LONG).await?;
    let verdict = text_of(&browser, "detector-verdict").await?;
    ensure!(verdict.starts_with("None found") && verdict.contains("L23H3 0.18"), "{verdict}");
    browser.screenshot(&artifact("smollm2-successor.png")).await?;
    browser.eval("headlight.debug.crash()").await?;
    browser.wait_until(&format!("{} !== null", by_id("error-banner")), SOON).await?;
    let prompt = browser.eval(&format!("{}.value", by_id("prompt"))).await?;
    ensure!(prompt == "The capital of France is", "the prompt is kept: {prompt}");
    // The model comes back, from the cache or the server, and answers as before.
    browser.wait_until("headlight.run({text: 'The capital of France is'}).then(r => r.logits_top[0].token === ' Paris', () => false)", LONG).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn detectors_name_the_bundled_models_heads_on_the_page() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    choose(&browser, "measure", "detector:induction").await?;
    browser.wait_until(&format!("{} !== null", by_id("detector-verdict")), SOON).await?;
    let verdict = text_of(&browser, "detector-verdict").await?;
    ensure!(verdict.contains("L1H0"), "{verdict}");
    let shown = browser.eval(&format!("{}.dataset.score", by_id("head-L1H0"))).await?;
    let report = browser.eval("headlight.detect({detector: 'induction'})").await?;
    let score = report["scores"][1][0].as_f64().unwrap_or(f64::NAN);
    ensure!(shown.as_str() == Some(format!("{score:.4}").as_str()), "{shown} on the map, {score} by script");
    ensure!(report["evidence"]["second_copy_nll_nats"].as_f64().is_some_and(|nats| nats < 1.0), "{report}");
    ensure!(is_ours(&report), "{report}");
    // The same request on the command line gives the same numbers.
    let native = std::process::Command::new(program())
        .args(["detect", "--model", "induction-2l", "--detector", "induction"])
        .current_dir(paths::root())
        .output()?;
    let native: Value = serde_json::from_slice(&native.stdout)?;
    ensure!(native["stimulus"] == report["stimulus"], "{} and {}", native["stimulus"], report["stimulus"]);
    let difference = native["scores"][1][0].as_f64().unwrap_or(f64::NAN) - score;
    ensure!(difference.abs() < 1e-4, "scores differ by {difference}");
    click(&browser, "head-L1H0").await?;
    browser.wait_until(&format!("{}.textContent.includes('Induction')", by_id("head-labels")), SOON).await?;
    browser.screenshot(&artifact("detector.png")).await?;
    click(&browser, "head-L0H0").await?;
    browser
        .wait_until(&format!("{}.textContent.includes('Unclassified')", by_id("head-labels")), SOON)
        .await?;
    // No MLP, no successor score: said in its place, and the page goes on.
    choose(&browser, "measure", "detector:successor").await?;
    browser.wait_until(&format!("{} !== null", by_id("detector-failed")), SOON).await?;
    let told = text_of(&browser, "detector-failed").await?;
    ensure!(told.contains("no MLP"), "{told}");
    // The whole vocabulary may compete with a token that is copied: a setting that waits for its button.
    choose(&browser, "measure", "detector:copying_top1").await?;
    browser.wait_until(&format!("{} !== null", by_id("detector-verdict")), SOON).await?;
    choose(&browser, "candidates", "vocabulary").await?;
    wait_for_text(&browser, "detector-offer", "earlier settings").await?;
    click(&browser, "detector-run").await?;
    browser
        .wait_until(
            "document.querySelector('.detector').textContent.includes('against the whole vocabulary')",
            SOON,
        )
        .await?;
    choose(&browser, "measure", "detector:copying").await?;
    browser.wait_until(&format!("{} !== null", by_id("detector-verdict")), SOON).await?;
    browser.screenshot(&artifact("detector-copying.png")).await?;
    browser.close().await
}

/// Types into a field as a person does.
async fn wait_for_text(browser: &Browser, id: &str, text: &str) -> anyhow::Result<()> {
    let has = format!("{0} !== null && {0}.textContent.includes({1})", by_id(id), json!(text));
    browser.wait_until(&has, LONG).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_of_ones_own_is_written_or_painted_and_the_prompt_can_be_the_stimulus() -> anyhow::Result<()>
{
    let browser = open(BrowserOptions::default()).await?;
    choose(&browser, "measure", "detector:custom").await?;
    wait_for_text(&browser, "detector-offer", "paint cells").await?;
    fill(&browser, "custom-offsets", "-1, 2").await?;
    wait_for_text(&browser, "detector-offer", "no offset").await?;
    fill(&browser, "custom-offsets", "-1").await?;
    click(&browser, "detector-run").await?;
    browser.wait_until(&format!("{} !== null", by_id("detector-verdict")), SOON).await?;
    let shown = browser.eval(&format!("{}.dataset.score", by_id("head-L0H2"))).await?;
    let report = browser.eval("headlight.detect({detector: 'custom', params: {offsets: [-1]}})").await?;
    ensure!(is_ours(&report), "{report}");
    let score = report["scores"][0][2].as_f64().unwrap_or(f64::NAN);
    ensure!(shown.as_str() == Some(format!("{score:.4}").as_str()), "{shown} on the map, {score} by script");
    // Painted with the keyboard: the first arrow lands on the last query's own position.
    click(&browser, "paint-toggle").await?;
    for key in ["ArrowUp", "ArrowLeft", " "] {
        let press = format!(
            "{}.dispatchEvent(new KeyboardEvent('keydown', {{key: {}, bubbles: true}}))",
            by_id("pattern-heatmap"),
            json!(key)
        );
        browser.eval(&press).await?;
    }
    wait_for_text(&browser, "painted", "1 painted").await?;
    wait_for_text(&browser, "detector-offer", "earlier settings").await?;
    click(&browser, "detector-run").await?;
    wait_for_text(&browser, "detector", "The prompt,").await?;
    browser.screenshot(&artifact("detector-custom.png")).await?;
    // The prompt as stimulus of a named detector, and what becomes of its score when the prompt changes.
    choose(&browser, "measure", "detector:induction").await?;
    choose(&browser, "stimulus", "prompt").await?;
    wait_for_text(&browser, "detector", "The prompt,").await?;
    type_prompt(&browser, "ab").await?;
    wait_for_text(&browser, "detector-offer", "earlier text").await?;
    click(&browser, "detector-run").await?;
    wait_for_text(&browser, "detector-failed", "no token twice").await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn retrieval_on_smollm2_is_paused_resumed_and_stopped_and_reads_a_text_of_ones_own()
-> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    browser.eval("headlight.load({model: 'smollm2-135m'})").await?;
    browser.wait_until(&format!("{} !== null", by_id("head-L29H8")), SOON).await?;
    choose(&browser, "measure", "detector:retrieval").await?;
    wait_for_text(&browser, "detector-progress", "of 750").await?;
    click(&browser, "detector-pause").await?;
    wait_for_text(&browser, "detector-progress", "Paused at").await?;
    // What was on its way has arrived after a moment; then nothing moves.
    let still = "new Promise(resolve => setTimeout(resolve, 700))";
    browser.eval(still).await?;
    let paused = text_of(&browser, "detector-progress").await?;
    browser.eval(still).await?;
    ensure!(text_of(&browser, "detector-progress").await? == paused, "it went on from {paused}");
    click(&browser, "detector-pause").await?;
    let moved = format!(
        "!{0}.textContent.startsWith('Paused') && 'Paused at ' + {0}.textContent.split(' ·')[0] !== {1}",
        by_id("detector-progress"),
        json!(paused)
    );
    browser.wait_until(&moved, LONG).await?;
    click(&browser, "detector-pause").await?;
    click(&browser, "detector-stop").await?;
    wait_for_text(&browser, "detector-offer", "Stopped").await?;
    choose(&browser, "retrieval-source", "own").await?;
    fill(&browser, "retrieval-needle", "purple rain").await?;
    click(&browser, "detector-run").await?;
    wait_for_text(&browser, "detector-failed", "does not hold the needle").await?;
    fill(&browser, "retrieval-needle", "velvet thunder under orange snow").await?;
    click(&browser, "retrieval-causal-check").await?;
    click(&browser, "detector-run").await?;
    wait_for_text(&browser, "retrieval-causal", "±").await?;
    let needle =
        browser.eval("[...document.querySelectorAll('.needle')].map(e => e.textContent).join('')").await?;
    ensure!(needle == " velvet thunder under orange snow", "{needle} is marked");
    let copied = text_of(&browser, "retrieval-looks").await?;
    ensure!(copied.contains("copied at 5"), "{copied}");
    browser.screenshot(&artifact("retrieval-own.png")).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_and_the_page_stays_usable() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let failures = [
        ("headlight.patterns({text: 'a b', head: 'L9H9'})", "does not exist"),
        ("headlight.run({text: ''})", "empty"),
        ("headlight.run({ids: [1, 2, 999999]})", "does not exist"),
        ("headlight.detect({detector: 'inductoin'})", "there is no detector"),
        ("headlight.detect({detector: 'induction', sequences: [[1, 2, 3]]})", "no token twice"),
        ("headlight.load({model: 'no-such-model'})", "no model"),
        (
            "headlight.load({model: 'induction-2l', backend: 'abacus'})",
            "expected one of `auto`, `cpu`, `webgpu`",
        ),
        ("headlight.load({model: './index.html'})", "web page"),
        ("headlight.load({model: './missing.gguf'})", "404"),
    ];
    for (call, told) in failures {
        let error = browser.eval(call).await.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains(told), "{call}: {error:?} does not say {told:?}");
    }
    type_prompt(&browser, &"long prompt ".repeat(400)).await?;
    let too_long = format!("{0} !== null && {0}.dataset.code === 'prompt_too_long'", by_id("error-banner"));
    browser.wait_until(&too_long, SOON).await?;
    let banner = text_of(&browser, "error-banner").await?;
    ensure!(banner.contains("tokens long"), "{banner}");
    type_prompt(&browser, "It was a dark and stormy night").await?;
    browser.wait_until(&format!("{} === null", by_id("error-banner")), SOON).await?;
    wait_for_numbers(&browser).await?;
    ensure!(!text_of(&browser, "next-token-0").await?.is_empty());
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_fits_every_width_in_light_and_dark() -> anyhow::Result<()> {
    for (width, height) in [(1440, 900), (1024, 768), (390, 844)] {
        for dark in [false, true] {
            let browser = open(BrowserOptions { width, height, dark, ..BrowserOptions::DEFAULT }).await?;
            click(&browser, "head-L1H0").await?;
            browser.wait_until(&format!("{} !== null", by_id("pattern-heatmap")), SOON).await?;
            let overflow = browser
                .eval("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                .await?;
            let theme = if dark { "dark" } else { "light" };
            browser.screenshot(&artifact(&format!("page-{width}-{theme}.png"))).await?;
            ensure!(
                overflow.as_f64().is_some_and(|px| px <= 0.0),
                "{width} px wide: {overflow} px stick out"
            );
            browser.close().await?;
        }
    }
    Ok(())
}

/// The next tokens' ids and logits as the page holds them, every digit.
async fn next_logits(browser: &Browser) -> anyhow::Result<Value> {
    let script = "[...document.querySelectorAll('[data-testid^=\"next-token-\"]')]\
                  .map(row => [row.dataset.id, row.dataset.logit])";
    browser.eval(script).await
}

/// Probability of the clean run's favourite before and after the edits, percent, from the page's own sentence.
async fn favourite(browser: &Browser) -> anyhow::Result<(f64, f64)> {
    let line = browser.eval("document.querySelector('.effect-numbers span').textContent").await?;
    let line = line.as_str().unwrap_or_default();
    let percents: Vec<f64> =
        line.split(" %").filter_map(|part| part.rsplit([' ', '<']).next()?.parse().ok()).collect();
    ensure!(percents.len() >= 2, "{line}");
    Ok((percents[0], percents[1]))
}

#[tokio::test(flavor = "multi_thread")]
async fn induction_heads_of_smollm2_switched_off_cost_the_name_and_undoing_it_returns_every_bit()
-> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    browser.eval("headlight.load({model: 'smollm2-135m'})").await?;
    type_prompt(&browser, "The wizard Grindelhof greeted the knight. The knight bowed and thanked Grindel")
        .await?;
    let hof = format!("({} || {{dataset: {{}}}}).dataset.id === '32761'", by_id("next-token-0"));
    browser.wait_until(&hof, LONG).await?;
    let before = next_logits(&browser).await?;
    choose(&browser, "measure", "detector:induction").await?;
    browser.wait_until(&format!("{} !== null", by_id("set-apply")), LONG).await?;
    click(&browser, "set-apply").await?;
    browser.wait_until(&format!("{} !== null", by_id("kl-nats")), LONG).await?;
    let (clean, edited) = favourite(&browser).await?;
    ensure!(clean > 95.0 && edited < 0.7 * clean, "{clean} % to {edited} %");
    ensure!(next_logits(&browser).await? != before);
    browser.wait_until(&format!("{} !== null", by_id("along")), LONG).await?;
    browser.screenshot(&artifact("smollm2-ablated.png")).await?;
    click(&browser, "ablations-clear").await?;
    browser.wait_until(&format!("{} === null", by_id("kl-nats")), LONG).await?;
    ensure!(next_logits(&browser).await? == before, "not every bit came back");
    // A sweep is held, goes on, and is stopped; what was known by then stays on the map only while it is at work.
    choose(&browser, "measure", "effect:sweep").await?;
    click(&browser, "sweep-run").await?;
    let swept = "document.querySelectorAll('[data-testid^=\"head-L\"][data-score]').length";
    browser.wait_until(&format!("{swept} > 9"), LONG).await?;
    click(&browser, "sweep-pause").await?;
    browser.wait_until(&format!("{}.textContent === 'Resume'", by_id("sweep-pause")), SOON).await?;
    // A report may have been on its way.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let held = browser.eval(swept).await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ensure!(browser.eval(swept).await? == held, "a held sweep goes on");
    click(&browser, "sweep-pause").await?;
    browser.wait_until(&format!("{swept} > {held}"), LONG).await?;
    click(&browser, "sweep-stop").await?;
    browser.wait_until(&format!("{} !== null", by_id("sweep-run")), SOON).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_colours_the_map_meets_the_scores_and_is_the_command_lines() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let prompt = "On Monday Zorbax met Quill Mandrik. On Tuesday Zorbax met Quill";
    type_prompt(&browser, prompt).await?;
    choose(&browser, "measure", "effect:sweep").await?;
    browser.wait_until(&format!("{} !== null", by_id("lab-finding")), LONG).await?;
    let dots = "document.querySelectorAll('[data-testid^=\"dot-L\"]').length";
    browser.wait_until(&format!("{dots} === 8"), SOON).await?;
    browser
        .eval(&format!("{}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))", by_id("dot-L1H2")))
        .await?;
    browser.wait_until(&format!("{}.textContent.includes('L1H2')", by_id("inspector-title")), SOON).await?;
    let request = json!({"text": prompt, "metric": "loss", "positions": [5, 6, 7], "edit": {"kind": "mean"}});
    let page = browser.eval(&format!("headlight.sweep({request})")).await?;
    let native = std::process::Command::new(program())
        .args(["sweep", "--model", "induction-2l", "--text", prompt, "--metric", "loss"])
        .args(["--positions", "5..7", "--kind", "mean"])
        .current_dir(paths::root())
        .output()?;
    let native: Value = serde_json::from_slice(&native.stdout)?;
    let numbers = |report: &Value| -> Vec<f64> {
        let rows = report["effects"].as_array().into_iter().flatten();
        rows.flat_map(|row| row.as_array().into_iter().flatten()).filter_map(Value::as_f64).collect()
    };
    ensure!(numbers(&page).len() == 8 && numbers(&native).len() == 8, "{page} {native}");
    ensure!(is_ours(&page), "{page}");
    for (page, native) in numbers(&page).into_iter().zip(numbers(&native)) {
        ensure!((page - native).abs() < 1e-4, "{page} in the page, {native} natively");
    }
    browser.screenshot(&artifact("sweep.png")).await?;
    // A named set is swept as a whole, as on the command line, beside the sum of what its heads do one by one.
    for head in ["head-L0H0", "head-L1H2"] {
        let double = "dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))";
        browser.eval(&format!("{}.{double}", by_id(head))).await?;
    }
    browser.wait_until(&format!("{} !== null", by_id("set-name")), SOON).await?;
    fill(&browser, "set-name", "the pair").await?;
    click(&browser, "set-save").await?;
    wait_for_text(&browser, "set-effects", "the pair").await?;
    let cells =
        format!("[...{}.querySelectorAll('tbody td')].map(cell => cell.textContent)", by_id("set-effects"));
    let cells = browser.eval(&cells).await?;
    let printed =
        |index: usize| cells[index].as_str().and_then(|text| text.replace('−', "-").parse::<f64>().ok());
    let native = |more: &[&str]| -> anyhow::Result<Vec<f64>> {
        let output = std::process::Command::new(program())
            .args(["sweep", "--model", "induction-2l", "--text", prompt])
            .args(more)
            .current_dir(paths::root())
            .output()?;
        Ok(numbers(&serde_json::from_slice(&output.stdout)?))
    };
    let (together, alone) = (native(&["--sets", r#"[["L0H0","L1H2"]]"#])?, native(&[])?);
    ensure!(cells[0] == "2", "{cells}");
    for (printed, wanted) in [(printed(1), together[0]), (printed(2), alone[0] + alone[6])] {
        ensure!(printed.is_some_and(|printed| (printed - wanted).abs() < 6e-3), "{cells}: {wanted}");
    }
    browser.screenshot(&artifact("sweep-sets.png")).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_other_kinds_patching_and_bad_ones() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let clean = next_logits(&browser).await?;
    // Strength 0 of a pattern's move is no edit, to the bit.
    choose(&browser, "edit-next", "3").await?;
    click(&browser, "ablate").await?;
    browser.wait_until(&format!("{} !== null", by_id("kl-nats")), SOON).await?;
    ensure!(next_logits(&browser).await? != clean, "an even pattern changes the answer");
    let slide = format!(
        "(() => {{ const slider = {}; slider.value = 0; \
         slider.dispatchEvent(new Event('input', {{bubbles: true}})); }})()",
        by_id("edit-strength")
    );
    browser.eval(&slide).await?;
    browser.wait_until(&format!("{}.textContent.includes(' 0.000 nats')", by_id("kl-nats")), SOON).await?;
    ensure!(next_logits(&browser).await? == clean, "strength 0 changes a bit");
    click(&browser, "continue").await?;
    let written = format!("({} || {{textContent: ''}}).textContent", by_id("continuation-after"));
    browser.wait_until(&format!("{written}.length > 10 && !{written}.endsWith('…')"), LONG).await?;
    ensure!(
        text_of(&browser, "continuation-before").await? == text_of(&browser, "continuation-after").await?
    );
    // An edge that looks ahead is refused in a sentence, and nothing is lost.
    fill(&browser, "edges", "3>7").await?;
    click(&browser, "edges-add").await?;
    browser
        .wait_until(&format!("{}.textContent.includes('looks ahead')", by_id("error-banner")), SOON)
        .await?;
    click(&browser, "edit-remove-1").await?;
    browser.wait_until(&format!("{} === null", by_id("error-banner")), SOON).await?;
    // Patching: prompts of other lengths are refused; a pair of equal ones fills map and tables.
    choose(&browser, "measure", "effect:patch").await?;
    fill(&browser, "patch-corrupted", "too short").await?;
    browser.wait_until("document.body.textContent.includes('make them equally long')", SOON).await?;
    fill(&browser, "patch-corrupted", "On Monday Quill met Zorbax Mandrik. On Tuesday Zorbax met Quill")
        .await?;
    browser.wait_until(&format!("{} !== null", by_id("patch-resid")), LONG).await?;
    let cells = format!("{}.querySelectorAll('td').length", by_id("patch-resid"));
    ensure!(browser.eval(&cells).await? == 88, "two layers of 44 positions");
    wait_for_numbers(&browser).await?;
    browser.screenshot(&artifact("patching.png")).await?;
    browser.close().await
}

async fn fill(browser: &Browser, id: &str, text: &str) -> anyhow::Result<()> {
    let element = by_id(id);
    browser.wait_until(&format!("{element} !== null"), SOON).await?;
    let script = format!(
        "(() => {{ const field = {element}; field.value = {}; \
         field.dispatchEvent(new Event('input', {{bubbles: true}})); return true; }})()",
        json!(text)
    );
    browser.eval(&script).await.map(|_| ())
}
