//! The evidence archive: a folder an event, with all that is needed to see and to repeat its decision.
//!
//! ```text
//! ROOT/ssds-archive.json                         whose archive this is (see `identity`)
//! ROOT/2026-11-25/EVENT_ID.ng/event.json         the event as it was recorded
//!                             evidence.json      hashes, pose, settings, figures (see `manifest`)
//!                             frame.png, aligned.png, score.png, mask.png, zones.png, overlay.png   (see `picture`)
//! ROOT/.tmp-EVENT_ID                             being written
//! ```
//! The day (UTC) is that of the event's id, a UUID of version 7, so that an event is found without an index; the ending says the verdict.
//!
//! Invariants: a folder is complete and on disk before it has its name (temporary folder, fsync, rename, fsync); a folder that goes is
//! first renamed, so that no reader sees a part of one. Only evidence is ever removed here, oldest OK first, never an event's row. The
//! score map is kept by its 16-bit levels, which is all that the decision looks at: deciding again from the folder gives the recorded
//! decision to the bit ([`replay`]).
//!
//! [`writer::Writer`] writes and keeps the quotas; [`Archive`] reads. Template pictures are in the template store, by their SHA-256.

pub mod identity;
pub mod manifest;
pub mod picture;
pub mod replay;
pub mod writer;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::record::event::Verdict;
use crate::template::{sha256_hex, store::Store as TemplateStore};
use identity::Identity;
use manifest::Manifest;

/// The event's file.
pub const EVENT: &str = "event.json";
/// The manifest's file.
pub const EVIDENCE: &str = "evidence.json";
/// Beginning of the names of folders that are being written or removed.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A picture of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Picture {
    /// The frame.
    Frame,
    /// The template in the frame's place.
    Aligned,
    /// The template itself.
    Template,
    /// The score map.
    Score,
    /// The defects.
    Mask,
    /// For a person.
    Overlay,
}

impl Picture {
    /// All of them.
    pub const ALL: [Picture; 6] =
        [Picture::Frame, Picture::Aligned, Picture::Template, Picture::Score, Picture::Mask, Picture::Overlay];

    /// Its file's name.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Picture::Frame => "frame.png",
            Picture::Aligned => "aligned.png",
            Picture::Template => "template.png",
            Picture::Score => "score.png",
            Picture::Mask => "mask.png",
            Picture::Overlay => "overlay.png",
        }
    }

    /// The picture of that file name.
    #[must_use]
    pub fn from_file(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.file() == name)
    }
}

/// The zones' file, which is for deciding again rather than for looking at.
pub const ZONES: &str = "zones.png";

/// One event's folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The event; entries are in the order of their ids, which is their age.
    pub event_id: String,
    /// OK, NG or ERROR, by its code.
    code: u8,
    /// Its folder.
    pub folder: PathBuf,
}

impl Entry {
    /// What was decided.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::from_code(self.code).unwrap_or(Verdict::Error)
    }

    /// The event of a folder's name.
    fn of(folder: PathBuf) -> Option<Self> {
        let name = folder.file_name()?.to_str()?;
        let (event_id, word) = name.rsplit_once('.')?;
        let verdict = [Verdict::Ok, Verdict::Ng, Verdict::Error].into_iter().find(|v| v.topic() == word)?;
        time_of(event_id)?;
        Some(Self { event_id: event_id.to_owned(), code: verdict.code(), folder })
    }

    /// When the event was made, to the millisecond.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        time_of(&self.event_id).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Reads its manifest.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the folder is gone, [`Kind::Data`] when the file is damaged; both name it.
    pub fn manifest(&self) -> Result<Manifest> {
        let path = self.folder.join(EVIDENCE);
        let bytes = fs::read(&path).map_err(|e| Error::io(format!("evidence {}", path.display()), e))?;
        Manifest::from_bytes(&bytes).map_err(|e| e.context(format!("evidence {}", path.display())))
    }

    /// Reads one of its files and checks it against the manifest.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the event has no such file, [`Kind::Data`] when it is damaged.
    pub fn file(&self, manifest: &Manifest, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        let Some(entry) = manifest.files.get(name) else {
            return Err(Error::new(Kind::Missing, format!("evidence {}: this event has none", path.display())));
        };
        let bytes = fs::read(&path).map_err(|e| Error::io(format!("evidence {}", path.display()), e))?;
        let found = sha256_hex(&bytes);
        if found != entry.sha256 {
            return Err(Error::data(format!("evidence {}: damaged: its content has SHA-256 {found}", path.display())));
        }
        Ok(bytes)
    }
}

