//! `window.headlight`: the command line's calls from scripts on the page. Every promise resolves to the same JSON as
//! the command line prints, or rejects with an `Error` that has `code`, `recoverable` and `detail`.

use std::future::Future;

use headlight_core::detect::DOCS;
use headlight_core::ids::HeadId;
use headlight_core::report::{BosPolicy, RunRequest};
use js_sys::{Function, Object, Promise, Reflect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::client::Client;
use crate::models::{manifest, source_of};
use crate::protocol::{Call, ErrorReport, Reply};

/// Argument of `load`.
#[derive(Deserialize)]
struct LoadArgs {
    model: String,
    #[serde(default)]
    backend: Option<String>,
}

/// Second argument of `tokenize`.
#[derive(Default, Deserialize)]
struct TokenizeArgs {
    #[serde(default)]
    bos: BosPolicy,
}

/// Argument of `patterns`.
#[derive(Deserialize)]
struct PatternArgs {
    #[serde(flatten)]
    run: RunRequest,
    head: HeadId,
}

/// Argument of `bench`.
#[derive(Deserialize)]
struct BenchArgs {
    #[serde(default = "default_prefill")]
    prefill: Vec<usize>,
    #[serde(default = "default_repeats")]
    repeats: usize,
}

fn default_prefill() -> Vec<usize> {
    vec![64, 128, 512]
}

fn default_repeats() -> usize {
    3
}

/// Puts `headlight` on the window.
pub fn install(client: &Client) {
    let api = Object::new();
    set(&api, "version", &env!("CARGO_PKG_VERSION").into());
    let ready = client.clone();
    set(&api, "ready", &promise(async move { ready.first_model().await }));
    method(&api, "models", client, async |_, _: JsValue, _| Ok(manifest()));
    method(&api, "load", client, async |client, args: JsValue, _| {
        let args: LoadArgs = read(args)?;
        check_backend(args.backend.as_deref())?;
        let unknown =
            || bad_request(&format!("there is no model \"{}\"; see headlight.models()", args.model));
        client.choose_model(source_of(&args.model).ok_or_else(unknown)?).await
    });
    method(&api, "tokenize", client, async |client, text: JsValue, options| {
        let text = text.as_string().ok_or_else(|| bad_request("tokenize takes a text"))?;
        let args: TokenizeArgs =
            if options.is_undefined() { TokenizeArgs::default() } else { read(options)? };
        match client.request(Call::Tokenize { text, bos: args.bos }).await? {
            Reply::Tokens(report) => Ok(report),
            _ => Err(unexpected()),
        }
    });
    /// A method whose argument is a call's request and whose result is its report.
    macro_rules! request {
        ($name:literal, $call:ident) => {
            method(&api, $name, client, async |client, args: JsValue, _| {
                match client.request(Call::$call(read(args)?)).await? {
                    Reply::$call(report) => Ok(report),
                    _ => Err(unexpected()),
                }
            });
        };
    }
    request!("run", Run);
    request!("detect", Detect);
    request!("sweep", Sweep);
    request!("dla", Dla);
    request!("lens", Lens);
    request!("ov", Ov);
    request!("patch", Patch);
    request!("controls", Controls);
    request!("generate", Generate);
    request!("script", Script);
    method(&api, "patterns", client, async |client, args: JsValue, _| {
        let PatternArgs { run, head } = read(args)?;
        match client.request(Call::Patterns { run, head }).await? {
            Reply::Patterns(report) => Ok(report),
            _ => Err(unexpected()),
        }
    });
    method(&api, "detectors", client, async |_, _: JsValue, _| Ok(DOCS));
    method(&api, "bench", client, async |client, args: JsValue, _| {
        let args = if args.is_undefined() { Object::new().into() } else { args };
        let BenchArgs { prefill, repeats } = read(args)?;
        match client.request(Call::Bench { prefill, repeats }).await? {
            Reply::Bench(report) => Ok(report),
            _ => Err(unexpected()),
        }
    });
    method(&api, "cancel", client, async |client, _: JsValue, _| {
        client.cancel_view();
        client.cancel_load();
        Ok(())
    });
    let debug = Object::new();
    method(&debug, "crash", client, async |client, _: JsValue, _| {
        // Answered by the worker's end.
        match client.request(Call::Crash).await {
            Err(error) if error.code == "crashed" => Ok(()),
            _ => Err(unexpected()),
        }
    });
    set(&api, "debug", &debug);
    set(&js_sys::global(), "headlight", &api);
}

fn check_backend(backend: Option<&str>) -> Result<(), ErrorReport> {
    match backend {
        None | Some("auto" | "cpu") => Ok(()),
        Some(other) => {
            Err(bad_request(&format!("this build has no backend \"{other}\"; use \"cpu\" or \"auto\"")))
        }
    }
}

fn bad_request(message: &str) -> ErrorReport {
    ErrorReport {
        code: "bad_request".to_owned(),
        message: message.to_owned(),
        recoverable: true,
        detail: None,
    }
}

fn unexpected() -> ErrorReport {
    ErrorReport {
        code: "protocol".to_owned(),
        message: "the engine answered something else; reload the page".to_owned(),
        recoverable: false,
        detail: None,
    }
}

fn read<T: DeserializeOwned>(value: JsValue) -> Result<T, ErrorReport> {
    serde_wasm_bindgen::from_value(value)
        .map_err(|error| bad_request(&format!("the arguments do not fit: {error}")))
}

fn set(object: &Object, name: &str, value: &JsValue) {
    Reflect::set(object, &name.into(), value).expect("a plain object takes properties");
}

/// Adds an asynchronous method of up to two arguments.
fn method<T: Serialize + 'static, F>(
    object: &Object,
    name: &str,
    client: &Client,
    answer: impl Fn(Client, JsValue, JsValue) -> F + 'static,
) where
    F: Future<Output = Result<T, ErrorReport>> + 'static,
{
    let client = client.clone();
    let function = Closure::<dyn Fn(JsValue, JsValue) -> Promise>::new(move |first, second| {
        promise(answer(client.clone(), first, second))
    });
    let function: Function = function.into_js_value().unchecked_into();
    set(object, name, &function);
}

fn promise<T: Serialize>(answer: impl Future<Output = Result<T, ErrorReport>> + 'static) -> Promise {
    future_to_promise(async move {
        match answer.await {
            // JSON's own shapes: objects rather than maps, null rather than undefined.
            Ok(value) => {
                value.serialize(&serde_wasm_bindgen::Serializer::json_compatible()).map_err(JsValue::from)
            }
            Err(error) => Err(js_error(&error)),
        }
    })
}

fn js_error(report: &ErrorReport) -> JsValue {
    let error: Object = js_sys::Error::new(&report.message).into();
    set(&error, "code", &report.code.as_str().into());
    set(&error, "recoverable", &report.recoverable.into());
    set(&error, "detail", &report.detail.as_deref().map_or(JsValue::NULL, Into::into));
    error.into()
}
