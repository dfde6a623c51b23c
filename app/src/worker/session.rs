//! A page's state in the worker (one engine and its latest runs) and the answer to each call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use headlight_core::backend::webgpu::{Wanted, WebGpu};
use headlight_core::backend::{Device, Precision};
use headlight_core::engine::{EffectTask, Engine, Job, PatternsWanted, RunOutcome, RunTask, Want};
use headlight_core::error::Error;
use headlight_core::hooks::Intervention;
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::metrics::{kl_nats, top_indices};
use headlight_core::report::{
    BenchReport, BosPolicy, EffectReport, PatternReport, PrefillSpeed, Prompt, RunRequest, SweepReport,
    SweepRequest, TokensReport,
};
use js_sys::{ArrayBuffer, WebAssembly};
use wasm_bindgen::JsCast;

use super::cancel::{self, Breather};
use super::post::{self, Reporter};
use super::{RequestId, cpu_name, fetch, load, now_ms, within_ms};
use crate::protocol::{
    BackendChoice, Call, Comparison, EngineReport, ErrorReport, Event, ModelFormat, ModelSource, Reply,
    Stage, View, ViewRequest,
};

/// Runs that are kept, so that a click on another head or a toggled edit needs no new one.
const N_KEPT_RUNS: usize = 3;
/// Patterns of every head are kept with a run up to this size.
const MAX_KEPT_PATTERN_BYTES: usize = 32 << 20;
/// A clean run is kept whole, for edited ones to start from, up to this size: SmolLM2 at about 500 tokens.
const MAX_KEPT_BASE_BYTES: usize = 128 << 20;
/// A graphics device that takes longer to open, or for one kernel, is left alone: drivers can hang.
pub const MAX_OPENING_MS: i32 = 30_000;
/// Sweeps that are kept.
const N_KEPT_SWEEPS: usize = 8;

/// What the worker holds for a page between requests.
#[derive(Default)]
pub struct Session {
    /// Whose it is.
    connection: u32,
    engine: Option<Rc<Engine>>,
    /// How its model came to be there.
    origin: Option<Origin>,
    /// The same model on the CPU, where `engine` is on a graphics device.
    cpu: Option<Rc<Engine>>,
    /// The graphics device, once it was opened.
    gpu: Option<Rc<WebGpu>>,
    /// How often this model's device was lost and opened again.
    n_reopened: usize,
    /// Whether devices are opened with a wrong kernel, for tests.
    breaks_gpu: bool,
    runs: VecDeque<KeptRun>,
    sweeps: VecDeque<SweepReport>,
    view_id: Option<RequestId>,
}

/// How a model came to be loaded.
#[derive(Clone)]
pub struct Origin {
    /// Where its files are.
    pub source: ModelSource,
    /// Which engine was wished for.
    pub backend: BackendChoice,
    /// Which answers, and why.
    pub report: EngineReport,
    /// Whether this browser keeps its file.
    pub cached: bool,
    /// Why not, if it should.
    pub cache_note: Option<String>,
}

#[derive(Clone)]
struct KeptRun {
    request: RunRequest,
    outcome: Rc<RunOutcome>,
}

impl Session {
    /// Nothing, for a page's connection.
    pub fn of(connection: u32) -> Self {
        Self { connection, ..Self::default() }
    }

    /// Lets go of the engine and of everything that it computed.
    pub fn clear(&mut self) {
        let (gpu, breaks_gpu) = (self.gpu.take(), self.breaks_gpu);
        *self = Self { view_id: self.view_id, gpu, breaks_gpu, ..Self::of(self.connection) };
    }

    /// Takes a new engine in place of the old, with the same model on the CPU where that is another one.
    pub fn replace(&mut self, origin: Origin, engine: Engine, cpu: Option<Engine>) {
        self.clear();
        self.origin = Some(origin);
        self.engine = Some(Rc::new(engine));
        self.cpu = cpu.map(Rc::new);
    }

