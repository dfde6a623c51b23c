//! Every kernel against the CPU's, on whatever adapter this machine has, natively and as wasm in a browser; without one they fail and
//! say so.

#[cfg(not(target_arch = "wasm32"))]
mod shaders;

#[cfg(not(target_arch = "wasm32"))]
use pollster::test as device_test;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as device_test, wasm_bindgen_test_configure};

use super::*;
use crate::backend::cpu::Cpu;
use crate::metrics::kl_nats;
use crate::tensor::quantized::QuantKind;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test_configure!(run_in_dedicated_worker);

const SHAPE: AttnShape =
    AttnShape { n_heads: 4, n_kv_heads: 2, d_head: 24, n_past: 0, n_tokens: 41, n_lanes: 1 };

const WANTED: Wanted = Wanted { software: true, broken: false, memory_bytes: None };

async fn gpu() -> WebGpu {
    WebGpu::open(WANTED)
        .await
        .expect("tests need a Vulkan, Metal or Direct3D adapter; `cargo xtask setup` installs a software one")
}

fn values(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn up(gpu: &WebGpu, values: &[f32]) -> GpuBuffer {
    gpu.vector(&HostTensor::new(vec![values.len()], values.to_vec()))
}

async fn down(gpu: &WebGpu, buffer: GpuBuffer) -> Vec<f32> {
    gpu.download_one(buffer).await.expect("the device works")
}

/// Fails where two results differ by more than a part of the largest value.
fn assert_close(what: &str, got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let finite = |v: &&f32| v.is_finite();
    let scale = wanted.iter().filter(finite).fold(1e-3f32, |most, value| most.max(value.abs()));
    for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let is_close = got == wanted || (got - wanted).abs() <= tolerance * scale;
        assert!(is_close, "{what}: value {index} is {got}, the CPU's is {wanted}");
    }
}

fn matrix(n_out: usize, n_in: usize, salt: usize) -> HostTensor {
    HostTensor::new(vec![n_out, n_in], values(n_out * n_in, salt))
}

/// Blocks with every code and some scales.
fn quantized(kind: QuantKind, n_out: usize, n_in: usize) -> QuantizedMatrix<'static> {
    let mut rows = Vec::new();
    for block in 0..n_out * n_in / 32 {
        let half = |value: f32| half::f16::from_f32(value).to_le_bytes();
        // Once a number that f16 has no normal form for.
        rows.extend(half(if block % 11 == 5 { -3e-5 } else { 0.01 + (block % 7) as f32 * 0.003 }));
        if kind == QuantKind::Q4_1 {
            rows.extend(half(-0.05 + (block % 5) as f32 * 0.01));
        }
        rows.extend((0..kind.code_bytes()).map(|i| ((i * 37 + block * 101) % 256) as u8));
    }
    QuantizedMatrix { kind, n_in, rows: rows.into() }
}

