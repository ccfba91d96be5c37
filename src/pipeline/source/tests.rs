//! The capture stage with a camera that does what it is told, and with a GigE camera that comes and goes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::bounded;

use super::super::ActiveProduct;
use super::super::trigger::TriggerHandle;
use super::*;
use crate::capture::Values;
use crate::clock::SystemClock;
use crate::frame::Gray;
use crate::template::{Meta, Template};

/// What a told camera does at a read.
#[derive(Debug, Clone)]
enum Act {
    /// A frame of this gray level.
    Frame(u8),
    /// The same, handed over so long after its exposure.
    Late(u8, Duration),
    /// Fails.
    Fail(&'static str),
    /// Sits in the driver for so long.
    Hang(Duration),
}

/// Reads act as told; frames come at once, or, triggered, one a trigger.
struct Told {
    acts: Receiver<Act>,
    triggered: bool,
    silent: bool,
    triggers: u64,
    number: u64,
    name: &'static str,
}

impl Camera for Told {
    fn describe(&self) -> String {
        self.name.into()
    }

    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        if self.triggered && self.triggers == 0 {
            return Ok(Grab::Idle);
        }
        let Ok(act) = self.acts.recv_timeout(timeout) else { return Ok(Grab::Idle) };
        let exposed = SystemClock.mono_ns();
        match act {
            Act::Frame(level) | Act::Late(level, _) => {
                if let Act::Late(_, by) = act {
                    std::thread::sleep(by);
                }
                self.triggers = self.triggers.saturating_sub(1);
                self.number += 1;
                Ok(Grab::Frame(Captured {
                    image: Gray::from_fn(4, 3, |x, _| level.wrapping_add(x as u8)),
                    captured_at: SystemClock.now(),
                    captured_mono_ns: exposed,
                    device_sequence: self.number,
                    device_time_ns: None,
                    source: self.name.into(),
                    part_id: None,
                }))
            }
            Act::Fail(why) => Err(Error::unavailable(why)),
            Act::Hang(long) => {
                std::thread::sleep(long);
                Ok(Grab::Idle)
            }
        }
    }

    fn trigger(&mut self) -> Result<()> {
        self.triggers += 1;
        Ok(())
    }

    fn may_be_silent(&self) -> bool {
        self.silent
    }

    fn values(&self) -> Values {
        [("exposure_us".to_owned(), "1000".to_owned())].into()
    }
}

