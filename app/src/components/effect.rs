//! What the edits do to the next token: two tokens compared, direct against total effect, random heads beside the edited ones,
//! and the continuation before and after.

use headlight_core::report::{ControlsReport, EffectReport};
use leptos::prelude::*;

use super::export::Export;
use super::lab::RunLine;
use super::page;
use crate::export::ViewKind;
use crate::protocol::Reply;
use crate::state::Msg;
use crate::state::job::JobStage;
use crate::state::lab::{Experiment, LabMsg, N_CONTINUED};
use crate::view_model::{percent_text, signed_text, token_text};

/// The card below the edits.
#[component]
pub fn EffectCard() -> impl IntoView {
    let page = page();
    let has_edits = page.select(|state| !state.edits.list.is_empty());
    let has_heads = page.select(|state| !state.edits.heads().is_empty());
    view! {
        <section class="card effect-card" aria-labelledby="effect-title">
            <div class="card-head">
                <h2 id="effect-title">"What follows"</h2>
                <Export views=|_| vec![ViewKind::Continuation, ViewKind::DirectEffect, ViewKind::Controls] />
            </div>
            <Continuation />
            <Show when=move || has_edits.get()>
                <Direct />
            </Show>
            <Show when=move || has_heads.get()>
                <Controls />
            </Show>
        </section>
    }
}

/// Two next tokens and the difference of their logits.
#[component]
pub fn Compare() -> impl IntoView {
    let page = page();
    let comparison = page.select(|state| state.view.as_ref().map(|view| view.comparison.clone()));
    let has_edits = page.select(|state| state.view.as_ref().is_some_and(|view| view.clean.is_some()));
    let field = move |index: usize| {
        let text = page.select(move |state| state.compare[index].clone());
        let placeholder =
            move || comparison.get().map(|c| token_text(&c.clean[index].token)).unwrap_or_default();
        view! {
            <input
                class="field"
                data-testid=format!("compare-{index}")
                aria-label=if index == 0 { "Token to follow" } else { "Token to compare it with" }
                title="The first token of what you type; empty takes one of the most probable. Mind the leading space."
                placeholder=placeholder
                prop:value=move || text.get()
                on:input=move |event| page.send(Msg::SetCompare(index, event_target_value(&event)))
            />
        }
    };
    let line = move || {
        let comparison = comparison.get()?;
        let difference = |pair: &[headlight_core::report::TokenLogit; 2]| pair[0].logit - pair[1].logit;
        let clean = difference(&comparison.clean);
        Some(match has_edits.get() {
            false => format!("Logit difference {}", signed_text(clean)),
            true => {
                let edited = difference(&comparison.edited);
                format!("Logit difference {} → {}", signed_text(clean), signed_text(edited))
            }
        })
    };
    view! {
        <div class="effect">
            <div class="setting">
                <span>"Compare"</span>
                {field(0)}
                {field(1)}
            </div>
            <p class="quiet" data-testid="logit-difference">{line}</p>
        </div>
    }
}

/// Total effect beside the direct one.
#[component]
fn Direct() -> impl IntoView {
    let page = page();
    let report = page.select(|state| match state.found(Experiment::Effect) {
        Some(Reply::Effect(report)) => Some(report.clone()),
        _ => None,
    });
    view! {
        <div class="effect" data-testid="direct-effect">
            {move || match report.get() {
                Some(report) => direct_lines(&report).into_any(),
                None => view! { <p class="quiet">"Direct effect: computing …"</p> }.into_any(),
            }}
        </div>
    }
}

fn direct_lines(report: &EffectReport) -> impl IntoView + use<> {
    let Some(direct_kl) = report.direct_kl_nats else {
        return view! { <p class="quiet">"The prompt is too long here for the direct effect."</p> }
            .into_any();
    };
    let total_kl = report.kl_nats.last().copied().unwrap_or_default();
    let of_top = report.clean_top.first().zip(report.edited_top.first()).zip(report.direct_top.first());
    let line = of_top.map(|((clean, edited), direct)| {
        format!(
            "“{}” {} nats in all, {} directly.",
            token_text(&clean.token),
            signed_text(edited.logprob - clean.logprob),
            signed_text(direct.logprob - clean.logprob),
        )
    });
    view! {
        <p>{line}</p>
        <p class="quiet">
            {format!("KL {total_kl:.3} nats in all, {direct_kl:.3} directly. ")}
            "Direct: everything after the edits stays as it was. Where that is more than the whole effect, later layers made up for the edit (self-repair); where it is less, the edit acts through them."
        </p>
    }
    .into_any()
}

/// The edited heads against random ones.
#[component]
fn Controls() -> impl IntoView {
    let page = page();
    let report = page.select(|state| match state.found(Experiment::Controls) {
        Some(Reply::Controls(report)) => Some(report.clone()),
        _ => None,
    });
    view! {
        <div class="effect" data-testid="controls">
            <p class="quiet">"Against as many random heads of the same layers:"</p>
            <RunLine experiment=Experiment::Controls />
            {move || report.get().map(|report| view! { <p>{controls_text(&report)}</p> })}
        </div>
    }
}

