//! The footer: what this is, the measures' definitions and sources, licence.

use leptos::prelude::*;

use super::machine::ThisMachine;
use crate::models;
use crate::view_model::measure::Measure;

/// The page's footer.
#[component]
pub fn Footer() -> impl IntoView {
    view! {
        <footer class="foot">
            <details class="method" data-testid="method">
                <summary>"Method: what the five measures mean, and where they come from"</summary>
                <p>
                    "Every number is computed here, in exact f32 arithmetic on the model's weights (dequantised where "
                    "they are stored in 4 or 8 bits). The measures read the attention of one prompt, yours. They say "
                    "where a head looks on this text, not what it is for: a head that scores high here may do "
                    "something else elsewhere, and a high score is no proof that the model needs the head. Switching "
                    "it off is the test. Query and key positions count from 0, a BOS included."
                </p>
                <dl>
                    {Measure::all()
                        .into_iter()
                        .map(|measure| {
                            view! {
                                <dt>{measure.label()}</dt>
                                <dd>{measure.doc().score} " Source: " {measure.doc().source} "."</dd>
                            }
                        })
                        .collect_view()}
                    <dt>"Switching a head off"</dt>
                    <dd>
                        "Sets z, the head's mix of values, to zero at every position, before W_O. Later layers see the "
                        "change. KL is taken from the clean to the edited next-token distribution, in nats."
                    </dd>
                </dl>
            </details>
            <ThisMachine />
            <p class="foot-line">
                <span>
                    "Headlight " {env!("CARGO_PKG_VERSION")}
                    " runs the model in this browser: no server, no account, nothing uploaded."
                </span>
                {models::manifest()
                    .into_iter()
                    .filter(|model| model.bundled)
                    .map(|model| view! { <a href=model.homepage>"Card of " {model.title}</a> })
                    .collect_view()}
                <span>"MIT or Apache-2.0"</span>
            </p>
        </footer>
    }
}
