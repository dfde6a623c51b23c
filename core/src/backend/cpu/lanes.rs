//! Four f32 that are worked on together. In wasm they are a vector by name: the worker is linked for size, which leaves loops as
//! they are. Natively they are an array, of which the compiler makes a vector. Every lane has the bits that it would have alone.

use std::ops::{Add, Div, Mul, Sub};

/// Values in one vector.
pub const N_LANES: usize = 4;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod arch {
    use super::N_LANES;

    /// See the module.
    #[derive(Clone, Copy)]
    pub struct Lanes([f32; N_LANES]);
    /// Whole numbers, one a lane.
    #[derive(Clone, Copy)]
    pub struct IntLanes([i32; N_LANES]);

    impl Lanes {
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
            Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
        }

        #[inline(always)]
        pub fn load(values: &[f32; N_LANES]) -> Self {
            Self(*values)
        }

        #[inline(always)]
        pub fn store(self, values: &mut [f32; N_LANES]) {
            *values = self.0;
        }

        #[inline(always)]
        pub fn splat(value: f32) -> Self {
            Self([value; N_LANES])
        }

        #[inline(always)]
        pub(super) fn add(self, other: Self) -> Self {
            self.zip(other, |a, b| a + b)
        }

        #[inline(always)]
        pub(super) fn sub(self, other: Self) -> Self {
            self.zip(other, |a, b| a - b)
        }

        #[inline(always)]
        pub(super) fn mul(self, other: Self) -> Self {
            self.zip(other, |a, b| a * b)
        }

        #[inline(always)]
        pub(super) fn div(self, other: Self) -> Self {
            self.zip(other, |a, b| a / b)
        }

        #[inline(always)]
        pub fn larger(self, other: Self) -> Self {
            self.zip(other, |a, b| if b > a { b } else { a })
        }

        #[inline(always)]
        pub fn or_where_less(self, instead: Self, x: Self, than: Self) -> Self {
            Self(std::array::from_fn(
                |lane| {
                    if x.0[lane] < than.0[lane] { instead.0[lane] } else { self.0[lane] }
                },
            ))
        }

        #[inline(always)]
        pub fn bits(self) -> IntLanes {
            IntLanes(self.0.map(|value| value.to_bits().cast_signed()))
        }
    }

    impl IntLanes {
        #[inline(always)]
        pub fn minus(self, other: Self) -> Self {
            Self(std::array::from_fn(|lane| self.0[lane].wrapping_sub(other.0[lane])))
        }

        #[inline(always)]
        pub fn half(self) -> Self {
            Self(self.0.map(|n| n >> 1))
        }

        #[inline(always)]
        pub fn low_halves(self, high: Self) -> Self {
            Self(std::array::from_fn(|lane| (self.0[lane] & 0xffff) | (high.0[lane] << 16)))
        }

        #[inline(always)]
        pub fn values(self) -> [i32; N_LANES] {
            self.0
        }

        #[inline(always)]
        pub fn power_of_two(self) -> Lanes {
            Lanes(self.0.map(|n| f32::from_bits(n.wrapping_add(127).cast_unsigned() << 23)))
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod arch {
    use core::arch::wasm32::{
        f32x4_add, f32x4_div, f32x4_lt, f32x4_mul, f32x4_pmax, f32x4_splat, f32x4_sub, i32x4_add, i32x4_shl,
        i32x4_shr, i32x4_splat, i32x4_sub, v128, v128_and, v128_bitselect, v128_load, v128_or, v128_store,
    };

    use super::N_LANES;

    /// See the module.
    #[derive(Clone, Copy)]
    pub struct Lanes(v128);
    /// Whole numbers, one a lane.
    #[derive(Clone, Copy)]
    pub struct IntLanes(v128);

    impl Lanes {
        #[inline(always)]
        pub fn of(vector: v128) -> Self {
            Self(vector)
        }

        #[inline(always)]
        pub fn load(values: &[f32; N_LANES]) -> Self {
            // SAFETY: four values are a vector.
            Self(unsafe { v128_load(values.as_ptr().cast()) })
        }

        #[inline(always)]
        pub fn store(self, values: &mut [f32; N_LANES]) {
            // SAFETY: four values are a vector.
            unsafe { v128_store(values.as_mut_ptr().cast(), self.0) };
        }

        #[inline(always)]
        pub fn splat(value: f32) -> Self {
            Self(f32x4_splat(value))
        }

        #[inline(always)]
        pub(super) fn add(self, other: Self) -> Self {
            Self(f32x4_add(self.0, other.0))
        }

        #[inline(always)]
        pub(super) fn sub(self, other: Self) -> Self {
            Self(f32x4_sub(self.0, other.0))
        }

        #[inline(always)]
        pub(super) fn mul(self, other: Self) -> Self {
            Self(f32x4_mul(self.0, other.0))
        }

        #[inline(always)]
        pub(super) fn div(self, other: Self) -> Self {
            Self(f32x4_div(self.0, other.0))
        }

        #[inline(always)]
        pub fn larger(self, other: Self) -> Self {
            Self(f32x4_pmax(self.0, other.0))
        }

        #[inline(always)]
        pub fn or_where_less(self, instead: Self, x: Self, than: Self) -> Self {
            Self(v128_bitselect(instead.0, self.0, f32x4_lt(x.0, than.0)))
        }

        #[inline(always)]
        pub fn bits(self) -> IntLanes {
            IntLanes(self.0)
        }
    }

    impl IntLanes {
        #[inline(always)]
        pub fn minus(self, other: Self) -> Self {
            Self(i32x4_sub(self.0, other.0))
        }

        #[inline(always)]
        pub fn half(self) -> Self {
            Self(i32x4_shr(self.0, 1))
        }

        /// The low halves of the lanes, `high`'s above these.
        #[inline(always)]
        pub fn low_halves(self, high: Self) -> Self {
            Self(v128_or(v128_and(self.0, i32x4_splat(0xffff)), i32x4_shl(high.0, 16)))
        }

        #[inline(always)]
        pub fn values(self) -> [i32; N_LANES] {
            let mut values = [0; N_LANES];
            // SAFETY: four numbers are a vector.
            unsafe { v128_store(values.as_mut_ptr().cast(), self.0) };
            values
        }

        #[inline(always)]
        pub fn power_of_two(self) -> Lanes {
            Lanes(i32x4_shl(i32x4_add(self.0, i32x4_splat(127)), 23))
        }
    }
}

pub use arch::Lanes;

macro_rules! operator {
    ($($trait:ident $method:ident),*) => {
        $(impl $trait for Lanes {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // The inherent method of the same name.
                Self::$method(self, other)
            }
        })*
    };
}
operator!(Add add, Sub sub, Mul mul, Div div);

impl Lanes {
    /// The values in order.
    #[inline(always)]
    pub fn values(self) -> [f32; N_LANES] {
        let mut values = [0.0; N_LANES];
        self.store(&mut values);
        values
    }
}

/// Sets every value of `out` by its neighbours in `x` and `y`, four at a time; values missing in the last four are 0.
#[inline(always)]
pub fn map_two(x: &[f32], y: &[f32], out: &mut [f32], f: impl Fn(Lanes, Lanes) -> Lanes) {
    let (out, out_rest) = out.as_chunks_mut::<N_LANES>();
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<N_LANES>(), y.as_chunks::<N_LANES>());
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        f(Lanes::load(x), Lanes::load(y)).store(out);
    }
    let padded = |rest: &[f32]| {
        let mut values = [0.0; N_LANES];
        values[..rest.len()].copy_from_slice(rest);
        Lanes::load(&values)
    };
    if !out_rest.is_empty() {
        let values = f(padded(x_rest), padded(y_rest)).values();
        out_rest.copy_from_slice(&values[..out_rest.len()]);
    }
}

/// Changes every value, four at a time; values missing in the last four are 0.
#[inline(always)]
pub fn map_in_place(values: &mut [f32], f: impl Fn(Lanes) -> Lanes) {
    let (chunks, rest) = values.as_chunks_mut::<N_LANES>();
    for chunk in chunks {
        f(Lanes::load(chunk)).store(chunk);
    }
    if !rest.is_empty() {
        let mut padded = [0.0; N_LANES];
        padded[..rest.len()].copy_from_slice(rest);
        let padded = f(Lanes::load(&padded)).values();
        rest.copy_from_slice(&padded[..rest.len()]);
    }
}
