//! How fast training is on this machine: simulation, a step with and without L_irr, memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::error::Result;
use crate::simulate;
use crate::train::batch;
use crate::train::config::TrainConfig;
use crate::train::engine::Engine;
use crate::train::optim::{AdamW, Rates};

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    /// The network's size.
    pub preset: &'static str,
    /// Crops a step.
    pub batch: usize,
    /// Their side, px.
    pub crop_px: usize,
    /// Threads of the network.
    pub threads: usize,
    /// Simulated pairs of the crop's size a second, by `simulation_threads` threads.
    pub pairs_per_sec: f64,
    /// Threads that simulated.
    pub simulation_threads: usize,
    /// Median time of a whole step (forward, all losses, backward, optimizer), s.
    pub step_secs: f64,
    /// The fastest.
    pub best_step_secs: f64,
    /// The same without L_irr.
    pub step_without_irrelevance_secs: f64,
    /// Its fastest.
    pub best_step_without_irrelevance_secs: f64,
    /// Time that `steps` steps of the settings would take at this speed, minutes.
    pub minutes: f64,
    /// Peak memory of this program, bytes; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let crops = |secs: f64| self.batch as f64 / secs;
        writeln!(f, "preset {}, {} crops of {} px a step, {} threads", self.preset, self.batch, self.crop_px, self.threads)?;
        writeln!(f, "simulation   {:.0} pairs/s on {} threads", self.pairs_per_sec, self.simulation_threads)?;
        let (a, b) = (1e3 * self.step_secs, 1e3 * self.best_step_secs);
        writeln!(f, "step         {a:.0} ms, best {b:.0} ms ({:.1} crops/s)", crops(self.step_secs))?;
        let (a, b) = (1e3 * self.step_without_irrelevance_secs, 1e3 * self.best_step_without_irrelevance_secs);
        let c = crops(self.step_without_irrelevance_secs);
        writeln!(f, "no L_irr     {a:.0} ms, best {b:.0} ms ({c:.1} crops/s)")?;
        if let Some(bytes) = self.peak_memory_bytes {
            writeln!(f, "peak memory  {:.2} GB", bytes as f64 / 1e9)?;
        }
        write!(f, "all steps    {:.0} min", self.minutes)
    }
}

/// Peak memory of this program, bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Pairs a second of `threads` threads over `n` pairs.
fn simulation_speed(config: &simulate::Config, n: u64, threads: usize) -> f64 {
    let next = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= n {
                        break;
                    }
                    std::hint::black_box(simulate::sample(config, 1, i));
                }
            });
        }
    });
    n as f64 / began.elapsed().as_secs_f64()
}

/// Median and least of the times of `n` steps after one that is not counted, s.
fn step_times(config: &TrainConfig, n: usize, irrelevance: f32) -> Result<(f64, f64)> {
    let layout = config.spec().layout()?;
    let stage = &config.stages[0];
    let data = batch::validation(config, stage.crop_px, stage.batch);
    let mut engine = Engine::new(&layout, config.device)?;
    let (mut params, mut stats) = (layout.initial(config.seed, -3.0), layout.initial_stats());
    let mut optimizer = AdamW::new(&layout);
    let rates = Rates { learning_rate: 1e-4, weight_decay: config.weight_decay, clip_norm: config.clip_norm };
    let mut times = Vec::with_capacity(n);
    for k in 0..=n {
        let began = Instant::now();
        let (_, grads) = engine.step(config, &params, &mut stats, &data, irrelevance)?;
        optimizer.step(&mut params, &grads, rates)?;
        if k > 0 {
            times.push(began.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[0]))
}

/// Measures `steps` steps and the simulation of `pairs` pairs.
///
/// # Errors
/// Settings out of range; the device's failure.
pub fn measure(config: &TrainConfig, steps: usize, pairs: u64, simulation_threads: usize) -> Result<Speed> {
    config.check()?;
    let stage = &config.stages[0];
    let simulation = config.simulation.clone().with_size(stage.crop_px);
    let pairs_per_sec = simulation_speed(&simulation, pairs.max(1), simulation_threads);
    let weight = if config.single_stage { 0.0 } else { config.loss.irrelevance };
    let (step_secs, best_step_secs) = step_times(config, steps.max(1), weight)?;
    let (plain, best_plain) = step_times(config, steps.max(1), 0.0)?;
    Ok(Speed {
        preset: config.preset.name(),
        batch: stage.batch,
        crop_px: stage.crop_px,
        threads: rayon::current_num_threads(),
        pairs_per_sec,
        simulation_threads,
        step_secs,
        best_step_secs,
        step_without_irrelevance_secs: plain,
        best_step_without_irrelevance_secs: best_plain,
        minutes: config.steps as f64 * step_secs / 60.0,
        peak_memory_bytes: peak_memory(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured() {
        let speed = measure(&TrainConfig::smoke(), 2, 3, 2).unwrap();
        let all = [speed.pairs_per_sec, speed.best_step_secs, speed.best_step_without_irrelevance_secs, speed.minutes];
        assert!(all.iter().all(|v| *v > 0.0 && v.is_finite()), "{speed:?}");
        assert!(speed.best_step_secs <= speed.step_secs);
        if cfg!(target_os = "linux") {
            assert!(speed.peak_memory_bytes.unwrap() > 1 << 20);
        }
        assert!(speed.to_string().starts_with("preset micro, 8 crops of 64 px a step"), "{speed}");
    }
}
