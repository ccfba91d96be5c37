//! The archive's writing end: one thread writes evidence and keeps the quotas.
//!
//! Nothing here is ever waited for by the line: what cannot be kept is skipped, counted with its reason and told in the log at most once
//! a minute. Room is made before an event is written: the oldest of its kind while the kind is over its quota; then, while less than the
//! floor would stay free on the disk, the oldest OK, after them the oldest ERROR, after them the oldest NG.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::identity::{self, Identity};
use super::manifest::{DecisionRecord, FORMAT, FileEntry, ImageRecord, Manifest, PoseRecord};
use super::replay::Replayer;
use super::{EVENT, EVIDENCE, Entry, Picture, TEMPORARY, ZONES, day_of, entries, folders, picture};
use crate::decide::{self, Decision};
use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, Map};
use crate::overlay::Canvas;
use crate::record::event::{InspectionEvent, Verdict};
use crate::telemetry::{Counter, Gauge, Telemetry};
use crate::template::sha256_hex;

/// Pause before a missing archive is looked for again.
const RETRY: Duration = Duration::from_secs(5);
/// What a file system hands out at a time, bytes; folders take one each.
const BLOCK: u64 = 4096;
/// Shortest time between two lines of the log about the same trouble.
const REPEAT: Duration = Duration::from_secs(60);

/// What the archive keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The archive's folder.
    pub root: PathBuf,
    /// The station's state folder, where the archive's name is remembered.
    pub state: PathBuf,
    /// The station.
    pub station: String,
    /// Most bytes of OK events.
    pub max_ok_bytes: u64,
    /// Most bytes of NG events.
    pub max_ng_bytes: u64,
    /// Most bytes of ERROR events.
    pub max_error_bytes: u64,
    /// Bytes that stay free on the disk.
    pub min_free_bytes: u64,
}

/// One inspected part, as the line has it. Pictures that are `None` were never made.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The event as it was recorded.
    pub event: &'a InspectionEvent,
    /// The frame; an empty one is left out.
    pub frame: &'a Gray,
    /// Size of the template and SHA-256 of the picture that was registered.
    pub template: Option<((usize, usize), &'a str)>,
    /// Registration.
    pub pose: Option<(&'a crate::geometry::Affine, bool, f32)>,
    /// The template in the frame's place, and its cover.
    pub aligned: Option<(&'a Gray, &'a Gray)>,
    /// The score map with the decision made on it and its settings.
    pub decided: Option<(&'a Map, &'a decide::Settings, &'a Decision)>,
    /// What made the map.
    pub detector: &'a str,
    /// The recipe in force.
    pub recipe_sha256: Option<&'a str>,
    /// The picture for a person.
    pub overlay: Option<&'a Canvas>,
}

/// Why an event was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skipped {
    /// More evidence came than is written.
    Busy,
    /// No room within quota or above the free-space floor.
    NoRoom,
    /// The archive is not there.
    Unavailable,
    /// Writing failed.
    Failed,
}

impl Skipped {
    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Skipped::Busy => "busy",
            Skipped::NoRoom => "no_room",
            Skipped::Unavailable => "unavailable",
            Skipped::Failed => "failed",
        }
    }
}

/// Counters of the archive; cloning shares them.
#[derive(Clone)]
pub struct Counts {
    written: [Counter; 3],
    removed: [Counter; 3],
    bytes: [Gauge; 3],
    skipped: [Counter; 4],
}

const KINDS: [&str; 3] = ["OK", "NG", "ERROR"];

impl Counts {
    /// The archive's metrics.
    #[must_use]
    pub fn new(telemetry: &Telemetry) -> Self {
        let by_verdict = |name: &'static str, help: &'static str| KINDS.map(|v| telemetry.counter(name, help, &[("verdict", v)]));
        let skipped = [Skipped::Busy, Skipped::NoRoom, Skipped::Unavailable, Skipped::Failed];
        Self {
            written: by_verdict("ssds_evidence_written_total", "Events whose evidence was archived."),
            removed: by_verdict("ssds_evidence_removed_total", "Events whose evidence was removed for room."),
            bytes: KINDS.map(|v| telemetry.gauge("ssds_evidence_bytes", "Size of the archive.", &[("verdict", v)])),
            skipped: skipped.map(|s| {
                let help = "Events whose evidence was wanted and not archived.";
                telemetry.counter("ssds_evidence_skipped_total", help, &[("reason", s.name())])
            }),
        }
    }

    /// Counts an event that was not kept.
    pub fn skip(&self, why: Skipped) {
        self.skipped[why as usize].inc();
    }

    /// Events not kept so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.iter().map(Counter::get).sum()
    }

    /// Events kept so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.iter().map(Counter::get).sum()
    }
}

