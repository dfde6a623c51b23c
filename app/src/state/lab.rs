//! The experiments' part of the state: sweeps, attribution, lens, patching, controls, continuations. Each is one request to the
//! worker that follows from the state; a result counts only while the state would ask the same again.

use std::collections::{BTreeMap, BTreeSet};

use headlight_core::ablate::controls::ControlsSpec;
use headlight_core::ablate::dla::DlaSpec;
use headlight_core::ablate::patching::Direction;
use headlight_core::ablate::sweep::{SweepSpec, Targets};
use headlight_core::ablate::{Metric, MetricSpec};
use headlight_core::backend::Precision;
use headlight_core::hooks::Edit;
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::report::{
    ControlsRequest, DlaRequest, GenerateRequest, LensRequest, OvRequest, PatchRequest, Prompt, SweepRequest,
};
use serde::{Deserialize, Serialize};

use super::edits::HeadSet;
use super::job::{JobEvent, JobStage};
use super::{AppState, Task, preview_strongest, run_for_pattern};
use crate::protocol::{Call, EditWhere, Reply};
use crate::sharing::lay_over;
use crate::view_model::lens::Lens;

/// Models up to this size answer a sweep at once, so that one follows every change by itself.
const MAX_LIVE_PARAMS: usize = 20_000_000;
/// Tokens of a continuation.
pub const N_CONTINUED: usize = 24;

/// One experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Experiment {
    /// Every head edited in turn.
    Sweep,
    /// Every MLP edited in turn.
    MlpSweep,
    /// Every named set of heads edited in turn.
    SetSweep,
    /// Direct logit attribution.
    Dla,
    /// The logit lens.
    LogitLens,
    /// What the shown head writes for the held token.
    Ov,
    /// Activation patching.
    Patch,
    /// The edited heads against random ones.
    Controls,
    /// The clean model's continuation.
    CleanText,
    /// The edited model's continuation.
    EditedText,
    /// What the edits do along the prompt.
    Effect,
}

/// An experiment at work or done.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Which run; replies to older ones are ignored.
    pub job_id: u32,
    /// What was asked.
    pub call: Call,
    /// Whether the user holds it.
    pub is_paused: bool,
    /// How far it is.
    pub stage: JobStage<Reply>,
}

/// What the user asks of experiments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default, deny_unknown_fields)]
pub struct LabSettings {
    /// What a sweep does to each head.
    pub sweep_edit: Edit,
    /// Where it does so.
    pub sweep_where: EditWhere,
    /// In what it is measured.
    pub metric: Metric,
    /// Whether a loss is that of repeated tokens alone.
    pub is_repeated_only: bool,
    /// Whether attribution is of the difference of the two compared tokens.
    pub is_difference: bool,
    /// The corrupted prompt of patching.
    pub corrupted: String,
    /// Which run is put into which.
    pub direction: Direction,
    /// Softmax temperature of continuations; 0 is greedy.
    pub temperature: f32,
    /// Seed of continuations and of random heads.
    pub seed: u64,
}

impl Default for LabSettings {
    fn default() -> Self {
        Self {
            sweep_edit: Edit::Zero {},
            sweep_where: EditWhere::default(),
            metric: Metric::default(),
            is_repeated_only: false,
            is_difference: false,
            corrupted: String::new(),
            direction: Direction::default(),
            temperature: 0.0,
            seed: 0,
        }
    }
}

/// What a sweep of named sets found of one.
#[derive(Clone, Debug, PartialEq)]
pub struct SetEffect {
    /// The set.
    pub set: HeadSet,
    /// Edited minus clean, all its heads edited at once.
    pub together: f32,
    /// The sum of its heads' own effects.
    pub one_by_one: Option<f32>,
}

/// What `fast` precision does on this machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FastOffer {
    /// How many times as quick as exact f32.
    pub speedup: f64,
    /// The largest difference of a logit from exact f32 that was seen.
    pub max_difference: f32,
}

