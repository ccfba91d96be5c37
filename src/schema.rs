//! The JSON Schemas (2020-12) of every message, as shipped in `config/schema/`; printed by `ssds config schema --topic`.

/// A message kind's name, its topic below `{prefix}/ssds/` and its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageSchema {
    /// `inspection`, `status` ...
    pub name: &'static str,
    /// Topic, with the variable level in braces.
    pub topic: &'static str,
    /// JSON text.
    pub text: &'static str,
}

macro_rules! schema {
    ($name:literal, $topic:literal) => {
        MessageSchema { name: $name, topic: $topic, text: include_str!(concat!("../config/schema/", $name, ".v1.schema.json")) }
    };
}

/// All of them.
pub const ALL: [MessageSchema; 7] = [
    schema!("inspection", "result/{ok,ng,error}"),
    schema!("status", "status"),
    schema!("state", "state"),
    schema!("alarm", "alarm/{code}"),
    schema!("stats", "stats"),
    schema!("command", "cmd/{trigger,recipe,pause,resume,selftest}"),
    schema!("response", "rsp/{request_id}"),
];

/// The schema of a message by its name (`inspection`) or by a topic's first level (`result`, `result/ok`, `cmd/pause`).
#[must_use]
pub fn find(name: &str) -> Option<&'static MessageSchema> {
    let first = |topic: &'static str| topic.split('/').next().unwrap_or(topic);
    let level = name.split('/').next().unwrap_or(name);
    ALL.iter().find(|s| s.name == name || first(s.topic) == level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_found_by_name_and_topic() {
        assert_eq!(find("inspection").unwrap().name, "inspection");
        assert_eq!(find("result/ng").unwrap().name, "inspection");
        assert_eq!(find("cmd/pause").unwrap().name, "command");
        assert_eq!(find("rsp").unwrap().name, "response");
        assert_eq!(find("alarm/disk_low").unwrap().name, "alarm");
        assert_eq!(find("nothing"), None);
    }
}
