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
    // The tests run this program.
    run(cargo().args(["build", "--quiet", "--bin", "headlight"]))?;
    let nextest = succeeds(cargo().args(["nextest", "--version"]));
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    run(cargo().args(runner).arg("--workspace"))?;
    // Once more on a graphics device, what a software one does in minutes.
    let tests = ["receipts", "restart", "patching", "bundled", "bundled_successor", "real_model"];
    let tests = tests.iter().flat_map(|test| ["--test", test]);
    let mut on_gpu = cargo();
    on_gpu.args(runner).args(["--package", "headlight-tests"]).args(tests);
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

fn browser_tests() -> anyhow::Result<()> {
    std::fs::create_dir_all(paths::artifacts())?;
    let mut command = cargo();
    command.args([
        "test",
        "--package",
        "headlight-tests",
        "--features",
        "browser",
        "--test",
        "browser*",
        "--",
    ]);
    // One browser at a time: two cores run one page well.
    run(command.args(["--test-threads", "1", "--nocapture"]))?;
    // Once more with a graphics device behind the page: what is asked of the small models, which a software one can do.
    let tests = [
        "the_bundled_model_reacts",
        "detectors_name",
        "a_pattern_of_ones_own",
        "a_sweep_colours",
        "bad_input",
    ];
    let mut on_gpu = cargo();
    on_gpu.args(["test", "--package", "headlight-tests", "--features", "browser", "--test", "browser", "--"]);
    on_gpu.args(["--test-threads", "1", "--nocapture"]).args(tests);
    run(on_gpu.env("HEADLIGHT_TEST_BACKEND", "webgpu"))
}
