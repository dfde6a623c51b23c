//! Where things are. Tools, models and build caches live outside the clone, so that every clone shares them.

use std::path::PathBuf;

/// The clone's root: of the clone that cargo runs this in, because clones may share a build cache.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR");
    let manifest = manifest.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().expect("xtask lies in the clone's root").to_owned()
}

/// The built page.
pub fn dist() -> PathBuf {
    root().join("dist")
}

/// Screenshots and other things that tests leave to look at.
pub fn artifacts() -> PathBuf {
    root().join("artifacts")
}

fn home() -> PathBuf {
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
    home.map_or_else(std::env::temp_dir, PathBuf::from)
}

/// What can be made or fetched again.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    base.unwrap_or_else(|| home().join(".cache")).join("headlight")
}

/// Tools that were installed for Headlight alone.
pub fn tools_dir() -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    base.unwrap_or_else(|| home().join(".local/share")).join("headlight/tools")
}

/// Fetched models; `HEADLIGHT_MODEL_DIR` overrides.
pub fn models_dir() -> PathBuf {
    std::env::var_os("HEADLIGHT_MODEL_DIR").map_or_else(|| cache_dir().join("models"), PathBuf::from)
}
