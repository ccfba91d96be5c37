//! An MQTT 3.1.1 broker inside the process (rumqttd), for the demo and for trying things without a broker of one's own.
//!
//! Listens on the loopback interface only, without passwords. It keeps what it has in memory: it is no place for results that matter, and
//! it lives as long as the process, because rumqttd knows no end.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};

/// Time for the listener to come up.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The running broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedBroker {
    address: SocketAddr,
}

impl EmbeddedBroker {
    /// Starts it on `127.0.0.1:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when the port is taken or the broker does not come up.
    pub fn start(port: u16) -> Result<Self> {
        // rumqttd reports a taken port to its log only, so it is tried first.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .and_then(|l| l.local_addr())
            .map_err(|e| Error::unavailable(format!("embedded broker: cannot listen on 127.0.0.1:{port}: {e}")).with_source(e))?;
        let connections = ConnectionSettings {
            connection_timeout_ms: 5000,
            max_payload_size: 256 * 1024,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        };
        let server =
            ServerSettings { name: "broker-v4".to_owned(), listen: address, tls: None, next_connection_delay_ms: 1, connections };
        let router = RouterConfig {
            max_connections: 100,
            max_outgoing_packet_count: 200,
            max_segment_size: 16 * 1024 * 1024,
            max_segment_count: 10,
            ..RouterConfig::default()
        };
        let config = Config {
            id: 0,
            router,
            v4: Some(HashMap::from([("1".to_owned(), server)])),
            v5: None,
            ws: None,
            cluster: None,
            console: None,
            bridge: None,
            prometheus: None,
            metrics: None,
        };
        std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || {
                if let Err(e) = Broker::new(config).start() {
                    log::error!("embedded broker: {e}");
                }
            })
            .map_err(|e| Error::io("starting thread broker", e))?;
        let clock = SystemClock;
        let begun = clock.mono_ns();
        while TcpStream::connect(address).is_err() {
            if clock.mono_ns() - begun > START_LIMIT.as_nanos() as u64 {
                return Err(Error::new(Kind::Unavailable, format!("embedded broker: nothing listens on {address} yet")));
            }
            clock.sleep(Duration::from_millis(20));
        }
        Ok(Self { address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }
}
