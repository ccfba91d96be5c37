//! Tolerant absolute difference: for each frame pixel the smallest absolute difference to a template pixel within ±k rows and columns.

use crate::frame::{Gray, Map};

use super::{Settings, score_of_ratio};

#[derive(Debug, Default)]
pub(super) struct Scratch {
    least: Vec<u8>,
}

impl Scratch {
    pub fn compare(&mut self, template: &Gray, frame: &Gray, settings: &Settings, out: &mut Map) {
        let (w, h) = frame.size();
        let k = settings.absdiff_tolerance_px as i64;
        let table: [f32; 256] = std::array::from_fn(|d| score_of_ratio(d as f32 / settings.absdiff_gray));
        out.resize_for_overwrite(w, h);
        for y in 0..h {
            self.least.clear();
            self.least.resize(w, 255);
            for ty in (y as i64 - k).max(0)..=(y as i64 + k).min(h as i64 - 1) {
                let row = template.row(ty as usize);
                for dx in -k..=k {
                    // Frame columns whose template column x + dx exists.
                    let from = (-dx).max(0) as usize;
                    let to = (w as i64 - dx.max(0)).max(0) as usize;
                    if from >= to {
                        continue;
                    }
                    let shifted = &row[(from as i64 + dx) as usize..(to as i64 + dx) as usize];
                    for ((least, &f), &t) in self.least[from..to].iter_mut().zip(&frame.row(y)[from..to]).zip(shifted) {
                        *least = (*least).min(f.abs_diff(t));
                    }
                }
            }
            for (o, &d) in out.row_mut(y).iter_mut().zip(&self.least) {
                *o = table[d as usize];
            }
        }
    }
}
