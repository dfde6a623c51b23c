//! Sweeps, attribution, lens, patching and controls on the engine's model: texts become ids on the way in, ids get their texts
//! on the way out.

use super::{Engine, Job};
use crate::ablate::controls::{ControlsSpec, ControlsTask};
use crate::ablate::dla::{DlaSpec, DlaTask};
use crate::ablate::logit_lens::LensTask;
use crate::ablate::ov;
use crate::ablate::patching::{PatchSpec, PatchTask};
use crate::ablate::sweep::{SweepSpec, SweepTask};
use crate::backend::Device;
use crate::detect::HeadTable;
use crate::error::Error;
use crate::forward::{Donors, Pass};
use crate::hooks::Edits;
use crate::ids::TokenId;
use crate::report::{
    ControlsReport, ControlsRequest, DlaReport, DlaRequest, LensReport, LensRequest, OvReport, OvRequest,
    PatchReport, PatchRequest, SweepReport, SweepRequest, TokenDirect,
};

/// A sweep with its request.
pub struct SweepJob {
    ids: Vec<TokenId>,
    request: SweepRequest,
    backend: Device,
    task: SweepTask<Device>,
}

/// Random controls with their request.
pub struct ControlsJob {
    request: ControlsRequest,
    task: ControlsTask<Device>,
}

/// Patching with its request.
pub struct PatchJob {
    clean: Vec<TokenId>,
    corrupted: Vec<TokenId>,
    request: PatchRequest,
    task: PatchTask<Device>,
}

/// Work on one run whose edits may read others first.
pub struct OnRun<W> {
    ids: Vec<TokenId>,
    donors: Option<Donors<Device>>,
    work: W,
}

/// An attribution.
pub struct DlaWork {
    spec: DlaSpec,
    task: Option<DlaTask<Device>>,
}

/// A logit lens.
pub struct LensWork {
    token: Option<TokenId>,
    task: Option<LensTask<Device>>,
}

/// What a head writes.
pub struct OvWork {
    request: OvRequest,
    pass: Option<Pass<Device>>,
}

impl Engine {
    /// Starts a sweep; everything is checked before any work.
    pub fn start_sweep(&self, request: &SweepRequest) -> Result<SweepJob, Error> {
        let ids = self.prompt_tokens(&request.prompt, request.bos)?.ids;
        let edit = request.spec.edit.clone().try_map_prompts(|prompt| {
            self.prompt_tokens(&prompt, request.bos).map(|tokens| crate::hooks::Prompt::Ids(tokens.ids))
        })?;
        let spec = SweepSpec { edit, ..request.spec.clone() };
        let task = SweepTask::plan(&self.model.config, ids.clone(), spec)?;
        let backend = self.backend.with_precision(request.precision);
        Ok(SweepJob { ids, request: request.clone(), backend, task })
    }

    /// Starts a comparison with random heads.
    pub fn start_controls(&self, request: &ControlsRequest) -> Result<ControlsJob, Error> {
        let ids = self.prompt_tokens(&request.prompt, request.bos)?.ids;
        let interventions = self.resolve(&request.spec.interventions, request.bos)?;
        let spec = ControlsSpec { interventions, ..request.spec.clone() };
        let task = ControlsTask::plan(&self.model.config, ids, spec)?;
        Ok(ControlsJob { request: request.clone(), task })
    }

    /// Starts activation patching.
    pub fn start_patch(&self, request: &PatchRequest) -> Result<PatchJob, Error> {
        let clean = self.prompt_tokens(&request.prompt, request.bos)?.ids;
        let corrupted = self.prompt_tokens(&request.corrupted, request.bos)?.ids;
        let spec = PatchSpec {
            corrupted: corrupted.clone(),
            direction: request.direction,
            metric: request.metric,
            token: request.token,
            versus: request.versus,
        };
        let task = PatchTask::plan(&self.model.config, clean.clone(), spec)?;
        Ok(PatchJob { clean, corrupted, request: request.clone(), task })
    }