    /// Whether this is another page's session that holds this model for this engine.
    pub fn has_loaded(&self, connection: u32, source: &ModelSource, backend: BackendChoice) -> bool {
        let is_it = |origin: &Origin| origin.source == *source && origin.backend == backend;
        self.connection != connection && self.engine.is_some() && self.origin.as_ref().is_some_and(is_it)
    }

    /// Takes over the model of another page.
    pub fn adopt(&mut self, other: &Self) {
        self.clear();
        (self.engine, self.cpu, self.origin) =
            (other.engine.clone(), other.cpu.clone(), other.origin.clone());
    }

    /// Host memory that the loaded model's weights take, bytes.
    pub fn weight_bytes(&self) -> usize {
        let engines = self.engine.iter().chain(&self.cpu);
        engines.map(|engine| engine.weight_bytes()).sum()
    }

    /// What is loaded, for the page.
    pub fn loaded(&self) -> Option<Reply> {
        let Origin { report, cached, cache_note, .. } = self.origin.clone()?;
        let info = self.engine.as_ref()?.info().clone();
        Some(Reply::Loaded { info, engine: report, cached, cache_note })
    }

    /// Another engine with the same model in the place of one whose device failed; results of the old one are forgotten.
    fn put_in_place(&mut self, engine: Rc<Engine>, cpu: Option<Rc<Engine>>, report: EngineReport) {
        let origin = self.origin.take().map(|origin| Origin { report: report.clone(), ..origin });
        let n_reopened = self.n_reopened;
        self.clear();
        (self.engine, self.cpu, self.origin, self.n_reopened) = (Some(engine), cpu, origin, n_reopened);
        post::event(self.connection, &Event::Engine(report));
    }

    fn engine(&self) -> Result<Rc<Engine>, ErrorReport> {
        self.engine.clone().ok_or_else(|| post::error("no_model", "no model is loaded; choose one"))
    }

    /// Where a script finds the files of a folder that came from the web.
    fn files(&self) -> Option<String> {
        let source = &self.origin.as_ref()?.source;
        if source.format != ModelFormat::Folder {
            return None;
        }
        fetch::address(source.urls.first()?).filter(|address| address.starts_with("http"))
    }

    fn kept_run(&self, request: &RunRequest) -> Option<Rc<RunOutcome>> {
        let is_same = |run: &&KeptRun| {
            let (kept, edits) = (&run.request, &request.interventions);
            kept.prompt == request.prompt && kept.bos == request.bos && kept.interventions == *edits
        };
        self.runs.iter().find(is_same).map(|run| Rc::clone(&run.outcome))
    }

    fn keep_run(&mut self, run: KeptRun) {
        self.runs.push_front(run);
        self.runs.truncate(N_KEPT_RUNS);
    }

    /// The graphics device, opened when it was not; why not, when there is none to use.
    pub async fn gpu(session: &RefCell<Self>, software: bool) -> Result<Rc<WebGpu>, String> {
        let (gpu, broken) = (session.borrow().gpu.clone(), session.borrow().breaks_gpu);
        if let Some(gpu) = gpu.filter(|gpu| software || !gpu.is_software()) {
            return Ok(gpu);
        }
        // Otherwise all that is said is that no adapter was found, as on a machine that has none.
        if !super::scope().is_secure_context() {
            return Err("a page that came over plain http has no WebGPU; over https it may".to_owned());
        }
        if js_sys::Reflect::get(&super::scope().navigator(), &"gpu".into())
            .is_ok_and(|gpu| gpu.is_undefined())
        {
            return Err("this browser has no WebGPU".to_owned());
        }
        let opened =
            within_ms(MAX_OPENING_MS, WebGpu::open(Wanted { software, broken, ..Wanted::default() })).await;
        let opened = opened.ok_or("this machine's graphics device did not answer")?;
        let gpu = Rc::new(opened.map_err(|error| error.to_string())?);
        session.borrow_mut().gpu = Some(Rc::clone(&gpu));
        Ok(gpu)
    }

