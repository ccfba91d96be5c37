//! The inspection daemon and the operator's verbs.

use std::process::ExitCode;

fn main() -> ExitCode {
    ssds::cmd::main()
}
