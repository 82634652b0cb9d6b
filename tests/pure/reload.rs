//! What changes on disk goes live in a running opmas.

mod running;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opmas::engine::Pipeline;
use opmas::engine::pipeline::Settings;
use opmas::journal::{Content, DataDir, LedgerReader, Revisions, SpoolReader};
use opmas::model::{Decided, Entry, EntryBody, Inventory, RevisionKind, Time};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::sigma::RuleSet;

use opmas::diag::SourceFile;
use running::{Hooks, Running, eventually};

/// `n` makes each text another one, `kind` and `threshold` what it finds.
fn rules(n: usize, kind: &str, threshold: usize) -> String {
    format!(
        "title: Hit {n}\nname: hit\nlogsource:\n  product: shop\ndetection:\n  selection:\n    kind: {kind}\n  condition: selection\n---\n\
         title: Many\nname: many\ncorrelation:\n  type: event_count\n  rules:\n    - hit\n  group-by:\n    - user\n  timespan: 2s\n  condition:\n    gte: {threshold}\nlevel: medium\n"
    )
}

/// A rule that reports every event of a kind.
fn one_rule(name: &str, kind: &str) -> String {
    format!("title: {name}\nname: {name}\nlogsource:\n  product: shop\ndetection:\n  selection:\n    kind: {kind}\n  condition: selection\nlevel: medium\n")
}

/// A text with an unknown key, whose line is `n` + 2.
fn broken(n: usize) -> String {
    format!("{}opmas:\n  min_event: 3\n{}", "#\n".repeat(n), rules(n, "a", 2))
}

fn spool(data: &DataDir) -> Vec<Entry> {
    SpoolReader::open(&data.spool(), 0).unwrap().map(|entry| entry.unwrap()).collect()
}

/// The ids of all findings, in the ledger's order.
fn findings(data: &DataDir) -> Vec<String> {
    let entries = LedgerReader::open(&data.ledger(), 0).unwrap().map(|entry| entry.unwrap().content);
    let finding = |content| match content {
        Content::Decided(decided) => match *decided {
            Decided::Finding { finding } => Some(finding.id.0.to_string()),
            _ => None,
        },
        _ => None,
    };
    entries.filter_map(finding).collect()
}

fn kept(revisions: &Revisions, hash: &str) -> Vec<SourceFile> {
    let pairs: Vec<(String, String)> = serde_json::from_slice(&revisions.read(hash).unwrap()).unwrap();
    pairs.into_iter().map(|(name, text)| SourceFile { name: name.into(), text: text.into() }).collect()
}

/// What the spool alone gives, each revision from its entry on.
fn replayed(data: &DataDir) -> Vec<String> {
    let options = Options { node: data.node().clone(), ..Options::at(Time(0)) };
    let normaliser = Normaliser::new(Arc::new(Extractors::default()), options);
    let mut pipeline = Pipeline::new(Arc::new(RuleSet::default()), normaliser, Arc::new(Inventory::default()), Settings::default()).unwrap();
    let revisions = Revisions::new(data);
    let mut ids = Vec::new();
    for entry in spool(data) {
        if let EntryBody::Revision(revision) = &entry.body {
            match revision.kind {
                RevisionKind::Rules => {
                    let loaded = opmas::sigma::load(&kept(&revisions, &revision.hash));
                    assert_eq!(loaded.diagnostics, [], "only what loads goes live");
                    pipeline.set_rules(Arc::new(loaded.set)).unwrap();
                }
                RevisionKind::Extractors => pipeline.set_extractors(Arc::new(Extractors::load(&kept(&revisions, &revision.hash)).0)),
                RevisionKind::Inventory => pipeline.set_inventory(Arc::new(serde_json::from_slice(&revisions.read(&revision.hash).unwrap()).unwrap())),
            }
        }
        ids.extend(pipeline.entry(&entry).iter().filter_map(|found| Some(pipeline.finding(found)?.id.0.to_string())));
    }
    ids
}

