//! SSDS: template-based visual inspection.
//!
//! One defect-free template a product goes in; every camera frame is registered to it ([`align`]), the SSDS network marks what differs
//! (`infer`), a decision turns the defect map into OK / NG ([`decide`]), and the result is committed to disk (`record`) before it
//! leaves over MQTT (`publish`). `train` makes the network's ONNX file from simulation ([`simulate`]) alone.
//!
//! Layers, in reading order: the core (no threads of its own, devices or sockets; always compiled), the daemon (feature `daemon`), the
//! trainer (feature `train`). `ARCHITECTURE.md` draws the picture.

// -- core
pub mod align;
pub mod calibrate;
pub mod classical;
pub mod clock;
pub mod config;
pub mod dataset;
pub mod decide;
pub mod error;
pub mod font;
pub mod frame;
pub mod geometry;
pub mod golden;
pub mod overlay;
pub mod prove;
pub mod recipe;
pub mod residual;
pub mod schema;
pub mod score;
pub mod simulate;
pub mod telemetry;
pub mod template;

// -- daemon
#[cfg(feature = "daemon")]
pub mod capture;
#[cfg(feature = "daemon")]
pub mod cmd;
#[cfg(feature = "daemon")]
pub mod infer;
#[cfg(feature = "daemon")]
pub mod logging;
#[cfg(feature = "daemon")]
pub mod pipeline;
#[cfg(feature = "daemon")]
pub mod publish;
#[cfg(feature = "daemon")]
pub mod record;
#[cfg(feature = "daemon")]
pub mod shutdown;
#[cfg(feature = "daemon")]
pub mod status;

// -- trainer
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Kind, Result};
