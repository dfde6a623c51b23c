//! The exponential of the softmax and of SiLU: one polynomial, without branches, so that the compiler makes vectors of a loop
//! over it and so that native and wasm results are the same bits.

/// `e^x` to 2 units in the last place. Below -87.33, where the result would be subnormal, 0; above 88.72 infinite; of NaN, NaN.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and `e^x = 2^n e^r` (Cody and Waite 1980, Software Manual for the Elementary
/// Functions); `e^r` by its minimax polynomial from Cephes' `expf` (Moshier 1992).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Added and taken away, it rounds to a whole number, which its lowest bits then hold: 1.5 · 2^23.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first of so few bits that its products with n are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SMALLEST: f32 = -87.336_54;
    const LARGEST: f32 = 88.722_83;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e_r = (p * r * r + r) + 1.0;
    // 2^n in two factors, because 2^128 has no f32 and e^88.72 needs it.
    let n_bits = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let half = (n_bits as i32) >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let value = e_r * power(half) * power((n_bits as i32).wrapping_sub(half));
    let value = if x < SMALLEST { 0.0 } else { value };
    if x > LARGEST { f32::INFINITY } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_standard_librarys_to_two_units_in_the_last_place() {
        let mut worst = 0;
        for step in 0..=3_520_000 {
            let x = (step as f32 - 1_746_000.0) / 20_000.0;
            if !(-87.3..=88.7).contains(&x) {
                continue;
            }
            let wanted = f64::from(x).exp() as f32;
            worst = worst.max(exp(x).to_bits().abs_diff(wanted.to_bits()));
        }
        assert!(worst <= 2, "{worst} units");
    }

    #[test]
    fn the_ends_are_what_they_should_be() {
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(f32::NEG_INFINITY), exp(-1e30), exp(-88.0)), (0.0, 0.0, 0.0));
        assert_eq!((exp(f32::INFINITY), exp(1e30), exp(89.0)), (f32::INFINITY, f32::INFINITY, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
        assert!((f64::from(exp(88.72)) / f64::from(88.72f32).exp() - 1.0).abs() < 1e-6);
    }
}
