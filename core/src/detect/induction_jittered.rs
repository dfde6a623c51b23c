//! A control for induction: blocks of different lengths, so that no fixed distance finds the target.

use super::doc::{Doc, Threshold};
use super::{AttentionTarget, BlockDefaults, Detector, targeted};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "induction_jittered",
        version: 1,
        title: "Induction, jittered length (control)",
        looks_for: "The same attention as induction, where every draw repeats at another distance.",
        why_it_matters: "A head that merely looks a fixed distance back passes the plain score and fails this one.",
        score: "As induction by prefix matching; each draw has its own block length. 0 to 1. A drop against the plain \
                score, or a large spread over draws, tells of position rather than matching.",
        stimulus: "15 to 34 distinct random tokens, repeated 4 times, in 4 draws.",
        source: "Control used in replications of Olsson et al. 2022, “In-context Learning and Induction Heads”",
        known_confusions: "Within a draw the distance is still fixed; with few draws a positional head can be lucky.",
        threshold: Some(Threshold { value: 0.35, source: "as for induction" }),
        weights_only: false,
    },
    plan: |ask| {
        let defaults = BlockDefaults { lengths: (15, 34), n_repeats: 4 };
        targeted(ask, AttentionTarget::Induction, defaults, super::induction::LACKS)
    },
};
