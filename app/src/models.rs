//! The models that the page offers: the manifest in `static/models.json`, compiled in.

use serde::{Deserialize, Serialize};

use crate::protocol::{ModelFormat, ModelSource};

/// A model of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ManifestModel {
    /// Name for people.
    pub title: String,
    /// One sentence.
    pub description: String,
    /// Whether it comes with the page.
    pub bundled: bool,
    /// Licence.
    pub licence: String,
    /// Where it comes from, for people.
    pub homepage: String,
    /// What the worker needs to load it.
    #[serde(flatten)]
    pub source: ModelSource,
}

/// Id of the model on which the page opens.
pub const FIRST_MODEL: &str = "induction-2l";

/// Every model of the manifest, in its order.
///
/// # Panics
/// Never: a test parses the manifest that is compiled in.
pub fn manifest() -> Vec<ManifestModel> {
    // By way of a value, as links are read: a reader of each type for text as well would only take room.
    let value = serde_json::from_str::<serde_json::Value>(include_str!("../../static/models.json"));
    value.and_then(serde_json::from_value).expect("the manifest is tested")
}

/// A model of the manifest by id.
pub fn find(id: &str) -> Option<ManifestModel> {
    manifest().into_iter().find(|model| model.source.id == id)
}

/// What `headlight.load` was asked for: an id of the manifest, or the address of a GGUF file.
pub fn source_of(model: &str) -> Option<ModelSource> {
    if let Some(known) = find(model) {
        return Some(known.source);
    }
    let is_address = ["https://", "http://", "blob:", "./", "/"].iter().any(|start| model.starts_with(start));
    let id = model.rsplit('/').next().unwrap_or(model).to_owned();
    let gguf = is_address.then(|| vec![model.to_owned()]);
    gguf.map(|urls| ModelSource {
        id,
        format: ModelFormat::Gguf,
        sha256: None,
        size_bytes: None,
        urls,
        golden: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_parses_and_its_downloads_are_pinned() {
        let models = manifest();
        assert!(find(FIRST_MODEL).is_some_and(|model| model.bundled));
        for model in &models {
            let golden = model.source.golden.as_ref().expect("every model of the manifest has golden logits");
            assert!(golden.ids.len() >= 8 && golden.logits.len() == golden.ids.len());
            assert!(golden.logits.iter().all(|row| row.len() == golden.ids.len()));
        }
        for model in models.iter().filter(|model| !model.bundled) {
            let source = &model.source;
            assert_eq!(source.sha256.as_ref().map(String::len), Some(64), "{}", source.id);
            assert!(source.size_bytes.is_some(), "{}", source.id);
        }
    }

    #[test]
    fn a_load_names_an_id_or_an_address() {
        assert_eq!(source_of("smollm2-135m"), find("smollm2-135m").map(|model| model.source));
        assert_eq!(
            source_of("https://example.org/a/b.gguf").map(|source| source.id).as_deref(),
            Some("b.gguf")
        );
        assert_eq!(source_of("no-such-model"), None);
    }
}
