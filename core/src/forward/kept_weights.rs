//! Scores and patterns that a run keeps, collected block of queries by block.

use std::ops::Range;

use crate::activations::Activations;
use crate::backend::{AttnShape, Backend};
use crate::ids::{BlockHook, HeadId, HookPoint};
use crate::tensor::HostTensor;

/// Scores or patterns of a layer's heads, collected block by block, `[head, query_pos, key_pos]`.
pub(super) struct KeptWeights {
    pub hook: BlockHook,
    heads: Range<usize>,
    single: Option<HeadId>,
    data: Vec<f32>,
}

impl KeptWeights {
    pub fn new(hook: BlockHook, heads: Range<usize>, single: Option<HeadId>, shape: AttnShape) -> Self {
        let data = vec![0.0; heads.len() * shape.n_new() * shape.n_tokens];
        Self { hook, heads, single, data }
    }

    pub fn take<B: Backend>(
        &mut self,
        backend: &B,
        block: &B::Buffer,
        shape: AttnShape,
        queries: Range<usize>,
    ) {
        let n_block = queries.len() * shape.n_tokens;
        for (slot, head) in self.heads.clone().enumerate() {
            let rows = backend.download(&backend.slice(block, head * n_block..(head + 1) * n_block));
            let start = (slot * shape.n_new() + queries.start - shape.n_past) * shape.n_tokens;
            self.data[start..start + n_block].copy_from_slice(&rows);
        }
    }

    pub fn store(self, activations: &mut Activations, layer: usize, shape: AttnShape) {
        let (n_queries, n_keys) = (shape.n_new(), shape.n_tokens);
        match self.single {
            Some(head) => {
                activations.insert_pattern(head, HostTensor::new(vec![n_queries, n_keys], self.data))
            }
            None => activations.insert(
                HookPoint::Block(layer, self.hook),
                HostTensor::new(vec![self.heads.len(), n_queries, n_keys], self.data),
            ),
        }
    }
}
