//! `ssds report`: counts, escapes and overkill per product, out of the recorded events and what people said of them.
//!
//! An escape is a part decided OK that a person found not good; overkill is a part decided NG that a person found good. Rates stand on
//! labelled parts only: the escape rate on those labelled ng, the overkill rate on those labelled ok, both among parts that were decided,
//! each with its upper 95 % bound (Clopper-Pearson). Who labels only what was NG sees no escape; the counts of labels say so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::template::print_json;
use super::whatif::page_head;
use crate::calibrate::upper_bound;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::record::event::{InspectionEvent, Verdict};
use crate::record::labels::{self, Label, Truth};
use crate::record::store::StoreReader;
use crate::score::plot::{Bars, Chart, escape};

/// Confidence of the bounds.
const CONFIDENCE: f64 = 0.95;

/// What to report on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file: names the state folder.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// Only parts since then: 2026-11-25T08:00:00Z, or a length of time such as 90m, 24h, 7d.
    #[arg(long)]
    since: Option<String>,
    /// Write a page (one HTML file) with plots.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// One product's figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProductReport {
    /// Decided OK, NG, ERROR, of the events still kept.
    pub ok: u64,
    /// See `ok`.
    pub ng: u64,
    /// See `ok`.
    pub error: u64,
    /// Labelled good among those decided.
    pub labelled_ok: usize,
    /// Labelled not good among those decided.
    pub labelled_ng: usize,
    /// Labelled parts that were ERROR: neither escape nor overkill.
    pub labelled_error: usize,
    /// Decided OK, labelled ng.
    pub escapes: usize,
    /// Decided NG, labelled ok.
    pub overkill: usize,
    /// Escapes among those labelled ng; none without such a label.
    pub escape_rate: Option<f64>,
    /// Its upper 95 % bound.
    pub escape_bound: Option<f64>,
    /// Overkill among those labelled ok; none without such a label.
    pub overkill_rate: Option<f64>,
    /// Its upper 95 % bound.
    pub overkill_bound: Option<f64>,
    /// Defects of NG parts by zone ("" outside all) and sign.
    pub defects: BTreeMap<String, u64>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// By product.
    pub products: BTreeMap<String, ProductReport>,
    /// OK, NG, ERROR by day (UTC).
    pub days: BTreeMap<String, [u64; 3]>,
    /// Lines of the label file that do not decode.
    pub undecodable_labels: Vec<String>,
    /// Rows of the store that do not decode.
    pub undecodable_events: u64,
}

impl Report {
    /// Takes one recorded event.
    pub fn add_event(&mut self, event: &InspectionEvent) {
        let product = self.products.entry(event.product.clone()).or_default();
        let day = self.days.entry(event.captured_at.strftime("%Y-%m-%d").to_string()).or_default();
        day[event.verdict.code() as usize] += 1;
        match event.verdict {
            Verdict::Ok => product.ok += 1,
            Verdict::Ng => product.ng += 1,
            Verdict::Error => product.error += 1,
        }
        if event.verdict == Verdict::Ng {
            for d in &event.defects {
                let sign = d.sign.and_then(|s| serde_json::to_value(s).ok()).and_then(|v| v.as_str().map(str::to_owned));
                let zone = if d.zone.is_empty() { "outside zones" } else { &d.zone };
                *product.defects.entry(format!("{zone}: {}", sign.unwrap_or_else(|| "no sign".into()))).or_default() += 1;
            }
        }
    }

    /// Takes one label.
    pub fn add_label(&mut self, label: &Label) {
        let p = self.products.entry(label.product.clone()).or_default();
        match (label.verdict, label.truth) {
            (Verdict::Error, _) => p.labelled_error += 1,
            (verdict, Truth::Ok) => {
                p.labelled_ok += 1;
                p.overkill += usize::from(verdict == Verdict::Ng);
            }
            (verdict, Truth::Ng) => {
                p.labelled_ng += 1;
                p.escapes += usize::from(verdict == Verdict::Ok);
            }
        }
    }

