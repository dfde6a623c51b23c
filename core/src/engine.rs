//! The engine: a loaded model that answers requests with reports. The command line and the browser's worker are thin
//! shells over this file.
//!
//! Long work is steps ([`Loading::step`], [`RunTask::step`]), so that a caller can show progress, yield or stop.

use sha2::{Digest, Sha256};

use crate::activations::Activations;
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::decode::{Decode, Generated, StopRules};
use crate::detect::{self, Ask, AttentionTarget, Ground, HeadTable, mean_over_rows};
use crate::error::Error;
use crate::forward::{KvCache, LoadedModel, Pass, Upload};
use crate::hooks::{LogitPositions, PlanError, RunPlan, check_head, check_ids};
use crate::ids::{HeadId, TokenId};
use crate::metrics::{logsumexp, top_indices};
use crate::model::folder::FolderCheckpoint;
use crate::model::gguf::GgufCheckpoint;
use crate::model::{Checkpoint, ModelConfig};
use crate::report::{
    BosPolicy, DetectProvenance, DetectReport, DetectRequest, HeadScore, HeadScores, ModelInfo,
    PatternReport, Prompt, Provenance, RunReport, RunRequest, TokenLogit, TokensReport,
};
use crate::tensor::HostTensor;
use crate::tokenizer::Tokenizer;

/// Positions unembedded in one step: 16 rows of SmolLM2's vocabulary are about 0.9 GFLOP.
const UNEMBED_ROWS: usize = 16;

/// A model on its way from bytes into the engine.
pub struct Loading {
    checkpoint: Box<dyn Checkpoint>,
    tokenizer: Tokenizer,
    info: ModelInfo,
    backend: Cpu,
    upload: Upload<Cpu>,
    n_total: usize,
}

impl Loading {
    /// Opens a GGUF file: header, tokenizer and the presence of every tensor are checked here. `name` is shown
    /// when the file names itself nowhere.
    pub fn from_gguf(bytes: Vec<u8>, name: &str) -> Result<Self, Error> {
        let checkpoint = GgufCheckpoint::open(bytes)?;
        let tokenizer = Tokenizer::from_gguf(&checkpoint.metadata(), checkpoint.config().d_vocab)?;
        let sha256 = sha256_hex([checkpoint.bytes()]);
        Ok(Self::new(Box::new(checkpoint), tokenizer, sha256, name))
    }

    /// Opens a Hugging Face folder's files: `config.json`, `tokenizer.json` and the safetensors shards.
    pub fn from_folder(
        config_json: &[u8],
        tokenizer_json: &[u8],
        shards: Vec<Vec<u8>>,
        name: &str,
    ) -> Result<Self, Error> {
        let checkpoint = FolderCheckpoint::open(config_json, shards)?;
        let tokenizer =
            Tokenizer::from_json(tokenizer_json, checkpoint.bos_id(), checkpoint.config().d_vocab)?;
        let sha256 = sha256_hex(checkpoint.shards().iter().map(Vec::as_slice));
        Ok(Self::new(Box::new(checkpoint), tokenizer, sha256, name))
    }

    fn new(checkpoint: Box<dyn Checkpoint>, tokenizer: Tokenizer, sha256: String, name: &str) -> Self {
        let config = checkpoint.config();
        let info = model_info(config, &tokenizer, sha256, name);
        let (upload, n_total) = (Upload::new(config), config.tensors().len());
        Self { checkpoint, tokenizer, info, backend: Cpu, upload, n_total }
    }

    /// What is being loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Tensors taken.
    pub fn n_done(&self) -> usize {
        self.upload.n_done()
    }

    /// Tensors in all.
    pub fn n_total(&self) -> usize {
        self.n_total
    }

    /// Takes one tensor; true when none was left.
    pub fn step(&mut self) -> Result<bool, Error> {
        Ok(self.upload.step(&self.backend, self.checkpoint.as_ref())?)
    }

    /// Takes what is left and gives the engine; the file's bytes are dropped.
    pub fn finish(mut self) -> Result<Engine, Error> {
        while !self.step()? {}
        let model = self.upload.finish(self.checkpoint.config().clone());
        Ok(Engine { backend: self.backend, model, tokenizer: self.tokenizer, info: self.info })
    }
}

