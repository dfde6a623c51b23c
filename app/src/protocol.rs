//! The messages between page and worker: the only thing that both know. Shapes only.
//!
//! The worker speaks first ([`Event::Ready`]); anything sent before that is lost. Every request has an id that
//! its events repeat.

use headlight_core::engine::Golden;
use headlight_core::hooks::Intervention;
use headlight_core::ids::HeadId;
use headlight_core::report::{
    BenchReport, BosPolicy, ControlsReport, ControlsRequest, DetectReport, DetectRequest, DlaReport,
    DlaRequest, EffectReport, GenerateReport, GenerateRequest, HeadScores, LensReport, LensRequest,
    LoadTimes, ModelInfo, OvReport, OvRequest, PatchReport, PatchRequest, PatternReport, RunReport,
    RunRequest, SweepReport, SweepRequest, TokenLogit, TokensReport,
};
use headlight_core::script::ScriptRequest;
use serde::{Deserialize, Serialize};

/// Raised whenever a message changes its meaning; page and worker must agree.
pub const PROTOCOL: u32 = 8;

/// One request of the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the page; repeated by every event that answers.
    pub id: u32,
    /// What to do.
    pub call: Call,
}

/// What the page can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// Fetch (or take from the cache), check and load a model; replaces the loaded one only on success.
    Load {
        /// Where its files are.
        source: ModelSource,
        /// What it is to compute on.
        backend: BackendChoice,
        /// What was measured before on this machine, for [`BackendChoice::Auto`]: it is then not measured again.
        timings: Option<Timings>,
    },
    /// Which of these manifest models are in this browser's cache.
    CachedModels(Vec<ModelSource>),
    /// Delete a model from this browser's cache.
    DeleteCached(ModelSource),
    /// Tokenise a text.
    Tokenize {
        /// The text.
        text: String,
        /// BOS policy.
        bos: BosPolicy,
    },
    /// One forward pass, as the command line's `run`.
    Run(RunRequest),
    /// One head's pattern, as the command line's `patterns`.
    Patterns {
        /// What to run.
        run: RunRequest,
        /// Whose pattern.
        head: HeadId,
    },
    /// Everything the page shows of a prompt. A newer view cancels an older one.
    View(ViewRequest),
    /// Which heads do what a detector looks for, as the command line's `detect`.
    Detect(DetectRequest),
    /// Every head or MLP edited in turn, as the command line's `sweep`.
    Sweep(SweepRequest),
    /// Direct logit attribution, as the command line's `dla`.
    Dla(DlaRequest),
    /// The logit lens, as the command line's `lens`.
    Lens(LensRequest),
    /// What a head writes for one source token, as the command line's `ov`.
    Ov(OvRequest),
    /// Activation patching, as the command line's `patch`.
    Patch(PatchRequest),
    /// Edited heads against random ones, as the command line's `controls`.
    Controls(ControlsRequest),
    /// A continuation, as the command line's `generate`.
    Generate(GenerateRequest),
    /// Python that reproduces a run, as the command line's `script`.
    Script(ScriptRequest),
    /// What edits do at each position, and directly.
    Effect(ViewRequest),
    /// Prefill speed.
    Bench {
        /// Prompt lengths in tokens.
        prefill: Vec<usize>,
        /// Runs a length, of which the median is reported.
        repeats: usize,
    },
    /// Stop the request with this id; it ends in `Failed` with code `cancelled`.
    Cancel(u32),
    /// Hold the request with this id between two steps, until it is resumed or cancelled.
    Pause(u32),
    /// Let a paused request go on.
    Resume(u32),
    /// End the worker with a panic: lets tests see the page recover.
    Crash,
    /// Open graphics devices with a wrong kernel from now on: lets tests see the self-test catch it.
    BreakGpu,
    /// Give the graphics device up as if its driver had crashed: lets tests see the CPU take over.
    LoseGpu,
}

/// Which engine is wished for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// Whichever is faster here and right.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// WebGPU.
    Webgpu,
}

/// The same short run in several ways, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// On the CPU in exact f32.
    pub cpu_ms: f64,
    /// On the graphics device, where there is one that was tried.
    pub gpu_ms: Option<f64>,
    /// On the CPU in `fast` precision, where that was tried.
    pub fast: Option<FastTiming>,
}

