//! The Embed dialog: which parts, how large, when it begins, an assignment, and what to paste into course material.

use std::collections::BTreeSet;

use leptos::{html, prelude::*};

use super::address::{address_of, page_address};
use super::{Page, page};
use crate::embed::{EmbedFlags, Start};
use crate::lesson::{Lesson, Lock, lines_of_questions, questions_of_lines};
use crate::link::{Link, Part};
use crate::view_model::colour::Theme;
use crate::view_model::embed::{Size, frame_html, view_html};

/// What the dialog has been told.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    shown: BTreeSet<Part>,
    is_read_only: bool,
    start: Start,
    theme: Option<Theme>,
    size: Size,
    lesson: Lesson,
    questions: String,
}

impl Wanted {
    fn new(page: Page) -> Self {
        let (shown, lesson) = page.state.with_untracked(|state| {
            let shown = Part::ALL.into_iter().filter(|part| state.shows(*part));
            (shown.collect(), state.assignment.lesson.clone().unwrap_or_default())
        });
        let questions = lines_of_questions(&lesson.questions);
        let size = Size { width: "100%".to_owned(), height: 640 };
        Self { shown, is_read_only: false, start: Start::Click, theme: None, size, lesson, questions }
    }

    fn lesson(&self) -> Lesson {
        Lesson { questions: questions_of_lines(&self.questions), ..self.lesson.clone() }
    }

    fn hidden(&self) -> BTreeSet<Part> {
        Part::ALL.into_iter().filter(|part| !self.shown.contains(part)).collect()
    }

    fn flags(&self) -> EmbedFlags {
        EmbedFlags {
            parts: self.hidden().into_iter().map(|part| (part, false)).collect(),
            is_read_only: self.is_read_only,
            start: self.start,
            theme: self.theme,
            origins: None,
        }
    }

    /// The view with its assignment, as an embed shows it: its flags hide parts.
    fn link(&self, page: Page) -> Link {
        let lesson = self.lesson();
        let lesson = (!lesson.is_empty()).then_some(lesson);
        Link { lesson, hide: BTreeSet::new(), ..page.state.with_untracked(|state| state.link()) }
    }

    fn title(&self) -> String {
        match self.lesson.title.as_str() {
            "" => "Headlight: attention heads".to_owned(),
            title => title.to_owned(),
        }
    }

    fn frame_address(&self, page: Page) -> String {
        format!("{}?{}#{}", page_address(), self.flags().query(), self.link(page).encode())
    }
}

fn name_of(part: Part) -> &'static str {
    match part {
        Part::Prompt => "Prompt",
        Part::Tokens => "Tokens",
        Part::Output => "Next token",
        Part::Ablation => "Edits and what follows",
        Part::Map => "Head map",
        Part::Pattern => "Attention pattern",
        Part::Inspector => "Head inspector",
        Part::Plots => "Plots and layers",
        Part::Lesson => "Assignment",
    }
}

/// The header's button and its dialog.
#[component]
pub fn EmbedDialog() -> impl IntoView {
    let page = page();
    let dialog = NodeRef::<html::Dialog>::new();
    // Made anew each time it opens, from the page as it then is.
    let wanted = RwSignal::new(None::<Wanted>);
    let open = move |_| {
        wanted.set(Some(Wanted::new(page)));
        if let Some(dialog) = dialog.get_untracked() {
            let _ = dialog.show_modal();
        }
    };
    let close = move || {
        if let Some(dialog) = dialog.get_untracked() {
            dialog.close();
        }
    };
    let is_open = Memo::new(move |_| wanted.with(Option::is_some));
    view! {
        <button class="button" data-testid="embed-button" aria-haspopup="dialog" on:click=open>"Embed"</button>
        <dialog
            class="picker embed-dialog"
            node_ref=dialog
            aria-label="Embed this view"
            data-testid="embed-dialog"
            on:close=move |_| wanted.set(None)
        >
            <div class="picker-head">
                <h2>"Embed this view"</h2>
                <button class="button" on:click=move |_| close()>"Close"</button>
            </div>
            <Show when=move || is_open.get()>
                <Form wanted />
            </Show>
        </dialog>
    }
}