fn sha256_hex<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn model_info(config: &ModelConfig, tokenizer: &Tokenizer, sha256: String, name: &str) -> ModelInfo {
    ModelInfo {
        name: config.name.clone().unwrap_or_else(|| name.to_owned()),
        family: config.family.clone(),
        sha256,
        n_layers: config.n_layers,
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        d_model: config.d_model,
        d_head: config.d_head,
        d_mlp: config.d_mlp,
        d_vocab: config.d_vocab,
        n_ctx: config.n_ctx,
        bos_id: tokenizer.bos_id(),
        adds_bos: tokenizer.adds_bos(),
        n_params: config.n_params(),
    }
}

/// A loaded model.
pub struct Engine {
    backend: Cpu,
    model: LoadedModel<Cpu>,
    tokenizer: Tokenizer,
    info: ModelInfo,
}

/// What a run gives beyond the next-token report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// The loss of every token of the prompt.
    pub nll: bool,
    /// Every head's attention on each [`AttentionTarget`].
    pub scores: bool,
    /// Whose patterns to keep.
    pub patterns: PatternsWanted,
}

/// Whose patterns to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatternsWanted {
    /// Nobody's.
    #[default]
    None,
    /// One head's.
    Head(HeadId),
    /// Every head's: `n_layers * n_heads * n_tokens²` f32.
    All,
}

impl Engine {
    /// What is loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Backend and precision, such as `cpu-f32`.
    pub fn engine_name(&self) -> String {
        self.backend.name()
    }

    /// The BOS that a policy puts first, if it puts one.
    fn bos(&self, policy: BosPolicy) -> Result<Option<TokenId>, Error> {
        match policy {
            BosPolicy::Auto => Ok(self.info.bos_id.filter(|_| self.info.adds_bos)),
            BosPolicy::On => self.info.bos_id.ok_or(Error::NoBos).map(Some),
            BosPolicy::Off => Ok(None),
        }
    }

    /// A text as the model reads it.
    pub fn tokenize(&self, text: &str, bos: BosPolicy) -> Result<TokensReport, Error> {
        let bos = self.bos(bos)?;
        let ids = bos.into_iter().chain(self.tokenizer.encode(text)?).collect();
        Ok(self.tokens_report(ids, bos.is_some()))
    }

    fn tokens_report(&self, ids: Vec<TokenId>, added_bos: bool) -> TokensReport {
        let spellings: Vec<_> = ids.iter().map(|&id| self.tokenizer.spelling(id)).collect();
        TokensReport {
            tokens: spellings.iter().map(|token| token.text.clone()).collect(),
            pieces: spellings.iter().map(|token| token.piece.clone()).collect(),
            bytes: spellings.iter().map(|token| hex(&token.bytes)).collect(),
            ids,
            added_bos,
        }
    }

    /// The prompt of a request as tokens; fails unless the model can run it.
    pub fn prompt_tokens(&self, prompt: &Prompt, bos: BosPolicy) -> Result<TokensReport, Error> {
        let tokens = match prompt {
            // A text without a character is empty, also where a BOS would stand before it.
            Prompt::Text(text) if text.is_empty() => return Err(PlanError::EmptyPrompt.into()),
            Prompt::Text(text) => self.tokenize(text, bos)?,
            Prompt::Ids(ids) => {
                check_ids(ids, &self.model.config)?;
                self.tokens_report(ids.clone(), false)
            }
        };
        check_ids(&tokens.ids, &self.model.config)?;
        Ok(tokens)
    }

    /// Starts a run; everything is checked before any work.
    pub fn start(&self, request: &RunRequest, want: Want) -> Result<RunTask, Error> {
        let tokens = self.prompt_tokens(&request.prompt, request.bos)?;
        let pattern_heads = match want.patterns {
            PatternsWanted::None => Vec::new(),
            PatternsWanted::Head(head) => vec![head],
            PatternsWanted::All => self.heads().collect(),
        };
        let targets = if want.scores { AttentionTarget::ALL.as_slice() } else { &[] };
        let plan = RunPlan {
            pattern_heads,
            targets: targets.iter().map(|target| target.keys(&tokens.ids)).collect(),
            interventions: request.interventions.clone(),
            ..RunPlan::default()
        };
        let pass = Pass::start(&self.backend, &self.model, &tokens.ids, plan)?;
        let state = RunState::Layers(pass);
        Ok(RunTask { tokens, top: request.top, want, n_layers: self.info.n_layers, state: Some(state) })
    }