    /// Works out the rates.
    pub fn finish(&mut self) {
        for p in self.products.values_mut() {
            let rate = |hits: usize, n: usize| (n > 0).then(|| hits as f64 / n as f64);
            let bound = |hits: usize, n: usize| (n > 0).then(|| upper_bound(n, hits, CONFIDENCE));
            (p.escape_rate, p.escape_bound) = (rate(p.escapes, p.labelled_ng), bound(p.escapes, p.labelled_ng));
            (p.overkill_rate, p.overkill_bound) = (rate(p.overkill, p.labelled_ok), bound(p.overkill, p.labelled_ok));
        }
    }

    /// The table.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let percent = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{:.2}", 100.0 * v));
        let mut out = vec![format!(
            "{:<24} {:>8} {:>7} {:>7} | {:>8} {:>8} | {:>7} {:>7} {:>7} | {:>8} {:>7} {:>7}",
            "product", "OK", "NG", "ERROR", "label ok", "label ng", "escapes", "%", "<= %", "overkill", "%", "<= %"
        )];
        for (name, p) in &self.products {
            out.push(format!(
                "{name:<24} {:>8} {:>7} {:>7} | {:>8} {:>8} | {:>7} {:>7} {:>7} | {:>8} {:>7} {:>7}",
                p.ok,
                p.ng,
                p.error,
                p.labelled_ok,
                p.labelled_ng,
                p.escapes,
                percent(p.escape_rate),
                percent(p.escape_bound),
                p.overkill,
                percent(p.overkill_rate),
                percent(p.overkill_bound)
            ));
        }
        out.push(format!(
            "escape %: of the parts labelled ng; overkill %: of those labelled ok; <= %: upper bound at {:.0} % confidence",
            100.0 * CONFIDENCE
        ));
        out
    }

    /// The page.
    #[must_use]
    pub fn html(&self, title: &str) -> String {
        use std::fmt::Write as _;
        let mut out = page_head(title);
        let _ = writeln!(out, "<pre>{}</pre>", escape(&self.lines().join("\n")));
        let days: Vec<(&String, &[u64; 3])> = self.days.iter().collect();
        if !days.is_empty() {
            let all: Vec<f64> = days.iter().map(|(_, n)| n.iter().sum::<u64>() as f64).collect();
            let top = all.iter().copied().fold(1.0, f64::max);
            // A single day still has a line from one edge to the other.
            let last = (days.len() as f64 - 1.0).max(1.0);
            let points = |value: &dyn Fn(usize) -> f64| {
                let mut p: Vec<(f64, f64)> = (0..days.len()).map(|i| (i as f64, value(i))).collect();
                if p.len() == 1 {
                    p.push((1.0, p[0].1));
                }
                p
            };
            let by_day = Chart {
                title: format!("Parts a day, {} to {} (UTC)", days[0].0, days[days.len() - 1].0),
                x_label: "day".into(),
                y_label: "parts".into(),
                x: (0.0, last),
                y: (0.0, top * 1.05),
                lines: [("OK", 0), ("NG", 1), ("ERROR", 2)]
                    .map(|(name, k)| (name.to_owned(), points(&|i| days[i].1[k] as f64)))
                    .into(),
            };
            let share = |i: usize, k: usize| 100.0 * days[i].1[k] as f64 / all[i].max(1.0);
            let most = (0..days.len()).flat_map(|i| [share(i, 1), share(i, 2)]).fold(1.0, f64::max);
            let shares = Chart {
                title: "Share of NG and ERROR a day".into(),
                x_label: "day".into(),
                y_label: "%".into(),
                x: (0.0, last),
                y: (0.0, most * 1.05),
                lines: vec![("NG".into(), points(&|i| share(i, 1))), ("ERROR".into(), points(&|i| share(i, 2)))],
            };
            out.push_str(&by_day.svg());
            out.push_str(&shares.svg());
        }
        let rates: Vec<(String, Vec<f64>)> = self
            .products
            .iter()
            .filter(|(_, p)| p.escape_rate.is_some() || p.overkill_rate.is_some())
            .map(|(name, p)| {
                let bars = [p.escape_rate, p.escape_bound, p.overkill_rate, p.overkill_bound];
                (name.clone(), bars.iter().map(|v| 100.0 * v.unwrap_or(f64::NAN)).collect())
            })
            .collect();
        if rates.is_empty() {
            out.push_str("<p>No part is labelled yet: <code>ssds label EVENT ok|ng</code> says what a part really is.</p>\n");
        } else {
            let bars = Bars {
                title: "Escapes and overkill of labelled parts, with 95 % bounds".into(),
                y_label: "%".into(),
                groups: rates,
                series: ["escapes", "bound", "overkill", "bound"].map(str::to_owned).into(),
            };
            out.push_str(&bars.svg());
        }
        for (name, p) in self.products.iter().filter(|(_, p)| !p.defects.is_empty()) {
            let _ = writeln!(out, "<h2>Defects of {}</h2><table><tr><th>zone: sign</th><th>defects</th></tr>", escape(name));
            for (what, n) in &p.defects {
                let _ = writeln!(out, "<tr><td>{}</td><td>{n}</td></tr>", escape(what));
            }
            out.push_str("</table>\n");
        }
        out.push_str("</html>\n");
        out
    }
}

