//! Writes simulated pairs for looking at and for other programs: pictures, masks, a pair manifest, a contact sheet.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Config, Sample, sample};
use crate::dataset::{self, BoxSource, Pair, Writer};
use crate::error::{Error, Kind, Result};
use crate::frame::{save_gray_png, save_rgb_png};
use crate::score;

/// Most pairs on the contact sheet.
const SHEET_PAIRS: usize = 64;
/// Gap between pictures on the contact sheet, px.
const GAP: usize = 2;

/// What [`export`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The pair manifest.
    pub manifest: PathBuf,
    /// The contact sheet: template, frame and frame with its label outlined, side by side.
    pub sheet: PathBuf,
    /// Number of pairs.
    pub pairs: usize,
    /// Of these, without any defect.
    pub clean: usize,
}

/// Writes pairs `0..n` of `seed` to `folder` as `NNNN/{template,image,mask}.png`, `pairs.jsonl` (with boxes padded by the scorer's
/// margin and notes on how each was made), `simulate.json` (the settings) and `sheet.png`.
///
/// # Errors
/// [`Kind::Config`] when a setting is out of range or `n` is 0; [`Kind::CannotCreate`] or [`Kind::Io`] when writing fails.
pub fn export(config: &Config, seed: u64, n: usize, folder: &Path) -> Result<Exported> {
    config.check()?;
    if n == 0 {
        return Err(Error::config("simulate --n must be at least 1, got 0"));
    }
    dataset::make_folder(folder)?;
    let settings = serde_json::json!({ "seed": seed, "pairs": n, "config": config });
    let path = folder.join("simulate.json");
    std::fs::write(&path, format!("{settings:#}\n"))
        .map_err(|e| Error::new(Kind::CannotCreate, format!("{}: cannot be written: {e}", path.display())))?;

    let manifest = folder.join("pairs.jsonl");
    let mut writer = Writer::create(&manifest)?;
    let mut shown: Vec<Sample> = Vec::new();
    let mut clean = 0;
    let protocol = score::Settings::default();
    // In blocks, so that memory stays bounded whatever n.
    for first in (0..n).step_by(256) {
        let block: Vec<(usize, Sample)> =
            (first..(first + 256).min(n)).into_par_iter().map(|i| (i, sample(config, seed, i as u64))).collect();
        block.par_iter().try_for_each(|(i, s)| {
            let pair = folder.join(format!("{i:04}"));
            dataset::make_folder(&pair)?;
            save_gray_png(&pair.join("template.png"), &s.template)?;
            save_gray_png(&pair.join("image.png"), &s.frame)?;
            save_gray_png(&pair.join("mask.png"), &s.label)
        })?;
        for (i, s) in block {
            let id = format!("{i:04}");
            let boxes = score::boxes_of_mask(&s.label, protocol.merge_px, protocol.pad_px);
            let pair = Pair {
                template: format!("{id}/template.png").into(),
                image: format!("{id}/image.png").into(),
                mask: Some(format!("{id}/mask.png").into()),
                boxes: Some(BoxSource::Inline(boxes.iter().map(|b| b.to_vec()).collect())),
                matrix: None,
                id,
            };
            writer.add(&pair, Some(&s.notes))?;
            clean += usize::from(s.clean);
            if shown.len() < SHEET_PAIRS {
                shown.push(s);
            }
        }
    }
    writer.finish()?;
    let sheet = folder.join("sheet.png");
    let (rgb, width, height) = contact_sheet(&shown);
    save_rgb_png(&sheet, &rgb, width, height)?;
    Ok(Exported { manifest, sheet, pairs: n, clean })
}

/// Draws samples as rows of triples (template, frame, frame with its label outlined in red and unscored pixels in yellow) and returns
/// RGB bytes, width and height.
#[must_use]
pub fn contact_sheet(samples: &[Sample]) -> (Vec<u8>, usize, usize) {
    let side = samples.first().map_or(1, |s| s.frame.width());
    let columns = (1536 / (3 * side + 3 * GAP)).clamp(1, samples.len().max(1));
    let rows = samples.len().div_ceil(columns).max(1);
    let (cell_w, cell_h) = (3 * (side + GAP) + 2 * GAP, side + 2 * GAP);
    let (width, height) = (columns * cell_w, rows * cell_h);
    let mut rgb = vec![40u8; width * height * 3];
    for (i, s) in samples.iter().enumerate() {
        let (left, top) = ((i % columns) * cell_w + GAP, (i / columns) * cell_h + GAP);
        for y in 0..side {
            for x in 0..side {
                let mut put = |column: usize, value: [u8; 3]| {
                    let at = ((top + y) * width + left + column * (side + GAP) + x) * 3;
                    rgb[at..at + 3].copy_from_slice(&value);
                };
                put(0, [s.template.get(x, y); 3]);
                let v = s.frame.get(x, y);
                put(1, [v; 3]);
                let l = s.label.get(x, y);
                let border = |dx: i64, dy: i64| {
                    let (nx, ny) = (x as i64 + dx, y as i64 + dy);
                    nx >= 0 && ny >= 0 && nx < side as i64 && ny < side as i64 && s.label.get(nx as usize, ny as usize) != l
                };
                let outline = l != 0 && (border(1, 0) || border(-1, 0) || border(0, 1) || border(0, -1));
                let colour = match (outline, l) {
                    (true, super::NOT_SCORED) => [255, 220, 0],
                    (true, _) => [255, 0, 0],
                    _ => [v; 3],
                };
                put(2, colour);
            }
        }
    }
    (rgb, width, height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Manifest;

    #[test]
    fn what_is_written_reads_back_as_pairs_with_truth() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { size_px: 48, ..Config::default() };
        let done = export(&config, 5, 6, dir.path()).unwrap();
        let manifest = Manifest::read(&done.manifest).unwrap();
        assert_eq!(manifest.pairs.len(), 6);
        let mut clean = 0;
        for (i, pair) in manifest.pairs.iter().enumerate() {
            let expected = sample(&config, 5, i as u64);
            assert_eq!(manifest.template(pair).unwrap(), expected.template);
            assert_eq!(manifest.image(pair).unwrap(), expected.frame);
            let truth = manifest.truth(pair).unwrap().unwrap();
            assert_eq!(truth.boxes.is_empty(), !expected.label.data().contains(&255));
            assert_eq!(truth.mask.unwrap(), expected.label);
            clean += usize::from(expected.clean);
        }
        assert_eq!(clean, done.clean);
        assert!(done.sheet.metadata().unwrap().len() > 1000);
        assert_eq!(export(&config, 5, 0, dir.path()).unwrap_err().message(), "simulate --n must be at least 1, got 0");
    }
}
