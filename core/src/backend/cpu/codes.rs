//! Products in whole numbers: what is quantised stays so, and what meets it is rounded to sixteen bits.
//!
//! Each row of `x` has a scale for every block of [`QUANT_BLOCK`] inputs, the block's largest size over 32767. A block's codes,
//! those of the weights as their file has them, are multiplied and summed as whole numbers, which is exact; the sum then takes both
//! scales as f32. Only the rounding of `x` is lost, and two inputs are multiplied where f32 multiplies one.

use super::kernel::{PANEL, ROWS, Sums, add_products};
use super::lanes::{Lanes, N_LANES};
use super::quantized::QuantizedPanels;
use crate::tensor::quantized::QUANT_BLOCK;

/// Pairs of inputs in a block: input `i` goes with input `i + PAIRS`, as a byte of two codes has them.
pub const PAIRS: usize = QUANT_BLOCK / 2;
/// Codes of a pair of inputs for every output of a panel, `[output][2]`.
pub type PairCodes = [i16; 2 * PANEL];
/// Blocks of a panel that are taken at once: 18 KiB of codes, as of f32.
const CHUNK: usize = 18;
/// The largest code of `x`.
const MAX_CODE: f32 = 32767.0;
/// A block of values that are all smaller counts as zeros: the inverse of its scale would be infinite.
const SMALLEST: f32 = 1e-30;

/// Rows of `x` in blocks of `N`, as codes.
struct RowCodes<const N: usize> {
    n_blocks: usize,
    /// `[row block][pair][N]`; the low half of a number is the pair's first input, the high half its second.
    pairs: Vec<[i32; N]>,
    /// `[row block][block][N]`.
    scales: Vec<[f32; N]>,
    /// What the codes of a block stand for, summed, `[row block][block][N]`: what a block's minimum is multiplied with.
    sums: Vec<[f32; N]>,
}

impl<const N: usize> RowCodes<N> {
    /// Rounds rows of `n_in` values, whole blocks of them; rows missing in the last block of rows are 0.
    fn round(rows: &[f32], n_in: usize) -> Self {
        let n_blocks = n_in / QUANT_BLOCK;
        let n_row_blocks = (rows.len() / n_in).div_ceil(N);
        let mut pairs = vec![[0; N]; n_row_blocks * n_blocks * PAIRS];
        let mut scales = vec![[0.0; N]; n_row_blocks * n_blocks];
        let mut sums = vec![[0.0; N]; n_row_blocks * n_blocks];
        for (row, x) in rows.chunks_exact(n_in).enumerate() {
            let first = row / N * n_blocks;
            for (slot, x) in (first..).zip(x.as_chunks::<QUANT_BLOCK>().0) {
                let pairs = &mut pairs[slot * PAIRS..][..PAIRS];
                let (scale, sum) = round_block(x, |pair, codes| pairs[pair][row % N] = codes);
                scales[slot][row % N] = scale;
                sums[slot][row % N] = sum;
            }
        }
        Self { n_blocks, pairs, scales, sums }
    }
}

/// Rounds a block's values and hands on each pair of codes; gives their scale and the sum of what they stand for.
#[inline(always)]
fn round_block(x: &[f32; QUANT_BLOCK], mut hand_on: impl FnMut(usize, i32)) -> (f32, f32) {
    // Added, it leaves a whole number in a value's lowest bits: 1.5 · 2^23.
    let round = Lanes::splat(12_582_912.0);
    let zero = Lanes::splat(0.0);
    let chunks = x.as_chunks::<N_LANES>().0;
    let largest = chunks.iter().map(Lanes::load);
    let largest = largest.fold(zero, |largest, values| largest.larger(values).larger(zero - values));
    let largest = largest.values().into_iter().fold(0.0, f32::max);
    let (inverse, scale) =
        if largest < SMALLEST { (0.0, 0.0) } else { (MAX_CODE / largest, largest / MAX_CODE) };
    let mut sum = zero;
    let (first, second) = chunks.split_at(PAIRS / N_LANES);
    for (part, (first, second)) in first.iter().zip(second).enumerate() {
        let [first, second] =
            [first, second].map(|values| Lanes::load(values) * Lanes::splat(inverse) + round);
        // Whole numbers of so few bits are summed exactly.
        sum = sum + (first - round) + (second - round);
        let codes = first.bits().low_halves(second.bits()).values();
        for (lane, codes) in codes.into_iter().enumerate() {
            hand_on(part * N_LANES + lane, codes);
        }
    }
    let sum = sum.values().iter().sum::<f32>() * scale;
    // A value that is no number, or infinite, has no code: the block's products are no numbers either.
    (if sum.is_finite() { scale } else { f32::NAN }, sum)
}