/// An event in stock and its size.
#[derive(Debug, Clone)]
struct Held {
    entry: Entry,
    bytes: u64,
}

/// The archive while it is there.
#[derive(Debug)]
struct Open {
    identity: Identity,
    /// OK, NG, ERROR, each oldest first.
    stock: [VecDeque<Held>; 3],
    totals: [u64; 3],
    // Held for its lock.
    _lock: File,
}

/// The writing end.
pub struct Writer {
    settings: Settings,
    counts: Counts,
    open: Option<Open>,
    tried: Option<Instant>,
    told: Option<Instant>,
    replayer: Replayer,
    mask: Gray,
}

impl Writer {
    /// A writer; the archive is looked for by [`Writer::ready`] and, when it is not there, again with every event.
    #[must_use]
    pub fn new(settings: Settings, counts: Counts) -> Self {
        Self { settings, counts, open: None, tried: None, told: None, replayer: Replayer::default(), mask: Gray::default() }
    }

    /// Its counters.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Finds or makes the archive, clears what a writer that was killed left, and takes stock.
    ///
    /// # Errors
    /// As [`identity::settle`]; [`Kind::TryAgain`] while another process writes there.
    pub fn ready(&mut self) -> Result<()> {
        if let Some(open) = &self.open {
            match identity::still_there(&self.settings.root, &open.identity) {
                Ok(()) => return Ok(()),
                Err(e) => {
                    self.open = None;
                    self.tried = Some(Instant::now());
                    return Err(e);
                }
            }
        }
        if let Some(tried) = self.tried
            && tried.elapsed() < RETRY
        {
            return Err(Error::unavailable(format!("archive {}: not there", self.settings.root.display())));
        }
        self.tried = Some(Instant::now());
        self.open = Some(self.settle()?);
        Ok(())
    }

