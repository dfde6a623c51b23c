//! Copying by the eigenvalues of the full OV circuit, off the weights alone.

use nalgebra::{DMatrix, Schur};
use serde::Deserialize;
use serde_json::json;

use super::doc::{Doc, Threshold};
use super::ov::{rows_of, scale_columns, transpose, w_o_rows};
use super::{Ask, DetectError, Detector, Findings, Ground, HeadTable, Work};
use crate::backend::{Backend, DeviceError};
use crate::model::ModelConfig;
use crate::tensor::HostTensor;

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "copying",
        version: 1,
        title: "Copying (OV eigenvalues)",
        looks_for: "Heads whose output raises the token that they attend to, over the whole vocabulary at once.",
        why_it_matters: "An induction head is of use only if it also copies. This asks that half, without any prompt.",
        score: "M = W_E W_V W_O W_U of the head; score = Σ Re λ / Σ |λ| over its d_head eigenvalues that are not 0: 1 copies, \
                -1 lowers what it attends to. Parameter basis: folded (default: gains of the head's norm and of the final \
                norm are in W_E and W_U, the norms' 1/rms is left out), raw (no gains), folded_normed (each row of W_E \
                first divided by its rms).",
        stimulus: "None: the score is a property of the weights.",
        source: "Elhage et al. 2021, “A Mathematical Framework for Transformer Circuits”",
        known_confusions: "The sign depends on the basis: from the second layer on heads read more than raw embeddings, and \
                           with another input half of the heads can change sign. Name the basis, and never say that a head \
                           copies because of this number alone.",
        threshold: Some(Threshold {
            value: 0.5,
            source: "no published line; most of the spectrum is positive",
        }),
        weights_only: true,
    },
    plan: |ask: &Ask<'_>| -> Result<Work, DetectError> {
        let Params { basis } = ask.params()?;
        Ok(Work::Copying(CopyingWork { basis, d_vocab: ask.config.d_vocab, n_layers: ask.config.n_layers }))
    },
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    basis: Basis,
}

/// What stands for a head's input and output directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Basis {
    /// Embedding and unembedding with the norms' gains.
    #[default]
    Folded,
    /// Without gains.
    Raw,
    /// Embedding rows divided by their rms, with gains.
    FoldedNormed,
}

impl Basis {
    const fn name(self) -> &'static str {
        match self {
            Self::Folded => "folded",
            Self::Raw => "raw",
            Self::FoldedNormed => "folded_normed",
        }
    }
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CopyingWork {
    basis: Basis,
    d_vocab: usize,
    n_layers: usize,
}

/// Vocabulary rows taken into W_U W_E in one step.
const CHUNK: usize = 1024;
/// Blocks of columns in which the mirrored half of `W_U W_E` is left out: four save three eighths of the work.
const N_GRAM_BLOCKS: usize = 4;
/// The eigenvalue iteration ends long before; a bound keeps a damaged matrix from running for ever.
const MAX_ITERATIONS: usize = 10_000;

/// The work under way: first `W_U W_E` chunk by chunk, then a layer a step.
pub(super) struct CopyingTask {
    work: CopyingWork,
    next_token: usize,
    /// `G[a, b] = Σ_token W_U[a, token] W_E[token, b]`, `[d_model, d_model]`.
    gram: Vec<f32>,
    scores: HeadTable,
}

impl CopyingTask {
    pub(super) fn new(work: CopyingWork) -> Self {
        Self { work, next_token: 0, gram: Vec::new(), scores: Vec::new() }
    }

    fn n_chunks(&self) -> usize {
        self.work.d_vocab.div_ceil(CHUNK)
    }

    pub(super) fn progress(&self) -> (usize, usize) {
        let done = self.next_token.div_ceil(CHUNK) + self.scores.len();
        (done, self.n_chunks() + self.work.n_layers)
    }

    pub(super) fn partial(&self) -> HeadTable {
        self.scores.clone()
    }

