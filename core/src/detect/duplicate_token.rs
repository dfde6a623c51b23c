//! Duplicate-token heads.

use super::doc::{Doc, Threshold};
use super::{AttentionTarget, BlockDefaults, Detector, targeted};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "duplicate_token",
        version: 1,
        title: "Duplicate token",
        looks_for: "Attention from a token to its own earlier copies.",
        why_it_matters: "Such heads tell later layers that something was said before; in the indirect-object circuit they \
                         mark the repeated name.",
        score: "Mean over the queries i of copies 2 and later of the sum of A[i, p] over the positions p < i that hold the \
                same token. 0 to 1.",
        stimulus: "50 distinct random tokens, repeated twice, in 4 draws.",
        source: "Wang et al. 2022, “Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small”",
        known_confusions: "A head one position off is an induction head. A head that looks at similar tokens of any age \
                           scores where copies are the most similar ones.",
        threshold: Some(Threshold { value: 0.4, source: "common practice in the TransformerLens demos" }),
        weights_only: false,
    },
    plan: |ask| {
        let lacks = "holds no token twice, so nothing is a duplicate; use a text that repeats something";
        let defaults = BlockDefaults { lengths: (50, 50), n_repeats: 2 };
        targeted(ask, AttentionTarget::DuplicateToken, defaults, lacks)
    },
};