    /// Fails unless the model has this head.
    pub fn check_head(&self, head: HeadId) -> Result<(), Error> {
        Ok(check_head(head, &self.model.config)?)
    }

    /// Every head of the model, layer by layer.
    pub fn heads(&self) -> impl Iterator<Item = HeadId> + use<> {
        let n_heads = self.info.n_heads;
        (0..self.info.n_layers).flat_map(move |layer| (0..n_heads).map(move |head| HeadId::new(layer, head)))
    }

    /// Runs a request to its end, losses included.
    pub fn run(&self, request: &RunRequest) -> Result<RunReport, Error> {
        let want = Want { nll: true, ..Want::default() };
        Ok(self.complete(self.start(request, want)?)?.report)
    }

    /// One head's pattern.
    pub fn patterns(&self, request: &RunRequest, head: HeadId) -> Result<PatternReport, Error> {
        self.check_head(head)?;
        let want = Want { patterns: PatternsWanted::Head(head), ..Want::default() };
        let outcome = self.complete(self.start(request, want)?)?;
        Ok(outcome.pattern(self, head).expect("the pattern of this head was asked for"))
    }

    /// Plans a detector's work; everything is checked before any of it is done.
    pub fn start_detect(&self, request: &DetectRequest) -> Result<DetectTask, Error> {
        let detector = detect::find(&request.detector)?;
        let ask = Ask {
            config: &self.model.config,
            tokenizer: &self.tokenizer,
            bos: self.bos(request.bos)?,
            seed: request.seed,
            sequences: request.sequences.clone(),
            params: request.params.clone(),
        };
        let task = detect::Task::plan(detector, &ask)?;
        Ok(DetectTask { doc: &detector.doc, request: request.clone(), task })
    }

    /// Runs a detector to its end.
    pub fn detect(&self, request: &DetectRequest) -> Result<DetectReport, Error> {
        let mut task = self.start_detect(request)?;
        while !task.step(self)? {}
        task.finish(self)
    }

    /// A prompt of `n_tokens` pseudorandom ids, the same on every machine: what benchmarks run.
    pub fn bench_request(&self, n_tokens: usize) -> RunRequest {
        // Knuth's multiplicative hash spreads the ids over the vocabulary.
        let id = |i: usize| (i as u64 * 2_654_435_761 % self.info.d_vocab as u64) as TokenId;
        RunRequest {
            prompt: Prompt::Ids((0..n_tokens).map(id).collect()),
            bos: BosPolicy::Off,
            top: 1,
            interventions: Vec::new(),
        }
    }

    fn complete(&self, mut task: RunTask) -> Result<RunOutcome, Error> {
        while !task.step(self)? {}
        task.finish(self)
    }

    /// A forward pass with any captures: the researcher's door, and the tests'.
    pub fn forward(&self, ids: &[TokenId], plan: &RunPlan) -> Result<RunOutput, Error> {
        let mut pass = Pass::start(&self.backend, &self.model, ids, plan.clone())?;
        while !pass.step(&self.backend, &self.model) {}
        let (normalized, activations) = pass.finish(&self.backend, &self.model);
        Ok(RunOutput { logits: self.logits_at(&normalized, ids.len(), plan.logits), activations })
    }

    /// As [`Self::forward`], after the positions of a cache, which comes back with `ids` read.
    pub fn forward_after(
        &self,
        cache: KvCache<Cpu>,
        ids: &[TokenId],
        plan: &RunPlan,
    ) -> Result<(RunOutput, KvCache<Cpu>), Error> {
        let mut pass = Pass::resume(&self.backend, &self.model, cache, ids, plan.clone())?;
        while !pass.step(&self.backend, &self.model) {}
        let (normalized, activations, cache) = pass.finish_keeping(&self.backend, &self.model);
        let logits = self.logits_at(&normalized, ids.len(), plan.logits);
        Ok((RunOutput { logits, activations }, cache))
    }

    /// The most probable continuation, with the key that each head attends to most at each token's choice.
    pub fn generate(&self, ids: &[TokenId], rules: &StopRules) -> Result<Vec<Generated>, Error> {
        let mut decode = Decode::new(KvCache::default(), ids.to_vec(), rules.clone());
        while !decode.step(&self.backend, &self.model)? {}
        Ok(decode.finish().0)
    }

