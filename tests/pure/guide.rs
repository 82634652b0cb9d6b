//! The user's guide is followed to the letter, each page in an empty folder, in a network of its own. And what the documents say of
//! commands, metrics, fields and reasons is what there is.

mod book;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compose::{exported, metrics_named};
use crate::schema::commands;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn pages() -> Vec<PathBuf> {
    fs::read_dir(root().join("docs/guide")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A shell in network and process namespaces of its own, so that no port is taken and nothing is left behind.
fn shell() -> Command {
    let mut shell = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        shell.arg("--map-root-user");
    }
    shell.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "--norc", "-c", "ip link set lo up && exec bash --norc \"$0\""]);
    shell
}

fn follow(page: &str) {
    book::follow(&root().join("docs/guide").join(page), shell, &["run"], "");
}

macro_rules! followed {
    ($($name:ident = $page:literal),* $(,)?) => {
        $(#[test] fn $name() { follow($page); })*
        const FOLLOWED: &[&str] = &[$($page),*];
    };
}

followed! {
    first_router = "first-router.md",
    first_alert = "first-alert.md",
    writing_a_rule = "writing-a-rule.md",
    approving_an_action = "approving-an-action.md",
    writing_a_playbook = "writing-a-playbook.md",
    writing_an_action = "writing-an-action.md",
    writing_an_extractor = "writing-an-extractor.md",
    adding_a_channel = "adding-a-channel.md",
    connecting_a_broker = "connecting-a-broker.md",
    sending_logs_over_http = "sending-logs-over-http.md",
    replaying = "replaying.md",
    syslog_over_tls = "syslog-over-tls.md",
    operating = "operating.md",
}

/// What no test runs, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("uci set system", "runs on OpenWrt itself, whose uci is in no package"),
    ("channel test email", "needs a mail provider; tests/live/mail.rs sends to a real server"),
    ("nats stream add", "needs the nats tool; tests/live/nats.rs makes streams of all kinds"),
    ("channel test duty", "needs the n8n of the example; tests/live/webhook.rs sends to a real receiver"),
];

#[test]
fn every_page_is_followed_and_every_command_is_run_or_excused() {
    let mut run = 0;
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(FOLLOWED.contains(&name), "{name}");
        for block in book::blocks(&fs::read_to_string(&page).unwrap()) {
            let place = format!("{name}:{}", block.line);
            match (block.language.as_str(), block.mark.as_str()) {
                ("sh", "run") => run += 1,
                // tests/live/guide.rs
                ("sh", "router") => assert_eq!(name, "first-router.md", "{place}"),
                ("sh", "elsewhere") => assert!(ELSEWHERE.iter().any(|(words, _)| block.text.contains(words)), "{place}: say why no test runs it"),
                ("sh", mark) => panic!("{place}: `{mark}` is none of run, router, elsewhere"),
                ("text", mark) => assert_eq!(mark, "prints", "{place}"),
                (_, mark) => assert!(mark.starts_with("file="), "{place}: `{mark}` names no file"),
            }
        }
    }
    assert!(run > 25, "{run}");
}

#[test]
fn every_link_of_the_documents_leads_to_a_file() {
    let mut seen = 0;
    for page in pages().into_iter().chain(["README.md", "docs/fields.md", "docs/semantics.md"].map(|name| root().join(name))) {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|target| !target.starts_with("http")) {
            assert!(page.parent().unwrap().join(target).exists(), "{}: {target}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
    let readme = read("README.md");
    for page in FOLLOWED {
        assert!(readme.contains(&format!("docs/guide/{page}")), "README.md leads to {page}");
    }
}

/// The words in backticks of a table's first column.
fn first_column(text: &str, heading: &str) -> BTreeSet<String> {
    let table = text.split(heading).nth(1).unwrap_or_else(|| panic!("no table `{heading}`")).lines().skip(2).take_while(|line| line.starts_with('|'));
    table.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_metric_is_explained_and_every_explained_metric_is_there() {
    assert_eq!(first_column(&read("docs/guide/operating.md"), "| metric | labels | meaning |"), exported());
}

#[test]
fn every_metric_that_a_document_names_is_there() {
    let exported = exported();
    for page in pages() {
        // A metric is a word of its own; files and others have what follows.
        let text = fs::read_to_string(&page).unwrap();
        let named = metrics_named(&text).into_iter().filter(|name| name.ends_with("_total") || name.contains("seconds"));
        named.for_each(|name| assert!(exported.contains(&name), "{}: {name}", page.display()));
    }
}

#[test]
fn every_reason_of_readyz_is_explained() {
    let explained = first_column(&read("docs/guide/operating.md"), "| `part` of a reason | gravity | what to do |");
    let files = fs::read_dir(root().join("src/engine")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let sources: String = files.map(|path| fs::read_to_string(path).unwrap().split("#[cfg(test)]").next().unwrap().to_owned()).collect();
    let literal: Vec<&str> = sources.split("status.set(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(literal.len() >= 12, "{literal:?}");
    let revisions = ["rules revision", "extractors revision", "inventory revision"];
    for part in literal.into_iter().chain(revisions).chain([
        "rules",
        "extractors",
        "playbooks and channels",
        "device NAME",
        "reaching NAME",
        "channel NAME",
        "step on NAME",
        "publish NAME",
        "forward",
        "publish NAME reading",
        "windows over source NAME",
    ]) {
        assert!(explained.contains(part), "{part} is not explained: {explained:?}");
    }
}

/// The commands in a document: `opmas WORD …` in backticks or at the start of a line of a block.
fn named(text: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for rest in text.split(['`', '\n']).filter_map(|piece| piece.trim_start().strip_prefix("opmas ")) {
        let words = rest.split(' ').take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
        found.insert(words.map(|word| word.trim_end_matches([';', ',', '.']).to_owned()).collect());
    }
    found
}

#[test]
fn every_command_that_a_document_names_is_there() {
    let all = commands();
    let mut seen = 0;
    for page in pages().into_iter().chain([root().join("README.md")]) {
        for words in named(&fs::read_to_string(&page).unwrap()).iter().filter(|words| !words.is_empty()) {
            assert!(all.contains(&words[0]), "{}: opmas {}", page.display(), words.join(" "));
            // `device add\|check\|list` in a table.
            for verb in words.get(1).into_iter().flat_map(|verbs| verbs.split("\\|")) {
                if ["device", "channel", "store", "audit", "config"].contains(&&*words[0]) {
                    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args([&words[0], verb, "--help"]).output().unwrap();
                    assert!(output.status.success(), "{}: opmas {} {verb}", page.display(), words[0]);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn fields_md_names_every_field_and_action_of_the_shipped_extractors() {
    let text = read("docs/fields.md");
    let named: BTreeSet<&str> = text.split('`').skip(1).step_by(2).flat_map(|words| words.split([' ', ','])).collect();
    let mut seen = 0;
    for entry in fs::read_dir(root().join("rules/extractors")).unwrap() {
        let path = entry.unwrap().path();
        let table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        for pattern in table["pattern"].as_array().unwrap() {
            let action = pattern.get("action").and_then(|action| action.as_str());
            let examples = pattern["example"].as_array().unwrap().iter().filter_map(|example| example.get("fields")?.as_table());
            let fields = examples.flat_map(|fields| fields.keys().map(String::as_str));
            for name in action.into_iter().chain(fields) {
                assert!(named.contains(name), "{}: `{name}` is not in docs/fields.md", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}
