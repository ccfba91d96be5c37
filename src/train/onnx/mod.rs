//! Export to ONNX under the contract `ssds/1`.
//!
//! Input `pair` float32 [n, 2, h, w]: template warped to the frame, and frame, x/255. Output `score` float32 [n, 1, h, w] in 0..1. n, h
//! and w are symbolic, h and w multiples of metadata `ssds.multiple`. Standardisation, both stages, batch norm (folded into the
//! convolutions) and the calibration of the score are inside the graph, so that whoever runs it needs to know nothing else.

pub mod proto;
pub mod read;

use crate::train::spec::{BATCH_NORM_EPSILON, ConvBn, Layout, STANDARDISE_EPSILON, UNetLayout};
use proto::{Attribute, Dimension, Graph};

/// Name of the contract in the metadata.
pub const CONTRACT: &str = "ssds/1";

/// The affine map of the logit that makes 0.5 the right threshold: `score = sigmoid(scale * (logit - centre))`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Calibration {
    /// Slope.
    pub scale: f32,
    /// The logit that becomes 0.5.
    pub centre: f32,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { scale: 1.0, centre: 0.0 }
    }
}

struct Writer<'a> {
    graph: Graph,
    params: &'a [f32],
    stats: &'a [f32],
    count: usize,
}

impl Writer<'_> {
    /// 3x3 convolution with its batch norm folded in, then ReLU.
    fn block(&mut self, at: &ConvBn, x: &str) -> String {
        let (outputs, inner) = (at.outputs, at.inputs * 9);
        let mut weight = self.params[at.weight..at.weight + outputs * inner].to_vec();
        let mut bias = vec![0f32; outputs];
        for o in 0..outputs {
            let scale = self.params[at.gamma + o] / (self.stats[at.variance + o] + BATCH_NORM_EPSILON).sqrt();
            weight[o * inner..(o + 1) * inner].iter_mut().for_each(|w| *w *= scale);
            bias[o] = self.params[at.beta + o] - self.stats[at.mean + o] * scale;
        }
        let conv = self.conv(x, &weight, &bias, (outputs, at.inputs, 3));
        self.graph.node("Relu", &[&conv], &[])
    }

    fn conv(&mut self, x: &str, weight: &[f32], bias: &[f32], (outputs, inputs, side): (usize, usize, usize)) -> String {
        let (w, b) = (format!("w{}", self.count), format!("b{}", self.count));
        self.count += 1;
        let k = side as i64;
        self.graph.floats(&w, &[outputs as i64, inputs as i64, k, k], weight);
        self.graph.floats(&b, &[outputs as i64], bias);
        let pad = k / 2;
        self.graph.node(
            "Conv",
            &[x, &w, &b],
            &[("kernel_shape", Attribute::Ints(&[k, k])), ("pads", Attribute::Ints(&[pad, pad, pad, pad]))],
        )
    }

    /// Mean of each plane, row by row and then over the rows: one single-precision sum over a whole plane is off by some 1e-6, which a
    /// flat picture's standardisation and the network make 7e-5 in the score.
    fn mean(&mut self, x: &str) -> String {
        let rows = self.graph.node("ReduceMean", &[x, "along_row"], &[]);
        self.graph.node("ReduceMean", &[&rows, "over_rows"], &[])
    }

    /// Stem to head, both in the half-resolution form (channels = pixels of a block).
    fn unet(&mut self, l: &UNetLayout, x: &str, calibration: Calibration) -> String {
        let mut x = x.to_string();
        let mut skips = Vec::new();
        for (k, [a, b]) in l.down.iter().enumerate() {
            if k > 0 {
                let half = [("kernel_shape", Attribute::Ints(&[2, 2])), ("strides", Attribute::Ints(&[2, 2]))];
                x = self.graph.node("MaxPool", &[&x], &half);
            }
            x = self.block(a, &x);
            x = self.block(b, &x);
            skips.push(x.clone());
        }
        for (k, [a, b]) in l.up.iter().enumerate().rev() {
            let nearest = [
                ("mode", Attribute::Text("nearest")),
                ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
                ("nearest_mode", Attribute::Text("floor")),
            ];
            let up = self.graph.node("Resize", &[&x, "", "twice"], &nearest);
            let both = self.graph.node("Concat", &[&up, &skips[k]], &[("axis", Attribute::Int(1))]);
            x = self.block(a, &both);
            x = self.block(b, &x);
        }
        let (inputs, outputs) = (l.spec.channels[0], l.head_channels());
        let weight: Vec<f32> =
            self.params[l.head_weight..l.head_weight + inputs * outputs].iter().map(|w| w * calibration.scale).collect();
        let bias: Vec<f32> = self.params[l.head_bias..l.head_bias + outputs]
            .iter()
            .map(|b| (b - calibration.centre) * calibration.scale)
            .collect();
        self.conv(&x, &weight, &bias, (outputs, inputs, 1))
    }

    fn blocks(&mut self, operator: &str, x: &str, side: usize) -> String {
        if side == 1 {
            return x.to_string();
        }
        self.graph.node(operator, &[x], &[("blocksize", Attribute::Int(side as i64))])
    }
}

