//! What the page shows, computed from reports: labels, texts, rows. Pure and tested natively; colours are in
//! [`colour`], the DOM is the components'.

pub mod colour;
pub mod edits;
pub mod evidence;
pub mod lens;
pub mod measure;
pub mod plot;
pub mod retrieval;
pub mod scatter;
pub mod share;

use headlight_core::ids::HeadId;
use headlight_core::report::{ModelInfo, RunReport, TokenLogit, TokensReport};

use crate::protocol::{Progress, Stage};
use crate::state::edits::EditMark;

/// A token as the page prints it: `·` for a space, `↵` for a newline, `⇥` for a tab, `∅` for nothing.
pub fn token_text(token: &str) -> String {
    let shown: String = token
        .chars()
        .map(|c| match c {
            ' ' => '·',
            '\n' => '↵',
            '\r' => '␍',
            '\t' => '⇥',
            '\u{a0}' => '⍽',
            c if c.is_control() => '␦',
            c => c,
        })
        .collect();
    if shown.is_empty() { "∅".to_owned() } else { shown }
}

/// A printed token cut to `n_chars` for a narrow place, with `…` where it was cut.
pub fn short_text(shown: &str, n_chars: usize) -> String {
    if shown.chars().count() <= n_chars {
        return shown.to_owned();
    }
    shown.chars().take(n_chars.saturating_sub(1)).chain(['…']).collect()
}

/// One token of the prompt, ready to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Position in the prompt.
    pub position: usize,
    /// As printed.
    pub text: String,
    /// Id, spelling, bytes and text, for the tooltip and for screen readers.
    pub description: String,
    /// Whether it is the BOS that was added.
    pub is_bos: bool,
    /// Whether a line ends with it.
    pub ends_line: bool,
    /// Whether it is only part of a character.
    pub is_fragment: bool,
}

/// Each token as a chip prints it.
pub fn token_texts(report: &TokensReport) -> Vec<String> {
    chips(report).into_iter().map(|chip| chip.text).collect()
}

/// The chips of a prompt.
pub fn chips(report: &TokensReport) -> Vec<Chip> {
    let rows = report.ids.iter().zip(&report.tokens).zip(&report.pieces).zip(&report.bytes).enumerate();
    rows.map(|(position, (((id, token), piece), bytes))| {
        let is_fragment = token.contains('\u{fffd}');
        let text = if is_fragment { format!("‹{}›", spaced_hex(bytes)) } else { token_text(token) };
        Chip {
            position,
            description: format!(
                "position {position} · id {id} · piece {piece} · bytes {} · text {token:?}",
                spaced_hex(bytes)
            ),
            is_bos: report.added_bos && position == 0,
            ends_line: token.ends_with('\n'),
            is_fragment,
            text,
        }
    })
    .collect()
}

/// `e29692` as `e2 96 92`.
fn spaced_hex(hex: &str) -> String {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The text of the first `n_tokens` tokens, an added BOS counted but not printed; ends between characters.
pub fn cut_text(report: &TokensReport, n_tokens: usize) -> String {
    let skipped = usize::from(report.added_bos);
    let kept = report.bytes.iter().take(n_tokens).skip(skipped);
    let bytes: Vec<u8> = kept.flat_map(|hex| decode_hex(hex)).collect();
    match std::str::from_utf8(&bytes) {
        Ok(text) => text.to_owned(),
        Err(error) => String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned(),
    }
}

fn decode_hex(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect()
}

/// Bytes for people, decimal units: `94.2 MB`.
pub fn size_text(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..=999 => format!("{bytes} B"),
        1_000..=999_499 => format!("{:.0} kB", value / 1e3),
        999_500..=999_949_999 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

/// A count for people: `134.5 M`.
pub fn count_text(count: usize) -> String {
    let value = count as f64;
    match count {
        0..=999 => count.to_string(),
        1_000..=999_499 => format!("{:.0} k", value / 1e3),
        999_500..=999_949_999 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.2} B", value / 1e9),
    }
}

/// Seconds for people: `8 s`, `1 min 05 s`.
pub fn duration_text(seconds: f64) -> String {
    let whole = seconds.ceil().max(0.0) as u64;
    if whole < 60 { format!("{whole} s") } else { format!("{} min {:02} s", whole / 60, whole % 60) }
}

/// How far a long request is: what, how much, how fast, how long still.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressText {
    /// What is going on.
    pub stage: &'static str,
    /// Units done.
    pub amount: String,
    /// Units done, rate and time left.
    pub detail: String,
    /// 0 to 1, when the total is known.
    pub fraction: Option<f64>,
}

