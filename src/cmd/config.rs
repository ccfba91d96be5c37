//! `ssds config`: what the configuration may hold and what it holds.

use std::path::PathBuf;

use crate::config;
use crate::error::{Error, Kind, Result};
use crate::schema;

/// What to print.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The effective configuration: every key with the value in force.
    Show {
        /// Configuration file.
        #[arg(long, default_value = "/etc/ssds/ssds.toml")]
        config: PathBuf,
    },
    /// The commented sample file with every default.
    Sample,
    /// The reference page (Markdown).
    Reference,
    /// A JSON Schema (2020-12) of the configuration file, or of an MQTT message.
    Schema {
        /// The message: a kind (inspection, status, state, alarm, stats, command, response) or a topic below ssds/ (result/ok).
        #[arg(long)]
        topic: Option<String>,
    },
}

/// Prints.
///
/// # Errors
/// A configuration that cannot be read or is wrong.
pub fn run(args: Args) -> Result<u8> {
    match args.what {
        What::Show { config } => print!("{}", config::load(&config)?.effective()),
        What::Sample => print!("{}", config::sample()),
        What::Reference => print!("{}", config::reference()),
        What::Schema { topic: Some(topic) } => match schema::find(&topic) {
            Some(found) => print!("{}", found.text),
            None => {
                let known: Vec<&str> = schema::ALL.iter().map(|s| s.topic).collect();
                return Err(Error::new(Kind::Usage, format!("no message `{topic}`; there are {}", known.join(", "))));
            }
        },
        What::Schema { topic: None } => {
            let text = serde_json::to_string_pretty(&config::json_schema())
                .map_err(|e| Error::internal("the configuration schema cannot be written as JSON").with_source(e))?;
            println!("{text}");
        }
    }
    Ok(0)
}
