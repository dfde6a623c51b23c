//! Exports and imports in a real Chromium: every menu's files are caught as they are saved, read back by the browser's own
//! parsers and compared with `window.headlight`.

use anyhow::{Context, ensure};
use headlight_tests::page::{self, LONG, SOON, by_id, click, is_ours};
use serde_json::{Value, json};
use xtask::browser::{Browser, BrowserOptions};
use xtask::paths;

/// Catches what would be saved: `saved` has names and blobs.
const CATCH: &str = "(() => {
    const blobs = {}, make = URL.createObjectURL;
    window.saved = [];
    URL.createObjectURL = blob => { const url = make.call(URL, blob); blobs[url] = blob; return url; };
    HTMLAnchorElement.prototype.click = function () { saved.push({ name: this.download, blob: blobs[this.href] }); };
    return true;
})()";

/// The page, whose downloads are caught.
async fn open(options: BrowserOptions) -> anyhow::Result<Browser> {
    let browser = page::open(options).await?;
    browser.eval(CATCH).await?;
    Ok(browser)
}

async fn fill(browser: &Browser, id: &str, text: &str, event: &str) -> anyhow::Result<()> {
    let script = format!(
        "(() => {{ const field = {}; field.value = {}; field.dispatchEvent(new Event('{event}', {{bubbles: true}})); \
         return true; }})()",
        by_id(id),
        json!(text)
    );
    browser.eval(&script).await.map(|_| ())
}

/// Saves through a menu; gives name, text and (of pictures that are pixels) width, height and number of colours.
async fn save(browser: &Browser, menu: &str, item: &str) -> anyhow::Result<Value> {
    let is_open = format!("{}.parentElement.open", by_id(&format!("export-{menu}")));
    if browser.eval(&is_open).await? != true {
        click(browser, &format!("export-{menu}")).await?;
    }
    browser.eval("(saved.length = 0, true)").await?;
    click(browser, item).await?;
    browser.wait_until("saved.length === 1", LONG).await.with_context(|| item.to_owned())?;
    let read = "(async () => {
        const { name, blob } = saved[0];
        if (blob.type !== 'image/png') return { name, text: await blob.text() };
        const image = await createImageBitmap(blob);
        const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        const pixels = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
        return { name, width: image.width, height: image.height, colours: new Set(pixels).size };
    })()";
    browser.eval(read).await
}

/// What the browser's own XML parser makes of a picture: size, tooltips, provenance.
async fn parsed(browser: &Browser, svg: &Value) -> anyhow::Result<Value> {
    let script = format!(
        "(() => {{
            const root = new DOMParser().parseFromString({svg}, 'image/svg+xml').documentElement;
            if (root.querySelector('parsererror') || root.tagName !== 'svg') throw new Error(root.textContent);
            return {{
                width: +root.getAttribute('width'), height: +root.getAttribute('height'),
                tips: [...root.querySelectorAll('rect > title')].map(tip => tip.textContent),
                scripts: root.querySelectorAll('script, foreignObject, image, use').length,
                provenance: JSON.parse(root.querySelector('metadata').textContent),
            }};
        }})()"
    );
    browser.eval(&script).await
}

