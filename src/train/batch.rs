//! Batches of crops out of simulated pairs, made ahead in threads of their own.
//!
//! A pool of pairs is simulated, then `reuse` passes run over it in a new order each; every visit cuts another crop, turned, mirrored and
//! perhaps inverted. Crop number `k` of a stage is a function of (seed, stage, k) alone, so that a resumed run sees what an uninterrupted
//! one sees, whatever the number of threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use rand::{Rng as _, SeedableRng};
use rand_pcg::Pcg64;

use crate::error::{Error, Result};
use crate::score::components::label8;
use crate::simulate::{self, Sample};
use crate::train::config::TrainConfig;
use crate::train::spec::STANDARDISE_EPSILON;

/// Crops ready for the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Crops.
    pub n: usize,
    /// Their side, px.
    pub crop: usize,
    /// Standardised template and frame, [n, 2, crop, crop].
    pub pair: Vec<f32>,
    /// 1 = defect, 0 = good, [n, 1, crop, crop].
    pub label: Vec<f32>,
    /// 1 = counts, 0 = not scored, above 1 = a pixel of a small defect, [n, 1, crop, crop].
    pub weight: Vec<f32>,
}

impl Batch {
    fn with_capacity(n: usize, crop: usize) -> Self {
        let px = n * crop * crop;
        Self { n: 0, crop, pair: Vec::with_capacity(2 * px), label: Vec::with_capacity(px), weight: Vec::with_capacity(px) }
    }
}

/// Standardises one plane of x/255: `(x - mean) / (std + 0.05)`, as the exported graph does.
pub fn standardise(plane: &mut [f32]) {
    let n = plane.len() as f64;
    let mean = plane.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = plane.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let (mean, scale) = (mean as f32, 1.0 / (variance.sqrt() as f32 + STANDARDISE_EPSILON));
    plane.iter_mut().for_each(|v| *v = (*v - mean) * scale);
}

/// A generator for one purpose, independent of the others.
fn generator(seed: u64, purpose: u64, index: u64) -> Pcg64 {
    let mix = |v: u64| {
        let v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        v ^ (v >> 31)
    };
    Pcg64::seed_from_u64(mix(mix(mix(seed ^ 0x5353_4453).wrapping_add(purpose)).wrapping_add(index)))
}