    fn settle(&self) -> Result<Open> {
        let root = &self.settings.root;
        let identity = identity::settle(root, &self.settings.state, &self.settings.station)?;
        let lock = lock(root)?;
        for folder in folders(root)? {
            if folder.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMPORARY)) {
                fs::remove_dir_all(&folder).map_err(|e| Error::io(format!("archive {}", folder.display()), e))?;
            }
        }
        let (mut stock, mut totals) = (<[VecDeque<Held>; 3]>::default(), [0; 3]);
        for entry in entries(root)? {
            let (kind, bytes) = (entry.verdict().code() as usize, size_of(&entry.folder));
            totals[kind] += bytes;
            stock[kind].push_back(Held { entry, bytes });
        }
        for (gauge, bytes) in self.counts.bytes.iter().zip(totals) {
            gauge.set(bytes as f64);
        }
        Ok(Open { identity, stock, totals, _lock: lock })
    }

    /// Keeps one part's evidence, or counts why not; never an error, since the result itself is safe.
    pub fn keep(&mut self, part: &Part<'_>) -> std::result::Result<Entry, Skipped> {
        let (why, error) = match self.ready() {
            Err(e) => (Skipped::Unavailable, e),
            Ok(()) => match self.write(part) {
                Ok(entry) => {
                    self.counts.written[part.event.verdict.code() as usize].inc();
                    return Ok(entry);
                }
                Err(e) if e.kind() == Kind::TryAgain => (Skipped::NoRoom, e),
                Err(e) => (Skipped::Failed, e),
            },
        };
        self.counts.skip(why);
        if self.told.is_none_or(|t| t.elapsed() >= REPEAT) {
            self.told = Some(Instant::now());
            log::warn!("evidence is not kept ({}): {error:#}; the results themselves are recorded", why.name());
        }
        Err(why)
    }

    /// Writes one part's folder.
    ///
    /// # Errors
    /// [`Kind::TryAgain`] when there is no room, else I/O faults; then nothing is left behind.
    pub fn write(&mut self, part: &Part<'_>) -> Result<Entry> {
        let files = self.files(part)?;
        let bytes: u64 = files.iter().map(|(_, b)| b.len() as u64).sum();
        let on_disk = files.iter().map(|(_, b)| (b.len() as u64).next_multiple_of(BLOCK)).sum::<u64>() + 2 * BLOCK;
        self.make_room(part.event.verdict, bytes, on_disk)?;
        let root = self.settings.root.clone();
        let Some(open) = &mut self.open else { return Err(Error::internal("evidence is written before the archive is ready")) };
        let Some(day) = day_of(&part.event.event_id) else {
            return Err(Error::data(format!("event id {:?}: a UUID of version 7 wanted", part.event.event_id)));
        };
        let temporary = root.join(format!("{TEMPORARY}{}", part.event.event_id));
        let folder = root.join(&day).join(format!("{}.{}", part.event.event_id, part.event.verdict.topic()));
        if let Err(e) = put(&root, &temporary, &folder, &files) {
            // What is left here is removed at the next start at the latest.
            let _ = fs::remove_dir_all(&temporary);
            return Err(e);
        }
        let kind = part.event.verdict.code() as usize;
        let entry = Entry { event_id: part.event.event_id.clone(), code: kind as u8, folder };
        open.totals[kind] += bytes;
        open.stock[kind].push_back(Held { entry: entry.clone(), bytes });
        self.counts.bytes[kind].set(open.totals[kind] as f64);
        Ok(entry)
    }

    /// Every file of the folder, the manifest last.
    fn files(&mut self, part: &Part<'_>) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let e = part.event;
        let mut files = vec![(EVENT, e.to_json()?)];
        if !part.frame.data().is_empty() {
            files.push((Picture::Frame.file(), picture::gray_png(part.frame)?));
        }
        if let Some((warped, valid)) = part.aligned {
            files.push((Picture::Aligned.file(), picture::aligned_png(warped, valid)?));
        }
        let mut decision = None;
        if let (Some((map, settings, made)), Some((warped, valid)), Some((pose, ..))) = (part.decided, part.aligned, part.pose) {
            files.push((Picture::Score.file(), picture::score_png(map)?));
            self.replayer.again(map, valid, part.frame, warped, settings, pose)?;
            self.replayer.draw_mask(map.size(), &mut self.mask);
            files.push((Picture::Mask.file(), picture::mask_png(&self.mask, valid)?));
            if let Some(zones) = &settings.zones {
                files.push((ZONES, picture::gray_png(zones.labels())?));
            }
            decision = Some(DecisionRecord::new(settings, made));
        }
        if let Some(canvas) = part.overlay {
            files.push((Picture::Overlay.file(), picture::rgb_png(canvas.rgb(), (canvas.width(), canvas.height()))?));
        }
        let listed: BTreeMap<String, FileEntry> = files
            .iter()
            .map(|(name, b)| ((*name).to_owned(), FileEntry { sha256: sha256_hex(b), bytes: b.len() as u64 }))
            .collect();
        let mut manifest = Manifest {
            format: FORMAT.into(),
            event_id: e.event_id.clone(),
            seq: e.seq,
            station: e.station.clone(),
            captured_at: e.captured_at,
            verdict: e.verdict,
            error: e.error.clone(),
            product: e.product.clone(),
            template: e.template.clone(),
            picture_sha256: part.template.map(|(_, sha)| sha.to_owned()),
            template_size_px: part.template.map(|(size, _)| size),
            model: e.model.clone(),
            detector: part.detector.to_owned(),
            recipe_sha256: part.recipe_sha256.map(str::to_owned),
            config_sha256: e.config_sha256.clone(),
            image: e.image.as_ref().map(ImageRecord::new),
            pose: part.pose.map(|(pose, accepted, confidence)| PoseRecord::new(pose, accepted, confidence)),
            decision,
            files: listed,
            checksum: String::new(),
        };
        files.push((EVIDENCE, manifest.to_bytes()?));
        Ok(files)
    }

    fn quota(&self, kind: usize) -> u64 {
        [self.settings.max_ok_bytes, self.settings.max_ng_bytes, self.settings.max_error_bytes][kind]
    }

    /// Removes the oldest until `bytes` of this kind fit its quota, and `on_disk` bytes leave the floor free.
    fn make_room(&mut self, verdict: Verdict, bytes: u64, on_disk: u64) -> Result<()> {
        let kind = verdict.code() as usize;
        if bytes > self.quota(kind) {
            return Err(Error::new(
                Kind::TryAgain,
                format!("{bytes} bytes of one {} event, its quota is {} bytes", KINDS[kind], self.quota(kind)),
            ));
        }
        while self.total(kind) + bytes > self.quota(kind) && self.remove_oldest(kind)? {}
        self.free_up(on_disk)
    }

    /// Removes OK, ERROR, NG, oldest first, until the floor stays free with `bytes` more. Where even an empty archive would not leave it
    /// free, something else fills the disk, and nothing is removed.
    fn free_up(&mut self, bytes: u64) -> Result<()> {
        let floor = self.settings.min_free_bytes;
        loop {
            let free = free_bytes(&self.settings.root)?;
            let wanted = floor.saturating_add(bytes);
            if free >= wanted {
                return Ok(());
            }
            let held: u64 = (0..3).map(|kind| self.total(kind)).sum();
            if free.saturating_add(held) < wanted || !self.remove_for_room()? {
                return Err(Error::new(
                    Kind::TryAgain,
                    format!(
                        "archive {}: {free} bytes are free on its disk, {bytes} wanted above the floor of {floor}",
                        self.settings.root.display()
                    ),
                ));
            }
        }
    }

    /// Removes the oldest OK, or else ERROR, or else NG; false when nothing is left.
    pub(super) fn remove_for_room(&mut self) -> Result<bool> {
        for kind in [Verdict::Ok, Verdict::Error, Verdict::Ng].map(|v| v.code() as usize) {
            if self.remove_oldest(kind)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what is over the quotas or keeps the floor from being free. Returns the number of events removed.
    ///
    /// # Errors
    /// I/O faults; [`Kind::TryAgain`] when the floor cannot be reached.
    pub fn collect(&mut self) -> Result<usize> {
        let before: usize = self.open.iter().flat_map(|o| &o.stock).map(VecDeque::len).sum();
        for kind in 0..3 {
            while self.total(kind) > self.quota(kind) && self.remove_oldest(kind)? {}
        }
        let reached = self.free_up(0);
        let after: usize = self.open.iter().flat_map(|o| &o.stock).map(VecDeque::len).sum();
        reached.map(|()| before - after)
    }

    fn total(&self, kind: usize) -> u64 {
        self.open.as_ref().map_or(0, |o| o.totals[kind])
    }

    /// Bytes and events in stock, by verdict: OK, NG, ERROR.
    #[must_use]
    pub fn stock(&self) -> [(usize, u64); 3] {
        let open = self.open.as_ref();
        std::array::from_fn(|kind| open.map_or((0, 0), |o| (o.stock[kind].len(), o.totals[kind])))
    }

    /// Removes the oldest event of a kind; false when there is none.
    fn remove_oldest(&mut self, kind: usize) -> Result<bool> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let Some(held) = open.stock[kind].pop_front() else { return Ok(false) };
        open.totals[kind] = open.totals[kind].saturating_sub(held.bytes);
        self.counts.bytes[kind].set(open.totals[kind] as f64);
        identity::still_there(&self.settings.root, &open.identity)?;
        let what = |e| Error::io(format!("archive {}", held.entry.folder.display()), e);
        let aside = self.settings.root.join(format!("{TEMPORARY}gone-{}", held.entry.event_id));
        match fs::rename(&held.entry.folder, &aside) {
            // Somebody removed it by hand.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            other => other.map_err(what)?,
        }
        fs::remove_dir_all(&aside).map_err(what)?;
        if let Some(day) = held.entry.folder.parent() {
            // Fails while other events of the day are there, and may.
            let _ = fs::remove_dir(day);
        }
        self.counts.removed[kind].inc();
        Ok(true)
    }
}

