//! Every kernel with its source: what it reads, what it writes, and its pipeline on a device.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;

/// A kernel: an entry point with its constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    MatmulF32,
    MatmulF32Large,
    MatmulF32Any,
    MatmulBf16,
    MatmulBf16Large,
    MatmulF16,
    MatmulF16Large,
    Matmul4Bit,
    Matmul4BitLarge,
    Matmul8Bit,
    Matmul8BitLarge,
    GatherF32,
    GatherBf16,
    GatherF16,
    Gather4Bit,
    Gather8Bit,
    AttnScores,
    MixValues,
    Softmax,
    Entropies,
    SumOfRows,
    ArgmaxKeys,
    TargetMass,
    Add,
    Subtract,
    Swiglu,
    RmsNorm,
    Rope,
    MeanOfRows,
    EditRows,
    EditAttention,
    FillAt,
    ReadLogits,
}

/// A file of WGSL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub name: &'static str,
    pub wgsl: &'static str,
}

/// The files.
pub(super) const SOURCES: [Source; 5] = [
    Source { name: "matmul", wgsl: concat!(include_str!("tiles.wgsl"), include_str!("matmul.wgsl")) },
    Source {
        name: "attention",
        wgsl: concat!(include_str!("tiles.wgsl"), include_str!("lanes.wgsl"), include_str!("attention.wgsl")),
    },
    Source {
        name: "elementwise",
        wgsl: concat!(include_str!("lanes.wgsl"), include_str!("elementwise.wgsl")),
    },
    Source { name: "edits", wgsl: concat!(include_str!("lanes.wgsl"), include_str!("edits.wgsl")) },
    Source { name: "logits", wgsl: concat!(include_str!("lanes.wgsl"), include_str!("logits.wgsl")) },
];

/// What there is to know of a kernel: its file, its entry point, and how many buffers it reads. Parameters are bound first, then
/// what it reads, then what it writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Where it stands in the table; a test holds both together.
    #[cfg_attr(any(not(test), target_arch = "wasm32"), expect(dead_code))]
    pub kernel: Kernel,
    pub source: usize,
    pub entry: &'static str,
    pub constants: &'static [(&'static str, f64)],
    pub n_inputs: usize,
}

const fn facts(kernel: Kernel, source: usize, entry: &'static str, n_inputs: usize) -> Facts {
    Facts { kernel, source, entry, constants: &[], n_inputs }
}

