//! Memory on the device: buffers that go back to a pool when nobody holds them any more.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::{Rc, Weak};

/// What may lie in the pool unused, bytes; what comes back beyond that is given up.
const MAX_IDLE_BYTES: usize = 256 << 20;

/// f32 values on the device: a part of an allocation, shared with whoever else holds a part of it.
#[derive(Clone)]
pub struct GpuBuffer {
    raw: Rc<Raw>,
    start: usize,
    len: usize,
}

/// An allocation.
pub(super) struct Raw {
    buffer: wgpu::Buffer,
    pool: Weak<Pool>,
}

/// Allocations that wait to be used again, by size.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<BTreeMap<u64, Vec<wgpu::Buffer>>>,
    /// To be destroyed once the commands that may name them are handed over.
    given_up: RefCell<Vec<wgpu::Buffer>>,
    idle_bytes: Cell<usize>,
    bytes: Cell<usize>,
    /// Whether the device had too little memory, so that what is idle has to go before more is asked for.
    pub is_exhausted: Cell<bool>,
}

impl GpuBuffer {
    /// All of an allocation.
    pub(super) fn new(raw: Raw, len: usize) -> Self {
        Self { raw: Rc::new(raw), start: 0, len }
    }

    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the values begin in their allocation, in values.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Whether it is a whole allocation that nobody else holds, so that it can be changed in place.
    pub(super) fn is_own(&self) -> bool {
        self.start == 0 && Rc::strong_count(&self.raw) == 1
    }

    /// Some of the values, in place.
    pub(super) fn part(&self, values: Range<usize>) -> Self {
        assert!(values.end <= self.len, "values {values:?} of {}", self.len);
        Self { raw: Rc::clone(&self.raw), start: self.start + values.start, len: values.len() }
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.raw.buffer
    }
}

impl Raw {
    pub fn new(buffer: wgpu::Buffer, pool: &Rc<Pool>) -> Self {
        pool.bytes.set(pool.bytes.get() + buffer.size() as usize);
        Self { buffer, pool: Rc::downgrade(pool) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let size = self.buffer.size();
        pool.bytes.set(pool.bytes.get() - size as usize);
        if pool.idle_bytes.get() + size as usize > MAX_IDLE_BYTES {
            pool.given_up.borrow_mut().push(self.buffer.clone());
        } else {
            pool.idle_bytes.set(pool.idle_bytes.get() + size as usize);
            pool.idle.borrow_mut().entry(size).or_default().push(self.buffer.clone());
        }
    }
}

impl Pool {
    /// Bytes that hold `n_values`, in steps of an eighth of a power of two, so that sizes meet again.
    pub fn size_of(n_values: usize) -> u64 {
        let bytes = (n_values.max(1) * size_of::<f32>()) as u64;
        let step = (bytes.next_power_of_two() / 8).max(256);
        bytes.next_multiple_of(step)
    }

    /// An idle allocation of just this size.
    pub fn take(&self, size: u64) -> Option<wgpu::Buffer> {
        let buffer = self.idle.borrow_mut().get_mut(&size)?.pop()?;
        self.idle_bytes.set(self.idle_bytes.get() - size as usize);
        Some(buffer)
    }

    /// Destroys what was given up; every command that names it has been handed over.
    pub fn destroy_given_up(&self) {
        self.given_up.borrow_mut().drain(..).for_each(|buffer| buffer.destroy());
    }

    /// Destroys everything idle, to make room; every command that names any of it has been handed over.
    pub fn destroy_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        idle.into_values().flatten().for_each(|buffer| buffer.destroy());
        self.idle_bytes.set(0);
    }

    /// Bytes allocated, idle ones included.
    pub fn allocated_bytes(&self) -> usize {
        self.bytes.get() + self.idle_bytes.get()
    }
}
