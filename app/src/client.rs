//! The page's side of the worker: starts it, or is given a share of another's, sends requests, matches answers, starts another
//! when it crashes.

mod shared;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use futures::channel::oneshot;
use headlight_core::report::ModelInfo;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{ErrorEvent, MessageEvent, MessagePort, Worker, WorkerOptions, WorkerType};

use crate::live::NewestWins;
use crate::protocol::{
    BackendChoice, Call, EngineReport, ErrorReport, Event, ModelSource, PROTOCOL, Progress, Reply, Request,
    Timings, View, ViewRequest,
};

pub use shared::{Manner, Steering, machine};

/// Where the worker's entry is, relative to the page.
const WORKER_URL: &str = "./worker/start.js";
/// A worker that crashes this often without answering anything is not started again.
const MAX_CRASHES_IN_A_ROW: u32 = 3;

/// Whether this page has an origin of its own only, as in a frame with `sandbox="allow-scripts"`: no script's address
/// is then its own, so none may start a worker.
fn is_opaque() -> bool {
    let origin = js_sys::Reflect::get(&js_sys::global(), &"origin".into()).ok();
    origin.and_then(|origin| origin.as_string()).is_some_and(|origin| origin == "null")
}

/// A worker from a script that this page wrote itself and that imports the engine by its absolute address; the server
/// must let any origin read it (`Access-Control-Allow-Origin: *`, as static hosts send). It is a classic worker: Chromium
/// starts no module worker in an opaque origin, but a classic one may import modules. Its address is a `data:` one, because a worker
/// from a `blob:` of an opaque origin is no secure context there, and has no WebGPU.
fn opaque_worker() -> Result<Worker, JsValue> {
    let base = web_sys::window().ok_or(JsValue::NULL)?.location().href()?;
    let entry = web_sys::Url::new_with_base(WORKER_URL, &base)?.href();
    // A failure is thrown where the page's error handler hears it.
    let script = format!(
        "import({}).catch((error) => setTimeout(() => {{ throw error; }}));",
        serde_json::to_string(&entry).unwrap_or_default(),
    );
    Worker::new(&format!("data:text/javascript,{}", js_sys::encode_uri_component(&script)))
}

/// The way to the worker.
enum Channel {
    /// A worker of this page's own.
    Own(Worker),
    /// A port to one that several views share.
    Shared(MessagePort),
}

impl Channel {
    fn post(&self, message: &JsValue) {
        let posted = match self {
            Self::Own(worker) => worker.post_message(message),
            Self::Shared(port) => port.post_message(message),
        };
        posted.expect("plain data can be posted");
    }

    /// Ends what is this page's own of it.
    fn end(self) {
        match self {
            Self::Own(worker) => worker.terminate(),
            Self::Shared(port) => port.close(),
        }
    }
}

/// What `static/embed/bridge.js` offers where the page that embeds this one shares an engine among its views.
struct HostEngine(JsValue);

impl HostEngine {
    /// The offer to come, where this page was embedded with one.
    fn promised() -> Option<js_sys::Promise> {
        js_sys::Reflect::get(&js_sys::global(), &"headlightEngine".into()).ok()?.dyn_into().ok()
    }

    async fn of(promise: js_sys::Promise) -> Option<Self> {
        JsFuture::from(promise).await.ok().filter(JsValue::is_object).map(Self)
    }

    /// A port, or nothing where there is none to be had.
    async fn ask(&self) -> Option<MessagePort> {
        let ask: js_sys::Function = js_sys::Reflect::get(&self.0, &"ask".into()).ok()?.dyn_into().ok()?;
        let answer: js_sys::Promise = ask.call0(&self.0).ok()?.dyn_into().ok()?;
        JsFuture::from(answer).await.ok()?.dyn_into().ok()
    }

    /// Has this called once the engine is gone.
    fn on_lost(&self, lost: impl FnOnce() + 'static) {
        let lost = Closure::once_into_js(lost);
        let _ = js_sys::Reflect::set(&self.0, &"onlost".into(), &lost);
    }
}