    /// A newer view takes the place of the one under way.
    fn begin_view(&mut self, id: RequestId) {
        if let Some(older) = self.view_id.replace(id) {
            cancel::cancel(older);
            cancel::prefer_no_longer(older);
        }
        cancel::prefer(id);
    }

    fn end_view(&mut self, id: RequestId) {
        cancel::prefer_no_longer(id);
        if self.view_id == Some(id) {
            self.view_id = None;
        }
    }
}

/// Answers one call. Where the graphics device fails, another engine takes over and answers it.
pub async fn answer(session: &RefCell<Session>, id: RequestId, call: Call) -> Result<Reply, ErrorReport> {
    loop {
        // A load is to be able to let go of the model before.
        let engine = session.borrow().engine.clone().filter(|_| !matches!(call, Call::Load { .. }));
        match answer_once(session, id, call.clone()).await {
            Err(error) if error.code.starts_with("device_") => recover(session, engine, error).await?,
            answer => return answer,
        };
    }
}

/// Puts another engine in the place of `failed`, unless that has happened already: the device opened again where it was lost for the
/// first time, otherwise the CPU. The error comes back when there is nothing to put there.
async fn recover(
    session: &RefCell<Session>,
    failed: Option<Rc<Engine>>,
    error: ErrorReport,
) -> Result<Rc<Engine>, ErrorReport> {
    let answering = session.borrow().engine.clone();
    if let (Some(failed), Some(answering)) = (&failed, &answering)
        && !Rc::ptr_eq(failed, answering)
    {
        return Ok(Rc::clone(answering));
    }
    // A device that failed is opened anew, if at all.
    session.borrow_mut().gpu = None;
    let Some(cpu) = session.borrow().cpu.clone() else { return Err(error) };
    // A device that is gone may refuse what it is asked before anybody is told so.
    if error.code != "device_memory"
        && session.borrow().n_reopened == 0
        && let Some(engine) = reopen(session, &cpu).await
    {
        return Ok(engine);
    }
    // The message goes on with what the user could do, which is done here.
    let happened = error.detail.unwrap_or(error.message);
    let report = EngineReport {
        name: cpu_name(&cpu.engine_name()),
        is_gpu: false,
        why: format!("{happened}, so the CPU took over and computed it again"),
        weight_bytes: cpu.weight_bytes() as u64,
        ..EngineReport::default()
    };
    session.borrow_mut().put_in_place(Rc::clone(&cpu), None, report);
    Ok(cpu)
}

/// Opens the device again and takes the weights there from host memory; nothing where that, or its self-test, fails.
async fn reopen(session: &RefCell<Session>, cpu: &Rc<Engine>) -> Option<Rc<Engine>> {
    session.borrow_mut().n_reopened += 1;
    let (software, golden) = {
        let session = session.borrow();
        let origin = session.origin.as_ref()?;
        (origin.backend == BackendChoice::Webgpu, origin.source.golden.clone())
    };
    let gpu = Session::gpu(session, software).await.ok()?;
    let engine = Rc::new(cpu.on(Device::WebGpu(gpu)));
    let test = engine.self_test(Some(cpu), golden.as_ref()).await.ok().filter(|test| test.passed())?;
    let report = EngineReport {
        name: engine.engine_name(),
        is_gpu: true,
        why: format!("the graphics device failed once and was opened again; in its self-test {test}"),
        ..EngineReport::default()
    };
    session.borrow_mut().put_in_place(Rc::clone(&engine), Some(Rc::clone(cpu)), report);
    Some(engine)
}