#[test]
fn o2_c13_a_rule_file_edited_again_and_again_while_events_flow() {
    let edits = if std::env::var("OPMAS_LONG").is_ok_and(|long| long == "1") { 1_000 } else { 100 };
    let mut running = Running::new();
    let first = rules(0, "a", 2);
    running.write("rules/shop.yml", &first);
    running.start();
    let feeder = running.feed();
    let mut texts = vec![first];
    for n in 1..=edits {
        let done = running.metric("opmas_reloads_total", "part=\"rules\",result=\"ok\"");
        if n % 10 == 0 {
            running.write("rules/shop.yml", &broken(n));
            let wrong = format!("rules/shop.yml:{}:3: unknown key `min_event`; did you mean `min_events`?", n + 2);
            eventually(&format!("edit {n} is not named"), || running.log().contains(&format!("{wrong}; its last good version runs on")));
            eventually("the status does not name it", || running.reason("rules").is_some_and(|text| text.contains(&wrong)));
            assert_eq!(running.metric("opmas_files_quarantined", "part=\"rules\""), 1.0);
            continue;
        }
        texts.push(rules(n, if n / 4 % 2 == 0 { "a" } else { "b" }, 2 + n % 3));
        if n % 2 == 0 {
            running.write("rules/shop.yml", &texts[texts.len() - 1]);
        } else {
            running.write("rules/.shop.new", &texts[texts.len() - 1]);
            fs::rename(running.path("rules/.shop.new"), running.path("rules/shop.yml")).unwrap();
        }
        eventually(&format!("edit {n} is not live"), || running.metric("opmas_reloads_total", "part=\"rules\",result=\"ok\"") > done);
        eventually("the status still names it", || running.reason("rules").is_none());
    }
    let lines = feeder.end();
    eventually("every line is in the spool", || running.metric("opmas_source_records_total", "") as usize == lines.len());
    let log = running.terminate();
    let data = DataDir::open_read_only(&running.path("opmas-data")).unwrap();
    let (mut raw, mut live) = (Vec::new(), Vec::new());
    for entry in spool(&data) {
        match entry.body {
            EntryBody::Record(record) => raw.push(String::from_utf8(record.raw).unwrap()),
            EntryBody::Revision(revision) if revision.kind == RevisionKind::Rules => {
                live.extend(kept(&Revisions::new(&data), &revision.hash).into_iter().map(|file| file.text.to_string()));
            }
            _ => {}
        }
    }
    assert!(raw == lines, "{} of {} lines; {log}", raw.len(), lines.len());
    assert_eq!(live, texts, "each good text went live once, no broken one did");
    let found = findings(&data);
    assert!(found.len() > edits / 10, "{} findings in {} lines", found.len(), lines.len());
    assert_eq!(replayed(&data), found);
}

#[test]
fn a_link_that_leads_elsewhere_is_followed() {
    let mut running = Running::new();
    // As a Kubernetes ConfigMap is mounted, and one folder that is a link itself.
    for (version, kind) in [("1", "a"), ("2", "b"), ("3", "c")] {
        running.write(&format!("rules/..v{version}/shop.yml"), &one_rule("seen", kind));
        running.write(&format!("n{version}/hook.toml"), &format!("integration = \"webhook\"\nenabled = false\nurl = \"https://example.org/{version}\"\n"));
    }
    symlink("..v1", running.path("rules/..data")).unwrap();
    symlink("..data/shop.yml", running.path("rules/shop.yml")).unwrap();
    symlink("n1", running.path("notifiers")).unwrap();
    running.start();
    let swap = |link: &str, to: &str| {
        symlink(to, running.path("swap")).unwrap();
        fs::rename(running.path("swap"), running.path(link)).unwrap();
    };
    for version in ["2", "3"] {
        for (link, to, part) in [("rules/..data", format!("..v{version}"), "rules"), ("notifiers", format!("n{version}"), "channels")] {
            let (done, at) = (running.reloads(part), Instant::now());
            swap(link, &to);
            eventually(&format!("{link} to {to} is not live"), || running.reloads(part) > done);
            assert!(at.elapsed() < Duration::from_millis(2_500), "{link} to {to} was live only after {:?}", at.elapsed());
        }
    }
    // What a link led to goes on being watched, where it leads now.
    let done = running.reloads("channels");
    running.write("n3/hook.toml", "integration = \"webhook\"\nenabled = false\nurll = \"https://example.org/\"\n");
    eventually("the fault is not named", || {
        running.reason("channels").is_some_and(|why| why.contains("notifiers/hook.toml:3:1: unknown key `urll`; did you mean `url`?"))
    });
    assert!(running.reloads("channels") > done);
    running.event("c", "ann");
    eventually("no finding", || running.metric("opmas_findings_total", "") == 1.0);
}