    pub(super) async fn step<B: Backend>(&mut self, ground: &Ground<'_, B>) -> Result<bool, DeviceError> {
        if self.next_token < self.work.d_vocab {
            self.add_chunk(ground).await?;
        } else if self.scores.len() < self.work.n_layers {
            self.scores.push(self.layer(ground, self.scores.len()).await?);
        }
        Ok(self.scores.len() == self.work.n_layers)
    }

    async fn add_chunk<B: Backend>(&mut self, ground: &Ground<'_, B>) -> Result<(), DeviceError> {
        let (backend, model) = (ground.backend, ground.model);
        let d_model = model.config.d_model;
        let tokens = self.next_token..(self.next_token + CHUNK).min(self.work.d_vocab);
        self.next_token = tokens.end;
        let mut embed = rows_of(backend, &model.w_e, tokens.clone()).await?;
        if self.work.basis == Basis::FoldedNormed {
            divide_by_rms(&mut embed, d_model, model.config.rms_eps);
        }
        let embed = transpose(&embed, d_model);
        self.gram.resize(d_model * d_model, 0.0);
        if self.is_symmetric(&model.config) {
            self.add_symmetric(backend, &embed).await?;
        } else {
            let unembed = transpose(&rows_of(backend, model.unembed(), tokens).await?, d_model);
            let product = backend.matmul(&backend.vector(&unembed), &backend.matrix(&embed));
            let product = backend.download_one(product).await?;
            self.gram.iter_mut().zip(product).for_each(|(sum, more)| *sum += more);
        }
        if self.next_token == self.work.d_vocab && self.is_symmetric(&model.config) {
            self.mirror(d_model);
        }
        Ok(())
    }

    /// Whether both sides are the same rows, read once: tied weights, unless one side of them was normed. The product is then its
    /// own mirror image.
    fn is_symmetric(&self, config: &ModelConfig) -> bool {
        config.tied_embeddings && self.work.basis != Basis::FoldedNormed
    }

    /// Adds `E Eᵀ` of `[d_model, token]` above the diagonal: columns in blocks, each with the rows down to its last column.
    async fn add_symmetric<B: Backend>(
        &mut self,
        backend: &B,
        embed: &HostTensor,
    ) -> Result<(), DeviceError> {
        let (d_model, n_tokens) = (embed.shape[0], embed.row_len());
        let rows = backend.vector(embed);
        let mut first = 0;
        for block in embed.data.chunks(d_model.div_ceil(N_GRAM_BLOCKS) * n_tokens) {
            let n_cols = block.len() / n_tokens;
            let columns = backend.matrix(&HostTensor::new(vec![n_cols, n_tokens], block.to_vec()));
            let above = backend.slice(&rows, 0..(first + n_cols) * n_tokens);
            let product = backend.download_one(backend.matmul(&above, &columns)).await?;
            for (row, product) in self.gram.chunks_exact_mut(d_model).zip(product.chunks_exact(n_cols)) {
                row[first..][..n_cols].iter_mut().zip(product).for_each(|(sum, more)| *sum += more);
            }
            first += n_cols;
        }
        Ok(())
    }

    /// Fills in below the diagonal what [`Self::add_symmetric`] left out.
    fn mirror(&mut self, d_model: usize) {
        for row in 0..d_model {
            for column in 0..row {
                self.gram[row * d_model + column] = self.gram[column * d_model + row];
            }
        }
    }

