//! The page's views as sheets: the same numbers and colours as on the page, one file a view or a few of a kind.

mod along;
mod bars;
mod effects;
mod evidence;
mod flow;
mod grids;
mod head;
mod map;
mod pattern;
mod scatter;
mod texts;
mod tokens;

pub use along::along;
pub use effects::{controls, direct_effect, set_effects};
pub use evidence::{evidence, retrieval_causal, retrieval_text};
pub use grids::{layers, pair_texts};
pub use head::{attention_from, head_scores};
pub use map::head_map;
pub use pattern::pattern;
pub use scatter::scatter;
pub use texts::{continuation, tokens};
pub use tokens::{next_tokens, writes};

use super::ViewKind;
use super::provenance::{caption, provenance};
use super::svg::{Drawing, Sheet};
use crate::state::AppState;

/// A view's drawing with what goes with every one: a caption of its own sentence and of model, prompt and edits, and what it
/// takes to make it again.
fn sheet(state: &AppState, kind: ViewKind, title: &str, own: &str, drawing: Drawing) -> Sheet {
    Sheet {
        title: title.to_owned(),
        legend: None,
        caption: caption(state, own.to_owned()),
        provenance: provenance(state, kind),
        drawing,
    }
}
