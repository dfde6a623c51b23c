//! The `headlight` command line: the core's requests and reports as JSON on stdout. The one part of this crate that
//! reads files and the clock.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use headlight_core::detect::DOCS;
use headlight_core::engine::{Engine, Loading, Want};
use headlight_core::hooks::Intervention;
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::report::{BenchReport, BosPolicy, DetectRequest, PrefillSpeed, Prompt, RunRequest};
use serde::{Deserialize, Serialize};

/// Look at attention heads from the command line. Every command prints JSON.
#[derive(Parser)]
#[command(name = "headlight", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A text as the model reads it: ids, tokens, bytes.
    Tokens {
        #[command(flatten)]
        model: ModelArg,
        /// The text.
        #[arg(long)]
        text: String,
        /// Whether a beginning-of-sequence token comes first.
        #[arg(long, value_enum, default_value_t = Bos::Auto)]
        bos: Bos,
    },
    /// One forward pass: the most probable next tokens and the loss of every token.
    Run {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        /// How many next tokens to print.
        #[arg(long, default_value_t = headlight_core::report::default_top())]
        top: usize,
    },
    /// Where one head attends.
    Patterns {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        /// The head, such as L18H6.
        #[arg(long)]
        head: HeadId,
    },
    /// Which heads do what a detector looks for: every head's score, with what stands behind it.
    Detect {
        #[command(flatten)]
        model: ModelArg,
        /// The detector, such as induction; `headlight detectors` lists them.
        #[arg(long)]
        detector: String,
        /// Seed of the stimulus.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Whether a beginning-of-sequence token comes before generated sequences; auto follows the model's metadata.
        #[arg(long, value_enum, default_value_t = Bos::Auto)]
        bos: Bos,
        /// Token sequences in place of generated ones: a JSON file with a list of lists of ids.
        #[arg(long)]
        ids_file: Option<PathBuf>,
        /// The detector's own parameters as JSON.
        #[arg(long)]
        params: Option<String>,
    },
    /// Every detector with its description.
    Detectors,
    /// What the model is: sizes, sha256.
    Info {
        #[command(flatten)]
        model: ModelArg,
    },
    /// Prefill speed, attention of every head scored: tokens a second, median over the repeats.
    Bench {
        #[command(flatten)]
        model: ModelArg,
        /// Prompt lengths in tokens.
        #[arg(long, value_delimiter = ',', default_value = "64,128,512")]
        prefill: Vec<usize>,
        /// Runs a length.
        #[arg(long, default_value_t = 3)]
        repeats: usize,
    },
}

#[derive(Args)]
struct ModelArg {
    /// A .gguf file, a folder (config.json, tokenizer.json, *.safetensors), or the name of a bundled model.
    #[arg(long)]
    model: PathBuf,
}

#[derive(Args)]
struct PromptArgs {
    /// The prompt as text.
    #[arg(long, required_unless_present = "ids", conflicts_with = "ids")]
    text: Option<String>,
    /// The prompt as token ids, used as they are.
    #[arg(long, value_delimiter = ',')]
    ids: Option<Vec<TokenId>>,
    /// Whether a beginning-of-sequence token comes before a text; auto follows the model's metadata.
    #[arg(long, value_enum, default_value_t = Bos::Auto)]
    bos: Bos,
    /// Edits as JSON, such as [{"kind":"zero","heads":["L18H6"]}].
    #[arg(long)]
    interventions: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bos {
    Auto,
    On,
    Off,
}

impl From<Bos> for BosPolicy {
    fn from(bos: Bos) -> Self {
        match bos {
            Bos::Auto => Self::Auto,
            Bos::On => Self::On,
            Bos::Off => Self::Off,
        }
    }
}

impl PromptArgs {
    fn request(self, top: usize) -> anyhow::Result<RunRequest> {
        let prompt = match (self.text, self.ids) {
            (Some(text), _) => Prompt::Text(text),
            (None, ids) => Prompt::Ids(ids.unwrap_or_default()),
        };
        let interventions: Vec<Intervention> = match self.interventions {
            Some(json) => serde_json::from_str(&json).context(
                "--interventions is not a list of edits like [{\"kind\":\"zero\",\"heads\":[\"L18H6\"]}]",
            )?,
            None => Vec::new(),
        };
        Ok(RunRequest { prompt, bos: self.bos.into(), top, interventions })
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence: the chain's parts, without repeating a part that the one before contains.
            eprintln!("headlight: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Tokens { model, text, bos } => print(&model.load()?.tokenize(&text, bos.into())?),
        Command::Run { model, prompt, top } => {
            let request = prompt.request(top)?;
            print(&model.load()?.run(&request)?)
        }
        Command::Patterns { model, prompt, head } => {
            let request = prompt.request(0)?;
            print(&model.load()?.patterns(&request, head)?)
        }
        Command::Detect { model, detector, seed, bos, ids_file, params } => {
            let sequences = ids_file.as_deref().map(read_sequences).transpose()?;
            let params = params.map_or(Ok(serde_json::Value::Null), |json| {
                serde_json::from_str(&json).context("--params is not JSON")
            })?;
            // A misspelt detector is told before the model is read.
            headlight_core::detect::find(&detector)?;
            print(&model.load()?.detect(&DetectRequest {
                detector,
                seed,
                bos: bos.into(),
                sequences,
                params,
            })?)
        }
        Command::Detectors => print(&DOCS),
        Command::Info { model } => print(model.load()?.info()),
        Command::Bench { model, prefill, repeats } => print(&bench(&model.load()?, &prefill, repeats)?),
    }
}

fn print(report: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report).context("the report cannot be written as JSON")?);
    Ok(())
}

