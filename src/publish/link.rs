//! The way to the broker: TCP, or TLS over TCP.
//!
//! For: one connected byte stream, within a time limit. TLS is rustls with ring; certificates and keys are read anew for every connection,
//! so that renewed ones take effect without a restart. Only the authorities of `ca_file` are trusted, and the broker's certificate must
//! bear the host's name (or `server_name`). There is no setting that switches verification off.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::settings::{PublishSettings, TlsSettings};
use crate::error::{Error, Kind, Result};

/// A connected stream, of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DialError {
    /// Nobody answers, or no way there.
    Unreachable(String),
    /// The peers do not trust each other, or this station's certificates cannot be read.
    Tls(String),
}

/// Connects; the caller limits the time.
pub(crate) async fn dial(settings: &PublishSettings) -> std::result::Result<Box<dyn Stream>, DialError> {
    let tls = match &settings.tls {
        Some(tls) => Some(client_config(tls).map_err(|e| DialError::Tls(format!("{e:#}")))?),
        None => None,
    };
    let tcp =
        TcpStream::connect((settings.host.as_str(), settings.port)).await.map_err(|e| DialError::Unreachable(e.to_string()))?;
    // Results are small and waited for; the delay that gathers small segments only costs time.
    tcp.set_nodelay(true).map_err(|e| DialError::Unreachable(e.to_string()))?;
    let (Some(config), Some(tls)) = (tls, &settings.tls) else { return Ok(Box::new(tcp)) };
    let name = server_name(settings, tls).map_err(|e| DialError::Tls(e.to_string()))?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(e) if is_tls(&e) => Err(DialError::Tls(e.to_string())),
        Err(e) => Err(DialError::Unreachable(format!("TLS handshake: {e}"))),
    }
}

/// Whether rustls said it, as opposed to the network.
fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|e| e.is::<rustls::Error>())
}

fn server_name(settings: &PublishSettings, tls: &TlsSettings) -> Result<ServerName<'static>> {
    let name = tls.server_name.as_ref().unwrap_or(&settings.host);
    ServerName::try_from(name.clone())
        .map_err(|_| Error::config(format!("mqtt.server_name must be a host name or address, got `{name}`")))
}

/// Reads certificates and key and makes the client's side of TLS of them.
///
/// # Errors
/// [`Kind::Config`] naming the setting and the file.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("mqtt.ca_file", &settings.ca_file)? {
        roots.add(certificate).map_err(|e| Error::config(format!("mqtt.ca_file {}: {e}", settings.ca_file.display())))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(format!("TLS versions: {e}")))?
        .with_root_certificates(roots);
    let config = match (&settings.cert_file, &settings.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates("mqtt.cert_file", cert_file)?;
            let key =
                PrivateKeyDer::from_pem_file(key_file).map_err(|e| pem_fault("mqtt.key_file", key_file, "a private key", &e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                Error::config(format!("mqtt.cert_file {} with key_file {}: {e}", cert_file.display(), key_file.display()))
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let fault = |e: rustls::pki_types::pem::Error| pem_fault(setting, path, "certificates", &e);
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(fault)?.collect::<std::result::Result<_, _>>().map_err(fault)?;
    if found.is_empty() {
        return Err(Error::config(format!("{setting} {}: no certificate (PEM) in it", path.display())));
    }
    Ok(found)
}

fn pem_fault(setting: &str, path: &Path, wanted: &str, error: &rustls::pki_types::pem::Error) -> Error {
    let text = match error {
        rustls::pki_types::pem::Error::Io(e) => e.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => format!("no PEM item in it, wanted {wanted}"),
        other => format!("{other:?}, wanted {wanted} (PEM)"),
    };
    Error::new(Kind::Config, format!("{setting} {}: {text}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let tls = TlsSettings { ca_file: path.clone(), ..TlsSettings::default() };
        let error = client_config(&tls).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert_eq!(error.to_string(), format!("mqtt.ca_file {}: No such file or directory (os error 2)", path.display()));
        std::fs::write(&path, "nothing").unwrap();
        let error = client_config(&tls).unwrap_err();
        assert_eq!(error.to_string(), format!("mqtt.ca_file {}: no certificate (PEM) in it", path.display()));
    }
}
