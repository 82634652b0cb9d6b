//! `POST /api/v1/runs/{id}/approve` and `/deny`: a person's answer to a run, from elsewhere than this machine's command line; and
//! `GET /api/v1/runs/{id}`: the run with its steps, as `opmas playbook show --json` has it.
//!
//! The bearer token says who answers: one of `[api.token.NAME]`. The body may be `{"because": "…"}`.

use std::sync::{Arc, OnceLock, Weak};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::http::{Pages, Token, unauthorised, whose};
use crate::engine::{Engine, NotDone, Order, Wish};
use crate::index::{self, Query, Rows};
use crate::model::RUN_DIGITS;
use crate::secret::Secret;

/// Longest body, in bytes.
const MAX_BODY: usize = 4 << 10;

/// What requests are answered from.
#[derive(Clone)]
pub struct Runs {
    tokens: Arc<[Token]>,
    /// The running system, once it is there.
    engine: Arc<OnceLock<Weak<Engine>>>,
}

impl Runs {
    /// With the tokens by their names; the system may come later.
    #[must_use]
    pub fn new(tokens: &[(Arc<str>, Secret)], engine: Arc<OnceLock<Weak<Engine>>>) -> Runs {
        Runs { tokens: tokens.iter().map(|(name, token)| (name.clone(), Pages::digest(token.expose()))).collect(), engine }
    }
}

/// The route.
pub(super) fn router(runs: Runs) -> Router {
    Router::new()
        .route("/api/v1/runs/{id}/{answer}", post(answer))
        .route("/api/v1/runs/{id}", get(show))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(runs)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    because: String,
}

fn failed(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({ "error": why }))).into_response()
}

/// Why nobody may ask, or who asks.
fn who(runs: &Runs, headers: &HeaderMap) -> Result<Arc<str>, Box<Response>> {
    if runs.tokens.is_empty() {
        let why = "no token may answer: write one into a file and name it in opmas.toml, [api.token.NAME] file = \"secrets/NAME.token\"";
        return Err(Box::new(failed(StatusCode::FORBIDDEN, why)));
    }
    whose(&runs.tokens, headers).ok_or_else(|| Box::new(unauthorised()))
}

async fn show(State(runs): State<Runs>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if let Err(refused) = who(&runs, &headers) {
        return *refused;
    }
    let Some(engine) = runs.engine.get().and_then(Weak::upgrade) else {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "opmas is starting");
    };
    match engine.query(Query::Run { id: id.clone() }).await {
        // A beginning may be another run's.
        Ok(index::Answer { rows: Rows::Run(story), .. }) if *story.run.run == *id => Json(*story).into_response(),
        Ok(_) => failed(StatusCode::NOT_FOUND, &format!("there is no run {}", id.escape_debug())),
        Err(why) => failed(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn answer(State(runs): State<Runs>, Path((id, word)): Path<(String, String)>, headers: HeaderMap, body: Bytes) -> Response {
    let name = match who(&runs, &headers) {
        Ok(name) => name,
        Err(refused) => return *refused,
    };
    let wish = match &*word {
        "approve" => Wish::Approve,
        "deny" => Wish::Deny,
        _ => return failed(StatusCode::NOT_FOUND, "the answer is approve or deny"),
    };
    let body = if body.is_empty() { Ok(Body::default()) } else { serde_json::from_slice::<Body>(&body) };
    let because = match body {
        Ok(body) => body.because,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &format!("the body is {{\"because\": \"…\"}} or empty: {error}")),
    };
    let Some(engine) = runs.engine.get().and_then(Weak::upgrade) else {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "opmas is starting");
    };
    // A program has the whole id; a beginning may be another run's.
    if id.len() != RUN_DIGITS {
        return failed(StatusCode::NOT_FOUND, &format!("a run's id has {RUN_DIGITS} characters"));
    }
    match engine.hand().order(Order { of: id.clone(), wish, by: format!("token {name}").into(), because }).await {
        Ok(run) => Json(json!({ "run": run, "answer": word })).into_response(),
        Err(NotDone::Unknown(why)) => match engine.query(Query::Run { id }).await {
            Ok(index::Answer { rows: Rows::Run(story), .. }) => {
                let run = story.run;
                failed(StatusCode::CONFLICT, &format!("run {} does not ask: it is {}", run.run, run.state.word()))
            }
            _ => failed(StatusCode::NOT_FOUND, &why),
        },
        Err(NotDone::NotNow(why)) => failed(StatusCode::CONFLICT, &why),
    }
}
