//! The page inside other pages, in a real Chromium: sandboxed frames of another origin, under a strict policy, steered by
//! messages, attacked by them; assignments; the dialog that writes what is pasted.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use headlight_app::link::Link;
use headlight_core::ids::HeadId;
use headlight_tests::host::{STRICT, document, host, host_of};
use headlight_tests::page::{self, LONG, SOON, by_id, is_ours, wait_for_numbers};
use serde_json::{Value, json};
use xtask::browser::{Browser, BrowserOptions};
use xtask::paths;
use xtask::server::Readers;

/// Nothing more happens within this.
const QUIET: Duration = Duration::from_millis(1500);
/// What the documentation has people write.
const SANDBOX: &str = "allow-scripts";

/// A view that holds L1H0, on the backend of these tests.
fn held() -> Link {
    Link { head: Some(HeadId::new(1, 0)), ..page::link() }
}

fn frame(id: &str, query: &str, size: (&str, &str)) -> String {
    let (width, height) = size;
    format!(
        "<iframe id={id} src=\"PAGE?{query}\" width={width} height={height} title=view sandbox=\"{SANDBOX}\"></iframe>"
    )
}

async fn hears(browser: &Browser, event: &str) -> anyhow::Result<Value> {
    browser.wait_until(&format!("heard.find((said) => said.event === '{event}')"), LONG).await
}

fn artifact(name: &str) -> PathBuf {
    paths::artifacts().join(name)
}

