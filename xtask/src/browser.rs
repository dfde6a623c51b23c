//! A headless Chromium under WebDriver, in a profile of its own: for browser tests and benchmarks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fantoccini::elements::{Element, ElementRef};
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::shell::find_program;

/// Chromium or Chrome, if there is one.
pub fn find_chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
        .into_iter()
        .find_map(find_program)
}

/// Chromium makes no window narrower than this; a phone is emulated instead.
const MIN_WINDOW_WIDTH: u32 = 500;

/// How the browser starts.
#[derive(Clone, Copy, Debug)]
pub struct BrowserOptions {
    /// Window width in CSS pixels.
    pub width: u32,
    /// Window height in CSS pixels.
    pub height: u32,
    /// Whether the page sees `prefers-color-scheme: dark`.
    pub dark: bool,
    /// Whether it has WebGPU, on a software adapter.
    pub software_gpu: bool,
    /// Whether kernels find in workgroup memory what was left there. Chromium sets it to 0 first, which the software adapter unrolls:
    /// compiling takes twenty times as long. The kernels need none of it; natively they run without it too.
    pub leaves_workgroups: bool,
}

impl BrowserOptions {
    /// A desktop window, light, without WebGPU.
    pub const DEFAULT: Self =
        Self { width: 1440, height: 900, dark: false, software_gpu: false, leaves_workgroups: false };
}

impl Default for BrowserOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A running browser.
pub struct Browser {
    /// The WebDriver session.
    pub client: Client,
    driver: Child,
    profile: PathBuf,
}

impl Browser {
    /// Starts chromedriver and a browser.
    pub async fn start(options: BrowserOptions) -> anyhow::Result<Self> {
        let driver_path =
            find_program("chromedriver").context("there is no chromedriver; run cargo xtask setup")?;
        let chromium = find_chromium().context("there is no Chromium; run cargo xtask setup")?;
        let port = free_port()?;
        let driver = Command::new(driver_path)
            .args([format!("--port={port}"), "--log-level=SEVERE".to_owned()])
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("chromedriver cannot be started")?;
        let profile = std::env::temp_dir().join(format!("headlight-browser-{}-{port}", std::process::id()));
        let capabilities = capabilities(&chromium, &profile, options);
        let address = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + Duration::from_secs(60);
        let client = loop {
            match ClientBuilder::new(http_connector())
                .capabilities(capabilities.clone())
                .connect(&address)
                .await
            {
                Ok(client) => break client,
                Err(error) if Instant::now() > deadline => bail!("no browser session: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        let minutes = Duration::from_secs(600);
        let timeouts = fantoccini::wd::TimeoutConfiguration::new(Some(minutes), Some(minutes), None);
        client.update_timeouts(timeouts).await?;
        Ok(Self { client, driver, profile })
    }

    /// Runs an expression that may be a promise, and gives what it resolves to; a rejection is an error.
    pub async fn eval(&self, expression: &str) -> anyhow::Result<Value> {
        let script = format!(
            "const done = arguments[arguments.length - 1]; (async () => ({expression}))().then(\
             value => done({{value: value === undefined ? null : value}}), \
             error => done({{error: String(error && error.message || error), code: error && error.code || null}}));"
        );
        let answer = self.client.execute_async(&script, Vec::new()).await;
        let mut answer = answer.with_context(|| format!("no answer to {expression}"))?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            bail!("{error} (code {})", answer["code"]);
        }
        Ok(answer["value"].take())
    }

    /// Waits until an expression is truthy; fails after the time limit with its last value.
    pub async fn wait_until(&self, expression: &str, limit: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let value = self.eval(expression).await?;
            let truthy =
                !matches!(value, Value::Null | Value::Bool(false)) && value != json!("") && value != json!(0);
            if truthy {
                return Ok(value);
            }
            if Instant::now() > deadline {
                bail!("still {value} after {limit:?}: {expression}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Goes into the frame that an expression gives; further calls are about what is in it.
    pub async fn enter_frame(&self, frame: &str) -> anyhow::Result<()> {
        let found = self.client.execute(&format!("return {frame};"), Vec::new()).await?;
        // The name that the WebDriver standard gives to references to elements.
        let id = found["element-6066-11e4-a52e-4f735466cecf"].as_str();
        let id = id.with_context(|| format!("{frame} gives no frame but {found}"))?.to_owned();
        Ok(Element::from_element_id(self.client.clone(), ElementRef::from(id)).enter_frame().await?)
    }

    /// Goes back to the page that holds the frame.
    pub async fn leave_frame(&self) -> anyhow::Result<()> {
        Ok(self.client.enter_parent_frame().await?)
    }

    /// Types into an element, as a keyboard does.
    pub async fn press(&self, css: &str, keys: &str) -> anyhow::Result<()> {
        Ok(self.client.find(Locator::Css(css)).await?.send_keys(keys).await?)
    }

    /// Presses the pointer on an element.
    pub async fn click(&self, css: &str) -> anyhow::Result<()> {
        Ok(self.client.find(Locator::Css(css)).await?.click().await?)
    }

    /// Writes a PNG of the window.
    pub async fn screenshot(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, self.client.screenshot().await?)?;
        Ok(())
    }

    /// Ends the browser and deletes its profile.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.client.close().await?;
        self.driver.kill().await?;
        let _ = std::fs::remove_dir_all(&self.profile);
        Ok(())
    }
}

type Connector = hyper_util::client::legacy::connect::HttpConnector;

fn http_connector() -> Connector {
    Connector::new()
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}

fn capabilities(chromium: &Path, profile: &Path, options: BrowserOptions) -> serde_json::Map<String, Value> {
    let mut arguments: Vec<String> = [
        "--headless=new",
        "--no-sandbox",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--force-device-scale-factor=1",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--window-size={},{}", options.width, options.height));
    arguments.push(format!("--user-data-dir={}", profile.display()));
    if options.software_gpu {
        arguments.extend(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"].map(str::to_owned));
    }
    if options.leaves_workgroups {
        arguments.push("--enable-dawn-features=disable_workgroup_init".to_owned());
    }
    if options.dark {
        arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
    }
    let mut chrome = json!({ "binary": chromium, "args": arguments });
    if options.width < MIN_WINDOW_WIDTH {
        let metrics = json!({ "width": options.width, "height": options.height, "pixelRatio": 2.0 });
        chrome["mobileEmulation"] = json!({ "deviceMetrics": metrics });
    }
    let capabilities = json!({
        "goog:chromeOptions": chrome,
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    capabilities.as_object().cloned().unwrap_or_default()
}
