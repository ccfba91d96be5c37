//! The proof for a person: text, and one picture with the template and the probability-of-detection curve.

use super::{Curve, Proof, ZoneProof};
use crate::font;
use crate::frame::Gray;
use crate::overlay::{AMBER, Canvas, DIM, GREEN, GROUND, RED, Scale, WHITE, gray_panel};

impl Proof {
    /// The figures, one line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut out = vec![
            format!(
                "good parts       {} of {} NG: false-reject rate {:.2} %, at most {:.2} % (95 % bound)",
                self.false_rejects,
                self.good - self.refused,
                100.0 * self.false_reject_rate,
                100.0 * self.false_reject_bound
            ),
            format!(
                "registration     {} refused, {} in a wrong pose, median corner error {:.3} px, lowest confidence {:.2} (limit {:.2})",
                self.refused, self.wrong_poses, self.median_pose_error_px, self.min_confidence, self.confidence_limit
            ),
        ];
        out.push(detection("all", &self.all));
        out.extend(self.zones.iter().map(|z| detection(if z.zone.is_empty() { "outside" } else { &z.zone }, z)));
        out.extend(self.warnings.iter().map(|w| format!("warning          {w}")));
        out
    }

    /// Template, figures and curve in one picture.
    #[must_use]
    pub fn sheet(&self, title: &str, template: &Gray) -> Canvas {
        const SIDE: usize = 400;
        const EDGE: usize = 16;
        let lines = self.lines();
        let panel = gray_panel(template, Scale::to_fit(template.size(), SIDE));
        let text = lines.iter().map(|l| font::text_width(l)).max().unwrap_or(0);
        let width = (2 * SIDE + 3 * EDGE).max(text + 2 * EDGE);
        let height = 4 * EDGE + SIDE.max(panel.height()) + lines.len() * font::LINE + 2 * font::LINE;
        let mut out = Canvas::new(width, height, GROUND);
        out.fill(0, 0, width, 2 * EDGE, if self.warnings.is_empty() { GREEN } else { AMBER });
        out.text(EDGE as i64, 9, title, 2, WHITE);
        let top = 3 * EDGE;
        out.paste(EDGE as i64, top as i64, &panel);
        self.plot(&mut out, (SIDE + 2 * EDGE, top), SIDE);
        let mut y = top + SIDE.max(panel.height()) + 2 * font::LINE;
        for line in &lines {
            out.text(EDGE as i64, y as i64, line, 1, WHITE);
            y += font::LINE;
        }
        out
    }

    /// Found (top) and missed (bottom) defects over their diameter, with the curve and a90.
    fn plot(&self, out: &mut Canvas, (left, top): (usize, usize), side: usize) {
        let largest = self.trials.iter().map(|t| t.diameter_px).fold(4.0f64, f64::max).ceil();
        let (l, t, s) = (left as f64, top as f64, side as f64 - 1.0);
        let place = |diameter: f64, p: f64| (l + diameter / largest * s, t + (1.0 - p) * s);
        out.frame(left as i64, top as i64, side, side, 1, DIM);
        out.line(place(0.0, 0.9), place(largest, 0.9), DIM);
        for trial in &self.trials {
            let (x, y) = place(trial.diameter_px, if trial.found { 0.98 } else { 0.02 });
            out.fill(x as i64 - 1, y as i64 - 1, 3, 3, if trial.found { GREEN } else { RED });
        }
        if let Some(curve) = &self.all.curve {
            let mut last: Option<(f64, f64)> = None;
            for i in 1..=side {
                let diameter = largest * i as f64 / side as f64;
                let next = place(diameter, curve.at(diameter));
                if let Some(last) = last {
                    out.line(last, next, WHITE);
                }
                last = Some(next);
            }
            if curve.a90_px <= largest {
                out.line(place(curve.a90_px, 0.9), place(curve.a90_px, 0.0), AMBER);
            }
        }
        out.text(left as i64, (top + side) as i64 + 3, "0", 1, DIM);
        let label = format!("defect diameter, px (to {largest:.0}); found (green) and missed (red); line at 90 %");
        out.text(left as i64 + 12, (top + side) as i64 + 3, &label, 1, DIM);
    }
}

fn detection(name: &str, z: &ZoneProof) -> String {
    let size = match &z.curve {
        Some(Curve { a90_px, a90_bound_px, .. }) => {
            format!("90 % found from {a90_px:.1} px diameter (95 % bound {a90_bound_px:.1} px)")
        }
        None if z.trials > 0 && z.found == z.trials => "all found: smaller defects are needed for a curve".into(),
        None => "no curve: too few defects, or none found".into(),
    };
    format!("detection        {name}: {} of {} found; {size}", z.found, z.trials)
}
