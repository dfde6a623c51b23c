//! Views that come from links and go into them: what of the state a link holds, how opening one changes the state, and
//! whether this browser computes what the sender saw.

use headlight_core::ids::HeadId;

use super::detection::{Again, DetectionStage, Outdated, forget_detections, start_detector};
use super::{AppState, Problem, Remedy, Task, WorkerState, exchange, lab, load, load_first, run};
use crate::import::Imported;
use crate::link::{Link, LinkedModel, MAX_SENT_LETTERS, Numbers};
use crate::protocol::{BackendChoice, ErrorReport, ModelFormat, ModelSource};
use crate::view_model::lens::Lens;
use crate::view_model::measure::score_of;
use crate::view_model::{percent_text, token_text};

/// Next tokens whose numbers a link carries.
const N_NUMBERS: usize = 5;
/// Digits of a sha256 that a link carries of what it does not have to fetch.
const N_SHA_DIGITS: usize = 16;
/// Numbers this close, nats, are the same model and the same view: what engines differ by among themselves.
pub const REPRODUCED_WITHIN_NATS: f32 = 2e-3;

/// A view that came from a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    /// The link.
    pub link: Link,
    /// What of it does not fit here.
    pub misfits: Vec<String>,
    /// Why another engine answers than it asks for: no difference by itself, where the numbers are the same.
    pub other_engine: Option<String>,
    /// What the page showed of it at once: the view that the sender's numbers are about.
    applied: Option<Box<Link>>,
}

/// What became of the sender's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Not all of it is there.
    Waiting,
    /// The same, to within a difference in nats.
    Reproduced {
        /// The largest one.
        max_difference: f32,
        /// Whether the head's score is still to be computed.
        lacks_score: bool,
        /// Why another engine computed it than the link asks for, if so.
        other_engine: Option<String>,
    },
    /// What differs, in sentences.
    Different(Vec<String>),
    /// The user has gone on.
    Changed,
}

impl AppState {
    /// What a link to the page as it is would say, without numbers.
    pub fn link(&self) -> Link {
        let mut detectors = self.settings.clone();
        detectors.custom.is_painting = false;
        if detectors.custom.cells.is_empty() {
            detectors.custom.painted_ids.clear();
        }
        // Which of this page's imports it is says nothing elsewhere.
        let lens = if matches!(self.lens, Lens::Imported(_)) { Lens::Imported(0) } else { self.lens };
        let mut link = Link {
            model: self.linked_model(),
            prompt: self.prompt.clone(),
            bos: self.bos,
            lens: lens.key(),
            imported: self.imported(self.lens).map(Imported::linked),
            head: self.selected,
            token: self.held_token,
            edits: self.edits.list.clone(),
            sets: self.edits.sets.clone(),
            compare: self.compare.clone(),
            lab: self.lab.settings.clone(),
            detectors,
            hide: self.hide.clone(),
            lesson: self.assignment.lesson.clone(),
            backend: self.backend,
            numbers: None,
        };
        if link.imported.is_some() && link.encode().len() > MAX_SENT_LETTERS {
            // Whoever opens it is told which file is missing.
            link.imported.iter_mut().for_each(|imported| imported.rounded = None);
        }
        link
    }

    /// The same with what the page shows now, for whoever opens it to compare with.
    pub fn link_with_numbers(&self) -> Link {
        Link { numbers: self.numbers(), ..self.link() }
    }

    fn linked_model(&self) -> LinkedModel {
        if let Some(link) = self.opening.as_ref().filter(|_| self.model.is_none() || self.loading.is_some()) {
            return link.model.clone();
        }
        let Some(model) = &self.model else { return LinkedModel::default() };
        let id = model.id.clone();
        if self.models.iter().any(|known| known.source.id == id) {
            return LinkedModel { id, ..LinkedModel::default() };
        }
        // A local file's address means nothing elsewhere.
        let url = model.source.urls.first().filter(|url| url.starts_with("https:")).cloned();
        LinkedModel { id, sha256: Some(model.info.sha256.clone()), url, format: model.source.format }
    }

