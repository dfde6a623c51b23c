//! Every head by the lens' score, strongest first: a table beside the map where there is room for it.

use leptos::prelude::*;

use super::page;
use crate::state::Msg;
use crate::view_model::lens::{RankedHead, ranked};

/// The table beside the map; hidden at narrow widths, where the map's own table has the same rows.
#[component]
pub fn Ranked() -> impl IntoView {
    let page = page();
    let rows = page.select(|state| {
        let spread = state.lens_report().and_then(|report| report.spread.as_ref());
        state.lens_scores().map(|scores| ranked(&scores, spread)).unwrap_or_default()
    });
    view! {
        <div class="ranked" tabindex="0" role="region" aria-label="Heads by score">
            <table data-testid="ranked">
                <thead>
                    <tr>
                        <th scope="col">"Rank"</th>
                        <th scope="col">"Head"</th>
                        <th scope="col">"Score"</th>
                    </tr>
                </thead>
                <tbody>
                    <For
                        each=move || rows.get()
                        key=|row| (row.head, row.rank, row.text.clone())
                        children=|row| view! { <RankedRow row /> }
                    />
                </tbody>
            </table>
        </div>
    }
}

#[component]
fn RankedRow(row: RankedHead) -> impl IntoView {
    let page = page();
    let RankedHead { head, rank, text, spread } = row;
    let is_shown = page.select(move |state| state.shown_head() == Some(head));
    view! {
        <tr class:ranked-shown=move || is_shown.get()>
            <td>{rank}</td>
            <td>
                <button class="inline-link" on:click=move |_| page.send(Msg::ToggleHead(head))>
                    {head.to_string()}
                </button>
            </td>
            <td title=spread.map(|spread| format!("standard deviation over draws {spread:.3}"))>{text}</td>
        </tr>
    }
}
