//! Counters, gauges and histograms, and their Prometheus text form.
//!
//! Metrics are registered once by name and label values and then updated without locks. Names and units follow Prometheus (base units,
//! `_total`, `_seconds`). Labels are few and bounded: stage, verdict, reason, provider.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Upper bounds of the duration buckets, seconds.
pub const DURATION_BUCKETS: [f64; 14] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

#[derive(Debug, Default)]
struct HistogramCells {
    buckets: [AtomicU64; DURATION_BUCKETS.len()],
    count: AtomicU64,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    min_ns_plus_one: AtomicU64,
}

/// A distribution of durations.
#[derive(Debug, Clone, Default)]
pub struct Histogram(Arc<HistogramCells>);

/// What a [`Histogram`] holds, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Summary {
    /// Number of observations.
    pub count: u64,
    /// Smallest.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Largest.
    pub max: f64,
    /// 99th percentile: the upper bound of the bucket it falls into, at most the largest observation.
    pub p99: f64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(i) = DURATION_BUCKETS.iter().position(|b| seconds <= *b) {
            self.0.buckets[i].fetch_add(1, Ordering::Relaxed);
        }
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.0.max_ns.fetch_max(ns, Ordering::Relaxed);
        let stored = ns.saturating_add(1);
        let _ = self
            .0
            .min_ns_plus_one
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| (old == 0 || stored < old).then_some(stored));
    }

    /// The distribution so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let count = self.0.count.load(Ordering::Relaxed);
        if count == 0 {
            return Summary::default();
        }
        let seconds = |ns: u64| ns as f64 * 1e-9;
        let max = seconds(self.0.max_ns.load(Ordering::Relaxed));
        let wanted = (count * 99).div_ceil(100);
        let mut seen = 0;
        let mut p99 = max;
        for (cell, bound) in self.0.buckets.iter().zip(DURATION_BUCKETS) {
            seen += cell.load(Ordering::Relaxed);
            if seen >= wanted {
                p99 = bound.min(max);
                break;
            }
        }
        Summary {
            count,
            min: seconds(self.0.min_ns_plus_one.load(Ordering::Relaxed).saturating_sub(1)),
            mean: seconds(self.0.sum_ns.load(Ordering::Relaxed)) / count as f64,
            max,
            p99,
        }
    }
}

#[derive(Debug, Clone)]
enum Metric {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

#[derive(Debug, Default)]
struct Family {
    help: &'static str,
    series: BTreeMap<String, Metric>,
}

/// All metrics of a process.
#[derive(Debug, Clone, Default)]
pub struct Telemetry(Arc<Mutex<BTreeMap<&'static str, Family>>>);

impl Telemetry {
    /// No metrics yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of this name and these labels, made on first use.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        match self.metric(name, help, labels, || Metric::Counter(Counter::default())) {
            Metric::Counter(c) => c,
            other => panic!("{name} is registered as {other:?}, not as a counter"),
        }
    }

    /// The gauge of this name and these labels, made on first use.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        match self.metric(name, help, labels, || Metric::Gauge(Gauge::default())) {
            Metric::Gauge(g) => g,
            other => panic!("{name} is registered as {other:?}, not as a gauge"),
        }
    }

    /// The histogram of this name and these labels, made on first use.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Histogram {
        match self.metric(name, help, labels, || Metric::Histogram(Histogram::default())) {
            Metric::Histogram(h) => h,
            other => panic!("{name} is registered as {other:?}, not as a histogram"),
        }
    }

    fn metric(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)], make: impl FnOnce() -> Metric) -> Metric {
        let label = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect::<Vec<_>>().join(",");
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_default();
        family.help = help;
        family.series.entry(label).or_insert_with(make).clone()
    }

    /// All metrics in Prometheus' text exposition format 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, family) in families.iter() {
            let kind = match family.series.values().next() {
                Some(Metric::Counter(_)) => "counter",
                Some(Metric::Gauge(_)) => "gauge",
                Some(Metric::Histogram(_)) => "histogram",
                None => continue,
            };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (label, metric) in &family.series {
                let braces = |extra: &str| match (label.is_empty(), extra.is_empty()) {
                    (true, true) => String::new(),
                    (false, true) => format!("{{{label}}}"),
                    (true, false) => format!("{{{extra}}}"),
                    (false, false) => format!("{{{label},{extra}}}"),
                };
                match metric {
                    Metric::Counter(c) => {
                        let _ = writeln!(out, "{name}{} {}", braces(""), c.get());
                    }
                    Metric::Gauge(g) => {
                        let _ = writeln!(out, "{name}{} {}", braces(""), g.get());
                    }
                    Metric::Histogram(h) => {
                        let mut seen = 0;
                        for (cell, bound) in h.0.buckets.iter().zip(DURATION_BUCKETS) {
                            seen += cell.load(Ordering::Relaxed);
                            let _ = writeln!(out, "{name}_bucket{} {seen}", braces(&format!("le=\"{bound}\"")));
                        }
                        let count = h.0.count.load(Ordering::Relaxed);
                        let sum = h.0.sum_ns.load(Ordering::Relaxed) as f64 * 1e-9;
                        let _ = writeln!(out, "{name}_bucket{} {count}", braces("le=\"+Inf\""));
                        let _ = writeln!(out, "{name}_sum{} {sum}\n{name}_count{} {count}", braces(""), braces(""));
                    }
                }
            }
        }
        out
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_prometheus() {
        let t = Telemetry::new();
        t.counter("ssds_inspections_total", "Inspections.", &[("verdict", "OK")]).add(3);
        t.gauge("ssds_camera_up", "Camera.", &[]).set(1.0);
        let h = t.histogram("ssds_stage_duration_seconds", "Time.", &[("stage", "align")]);
        h.observe(Duration::from_millis(3));
        h.observe(Duration::from_secs(9));
        let text = t.prometheus();
        for want in [
            "# TYPE ssds_inspections_total counter\nssds_inspections_total{verdict=\"OK\"} 3\n",
            "ssds_camera_up 1\n",
            "ssds_stage_duration_seconds_bucket{stage=\"align\",le=\"0.002\"} 0\n",
            "ssds_stage_duration_seconds_bucket{stage=\"align\",le=\"0.005\"} 1\n",
            "ssds_stage_duration_seconds_bucket{stage=\"align\",le=\"+Inf\"} 2\n",
            "ssds_stage_duration_seconds_count{stage=\"align\"} 2\n",
        ] {
            assert!(text.contains(want), "{want}\nnot in\n{text}");
        }
    }

    #[test]
    fn summaries_follow_the_observations() {
        let h = Histogram::default();
        for ms in 1..=100 {
            h.observe(Duration::from_millis(ms));
        }
        let s = h.summary();
        assert_eq!(s.count, 100);
        assert!((s.min - 0.001).abs() < 1e-9 && (s.max - 0.1).abs() < 1e-9 && (s.mean - 0.0505).abs() < 1e-9, "{s:?}");
        assert!((s.p99 - 0.1).abs() < 1e-9, "{s:?}");
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_metric() {
        let t = Telemetry::new();
        t.counter("a_total", "A.", &[("x", "1")]).inc();
        assert_eq!(t.counter("a_total", "A.", &[("x", "1")]).get(), 1);
        assert_eq!(t.counter("a_total", "A.", &[("x", "2")]).get(), 0);
    }
}
