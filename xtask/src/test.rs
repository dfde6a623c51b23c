//! `cargo xtask test`: everything that must hold, in order, the quick checks first.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::build::build_within_budget;
use crate::setup::{self, Install};
use crate::shell::{cargo, run, say, succeeds, tools_path};
use crate::{models, paths};

/// Sets up, checks, tests, builds and tests in a browser; stops at the first failure.
pub fn test(install: Install) -> anyhow::Result<()> {
    let mut done: Vec<(&str, f64)> = Vec::new();
    let steps: [(&str, &dyn Fn() -> anyhow::Result<()>); 8] = [
        ("setup", &|| {
            setup::for_build(install)?;
            setup::graphics(install)?;
            setup::browser(install)
        }),
        ("model", &models::fetch),
        ("formatting", &|| run(cargo().args(["fmt", "--all", "--check"]))),
        ("clippy", &clippy),
        ("native tests", &native_tests),
        ("wasm tests", &wasm_tests),
        ("release build", &build_within_budget),
        ("browser tests", &browser_tests),
    ];
    for (name, step) in steps {
        say(name);
        let start = Instant::now();
        let result = step();
        done.push((name, start.elapsed().as_secs_f64()));
        if let Err(error) = result {
            summary(&done);
            return Err(error.context(format!("{name} failed")));
        }
    }
    summary(&done);
    Ok(())
}

fn summary(done: &[(&str, f64)]) {
    for (name, seconds) in done {
        say(&format!("{name:>14}: {seconds:.0} s"));
    }
}

fn clippy() -> anyhow::Result<()> {
    let mut native = cargo();
    native.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]);
    run(&mut native)?;
    let mut wasm = wasm_cargo("clippy");
    run(wasm.args([
        "--quiet",
        "--target",
        "wasm32-unknown-unknown",
        "--package",
        "headlight-app",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Cargo with the tool chain that compiles for wasm32.
fn wasm_cargo(command: &str) -> Command {
    let mut cargo = cargo();
    if let Some(toolchain) = setup::wasm_toolchain() {
        cargo.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    if let Ok(path) = tools_path() {
        cargo.env("PATH", path);
    }
    cargo.arg(command);
    cargo
}

fn native_tests() -> anyhow::Result<()> {
    // The tests run this program. With them, and always of the whole workspace: other selections have other features, with which the
    // engine would be compiled once more.
    run(cargo().args(["build", "--quiet", "--workspace", "--bin", "headlight", "--tests"]))?;
    let nextest = succeeds(cargo().args(["nextest", "--version"]));
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    run(cargo().args(runner).arg("--workspace"))?;
    // Once more on a graphics device, what a software one does in minutes.
    let tests = ["receipts", "restart", "patching", "bundled", "bundled_successor", "real_model"];
    let tests = tests.iter().flat_map(|test| ["--test", test]);
    let mut on_gpu = cargo();
    on_gpu.args(runner).arg("--workspace").args(tests);
    run(on_gpu.env("HEADLIGHT_TEST_BACKEND", "webgpu"))
}

fn wasm_tests() -> anyhow::Result<()> {
    let driver = crate::shell::find_program("chromedriver").context("there is no chromedriver")?;
    let mut command = wasm_cargo("test");
    // In release, without the command line and in one call, so that the dependencies are those of the page. Not `--quiet`: cargo
    // would hand it to the runner, which does not know it.
    command.args(["--release", "--target", "wasm32-unknown-unknown", "--no-default-features"]);
    command.args([
        "--package",
        "headlight-core",
        "--package",
        "headlight-app",
        "--package",
        "headlight-tests",
    ]);
    command.args(["--lib", "--test", "golden"]);
    run(command.env("CHROMEDRIVER", &driver).env("WASM_BINDGEN_TEST_TIMEOUT", "120"))
}

/// Page tests that are not run once more on a graphics device, by parts of their names.
const ON_CPU_ALONE: [&str; 10] = [
    // Minutes on a software device.
    "smollm2",
    // Of how the page looks.
    "fits_every_width",
    "stays_within_every_window",
    "looks_right",
    // Of keys, dialogs, files and hosts around the page, in which an engine has no part.
    "needs_no_mouse",
    "by_keyboard",
    "dialog_writes",
    "plain_example",
    "a_poster_stands",
    "lets_nobody_read",
];

fn browser_tests() -> anyhow::Result<()> {
    std::fs::create_dir_all(paths::artifacts())?;
    run(&mut page_tests(&["browser*"], &[]))?;
    // Once more with a graphics device behind the page; `browser_webgpu` has one anyway, loading and the engine's builds are the CPU's.
    let tests = ["browser", "browser_exports", "browser_links", "browser_embeds", "browser_sharing"];
    run(page_tests(&tests, &ON_CPU_ALONE).env("HEADLIGHT_TEST_BACKEND", "webgpu"))
}

/// Tests of the page, but those whose names contain one of `skipped`. One browser at a time: two cores run one page well.
fn page_tests(tests: &[&str], skipped: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--features", "headlight-tests/browser"]);
    command.args(tests.iter().flat_map(|test| ["--test", test]));
    command.args(["--", "--test-threads", "1", "--nocapture"]);
    command.args(skipped.iter().flat_map(|name| ["--skip", name]));
    command
}
