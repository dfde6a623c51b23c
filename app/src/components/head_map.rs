//! The head map: one cell a head, layer 0 at the bottom; and its twin as a table.

use headlight_core::ids::HeadId;
use headlight_core::report::HeadScores;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use super::{Page, page, strongest::Strongest};
use crate::state::Msg;
use crate::view_model::colour::{heat, heat_gradient};
use crate::view_model::measure::{Measure, caption, rank_of, ranking, score_of};
use crate::view_model::{Step, cell_label, neighbour};

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
    measure: Memo<Measure>,
    scores: Memo<Option<HeadScores>>,
    /// The one cell that Tab reaches.
    focused: RwSignal<HeadId>,
    hovered: RwSignal<Option<HeadId>>,
}

/// The map's card.
#[component]
pub fn MapCard() -> impl IntoView {
    let page = page();
    let shape = page.select(|state| state.model.as_ref().map(|m| (m.info.n_layers, m.info.n_heads)));
    let measure = page.select(|state| state.measure);
    let scores =
        page.select(|state| state.view.as_ref().and_then(|view| state.measure.scores(&view.scores).cloned()));
    let is_empty = page.select(|state| state.model.is_some() && state.is_prompt_empty());
    let is_table = RwSignal::new(false);
    let hovered = RwSignal::new(None);
    view! {
        <section class="card map-card" aria-labelledby="map-title">
            <div class="card-head">
                <h2 id="map-title">"Heads"</h2>
                <MeasureMenu />
                <button
                    class="button"
                    data-testid="map-table-toggle"
                    aria-pressed=move || is_table.get().to_string()
                    on:click=move |_| is_table.update(|is_table| *is_table = !*is_table)
                >
                    "Table"
                </button>
            </div>
            <p class="caption" data-testid="map-caption">
                {move || match is_empty.get() {
                    true => "The prompt is empty, so no head has anything to look at.".to_owned(),
                    false => scores.with(|scores| caption(measure.get(), scores.as_ref())),
                }}
            </p>
            {move || match (shape.get(), is_table.get()) {
                (None, _) => view! { <div class="ghost ghost-map"></div> }.into_any(),
                (Some(_), true) => view! { <ScoreTable /> }.into_any(),
                (Some((n_layers, n_heads)), false) => {
                    let focused = RwSignal::new(HeadId::new(0, 0));
                    let map = Map { page, n_layers, n_heads, measure, scores, focused, hovered };
                    view! {
                        <Grid map />
                        <Readout map />
                        <Legend />
                        <Strongest />
                    }
                        .into_any()
                }
            }}
        </section>
    }
}

#[component]
fn MeasureMenu() -> impl IntoView {
    let page = page();
    let measure = page.select(|state| state.measure);
    view! {
        <label>
            <span class="sr-only">"Coloured by"</span>
            <select
                class="select"
                data-testid="measure"
                on:change=move |event| {
                    if let Some(measure) = Measure::of_target(&event_target_value(&event)) {
                        page.send(Msg::SetMeasure(measure));
                    }
                }
            >
                {Measure::ALL
                    .into_iter()
                    .map(|option| {
                        view! {
                            <option value=option.target() selected=move || measure.get() == option>
                                {option.label()}
                            </option>
                        }
                    })
                    .collect_view()}
            </select>
        </label>
    }
}