/// `x Wᵀ` for all rows of `x`, `[n_rows, n_in]` to `[n_rows, n_out]`. A row's results do not depend on the others.
pub fn matmul(x: &[f32], weights: &QuantizedPanels) -> Vec<f32> {
    let n_in = weights.n_in();
    let n_rows = x.len() / n_in;
    assert_eq!(n_rows * n_in, x.len(), "{} values are no rows of {n_in}", x.len());
    match n_rows {
        1 => multiply(&RowCodes::<1>::round(x, n_in), 1, weights),
        _ => multiply(&RowCodes::<ROWS>::round(x, n_in), n_rows, weights),
    }
}

fn multiply<const N: usize>(x: &RowCodes<N>, n_rows: usize, weights: &QuantizedPanels) -> Vec<f32> {
    let (n_blocks, n_out) = (x.n_blocks, weights.n_out());
    let mut out = vec![0.0; n_rows * n_out];
    let mut sums: Vec<Sums<N>> = vec![[[0.0; PANEL]; N]; n_rows.div_ceil(N)];
    let mut room = vec![[0; 2 * PANEL]; CHUNK.min(n_blocks) * PAIRS];
    for panel in 0..n_out.div_ceil(PANEL) {
        sums.fill([[0.0; PANEL]; N]);
        if let Some(minimums) = weights.minimums(panel) {
            for (x, sums) in x.sums.chunks_exact(n_blocks).zip(&mut sums) {
                add_products(x, minimums, sums);
            }
        }
        for first in (0..n_blocks).step_by(CHUNK) {
            let blocks = first..(first + CHUNK).min(n_blocks);
            let codes = &mut room[..blocks.len() * PAIRS];
            weights.unpack_codes(panel, blocks.start, codes);
            let scales = &weights.scales(panel)[blocks.clone()];
            for (row_block, sums) in sums.iter_mut().enumerate() {
                let first = row_block * n_blocks;
                let x_pairs = &x.pairs[(first + blocks.start) * PAIRS..(first + blocks.end) * PAIRS];
                let x_scales = &x.scales[first + blocks.start..first + blocks.end];
                add_code_products(x_pairs, x_scales, codes, scales, sums);
            }
        }
        let n_cols = PANEL.min(n_out - panel * PANEL);
        for (out, sums) in out.chunks_exact_mut(n_out).zip(sums.as_flattened()) {
            out[panel * PANEL..][..n_cols].copy_from_slice(&sums[..n_cols]);
        }
    }
    out
}

/// Adds the products of `N` rows with a panel over some blocks of inputs: `sums[r, o] += Σ_block x_scale[r] scale[o] Σ_i x[i, r]
/// w[i, o]`.
fn add_code_products<const N: usize>(
    x: &[[i32; N]],
    x_scales: &[[f32; N]],
    codes: &[PairCodes],
    scales: &[[f32; PANEL]],
    sums: &mut Sums<N>,
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { add_code_products_avx2(x, x_scales, codes, scales, sums) };
    }
    add_blocks(x, x_scales, codes, scales, sums, arch::block_products);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_code_products_avx2<const N: usize>(
    x: &[[i32; N]],
    x_scales: &[[f32; N]],
    codes: &[PairCodes],
    scales: &[[f32; PANEL]],
    sums: &mut Sums<N>,
) {
    add_blocks(x, x_scales, codes, scales, sums, |x, codes| avx2::block_products(x, codes));
}

#[inline(always)]
fn add_blocks<const N: usize>(
    x: &[[i32; N]],
    x_scales: &[[f32; N]],
    codes: &[PairCodes],
    scales: &[[f32; PANEL]],
    sums: &mut Sums<N>,
    block_products: impl Fn(&[[i32; N]; PAIRS], &[PairCodes; PAIRS]) -> Products<N>,
) {
    let blocks = x.as_chunks::<PAIRS>().0.iter().zip(codes.as_chunks::<PAIRS>().0);
    for ((x, codes), (x_scales, scales)) in blocks.zip(x_scales.iter().zip(scales)) {
        let products = block_products(x, codes);
        let scales = scales.as_chunks::<N_LANES>().0;
        for ((sums, products), x_scale) in sums.iter_mut().zip(products).zip(x_scales) {
            let sums = sums.as_chunks_mut::<N_LANES>().0;
            for ((sums, products), scales) in sums.iter_mut().zip(products).zip(scales) {
                let scale = Lanes::load(scales) * Lanes::splat(*x_scale);
                (Lanes::load(sums) + products * scale).store(sums);
            }
        }
    }
}

/// A block's products of codes, summed over its inputs: whole numbers below 2^31, rounded to f32.
type Products<const N: usize> = [[Lanes; PANEL / N_LANES]; N];

