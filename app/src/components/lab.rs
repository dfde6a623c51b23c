//! The experiment that colours the map: what it is asked, how far it is, and what it found, in a sentence.

use headlight_core::ablate::Metric;
use headlight_core::ablate::patching::Direction;
use headlight_core::ids::HeadId;
use leptos::prelude::*;

use super::progress::JobProgress;
use super::{Page, page};
use crate::protocol::{EditWhere, Reply};
use crate::state::Msg;
use crate::state::edits::{EditMsg, kind_of, offered};
use crate::state::job::JobStage;
use crate::state::lab::{Experiment, FastOffer, LabMsg, LabSettings, SetEffect};
use crate::view_model::edits::{heads_text, where_text};
use crate::view_model::measure::ranking;
use crate::view_model::{progress_text, signed_text, token_text};

/// Heads that one click edits.
const TOP_K: usize = 5;

/// Pairs of prompts that differ in what decides the answer: name, clean, corrupted.
pub const PAIRS: [(&str, &str, &str); 4] = [
    (
        "Who gives (IOI)",
        "When Mary and John went to the store, John gave a drink to",
        "When Mary and John went to the store, Mary gave a drink to",
    ),
    ("Capitals", "The capital of France is", "The capital of Italy is"),
    (
        "Repeated name",
        "On Monday Zorbax met Quill Mandrik. On Tuesday Zorbax met Quill",
        "On Monday Quill met Zorbax Mandrik. On Tuesday Zorbax met Quill",
    ),
    (
        "Greater than",
        "The war lasted from the year 1732 to the year 17",
        "The war lasted from the year 1702 to the year 17",
    ),
];

/// Changes the settings.
fn set(page: Page, change: impl FnOnce(&mut LabSettings)) {
    let mut settings = page.state.with_untracked(|state| state.lab.settings.clone());
    change(&mut settings);
    page.send(Msg::Lab(LabMsg::Set(settings)));
}

/// Between caption and map, when the lens is an experiment.
#[component]
pub fn LabPanel() -> impl IntoView {
    let page = page();
    let experiment = page.select(|state| state.lens.experiment());
    view! {
        {move || {
            let experiment = experiment.get()?;
            let settings = match experiment {
                Experiment::Sweep => view! { <SweepSettings /> }.into_any(),
                Experiment::Dla => view! { <DlaSettings /> }.into_any(),
                _ => view! { <PatchSettings /> }.into_any(),
            };
            Some(view! {
                <div class="detector" data-testid="lab">
                    {settings} <RunLine experiment /> <Finding experiment />
                    {(experiment == Experiment::Sweep).then(|| view! { <SetEffects /> })}
                </div>
            })
        }}
    }
}

/// The button that runs an experiment, or its progress with the buttons that hold and end it, or why it failed.
#[component]
pub fn RunLine(experiment: Experiment) -> impl IntoView {
    let page = page();
    let is_at_work = page.select(move |state| state.at_work(experiment).is_some());
    let is_found = page.select(move |state| state.found(experiment).is_some());
    let can_run = page.select(move |state| state.wanted_call(experiment).is_some());
    let is_paused = page.select(move |state| state.at_work(experiment).is_some_and(|job| job.is_paused));
    let progress = page.select(move |state| match &state.at_work(experiment)?.stage {
        JobStage::Running(progress) => progress.as_ref().map(progress_text),
        _ => None,
    });
    let failure = page.select(move |state| {
        let job = state.lab.jobs.get(&experiment)?;
        match &job.stage {
            JobStage::Failed(error) if state.wanted_call(experiment).as_ref() == Some(&job.call) => {
                Some(error.message.clone())
            }
            _ => None,
        }
    });
    let id = format!("{experiment:?}").to_lowercase();
    let run_id = format!("{id}-run");
    let hold = move |is_held| {
        let msg = if is_held { LabMsg::Pause(experiment) } else { LabMsg::Resume(experiment) };
        page.send(Msg::Lab(msg));
    };
    let stop = move || page.send(Msg::Lab(LabMsg::Stop(experiment)));
    view! {
        <Show when=move || is_at_work.get()>
            <JobProgress id=id.clone() progress is_paused on_hold=hold on_stop=stop />
        </Show>
        <Show when=move || !is_at_work.get() && !is_found.get()>
            <div class="toast-line">
                <p class="quiet" role="status">
                    {move || match (failure.get(), can_run.get()) {
                        (Some(message), _) => format!("No result: {message}."),
                        (None, true) => "Not run on this prompt and these settings.".to_owned(),
                        (None, false) => missing(experiment).to_owned(),
                    }}
                </p>
                <button
                    class="button button-main"
                    data-testid=run_id.clone()
                    disabled=move || !can_run.get()
                    on:click=move |_| page.send(Msg::Lab(LabMsg::Start(experiment)))
                >
                    "Run"
                </button>
            </div>
        </Show>
    }
}