async fn answer_once(session: &RefCell<Session>, id: RequestId, call: Call) -> Result<Reply, ErrorReport> {
    match call {
        Call::Load { source, backend, timings } => load::load(session, id, source, backend, timings).await,
        Call::CachedModels(sources) => Ok(Reply::Cached(cached_ids(sources).await)),
        Call::DeleteCached(source) => {
            if let Some(sha256) = &source.sha256 {
                fetch::delete_cached(sha256).await;
            }
            Ok(Reply::Deleted)
        }
        Call::Tokenize { text, bos } => {
            let engine = session.borrow().engine()?;
            engine.tokenize(&text, bos).map(Reply::Tokens).map_err(|error| post::engine_error(&error))
        }
        Call::Run(request) => {
            let engine = session.borrow().engine()?;
            let want = Want { nll: true, ..Want::default() };
            Ok(Reply::Run(run(&engine, id, &request, want).await?.report))
        }
        Call::Patterns { run: request, head } => {
            let engine = session.borrow().engine()?;
            engine.check_head(head).map_err(|error| post::engine_error(&error))?;
            Ok(Reply::Patterns(pattern(&engine, id, &request, head).await?))
        }
        Call::View(request) => {
            session.borrow_mut().begin_view(id);
            let view = view(session, id, request).await;
            session.borrow_mut().end_view(id);
            view.map(|view| Reply::View(Box::new(view)))
        }
        Call::Detect(request) => {
            let engine = session.borrow().engine()?;
            let task = started(engine.start_detect(&request))?;
            Ok(Reply::Detect(Box::new(job(&engine, id, Stage::Detect, task).await?)))
        }
        Call::Sweep(request) => Ok(Reply::Sweep(Box::new(sweep(session, id, request).await?))),
        Call::Effect(request) => Ok(Reply::Effect(Box::new(effect(session, id, request).await?))),
        Call::Dla(request) => {
            let engine = session.borrow().engine()?;
            let task = started(engine.start_dla(&request))?;
            Ok(Reply::Dla(Box::new(job(&engine, id, Stage::Explain, task).await?)))
        }
        Call::Lens(request) => {
            let engine = session.borrow().engine()?;
            let task = started(engine.start_lens(&request))?;
            Ok(Reply::Lens(Box::new(job(&engine, id, Stage::Explain, task).await?)))
        }
        Call::Ov(request) => {
            let engine = session.borrow().engine()?;
            let task = started(engine.start_ov(&request))?;
            Ok(Reply::Ov(Box::new(job(&engine, id, Stage::Explain, task).await?)))
        }
        Call::Patch(request) => {
            let engine = session.borrow().engine()?;
            let task = started(engine.start_patch(&request))?;
            Ok(Reply::Patch(Box::new(job(&engine, id, Stage::Patch, task).await?)))
        }
        Call::Controls(request) => {
            let engine = session.borrow().engine()?;
            let task = started(engine.start_controls(&request))?;
            Ok(Reply::Controls(Box::new(job(&engine, id, Stage::Explain, task).await?)))
        }
        Call::Generate(request) => {
            let engine = session.borrow().engine()?;
            let task = started(engine.start_generate(&request))?;
            Ok(Reply::Generate(Box::new(job(&engine, id, Stage::Generate, task).await?)))
        }
        Call::Script(mut request) => {
            let engine = session.borrow().engine()?;
            request.files = request.files.or_else(|| session.borrow().files());
            let [clean, edited] = request.runs();
            let clean = run(&engine, id, &clean, Want::default()).await?;
            let edited = run(&engine, id, &edited, Want::default()).await?;
            let script = engine.script_of(&request, &clean, &edited);
            script.map(Reply::Script).map_err(|error| post::engine_error(&error))
        }
        Call::Bench { prefill, repeats } => {
            let engine = session.borrow().engine()?;
            let loading = session.borrow().origin.as_ref().and_then(|origin| origin.report.loading);
            let report = bench(&engine, id, &prefill, repeats).await?;
            Ok(Reply::Bench(BenchReport { loading, ..report }))
        }
        Call::BreakGpu => {
            let mut session = session.borrow_mut();
            (session.gpu, session.breaks_gpu) = (None, true);
            Ok(Reply::Deleted)
        }
        Call::LoseGpu => {
            if let Some(gpu) = &session.borrow().gpu {
                gpu.lose();
            }
            Ok(Reply::Deleted)
        }
        Call::Cancel(_) | Call::Pause(_) | Call::Resume(_) | Call::Crash => {
            unreachable!("answered as they arrive")
        }
    }
}