/// The rows of a CSV file without quotes in it.
fn rows(csv: &Value) -> Vec<Vec<String>> {
    let lines = csv.as_str().unwrap_or_default().lines();
    lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn as_f32(value: &Value) -> f32 {
    value.as_f64().map_or(f32::NAN, |value| value as f32)
}

/// Gives a file to the import's input.
async fn import(browser: &Browser, name: &str, text: &str) -> anyhow::Result<()> {
    if browser.eval(&format!("{} === null", by_id("import-file"))).await? == true {
        click(browser, "export-head-map").await?;
        browser.wait_until(&format!("{} !== null", by_id("import-file")), SOON).await?;
    }
    let script = format!(
        "(async () => {{
            const files = new DataTransfer();
            files.items.add(new File([{text}], {name}));
            const input = {};
            input.files = files.files;
            input.dispatchEvent(new Event('change', {{bubbles: true}}));
            return true;
        }})()",
        by_id("import-file"),
        name = json!(name),
    );
    browser.eval(&script).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_and_tables_are_saved_as_shown_and_scores_of_others_become_a_lens() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    click(&browser, "head-L1H0").await?;
    click(&browser, "head-L0H2").await?;
    click(&browser, "head-L1H0").await?;
    browser.wait_until(&format!("{}.dataset.head === 'L1H0'", by_id("pattern-heatmap")), SOON).await?;
    let prompt = browser.eval(&format!("{}.value", by_id("prompt"))).await?;

    // A picture, and the same at three sizes.
    let svg = save(&browser, "head-map", "export-head-map-svg").await?;
    ensure!(svg["name"] == "headlight-induction-2l-head-map.svg", "{}", svg["name"]);
    let drawn = parsed(&browser, &svg["text"]).await?;
    ensure!(drawn["tips"].as_array().map(Vec::len) == Some(8), "a box a head: {}", drawn["tips"]);
    ensure!(
        drawn["scripts"] == 0 && drawn["provenance"]["prompt"]["text"] == prompt,
        "{}",
        drawn["provenance"]
    );
    for scale in 1..=3_u64 {
        let png = save(&browser, "head-map", &format!("export-head-map-png-{scale}")).await?;
        for side in ["width", "height"] {
            let wanted = drawn[side].as_u64().map(|pixels| pixels * scale);
            ensure!(png[side].as_u64() == wanted, "{side} at {scale}: {png}, not {wanted:?}");
        }
        ensure!(png["colours"].as_u64().is_some_and(|n| n > 20), "an empty picture: {png}");
        ensure!(png["name"].as_str().is_some_and(|name| name.ends_with(".png")), "{png}");
    }

    // A table against the scripting interface.
    let csv = save(&browser, "pattern", "export-pattern-csv").await?;
    let report = browser.eval(&format!("headlight.patterns({{text: {prompt}, head: 'L1H0'}})")).await?;
    ensure!(is_ours(&report), "{}", report["provenance"]);
    let pattern = report["pattern"].as_array().context("a pattern")?;
    let table = rows(&csv["text"]);
    ensure!(table.len() == pattern.len() + 1, "{} rows", table.len());
    for (row, wanted) in table[1..].iter().zip(pattern) {
        let wanted = wanted.as_array().context("a row")?;
        // A token with a comma would split; its cells stand at the row's end all the same.
        let got = &row[row.len() - wanted.len()..];
        for (got, wanted) in got.iter().zip(wanted) {
            ensure!(got.parse::<f32>()? == as_f32(wanted), "{got} and {wanted}");
        }
    }
    let json_file = save(&browser, "pattern", "export-pattern-json").await?;
    let saved: Value = serde_json::from_str(json_file["text"].as_str().unwrap_or_default())?;
    ensure!(as_f32(&saved["pattern"][5][3]) == as_f32(&report["pattern"][5][3]) && saved["head"] == "L1H0");
    ensure!(saved["view"]["engine"] == report["provenance"]["engine"], "{}", saved["view"]);

    // Esc closes the menu and leaves the held head.
    let esc = format!(
        "{}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Escape', bubbles: true}}))",
        by_id("export-pattern-json")
    );
    browser.eval(&esc).await?;
    browser.wait_until(&format!("!{}.parentElement.open", by_id("export-pattern")), SOON).await?;
    ensure!(browser.eval(&format!("{}.getAttribute('aria-selected')", by_id("head-L1H0"))).await? == "true");

    // A detector's report comes back as a lens beside the live ones.
    let report = browser.eval("headlight.detect({detector: 'previous_token'})").await?;
    import(&browser, "theirs.json", &json!(report.to_string()).to_string()).await?;
    browser.wait_until(&format!("{}.value === 'imported:0'", by_id("measure")), SOON).await?;
    let score = as_f32(&report["scores"][0][1]);
    let shown = browser.eval(&format!("{}.dataset.score", by_id("head-L0H1"))).await?;
    ensure!(shown == format!("{score:.4}").as_str(), "{shown} on the map, {score} in the file");
    let caption = browser.eval(&format!("{}.textContent", by_id("map-caption"))).await?;
    ensure!(caption.as_str().is_some_and(|text| text.contains("measured on this model")), "{caption}");
    import(&browser, "bad.json", "'{\"a\": [[1, NaN]]}'").await?;
    let told = format!(
        "{0} !== null && {0}.textContent.includes('bad.json was not imported')",
        by_id("error-banner")
    );
    browser.wait_until(&told, SOON).await?;
    ensure!(browser.eval(&format!("{}.value", by_id("measure"))).await? == "imported:0", "nothing is lost");
    fill(&browser, "measure", "effect:sweep", "change").await?;
    browser.wait_until(&format!("{} !== null", by_id("scatter-score")), LONG).await?;
    fill(&browser, "scatter-score", "imported:0", "change").await?;
    let csv = save(&browser, "score-against-effect", "export-score-against-effect-csv").await?;
    ensure!(rows(&csv["text"])[2][2].parse::<f32>()? == score, "{}", csv["text"]);

    // Whatever the prompt, pictures stay well formed; an edit shows in every one.
    fill(&browser, "prompt", "</script>]]> & \"x\", =1+1\u{1} </metadata>", "input").await?;
    click(&browser, "ablate").await?;
    browser.wait_until(&format!("{} !== null", by_id("along")), LONG).await?;
    for (menu, item) in
        [("next-tokens", "next-tokens"), ("pattern", "pattern"), ("along-prompt", "along-prompt")]
    {
        browser.wait_until(&format!("{} !== null", by_id("kl-nats")), SOON).await?;
        click(&browser, &format!("export-{menu}")).await?;
        browser.wait_until(&format!("{} !== null", by_id(&format!("export-{item}-svg"))), LONG).await?;
        let svg = save(&browser, menu, &format!("export-{item}-svg")).await?;
        let drawn = parsed(&browser, &svg["text"]).await.with_context(|| item.to_owned())?;
        ensure!(drawn["provenance"]["interventions"][0]["heads"] == json!(["L1H0"]), "{item}");
        ensure!(
            drawn["provenance"]["prompt"]["text"].as_str().is_some_and(|text| text.contains("]]> &")),
            "{item}"
        );
    }
    // A script of the bundled model fetches its files from this very server.
    let script = save(&browser, "next-tokens", "export-python-nnsight").await?;
    let text = script["text"].as_str().unwrap_or_default();
    let files = browser.eval("new URL('models/induction-2l', location.href).href").await?;
    ensure!(text.contains(&format!("FILES = {files}")), "no {files} in {text}");
    let served =
        browser.eval(&format!("fetch({files} + '/config.json').then((response) => response.ok)")).await?;
    ensure!(served == true, "nothing is served at {files}");
    browser.close().await
}

