//! The command line as tests call it: the program that was built beside them, its JSON, its complaints, and a folder with a tiny
//! model to call it on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::tiny::TinyConfig;

/// The program that `cargo build --bin headlight` leaves beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("target/profile/deps/test");
    profile.join("headlight")
}

/// Runs the program.
///
/// # Panics
/// When it is not built.
pub fn headlight(arguments: &[&str]) -> Output {
    headlight_into(Stdio::piped(), arguments)
}

/// Runs the program; what it prints goes there.
///
/// # Panics
/// When it is not built.
pub fn headlight_into(stdout: impl Into<Stdio>, arguments: &[&str]) -> Output {
    let output = Command::new(program()).args(arguments).stdout(stdout).output();
    output.expect("headlight is built: cargo build --bin headlight")
}

/// What a call that must succeed prints.
///
/// # Panics
/// When it fails, or prints no JSON.
pub fn json(arguments: &[&str]) -> Value {
    let output = headlight(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

/// The sentence on stderr of a call that must fail.
///
/// # Panics
/// When it succeeds, panics, or says anything but one line.
pub fn complaint(arguments: &[&str]) -> String {
    let output = headlight(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert!(output.stdout.is_empty(), "a failure prints no report");
    assert!(!told.contains("panicked"), "{told}");
    assert_eq!(told.trim().lines().count(), 1, "one sentence: {told}");
    told
}

/// A tiny model's folder, named after its test, with one file replaced if asked.
///
/// # Panics
/// When the temporary folder cannot be written.
pub fn folder(config: TinyConfig, name: &str, replaced: Option<(&str, &[u8])>) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("headlight-cli-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let files = config.checkpoint(3);
    for (name, bytes) in [
        ("config.json", files.config),
        ("tokenizer.json", files.tokenizer),
        ("model.safetensors", files.weights),
    ] {
        std::fs::write(folder.join(name), bytes).expect("writable");
    }
    if let Some((name, bytes)) = replaced {
        std::fs::write(folder.join(name), bytes).expect("writable");
    }
    folder
}

/// A path as an argument.
///
/// # Panics
/// When it is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}
