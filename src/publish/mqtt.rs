//! The publisher as the rest of the daemon sees it.
//!
//! For: handing results to the broker without ever holding up inspection. Inputs: the spool's outbox (told of new rows by
//! [`Publisher::notify`]), retained topics by the `set_*` calls. Outputs: MQTT messages, [`PublishStatus`], [`Command`]s.
//! The thread `publish` holds a tokio current-thread runtime; no call here waits for the network.
//!
//! The client is ours on top of rumqttc's packet codecs (see `packet.rs` for why), so that the order of sending, the packet ids and the
//! moment a connection is given up are known exactly: an outbox row is deleted for the PUBACK of its own packet id on its own connection
//! and for nothing else, and every new connection begins again at the oldest row that is left.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::commands::Command;
use super::desk::{Desk, Identity, PublishStatus};
use super::link::client_config;
use super::pump::Pump;
use super::settings::PublishSettings;
use super::topics::Topics;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::record::event::TemplateRef;
use crate::record::message::{Alarm, AlarmCode, State, Stats};
use crate::record::store::StoreReader;

/// What was left when the publisher ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// The broker has acknowledged the `stopped` message; else it publishes the last will, `offline`.
    pub stopped_published: bool,
    /// Results still in the outbox; they go out after the next start.
    pub outbox_events: u64,
}

/// The running publisher.
pub struct Publisher {
    desk: Arc<Desk>,
    commands: Receiver<Command>,
    ended: Receiver<ShutdownReport>,
}

impl Publisher {
    /// Checks the settings and the files they name, and starts the thread. A broker that is away is no error: it is tried for ever.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::Kind) for wrong settings or unusable files.
    pub fn start(settings: PublishSettings, reader: StoreReader, identity: Identity, clock: Arc<dyn Clock>) -> Result<Self> {
        settings.check()?;
        settings.login()?;
        if let Some(tls) = &settings.tls {
            client_config(tls)?;
        }
        let topics = Topics::new(&settings.prefix);
        let desk = Arc::new(Desk::new(settings.station.clone(), topics, settings.broker(), clock, identity));
        let (command_sender, commands) = bounded(settings.commands.queue);
        let (ended_sender, ended) = bounded(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("starting the publisher's runtime", e))?;
        let pump = Pump::new(settings, Arc::clone(&desk), reader, command_sender);
        std::thread::Builder::new()
            .name("publish".to_owned())
            .spawn(move || {
                let report = runtime.block_on(pump.run());
                // A name server that does not answer must not hold up the end.
                runtime.shutdown_background();
                // The receiver is gone when nobody waits for the end.
                let _ = ended_sender.send(report);
            })
            .map_err(|e| Error::io("starting thread publish", e))?;
        Ok(Self { desk, commands, ended })
    }

    /// Says that rows were committed. Cheap; never waits.
    pub fn notify(&self) {
        self.desk.notify.notify_one();
    }

    /// A handle that can notify and set the retained topics from another thread.
    #[must_use]
    pub fn handle(&self) -> PublishHandle {
        PublishHandle { desk: Arc::clone(&self.desk) }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> PublishStatus {
        self.desk.status()
    }

    /// Commands for the pipeline; each must be answered, dropping one answers it `failed`.
    #[must_use]
    pub fn commands(&self) -> Receiver<Command> {
        self.commands.clone()
    }

    /// Ends within `within`: sends what is left in the outbox as long as time allows, then `stopped`, then disconnects in order. Call it
    /// when no more rows are committed.
    #[must_use]
    pub fn shutdown(self, within: Duration) -> ShutdownReport {
        self.desk.stop(within);
        // The thread keeps to the time itself; the margin is for a disk that does not answer.
        match self.ended.recv_timeout(within + Duration::from_secs(1)) {
            Ok(report) => report,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                log::error!("publisher: did not end in time");
                ShutdownReport { stopped_published: false, outbox_events: self.desk.status().outbox_events }
            }
        }
    }
}

impl Drop for Publisher {
    /// Without [`Publisher::shutdown`] the thread ends by itself, and the broker publishes the last will.
    fn drop(&mut self) {
        if self.desk.stopping().is_none() {
            self.desk.stop(Duration::ZERO);
        }
    }
}

/// The publisher's topics and bell, for other threads.
#[derive(Clone, Debug)]
pub struct PublishHandle {
    desk: Arc<Desk>,
}

impl PublishHandle {
    /// See [`Publisher::notify`].
    pub fn notify(&self) {
        self.desk.notify.notify_one();
    }

    /// See [`Publisher::status`].
    #[must_use]
    pub fn status(&self) -> PublishStatus {
        self.desk.status()
    }

    /// `state`: sent on change. Schema and station are filled in.
    pub fn set_state(&self, state: State) {
        self.desk.set_state(state);
    }

    /// `alarm/{code}`: raised with its text, cleared with `None`. Schema, station and code are filled in.
    pub fn set_alarm(&self, code: AlarmCode, alarm: Option<Alarm>) {
        self.desk.set_alarm(code, alarm);
    }

    /// `stats`. Schema and station are filled in.
    pub fn set_stats(&self, stats: Stats) {
        self.desk.set_stats(stats);
    }

    /// The birth message's template; it is sent again when that changes.
    pub fn set_template(&self, template: TemplateRef) {
        self.desk.set_template(template);
    }

    /// The birth message's model, template and clock; sent again when they change.
    pub fn set_identity(&self, identity: Identity) {
        self.desk.set_identity(identity);
    }
}

#[cfg(test)]
mod tests;
