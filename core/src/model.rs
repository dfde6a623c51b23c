//! What a model is: its sizes, its weights by role, and where they come from. Reads bytes; runs nothing.
//!
//! Families differ here (config keys, tensor names, layout of q and k) and nowhere above.

pub mod folder;
pub mod gguf;

use crate::tensor::HostTensor;
use crate::tensor::quantized::QuantizedMatrix;

/// Sizes and constants of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family as the checkpoint names it.
    pub family: String,
    /// Name given by the checkpoint, if any.
    pub name: Option<String>,
    /// Layers.
    pub n_layers: usize,
    /// Query heads a layer.
    pub n_heads: usize,
    /// Key/value heads a layer; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Residual width.
    pub d_model: usize,
    /// Head width; even, because RoPE turns pairs.
    pub d_head: usize,
    /// MLP width; 0 for an attention-only model.
    pub d_mlp: usize,
    /// Vocabulary size.
    pub d_vocab: usize,
    /// Longest prompt.
    pub n_ctx: usize,
    /// Added to the mean square inside RMSNorm.
    pub rms_eps: f32,
    /// RoPE's base.
    pub rope_theta: f32,
    /// Whether the unembedding is the embedding.
    pub tied_embeddings: bool,
}

/// Longest context and largest width that a config may claim, so that a hostile header cannot ask for
/// unbounded memory.
const MAX_EXTENT: usize = 1 << 24;

impl ModelConfig {
    /// Query heads that read one key/value head.
    pub fn heads_per_kv(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Whether blocks have an MLP.
    pub fn has_mlp(&self) -> bool {
        self.d_mlp > 0
    }

    /// Parameters, tied ones once.
    pub fn n_params(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.shape(self).iter().product::<usize>()).sum()
    }

    /// Every tensor the model needs, in loading order.
    pub fn tensors(&self) -> Vec<Weight> {
        let mut tensors = vec![Weight::Embed];
        for layer in 0..self.n_layers {
            tensors.extend(BlockWeight::of(self).iter().map(|&weight| Weight::Block(layer, weight)));
        }
        tensors.push(Weight::FinalNorm);
        if !self.tied_embeddings {
            tensors.push(Weight::Unembed);
        }
        tensors
    }

    /// Refuses sizes that contradict each other or that nothing could run.
    pub fn check(&self) -> Result<(), ModelError> {
        let sizes = [
            ("layers", self.n_layers),
            ("heads", self.n_heads),
            ("key/value heads", self.n_kv_heads),
            ("residual width", self.d_model),
            ("head width", self.d_head),
            ("vocabulary", self.d_vocab),
            ("context", self.n_ctx),
        ];
        for (what, size) in sizes {
            if size == 0 || size > MAX_EXTENT {
                return Err(ModelError::Config(format!("its number for {what} is {size}")));
            }
        }
        if self.d_mlp > MAX_EXTENT {
            return Err(ModelError::Config(format!("its MLP width is {}", self.d_mlp)));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(ModelError::Config(format!(
                "its {} heads do not divide among {} key/value heads",
                self.n_heads, self.n_kv_heads
            )));
        }
        if !self.d_head.is_multiple_of(2) {
            return Err(ModelError::Config(format!("its head width {} is odd", self.d_head)));
        }
        if !(self.rms_eps > 0.0 && self.rms_eps < 1.0) {
            return Err(ModelError::Config(format!("its RMSNorm epsilon is {}", self.rms_eps)));
        }
        if !(self.rope_theta > 1.0 && self.rope_theta.is_finite()) {
            return Err(ModelError::Config(format!("its RoPE base is {}", self.rope_theta)));
        }
        Ok(())
    }
}

/// A weight by its role. Matrices are `[n_out, n_in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// W_E, `[d_vocab, d_model]`.
    Embed,
    /// A weight of a block.
    Block(usize, BlockWeight),
    /// Gain of the final norm, `[d_model]`.
    FinalNorm,
    /// W_U transposed, `[d_vocab, d_model]`.
    Unembed,
}

