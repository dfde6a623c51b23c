//! Previous-token heads.

use super::doc::{Doc, Threshold};
use super::{AttentionTarget, BlockDefaults, Detector, targeted};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "previous_token",
        version: 1,
        title: "Previous token",
        looks_for: "Attention one position back, whatever stands there.",
        why_it_matters: "Such a head writes into each position what came before it: the first half of an induction circuit.",
        score: "Mean over queries i ≥ 1 of A[i, i-1]. 0 to 1.",
        stimulus: "50 distinct random tokens, repeated twice, in 4 draws.",
        source: "Elhage et al. 2021, “A Mathematical Framework for Transformer Circuits”",
        known_confusions: "On text a head can prefer the token before for what it is, not where it is: random tokens tell the \
                           two apart. Query 1 chooses between two keys only.",
        threshold: Some(Threshold { value: 0.4, source: "common practice in the TransformerLens demos" }),
        weights_only: false,
    },
    plan: |ask| {
        let defaults = BlockDefaults { lengths: (50, 50), n_repeats: 2 };
        targeted(
            ask,
            AttentionTarget::PreviousToken,
            defaults,
            "is a single token; a previous token needs two",
        )
    },
};