/// What an experiment lacks while it cannot be asked.
fn missing(experiment: Experiment) -> &'static str {
    match experiment {
        Experiment::Patch => "Give the corrupted prompt.",
        Experiment::Controls => "Edit a head first.",
        Experiment::Sweep | Experiment::SetSweep => {
            "This prompt has nothing to measure: no next token, or no repeated one."
        }
        _ => "Waiting for the prompt.",
    }
}

/// Named sets of heads, each edited as a whole, once there are any.
#[component]
fn SetEffects() -> impl IntoView {
    let page = page();
    let has_sets = page.select(|state| state.swept_sets().is_some());
    let effects = page.select(|state| state.set_effects());
    let row = |SetEffect { set, together, one_by_one }: SetEffect| {
        let heads: Vec<HeadId> = set.heads.iter().copied().collect();
        view! {
            <tr>
                <th scope="row" title=heads_text(&heads, usize::MAX)>{set.name}</th>
                <td>{heads.len()}</td>
                <td>{signed_text(together)}</td>
                <td>{one_by_one.map_or_else(|| "not swept".to_owned(), signed_text)}</td>
            </tr>
        }
    };
    view! {
        <Show when=move || has_sets.get()>
            <div class="set-effects">
                <h3 class="quiet">"Your sets, each edited as a whole"</h3>
                <RunLine experiment=Experiment::SetSweep />
                {move || {
                    let rows = effects.get()?.into_iter().map(row).collect_view();
                    Some(view! {
                        <table class="set-table" data-testid="set-effects">
                            <thead>
                                <tr>
                                    <th scope="col">"Set"</th>
                                    <th scope="col">"Heads"</th>
                                    <th scope="col">"Together"</th>
                                    <th scope="col">"One by one, summed"</th>
                                </tr>
                            </thead>
                            <tbody>{rows}</tbody>
                        </table>
                    })
                }}
            </div>
        </Show>
    }
}

