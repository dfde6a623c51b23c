//! The assignment: its text, its questions, and the answers as files. Nothing is sent anywhere.

use leptos::prelude::*;
use wasm_bindgen::prelude::*;

use super::address::address_of;
use super::{Page, page};
use crate::lesson::{AnswerKind, AnswerSheet, Question};
use crate::state::Msg;
use crate::state::lesson::LessonMsg;

/// The assignment's card; there while the page has one.
#[component]
pub fn LessonCard() -> impl IntoView {
    let page = page();
    let lesson = page.select(|state| state.assignment.lesson.clone());
    view! {
        {move || {
            let lesson = lesson.get()?;
            let title = if lesson.title.is_empty() { "Assignment".to_owned() } else { lesson.title.clone() };
            let paragraphs = lesson.paragraphs();
            let has_questions = !lesson.questions.is_empty();
            let questions = lesson
                .questions
                .into_iter()
                .enumerate()
                .map(|(index, question)| view! { <Asked index question /> });
            Some(view! {
                <section class="card lesson-card" aria-labelledby="lesson-title" data-testid="lesson">
                    <div class="card-head">
                        <h2 id="lesson-title">{title}</h2>
                    </div>
                    {paragraphs
                        .into_iter()
                        .map(|text| view! { <p class="lesson-text">{text}</p> })
                        .collect_view()}
                    <ol class="questions">{questions.collect_view()}</ol>
                    {has_questions.then(|| view! { <Answers /> })}
                </section>
            })
        }}
    }
}

#[component]
fn Asked(index: usize, question: Question) -> impl IntoView {
    let page = page();
    let answer = page.select(move |state| state.assignment.answers.get(index).cloned().unwrap_or_default());
    let send = move |text: String| page.send(Msg::Lesson(LessonMsg::Answer(index, text)));
    let testid = format!("answer-{index}");
    let field = match question.kind {
        AnswerKind::Text => view! {
            <textarea
                class="editor answer"
                aria-label=question.ask.clone()
                data-testid=testid
                prop:value=move || answer.get()
                on:input=move |event| send(event_target_value(&event))
            ></textarea>
        }
        .into_any(),
        AnswerKind::Head => view! { <HeadAnswer index answer /> }.into_any(),
        AnswerKind::Choice => {
            let name = format!("choice-{index}");
            let choices = question.choices.into_iter().map(|choice| {
                let (own, sent) = (choice.clone(), choice.clone());
                view! {
                    <label class="check">
                        <input
                            type="radio"
                            name=name.clone()
                            prop:checked=move || answer.with(|answer| *answer == own)
                            on:change=move |_| send(sent.clone())
                        />
                        {choice}
                    </label>
                }
            });
            view! {
                <div class="checks" role="radiogroup" aria-label=question.ask.clone() data-testid=testid>
                    {choices.collect_view()}
                </div>
            }
            .into_any()
        }
    };
    view! { <li><p class="ask">{question.ask}</p>{field}</li> }
}

/// An answer given by a click in the map.
#[component]
fn HeadAnswer(index: usize, answer: Memo<String>) -> impl IntoView {
    let page = page();
    let is_asking = page.select(move |state| state.assignment.asking == Some(index));
    let text = move || match (is_asking.get(), answer.get()) {
        (true, _) => "Click a head in the map.".to_owned(),
        (false, answer) if answer.is_empty() => "No head chosen yet.".to_owned(),
        (false, answer) => answer,
    };
    view! {
        <div class="setting">
            <output data-testid=format!("answer-{index}")>{text}</output>
            <button
                class="button"
                data-testid=format!("answer-head-{index}")
                aria-pressed=move || is_asking.get().to_string()
                on:click=move |_| {
                    let ask = (!is_asking.get_untracked()).then_some(index);
                    page.send(Msg::Lesson(LessonMsg::Ask(ask)));
                }
            >
                {move || if is_asking.get() { "Not now" } else { "Choose in the map" }}
            </button>
        </div>
    }
}

fn sheet(page: Page) -> Option<AnswerSheet> {
    let time = String::from(js_sys::Date::new_0().to_iso_string());
    page.state
        .with_untracked(|state| state.answer_sheet(address_of(&state.link_with_numbers()), time.clone()))
}

/// The answers as files, or to copy where a frame may not save files.
#[component]
fn Answers() -> impl IntoView {
    let page = page();
    let shown = RwSignal::new(None::<String>);
    let save = move |name: &str, kind: &str, text: fn(&AnswerSheet) -> String| {
        if let Some(sheet) = sheet(page) {
            let text = text(&sheet);
            // A frame without `allow-downloads` saves nothing and says so to nobody.
            let _ = download(name, kind, &text);
            shown.set(Some(text));
        }
    };
    view! {
        <div class="setting">
            <span>"Export answers"</span>
            <button
                class="button"
                data-testid="answers-json"
                on:click=move |_| save("headlight-answers.json", "application/json", AnswerSheet::json)
            >
                "JSON"
            </button>
            <button
                class="button"
                data-testid="answers-csv"
                on:click=move |_| save("headlight-answers.csv", "text/csv", AnswerSheet::csv)
            >
                "CSV"
            </button>
        </div>
        <p class="quiet">
            "Your answers stay in this browser until you export them; nothing is sent anywhere. The file holds the questions, your answers, a link to this view, the time, and which model it was."
        </p>
        {move || {
            shown.get().map(|text| {
                view! {
                    <details>
                        <summary>"Nothing saved? Copy it from here"</summary>
                        <textarea
                            class="editor mono"
                            readonly
                            aria-label="Your answers"
                            data-testid="answers-text"
                            prop:value=text
                        ></textarea>
                    </details>
                }
            })
        }}
    }
}

/// Has the browser save a text as a file.
fn download(name: &str, kind: &str, text: &str) -> Result<(), JsValue> {
    let options = web_sys::BlobPropertyBag::new();
    options.set_type(kind);
    let parts = js_sys::Array::of1(&text.into());
    let blob = web_sys::Blob::new_with_str_sequence_and_options(&parts, &options)?;
    let url = web_sys::Url::create_object_url_with_blob(&blob)?;
    let anchor: web_sys::HtmlElement = document().create_element("a")?.unchecked_into();
    anchor.set_attribute("href", &url)?;
    anchor.set_attribute("download", name)?;
    anchor.click();
    Ok(())
}
