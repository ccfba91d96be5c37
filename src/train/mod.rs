//! The trainer: simulation in, ONNX model out (feature `train`).
//!
//! Reading order: [`spec`] (the network's parts), [`config`] (a run's settings), [`batch`] (simulated crops), [`net`] (the network on
//! burn), [`cpu`] (the same by hand for processors), [`phase`] and [`loss`] (L_irr and L), [`device`] (where it is computed), [`engine`] (a step), [`optim`], [`validate`],
//! [`checkpoint`], [`init`] (weights to start from), [`run`] (the loop), [`report`], [`onnx`] and [`export`] (the model file), [`evaluate`] and [`ablate`] (what it is worth), [`measure`], [`cli`]. burn is used in this module only.

#![allow(rustdoc::broken_intra_doc_links, reason = "shapes such as [out][in] are written in brackets")]

pub mod ablate;
pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod evaluate;
pub mod export;
pub mod init;
pub mod loss;
pub mod measure;
pub mod net;
pub mod onnx;
pub mod optim;
pub mod phase;
pub mod report;
pub mod run;
pub mod spec;
pub mod validate;
