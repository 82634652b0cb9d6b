//! An opmas that runs on a folder, fed by a file.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub struct Running {
    dir: tempfile::TempDir,
    port: u16,
    opmas: Option<Child>,
}

impl Running {
    /// A folder with `opmas.toml` and nothing else.
    pub fn new() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let running = Running { dir, port, opmas: None };
        running.write("opmas.toml", &format!("[http]\nlisten = '127.0.0.1:{port}'\n[source.shop]\ntype = 'file'\npath = 'shop.log'\n"));
        running.write("shop.log", "");
        running
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in place, with its folders.
    pub fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    pub fn start(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.path("opmas.err")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
        command.arg("run").current_dir(self.dir.path()).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let before = self.log().matches(" ready").count();
        self.opmas = Some(command.spawn().unwrap());
        eventually("opmas is not ready", || self.log().matches(" ready").count() > before);
    }

    /// Everything on standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("opmas.err")).unwrap_or_default()
    }

    pub fn page(&self, path: &str) -> String {
        self.request("GET", path).split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The whole answer, headers included.
    pub fn post(&self, path: &str) -> String {
        self.request("POST", path)
    }

    fn request(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What a command prints, in the folder.
    pub fn opmas(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The value of a metric, summed over the lines whose labels hold `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.page("/metrics");
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(labels));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// How often a part's files were read because they had changed.
    pub fn reloads(&self, part: &str) -> f64 {
        self.metric("opmas_reloads_total", &format!("part=\"{part}\""))
    }

    /// What `/readyz` says of a part.
    pub fn reason(&self, part: &str) -> Option<String> {
        let ready: Value = serde_json::from_str(&self.page("/readyz")).unwrap();
        let reason = ready["reasons"].as_array().unwrap().iter().find(|reason| reason["part"] == part)?;
        Some(reason["text"].as_str().unwrap().to_owned())
    }

    /// One event.
    pub fn event(&self, kind: &str, user: &str) {
        let mut file = OpenOptions::new().append(true).open(self.path("shop.log")).unwrap();
        writeln!(file, "{{\"kind\":\"{kind}\",\"user\":\"{user}\"}}").unwrap();
    }

    /// Writes events until it is told to end.
    pub fn feed(&self) -> Feeder {
        let mut file = OpenOptions::new().append(true).open(self.path("shop.log")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut lines = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let n = lines.len();
                let line = format!("{{\"kind\":\"{}\",\"user\":\"u{}\",\"n\":{n}}}", if n % 2 == 0 { "a" } else { "b" }, n / 2 % 17);
                writeln!(file, "{line}").unwrap();
                lines.push(line);
                std::thread::sleep(Duration::from_millis(5));
            }
            lines
        });
        Feeder { stop, thread }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.opmas.as_ref().unwrap()), signal).unwrap();
    }

    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Ends opmas as a service manager does; gives its log.
    pub fn terminate(&mut self) -> String {
        self.signal(Signal::TERM);
        assert!(self.opmas.take().unwrap().wait().unwrap().success(), "{}", self.log());
        self.log()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut opmas) = self.opmas.take() {
            let _ = opmas.kill();
            let _ = opmas.wait();
        }
        if std::thread::panicking() {
            eprintln!("the log of opmas:\n{}", self.log());
        }
    }
}

pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Feeder {
    /// The lines that were written.
    pub fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A receiver of webhooks.
pub struct Hooks {
    pub url: String,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Hooks {
    pub fn listen() -> Hooks {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| take(stream, &kept)));
        Hooks { url, bodies }
    }

    pub fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

fn take(mut stream: TcpStream, kept: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).is_ok_and(|n| n > 0) && line.trim() != "" {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    kept.lock().unwrap().push(String::from_utf8(body).unwrap());
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
}

/// Asks again and again until it is so; fails the test with `otherwise` when it takes too long.
pub fn eventually(otherwise: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "{otherwise}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