/// The reference.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod arch {
    use super::{Lanes, N_LANES, PAIRS, PANEL, PairCodes, Products};

    #[inline(always)]
    pub fn block_products<const N: usize>(x: &[[i32; N]; PAIRS], codes: &[PairCodes; PAIRS]) -> Products<N> {
        let mut sums = [[0_i32; PANEL]; N];
        for (x, codes) in x.iter().zip(codes) {
            for (sums, x) in sums.iter_mut().zip(x) {
                let [first, second] = [*x as i16, (*x >> 16) as i16].map(i32::from);
                for (sum, [w_first, w_second]) in sums.iter_mut().zip(codes.as_chunks::<2>().0) {
                    *sum += first * i32::from(*w_first) + second * i32::from(*w_second);
                }
            }
        }
        sums.map(|sums| {
            let sums = sums.map(|sum| sum as f32);
            std::array::from_fn(|part| Lanes::load(&sums.as_chunks::<N_LANES>().0[part]))
        })
    }
}

/// The same where the processor multiplies and adds pairs of sixteen bits.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_ps,
    };

    use super::{Lanes, N_LANES, PAIRS, PANEL, PairCodes, Products};

    const WIDE: usize = 8;

    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn block_products<const N: usize>(x: &[[i32; N]; PAIRS], codes: &[PairCodes; PAIRS]) -> Products<N> {
        let mut sums = [[_mm256_setzero_si256(); PANEL / WIDE]; N];
        for (x, codes) in x.iter().zip(codes) {
            // SAFETY: a panel's pairs are two vectors of sixteen.
            let codes: [__m256i; PANEL / WIDE] = std::array::from_fn(|part| unsafe {
                _mm256_loadu_si256(codes.as_ptr().add(part * 2 * WIDE).cast())
            });
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = _mm256_set1_epi32(*x);
                for (sum, codes) in sums.iter_mut().zip(codes) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, codes));
                }
            }
        }
        sums.map(|sums| {
            let mut values = [0.0; PANEL];
            for (part, sum) in sums.into_iter().enumerate() {
                // SAFETY: a panel's values are two vectors of eight.
                unsafe { _mm256_storeu_ps(values.as_mut_ptr().add(part * WIDE), _mm256_cvtepi32_ps(sum)) };
            }
            std::array::from_fn(|part| Lanes::load(&values.as_chunks::<N_LANES>().0[part]))
        })
    }
}

