//! SVG as text: shapes on a drawing, and the sheet around it with title, legend, caption and provenance. Plain system fonts,
//! nothing fetched, nothing that runs.

use serde_json::Value;

use crate::view_model::colour::{Rgb, Theme, ink, label_ink, paper, shade};
use crate::view_model::lens::Scale;

/// Fonts of words and of tokens.
const SANS: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', sans-serif";
const MONO: &str = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
/// Around everything.
const MARGIN: f32 = 24.0;
/// A sheet is at least this wide, so that its caption has room.
const MIN_WIDTH: f32 = 480.0;
/// Width of a caption's letter, on average.
const LETTER: f32 = 5.9;
/// Height of a caption's line.
const LINE: f32 = 16.0;

/// A text as XML carries it: markup escaped, characters that XML 1.0 does not know replaced by U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // As numbers, lest a reader takes line ends together.
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            c if is_xml(c) => escaped.push(c),
            _ => escaped.push('\u{fffd}'),
        }
    }
    escaped
}

fn is_xml(c: char) -> bool {
    c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// JSON that XML can carry whole: what XML does not know is spelt as an escape.
fn xml_json(value: &Value) -> String {
    value.to_string().replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}

/// A coordinate, to a hundredth.
fn at(value: f32) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Where a text is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// At its start.
    Start,
    /// At its middle.
    Middle,
    /// At its end.
    End,
}

/// Shapes, from the top left corner on.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Palette.
    pub theme: Theme,
    /// Room to the right.
    pub width: f32,
    /// Room downwards.
    pub height: f32,
    body: String,
}

impl Drawing {
    /// An empty one.
    pub fn new(theme: Theme, width: f32, height: f32) -> Self {
        Self { theme, width, height, body: String::new() }
    }

    /// A filled box with a tooltip.
    pub fn cell(&mut self, (x, y, w, h): (f32, f32, f32, f32), fill: Rgb, tip: &str) {
        self.shape(&format!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"><title>{}</title></rect>",
            at(x),
            at(y),
            at(w),
            at(h),
            fill.css(),
            escape(tip)
        ));
    }

    /// A filled box without one.
    pub fn block(&mut self, (x, y, w, h): (f32, f32, f32, f32), fill: Rgb) {
        self.shape(&format!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
            at(x),
            at(y),
            at(w),
            at(h),
            fill.css()
        ));
    }

    /// A box that is only drawn around.
    pub fn frame(&mut self, (x, y, w, h): (f32, f32, f32, f32), stroke: Rgb, width: f32) {
        self.shape(&format!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"/>",
            at(x),
            at(y),
            at(w),
            at(h),
            stroke.css(),
            at(width)
        ));
    }

    /// A line.
    pub fn line(&mut self, from: (f32, f32), to: (f32, f32), stroke: Rgb, width: f32) {
        self.shape(&format!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"{}\"/>",
            at(from.0),
            at(from.1),
            at(to.0),
            at(to.1),
            stroke.css(),
            at(width)
        ));
    }

    /// A dot with a tooltip.
    pub fn dot(&mut self, (x, y): (f32, f32), radius: f32, fill: Rgb, tip: &str) {
        self.shape(&format!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"><title>{}</title></circle>",
            at(x),
            at(y),
            at(radius),
            fill.css(),
            escape(tip)
        ));
    }

    /// Words in the quiet ink; `y` is their baseline.
    pub fn label(&mut self, x: f32, y: f32, anchor: Anchor, text: &str) {
        self.text((x, y), 11.0, anchor, label_ink(self.theme), "", text);
    }

    /// A token or a number in the fixed-width font.
    pub fn mono(&mut self, x: f32, y: f32, size: f32, anchor: Anchor, fill: Rgb, text: &str) {
        self.text((x, y), size, anchor, fill, &format!(" font-family=\"{MONO}\""), text);
    }

    /// A token that is read upwards, its end at the point.
    pub fn upward(&mut self, x: f32, y: f32, size: f32, text: &str) {
        let turned = format!(" font-family=\"{MONO}\" transform=\"rotate(-90 {} {})\"", at(x), at(y));
        self.text((x, y), size, Anchor::End, label_ink(self.theme), &turned, text);
    }

    fn text(&mut self, (x, y): (f32, f32), size: f32, anchor: Anchor, fill: Rgb, more: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.shape(&format!(
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\" text-anchor=\"{anchor}\" fill=\"{}\"{more}>{}</text>",
            at(x),
            at(y),
            at(size),
            fill.css(),
            escape(text)
        ));
    }

    fn shape(&mut self, shape: &str) {
        self.body.push_str(shape);
        self.body.push('\n');
    }
}