/// A list of sequences of ids, or an object that has one under `sequences` or `tokens`.
fn read_sequences(path: &Path) -> anyhow::Result<Vec<Vec<TokenId>>> {
    let json: serde_json::Value = serde_json::from_slice(&read_file(path)?)
        .with_context(|| format!("{} is not JSON", path.display()))?;
    let inner = ["sequences", "tokens"].iter().find_map(|key| json.get(key));
    Vec::deserialize(inner.unwrap_or(&json)).with_context(|| {
        format!("{} holds no list of lists of token ids, such as [[5, 6, 5, 6]]", path.display())
    })
}

impl ModelArg {
    fn load(&self) -> anyhow::Result<Engine> {
        let path = find_model(&self.model)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let loading = if path.is_dir() {
            let read = |name: &str| read_file(&path.join(name));
            Loading::from_folder(&read("config.json")?, &read("tokenizer.json")?, read_shards(&path)?, &name)
        } else {
            Loading::from_gguf(read_file(&path)?, &name)
        };
        let engine = loading.and_then(Loading::finish);
        engine.with_context(|| format!("{} cannot be loaded", path.display()))
    }
}

/// A path that exists, or a bundled model's folder below this one or beside the program.
fn find_model(model: &Path) -> anyhow::Result<PathBuf> {
    if model.exists() {
        return Ok(model.to_owned());
    }
    let is_name = model.components().count() == 1;
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots = here.iter().chain(&program).map(PathBuf::as_path).chain([source]);
    let bundled = roots
        .flat_map(|root| root.ancestors().map(|folder| folder.join("static/models").join(model)))
        .find(|folder| is_name && folder.is_dir());
    match bundled {
        Some(folder) => Ok(folder),
        None => bail!(
            "there is no model {}: give a .gguf file, a model folder, or the name of a bundled model such as induction-2l",
            model.display()
        ),
    }
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn read_shards(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    if paths.is_empty() {
        bail!("{} has no .safetensors file; download the model's folder again", folder.display());
    }
    paths.iter().map(|path| read_file(path)).collect()
}

fn bench(engine: &Engine, prefill: &[usize], repeats: usize) -> anyhow::Result<BenchReport> {
    let mut speeds = Vec::new();
    for &n_tokens in prefill {
        let request = engine.bench_request(n_tokens);
        let mut runs_ms = Vec::new();
        for _ in 0..repeats.max(1) {
            let start = Instant::now();
            let task = engine.start(&request, Want { scores: true, ..Want::default() })?;
            task.finish(engine)?;
            runs_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        speeds.push(PrefillSpeed::of_runs(n_tokens, runs_ms));
    }
    let engine_name = format!("{} native {}", engine.engine_name(), std::env::consts::ARCH);
    Ok(BenchReport { engine: engine_name, model: engine.info().name.clone(), prefill: speeds })
}
