//! Tests of the page's texts and rows.

use super::*;

fn report(tokens: &[(&str, &str)], added_bos: bool) -> TokensReport {
    TokensReport {
        ids: (0..tokens.len() as u32).collect(),
        tokens: tokens.iter().map(|(text, _)| (*text).to_owned()).collect(),
        pieces: tokens.iter().map(|(text, _)| text.replace(' ', "Ġ")).collect(),
        bytes: tokens.iter().map(|(_, bytes)| (*bytes).to_owned()).collect(),
        added_bos,
    }
}

fn info(n_heads: usize, n_kv_heads: usize) -> ModelInfo {
    ModelInfo {
        name: "m".to_owned(),
        family: "llama".to_owned(),
        sha256: String::new(),
        tokenizer_sha256: "tt".to_owned(),
        n_layers: 30,
        n_heads,
        n_kv_heads,
        d_model: 576,
        d_head: 64,
        d_mlp: 1536,
        d_vocab: 49152,
        n_ctx: 8192,
        bos_id: Some(1),
        adds_bos: false,
        n_params: 1,
    }
}

#[test]
fn whitespace_of_tokens_is_visible() {
    assert_eq!(token_text(" a\n\t"), "·a↵⇥");
    assert_eq!(token_text(""), "∅");
    assert_eq!(short_text("·capital", 5), "·cap…");
    assert_eq!(short_text("·cap", 5), "·cap");
}

#[test]
fn a_fragment_of_a_character_shows_its_bytes() {
    let chips = chips(&report(&[("<s>", "3c733e"), ("\u{fffd}", "e296")], true));
    assert!(chips[0].is_bos && !chips[1].is_bos);
    assert_eq!((chips[1].text.as_str(), chips[1].is_fragment), ("‹e2 96›", true));
    assert!(chips[1].description.contains("id 1") && chips[1].description.contains("bytes e2 96"));
}

#[test]
fn a_cut_prompt_ends_between_characters_and_leaves_the_bos_out() {
    let prompt = report(&[("<s>", "3c733e"), ("a", "61"), ("\u{fffd}", "e296"), ("\u{fffd}", "92")], true);
    assert_eq!(cut_text(&prompt, 4), "a▒");
    assert_eq!(cut_text(&prompt, 3), "a");
    assert_eq!(cut_text(&prompt, 1), "");
    assert_eq!(cut_text(&report(&[("a", "61"), ("b", "62")], false), 1), "a");
}

#[test]
fn sizes_and_times_carry_units() {
    let sizes = [999, 412_000, 98_362_432, 1_500_000_000].map(size_text);
    assert_eq!(sizes, ["999 B", "412 kB", "98.4 MB", "1.50 GB"]);
    assert_eq!(count_text(134_515_008), "134.5 M");
    assert_eq!([duration_text(7.2), duration_text(65.0)], ["8 s", "1 min 05 s"]);
}

#[test]
fn progress_tells_amount_rate_and_time_left() {
    let half = Progress {
        stage: Stage::Download,
        done: 50_000_000,
        total: Some(100_000_000),
        elapsed_ms: 5000.0,
        scores: None,
        preview: None,
        text: None,
    };
    let text = progress_text(&half);
    assert_eq!(text.detail, "50.0 MB of 100.0 MB · 10.0 MB/s · 5 s left");
    assert_eq!(text.fraction, Some(0.5));
    let unknown = Progress { total: None, elapsed_ms: 10.0, ..half.clone() };
    assert_eq!(progress_text(&unknown).detail, "50.0 MB");
    let tensors = Progress {
        stage: Stage::Unpack,
        done: 3,
        total: Some(272),
        elapsed_ms: 20.0,
        scores: None,
        preview: None,
        text: None,
    };
    assert_eq!(progress_text(&tensors).detail, "3 of 272 tensors");
    let fast = Progress { stage: Stage::Sweep, preview: Some(vec![vec![0.5]]), ..tensors };
    assert!(progress_text(&fast).detail.ends_with("in fast precision (dashed), exact numbers follow"));
    let exact = Progress { scores: Some(vec![vec![0.5]]), ..fast };
    assert!(progress_text(&exact).detail.ends_with("the largest effects first"));
}

#[test]
fn probabilities_never_read_as_zero_when_they_are_not() {
    assert_eq!(percent_text(0.0001), "<0.1 %");
    assert_eq!(percent_text(0.0), "0.0 %");
    assert_eq!(percent_text(0.1234), "12.3 %");
}

#[test]
fn signs_are_always_printed() {
    let texts = [0.314, -1.2, 0.0, -0.001].map(signed_text);
    assert_eq!(texts, ["+0.31", "−1.20", "+0.00", "+0.00"]);
}

#[test]
fn heads_share_keys_and_values_within_their_group() {
    let names = |heads: Vec<HeadId>| heads.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(heads_sharing_kv(HeadId::new(18, 6), &info(9, 3))), ["L18H7", "L18H8"]);
    assert!(heads_sharing_kv(HeadId::new(0, 3), &info(8, 8)).is_empty());
}

#[test]
fn steps_stay_inside_the_map() {
    let at = HeadId::new(29, 8);
    assert_eq!(neighbour(at, Step::Up, 30, 9), at);
    assert_eq!(neighbour(at, Step::Right, 30, 9), at);
    assert_eq!(neighbour(at, Step::Bottom, 30, 9), HeadId::new(0, 8));
    assert_eq!(neighbour(HeadId::new(0, 0), Step::Left, 30, 9), HeadId::new(0, 0));
    assert_eq!(neighbour(HeadId::new(3, 2), Step::RowEnd, 30, 9), HeadId::new(3, 8));
}

#[test]
fn cells_say_their_head_score_and_state() {
    assert_eq!(cell_label(HeadId::new(5, 1), "induction", Some(0.934), None), "L5H1, induction 0.93");
    assert_eq!(
        cell_label(HeadId::new(5, 1), "induction", None, Some(EditMark::Off)),
        "L5H1, no score yet, switched off"
    );
}
