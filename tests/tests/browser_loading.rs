//! A large model on its way into the page, in a real Chromium: what is kept of it, and what happens when the bytes are the wrong ones.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use headlight_tests::page::{SOON, by_id, text_of};
use serde_json::{Value, json};
use xtask::browser::{Browser, BrowserOptions};
use xtask::models::SMOLLM2;
use xtask::paths;
use xtask::server::{Asked, Serving, serve_dir};

/// Loads a model; gives its sha256, or the error's code.
const LOAD: &str = "window.loadModel = (model) => headlight.load({model, backend: 'cpu'}).then(({sha256}) => sha256, ({code}) => code)";
/// What is kept of models, each with its length and sha256.
const KEPT: &str = "(async () => { \
    const cache = await caches.open('headlight-models-1'); \
    return Promise.all((await cache.keys()).map(async (key) => { \
        const bytes = await (await cache.match(key)).arrayBuffer(); \
        const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)); \
        const sha256 = [...hash].map((byte) => byte.toString(16).padStart(2, '0')).join(''); \
        return {is_named: key.url.endsWith(sha256), n_bytes: bytes.byteLength}; })); })()";
/// Changes the last byte of what is kept.
const DAMAGE: &str = "(async () => { \
    const cache = await caches.open('headlight-models-1'); \
    const [key] = await cache.keys(); \
    const bytes = new Uint8Array(await (await cache.match(key)).arrayBuffer()); \
    bytes[bytes.length - 1] ^= 1; \
    await cache.put(key, new Response(bytes)); })()";

/// The page of a folder, and what is asked of its server.
async fn open(folder: &Path) -> anyhow::Result<(Browser, Asked)> {
    let asked = Asked::default();
    let address = serve_dir(folder, Serving { asked: asked.clone(), ..Serving::default() }).await?;
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("http://{address}/index.html")).await?;
    browser.wait_until("!!window.headlight", SOON).await?;
    browser.eval("headlight.ready").await?;
    browser.eval(LOAD).await?;
    Ok((browser, asked))
}

fn n_downloads(asked: &Asked) -> usize {
    let asked = asked.lock().expect("nobody panics while noting a path");
    asked.iter().filter(|path| path.ends_with(SMOLLM2)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_read_again_and_what_is_damaged_is_fetched_anew() -> anyhow::Result<()> {
    let (browser, asked) = open(&paths::dist()).await?;
    let sha256 = browser.eval("loadModel('smollm2-135m')").await?;
    ensure!(sha256.as_str().is_some_and(|sha256| sha256.len() == 64), "{sha256}");
    let n_bytes = std::fs::metadata(xtask::models::smollm2_path())?.len();
    let kept = json!([{"is_named": true, "n_bytes": n_bytes}]);
    ensure!(browser.eval(KEPT).await? == kept && n_downloads(&asked) == 1);
    let memory = "headlight.bench({prefill: [8], repeats: 1}).then(({memory_bytes}) => memory_bytes)";
    let first = browser.eval(memory).await?.as_f64().unwrap_or(f64::NAN);
    // The weights take 112 MB; the file's 98 MB are never beside them, nor another model's weights.
    ensure!(first < 180e6, "{first} bytes");
    let other = browser.eval("loadModel('induction-2l')").await?;
    ensure!(other != sha256);
    ensure!(browser.eval("loadModel('smollm2-135m')").await? == sha256);
    ensure!(browser.eval("loadModel('smollm2-135m')").await? == sha256);
    ensure!(n_downloads(&asked) == 1, "read from what is kept");
    let again = browser.eval(memory).await?.as_f64().unwrap_or(f64::NAN);
    // Nor are its own weights of the time before: twice 112 MB, and what else an engine takes.
    ensure!(again < 224e6, "{again} bytes");
    browser.eval(DAMAGE).await?;
    ensure!(browser.eval("loadModel('smollm2-135m')").await? == sha256);
    ensure!(n_downloads(&asked) == 2, "fetched anew");
    ensure!(browser.eval(KEPT).await? == kept, "{}", browser.eval(KEPT).await?);
    browser.close().await
}

/// The page with another file in the place of one of its models'.
fn spoilt_copy(of: &Path, name: &str, file: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let copy = std::env::temp_dir().join(format!("headlight-{name}-{}", std::process::id()));
    for folder in ["", "models", "models/induction-2l", "worker"] {
        std::fs::create_dir_all(copy.join(folder))?;
        for entry in std::fs::read_dir(of.join(folder))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), copy.join(folder).join(entry.file_name()))?;
            }
        }
    }
    std::fs::write(copy.join("models").join(file), bytes)?;
    Ok(copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_a_wrong_checksum_is_neither_loaded_nor_kept() -> anyhow::Result<()> {
    let mut bytes = std::fs::read(xtask::models::smollm2_path())?;
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    let folder = spoilt_copy(&paths::dist(), "wrong-checksum", SMOLLM2, &bytes)?;
    let (browser, asked) = open(&folder).await?;
    let run = "headlight.run({text: 'A B A'}).then(({provenance}) => provenance.model)";
    let before = browser.eval(run).await?;
    // After the first address the hub is tried, which nothing here answers for.
    let code = browser.eval("loadModel('smollm2-135m')").await?;
    ensure!(code == "download" || code == "checksum", "{code}");
    ensure!(n_downloads(&asked) == 1);
    ensure!(browser.eval(KEPT).await? == json!([]), "{}", browser.eval(KEPT).await?);
    ensure!(before != Value::Null && browser.eval(run).await? == before, "the model before answers");
    browser.close().await?;
    Ok(std::fs::remove_dir_all(folder)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_not_the_known_ones_are_not_passed_off_as_right() -> anyhow::Result<()> {
    let title = format!("{}.title", by_id("engine-badge"));
    let (browser, _) = open(&paths::dist()).await?;
    let why = browser.eval(&title).await?;
    ensure!(why.as_str().is_some_and(|why| why.contains("from known ones")), "{why}");
    ensure!(text_of(&browser, "error-banner").await?.is_empty());
    browser.close().await?;
    // Half of the weights 0: a model that runs, and another one.
    let file = "induction-2l/model.safetensors";
    let mut bytes = std::fs::read(paths::dist().join("models").join(file))?;
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0);
    let folder = spoilt_copy(&paths::dist(), "wrong-numbers", file, &bytes)?;
    let (browser, _) = open(&folder).await?;
    browser.wait_until(&format!("{} !== null", by_id("error-banner")), SOON).await?;
    let told = text_of(&browser, "error-banner").await?;
    ensure!(told.contains("computes other numbers than it should"), "{told}");
    // Also once the banner is gone.
    let why = browser.eval(&title).await?;
    ensure!(why.as_str().is_some_and(|why| why.contains("in a self-test logits differ by at most")), "{why}");
    // What it computes can be looked at all the same.
    browser.wait_until(&format!("{} !== null", by_id("next-token-0")), SOON).await?;
    browser.close().await?;
    Ok(std::fs::remove_dir_all(folder)?)
}
