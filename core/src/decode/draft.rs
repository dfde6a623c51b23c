//! Guesses of what a model writes next, out of a text that it is likely to copy from. Whether they are right is found out
//! elsewhere.

use std::ops::Range;

use crate::ids::TokenId;

/// Tokens that the CPU's matmul takes in the time of one.
const BLOCK: usize = 4;

/// A text from which the model is likely to copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The text.
    pub text: Vec<TokenId>,
    /// The part of it that is likely to be written first.
    pub first: Range<usize>,
}

impl Draft {
    /// What is likely to follow: `first` in the beginning, then what stands behind the place that agrees with most of the
    /// last tokens generated, the first of equals (Saxena 2023, “Prompt Lookup Decoding”). The longer they agree the more
    /// is guessed, with the token that is read anyway a block of rows for each.
    pub(super) fn continuation(&self, generated: &[TokenId]) -> &[TokenId] {
        if generated.is_empty() {
            return self.text.get(self.first.clone()).unwrap_or_default();
        }
        let n_agreeing = |end: &usize| {
            let pairs = self.text[..*end].iter().rev().zip(generated.iter().rev());
            pairs.take_while(|(a, b)| a == b).count()
        };
        // The last of equals is the first when read backwards.
        let Some(end) = (1..=self.text.len()).rev().max_by_key(n_agreeing) else { return &[] };
        let rest = &self.text[end..];
        let n_guessed = (n_agreeing(&end) * BLOCK).saturating_sub(1);
        &rest[..rest.len().min(n_guessed)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_behind_what_agrees_best() {
        let draft = Draft { text: vec![5, 6, 7, 5, 8, 9, 1, 2, 3, 3, 4, 4], first: 3..5 };
        for (generated, wanted) in [
            (&[][..], &[5, 8][..]),
            (&[99], &[]),
            // One token alone, at its first place.
            (&[5], &[6, 7, 5]),
            (&[99, 9], &[1, 2, 3]),
            (&[7, 5], &[8, 9, 1, 2, 3, 3, 4]),
            (&[99, 7, 5, 8], &[9, 1, 2, 3, 3, 4, 4]),
            // The text is used up.
            (&[4, 4], &[]),
        ] {
            assert_eq!(draft.continuation(generated), wanted, "after {generated:?}");
        }
        assert!(
            Draft::default().continuation(&[]).is_empty() && Draft::default().continuation(&[1]).is_empty()
        );
        assert!(Draft { text: vec![1], first: 0..2 }.continuation(&[]).is_empty(), "no such part");
    }
}
