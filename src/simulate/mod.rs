//! Simulated pairs.
