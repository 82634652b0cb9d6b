//! One opmas in a folder, perhaps in a network namespace: started, asked, killed, ended.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::router::{OPMAS, eventually, inside};

pub struct Program {
    /// The configuration's folder.
    pub dir: PathBuf,
    /// Of `[http] listen`.
    port: u16,
    namespace: Option<PathBuf>,
    child: Option<Child>,
}

impl Program {
    /// Not started.
    pub fn new(dir: &Path, port: u16, namespace: Option<PathBuf>) -> Program {
        Program { dir: dir.to_owned(), port, namespace, child: None }
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("opmas.log")).unwrap();
        self.child = Some(self.arguments(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts it and waits until input is accepted.
    pub fn start(&mut self) {
        self.spawn();
        eventually(Duration::from_secs(60), "opmas is not ready", || self.ready().is_some_and(|(code, _)| code == 200));
    }

    fn arguments(&self, args: &[&str]) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("/usr/bin/nsenter");
                command.arg(format!("--net={}", namespace.display())).arg("--").arg(OPMAS);
                command
            }
            None => Command::new(OPMAS),
        };
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// A command of opmas in the configuration's folder, which must end by itself: exit code and what it said.
    pub fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.arguments(args).output().unwrap();
        (status.code(), String::from_utf8_lossy(&stdout).into_owned() + String::from_utf8_lossy(&stderr).as_ref())
    }

    fn connect(&self) -> Option<TcpStream> {
        let connect = || TcpStream::connect(("127.0.0.1", self.port)).ok();
        self.namespace.as_deref().map_or_else(connect, |namespace| inside(namespace, connect))
    }

    /// A page of it: status and body.
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// What `/readyz` says.
    pub fn ready(&self) -> Option<(u16, Value)> {
        let (code, body) = self.http("/readyz")?;
        Some((code, serde_json::from_str(&body).ok()?))
    }

    /// The value of a metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.http("/metrics").unwrap_or_default();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops it without an end, or lets it go on.
    pub fn freeze(&self, still: bool) {
        freeze(self.child.as_ref().unwrap(), still);
    }

    /// Ends it as a service manager does; how long it took. It must end well.
    pub fn terminate(&mut self) -> Duration {
        let begun = Instant::now();
        let mut child = self.child.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        assert_eq!(wait(&mut child), Some(0));
        begun.elapsed()
    }

    /// The exit code of one that ends by itself, with what it has said.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().unwrap();
        (wait(&mut child), self.log())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("opmas.log")).unwrap_or_default()
    }

    pub fn forget_log(&self) {
        fs::write(self.dir.join("opmas.log"), "").unwrap();
    }
}

/// Stops a process without an end, or lets it go on.
pub fn freeze(child: &Child, still: bool) {
    let signal = if still { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// The exit code, soon.
fn wait(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if begun.elapsed() > Duration::from_secs(60) => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it does not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("finding: ")).collect();
            eprintln!("the end of the log of opmas:\n{}", lines[lines.len().saturating_sub(400)..].join("\n"));
        }
    }
}
