//! The exponential of the softmax and of SiLU: one polynomial, without branches, so that native and wasm results are the same
//! bits.

use super::lanes::Lanes;

/// `e^x` of every lane to 2 units in the last place. Below -87.33, where the result would be subnormal, 0; above 88.72 infinite; of
/// NaN, NaN.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and `e^x = 2^n e^r` (Cody and Waite 1980, Software Manual for the Elementary
/// Functions); `e^r` by its minimax polynomial from Cephes' `expf` (Moshier 1992).
#[inline(always)]
pub fn exp(x: Lanes) -> Lanes {
    // Added and taken away, it rounds to a whole number, which its lowest bits then hold: 1.5 · 2^23.
    let round = Lanes::splat(12_582_912.0);
    // ln 2 in two parts, the first of so few bits that its products with n are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SMALLEST: f32 = -87.336_54;
    const LARGEST: f32 = 88.722_83;
    let splat = Lanes::splat;
    let shifted = x * splat(std::f32::consts::LOG2_E) + round;
    let n = shifted - round;
    let r = (x - n * splat(LN_2_HIGH)) - n * splat(LN_2_LOW);
    let mut p = splat(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + splat(coefficient);
    }
    let e_r = (p * r * r + r) + splat(1.0);
    // 2^n in two factors, because 2^128 has no f32 and e^88.72 needs it.
    let n = shifted.bits().minus(round.bits());
    let half = n.half();
    let value = e_r * half.power_of_two() * n.minus(half).power_of_two();
    let value = value.or_where_less(splat(0.0), x, splat(SMALLEST));
    value.or_where_less(splat(f32::INFINITY), splat(LARGEST), x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exp(x: f32) -> f32 {
        super::exp(Lanes::splat(x)).values()[0]
    }

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
