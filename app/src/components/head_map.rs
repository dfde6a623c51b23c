//! The head map: one cell a head, layer 0 at the bottom; and its twin as a table.

use std::collections::BTreeSet;

use headlight_core::hooks::Edit;
use headlight_core::ids::HeadId;
use headlight_core::report::HeadScores;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use super::detector::{DetectorEvidence, DetectorPanel};
use super::export::{Also, Export};
use super::lab::LabPanel;
use super::{Page, page, ranked::Ranked, strongest::Strongest};
use crate::export::ViewKind;
use crate::state::Msg;
use crate::state::edits::{EditMark, EditMsg, LayerPart, of_layer};
use crate::state::lesson::Fixed;
use crate::view_model::colour::{scale_gradient, shade};
use crate::view_model::lens::{Lens, Scale};
use crate::view_model::measure::{Measure, caption, rank_of, ranking, score_of};
use crate::view_model::{Step, cell_label, neighbour, signed_text};

/// Models with at most this many layers have room for numbers in their cells.
const MAX_LAYERS_WITH_NUMBERS: usize = 8;
/// Height that the rows of the map share, CSS pixels.
const MAP_HEIGHT: usize = 520;

/// What every cell reads.
#[derive(Clone, Copy)]
struct Map {
    page: Page,
    n_layers: usize,
    n_heads: usize,
    lens: Memo<Lens>,
    scores: Memo<Option<HeadScores>>,
    /// Heads whose score is in fast precision for now.
    fast: Memo<BTreeSet<HeadId>>,
    scale: Memo<Scale>,
    /// The one cell that Tab reaches.
    focused: RwSignal<HeadId>,
    hovered: RwSignal<Option<HeadId>>,
}

impl Map {
    /// What a score is called before its number.
    fn name(self, is_fast: bool) -> String {
        let name = self.lens.get().name();
        if is_fast { format!("{name} in fast precision") } else { name }
    }
}

/// The map's card.
#[component]
pub fn MapCard() -> impl IntoView {
    let page = page();
    let shape = page.select(|state| state.model.as_ref().map(|m| (m.info.n_layers, m.info.n_heads)));
    let lens = page.select(|state| state.lens);
    let scores = page.select(|state| state.lens_scores());
    let fast = page.select(|state| state.fast_heads());
    let scale = Memo::new(move |_| scores.with(|scores| lens.get().scale(scores.as_ref())));
    let is_empty = page.select(|state| state.model.is_some() && state.is_prompt_empty());
    let import_caption =
        page.select(|state| state.imported(state.lens).map(|imported| imported.caption(state)));
    let is_table = RwSignal::new(false);
    let hovered = RwSignal::new(None);
    view! {
        <section class="card map-card" aria-labelledby="map-title">
            <div class="card-head">
                <h2 id="map-title">"Heads"</h2>
                <LensMenu />
                <button
                    class="button"
                    data-testid="map-table-toggle"
                    aria-pressed=move || is_table.get().to_string()
                    on:click=move |_| is_table.update(|is_table| *is_table = !*is_table)
                >
                    "Table"
                </button>
                <Export
                    views=|_| {
                        vec![
                            ViewKind::HeadMap,
                            ViewKind::Evidence,
                            ViewKind::RetrievalCausal,
                            ViewKind::SetEffects,
                        ]
                    }
                    also=Also::Import
                />
            </div>
            <p class="caption" data-testid="map-caption">
                {move || match (lens.get(), is_empty.get()) {
                    (Lens::Detector(doc), _) => doc.looks_for.to_owned(),
                    (Lens::Sweep, _) => "What becomes of the unedited model when each head is edited in turn.".to_owned(),
                    (Lens::Attribution, _) => {
                        "What each head adds to the token's logit by its own path, the final norm's scale held fixed, your edits in force."
                            .to_owned()
                    }
                    (Lens::Imported(_), _) => import_caption.get().unwrap_or_default(),
                    (Lens::Patching, _) => {
                        "How much of the clean run each head carries over into the corrupted one, without your edits.".to_owned()
                    }
                    (Lens::Prompt(_), true) => "The prompt is empty, so no head has anything to look at.".to_owned(),
                    (Lens::Prompt(measure), false) => scores.with(|scores| caption(measure, scores.as_ref())),
                }}
            </p>
            <DetectorPanel />
            <LabPanel />
            {move || match (shape.get(), is_table.get()) {
                (None, _) => view! { <div class="ghost ghost-map"></div> }.into_any(),
                (Some(_), true) => view! { <ScoreTable /> }.into_any(),
                (Some((n_layers, n_heads)), false) => {
                    let focused = RwSignal::new(HeadId::new(0, 0));
                    let map = Map { page, n_layers, n_heads, lens, scores, fast, scale, focused, hovered };
                    view! {
                        <div class="map-and-rank">
                            <div>
                                <Grid map />
                                <Readout map />
                                <Legend scale lens />
                            </div>
                            <Ranked />
                        </div>
                        <Strongest />
                    }
                        .into_any()
                }
            }}
            <DetectorEvidence />
        </section>
    }
}