    /// The numbers of the page as it is; none while they are being computed.
    fn numbers(&self) -> Option<Numbers> {
        let (view, info) = (self.current_view()?, &self.model.as_ref()?.info);
        let top = view.run.logits_top.iter().take(N_NUMBERS).filter(|token| token.logprob.is_finite());
        let detector_version = match self.lens {
            Lens::Detector(doc) => Some(doc.version),
            _ => None,
        };
        Some(Numbers {
            model_sha256: first_digits(&info.sha256),
            tokenizer_sha256: first_digits(&info.tokenizer_sha256),
            detector_version,
            top: top.map(|token| (token.id, token.token.clone(), rounded(token.logprob))).collect(),
            kl_nats: view.kl_nats.filter(|kl| kl.is_finite()).map(rounded),
            score: self.selected.and_then(|head| self.settled_score(head)).map(rounded),
        })
    }

    /// The lens' number for a head, once it is of the page as it is.
    fn settled_score(&self, head: HeadId) -> Option<f32> {
        let is_settled = match self.lens {
            Lens::Prompt(_) => self.current_view().is_some(),
            // Nothing that a browser could compute again.
            Lens::Imported(_) => false,
            Lens::Detector(doc) => {
                let stage = self.detections.get(doc.id).map(|detection| &detection.stage);
                let is_done = matches!(stage, Some(DetectionStage::Done(_)));
                is_done && self.outdated() != Some(Outdated::Settings)
            }
            Lens::Sweep | Lens::Attribution | Lens::Patching => {
                self.lens.experiment().is_some_and(|experiment| self.found(experiment).is_some())
            }
        };
        let scores = self.lens_scores().filter(|_| is_settled)?;
        score_of(&scores, head).filter(|score| score.is_finite())
    }

    /// The next tokens that the sender of a link saw, with their probabilities, while nothing of one's own is there.
    pub fn sent_tokens(&self) -> Option<Vec<(String, f32)>> {
        let numbers = self.shared.as_ref()?.link.numbers.as_ref().filter(|_| self.view.is_none())?;
        let row = |(_, text, logprob): &(_, String, f32)| (token_text(text), logprob.exp().clamp(0.0, 1.0));
        Some(numbers.top.iter().map(row).collect())
    }

    /// Whether the page shows what was made of the link that was opened last.
    pub fn is_as_opened(&self) -> bool {
        let applied = self.shared.as_ref().and_then(|shared| shared.applied.as_deref());
        applied.is_some_and(|applied| *applied == self.link())
    }

    /// Whether this browser computed what the sender of the opened link saw; none if there is nothing to say.
    pub fn verdict(&self) -> Option<Verdict> {
        let shared = self.shared.as_ref()?;
        if shared.applied.is_some() && !self.is_as_opened() {
            return shared.link.numbers.as_ref().map(|_| Verdict::Changed);
        }
        let misfits = shared.misfits.iter().chain(&shared.other_engine);
        let Some(numbers) = shared.link.numbers.as_ref().filter(|_| shared.misfits.is_empty()) else {
            let misfits: Vec<String> = misfits.cloned().collect();
            return (!misfits.is_empty()).then_some(Verdict::Different(misfits));
        };
        if shared.applied.is_none() {
            return Some(Verdict::Waiting);
        }
        let Some(own) = self.numbers() else { return Some(Verdict::Waiting) };
        Some(compare(numbers, &own, self, shared.other_engine.clone()))
    }
}

