//! Makes the recorded frames of `make demo` (tests/data/demo) with the project's own simulator: a template of one product, frames of good
//! and defective parts as a camera would see them (pose, light, blur, noise, assembly tolerance), and one frame of another product.
//!
//! `cargo run --release --no-default-features --example demo_frames -- tests/data/demo`

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use ssds::frame::{Gray, save_gray_png};
use ssds::simulate::part::{PartOptions, Product};

const PRODUCT_SEED: u64 = 11;
const OTHER_PRODUCT_SEED: u64 = 7;
const PART_SEED: u64 = 2;
const TEMPLATE_PX: (usize, usize) = (480, 360);
const FRAME_PX: (usize, usize) = (640, 480);
const JPEG_QUALITY: u8 = 92;
/// Number of defects of each part in order; `None` = the other product.
const PARTS: [Option<usize>; 16] = [
    Some(0),
    Some(0),
    Some(1),
    Some(0),
    Some(0),
    Some(2),
    Some(0),
    None,
    Some(0),
    Some(1),
    Some(0),
    Some(3),
    Some(0),
    Some(0),
    Some(1),
    Some(0),
];

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: demo_frames FOLDER")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder.join("frames"))?;
    let product = Product::random(PRODUCT_SEED, TEMPLATE_PX)?;
    let other = Product::random(OTHER_PRODUCT_SEED, TEMPLATE_PX)?;
    save_gray_png(&folder.join("template.png"), &product.template)?;
    let mut truth = BTreeMap::new();
    for (index, defects) in PARTS.into_iter().enumerate() {
        let options = PartOptions { frame_size: FRAME_PX, defects: defects.unwrap_or(0), ..PartOptions::default() };
        let whose = if defects.is_some() { &product } else { &other };
        let part = whose.part(PART_SEED, index as u64, &options)?;
        let expected = match defects {
            None => "ERROR",
            Some(0) => "OK",
            Some(_) => "NG",
        };
        anyhow::ensure!(
            part.clean == (defects.unwrap_or(0) == 0),
            "part {index}: clean is {} with {defects:?} defects asked",
            part.clean
        );
        let name = format!("{index:03}.jpg");
        save_jpeg(&folder.join("frames").join(&name), &part.frame)?;
        truth.insert(name, expected);
    }
    std::fs::write(folder.join("truth.json"), format!("{}\n", serde_json::to_string_pretty(&truth)?))?;
    Ok(())
}

fn save_jpeg(path: &Path, picture: &Gray) -> Result<()> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let (w, h) = (u32::try_from(picture.width())?, u32::try_from(picture.height())?);
    JpegEncoder::new_with_quality(file, JPEG_QUALITY).write_image(picture.data(), w, h, ExtendedColorType::L8)?;
    Ok(())
}