/// One writer an archive.
fn lock(root: &Path) -> Result<File> {
    let path = root.join(".lock");
    let what = |e: std::io::Error| Error::io(format!("archive {}", path.display()), e);
    let file = File::options().create(true).append(true).open(&path).map_err(what)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::new(
            Kind::TryAgain,
            format!("archive {}: another process, the running daemon most likely, writes and collects here", root.display()),
        )),
        Err(fs::TryLockError::Error(e)) => Err(what(e)),
    }
}

/// Writes the files, each on disk, then gives the folder its name.
fn put(root: &Path, temporary: &Path, folder: &Path, files: &[(&'static str, Vec<u8>)]) -> Result<()> {
    let what = |path: &Path, e| Error::io(format!("evidence {}", path.display()), e);
    match fs::create_dir(temporary) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::remove_dir_all(temporary).and_then(|()| fs::create_dir(temporary)).map_err(|e| what(temporary, e))?;
        }
        other => other.map_err(|e| what(temporary, e))?,
    }
    for (name, bytes) in files {
        let path = temporary.join(name);
        let mut file = File::create(&path).map_err(|e| what(&path, e))?;
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(|e| what(&path, e))?;
    }
    sync(temporary)?;
    let day = folder.parent().unwrap_or(root);
    if !day.is_dir() {
        fs::create_dir_all(day).map_err(|e| what(day, e))?;
        sync(root)?;
    }
    fs::rename(temporary, folder).map_err(|e| what(folder, e))?;
    sync(day)
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(format!("syncing {}", folder.display()), e))
}

/// Bytes of a folder's files; what cannot be read counts nothing.
fn size_of(folder: &Path) -> u64 {
    let Ok(list) = fs::read_dir(folder) else { return 0 };
    list.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.len()).sum()
}

/// Bytes that an ordinary process can still write on the disk of `path`.
///
/// # Errors
/// The system's.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let s = rustix::fs::statvfs(path).map_err(|e| Error::io(format!("free space of {}", path.display()), e.into()))?;
    Ok(s.f_bavail.saturating_mul(s.f_frsize))
}
