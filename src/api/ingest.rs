//! `POST /api/v1/logs/ingest` and `/api/v1/findings/ingest`: what comes in by HTTP, for `[source.NAME] type = "http"`.
//!
//! The bearer token says which source it is. 200 means on disk (O3). 400 says that no line was taken, 503 that lines may be sent again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::http::{Pages, Token, unauthorised, whose};
use crate::engine::{Gravity, Status};
use crate::model::Payload;
use crate::secret::Secret;
use crate::source::http::{Door, Form, MAX_BODY, NotKept, Parsed, Refused, Rejected, inflate, parse};

/// Requests whose bodies are read or written at once: 16 MiB of bodies, and as much inflated. Further ones wait, unread.
const MAX_IN_FLIGHT: usize = 16;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(30);
/// How long what is refused unread may still come, and how much of it.
const UNREAD: (Duration, usize) = (Duration::from_secs(5), 8 * MAX_BODY);
/// Seconds after which a request that could not be taken is to be sent again.
const RETRY_AFTER: &str = "5";

/// What requests are answered from.
#[derive(Clone)]
pub struct Ingest {
    tokens: Arc<[Token]>,
    /// The sources' ways in, once opmas has started.
    doors: watch::Receiver<Vec<Door>>,
    status: Status,
    places: Arc<Semaphore>,
}

impl Ingest {
    /// Of each source its token is needed; `doors` may come later.
    #[must_use]
    pub fn new(tokens: &[(Arc<str>, Secret)], doors: watch::Receiver<Vec<Door>>, status: Status) -> Ingest {
        let tokens = tokens.iter().map(|(source, token)| (source.clone(), Pages::digest(token.expose()))).collect();
        Ingest { tokens, doors, status, places: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) }
    }
}

/// The routes; none without a source of this type.
pub(super) fn router(ingest: Ingest) -> Router {
    if ingest.tokens.is_empty() {
        return Router::new();
    }
    Router::new().route("/api/v1/logs/ingest", post(logs)).route("/api/v1/findings/ingest", post(findings)).with_state(ingest)
}

async fn logs(State(ingest): State<Ingest>, ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request) -> Response {
    ingest.answer(peer.ip(), request, Payload::Log).await
}

async fn findings(State(ingest): State<Ingest>, ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request) -> Response {
    ingest.answer(peer.ip(), request, Payload::Finding).await
}

/// What became of a request's lines.
#[derive(Serialize)]
struct Taken {
    accepted: usize,
    rejected: Vec<Rejected>,
    #[serde(skip_serializing_if = "is_zero")]
    more_rejected: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Why a request is not taken.
struct Failed {
    code: StatusCode,
    text: String,
}

fn failed(code: StatusCode, text: impl Into<String>) -> Failed {
    Failed { code, text: text.into() }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        let code = if matches!(refused, Refused::Gzip(_)) { StatusCode::BAD_REQUEST } else { StatusCode::PAYLOAD_TOO_LARGE };
        failed(code, refused.to_string())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(json!({ "error": self.text }))).into_response();
        let header = match self.code {
            StatusCode::SERVICE_UNAVAILABLE => (header::RETRY_AFTER, RETRY_AFTER),
            // What was not read is in the way of the next request.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => (header::CONNECTION, "close"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => (header::ACCEPT_ENCODING, "gzip"),
            _ => return response,
        };
        response.headers_mut().insert(header.0, header::HeaderValue::from_static(header.1));
        response
    }
}

