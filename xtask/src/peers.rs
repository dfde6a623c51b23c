//! Other engines that run models in a browser, beside Headlight in its own page: onnxruntime-web and wllama. What they are and
//! where they get their weights; how they are run is in `peers.js`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::models::{SMOLLM2_SHA256, smollm2_path};
use crate::paths;
use crate::server::{Serving, serve_dir};
use crate::shell::{find_program, run, say};

/// Runs both engines in turn.
const SCRIPT: &str = include_str!("peers.js");
/// Writes the weights as ONNX, in f32 and in 8 bits.
const EXPORT_ONNX: &str = include_str!("../../tests/bench/export_onnx.py");
/// Writes the weights as GGUF in f32.
const DEQUANTISE_GGUF: &str = include_str!("../../tests/bench/dequantise_gguf.py");
/// What the two need.
const PYTHON_PACKAGES: [&str; 3] = ["gguf==0.19.0", "onnx==1.23.2", "onnxruntime==1.32.0"];
/// The file that names what the exports were made from and by.
const STAMP: &str = "exports.txt";
/// The length at which an engine's numbers are compared with Headlight's.
const AGREEMENT_LENGTH: usize = 64;

/// Largest difference of logits, log-probabilities or patterns from an exact engine: it is 4e-5 where all is f32, 5e-3 where keys and
/// values are kept in f16.
const EXACT_TOLERANCE: f64 = 1e-2;

/// A package of npm.
struct Package {
    name: &'static str,
    version: &'static str,
}

const ONNXRUNTIME_WEB: Package = Package { name: "onnxruntime-web", version: "1.30.0" };
const WLLAMA: Package = Package { name: "@wllama/wllama", version: "3.13.0" };

/// An engine with weights of one kind.
struct Peer {
    /// Key in the report.
    name: &'static str,
    package: Package,
    /// File in the folder's `models/`.
    model: &'static str,
    /// Further fields of what `begin` of `peers.js` takes.
    options: &'static str,
    /// Whether it computes in f32, from the same weights: it must then agree with Headlight.
    is_exact: bool,
}

const F32_ONNX: &str = "smollm2-f32.onnx";
const INT8_ONNX: &str = "smollm2-int8.onnx";
const F32_GGUF: &str = "smollm2-f32.gguf";
const Q4_1_GGUF: &str = "smollm2-q4_1.gguf";

const PEERS: [Peer; 5] = [
    Peer {
        name: "onnxruntime_web_fp32",
        package: ONNXRUNTIME_WEB,
        model: F32_ONNX,
        options: "engine: 'onnxruntime', with_patterns: true",
        is_exact: true,
    },
    // The patterns are computed, but stay in the engine's memory.
    Peer {
        name: "onnxruntime_web_fp32_logits_alone",
        package: ONNXRUNTIME_WEB,
        model: F32_ONNX,
        options: "engine: 'onnxruntime', with_patterns: false",
        is_exact: true,
    },
    Peer {
        name: "onnxruntime_web_int8",
        package: ONNXRUNTIME_WEB,
        model: INT8_ONNX,
        options: "engine: 'onnxruntime', with_patterns: true",
        is_exact: false,
    },
    Peer {
        name: "wllama_q4_1",
        package: WLLAMA,
        model: Q4_1_GGUF,
        options: "engine: 'wllama'",
        is_exact: false,
    },
    Peer {
        name: "wllama_f32",
        package: WLLAMA,
        model: F32_GGUF,
        options: "engine: 'wllama'",
        is_exact: true,
    },
];

/// Packages, exports and what exports them: outside the clone, about 2 GB.
fn folder() -> PathBuf {
    paths::cache_dir().join("peers")
}

/// Whether the package lies in the folder, in its version.
fn is_installed(folder: &Path, package: &Package) -> bool {
    let manifest = std::fs::read(folder.join("node_modules").join(package.name).join("package.json"));
    let manifest = manifest.ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    manifest.is_some_and(|manifest| manifest["version"] == package.version)
}

/// Installs the engines and exports the weights, unless that was done. Without Python only wllama is left, with the file itself.
pub fn install() -> anyhow::Result<()> {
    let folder = folder();
    std::fs::create_dir_all(folder.join("models"))?;
    let packages = [&ONNXRUNTIME_WEB, &WLLAMA];
    if !packages.iter().all(|package| is_installed(&folder, package)) {
        let npm = find_program("npm").context("the other engines come from npm; install Node.js")?;
        say("installing onnxruntime-web and wllama from npm");
        let mut command = Command::new(npm);
        command.args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]);
        command.arg("--prefix").arg(&folder);
        command.args(packages.map(|package| format!("{}@{}", package.name, package.version)));
        run_beside_json(&mut command)?;
    }
    let model = folder.join("models").join(Q4_1_GGUF);
    if !model.is_file() {
        std::fs::hard_link(smollm2_path(), &model)
            .or_else(|_| std::fs::copy(smollm2_path(), &model).map(|_| ()))?;
    }
    export(&folder)
}