fn started<T>(task: Result<T, Error>) -> Result<T, ErrorReport> {
    task.map_err(|error| post::engine_error(&error))
}

async fn cached_ids(sources: Vec<ModelSource>) -> Vec<String> {
    let mut cached = Vec::new();
    for source in sources {
        let Some(sha256) = &source.sha256 else { continue };
        if fetch::is_cached(sha256).await {
            cached.push(source.id);
        }
    }
    cached
}

/// Runs a request to its end, letting the event loop run between steps.
async fn run(
    engine: &Engine,
    id: RequestId,
    request: &RunRequest,
    want: Want,
) -> Result<RunOutcome, ErrorReport> {
    run_from(engine, id, None, request, want).await
}

/// The same, from a clean run of the same prompt where that was kept whole.
async fn run_from(
    engine: &Engine,
    id: RequestId,
    clean: Option<Rc<RunOutcome>>,
    request: &RunRequest,
    want: Want,
) -> Result<RunOutcome, ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let mut breather = Breather::new(id);
    breather.breathe().await?;
    let mut task: RunTask = engine.start_from(clean, request, want).map_err(failed)?;
    while !task.step(engine).await.map_err(failed)? {
        breather.breathe().await?;
    }
    task.finish(engine).await.map_err(failed)
}

async fn pattern(
    engine: &Engine,
    id: RequestId,
    request: &RunRequest,
    head: HeadId,
) -> Result<PatternReport, ErrorReport> {
    let want = Want { patterns: PatternsWanted::Head(head), ..Want::default() };
    let outcome = run(engine, id, request, want).await?;
    Ok(outcome.pattern(engine, head).expect("the pattern of this head was asked for"))
}

async fn view(session: &RefCell<Session>, id: RequestId, request: ViewRequest) -> Result<View, ErrorReport> {
    let start_ms = now_ms();
    let engine = session.borrow().engine()?;
    let Runs { tokens, clean, edited } = runs(session, &engine, id, &request).await?;
    // A head of another model, while models change, is no head.
    let head = request.head.filter(|&head| engine.check_head(head).is_ok());
    let is_edited = !request.edits.is_empty();
    Ok(View {
        tokens,
        kl_nats: is_edited.then(|| kl_nats(&clean.logits, &edited.logits)),
        clean: is_edited.then(|| clean.report.clone()),
        run: edited.report.clone(),
        comparison: comparison(&engine, &request.compare, &clean, &edited)?,
        scores: edited.scores.clone(),
        pattern: head.and_then(|head| edited.pattern(&engine, head)),
        elapsed_ms: now_ms() - start_ms,
    })
}

/// What a view is made of.
struct Runs {
    /// The prompt, with whether a BOS was put before it: runs themselves are of ids.
    tokens: TokensReport,
    clean: Rc<RunOutcome>,
    /// The same one without edits.
    edited: Rc<RunOutcome>,
}

