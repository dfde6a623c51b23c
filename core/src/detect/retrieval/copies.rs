//! Copying steps and what they score: pure functions of a prompt and of what was generated after it.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Scoring;
use crate::decode::Generated;
use crate::detect::HeadTable;
use crate::ids::TokenId;

/// Every head's score on one prompt, `[layer][head]`; NaN when the model computed something that is no number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct CopyScores {
    /// `|g ∩ k| / |k|` over sets of token ids; 0 to 1.
    pub set: Vec<Vec<f32>>,
    /// Copying steps over the answer's length; above 1 when a head copies one token often.
    pub count: Vec<Vec<f32>>,
}

impl CopyScores {
    /// Scores what was generated after `ids`, whose `span` is the answer.
    pub fn of(ids: &[TokenId], span: Range<usize>, generated: &[Generated]) -> Self {
        let wanted: BTreeSet<TokenId> = ids[span.clone()].iter().copied().collect();
        let is_broken = generated.iter().any(|token| !token.logit.is_finite());
        let scores_of = |copied: Vec<TokenId>| {
            if is_broken {
                return (f32::NAN, f32::NAN);
            }
            let distinct: BTreeSet<TokenId> = copied.iter().copied().collect();
            (distinct.len() as f32 / wanted.len() as f32, copied.len() as f32 / span.len() as f32)
        };
        let n_heads: Vec<usize> =
            generated.first().map_or(Vec::new(), |token| token.argmax_keys.iter().map(Vec::len).collect());
        let layers = n_heads.into_iter().enumerate().map(|(layer, n_heads)| {
            (0..n_heads).map(|head| scores_of(copied(ids, &span, generated, layer, head))).unzip()
        });
        let (set, count) = layers.unzip();
        Self { set, count }
    }

    /// Those of one way to count.
    pub fn by(&self, scoring: Scoring) -> &HeadTable {
        match scoring {
            Scoring::Set => &self.set,
            Scoring::Count => &self.count,
        }
    }
}

/// The tokens that one head copied, step by step.
fn copied(
    ids: &[TokenId],
    span: &Range<usize>,
    generated: &[Generated],
    layer: usize,
    head: usize,
) -> Vec<TokenId> {
    let is_copy = |token: &&Generated| {
        let key = token.argmax_keys[layer][head];
        span.contains(&key) && ids[key] == token.id
    };
    generated.iter().filter(is_copy).map(|token| token.id).collect()
}

/// Share of the answer's token ids that were generated, 0 to 1.
pub(super) fn recall(answer: &[TokenId], generated: &[TokenId]) -> f32 {
    let wanted: BTreeSet<TokenId> = answer.iter().copied().collect();
    wanted.iter().filter(|id| generated.contains(id)).count() as f32 / wanted.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Filler, then an answer of four tokens of which one comes twice, then a question.
    const IDS: [TokenId; 8] = [9, 9, 5, 6, 5, 7, 8, 9];
    const SPAN: Range<usize> = 2..6;

    /// What a model that answers right generates, with one head that looks where `key_of` says at each step.
    fn answered(key_of: impl Fn(usize) -> usize) -> Vec<Generated> {
        let steps = IDS[SPAN].iter().chain(&[1]).enumerate();
        steps.map(|(step, &id)| Generated { id, logit: 1.0, argmax_keys: vec![vec![key_of(step)]] }).collect()
    }

    fn scores(generated: &[Generated]) -> (f32, f32) {
        let scores = CopyScores::of(&IDS, SPAN, generated);
        (scores.set[0][0], scores.count[0][0])
    }

    #[test]
    fn a_copier_scores_one_and_its_neighbours_nothing() {
        assert_eq!(scores(&answered(|step| SPAN.start + step)), (1.0, 1.0));
        // One before: the token just read, where a duplicate-token head looks. One behind: the next one.
        assert_eq!(scores(&answered(|step| SPAN.start + step - 1)), (0.0, 0.0));
        assert_eq!(scores(&answered(|step| SPAN.start + step + 1)), (0.0, 0.0));
        assert_eq!(scores(&answered(|_| 0)), (0.0, 0.0), "rests on the first token");
    }

    #[test]
    fn the_same_token_outside_the_answer_is_no_copy() {
        let generated = [Generated { id: 9, logit: 1.0, argmax_keys: vec![vec![7]] }];
        assert_eq!(scores(&generated), (0.0, 0.0));
    }

    #[test]
    fn repeats_count_in_the_authors_score_alone() {
        // It looks at the first of the two equal tokens both times.
        assert_eq!(scores(&answered(|step| [2, 3, 2, 0, 0][step])), (2.0 / 3.0, 0.75));
        let stuck: Vec<Generated> =
            (0..6).map(|_| Generated { id: 5, logit: 1.0, argmax_keys: vec![vec![2]] }).collect();
        assert_eq!(scores(&stuck), (1.0 / 3.0, 1.5));
    }

    #[test]
    fn a_model_that_computes_no_numbers_has_no_score() {
        let mut generated = answered(|step| SPAN.start + step);
        generated[1].logit = f32::NAN;
        let (set, count) = scores(&generated);
        assert!(set.is_nan() && count.is_nan());
    }

    #[test]
    fn recall_is_of_sets() {
        assert_eq!(recall(&[5, 6, 5, 7], &[5, 5, 1, 6]), 2.0 / 3.0);
        assert_eq!(recall(&[5], &[]), 0.0);
    }
}
