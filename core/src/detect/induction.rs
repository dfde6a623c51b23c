//! Induction by prefix matching, as Olsson et al. define it.

use super::doc::{Doc, Threshold};
use super::{AttentionTarget, BlockDefaults, Detector, targeted};

/// What a sequence without a repeat lacks.
pub(super) const LACKS: &str =
    "holds no token twice, so no induction target exists; use a text that repeats something";

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "induction",
        version: 1,
        title: "Induction (prefix matching)",
        looks_for: "Attention from a token to what followed its earlier copies: having seen A B, the head at the next A \
                    looks at B.",
        why_it_matters: "Such heads, with a previous-token head below them, continue repeated text. They appear abruptly \
                         in training, together with much of in-context learning.",
        score: "Mean over the queries i of copies 2 and later of the sum of A[i, p+1] over the positions p < i that hold \
                the same token. 0 to 1. Where a given sequence is not one block repeated, the mean is over all queries \
                whose token appeared before.",
        stimulus: "25 distinct random tokens, repeated 4 times, in 4 draws; the commonest 2 % and rarest 10 % of token ids \
                   are left out. A BOS comes first when the model's default or the BOS switch says so.",
        source: "Olsson et al. 2022, “In-context Learning and Induction Heads”, appendix, with its erratum of September \
                 2022 (the keys follow the earlier copies)",
        known_confusions: "The period is fixed, so a head that looks a fixed distance back scores too: compare the \
                           jittered control. Attention only: whether the head also copies is the copying score's \
                           question, and whether the model needs it is ablation's. A BOS changes the numbers.",
        threshold: Some(Threshold {
            value: 0.35,
            source: "a replication on GPT-2 small, where .35 gives the same five heads in every draw",
        }),
        weights_only: false,
    },
    plan: |ask| {
        targeted(ask, AttentionTarget::Induction, BlockDefaults { lengths: (25, 25), n_repeats: 4 }, LACKS)
    },
};
