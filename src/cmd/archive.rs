//! `ssds archive`: the evidence of inspected parts.

use std::path::PathBuf;

use serde_json::json;

use super::template::print_json;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::record::archive::replay::Replayer;
use crate::record::archive::writer::{Counts, Settings, Writer};
use crate::record::archive::{Archive, EVENT, Entry, identity};
use crate::record::event::{InspectionEvent, Verdict};
use crate::record::labels;
use crate::telemetry::Telemetry;

/// What to do with the archive.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file: names the archive's folder and what it may hold.
    #[arg(long, default_value = "/etc/ssds/ssds.toml", global = true)]
    config: PathBuf,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the events with evidence, newest last.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only the newest of them.
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one event: what was decided, and its files.
    Show {
        /// The event's id.
        event: String,
    },
    /// Check every file of every event and decide it again; exit 1 when something is damaged or decided otherwise.
    Verify {
        #[command(flatten)]
        filter: Filter,
    },
    /// Remove the oldest evidence that is over its quota or keeps the disk from having its free space; never an event's row.
    Gc,
    /// Begin a new archive in the configured folder, or take over the one that is there.
    Init,
}

/// Which events.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only these verdicts: ok, ng, error.
    #[arg(long, value_delimiter = ',')]
    verdict: Vec<String>,
    /// Only events since then: 2026-11-25T08:00:00Z, or a length of time such as 90m, 24h, 7d.
    #[arg(long)]
    pub since: Option<String>,
}

impl Filter {
    /// The events of `archive` that it lets through, oldest first.
    ///
    /// # Errors
    /// [`Kind::Usage`] for what is no verdict or time; as [`Archive::entries`].
    pub fn entries(&self, archive: &Archive) -> Result<Vec<Entry>> {
        let mut verdicts = Vec::new();
        for word in &self.verdict {
            let known = [Verdict::Ok, Verdict::Ng, Verdict::Error].into_iter().find(|v| v.topic() == word.to_lowercase());
            verdicts.push(
                known.ok_or_else(|| Error::new(Kind::Usage, format!("--verdict must be out of ok, ng, error, got {word:?}")))?,
            );
        }
        let since = self.since.as_deref().map(|text| since(text, SystemClock.now())).transpose()?;
        let mut out = archive.entries()?;
        out.retain(|e| (verdicts.is_empty() || verdicts.contains(&e.verdict())) && since.is_none_or(|s| e.time() >= s));
        Ok(out)
    }
}

/// A time, or a length of time before `now`.
///
/// # Errors
/// [`Kind::Usage`] naming the text.
pub fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    let wrong = || {
        Error::new(
            Kind::Usage,
            format!("--since must be a time such as 2026-11-25T08:00:00Z or a length such as 90m, 24h, 7d, got {text:?}"),
        )
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(unit).filter(|s| *s >= 0).ok_or_else(wrong)?;
    Timestamp::from_second(now.as_second().saturating_sub(seconds)).map_err(|_| wrong())
}

/// What the archive keeps, by the configuration.
#[must_use]
pub fn writer_settings(config: &Config) -> Settings {
    let bytes = |key: &str| (config.usize(key) as u64) << 20;
    Settings {
        root: config.archive_dir(),
        state: config.path("paths.state_dir"),
        station: config.text("station.name"),
        max_ok_bytes: bytes("evidence.max_ok_mib"),
        max_ng_bytes: bytes("evidence.max_ng_mib"),
        max_error_bytes: bytes("evidence.max_error_mib"),
        min_free_bytes: bytes("evidence.min_free_mib"),
    }
}

/// Runs.
///
/// # Errors
/// An archive that is not there or cannot be read, unknown events.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    match &args.what {
        What::List { filter, limit } => list(&config, filter, *limit, args.json),
        What::Show { event } => show(&config, event, args.json),
        What::Verify { filter } => verify(&config, filter, args.json),
        What::Gc => {
            let mut writer = Writer::new(writer_settings(&config), Counts::new(&Telemetry::new()));
            writer.ready()?;
            let removed = writer.collect()?;
            stock(&writer, &format!("{removed} events removed"), args.json)
        }
        What::Init => {
            identity::forget(&config.path("paths.state_dir"))?;
            let mut writer = Writer::new(writer_settings(&config), Counts::new(&Telemetry::new()));
            writer.ready()?;
            stock(&writer, &format!("archive {} is this station's", config.archive_dir().display()), args.json)
        }
    }
}

