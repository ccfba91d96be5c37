//! Watches the stages and talks to systemd.
//!
//! The watchdog is fed by progress, not by a timer: a stage that works on one frame for longer than the stall limit, or whose thread is
//! gone while the line should run, stops the feeding; systemd then restarts a clean process. `READY=1` is sent once model, template and
//! store are ready.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::stage::Pulse;
use crate::clock::Clock;

/// What the supervisor found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Every stage works or waits.
    Alive,
    /// A stage has been busy with one frame for too long.
    Stalled {
        /// The stage.
        stage: &'static str,
        /// For how long.
        busy: Duration,
    },
    /// A stage shows no sign of life.
    Silent {
        /// The stage.
        stage: &'static str,
    },
}

/// Watches [`Pulse`]s.
pub struct Supervisor {
    pulses: Vec<(&'static str, Pulse, u64, u64)>,
    stall: Duration,
    watchdog: Option<Duration>,
    last_fed: Instant,
    reported: bool,
}

impl Supervisor {
    /// Watches these stages; `stall` is the longest time on one frame.
    #[must_use]
    pub fn new(pulses: Vec<(&'static str, Pulse)>, stall: Duration, clock: &dyn Clock) -> Self {
        let now = clock.mono_ns();
        Self {
            pulses: pulses.into_iter().map(|(name, pulse)| (name, pulse, 0, now)).collect(),
            stall,
            watchdog: sd_notify::watchdog_enabled(),
            last_fed: Instant::now(),
            reported: false,
        }
    }

    /// Looks at every stage.
    pub fn look(&mut self, now_ns: u64) -> Health {
        for (stage, pulse, beats, seen_ns) in self.pulses.iter_mut().filter(|(_, pulse, ..)| !pulse.has_ended()) {
            let busy = pulse.busy_for(now_ns);
            if busy > self.stall {
                return Health::Stalled { stage, busy };
            }
            if pulse.beats() != *beats {
                (*beats, *seen_ns) = (pulse.beats(), now_ns);
            } else if busy == Duration::ZERO && now_ns.saturating_sub(*seen_ns) > self.stall.as_nanos() as u64 {
                return Health::Silent { stage };
            }
        }
        Health::Alive
    }

    /// Looks, reports a stall once, and feeds systemd's watchdog while all is well.
    pub fn tick(&mut self, clock: &dyn Clock) -> Health {
        let health = self.look(clock.mono_ns());
        match &health {
            Health::Alive => {
                self.reported = false;
                if let Some(period) = self.watchdog
                    && self.last_fed.elapsed() >= period / 4
                {
                    notify(&[NotifyState::Watchdog]);
                    self.last_fed = Instant::now();
                }
            }
            Health::Stalled { stage, busy } if !self.reported => {
                log::error!(
                    "stage {stage} has been busy with one frame for {:.1} s; the watchdog is not fed",
                    busy.as_secs_f64()
                );
                self.reported = true;
            }
            Health::Silent { stage } if !self.reported => {
                log::error!("stage {stage} shows no sign of life; the watchdog is not fed");
                self.reported = true;
            }
            _ => {}
        }
        health
    }
}

/// Tells systemd; without it (`NOTIFY_SOCKET` unset) nothing happens.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("systemd cannot be notified: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};

    #[test]
    fn a_stall_and_a_dead_thread_are_told_apart_from_waiting() {
        let clock = SimulatedClock::new(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(1));
        let (a, b) = (Pulse::default(), Pulse::default());
        let mut supervisor = Supervisor::new(vec![("a", a.clone()), ("b", b.clone())], Duration::from_secs(10), &clock);
        let beat = |clock: &SimulatedClock, secs| {
            clock.advance(Duration::from_secs(secs));
            clock.mono_ns()
        };
        a.idle();
        b.busy(clock.mono_ns());
        assert_eq!(supervisor.look(beat(&clock, 5)), Health::Alive);
        a.idle();
        assert_eq!(supervisor.look(beat(&clock, 6)), Health::Stalled { stage: "b", busy: Duration::from_secs(11) });
        b.idle();
        a.idle();
        assert_eq!(supervisor.look(beat(&clock, 1)), Health::Alive);
        b.idle();
        assert_eq!(supervisor.look(beat(&clock, 11)), Health::Silent { stage: "a" });
        // At the end of recorded frames the source has returned while the others still work.
        a.end();
        b.idle();
        assert_eq!(supervisor.look(beat(&clock, 1)), Health::Alive);
    }
}
