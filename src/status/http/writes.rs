//! What changes the station: a trigger, pause and resume, activating a template, teaching one. Each passes [`super::access`] and is audited.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Sources;
use super::access::Peer;
use super::reads::refuse;
use crate::error::{Error, Kind, Result};
use crate::frame::gray_from_bytes;
use crate::pipeline::Hold;
use crate::pipeline::trigger::{Order, Outcome, Reply};
use crate::template::store::Store as TemplateStore;

/// Largest picture that may be taught, bytes.
pub const MAX_PICTURE_BYTES: usize = 64 << 20;

/// Longest body of a trigger, bytes.
const MAX_TRIGGER_BYTES: usize = 4096;

/// Asks for permission, does `work` on a thread that may wait, audits, answers.
async fn write(
    s: Arc<Sources>,
    peer: Peer,
    headers: &HeaderMap,
    action: &'static str,
    arguments: Value,
    work: impl FnOnce(&Sources) -> Result<Value> + Send + 'static,
) -> Response {
    if let Some(response) = s.access.refuse(peer, headers, action).await {
        return response;
    }
    let sources = Arc::clone(&s);
    let done = tokio::task::spawn_blocking(move || work(&sources)).await.unwrap_or_else(|e| Err(Error::internal(e.to_string())));
    match done {
        Ok(value) => {
            s.access.record(peer, action, &arguments, Ok(()));
            Json(value).into_response()
        }
        Err(e) => {
            s.access.record(peer, action, &arguments, Err(&format!("{e:#}")));
            refuse(&e)
        }
    }
}

fn not_ready() -> Error {
    Error::new(Kind::TryAgain, "the line is not running yet")
}

async fn hold(s: Arc<Sources>, peer: Peer, headers: HeaderMap, action: &'static str, paused: bool) -> Response {
    write(s, peer, &headers, action, Value::Null, move |s| {
        let line = s.line().ok_or_else(not_ready)?;
        line.hold.set(Hold::PAUSED, paused);
        s.status.update(|f| f.paused = paused);
        Ok(json!({ "paused": paused }))
    })
    .await
}

/// `POST /api/v1/pause`: no frame is taken until `resume`.
pub async fn pause(Shared(s): Shared<Arc<Sources>>, ConnectInfo(peer): ConnectInfo<Peer>, headers: HeaderMap) -> Response {
    hold(s, peer, headers, "pause", true).await
}

/// `POST /api/v1/resume`.
pub async fn resume(Shared(s): Shared<Arc<Sources>>, ConnectInfo(peer): ConnectInfo<Peer>, headers: HeaderMap) -> Response {
    hold(s, peer, headers, "resume", false).await
}

/// Which version shall be in force.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activate {
    id: String,
    version: u32,
}

/// `POST /api/v1/templates/activate {"id": "board/main", "version": 2}`: checked, put in force, and used from the next frame on.
pub async fn activate(
    Shared(s): Shared<Arc<Sources>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let wanted: Activate = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(e) => return refuse(&Error::new(Kind::Usage, format!("body: {e}; wanted {{\"id\": ..., \"version\": ...}}"))),
    };
    let arguments = json!({ "id": wanted.id, "version": wanted.version });
    write(s, peer, &headers, "activate", arguments, move |s| {
        let line = s.line().ok_or_else(not_ready)?;
        let store = TemplateStore::open(&s.folders.templates)?;
        let template = store.activate(&wanted.id, wanted.version, s.clock.now())?;
        line.product_changed.store(true, Ordering::SeqCst);
        Ok(json!({ "id": template.id, "version": template.version, "sha256": template.sha256 }))
    })
    .await
}

/// What is taught.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teach {
    product: String,
    #[serde(default)]
    note: String,
}

/// `POST /api/v1/teach?product=NAME&note=TEXT` with a picture (PNG, JPEG, BMP, TIFF) as body: checked as `ssds teach` does, stored as the
/// next version and put in force.
pub async fn teach(
    Shared(s): Shared<Arc<Sources>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    query: Result<Query<Teach>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let wanted = match query {
        Ok(Query(wanted)) => wanted,
        Err(e) => return refuse(&Error::new(Kind::Usage, e.body_text())),
    };
    if body.is_empty() {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "body: empty, wanted a picture" }))).into_response();
    }
    let arguments = json!({ "product": wanted.product, "bytes": body.len() });
    write(s, peer, &headers, "teach", arguments, move |s| {
        let line = s.line().ok_or_else(not_ready)?;
        let picture = gray_from_bytes(&body, "the picture in the body")?;
        let taught = (line.teach)(&wanted.product, picture, &wanted.note)?;
        line.product_changed.store(true, Ordering::SeqCst);
        Ok(taught)
    })
    .await
}

/// A trigger as it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Trigger {
    part_id: Option<String>,
    job_id: Option<String>,
    request_id: Option<String>,
}

/// `POST /api/v1/trigger {"part_id": ..., "job_id": ..., "request_id": ...}`, all optional: inspects one part and answers with its recorded
/// result; 504 when that does not come in time.
pub async fn trigger(
    Shared(s): Shared<Arc<Sources>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(response) = s.access.refuse(peer, &headers, "trigger").await {
        return response;
    }
    let problem = |code: StatusCode, text: String| (code, Json(json!({ "error": text }))).into_response();
    if body.len() > MAX_TRIGGER_BYTES {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, format!("body: {} bytes, at most {MAX_TRIGGER_BYTES} wanted", body.len()));
    }
    let wanted = if body.is_empty() { Ok(Trigger::default()) } else { serde_json::from_slice(&body) };
    let wanted: Trigger = match wanted {
        Ok(wanted) => wanted,
        Err(e) => return refuse(&Error::new(Kind::Usage, format!("body: {e}"))),
    };
    let Some(line) = s.line() else { return refuse(&not_ready()) };
    let arguments = json!({ "part_id": wanted.part_id, "job_id": wanted.job_id, "request_id": wanted.request_id });
    let (tell, told) = tokio::sync::oneshot::channel::<Outcome>();
    let shared = |id: Option<String>| id.map(Arc::from);
    let order = Order {
        part_id: shared(wanted.part_id),
        job_id: shared(wanted.job_id),
        request_id: shared(wanted.request_id.clone()),
        reply: Some(Reply::new(move |outcome| {
            // A requester that went away hears nothing; the result is recorded all the same.
            let _ = tell.send(outcome);
        })),
        ..Order::from("http")
    };
    if let Err(e) = line.trigger.fire(order) {
        s.access.record(peer, "trigger", &arguments, Err(&format!("{e:#}")));
        return refuse(&e);
    }
    s.access.record(peer, "trigger", &arguments, Ok(()));
    match tokio::time::timeout(line.trigger_wait, told).await {
        Ok(Ok(outcome)) => {
            let mut answer = json!(outcome);
            answer["request_id"] = json!(wanted.request_id);
            Json(answer).into_response()
        }
        Ok(Err(_)) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the part ended without a recorded result".into()),
        Err(_) => {
            let secs = line.trigger_wait.as_secs_f64();
            problem(StatusCode::GATEWAY_TIMEOUT, format!("no result within {secs:.0} s; it is published when it comes"))
        }
    }
}
