//! The inspection daemon and the operator's verbs.
fn main() {}