impl Ingest {
    async fn answer(&self, peer: IpAddr, request: Request, payload: Payload) -> Response {
        let (head, body) = request.into_parts();
        let mut body = body.into_data_stream();
        let source = whose(&self.tokens, &head.headers);
        let mut response = match &source {
            Some(source) => self.take(source, peer, (&head.headers, &mut body), payload).await.unwrap_or_else(Failed::into_response),
            None => unauthorised(),
        };
        if !matches!(response.status(), StatusCode::OK | StatusCode::REQUEST_TIMEOUT) && !pass_over(&head.headers, &mut body).await {
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        count(source.as_deref().unwrap_or_default(), response.status());
        response
    }

    async fn take(&self, source: &Arc<str>, peer: IpAddr, (headers, body): (&HeaderMap, &mut BodyDataStream), payload: Payload) -> Result<Response, Failed> {
        let form = form(headers, payload)?;
        let gzip = is_gzip(headers)?;
        self.ready()?;
        let busy = || failed(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; send it again");
        let _place = tokio::time::timeout(TURN, self.places.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)?;
        let door = self.door(source).await.ok_or_else(|| failed(StatusCode::SERVICE_UNAVAILABLE, NotKept::Closed.to_string()))?;
        let body = read(headers, body).await?;
        let parsed = if gzip { parse(&inflate(&body)?, form, payload)? } else { parse(&body, form, payload)? };
        let Parsed { keep, accepted, rejected, more_rejected } = parsed;
        metrics::counter!("opmas_ingest_rejected_lines_total", "source" => source.to_string()).increment((rejected.len() + more_rejected) as u64);
        door.keep(peer, keep, payload).await.map_err(|why| failed(StatusCode::SERVICE_UNAVAILABLE, why.to_string()))?;
        let code = if accepted == 0 && !rejected.is_empty() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        Ok((code, Json(Taken { accepted, rejected, more_rejected })).into_response())
    }

    /// The sources' doors are there a moment after opmas says that it is ready.
    async fn door(&self, source: &str) -> Option<Door> {
        let mut doors = self.doors.clone();
        let there = tokio::time::timeout(TURN, doors.wait_for(|doors| !doors.is_empty())).await.ok()?.ok()?;
        there.iter().find(|door| door.source() == source).cloned()
    }

    /// What cannot be kept now is not looked at: its sender keeps it.
    fn ready(&self) -> Result<(), Failed> {
        match self.status.reasons().into_iter().find(|reason| reason.gravity == Gravity::NotReady) {
            Some(reason) => Err(failed(StatusCode::SERVICE_UNAVAILABLE, format!("input is not accepted now ({}); send it again", reason.part))),
            None => Ok(()),
        }
    }
}

fn count(source: &str, code: StatusCode) {
    metrics::counter!("opmas_ingest_requests_total", "source" => source.to_owned(), "code" => code.as_u16().to_string()).increment(1);
}

fn form(headers: &HeaderMap, payload: Payload) -> Result<Form, Failed> {
    let written = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (known, sentence) = match payload {
        Payload::Log => (Form::of(written), "send Content-Type application/x-ndjson, application/json or text/plain"),
        Payload::Finding => (Form::of(written).filter(|form| *form != Form::Text), "send findings with Content-Type application/x-ndjson or application/json"),
    };
    known.ok_or_else(|| failed(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence))
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Failed> {
    let written = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    match written.as_deref() {
        None | Some("" | "identity") => Ok(false),
        Some("gzip" | "x-gzip") => Ok(true),
        Some(_) => Err(failed(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the only Content-Encoding is gzip")),
    }
}

/// A length that is told is judged before anything is read.
async fn read(headers: &HeaderMap, body: &mut BodyDataStream) -> Result<Vec<u8>, Failed> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(Failed::from(Refused::TooLarge));
    }
    let mut read = Vec::new();
    let all = async {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| failed(StatusCode::BAD_REQUEST, "the body could not be read"))?;
            if read.len() + chunk.len() > MAX_BODY {
                return Err(Failed::from(Refused::TooLarge));
            }
            read.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let late = |_| failed(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", BODY.as_secs()));
    tokio::time::timeout(BODY, all).await.map_err(late)??;
    Ok(read)
}

/// Throws away what still comes of a body that is refused: a connection that is closed over unread bytes is reset, and its sender may
/// never see the answer. One who waits for our word (RFC 9110, 10.1.1) sends nothing. Whether that was all of it: whoever takes longer is cut off.
async fn pass_over(headers: &HeaderMap, body: &mut BodyDataStream) -> bool {
    if headers.contains_key(header::EXPECT) {
        return false;
    }
    let (time, most) = UNREAD;
    let all = async {
        let mut passed = 0;
        while let Some(chunk) = body.next().await {
            passed += chunk.map_or(most, |chunk| chunk.len());
            if passed >= most {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(time, all).await.unwrap_or(false)
}
