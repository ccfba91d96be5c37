//! The one integration test binary: drives the built programs.

mod bad_input;
mod line;

mod support;
