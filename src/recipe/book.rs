//! The book of recipes: what was applied, by content, and which one is in force.
//!
//! ```text
//! ROOT/applied/SHA256/recipe.toml   a recipe as it was applied, with its masks beside it
//! ROOT/products/PRODUCT             the hash of the one last applied for a product
//! ROOT/active.json                  the one in force and those before it
//! ```
//! A recipe is copied here when it is applied, and the daemon reads only this copy: an edit that went wrong cannot stop the line, the
//! last good recipe stays in force until another one has passed all checks; and an old event's recipe can always be found by its hash.
//! A copy is complete before it has its name (temporary folder, fsync, rename). Nothing is deleted here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::template::store::replace;

/// Most earlier recipes remembered for a rollback.
const HISTORY: usize = 100;

/// Which recipe is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// Its hash.
    pub sha256: String,
    /// Its product.
    pub product: String,
    /// Since when.
    pub activated_at: Timestamp,
    /// Hashes of those before it, oldest first.
    #[serde(default)]
    pub before: Vec<String>,
}

/// A folder of applied recipes.
#[derive(Debug, Clone)]
pub struct Book {
    root: PathBuf,
}

impl Book {
    /// Opens the book in `root`, which is made when the first recipe is applied: who only looks leaves no folder behind.
    ///
    /// # Errors
    /// None now; kept for books that have a form to be checked.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_owned() })
    }

    /// Puts a recipe in force that was checked against the templates ([`Recipe::prepare`]).
    ///
    /// # Errors
    /// I/O faults; then the recipe before it is still in force.
    pub fn apply(&self, recipe: &Recipe, at: Timestamp) -> Result<()> {
        self.keep(recipe)?;
        let mut before = Vec::new();
        if let Some(old) = self.active()? {
            before = old.before;
            if old.sha256 != recipe.sha256 {
                before.push(old.sha256);
            }
        }
        let surplus = before.len().saturating_sub(HISTORY);
        before.drain(..surplus);
        let products = self.root.join("products");
        fs::create_dir_all(&products).map_err(|e| Error::io(format!("recipe book {}", products.display()), e))?;
        replace(&products.join(&recipe.product), recipe.sha256.as_bytes())?;
        self.write(&Active { sha256: recipe.sha256.clone(), product: recipe.product.clone(), activated_at: at, before })
    }

    /// The recipe last applied for the product `name`, or else the one whose hash begins with it (at least 8 digits).
    ///
    /// # Errors
    /// [`Kind::Usage`] when several hashes begin so; as [`Book::load`].
    pub fn look_up(&self, name: &str) -> Result<Option<Recipe>> {
        if crate::template::check_id(&format!("{name}/x")).is_err() {
            return Ok(None);
        }
        let path = self.root.join("products").join(name);
        match fs::read_to_string(&path) {
            Ok(sha256) => return self.load(sha256.trim()).map(Some),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("recipe book {}", path.display()), e));
            }
            Err(_) => {}
        }
        if name.len() < 8 || !name.chars().all(|c| c.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let matching: Vec<String> = self.hashes()?.into_iter().filter(|sha| sha.starts_with(name)).collect();
        match matching.as_slice() {
            [] => Ok(None),
            [sha256] => self.load(sha256).map(Some),
            _ => Err(Error::new(Kind::Usage, format!("recipe {name:?}: {} hashes begin so; more digits wanted", matching.len()))),
        }
    }

    /// Every recipe that was applied, by product, then hash. Damaged ones are left out: [`Book::load`] names their fault.
    ///
    /// # Errors
    /// I/O faults.
    pub fn list(&self) -> Result<Vec<Recipe>> {
        let mut out: Vec<Recipe> = self.hashes()?.iter().filter_map(|sha| self.load(sha).ok()).collect();
        out.sort_by(|a, b| (&a.product, &a.sha256).cmp(&(&b.product, &b.sha256)));
        Ok(out)
    }

    fn hashes(&self) -> Result<Vec<String>> {
        let folder = self.root.join("applied");
        let what = |e| Error::io(format!("recipe book {}", folder.display()), e);
        let mut out = Vec::new();
        for entry in fs::read_dir(&folder).map_err(what)? {
            let name = entry.map_err(what)?.file_name().to_string_lossy().into_owned();
            if name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit()) {
                out.push(name);
            }
        }
        Ok(out)
    }

    /// The recipe that was in force before the present one; put it in force with [`Book::roll_back`] once it is prepared.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is none before; as [`Book::load`].
    pub fn before(&self) -> Result<Recipe> {
        match self.active()?.and_then(|a| a.before.last().cloned()) {
            Some(sha256) => self.load(&sha256),
            None => Err(Error::new(
                Kind::Missing,
                format!("recipe book {}: there is no recipe before the active one", self.root.display()),
            )),
        }
    }

    /// Puts the recipe of [`Book::before`] in force.
    ///
    /// # Errors
    /// As [`Book::before`].
    pub fn roll_back(&self, at: Timestamp) -> Result<Recipe> {
        let recipe = self.before()?;
        let mut before = self.active()?.map(|a| a.before).unwrap_or_default();
        before.pop();
        self.write(&Active { sha256: recipe.sha256.clone(), product: recipe.product.clone(), activated_at: at, before })?;
        Ok(recipe)
    }

    /// Which recipe is in force, if any was applied.
    ///
    /// # Errors
    /// [`Kind::Data`] when the file that says so is damaged.
    pub fn active(&self) -> Result<Option<Active>> {
        let path = self.root.join("active.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::data(format!("recipe book {}: damaged: {e}; `ssds recipe apply` writes it anew", path.display()))
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("recipe book {}", path.display()), e)),
        }
    }

    /// The recipe in force.
    ///
    /// # Errors
    /// As [`Book::active`] and [`Book::load`].
    pub fn load_active(&self) -> Result<Option<Recipe>> {
        self.active()?.map(|a| self.load(&a.sha256)).transpose()
    }

    /// The recipe of `product` that was in force last, the one now in force included.
    ///
    /// # Errors
    /// As [`Book::active`]; recipes that do not read any more are passed over.
    pub fn last_of(&self, product: &str) -> Result<Option<Recipe>> {
        let Some(active) = self.active()? else { return Ok(None) };
        let newest_first = std::iter::once(&active.sha256).chain(active.before.iter().rev());
        let mut known = newest_first.filter_map(|sha256| self.load(sha256).map_err(|e| log::warn!("{e:#}")).ok());
        Ok(known.find(|recipe| recipe.product == product))
    }

    /// The recipe applied here whose hash begins with `prefix` (8 to 64 hexadecimal digits).
    ///
    /// # Errors
    /// [`Kind::Usage`] when `prefix` is no such text or several recipes have it; [`Kind::Missing`] when none has; as [`Book::load`].
    pub fn find(&self, prefix: &str) -> Result<Recipe> {
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !(8..=64).contains(&prefix.len()) || !digits(prefix) {
            return Err(Error::new(Kind::Usage, format!("a recipe's hash must be 8 to 64 of 0-9, a-f, got {prefix:?}")));
        }
        let applied = self.root.join("applied");
        let entries = fs::read_dir(&applied).map_err(|e| Error::io(format!("recipe book {}", applied.display()), e))?;
        let mut found: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix) && name.len() == 64 && digits(name))
            .collect();
        match (found.pop(), found.len()) {
            (Some(only), 0) => self.load(&only),
            (Some(_), more) => Err(Error::new(Kind::Usage, format!("{} recipes begin with {prefix}", more + 1))),
            (None, _) => Err(Error::new(Kind::Missing, format!("no recipe {prefix} was ever applied here"))),
        }
    }

    /// A recipe by its hash.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it was never applied here, [`Kind::Data`] when its files are damaged.
    pub fn load(&self, sha256: &str) -> Result<Recipe> {
        let folder = self.folder(sha256);
        let recipe = Recipe::load(&folder.join("recipe.toml"))?;
        if recipe.sha256 != sha256 {
            return Err(Error::data(format!("recipe {}: damaged: its content has SHA-256 {}", folder.display(), recipe.sha256)));
        }
        Ok(recipe)
    }

    fn folder(&self, sha256: &str) -> PathBuf {
        self.root.join("applied").join(sha256)
    }

    /// Copies the recipe here unless it is here already, whole.
    fn keep(&self, recipe: &Recipe) -> Result<()> {
        let folder = self.folder(&recipe.sha256);
        if folder.exists() {
            if self.load(&recipe.sha256).is_ok() {
                return Ok(());
            }
            // Damaged: out of the way, under a name that says so.
            let aside = folder.with_extension("damaged");
            let moved = fs::remove_dir_all(&aside).or_else(ignore_missing).and_then(|()| fs::rename(&folder, &aside));
            moved.map_err(|e| Error::io(format!("recipe {}", folder.display()), e))?;
        }
        let applied = self.root.join("applied");
        let what = |path: &Path, e| Error::io(format!("writing {}", path.display()), e);
        fs::create_dir_all(&applied).map_err(|e| what(&applied, e))?;
        let temporary = tempfile::Builder::new().prefix(".tmp-").tempdir_in(&applied).map_err(|e| what(&applied, e))?;
        let put = |path: &Path, bytes: &[u8]| -> Result<()> {
            let path = temporary.path().join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|e| what(parent, e))?;
            }
            fs::write(&path, bytes).and_then(|()| File::open(&path)?.sync_all()).map_err(|e| what(&path, e))
        };
        put(Path::new("recipe.toml"), recipe.text.as_bytes())?;
        for (path, bytes) in &recipe.masks {
            put(path, bytes)?;
        }
        // A folder made for temporary files is private; what was applied may be read as any other file.
        #[cfg(unix)]
        fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|e| what(&applied, e))?;
        let path = temporary.keep();
        fs::rename(&path, &folder).map_err(|e| what(&folder, e))?;
        File::open(&applied).and_then(|f| f.sync_all()).map_err(|e| what(&applied, e))
    }

    fn write(&self, active: &Active) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(active).map_err(|e| Error::internal(format!("JSON: {e}")))?;
        replace(&self.root.join("active.json"), &bytes)
    }
}

fn ignore_missing(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}
