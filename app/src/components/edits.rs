//! What is changed in the model: every edit with its heads, strength and place, ways to add more, and named sets of heads.

use headlight_core::hooks::{ActivationDirection, Edit, Intervention, Prompt};
use headlight_core::ids::HeadId;
use leptos::prelude::*;

use super::page;
use crate::protocol::{EditWhere, PlacedEdit};
use crate::state::Msg;
use crate::state::edits::{EditMsg, HeadSet, LayerPart, kind_of, of_layer, offered};
use crate::view_model::edits::{
    edit_text, heads_text, layer_texts, parse_edges, strength_of, where_text, with_strength,
};

/// Heads shown one by one in an edit.
const N_CHIPS: usize = 12;

/// The card of edits.
#[component]
pub fn EditsCard() -> impl IntoView {
    let page = page();
    let n_edits = page.select(|state| state.edits.list.len());
    view! {
        <section class="card edits-card" aria-labelledby="edits-title">
            <div class="card-head">
                <h2 id="edits-title">"Edits"</h2>
                <Show when=move || { n_edits.get() > 0 }>
                    <button
                        class="button"
                        data-testid="ablations-clear"
                        on:click=move |_| page.send(Msg::Edit(EditMsg::Clear))
                    >
                        "All off " <kbd>"0"</kbd>
                    </button>
                </Show>
            </div>
            <NextKind />
            <div data-testid="ablations">
                <For each=move || 0..n_edits.get() key=|index| *index let:index>
                    <EditRow index />
                </For>
            </div>
            <Show when=move || n_edits.get() == 0>
                <p class="quiet">
                    "Nothing is edited. Double-click a head in the map, or press " <kbd>"A"</kbd> " on it."
                </p>
            </Show>
            <p class="quiet">
                "Edits of a head act on its z or its pattern, before W_O; any output bias stays."
            </p>
            <More />
            <Sets />
        </section>
    }
}

/// What the next head that is switched gets.
#[component]
fn NextKind() -> impl IntoView {
    let page = page();
    let next = page.select(|state| kind_of(&state.edits.next));
    view! {
        <label class="setting">
            <span>"New edit"</span>
            <KindMenu
                selected=next
                testid="edit-next"
                on_choice=move |edit| page.send(Msg::Edit(EditMsg::SetNext(edit)))
            />
        </label>
    }
}

#[component]
fn KindMenu(
    #[prop(into)] selected: Signal<Option<usize>>,
    testid: &'static str,
    on_choice: impl Fn(Edit) + 'static,
) -> impl IntoView {
    let options = offered().into_iter().enumerate().map(|(index, (name, _))| {
        view! {
            <option value=index.to_string() prop:selected=move || selected.get() == Some(index)>
                {name}
            </option>
        }
    });
    view! {
        <select
            class="select"
            data-testid=testid
            on:change=move |event| {
                let index: Option<usize> = event_target_value(&event).parse().ok();
                if let Some((_, edit)) = index.and_then(|index| offered().into_iter().nth(index)) {
                    on_choice(edit);
                }
            }
        >
            {options.collect_view()}
        </select>
    }
}

