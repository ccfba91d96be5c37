//! The pictures of an inspection, from the archive.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::record::archive::{Archive, Picture};
use crate::template::store::Store as TemplateStore;

/// Reads the archive's pictures.
pub struct Pictures {
    archive: PathBuf,
    templates: PathBuf,
}

impl Pictures {
    /// Of the archive and the template store in these folders.
    #[must_use]
    pub fn new(archive: PathBuf, templates: PathBuf) -> Self {
        Self { archive, templates }
    }

    /// The pictures that there are of an event, the overlay first.
    #[must_use]
    pub fn names(&self, event_id: &str) -> Vec<&'static str> {
        let manifest = Archive::open(&self.archive).and_then(|a| a.get(event_id)).and_then(|e| e.manifest());
        // Not archived, or gone by age: there are none.
        let Ok(manifest) = manifest else { return Vec::new() };
        let there = |p: &Picture| match p {
            Picture::Template => manifest.template_size_px.is_some(),
            other => manifest.files.contains_key(other.file()),
        };
        Picture::ALL.into_iter().rev().filter(there).map(Picture::file).collect()
    }

    /// One picture's file.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is none of that name, [`Kind::Data`] when it is damaged, or the system's.
    pub fn read(&self, event_id: &str, name: &str) -> Result<Vec<u8>> {
        let Some(which) = Picture::from_file(name) else {
            let names = Picture::ALL.map(Picture::file).join(", ");
            return Err(Error::new(Kind::Missing, format!("{name}: inspections have {names}")));
        };
        let templates = TemplateStore::open(&self.templates)?;
        let found = Archive::open(&self.archive)?.picture(event_id, which, Some(&templates))?;
        found.ok_or_else(|| Error::new(Kind::Missing, format!("picture {name} of {event_id}: it is not in the archive")))
    }
}