/// What a client tells its page unasked.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// The worker listens; the first time, or after a restart.
    Ready {
        /// Its version.
        build: String,
    },
    /// The worker crashed; another is starting, without a model.
    Crashed(ErrorReport),
    /// No worker can be started.
    Dead(ErrorReport),
    /// A worker that helped with long work is gone; its share is done again.
    HelperLost(ErrorReport),
    /// A script asked for a model: to be loaded by the page, so that it shows.
    ChooseModel {
        /// The model.
        source: ModelSource,
        /// What to compute on, if it says.
        backend: Option<BackendChoice>,
    },
    /// Another engine answers from now on.
    Engine(EngineReport),
}

/// A loaded model, as the worker reports it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub info: ModelInfo,
    /// What computes it.
    pub engine: EngineReport,
    /// Whether it is in the cache now.
    pub cached: bool,
    /// Why not, if it should be.
    pub cache_note: Option<String>,
}

/// The end of a request.
pub type Answer = Result<Reply, ErrorReport>;
type LoadResult = Result<ModelInfo, ErrorReport>;

struct Pending {
    answer: oneshot::Sender<Answer>,
    on_progress: Option<Box<dyn FnMut(Progress)>>,
}

struct PendingView {
    request: ViewRequest,
    answer: oneshot::Sender<Result<View, ErrorReport>>,
}

type Listener = Rc<dyn Fn(ClientEvent)>;

#[derive(Default)]
struct Inner {
    channel: RefCell<Option<Channel>>,
    /// Whether an engine that others use too will do.
    may_share: Cell<bool>,
    is_ready: Cell<bool>,
    n_crashes: Cell<u32>,
    /// Why there is no worker any more.
    dead: RefCell<Option<ErrorReport>>,
    last_id: Cell<u32>,
    queue: RefCell<Vec<Request>>,
    pending: RefCell<HashMap<u32, Pending>>,
    views: RefCell<NewestWins<PendingView>>,
    view_id: Cell<u32>,
    load_id: Cell<u32>,
    load_waiters: RefCell<Vec<(Option<String>, oneshot::Sender<LoadResult>)>>,
    /// What the worker holds and what computes it, for others to load too.
    loaded: RefCell<Option<(ModelSource, ModelInfo, EngineReport)>>,
    on_event: RefCell<Option<Listener>>,
    /// Workers that share long work, where the user chose their number.
    n_workers: Cell<Option<usize>>,
}

/// A handle on the worker; clones share it.
#[derive(Clone, Default)]
pub struct Client(Rc<Inner>);

fn error(code: &str, message: &str) -> ErrorReport {
    ErrorReport { code: code.to_owned(), message: message.to_owned(), recoverable: true, detail: None }
}

fn unexpected() -> ErrorReport {
    error("protocol", "the engine answered something else; reload the page")
}

impl Client {
    /// Starts the worker, or takes a share of one where this page's host offers that; `on_event` hears what was not asked for.
    pub fn start(on_event: impl Fn(ClientEvent) + 'static) -> Self {
        let client = Self::default();
        client.0.may_share.set(true);
        client.0.on_event.replace(Some(Rc::new(on_event)));
        client.start_worker();
        client
    }

    /// Starts another worker, which works beside that.
    fn start_helper() -> Self {
        let client = Self::default();
        client.start_worker();
        client
    }

    fn tell(&self, event: ClientEvent) {
        let on_event = self.0.on_event.borrow().clone();
        if let Some(on_event) = on_event {
            on_event(event);
        }
    }

    fn start_worker(&self) {
        match HostEngine::promised().filter(|_| self.0.may_share.get()) {
            Some(offer) => spawn_local(self.clone().share(offer)),
            None => self.start_own_worker(),
        }
    }

    /// Takes a share of the host's engine, or starts one where the host has none.
    async fn share(self, offer: js_sys::Promise) {
        let Some(engine) = HostEngine::of(offer).await else { return self.start_own_worker() };
        let port = engine.ask().await.filter(|_| self.0.may_share.get());
        let Some(port) = port else { return self.start_own_worker() };
        let client = self.clone();
        engine.on_lost(move || client.crashed("the engine that several views shared is gone"));
        port.set_onmessage(Some(self.listener().unchecked_ref()));
        self.0.channel.replace(Some(Channel::Shared(port)));
    }

