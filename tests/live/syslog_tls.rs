//! Syslog over TLS (RFC 5425), sent with openssl's client.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use opmas::model::Trust;

use crate::certificates;
use crate::router::eventually;
use crate::station::Station;

/// What openssl sends with these options: whether the server took the connection to its end.
fn send(port: u16, options: &[&str], text: &str) -> bool {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_return_error", "-quiet", "-no_ign_eof"]);
    let mut client = client.args(options).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let sent = client.stdin.take().unwrap().write_all(text.as_bytes());
    client.wait().unwrap().success() && sent.is_ok()
}

/// The lines of the source in the spool, with their trust.
fn lines(station: &Station) -> Vec<(String, Trust)> {
    station.records().filter(|record| &*record.source == "routers").map(|record| (String::from_utf8_lossy(&record.raw).into_owned(), record.trust)).collect()
}

fn failed(station: &Station) -> u64 {
    let (_, metrics) = station.http("/metrics").unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("opmas_source_handshakes_failed_total{source=\"routers\"} ").map(str::to_owned));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_certificate_makes_what_comes_verified_and_nobody_else_gets_in() {
    let mut station = Station::new();
    let dir = station.dir.clone();
    let made = certificates::make(&dir);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let source = |ca: &str| format!("[source.routers]\ntype = 'syslog'\nlisten = '127.0.0.1:{port}'\ncert_file = 'server.pem'\nkey_file = 'server.key'\n{ca}");
    station.configure(&source("ca_file = 'ca.pem'\n"));
    fs::write(dir.join("lines.log"), "").unwrap();
    let (code, said) = station.run(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("source routers: ") && said.contains("certificate"), "{said}");
    station.start();
    let (authority, client, stranger) = (made.authority.to_str().unwrap(), made.client.to_str().unwrap(), made.stranger.to_str().unwrap());

    // Both of RFC 5425's and OpenWrt's ways to frame, in TLS 1.3 and 1.2.
    assert!(send(port, &["-CAfile", authority, "-cert", client, "-tls1_3"], "17 <30>Nov 21 one: 1<30>Nov 21 two: 2\n"));
    assert!(send(port, &["-CAfile", authority, "-cert", client, "-tls1_2"], "<30>Nov 21 three: 3\n"));
    // No certificate, one of nobody's, no TLS at all.
    send(port, &["-CAfile", authority], "<30>Nov 21 none: 1\n");
    send(port, &["-CAfile", authority, "-cert", stranger], "<30>Nov 21 stranger: 1\n");
    TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"<30>Nov 21 plain: 1\n").unwrap();
    eventually(Duration::from_secs(20), "refused handshakes are not counted", || failed(&station) == 3);
    eventually(Duration::from_secs(20), "the lines are not there", || lines(&station).len() == 3);
    station.terminate();
    let expected = ["<30>Nov 21 one: 1", "<30>Nov 21 two: 2", "<30>Nov 21 three: 3"];
    assert_eq!(lines(&station), expected.map(|line| (line.to_owned(), Trust::Verified)));

    // Without an authority a client needs no certificate, and nobody knows who it is.
    station.configure(&source(""));
    station.start();
    assert!(send(port, &["-CAfile", authority], "<30>Nov 21 open: 1\n"));
    eventually(Duration::from_secs(20), "the line is not there", || lines(&station).len() == 4);
    station.terminate();
    assert_eq!(lines(&station)[3], ("<30>Nov 21 open: 1".to_owned(), Trust::Open));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let station = Station::new();
    let made = certificates::make(&station.dir);
    fs::write(station.dir.join("lines.log"), "").unwrap();
    fs::write(station.dir.join("empty.pem"), "").unwrap();
    for (keys, said) in [
        ("cert_file = 'server.pem'", "`cert_file` and `key_file` go together"),
        ("ca_file = 'ca.pem'", "`cert_file` and `key_file` go together"),
        ("cert_file = 'server.pem'\nkey_file = 'server.key'\ntcp = false", "TLS is spoken over TCP"),
        ("cert_file = 'missing.pem'\nkey_file = 'server.key'", "missing.pem"),
        ("cert_file = 'empty.pem'\nkey_file = 'server.key'", "empty.pem holds no certificate"),
        ("cert_file = 'server.pem'\nkey_file = 'ca.pem'", "ca.pem holds no key"),
        ("cert_file = 'server.pem'\nkey_file = 'client.key'", "do not fit together"),
        ("cert_file = 'server.pem'\nkey_file = 'server.key'\nca_file = 'opmas.toml'", "opmas.toml holds no certificate"),
    ] {
        station.configure(&format!("[source.routers]\ntype = 'syslog'\nlisten = '127.0.0.1:0'\n{keys}\n"));
        let (code, text) = station.run(&["check"]);
        assert_eq!(code, Some(1), "{keys}: {text}");
        assert!(text.contains(said) && !text.contains("PRIVATE"), "{keys}: {text}");
    }
    assert!(made.key.exists());
}