/// Exports the weights unless these very scripts did.
fn export(folder: &Path) -> anyhow::Result<()> {
    if exports_are_current(folder) {
        return Ok(());
    }
    let Some(python) = ["python3", "python"].into_iter().find_map(find_program) else {
        say("there is no Python, which exports the weights: onnxruntime-web and wllama on f32 are left out");
        return Ok(());
    };
    say("exporting SmolLM2 as ONNX and as GGUF in f32 (about a minute)");
    let environment = folder.join("python");
    run_beside_json(Command::new(python).args(["-m", "venv"]).arg(&environment))?;
    let programs = if cfg!(windows) { "Scripts" } else { "bin" };
    let python = || Command::new(environment.join(programs).join("python"));
    run_beside_json(python().args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))?;
    let script = |name: &str| paths::root().join("tests/bench").join(name);
    let model = |name: &str| folder.join("models").join(name);
    let mut command = python();
    command.arg(script("export_onnx.py")).arg("--model").arg(smollm2_path());
    run_beside_json(command.arg("--output").arg(model(F32_ONNX)).arg("--int8").arg(model(INT8_ONNX)))?;
    let mut command = python();
    command.arg(script("dequantise_gguf.py")).arg("--model").arg(smollm2_path());
    run_beside_json(command.arg("--output").arg(model(F32_GGUF)))?;
    Ok(std::fs::write(folder.join(STAMP), made_from())?)
}

/// What decides what the exports hold.
fn made_from() -> String {
    format!("{SMOLLM2_SHA256}\n{PYTHON_PACKAGES:?}\n{EXPORT_ONNX}\n{DEQUANTISE_GGUF}")
}

/// Whether these very scripts wrote the exports.
fn exports_are_current(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == made_from())
}

/// Runs a command whose output is no result: standard output is the report's.
fn run_beside_json(command: &mut Command) -> anyhow::Result<()> {
    run(command.stdout(std::io::stderr()))
}

/// Compares the page with every engine that is installed, on one browser's CPU: an object with an entry an engine, null where
/// it is not installed; null when none is.
pub async fn measure(
    browser: &Browser,
    page: SocketAddr,
    lengths: &[usize],
    repeats: usize,
) -> anyhow::Result<Value> {
    let folder = folder();
    let is_there = |peer: &Peer| {
        is_installed(&folder, &peer.package) && folder.join("models").join(peer.model).is_file()
    };
    if !PEERS.iter().any(is_there) {
        return Ok(Value::Null);
    }
    std::fs::write(folder.join("peers.js"), SCRIPT)?;
    let files = serve_dir(&folder, Serving::default()).await?;
    let mut report = json!({});
    for peer in &PEERS {
        report[peer.name] = Value::Null;
        if is_there(peer) {
            say(&format!("measuring {}", peer.name));
            let measured = measure_peer(browser, page, files, peer, lengths, repeats).await;
            // One engine's failure should not cost what the others took minutes for.
            report[peer.name] = measured.unwrap_or_else(|error| json!({ "failed": format!("{error:#}") }));
        }
    }
    Ok(report)
}

/// One engine in a page of its own, so that it finds memory as the others did. Each length is a script, because a script may take
/// only so long.
async fn measure_peer(
    browser: &Browser,
    page: SocketAddr,
    files: SocketAddr,
    peer: &Peer,
    lengths: &[usize],
    repeats: usize,
) -> anyhow::Result<Value> {
    let Peer { package, model, options, is_exact, .. } = peer;
    browser.client.goto(&format!("http://{page}/")).await?;
    let begin = format!(
        "(async () => {{ await window.headlight.ready; const {{begin}} = await import('http://{files}/peers.js'); \
         window.peer = await begin({{model: 'models/{model}', {options}}}); }})()"
    );
    browser.eval(&begin).await?;
    let agreement = browser.eval(&format!("window.peer.agree({AGREEMENT_LENGTH})")).await?;
    ensure!(!is_exact || agrees(&agreement), "it computes another model: {agreement}");
    let mut prefill = Vec::new();
    for n_tokens in lengths {
        prefill.push(browser.eval(&format!("window.peer.measure({n_tokens}, {repeats})")).await?);
    }
    Ok(json!({ "version": package.version, "agreement": agreement, "prefill": prefill }))
}

/// Whether every difference is a number, and small.
fn agrees(agreement: &Value) -> bool {
    let is_small = |difference: &Value| difference.as_f64().is_some_and(|number| number <= EXACT_TOLERANCE);
    agreement
        .as_object()
        .is_some_and(|differences| !differences.is_empty() && differences.values().all(is_small))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_engine_with_other_numbers_or_none_is_refused() {
        assert!(agrees(&json!({ "logits": 4e-5, "patterns": 1e-5 })));
        assert!(!agrees(&json!({ "logits": 4e-5, "patterns": 0.6 })));
        // What JSON makes of NaN.
        assert!(!agrees(&json!({ "logits": null })));
        assert!(!agrees(&json!({})));
    }

    #[test]
    fn a_package_of_another_version_counts_as_missing() {
        let folder = std::env::temp_dir().join(format!("headlight-peers-{}", std::process::id()));
        let package = folder.join("node_modules").join(WLLAMA.name);
        std::fs::create_dir_all(&package).expect("the temporary folder is writable");
        assert!(!is_installed(&folder, &WLLAMA));
        let write = |version: &str| {
            let manifest = json!({ "name": WLLAMA.name, "version": version }).to_string();
            std::fs::write(package.join("package.json"), manifest).expect("writable");
        };
        write(WLLAMA.version);
        assert!(is_installed(&folder, &WLLAMA));
        write("0.0.1");
        assert!(!is_installed(&folder, &WLLAMA));
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }
}
