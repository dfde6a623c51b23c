//! From a [`ModelSource`] to an engine: find the bytes, check them, unpack them.

use std::cell::RefCell;
use std::rc::Rc;

use headlight_core::engine::{Engine, Loading};

use super::cancel::Breather;
use super::fetch::{self, Fetched};
use super::post::{self, Reporter};
use super::session::Session;
use crate::protocol::{ErrorReport, ModelFormat, ModelSource, Reply, Stage};

/// From this size on the loaded model makes room before the next one is unpacked.
const LARGE_BYTES: usize = 64 << 20;

/// Loads a model; the loaded one stays when this fails before unpacking.
pub async fn load(session: &RefCell<Session>, id: u32, source: ModelSource) -> Result<Reply, ErrorReport> {
    let mut cached = false;
    let mut cache_note = None;
    let mut n_bytes = 0;
    let loading = match source.format {
        ModelFormat::Folder => open_folder(id, &source).await?,
        ModelFormat::Gguf => {
            let from_cache = match &source.sha256 {
                Some(sha256) => fetch::read_cached(id, sha256).await?,
                None => None,
            };
            cached = from_cache.is_some();
            let fetched = match from_cache {
                Some(fetched) => fetched,
                None => download_checked(id, &source).await?,
            };
            n_bytes = fetched.bytes.len();
            if !cached && source.sha256.is_some() {
                cache_note = fetch::store(&fetched.sha256, &fetched.bytes).await.err();
                cached = cache_note.is_none();
            }
            Loading::from_gguf(fetched.bytes, &source.id).map_err(|error| post::engine_error(&error))?
        }
    };
    if n_bytes > LARGE_BYTES {
        session.borrow_mut().clear();
    }
    let engine = unpack(id, loading).await?;
    let info = engine.info().clone();
    session.borrow_mut().replace(Rc::new(engine));
    Ok(Reply::Loaded { info, cached, cache_note })
}

async fn unpack(id: u32, mut loading: Loading) -> Result<Engine, ErrorReport> {
    let mut reporter = Reporter::new(id, Stage::Unpack);
    let mut breather = Breather::new(id);
    while !loading.step().map_err(|error| post::engine_error(&error))? {
        reporter.report(loading.n_done() as u64, Some(loading.n_total() as u64));
        breather.breathe().await?;
    }
    loading.finish().map_err(|error| post::engine_error(&error))
}

/// The first of the source's addresses that answers with the right bytes.
async fn download_checked(id: u32, source: &ModelSource) -> Result<Fetched, ErrorReport> {
    let mut last_error = post::error("download", "the model names no address");
    for url in &source.urls {
        match fetch::download(id, url, source.size_bytes).await {
            Ok(fetched) if source.sha256.as_ref().is_none_or(|sha256| *sha256 == fetched.sha256) => {
                return Ok(fetched);
            }
            Ok(fetched) => last_error = wrong_checksum(url, source, &fetched),
            Err(error) if error.code == "cancelled" => return Err(error),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn wrong_checksum(url: &str, source: &ModelSource, fetched: &Fetched) -> ErrorReport {
    let wanted = source.sha256.as_deref().unwrap_or_default();
    ErrorReport {
        detail: Some(format!("sha256 {}, expected {wanted}, {} bytes", fetched.sha256, fetched.bytes.len())),
        ..post::error(
            "checksum",
            &format!(
                "what {url} gave is not {}: its checksum is wrong, so it was not loaded; try again",
                source.id
            ),
        )
    }
}

async fn open_folder(id: u32, source: &ModelSource) -> Result<Loading, ErrorReport> {
    let folder = source.urls.first().map(String::as_str).unwrap_or_default();
    let file = async |name: &str| fetch::download(id, &format!("{folder}/{name}"), None).await;
    let config = file("config.json").await?;
    let tokenizer = file("tokenizer.json").await?;
    let weights = file("model.safetensors").await?;
    Loading::from_folder(&config.bytes, &tokenizer.bytes, vec![weights.bytes], &source.id)
        .map_err(|error| post::engine_error(&error))
}
