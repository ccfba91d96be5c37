//! What people said of inspected parts: good or not good, whatever the station decided.
//!
//! One file, `labels.jsonl`, a JSON object a line, only ever appended to (one write and fsync a line, under a lock); of several lines
//! about one event the last holds. A line repeats what it needs of the event (verdict, product, time), so that the figures stay when the
//! event's row and evidence have gone by age. An unfinished last line, left by a power cut, is passed over and never continued.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::record::event::Verdict;

/// The file's name in the state folder.
pub const FILE: &str = "labels.jsonl";

/// What a person found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// The part is good.
    Ok,
    /// It is not.
    Ng,
}

impl Truth {
    /// The word on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Truth::Ok => "ok",
            Truth::Ng => "ng",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The event.
    pub event_id: String,
    /// Its number at the station.
    pub seq: u64,
    /// What a person found.
    pub truth: Truth,
    /// What the station decided.
    pub verdict: Verdict,
    /// Product.
    pub product: String,
    /// When the frame was taken.
    pub captured_at: Timestamp,
    /// When the label was given.
    pub labelled_at: Timestamp,
    /// What the person wrote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Adds a label.
///
/// # Errors
/// I/O faults naming the file; then nothing was added.
pub fn append(path: &Path, label: &Label) -> Result<()> {
    let what = |e| Error::io(format!("labels {}", path.display()), e);
    let mut line = serde_json::to_vec(label).map_err(|e| Error::internal(format!("JSON: {e}")))?;
    line.push(b'\n');
    let mut file = File::options().create(true).read(true).append(true).open(path).map_err(what)?;
    file.lock().map_err(what)?;
    let end = file.seek(SeekFrom::End(0)).map_err(what)?;
    if end > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(what)?;
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
    }
    file.write_all(&line).and_then(|()| file.sync_data()).map_err(|e| {
        // A line that did not fit goes again, so that the next one does not follow on it.
        let _ = file.set_len(end);
        what(e)
    })
}

/// All labels by event, the last of each; empty without the file. Lines that do not decode are named in the second value.
///
/// # Errors
/// I/O faults naming the file.
pub fn read(path: &Path) -> Result<(BTreeMap<String, Label>, Vec<String>)> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((BTreeMap::new(), Vec::new())),
        Err(e) => return Err(Error::io(format!("labels {}", path.display()), e)),
    };
    let (mut out, mut faults) = (BTreeMap::new(), Vec::new());
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        match serde_json::from_str::<Label>(line) {
            Ok(label) => {
                out.insert(label.event_id.clone(), label);
            }
            Err(e) => faults.push(format!("labels {} line {}: {e}", path.display(), i + 1)),
        }
    }
    Ok((out, faults))
}

/// Of the word on the command line.
///
/// # Errors
/// [`Kind::Usage`] for another word.
pub fn truth_of(word: &str) -> Result<Truth> {
    match word {
        "ok" | "OK" => Ok(Truth::Ok),
        "ng" | "NG" => Ok(Truth::Ng),
        other => Err(Error::new(Kind::Usage, format!("label must be ok or ng, got {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(id: &str, truth: Truth) -> Label {
        Label {
            event_id: id.into(),
            seq: 3,
            truth,
            verdict: Verdict::Ng,
            product: "board".into(),
            captured_at: Timestamp::UNIX_EPOCH,
            labelled_at: Timestamp::UNIX_EPOCH,
            note: String::new(),
        }
    }

    #[test]
    fn the_last_label_holds_and_an_unfinished_line_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert!(read(&path).unwrap().0.is_empty());
        append(&path, &label("a", Truth::Ok)).unwrap();
        append(&path, &label("b", Truth::Ok)).unwrap();
        append(&path, &label("a", Truth::Ng)).unwrap();
        // A power cut in the middle of a line.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"event_id\": \"c\", \"tr");
        std::fs::write(&path, &bytes).unwrap();
        append(&path, &label("d", Truth::Ok)).unwrap();
        let (labels, faults) = read(&path).unwrap();
        let all: Vec<_> = labels.values().map(|l| (l.event_id.as_str(), l.truth)).collect();
        assert_eq!(all, [("a", Truth::Ng), ("b", Truth::Ok), ("d", Truth::Ok)]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("labels.jsonl line 4: "), "{faults:?}");
        assert_eq!(truth_of("maybe").unwrap_err().message(), "label must be ok or ng, got \"maybe\"");
    }
}