#[component]
fn SweepSettings() -> impl IntoView {
    let page = page();
    let settings = page.select(|state| state.lab.settings.clone());
    let edits = offered().into_iter().enumerate().map(|(index, (name, _))| {
        view! {
            <option
                value=index.to_string()
                prop:selected=move || settings.with(|s| kind_of(&s.sweep_edit) == Some(index))
            >
                {name}
            </option>
        }
    });
    let metrics = [
        (Metric::Logprob, "log-probability of the token"),
        (Metric::LogitDiff, "logit difference of the two"),
        (Metric::Logit, "logit of the token"),
        (Metric::Kl, "KL of the next token"),
        (Metric::Loss, "mean loss"),
    ];
    let metric_value = |metric: Metric, is_repeated: bool| match is_repeated {
        true => "loss_repeated".to_owned(),
        false => metric.name().to_owned(),
    };
    let option = move |metric: Metric, is_repeated: bool, name: &'static str| {
        view! {
            <option
                value=metric_value(metric, is_repeated)
                prop:selected=move || {
                    settings.with(|s| s.metric == metric && s.is_repeated_only == is_repeated)
                }
            >
                {name}
            </option>
        }
    };
    view! {
        <div class="settings">
            <div class="setting">
                <span>"Edit"</span>
                <select
                    class="select"
                    aria-label="What is done to each head"
                    data-testid="sweep-edit"
                    on:change=move |event| {
                        let index: Option<usize> = event_target_value(&event).parse().ok();
                        let chosen = index.and_then(|index| offered().into_iter().nth(index));
                        set(page, |settings| {
                            if let Some((_, edit)) = chosen {
                                settings.sweep_edit = edit;
                            }
                        });
                    }
                >
                    {edits.collect_view()}
                </select>
                <select
                    class="select"
                    aria-label="Where in the prompt"
                    data-testid="sweep-where"
                    on:change=move |event| {
                        let value = event_target_value(&event);
                        let at = EditWhere::ALL.into_iter().find(|at| where_text(*at) == value);
                        set(page, |settings| settings.sweep_where = at.unwrap_or_default());
                    }
                >
                    {EditWhere::ALL
                        .map(|choice| {
                            view! {
                                <option
                                    value=where_text(choice)
                                    prop:selected=move || settings.with(|s| s.sweep_where == choice)
                                >
                                    {where_text(choice)}
                                </option>
                            }
                        })
                        .collect_view()}
                </select>
            </div>
            <label class="setting">
                <span>"Measure"</span>
                <select
                    class="select"
                    data-testid="sweep-metric"
                    on:change=move |event| {
                        let value = event_target_value(&event);
                        let metric = Metric::ALL.into_iter().find(|metric| metric.name() == value);
                        set(page, |settings| {
                            settings.is_repeated_only = value == "loss_repeated";
                            settings.metric = metric.unwrap_or(Metric::Loss);
                        });
                    }
                >
                    {metrics.map(|(metric, name)| option(metric, false, name)).collect_view()}
                    {option(Metric::Loss, true, "loss on repeated tokens")}
                </select>
            </label>
            <FastFirst />
        </div>
    }
}

/// The switch for numbers in fast precision, where those would come sooner.
#[component]
fn FastFirst() -> impl IntoView {
    let page = page();
    let offer = page.select(|state| state.fast_offer());
    let is_exact_only = page.select(|state| state.lab.is_exact_only);
    move || {
        let FastOffer { speedup, max_difference } = offer.get()?;
        Some(view! {
            <label
                class="check"
                title="Products in whole numbers of sixteen bits, marked in the map; exact ones take their place, the largest effects first"
            >
                <input
                    type="checkbox"
                    data-testid="fast-first"
                    prop:checked=move || !is_exact_only.get()
                    on:change=move |event| {
                        page.send(Msg::Lab(LabMsg::ExactOnly(!event_target_checked(&event))));
                    }
                />
                {format!(
                    "fast numbers first ({speedup:.1} times as quick here, logits within {max_difference:.2}), then exact ones",
                )}
            </label>
        })
    }
}

#[component]
fn DlaSettings() -> impl IntoView {
    let page = page();
    let is_difference = page.select(|state| state.lab.settings.is_difference);
    view! {
        <label class="check">
            <input
                type="checkbox"
                data-testid="dla-difference"
                prop:checked=move || is_difference.get()
                on:change=move |event| {
                    let is_on = event_target_checked(&event);
                    set(page, |settings| settings.is_difference = is_on);
                }
            />
            "of the difference of the two compared tokens"
        </label>
    }
}

#[component]
fn PatchSettings() -> impl IntoView {
    let page = page();
    let corrupted = page.select(|state| state.lab.settings.corrupted.clone());
    let direction = page.select(|state| state.lab.settings.direction);
    view! {
        <div class="settings">
            <div class="examples">
                <span class="quiet">"Pairs"</span>
                {PAIRS
                    .map(|(name, clean, other)| {
                        view! {
                            <button
                                class="example"
                                title=format!("{clean} / {other}")
                                on:click=move |_| {
                                    set(page, |settings| settings.corrupted = other.to_owned());
                                    page.send(Msg::SetPrompt(clean.to_owned()));
                                }
                            >
                                {name}
                            </button>
                        }
                    })
                    .collect_view()}
            </div>
            <label class="setting">
                <span>"Corrupted"</span>
                <input
                    class="field"
                    data-testid="patch-corrupted"
                    placeholder="a prompt of as many tokens, with another answer"
                    prop:value=move || corrupted.get()
                    on:input=move |event| {
                        let text = event_target_value(&event);
                        set(page, |settings| settings.corrupted = text);
                    }
                />
            </label>
            <label class="setting">
                <span>"Direction"</span>
                <select
                    class="select"
                    data-testid="patch-direction"
                    on:change=move |event| {
                        let is_noise = event_target_value(&event) == "noise";
                        let direction = if is_noise { Direction::Noise } else { Direction::Denoise };
                        set(page, |settings| settings.direction = direction);
                    }
                >
                    <option value="denoise" prop:selected=move || direction.get() == Direction::Denoise>
                        "clean into corrupted: what suffices"
                    </option>
                    <option value="noise" prop:selected=move || direction.get() == Direction::Noise>
                        "corrupted into clean: what is needed"
                    </option>
                </select>
            </label>
        </div>
    }
}