/// What `fast` precision does here.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FastTiming {
    /// The run's time, milliseconds.
    pub ms: f64,
    /// The largest difference of a logit from exact f32, over every position and token of a few.
    pub max_difference: f32,
    /// Whether that is small enough.
    pub passed: bool,
}

impl Timings {
    /// How many times as quick as exact f32 `fast` precision is, where that is worth showing its numbers first.
    pub fn fast_speedup(&self) -> Option<f64> {
        let fast = self.fast.filter(|fast| fast.passed)?;
        Some(self.cpu_ms / fast.ms).filter(|speedup| *speedup >= MIN_FAST_SPEEDUP)
    }
}

/// Numbers that come to stay only a little later are not worth showing twice.
const MIN_FAST_SPEEDUP: f64 = 1.15;

/// What answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineReport {
    /// Engine and precision, as in reports.
    pub name: String,
    /// Whether it is a graphics device.
    pub is_gpu: bool,
    /// Why it and no other, in a sentence.
    pub why: String,
    /// Why its numbers are not to be relied on, in a sentence, where they failed the test.
    pub doubt: Option<String>,
    /// What decided, where engines were timed, now or before.
    pub timings: Option<Timings>,
    /// Memory of the worker that the weights take, bytes; 0 on a graphics device.
    pub weight_bytes: u64,
    /// What loading the model took; nothing of an engine that took another's place.
    pub loading: Option<LoadTimes>,
}

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ModelSource {
    /// The manifest's id, or the name of a local file.
    pub id: String,
    /// How to read it.
    pub format: ModelFormat,
    /// sha256 of the weights, hex; checked when present.
    pub sha256: Option<String>,
    /// Size of the weights in bytes, when known.
    pub size_bytes: Option<u64>,
    /// Where to look, in order; the first that answers with the right bytes serves.
    pub urls: Vec<String>,
    /// Logits to hold an engine against, of models that the page knows.
    #[serde(default)]
    pub golden: Option<Golden>,
}

/// How the weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// One GGUF file, tokenizer included; `urls` name the file.
    Gguf,
    /// A folder with `config.json`, `tokenizer.json` and `model.safetensors`; `urls` name the folder.
    Folder,
}

/// What the page shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewRequest {
    /// The prompt.
    pub text: String,
    /// BOS policy.
    pub bos: BosPolicy,
    /// How many next tokens.
    pub top: usize,
    /// Edits; when there are any, the clean run is reported beside the edited one.
    pub edits: Vec<PlacedEdit>,
    /// The head whose pattern is wanted.
    pub head: Option<HeadId>,
    /// Two texts whose first tokens are compared; an empty one stands for one of the clean run's most probable tokens.
    pub compare: [String; 2],
}

/// Where in a prompt an edit acts, whatever the prompt's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum EditWhere {
    /// At every position.
    #[default]
    Everywhere,
    /// At all but the first, which often serves as a sink.
    NotFirst,
    /// At the last alone.
    Last,
}

impl EditWhere {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Everywhere, Self::NotFirst, Self::Last];

    fn is_everywhere(&self) -> bool {
        *self == Self::Everywhere
    }

    /// The positions in a prompt of `n_tokens`; `None` for all.
    pub fn positions(self, n_tokens: usize) -> Option<Vec<usize>> {
        match self {
            Self::Everywhere => None,
            Self::NotFirst => Some((1..n_tokens).collect()),
            Self::Last => Some(n_tokens.checked_sub(1).into_iter().collect()),
        }
    }
}

/// An edit with its place in the prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct PlacedEdit {
    /// The edit; its own positions give way to `at`, unless that is everywhere.
    pub edit: Intervention,
    /// Where.
    #[serde(default, skip_serializing_if = "EditWhere::is_everywhere")]
    pub at: EditWhere,
}

impl PlacedEdit {
    /// The edit in a prompt of `n_tokens`.
    pub fn resolve(&self, n_tokens: usize) -> Intervention {
        let positions = self.at.positions(n_tokens).or_else(|| self.edit.positions.clone());
        Intervention { positions, ..self.edit.clone() }
    }
}

/// Two next tokens before and after the edits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// In the clean run.
    pub clean: [TokenLogit; 2],
    /// In the edited run; the same without edits.
    pub edited: [TokenLogit; 2],
}