    /// Starts direct logit attribution.
    pub fn start_dla(&self, request: &DlaRequest) -> Result<OnRun<DlaWork>, Error> {
        let ids = self.prompt_tokens(&request.prompt, request.bos)?.ids;
        let edits = self.resolve(&request.interventions, request.bos)?;
        self.on_run(ids, edits.into(), DlaWork { spec: request.spec.clone(), task: None })
    }

    /// Starts the logit lens.
    pub fn start_lens(&self, request: &LensRequest) -> Result<OnRun<LensWork>, Error> {
        let ids = self.prompt_tokens(&request.prompt, request.bos)?.ids;
        let edits = self.resolve(&request.interventions, request.bos)?;
        self.on_run(ids, edits.into(), LensWork { token: request.token, task: None })
    }

    /// Starts reading what a head writes.
    pub fn start_ov(&self, request: &OvRequest) -> Result<OnRun<OvWork>, Error> {
        self.check_head(request.head)?;
        let ids = self.prompt_tokens(&request.prompt, request.bos)?.ids;
        let edits = self.resolve(&request.interventions, request.bos)?;
        self.on_run(ids, edits.into(), OvWork { request: request.clone(), pass: None })
    }

    fn on_run<W>(&self, ids: Vec<TokenId>, edits: Edits, work: W) -> Result<OnRun<W>, Error> {
        let donors = Some(Donors::plan(&self.model.config, &ids, edits)?);
        Ok(OnRun { ids, donors, work })
    }

    fn text_of(&self, id: TokenId) -> String {
        self.tokenizer.spelling(id).text
    }
}

impl<W> OnRun<W> {
    /// A layer of the runs that the edits read; the edits once all are made, and nothing from then on.
    async fn edits(&mut self, engine: &Engine) -> Result<Option<Edits>, Error> {
        let Some(donors) = &mut self.donors else { return Ok(None) };
        match donors.step(&engine.backend, &engine.model).await? {
            false => Ok(None),
            true => Ok(self.donors.take().map(Donors::finish)),
        }
    }
}

impl Job for SweepJob {
    type Report = SweepReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        self.task.step(&engine.ground_on(&self.backend)).await.map_err(|error| engine.told(error))
    }

    fn progress(&self) -> (usize, usize) {
        self.task.progress()
    }

    fn partial(&self) -> HeadTable {
        self.task.partial()
    }

    fn go_on_with(&mut self, engine: &Engine) -> bool {
        self.backend = engine.backend.with_precision(self.request.precision);
        self.task.go_on()
    }

    async fn finish(self, engine: &Engine) -> Result<SweepReport, Error> {
        let found = self.task.finish();
        let is_swept = |layer| self.request.spec.layers.as_ref().is_none_or(|layers| layers.contains(&layer));
        let swept = found.effects.iter().enumerate().filter(|(layer, _)| is_swept(*layer));
        check_finite(swept.flat_map(|(_, row)| row).chain([&found.clean]))?;
        Ok(SweepReport {
            ids: self.ids,
            metric: self.request.spec.metric.metric,
            token: found.token,
            versus: found.versus,
            clean: found.clean,
            effects: found.effects,
            provenance: engine.provenance_on(&self.backend),
            request: self.request,
        })
    }
}

impl Job for ControlsJob {
    type Report = ControlsReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        self.task.step(&engine.ground()).await.map_err(|error| engine.told(error))
    }

    fn progress(&self) -> (usize, usize) {
        self.task.progress()
    }

    async fn finish(self, engine: &Engine) -> Result<ControlsReport, Error> {
        let findings = self.task.finish();
        check_finite(findings.random_effects.iter().chain([&findings.effect]))?;
        Ok(ControlsReport { findings, metric: self.request.spec.metric, provenance: engine.provenance() })
    }
}

