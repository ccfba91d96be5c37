//! A camera on a thread of its own, so that no driver can hang the line.
//!
//! The thread `camera` opens the device, reads it and closes it; whoever uses a [`Guarded`] waits for its answers with a time-out. A call
//! that does not come back is a fault of the device: the thread is abandoned (it ends, and closes the device, as soon as the driver lets
//! it go) and another camera can be opened. Pictures cross by moving their memory; nothing is copied.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Camera, Grab, Losses, Values};
use crate::error::{Error, Kind, Result};
use crate::frame::Gray;

/// A read that is longer overdue than this counts as hung.
pub const GRACE: Duration = Duration::from_millis(1200);
/// A closing camera gets this long before its thread is abandoned; a GigE camera that is gone is asked in vain for up to five seconds.
const CLOSING: Duration = Duration::from_secs(7);
/// The same when a stop was asked.
const HURRIED: Duration = Duration::from_millis(1500);
/// Step of waiting while a camera opens.
const STEP: Duration = Duration::from_millis(20);

/// The thread has the device.
const RUNNING: u8 = 0;
/// The thread has closed the device.
const CLOSED: u8 = 1;
/// The thread was abandoned with the device.
const LEFT: u8 = 2;

/// Threads abandoned in a driver that have not come back.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// Number of camera threads that were abandoned and are still in a driver.
#[must_use]
pub fn abandoned() -> usize {
    ABANDONED.load(Ordering::Relaxed)
}

/// Opens the device, on the camera's thread.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Camera>> + Send>;

enum Order {
    Grab { timeout: Duration, spare: Option<Gray> },
    Trigger,
}

enum Answer {
    Opened { describe: String, may_be_silent: bool, values: Values, is_live: bool },
    Grabbed { grab: Grab, losses: Losses },
    Triggered,
    Failed(Error),
}

/// See the module.
pub struct Guarded {
    name: String,
    orders: Option<Sender<Order>>,
    answers: Receiver<Answer>,
    /// One of [`RUNNING`], [`CLOSED`], [`LEFT`].
    state: Arc<AtomicU8>,
    describe: String,
    may_be_silent: bool,
    values: Values,
    is_live: bool,
    losses: Losses,
    /// A read was asked for at this moment with this time-out and is not answered yet.
    outstanding: Option<(Instant, Duration)>,
    spare: Option<Gray>,
}

