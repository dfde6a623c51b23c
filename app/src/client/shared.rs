//! Long requests that several workers share, in parts: the client's own worker and helpers that load the same model. What is a part,
//! and how parts become one report, is `sharing`'s.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use headlight_core::backend::Precision;
use headlight_core::report::{DetectReport, DetectRequest, SweepRequest};

use super::{Answer, Client, ClientEvent, unexpected};
use crate::protocol::{BackendChoice, Call, ModelSource, Progress, Reply, Timings};
use crate::sharing::{
    Machine, Together, draws_of, helper_lost, is_long, largest_first, n_detectors, n_sweepers, parts, whole,
    workers,
};

/// How a long request is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Workers that share it; as many as are worth it unless given.
    pub n_workers: Option<usize>,
    /// Whether its progress is to show numbers in `fast` precision first, where those come soon enough.
    pub is_fast_first: bool,
}

/// The parts of a long request, and the model that they are done on.
struct Shares {
    source: ModelSource,
    timings: Option<Timings>,
    parts: Vec<Part>,
    /// What all of them amount to, where that is known before they have begun.
    n_all: Option<u64>,
}

/// One worker's part.
#[derive(Clone)]
enum Part {
    Sweep { request: SweepRequest, is_fast_first: bool },
    Draws(DetectRequest),
}

/// What the user does to a request, for every worker that has a share in it, those that come later too.
#[derive(Clone, Default)]
pub struct Steering(Rc<SteeringInner>);

#[derive(Default)]
struct SteeringInner {
    shares: RefCell<Vec<(Client, u32)>>,
    is_paused: Cell<bool>,
    is_cancelled: Cell<bool>,
}

impl Steering {
    fn add(&self, client: &Client, id: u32) {
        self.0.shares.borrow_mut().push((client.clone(), id));
        if self.0.is_cancelled.get() {
            client.cancel(id);
        } else if self.0.is_paused.get() {
            client.pause(id);
        }
    }

    fn each(&self, steer: impl Fn(&Client, u32)) {
        self.0.shares.borrow().iter().for_each(|(client, id)| steer(client, *id));
    }

    /// Stops it.
    pub fn cancel(&self) {
        self.0.is_cancelled.set(true);
        self.each(Client::cancel);
    }

    /// Holds it until [`Self::resume`] or [`Self::cancel`].
    pub fn pause(&self) {
        self.0.is_paused.set(true);
        self.each(Client::pause);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.0.is_paused.set(false);
        self.each(Client::resume);
    }
}

/// What the browser tells of its machine.
pub fn machine() -> Machine {
    let navigator = web_sys::window().map(|window| window.navigator());
    let told = |name: &str| {
        let value = js_sys::Reflect::get(navigator.as_ref()?, &name.into()).ok()?;
        value.as_f64().filter(|value| *value > 0.0)
    };
    Machine {
        n_cores: told("hardwareConcurrency").map_or(1, |n_cores| n_cores as usize),
        memory_gib: told("deviceMemory"),
    }
}

impl Client {
    /// Has long work shared by as many workers as the user chose; `None` for as many as the machine bears.
    pub fn choose_workers(&self, n_workers: Option<usize>) {
        self.0.n_workers.set(n_workers);
    }

    /// Sends a long request that several workers may share; gives the way to steer it, and its answer.
    pub fn begin_job(
        &self,
        call: Call,
        manner: Manner,
        on_progress: Box<dyn FnMut(Progress)>,
    ) -> (Steering, impl Future<Output = Answer> + use<>) {
        let steering = Steering::default();
        let (client, steered) = (self.clone(), steering.clone());
        // Begun now, not when first polled: the order of requests is that of the calls.
        let work = match client.shares_of(&call, manner) {
            Some(shares) => futures::future::Either::Left(client.shared(call, shares, steered, on_progress)),
            None => {
                let (id, answer) = client.begin(call, on_progress);
                steered.add(&client, id);
                futures::future::Either::Right(answer)
            }
        };
        (steering, work)
    }

    /// How a request is shared, where it can be and that is worth it.
    fn shares_of(&self, call: &Call, manner: Manner) -> Option<Shares> {
        let (source, info, engine) = self.0.loaded.borrow().clone()?;
        // Workers share work on the CPU; a graphics device has no use for them.
        let n_wanted = if engine.is_gpu { Some(1) } else { manner.n_workers };
        let n_there = || workers(self.0.n_workers.get(), machine(), &info, &engine).0;
        let (parts, n_all) = match call {
            Call::Sweep(request) => {
                let n_worth = || n_sweepers(n_there(), &info, request);
                let n_workers = n_wanted.unwrap_or_else(n_worth).clamp(1, info.n_layers);
                let is_quicker = engine.timings.is_some_and(|timings| timings.fast_speedup().is_some());
                let is_fast_first = manner.is_fast_first
                    && is_quicker
                    && !engine.is_gpu
                    && request.precision.is_exact()
                    && is_long(&info, request);
                let n_heads = request.spec.layers.as_ref().map_or(info.n_layers, Vec::len) * info.n_heads;
                let n_edits = n_heads as u64 * if is_fast_first { 2 } else { 1 };
                let parts = parts(request, info.n_layers, n_workers).into_iter();
                let parts: Vec<_> = parts.map(|request| Part::Sweep { request, is_fast_first }).collect();
                if parts.len() == 1 && !is_fast_first {
                    return None;
                }
                (parts, Some(n_edits))
            }
            Call::Detect(request) => {
                let n_worth = || n_detectors(n_there(), &info, request);
                let parts = draws_of(request, n_wanted.unwrap_or_else(n_worth));
                if parts.len() == 1 {
                    return None;
                }
                (parts.into_iter().map(Part::Draws).collect(), None)
            }
            _ => return None,
        };
        Some(Shares { source, timings: engine.timings, parts, n_all })
    }

