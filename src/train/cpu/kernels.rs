//! The inner loops of the CPU engine.
//!
//! Feature maps are channels-last with a border of one zero pixel: value (y, x, c) of a `height` x `width` picture lies at
//! `((y + 1) * (width + 2) + x + 1) * channels + c`, `channels` a multiple of [`LANES`]. The border makes every tap of a 3x3 convolution a
//! constant offset, and because the border of a gradient is zero too, the weight gradient is one long sum over consecutive pixels.
//! Each convolution broadcasts one input value against vectors of output channels, with a tile of results kept in registers.

use super::simd::{LANES, Lanes, Level, Plain, level};

/// Size of one picture's feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Area {
    /// Pixels from one row to the next, border included.
    #[must_use]
    pub fn pitch(self) -> usize {
        self.width + 2
    }

    /// Pixels of one picture, border included.
    #[must_use]
    pub fn padded(self) -> usize {
        (self.height + 2) * self.pitch()
    }

    /// Pixels of one picture without border.
    #[must_use]
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Padded index of the first pixel of row `y`.
    #[must_use]
    pub fn row(self, y: usize) -> usize {
        (y + 1) * self.pitch() + 1
    }
}

/// Offsets, in pixels of the padded map, of the taps of a 3x3 (`taps` = 9) or 1x1 (`taps` = 1) convolution; `sign` -1 for its transpose.
#[must_use]
pub fn tap_offsets(taps: usize, area: Area, sign: isize) -> Vec<isize> {
    if taps == 1 {
        return vec![0];
    }
    let pitch = area.pitch() as isize;
    (0..9).map(|t| sign * ((t / 3 - 1) * pitch + (t % 3 - 1))).collect()
}

/// The arguments of a convolution of one picture: `out[p][o] = sum over taps t, channels i of x[p + offset t][i] * weight[t][i][o]`.
pub struct Conv<'a> {
    /// Size of the map.
    pub area: Area,
    /// Input, `area.padded() * x_channels`.
    pub x: &'a [f32],
    /// Channels of `x` in memory.
    pub x_channels: usize,
    /// Channels of `x` that are summed, at most `x_channels`.
    pub used: usize,
    /// Weights [taps][x_channels][out_channels].
    pub weight: &'a [f32],
    /// See [`tap_offsets`].
    pub offsets: &'a [isize],
    /// Channels of the output in memory.
    pub out_channels: usize,
}

impl Conv<'_> {
    fn check(&self, out: &[f32]) {
        assert!(self.x_channels % LANES == 0 && self.out_channels % LANES == 0 && self.used <= self.x_channels);
        assert_eq!(self.x.len(), self.area.padded() * self.x_channels);
        assert_eq!(out.len(), self.area.padded() * self.out_channels);
        assert_eq!(self.weight.len(), self.offsets.len() * self.x_channels * self.out_channels);
        assert!(self.offsets.iter().all(|o| o.unsigned_abs() <= self.area.pitch() + 1));
    }
}

/// One tile: `T` pixels in a row from padded index `p`, `V` vectors of output channels from channel `o`.
///
/// # Safety
/// `Conv::check` has passed; the pixels are inside the picture; `o + V * LANES <= out_channels`; the instructions of `S` are present.
#[inline(always)]
unsafe fn conv_tile<S: Lanes, const T: usize, const V: usize>(c: &Conv, out: *mut f32, p: usize, o: usize) {
    // SAFETY: an interior pixel displaced by an offset of at most one row and one column stays inside the padded map (checked sizes);
    // the weight index is below taps * x_channels * out_channels.
    unsafe {
        let mut acc = [[S::zero(); V]; T];
        for (t, offset) in c.offsets.iter().enumerate() {
            let x = c.x.as_ptr().offset((p as isize + offset) * c.x_channels as isize);
            let w = c.weight.as_ptr().add(t * c.x_channels * c.out_channels + o);
            for i in 0..c.used {
                let w = w.add(i * c.out_channels);
                let mut wv = [S::zero(); V];
                for v in 0..V {
                    wv[v] = S::load(w.add(v * LANES));
                }
                for j in 0..T {
                    let b = S::splat(*x.add(j * c.x_channels + i));
                    for v in 0..V {
                        acc[j][v] = acc[j][v].fma(b, wv[v]);
                    }
                }
            }
        }
        for j in 0..T {
            for v in 0..V {
                acc[j][v].store(out.add((p + j) * c.out_channels + o + v * LANES));
            }
        }
    }
}

