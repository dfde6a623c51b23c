//! The five readings of a head on a prompt, and their ranking. The numbers come from the core's `detect`, and so do the
//! texts: a reading is the attention target of the detector of the same name, which says what it is.

use headlight_core::detect::doc::Doc;
use headlight_core::detect::{AttentionTarget, DOCS};
use headlight_core::ids::HeadId;
use headlight_core::report::HeadScores;

/// What the head map is coloured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure(pub AttentionTarget);

impl Default for Measure {
    fn default() -> Self {
        Self(AttentionTarget::Induction)
    }
}

impl Measure {
    /// Every measure, in the order of the menu.
    pub fn all() -> [Self; 5] {
        AttentionTarget::ALL.map(Self)
    }

    /// The name of the core's attention target.
    pub fn target(self) -> &'static str {
        self.0.name()
    }

    /// The measure of a target's name.
    pub fn of_target(target: &str) -> Option<Self> {
        Self::all().into_iter().find(|measure| measure.target() == target)
    }

    /// What the detector of the same target says of itself.
    pub fn doc(self) -> &'static Doc {
        let found = DOCS.iter().find(|doc| doc.id == self.target());
        found.expect("every attention target has a detector")
    }

    /// As the page writes it, within a sentence.
    pub fn name(self) -> String {
        self.target().replace('_', " ")
    }

    /// As a label; a detector's title says more than a column has room for.
    pub fn label(self) -> &'static str {
        let title = self.doc().title;
        title.split_once(" (").map_or(title, |(short, _)| short)
    }

    /// What a prompt without a single target lacks.
    pub fn absent(self) -> &'static str {
        match self.0 {
            AttentionTarget::Induction | AttentionTarget::DuplicateToken => {
                "No token of this prompt appears twice, so there is nothing to measure."
            }
            AttentionTarget::PreviousToken | AttentionTarget::FirstToken | AttentionTarget::CurrentToken => {
                "The prompt is a single token, so there is nothing to measure."
            }
        }
    }

    /// A head's score and its rank, where the prompt has something to measure.
    pub fn reading(self, all: &[HeadScores], head: HeadId) -> Option<(f32, usize)> {
        let scores = self.scores(all)?;
        score_of(scores, head).zip(rank_of(scores, head))
    }

    /// This measure's scores.
    pub fn scores(self, all: &[HeadScores]) -> Option<&HeadScores> {
        all.iter().find(|scores| scores.target == self.target())
    }
}

/// A head's score, if the report has it and the prompt has a row to measure.
pub fn score_of(scores: &HeadScores, head: HeadId) -> Option<f32> {
    if scores.n_rows == 0 {
        return None;
    }
    scores.scores.get(head.layer)?.get(head.head).copied().filter(|score| !score.is_nan())
}

/// What scores are ranked by: effects, which have a sign, by their size.
fn rank_key(scores: &HeadScores, score: f32) -> f32 {
    if scores.target.starts_with("effect:") { score.abs() } else { score }
}

/// Heads from the highest score down, effects from the largest; ties in reading order. Empty when the prompt has nothing
/// to measure.
pub fn ranking(scores: &HeadScores) -> Vec<(HeadId, f32)> {
    if scores.n_rows == 0 {
        return Vec::new();
    }
    let mut heads: Vec<(HeadId, f32)> = scores
        .scores
        .iter()
        .enumerate()
        .flat_map(|(layer, row)| {
            row.iter().enumerate().map(move |(head, &score)| (HeadId::new(layer, head), score))
        })
        .collect();
    heads.retain(|(_, score)| !score.is_nan());
    heads.sort_by(|a, b| rank_key(scores, b.1).total_cmp(&rank_key(scores, a.1)));
    heads
}

/// A head's place in the ranking, from 1; equal scores share the better place.
pub fn rank_of(scores: &HeadScores, head: HeadId) -> Option<usize> {
    let own = rank_key(scores, score_of(scores, head)?);
    Some(1 + scores.scores.iter().flatten().filter(|&&score| rank_key(scores, score) > own).count())
}

/// What the map's caption says of a measure on this prompt.
pub fn caption(measure: Measure, scores: Option<&HeadScores>) -> String {
    match scores {
        None => "Waiting for the first run.".to_owned(),
        Some(scores) if scores.n_rows == 0 => measure.absent().to_owned(),
        Some(scores) => {
            let rows =
                if scores.n_rows == 1 { "1 row".to_owned() } else { format!("{} rows", scores.n_rows) };
            format!("Attention on the {} target, mean over {rows} of this prompt.", measure.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(n_rows: usize) -> HeadScores {
        HeadScores { target: "induction".to_owned(), scores: vec![vec![0.1, 0.9], vec![0.9, 0.3]], n_rows }
    }

    #[test]
    fn ranks_share_ties_and_start_at_one() {
        assert_eq!(rank_of(&scores(3), HeadId::new(1, 0)), Some(1));
        assert_eq!(rank_of(&scores(3), HeadId::new(0, 1)), Some(1));
        assert_eq!(rank_of(&scores(3), HeadId::new(1, 1)), Some(3));
        assert_eq!(rank_of(&scores(3), HeadId::new(7, 0)), None);
        assert_eq!(ranking(&scores(3))[0].0, HeadId::new(0, 1));
    }

    #[test]
    fn a_prompt_without_targets_has_no_scores_and_says_so() {
        assert_eq!(score_of(&scores(0), HeadId::new(0, 1)), None);
        assert!(ranking(&scores(0)).is_empty());
        assert!(caption(Measure::default(), Some(&scores(0))).contains("appears twice"));
        assert!(caption(Measure::default(), Some(&scores(1))).contains("1 row of"));
    }

    #[test]
    fn every_measure_has_a_short_name_and_a_detector_that_explains_it() {
        let labels = Measure::all().map(Measure::label);
        let wanted = ["Induction", "Previous token", "Duplicate token", "First token", "Current token"];
        assert_eq!(labels, wanted);
        assert!(Measure::all().iter().all(|measure| Measure::of_target(measure.target()) == Some(*measure)));
        assert_eq!(Measure(AttentionTarget::PreviousToken).name(), "previous token");
        assert!(Measure::all().iter().all(|measure| measure.doc().score.starts_with("Mean over")));
    }
}