/// What the colours mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Legend {
    /// The scale.
    pub scale: Scale,
    /// What is measured.
    pub name: String,
    /// Its lowest and its highest value as printed.
    pub ends: (String, String),
}

/// A drawing with all that a reader needs beside it.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// What it shows.
    pub title: String,
    /// What the colours mean, where they mean a number.
    pub legend: Option<Legend>,
    /// Sentences below the drawing.
    pub caption: Vec<String>,
    /// What it takes to make it again.
    pub provenance: Value,
    /// The picture.
    pub drawing: Drawing,
}

impl Sheet {
    /// The same with what its colours mean.
    pub fn with_legend(self, legend: Legend) -> Self {
        Self { legend: Some(legend), ..self }
    }

    /// The whole file.
    pub fn svg(&self) -> String {
        let drawing = &self.drawing;
        let theme = drawing.theme;
        let inner = drawing.width.max(MIN_WIDTH);
        let n_letters = (inner / LETTER) as usize;
        let lines: Vec<String> = self.caption.iter().flat_map(|line| wrap(line, n_letters)).collect();
        let mut around = Drawing::new(theme, inner, 0.0);
        around.text((0.0, 16.0), 16.0, Anchor::Start, ink(theme), " font-weight=\"600\"", &self.title);
        let top = if self.legend.is_some() { 60.0 } else { 32.0 };
        let mut gradient = String::new();
        if let Some(legend) = &self.legend {
            gradient = self.draw_legend(&mut around, legend);
        }
        let mut y = top + drawing.height + 20.0;
        for line in &lines {
            around.label(0.0, y, Anchor::Start, line);
            y += LINE;
        }
        let (width, height) = ((inner + 2.0 * MARGIN).ceil(), (y + MARGIN + 8.0).ceil());
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"{SANS}\" role=\"img\">\n\
             <title>{}</title>\n<desc>{}</desc>\n<metadata>{}</metadata>\n{gradient}\
             <rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>\n\
             <g transform=\"translate({m} {m})\">\n{}<g transform=\"translate(0 {})\">\n{}</g>\n</g>\n</svg>\n",
            escape(&self.title),
            escape(&self.caption.join(" ")),
            escape(&xml_json(&self.provenance)),
            paper(theme).css(),
            around.body,
            at(top),
            drawing.body,
            m = at(MARGIN),
        )
    }

    /// Draws the bar; gives its gradient.
    fn draw_legend(&self, around: &mut Drawing, legend: &Legend) -> String {
        let theme = around.theme;
        let stop = |i: usize| {
            let share = i as f32 / 16.0;
            let value = match legend.scale {
                Scale::UpTo(most) => share * most,
                Scale::SignedUpTo(most) => (2.0 * share - 1.0) * most,
            };
            let colour = shade(theme, legend.scale, value).css();
            format!("<stop offset=\"{}\" stop-color=\"{colour}\"/>", at(share))
        };
        let stops: String = (0..=16).map(stop).collect();
        let low = legend.ends.0.chars().count() as f32 * LETTER + 6.0;
        around.label(0.0, 40.0, Anchor::Start, &legend.ends.0);
        around.shape(&format!(
            "<rect x=\"{}\" y=\"31\" width=\"120\" height=\"10\" fill=\"url(#scale)\" stroke=\"{}\" stroke-width=\"0.5\"/>",
            at(low),
            label_ink(theme).css()
        ));
        let after = format!("{}   {}", legend.ends.1, legend.name);
        around.label(low + 126.0, 40.0, Anchor::Start, &after);
        format!("<defs><linearGradient id=\"scale\">{stops}</linearGradient></defs>\n")
    }
}

/// A text in lines of at most `n_letters`, broken at spaces where there are any.
pub fn wrap(text: &str, n_letters: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let n_line = line.chars().count();
        if n_line > 0 && n_line + 1 + word.len() > n_letters {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > n_letters {
            lines.push(word.drain(..n_letters).collect());
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    lines.push(line);
    lines
}