/// Experiments and what is asked of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lab {
    /// What the user asks.
    pub settings: LabSettings,
    /// Whether sweeps show exact numbers alone, though others would be there sooner.
    pub is_exact_only: bool,
    /// Experiments that were asked.
    pub jobs: BTreeMap<Experiment, Job>,
}

/// What happened to an experiment.
#[derive(Clone, Debug, PartialEq)]
pub enum LabMsg {
    /// Run it (again).
    Start(Experiment),
    /// Stop it.
    Stop(Experiment),
    /// Hold it.
    Pause(Experiment),
    /// Let it go on.
    Resume(Experiment),
    /// Other settings.
    Set(LabSettings),
    /// Whether sweeps are to show exact numbers alone.
    ExactOnly(bool),
}

/// Positions whose token follows a pair that was there before: what an induction head can foretell.
pub fn repeated_positions(ids: &[TokenId]) -> Vec<usize> {
    let pair = |position: usize| [ids[position - 1], ids[position]];
    let is_repeated = |&position: &usize| (1..position).any(|earlier| pair(earlier) == pair(position));
    (1..ids.len()).filter(is_repeated).collect()
}

impl AppState {
    /// An experiment's answer, if it is what would be asked now.
    pub fn found(&self, experiment: Experiment) -> Option<&Reply> {
        let job = self.lab.jobs.get(&experiment)?;
        match &job.stage {
            JobStage::Done(reply) if self.wanted_call(experiment).as_ref() == Some(&job.call) => Some(reply),
            _ => None,
        }
    }

    /// An experiment that is at work on what would be asked now.
    pub fn at_work(&self, experiment: Experiment) -> Option<&Job> {
        let job = self.lab.jobs.get(&experiment)?;
        let is_wanted = self.wanted_call(experiment).as_ref() == Some(&job.call);
        (is_wanted && job.stage.is_at_work()).then_some(job)
    }

    /// Numbers of the lens' experiment as far as they are known, with those of the MLPs beside them.
    pub fn experiment_scores(&self) -> Option<(Vec<Vec<f32>>, Vec<f32>)> {
        let experiment = self.lens.experiment()?;
        if let Some(job) = self.at_work(experiment) {
            // Of patching, progress tells of positions, which the map does not show.
            let JobStage::Running(Some(progress)) = &job.stage else { return None };
            if experiment != Experiment::Sweep {
                return None;
            }
            let mut shown = Vec::new();
            let tables = [&progress.preview, &progress.scores].into_iter().flatten();
            tables.for_each(|table| lay_over(&mut shown, table));
            return Some((shown, Vec::new())).filter(|(shown, _)| !shown.is_empty());
        }
        match self.found(experiment)? {
            Reply::Sweep(report) => {
                let mlps = match self.found(Experiment::MlpSweep) {
                    Some(Reply::Sweep(mlps)) => mlps.effects.concat(),
                    _ => Vec::new(),
                };
                Some((report.effects.clone(), mlps))
            }
            Reply::Dla(report) => Some((report.parts.heads.clone(), report.parts.mlps.clone())),
            Reply::Patch(report) => Some((report.findings.heads.clone(), Vec::new())),
            _ => None,
        }
    }

    /// Heads whose number is in `fast` precision for now.
    pub fn fast_heads(&self) -> BTreeSet<HeadId> {
        let job = self.lens.experiment().and_then(|experiment| self.at_work(experiment));
        let Some(JobStage::Running(Some(progress))) = job.map(|job| &job.stage) else {
            return BTreeSet::new();
        };
        let is_exact = |head: HeadId| {
            let exact = progress.scores.as_ref().and_then(|scores| scores.get(head.layer)?.get(head.head));
            exact.is_some_and(|score| !score.is_nan())
        };
        let previewed = progress.preview.iter().flatten().enumerate().flat_map(|(layer, row)| {
            let known = row.iter().enumerate().filter(|(_, score)| !score.is_nan());
            known.map(move |(head, _)| HeadId::new(layer, head))
        });
        previewed.filter(|head| !is_exact(*head)).collect()
    }

