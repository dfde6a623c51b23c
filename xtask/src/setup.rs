//! Installs what is missing, and only that: the wasm32 target, Trunk, the wasm-bindgen CLI, wasm-opt, a browser.
//!
//! An ordinary machine takes the target from rustup. A Debian machine whose rustup must not download
//! (`RUSTUP_AUTO_INSTALL=0`) takes rustc from Debian's `rustc-web` and builds the target's standard library from
//! Debian's own source package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::paths;
use crate::shell::{cargo, find_program, read, run, say, succeeds};

const TARGET: &str = "wasm32-unknown-unknown";
const TRUNK_VERSION: &str = "0.22.1";
const BINARYEN_VERSION: &str = "132.0.0";
/// Name under which rustup knows Debian's compiler.
const DEBIAN_TOOLCHAIN: &str = "debian-web";

/// Whether missing things may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Install {
    /// Yes.
    Allowed,
    /// No: say what is missing instead.
    Refused,
}

impl Install {
    fn or_explain(self, what: &str, how: &str) -> anyhow::Result<()> {
        match self {
            Self::Allowed => {
                say(&format!("installing {what}"));
                Ok(())
            }
            Self::Refused => bail!("{what} is missing and --no-install was given; install it with: {how}"),
        }
    }
}

/// Everything that building the page needs.
pub fn for_build(install: Install) -> anyhow::Result<()> {
    wasm_target(install)?;
    wasm_bindgen(install)?;
    trunk(install)?;
    wasm_opt(install)
}

/// The tool chain that compiles for wasm32, for `RUSTUP_TOOLCHAIN`; `None` is the default one.
pub fn wasm_toolchain() -> Option<&'static str> {
    (!compiles(Command::new("rustc")) && debian_link_exists()).then_some(DEBIAN_TOOLCHAIN)
}

fn debian_link_exists() -> bool {
    succeeds(Command::new("rustup").args(["run", DEBIAN_TOOLCHAIN, "rustc", "--version"]))
}

/// Whether this rustc finds the target's standard library and a linker.
fn compiles(mut rustc: Command) -> bool {
    let folder = std::env::temp_dir().join(format!("headlight-probe-{}", std::process::id()));
    let mut probe = || -> anyhow::Result<bool> {
        std::fs::create_dir_all(&folder)?;
        let source = folder.join("probe.rs");
        std::fs::write(
            &source,
            "#[unsafe(no_mangle)] pub extern \"C\" fn f(x: u32) -> usize { format!(\"{x}\").len() }\n",
        )?;
        rustc.args(["--edition", "2024", "--crate-type", "cdylib", "--target", TARGET, "-o"]);
        rustc.arg(folder.join("probe.wasm")).arg(source).env_remove("RUSTUP_TOOLCHAIN");
        Ok(succeeds(&mut rustc))
    };
    let works = probe().unwrap_or(false);
    let _ = std::fs::remove_dir_all(&folder);
    works
}

fn wasm_target(install: Install) -> anyhow::Result<()> {
    if compiles(Command::new("rustc")) {
        return Ok(());
    }
    if debian_link_exists() && compiles(Command::new("/usr/bin/rustc")) {
        return Ok(());
    }
    install.or_explain(&format!("the {TARGET} target"), &format!("rustup target add {TARGET}"))?;
    let may_download = std::env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0");
    if may_download && run(Command::new("rustup").args(["target", "add", TARGET])).is_ok() {
        return Ok(());
    }
    debian_target()
}

fn debian_target() -> anyhow::Result<()> {
    ensure!(
        find_program("apt-get").is_some(),
        "rustup cannot add {TARGET} and there is no apt-get; add it by hand"
    );
    apt_install(&["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"])?;
    let version = read(Command::new("/usr/bin/rustc").arg("-vV"))?;
    let field = |name: &str| {
        let line = version.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned()).with_context(|| format!("rustc -vV names no {name}"))
    };
    let llvm = field("LLVM version:")?;
    let llvm = llvm.split('.').next().unwrap_or_default().to_owned();
    apt_install(&[&format!("lld-{llvm}")])?;
    // rustc looks for its wasm linker under this name here; Debian ships it under another.
    let linkers = PathBuf::from(format!("/usr/lib/rustlib/{}/bin", field("host:")?));
    as_root(Command::new("mkdir").arg("-p").arg(&linkers))?;
    as_root(
        Command::new("ln")
            .arg("-sfn")
            .arg(format!("/usr/lib/llvm-{llvm}/bin/lld"))
            .arg(linkers.join("rust-lld")),
    )?;
    if !compiles(Command::new("/usr/bin/rustc")) {
        build_std(&field("commit-hash:")?)?;
    }
    ensure!(compiles(Command::new("/usr/bin/rustc")), "Debian's rustc still cannot build for {TARGET}");
    link_debian_toolchain()
}