/// One edit.
#[component]
fn EditRow(index: usize) -> impl IntoView {
    let page = page();
    let placed = page.select(move |state| state.edits.list.get(index).cloned());
    let change = move |change: &dyn Fn(&mut PlacedEdit)| {
        if let Some(mut placed) = placed.get_untracked() {
            change(&mut placed);
            page.send(Msg::Edit(EditMsg::Change(index, placed)));
        }
    };
    let heads = Memo::new(move |_| {
        let heads = placed.get().map(|placed| placed.edit.sites.heads).unwrap_or_default();
        heads.into_iter().collect::<Vec<HeadId>>()
    });
    let layers = Memo::new(move |_| placed.get().map(|placed| layer_texts(&placed.edit)).unwrap_or_default());
    let kind = Memo::new(move |_| placed.get().and_then(|placed| kind_of(&placed.edit.edit)));
    let own_text = Memo::new(move |_| {
        let placed = placed.get().filter(|placed| kind_of(&placed.edit.edit).is_none())?;
        Some(edit_text(&placed.edit.edit))
    });
    let strength = Memo::new(move |_| placed.get().and_then(|placed| strength_of(&placed.edit.edit)));
    let has_strength = Memo::new(move |_| strength.get().is_some());
    let at = Memo::new(move |_| placed.get().map(|placed| placed.at).unwrap_or_default());
    let of_heads = Memo::new(move |_| layers.with(Vec::is_empty));
    view! {
        <div class="edit-row" data-testid=format!("edit-{index}")>
            <div class="ablations">
                <For each=move || heads.get().into_iter().take(N_CHIPS) key=|head| *head let:head>
                    <span class="ablation">
                        {head.to_string()}
                        <button
                            aria-label=format!("Take {head} out of the edit")
                            on:click=move |_| page.send(Msg::Edit(EditMsg::Toggle(head)))
                        >
                            "×"
                        </button>
                    </span>
                </For>
                {move || {
                    let more = heads.with(Vec::len).saturating_sub(N_CHIPS);
                    (more > 0).then(|| view! { <span class="quiet">{format!("and {more} more")}</span> })
                }}
                {move || {
                    layers.get().into_iter().map(|text| view! { <span class="ablation">{text}</span> }).collect_view()
                }}
                <button
                    class="button button-icon edit-remove"
                    aria-label="Remove this edit"
                    data-testid=format!("edit-remove-{index}")
                    on:click=move |_| page.send(Msg::Edit(EditMsg::Remove(index)))
                >
                    "×"
                </button>
            </div>
            <div class="edit-line">
                {move || match own_text.get() {
                    Some(text) => view! { <span class="quiet">{text}</span> }.into_any(),
                    None if of_heads.get() => {
                        view! {
                            <KindMenu
                                selected=kind
                                testid="edit-kind"
                                on_choice=move |edit| change(&|placed| placed.edit.edit = edit.clone())
                            />
                        }
                            .into_any()
                    }
                    None => view! { <span class="quiet">"off (zero)"</span> }.into_any(),
                }}
                <select
                    class="select"
                    aria-label="Where in the prompt"
                    data-testid="edit-where"
                    on:change=move |event| {
                        let at = EditWhere::ALL.into_iter().find(|at| where_text(*at) == event_target_value(&event));
                        change(&|placed| placed.at = at.unwrap_or_default());
                    }
                >
                    {EditWhere::ALL
                        .map(|choice| {
                            view! {
                                <option value=where_text(choice) prop:selected=move || at.get() == choice>
                                    {where_text(choice)}
                                </option>
                            }
                        })
                        .collect_view()}
                </select>
            </div>
            <Show when=move || has_strength.get()>
                <label class="setting edit-strength">
                    <span>{move || strength.get().map(|strength| strength.name)}</span>
                    <input
                        type="range"
                        data-testid="edit-strength"
                        min=move || strength.get().map(|strength| strength.range.0)
                        max=move || strength.get().map(|strength| strength.range.1)
                        step="0.05"
                        prop:value=move || strength.get().map(|strength| strength.value.to_string())
                        on:input=move |event| {
                            if let Ok(value) = event_target_value(&event).parse::<f32>() {
                                change(&|placed| placed.edit.edit = with_strength(&placed.edit.edit, value));
                            }
                        }
                    />
                    <output class="number">
                        {move || strength.get().map(|strength| format!("{:.2}", strength.value))}
                    </output>
                </label>
            </Show>
        </div>
    }
}

