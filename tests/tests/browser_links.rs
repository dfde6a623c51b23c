//! Links in a real Chromium: made in one profile and opened in another, gone back and forward to, broken, hostile.

use std::time::Instant;

use anyhow::{Context, ensure};
use headlight_tests::page::{self, LONG, SOON, by_id, click, open, text_of, type_prompt, wait_for_numbers};
use serde_json::Value;
use xtask::browser::{Browser, BrowserOptions};

/// The link that the page offers, once its numbers are in it.
async fn shared_link(browser: &Browser) -> anyhow::Result<String> {
    click(browser, "share").await?;
    let has_numbers = format!("{0} && !{0}.textContent.includes('still')", by_id("share-length"));
    browser.wait_until(&has_numbers, SOON).await?;
    let link = browser.eval(&format!("{}.value", by_id("share-link"))).await?;
    browser.eval("document.querySelector('dialog[open]').close()").await?;
    Ok(link.as_str().context("the link is text")?.to_owned())
}

async fn wait_for_note(browser: &Browser, text: &str) -> anyhow::Result<String> {
    let shows = format!("({0} || {{textContent: ''}}).textContent.includes({text:?})", by_id("shared-note"));
    browser.wait_until(&shows, LONG).await?;
    text_of(browser, "shared-note").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_reproduced_in_a_fresh_profile_and_a_changed_number_is_told() -> anyhow::Result<()> {
    let sender = open(BrowserOptions::default()).await?;
    type_prompt(&sender, "one two three four one two three").await?;
    click(&sender, "head-L1H0").await?;
    sender
        .eval(&format!("{}.dispatchEvent(new MouseEvent('dblclick', {{bubbles: true}}))", by_id("head-L0H2")))
        .await?;
    sender.wait_until(&format!("{} !== null", by_id("kl-nats")), SOON).await?;
    let (probability, kl) = (text_of(&sender, "next-token-0").await?, text_of(&sender, "kl-nats").await?);
    let link = shared_link(&sender).await?;
    ensure!(link.len() < 2000, "{} letters", link.len());
    let origin = sender.eval("location.href.split('#')[0]").await?;
    let origin = origin.as_str().context("an address")?.to_owned();
    let (_, letters) = link.split_once('#').context("the view stands behind #")?;

    // The sender's server goes on serving: its task belongs to the runtime, not to the browser.
    let opener = page::start(BrowserOptions { width: 1024, ..BrowserOptions::default() }).await?;
    opener.client.goto(&format!("{origin}#{letters}")).await?;
    // The link asks for the engine that its sender had.
    wait_for_numbers(&opener).await?;
    let note = wait_for_note(&opener, "Reproduced").await?;
    println!("{note}");
    ensure!(text_of(&opener, "next-token-0").await? == probability, "another most probable token");
    ensure!(text_of(&opener, "kl-nats").await? == kl, "another KL");
    let prompt = opener.eval(&format!("{}.value", by_id("prompt"))).await?;
    ensure!(prompt == "one two three four one two three", "{prompt}");
    opener.screenshot(&xtask::paths::artifacts().join("link-reproduced.png")).await?;
    ensure!(opener.eval("location.hash.slice(1)").await? == letters, "opening a link rewrites it");

    let mut changed =
        headlight_app::link::Link::decode(letters).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let numbers = changed.numbers.as_mut().context("the link has numbers")?;
    numbers.top[0].2 -= 0.5;
    let address = format!("{origin}#{}", changed.encode());
    opener.client.goto("about:blank").await?;
    let start = Instant::now();
    opener.client.goto(&address).await?;
    opener
        .wait_until(
            "document.querySelector('[data-testid=\"next-token-0\"], [data-testid=\"sent-token\"]') !== null",
            SOON,
        )
        .await?;
    let first = start.elapsed();
    let note = wait_for_note(&opener, "Not what the sender saw").await?;
    ensure!(note.contains("Log-probability of"), "{note}");
    let own = "performance.getEntriesByType('navigation')[0].startTime + performance.now()";
    println!(
        "opening a link: first numbers after {:.0} ms, compared after {:.0} ms (page's clock {})",
        first.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
        opener.eval(own).await?,
    );
    sender.close().await?;
    opener.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_dialog_needs_no_mouse() -> anyhow::Result<()> {
    const TAB: &str = "\u{e004}";
    const ENTER: &str = "\u{e007}";
    const ESCAPE: &str = "\u{e00c}";
    let browser = open(BrowserOptions::default()).await?;
    let focused = "(document.activeElement.dataset.testid ?? document.activeElement.textContent)";
    browser.press("[data-testid=share]", ENTER).await?;
    browser.wait_until("document.querySelector('dialog[open]') !== null", SOON).await?;
    // Every control of the dialog, in order; what lies behind it is out of reach.
    let mut reached = vec![browser.eval(focused).await?];
    for _ in 0..6 {
        browser.press(":focus", TAB).await?;
        ensure!(
            browser.eval("document.activeElement === document.body || !!document.activeElement.closest('dialog[open]')").await?
                == true,
            "the focus left the dialog after {reached:?}"
        );
        reached.push(browser.eval(focused).await?);
        if reached.last().is_some_and(|id| *id == "share-numbers") {
            break;
        }
    }
    let wanted =
        ["Close", "share-link", "share-link-copy", "share-markdown", "share-markdown-copy", "share-numbers"];
    ensure!(reached == wanted, "{reached:?}");
    let link = format!("{}.value", by_id("share-link"));
    browser.wait_until(&format!("!{}.textContent.includes('still')", by_id("share-length")), SOON).await?;
    let with_numbers = browser.eval(&link).await?;
    browser.press(":focus", " ").await?;
    browser.wait_until(&format!("{link} !== {with_numbers}"), SOON).await?;
    let without = browser.eval(&link).await?;
    let letters = |link: &Value| link.as_str().map_or(0, str::len);
    ensure!(letters(&without) < letters(&with_numbers), "{without}, {with_numbers}");
    // A field that is reached is selected whole, for the keyboard's own copy.
    browser.press("[data-testid=share-markdown]", "\u{e008}\u{e004}\u{e008}").await?;
    ensure!(browser.eval(focused).await? == "share-link-copy");
    browser.press(":focus", "\u{e008}\u{e004}\u{e008}").await?;
    let selected = "(({ selectionStart, selectionEnd, value }) => selectionEnd - selectionStart === value.length)(document.activeElement)";
    ensure!(browser.eval(focused).await? == "share-link" && browser.eval(selected).await? == true);
    browser.press(":focus", ESCAPE).await?;
    browser.wait_until("document.querySelector('dialog[open]') === null", SOON).await?;
    ensure!(browser.eval(focused).await? == "share", "the focus is back on the button");
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn back_and_forward_retrace_steps_and_typing_is_one_entry() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    ensure!(
        browser.eval("location.hash").await? == page::fragment(),
        "a fresh page's fragment says more than its engine"
    );
    let before = browser.eval("history.length").await?;
    for text in ["a", "a b", "a b a", "a b a b a"] {
        type_prompt(&browser, text).await?;
    }
    browser.wait_until(&format!("location.hash !== {:?}", page::fragment()), SOON).await?;
    ensure!(browser.eval("history.length").await? == before, "typing floods the history");
    let typed = browser.eval("location.hash").await?;
    click(&browser, "head-L1H1").await?;
    browser.wait_until(&format!("location.hash !== {typed}"), SOON).await?;
    let held = browser.eval("location.hash").await?;
    let title = |head: &str| format!("{}.textContent.includes({head:?})", by_id("inspector-title"));
    browser.wait_until(&title("L1H1"), SOON).await?;
    browser.eval("history.back()").await?;
    browser.wait_until(&format!("location.hash === {typed}"), SOON).await?;
    browser.wait_until(&format!("!{}.textContent.includes('held')", by_id("inspector-title")), SOON).await?;
    let prompt = browser.eval(&format!("{}.value", by_id("prompt"))).await?;
    ensure!(prompt == "a b a b a", "{prompt}");
    browser.eval("history.forward()").await?;
    browser.wait_until(&format!("location.hash === {held} && {}", title("held")), SOON).await?;
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_and_hostile_links_say_so_and_the_page_works() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    let page = browser.eval("location.href.split('#')[0]").await?;
    let page = page.as_str().context("an address")?.to_owned();
    let good = headlight_app::link::Link {
        prompt: "<img src=x onerror=\"window.pwned = 1\"><script>window.pwned = 1</script>".to_owned(),
        lens: "detector:<b>telepathy</b>".to_owned(),
        head: Some(headlight_core::ids::HeadId::new(999, 999)),
        ..page::link()
    };
    let foreign = headlight_app::link::Link {
        model: headlight_app::link::LinkedModel {
            id: "evil.gguf".to_owned(),
            url: Some("https://evil.example/evil.gguf".to_owned()),
            sha256: Some("00".repeat(32)),
            ..Default::default()
        },
        ..page::link()
    };
    let cut = good.encode();
    let cases = [
        ("9.abc".to_owned(), "bad_link", "version"),
        (cut[..cut.len() - 9].to_owned(), "bad_link", "cut off"),
        ("x".repeat(1_000_000), "bad_link", "too long"),
        (foreign.encode(), "unknown_model", "evil.example"),
    ];
    for (letters, code, told) in cases {
        browser.client.goto("about:blank").await?;
        browser.client.goto(&format!("{page}#{letters}")).await?;
        browser
            .wait_until(
                &format!("({} || {{dataset: {{}}}}).dataset.code === {code:?}", by_id("error-banner")),
                SOON,
            )
            .await?;
        let banner = text_of(&browser, "error-banner").await?;
        ensure!(banner.contains(told), "{banner}");
        browser.wait_until(&format!("{} !== null", by_id("next-token-0")), SOON).await?;
    }
    let fetched = browser.eval("performance.getEntriesByType('resource').map(entry => entry.name)").await?;
    ensure!(!fetched.to_string().contains("evil.example"), "a link fetched from a stranger");
    browser.client.goto("about:blank").await?;
    browser.client.goto(&format!("{page}#{}", good.encode())).await?;
    let note = wait_for_note(&browser, "L999H999").await?;
    ensure!(note.contains("Not what the sender saw") && note.contains("<b>telepathy</b>"), "{note}");
    wait_for_numbers(&browser).await?;
    ensure!(browser.eval("window.pwned ?? null").await? == Value::Null, "a prompt was executed");
    browser.close().await
}