/// Builds the target's standard library from Debian's source as a release is built, and installs it.
fn build_std(commit: &str) -> anyhow::Result<()> {
    say("building the standard library for wasm32 (about a minute)");
    let library = std::fs::canonicalize("/usr/lib/rustlib/src/rust/library")
        .context("Debian's rust source is missing")?;
    let library = library.to_string_lossy();
    let work = paths::cache_dir().join("std-build");
    std::fs::create_dir_all(work.join("src"))?;
    std::fs::write(work.join("src/lib.rs"), "#![no_std]\n")?;
    std::fs::copy(format!("{library}/Cargo.lock"), work.join("Cargo.lock"))?;
    let workspace_crates: String = ["core", "alloc", "std"]
        .map(|name| {
            format!("rustc-std-workspace-{name} = {{ path = \"{library}/rustc-std-workspace-{name}\" }}\n")
        })
        .concat();
    let manifest = format!(
        "[package]\nname = \"wasm-std\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         sysroot = {{ path = \"{library}/sysroot\", default-features = false, features = [\"panic-unwind\", \"backtrace\"] }}\n\n\
         [patch.crates-io]\n{workspace_crates}\n[profile.release]\ncodegen-units = 1\n\
         [profile.release.package.compiler_builtins]\ncodegen-units = 10000\n\n[workspace]\n"
    );
    std::fs::write(work.join("Cargo.toml"), manifest)?;
    let flags = format!(
        "-Zforce-unstable-if-unmarked -Cembed-bitcode=yes --remap-path-prefix={library}=/rustc/{commit}/library"
    );
    let mut build = cargo();
    build = with_program(build, "/usr/bin/cargo");
    build
        .current_dir(&work)
        .args([
            "build",
            "--quiet",
            "-p",
            "sysroot",
            "--release",
            "--offline",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(work.join("target"))
        .args(["--config", "source.crates-io.replace-with=\"vendored-sources\"", "--config"])
        .arg(format!("source.vendored-sources.directory=\"{library}/vendor\""))
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTFLAGS", flags)
        // The standard library's own source uses unstable features, whatever compiler builds it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_DEFAULT_LIB_METADATA", "headlight-wasm-std");
    run(&mut build)?;
    let built = work.join("target").join(TARGET).join("release/deps");
    let into = format!("/usr/lib/rustlib/{TARGET}/lib");
    as_root(Command::new("mkdir").arg("-p").arg(&into))?;
    for entry in std::fs::read_dir(&built)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libsysroot-") {
            as_root(Command::new("cp").arg(&path).arg(&into))?;
        }
    }
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

fn with_program(from: Command, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"] {
        command.env_remove(variable);
    }
    command
}

/// A folder that rustup takes as a tool chain: Debian's programs, and rustup's own rustfmt.
fn link_debian_toolchain() -> anyhow::Result<()> {
    if find_program("rustup").is_none() {
        return Ok(());
    }
    let folder = paths::tools_dir().join(DEBIAN_TOOLCHAIN);
    std::fs::create_dir_all(folder.join("bin"))?;
    std::fs::create_dir_all(folder.join("lib"))?;
    for program in ["rustc", "rustdoc", "cargo", "cargo-clippy", "clippy-driver"] {
        let from = Path::new("/usr/bin").join(program);
        if from.is_file() {
            run(Command::new("ln").arg("-sfn").arg(&from).arg(folder.join("bin").join(program)))?;
        }
    }
    run(Command::new("rustup").args(["toolchain", "link", DEBIAN_TOOLCHAIN]).arg(&folder))
}

fn as_root(command: &mut Command) -> anyhow::Result<()> {
    let is_root = read(Command::new("id").arg("-u")).is_ok_and(|id| id == "0");
    if is_root {
        return run(command);
    }
    run(Command::new("sudo").arg(command.get_program()).args(command.get_args()))
}

/// Installs those of Debian's packages that are missing.
fn apt_install(packages: &[&str]) -> anyhow::Result<()> {
    let installed = |package: &&&str| {
        let query = read(
            Command::new("dpkg-query")
                .args(["-W", "-f=${Status}", package])
                .stderr(std::process::Stdio::null()),
        );
        query.is_ok_and(|status| status == "install ok installed")
    };
    let missing: Vec<_> = packages.iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("apt-get install {}", missing.iter().map(|name| **name).collect::<Vec<_>>().join(" ")));
    as_root(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing);
    as_root(&mut apt)
}

