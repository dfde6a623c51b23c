//! The strongest heads of the chosen measure on this prompt, as a list.

use leptos::prelude::*;

use super::page;
use crate::state::Msg;
use crate::view_model::measure::ranking;

/// Heads listed.
const N_LISTED: usize = 5;

/// The list under the map.
#[component]
pub fn Strongest() -> impl IntoView {
    let page = page();
    let rows = page.select(|state| {
        let scores = state.view.as_ref().and_then(|view| state.measure.scores(&view.scores))?;
        Some(ranking(scores).into_iter().take(N_LISTED).collect::<Vec<_>>())
    });
    let measure = page.select(|state| state.measure);
    view! {
        <div class="strongest">
            <h3>{move || format!("Strongest: {}", measure.get().meaning())}</h3>
            {move || {
                let rows = rows.get().unwrap_or_default();
                if rows.is_empty() {
                    return view! { <p class="quiet">"None on this prompt."</p> }.into_any();
                }
                rows.into_iter()
                    .map(|(head, score)| {
                        view! {
                            <button class="strong-row" on:click=move |_| page.send(Msg::ToggleHead(head))>
                                <span class="mono">{head.to_string()}</span>
                                <span class="meter">
                                    <span
                                        class="meter-fill"
                                        style:width=format!("{:.1}%", score * 100.0)
                                        style:display="block"
                                    ></span>
                                </span>
                                <span class="number">{format!("{score:.2}")}</span>
                            </button>
                        }
                    })
                    .collect_view()
                    .into_any()
            }}
        </div>
    }
}