/// A running capture stage with its queues in the test's hands.
struct Line {
    pub jobs: Receiver<Box<Job>>,
    pub answered: Receiver<Box<Job>>,
    pub trigger: TriggerHandle,
    pub product: ActiveProduct,
    pub status: Status,
    pub ledger: Ledger,
    pub telemetry: Telemetry,
    pub pool: Pool,
    shutdown: Shutdown,
    pub opened: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Line {
    fn start(software: Option<Duration>, frozen: u32, open: OpenCamera) -> Self {
        let (output, jobs) = bounded(64);
        let (answer, answered) = bounded(64);
        let hold = Hold::default();
        let product = ActiveProduct::default();
        let mode = Mode::new(if software.is_some() { Trigger::Software } else { Trigger::Free }, Arc::clone(&product));
        let (trigger, orders) = TriggerHandle::new(mode.clone(), hold.clone(), Arc::new(SystemClock));
        let (telemetry, status, shutdown) = (Telemetry::new(), Status::new(), Shutdown::new());
        let ledger = Ledger::new(&telemetry);
        let pool = Pool::new(8);
        let opened = Arc::new(AtomicU64::new(0));
        let own_opened = Arc::clone(&opened);
        let source = Source {
            open: Arc::new(move |mode| {
                own_opened.fetch_add(1, Ordering::SeqCst);
                open(mode)
            }),
            timeout: Duration::from_millis(1000),
            probes: crossbeam_channel::never(),
            overload: Some(Overload::Wait),
            mode,
            trigger_word: None,
            ledger: ledger.clone(),
            pool: pool.clone(),
            output,
            oldest: jobs.clone(),
            answered: answer,
            product: Arc::clone(&product),
            hold,
            orders,
            trigger_timeout: software.unwrap_or(PATIENCE),
            open_limit: Duration::from_secs(10),
            frozen: Frozen::new(frozen),
            shutdown: shutdown.clone(),
            status: status.clone(),
            clock: Arc::new(SystemClock),
            telemetry: telemetry.clone(),
        };
        let thread = std::thread::Builder::new().name("capture".into()).spawn(move || source.run(&Pulse::default())).unwrap();
        Self { jobs, answered, trigger, product, status, ledger, telemetry, pool, shutdown, opened, thread: Some(thread) }
    }

    fn told(software: Option<Duration>, frozen: u32) -> (Self, Sender<Act>) {
        let (tell, acts) = bounded(256);
        let open: OpenCamera = Arc::new(move |mode| {
            let (triggered, silent) = (mode == Trigger::Software, mode != Trigger::Free);
            Ok(Box::new(Told { acts: acts.clone(), triggered, silent, triggers: 0, number: 0, name: "told" }))
        });
        (Self::start(software, frozen, open), tell)
    }

    fn job(&self) -> Box<Job> {
        settle(self.jobs.recv_timeout(PATIENCE).expect("a frame for registration"))
    }

    fn answer(&self) -> Box<Job> {
        settle(self.answered.recv_timeout(PATIENCE).expect("an answer without inspection"))
    }

    fn wait_for(&self, what: &str, seen: impl Fn(&crate::status::Facts) -> bool) -> Duration {
        let start = Instant::now();
        while !seen(&self.status.facts()) {
            assert!(start.elapsed() < PATIENCE, "never seen: {what}; {:?}", self.status.facts());
            std::thread::sleep(Duration::from_millis(2));
        }
        start.elapsed()
    }

    fn wait_for_opened(&self, times: u64) {
        let start = Instant::now();
        while self.opened.load(Ordering::SeqCst) < times {
            assert!(start.elapsed() < PATIENCE, "the camera was not opened {times} times");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn switch(&self, trigger: Trigger) {
        *self.product.write().unwrap() = Some(product(trigger));
    }

    fn fire(&self, part: &str) {
        self.trigger.fire(Order { part_id: Some(part.into()), job_id: Some("J1".into()), ..Order::from("mqtt") }).unwrap();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shutdown.ask();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        for job in self.jobs.try_iter().chain(self.answered.try_iter()) {
            settle(job);
        }
        assert_eq!(self.ledger.balance().in_flight(), 0);
        assert_eq!(self.ledger.balance().lost, 0);
    }
}

/// Long enough for a machine that does much else; never part of a judgement.
const PATIENCE: Duration = Duration::from_secs(60);

fn settle(mut job: Box<Job>) -> Box<Job> {
    if let Some(token) = &mut job.token {
        token.recorded();
    }
    job
}

fn code(job: &Job) -> &'static str {
    job.fault.as_ref().map_or("none", |f| f.code)
}

fn part(job: &Job) -> &str {
    job.part_id.as_deref().unwrap_or("none")
}

const SOFTWARE: Option<Duration> = Some(Duration::from_millis(400));

#[test]
fn a_trigger_s_ids_travel_with_its_frame() {
    let (line, tell) = Line::told(SOFTWARE, 0);
    line.wait_for("camera up before the first part", |f| f.camera_up);
    for (level, name) in [(10, "SN1"), (20, "SN2")] {
        line.fire(name);
        tell.send(Act::Frame(level)).unwrap();
        let job = line.job();
        assert_eq!((part(&job), job.job_id.as_deref(), job.trigger, code(&job)), (name, Some("J1"), "mqtt", "none"));
        assert_eq!(job.image.get(0, 0), level);
    }
    assert_eq!(line.status.facts().camera_values["exposure_us"], "1000");
}

/// A product whose recipe asks for this trigger mode.
fn product(trigger: Trigger) -> Arc<Product> {
    let image = crate::simulate::part::product(3, (128, 96)).unwrap();
    let template = Template::loose("board/main", image, Meta::at(SystemClock.now())).unwrap();
    let settings = (crate::decide::Settings::default(), crate::align::Settings::default());
    let product = Product::new(vec![(Arc::new(template), settings.0)], &settings.1).unwrap();
    Arc::new(Product { trigger: Some(trigger), ..product })
}

#[test]
fn a_recipe_switches_the_trigger_mode_between_two_parts() {
    let (line, tell) = Line::told(None, 0);
    tell.send(Act::Frame(1)).unwrap();
    assert_eq!(line.job().trigger, "free_run");
    assert_eq!(line.trigger.fire(Order::from("mqtt")).unwrap_err().kind(), Kind::Usage);

    // From now on nothing is inspected without a trigger, by whichever camera it comes.
    line.switch(Trigger::Software);
    line.wait_for("triggered", |f| f.triggered);
    tell.send(Act::Frame(2)).unwrap();
    line.fire("SN1");
    let job = line.job();
    assert_eq!((part(&job), job.trigger, job.image.get(0, 0)), ("SN1", "mqtt", 2));
    assert_eq!(line.opened.load(Ordering::SeqCst), 2);

    // The part whose picture is awaited is finished before the camera is opened in the other mode.
    line.fire("SN2");
    while line.trigger.waiting() > 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    line.switch(Trigger::Free);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(line.opened.load(Ordering::SeqCst), 2);
    tell.send(Act::Frame(3)).unwrap();
    let job = line.job();
    assert_eq!((part(&job), job.trigger, job.image.get(0, 0)), ("SN2", "mqtt", 3));
    line.wait_for("free run", |f| !f.triggered);
    tell.send(Act::Frame(4)).unwrap();
    assert_eq!((line.job().trigger, line.opened.load(Ordering::SeqCst)), ("free_run", 3));

    // A trigger given in the very moment of a switch is answered, with its frame or with why there is none.
    for n in 0..10 {
        let name = format!("SN1{n}");
        line.switch(Trigger::Software);
        line.fire(&name);
        line.switch(Trigger::Free);
        tell.send(Act::Frame(5)).unwrap();
        let start = Instant::now();
        let answered = loop {
            let job = line.jobs.try_recv().or_else(|_| line.answered.try_recv());
            assert!(start.elapsed() < PATIENCE, "{name} was never answered");
            match job {
                Ok(job) if part(&job) == name => break settle(job),
                Ok(job) => drop(settle(job)),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        assert!(["none", "OVERRUN", "CAMERA_LOST"].contains(&code(&answered)), "{name}: {}", code(&answered));
    }
}

#[test]
fn a_hardware_trigger_s_frame_carries_the_ids_given_before_it() {
    let (line, tell) = Line::told(SOFTWARE, 0);
    // First in the mode of the start: a switch that comes before would have the camera opened once only.
    line.wait_for_opened(1);
    line.switch(Trigger::Hardware);
    line.wait_for_opened(2);
    line.wait_for("hardware mode", |f| f.triggered && f.camera_values.contains_key("exposure_us"));
    // The input takes pictures of parts that nobody named.
    tell.send(Act::Frame(1)).unwrap();
    let job = line.job();
    assert_eq!((part(&job), job.trigger, job.image.get(0, 0)), ("none", "gpio", 1));

    // The camera is waited for meanwhile: the name is older than the frame, and so it is the frame's.
    for (level, name) in [(2, "SN1"), (3, "SN2")] {
        line.fire(name);
        tell.send(Act::Frame(level)).unwrap();
        let job = line.job();
        let ids = (part(&job), job.job_id.as_deref(), job.trigger, job.image.get(0, 0));
        assert_eq!(ids, (name, Some("J1"), "gpio", level));
    }

    // A frame exposed before the name was given is not its part's, however late it arrives; the next one is.
    tell.send(Act::Late(4, Duration::from_millis(50))).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    line.fire("SN3");
    let job = line.job();
    assert_eq!((part(&job), job.image.get(0, 0)), ("none", 4));
    // One name at a time.
    line.fire("SN4");
    let over = line.answer();
    assert_eq!((part(&over), over.trigger, code(&over)), ("SN4", "mqtt", "OVERRUN"));
    tell.send(Act::Frame(5)).unwrap();
    let job = line.job();
    assert_eq!((part(&job), job.image.get(0, 0)), ("SN3", 5));

    // A named part that does not come is answered, and the camera is not blamed for it.
    line.fire("SN5");
    let missed = line.answer();
    assert_eq!((part(&missed), code(&missed)), ("SN5", "CAMERA_TIMEOUT"));
    assert_eq!(missed.fault.as_ref().unwrap().message, "no frame by the camera's input within 400 ms of the part's name");
    tell.send(Act::Frame(6)).unwrap();
    let job = line.job();
    assert_eq!((part(&job), job.image.get(0, 0)), ("none", 6));
    assert_eq!(line.opened.load(Ordering::SeqCst), 2);
}

#[test]
fn a_second_trigger_is_an_overrun_and_the_first_gets_its_frame() {
    let (line, tell) = Line::told(Some(PATIENCE), 0);
    line.wait_for("camera up", |f| f.camera_up);
    line.fire("SN1");
    line.fire("SN2");
    let over = line.answer();
    assert_eq!((part(&over), code(&over)), ("SN2", "OVERRUN"));
    tell.send(Act::Frame(10)).unwrap();
    let job = line.job();
    assert_eq!((part(&job), code(&job)), ("SN1", "none"));
}

#[test]
fn a_trigger_without_a_frame_times_out_and_its_late_frame_is_nobody_s() {
    let (line, tell) = Line::told(SOFTWARE, 0);
    line.wait_for("camera up", |f| f.camera_up);
    line.fire("SN1");
    let late = line.answer();
    assert_eq!((part(&late), code(&late)), ("SN1", "CAMERA_TIMEOUT"));
    assert_eq!(late.fault.as_ref().unwrap().message, "no frame within 400 ms of the trigger");
    // The camera is opened anew, and takes triggers again.
    let before = line.opened.load(Ordering::SeqCst);
    line.wait_for("camera up again", |f| f.camera_up && line.opened.load(Ordering::SeqCst) > before.min(1));
    tell.send(Act::Frame(30)).unwrap();
    loop {
        line.fire("SN2");
        match line.jobs.recv_timeout(Duration::from_millis(1500)) {
            Ok(job) => {
                let job = settle(job);
                assert_eq!((part(&job), job.image.get(0, 0)), ("SN2", 30));
                break;
            }
            // Asked while the camera was opening.
            Err(_) => assert_eq!(code(&line.answer()), "CAMERA_LOST"),
        }
    }
}

#[test]
fn a_frame_nobody_asked_for_is_counted_and_not_inspected() {
    let (tell, acts) = bounded(16);
    // A camera that sends frames without a trigger.
    let open: OpenCamera = Arc::new(move |_| {
        Ok(Box::new(Told { acts: acts.clone(), triggered: false, silent: false, triggers: 0, number: 0, name: "eager" }))
    });
    let line = Line::start(SOFTWARE, 0, open);
    tell.send(Act::Frame(1)).unwrap();
    let help = "Frames that did not arrive whole or were not asked for, by status; never inspected.";
    let counter = line.telemetry.counter("ssds_camera_incomplete_total", help, &[("status", "untriggered")]);
    let start = Instant::now();
    while counter.get() == 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(line.jobs.is_empty() && line.answered.is_empty());
    assert_eq!(line.ledger.balance().captured, 0);
}

#[test]
fn triggers_without_a_camera_are_answered_at_once() {
    let open: OpenCamera = Arc::new(|_| Err(Error::unavailable("camera top (/dev/x): not there")));
    let line = Line::start(SOFTWARE, 0, open);
    line.wait_for("the problem", |f| !f.camera_problem.is_empty());
    line.fire("SN1");
    let job = line.answer();
    assert_eq!((part(&job), code(&job)), ("SN1", "CAMERA_LOST"));
    assert!(job.fault.as_ref().unwrap().message.contains("not there"), "{:?}", job.fault);
    // And it is tried for ever.
    line.wait_for_opened(line.opened.load(Ordering::SeqCst) + 2);
}

#[test]
fn a_failing_camera_is_reported_and_opened_again() {
    let (line, tell) = Line::told(None, 0);
    tell.send(Act::Frame(1)).unwrap();
    line.job();
    tell.send(Act::Fail("camera top: reading a frame: Input/output error (os error 5)")).unwrap();
    line.wait_for("the failure", |f| !f.camera_up && f.camera_problem.contains("os error 5"));
    tell.send(Act::Frame(2)).unwrap();
    assert_eq!(line.job().image.get(0, 0), 2);
    line.wait_for("up again", |f| f.camera_up && f.camera_problem.is_empty());
    assert_eq!(line.opened.load(Ordering::SeqCst), 2);
}

#[test]
fn a_silent_camera_is_lost() {
    let (line, tell) = Line::told(None, 0);
    tell.send(Act::Frame(1)).unwrap();
    line.job();
    line.wait_for("silence", |f| !f.camera_up && f.camera_problem.starts_with("no frame for 1."));
}

#[test]
fn a_hanging_driver_does_not_hang_the_line() {
    let (line, tell) = Line::told(None, 0);
    tell.send(Act::Frame(1)).unwrap();
    line.job();
    line.wait_for("up", |f| f.camera_up);
    tell.send(Act::Hang(Duration::from_secs(12))).unwrap();
    line.wait_for("the hang", |f| !f.camera_up && !f.camera_problem.is_empty());
    // The thread in the driver is left behind, and another one reads.
    tell.send(Act::Frame(2)).unwrap();
    assert_eq!(line.job().image.get(0, 0), 2);
    let restarts = line.telemetry.counter("ssds_camera_restarts_total", "", &[]).get();
    assert_eq!(restarts, 1);
}

#[test]
fn a_sixth_restart_within_a_minute_waits() {
    let (line, _tell) = Line::told(None, 0);
    let (output, jobs) = bounded(1);
    let (answered, _at_record) = bounded(1);
    let source = Source {
        open: Arc::new(|_| Err(Error::unavailable("none"))),
        timeout: Duration::from_secs(1),
        probes: crossbeam_channel::never(),
        overload: Some(Overload::Wait),
        mode: Mode::new(Trigger::Free, ActiveProduct::default()),
        trigger_word: None,
        ledger: line.ledger.clone(),
        pool: Pool::new(1),
        output,
        oldest: jobs,
        answered,
        product: Arc::default(),
        hold: Hold::default(),
        orders: crossbeam_channel::never(),
        trigger_timeout: PATIENCE,
        open_limit: Duration::from_secs(1),
        frozen: Frozen::new(0),
        shutdown: Shutdown::new(),
        status: Status::new(),
        clock: Arc::new(SystemClock),
        telemetry: line.telemetry.clone(),
    };
    let mut restarts = VecDeque::new();
    assert!((0..RESTARTS).all(|_| source.restart_pause(&mut restarts) == Duration::ZERO));
    let pause = source.restart_pause(&mut restarts);
    assert!(pause > Duration::ZERO && pause <= RESTART_WINDOW, "{pause:?}");
}

#[test]
fn wrong_settings_end_the_line_and_another_device_later_does_not() {
    let open: OpenCamera = Arc::new(|_| Err(Error::config("camera top: offers H264, wanted GREY")));
    let line = Line::start(None, 0, open);
    let start = Instant::now();
    while !line.thread.as_ref().is_some_and(std::thread::JoinHandle::is_finished) {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(line.status.take_fatal().unwrap().kind(), Kind::Config);

    // Plugged in again, it is another device at first.
    let (tell, acts) = bounded(16);
    let tries = Mutex::new(0);
    let open: OpenCamera = Arc::new(move |_| {
        let mut n = tries.lock().unwrap();
        *n += 1;
        if *n == 2 {
            return Err(Error::config("camera top: offers H264, wanted GREY"));
        }
        Ok(Box::new(Told { acts: acts.clone(), triggered: false, silent: false, triggers: 0, number: 0, name: "told" }))
    });
    let line = Line::start(None, 0, open);
    tell.send(Act::Frame(1)).unwrap();
    line.job();
    tell.send(Act::Fail("unplugged")).unwrap();
    line.wait_for("the other device", |f| f.camera_problem.contains("wanted GREY"));
    tell.send(Act::Frame(2)).unwrap();
    assert_eq!(line.job().image.get(0, 0), 2);
}

#[test]
fn a_frozen_picture_is_an_error_and_an_alarm_until_it_moves() {
    let (line, tell) = Line::told(None, 3);
    for _ in 0..4 {
        tell.send(Act::Frame(7)).unwrap();
    }
    assert_eq!((code(&line.job()), code(&line.job())), ("none", "none"));
    for repeats in [3, 4] {
        let job = line.answer();
        assert_eq!(code(&job), "FRAME_STALE");
        assert!(job.fault.as_ref().unwrap().message.starts_with(&format!("{repeats} frames in a row")), "{:?}", job.fault);
    }
    assert_eq!(line.status.facts().camera_frozen, Some(4));
    tell.send(Act::Frame(8)).unwrap();
    assert_eq!(code(&line.job()), "none");
    assert_eq!(line.status.facts().camera_frozen, None);
}

/// A driver's buffer of two megapixels, unpacked as the real back ends do; says when and where it unpacked.
struct Sensor {
    buffer: Vec<u8>,
    spare: Gray,
    asked: Receiver<()>,
    unpacked: Sender<(Instant, Instant, usize)>,
    recycled: Arc<AtomicU64>,
}

const SENSOR: (usize, usize) = (1600, 1250);

impl Camera for Sensor {
    fn describe(&self) -> String {
        "sensor".into()
    }

    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        if self.asked.recv_timeout(timeout).is_err() {
            return Ok(Grab::Idle);
        }
        let mut image = std::mem::take(&mut self.spare);
        let begin = Instant::now();
        crate::capture::unpack::to_gray(crate::capture::unpack::Layout::Mono8, &self.buffer, SENSOR.0, SENSOR.1, 0, &mut image)?;
        self.unpacked.send((begin, Instant::now(), image.data().as_ptr() as usize)).unwrap();
        Ok(Grab::Frame(Captured {
            image,
            captured_at: SystemClock.now(),
            captured_mono_ns: SystemClock.mono_ns(),
            device_sequence: 0,
            device_time_ns: None,
            source: "sensor".into(),
            part_id: None,
        }))
    }

    fn recycle(&mut self, picture: Gray) {
        self.recycled.fetch_add(u64::from(picture.size() == SENSOR), Ordering::SeqCst);
        self.spare = picture;
    }
}

/// From the driver's buffer to registration's queue a picture is written once, by the unpacking. The times are printed, not judged.
#[test]
fn hand_over_of_two_megapixels_copies_nothing() {
    let (ask, asked) = bounded(1);
    let (unpacked, at_unpacked) = bounded(4);
    let recycled = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&recycled);
    let open: OpenCamera = Arc::new(move |_| {
        Ok(Box::new(Sensor {
            buffer: (0..SENSOR.0 * SENSOR.1).map(|i| (i % 251) as u8).collect(),
            spare: Gray::default(),
            asked: asked.clone(),
            unpacked: unpacked.clone(),
            recycled: Arc::clone(&own),
        }))
    });
    // With the watch for frozen pictures, which reads every pixel.
    let line = Line::start(None, 1000, open);
    let pool = line.pool.clone();
    let (mut unpack_us, mut added_us) = (Vec::new(), Vec::new());
    for n in 0..60 {
        ask.send(()).unwrap();
        let job = line.jobs.recv_timeout(PATIENCE).unwrap();
        let here = Instant::now();
        let (begin, end, pointer) = at_unpacked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(job.image.data().as_ptr() as usize, pointer, "the pixels are where the unpacking wrote them");
        assert_eq!(job.image.size(), SENSOR);
        if n >= 10 {
            unpack_us.push((end - begin).as_secs_f64() * 1e6);
            added_us.push((here - end).as_secs_f64() * 1e6);
        }
        pool.put(settle(job));
    }
    // Once the queues' jobs are in turn, no memory is asked for any more.
    assert!(recycled.load(Ordering::SeqCst) >= 50, "{recycled:?}");
    let median = |v: &mut Vec<f64>| {
        v.sort_by(f64::total_cmp);
        (v[v.len() / 2], v[v.len() * 95 / 100])
    };
    let ((unpack, unpack95), (added, added95)) = (median(&mut unpack_us), median(&mut added_us));
    println!(
        "hand-over of a {}x{} GREY frame: unpack {unpack:.0} us (p95 {unpack95:.0}), from there to registration's queue {added:.0} us (p95 {added95:.0})",
        SENSOR.0, SENSOR.1
    );
}

#[cfg(feature = "genicam")]
mod gige;
