//! Fitting the template's light to the frame's: one gain and one offset by mean and standard deviation.
//!
//! Both moments rather than a regression: misregistration and defects pull the slope of a regression towards 0, moments keep it.

use crate::frame::Gray;

/// Gain range; outside it the pictures show different things, and a fit would hide that.
const GAIN: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// `gray -> gain * gray + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub gain: f64,
    pub offset: f64,
}

impl Line {
    pub const IDENTITY: Line = Line { gain: 1.0, offset: 0.0 };
}

/// The line that gives `template` (row by row) the mean and the standard deviation of the frame, over the covered pixels.
pub(super) fn fit(template: impl Iterator<Item = f32>, valid: &Gray, frame: &Gray) -> Line {
    let (mut n, mut t1, mut t2, mut f1, mut f2) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for ((t, &f), _) in template.zip(frame.data()).zip(valid.data()).filter(|(_, v)| **v != 0) {
        let (t, f) = (f64::from(t), f64::from(f));
        n += 1.0;
        t1 += t;
        t2 += t * t;
        f1 += f;
        f2 += f * f;
    }
    if n == 0.0 {
        return Line::IDENTITY;
    }
    let variance = |sum: f64, squares: f64| (squares / n - (sum / n) * (sum / n)).max(0.0);
    let (vt, vf) = (variance(t1, t2), variance(f1, f2));
    // A template of one gray says nothing about the gain.
    let gain = if vt < 1.0 { 1.0 } else { (vf / vt).sqrt().clamp(*GAIN.start(), *GAIN.end()) };
    Line { gain, offset: f1 / n - gain * t1 / n }
}

/// The template under the frame's light, rounded and clamped; the frame itself where the template does not cover.
pub(super) fn relight(line: Line, template: &Gray, valid: &Gray, frame: &Gray, out: &mut Gray) {
    let table: [u8; 256] = std::array::from_fn(|v| (line.gain * v as f64 + line.offset + 0.5).floor().clamp(0.0, 255.0) as u8);
    out.resize_for_overwrite(frame.width(), frame.height());
    for (((o, &t), &v), &f) in out.data_mut().iter_mut().zip(template.data()).zip(valid.data()).zip(frame.data()) {
        *o = if v == 0 { f } else { table[t as usize] };
    }
}
