//! The worker's state (one engine and its latest runs) and the answer to each call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use headlight_core::engine::{Engine, PatternsWanted, RunOutcome, RunTask, Want};
use headlight_core::error::Error;
use headlight_core::hooks::Intervention;
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::metrics::kl_nats;
use headlight_core::report::{
    BenchReport, BosPolicy, DetectReport, DetectRequest, PatternReport, PrefillSpeed, Prompt, RunRequest,
};

use super::cancel::{self, Breather};
use super::post::{self, Reporter};
use super::{fetch, load, now_ms};
use crate::protocol::{Call, ErrorReport, ModelSource, Reply, Stage, View, ViewRequest};

/// Runs that are kept, so that a click on another head or a toggled edit needs no new one.
const N_KEPT_RUNS: usize = 3;
/// Patterns of every head are kept with a run up to this size.
const MAX_KEPT_PATTERN_BYTES: usize = 32 << 20;

/// What the worker holds between requests.
#[derive(Default)]
pub struct Session {
    engine: Option<Rc<Engine>>,
    runs: VecDeque<KeptRun>,
    view_id: Option<u32>,
}

#[derive(Clone)]
struct KeptRun {
    ids: Vec<TokenId>,
    interventions: Vec<Intervention>,
    outcome: Rc<RunOutcome>,
}

impl Session {
    /// Lets go of the engine and of everything that it computed.
    pub fn clear(&mut self) {
        *self = Self { view_id: self.view_id, ..Self::default() };
    }

    /// Takes a new engine in place of the old.
    pub fn replace(&mut self, engine: Rc<Engine>) {
        self.clear();
        self.engine = Some(engine);
    }

    fn engine(&self) -> Result<Rc<Engine>, ErrorReport> {
        self.engine.clone().ok_or_else(|| post::error("no_model", "no model is loaded; choose one"))
    }

    fn kept_run(&self, ids: &[TokenId], interventions: &[Intervention]) -> Option<Rc<RunOutcome>> {
        let found = self.runs.iter().find(|run| run.ids == ids && run.interventions == interventions);
        found.map(|run| Rc::clone(&run.outcome))
    }

    fn keep_run(&mut self, run: KeptRun) {
        self.runs.push_front(run);
        self.runs.truncate(N_KEPT_RUNS);
    }

    /// A newer view takes the place of the one under way.
    fn begin_view(&mut self, id: u32) {
        if let Some(older) = self.view_id.replace(id) {
            cancel::cancel(older);
        }
    }

    fn end_view(&mut self, id: u32) {
        if self.view_id == Some(id) {
            self.view_id = None;
        }
    }
}

/// Answers one call.
pub async fn answer(session: &RefCell<Session>, id: u32, call: Call) -> Result<Reply, ErrorReport> {
    match call {
        Call::Load(source) => load::load(session, id, source).await,
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
            detect(&engine, id, &request).await.map(|report| Reply::Detect(Box::new(report)))
        }
        Call::Bench { prefill, repeats } => {
            let engine = session.borrow().engine()?;
            bench(&engine, id, &prefill, repeats).await.map(Reply::Bench)
        }
        Call::Cancel(_) | Call::Pause(_) | Call::Resume(_) | Call::Crash => {
            unreachable!("answered as they arrive")
        }
    }
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
async fn run(engine: &Engine, id: u32, request: &RunRequest, want: Want) -> Result<RunOutcome, ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let mut breather = Breather::new(id);
    breather.breathe().await?;
    let mut task: RunTask = engine.start(request, want).map_err(failed)?;
    while !task.step(engine).map_err(failed)? {
        breather.breathe().await?;
    }
    task.finish(engine).map_err(failed)
}

async fn pattern(
    engine: &Engine,
    id: u32,
    request: &RunRequest,
    head: HeadId,
) -> Result<PatternReport, ErrorReport> {
    let want = Want { patterns: PatternsWanted::Head(head), ..Want::default() };
    let outcome = run(engine, id, request, want).await?;
    Ok(outcome.pattern(engine, head).expect("the pattern of this head was asked for"))
}

