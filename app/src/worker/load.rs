//! From a [`ModelSource`] to an engine: find the bytes, check them, unpack them.

use std::cell::RefCell;

use headlight_core::backend::Device;
use headlight_core::engine::{Engine, Loading, Want};
use headlight_core::error::Error;

use super::cancel::Breather;
use super::fetch::{self, Fetched};
use super::post::{self, Reporter};
use super::session::Session;
use super::{cpu_name, now_ms};
use crate::protocol::{
    BackendChoice, EngineReport, ErrorReport, ModelFormat, ModelSource, Reply, Stage, Timings,
};

/// From this size on the loaded model makes room before the next one is unpacked.
const LARGE_BYTES: usize = 64 << 20;

/// Loads a model; the loaded one stays when this fails before unpacking.
pub async fn load(
    session: &RefCell<Session>,
    id: u32,
    source: ModelSource,
    backend: BackendChoice,
    timings: Option<Timings>,
) -> Result<Reply, ErrorReport> {
    let mut cached = false;
    let mut cache_note = None;
    let mut n_bytes = 0;
    let loading = match source.format {
        ModelFormat::Folder => open_folder(id, &source).await?,
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
            Loading::from_gguf(fetched.bytes, &source.id).map_err(|error| post::engine_error(&error))?
        }
    };
    if n_bytes > LARGE_BYTES {
        session.borrow_mut().clear();
    }
    let (engine, cpu, report) = engines(session, id, loading, backend, timings).await?;
    let info = engine.info().clone();
    session.borrow_mut().replace(engine, cpu);
    Ok(Reply::Loaded { info, engine: report, cached, cache_note })
}

/// The engine that is to answer, the same model on the CPU where that is another one, and why it is this one.
async fn engines(
    session: &RefCell<Session>,
    id: u32,
    loading: Loading,
    backend: BackendChoice,
    measured_before: Option<Timings>,
) -> Result<(Engine, Option<Engine>, EngineReport), ErrorReport> {
    let cpu_was_faster = measured_before.filter(|timings| timings.gpu_ms > timings.cpu_ms);
    let gpu = match backend {
        BackendChoice::Cpu => Err("the CPU was chosen".to_owned()),
        BackendChoice::Auto => match cpu_was_faster {
            Some(timings) => {
                Err(format!("the graphics device was slower when both were timed: {}", told(timings)))
            }
            None => Session::gpu(session, false).await,
        },
        BackendChoice::Webgpu => Session::gpu(session, true).await,
    };
    let on_cpu = |cpu: Engine, why: String| {
        let name = cpu_name(&cpu.engine_name());
        let report = EngineReport { name, is_gpu: false, why, timings: cpu_was_faster };
        Ok((cpu, None, report))
    };
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(why) => {
            let cpu = unpack(id, loading).await?.remove(0);
            return on_cpu(cpu, why);
        }
    };
    let devices = vec![Device::default(), Device::WebGpu(gpu)];
    let mut engines = unpack(id, loading.onto(devices)).await?;
    let (Some(gpu), Some(cpu)) = (engines.pop(), engines.pop()) else { unreachable!("two devices") };
    let name = gpu.engine_name();
    let test = match gpu.self_test(&cpu).await {
        Ok(test) => test,
        Err(error) => return on_cpu(cpu, format!("{name} failed its self-test: {error}")),
    };
    if !test.passed() {
        let why = format!(
            "{name} computes other numbers than the CPU (a logit differs by {}, {} is allowed), so it is not used",
            test.max_difference, test.tolerance
        );
        return on_cpu(cpu, why);
    }
    let agrees = format!("its self-test agrees with the CPU's logits within {:.0e}", test.max_difference);
    if backend == BackendChoice::Webgpu {
        let why = format!("WebGPU was chosen; {agrees}");
        let report = EngineReport { name, is_gpu: true, why, timings: None };
        return Ok((gpu, Some(cpu), report));
    }
    let timings = match measured_before {
        Some(timings) => timings,
        None => Timings { gpu_ms: run_ms(&gpu).await?, cpu_ms: run_ms(&cpu).await? },
    };
    if timings.gpu_ms > timings.cpu_ms {
        let (cpu, none, report) = on_cpu(cpu, format!("{name} is slower here: {}", told(timings)))?;
        return Ok((cpu, none, EngineReport { timings: Some(timings), ..report }));
    }
    let why = format!("{}; {agrees}", told(timings));
    Ok((gpu, Some(cpu), EngineReport { name, is_gpu: true, why, timings: Some(timings) }))
}

fn told(Timings { gpu_ms, cpu_ms }: Timings) -> String {
    format!("{N_CHOICE_TOKENS} tokens take it {gpu_ms:.0} ms and the CPU {cpu_ms:.0} ms")
}

/// Tokens of the run that decides between two engines.
const N_CHOICE_TOKENS: usize = 32;

/// How long a short run takes.
async fn run_ms(engine: &Engine) -> Result<f64, ErrorReport> {
    let failed = |error: Error| post::engine_error(&error);
    let request = engine.bench_request(N_CHOICE_TOKENS.min(engine.info().n_ctx));
    let start_ms = now_ms();
    engine.start(&request, Want::default()).map_err(failed)?.finish(engine).await.map_err(failed)?;
    Ok(now_ms() - start_ms)
}

async fn unpack(id: u32, mut loading: Loading) -> Result<Vec<Engine>, ErrorReport> {
    let mut reporter = Reporter::new(id, Stage::Unpack);
    let mut breather = Breather::new(id);
    while !loading.step().map_err(|error| post::engine_error(&error))? {
        reporter.report(loading.n_done() as u64, Some(loading.n_total() as u64));
        breather.breathe().await?;
    }
    loading.finish_all().map_err(|error| post::engine_error(&error))
}

/// The first of the source's addresses that answers with the right bytes.
async fn download_checked(id: u32, source: &ModelSource) -> Result<Fetched, ErrorReport> {
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

async fn open_folder(id: u32, source: &ModelSource) -> Result<Loading, ErrorReport> {
    let folder = source.urls.first().map(String::as_str).unwrap_or_default();
    let file = async |name: &str| fetch::download(id, &format!("{folder}/{name}"), None).await;
    let config = file("config.json").await?;
    let tokenizer = file("tokenizer.json").await?;
    let weights = file("model.safetensors").await?;
    Loading::from_folder(&config.bytes, &tokenizer.bytes, vec![weights.bytes], &source.id)
        .map_err(|error| post::engine_error(&error))
}
