//! Commands from the broker, carried out between two frames: one function a command, each answers exactly once.
//!
//! `config/mqtt.md` documents arguments and answers. A command that cannot be carried out now leaves everything as it was and says why.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use serde_json::{Map, Value, json};

use super::Daemon;
use crate::cmd::recipe;
use crate::error::{Error, Kind, Result};
use crate::pipeline::Hold;
use crate::pipeline::selftest::Report;
use crate::publish::{Command, CommandKind, Publisher};
use crate::recipe::{Recipe, book::Book};
use crate::record::message::Reason;

/// A self-test that has not come through the line by then has failed; below the publisher's own limit for answers.
const SELF_TEST_LIMIT: Duration = Duration::from_secs(20);

/// A self-test under way.
pub(super) struct SelfTest {
    command: Command,
    until: Instant,
    /// None until the line's first queue has room.
    report: Option<Receiver<Report>>,
}

impl Daemon {
    /// Carries out what waits.
    pub(super) fn answer_commands(&mut self) {
        self.follow_self_test();
        let Some(commands) = self.publisher.as_ref().map(Publisher::commands) else { return };
        for command in commands.try_iter() {
            log::info!("command {} from the broker, request {}", command.kind.name(), command.request_id);
            match command.kind {
                CommandKind::Pause => self.pause(command, true),
                CommandKind::Resume => self.pause(command, false),
                CommandKind::Trigger => self.trigger(command),
                CommandKind::Recipe => self.switch_recipe(command),
                CommandKind::Selftest => self.begin_self_test(command),
            }
        }
    }

    /// `pause` and `resume`: no frame is taken while paused; what is under way is inspected to its end.
    fn pause(&self, command: Command, paused: bool) {
        if let Some(command) = without_arguments(command) {
            self.pipeline.hold.set(Hold::PAUSED, paused);
            self.status.update(|f| f.paused = paused);
            command.done(json!({"paused": paused}));
        }
    }

    /// `trigger`: one part now; its recorded result is the answer.
    fn trigger(&self, command: Command) {
        super::trigger::fire(&self.pipeline.trigger, command);
    }

    /// `recipe`: puts another recipe in force from the next frame on. Everything it names is loaded before anything changes.
    fn switch_recipe(&mut self, command: Command) {
        let (reason, text) = match Wanted::of(&command.args) {
            Err(fault) => (Reason::BadArguments, fault),
            Ok(wanted) => match self.apply(&wanted) {
                Ok(in_force) => return command.done(in_force),
                Err(e) => {
                    let unknown = matches!(e.kind(), Kind::Missing | Kind::Usage);
                    let reason = if unknown { Reason::BadArguments } else { Reason::NotNow };
                    (reason, format!("{e:#}; the recipe in force stays"))
                }
            },
        };
        log::warn!("command recipe: {text}");
        command.refuse(reason, text);
    }

    fn apply(&mut self, wanted: &Wanted) -> Result<Value> {
        let book = recipe::book(&self.config)?;
        let recipe = wanted.find(&book)?;
        let prepared = recipe::prepare(&self.config, recipe.clone())?;
        let product = super::product_of(&self.config, prepared)?;
        let changed = self.recipe.as_ref() != Some(&recipe.sha256);
        match wanted {
            Wanted::Before => drop(book.roll_back(self.clock.now())?),
            _ if changed => book.apply(&recipe, self.clock.now())?,
            _ => {}
        }
        let template = &product.template;
        let answer = json!({
            "product": recipe.product,
            "recipe_sha256": recipe.sha256,
            "template": {"id": template.id, "version": template.version, "sha256": template.sha256},
            "changed": changed,
        });
        self.recipe = Some(recipe.sha256);
        self.put_in_force(product);
        Ok(answer)
    }

    /// `selftest`: sends a probe through the line; [`Daemon::follow_self_test`] answers.
    fn begin_self_test(&mut self, command: Command) {
        let Some(command) = without_arguments(command) else { return };
        match &self.self_test {
            Some(running) => {
                let text = format!("the self-test of request {} is under way", running.command.request_id);
                command.refuse(Reason::Busy, text);
            }
            None => {
                self.self_test = Some(SelfTest { command, until: Instant::now() + SELF_TEST_LIMIT, report: None });
                self.follow_self_test();
            }
        }
    }

    fn follow_self_test(&mut self) {
        let Some(mut test) = self.self_test.take() else { return };
        match test.report.as_ref().map(Receiver::try_recv) {
            Some(Ok(report)) => {
                if report.passed {
                    log::info!("self-test passed");
                } else {
                    log::error!("self-test failed: {report:?}");
                }
                return test.command.done(json!(report));
            }
            Some(Err(TryRecvError::Empty)) => {}
            // Not sent yet, or thrown out by newer frames: once more.
            None | Some(Err(TryRecvError::Disconnected)) => test.report = self.pipeline.self_test(),
        }
        if Instant::now() >= test.until {
            let text = format!("the probe did not come through the line within {} s", SELF_TEST_LIMIT.as_secs());
            log::error!("self-test failed: {text}");
            return test.command.fail(text);
        }
        self.self_test = Some(test);
    }
}

