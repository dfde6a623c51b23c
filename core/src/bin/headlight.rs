//! The `headlight` command line: the core's requests and reports as JSON on stdout. The one part of this crate that
//! reads files and the clock.

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use headlight_core::ablate::controls::ControlsSpec;
use headlight_core::ablate::dla::DlaSpec;
use headlight_core::ablate::patching::Direction;
use headlight_core::ablate::sweep::{SweepSpec, Targets};
use headlight_core::ablate::{Metric, MetricSpec};
use headlight_core::backend::webgpu::{Wanted, WebGpu};
use headlight_core::backend::{Device, Precision};
use headlight_core::detect::DOCS;
use headlight_core::engine::{Engine, Golden, Job, Loading, Want};
use headlight_core::hooks::{Edit, Intervention, PlanError};
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::report::{
    BenchReport, BosPolicy, ControlsRequest, DetectRequest, DlaRequest, GenerateRequest, LensRequest,
    OvRequest, PatchRequest, PrefillSpeed, Prompt, RunRequest, SweepRequest,
};
use headlight_core::script::{Library, ScriptRequest};
use serde::{Deserialize, Serialize};

/// Look at attention heads from the command line. Every command prints JSON.
#[derive(Parser)]
#[command(name = "headlight", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where to compute: webgpu is a graphics device through Vulkan, Metal or Direct3D, checked against the CPU first; auto
    /// takes it where there is one that is faster.
    #[arg(long, value_enum, default_value_t = BackendArg::Cpu, global = true)]
    backend: BackendArg,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BackendArg {
    Cpu,
    Webgpu,
    Auto,
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
        #[command(flatten)]
        precision: PrecisionArg,
    },
    /// Every detector with its description.
    Detectors,
    /// Every head (or MLP) edited in turn: the metric's change for each.
    Sweep {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptOnly,
        /// What is done to each: zero or mean; for others see --edit.
        #[arg(long, default_value = "zero", conflicts_with = "edit")]
        kind: String,
        /// What is done to each as JSON, such as {"kind":"scale","alpha":-1}.
        #[arg(long)]
        edit: Option<String>,
        /// Positions edited, both ends included; all unless given.
        #[arg(long)]
        edit_positions: Option<Positions>,
        /// What is edited in turn.
        #[arg(long, value_enum, default_value_t = TargetsArg::Heads)]
        targets: TargetsArg,
        /// Sets of heads in their place as JSON, such as [["L5H1","L6H9"],["L0H3"]]: the heads of a set are edited together.
        #[arg(long, conflicts_with = "targets")]
        sets: Option<String>,
        #[command(flatten)]
        metric: MetricArgs,
        #[command(flatten)]
        precision: PrecisionArg,
    },
    /// Edited heads against as many random heads of the same layers.
    Controls {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        #[command(flatten)]
        metric: MetricArgs,
        /// Random sets.
        #[arg(long, default_value_t = 10)]
        draws: usize,
        /// Seed of the draws.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Direct logit attribution: what embedding, every head and every MLP add to a token's logit.
    Dla {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        /// Whose logit; the most probable next token unless given.
        #[arg(long)]
        token: Option<TokenId>,
        /// Attribute the token's logit minus this one's.
        #[arg(long)]
        versus: Option<TokenId>,
        /// The position whose next token is attributed; the last unless given.
        #[arg(long)]
        position: Option<usize>,
    },
    /// The logit lens: what the model would say after each layer, at each position.
    Lens {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        /// The token followed through the layers; each position's own next token unless given.
        #[arg(long)]
        token: Option<TokenId>,
    },
    /// What a head writes when it attends to one token.
    Ov {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        /// The head, such as L18H6.
        #[arg(long)]
        head: HeadId,
        /// The position that it attends to.
        #[arg(long)]
        source_pos: usize,
        /// Tokens each way.
        #[arg(long, default_value_t = 10)]
        top: usize,
    },
    /// Activation patching: one prompt's activations put into the run of another, place by place.
    Patch {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptOnly,
        /// The corrupted prompt as text.
        #[arg(long, required_unless_present = "corrupted_ids", conflicts_with = "corrupted_ids")]
        corrupted: Option<String>,
        /// The corrupted prompt as token ids.
        #[arg(long, value_delimiter = ',')]
        corrupted_ids: Option<Vec<TokenId>>,
        /// Clean activations into the corrupted run (denoise), or the other way round.
        #[arg(long, value_enum, default_value_t = DirectionArg::Denoise)]
        direction: DirectionArg,
        /// In what the effect is measured: logit_diff, logit or logprob.
        #[arg(long, value_parser = parse_metric, default_value = "logit_diff")]
        metric: Metric,
        /// The clean prompt's answer.
        #[arg(long)]
        token: Option<TokenId>,
        /// The corrupted prompt's answer.
        #[arg(long)]
        versus: Option<TokenId>,
    },
    /// A continuation, edits in force.
    Generate {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        /// Tokens at most.
        #[arg(long, default_value_t = 20)]
        max_new_tokens: usize,
        /// Softmax temperature of the draws; 0 takes the most probable token each time.
        #[arg(long, default_value_t = 0.0)]
        temperature: f32,
        /// Seed of the draws.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Python that reproduces a run with its edits in another library, and compares the numbers. Prints the script itself.
    Script {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        prompt: PromptArgs,
        /// transformer_lens or nnsight.
        #[arg(long, value_parser = parse_library)]
        library: Library,
        /// The model's repository on the Hugging Face hub; known of the models that the page offers.
        #[arg(long)]
        repo: Option<String>,
        /// Address of the folder with the model's files, from which the script fetches them where it is given none.
        #[arg(long)]
        files: Option<String>,
        /// Run on NDIF; nnsight alone.
        #[arg(long)]
        remote: bool,
    },
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
        /// Also what edits and sweeps of 64 tokens cost, beside a clean forward pass.
        #[arg(long)]
        edits: bool,
    },
}