#[test]
fn a_hangup_has_it_read_at_once_and_folders_may_come_and_go() {
    let mut running = Running::new();
    running.start();
    let shipped = running.metric("opmas_rules_loaded", "");
    assert!(shipped > 2.0, "without a folder of one's own the shipped rules run");
    // A text that only a link leads to, where no watch is.
    let far = tempfile::tempdir().unwrap();
    fs::write(far.path().join("far.yml"), one_rule("far", "a")).unwrap();
    fs::create_dir(running.path("made")).unwrap();
    symlink(far.path().join("far.yml"), running.path("made/far.yml")).unwrap();
    fs::rename(running.path("made"), running.path("rules")).unwrap();
    eventually("the new folder is not live", || running.metric("opmas_rules_loaded", "") == 1.0);
    let two = format!("{}---\n{}", one_rule("far", "a"), one_rule("near", "b"));
    for (text, count) in [(two.clone(), 2.0), (one_rule("far", "a"), 1.0), (two, 2.0)] {
        let at = Instant::now();
        fs::write(far.path().join("far.yml"), text).unwrap();
        running.hang_up();
        eventually("it is not live", || running.metric("opmas_rules_loaded", "") == count);
        assert!(at.elapsed() < Duration::from_millis(1_500), "live only after {:?}", at.elapsed());
    }
    // Without a hangup it is found, too.
    fs::write(far.path().join("far.yml"), one_rule("far", "a")).unwrap();
    eventually("it is not found by looking", || running.metric("opmas_rules_loaded", "") == 1.0);
    fs::remove_dir_all(running.path("rules")).unwrap();
    eventually("the shipped rules are not back", || running.metric("opmas_rules_loaded", "") == shipped);
}

