//! Lists of labelled bars, which several figures are made of.

use crate::export::svg::{Anchor, Drawing};
use crate::view_model::colour::{heat, ink, signed};
use crate::view_model::{short_text, signed_text};

/// A row's height.
const ROW: f32 = 22.0;
/// Room for a list's title.
const HEAD: f32 = 18.0;
/// Below a list.
const FOOT: f32 = 6.0;
/// Between lists.
pub const GAP: f32 = 28.0;
/// Width of a letter of a label.
const LETTER: f32 = 7.4;

/// How a list's width is shared out.
#[derive(Clone, Copy, Debug)]
pub struct BarList {
    /// All of it.
    pub width: f32,
    /// Room for the labels.
    pub label: f32,
    /// Room for the numbers.
    pub numbers: f32,
    /// Whether bars have two colours, for what raises and what lowers.
    pub is_signed: bool,
}

impl BarList {
    /// A list of tokens, two of which fit side by side.
    pub const TOKENS: Self = Self { width: 300.0, label: 116.0, numbers: 64.0, is_signed: false };
    /// A list that has the sheet to itself.
    pub const WIDE: Self = Self { width: 560.0, label: 200.0, numbers: 110.0, is_signed: false };

    /// The same with bars of two colours.
    pub const fn signed(self) -> Self {
        Self { is_signed: true, ..self }
    }

    /// Room of a list of so many rows.
    pub fn height(n_rows: usize) -> f32 {
        HEAD + n_rows as f32 * ROW + FOOT
    }

    /// Draws a list below and to the right of a point; gives where it ends.
    pub fn draw(self, drawing: &mut Drawing, (x, top): (f32, f32), title: &str, bars: &[Bar]) -> f32 {
        let theme = drawing.theme;
        drawing.label(x, top + 10.0, Anchor::Start, title);
        for (index, bar) in bars.iter().enumerate() {
            let y = top + HEAD + index as f32 * ROW;
            let fill = match (self.is_signed, bar.is_below) {
                (false, _) => heat(theme, 0.45),
                (true, true) => signed(theme, -0.7),
                (true, false) => signed(theme, 0.7),
            };
            let length = (self.width - self.label - self.numbers) * bar.share.clamp(0.0, 1.0);
            let tip = format!("{} {}", bar.label, bar.number);
            drawing.cell((x + self.label, y + 3.0, length.max(0.5), ROW - 8.0), fill, &tip);
            let label = short_text(&bar.label, (self.label / LETTER) as usize);
            drawing.mono(x, y + 14.0, 12.0, Anchor::Start, ink(theme), &label);
            drawing.mono(x + self.width, y + 14.0, 11.0, Anchor::End, ink(theme), &bar.number);
        }
        top + Self::height(bars.len())
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What is measured.
    pub label: String,
    /// Its number as printed.
    pub number: String,
    /// Length of its bar, 0 to 1.
    pub share: f32,
    /// Whether the number is below 0.
    pub is_below: bool,
}

impl Bar {
    /// A share, 0 to 1, with its number as printed.
    pub fn of_share(label: String, number: String, share: f32) -> Self {
        Self { label, number, share, is_below: false }
    }

    /// Numbers with their signs; the longest bar is that of the largest size.
    pub fn of_signed(rows: impl IntoIterator<Item = (String, f32)>) -> Vec<Self> {
        Self::beside_the_largest(rows, signed_text)
    }

    /// Numbers that are never below 0, such as losses.
    pub fn of_sizes(rows: impl IntoIterator<Item = (String, f32)>) -> Vec<Self> {
        Self::beside_the_largest(rows, |value| format!("{value:.3}"))
    }

    fn beside_the_largest(
        rows: impl IntoIterator<Item = (String, f32)>,
        printed: impl Fn(f32) -> String,
    ) -> Vec<Self> {
        let rows: Vec<(String, f32)> = rows.into_iter().collect();
        let most = rows.iter().fold(f32::MIN_POSITIVE, |most, (_, value)| most.max(value.abs()));
        let bar = |(label, value): (String, f32)| Self {
            label,
            number: printed(value),
            share: value.abs() / most,
            is_below: value < 0.0,
        };
        rows.into_iter().map(bar).collect()
    }
}
