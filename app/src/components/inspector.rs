//! The head inspector: the pattern as heatmap and as linked token chips, its table, the head's scores and its group.

use headlight_core::hooks::Edit;
use headlight_core::ids::HeadId;
use headlight_core::report::PatternReport;
use leptos::prelude::*;

use super::export::Export;
use super::pattern::PatternCanvas;
use super::settings::PaintBar;
use super::writes::Writes;
use super::{ViewRef, page};
use crate::export::ViewKind;
use crate::state::Msg;
use crate::state::edits::EditMsg;
use crate::state::lesson::Fixed;
use crate::view_model::colour::heat;
use crate::view_model::lens::labels;
use crate::view_model::measure::{Measure, rank_of, score_of};
use crate::view_model::{Chip, chips, heads_sharing_kv, token_texts};

/// What the inspector's parts share: the pattern, and the query whose row is read.
#[derive(Clone, Copy)]
struct Inspected {
    view: Memo<Option<ViewRef>>,
    crosshair: RwSignal<Option<(usize, usize)>>,
    hovered_token: RwSignal<Option<usize>>,
    query: Memo<Option<usize>>,
    /// Every token as printed.
    texts: Memo<Vec<String>>,
}

impl Inspected {
    fn pattern<T>(self, read: impl FnOnce(&PatternReport) -> Option<T>) -> Option<T> {
        self.view.with(|view| view.as_ref().and_then(|view| view.0.pattern.as_ref()).and_then(read))
    }
}

/// The inspector's card.
#[component]
pub fn InspectorCard() -> impl IntoView {
    let page = page();
    let head = page.select(|state| state.shown_head());
    let crosshair = RwSignal::new(None);
    let hovered_token = RwSignal::new(None);
    let view = page.view();
    let held = page.select(|state| state.held_token);
    let query = Memo::new(move |_| {
        let last = view.with(|view| view.as_ref()?.0.tokens.ids.len().checked_sub(1));
        let pointed = hovered_token.get().or(crosshair.get().map(|(query, _)| query)).or(held.get());
        last.map(|last| pointed.unwrap_or(last).min(last))
    });
    let texts = Memo::new(move |_| {
        view.with(|view| view.as_ref().map(|view| token_texts(&view.0.tokens)).unwrap_or_default())
    });
    let inspected = Inspected { view, crosshair, hovered_token, query, texts };
    let is_table = RwSignal::new(false);
    let is_custom = page.select(|state| state.lens.is_custom());
    view! {
        <section class="card inspector-card" aria-labelledby="inspector-title" data-testid="inspector">
            <InspectorHead head is_table />
            <Show
                when=move || head.get().is_some() && view.with(Option::is_some)
                fallback=|| view! { <div class="empty">"A head's attention appears here."</div> }
            >
                <Show when=move || is_custom.get()>
                    <PaintBar />
                </Show>
                <div class="pattern-part">
                    <Show when=move || is_table.get() fallback=move || view! { <PatternCanvas view crosshair /> }>
                        <RowTable inspected />
                    </Show>
                    <Readout inspected />
                    <Outlined />
                </div>
                <div class="inspector-part">
                    <h3>"From which token does it look where?"</h3>
                    <LinkedTokens inspected />
                    <Writes />
                    <Scores head />
                </div>
            </Show>
        </section>
    }
}

#[component]
fn InspectorHead(head: Memo<Option<HeadId>>, is_table: RwSignal<bool>) -> impl IntoView {
    let page = page();
    let is_held = page.select(|state| state.selected.is_some());
    let is_off = page.select(|state| state.shown_head().is_some_and(|head| state.edits.has(head)));
    let is_fixed = page.select(|state| state.why_fixed(Fixed::View).is_some());
    let next_text = page.select(|state| match &state.edits.next {
        Edit::Zero {} => "Switch off",
        _ => "Edit",
    });
    let preview_rank = page.select(|state| {
        let (scores, head) = (state.lens_scores()?, state.preview?);
        Some((state.lens, rank_of(&scores, head)?, score_of(&scores, head)?))
    });
    let title = move || head.get().map_or_else(|| "Head".to_owned(), |head| format!("Head {head}"));
    let why = move || {
        head.get()?;
        Some(match (is_held.get(), preview_rank.get()) {
            (true, _) => "held".to_owned(),
            (false, Some((lens, 1, score))) => format!("strongest for {}: {score:.2}", lens.name()),
            (false, _) => "until you choose one".to_owned(),
        })
    };
    view! {
        <div class="card-head">
            <h2 id="inspector-title" data-testid="inspector-title">
                {title} {move || why().map(|why| view! { <span class="badge">{why}</span> })}
            </h2>
            <button
                class="button"
                class:button-on=move || is_off.get()
                data-testid="ablate"
                disabled=move || head.get().is_none() || is_fixed.get()
                on:click=move |_| {
                    if let Some(head) = head.get_untracked() {
                        page.send(Msg::Edit(EditMsg::Toggle(head)));
                    }
                }
            >
                {move || if is_off.get() { "Unedit" } else { next_text.get() }}
            </button>
            <button
                class="button"
                data-testid="pattern-table-toggle"
                aria-pressed=move || is_table.get().to_string()
                on:click=move |_| is_table.update(|is_table| *is_table = !*is_table)
            >
                "Table"
            </button>
            <Export views=|_| {
                vec![ViewKind::Pattern, ViewKind::AttentionFrom, ViewKind::Writes, ViewKind::HeadScores]
            } />
        </div>
    }
}

