//! Current-token heads.

use super::doc::{Doc, Threshold};
use super::{AttentionTarget, BlockDefaults, Detector, targeted};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "current_token",
        version: 1,
        title: "Current token",
        looks_for: "Attention from a token to itself.",
        why_it_matters: "Such a head acts like a small MLP: what it writes depends on the token alone.",
        score: "Mean over all queries i of A[i, i]. 0 to 1.",
        stimulus: "50 distinct random tokens, repeated twice, in 4 draws.",
        source: "TransformerLens, main demo",
        known_confusions: "Query 0 can attend to nothing else, which adds 1/n to every head.",
        threshold: Some(Threshold { value: 0.4, source: "common practice in the TransformerLens demos" }),
        weights_only: false,
    },
    plan: |ask| {
        let defaults = BlockDefaults { lengths: (50, 50), n_repeats: 2 };
        targeted(ask, AttentionTarget::CurrentToken, defaults, "is empty")
    },
};