#[device_test]
async fn products_agree() {
    let gpu = gpu().await;
    for (n_rows, n_out, n_in) in
        [(1, 5, 3), (65, 64, 16), (64, 130, 96), (7, 300, 576), (9, 70, 52), (33, 20, 7), (300, 2200, 36)]
    {
        let (x, w) = (values(n_rows * n_in, 1), matrix(n_out, n_in, 2));
        let wanted = Cpu::default().matmul(&x, &Cpu::default().matrix(&w));
        let got = gpu.matmul(&up(&gpu, &x), &gpu.matrix(&w));
        assert_close("matmul", &down(&gpu, got).await, &wanted, 2e-6);
    }
    // Of a part that begins nowhere in particular.
    let (x, w) = (values(3 * 64 + 5, 1), matrix(70, 64, 2));
    let wanted = Cpu::default().matmul(&x[5..].to_vec(), &Cpu::default().matrix(&w));
    let got = gpu.matmul(&gpu.slice(&up(&gpu, &x), 5..3 * 64 + 5), &gpu.matrix(&w));
    assert_close("matmul of a part", &down(&gpu, got).await, &wanted, 2e-6);
    let kinds = [QuantKind::Q4_0, QuantKind::Q4_1, QuantKind::Q8_0];
    let shapes = [(66, 70), (3, 70), (8, 75), (300, 2200)];
    for (kind, (n_rows, n_out)) in kinds.into_iter().flat_map(|kind| shapes.map(|shape| (kind, shape))) {
        let (x, w) = (values(n_rows * 96, 1), quantized(kind, n_out, 96));
        let wanted = Cpu::default().matmul(&x, &Cpu::default().quantized_matrix(&w));
        let matrix = gpu.quantized_matrix(&w);
        assert_close(
            "quantised matmul",
            &down(&gpu, gpu.matmul(&up(&gpu, &x), &matrix)).await,
            &wanted,
            2e-6,
        );
        let ids = [0, 69, 13, 13];
        let wanted = Cpu::default().gather_rows(&Cpu::default().quantized_matrix(&w), &ids);
        assert_close("gather", &down(&gpu, gpu.gather_rows(&matrix, &ids)).await, &wanted, 1e-6);
    }
    // In 16 bits, to the same numbers as in 32.
    let in_16_bits: [fn(f32) -> f32; 2] =
        [|value| half::bf16::from_f32(value).to_f32(), |value| half::f16::from_f32(value).to_f32()];
    for (of, (n_rows, n_out)) in in_16_bits.into_iter().flat_map(|of| shapes.map(|shape| (of, shape))) {
        let (x, mut w) = (values(n_rows * 96, 1), matrix(n_out, 96, 2));
        w.data.iter_mut().for_each(|value| *value = of(*value));
        let on_device = gpu.matrix(&w);
        let product = down(&gpu, gpu.matmul(&up(&gpu, &x), &on_device)).await;
        assert_eq!(on_device.size_bytes(), n_out * 96 * 2);
        let rows = down(&gpu, gpu.gather_rows(&on_device, &[7, 0, n_out as u32 - 1])).await;
        assert_eq!(rows, Cpu::default().gather_rows(&Cpu::default().matrix(&w), &[7, 0, n_out as u32 - 1]));
        // One number that needs all bits.
        w.data[96 * (n_out - 1)] = 0.1;
        let in_32_bits = gpu.matrix(&w);
        assert_eq!(in_32_bits.size_bytes(), n_out * 96 * 4);
        let in_32_bits = down(&gpu, gpu.matmul(&up(&gpu, &x), &in_32_bits)).await;
        for (got, wanted) in product.chunks(n_out).zip(in_32_bits.chunks(n_out)) {
            assert_eq!(got[..n_out - 1], wanted[..n_out - 1]);
        }
    }
    let w = matrix(9, 70, 5);
    let got = gpu.gather_rows(&gpu.matrix(&w), &[8, 0, 3]);
    assert_eq!(down(&gpu, got).await, Cpu::default().gather_rows(&Cpu::default().matrix(&w), &[8, 0, 3]));
}

#[device_test]
async fn rows_and_values_agree() {
    let gpu = gpu().await;
    let (x, y, gain) = (values(7 * 100, 1), values(7 * 100, 2), values(100, 3));
    let (gx, gy) = (up(&gpu, &x), up(&gpu, &y));
    let check = async |what: &str, got: GpuBuffer, wanted: Vec<f32>, tolerance: f32| {
        assert_close(what, &down(&gpu, got).await, &wanted, tolerance);
    };
    check(
        "rms_norm",
        gpu.rms_norm(&gx, &up(&gpu, &gain), 1e-5),
        Cpu::default().rms_norm(&x, &gain, 1e-5),
        2e-6,
    )
    .await;
    check("add", gpu.add(&gx, &gy), Cpu::default().add(&x, &y), 0.0).await;
    check("subtract", gpu.subtract(&gx, &gy), Cpu::default().subtract(&x, &y), 0.0).await;
    let wide: Vec<f32> = x.iter().map(|x| x * 200.0).collect();
    check("swiglu", gpu.swiglu(&gx, &gy), Cpu::default().swiglu(&x, &y), 2e-6).await;
    check(
        "swiglu of large values",
        gpu.swiglu(&up(&gpu, &wide), &gy),
        Cpu::default().swiglu(&wide, &y),
        2e-6,
    )
    .await;
    for n_past in [0, 300] {
        // Seven rows of one lane, or one row each of seven.
        for positions in [n_past..n_past + 7, n_past..n_past + 1] {
            let wanted = Cpu::default().rope(&x, 5, 20, 10_000.0, positions.clone());
            check("rope", gpu.rope(&gx, 5, 20, 10_000.0, positions), wanted, 1e-6).await;
        }
    }
    let wanted = Cpu::default().mean_of_rows(&x, 100, 2..6, 10..37);
    check("mean_of_rows", gpu.mean_of_rows(&gx, 100, 2..6, 10..37), wanted, 1e-6).await;
    check("slice", gpu.slice(&gx, 13..77), x[13..77].to_vec(), 0.0).await;
    let parts = vec![gpu.slice(&gx, 5..9), gy.clone(), gpu.slice(&gx, 0..1)];
    let wanted = [&x[5..9], &y, &x[..1]].concat();
    check("concat", gpu.concat(parts), wanted, 0.0).await;
    check("append", gpu.append(gx.clone(), &gpu.slice(&gy, 3..8)), [&x[..], &y[3..8]].concat(), 0.0).await;
    // Of a part that begins in the middle of its allocation.
    let (part, wanted) = (gpu.slice(&gx, 100..300), x[100..300].to_vec());
    check(
        "rms_norm of a part",
        gpu.rms_norm(&part, &up(&gpu, &gain), 1e-5),
        Cpu::default().rms_norm(&wanted, &gain, 1e-5),
        2e-6,
    )
    .await;
}

