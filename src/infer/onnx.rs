//! Reads the structure of an ONNX file before ONNX Runtime sees it.
//!
//! ONNX Runtime is C++ that trusts much of what it parses. This module walks the file's protobuf wire format (lengths, field types, depth)
//! and the few fields whose values can hurt: tensors whose shape and data disagree, data outside the file, absurd versions, nested graphs.
//! What passes is well-formed; whether it is a *fitting* model is [`super::contract`]'s question.
//!
//! Input: the file's bytes. Output: [`Structure`] (metadata, inputs, outputs, counts). Nothing is copied but names and metadata; memory and
//! time are bounded by the file's size. Source: onnx.proto3 of ONNX 1.17 (message and field numbers), protobuf encoding guide.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Largest model file accepted, bytes: far above the network's 8 MB, far below protobuf's 2 GiB.
pub const MAX_BYTES: usize = 512 << 20;
const MAX_NODES: usize = 100_000;
const MAX_ELEMENTS: u64 = 1 << 28;
const MAX_RANK: usize = 16;
/// Sub-graphs within sub-graphs (If, Loop); the network has none.
const MAX_DEPTH: usize = 4;
const IR_VERSIONS: std::ops::RangeInclusive<u64> = 3..=16;
const OPSETS: std::ops::RangeInclusive<u64> = 7..=64;

/// A dimension as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(u64),
    /// A name, or nothing.
    Symbolic(String),
}

/// A graph input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// ONNX element type (1 = float32); 0 when it is no tensor.
    pub element_type: u64,
    /// Its shape; `None` when the file declares none.
    pub dims: Option<Vec<Dim>>,
}

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Structure {
    /// metadata_props.
    pub metadata: BTreeMap<String, String>,
    /// Graph inputs that are no initializers.
    pub inputs: Vec<Port>,
    /// Graph outputs.
    pub outputs: Vec<Port>,
    /// Nodes of the main graph.
    pub nodes: usize,
    /// Elements of all initializers.
    pub parameters: u64,
    /// Producer's name and version.
    pub producer: String,
    /// Opset of the default domain.
    pub opset: u64,
}

/// Walks the file.
///
/// # Errors
/// [`crate::Kind::Data`] saying where and what; the caller adds the file's name.
pub fn read(bytes: &[u8]) -> Result<Structure> {
    if bytes.is_empty() {
        return Err(Error::data("the file is empty, wanted an ONNX model"));
    }
    if bytes.len() > MAX_BYTES {
        return Err(Error::data(format!("the file has {} bytes, wanted at most {MAX_BYTES}", bytes.len())));
    }
    let mut out = Structure::default();
    let mut walk = Walk { initializers: Vec::new(), nodes: 0, parameters: 0, tensor_bytes: bytes.len() as u64 };
    let (mut graphs, mut ir) = (0, 0);
    let mut version = String::new();
    for field in Fields::new(bytes, "model") {
        let (number, value) = field?;
        match number {
            1 => ir = value.varint("model.ir_version")?,
            2 => out.producer = value.text("model.producer_name")?.to_owned(),
            3 => version = value.text("model.producer_version")?.to_owned(),
            7 => {
                graphs += 1;
                walk.graph(value.bytes("model.graph")?, 0, Some(&mut out))?;
            }
            8 => {
                let (domain, opset) = opset(value.bytes("model.opset_import")?)?;
                if domain.is_empty() || domain == "ai.onnx" {
                    out.opset = opset;
                }
            }
            14 => {
                let (key, value) = entry(value.bytes("model.metadata_props")?)?;
                if out.metadata.insert(key.clone(), value).is_some() {
                    return Err(bad("model.metadata_props", format!("holds key `{key}` twice")));
                }
            }
            20 | 25 => return Err(bad("model", "holds training information or local functions, wanted a plain inference graph")),
            _ => {}
        }
    }
    if graphs != 1 {
        return Err(bad("model", format!("holds {graphs} graphs, wanted 1 (is it an ONNX file?)")));
    }
    if !IR_VERSIONS.contains(&ir) {
        return Err(bad("model.ir_version", format!("is {ir}, wanted {} to {}", IR_VERSIONS.start(), IR_VERSIONS.end())));
    }
    if !OPSETS.contains(&out.opset) {
        return Err(bad("model.opset_import", format!("is {}, wanted {} to {}", out.opset, OPSETS.start(), OPSETS.end())));
    }
    out.inputs.retain(|port| !walk.initializers.contains(&port.name));
    out.nodes = walk.nodes;
    out.parameters = walk.parameters;
    out.producer = format!("{} {version}", out.producer).trim().to_owned();
    Ok(out)
}

fn bad(place: &str, what: impl std::fmt::Display) -> Error {
    Error::data(format!("{place}: {what}"))
}