    /// What `fast` precision does on this machine, where a sweep could show its numbers first.
    pub fn fast_offer(&self) -> Option<FastOffer> {
        let engine = &self.model.as_ref()?.engine;
        let timings = engine.timings.filter(|_| !engine.is_gpu)?;
        let max_difference = timings.fast?.max_difference;
        Some(FastOffer { speedup: timings.fast_speedup()?, max_difference })
    }

    /// What would be asked of an experiment now; `None` while something is missing.
    pub fn wanted_call(&self, experiment: Experiment) -> Option<Call> {
        let view = self.current_view()?;
        let (prompt, bos) = (Prompt::Text(self.prompt.clone()), self.bos);
        let [token, versus] = &view.comparison.clean;
        let n_tokens = view.tokens.ids.len();
        let (interventions, settings) = (self.edits.resolved(n_tokens), &self.lab.settings);
        Some(match experiment {
            Experiment::Sweep | Experiment::MlpSweep | Experiment::SetSweep => {
                let targets = match experiment {
                    Experiment::Sweep => Targets::Heads,
                    Experiment::MlpSweep => Targets::Mlps,
                    _ => Targets::Sets(self.swept_sets()?.into_iter().map(|set| set.heads).collect()),
                };
                if targets == Targets::Mlps && settings.sweep_edit.is_of_attention() {
                    return None;
                }
                let edit_positions = settings.sweep_where.positions(n_tokens);
                let (edit, metric) = (settings.sweep_edit.clone(), self.metric_spec()?);
                let spec = SweepSpec { edit, edit_positions, targets, layers: None, metric };
                Call::Sweep(SweepRequest { prompt, bos, precision: Precision::Exact, spec })
            }
            Experiment::Dla => {
                let versus = settings.is_difference.then_some(versus.id);
                let spec = DlaSpec { token: Some(token.id), versus, position: None };
                Call::Dla(DlaRequest { prompt, bos, interventions, spec })
            }
            Experiment::LogitLens => Call::Lens(LensRequest { prompt, bos, interventions, token: None }),
            Experiment::Ov => {
                let (head, source_pos) = (self.shown_head()?, self.held_token?);
                Call::Ov(OvRequest { prompt, bos, interventions, head, source_pos, top: 8 })
            }
            Experiment::Patch => {
                if settings.corrupted.is_empty() {
                    return None;
                }
                Call::Patch(PatchRequest {
                    prompt,
                    bos,
                    corrupted: Prompt::Text(settings.corrupted.clone()),
                    direction: settings.direction,
                    metric: Metric::LogitDiff,
                    token: None,
                    versus: None,
                })
            }
            Experiment::Controls => {
                if self.edits.heads().is_empty() {
                    return None;
                }
                let metric = MetricSpec { token: Some(token.id), ..MetricSpec::default() };
                let spec = ControlsSpec { interventions, n_draws: 10, seed: settings.seed, metric };
                Call::Controls(ControlsRequest { prompt, bos, spec })
            }
            Experiment::CleanText | Experiment::EditedText => Call::Generate(GenerateRequest {
                prompt,
                bos,
                interventions: if experiment == Experiment::CleanText { Vec::new() } else { interventions },
                max_new_tokens: N_CONTINUED,
                temperature: settings.temperature,
                seed: settings.seed,
                stop_ids: Vec::new(),
            }),
            Experiment::Effect => {
                if interventions.is_empty() {
                    return None;
                }
                Call::Effect(super::view_request(self))
            }
        })
    }

