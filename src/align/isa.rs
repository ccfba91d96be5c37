//! Run-time choice of the instruction set for the hot loops.
//!
//! Each hot loop is written once, generic over the token of [`super::lanes`], on structures of arrays without branches. The [`kernel!`]
//! macro compiles that body twice: for the build's baseline, and with AVX2 and FMA switched on, which is chosen at run time where the
//! processor has them. On aarch64 NEON belongs to the baseline; there [`Isa::scalar`] is the second build, so that the two answers can be
//! compared on both.
//!
//! The two bodies differ in rounding only (a fused multiply-add rounds once); each kernel's test states the tolerance.

/// The instruction set that the hot loops use. Can only name what this processor has: made by [`Isa::detect`] or [`Isa::scalar`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// The best that this processor has.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return Self(Level::Avx2);
        }
        #[cfg(target_arch = "aarch64")]
        return Self(Level::Neon);
        #[cfg(not(target_arch = "aarch64"))]
        Self::scalar()
    }

    /// The build's baseline without fused multiply-adds: the reference that the vector path is compared with.
    #[must_use]
    pub const fn scalar() -> Self {
        Self(Level::Scalar)
    }

    /// Name for reports: `avx2`, `neon` or `scalar`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }

    /// Whether the AVX2 build of a kernel may be called.
    #[cfg(target_arch = "x86_64")]
    pub(super) const fn has_avx2(self) -> bool {
        matches!(self.0, Level::Avx2)
    }

    /// Whether the fused build of a kernel may be called without switching anything on.
    #[cfg(target_arch = "aarch64")]
    pub(super) const fn has_neon(self) -> bool {
        matches!(self.0, Level::Neon)
    }
}

/// Defines `fn name(isa, args...)` from the body function `body(token, args...)`, generic over [`super::lanes::Simd`], which must be
/// `#[inline(always)]`: only so is it compiled with the instructions that the token stands for.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<const $g:ident: $gt:ty>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<const $g: $gt>)? (isa: $crate::align::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide $(<const $g: $gt>)? ($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: this function is only called where AVX2 and FMA were found, and is compiled with both.
                    let token = unsafe { $crate::align::lanes::Avx2::new_unchecked() };
                    $body::<_ $(, $g)?>(token, $($arg),*)
                }
                if isa.has_avx2() {
                    // SAFETY: an `Isa` that says AVX2 is only made by `Isa::detect`, after it found AVX2 and FMA in this processor.
                    return unsafe { wide $(::<$g>)? ($($arg),*) };
                }
            }
            #[cfg(target_arch = "aarch64")]
            if isa.has_neon() {
                return $body::<_ $(, $g)?>($crate::align::lanes::Neon, $($arg),*);
            }
            let _ = isa;
            $body::<_ $(, $g)?>($crate::align::lanes::Scalar, $($arg),*)
        }
    };
}
pub(super) use kernel;