#[device_test]
async fn attention_agrees_for_every_block_of_queries() {
    let gpu = gpu().await;
    let (q, k, v) = (values(41 * 96, 1), values(41 * 48, 2), values(41 * 48, 3));
    let targets = TargetKeys((0..41).map(|query| (0..query).step_by(3).collect()).collect());
    for n_past in [0, 11] {
        let shape = AttnShape { n_past, ..SHAPE };
        for queries in [n_past..41, n_past..n_past + 1, 20..38] {
            let q = q[n_past * 96..].to_vec();
            let (gq, gk, gv) = (up(&gpu, &q), up(&gpu, &k), up(&gpu, &v));
            let scores = Cpu::default().attn_scores(&q, &k, shape, queries.clone());
            let g_scores = gpu.attn_scores(&gq, &gk, shape, queries.clone());
            assert_close("attn_scores", &down(&gpu, g_scores.clone()).await, &scores, 2e-6);
            let pattern = Cpu::default().softmax(&scores, shape, queries.clone());
            let g_pattern = gpu.softmax(&g_scores, shape, queries.clone());
            assert_close("softmax", &down(&gpu, g_pattern.clone()).await, &pattern, 4e-6);
            let z = Cpu::default().mix_values(&pattern, &v, shape, queries.clone());
            let g_z = gpu.mix_values(&g_pattern, &gv, shape, queries.clone());
            assert_close("mix_values", &down(&gpu, g_z).await, &z, 4e-6);
            let mass = Cpu::default().target_mass(&pattern, shape, queries.clone(), &targets);
            let g_mass = gpu.target_mass(&g_pattern, shape, queries.clone(), &targets);
            assert_close("target_mass", &down(&gpu, g_mass).await, &mass, 4e-6);
            let entropy = Cpu::default().entropy_sum(&pattern, shape, queries.clone());
            let g_entropy = gpu.entropy_sum(&g_pattern, shape, queries.clone());
            assert_close("entropy_sum", &down(&gpu, g_entropy).await, &entropy, 4e-6);
            let last = queries.end - 1;
            let keys = Cpu::default().argmax_keys(&pattern, shape, queries.clone(), last);
            let g_keys = gpu.argmax_keys(&up(&gpu, &pattern), shape, queries.clone(), last);
            assert_eq!(down(&gpu, g_keys).await, keys);
        }
    }
    let even = up(&gpu, &[0.0, 0.5, 0.5, 0.25, 0.25, 0.5]);
    let shape = AttnShape { n_heads: 1, n_kv_heads: 1, d_head: 2, n_past: 0, n_tokens: 3, n_lanes: 1 };
    assert_eq!(down(&gpu, gpu.argmax_keys(&even, shape, 1..3, 1)).await, [1.0], "the first among equals");
}