/// The version that a program prints, such as `0.22.1`.
fn version_of(program: &str) -> Option<String> {
    let path = find_program(program)?;
    let printed = read(Command::new(path).arg("--version").stderr(std::process::Stdio::null())).ok()?;
    let start = printed.find(|c: char| c.is_ascii_digit())?;
    let version: String = printed[start..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    Some(version)
}

/// The wasm-bindgen version in `Cargo.lock`: its CLI must be the same.
pub fn locked_version(lock: &str, package: &str) -> Option<String> {
    let entry =
        lock.split("[[package]]").find(|entry| entry.contains(&format!("\nname = \"{package}\"\n")))?;
    let line = entry.lines().find_map(|line| line.strip_prefix("version = \""))?;
    Some(line.trim_end_matches('"').to_owned())
}

fn wasm_bindgen(install: Install) -> anyhow::Result<()> {
    let lock =
        std::fs::read_to_string(paths::root().join("Cargo.lock")).context("Cargo.lock cannot be read")?;
    let version = locked_version(&lock, "wasm-bindgen").context("Cargo.lock names no wasm-bindgen")?;
    if version_of("wasm-bindgen").as_ref() == Some(&version)
        && find_program("wasm-bindgen-test-runner").is_some()
    {
        return Ok(());
    }
    let what = format!("wasm-bindgen-cli {version} (about 4 minutes)");
    install.or_explain(&what, &format!("cargo install wasm-bindgen-cli --version {version}"))?;
    // Its default features only serve a WebDriver on another host.
    cargo_install("wasm-bindgen-cli", &version, &["--no-default-features"])
}

fn trunk(install: Install) -> anyhow::Result<()> {
    if version_of("trunk").as_deref() == Some(TRUNK_VERSION) {
        return Ok(());
    }
    let how = format!("cargo install trunk --version {TRUNK_VERSION}");
    install.or_explain(&format!("Trunk {TRUNK_VERSION} (about 5 minutes)"), &how)?;
    // It states a newer rustc than it needs.
    cargo_install("trunk", TRUNK_VERSION, &["--ignore-rust-version"])
}

fn cargo_install(package: &str, version: &str, extra: &[&str]) -> anyhow::Result<()> {
    let command = |locked: &[&str]| {
        let mut command = cargo();
        command.args(["install", package, "--version", version, "--root"]).arg(paths::tools_dir());
        command.args(extra).args(locked).env_remove("CARGO_TARGET_DIR");
        // Published release profiles link for minutes; a build tool gains nothing from that.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        command
    };
    // A registry's mirror can lack a version that the package's own lock file names.
    run(&mut command(&["--locked"])).or_else(|_| run(&mut command(&[])))
}

fn wasm_opt(install: Install) -> anyhow::Result<()> {
    let major = BINARYEN_VERSION.split('.').next().unwrap_or_default();
    if version_of("wasm-opt").is_some_and(|version| version == major) {
        return Ok(());
    }
    if find_program("npm").is_none() {
        say("there is no npm: Trunk fetches wasm-opt itself");
        return Ok(());
    }
    install
        .or_explain(&format!("wasm-opt {major}"), &format!("npm install -g binaryen@{BINARYEN_VERSION}"))?;
    let folder = paths::tools_dir();
    std::fs::create_dir_all(folder.join("bin"))?;
    let package = format!("binaryen@{BINARYEN_VERSION}");
    run(Command::new("npm")
        .args(["install", "--no-save", "--no-audit", "--no-fund", "--silent", "--prefix"])
        .arg(folder.join("npm"))
        .arg(package))?;
    let program = folder.join("npm/node_modules/binaryen/bin/wasm-opt");
    run(Command::new("ln").arg("-sfn").arg(program).arg(folder.join("bin/wasm-opt")))
}

/// A Chromium and its driver, for browser tests and benchmarks.
pub fn browser(install: Install) -> anyhow::Result<()> {
    if crate::browser::find_chromium().is_some() && find_program("chromedriver").is_some() {
        return Ok(());
    }
    let how = "apt-get install chromium chromium-driver (Debian), or install Chrome and chromedriver";
    if find_program("apt-get").is_none() {
        bail!("the browser tests need Chromium or Chrome and chromedriver on PATH: {how}");
    }
    install.or_explain("Chromium and its driver", how)?;
    apt_install(&["chromium", "chromium-driver"])
}

/// A driver through which native programs reach a graphics device, or a program that pretends to be one.
pub fn graphics(install: Install) -> anyhow::Result<()> {
    let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
    let has_driver = |folder: &str| {
        let mut files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|extension| extension == "json"))
    };
    // Others bring Metal or Direct3D with them.
    if !cfg!(target_os = "linux") || folders.into_iter().any(has_driver) {
        return Ok(());
    }
    let how = "apt-get install mesa-vulkan-drivers libvulkan1 (Debian), or install your card's Vulkan driver";
    if find_program("apt-get").is_none() {
        bail!("the tests of the WebGPU backend need a Vulkan driver: {how}");
    }
    install.or_explain("a Vulkan driver", how)?;
    apt_install(&["mesa-vulkan-drivers", "libvulkan1"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_locked_version_of_exactly_that_package() {
        let lock = "[[package]]\nname = \"wasm-bindgen-macro\"\nversion = \"9.9.9\"\n\n[[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\n";
        assert_eq!(locked_version(lock, "wasm-bindgen").as_deref(), Some("0.2.130"));
        assert_eq!(locked_version(lock, "trunk"), None);
    }

    #[test]
    fn what_is_missing_is_named_when_installing_is_refused() {
        let error = Install::Refused.or_explain("Trunk", "cargo install trunk").expect_err("refused");
        assert!(error.to_string().contains("cargo install trunk"));
    }
}
