//! Plane geometry: 2x3 affine matrices (similarities among them), rectangles.
//!
//! Conventions, everywhere in this crate: pixel centres at integers, x right, y down. A positive angle turns clockwise on the screen.
//! Scale > 1 means larger in the target. A transform's name says which way it goes: `frame_from_template` takes template pixel
//! coordinates and gives frame pixel coordinates.

/// An affine map of the plane: `(x, y) -> (a x + b y + tx, c x + d y + ty)`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(from = "[[f64; 3]; 2]", into = "[[f64; 3]; 2]")]
pub struct Affine {
    /// Row-major 2x3: `[[a, b, tx], [c, d, ty]]`.
    pub m: [[f64; 3]; 2],
}

impl From<[[f64; 3]; 2]> for Affine {
    fn from(m: [[f64; 3]; 2]) -> Self {
        Self { m }
    }
}

impl From<Affine> for [[f64; 3]; 2] {
    fn from(a: Affine) -> Self {
        a.m
    }
}

impl Affine {
    /// The map that moves nothing.
    pub const IDENTITY: Affine = Affine { m: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]] };

    /// A similarity: rotation in radians (clockwise on the screen), scale, then translation in pixels.
    #[must_use]
    pub fn similarity(rotation_rad: f64, scale: f64, tx: f64, ty: f64) -> Self {
        let (s, c) = rotation_rad.sin_cos();
        Self { m: [[scale * c, -scale * s, tx], [scale * s, scale * c, ty]] }
    }

    /// A similarity that turns and scales about the source picture's centre and puts that centre at the target's centre plus
    /// (`dx`, `dy`). Sizes are (width, height) in pixels; a picture's centre is ((w-1)/2, (h-1)/2).
    #[must_use]
    pub fn about_centres(
        rotation_rad: f64,
        scale: f64,
        dx: f64,
        dy: f64,
        source: (usize, usize),
        target: (usize, usize),
    ) -> Self {
        let centre = |(w, h): (usize, usize)| ((w as f64 - 1.0) / 2.0, (h as f64 - 1.0) / 2.0);
        let ((sx, sy), (gx, gy)) = (centre(source), centre(target));
        let mut out = Self::similarity(rotation_rad, scale, 0.0, 0.0);
        let (x, y) = out.apply(sx, sy);
        out.m[0][2] = gx + dx - x;
        out.m[1][2] = gy + dy - y;
        out
    }

    /// Where `(x, y)` goes.
    #[must_use]
    pub fn apply(&self, x: f64, y: f64) -> (f64, f64) {
        let m = &self.m;
        (m[0][0] * x + m[0][1] * y + m[0][2], m[1][0] * x + m[1][1] * y + m[1][2])
    }

    /// First `inner`, then `self`.
    #[must_use]
    pub fn compose(&self, inner: &Affine) -> Affine {
        let (a, b) = (&self.m, &inner.m);
        let mut m = [[0.0; 3]; 2];
        for r in 0..2 {
            for c in 0..3 {
                m[r][c] = a[r][0] * b[0][c] + a[r][1] * b[1][c] + if c == 2 { a[r][2] } else { 0.0 };
            }
        }
        Affine { m }
    }

    /// Determinant of the linear part (square of a similarity's scale).
    #[must_use]
    pub fn determinant(&self) -> f64 {
        self.m[0][0] * self.m[1][1] - self.m[0][1] * self.m[1][0]
    }

    /// The map back, or `None` when this one folds the plane onto a line.
    #[must_use]
    pub fn invert(&self) -> Option<Affine> {
        let det = self.determinant();
        if !det.is_finite() || det.abs() < 1e-12 {
            return None;
        }
        let m = &self.m;
        let (a, b, c, d) = (m[1][1] / det, -m[0][1] / det, -m[1][0] / det, m[0][0] / det);
        Some(Affine { m: [[a, b, -(a * m[0][2] + b * m[1][2])], [c, d, -(c * m[0][2] + d * m[1][2])]] })
    }

    /// Rotation in radians, (-pi, pi], of the similarity nearest to the linear part.
    #[must_use]
    pub fn rotation_rad(&self) -> f64 {
        (self.m[1][0] - self.m[0][1]).atan2(self.m[0][0] + self.m[1][1])
    }

    /// Scale: square root of the determinant's size.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.determinant().abs().sqrt()
    }

    /// Shift of the source picture's centre from the target's centre, px (the inverse of [`Affine::about_centres`]'s `dx`, `dy`).
    #[must_use]
    pub fn centre_shift(&self, source: (usize, usize), target: (usize, usize)) -> (f64, f64) {
        let (x, y) = self.apply((source.0 as f64 - 1.0) / 2.0, (source.1 as f64 - 1.0) / 2.0);
        (x - (target.0 as f64 - 1.0) / 2.0, y - (target.1 as f64 - 1.0) / 2.0)
    }

    /// Largest distance, px, between where the two maps put the four outer corners of a `width` x `height` picture
    /// (pixel centres at integers, so corners are at -0.5 and size - 0.5).
    #[must_use]
    pub fn corner_error(&self, other: &Affine, width: usize, height: usize) -> f64 {
        let (w, h) = (width as f64 - 0.5, height as f64 - 0.5);
        [(-0.5, -0.5), (w, -0.5), (-0.5, h), (w, h)]
            .iter()
            .map(|&(x, y)| {
                let (p, q) = (self.apply(x, y), other.apply(x, y));
                (p.0 - q.0).hypot(p.1 - q.1)
            })
            .fold(0.0, f64::max)
    }

    /// Whether every entry is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.m.iter().flatten().all(|v| v.is_finite())
    }
}

/// An axis-aligned rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Rect {
    /// Left column.
    pub x: usize,
    /// Top row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// Whether the pixel lies inside.
    #[must_use]
    pub fn contains(&self, x: usize, y: usize) -> bool {
        x >= self.x && y >= self.y && x < self.x + self.width && y < self.y + self.height
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn compose_with_inverse_is_identity(r in -3.1f64..3.1, s in 0.3f64..3.0, x in -500.0f64..500.0, y in -500.0f64..500.0) {
            let a = Affine::similarity(r, s, x, y);
            let e = a.compose(&a.invert().expect("a similarity has an inverse"));
            prop_assert!(e.corner_error(&Affine::IDENTITY, 1000, 1000) < 1e-6);
        }

        #[test]
        fn parameters_round_trip(r in -3.1f64..3.1, s in 0.3f64..3.0, dx in -50.0f64..50.0, dy in -50.0f64..50.0) {
            let a = Affine::about_centres(r, s, dx, dy, (640, 480), (800, 600));
            prop_assert!((a.rotation_rad() - r).abs() < 1e-9);
            prop_assert!((a.scale() - s).abs() < 1e-9);
            let (x, y) = a.centre_shift((640, 480), (800, 600));
            prop_assert!((x - dx).abs() < 1e-6 && (y - dy).abs() < 1e-6);
        }
    }

    #[test]
    fn a_positive_angle_turns_clockwise_on_the_screen() {
        let (x, y) = Affine::similarity(std::f64::consts::FRAC_PI_2, 1.0, 0.0, 0.0).apply(1.0, 0.0);
        assert!(x.abs() < 1e-12 && (y - 1.0).abs() < 1e-12, "right goes to down: {x} {y}");
    }

    #[test]
    fn a_flat_map_has_no_inverse() {
        assert!(Affine { m: [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]] }.invert().is_none());
    }
}
