//! What a run tells: a metrics file (JSON lines), and on standard error either lines or, in a terminal, a block of curves that is drawn
//! anew in place.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::train::loss::Parts;
use crate::train::validate::Scores;

/// Columns of a curve.
const COLUMNS: usize = 60;
/// Heights of a curve's column.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// In lines, every so many reports are said.
const SAY_EVERY: u64 = 4;

/// A stretch of training between two reports.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Share of the training done, 0..1.
    pub share: f64,
    /// Means of the loss and its parts since the last report.
    pub loss: Parts,
    /// Mean length of the gradient.
    pub gradient: f64,
    /// Learning rate.
    pub rate: f64,
    /// Side of the crops, px.
    pub crop_px: usize,
    /// Speed since the program started.
    pub steps_per_sec: f64,
    /// Training time so far, earlier starts included, s.
    pub elapsed_secs: f64,
    /// Time to the end, s.
    pub left_secs: f64,
}

/// Hours and minutes, or minutes and seconds.
#[must_use]
pub fn duration(secs: f64) -> String {
    let s = secs.max(0.0).round() as u64;
    if s >= 3600 { format!("{}h{:02}m", s / 3600, s % 3600 / 60) } else { format!("{}m{:02}s", s / 60, s % 60) }
}

/// A curve of at most [`COLUMNS`] bars between its own lowest and highest value; values that are not finite are left out.
#[must_use]
pub fn curve(values: &[f64]) -> String {
    let columns = COLUMNS.min(values.len());
    let means: Vec<f64> = (0..columns)
        .filter_map(|c| {
            let part = &values[c * values.len() / columns..(c + 1) * values.len() / columns];
            let good: Vec<f64> = part.iter().copied().filter(|v| v.is_finite()).collect();
            (!good.is_empty()).then(|| good.iter().sum::<f64>() / good.len() as f64)
        })
        .collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bar = |v: f64| if high > low { ((v - low) / (high - low) * 7.0).round() as usize } else { 0 };
    means.iter().map(|v| BARS[bar(*v).min(7)]).collect()
}

/// Writes the metrics file and tells a person.
pub struct Reporter {
    metrics: std::fs::File,
    path: PathBuf,
    quiet: bool,
    terminal: bool,
    /// Lines that the block in the terminal takes now.
    drawn: usize,
    loss: Vec<f64>,
    irrelevance: Vec<f64>,
    ap: Vec<f64>,
    f1: Vec<f64>,
    reports: u64,
}