#[component]
fn Form(wanted: RwSignal<Option<Wanted>>) -> impl IntoView {
    let page = page();
    let has_preview = RwSignal::new(false);
    let text = move |write: fn(&Wanted, Page) -> String| {
        Memo::new(move |_| wanted.with(|wanted| wanted.as_ref().map(|w| write(w, page)).unwrap_or_default()))
    };
    let frame =
        text(|w, page| frame_html(&w.frame_address(page), &w.size, &w.title(), !w.lesson().is_empty()));
    let element =
        text(|w, page| view_html(&page_address(), &w.link(page).encode(), &w.flags(), &w.size, &w.title()));
    let address = text(|w, page| {
        let link = Link { hide: w.hidden(), ..w.link(page) };
        address_of(&link)
    });
    let preview = text(|w, page| w.frame_address(page));
    let problem = Memo::new(move |_| wanted.with(|w| w.as_ref().and_then(|w| w.lesson().check().err())));
    view! {
        <div class="embed-form">
            <Choices wanted />
            <AssignmentForm wanted />
            {move || problem.get().map(|why| view! { <p class="detector-failed" role="alert">{why}"."</p> })}
            <Snippet label="A frame" testid="embed-iframe" text=frame />
            <Snippet label="The same as a web component: resizes itself, loads when seen" testid="embed-element" text=element />
            <Snippet label="Link to the full page" testid="embed-link" text=address />
            <div class="setting">
                <button
                    class="button"
                    data-testid="embed-preview-button"
                    aria-pressed=move || has_preview.get().to_string()
                    on:click=move |_| has_preview.update(|has| *has = !*has)
                >
                    {move || if has_preview.get() { "End the preview" } else { "Preview" }}
                </button>
                <span class="quiet">"As readers see it, in a sandboxed frame."</span>
            </div>
            {move || {
                has_preview.get().then(|| {
                    let height = wanted.with(|w| w.as_ref().map_or(0, |w| w.size.height));
                    view! {
                        <iframe
                            class="embed-preview"
                            data-testid="embed-preview"
                            title="Preview"
                            sandbox="allow-scripts allow-popups"
                            style:height=format!("{height}px")
                            src=preview.get()
                        ></iframe>
                    }
                })
            }}
        </div>
    }
}

#[component]
fn Choices(wanted: RwSignal<Option<Wanted>>) -> impl IntoView {
    let read = move |read: fn(&Wanted) -> String| {
        move || wanted.with(|wanted| wanted.as_ref().map(read).unwrap_or_default())
    };
    let change = move |change: &dyn Fn(&mut Wanted)| {
        wanted.update(|wanted| {
            if let Some(wanted) = wanted {
                change(wanted);
            }
        });
    };
    let part = move |part: Part| {
        let is_shown = move || wanted.with(|w| w.as_ref().is_some_and(|w| w.shown.contains(&part)));
        view! {
            <label class="check">
                <input
                    type="checkbox"
                    data-testid=format!("embed-part-{}", part.name())
                    prop:checked=is_shown
                    on:change=move |_| change(&|w| {
                        if !w.shown.remove(&part) {
                            w.shown.insert(part);
                        }
                    })
                />
                {name_of(part)}
            </label>
        }
    };
    view! {
        <fieldset class="checks">
            <legend>"Shown"</legend>
            {Part::ALL.map(part).collect_view()}
        </fieldset>
        <div class="embed-row">
            <label class="check">
                <input
                    type="checkbox"
                    data-testid="embed-readonly"
                    prop:checked=move || wanted.with(|w| w.as_ref().is_some_and(|w| w.is_read_only))
                    on:change=move |_| change(&|w| w.is_read_only = !w.is_read_only)
                />
                "Read-only"
            </label>
            <label class="setting">
                <span>"Starts"</span>
                <select
                    class="select"
                    on:change=move |event| {
                        let is_click = event_target_value(&event) == "click";
                        change(&|w| w.start = if is_click { Start::Click } else { Start::Now });
                    }
                >
                    <option value="click">"on a click"</option>
                    <option value="now">"at once"</option>
                </select>
            </label>
            <label class="setting">
                <span>"Colours"</span>
                <select
                    class="select"
                    on:change=move |event| {
                        let theme = match event_target_value(&event).as_str() {
                            "light" => Some(Theme::Light),
                            "dark" => Some(Theme::Dark),
                            _ => None,
                        };
                        change(&|w| w.theme = theme);
                    }
                >
                    <option value="">"the reader's"</option>
                    <option value="light">"light"</option>
                    <option value="dark">"dark"</option>
                </select>
            </label>
            <label class="setting">
                <span>"Width"</span>
                <input
                    class="field embed-size"
                    prop:value=read(|w| w.size.width.clone())
                    on:change=move |event| {
                        let value = event_target_value(&event);
                        change(&|w| w.size.set_width(&value));
                    }
                />
            </label>
            <label class="setting">
                <span>"Height"</span>
                <input
                    class="field embed-size"
                    type="number"
                    min="1"
                    max="4000"
                    prop:value=read(|w| w.size.height.to_string())
                    on:change=move |event| {
                        let value = event_target_value(&event);
                        change(&|w| w.size.set_height(&value));
                    }
                />
            </label>
        </div>
    }
}