/// Runs.
///
/// # Errors
/// A store that is not there or cannot be read.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    let since = args.since.as_deref().map(|text| super::archive::since(text, SystemClock.now())).transpose()?;
    let state = config.path("paths.state_dir");
    let report = gather(&state, since)?;
    if args.json {
        print_json(&report)?;
    } else {
        for line in report.lines() {
            println!("{line}");
        }
    }
    for fault in &report.undecodable_labels {
        eprintln!("{fault}");
    }
    if let Some(path) = &args.html {
        std::fs::write(path, report.html(&format!("Station {}", config.text("station.name"))))
            .map_err(|e| Error::io(format!("--html {}", path.display()), e).with_kind(Kind::CannotCreate))?;
    }
    Ok(0)
}

/// Events and labels of a state folder.
fn gather(state: &Path, since: Option<Timestamp>) -> Result<Report> {
    let (store, _) = StoreReader::open_read_only(&state.join("ssds.db"))?;
    let mut report = Report::default();
    let mut undecodable = 0;
    store.scan(0, &mut |_, body, sound| {
        match InspectionEvent::from_json(body.as_bytes()) {
            Ok(event) if sound => {
                if since.is_none_or(|s| event.captured_at >= s) {
                    report.add_event(&event);
                }
            }
            _ => undecodable += 1,
        }
        Ok(())
    })?;
    report.undecodable_events = undecodable;
    let (labels, faults) = labels::read(&state.join(labels::FILE))?;
    for label in labels.values().filter(|l| since.is_none_or(|s| l.captured_at >= s)) {
        report.add_label(label);
    }
    report.undecodable_labels = faults;
    report.finish();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(verdict: Verdict, truth: Truth) -> Label {
        Label {
            event_id: String::new(),
            seq: 1,
            truth,
            verdict,
            product: "board".into(),
            captured_at: Timestamp::UNIX_EPOCH,
            labelled_at: Timestamp::UNIX_EPOCH,
            note: String::new(),
        }
    }

    #[test]
    fn escapes_and_overkill_stand_on_their_own_labels() {
        let mut report = Report::default();
        report.add_event(&InspectionEvent::example());
        for (verdict, truth, n) in [
            (Verdict::Ok, Truth::Ng, 2),
            (Verdict::Ng, Truth::Ng, 8),
            (Verdict::Ng, Truth::Ok, 1),
            (Verdict::Ok, Truth::Ok, 49),
            (Verdict::Error, Truth::Ok, 3),
        ] {
            (0..n).for_each(|_| report.add_label(&label(verdict, truth)));
        }
        report.finish();
        let p = &report.products["board"];
        assert_eq!((p.escapes, p.labelled_ng, p.overkill, p.labelled_ok, p.labelled_error), (2, 10, 1, 50, 3));
        assert_eq!((p.escape_rate, p.overkill_rate), (Some(0.2), Some(0.02)));
        // scipy.stats.beta.ppf(0.95, 3, 8) and (0.95, 2, 49)
        assert!((p.escape_bound.unwrap() - 0.506901).abs() < 1e-5, "{p:?}");
        assert!((p.overkill_bound.unwrap() - 0.091398).abs() < 1e-5, "{p:?}");
        let html = report.html("Station <x>");
        assert!(html.contains("Station &lt;x&gt;") && html.matches("<svg").count() == 3, "{html}");
        let example = &report.products[&InspectionEvent::example().product];
        assert_eq!((example.ng, example.escape_rate), (1, None));
        assert!(!example.defects.is_empty());
    }
}