    async fn shared(
        self,
        call: Call,
        shares: Shares,
        steering: Steering,
        on_progress: Box<dyn FnMut(Progress)>,
    ) -> Answer {
        let together = Rc::new(RefCell::new(Together::new(shares.parts.len())));
        let on_progress = Rc::new(RefCell::new(on_progress));
        let n_all = shares.n_all;
        let tell = |part: usize| {
            let (together, on_progress) = (Rc::clone(&together), Rc::clone(&on_progress));
            move |progress| {
                let sum = together.borrow_mut().take(part, progress, n_all);
                (on_progress.borrow_mut())(sum);
            }
        };
        let share = async |index: usize, part: Part| {
            if index > 0 {
                let helper = Self::start_helper();
                let answer = helper.help(&shares, part.clone(), &steering, tell(index)).await;
                helper.end();
                match answer {
                    Err(error) if error.code != "cancelled" => {
                        together.borrow_mut().restart(index);
                        self.tell(ClientEvent::HelperLost(helper_lost(error)));
                    }
                    answer => return answer,
                }
            }
            // A helper that could not load or was killed leaves its share to this worker.
            self.do_part(part, &steering, tell(index)).await
        };
        let parts = shares.parts.iter().cloned().enumerate().map(|(index, part)| share(index, part));
        let (mut sweeps, mut detections) = (Vec::new(), Vec::new());
        for answer in futures::future::join_all(parts).await {
            match answer? {
                Reply::Sweep(report) => sweeps.push(*report),
                Reply::Detect(report) => detections.push(*report),
                _ => return Err(unexpected()),
            }
        }
        match call {
            Call::Sweep(request) => Ok(Reply::Sweep(Box::new(whole(request, sweeps)))),
            Call::Detect(request) => {
                let report = DetectReport::whole(request, detections).ok_or_else(unexpected)?;
                Ok(Reply::Detect(Box::new(report)))
            }
            _ => Err(unexpected()),
        }
    }

    /// Loads a model and does a part on it.
    async fn help(
        &self,
        shares: &Shares,
        part: Part,
        steering: &Steering,
        on_progress: impl Fn(Progress) + Clone + 'static,
    ) -> Answer {
        self.load(shares.source.clone(), BackendChoice::Cpu, shares.timings, |_| {}).await?;
        self.do_part(part, steering, on_progress).await
    }

    async fn do_part(
        &self,
        part: Part,
        steering: &Steering,
        on_progress: impl Fn(Progress) + Clone + 'static,
    ) -> Answer {
        match part {
            Part::Sweep { request, is_fast_first: false } => {
                self.steered(Call::Sweep(request), steering, on_progress).await
            }
            Part::Sweep { request, .. } => self.sweep_fast_first(request, steering, on_progress).await,
            // Means over some of the draws are not those over all of them.
            Part::Draws(request) => {
                let tell = move |progress| on_progress(Progress { scores: None, ..progress });
                self.steered(Call::Detect(request), steering, tell).await
            }
        }
    }

    /// A part of a sweep on this worker: numbers in `fast` precision, and then the exact ones from the layer with the largest effect
    /// on.
    async fn sweep_fast_first(
        &self,
        request: SweepRequest,
        steering: &Steering,
        on_progress: impl Fn(Progress) + Clone + 'static,
    ) -> Answer {
        let before = Rc::new(Cell::new((0, 0.0)));
        let (tell, last) = (on_progress.clone(), Rc::clone(&before));
        let fast = SweepRequest { precision: Precision::Fast, ..request.clone() };
        let fast = self.steered(Call::Sweep(fast), steering, move |progress| {
            last.set((progress.done, progress.elapsed_ms));
            tell(Progress { preview: progress.scores, scores: None, ..progress });
        });
        let Reply::Sweep(fast) = fast.await? else { return Err(unexpected()) };
        let preview = fast.effects;
        let exact = Call::Sweep(largest_first(request, &preview));
        let exact = self.steered(exact, steering, move |progress| {
            let (done, elapsed_ms) = before.get();
            on_progress(Progress {
                done: done + progress.done,
                elapsed_ms: elapsed_ms + progress.elapsed_ms,
                preview: Some(preview.clone()),
                ..progress
            });
        });
        exact.await
    }

    async fn steered(
        &self,
        call: Call,
        steering: &Steering,
        on_progress: impl FnMut(Progress) + 'static,
    ) -> Answer {
        let (id, answer) = self.begin(call, Box::new(on_progress));
        steering.add(self, id);
        answer.await
    }
}
