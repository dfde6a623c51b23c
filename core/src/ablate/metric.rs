//! The number in which an effect is measured, read off the logits at some positions.

use serde::{Deserialize, Serialize};

use super::AblateError;
use crate::backend::{Backend, LogitRead};
use crate::hooks::{PlanError, check_vocabulary};
use crate::ids::TokenId;
use crate::metrics::top_indices;
use crate::model::ModelConfig;

/// Most values of clean distributions held for a KL at several positions: 128 MiB of f32.
const MAX_KL_VALUES: usize = 1 << 25;

/// Which number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Log-probability of a token, nats.
    #[default]
    Logprob,
    /// Logit of a token.
    Logit,
    /// Logit of a token minus logit of another.
    LogitDiff,
    /// KL(clean ‖ edited) of the next token's distribution, nats; 0 for the clean run.
    Kl,
    /// Loss of the prompt's own tokens, nats.
    Loss,
}

impl Metric {
    /// Every metric, the usual one first.
    pub const ALL: [Self; 5] = [Self::Logprob, Self::Logit, Self::LogitDiff, Self::Kl, Self::Loss];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logprob => "logprob",
            Self::Logit => "logit",
            Self::LogitDiff => "logit_diff",
            Self::Kl => "kl",
            Self::Loss => "loss",
        }
    }
}

/// A metric with its tokens and positions; averaged over the positions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct MetricSpec {
    /// Which number.
    #[serde(default)]
    pub metric: Metric,
    /// The token of `logprob`, `logit` and `logit_diff`; the clean run's most probable one when absent.
    #[serde(default)]
    pub token: Option<TokenId>,
    /// The other token of `logit_diff`; the clean run's most probable other one when absent.
    #[serde(default)]
    pub versus: Option<TokenId>,
    /// Where: for `loss` the positions of the tokens to be foretold (all but the first when absent), for the others the
    /// positions whose next token is looked at (the last when absent).
    #[serde(default)]
    pub positions: Option<Vec<usize>>,
}

impl MetricSpec {
    /// Rows of logits that it reads, in a prompt of `n_tokens`; fails unless they exist.
    pub(crate) fn rows(&self, n_tokens: usize, config: &ModelConfig) -> Result<Vec<usize>, AblateError> {
        let tokens: Vec<TokenId> = self.token.iter().chain(&self.versus).copied().collect();
        check_vocabulary(&tokens, config)?;
        if self.metric == Metric::LogitDiff && self.token.is_some() && self.token == self.versus {
            return Err(AblateError::SameToken);
        }
        let positions = match (&self.positions, self.metric) {
            (Some(positions), _) => positions.clone(),
            (None, Metric::Loss) => (1..n_tokens).collect(),
            (None, _) => vec![n_tokens - 1],
        };
        if let Some(&position) = positions.iter().find(|&&position| position >= n_tokens) {
            return Err(PlanError::UnknownPosition { position, n_tokens }.into());
        }
        let most = MAX_KL_VALUES / config.d_vocab;
        match self.metric {
            Metric::Loss if positions.is_empty() || positions.contains(&0) => Err(AblateError::NoTarget),
            _ if positions.is_empty() => Err(AblateError::NoPositions),
            Metric::Loss => Ok(positions.into_iter().map(|position| position - 1).collect()),
            Metric::Kl if positions.len() > most => {
                Err(AblateError::TooManyPositions { n_positions: positions.len(), most })
            }
            _ => Ok(positions),
        }
    }
}

/// A metric that knows its tokens.
#[derive(Clone, Debug)]
pub(crate) struct Scorer {
    metric: Metric,
    /// The token of each row.
    tokens: Vec<TokenId>,
    versus: TokenId,
}

impl Scorer {
    /// Of a prompt's rows and the clean run's logits at the last of them.
    pub fn new(spec: &MetricSpec, ids: &[TokenId], rows: &[usize], last_clean: &[f32]) -> Self {
        let best = top_indices(last_clean, 2).into_iter().map(|index| index as TokenId);
        let best: Vec<TokenId> = best.collect();
        // A difference of a token with itself would be 0 whatever is edited.
        let taken = spec.versus.filter(|_| spec.metric == Metric::LogitDiff);
        let most_probable = || best.iter().copied().find(|&id| Some(id) != taken).unwrap_or(best[0]);
        let token = spec.token.unwrap_or_else(most_probable);
        let other = || best.iter().copied().find(|&id| id != token).unwrap_or(token);
        let tokens = match spec.metric {
            Metric::Loss => rows.iter().map(|row| ids[row + 1]).collect(),
            _ => vec![token; rows.len()],
        };
        let versus = spec.versus.unwrap_or_else(other);
        Self { metric: spec.metric, tokens, versus }
    }

    /// Whether values compare with the clean run's distributions.
    pub fn is_kl(&self) -> bool {
        self.metric == Metric::Kl
    }

    /// Values at some of the metric's rows, by number, from logits of each, `[row]`; see [`Self::value`]. `clean` are the clean
    /// run's logits at every row of the metric, where it compares with them.
    pub fn read<B: Backend>(
        &self,
        backend: &B,
        logits: &B::Buffer,
        d_vocab: usize,
        rows: &[usize],
        clean: Option<&B::Buffer>,
    ) -> B::Buffer {
        let tokens: Vec<TokenId> = rows.iter().map(|&row| self.tokens[row]).collect();
        let read = match (self.metric, clean) {
            (Metric::Kl, Some(clean)) => LogitRead::Kl { clean, rows },
            (Metric::Kl, None) => unreachable!("clean logits are kept for a KL"),
            (Metric::Logprob | Metric::Loss, _) => LogitRead::Logprob(&tokens),
            (Metric::Logit, _) => LogitRead::Logit(&tokens),
            (Metric::LogitDiff, _) => LogitRead::LogitDiff(&tokens, self.versus),
        };
        backend.read_logits(logits, d_vocab, &read)
    }

    /// The metric's value, from what was read of a row.
    pub fn value(&self, read: f32) -> f32 {
        if self.metric == Metric::Loss { -read } else { read }
    }

    /// The token, where the metric has one.
    pub fn token(&self) -> Option<TokenId> {
        let has_one = matches!(self.metric, Metric::Logprob | Metric::Logit | Metric::LogitDiff);
        has_one.then(|| self.tokens[0])
    }

    /// The token that it is compared with, where there is one.
    pub fn versus(&self) -> Option<TokenId> {
        (self.metric == Metric::LogitDiff).then_some(self.versus)
    }
}

/// Mean, summed in f64.
pub(crate) fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64) as f32
}
