//! Tests of links: round trips, sizes, old versions, and letters that no page of ours wrote.

use headlight_core::ablate::Metric;
use headlight_core::hooks::{Edit, Intervention, PatternTarget, Prompt};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::protocol::EditWhere;
use crate::state::settings::StimulusChoice;

/// Links of version 1, each with the view that it must open for ever: letters, a tab, JSON.
const VERSION_1: &str = include_str!("fixtures/version-1.tsv");

fn head(layer: usize, head: usize) -> HeadId {
    HeadId::new(layer, head)
}

fn placed(edit: Edit, heads: &[HeadId], at: EditWhere) -> PlacedEdit {
    PlacedEdit { edit: Intervention::of_heads(edit, heads.iter().copied()), at }
}

/// A view with something in every field.
fn full() -> Link {
    let mut link = Link {
        model: LinkedModel {
            id: "my.gguf".to_owned(),
            sha256: Some("ab".repeat(32)),
            url: Some("https://example.org/my.gguf".to_owned()),
            format: ModelFormat::Gguf,
        },
        prompt: "Zwölf </script>\n\u{1f600} \"quoted\" \\ and so on".to_owned(),
        bos: BosPolicy::On,
        lens: "detector:custom".to_owned(),
        imported: Some(LinkedScores {
            file: "theirs.json".to_owned(),
            metric: "prefix score".to_owned(),
            is_effect: true,
            model_sha256: Some("cd".repeat(32)),
            rounded: Some(RoundedScores { most: 0.75, thousandths: vec![vec![0, -1000], vec![12, 999]] }),
        }),
        head: Some(head(3, 1)),
        token: Some(4),
        edits: vec![
            placed(Edit::Zero {}, &[head(0, 1), head(2, 3)], EditWhere::Everywhere),
            placed(Edit::Scale { alpha: -1.25 }, &[head(1, 1)], EditWhere::Last),
            placed(
                Edit::InterpolatePattern { towards: PatternTarget::First, strength: 0.3 },
                &[head(2, 2)],
                EditWhere::NotFirst,
            ),
            placed(
                Edit::Patch { from: Some(Prompt::Text("other".to_owned())), from_positions: None },
                &[head(2, 0)],
                EditWhere::Everywhere,
            ),
            placed(Edit::Knockout { edges: vec![(5, 2), (6, 2)] }, &[head(0, 0)], EditWhere::Everywhere),
        ],
        sets: vec![HeadSet { name: "mine".to_owned(), heads: BTreeSet::from([head(0, 1), head(1, 7)]) }],
        compare: [" a".to_owned(), " b".to_owned()],
        hide: BTreeSet::from([Part::Map, Part::Plots]),
        backend: BackendChoice::Cpu,
        numbers: Some(Numbers {
            model_sha256: "0123456789abcdef".to_owned(),
            tokenizer_sha256: "fedcba9876543210".to_owned(),
            detector_version: Some(1),
            top: (0..5).map(|i| (1000 + i, format!(" token{i}"), -0.5 - i as f32)).collect(),
            kl_nats: Some(1.5),
            score: Some(0.25),
        }),
        ..Link::default()
    };
    link.lab.metric = Metric::Kl;
    link.lab.corrupted = "corrupted".to_owned();
    link.lab.seed = 7;
    link.detectors.stimulus = StimulusChoice::Prompt;
    link.detectors.custom.offsets_text = "-1, -2".to_owned();
    link.detectors.custom.paint((1, 0), true, &[5, 6]);
    link.detectors.retrieval.is_own = true;
    link
}

#[test]
fn a_view_survives_its_link() {
    for link in [Link::default(), full(), full().without_numbers()] {
        assert_eq!(Link::decode(&link.encode()), Ok(link.clone()));
        assert_eq!(Link::decode(&format!("#{}", link.encode())), Ok(link));
    }
}

#[test]
fn a_view_of_defaults_has_no_letters_and_a_small_change_few() {
    assert_eq!(Link::default().encode(), "");
    let link = Link { head: Some(head(1, 0)), ..Link::default() };
    assert_eq!(link.to_value(), serde_json::json!({ "head": "L1H0" }));
    assert!(link.encode().len() < 32, "{}", link.encode());
    let mut link = Link::default();
    link.lab.metric = Metric::Kl;
    assert_eq!(link.to_value(), serde_json::json!({ "lab": { "metric": "kl" } }));
}

#[test]
fn a_hundred_words_and_five_edits_fit_into_two_thousand_letters() {
    let words = "the of keeper lantern harbour answered while winter evening children carried silver letters across \
                 narrow bridges before morning nobody remembered which stranger had promised them bread";
    let prompt: Vec<&str> = words.split(' ').cycle().take(100).collect();
    // Words that repeat would pack too well: every one gets letters of its own.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let prompt: Vec<String> = prompt
        .iter()
        .map(|word| {
            let letters = rng.next_u32();
            let letter = |i: u32| char::from(b'a' + (letters >> (5 * i) & 31).min(25) as u8);
            format!("{word}{}{}{}", letter(0), letter(1), letter(2))
        })
        .collect();
    let link = Link { prompt: prompt.join(" "), ..full() };
    assert_eq!(link.edits.len(), 5);
    assert!(link.encode().len() < 2000, "{} letters", link.encode().len());
}

/// Every link that was ever written must open as what it was.
#[test]
fn links_of_version_1_open_for_ever() {
    let lines: Vec<&str> = VERSION_1.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() >= 5);
    for line in lines {
        let (letters, json) = line.split_once('\t').expect("letters, a tab, JSON");
        let link = Link::decode(letters).unwrap_or_else(|error| panic!("{letters}: {error:?}"));
        let whole = serde_json::to_value(&link).expect("plain data");
        let wanted: Value = serde_json::from_str(json).expect("JSON");
        assert!(holds(&whole, &wanted), "{letters}: {whole} does not hold {wanted}");
    }
}

