//! Whether an engine computes what it should: drivers can be wrong without saying so, and `fast` precision rounds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::backend::Device;
use crate::error::Error;
use crate::hooks::{LogitPositions, RunPlan};
use crate::ids::TokenId;

/// Tokens of the test.
const N_TOKENS: usize = 8;
/// The largest difference of a logit that rounding in another order explains.
const TOLERANCE: f32 = 2e-3;
/// The largest difference of a logit that `fast` precision may make.
const FAST_TOLERANCE: f32 = 0.1;

/// Logits of a known model, from another forward pass in float64 (`tests/golden/manifest.py`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Golden {
    /// The prompt.
    pub ids: Vec<TokenId>,
    /// After each id the logits of all of them, `[pos, id]`.
    pub logits: Vec<Vec<f32>>,
}

/// What an engine's self-test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTest {
    /// The largest difference of a logit from that of the same model in exact f32 on the CPU, over every position and token; infinite
    /// when one is no number. Nothing where the CPU itself is tested.
    pub from_cpu: Option<f32>,
    /// The largest difference of a logit from a golden one; nothing where none is known.
    pub from_golden: Option<f32>,
    /// The largest difference that passes.
    pub tolerance: f32,
}

impl SelfTest {
    /// Whether the engine can be trusted.
    pub fn passed(self) -> bool {
        [self.from_cpu, self.from_golden].into_iter().flatten().all(|difference| difference <= self.tolerance)
    }

    /// The largest difference of all.
    pub fn max_difference(self) -> f32 {
        self.from_cpu.into_iter().chain(self.from_golden).fold(0.0, f32::max)
    }
}

/// What was found, as a part of a sentence.
impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |difference: f32| match difference {
            0.1.. => format!("{difference:.1}"),
            _ => format!("{difference:.0e}"),
        };
        let from =
            |difference: Option<f32>, whose| difference.map(|by| format!("{} from {whose}", number(by)));
        let parts = [from(self.from_cpu, "the CPU's"), from(self.from_golden, "known ones")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        write!(f, "logits differ by at most {} ({} is allowed)", parts.join(" and "), number(self.tolerance))
    }
}

impl Engine {
    /// Compares every logit of a few tokens with those of the same model in exact f32 on the CPU, and some with golden ones.
    ///
    /// # Errors
    /// What a run fails with; golden ids that the model does not have.
    pub async fn self_test(&self, cpu: Option<&Self>, golden: Option<&Golden>) -> Result<SelfTest, Error> {
        let ids = match golden {
            Some(golden) => golden.ids.clone(),
            None => self.bench_ids(N_TOKENS.min(self.info.n_ctx)),
        };
        let got = self.all_logits(&ids).await?;
        let from_cpu = match cpu {
            Some(cpu) => Some(largest_difference(got.iter().zip(&cpu.all_logits(&ids).await?))),
            None => None,
        };
        let from_golden = golden.map(|golden| {
            let asked = got.chunks(self.info.d_vocab).flat_map(|row| ids.iter().map(|&id| &row[id as usize]));
            largest_difference(asked.zip(golden.logits.iter().flatten()))
        });
        let is_fast = matches!(self.backend, Device::Cpu(cpu) if !cpu.precision.is_exact());
        Ok(SelfTest { from_cpu, from_golden, tolerance: if is_fast { FAST_TOLERANCE } else { TOLERANCE } })
    }

    async fn all_logits(&self, ids: &[TokenId]) -> Result<Vec<f32>, Error> {
        let plan = RunPlan { logits: LogitPositions::All, ..RunPlan::default() };
        Ok(self.run_plan(ids, &plan).await?.logits.data)
    }
}

/// Infinite where one is no number.
fn largest_difference<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> f32 {
    pairs.fold(0.0, |most: f32, (got, wanted)| match (got - wanted).abs() {
        difference if difference.is_finite() => most.max(difference),
        _ => f32::INFINITY,
    })
}
