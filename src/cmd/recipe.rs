//! `ssds recipe`: a product's recipe, checked, applied, rolled back.
//!
//! What is applied is copied into `state_dir/recipes`; a running daemon sees it within a second, loads everything it names, and switches
//! between two frames. What does not load leaves the recipe before it in force.

use std::path::PathBuf;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::recipe::{Prepared, Recipe, book::Book};
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
    /// Check a recipe and put it in force.
    Apply {
        /// The recipe's file.
        file: PathBuf,
    },
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
            answer(&prepared.recipe, "is in order", args.json)
        }
        What::Apply { file } => {
            let prepared = prepare(&config, Recipe::load(file)?)?;
            book(&config)?.apply(&prepared.recipe, SystemClock.now())?;
            answer(&prepared.recipe, "is in force", args.json)
        }
        What::Rollback => {
            let book = book(&config)?;
            prepare(&config, book.before()?)?;
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

/// The book of a configuration.
///
/// # Errors
/// As [`Book::open`].
pub fn book(config: &Config) -> Result<Book> {
    Book::open(&config.path("paths.state_dir").join("recipes"))
}

/// Loads what a recipe names, and refuses what this daemon does not carry out.
///
/// # Errors
/// As [`Recipe::prepare`]; [`Kind::Config`] for what this daemon does not carry out: several templates, a classical detector, a trigger mode,
/// limits of picture or pose.
pub fn prepare(config: &Config, recipe: Recipe) -> Result<Prepared> {
    let refuse = |what: &str| Err(Error::new(Kind::Config, format!("recipe of product {:?}: {what}", recipe.product)));
    if recipe.templates.len() > 1 {
        return refuse("the daemon registers one template a product; name one in templates");
    }
    if recipe.detector != crate::recipe::Detector::Ssds || recipe.compare_with.is_some() {
        return refuse("the daemon runs the network alone; detector must be ssds and compare_with left out");
    }
    if recipe.trigger.is_some() {
        return refuse("the daemon runs freely; leave out [trigger]");
    }
    if recipe.image != crate::recipe::ImageLimits::default() || recipe.pose != crate::recipe::PoseLimits::default() {
        return refuse("the daemon takes limits of picture and pose from the configuration; leave out [image] and [align]");
    }
    recipe.prepare(&Store::open(&config.template_dir())?, &super::run::decision_settings(config))
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
