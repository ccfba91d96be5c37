//! The stages one after another on one thread: registration, network, decision, durable record.

use std::sync::Arc;

use super::Picture;
use super::figures::{Moment, Series, Times};
use crate::clock::{Clock as _, SystemClock};
use crate::decide::Decider;
use crate::error::{Error, Kind, Result};
use crate::infer::Detector;
use crate::pipeline::event::{Station, clock_state, event_of, model_ref};
use crate::pipeline::finders::Finders;
use crate::pipeline::job::Job;
use crate::pipeline::registrar::Registrar;
use crate::pipeline::steps;
use crate::record::store::{Store, StoreSettings};

/// Stages in the order of the line.
pub const STAGES: [&str; 4] = ["align", "infer", "decide", "record"];

/// Name of the bench's station.
const STATION: &str = "bench";

/// Times of a run.
#[derive(Debug, Clone, Default)]
pub struct Timed {
    /// In the order of [`STAGES`], over the frames that registration accepted.
    pub stages: [Times; 4],
    /// From picture to committed result.
    pub total: Times,
    /// Share of each frame's time of the stage `infer` that was spent within ONNX Runtime, 0..1.
    pub in_session: Series,
    /// Frames that registration refused; they are not among the times.
    pub refused: usize,
}

impl Timed {
    /// Adds another run's times.
    pub fn extend(&mut self, other: Self) {
        self.stages.iter_mut().zip(other.stages).for_each(|(a, b)| a.extend(b));
        self.total.extend(other.total);
        self.in_session.0.extend(other.in_session.0);
        self.refused += other.refused;
    }
}

/// Everything that a frame goes through.
pub struct Bench {
    finders: Finders,
    registrar: Registrar,
    decider: Decider,
    store: Store,
    station: Station,
    job: Job,
    _folder: tempfile::TempDir,
}

/// A spool in a folder of its own, and the station that writes it.
pub fn spool(detector: &Detector) -> Result<(tempfile::TempDir, Store, Station)> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("a folder for the bench's spool", e).with_kind(Kind::CannotCreate))?;
    let settings = StoreSettings { station: STATION.into(), ..StoreSettings::default() };
    let (store, _) = Store::open(&folder.path().join("ssds.db"), settings, Arc::new(SystemClock))?;
    let station = Station {
        name: STATION.into(),
        boot_id: store.boot_id().to_owned(),
        config_sha256: "0".repeat(64),
        simulated: true,
        product: STATION.into(),
        model: model_ref(detector.info()),
    };
    Ok((folder, store, station))
}

impl Bench {
    /// Ready for frames.
    ///
    /// # Errors
    /// A spool that cannot be made.
    pub fn new(detector: Detector) -> Result<Self> {
        let (folder, store, station) = spool(&detector)?;
        let (finders, registrar) = (Finders::new(Some(detector)), Registrar::new());
        Ok(Self { finders, registrar, decider: Decider::new(), store, station, job: Job::new(), _folder: folder })
    }

    /// The network.
    ///
    /// # Panics
    /// Never: [`Bench::new`] takes one.
    #[must_use]
    pub fn detector(&self) -> &Detector {
        self.finders.network().expect("the bench was made with a network")
    }

    /// Takes `frames` pictures in turn, from the first on, through every stage.
    ///
    /// # Errors
    /// A frame that the network, the decision or the spool fails on; with `strict` also when registration refused every one.
    pub fn run(&mut self, pictures: &[Picture], frames: usize, strict: bool) -> Result<Timed> {
        let mut timed = Timed::default();
        for i in 0..frames {
            let picture = &pictures[i % pictures.len()];
            let moments = self.one(picture)?;
            match &self.job.fault {
                None => {
                    for (times, pair) in timed.stages.iter_mut().zip(moments.windows(2)) {
                        times.push(&pair[0], &pair[1]);
                    }
                    let session_ms = self.detector().session_time().as_secs_f64() * 1e3;
                    timed.in_session.push(timed.stages[1].wall.0.last().map_or(f64::NAN, |stage_ms| session_ms / stage_ms));
                    timed.total.push(&moments[0], &moments[STAGES.len()]);
                }
                Some(fault) if fault.code == "ALIGN_FAIL" => timed.refused += 1,
                Some(fault) => return Err(Error::unavailable(format!("{}: {}", fault.code, fault.message))),
            }
        }
        if strict && timed.refused == frames {
            return Err(Error::data(format!("registration refused all {frames} frames: there is nothing to time")));
        }
        Ok(timed)
    }

    fn one(&mut self, picture: &Picture) -> Result<[Moment; 5]> {
        let clock = SystemClock;
        let job = &mut self.job;
        // A camera's conversion writes into the job's picture; that time is the camera's.
        job.image.resize_for_overwrite(picture.frame.width(), picture.frame.height());
        job.image.data_mut().copy_from_slice(picture.frame.data());
        (job.captured_at, job.captured_mono_ns) = (clock.now(), clock.mono_ns());
        job.product = Some(Arc::clone(&picture.product));
        (job.registration, job.decision, job.fault) = (None, None, None);
        job.admitted = std::time::Instant::now();
        let begun = Moment::now();
        steps::align(job, &mut self.registrar, None);
        let aligned = Moment::now();
        steps::infer(job, &mut self.finders);
        let inferred = Moment::now();
        steps::decide(job, &mut self.decider);
        let decided = Moment::now();
        let event = event_of(job, &self.station, clock_state(), None);
        self.store.record(&mut [event])?;
        Ok([begun, aligned, inferred, decided, Moment::now()])
    }
}
