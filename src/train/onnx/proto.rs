//! Just enough of ONNX's protobuf to write a model: varints, length-delimited fields, and the messages of onnx.proto3 by field number.
//!
//! ModelProto: ir_version 1, producer_name 2, producer_version 3, graph 7, opset_import 8, metadata_props 14. GraphProto: node 1, name 2,
//! initializer 5, input 11, output 12. NodeProto: input 1, output 2, name 3, op_type 4, attribute 5. AttributeProto: name 1, f 2, i 3,
//! s 4, ints 8, type 20. TensorProto: dims 1, data_type 2, name 8, raw_data 9.

/// Version of the operators used.
pub const OPSET: i64 = 18;
/// Version of the file format that goes with it.
const IR_VERSION: i64 = 8;
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// A message under construction.
#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        // protobuf writes a negative int64 as its two's complement
        self.varint(value as u64);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }
}

/// An attribute's value.
pub enum Attribute<'a> {
    /// Integer.
    Int(i64),
    /// Integers.
    Ints(&'a [i64]),
    /// Text.
    Text(&'a str),
}

/// One dimension of an input or output.
pub enum Dimension<'a> {
    /// Known when the model is made.
    Fixed(i64),
    /// Known when the model is run.
    Named(&'a str),
}

/// A graph under construction.
#[derive(Default)]
pub struct Graph {
    nodes: Message,
    tensors: Message,
    ports: Message,
    count: usize,
}

impl Graph {
    /// Adds a node with one output, named after its operator and number, and gives the output's name back.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = format!("{}_{}", operator.to_lowercase(), self.count);
        self.node_named(operator, inputs, &output, attributes);
        output
    }

    /// Adds a node whose output has a given name.
    pub fn node_named(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) {
        let mut node = inputs.iter().fold(Message::default(), |m, i| m.text(1, i));
        node = node.text(2, output).text(3, &format!("{operator}.{}", self.count)).text(4, operator);
        self.count += 1;
        for (name, value) in attributes {
            let a = Message::default().text(1, name);
            let a = match value {
                Attribute::Int(v) => a.int(3, *v).int(20, 2),
                Attribute::Text(v) => a.text(4, v).int(20, 3),
                Attribute::Ints(v) => v.iter().fold(a, |a, i| a.int(8, *i)).int(20, 7),
            };
            node = node.message(5, &a);
        }
        self.nodes = std::mem::take(&mut self.nodes).message(1, &node);
    }

    fn tensor(&mut self, name: &str, dims: &[i64], kind: i64, raw: &[u8]) {
        let t = dims.iter().fold(Message::default(), |t, d| t.int(1, *d)).int(2, kind).text(8, name).bytes(9, raw);
        self.tensors = std::mem::take(&mut self.tensors).message(5, &t);
    }

    /// Adds a constant of f32 values.
    pub fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        debug_assert_eq!(dims.iter().product::<i64>(), values.len() as i64);
        self.tensor(name, dims, FLOAT, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }

    /// Adds a constant of integers.
    pub fn integers(&mut self, name: &str, values: &[i64]) {
        self.tensor(name, &[values.len() as i64], INT64, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }

    fn port(&mut self, field: u64, name: &str, dims: &[Dimension]) {
        let shape = dims.iter().fold(Message::default(), |s, d| {
            s.message(
                1,
                &match d {
                    Dimension::Fixed(v) => Message::default().int(1, *v),
                    Dimension::Named(n) => Message::default().text(2, n),
                },
            )
        });
        let tensor = Message::default().int(1, FLOAT).message(2, &shape);
        let value = Message::default().text(1, name).message(2, &Message::default().message(1, &tensor));
        self.ports = std::mem::take(&mut self.ports).message(field, &value);
    }

    /// Declares an input of f32 values.
    pub fn input(&mut self, name: &str, dims: &[Dimension]) {
        self.port(11, name, dims);
    }

    /// Declares an output of f32 values.
    pub fn output(&mut self, name: &str, dims: &[Dimension]) {
        self.port(12, name, dims);
    }

    /// The finished file.
    #[must_use]
    pub fn model(self, graph_name: &str, metadata: &[(String, String)]) -> Vec<u8> {
        let mut graph = self.nodes;
        graph = graph.text(2, graph_name);
        graph.0.extend_from_slice(&self.tensors.0);
        graph.0.extend_from_slice(&self.ports.0);
        let model = Message::default()
            .int(1, IR_VERSION)
            .text(2, "ssds-train")
            .text(3, env!("CARGO_PKG_VERSION"))
            .message(7, &graph)
            .message(8, &Message::default().text(1, "").int(2, OPSET));
        metadata.iter().fold(model, |m, (k, v)| m.message(14, &Message::default().text(1, k).text(2, v))).0
    }
}
