//! A real NATS server with JetStream, and a client that is not opmas.

use std::fs;
use std::future::Future;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{ConnectOptions, HeaderMap};

use crate::router::eventually;

/// A server on a port of its own, which it keeps across restarts. It and its files go away with the value.
pub struct NatsServer {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl NatsServer {
    /// Started, without credentials.
    pub fn new() -> NatsServer {
        NatsServer::with("")
    }

    /// Started, with more lines in its configuration.
    pub fn with(more: &str) -> NatsServer {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = NatsServer { port, dir: tempfile::tempdir().unwrap(), child: None };
        server.configure(more);
        server.start();
        server
    }

    /// Other lines in its configuration, from the next start on.
    pub fn configure(&mut self, more: &str) {
        let store = self.store();
        // On disk before it is acknowledged: the tests kill it.
        let text = format!("listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n{more}\n", self.port, store.display());
        fs::write(self.dir.path().join("nats.conf"), text).unwrap();
    }

    /// Without JetStream, from the next start on.
    pub fn bare(&mut self) {
        fs::write(self.dir.path().join("nats.conf"), format!("listen: \"127.0.0.1:{}\"\n", self.port)).unwrap();
    }

    /// The folder with the streams.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn start(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/nats.sh");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(script);
        command.arg("run").arg("-c").arg(self.dir.path().join("nats.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let what = "the NATS server is there (tests/services/nats.sh install)";
        eventually(Duration::from_secs(30), what, || TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.log().contains("Server is ready"));
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(self.log_file()).unwrap();
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        fs::remove_file(self.log_file()).unwrap();
    }

    /// Lets it stand still, or go on.
    pub fn freeze(&self, still: bool) {
        crate::program::freeze(self.child.as_ref().unwrap(), still);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("nats.log")
    }

    /// The `[broker.nats]` table of opmas's configuration, with more keys.
    pub fn broker(&self, more: &str) -> String {
        format!("[broker.nats]\ntype = 'nats'\nservers = ['nats://127.0.0.1:{}']\n{more}\n", self.port)
    }

    /// A client without credentials.
    pub fn client(&self) -> Client {
        self.client_with(ConnectOptions::new())
    }

    pub fn client_with(&self, options: ConnectOptions) -> Client {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = format!("nats://127.0.0.1:{}", self.port);
        let client = runtime.block_on(options.retry_on_initial_connect().connect(address)).unwrap();
        let context = runtime.block_on(async { jetstream::new(client) });
        Client { context, runtime }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("[INF]")).collect();
            eprintln!("what the NATS server complains of:\n{}", lines.join("\n"));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client, for tests that wait.
pub struct Client {
    pub context: jetstream::Context,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Publishes, in their order, and waits until all are acknowledged.
    pub fn publish(&self, subject: &str, payloads: impl IntoIterator<Item = String>) {
        // So many at a time: the library holds back those beyond 5,000 until others are waited for.
        let mut payloads = payloads.into_iter().peekable();
        while payloads.peek().is_some() {
            self.wait(async {
                let mut waiting = Vec::new();
                for payload in payloads.by_ref().take(1000) {
                    waiting.push(self.context.publish(subject.to_owned(), payload.into()).await.unwrap());
                }
                for acknowledged in waiting {
                    acknowledged.await.unwrap();
                }
            });
        }
    }

    pub fn publish_with(&self, subject: &str, headers: HeaderMap, payload: Vec<u8>) {
        self.wait(async { self.context.publish_with_headers(subject.to_owned(), headers, payload.into()).await.unwrap().await.unwrap() });
    }

    pub fn make_stream(&self, name: &str, subjects: &[&str]) -> stream::Info {
        self.make(stream::Config { name: name.to_owned(), subjects: subjects.iter().map(ToString::to_string).collect(), ..Default::default() })
    }

    pub fn make(&self, config: stream::Config) -> stream::Info {
        self.wait(self.context.create_stream(config)).unwrap().cached_info().clone()
    }

    /// The stream as it is; `None` when there is none.
    pub fn stream(&self, name: &str) -> Option<stream::Info> {
        Some(self.wait(self.context.get_stream(name)).ok()?.cached_info().clone())
    }

    pub fn delete_stream(&self, name: &str) {
        self.wait(self.context.delete_stream(name)).unwrap();
    }

    pub fn purge(&self, name: &str, below: u64) {
        self.wait(async { self.context.get_stream(name).await.unwrap().purge().sequence(below).await.unwrap() });
    }

    /// The durable consumer `opmas` as it is; `None` when there is none.
    pub fn consumer(&self, stream: &str) -> Option<consumer::Info> {
        self.wait(async { self.context.get_stream(stream).await.ok()?.consumer_info("opmas").await.ok() })
    }

    pub fn delete_consumer(&self, stream: &str) {
        self.wait(async { self.context.get_stream(stream).await.unwrap().delete_consumer("opmas").await.unwrap() });
    }

    /// Waits until opmas has acknowledged all of a stream.
    pub fn all_acknowledged(&self, stream: &str) {
        eventually(Duration::from_secs(60), &format!("{stream} is not read and acknowledged to its end"), || {
            let (Some(stream), Some(consumer)) = (self.stream(stream), self.consumer(stream)) else { return false };
            consumer.num_pending == 0 && consumer.num_ack_pending == 0 && consumer.ack_floor.stream_sequence >= stream.state.last_sequence
        });
    }
}
