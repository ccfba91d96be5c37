//! The contract `ssds/1` between a model file and this program.
//!
//! Input `pair`, float32 `[n, 2, h, w]`: channel 0 the template warped to the frame, channel 1 the frame, values x/255 (standardisation is
//! inside the graph). Output `score`, float32 `[n, 1, h, w]`, 0..1. n, h and w are symbolic or fixed; h and w are multiples of
//! `ssds.multiple`. Metadata keys (strings): `ssds.contract`, `ssds.name`, `ssds.version`, `ssds.preset`, `ssds.seed`, `ssds.steps`,
//! `ssds.threshold`, `ssds.multiple`, `ssds.scaling`, `ssds.scores`, `ssds.revision`, and the golden vector of [`crate::golden`].
//!
//! [`Contract::of`] checks all of it on the file's structure before ONNX Runtime sees the file and names every fault at once.

use crate::error::{Error, Result};
use crate::golden::Golden;

use super::onnx::{Dim, Port, Structure};

/// The contract's name and major version.
pub const CONTRACT: &str = "ssds/1";
/// Name of the input.
pub const INPUT: &str = "pair";
/// Name of the output.
pub const OUTPUT: &str = "score";
/// The only input scaling of this contract.
pub const SCALING: &str = "x/255";

const FLOAT32: u64 = 1;
const MAX_FIXED_SIDE_PX: u64 = 8192;
const MAX_FIXED_BATCH: u64 = 256;

/// What a fitting model says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// `ssds.name`.
    pub name: String,
    /// `ssds.version`.
    pub version: String,
    /// `ssds.preset`: the network's size.
    pub preset: String,
    /// `ssds.seed` of the training.
    pub seed: u64,
    /// `ssds.steps` of the training.
    pub steps: u64,
    /// `ssds.threshold` for the decision, 0..1.
    pub threshold: f32,
    /// `ssds.multiple`: height and width must be multiples of it.
    pub multiple: usize,
    /// `ssds.scores` as JSON text; empty when absent.
    pub scores: String,
    /// `ssds.revision` of the program that trained it; empty when absent.
    pub revision: String,
    /// Batch size the graph is fixed to.
    pub fixed_batch: Option<usize>,
    /// (height, width) the graph is fixed to, pixels.
    pub fixed_size: Option<(usize, usize)>,
    /// The golden vector, when the file has one.
    pub golden: Option<Golden>,
}

