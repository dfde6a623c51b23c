//! From a [`ModelSource`] to an engine: find the bytes, unpack them as they come, check them.

use std::cell::RefCell;
use std::rc::Rc;

use headlight_core::backend::webgpu::WebGpu;
use headlight_core::backend::{Device, Precision};
use headlight_core::engine::{Engine, Loading, Want};
use headlight_core::error::Error;
use headlight_core::report::LoadTimes;
use js_sys::Uint8Array;
use web_sys::Response;

use super::cancel::Breather;
use super::fetch::{self, Aside, Body};
use super::post::{self, Reporter};
use super::session::{MAX_OPENING_MS, Origin, Session};
use super::shared::TakeOver;
use super::{RequestId, cpu_name, now_ms, shared, within_ms};
use crate::protocol::{
    BackendChoice, EngineReport, ErrorReport, FastTiming, ModelFormat, ModelSource, Reply, Stage, Timings,
};
use crate::sharing::MIN_SWEPT_PARAMS;

/// From this size on the loaded model makes room before a cached one, which was checked when it was stored, is unpacked.
const LARGE_BYTES: u64 = 64 << 20;
/// The most that a loaded model and one from the network, which may turn out wrong, take beside each other, bytes.
const BOTH_BYTES: u64 = 1 << 30;

/// Loads a model; the loaded one stays when this fails, unless it had to make room.
pub async fn load(
    session: &RefCell<Session>,
    id: RequestId,
    source: ModelSource,
    backend: BackendChoice,
    timings: Option<Timings>,
) -> Result<Reply, ErrorReport> {
    let _held = match shared::take_over(session, id, &source, backend).await? {
        TakeOver::Done => return Ok(session.borrow().loaded().expect("a model was taken over")),
        TakeOver::ToLoad(held) => held,
    };
    let gpu = graphics_device(session, backend, timings).await;
    let devices: Vec<Device> =
        [Device::default()].into_iter().chain(gpu.iter().cloned().map(Device::WebGpu)).collect();
    let Unpacked { engines, mut times, cached, cache_note } = match source.format {
        ModelFormat::Folder => folder(id, &source, devices).await?,
        ModelFormat::Gguf => gguf(session, id, &source, &devices).await?,
    };
    let mut watch = Watch::new();
    let (engine, cpu, mut report) = choose(id, engines, gpu, &source, backend, timings).await?;
    times.choose_ms = watch.lap_ms();
    report.loading = Some(times);
    let origin = Origin { source, backend, report, cached, cache_note };
    let mut session = session.borrow_mut();
    session.replace(origin, engine, cpu);
    Ok(session.loaded().expect("a model was loaded"))
}

/// A model's engines, one a device.
struct Unpacked {
    engines: Vec<Engine>,
    times: LoadTimes,
    /// Whether this browser keeps its file.
    cached: bool,
    /// Why not, if it should.
    cache_note: Option<String>,
}

/// Configuration, tokenizer and weights, one after another.
async fn folder(id: RequestId, source: &ModelSource, devices: Vec<Device>) -> Result<Unpacked, ErrorReport> {
    let (mut watch, mut times) = (Watch::new(), LoadTimes::default());
    let folder = source.urls.first().map(String::as_str).unwrap_or_default();
    let file = async |name: &str| fetch::download(id, &format!("{folder}/{name}")).await;
    let (config, tokenizer, weights) =
        (file("config.json").await?, file("tokenizer.json").await?, file("model.safetensors").await?);
    times.read_ms = watch.lap_ms();
    let loading = Loading::from_folder(&config, &tokenizer, vec![weights], &source.id);
    let mut loading = loading.map_err(|error| post::engine_error(&error))?.onto(devices);
    times.parse_ms = watch.lap_ms();
    unpack(id, &mut loading).await?;
    let engines = loading.finish_all().map_err(|error| post::engine_error(&error))?;
    times.pack_ms = watch.lap_ms();
    Ok(Unpacked { engines, times, cached: false, cache_note: None })
}