/// All pixels for `V` vectors of output channels, `T` pixels at a time.
///
/// # Safety
/// As [`conv_tile`].
#[inline(always)]
unsafe fn conv_channels<S: Lanes, const T: usize, const V: usize>(c: &Conv, out: *mut f32, o: usize) {
    for y in 0..c.area.height {
        let row = c.area.row(y);
        let mut x = 0;
        // SAFETY: x + tile <= width in each branch.
        unsafe {
            while x + T <= c.area.width {
                conv_tile::<S, T, V>(c, out, row + x, o);
                x += T;
            }
            while x + 4 <= c.area.width {
                conv_tile::<S, 4, V>(c, out, row + x, o);
                x += 4;
            }
            while x < c.area.width {
                conv_tile::<S, 1, V>(c, out, row + x, o);
                x += 1;
            }
        }
    }
}

/// # Safety
/// `Conv::check` has passed and the instructions of `S` are present.
#[inline(always)]
unsafe fn conv_wide<S: Lanes>(c: &Conv, out: *mut f32) {
    let vectors = c.out_channels / LANES;
    let mut v = 0;
    // SAFETY: v + V <= vectors in each branch.
    unsafe {
        while v < vectors {
            let left = vectors - v;
            let o = v * LANES;
            if left == 1 {
                conv_channels::<S, 16, 1>(c, out, o);
                v += 1;
            } else if left == 3 || left >= 5 {
                conv_channels::<S, 8, 3>(c, out, o);
                v += 3;
            } else {
                conv_channels::<S, 8, 2>(c, out, o);
                v += 2;
            }
        }
    }
}

/// For machines with sixteen registers of half the width.
///
/// # Safety
/// As [`conv_wide`].
#[inline(always)]
unsafe fn conv_narrow<S: Lanes>(c: &Conv, out: *mut f32) {
    for v in 0..c.out_channels / LANES {
        // SAFETY: one vector from v * LANES lies inside.
        unsafe { conv_channels::<S, 4, 1>(c, out, v * LANES) };
    }
}

/// Convolution of one picture; writes the interior of `out` and leaves its border alone.
pub fn conv(c: &Conv, out: &mut [f32]) {
    c.check(out);
    let out = out.as_mut_ptr();
    #[cfg(target_arch = "x86_64")]
    {
        use super::simd::{Avx2, Avx512};
        #[target_feature(enable = "avx512f")]
        fn avx512(c: &Conv, out: *mut f32) {
            // SAFETY: checked by the caller; the feature is enabled here.
            unsafe { conv_wide::<Avx512>(c, out) }
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(c: &Conv, out: *mut f32) {
            // SAFETY: checked by the caller; the features are enabled here.
            unsafe { conv_narrow::<Avx2>(c, out) }
        }
        match level() {
            // SAFETY: the feature was detected.
            Level::Avx512 => return unsafe { avx512(c, out) },
            // SAFETY: the features were detected.
            Level::Avx2 => return unsafe { avx2(c, out) },
            Level::Plain => {}
        }
    }
    // SAFETY: checked above; no special instructions.
    unsafe { conv_narrow::<Plain>(c, out) }
}

/// Pixels summed at a stretch by the weight gradient, so that both operands stay in the first-level cache.
const BLOCK: usize = 264;

/// The arguments of a weight gradient: `grad[t][i][o] += sum over pixels p of x[p + offset t][i] * dz[p][o]`.
pub struct WeightGrad<'a> {
    /// Size of the map.
    pub area: Area,
    /// Input of the convolution.
    pub x: &'a [f32],
    /// Channels of `x` in memory.
    pub x_channels: usize,
    /// Gradient of the output; its border must be zero.
    pub dz: &'a [f32],
    /// Channels of `dz` in memory.
    pub out_channels: usize,
    /// See [`tap_offsets`].
    pub offsets: &'a [isize],
}

