//! Views on one page that share an engine, in a real Chromium: how many engines there are, that each view stays its own, and what
//! becomes of the others when one goes or the engine crashes.

use std::time::Instant;

use anyhow::ensure;
use headlight_tests::host::{Host, STRICT, document, host};
use headlight_tests::page::{self, LONG, SOON, is_ours};
use serde_json::Value;
use xtask::browser::{Browser, BrowserOptions};

/// The engine's program, and the bundled model's weights.
const WEIGHTS: &str = "induction-2l/model.safetensors";
const SMOLLM2: &str = ".gguf";

/// Engines that were started: one program each, of whichever build.
fn n_engines(host: &Host) -> usize {
    host.n_asked("headlight-worker_bg.wasm") + host.n_asked("headlight-worker-relaxed_bg.wasm")
}

/// Two views of one model; `more` are attributes of both.
async fn two_views(name: &str, more: &str) -> anyhow::Result<(Host, Browser)> {
    let link = page::fragment();
    let view = |id: &str| {
        format!(
            "<headlight-view id={id} src=\"PAGE\" link=\"{link}\" title={id} plots=0 height=300 {more}></headlight-view>"
        )
    };
    let body = view("one") + &view("two");
    let host = host(name, STRICT, &[("index.html", document(&body))]).await?;
    let browser = page::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    browser.wait_until("customElements.get('headlight-view') !== undefined", SOON).await?;
    Ok((host, browser))
}

/// Calls a method of both views at the same time.
async fn both(browser: &Browser, call: &str) -> anyhow::Result<Value> {
    let script = format!("Promise.all(['one', 'two'].map((id) => document.getElementById(id).{call}))");
    browser.eval(&script).await
}

/// Frames of the page itself that nobody sees: its engines.
const ENGINES: &str = "document.querySelectorAll('html > iframe[hidden]').length";

#[tokio::test(flavor = "multi_thread")]
async fn two_views_have_one_engine_and_load_a_model_once() -> anyhow::Result<()> {
    let (host, browser) = two_views("one-engine", "").await?;
    let infos = both(&browser, "ready()").await?;
    ensure!(infos[0]["n_layers"] == 2 && infos[0] == infos[1], "{infos}");
    ensure!(n_engines(&host) == 1 && host.n_asked(WEIGHTS) == 1, "{:?}", host.asked);
    ensure!(browser.eval(ENGINES).await? == 1);

    // Each view is its own: state, prompt, what is asked at the same time with the same numbers of its requests.
    browser.eval("document.getElementById('one').setState({prompt: 'Q7 K2 Q7', head: 'L0H1'})").await?;
    ensure!(browser.eval("document.getElementById('two').state()").await? == page::link().to_value());
    let runs = "Promise.all([
        document.getElementById('one').run({text: 'A B C A B', interventions: [{kind: 'zero', heads: ['L1H0']}]}),
        document.getElementById('two').run({text: 'A B C A B'}),
        document.getElementById('one').run({text: 'A B C A B'}),
    ])";
    let runs = browser.eval(runs).await?;
    ensure!(runs[1] == runs[2] && runs[0]["logits_top"] != runs[1]["logits_top"], "{runs}");
    ensure!(is_ours(&runs[0]) && is_ours(&runs[1]), "{runs}");

    // Another model in one of them is not the other's; back again, the other has it still.
    browser.eval("document.getElementById('two').load({model: 'successor-2l'})").await?;
    let kept = browser.eval("document.getElementById('one').run({text: 'A B C A B'})").await?;
    ensure!(kept["provenance"]["model"] == runs[1]["provenance"]["model"], "{kept}");
    browser.eval("document.getElementById('two').load({model: 'induction-2l'})").await?;
    ensure!(host.n_asked(WEIGHTS) == 1, "fetched again: {:?}", host.asked);

    // The first goes, the second stays; the last takes the engine along.
    browser.eval("document.getElementById('one').remove()").await?;
    let run = browser.eval("document.getElementById('two').run({text: 'A B C A B'})").await?;
    ensure!(run == runs[1], "{run}");
    ensure!(browser.eval(ENGINES).await? == 1);
    browser.eval("(window.two = document.getElementById('two'), two.remove())").await?;
    ensure!(browser.eval(ENGINES).await? == 0);
    // Put back, it computes again.
    browser.eval("(document.body.append(two), true)").await?;
    let run = browser.eval("two.ready().then(() => two.run({text: 'A B C A B'}))").await?;
    ensure!(run == runs[1] && n_engines(&host) == 2, "{run}");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_want_engines_of_their_own_have_them() -> anyhow::Result<()> {
    let (host, browser) = two_views("own-engines", "engine=own").await?;
    both(&browser, "ready()").await?;
    ensure!(n_engines(&host) == 2 && host.n_asked(WEIGHTS) == 2, "{:?}", host.asked);
    ensure!(browser.eval(ENGINES).await? == 0);
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_shared_engine_is_told_in_every_view_and_all_go_on() -> anyhow::Result<()> {
    let (host, browser) = two_views("crash", "").await?;
    both(&browser, "ready()").await?;
    let before = browser.eval("document.getElementById('two').run({text: 'A B C A B'})").await?;
    ensure!(is_ours(&before), "{before}");
    browser.enter_frame("document.getElementById('one').shadowRoot.querySelector('iframe')").await?;
    browser.eval("headlight.debug.crash()").await?;
    browser.leave_frame().await?;
    for id in ["one", "two"] {
        browser
            .enter_frame(&format!("document.getElementById('{id}').shadowRoot.querySelector('iframe')"))
            .await?;
        let told = "document.querySelector('[data-testid=error-banner]')?.textContent.includes('crashed')";
        browser.wait_until(told, SOON).await?;
        browser
            .wait_until(
                "headlight.run({text: 'A B A'}).then((report) => report.ids.length, () => null)",
                LONG,
            )
            .await?;
        browser.leave_frame().await?;
    }
    let after = browser.eval("document.getElementById('two').run({text: 'A B C A B'})").await?;
    ensure!(after == before, "{after}");
    ensure!(n_engines(&host) == 2 && browser.eval(ENGINES).await? == 1, "{:?}", host.asked);
    browser.close().await
}

/// Nobody but the parent can give a view an engine, whatever it promises.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_whose_host_shares_nothing_has_an_engine_of_its_own() -> anyhow::Result<()> {
    let body = "<iframe id=view src=\"PAGE?embed=1&engine=host\" width=600 height=400 title=view sandbox=allow-scripts></iframe>\
                <iframe src=\"stranger.html\"></iframe>";
    let stranger = "setInterval(() => { for (const engine of ['wait', 'here', 'lost']) parent.frames[0].postMessage(\
                    {headlight: 1, engine}, '*', [new MessageChannel().port1]); }, 20);";
    let files = [
        ("index.html", document(body)),
        ("stranger.html", "<!doctype html><script src=\"stranger.js\"></script>".to_owned()),
        ("stranger.js", stranger.to_owned()),
    ];
    let host = host("no-offer", "default-src 'self'; frame-src 'self' PAGE", &files).await?;
    let browser = page::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    browser.wait_until("heard.find((said) => said.event === 'ready')", LONG).await?;
    ensure!(n_engines(&host) == 1, "{:?}", host.asked);
    browser.close().await
}

