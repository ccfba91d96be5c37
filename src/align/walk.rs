//! The walk through all rotations and scales: the fallback when the log-polar peaks lead nowhere.
//!
//! Each hypothesis is one warp, one transform and one correlation for each half turn, at half the size of the search level, and a
//! verification at the search level itself, so the cost is bounded whatever the frame shows. Hypotheses are dealt to a fixed number of
//! workers, each with its own memory, which run in parallel where more than one is allowed; what is found does not depend on how many
//! there are.

use super::aligner::{Candidate, rotation_allowed};
use super::coarse::{self, CoarseScratch, CoarseTemplate};
use super::isa::Isa;
use super::phase_correlation;
use super::pyramid::pose_from_level;
use super::settings::Settings;
use crate::frame::Map;

/// Rotations over 180 degrees; the correlation tries both halves.
const ROTATIONS: usize = 60;
/// Scales across the band.
const SCALES: usize = 9;
/// Shifts verified for each of them and each half turn.
const SHIFTS: usize = 2;

/// The walk's working memory.
#[derive(Debug, Default)]
pub struct Walk {
    workers: Vec<Worker>,
    half: Map,
}

/// One thread's share.
#[derive(Debug, Default)]
struct Worker {
    scratch: CoarseScratch,
    found: Vec<Candidate>,
}

/// What the workers share.
struct Job<'a> {
    isa: Isa,
    search: &'a CoarseTemplate,
    frame: &'a Map,
    /// What is correlated: the template's side, the frame's, and their level above the search level.
    walk: (&'a CoarseTemplate, &'a Map, usize),
    settings: &'a Settings,
    stride: usize,
}

impl Walk {
    /// Finds and verifies the best shift of every rotation, scale and half turn for the frame's LCN picture.
    pub fn run(&mut self, isa: Isa, search: &CoarseTemplate, frame: &Map, settings: &Settings) {
        let threads = match settings.fallback_threads {
            0 => rayon::current_num_threads(),
            n => n,
        };
        let (template, up) = search.for_walk();
        if up > 0 {
            coarse::halve(frame, &mut self.half);
        }
        let walk = (template, if up > 0 { &self.half } else { frame }, up);
        self.workers.resize_with(threads, Worker::default);
        for w in &mut self.workers {
            w.scratch.fit(template);
            w.found.clear();
            w.found.reserve((ROTATIONS * SCALES).div_ceil(threads) * 2 * SHIFTS);
        }
        spread(&Job { isa, search, frame, walk, settings, stride: threads }, &mut self.workers, 0);
    }

    /// What the last run found, in an order that depends on the number of workers.
    pub fn found(&self) -> impl Iterator<Item = Candidate> + '_ {
        self.workers.iter().flat_map(|w| w.found.iter().copied())
    }
}

/// Gives each worker every `stride`-th hypothesis, in parallel.
fn spread(job: &Job<'_>, workers: &mut [Worker], first: usize) {
    match workers {
        [] => {}
        [one] => one.run(job, first),
        many => {
            let middle = many.len() / 2;
            let (left, right) = many.split_at_mut(middle);
            rayon::join(|| spread(job, left, first), || spread(job, right, first + middle));
        }
    }
}

impl Worker {
    fn run(&mut self, job: &Job<'_>, first: usize) {
        let (low, high) = job.search.scale_band;
        for k in (first..ROTATIONS * SCALES).step_by(job.stride) {
            let rotation = std::f64::consts::PI * (k / SCALES) as f64 / ROTATIONS as f64;
            let scale = low * (high / low).powf((k % SCALES) as f64 / (SCALES - 1) as f64);
            let found = &mut self.found;
            let (template, frame, up) = job.walk;
            phase_correlation::shifts(job.isa, template, &mut self.scratch, frame, rotation, scale, SHIFTS, |pose| {
                let pose = pose_from_level(&pose, up);
                if rotation_allowed(&pose, job.settings, 180.0 / ROTATIONS as f64) {
                    let fit = job.search.verify(job.isa, job.frame, &pose, job.settings.min_visible_share as f32);
                    found.push(Candidate { pose, fit, nominal: false });
                }
            });
        }
    }
}
