//! Calling a method of the Web API, and what its answers mean.

use serde::Deserialize;

use crate::alert::answer::{Answer, Failure, SendError};
use crate::alert::http::{Post, Reply};

/// What is to be sent.
#[derive(Debug)]
pub struct Ready {
    /// `chat.update` of the alert's earlier message.
    pub(super) update: Option<Post>,
    /// `chat.postMessage`.
    pub(super) post: Post,
}

/// The part of every answer that matters here.
#[derive(Deserialize)]
struct Said {
    ok: bool,
    error: Option<String>,
    channel: Option<String>,
    ts: Option<String>,
}

impl Ready {
    /// Sends it. The receipt of the answer is `CHANNEL/TS`, by which the message is changed later.
    ///
    /// Slack knows no idempotency key: a new message whose answer was lost is ambiguous. A change can be made again.
    pub(in crate::alert) async fn send(self) -> Result<Answer, SendError> {
        let Some(update) = self.update else { return answer(self.post.send().await?).map_err(|refusal| refusal.error) };
        let again = |error: SendError| match error.kind {
            Failure::Ambiguous => SendError { kind: Failure::Retryable { after: None }, ..error },
            _ => error,
        };
        match answer(update.send().await.map_err(again)?) {
            Ok(answer) => Ok(answer),
            Err(refusal) if is_gone(&refusal.code) => answer(self.post.send().await?).map_err(|refusal| refusal.error),
            Err(refusal) => Err(again(refusal.error)),
        }
    }
}

/// Slack's word for why not, empty when it said none, and what follows from it.
struct Refusal {
    code: String,
    error: SendError,
}

/// Slack answers 200 with `{"ok": false, "error": "…"}` to what it refuses, and 429 to too many calls.
fn answer(reply: Reply) -> Result<Answer, Refusal> {
    let bare = |kind, detail: &str| Refusal { code: String::new(), error: reply.error(kind, detail) };
    match reply.failure() {
        None => {}
        // Whether the message was taken before the server, or what stands before it, broke down is not known.
        Some(Failure::Retryable { .. }) if matches!(reply.status.as_u16(), 500 | 502 | 504) => return Err(bare(Failure::Ambiguous, &reply.detail())),
        Some(kind) => return Err(bare(kind, &reply.detail())),
    }
    let Ok(said) = serde_json::from_str::<Said>(&reply.text) else {
        return Err(bare(Failure::Ambiguous, &format!("this is not how Slack answers: {}", reply.detail())));
    };
    if said.ok {
        let receipt = said.channel.zip(said.ts).map(|(channel, ts)| format!("{channel}/{ts}"));
        let text = receipt.as_ref().map_or("ok".to_owned(), |receipt| format!("ok, message {receipt}"));
        let mut answer = Answer::new(text);
        answer.receipt = receipt.map(Into::into);
        return Ok(answer);
    }
    let code = said.error.unwrap_or_default();
    Err(Refusal { error: reply.error(failure(&code, &reply), &format!("Slack answered {code}{}", remedy(&code))), code })
}

fn failure(code: &str, reply: &Reply) -> Failure {
    match code {
        "ratelimited" | "rate_limited" | "service_unavailable" | "request_timeout" | "team_added_to_org" => reply.later(),
        // "It's possible some aspect of the operation succeeded".
        "fatal_error" | "internal_error" => Failure::Ambiguous,
        _ => Failure::Permanent,
    }
}

/// The earlier message cannot be changed (any more).
fn is_gone(code: &str) -> bool {
    matches!(code, "message_not_found" | "cant_update_message" | "edit_window_closed")
}

fn remedy(code: &str) -> &'static str {
    match code {
        "channel_not_found" | "not_in_channel" => ": write the channel's id into `channel`, and invite the app there with /invite",
        "missing_scope" => ": give the app the bot token scope chat:write, and install it again",
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => ": put a valid bot token where the channel's file says",
        _ => "",
    }
}