#[test]
fn channels_and_routes_change_while_alerts_go_out_and_a_broken_one_stays_as_it_was() {
    let hooks = Hooks::listen();
    let mut running = Running::new();
    running.write("rules/shop.yml", &one_rule("seen", "a"));
    running.write("secret", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let channel = |enabled: bool| format!("integration = 'webhook'\nenabled = {enabled}\nurl = '{}'\nsecret_file = 'secret'\n", hooks.url);
    running.write("notifiers/hook.toml", &channel(false));
    running.write("notifiers/routes.toml", "[[route]]\nname = 'all'\nmatch = { severity = '>=1' }\nchannels = ['hook']\n");
    running.start();
    running.event("a", "first");
    eventually("no finding", || running.metric("opmas_findings_total", "") == 1.0);
    let change = |name: &str, text: &str, part: &str| {
        let done = running.reloads(part);
        running.write(name, text);
        eventually(&format!("{name} is not read"), || running.reloads(part) > done);
    };
    change("notifiers/hook.toml", &channel(true), "channels");
    running.event("a", "second");
    eventually("the enabled channel is not told", || hooks.bodies().len() == 1);
    change("notifiers/hook.toml", &channel(true).replace("secret_file", "secret_flie"), "channels");
    let why = running.reason("channels").unwrap();
    assert!(why.contains("notifiers/hook.toml:4:1: unknown key `secret_flie`; did you mean `secret_file`?; its last good version runs on"), "{why}");
    change("notifiers/routes.toml", "[[route]]\nname = 'all'\nchanels = ['hook']\n", "routes");
    assert!(running.reason("routes").unwrap().contains("notifiers/routes.toml:3:1: unknown key `chanels`; did you mean `channels`?"));
    running.event("a", "third");
    eventually("the last good channel is not told", || hooks.bodies().len() == 2);
    change("notifiers/routes.toml", "[[route]]\nname = 'nobody'\nchannels = []\n", "routes");
    assert_eq!(running.reason("routes"), None);
    running.event("a", "fourth");
    eventually("no finding", || running.metric("opmas_findings_total", "") == 4.0);
    let log = running.terminate();
    let bodies = hooks.bodies();
    assert!(bodies.len() == 2 && bodies[0].contains("second") && bodies[1].contains("third"), "{bodies:?} {log}");
}

#[test]
fn a_channel_that_is_not_there_is_left_out_of_its_routes_and_named() {
    let hooks = Hooks::listen();
    let mut running = Running::new();
    running.write("rules/shop.yml", &one_rule("seen", "a"));
    running.write("secret", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let channel = format!("integration = 'webhook'\nenabled = true\nurl = '{}'\nsecret_file = 'secret'\n", hooks.url);
    running.write("notifiers/hook.toml", &channel);
    running.write("notifiers/other.toml", &channel);
    running.write("notifiers/routes.toml", "[[route]]\nname = 'all'\nchannels = ['hoook', 'other', 'hook']\n");
    running.start();
    let named = |channel: &str| {
        running.reason("routes").is_some_and(|why| why.contains(&format!("no channel is named `{channel}`")) && why.ends_with("it is left out"))
    };
    assert!(named("hoook") && running.log().contains("notifiers/routes.toml:3:13: no channel is named `hoook`"), "{:?}", running.reason("routes"));
    running.event("a", "first");
    eventually("the others are not told", || hooks.bodies().len() == 2);
    fs::remove_file(running.path("notifiers/other.toml")).unwrap();
    running.write("notifiers/routes.toml", "[[route]]\nname = 'all'\nchannels = ['other', 'hook']\n");
    eventually("the deleted one is not named", || named("other"));
    running.terminate();
    running.start();
    running.event("a", "second");
    eventually("the one that is left is not told", || hooks.bodies().len() == 3);
}

#[test]
fn a_broken_file_runs_on_as_it_was_across_a_restart_and_what_needs_one_says_so() {
    let mut running = Running::new();
    running.write("rules/one.yml", &one_rule("one", "a"));
    running.write("rules/two.yml", &one_rule("two", "b"));
    running.start();
    running.write("rules/one.yml", "title: [\n");
    eventually("the fault is not named", || running.reason("rules").is_some_and(|why| why.contains("rules/one.yml:") && why.contains("last good")));
    running.terminate();
    running.start();
    eventually("the fault is not named", || running.reason("rules").is_some_and(|why| why.contains("rules/one.yml:") && why.contains("last good")));
    running.event("a", "ann");
    eventually("the last good version finds nothing", || running.metric("opmas_findings_total", "rule=\"one\"") == 1.0);
    fs::remove_file(running.path("rules/one.yml")).unwrap();
    eventually("a deleted file is not gone", || running.metric("opmas_rules_loaded", "") == 1.0 && running.reason("rules").is_none());

    running.write("devices.toml", "[[device]]\nname = 'ap1'\nhots = '192.0.2.1'\n");
    eventually("the fault is not named", || {
        running.reason("devices").is_some_and(|why| why.contains("devices.toml:3:1: unknown key `hots`; did you mean `host`?"))
    });
    running.write("devices.toml", "[[device]]\nname = 'ap1'\nhost = '192.0.2.1'\n");
    eventually("the fault is still named", || running.reason("devices").is_none());

    for (part, name, text, wrong) in [
        (
            "playbooks",
            "playbooks/p.rhai",
            "/*---\ntitle = 'p'\non = { rule = 'one' }\nmoed = 'observe'\nactions = []\n---*/\n",
            "4:1: unknown key `moed`; did you mean `mode`?",
        ),
        ("actions", "playbooks/actions/x.toml", "titel = 'x'\n", "1:1: unknown key `titel`; did you mean `title`?"),
        ("extractors", "rules/extractors/e.toml", "[extractor]\nprogramm = ['x']\n", "rules/extractors/e.toml:"),
    ] {
        running.write(name, text);
        eventually(&format!("the fault of {name} is not named"), || running.reason(part).is_some_and(|why| why.contains(name) && why.contains(wrong)));
        fs::remove_file(running.path(name)).unwrap();
        eventually(&format!("the fault of {name} is still named"), || running.reason(part).is_none());
    }

    let settings = fs::read_to_string(running.path("opmas.toml")).unwrap();
    running.write("opmas.toml", &format!("posture = 'guarded'\n{settings}"));
    eventually("nobody says that it takes a restart", || running.reason("configuration").is_some_and(|why| why.contains("restart opmas to apply it")));
    running.write("opmas.toml", &format!("postrue = 'guarded'\n{settings}"));
    eventually("nobody says that it is broken", || running.reason("configuration").is_some_and(|why| why.contains("opmas.toml:1:1: unknown key `postrue`")));
    running.write("opmas.toml", &settings);
    eventually("it is as it was", || running.reason("configuration").is_none());
    running.terminate();
    let data = DataDir::open_read_only(&running.path("opmas-data")).unwrap();
    let inventory = |entry: &Entry| matches!(&entry.body, EntryBody::Revision(revision) if revision.kind == RevisionKind::Inventory);
    assert_eq!(spool(&data).iter().filter(|entry| inventory(entry)).count(), 2, "none at first, then one device");
    assert_eq!(replayed(&data), findings(&data));
}

#[test]
fn a_request_has_it_read_at_once_and_says_what_is_live() {
    let mut running = Running::new();
    running.write("rules/one.yml", &one_rule("one", "a"));
    running.start();
    let done = running.reloads("rules");
    running.write("rules/one.yml", &one_rule("one", "b"));
    running.write("rules/two.yml", &one_rule("two", "c").replace("level", "levle"));
    running.write("rules/three.yml", &one_rule("three", "c").replace("logsource", "logsorce"));
    let answer = running.post("/-/reload");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let live: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(live["rules"], 2, "{live}");
    let refused = live["refused"].as_array().unwrap();
    assert!(refused.len() == 1 && refused[0].as_str().unwrap().starts_with("rules/three.yml:1:1: this document has no `logsource`"), "{live}");
    assert!(running.reloads("rules") > done, "it is done when it is answered");
    // What comes after the answer is judged by the new rules.
    running.event("b", "ann");
    eventually("no finding", || running.metric("opmas_findings_total", "rule=\"one\"") == 1.0);
    running.write("opmas.toml", &fs::read_to_string(running.path("opmas.toml")).unwrap());
    assert!(running.page("/-/reload").is_empty(), "only a POST does it");
    let log = running.terminate();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn pipelines_and_placeholders_go_live_with_the_rules_and_each_rule_is_counted() {
    let mut running = Running::new();
    let settings = fs::read_to_string(running.path("opmas.toml")).unwrap();
    running.write("opmas.toml", &format!("{settings}[sigma]\npipelines = ['own']\n[sigma.placeholders]\nkinds = ['a', 'b']\n"));
    let pipeline = |field: &str| format!("transformations:\n  - {{type: field_name_mapping, mapping: {{Sort: {field}}}}}\n");
    running.write("rules/pipelines/own.yml", &pipeline("user"));
    running.write("rules/shop.yml", &one_rule("seen", "a").replace("kind: a", "Sort|expand: '%kinds%'"));
    running.start();
    running.event("b", "a");
    eventually("no finding by the mapping", || running.metric("opmas_rule_matches_total", "rule=\"seen\"") == 1.0);
    let done = running.reloads("rules");
    running.write("rules/pipelines/own.yml", &pipeline("kind"));
    eventually("the other mapping is not live", || running.reloads("rules") > done);
    running.event("b", "zzz");
    eventually("no finding by the other mapping", || running.metric("opmas_rule_matches_total", "rule=\"seen\"") == 2.0);
    running.write("rules/pipelines/own.yml", "transformations: [{type: field_name_maping}]\n");
    let wrong = "rules/pipelines/own.yml:1:26: unknown transformation `field_name_maping`; did you mean `field_name_mapping`?";
    eventually("the fault is not named", || running.reason("rules").is_some_and(|why| why.contains(wrong) && why.contains("last good version runs on")));
    running.write("rules/shop.yml", "title: [\n");
    eventually("the fault is not named", || running.reason("rules").is_some_and(|why| why.contains("so are 1 other files")));
    // More than a sample takes.
    (0..130).for_each(|_| running.event("a", "zzz"));
    eventually("not all is computed", || running.metric("opmas_rule_matches_total", "rule=\"seen\"") == 132.0);
    let rules = running.opmas(&["rule", "list", "--running", "--json"]);
    let row: serde_json::Value = serde_json::from_str(&rules).unwrap();
    assert_eq!((&row["rule"], &row["matches"], &row["file"]), (&"seen".into(), &132.into(), &"rules/shop.yml".into()), "{rules}");
    assert!(row["last_match"].is_string() && row["cost"].as_f64().unwrap() > 0.0, "{rules}");
    assert!(row["error"].as_str().unwrap().starts_with("rules/shop.yml:"), "{rules}");
    let told = || findings(&DataDir::open_read_only(&running.path("opmas-data")).unwrap());
    eventually("not all is recorded", || told().len() == 132);
    let told = told();
    running.terminate();
    assert_eq!(replayed(&DataDir::open_read_only(&running.path("opmas-data")).unwrap()), told, "the spool alone gives the same");
}

#[test]
fn nothing_is_read_again_without_a_change() {
    let mut running = Running::new();
    running.write("rules/shop.yml", &one_rule("seen", "a"));
    running.start();
    let done = running.reloads("rules");
    running.write("notes.txt", "not ours");
    running.write("rules/shop.cases.yml", "cases: []\n");
    running.write("rules/shop.yml", &one_rule("seen", "a"));
    running.hang_up();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(running.reloads("rules"), done);
    assert!(Path::new(&running.path("notes.txt")).exists());
}