#[component]
fn LensMenu() -> impl IntoView {
    let page = page();
    let is_fixed = page.select(|state| state.why_fixed(Fixed::View).is_some());
    let lens = page.select(|state| state.lens);
    let imports = page.select(|state| {
        let lenses = (0..state.imports.len() as u32).map(Lens::Imported);
        lenses.map(|lens| (lens, state.lens_label(lens))).collect::<Vec<_>>()
    });
    let option = move |option: Lens| {
        view! {
            <option value=option.key() selected=move || lens.get() == option>
                {option.label()}
            </option>
        }
    };
    view! {
        <label>
            <span class="sr-only">"Coloured by"</span>
            <select
                class="select"
                data-testid="measure"
                disabled=move || is_fixed.get()
                on:change=move |event| {
                    if let Some(lens) = Lens::of_key(&event_target_value(&event)) {
                        page.send(Msg::SetLens(lens));
                    }
                }
            >
                <optgroup label="Attention on this prompt">
                    {Measure::all().map(Lens::Prompt).into_iter().map(option).collect_view()}
                </optgroup>
                <optgroup label="Effects on this prompt">
                    {[Lens::Sweep, Lens::Attribution, Lens::Patching].map(option).collect_view()}
                </optgroup>
                <optgroup label="Detectors, on their own stimulus">
                    {Lens::detectors().map(option).collect_view()}
                </optgroup>
                {move || {
                    let imports = imports.get();
                    (!imports.is_empty())
                        .then(|| {
                            view! {
                                <optgroup label="Imported">
                                    {imports
                                        .into_iter()
                                        .map(|(option, label)| {
                                            view! {
                                                <option
                                                    value=option.key()
                                                    prop:selected=move || lens.get() == option
                                                >
                                                    {label}
                                                </option>
                                            }
                                        })
                                        .collect_view()}
                                </optgroup>
                            }
                        })
                }}
            </select>
        </label>
    }
}

#[component]
fn Grid(map: Map) -> impl IntoView {
    let cell_height = (MAP_HEIGHT / map.n_layers.max(1)).clamp(14, 44) - 2;
    let mlps = map.page.select(|state| state.experiment_scores().map(|(_, mlps)| mlps).unwrap_or_default());
    let has_mlps = Memo::new(move |_| mlps.with(|mlps| !mlps.is_empty()));
    let on_key = move |event: leptos::ev::KeyboardEvent| {
        let focused = map.focused.get_untracked();
        let key = event.key();
        if let Some(step) = Step::of_key(&key) {
            event.prevent_default();
            let next = neighbour(focused, step, map.n_layers, map.n_heads);
            map.focused.set(next);
            focus_cell(next);
        } else if matches!(key.as_str(), "a" | "A") && !event.ctrl_key() && !event.meta_key() {
            map.page.send(Msg::Edit(EditMsg::Toggle(focused)));
        }
    };
    view! {
        <div
            class="map"
            role="grid"
            data-testid="head-map"
            aria-label="Attention heads, layer 0 at the bottom"
            aria-rowcount=map.n_layers
            aria-colcount=map.n_heads
            style=format!("--n-heads:{};--cell-h:{cell_height}px", map.n_heads)
            on:keydown=on_key
            on:mouseleave=move |_| map.hovered.set(None)
        >
            {(0..map.n_layers)
                .rev()
                .map(|layer| {
                    view! {
                        <div
                            class="map-row"
                            class:map-row-mlp=move || has_mlps.get()
                            role="row"
                            aria-rowindex=map.n_layers - layer
                        >
                            <span class="map-label" aria-hidden="true">{layer}</span>
                            {(0..map.n_heads)
                                .map(|head| view! { <Cell map head=HeadId::new(layer, head) /> })
                                .collect_view()}
                            <MlpCell map layer mlps />
                        </div>
                    }
                })
                .collect_view()}
            <div class="map-row map-row-heads" class:map-row-mlp=move || has_mlps.get() aria-hidden="true">
                <span class="map-label">"L\u{2009}H"</span>
                {(0..map.n_heads).map(|head| view! { <span class="map-label">{head}</span> }).collect_view()}
                <Show when=move || has_mlps.get()>
                    <span class="map-label">"MLP"</span>
                </Show>
            </div>
        </div>
    }
}