    /// Named sets whose heads the model has; `None` without any.
    pub fn swept_sets(&self) -> Option<Vec<HeadSet>> {
        let is_there = |set: &&HeadSet| set.heads.iter().all(|&head| self.has_head(head));
        let sets: Vec<HeadSet> = self.edits.sets.iter().filter(is_there).cloned().collect();
        (!sets.is_empty()).then_some(sets)
    }

    /// What the sweep of named sets found: each set, its effect, and the sum of what its heads do one by one where every head
    /// was swept too.
    pub fn set_effects(&self) -> Option<Vec<SetEffect>> {
        let Reply::Sweep(report) = self.found(Experiment::SetSweep)? else { return None };
        let alone = match self.found(Experiment::Sweep) {
            Some(Reply::Sweep(heads)) => Some(&heads.effects),
            _ => None,
        };
        let effects = report.effects.first()?.iter();
        let row = |(set, &together): (HeadSet, &f32)| {
            let one_by_one =
                alone.map(|alone| set.heads.iter().map(|head| alone[head.layer][head.head]).sum());
            SetEffect { set, together, one_by_one }
        };
        Some(self.swept_sets()?.into_iter().zip(effects).map(row).collect())
    }

    /// The metric of sweeps on this prompt; `None` where it has nothing to be measured on.
    fn metric_spec(&self) -> Option<MetricSpec> {
        let view = self.view.as_ref()?;
        let settings = &self.lab.settings;
        let [token, versus] = &view.comparison.clean;
        let spec = MetricSpec { metric: settings.metric, ..MetricSpec::default() };
        Some(match settings.metric {
            Metric::Logprob | Metric::Logit => MetricSpec { token: Some(token.id), ..spec },
            Metric::LogitDiff => MetricSpec { token: Some(token.id), versus: Some(versus.id), ..spec },
            Metric::Kl => spec,
            Metric::Loss => {
                let repeated = || repeated_positions(&view.tokens.ids);
                let positions = settings.is_repeated_only.then(repeated);
                if view.tokens.ids.len() < 2 || positions.as_ref().is_some_and(Vec::is_empty) {
                    return None;
                }
                MetricSpec { positions, ..spec }
            }
        })
    }

    /// Whether experiments follow every change by themselves.
    fn is_live_model(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.is_live && model.info.n_params <= MAX_LIVE_PARAMS)
    }
}

/// Changes the experiments' part of the state and says what follows.
pub(super) fn update(state: &mut AppState, msg: LabMsg) -> Vec<Task> {
    match msg {
        LabMsg::Start(experiment) => start(state, experiment),
        LabMsg::Stop(experiment) => {
            let job = state.at_work(experiment).map(|job| job.job_id);
            job.map(Task::StopJob).into_iter().collect()
        }
        LabMsg::Pause(experiment) => hold(state, experiment, true),
        LabMsg::Resume(experiment) => hold(state, experiment, false),
        LabMsg::ExactOnly(is_exact_only) => {
            state.lab.is_exact_only = is_exact_only;
            Vec::new()
        }
        LabMsg::Set(settings) => {
            state.lab.settings = settings;
            follow(state)
        }
    }
}

fn hold(state: &mut AppState, experiment: Experiment, is_paused: bool) -> Vec<Task> {
    let job = state.lab.jobs.get_mut(&experiment);
    let running = job.filter(|job| job.stage.is_at_work() && job.is_paused != is_paused);
    let Some(job) = running else { return Vec::new() };
    job.is_paused = is_paused;
    vec![if is_paused { Task::PauseJob(job.job_id) } else { Task::ResumeJob(job.job_id) }]
}

