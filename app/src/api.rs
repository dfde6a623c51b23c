//! `window.headlight`: the command line's calls from scripts on the page. Every promise resolves to the same JSON as
//! the command line prints, or rejects with an `Error` that has `code`, `recoverable` and `detail`.

use std::cell::RefCell;
use std::future::{Future, ready};
use std::rc::Rc;

use headlight_core::detect::DOCS;
use headlight_core::ids::HeadId;
use headlight_core::report::{BosPolicy, RunRequest};
use js_sys::{Function, Object, Promise, Reflect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

use crate::client::{Client, Manner};
use crate::link::Link;
use crate::models::{manifest, source_of};
use crate::protocol::{BackendChoice, Call, ErrorReport, Reply};

/// Argument of `load`.
#[derive(Deserialize)]
struct LoadArgs {
    model: String,
    #[serde(default)]
    backend: Option<BackendChoice>,
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

/// What of the page scripts can see and change.
pub struct Host {
    /// The view, with its numbers or without.
    pub link: Box<dyn Fn(WithNumbers) -> Link>,
    /// Shows a view.
    pub open: Box<dyn Fn(Link)>,
    /// The address of a view.
    pub address: fn(&Link) -> String,
    /// Why the model cannot be changed, if it cannot.
    pub model_is_fixed: Box<dyn Fn() -> Option<&'static str>>,
}

/// Whether a link carries what its sender sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithNumbers {
    /// It does.
    Yes,
    /// The view alone.
    No,
}

/// What scripts can listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The view was changed.
    State,
    /// A prompt was run.
    View,
    /// Something went wrong.
    Error,
}

impl Topic {
    fn of_name(name: &str) -> Option<Self> {
        match name {
            "state" => Some(Self::State),
            "view" => Some(Self::View),
            "error" => Some(Self::Error),
            _ => None,
        }
    }
}

thread_local! {
    static LISTENERS: RefCell<Vec<(u32, Topic, Function)>> = const { RefCell::new(Vec::new()) };
}

/// Tells scripts that listen; the value is made only for those.
pub fn tell<T: Serialize>(topic: Topic, value: impl FnOnce() -> T) {
    let listening: Vec<Function> = LISTENERS.with_borrow(|listeners| {
        let of_topic = listeners.iter().filter(|(_, other, _)| *other == topic);
        of_topic.map(|(_, _, function)| function.clone()).collect()
    });
    if listening.is_empty() {
        return;
    }
    let value = value().serialize(&serde_wasm_bindgen::Serializer::json_compatible()).unwrap_or_default();
    for function in listening {
        // A listener's own failure is its own.
        let _ = function.call1(&JsValue::UNDEFINED, &value);
    }
}

/// `headlight.on(name, listener)`: gives a function that ends the listening.
fn listen(name: &JsValue, listener: JsValue) -> Result<JsValue, JsValue> {
    let topic = name.as_string().as_deref().and_then(Topic::of_name);
    let listener: Option<Function> = listener.dyn_into().ok();
    let Some((topic, listener)) = topic.zip(listener) else {
        return Err(js_error(&bad_request(
            "on takes \"state\", \"view\" or \"error\", and a function to call",
        )));
    };
    let id = LISTENERS.with_borrow_mut(|listeners| {
        let id = listeners.last().map_or(0, |(id, _, _)| id + 1);
        listeners.push((id, topic, listener));
        id
    });
    let stop = move || LISTENERS.with_borrow_mut(|listeners| listeners.retain(|(other, _, _)| *other != id));
    Ok(Closure::<dyn FnMut()>::new(stop).into_js_value())
}

/// A view that a script hands over, by way of JSON: its parser bounds depth.
fn link_of(value: &JsValue) -> Result<Link, ErrorReport> {
    let unfit = |why: &str| bad_request(&format!("this is no view: {why}"));
    let text = js_sys::JSON::stringify(value).map_err(|_| unfit("it is not plain JSON"))?;
    let text = text.as_string().ok_or_else(|| unfit("it is not plain JSON"))?;
    let value = serde_json::from_str(&text).map_err(|error| unfit(&error.to_string()))?;
    Link::of_value(value).map_err(|error| {
        let report = error.report();
        unfit(&report.detail.unwrap_or(report.message))
    })
}

/// Puts `headlight` on the window.
pub fn install(client: &Client, host: Host) {
    let host = Rc::new(host);
    let api = Object::new();
    set(&api, "version", &env!("CARGO_PKG_VERSION").into());
    let waiting = client.clone();
    set(&api, "ready", &promise(async move { waiting.first_model().await }));
    method(&api, "models", client, async |_, _: JsValue, _| Ok(manifest()));
    let of_load = Rc::clone(&host);
    method(&api, "load", client, move |client, args: JsValue, _| {
        let why_fixed = (of_load.model_is_fixed)();
        async move {
            let args: LoadArgs = read(args)?;
            if let Some(why) = why_fixed {
                return Err(ErrorReport { code: "locked".to_owned(), ..bad_request(why) });
            }
            let unknown =
                || bad_request(&format!("there is no model \"{}\"; see headlight.models()", args.model));
            client.choose_model(source_of(&args.model).ok_or_else(unknown)?, args.backend).await
        }
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
    /// The same of what several workers can share.
    macro_rules! shared {
        ($name:literal, $call:ident) => {
            method(&api, $name, client, async |client, args: JsValue, _| {
                // Of the page, not of the request, which is strict about what it knows.
                let n_workers = Reflect::get(&args, &"n_workers".into()).ok().and_then(|n| n.as_f64());
                let n_workers = n_workers.map(|n_workers| n_workers as usize);
                let manner = Manner { n_workers, is_fast_first: false };
                match client.begin_job(Call::$call(read(args)?), manner, Box::new(|_| {})).1.await? {
                    Reply::$call(report) => Ok(report),
                    _ => Err(unexpected()),
                }
            });
        };
    }
    shared!("detect", Detect);
    shared!("sweep", Sweep);
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
    let of_state = Rc::clone(&host);
    method(&api, "state", client, move |_, _: JsValue, _| {
        ready(Ok((of_state.link)(WithNumbers::No).to_value()))
    });
    let of_set = Rc::clone(&host);
    method(&api, "setState", client, move |_, view: JsValue, _| {
        ready(link_of(&view).map(|link| {
            (of_set.open)(link);
            (of_set.link)(WithNumbers::No).to_value()
        }))
    });
    method(&api, "link", client, move |_, _: JsValue, _| {
        ready(Ok((host.address)(&(host.link)(WithNumbers::Yes))))
    });
    let on = Closure::<dyn Fn(JsValue, JsValue) -> Result<JsValue, JsValue>>::new(
        |name: JsValue, listener: JsValue| listen(&name, listener),
    );
    set(&api, "on", &on.into_js_value());
    let debug = Object::new();
    method(&debug, "crash", client, async |client, _: JsValue, _| {
        // Answered by the worker's end.
        match client.request(Call::Crash).await {
            Err(error) if error.code == "crashed" => Ok(()),
            _ => Err(unexpected()),
        }
    });
    method(&debug, "breakGpu", client, async |client, _: JsValue, _| {
        client.request(Call::BreakGpu).await.map(|_| ())
    });
    method(&debug, "loseGpu", client, async |client, _: JsValue, _| {
        client.request(Call::LoseGpu).await.map(|_| ())
    });
    set(&api, "debug", &debug);
    set(&js_sys::global(), "headlight", &api);
    if let (Some(window), Ok(event)) = (web_sys::window(), web_sys::Event::new("headlight-installed")) {
        let _ = window.dispatch_event(&event);
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
