//! Bytes of a model's files: from this browser's cache or from the network, streamed, counted and checked.

use js_sys::{Reflect, Uint8Array};
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Cache, ReadableStreamDefaultReader, Response};

use super::RequestId;
use super::cancel::Breather;
use super::post::{self, Reporter};
use crate::memory;
use crate::protocol::{ErrorReport, Stage};

/// Name of this version's cache; a change of what is stored needs a new one.
const CACHE: &str = "headlight-models-1";

/// A model's file as it arrived.
pub struct Fetched {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their sha256, hex.
    pub sha256: String,
}

/// Fetches one address, relative to the worker's own.
pub async fn download(id: RequestId, url: &str, size_bytes: Option<u64>) -> Result<Fetched, ErrorReport> {
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
    read_body(id, &response, Stage::Download, size_bytes).await
}

/// A whole address; relative ones are relative to the page's folder.
pub fn address(url: &str) -> Option<String> {
    let base = super::told("headlightBase").unwrap_or_else(|| super::scope().location().href());
    web_sys::Url::new_with_base(url, &base).ok().map(|address| address.href())
}

/// Reads a response to its end, reporting progress.
async fn read_body(
    id: RequestId,
    response: &Response,
    stage: Stage,
    size_bytes: Option<u64>,
) -> Result<Fetched, ErrorReport> {
    let announced = response.headers().get("content-length").ok().flatten();
    let total = announced.and_then(|length| length.parse().ok()).or(size_bytes);
    let memory_gib = super::memory_gib();
    let check =
        |n_bytes: u64| memory::check(n_bytes, memory_gib).map_err(|told| post::error("too_large", &told));
    check(total.unwrap_or(0))?;
    let lost = || post::error("download", "the connection was lost; try again");
    let body = response.body().ok_or_else(lost)?;
    let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    let mut reporter = Reporter::new(id, stage);
    let mut breather = Breather::new(id);
    let mut hash = Sha256::new();
    let mut bytes: Vec<u8> = Vec::with_capacity(total.unwrap_or(0) as usize);
    loop {
        let chunk = JsFuture::from(reader.read()).await.map_err(|_| lost())?;
        if Reflect::get(&chunk, &"done".into()).is_ok_and(|done| done.is_truthy()) {
            break;
        }
        let chunk: Uint8Array = Reflect::get(&chunk, &"value".into()).map_err(|_| lost())?.unchecked_into();
        let start = bytes.len();
        // A server may tell no length, or a wrong one.
        check(start as u64 + u64::from(chunk.length()))?;
        bytes.resize(start + chunk.length() as usize, 0);
        chunk.copy_to(&mut bytes[start..]);
        hash.update(&bytes[start..]);
        reporter.report(bytes.len() as u64, total);
        if let Err(error) = breather.breathe().await {
            // Ends the transfer; there is nothing to do if that fails.
            let _ = reader.cancel();
            return Err(error);
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Fetched { bytes, sha256 })
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

/// Weights from the cache, if they are there.
pub async fn read_cached(id: RequestId, sha256: &str) -> Result<Option<Fetched>, ErrorReport> {
    let Some(cache) = open_cache().await else { return Ok(None) };
    let Ok(found) = JsFuture::from(cache.match_with_str(&cache_key(sha256))).await else { return Ok(None) };
    if found.is_undefined() {
        return Ok(None);
    }
    let response: Response = found.unchecked_into();
    let fetched = read_body(id, &response, Stage::ReadCache, None).await?;
    if fetched.sha256 == sha256 {
        return Ok(Some(fetched));
    }
    // A damaged entry is worse than none.
    delete_cached(sha256).await;
    Ok(None)
}

/// Stores weights; a sentence when that is not possible.
pub async fn store(sha256: &str, bytes: &[u8]) -> Result<(), String> {
    let cache = open_cache()
        .await
        .ok_or("this browser or frame allows no storage, so the model is fetched anew each time")?;
    let copy = Uint8Array::from(bytes);
    let response =
        Response::new_with_opt_js_u8_array(Some(&copy)).map_err(|_| "the model could not be stored")?;
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