/// A GGUF file from the cache, or from the first of its addresses that answers with the right bytes; stored if it is to be.
async fn gguf(
    session: &RefCell<Session>,
    id: RequestId,
    source: &ModelSource,
    devices: &[Device],
) -> Result<Unpacked, ErrorReport> {
    let arrival = Arrival { session, id, source, devices };
    if let Some(sha256) = &source.sha256
        && let Some(response) = fetch::cached(sha256).await
    {
        match arrival.take_in(response, Stage::ReadCache, None).await {
            Ok((engines, times)) => return Ok(Unpacked { engines, times, cached: true, cache_note: None }),
            Err(error) if error.code == "cancelled" => return Err(error),
            // A damaged entry is worse than none.
            Err(_) => fetch::delete_cached(sha256).await,
        }
    }
    let can_store = source.sha256.is_some() && fetch::can_store().await;
    let mut last_error = post::error("download", "the model names no address");
    for url in &source.urls {
        let mut aside = can_store.then(Aside::default);
        let arrived = match fetch::open(url).await {
            Ok(response) => arrival.take_in(response, Stage::Download, aside.as_mut()).await,
            Err(error) => Err(error),
        };
        let (engines, mut times) = match arrived {
            Ok(arrived) => arrived,
            Err(error) if error.code == "cancelled" => return Err(error),
            Err(error) => {
                last_error = error;
                continue;
            }
        };
        let mut watch = Watch::new();
        let cache_note = match &source.sha256 {
            Some(sha256) => fetch::store(sha256, aside.unwrap_or_default()).await.err(),
            None => None,
        };
        times.read_ms += watch.lap_ms();
        let cached = source.sha256.is_some() && cache_note.is_none();
        return Ok(Unpacked { engines, times, cached, cache_note });
    }
    Err(last_error)
}

/// A GGUF file that arrives for a session.
struct Arrival<'a> {
    session: &'a RefCell<Session>,
    id: RequestId,
    source: &'a ModelSource,
    devices: &'a [Device],
}

impl Arrival<'_> {
    /// Takes its tensors into engines as they come, and checks at the end that they were the right ones.
    async fn take_in(
        &self,
        response: Response,
        stage: Stage,
        mut aside: Option<&mut Aside>,
    ) -> Result<(Vec<Engine>, LoadTimes), ErrorReport> {
        let (address, total) = (response.url(), self.source.size_bytes);
        let body = Body { id: self.id, response, stage, total, form: ModelFormat::Gguf };
        let told_bytes = body.told_bytes();
        let mut loading = Loading::gguf(&self.source.id, told_bytes).onto(self.devices.to_vec());
        let (mut watch, mut times) = (Watch::new(), LoadTimes::default());
        if stage == Stage::ReadCache && told_bytes.is_some_and(|told_bytes| told_bytes > LARGE_BYTES) {
            // Before anything is put among what it leaves free.
            self.session.borrow_mut().clear();
        }
        let mut n_bytes = 0;
        let take = |chunk: &Uint8Array| {
            if let Some(aside) = &mut aside {
                aside.add(chunk);
            }
            n_bytes += u64::from(chunk.length());
            loading.feed(chunk.to_vec());
            times.read_ms += watch.lap_ms();
            loop {
                let was_open = loading.is_open();
                let is_waiting = loading.step().map_err(|error| post::engine_error(&error))?;
                *if was_open { &mut times.pack_ms } else { &mut times.parse_ms } += watch.lap_ms();
                if is_waiting {
                    return Ok(());
                }
                if !was_open {
                    self.make_room(told_bytes.unwrap_or(n_bytes));
                }
            }
        };
        body.read(take).await?;
        times.read_ms += watch.lap_ms();
        loading.end();
        unpack(self.id, &mut loading).await?;
        let engines = loading.finish_all().map_err(|error| post::engine_error(&error))?;
        times.pack_ms += watch.lap_ms();
        let sha256 = &engines[0].info().sha256;
        match &self.source.sha256 {
            Some(wanted) if wanted != sha256 => Err(wrong_checksum(self.source, &address, sha256, n_bytes)),
            _ => Ok((engines, times)),
        }
    }

    /// Lets go of the loaded model where it and one of `n_bytes` are too much together.
    fn make_room(&self, n_bytes: u64) {
        let n_held = self.session.borrow().weight_bytes() as u64;
        if n_bytes.saturating_add(n_held) > BOTH_BYTES {
            self.session.borrow_mut().clear();
        }
    }
}

