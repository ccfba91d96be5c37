//! Reads the weights of a file that [`super::export`] wrote, and its metadata; of ONNX just the fields this needs (see [`super::proto`]).

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A convolution as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// [outputs, inputs, kernel height, kernel width].
    pub dims: [usize; 4],
    /// Weights in that order.
    pub weight: Vec<f32>,
    /// One for each output.
    pub bias: Vec<f32>,
}

/// What a model file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// Convolutions in the order of computation.
    pub convolutions: Vec<Conv>,
    /// Metadata by key.
    pub metadata: BTreeMap<String, String>,
}

/// One field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Walks over the fields of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.0.len())?;
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Some(taken)
    }

    /// The next field and its number; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let broken = || Error::data("not an ONNX file, or one cut short");
        let key = self.varint().ok_or_else(broken)?;
        let field = match key & 7 {
            0 => Field::Number(self.varint().ok_or_else(broken)?),
            1 => Field::Bytes(self.take(8).ok_or_else(broken)?),
            2 => {
                let n = self.varint().ok_or_else(broken)?;
                Field::Bytes(self.take(n).ok_or_else(broken)?)
            }
            5 => Field::Bytes(self.take(4).ok_or_else(broken)?),
            _ => return Err(broken()),
        };
        Ok(Some((key >> 3, field)))
    }
}

/// Texts 1 and 2 of a message: an entry of the metadata.
fn entry(bytes: &[u8]) -> Result<(String, String)> {
    let (mut fields, mut out) = (Fields(bytes), (String::new(), String::new()));
    while let Some((number, field)) = fields.next()? {
        if let Field::Bytes(text) = field {
            let text = String::from_utf8_lossy(text).into_owned();
            match number {
                1 => out.0 = text,
                2 => out.1 = text,
                _ => {}
            }
        }
    }
    Ok(out)
}

/// Name, dimensions and values of a float tensor (TensorProto: dims 1, name 8, raw_data 9).
fn tensor(bytes: &[u8]) -> Result<(String, Vec<usize>, Vec<f32>)> {
    let mut fields = Fields(bytes);
    let (mut name, mut dims, mut values) = (String::new(), Vec::new(), Vec::new());
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Number(d)) => dims.push(d as usize),
            (8, Field::Bytes(text)) => name = String::from_utf8_lossy(text).into_owned(),
            (9, Field::Bytes(raw)) => {
                values = raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            }
            _ => {}
        }
    }
    Ok((name, dims, values))
}

/// Reads a model file's bytes.
///
/// # Errors
/// What is no ONNX file of this trainer: it says so, or names the convolution that does not fit.
pub fn read(bytes: &[u8]) -> Result<Contents> {
    let mut out = Contents::default();
    let mut tensors = BTreeMap::new();
    let (mut ours, mut model) = (false, Fields(bytes));
    while let Some((number, field)) = model.next()? {
        match (number, field) {
            (2, Field::Bytes(producer)) => ours = producer == b"ssds-train",
            (7, Field::Bytes(graph)) => {
                let mut graph = Fields(graph);
                while let Some((number, field)) = graph.next()? {
                    if let (5, Field::Bytes(t)) = (number, field) {
                        let (name, dims, values) = tensor(t)?;
                        tensors.insert(name, (dims, values));
                    }
                }
            }
            (14, Field::Bytes(e)) => out.metadata.extend([entry(e)?]),
            _ => {}
        }
    }
    if !ours {
        return Err(Error::data("not a model that ssds-train wrote"));
    }
    while let Some((dims, weight)) = tensors.remove(&format!("w{}", out.convolutions.len())) {
        let number = out.convolutions.len();
        let bias = tensors.remove(&format!("b{number}")).map(|(_, b)| b).unwrap_or_default();
        let fits = dims.len() == 4
            && dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(weight.len())
            && bias.len() == dims[0]
            && weight.iter().chain(&bias).all(|v| v.is_finite());
        if !fits {
            return Err(Error::data(format!(
                "its convolution {number} of {dims:?} has {} weights and {} biases, wanted finite ones in the numbers that go with it",
                weight.len(),
                bias.len()
            )));
        }
        out.convolutions.push(Conv { dims: [dims[0], dims[1], dims[2], dims[3]], weight, bias });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::onnx::{Calibration, export};
    use crate::train::spec::Preset;

    fn file() -> Vec<u8> {
        let layout = Preset::Micro.spec().layout().unwrap();
        let metadata = [("ssds.seed".to_string(), "7".to_string())];
        export(&layout, &layout.initial(1, -1.0), &layout.initial_stats(), Calibration::default(), &metadata)
    }

    #[test]
    fn what_was_written_is_read() {
        let contents = read(&file()).unwrap();
        let layout = Preset::Micro.spec().layout().unwrap();
        let count = layout.params.iter().filter(|p| p.name.ends_with("weight")).count();
        assert_eq!(contents.convolutions.len(), count);
        assert_eq!(contents.convolutions[0].dims, [8, 8, 3, 3]);
        assert_eq!(contents.metadata["ssds.seed"], "7");
    }

    #[test]
    fn files_cut_short_or_changed_never_panic() {
        let good = file();
        for n in (0..good.len()).step_by(37) {
            let _ = read(&good[..n]);
        }
        for i in (0..good.len().min(4000)).step_by(3) {
            let mut bytes = good.clone();
            bytes[i] ^= 0x5b;
            let _ = read(&bytes);
        }
        assert_eq!(read(b"").unwrap_err().message(), "not a model that ssds-train wrote");
        assert_eq!(read(&[0x0b; 9]).unwrap_err().message(), "not an ONNX file, or one cut short");
    }
}
