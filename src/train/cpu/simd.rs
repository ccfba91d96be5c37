//! Sixteen f32 lanes: the one abstraction the kernels are written on.
//!
//! [`Lanes`] is implemented by AVX-512, by pairs of AVX2 registers with FMA, and by a plain array that any compiler vectorises as it can.
//! [`level`] picks what this machine has, once.

use std::sync::OnceLock;

/// Lanes in one vector; channel counts in memory are rounded up to this.
pub const LANES: usize = 16;

/// Sixteen f32 values and the three operations a convolution needs.
///
/// # Safety
/// Every function may only be called where the instructions of the implementation are present, and pointers must be valid for
/// [`LANES`] values.
#[allow(clippy::missing_safety_doc, reason = "the trait's own section holds for each function")]
pub unsafe trait Lanes: Copy {
    /// All zero.
    unsafe fn zero() -> Self;
    /// Reads [`LANES`] values.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes [`LANES`] values.
    unsafe fn store(self, to: *mut f32);
    /// One value in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// `self + a * b`.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
}

/// The plain implementation.
#[derive(Clone, Copy)]
pub struct Plain([f32; LANES]);

// SAFETY: needs no special instructions.
unsafe impl Lanes for Plain {
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller gives a pointer valid for LANES values.
        Self(unsafe { std::ptr::read_unaligned(from.cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller gives a pointer valid for LANES values.
        unsafe { std::ptr::write_unaligned(to.cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        let mut out = self.0;
        for i in 0..LANES {
            out[i] += a.0[i] * b.0[i];
        }
        Self(out)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Lanes};
    use std::arch::x86_64::*;

    /// One AVX-512 register.
    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    // SAFETY: called only below a function with `target_feature(enable = "avx512f")`, chosen by detection.
    unsafe impl Lanes for Avx512 {
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl; the pointer is the caller's promise.
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl; the pointer is the caller's promise.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }
    }

    /// Two AVX2 registers.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    // SAFETY: called only below a function with `target_feature(enable = "avx2,fma")`, chosen by detection.
    unsafe impl Lanes for Avx2 {
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the impl.
            unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl; the pointer is the caller's promise.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(LANES / 2))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl; the pointer is the caller's promise.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(LANES / 2), self.1);
            }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the impl.
            unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: see the impl.
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// Which implementation this machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// AVX-512F.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// Whatever the compiler makes of plain arrays.
    Plain,
}

/// The best level of this machine; `SSDS_TRAIN_SIMD=avx2|plain` asks for less, for comparison.
#[must_use]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let asked = std::env::var("SSDS_TRAIN_SIMD").unwrap_or_default();
        #[cfg(target_arch = "x86_64")]
        {
            if asked != "plain" && asked != "avx2" && is_x86_feature_detected!("avx512f") {
                return Level::Avx512;
            }
            if asked != "plain" && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Level::Avx2;
            }
        }
        let _ = asked;
        Level::Plain
    })
}
