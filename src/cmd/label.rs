//! `ssds label`: what a person found of an inspected part.

use std::path::PathBuf;

use super::template::print_json;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::record::archive::Archive;
use crate::record::event::InspectionEvent;
use crate::record::labels::{self, Label};
use crate::record::store::StoreReader;

/// What to label.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The event's id, or its number (seq).
    event: String,
    /// ok or ng: what the part really is.
    truth: String,
    /// What there is to say about it.
    #[arg(long, default_value = "")]
    note: String,
    /// Configuration file: names the state folder.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs.
///
/// # Errors
/// [`Kind::Missing`] for an event that neither the store nor the archive knows, [`Kind::Usage`] for another word than ok or ng.
pub fn run(args: Args) -> Result<u8> {
    let truth = labels::truth_of(&args.truth)?;
    let config = config::load(&args.config)?;
    let event = find(&config, &args.event)?;
    let label = Label {
        event_id: event.event_id,
        seq: event.seq,
        truth,
        verdict: event.verdict,
        product: event.product,
        captured_at: event.captured_at,
        labelled_at: SystemClock.now(),
        note: args.note,
    };
    labels::append(&config.path("paths.state_dir").join(labels::FILE), &label)?;
    if args.json {
        print_json(&label)?;
    } else {
        let verdict = label.verdict.topic().to_uppercase();
        println!("event {} seq {} (decided {verdict}) is labelled {}", label.event_id, label.seq, label.truth.name());
    }
    Ok(0)
}

/// The event of an id or number: from the store, or from the archive when its row has gone by age.
fn find(config: &Config, which: &str) -> Result<InspectionEvent> {
    let path = config.path("paths.state_dir").join("ssds.db");
    let (store, _) = StoreReader::open_read_only(&path)?;
    let body = match which.parse::<u64>() {
        Ok(seq) => store.history(None, seq.checked_add(1), 1)?.into_iter().find(|e| e.seq == seq).map(|e| e.body),
        Err(_) => store.event(which)?.map(|e| e.body),
    };
    if let Some(body) = body {
        return InspectionEvent::from_json(body.as_bytes());
    }
    if which.parse::<u64>().is_err()
        && let Ok(archive) = Archive::open(&config.archive_dir())
        && let Some(entry) = archive.find(which)?
    {
        return InspectionEvent::from_json(&entry.file(&entry.manifest()?, crate::record::archive::EVENT)?);
    }
    Err(Error::new(Kind::Missing, format!("event {which:?}: neither {} nor the archive knows it", path.display())))
}
