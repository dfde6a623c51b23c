//! Carries out what the state asks for: talks to the worker through the client and sends the answers back as messages.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use leptos::prelude::*;
use leptos::task::spawn_local;

use super::{Page, address, kept, theme};
use crate::api::{self, Host, Topic, WithNumbers};
use crate::client::{self, Client, ClientEvent, Manner, Steering};
use crate::download;
use crate::export;
use crate::protocol::{BackendChoice, Call, ErrorReport, ModelSource, Reply, ViewRequest};
use crate::sharing::kept_choice;
use crate::state::job::JobEvent;
use crate::state::lesson::Fixed;
use crate::state::machine::{MachineMsg, N_REPEATS};
use crate::state::{AppState, Msg, Task};

/// The page's hands.
#[derive(Default)]
pub struct Runner {
    client: Option<Client>,
    /// The newest view asked for; an older one whose pause has not ended is dropped.
    newest_view: Rc<Cell<u32>>,
    /// The request behind each job at work, by the state's number.
    jobs: Rc<RefCell<HashMap<u32, Steering>>>,
}

impl Runner {
    /// Starts the worker and puts `window.headlight` in place.
    pub fn start(&mut self, page: Page) {
        let client = Client::start(move |event| {
            // Later: the client is still busy with what it tells.
            spawn_local(async move { messages_of(event).into_iter().for_each(|msg| page.send(msg)) });
        });
        client.choose_workers(page.state.with_untracked(|state| state.n_workers));
        api::install(&client, host(page));
        self.client = Some(client);
    }

    /// Begins a task; its end comes as a message.
    pub fn perform(&self, page: Page, task: Task) {
        let Some(client) = self.client.clone() else { return };
        match task {
            Task::View { view_id, request, delay_ms } => self.view(page, client, view_id, request, delay_ms),
            Task::CancelView => {
                self.newest_view.set(0);
                client.cancel_view();
            }
            Task::Load { load_id, source, backend } => load(page, client, load_id, source, backend),
            Task::CancelLoad => client.cancel_load(),
            Task::LookIntoCache(sources) => spawn_local(look_into_cache(page, client, sources)),
            Task::DeleteCached(source) => spawn_local(async move {
                if let Err(error) = client.request(Call::DeleteCached(source)).await {
                    page.send(Msg::Failed(error));
                }
                let sources = page
                    .state
                    .with_untracked(|state| state.models.iter().map(|model| model.source.clone()).collect());
                look_into_cache(page, client, sources).await;
            }),
            Task::TokensForCut { text, bos, n_tokens } => spawn_local(async move {
                match client.request(Call::Tokenize { text, bos }).await {
                    Ok(Reply::Tokens(report)) => page.send(Msg::TokensForCut { report, n_tokens }),
                    Ok(_) => {}
                    Err(error) => page.send(Msg::Failed(error)),
                }
            }),
            Task::StartJob { job_id, call } => self.start_job(page, &client, job_id, *call),
            Task::StopJob(job_id) => self.steer(job_id, Steering::cancel),
            Task::PauseJob(job_id) => self.steer(job_id, Steering::pause),
            Task::ResumeJob(job_id) => self.steer(job_id, Steering::resume),
            Task::Script { library, call } => spawn_local(async move {
                match client.request(*call).await {
                    Ok(Reply::Script(text)) => {
                        let file = page.state.with_untracked(|state| export::python(state, library, text));
                        if let Err(why) = download::save(&file) {
                            page.send(Msg::Failed(ErrorReport {
                                code: "not_saved".to_owned(),
                                message: format!("{} was not saved: {why}", file.name()),
                                recoverable: true,
                                detail: None,
                            }));
                        }
                    }
                    Ok(_) => {}
                    Err(error) => page.send(Msg::Failed(error)),
                }
            }),
            Task::Measure { prefill } => spawn_local(async move {
                let call = Call::Bench { prefill, repeats: N_REPEATS };
                let ended = match client.request(call).await {
                    Ok(Reply::Bench(report)) => Ok(Arc::new(report)),
                    Ok(_) => return,
                    Err(error) => Err(error),
                };
                page.send(Msg::Machine(MachineMsg::Ended(ended)));
            }),
            Task::KeepTheme(choice) => theme::keep(choice),
            Task::KeepWorkers(n_workers) => {
                client.choose_workers(n_workers);
                match n_workers {
                    Some(n_workers) => kept::put(WORKERS_KEY, &n_workers.to_string()),
                    None => kept::forget(WORKERS_KEY),
                }
            }
        }
    }

    /// Tells the client something about the request behind a job, if that is still at work.
    fn steer(&self, job_id: u32, steer: impl FnOnce(&Steering)) {
        if let Some(steering) = self.jobs.borrow().get(&job_id) {
            steer(steering);
        }
    }

