//! Checks a TOML table against the key table: every fault at once, each with file, line, key, value and what was wanted.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::keys::{self, Key, Presence, Type};

/// One thing wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file it stands in, when it stands in one.
    pub file: Option<PathBuf>,
    /// Line, from 1.
    pub line: Option<usize>,
    /// What is wrong: key, value, what was wanted.
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

/// A value together with where it was written.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The value.
    pub value: Value,
    /// The file that gave it.
    pub file: PathBuf,
    /// Line in it, from 1.
    pub line: usize,
}

/// Values by dotted key path.
pub type Values = std::collections::BTreeMap<&'static str, Placed>;

/// Reads one file's text into `values` (later files override earlier ones) and adds its faults.
pub fn read_text(text: &str, file: &Path, keys: &'static [Key], values: &mut Values, faults: &mut Vec<Fault>) {
    let fault = |line: Option<usize>, message: String| Fault { file: Some(file.to_path_buf()), line, message };
    let line_at = |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(e) => {
            faults.push(fault(e.span().map(|s| line_at(s.start)), format!("not valid TOML: {}", e.message())));
            return;
        }
    };
    let mut walk = Walk { file, keys, values, faults, line_at: &line_at };
    walk.table(table.get_ref(), "");
}

struct Walk<'a> {
    file: &'a Path,
    keys: &'static [Key],
    values: &'a mut Values,
    faults: &'a mut Vec<Fault>,
    line_at: &'a dyn Fn(usize) -> usize,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, prefix: &str) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let line = (self.line_at)(name.span().start);
            if let Some(key) = self.keys.iter().find(|k| k.path == path) {
                self.leaf(key, value, line);
            } else if let DeValue::Table(inner) = value.get_ref()
                && self.keys.iter().any(|k| k.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')))
            {
                self.table(inner, &path);
            } else {
                self.unknown(&path, line);
            }
        }
    }

    fn leaf(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>, line: usize) {
        let plain = plain(value.get_ref());
        match check_value(key, &plain) {
            Ok(()) => {
                self.values.insert(key.path, Placed { value: plain, file: self.file.to_path_buf(), line });
            }
            Err(message) => self.push(line, message),
        }
    }

    fn unknown(&mut self, path: &str, line: usize) {
        let nearest = self
            .keys
            .iter()
            .map(|k| (strsim::normalized_damerau_levenshtein(path, k.path), k.path))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness >= 0.6);
        let hint = nearest.map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"));
        self.push(line, format!("unknown key {path}{hint}"));
    }

    fn push(&mut self, line: usize, message: String) {
        self.faults.push(Fault { file: Some(self.file.to_path_buf()), line: Some(line), message });
    }
}

/// Adds a fault for every required key that is missing.
pub fn require(keys: &'static [Key], values: &Values, file: &Path, faults: &mut Vec<Fault>) {
    for key in keys {
        if key.presence == Presence::Required && !values.contains_key(key.path) {
            faults.push(Fault {
                file: Some(file.to_path_buf()),
                line: None,
                message: format!("{} is missing; wanted {}", key.path, keys::describe(key.ty)),
            });
        }
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Integer(i) => {
            i64::from_str_radix(i.as_str(), i.radix()).map_or_else(|_| Value::String(i.to_string()), Value::Integer)
        }
        DeValue::Float(f) => f.as_str().parse().map_or_else(|_| Value::String(f.to_string()), Value::Float),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Datetime(*d),
        DeValue::Array(items) => Value::Array(items.iter().map(|v| plain(v.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(table.iter().map(|(k, v)| (k.get_ref().to_string(), plain(v.get_ref()))).collect()),
    }
}

/// Whether `value` is what `key` allows; the message names key, value and what was wanted.
fn check_value(key: &Key, value: &Value) -> Result<(), String> {
    let wrong = || Err(format!("{} must be {}, got {}", key.path, keys::describe(key.ty), shown(value)));
    let good = match (key.ty, value) {
        (Type::Bool, Value::Boolean(_)) => true,
        (Type::Integer(min, max), Value::Integer(v)) => *v >= min && *v <= max,
        (Type::Float(min, max), Value::Float(v)) => *v >= min && *v <= max,
        (Type::Float(min, max), Value::Integer(v)) => (*v as f64) >= min && (*v as f64) <= max,
        (Type::Text(max), Value::String(s)) => !s.is_empty() && s.len() <= max,
        (Type::Name, Value::String(s)) => is_name(s),
        (Type::Path, Value::String(s)) => !s.is_empty() && !s.contains('\0'),
        (Type::Choice(words), Value::String(s)) => words.contains(&s.as_str()),
        (Type::Choices(words), Value::Array(items)) => {
            !items.is_empty()
                && items
                    .iter()
                    .enumerate()
                    .all(|(i, v)| v.as_str().is_some_and(|s| words.contains(&s)) && !items[..i].contains(v))
        }
        (Type::Texts, Value::Array(items)) => items.iter().all(|v| v.as_str().is_some_and(|s| !s.is_empty())),
        (Type::Integers(min, max), Value::Array(items)) => items
            .iter()
            .enumerate()
            .all(|(i, v)| v.as_integer().is_some_and(|v| (min..=max).contains(&v)) && !items[..i].contains(v)),
        _ => false,
    };
    if good { Ok(()) } else { wrong() }
}

/// Whether `s` is a name as [`Type::Name`] wants it.
#[must_use]
pub fn is_name(s: &str) -> bool {
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=64).contains(&s.len()) && ok(s.as_bytes()[0]) && s.bytes().all(|c| ok(c) || c == b'_' || c == b'-')
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > 80 { format!("{}...", text.chars().take(77).collect::<String>()) } else { text }
}
