//! Measured times: points on both clocks, series, percentiles.

use std::time::Instant;

use serde_json::json;

/// One measured quantity, ms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// Adds a time.
    pub fn push(&mut self, ms: f64) {
        self.0.push(ms);
    }

    /// The mean; NaN when empty.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The value that `share` of all values do not exceed (nearest rank); NaN when empty.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }

    /// The middle value; NaN when empty.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Wall-clock and processor time of one stage.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// Wall clock, ms.
    pub wall: Series,
    /// Processor time of the measuring thread, ms.
    pub processor: Series,
}

impl Times {
    /// Adds the time between two points.
    pub fn push(&mut self, from: &Moment, to: &Moment) {
        self.wall.push((to.wall - from.wall).as_secs_f64() * 1e3);
        self.processor.push(to.processor_ns.saturating_sub(from.processor_ns) as f64 / 1e6);
    }

    /// Adds the values of another series.
    pub fn extend(&mut self, other: Self) {
        self.wall.0.extend(other.wall.0);
        self.processor.0.extend(other.processor.0);
    }

    /// p50, p95, p99, max of the wall clock; mean of the processor time.
    #[must_use]
    pub fn row(&self) -> [f64; 5] {
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| self.wall.quantile(share));
        [p50, p95, p99, max, self.processor.mean()]
    }

    /// The same, for `--json`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let [p50, p95, p99, max, processor] = self.row();
        json!({ "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max, "mean_ms": self.wall.mean(), "processor_mean_ms": processor })
    }
}

/// A point in time on both clocks.
pub struct Moment {
    wall: Instant,
    processor_ns: u64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: Instant::now(), processor_ns: thread_time_ns() }
    }
}

/// Processor time of this thread so far, ns; 0 where the kernel does not tell.
fn thread_time_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// The process's largest resident size so far (VmHWM); 0 where the kernel does not tell.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let series = Series((1..=100).rev().map(f64::from).collect());
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|share| series.quantile(share)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(Series(vec![7.0]).quantile(0.5), 7.0);
        assert!(Series::default().quantile(0.5).is_nan());
    }
}
