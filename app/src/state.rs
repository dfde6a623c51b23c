//! The page's state and its one writer: [`update`] takes a message, changes the state and says what has to be done
//! outside. It does no IO itself, so it is tested natively; `runner` carries out the [`Task`]s.

pub mod detection;
pub mod edits;
pub mod exchange;
pub mod job;
pub mod lab;
pub mod lesson;
pub mod machine;
pub mod settings;
pub mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headlight_core::ids::HeadId;
use headlight_core::report::{BosPolicy, DetectReport, HeadScores, ModelInfo, TokensReport};
use headlight_core::script::Library;

use self::detection::{
    Again, Detection, DetectionStage, DetectorMsg, forget_detections, start_detector, stop_detections,
};
use self::edits::{EditMsg, Edits};
use self::job::JobEvent;
use self::lab::{Lab, LabMsg};
use self::lesson::{Assignment, LessonMsg};
use self::machine::{MachineMsg, Measurement};
use self::settings::Settings;
use self::share::Shared;

use crate::embed::EmbedFlags;
use crate::import::Imported;
use crate::link::{Link, Part};
use crate::models::{FIRST_MODEL, ManifestModel, manifest};
use crate::protocol::{
    BackendChoice, Call, EngineReport, ErrorReport, ModelSource, Progress, View, ViewRequest,
};
use crate::sharing::{self, Machine};
use crate::view_model::colour::Theme;
use crate::view_model::cut_text;
use crate::view_model::lens::{Lens, report_scores};
use crate::view_model::measure::ranking;

/// Next tokens shown.
pub const N_NEXT_TOKENS: usize = 10;
/// Time without a keystroke after which a prompt is run, milliseconds.
pub const TYPING_PAUSE_MS: u32 = 60;
/// The prompt the page opens with: its second sentence repeats the first, which is what induction heads continue.
pub const FIRST_PROMPT: &str = "On Monday Zorbax met Quill Mandrik. On Tuesday Zorbax met Quill";

/// How the engine's worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Not heard from yet.
    Starting,
    /// Listening.
    Ready {
        /// Its version.
        build: String,
    },
    /// Gone, and it cannot be started again.
    Dead,
}

/// A model being loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadingModel {
    /// Which load; replies to older ones are ignored.
    pub load_id: u32,
    /// What is loaded.
    pub source: ModelSource,
    /// As the picker names it.
    pub title: String,
    /// The last report.
    pub progress: Option<Progress>,
}

/// The model that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct CurrentModel {
    /// The manifest's id, or the name of a local file.
    pub id: String,
    /// As the picker names it.
    pub title: String,
    /// What it is.
    pub info: ModelInfo,
    /// What computes it.
    pub engine: EngineReport,
    /// Why it is not in the cache although it should be.
    pub cache_note: Option<String>,
    /// Where it came from, to load it again after a crash.
    pub source: ModelSource,
    /// Whether the worker holds it; not after a crash, until it is loaded again.
    pub is_live: bool,
}

/// What is wrong, as the banner shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What happened.
    pub error: ErrorReport,
    /// What the user can do here and now.
    pub remedy: Option<Remedy>,
}

/// A button in the banner.
#[derive(Clone, Debug, PartialEq)]
pub enum Remedy {
    /// Shorten the prompt to what the model reads.
    CutPrompt {
        /// Tokens that fit.
        n_tokens: usize,
    },
    /// Switch the BOS off.
    BosOff,
    /// Try the load again.
    LoadAgain(ModelSource),
    /// Load what a link names by its address.
    LoadLinked(ModelSource),
}

/// The user's choice of palette.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThemeChoice {
    /// As the system.
    #[default]
    System,
    /// Always this one.
    Fixed(Theme),
}