/// What the experiment found, in a sentence, and what can be done with it.
#[component]
fn Finding(experiment: Experiment) -> impl IntoView {
    let page = page();
    let text = page.select(move |state| Some(finding_text(state.found(experiment)?, &token_of(state))));
    let top = page.select(move |state| {
        state.found(experiment)?;
        let ranked = ranking(&state.lens_scores()?);
        Some(ranked.into_iter().take(TOP_K).map(|(head, _)| head).collect::<Vec<_>>())
    });
    view! {
        {move || text.get().map(|text| view! { <p class="verdict" data-testid="lab-finding">{text}</p> })}
        {move || {
            let top = top.get()?;
            let is_sweep = experiment == Experiment::Sweep;
            Some(view! {
                <div class="toast-line">
                    <p class="quiet">
                        {if is_sweep {
                            "Later heads may make up for a missing one, so a single edit can hide what a set does."
                        } else if experiment == Experiment::Dla {
                            "What a part did through later layers is not in its number."
                        } else {
                            "1: as in the clean run; 0: as in the corrupted one."
                        }}
                    </p>
                    <button
                        class="button"
                        data-testid="edit-top"
                        on:click=move |_| page.send(Msg::Edit(EditMsg::EditHeads(top.clone())))
                    >
                        {format!("Edit the top {TOP_K}")}
                    </button>
                </div>
            })
        }}
    }
}

/// The first compared token as the page prints it.
fn token_of(state: &crate::state::AppState) -> String {
    state.view.as_ref().map(|view| token_text(&view.comparison.clean[0].token)).unwrap_or_default()
}

fn finding_text(reply: &Reply, token: &str) -> String {
    match reply {
        Reply::Sweep(report) => {
            let unit = match report.metric {
                Metric::Logit | Metric::LogitDiff => "logits",
                _ => "nats",
            };
            let name = match report.metric {
                Metric::Logprob => format!("log-probability of “{token}”"),
                Metric::Logit => format!("logit of “{token}”"),
                Metric::LogitDiff => format!("logit of “{token}” over the other's"),
                Metric::Kl => "KL(clean ‖ edited)".to_owned(),
                Metric::Loss => "mean loss".to_owned(),
            };
            format!("Change of the {name}, {unit}; without an edit it is {:.3}.", report.clean)
        }
        Reply::Dla(report) => {
            let parts = &report.parts;
            let heads: f32 = parts.heads.iter().flatten().sum();
            let mlps: f32 = parts.mlps.iter().sum();
            let versus = report.versus_text.as_ref();
            let versus = versus.map(|text| format!(" minus “{}”", token_text(text))).unwrap_or_default();
            format!(
                "Logit of “{}”{versus} {:.2} (not centred) = embedding {} heads {} MLPs {}; the parts miss it by {:.0e}. \
                 Heads against attention's output: {:.0e}.",
                token_text(&report.token_text),
                parts.logit,
                signed_text(parts.embed),
                signed_text(heads),
                signed_text(mlps),
                (parts.sum_of_parts - parts.logit).abs(),
                parts.receipt,
            )
        }
        Reply::Patch(report) => format!(
            "Logit of “{}” over “{}”: clean {:.2}, corrupted {:.2}. Each head patched at every position.",
            token_text(&report.token_text),
            token_text(&report.versus_text),
            report.findings.clean,
            report.findings.corrupted,
        ),
        _ => String::new(),
    }
}