impl Contract {
    /// Checks a model's structure.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] listing everything that does not fit, each with what was found and what was wanted.
    pub fn of(model: &Structure) -> Result<Self> {
        let mut faults = Vec::new();
        let input = port(&model.inputs, "input", INPUT, 2, &mut faults);
        let output = port(&model.outputs, "output", OUTPUT, 1, &mut faults);
        if let (Some(input), Some(output)) = (&input, &output) {
            // Of a fixed input a symbolic output is fine; two different numbers are not.
            for (i, axis) in ["n", "h", "w"].into_iter().enumerate() {
                if let (Some(a), Some(b)) = (input[i], output[i])
                    && a != b
                {
                    faults.push(format!("`{INPUT}` has {axis} = {a} but `{OUTPUT}` has {axis} = {b}, wanted the same"));
                }
            }
        }
        let text = |key: &str| model.metadata.get(key).map(String::as_str);
        let mut required = |key: &str, wanted: &str| {
            let value = text(key);
            if value.is_none() {
                faults.push(format!("metadata key {key} is missing, wanted {wanted}"));
            }
            value.unwrap_or_default()
        };
        let contract = required("ssds.contract", "`ssds/1`");
        let name = required("ssds.name", "the model's name");
        let version = required("ssds.version", "the model's version");
        let scaling = required("ssds.scaling", "`x/255`");
        let threshold = required("ssds.threshold", "a number in 0..1");
        let multiple = required("ssds.multiple", "1, 2, 4, ... 256");
        let preset = required("ssds.preset", "the network's preset");
        let seed = required("ssds.seed", "the training's seed");
        let steps = required("ssds.steps", "the training's steps");

        let mut number = |key: &str, value: &str, wanted: &str, good: &dyn Fn(&str) -> bool| {
            if !value.is_empty() && !good(value) {
                faults.push(format!("metadata key {key} is `{value}`, wanted {wanted}"));
            }
        };
        number("ssds.contract", contract, "`ssds/1`", &|v| v == CONTRACT);
        number("ssds.scaling", scaling, "`x/255`", &|v| v == SCALING);
        let threshold_of = |v: &str| v.parse::<f32>().ok().filter(|t| (0.0..=1.0).contains(t));
        number("ssds.threshold", threshold, "a number in 0..1", &|v| threshold_of(v).is_some());
        let multiple_of = |v: &str| v.parse::<usize>().ok().filter(|m| m.is_power_of_two() && *m <= 256);
        number("ssds.multiple", multiple, "1, 2, 4, ... 256", &|v| multiple_of(v).is_some());
        number("ssds.seed", seed, "a whole number", &|v| v.parse::<u64>().is_ok());
        number("ssds.steps", steps, "a whole number", &|v| v.parse::<u64>().is_ok());

        let multiple = multiple_of(multiple).unwrap_or(1);
        let input = input.unwrap_or([None; 3]);
        let fixed_size = match (input[1], input[2]) {
            (Some(h), Some(w)) => {
                if h % multiple != 0 || w % multiple != 0 {
                    faults.push(format!("`{INPUT}` is fixed to {w}x{h}, wanted multiples of {multiple}"));
                }
                Some((h, w))
            }
            (None, None) => None,
            _ => {
                faults.push(format!("`{INPUT}` has only one of h and w fixed, wanted both or none"));
                None
            }
        };
        let golden = Golden::from_metadata(|key| model.metadata.get(key).cloned()).unwrap_or_else(|error| {
            faults.push(error.message().to_owned());
            None
        });
        if let Some(golden) = &golden {
            let fits = fixed_size.is_none_or(|size| size == (golden.height, golden.width));
            if !fits || golden.height % multiple != 0 || golden.width % multiple != 0 {
                faults.push(format!("the golden vector is {}x{}, which the network cannot take", golden.width, golden.height));
            }
        }
        if !faults.is_empty() {
            return Err(Error::data(format!("does not follow contract {CONTRACT}: {}", faults.join("; "))));
        }
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            preset: preset.to_owned(),
            seed: seed.parse().unwrap_or_default(),
            steps: steps.parse().unwrap_or_default(),
            threshold: threshold_of(threshold).unwrap_or_default(),
            multiple,
            scores: text("ssds.scores").unwrap_or_default().to_owned(),
            revision: text("ssds.revision").unwrap_or_default().to_owned(),
            fixed_batch: input[0],
            fixed_size,
            golden,
        })
    }
}

/// Checks one side; answers what n, h and w are fixed to.
fn port(ports: &[Port], side: &str, name: &str, channels: u64, faults: &mut Vec<String>) -> Option<[Option<usize>; 3]> {
    let names = || ports.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
    let wanted = format!("`{name}` float32 [n, {channels}, h, w]");
    let [port] = ports else {
        faults.push(format!("has {} {side}s ({}), wanted one: {wanted}", ports.len(), names()));
        return None;
    };
    let before = faults.len();
    if port.name != name {
        faults.push(format!("{side} is named `{}`, wanted `{name}`", port.name));
    }
    if port.element_type != FLOAT32 {
        faults.push(format!("{side} `{}` has ONNX element type {}, wanted 1 (float32)", port.name, port.element_type));
    }
    let shape = port.dims.as_ref().map_or_else(|| "no declared shape".to_owned(), |dims| show(dims));
    let Some([n, c, h, w]) = port.dims.as_deref() else {
        faults.push(format!("{side} `{}` has shape {shape}, wanted {wanted}", port.name));
        return None;
    };
    let fixed = |dim: &Dim, max: u64| match dim {
        Dim::Fixed(v) if (1..=max).contains(v) => Some(Some(*v as usize)),
        Dim::Fixed(_) => None,
        Dim::Symbolic(_) => Some(None),
    };
    let dims = (fixed(n, MAX_FIXED_BATCH), fixed(h, MAX_FIXED_SIDE_PX), fixed(w, MAX_FIXED_SIDE_PX));
    let (Some(n), Some(h), Some(w), true) = (dims.0, dims.1, dims.2, *c == Dim::Fixed(channels)) else {
        faults.push(format!("{side} `{}` has shape {shape}, wanted {wanted}", port.name));
        return None;
    };
    (faults.len() == before).then_some([n, h, w])
}

fn show(dims: &[Dim]) -> String {
    let dims = dims.iter().map(|dim| match dim {
        Dim::Fixed(v) => v.to_string(),
        Dim::Symbolic(name) if name.is_empty() => "?".to_owned(),
        Dim::Symbolic(name) => name.clone(),
    });
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}