impl Job for PatchJob {
    type Report = PatchReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        self.task.step(&engine.ground()).await.map_err(|error| engine.told(error))
    }

    fn progress(&self) -> (usize, usize) {
        self.task.progress()
    }

    fn partial(&self) -> HeadTable {
        self.task.partial().resid_pre.clone()
    }

    async fn finish(self, engine: &Engine) -> Result<PatchReport, Error> {
        let findings = self.task.finish();
        check_finite(findings.heads.iter().chain(&findings.resid_pre).flatten())?;
        let texts = |ids: &[TokenId]| ids.iter().map(|&id| engine.text_of(id)).collect();
        Ok(PatchReport {
            tokens: texts(&self.clean),
            corrupted_tokens: texts(&self.corrupted),
            token_text: engine.text_of(findings.token),
            versus_text: engine.text_of(findings.versus),
            findings,
            provenance: engine.provenance(),
            request: self.request,
        })
    }
}

impl Job for OnRun<DlaWork> {
    type Report = DlaReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        if let Some(task) = &mut self.work.task {
            return Ok(task.step(&engine.ground()).await?);
        }
        if let Some(edits) = self.edits(engine).await? {
            let spec = self.work.spec.clone();
            self.work.task = Some(DlaTask::start(&engine.ground(), &self.ids, edits, spec)?);
        }
        Ok(false)
    }

    fn progress(&self) -> (usize, usize) {
        self.work.task.as_ref().map_or((0, 1), DlaTask::progress)
    }

    async fn finish(self, engine: &Engine) -> Result<DlaReport, Error> {
        let parts = self.work.task.expect("the attribution is done").finish();
        check_finite([&parts.logit, &parts.sum_of_parts])?;
        Ok(DlaReport {
            ids: self.ids,
            token_text: engine.text_of(parts.token),
            versus_text: parts.versus.map(|id| engine.text_of(id)),
            parts,
            provenance: engine.provenance(),
        })
    }
}

impl Job for OnRun<LensWork> {
    type Report = LensReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        if let Some(task) = &mut self.work.task {
            return Ok(task.step(&engine.ground()).await?);
        }
        if let Some(edits) = self.edits(engine).await? {
            self.work.task = Some(LensTask::start(&engine.ground(), &self.ids, edits, self.work.token)?);
        }
        Ok(false)
    }

    fn progress(&self) -> (usize, usize) {
        self.work.task.as_ref().map_or((0, 1), LensTask::progress)
    }

    async fn finish(self, engine: &Engine) -> Result<LensReport, Error> {
        let cells = self.work.task.expect("the lens is done").finish();
        check_finite(cells.iter().flatten().map(|cell| &cell.followed_logprob))?;
        let texts = cells.iter().map(|row| row.iter().map(|cell| engine.text_of(cell.id)).collect());
        Ok(LensReport { ids: self.ids, texts: texts.collect(), cells, provenance: engine.provenance() })
    }
}

impl Job for OnRun<OvWork> {
    type Report = OvReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        if let Some(pass) = &mut self.work.pass {
            return Ok(pass.step(&engine.backend, &engine.model));
        }
        if let Some(edits) = self.edits(engine).await? {
            let OvRequest { head, source_pos, .. } = self.work.request;
            self.work.pass = Some(ov::start(&engine.ground(), &self.ids, edits, head, source_pos)?);
        }
        Ok(false)
    }

    fn progress(&self) -> (usize, usize) {
        let n_layers = self.work.pass.as_ref().map_or(0, Pass::n_done);
        (n_layers, n_layers + 1)
    }

    async fn finish(self, engine: &Engine) -> Result<OvReport, Error> {
        let OvRequest { head, source_pos, top, .. } = self.work.request;
        let pass = self.work.pass.expect("the run is done");
        let found = ov::read(&engine.ground(), pass, &self.ids, head, source_pos, top).await?;
        check_finite([&found.own])?;
        let direct = |(id, logit): (TokenId, f32)| TokenDirect { id, token: engine.text_of(id), logit };
        Ok(OvReport {
            head,
            source_pos,
            raised: found.raised.into_iter().map(direct).collect(),
            lowered: found.lowered.into_iter().map(direct).collect(),
            own: direct((self.ids[source_pos], found.own)),
            own_rank: found.own_rank,
            provenance: engine.provenance(),
        })
    }
}

/// A number that is none never becomes a report.
fn check_finite<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> Result<(), Error> {
    match numbers.into_iter().all(|number| number.is_finite()) {
        true => Ok(()),
        false => Err(Error::NotFinite),
    }
}
