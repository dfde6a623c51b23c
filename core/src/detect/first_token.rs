//! First-token heads: attention sinks.

use super::doc::{Doc, Threshold};
use super::{AttentionTarget, BlockDefaults, Detector, targeted};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "first_token",
        version: 1,
        title: "First token (sink)",
        looks_for: "Attention resting on position 0, BOS or not.",
        why_it_matters: "A head with nothing to do still has to attend somewhere, because every row sums to 1. A high score \
                         usually means idle, and what such a head does elsewhere is in the rest of its rows.",
        score: "Mean over queries i ≥ 1 of A[i, 0]. 0 to 1.",
        stimulus: "50 distinct random tokens, repeated twice, in 4 draws.",
        source: "Xiao et al. 2023, “Efficient Streaming Language Models with Attention Sinks”",
        known_confusions: "Without a BOS the first token is an ordinary word, and some models rest on it all the same. On a \
                           short prompt position 0 is also the previous or the current token.",
        threshold: Some(Threshold {
            value: 0.5,
            source: "more than half of the attention; no published line",
        }),
        weights_only: false,
    },
    plan: |ask| {
        let defaults = BlockDefaults { lengths: (50, 50), n_repeats: 2 };
        targeted(
            ask,
            AttentionTarget::FirstToken,
            defaults,
            "is a single token; a resting place needs a second",
        )
    },
};