/// The clean and the edited run of a view, kept or new.
async fn runs(
    session: &RefCell<Session>,
    engine: &Engine,
    id: RequestId,
    request: &ViewRequest,
) -> Result<Runs, ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let text = Prompt::Text(request.text.clone());
    let tokens = engine.prompt_tokens(&text, request.bos).map_err(failed)?;
    let head = request.head.filter(|&head| engine.check_head(head).is_ok());
    let run = |interventions: Vec<Intervention>| RunRequest {
        prompt: Prompt::Ids(tokens.ids.clone()),
        // Ids get no BOS; texts of other prompts in the edits do.
        bos: request.bos,
        top: request.top,
        interventions,
        watch: Vec::new(),
    };
    let clean = kept_or_run(session, engine, id, None, &run(Vec::new()), head).await?;
    let edited = match request.edits.is_empty() {
        true => Rc::clone(&clean),
        false => {
            let n_tokens = tokens.ids.len();
            let edited = run(request.edits.iter().map(|edit| edit.resolve(n_tokens)).collect());
            kept_or_run(session, engine, id, Some(Rc::clone(&clean)), &edited, head).await?
        }
    };
    Ok(Runs { tokens, clean, edited })
}

/// The two next tokens that the user compares, or the clean run's two most probable ones.
fn comparison(
    engine: &Engine,
    texts: &[String; 2],
    clean: &RunOutcome,
    edited: &RunOutcome,
) -> Result<Comparison, ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let mut chosen = Vec::new();
    for text in texts {
        let ids = engine.tokenize(text, BosPolicy::Off).map_err(failed)?.ids;
        chosen.push(ids.first().copied());
    }
    let likely: Vec<TokenId> =
        top_indices(&clean.logits, 3).into_iter().map(|index| index as TokenId).collect();
    let mut left = likely.iter().copied().filter(|id| !chosen.contains(&Some(*id)));
    let ids = [0, 1].map(|slot| chosen[slot].or_else(|| left.next()).unwrap_or_default());
    let of = |run: &RunOutcome| ids.map(|id| engine.next_token(id, &run.logits));
    Ok(Comparison { clean: of(clean), edited: of(edited) })
}

async fn effect(
    session: &RefCell<Session>,
    id: RequestId,
    request: ViewRequest,
) -> Result<EffectReport, ErrorReport> {
    let engine = session.borrow().engine()?;
    let Runs { clean, edited, .. } = runs(session, &engine, id, &request).await?;
    job(&engine, id, Stage::Explain, EffectTask::new(clean, edited)).await
}

/// A kept run that answers the request, or a new one, from the clean run where there is one; it holds the pattern of
/// `head`.
async fn kept_or_run(
    session: &RefCell<Session>,
    engine: &Engine,
    id: RequestId,
    clean: Option<Rc<RunOutcome>>,
    request: &RunRequest,
    head: Option<HeadId>,
) -> Result<Rc<RunOutcome>, ErrorReport> {
    let Prompt::Ids(ids) = &request.prompt else { unreachable!("views run ids") };
    let kept = session.borrow().kept_run(request);
    if let Some(kept) = kept.filter(|kept| {
        let has_pattern = |head| kept.pattern(engine, head).is_some();
        kept.report.logits_top.len() >= request.top.min(engine.info().d_vocab) && head.is_none_or(has_pattern)
    }) {
        return Ok(kept);
    }
    let info = engine.info();
    let pattern_bytes = info.n_layers * info.n_heads * ids.len() * ids.len() * size_of::<f32>();
    let patterns = match head {
        _ if pattern_bytes <= MAX_KEPT_PATTERN_BYTES => PatternsWanted::All,
        Some(head) => PatternsWanted::Head(head),
        None => PatternsWanted::None,
    };
    let base = engine.base_bytes(ids.len()) <= MAX_KEPT_BASE_BYTES;
    let want = Want { nll: false, scores: true, patterns, base };
    let outcome = Rc::new(run_from(engine, id, clean, request, want).await?);
    session.borrow_mut().keep_run(KeptRun { request: request.clone(), outcome: Rc::clone(&outcome) });
    Ok(outcome)
}

/// Does a job to its end, letting the event loop run between steps and telling how far it is.
async fn job<J: Job>(
    engine: &Engine,
    id: RequestId,
    stage: Stage,
    mut job: J,
) -> Result<J::Report, ErrorReport> {
    steps(engine, id, stage, &mut job).await?;
    job.finish(engine).await.map_err(|error| post::engine_error(&error))
}