fn cell_id(head: HeadId) -> String {
    format!("cell-{head}")
}

fn focus_cell(head: HeadId) {
    let cell = document().get_element_by_id(&cell_id(head));
    if let Some(cell) = cell.and_then(|cell| cell.dyn_into::<web_sys::HtmlElement>().ok()) {
        let _ = cell.focus();
    }
}

#[component]
fn Cell(map: Map, head: HeadId) -> impl IntoView {
    let page = map.page;
    let score = Memo::new(move |_| map.scores.with(|scores| scores.as_ref().and_then(|s| score_of(s, head))));
    let is_held = page.select(move |state| state.selected == Some(head));
    let is_shown = page.select(move |state| state.shown_head() == Some(head));
    let mark = page.select(move |state| state.edits.mark(head));
    let is_fast = Memo::new(move |_| map.fast.with(|fast| fast.contains(&head)));
    let theme = page.select(|state| state.theme());
    let colour = Memo::new(move |_| {
        let fill = shade(theme.get(), map.scale.get(), score.get().unwrap_or(0.0));
        (fill.css(), fill.ink().css())
    });
    let number = (map.n_layers <= MAX_LAYERS_WITH_NUMBERS)
        .then_some(move || score.get().map(|score| format!("{score:.2}")));
    view! {
        <button
            class="cell"
            class:cell-held=move || is_held.get()
            class:cell-shown=move || is_shown.get()
            class:cell-off=move || mark.get() == Some(EditMark::Off)
            class:cell-edited=move || mark.get() == Some(EditMark::Edited)
            class:cell-fast=move || is_fast.get()
            role="gridcell"
            id=cell_id(head)
            data-testid=format!("head-{head}")
            data-score=move || score.get().map(|score| format!("{score:.4}"))
            tabindex=move || if map.focused.get() == head { "0" } else { "-1" }
            aria-selected=move || is_held.get().to_string()
            aria-label=move || cell_label(head, &map.name(is_fast.get()), score.get(), mark.get())
            style:background=move || colour.get().0
            style:color=move || colour.get().1
            on:mouseenter=move |_| map.hovered.set(Some(head))
            on:focus=move |_| {
                map.focused.set(head);
                map.hovered.set(Some(head));
            }
            on:click=move |event| {
                let is_edit = event.alt_key() || event.shift_key();
                let msg = if is_edit { Msg::Edit(EditMsg::Toggle(head)) } else { Msg::ToggleHead(head) };
                page.send(msg);
            }
            on:dblclick=move |event| {
                if !event.alt_key() && !event.shift_key() {
                    page.send(Msg::Edit(EditMsg::Toggle(head)));
                }
            }
        >
            {number}
        </button>
    }
}

/// The MLP of a layer, where the lens has a number for it; a click switches it off.
#[component]
fn MlpCell(map: Map, layer: usize, mlps: Memo<Vec<f32>>) -> impl IntoView {
    let theme = map.page.select(|state| state.theme());
    let value = Memo::new(move |_| mlps.with(|mlps| mlps.get(layer).copied()));
    view! {
        {move || {
            let value = value.get()?;
            let fill = shade(theme.get(), map.scale.get(), value);
            let text = format!("MLP {layer}, {} {}", map.lens.get().name(), signed_text(value));
            Some(view! {
                <button
                    class="cell cell-mlp"
                    tabindex="-1"
                    title=format!("{text}; click to switch it off")
                    aria-label=text
                    data-testid=format!("mlp-{layer}")
                    style:background=fill.css()
                    on:click=move |_| {
                        map.page.send(Msg::Edit(EditMsg::Add(of_layer(Edit::Zero {}, layer, LayerPart::Mlp))));
                    }
                ></button>
            })
        }}
    }
}

