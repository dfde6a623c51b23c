//! What the engine is asked and what it answers, as data: the JSON of the command line, of the page's
//! scripting API and of the messages between page and worker. Shapes only; nothing here computes.

mod ablate;

pub use ablate::{
    ControlsReport, ControlsRequest, DlaReport, DlaRequest, EffectReport, GenerateReport, GenerateRequest,
    LensReport, LensRequest, OvReport, OvRequest, PatchReport, PatchRequest, SweepReport, SweepRequest,
    TokenDirect,
};

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::Precision;
use crate::detect::doc::Doc;
use crate::detect::{self, DOCS, Findings, OfDraw};
use crate::hooks::Intervention;
pub use crate::hooks::Prompt;
use crate::ids::{HeadId, TokenId};

/// Whether a beginning-of-sequence token is put before a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum BosPolicy {
    /// As the model's own metadata says.
    #[default]
    Auto,
    /// Always one, where the model names one.
    On,
    /// Never.
    Off,
}

/// `run`: one forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RunRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// How many of the most probable next tokens to report.
    #[serde(default = "default_top")]
    pub top: usize,
    /// Edits, applied in order.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// Tokens to report beside the most probable ones.
    #[serde(default)]
    pub watch: Vec<TokenId>,
}

impl Default for RunRequest {
    /// No prompt yet.
    fn default() -> Self {
        Self {
            prompt: Prompt::Ids(Vec::new()),
            bos: BosPolicy::Auto,
            top: default_top(),
            interventions: Vec::new(),
            watch: Vec::new(),
        }
    }
}

/// 20, the number of next tokens reported unless the caller says otherwise.
pub fn default_top() -> usize {
    20
}

/// What identifies a loaded model and what its pages need to draw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ModelInfo {
    /// Name from the file's metadata, or the file's name.
    pub name: String,
    /// Family as the checkpoint names it, such as `llama`.
    pub family: String,
    /// sha256 of the weights file (of the concatenated shards when there are several), hex.
    pub sha256: String,
    /// sha256 of the tokenizer's vocabulary, hex: every token's spelling in the order of ids, each after its length. The same
    /// vocabulary gives the same hash, whatever file it came in.
    pub tokenizer_sha256: String,
    /// Layers.
    pub n_layers: usize,
    /// Query heads a layer.
    pub n_heads: usize,
    /// Key/value heads a layer; query head `h` reads `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Width of the MLP; 0 for an attention-only model.
    pub d_mlp: usize,
    /// Vocabulary size.
    pub d_vocab: usize,
    /// Longest prompt in tokens.
    pub n_ctx: usize,
    /// The id a BOS would have, if the model names one.
    pub bos_id: Option<TokenId>,
    /// Whether the model's own metadata asks for a BOS.
    pub adds_bos: bool,
    /// Parameters, counted once where tied.
    pub n_params: usize,
}

/// `tokens`: a text as the model reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct TokensReport {
    /// Token ids, a BOS included if one was added.
    pub ids: Vec<TokenId>,
    /// Decoded text of each token; a token that is part of a character decodes to U+FFFD.
    pub tokens: Vec<String>,
    /// The vocabulary's own spelling of each token, such as `Ġcapital`.
    pub pieces: Vec<String>,
    /// The bytes of each token, in hex.
    pub bytes: Vec<String>,
    /// Whether the first id is a BOS that was added.
    pub added_bos: bool,
}

/// One candidate for the next token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct TokenLogit {
    /// Vocabulary index.
    pub id: TokenId,
    /// Decoded text.
    pub token: String,
    /// The vocabulary's own spelling.
    pub piece: String,
    /// Logit.
    pub logit: f32,
    /// Natural logarithm of the probability, nats.
    pub logprob: f32,
}

/// `run`: what the model says after the prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RunReport {
    /// Token ids of the prompt.
    pub ids: Vec<TokenId>,
    /// Decoded text of each.
    pub tokens: Vec<String>,
    /// Most probable next tokens, largest logit first.
    pub logits_top: Vec<TokenLogit>,
    /// The tokens of the request's `watch`, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watched: Vec<TokenLogit>,
    /// Logarithm of the sum of exponentials of all logits at the last position.
    pub logsumexp: f32,
    /// Loss of each target `ids[1..]` given what precedes it, nats; one fewer than `ids`.
    pub nll_nats: Vec<f32>,
    /// What produced the numbers.
    pub provenance: Provenance,
}

