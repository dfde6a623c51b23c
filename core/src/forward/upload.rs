//! Weights on their way from a checkpoint into a backend's layouts.

use super::LoadedModel;
use crate::backend::Backend;
use crate::model::{Block, Mlp, Model, ModelConfig, StoredTensor};

/// Takes a checkpoint's tensors into a backend, in any order.
pub struct Upload<B: Backend> {
    /// By their place among [`ModelConfig::tensors`].
    tensors: Vec<Option<Uploaded<B>>>,
}

enum Uploaded<B: Backend> {
    Matrix(B::Matrix),
    Vector(B::Buffer),
}

impl<B: Backend> Upload<B> {
    /// Nothing uploaded yet.
    pub fn new(config: &ModelConfig) -> Self {
        Self { tensors: config.tensors().iter().map(|_| None).collect() }
    }

    /// Tensors taken so far.
    pub fn n_done(&self) -> usize {
        self.tensors.iter().flatten().count()
    }

    /// Takes the tensor that is the `index`th among [`ModelConfig::tensors`].
    ///
    /// # Panics
    /// When there are not so many.
    pub fn take(&mut self, backend: &B, index: usize, tensor: &StoredTensor<'_>) {
        self.tensors[index] = Some(match tensor {
            StoredTensor::Quantized(matrix) => Uploaded::Matrix(backend.quantized_matrix(matrix)),
            StoredTensor::Full(tensor) if tensor.shape.len() == 1 => Uploaded::Vector(backend.vector(tensor)),
            StoredTensor::Full(tensor) => Uploaded::Matrix(backend.matrix(tensor)),
        });
    }

    /// The model, once every tensor is in.
    ///
    /// # Panics
    /// When tensors are missing: callers take every one.
    pub fn finish(self, config: ModelConfig) -> LoadedModel<B> {
        // As they follow each other in `ModelConfig::tensors`.
        let (mut matrices, mut vectors) = (Vec::new(), Vec::new());
        for tensor in self.tensors {
            match tensor.expect("every tensor was taken") {
                Uploaded::Matrix(matrix) => matrices.push(matrix),
                Uploaded::Vector(vector) => vectors.push(vector),
            }
        }
        let (mut matrices, mut vectors) = (matrices.into_iter(), vectors.into_iter());
        let mut matrix = || matrices.next().expect("every matrix was uploaded");
        let mut vector = || vectors.next().expect("every vector was uploaded");
        let w_e = matrix();
        let blocks = (0..config.n_layers)
            .map(|_| Block {
                attn_norm: vector(),
                w_q: matrix(),
                w_k: matrix(),
                w_v: matrix(),
                w_o: matrix(),
                mlp: config.has_mlp().then(|| Mlp {
                    norm: vector(),
                    w_gate: matrix(),
                    w_in: matrix(),
                    w_out: matrix(),
                }),
            })
            .collect();
        let final_norm = vector();
        let w_u = (!config.tied_embeddings).then(matrix);
        Model { config, w_e, blocks, final_norm, w_u }
    }
}
