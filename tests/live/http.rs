//! A small HTTP server of the tests' own, and the program itself as a user starts it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// Runs `opmas channel test NAME` with this one channel file: exit code, standard output, standard error.
pub fn channel_test(dir: &Path, name: &str, text: &str) -> (i32, String, String) {
    std::fs::create_dir_all(dir.join("notifiers")).unwrap();
    std::fs::write(dir.join("notifiers").join(name).with_extension("toml"), text).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_opmas")).args(["channel", "test", name]).current_dir(dir).output().unwrap();
    (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
}

/// One request as it came.
pub struct Request {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        let found: Vec<&str> = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0]
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.trim_end().lines().map(str::to_owned);
    let line = lines.next().unwrap();
    let headers: Vec<(String, String)> = lines.map(|l| l.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap()).collect();
    let length = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length")).map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { line, headers, body })
}

/// What the server does with a request.
#[derive(Clone)]
pub enum Reply {
    /// Answers with these bytes after `HTTP/1.1 `.
    Say(String),
    /// Closes with a reset, the request read.
    Reset,
    /// Does not answer.
    Silence,
}

pub fn say(answer: &str) -> Reply {
    Reply::Say(answer.to_owned())
}

/// Serves the replies one after the other, one connection each, and hands out the requests.
pub fn serve(replies: Vec<Reply>) -> (u16, Receiver<Request>) {
    let (tx, rx) = channel();
    let mut replies = replies.into_iter();
    let port = serve_with(replies.len(), move |request| {
        let _ = tx.send(request);
        replies.next().unwrap()
    });
    (port, rx)
}

/// Serves so many connections, one request each, as `answer` says.
pub fn serve_with(connections: usize, answer: impl FnMut(Request) -> Reply + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve_on(listener, connections, answer);
    port
}

/// The same, on a listener that is there already.
pub fn serve_on(listener: TcpListener, connections: usize, mut answer: impl FnMut(Request) -> Reply + Send + 'static) {
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for _ in 0..connections {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let Some(request) = read_request(&mut stream) else { continue };
            match answer(request) {
                Reply::Say(answer) => drop(stream.write_all(format!("HTTP/1.1 {answer}").as_bytes())),
                Reply::Reset => reset(stream),
                Reply::Silence => silent.push(stream),
            }
        }
        drop(answer);
        std::thread::sleep(Duration::from_secs(if silent.is_empty() { 0 } else { 5 }));
    });
}

/// An answer with a JSON body; `status` may hold further header lines.
pub fn say_json(status: &str, body: &Value) -> Reply {
    let body = body.to_string();
    Reply::Say(format!("{status}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
}

/// Closes so that the other side sees a reset rather than an end.
fn reset(stream: TcpStream) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        #[expect(deprecated, reason = "lingering for no time does not block")]
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    });
}
