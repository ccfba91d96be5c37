//! `ssds-train`: simulation, training and export of the SSDS network.

fn main() -> std::process::ExitCode {
    ssds::train::cli::main()
}