    /// Logits of the rows asked for out of `[n_rows, d_model]`.
    fn logits_at(&self, normalized: &Vec<f32>, n_rows: usize, positions: LogitPositions) -> HostTensor {
        let first = match positions {
            LogitPositions::None => n_rows,
            LogitPositions::Last => n_rows - 1,
            LogitPositions::All => 0,
        };
        let logits = self.logits(normalized, first..n_rows);
        HostTensor::new(vec![n_rows - first, self.info.d_vocab], logits)
    }

    fn logits(&self, normalized: &Vec<f32>, positions: std::ops::Range<usize>) -> Vec<f32> {
        let d_model = self.info.d_model;
        let rows = self.backend.slice(normalized, positions.start * d_model..positions.end * d_model);
        self.backend.download(&self.backend.matmul(&rows, self.model.unembed()))
    }

    fn provenance(&self) -> Provenance {
        Provenance {
            model: self.info.name.clone(),
            model_sha256: self.info.sha256.clone(),
            engine: self.engine_name(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A detector at work.
pub struct DetectTask {
    doc: &'static detect::doc::Doc,
    request: DetectRequest,
    task: detect::Task<Cpu>,
}

impl DetectTask {
    /// A short piece of the work; true when nothing is left.
    pub fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        Ok(self.task.step(&Ground { backend: &engine.backend, model: &engine.model })?)
    }

    /// Steps done and in all, in units of the detector's own.
    pub fn progress(&self) -> (usize, usize) {
        self.task.progress()
    }

    /// Scores as far as they are known: the mean of the draws so far, or the layers done.
    pub fn partial(&self) -> HeadTable {
        self.task.partial()
    }

    /// The report, once nothing is left.
    pub fn finish(self, engine: &Engine) -> Result<DetectReport, Error> {
        let findings = self.task.finish(&engine.tokenizer);
        if findings.scores.iter().flatten().any(|score| !score.is_finite()) {
            return Err(Error::NotFinite);
        }
        let mut ranked: Vec<HeadScore> = engine
            .heads()
            .map(|head| HeadScore { head, score: findings.scores[head.layer][head.head] })
            .collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        let threshold = self.doc.threshold.map(|threshold| threshold.value);
        let is_found = |found: &&HeadScore| threshold.is_some_and(|threshold| found.score > threshold);
        Ok(DetectReport {
            detector: self.doc.id.to_owned(),
            version: self.doc.version,
            definition: self.doc.score.to_owned(),
            stimulus: findings.stimulus,
            n: findings.n,
            scores: findings.scores,
            spread: findings.spread,
            threshold,
            found: ranked.iter().filter(is_found).map(|found| found.head).collect(),
            best: ranked[0],
            evidence: findings.evidence,
            provenance: DetectProvenance { run: engine.provenance(), request: self.request },
        })
    }
}

/// What [`Engine::forward`] gives.
pub struct RunOutput {
    /// `[n_positions, d_vocab]` for the positions asked for.
    pub logits: HostTensor,
    /// What the plan captured.
    pub activations: Activations,
}

/// A run under way.
pub struct RunTask {
    tokens: TokensReport,
    top: usize,
    want: Want,
    n_layers: usize,
    /// Taken while a step changes it; never left empty.
    state: Option<RunState>,
}

enum RunState {
    Layers(Pass<Cpu>),
    Unembedding(Unembedding),
}

/// Losses and last logits, chunk by chunk.
struct Unembedding {
    normalized: Vec<f32>,
    activations: Activations,
    next_position: usize,
    nll_nats: Vec<f32>,
    logits: Vec<f32>,
}

impl RunTask {
    /// The prompt.
    pub fn tokens(&self) -> &TokensReport {
        &self.tokens
    }

    /// Steps in all: layers, then chunks of positions to unembed.
    pub fn n_total(&self) -> usize {
        let n_tokens = self.tokens.ids.len();
        self.n_layers + if self.want.nll { n_tokens.div_ceil(UNEMBED_ROWS) } else { 1 }
    }

    /// Steps done.
    pub fn n_done(&self) -> usize {
        match &self.state {
            Some(RunState::Layers(pass)) => pass.n_done(),
            Some(RunState::Unembedding(state)) if self.want.nll => {
                self.n_layers + state.next_position.div_ceil(UNEMBED_ROWS)
            }
            Some(RunState::Unembedding(state)) => self.n_layers + usize::from(!state.logits.is_empty()),
            None => 0,
        }
    }

    /// One layer, or one chunk of positions; true when nothing is left.
    pub fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        let state = self.state.take().expect("a step puts the state back");
        let (state, finished) = match state {
            RunState::Layers(mut pass) => {
                if pass.step(&engine.backend, &engine.model) {
                    let (normalized, activations) = pass.finish(&engine.backend, &engine.model);
                    let n_tokens = self.tokens.ids.len();
                    let next_position = if self.want.nll { 0 } else { n_tokens - 1 };
                    let state = Unembedding {
                        normalized,
                        activations,
                        next_position,
                        nll_nats: Vec::new(),
                        logits: Vec::new(),
                    };
                    (RunState::Unembedding(state), false)
                } else {
                    (RunState::Layers(pass), false)
                }
            }
            RunState::Unembedding(mut state) => {
                let finished = state.step(engine, &self.tokens.ids);
                (RunState::Unembedding(state), finished)
            }
        };
        self.state = Some(state);
        Ok(finished)
    }

    /// Runs what is left and reports.
    pub fn finish(mut self, engine: &Engine) -> Result<RunOutcome, Error> {
        while !self.step(engine)? {}
        let Some(RunState::Unembedding(state)) = self.state else {
            unreachable!("a run ends in its unembedding");
        };
        let logsumexp = logsumexp(&state.logits);
        if !logsumexp.is_finite() {
            return Err(Error::NotFinite);
        }
        let logits_top = top_indices(&state.logits, self.top)
            .into_iter()
            .map(|index| {
                let (id, logit) = (index as TokenId, state.logits[index]);
                let spelling = engine.tokenizer.spelling(id);
                let logprob = (f64::from(logit) - logsumexp) as f32;
                TokenLogit { id, token: spelling.text, piece: spelling.piece, logit, logprob }
            })
            .collect();
        let report = RunReport {
            ids: self.tokens.ids.clone(),
            tokens: self.tokens.tokens.clone(),
            logits_top,
            logsumexp: logsumexp as f32,
            nll_nats: state.nll_nats,
            provenance: engine.provenance(),
        };
        let scores = head_scores(&self.tokens.ids, &state.activations);
        Ok(RunOutcome {
            report,
            tokens: self.tokens,
            scores,
            logits: state.logits,
            activations: state.activations,
        })
    }
}

impl Unembedding {
    /// Unembeds one chunk; true when the last position is done.
    fn step(&mut self, engine: &Engine, ids: &[TokenId]) -> bool {
        let end = (self.next_position + UNEMBED_ROWS).min(ids.len());
        if self.next_position == end {
            return true;
        }
        let logits = engine.logits(&self.normalized, self.next_position..end);
        let rows = logits.chunks_exact(engine.info.d_vocab);
        // The last position has no target: its row pairs with nothing.
        for (logits, target) in rows.clone().zip(&ids[self.next_position + 1..]) {
            self.nll_nats.push((logsumexp(logits) - f64::from(logits[*target as usize])) as f32);
        }
        if end == ids.len() {
            self.logits = rows.last().map(<[f32]>::to_vec).unwrap_or_default();
        }
        self.next_position = end;
        end == ids.len()
    }
}

fn head_scores(ids: &[TokenId], activations: &Activations) -> Vec<HeadScores> {
    let targets = AttentionTarget::ALL.iter().zip(activations.target_mass());
    targets
        .map(|(target, mass)| {
            let (scores, n_rows) = mean_over_rows(mass, &target.keys(ids));
            HeadScores { target: target.name().to_owned(), scores, n_rows }
        })
        .collect()
}

/// A finished run.
pub struct RunOutcome {
    /// Next tokens and losses.
    pub report: RunReport,
    /// The prompt.
    pub tokens: TokensReport,
    /// Every head's scores, if they were wanted.
    pub scores: Vec<HeadScores>,
    /// Logits at the last position, `[d_vocab]`.
    pub logits: Vec<f32>,
    activations: Activations,
}

impl RunOutcome {
    /// One head's pattern, if it was kept.
    pub fn pattern(&self, engine: &Engine, head: HeadId) -> Option<PatternReport> {
        let pattern = self.activations.pattern(head)?;
        Some(PatternReport {
            head,
            ids: self.tokens.ids.clone(),
            tokens: self.tokens.tokens.clone(),
            pattern: pattern.rows().map(<[f32]>::to_vec).collect(),
            provenance: engine.provenance(),
        })
    }
}
