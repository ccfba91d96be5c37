//! Topic names below `{prefix}/ssds/`.

use crate::record::event::Verdict;
use crate::record::message::AlarmCode;

/// The commands there are; the last level of their topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandKind {
    /// Inspect one part now.
    Trigger,
    /// Change the recipe.
    Recipe,
    /// Take no triggers.
    Pause,
    /// Take triggers again.
    Resume,
    /// Prove registration, network and store between two frames.
    Selftest,
}

impl CommandKind {
    /// All of them.
    pub const ALL: [CommandKind; 5] =
        [CommandKind::Trigger, CommandKind::Recipe, CommandKind::Pause, CommandKind::Resume, CommandKind::Selftest];

    /// The topic's last level.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CommandKind::Trigger => "trigger",
            CommandKind::Recipe => "recipe",
            CommandKind::Pause => "pause",
            CommandKind::Resume => "resume",
            CommandKind::Selftest => "selftest",
        }
    }
}

/// The station's topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    root: String,
}

impl Topics {
    /// Below `{prefix}/ssds/`; without a prefix below `ssds/`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { root: if prefix.is_empty() { "ssds/".to_owned() } else { format!("{prefix}/ssds/") } }
    }

    /// `status`.
    #[must_use]
    pub fn status(&self) -> String {
        self.below("status")
    }

    /// `state`.
    #[must_use]
    pub fn state(&self) -> String {
        self.below("state")
    }

    /// `stats`.
    #[must_use]
    pub fn stats(&self) -> String {
        self.below("stats")
    }

    /// `result/{ok,ng,error}`.
    #[must_use]
    pub fn result(&self, verdict: Verdict) -> String {
        format!("{}result/{}", self.root, verdict.topic())
    }

    /// `alarm/{code}`.
    #[must_use]
    pub fn alarm(&self, code: AlarmCode) -> String {
        format!("{}alarm/{}", self.root, code.topic())
    }

    /// The filter of all commands.
    #[must_use]
    pub fn commands(&self) -> String {
        self.below("cmd/#")
    }

    /// The filter of all results.
    #[must_use]
    pub fn results(&self) -> String {
        self.below("result/+")
    }

    /// What follows `cmd/` in a command's topic, known or not; `None` for other topics.
    #[must_use]
    pub fn command_name<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(&self.root)?.strip_prefix("cmd/")
    }

    /// `rsp/{request_id}`; requests without a readable id are answered on `rsp/invalid`.
    #[must_use]
    pub fn response(&self, request_id: Option<&str>) -> String {
        format!("{}rsp/{}", self.root, request_id.unwrap_or("invalid"))
    }

    fn below(&self, name: &str) -> String {
        format!("{}{name}", self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let topics = Topics::new("acme/hz/smt/line3/aoi1");
        assert_eq!(topics.status(), "acme/hz/smt/line3/aoi1/ssds/status");
        assert_eq!(topics.result(Verdict::Ng), "acme/hz/smt/line3/aoi1/ssds/result/ng");
        assert_eq!(topics.alarm(AlarmCode::SpoolHigh), "acme/hz/smt/line3/aoi1/ssds/alarm/spool_high");
        assert_eq!(topics.response(Some("r1")), "acme/hz/smt/line3/aoi1/ssds/rsp/r1");
        let bare = Topics::new("");
        assert_eq!(bare.commands(), "ssds/cmd/#");
        assert_eq!(bare.command_name("ssds/cmd/trigger"), Some("trigger"));
        assert_eq!(bare.command_name("ssds/cmd/a/b"), Some("a/b"));
        assert_eq!(bare.command_name("other/cmd/trigger"), None);
    }
}