/// The same in wasm's vectors.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod arch {
    use core::arch::wasm32::{
        f32x4_convert_i32x4, i32x4_add, i32x4_dot_i16x8, i32x4_splat, v128, v128_load, v128_load32_splat,
    };

    use super::{Lanes, N_LANES, PAIRS, PANEL, PairCodes, Products};
    use crate::backend::cpu::kernel::opaque;

    const VECTORS: usize = PANEL / N_LANES;

    #[inline(always)]
    pub fn block_products<const N: usize>(x: &[[i32; N]; PAIRS], codes: &[PairCodes; PAIRS]) -> Products<N> {
        let mut sums = [[i32x4_splat(0); VECTORS]; N];
        let (mut x, mut codes) = (x.as_ptr().cast::<i32>(), codes.as_ptr().cast::<i32>());
        let end = x.wrapping_add(PAIRS * N);
        while x != end {
            let (at_x, at_codes) = (opaque(x), opaque(codes));
            // SAFETY: both pointers are at one of the block's pairs, `N` and `PANEL` numbers of four bytes long.
            unsafe {
                let codes: [v128; VECTORS] =
                    std::array::from_fn(|vector| v128_load(at_codes.add(vector * N_LANES).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = v128_load32_splat(at_x.add(row).cast());
                    for (sum, codes) in sums.iter_mut().zip(codes) {
                        *sum = i32x4_add(*sum, i32x4_dot_i16x8(x, codes));
                    }
                }
            }
            x = x.wrapping_add(N);
            codes = codes.wrapping_add(PANEL);
        }
        sums.map(|sums| sums.map(|sum| Lanes::of(f32x4_convert_i32x4(sum))))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::backend::cpu::matmul::{PackedMatrix, matmul as exact};
    use crate::tensor::quantized::{QuantKind, QuantizedMatrix};

    fn noise(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + salt) * 7919 % 1013) as f32 - 506.0) / 101.0).collect()
    }

    /// A matrix of arbitrary codes.
    fn panels(kind: QuantKind, n_out: usize, n_in: usize) -> QuantizedPanels {
        let block = |block: usize| {
            let number = |value: f32| half::f16::from_f32(value).to_le_bytes();
            let mut bytes = number(0.01 + block as f32 % 7.0 / 100.0).to_vec();
            if kind.header_bytes() == 4 {
                bytes.extend(number(block as f32 % 5.0 / -50.0));
            }
            bytes.extend((0..kind.code_bytes()).map(|i| ((i * 89 + block * 31) % 256) as u8));
            bytes
        };
        let rows = (0..n_out * n_in / QUANT_BLOCK).flat_map(block).collect();
        QuantizedPanels::pack(&QuantizedMatrix { kind, n_in, rows: Cow::Owned(rows) })
    }

    const KINDS: [QuantKind; 3] = [QuantKind::Q4_0, QuantKind::Q4_1, QuantKind::Q8_0];

    #[test]
    fn products_are_the_exact_ones_but_for_the_rounding_of_x() {
        for kind in KINDS {
            // More blocks than are taken at once, and a last panel that is not full.
            let (n_out, n_in) = (37, 32 * (CHUNK + 3));
            let fast = panels(kind, n_out, n_in);
            let plain = PackedMatrix::Quantized(panels(kind, n_out, n_in));
            for n_rows in [1, 2, 5] {
                // Blocks of very different sizes, one of zeros among them.
                let mut x = noise(n_rows * n_in, 3);
                for (block, x) in x.chunks_mut(QUANT_BLOCK).enumerate() {
                    x.iter_mut().for_each(|x| *x *= [1.0, 300.0, 0.0, 1e-4][block % 4]);
                }
                let (got, wanted) = (matmul(&x, &fast), exact(&x, &plain));
                let size: Vec<f32> = exact(
                    &x.iter().map(|x| x.abs()).collect::<Vec<_>>(),
                    &PackedMatrix::pack(
                        &(0..n_out).flat_map(|o| plain.row(o)).map(f32::abs).collect::<Vec<_>>(),
                        n_in,
                    ),
                );
                for ((got, wanted), size) in got.iter().zip(&wanted).zip(size) {
                    assert!((got - wanted).abs() < 2e-5 * size, "{kind:?}, {n_rows} rows: {got}, {wanted}");
                }
                assert!(got.iter().zip(&wanted).any(|(got, wanted)| got != wanted), "it rounds nothing");
            }
        }
    }

    #[test]
    fn whole_numbers_lose_nothing() {
        for kind in KINDS {
            let (n_out, n_in) = (16, 64);
            let fast = panels(kind, n_out, n_in);
            let plain = PackedMatrix::Quantized(panels(kind, n_out, n_in));
            // Each block's largest is its scale's 32767.
            let x: Vec<f32> = (0..n_in).map(|i| [32767.0, -1.0, 5.0, -77.0][i % 4]).collect();
            for (got, wanted) in matmul(&x, &fast).iter().zip(exact(&x, &plain)) {
                assert!((got - wanted).abs() <= 2e-6 * wanted.abs().max(1e4), "{kind:?}: {got}, {wanted}");
            }
        }
    }

    #[test]
    fn a_row_alone_gives_the_bits_that_it_gives_among_others() {
        let (n_rows, n_in) = (7, 640);
        let (x, weights) = (noise(n_rows * n_in, 1), panels(QuantKind::Q4_1, 33, n_in));
        let together = matmul(&x, &weights);
        for n in 1..n_rows {
            assert_eq!(matmul(&x[..n * n_in], &weights), together[..n * 33], "{n} rows");
            assert_eq!(matmul(&x[n * n_in..], &weights), together[n * 33..], "rows from {n}");
        }
    }

    #[test]
    fn wider_vectors_have_the_references_bits() {
        let x: [[i32; ROWS]; PAIRS] = std::array::from_fn(|pair| {
            std::array::from_fn(|row| ((pair * 7919 + row * 104_729) as i32).wrapping_mul(-1_640_531_527))
        });
        let codes: [PairCodes; PAIRS] = std::array::from_fn(|pair| {
            std::array::from_fn(|code| (pair as i16 * 17 + code as i16 * 5) % 256 - 128)
        });
        let scales = [[0.5; PANEL]];
        let (mut got, mut wanted) = ([[1.0; PANEL]; ROWS], [[1.0; PANEL]; ROWS]);
        add_code_products(&x, &[[0.25; ROWS]], &codes, &scales, &mut got);
        add_blocks(&x, &[[0.25; ROWS]], &codes, &scales, &mut wanted, arch::block_products);
        assert_eq!(got, wanted);
    }

    #[test]
    fn what_is_no_number_stays_none_and_tiny_values_count_as_zeros() {
        let weights = panels(QuantKind::Q4_1, 3, 64);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = noise(64, 0);
            x[40] = bad;
            assert!(matmul(&x, &weights).iter().all(|y| y.is_nan()), "{bad}");
        }
        assert!(matmul(&[1e-38; 64], &weights).iter().all(|y| *y == 0.0));
    }
}
