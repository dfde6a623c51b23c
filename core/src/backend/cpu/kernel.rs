//! The innermost loop of every product: `sums[r, o] += Σ_i rows[i, r] panel[i, o]`.
//!
//! Every sum is one running sum over `i` in order, a multiplication and then an addition: the same bits come out whatever the
//! number of rows, however the inputs are cut, natively and in wasm. (The worker's relaxed build fuses the two, alike everywhere.) The loop over arrays is the
//! reference; natively the compiler makes wide vectors of it, in wasm it is written out below and tested against it.

/// Outputs in a panel: four vectors of four lanes.
pub const PANEL: usize = 16;

/// Rows in a register block. V8 has fifteen vector registers for a block: two rows of sums, a panel's row of weights, a value of `x`
/// and a product fill fourteen; with more rows it spills, which measured slower.
#[cfg(target_arch = "wasm32")]
pub const ROWS: usize = 2;
/// Rows in a register block: eight running sums of eight lanes.
#[cfg(not(target_arch = "wasm32"))]
pub const ROWS: usize = 4;

/// One running sum a row and output.
pub type Sums<const N: usize> = [[f32; PANEL]; N];

/// Adds the products of `N` rows, interleaved `[input][N]`, with a panel's inputs, `[input][PANEL]`; as many inputs as both have.
pub fn add_products<const N: usize>(rows: &[[f32; N]], panel: &[[f32; PANEL]], sums: &mut Sums<N>) {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return wasm::add_products(rows, panel, sums);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { add_products_avx2(rows, panel, sums) };
    }
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    add_products_in_order(rows, panel, sums);
}

/// Vectors that [`peak_work`] keeps in registers: enough that none waits for its own last result.
const CHAINS: usize = 10;
/// Lanes of one of its vectors.
const PEAK_LANES: usize = if cfg!(target_arch = "wasm32") { 4 } else { 8 };

/// Multiplies and adds in registers alone, `n_rounds` times each of some vectors: the most that a product could do here. Gives
/// how many multiplications and additions that were, and a sum that depends on all of them.
pub fn peak_work(n_rounds: usize) -> (u64, f32) {
    let n_macs = n_rounds as u64 * (CHAINS * PEAK_LANES) as u64;
    // Neither is known to the compiler; the sums stay small.
    let (x, y) = std::hint::black_box((0.75_f32, 0.25_f32));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return (n_macs, unsafe { peak_work_avx2(n_rounds, x, y) });
    }
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return (n_macs, wasm::peak_work(n_rounds, x, y));
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    (n_macs, peak_work_in_order(n_rounds, x, y))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn peak_work_avx2(n_rounds: usize, x: f32, y: f32) -> f32 {
    peak_work_in_order(n_rounds, x, y)
}

#[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
#[inline(always)]
fn peak_work_in_order(n_rounds: usize, x: f32, y: f32) -> f32 {
    let mut sums = [[1.0_f32; PEAK_LANES]; CHAINS];
    for _ in 0..n_rounds {
        for sum in sums.as_flattened_mut() {
            *sum = *sum * x + y;
        }
    }
    sums.as_flattened().iter().sum()
}

/// The reference with wider vectors; no fused multiply-add, so that the result is bit-equal.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_products_avx2<const N: usize>(rows: &[[f32; N]], panel: &[[f32; PANEL]], sums: &mut Sums<N>) {
    add_products_in_order(rows, panel, sums);
}

