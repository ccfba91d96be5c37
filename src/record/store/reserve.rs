//! Sequence numbers reserved in blocks beside the database.
//!
//! The database knows the last number. Should it be lost as a whole (a broken disk sector in its header, a deleted file), this small
//! text file still bounds what was given: numbers up to its content may have been used, so the next one is above. It is rewritten
//! (write, sync, rename, sync of the folder) once in [`BLOCK`] events, and set to the exact number when the spool is closed in order.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// Numbers reserved at once.
const BLOCK: u64 = 10_000;

/// The reserved range's end, on disk.
pub(super) struct Reserve {
    path: PathBuf,
    limit: u64,
}

impl Reserve {
    /// Reads the file; absent means that nothing was ever reserved.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let limit = match std::fs::read_to_string(path) {
            Ok(text) => text.trim().parse().unwrap_or_else(|_| {
                let shown: String = text.trim().chars().take(40).collect();
                log::error!("{} must hold one number, got `{shown}`; only the spool's own count is used", path.display());
                0
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(Error::io(format!("reading {}", path.display()), e)),
        };
        Ok(Self { path: path.to_owned(), limit })
    }

    /// The highest number that may have been used.
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Notes the database's own last number.
    pub(super) fn start(&mut self, last_seq: u64) {
        self.limit = self.limit.max(last_seq);
    }

    /// Makes sure that `seq` is reserved on disk before it is used.
    pub(super) fn cover(&mut self, seq: u64) -> Result<()> {
        if seq <= self.limit {
            return Ok(());
        }
        self.write(seq + BLOCK)
    }

    /// Gives back what was not used, when the database is closed in order.
    pub(super) fn settle(&mut self, last_seq: u64) -> Result<()> {
        self.write(last_seq)
    }

    fn write(&mut self, limit: u64) -> Result<()> {
        let name = |e| Error::io(format!("writing {}", self.path.display()), e).with_kind(Kind::Io);
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(folder).map_err(name)?;
        writeln!(new, "{limit}").map_err(name)?;
        new.as_file().sync_all().map_err(name)?;
        new.persist(&self.path).map_err(|e| name(e.error))?;
        File::open(folder).and_then(|f| f.sync_all()).map_err(name)?;
        self.limit = limit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reserved_before_use_and_given_back_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s-seq");
        let mut reserve = Reserve::load(&path).unwrap();
        assert_eq!(reserve.limit(), 0);
        reserve.cover(1).unwrap();
        assert_eq!(Reserve::load(&path).unwrap().limit(), 1 + BLOCK);
        reserve.cover(BLOCK).unwrap();
        reserve.cover(BLOCK + 2).unwrap();
        assert_eq!(Reserve::load(&path).unwrap().limit(), 2 * BLOCK + 2);
        reserve.settle(BLOCK + 2).unwrap();
        assert_eq!(Reserve::load(&path).unwrap().limit(), BLOCK + 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn another_content_counts_as_nothing_reserved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s-seq");
        std::fs::write(&path, "many\n").unwrap();
        let mut reserve = Reserve::load(&path).unwrap();
        assert_eq!(reserve.limit(), 0);
        reserve.start(7);
        reserve.cover(8).unwrap();
        assert_eq!(Reserve::load(&path).unwrap().limit(), 8 + BLOCK);
    }
}
