//! Guards of the structure: what the core may use, that modules import downward, that files say what they are for.
//! Each guard is also shown a text that breaks it.

use std::path::{Path, PathBuf};

/// Modules of the core, lowest first.
const LAYERS: [&str; 17] = [
    "ids",
    "tensor",
    "activations",
    "model",
    "tokenizer",
    "hooks",
    "metrics",
    "backend",
    "forward",
    "decode",
    "detect",
    "ablate",
    "report",
    "script",
    "error",
    "engine",
    "bin",
];

/// What would be IO.
const IO: [&str; 6] = ["std::fs", "std::net", "std::time", "std::process", "web_sys", "std::env::"];

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    collect(&xtask::paths::root().join(folder), &mut files);
    assert!(!files.is_empty(), "no Rust file in {folder}");
    files
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            files.push((path, text));
        }
    }
}

fn io_in(text: &str) -> Option<&'static str> {
    IO.into_iter().find(|io| text.contains(io))
}

/// An import of `module` that lies above it.
fn upward_import(module: &str, text: &str) -> Option<String> {
    let level = LAYERS.iter().position(|layer| *layer == module)?;
    text.split("crate::").skip(1).find_map(|rest| {
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        LAYERS.iter().position(|layer| *layer == name).filter(|&imported| imported > level).map(|_| name)
    })
}

fn says_what_it_is_for(text: &str) -> bool {
    text.starts_with("//! ")
}

#[test]
fn the_core_does_no_io() {
    for (path, text) in rust_files("core/src") {
        if !path.to_string_lossy().contains("bin") {
            assert_eq!(io_in(&text), None, "{}", path.display());
        }
    }
    assert_eq!(io_in("use std::fs::File;"), Some("std::fs"), "the guard sees IO");
}

#[test]
fn modules_of_the_core_import_downward() {
    let root = xtask::paths::root().join("core/src");
    for (path, text) in rust_files("core/src") {
        let inside = path.strip_prefix(&root).expect("below the root");
        let module =
            inside.components().next().expect("a file").as_os_str().to_string_lossy().replace(".rs", "");
        if module != "lib" {
            assert!(LAYERS.contains(&module.as_str()), "{module} has no place among the layers");
            assert_eq!(upward_import(&module, &text), None, "{}", path.display());
        }
    }
    let planted = upward_import("hooks", "use crate::ids::HeadId;\nuse crate::engine::Engine;");
    assert_eq!(planted.as_deref(), Some("engine"), "the guard sees an upward import");
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["core/src", "app/src", "tests", "xtask"] {
        for (path, text) in rust_files(folder) {
            assert!(says_what_it_is_for(&text), "{} opens with no //! sentence", path.display());
        }
    }
    assert!(!says_what_it_is_for("use std::fmt;"), "the guard sees a file that does not");
}
