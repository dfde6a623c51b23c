//! Bytes of a model's files: from this browser's cache or from the network, streamed and counted. Whether they are the right ones is
//! `load`'s to say.

use js_sys::{Array, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, Cache, Headers, ReadableStreamDefaultReader, Response, ResponseInit};

use super::RequestId;
use super::cancel::Breather;
use super::post::{self, Reporter};
use crate::memory;
use crate::protocol::{ErrorReport, ModelFormat, Stage};

/// Name of this version's cache; a change of what is stored needs a new one.
const CACHE: &str = "headlight-models-1";

/// Bytes that are put into one blob.
const BLOB_BYTES: u32 = 8 << 20;

/// Asks for one address, relative to the worker's own; the answer's body is still to come.
pub async fn open(url: &str) -> Result<Response, ErrorReport> {
    let failed =
        |why: String| post::error("download", &format!("nothing could be fetched from {url}: {why}"));
    let address = address(url).ok_or_else(|| failed("it is no address".to_owned()))?;
    let response = JsFuture::from(super::scope().fetch_with_str(&address)).await.map_err(|_| {
        failed("no connection, or that site does not allow it; check and try again".to_owned())
    })?;
    let response: Response = response.unchecked_into();
    if !response.ok() {
        return Err(failed(format!("the server answered {}", response.status())));
    }
    let kind = response.headers().get("content-type").ok().flatten().unwrap_or_default();
    if kind.starts_with("text/html") {
        return Err(post::error(
            "not_a_model",
            &format!("a web page came from {url} instead of a model; check the address"),
        ));
    }
    Ok(response)
}

/// Fetches one address whole.
pub async fn download(id: RequestId, url: &str) -> Result<Vec<u8>, ErrorReport> {
    let response = open(url).await?;
    let mut bytes = Vec::with_capacity(size_of(&response).unwrap_or(0) as usize);
    let body = Body { id, response, stage: Stage::Download, total: None, form: ModelFormat::Folder };
    let take = |chunk: &Uint8Array| {
        bytes.extend(chunk.to_vec());
        Ok(())
    };
    body.read(take).await?;
    Ok(bytes)
}

/// A whole address; relative ones are relative to the page's folder.
pub fn address(url: &str) -> Option<String> {
    let base = super::told("headlightBase").unwrap_or_else(|| super::scope().location().href());
    web_sys::Url::new_with_base(url, &base).ok().map(|address| address.href())
}

/// How long a response says that it is; it may be wrong.
fn size_of(response: &Response) -> Option<u64> {
    response.headers().get("content-length").ok().flatten()?.parse().ok()
}

/// A file that is to be read.
pub struct Body {
    /// For which request.
    pub id: RequestId,
    /// Where it comes from.
    pub response: Response,
    /// What progress is told of.
    pub stage: Stage,
    /// Its length where the response tells none.
    pub total: Option<u64>,
    /// What it is a file of, which says how much memory it takes.
    pub form: ModelFormat,
}

impl Body {
    /// How long it is said to be; it may be wrong.
    pub fn told_bytes(&self) -> Option<u64> {
        size_of(&self.response).or(self.total)
    }

    /// Reads it to its end, piece by piece, and reports progress.
    pub async fn read(
        self,
        mut take: impl FnMut(&Uint8Array) -> Result<(), ErrorReport>,
    ) -> Result<(), ErrorReport> {
        let total = self.told_bytes();
        let memory_gib = super::memory_gib();
        let check = |n_bytes: u64| {
            memory::check(n_bytes, self.form, memory_gib).map_err(|told| post::error("too_large", &told))
        };
        check(total.unwrap_or(0))?;
        let lost = || post::error("download", "the connection was lost; try again");
        let body = self.response.body().ok_or_else(lost)?;
        let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
        let mut reporter = Reporter::new(self.id, self.stage);
        let mut breather = Breather::new(self.id);
        let mut n_bytes = 0;
        loop {
            let chunk = JsFuture::from(reader.read()).await.map_err(|_| lost())?;
            if Reflect::get(&chunk, &"done".into()).is_ok_and(|done| done.is_truthy()) {
                return Ok(());
            }
            let chunk: Uint8Array =
                Reflect::get(&chunk, &"value".into()).map_err(|_| lost())?.unchecked_into();
            n_bytes += u64::from(chunk.length());
            reporter.report(n_bytes, total);
            // A server may tell no length, or a wrong one.
            let taken = check(n_bytes).and_then(|()| take(&chunk));
            let breath = match taken {
                Ok(()) => breather.breathe().await,
                Err(error) => Err(error),
            };
            if let Err(error) = breath {
                // Ends the transfer; there is nothing to do if that fails.
                let _ = reader.cancel();
                return Err(error);
            }
        }
    }
}