/// Starts an experiment, unless it is at work on just that; one at work on something else is stopped.
pub(super) fn start(state: &mut AppState, experiment: Experiment) -> Vec<Task> {
    let is_live = state.model.as_ref().is_some_and(|model| model.is_live);
    let Some(call) = state.wanted_call(experiment).filter(|_| is_live) else { return Vec::new() };
    let known = state.lab.jobs.get(&experiment).filter(|job| job.stage.is_at_work());
    if known.is_some_and(|job| job.call == call) {
        return Vec::new();
    }
    let older = known.map(|job| Task::StopJob(job.job_id));
    state.job_id += 1;
    let job_id = state.job_id;
    let stage = JobStage::Running(None);
    state.lab.jobs.insert(experiment, Job { job_id, call: call.clone(), is_paused: false, stage });
    older.into_iter().chain([Task::StartJob { job_id, call: Box::new(call) }]).collect()
}

/// Starts what follows the state by itself: the edits' effect, and on a small model the lens' experiment; on a large one
/// attribution alone. Stops what is at work on an earlier state.
pub(super) fn follow(state: &mut AppState) -> Vec<Task> {
    let mut tasks = stop_outdated(state);
    let mut wanted = vec![Experiment::Effect];
    match state.lens.experiment() {
        Some(Experiment::Dla) => wanted.push(Experiment::Dla),
        Some(Experiment::Sweep) if state.is_live_model() => {
            wanted.extend([Experiment::Sweep, Experiment::SetSweep]);
        }
        Some(experiment) if state.is_live_model() => wanted.push(experiment),
        _ => {}
    }
    if state.held_token.is_some() {
        wanted.push(Experiment::Ov);
    }
    for experiment in wanted {
        let is_known = state.lab.jobs.get(&experiment).is_some_and(|job| {
            let is_tried = !matches!(job.stage, JobStage::Stopped);
            is_tried && state.wanted_call(experiment).as_ref() == Some(&job.call)
        });
        if !is_known {
            tasks.extend(start(state, experiment));
        }
    }
    tasks
}

/// Stops experiments whose question is no longer asked.
pub(super) fn stop_outdated(state: &AppState) -> Vec<Task> {
    let at_work = state.lab.jobs.iter().filter(|(_, job)| job.stage.is_at_work());
    let outdated =
        at_work.filter(|(experiment, job)| state.wanted_call(**experiment).as_ref() != Some(&job.call));
    outdated.map(|(_, job)| Task::StopJob(job.job_id)).collect()
}

/// Takes in what the worker says of an experiment.
pub(super) fn take(state: &mut AppState, job_id: u32, event: JobEvent) -> Vec<Task> {
    let found = state.lab.jobs.iter_mut().find(|(_, job)| job.job_id == job_id);
    let Some((&experiment, job)) = found else { return Vec::new() };
    match event {
        JobEvent::Progress(progress) => job.stage = JobStage::Running(Some(progress)),
        JobEvent::Failed(error) => job.stage = JobStage::after(error),
        JobEvent::Done(reply) => {
            job.stage = JobStage::Done(reply);
            let has_mlp = state.model.as_ref().is_some_and(|model| model.info.d_mlp > 0);
            if experiment == Experiment::Sweep {
                let mut tasks = if has_mlp { start(state, Experiment::MlpSweep) } else { Vec::new() };
                if state.found(Experiment::SetSweep).is_none() {
                    tasks.extend(start(state, Experiment::SetSweep));
                }
                return tasks;
            }
            if state.lens.experiment() == Some(experiment) {
                preview_strongest(state);
                return run_for_pattern(state);
            }
        }
    }
    Vec::new()
}

/// Stops every experiment at work.
pub(super) fn stop_all(state: &AppState) -> Vec<Task> {
    let at_work = state.lab.jobs.values().filter(|job| job.stage.is_at_work());
    at_work.map(|job| Task::StopJob(job.job_id)).collect()
}

impl Lens {
    /// The experiment that this lens shows, if it shows one.
    pub fn experiment(self) -> Option<Experiment> {
        match self {
            Self::Sweep => Some(Experiment::Sweep),
            Self::Attribution => Some(Experiment::Dla),
            Self::Patching => Some(Experiment::Patch),
            Self::Prompt(_) | Self::Detector(_) | Self::Imported(_) => None,
        }
    }
}
