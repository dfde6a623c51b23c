//! A link in words, as Markdown and as a QR code; a verdict on one in sentences.

use qrcodegen::{QrCode, QrCodeEcc};

use super::edits::heads_text;
use super::lens::Lens;
use super::short_text;
use crate::link::Link;
use crate::state::share::Verdict;

/// Letters of a prompt in a link's text.
const PROMPT_CHARS: usize = 48;
/// Heads named in a link's text.
const N_HEADS: usize = 4;
/// Addresses beyond this make squares too small for a phone's camera.
const MAX_QR_BYTES: usize = 1200;
/// White modules around a QR code, as its standard asks.
const QR_MARGIN: i32 = 4;

/// What a link shows, in a phrase.
pub fn summary(link: &Link) -> String {
    let lens = Lens::of_key(&link.lens).map_or("", Lens::label);
    let mut text = format!("{}: “{}”, {}", link.model.id, short_text(&link.prompt, PROMPT_CHARS), lens);
    if let Some(head) = link.head {
        text += &format!(", head {head}");
    }
    let edited: Vec<_> =
        link.edits.iter().flat_map(|placed| placed.edit.sites.heads.iter().copied()).collect();
    match (edited.is_empty(), link.edits.len()) {
        (_, 0) => {}
        (true, n) => text += &format!(", {n} edits"),
        (false, _) => text += &format!(", edited: {}", heads_text(&edited, N_HEADS)),
    }
    text
}

/// What a link says of the scores of a file that colour the map: how exactly it carries them, or that it does not.
pub fn imported_note(link: &Link) -> Option<&'static str> {
    link.imported.as_ref().map(|imported| match imported.rounded {
        Some(_) => "The imported scores on the map go with it, each rounded to a thousandth of the largest.",
        None => {
            "The imported scores on the map are too many for a link: whoever opens it is told which file they are of, and sees the map without them."
        }
    })
}

/// A Markdown link.
pub fn markdown(link: &Link, address: &str) -> String {
    let mut text = String::new();
    for letter in summary(link).chars() {
        match letter {
            // What would end the text, or begin something else in it.
            '[' | ']' | '\\' | '`' | '*' | '_' | '<' | '>' | '|' => text.extend(['\\', letter]),
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    format!("[Headlight, {text}]({address})")
}

/// A QR code's width in modules and the path of its dark ones; none of an address too long to be read off a screen.
pub fn qr_path(address: &str) -> Option<(i32, String)> {
    if address.is_empty() || address.len() > MAX_QR_BYTES {
        return None;
    }
    let code = QrCode::encode_text(address, QrCodeEcc::Low).ok()?;
    let modules = (0..code.size()).flat_map(|y| (0..code.size()).map(move |x| (x, y)));
    let dark = modules.filter(|&(x, y)| code.get_module(x, y));
    let path = dark.map(|(x, y)| format!("M{} {}h1v1h-1z", x + QR_MARGIN, y + QR_MARGIN)).collect();
    Some((code.size() + 2 * QR_MARGIN, path))
}

/// A verdict as a sentence, and what differs as lines.
pub fn verdict_text(verdict: &Verdict) -> (String, Vec<String>) {
    let sentence = match verdict {
        Verdict::Waiting => {
            "Opened from a link. Computing, to compare with the sender's numbers …".to_owned()
        }
        Verdict::Reproduced { max_difference, lacks_score, .. } => {
            // Below a float's last digit of a log-probability, and of the rounding in the link.
            let difference = match *max_difference {
                small if small < 1e-6 => "no difference to a millionth".to_owned(),
                difference => format!("max difference {difference:.0e}"),
            };
            let rest = if *lacks_score { " The head's score has not been computed yet." } else { "" };
            format!("Reproduced: this browser computed what the sender saw ({difference}).{rest}")
        }
        Verdict::Different(_) => "Not what the sender saw:".to_owned(),
        Verdict::Changed => "Changed since the link was opened.".to_owned(),
    };
    let lines = match verdict {
        Verdict::Different(lines) => lines.clone(),
        Verdict::Reproduced { other_engine, .. } => other_engine.iter().cloned().collect(),
        _ => Vec::new(),
    };
    (sentence, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_stays_one_link_whatever_the_prompt() {
        let link = Link { prompt: "a](javascript:x) [b`*\nc".to_owned(), ..Link::default() };
        let text = markdown(&link, "https://example.org/#1.abc");
        assert!(text.starts_with("[Headlight, induction-2l: “a\\](javascript:x) \\[b\\`\\*"), "{text}");
        assert!(text.ends_with("](https://example.org/#1.abc)") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_qr_code_has_its_margin_and_a_long_link_has_none() {
        let (size, path) = qr_path("https://example.org/#1.abc").expect("a code");
        assert!(size >= 21 + 8, "{size}");
        // The finder pattern's corner.
        assert!(path.starts_with("M4 4h1v1h-1z"), "{path}");
        assert_eq!(qr_path(&"x".repeat(MAX_QR_BYTES + 1)), None);
    }

    #[test]
    fn a_verdict_says_how_close() {
        let text = |max_difference| {
            verdict_text(&Verdict::Reproduced { max_difference, lacks_score: false, other_engine: None }).0
        };
        assert!(text(2.1e-6).contains("max difference 2e-6"), "{}", text(2.1e-6));
        assert!(text(0.0).contains("no difference"));
        assert_eq!(verdict_text(&Verdict::Different(vec!["x".to_owned()])).1, ["x"]);
    }
}