/// `patterns`: where one head attends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PatternReport {
    /// The head.
    pub head: HeadId,
    /// Token ids of the prompt.
    pub ids: Vec<TokenId>,
    /// Decoded text of each.
    pub tokens: Vec<String>,
    /// `[query_pos][key_pos]`, each row summing to 1.
    pub pattern: Vec<Vec<f32>>,
    /// What produced the numbers.
    pub provenance: Provenance,
}

/// Enough to run a report again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Provenance {
    /// Model's name.
    pub model: String,
    /// sha256 of its weights, hex.
    pub model_sha256: String,
    /// Engine and precision, such as `cpu-f32`.
    pub engine: String,
    /// Version of Headlight.
    pub build: String,
}

/// How well each head does one thing on the prompt at hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct HeadScores {
    /// Which attention target, such as `previous_token`.
    pub target: String,
    /// `[layer][head]`, 0 to 1: attention on the target, averaged over the rows that have one.
    pub scores: Vec<Vec<f32>>,
    /// How many query positions have a target in this prompt; with 0 every score is 0 and means nothing.
    pub n_rows: usize,
}

/// `detect`: which heads do what a detector looks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DetectRequest {
    /// The detector's id, such as `induction`.
    pub detector: String,
    /// Seed of its stimulus.
    #[serde(default)]
    pub seed: u64,
    /// Whether a BOS comes before generated sequences.
    #[serde(default)]
    pub bos: BosPolicy,
    /// Sequences in place of generated ones, used as they are (no BOS is added).
    #[serde(default)]
    pub sequences: Option<Vec<Vec<TokenId>>>,
    /// The detector's own parameters; see its description.
    #[serde(default)]
    pub params: Value,
    /// How products are computed.
    #[serde(default, skip_serializing_if = "Precision::is_exact")]
    pub precision: Precision,
    /// Of a stimulus' draws those from `start` to before `end`, for [`DetectReport::whole`] to put together; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draws: Option<Range<usize>>,
}

impl DetectRequest {
    /// Draws of the stimulus (prompts, of retrieval), where the detector's score is a mean over draws that can be read apart.
    pub fn n_draws(&self) -> Option<usize> {
        detect::n_draws(self.doc()?, self.sequences.as_deref(), &self.params)
    }

    /// What each draw costs, in units of its own; `None` where all cost the same.
    pub fn draw_costs(&self) -> Option<Vec<f64>> {
        detect::draw_costs(self.doc()?, &self.params)
    }

    fn doc(&self) -> Option<&'static Doc> {
        let id = self.detector.replace('-', "_");
        DOCS.iter().find(|doc| doc.id == id)
    }
}

/// What a detector found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DetectReport {
    /// The detector's id.
    pub detector: String,
    /// Its version: the same request can give other scores under another one.
    pub version: u32,
    /// How a score is defined.
    pub definition: String,
    /// What the model read.
    pub stimulus: String,
    /// Draws, or for a weights-only score the items behind it.
    pub n: usize,
    /// `[layer][head]`.
    pub scores: Vec<Vec<f32>>,
    /// Standard deviation over draws, `[layer][head]`; null of fewer than two draws.
    pub spread: Option<Vec<Vec<f32>>>,
    /// From which score on a head is called by the detector's name; null where the score names nothing.
    pub threshold: Option<f32>,
    /// Heads above the threshold, the strongest first; empty is a result: none found.
    pub found: Vec<HeadId>,
    /// The strongest head, found or not.
    pub best: HeadScore,
    /// What stands behind the scores; the shape is the detector's own.
    pub evidence: Value,
    /// What each draw gave, where only some were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_draws: Option<Vec<OfDraw>>,
    /// What produced the numbers.
    pub provenance: DetectProvenance,
}

