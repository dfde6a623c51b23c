//! From a [`ModelSource`] to an engine: find the bytes, check them, unpack them.

use std::cell::RefCell;

use headlight_core::backend::{Device, Precision};
use headlight_core::engine::{Engine, Loading, Want};
use headlight_core::error::Error;
use headlight_core::report::LoadTimes;

use super::cancel::Breather;
use super::fetch::{self, Fetched};
use super::post::{self, Reporter};
use super::session::{Origin, Session};
use super::shared::TakeOver;
use super::{RequestId, cpu_name, now_ms, shared};
use crate::protocol::{
    BackendChoice, EngineReport, ErrorReport, FastTiming, ModelFormat, ModelSource, Reply, Stage, Timings,
};
use crate::sharing::MIN_SWEPT_PARAMS;

/// From this size on the loaded model makes room before the next one is unpacked.
const LARGE_BYTES: usize = 64 << 20;

/// Loads a model; the loaded one stays when this fails before unpacking.
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
    let mut cached = false;
    let mut cache_note = None;
    let mut n_bytes = 0;
    let mut times = LoadTimes::default();
    let mut watch = Watch::new();
    let opened = match source.format {
        ModelFormat::Folder => {
            let files = read_folder(id, &source).await?;
            times.read_ms = watch.lap_ms();
            let [config, tokenizer, weights] = files.map(|file| file.bytes);
            Loading::from_folder(&config, &tokenizer, vec![weights], &source.id)
        }
        ModelFormat::Gguf => {
            let from_cache = match &source.sha256 {
                Some(sha256) => fetch::read_cached(id, sha256).await?,
                None => None,
            };
            cached = from_cache.is_some();
            let fetched = match from_cache {
                Some(fetched) => fetched,
                None => download_checked(id, &source).await?,
            };
            n_bytes = fetched.bytes.len();
            if !cached && source.sha256.is_some() {
                cache_note = fetch::store(&fetched.sha256, &fetched.bytes).await.err();
                cached = cache_note.is_none();
            }
            times.read_ms = watch.lap_ms();
            Loading::from_gguf(fetched.bytes, &source.id)
        }
    };
    let loading = opened.map_err(|error| post::engine_error(&error))?;
    times.parse_ms = watch.lap_ms();
    if n_bytes > LARGE_BYTES {
        session.borrow_mut().clear();
    }
    let (engine, cpu, mut report) = engines(session, id, loading, backend, timings, &mut times).await?;
    times.choose_ms = watch.lap_ms() - times.pack_ms;
    report.loading = Some(times);
    let origin = Origin { source, backend, report, cached, cache_note };
    let mut session = session.borrow_mut();
    session.replace(origin, engine, cpu);
    Ok(session.loaded().expect("a model was loaded"))
}

/// The engine that is to answer, the same model on the CPU where that is another one, and why it is this one.
async fn engines(
    session: &RefCell<Session>,
    id: RequestId,
    loading: Loading,
    backend: BackendChoice,
    known: Option<Timings>,
    times: &mut LoadTimes,
) -> Result<(Engine, Option<Engine>, EngineReport), ErrorReport> {
    let mut unpack = async |loading| {
        let mut watch = Watch::new();
        let engines = unpack(id, loading).await;
        times.pack_ms = watch.lap_ms();
        engines
    };
    let cpu_was_faster = known.filter(|known| known.gpu_ms.is_some_and(|gpu_ms| gpu_ms > known.cpu_ms));
    let gpu = match backend {
        BackendChoice::Cpu => Err("the CPU was chosen".to_owned()),
        BackendChoice::Auto => match cpu_was_faster {
            Some(known) => {
                Err(format!("the graphics device was slower when both were timed: {}", told(known)))
            }
            None => Session::gpu(session, false).await,
        },
        BackendChoice::Webgpu => Session::gpu(session, true).await,
    };
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(why) => {
            let cpu = unpack(loading).await?.remove(0);
            return on_cpu(id, cpu, why, known).await;
        }
    };
    let devices = vec![Device::default(), Device::WebGpu(gpu)];
    let mut engines = unpack(loading.onto(devices)).await?;
    let (Some(gpu), Some(cpu)) = (engines.pop(), engines.pop()) else { unreachable!("two devices") };
    let name = gpu.engine_name();
    let test = match gpu.self_test(&cpu).await {
        Ok(test) => test,
        Err(error) => {
            return on_cpu(id, cpu, format!("{name} failed its self-test: {error}"), known).await;
        }
    };
    if !test.passed() {
        let why = format!(
            "{name} computes other numbers than the CPU (a logit differs by {}, {} is allowed), so it is not used",
            test.max_difference, test.tolerance
        );
        return on_cpu(id, cpu, why, known).await;
    }
    let agrees = format!("its self-test agrees with the CPU's logits within {:.0e}", test.max_difference);
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
        return on_cpu(id, cpu, format!("{name} is slower here: {}", told(timings)), Some(timings)).await;
    }
    let why = format!("{}; {agrees}", told(timings));
    Ok((gpu, Some(cpu), on_gpu(name, why, Some(timings))))
}