    async fn layer<B: Backend>(&self, ground: &Ground<'_, B>, layer: usize) -> Result<Vec<f32>, DeviceError> {
        let (backend, model) = (ground.backend, ground.model);
        let (config, block) = (&model.config, &model.blocks[layer]);
        let (d_model, d_head) = (config.d_model, config.d_head);
        let has_gains = self.work.basis != Basis::Raw;
        let mut left = w_o_rows(ground, layer).await?;
        if has_gains {
            scale_columns(&mut left.data, &backend.download_one(model.final_norm.clone()).await?);
        }
        // W_V with the gain of the heads' norm, through G: `[n_kv_heads * d_head, d_model]`; there are fewer rows of W_V than of W_O.
        let mut values = rows_of(backend, &block.w_v, 0..config.n_kv_heads * d_head).await?;
        if has_gains {
            scale_columns(&mut values, &backend.download_one(block.attn_norm.clone()).await?);
        }
        let shape = vec![config.n_kv_heads * d_head, d_model];
        let gram = backend.matrix(&HostTensor::new(vec![d_model, d_model], self.gram.clone()));
        let values = backend.vector(&HostTensor::new(shape.clone(), values));
        let through = backend.download_one(backend.matmul(&values, &gram)).await?;
        let through = HostTensor::new(shape, through);
        // Then W_O: `[n_heads * d_head, n_kv_heads * d_head]`.
        let circuits = backend.matmul(&backend.vector(&left), &backend.matrix(&through));
        let circuits = backend.download_one(circuits).await?;
        let d_kv = config.n_kv_heads * d_head;
        Ok((0..config.n_heads)
            .map(|head| {
                let first = head / config.heads_per_kv() * d_head;
                let entry = |i: usize, j: usize| f64::from(circuits[(head * d_head + i) * d_kv + first + j]);
                eigenvalue_score(DMatrix::from_fn(d_head, d_head, entry))
            })
            .collect())
    }

    pub(super) fn finish(self) -> Findings {
        Findings {
            stimulus: "the weights alone".to_owned(),
            n: self.work.d_vocab,
            scores: self.scores,
            spread: None,
            evidence: json!({ "basis": self.work.basis.name() }),
        }
    }
}

fn divide_by_rms(rows: &mut [f32], d_model: usize, eps: f32) {
    for row in rows.chunks_exact_mut(d_model) {
        let mean_square = row.iter().map(|value| value * value).sum::<f32>() / d_model as f32;
        let scale = 1.0 / (mean_square + eps).sqrt();
        row.iter_mut().for_each(|value| *value *= scale);
    }
}

/// `Σ Re λ / Σ |λ|` of a square matrix; NaN for one that has no finite eigenvalues, 0 for the zero matrix.
fn eigenvalue_score(matrix: DMatrix<f64>) -> f32 {
    if matrix.iter().any(|value| !value.is_finite()) {
        return f32::NAN;
    }
    // The iteration stands still on a matrix with several eigenvalues of one magnitude and no other, such as a cycle.
    // A ripple far below f32's precision sets it moving.
    let rippled = || {
        let ripple = matrix.norm() * 1e-10;
        let moved = DMatrix::from_fn(matrix.nrows(), matrix.ncols(), |row, column| {
            matrix[(row, column)] + ripple * ((3 * row + 7 * column) as f64).sin()
        });
        Schur::try_new(moved, f64::EPSILON, MAX_ITERATIONS)
    };
    let schur = Schur::try_new(matrix.clone(), f64::EPSILON, MAX_ITERATIONS).or_else(rippled);
    let Some(schur) = schur else { return f32::NAN };
    let eigenvalues = schur.complex_eigenvalues();
    let real: f64 = eigenvalues.iter().map(|value| value.re).sum();
    let absolute: f64 = eigenvalues.iter().map(|value| value.norm()).sum();
    if absolute == 0.0 { 0.0 } else { (real / absolute) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_copies_its_negative_uncopies_and_a_turn_does_neither() {
        assert!((eigenvalue_score(DMatrix::identity(4, 4)) - 1.0).abs() < 1e-6);
        assert!((eigenvalue_score(-DMatrix::<f64>::identity(4, 4)) + 1.0).abs() < 1e-6);
        let turn = DMatrix::from_row_slice(2, 2, &[0.0, -1.0, 1.0, 0.0]);
        assert!(eigenvalue_score(turn).abs() < 1e-6);
        let cycle = DMatrix::from_fn(12, 12, |row, column| f64::from((row + 1) % 12 == column));
        assert!(eigenvalue_score(cycle).abs() < 1e-6);
        assert_eq!(eigenvalue_score(DMatrix::zeros(3, 3)), 0.0);
        assert!(eigenvalue_score(DMatrix::from_element(2, 2, f64::NAN)).is_nan());
    }
}
