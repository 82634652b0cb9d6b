//! Bytes to records: framing, sockets on this machine, files that are followed.

use std::collections::{BTreeMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use opmas::diag;
use opmas::model::{NodeId, Record, RecordId, Trust};
use opmas::normalise::CUT_MARK;
use opmas::source::{Batch, BindError, Context, Framer, MAX_FRAME, SourceConfig, bind};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How long anything may take here before it counts as not happening.
const PATIENCE: Duration = Duration::from_secs(10);

/// The frames of a real log daemon, by section: its title and the frames with their own trailers.
pub(crate) fn frames() -> Vec<(String, Vec<Vec<u8>>)> {
    let mut sections: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for line in include_str!("../data/openwrt-remote-syslog.txt").lines() {
        if let Some(title) = line.strip_prefix("# ") {
            sections.push((title.to_owned(), Vec::new()));
        } else if let Some(literal) = line.strip_prefix('b') {
            sections.last_mut().unwrap().1.push(unescape(&literal[1..literal.len() - 1]));
        }
    }
    sections.retain(|(_, frames)| !frames.is_empty());
    assert_eq!(sections.iter().map(|(_, frames)| frames.len()).collect::<Vec<_>>(), [12, 12, 15]);
    sections
}

/// The inside of a Python bytes literal.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => bytes.push(b'\n'),
            ('\\', Some('x')) => bytes.push(u8::from_str_radix(&chars.by_ref().take(2).collect::<String>(), 16).unwrap()),
            ('\\', other) => panic!("unknown escape {other:?}"),
            (c, _) => bytes.push(u8::try_from(c).unwrap()),
        }
    }
    bytes
}

fn without_trailer(frame: &[u8]) -> Vec<u8> {
    frame.strip_suffix(b"\n").or_else(|| frame.strip_suffix(b"\0")).unwrap_or(frame).to_vec()
}

fn config(text: &str) -> SourceConfig {
    diag::from_toml("opmas.toml", text).unwrap()
}

/// A running source.
struct Running {
    udp: SocketAddr,
    tcp: SocketAddr,
    batches: mpsc::Receiver<Batch>,
    waiting: Vec<Record>,
    inventory: watch::Sender<Arc<HashSet<IpAddr>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(text: &str, positions: &Path) -> Running {
        let bound = bind("lan", &config(text), positions, &BTreeMap::new()).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (udp, tcp) = bound.addresses();
        let (sender, batches) = mpsc::channel(2);
        let (inventory, inventory_seen) = watch::channel(Arc::default());
        let (stop, stopped) = watch::channel(false);
        let context = Context {
            batches: sender,
            inventory: inventory_seen,
            shutdown: stopped,
            node: NodeId("node".into()),
            kept: Arc::new(|_| None),
            report: Arc::new(|_, _| {}),
        };
        let task = tokio::spawn(bound.run(context));
        Running { udp: udp.unwrap_or(nowhere), tcp: tcp.unwrap_or(nowhere), batches, waiting: Vec::new(), inventory, stop, task }
    }

    fn syslog() -> Running {
        Running::start("type = 'syslog'\nlisten = '127.0.0.1:0'", Path::new("/nowhere"))
    }

    /// The next records; all of them are reported as safe.
    async fn records(&mut self, count: usize) -> Vec<Record> {
        while self.waiting.len() < count {
            let batch = tokio::time::timeout(PATIENCE, self.batches.recv()).await.expect("records in time").expect("a running source");
            self.waiting.extend(batch.records);
            if let Some(done) = batch.done {
                done.send(()).unwrap();
            }
        }
        self.waiting.drain(..count).collect()
    }

    async fn lines(&mut self, count: usize) -> Vec<String> {
        self.records(count).await.into_iter().map(|record| String::from_utf8(record.raw).unwrap()).collect()
    }

    /// Stops it; what it still hands over.
    async fn stop(mut self) -> Vec<Record> {
        self.stop.send(true).unwrap();
        let mut rest = std::mem::take(&mut self.waiting);
        while let Some(batch) = tokio::time::timeout(PATIENCE, self.batches.recv()).await.expect("an end in time") {
            rest.extend(batch.records);
            if let Some(done) = batch.done {
                done.send(()).unwrap();
            }
        }
        self.task.await.unwrap();
        rest
    }
}

