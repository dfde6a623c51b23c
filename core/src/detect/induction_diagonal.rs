//! Induction by the diagonal of the second copy, as TransformerLens' demos and ARENA measure it, on clean rows only.

use super::doc::{Doc, Threshold};
use super::{AttentionTarget, BlockDefaults, Detector, targeted};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "induction_diagonal",
        version: 1,
        title: "Induction (diagonal)",
        looks_for: "Attention from each token of a second copy to the token after its first copy.",
        why_it_matters: "The cheapest and commonest induction score, good for comparing with other tools.",
        score: "Sequence [BOS] r r with |r| = n: mean over the n queries i of the second copy of A[i, i-(n-1)]. 0 to 1.",
        stimulus: "50 distinct random tokens, repeated twice, in 4 draws.",
        source: "TransformerLens, main demo, and ARENA, “Transformer Interpretability”",
        known_confusions: "Taking the whole diagonal of the pattern, as most scripts do, adds queries of the first copy that \
                           have nothing to match; without a BOS one of them attends to position 0, which flatters heads \
                           that rest there. They are left out here. A purely positional head scores as well.",
        threshold: Some(Threshold { value: 0.4, source: "common practice in the TransformerLens demos" }),
        weights_only: false,
    },
    plan: |ask| {
        let defaults = BlockDefaults { lengths: (50, 50), n_repeats: 2 };
        targeted(ask, AttentionTarget::Induction, defaults, super::induction::LACKS)
    },
};
