//! Small ONNX models for tests, written by hand: no training, known answers.
//!
//! [`Model`] writes protobuf directly (onnx.proto3: ModelProto ir_version 1, producer 2, graph 7, opset 8, metadata 14; GraphProto node 1,
//! name 2, initializer 5, input 11, output 12; NodeProto input 1, output 2, op 4, attribute 5). The recipes:
//! [`pyramid`], [`brightness_root`], [`too_bright`] and [`renamed`]. Shared by the library's unit tests and the integration tests.
#![allow(dead_code, reason = "each of the two programs that include this file uses a part of it")]

/// Protobuf bytes.
#[derive(Default, Clone)]
pub struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 127 {
            self.0.push(value as u8 | 128);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }
}

/// An attribute's value.
pub enum Attribute<'a> {
    Int(u64),
    Ints(&'a [u64]),
    Text(&'a str),
}

/// A dimension: a number or a name.
#[derive(Clone, Copy)]
pub enum Dim<'a> {
    Fixed(u64),
    Named(&'a str),
}

/// Symbolic n, h, w around a number of channels.
pub fn symbolic(channels: u64) -> [Dim<'static>; 4] {
    [Dim::Named("n"), Dim::Fixed(channels), Dim::Named("h"), Dim::Named("w")]
}

/// Fixed n, h, w around a number of channels.
pub fn fixed(n: u64, channels: u64, h: u64, w: u64) -> [Dim<'static>; 4] {
    [n, channels, h, w].map(Dim::Fixed)
}

/// A model under construction.
#[derive(Clone)]
pub struct Model {
    graph: Message,
    pub metadata: Vec<(String, String)>,
}

impl Model {
    /// With the metadata of contract `ssds/1`.
    pub fn new(multiple: usize) -> Self {
        let metadata = [
            ("ssds.contract", "ssds/1"),
            ("ssds.name", "fixture"),
            ("ssds.version", "0.0.1"),
            ("ssds.preset", "test"),
            ("ssds.seed", "1"),
            ("ssds.steps", "0"),
            ("ssds.threshold", "0.5"),
            ("ssds.scaling", "x/255"),
            ("ssds.scores", "{}"),
            ("ssds.revision", "test"),
        ];
        let mut metadata: Vec<(String, String)> = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        metadata.push(("ssds.multiple".into(), multiple.to_string()));
        Self { graph: Message::default().text(2, "fixture"), metadata }
    }

    /// Sets or, with an empty value, removes a metadata key.
    pub fn meta(mut self, key: &str, value: &str) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        if !value.is_empty() {
            self.metadata.push((key.into(), value.into()));
        }
        self
    }

    /// float32 values.
    pub fn tensor(mut self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = dims.iter().fold(Message::default(), |m, &d| m.int(1, d)).int(2, 1).text(8, name).bytes(9, &raw);
        self.graph = self.graph.message(5, &tensor);
        self
    }

    pub fn node(mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute<'_>)]) -> Self {
        let mut node = inputs.iter().fold(Message::default(), |m, i| m.text(1, i)).text(2, output).text(4, op);
        for (name, value) in attributes {
            let attribute = Message::default().text(1, name);
            node = node.message(
                5,
                &match value {
                    Attribute::Int(v) => attribute.int(3, *v).int(20, 2),
                    Attribute::Text(v) => attribute.text(4, v).int(20, 3),
                    Attribute::Ints(v) => v.iter().fold(attribute, |m, &v| m.int(8, v)).int(20, 7),
                },
            );
        }
        self.graph = self.graph.message(1, &node);
        self
    }

    fn port(mut self, field: u64, name: &str, element_type: u64, dims: &[Dim<'_>]) -> Self {
        let shape = dims.iter().fold(Message::default(), |m, dim| {
            m.message(
                1,
                &match dim {
                    Dim::Fixed(v) => Message::default().int(1, *v),
                    Dim::Named(v) => Message::default().text(2, v),
                },
            )
        });
        let tensor = Message::default().int(1, element_type).message(2, &shape);
        self.graph =
            self.graph.message(field, &Message::default().text(1, name).message(2, &Message::default().message(1, &tensor)));
        self
    }

    pub fn input(self, name: &str, element_type: u64, dims: &[Dim<'_>]) -> Self {
        self.port(11, name, element_type, dims)
    }

    pub fn output(self, name: &str, element_type: u64, dims: &[Dim<'_>]) -> Self {
        self.port(12, name, element_type, dims)
    }

    pub fn build(&self) -> Vec<u8> {
        let opset = Message::default().text(1, "").int(2, 18);
        let model = Message::default().int(1, 8).text(2, "fixture").text(3, "1").message(7, &self.graph).message(8, &opset);
        self.metadata.iter().fold(model, |m, (k, v)| m.message(14, &Message::default().text(1, k).text(2, v))).0
    }
}

fn conv<'a>(pads: &'a [u64; 4], kernel: &'a [u64; 2]) -> Vec<(&'a str, Attribute<'a>)> {
    vec![("kernel_shape", Attribute::Ints(kernel)), ("pads", Attribute::Ints(pads))]
}

/// |template - frame| at full size plus its 3x3 mean at 1/16 of the size, through a sigmoid: as local as a small U-Net, h and w multiples
/// of 16, zero padding at borders. Score 0.5 at a difference of about 0.25 over a large area.
pub fn pyramid(input: &[Dim<'_>], output: &[Dim<'_>]) -> Model {
    let two: &[u64] = &[2, 2];
    let pool = || vec![("kernel_shape", Attribute::Ints(two)), ("strides", Attribute::Ints(two))];
    Model::new(16)
        .input("pair", 1, input)
        .output("score", 1, output)
        .tensor("sign", &[1, 2, 1, 1], &[1.0, -1.0])
        .tensor("mean", &[1, 1, 3, 3], &[1.0 / 9.0; 9])
        .tensor("scales", &[4], &[1.0, 1.0, 16.0, 16.0])
        .tensor("gain", &[1], &[8.0])
        .tensor("offset", &[1], &[-4.0])
        .node("Conv", &["pair", "sign"], "signed", &conv(&[0; 4], &[1, 1]))
        .node("Abs", &["signed"], "difference", &[])
        .node("MaxPool", &["difference"], "p1", &pool())
        .node("AveragePool", &["p1"], "p2", &pool())
        .node("AveragePool", &["p2"], "p3", &pool())
        .node("AveragePool", &["p3"], "p4", &pool())
        .node("Conv", &["p4", "mean"], "coarse", &conv(&[1; 4], &[3, 3]))
        .node(
            "Resize",
            &["coarse", "", "scales"],
            "up",
            &[
                ("mode", Attribute::Text("nearest")),
                ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
                ("nearest_mode", Attribute::Text("floor")),
            ],
        )
        .node("Add", &["difference", "up"], "sum", &[])
        .node("Mul", &["sum", "gain"], "scaled", &[])
        .node("Add", &["scaled", "offset"], "logit", &[])
        .node("Sigmoid", &["logit"], "score", &[])
}

/// sqrt(frame - 0.1): NaN where the frame is darker than 26 of 255, else within 0..1.
pub fn brightness_root() -> Model {
    Model::new(1)
        .input("pair", 1, &symbolic(2))
        .output("score", 1, &symbolic(1))
        .tensor("frame_only", &[1, 2, 1, 1], &[0.0, 1.0])
        .tensor("offset", &[1], &[-0.1])
        .node("Conv", &["pair", "frame_only"], "frame", &conv(&[0; 4], &[1, 1]))
        .node("Add", &["frame", "offset"], "shifted", &[])
        .node("Sqrt", &["shifted"], "score", &[])
}

/// 5 * frame: outside 0..1 where the frame is brighter than 51 of 255.
pub fn too_bright() -> Model {
    amplified(5.0)
}

/// factor * frame: outside 0..1 where the frame is brighter than 255 / factor.
pub fn amplified(factor: f32) -> Model {
    Model::new(1)
        .input("pair", 1, &symbolic(2))
        .output("score", 1, &symbolic(1))
        .tensor("factor", &[1, 2, 1, 1], &[0.0, factor])
        .node("Conv", &["pair", "factor"], "score", &conv(&[0; 4], &[1, 1]))
}

/// The frame itself under other names and an element type of choice.
pub fn renamed(input: &str, output: &str, element_type: u64, channels: u64) -> Model {
    Model::new(1).input(input, element_type, &symbolic(channels)).output(output, element_type, &symbolic(channels)).node(
        "Identity",
        &[input],
        output,
        &[],
    )
}
