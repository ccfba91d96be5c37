//! `ssds audit`: proves from `(station, seq)` that no result is missing, or names the gaps.
//!
//! From a spool file (`--db`, also while the daemon runs) or by listening to a broker (`--broker`). Exit 0: complete; 1: something is missing,
//! damaged or contradictory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};
use crate::publish::listen::{Heard, listen};
use crate::publish::{Protocol, PublishSettings, TlsSettings, Topics};
use crate::record::event::InspectionEvent;
use crate::record::store::StoreReader;
use crate::shutdown::Shutdown;

/// Where to look.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Spool file to read (ssds.db), also while the daemon writes it.
    #[arg(long, conflicts_with = "broker", required_unless_present = "broker")]
    db: Option<PathBuf>,
    /// Broker to listen to: mqtt://HOST:PORT or mqtts://HOST:PORT.
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Path before /ssds/; `+` for any level, as in `acme/hz/smt/line3/+`.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Stop listening after this long; else at Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Stop listening once a result with this number or a later one came.
    #[arg(long, value_name = "SEQ")]
    until: Option<u64>,
    /// User name at the broker.
    #[arg(long)]
    username: Option<String>,
    /// File with the password.
    #[arg(long, requires = "username")]
    password_file: Option<PathBuf>,
    /// Authorities for mqtts (PEM); the system's when left out.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// Own certificate (PEM).
    #[arg(long, requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What is known of one station.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Different numbers seen.
    pub results: u64,
    /// Lowest number.
    pub first: u64,
    /// Highest number.
    pub last: u64,
    /// Missing numbers in between.
    pub missing: u64,
    /// They, as inclusive ranges.
    pub gaps: Vec<(u64, u64)>,
    /// Results that came again.
    pub duplicates: u64,
    /// Numbers that came with two event ids: two stations of one name, or a spool put back from a copy.
    pub contradictions: u64,
    /// Messages or rows that do not decode.
    pub undecodable: u64,
    /// Not yet acknowledged by the broker (from a spool).
    pub unacknowledged: Option<u64>,
}

impl Findings {
    /// Nothing is missing, damaged or contradictory.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.missing == 0 && self.contradictions == 0 && self.undecodable == 0
    }
}

/// Numbers seen so far, as ranges: memory grows with the gaps, not with the results.
#[derive(Debug, Default)]
struct Track {
    /// First to last of each run of numbers.
    runs: BTreeMap<u64, u64>,
    /// Event ids of the newest numbers, for telling a repeat from a contradiction.
    ids: BTreeMap<u64, String>,
    findings: Findings,
}

/// Numbers whose event id is remembered; repeats come within the station's in-flight window of at most 1000.
const IDS_KEPT: usize = 10_000;

impl Track {
    fn note(&mut self, seq: u64, event_id: &str) {
        if self.runs.range(..=seq).next_back().is_some_and(|(_, &last)| last >= seq) {
            self.findings.duplicates += 1;
            if self.ids.get(&seq).is_some_and(|known| known != event_id) {
                self.findings.contradictions += 1;
            }
            return;
        }
        self.findings.results += 1;
        self.ids.insert(seq, event_id.to_owned());
        if self.ids.len() > IDS_KEPT {
            self.ids.pop_first();
        }
        let last = self.runs.remove(&(seq + 1)).unwrap_or(seq);
        match self.runs.range_mut(..seq).next_back() {
            Some((_, end)) if *end + 1 == seq => *end = last,
            _ => {
                self.runs.insert(seq, last);
            }
        }
    }

    /// Everything from the first to the last number seen; `from` and `to` widen that to what must be there.
    fn findings(mut self, from: Option<u64>, to: Option<u64>) -> Findings {
        let mut next = from.or_else(|| self.runs.keys().next().copied()).unwrap_or(1);
        self.findings.first = self.runs.keys().next().copied().unwrap_or(0);
        self.findings.last = self.runs.values().next_back().copied().unwrap_or(0);
        let gap = |first: u64, last: u64, findings: &mut Findings| {
            if first <= last {
                findings.missing += last - first + 1;
                findings.gaps.push((first, last));
            }
        };
        for (&first, &last) in &self.runs {
            gap(next, first.saturating_sub(1), &mut self.findings);
            next = last + 1;
        }
        if let Some(to) = to {
            gap(next, to, &mut self.findings);
        }
        self.findings
    }
}