impl Guarded {
    /// Opens a camera and waits for it at most `limit`; `waiting` is called all the while and gives up by answering false. `name` stands in
    /// messages; `left` becomes true when the thread had to be abandoned in the driver.
    ///
    /// # Errors
    /// What `opener` answers; [`Kind::Unavailable`] when it does not come back in time; [`Kind::TryAgain`] when given up or when the system
    /// refuses a thread.
    pub fn open(name: &str, opener: Opener, limit: Duration, waiting: &mut dyn FnMut() -> bool, left: &mut bool) -> Result<Self> {
        // One order and one answer at a time.
        let (orders, at_thread) = bounded::<Order>(2);
        let (to_user, answers) = bounded::<Answer>(2);
        let state = Arc::new(AtomicU8::new(RUNNING));
        let (own_state, own_name) = (Arc::clone(&state), name.to_owned());
        std::thread::Builder::new()
            .name("camera".into())
            .spawn(move || {
                serve(opener, &at_thread, &to_user);
                if own_state.swap(CLOSED, Ordering::SeqCst) == LEFT {
                    ABANDONED.fetch_sub(1, Ordering::SeqCst);
                    log::warn!("{own_name}: its driver let go of an abandoned thread");
                }
            })
            .map_err(|e| Error::new(Kind::TryAgain, format!("thread camera cannot be started: {e}")))?;
        let mut this = Self {
            name: name.to_owned(),
            orders: Some(orders),
            answers,
            state,
            describe: String::new(),
            may_be_silent: false,
            values: Values::new(),
            is_live: true,
            losses: Losses::default(),
            outstanding: None,
            spare: None,
        };
        let start = Instant::now();
        let error = loop {
            match this.answers.recv_timeout(STEP) {
                Ok(Answer::Opened { describe, may_be_silent, values, is_live }) => {
                    (this.describe, this.may_be_silent, this.values, this.is_live) = (describe, may_be_silent, values, is_live);
                    return Ok(this);
                }
                Ok(Answer::Failed(e)) => break e,
                Ok(_) => break Error::internal("a camera answered before it was open"),
                Err(RecvTimeoutError::Disconnected) => break ended(name),
                Err(RecvTimeoutError::Timeout) if start.elapsed() >= limit => {
                    break Error::unavailable(format!("{name}: does not open within {:.1} s", limit.as_secs_f64()));
                }
                Err(RecvTimeoutError::Timeout) if !waiting() => {
                    break Error::new(Kind::TryAgain, format!("{name}: opening was given up"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        *left = !this.let_go(waiting);
        Err(error)
    }

    /// Closes the camera and waits until the device is free again; `waiting` is called all the while and shortens the wait by answering
    /// false. A driver that does not let go in time keeps the thread, which is counted as abandoned until it comes back: the answer is false.
    pub fn close(mut self, waiting: &mut dyn FnMut() -> bool) -> bool {
        self.let_go(waiting)
    }

    fn let_go(&mut self, waiting: &mut dyn FnMut() -> bool) -> bool {
        if self.orders.take().is_none() {
            return true;
        }
        let mut deadline = Instant::now() + CLOSING;
        let mut hurried = false;
        while self.state.load(Ordering::SeqCst) != CLOSED {
            if Instant::now() >= deadline {
                ABANDONED.fetch_add(1, Ordering::SeqCst);
                if self.state.swap(LEFT, Ordering::SeqCst) == CLOSED {
                    ABANDONED.fetch_sub(1, Ordering::SeqCst);
                    return true;
                }
                log::error!("{}: its driver does not let go; its thread is abandoned", self.name);
                return false;
            }
            if !waiting() && !std::mem::replace(&mut hurried, true) {
                deadline = deadline.min(Instant::now() + HURRIED);
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }

    fn order(&self, order: Order) -> Result<()> {
        let Some(orders) = &self.orders else { return Err(ended(&self.name)) };
        orders.send_timeout(order, GRACE).map_err(|_| hung(&self.name, GRACE))
    }

    /// Waits for one answer; `None` when none came.
    fn answer(&mut self, timeout: Duration) -> Result<Option<Answer>> {
        match self.answers.recv_timeout(timeout) {
            Ok(Answer::Failed(e)) => Err(e),
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ended(&self.name)),
        }
    }

    fn overdue(&self) -> Option<Duration> {
        self.outstanding.map(|(since, timeout)| since.elapsed().saturating_sub(timeout)).filter(|late| *late > GRACE)
    }
}

fn hung(name: &str, late: Duration) -> Error {
    Error::unavailable(format!("{name}: its driver has not answered for {:.1} s", late.as_secs_f64()))
}

fn ended(name: &str) -> Error {
    Error::unavailable(format!("{name}: its thread has ended"))
}

/// The thread's body: opens, serves orders, closes when the user is gone.
fn serve(opener: Opener, orders: &Receiver<Order>, answers: &Sender<Answer>) {
    let mut camera = match opener() {
        Ok(camera) => camera,
        Err(e) => {
            // Nobody listening means the opening was given up.
            let _ = answers.send(Answer::Failed(e));
            return;
        }
    };
    let opened = Answer::Opened {
        describe: camera.describe(),
        may_be_silent: camera.may_be_silent(),
        values: camera.values(),
        is_live: camera.is_live(),
    };
    if answers.send(opened).is_err() {
        return;
    }
    while let Ok(order) = orders.recv() {
        let answer = match order {
            Order::Grab { timeout, spare } => {
                if let Some(spare) = spare {
                    camera.recycle(spare);
                }
                match camera.grab(timeout) {
                    Ok(grab) => Answer::Grabbed { grab, losses: camera.losses() },
                    Err(e) => Answer::Failed(e),
                }
            }
            Order::Trigger => camera.trigger().map_or_else(Answer::Failed, |()| Answer::Triggered),
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

impl Camera for Guarded {
    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn may_be_silent(&self) -> bool {
        self.may_be_silent
    }

    fn values(&self) -> Values {
        self.values.clone()
    }

    fn is_live(&self) -> bool {
        self.is_live
    }

    fn losses(&self) -> Losses {
        self.losses.clone()
    }

    fn recycle(&mut self, picture: Gray) {
        self.spare = Some(picture);
    }

    /// Waits at most `timeout`; a read that the device has not finished by then goes on and is answered by a later call.
    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        if self.outstanding.is_none() {
            let spare = self.spare.take();
            self.order(Order::Grab { timeout, spare })?;
            self.outstanding = Some((Instant::now(), timeout));
        }
        match self.answer(timeout)? {
            Some(Answer::Grabbed { grab, losses }) => {
                self.outstanding = None;
                self.losses = losses;
                Ok(grab)
            }
            Some(_) => Err(Error::internal("a camera answered a read with something else")),
            None => match self.overdue() {
                Some(late) => Err(hung(&self.name, late)),
                None => Ok(Grab::Idle),
            },
        }
    }

    /// Triggers. A read under way ends first; what it brought was exposed before the trigger and is thrown away.
    fn trigger(&mut self) -> Result<()> {
        if let Some((_, timeout)) = self.outstanding.take() {
            match self.answer(timeout + GRACE)? {
                Some(Answer::Grabbed { grab: Grab::Frame(frame), losses }) => {
                    self.losses = losses;
                    self.losses.count("untriggered");
                    self.spare = Some(frame.image);
                }
                Some(_) => {}
                None => return Err(hung(&self.name, GRACE)),
            }
        }
        self.order(Order::Trigger)?;
        match self.answer(GRACE)? {
            Some(Answer::Triggered) => Ok(()),
            Some(_) => Err(Error::internal("a camera answered a trigger with something else")),
            None => Err(hung(&self.name, GRACE)),
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.let_go(&mut || true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Captured;
    use crate::clock::{Clock, SystemClock};

    /// Answers reads as it is told; hangs where it is told.
    struct Told {
        grabs: Receiver<Option<Duration>>,
        number: u64,
    }

    impl Camera for Told {
        fn describe(&self) -> String {
            "told".into()
        }

        fn grab(&mut self, timeout: Duration) -> Result<Grab> {
            match self.grabs.recv_timeout(timeout) {
                Ok(Some(hang)) => {
                    std::thread::sleep(hang);
                    Ok(Grab::Idle)
                }
                Ok(None) => {
                    self.number += 1;
                    Ok(Grab::Frame(Captured {
                        image: Gray::new(2, 2),
                        captured_at: SystemClock.now(),
                        captured_mono_ns: SystemClock.mono_ns(),
                        device_sequence: self.number,
                        device_time_ns: None,
                        source: "told".into(),
                        part_id: None,
                    }))
                }
                Err(_) => Ok(Grab::Idle),
            }
        }

        fn trigger(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn told() -> (Guarded, Sender<Option<Duration>>) {
        let (tell, grabs) = bounded(8);
        let opener: Opener = Box::new(move || Ok(Box::new(Told { grabs, number: 0 })));
        (Guarded::open("cam", opener, Duration::from_secs(5), &mut || true, &mut false).unwrap(), tell)
    }

    fn number(grab: Grab) -> u64 {
        match grab {
            Grab::Frame(f) => f.device_sequence,
            other => panic!("wanted a frame, got {other:?}"),
        }
    }

    #[test]
    fn frames_come_through_in_order_and_a_slow_read_is_idle_first() {
        let (mut camera, tell) = told();
        tell.send(None).unwrap();
        assert_eq!(number(camera.grab(Duration::from_secs(5)).unwrap()), 1);
        assert!(matches!(camera.grab(Duration::from_millis(1)).unwrap(), Grab::Idle));
        tell.send(None).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        let next = loop {
            match camera.grab(Duration::from_millis(50)).unwrap() {
                Grab::Idle if Instant::now() < until => {}
                other => break number(other),
            }
        };
        assert_eq!(next, 2);
    }

    #[test]
    fn a_hung_driver_is_an_error_and_its_thread_is_counted_until_it_returns() {
        let (mut camera, tell) = told();
        tell.send(Some(Duration::from_secs(11))).unwrap();
        let start = Instant::now();
        let error = loop {
            match camera.grab(Duration::from_millis(50)) {
                Ok(Grab::Idle) if start.elapsed() < Duration::from_secs(7) => {}
                Ok(other) => panic!("{other:?}"),
                Err(e) => break e,
            }
        };
        assert!(error.to_string().starts_with("cam: its driver has not answered for 1."), "{error}");
        assert!(error.kind().is_retryable());
        let state = Arc::clone(&camera.state);
        assert!(!camera.close(&mut || true));
        assert!(abandoned() > 0);
        let until = Instant::now() + Duration::from_secs(30);
        while state.load(Ordering::SeqCst) != CLOSED {
            assert!(Instant::now() < until, "the thread never came back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn what_was_exposed_before_the_trigger_is_thrown_away() {
        let (mut camera, tell) = told();
        // A read is under way when the trigger comes; its frame was exposed before.
        let mut read = 0;
        loop {
            tell.send(None).unwrap();
            read += 1;
            // Where the thread was quicker than this one, once more.
            if matches!(camera.grab(Duration::ZERO).unwrap(), Grab::Idle) {
                break;
            }
        }
        camera.trigger().unwrap();
        assert_eq!(camera.losses().by_status.get("untriggered"), Some(&1));
        tell.send(None).unwrap();
        assert_eq!(number(camera.grab(Duration::from_secs(5)).unwrap()), read + 1);
    }

    #[test]
    fn a_camera_that_does_not_open_is_given_up() {
        let slow = |secs| -> Opener {
            Box::new(move || {
                std::thread::sleep(Duration::from_secs_f64(secs));
                Err(Error::unavailable("not there"))
            })
        };
        let late = Guarded::open("cam", slow(1.0), Duration::from_millis(60), &mut || true, &mut false).map(|_| ()).unwrap_err();
        assert_eq!(late.to_string(), "cam: does not open within 0.1 s");
        let given_up =
            Guarded::open("cam", slow(1.0), Duration::from_secs(5), &mut || false, &mut false).map(|_| ()).unwrap_err();
        assert_eq!(given_up.kind(), Kind::TryAgain);
        let failed = Guarded::open("cam", slow(0.0), Duration::from_secs(5), &mut || true, &mut false).map(|_| ()).unwrap_err();
        assert_eq!(failed.to_string(), "not there");
    }
}
