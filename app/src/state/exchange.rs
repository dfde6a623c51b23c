//! What comes from other programs and goes to them: imported scores as lenses of the map, and scripts for Python.

use headlight_core::report::{HeadScores, Prompt};
use headlight_core::script::{Library, ScriptRequest};

use super::detection::DetectionStage;
use super::lab::Experiment;
use super::share::strangers_text;
use super::{AppState, Msg, Task, fail, update};
use crate::import::{self, Imported};
use crate::link::{LinkedScores, RoundedScores};
use crate::protocol::{Call, ErrorReport, Reply};
use crate::view_model::lens::{Lens, report_scores};
use crate::view_model::scatter::{Scatter, scatter};

/// In how many parts a link divides the largest score.
const THOUSAND: f64 = 1000.0;
/// Where the hub's repositories are.
const HUB: &str = "https://huggingface.co/";

impl AppState {
    /// The scores behind an imported lens.
    pub fn imported(&self, lens: Lens) -> Option<&Imported> {
        match lens {
            Lens::Imported(index) => self.imports.get(index as usize),
            _ => None,
        }
    }

    /// A lens as a label.
    pub fn lens_label(&self, lens: Lens) -> String {
        self.imported(lens).map_or_else(|| lens.label().to_owned(), Imported::label)
    }

    /// A lens as the page writes it before a number.
    pub fn lens_name(&self, lens: Lens) -> String {
        self.imported(lens).map_or_else(|| lens.name(), |imported| imported.metric.clone())
    }

    /// The scores of a lens that can stand beside effects: a reading of the prompt, a detector that has run, an import.
    pub fn scores_of(&self, lens: Lens) -> Option<HeadScores> {
        match lens {
            Lens::Prompt(measure) => measure.scores(&self.view.as_ref()?.scores).cloned(),
            Lens::Detector(doc) => match &self.detections.get(doc.id)?.stage {
                DetectionStage::Done(report) => Some(report_scores(report)),
                _ => None,
            },
            Lens::Imported(_) => self.imported(lens).map(Imported::head_scores),
            _ => None,
        }
    }

    /// The scores of a lens against the sweep's effects, once that is done.
    pub fn scatter(&self, lens: Lens) -> Option<Scatter> {
        let Reply::Sweep(report) = self.found(Experiment::Sweep)? else { return None };
        scatter(&self.scores_of(lens)?, &report.effects)
    }

    /// The model's repository on the Hugging Face hub, where the manifest knows its weights.
    fn repo(&self) -> Option<String> {
        let sha256 = &self.model.as_ref()?.info.sha256;
        let model = self.models.iter().find(|model| model.source.sha256.as_ref() == Some(sha256))?;
        model.homepage.strip_prefix(HUB).map(str::to_owned)
    }
}

impl Imported {
    /// For a menu.
    pub fn label(&self) -> String {
        format!("Imported: {} ({})", self.metric, self.file)
    }

    /// In the shape that the map reads.
    pub fn head_scores(&self) -> HeadScores {
        let target = if self.is_effect { "effect:imported" } else { "imported" };
        HeadScores { target: target.to_owned(), scores: self.scores.clone(), n_rows: 1 }
    }

    /// Where the numbers come from, in a sentence.
    pub fn caption(&self, state: &AppState) -> String {
        let own = state.model.as_ref().map(|model| &model.info.sha256);
        let of = match (&self.model_sha256, own) {
            (Some(theirs), Some(own)) if theirs == own => " It was measured on this model.",
            (Some(_), Some(_)) => " Mind: it was measured on other weights than those loaded here.",
            _ => " The file does not say on which weights it was measured.",
        };
        let rounded = match self.is_rounded {
            true => " The numbers came with a link, each rounded to a thousandth of the largest.",
            false => "",
        };
        format!(
            "{} as {} gives it; neither your prompt nor your edits touch it.{of}{rounded}",
            self.metric, self.file
        )
    }

    /// As a link carries it.
    pub fn linked(&self) -> LinkedScores {
        let most = self.scores.iter().flatten().fold(0.0_f32, |most, score| most.max(score.abs()));
        let unit = f64::from(if most > 0.0 { most } else { 1.0 }) / THOUSAND;
        let thousandths = |score: &f32| (f64::from(*score) / unit).round() as i16;
        let row = |row: &Vec<f32>| row.iter().map(thousandths).collect();
        LinkedScores {
            file: self.file.clone(),
            metric: self.metric.clone(),
            is_effect: self.is_effect,
            model_sha256: self.model_sha256.clone(),
            rounded: Some(RoundedScores { most, thousandths: self.scores.iter().map(row).collect() }),
        }
    }

