//! The main job, whole: a router's own log lines, an attacker who guesses a password, a block that is read back, a mail, a webhook, a
//! message in Slack and an incident, and their end.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::router::{ATTACKER, MANAGER, OTHER, ROUTER, Router, eventually};
use crate::site::Site;
use crate::workspace::shown;

const SYSLOG: &str = "[source.routers]\ntype = 'syslog'\nlisten = '192.168.1.2:1514'\ntrusted = true";
const FAR: &str = "198.51.100.9";

/// An echo server in a namespace.
fn echo(router: &Router, at: &str, address: &str) {
    let listener = router.inside(at, || TcpListener::bind((address, 7000)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

fn connect(router: &Router, at: &str, address: &str) -> TcpStream {
    let stream = router.inside(at, || TcpStream::connect_timeout(&format!("{address}:7000").parse().unwrap(), Duration::from_secs(3)).unwrap());
    stream.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
    stream
}

/// Whether a byte comes back.
fn lives(mut stream: &TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

fn attack(router: &Router, from: &str, failures: usize) {
    for _ in 0..failures {
        assert!(!router.login(from, "wrong", "true"));
    }
    assert!(router.login(from, "secret", "true"));
}

#[test]
fn the_whole_loop() {
    let mut site = Site::new(SYSLOG, "25s");
    site.resolve_after("20s");
    site.start();
    let (code, said) = site.run(&["device", "check"]);
    assert_eq!(code, Some(0), "{said}");
    echo(&site.router, "rt", ROUTER);
    echo(&site.router, "fr", FAR);
    let streams = |at| [connect(&site.router, at, ROUTER), connect(&site.router, at, FAR)];
    let (attackers, others) = (streams("at"), streams("ot"));
    assert!(attackers.iter().chain(&others).all(lives), "everybody is connected before");

    // Five failures and a login: nothing.
    attack(&site.router, "ot", 5);
    std::thread::sleep(Duration::from_secs(2));
    assert!(site.metric("opmas_source_records_total") >= 6.0, "the router's lines arrive: {}", site.log());
    assert_eq!(site.metric("opmas_findings_total"), 0.0, "{}", site.log());

    // Six failures and a login: found, blocked, told.
    attack(&site.router, "at", 6);
    eventually(Duration::from_secs(10), "the attacker is not blocked", || site.blocked() == [ATTACKER]);
    let blocked = Instant::now();
    assert!(!attackers.iter().any(lives), "established connections of the attacker end, to the router and through it");
    assert!(!site.router.reaches("at", ROUTER), "new ones do not come about");
    assert!(others.iter().all(lives) && site.router.reaches("ot", ROUTER), "another client is not touched");

    // The firewall's own reload changes nothing; our table heals.
    site.router.device("fw4-reload");
    assert_eq!(site.blocked(), [ATTACKER]);
    assert!(!site.router.reaches("at", ROUTER));
    site.router.device("flush-ours");
    eventually(Duration::from_secs(10), "the block is not put back", || site.blocked() == [ATTACKER]);
    assert!(!site.router.reaches("at", ROUTER));
    assert!(blocked.elapsed() < Duration::from_secs(20), "all this happened while the block should hold");

    // At its end the attacker is let in.
    eventually(Duration::from_secs(40), "the block does not end", || site.blocked().is_empty());
    eventually(Duration::from_secs(5), "the attacker stays out", || site.router.reaches("at", ROUTER));

    // Told, once each.
    eventually(Duration::from_secs(10), "the messages", || site.mails().len() == 1 && site.hooks().len() == 1);
    let (mail, hook) = (&site.mails()[0], &site.hooks()[0]);
    assert!(hook.genuine, "{hook:?}");
    assert_eq!(hook.body["data"]["findings"][0]["group"]["src_ip"], ATTACKER);
    assert!(mail.contains(ATTACKER), "{mail}");
    told_and_over(&site);

    site.terminate();
    site.router.gone("mg", "-M", Duration::from_secs(5));
    for verify in [["store", "verify"], ["audit", "verify"]] {
        let (code, said) = site.run(&verify);
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!((site.mails().len(), site.hooks().len(), site.slack.calls().len()), (1, 1, 2));
    let _ = (OTHER, MANAGER);
}

/// The one alert of each channel is over: its message changed in place, its incident resolved under its key, no second mail.
fn told_and_over(site: &Site) {
    eventually(Duration::from_secs(30), "the end is not told", || site.hooked("alert.resolved").len() == 1 && site.slack.calls().len() == 2);
    assert_eq!(site.slack.calls(), ["chat.postMessage", "chat.update"]);
    let [message] = &site.messages(ATTACKER)[..] else { panic!("one message: {:?}", site.slack.messages()) };
    assert!(message["text"].as_str().unwrap().starts_with("[opmas] resolved: "), "{message}");
    assert!(shown(message).contains("block_source: block_ip"), "what was done is still there: {message}");
    eventually(Duration::from_secs(10), "the incident stays open", || site.incidents(ATTACKER).iter().all(|(_, incident)| !incident.open));
    let [(key, incident)] = &site.incidents(ATTACKER)[..] else { panic!("one incident") };
    assert_eq!(incident.events.iter().map(|event| event["event_action"].as_str().unwrap()).collect::<Vec<_>>(), ["trigger", "resolve"]);
    assert!(incident.events.iter().all(|event| event["dedup_key"] == *key));
    let (over, fired) = (&site.hooked("alert.resolved")[0], &site.hooks()[0]);
    assert!(over.genuine && over.id != fired.id);
    assert_eq!(over.body["data"]["of"]["alert"], fired.body["data"]["of"]["alert"]);
    assert_eq!(site.run(&["alert", "list", "--json"]), (Some(0), String::new()));
}

/// Six failures and a login from an address, as the router's log has them.
pub fn lines(address: &str) -> String {
    let failures = "<84>Nov 21 13:08:12 ap1 dropbear[27411]: Bad password attempt for 'root' from ADDRESS:50876\n".repeat(6);
    let all = failures + "<85>Nov 21 13:08:14 ap1 dropbear[27421]: Password auth succeeded for 'root' from ADDRESS:50880\n";
    all.replace("ADDRESS", address)
}

/// Numbers that are random enough for moments, and the same for the same seed.
pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn killed_at_random_moments_it_ends_right_and_nothing_is_done_twice() {
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    let moments = if std::env::var("OPMAS_LONG").as_deref() == Ok("1") { 100 } else { 20 };
    let mut seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut expected = Vec::new();
    for n in 1..=moments {
        site.start();
        let address = format!("203.0.113.{n}");
        let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
        log.write_all(lines(&address).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 700));
        site.kill();
        site.router.gone("mg", "-M", Duration::from_secs(5));
        expected.push(address);
    }
    site.start();
    expected.sort();
    eventually(Duration::from_secs(60), "the right end state", || site.blocked() == expected);
    let told = |id: &str| site.hooks().iter().any(|hook| hook.body["data"]["findings"][0]["group"]["src_ip"] == id);
    eventually(Duration::from_secs(60), "a webhook for each", || expected.iter().all(|address| told(address)));
    std::thread::sleep(Duration::from_secs(2));
    for address in &expected {
        let mut ids: Vec<String> =
            site.hooks().into_iter().filter(|hook| hook.body["data"]["findings"][0]["group"]["src_ip"] == **address).map(|hook| hook.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1, "a webhook is sent again only under its own id");
        // The address stands between words: 203.0.113.1 is no part of 203.0.113.10.
        let mails = site.mails().iter().filter(|mail| mail.contains(&format!("{address}:50880"))).count();
        assert!(mails <= 1, "{mails} mails about {address}");
        // O7: a new message that was cut is unknown, so there is one or none.
        let messages = site.messages(address).len();
        assert!(messages <= 1, "{messages} messages about {address}");
        let [(_, incident)] = &site.incidents(address)[..] else { panic!("one incident about {address}") };
        assert!(incident.open);
    }
    let (code, open) = site.run(&["alert", "list", "--limit", "1000", "--json"]);
    // So many sources are an alert of their own beside these.
    let logins = open.lines().filter(|line| line.contains("openwrt_ssh_login_after_failures")).count();
    assert_eq!((code, logins), (Some(0), 4 * expected.len()), "{open}");
    assert!(site.hooks().iter().all(|hook| hook.genuine));
    assert_eq!(site.metric("opmas_deliveries_failed"), 0.0);
    site.kill();
    site.router.gone("mg", "-M", Duration::from_secs(5));
    for verify in [["store", "verify"], ["audit", "verify"]] {
        let (code, said) = site.run(&verify);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn workers_executors_and_connections_killed_at_random_moments_leave_the_right_end_state() {
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    let moments = if std::env::var("OPMAS_LONG").as_deref() == Ok("1") { 90 } else { 18 };
    let mut seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    site.start();
    let (mut expected, mut killed) = (Vec::new(), [false; 3]);
    for n in 0..moments {
        let word = ["opmas-executor", "opmas-worker", "-M"][n % 3];
        // The first address has all of them started.
        if n > 0 {
            eventually(Duration::from_secs(30), word, || site.router.runs("mg", word));
        }
        let address = format!("203.0.113.{}", n + 1);
        let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
        log.write_all(lines(&address).as_bytes()).unwrap();
        expected.push(address);
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 400));
        for process in site.router.processes("mg").iter().filter(|process| process.words.iter().any(|w| w == word)) {
            killed[n % 3] |= site.router.command("mg", "kill").args(["-9", &process.pid.to_string()]).status().unwrap().success();
        }
    }
    assert_eq!(killed, [true; 3]);
    expected.sort();
    eventually(Duration::from_secs(120), "the right end state", || site.blocked() == expected);
    let rows = |args: &[&str]| -> Vec<Value> { site.run(args).1.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let runs = || rows(&["playbook", "runs", "--state", "done", "--limit", "1000", "--json"]);
    eventually(Duration::from_secs(120), "each run ends, and waits for nobody", || runs().len() == expected.len());
    assert_eq!(rows(&["lease", "list", "--json"]).len(), expected.len(), "nothing twice");
    for run in runs() {
        let (_, story) = site.run(&["playbook", "show", run["run"].as_str().unwrap()]);
        assert_eq!(story.matches("enforced at").count(), 1, "{story}");
    }
}

/// Deliveries to a channel that stand there, with their findings.
fn deliveries(site: &Site, channel: &str, state: &str) -> Vec<Value> {
    let (code, said) = site.run(&["delivery", "list", "--limit", "1000", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let all = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|row| row["channel"] == channel && row["state"] == state).collect()
}

#[test]
fn o7_killed_at_random_moments_each_alert_fires_once_and_is_over_once() {
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    site.resolve_after("3s");
    let moments = if std::env::var("OPMAS_LONG").as_deref() == Ok("1") { 50 } else { 5 };
    let mut seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let addresses: Vec<String> = (1..=moments).map(|n| format!("203.0.113.{n}")).collect();
    for address in &addresses {
        site.start();
        let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
        log.write_all(lines(address).as_bytes()).unwrap();
        // Alerts of this round and of the one before end within it.
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 7_000));
        site.kill();
        site.router.gone("mg", "-M", Duration::from_secs(5));
    }
    site.start();
    let over = |address: &String| {
        let hooked = site.hooked("alert.resolved").iter().any(|hook| hook.body["data"]["findings"][0]["group"]["src_ip"] == **address);
        hooked && matches!(&site.incidents(address)[..], [(_, incident)] if !incident.open)
    };
    eventually(Duration::from_secs(90), "every alert is over", || addresses.iter().all(over));
    eventually(Duration::from_secs(30), "all is told", || {
        site.run(&["alert", "list"]).1.lines().count() == 1 && deliveries(&site, "slack", "waiting").is_empty()
    });
    let unknown = deliveries(&site, "slack", "unknown");
    assert!(unknown.iter().all(|row| row["tells"] == "firing"), "a change is made again: {unknown:?}");
    for address in &addresses {
        let fired: Vec<_> = site.hooks().into_iter().filter(|hook| hook.body["data"]["findings"][0]["group"]["src_ip"] == **address).collect();
        let cut = unknown.iter().any(|row| row["findings"][0] == fired[0].body["data"]["findings"][0]["id"]);
        let messages = site.messages(address);
        let texts: Vec<&str> = messages.iter().map(|message| message["text"].as_str().unwrap()).collect();
        let ended = texts.iter().filter(|text| text.starts_with("[opmas] resolved: ")).count();
        // At most once: a new message that was cut is unknown and not repeated; its end is then a message of its own.
        assert!(ended == 1 && texts.len() <= 1 + usize::from(cut), "{address}, cut: {cut}: {texts:?}");
        let [(key, incident)] = &site.incidents(address)[..] else { panic!("one incident about {address}") };
        assert!(incident.events.iter().all(|event| event["dedup_key"] == *key));
        let mut ends: Vec<String> = site
            .hooked("alert.resolved")
            .into_iter()
            .filter(|hook| hook.body["data"]["of"]["alert"] == fired[0].body["data"]["of"]["alert"])
            .map(|hook| hook.id)
            .collect();
        ends.dedup();
        assert_eq!(ends.len(), 1, "its end is sent again only under its own id");
        let mails = site.mails().iter().filter(|mail| mail.contains(&format!("{address}:50880"))).count();
        assert!(mails <= 1, "{mails} mails about {address}");
    }
    site.terminate();
    let (code, said) = site.run(&["audit", "verify"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn hostile_log_values_reach_the_device_only_as_data() {
    let mut site = Site::new(SYSLOG, "1h");
    site.start();
    let canary = site.router.root().join("tmp/pwned");
    let hostile = [
        "'; touch /tmp/pwned; '",
        "$(touch /tmp/pwned)",
        "`touch /tmp/pwned`",
        "root' from 8.8.8.8:22",
        "x' from 8.8.8.8:22 ",
        "\u{1b}[2J\";drop table",
        "{{8*8}}",
        "203.0.113.250",
    ];
    let socket = site.router.inside("rt", || UdpSocket::bind((ROUTER, 0)).unwrap());
    let mut expected = Vec::new();
    for (n, value) in hostile.iter().enumerate() {
        let address = format!("203.0.113.{}", n + 1);
        // In the user name, the host name, the program's pid and the port; the address stays the last one of the line.
        for line in lines(&address).replace("'root'", &format!("'{value}'")).lines() {
            socket.send_to(line.as_bytes(), (MANAGER, 1514)).unwrap();
        }
        for line in lines("198.18.0.1").replace(" ap1 ", &format!(" {value} ")).lines() {
            socket.send_to(line.as_bytes(), (MANAGER, 1514)).unwrap();
        }
        for line in lines(&format!("198.18.0.{}{value}", n + 2)).lines() {
            socket.send_to(line.as_bytes(), (MANAGER, 1514)).unwrap();
        }
        expected.push(address);
    }
    eventually(Duration::from_secs(20), "every real source is blocked", || expected.iter().all(|address| site.blocked().contains(address)));
    std::thread::sleep(Duration::from_secs(2));
    let blocked = site.blocked();
    assert!(!blocked.iter().any(|address| address == "8.8.8.8" || address == "203.0.113.250"), "{blocked:?}");
    assert!(!canary.exists());
    assert!(!site.dir.join("pwned").exists() && !std::path::Path::new("/tmp/pwned").exists());
    eventually(Duration::from_secs(20), "mails", || site.mails().len() >= hostile.len());
    for mail in site.mails() {
        let header = mail.split("\r\n\r\n").next().unwrap();
        assert!(!header.contains('\u{1b}') && header.lines().filter(|line| line.starts_with("Subject:")).count() == 1, "{header}");
    }
    // A user name that is the real thing, through the real dropbear.
    let mut ssh = site.router.command("at", "ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
        "-l",
        "root' from 8.8.8.8:22",
        ROUTER,
        "true",
    ]);
    assert!(!ssh.output().unwrap().status.success());
    assert!(!site.blocked().contains(&"8.8.8.8".to_owned()));
}

#[test]
fn a_device_out_of_reach_is_waited_for_and_an_end_that_was_missed_is_made_up_for() {
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "40s");
    site.start();
    let append = |text: String| fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap().write_all(text.as_bytes()).unwrap();
    site.router.device("cut");
    append(lines("203.0.113.1"));
    eventually(Duration::from_secs(20), "people hear of it all the same", || site.hooks().len() == 1);
    assert!(site.blocked().is_empty());
    eventually(Duration::from_secs(40), "the status names the device", || {
        site.ready().is_some_and(|ready| ready["reasons"].to_string().contains("step on ap1"))
    });
    site.router.device("join");
    eventually(Duration::from_secs(20), "the block is made when the device is back", || site.blocked() == ["203.0.113.1"]);
    eventually(Duration::from_secs(20), "and read back", || site.metric("opmas_leases_active") == 1.0);
    // Away at the end: the router ends the block by itself, and opmas looks after it later.
    site.router.device("cut");
    eventually(Duration::from_secs(40), "the status names the device", || {
        site.ready().is_some_and(|ready| ready["status"] == "degraded" && ready["reasons"].to_string().contains("device ap1"))
    });
    eventually(Duration::from_secs(80), "the router ends it by itself", || site.blocked().is_empty());
    site.router.device("join");
    eventually(Duration::from_secs(60), "the lease ends", || {
        site.ready().is_some_and(|ready| ready["status"] == "ready") && site.metric("opmas_leases_active") == 0.0
    });
}
