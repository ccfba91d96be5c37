//! `ssds recipe`: a product's recipe, checked, applied, rolled back.
//!
//! What is applied is copied into `state_dir/recipes`; a running daemon sees it within a second, loads everything it names, and switches
//! between two frames. What does not load leaves the recipe before it in force.

use std::path::PathBuf;

use crate::capture::Trigger;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::recipe::{Prepared, Recipe, book::Book};
use crate::record::archive::Archive;
use crate::template::store::Store;

/// What to do with recipes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file: names the template and state folders and what recipes build on.
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
    /// Check a recipe and everything it names, without applying it.
    Check {
        /// The recipe's file.
        file: PathBuf,
    },
    /// Check a recipe, show which archived parts it would decide otherwise, and put it in force.
    Apply {
        /// The recipe's file.
        file: PathBuf,
        /// Show and check only; the recipe before it stays in force.
        #[arg(long)]
        dry_run: bool,
        /// Do not put it in force when it would decide more archived parts otherwise; exit 1.
        #[arg(long)]
        max_flips: Option<usize>,
        /// Newest archived parts that are decided again; 0 = none.
        #[arg(long, default_value_t = 2000)]
        parts: usize,
    },
    /// Put a recipe in force that was applied before: the last of a product, or the one whose hash begins so.
    Activate {
        /// A product, or at least 8 digits of a recipe's SHA-256.
        name: String,
    },
    /// List the recipes that were applied.
    List,
    /// Put the recipe in force that was so before.
    Rollback,
    /// Show which recipe is in force; exit 1 when none is.
    Show,
}

/// Runs.
///
/// # Errors
/// Faults of the recipe, each with file, line, key and value; unknown templates; files that cannot be written.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    match &args.what {
        What::Check { file } => {
            let prepared = prepare(&config, Recipe::load(file)?)?;
            super::product::of_recipe(&config, prepared.clone())?;
            answer(&prepared.recipe, "is in order", args.json)
        }
        What::Apply { file, dry_run, max_flips, parts } => {
            let prepared = prepare(&config, Recipe::load(file)?)?;
            super::product::of_recipe(&config, prepared.clone())?;
            let flips = preview(&config, &prepared.recipe, *parts)?;
            if let Some(most) = max_flips.filter(|most| flips > *most) {
                eprintln!("{flips} archived parts would be decided otherwise, at most {most} wanted: not put in force");
                return Ok(1);
            }
            if *dry_run {
                return answer(&prepared.recipe, "is in order; it was not put in force", args.json);
            }
            book(&config)?.apply(&prepared.recipe, SystemClock.now())?;
            answer(&prepared.recipe, "is in force", args.json)
        }
        What::Activate { name } => answer(&activate(&config, name)?, "is in force", args.json),
        What::List => list(&config, args.json),
        What::Rollback => {
            let book = book(&config)?;
            super::product::of_recipe(&config, prepare(&config, book.before()?)?)?;
            answer(&book.roll_back(SystemClock.now())?, "is in force", args.json)
        }
        What::Show => match book(&config)?.load_active()? {
            Some(recipe) => answer(&recipe, "is in force", args.json),
            None => {
                if args.json {
                    println!("null");
                } else {
                    println!("no recipe was applied: products are inspected as configured");
                }
                Ok(1)
            }
        },
    }
}

/// Tells what the recipe would make of the newest archived parts (on standard error, beside the answer); the number of flips.
fn preview(config: &Config, recipe: &Recipe, parts: usize) -> Result<usize> {
    let entries = match Archive::open(&config.archive_dir()).and_then(|a| a.entries()) {
        Ok(entries) => entries,
        Err(e) => {
            eprintln!("what if: nothing to decide again: {e:#}");
            return Ok(0);
        }
    };
    let newest = &entries[entries.len() - parts.min(entries.len())..];
    if newest.is_empty() {
        eprintln!("what if: no archived part to decide again");
        return Ok(0);
    }
    let answer = super::whatif::ask(config, recipe, newest)?;
    for line in answer.lines() {
        eprintln!("what if: {line}");
    }
    for f in answer.flips.iter().rev().take(10) {
        let (was, now) = (f.was.topic().to_uppercase(), f.now.topic().to_uppercase());
        eprintln!("what if: seq {} of {} {was} -> {now}: {}", f.seq, f.captured_at, f.why);
    }
    Ok(answer.flips.len())
}

