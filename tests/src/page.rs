//! What browser tests do with the built page: open it, type, click, read.

use std::time::Duration;

use serde_json::json;
use xtask::browser::{Browser, BrowserOptions};
use xtask::paths;
use xtask::server::{Serving, serve_dir};

/// What takes moments.
pub const SOON: Duration = Duration::from_secs(30);
/// What takes a large model.
pub const LONG: Duration = Duration::from_secs(240);

/// The page under a sub-path of an ordinary static server, its bundled model loaded; on a software adapter where the tests run on a
/// graphics device.
pub async fn open(options: BrowserOptions) -> anyhow::Result<Browser> {
    let on_gpu = crate::is_on_web_gpu();
    let options = BrowserOptions { software_gpu: options.software_gpu || on_gpu, ..options };
    let serving = Serving { sub_path: "/course/week-3/".to_owned(), ..Serving::default() };
    let address = serve_dir(&paths::dist(), serving).await?;
    let browser = Browser::start(options).await?;
    browser.client.goto(&format!("http://{address}/course/week-3/index.html")).await?;
    browser.wait_until("!!window.headlight", SOON).await?;
    browser.eval("window.headlight.ready").await?;
    browser.wait_until("document.querySelector('[data-testid=\"next-token-0\"]') !== null", SOON).await?;
    if on_gpu {
        choose(&browser, "backend-choice", "WebGPU").await?;
        let badge = by_id("engine-badge");
        browser.wait_until(&format!("{badge}.title.includes('webgpu-f32')"), LONG).await?;
        browser.wait_until("document.querySelector('[data-testid=\"next-token-0\"]') !== null", SOON).await?;
    }
    Ok(browser)
}

/// Replaces the prompt as typing does.
pub async fn type_prompt(browser: &Browser, text: &str) -> anyhow::Result<()> {
    let script = format!(
        "(() => {{ const area = document.querySelector('[data-testid=\"prompt\"]'); area.value = {}; \
         area.dispatchEvent(new Event('input', {{bubbles: true}})); return true; }})()",
        json!(text)
    );
    browser.eval(&script).await.map(|_| ())
}

/// Takes an option of a select.
pub async fn choose(browser: &Browser, id: &str, value: &str) -> anyhow::Result<()> {
    let script = format!(
        "(() => {{ const select = {}; select.value = {}; \
         select.dispatchEvent(new Event('change', {{bubbles: true}})); return true; }})()",
        by_id(id),
        json!(value)
    );
    browser.eval(&script).await.map(|_| ())
}

/// The element with a `data-testid`, as an expression.
pub fn by_id(id: &str) -> String {
    format!("document.querySelector('[data-testid=\"{id}\"]')")
}

/// Clicks an element, once it is there.
pub async fn click(browser: &Browser, id: &str) -> anyhow::Result<()> {
    let element = by_id(id);
    browser.wait_until(&format!("{element} !== null"), SOON).await?;
    browser.eval(&format!("{element}.click()")).await.map(|_| ())
}

/// An element's text; empty where there is none.
pub async fn text_of(browser: &Browser, id: &str) -> anyhow::Result<String> {
    let value = browser.eval(&format!("{0} ? {0}.textContent : ''", by_id(id))).await?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}
