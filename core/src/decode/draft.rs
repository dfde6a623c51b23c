//! What a draft says comes next, given what was generated so far. Whether it is right is found out elsewhere.

use crate::ids::TokenId;

/// Tokens guessed where a single token agrees. With the token itself they are four rows, which the CPU's matmul does in the
/// time of one.
const MAX_UNSURE: usize = 3;

/// The part of a draft that is likely to follow: all of it in the beginning, then what stands behind the place that agrees
/// with most of the last tokens generated, the first of equals (Saxena 2023, “Prompt Lookup Decoding”).
pub(super) fn continuation<'a>(draft: &'a [TokenId], generated: &[TokenId]) -> &'a [TokenId] {
    if generated.is_empty() {
        return draft;
    }
    let n_agreeing = |end: &usize| {
        let pairs = draft[..*end].iter().rev().zip(generated.iter().rev());
        pairs.take_while(|(a, b)| a == b).count()
    };
    // The last of equals is the first when read backwards.
    let Some(end) = (1..=draft.len()).rev().max_by_key(n_agreeing) else { return &[] };
    let rest = &draft[end..];
    match n_agreeing(&end) {
        0 => &[],
        1 => &rest[..rest.len().min(MAX_UNSURE)],
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_behind_what_agrees_best() {
        const DRAFT: [TokenId; 8] = [5, 6, 7, 5, 8, 9, 1, 2];
        for (generated, wanted) in [
            (&[][..], &DRAFT[..]),
            (&[3], &[]),
            // One token alone, at its first place.
            (&[5], &[6, 7, 5]),
            (&[3, 9], &[1, 2]),
            (&[7, 5], &[8, 9, 1, 2]),
            (&[4, 5, 6], &[7, 5, 8, 9, 1, 2]),
            // The draft is used up.
            (&[1, 2], &[]),
        ] {
            assert_eq!(continuation(&DRAFT, generated), wanted, "after {generated:?}");
        }
        assert!(continuation(&[], &[1]).is_empty());
    }
}
