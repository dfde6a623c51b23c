//! What stands behind a detector's scores: losses, classes, prompts. Numbers and texts are the report's.

use std::sync::Arc;

use headlight_core::report::DetectReport;
use leptos::prelude::*;

use super::retrieval::RetrievalDrawn;
use crate::view_model::evidence::{ClassEvidence, CopyLosses, classes, copy_losses};
use crate::view_model::retrieval::RetrievalEvidence;
use crate::view_model::token_text;

/// What stands behind a score, where the detector has something to show.
#[component]
pub fn Evidence(report: Arc<DetectReport>) -> impl IntoView {
    let losses = copy_losses(&report).map(|CopyLosses { first_nats, second_nats }| {
        let does = if second_nats < first_nats { "does" } else { "does not" };
        format!(
            "Loss on the first copy {first_nats:.2} nats, on the second {second_nats:.2} nats: the model {does} repeat."
        )
    });
    let classes = classes(&report).map(|classes| {
        let summary = format!("What {} says of each class", report.best.head);
        let rows = classes.iter().map(class_row).collect_view();
        evidence_table(summary, "successor-classes", &["Class", "Pairs", "Next", "Same", "Before"], rows)
    });
    let retrieval = RetrievalEvidence::of(&report);
    view! {
        {losses.map(|text| view! { <p class="quiet">{text}</p> })}
        {classes}
        {retrieval.map(|evidence| view! { <RetrievalDrawn evidence /> })}
    }
}

/// A table behind its one-line summary.
pub fn evidence_table(
    summary: String,
    testid: &'static str,
    columns: &[&'static str],
    rows: impl IntoView + 'static,
) -> AnyView {
    let columns =
        columns.iter().map(|column| view! { <th scope="col">{*column}</th> }.into_any()).collect_view();
    let label = summary.clone();
    view! {
        <details class="detector-doc">
            <summary>{summary}</summary>
            <div class="table-scroll" tabindex="0" role="region" aria-label=label>
                <table data-testid=testid>
                    <thead>
                        <tr>{columns}</tr>
                    </thead>
                    <tbody>{rows.into_any()}</tbody>
                </table>
            </div>
        </details>
    }
    .into_any()
}

fn class_row(class: &ClassEvidence) -> impl IntoView + use<> {
    let share = |share: f32| format!("{share:.2}");
    let pairs: Vec<String> = (class.rows.iter())
        .map(|pair| {
            let mark = if pair.hit { " ✓" } else { "" };
            format!("{}→{}{mark}", token_text(&pair.from), token_text(&pair.argmax))
        })
        .collect();
    view! {
        <tr>
            <td>{class.class.clone()}</td>
            <td>{class.n}</td>
            <td>{share(class.score)}</td>
            <td>{share(class.copy_rate)}</td>
            <td>{share(class.predecessor_rate)}</td>
        </tr>
        <tr>
            <td class="mono evidence-text" colspan="5">{pairs.join("  ")}</td>
        </tr>
    }
}
