//! Where heads of a known kind look: for each query of a sequence, the keys that such a head would attend to.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::hooks::TargetKeys;
use crate::ids::TokenId;

/// Where a head of a known kind attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
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
    /// The token itself. Query 0 can attend to nothing else, which adds `1 / n_tokens` to every head.
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
                Self::CurrentToken => vec![query],
            };
            copies.push(query);
            keys
        });
        TargetKeys(rows.collect())
    }

    /// As [`Self::keys`], but where the sequence is one block over and over, queries are those of the second copy on
    /// and copies are counted by position: a token that a random block happens to hold twice has one copy a block.
    pub fn keys_in_stimulus(self, ids: &[TokenId]) -> TargetKeys {
        let follows = match self {
            Self::Induction => 1,
            Self::DuplicateToken => 0,
            _ => return self.keys(ids),
        };
        let Some(blocks) = RepeatedBlock::of(ids) else { return self.keys(ids) };
        let earlier = |query: usize| (1..).map_while(move |n| query.checked_sub(n * blocks.period));
        let rows = (0..ids.len()).map(|query| {
            let copies = earlier(query).filter(|&key| key >= blocks.start);
            let mut keys: Vec<usize> = copies.map(|key| key + follows).collect();
            keys.reverse();
            keys
        });
        TargetKeys(rows.collect())
    }
}

/// A sequence that is `[BOS] r r …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepeatedBlock {
    /// Position of the first block's first token: 0, or 1 after a BOS.
    pub start: usize,
    /// Tokens in the block.
    pub period: usize,
}

impl RepeatedBlock {
    /// The block of which a sequence is made, the shortest one; `None` when it is no whole number of copies, at least two.
    pub fn of(ids: &[TokenId]) -> Option<Self> {
        let is_block = |start: usize, period: usize| {
            let rest = &ids[start..];
            rest.len().is_multiple_of(period) && rest.iter().zip(&rest[period..]).all(|(a, b)| a == b)
        };
        [0, 1].into_iter().filter(|&start| start < ids.len()).find_map(|start| {
            let period = (1..=(ids.len() - start) / 2).find(|&period| is_block(start, period))?;
            Some(Self { start, period })
        })
    }
}

/// Mean attention on the target over the queries that have one: `mass / n_rows`, and `n_rows`.
pub fn mean_over_rows(mass: &[Vec<f32>], targets: &TargetKeys) -> (Vec<Vec<f32>>, usize) {
    let n_rows = targets.n_rows();
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
        assert_eq!(keys(AttentionTarget::CurrentToken)[..2], [vec![0], vec![1]]);
    }

    #[test]
    fn a_token_right_after_itself_is_its_own_induction_key() {
        assert_eq!(AttentionTarget::Induction.keys(&[4, 4, 4]).0, [vec![], vec![1], vec![1, 2]]);
    }

    #[test]
    fn a_repeated_block_is_found_and_its_copies_are_counted_by_position() {
        let block = |ids: &[TokenId]| RepeatedBlock::of(ids).map(|block| (block.start, block.period));
        assert_eq!(block(&[3, 4, 3, 4, 3, 4]), Some((0, 2)));
        assert_eq!(block(&[9, 3, 4, 3, 4]), Some((1, 2)));
        assert_eq!(block(&[3, 4, 3]), None, "no whole number of copies");
        assert_eq!(block(&[1, 2, 3]), None);
        assert_eq!(block(&[]), None);
        // 5 is in the block twice; by position it has one copy in the first block.
        let keys = |target: AttentionTarget| target.keys_in_stimulus(&[0, 5, 5, 6, 5, 5, 6, 5, 5, 6]).0;
        assert_eq!(keys(AttentionTarget::Induction)[..4], vec![Vec::<usize>::new(); 4]);
        assert_eq!(keys(AttentionTarget::Induction)[5..8], [vec![3], vec![4], vec![2, 5]]);
        assert_eq!(keys(AttentionTarget::DuplicateToken)[7..], [vec![1, 4], vec![2, 5], vec![3, 6]]);
    }

    #[test]
    fn without_rows_the_score_is_zero_not_nan() {
        let (scores, n_rows) = mean_over_rows(&[vec![0.0]], &AttentionTarget::Induction.keys(&[1, 2, 3]));
        assert_eq!((scores, n_rows), (vec![vec![0.0]], 0));
    }
}
