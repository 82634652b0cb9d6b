//! The main job over a real broker: the router's lines come from it, what is found goes back to it; the block and the messages are the
//! same as ever.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use opmas::journal::LedgerReader;
use opmas::model::Decided;

use crate::kafka_server::{Kafka, PASSWORD};
use crate::nats_server::NatsServer;
use crate::publish::{published, topic};
use crate::router::{ATTACKER, ROUTER, Router, eventually};
use crate::site::Site;
use crate::whole::lines;

/// Long enough for a machine that does other things too.
const SOON: Duration = Duration::from_secs(60);
/// The rule that the shipped playbook listens to.
const RULE: &str = "openwrt_ssh_login_after_failures";

/// Makes a port of this machine's loopback reachable on the manager's, byte for byte.
fn tunnel(router: &Router, port: u16) {
    let listener = router.inside("mg", || TcpListener::bind(("127.0.0.1", port)).unwrap());
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
}

/// How often each finding is in the ledger, and the ids of those of [`RULE`].
fn found(site: &Site) -> (BTreeMap<String, u32>, Vec<String>) {
    let (mut all, mut attacks) = (BTreeMap::new(), Vec::new());
    for entry in LedgerReader::open(&site.dir.join("opmas-data/ledger"), 0).unwrap() {
        if let opmas::journal::Content::Decided(one) = entry.unwrap().content
            && let Decided::Finding { finding } = *one
        {
            *all.entry(finding.id.0.to_string()).or_default() += 1;
            attacks.extend((finding.rule.name.as_deref() == Some(RULE)).then(|| finding.id.0.to_string()));
        }
    }
    (all, attacks)
}

/// What must have come of the lines of one attack: one block, one message a channel, and `back`, the findings on the broker, once each.
fn done_and_told(site: &mut Site, back: impl Fn() -> BTreeMap<String, u32>) {
    eventually(SOON, "the attacker is not blocked", || site.blocked() == [ATTACKER]);
    assert!(!site.router.reaches("at", ROUTER), "the block is not only in the list");
    eventually(SOON, "the messages", || site.mails().len() == 1 && site.hooks().len() == 1);
    assert!(site.hooks()[0].genuine && site.mails()[0].contains(ATTACKER));
    eventually(SOON, "the finding does not come back", || back().len() == found(site).0.len());
    // All that it published stands in what it reads: dropped, counted, and nothing new comes of it.
    eventually(SOON, "its own messages are not read", || site.metric("opmas_source_own_total") >= back().len() as f64);
    std::thread::sleep(Duration::from_secs(3));
    let (all, attacks) = found(site);
    assert_eq!(attacks.len(), 1);
    assert_eq!(back(), all, "each finding of the ledger, once");
    assert_eq!(site.hooks()[0].body["data"]["findings"][0]["id"], attacks[0].as_str());
    assert_eq!((site.mails().len(), site.hooks().len(), site.slack.calls().len()), (1, 1, 1));
    assert_eq!(site.metric("opmas_source_records_total"), 7.0, "nothing goes round");
    site.terminate();
    for verify in [["store", "verify"], ["audit", "verify"]] {
        let (code, said) = site.run(&verify);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn the_loop_over_nats() {
    let server = NatsServer::new();
    let client = server.client();
    let tables = format!("{}[source.bus]\ntype = 'nats'\ntrusted = true\n[publish.site]\n", server.broker(""));
    let mut site = Site::new(&tables, "1h");
    tunnel(&site.router, server.port);
    site.start();
    eventually(SOON, "no stream was made", || client.stream("LOGS").is_some());
    client.publish("logs.ap1", lines(ATTACKER).lines().map(str::to_owned));
    done_and_told(&mut site, || published(&client));
    client.all_acknowledged("LOGS");
}

#[test]
fn the_loop_over_kafka_with_tls_and_a_password() {
    let kafka = Kafka::start();
    ["logs", "findings.correlated", "findings.audit"].iter().for_each(|name| kafka.make_topic(name, 1));
    let mut password = tempfile::NamedTempFile::new().unwrap();
    password.write_all(PASSWORD.as_bytes()).unwrap();
    let source = "[source.bus]\ntype = 'kafka'\nlogs = ['logs']\nfindings = ['^findings\\.']\n[publish.site]\n";
    let mut site = Site::new(&format!("{}{source}", kafka.secure_table(password.path())), "1h");
    tunnel(&site.router, kafka.secure_port());
    site.start();
    kafka.produce("logs", 0, lines(ATTACKER).lines());
    done_and_told(&mut site, || topic(&kafka, "findings.correlated").into_iter().map(|(key, (times, _))| (key, times)).collect());
    assert_eq!(kafka.committed("opmas", "logs", 0), Some(7));
    assert!(!fs::read_to_string(site.dir.join("opmas.log")).unwrap().contains(PASSWORD));
}