fn below(rng: &mut Pcg64, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

fn uniform(rng: &mut Pcg64) -> f32 {
    (rng.next_u64() >> 40) as f32 / (1u64 << 24) as f32
}

/// The order in which pass `pass` of a stage visits its pool.
fn order(seed: u64, stage: u64, pass: u64, pool: usize) -> Vec<usize> {
    let mut rng = generator(seed, 2 + 16 * stage, pass);
    let mut out: Vec<usize> = (0..pool).collect();
    for i in (1..pool).rev() {
        out.swap(i, below(&mut rng, i + 1));
    }
    out
}

/// Area from which on a defect's pixels count as others do, px.
const LARGE_PX: f32 = 64.0;

/// Raises the weight of small defects' pixels with the square root of how much smaller they are than [`LARGE_PX`], up to `most`: a defect
/// of 16 pixels is as bad as one of 64, but four times as easily forgotten by a sum over pixels.
fn emphasise(most: f32, crop: usize, label: &[f32], weight: &mut [f32]) {
    let components = label8(crop, crop, |i| label[i] > 0.5);
    let mut area = vec![0f32; components.count + 1];
    for l in &components.labels {
        area[*l as usize] += 1.0;
    }
    for (w, l) in weight.iter_mut().zip(&components.labels) {
        if *l > 0 {
            *w *= (LARGE_PX / area[*l as usize]).sqrt().clamp(1.0, most);
        }
    }
}

/// Adds one crop of `sample` to `batch`, cut and changed by `rng`.
fn add_crop(config: &TrainConfig, sample: &Sample, crop: usize, rng: &mut Pcg64, batch: &mut Batch) {
    let (w, h) = sample.frame.size();
    let mut place = (0, 0);
    for attempt in 0..4 {
        place = (below(rng, w - crop + 1), below(rng, h - crop + 1));
        let keep_empty = uniform(rng) < config.empty_share;
        let hit = || (0..crop).any(|y| sample.label.row(place.1 + y)[place.0..place.0 + crop].contains(&simulate::DEFECT));
        if attempt == 3 || keep_empty || hit() {
            break;
        }
    }
    let turn = below(rng, 8);
    let invert = uniform(rng) < 0.5;
    // the rim that the template does not cover: a half plane at most a third of the crop wide
    let uncovered = (uniform(rng) < config.uncovered_share).then(|| {
        let angle = uniform(rng) * std::f32::consts::TAU;
        let depth = uniform(rng) * 0.33 * crop as f32;
        (angle.cos(), angle.sin(), crop as f32 * 0.5 - depth, uniform(rng) < 0.5)
    });
    let source = |x: usize, y: usize| {
        let (x, y) = if turn & 1 == 1 { (y, x) } else { (x, y) };
        let x = if turn & 2 == 2 { crop - 1 - x } else { x };
        let y = if turn & 4 == 4 { crop - 1 - y } else { y };
        (place.0 + x, place.1 + y)
    };
    let first = batch.pair.len();
    for picture in [&sample.template, &sample.frame] {
        for y in 0..crop {
            for x in 0..crop {
                let (sx, sy) = source(x, y);
                let v = f32::from(picture.get(sx, sy)) / 255.0;
                batch.pair.push(if invert { 1.0 - v } else { v });
            }
        }
    }
    for y in 0..crop {
        for x in 0..crop {
            let (sx, sy) = source(x, y);
            let label = sample.label.get(sx, sy);
            batch.label.push(f32::from(u8::from(label == simulate::DEFECT)));
            batch.weight.push(f32::from(u8::from(label != simulate::NOT_SCORED)));
        }
    }
    let at = batch.label.len() - crop * crop;
    emphasise(config.small_defect_weight, crop, &batch.label[at..], &mut batch.weight[at..]);
    if let Some((nx, ny, limit, black)) = uncovered {
        let centre = (crop as f32 - 1.0) * 0.5;
        for y in 0..crop {
            for x in 0..crop {
                if (x as f32 - centre) * nx + (y as f32 - centre) * ny > limit {
                    let i = y * crop + x;
                    // black as a plain warp leaves it, or filled from the frame as the detector does
                    batch.pair[first + i] = if black { 0.0 } else { batch.pair[first + crop * crop + i] };
                    batch.label[at + i] = 0.0;
                    batch.weight[at + i] = 0.0;
                }
            }
        }
    }
    for plane in batch.pair[first..].chunks_exact_mut(crop * crop) {
        standardise(plane);
    }
    batch.n += 1;
}

/// Side of the simulated pictures of a stage, px.
fn scene_size(config: &TrainConfig, crop: usize) -> usize {
    (crop as f64 * config.scene_factor).round() as usize
}

/// The whole pairs of the validation, uncut, on a seed that training never uses.
#[must_use]
pub fn validation(config: &TrainConfig, crop: usize, pairs: usize) -> Batch {
    let simulation = config.simulation.clone().with_size(crop);
    let mut batch = Batch::with_capacity(pairs, crop);
    for index in 0..pairs as u64 {
        let sample = simulate::sample(&simulation, config.seed ^ 0x7661_6c69_6461_7465, index);
        for picture in [&sample.template, &sample.frame] {
            let first = batch.pair.len();
            batch.pair.extend(picture.data().iter().map(|v| f32::from(*v) / 255.0));
            standardise(&mut batch.pair[first..]);
        }
        batch.label.extend(sample.label.data().iter().map(|v| f32::from(u8::from(*v == simulate::DEFECT))));
        batch.weight.extend(sample.label.data().iter().map(|v| f32::from(u8::from(*v != simulate::NOT_SCORED))));
        batch.n += 1;
    }
    batch
}

/// The pairs of pool `number` of a stage, simulated by `threads` threads; `None` when `stop` was set meanwhile.
fn simulate_pool(
    config: &TrainConfig,
    (stage, crop): (u64, usize),
    number: u64,
    threads: usize,
    stop: &AtomicBool,
) -> Option<Vec<Sample>> {
    let simulation = config.simulation.clone().with_size(scene_size(config, crop));
    let pool = config.pool as usize;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Sample)>> = Mutex::new(Vec::with_capacity(pool));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= pool {
                        break;
                    }
                    // stages draw from far apart, so that no pair appears in two of them
                    let index = (stage << 40) + number * config.pool + i as u64;
                    let sample = simulate::sample(&simulation, config.seed, index);
                    if let Ok(mut done) = done.lock() {
                        done.push((i, sample));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().ok()?;
    if done.len() < pool {
        return None;
    }
    done.sort_by_key(|(i, _)| *i);
    Some(done.into_iter().map(|(_, s)| s).collect())
}

/// Batches of one stage, in order, from a given crop on.
pub struct Loader {
    batches: Option<Receiver<Batch>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Loader {
    /// Starts making batches of stage `stage` of `config` from its crop number `first_crop` on; `threads` simulate.
    ///
    /// # Errors
    /// The system's refusal to start a thread.
    pub fn start(config: &TrainConfig, stage: usize, first_crop: u64, threads: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (pool_tx, pool_rx) = sync_channel::<(u64, Vec<Sample>)>(1);
        let (batch_tx, batches) = sync_channel::<Batch>(3);
        let (crop, n) = (config.stages[stage].crop_px, config.stages[stage].batch);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work).map_err(|e| Error::io(format!("starting thread {name}"), e))
        };
        let first_pool = first_crop / (config.pool * config.reuse);
        let (c, s) = (config.clone(), stop.clone());
        let simulating = spawn(
            "simulate",
            Box::new(move || {
                for number in first_pool.. {
                    let Some(pool) = simulate_pool(&c, (stage as u64, crop), number, threads, &s) else { return };
                    if pool_tx.send((number, pool)).is_err() {
                        return;
                    }
                }
            }),
        )?;
        let (c, s) = (config.clone(), stop.clone());
        let cutting = spawn("batch", Box::new(move || cut(&c, stage as u64, (crop, n), first_crop, &pool_rx, &batch_tx, &s)))?;
        Ok(Self { batches: Some(batches), stop, threads: vec![simulating, cutting] })
    }

    /// The next batch.
    ///
    /// # Errors
    /// When the threads have ended, which only a fault of this program brings about.
    pub fn next(&self) -> Result<Batch> {
        self.batches
            .as_ref()
            .and_then(|b| b.recv().ok())
            .ok_or_else(|| Error::internal("the simulation threads ended before the training"))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.batches = None;
        for thread in self.threads.drain(..) {
            // a panic there was reported where it happened
            let _ = thread.join();
        }
    }
}

