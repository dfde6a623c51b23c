//! This machine: how fast it runs the model, measured on the spot, and how many workers share long work.

use std::sync::Arc;

use headlight_core::report::{BenchReport, LoadTimes};
use leptos::prelude::*;

use super::page;
use crate::sharing;
use crate::state::Msg;
use crate::state::machine::{MachineMsg, Measurement, N_REPEATS};
use crate::view_model::size_text;

/// Opens in the footer; nothing is measured before the button is pressed.
#[component]
pub fn ThisMachine() -> impl IntoView {
    let page = page();
    let measurement = page.select(|state| state.measurement.clone());
    let is_running = page.select(|state| state.measurement == Some(Measurement::Running));
    // What the badge tells who can hover.
    let engine = page.select(|state| {
        let engine = &state.model.as_ref()?.engine;
        Some(format!("Engine {}: {}.", engine.name, engine.why))
    });
    let can_measure = page.select(|state| state.model.as_ref().is_some_and(|model| model.is_live));
    view! {
        <details class="method" data-testid="machine">
            <summary>"This machine: what runs the model here, how fast, and on how many workers"</summary>
            <p data-testid="machine-engine">{move || engine.get()}</p>
            <p>
                "Reads made-up prompts with the attention of every head scored, " {N_REPEATS}
                " times each; the median counts. Nothing is sent anywhere."
            </p>
            <p>
                <button
                    class="button"
                    data-testid="machine-measure"
                    disabled=move || is_running.get() || !can_measure.get()
                    on:click=move |_| page.send(Msg::Machine(MachineMsg::Measure))
                >
                    {move || if is_running.get() { "Measuring" } else { "Measure" }}
                </button>
            </p>
            <div role="status">
                {move || match measurement.get()? {
                    Measurement::Running => None,
                    Measurement::Done(report) => Some(view! { <Measured report /> }.into_any()),
                    Measurement::Failed(error) => {
                        Some(view! { <p>{format!("Not measured: {}.", error.message)}</p> }.into_any())
                    }
                }}
            </div>
            <WorkersMenu />
        </details>
    }
}

/// How many workers share long work, and why so many.
#[component]
fn WorkersMenu() -> impl IntoView {
    let page = page();
    let chosen = page.select(|state| state.n_workers);
    let numbers =
        page.select(|state| sharing::choices(state.n_workers, state.machine).collect::<Vec<usize>>());
    let told = page.select(|state| {
        let (n_workers, why) = state.workers()?;
        let noun = if n_workers == 1 { "one worker".to_owned() } else { format!("{n_workers} workers") };
        Some(format!(
            "Sweeps and detectors that take long run on {noun}: {why}. Any number of workers gives the same numbers, bit for bit."
        ))
    });
    view! {
        <div class="settings">
            <label class="setting">
                <span>"Workers"</span>
                <select
                    class="select"
                    data-testid="workers-choice"
                    aria-describedby="workers-told"
                    on:change=move |event| {
                        let n_workers = event_target_value(&event).parse().ok();
                        page.send(Msg::Machine(MachineMsg::ChooseWorkers(n_workers)));
                    }
                >
                    <option value="auto" prop:selected=move || chosen.get().is_none()>"auto"</option>
                    {move || {
                        let option = |n: usize| {
                            view! { <option value=n prop:selected=move || chosen.get() == Some(n)>{n}</option> }
                        };
                        numbers.get().into_iter().map(option).collect_view()
                    }}
                </select>
            </label>
            <p id="workers-told" class="quiet" role="status" data-testid="workers-told">{move || told.get()}</p>
        </div>
    }
}

#[component]
fn Measured(report: Arc<BenchReport>) -> impl IntoView {
    let has_fast = report.prefill_fast.is_some();
    let rows = report.prefill.iter().enumerate().map(|(index, speed)| {
        let fast = report.prefill_fast.as_ref().and_then(|fast| fast.get(index));
        view! {
            <tr>
                <td>{speed.n_tokens}</td>
                <td>{format!("{:.0}", speed.tokens_per_s)}</td>
                <td>{format!("{:.0} ms", speed.n_tokens as f64 / speed.tokens_per_s * 1000.0)}</td>
                {fast.map(|fast| view! { <td>{format!("{:.0}", fast.tokens_per_s)}</td> })}
            </tr>
        }
    });
    let kernel = report.kernel.map(|kernel| {
        format!(
            "Products of matrices: {:.0} thousand million multiplications and additions a second, {:.0} % of the {:.0} that one thread could do. ",
            kernel.matmul_gmacs,
            100.0 * kernel.matmul_of_peak,
            kernel.peak_gmacs,
        )
    });
    let loading = report.loading.map(|LoadTimes { read_ms, parse_ms, pack_ms, choose_ms }| {
        format!(
            "Loaded in {:.1} s: read and checked {read_ms:.0} ms, parsed {parse_ms:.0}, packed {pack_ms:.0}, engine chosen {choose_ms:.0}. ",
            (read_ms + parse_ms + pack_ms + choose_ms) / 1000.0,
        )
    });
    let memory = report.memory_bytes.map(|bytes| format!("Memory: {} at most.", size_text(bytes)));
    view! {
        <p data-testid="measured">{report.model.clone()} " on " {report.engine.clone()} ", one thread:"</p>
        <table class="causal">
            <thead>
                <tr>
                    <th scope="col">"Tokens"</th>
                    <th scope="col">"Tokens a second"</th>
                    <th scope="col">"One pass"</th>
                    {has_fast.then(|| view! { <th scope="col">"Tokens a second, fast precision"</th> })}
                </tr>
            </thead>
            <tbody>{rows.collect_view()}</tbody>
        </table>
        <p>{kernel} {memory}</p>
        <p>{loading}</p>
    }
}
