//! Running text in boxes, a token a box, in lines as wide as there is room.

use crate::export::svg::{Anchor, Drawing};
use crate::view_model::colour::{Rgb, ink, target_ink};
use crate::view_model::short_text;

/// Width of a line.
pub const WIDTH: f32 = 640.0;
/// Height of a line.
const LINE: f32 = 24.0;
/// Size of the letters, and the room of one.
const SIZE: f32 = 12.0;
const LETTER: f32 = 7.3;
/// Letters of a box.
const N_LETTERS: usize = 40;

/// A token in its box.
#[derive(Clone, Debug, PartialEq)]
pub struct Boxed {
    /// As printed.
    pub text: String,
    /// What the box is filled with.
    pub fill: Option<Rgb>,
    /// Whether it is framed.
    pub is_framed: bool,
    /// For its tooltip.
    pub tip: String,
    /// Whether the line ends with it.
    pub ends_line: bool,
}

impl Boxed {
    /// A token in a box without a colour.
    pub fn plain(text: String, tip: String) -> Self {
        Self { text, fill: None, is_framed: false, tip, ends_line: false }
    }
}

/// Room of a text: letters of scripts that are written in squares take two.
fn text_width(text: &str) -> f32 {
    let n_letters: usize = text.chars().map(|c| if c < '\u{1100}' { 1 } else { 2 }).sum();
    n_letters as f32 * LETTER
}

/// Draws tokens from `top` on; gives where the text ends.
pub fn flow(drawing: &mut Drawing, top: f32, tokens: impl IntoIterator<Item = Boxed>) -> f32 {
    let theme = drawing.theme;
    let (mut x, mut y) = (0.0, top);
    for Boxed { text, fill, is_framed, tip, ends_line } in tokens {
        let text = short_text(&text, N_LETTERS);
        let width = text_width(&text) + 6.0;
        if x > 0.0 && x + width > WIDTH {
            (x, y) = (0.0, y + LINE);
        }
        let place = (x, y, width, LINE - 5.0);
        // Without a colour it is the paper's, so that it has its tooltip all the same.
        drawing.cell(place, fill.unwrap_or_else(|| crate::view_model::colour::paper(theme)), &tip);
        if is_framed {
            drawing.frame(place, target_ink(theme), 1.5);
        }
        let letters = fill.map_or_else(|| ink(theme), Rgb::ink);
        drawing.mono(x + 3.0, y + 13.5, SIZE, Anchor::Start, letters, &text);
        x += width + 2.0;
        if ends_line {
            (x, y) = (0.0, y + LINE);
        }
    }
    if x > 0.0 { y + LINE } else { y }
}