/// What the outlines on the pattern are.
#[component]
fn Outlined() -> impl IntoView {
    let page = page();
    let text = page.select(|state| {
        if state.lens.is_custom() {
            return Some("Outlined: the cells of this prompt that your pattern reads.".to_owned());
        }
        state.lens.target().map(|target| {
            let target = target.name().replace('_', " ");
            format!("Outlined: the cells of this prompt that the {target} score reads.")
        })
    });
    view! { <p class="quiet outlined">{move || text.get()}</p> }
}

/// The value under the crosshair, or where the read row's attention peaks.
#[component]
fn Readout(inspected: Inspected) -> impl IntoView {
    let describe = move |query: usize, key: usize| {
        inspected.pattern(|pattern| {
            let value = pattern.pattern.get(query)?.get(key)?;
            let texts = inspected.texts.get();
            Some(format!(
                "query {query} “{}” → key {key} “{}”: {value:.3}",
                texts.get(query)?,
                texts.get(key)?
            ))
        })
    };
    let text = move || {
        if let Some((query, key)) = inspected.crosshair.get() {
            return describe(query, key);
        }
        let query = inspected.query.get()?;
        let key = inspected.pattern(|pattern| strongest_key(pattern.pattern.get(query)?))?;
        describe(query, key).map(|text| format!("Strongest: {text}"))
    };
    view! {
        <p class="readout" id="pattern-readout" data-testid="pattern-readout" aria-live="polite">
            {move || text()}
        </p>
    }
}

fn strongest_key(row: &[f32]) -> Option<usize> {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(key, _)| key)
}

/// The prompt as chips shaded by how strongly the read query attends to each.
#[component]
fn LinkedTokens(inspected: Inspected) -> impl IntoView {
    let chips = Memo::new(move |_| {
        inspected.view.with(|view| view.as_ref().map(|view| chips(&view.0.tokens)).unwrap_or_default())
    });
    view! {
        <ul
            class="tokens inspector-tokens"
            data-testid="attention-tokens"
            on:mouseleave=move |_| inspected.hovered_token.set(None)
        >
            {move || chips.get().into_iter().map(|chip| view! { <LinkedToken inspected chip /> }).collect_view()}
        </ul>
    }
}

#[component]
fn LinkedToken(inspected: Inspected, chip: Chip) -> impl IntoView {
    let page = page();
    let position = chip.position;
    let theme = page.select(|state| state.theme());
    let is_held = page.select(move |state| state.held_token == Some(position));
    let value = Memo::new(move |_| {
        let query = inspected.query.get()?;
        inspected.pattern(|pattern| {
            pattern.pattern.get(query)?.get(position).copied().filter(|_| position <= query)
        })
    });
    let is_query = Memo::new(move |_| inspected.query.get() == Some(position));
    let colour = move || value.get().map(|value| heat(theme.get(), value));
    let text = chip.text.clone();
    let label = move || match value.get() {
        Some(value) => format!("{text}, attention {value:.3}"),
        None => format!("{text}, later than the query"),
    };
    view! {
        <li>
            <button
                class="token"
                class:token-bos=chip.is_bos
                class:token-query=move || is_query.get()
                class:token-future=move || value.get().is_none()
                data-testid=format!("attention-token-{position}")
                data-value=move || value.get().map(|value| format!("{value:.4}"))
                aria-label=label.clone()
                aria-pressed=move || is_held.get().to_string()
                title=label
                style:background=move || colour().map(|colour| colour.css())
                style:color=move || colour().map(|colour| colour.ink().css())
                on:mouseenter=move |_| inspected.hovered_token.set(Some(position))
                on:focus=move |_| inspected.hovered_token.set(Some(position))
                on:blur=move |_| inspected.hovered_token.set(None)
                on:click=move |_| page.send(Msg::ToggleToken(position))
            >
                {chip.text}
            </button>
        </li>
        {chip.ends_line.then(|| view! { <li class="line-break" aria-hidden="true"></li> })}
    }
}

