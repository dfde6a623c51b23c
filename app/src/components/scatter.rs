//! Score against effect: one dot a head, so that one sees whether the heads that a detector names are those that matter.

use leptos::prelude::*;

use super::export::Export;
use super::page;
use crate::export::ViewKind;
use crate::protocol::Reply;
use crate::state::lab::Experiment;
use crate::state::{AppState, Msg};
use crate::view_model::lens::Lens;
use crate::view_model::measure::Measure;
use crate::view_model::scatter::Scatter;
use crate::view_model::signed_text;

/// The plot's size in its own units.
const WIDTH: f32 = 640.0;
const HEIGHT: f32 = 300.0;
/// Room for the axes' texts.
const MARGIN: f32 = 34.0;

/// The lenses whose scores can stand on the x axis: readings of the prompt, detectors that have run, imports.
fn lenses(state: &AppState) -> Vec<(Lens, String)> {
    let of_prompt = Measure::all().map(Lens::Prompt);
    let done = Lens::detectors().filter(|lens| state.scores_of(*lens).is_some());
    let imports = (0..state.imports.len() as u32).map(Lens::Imported);
    let all = of_prompt.into_iter().chain(done).chain(imports);
    all.map(|lens| (lens, state.lens_label(lens))).collect()
}

/// The card; there once a sweep is done.
#[component]
pub fn ScatterCard() -> impl IntoView {
    let page = page();
    let has_sweep = page.select(|state| {
        state.lens == Lens::Sweep && matches!(state.found(Experiment::Sweep), Some(Reply::Sweep(_)))
    });
    let lens = RwSignal::new(Lens::default());
    let choices = page.select(lenses);
    let plot = Memo::new(move |_| {
        let lens = lens.get();
        page.state.with(|state| state.scatter(lens))
    });
    let label = move || page.state.with(|state| state.lens_label(lens.get()));
    view! {
        <Show when=move || has_sweep.get()>
            <section class="card wide-card" aria-labelledby="scatter-title" data-testid="scatter">
                <div class="card-head">
                    <h2 id="scatter-title">"Score against effect"</h2>
                    <label>
                        <span class="sr-only">"Score on the x axis"</span>
                        <select
                            class="select"
                            data-testid="scatter-score"
                            on:change=move |event| {
                                if let Some(chosen) = Lens::of_key(&event_target_value(&event)) {
                                    lens.set(chosen);
                                }
                            }
                        >
                            {move || {
                                choices
                                    .get()
                                    .into_iter()
                                    .map(|(choice, label)| {
                                        view! {
                                            <option value=choice.key() prop:selected=move || lens.get() == choice>
                                                {label}
                                            </option>
                                        }
                                    })
                                    .collect_view()
                            }}
                        </select>
                    </label>
                    <Export views=move |_| vec![ViewKind::Scatter(lens.get_untracked())] />
                </div>
                {move || match plot.get() {
                    Some(plot) => view! { <Plot plot lens=label() /> }.into_any(),
                    None => {
                        view! {
                            <p class="quiet">
                                "This prompt gives no such score. Choose another, or run a detector first: its scores come on stimuli of its own."
                            </p>
                        }
                            .into_any()
                    }
                }}
            </section>
        </Show>
    }
}

#[component]
fn Plot(plot: Scatter, lens: String) -> impl IntoView {
    let page = page();
    let x = |along: f32| MARGIN + along * (WIDTH - 2.0 * MARGIN);
    let y = |along: f32| HEIGHT - MARGIN - along * (HEIGHT - 2.0 * MARGIN);
    let (low, high) = plot.effects;
    let zero = y(if high > low { -low / (high - low) } else { 0.5 });
    let dots = plot.dots.iter().map(|&dot| {
        let is_shown = page.select(move |state| state.shown_head() == Some(dot.head));
        let text = format!("{}: score {:.3}, effect {}", dot.head, dot.score, signed_text(dot.effect));
        view! {
            <circle
                class="dot-head"
                class:dot-shown=move || is_shown.get()
                cx=x(dot.x)
                cy=y(dot.y)
                r=move || if is_shown.get() { 7 } else { 4 }
                data-testid=format!("dot-{}", dot.head)
                on:click=move |_| page.send(Msg::ToggleHead(dot.head))
            >
                <title>{text}</title>
            </circle>
        }
    });
    let caption = format!(
        "Rank correlation of the score with the effect's size: {:.2} over {} heads.",
        plot.rank_correlation,
        plot.dots.len()
    );
    view! {
        <svg
            class="scatter"
            viewBox=format!("0 0 {WIDTH} {HEIGHT}")
            role="img"
            aria-label=format!("{lens} against effect, one dot a head. {caption}")
        >
            <line class="axis" x1=MARGIN x2=WIDTH - MARGIN y1=zero y2=zero></line>
            <line class="axis" x1=MARGIN x2=MARGIN y1=MARGIN y2=HEIGHT - MARGIN></line>
            <text x=MARGIN y=HEIGHT - 8.0>{format!("{:.2}", plot.scores.0)}</text>
            <text x=WIDTH - MARGIN y=HEIGHT - 8.0 text-anchor="end">{format!("{:.2}", plot.scores.1)}</text>
            <text x=WIDTH / 2.0 y=HEIGHT - 8.0 text-anchor="middle">{lens.clone()}</text>
            <text x=MARGIN + 4.0 y=MARGIN - 10.0>{format!("effect {}", signed_text(high))}</text>
            <text x=MARGIN + 4.0 y=HEIGHT - MARGIN + 12.0>{signed_text(low)}</text>
            {dots.collect_view()}
        </svg>
        <p class="quiet">{caption} " Click a dot to hold its head. The table of the map has the same numbers."</p>
    }
}
