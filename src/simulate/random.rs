//! Random draws and elementary functions that give the same bits on every machine.
//!
//! The standard library's `sin`, `exp`, `ln`, `powf`, `hypot` may differ in the last bit between platforms and versions, and one such
//! bit can flip a pixel. Everything in [`crate::simulate`] therefore uses only IEEE 754 `+ - * /`, `sqrt`, comparison and rounding
//! (exact by definition; Rust never contracts them to fused operations) and the polynomials here. Errors are below 1e-9, far under what
//! a picture can show; a test compares them with the standard library.

use rand::Rng as _;
use rand_pcg::Pcg64Mcg;

/// Pi.
pub(crate) const PI: f32 = std::f32::consts::PI;

/// A seeded stream of draws. Streams of different (seed, index) are independent for all practical purposes.
#[derive(Debug, Clone)]
pub(crate) struct Draw {
    generator: Pcg64Mcg,
}

/// SplitMix64's output function: turns counters into well-spread words (Steele et al. 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Draw {
    /// The stream of sample `index` under `seed`.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        let high = mix(seed ^ mix(index));
        let low = mix(high ^ mix(seed.rotate_left(32) ^ index.wrapping_mul(0x9fb2_1c65_1e98_df25)));
        Self { generator: Pcg64Mcg::new((u128::from(high) << 64) | u128::from(low)) }
    }

    /// 64 random bits.
    pub(crate) fn word(&mut self) -> u64 {
        self.generator.next_u64()
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f32 {
        (self.word() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [low, high).
    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in a range `[low, high)` of the settings.
    pub(crate) fn within(&mut self, range: [f32; 2]) -> f32 {
        self.uniform(range[0], range[1])
    }

    /// Uniform on a logarithmic scale; both ends must be positive.
    pub(crate) fn log_within(&mut self, range: [f32; 2]) -> f32 {
        exp(self.uniform(ln(range[0]), ln(range[1])))
    }

    /// True with probability `share`.
    pub(crate) fn chance(&mut self, share: f32) -> bool {
        self.unit() < share
    }

    /// A whole number in [low, high].
    pub(crate) fn whole(&mut self, low: usize, high: usize) -> usize {
        let span = (high.max(low) - low + 1) as u64;
        low + ((u128::from(self.word()) * u128::from(span)) >> 64) as usize
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.whole(0, items.len() - 1)]
    }

    /// An index with probability proportional to its weight.
    pub(crate) fn weighted(&mut self, weights: &[f32]) -> usize {
        let total: f32 = weights.iter().sum();
        let mut at = self.unit() * total;
        for (i, w) in weights.iter().enumerate() {
            if at < *w {
                return i;
            }
            at -= w;
        }
        weights.iter().rposition(|w| *w > 0.0).unwrap_or(0)
    }

    /// Normal with mean 0 and standard deviation `sigma`: twelve uniform draws summed, so never beyond six sigma.
    pub(crate) fn normal(&mut self, sigma: f32) -> f32 {
        let mut sum = 0u32;
        for _ in 0..3 {
            let w = self.word();
            sum += (w & 0xffff) as u32 + (w >> 16 & 0xffff) as u32 + (w >> 32 & 0xffff) as u32 + (w >> 48) as u32;
        }
        // Mean 12 * 32767.5, variance 12 * (65536^2 - 1) / 12.
        (sum as f32 - 393_210.0) * (sigma / 65_536.0)
    }

    /// A cheap, nearly normal draw for pixel noise: four uniform draws of 16 bits from one word, never beyond 3.5 sigma.
    pub(crate) fn pixel_noise(&mut self, sigma: f32) -> f32 {
        let w = self.word();
        let sum = (w & 0xffff) as u32 + (w >> 16 & 0xffff) as u32 + (w >> 32 & 0xffff) as u32 + (w >> 48) as u32;
        // Variance of the sum is 4 * 65536^2 / 12, so sqrt(3) / 65536 makes it 1.
        (sum as f32 - 131_070.0) * (sigma * 1.732_050_8 / 65_536.0)
    }
}

/// Sine and cosine, `angle` in radians.
pub(crate) fn sin_cos(angle: f32) -> (f32, f32) {
    let x = f64::from(angle);
    let quarter = (x * std::f64::consts::FRAC_2_PI + 0.5).floor();
    let r = x - quarter * std::f64::consts::FRAC_PI_2;
    let q = r * r;
    let sine =
        r * (1.0 - q / 6.0 * (1.0 - q / 20.0 * (1.0 - q / 42.0 * (1.0 - q / 72.0 * (1.0 - q / 110.0 * (1.0 - q / 156.0))))));
    let cosine = 1.0 - q / 2.0 * (1.0 - q / 12.0 * (1.0 - q / 30.0 * (1.0 - q / 56.0 * (1.0 - q / 90.0 * (1.0 - q / 132.0)))));
    let (s, c) = match (quarter as i64).rem_euclid(4) {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    };
    (s as f32, c as f32)
}

/// e^x, `x` between -80 and 80.
pub(crate) fn exp(x: f32) -> f32 {
    let x = f64::from(x).clamp(-80.0, 80.0);
    let k = (x * std::f64::consts::LOG2_E + 0.5).floor();
    let r = x - k * std::f64::consts::LN_2;
    let mut sum = 1.0;
    for n in (1..=12).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    let scale = f64::from_bits(((k as i64 + 1023) as u64) << 52);
    (sum * scale) as f32
}

/// Natural logarithm of a positive, normal number; smaller values count as the smallest normal one.
pub(crate) fn ln(x: f32) -> f32 {
    let bits = f64::from(x.max(f32::MIN_POSITIVE)).to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | (1023u64 << 52));
    let mut e = exponent as f64;
    if m > std::f64::consts::SQRT_2 {
        m /= 2.0;
        e += 1.0;
    }
    let t = (m - 1.0) / (m + 1.0);
    let q = t * t;
    let mut sum = 0.0;
    for n in (0..12).rev() {
        sum = sum * q + 1.0 / f64::from(2 * n + 1);
    }
    (2.0 * t * sum + e * std::f64::consts::LN_2) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elementary_functions_agree_with_the_standard_library() {
        for i in -4000..4000 {
            let x = i as f32 * 0.01;
            let (s, c) = sin_cos(x);
            assert!((f64::from(s) - f64::from(x).sin()).abs() < 1e-7, "sin {x}");
            assert!((f64::from(c) - f64::from(x).cos()).abs() < 1e-7, "cos {x}");
            let e = f64::from(x).exp();
            assert!((f64::from(exp(x)) - e).abs() <= 1e-7 * e, "exp {x}");
        }
        for i in 1..4000 {
            let x = i as f32 * 0.013;
            assert!((f64::from(ln(x)) - f64::from(x).ln()).abs() < 3e-7, "ln {x}");
        }
    }

    #[test]
    fn draws_have_the_stated_moments() {
        let mut draw = Draw::new(7, 3);
        let n = 100_000;
        for f in [Draw::normal as fn(&mut Draw, f32) -> f32, Draw::pixel_noise] {
            let v: Vec<f64> = (0..n).map(|_| f64::from(f(&mut draw, 2.0))).collect();
            let mean = v.iter().sum::<f64>() / f64::from(n);
            let variance = v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n);
            assert!(mean.abs() < 0.03, "mean {mean}");
            assert!((variance - 4.0).abs() < 0.1, "variance {variance}");
        }
        let picks: Vec<usize> = (0..1000).map(|_| draw.weighted(&[0.0, 1.0, 3.0, 0.0])).collect();
        let twos = picks.iter().filter(|p| **p == 2).count();
        assert!((680..820).contains(&twos) && picks.iter().all(|p| *p == 1 || *p == 2), "{twos}");
        assert!((0..1000).map(|_| draw.whole(2, 5)).all(|v| (2..=5).contains(&v)));
    }

    #[test]
    fn streams_differ_by_seed_and_index() {
        let first = |s, i| Draw::new(s, i).word();
        assert_ne!(first(0, 1), first(1, 0));
        assert_ne!(first(5, 1), first(5, 2));
        assert_eq!(first(5, 2), first(5, 2));
    }
}