/// A file's bytes beside this program's memory, until it is known whether they are worth keeping: the browser's, which may put them
/// on the disk.
#[derive(Default)]
pub struct Aside {
    blobs: Array,
    recent: Array,
    n_recent_bytes: u32,
}

impl Aside {
    /// Puts the next piece there.
    pub fn add(&mut self, chunk: &Uint8Array) {
        self.recent.push(chunk);
        self.n_recent_bytes += chunk.length();
        if self.n_recent_bytes >= BLOB_BYTES
            && let Ok(blob) = Blob::new_with_u8_array_sequence(&self.recent)
        {
            self.blobs.push(&blob);
            (self.recent, self.n_recent_bytes) = (Array::new(), 0);
        }
    }

    /// All of it, as a response that tells its length.
    fn into_response(self) -> Result<Response, JsValue> {
        let rest = Blob::new_with_u8_array_sequence(&self.recent)?;
        self.blobs.push(&rest);
        let blob = Blob::new_with_blob_sequence(&self.blobs)?;
        let headers = Headers::new()?;
        headers.set("content-length", &blob.size().to_string())?;
        let init = ResponseInit::new();
        init.set_headers(&headers);
        Response::new_with_opt_blob_and_init(Some(&blob), &init)
    }
}

/// The model cache; `None` where the browser has or allows none.
async fn open_cache() -> Option<Cache> {
    let global = super::scope();
    // Where storage is not allowed the property throws or is absent.
    let caches = Reflect::get(&global, &"caches".into()).ok().filter(|caches| !caches.is_undefined())?;
    let caches: web_sys::CacheStorage = caches.unchecked_into();
    let cache = JsFuture::from(caches.open(CACHE)).await.ok()?;
    Some(cache.unchecked_into())
}

/// The name under which weights are stored.
fn cache_key(sha256: &str) -> String {
    format!("headlight-model-{sha256}")
}

/// Whether models can be stored at all.
pub async fn can_store() -> bool {
    open_cache().await.is_some()
}

/// Weights from the cache, if they are there; they are to be checked.
pub async fn cached(sha256: &str) -> Option<Response> {
    let found = JsFuture::from(open_cache().await?.match_with_str(&cache_key(sha256))).await.ok()?;
    (!found.is_undefined()).then(|| found.unchecked_into())
}

/// Stores weights; a sentence when that is not possible.
pub async fn store(sha256: &str, bytes: Aside) -> Result<(), String> {
    let cache = open_cache()
        .await
        .ok_or("this browser or frame allows no storage, so the model is fetched anew each time")?;
    let response = bytes.into_response().map_err(|_| "the model could not be stored")?;
    JsFuture::from(cache.put_with_str(&cache_key(sha256), &response)).await.map_err(|_| {
        "there is no room to keep the model in this browser; free some space, or it is fetched anew each time".to_owned()
    })?;
    Ok(())
}

/// Whether weights are stored.
pub async fn is_cached(sha256: &str) -> bool {
    let Some(cache) = open_cache().await else { return false };
    let found = JsFuture::from(cache.match_with_str(&cache_key(sha256))).await;
    found.is_ok_and(|found| !found.is_undefined())
}

/// Deletes stored weights, if there are any.
pub async fn delete_cached(sha256: &str) {
    if let Some(cache) = open_cache().await {
        let _ = JsFuture::from(cache.delete_with_str(&cache_key(sha256))).await;
    }
}