/// Adds over pixels `p..p + n` for `I` input channels from `i` and `V` vectors from `o`.
///
/// # Safety
/// Sizes checked by [`weight_grad`]; the instructions of `S` are present.
#[inline(always)]
unsafe fn grad_tile<S: Lanes, const I: usize, const V: usize>(
    g: &WeightGrad,
    grad: *mut f32,
    (offset, p, n): (isize, usize, usize),
    i: usize,
    o: usize,
) {
    // SAFETY: p..p+n are interior or border pixels between the first and the last interior one, displaced by at most a row and a column.
    unsafe {
        let mut acc = [[S::zero(); V]; I];
        for k in 0..I {
            for v in 0..V {
                acc[k][v] = S::load(grad.add((i + k) * g.out_channels + o + v * LANES));
            }
        }
        let mut x = g.x.as_ptr().offset((p as isize + offset) * g.x_channels as isize + i as isize);
        let mut dz = g.dz.as_ptr().add(p * g.out_channels + o);
        for _ in 0..n {
            let mut d = [S::zero(); V];
            for v in 0..V {
                d[v] = S::load(dz.add(v * LANES));
            }
            for k in 0..I {
                let b = S::splat(*x.add(k));
                for v in 0..V {
                    acc[k][v] = acc[k][v].fma(b, d[v]);
                }
            }
            // one past the last pixel is never read; wrapping keeps the pointer arithmetic itself defined
            x = x.wrapping_add(g.x_channels);
            dz = dz.wrapping_add(g.out_channels);
        }
        for k in 0..I {
            for v in 0..V {
                acc[k][v].store(grad.add((i + k) * g.out_channels + o + v * LANES));
            }
        }
    }
}

/// # Safety
/// As [`grad_tile`].
#[inline(always)]
unsafe fn grad_all<S: Lanes, const WIDE: bool>(g: &WeightGrad, grad: *mut f32) {
    let first = g.area.row(0);
    let end = g.area.row(g.area.height - 1) + g.area.width;
    let vectors = g.out_channels / LANES;
    let mut p = first;
    while p < end {
        let n = BLOCK.min(end - p);
        for (t, offset) in g.offsets.iter().enumerate() {
            let place = (*offset, p, n);
            // SAFETY: the tap's block of the gradient starts here; tiles stay inside it.
            unsafe {
                let grad = grad.add(t * g.x_channels * g.out_channels);
                let mut v = 0;
                while v < vectors {
                    let (left, o) = (vectors - v, v * LANES);
                    if !WIDE {
                        for i in (0..g.x_channels).step_by(4) {
                            grad_tile::<S, 4, 1>(g, grad, place, i, o);
                        }
                        v += 1;
                    } else if left == 1 {
                        for i in (0..g.x_channels).step_by(16) {
                            grad_tile::<S, 16, 1>(g, grad, place, i, o);
                        }
                        v += 1;
                    } else if left == 3 || left >= 5 {
                        for i in (0..g.x_channels).step_by(8) {
                            grad_tile::<S, 8, 3>(g, grad, place, i, o);
                        }
                        v += 3;
                    } else {
                        for i in (0..g.x_channels).step_by(8) {
                            grad_tile::<S, 8, 2>(g, grad, place, i, o);
                        }
                        v += 2;
                    }
                }
            }
        }
        p += n;
    }
}

/// Adds one picture's part to the weight gradient `grad` [taps][x_channels][out_channels].
pub fn weight_grad(g: &WeightGrad, grad: &mut [f32]) {
    assert!(g.x_channels % LANES == 0 && g.out_channels % LANES == 0 && g.area.height > 0 && g.area.width > 0);
    assert_eq!(g.x.len(), g.area.padded() * g.x_channels);
    assert_eq!(g.dz.len(), g.area.padded() * g.out_channels);
    assert_eq!(grad.len(), g.offsets.len() * g.x_channels * g.out_channels);
    assert!(g.offsets.iter().all(|o| o.unsigned_abs() <= g.area.pitch() + 1));
    let grad = grad.as_mut_ptr();
    #[cfg(target_arch = "x86_64")]
    {
        use super::simd::{Avx2, Avx512};
        #[target_feature(enable = "avx512f")]
        fn avx512(g: &WeightGrad, grad: *mut f32) {
            // SAFETY: checked by the caller; the feature is enabled here.
            unsafe { grad_all::<Avx512, true>(g, grad) }
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(g: &WeightGrad, grad: *mut f32) {
            // SAFETY: checked by the caller; the features are enabled here.
            unsafe { grad_all::<Avx2, false>(g, grad) }
        }
        match level() {
            // SAFETY: the feature was detected.
            Level::Avx512 => return unsafe { avx512(g, grad) },
            // SAFETY: the features were detected.
            Level::Avx2 => return unsafe { avx2(g, grad) },
            Level::Plain => {}
        }
    }
    // SAFETY: checked above; no special instructions.
    unsafe { grad_all::<Plain, false>(g, grad) }
}

/// Compiles a plain loop once for each instruction set and runs the best one.
macro_rules! for_each_level {
    ($(#[$doc:meta])* pub fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        pub fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($arg: $ty),*) {
                    body($($arg),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    body($($arg),*);
                }
                match level() {
                    // SAFETY: the feature was detected.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the features were detected.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Plain => {}
                }
            }
            body($($arg),*);
        }
    };
}

