//! Typed values out of a TOML file; what is wrong with them is gathered with file and line.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One table of the file.
#[derive(Debug, Clone)]
pub(super) struct Section<'t> {
    table: DeTable<'t>,
    prefix: String,
    line: usize,
}

impl Section<'_> {
    /// The key's dotted path.
    pub fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    fn get(&self, key: &str) -> Option<(&DeValue<'_>, usize)> {
        self.table.get(key).map(|v| (v.get_ref(), v.span().start))
    }
}

#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    file: String,
    /// Line (0 = none) and message.
    faults: Vec<(usize, String)>,
}

impl<'t> Reader<'t> {
    pub fn new(text: &'t str, file: &Path) -> Self {
        Self { text, file: file.display().to_string(), faults: Vec::new() }
    }

    /// The faults by line, each with its place.
    pub fn faults(mut self) -> Vec<String> {
        self.faults.sort_by_key(|(line, _)| *line);
        let place = |line| if line == 0 { self.file.clone() } else { format!("{}:{line}", self.file) };
        self.faults.iter().map(|(line, message)| format!("{}: {message}", place(*line))).collect()
    }

    pub fn fault(&mut self, line: Option<usize>, message: impl Into<String>) {
        self.faults.push((line.unwrap_or(0), message.into()));
    }

    /// A fault at a key of a section.
    pub fn fault_at(&mut self, s: &Section<'_>, key: &str, message: String) {
        let line = s.get(key).map(|(_, at)| self.line(at));
        self.fault(line, message);
    }

    /// A fault of a section as a whole.
    pub fn fault_in(&mut self, s: &Section<'_>, message: String) {
        self.fault(Some(s.line), message);
    }

    /// The file's top table; none, with a fault, when it is no TOML.
    pub fn top(&mut self) -> Option<Section<'t>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(Section { table: table.into_inner(), prefix: String::new(), line: 1 }),
            Err(e) => {
                let line = e.span().map(|s| self.line(s.start));
                self.fault(line, format!("not valid TOML: {}", e.message()));
                None
            }
        }
    }

    pub fn has(&self, s: &Section<'_>, key: &str) -> bool {
        s.get(key).is_some()
    }

    /// Faults for every key that is not in `keys`.
    pub fn known(&mut self, s: &Section<'_>, keys: &[&str]) {
        for (name, _) in &s.table {
            let (name, line) = (name.get_ref(), self.line(name.span().start));
            if keys.contains(&name.as_ref()) {
                continue;
            }
            let near = keys
                .iter()
                .map(|k| (strsim::normalized_damerau_levenshtein(name, k), *k))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, _)| *likeness >= 0.4);
            let hint = near.map_or_else(String::new, |(_, k)| format!("; did you mean {}?", s.path(k)));
            let message = format!("unknown key {}{hint}", s.path(name));
            self.fault(Some(line), message);
        }
    }

    /// A number from `low` to `high`.
    pub fn number(&mut self, s: &Section<'_>, key: &str, low: f64, high: f64) -> Option<f64> {
        let wanted = || format!("a number from {low} to {high}");
        self.value(s, key, wanted, |v| number(v).filter(|v| *v >= low && *v <= high))
    }

    /// A whole number from `low` to `high`.
    pub fn integer(&mut self, s: &Section<'_>, key: &str, low: i64, high: i64) -> Option<i64> {
        let wanted = || if low == high { low.to_string() } else { format!("a whole number from {low} to {high}") };
        self.value(s, key, wanted, |v| integer(v).filter(|v| *v >= low && *v <= high))
    }

    pub fn boolean(&mut self, s: &Section<'_>, key: &str) -> Option<bool> {
        self.value(s, key, || "true or false".into(), |v| v.as_bool())
    }

    /// Text that is not empty.
    pub fn text(&mut self, s: &Section<'_>, key: &str) -> Option<String> {
        self.value(s, key, || "text".into(), |v| v.as_str().filter(|t| !t.is_empty()).map(str::to_owned))
    }

    pub fn one_of(&mut self, s: &Section<'_>, key: &str, words: &[&str]) -> Option<String> {
        let wanted = || format!("one of {}", words.join(", "));
        self.value(s, key, wanted, |v| v.as_str().filter(|t| words.contains(t)).map(str::to_owned))
    }

    pub fn texts(&mut self, s: &Section<'_>, key: &str) -> Option<Vec<String>> {
        self.value(
            s,
            key,
            || "a list of texts".into(),
            |v| v.as_array()?.iter().map(|t| t.get_ref().as_str().map(str::to_owned)).collect(),
        )
    }

    pub fn points(&mut self, s: &Section<'_>, key: &str) -> Option<Vec<(f64, f64)>> {
        let wanted = || "a list of points [x, y]".into();
        self.value(s, key, wanted, |v| {
            let point = |p: &Spanned<DeValue<'_>>| match p.get_ref().as_array()? {
                list if list.len() == 2 => Some((number(list[0].get_ref())?, number(list[1].get_ref())?)),
                _ => None,
            };
            v.as_array()?.iter().map(point).collect()
        })
    }

    /// A table within a table.
    pub fn section<'s>(&mut self, s: &Section<'s>, key: &str) -> Option<Section<'s>> {
        let value = s.table.get(key)?;
        let line = self.line(value.span().start);
        match value.get_ref() {
            DeValue::Table(table) => Some(Section { table: table.clone(), prefix: s.path(key), line }),
            other => {
                let message = format!("{} must be a table [{}], got {}", s.path(key), s.path(key), shown(other));
                self.fault(Some(line), message);
                None
            }
        }
    }

    /// A list of tables, `[[key]]`; numbered from 1 in messages.
    pub fn sections<'s>(&mut self, s: &Section<'s>, key: &str) -> Vec<Section<'s>> {
        let Some(value) = s.table.get(key) else { return Vec::new() };
        let list = match value.get_ref() {
            DeValue::Array(list) if list.iter().all(|v| matches!(v.get_ref(), DeValue::Table(_))) => list,
            other => {
                let line = self.line(value.span().start);
                let message = format!("{} must be tables [[{}]], got {}", s.path(key), s.path(key), shown(other));
                self.fault(Some(line), message);
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for (i, item) in list.iter().enumerate() {
            if let DeValue::Table(table) = item.get_ref() {
                let prefix = format!("{}[{}]", s.path(key), i + 1);
                out.push(Section { table: table.clone(), prefix, line: self.line(item.span().start) });
            }
        }
        out
    }

    fn value<T>(
        &mut self,
        s: &Section<'_>,
        key: &str,
        wanted: impl Fn() -> String,
        get: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let (value, at) = s.get(key)?;
        let got = get(value);
        if got.is_none() {
            let (line, message) = (self.line(at), format!("{} must be {}, got {}", s.path(key), wanted(), shown(value)));
            self.fault(Some(line), message);
        }
        got
    }

    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|b| **b == b'\n').count() + 1
    }
}

fn integer(v: &DeValue<'_>) -> Option<i64> {
    match v {
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok(),
        _ => None,
    }
}

/// A finite number, written as a whole one or not.
fn number(v: &DeValue<'_>) -> Option<f64> {
    match v {
        DeValue::Float(f) => f.as_str().parse().ok().filter(|v: &f64| v.is_finite()),
        other => integer(other).map(|i| i as f64),
    }
}

fn shown(v: &DeValue<'_>) -> String {
    match v {
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Integer(i) => i.as_str().to_owned(),
        DeValue::Float(f) => f.as_str().to_owned(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(list) => format!("a list of {}", list.len()),
        DeValue::Table(_) => "a table".into(),
    }
}