/// A kernel on weights that are stored in one way.
const fn on_weights(kernel: Kernel, entry: &'static str, constants: &'static [(&'static str, f64)]) -> Facts {
    Facts { kernel, source: 0, entry, constants, n_inputs: 2 }
}

/// Constants of a product in large tiles.
const fn large(n_words: f64) -> [(&'static str, f64); 3] {
    [("N_WORDS", n_words), ("IS_LARGE", 1.0), ("N_THREAD_ROWS", 16.0)]
}

/// Every kernel, in the order of [`Kernel`].
pub(super) const KERNELS: [Facts; 33] = [
    on_weights(Kernel::MatmulF32, "matmul", &[("N_WORDS", 0.0)]),
    on_weights(Kernel::MatmulF32Large, "matmul", &large(0.0)),
    on_weights(Kernel::MatmulF32Any, "matmul_any", &[("N_WORDS", 0.0)]),
    on_weights(Kernel::MatmulBf16, "matmul", &[("N_WORDS", 1.0)]),
    on_weights(Kernel::MatmulBf16Large, "matmul", &large(1.0)),
    on_weights(Kernel::MatmulF16, "matmul", &[("N_WORDS", 2.0)]),
    on_weights(Kernel::MatmulF16Large, "matmul", &large(2.0)),
    on_weights(Kernel::Matmul4Bit, "matmul", &[("N_WORDS", 4.0)]),
    on_weights(Kernel::Matmul4BitLarge, "matmul", &large(4.0)),
    on_weights(Kernel::Matmul8Bit, "matmul", &[("N_WORDS", 8.0)]),
    on_weights(Kernel::Matmul8BitLarge, "matmul", &large(8.0)),
    on_weights(Kernel::GatherF32, "gather", &[("N_WORDS", 0.0)]),
    on_weights(Kernel::GatherBf16, "gather", &[("N_WORDS", 1.0)]),
    on_weights(Kernel::GatherF16, "gather", &[("N_WORDS", 2.0)]),
    on_weights(Kernel::Gather4Bit, "gather", &[("N_WORDS", 4.0)]),
    on_weights(Kernel::Gather8Bit, "gather", &[("N_WORDS", 8.0)]),
    facts(Kernel::AttnScores, 1, "attn_scores", 2),
    facts(Kernel::MixValues, 1, "mix_values", 2),
    facts(Kernel::Softmax, 1, "softmax", 1),
    facts(Kernel::Entropies, 1, "entropies", 1),
    facts(Kernel::SumOfRows, 1, "sum_of_rows", 1),
    facts(Kernel::ArgmaxKeys, 1, "argmax_keys", 1),
    facts(Kernel::TargetMass, 1, "target_mass", 2),
    facts(Kernel::Add, 2, "add", 2),
    facts(Kernel::Subtract, 2, "subtract", 2),
    facts(Kernel::Swiglu, 2, "swiglu", 2),
    facts(Kernel::RmsNorm, 2, "rms_norm", 2),
    facts(Kernel::Rope, 2, "rope", 2),
    facts(Kernel::MeanOfRows, 2, "mean_of_rows", 1),
    facts(Kernel::EditRows, 3, "edit_rows", 2),
    facts(Kernel::EditAttention, 3, "edit_attention", 2),
    facts(Kernel::FillAt, 3, "fill_at", 1),
    facts(Kernel::ReadLogits, 4, "read_logits", 3),
];

/// What a forward pass runs, whatever its weights are.
const OF_EVERY_PASS: [Kernel; 7] = [
    Kernel::RmsNorm,
    Kernel::Rope,
    Kernel::AttnScores,
    Kernel::Softmax,
    Kernel::MixValues,
    Kernel::Add,
    Kernel::Swiglu,
];

/// A kernel's pipeline with the layout of its bindings.
pub(super) struct Compiled {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// Kernels of a device, each compiled when it is expected or first asked for: a model needs those of its weights alone, and some
/// drivers take seconds for all of them. What is wrong with one turns up where it is used, as every error does.
pub(super) struct Kernels {
    device: wgpu::Device,
    sources: [Source; 5],
    modules: [OnceCell<wgpu::ShaderModule>; 5],
    compiled: [OnceCell<Compiled>; KERNELS.len()],
    /// To be compiled before the first pass, in their order.
    expected: RefCell<VecDeque<Kernel>>,
}

impl Kernels {
    pub fn new(device: wgpu::Device, sources: [Source; 5]) -> Self {
        let (modules, compiled) = (Default::default(), [const { OnceCell::new() }; KERNELS.len()]);
        Self { device, sources, modules, compiled, expected: RefCell::new(OF_EVERY_PASS.into()) }
    }

    /// The first pass will run this one.
    pub fn expect(&self, kernel: Kernel) {
        let mut expected = self.expected.borrow_mut();
        if self.compiled[kernel as usize].get().is_none() && !expected.contains(&kernel) {
            expected.push_back(kernel);
        }
    }

    /// Compiles one of those expected; tells how many are left, or that none was.
    pub fn compile_next(&self) -> Option<usize> {
        let kernel = self.expected.borrow_mut().pop_front()?;
        self.get(kernel);
        Some(self.expected.borrow().len())
    }

    /// One of them.
    pub fn get(&self, kernel: Kernel) -> &Compiled {
        self.compiled[kernel as usize].get_or_init(|| self.compile(&KERNELS[kernel as usize]))
    }

    fn compile(&self, facts: &Facts) -> Compiled {
        let module = self.modules[facts.source].get_or_init(|| {
            let Source { name, wgsl } = self.sources[facts.source];
            self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(wgsl.into()),
            })
        });
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(facts.entry),
            entries: &bindings(facts.n_inputs),
        });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(facts.entry),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(facts.entry),
            layout: Some(&pipeline_layout),
            module,
            entry_point: Some(facts.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: facts.constants,
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Compiled { pipeline, layout }
    }
}

/// Parameters, inputs to read, the output.
fn bindings(n_inputs: usize) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: ty == wgpu::BufferBindingType::Uniform,
            min_binding_size: None,
        },
        count: None,
    };
    let inputs =
        (1..=n_inputs).map(|binding| entry(binding, wgpu::BufferBindingType::Storage { read_only: true }));
    let output = entry(n_inputs + 1, wgpu::BufferBindingType::Storage { read_only: false });
    std::iter::once(entry(0, wgpu::BufferBindingType::Uniform)).chain(inputs).chain([output]).collect()
}