/// The graphics device that is to be tried, or why none is.
async fn graphics_device(
    session: &RefCell<Session>,
    backend: BackendChoice,
    known: Option<Timings>,
) -> Result<Rc<WebGpu>, String> {
    let cpu_was_faster = known.filter(|known| known.gpu_ms.is_some_and(|gpu_ms| gpu_ms > known.cpu_ms));
    match (backend, cpu_was_faster) {
        (BackendChoice::Cpu, _) => Err("the CPU was chosen".to_owned()),
        (BackendChoice::Auto, Some(known)) => {
            Err(format!("the graphics device was slower when both were timed: {}", told(known)))
        }
        (BackendChoice::Auto, None) => Session::gpu(session, false).await,
        (BackendChoice::Webgpu, _) => Session::gpu(session, true).await,
    }
}

/// The engine that is to answer, the same model on the CPU where that is another one, and why it is this one.
async fn choose(
    id: RequestId,
    engines: Vec<Engine>,
    gpu: Result<Rc<WebGpu>, String>,
    source: &ModelSource,
    backend: BackendChoice,
    known: Option<Timings>,
) -> Result<(Engine, Option<Engine>, EngineReport), ErrorReport> {
    let mut engines = engines.into_iter();
    let (cpu, gpu, device) = match (engines.next(), engines.next(), gpu) {
        (Some(cpu), Some(gpu), Ok(device)) => (cpu, gpu, device),
        (Some(cpu), None, Err(why)) => return on_cpu(id, cpu, source, why, known).await,
        _ => unreachable!("the CPU and, where there is one, the graphics device"),
    };
    let name = gpu.engine_name();
    if let Err(why) = compile(id, &device).await? {
        return on_cpu(id, cpu, source, why, known).await;
    }
    let test = match gpu.self_test(Some(&cpu), source.golden.as_ref()).await {
        Ok(test) => test,
        Err(error) => {
            let happened = error.device_event().unwrap_or_else(|| error.to_string());
            return on_cpu(id, cpu, source, format!("{name} failed its self-test: {happened}"), known).await;
        }
    };
    if !test.passed() {
        let why = format!("{name} computes wrong numbers, so it is not used: in its self-test {test}");
        return on_cpu(id, cpu, source, why, known).await;
    }
    let agrees = format!("in its self-test {test}");
    if backend == BackendChoice::Webgpu {
        let why = format!("WebGPU was chosen; {agrees}");
        return Ok((gpu, Some(cpu), on_gpu(name, why, known)));
    }
    let timings = match known {
        Some(known) if known.gpu_ms.is_some() => known,
        _ => {
            let gpu_ms = Some(run_ms(&gpu).await?);
            Timings { gpu_ms, cpu_ms: run_ms(&cpu).await?, fast: known.and_then(|known| known.fast) }
        }
    };
    if timings.gpu_ms.is_some_and(|gpu_ms| gpu_ms > timings.cpu_ms) {
        let why = format!("{name} is slower here: {}", told(timings));
        return on_cpu(id, cpu, source, why, Some(timings)).await;
    }
    let why = format!("{}; {agrees}", told(timings));
    Ok((gpu, Some(cpu), on_gpu(name, why, Some(timings))))
}

/// Compiles what passes on a device run; why it is not to be used, where that fails.
async fn compile(id: RequestId, device: &WebGpu) -> Result<Result<(), String>, ErrorReport> {
    let (mut reporter, mut breather) = (Reporter::new(id, Stage::Compile), Breather::new(id));
    let mut n_done = 0;
    loop {
        match within_ms(MAX_OPENING_MS, device.compile_next()).await {
            None => return Ok(Err(format!("{} did not answer", device.adapter()))),
            Some(Err(error)) => return Ok(Err(error.event())),
            Some(Ok(None)) => return Ok(Ok(())),
            Some(Ok(Some(n_left))) => {
                n_done += 1;
                reporter.report(n_done, Some(n_done + n_left as u64));
                breather.breathe().await?;
            }
        }
    }
}

