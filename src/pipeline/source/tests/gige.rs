//! A GigE camera that is unplugged and plugged in again and again: nothing leaks, and no frame is incomplete or stale.
//!
//! `CAMERA_CYCLES` says how often (3 when it is not set). The cycles run in a process of their own, so that threads, descriptors and memory
//! are those of the capture stage alone.

use std::process::Command;

use super::*;
use crate::capture::genicam::{GenIcam, tests as fake};

/// Memory that may come and go over all cycles: allocator and library caches, bytes.
const MEMORY_SLACK: u64 = 24 << 20;

/// The process's threads, open descriptors and resident bytes.
fn held() -> (usize, usize, u64) {
    let count = |path: &str| std::fs::read_dir(path).unwrap().count();
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    (count("/proc/self/task"), count("/proc/self/fd"), pages * 4096)
}

/// Waits until threads and descriptors are back at what they were, or as long as patience lasts.
fn settled(before: (usize, usize, u64)) -> (usize, usize, u64) {
    let start = Instant::now();
    loop {
        let now = held();
        if (now.0 <= before.0 && now.1 <= before.1) || start.elapsed() > Duration::from_secs(20) {
            return now;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_recipe_switches_a_gige_camera_to_software_triggers_and_back() {
    let _camera = fake::Fake::start();
    let open: OpenCamera = Arc::new(|trigger| {
        let settings = crate::capture::Settings { frame_rate: Some(60.0), trigger, ..fake::settings() };
        Ok(Box::new(GenIcam::open(settings, Arc::new(SystemClock))?))
    });
    let line = Line::start(None, 0, open);
    for round in 0..3 {
        for _ in 0..3 {
            let job = line.job();
            assert!(job.trigger == "free_run" && fake::is_whole(&job.image), "round {round}: {}", job.trigger);
        }
        line.switch(Trigger::Software);
        line.wait_for("triggered", |f| f.triggered);
        while let Ok(job) = line.jobs.try_recv() {
            assert_eq!(settle(job).trigger, "free_run");
        }
        for part in ["SN1", "SN2"] {
            line.fire(part);
            let job = line.job();
            assert!(job.trigger == "mqtt" && fake::is_whole(&job.image), "round {round}: {} {:?}", job.trigger, job.fault);
            assert_eq!(job.part_id.as_deref(), Some(part));
        }
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(line.jobs.len(), 0, "round {round}: the camera runs freely");
        line.switch(Trigger::Free);
        line.wait_for("free run", |f| !f.triggered);
    }
}

#[test]
fn unplug_and_replug_cycles_leak_nothing() {
    const NAME: &str = "pipeline::source::tests::gige::cycles_in_a_process_of_their_own";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads", "1"])
        .env("CAMERA_CYCLES_CHILD", "1")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{text}");
    assert!(text.contains("cycles: "), "it did not run:\n{text}");
    println!("{}", text.lines().find(|l| l.contains("cycles: ")).unwrap());
}

/// Only the test above runs this, with the environment it sets.
#[test]
fn cycles_in_a_process_of_their_own() {
    if std::env::var_os("CAMERA_CYCLES_CHILD").is_none() {
        return;
    }
    let cycles: u32 = std::env::var("CAMERA_CYCLES").ok().and_then(|v| v.parse().ok()).unwrap_or(3);
    let mut camera = fake::Fake::start();
    let open: OpenCamera = Arc::new(|_| {
        let settings = crate::capture::Settings { frame_rate: Some(60.0), ..fake::settings() };
        Ok(Box::new(GenIcam::open(settings, Arc::new(SystemClock))?))
    });
    let line = Line::start(None, 0, open);
    let max_age = Duration::from_millis(2000);
    let mut frames = 0u64;
    let mut take = |line: &Line| {
        let job = line.job();
        assert!(fake::is_whole(&job.image), "frame {} is not whole", job.id);
        let age = Duration::from_nanos(SystemClock.mono_ns().saturating_sub(job.captured_mono_ns));
        assert!(age < max_age, "frame {} is {age:?} old", job.id);
        frames += 1;
    };
    // The first cycle fills the library's own caches.
    let mut before = held();
    let (mut slowest_alarm, mut slowest_return) = (Duration::ZERO, Duration::ZERO);
    for cycle in 0..=cycles {
        line.wait_for("camera up", |f| f.camera_up);
        for _ in 0..5 {
            take(&line);
        }
        camera.lose(0.02);
        take(&line);
        camera.unplug();
        slowest_alarm = slowest_alarm.max(line.wait_for("camera lost", |f| !f.camera_up && !f.camera_problem.is_empty()));
        // Frames from before the loss.
        while let Ok(job) = line.jobs.try_recv() {
            assert!(fake::is_whole(&settle(job).image));
        }
        let plugged = Instant::now();
        camera.plug();
        take(&line);
        slowest_return = slowest_return.max(plugged.elapsed());
        if cycle == 0 {
            before = settled(held());
        }
    }
    let after = settled(before);
    println!(
        "cycles: {cycles}, {frames} frames, alarm after at most {:.2} s, first frame at most {:.2} s after the return, threads {} -> {}, \
         descriptors {} -> {}, resident {:.1} -> {:.1} MB, losses {:?}",
        slowest_alarm.as_secs_f64(),
        slowest_return.as_secs_f64(),
        before.0,
        after.0,
        before.1,
        after.1,
        before.2 as f64 / 1e6,
        after.2 as f64 / 1e6,
        line.ledger.balance(),
    );
    assert!(after.0 <= before.0, "threads: {} -> {}", before.0, after.0);
    assert!(after.1 <= before.1, "descriptors: {} -> {}", before.1, after.1);
    assert!(after.2 <= before.2 + MEMORY_SLACK, "memory: {} -> {} bytes", before.2, after.2);
}
