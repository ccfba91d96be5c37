//! The stop signal: the first SIGTERM or SIGINT asks, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::{Error, Result};

/// Asks every part of the daemon to stop; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(Arc<AtomicBool>);

impl Shutdown {
    /// A signal nobody has given yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens to SIGTERM and SIGINT. The second of them ends the process with 128 + its number, as the shell reports a killed program.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] when the system refuses the handlers.
    pub fn listen(&self) -> Result<()> {
        for signal in [SIGTERM, SIGINT] {
            // Order matters: the conditional exit is registered first, so it sees the flag as the first signal left it.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&self.0))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&self.0)))
                .map_err(|e| Error::internal(format!("signal {signal} cannot be handled")).with_source(e))?;
        }
        Ok(())
    }

    /// Asks to stop.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether anyone asked.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
