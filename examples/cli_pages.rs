//! Manual pages and shell completions, made from the command line's own description.
//!
//! `make pages` keeps those of packages in `packaging/`; `cargo run --example cli_pages -- DIR` fills `DIR/man` (ssds.1, ssds-run.1, ...) and `DIR/completions` (bash, zsh, fish under the names
//! that the shells look for).

use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("cli_pages: wanted one folder to write to");
        return ExitCode::from(64);
    };
    match write(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cli_pages: {}: {e}", dir.display());
            ExitCode::from(73)
        }
    }
}

/// Fills `dir/man` and `dir/completions` anew.
pub fn write(dir: &std::path::Path) -> std::io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for folder in [&man, &completions] {
        if folder.is_dir() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
    }
    let command = ssds::cmd::command();
    clap_mangen::generate_to(command.clone(), &man)?;
    for (shell, name) in [(Shell::Bash, "ssds"), (Shell::Zsh, "_ssds"), (Shell::Fish, "ssds.fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), "ssds", &mut text);
        std::fs::write(completions.join(name), text)?;
    }
    Ok(())
}