#[component]
fn Grid(map: Map) -> impl IntoView {
    let cell_height = (MAP_HEIGHT / map.n_layers.max(1)).clamp(14, 44) - 2;
    let on_key = move |event: leptos::ev::KeyboardEvent| {
        let focused = map.focused.get_untracked();
        let key = event.key();
        if let Some(step) = Step::of_key(&key) {
            event.prevent_default();
            let next = neighbour(focused, step, map.n_layers, map.n_heads);
            map.focused.set(next);
            focus_cell(next);
        } else if matches!(key.as_str(), "a" | "A") && !event.ctrl_key() && !event.meta_key() {
            map.page.send(Msg::ToggleAblation(focused));
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
                        <div class="map-row" role="row" aria-rowindex=map.n_layers - layer>
                            <span class="map-label" aria-hidden="true">{layer}</span>
                            {(0..map.n_heads)
                                .map(|head| view! { <Cell map head=HeadId::new(layer, head) /> })
                                .collect_view()}
                        </div>
                    }
                })
                .collect_view()}
            <div class="map-row map-row-heads" aria-hidden="true">
                <span class="map-label">"L\u{2009}H"</span>
                {(0..map.n_heads).map(|head| view! { <span class="map-label">{head}</span> }).collect_view()}
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
    let is_off = page.select(move |state| state.ablated.contains(&head));
    let theme = page.select(|state| state.theme());
    let fill = Memo::new(move |_| heat(theme.get(), score.get().unwrap_or(0.0)).css());
    let ink = Memo::new(move |_| heat(theme.get(), score.get().unwrap_or(0.0)).ink().css());
    let number = (map.n_layers <= MAX_LAYERS_WITH_NUMBERS)
        .then_some(move || score.get().map(|score| format!("{score:.2}")));
    view! {
        <button
            class="cell"
            class:cell-held=move || is_held.get()
            class:cell-shown=move || is_shown.get()
            class:cell-off=move || is_off.get()
            role="gridcell"
            id=cell_id(head)
            data-testid=format!("head-{head}")
            data-score=move || score.get().map(|score| format!("{score:.4}"))
            tabindex=move || if map.focused.get() == head { "0" } else { "-1" }
            aria-selected=move || is_held.get().to_string()
            aria-label=move || cell_label(head, map.measure.get().name(), score.get(), is_off.get())
            style:background=move || fill.get()
            style:color=move || ink.get()
            on:mouseenter=move |_| map.hovered.set(Some(head))
            on:focus=move |_| {
                map.focused.set(head);
                map.hovered.set(Some(head));
            }
            on:click=move |event| {
                let msg = if event.alt_key() { Msg::ToggleAblation(head) } else { Msg::ToggleHead(head) };
                page.send(msg);
            }
            on:dblclick=move |event| {
                if !event.alt_key() {
                    page.send(Msg::ToggleAblation(head));
                }
            }
        >
            {number}
        </button>
    }
}

/// What the pointed-at head scores.
#[component]
fn Readout(map: Map) -> impl IntoView {
    let text = move || {
        let head = map.hovered.get()?;
        let n_heads = map.n_layers * map.n_heads;
        let measure = map.measure.get();
        let score = map.scores.with(|scores| {
            let scores = scores.as_ref()?;
            Some((score_of(scores, head)?, rank_of(scores, head)?))
        });
        let is_off = map.page.state.with(|state| state.ablated.contains(&head));
        Some(match score {
            Some((score, rank)) => format!(
                "{} · rank {rank} of {n_heads}",
                cell_label(head, measure.name(), Some(score), is_off)
            ),
            None => cell_label(head, measure.name(), None, is_off),
        })
    };
    view! {
        <p class="readout" data-testid="map-readout">
            {move || match text() {
                Some(text) => text.into_any(),
                None => {
                    view! {
                        "Click a head to hold it. Double-click, or " <kbd>"A"</kbd>
                        " on the keyboard, switches it off; " <kbd>"Esc"</kbd> " releases."
                    }
                        .into_any()
                }
            }}
        </p>
    }
}

#[component]
fn Legend() -> impl IntoView {
    let page = page();
    let theme = page.select(|state| state.theme());
    view! {
        <div class="legend" aria-label="Colour scale from 0 to 1">
            "0"
            <span class="legend-bar" style:background=move || heat_gradient(theme.get())></span>
            "1"
        </div>
    }
}

/// Every head with its five scores, the strongest of the chosen measure first.
#[component]
fn ScoreTable() -> impl IntoView {
    let page = page();
    let view = page.view();
    let rows = move || {
        let measure = page.state.with(|state| state.measure);
        view.with(|view| {
            let scores = &view.as_ref()?.0.scores;
            let order: Vec<HeadId> = match measure.scores(scores).map(ranking) {
                Some(ranked) if !ranked.is_empty() => ranked.into_iter().map(|(head, _)| head).collect(),
                _ => every_head(scores),
            };
            let cell = |measure: Measure, head| {
                let score = measure.scores(scores).and_then(|scores| score_of(scores, head));
                score.map_or_else(|| "none".to_owned(), |score| format!("{score:.3}"))
            };
            let rows = order.into_iter().map(|head| (head, Measure::ALL.map(|measure| cell(measure, head))));
            Some(rows.collect::<Vec<_>>())
        })
    };
    view! {
        <div class="table-scroll" tabindex="0" role="region" aria-label="Scores of every head">
            <table data-testid="map-table">
                <thead>
                    <tr>
                        <th scope="col">"Head"</th>
                        {Measure::ALL
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