    fn start_job(&self, page: Page, client: &Client, job_id: u32, call: Call) {
        let on_progress = move |progress| page.send(Msg::Job { job_id, event: JobEvent::Progress(progress) });
        let is_fast_first = page.state.with_untracked(|state| !state.lab.is_exact_only);
        let manner = Manner { is_fast_first, ..Manner::default() };
        let (steering, answer) = client.begin_job(call, manner, Box::new(on_progress));
        self.jobs.borrow_mut().insert(job_id, steering);
        let jobs = Rc::clone(&self.jobs);
        spawn_local(async move {
            let answer = answer.await;
            jobs.borrow_mut().remove(&job_id);
            let event = match answer {
                Ok(reply) => JobEvent::Done(Arc::new(reply)),
                Err(error) => JobEvent::Failed(error),
            };
            page.send(Msg::Job { job_id, event });
        });
    }

    fn view(&self, page: Page, client: Client, view_id: u32, request: ViewRequest, delay_ms: u32) {
        self.newest_view.set(view_id);
        let newest = Rc::clone(&self.newest_view);
        let ask = move || {
            if newest.get() != view_id {
                return;
            }
            spawn_local(async move {
                page.send(match client.view(request).await {
                    Ok(view) => Msg::Viewed { view_id, view: view.into() },
                    Err(error) => Msg::ViewFailed { view_id, error },
                });
            });
        };
        match delay_ms {
            0 => ask(),
            _ => set_timeout(ask, Duration::from_millis(delay_ms.into())),
        }
    }
}

/// Where the chosen number of workers is kept.
const WORKERS_KEY: &str = "headlight-workers";

/// What the browser tells of its machine, and how many workers were chosen on an earlier visit. An embed has what the machine bears.
pub fn know_machine(state: &mut AppState) {
    state.machine = client::machine();
    if state.embed.is_none() {
        state.n_workers = kept::get(WORKERS_KEY).and_then(|text| kept_choice(&text));
    }
}

fn load(page: Page, client: Client, load_id: u32, source: ModelSource, backend: BackendChoice) {
    let on_progress = move |progress| page.send(Msg::LoadProgress { load_id, progress });
    spawn_local(async move {
        let key = timings_key(&source);
        let timings = key.as_ref().and_then(|key| serde_json::from_str(&kept::get(key)?).ok());
        page.send(match client.load(source, backend, timings, on_progress).await {
            Ok(loaded) => {
                if let (Some(key), Some(timings)) = (key, loaded.engine.timings) {
                    kept::put(&key, &serde_json::to_string(&timings).unwrap_or_default());
                }
                Msg::Loaded {
                    load_id,
                    info: loaded.info,
                    engine: loaded.engine,
                    cached: loaded.cached,
                    cache_note: loaded.cache_note,
                }
            }
            Err(error) => Msg::LoadFailed { load_id, error },
        });
    });
}

/// Under what name it is kept which engine was faster on a model; nothing of a file, whose name may stand for another one next
/// time. Another version of Headlight measures anew.
fn timings_key(source: &ModelSource) -> Option<String> {
    let is_file = source.urls.iter().any(|url| url.starts_with("blob:"));
    (!is_file).then(|| format!("headlight-engine-{}-{}", env!("CARGO_PKG_VERSION"), source.id))
}

/// What scripts see of the page.
fn host(page: Page) -> Host {
    Host {
        link: Box::new(move |numbers| {
            page.state.with_untracked(|state| match numbers {
                WithNumbers::Yes => state.link_with_numbers(),
                WithNumbers::No => state.link(),
            })
        }),
        open: Box::new(move |link| page.send(Msg::Open(Box::new(link)))),
        address: address::address_of,
        model_is_fixed: Box::new(move || page.state.with_untracked(|state| state.why_fixed(Fixed::Model))),
    }
}

/// Tells scripts what changes on the page.
pub fn tell_scripts(page: Page) {
    let link = page.select(|state| state.link());
    Effect::new(move |_| link.with(|link| api::tell(Topic::State, || link.to_value())));
    let view = page.view();
    Effect::new(move |_| {
        view.with(|view| {
            if let Some(view) = view {
                api::tell(Topic::View, || view.0.run.clone());
            }
        });
    });
    let problem = page.select(|state| state.problem.clone());
    Effect::new(move |_| {
        problem.with(|problem| {
            if let Some(problem) = problem {
                api::tell(Topic::Error, || problem.error.clone());
            }
        });
    });
}

/// A cache that cannot be read is an empty one.
async fn look_into_cache(page: Page, client: Client, sources: Vec<ModelSource>) {
    if let Ok(Reply::Cached(ids)) = client.request(Call::CachedModels(sources)).await {
        page.send(Msg::CachedKnown(ids));
    }
}

fn messages_of(event: ClientEvent) -> Vec<Msg> {
    match event {
        ClientEvent::Ready { build } => vec![Msg::WorkerReady { build }],
        ClientEvent::Crashed(error) => vec![Msg::WorkerCrashed(error)],
        ClientEvent::Dead(error) => vec![Msg::WorkerDead(error)],
        ClientEvent::ChooseModel { source, backend } => {
            let wish = backend.map(|backend| Msg::ChooseBackend { backend, reload: false });
            wish.into_iter().chain([Msg::ChooseModel(source)]).collect()
        }
        ClientEvent::HelperLost(error) => vec![Msg::Failed(error)],
        ClientEvent::Engine(engine) => vec![Msg::Engine(engine)],
    }
}