async fn view(session: &RefCell<Session>, id: u32, request: ViewRequest) -> Result<View, ErrorReport> {
    let engine = session.borrow().engine()?;
    let failed = |error: Error| post::engine_error(&error);
    let start_ms = now_ms();
    let tokens = engine.prompt_tokens(&Prompt::Text(request.text), request.bos).map_err(failed)?;
    // A head of another model, while models change, is no head.
    let head = request.head.filter(|&head| engine.check_head(head).is_ok());
    let run = |interventions: Vec<Intervention>| RunRequest {
        prompt: Prompt::Ids(tokens.ids.clone()),
        bos: BosPolicy::Off,
        top: request.top,
        interventions,
        watch: Vec::new(),
    };
    let edited = kept_or_run(session, &engine, id, &run(request.interventions.clone()), head).await?;
    let clean = match request.interventions.is_empty() {
        true => None,
        false => Some(kept_or_run(session, &engine, id, &run(Vec::new()), None).await?),
    };
    Ok(View {
        tokens,
        kl_nats: clean.as_ref().map(|clean| kl_nats(&clean.logits, &edited.logits)),
        clean: clean.map(|clean| clean.report.clone()),
        run: edited.report.clone(),
        scores: edited.scores.clone(),
        pattern: head.and_then(|head| edited.pattern(&engine, head)),
        elapsed_ms: now_ms() - start_ms,
    })
}

/// A kept run that answers the request, or a new one; it holds the pattern of `head`.
async fn kept_or_run(
    session: &RefCell<Session>,
    engine: &Engine,
    id: u32,
    request: &RunRequest,
    head: Option<HeadId>,
) -> Result<Rc<RunOutcome>, ErrorReport> {
    let Prompt::Ids(ids) = &request.prompt else { unreachable!("views run ids") };
    let kept = session.borrow().kept_run(ids, &request.interventions);
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
    let want = Want { nll: false, scores: true, patterns };
    let outcome = Rc::new(run(engine, id, request, want).await?);
    let (ids, interventions) = (ids.clone(), request.interventions.clone());
    session.borrow_mut().keep_run(KeptRun { ids, interventions, outcome: Rc::clone(&outcome) });
    Ok(outcome)
}

async fn detect(engine: &Engine, id: u32, request: &DetectRequest) -> Result<DetectReport, ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let mut task = engine.start_detect(request).map_err(failed)?;
    let mut reporter = Reporter::new(id, Stage::Detect);
    let mut breather = Breather::new(id);
    while !task.step(engine).map_err(failed)? {
        let (done, total) = task.progress();
        reporter.report_with(done as u64, Some(total as u64), || Some(task.partial()));
        breather.breathe().await?;
    }
    task.finish(engine).map_err(failed)
}

async fn bench(
    engine: &Engine,
    id: u32,
    prefill: &[usize],
    repeats: usize,
) -> Result<BenchReport, ErrorReport> {
    let repeats = repeats.max(1);
    let total = (prefill.len() * repeats) as u64;
    let mut reporter = Reporter::new(id, Stage::Bench);
    let mut speeds = Vec::new();
    for &n_tokens in prefill {
        let request = engine.bench_request(n_tokens);
        let mut runs_ms = Vec::new();
        for _ in 0..repeats {
            let start_ms = now_ms();
            run(engine, id, &request, Want { scores: true, ..Want::default() }).await?;
            runs_ms.push(now_ms() - start_ms);
            reporter.report((speeds.len() * repeats + runs_ms.len()) as u64, Some(total));
        }
        speeds.push(PrefillSpeed::of_runs(n_tokens, runs_ms));
    }
    let engine_name = format!("{} wasm32 simd128", engine.engine_name());
    Ok(BenchReport { engine: engine_name, model: engine.info().name.clone(), prefill: speeds })
}
