//! `ssds bench publish`: what durable recording costs, and how fast a backlog leaves.
//!
//! Three figures, all with the daemon's own store and publisher:
//! 1. the record stage at a line's rate: p50, p99 and worst of a commit, beside a plain 4 KiB append + fsync on the same disk, taken in
//!    turns so that whatever else the disk does meets both;
//! 2. events a second through the record stage with group commit and without (one event a transaction), both durable;
//! 3. draining a backlog to mosquitto on the loopback interface, beside `mosquitto_pub -l -q 1` with the same payloads in the same run:
//!    ours, theirs, ours, theirs ... for `--rounds`, the median of each, and the processor time a message costs each sender. The broker's own
//!    count of messages received must agree: mosquitto_pub 2.0 takes the acknowledgement of an earlier message with the last one's packet
//!    identifier for the end, and leaves all beyond a multiple of 65 535 unsent. It is given its lines in pieces that are shorter, one
//!    process each.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};
use crate::publish::{Identity, PublishSettings, Publisher};
use crate::record::event::{ClockState, InspectionEvent, boot_id, new_event_id};
use crate::record::store::{Store, StoreSettings, collect_batch};

/// Lines that mosquitto_pub is given at once.
const PIECE: usize = 60_000;

/// Parts a second in the first figure.
const RATE: u32 = 30;

/// How much to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder on the disk to measure; the scratch files in it are removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Commits at line rate for the first figure.
    #[arg(long, default_value_t = 300)]
    commits: usize,
    /// Events for the second figure.
    #[arg(long, default_value_t = 2000)]
    events: usize,
    /// Backlog for the third figure.
    #[arg(long, default_value_t = 100_000)]
    backlog: usize,
    /// Results in flight; 100 is the daemon's default, mosquitto_pub's own is 20.
    #[arg(long, default_value_t = 100)]
    window: u16,
    /// How often the third figure is measured, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    fsync_ms: Spread,
    record_ms: Spread,
    single_events_per_s: f64,
    grouped_events_per_s: f64,
    grouped_mean_batch: f64,
    backlog: usize,
    drain: Option<Drained>,
}

/// Medians over the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Drained {
    ours_events_per_s: f64,
    mosquitto_pub_events_per_s: f64,
    /// Median of the rounds' ratios, each of neighbours in time.
    ratio: f64,
    ours_processor_us_per_event: f64,
    mosquitto_pub_processor_us_per_event: f64,
}

/// Measures and prints.
///
/// # Errors
/// The disk's; a broker that fails. Without mosquitto the third figure is left out, saying so.
pub fn run(args: Args) -> Result<u8> {
    let folder = tempfile::Builder::new()
        .prefix("ssds-bench-")
        .tempdir_in(&args.dir)
        .map_err(|e| Error::io(format!("--dir {}", args.dir.display()), e).with_kind(Kind::CannotCreate))?;
    let (fsync_ms, record_ms) = line_rate(folder.path(), args.commits)?;
    let (single_events_per_s, _) = throughput(folder.path(), args.events, 1)?;
    let (grouped_events_per_s, grouped_mean_batch) = throughput(folder.path(), args.events, StoreSettings::default().max_batch)?;
    let drained = match Broker::start(folder.path())? {
        Some(broker) => Some(drained(folder.path(), &broker, &args)?),
        None => {
            eprintln!("mosquitto and mosquitto_pub are not installed: no drain figure");
            None
        }
    };
    let figures = Figures {
        fsync_ms,
        record_ms,
        single_events_per_s,
        grouped_events_per_s,
        grouped_mean_batch,
        backlog: args.backlog,
        drain: drained,
    };
    if args.json {
        println!("{}", serde_json::json!(figures));
    } else {
        print(&figures);
    }
    Ok(0)
}

fn print(f: &Figures) {
    let spread = |s: &Spread| format!("p50 {:.2} ms  p99 {:.2} ms  worst {:.2} ms", s.p50, s.p99, s.max);
    println!("4 KiB append + fsync           {}", spread(&f.fsync_ms));
    println!("record stage at {RATE} parts/s     {}", spread(&f.record_ms));
    println!("durable, one event a commit    {:.0} events/s", f.single_events_per_s);
    println!(
        "durable, group commit          {:.0} events/s ({:.1} events a commit)",
        f.grouped_events_per_s, f.grouped_mean_batch
    );
    println!("record p99 - fsync p99         {:.2} ms", f.record_ms.p99 - f.fsync_ms.p99);
    if let Some(d) = &f.drain {
        let (ours, theirs) = (d.ours_events_per_s, d.mosquitto_pub_events_per_s);
        let (our_us, their_us) = (d.ours_processor_us_per_event, d.mosquitto_pub_processor_us_per_event);
        println!("drain of {} events to mosquitto  {ours:.0} events/s, {our_us:.1} us of processor an event", f.backlog);
        println!("mosquitto_pub -l -q 1, the same    {theirs:.0} events/s, {their_us:.1} us of processor an event");
        println!("ours to theirs                     {:.2} times", d.ratio);
    }
}