#[tokio::test]
async fn x4_real_frames_come_out_right_over_tcp_in_every_chunking() {
    let frames: Vec<Vec<u8>> = frames().into_iter().take(2).flat_map(|(_, frames)| frames).collect();
    let expected: Vec<Vec<u8>> = frames.iter().map(|frame| without_trailer(frame)).collect();
    let stream: Vec<u8> = frames.concat();
    let mut source = Running::syslog();
    for chunk in [1, 2, 3, 7, 64, 1000, stream.len()] {
        let mut connection = TcpStream::connect(source.tcp).await.unwrap();
        connection.set_nodelay(true).unwrap();
        for piece in stream.chunks(chunk) {
            connection.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let records = source.records(expected.len()).await;
        assert_eq!(records.iter().map(|record| record.raw.clone()).collect::<Vec<_>>(), expected, "in pieces of {chunk}");
        let own = connection.local_addr().unwrap();
        assert!(records.iter().all(|record| *record.stream == *format!("lan/tcp/{own}") && record.peer == Some(own.ip()) && record.arrival.is_some()));
    }
    assert_eq!(source.stop().await, []);
}

#[tokio::test]
async fn x4_real_datagrams_come_out_right_over_udp() {
    let mut source = Running::syslog();
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let frames: Vec<Vec<u8>> = frames().into_iter().flat_map(|(_, frames)| frames).collect();
    for frame in &frames {
        sender.send_to(frame, source.udp).await.unwrap();
    }
    sender.send_to(b"\n", source.udp).await.unwrap();
    let records = source.records(frames.len()).await;
    assert_eq!(records.iter().map(|record| record.raw.clone()).collect::<Vec<_>>(), frames.iter().map(|frame| without_trailer(frame)).collect::<Vec<_>>());
    assert!(records.iter().all(|record| &*record.stream == "lan/udp/127.0.0.1" && record.id.is_none() && &*record.source == "lan"));
    // The largest datagram that IPv4 has.
    sender.send_to(&[b'a'; 65_507], source.udp).await.unwrap();
    assert_eq!(source.records(1).await[0].raw.len(), 65_507);
}

#[tokio::test]
async fn only_connections_of_devices_are_believed_unless_the_owner_says_so() {
    async fn trust_of(source: &mut Running) -> (Trust, Trust) {
        UdpSocket::bind("127.0.0.1:0").await.unwrap().send_to(b"x", source.udp).await.unwrap();
        let datagram = source.records(1).await[0].trust;
        TcpStream::connect(source.tcp).await.unwrap().write_all(b"x\n").await.unwrap();
        (datagram, source.records(1).await[0].trust)
    }
    let mut source = Running::syslog();
    assert_eq!(trust_of(&mut source).await, (Trust::Open, Trust::Open));
    source.inventory.send(Arc::new(["127.0.0.1".parse().unwrap()].into())).unwrap();
    assert_eq!(trust_of(&mut source).await, (Trust::Open, Trust::Verified));
    let mut trusted = Running::start("type = 'syslog'\nlisten = '127.0.0.1:0'\ntrusted = true", Path::new("/nowhere"));
    assert_eq!(trust_of(&mut trusted).await, (Trust::Verified, Trust::Verified));
}

#[tokio::test]
async fn o3_what_was_sent_before_the_stop_is_handed_over() {
    let source = Running::syslog();
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut connection = TcpStream::connect(source.tcp).await.unwrap();
    connection.write_all(b"whole\nhalf").await.unwrap();
    for n in 0..500 {
        sender.send_to(format!("datagram {n}").as_bytes(), source.udp).await.unwrap();
    }
    // Nothing of it has been looked at yet: the connection is not even accepted.
    let lines: HashSet<String> = source.stop().await.into_iter().map(|record| String::from_utf8(record.raw).unwrap()).collect();
    assert_eq!(lines.len(), 502);
    assert!(lines.contains("whole") && lines.contains(&format!("half{CUT_MARK}")));
}

#[tokio::test]
async fn a_source_ends_when_nobody_takes_its_records() {
    let source = Running::syslog();
    drop(source.batches);
    tokio::time::timeout(PATIENCE, source.task).await.expect("an end in time").unwrap();
}

#[tokio::test]
async fn a_last_message_without_newline_counts_when_the_connection_ends() {
    let mut source = Running::syslog();
    TcpStream::connect(source.tcp).await.unwrap().write_all(b"only").await.unwrap();
    assert_eq!(source.lines(1).await, ["only"]);
    TcpStream::connect(source.tcp).await.unwrap().write_all(b"20 <13>short").await.unwrap();
    assert_eq!(source.lines(1).await, [format!("<13>short{CUT_MARK}")]);
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let mut source = Running::syslog();
    let mut hanging = Vec::new();
    for _ in 0..80 {
        let mut connection = TcpStream::connect(source.tcp).await.unwrap();
        // One that was refused may be closed by now.
        let _ = connection.write_all(b"<13>hel").await;
        hanging.push(connection);
    }
    let mut refused = 0;
    for connection in &mut hanging {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(20), connection.read(&mut byte)).await;
        refused += usize::from(read.is_ok());
    }
    assert_eq!(refused, 80 - 64);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(source.tcp).await.unwrap();
    other.write_all(b"another\n").await.unwrap();
    assert_eq!(source.lines(1).await, ["another"]);
    drop(hanging.remove(0));
    // Its seat is free again once its unfinished message was taken.
    source.records(1).await;
    tokio::time::timeout(PATIENCE, async {
        loop {
            let mut again = TcpStream::connect(source.tcp).await.unwrap();
            let _ = again.write_all(b"again\n").await;
            if let Ok(line) = tokio::time::timeout(Duration::from_millis(200), source.lines(1)).await {
                return assert_eq!(line, ["again"]);
            }
        }
    })
    .await
    .expect("room for one more");
}

