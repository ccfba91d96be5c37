//! What can be read: facts, figures, inspections with their pictures, templates, recipes.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Sources;
use crate::error::{Error, Kind, Result};
use crate::publish::mqtt::PublishHandle;
use crate::recipe::book::Book;
use crate::record::event::{InspectionEvent, Verdict};
use crate::record::store::StoredEvent;
use crate::status::live::brief;
use crate::telemetry::Summary;
use crate::template::store::{Store as TemplateStore, png_bytes};

/// Inspections in one answer when the request does not say.
const DEFAULT_LIMIT: usize = 50;
/// Most inspections in one answer.
const MAX_LIMIT: usize = 1000;

/// Runs what reads disk on a thread that may wait, and answers its JSON.
async fn answer(work: impl FnOnce() -> Result<Value> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => ([(header::CACHE_CONTROL, "no-store")], Json(value)).into_response(),
        Ok(Err(e)) => refuse(&e),
        Err(e) => refuse(&Error::internal(e.to_string())),
    }
}

/// An error as a response.
pub fn refuse(error: &Error) -> Response {
    let code = match error.kind() {
        Kind::Missing => StatusCode::NOT_FOUND,
        Kind::Usage | Kind::Data | Kind::Config => StatusCode::BAD_REQUEST,
        Kind::TryAgain | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, Json(json!({ "error": format!("{error:#}") }))).into_response()
}

/// `/api/v1/stats`: counts since the start, times a stage, what waits for the broker, what is stored.
pub async fn stats(Shared(s): Shared<Arc<Sources>>) -> Response {
    answer(move || {
        let count = |verdict| s.telemetry.counter("ssds_inspections_total", "", &[("verdict", verdict)]).get();
        let times = |summary: Summary| {
            json!({
                "count": summary.count, "min_ms": summary.min * 1e3, "mean_ms": summary.mean * 1e3, "p99_ms": summary.p99 * 1e3,
                "max_ms": summary.max * 1e3,
            })
        };
        let stage = |stage| times(s.telemetry.histogram("ssds_stage_duration_seconds", "", &[("stage", stage)]).summary());
        let stored = s.reader.lock().unwrap_or_else(PoisonError::into_inner).counts()?;
        let stages: serde_json::Map<_, _> =
            ["capture", "align", "infer", "decide", "record"].into_iter().map(|name| (name.to_owned(), stage(name))).collect();
        Ok(json!({
            "station": s.station,
            "at": s.clock.now(),
            "uptime_s": s.started.elapsed().as_secs_f64(),
            "frames": s.frames_json(),
            "inspections": { "ok": count("OK"), "ng": count("NG"), "error": count("ERROR") },
            "stages": stages,
            "end_to_end": times(s.telemetry.histogram("ssds_end_to_end_seconds", "", &[]).summary()),
            "stored": { "ok": stored.ok, "ng": stored.ng, "error": stored.error },
            "mqtt": s.line().and_then(|line| line.publish.as_ref()).map(PublishHandle::status),
        }))
    })
    .await
}

/// What a listing is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    verdict: Option<String>,
    before: Option<u64>,
    limit: Option<usize>,
    #[serde(default)]
    brief: bool,
}

fn verdict_of(text: &str) -> Result<Verdict> {
    match text.to_ascii_uppercase().as_str() {
        "OK" => Ok(Verdict::Ok),
        "NG" => Ok(Verdict::Ng),
        "ERROR" => Ok(Verdict::Error),
        _ => Err(Error::new(Kind::Usage, format!("verdict must be ok, ng or error, got `{text}`"))),
    }
}

/// `/api/v1/inspections?verdict=&before=&limit=&brief=`: the newest first; `next_before` continues.
pub async fn inspections(
    Shared(s): Shared<Arc<Sources>>,
    query: Result<Query<Listing>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let listing = match query {
        Ok(Query(listing)) => listing,
        Err(e) => return refuse(&Error::new(Kind::Usage, e.body_text())),
    };
    answer(move || {
        let verdict = listing.verdict.as_deref().map(verdict_of).transpose()?;
        let limit = listing.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::new(Kind::Usage, format!("limit must be from 1 to {MAX_LIMIT}, got {limit}")));
        }
        let rows = s.reader.lock().unwrap_or_else(PoisonError::into_inner).history(verdict, listing.before, limit)?;
        let next_before = rows.last().filter(|_| rows.len() == limit).map(|row| row.seq);
        let list =
            rows.iter().map(|row| if listing.brief { row_brief(row) } else { row_event(row) }).collect::<Result<Vec<_>>>()?;
        Ok(json!({ "inspections": list, "next_before": next_before }))
    })
    .await
}