fn spread(mut times: Vec<Duration>) -> Spread {
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize].as_secs_f64() * 1e3;
    Spread { p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

fn open(path: &Path, max_batch: usize) -> Result<Store> {
    let settings = StoreSettings { station: "bench".to_owned(), max_batch, ..StoreSettings::default() };
    Ok(Store::open(path, settings, Arc::new(SystemClock))?.0)
}

fn event(n: usize) -> InspectionEvent {
    let mut event = InspectionEvent::example();
    event.station = "bench".to_owned();
    event.event_id = new_event_id(&SystemClock);
    event.part_id = Some(format!("SN{n:08}"));
    event
}

/// Single parts at the line's rate, and what the disk itself takes for making 4 KiB durable, each in turn.
fn line_rate(folder: &Path, n: usize) -> Result<(Spread, Spread)> {
    let fault = |e| Error::io("fsync probe", e);
    let mut store = open(&folder.join("rate.db"), 1)?;
    let mut file = std::fs::File::create(folder.join("probe")).map_err(fault)?;
    let (mut syncs, mut commits) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let begun = Instant::now();
    for i in 0..n.max(1) {
        let due = begun + Duration::from_secs(1) * u32::try_from(i).unwrap_or(u32::MAX) / RATE;
        SystemClock.sleep(due.saturating_duration_since(Instant::now()));
        let mut batch = [event(i)];
        // Which one comes first changes, so that neither always meets the disk the other left.
        for commit in [i % 2 == 0, i % 2 == 1] {
            let start = Instant::now();
            if commit {
                store.record(&mut batch)?;
                commits.push(start.elapsed());
            } else {
                file.write_all(&[0x5A; 4096]).map_err(fault)?;
                file.sync_data().map_err(fault)?;
                syncs.push(start.elapsed());
            }
        }
    }
    store.close()?;
    Ok((spread(syncs), spread(commits)))
}

/// Events a second through a full queue, and how many shared a commit on average.
fn throughput(folder: &Path, n: usize, max_batch: usize) -> Result<(f64, f64)> {
    let mut store = open(&folder.join(format!("batch{max_batch}.db")), max_batch)?;
    let (sender, waiting) = bounded(StoreSettings::default().max_batch);
    let maker = std::thread::Builder::new()
        .name("bench-parts".to_owned())
        .spawn(move || (0..n).map(event).all(|e| sender.send(e).is_ok()))
        .map_err(|e| Error::io("starting thread bench-parts", e))?;
    let (begun, mut commits, mut batch) = (Instant::now(), 0_u64, Vec::new());
    while let Ok(first) = waiting.recv() {
        collect_batch(first, &waiting, max_batch, &mut batch);
        store.record(&mut batch)?;
        batch.clear();
        commits += 1;
    }
    let rate = n as f64 / begun.elapsed().as_secs_f64();
    maker.join().map_err(|_| Error::internal("thread bench-parts panicked"))?;
    store.close()?;
    Ok((rate, n as f64 / commits.max(1) as f64))
}

/// The third figure.
fn drained(folder: &Path, broker: &Broker, args: &Args) -> Result<Drained> {
    let lines = folder.join("payloads");
    std::fs::create_dir(&lines).map_err(|e| Error::io("payload folder", e))?;
    let mut rounds = Vec::new();
    for _ in 0..args.rounds.max(1) {
        let path = folder.join(format!("drain{}.db", rounds.len()));
        record_backlog(&path, args.backlog, &lines)?;
        let before = broker.received()?;
        let ours = ours(&path, broker, args)?;
        // With the publisher's own: birth and farewell.
        let between = broker.expect("ssds", before + args.backlog as u64)?;
        let theirs = theirs(broker, &lines, args.backlog)?;
        broker.expect("mosquitto_pub", between + args.backlog as u64)?;
        rounds.push((ours, theirs));
        for suffix in ["", "-wal", "-shm", "-seq", "-lock"] {
            // Room for the next round; what is left goes with the folder.
            let _ = std::fs::remove_file(folder.join(format!("drain{}.db{suffix}", rounds.len() - 1)));
        }
    }
    let median = |value: &dyn Fn(&(Sent, Sent)) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Ok(Drained {
        ours_events_per_s: median(&|(ours, _)| ours.per_second),
        mosquitto_pub_events_per_s: median(&|(_, theirs)| theirs.per_second),
        ratio: median(&|(ours, theirs)| ours.per_second / theirs.per_second),
        ours_processor_us_per_event: median(&|(ours, _)| ours.processor_us),
        mosquitto_pub_processor_us_per_event: median(&|(_, theirs)| theirs.processor_us),
    })
}

/// How one sender did.
#[derive(Debug, Clone, Copy)]
struct Sent {
    per_second: f64,
    /// Of processor time, user and system, an event.
    processor_us: f64,
}

/// Records a backlog and writes its payloads to files in `lines`, [`PIECE`] each.
fn record_backlog(path: &Path, n: usize, lines: &Path) -> Result<()> {
    const BATCH: usize = 1000;
    let fault = |e| Error::io("payload file", e);
    let mut store = open(path, 1000)?;
    for first in (0..n).step_by(PIECE) {
        let piece = std::fs::File::create(lines.join(format!("{first:09}"))).map_err(fault)?;
        let mut file = std::io::BufWriter::new(piece);
        let end = n.min(first + PIECE);
        for made in (first..end).step_by(BATCH) {
            let mut batch: Vec<_> = (made..end.min(made + BATCH)).map(event).collect();
            store.record(&mut batch)?;
            for event in &batch {
                let line = event.to_json()?;
                file.write_all(&line).and_then(|()| file.write_all(b"\n")).map_err(fault)?;
            }
        }
        file.flush().map_err(fault)?;
    }
    store.close()
}

/// Times the backlog's way to the broker.
fn ours(path: &Path, broker: &Broker, args: &Args) -> Result<Sent> {
    let store = open(path, 1000)?;
    let settings =
        PublishSettings { port: broker.port, station: "bench".to_owned(), window: args.window, ..PublishSettings::default() };
    let identity = Identity {
        boot_id: boot_id()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock: ClockState::Unknown,
        model: None,
        template: None,
    };
    let reader = store.reader()?;
    let (begun, before) = (Instant::now(), processor_time(UTIME));
    let publisher = Publisher::start(settings, store.reader()?, identity, Arc::new(SystemClock))?;
    while reader.outbox_events() > 0 {
        SystemClock.sleep(Duration::from_millis(2));
    }
    let (took, spent) = (begun.elapsed(), processor_time(UTIME) - before);
    let report = publisher.shutdown(Duration::from_secs(10));
    if !report.stopped_published {
        return Err(Error::unavailable("the broker of the benchmark did not take the last message"));
    }
    store.close()?;
    Ok(sent(args.backlog, took, spent))
}

/// The same payloads by mosquitto's own client.
fn theirs(broker: &Broker, lines: &Path, n: usize) -> Result<Sent> {
    let (mut took, before) = (Duration::ZERO, processor_time(CUTIME));
    for first in (0..n).step_by(PIECE) {
        let input = std::fs::File::open(lines.join(format!("{first:09}"))).map_err(|e| Error::io("payload file", e))?;
        let begun = Instant::now();
        let status = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1", "-l", "-t", "ssds/result/ng"])
            .stdin(input)
            .status()
            .map_err(|e| Error::io("mosquitto_pub", e))?;
        took += begun.elapsed();
        if !status.success() {
            return Err(Error::unavailable(format!("mosquitto_pub ended with {status}")));
        }
    }
    Ok(sent(n, took, processor_time(CUTIME) - before))
}

/// Places of the user times in /proc/self/stat behind the name (proc(5)): this process's, and that of children that have ended. The system
/// time follows each.
const UTIME: usize = 11;
const CUTIME: usize = 13;
/// Of /proc's times; the same on every Linux that Rust runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// Processor time so far, user and system; zero where the kernel does not tell.
fn processor_time(place: usize) -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(place).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_secs_f64(ticks as f64 / TICKS_A_SECOND)
}

