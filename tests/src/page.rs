//! What browser tests do with the built page: open it, type, click, read.

use std::time::Duration;

use headlight_app::link::Link;
use headlight_app::protocol::BackendChoice;
use serde_json::{Value, json};
use xtask::browser::{Browser, BrowserOptions};
use xtask::paths;
use xtask::server::{Serving, serve_dir};

/// What takes moments.
pub const SOON: Duration = Duration::from_secs(30);
/// What takes a large model.
pub const LONG: Duration = Duration::from_secs(240);

/// A browser; with a software adapter where the tests run on a graphics device, and then one that compiles quickly.
pub async fn start(options: BrowserOptions) -> anyhow::Result<Browser> {
    let leaves_workgroups = crate::is_on_web_gpu();
    let software_gpu = options.software_gpu || leaves_workgroups;
    Browser::start(BrowserOptions { software_gpu, leaves_workgroups, ..options }).await
}

/// The page under a sub-path of an ordinary static server, its bundled model loaded on the backend of these tests.
pub async fn open(options: BrowserOptions) -> anyhow::Result<Browser> {
    let serving = Serving { sub_path: "/course/week-3/".to_owned(), ..Serving::default() };
    let address = serve_dir(&paths::dist(), serving).await?;
    let browser = start(options).await?;
    browser.client.goto(&format!("http://{address}/course/week-3/index.html")).await?;
    browser.wait_until("!!window.headlight", SOON).await?;
    browser.eval("window.headlight.ready").await?;
    if crate::is_on_web_gpu() {
        choose(&browser, "backend-choice", "WebGPU").await?;
    }
    wait_for_numbers(&browser).await?;
    Ok(browser)
}

/// A view of the bundled model that asks for the backend of these tests.
pub fn link() -> Link {
    let backend = if crate::is_on_web_gpu() { BackendChoice::Webgpu } else { BackendChoice::default() };
    Link { backend, ..Link::default() }
}

/// What stands behind an address for the page to open on the backend of these tests: nothing on the CPU.
pub fn fragment() -> String {
    if crate::is_on_web_gpu() { format!("#{}", link().encode()) } else { String::new() }
}

/// Whether a report's numbers come from the backend of these tests.
pub fn is_ours(report: &Value) -> bool {
    let engine = report["provenance"]["engine"].as_str();
    engine.is_some_and(|engine| engine.starts_with(engine_name()))
}

fn engine_name() -> &'static str {
    if crate::is_on_web_gpu() { "webgpu-f32" } else { "cpu-f32" }
}

/// Waits until the page, or the frame that was entered, shows next tokens that the backend of these tests computed, and computes no
/// others. Another engine's, shown before or in its place, do not count.
pub async fn wait_for_numbers(browser: &Browser) -> anyhow::Result<()> {
    let engine = engine_name();
    let runs = format!("[aria-busy=false] [data-testid=runs][data-engine^={engine}]");
    let shown = browser.wait_until(&format!("document.querySelector('{runs}') !== null"), LONG).await;
    if let Err(error) = shown {
        let badge = browser.eval(&format!("{}?.title", by_id("engine-badge"))).await?;
        return Err(error.context(format!("no numbers of {engine}; the badge says {badge}")));
    }
    Ok(())
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

/// Clicks an element, once it is there and can be clicked.
pub async fn click(browser: &Browser, id: &str) -> anyhow::Result<()> {
    let element = by_id(id);
    browser.wait_until(&format!("{element} !== null && !{element}.disabled"), SOON).await?;
    browser.eval(&format!("{element}.click()")).await.map(|_| ())
}

/// An element's text; empty where there is none.
pub async fn text_of(browser: &Browser, id: &str) -> anyhow::Result<String> {
    let value = browser.eval(&format!("{0} ? {0}.textContent : ''", by_id(id))).await?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}