/// No panic and no error of ours in the frame that is entered.
async fn is_sound(browser: &Browser) -> anyhow::Result<()> {
    let banner = browser.eval(&format!("{0} && {0}.textContent", by_id("error-banner"))).await?;
    ensure!(banner.is_null(), "{banner}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxed_frame_under_a_strict_policy_runs_the_model_and_leaves_its_host_alone()
-> anyhow::Result<()> {
    let tall = "<p>text</p>".repeat(200);
    let body = format!(
        "<input id=own autofocus>{}{tall}",
        frame("view", &format!("embed=1&plots=0#{}", held().encode()), ("700", "900"))
    );
    let host = host("strict", STRICT, &[("index.html", document(&body))]).await?;
    let browser = page::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    browser.wait_until("document.activeElement.id === 'own'", SOON).await?;
    browser.eval("scrollTo(0, 120)").await?;
    let before = browser.eval("[location.href, history.length, scrollY, document.title]").await?;
    let ready = hears(&browser, "ready").await?;
    ensure!(ready["origin"] == "null", "an opaque origin: {ready}");
    ensure!(ready["value"]["n_layers"] == 2, "{ready}");
    let height = hears(&browser, "resize").await?["value"]["height"].as_f64().unwrap_or(0.0);
    ensure!(height > 20.0, "a height of {height}");
    browser.enter_frame("document.getElementById('view')").await?;
    ensure!(browser.eval("window.origin").await? == "null");
    for missing in ["localStorage", "caches.keys()", "navigator.serviceWorker.getRegistrations()"] {
        ensure!(browser.eval(missing).await.is_err(), "the sandbox has no {missing}");
    }
    ensure!(browser.eval("crossOriginIsolated").await? == false);
    wait_for_numbers(&browser).await?;
    // The link's head is held, and what the frame is not to show is not there.
    browser
        .wait_until(&format!("{}.getAttribute('aria-selected') === 'true'", by_id("head-L1H0")), SOON)
        .await?;
    ensure!(browser.eval("document.querySelector('.foot, .tagline') === null").await? == true);
    ensure!(
        browser.eval("!document.querySelector('[aria-labelledby=layers-title]')?.checkVisibility()").await?
            == true
    );
    let open = browser.eval(&format!("[{0}.href, {0}.rel, {0}.target]", by_id("embed-open"))).await?;
    ensure!(open[0] == format!("{}#{}", host.page, held().encode()), "{open}");
    ensure!(open[1] == "noopener" && open[2] == "_blank", "{open}");
    // Look, edit: all of it works in there.
    browser.eval(&format!("{}.click()", by_id("ablate"))).await?;
    browser.wait_until(&format!("{} !== null", by_id("kl-nats")), SOON).await?;
    wait_for_numbers(&browser).await?;
    is_sound(&browser).await?;
    browser.leave_frame().await?;
    let after = browser.eval("[location.href, history.length, scrollY, document.title]").await?;
    ensure!(after == before, "the host was {before}, is {after}");
    ensure!(browser.eval("document.activeElement.id").await? == "own", "the focus was taken");
    browser.eval("scrollTo(0, 0)").await?;
    browser.screenshot(&artifact("embed-700.png")).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_answers_its_parent_by_id_and_nobody_else() -> anyhow::Result<()> {
    let stranger = "addEventListener('load', () => { setInterval(() => { const view = parent.frames[0]; \
                    view.postMessage({headlight: 1, id: 900, method: 'setState', args: [{prompt: 'hacked'}]}, '*'); \
                    }, 50); });";
    let body = [
        frame("view", &format!("embed=1{}", page::fragment()), ("600", "600")),
        frame("elsewhere", "embed=1&start=click&origins=https://elsewhere.example", ("100", "100")),
        "<iframe src=\"stranger.html\"></iframe>".to_owned(),
    ]
    .concat();
    let files = [
        ("index.html", document(&body)),
        ("stranger.html", "<!doctype html><script src=\"stranger.js\"></script>".to_owned()),
        ("stranger.js", stranger.to_owned()),
    ];
    let host = host("messages", "default-src 'self'; frame-src 'self' PAGE", &files).await?;
    let browser = page::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    hears(&browser, "ready").await?;
    browser.eval("window.view = document.getElementById('view')").await.ok();
    let call = async |id: &str, method: &str, args: &str| {
        browser.eval(&format!("call(document.getElementById('view'), {id}, {method}, {args})")).await
    };
    let run = call("7", "'run'", "[{text: 'A B C A B', top: 3}]").await?;
    ensure!(run["ok"] == true && run["id"] == 7 && is_ours(&run["value"]), "{run}");
    ensure!(run["value"]["logits_top"].as_array().map(Vec::len) == Some(3), "{run}");
    let set = call("'two'", "'setState'", "[{prompt: 'Q7 K2 Q7', head: 'L0H1'}]").await?;
    ensure!(set["ok"] == true && set["value"]["prompt"] == "Q7 K2 Q7", "{set}");
    browser
        .wait_until("heard.some((said) => said.event === 'state' && said.value.prompt === 'Q7 K2 Q7')", SOON)
        .await?;
    browser.wait_until("heard.some((said) => said.event === 'view')", SOON).await?;
    let link = call("8", "'link'", "[]").await?;
    ensure!(
        link["value"].as_str().is_some_and(|url| url.starts_with(&format!("{}#1.", host.page))),
        "{link}"
    );
    // Nonsense is refused, one by one, and the frame lives on.
    let hostile = [
        ("'__proto__'", "[]", "unknown_method"),
        ("'constructor'", "[]", "unknown_method"),
        ("'debug'", "[]", "unknown_method"),
        ("'toString'", "[]", "unknown_method"),
        ("{}", "[]", "unknown_method"),
        ("'run'", "'text'", "bad_request"),
        ("'run'", "[1, 2, 3]", "bad_request"),
        ("'run'", "[{text: 7}]", "bad_request"),
        ("'run'", "[(() => { const a = []; a.push(a, a); return a; })()]", "bad_request"),
        ("'run'", "[{text: 'x'.repeat(2000000)}]", "bad_request"),
        (
            "'run'",
            "[(() => { let a = 1; for (let i = 0; i < 400; i++) a = [a]; return a; })()]",
            "bad_request",
        ),
        (
            "'run'",
            "[(() => { let a = 1; for (let i = 0; i < 30; i++) a = [a, a]; return a; })()]",
            "bad_request",
        ),
        ("'setState'", "[{prompt: 5}]", "bad_request"),
        ("'setState'", "[{unknown: 5}]", "bad_request"),
        ("'setState'", "[null]", "bad_request"),
        ("'setState'", "[JSON.parse('{\"__proto__\": {\"polluted\": 1}}')]", "bad_request"),
        ("'load'", "[{model: 'no-such-model'}]", "bad_request"),
    ];
    for (index, (method, args, code)) in hostile.into_iter().enumerate() {
        let reply = call(&(100 + index).to_string(), method, args).await?;
        ensure!(reply["ok"] == false && reply["error"]["code"] == code, "{method} {args}: {reply}");
    }
    for ignored in [
        "'text'",
        "null",
        "{headlight: 2, id: 1, method: 'state'}",
        "{headlight: 1, id: {}, method: 'state'}",
    ] {
        let script = format!("document.getElementById('view').contentWindow.postMessage({ignored}, '*')");
        browser.eval(&script).await?;
    }
    let state = call("9", "'state'", "[]").await?;
    // The stranger has shouted all the while.
    ensure!(state["value"]["prompt"] == "Q7 K2 Q7", "{state}");
    ensure!(browser.eval("replies[900] === undefined").await? == true);
    browser.enter_frame("document.getElementById('view')").await?;
    ensure!(browser.eval("({}).polluted === undefined").await? == true);
    browser.leave_frame().await?;
    // A frame that listens to other origins alone does not hear this one.
    let deaf = "document.getElementById('elsewhere').contentWindow.postMessage({headlight: 1, id: 901, method: 'state'}, '*')";
    browser.eval(deaf).await?;
    tokio::time::sleep(QUIET).await;
    ensure!(browser.eval("replies[901] === undefined").await? == true);
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_elements_on_one_page_load_when_seen_or_asked() -> anyhow::Result<()> {
    let far = "<p>text</p>".repeat(300);
    let body = format!(
        "<headlight-view id=one src=\"PAGE\" link=\"#{}\" title=One prompt=0 plots=0 readonly height=300></headlight-view>\
         <headlight-view id=two src=\"PAGE\" link=\"{}\" title=Two start=click height=200></headlight-view>{far}\
         <headlight-view id=three src=\"PAGE\" title=Three></headlight-view>",
        held().encode(),
        page::fragment()
    );
    let host = host("elements", STRICT, &[("index.html", document(&body))]).await?;
    let browser = page::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    let frame_of = |id: &str| format!("document.getElementById('{id}').shadowRoot.querySelector('iframe')");
    browser.wait_until(&format!("customElements.get('headlight-view') && {}", frame_of("one")), SOON).await?;
    let info = browser.eval("document.getElementById('one').ready()").await?;
    ensure!(info["n_heads"] == 4, "{info}");
    // Neither the one that waits for a click nor the one far below has a frame.
    ensure!(
        browser.eval(&format!("{} === null && {} === null", frame_of("two"), frame_of("three"))).await?
            == true
    );
    // Its height is its own, within bounds.
    browser.wait_until("document.getElementById('one').offsetHeight > 320", SOON).await?;
    let state = browser.eval("document.getElementById('one').state()").await?;
    ensure!(state == held().to_value(), "{state}");
    let report = browser.eval("document.getElementById('one').run({text: 'A B C A B'})").await?;
    ensure!(report["ids"].is_array() && is_ours(&report), "{report}");
    let refused = browser.eval("document.getElementById('one').setState({prompt: 1})").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("bad_request")));
    let heard = "new Promise((resolve) => { const two = document.getElementById('two'); \
                 two.addEventListener('headlight-ready', (event) => resolve(event.detail.n_layers), {once: true}); \
                 two.addEventListener('headlight-error', (event) => resolve(event.detail)); \
                 two.shadowRoot.querySelector('button').click(); })";
    let heard = browser.eval(heard).await?;
    ensure!(heard == 2, "{heard}");
    let both = "Promise.all(['one', 'two'].map((id) => document.getElementById(id).run({text: 'A B A'})))";
    let both = browser.eval(both).await?;
    ensure!([0, 1].iter().all(|&view: &usize| is_ours(&both[view])), "{both}");
    browser.enter_frame(&frame_of("one")).await?;
    ensure!(browser.eval(&format!("{}.checkVisibility()", by_id("prompt"))).await? == false);
    // Read-only: to look at.
    ensure!(browser.eval(&format!("{}.disabled", by_id("ablate"))).await? == true);
    browser
        .eval(&format!("{}.dispatchEvent(new MouseEvent('dblclick', {{bubbles: true}}))", by_id("head-L0H0")))
        .await?;
    browser.eval(&format!("{}.click()", by_id("head-L0H1"))).await?;
    browser.wait_until(&format!("{}.textContent.includes('L0H1')", by_id("inspector-title")), SOON).await?;
    ensure!(browser.eval("headlight.state()").await?["edits"].is_null());
    is_sound(&browser).await?;
    browser.leave_frame().await?;
    browser.screenshot(&artifact("embed-elements.png")).await?;
    // The far one loads when its reader comes near.
    browser.eval("scrollTo(0, document.body.scrollHeight)").await?;
    browser.wait_until(&format!("{} !== null", frame_of("three")), SOON).await?;
    // A page that is not there: told, with a link, after its time.
    let lost = "new Promise((resolve) => { const lost = document.createElement('headlight-view'); \
                lost.setAttribute('src', '/nowhere/'); lost.setAttribute('timeout', '1'); lost.title = 'Lost'; \
                lost.addEventListener('headlight-error', (event) => resolve(\
                [event.detail.code, lost.shadowRoot.querySelector('a').rel]), {once: true}); document.body.append(lost); })";
    ensure!(browser.eval(lost).await? == json!(["timeout", "noopener"]));
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_waits_loads_nothing_and_starts_by_keyboard() -> anyhow::Result<()> {
    let body = [
        frame("view", &format!("embed=1&start=click&theme=dark&plots=0{}", page::fragment()), ("320", "700")),
        frame("dot", "embed=1", ("1", "1")),
    ]
    .concat();
    let host = host("click", STRICT, &[("index.html", document(&body))]).await?;
    let browser = page::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    // The frame of one pixel works like any other.
    browser.wait_until("heard.filter((said) => said.event === 'hello').length === 2", SOON).await?;
    let dot = browser.eval("call(document.getElementById('dot'), 1, 'ready', [])").await?;
    ensure!(dot["ok"] == true, "{dot}");
    browser.enter_frame("document.getElementById('dot')").await?;
    browser.wait_until("headlight.run({text: 'A B A'}).then((report) => report.ids.length)", LONG).await?;
    is_sound(&browser).await?;
    browser.leave_frame().await?;
    let waits = browser.eval("call(document.getElementById('view'), 2, 'state', [])").await?;
    ensure!(waits["error"]["code"] == "not_started", "{waits}");
    browser.enter_frame("document.getElementById('view')").await?;
    browser.wait_until(&format!("{} !== null", by_id("embed-start")), SOON).await?;
    let loaded = "performance.getEntriesByType('resource').map((entry) => entry.name)\
                  .filter((name) => /worker|models\\//.test(name))";
    tokio::time::sleep(QUIET).await;
    ensure!(browser.eval(loaded).await? == json!([]), "loaded before the click");
    ensure!(browser.eval("window.headlight === undefined").await? == true);
    browser.leave_frame().await?;
    browser.screenshot(&artifact("embed-still-dark.png")).await?;
    browser.enter_frame("document.getElementById('view')").await?;
    browser.press("[data-testid=embed-start]", "\u{e007}").await?;
    wait_for_numbers(&browser).await?;
    ensure!(browser.eval("document.documentElement.dataset.theme").await? == "dark");
    // By keyboard alone: to a head, hold it, switch it off, and all on again.
    browser.press("[data-testid=head-L0H0]", "\u{e014}\u{e007}").await?;
    browser.wait_until("headlight.state().then((state) => state.head !== undefined)", SOON).await?;
    browser.press("[data-testid=head-L0H0]", "a").await?;
    browser.wait_until("headlight.state().then((state) => state.edits?.length > 0)", SOON).await?;
    browser.press("[data-testid=head-L0H0]", "0").await?;
    browser.wait_until("headlight.state().then((state) => state.edits === undefined)", SOON).await?;
    let overflow = browser.eval("document.documentElement.scrollWidth - innerWidth").await?;
    ensure!(overflow.as_f64().is_some_and(|px| px <= 0.0), "{overflow} px too wide at 320");
    browser.leave_frame().await?;
    browser.screenshot(&artifact("embed-320-dark.png")).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poster_stands_until_the_view_is_started_and_where_it_cannot_run() -> anyhow::Result<()> {
    let poster = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"64\" height=\"32\"><rect width=\"64\" \
                  height=\"32\" fill=\"teal\"/></svg>";
    let body = "<headlight-view id=view src=\"PAGE\" title=\"Heads at work\" start=click poster=\"poster.svg\" \
                height=300></headlight-view>\
                <headlight-view id=lost src=\"nowhere/\" title=Lost timeout=1 poster=\"poster.svg\" height=200>\
                </headlight-view>";
    let host =
        host("poster", STRICT, &[("index.html", document(body)), ("poster.svg", poster.to_owned())]).await?;
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    let inside =
        |id: &str, css: &str| format!("document.getElementById('{id}').shadowRoot.querySelector('{css}')");
    let is_drawn = |id: &str| {
        let image = inside(id, "img");
        format!("customElements.get('headlight-view') && {image}?.complete && {image}.naturalWidth === 64")
    };
    browser.wait_until(&is_drawn("view"), SOON).await?;
    ensure!(browser.eval(&format!("{}.alt", inside("view", "img"))).await? == "Heads at work");
    tokio::time::sleep(QUIET).await;
    ensure!(browser.eval(&format!("{} === null", inside("view", "iframe"))).await? == true, "loaded unasked");
    browser.screenshot(&artifact("embed-poster.png")).await?;
    browser.eval(&format!("{}.click()", inside("view", "button"))).await?;
    ensure!(browser.eval("document.getElementById('view').ready()").await?["n_layers"] == 2);
    ensure!(browser.eval(&format!("{} === null", inside("view", "img"))).await? == true, "the poster stayed");
    // One click is enough: the frame that it opened does not ask for another.
    browser.enter_frame(&inside("view", "iframe")).await?;
    browser.wait_until(&format!("{} !== null", by_id("next-token-0")), LONG).await?;
    browser.leave_frame().await?;
    // The one whose page is not there has its picture again, with the reason and a way on.
    browser.wait_until(&format!("{} !== null", inside("lost", "a")), SOON).await?;
    browser.wait_until(&is_drawn("lost"), SOON).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lets_nobody_read_its_files_is_told_of_in_the_frame() -> anyhow::Result<()> {
    let body = [
        frame("sandboxed", "embed=1", ("600", "400")),
        "<iframe id=plain src=\"PAGE?embed=1\" width=600 height=400 title=plain></iframe>".to_owned(),
    ]
    .concat();
    let host = host_of("closed", "", Readers::OwnOrigin, &[("index.html", document(&body))]).await?;
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/index.html", host.address)).await?;
    let told = "document.querySelector('.unreadable')";
    browser.enter_frame("document.getElementById('sandboxed')").await?;
    browser.wait_until(&format!("{told}.checkVisibility()"), SOON).await?;
    let text = browser.eval(&format!("{told}.textContent")).await?;
    ensure!(text.as_str().is_some_and(|text| text.contains("lets no other page read its files")), "{text}");
    let link =
        browser.eval(&format!("[{told}.querySelector('a').href, {told}.querySelector('a').rel]")).await?;
    ensure!(link == json!([host.page, "noopener"]), "{link}");
    browser.leave_frame().await?;
    browser.screenshot(&artifact("embed-closed.png")).await?;
    // Where the frame has its own origin the same files are its own, and nothing is told.
    browser.enter_frame("document.getElementById('plain')").await?;
    browser.wait_until(&format!("{} !== null", by_id("next-token-0")), LONG).await?;
    ensure!(browser.eval(&format!("({told})?.checkVisibility() ?? false")).await? == false);
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_example_works_from_another_origin() -> anyhow::Result<()> {
    let example = std::fs::read_to_string(paths::root().join("static/embed/examples/plain.html"))?;
    let example =
        example.replace("../headlight-view.js", "PAGEembed/headlight-view.js").replace("../../", "PAGE");
    let moodle = std::fs::read_to_string(paths::root().join("static/embed/examples/moodle.html"))?;
    let moodle = moodle.replace("https://YOUR-SITE/headlight/", "PAGE");
    let element = |name: &str| -> anyhow::Result<String> {
        let text = std::fs::read_to_string(paths::root().join("static/embed/examples").join(name))?;
        let from = text.find("<headlight-view").unwrap_or_default();
        let to = text.find("</headlight-view>").unwrap_or_default();
        Ok(text[from..to].to_owned() + "</headlight-view>")
    };
    // What Quarto, Jupyter Book and MkDocs make of their sources: the element, and the script from the page's own site.
    let mut made =
        String::from("<!doctype html><script type=module src=\"PAGEembed/headlight-view.js\"></script>");
    for name in ["quarto.qmd", "jupyter-book.md", "mkdocs.md"] {
        made.push_str(&element(name)?);
    }
    let files = [("plain.html", example), ("made.html", made), ("moodle.html", document(&moodle))];
    let host = host("examples", "", &files).await?;
    let browser = Browser::start(BrowserOptions::default()).await?;
    browser.client.goto(&format!("{}/plain.html", host.address)).await?;
    browser
        .wait_until("document.getElementById('first').ready?.().then((info) => info.n_layers === 2)", LONG)
        .await?;
    browser.screenshot(&artifact("embed-example.png")).await?;
    browser.eval("document.getElementById('second').start()").await?;
    let state = browser.eval("document.getElementById('second').state()").await?;
    ensure!(state["lesson"]["title"] == "Predict, then look", "{state}");
    browser.client.goto(&format!("{}/made.html", host.address)).await?;
    let all = "customElements.get('headlight-view') && \
               Promise.all([...document.querySelectorAll('headlight-view')].map((view) => view.start().then(() => view.ready())))\
               .then((all) => all.length)";
    ensure!(browser.wait_until(all, LONG).await? == 3);
    browser.client.goto(&format!("{}/moodle.html", host.address)).await?;
    browser.enter_frame("document.querySelector('iframe')").await?;
    browser.wait_until(&format!("{} !== null", by_id("embed-start")), LONG).await?;
    browser.press("[data-testid=embed-start]", "\u{e007}").await?;
    browser.wait_until(&format!("{} !== null", by_id("next-token-0")), LONG).await?;
    // The assignment: locked, answered by a click on a head and in words, written out.
    ensure!(browser.eval(&format!("{}.closest('fieldset').disabled", by_id("prompt"))).await? == true);
    let why = browser.eval(&format!("{}.textContent", by_id("why-held"))).await?;
    ensure!(why.as_str().is_some_and(|why| why.contains("assignment")), "{why}");
    browser.eval(&format!("{}.click()", by_id("answer-head-0"))).await?;
    browser.eval(&format!("{}.click()", by_id("head-L1H0"))).await?;
    browser.wait_until(&format!("{}.textContent === 'L1H0'", by_id("answer-0")), SOON).await?;
    browser.press("[data-testid=answer-1]", "It says less.").await?;
    browser.eval(&format!("{}.querySelector('input').click()", by_id("answer-2"))).await?;
    browser.eval(&format!("{}.click()", by_id("answers-json"))).await?;
    browser.wait_until(&format!("{} !== null", by_id("answers-text")), SOON).await?;
    let sheet = browser.eval(&format!("JSON.parse({}.value)", by_id("answers-text"))).await?;
    let answers: Vec<_> =
        sheet["answers"].as_array().into_iter().flatten().map(|a| a["answer"].clone()).collect();
    ensure!(answers == [json!("L1H0"), json!("It says less."), json!("yes")], "{sheet}");
    ensure!(sheet["model_sha256"].as_str().is_some_and(|sha| sha.len() == 64), "{sheet}");
    ensure!(
        sheet["link"].as_str().is_some_and(|link| link.starts_with(&format!("{}#1.", host.page))),
        "{sheet}"
    );
    // The same as a table: a row a question, whose cells are what stands in the JSON; quotes and commas stay.
    browser.press("[data-testid=answer-1]", " =1+1, \"they\" said").await?;
    browser.eval(&format!("{}.click()", by_id("answers-csv"))).await?;
    let is_csv = format!("{0}.value.startsWith('title,number') && {0}.value", by_id("answers-text"));
    let text = browser.wait_until(&is_csv, SOON).await?;
    let mut reader = csv::Reader::from_reader(text.as_str().unwrap_or_default().as_bytes());
    let column = reader.headers()?.iter().map(str::to_owned).collect::<Vec<_>>();
    let rows = reader.records().collect::<Result<Vec<_>, _>>()?;
    let cell = |row: usize, name: &str| -> &str {
        let index = column.iter().position(|column| column == name);
        index.and_then(|index| rows[row].get(index)).unwrap_or("no such cell")
    };
    ensure!(rows.len() == 3, "{text}");
    ensure!(cell(0, "answer") == "L1H0" && cell(2, "answer") == "yes", "{text}");
    ensure!(cell(1, "answer") == "It says less. =1+1, \"they\" said", "{text}");
    for (row, answer) in sheet["answers"].as_array().into_iter().flatten().enumerate() {
        ensure!(
            cell(row, "question") == answer["ask"] && cell(row, "number") == (row + 1).to_string(),
            "{text}"
        );
    }
    ensure!(cell(0, "model_sha256") == sheet["model_sha256"] && cell(0, "title") == sheet["title"], "{text}");
    browser.leave_frame().await?;
    browser.screenshot(&artifact("embed-moodle.png")).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dialog_writes_what_works_and_links_are_built_outside() -> anyhow::Result<()> {
    let host = host("dialog", "", &[]).await?;
    let browser = Browser::start(BrowserOptions { height: 1000, ..BrowserOptions::default() }).await?;
    browser.client.goto(&host.page).await?;
    browser.wait_until("!!window.headlight", SOON).await?;
    browser.eval("headlight.ready").await?;
    browser.eval("headlight.setState({prompt: 'A B C A B', head: 'L1H0'})").await?;
    // A listener hears what changes until it ends that.
    browser.eval("(() => { window.told = []; window.stop = headlight.on('state', (state) => told.push(state)); })()").await?;
    browser.eval("headlight.setState({prompt: 'A B C A'})").await?;
    browser.wait_until("told.some((state) => state.prompt === 'A B C A')", SOON).await?;
    browser.eval("(() => { stop(); window.nTold = told.length; })()").await?;
    browser.eval("headlight.setState({prompt: 'A B C A B', head: 'L1H0'})").await?;
    tokio::time::sleep(QUIET).await;
    ensure!(browser.eval("told.length === nTold").await? == true);
    ensure!(browser.eval("(async () => headlight.on('nothing', () => {}))()").await.is_err());
    // The builder for JavaScript and the page read each other's links.
    let built = "import(new URL('embed/headlight-link.js', location.href)).then(async (links) => \
                 [await links.stateOf(await links.urlOf(location.href, {prompt: 'Zwölf \u{1f600}'})), \
                 await links.stateOf(await headlight.link()), await links.fragmentOf({head: 'L1H0'})])";
    let built = browser.eval(built).await?;
    ensure!(built[0] == json!({"prompt": "Zwölf \u{1f600}"}), "{built}");
    ensure!(built[1]["prompt"] == "A B C A B" && built[1]["head"] == "L1H0", "{built}");
    let fragment = built[2].as_str().unwrap_or_default().to_owned();
    browser.eval(&format!("{}.click()", by_id("embed-button"))).await?;
    browser.wait_until(&format!("{} !== null", by_id("embed-iframe")), SOON).await?;
    browser.eval(&format!("{}.click()", by_id("embed-part-plots"))).await?;
    browser.eval(&format!("{}.click()", by_id("embed-readonly"))).await?;
    let html = browser
        .wait_until(&format!("{0}.value.includes('readonly=1') && {0}.value", by_id("embed-iframe")), SOON)
        .await?;
    let html = html.as_str().unwrap_or_default().to_owned();
    for part in [
        "embed=1&amp;plots=0&amp;readonly=1&amp;start=click",
        "sandbox=\"allow-scripts",
        "title=",
        "loading=\"lazy\"",
        "height=\"640\"",
    ] {
        ensure!(html.contains(part), "{part} is not in {html}");
    }
    ensure!(!html.contains("allow-same-origin"), "{html}");
    let element = browser.eval(&format!("{}.value", by_id("embed-element"))).await?;
    ensure!(element.as_str().is_some_and(|text| text.contains("<headlight-view link=\"#1.")), "{element}");
    browser.eval(&format!("{}.open = true", by_id("assignment-form"))).await?;
    browser.press("[data-testid=assignment-title]", "Look \"there\" <b>").await?;
    browser.press("[data-testid=assignment-questions]", "head: Which?").await?;
    let link = browser.wait_until(&format!("{}.value", by_id("embed-link")), SOON).await?;
    browser.eval(&format!("{}.click()", by_id("embed-preview-button"))).await?;
    browser.wait_until(&format!("{} !== null", by_id("embed-preview")), SOON).await?;
    browser.screenshot(&artifact("embed-dialog.png")).await?;
    browser.enter_frame(&by_id("embed-preview")).await?;
    browser.wait_until(&format!("{} !== null", by_id("embed-start")), SOON).await?;
    browser.leave_frame().await?;
    // The link opens the assignment on the full page, in a browser that knows nothing of it.
    let fresh = Browser::start(BrowserOptions::default()).await?;
    fresh.client.goto(link.as_str().unwrap_or_default()).await?;
    fresh
        .wait_until(&format!("{0} && {0}.textContent.includes('Look \"there\" <b>')", by_id("lesson")), LONG)
        .await?;
    ensure!(fresh.eval(&format!("{}.querySelector('b') === null", by_id("lesson"))).await? == true);
    fresh.wait_until(&format!("{} !== null", by_id("next-token-0")), LONG).await?;
    ensure!(
        fresh.eval("!document.querySelector('[aria-labelledby=layers-title]')?.checkVisibility()").await?
            == true
    );
    fresh.screenshot(&artifact("lesson.png")).await?;
    fresh.client.goto("about:blank").await?;
    fresh.client.goto(&format!("{}#{fragment}", host.page)).await?;
    fresh
        .wait_until("window.headlight && headlight.state().then((state) => state.head === 'L1H0')", LONG)
        .await?;
    fresh.close().await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_looks_right_small_and_dark() -> anyhow::Result<()> {
    let host = host("looks", "", &[]).await?;
    for (width, height, dark, name) in
        [(390, 844, false, "390"), (390, 844, true, "390-dark"), (700, 900, true, "700-dark")]
    {
        let browser =
            Browser::start(BrowserOptions { width, height, dark, ..BrowserOptions::DEFAULT }).await?;
        browser.client.goto(&format!("{}?embed=1&plots=0#1.q1bKSE1MUbJS8jH0MFCqBQA", host.page)).await?;
        browser.wait_until(&format!("{} !== null", by_id("next-token-0")), LONG).await?;
        let overflow = browser.eval("document.documentElement.scrollWidth - innerWidth").await?;
        ensure!(overflow.as_f64().is_some_and(|px| px <= 0.0), "{overflow} px too wide at {width}");
        browser.screenshot(&artifact(&format!("embed-page-{name}.png"))).await?;
        if name == "390" {
            browser.client.goto("about:blank").await?;
            browser.client.goto(&host.page).await?;
            browser.wait_until(&format!("{} !== null", by_id("next-token-0")), LONG).await?;
            browser.eval(&format!("{}.click()", by_id("embed-button"))).await?;
            browser.wait_until(&format!("{} !== null", by_id("embed-iframe")), SOON).await?;
            browser.screenshot(&artifact("embed-dialog-390.png")).await?;
        }
        browser.close().await?;
    }
    Ok(())
}
