//! What can be printed from the key table: the sample file, the reference page, a JSON Schema.

use serde_json::{Map, Value, json};

use super::keys::{self, KEYS, Key, Presence, Type};

/// Example values for the keys that must be given (camera.path: with the sample's back end), so that the sample is a file that works.
const EXAMPLES: &[(&str, &str)] = &[
    ("station.name", "\"aoi1\""),
    ("product.name", "\"board\""),
    ("camera.backend", "\"replay\""),
    ("camera.path", "\"frames\""),
];

fn example(path: &str) -> &'static str {
    EXAMPLES.iter().find(|(p, _)| *p == path).map_or("\"\"", |(_, v)| v)
}

/// The commented sample file: every key with its meaning, range and default. It parses to the defaults.
#[must_use]
pub fn sample() -> String {
    let head = "# SSDS configuration. Every key is here with its default; keys that are commented out are unset by default.\n\
                # Files in conf.d/*.toml beside this one are read after it, by name, and override it. `ssds check` tells all faults at once.\n\n";
    let body = render(|key| match key.presence {
        Presence::Default(literal) => Some(literal.to_owned()),
        Presence::Required => Some(example(key.path).to_owned()),
        Presence::Optional => EXAMPLES.iter().find(|(p, _)| *p == key.path).map(|(_, v)| (*v).to_owned()),
    });
    format!("{head}{body}")
}

/// All keys as a TOML file with comments; `value` gives a key's literal, `None` prints it commented out.
pub(super) fn render(value: impl Fn(&Key) -> Option<String>) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        let (in_section, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if in_section != section {
            out.push_str(&format!("\n[{in_section}]\n"));
            section = in_section;
        }
        let need = if key.presence == Presence::Required { " Required." } else { "" };
        out.push_str(&format!("# {} ({}){need}\n", key.help, keys::describe(key.ty)));
        match value(key) {
            Some(literal) => out.push_str(&format!("{name} = {literal}\n")),
            None => out.push_str(&format!("# {name} =\n")),
        }
    }
    out
}

/// The reference page in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         TOML. `ssds run --config FILE` reads FILE, then `conf.d/*.toml` beside it by name; later files override. Unknown keys are refused with the\n\
         nearest known one, and all faults are reported at once. A relative path is taken from the folder of the file that names it. Secrets stay\n\
         in files of their own (`*_file`). [ssds.toml](ssds.toml) is the sample with every default; [demo.toml](demo.toml) is what `make demo` runs;\n\
         [mqtt.md](mqtt.md) documents topics and payloads. This page is printed by `ssds config reference`, a JSON Schema by `ssds config schema`.\n",
    );
    for section in keys::sections() {
        out.push_str(&format!("\n## {section}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"));
        for key in KEYS.iter().filter(|k| k.path.starts_with(&format!("{section}."))) {
            let default = match key.presence {
                Presence::Default(literal) => format!("`{literal}`"),
                Presence::Optional => "unset".into(),
                Presence::Required => "required".into(),
            };
            out.push_str(&format!("| `{}` | {} | {default} | {} |\n", key.path, keys::describe(key.ty), key.help));
        }
    }
    out
}

/// A JSON Schema (2020-12) of the configuration file.
#[must_use]
pub fn json_schema() -> Value {
    let mut top = Map::new();
    let mut required_top: Vec<String> = Vec::new();
    for key in KEYS {
        let mut property = schema_of(key.ty);
        property.insert("description".into(), json!(key.help));
        if let Presence::Default(literal) = key.presence {
            let value = super::default_value(literal);
            property.insert("default".into(), serde_json::to_value(value).unwrap_or(Value::Null));
        }
        match key.path.split_once('.') {
            None => {
                top.insert(key.path.into(), property.into());
            }
            Some((section, name)) => {
                let entry = top.entry(section).or_insert_with(
                    || json!({"type": "object", "additionalProperties": false, "properties": {}, "required": []}),
                );
                entry["properties"][name] = property.into();
                if key.presence == Presence::Required {
                    if let Some(list) = entry["required"].as_array_mut() {
                        list.push(json!(name));
                    }
                    if !required_top.iter().any(|s| s == section) {
                        required_top.push(section.to_owned());
                    }
                }
            }
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:ssds:schema:config:1",
        "title": "SSDS configuration",
        "type": "object",
        "additionalProperties": false,
        "required": required_top,
        "properties": top,
    })
}

fn schema_of(ty: Type) -> Map<String, Value> {
    let value = match ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Type::Float(min, max) => json!({"type": "number", "minimum": min, "maximum": max}),
        Type::Text(max) => json!({"type": "string", "minLength": 1, "maxLength": max}),
        Type::Name => json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}),
        Type::Path => json!({"type": "string", "minLength": 1}),
        Type::Choice(words) => json!({"enum": words}),
        Type::Choices(words) => json!({"type": "array", "items": {"enum": words}, "uniqueItems": true, "minItems": 1}),
        Type::Texts => json!({"type": "array", "items": {"type": "string", "minLength": 1}}),
        Type::Integers(min, max) => {
            json!({"type": "array", "items": {"type": "integer", "minimum": min, "maximum": max}, "uniqueItems": true})
        }
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