/// Edits that no gesture on the map makes.
#[component]
fn More() -> impl IntoView {
    let page = page();
    let n_layers = page.select(|state| state.model.as_ref().map_or(0, |model| model.info.n_layers));
    let has_mlp = page.select(|state| state.model.as_ref().is_some_and(|model| model.info.d_mlp > 0));
    let shown = page.select(|state| state.shown_head());
    let layer = RwSignal::new(0_usize);
    // None stands for heads.
    let part = RwSignal::new(None::<LayerPart>);
    let edges = RwSignal::new(String::new());
    let others = RwSignal::new(String::new());
    let token = RwSignal::new(String::new());
    let add = move |edit: Edit| {
        let placed = match part.get_untracked() {
            Some(part) if !matches!(edit, Edit::Knockout { .. }) => {
                of_layer(edit, layer.get_untracked(), part)
            }
            _ => {
                let heads = page.state.with_untracked(|state| {
                    let edited = state.edits.heads();
                    let of_knockout = matches!(edit, Edit::Knockout { .. });
                    if of_knockout || edited.is_empty() {
                        state.shown_head().into_iter().collect()
                    } else {
                        edited
                    }
                });
                PlacedEdit { edit: Intervention::of_heads(edit, heads), at: EditWhere::Everywhere }
            }
        };
        page.send(Msg::Edit(EditMsg::Add(placed)));
    };
    let prompts = move || -> Vec<Prompt> {
        let lines = others.with(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.into_iter().filter(|line| !line.is_empty()).map(Prompt::Text).collect()
    };
    let n_prompts = Memo::new(move |_| prompts().len());
    view! {
        <details class="detector-doc">
            <summary>"More edits: layers, edges, other prompts"</summary>
            <div class="settings">
                <div class="setting">
                    <span>"Of"</span>
                    <select
                        class="select"
                        aria-label="What is edited"
                        data-testid="edit-part"
                        on:change=move |event| {
                            part.set(match event_target_value(&event).as_str() {
                                "layer" => Some(LayerPart::Both),
                                "attention" => Some(LayerPart::Attention),
                                "mlp" => Some(LayerPart::Mlp),
                                "stream" => Some(LayerPart::Stream),
                                _ => None,
                            });
                        }
                    >
                        <option value="heads">"edited heads"</option>
                        <option value="layer">"layer"</option>
                        <option value="attention">"attention"</option>
                        <Show when=move || has_mlp.get()>
                            <option value="mlp">"MLP"</option>
                        </Show>
                        <option value="stream">"stream before layer"</option>
                    </select>
                    <Show when=move || part.get().is_some()>
                        <select
                            class="select"
                            aria-label="Layer"
                            data-testid="layer-choice"
                            prop:value=move || layer.get().to_string()
                            on:change=move |event| layer.set(event_target_value(&event).parse().unwrap_or(0))
                        >
                            {move || {
                                (0..n_layers.get())
                                    .map(|layer| view! { <option value=layer.to_string()>{layer}</option> })
                                    .collect_view()
                            }}
                        </select>
                        <button class="button" data-testid="layer-off" on:click=move |_| add(Edit::Zero {})>
                            "Off"
                        </button>
                    </Show>
                </div>
                <label class="setting setting-tall">
                    <span>"Other prompts"</span>
                    <textarea
                        class="field"
                        rows="2"
                        data-testid="patch-from"
                        placeholder="one a line; to patch from one, as many tokens as here"
                        on:input=move |event| others.set(event_target_value(&event))
                    ></textarea>
                </label>
                <div class="setting">
                    <span></span>
                    <button
                        class="button"
                        data-testid="patch-add"
                        disabled=move || n_prompts.get() != 1
                        title="Values come from that prompt's run, position by position"
                        on:click=move |_| {
                            add(Edit::Patch { from: untrack(prompts).pop(), from_positions: None });
                        }
                    >
                        "Patch from it"
                    </button>
                    <button
                        class="button"
                        data-testid="mean-add"
                        disabled=move || n_prompts.get() == 0
                        title="Values become their mean over every position of these prompts"
                        on:click=move |_| add(Edit::Mean { over: Some(untrack(prompts)) })
                    >
                        "Mean over them"
                    </button>
                </div>
                <Show when=move || part.get().is_some()>
                    <label class="setting">
                        <span>"Direction of"</span>
                        <input
                            class="field"
                            data-testid="direction-token"
                            placeholder="one token, mostly with a space before it"
                            aria-label="Token whose direction in the stream is projected out"
                            prop:value=move || token.get()
                            on:input=move |event| token.set(event_target_value(&event))
                        />
                        <button
                            class="button"
                            data-testid="direction-add"
                            disabled=move || token.get().is_empty()
                            title="Takes out what the token's logit reads: its unembedding times the final norm's weights"
                            on:click=move |_| {
                                let direction = ActivationDirection::of_token(Prompt::Text(token.get_untracked()));
                                add(Edit::ProjectOut { direction, strength: 1.0 });
                            }
                        >
                            "Project out"
                        </button>
                    </label>
                </Show>
                <label class="setting">
                    <span>"Cut edges"</span>
                    <input
                        class="field"
                        data-testid="edges"
                        placeholder="12>5, 12>6"
                        aria-label="Query and key positions whose attention is cut"
                        aria-invalid=move || {
                            (!edges.get().is_empty() && parse_edges(&edges.get()).is_none()).to_string()
                        }
                        on:input=move |event| edges.set(event_target_value(&event))
                    />
                    <button
                        class="button"
                        data-testid="edges-add"
                        disabled=move || parse_edges(&edges.get()).is_none()
                        title=move || shown.get().map(|head| format!("Cut in {head}"))
                        on:click=move |_| {
                            if let Some(edges) = parse_edges(&edges.get_untracked()) {
                                add(Edit::Knockout { edges });
                            }
                        }
                    >
                        {move || shown.get().map_or("Cut".to_owned(), |head| format!("Cut in {head}"))}
                    </button>
                </label>
            </div>
        </details>
    }
}

/// Named sets of heads: the user's, and what detectors have found.
#[component]
fn Sets() -> impl IntoView {
    let page = page();
    let sets = page.select(|state| state.edits.sets.clone());
    let found = page.select(|state| {
        let sets = state.reports().filter(|report| !report.found.is_empty()).map(|report| HeadSet {
            name: report.detector.replace('_', " "),
            heads: report.found.iter().copied().collect(),
        });
        sets.collect::<Vec<_>>()
    });
    let has_edited = page.select(|state| !state.edits.heads().is_empty());
    let name = RwSignal::new(String::new());
    let row = move |set: HeadSet, own: Option<usize>| {
        let heads: Vec<HeadId> = set.heads.iter().copied().collect();
        let text = format!("{} ({})", set.name, heads.len());
        view! {
            <span class="ablation set">
                <button
                    class="set-name"
                    data-testid="set-apply"
                    title=format!("Edit {}", heads_text(&heads, N_CHIPS))
                    on:click=move |_| page.send(Msg::Edit(EditMsg::EditHeads(heads.clone())))
                >
                    {text}
                </button>
                {own
                    .map(|index| {
                        view! {
                            <button
                                aria-label="Forget this set"
                                on:click=move |_| page.send(Msg::Edit(EditMsg::DropSet(index)))
                            >
                                "×"
                            </button>
                        }
                    })}
            </span>
        }
    };
    view! {
        <div class="sets">
            <div class="ablations" data-testid="sets">
                <span class="quiet">"Sets"</span>
                {move || sets.get().into_iter().enumerate().map(|(i, set)| row(set, Some(i))).collect_view()}
                {move || found.get().into_iter().map(|set| row(set, None)).collect_view()}
                {move || {
                    (sets.with(Vec::is_empty) && found.with(Vec::is_empty))
                        .then(|| view! { <span class="quiet">"none yet; detectors add what they find"</span> })
                }}
            </div>
            <Show when=move || has_edited.get()>
                <div class="setting">
                    <input
                        class="field"
                        placeholder="name"
                        aria-label="Name of the set of edited heads"
                        data-testid="set-name"
                        prop:value=move || name.get()
                        on:input=move |event| name.set(event_target_value(&event))
                    />
                    <button
                        class="button"
                        data-testid="set-save"
                        on:click=move |_| {
                            page.send(Msg::Edit(EditMsg::SaveSet(name.get_untracked())));
                            name.set(String::new());
                        }
                    >
                        "Save as set"
                    </button>
                </div>
            </Show>
        </div>
    }
}