fn cut(
    config: &TrainConfig,
    stage: u64,
    (crop, n): (usize, usize),
    first_crop: u64,
    pools: &Receiver<(u64, Vec<Sample>)>,
    batches: &SyncSender<Batch>,
    stop: &AtomicBool,
) {
    let mut pool: Option<(u64, Vec<Sample>)> = None;
    let mut visit: Option<(u64, Vec<usize>)> = None;
    let mut k = first_crop;
    loop {
        let mut batch = Batch::with_capacity(n, crop);
        while batch.n < n {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let pass = k / config.pool;
            let number = pass / config.reuse;
            if pool.as_ref().is_none_or(|p| p.0 != number) {
                drop(pool.take());
                match pools.recv() {
                    Ok(p) => pool = Some(p),
                    Err(_) => return,
                }
            }
            if visit.as_ref().is_none_or(|v| v.0 != pass) {
                visit = Some((pass, order(config.seed, stage, pass, config.pool as usize)));
            }
            if let (Some((_, samples)), Some((_, order))) = (&pool, &visit) {
                let mut rng = generator(config.seed, 3 + 16 * stage, k);
                add_crop(config, &samples[order[(k % config.pool) as usize]], crop, &mut rng, &mut batch);
            }
            k += 1;
        }
        if batches.send(batch).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::Stage;

    fn config() -> TrainConfig {
        let stages = vec![Stage { crop_px: 32, batch: 5, until: 1.0 }];
        TrainConfig { stages, pool: 7, reuse: 2, scene_factor: 1.25, ..TrainConfig::smoke() }
    }

    fn take(first: u64, n: usize, threads: usize) -> Vec<Batch> {
        let loader = Loader::start(&config(), 0, first, threads).unwrap();
        (0..n).map(|_| loader.next().unwrap()).collect()
    }

    #[test]
    fn a_batch_depends_on_its_number_alone() {
        // 8 batches of 5 crops go through passes, pools and their ends
        let all = take(0, 8, 1);
        assert_eq!(all, take(0, 8, 3));
        assert_eq!(all[3..], take(15, 5, 2)[..]);
        assert_ne!(all[0], all[1]);
    }

    #[test]
    fn every_pair_is_visited_once_a_pass() {
        for pass in 0..4 {
            let mut seen = order(1, 0, pass, 7);
            seen.sort_unstable();
            assert_eq!(seen, (0..7).collect::<Vec<_>>());
        }
        assert_ne!(order(1, 0, 0, 50), order(1, 0, 1, 50));
    }

    #[test]
    fn crops_are_standardised_and_labels_are_zero_or_one() {
        for batch in take(0, 4, 2) {
            assert_eq!((batch.n, batch.crop, batch.pair.len(), batch.label.len()), (5, 32, 5 * 2 * 1024, 5 * 1024));
            for plane in batch.pair.chunks_exact(1024) {
                let mean = plane.iter().sum::<f32>() / 1024.0;
                let deviation = (plane.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 1024.0).sqrt();
                assert!(mean.abs() < 1e-4 && deviation < 1.0, "{mean} {deviation}");
            }
            assert!(batch.label.iter().all(|v| *v == 0.0 || *v == 1.0));
            let most = config().small_defect_weight;
            let fits = |l: f32, w: f32| if l == 0.0 { w == 0.0 || w == 1.0 } else { (1.0..=most).contains(&w) };
            assert!(batch.label.iter().zip(&batch.weight).all(|(l, w)| fits(*l, *w)));
        }
    }

    #[test]
    fn picture_and_label_are_cut_alike() {
        // the label is where the frame is bright: it must stay so through every turn, mirror and cut
        let bright = |x: usize, y: usize| x > 20 && y > 9 && x < 31 && y < 30;
        let sample = Sample {
            template: crate::frame::Gray::from_fn(40, 40, |_, _| 40),
            frame: crate::frame::Gray::from_fn(40, 40, |x, y| if bright(x, y) { 200 } else { 40 }),
            label: crate::frame::Gray::from_fn(40, 40, |x, y| if bright(x, y) { simulate::DEFECT } else { simulate::GOOD }),
            clean: false,
            notes: simulate::Notes::default(),
        };
        let config = TrainConfig { uncovered_share: 0.0, ..config() };
        let mut shapes = std::collections::BTreeSet::new();
        for k in 0..64 {
            let mut batch = Batch::with_capacity(1, 32);
            add_crop(&config, &sample, 32, &mut generator(9, 3, k), &mut batch);
            let frame = &batch.pair[1024..];
            let marked: Vec<f32> = (0..1024).filter(|i| batch.label[*i] == 1.0).map(|i| frame[i]).collect();
            let rest: Vec<f32> = (0..1024).filter(|i| batch.label[*i] == 0.0).map(|i| frame[i]).collect();
            assert!(!marked.is_empty() && !rest.is_empty());
            assert!(marked.windows(2).all(|w| w[0] == w[1]) && rest.windows(2).all(|w| w[0] == w[1]));
            assert!(marked[0] != rest[0]);
            shapes.insert((0..1024).find(|i| batch.label[*i] == 1.0));
        }
        assert!(shapes.len() > 10, "crops hardly differ: {shapes:?}");
    }

    #[test]
    fn small_defects_weigh_more() {
        // 4, 16 and 100 pixels
        let square = |x: usize, y: usize| match (x, y) {
            (1..=2, 1..=2) | (8..=11, 1..=4) | (1..=10, 10..=19) => 1.0,
            _ => 0.0,
        };
        let label: Vec<f32> = (0..24 * 24).map(|i| square(i % 24, i / 24)).collect();
        let mut weight = vec![1.0; label.len()];
        emphasise(2.5, 24, &label, &mut weight);
        assert_eq!((weight[24 + 1], weight[24 + 8], weight[10 * 24 + 1], weight[0]), (2.5, 2.0, 1.0, 1.0));
    }

    #[test]
    fn uncovered_pixels_do_not_count() {
        let config = TrainConfig { uncovered_share: 1.0, ..config() };
        let loader = Loader::start(&config, 0, 0, 1).unwrap();
        let batch = loader.next().unwrap();
        let uncounted = batch.weight.iter().filter(|w| **w == 0.0).count();
        assert!(uncounted > 100 && uncounted < batch.weight.len() / 2, "{uncounted} of {}", batch.weight.len());
    }
}
