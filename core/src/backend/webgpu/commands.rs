//! The device and what is recorded for it: kernels and copies go into one list, which is handed over when it is long enough or
//! when somebody waits for numbers.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use futures_channel::oneshot;

use super::kernels::{Compiled, Kernel, Kernels, SOURCES, Source};
use super::memory::{GpuBuffer, Pool, Raw};
use crate::backend::DeviceError;

/// Bytes of one kernel's parameters: the alignment that WebGPU asks of them.
const SLOT: usize = 256;
/// Kernels that are handed over together at most.
const MAX_KERNELS: usize = 256;
/// Arithmetic that is handed over together at most, floating-point operations: a fifth of a second on the slowest devices that
/// are worth it, so that the system does not take them for hung.
const MAX_FLOPS: u64 = 20_000_000_000;
/// From this size on an allocation is watched by itself, so that it is known how much there was when memory ran out.
const LARGE_ALLOCATION_BYTES: u64 = 1 << 20;
/// The largest binding that every device takes, bytes.
const COMMON_BINDING_BYTES: u64 = 128 << 20;

/// Which device to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether a program on the CPU that pretends to be a device will do: right, but slow.
    pub software: bool,
    /// Kernels that compute something else, for tests of what notices.
    pub broken: bool,
    /// The most that the device gives, bytes, for tests of what happens then.
    pub memory_bytes: Option<usize>,
}

/// Why no device could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No WebGPU, or no adapter behind it.
    #[error("this machine offers no graphics device through WebGPU ({0})")]
    NoAdapter(String),
    /// A software adapter where that was not wanted.
    #[error("the only graphics device is {0}, a program on the CPU; the CPU itself is faster")]
    Software(String),
    /// The adapter refused a device.
    #[error("the graphics device {adapter} cannot be used: {reason}")]
    Refused {
        /// The adapter's name.
        adapter: String,
        /// What it said.
        reason: String,
    },
}

/// A parameter of a kernel: its bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param(u32);

impl From<usize> for Param {
    fn from(value: usize) -> Self {
        Self(value as u32)
    }
}

impl From<f32> for Param {
    fn from(value: f32) -> Self {
        Self(value.to_bits())
    }
}

/// A device with what is recorded for it.
pub(super) struct Commands {
    device: wgpu::Device,
    queue: wgpu::Queue,
    kernels: Kernels,
    adapter: String,
    is_software: bool,
    /// Why the device was lost, once it was.
    lost: Arc<Mutex<Option<String>>>,
    pool: Rc<Pool>,
    /// The most that it gives, where a test limits that, bytes.
    memory_bytes: Option<usize>,
    /// Parameters of the kernels that are recorded, one slot each.
    params: wgpu::Buffer,
    recording: RefCell<Recording>,
    flops: Cell<u64>,
}

/// What is recorded and not yet handed over.
#[derive(Default)]
struct Recording {
    /// Open while kernels follow each other; closed before copies.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    params: Vec<u8>,
    scopes: Option<Scopes>,
    large: Vec<LargeAllocation>,
}

/// What was held when a large allocation was asked for, bytes, and whether it failed.
type LargeAllocation = (usize, Pin<Box<dyn Future<Output = bool>>>);

/// Catch what goes wrong between two waits. The one that lies on the other goes first, also where they are dropped.
struct Scopes {
    validation: wgpu::ErrorScopeGuard,
    memory: wgpu::ErrorScopeGuard,
}

