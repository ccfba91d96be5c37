//! The crate's one error type.
//!
//! A [`Kind`] says who must act and decides the process's exit code (sysexits); the message names the thing, the value and what was
//! wanted. Sources are kept and printed as one chain by [`Error`]'s alternate form (`{:#}`).

use std::fmt;

/// What sort of fault this is; decides between retrying, reporting and ending the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command line is wrong (exit 64).
    Usage,
    /// Input exists but its content is unusable: a corrupt picture, a model with other inputs (exit 65).
    Data,
    /// An input file or folder is missing or unreadable (exit 66).
    Missing,
    /// A device, library or service is not there now and may come back (exit 69); the daemon retries these for ever.
    Unavailable,
    /// A broken invariant: a fault of this program (exit 70).
    Internal,
    /// An output cannot be created (exit 73).
    CannotCreate,
    /// Reading or writing failed on the way (exit 74).
    Io,
    /// A resource is busy or a limit is reached for now (exit 75).
    TryAgain,
    /// Access was denied (exit 77).
    Permission,
    /// The configuration is wrong (exit 78); the unit does not restart on it.
    Config,
}

impl Kind {
    /// The process's exit code for this kind (sysexits.h).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 64,
            Kind::Data => 65,
            Kind::Missing => 66,
            Kind::Unavailable => 69,
            Kind::Internal => 70,
            Kind::CannotCreate => 73,
            Kind::Io => 74,
            Kind::TryAgain => 75,
            Kind::Permission => 77,
            Kind::Config => 78,
        }
    }

    /// Whether trying again without a person's help can succeed.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::Io | Kind::TryAgain)
    }
}

/// An error: its kind, a message for a person, and what caused it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` saying `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Shorthand for [`Kind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::Data, message)
    }

    /// Shorthand for [`Kind::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// Shorthand for [`Kind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// Shorthand for [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// An I/O fault on `what` (say `reading /etc/x`): the kind follows from the operating system's answer.
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::Missing,
            std::io::ErrorKind::PermissionDenied => Kind::Permission,
            _ => Kind::Io,
        };
        Self::new(kind, format!("{what}: {source}"))
    }

    /// What sort of fault this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The message without its sources.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error under another kind (say a missing file that the configuration named).
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error with `prefix: ` before its message.
    #[must_use]
    pub fn context(mut self, prefix: impl fmt::Display) -> Self {
        self.message = format!("{prefix}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if f.alternate() {
            let mut source = std::error::Error::source(self);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alternate_form_prints_the_chain() {
        let inner = std::io::Error::other("disk on fire");
        let error = Error::data("template x.png").with_source(inner);
        assert_eq!(format!("{error}"), "template x.png");
        assert_eq!(format!("{error:#}"), "template x.png: disk on fire");
        assert_eq!(error.kind().exit_code(), 65);
    }

    #[test]
    fn io_errors_take_their_kind_from_the_system() {
        let missing = Error::io("reading a.png", std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(missing.kind(), Kind::Missing);
        let denied = Error::io("reading a.png", std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        assert_eq!(denied.kind(), Kind::Permission);
    }
}
