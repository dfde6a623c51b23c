//! What colours the head map: a reading of the prompt at hand, or a detector's score on its own stimulus. Names,
//! scales and sentences; the numbers are the core's.

use headlight_core::detect::doc::Doc;
use headlight_core::detect::{AttentionTarget, DOCS};
use headlight_core::ids::HeadId;
use headlight_core::report::{DetectReport, HeadScores};

use super::measure::{Measure, rank_of, ranking};
use super::signed_text;

/// What the map shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lens {
    /// Attention on this prompt.
    Prompt(Measure),
    /// A detector.
    Detector(&'static Doc),
    /// What editing each head in turn does.
    Sweep,
    /// What each head adds to a logit directly.
    Attribution,
    /// How much of a clean run each head carries over into a corrupted one.
    Patching,
    /// Scores of another program: their place among the state's imports, which has their name.
    Imported(u32),
}

impl Default for Lens {
    fn default() -> Self {
        Self::Prompt(Measure::default())
    }
}

/// How a score becomes a colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// 0 to the given value, one hue.
    UpTo(f32),
    /// Minus the given value to the value, two hues that meet at 0.
    SignedUpTo(f32),
}

impl Lens {
    /// Detectors that the map offers.
    pub fn detectors() -> impl Iterator<Item = Self> {
        DOCS.iter().map(Self::Detector)
    }

    /// Whether it is the detector of the user's own pattern.
    pub fn is_custom(self) -> bool {
        matches!(self, Self::Detector(doc) if doc.id == "custom")
    }

    /// Whether it is a detector that can read given sequences in place of its own.
    pub fn takes_sequences(self) -> bool {
        matches!(self, Self::Detector(doc) if doc.reads_sequences())
    }

    /// A name for the menu's values and for links.
    pub fn key(self) -> String {
        match self {
            Self::Prompt(measure) => format!("prompt:{}", measure.target()),
            Self::Detector(doc) => format!("detector:{}", doc.id),
            Self::Sweep => "effect:sweep".to_owned(),
            Self::Attribution => "effect:dla".to_owned(),
            Self::Patching => "effect:patch".to_owned(),
            Self::Imported(index) => format!("imported:{index}"),
        }
    }

    /// The lens of a key.
    pub fn of_key(key: &str) -> Option<Self> {
        match key.split_once(':')? {
            ("prompt", target) => Measure::of_target(target).map(Self::Prompt),
            ("detector", id) => {
                Self::detectors().find(|lens| matches!(lens, Self::Detector(doc) if doc.id == id))
            }
            ("effect", "sweep") => Some(Self::Sweep),
            ("effect", "dla") => Some(Self::Attribution),
            ("effect", "patch") => Some(Self::Patching),
            ("imported", index) => index.parse().ok().map(Self::Imported),
            _ => None,
        }
    }

    /// As a label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Prompt(measure) => measure.label(),
            Self::Detector(doc) => doc.title,
            Self::Sweep => "Effect of editing each head",
            Self::Attribution => "Direct logit attribution",
            Self::Patching => "Activation patching",
            Self::Imported(_) => "Imported scores",
        }
    }

    /// As the page writes it before a number.
    pub fn name(self) -> String {
        match self {
            Self::Prompt(measure) => measure.name(),
            Self::Detector(doc) => doc.id.replace('_', " "),
            Self::Sweep => "effect".to_owned(),
            Self::Attribution => "direct".to_owned(),
            Self::Patching => "recovered".to_owned(),
            Self::Imported(_) => "imported".to_owned(),
        }
    }

    /// The cells of a pattern that this lens reads, where it reads any.
    pub fn target(self) -> Option<AttentionTarget> {
        let name = match self {
            Self::Prompt(measure) => return Some(measure.0),
            // The three ways to measure induction read the same cells.
            Self::Detector(doc) if doc.id.starts_with("induction") => "induction",
            Self::Detector(doc) => doc.id,
            Self::Sweep | Self::Attribution | Self::Patching | Self::Imported(_) => return None,
        };
        AttentionTarget::ALL.into_iter().find(|target| target.name() == name)
    }

    /// The scale of these scores.
    pub fn scale(self, scores: Option<&HeadScores>) -> Scale {
        match self {
            Self::Detector(doc) if doc.id == "copying" => Scale::SignedUpTo(1.0),
            Self::Patching => Scale::SignedUpTo(1.0),
            Self::Sweep | Self::Attribution => {
                let all = scores.into_iter().flat_map(|scores| scores.scores.iter().flatten());
                let most = all.fold(0.0, |most: f32, score| most.max(score.abs()));
                Scale::SignedUpTo(if most > 0.0 { most } else { 1.0 })
            }
            Self::Detector(doc) if doc.id == "entropy" => {
                let all = scores.into_iter().flat_map(|scores| scores.scores.iter().flatten());
                Scale::UpTo(all.copied().fold(1.0, f32::max))
            }
            Self::Imported(_) => {
                let all = || scores.into_iter().flat_map(|scores| scores.scores.iter().flatten());
                let most = all().fold(0.0, |most: f32, score| most.max(score.abs()));
                match all().any(|&score| score < 0.0) {
                    true => Scale::SignedUpTo(most),
                    false if most > 0.0 => Scale::UpTo(most),
                    false => Scale::UpTo(1.0),
                }
            }
            _ => Scale::UpTo(1.0),
        }
    }

    /// The ends of this lens' scale as printed.
    pub fn ends(self, scale: Scale) -> (String, String) {
        let unit = if matches!(self, Self::Imported(_)) { "" } else { " nats" };
        match scale {
            Scale::UpTo(1.0) => ("0".to_owned(), "1".to_owned()),
            Scale::UpTo(most) if most < 1.0 => ("0".to_owned(), format!("{most:.3}{unit}")),
            Scale::UpTo(most) => ("0".to_owned(), format!("{most:.1}{unit}")),
            Scale::SignedUpTo(1.0) => ("−1".to_owned(), "+1".to_owned()),
            Scale::SignedUpTo(most) => (signed_text(-most), signed_text(most)),
        }
    }
}

