//! The strongest heads of the map's lens, as a list.

use leptos::prelude::*;

use super::page;
use crate::state::Msg;
use crate::view_model::lens::{Lens, Scale};
use crate::view_model::measure::ranking;

/// Heads listed.
const N_LISTED: usize = 5;

/// The list under the map.
#[component]
pub fn Strongest() -> impl IntoView {
    let page = page();
    let rows = page.select(|state| {
        let scores = state.lens_scores()?;
        Some(ranking(&scores).into_iter().take(N_LISTED).collect::<Vec<_>>())
    });
    let lens = page.select(|state| state.lens);
    let scale = page.select(|state| state.lens.scale(state.lens_scores().as_ref()));
    view! {
        <div class="strongest">
            <h3>{move || format!("Strongest: {}", lens.get().label())}</h3>
            {move || {
                let rows = rows.get().unwrap_or_default();
                if rows.is_empty() {
                    let text = match lens.get() {
                        Lens::Prompt(_) => "None on this prompt.",
                        _ => "No scores yet.",
                    };
                    return view! { <p class="quiet">{text}</p> }.into_any();
                }
                let most = match scale.get() {
                    Scale::UpTo(most) | Scale::SignedUpTo(most) => most,
                };
                rows.into_iter()
                    .map(|(head, score)| {
                        view! {
                            <button class="strong-row" on:click=move |_| page.send(Msg::ToggleHead(head))>
                                <span class="mono">{head.to_string()}</span>
                                <span class="meter">
                                    <span
                                        class="meter-fill"
                                        style:width=format!("{:.1}%", score.abs() / most * 100.0)
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