/// Answer to [`ViewRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The prompt as tokens.
    pub tokens: TokensReport,
    /// The run with the edits (the clean run when there are none).
    pub run: RunReport,
    /// The clean run, when there are edits.
    pub clean: Option<RunReport>,
    /// KL(clean ‖ edited) at the last position, nats, when there are edits.
    pub kl_nats: Option<f32>,
    /// The two tokens to compare.
    pub comparison: Comparison,
    /// Every head's score on this prompt for each attention target, of the edited run.
    pub scores: Vec<HeadScores>,
    /// The asked head's pattern, of the edited run.
    pub pattern: Option<PatternReport>,
    /// Time the forward passes took, milliseconds.
    pub elapsed_ms: f64,
}

/// What the worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The worker runs and listens.
    Ready {
        /// [`PROTOCOL`] of the worker.
        protocol: u32,
        /// Its version.
        build: String,
    },
    /// How far a long request is.
    Progress {
        /// Which request.
        id: u32,
        /// What is going on.
        progress: Progress,
    },
    /// Another engine answers from now on, unasked.
    Engine(EngineReport),
    /// A request's answer.
    Done {
        /// Which request.
        id: u32,
        /// The answer.
        reply: Box<Reply>,
    },
    /// A request's failure.
    Failed {
        /// Which request.
        id: u32,
        /// What went wrong and what to do.
        error: ErrorReport,
    },
}

/// Progress of a long request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is going on.
    pub stage: Stage,
    /// Units done: bytes for `Download`, `ReadCache` and `Verify`, tensors for `Unpack`, runs for `Bench`, edits for `Sweep`,
    /// tokens for `Generate`, steps of the work's own for the others.
    pub done: u64,
    /// Units in all, when known.
    pub total: Option<u64>,
    /// Milliseconds since the stage began, pauses left out.
    pub elapsed_ms: f64,
    /// Numbers as far as they are known, NaN where they are not: `[layer][head]`, of `Patch` `[layer][pos]`.
    pub scores: Option<Vec<Vec<f32>>>,
    /// Numbers of the same shape in `fast` precision, which give way to exact ones as these are known.
    pub preview: Option<Vec<Vec<f32>>>,
    /// For `Generate`, the text so far.
    pub text: Option<String>,
}

/// Stages of long requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Bytes from the network.
    Download,
    /// Bytes from this browser's cache.
    ReadCache,
    /// sha256.
    Verify,
    /// Weights into the engine's layout.
    Unpack,
    /// Kernels of a graphics device.
    Compile,
    /// Benchmark runs.
    Bench,
    /// A detector's work.
    Detect,
    /// A sweep.
    Sweep,
    /// Patching.
    Patch,
    /// A continuation.
    Generate,
    /// Any other work of several passes.
    Explain,
}

/// Answers, one for each [`Call`] that has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Load`.
    Loaded {
        /// The model that is now loaded.
        info: ModelInfo,
        /// What computes it.
        engine: EngineReport,
        /// Whether it is (now) in this browser's cache.
        cached: bool,
        /// Why it could not be cached, if it was not and should have been.
        cache_note: Option<String>,
    },
    /// To `CachedModels`: the ids of those that are cached.
    Cached(Vec<String>),
    /// To `DeleteCached` .
    Deleted,
    /// To `Tokenize`.
    Tokens(TokensReport),
    /// To `Run`.
    Run(RunReport),
    /// To `Patterns`.
    Patterns(PatternReport),
    /// To `View`.
    View(Box<View>),
    /// To `Detect`.
    Detect(Box<DetectReport>),
    /// To `Sweep`.
    Sweep(Box<SweepReport>),
    /// To `Dla`.
    Dla(Box<DlaReport>),
    /// To `Lens`.
    Lens(Box<LensReport>),
    /// To `Ov`.
    Ov(Box<OvReport>),
    /// To `Patch`.
    Patch(Box<PatchReport>),
    /// To `Controls`.
    Controls(Box<ControlsReport>),
    /// To `Generate`.
    Generate(Box<GenerateReport>),
    /// To `Script`.
    Script(String),
    /// To `Effect`.
    Effect(Box<EffectReport>),
    /// To `Bench`.
    Bench(BenchReport),
}

/// An error as it crosses to the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ErrorReport {
    /// Stable name, such as `prompt_too_long`, `cancelled`, `not_a_model`, `checksum`, `crashed`.
    pub code: String,
    /// A sentence for the user that says what to do.
    pub message: String,
    /// Whether trying again, or something else, can succeed without a reload.
    pub recoverable: bool,
    /// Operands and causes, for a bug report.
    pub detail: Option<String>,
}
