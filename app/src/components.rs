//! The page's components: thin views of [`AppState`] in leptos. What they show is computed in `view_model`, what
//! happens is decided in `state`; here are the DOM, the canvas and the keyboard.

mod address;
mod along;
mod banner;
mod choose_file;
mod detector;
mod edits;
mod effect;
mod embed;
mod evidence;
mod export;
mod footer;
mod head_map;
mod header;
mod inspector;
mod kept;
mod lab;
mod layers;
mod lesson;
mod machine;
mod modal;
mod output;
mod pattern;
mod picker;
mod progress;
mod prompt;
mod ranked;
mod retrieval;
mod runner;
mod scatter;
mod settings;
mod share;
mod strongest;
mod theme;
mod writes;

use std::sync::Arc;

use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::embed::{EmbedFlags, Start, backend_of_query};
use crate::link::Part;
use crate::protocol::View;
use crate::state::edits::EditMsg;
use crate::state::lesson::Fixed;
use crate::state::{AppState, Msg, update};
use runner::Runner;

/// The state and the way to change it, for every component.
#[derive(Clone, Copy)]
struct Page {
    state: RwSignal<AppState>,
    runner: StoredValue<Runner, LocalStorage>,
}

/// A view that is equal only to itself: comparing patterns cell by cell on every message would cost more than a redraw.
#[derive(Clone)]
struct ViewRef(Arc<View>);

impl PartialEq for ViewRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Page {
    /// Tells the state what happened and has done what follows from it.
    fn send(self, msg: Msg) {
        let tasks = self.state.try_update(|state| update(state, msg)).unwrap_or_default();
        for task in tasks {
            self.runner.with_value(|runner| runner.perform(self, task));
        }
    }

    /// A part of the state; changes only when the part does.
    fn select<T>(self, part: impl Fn(&AppState) -> T + Send + Sync + 'static) -> Memo<T>
    where
        T: PartialEq + Send + Sync + 'static,
    {
        Memo::new(move |_| self.state.with(&part))
    }

    /// The newest view.
    fn view(self) -> Memo<Option<ViewRef>> {
        self.select(|state| state.view.clone().map(ViewRef))
    }
}

/// The page of the component that asks.
fn page() -> Page {
    expect_context::<Page>()
}

/// Starts the engine's worker and puts the page in place of its static frame.
pub fn mount() {
    console_error_panic_hook::set_once();
    let app = document().get_element_by_id("app").expect("index.html has #app");
    app.set_inner_html("");
    mount_to(app.unchecked_into(), App).forget();
}

#[component]
fn App() -> impl IntoView {
    let query = window().location().search().unwrap_or_default();
    let backend_of_query = backend_of_query(&query);
    let mut state = AppState {
        embed: EmbedFlags::of_query(&query),
        backend: backend_of_query.unwrap_or_default(),
        backend_of_query,
        ..AppState::default()
    };
    runner::know_machine(&mut state);
    let waits = state.embed.as_ref().is_some_and(|flags| flags.start == Start::Click);
    let page = Page { state: RwSignal::new(state), runner: StoredValue::new_local(Runner::default()) };
    provide_context(page);
    theme::follow(page);
    let is_started = RwSignal::new(false);
    let start = move || {
        page.runner.update_value(|runner| runner.start(page));
        runner::tell_scripts(page);
        is_started.set(true);
    };
    if !waits {
        start();
    }
    address::follow(page);
    listen_to_keys(page);
    view! {
        <Show when=move || is_started.get() fallback=move || view! { <embed::Still on_start=start /> }>
            <Whole />
        </Show>
    }
}

/// The page, or as much of it as an embed asks for.
#[component]
fn Whole() -> impl IntoView {
    let page = page();
    let is_embed = page.state.with_untracked(|state| state.embed.is_some());
    let is_stale = page.select(|state| state.is_stale);
    let why = page.select(|state| state.why_fixed(Fixed::View));
    // Hidden by embed.css: a part costs little while nobody looks, and a wrapper around each would cost every reader bytes.
    let hidden = page.select(|state| {
        let hidden = Part::ALL.into_iter().filter(|part| !state.shows(*part)).map(Part::name);
        hidden.collect::<Vec<_>>().join(" ")
    });
    view! {
        {if is_embed { view! { <embed::EmbedBar /> }.into_any() } else { view! { <header::Header /> }.into_any() }}
        <share::SharedNote />
        <main class="columns" data-hide=move || hidden.get() class:columns-stale=move || is_stale.get()>
            <div class="column">
                <lesson::LessonCard />
                <prompt::PromptCard />
                <output::OutputCard />
                <effect::EffectCard />
            </div>
            <div class="column column-wide">
                <head_map::MapCard />
                <fieldset class="held" disabled=move || why.get().is_some() title=move || why.get()>
                    <edits::EditsCard />
                </fieldset>
                <inspector::InspectorCard />
                <along::AlongCard />
                <scatter::ScatterCard />
                <layers::LayersCard />
            </div>
        </main>
        {(!is_embed).then(|| view! { <footer::Footer /> })}
        <div class="floating">
            <banner::Banner />
            <banner::LoadToast />
        </div>
    }
}

/// Keys that work anywhere but in a field: Esc releases, 0 switches every head on again.
fn listen_to_keys(page: Page) {
    let handle = window_event_listener(leptos::ev::keydown, move |event| {
        let is_field =
            event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok()).is_some_and(
                |element| element.closest("textarea, input, select, dialog[open]").ok().flatten().is_some(),
            );
        if is_field || event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        match event.key().as_str() {
            "Escape" => page.send(Msg::Release),
            "0" => page.send(Msg::Edit(EditMsg::Clear)),
            _ => {}
        }
    });
    on_cleanup(move || handle.remove());
}