#[derive(Args)]
struct ModelArg {
    /// A .gguf file, a folder (config.json, tokenizer.json, *.safetensors), or the name of a bundled model.
    #[arg(long)]
    model: PathBuf,
}

#[derive(Args)]
struct PrecisionArg {
    /// How products are computed on the CPU: exact is f32; fast multiplies a GGUF file's quantised weights as whole numbers, what
    /// meets them rounded to sixteen bits.
    #[arg(long, value_parser = parse_precision, default_value = "exact")]
    precision: Precision,
}

#[derive(Args)]
struct PromptArgs {
    #[command(flatten)]
    prompt: PromptOnly,
    /// Edits as JSON, such as [{"kind":"zero","heads":["L18H6"]}].
    #[arg(long)]
    interventions: Option<String>,
}

#[derive(Args)]
struct PromptOnly {
    /// The prompt as text.
    #[arg(long, required_unless_present = "ids", conflicts_with = "ids")]
    text: Option<String>,
    /// The prompt as token ids, used as they are.
    #[arg(long, value_delimiter = ',')]
    ids: Option<Vec<TokenId>>,
    /// Whether a beginning-of-sequence token comes before a text; auto follows the model's metadata.
    #[arg(long, value_enum, default_value_t = Bos::Auto)]
    bos: Bos,
}

#[derive(Args)]
struct MetricArgs {
    /// In what the effect is measured: logprob, logit, logit_diff, kl or loss.
    #[arg(long, value_parser = parse_metric, default_value = "logprob")]
    metric: Metric,
    /// The token of logprob, logit and logit_diff; the most probable next token unless given.
    #[arg(long)]
    token: Option<TokenId>,
    /// The other token of logit_diff.
    #[arg(long)]
    versus: Option<TokenId>,
    /// Positions A..B, both ends included, B at most the prompt's length: of loss the tokens foretold, of the others where the
    /// next token is looked at.
    #[arg(long)]
    positions: Option<Positions>,
}

/// `A..B`, both ends included.
#[derive(Clone, Copy, Debug)]
struct Positions {
    first: usize,
    last: Option<usize>,
}

impl std::str::FromStr for Positions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told =
            || format!("\"{text}\" is no range of positions; write one like 51..99, or 51.. to the end");
        let number = |part: &str| part.parse().map_err(|_| told());
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let last = last.trim_start_matches('=');
        let first = if first.is_empty() { 0 } else { number(first)? };
        let last = if last.is_empty() { None } else { Some(number(last)?) };
        match last {
            Some(last) if last < first => Err(told()),
            _ => Ok(Self { first, last }),
        }
    }
}

impl Positions {
    /// In a prompt of `n_tokens`, whose length as `B` means its end.
    fn within(self, n_tokens: usize) -> Result<Vec<usize>, PlanError> {
        let last = match self.last {
            Some(last) if last != n_tokens => last,
            _ => n_tokens - 1,
        };
        // Told here, before a list as long as a mistyped number is made.
        match self.first.max(last) {
            position if position >= n_tokens => Err(PlanError::UnknownPosition { position, n_tokens }),
            _ => Ok((self.first..=last).collect()),
        }
    }
}

