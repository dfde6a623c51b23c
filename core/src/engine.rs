//! The engine: a loaded model that answers requests with reports. The command line and the browser's worker are thin
//! shells over it.
//!
//! Long work is steps ([`Loading::step`], [`RunTask::step`], [`Job::step`]), so that a caller can show progress, yield or stop.
//! Steps are asynchronous, because a graphics device in a browser answers through the event loop; what gives its result at
//! once (such as [`Engine::run`]) waits, and is for the CPU and for native programs.

mod ablate;
mod bench;
mod detect_job;
mod effect;
mod generate;
mod loading;
mod run;
mod script;
mod trust;

pub use ablate::{ControlsJob, DlaWork, LensWork, OnRun, OvWork, PatchJob, SweepJob};
pub use detect_job::DetectTask;
pub use effect::EffectTask;
pub use generate::GenerateTask;
pub use loading::Loading;
pub use run::{PatternsWanted, RunOutcome, RunTask, Want};
pub use trust::{Golden, SelfTest};

use std::rc::Rc;

use crate::activations::Activations;
use crate::backend::{Backend, Device, DeviceBuffer, DeviceError, DeviceMatrix, Precision};
use crate::decode::{Decode, Draft, Generated, StopRules};
use crate::detect::{Ground, HeadTable};
use crate::error::Error;
use crate::forward::{BaseRun, Donors, Finished, KvCache, LoadedModel, MAX_BLOCK_WEIGHTS, Pass};
use crate::hooks::{
    ActivationDirection, Edit, Intervention, LogitPositions, PlanError, RunPlan, check_head, check_ids,
};
use crate::ids::{HeadId, TokenId};
use crate::report::{
    BosPolicy, ModelInfo, PatternReport, Prompt, Provenance, RunReport, RunRequest, TokenLogit, TokensReport,
};
use crate::tensor::HostTensor;
use crate::tokenizer::Tokenizer;

/// Activations where the engine computes.
type Buffer = DeviceBuffer;

/// Waits for work in place.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    pollster::block_on(work)
}

/// Long work on the engine's model, a short step at a time.
pub trait Job: Sized {
    /// What comes of it.
    type Report;

    /// A short piece of the work; true when nothing is left.
    fn step(&mut self, engine: &Engine) -> impl Future<Output = Result<bool, Error>>;

    /// Steps done and in all, in units of the job's own.
    fn progress(&self) -> (usize, usize);

    /// A table as far as it is known, NaN where it is not; nothing for work without one.
    fn partial(&self) -> HeadTable {
        HeadTable::new()
    }

    /// The text so far, of work that writes one.
    fn text(&self, _engine: &Engine) -> Option<String> {
        None
    }

    /// The report, once nothing is left.
    fn finish(self, engine: &Engine) -> impl Future<Output = Result<Self::Report, Error>>;

    /// Goes on with an engine that took the place of one whose device failed, from what is known already; false where the work
    /// has to be started anew.
    fn go_on_with(&mut self, _engine: &Engine) -> bool {
        false
    }

    /// Does what is left, and waits for it.
    fn complete(mut self, engine: &Engine) -> Result<Self::Report, Error> {
        block_on(async {
            while !self.step(engine).await? {}
            self.finish(engine).await
        })
    }
}

/// A loaded model.
#[derive(Clone)]
pub struct Engine {
    backend: Device,
    model: Rc<LoadedModel<Device>>,
    tokenizer: Rc<Tokenizer>,
    info: ModelInfo,
}

impl Engine {
    /// What is loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The model's sizes.
    pub fn config(&self) -> &crate::model::ModelConfig {
        &self.model.config
    }

    /// Backend and precision, such as `cpu-f32`.
    pub fn engine_name(&self) -> String {
        self.backend.name()
    }

    /// The same model, its weights shared, with products computed otherwise.
    pub fn with_precision(&self, precision: Precision) -> Self {
        Self { backend: self.backend.with_precision(precision), ..self.clone() }
    }

    /// The same model on another device, from the weights that are in host memory: no file is read again.
    ///
    /// # Panics
    /// When this engine is on a graphics device.
    pub fn on(&self, device: Device) -> Self {
        let model = self.model.map(|matrix| matrix.on(&device), |vector| vector.on(&device));
        Self { backend: device, model: Rc::new(model), ..self.clone() }
    }

    /// Whether `fast` precision would be another than exact: on the CPU, of weights that are quantised.
    pub fn has_fast(&self) -> bool {
        self.model.matrices().any(DeviceMatrix::is_quantized)
    }

    /// Host memory that the weights take, bytes; 0 on a graphics device.
    pub fn weight_bytes(&self) -> usize {
        self.model.matrices().map(DeviceMatrix::host_bytes).sum()
    }