/// A block's weights by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockWeight {
    /// Gain of the norm before attention, `[d_model]`.
    AttnNorm,
    /// W_Q, `[n_heads * d_head, d_model]`.
    Q,
    /// W_K, `[n_kv_heads * d_head, d_model]`.
    K,
    /// W_V, `[n_kv_heads * d_head, d_model]`.
    V,
    /// W_O, `[d_model, n_heads * d_head]`.
    O,
    /// Gain of the norm before the MLP, `[d_model]`.
    MlpNorm,
    /// Gate matrix, `[d_mlp, d_model]`.
    Gate,
    /// Linear matrix, `[d_mlp, d_model]`.
    Up,
    /// Output matrix, `[d_model, d_mlp]`.
    Down,
}

impl BlockWeight {
    const ATTENTION: [Self; 5] = [Self::AttnNorm, Self::Q, Self::K, Self::V, Self::O];
    const ALL: [Self; 9] =
        [Self::AttnNorm, Self::Q, Self::K, Self::V, Self::O, Self::MlpNorm, Self::Gate, Self::Up, Self::Down];

    /// The weights that a block of this config has.
    pub fn of(config: &ModelConfig) -> &'static [Self] {
        if config.has_mlp() { &Self::ALL } else { &Self::ATTENTION }
    }
}

impl Weight {
    /// The shape this weight must have.
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let d_model = config.d_model;
        let d_q = config.n_heads * config.d_head;
        let d_kv = config.n_kv_heads * config.d_head;
        match self {
            Self::Embed | Self::Unembed => vec![config.d_vocab, d_model],
            Self::FinalNorm => vec![d_model],
            Self::Block(_, weight) => match weight {
                BlockWeight::AttnNorm | BlockWeight::MlpNorm => vec![d_model],
                BlockWeight::Q => vec![d_q, d_model],
                BlockWeight::K | BlockWeight::V => vec![d_kv, d_model],
                BlockWeight::O => vec![d_model, d_q],
                BlockWeight::Gate | BlockWeight::Up => vec![config.d_mlp, d_model],
                BlockWeight::Down => vec![d_model, config.d_mlp],
            },
        }
    }
}

/// A tensor of a checkpoint, in the layout that [`Weight`] describes.
pub enum StoredTensor<'a> {
    /// As f32.
    Full(HostTensor),
    /// A matrix as the file stores it, where that is a [`QuantKind`](crate::tensor::quantized::QuantKind).
    Quantized(QuantizedMatrix<'a>),
}

/// A block's weights in a backend's layouts: `M` for matrices, `V` for vectors.
pub struct Block<M, V> {
    /// Gain before attention.
    pub attn_norm: V,
    /// W_Q.
    pub w_q: M,
    /// W_K.
    pub w_k: M,
    /// W_V.
    pub w_v: M,
    /// W_O.
    pub w_o: M,
    /// The MLP, unless the model has none.
    pub mlp: Option<Mlp<M, V>>,
}

/// A gated MLP's weights.
pub struct Mlp<M, V> {
    /// Gain before the MLP.
    pub norm: V,
    /// Gate matrix.
    pub w_gate: M,
    /// Linear matrix.
    pub w_in: M,
    /// Output matrix.
    pub w_out: M,
}

impl<M, V> Block<M, V> {
    fn matrices(&self) -> impl Iterator<Item = &M> {
        let mlp = self.mlp.iter().flat_map(|mlp| [&mlp.w_gate, &mlp.w_in, &mlp.w_out]);
        [&self.w_q, &self.w_k, &self.w_v, &self.w_o].into_iter().chain(mlp)
    }
}

/// A model's weights in a backend's layouts.
pub struct Model<M, V> {
    /// Sizes.
    pub config: ModelConfig,
    /// W_E; also the unembedding when `w_u` is absent.
    pub w_e: M,
    /// Blocks from the input up.
    pub blocks: Vec<Block<M, V>>,
    /// Gain of the final norm.
    pub final_norm: V,
    /// The unembedding of an untied model.
    pub w_u: Option<M>,
}

