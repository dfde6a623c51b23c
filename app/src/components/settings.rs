//! What the user asks of a detector, above its result: the stimulus, a pattern of one's own, a text with a needle.

use headlight_core::detect::AttentionTarget;
use headlight_core::detect::doc::Doc;
use leptos::prelude::*;

use super::{Page, page};
use crate::state::Msg;
use crate::state::detection::{DetectionStage, DetectorMsg, Setting};
use crate::state::settings::{Candidates, StimulusChoice};
use crate::view_model::lens::Lens;

fn set(page: Page, setting: Setting) {
    page.send(Msg::Detector(DetectorMsg::Set(setting)));
}

/// The settings of this detector; none for one that only reads weights.
#[component]
pub fn DetectorSettings(doc: &'static Doc) -> impl IntoView {
    match doc.id {
        "custom" => view! { <CustomEditor /> <StimulusMenu /> }.into_any(),
        "retrieval" => view! { <RetrievalEditor /> }.into_any(),
        "successor" => {
            view! { <CandidatesMenu own="the members of its class" /> <TopFiveCheck /> }.into_any()
        }
        "copying_top1" => view! { <CandidatesMenu own="the other tokens tried" /> }.into_any(),
        _ if Lens::Detector(doc).takes_sequences() => view! { <StimulusMenu /> }.into_any(),
        _ => ().into_any(),
    }
}

/// Generated sequences, or the prompt.
#[component]
fn StimulusMenu() -> impl IntoView {
    let page = page();
    let stimulus = page.select(|state| state.settings.stimulus);
    let is_painted = page.select(|state| state.lens.is_custom() && !state.settings.custom.cells.is_empty());
    let option = move |choice: StimulusChoice, value: &'static str, text: &'static str| {
        let is_selected = move || {
            (stimulus.get() == choice) != (is_painted.get() && stimulus.get() != StimulusChoice::Prompt)
        };
        view! { <option value=value prop:selected=is_selected>{text}</option> }
    };
    view! {
        <label class="setting">
            <span>"Read on"</span>
            <select
                class="select"
                data-testid="stimulus"
                disabled=move || is_painted.get()
                title=move || is_painted.get().then_some("Painted cells are cells of the prompt")
                on:change=move |event| {
                    let choice = match event_target_value(&event).as_str() {
                        "prompt" => StimulusChoice::Prompt,
                        _ => StimulusChoice::Generated,
                    };
                    set(page, Setting::Stimulus(choice));
                }
            >
                {option(StimulusChoice::Generated, "generated", "generated sequences")}
                {option(StimulusChoice::Prompt, "prompt", "the prompt above")}
            </select>
        </label>
    }
}

/// Which tokens compete; `own` says which are the detector's own.
#[component]
fn CandidatesMenu(own: &'static str) -> impl IntoView {
    let page = page();
    let is_vocabulary = page.select(|state| state.settings.candidates == Candidates::Vocabulary);
    view! {
        <label class="setting">
            <span>"Against"</span>
            <select
                class="select"
                data-testid="candidates"
                title="Against the whole vocabulary is stricter, and hundreds of times the work"
                on:change=move |event| {
                    let choice = match event_target_value(&event).as_str() {
                        "vocabulary" => Candidates::Vocabulary,
                        _ => Candidates::Own,
                    };
                    set(page, Setting::Candidates(choice));
                }
            >
                <option value="own" prop:selected=move || !is_vocabulary.get()>{own}</option>
                <option value="vocabulary" prop:selected=move || is_vocabulary.get()>
                    "the whole vocabulary (slow)"
                </option>
            </select>
        </label>
    }
}

#[component]
fn TopFiveCheck() -> impl IntoView {
    let page = page();
    let is_in_top_five = page.select(|state| state.settings.is_in_top_five);
    view! {
        <label class="check">
            <input
                type="checkbox"
                data-testid="in-top-five"
                prop:checked=move || is_in_top_five.get()
                on:change=move |event| set(page, Setting::InTopFive(event_target_checked(&event)))
            />
            "the next item may be among the five largest"
        </label>
    }
}

/// Offsets, named targets and painted cells.
#[component]
fn CustomEditor() -> impl IntoView {
    let page = page();
    let offsets = page.select(|state| state.settings.custom.offsets_text.clone());
    let is_bad = page.select(|state| state.settings.custom.offsets().is_err());
    view! {
        <div class="settings" data-testid="custom-editor">
            <label class="setting">
                <span>"Offsets"</span>
                <input
                    class="field"
                    type="text"
                    inputmode="text"
                    placeholder="-1, -2"
                    autocomplete="off"
                    data-testid="custom-offsets"
                    aria-invalid=move || is_bad.get().to_string()
                    prop:value=move || offsets.get()
                    on:input=move |event| set(page, Setting::Offsets(event_target_value(&event)))
                />
            </label>
            <fieldset class="checks">
                <legend class="sr-only">"Named targets"</legend>
                {AttentionTarget::ALL.map(|target| view! { <TargetCheck target /> }).collect_view()}
            </fieldset>
            <p class="quiet">"Or paint cells on the pattern of any head."</p>
        </div>
    }
}

