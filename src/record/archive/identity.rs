//! Whose archive a folder is.
//!
//! `ROOT/ssds-archive.json` names the archive; the station remembers that name in a file of its own (`archive.json` in its state
//! folder). Evidence is written and collected only where the two agree, so that a disk that is not mounted is neither filled nor taken
//! for an emptied archive, and a foreign folder is never touched.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::template::store::replace;

/// The file in the archive's folder.
pub const IDENTITY: &str = "ssds-archive.json";
/// The file in the station's state folder.
pub const REMEMBERED: &str = "archive.json";
/// The archive's format.
const FORMAT: &str = "ssds.archive/1";

/// An archive's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    format: String,
    /// UUID.
    pub archive_id: String,
    /// The station that made it.
    pub station: String,
}

fn read(path: &Path) -> Result<Option<Identity>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("archive {}", path.display()), e)),
    };
    match serde_json::from_slice::<Identity>(&bytes) {
        Ok(found) if found.format == FORMAT => Ok(Some(found)),
        Ok(found) => Err(Error::data(format!("archive {}: format {:?}, {FORMAT:?} wanted", path.display(), found.format))),
        Err(e) => Err(Error::data(format!("archive {}: damaged: {e}", path.display()))),
    }
}

fn write(path: &Path, identity: &Identity) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(identity).map_err(|e| Error::internal(format!("JSON: {e}")))?;
    replace(path, &bytes)
}

/// The identity of the archive in `root`, for reading.
///
/// # Errors
/// [`Kind::Missing`] when there is none, [`Kind::Data`] when it is damaged.
pub fn of(root: &Path) -> Result<Identity> {
    read(&root.join(IDENTITY))?.ok_or_else(|| {
        Error::new(
            Kind::Missing,
            format!("archive {}: there is no {IDENTITY}; nothing was archived here, or its disk is not mounted", root.display()),
        )
    })
}

/// Whether `root` still is the archive `identity`; cheap, asked before every write.
///
/// # Errors
/// [`Kind::Unavailable`] when it is not.
pub fn still_there(root: &Path, identity: &Identity) -> Result<()> {
    match read(&root.join(IDENTITY)) {
        Ok(Some(found)) if found == *identity => Ok(()),
        Ok(Some(found)) => Err(foreign(root, &found, identity)),
        Ok(None) => Err(not_mounted(root)),
        Err(e) => Err(e.with_kind(Kind::Unavailable)),
    }
}

/// Finds or makes the archive in `root` for `station`, whose state folder is `state`.
///
/// # Errors
/// [`Kind::Unavailable`] when the remembered archive is not there or another one is, [`Kind::Data`] when the folder holds other things or
/// the archive of another station and none is remembered; I/O faults.
pub fn settle(root: &Path, state: &Path, station: &str) -> Result<Identity> {
    let remembered = read(&state.join(REMEMBERED))?;
    let found = read(&root.join(IDENTITY))?;
    match (remembered, found) {
        (Some(known), Some(found)) if known == found => Ok(found),
        (Some(known), Some(found)) => Err(foreign(root, &found, &known)),
        (Some(_), None) => Err(not_mounted(root)),
        (None, Some(found)) if found.station == station => {
            write(&state.join(REMEMBERED), &found)?;
            Ok(found)
        }
        (None, Some(found)) => Err(Error::data(format!(
            "archive {}: it belongs to station {:?}, not to {station:?}; name another folder in paths.archive_dir",
            root.display(),
            found.station
        ))),
        (None, None) => {
            create(root)?;
            let new =
                Identity { format: FORMAT.into(), archive_id: uuid::Uuid::now_v7().to_string(), station: station.to_owned() };
            write(&root.join(IDENTITY), &new)?;
            write(&state.join(REMEMBERED), &new)?;
            Ok(new)
        }
    }
}

/// Forgets the remembered archive, so that [`settle`] takes what is there now or makes a new one.
///
/// # Errors
/// I/O faults.
pub fn forget(state: &Path) -> Result<()> {
    let path = state.join(REMEMBERED);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!("archive {}", path.display()), e)),
        _ => Ok(()),
    }
}

/// Makes the folder; one with other things in it is refused.
fn create(root: &Path) -> Result<()> {
    let what = |e| Error::io(format!("archive {}", root.display()), e);
    fs::create_dir_all(root).map_err(what)?;
    for entry in fs::read_dir(root).map_err(what)? {
        let name = entry.map_err(what)?.file_name();
        if name != "lost+found" && !name.to_string_lossy().starts_with(".tmp-") {
            return Err(Error::data(format!(
                "archive {}: the folder is not empty and has no {IDENTITY}; an empty folder or an archive wanted",
                root.display()
            )));
        }
    }
    Ok(())
}

fn not_mounted(root: &Path) -> Error {
    Error::unavailable(format!(
        "archive {}: its {IDENTITY} is not there; is the disk mounted? `ssds archive init` begins a new archive",
        root.display()
    ))
}

fn foreign(root: &Path, found: &Identity, wanted: &Identity) -> Error {
    Error::unavailable(format!(
        "archive {}: another archive is there ({} of station {:?}, {} wanted); `ssds archive init` takes it over",
        root.display(),
        found.archive_id,
        found.station,
        wanted.archive_id
    ))
}