/// The report's scores in the shape that the map reads.
pub fn report_scores(report: &DetectReport) -> HeadScores {
    HeadScores { target: report.detector.clone(), scores: report.scores.clone(), n_rows: report.n }
}

/// A row of the ranked table.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedHead {
    /// The head.
    pub head: HeadId,
    /// Its place, from 1; equal scores share the better one.
    pub rank: usize,
    /// Its score as printed.
    pub text: String,
    /// Standard deviation over draws, where there are several.
    pub spread: Option<f32>,
}

/// Every head from the highest score down; empty when there is nothing to rank.
pub fn ranked(scores: &HeadScores, spread: Option<&Vec<Vec<f32>>>) -> Vec<RankedHead> {
    let row = |(head, score): (HeadId, f32)| RankedHead {
        head,
        rank: rank_of(scores, head).unwrap_or_default(),
        text: format!("{score:.3}"),
        spread: spread.and_then(|spread| spread.get(head.layer)?.get(head.head).copied()),
    };
    ranking(scores).into_iter().map(row).collect()
}

/// What a finished detector says, in a sentence: the heads it names, or that there are none and which comes nearest.
pub fn verdict(report: &DetectReport, doc: &Doc) -> String {
    let best = format!("{} {:.2}", report.best.head, report.best.score);
    let Some(threshold) = doc.threshold else {
        return format!("Highest: {best}. This score names no head by itself.");
    };
    let line = format!("{} ({})", threshold.value, threshold.source);
    match report.found.len() {
        0 => format!("None found: no head is above {line}. The nearest is {best}."),
        1 => format!("1 head is above {line}: {best}."),
        n => format!("{n} heads are above {line}; the strongest is {best}."),
    }
}

/// What the model read, in words: the prompt where that was the stimulus.
pub fn stimulus_text(report: &DetectReport) -> String {
    match report.provenance.request.sequences.as_deref() {
        Some([ids]) => format!("The prompt, {} tokens as they are", ids.len()),
        _ => report.stimulus.clone(),
    }
}

