//! A real broker, a way to it that can be cut, and a subscriber that remembers what it got; for the tests that need them.

pub mod broker;
pub mod gate;
pub mod subscriber;

use std::net::TcpListener;
use std::time::Duration;

use ssds::clock::{Clock, SystemClock};

/// No wait is longer unless the test fails.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for `done`.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = SystemClock.mono_ns();
    while !done() {
        assert!(SystemClock.mono_ns() - begun < LIMIT.as_nanos() as u64, "waited {LIMIT:?} for: {what}");
        SystemClock.sleep(Duration::from_millis(5));
    }
}
