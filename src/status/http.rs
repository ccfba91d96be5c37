//! The HTTP side: health, readiness, metrics, the page for people and the API behind it.
//!
//! | path | what |
//! |---|---|
//! | `/` | the page: state, live picture, results, counters, alarms, trends, templates; nothing on it comes from elsewhere |
//! | `/healthz`, `/readyz` | 200 while the process serves; 200 only when camera, model, template and store are ready, else 503 with reasons |
//! | `/metrics` | Prometheus text 0.0.4 |
//! | `/api/v1/{status,stats,config,templates,recipes}` | facts, figures, settings in force (secrets are in files of their own) |
//! | `/api/v1/inspections...` | results with their pictures ([`reads`]) |
//! | `/api/v1/events`, `/live.mjpg`, `/live.jpg` | server-sent events, live picture ([`feeds`]) |
//! | `POST /api/v1/{trigger,pause,resume,teach}`, `/api/v1/templates/activate` | changes ([`writes`]), by permission ([`access`]) |
//!
//! One thread, named `http`, with a runtime of its own, serves the address and, when set, a Unix socket; what reads disk or draws runs on
//! the runtime's helper threads. It starts before the model is loaded, so that the state can be asked while an engine is built, and ends
//! with the process.

pub mod access;
mod feeds;
mod pictures;
mod reads;
mod writes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use self::access::{Access, Peer};
use self::pictures::Pictures;
use super::Status;
use super::live::Live;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::frame::Gray;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::trigger::TriggerHandle;
use crate::pipeline::{ActiveProduct, Hold};
use crate::publish::mqtt::PublishHandle;
use crate::record::store::StoreReader;
use crate::telemetry::Telemetry;

/// Scripts, styles and pictures come from this program alone.
const POLICY: &str = "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// A trigger's result is waited for this long after its frame.
pub const RESULT_WAIT: Duration = Duration::from_secs(30);

/// Folders that are read.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The template store.
    pub templates: PathBuf,
    /// The recipe book.
    pub recipes: PathBuf,
    /// The evidence archive.
    pub archive: PathBuf,
}

/// Takes a product's name, a picture and a note; answers what was stored.
pub type TeachFn = Box<dyn Fn(&str, Gray, &str) -> Result<Value> + Send + Sync>;

/// What there is once the line runs.
pub struct Line {
    /// Frame accounts.
    pub ledger: Ledger,
    /// The publisher, when there is one.
    pub publish: Option<PublishHandle>,
    /// What computes the network.
    pub model: Value,
    /// What frames are compared with.
    pub product: ActiveProduct,
    /// Reasons to take no frame.
    pub hold: Hold,
    /// Set when another template was put in force.
    pub product_changed: Arc<AtomicBool>,
    /// Where triggers go.
    pub trigger: TriggerHandle,
    /// A trigger's result is waited for so long.
    pub trigger_wait: Duration,
    /// Teaches a template.
    pub teach: TeachFn,
}

/// What the server is made of.
pub struct Parts {
    /// Facts and state.
    pub status: Status,
    /// Metrics.
    pub telemetry: Telemetry,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// What those who watch see.
    pub live: Live,
    /// Results.
    pub reader: StoreReader,
    /// Folders that are read.
    pub folders: Folders,
    /// Who may write.
    pub access: Access,
    /// Station name.
    pub station: String,
    /// The settings in force, as TOML.
    pub config: String,
}

/// What the handlers share.
pub(super) struct Sources {
    status: Status,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    live: Live,
    reader: Mutex<StoreReader>,
    folders: Folders,
    pictures: Pictures,
    access: Access,
    station: String,
    config: String,
    started: Instant,
    line: OnceLock<Line>,
}

impl Sources {
    fn line(&self) -> Option<&Line> {
        self.line.get()
    }

    fn frames_json(&self) -> Value {
        let b = self.line().map(|line| line.ledger.balance()).unwrap_or_default();
        json!({
            "captured": b.captured, "recorded": b.recorded, "dropped": b.dropped, "lost": b.lost, "in_flight": b.in_flight(),
        })
    }

    fn status_json(&self) -> Value {
        let facts = self.status.facts();
        let line = self.line();
        json!({
            "station": self.station,
            "version": env!("CARGO_PKG_VERSION"),
            "state": self.status.state().word(),
            "paused": facts.paused,
            "reasons": self.status.reasons(),
            "alarms": facts.alarms,
            "model": line.map(|line| &line.model),
            "product": line.map(product_json),
            "frames": self.frames_json(),
            "writes_by_token": self.access.has_token(),
            "mqtt": line.and_then(|line| line.publish.as_ref()).map(PublishHandle::status),
        })
    }
}

/// Product and template in force.
fn product_json(line: &Line) -> Value {
    let product = line.product.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    product.as_ref().map_or(Value::Null, |p| {
        let t = &p.template;
        let (width, height) = t.image.size();
        json!({
            "name": t.product(), "template": { "id": t.id, "version": t.version, "sha256": t.sha256, "size_px": [width, height] },
            "zones": p.views.first().and_then(|v| v.decision.zones.as_ref()).map_or(0, |z| z.zones().len()),
        })
    })
}

/// The running server.
#[derive(Clone)]
pub struct Http(Arc<Sources>);

