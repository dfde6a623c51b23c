//! What a run kept: read-only afterwards.

use std::collections::BTreeMap;

use crate::ids::{HeadId, HookPoint};
use crate::tensor::HostTensor;

/// Captured activations by hook point, patterns of single heads, and attention masses on targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activations {
    by_point: BTreeMap<HookPoint, HostTensor>,
    patterns: BTreeMap<HeadId, HostTensor>,
    target_mass: Vec<Vec<Vec<f32>>>,
    entropy_nats: Vec<Vec<f32>>,
    argmax_keys: Vec<Vec<usize>>,
}

impl Activations {
    /// An activation, if it was captured; shapes are those of [`crate::ids::BlockHook`].
    pub fn get(&self, point: HookPoint) -> Option<&HostTensor> {
        self.by_point.get(&point)
    }

    /// One head's pattern, `[query_pos, key_pos]`, if it was kept.
    pub fn pattern(&self, head: HeadId) -> Option<&HostTensor> {
        self.patterns.get(&head)
    }

    /// Attention mass on each of the plan's targets, `[target][layer][head]`: the sum over query positions of the
    /// attention that they pay to their target's keys.
    pub fn target_mass(&self) -> &[Vec<Vec<f32>>] {
        &self.target_mass
    }

    /// Entropy of each head's pattern rows summed over query positions, `[layer][head]`, nats; empty unless the plan asks.
    pub fn entropy_nats(&self) -> &[Vec<f32>] {
        &self.entropy_nats
    }

    /// The key position that each head attends to most at the prompt's last position, the first among equals,
    /// `[layer][head]`; empty unless the plan asks.
    pub fn argmax_keys(&self) -> &[Vec<usize>] {
        &self.argmax_keys
    }

    pub(crate) fn insert(&mut self, point: HookPoint, tensor: HostTensor) {
        self.by_point.insert(point, tensor);
    }

    pub(crate) fn insert_pattern(&mut self, head: HeadId, pattern: HostTensor) {
        self.patterns.insert(head, pattern);
    }

    /// Adds one layer's keys, `[head]`; layers come in order.
    pub(crate) fn push_argmax_keys(&mut self, layer: Vec<usize>) {
        self.argmax_keys.push(layer);
    }

    /// Adds one layer's entropies, `[head]`; layers come in order.
    pub(crate) fn push_entropy(&mut self, layer: Vec<f32>) {
        self.entropy_nats.push(layer);
    }

    /// Adds one layer's masses, `[target][head]`; layers come in order.
    pub(crate) fn push_target_mass(&mut self, layer: Vec<Vec<f32>>) {
        self.target_mass.resize_with(layer.len(), Vec::new);
        for (target, heads) in self.target_mass.iter_mut().zip(layer) {
            target.push(heads);
        }
    }
}