/// Sums over rows in single precision, over rows in double.
fn flush(total: &mut [f64], row: &mut [f32]) {
    for (t, r) in total.iter_mut().zip(row.iter_mut()) {
        *t += f64::from(*r);
        *r = 0.0;
    }
}

for_each_level! {
    /// Adds the sums of `z` and of `z * z` over the picture, a channel each, to the halves of `sums`.
    pub fn sums(area: Area, channels: usize, z: &[f32], sums: &mut [f64]) {
        let (sum, square) = sums.split_at_mut(channels);
        let mut rows = vec![0f32; 2 * channels];
        let (a, b) = rows.split_at_mut(channels);
        for y in 0..area.height {
            let from = area.row(y) * channels;
            for pixel in z[from..from + area.width * channels].chunks_exact(channels) {
                for ((v, a), b) in pixel.iter().zip(a.iter_mut()).zip(b.iter_mut()) {
                    *a += v;
                    *b += v * v;
                }
            }
            flush(sum, a);
            flush(square, b);
        }
    }
}

for_each_level! {
    /// `y = max(z * scale + shift, 0)`, a channel each.
    pub fn scale_relu(area: Area, channels: usize, z: &[f32], scale: &[f32], shift: &[f32], y: &mut [f32]) {
        for row in 0..area.height {
            let from = area.row(row) * channels;
            let to = from + area.width * channels;
            for (z, y) in z[from..to].chunks_exact(channels).zip(y[from..to].chunks_exact_mut(channels)) {
                for (((z, y), a), b) in z.iter().zip(y.iter_mut()).zip(scale).zip(shift) {
                    *y = (z * a + b).max(0.0);
                }
            }
        }
    }
}

for_each_level! {
    /// Backward through ReLU and the sums batch norm needs: zeroes `dy` where `y` is zero, adds the sums of `dy` and of
    /// `dy * (z - mean)` to the halves of `sums`.
    pub fn relu_grad_sums(area: Area, channels: usize, z: &[f32], y: &[f32], mean: &[f32], dy: &mut [f32], sums: &mut [f64]) {
        let (sum, product) = sums.split_at_mut(channels);
        let mut rows = vec![0f32; 2 * channels];
        let (a, b) = rows.split_at_mut(channels);
        let mean = &mean[..channels];
        for row in 0..area.height {
            let from = area.row(row) * channels;
            let to = from + area.width * channels;
            let pixels = z[from..to].chunks_exact(channels).zip(y[from..to].chunks_exact(channels));
            for ((z, y), dy) in pixels.zip(dy[from..to].chunks_exact_mut(channels)) {
                for c in 0..channels {
                    let g = if y[c] > 0.0 { dy[c] } else { 0.0 };
                    dy[c] = g;
                    a[c] += g;
                    b[c] += g * (z[c] - mean[c]);
                }
            }
            flush(sum, a);
            flush(product, b);
        }
    }
}

for_each_level! {
    /// Backward through batch norm in place: `dy = dy * p + z * q + r`, a channel each.
    pub fn norm_grad(area: Area, channels: usize, z: &[f32], p: &[f32], q: &[f32], r: &[f32], dy: &mut [f32]) {
        let (p, q, r) = (&p[..channels], &q[..channels], &r[..channels]);
        for row in 0..area.height {
            let from = area.row(row) * channels;
            let to = from + area.width * channels;
            for (z, dy) in z[from..to].chunks_exact(channels).zip(dy[from..to].chunks_exact_mut(channels)) {
                for c in 0..channels {
                    dy[c] = dy[c] * p[c] + z[c] * q[c] + r[c];
                }
            }
        }
    }
}

for_each_level! {
    /// Adds `bias` to every pixel, a channel each.
    pub fn add_bias(area: Area, channels: usize, bias: &[f32], y: &mut [f32]) {
        for row in 0..area.height {
            let from = area.row(row) * channels;
            for y in y[from..from + area.width * channels].chunks_exact_mut(channels) {
                for (y, b) in y.iter_mut().zip(bias) {
                    *y += b;
                }
            }
        }
    }
}

