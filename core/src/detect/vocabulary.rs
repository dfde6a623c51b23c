//! What a layer's heads raise most, of the whole vocabulary: for weights-only detectors whose candidates are not a sample.

use super::Ground;
use super::ov::{candidates_seen_by, unembed_rows, w_o_rows};
use crate::backend::{Backend, DeviceError};
use crate::ids::TokenId;
use crate::tensor::HostTensor;

/// Tokens of the vocabulary taken in one step.
const CHUNK: usize = 1024;

/// Steps that one layer takes.
pub fn n_chunks(d_vocab: usize) -> usize {
    d_vocab.div_ceil(CHUNK)
}

/// A token and its logit.
type Raised = (TokenId, f32);

/// The tokens that each head raises most when it attends to a source alone, a chunk of the vocabulary a step: the logits of
/// all heads, `[head, source, token]`, would not fit in memory together.
pub struct TopOfVocabulary<B: Backend> {
    /// `[n_heads * d_head, d_model]`.
    w_o: B::Matrix,
    /// Each head's values, `[n_sources, d_head]`.
    values: Vec<B::Buffer>,
    n_top: usize,
    next_token: usize,
    /// `[head][source]`, best first, the smaller id first among equals.
    tops: Vec<Vec<Vec<Raised>>>,
}

impl<B: Backend> TopOfVocabulary<B> {
    /// Begins a layer with the sources' values, `[n_sources, n_kv_heads * d_head]`; `n_top` tokens are kept of each source.
    pub async fn new(
        ground: &Ground<'_, B>,
        layer: usize,
        values: &[f32],
        n_top: usize,
    ) -> Result<Self, DeviceError> {
        let (backend, config) = (ground.backend, &ground.model.config);
        let (d_head, d_kv) = (config.d_head, config.n_kv_heads * config.d_head);
        let n_sources = values.len() / d_kv;
        let values_of = |head: usize| {
            let first = head / config.heads_per_kv() * d_head;
            let rows = values.chunks_exact(d_kv).flat_map(|row| &row[first..first + d_head]);
            backend.vector(&HostTensor::new(vec![n_sources, d_head], rows.copied().collect()))
        };
        Ok(Self {
            w_o: backend.matrix(&w_o_rows(ground, layer).await?),
            values: (0..config.n_heads).map(values_of).collect(),
            n_top,
            next_token: 0,
            tops: vec![vec![Vec::new(); n_sources]; config.n_heads],
        })
    }

    /// Chunks done.
    pub fn n_done(&self) -> usize {
        self.next_token.div_ceil(CHUNK)
    }

    /// One chunk of the vocabulary; true when none is left.
    pub async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DeviceError> {
        let (backend, config) = (ground.backend, &ground.model.config);
        let end = (self.next_token + CHUNK).min(config.d_vocab);
        let tokens: Vec<TokenId> = (self.next_token..end).map(|token| token as TokenId).collect();
        self.next_token = end;
        let unembed = unembed_rows(ground, &tokens).await?;
        let seen = candidates_seen_by(ground, &self.w_o, &unembed).await?;
        let logits_of = |(head, values): (usize, &B::Buffer)| {
            let of_head = seen.chunks_exact(config.n_heads * config.d_head);
            let of_head = of_head.flat_map(|row| &row[head * config.d_head..(head + 1) * config.d_head]);
            let shape = vec![tokens.len(), config.d_head];
            let candidates = backend.matrix(&HostTensor::new(shape, of_head.copied().collect()));
            backend.matmul(values, &candidates)
        };
        let logits = self.values.iter().enumerate().map(logits_of).collect();
        for (tops, logits) in self.tops.iter_mut().zip(backend.download(logits).await?) {
            for (top, logits) in tops.iter_mut().zip(logits.chunks_exact(tokens.len())) {
                keep_largest(top, tokens.iter().copied().zip(logits.iter().copied()), self.n_top);
            }
        }
        Ok(end == config.d_vocab)
    }

    /// `[head][source]`: the tokens raised most, best first.
    pub fn finish(self) -> Vec<Vec<Vec<TokenId>>> {
        let tokens = |top: Vec<Raised>| top.into_iter().map(|(token, _)| token).collect();
        self.tops.into_iter().map(|head| head.into_iter().map(tokens).collect()).collect()
    }
}

/// Keeps the `n_top` largest of a list, best first, and of those that follow it; the earlier of equals goes before.
pub fn keep_largest(top: &mut Vec<Raised>, more: impl Iterator<Item = Raised>, n_top: usize) {
    for (token, logit) in more {
        if top.len() == n_top && top.last().is_some_and(|(_, least)| logit <= *least) {
            continue;
        }
        let place = top.iter().position(|(_, kept)| logit > *kept).unwrap_or(top.len());
        top.insert(place, (token, logit));
        top.truncate(n_top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_across_chunks_and_the_earlier_of_equals_goes_before() {
        let mut top = Vec::new();
        keep_largest(&mut top, [(0, 1.0), (1, 5.0), (2, 5.0)].into_iter(), 3);
        assert_eq!(top, [(1, 5.0), (2, 5.0), (0, 1.0)]);
        keep_largest(&mut top, [(3, 5.0), (4, 1.0), (5, 9.0)].into_iter(), 3);
        assert_eq!(top, [(5, 9.0), (1, 5.0), (2, 5.0)]);
    }
}