#[device_test]
async fn metrics_read_off_logits_agree() {
    let gpu = gpu().await;
    let d_vocab = 1003;
    let logits: Vec<f32> = values(5 * d_vocab, 1).iter().map(|x| 12.0 * x).collect();
    // Once far from the clean distributions, once so near that a difference of logarithms would be rounding alone.
    let far: Vec<f32> = values(3 * d_vocab, 2).iter().map(|x| 9.0 * x).collect();
    let changes = values(3 * d_vocab, 3);
    let of_row = |(clean, row): (usize, usize)| {
        near_row(&logits[row * d_vocab..(row + 1) * d_vocab], &changes[clean * d_vocab..])
    };
    let near: Vec<f32> = [2, 0, 4].into_iter().enumerate().flat_map(of_row).collect();
    let (tokens, rows) = ([0, 1002, 17, 500, 3], [1, 2, 0, 1, 2]);
    let check = async |what: &str, read: LogitRead<Vec<f32>>, tolerance: f32| {
        let wanted = Cpu::default().read_logits(&logits, d_vocab, &read);
        let clean = match read {
            LogitRead::Kl { clean, .. } => up(&gpu, clean),
            _ => up(&gpu, &[0.0]),
        };
        let got = gpu.read_logits(&up(&gpu, &logits), d_vocab, &read.with(|_| &clean));
        assert_close(what, &down(&gpu, got).await, &wanted, tolerance);
    };
    check("logprob", LogitRead::Logprob(&tokens), 1e-6).await;
    check("logit", LogitRead::Logit(&tokens), 0.0).await;
    check("logit_diff", LogitRead::LogitDiff(&tokens, 9), 0.0).await;
    check("kl", LogitRead::Kl { clean: &far, rows: &rows }, 1e-5).await;
    let of_near = LogitRead::Kl { clean: &near, rows: &[1, 1, 0, 0, 2] };
    check("kl of near and far rows", of_near, 1e-5).await;
    let kl = async |row: usize, clean: usize| {
        let logits = logits[row * d_vocab..(row + 1) * d_vocab].to_vec();
        let near = up(&gpu, &near);
        let read = LogitRead::Kl { clean: &near, rows: &[clean] };
        let got = down(&gpu, gpu.read_logits(&up(&gpu, &logits), d_vocab, &read)).await[0];
        let near = &near_row(&logits, &changes[clean * d_vocab..]);
        (got, kl_nats(near, &logits))
    };
    for (row, clean) in [(2, 0), (0, 1), (4, 2)] {
        let (got, wanted) = kl(row, clean).await;
        assert!(wanted < 1e-4 && (got - wanted).abs() < 1e-2 * wanted, "{got} against {wanted}");
    }
}

fn near_row(logits: &[f32], changes: &[f32]) -> Vec<f32> {
    logits.iter().zip(changes).map(|(x, change)| x + 1e-2 * change).collect()
}

#[device_test]
async fn lanes_agree_with_runs_alone() {
    let gpu = gpu().await;
    for (n_past, queries) in [(0, 0..41), (11, 11..41), (11, 20..38)] {
        let shape = AttnShape { n_past, n_lanes: 3, ..SHAPE };
        let (n_q, n_kv) = (3 * shape.n_new() * 96, 3 * 41 * 48);
        let (q, k, v) = (values(n_q, 1), values(n_kv, 2), values(n_kv, 3));
        let (gq, gk, gv) = (up(&gpu, &q), up(&gpu, &k), up(&gpu, &v));
        let scores = gpu.attn_scores(&gq, &gk, shape, queries.clone());
        let pattern = gpu.softmax(&scores, shape, queries.clone());
        let z = down(&gpu, gpu.mix_values(&pattern, &gv, shape, queries.clone())).await;
        let alone = AttnShape { n_lanes: 1, ..shape };
        let of_lane = |lane: usize| {
            let of = |x: &[f32]| x[lane * x.len() / 3..(lane + 1) * x.len() / 3].to_vec();
            let scores = Cpu::default().attn_scores(&of(&q), &of(&k), alone, queries.clone());
            let pattern = Cpu::default().softmax(&scores, alone, queries.clone());
            Cpu::default().mix_values(&pattern, &of(&v), alone, queries.clone())
        };
        let wanted: Vec<f32> = (0..3).flat_map(of_lane).collect();
        assert_close("lanes", &z, &wanted, 4e-6);
        let scores = Cpu::default().attn_scores(&q, &k, shape, queries.clone());
        let pattern = Cpu::default().softmax(&scores, shape, queries.clone());
        assert_eq!(
            Cpu::default().mix_values(&pattern, &v, shape, queries),
            wanted,
            "the CPU's lanes are runs"
        );
    }
}