fn parse_metric(text: &str) -> Result<Metric, String> {
    let names = || Metric::ALL.map(Metric::name).join(", ");
    let found = Metric::ALL.into_iter().find(|metric| metric.name() == text.replace('-', "_"));
    found.ok_or_else(|| format!("there is no metric \"{text}\"; choose one of {}", names()))
}

fn parse_precision(text: &str) -> Result<Precision, String> {
    match text {
        "exact" => Ok(Precision::Exact),
        "fast" => Ok(Precision::Fast),
        _ => Err(format!("there is no precision \"{text}\"; choose exact or fast")),
    }
}

fn parse_library(text: &str) -> Result<Library, String> {
    let names = || Library::ALL.map(Library::name).join(", ");
    let found = Library::ALL.into_iter().find(|library| library.name() == text.replace('-', "_"));
    found.ok_or_else(|| format!("there is no script for \"{text}\"; choose one of {}", names()))
}

#[derive(Clone, Copy, ValueEnum)]
enum TargetsArg {
    Heads,
    Mlps,
}

#[derive(Clone, Copy, ValueEnum)]
enum DirectionArg {
    Denoise,
    Noise,
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

impl PromptOnly {
    fn parts(self) -> (Prompt, BosPolicy) {
        (one_prompt(self.text, self.ids), self.bos.into())
    }
}

fn one_prompt(text: Option<String>, ids: Option<Vec<TokenId>>) -> Prompt {
    match text {
        Some(text) => Prompt::Text(text),
        None => Prompt::Ids(ids.unwrap_or_default()),
    }
}

impl PromptArgs {
    fn parts(self) -> anyhow::Result<(Prompt, BosPolicy, Vec<Intervention>)> {
        let interventions = match self.interventions {
            Some(json) => serde_json::from_str(&json).context(
                "--interventions is not a list of edits like [{\"kind\":\"zero\",\"heads\":[\"L18H6\"]}]",
            )?,
            None => Vec::new(),
        };
        let (prompt, bos) = self.prompt.parts();
        Ok((prompt, bos, interventions))
    }

    fn request(self, top: usize) -> anyhow::Result<RunRequest> {
        let (prompt, bos, interventions) = self.parts()?;
        Ok(RunRequest { prompt, bos, top, interventions, watch: Vec::new() })
    }
}

impl MetricArgs {
    /// The metric on this prompt.
    fn spec(self, n_tokens: usize) -> Result<MetricSpec, PlanError> {
        let positions = self.positions.map(|positions| positions.within(n_tokens)).transpose()?;
        Ok(MetricSpec { metric: self.metric, token: self.token, versus: self.versus, positions })
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return explain(&told),
    };
    match run(cli.command, cli.backend) {
        Ok(()) => ExitCode::SUCCESS,
        // One sentence: the chain's parts, without repeating a part that the one before contains.
        Err(error) => complain(&format!("{error:#}"), ExitCode::FAILURE),
    }
}

/// Prints the help that was asked for, or what is wrong with the arguments: clap's first paragraph, as one sentence.
fn explain(told: &clap::Error) -> ExitCode {
    if !told.use_stderr() {
        return match write(told) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("{error:#}"), ExitCode::FAILURE),
        };
    }
    let told = told.to_string();
    let lines = told.lines().map(str::trim).take_while(|line| !line.is_empty());
    let sentence = lines.collect::<Vec<_>>().join(" ");
    complain(sentence.trim_start_matches("error: "), ExitCode::from(2))
}

/// Says in a sentence why nothing comes; to nobody, where nobody listens.
fn complain(sentence: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "headlight: {sentence}");
    code
}