/// Audits.
///
/// # Errors
/// A spool that is missing or none, a broker that refuses or is not there.
pub fn run(args: Args) -> Result<u8> {
    let stations = match (&args.db, &args.broker) {
        (Some(db), _) => from_spool(db)?,
        (None, Some(url)) => from_broker(&args, url)?,
        (None, None) => return Err(Error::new(Kind::Usage, "give --db FILE or --broker URL")),
    };
    let complete = !stations.is_empty() && stations.values().all(Findings::complete);
    if args.json {
        println!("{}", serde_json::json!({"complete": complete, "stations": stations}));
    } else {
        for (station, f) in &stations {
            println!("{}", line(station, f));
        }
        if stations.is_empty() {
            println!("no result came");
        }
    }
    Ok(u8::from(!complete))
}

fn line(station: &str, f: &Findings) -> String {
    let mut text = format!("{station}: {} results, {} to {}", f.results, f.first, f.last);
    if let Some(n) = f.unacknowledged {
        text += &format!(", {n} not yet acknowledged");
    }
    if f.duplicates > 0 {
        text += &format!(", {} repeats", f.duplicates);
    }
    if f.complete() {
        return text + ": complete";
    }
    for (count, what) in [(f.undecodable, "do not decode"), (f.contradictions, "came with two event ids")] {
        if count > 0 {
            text += &format!("; {count} {what}");
        }
    }
    if f.missing > 0 {
        let shown: Vec<String> =
            f.gaps.iter().take(10).map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
        let more = if f.gaps.len() > 10 { format!(" and {} more gaps", f.gaps.len() - 10) } else { String::new() };
        text += &format!("; {} MISSING: {}{more}", f.missing, shown.join(", "));
    }
    text
}

fn from_spool(path: &std::path::Path) -> Result<BTreeMap<String, Findings>> {
    let (reader, station) = StoreReader::open_read_only(path)?;
    let mut track = Track::default();
    let last = reader.last_seq();
    reader.scan(0, &mut |seq, body, sound| {
        match InspectionEvent::from_json(body.as_bytes()) {
            Ok(event) if sound && event.seq == seq && event.station == station => track.note(seq, &event.event_id),
            _ => track.findings.undecodable += 1,
        }
        Ok(())
    })?;
    // A daemon that writes meanwhile may have added more; what there was at the start must be there.
    let mut findings = track.findings(Some(reader.first_seq()?), Some(last));
    findings.unacknowledged = Some(reader.outbox_events());
    Ok(BTreeMap::from([(station, findings)]))
}

fn from_broker(args: &Args, url: &str) -> Result<BTreeMap<String, Findings>> {
    let settings = settings(args, url)?;
    let topics = Topics::new(&args.prefix);
    let shutdown = Shutdown::new();
    shutdown.listen()?;
    let clock = SystemClock;
    let until_ns = args.seconds.map(|s| clock.mono_ns() + Duration::from_secs_f64(s.clamp(0.0, 1e9)).as_nanos() as u64);
    let reached = std::cell::Cell::new(false);
    let mut tracks: BTreeMap<String, Track> = BTreeMap::new();
    let mut each = |heard: Heard| match InspectionEvent::from_json(&heard.payload) {
        Ok(event) => {
            tracks.entry(event.station).or_default().note(event.seq, &event.event_id);
            reached.set(reached.get() || args.until.is_some_and(|u| event.seq >= u));
        }
        Err(e) => {
            log::warn!("{}: {e:#}", heard.topic);
            tracks.entry(format!("({})", heard.topic)).or_default().findings.undecodable += 1;
        }
    };
    let go_on = || !shutdown.asked() && !reached.get() && until_ns.is_none_or(|t| clock.mono_ns() < t);
    let mut connected = || log::info!("listening to {} on {}", topics.results(), settings.broker());
    listen(&settings, &[topics.results()], &mut connected, &mut each, &go_on)?;
    Ok(tracks.into_iter().map(|(station, track)| (station, track.findings(None, None))).collect())
}

