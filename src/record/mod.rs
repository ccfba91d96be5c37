//! Recording: the event, the other messages, and the store that never loses one.
//!
//! [`event`] and [`message`] are the wire types (JSON Schemas: [`crate::schema`]), [`store`] commits events with their outbox
//! rows to SQLite before the broker hears of them, [`archive`] keeps the pictures behind them, [`labels`] what people said of them.

pub mod archive;
pub mod event;
pub mod labels;
pub mod message;
pub mod store;