    /// An error as it is told here: where memory of the device is short, what would fit.
    fn told(&self, error: impl Into<Error>) -> Error {
        let error = error.into();
        match error.of_device() {
            Some(&DeviceError::OutOfMemory { held_bytes }) => {
                Error::TooLongForDevice { n_tokens: self.tokens_within(held_bytes) }
            }
            _ => error,
        }
    }

    /// Tokens of a prompt whose run takes about so much on a graphics device, the weights included.
    fn tokens_within(&self, bytes: usize) -> usize {
        let config = &self.model.config;
        let weights: usize = self.model.matrices().map(DeviceMatrix::device_bytes).sum();
        // A run kept whole, its scores and patterns a block at a time, and a layer's widest rows.
        let takes = |n_tokens: usize| {
            let block = (config.n_heads * n_tokens * n_tokens).min(MAX_BLOCK_WEIGHTS);
            let rows = n_tokens * (4 * config.d_model + 4 * config.d_mlp);
            weights + BaseRun::<Device>::size_bytes(config, n_tokens) + (2 * block + rows) * size_of::<f32>()
        };
        let lengths: Vec<usize> = (1..=config.n_ctx).collect();
        lengths.partition_point(|&n_tokens| takes(n_tokens) <= bytes)
    }

    /// Whether a graphics device computes.
    pub fn is_on_gpu(&self) -> bool {
        matches!(self.backend, Device::WebGpu(_))
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
            bytes: spellings.iter().map(|token| loading::hex(&token.bytes)).collect(),
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
        Ok(self.start(request, want)?.complete(self)?.report)
    }

    /// One head's pattern.
    pub fn patterns(&self, request: &RunRequest, head: HeadId) -> Result<PatternReport, Error> {
        self.check_head(head)?;
        let want = Want { patterns: PatternsWanted::Head(head), ..Want::default() };
        let outcome = self.start(request, want)?.complete(self)?;
        Ok(outcome.pattern(self, head).expect("the pattern of this head was asked for"))
    }

    /// A prompt of `n_tokens` pseudorandom ids, the same on every machine: what benchmarks run.
    pub fn bench_request(&self, n_tokens: usize) -> RunRequest {
        let prompt = Prompt::Ids(self.bench_ids(n_tokens));
        RunRequest { prompt, bos: BosPolicy::Off, top: 1, ..RunRequest::default() }
    }

    fn bench_ids(&self, n_tokens: usize) -> Vec<TokenId> {
        // Knuth's multiplicative hash spreads the ids over the vocabulary.
        let id = |i: usize| (i as u64 * 2_654_435_761 % self.info.d_vocab as u64) as TokenId;
        (0..n_tokens).map(id).collect()
    }