fn run(command: Command, backend: BackendArg) -> anyhow::Result<()> {
    match command {
        Command::Tokens { model, text, bos } => print(&model.load(backend)?.tokenize(&text, bos.into())?),
        Command::Run { model, prompt, top } => {
            let request = prompt.request(top)?;
            print(&model.load(backend)?.run(&request)?)
        }
        Command::Patterns { model, prompt, head } => {
            let request = prompt.request(0)?;
            print(&model.load(backend)?.patterns(&request, head)?)
        }
        Command::Detect { model, detector, seed, bos, ids_file, params, precision } => {
            let sequences = ids_file.as_deref().map(read_sequences).transpose()?;
            let params = params.map_or(Ok(serde_json::Value::Null), |json| {
                serde_json::from_str(&json).context("--params is not JSON")
            })?;
            // A misspelt detector is told before the model is read.
            headlight_core::detect::find(&detector)?;
            print(&model.load(backend)?.detect(&DetectRequest {
                detector,
                seed,
                bos: bos.into(),
                sequences,
                params,
                precision: precision.precision,
                draws: None,
            })?)
        }
        Command::Detectors => print(&DOCS),
        Command::Sweep { model, prompt, kind, edit, edit_positions, targets, sets, metric, precision } => {
            let edit: Edit = match edit {
                Some(json) => serde_json::from_str(&json)
                    .context("--edit is no edit like {\"kind\":\"scale\",\"alpha\":-1}")?,
                None => serde_json::from_value(serde_json::json!({ "kind": kind }))
                    .with_context(|| format!("--kind {kind} is not zero or mean; give others with --edit"))?,
            };
            let engine = model.load(backend)?;
            let (prompt, bos) = prompt.parts();
            let n_tokens = engine.prompt_tokens(&prompt, bos)?.ids.len();
            let spec = SweepSpec {
                edit,
                edit_positions: edit_positions.map(|positions| positions.within(n_tokens)).transpose()?,
                targets: match (sets, targets) {
                    (Some(json), _) => Targets::Sets(serde_json::from_str(&json).context(
                        "--sets is not a list of lists of heads like [[\"L5H1\",\"L6H9\"],[\"L0H3\"]]",
                    )?),
                    (None, TargetsArg::Heads) => Targets::Heads,
                    (None, TargetsArg::Mlps) => Targets::Mlps,
                },
                layers: None,
                metric: metric.spec(n_tokens)?,
            };
            let request = SweepRequest { prompt, bos, precision: precision.precision, spec };
            print(&engine.start_sweep(&request)?.complete(&engine)?)
        }
        Command::Controls { model, prompt, metric, draws, seed } => {
            let (prompt, bos, interventions) = prompt.parts()?;
            let engine = model.load(backend)?;
            let n_tokens = engine.prompt_tokens(&prompt, bos)?.ids.len();
            let metric = metric.spec(n_tokens)?;
            let spec = ControlsSpec { interventions, n_draws: draws, seed, metric };
            print(&engine.start_controls(&ControlsRequest { prompt, bos, spec })?.complete(&engine)?)
        }
        Command::Dla { model, prompt, token, versus, position } => {
            let (prompt, bos, interventions) = prompt.parts()?;
            let engine = model.load(backend)?;
            let spec = DlaSpec { token, versus, position };
            print(&engine.start_dla(&DlaRequest { prompt, bos, interventions, spec })?.complete(&engine)?)
        }
        Command::Lens { model, prompt, token } => {
            let (prompt, bos, interventions) = prompt.parts()?;
            let engine = model.load(backend)?;
            print(&engine.start_lens(&LensRequest { prompt, bos, interventions, token })?.complete(&engine)?)
        }
        Command::Ov { model, prompt, head, source_pos, top } => {
            let (prompt, bos, interventions) = prompt.parts()?;
            let engine = model.load(backend)?;
            let request = OvRequest { prompt, bos, interventions, head, source_pos, top };
            print(&engine.start_ov(&request)?.complete(&engine)?)
        }
        Command::Patch { model, prompt, corrupted, corrupted_ids, direction, metric, token, versus } => {
            let (prompt, bos) = prompt.parts();
            let corrupted = one_prompt(corrupted, corrupted_ids);
            let direction = match direction {
                DirectionArg::Denoise => Direction::Denoise,
                DirectionArg::Noise => Direction::Noise,
            };
            let engine = model.load(backend)?;
            let request = PatchRequest { prompt, bos, corrupted, direction, metric, token, versus };
            print(&engine.start_patch(&request)?.complete(&engine)?)
        }
        Command::Generate { model, prompt, max_new_tokens, temperature, seed } => {
            let (prompt, bos, interventions) = prompt.parts()?;
            let engine = model.load(backend)?;
            let stop_ids = Vec::new();
            let request =
                GenerateRequest { prompt, bos, interventions, max_new_tokens, temperature, seed, stop_ids };
            print(&engine.start_generate(&request)?.complete(&engine)?)
        }
        Command::Script { model, prompt, library, repo, files, remote } => {
            let (prompt, bos, interventions) = prompt.parts()?;
            let engine = model.load(backend)?;
            let repo = repo.or_else(|| known_repo(&engine.info().sha256));
            let request = ScriptRequest { prompt, bos, interventions, library, repo, files, remote };
            write(engine.script(&request)?)
        }
        Command::Info { model } => print(model.load(backend)?.info()),
        Command::Bench { model, prefill, repeats, edits } => {
            let engine = model.load(backend)?;
            let prefill = bench(&engine, &prefill, repeats)?;
            let edits = if edits { Some(edit_costs(&engine, repeats)?) } else { None };
            print(&Costs { prefill, edits })
        }
    }
}