impl Http {
    /// Starts serving on `listen` and, when given, on a Unix socket.
    ///
    /// # Errors
    /// [`Kind::Config`] when an address cannot be had, naming it; [`Kind::TryAgain`] when the system refuses a thread.
    pub fn start(listen: SocketAddr, socket: Option<&Path>, parts: Parts) -> Result<Self> {
        let Parts { status, telemetry, clock, live, reader, folders, access, station, config } = parts;
        let listener = std::net::TcpListener::bind(listen)
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .map_err(|e| Error::new(Kind::Config, format!("http.listen {listen}: cannot be listened on: {e}")))?;
        let unix = socket.map(bind_socket).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_name("http-helper")
            .build()
            .map_err(|e| Error::new(Kind::TryAgain, format!("http: no runtime: {e}")))?;
        let sources = Arc::new(Sources {
            status,
            telemetry,
            clock,
            live,
            reader: Mutex::new(reader),
            pictures: Pictures::new(folders.archive.clone(), folders.templates.clone()),
            folders,
            access,
            station,
            config,
            started: Instant::now(),
            line: OnceLock::new(),
        });
        let app = router(Arc::clone(&sources));
        std::thread::Builder::new()
            .name("http".into())
            .spawn(move || {
                if let Err(e) = runtime.block_on(serve(listener, unix, app)) {
                    log::error!("http: {e}; health, metrics and the page are not served any more");
                }
            })
            .map_err(|e| Error::new(Kind::TryAgain, format!("thread http cannot be started: {e}")))?;
        log::info!(
            "http://{listen}/ is the station's page{}",
            socket.map_or(String::new(), |s| format!("; socket {}", s.display()))
        );
        Ok(Self(sources))
    }

    /// The line runs.
    pub fn attach(&self, line: Line) {
        // A second line in one process does not happen; the first stays.
        let _ = self.0.line.set(line);
    }
}

async fn serve(
    listener: std::net::TcpListener,
    unix: Option<std::os::unix::net::UnixListener>,
    app: Router,
) -> std::io::Result<()> {
    let tcp = tokio::net::TcpListener::from_std(listener)?;
    if let Some(unix) = unix {
        let unix = tokio::net::UnixListener::from_std(unix)?;
        let app = app.clone().into_make_service_with_connect_info::<Peer>();
        tokio::spawn(async move {
            if let Err(e) = axum::serve(unix, app).await {
                log::error!("http: {e}; the socket is not served any more");
            }
        });
    }
    axum::serve(tcp, app.into_make_service_with_connect_info::<Peer>()).await
}

/// A Unix socket that owner and group may use; one that a dead process left is replaced.
fn bind_socket(path: &Path) -> Result<std::os::unix::net::UnixListener> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let cannot =
        |e: std::io::Error| Error::new(Kind::Config, format!("http.socket {}: cannot be listened on: {e}", path.display()));
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path).map_err(cannot)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    Ok(listener)
}

fn router(sources: Arc<Sources>) -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CACHE_CONTROL, "no-cache"),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            (headers, text)
        })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/page.js", file("text/javascript; charset=utf-8", include_str!("page/page.js")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/favicon.svg", file("image/svg+xml", include_str!("page/favicon.svg")))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/live.mjpg", get(feeds::mjpeg))
        .route("/live.jpg", get(feeds::jpeg))
        .route("/api/v1/status", get(status))
        .route("/api/v1/stats", get(reads::stats))
        .route("/api/v1/config", get(config))
        .route("/api/v1/events", get(feeds::events))
        .route("/api/v1/inspections", get(reads::inspections))
        .route("/api/v1/inspections/{event_id}", get(reads::inspection))
        .route("/api/v1/inspections/{event_id}/{picture}", get(reads::picture))
        .route("/api/v1/templates", get(reads::templates))
        .route("/api/v1/templates/{sha256}/picture.png", get(reads::template_picture))
        .route("/api/v1/templates/activate", post(writes::activate))
        .route("/api/v1/recipes", get(reads::recipes))
        .route("/api/v1/trigger", post(writes::trigger))
        .route("/api/v1/pause", post(writes::pause))
        .route("/api/v1/resume", post(writes::resume))
        .route("/api/v1/teach", post(writes::teach))
        .layer(DefaultBodyLimit::max(writes::MAX_PICTURE_BYTES))
        .layer(axum::middleware::map_response(no_sniffing))
        .with_state(sources)
}

async fn no_sniffing(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn readyz(Shared(s): Shared<Arc<Sources>>) -> Response {
    let reasons = s.status.reasons();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"ready": reasons.is_empty(), "reasons": reasons}))).into_response()
}

async fn metrics(Shared(s): Shared<Arc<Sources>>) -> Response {
    let facts = s.status.facts();
    s.telemetry.gauge("ssds_camera_up", "1 while the camera delivers.", &[]).set(f64::from(u8::from(facts.camera_up)));
    if let Some(publish) = s.line().and_then(|line| line.publish.as_ref()) {
        let p = publish.status();
        let online = p.link == crate::publish::Link::Online;
        s.telemetry.gauge("ssds_mqtt_up", "1 while connected to the broker.", &[]).set(f64::from(u8::from(online)));
        s.telemetry.gauge("ssds_outbox_events", "Results the broker has not acknowledged.", &[]).set(p.outbox_events as f64);
        s.telemetry.gauge("ssds_outbox_oldest_age_seconds", "Age of the oldest of them.", &[]).set(p.outbox_oldest_age_s);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], s.telemetry.prometheus()).into_response()
}

async fn status(Shared(s): Shared<Arc<Sources>>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(s.status_json())).into_response()
}

async fn config(Shared(s): Shared<Arc<Sources>>) -> Response {
    ([(header::CONTENT_TYPE, "application/toml")], s.config.clone()).into_response()
}