impl Commands {
    pub async fn open(wanted: Wanted) -> Result<Self, OpenError> {
        let instance = wgpu::Instance::default();
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&options).await;
        // What follows the first part names what this program was built without.
        let told = |error: &wgpu::RequestAdapterError| {
            let told = error.to_string();
            told.split_once(';').map_or(told.clone(), |(first, _)| first.to_owned())
        };
        let adapter = adapter.map_err(|error| OpenError::NoAdapter(told(&error)))?;
        let info = adapter.get_info();
        let named = [info.name, info.driver].into_iter().find(|name| !name.is_empty());
        let name = named.unwrap_or_else(|| "an adapter without a name".to_owned());
        let refused = |reason: String| OpenError::Refused { adapter: name.clone(), reason };
        let offered = adapter.limits();
        let required_limits = wgpu::Limits {
            max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size,
            max_buffer_size: offered.max_buffer_size,
            ..wgpu::Limits::default()
        };
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) = opened.map_err(|error| refused(error.to_string()))?;
        let name = told_by_browser(&device).unwrap_or(name);
        let is_software = info.device_type == wgpu::DeviceType::Cpu || is_software_name(&name);
        if is_software && !wanted.software {
            return Err(OpenError::Software(name));
        }
        let lost = Arc::new(Mutex::new(None));
        let told = Arc::clone(&lost);
        device.set_device_lost_callback(move |_, message| {
            if let Ok(mut lost) = told.lock() {
                lost.get_or_insert(message);
            }
        });
        // Everything is asked under a scope; whatever is said outside of them, nothing that comes after it can be trusted.
        let told = Arc::clone(&lost);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            if let Ok(mut lost) = told.lock() {
                lost.get_or_insert(error.to_string());
            }
        }));
        let sources = if wanted.broken { broken(SOURCES) } else { SOURCES };
        let kernels = Kernels::new(device.clone(), sources);
        let params = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: (MAX_KERNELS * SLOT) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Ok(Self {
            device,
            queue,
            kernels,
            adapter: name,
            is_software,
            lost,
            pool: Rc::default(),
            memory_bytes: wanted.memory_bytes,
            params,
            recording: RefCell::default(),
            flops: Cell::new(0),
        })
    }

    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    pub fn is_software(&self) -> bool {
        self.is_software
    }

    pub fn allocated_bytes(&self) -> usize {
        self.pool.allocated_bytes()
    }

    pub fn lose(&self) {
        self.device.destroy();
    }

    /// The first pass will run this kernel.
    pub fn expect(&self, kernel: Kernel) {
        self.kernels.expect(kernel);
    }

    /// Compiles a kernel that the first pass will run; tells how many are left, or that none was.
    pub async fn compile_next(&self) -> Result<Option<usize>, DeviceError> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let n_left = self.kernels.compile_next();
        let refused = scope.pop().await;
        check_lost(&self.lost)?;
        refused.map_or(Ok(n_left), |error| Err(DeviceError::Refused(error.to_string())))
    }

    /// The largest part of a matrix, bytes.
    pub fn max_binding_bytes(&self) -> usize {
        let limit = self.device.limits().max_storage_buffer_binding_size;
        // Whatever the device offers: parts beyond the common size are no faster.
        limit.min(COMMON_BINDING_BYTES) as usize
    }

    /// Room for values, whatever lies there.
    pub fn room(&self, n_values: usize) -> GpuBuffer {
        let size = Pool::size_of(n_values);
        let buffer = self.pool.take(size).unwrap_or_else(|| self.allocate(size));
        GpuBuffer::new(Raw::new(buffer, &self.pool), n_values)
    }

    /// New memory with these bytes, whole words of them. Never from the pool: commands that are recorded may still read what
    /// lies there, and this is written before they run.
    pub fn upload(&self, bytes: &[u8]) -> GpuBuffer {
        let n_values = bytes.len() / size_of::<f32>();
        let buffer = self.allocate(Pool::size_of(n_values));
        self.queue.write_buffer(&buffer, 0, bytes);
        GpuBuffer::new(Raw::new(buffer, &self.pool), n_values)
    }

    fn allocate(&self, size: u64) -> wgpu::Buffer {
        let mut recording = self.recording.borrow_mut();
        if self.pool.is_exhausted.take() {
            self.submit(&mut recording);
            self.pool.destroy_idle();
        }
        self.begin_scopes(&mut recording);
        let held_bytes = self.pool.allocated_bytes();
        let is_large = size >= LARGE_ALLOCATION_BYTES;
        let scope = is_large.then(|| self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory));
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        if let Some(scope) = scope {
            let failed = scope.pop();
            recording.large.push((held_bytes, Box::pin(async { failed.await.is_some() })));
        }
        if self.memory_bytes.is_some_and(|most| held_bytes + size as usize > most) {
            recording.large.push((held_bytes, Box::pin(std::future::ready(true))));
        }
        buffer
    }

    fn begin_scopes(&self, recording: &mut Recording) {
        recording.scopes.get_or_insert_with(|| Scopes {
            memory: self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            validation: self.device.push_error_scope(wgpu::ErrorFilter::Validation),
        });
    }

    /// Records a kernel.
    pub fn dispatch(
        &self,
        kernel: Kernel,
        params: &[Param],
        inputs: &[&GpuBuffer],
        output: &GpuBuffer,
        groups: [usize; 3],
    ) {
        let mut recording = self.recording.borrow_mut();
        self.begin_scopes(&mut recording);
        let Compiled { pipeline, layout } = self.kernels.get(kernel);
        let slot = recording.params.len();
        recording.params.extend(params.iter().flat_map(|param| param.0.to_le_bytes()));
        recording.params.resize(slot + SLOT, 0);
        let params = wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &self.params,
                offset: 0,
                size: std::num::NonZeroU64::new(SLOT as u64),
            }),
        };
        let bound = inputs.iter().chain([&output]).enumerate().map(|(index, buffer)| wgpu::BindGroupEntry {
            binding: index as u32 + 1,
            resource: buffer.raw().as_entire_binding(),
        });
        let entries: Vec<_> = std::iter::once(params).chain(bound).collect();
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        let group = self.device.create_bind_group(&descriptor);
        let pass = self.open_pass(&mut recording);
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[slot as u32]);
        let [x, y, z] = groups.map(|n| n as u32);
        pass.dispatch_workgroups(x, y, z);
        if recording.params.len() == MAX_KERNELS * SLOT {
            self.submit(&mut recording);
        }
    }

    /// Counts arithmetic that was recorded.
    pub fn worked(&self, flops: u64) {
        self.flops.set(self.flops.get() + flops);
        if self.flops.get() > MAX_FLOPS {
            self.submit(&mut self.recording.borrow_mut());
        }
    }

    fn encoder<'a>(&self, recording: &'a mut Recording) -> &'a mut wgpu::CommandEncoder {
        recording.encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()))
    }

    fn open_pass<'a>(&self, recording: &'a mut Recording) -> &'a mut wgpu::ComputePass<'static> {
        if recording.pass.is_none() {
            let pass = self.encoder(recording).begin_compute_pass(&Default::default());
            recording.pass = Some(pass.forget_lifetime());
        }
        recording.pass.as_mut().expect("it was opened just now")
    }

    /// Copies values one after another into a buffer of their own.
    pub fn join(&self, parts: &[&GpuBuffer]) -> GpuBuffer {
        let out = self.room(parts.iter().map(|part| part.len()).sum());
        self.copy(parts, out.raw());
        out
    }

    fn copy(&self, parts: &[&GpuBuffer], to: &wgpu::Buffer) {
        let mut recording = self.recording.borrow_mut();
        self.begin_scopes(&mut recording);
        recording.pass = None;
        let encoder = self.encoder(&mut recording);
        let mut at = 0;
        for part in parts {
            let [from, n] = [part.start(), part.len()].map(|n| (n * size_of::<f32>()) as u64);
            if n > 0 {
                encoder.copy_buffer_to_buffer(part.raw(), from, to, at, n);
            }
            at += n;
        }
    }

    /// Hands over what is recorded; tells which hand-over it was.
    fn submit(&self, recording: &mut Recording) -> Option<wgpu::SubmissionIndex> {
        recording.pass = None;
        self.flops.set(0);
        let submitted = recording.encoder.take().map(|encoder| {
            if !recording.params.is_empty() {
                self.queue.write_buffer(&self.params, 0, &recording.params);
                recording.params.clear();
            }
            self.queue.submit([encoder.finish()])
        });
        self.pool.destroy_given_up();
        submitted
    }

    /// Hands everything over, to be read once it is done; what this returns only waits and reads.
    pub fn download(
        &self,
        buffers: Vec<GpuBuffer>,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, DeviceError>> + use<> {
        let lens: Vec<usize> = buffers.iter().map(GpuBuffer::len).collect();
        let n_bytes = lens.iter().sum::<usize>().max(1) * size_of::<f32>();
        self.begin_scopes(&mut self.recording.borrow_mut());
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("download"),
            size: n_bytes as u64,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.copy(&buffers.iter().collect::<Vec<_>>(), &staging);
        let (submission_index, scopes, large) = {
            let mut recording = self.recording.borrow_mut();
            let submission_index = self.submit(&mut recording);
            (submission_index, recording.scopes.take(), std::mem::take(&mut recording.large))
        };
        let (sender, mapped) = oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // Whoever asked may have gone.
            let _ = sender.send(result);
        });
        // Popped in the order in which they lie on each other; answered later.
        let errors = scopes.map(|scopes| {
            let validation = scopes.validation.pop();
            (validation, scopes.memory.pop())
        });
        let held_bytes = self.pool.allocated_bytes();
        let (device, lost, pool) = (self.device.clone(), Arc::clone(&self.lost), Rc::clone(&self.pool));
        async move {
            // In a browser the event loop does this.
            let _ = device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
            let mapped = mapped.await;
            check_lost(&lost)?;
            let mut failed = None;
            for (held_bytes, has_failed) in large {
                if has_failed.await {
                    failed.get_or_insert(held_bytes);
                }
            }
            if let Some((validation, memory)) = errors {
                let (validation, memory) = (validation.await, memory.await);
                if memory.is_some() || failed.is_some() {
                    pool.is_exhausted.set(true);
                    return Err(DeviceError::OutOfMemory { held_bytes: failed.unwrap_or(held_bytes) });
                }
                if let Some(error) = validation {
                    // A device that is gone refuses what it is asked, and may tell so only then.
                    let _ = device.poll(wgpu::PollType::wait_indefinitely());
                    check_lost(&lost)?;
                    return Err(DeviceError::Refused(error.to_string()));
                }
            }
            // Nothing was wrong with what was asked, so that only a device that is gone does not answer.
            let gone = |error: &dyn std::fmt::Display| DeviceError::Lost(error.to_string());
            mapped.map_err(|error| gone(&error))?.map_err(|error| gone(&error))?;
            let view = staging.get_mapped_range(..).map_err(|error| gone(&error))?;
            let mut rest: &[f32] = bytemuck::cast_slice(&view);
            let mut downloaded = Vec::new();
            for len in lens {
                let (values, behind) = rest.split_at(len);
                downloaded.push(values.to_vec());
                rest = behind;
            }
            drop(view);
            staging.destroy();
            Ok(downloaded)
        }
    }
}

