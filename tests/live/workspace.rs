//! Slack, played by a server that follows the public documentation of `chat.postMessage` and `chat.update`.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::http::{Reply, Request, say_json, serve_on};

pub const TOKEN: &str = "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcbrzqqgy";
pub const CHANNEL: &str = "C0123456789";

/// What the workspace holds, and how the next calls are answered instead.
#[derive(Default)]
struct Held {
    /// By `ts`: the last request that wrote the message.
    messages: BTreeMap<String, Value>,
    calls: Vec<String>,
    instead: VecDeque<Instead>,
}

pub enum Instead {
    /// Without doing anything.
    Answer(Reply),
    /// Having done it.
    Lose,
}

/// The server; a clone is the same one.
#[derive(Clone)]
pub struct Workspace {
    pub port: u16,
    held: Arc<Mutex<Held>>,
}

impl Workspace {
    /// On a port of its own; the first calls are answered otherwise.
    pub fn start(instead: Vec<Instead>) -> Workspace {
        let workspace = Workspace::on(TcpListener::bind("127.0.0.1:0").unwrap());
        workspace.held.lock().unwrap().instead = instead.into();
        workspace
    }

    pub fn on(listener: TcpListener) -> Workspace {
        let held = Arc::new(Mutex::new(Held::default()));
        let (port, shared) = (listener.local_addr().unwrap().port(), held.clone());
        serve_on(listener, usize::MAX, move |request| shared.lock().unwrap().serve(&request));
        Workspace { port, held }
    }

    /// The messages as they are now, oldest first.
    pub fn messages(&self) -> Vec<Value> {
        self.held.lock().unwrap().messages.values().cloned().collect()
    }

    /// The methods that were called.
    pub fn calls(&self) -> Vec<String> {
        self.held.lock().unwrap().calls.clone()
    }

    /// How the next call is answered.
    pub fn instead(&self, instead: Instead) {
        self.held.lock().unwrap().instead.push_back(instead);
    }

    /// A channel file that leads here.
    pub fn file(&self, more: &str) -> String {
        format!("integration = 'slack'\nchannel = '#alerts'\ntoken_file = 'token'\nurl = 'http://127.0.0.1:{}/api/'\n{more}", self.port)
    }
}

impl Held {
    fn serve(&mut self, request: &Request) -> Reply {
        let method = request.line.strip_prefix("POST /api/").and_then(|rest| rest.strip_suffix(" HTTP/1.1")).unwrap_or("?").to_owned();
        self.calls.push(method.clone());
        let instead = self.instead.pop_front();
        if let Some(Instead::Answer(reply)) = instead {
            return reply;
        }
        let answer = self.call(&method, request).unwrap_or_else(|error| json!({"ok": false, "error": error}));
        if let Some(Instead::Lose) = instead { Reply::Reset } else { say_json("200 OK", &answer) }
    }

    fn call(&mut self, method: &str, request: &Request) -> Result<Value, &'static str> {
        if !request.header("content-type").starts_with("application/json") {
            return Err("invalid_post_type");
        }
        match request.header("authorization").strip_prefix("Bearer ") {
            Some(TOKEN) => {}
            _ => return Err("invalid_auth"),
        }
        let body = request.json();
        check_content(&body)?;
        let ts = match (method, body["channel"].as_str()) {
            ("chat.postMessage", Some("#alerts" | CHANNEL)) => format!("1795266540.{:06}", self.messages.len() + 1),
            ("chat.update", Some(CHANNEL)) => {
                let ts = body["ts"].as_str().ok_or("invalid_arguments")?;
                self.messages.contains_key(ts).then(|| ts.to_owned()).ok_or("message_not_found")?
            }
            ("chat.postMessage" | "chat.update", _) => return Err("channel_not_found"),
            _ => return Err("unknown_method"),
        };
        self.messages.insert(ts.clone(), body.clone());
        Ok(json!({"ok": true, "channel": CHANNEL, "ts": ts, "message": {"text": body["text"], "blocks": body["blocks"], "type": "message"}}))
    }
}

/// The documented bounds: 50 blocks, 150 characters in a header, 1 to 3,000 in a text.
fn check_content(body: &Value) -> Result<(), &'static str> {
    let text = body["text"].as_str().unwrap_or_default();
    let blocks = body["blocks"].as_array().map(Vec::as_slice).unwrap_or_default();
    if text.is_empty() && blocks.is_empty() {
        return Err("no_text");
    }
    if text.chars().count() > 40_000 {
        return Err("msg_too_long");
    }
    let length = |block: &Value| block["text"]["text"].as_str().map_or(0, |text| text.encode_utf16().count());
    let fits = |block: &Value| match (block["type"].as_str(), block["text"]["type"].as_str()) {
        (Some("header"), Some("plain_text")) => (1..=150).contains(&length(block)),
        (Some("section"), Some("mrkdwn")) => (1..=3_000).contains(&length(block)),
        _ => false,
    };
    if blocks.len() <= 50 && blocks.iter().all(fits) { Ok(()) } else { Err("invalid_blocks") }
}

/// All texts of a message's blocks.
pub fn shown(message: &Value) -> String {
    message["blocks"].as_array().unwrap().iter().map(|block| block["text"]["text"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}
