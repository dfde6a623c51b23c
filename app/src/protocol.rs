//! The messages between page and worker: the only thing that both know. Shapes only.
//!
//! The worker speaks first ([`Event::Ready`]); anything sent before that is lost. Every request has an id that
//! its events repeat.

use headlight_core::hooks::Intervention;
use headlight_core::ids::HeadId;
use headlight_core::report::{
    BenchReport, BosPolicy, DetectReport, DetectRequest, HeadScores, ModelInfo, PatternReport, RunReport,
    RunRequest, TokensReport,
};
use serde::{Deserialize, Serialize};

/// Raised whenever a message changes its meaning; page and worker must agree.
pub const PROTOCOL: u32 = 3;

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
    Load(ModelSource),
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
}

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// How the weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// One GGUF file, tokenizer included; `urls` name the file.
    Gguf,
    /// A folder with `config.json`, `tokenizer.json` and `model.safetensors`; `urls` name the folder.
    Folder,
}

/// What the page shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewRequest {
    /// The prompt.
    pub text: String,
    /// BOS policy.
    pub bos: BosPolicy,
    /// How many next tokens.
    pub top: usize,
    /// Edits; when there are any, the clean run is reported beside the edited one.
    pub interventions: Vec<Intervention>,
    /// The head whose pattern is wanted.
    pub head: Option<HeadId>,
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
    /// Units done: bytes for `Download`, `ReadCache` and `Verify`, tensors for `Unpack`, runs for `Bench`,
    /// the detector's own steps for `Detect`.
    pub done: u64,
    /// Units in all, when known.
    pub total: Option<u64>,
    /// Milliseconds since the stage began, pauses left out.
    pub elapsed_ms: f64,
    /// For `Detect`, the scores as far as they are known, `[layer][head]`.
    pub scores: Option<Vec<Vec<f32>>>,
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
    /// Benchmark runs.
    Bench,
    /// A detector's work.
    Detect,
}

/// Answers, one for each [`Call`] that has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Load`.
    Loaded {
        /// The model that is now loaded.
        info: ModelInfo,
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
    /// To `Bench`.
    Bench(BenchReport),
}

/// An error as it crosses to the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