/// What the pointed-at head scores.
#[component]
fn Readout(map: Map) -> impl IntoView {
    let text = move || {
        let head = map.hovered.get()?;
        let n_heads = map.n_layers * map.n_heads;
        let name = map.name(map.fast.with(|fast| fast.contains(&head)));
        let score = map.scores.with(|scores| {
            let scores = scores.as_ref()?;
            Some((score_of(scores, head)?, rank_of(scores, head)?))
        });
        let mark = map.page.state.with(|state| state.edits.mark(head));
        Some(match score {
            Some((score, rank)) => {
                format!("{} · rank {rank} of {n_heads}", cell_label(head, &name, Some(score), mark))
            }
            None => cell_label(head, &name, None, mark),
        })
    };
    let is_fixed = map.page.select(|state| state.why_fixed(Fixed::View).is_some());
    view! {
        <p class="readout" data-testid="map-readout">
            {move || match text() {
                Some(text) => text.into_any(),
                None if is_fixed.get() => {
                    view! { "Click a head to hold it; " <kbd>"Esc"</kbd> " releases." }.into_any()
                }
                None => {
                    view! {
                        "Click a head to hold it. Double-click, or " <kbd>"A"</kbd>
                        " on the keyboard, edits it (Shift-click adds more); " <kbd>"Esc"</kbd> " releases."
                    }
                        .into_any()
                }
            }}
        </p>
    }
}

#[component]
fn Legend(scale: Memo<Scale>, lens: Memo<Lens>) -> impl IntoView {
    let page = page();
    let theme = page.select(|state| state.theme());
    let ends = move || lens.get().ends(scale.get());
    view! {
        <div
            class="legend"
            role="img"
            aria-label=move || format!("Colour scale from {} to {}", ends().0, ends().1)
        >
            {move || ends().0}
            <span class="legend-bar" style:background=move || scale_gradient(theme.get(), scale.get())></span>
            {move || ends().1}
        </div>
    }
}

/// Every head with its five readings of this prompt, and the detector's score where one is chosen; the strongest of
/// the lens first.
#[component]
fn ScoreTable() -> impl IntoView {
    let page = page();
    let view = page.view();
    let detector = page.select(|state| match state.lens {
        Lens::Prompt(_) => None,
        lens => Some(state.lens_label(lens)),
    });
    let lens_scores = page.select(|state| state.lens_scores());
    let rows = move || {
        let lens_scores = lens_scores.get();
        view.with(|view| {
            let scores = &view.as_ref()?.0.scores;
            let order: Vec<HeadId> = match lens_scores.as_ref().map(ranking) {
                Some(ranked) if !ranked.is_empty() => ranked.into_iter().map(|(head, _)| head).collect(),
                _ => every_head(scores),
            };
            let text =
                |score: Option<f32>| score.map_or_else(|| "none".to_owned(), |score| format!("{score:.3}"));
            let cells = |head| {
                let own =
                    detector.get().map(|_| lens_scores.as_ref().and_then(|scores| score_of(scores, head)));
                let of_prompt = Measure::all()
                    .map(|measure| measure.scores(scores).and_then(|scores| score_of(scores, head)));
                own.into_iter().chain(of_prompt).map(text).collect::<Vec<_>>()
            };
            Some(order.into_iter().map(|head| (head, cells(head))).collect::<Vec<_>>())
        })
    };
    view! {
        <div class="table-scroll" tabindex="0" role="region" aria-label="Scores of every head">
            <table data-testid="map-table">
                <thead>
                    <tr>
                        <th scope="col">"Head"</th>
                        {move || detector.get().map(|title| view! { <th scope="col">{title}</th> })}
                        {Measure::all()
                            .into_iter()
                            .map(|measure| view! { <th scope="col">{measure.label()}</th> })
                            .collect_view()}
                    </tr>
                </thead>
                <tbody>
                    {move || {
                        rows()
                            .unwrap_or_default()
                            .into_iter()
                            .map(|(head, cells)| {
                                view! {
                                    <tr>
                                        <td>
                                            <button
                                                class="inline-link"
                                                on:click=move |_| page.send(Msg::ToggleHead(head))
                                            >
                                                {head.to_string()}
                                            </button>
                                        </td>
                                        {cells.into_iter().map(|cell| view! { <td>{cell}</td> }).collect_view()}
                                    </tr>
                                }
                            })
                            .collect_view()
                    }}
                </tbody>
            </table>
        </div>
    }
}

/// Heads in reading order, for a prompt that ranks none.
fn every_head(scores: &[HeadScores]) -> Vec<HeadId> {
    let rows = scores.first().map(|scores| scores.scores.as_slice()).unwrap_or_default();
    let heads = rows.iter().enumerate();
    heads.flat_map(|(layer, row)| (0..row.len()).map(move |head| HeadId::new(layer, head))).collect()
}