impl<M, V> Model<M, V> {
    /// The matrix from the final norm to logits.
    pub fn unembed(&self) -> &M {
        self.w_u.as_ref().unwrap_or(&self.w_e)
    }

    /// The same model with its weights in other layouts.
    pub fn map<N, W>(&self, matrix: impl Fn(&M) -> N, vector: impl Fn(&V) -> W) -> Model<N, W> {
        let block = |block: &Block<M, V>| Block {
            attn_norm: vector(&block.attn_norm),
            w_q: matrix(&block.w_q),
            w_k: matrix(&block.w_k),
            w_v: matrix(&block.w_v),
            w_o: matrix(&block.w_o),
            mlp: block.mlp.as_ref().map(|mlp| Mlp {
                norm: vector(&mlp.norm),
                w_gate: matrix(&mlp.w_gate),
                w_in: matrix(&mlp.w_in),
                w_out: matrix(&mlp.w_out),
            }),
        };
        Model {
            config: self.config.clone(),
            w_e: matrix(&self.w_e),
            blocks: self.blocks.iter().map(block).collect(),
            final_norm: vector(&self.final_norm),
            w_u: self.w_u.as_ref().map(&matrix),
        }
    }

    /// Every matrix.
    pub fn matrices(&self) -> impl Iterator<Item = &M> {
        [&self.w_e].into_iter().chain(self.blocks.iter().flat_map(Block::matrices)).chain(&self.w_u)
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The bytes are not of the format.
    #[error(
        "this is not a GGUF model file ({0}); choose a .gguf file, and download it again if it should be one"
    )]
    NotGguf(String),
    /// The bytes are not safetensors.
    #[error("{file} is not a safetensors file ({reason}); download the model's folder again")]
    NotSafetensors {
        /// Which file.
        file: String,
        /// What the reader said.
        reason: String,
    },
    /// A web page instead of weights.
    #[error(
        "this is a web page, not a model: the address answered with HTML; check the address and download again"
    )]
    Html,
    /// The file ends early.
    #[error("the file is cut short ({0}); download it again")]
    Truncated(String),
    /// A family that is not supported.
    #[error(
        "models of family \"{0}\" are not supported yet; Headlight reads Llama-family models (SmolLM2, Llama)"
    )]
    Family(String),
    /// A needed config value is missing.
    #[error("the model's configuration lacks {0}; the file is damaged or of an unknown kind")]
    MissingConfig(String),
    /// Sizes that cannot be.
    #[error("the model's configuration is not usable: {0}")]
    Config(String),
    /// A tensor is missing.
    #[error("the model lacks the tensor {0}; the download is incomplete or of another kind")]
    MissingTensor(String),
    /// Two tensors have bytes in common.
    #[error("the tensor {0} lies over the one before it; the file is damaged, so download it again")]
    Overlap(String),
    /// A tensor has another shape.
    #[error(
        "the tensor {name} has shape {got:?}, but the configuration asks for {wanted:?}; files of different models may be mixed"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        got: Vec<usize>,
        /// The shape that the config implies.
        wanted: Vec<usize>,
    },
    /// A tensor's number type.
    #[error(
        "the tensor {name} is stored as {dtype}, which Headlight does not read; use an f32, f16, bf16 or GGUF model"
    )]
    Dtype {
        /// The tensor.
        name: String,
        /// Its number type.
        dtype: String,
    },
    /// config.json is no JSON.
    #[error("config.json cannot be read ({0}); download the model's folder again")]
    ConfigJson(String),
}

/// Fails unless a tensor has the shape that its role asks for.
pub(crate) fn check_shape(
    name: &str,
    got: &[usize],
    weight: Weight,
    config: &ModelConfig,
) -> Result<(), ModelError> {
    let wanted = weight.shape(config);
    if got == wanted {
        return Ok(());
    }
    Err(ModelError::Shape { name: name.to_owned(), got: got.to_vec(), wanted })
}
