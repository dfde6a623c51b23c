//! The five readings of a head on a prompt, in words, and their ranking. The numbers come from the core's `detect`.

use headlight_core::ids::HeadId;
use headlight_core::report::HeadScores;

/// What the head map is coloured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Attention to what followed earlier copies of this token.
    #[default]
    Induction,
    /// Attention to the token before.
    PreviousToken,
    /// Attention to earlier copies of this token.
    DuplicateToken,
    /// Attention to the first token.
    FirstToken,
    /// Attention to the token itself.
    CurrentToken,
}

impl Measure {
    /// Every measure, in the order of the menu.
    pub const ALL: [Self; 5] =
        [Self::Induction, Self::PreviousToken, Self::DuplicateToken, Self::FirstToken, Self::CurrentToken];

    /// The name of the core's attention target.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Induction => "induction",
            Self::PreviousToken => "previous_token",
            Self::DuplicateToken => "duplicate_token",
            Self::FirstToken => "first_token",
            Self::CurrentToken => "current_token",
        }
    }

    /// The measure of a target's name.
    pub fn of_target(target: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.target() == target)
    }

    /// As the page writes it, within a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Induction => "induction",
            Self::PreviousToken => "previous token",
            Self::DuplicateToken => "duplicate token",
            Self::FirstToken => "first token",
            Self::CurrentToken => "current token",
        }
    }

    /// As a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Induction => "Induction",
            Self::PreviousToken => "Previous token",
            Self::DuplicateToken => "Duplicate token",
            Self::FirstToken => "First token",
            Self::CurrentToken => "Current token",
        }
    }

    /// What a high score means.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Induction => "looks at what came after the last time this token appeared",
            Self::PreviousToken => "looks one token back",
            Self::DuplicateToken => "looks at earlier copies of the same token",
            Self::FirstToken => "rests on the first token",
            Self::CurrentToken => "looks at the token itself",
        }
    }

    /// The definition, in the notation of the method note.
    pub const fn definition(self) -> &'static str {
        match self {
            Self::Induction => {
                "Mean over queries whose token appeared before of the attention summed over the keys that follow those \
                 earlier copies."
            }
            Self::PreviousToken => {
                "Mean over queries 1 and later of the attention to the key one position back."
            }
            Self::DuplicateToken => {
                "Mean over queries whose token appeared before of the attention summed over those earlier copies."
            }
            Self::FirstToken => "Mean over queries 1 and later of the attention to key 0.",
            Self::CurrentToken => {
                "Mean over queries 1 and later of the attention to the query's own position."
            }
        }
    }

    /// Where the measure comes from.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Induction => {
                "Olsson et al. 2022, “In-context Learning and Induction Heads” (prefix matching, with the erratum of \
                 September 2022)"
            }
            Self::PreviousToken => "Elhage et al. 2021, “A Mathematical Framework for Transformer Circuits”",
            Self::DuplicateToken => "Wang et al. 2022, “Interpretability in the Wild”",
            Self::FirstToken => {
                "Xiao et al. 2023, “Efficient Streaming Language Models with Attention Sinks”"
            }
            Self::CurrentToken => "TransformerLens, head detector",
        }
    }

    /// What a prompt without a single target lacks.
    pub const fn absent(self) -> &'static str {
        match self {
            Self::Induction | Self::DuplicateToken => {
                "No token of this prompt appears twice, so there is nothing to measure."
            }
            Self::PreviousToken | Self::FirstToken | Self::CurrentToken => {
                "The prompt is a single token, so there is nothing to measure."
            }
        }
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
    scores.scores.get(head.layer)?.get(head.head).copied()
}

/// Heads from the highest score down; ties in reading order. Empty when the prompt has nothing to measure.
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
    heads.sort_by(|a, b| b.1.total_cmp(&a.1));
    heads
}

/// A head's place in the ranking, from 1; equal scores share the better place.
pub fn rank_of(scores: &HeadScores, head: HeadId) -> Option<usize> {
    let own = score_of(scores, head)?;
    Some(1 + scores.scores.iter().flatten().filter(|&&score| score > own).count())
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
        assert!(caption(Measure::Induction, Some(&scores(0))).contains("appears twice"));
        assert!(caption(Measure::Induction, Some(&scores(1))).contains("1 row of"));
    }

    #[test]
    fn targets_round_trip_with_the_cores() {
        let core: Vec<&str> = headlight_core::detect::AttentionTarget::ALL.iter().map(|t| t.name()).collect();
        let ours: Vec<&str> = Measure::ALL.iter().map(|m| m.target()).collect();
        assert_eq!(core, ours);
        assert!(Measure::ALL.iter().all(|m| Measure::of_target(m.target()) == Some(*m)));
    }
}
