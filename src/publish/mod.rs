//! Publishing: results and states to an MQTT broker, commands from it.
//!
//! [`mqtt::Publisher`] runs one thread that pumps the spool's outbox to the broker; [`settings`] is what it is told, [`topics`] the names,
//! [`commands`] what it hands to the pipeline. `config/mqtt.md` documents every message.

#[cfg(feature = "embedded-broker")]
pub mod broker;
pub mod commands;
mod desk;
mod link;
pub mod listen;
pub mod mqtt;
mod packet;
mod pump;
pub mod settings;
pub mod topics;
mod window;

pub use commands::Command;
pub use desk::{Identity, Link, PublishStatus, RefusedReason};
pub use mqtt::{PublishHandle, Publisher, ShutdownReport};
pub use settings::{CommandSettings, Protocol, PublishSettings, TlsSettings};
pub use topics::{CommandKind, Topics};