/// The detectors that name this head, with its score: the labels a head has earned.
pub fn labels<'a>(reports: impl Iterator<Item = &'a DetectReport>, head: HeadId) -> Vec<(String, f32)> {
    let named = reports.filter(|report| report.found.contains(&head));
    let label = |report: &DetectReport| {
        let title = Lens::of_key(&format!("detector:{}", report.detector)).map_or("", Lens::label);
        (title.to_owned(), report.scores[head.layer][head.head])
    };
    named.map(label).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use headlight_core::report::{DetectProvenance, DetectRequest, HeadScore, Provenance};

    /// A report of a detector without evidence.
    pub fn report(detector: &str, scores: Vec<Vec<f32>>, found: Vec<HeadId>) -> DetectReport {
        let run = Provenance {
            model: "m".to_owned(),
            model_sha256: String::new(),
            engine: "cpu-f32".to_owned(),
            build: String::new(),
        };
        DetectReport {
            detector: detector.to_owned(),
            version: 1,
            definition: String::new(),
            stimulus: String::new(),
            n: 4,
            best: HeadScore { head: HeadId::new(0, 1), score: scores[0][1] },
            scores,
            spread: None,
            threshold: None,
            found,
            of_draws: None,
            evidence: serde_json::Value::Null,
            provenance: DetectProvenance { run, request: DetectRequest::default() },
        }
    }

    fn doc(id: &str) -> &'static Doc {
        match Lens::of_key(&format!("detector:{id}")) {
            Some(Lens::Detector(doc)) => doc,
            other => panic!("{id}: {other:?}"),
        }
    }

    #[test]
    fn keys_round_trip() {
        let effects = [Lens::Sweep, Lens::Attribution, Lens::Patching];
        for lens in Measure::all().map(Lens::Prompt).into_iter().chain(Lens::detectors()).chain(effects) {
            assert_eq!(Lens::of_key(&lens.key()), Some(lens));
        }
        assert_eq!(Lens::of_key("detector:no_such"), None);
        assert_eq!(Lens::of_key("induction"), None);
    }

    #[test]
    fn lenses_that_read_attention_know_their_cells() {
        assert!(Measure::all().iter().all(|measure| Lens::Prompt(*measure).target().is_some()));
        assert_eq!(Lens::Detector(doc("induction_jittered")).target(), Some(AttentionTarget::Induction));
        assert_eq!(Lens::Detector(doc("first_token")).target(), Some(AttentionTarget::FirstToken));
        assert_eq!(Lens::Detector(doc("copying")).target(), None);
    }

    #[test]
    fn none_found_is_a_result_with_a_runner_up() {
        let none = verdict(&report("successor", vec![vec![0.1, 0.18]], Vec::new()), doc("successor"));
        assert!(
            none.starts_with("None found") && none.contains("L0H1 0.18") && none.contains("Gould"),
            "{none}"
        );
        let one =
            verdict(&report("induction", vec![vec![0.1, 0.9]], vec![HeadId::new(0, 1)]), doc("induction"));
        assert!(one.starts_with("1 head is above"), "{one}");
        let unnamed = verdict(&report("entropy", vec![vec![0.1, 2.5]], Vec::new()), doc("entropy"));
        assert!(unnamed.contains("names no head"), "{unnamed}");
    }

    #[test]
    fn a_head_is_labelled_only_where_a_detector_names_it() {
        let reports = [
            report("induction", vec![vec![0.1, 0.9]], vec![HeadId::new(0, 1)]),
            report("copying", vec![vec![0.7, 0.2]], vec![HeadId::new(0, 0)]),
        ];
        let found = labels(reports.iter(), HeadId::new(0, 1));
        assert_eq!(found, [("Induction (prefix matching)".to_owned(), 0.9)]);
        assert!(labels(reports.iter().take(1), HeadId::new(0, 0)).is_empty());
    }

    #[test]
    fn a_report_says_that_it_read_the_prompt() {
        let mut report = report("induction", vec![vec![0.1, 0.9]], Vec::new());
        report.stimulus = "25 tokens".to_owned();
        assert_eq!(stimulus_text(&report), "25 tokens");
        report.provenance.request.sequences = Some(vec![vec![1, 2, 1]]);
        assert_eq!(stimulus_text(&report), "The prompt, 3 tokens as they are");
        assert!(!Lens::Detector(doc("copying")).takes_sequences());
        assert!(!Lens::Detector(doc("retrieval")).takes_sequences());
        assert!(Lens::Detector(doc("custom")).takes_sequences());
    }

    #[test]
    fn the_ranked_table_shares_places_and_knows_the_spread() {
        let scores =
            HeadScores { target: String::new(), scores: vec![vec![0.5, 0.25], vec![0.5, 1.0]], n_rows: 1 };
        let rows = ranked(&scores, Some(&vec![vec![0.1, 0.2], vec![0.3, 0.4]]));
        let places: Vec<_> = rows.iter().map(|row| (row.head.to_string(), row.rank)).collect();
        let wanted = [("L1H1", 1), ("L0H0", 2), ("L1H0", 2), ("L0H1", 4)];
        assert_eq!(places, wanted.map(|(head, rank)| (head.to_owned(), rank)));
        assert_eq!((rows[0].text.as_str(), rows[0].spread), ("1.000", Some(0.4)));
        assert!(ranked(&HeadScores { n_rows: 0, ..scores }, None).is_empty());
    }

    #[test]
    fn scales_fit_their_scores() {
        assert_eq!(Lens::Detector(doc("copying")).scale(None), Scale::SignedUpTo(1.0));
        let effects =
            HeadScores { target: String::new(), scores: vec![vec![0.5, -2.0, f32::NAN]], n_rows: 1 };
        assert_eq!(Lens::Sweep.scale(Some(&effects)), Scale::SignedUpTo(2.0));
        let scores = HeadScores { target: String::new(), scores: vec![vec![0.5, 3.5]], n_rows: 1 };
        assert_eq!(Lens::Detector(doc("entropy")).scale(Some(&scores)), Scale::UpTo(3.5));
        assert_eq!(Lens::default().scale(None), Scale::UpTo(1.0));
    }
}