fn row_brief(row: &StoredEvent) -> Result<Value> {
    let mut value = brief(&InspectionEvent::from_json(row.body.as_bytes())?);
    value["acknowledged"] = row.acknowledged.into();
    Ok(value)
}

fn row_event(row: &StoredEvent) -> Result<Value> {
    let mut value: Value = serde_json::from_str(&row.body)
        .map_err(|e| Error::data(format!("event {} as stored is not JSON", row.seq)).with_source(e))?;
    value["acknowledged"] = row.acknowledged.into();
    Ok(value)
}

/// An event's id, or an answer that says what one looks like: nothing else may become part of a path.
fn event_id(text: &str) -> Result<&str> {
    let good = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if good { Ok(text) } else { Err(Error::new(Kind::Usage, format!("`{text}` is no event id, wanted a UUID"))) }
}

fn find(s: &Sources, id: &str) -> Result<StoredEvent> {
    let found = s.reader.lock().unwrap_or_else(PoisonError::into_inner).event(id)?;
    found.ok_or_else(|| Error::new(Kind::Missing, format!("inspection {id} is not kept here")))
}

/// `/api/v1/inspections/{event_id}`: the event, whether the broker has it, and the pictures there are.
pub async fn inspection(Shared(s): Shared<Arc<Sources>>, Path(id): Path<String>) -> Response {
    answer(move || {
        let id = event_id(&id)?;
        let mut value = row_event(&find(&s, id)?)?;
        value["pictures"] = s.pictures.names(id).into();
        Ok(value)
    })
    .await
}

/// `/api/v1/inspections/{event_id}/{name}.png`.
pub async fn picture(Shared(s): Shared<Arc<Sources>>, Path((id, name)): Path<(String, String)>) -> Response {
    png(move || {
        let id = event_id(&id)?;
        if name == "template.png" {
            let event = InspectionEvent::from_json(find(&s, id)?.body.as_bytes())?;
            return template_png(&s, &event.template.sha256);
        }
        s.pictures.read(id, &name)
    })
    .await
}

/// `/api/v1/templates/{sha256}/picture.png`.
pub async fn template_picture(Shared(s): Shared<Arc<Sources>>, Path(sha256): Path<String>) -> Response {
    png(move || template_png(&s, &sha256)).await
}

fn template_png(s: &Sources, sha256: &str) -> Result<Vec<u8>> {
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::new(Kind::Usage, format!("`{sha256}` is no SHA-256, wanted 64 hexadecimal digits")));
    }
    png_bytes(&TemplateStore::open(&s.folders.templates)?.picture(sha256)?.image)
}

async fn png(work: impl FnOnce() -> Result<Vec<u8>> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        // Pictures of an event or a template never change.
        Ok(Ok(bytes)) => {
            ([(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "private, max-age=86400, immutable")], bytes)
                .into_response()
        }
        Ok(Err(e)) => refuse(&e),
        Err(e) => refuse(&Error::internal(e.to_string())),
    }
}

/// `/api/v1/templates`: every version, and which is in force.
pub async fn templates(Shared(s): Shared<Arc<Sources>>) -> Response {
    answer(move || Ok(json!({ "templates": TemplateStore::open(&s.folders.templates)?.list()? }))).await
}

/// `/api/v1/recipes`: the recipe in force, none = as configured.
pub async fn recipes(Shared(s): Shared<Arc<Sources>>) -> Response {
    answer(move || {
        let book = Book::open(&s.folders.recipes)?;
        let Some(active) = book.active()? else { return Ok(json!({ "active": null })) };
        let recipe = book.load(&active.sha256)?;
        let zones: Vec<_> = recipe.zones.iter().map(|z| z.name.to_string()).collect();
        Ok(json!({ "active": {
            "product": active.product, "sha256": active.sha256, "activated_at": active.activated_at, "templates": recipe.templates,
            "zones": zones, "before": active.before.len(),
        } }))
    })
    .await
}