/// Passes a command on that takes no arguments, or refuses it.
fn without_arguments(command: Command) -> Option<Command> {
    if command.args.is_empty() {
        return Some(command);
    }
    let named: Vec<&str> = command.args.keys().map(String::as_str).collect();
    let text = format!("{} takes no arguments, got {}", command.kind.name(), named.join(", "));
    command.refuse(Reason::BadArguments, text);
    None
}

/// Which recipe a command asks for.
#[derive(Debug, PartialEq)]
enum Wanted {
    /// The one of this product that was in force last; never any: its taught template, everything as configured.
    Product(String),
    /// The applied one with this hash; with a product only if it is that product's.
    Hash(String, Option<String>),
    /// The one in force before the present one.
    Before,
}

impl Wanted {
    fn of(args: &Map<String, Value>) -> std::result::Result<Self, String> {
        const WANTED: &str = "give product, sha256 (8 to 64 hexadecimal digits), both, or rollback = true";
        if let Some(other) = args.keys().find(|key| !["product", "sha256", "rollback"].contains(&key.as_str())) {
            return Err(format!("recipe has no argument {other}; {WANTED}"));
        }
        let text = |key: &str| match args.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(format!("{key} must be a text, got {other}")),
        };
        match (text("product")?, text("sha256")?, args.get("rollback")) {
            (product, Some(sha256), None) => Ok(Wanted::Hash(sha256, product)),
            (Some(product), None, None) => Ok(Wanted::Product(product)),
            (None, None, Some(Value::Bool(true))) => Ok(Wanted::Before),
            _ => Err(WANTED.to_owned()),
        }
    }

    fn find(&self, book: &Book) -> Result<Recipe> {
        match self {
            Wanted::Before => book.before(),
            Wanted::Product(product) => match book.last_of(product)? {
                Some(recipe) => Ok(recipe),
                None => Recipe::plain(product).map_err(|e| e.with_kind(Kind::Usage)),
            },
            Wanted::Hash(sha256, product) => {
                let recipe = book.find(sha256)?;
                match product {
                    Some(product) if *product != recipe.product => Err(Error::new(
                        Kind::Usage,
                        format!("recipe {} is of product {}, not {product}", &recipe.sha256[..12], recipe.product),
                    )),
                    _ => Ok(recipe),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(args: Value) -> std::result::Result<Wanted, String> {
        Wanted::of(args.as_object().unwrap())
    }

    #[test]
    fn arguments_of_recipe() {
        assert_eq!(wanted(json!({"product": "a"})), Ok(Wanted::Product("a".into())));
        assert_eq!(wanted(json!({"sha256": "0123abcd"})), Ok(Wanted::Hash("0123abcd".into(), None)));
        assert_eq!(wanted(json!({"sha256": "0123abcd", "product": "a"})), Ok(Wanted::Hash("0123abcd".into(), Some("a".into()))));
        assert_eq!(wanted(json!({"rollback": true})), Ok(Wanted::Before));
        let usage = "give product, sha256 (8 to 64 hexadecimal digits), both, or rollback = true";
        for bad in [json!({}), json!({"rollback": false}), json!({"product": "a", "rollback": true})] {
            assert_eq!(wanted(bad), Err(usage.into()));
        }
        assert_eq!(wanted(json!({"name": 1})), Err(format!("recipe has no argument name; {usage}")));
        assert_eq!(wanted(json!({"product": 7})), Err("product must be a text, got 7".into()));
    }

    #[test]
    fn recipes_are_found_by_product_hash_and_order() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::open(folder.path()).unwrap();
        let recipe = |product: &str, threshold: f64| {
            let text = format!("recipe_version = 1\nproduct = \"{product}\"\n[decision]\nthreshold = {threshold}\n");
            Recipe::parse(&text, std::path::Path::new("r.toml")).unwrap()
        };
        let (a1, a2, b) = (recipe("a", 0.5), recipe("a", 0.6), recipe("b", 0.5));
        for recipe in [&a1, &a2, &b] {
            book.apply(recipe, "2026-11-25T00:00:00Z".parse().unwrap()).unwrap();
        }
        let find = |wanted: Wanted| wanted.find(&book).map(|r| (r.product, r.sha256)).map_err(|e| (e.kind(), e.to_string()));
        let of = |r: &Recipe| Ok((r.product.clone(), r.sha256.clone()));
        assert_eq!(find(Wanted::Product("a".into())), of(&a2));
        assert_eq!(find(Wanted::Product("b".into())), of(&b));
        assert_eq!(find(Wanted::Product("c".into())), of(&Recipe::plain("c").unwrap()));
        assert_eq!(find(Wanted::Before), of(&a2));
        assert_eq!(find(Wanted::Hash(a1.sha256[..8].into(), None)), of(&a1));
        let wrong = find(Wanted::Hash(a1.sha256.clone(), Some("b".into()))).unwrap_err();
        assert_eq!(wrong, (Kind::Usage, format!("recipe {} is of product a, not b", &a1.sha256[..12])));
        assert_eq!(find(Wanted::Hash("../../etc".into(), None)).unwrap_err().0, Kind::Usage);
        assert_eq!(find(Wanted::Hash("00000000".into(), None)).unwrap_err().0, Kind::Missing);
        assert_eq!(find(Wanted::Product("../x".into())).unwrap_err().0, Kind::Usage);
    }
}
