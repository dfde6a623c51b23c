//! How fast the CPU's product of matrices is here, beside the most that the processor could do.

use std::hint::black_box;

use super::Engine;
use crate::backend::cpu::peak_work;
use crate::backend::{Backend, Device};
use crate::report::KernelSpeed;
use crate::tensor::HostTensor;

/// Rows of the product that is timed.
const N_ROWS: usize = 512;
/// Of so many tries the fastest counts: others were interrupted.
const N_TRIES: usize = 10;
/// Further tries of the peak while it is below what products reach: its loop then waits for the browser's compiler.
const N_MORE_TRIES: usize = 50;
/// A try goes on for so long, milliseconds: browsers' clocks are coarse.
const TRY_MS: f64 = 10.0;
/// Rounds of the peak's loop: some microseconds. A browser exchanges a program for its faster form between calls alone.
const PEAK_ROUNDS: usize = 2_000;

impl Engine {
    /// Times products, in about a fifth of a second; `now_ms` is a clock, milliseconds. Nothing on a graphics device.
    pub fn kernel_speed(&self, now_ms: impl Fn() -> f64) -> Option<KernelSpeed> {
        if !matches!(self.backend, Device::Cpu(_)) {
            return None;
        }
        let config = &self.model.config;
        let block = self.model.blocks.first()?;
        let (weights, n_out) = match &block.mlp {
            Some(mlp) => (&mlp.w_gate, config.d_mlp),
            None => (&block.w_q, config.n_heads * config.d_head),
        };
        let n_values = N_ROWS * config.d_model;
        let x = self.backend.vector(&HostTensor::new(vec![n_values], vec![0.5; n_values]));
        let product = || {
            black_box(self.backend.matmul(&x, weights));
            (n_values * n_out) as u64
        };
        let peak = || {
            let (n_macs, sum) = peak_work(PEAK_ROUNDS);
            black_box(sum);
            n_macs
        };
        let matmul_gmacs = (0..N_TRIES).map(|_| gmacs(&now_ms, product)).fold(0.0, f64::max);
        let mut peak_gmacs = (0..N_TRIES).map(|_| gmacs(&now_ms, peak)).fold(0.0, f64::max);
        for _ in 0..N_MORE_TRIES {
            if peak_gmacs >= matmul_gmacs {
                break;
            }
            peak_gmacs = peak_gmacs.max(gmacs(&now_ms, peak));
        }
        // Where a browser's compiler runs that loop below what products reach (Firefox's does), these are the most that was seen.
        peak_gmacs = peak_gmacs.max(matmul_gmacs);
        Some(KernelSpeed { peak_gmacs, matmul_gmacs, matmul_of_peak: matmul_gmacs / peak_gmacs })
    }
}

/// One try of some work, which tells its multiplications and additions: thousand millions of them a second.
fn gmacs(now_ms: &impl Fn() -> f64, work: impl Fn() -> u64) -> f64 {
    let (start, mut n_macs, mut elapsed_ms) = (now_ms(), 0, 0.0);
    while elapsed_ms < TRY_MS {
        n_macs += work();
        elapsed_ms = now_ms() - start;
    }
    n_macs as f64 / elapsed_ms / 1e6
}
