//! Keys and values of positions already read, so that a pass can continue after them. Holding and cutting only; what
//! they mean is the forward pass's.

use crate::backend::{AttnShape, Backend};

/// Rotated keys and values of one layer, each `[lane, pos, kv_head, d_head]`; what is kept after a pass has one lane.
pub(super) struct LayerKv<B: Backend> {
    pub k: B::Buffer,
    pub v: B::Buffer,
}

impl<B: Backend> Clone for LayerKv<B> {
    fn clone(&self) -> Self {
        Self { k: self.k.clone(), v: self.v.clone() }
    }
}

impl<B: Backend> LayerKv<B> {
    /// These positions, the same of every lane, and each lane's own behind them.
    pub fn and(self, backend: &B, more: &Self, n_lanes: usize) -> Self {
        let with = |past: B::Buffer, new: &B::Buffer| {
            if n_lanes == 1 {
                return backend.append(past, new);
            }
            let len = backend.n_values(new) / n_lanes;
            let lane = |lane: usize| [past.clone(), backend.slice(new, lane * len..(lane + 1) * len)];
            backend.concat((0..n_lanes).flat_map(lane).collect())
        };
        Self { k: with(self.k, &more.k), v: with(self.v, &more.v) }
    }

    /// The first values of keys and of values.
    pub fn prefix(&self, backend: &B, n_values: usize) -> Self {
        Self { k: backend.slice(&self.k, 0..n_values), v: backend.slice(&self.v, 0..n_values) }
    }
}

/// What a model keeps of the positions read so far: rotated keys and values of every layer. An edit made while they were
/// read stays in them.
pub struct KvCache<B: Backend> {
    layers: Vec<LayerKv<B>>,
    /// Values a position, `n_kv_heads * d_head`.
    d_row: usize,
    n_tokens: usize,
}

impl<B: Backend> Default for KvCache<B> {
    /// Nothing read.
    fn default() -> Self {
        Self { layers: Vec::new(), d_row: 0, n_tokens: 0 }
    }
}

impl<B: Backend> KvCache<B> {
    pub(super) fn of_layers(layers: Vec<LayerKv<B>>, shape: AttnShape) -> Self {
        Self { layers, d_row: shape.n_kv_heads * shape.d_head, n_tokens: shape.n_tokens }
    }

    pub(super) fn into_layers(self) -> std::vec::IntoIter<LayerKv<B>> {
        self.layers.into_iter()
    }

    /// Positions read.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// The first `n_tokens` positions; the rest is given up.
    pub fn cut(self, backend: &B, n_tokens: usize) -> Self {
        if n_tokens < self.n_tokens { self.prefix(backend, n_tokens) } else { self }
    }

    /// A copy of the first `n_tokens` positions, or of all where there are fewer.
    pub fn prefix(&self, backend: &B, n_tokens: usize) -> Self {
        let n_tokens = n_tokens.min(self.n_tokens);
        if n_tokens == 0 {
            return Self::default();
        }
        let layers = self.layers.iter().map(|kv| kv.prefix(backend, n_tokens * self.d_row));
        Self { layers: layers.collect(), d_row: self.d_row, n_tokens }
    }
}
