//! Scores of defect maps.

pub mod components;
