//! The pictures of an inspection, from the archive.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// Names of the pictures that an event may have.
const NAMES: [&str; 1] = ["overlay.png"];

/// Reads the archive's pictures.
pub struct Pictures {
    folder: PathBuf,
}

impl Pictures {
    /// Of the archive in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The pictures that there are of an event.
    #[must_use]
    pub fn names(&self, event_id: &str) -> Vec<&'static str> {
        NAMES.into_iter().filter(|_| self.folder.join(format!("{event_id}.png")).is_file()).collect()
    }

    /// One picture's file.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is none of that name, or the system's.
    pub fn read(&self, event_id: &str, name: &str) -> Result<Vec<u8>> {
        if !NAMES.contains(&name) {
            return Err(Error::new(Kind::Missing, format!("{name}: inspections have {}", NAMES.join(", "))));
        }
        let path = self.folder.join(format!("{event_id}.png"));
        std::fs::read(&path).map_err(|e| Error::io(format!("picture {name} of {event_id}"), e))
    }
}