/// Describes progress.
pub fn progress_text(progress: &Progress) -> ProgressText {
    let stage = match progress.stage {
        Stage::Download => "Downloading",
        Stage::ReadCache => "Reading from this browser's cache",
        Stage::Verify => "Checking sha256",
        Stage::Unpack => "Unpacking weights",
        Stage::Compile => "Preparing the graphics device",
        Stage::Bench => "Measuring",
        Stage::Detect => "Detecting",
        Stage::Sweep => "Sweeping",
        Stage::Patch => "Patching",
        Stage::Generate => "Writing",
        Stage::Explain => "Computing",
    };
    let in_bytes = matches!(progress.stage, Stage::Download | Stage::ReadCache | Stage::Verify);
    let amount = |n: u64| if in_bytes { size_text(n) } else { n.to_string() };
    let unit = match progress.stage {
        Stage::Unpack => " tensors",
        Stage::Compile => " kernels",
        Stage::Bench => " runs",
        Stage::Detect | Stage::Explain => " steps",
        Stage::Sweep => " edits",
        Stage::Patch => " patches",
        Stage::Generate => " tokens",
        _ => "",
    };
    let done = match progress.total {
        Some(total) => format!("{} of {}{unit}", amount(progress.done), amount(total)),
        None => format!("{}{unit}", amount(progress.done)),
    };
    let mut detail = done.clone();
    // A rate of the first moments says nothing.
    if progress.elapsed_ms > 300.0 && progress.done > 0 {
        let per_s = progress.done as f64 / progress.elapsed_ms * 1000.0;
        if in_bytes {
            detail.push_str(&format!(" · {}/s", size_text(per_s as u64)));
        }
        if let Some(total) = progress.total.filter(|&total| total > progress.done) {
            let left = duration_text((total - progress.done) as f64 / per_s);
            detail.push_str(&format!(" · {left} left"));
        }
    }
    if progress.preview.is_some() {
        detail.push_str(match progress.scores {
            None => " · in fast precision (dashed), exact numbers follow",
            Some(_) => " · exact numbers replace the fast ones (dashed), the largest effects first",
        });
    }
    let fraction = progress.total.filter(|&total| total > 0).map(|total| progress.done as f64 / total as f64);
    ProgressText { stage, amount: done, detail, fraction: fraction.map(|f| f.clamp(0.0, 1.0)) }
}

/// One row of the next-token list.
#[derive(Clone, Debug, PartialEq)]
pub struct NextToken {
    /// As printed.
    pub text: String,
    /// Vocabulary index.
    pub id: u32,
    /// 0 to 1.
    pub probability: f32,
    /// `12.3 %`.
    pub percent: String,
    /// `17.42`.
    pub logit: String,
    /// The logit as computed.
    pub exact: f32,
}

/// The next-token rows of a run.
pub fn next_tokens(run: &RunReport, n_rows: usize) -> Vec<NextToken> {
    run.logits_top.iter().take(n_rows).map(next_token).collect()
}

fn next_token(candidate: &TokenLogit) -> NextToken {
    let probability = candidate.logprob.exp().clamp(0.0, 1.0);
    NextToken {
        text: if candidate.token.contains('\u{fffd}') {
            format!("‹{}›", candidate.piece)
        } else {
            token_text(&candidate.token)
        },
        id: candidate.id,
        probability,
        percent: percent_text(probability),
        logit: format!("{:.2}", candidate.logit),
        exact: candidate.logit,
    }
}

/// `12.3 %`; small ones as `<0.1 %`.
pub fn percent_text(probability: f32) -> String {
    if probability > 0.0 && probability < 0.0005 {
        return "<0.1 %".to_owned();
    }
    format!("{:.1} %", probability * 100.0)
}

/// Change of the log-probability of the clean run's tokens that the edited run also reports, nats, with its sign.
pub fn logprob_change(clean: &TokenLogit, edited: &RunReport) -> Option<f32> {
    edited.logits_top.iter().find(|c| c.id == clean.id).map(|c| c.logprob - clean.logprob)
}

/// A signed number, the sign always printed: `+0.31`, `−1.20`.
pub fn signed_text(value: f32) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded < 0.0 { format!("−{:.2}", -rounded) } else { format!("+{:.2}", rounded.abs()) }
}

/// `L5H1, induction 0.93`, and what is done to it.
pub fn cell_label(head: HeadId, measure: &str, score: Option<f32>, mark: Option<EditMark>) -> String {
    let score = score.map_or_else(|| "no score yet".to_owned(), |score| format!("{measure} {score:.2}"));
    let done = match mark {
        None => "",
        Some(EditMark::Off) => ", switched off",
        Some(EditMark::Edited) => ", edited",
    };
    format!("{head}, {score}{done}")
}

/// The query heads that read the same key/value head as `head`, itself excluded.
pub fn heads_sharing_kv(head: HeadId, info: &ModelInfo) -> Vec<HeadId> {
    let group_size = (info.n_heads / info.n_kv_heads.max(1)).max(1);
    let first = head.head / group_size * group_size;
    (first..(first + group_size).min(info.n_heads))
        .filter(|&other| other != head.head)
        .map(|other| HeadId::new(head.layer, other))
        .collect()
}

/// The head one step from `from` in the map (layer 0 at the bottom), staying inside.
pub fn neighbour(from: HeadId, step: Step, n_layers: usize, n_heads: usize) -> HeadId {
    let last_layer = n_layers.saturating_sub(1);
    let last_head = n_heads.saturating_sub(1);
    let (layer, head) = match step {
        Step::Up => (from.layer + 1, from.head),
        Step::Down => (from.layer.saturating_sub(1), from.head),
        Step::Left => (from.layer, from.head.saturating_sub(1)),
        Step::Right => (from.layer, from.head + 1),
        Step::RowStart => (from.layer, 0),
        Step::RowEnd => (from.layer, last_head),
        Step::Top => (last_layer, from.head),
        Step::Bottom => (0, from.head),
    };
    HeadId::new(layer.min(last_layer), head.min(last_head))
}

/// Ways to move in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One layer up.
    Up,
    /// One layer down.
    Down,
    /// One head to the left.
    Left,
    /// One head to the right.
    Right,
    /// First head of the layer.
    RowStart,
    /// Last head of the layer.
    RowEnd,
    /// Last layer.
    Top,
    /// Layer 0.
    Bottom,
}

impl Step {
    /// The step that a key stands for, by its DOM name.
    pub fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "ArrowUp" => Self::Up,
            "ArrowDown" => Self::Down,
            "ArrowLeft" => Self::Left,
            "ArrowRight" => Self::Right,
            "Home" => Self::RowStart,
            "End" => Self::RowEnd,
            "PageUp" => Self::Top,
            "PageDown" => Self::Bottom,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
