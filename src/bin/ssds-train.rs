//! The trainer: simulation, training, ONNX export.
fn main() {}
