//! What opmas does itself and scripts ask for like for actions on devices: steps that are recorded, replayed and approved like these.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::evaluate::{ActionSignature, ParamSignature};
use crate::action::Grammar;
use crate::model::{OutcomeState, Span, Step};

/// Where such steps are carried out. No name in `devices.toml` has a space.
pub const OPMAS: &str = "opmas itself";
/// The longest that a script waits at once.
const MAX_WAIT: Span = Span::secs(7 * 24 * 3600);
/// Characters of a text for people.
const MAX_TEXT: usize = 500;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// The run goes on after so long, also when opmas was started anew meanwhile.
    Wait(Span),
    /// A person says whether the run goes on.
    Approve,
    /// A message to the broker of `[publish.NAME]`.
    Publish {
        /// The name.
        to: Arc<str>,
    },
    /// A request to `[endpoint.NAME]`: carried out like an action on a device, since its end may not be known.
    Request {
        /// The name.
        to: Arc<str>,
    },
    /// A message to a channel, about the run's finding.
    Notify {
        /// The channel's name.
        channel: Arc<str>,
    },
}

/// What is asked for, with its canonical parameters; or why it cannot be, one sentence.
type Asked = Result<(Own, Map<String, Value>), String>;

fn signature(name: &str, params: &[(&str, Option<Grammar>)]) -> ActionSignature {
    let param = |(name, grammar): &(&str, Option<Grammar>)| ParamSignature { name: (*name).into(), required: true, grammar: grammar.clone() };
    ActionSignature { name: name.into(), params: params.iter().map(param).collect(), assumed: OutcomeState::Done, own: true }
}

/// What every script may call.
pub(super) fn free() -> [ActionSignature; 2] {
    [signature("wait", &[("for", Some(Grammar::Duration { min: Span::secs(1), max: MAX_WAIT }))]), signature("approve", &[("text", None)])]
}

/// What a header must allow.
pub(super) fn granted() -> [ActionSignature; 3] {
    [
        signature("notify", &[("channel", None), ("text", None)]),
        signature("publish", &[("to", None), ("body", None)]),
        signature("http_request", &[("to", None), ("values", None)]),
    ]
}

/// Whether a step has an end of its own that may not be known: an action on a device, or a request.
#[must_use]
pub(super) fn is_carried_out(step: &Step) -> bool {
    matches!(Own::of_step(step), None | Some(Own::Request { .. }))
}

impl Own {
    /// What a call asks for; `None` when it asks for an action on a device.
    #[must_use]
    pub fn of(device: &str, action: &str, given: &Map<String, Value>) -> Option<Asked> {
        (device == OPMAS).then(|| {
            let text = |name: &str| given.get(name).and_then(Value::as_str).map(clean).ok_or_else(|| format!("{action} needs `{name}`, a text"));
            let (own, params) = match action {
                "wait" => {
                    let grammar = Grammar::Duration { min: Span::secs(1), max: MAX_WAIT };
                    let value = grammar.parse(given.get("for").unwrap_or(&Value::Null)).map_err(|why| format!("wait: `for`: {why}"))?;
                    let span = value.to_string().parse::<Span>().map_err(|_| "wait: `for` is no time".to_owned())?;
                    (Own::Wait(span), vec![("for", value.to_string())])
                }
                "approve" => (Own::Approve, vec![("text", text("text")?)]),
                "notify" => (Own::Notify { channel: text("channel")?.into() }, vec![("channel", text("channel")?), ("text", text("text")?)]),
                "publish" => {
                    let to = text("to")?;
                    let body = given.get("body").filter(|body| body.is_string() || body.is_object()).ok_or("publish needs `body`, a text or a map")?;
                    let params = [("to".to_owned(), Value::from(to.as_str())), ("body".to_owned(), body.clone())];
                    return Ok((Own::Publish { to: to.into() }, params.into_iter().collect()));
                }
                "http_request" => {
                    let to = text("to")?;
                    let values = given.get("values").filter(|values| values.is_object()).ok_or("http_request needs `values`, a map")?;
                    let params = [("to".to_owned(), Value::from(to.as_str())), ("values".to_owned(), values.clone())];
                    return Ok((Own::Request { to: to.into() }, params.into_iter().collect()));
                }
                _ => return Err(format!("there is no {action}")),
            };
            Ok((own, params.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()))
        })
    }

    /// The same of a step.
    #[must_use]
    pub fn of_step(step: &Step) -> Option<Own> {
        Some(Own::of(&step.device, &step.action, &step.params)?.ok()?.0)
    }
}

/// Values of log lines stand in such texts.
fn clean(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