fn sent(n: usize, took: Duration, spent: Duration) -> Sent {
    Sent { per_second: n as f64 / took.as_secs_f64(), processor_us: spent.as_secs_f64() * 1e6 / n as f64 }
}

/// A mosquitto of the benchmark's own.
struct Broker {
    port: u16,
    child: Child,
}

impl Broker {
    fn start(folder: &Path) -> Result<Option<Self>> {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|p| Path::new(p).exists());
        let client = Command::new("mosquitto_pub").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let (Some(program), Ok(_)) = (program, client) else { return Ok(None) };
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| Error::io("a free port", e))?.port();
        let config = folder.join("mosquitto.conf");
        let text =
            format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_type error\nsys_interval 1\n");
        std::fs::write(&config, text).map_err(|e| Error::io("mosquitto.conf", e))?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Error::io(program, e))?;
        let broker = Self { port, child };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(Some(broker));
            }
            SystemClock.sleep(Duration::from_millis(20));
        }
        Err(Error::unavailable(format!("mosquitto does not listen on 127.0.0.1:{port}")))
    }

    /// PUBLISH packets that it has received since it started, as it last counted them.
    fn received(&self) -> Result<u64> {
        let output = Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-C",
                "1",
                "-W",
                "10",
                "-t",
                "$SYS/broker/publish/messages/received",
            ])
            .output()
            .map_err(|e| Error::io("mosquitto_sub", e))?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim()
            .parse()
            .map_err(|_| Error::unavailable(format!("mosquitto counts messages received: {text:?}, wanted a number")))
    }

    /// Waits until it has received `wanted` messages in all.
    fn expect(&self, sender: &str, wanted: u64) -> Result<u64> {
        // It counts every second.
        for _ in 0..30 {
            if self.received()? >= wanted {
                SystemClock.sleep(Duration::from_millis(2500));
                return self.received();
            }
            SystemClock.sleep(Duration::from_millis(200));
        }
        let received = self.received()?;
        Err(Error::unavailable(format!("mosquitto received {received} messages, wanted {wanted}: {sender} left some unsent")))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It ends with the benchmark, whatever comes of these.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