/// The view that loads is taken at its word when it stops; the other, which waited for it, loads instead.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_view_of_smollm2_stops_goes_on_in_the_other() -> anyhow::Result<()> {
    let (host, browser) = two_views("stops", "").await?;
    both(&browser, "ready()").await?;
    let loads = "(async () => {
        const [one, two] = ['one', 'two'].map((id) => document.getElementById(id));
        const loads = [one.load({model: 'smollm2-135m'}).catch((error) => error.code), two.load({model: 'smollm2-135m'})];
        // Once the first is at it.
        await new Promise((resolve) => setTimeout(resolve, 150));
        await one.cancel();
        const [stopped, info] = await Promise.all(loads);
        return [stopped, info.n_layers, (await one.run({text: 'A B A'})).provenance.model];
    })()";
    let loads = browser.eval(loads).await?;
    ensure!(loads[0] == "cancelled" && loads[1] == 30, "{loads}");
    ensure!(loads[2] == "induction-2l", "the view that stopped keeps its model: {loads}");
    ensure!(n_engines(&host) == 1);
    browser.close().await
}

/// What two views of SmolLM2 cost, with one engine and with two: printed, and less with one.
#[tokio::test(flavor = "multi_thread")]
async fn two_views_of_smollm2_share_its_memory_and_its_download() -> anyhow::Result<()> {
    let mut costs = Vec::new();
    for (name, more) in [("smollm2-shared", ""), ("smollm2-own", "engine=own")] {
        let (host, browser) = two_views(name, more).await?;
        both(&browser, "ready()").await?;
        let start = Instant::now();
        both(&browser, "load({model: 'smollm2-135m'})").await?;
        let seconds = start.elapsed().as_secs_f64();
        let benches = both(&browser, "bench({prefill: [8], repeats: 1})").await?;
        let bytes = [0, 1].map(|view: usize| benches[view]["memory_bytes"].as_f64().unwrap_or(f64::NAN));
        // One engine tells both of its memory.
        let all_bytes = if more.is_empty() { bytes[0].max(bytes[1]) } else { bytes[0] + bytes[1] };
        let n_downloads = host.n_asked(SMOLLM2);
        eprintln!(
            "two views of SmolLM2{}: {n_downloads} downloads, {seconds:.1} s, {:.0} MB",
            if more.is_empty() { ", one engine" } else { ", an engine each" },
            all_bytes / 1e6
        );
        costs.push((n_downloads, all_bytes));
        browser.close().await?;
    }
    ensure!(costs[0].0 == 1 && costs[1].0 == 2, "downloads: {costs:?}");
    ensure!(costs[0].1 < 0.6 * costs[1].1, "memory: {costs:?}");
    // The weights take 112 MB, and the file's 98 MB are never beside them.
    ensure!(costs[0].1 < 180e6, "memory: {costs:?}");
    Ok(())
}