impl Reporter {
    /// Opens `metrics.jsonl` in `folder`; the curves go on from what it holds.
    ///
    /// # Errors
    /// [`Kind::CannotCreate`] when it cannot be written.
    pub fn open(folder: &Path, quiet: bool) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let metrics = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::new(Kind::CannotCreate, format!("metrics {}: cannot be written: {e}", path.display())))?;
        let terminal = std::io::stderr().is_terminal();
        let (loss, irrelevance, ap, f1) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut reporter = Self { metrics, path, quiet, terminal, drawn: 0, loss, irrelevance, ap, f1, reports: 0 };
        for line in before.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
            let number = |v: &Value| v.as_f64();
            reporter.loss.extend(number(&line["loss"]));
            reporter.irrelevance.extend(number(&line["irrelevance"]));
            reporter.ap.extend(number(&line["validation"]["ap"]));
            reporter.f1.extend(number(&line["validation"]["f1_at_half"]));
        }
        Ok(reporter)
    }

    fn record(&mut self, line: &Value) -> Result<()> {
        writeln!(self.metrics, "{line}").map_err(|e| {
            let path = self.path.display();
            Error::new(Kind::CannotCreate, format!("metrics {path}: cannot be written: {e}; the last checkpoint is whole"))
                .with_source(e)
        })
    }

    /// Reports a stretch of training.
    ///
    /// # Errors
    /// A metrics file that cannot be written.
    pub fn progress(&mut self, p: &Progress) -> Result<()> {
        let l = p.loss;
        self.record(&json!({
            "step": p.step, "progress": p.share, "loss": l.total, "mse": l.mse, "bce": l.bce, "dice": l.dice,
            "irrelevance": l.irrelevance, "gradient": p.gradient, "rate": p.rate, "crop": p.crop_px,
            "steps_per_sec": p.steps_per_sec, "elapsed_secs": p.elapsed_secs,
        }))?;
        self.loss.push(f64::from(l.total));
        self.irrelevance.push(f64::from(l.irrelevance));
        self.reports += 1;
        if self.quiet {
            return Ok(());
        }
        let line = format!(
            "step {:>6}  {:>3.0} %  loss {:.4}  bce {:.4}  dice {:.3}  irr {:.3}  rate {:.1e}  {:.2} steps/s  left {}",
            p.step,
            100.0 * p.share,
            l.total,
            l.bce,
            l.dice,
            l.irrelevance,
            p.rate,
            p.steps_per_sec,
            duration(p.left_secs)
        );
        if self.terminal {
            self.draw(&line);
        } else if self.reports % SAY_EVERY == 0 {
            eprintln!("{line}");
        }
        Ok(())
    }

    /// Reports a validation.
    ///
    /// # Errors
    /// A metrics file that cannot be written.
    pub fn validation(&mut self, step: u64, s: &Scores) -> Result<()> {
        self.record(&json!({ "step": step, "validation": s }))?;
        self.ap.push(s.ap);
        self.f1.push(s.f1_at_half);
        let line = format!(
            "step {step:>6}  held-out simulation: AP {:.2}  MaxF1 {:.2}  F1 at 0.5 {:.2}  best threshold at logit {:.2}",
            s.ap, s.max_f1, s.f1_at_half, s.best_logit
        );
        match (self.quiet, self.terminal) {
            (true, _) => {}
            (false, true) => self.draw(&line),
            (false, false) => eprintln!("{line}"),
        }
        Ok(())
    }

    /// The curves with their last values, a line each.
    fn curves(&self) -> String {
        let mut out = String::new();
        for (name, values) in
            [("loss", &self.loss), ("L_irr", &self.irrelevance), ("held-out AP", &self.ap), ("F1 at 0.5", &self.f1)]
        {
            if let Some(last) = values.last() {
                let _ = writeln!(out, "{name:>11} {last:>8.3}  {}", curve(values));
            }
        }
        out
    }

    fn draw(&mut self, line: &str) {
        let text = format!("{}{line}\n", self.curves());
        let up = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        eprint!("{up}{text}");
        self.drawn = text.lines().count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_run_from_their_lowest_to_their_highest() {
        assert_eq!(curve(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "▁▂▃▄▅▆▇█");
        assert_eq!(curve(&[5.0, 5.0]), "▁▁");
        assert_eq!(curve(&[f64::NAN, 1.0]), "▁");
        assert_eq!(curve(&[]), "");
        let long: Vec<f64> = (0..1000).map(f64::from).collect();
        let drawn: Vec<char> = curve(&long).chars().collect();
        assert_eq!((drawn.len(), drawn[0], drawn[59]), (60, '▁', '█'));
        assert!(drawn.windows(2).all(|w| w[0] <= w[1]));
    }

    #[test]
    fn a_resumed_run_goes_on_with_its_curves() {
        let folder = tempfile::tempdir().unwrap();
        let scores = Scores { ap: 12.5, max_f1: 20.0, f1_at_half: 19.0, best_logit: 0.1 };
        let loss = Parts { total: 0.75, irrelevance: 0.5, ..Parts::default() };
        let p = Progress {
            step: 25,
            share: 0.1,
            loss,
            gradient: 1.0,
            rate: 1e-3,
            crop_px: 64,
            steps_per_sec: 2.0,
            elapsed_secs: 12.5,
            left_secs: 100.0,
        };
        let mut first = Reporter::open(folder.path(), true).unwrap();
        first.progress(&p).unwrap();
        first.validation(25, &scores).unwrap();
        let again = Reporter::open(folder.path(), true).unwrap();
        assert_eq!(
            (again.loss.clone(), again.irrelevance.clone(), again.ap.clone(), again.f1.clone()),
            (vec![0.75], vec![0.5], vec![12.5], vec![19.0])
        );
        assert_eq!(again.curves().lines().nth(2).unwrap(), "held-out AP   12.500  ▁");
    }

    #[test]
    fn durations_read_as_a_clock_does() {
        assert_eq!(duration(3725.0), "1h02m");
        assert_eq!(duration(65.4), "1m05s");
    }
}