/// Everything the page shows.
#[derive(Clone, Debug, PartialEq)]
pub struct AppState {
    /// The engine's worker.
    pub worker: WorkerState,
    /// Models that the page knows.
    pub models: Vec<ManifestModel>,
    /// Ids of models in this browser's cache.
    pub cached: BTreeSet<String>,
    /// The model being loaded.
    pub loading: Option<LoadingModel>,
    /// The model that answers.
    pub model: Option<CurrentModel>,
    /// What the user typed.
    pub prompt: String,
    /// BOS policy.
    pub bos: BosPolicy,
    /// The newest answer.
    pub view: Option<Arc<View>>,
    /// What it answers.
    pub viewed: Option<ViewRequest>,
    /// What was asked last.
    pub asked: ViewRequest,
    /// Number of the newest view asked for.
    pub view_id: u32,
    /// Number of the newest load.
    pub load_id: u32,
    /// Whether the newest view asked for has not come yet.
    pub is_running: bool,
    /// Whether the newest view asked for failed, so that `view` shows an older prompt.
    pub is_stale: bool,
    /// What colours the head map.
    pub lens: Lens,
    /// Detectors on the current model, by id.
    pub detections: BTreeMap<&'static str, Detection>,
    /// Scores of other programs.
    pub imports: Vec<Imported>,
    /// Number of the newest detector or experiment.
    pub job_id: u32,
    /// What the user asks of detectors.
    pub settings: Settings,
    /// The head held by a click.
    pub selected: Option<HeadId>,
    /// The head shown while none is held: the strongest of the lens when it was last chosen.
    pub preview: Option<HeadId>,
    /// Whether `preview` was the strongest of anything, or only stands in for one.
    pub is_preview_ranked: bool,
    /// What is changed in the model.
    pub edits: Edits,
    /// Experiments.
    pub lab: Lab,
    /// Two texts whose first tokens are compared; empty for the most probable ones.
    pub compare: [String; 2],
    /// The token held by a click in the inspector.
    pub held_token: Option<usize>,
    /// Parts of the page that are not shown.
    pub hide: BTreeSet<Part>,
    /// What an embedded page is asked to be; none on a page of its own.
    pub embed: Option<EmbedFlags>,
    /// The assignment, if the page is about one.
    pub assignment: Assignment,
    /// Which engine is wished for.
    pub backend: BackendChoice,
    /// Which one the address's query asks for, whatever a link says.
    pub backend_of_query: Option<BackendChoice>,
    /// The link that the page was opened on last.
    pub shared: Option<Shared>,
    /// A link that waits for its model.
    pub opening: Option<Box<Link>>,
    /// What the browser tells of its machine.
    pub machine: Machine,
    /// Workers that share long work; `None` for as many as the machine bears.
    pub n_workers: Option<usize>,
    /// How fast the model runs, once that was measured.
    pub measurement: Option<Measurement>,
    /// What is wrong, if anything.
    pub problem: Option<Problem>,
    /// The user's choice of palette.
    pub theme_choice: ThemeChoice,
    /// The system's palette.
    pub system_theme: Theme,
}

impl Default for AppState {
    fn default() -> Self {
        Self {
            worker: WorkerState::Starting,
            models: manifest(),
            cached: BTreeSet::new(),
            loading: None,
            model: None,
            prompt: FIRST_PROMPT.to_owned(),
            bos: BosPolicy::Auto,
            view: None,
            viewed: None,
            asked: ViewRequest::default(),
            view_id: 0,
            load_id: 0,
            is_running: false,
            is_stale: false,
            lens: Lens::default(),
            detections: BTreeMap::new(),
            imports: Vec::new(),
            machine: Machine::default(),
            n_workers: None,
            measurement: None,
            job_id: 0,
            settings: Settings::default(),
            selected: None,
            preview: None,
            is_preview_ranked: false,
            edits: Edits::default(),
            lab: Lab::default(),
            compare: [String::new(), String::new()],
            held_token: None,
            hide: BTreeSet::new(),
            embed: None,
            assignment: Assignment::default(),
            backend: BackendChoice::default(),
            backend_of_query: None,
            shared: None,
            opening: None,
            problem: None,
            theme_choice: ThemeChoice::System,
            system_theme: Theme::Light,
        }
    }
}