/// The read query's row as a table: the pattern's twin for those who cannot use the canvas.
#[component]
fn RowTable(inspected: Inspected) -> impl IntoView {
    let rows = move || {
        let query = inspected.query.get()?;
        inspected.pattern(|pattern| {
            let row = pattern.pattern.get(query)?;
            let cells = row.iter().zip(inspected.texts.get()).take(query + 1).enumerate();
            let cells = cells.map(|(key, (value, token))| (key, token, format!("{value:.4}")));
            Some((format!("Attention from query {query}"), cells.collect::<Vec<_>>()))
        })
    };
    let caption = move || rows().map(|(caption, _)| caption);
    view! {
        <p class="quiet">{caption} ". Choose another query among the tokens below."</p>
        <div class="table-scroll" tabindex="0" role="region" aria-label="Attention of one query">
            <table data-testid="pattern-table">
                <thead>
                    <tr>
                        <th scope="col">"Key"</th>
                        <th scope="col">"Token"</th>
                        <th scope="col">"Attention"</th>
                    </tr>
                </thead>
                <tbody>
                    {move || {
                        let rows = rows().map(|(_, rows)| rows).unwrap_or_default();
                        rows.into_iter()
                            .map(|(key, token, value)| {
                                view! { <tr><td>{key}</td><td class="mono">{token}</td><td>{value}</td></tr> }
                            })
                            .collect_view()
                    }}
                </tbody>
            </table>
        </div>
    }
}

/// One line of the head's scores: measure, score and rank where the prompt has something to measure.
type ScoreRow = (Measure, Option<(f32, usize)>);

/// The head's five scores with their ranks, and whose keys and values it shares.
#[component]
fn Scores(head: Memo<Option<HeadId>>) -> impl IntoView {
    let page = page();
    let rows = page.select(|state| {
        let head = state.shown_head()?;
        let view = state.view.as_ref()?;
        let row = |measure: Measure| -> ScoreRow { (measure, measure.reading(&view.scores, head)) };
        Some(Measure::all().map(row))
    });
    let n_heads = page.select(|state| state.model.as_ref().map(|m| m.info.n_layers * m.info.n_heads));
    let shared = page.select(|state| {
        let model = state.model.as_ref()?;
        Some(heads_sharing_kv(state.shown_head()?, &model.info))
    });
    view! {
        <div class="inspector-scores">
            <Labels />
            <h3>"Scores on this prompt"</h3>
            {move || {
                let n_heads = n_heads.get().unwrap_or_default();
                rows.get().map(|rows| rows.map(|row| view! { <ScoreLine row n_heads /> }).collect_view())
            }}
            {move || {
                let shared = shared.get().filter(|shared| !shared.is_empty())?;
                let links = shared
                    .into_iter()
                    .map(|other| {
                        view! {
                            <button class="inline-link" on:click=move |_| page.send(Msg::ToggleHead(other))>
                                {other.to_string()}
                            </button>
                            " "
                        }
                    })
                    .collect_view();
                let head = head.get().map(|head| head.to_string());
                Some(view! { <p class="quiet shared">{head} " shares its keys and values with " {links}</p> })
            }}
        </div>
    }
}

/// The names that detectors have given this head; none is the default.
#[component]
fn Labels() -> impl IntoView {
    let page = page();
    let labels = page.select(|state| {
        let n_run = state.reports().count();
        let head = state.shown_head().filter(|_| n_run > 0)?;
        Some((n_run, labels(state.reports(), head)))
    });
    view! {
        {move || {
            let (n_run, labels) = labels.get()?;
            let text = match labels.is_empty() {
                true if n_run == 1 => "Unclassified by the detector that ran.".to_owned(),
                true => format!("Unclassified by the {n_run} detectors that ran."),
                false => String::new(),
            };
            let badges = labels
                .into_iter()
                .map(|(title, score)| view! { <span class="badge">{format!("{title} {score:.2}")}</span> })
                .collect_view();
            Some(view! { <p class="quiet labels" data-testid="head-labels">{text} {badges}</p> })
        }}
    }
}

#[component]
fn ScoreLine(row: ScoreRow, n_heads: usize) -> impl IntoView {
    let (measure, score) = row;
    let width = score.map_or(0.0, |(score, _)| score * 100.0);
    let value = score.map_or_else(|| "none".to_owned(), |(score, _)| format!("{score:.2}"));
    let rank = score.map(|(_, rank)| format!("{rank} of {n_heads}"));
    let help = format!("{} {}.", measure.doc().score, measure.doc().source);
    view! {
        <div class="score-row" title=help>
            <span>{measure.label()}</span>
            <span class="meter"><span class="meter-fill" style:display="block" style:width=format!("{width:.1}%")></span></span>
            <span class="number">{value}</span>
            <span class="number quiet">{rank}</span>
        </div>
    }
}