fn stock(writer: &Writer, what: &str, json: bool) -> Result<u8> {
    let [ok, ng, error] = writer.stock();
    if json {
        let one = |(events, bytes): (usize, u64)| json!({"events": events, "bytes": bytes});
        print_json(&json!({"done": what, "ok": one(ok), "ng": one(ng), "error": one(error)}))?;
    } else {
        println!("{what}");
        for (name, (events, bytes)) in [("OK", ok), ("NG", ng), ("ERROR", error)] {
            println!("{name:<5} {events:>8} events {:>10.1} MiB", bytes as f64 / f64::from(1 << 20));
        }
    }
    Ok(0)
}

fn list(config: &Config, filter: &Filter, limit: Option<usize>, json: bool) -> Result<u8> {
    let archive = Archive::open(&config.archive_dir())?;
    let (labels, faults) = labels::read(&config.path("paths.state_dir").join(labels::FILE))?;
    faults.iter().for_each(|f| log::warn!("{f}"));
    let entries = filter.entries(&archive)?;
    let from = entries.len() - limit.unwrap_or(entries.len()).min(entries.len());
    let mut rows = Vec::new();
    for entry in &entries[from..] {
        let label = labels.get(&entry.event_id).map(|l| l.truth.name());
        match entry.manifest() {
            Ok(m) if json => rows.push(json!({
                "event_id": m.event_id, "seq": m.seq, "captured_at": m.captured_at, "verdict": m.verdict, "product": m.product,
                "defects": m.decision.as_ref().map(|d| d.blobs_total), "max_score": m.decision.as_ref().map(|d| d.max_score.0),
                "bytes": m.bytes(), "label": label
            })),
            Ok(m) => {
                let what = match (&m.error, &m.decision) {
                    (Some(e), _) => {
                        serde_json::to_value(e.code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
                    }
                    (None, Some(d)) => format!("{} defects, highest score {:.2}", d.blobs_total, d.max_score.0),
                    (None, None) => String::new(),
                };
                println!(
                    "{} seq {:<8} {} {:<5} {:<24} {what}{}",
                    m.event_id,
                    m.seq,
                    m.captured_at,
                    entry.verdict().topic().to_uppercase(),
                    m.product,
                    label.map_or_else(String::new, |l| format!(", labelled {l}"))
                );
            }
            // Removed by age while the list was made.
            Err(e) if e.kind() == Kind::Missing => {}
            Err(e) if json => rows.push(json!({"event_id": entry.event_id, "damaged": format!("{e:#}")})),
            Err(e) => println!("{} DAMAGED: {e:#}", entry.event_id),
        }
    }
    if json {
        print_json(&rows)?;
    } else if rows.is_empty() && entries.is_empty() {
        println!("no evidence");
    }
    Ok(0)
}

fn show(config: &Config, event: &str, json: bool) -> Result<u8> {
    let archive = Archive::open(&config.archive_dir())?;
    let entry = archive.get(event)?;
    let manifest = entry.manifest()?;
    let (labels, _) = labels::read(&config.path("paths.state_dir").join(labels::FILE))?;
    let label = labels.get(event);
    let recorded = InspectionEvent::from_json(&entry.file(&manifest, EVENT)?)?;
    if json {
        print_json(&json!({"folder": entry.folder, "evidence": manifest, "event": recorded, "label": label}))?;
        return Ok(0);
    }
    println!("event      {} seq {} of station {}", manifest.event_id, manifest.seq, manifest.station);
    println!("taken      {}", manifest.captured_at);
    println!("verdict    {}", manifest.verdict.topic().to_uppercase());
    if let Some(e) = &manifest.error {
        println!("error      {}", e.message);
    }
    println!("product    {}, template {} version {}", manifest.product, manifest.template.id, manifest.template.version);
    println!("template   sha256 {}", manifest.picture_sha256.as_deref().unwrap_or("none"));
    println!("recipe     sha256 {}", manifest.recipe_sha256.as_deref().unwrap_or("none, as configured"));
    println!("detector   {}; model {} sha256 {}", manifest.detector, manifest.model.name, manifest.model.sha256);
    if let Some(pose) = &manifest.pose {
        let a = pose.affine();
        println!(
            "pose       {:+.2} degrees, scale {:.3}, confidence {:.2}{}",
            a.rotation_rad().to_degrees(),
            a.scale(),
            pose.confidence.0,
            if pose.accepted { "" } else { ", refused" }
        );
    }
    if let Some(d) = &manifest.decision {
        println!(
            "decision   threshold {}, {} defects of {} px, {} too small, highest score {:.3}",
            d.settings.threshold.0, d.blobs_total, d.ng_area_px, d.specks_total, d.max_score.0
        );
    }
    for d in &recorded.defects {
        let [x, y, w, h] = d.bbox_px;
        let zone = if d.zone.is_empty() { String::new() } else { format!(", zone {}", d.zone) };
        println!("defect {:>3} {w}x{h} px at {x},{y}, {} px, score {:.2}{zone}", d.id, d.area_px, d.score_max);
    }
    if let Some(l) = label {
        println!("label      {} at {} {}", l.truth.name(), l.labelled_at, l.note);
    }
    println!("folder     {}", entry.folder.display());
    for (name, f) in &manifest.files {
        println!("file       {name:<13} {:>9} bytes  {}", f.bytes, &f.sha256[..12]);
    }
    Ok(0)
}

fn verify(config: &Config, filter: &Filter, json: bool) -> Result<u8> {
    let archive = Archive::open(&config.archive_dir())?;
    let entries = filter.entries(&archive)?;
    let mut replayer = Replayer::default();
    let (mut problems, mut decided) = (Vec::new(), 0usize);
    for entry in &entries {
        let mut look = || -> Result<Vec<String>> {
            let manifest = entry.manifest()?;
            if manifest.event_id != entry.event_id || manifest.verdict != entry.verdict() {
                return Ok(vec![format!("its manifest says event {} {:?}", manifest.event_id, manifest.verdict)]);
            }
            let mut faults = Vec::new();
            for name in manifest.files.keys() {
                if let Err(e) = entry.file(&manifest, name) {
                    faults.push(format!("{e:#}"));
                }
            }
            if faults.is_empty() {
                decided += usize::from(manifest.decision.is_some());
                faults = replayer.differences(entry, &manifest)?;
            }
            Ok(faults)
        };
        match look() {
            Ok(faults) => problems.extend(faults.into_iter().map(|f| (entry, f))),
            Err(e) => {
                // A folder that went by age meanwhile is no problem.
                if entry.folder.is_dir() {
                    problems.push((entry, format!("{e:#}")));
                }
            }
        }
    }
    if json {
        let list: Vec<_> = problems.iter().map(|(e, f)| json!({"event_id": e.event_id, "problem": f})).collect();
        print_json(&json!({"events": entries.len(), "decided_again": decided, "problems": list}))?;
    } else {
        problems.iter().for_each(|(e, f)| println!("{}: {f}", e.event_id));
        println!("{} events, {decided} decided again as recorded, {} problems", entries.len(), problems.len());
    }
    Ok(u8::from(!problems.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_times_and_lengths() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let ok = |text: &str| since(text, now).unwrap().to_string();
        assert_eq!(ok("90m"), "2026-11-25T10:30:00Z");
        assert_eq!(ok("7d"), "2026-11-18T12:00:00Z");
        assert_eq!(ok("2026-11-25T08:00:00Z"), "2026-11-25T08:00:00Z");
        for bad in ["", "h", "-3h", "7w", "yesterday", "99999999999999999d"] {
            let error = since(bad, now).unwrap_err();
            assert_eq!(
                error.message(),
                format!("--since must be a time such as 2026-11-25T08:00:00Z or a length such as 90m, 24h, 7d, got {bad:?}")
            );
        }
    }
}
