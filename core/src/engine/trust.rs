//! Whether an engine computes what exact f32 on the CPU computes: drivers can be wrong without saying so, and `fast` precision
//! rounds.

use super::Engine;
use crate::backend::Device;
use crate::error::Error;
use crate::forward::Pass;
use crate::hooks::{LogitPositions, RunPlan};
use crate::ids::TokenId;

/// Tokens of the test.
const N_TOKENS: usize = 8;
/// The largest difference of a logit that rounding in another order explains.
const TOLERANCE: f32 = 2e-3;
/// The largest difference of a logit that `fast` precision may make.
const FAST_TOLERANCE: f32 = 0.1;

/// What an engine's self-test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTest {
    /// The largest difference of a logit from the CPU's, over every position and token; infinite when one is no number.
    pub max_difference: f32,
    /// The largest difference that passes.
    pub tolerance: f32,
}

impl SelfTest {
    /// Whether the engine can be trusted.
    pub fn passed(self) -> bool {
        self.max_difference <= self.tolerance
    }
}

impl Engine {
    /// Compares every logit of a few tokens with those of the same model in exact f32 on the CPU.
    pub async fn self_test(&self, cpu: &Self) -> Result<SelfTest, Error> {
        let ids = self.bench_ids(N_TOKENS.min(self.info.n_ctx));
        let (got, wanted) = (self.all_logits(&ids).await?, cpu.all_logits(&ids).await?);
        let difference = |(got, wanted): (&f32, &f32)| match (got - wanted).abs() {
            difference if difference.is_finite() => difference,
            _ => f32::INFINITY,
        };
        let max_difference = got.iter().zip(&wanted).map(difference).fold(0.0, f32::max);
        let is_fast = matches!(self.backend, Device::Cpu(cpu) if !cpu.precision.is_exact());
        Ok(SelfTest { max_difference, tolerance: if is_fast { FAST_TOLERANCE } else { TOLERANCE } })
    }

    async fn all_logits(&self, ids: &[TokenId]) -> Result<Vec<f32>, Error> {
        let mut pass = Pass::start(&self.backend, &self.model, ids, RunPlan::default())?;
        while !pass.step(&self.backend, &self.model) {}
        let normalized = pass.finish(&self.backend, &self.model).await?.normalized;
        Ok(self.logits_at(&normalized, ids.len(), LogitPositions::All).await?.data)
    }
}