fn print(report: &impl Serialize) -> anyhow::Result<()> {
    write(serde_json::to_string(report).context("the report cannot be written as JSON")? + "\n")
}

/// Writes to standard output. Whoever closed it, as `head` does, has what was wanted: that is no failure.
fn write(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}

/// A model that the page offers.
#[derive(Deserialize)]
struct KnownModel {
    sha256: Option<String>,
    homepage: String,
    golden: Option<Golden>,
}

/// The model with these weights, if the page offers it.
fn known_model(sha256: &str) -> Option<KnownModel> {
    let manifest: Vec<KnownModel> = serde_json::from_str(include_str!("../../../static/models.json")).ok()?;
    manifest.into_iter().find(|model| model.sha256.as_deref() == Some(sha256))
}

/// The hub's repository of a model that the page offers, by the sha256 of its weights.
fn known_repo(sha256: &str) -> Option<String> {
    known_model(sha256)?.homepage.strip_prefix("https://huggingface.co/").map(str::to_owned)
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
    fn load(&self, backend: BackendArg) -> anyhow::Result<Engine> {
        let path = find_model(&self.model)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let loaded = || format!("{} cannot be loaded", path.display());
        let gpu = match backend {
            BackendArg::Cpu => None,
            BackendArg::Webgpu => Some(open_gpu(Wanted { software: true, ..Wanted::default() })?),
            BackendArg::Auto => open_gpu(Wanted::default()).ok(),
        };
        let gpu = gpu.map(|gpu| Device::WebGpu(gpu.into()));
        let devices = [Device::default()].into_iter().chain(gpu).collect();
        let loading = if path.is_dir() {
            let read = |name: &str| read_file(&path.join(name));
            let (config, tokenizer, shards) =
                (read("config.json")?, read("tokenizer.json")?, read_shards(&path)?);
            Loading::from_folder(&config, &tokenizer, shards, &name).with_context(loaded)?.onto(devices)
        } else {
            arrived(&path, &name, devices)?
        };
        let mut engines = loading.finish_all().with_context(loaded)?.into_iter();
        let (cpu, gpu) = (engines.next().context("the CPU is always one of the devices")?, engines.next());
        let Some(gpu) = gpu else { return Ok(cpu) };
        let golden = known_model(&cpu.info().sha256).and_then(|model| model.golden);
        let test = pollster::block_on(gpu.self_test(Some(&cpu), golden.as_ref()))?;
        let is_faster = || anyhow::Ok(seconds_of_a_run(&gpu)? < seconds_of_a_run(&cpu)?);
        match backend {
            BackendArg::Auto => Ok(if test.passed() && is_faster()? { gpu } else { cpu }),
            _ if test.passed() => Ok(gpu),
            _ => bail!("{} computes wrong numbers: {test}; run with --backend cpu", gpu.engine_name()),
        }
    }
}

/// Bytes of a file that are read at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// A GGUF file, piece by piece.
fn arrived(path: &Path, name: &str, devices: Vec<Device>) -> anyhow::Result<Loading> {
    let cannot_read = || format!("{} cannot be read", path.display());
    let mut file = File::open(path).with_context(cannot_read)?;
    let size_bytes = file.metadata().with_context(cannot_read)?.len();
    let mut loading = Loading::gguf(name, Some(size_bytes)).onto(devices);
    loop {
        let mut piece = Vec::new();
        if (&mut file).take(PIECE_BYTES).read_to_end(&mut piece).with_context(cannot_read)? == 0 {
            return Ok(loading);
        }
        loading.feed(piece);
        while !loading.step().with_context(|| format!("{} cannot be loaded", path.display()))? {}
    }
}

fn open_gpu(wanted: Wanted) -> anyhow::Result<WebGpu> {
    let gpu = pollster::block_on(WebGpu::open(wanted));
    gpu.context("run with --backend cpu, or install a Vulkan driver")
}

