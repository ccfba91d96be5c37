//! The one integration test binary: drives the built programs.