/// Every view that a card has is in its menu, and each is a picture, pixels, a table and a report.
#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_saved_in_every_format() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    click(&browser, "head-L1H0").await?;
    click(&browser, "ablate").await?;
    click(&browser, "attention-token-3").await?;
    browser.wait_until(&format!("{} !== null", by_id("direct-effect")), SOON).await?;
    click(&browser, "continue").await?;
    browser.wait_until(&format!("{} !== null", by_id("continuation-after")), LONG).await?;
    fill(&browser, "measure", "detector:induction", "change").await?;
    browser.wait_until("document.body.textContent.includes('Loss on the first copy')", LONG).await?;
    let views = [
        ("tokens", "tokens"),
        ("next-tokens", "next-tokens"),
        ("continuation", "continuation"),
        ("continuation", "direct-effect"),
        ("continuation", "random-heads"),
        ("head-map", "head-map"),
        ("head-map", "evidence"),
        ("pattern", "pattern"),
        ("pattern", "attention-from-token"),
        ("pattern", "writes"),
        ("pattern", "head-scores"),
        ("along-prompt", "along-prompt"),
        ("layers", "layers"),
    ];
    let run_controls = format!("{0} && ({0}.click(), true)", by_id("controls-run"));
    browser.eval(&run_controls).await?;
    browser.wait_until(&format!("{}.textContent.includes('random sets')", by_id("controls")), LONG).await?;
    let run_lens = format!("{0} && ({0}.click(), true)", by_id("logitlens-run"));
    browser.eval(&run_lens).await?;
    browser.wait_until(&format!("{} !== null", by_id("logit-lens")), LONG).await?;
    for (menu, view) in views {
        let svg = save(&browser, menu, &format!("export-{view}-svg")).await?;
        let drawn = parsed(&browser, &svg["text"]).await.with_context(|| view.to_owned())?;
        ensure!(drawn["provenance"]["view"] == view && drawn["scripts"] == 0, "{view}: {drawn}");
        let told = svg["text"].as_str().is_some_and(|text| text.contains("Prompt (after BOS)"));
        ensure!(told, "{view} says nothing of the BOS that this model is given");
        let png = save(&browser, menu, &format!("export-{view}-png-1")).await?;
        ensure!(png["width"] == drawn["width"] && png["height"] == drawn["height"], "{view}: {png}");
        ensure!(png["colours"].as_u64().is_some_and(|n| n > 8), "{view}: an empty picture: {png}");
        std::fs::write(
            paths::artifacts().join(format!("figure-{view}.svg")),
            svg["text"].as_str().unwrap_or_default(),
        )?;
        let csv = save(&browser, menu, &format!("export-{view}-csv")).await?;
        ensure!(rows(&csv["text"]).len() > 1, "{view}: {csv}");
        let json = save(&browser, menu, &format!("export-{view}-json")).await?;
        let json: Value = serde_json::from_str(json["text"].as_str().unwrap_or_default())?;
        ensure!(json["view"]["view"] == view, "{view}");
        click(&browser, &format!("export-{menu}")).await?;
    }
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_smollm2_holds_what_the_page_shows() -> anyhow::Result<()> {
    let browser = open(BrowserOptions::default()).await?;
    browser.eval("headlight.load({model: 'smollm2-135m'})").await?;
    fill(&browser, "prompt", "The capital of France is", "input").await?;
    browser.wait_until(&format!("{} !== null", by_id("head-L18H6")), SOON).await?;
    browser
        .eval(&format!(
            "{}.dispatchEvent(new MouseEvent('dblclick', {{bubbles: true}}))",
            by_id("head-L18H6")
        ))
        .await?;
    browser.wait_until(&format!("{} !== null", by_id("kl-nats")), LONG).await?;
    let script = save(&browser, "next-tokens", "export-python-transformer_lens").await?;
    ensure!(script["name"] == "headlight-smollm2-135m-transformer-lens.py", "{}", script["name"]);
    let text = script["text"].as_str().unwrap_or_default();
    let shown = browser.eval(&format!("{}.dataset.logit", by_id("next-token-0"))).await?;
    for part in [
        "IDS = [504, 3575, 282, 4649, 314]",
        "z[0, :, 6] = 0.0",
        "REPO = \"HuggingFaceTB/SmolLM2-135M-Instruct\"",
        shown.as_str().unwrap_or("no logit"),
    ] {
        ensure!(text.contains(part), "no {part} in {text}");
    }
    browser.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_menu_stays_within_every_window() -> anyhow::Result<()> {
    for (width, height, dark) in [(1440, 900, false), (1024, 768, true), (390, 844, false), (390, 844, true)]
    {
        let browser = open(BrowserOptions { width, height, dark, ..BrowserOptions::DEFAULT }).await?;
        for menu in ["head-map", "pattern", "next-tokens", "tokens", "continuation"] {
            click(&browser, &format!("export-{menu}")).await?;
            browser.wait_until(&format!("{} !== null", by_id("export-menu")), SOON).await?;
            let rect = format!("{}.getBoundingClientRect()", by_id("export-menu"));
            let sides = browser.eval(&format!("[{rect}.left, innerWidth - {rect}.right]")).await?;
            ensure!(as_f32(&sides[0]) >= 0.0 && as_f32(&sides[1]) >= 0.0, "{menu} at {width}: {sides}");
            if menu != "continuation" {
                browser
                    .eval(&format!("{}.scrollIntoView({{block: 'center'}})", by_id("export-menu")))
                    .await?;
                let theme = if dark { "dark" } else { "light" };
                let name = format!("export-{menu}-{width}-{theme}.png");
                browser.screenshot(&paths::artifacts().join(name)).await?;
            }
            click(&browser, &format!("export-{menu}")).await?;
            browser.wait_until(&format!("{} === null", by_id("export-menu")), SOON).await?;
        }
        browser.close().await?;
    }
    Ok(())
}