impl DetectReport {
    /// The report of what a detector found.
    pub fn new(doc: &Doc, findings: Findings, provenance: DetectProvenance) -> Self {
        let heads = findings.scores.iter().enumerate().flat_map(|(layer, row)| {
            row.iter()
                .enumerate()
                .map(move |(head, &score)| HeadScore { head: HeadId::new(layer, head), score })
        });
        let mut ranked: Vec<HeadScore> = heads.collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        let threshold = doc.threshold.map(|threshold| threshold.value);
        let is_found = |found: &&HeadScore| threshold.is_some_and(|threshold| found.score > threshold);
        Self {
            detector: doc.id.to_owned(),
            version: doc.version,
            definition: doc.score.to_owned(),
            stimulus: findings.stimulus,
            n: findings.n,
            threshold,
            found: ranked.iter().filter(is_found).map(|found| found.head).collect(),
            best: ranked[0],
            scores: findings.scores,
            spread: findings.spread,
            evidence: findings.evidence,
            of_draws: None,
            provenance,
        }
    }

    /// One report of the reports on parts of the draws, in order: what one run of all of them gives, bit for bit. `None` of reports
    /// on anything else.
    pub fn whole(request: DetectRequest, parts: Vec<Self>) -> Option<Self> {
        let first = parts.first()?;
        let doc = DOCS.iter().find(|doc| doc.id == first.detector)?;
        let (stimulus, run) = (first.stimulus.clone(), first.provenance.run.clone());
        let of_draws: Option<Vec<Vec<OfDraw>>> = parts.into_iter().map(|part| part.of_draws).collect();
        let findings = detect::findings(stimulus, &of_draws?.concat());
        Some(Self::new(doc, findings, DetectProvenance { run, request }))
    }
}

/// One head with its score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct HeadScore {
    /// The head.
    pub head: HeadId,
    /// Its score.
    pub score: f32,
}

/// Enough to run a detector again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DetectProvenance {
    /// Model, engine and build.
    #[serde(flatten)]
    pub run: Provenance,
    /// The request.
    pub request: DetectRequest,
}

/// Prefill speed, every head's attention scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BenchReport {
    /// Engine, precision and target, such as `cpu-f32 wasm32 (relaxed SIMD)`.
    pub engine: String,
    /// Model's name.
    pub model: String,
    /// One entry a length, in exact f32.
    pub prefill: Vec<PrefillSpeed>,
    /// The same in `fast` precision; null where that is no other.
    pub prefill_fast: Option<Vec<PrefillSpeed>>,
    /// How long the model took to load; null where that was not timed.
    pub loading: Option<LoadTimes>,
    /// How fast products are, and could be; null on a graphics device.
    pub kernel: Option<KernelSpeed>,
    /// The most memory that the engine has held at a time, bytes; null where that is not known.
    pub memory_bytes: Option<u64>,
}

/// What loading a model took, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct LoadTimes {
    /// Its bytes from the network or the cache, their checksum included.
    pub read_ms: f64,
    /// Header and tokenizer.
    pub parse_ms: f64,
    /// Weights into the engine's layout.
    pub pack_ms: f64,
    /// Self-tests, and the measurements that choose an engine, unless they were kept from before.
    pub choose_ms: f64,
}

/// Speed of the CPU's product of matrices on one thread, in thousand millions of multiplications and additions a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct KernelSpeed {
    /// In registers alone, with the same instructions: the most that is possible.
    pub peak_gmacs: f64,
    /// Of 512 rows with a weight matrix of the model.
    pub matmul_gmacs: f64,
    /// The second as a part of the first.
    pub matmul_of_peak: f64,
}

/// Speed at one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PrefillSpeed {
    /// Prompt length.
    pub n_tokens: usize,
    /// Median over the runs, tokens a second.
    pub tokens_per_s: f64,
    /// Every run, milliseconds.
    pub runs_ms: Vec<f64>,
}

impl PrefillSpeed {
    /// Summarises runs of one length; the upper median when their number is even.
    ///
    /// # Panics
    /// Without a run.
    pub fn of_runs(n_tokens: usize, runs_ms: Vec<f64>) -> Self {
        let mut sorted = runs_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let median_ms = sorted[sorted.len() / 2];
        Self { n_tokens, tokens_per_s: n_tokens as f64 / median_ms * 1000.0, runs_ms }
    }
}