impl AppState {
    /// The head in the inspector: the held one, else the preview.
    pub fn shown_head(&self) -> Option<HeadId> {
        self.selected.or(self.preview)
    }

    /// Whether a part of the page is shown: as an embed's flags say, else as the link does.
    pub fn shows(&self, part: Part) -> bool {
        let flag = self.embed.as_ref().and_then(|flags| flags.parts.get(&part).copied());
        flag.unwrap_or_else(|| !self.hide.contains(&part))
    }

    /// Whether a BOS is put before the prompt.
    pub fn has_bos(&self) -> bool {
        let info = self.model.as_ref().map(|model| &model.info);
        match self.bos {
            BosPolicy::Off => false,
            BosPolicy::On => info.is_some_and(|info| info.bos_id.is_some()),
            BosPolicy::Auto => info.is_some_and(|info| info.adds_bos),
        }
    }

    /// Whether there is nothing to run: no text and no BOS.
    pub fn is_prompt_empty(&self) -> bool {
        self.prompt.is_empty() && !self.has_bos()
    }

    /// Workers that share long work on the current model, and why they are so many.
    pub fn workers(&self) -> Option<(usize, String)> {
        let model = self.model.as_ref()?;
        Some(sharing::workers(self.n_workers, self.machine, &model.info, &model.engine))
    }

    /// The palette in use.
    pub fn theme(&self) -> Theme {
        match self.theme_choice {
            ThemeChoice::System => self.system_theme,
            ThemeChoice::Fixed(theme) => theme,
        }
    }

    /// The newest answer, if it is of the prompt and the edits as they are now.
    pub fn current_view(&self) -> Option<&View> {
        let viewed = self.viewed.as_ref()?;
        let wanted = view_request(self);
        let is_current = ViewRequest { head: viewed.head, ..wanted } == *viewed;
        self.view.as_deref().filter(|_| is_current)
    }

    /// What the head map shows, as far as it is known.
    pub fn lens_scores(&self) -> Option<HeadScores> {
        match self.lens {
            Lens::Prompt(measure) => measure.scores(&self.view.as_ref()?.scores).cloned(),
            Lens::Detector(doc) => match &self.detections.get(doc.id)?.stage {
                DetectionStage::Done(report) => Some(report_scores(report)),
                DetectionStage::Running(Some(progress)) => {
                    let scores = progress.scores.clone().filter(|scores| !scores.is_empty())?;
                    Some(HeadScores { target: doc.id.to_owned(), scores, n_rows: 1 })
                }
                _ => None,
            },
            Lens::Imported(_) => self.scores_of(self.lens),
            Lens::Sweep | Lens::Attribution | Lens::Patching => {
                let (scores, _) = self.experiment_scores()?;
                Some(HeadScores { target: self.lens.key(), scores, n_rows: 1 })
            }
        }
    }

    /// The same without numbers in `fast` precision: what may leave the page.
    pub fn exact_lens_scores(&self) -> Option<HeadScores> {
        let mut scores = self.lens_scores()?;
        for head in self.fast_heads() {
            scores.scores[head.layer][head.head] = f32::NAN;
        }
        Some(scores)
    }

    /// The finished detectors' reports.
    pub fn reports(&self) -> impl Iterator<Item = &DetectReport> {
        self.detections.values().filter_map(|detection| match &detection.stage {
            DetectionStage::Done(report) => Some(report.as_ref()),
            _ => None,
        })
    }

    fn title_of(&self, id: &str) -> String {
        let known = self.models.iter().find(|model| model.source.id == id);
        known.map_or_else(|| id.to_owned(), |model| model.title.clone())
    }