#[device_test]
async fn edits_agree_and_change_no_bit_at_neutral_settings() {
    let gpu = gpu().await;
    let x = values(9 * 30, 1);
    let rows = [1, 4, 7];
    let direction: Vec<f32> = values(12, 5);
    let edits = [
        RowEdit::Scale(0.0),
        RowEdit::Scale(1.0),
        RowEdit::Scale(-1.5),
        RowEdit::Replace(values(36, 2)),
        RowEdit::Repeat(values(12, 3)),
        RowEdit::ProjectOut { direction: direction.clone(), strength: 1.0 },
        RowEdit::ProjectOut { direction, strength: 0.0 },
    ];
    for edit in &edits {
        let wanted = Cpu::default().edit_rows(x.clone(), 30, &rows, 5..17, edit);
        let on_device = edit.with(|values| up(&gpu, values));
        let got = down(&gpu, gpu.edit_rows(up(&gpu, &x), 30, &rows, 5..17, &on_device)).await;
        assert_close("edit_rows", &got, &wanted, 1e-6);
        if wanted == x {
            assert_eq!(got, x, "{edit:?} changes nothing");
        }
        // What somebody else holds stays as it is.
        let shared = up(&gpu, &x);
        drop(gpu.edit_rows(shared.clone(), 30, &rows, 5..17, &on_device));
        assert_eq!(down(&gpu, shared).await, x);
    }
    let shape = AttnShape { n_past: 2, ..SHAPE };
    let queries = 5..30;
    let weights: Vec<f32> = values(4 * 25 * 41, 4).iter().map(|w| w.abs()).collect();
    let whole_pattern = values(41 * 41, 6);
    let targets =
        [PatternTarget::Identity, PatternTarget::Uniform, PatternTarget::First, PatternTarget::Previous];
    let towards = targets
        .into_iter()
        .flat_map(|target| [0.0, 0.4, 1.0].map(|strength| AttentionEdit::Towards(target, strength)));
    let others = [
        AttentionEdit::Divide(1.0),
        AttentionEdit::Divide(0.3),
        AttentionEdit::Mask(vec![(6, 2), (6, 3), (29, 29), (40, 1)]),
        AttentionEdit::Mask(Vec::new()),
        AttentionEdit::Replace(whole_pattern),
    ];
    for edit in towards.chain(others) {
        for positions in [None, Some(&[6, 12, 35][..]), Some(&[1][..])] {
            let wanted =
                Cpu::default().edit_attention(weights.clone(), shape, queries.clone(), 2, &edit, positions);
            let on_device = up(&gpu, &weights);
            let got = gpu.edit_attention(on_device, shape, queries.clone(), 2, &edit, positions);
            let got = down(&gpu, got).await;
            assert_close("edit_attention", &got, &wanted, 1e-6);
            if wanted == weights {
                assert_eq!(got, weights, "{edit:?} changes nothing");
            }
        }
    }
}

#[device_test]
async fn a_masked_key_gets_nothing_and_its_row_sums_to_one() {
    let gpu = gpu().await;
    let shape = AttnShape { n_heads: 1, n_kv_heads: 1, d_head: 2, n_past: 0, n_tokens: 3, n_lanes: 1 };
    let scores = up(&gpu, &[0.5, 0.0, 0.0, 0.5, -1.0, 0.0, 0.1, 0.2, 0.3]);
    let masked = gpu.edit_attention(scores, shape, 0..3, 0, &AttentionEdit::Mask(vec![(2, 1)]), None);
    let pattern = down(&gpu, gpu.softmax(&masked, shape, 0..3)).await;
    assert_eq!(pattern[7], 0.0);
    assert!((pattern[6..].iter().sum::<f32>() - 1.0).abs() < 1e-6);
}

#[device_test]
async fn memory_is_used_again_and_what_is_shared_is_not() {
    let gpu = gpu().await;
    let x = up(&gpu, &values(4096, 1));
    let mut sum = gpu.add(&x, &x);
    for _ in 0..100 {
        sum = gpu.add(&sum, &x);
    }
    let held = gpu.allocated_bytes();
    assert!(held <= 4 * 4096 * 4, "{held} bytes for three buffers of 16 KiB");
    let wanted: Vec<f32> = values(4096, 1).iter().map(|x| (1..102).fold(*x, |sum, _| sum + x)).collect();
    assert_eq!(down(&gpu, sum).await, wanted, "also across several batches of commands");
}

#[device_test]
async fn a_lost_device_says_so() {
    let gpu = gpu().await;
    let x = up(&gpu, &[1.0, 2.0]);
    gpu.lose();
    let error = gpu.download_one(gpu.add(&x, &x)).await.expect_err("the device is gone");
    assert!(matches!(error, DeviceError::Lost(_)), "{error}");
}

#[device_test]
async fn a_wrong_factor_in_one_kernel_is_seen() {
    let broken = WebGpu::open(Wanted { broken: true, ..WANTED }).await.expect("opens");
    let (x, y) = (values(64, 1), values(64, 2));
    let got = down(&broken, broken.swiglu(&up(&broken, &x), &up(&broken, &y))).await;
    let wanted = Cpu::default().swiglu(&x, &y);
    let worst = got.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 1e-3, "{worst}");
}