    fn ground(&self) -> Ground<'_, Device> {
        self.ground_on(&self.backend)
    }

    /// The model on its own device, which may compute products otherwise.
    fn ground_on<'a>(&'a self, backend: &'a Device) -> Ground<'a, Device> {
        Ground { backend, model: &self.model }
    }

    /// The edits with every text in them tokenised as the prompt is.
    fn resolve(&self, interventions: &[Intervention], bos: BosPolicy) -> Result<Vec<Intervention>, Error> {
        let ids = |prompt: Prompt| -> Result<Prompt, Error> {
            Ok(Prompt::Ids(self.prompt_tokens(&prompt, bos)?.ids))
        };
        let resolve = |intervention: &Intervention| -> Result<Intervention, Error> {
            let edit = match intervention.edit.clone() {
                Edit::ProjectOut { direction, strength } => {
                    Edit::ProjectOut { direction: self.direction(direction)?, strength }
                }
                edit => edit.try_map_prompts(ids)?,
            };
            Ok(Intervention { edit, ..intervention.clone() })
        };
        interventions.iter().map(resolve).collect()
    }

    /// A direction with its token as an id.
    fn direction(&self, direction: ActivationDirection) -> Result<ActivationDirection, Error> {
        Ok(match direction {
            ActivationDirection::OfToken { unembedding_of: Prompt::Text(text) } => {
                ActivationDirection::of_token(Prompt::Ids(self.tokenize(&text, BosPolicy::Off)?.ids))
            }
            direction => direction,
        })
    }

    /// A candidate for the next token, from all logits.
    pub fn next_token(&self, id: TokenId, logits: &[f32]) -> TokenLogit {
        self.token_logit(id, logits, crate::metrics::logsumexp(logits))
    }

    /// What a run of `n_tokens` takes in memory when it is kept whole ([`Want::base`]), bytes.
    pub fn base_bytes(&self, n_tokens: usize) -> usize {
        BaseRun::<Device>::size_bytes(&self.model.config, n_tokens)
    }

    /// The text of generated tokens; bytes that are no whole character show as U+FFFD.
    fn decoded(&self, ids: &[TokenId]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.tokenizer.spelling(id).bytes).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A vocabulary entry with its logit.
    fn token_logit(&self, id: TokenId, logits: &[f32], logsumexp: f64) -> TokenLogit {
        let spelling = self.tokenizer.spelling(id);
        let logit = logits[id as usize];
        let logprob = (f64::from(logit) - logsumexp) as f32;
        TokenLogit { id, token: spelling.text, piece: spelling.piece, logit, logprob }
    }

    /// A forward pass with any captures: the researcher's door, and the tests'. Runs that its edits read come first.
    pub fn forward(&self, ids: &[TokenId], plan: &RunPlan) -> Result<RunOutput, Error> {
        block_on(self.run_plan(ids, plan))
    }

    /// As [`Self::forward`], where nothing may wait in place: in a browser, on a graphics device.
    pub async fn run_plan(&self, ids: &[TokenId], plan: &RunPlan) -> Result<RunOutput, Error> {
        let mut donors = Donors::plan(&self.model.config, ids, plan.edits.clone())?;
        while !donors.step(&self.backend, &self.model).await? {}
        let plan = &RunPlan { edits: donors.finish(), ..plan.clone() };
        let mut pass = Pass::start(&self.backend, &self.model, ids, plan.clone())?;
        while !pass.step(&self.backend, &self.model) {}
        let Finished { normalized, activations, .. } = pass.finish(&self.backend, &self.model).await?;
        let logits = self.logits_at(&normalized, ids.len(), plan.logits).await?;
        Ok(RunOutput { logits, activations })
    }

    /// As [`Self::forward`], after the positions of a cache, which comes back with `ids` read.
    pub fn forward_after(
        &self,
        cache: KvCache<Device>,
        ids: &[TokenId],
        plan: &RunPlan,
    ) -> Result<(RunOutput, KvCache<Device>), Error> {
        let mut pass = Pass::resume(&self.backend, &self.model, cache, ids, plan.clone())?;
        block_on(async {
            while !pass.step(&self.backend, &self.model) {}
            let Finished { normalized, activations, cache, .. } =
                pass.finish(&self.backend, &self.model).await?;
            let logits = self.logits_at(&normalized, ids.len(), plan.logits).await?;
            Ok((RunOutput { logits, activations }, cache))
        })
    }

    /// The most probable continuation, with the key that each head attends to most at each token's choice.
    pub fn generate(&self, ids: &[TokenId], rules: &StopRules) -> Result<Vec<Generated>, Error> {
        self.generate_drafted(ids, rules, &Draft::default())
    }

    /// As [`Self::generate`], sooner where the draft is right.
    pub fn generate_drafted(
        &self,
        ids: &[TokenId],
        rules: &StopRules,
        draft: &Draft,
    ) -> Result<Vec<Generated>, Error> {
        let (ids, draft) = (ids.to_vec(), draft.clone());
        let mut decode = Decode::with_draft(KvCache::default(), ids, rules.clone(), draft);
        block_on(async {
            while !decode.step(&self.backend, &self.model).await? {}
            Ok(decode.finish().0)
        })
    }

    /// Logits of the rows asked for out of `[n_rows, d_model]`.
    async fn logits_at(
        &self,
        normalized: &Buffer,
        n_rows: usize,
        positions: LogitPositions,
    ) -> Result<HostTensor, DeviceError> {
        let first = match positions {
            LogitPositions::None => n_rows,
            LogitPositions::Last => n_rows - 1,
            LogitPositions::All => 0,
        };
        // No row is no work: a device takes no empty buffer.
        let logits = match first == n_rows {
            true => Vec::new(),
            false => self.logits(normalized, first..n_rows).await?,
        };
        Ok(HostTensor::new(vec![n_rows - first, self.info.d_vocab], logits))
    }

    async fn logits(
        &self,
        normalized: &Buffer,
        positions: std::ops::Range<usize>,
    ) -> Result<Vec<f32>, DeviceError> {
        self.backend.download_one(self.unembed(normalized, positions)).await
    }

    /// Logits of some rows of `[n_rows, d_model]`, where they are computed.
    fn unembed(&self, normalized: &Buffer, positions: std::ops::Range<usize>) -> Buffer {
        let d_model = self.info.d_model;
        let rows = self.backend.slice(normalized, positions.start * d_model..positions.end * d_model);
        self.backend.matmul(&rows, self.model.unembed())
    }

    fn provenance(&self) -> Provenance {
        self.provenance_on(&self.backend)
    }

    fn provenance_on(&self, backend: &Device) -> Provenance {
        Provenance {
            model: self.info.name.clone(),
            model_sha256: self.info.sha256.clone(),
            engine: backend.name(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What [`Engine::forward`] gives.
pub struct RunOutput {
    /// `[n_positions, d_vocab]` for the positions asked for.
    pub logits: HostTensor,
    /// What the plan captured.
    pub activations: Activations,
}