#[test]
fn an_address_that_is_taken_or_missing_is_named_with_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = |text: &str| bind("lan", &config(text), Path::new("/nowhere"), &BTreeMap::new()).unwrap_err().to_string();
    let said = error(&format!("type = 'syslog'\nudp = false\nlisten = '{address}'"));
    assert_eq!(said, format!("source `lan` cannot listen on tcp {address}: the port is in use; stop the other program or choose another `listen`"));
    assert!(error("type = 'syslog'\nlisten = '192.0.2.1:0'").contains("this machine has no such address"));
    assert!(error("type = 'file'\npath = '/nowhere/log'").contains("/nowhere is no folder"));
    assert!(error("type = 'file'\npath = '/proc'").contains("no regular file"));
    assert!(matches!(bind("a/b", &config("type = 'stdin'"), Path::new("/nowhere"), &BTreeMap::new()), Err(BindError::Name(_))));
}

#[test]
fn a_wrong_table_is_told_with_its_place() {
    let said = |text: &str| diag::from_toml::<SourceConfig>("opmas.toml", text).unwrap_err().to_string();
    assert_eq!(said("type = 'syslog'\nlsiten = '127.0.0.1:1'"), "opmas.toml:2:1: unknown key `lsiten`; did you mean `listen`?");
    assert!(said("type = 'file'").contains("needs `path`"));
    assert!(said("type = 'file'\npath = 'x'\nudp = true").contains("`udp` is no key of a source of this type"));
    assert!(said("type = 'syslog'\nudp = false\ntcp = false").contains("hears nothing"));
    assert!(said("type = 'syslog'\nlisten = '127.0.0.1'").ends_with("`127.0.0.1` is no address with a port; write \"127.0.0.1:1514\""));
    assert!(said("type = 'syslog'\nlisten = 'localhost:514'").ends_with("`localhost:514` is no address with a port; write \"127.0.0.1:514\""));
    assert!(said("type = 'syslog'\nlisten = ':514'").ends_with("write \"0.0.0.0:514\""));
    assert!(said("type = 'sylog'").contains("sylog"));
    let SourceConfig::Syslog(defaults) = config("type = 'syslog'") else { panic!("a syslog source") };
    assert_eq!((defaults.listen.to_string().as_str(), defaults.udp, defaults.tcp, defaults.trusted), ("127.0.0.1:1514", true, true, false));
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

struct Followed {
    dir: tempfile::TempDir,
}

impl Followed {
    fn new() -> Followed {
        Followed { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("messages")
    }

    fn start(&self, more: &str) -> Running {
        Running::start(&format!("type = 'file'\npath = '{}'\n{more}", self.path().display()), &self.dir.path().join("positions"))
    }
}

#[tokio::test]
async fn o3_a_file_is_followed_from_the_kept_position() {
    let followed = Followed::new();
    append(&followed.path(), "one\ntwo\nhal");
    let mut source = followed.start("");
    let records = source.records(2).await;
    assert_eq!(records.iter().map(|record| record.raw.as_slice()).collect::<Vec<_>>(), [b"one", b"two"]);
    assert!(records.iter().all(|record| record.trust == Trust::Verified && record.stream.ends_with("/messages")));
    let offsets: Vec<u64> =
        records.iter().map(|record| if let Some(RecordId::File { offset, .. }) = &record.id { *offset } else { panic!("a file's id") }).collect();
    assert_eq!(offsets, [0, 4]);
    assert_eq!(source.stop().await, [], "a last line without its newline waits");
    append(&followed.path(), "f\nfour\n");
    let mut source = followed.start("");
    assert_eq!(source.lines(2).await, ["half", "four"]);
    source.stop().await;
}

#[tokio::test]
async fn o3_a_position_is_kept_only_when_its_lines_are_safe() {
    let followed = Followed::new();
    append(&followed.path(), "one\n");
    let mut source = followed.start("");
    let unsafe_batch = tokio::time::timeout(PATIENCE, source.batches.recv()).await.unwrap().unwrap();
    let id = unsafe_batch.records[0].id.clone();
    drop(unsafe_batch);
    tokio::time::timeout(PATIENCE, &mut source.task).await.expect("an end in time").unwrap();
    let mut again = followed.start("");
    assert_eq!(again.records(1).await[0].id, id, "redelivered under the same id (O4)");
}

#[tokio::test]
async fn a_renamed_file_is_read_to_its_end_and_then_the_new_one() {
    let followed = Followed::new();
    append(&followed.path(), "one\n");
    let mut source = followed.start("");
    assert_eq!(source.lines(1).await, ["one"]);
    let old = followed.dir.path().join("messages.1");
    std::fs::rename(followed.path(), &old).unwrap();
    append(&old, "late\nlast without newline");
    append(&followed.path(), "new\n");
    assert_eq!(source.lines(3).await, ["late", "last without newline", "new"]);
    source.stop().await;
    // Renamed again while nobody looks.
    append(&followed.path(), "unseen\n");
    std::fs::rename(followed.path(), followed.dir.path().join("messages.1")).unwrap();
    append(&followed.path(), "newest\n");
    let mut source = followed.start("");
    assert_eq!(source.lines(2).await, ["unseen", "newest"]);
}

#[tokio::test]
async fn o4_a_truncated_file_is_read_anew_under_other_ids() {
    let followed = Followed::new();
    append(&followed.path(), "one\ntwo\n");
    let mut source = followed.start("");
    let before = source.records(2).await;
    // At once longer than what was read, so that its length tells nothing.
    std::fs::write(followed.path(), "uno\ndue\ntre\n").unwrap();
    let after = source.records(3).await;
    assert_eq!(after.iter().map(|record| record.raw.as_slice()).collect::<Vec<_>>(), [b"uno", b"due", b"tre"]);
    assert_ne!(before[0].id, after[0].id);
    source.stop().await;
    std::fs::write(followed.path(), "x\n").unwrap();
    let mut source = followed.start("");
    assert_eq!(source.lines(1).await, ["x"], "truncated while nobody looked");
}

/// Compresses a file as logrotate does: the time of its last writing is kept.
fn gzip(path: &Path) {
    let data = std::fs::read(path).unwrap();
    let written = path.metadata().unwrap().modified().unwrap();
    let to = std::fs::File::create(format!("{}.gz", path.display())).unwrap();
    let mut packed = flate2::write::GzEncoder::new(to, flate2::Compression::default());
    packed.write_all(&data).unwrap();
    packed.finish().unwrap().set_modified(written).unwrap();
    std::fs::remove_file(path).unwrap();
}

/// So that two files written one after the other have different times: file systems count them in ticks.
async fn a_tick() {
    tokio::time::sleep(Duration::from_millis(12)).await;
}

#[tokio::test]
async fn o3_files_rotated_while_nobody_looked_are_read_once_also_compressed() {
    let followed = Followed::new();
    let named = |name: &str| followed.dir.path().join(name);
    append(&followed.path(), "one\n");
    let mut source = followed.start("");
    assert_eq!(source.lines(1).await, ["one"]);
    source.stop().await;
    a_tick().await;
    append(&followed.path(), "two\nthree\n");
    for (rest, to) in [("four\n", "messages.3"), ("five\nsix\n", "messages.2"), ("seven\n", "messages-20260101")] {
        std::fs::rename(followed.path(), named(to)).unwrap();
        a_tick().await;
        append(&followed.path(), rest);
    }
    gzip(&named("messages.3"));
    gzip(&named("messages.2"));
    // Not of this log, older than what was read, and damaged.
    append(&named("messages-errors"), "other\n");
    std::fs::write(named("messages.4.gz"), "no gzip").unwrap();
    let mut source = followed.start("");
    assert_eq!(source.lines(6).await, ["two", "three", "four", "five", "six", "seven"]);
    source.stop().await;
    // Compressed by one that does not keep the time, and touched: they were read.
    let old = named("messages-20260101");
    gzip(&old);
    for name in ["messages.2.gz", "messages-20260101.gz", "messages.3.gz"] {
        std::fs::File::open(named(name)).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    }
    std::fs::rename(followed.path(), named("messages.1")).unwrap();
    a_tick().await;
    append(&followed.path(), "eight\n");
    let mut source = followed.start("");
    assert_eq!(source.lines(1).await, ["eight"]);
    assert_eq!(source.stop().await, []);
}

#[tokio::test]
async fn o3_rotated_files_of_one_tick_of_the_clock_are_all_read_in_the_order_of_their_numbers() {
    let followed = Followed::new();
    followed.start("").task.abort();
    let at = SystemTime::now() + Duration::from_secs(1);
    for n in [9, 10, 11, 2, 1] {
        let file = followed.dir.path().join(format!("messages.{n}"));
        std::fs::write(&file, format!("{n}\n")).unwrap();
        std::fs::File::options().write(true).open(file).unwrap().set_modified(at).unwrap();
    }
    gzip(&followed.dir.path().join("messages.9"));
    // No gzip: it is given up once.
    std::fs::write(followed.dir.path().join("messages.5.gz"), "x").unwrap();
    std::fs::File::options().write(true).open(followed.dir.path().join("messages.5.gz")).unwrap().set_modified(at).unwrap();
    append(&followed.path(), "new\n");
    let mut source = followed.start("");
    assert_eq!(source.lines(6).await, ["11", "10", "9", "2", "1", "new"]);
    source.stop().await;
    let mut source = followed.start("");
    append(&followed.path(), "newer\n");
    assert_eq!(source.lines(1).await, ["newer"]);
    assert_eq!(source.stop().await, []);
}

#[tokio::test]
async fn o3_what_was_copied_before_a_truncation_is_read_from_the_copy() {
    let followed = Followed::new();
    let copied = followed.dir.path().join("messages.1");
    append(&followed.path(), "one\ntwo\n");
    let mut source = followed.start("");
    let before = source.records(2).await;
    for (unread, new, running) in [("three\n", "uno\ndue\n", true), ("tre\n", "eins\nzwei\n", false)] {
        if !running {
            assert!(source.stop().await.is_empty());
            source = followed.start("");
            source.task.abort();
        }
        append(&followed.path(), unread);
        std::fs::copy(followed.path(), &copied).unwrap();
        a_tick().await;
        std::fs::write(followed.path(), new).unwrap();
        if !running {
            gzip(&copied);
            source = followed.start("");
        }
        let records = source.records(3).await;
        let text: String = records.iter().map(|record| String::from_utf8(record.raw.clone()).unwrap() + "\n").collect();
        assert_eq!(text, format!("{unread}{new}"));
        let file = |record: &Record| if let Some(RecordId::File { file, .. }) = &record.id { file.clone() } else { panic!("no file") };
        assert_ne!(file(&records[0]), file(&records[1]));
        if running {
            assert_eq!(file(&before[0]), file(&records[0]), "the copy has the ids of what it is a copy of");
        }
    }
}

#[tokio::test]
async fn o4_a_file_with_the_same_inode_and_header_is_another_one() {
    let followed = Followed::new();
    append(&followed.path(), "#fields a b\n1 2\n3 4\n");
    let mut source = followed.start("");
    let before = source.records(3).await;
    std::fs::write(followed.path(), "#fields a b\n5 6\n").unwrap();
    let after = source.records(2).await;
    assert_ne!(before[0].id, after[0].id);
    source.stop().await;
    std::fs::write(followed.path(), "#fields a b\n").unwrap();
    let mut source = followed.start("");
    let third = source.records(1).await;
    assert!(third[0].id != before[0].id && third[0].id != after[0].id, "truncated while nobody looked");
}

/// What happens to a log.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Lines(u8),
    Renamed,
    Copied,
    Compressed,
    /// The reader is killed and starts again; what it had handed over last is kept, or not.
    Killed(bool),
    /// Time passes.
    Look,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1u8..5).prop_map(Happens::Lines),
        2 => Just(Happens::Renamed),
        2 => Just(Happens::Copied),
        1 => Just(Happens::Compressed),
        2 => any::<bool>().prop_map(Happens::Killed),
        2 => Just(Happens::Look),
    ]
}

