//! Weights on their way from a checkpoint into a backend's layouts.

use super::LoadedModel;
use crate::backend::Backend;
use crate::model::{Block, Checkpoint, Mlp, Model, ModelConfig, ModelError, Weight};

/// Takes a checkpoint's tensors into a backend, one a step.
pub struct Upload<B: Backend> {
    todo: std::vec::IntoIter<Weight>,
    matrices: Vec<B::Matrix>,
    vectors: Vec<B::Buffer>,
}

impl<B: Backend> Upload<B> {
    /// Nothing uploaded yet.
    pub fn new(config: &ModelConfig) -> Self {
        Self { todo: config.tensors().into_iter(), matrices: Vec::new(), vectors: Vec::new() }
    }

    /// Tensors taken so far.
    pub fn n_done(&self) -> usize {
        self.matrices.len() + self.vectors.len()
    }

    /// Takes one tensor; true when none was left.
    pub fn step(&mut self, backend: &B, checkpoint: &dyn Checkpoint) -> Result<bool, ModelError> {
        let Some(weight) = self.todo.next() else { return Ok(true) };
        if let Some(matrix) = checkpoint.quantized(weight) {
            self.matrices.push(backend.quantized_matrix(&matrix));
            return Ok(false);
        }
        let tensor = checkpoint.tensor(weight)?;
        if tensor.shape.len() == 1 {
            self.vectors.push(backend.vector(&tensor));
        } else {
            self.matrices.push(backend.matrix(&tensor));
        }
        Ok(false)
    }

    /// The model, once every tensor is in.
    ///
    /// # Panics
    /// When tensors are missing: callers step until nothing is left.
    pub fn finish(self, config: ModelConfig) -> LoadedModel<B> {
        let mut matrices = self.matrices.into_iter();
        let mut vectors = self.vectors.into_iter();
        // Both come in the order of `ModelConfig::tensors`.
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
