//! The training loop, the same for every model.

use std::time::Instant;

use candle_core::{D, Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use serde_json::{Value, json};

use crate::net::Net;

/// One training row of `n` tokens, BOS included: the model reads `ids[..n]`, is asked for `ids[1..]`, and its loss on
/// each is weighed by `scored`.
pub struct Row {
    /// `n + 1` ids.
    pub ids: Vec<u32>,
    /// `n` weights, 0 where the target is unpredictable by construction.
    pub scored: Vec<f32>,
}

/// What a model is trained on.
pub trait Rows {
    /// A fresh row of `n` tokens.
    fn row(&mut self, n: usize) -> Row;
}

/// How long, how fast and on how much at a time.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Optimiser steps.
    pub steps: usize,
    /// Tokens a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Tokens in a row, BOS included, of the first steps. Attention that starts out even gives each of their tokens a
    /// larger share, so heads find their targets sooner; the last steps stretch what was found.
    pub short_row: usize,
    /// Tokens in a row of the last steps.
    pub long_row: usize,
    /// Share of the steps with short rows.
    pub short_steps: f64,
}

impl Schedule {
    /// What a card says of it.
    pub fn to_json(self, seed: u64, initialization: &str, last_loss_nats: f64) -> Value {
        json!({
            "steps": self.steps, "tokens_a_step": self.batch, "row_tokens": [self.short_row, self.long_row],
            "share_of_steps_with_short_rows": self.short_steps, "peak_lr": self.lr, "seed": seed,
            "initialization": initialization,
            "optimizer": "AdamW, betas 0.9 and 0.98, weight decay 0.01, linear warm-up of 100 steps, cosine decay",
            "mean_training_loss_of_last_50_steps_nats": last_loss_nats,
        })
    }

    fn learning_rate(self, step: usize) -> f64 {
        let warmup = ((step + 1) as f64 / 100.0).min(1.0);
        let progress = step as f64 / self.steps as f64;
        self.lr * warmup * (0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
    }

    fn row_tokens(self, step: usize) -> usize {
        if (step as f64) < self.short_steps * self.steps as f64 { self.short_row } else { self.long_row }
    }
}

/// Trains `net` in place, calls `watch` every 500 steps, and returns the mean loss of the last 50, nats.
pub fn train(
    schedule: Schedule,
    net: &Net,
    rows: &mut dyn Rows,
    watch: &dyn Fn(&Net) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let params = ParamsAdamW { lr: 0.0, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.01 };
    let mut optimizer = AdamW::new(net.vars(), params)?;
    let start = Instant::now();
    let mut losses = Vec::new();
    for step in 0..schedule.steps {
        optimizer.set_learning_rate(schedule.learning_rate(step));
        let n = schedule.row_tokens(step);
        let loss = batch_loss(net, rows, schedule.batch / n, n)?;
        optimizer.backward_step(&loss)?;
        net.restore_zeros()?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
        if (step + 1) % 50 == 0 || step + 1 == schedule.steps {
            let per_step = start.elapsed().as_secs_f64() / (step + 1) as f64;
            let left = per_step * (schedule.steps - step - 1) as f64;
            eprintln!(
                "step {}/{}: loss {:.3} nats, {:.0} ms a step, {left:.0} s left",
                step + 1,
                schedule.steps,
                recent_mean(&losses),
                per_step * 1000.0
            );
        }
        if (step + 1) % 500 == 0 {
            watch(net)?;
        }
    }
    Ok(recent_mean(&losses))
}

fn recent_mean(losses: &[f64]) -> f64 {
    let recent = &losses[losses.len().saturating_sub(50)..];
    recent.iter().sum::<f64>() / recent.len() as f64
}

/// Mean loss over the scored tokens of a fresh batch of rows of `n` tokens, nats.
fn batch_loss(net: &Net, source: &mut dyn Rows, n_rows: usize, n: usize) -> anyhow::Result<Tensor> {
    let rows: Vec<_> = (0..n_rows).map(|_| source.row(n)).collect();
    let gather = |offset: usize| -> Vec<u32> {
        rows.iter().flat_map(|row| row.ids[offset..offset + n].iter().copied()).collect()
    };
    let ids = Tensor::from_vec(gather(0), (n_rows, n), &Device::Cpu)?;
    let targets = Tensor::from_vec(gather(1), (n_rows * n, 1), &Device::Cpu)?;
    let scored: Vec<f32> = rows.iter().flat_map(|row| row.scored.iter().copied()).collect();
    let n_scored: f32 = scored.iter().sum();
    let scored = Tensor::from_vec(scored, n_rows * n, &Device::Cpu)?;
    let logits = net.logits(&ids)?.flatten(0, 1)?;
    let logprobs = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let nll = logprobs.gather(&targets, 1)?.squeeze(1)?.neg()?;
    Ok(((nll * scored)?.sum_all()? / f64::from(n_scored))?)
}
