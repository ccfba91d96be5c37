//! `ssds template`: the versions of the taught templates.

use std::path::PathBuf;

use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::error::{Error, Result};
use crate::template::Template;
use crate::template::id_of;
use crate::template::store::Store;

/// What to do with the templates.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file: names the template folder.
    #[arg(long, default_value = "/etc/ssds/ssds.toml", global = true)]
    config: PathBuf,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List every version.
    List,
    /// Put a version in force; a running daemon takes it at its next start or recipe switch.
    Activate {
        /// Product, or product/view.
        id: String,
        /// Version.
        version: u32,
    },
    /// Put the version in force that was so before.
    Rollback {
        /// Product, or product/view.
        id: String,
    },
    /// Read everything and report damage; exit 1 when there is any.
    Verify,
}

/// Runs.
///
/// # Errors
/// A store that cannot be read, unknown templates, damaged files.
pub fn run(args: Args) -> Result<u8> {
    let store = Store::open(&config::load(&args.config)?.template_dir())?;
    match &args.what {
        What::List => {
            let entries = store.list()?;
            if args.json {
                print_json(&entries)?;
                return Ok(0);
            }
            for e in entries {
                let mark = if e.active { '*' } else { ' ' };
                let (w, h) = e.size_px;
                println!(
                    "{mark} {:<32} v{:<4} {w}x{h}  {} pictures  {}  {}",
                    e.id,
                    e.version,
                    e.pictures,
                    e.taught_at,
                    &e.sha256[..12]
                );
            }
            Ok(0)
        }
        What::Activate { id, version } => answer(&store.activate(&id_of(id)?, *version, SystemClock.now())?, args.json),
        What::Rollback { id } => answer(&store.rollback(&id_of(id)?, SystemClock.now())?, args.json),
        What::Verify => {
            let problems = store.verify()?;
            if args.json {
                print_json(&problems)?;
            } else {
                problems.iter().for_each(|p| println!("{}: {}", p.path.display(), p.message));
                println!("{} problems", problems.len());
            }
            Ok(u8::from(!problems.is_empty()))
        }
    }
}

fn answer(template: &Template, json: bool) -> Result<u8> {
    if json {
        print_json(
            &serde_json::json!({"id": template.id, "version": template.version, "sha256": template.sha256, "active": true}),
        )?;
    } else {
        println!("{} version {} (sha256 {}) is active", template.id, template.version, &template.sha256[..12]);
    }
    Ok(0)
}

/// Prints a value as JSON.
///
/// # Errors
/// [`crate::Kind::Internal`] when it has no JSON form.
pub(super) fn print_json<T: serde::Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::internal("the answer has no JSON form").with_source(e))?;
    println!("{text}");
    Ok(())
}