    fn has_head(&self, head: HeadId) -> bool {
        let info = self.model.as_ref().map(|model| &model.info);
        info.is_some_and(|info| head.layer < info.n_layers && head.head < info.n_heads)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Msg {
    /// The worker listens; the first time, or after a restart.
    WorkerReady {
        /// Its version.
        build: String,
    },
    /// The worker crashed and another is starting.
    WorkerCrashed(ErrorReport),
    /// The worker cannot be started.
    WorkerDead(ErrorReport),
    /// The cache was looked at.
    CachedKnown(Vec<String>),
    /// The user chose a model: of the manifest, or a local file by its `blob:` address.
    ChooseModel(ModelSource),
    /// What to compute on was chosen.
    ChooseBackend {
        /// The choice.
        backend: BackendChoice,
        /// Whether the model is loaded there at once.
        reload: bool,
    },
    /// Another engine answers from now on.
    Engine(EngineReport),
    /// Progress of a load.
    LoadProgress {
        /// Which load.
        load_id: u32,
        /// How far.
        progress: Progress,
    },
    /// A load succeeded.
    Loaded {
        /// Which load.
        load_id: u32,
        /// The model.
        info: ModelInfo,
        /// What computes it.
        engine: EngineReport,
        /// Whether it is in the cache now.
        cached: bool,
        /// Why not, if it should be.
        cache_note: Option<String>,
    },
    /// A load failed.
    LoadFailed {
        /// Which load.
        load_id: u32,
        /// Why.
        error: ErrorReport,
    },
    /// The user gave up on the load.
    CancelLoad,
    /// The user deletes a model from the cache.
    DeleteCached(ModelSource),
    /// The prompt changed.
    Typed(String),
    /// The prompt was replaced as a whole, by an example or by a cut.
    SetPrompt(String),
    /// BOS policy.
    SetBos(BosPolicy),
    /// A view came.
    Viewed {
        /// Which.
        view_id: u32,
        /// The view.
        view: Arc<View>,
    },
    /// A view failed.
    ViewFailed {
        /// Which.
        view_id: u32,
        /// Why.
        error: ErrorReport,
    },
    /// Another lens for the map; a detector that has not run yet starts.
    SetLens(Lens),
    /// About the lens' detector.
    Detector(DetectorMsg),
    /// A click on a head: holds it, or releases it if it is held.
    ToggleHead(HeadId),
    /// Releases the held token, else the held head.
    Release,
    /// About what is changed in the model.
    Edit(EditMsg),
    /// About an experiment.
    Lab(LabMsg),
    /// The worker says something of a detector or an experiment.
    Job {
        /// Which.
        job_id: u32,
        /// What.
        event: JobEvent,
    },
    /// A file with scores of heads.
    Import {
        /// Its name.
        file: String,
        /// What is in it.
        text: String,
    },
    /// The user wants the view as Python.
    Script(Library),
    /// A text whose first token is compared, the first or the second.
    SetCompare(usize, String),
    /// A click on a token of the inspector: holds it, or releases it.
    ToggleToken(usize),
    /// The user takes the banner's offer.
    Remedy(Remedy),
    /// The prompt's tokens, asked for in order to cut it.
    TokensForCut {
        /// The prompt's tokens.
        report: TokensReport,
        /// How many to keep.
        n_tokens: usize,
    },
    /// A link was opened, or the browser went back or forward to one.
    Open(Box<Link>),
    /// The note about the opened link is closed.
    DismissShared,
    /// Something of the assignment.
    Lesson(LessonMsg),
    /// About a measurement of this machine.
    Machine(MachineMsg),
    /// Something else failed.
    Failed(ErrorReport),
    /// The banner is closed.
    Dismiss,
    /// The user's palette.
    SetTheme(ThemeChoice),
    /// The system's palette.
    SystemTheme(Theme),
}

/// What has to be done outside the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Ask for a view after a pause; a newer view replaces it.
    View {
        /// Number to report back.
        view_id: u32,
        /// What to show.
        request: ViewRequest,
        /// Pause before it is sent, milliseconds.
        delay_ms: u32,
    },
    /// Drop whatever view is pending.
    CancelView,
    /// Load a model.
    Load {
        /// Number to report back.
        load_id: u32,
        /// Which.
        source: ModelSource,
        /// What to compute on.
        backend: BackendChoice,
    },
    /// Stop loading.
    CancelLoad,
    /// Look into the cache.
    LookIntoCache(Vec<ModelSource>),
    /// Delete from the cache, then look again.
    DeleteCached(ModelSource),
    /// Tokenise the prompt in order to cut it.
    TokensForCut {
        /// The prompt.
        text: String,
        /// BOS policy.
        bos: BosPolicy,
        /// How many tokens to keep.
        n_tokens: usize,
    },
    /// Begin a long request: a detector or an experiment.
    StartJob {
        /// Number to report back.
        job_id: u32,
        /// What is asked.
        call: Box<Call>,
    },
    /// Stop it.
    StopJob(u32),
    /// Hold it until it is resumed or stopped.
    PauseJob(u32),
    /// Let it go on.
    ResumeJob(u32),
    /// Ask for a script and save it.
    Script {
        /// For which library.
        library: Library,
        /// What is asked.
        call: Box<Call>,
    },
    /// Time the model at these prompt lengths.
    Measure {
        /// Tokens.
        prefill: Vec<usize>,
    },
    /// Remember the palette.
    KeepTheme(ThemeChoice),
    /// Share long work among so many workers from now on, and remember that.
    KeepWorkers(Option<usize>),
}

/// The one writer: changes the state and returns what has to be done outside.
pub fn update(state: &mut AppState, msg: Msg) -> Vec<Task> {
    if state.is_refused(&msg) {
        return Vec::new();
    }
    match msg {
        Msg::WorkerReady { build } => worker_ready(state, build),
        Msg::WorkerCrashed(error) => worker_crashed(state, error),
        Msg::WorkerDead(error) => {
            state.worker = WorkerState::Dead;
            fail(state, error)
        }
        Msg::CachedKnown(ids) => {
            state.cached = ids.into_iter().collect();
            Vec::new()
        }
        Msg::ChooseModel(source) => {
            // A file of the user's may be the one that a link waits for; a model of the list says that it is not.
            state.opening.take_if(|link| {
                link.model.id != source.id && state.models.iter().any(|known| known.source == source)
            });
            load(state, source)
        }
        Msg::ChooseBackend { backend, reload } => {
            state.backend = backend;
            // Whoever chooses on the page means the links that follow too.
            state.backend_of_query = None;
            let live = state.model.as_ref().filter(|model| reload && model.is_live);
            live.map(|model| model.source.clone()).map_or_else(Vec::new, |source| load(state, source))
        }
        Msg::Engine(engine) => {
            if let Some(model) = &mut state.model {
                model.engine = engine;
            }
            Vec::new()
        }
        Msg::LoadProgress { load_id, progress } => {
            if let Some(loading) = state.loading.as_mut().filter(|loading| loading.load_id == load_id) {
                loading.progress = Some(progress);
            }
            Vec::new()
        }
        Msg::Loaded { load_id, info, engine, cached, cache_note } => {
            loaded(state, load_id, info, engine, cached, cache_note)
        }
        Msg::LoadFailed { load_id, error } => load_failed(state, load_id, error),
        Msg::CancelLoad => state.loading.take().map_or_else(Vec::new, |_| {
            let mut tasks = vec![Task::CancelLoad];
            tasks.extend(run(state, 0));
            tasks
        }),
        Msg::DeleteCached(source) => vec![Task::DeleteCached(source)],
        Msg::Typed(text) => set_prompt(state, text, TYPING_PAUSE_MS),
        Msg::SetPrompt(text) => set_prompt(state, text, 0),
        Msg::SetBos(bos) => {
            state.bos = bos;
            state.held_token = None;
            // Generated sequences follow the BOS switch: other scores, and no mixing of the two.
            let mut tasks = forget_detections(state);
            tasks.extend(run(state, 0));
            tasks.extend(start_detector(state, Again::No));
            tasks
        }
        Msg::Viewed { view_id, view } => viewed(state, view_id, view),
        Msg::ViewFailed { view_id, error } => view_failed(state, view_id, error),
        Msg::SetLens(lens) => {
            state.lens = lens;
            let tasks = start_detector(state, Again::No);
            preview_strongest(state);
            let follow = lab::follow(state);
            tasks.into_iter().chain(follow).chain(run_for_pattern(state)).collect()
        }
        Msg::Detector(msg) => detection::update(state, msg),
        Msg::ToggleHead(head) => {
            state.assignment.take_head(head);
            state.selected = (state.selected != Some(head) && state.has_head(head)).then_some(head);
            run_for_pattern(state)
        }
        Msg::Release => release(state),
        Msg::Edit(msg) => edits::update(state, msg),
        Msg::Lab(msg) => lab::update(state, msg),
        Msg::Job { job_id, event } => {
            let is_detector = state.detections.values().any(|detection| detection.detect_id == job_id);
            if is_detector { detection::take(state, job_id, event) } else { lab::take(state, job_id, event) }
        }
        Msg::Import { file, text } => exchange::import(state, &file, &text),
        Msg::Script(library) => exchange::script(state, library),
        Msg::SetCompare(index, text) => {
            state.compare[index] = text;
            run(state, TYPING_PAUSE_MS)
        }
        Msg::ToggleToken(position) => {
            state.held_token = (state.held_token != Some(position)).then_some(position);
            lab::follow(state)
        }
        Msg::Remedy(remedy) => take_remedy(state, remedy),
        Msg::TokensForCut { report, n_tokens } => set_prompt(state, cut_text(&report, n_tokens), 0),
        Msg::Open(link) => share::open(state, *link),
        Msg::DismissShared => {
            state.shared = None;
            Vec::new()
        }
        Msg::Lesson(msg) => {
            lesson::update(&mut state.assignment, msg);
            Vec::new()
        }
        Msg::Machine(msg) => machine::update(state, msg),
        Msg::Failed(error) => fail(state, error),
        Msg::Dismiss => {
            state.problem = None;
            Vec::new()
        }
        Msg::SetTheme(choice) => {
            state.theme_choice = choice;
            vec![Task::KeepTheme(choice)]
        }
        Msg::SystemTheme(theme) => {
            state.system_theme = theme;
            Vec::new()
        }
    }
}

fn worker_ready(state: &mut AppState, build: String) -> Vec<Task> {
    state.worker = WorkerState::Ready { build };
    let sources = state.models.iter().map(|model| model.source.clone()).collect();
    let mut tasks = vec![Task::LookIntoCache(sources)];
    // After a crash the model that was there comes back; at the start, the link's or the bundled one opens.
    let again = state.model.as_ref().map(|model| model.source.clone());
    let wanted = state.opening.as_ref().map(|link| link.model.clone());
    let problem = state.problem.take();
    match (again, wanted) {
        (Some(source), _) => tasks.extend(load(state, source)),
        (None, Some(wanted)) => tasks.extend(share::load_linked(state, &wanted)),
        (None, None) => tasks.extend(load_first(state)),
    }
    state.problem = problem.or(state.problem.take());
    tasks
}

/// Loads the model on which the page opens.
fn load_first(state: &mut AppState) -> Vec<Task> {
    let first = state.models.iter().find(|model| model.source.id == FIRST_MODEL);
    let source = first.map(|model| model.source.clone());
    source.map_or_else(Vec::new, |source| load(state, source))
}

fn worker_crashed(state: &mut AppState, error: ErrorReport) -> Vec<Task> {
    state.worker = WorkerState::Starting;
    state.loading = None;
    state.is_running = false;
    if let Some(model) = &mut state.model {
        model.is_live = false;
    }
    fail(state, error)
}

fn load(state: &mut AppState, source: ModelSource) -> Vec<Task> {
    state.load_id += 1;
    state.problem = None;
    // A detector at work would keep the old model in memory beside the new one.
    let mut stops = stop_detections(state);
    stops.extend(lab::stop_all(state));
    let (load_id, title) = (state.load_id, state.title_of(&source.id));
    state.loading = Some(LoadingModel { load_id, source: source.clone(), title, progress: None });
    stops.into_iter().chain([Task::Load { load_id, source, backend: state.backend }]).collect()
}

fn loaded(
    state: &mut AppState,
    load_id: u32,
    info: ModelInfo,
    engine: EngineReport,
    cached: bool,
    cache_note: Option<String>,
) -> Vec<Task> {
    let Some(loading) = state.loading.take_if(|loading| loading.load_id == load_id) else {
        return Vec::new();
    };
    let is_same = state.model.as_ref().is_some_and(|model| model.info.sha256 == info.sha256);
    if let Some(message) = engine.doubt.clone() {
        let error = ErrorReport { code: "self_test".to_owned(), message, recoverable: true, detail: None };
        state.problem = Some(Problem { error, remedy: None });
    }
    if cached {
        state.cached.insert(loading.source.id.clone());
    }
    state.model = Some(CurrentModel {
        id: loading.source.id.clone(),
        title: loading.title,
        info,
        engine,
        cache_note,
        source: loading.source,
        is_live: true,
    });
    if !is_same {
        state.view = None;
        state.selected = None;
        state.preview = None;
        state.edits = Edits::default();
        state.lab.jobs.clear();
        state.held_token = None;
        state.detections.clear();
        exchange::forget_imports(state);
        // Ids of another vocabulary.
        state.settings.custom.cells.clear();
    }
    // Of another model, or another engine.
    state.measurement = None;
    share::model_came(state);
    if state.bos == BosPolicy::On && state.model.as_ref().is_some_and(|model| model.info.bos_id.is_none()) {
        state.bos = BosPolicy::Auto;
    }
    let mut tasks = run(state, 0);
    tasks.extend(start_detector(state, Again::No));
    tasks
}

fn load_failed(state: &mut AppState, load_id: u32, error: ErrorReport) -> Vec<Task> {
    let Some(loading) = state.loading.take_if(|loading| loading.load_id == load_id) else {
        return Vec::new();
    };
    if error.code != "cancelled" && error.code != "crashed" {
        state.problem = Some(Problem { error, remedy: Some(Remedy::LoadAgain(loading.source)) });
    }
    // Tells whether the model that was there still is.
    run(state, 0)
}

fn set_prompt(state: &mut AppState, text: String, delay_ms: u32) -> Vec<Task> {
    state.prompt = text;
    state.held_token = None;
    run(state, delay_ms)
}

/// Asks for the view of the state as it is now.
fn run(state: &mut AppState, delay_ms: u32) -> Vec<Task> {
    state.view_id += 1;
    let can_run = state.model.as_ref().is_some_and(|model| model.is_live) && !state.is_prompt_empty();
    state.is_running = can_run;
    if !can_run {
        if state.is_prompt_empty() {
            state.view = None;
            state.is_stale = false;
            forget_prompt_problem(state);
        }
        return vec![Task::CancelView];
    }
    state.asked = view_request(state);
    vec![Task::View { view_id: state.view_id, request: state.asked.clone(), delay_ms }]
}

/// The view of the state as it is now.
fn view_request(state: &AppState) -> ViewRequest {
    ViewRequest {
        text: state.prompt.clone(),
        bos: state.bos,
        top: N_NEXT_TOKENS,
        edits: state.edits.list.clone(),
        head: state.shown_head(),
        compare: state.compare.clone(),
    }
}

/// Runs again only if the pattern of the shown head is not there.
fn run_for_pattern(state: &mut AppState) -> Vec<Task> {
    let there = state.view.as_ref().and_then(|view| view.pattern.as_ref()).map(|pattern| pattern.head);
    match state.shown_head() {
        Some(head) if there != Some(head) => run(state, 0),
        _ => Vec::new(),
    }
}

fn viewed(state: &mut AppState, view_id: u32, view: Arc<View>) -> Vec<Task> {
    if view_id != state.view_id {
        return Vec::new();
    }
    state.is_running = false;
    state.is_stale = false;
    state.settings.custom.follow(&view.tokens.ids);
    state.view = Some(view);
    state.viewed = Some(state.asked.clone());
    forget_prompt_problem(state);
    // A detector that reads the prompt may have waited for its tokens.
    let is_waiting = state.lens_detection().is_none();
    let detector = if is_waiting { start_detector(state, Again::No) } else { Vec::new() };
    if state.preview.is_none() || !state.is_preview_ranked {
        preview_strongest(state);
    }
    let follow = lab::follow(state);
    detector.into_iter().chain(follow).chain(run_for_pattern(state)).collect()
}

/// A run that worked disproves what the banner said of an earlier prompt.
fn forget_prompt_problem(state: &mut AppState) {
    const OF_PROMPT: [&str; 6] =
        ["prompt_too_long", "empty_prompt", "bad_prompt", "no_bos", "unknown_head", "bad_request"];
    let is_stale = |problem: &Problem| OF_PROMPT.contains(&problem.error.code.as_str());
    if state.problem.as_ref().is_some_and(is_stale) {
        state.problem = None;
    }
}

fn preview_strongest(state: &mut AppState) {
    let scores = state.lens_scores();
    if let Some((head, _)) = scores.and_then(|scores| ranking(&scores).into_iter().next()) {
        state.preview = Some(head);
        state.is_preview_ranked = true;
    } else if state.preview.is_none() && state.model.is_some() {
        state.preview = Some(HeadId::new(0, 0));
        state.is_preview_ranked = false;
    }
}

fn view_failed(state: &mut AppState, view_id: u32, error: ErrorReport) -> Vec<Task> {
    if view_id != state.view_id {
        return Vec::new();
    }
    state.is_running = false;
    match error.code.as_str() {
        "cancelled" | "crashed" => Vec::new(),
        "no_model" => model_gone(state),
        "empty_prompt" => {
            state.view = None;
            Vec::new()
        }
        _ => {
            state.is_stale = true;
            fail(state, error)
        }
    }
}

/// A large model makes room for the next one before that is ready; if the next one failed, the old one comes back.
fn model_gone(state: &mut AppState) -> Vec<Task> {
    let again = state.model.as_ref().filter(|_| state.loading.is_none()).map(|model| model.source.clone());
    let problem = state.problem.take();
    let tasks = again.map_or_else(Vec::new, |source| load(state, source));
    state.problem = problem;
    tasks
}

fn fail(state: &mut AppState, error: ErrorReport) -> Vec<Task> {
    let n_ctx = state.model.as_ref().map(|model| model.info.n_ctx);
    let remedy = match (error.code.as_str(), n_ctx) {
        ("prompt_too_long", Some(n_tokens)) => Some(Remedy::CutPrompt { n_tokens }),
        ("no_bos", _) => Some(Remedy::BosOff),
        _ => None,
    };
    state.problem = Some(Problem { error, remedy });
    Vec::new()
}

fn release(state: &mut AppState) -> Vec<Task> {
    if state.held_token.take().is_some() {
        return Vec::new();
    }
    state.selected = None;
    run_for_pattern(state)
}

fn take_remedy(state: &mut AppState, remedy: Remedy) -> Vec<Task> {
    match remedy {
        Remedy::CutPrompt { n_tokens } => {
            vec![Task::TokensForCut { text: state.prompt.clone(), bos: state.bos, n_tokens }]
        }
        Remedy::BosOff => update(state, Msg::SetBos(BosPolicy::Off)),
        Remedy::LoadAgain(source) | Remedy::LoadLinked(source) => load(state, source),
    }
}

#[cfg(test)]
pub(crate) mod tests;
