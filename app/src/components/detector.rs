//! The chosen detector: its progress, its verdict, what stands behind it, and what it says of itself.

use std::sync::Arc;

use headlight_core::detect::doc::Doc;
use headlight_core::report::DetectReport;
use leptos::prelude::*;

use super::evidence::Evidence;
use super::page;
use super::progress::JobProgress;
use super::settings::DetectorSettings;
use crate::protocol::ErrorReport;
use crate::state::Msg;
use crate::state::detection::{Detection, DetectionStage, DetectorMsg, RunOffer};
use crate::state::lesson::Fixed;
use crate::view_model::lens::{Lens, stimulus_text, verdict};
use crate::view_model::progress_text;

/// Heads named one by one below the verdict.
const N_NAMED: usize = 12;

/// What the panel is built from; progress changes within it, so that a button under the pointer stays the same.
#[derive(Clone)]
enum Shown {
    NotRun,
    Running,
    Done(Arc<DetectReport>),
    Stopped,
    Failed(ErrorReport),
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            // The same report: comparing its numbers on every message would cost more than a redraw.
            (Self::Done(a), Self::Done(b)) => Arc::ptr_eq(a, b),
            (Self::Failed(a), Self::Failed(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

impl Shown {
    fn of(detection: Option<&Detection>) -> Self {
        match detection.map(|detection| &detection.stage) {
            None => Self::NotRun,
            Some(DetectionStage::Running(_)) => Self::Running,
            Some(DetectionStage::Done(report)) => Self::Done(Arc::clone(report)),
            Some(DetectionStage::Stopped) => Self::Stopped,
            Some(DetectionStage::Failed(error)) => Self::Failed(error.clone()),
        }
    }
}

/// Between caption and map, when the lens is a detector.
#[component]
pub fn DetectorPanel() -> impl IntoView {
    let page = page();
    let doc = page.select(|state| match state.lens {
        Lens::Detector(doc) => Some(doc),
        _ => None,
    });
    let shown = page.select(|state| Shown::of(state.lens_detection()));
    let why = page.select(|state| state.why_fixed(Fixed::View));
    let stage = move |doc: &'static Doc| match shown.get() {
        Shown::Running => view! { <Running /> }.into_any(),
        Shown::Done(report) => view! { <Found doc report /> }.into_any(),
        Shown::NotRun | Shown::Stopped => ().into_any(),
        Shown::Failed(error) => view! { <Failed error /> }.into_any(),
    };
    view! {
        {move || {
            let doc = doc.get()?;
            Some(view! {
                <div class="detector" data-testid="detector" data-detector=doc.id>
                    <fieldset class="held" disabled=move || why.get().is_some() title=move || why.get()>
                        <DetectorSettings doc />
                    </fieldset>
                    <RunOffer />
                    {move || stage(doc)}
                </div>
            })
        }}
    }
}

/// Below the map, so that the map stays in sight: what stands behind the scores.
#[component]
pub fn DetectorEvidence() -> impl IntoView {
    let page = page();
    let shown = page.select(|state| Shown::of(state.lens_detection()));
    view! {
        {move || match shown.get() {
            Shown::Done(report) => Some(view! { <Evidence report /> }),
            _ => None,
        }}
    }
}

/// Progress, with the buttons that hold and end the work.
#[component]
fn Running() -> impl IntoView {
    let page = page();
    let is_paused = page.select(|state| state.lens_detection().is_some_and(|detection| detection.is_paused));
    let progress = page.select(|state| match &state.lens_detection()?.stage {
        DetectionStage::Running(progress) => progress.as_ref().map(progress_text),
        _ => None,
    });
    view! {
        <JobProgress
            id="detector".to_owned()
            progress
            is_paused
            on_hold=move |is_held| {
                page.send(Msg::Detector(if is_held { DetectorMsg::Pause } else { DetectorMsg::Resume }));
            }
            on_stop=move || page.send(Msg::Detector(DetectorMsg::Stop))
        />
    }
}

#[component]
fn Failed(error: ErrorReport) -> impl IntoView {
    view! {
        <p class="detector-failed" role="status" data-testid="detector-failed" data-code=error.code>
            {format!("No score: {}.", error.message)}
        </p>
    }
}

/// What to do about a detector that is not at work, where there is something to do: run it, or first complete a setting.
#[component]
fn RunOffer() -> impl IntoView {
    let page = page();
    let offer = page.select(|state| state.run_offer());
    view! {
        {move || {
            let RunOffer { text, can_run } = offer.get()?;
            Some(view! {
                <div class="toast-line">
                    <p class="quiet" data-testid="detector-offer">{text}</p>
                    <button
                        class="button"
                        data-testid="detector-run"
                        disabled=!can_run
                        on:click=move |_| page.send(Msg::Detector(DetectorMsg::Run))
                    >
                        "Run"
                    </button>
                </div>
            })
        }}
    }
}

#[component]
fn Found(doc: &'static Doc, report: Arc<DetectReport>) -> impl IntoView {
    let page = page();
    let named: Vec<_> = report.found.iter().copied().take(N_NAMED).collect();
    let n_more = report.found.len() - named.len();
    let verdict = verdict(&report, doc);
    let stimulus = format!("{} (n = {})", stimulus_text(&report), report.n);
    let spread = report.spread.as_ref().map(|spread| {
        let best = report.best.head;
        format!("Standard deviation over draws of {best}: {:.3}.", spread[best.layer][best.head])
    });
    view! {
        <p class="verdict" role="status" data-testid="detector-verdict">{verdict}</p>
        {(!named.is_empty())
            .then(|| {
                let buttons = named
                    .into_iter()
                    .map(|head| {
                        view! {
                            <button class="inline-link mono" on:click=move |_| page.send(Msg::ToggleHead(head))>
                                {head.to_string()}
                            </button>
                            " "
                        }
                    })
                    .collect_view();
                let more = (n_more > 0).then(|| format!("and {n_more} more"));
                view! { <p class="quiet found">{buttons} {more}</p> }
            })}
        <p class="quiet">{stimulus} {spread.map(|spread| format!(". {spread}"))}</p>
        <details class="detector-doc" data-testid="detector-doc">
            <summary>"Definition, source, what it confuses"</summary>
            <dl>
                <dt>"Why it matters"</dt>
                <dd>{doc.why_it_matters}</dd>
                <dt>"Score"</dt>
                <dd>{doc.score}</dd>
                <dt>"Stimulus"</dt>
                <dd>{doc.stimulus}</dd>
                <dt>"Source"</dt>
                <dd>{doc.source}</dd>
                <dt>"Known confusions"</dt>
                <dd>{doc.known_confusions}</dd>
            </dl>
            <p class="quiet">
                {format!("Detector {} version {}, seed {}.", doc.id, doc.version, report.provenance.request.seed)}
            </p>
        </details>
    }
}