/// Steps of a job until nothing is left.
async fn steps(engine: &Engine, id: RequestId, stage: Stage, job: &mut impl Job) -> Result<(), ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let mut reporter = Reporter::new(id, stage);
    let mut breather = Breather::new(id);
    while !job.step(engine).await.map_err(failed)? {
        let (done, total) = job.progress();
        let partial = || (Some(job.partial()).filter(|table| !table.is_empty()), job.text(engine));
        reporter.report_with(done as u64, Some(total as u64), partial);
        breather.breathe().await?;
    }
    Ok(())
}

/// A sweep, kept or new: the same request on the same model gives the same numbers.
async fn sweep(
    session: &RefCell<Session>,
    id: RequestId,
    request: SweepRequest,
) -> Result<SweepReport, ErrorReport> {
    let engine = session.borrow().engine()?;
    let kept = session.borrow().sweeps.iter().find(|report| report.request == request).cloned();
    if let Some(report) = kept {
        return Ok(report);
    }
    let mut engine = engine;
    let mut task = engine.start_sweep(&request).map_err(|error| post::engine_error(&error))?;
    while let Err(error) = steps(&engine, id, Stage::Sweep, &mut task).await {
        if !error.code.starts_with("device_") {
            return Err(error);
        }
        engine = recover(session, Some(engine), error.clone()).await?;
        // Heads that were done are not computed again.
        if !task.go_on_with(&engine) {
            return Err(error);
        }
    }
    let report = task.finish(&engine).await.map_err(|error| post::engine_error(&error))?;
    let sweeps = &mut session.borrow_mut().sweeps;
    sweeps.push_front(report.clone());
    sweeps.truncate(N_KEPT_SWEEPS);
    Ok(report)
}

async fn bench(
    engine: &Engine,
    id: RequestId,
    prefill: &[usize],
    repeats: usize,
) -> Result<BenchReport, ErrorReport> {
    let repeats = repeats.max(1);
    let fast = engine.has_fast().then(|| engine.with_precision(Precision::Fast));
    let total = (prefill.len() * repeats * if fast.is_some() { 2 } else { 1 }) as u64;
    let mut reporter = Reporter::new(id, Stage::Bench);
    let mut n_done = 0;
    let mut speeds = async |engine: &Engine| {
        let mut speeds = Vec::new();
        for &n_tokens in prefill {
            let request = engine.bench_request(n_tokens);
            let mut runs_ms = Vec::new();
            for _ in 0..repeats {
                let start_ms = now_ms();
                run(engine, id, &request, Want { scores: true, ..Want::default() }).await?;
                runs_ms.push(now_ms() - start_ms);
                n_done += 1;
                reporter.report(n_done, Some(total));
            }
            speeds.push(PrefillSpeed::of_runs(n_tokens, runs_ms));
        }
        Ok::<_, ErrorReport>(speeds)
    };
    let prefill_fast = match &fast {
        Some(fast) => Some(speeds(fast).await?),
        None => None,
    };
    let prefill = speeds(engine).await?;
    let name = format!("{} wasm32", engine.engine_name());
    let engine_name = if engine.is_on_gpu() { name } else { cpu_name(&name) };
    let kernel = engine.kernel_speed(now_ms);
    // It never shrinks: what it is now is the most that it was.
    let memory: WebAssembly::Memory = wasm_bindgen::memory().unchecked_into();
    let memory_bytes = memory.buffer().unchecked_into::<ArrayBuffer>().byte_length();
    Ok(BenchReport {
        engine: engine_name,
        model: engine.info().name.clone(),
        prefill,
        prefill_fast,
        loading: None,
        kernel,
        memory_bytes: Some(memory_bytes.into()),
    })
}