/// Tokens of the run that decides between two backends.
const N_CHOICE_TOKENS: usize = 32;

fn seconds_of_a_run(engine: &Engine) -> anyhow::Result<f64> {
    let request = engine.bench_request(N_CHOICE_TOKENS.min(engine.info().n_ctx));
    let start = Instant::now();
    engine.run(&request)?;
    Ok(start.elapsed().as_secs_f64())
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

/// What `bench` prints.
#[derive(Serialize)]
struct Costs {
    #[serde(flatten)]
    prefill: BenchReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    edits: Option<EditCosts>,
}

/// What edits cost, beside a clean forward pass of the same prompt with its last logits.
#[derive(Serialize)]
struct EditCosts {
    n_tokens: usize,
    forward_s: f64,
    /// One head of the middle layer switched off, from the kept clean run to the new next tokens.
    edit: Cost,
    /// Every head switched off in turn at every position, measured in log-probability.
    sweep_all_positions: Cost,
    /// The same at the last position alone.
    sweep_last_position: Cost,
}

#[derive(Serialize)]
struct Cost {
    seconds: f64,
    /// As a multiple of a clean forward pass.
    forwards: f64,
}

/// Tokens of the prompt on which edits are timed.
const EDIT_TOKENS: usize = 64;

fn edit_costs(engine: &Engine, repeats: usize) -> anyhow::Result<EditCosts> {
    let request = engine.bench_request(EDIT_TOKENS);
    let run = |request: &RunRequest| Ok(engine.start(request, Want::default())?.complete(engine)?);
    let forward_s = median_seconds(repeats, || run(&request))?;
    let cost = |seconds: f64| Cost { seconds, forwards: seconds / forward_s };
    let clean = engine.start(&request, Want { base: true, ..Want::default() })?.complete(engine)?;
    let clean = std::rc::Rc::new(clean);
    let head = HeadId::new(engine.info().n_layers / 2, 0);
    let edited = RunRequest { interventions: vec![Intervention::zero([head])], ..request.clone() };
    let edit = median_seconds(repeats, || {
        Ok(engine.start_from(Some(clean.clone()), &edited, Want::default())?.complete(engine)?)
    })?;
    let sweep = |edit_positions: Option<Vec<usize>>| {
        let spec = SweepSpec { edit_positions, ..SweepSpec::default() };
        let (prompt, bos) = (request.prompt.clone(), request.bos);
        let request = SweepRequest { prompt, bos, precision: Precision::Exact, spec };
        median_seconds(1, || Ok(engine.start_sweep(&request)?.complete(engine)?))
    };
    Ok(EditCosts {
        n_tokens: EDIT_TOKENS,
        forward_s,
        edit: cost(edit),
        sweep_all_positions: cost(sweep(None)?),
        sweep_last_position: cost(sweep(Some(vec![EDIT_TOKENS - 1]))?),
    })
}

fn median_seconds<T>(repeats: usize, work: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..repeats.max(1) {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

fn bench(engine: &Engine, prefill: &[usize], repeats: usize) -> anyhow::Result<BenchReport> {
    let fast = engine.has_fast().then(|| engine.with_precision(Precision::Fast));
    let prefill_fast = fast.map(|fast| speeds(&fast, prefill, repeats)).transpose()?;
    let prefill = speeds(engine, prefill, repeats)?;
    let engine_name = format!("{} native {}", engine.engine_name(), std::env::consts::ARCH);
    let began = Instant::now();
    let kernel = engine.kernel_speed(|| began.elapsed().as_secs_f64() * 1000.0);
    let (model, memory_bytes) = (engine.info().name.clone(), peak_memory_bytes());
    Ok(BenchReport { engine: engine_name, model, prefill, prefill_fast, loading: None, kernel, memory_bytes })
}

fn speeds(engine: &Engine, prefill: &[usize], repeats: usize) -> anyhow::Result<Vec<PrefillSpeed>> {
    let mut speeds = Vec::new();
    for &n_tokens in prefill {
        let request = engine.bench_request(n_tokens);
        let mut runs_ms = Vec::new();
        for _ in 0..repeats.max(1) {
            let start = Instant::now();
            let task = engine.start(&request, Want { scores: true, ..Want::default() })?;
            task.complete(engine)?;
            runs_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        speeds.push(PrefillSpeed::of_runs(n_tokens, runs_ms));
    }
    Ok(speeds)
}

/// The most memory that this process has had resident, where the system tells it in `/proc`.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
