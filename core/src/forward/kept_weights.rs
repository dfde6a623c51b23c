//! Scores and patterns that a run keeps, collected block of queries by block.

use std::ops::Range;

use super::pending::{Pending, Slot};
use crate::backend::{AttnShape, Backend};
use crate::ids::{BlockHook, HeadId, HookPoint};

/// Scores or patterns of a layer's heads, collected block by block.
pub(super) struct KeptWeights<B: Backend> {
    pub hook: BlockHook,
    heads: Range<usize>,
    single: Option<HeadId>,
    /// `[head][block]`, each `[query, key_pos]`.
    blocks: Vec<Vec<B::Buffer>>,
}

impl<B: Backend> KeptWeights<B> {
    pub fn new(hook: BlockHook, heads: Range<usize>, single: Option<HeadId>) -> Self {
        let blocks = vec![Vec::new(); heads.len()];
        Self { hook, heads, single, blocks }
    }

    pub fn take(&mut self, backend: &B, block: &B::Buffer, shape: AttnShape, queries: Range<usize>) {
        let n_block = queries.len() * shape.n_tokens;
        for (head, blocks) in self.heads.clone().zip(&mut self.blocks) {
            blocks.push(backend.slice(block, head * n_block..(head + 1) * n_block));
        }
    }

    pub fn store(self, backend: &B, pending: &mut Pending<B>, layer: usize, shape: AttnShape) {
        let (n_queries, n_keys) = (shape.n_new(), shape.n_tokens);
        let slot = match self.single {
            Some(head) => Slot::Pattern(head, vec![n_queries, n_keys]),
            None => {
                Slot::Point(HookPoint::Block(layer, self.hook), vec![self.heads.len(), n_queries, n_keys])
            }
        };
        pending.push(slot, backend.concat(self.blocks.into_iter().flatten().collect()));
    }
}