/// Whether a value has everything of another one; objects may have more, which later builds added.
fn holds(whole: &Value, wanted: &Value) -> bool {
    match (whole, wanted) {
        (Value::Object(whole), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| whole.get(name).is_some_and(|whole| holds(whole, wanted)))
        }
        // What is written as 0.7 is held in 32 bits.
        (Value::Number(whole), Value::Number(wanted)) => {
            whole.as_f64().zip(wanted.as_f64()).is_some_and(|(a, b)| (a - b).abs() <= 1e-6 * b.abs())
        }
        _ => whole == wanted,
    }
}

fn packed(json: &str) -> String {
    format!("1.{}", URL_SAFE_NO_PAD.encode(compress_to_vec(json.as_bytes(), 6)))
}

#[test]
fn what_is_no_link_says_so() {
    let good = full().encode();
    assert_eq!(Link::decode("2.abc"), Err(LinkError::Version("2".to_owned())));
    assert_eq!(Link::decode("some-heading"), Err(LinkError::Version("some-heading".to_owned())));
    assert_eq!(Link::decode(&good[..good.len() / 2]), Err(LinkError::Damaged));
    assert_eq!(Link::decode("1.$$$"), Err(LinkError::Damaged));
    assert_eq!(Link::decode(&"x".repeat(1_000_000)), Err(LinkError::TooLong(1_000_000)));
    let bomb = packed(&format!("{{\"prompt\":\"{}\"}}", "a".repeat(50_000_000)));
    assert!(bomb.len() < MAX_LETTERS, "{}", bomb.len());
    assert_eq!(Link::decode(&bomb), Err(LinkError::TooLarge));
    let unreadable = [
        "[]",
        "{",
        "{\"promt\":\"a\"}",
        "{\"head\":\"L1\"}",
        "{\"head\":\"L99999999999999999999H0\"}",
        "{\"edits\":[{\"edit\":{\"kind\":\"explode\",\"heads\":[\"L0H0\"]}}]}",
        "{\"edits\":[{\"edit\":{\"kind\":\"scale\",\"alpha\":NaN,\"heads\":[\"L0H0\"]}}]}",
        "{\"lab\":{\"temperature\":1e999}}",
        "{\"lab\":{\"temperature\":1e99}}",
        "{\"edits\":[{\"edit\":{\"kind\":\"scale\",\"alpha\":-1e99,\"heads\":[\"L0H0\"]}}]}",
        "{\"numbers\":{\"top\":[[1,\"a\",null]]}}",
    ];
    for json in unreadable {
        let error = Link::decode(&packed(json)).expect_err(json);
        assert!(matches!(error, LinkError::Unreadable(_)), "{json}: {error:?}");
        assert_eq!(error.report().code, "bad_link");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Link::decode(&packed(&nested)).is_err(), "deep nesting");
}

/// Seconds of fuzzing; more by `HEADLIGHT_FUZZ_SECONDS`.
const FUZZ_SECONDS: u64 = 20;

/// Whatever the letters, decoding answers, and what it takes for a view it can write again.
#[test]
fn no_letters_make_the_decoder_panic() {
    let seconds = std::env::var("HEADLIGHT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds.unwrap_or(FUZZ_SECONDS));
    let (whole, json) = (full().encode(), full().to_value().to_string());
    let (mut n_cases, mut n_opened) = (0_u64, 0_u64);
    for seed in 0.. {
        if std::time::Instant::now() > end {
            break;
        }
        n_cases += 1;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |n: usize| rng.next_u32() as usize % n;
        let letters = match below(3) {
            // Letters changed, cut off or put in.
            0 => mutated(whole.as_bytes(), &mut below),
            // JSON changed before it is packed: gets past the checks of base64 and deflate.
            1 => packed(&mutated(json.as_bytes(), &mut below)),
            _ => {
                format!("1.{}", (0..below(200)).map(|_| char::from(33 + below(94) as u8)).collect::<String>())
            }
        };
        if let Ok(link) = Link::decode(&letters) {
            n_opened += 1;
            let again = Link::decode(&link.encode());
            // NaN is unequal to itself, and none gets in.
            assert_eq!(again.as_ref(), Ok(&link), "seed {seed}: {letters}");
        }
    }
    eprintln!("{n_cases} links decoded, {n_opened} of them opened");
    assert!(n_opened > 0, "some changes must leave a link whole, or the fuzzer changes too much");
}

fn mutated(bytes: &[u8], below: &mut impl FnMut(usize) -> usize) -> String {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + below(3) {
        let at = below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match below(5) {
            0 => bytes.truncate(at),
            1 => bytes[at] = 32 + below(95) as u8,
            2 => bytes.insert(at, b"0123456789eE.-+\"{}[]:,nul"[below(25)]),
            3 => {
                bytes.remove(at);
            }
            _ => {
                let end = (at + below(40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn typing_and_sliding_are_no_steps_and_clicking_is() {
    let link = full();
    let typed = Link { prompt: "other".to_owned(), ..link.clone() };
    assert!(!typed.is_step_from(&link));
    let mut slid = link.clone();
    slid.edits[1].edit.edit = Edit::Scale { alpha: 2.0 };
    assert!(!slid.is_step_from(&link));
    let mut off = link.clone();
    off.edits.pop();
    assert!(off.is_step_from(&link));
    assert!(Link { head: None, ..link.clone() }.is_step_from(&link));
    assert!(Link { lens: "effect:sweep".to_owned(), ..link.clone() }.is_step_from(&link));
    assert!(!link.is_step_from(&link));
}