/// The model file for these weights and running statistics; `metadata` beside the contract's own keys `ssds.contract`, `ssds.multiple`,
/// `ssds.scaling` and `ssds.threshold`.
#[must_use]
pub fn export(
    layout: &Layout,
    params: &[f32],
    stats: &[f32],
    calibration: Calibration,
    metadata: &[(String, String)],
) -> Vec<u8> {
    use Dimension::{Fixed, Named};
    let mut w = Writer { graph: Graph::default(), params, stats, count: 0 };
    w.graph.input("pair", &[Named("n"), Fixed(2), Named("h"), Named("w")]);
    w.graph.output("score", &[Named("n"), Fixed(1), Named("h"), Named("w")]);
    w.graph.integers("along_row", &[3]);
    w.graph.integers("over_rows", &[2]);
    w.graph.floats("twice", &[4], &[1.0, 1.0, 2.0, 2.0]);
    w.graph.floats("epsilon", &[1], &[STANDARDISE_EPSILON]);
    // (x - mean) / (standard deviation + epsilon), each picture and channel alone
    let mean = w.mean("pair");
    let centred = w.graph.node("Sub", &["pair", &mean], &[]);
    let square = w.graph.node("Mul", &[&centred, &centred], &[]);
    let variance = w.mean(&square);
    let deviation = w.graph.node("Sqrt", &[&variance], &[]);
    let divisor = w.graph.node("Add", &[&deviation, "epsilon"], &[]);
    let x = w.graph.node("Div", &[&centred, &divisor], &[]);

    let stem = layout.differ.spec.stem;
    let x = w.blocks("SpaceToDepth", &x, stem);
    let (last, stem) = match &layout.mask {
        None => (w.unet(&layout.differ, &x, calibration), stem),
        Some(mask) => {
            let mut pair = w.unet(&layout.differ, &x, Calibration::default());
            // equal blocks: the depth-to-space of O_t and O_s and the space-to-depth behind it cancel
            if mask.spec.stem != stem {
                pair = w.blocks("DepthToSpace", &pair, stem);
                pair = w.blocks("SpaceToDepth", &pair, mask.spec.stem);
            }
            (w.unet(mask, &pair, calibration), mask.spec.stem)
        }
    };
    let logit = w.blocks("DepthToSpace", &last, stem);
    w.graph.node_named("Sigmoid", &[&logit], "score", &[]);
    let mut all = vec![
        ("ssds.contract".to_string(), CONTRACT.to_string()),
        ("ssds.multiple".to_string(), layout.multiple.to_string()),
        ("ssds.scaling".to_string(), "x/255".to_string()),
        ("ssds.threshold".to_string(), "0.5".to_string()),
    ];
    all.extend_from_slice(metadata);
    w.graph.model("ssds", &all)
}