#[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
#[inline(always)]
fn add_products_in_order<const N: usize>(rows: &[[f32; N]], panel: &[[f32; PANEL]], sums: &mut Sums<N>) {
    // A copy, so that the sums stay in registers.
    let mut running = *sums;
    for (x, weights) in rows.iter().zip(panel) {
        for (running, x) in running.iter_mut().zip(x) {
            for (sum, weight) in running.iter_mut().zip(weights) {
                *sum += x * weight;
            }
        }
    }
    *sums = running;
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use core::arch::wasm32::{
        f32x4_add, f32x4_extract_lane, f32x4_mul, f32x4_splat, v128, v128_load, v128_load32_splat, v128_store,
    };

    use super::{CHAINS, PANEL, Sums, opaque};

    const LANES: usize = 4;
    const VECTORS: usize = PANEL / LANES;

    /// See [`super::peak_work`].
    pub fn peak_work(n_rounds: usize, x: f32, y: f32) -> f32 {
        let (x, y) = (f32x4_splat(x), f32x4_splat(y));
        let mut sums = [f32x4_splat(1.0); CHAINS];
        for _ in 0..n_rounds {
            for sum in &mut sums {
                *sum = f32x4_add(y, f32x4_mul(*sum, x));
            }
        }
        let lanes = sums.into_iter().map(|sum| {
            f32x4_extract_lane::<0>(sum)
                + f32x4_extract_lane::<1>(sum)
                + f32x4_extract_lane::<2>(sum)
                + f32x4_extract_lane::<3>(sum)
        });
        lanes.sum()
    }

    /// See [`super::add_products`].
    pub fn add_products<const N: usize>(rows: &[[f32; N]], panel: &[[f32; PANEL]], sums: &mut Sums<N>) {
        let n_inputs = rows.len().min(panel.len());
        let mut running = [[f32x4_splat(0.0); VECTORS]; N];
        for (running, sums) in running.iter_mut().zip(sums.iter()) {
            for (running, sums) in running.iter_mut().zip(sums.as_chunks::<LANES>().0) {
                // SAFETY: a chunk is four values.
                *running = unsafe { v128_load(sums.as_ptr().cast()) };
            }
        }
        let (mut x, mut weights) = (rows.as_ptr().cast::<f32>(), panel.as_ptr().cast::<f32>());
        let end = x.wrapping_add(n_inputs * N);
        while x != end {
            let (at_x, at_weights) = (opaque(x), opaque(weights));
            // SAFETY: both pointers are at one of the `n_inputs` inputs that rows and panel have, `N` and `PANEL` values long.
            unsafe {
                let weights: [v128; VECTORS] =
                    std::array::from_fn(|vector| v128_load(at_weights.add(vector * LANES).cast()));
                for (row, running) in running.iter_mut().enumerate() {
                    let x = v128_load32_splat(at_x.add(row).cast());
                    for (running, weights) in running.iter_mut().zip(weights) {
                        *running = f32x4_add(*running, f32x4_mul(x, weights));
                    }
                }
            }
            x = x.wrapping_add(N);
            weights = weights.wrapping_add(PANEL);
        }
        for (running, sums) in running.iter().zip(sums.iter_mut()) {
            for (running, sums) in running.iter().zip(sums.as_chunks_mut::<LANES>().0) {
                // SAFETY: a chunk is four values.
                unsafe { v128_store(sums.as_mut_ptr().cast(), *running) };
            }
        }
    }
}

/// The same pointer, aligned as its values are, but not to the compiler: it would otherwise count all addresses of a loop
/// from one variable and lose that the offsets cannot wrap around, which costs an addition a load.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline(always)]
pub fn opaque<T>(pointer: *const T) -> *const T {
    (pointer as usize & !(align_of::<T>() - 1)) as *const T
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<const N: usize>() {
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 7.0;
        for n_inputs in [0, 1, 5, 64] {
            let rows: Vec<[f32; N]> =
                (0..n_inputs).map(|i| std::array::from_fn(|r| value(3 * i + r))).collect();
            let panel: Vec<[f32; PANEL]> =
                (0..n_inputs).map(|i| std::array::from_fn(|o| value(16 * i + o + 1))).collect();
            let start: Sums<N> = std::array::from_fn(|r| std::array::from_fn(|o| value(r + o)));
            let (mut got, mut wanted) = (start, start);
            add_products(&rows, &panel, &mut got);
            add_products_in_order(&rows, &panel, &mut wanted);
            assert_eq!(got, wanted, "{N} rows, {n_inputs} inputs");
            // Inputs may be cut anywhere.
            let mut in_parts = start;
            let cut = n_inputs / 3;
            add_products(&rows[..cut], &panel[..cut], &mut in_parts);
            add_products(&rows[cut..], &panel[cut..], &mut in_parts);
            assert_eq!(in_parts, wanted, "{N} rows, {n_inputs} inputs in two parts");
        }
    }

    #[test]
    fn the_peak_is_counted_as_it_is_worked() {
        for n_rounds in [0, 1, 1000] {
            let (n_macs, sum) = peak_work(n_rounds);
            assert_eq!(n_macs as usize, n_rounds * CHAINS * PEAK_LANES);
            // The fixed point of x -> 0.75 x + 0.25 is where it starts.
            assert_eq!(sum, peak_work_in_order(n_rounds, 0.75, 0.25));
            assert_eq!(sum, (CHAINS * PEAK_LANES) as f32);
        }
    }

    #[test]
    fn vectors_add_what_plain_loops_add() {
        check::<1>();
        check::<ROWS>();
    }
}