/// Rotates by number: what was `messages.1` becomes `messages.2`.
fn shift(folder: &Path) {
    let name = |n: usize, gz: &str| folder.join(format!("messages.{n}{gz}"));
    for n in (1..40).rev() {
        for gz in ["", ".gz"] {
            if name(n, gz).exists() {
                std::fs::rename(name(n, gz), name(n + 1, gz)).unwrap();
            }
        }
    }
}

/// Runs a source against a log to which this happens, and whose files begin with a header (which comes with a line: by itself it does not tell
/// one file from another); the lines that it kept, in order, those that the spool knows left out.
async fn kept_lines(header: &str, story: &[Happens]) -> (Vec<String>, usize) {
    let followed = Followed::new();
    let (mut written, mut known) = (0, BTreeMap::<Arc<str>, u64>::new());
    let mut kept = Vec::new();
    append(&followed.path(), "");
    let mut source = followed.start("");
    for event in story.iter().chain(&[Happens::Lines(1), Happens::Killed(true), Happens::Look]) {
        a_tick().await;
        let folder = followed.dir.path();
        match event {
            Happens::Lines(count) => {
                let begins = if followed.path().metadata().map_or(0, |data| data.len()) == 0 { header } else { "" };
                let lines: String = (0..*count).map(|n| format!("{}\n", written + usize::from(n))).collect();
                append(&followed.path(), &format!("{begins}{lines}"));
                written += usize::from(*count);
            }
            Happens::Renamed => {
                shift(folder);
                std::fs::rename(followed.path(), folder.join("messages.1")).unwrap();
                append(&followed.path(), "");
            }
            Happens::Copied => {
                shift(folder);
                std::fs::copy(followed.path(), folder.join("messages.1")).unwrap();
                OpenOptions::new().write(true).open(followed.path()).unwrap().set_len(0).unwrap();
            }
            Happens::Compressed => {
                (1..40).map(|n| folder.join(format!("messages.{n}"))).filter(|file| file.exists()).for_each(|file| gzip(&file));
            }
            Happens::Killed(acknowledged) => {
                // What was handed over is in the spool; whether the source heard of it is another matter.
                tokio::time::sleep(Duration::from_millis(30)).await;
                while let Ok(batch) = source.batches.try_recv() {
                    take(&batch, &mut known, &mut kept);
                    if let Some(done) = batch.done.filter(|_| *acknowledged) {
                        let _ = done.send(());
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                source.task.abort();
                source = followed.start("");
            }
            Happens::Look => look(&mut source, &mut known, &mut kept).await,
        }
    }
    // What is still to come has its time, also on a slow machine; and what comes twice.
    let start = Instant::now();
    while kept.iter().filter(|line| !line.starts_with('#')).count() < written && start.elapsed() < Duration::from_secs(20) {
        look(&mut source, &mut known, &mut kept).await;
    }
    look(&mut source, &mut known, &mut kept).await;
    source.task.abort();
    (kept, written)
}

/// Takes what comes until nothing comes for a while.
async fn look(source: &mut Running, known: &mut BTreeMap<Arc<str>, u64>, kept: &mut Vec<String>) {
    while let Ok(Some(batch)) = tokio::time::timeout(Duration::from_millis(450), source.batches.recv()).await {
        take(&batch, known, kept);
        batch.done.unwrap().send(()).unwrap();
    }
}

/// As the spool takes records (O4).
fn take(batch: &Batch, known: &mut BTreeMap<Arc<str>, u64>, kept: &mut Vec<String>) {
    for record in &batch.records {
        let Some(RecordId::File { file, offset }) = &record.id else { panic!("no file") };
        if known.get(file).is_none_or(|newest| newest < offset) {
            known.insert(file.clone(), *offset);
            kept.push(String::from_utf8(record.raw.clone()).unwrap());
        }
    }
}

/// On a clock that goes on only when everybody waits, so that it counts the waits of the source and not the work of the machine.
#[tokio::test(start_paused = true)]
async fn o3_files_that_were_rotated_long_ago_do_not_hold_up_the_lines_after_them() {
    let followed = Followed::new();
    let old = |n: u64| {
        let file = followed.dir.path().join(format!("messages.{n}"));
        std::fs::write(&file, if n.is_multiple_of(2) { String::new() } else { format!("{n}\n") }).unwrap();
        std::fs::File::open(file).unwrap().set_modified(SystemTime::now() + Duration::from_secs(60 - n)).unwrap();
    };
    followed.start("").task.abort();
    (1..30).for_each(old);
    append(&followed.path(), "new\n");
    let mut source = followed.start("");
    let start = tokio::time::Instant::now();
    assert_eq!(source.lines(16).await.last().unwrap(), "new");
    // Only of the newest it is not known whether its writer has let go of it.
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

proptest! {
    // A case takes seconds, since the source looks at its file five times a second.
    #![proptest_config(ProptestConfig { cases: if std::env::var("OPMAS_LONG").is_ok_and(|long| long == "1") { 200 } else { 6 }, max_shrink_iters: 12, ..ProptestConfig::default() })]

    #[test]
    fn o3_o4_whatever_rotation_and_kills_do_each_line_is_kept_once(
        story in proptest::collection::vec(happens(), 1..14), header in prop_oneof![Just(""), Just("#fields a b\n")]
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (kept, written) = runtime.block_on(kept_lines(header, &story));
        let numbers: Vec<usize> = kept.iter().filter(|line| !line.starts_with('#')).map(|line| line.parse().unwrap()).collect();
        prop_assert_eq!(numbers, (0..written).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn o3_what_is_written_behind_many_empty_rotations_is_read() {
    use Happens::{Copied, Killed, Lines, Renamed};
    let story = [Copied, Renamed, Renamed, Copied, Copied, Copied, Copied, Killed(false), Lines(2), Copied];
    assert_eq!(kept_lines("#fields a b\n", &story).await.0, ["#fields a b", "0", "1", "#fields a b", "2"]);
}

#[tokio::test]
async fn o3_what_was_copied_before_the_first_look_is_read_before_what_came_after_it() {
    use Happens::{Copied, Killed, Lines, Look, Renamed};
    let story = [Lines(4), Lines(2), Copied, Copied, Lines(3), Copied, Look, Lines(1), Renamed, Killed(true)];
    let (kept, written) = kept_lines("", &story).await;
    assert_eq!(kept, (0..written).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_may_begin_at_its_end_and_need_not_exist() {
    let followed = Followed::new();
    let mut source = followed.start("from = 'end'");
    append(&followed.path(), "made later\n");
    assert_eq!(source.lines(1).await, ["made later"]);
    source.stop().await;
    let other = Followed::new();
    append(&other.path(), "old\nolder\n");
    let mut source = other.start("from = 'end'\ntrusted = false");
    append(&other.path(), "new\n");
    let record = source.records(1).await.remove(0);
    assert_eq!((record.raw.as_slice(), record.trust), (b"new".as_slice(), Trust::Open));
}

#[tokio::test]
async fn a_long_line_of_a_file_is_cut_and_the_rest_skipped() {
    let followed = Followed::new();
    append(&followed.path(), &format!("{}\nnext\n", "a".repeat(3 << 20)));
    let mut source = followed.start("");
    let lines = source.lines(2).await;
    assert_eq!((lines[0].len(), lines[1].as_str()), ((1 << 20) + CUT_MARK.len(), "next"));
}

fn split(chunks: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut framer, mut messages) = (Framer::default(), Vec::new());
    chunks.for_each(|chunk| framer.push(&chunk, &mut messages));
    framer.finish(false, &mut messages);
    messages
}

/// One message and its framing.
fn framed() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let text = proptest::collection::vec(any::<u8>().prop_filter("no delimiter", |b| !matches!(b, b'\n' | b'\r' | 0)), 0..60);
    let message = text.prop_map(|text| [b"<13>".as_slice(), &text].concat());
    (message, 0..4).prop_map(|(message, framing)| {
        let octets = |message: &[u8], trailer: &[u8]| [(message.len() + trailer.len()).to_string().as_bytes(), b" ", message, trailer].concat();
        let framed = match framing {
            0 => [message.as_slice(), b"\n"].concat(),
            1 => [message.as_slice(), b"\0"].concat(),
            2 => octets(&message, b""),
            _ => octets(&message, b"\n"),
        };
        (message, framed)
    })
}

#[test]
fn a_long_message_is_cut_and_the_rest_skipped() {
    let long = vec![b'a'; MAX_FRAME + 10];
    let cut = [&long[..MAX_FRAME], CUT_MARK.as_bytes()].concat();
    assert_eq!(split([long.clone(), b"\nnext\n".to_vec()].into_iter()), [cut.clone(), b"next".to_vec()]);
    let counted = [b"100000 <".as_slice(), &vec![b'a'; 99_999], b"next"].concat();
    let messages = split([counted].into_iter());
    assert_eq!((messages.len(), messages[0].len(), messages[1].as_slice()), (2, cut.len(), b"next".as_slice()));
}

#[test]
fn digits_that_are_no_octet_count_are_text() {
    for text in ["12 monkeys", "12", "2026-11-21T13:08:05Z a: x", "0 <13>x", "12345678 <13>x", "12 ", " 12 <13>x"] {
        assert_eq!(split([format!("{text}\n").into_bytes()].into_iter()), [text.as_bytes()], "{text}");
    }
}

proptest! {
    #[test]
    fn x4_any_frames_in_any_chunking_come_out_the_same(frames in proptest::collection::vec(framed(), 0..12), chunk in 1usize..40) {
        let stream: Vec<u8> = frames.iter().flat_map(|(_, framed)| framed.clone()).collect();
        let expected: Vec<Vec<u8>> = frames.into_iter().map(|(message, _)| message).collect();
        prop_assert_eq!(split(stream.chunks(chunk).map(<[u8]>::to_vec)), expected);
    }

    #[test]
    fn any_bytes_are_split_the_same_however_they_come(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'<'), Just(b'1'), Just(b' ')], 0..400), chunk in 1usize..40) {
        prop_assert_eq!(split(bytes.chunks(chunk).map(<[u8]>::to_vec)), split(std::iter::once(bytes.clone())));
    }
}
