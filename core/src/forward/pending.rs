//! Numbers that a pass keeps, still where they were computed: they come to host memory together, once the pass is done, so that
//! a device is waited for once and not at every layer.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::activations::Activations;
use crate::backend::{Backend, DeviceError};
use crate::ids::{HeadId, HookPoint};
use crate::tensor::HostTensor;

/// Where numbers belong once they are in host memory.
pub(super) enum Slot {
    /// An activation of this shape.
    Point(HookPoint, Vec<usize>),
    /// A head's pattern of this shape.
    Pattern(HeadId, Vec<usize>),
    /// A layer's attention on a target, `[head]`; layers come in order.
    TargetMass(usize),
    /// A layer's entropies, `[head]`; layers come in order.
    Entropy,
    /// A layer's keys attended to most at one of the last rows, `[head]`; layers come in order.
    ArgmaxKeys(usize),
    /// The mean that an edit put at a site.
    Mean {
        /// Which edit.
        index: usize,
        /// The site's hook point.
        point: HookPoint,
        /// Width of its rows.
        row_len: usize,
        /// The site's part of a row.
        columns: Range<usize>,
    },
}

/// Numbers on their way to host memory.
pub(super) struct Pending<B: Backend> {
    slots: Vec<Slot>,
    buffers: Vec<B::Buffer>,
}

impl<B: Backend> Default for Pending<B> {
    fn default() -> Self {
        Self { slots: Vec::new(), buffers: Vec::new() }
    }
}

impl<B: Backend> Pending<B> {
    pub fn push(&mut self, slot: Slot, buffer: B::Buffer) {
        self.slots.push(slot);
        self.buffers.push(buffer);
    }

    /// Brings everything where it belongs: into the run's activations, or into the means by edit.
    pub async fn settle(
        self,
        backend: &B,
        activations: &mut Activations,
        means: &mut BTreeMap<usize, Activations>,
    ) -> Result<(), DeviceError> {
        if self.slots.is_empty() {
            return Ok(());
        }
        let downloaded = backend.download(self.buffers).await?;
        for (slot, data) in self.slots.into_iter().zip(downloaded) {
            match slot {
                Slot::Point(point, shape) => activations.insert(point, HostTensor::new(shape, data)),
                Slot::Pattern(head, shape) => activations.insert_pattern(head, HostTensor::new(shape, data)),
                Slot::TargetMass(target) => activations.push_target_mass(target, data),
                Slot::Entropy => activations.push_entropy(data),
                Slot::ArgmaxKeys(row) => {
                    activations.push_argmax_keys(row, data.into_iter().map(|key| key as usize).collect());
                }
                Slot::Mean { index, point, row_len, columns } => {
                    means.entry(index).or_default().set_constant(point, row_len, columns, &data);
                }
            }
        }
        Ok(())
    }
}