/// Fails once the device was lost.
fn check_lost(lost: &Mutex<Option<String>>) -> Result<(), DeviceError> {
    match lost.lock().map_or_else(|_| Some("its state is unknown".to_owned()), |lost| lost.clone()) {
        Some(reason) => Err(DeviceError::Lost(reason)),
        None => Ok(()),
    }
}

/// Maker and kind of the device, where a browser tells them: it keeps the names that `wgpu` asks for back.
#[cfg(target_arch = "wasm32")]
fn told_by_browser(device: &wgpu::Device) -> Option<String> {
    let info = device.as_webgpu()?.adapter_info();
    // Older browsers have no such property.
    if AsRef::<wasm_bindgen::JsValue>::as_ref(&info).is_undefined() {
        return None;
    }
    let words = [info.vendor(), info.architecture(), info.description()];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(not(target_arch = "wasm32"))]
fn told_by_browser(_: &wgpu::Device) -> Option<String> {
    None
}

/// Programs that pass for devices and do not say so.
fn is_software_name(name: &str) -> bool {
    let name = name.to_lowercase();
    ["llvmpipe", "swiftshader", "software", "basic render"].iter().any(|known| name.contains(known))
}

/// The kernels with a wrong sum in one of them.
fn broken(mut sources: [Source; 5]) -> [Source; 5] {
    const RIGHT: &str = "let silu = select(gate / (1.0 + exp(-gate))";
    assert!(sources[2].wgsl.contains(RIGHT), "the kernel to break is not there");
    let wrong = sources[2].wgsl.replace(RIGHT, "let silu = select(gate / (1.01 + exp(-gate))");
    sources[2].wgsl = Box::leak(wrong.into_boxed_str());
    sources
}