fn compare(sent: &Numbers, own: &Numbers, state: &AppState, other_engine: Option<String>) -> Verdict {
    let mut different = Vec::new();
    if sent.model_sha256 != own.model_sha256 {
        different.push("The model's weights are not the sender's.".to_owned());
    }
    if sent.tokenizer_sha256 != own.tokenizer_sha256 {
        different.push("The model's tokenizer is not the sender's.".to_owned());
    }
    if sent.detector_version != own.detector_version {
        let version = |version: Option<u32>| version.map_or("none".to_owned(), |version| version.to_string());
        let (theirs, ours) = (version(sent.detector_version), version(own.detector_version));
        different.push(format!("The detector is of version {ours} here, of version {theirs} there."));
    }
    let mut max_difference = 0.0_f32;
    let mut check = |what: String, theirs: f32, ours: f32| {
        let difference = (theirs - ours).abs();
        // A difference that is no number is none that was found small.
        if difference <= REPRODUCED_WITHIN_NATS {
            max_difference = max_difference.max(difference);
        } else {
            different.push(format!("{what}: {theirs:.4} there, {ours:.4} here."));
        }
    };
    let run = state.current_view().map(|view| view.run.logits_top.as_slice()).unwrap_or_default();
    let mut absent = Vec::new();
    for (id, text, theirs) in &sent.top {
        let text = token_text(text);
        match run.iter().find(|token| token.id == *id) {
            Some(token) => check(format!("Log-probability of “{text}”"), *theirs, token.logprob),
            None => absent.push(format!(
                "“{text}” had {} there and is not among the first {} here.",
                percent_text(theirs.exp()),
                run.len()
            )),
        }
    }
    if let Some(theirs) = sent.kl_nats {
        check("KL of the edits".to_owned(), theirs, own.kl_nats.unwrap_or(f32::NAN));
    }
    if let Some((theirs, ours)) = sent.score.zip(own.score) {
        check(format!("{} of the held head", state.lens.label()), theirs, ours);
    }
    different.extend(absent);
    match different.is_empty() {
        true => {
            let lacks_score = sent.score.is_some() && own.score.is_none();
            Verdict::Reproduced { max_difference, lacks_score, other_engine }
        }
        false => Verdict::Different(different.into_iter().chain(other_engine).collect()),
    }
}

fn first_digits(sha256: &str) -> String {
    sha256.chars().take(N_SHA_DIGITS).collect()
}

fn rounded(value: f32) -> f32 {
    ((f64::from(value) * 1e6).round() / 1e6) as f32
}

/// Shows a link's view: at once where its model is loaded, else when it is.
pub(super) fn open(state: &mut AppState, link: Link) -> Vec<Task> {
    state.problem = None;
    let mut misfits = Vec::new();
    match Lens::of_key(&link.lens) {
        // Which scores these are is seen once the model is there.
        Some(Lens::Imported(_)) => {
            state.lens = Lens::default();
            if link.imported.is_none() {
                misfits.push(format!(
                    "The sender's map shows scores of a file that the link does not name. It shows {} instead.",
                    state.lens.label()
                ));
            }
        }
        Some(lens) => state.lens = lens,
        None => misfits.push(format!("This page has no “{}” to colour the map by.", link.lens)),
    }
    let asks_anew = state.bos != link.bos || state.settings != link.detectors;
    let mut tasks = if asks_anew { forget_detections(state) } else { Vec::new() };
    state.prompt.clone_from(&link.prompt);
    state.bos = link.bos;
    state.compare.clone_from(&link.compare);
    state.settings = link.detectors.clone();
    state.lab.settings = link.lab.clone();
    state.hide.clone_from(&link.hide);
    state.assignment.open(link.lesson.clone());
    let wished = state.backend_of_query.unwrap_or(link.backend);
    let was_wished = std::mem::replace(&mut state.backend, wished);
    state.held_token = link.token;
    let wanted = link.model.clone();
    state.shared = Some(Shared { link: link.clone(), misfits, other_engine: None, applied: None });
    let there = state.model.as_ref().filter(|model| {
        model.is_live
            && model.id == wanted.id
            && wanted.sha256.as_ref().is_none_or(|sha| *sha == model.info.sha256)
    });
    if let Some(model) = there
        && state.loading.is_none()
    {
        let is_other_engine = match wished {
            BackendChoice::Auto => false,
            BackendChoice::Cpu => model.engine.is_gpu,
            BackendChoice::Webgpu => !model.engine.is_gpu,
        };
        // Where the wish was the same before, this engine is what became of it.
        if is_other_engine && wished != was_wished {
            let source = model.source.clone();
            state.opening = Some(Box::new(link));
            tasks.extend(load(state, source));
            return tasks;
        }
        apply(state, link);
        tasks.extend(run(state, 0));
        tasks.extend(start_detector(state, Again::No));
        tasks.extend(lab::follow(state));
        return tasks;
    }
    state.opening = Some(Box::new(link));
    // Before the worker listens there is nobody to ask; it then opens what is waited for.
    if matches!(state.worker, WorkerState::Ready { .. }) {
        tasks.extend(load_linked(state, &wanted));
    }
    tasks
}

