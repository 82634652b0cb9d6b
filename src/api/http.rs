//! `/healthz` (the process lives), `/readyz` (it does its job, or why not), `/metrics` (Prometheus text format 0.0.4),
//! `POST /-/reload` (read the configuration folder anew); beside them
//! what comes in by HTTP, with tokens of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::ingest::{self, Ingest};
use super::runs::{self, Runs};
use crate::engine::{Engine, Gravity, Status};

/// A name, and the digest of its token.
pub(super) type Token = (Arc<str>, Arc<[u8; 32]>);

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    /// How things stand.
    pub status: Status,
    /// The metrics of this process.
    pub metrics: PrometheusHandle,
    /// SHA-256 of the bearer token, when one is asked for.
    pub token: Option<Arc<[u8; 32]>>,
    /// Once it runs.
    pub engine: Arc<OnceLock<Weak<Engine>>>,
}

impl Pages {
    /// The digest of a token, which is what [`Pages`] keeps of it.
    #[must_use]
    pub fn digest(token: &str) -> Arc<[u8; 32]> {
        Arc::new(Sha256::digest(token.as_bytes()).into())
    }
}

/// Takes the address before anything starts.
///
/// # Errors
/// The address is in use or not ours; the sentence names it and the remedy.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|cause| {
        let remedy = "set another [http] listen in opmas.toml, or stop the program that holds it";
        io::Error::new(cause.kind(), format!("cannot listen for HTTP on {listen}: {cause}; {remedy}"))
    })
}

/// Serves until `stop` resolves. The pages' token does not open what comes in, nor the other way round.
///
/// # Errors
/// The listener failed for good.
pub async fn serve(listener: TcpListener, pages: Pages, ingest: Ingest, runs: Runs, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/-/reload", post(reload))
        .layer(middleware::from_fn_with_state(pages.clone(), authorise))
        .with_state(pages)
        .merge(ingest::router(ingest))
        .merge(runs::router(runs))
        .into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

/// Asks for the bearer token (RFC 6750). Digests are compared, so the time taken tells nothing of the token.
async fn authorise(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let Some(expected) = &pages.token else { return next.run(request).await };
    if given(request.headers()).is_some_and(|digest| digest == *expected) {
        return next.run(request).await;
    }
    unauthorised()
}

/// The digest of the bearer token that a request brings.
fn given(headers: &HeaderMap) -> Option<Arc<[u8; 32]>> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Pages::digest(token.trim()))
}

/// Whose token a request brings. All are compared, and digests of them, so that the time taken tells nothing.
pub(super) fn whose(tokens: &[Token], headers: &HeaderMap) -> Option<Arc<str>> {
    let given = given(headers)?;
    tokens.iter().fold(None, |found, (name, token)| if *token == given { Some(name.clone()) } else { found })
}

/// 401, and what is asked for.
pub(super) fn unauthorised() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer realm=\"opmas\"")], "a bearer token is asked for: Authorization: Bearer …\n").into_response()
}

/// 200 while input is accepted, with what is degraded; 503 while it is not.
async fn readyz(State(pages): State<Pages>) -> Response {
    let worst = pages.status.worst();
    let (code, word) = match worst {
        Some(Gravity::NotReady) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        Some(Gravity::Degraded) => (StatusCode::OK, "degraded"),
        Some(Gravity::Notice) | None => (StatusCode::OK, "ready"),
    };
    (code, Json(json!({ "status": word, "reasons": pages.status.reasons() }))).into_response()
}

/// Has the configuration folder read at once, as SIGHUP does; answers with what is live then: 200, and every file that was refused.
async fn reload(State(pages): State<Pages>) -> Response {
    let Some(engine) = pages.engine.get().and_then(Weak::upgrade) else {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "opmas is starting or ending" }))).into_response();
    };
    match engine.reload().await {
        Ok(content) => {
            let refused: Vec<_> = content.diagnostics().map(ToString::to_string).collect();
            let (playbooks, channels) = (content.playbooks.iter().count(), content.channels.iter().count());
            let live =
                json!({ "rules": content.rules, "playbooks": playbooks, "channels": channels, "devices": content.inventory.devices.len(), "refused": refused });
            Json(live).into_response()
        }
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": why }))).into_response(),
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], pages.metrics.render()).into_response()
}
