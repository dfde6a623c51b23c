//! How spread out a head's attention is.

use super::attention::{AttentionWork, Reading};
use super::doc::Doc;
use super::{BlockDefaults, Detector, Work};

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "entropy",
        version: 1,
        title: "Attention entropy",
        looks_for: "Attention spread over many keys (high) or fixed on few (near 0).",
        why_it_matters: "It tells heads that average from heads that pick, whatever they pick.",
        score: "Mean over queries i ≥ 1 of -Σ_j A[i, j] ln A[i, j], in nats: 0 for one key, ln(i+1) for all keys alike.",
        stimulus: "50 distinct random tokens, repeated twice, in 4 draws.",
        source: "Shannon 1948, “A Mathematical Theory of Communication”; of attention, Clark et al. 2019, “What Does BERT \
                 Look At?”",
        known_confusions: "It grows with the length of the prompt, so scores of different lengths do not compare. A head on \
                           a sink has low entropy and does nothing.",
        threshold: None,
        weights_only: false,
    },
    plan: |ask| {
        let stimulus = ask.blocks(BlockDefaults { lengths: (50, 50), n_repeats: 2 }, ask.params()?)?;
        let work = AttentionWork::new(stimulus, |_| Reading::Entropy);
        work.check("is a single token, whose row has no choice; use a longer text")?;
        Ok(Work::Attention(work))
    },
};
