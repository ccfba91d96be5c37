//! MJPG pictures of webcams to gray: JPEG files, often without Huffman tables (ITU-T T.81), at times torn.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::frame::Gray;

/// The Huffman tables that a Motion JPEG picture leaves out, as one DHT segment: ITU-T T.81, tables K.3 to K.6 (luminance DC, luminance AC,
/// chrominance DC, chrominance AC).
#[rustfmt::skip]
const STANDARD_TABLES: [u8; 420] = [
    // Marker and length.
    0xff, 0xc4, 0x01, 0xa2,
    // K.3: class and destination, codes of each length, values.
    0x00,
    0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0,
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b,
    // K.5: class and destination, codes of each length, values.
    0x10,
    0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125,
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32, 0x81,
    0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18,
    0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75,
    0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5,
    0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    // K.4: class and destination, codes of each length, values.
    0x01,
    0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b,
    // K.6: class and destination, codes of each length, values.
    0x11,
    0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119,
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81, 0x08,
    0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25,
    0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47,
    0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74,
    0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97,
    0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4,
    0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

/// The picture with the standard's Huffman tables put before its scan where it brings none.
fn with_tables(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            0xc4 => break,
            0xda => return [&bytes[..at], &STANDARD_TABLES, &bytes[at..]].concat().into(),
            // Filling before a marker.
            0xff => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    bytes.into()
}

/// Decodes a JPEG's gray picture, also one without Huffman tables.
///
/// # Errors
/// [`crate::Kind::Data`] when it does not decode or has another size.
pub fn gray_of_jpeg(bytes: &[u8], width: usize, height: usize) -> Result<Gray> {
    // The decoder fills what is missing with gray. Within a picture's data FF is always followed by 00, so this mark is its end.
    if !bytes.windows(2).any(|w| w == [0xff, 0xd9]) {
        return Err(Error::data("an MJPG frame is torn: it has no end mark"));
    }
    let bytes = with_tables(bytes);
    let picture = image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg)
        .map_err(|e| Error::data(format!("an MJPG frame does not decode: {e}")))?;
    let gray = crate::frame::gray_from_dynamic(&picture);
    if gray.size() != (width, height) {
        let (w, h) = gray.size();
        return Err(Error::data(format!("an MJPG frame is {w}x{h}, wanted {width}x{height}")));
    }
    Ok(gray)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(width: usize, height: usize, color: bool) -> (Vec<u8>, Gray) {
        let gray = Gray::from_fn(width, height, |x, y| (40 + 3 * x + 2 * y) as u8);
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
        if color {
            let rgb: Vec<u8> = gray.data().iter().flat_map(|v| [*v; 3]).collect();
            encoder.encode(&rgb, width as u32, height as u32, image::ExtendedColorType::Rgb8).unwrap();
        } else {
            encoder.encode(gray.data(), width as u32, height as u32, image::ExtendedColorType::L8).unwrap();
        }
        (bytes, gray)
    }

    #[test]
    fn mjpg_becomes_gray_on_odd_sizes_and_torn_frames_do_not_pass() {
        for (width, height) in [(8, 8), (33, 17), (7, 5)] {
            for color in [false, true] {
                let (mut bytes, want) = jpeg(width, height, color);
                // What a driver leaves behind the picture is not read.
                bytes.extend_from_slice(&[0; 40]);
                let got = gray_of_jpeg(&bytes, width, height).unwrap();
                let worst = got.data().iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(worst <= 2, "{width}x{height}: {worst} levels off");
                let size = gray_of_jpeg(&bytes, width + 1, height).unwrap_err();
                assert_eq!(size.to_string(), format!("an MJPG frame is {width}x{height}, wanted {}x{height}", width + 1));
            }
        }
        let (bytes, _) = jpeg(64, 64, true);
        for kept in [20, bytes.len() / 2, bytes.len() - 2] {
            let torn = gray_of_jpeg(&bytes[..kept], 64, 64).unwrap_err();
            assert_eq!(torn.to_string(), "an MJPG frame is torn: it has no end mark", "{kept} bytes");
        }
        let other = gray_of_jpeg(b"no picture at all\xff\xd9", 64, 64).unwrap_err();
        assert!(other.to_string().starts_with("an MJPG frame does not decode"), "{other}");
    }

    #[test]
    fn a_picture_without_huffman_tables_is_read_by_the_standard_ones() {
        for color in [false, true] {
            let (whole, _) = jpeg(64, 48, color);
            let mut bare = whole.clone();
            while let Some(at) = bare.windows(2).position(|w| w == [0xff, 0xc4]) {
                let length = usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
                bare.drain(at..at + 2 + length);
            }
            assert!(bare.len() + 100 < whole.len());
            assert_eq!(gray_of_jpeg(&bare, 64, 48).unwrap(), gray_of_jpeg(&whole, 64, 48).unwrap(), "in color: {color}");
            // Filling bytes before a marker are the standard's, too.
            bare.splice(2..2, [0xff, 0xff, 0xff]);
            assert_eq!(gray_of_jpeg(&bare, 64, 48).unwrap(), gray_of_jpeg(&whole, 64, 48).unwrap(), "in color: {color}");
            assert!(matches!(with_tables(&whole), Cow::Borrowed(_)));
        }
        for odd in [&b""[..], b"\xff", b"\xff\xd8\xff\xda", b"\xff\xd8\xff\xe0\xff\xff"] {
            assert!(with_tables(odd).len() >= odd.len());
        }
    }
}