    fn is_shared(&self) -> bool {
        matches!(*self.0.channel.borrow(), Some(Channel::Shared(_)))
    }

    /// Has an engine of this page's own from now on; one that was shared is left, and with it its model.
    fn stop_sharing(&self) {
        self.0.may_share.set(false);
        if !self.is_shared() {
            return;
        }
        if let Some(channel) = self.0.channel.take() {
            channel.end();
        }
        // What waits to be sent goes to the new one.
        if self.0.is_ready.replace(false) {
            self.fail_pending(&error("cancelled", "the view went over to an engine of its own"));
        }
        self.start_own_worker();
    }

    fn fail_pending(&self, report: &ErrorReport) {
        let pending: Vec<Pending> = self.0.pending.borrow_mut().drain().map(|(_, pending)| pending).collect();
        for pending in pending {
            let _ = pending.answer.send(Err(report.clone()));
        }
    }

    /// Hears what the worker says, for as long as the page lives.
    fn listener(&self) -> JsValue {
        let client = self.clone();
        Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            if let Ok(event) = serde_wasm_bindgen::from_value::<Event>(event.data()) {
                client.receive(event);
            }
        })
        .into_js_value()
    }

    fn start_own_worker(&self) {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        // The version keeps a cached worker of another build from answering.
        let url = format!("{WORKER_URL}?v={}", env!("CARGO_PKG_VERSION"));
        let worker = if is_opaque() { opaque_worker() } else { Worker::new_with_options(&url, &options) };
        let worker = match worker {
            Ok(worker) => worker,
            Err(cause) => {
                let report =
                    error("no_worker", "this browser or frame allows no worker, so no model can run here");
                return self.dead(ErrorReport { detail: Some(format!("{cause:?}")), ..report });
            }
        };
        worker.set_onmessage(Some(self.listener().unchecked_ref()));
        let client = self.clone();
        let on_error = Closure::<dyn FnMut(web_sys::Event)>::new(move |event: web_sys::Event| {
            // One that could not be fetched tells nothing; its event has no message.
            let told = event.dyn_ref::<ErrorEvent>().map(ErrorEvent::message);
            client.crashed(told.as_deref().unwrap_or("the worker could not be fetched"));
        });
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        on_error.forget();
        self.0.channel.replace(Some(Channel::Own(worker)));
    }

    fn receive(&self, event: Event) {
        match event {
            // A page that was put on its host's page later may be of a newer build than the engine there.
            Event::Ready { build, .. } if self.is_shared() && build != env!("CARGO_PKG_VERSION") => {
                self.stop_sharing();
            }
            Event::Ready { protocol, build } => {
                if protocol != PROTOCOL {
                    let message = "the page and its worker are of different versions; reload the page";
                    return self.dead(error("protocol", message));
                }
                self.0.is_ready.set(true);
                let queue = self.0.queue.take();
                queue.iter().for_each(|request| self.post(request));
                self.tell(ClientEvent::Ready { build });
            }
            Event::Progress { id, progress } => {
                // Taken out while it runs: it may send requests itself.
                let on_progress = self.0.pending.borrow_mut().get_mut(&id).and_then(|p| p.on_progress.take());
                if let Some(mut on_progress) = on_progress {
                    on_progress(progress);
                    if let Some(pending) = self.0.pending.borrow_mut().get_mut(&id) {
                        pending.on_progress = Some(on_progress);
                    }
                }
            }
            Event::Done { id, reply } => {
                self.0.n_crashes.set(0);
                self.settle(id, Ok(*reply));
            }
            Event::Failed { id, error } => self.settle(id, Err(error)),
            Event::Engine(engine) => {
                if let Some((_, _, known)) = self.0.loaded.borrow_mut().as_mut() {
                    known.clone_from(&engine);
                }
                self.tell(ClientEvent::Engine(engine));
            }
        }
    }

    fn settle(&self, id: u32, answer: Answer) {
        let pending = self.0.pending.borrow_mut().remove(&id);
        if let Some(pending) = pending {
            // A dropped receiver means that nobody waits any more.
            let _ = pending.answer.send(answer);
        }
    }

    fn crashed(&self, message: &str) {
        if let Some(channel) = self.0.channel.take() {
            channel.end();
        }
        self.0.is_ready.set(false);
        self.0.queue.borrow_mut().clear();
        let n_crashes = self.0.n_crashes.get() + 1;
        self.0.n_crashes.set(n_crashes);
        let told = "the engine crashed and was started again; your prompt is kept";
        let report = ErrorReport { detail: Some(message.to_owned()), ..error("crashed", told) };
        self.fail_pending(&report);
        if n_crashes >= MAX_CRASHES_IN_A_ROW {
            let told = "the engine crashes again and again; reload the page, or try a shorter prompt or a smaller model";
            return self.dead(ErrorReport { detail: report.detail, ..error("crashed", told) });
        }
        self.start_worker();
        self.tell(ClientEvent::Crashed(report));
    }

    /// There is no worker, and there will be none.
    fn dead(&self, report: ErrorReport) {
        let report = ErrorReport { recoverable: false, ..report };
        self.0.dead.replace(Some(report.clone()));
        self.fail_pending(&report);
        self.tell(ClientEvent::Dead(report));
    }

    fn post(&self, request: &Request) {
        let message = serde_wasm_bindgen::to_value(request).expect("requests are plain data");
        if let Some(channel) = self.0.channel.borrow().as_ref() {
            channel.post(&message);
        }
    }

    /// Sends a request now, or as soon as the worker listens; gives its id and where the answer will be.
    fn send(
        &self,
        call: Call,
        on_progress: Option<Box<dyn FnMut(Progress)>>,
    ) -> (u32, oneshot::Receiver<Answer>) {
        let id = self.0.last_id.get() + 1;
        self.0.last_id.set(id);
        let (answer, receiver) = oneshot::channel();
        if let Some(report) = self.0.dead.borrow().clone() {
            let _ = answer.send(Err(report));
            return (id, receiver);
        }
        self.0.pending.borrow_mut().insert(id, Pending { answer, on_progress });
        let request = Request { id, call };
        if self.0.is_ready.get() {
            self.post(&request);
        } else {
            self.0.queue.borrow_mut().push(request);
        }
        (id, receiver)
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&self, call: Call) -> Answer {
        let (_, receiver) = self.send(call, None);
        receiver.await.unwrap_or_else(|_| Err(error("crashed", "the engine was restarted; try again")))
    }

    /// Sends a long request; gives its id, for [`Self::cancel`], and its answer.
    pub fn begin(
        &self,
        call: Call,
        on_progress: Box<dyn FnMut(Progress)>,
    ) -> (u32, impl Future<Output = Answer> + use<>) {
        let (id, receiver) = self.send(call, Some(on_progress));
        let restarted = || Err(error("crashed", "the engine was restarted; try again"));
        (id, async move { receiver.await.unwrap_or_else(|_| restarted()) })
    }

    /// Asks for a view. While one is computed only the newest other one waits; older ones fail with `cancelled`.
    pub async fn view(&self, request: ViewRequest) -> Result<View, ErrorReport> {
        let (answer, receiver) = oneshot::channel();
        let ready = self.0.views.borrow_mut().offer(PendingView { request, answer });
        match ready {
            Some(view) => self.spawn_view(view),
            // Ends early, so that the newer one comes sooner.
            None => self.cancel(self.0.view_id.get()),
        }
        receiver.await.unwrap_or_else(|_| Err(error("cancelled", "a newer view took its place")))
    }

    fn spawn_view(&self, view: PendingView) {
        let client = self.clone();
        let (id, receiver) = self.send(Call::View(view.request), None);
        self.0.view_id.set(id);
        spawn_local(async move {
            let answer = match receiver.await {
                Ok(Ok(Reply::View(found))) => Ok(*found),
                Ok(Ok(_)) => Err(unexpected()),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(error("crashed", "the engine was restarted; try again")),
            };
            let _ = view.answer.send(answer);
            let next = client.0.views.borrow_mut().ended();
            if let Some(next) = next {
                client.spawn_view(next);
            }
        });
    }

    /// Ends the worker for good.
    fn end(&self) {
        if let Some(channel) = self.0.channel.take() {
            channel.end();
        }
    }

    /// Stops the view that is being computed, if one is.
    pub fn cancel_view(&self) {
        self.cancel(self.0.view_id.get());
    }

    /// Stops a request; nothing happens when it has ended.
    pub fn cancel(&self, id: u32) {
        self.steer(id, Call::Cancel(id));
    }

    /// Holds a request until [`Self::resume`] or [`Self::cancel`]; nothing happens when it has ended.
    pub fn pause(&self, id: u32) {
        self.steer(id, Call::Pause(id));
    }

    /// Lets a paused request go on.
    pub fn resume(&self, id: u32) {
        self.steer(id, Call::Resume(id));
    }

    /// Tells the worker something about a request under way.
    fn steer(&self, id: u32, call: Call) {
        let is_pending = self.0.pending.borrow().contains_key(&id);
        if is_pending && self.0.is_ready.get() {
            self.post(&Request { id: 0, call });
        }
    }

    /// Loads a model; replaces the loaded one only on success.
    pub async fn load(
        &self,
        source: ModelSource,
        backend: BackendChoice,
        timings: Option<Timings>,
        on_progress: impl FnMut(Progress) + 'static,
    ) -> Result<Loaded, ErrorReport> {
        // A file that the reader opened has an address in this frame alone.
        if source.urls.iter().any(|url| url.starts_with("blob:")) {
            self.stop_sharing();
        }
        // The newest load wins too.
        self.cancel_load();
        let model_id = source.id.clone();
        let call = Call::Load { source: source.clone(), backend, timings };
        let (id, receiver) = self.send(call, Some(Box::new(on_progress)));
        self.0.load_id.set(id);
        let answer = match receiver.await {
            Ok(Ok(Reply::Loaded { info, engine, cached, cache_note })) => {
                self.0.loaded.replace(Some((source, info.clone(), engine.clone())));
                Ok(Loaded { info, engine, cached, cache_note })
            }
            Ok(Ok(_)) => Err(unexpected()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(error("crashed", "the engine was restarted; try again")),
        };
        self.settle_load(&model_id, answer.as_ref().map(|loaded| loaded.info.clone()).map_err(Clone::clone));
        answer
    }

    /// Stops the load that is under way, if one is.
    pub fn cancel_load(&self) {
        self.cancel(self.0.load_id.get());
    }

    fn settle_load(&self, model_id: &str, result: LoadResult) {
        let waiters = self.0.load_waiters.take();
        for (wanted, waiter) in waiters {
            match (&wanted, &result) {
                (Some(wanted), result) if wanted == model_id => {
                    let _ = waiter.send(result.clone());
                }
                (None, Ok(info)) => {
                    let _ = waiter.send(Ok(info.clone()));
                }
                _ => self.0.load_waiters.borrow_mut().push((wanted, waiter)),
            }
        }
    }

    /// Has the page load a model, and waits until it has.
    pub async fn choose_model(&self, source: ModelSource, backend: Option<BackendChoice>) -> LoadResult {
        let (waiter, receiver) = oneshot::channel();
        self.0.load_waiters.borrow_mut().push((Some(source.id.clone()), waiter));
        self.tell(ClientEvent::ChooseModel { source, backend });
        receiver.await.unwrap_or_else(|_| Err(error("cancelled", "another model was chosen")))
    }

    /// Waits until any model is loaded.
    pub async fn first_model(&self) -> LoadResult {
        let (waiter, receiver) = oneshot::channel();
        self.0.load_waiters.borrow_mut().push((None, waiter));
        receiver.await.unwrap_or_else(|_| Err(error("cancelled", "the page was closed")))
    }
}
