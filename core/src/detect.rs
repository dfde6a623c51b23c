//! What heads do on the prompt at hand: how much of their attention goes where a known kind of head would look.
//!
//! These are readings of one prompt, not verdicts: a head that scores high here may do something else elsewhere.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::hooks::TargetKeys;
use crate::ids::TokenId;

/// Where a head of a known kind attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionTarget {
    /// The tokens that followed earlier copies of this token (Olsson et al. 2022, "In-context Learning and Induction
    /// Heads", prefix matching with the erratum of September 2022).
    Induction,
    /// The token before (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
    PreviousToken,
    /// Earlier copies of this token (Wang et al. 2022, "Interpretability in the Wild").
    DuplicateToken,
    /// The first token, as a resting place (Xiao et al. 2023, "Efficient Streaming Language Models with Attention
    /// Sinks").
    FirstToken,
    /// The token itself.
    CurrentToken,
}

impl AttentionTarget {
    /// Every target, in the order in which they are reported.
    pub const ALL: [Self; 5] =
        [Self::Induction, Self::PreviousToken, Self::DuplicateToken, Self::FirstToken, Self::CurrentToken];

    /// Stable name, such as `previous_token`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Induction => "induction",
            Self::PreviousToken => "previous_token",
            Self::DuplicateToken => "duplicate_token",
            Self::FirstToken => "first_token",
            Self::CurrentToken => "current_token",
        }
    }

    /// The keys that each query of this prompt would attend to.
    pub fn keys(self, ids: &[TokenId]) -> TargetKeys {
        let mut earlier: HashMap<TokenId, Vec<usize>> = HashMap::new();
        let rows = ids.iter().enumerate().map(|(query, id)| {
            let copies = earlier.entry(*id).or_default();
            let keys = match self {
                Self::Induction => copies.iter().map(|copy| copy + 1).collect(),
                Self::DuplicateToken => copies.clone(),
                Self::PreviousToken => query.checked_sub(1).into_iter().collect(),
                // Query 0 can only attend to itself, which says nothing.
                Self::FirstToken => (query > 0).then_some(0).into_iter().collect(),
                Self::CurrentToken => (query > 0).then_some(query).into_iter().collect(),
            };
            copies.push(query);
            keys
        });
        TargetKeys(rows.collect())
    }
}

/// Mean attention on the target over the queries that have one: `mass / n_rows`, and `n_rows`.
pub fn mean_over_rows(mass: &[Vec<f32>], targets: &TargetKeys) -> (Vec<Vec<f32>>, usize) {
    let n_rows = targets.0.iter().filter(|keys| !keys.is_empty()).count();
    let mean = |mass: f32| if n_rows == 0 { 0.0 } else { mass / n_rows as f32 };
    (mass.iter().map(|layer| layer.iter().map(|&mass| mean(mass)).collect()).collect(), n_rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_a_repeated_block() {
        let ids = [7, 8, 9, 7, 8, 9];
        let keys = |target: AttentionTarget| target.keys(&ids).0;
        assert_eq!(keys(AttentionTarget::Induction), [vec![], vec![], vec![], vec![1], vec![2], vec![3]]);
        assert_eq!(
            keys(AttentionTarget::DuplicateToken),
            [vec![], vec![], vec![], vec![0], vec![1], vec![2]]
        );
        assert_eq!(keys(AttentionTarget::PreviousToken)[..3], [vec![], vec![0], vec![1]]);
        assert_eq!(keys(AttentionTarget::FirstToken)[..2], [vec![], vec![0]]);
        assert_eq!(keys(AttentionTarget::CurrentToken)[..2], [vec![], vec![1]]);
    }

    #[test]
    fn a_token_right_after_itself_is_its_own_induction_key() {
        assert_eq!(AttentionTarget::Induction.keys(&[4, 4, 4]).0, [vec![], vec![1], vec![1, 2]]);
    }

    #[test]
    fn without_rows_the_score_is_zero_not_nan() {
        let (scores, n_rows) = mean_over_rows(&[vec![0.0]], &AttentionTarget::Induction.keys(&[1, 2, 3]));
        assert_eq!((scores, n_rows), (vec![vec![0.0]], 0));
    }
}
