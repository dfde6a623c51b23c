//! The page's views as sheets: the same numbers and colours as on the page, one file a view.

mod along;
mod grids;
mod map;
mod pattern;
mod scatter;
mod tokens;

pub use along::along;
pub use grids::{layers, pair_texts};
pub use map::head_map;
pub use pattern::pattern;
pub use scatter::scatter;
pub use tokens::{next_tokens, writes};
