//! The verbs of `ssds`, one file each.
//!
//! A verb takes its arguments and answers with an exit code: 0 ok, 1 inspected NG or a check found problems, 2 inspected ERROR; errors
//! exit with their kind's code (sysexits).

pub mod align;
pub mod archive;
pub mod audit;
pub mod bench;
pub mod bench_publish;
pub mod calibrate;
pub mod camera;
pub mod check;
pub mod config;
pub mod doctor;
pub mod eval;
pub mod inspect;
pub mod label;
pub mod model;
pub mod product;
pub mod recipe;
pub mod report;
pub mod run;
pub mod teach;
pub mod template;
pub mod trigger;
pub mod whatif;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Kind, Result};

/// Template-based visual inspection: registers frames to one golden image, finds what differs, loses no result.
#[derive(Debug, Parser)]
#[command(name = "ssds", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon.
    Run(run::Args),
    /// Check a configuration and everything it names, without starting anything.
    Check(check::Args),
    /// Look at a board: camera, model, provider, broker, disk, clock, unit; say what to do.
    Doctor(doctor::Args),
    /// Print the sample configuration, its schema or its reference.
    Config(config::Args),
    /// Teach a product's template from a defect-free picture.
    Teach(teach::Args),
    /// List, activate, roll back and verify taught templates.
    Template(template::Args),
    /// Check, apply and roll back a product's recipe: zones, thresholds, limits.
    Recipe(recipe::Args),
    /// What another recipe would have made of the archived parts.
    Whatif(whatif::Args),
    /// The threshold that good parts need, and the false-reject rate it promises.
    Calibrate(calibrate::Args),
    /// Say what an inspected part really is: ok or ng.
    Label(label::Args),
    /// Counts, escapes and overkill per product.
    Report(report::Args),
    /// List, show, verify and collect the evidence of inspected parts.
    Archive(archive::Args),
    /// List cameras, or take pictures from one.
    Camera(camera::Args),
    /// Trigger the running station and tell the part's result.
    Trigger(trigger::Args),
    /// Register template and frame: the pose, its confidence, or a refusal.
    Align(align::Args),
    /// Time the inference stage, or recording and publishing.
    Bench(bench::Args),
    /// Say what a model file holds, verify it, or build its TensorRT engine ahead.
    Model(model::Args),
    /// Inspect recorded pairs or one frame, offline.
    Inspect(inspect::Args),
    /// Prove from a spool or a broker that no result is missing.
    Audit(audit::Args),
    /// Score defect maps, or the network, against ground truth.
    Eval(eval::Args),
}

/// The command line's description, for manual pages and shell completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program: parses the command line, starts logging, calls the verb and turns its answer into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are answers, everything else is a usage error.
            let code = if e.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            if e.print().is_err() {
                return ExitCode::from(Kind::Io.exit_code());
            }
            return ExitCode::from(code);
        }
    };
    crate::logging::init();
    let answer: Result<u8> = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Doctor(args) => doctor::run(args),
        Verb::Config(args) => config::run(args),
        Verb::Teach(args) => teach::run(args),
        Verb::Template(args) => template::run(args),
        Verb::Recipe(args) => recipe::run(args),
        Verb::Whatif(args) => whatif::run(args),
        Verb::Calibrate(args) => calibrate::run(args),
        Verb::Label(args) => label::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Archive(args) => archive::run(args),
        Verb::Camera(args) => camera::run(args),
        Verb::Trigger(args) => trigger::run(args),
        Verb::Align(args) => align::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Model(args) => model::run(args),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Audit(args) => audit::run(args),
        Verb::Eval(args) => eval::run(args),
    };
    match answer {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            crate::logging::last_words(&format!("{e:#}"));
            ExitCode::from(e.kind().exit_code())
        }
    }
}
