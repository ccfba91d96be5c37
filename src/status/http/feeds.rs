//! What stays open: server-sent events and the live picture.
//!
//! `/api/v1/events` sends `event: part` with the brief of each recorded part, and `event: status` with the facts when they change, at most
//! once a second; comments keep the connection alive. `/live.mjpg` is `multipart/x-mixed-replace` with one JPEG a part at a bounded rate.
//! A client that does not read is dropped: each has a queue of a few messages and a writer that gives up when it stays full.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::Sources;

/// Most clients of either kind at once.
const MAX_CLIENTS: usize = 32;
/// Messages that wait for a client.
const QUEUE: usize = 16;
/// A client that takes nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the facts are compared.
const TICK: Duration = Duration::from_secs(1);
/// How often a silent connection is kept alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

static CLIENTS: AtomicUsize = AtomicUsize::new(0);

/// Counts a client for as long as it is there.
struct Seat;

impl Seat {
    fn take() -> Option<Self> {
        let seat = Self;
        // The guard is dropped, and the count with it, when there was no room.
        (CLIENTS.fetch_add(1, Ordering::SeqCst) < MAX_CLIENTS).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        CLIENTS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A response's body, fed through a queue.
struct Feed(mpsc::Receiver<Bytes>);

impl Stream for Feed {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(Ok))
    }
}

fn full() -> Response {
    let message = format!("{MAX_CLIENTS} clients are connected already\n");
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], message).into_response()
}

async fn put(queue: &mpsc::Sender<Bytes>, message: impl Into<Bytes>) -> Result<(), ()> {
    queue.send_timeout(message.into(), PATIENCE).await.map_err(drop)
}

/// `/api/v1/events`.
pub async fn events(Shared(sources): Shared<Arc<Sources>>) -> Response {
    let Some(seat) = Seat::take() else { return full() };
    let (queue, feed) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let _seat = seat;
        // Ends when the client has gone or does not read.
        let _ = write_events(&sources, &queue).await;
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(Feed(feed))).into_response()
}

async fn write_events(sources: &Sources, queue: &mpsc::Sender<Bytes>) -> Result<(), ()> {
    let mut briefs = sources.live.briefs();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = String::new();
    let mut silent = Duration::ZERO;
    put(queue, "retry: 2000\n\n").await?;
    loop {
        tokio::select! {
            brief = briefs.recv() => match brief {
                Ok(brief) => put(queue, format!("event: part\ndata: {brief}\n\n")).await?,
                // What was missed is in the history.
                Err(RecvError::Lagged(n)) => put(queue, format!("event: missed\ndata: {n}\n\n")).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = tick.tick() => {
                let facts = sources.status_json().to_string();
                silent += TICK;
                if facts != told {
                    put(queue, format!("event: status\ndata: {facts}\n\n")).await?;
                    (told, silent) = (facts, Duration::ZERO);
                } else if silent >= KEEP_ALIVE {
                    put(queue, ": still here\n\n").await?;
                    silent = Duration::ZERO;
                }
            }
        }
    }
}

/// `/live.mjpg`.
pub async fn mjpeg(Shared(sources): Shared<Arc<Sources>>) -> Response {
    let Some(seat) = Seat::take() else { return full() };
    let (queue, feed) = mpsc::channel(2);
    tokio::spawn(async move {
        let _seat = seat;
        // Ends when the client has gone or does not read.
        let _ = write_pictures(&sources, &queue).await;
    });
    let headers = [(header::CONTENT_TYPE, "multipart/x-mixed-replace; boundary=picture"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(Feed(feed))).into_response()
}

/// `/live.jpg`: the last picture alone.
pub async fn jpeg(Shared(sources): Shared<Arc<Sources>>) -> Response {
    let live = sources.live.clone();
    match tokio::task::spawn_blocking(move || live.jpeg()).await {
        Ok(Ok(Some((_, jpeg)))) => {
            ([(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")], jpeg).into_response()
        }
        Ok(Ok(None)) => (StatusCode::NOT_FOUND, "no part has been inspected yet\n").into_response(),
        Ok(Err(e)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e:#}\n")).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
    }
}

async fn write_pictures(sources: &Sources, queue: &mpsc::Sender<Bytes>) -> Result<(), ()> {
    let mut numbers = sources.live.numbers();
    let mut sent = 0;
    loop {
        let live = sources.live.clone();
        let picture = tokio::task::spawn_blocking(move || live.jpeg()).await.map_err(drop)?.map_err(|e| log::warn!("{e:#}"))?;
        if let Some((number, jpeg)) = picture
            && number != sent
        {
            let head = format!("--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
            let mut part = Vec::with_capacity(head.len() + jpeg.len() + 2);
            part.extend_from_slice(head.as_bytes());
            part.extend_from_slice(&jpeg);
            part.extend_from_slice(b"\r\n");
            put(queue, part).await?;
            sent = number;
        }
        // A client that left while the line stands is seen by its closed queue.
        tokio::select! {
            changed = numbers.changed() => changed.map_err(drop)?,
            () = queue.closed() => return Err(()),
        }
    }
}