/// A teacher's form.
#[component]
fn AssignmentForm(wanted: RwSignal<Option<Wanted>>) -> impl IntoView {
    let read = move |read: fn(&Wanted) -> String| {
        move || wanted.with(|wanted| wanted.as_ref().map(read).unwrap_or_default())
    };
    let change = move |change: &dyn Fn(&mut Wanted)| {
        wanted.update(|wanted| {
            if let Some(wanted) = wanted {
                change(wanted);
            }
        });
    };
    let lock = move |lock: Lock, text: &'static str| {
        view! {
            <label class="check">
                <input
                    type="checkbox"
                    prop:checked=move || wanted.with(|w| w.as_ref().is_some_and(|w| w.lesson.lock.contains(&lock)))
                    on:change=move |_| change(&|w| {
                        if !w.lesson.lock.remove(&lock) {
                            w.lesson.lock.insert(lock);
                        }
                    })
                />
                {text}
            </label>
        }
    };
    view! {
        <details class="assignment-form" data-testid="assignment-form">
            <summary>"Make an assignment"</summary>
            <input
                class="field"
                placeholder="Title"
                aria-label="Title of the assignment"
                data-testid="assignment-title"
                prop:value=read(|w| w.lesson.title.clone())
                on:input=move |event| {
                    let value = event_target_value(&event);
                    change(&|w| w.lesson.title.clone_from(&value));
                }
            />
            <textarea
                class="editor"
                placeholder="What is to be done. An empty line begins a paragraph."
                aria-label="Text of the assignment"
                data-testid="assignment-text"
                prop:value=read(|w| w.lesson.text.clone())
                on:input=move |event| {
                    let value = event_target_value(&event);
                    change(&|w| w.lesson.text.clone_from(&value));
                }
            ></textarea>
            <textarea
                class="editor"
                placeholder="One question a line:\nWhy does it look there?\nhead: Which head continues the name?\nchoice: What changes? | nothing | the name"
                aria-label="Questions, one a line"
                data-testid="assignment-questions"
                prop:value=read(|w| w.questions.clone())
                on:input=move |event| {
                    let value = event_target_value(&event);
                    change(&|w| w.questions.clone_from(&value));
                }
            ></textarea>
            <div class="checks">
                {lock(Lock::Prompt, "Students keep this prompt")} {lock(Lock::Model, "Students keep this model")}
            </div>
            <p class="quiet">
                "The assignment is part of the links and snippets below; whoever opens them can read it. Answers are exported by the student and sent nowhere."
            </p>
        </details>
    }
}

/// Text to paste elsewhere.
#[component]
fn Snippet(label: &'static str, testid: &'static str, text: Memo<String>) -> impl IntoView {
    let area = NodeRef::<html::Textarea>::new();
    let is_copied = RwSignal::new(false);
    let copy = move |_| {
        // Where the clipboard is refused the text stays selected for the keyboard's own copy.
        if let Some(area) = area.get_untracked() {
            area.select();
        }
        let copied = window().navigator().clipboard().write_text(&text.get_untracked());
        leptos::task::spawn_local(async move {
            is_copied.set(wasm_bindgen_futures::JsFuture::from(copied).await.is_ok());
        });
    };
    Effect::new(move |_| {
        text.track();
        is_copied.set(false);
    });
    view! {
        <div class="snippet">
            <div class="setting">
                <span>{label}</span>
                <button class="button" data-testid=format!("{testid}-copy") on:click=copy>
                    {move || if is_copied.get() { "Copied" } else { "Copy" }}
                </button>
            </div>
            <textarea
                class="editor mono"
                readonly
                rows="3"
                aria-label=label
                data-testid=testid
                node_ref=area
                prop:value=move || text.get()
            ></textarea>
        </div>
    }
}