struct Walk {
    initializers: Vec<String>,
    nodes: usize,
    parameters: u64,
    tensor_bytes: u64,
}

impl Walk {
    fn graph(&mut self, bytes: &[u8], depth: usize, mut out: Option<&mut Structure>) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(bad("graph", format!("is nested more than {MAX_DEPTH} deep")));
        }
        for field in Fields::new(bytes, "graph") {
            let (number, value) = field?;
            match number {
                1 => self.node(value.bytes("graph.node")?, depth)?,
                5 => {
                    let (name, elements) = self.tensor(value.bytes("graph.initializer")?)?;
                    self.parameters = self.parameters.saturating_add(elements);
                    self.initializers.push(name);
                }
                11 | 12 => {
                    let port = port(value.bytes("graph.input or output")?)?;
                    if let Some(out) = out.as_deref_mut() {
                        if number == 11 { out.inputs.push(port) } else { out.outputs.push(port) }
                    }
                }
                13 => drop(port(value.bytes("graph.value_info")?)?),
                15 => return Err(bad("graph", "holds sparse initializers, which are not supported")),
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, bytes: &[u8], depth: usize) -> Result<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(bad("graph", format!("holds more than {MAX_NODES} nodes")));
        }
        let mut op = "";
        for field in Fields::new(bytes, "node") {
            let (number, value) = field?;
            match number {
                1 | 2 => drop(value.text("node.input or output")?),
                4 => op = value.text("node.op_type")?,
                5 => self.attribute(value.bytes("node.attribute")?, depth)?,
                _ => {}
            }
        }
        if op.is_empty() {
            return Err(bad("node", "names no operator"));
        }
        Ok(())
    }

    fn attribute(&mut self, bytes: &[u8], depth: usize) -> Result<()> {
        for field in Fields::new(bytes, "attribute") {
            let (number, value) = field?;
            match number {
                1 => drop(value.text("attribute.name")?),
                5 | 10 => drop(self.tensor(value.bytes("attribute.tensor")?)?),
                6 | 11 => self.graph(value.bytes("attribute.graph")?, depth + 1, None)?,
                22 | 23 => return Err(bad("attribute", "holds a sparse tensor, which is not supported")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that a tensor's shape, type and data agree; answers name and number of elements.
    fn tensor(&mut self, bytes: &[u8]) -> Result<(String, u64)> {
        let (mut name, mut ty, mut dims) = (String::new(), 0, Vec::new());
        // Bytes of raw_data, and elements of the typed fields: int32_data also stores the 8- and 16-bit types.
        let (mut raw, mut typed): (Option<u64>, u64) = (None, 0);
        for field in Fields::new(bytes, "tensor") {
            let (number, value) = field?;
            match number {
                1 => value.varints("tensor.dims", |v| dims.push(v))?,
                2 => ty = value.varint("tensor.data_type")?,
                3 => return Err(bad("tensor", "is a segment, which is not supported")),
                4 => typed += value.fixed("tensor.float_data", 4)?,
                10 => typed += value.fixed("tensor.double_data", 8)?,
                5 | 7 | 11 => value.varints("tensor.int_data", |_| typed += 1)?,
                6 => typed += 1,
                8 => name = value.text("tensor.name")?.to_owned(),
                9 => raw = Some(value.bytes("tensor.raw_data")?.len() as u64),
                13 => {
                    return Err(bad(
                        "tensor",
                        format!("`{name}` keeps its data in another file; wanted all data inside the model"),
                    ));
                }
                14 if value.varint("tensor.data_location")? != 0 => {
                    return Err(bad(
                        "tensor",
                        format!("`{name}` keeps its data in another file; wanted all data inside the model"),
                    ));
                }
                _ => {}
            }
        }
        if dims.len() > MAX_RANK {
            return Err(bad("tensor", format!("`{name}` has {} dimensions, wanted at most {MAX_RANK}", dims.len())));
        }
        let elements = dims.iter().try_fold(1_u64, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_ELEMENTS);
        let elements =
            elements.ok_or_else(|| bad("tensor", format!("`{name}` has shape {dims:?}: more than {MAX_ELEMENTS} elements")))?;
        let size = match ty {
            1 | 6 | 12 => 4,
            2 | 3 | 9 => 1,
            4 | 5 | 10 | 16 => 2,
            7 | 11 | 13 => 8,
            8 => 0,
            other => return Err(bad("tensor", format!("`{name}` has element type {other}, which is not supported"))),
        };
        let fits = match raw {
            Some(raw) => size > 0 && typed == 0 && raw == elements * size,
            None => typed == elements,
        };
        if !fits || elements > self.tensor_bytes {
            return Err(bad("tensor", format!("`{name}` of shape {dims:?} does not have the data that its shape asks for")));
        }
        Ok((name, elements))
    }
}

fn opset(bytes: &[u8]) -> Result<(&str, u64)> {
    let (mut domain, mut version) = ("", 0);
    for field in Fields::new(bytes, "opset_import") {
        match field? {
            (1, value) => domain = value.text("opset_import.domain")?,
            (2, value) => version = value.varint("opset_import.version")?,
            _ => {}
        }
    }
    Ok((domain, version))
}

fn entry(bytes: &[u8]) -> Result<(String, String)> {
    let (mut key, mut text) = ("", "");
    for field in Fields::new(bytes, "metadata_props") {
        match field? {
            (1, value) => key = value.text("metadata_props.key")?,
            (2, value) => text = value.text("metadata_props.value")?,
            _ => {}
        }
    }
    Ok((key.to_owned(), text.to_owned()))
}

fn port(bytes: &[u8]) -> Result<Port> {
    let mut out = Port { name: String::new(), element_type: 0, dims: None };
    for field in Fields::new(bytes, "value_info") {
        match field? {
            (1, value) => out.name = value.text("value_info.name")?.to_owned(),
            (2, value) => {
                for field in Fields::new(value.bytes("value_info.type")?, "type") {
                    if let (1, value) = field? {
                        tensor_type(value.bytes("type.tensor_type")?, &mut out)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

fn tensor_type(bytes: &[u8], out: &mut Port) -> Result<()> {
    for field in Fields::new(bytes, "tensor_type") {
        match field? {
            (1, value) => out.element_type = value.varint("tensor_type.elem_type")?,
            (2, value) => {
                let mut dims = Vec::new();
                for field in Fields::new(value.bytes("tensor_type.shape")?, "shape") {
                    if let (1, value) = field? {
                        let mut dim = Dim::Symbolic(String::new());
                        for field in Fields::new(value.bytes("shape.dim")?, "dim") {
                            match field? {
                                (1, value) => dim = Dim::Fixed(value.varint("dim.dim_value")?),
                                (2, value) => dim = Dim::Symbolic(value.text("dim.dim_param")?.to_owned()),
                                _ => {}
                            }
                        }
                        dims.push(dim);
                    }
                }
                if dims.len() > MAX_RANK {
                    return Err(bad("shape", format!("has {} dimensions, wanted at most {MAX_RANK}", dims.len())));
                }
                out.dims = Some(dims);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A field's value on the wire.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed32,
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn varint(self, place: &str) -> Result<u64> {
        if let Value::Varint(v) = self { Ok(v) } else { Err(bad(place, "is not a number")) }
    }

    fn bytes(self, place: &str) -> Result<&'a [u8]> {
        if let Value::Bytes(v) = self { Ok(v) } else { Err(bad(place, "has the wrong wire type")) }
    }

    fn text(self, place: &str) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(place)?).map_err(|_| bad(place, "is not UTF-8"))
    }

    /// A repeated number, packed or not.
    fn varints(self, place: &str, mut take: impl FnMut(u64)) -> Result<()> {
        match self {
            Value::Varint(v) => take(v),
            Value::Bytes(mut rest) => {
                while !rest.is_empty() {
                    let (v, after) = varint(rest).ok_or_else(|| bad(place, "ends in the middle of a number"))?;
                    take(v);
                    rest = after;
                }
            }
            _ => return Err(bad(place, "has the wrong wire type")),
        }
        Ok(())
    }

    /// Number of elements of a repeated float or double, packed or not.
    fn fixed(self, place: &str, size: usize) -> Result<u64> {
        match self {
            Value::Fixed32 if size == 4 => Ok(1),
            Value::Fixed64 if size == 8 => Ok(1),
            Value::Bytes(v) if v.len() % size == 0 => Ok((v.len() / size) as u64),
            _ => Err(bad(place, "has the wrong wire type or length")),
        }
    }
}

/// The fields of one message.
struct Fields<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], message: &'static str) -> Self {
        Self { rest: bytes, message }
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let (tag, rest) = varint(self.rest)?;
        let (value, rest) = match tag & 7 {
            0 => varint(rest).map(|(v, rest)| (Value::Varint(v), rest))?,
            1 => (Value::Fixed64, rest.get(8..)?),
            2 => {
                let (length, rest) = varint(rest)?;
                let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Value::Bytes(bytes), rest)
            }
            5 => (Value::Fixed32, rest.get(4..)?),
            _ => return None,
        };
        self.rest = rest;
        // Field numbers are 1 to 2^29 - 1.
        (1..1 << 29).contains(&(tag >> 3)).then_some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let left = self.rest.len();
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or_else(|| bad(self.message, format!("is not valid protobuf {left} bytes before its end"))))
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 127) << (7 * i);
        if byte < 128 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}
