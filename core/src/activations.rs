//! What a run kept: read-only afterwards.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::{HeadId, HookPoint};
use crate::tensor::HostTensor;

/// Captured activations by hook point, patterns of single heads, and attention masses on targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activations {
    by_point: BTreeMap<HookPoint, HostTensor>,
    patterns: BTreeMap<HeadId, HostTensor>,
    target_mass: Vec<Vec<Vec<f32>>>,
    entropy_nats: Vec<Vec<f32>>,
    argmax_keys: Vec<Vec<Vec<usize>>>,
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

    /// The key position that each head attends to most at the last positions that the plan asks for, the first among
    /// equals, `[row][layer][head]`.
    pub fn argmax_keys(&self) -> &[Vec<Vec<usize>>] {
        &self.argmax_keys
    }

    /// What does not depend on layers from `layer` on: patterns and their sums of the layers below.
    pub(crate) fn below(&self, layer: usize) -> Self {
        let lower = |table: &Vec<Vec<f32>>| table.iter().take(layer).cloned().collect();
        let lower_keys = |table: &Vec<Vec<usize>>| table.iter().take(layer).cloned().collect();
        Self {
            by_point: BTreeMap::new(),
            patterns: self
                .patterns
                .iter()
                .filter(|(head, _)| head.layer < layer)
                .map(|(h, p)| (*h, p.clone()))
                .collect(),
            target_mass: self.target_mass.iter().map(lower).collect(),
            entropy_nats: lower(&self.entropy_nats),
            argmax_keys: self.argmax_keys.iter().map(lower_keys).collect(),
        }
    }

    /// Heads whose patterns were kept, from a layer on.
    pub(crate) fn pattern_heads_from(&self, layer: usize) -> Vec<HeadId> {
        self.patterns.range(HeadId::new(layer, 0)..).map(|(head, _)| *head).collect()
    }

    /// Adds to a head's mass on a target.
    pub(crate) fn add_target_mass(&mut self, target: usize, head: HeadId, mass: f32) {
        self.target_mass[target][head.layer][head.head] += mass;
    }

    /// Every captured activation times a factor.
    pub(crate) fn scaled(mut self, factor: f32) -> Self {
        let values = self.by_point.values_mut().flat_map(|tensor| &mut tensor.data);
        values.for_each(|value| *value *= factor);
        self
    }

    /// Sets some columns of the one row that stands for every position of a hook point, `[1, row_len]`.
    pub(crate) fn set_constant(
        &mut self,
        point: HookPoint,
        row_len: usize,
        columns: Range<usize>,
        values: &[f32],
    ) {
        let empty = || HostTensor::new(vec![1, row_len], vec![0.0; row_len]);
        self.by_point.entry(point).or_insert_with(empty).data[columns].copy_from_slice(values);
    }

    pub(crate) fn insert(&mut self, point: HookPoint, tensor: HostTensor) {
        self.by_point.insert(point, tensor);
    }

    pub(crate) fn insert_pattern(&mut self, head: HeadId, pattern: HostTensor) {
        self.patterns.insert(head, pattern);
    }

    /// Adds one layer's keys at a row, `[head]`; layers come in order.
    pub(crate) fn push_argmax_keys(&mut self, row: usize, heads: Vec<usize>) {
        push_at(&mut self.argmax_keys, row, heads);
    }

    /// Adds one layer's entropies, `[head]`; layers come in order.
    pub(crate) fn push_entropy(&mut self, layer: Vec<f32>) {
        self.entropy_nats.push(layer);
    }

    /// Adds one layer's masses on a target, `[head]`; layers come in order.
    pub(crate) fn push_target_mass(&mut self, target: usize, heads: Vec<f32>) {
        push_at(&mut self.target_mass, target, heads);
    }
}

/// Appends to list `index`, of lists that come in order.
fn push_at<T>(lists: &mut Vec<Vec<T>>, index: usize, value: T) {
    if lists.len() <= index {
        lists.resize_with(index + 1, Vec::new);
    }
    lists[index].push(value);
}