    /// From a link, for a model of this shape; `None` where the link carries no numbers, or others.
    fn of_link(linked: &LinkedScores, n_layers: usize, n_heads: usize) -> Option<Self> {
        let RoundedScores { most, thousandths } = linked.rounded.as_ref()?;
        let is_table = thousandths.len() == n_layers
            && thousandths.iter().all(|row| {
                row.len() == n_heads && row.iter().all(|value| f64::from(value.unsigned_abs()) <= THOUSAND)
            });
        if !is_table || !most.is_finite() || *most < 0.0 {
            return None;
        }
        let score = |value: &i16| (f64::from(*value) / THOUSAND * f64::from(*most)) as f32;
        Some(Self {
            file: strangers_text(&linked.file),
            metric: strangers_text(&linked.metric),
            scores: thousandths.iter().map(|row| row.iter().map(score).collect()).collect(),
            is_effect: linked.is_effect,
            model_sha256: linked.model_sha256.clone(),
            is_rounded: true,
        })
    }

    /// Whether a link is about these very scores, as far as it tells.
    fn is_of(&self, linked: &LinkedScores) -> bool {
        let own = self.linked();
        let is_same = own.file == linked.file && own.metric == linked.metric;
        is_same && linked.rounded.as_ref().is_none_or(|rounded| own.rounded.as_ref() == Some(rounded))
    }
}

/// Shows the scores that a link names: those of a file that is open here, else those that the link carries. What is missing, in
/// a sentence, where there are neither.
pub(super) fn take_linked(state: &mut AppState, linked: &LinkedScores) -> Result<(), String> {
    let Some(info) = state.model.as_ref().map(|model| &model.info) else { return Ok(()) };
    let known = state.imports.iter().position(|imported| imported.is_of(linked));
    let index = match known {
        Some(index) => index,
        None => {
            let Some(imported) = Imported::of_link(linked, info.n_layers, info.n_heads) else {
                let (file, metric) = (strangers_text(&linked.file), strangers_text(&linked.metric));
                let why = match linked.rounded {
                    Some(_) => {
                        format!("they are not of this model's {} × {} heads", info.n_layers, info.n_heads)
                    }
                    None => "they are too many for a link".to_owned(),
                };
                return Err(format!(
                    "The sender's map shows “{metric}” of the file {file}, which is not here: {why}. It shows {} instead; import \
                     the file to see them.",
                    state.lens.label()
                ));
            };
            state.imports.push(imported);
            state.imports.len() - 1
        }
    };
    state.lens = Lens::Imported(index as u32);
    Ok(())
}

/// Takes a file's scores in and shows the first of them; a bad file changes nothing.
pub(super) fn import(state: &mut AppState, file: &str, text: &str) -> Vec<Task> {
    let Some(info) = state.model.as_ref().map(|model| &model.info) else { return Vec::new() };
    match import::read(file, text, info.n_layers, info.n_heads) {
        Ok(imported) => {
            let index = state.imports.len() as u32;
            state.imports.extend(imported);
            update(state, Msg::SetLens(Lens::Imported(index)))
        }
        Err(error) => fail(
            state,
            ErrorReport {
                code: "bad_import".to_owned(),
                message: format!("the file {file} was not imported: {error}"),
                recoverable: true,
                detail: None,
            },
        ),
    }
}

/// Lets go of another model's imports.
pub(super) fn forget_imports(state: &mut AppState) {
    state.imports.clear();
    if matches!(state.lens, Lens::Imported(_)) {
        state.lens = Lens::default();
    }
}

/// Asks for the script of the view as it is now.
pub(super) fn script(state: &AppState, library: Library) -> Vec<Task> {
    let Some(view) = state.current_view() else { return Vec::new() };
    let interventions = state.edits.resolved(view.tokens.ids.len());
    let (prompt, bos, repo) = (Prompt::Text(state.prompt.clone()), state.bos, state.repo());
    // Where its files are the worker knows.
    let request = ScriptRequest { prompt, bos, interventions, library, repo, files: None, remote: false };
    vec![Task::Script { library, call: Box::new(Call::Script(request)) }]
}
