//! The one integration test binary: drives the built programs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod commands;
mod deploy;
mod drift;
mod evidence;
mod faults;
mod guide;
mod http;
mod line;
mod messages;
mod mqtt;
mod network;
mod offline;
#[path = "onnx_fixture.rs"]
mod onnx_fixture;
mod spool;

mod support;
mod tidy;
#[cfg(feature = "train")]
mod train;
mod trigger;
mod v4l2;
mod webcam;
