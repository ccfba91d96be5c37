//! Eight f32 at a time, by the instruction set in force.
//!
//! A [`Simd`] value is a token: proof that the instructions behind it may run. [`Scalar`] always may; `Avx2` and `Neon` tokens are made by
//! the dispatch of [`super::isa`] only. Loops that the compiler vectorises by itself need the token just for [`Simd::fma`]; the others
//! are written with the lane operations.

/// Numbers a vector.
pub const LANES: usize = 8;

/// The operations that the kernels are written in. Comparisons give all-ones or all-zeros lanes.
pub trait Simd: Copy {
    /// Eight f32.
    type V: Copy;

    /// `a * b + c` of single numbers, rounded once where the instruction set fuses.
    fn fma(self, a: f32, b: f32, c: f32) -> f32;
    /// All lanes the same.
    fn splat(self, a: f32) -> Self::V;
    /// From memory.
    fn load(self, a: &[f32; LANES]) -> Self::V;
    /// To memory.
    fn store(self, a: Self::V, out: &mut [f32; LANES]);
    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b + c
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c - a b
    fn mul_sub_from(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; b where a is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Whether a < b.
    fn less(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise and.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// Bitwise or.
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// b where the mask a is zero, else 0.
    fn and_not(self, a: Self::V, b: Self::V) -> Self::V;
}

/// The build's baseline, without fused multiply-adds.
#[derive(Clone, Copy)]
pub struct Scalar;

/// A mask lane.
fn mask(set: bool) -> f32 {
    f32::from_bits(if set { u32::MAX } else { 0 })
}

#[inline(always)]
fn each(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    type V = [f32; LANES];

    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(always)]
    fn splat(self, a: f32) -> Self::V {
        [a; LANES]
    }
    #[inline(always)]
    fn load(self, a: &[f32; LANES]) -> Self::V {
        *a
    }
    #[inline(always)]
    fn store(self, a: Self::V, out: &mut [f32; LANES]) {
        *out = a;
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn mul_sub_from(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.sub(c, self.mul(a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn less(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| mask(a < b))
    }
    #[inline(always)]
    fn and(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| f32::from_bits(a.to_bits() & b.to_bits()))
    }
    #[inline(always)]
    fn or(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| f32::from_bits(a.to_bits() | b.to_bits()))
    }
    #[inline(always)]
    fn and_not(self, a: Self::V, b: Self::V) -> Self::V {
        each(a, b, |a, b| f32::from_bits(!a.to_bits() & b.to_bits()))
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::Avx2;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Simd};

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Avx2 {
        /// The token.
        ///
        /// # Safety
        /// The processor must have AVX2 and FMA, and the caller be compiled with both switched on.
        #[inline(always)]
        pub unsafe fn new_unchecked() -> Self {
            Self(())
        }
    }

    /// Wraps intrinsics without memory access.
    macro_rules! by {
        ($(fn $name:ident($($a:ident),*) = $e:expr;)*) => {$(
            #[inline(always)]
            fn $name(self, $($a: __m256),*) -> __m256 {
                // SAFETY: the token proves AVX2 and FMA.
                unsafe { $e }
            }
        )*};
    }

    impl Simd for Avx2 {
        type V = __m256;

        #[inline(always)]
        fn fma(self, a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
        #[inline(always)]
        fn splat(self, a: f32) -> __m256 {
            // SAFETY: the token proves AVX.
            unsafe { _mm256_set1_ps(a) }
        }
        #[inline(always)]
        fn load(self, a: &[f32; LANES]) -> __m256 {
            // SAFETY: the token proves AVX; the array holds eight f32 and the load asks for no alignment.
            unsafe { _mm256_loadu_ps(a.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, a: __m256, out: &mut [f32; LANES]) {
            // SAFETY: the token proves AVX; the array holds eight f32 and the store asks for no alignment.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), a) }
        }
        by! {
            fn add(a, b) = _mm256_add_ps(a, b);
            fn sub(a, b) = _mm256_sub_ps(a, b);
            fn mul(a, b) = _mm256_mul_ps(a, b);
            fn mul_add(a, b, c) = _mm256_fmadd_ps(a, b, c);
            fn mul_sub_from(a, b, c) = _mm256_fnmadd_ps(a, b, c);
            fn max(a, b) = _mm256_max_ps(a, b);
            fn less(a, b) = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
            fn and(a, b) = _mm256_and_ps(a, b);
            fn or(a, b) = _mm256_or_ps(a, b);
            fn and_not(a, b) = _mm256_andnot_ps(a, b);
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{LANES, Simd};

    /// NEON, which every aarch64 processor has.
    #[derive(Clone, Copy)]
    pub struct Neon;

    /// Eight f32 in two registers.
    type V = [float32x4_t; 2];

    /// Applies an intrinsic without memory access to both halves.
    macro_rules! by {
        ($(fn $name:ident($($a:ident),*) = $e:expr;)*) => {$(
            #[inline(always)]
            fn $name(self, $($a: V),*) -> V {
                #[inline(always)]
                fn half($($a: float32x4_t),*) -> float32x4_t {
                    // SAFETY: NEON is part of every aarch64 target's baseline.
                    unsafe { $e }
                }
                [half($($a[0]),*), half($($a[1]),*)]
            }
        )*};
    }

    impl Simd for Neon {
        type V = V;

        #[inline(always)]
        fn fma(self, a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
        #[inline(always)]
        fn splat(self, a: f32) -> V {
            // SAFETY: NEON is part of every aarch64 target's baseline.
            unsafe { [vdupq_n_f32(a); 2] }
        }
        #[inline(always)]
        fn load(self, a: &[f32; LANES]) -> V {
            // SAFETY: NEON is part of the baseline; the array holds two times four f32.
            unsafe { [vld1q_f32(a.as_ptr()), vld1q_f32(a.as_ptr().add(4))] }
        }
        #[inline(always)]
        fn store(self, a: V, out: &mut [f32; LANES]) {
            // SAFETY: NEON is part of the baseline; the array holds two times four f32.
            unsafe {
                vst1q_f32(out.as_mut_ptr(), a[0]);
                vst1q_f32(out.as_mut_ptr().add(4), a[1]);
            }
        }
        by! {
            fn add(a, b) = vaddq_f32(a, b);
            fn sub(a, b) = vsubq_f32(a, b);
            fn mul(a, b) = vmulq_f32(a, b);
            fn mul_add(a, b, c) = vfmaq_f32(c, a, b);
            fn mul_sub_from(a, b, c) = vfmsq_f32(c, a, b);
            fn max(a, b) = vmaxnmq_f32(a, b);
            fn less(a, b) = vreinterpretq_f32_u32(vcltq_f32(a, b));
            fn and(a, b) = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
            fn or(a, b) = vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
            fn and_not(a, b) = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(b), vreinterpretq_u32_f32(a)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Isa, kernel};
    use super::*;

    kernel! {
        fn everything(a: &[f32; LANES], b: &[f32; LANES], out: &mut [[f32; LANES]; 10]) = everything_body
    }

    #[inline(always)]
    fn everything_body<S: Simd>(s: S, a: &[f32; LANES], b: &[f32; LANES], out: &mut [[f32; LANES]; 10]) {
        let (x, y, z) = (s.load(a), s.load(b), s.splat(0.5));
        let less = s.less(x, y);
        let results = [
            s.add(x, y),
            s.sub(x, y),
            s.mul(x, y),
            s.mul_add(x, y, z),
            s.mul_sub_from(x, y, z),
            s.max(x, y),
            s.and(less, x),
            s.and_not(less, x),
            s.or(s.and(less, x), s.and_not(less, y)),
            s.splat(s.fma(a[0], b[0], 0.5)),
        ];
        for (o, r) in out.iter_mut().zip(results) {
            s.store(r, o);
        }
    }

    #[test]
    fn every_operation_means_the_same_in_both_builds() {
        let a = [1.5, -2.0, 0.0, 3.25, 7.0, -0.5, 100.0, 2.0];
        let b = [0.5, 4.0, 0.0, -1.0, 7.0, -0.25, 3.0, 8.0];
        let [mut scalar, mut vector] = [[[0.0; LANES]; 10]; 2];
        everything(Isa::scalar(), &a, &b, &mut scalar);
        everything(Isa::detect(), &a, &b, &mut vector);
        // These values are exact in both.
        assert_eq!(scalar, vector);
        assert_eq!(scalar[5], [1.5, 4.0, 0.0, 3.25, 7.0, -0.25, 100.0, 8.0]);
        assert_eq!(scalar[8], [0.5, -2.0, 0.0, -1.0, 7.0, -0.5, 3.0, 2.0], "the smaller, put together from masks");
    }
}