fn controls_text(report: &ControlsReport) -> String {
    let found = &report.findings;
    format!(
        "Log-probability {} nats with these heads; {} ± {:.2} with {} random sets out of {} other heads.",
        signed_text(found.effect),
        signed_text(found.random_mean),
        found.random_sd,
        found.random_effects.len(),
        found.n_others,
    )
}

/// What the model writes on, before and after.
#[component]
fn Continuation() -> impl IntoView {
    let page = page();
    let has_edits = page.select(|state| !state.edits.list.is_empty());
    let temperature = page.select(|state| state.lab.settings.temperature);
    let seed = page.select(|state| state.lab.settings.seed);
    let set = move |temperature: f32, seed: u64| {
        let mut settings = page.state.with_untracked(|state| state.lab.settings.clone());
        (settings.temperature, settings.seed) = (temperature, seed);
        page.send(Msg::Lab(LabMsg::Set(settings)));
    };
    let is_at_work = page.select(|state| {
        state.at_work(Experiment::CleanText).is_some() || state.at_work(Experiment::EditedText).is_some()
    });
    // Not while the edits' own run is still to come.
    let can_write = page.select(|state| state.wanted_call(Experiment::CleanText).is_some());
    let write = move |_| {
        page.send(Msg::Lab(LabMsg::Start(Experiment::CleanText)));
        if has_edits.get_untracked() {
            page.send(Msg::Lab(LabMsg::Start(Experiment::EditedText)));
        }
    };
    let stop = move |_| {
        page.send(Msg::Lab(LabMsg::Stop(Experiment::CleanText)));
        page.send(Msg::Lab(LabMsg::Stop(Experiment::EditedText)));
    };
    view! {
        <div>
            <div class="setting">
                <span>"Continue"</span>
                <select
                    class="select"
                    aria-label="How tokens are chosen"
                    data-testid="temperature"
                    on:change=move |event| {
                        let value = event_target_value(&event).parse().unwrap_or(0.0);
                        set(value, seed.get_untracked());
                    }
                >
                    {[(0.0, "most probable"), (0.7, "drawn, temperature 0.7"), (1.0, "drawn, temperature 1")]
                        .map(|(value, name): (f32, &str)| {
                            view! {
                                <option
                                    value=value.to_string()
                                    prop:selected=move || temperature.get() == value
                                >
                                    {name}
                                </option>
                            }
                        })
                        .collect_view()}
                </select>
                <Show
                    when=move || is_at_work.get()
                    fallback=move || view! {
                        <button
                            class="button"
                            data-testid="continue"
                            disabled=move || !can_write.get()
                            on:click=write
                        >
                            {format!("Write {N_CONTINUED}")}
                        </button>
                    }
                >
                    <button class="button" data-testid="continue-stop" on:click=stop>"Stop"</button>
                </Show>
            </div>
            <Show when=move || { temperature.get() > 0.0 }>
                <p class="quiet">
                    {move || format!("Seed {}: the same draws before and after. ", seed.get())}
                    <button
                        class="inline-link"
                        on:click=move |_| set(temperature.get_untracked(), seed.get_untracked() + 1)
                    >
                        "Another seed"
                    </button>
                </p>
            </Show>
            <Written experiment=Experiment::CleanText title="Before" />
            <Show when=move || has_edits.get()>
                <Written experiment=Experiment::EditedText title="After" />
            </Show>
        </div>
    }
}

#[component]
fn Written(experiment: Experiment, title: &'static str) -> impl IntoView {
    let page = page();
    let text = page.select(move |state| {
        if let Some(job) = state.at_work(experiment) {
            let JobStage::Running(progress) = &job.stage else { return None };
            return Some(progress.as_ref().and_then(|p| p.text.clone()).unwrap_or_default() + " …");
        }
        match state.found(experiment) {
            Some(Reply::Generate(report)) => Some(report.text.clone()),
            _ => None,
        }
    });
    let failure = page.select(move |state| match &state.lab.jobs.get(&experiment)?.stage {
        JobStage::Failed(error) => Some(format!("{}.", error.message)),
        _ => None,
    });
    view! {
        {move || {
            let text = text.get()?;
            let testid = format!("continuation-{}", title.to_lowercase());
            Some(view! {
                <p class="written">
                    <span class="badge">{title}</span>
                    <span class="mono" data-testid=testid>{text}</span>
                </p>
            })
        }}
        {move || failure.get().map(|text| view! { <p class="detector-failed">{text}</p> })}
    }
}

/// A probability's change, for a tooltip.
pub fn probability_change(clean_nll: f32, edited_nll: f32) -> String {
    format!("{} → {}", percent_text((-clean_nll).exp()), percent_text((-edited_nll).exp()))
}