#[component]
fn TargetCheck(target: AttentionTarget) -> impl IntoView {
    let page = page();
    let is_on = page.select(move |state| state.settings.custom.targets.contains(&target));
    let text = match target {
        AttentionTarget::Induction => "after same token",
        AttentionTarget::PreviousToken => "previous token",
        AttentionTarget::DuplicateToken => "same token",
        AttentionTarget::FirstToken => "first token",
        AttentionTarget::CurrentToken => "current token",
    };
    view! {
        <label class="check">
            <input
                type="checkbox"
                data-testid=format!("custom-{}", target.name())
                prop:checked=move || is_on.get()
                on:change=move |_| set(page, Setting::ToggleTarget(target))
            />
            {text}
        </label>
    }
}

/// Switches painting on the inspector's pattern, and tells what is painted.
#[component]
pub fn PaintBar() -> impl IntoView {
    let page = page();
    let is_painting = page.select(|state| state.settings.custom.is_painting);
    let cells = page.select(|state| state.settings.custom.cells.clone());
    let told = move || match cells.with(|cells| cells.len()) {
        0 if is_painting.get() => {
            "Click or drag on the head's pattern; with the keyboard, arrows and Space.".to_owned()
        }
        0 => "No cell painted.".to_owned(),
        n => {
            let shown = cells.with(|cells| {
                let first = cells.iter().take(4).map(|(query, key)| format!("{query}→{key}"));
                first.collect::<Vec<_>>().join(", ")
            });
            format!("{n} painted (query→key): {shown}{}", if n > 4 { " …" } else { "" })
        }
    };
    view! {
        <div class="setting paint-bar">
            <button
                class="button"
                data-testid="paint-toggle"
                aria-pressed=move || is_painting.get().to_string()
                on:click=move |_| set(page, Setting::Painting(!is_painting.get_untracked()))
            >
                "Paint target"
            </button>
            <button
                class="button"
                data-testid="paint-clear"
                disabled=move || cells.with(|cells| cells.is_empty())
                on:click=move |_| set(page, Setting::ClearCells)
            >
                "Wipe"
            </button>
            <span class="quiet" role="status" data-testid="painted">{told}</span>
        </div>
    }
}

/// A needle, a text and a question of the user's, and whether the strongest heads are switched off.
#[component]
fn RetrievalEditor() -> impl IntoView {
    let page = page();
    let is_own = page.select(|state| state.settings.retrieval.is_own);
    let is_causal = page.select(|state| state.settings.retrieval.is_causal);
    view! {
        <div class="settings" data-testid="retrieval-editor">
            <label class="setting">
                <span>"Read"</span>
                <select
                    class="select"
                    data-testid="retrieval-source"
                    on:change=move |event| set(page, Setting::OwnText(event_target_value(&event) == "own"))
                >
                    <option value="generated" prop:selected=move || !is_own.get()>"generated needles"</option>
                    <option value="own" prop:selected=move || is_own.get()>"my own text"</option>
                </select>
            </label>
            <Show when=move || is_own.get()>
                <OwnText />
            </Show>
            <label class="check">
                <input
                    type="checkbox"
                    data-testid="retrieval-causal-check"
                    prop:checked=move || is_causal.get()
                    on:change=move |event| set(page, Setting::Causal(event_target_checked(&event)))
                />
                "also ablate the strongest heads, against random ones"
            </label>
        </div>
    }
}

/// Open until there is a result: the map is what one then looks at.
#[component]
fn OwnText() -> impl IntoView {
    let page = page();
    let is_done = page.select(|state| {
        state.lens_detection().is_some_and(|detection| matches!(detection.stage, DetectionStage::Done(_)))
    });
    let text = page.select(|state| state.settings.retrieval.text.clone());
    let needle = page.select(|state| state.settings.retrieval.needle.clone());
    let question = page.select(|state| state.settings.retrieval.question.clone());
    view! {
        <details class="detector-doc own-text" prop:open=move || !is_done.get()>
            <summary>"Text, needle, question"</summary>
            <div class="settings">
                <label class="setting setting-tall">
                    <span>"Text"</span>
                    <textarea
                        class="field"
                        rows="4"
                        data-testid="retrieval-text-field"
                        prop:value=move || text.get()
                        on:input=move |event| set(page, Setting::Text(event_target_value(&event)))
                    ></textarea>
                </label>
                <label class="setting">
                    <span>"Needle"</span>
                    <input
                        class="field"
                        type="text"
                        data-testid="retrieval-needle"
                        title="The words of the text that answer the question"
                        prop:value=move || needle.get()
                        on:input=move |event| set(page, Setting::Needle(event_target_value(&event)))
                    />
                </label>
                <label class="setting setting-tall">
                    <span>"Question"</span>
                    <textarea
                        class="field"
                        rows="2"
                        data-testid="retrieval-question"
                        title="Ends where the answer begins"
                        prop:value=move || question.get()
                        on:input=move |event| set(page, Setting::Question(event_target_value(&event)))
                    ></textarea>
                </label>
            </div>
        </details>
    }
}