/// The CPU as the engine that answers; finds out what its `fast` precision does, unless that is known.
async fn on_cpu(
    id: RequestId,
    cpu: Engine,
    why: String,
    known: Option<Timings>,
) -> Result<(Engine, Option<Engine>, EngineReport), ErrorReport> {
    let is_worth_it = cpu.has_fast() && cpu.info().n_params >= MIN_SWEPT_PARAMS;
    let timings = match known {
        known if !is_worth_it || known.is_some_and(|known| known.fast.is_some()) => known,
        known => {
            let mut breather = Breather::new(id);
            breather.breathe().await?;
            let fast = cpu.with_precision(Precision::Fast);
            let test = fast.self_test(&cpu).await.map_err(|error| post::engine_error(&error))?;
            breather.breathe().await?;
            // Twice in turns, and the better counts: what runs for the first time waits for the browser's compiler.
            let (mut cpu_ms, mut ms) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..2 {
                cpu_ms = cpu_ms.min(run_ms(&cpu).await?);
                breather.breathe().await?;
                ms = ms.min(run_ms(&fast).await?);
                breather.breathe().await?;
            }
            let timing = FastTiming { ms, max_difference: test.max_difference, passed: test.passed() };
            Some(Timings { cpu_ms, gpu_ms: known.and_then(|known| known.gpu_ms), fast: Some(timing) })
        }
    };
    let name = cpu_name(&cpu.engine_name());
    let weight_bytes = cpu.weight_bytes() as u64;
    Ok((cpu, None, EngineReport { name, is_gpu: false, why, timings, weight_bytes, loading: None }))
}

fn on_gpu(name: String, why: String, timings: Option<Timings>) -> EngineReport {
    EngineReport { name, is_gpu: true, why, timings, weight_bytes: 0, loading: None }
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

async fn unpack(id: RequestId, mut loading: Loading) -> Result<Vec<Engine>, ErrorReport> {
    let mut reporter = Reporter::new(id, Stage::Unpack);
    let mut breather = Breather::new(id);
    while !loading.step().map_err(|error| post::engine_error(&error))? {
        reporter.report(loading.n_done() as u64, Some(loading.n_total() as u64));
        breather.breathe().await?;
    }
    loading.finish_all().map_err(|error| post::engine_error(&error))
}

/// The first of the source's addresses that answers with the right bytes.
async fn download_checked(id: RequestId, source: &ModelSource) -> Result<Fetched, ErrorReport> {
    let mut last_error = post::error("download", "the model names no address");
    for url in &source.urls {
        match fetch::download(id, url, source.size_bytes).await {
            Ok(fetched) if source.sha256.as_ref().is_none_or(|sha256| *sha256 == fetched.sha256) => {
                return Ok(fetched);
            }
            Ok(fetched) => last_error = wrong_checksum(url, source, &fetched),
            Err(error) if error.code == "cancelled" => return Err(error),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn wrong_checksum(url: &str, source: &ModelSource, fetched: &Fetched) -> ErrorReport {
    let wanted = source.sha256.as_deref().unwrap_or_default();
    ErrorReport {
        detail: Some(format!("sha256 {}, expected {wanted}, {} bytes", fetched.sha256, fetched.bytes.len())),
        ..post::error(
            "checksum",
            &format!(
                "what {url} gave is not {}: its checksum is wrong, so it was not loaded; try again",
                source.id
            ),
        )
    }
}

/// Configuration, tokenizer and weights.
async fn read_folder(id: RequestId, source: &ModelSource) -> Result<[Fetched; 3], ErrorReport> {
    let folder = source.urls.first().map(String::as_str).unwrap_or_default();
    let file = async |name: &str| fetch::download(id, &format!("{folder}/{name}"), None).await;
    Ok([file("config.json").await?, file("tokenizer.json").await?, file("model.safetensors").await?])
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
