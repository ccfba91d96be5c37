//! The HTTP side: health, readiness, metrics, status. Read-only; nothing here changes the station.
//!
//! `/healthz` 200 while the process serves; `/readyz` 200 only when camera, model, template and store are ready, else 503 with the reasons as
//! JSON; `/metrics` Prometheus text 0.0.4; `/api/v1/status` the facts as JSON; `/api/v1/config` the settings in force (secrets are in files
//! of their own and not among them). One thread, named `http`, with a runtime of its own; it ends with the process.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::Status;
use crate::error::{Error, Kind, Result};
use crate::pipeline::ledger::Ledger;
use crate::publish::mqtt::PublishHandle;
use crate::telemetry::Telemetry;

/// What the pages show.
pub struct Sources {
    /// Facts and state.
    pub status: Status,
    /// Metrics.
    pub telemetry: Telemetry,
    /// Frame accounts.
    pub ledger: Ledger,
    /// The publisher, when there is one.
    pub publish: Option<PublishHandle>,
    /// Station name.
    pub station: String,
    /// The model in force, as text.
    pub model: String,
    /// The settings in force, as TOML.
    pub config: String,
}

/// Starts serving on `listen`.
///
/// # Errors
/// [`Kind::Config`] when the address cannot be had, naming it; [`Kind::TryAgain`] when the system refuses a thread.
pub fn start(listen: SocketAddr, sources: Sources) -> Result<()> {
    let listener = std::net::TcpListener::bind(listen)
        .and_then(|l| l.set_nonblocking(true).map(|()| l))
        .map_err(|e| Error::new(Kind::Config, format!("http.listen {listen}: cannot be listened on: {e}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::TryAgain, format!("http: no runtime: {e}")))?;
    let app = router(Arc::new(sources));
    std::thread::Builder::new()
        .name("http".into())
        .spawn(move || {
            runtime.block_on(async move {
                let served = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => axum::serve(listener, app).await,
                    Err(e) => Err(e),
                };
                if let Err(e) = served {
                    log::error!("http: {e}; health and metrics are not served any more");
                }
            });
        })
        .map_err(|e| Error::new(Kind::TryAgain, format!("thread http cannot be started: {e}")))?;
    log::info!("http on {listen}: /healthz /readyz /metrics /api/v1/status");
    Ok(())
}

fn router(sources: Arc<Sources>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/config", get(config))
        .with_state(sources)
}

async fn readyz(Shared(s): Shared<Arc<Sources>>) -> Response {
    let reasons = s.status.reasons();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"ready": reasons.is_empty(), "reasons": reasons}))).into_response()
}

async fn metrics(Shared(s): Shared<Arc<Sources>>) -> Response {
    let facts = s.status.facts();
    s.telemetry.gauge("ssds_camera_up", "1 while the camera delivers.", &[]).set(f64::from(u8::from(facts.camera_up)));
    if let Some(publish) = &s.publish {
        let p = publish.status();
        let online = p.link == crate::publish::Link::Online;
        s.telemetry.gauge("ssds_mqtt_up", "1 while connected to the broker.", &[]).set(f64::from(u8::from(online)));
        s.telemetry.gauge("ssds_outbox_events", "Results the broker has not acknowledged.", &[]).set(p.outbox_events as f64);
        s.telemetry.gauge("ssds_outbox_oldest_age_seconds", "Age of the oldest of them.", &[]).set(p.outbox_oldest_age_s);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], s.telemetry.prometheus()).into_response()
}

async fn status(Shared(s): Shared<Arc<Sources>>) -> Response {
    let b = s.ledger.balance();
    let body = json!({
        "station": s.station,
        "version": env!("CARGO_PKG_VERSION"),
        "state": s.status.state().word(),
        "reasons": s.status.reasons(),
        "model": s.model,
        "frames": {"captured": b.captured, "recorded": b.recorded, "dropped": b.dropped, "lost": b.lost, "in_flight": b.in_flight()},
        "mqtt": s.publish.as_ref().map(PublishHandle::status),
    });
    Json(body).into_response()
}

async fn config(Shared(s): Shared<Arc<Sources>>) -> Response {
    ([(header::CONTENT_TYPE, "application/toml")], s.config.clone()).into_response()
}