for_each_level! {
    /// 2x2 maximum of the `area` map into the map of half the size.
    pub fn pool(area: Area, channels: usize, x: &[f32], out: &mut [f32]) {
        let half = Area { height: area.height / 2, width: area.width / 2 };
        for row in 0..half.height {
            let (top, bottom) = (area.row(2 * row) * channels, area.row(2 * row + 1) * channels);
            let to = half.row(row) * channels;
            for col in 0..half.width {
                let (t, b) = (top + 2 * col * channels, bottom + 2 * col * channels);
                let (t, b) = (&x[t..t + 2 * channels], &x[b..b + 2 * channels]);
                let out = &mut out[to + col * channels..to + (col + 1) * channels];
                for c in 0..channels {
                    out[c] = t[c].max(t[channels + c]).max(b[c].max(b[channels + c]));
                }
            }
        }
    }
}

for_each_level! {
    /// Adds the gradient of [`pool`] to `dx`: to the first of the four (in reading order) that holds the maximum.
    pub fn pool_grad(area: Area, channels: usize, x: &[f32], out: &[f32], dout: &[f32], dx: &mut [f32]) {
        let half = Area { height: area.height / 2, width: area.width / 2 };
        for row in 0..half.height {
            let from = half.row(row) * channels;
            for col in 0..half.width {
                let place = from + col * channels;
                let (out, dout) = (&out[place..place + channels], &dout[place..place + channels]);
                let first = (area.row(2 * row) + 2 * col) * channels;
                let second = (area.row(2 * row + 1) + 2 * col) * channels;
                let (head, tail) = dx.split_at_mut(second);
                let (dt, db) = (&mut head[first..first + 2 * channels], &mut tail[..2 * channels]);
                let (t, b) = (&x[first..first + 2 * channels], &x[second..second + 2 * channels]);
                for c in 0..channels {
                    let (m, g) = (out[c], dout[c]);
                    let is0 = t[c] == m;
                    let is1 = !is0 && t[channels + c] == m;
                    let is2 = !is0 && !is1 && b[c] == m;
                    dt[c] += if is0 { g } else { 0.0 };
                    dt[channels + c] += if is1 { g } else { 0.0 };
                    db[c] += if is2 { g } else { 0.0 };
                    db[channels + c] += if is0 || is1 || is2 { 0.0 } else { g };
                }
            }
        }
    }
}

for_each_level! {
    /// `out` = nearest x2 of `low` (channels `a` of it), then `skip` (channels `b`), behind each other; `channels` of `out` in memory.
    pub fn upsample_concat(area: Area, low: &[f32], a: (usize, usize), skip: &[f32], b: (usize, usize), out: &mut [f32], channels: usize) {
        let half = Area { height: area.height / 2, width: area.width / 2 };
        let ((a_used, a_mem), (b_used, b_mem)) = (a, b);
        for row in 0..area.height {
            let (to, from_low, from_skip) = (area.row(row), half.row(row / 2), area.row(row));
            for col in 0..area.width {
                let out = &mut out[(to + col) * channels..(to + col) * channels + a_used + b_used];
                let l = (from_low + col / 2) * a_mem;
                out[..a_used].copy_from_slice(&low[l..l + a_used]);
                let s = (from_skip + col) * b_mem;
                out[a_used..].copy_from_slice(&skip[s..s + b_used]);
            }
        }
    }
}

for_each_level! {
    /// Gradient of [`upsample_concat`]: overwrites the interiors of `dlow` and `dskip`.
    pub fn upsample_concat_grad(area: Area, d: &[f32], channels: usize, a: (usize, usize), dlow: &mut [f32], b: (usize, usize), dskip: &mut [f32]) {
        let half = Area { height: area.height / 2, width: area.width / 2 };
        let ((a_used, a_mem), (b_used, b_mem)) = (a, b);
        for row in 0..area.height {
            for col in 0..area.width {
                let from = (area.row(row) + col) * channels;
                let d = &d[from..from + a_used + b_used];
                let s = (area.row(row) + col) * b_mem;
                dskip[s..s + b_used].copy_from_slice(&d[a_used..]);
                let l = (half.row(row / 2) + col / 2) * a_mem;
                let low = &mut dlow[l..l + a_used];
                if row % 2 == 0 && col % 2 == 0 {
                    low.copy_from_slice(&d[..a_used]);
                } else {
                    for (low, d) in low.iter_mut().zip(d) {
                        *low += d;
                    }
                }
            }
        }
    }
}
