//! Numbers that compare or summarise logits. Sums run in f64, because a vocabulary has tens of thousands of terms.

use crate::ids::TokenId;

/// Logarithm of the sum of exponentials.
pub fn logsumexp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    max + sum.ln()
}

/// A token's log-probability, nats.
pub fn logprob(logits: &[f32], token: TokenId) -> f32 {
    (f64::from(logits[token as usize]) - logsumexp(logits)) as f32
}

/// Indices of the `n` largest logits, largest first; the lower index first among equals.
pub fn top_indices(logits: &[f32], n: usize) -> Vec<usize> {
    let larger = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    let mut indices: Vec<usize> = (0..logits.len()).collect();
    let n = n.min(indices.len());
    if n > 0 && n < indices.len() {
        indices.select_nth_unstable_by(n - 1, larger);
    }
    indices.truncate(n);
    indices.sort_unstable_by(larger);
    indices
}

/// KL(clean ‖ edited) of the next-token distributions, nats.
///
/// # Panics
/// When the vocabularies differ in size.
pub fn kl_nats(clean_logits: &[f32], edited_logits: &[f32]) -> f32 {
    assert_eq!(clean_logits.len(), edited_logits.len(), "distributions over different vocabularies");
    let (clean_lse, edited_lse) = (logsumexp(clean_logits), logsumexp(edited_logits));
    let pairs = clean_logits.iter().zip(edited_logits);
    let kl: f64 = pairs
        .map(|(&clean, &edited)| {
            let clean = f64::from(clean) - clean_lse;
            clean.exp() * (clean - (f64::from(edited) - edited_lse))
        })
        .sum();
    kl.max(0.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_indices_are_sorted_and_ties_go_to_the_lower_index() {
        let logits = [0.5, 3.0, -1.0, 3.0, 2.0];
        assert_eq!(top_indices(&logits, 3), [1, 3, 4]);
        assert_eq!(top_indices(&logits, 99), [1, 3, 4, 0, 2]);
        assert!(top_indices(&logits, 0).is_empty());
    }

    #[test]
    fn kl_of_a_known_pair() {
        // P = (1/2, 1/2), Q = (1/4, 3/4): KL = ln 2 - ln(3)/2.
        let (clean, edited) = ([0.0, 0.0], [0.0, 3f32.ln()]);
        let wanted = 2f32.ln() - 3f32.ln() / 2.0;
        assert!((kl_nats(&clean, &edited) - wanted).abs() < 1e-6);
        assert_eq!(kl_nats(&clean, &clean), 0.0);
        assert!((logsumexp(&[1000.0, 1000.0]) - (1000.0 + 2f64.ln())).abs() < 1e-9);
    }
}