/// Loads a link's model, where that can be done without asking.
pub(super) fn load_linked(state: &mut AppState, wanted: &LinkedModel) -> Vec<Task> {
    if let Some(known) = state.models.iter().find(|model| model.source.id == wanted.id) {
        return load(state, known.source.clone());
    }
    let (error, remedy) = match &wanted.url {
        // A stranger's link does not fetch from anywhere by itself.
        Some(url) => {
            let source = ModelSource {
                id: wanted.id.clone(),
                format: wanted.format,
                sha256: wanted.sha256.clone().filter(|_| wanted.format == ModelFormat::Gguf),
                size_bytes: None,
                urls: vec![url.clone()],
                golden: None,
            };
            let told = format!(
                "this link wants a model from {}; load it only if you trust whoever sent it",
                strangers_text(url)
            );
            (told, url.starts_with("https://").then_some(Remedy::LoadLinked(source)))
        }
        None => {
            let told = format!(
                "this link is about the model “{}”, which this page does not know; if you have its file, open it under Models",
                strangers_text(&wanted.id)
            );
            (told, None)
        }
    };
    let detail = wanted.sha256.as_ref().map(|sha256| format!("sha256 {}", strangers_text(sha256)));
    let error = ErrorReport { code: "unknown_model".to_owned(), message: error, recoverable: true, detail };
    // The page is of use meanwhile.
    let tasks = if state.model.is_none() { load_first(state) } else { Vec::new() };
    state.problem = Some(Problem { error, remedy });
    tasks
}

/// A stranger's text in a sentence of ours.
pub(super) fn strangers_text(text: &str) -> String {
    let clean = text.chars().filter(|c| !c.is_control());
    clean.take(120).collect()
}

/// A model was loaded: shows what waits for it. Another model's link goes on waiting while its own can still come.
pub(super) fn model_came(state: &mut AppState) {
    let Some(model) = &state.model else { return };
    let is_wanted = |link: &mut Box<Link>| match &link.model.sha256 {
        Some(sha256) => *sha256 == model.info.sha256,
        None => link.model.id == model.id,
    };
    if let Some(link) = state.opening.take_if(is_wanted) {
        state.held_token = link.token;
        apply(state, *link);
    }
}

/// Shows what of a link is about the loaded model.
fn apply(state: &mut AppState, link: Link) {
    let mut misfits = Vec::new();
    let Some(model) = &state.model else { return };
    let info = model.info.clone();
    let is_other = link.backend == BackendChoice::Webgpu && !model.engine.is_gpu;
    let other_engine =
        is_other.then(|| format!("The link asks for WebGPU; the CPU answers: {}.", model.engine.why));
    let shape = format!("this model has {} layers of {} heads", info.n_layers, info.n_heads);
    state.selected = link.head.filter(|&head| state.has_head(head));
    if let Some(head) = link.head.filter(|_| state.selected.is_none()) {
        misfits.push(format!("The link holds head {head}; {shape}."));
    }
    let (fitting, others): (Vec<_>, Vec<_>) = link.edits.into_iter().partition(|placed| {
        let sites = &placed.edit.sites;
        sites.heads.iter().all(|&head| state.has_head(head))
            && sites.named_layers().all(|layer| layer < info.n_layers)
    });
    if !others.is_empty() {
        misfits.push(format!(
            "{} of the link's edits name heads or layers that are not there; {shape}.",
            others.len()
        ));
    }
    state.edits.list = fitting;
    state.edits.sets = link.sets;
    let is_of_a_file = matches!(Lens::of_key(&link.lens), Some(Lens::Imported(_)));
    if let Some(linked) = link.imported.as_ref().filter(|_| is_of_a_file) {
        misfits.extend(exchange::take_linked(state, linked).err());
    }
    state.preview = None;
    let applied = Box::new(state.link());
    if let Some(shared) = &mut state.shared {
        shared.misfits.extend(misfits);
        shared.other_engine = other_engine;
        shared.applied = Some(applied);
    }
}

#[cfg(test)]
mod tests;