fn settings(args: &Args, url: &str) -> Result<PublishSettings> {
    let wrong = || Error::new(Kind::Usage, format!("--broker must be mqtt://HOST[:PORT] or mqtts://HOST[:PORT], got `{url}`"));
    let (tls, rest) = match url.split_once("://") {
        Some(("mqtt", rest)) => (false, rest),
        Some(("mqtts", rest)) => (true, rest),
        _ => return Err(wrong()),
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (rest, if tls { 8883 } else { 1883 }),
    };
    if host.is_empty() || host.contains('/') {
        return Err(wrong());
    }
    let default = TlsSettings::default();
    Ok(PublishSettings {
        host: host.to_owned(),
        port,
        station: "audit".to_owned(),
        client_id: format!("ssds-audit-{}", std::process::id()),
        protocol: Protocol::V311,
        tls: tls.then(|| TlsSettings {
            ca_file: args.ca_file.clone().unwrap_or(default.ca_file),
            cert_file: args.cert_file.clone(),
            key_file: args.key_file.clone(),
            server_name: None,
        }),
        username: args.username.clone(),
        password_file: args.password_file.clone(),
        ..PublishSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(seqs: impl IntoIterator<Item = u64>) -> Track {
        let mut track = Track::default();
        seqs.into_iter().for_each(|s| track.note(s, &s.to_string()));
        track
    }

    #[test]
    fn gaps_are_named_whatever_the_order() {
        let f = track([5, 6, 9, 7, 5, 12, 13, 11]).findings(None, None);
        assert_eq!((f.results, f.first, f.last, f.missing, f.duplicates), (7, 5, 13, 2, 1));
        assert_eq!(f.gaps, [(8, 8), (10, 10)]);
        assert!(!f.complete());
        assert_eq!(line("aoi1", &f), "aoi1: 7 results, 5 to 13, 1 repeats; 2 MISSING: 8, 10");
        let f = track([2, 3]).findings(Some(1), Some(6));
        assert_eq!(f.gaps, [(1, 1), (4, 6)]);
        assert!(track(1..=100_000).findings(None, None).complete());
    }

    #[test]
    fn a_number_with_two_event_ids_is_a_contradiction() {
        let mut t = track([1, 2]);
        t.note(2, "other");
        let f = t.findings(None, None);
        assert_eq!((f.contradictions, f.complete()), (1, false));
        assert_eq!(line("a", &f), "a: 2 results, 1 to 2, 1 repeats; 1 came with two event ids");
    }

    proptest::proptest! {
        /// Against a plain set.
        #[test]
        fn tracking_agrees_with_a_set(seqs in proptest::collection::vec(1..60_u64, 1..80)) {
            let set: std::collections::BTreeSet<u64> = seqs.iter().copied().collect();
            let n = seqs.len() as u64;
            let f = track(seqs).findings(None, None);
            let (first, last) = (*set.first().unwrap(), *set.last().unwrap());
            let missing: Vec<u64> = (first..=last).filter(|s| !set.contains(s)).collect();
            let named: Vec<u64> = f.gaps.iter().flat_map(|&(a, b)| a..=b).collect();
            assert_eq!(named, missing);
            assert_eq!((f.results, f.duplicates), (set.len() as u64, n - set.len() as u64));
        }
    }

    #[test]
    fn broker_addresses() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let of = |url: &str| {
            let args = Line::parse_from(["audit", "--broker", url]).args;
            settings(&args, url).map(|s| (s.host.clone(), s.port, s.tls.is_some())).map_err(|e| e.to_string())
        };
        assert_eq!(of("mqtt://b.example"), Ok(("b.example".into(), 1883, false)));
        assert_eq!(of("mqtts://b.example/"), Ok(("b.example".into(), 8883, true)));
        assert_eq!(of("mqtt://127.0.0.1:1999"), Ok(("127.0.0.1".into(), 1999, false)));
        let wrong = "--broker must be mqtt://HOST[:PORT] or mqtts://HOST[:PORT], got `http://x`";
        assert_eq!(of("http://x"), Err(wrong.into()));
    }
}
