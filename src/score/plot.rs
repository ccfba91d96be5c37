//! Small line charts as SVG, without dependencies.

use std::fmt::Write as _;

/// One line or step chart with axes from `x` and `y` ranges.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Headline.
    pub title: String,
    /// Label of the horizontal axis, with its unit.
    pub x_label: String,
    /// Label of the vertical axis, with its unit.
    pub y_label: String,
    /// Range of the horizontal axis.
    pub x: (f64, f64),
    /// Range of the vertical axis.
    pub y: (f64, f64),
    /// Lines: name and points.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// One bar chart, values 0..100 percent.
#[derive(Debug, Clone)]
pub struct Bars {
    /// Headline.
    pub title: String,
    /// Label of the vertical axis, with its unit.
    pub y_label: String,
    /// Name under each group, values of the series.
    pub groups: Vec<(String, Vec<f64>)>,
    /// Names of the series.
    pub series: Vec<String>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 56.0;
const COLOURS: [&str; 6] = ["#0b6e99", "#c0392b", "#2e8b57", "#8e5ea2", "#c98a00", "#444444"];

/// Text safe inside SVG and HTML.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"22\" text-anchor=\"middle\" font-size=\"15\">{}</text>\n",
        WIDTH / 2.0,
        escape(title)
    )
}

/// A tick step of 1, 2 or 5 times a power of ten that gives at most about eight ticks.
fn tick_step(range: f64) -> f64 {
    let raw = (range / 8.0).max(1e-12);
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|k| k * power).find(|s| *s >= raw * 0.999).unwrap_or(10.0 * power)
}

fn number(v: f64) -> String {
    let text = format!("{v:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn vertical_axis(out: &mut String, label: &str, range: (f64, f64)) {
    let y_of = |v: f64| HEIGHT - BOTTOM - (v - range.0) / (range.1 - range.0) * (HEIGHT - TOP - BOTTOM);
    let step = tick_step(range.1 - range.0);
    let mut v = (range.0 / step).ceil() * step;
    while v <= range.1 + step * 1e-6 {
        let y = y_of(v);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            number(v)
        );
        v += step;
    }
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    let _ = writeln!(
        out,
        "<text x=\"16\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {middle})\">{}</text>",
        escape(label)
    );
}

fn legend(out: &mut String, names: &[String]) {
    let mut x = LEFT;
    for (i, name) in names.iter().enumerate() {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            HEIGHT - 12.0,
            COLOURS[i % COLOURS.len()],
            x + 16.0,
            HEIGHT - 6.0,
            escape(name)
        );
        x += 32.0 + 7.0 * name.chars().count() as f64;
    }
}

impl Chart {
    /// The chart as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut out = open(&self.title);
        vertical_axis(&mut out, &self.y_label, self.y);
        let x_of = |v: f64| LEFT + (v - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT);
        let y_of = |v: f64| HEIGHT - BOTTOM - (v - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM);
        let step = tick_step(self.x.1 - self.x.0);
        let mut v = (self.x.0 / step).ceil() * step;
        while v <= self.x.1 + step * 1e-6 {
            let x = x_of(v);
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0,
                number(v)
            );
            v += step;
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - BOTTOM + 32.0,
            escape(&self.x_label)
        );
        for (i, (_, points)) in self.lines.iter().enumerate() {
            let inside: Vec<String> = points
                .iter()
                .filter(|p| p.0.is_finite() && p.1.is_finite())
                .map(|p| {
                    let x = x_of(p.0.clamp(self.x.0, self.x.1));
                    let y = y_of(p.1.clamp(self.y.0, self.y.1));
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>",
                inside.join(" "),
                COLOURS[i % COLOURS.len()]
            );
        }
        let names: Vec<String> = self.lines.iter().map(|l| l.0.clone()).collect();
        legend(&mut out, &names);
        out.push_str("</svg>\n");
        out
    }
}

impl Bars {
    /// The chart as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut out = open(&self.title);
        vertical_axis(&mut out, &self.y_label, (0.0, 100.0));
        let slot = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let bar = slot * 0.8 / self.series.len().max(1) as f64;
        for (g, (name, values)) in self.groups.iter().enumerate() {
            let left = LEFT + slot * (g as f64 + 0.1);
            for (i, v) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
                let height = v.clamp(0.0, 100.0) / 100.0 * (HEIGHT - TOP - BOTTOM);
                let _ = writeln!(
                    out,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"><title>{v:.2}</title></rect>",
                    left + bar * i as f64,
                    HEIGHT - BOTTOM - height,
                    bar * 0.95,
                    COLOURS[i % COLOURS.len()]
                );
            }
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                LEFT + slot * (g as f64 + 0.5),
                HEIGHT - BOTTOM + 16.0,
                escape(name)
            );
        }
        legend(&mut out, &self.series);
        out.push_str("</svg>\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_land_where_the_axes_say() {
        let chart = Chart {
            title: "a < b".into(),
            x_label: "recall, %".into(),
            y_label: "precision, %".into(),
            x: (0.0, 100.0),
            y: (0.0, 100.0),
            lines: vec![("one".into(), vec![(0.0, 0.0), (50.0, 100.0), (f64::NAN, 3.0), (100.0, 50.0)])],
        };
        let svg = chart.svg();
        assert!(svg.contains("points=\"64.0,384.0 344.0,36.0 624.0,210.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(">20</text>") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        let bars = Bars {
            title: "recall".into(),
            y_label: "%".into(),
            groups: vec![("small".into(), vec![50.0]), ("large".into(), vec![100.0])],
            series: vec!["hit".into()],
        };
        let svg = bars.svg();
        assert!(svg.contains("height=\"174.0\"") && svg.contains("height=\"348.0\""), "{svg}");
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(tick_step(100.0), 20.0);
        assert_eq!(tick_step(1.0), 0.2);
        assert_eq!(tick_step(0.07), 0.01);
        assert_eq!(number(0.30000000000000004), "0.3");
    }
}