/// The CPU as the engine that answers; holds it against known logits, and finds out what its `fast` precision does, unless that is known.
async fn on_cpu(
    id: RequestId,
    cpu: Engine,
    source: &ModelSource,
    mut why: String,
    known: Option<Timings>,
) -> Result<(Engine, Option<Engine>, EngineReport), ErrorReport> {
    let mut doubt = None;
    if let Some(golden) = &source.golden {
        let test = cpu.self_test(None, Some(golden)).await.map_err(|error| post::engine_error(&error))?;
        why.push_str(&format!("; in a self-test {test}"));
        doubt = (!test.passed()).then(|| {
            format!(
                "{} computes other numbers than it should: {test}; its files were changed, or this browser is wrong, so do not rely on \
                 what is shown, and try another browser",
                source.id
            )
        });
    }
    let is_worth_it = cpu.has_fast() && cpu.info().n_params >= MIN_SWEPT_PARAMS;
    let timings = match known {
        known if !is_worth_it || known.is_some_and(|known| known.fast.is_some()) => known,
        known => {
            let mut breather = Breather::new(id);
            breather.breathe().await?;
            let fast = cpu.with_precision(Precision::Fast);
            let test = fast.self_test(Some(&cpu), None).await.map_err(|error| post::engine_error(&error))?;
            breather.breathe().await?;
            // Twice in turns, and the better counts: what runs for the first time waits for the browser's compiler.
            let (mut cpu_ms, mut ms) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..2 {
                cpu_ms = cpu_ms.min(run_ms(&cpu).await?);
                breather.breathe().await?;
                ms = ms.min(run_ms(&fast).await?);
                breather.breathe().await?;
            }
            let timing = FastTiming { ms, max_difference: test.max_difference(), passed: test.passed() };
            Some(Timings { cpu_ms, gpu_ms: known.and_then(|known| known.gpu_ms), fast: Some(timing) })
        }
    };
    let name = cpu_name(&cpu.engine_name());
    let weight_bytes = cpu.weight_bytes() as u64;
    Ok((cpu, None, EngineReport { name, is_gpu: false, why, doubt, timings, weight_bytes, loading: None }))
}

fn on_gpu(name: String, why: String, timings: Option<Timings>) -> EngineReport {
    EngineReport { name, is_gpu: true, why, timings, ..EngineReport::default() }
}

fn told(timings: Timings) -> String {
    let gpu_ms = timings.gpu_ms.unwrap_or(f64::NAN);
    format!("{N_CHOICE_TOKENS} tokens take it {gpu_ms:.0} ms and the CPU {:.0} ms", timings.cpu_ms)
}

/// Tokens of the run that decides between engines.
const N_CHOICE_TOKENS: usize = 32;

/// How long a short run takes.
async fn run_ms(engine: &Engine) -> Result<f64, ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let request = engine.bench_request(N_CHOICE_TOKENS.min(engine.info().n_ctx));
    let start_ms = now_ms();
    engine.start(&request, Want::default()).map_err(failed)?.finish(engine).await.map_err(failed)?;
    Ok(now_ms() - start_ms)
}

/// Takes what is left of a model whose files are there.
async fn unpack(id: RequestId, loading: &mut Loading) -> Result<(), ErrorReport> {
    let mut reporter = Reporter::new(id, Stage::Unpack);
    let mut breather = Breather::new(id);
    while !loading.step().map_err(|error| post::engine_error(&error))? {
        reporter.report(loading.n_done() as u64, Some(loading.n_total() as u64));
        breather.breathe().await?;
    }
    Ok(())
}

fn wrong_checksum(source: &ModelSource, address: &str, sha256: &str, n_bytes: u64) -> ErrorReport {
    let wanted = source.sha256.as_deref().unwrap_or_default();
    ErrorReport {
        detail: Some(format!("sha256 {sha256}, expected {wanted}, {n_bytes} bytes")),
        ..post::error(
            "checksum",
            &format!(
                "what {address} gave is not {}: its checksum is wrong, so it was not loaded; try again",
                source.id
            ),
        )
    }
}

/// Tells how long each of several things takes.
struct Watch {
    lap_start_ms: f64,
}

impl Watch {
    fn new() -> Self {
        Self { lap_start_ms: now_ms() }
    }

    /// Since the last lap's end.
    fn lap_ms(&mut self) -> f64 {
        let now = now_ms();
        now - std::mem::replace(&mut self.lap_start_ms, now)
    }
}