/// The time within a UUID of version 7.
fn time_of(event_id: &str) -> Option<Timestamp> {
    let id = uuid::Uuid::try_parse(event_id).ok()?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

/// The folder of an event's day.
fn day_of(event_id: &str) -> Option<String> {
    time_of(event_id).map(|t| t.strftime("%Y-%m-%d").to_string())
}

/// An archive, for reading.
#[derive(Debug, Clone)]
pub struct Archive {
    root: PathBuf,
    identity: Identity,
}

impl Archive {
    /// Opens the archive in `root`.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is none, [`Kind::Data`] when its identity is damaged.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_owned(), identity: identity::of(root)? })
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The folder of an event, if it is here.
    ///
    /// # Errors
    /// [`Kind::Usage`] for what is no event id.
    pub fn find(&self, event_id: &str) -> Result<Option<Entry>> {
        let Some(day) = day_of(event_id) else {
            return Err(Error::new(Kind::Usage, format!("event id {event_id:?}: a UUID of version 7 wanted")));
        };
        let here = |v: Verdict| self.root.join(&day).join(format!("{event_id}.{}", v.topic()));
        Ok([Verdict::Ng, Verdict::Ok, Verdict::Error].map(here).into_iter().find(|f| f.is_dir()).and_then(Entry::of))
    }

    /// The folder of an event that must be here.
    ///
    /// # Errors
    /// As [`Archive::find`]; [`Kind::Missing`] when it is not here.
    pub fn get(&self, event_id: &str) -> Result<Entry> {
        self.find(event_id)?.ok_or_else(|| {
            Error::new(
                Kind::Missing,
                format!("event {event_id}: archive {} has no evidence of it (not kept, or removed by age)", self.root.display()),
            )
        })
    }

    /// All events, oldest first. What is no event's folder is left alone.
    ///
    /// # Errors
    /// I/O faults naming the folder.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        entries(&self.root)
    }

    /// A picture of an event as a PNG file; the template's comes from `templates`. `None` when the event has no such picture.
    ///
    /// # Errors
    /// As [`Archive::find`]; [`Kind::Data`] when a file is damaged.
    pub fn picture(&self, event_id: &str, which: Picture, templates: Option<&TemplateStore>) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.find(event_id)? else { return Ok(None) };
        let manifest = entry.manifest()?;
        if which == Picture::Template {
            let sha = manifest.picture_sha256.as_ref().filter(|_| manifest.template_size_px.is_some());
            return match (sha, templates) {
                (Some(sha), Some(store)) => store.picture_file(sha).map(Some),
                _ => Ok(None),
            };
        }
        if !manifest.files.contains_key(which.file()) {
            return Ok(None);
        }
        entry.file(&manifest, which.file()).map(Some)
    }
}

fn entries(root: &Path) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    for day in folders(root)? {
        let name = day.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !is_day(&name) {
            continue;
        }
        // The event's own day only: a folder put elsewhere by hand is not ours to collect.
        out.extend(folders(&day)?.into_iter().filter_map(Entry::of).filter(|e| day_of(&e.event_id).as_ref() == Some(&name)));
    }
    out.sort();
    Ok(out)
}

fn is_day(name: &str) -> bool {
    name.len() == 10 && name.char_indices().all(|(i, c)| if i == 4 || i == 7 { c == '-' } else { c.is_ascii_digit() })
}

/// Folders below `root`, in no order; none when it is missing.
fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let what = |e| Error::io(format!("archive {}", root.display()), e);
    let list = match fs::read_dir(root) {
        Ok(list) => list,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(what(e)),
    };
    let mut out = Vec::new();
    for entry in list {
        let entry = entry.map_err(what)?;
        if entry.file_type().map_err(what)?.is_dir() {
            out.push(entry.path());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