/// The book of a configuration.
///
/// # Errors
/// As [`Book::open`].
pub fn book(config: &Config) -> Result<Book> {
    Book::open(&config.path("paths.state_dir").join("recipes"))
}

/// Loads what a recipe names, and refuses what this station does not carry out.
///
/// # Errors
/// As [`Recipe::prepare`]; [`Kind::Config`] for a trigger mode that the station's camera cannot be switched to, or limits that contradict the configuration's.
pub fn prepare(config: &Config, recipe: Recipe) -> Result<Prepared> {
    let (backend, configured) = (config.text("camera.backend"), Trigger::of(config));
    if let Some(mode) = recipe.trigger.filter(|mode| *mode != configured) {
        let able: &[Trigger] = match backend.as_str() {
            "genicam" => &[Trigger::Free, Trigger::Software, Trigger::Hardware],
            "replay" => &[Trigger::Free, Trigger::Software],
            _ => &[],
        };
        if !able.contains(&mode) {
            return Err(Error::config(format!(
                "recipe of product {:?}: trigger.mode is {}, and the station runs {} (camera.trigger is {:?}); camera.backend {backend} cannot \
                 be switched to it while running, genicam to every mode and replay between free_run and software can",
                recipe.product,
                mode.word(),
                configured.word(),
                config.text("camera.trigger")
            )));
        }
    }
    recipe.prepare(&Store::open(&config.template_dir())?, &super::run::decision_settings(config))
}

/// Finds the recipe that `name` means: the one last applied for a product, the one whose hash begins so (at least 8 digits), or, for a
/// product that was taught and has no recipe, the plain one.
///
/// # Errors
/// [`Kind::Missing`] when there is none; as [`Book::load`].
pub fn find(config: &Config, name: &str) -> Result<Recipe> {
    if let Some(recipe) = book(config)?.look_up(name)? {
        return Ok(recipe);
    }
    let taught = crate::template::id_of(name)
        .and_then(|id| Ok(Store::open(&config.template_dir())?.active(&id)?.is_some()))
        .unwrap_or(false);
    if taught && !name.contains('/') {
        return Recipe::plain(name);
    }
    Err(Error::new(
        Kind::Missing,
        format!("recipe {name:?}: no product or hash of a recipe that was applied, and no product that was taught"),
    ))
}

/// Puts the recipe that `name` means ([`find`]) in force, after everything it names was loaded and checked; a running daemon follows
/// within a second, between two frames.
///
/// # Errors
/// As [`find`], [`prepare`] and [`super::product::of_recipe`]; then the recipe before it stays in force.
pub fn activate(config: &Config, name: &str) -> Result<Recipe> {
    let recipe = find(config, name)?;
    super::product::of_recipe(config, prepare(config, recipe.clone())?)?;
    book(config)?.apply(&recipe, SystemClock.now())?;
    Ok(recipe)
}

fn answer(recipe: &Recipe, what: &str, json: bool) -> Result<u8> {
    if json {
        super::template::print_json(&serde_json::json!({
            "product": recipe.product, "sha256": recipe.sha256, "templates": recipe.templates, "zones": recipe.zones.len()
        }))?;
    } else {
        println!("recipe of {} (sha256 {}, {} zones) {what}", recipe.product, &recipe.sha256[..12], recipe.zones.len());
    }
    Ok(0)
}

fn list(config: &Config, json: bool) -> Result<u8> {
    let book = book(config)?;
    let active = book.active()?.map(|a| a.sha256);
    let listed = book.list()?;
    if json {
        let rows: Vec<_> = listed
            .iter()
            .map(|r| serde_json::json!({"product": r.product, "sha256": r.sha256, "active": active.as_ref() == Some(&r.sha256)}))
            .collect();
        super::template::print_json(&rows)?;
        return Ok(0);
    }
    for r in &listed {
        let mark = if active.as_ref() == Some(&r.sha256) { '*' } else { ' ' };
        println!("{mark} {:<32} {}  {}  {} zones", r.product, &r.sha256[..12], r.detector.name(), r.zones.len());
    }
    Ok(0)
}
