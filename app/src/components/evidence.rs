//! What stands behind a detector's scores: losses, classes, prompts. Numbers and texts are the report's.

use std::sync::Arc;

use headlight_core::report::DetectReport;
use leptos::prelude::*;
use serde_json::Value;

use super::retrieval::RetrievalDrawn;
use crate::view_model::retrieval::RetrievalEvidence;
use crate::view_model::token_text;

/// What stands behind a score, where the detector has something to show.
#[component]
pub fn Evidence(report: Arc<DetectReport>) -> impl IntoView {
    let evidence = &report.evidence;
    let nats = |name: &str| evidence[name].as_f64();
    let losses = nats("first_copy_nll_nats").zip(nats("second_copy_nll_nats")).map(|(first, second)| {
        let does = if second < first { "does" } else { "does not" };
        format!(
            "Loss on the first copy {first:.2} nats, on the second {second:.2} nats: the model {does} repeat."
        )
    });
    let classes = evidence["best"]["classes"].as_array().map(|classes| {
        let summary = format!("What {} says of each class", report.best.head);
        let rows = classes.iter().map(class_row).collect_view();
        evidence_table(summary, "successor-classes", &["Class", "Pairs", "Next", "Same", "Before"], rows)
    });
    let retrieval = (report.detector == "retrieval").then(|| RetrievalEvidence::of(evidence)).flatten();
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

fn class_row(class: &Value) -> impl IntoView + use<> {
    let share = |name: &str| format!("{:.2}", class[name].as_f64().unwrap_or_default());
    let text = |row: &Value, name: &str| token_text(row[name].as_str().unwrap_or_default());
    let pairs: Vec<String> = (class["rows"].as_array().into_iter().flatten())
        .map(|row| {
            let mark = if row["hit"] == true { " ✓" } else { "" };
            format!("{}→{}{mark}", text(row, "from"), text(row, "argmax"))
        })
        .collect();
    view! {
        <tr>
            <td>{class["class"].as_str().unwrap_or_default().to_owned()}</td>
            <td>{class["n"].to_string()}</td>
            <td>{share("score")}</td>
            <td>{share("copy_rate")}</td>
            <td>{share("predecessor_rate")}</td>
        </tr>
        <tr>
            <td class="mono evidence-text" colspan="5">{pairs.join("  ")}</td>
        </tr>
    }
}
