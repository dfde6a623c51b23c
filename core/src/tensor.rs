//! A dense f32 tensor in host memory: how weights leave a file and how activations reach a reader.

pub mod quantized;

/// Row-major f32 values with their shape.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extent of each axis, outermost first.
    pub shape: Vec<usize>,
    /// Values, `shape`'s product of them, last axis fastest.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// Joins values and shape.
    ///
    /// # Panics
    /// When the shape does not hold exactly `data.len()` values: that is a bug of the caller.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        let n_values: usize = shape.iter().product();
        assert_eq!(n_values, data.len(), "shape {shape:?} holds {n_values} values, got {}", data.len());
        Self { shape, data }
    }

    /// Width of the last axis; 1 for a scalar.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The rows along the last axis, in order.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.row_len().max(1))
    }
}
