//! Builds the page into `dist/` with Trunk, and holds the wasm files to their size budget.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::shell::{cargo, run, say, tools_path};
use crate::{models, paths, relaxed, setup};

/// Which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Optimised, as it is published.
    Release,
    /// Quick to build.
    Dev,
}

/// Largest brotli size of the page's wasm, bytes.
const PAGE_BUDGET: usize = 700_000;
/// Largest brotli size of the worker's wasm, bytes.
const WORKER_BUDGET: usize = 1_500_000;

/// What the page is made of, relative to the root.
const SOURCES: [&str; 8] = [
    "app",
    "core",
    "static",
    "Cargo.toml",
    "Cargo.lock",
    "Trunk.toml",
    ".cargo/config.toml",
    "xtask/src/relaxed.rs",
];
/// The file in `dist/` that names the sources it was built from; Trunk deletes it with everything else.
const STAMP: &str = "sources.sha256";

/// Builds `dist/` for release, unless it was built from these very sources.
pub fn build_unless_current() -> anyhow::Result<()> {
    let wanted = sha256_of(&SOURCES.map(|source| paths::root().join(source)))?;
    let stamp = paths::dist().join(STAMP);
    if std::fs::read_to_string(&stamp).is_ok_and(|built_from| built_from == wanted) {
        say("the page is up to date");
        return models::link_into_dist();
    }
    build(Profile::Release)?;
    Ok(std::fs::write(stamp, wanted)?)
}

/// sha256 over names and contents of files and of everything below folders, in a fixed order.
fn sha256_of(sources: &[PathBuf]) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let mut todo: Vec<PathBuf> = sources.to_vec();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
            let mut inside: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
            inside.sort();
            todo.extend(inside);
        } else {
            hash.update(path.to_string_lossy().as_bytes());
            hash.update(std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Builds `dist/`.
pub fn build(profile: Profile) -> anyhow::Result<()> {
    say("building the page");
    let trunk = crate::shell::find_program("trunk").context("Trunk is missing; run cargo xtask setup")?;
    let mut command = std::process::Command::new(trunk);
    for (name, value) in cargo().get_envs() {
        if value.is_none() {
            command.env_remove(name);
        }
    }
    command.current_dir(paths::root()).env("PATH", tools_path()?).arg("build").env_remove("NO_COLOR");
    if profile == Profile::Release {
        command.args(["--release", "--cargo-profile", "page"]);
    }
    if crate::shell::find_program("wasm-opt").is_some() {
        command.arg("--offline");
    }
    if let Some(toolchain) = setup::wasm_toolchain() {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    // Trunk's log is no result: standard output is the JSON's that some commands print.
    run(command.stdout(std::io::stderr()))?;
    relaxed::build(&paths::dist())?;
    models::link_into_dist()
}

/// Builds `dist/` for release and holds it to its size budget. Only tests do: another compiler's few hundred bytes more keep
/// nobody from using the page.
pub fn build_within_budget() -> anyhow::Result<()> {
    build(Profile::Release)?;
    check_sizes(&paths::dist())
}

/// Prints every wasm file's size, raw and brotli; fails over budget.
fn check_sizes(dist: &Path) -> anyhow::Result<()> {
    let mut over = Vec::new();
    for entry in std::fs::read_dir(dist)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        let compressed = brotli_size(&bytes)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let budget = budget_of(&name);
        say(&format!(
            "{name}: {} KB, {} KB brotli (budget {} KB)",
            bytes.len() / 1000,
            compressed / 1000,
            budget / 1000
        ));
        if compressed > budget {
            over.push(name);
        }
    }
    if !over.is_empty() {
        bail!("over the size budget: {}", over.join(", "));
    }
    Ok(())
}

fn budget_of(name: &str) -> usize {
    if name.contains("worker") { WORKER_BUDGET } else { PAGE_BUDGET }
}

fn brotli_size(bytes: &[u8]) -> anyhow::Result<usize> {
    let mut compressed = Vec::new();
    // Quality 9 is what a static host serves; 11 takes a minute for 2 % less.
    let mut writer = brotli::CompressorWriter::new(&mut compressed, 1 << 16, 9, 22);
    writer.write_all(bytes)?;
    drop(writer);
    Ok(compressed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_added_or_renamed_source_is_seen() {
        let folder = std::env::temp_dir().join(format!("headlight-sources-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("inner")).expect("the temporary folder is writable");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("writable");
        let hash = || sha256_of(std::slice::from_ref(&folder)).expect("readable");
        write("inner/a", "one");
        let first = hash();
        assert_eq!(hash(), first);
        write("inner/a", "two");
        let second = hash();
        assert_ne!(second, first);
        write("b", "");
        let third = hash();
        assert_ne!(third, second);
        std::fs::rename(folder.join("b"), folder.join("c")).expect("ours");
        assert_ne!(hash(), third);
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }

    #[test]
    fn a_file_over_budget_fails() {
        let folder = std::env::temp_dir().join(format!("headlight-sizes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let write = |n: usize| {
            // Bytes that do not compress: a linear congruential sequence (Numerical Recipes' constants).
            let mut state = 1u32;
            let noise: Vec<u8> = (0..n)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            std::fs::write(folder.join("page_bg.wasm"), noise).expect("the file is writable");
        };
        write(1000);
        assert!(check_sizes(&folder).is_ok());
        write(PAGE_BUDGET + 100_000);
        assert!(check_sizes(&folder).is_err());
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }
}
