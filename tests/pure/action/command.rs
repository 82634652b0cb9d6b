//! `opmas action list|show` as a user runs it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::all;

fn opmas(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn x1_the_catalogue_is_listed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("opmas.toml"), "[actions]\nblock_ip = 'auto'\n").unwrap();
    let (code, said, _) = opmas(dir.path(), &["action", "list", "--json"]);
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let (catalogue, row) = (all(), |name: &str| rows.iter().find(|row| row["name"] == name).unwrap());
    assert_eq!((code, names), (0, catalogue.iter().map(|action| &*action.name).collect::<Vec<_>>()));
    assert_eq!((&row("block_ip")["ceiling"], &row("reboot")["ceiling"], &row("reboot")["risk"]), (&"auto".into(), &"observe".into(), &"high".into()));
    assert_eq!((&row("block_ip")["lease"], &row("unblock_ip")["ends"]), (&"duration".into(), &"block_ip".into()));
    assert_eq!(row("ban_station")["renew"], "30m");
    assert!(row("ping")["platforms"][0]["apply"].as_array().unwrap().is_empty());

    let (code, said, _) = opmas(dir.path(), &["action", "show", "block_subnet"]);
    assert_eq!(code, 0);
    for words in [
        "net: Which network",
        "guarded",
        "on linux\n",
        "add element inet opmas nets${net.version}_${net.length} { ${net.network} timeout ${duration.seconds}s }",
        "undoes",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, said, _) = opmas(dir.path(), &["action", "show", "set_channel", "--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&said).unwrap()["platforms"][0]["confirm"].as_array().unwrap().len()), (0, 1));
    let (code, _, wrong) = opmas(dir.path(), &["action", "show", "blok_ip"]);
    assert_eq!((code, wrong.as_str()), (2, "opmas: there is no action `blok_ip`; did you mean `block_ip`?\n"));

    // A folder of the user's own takes the place of the shipped one; a broken file is named.
    fs::create_dir_all(dir.path().join("playbooks/actions")).unwrap();
    fs::write(dir.path().join("opmas.toml"), "").unwrap();
    fs::write(dir.path().join("playbooks/actions/mine.toml"), "title = 'x'\n").unwrap();
    let (code, said, wrong) = opmas(dir.path(), &["action", "list", "--json"]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(wrong.contains("playbooks/actions/mine.toml:"), "{wrong}");
}

/// Every action says what it is, reads back, and its commands can be made of its parameters on each platform.
#[test]
fn every_shipped_action_is_complete() {
    for action in all().iter() {
        assert!(!action.title.is_empty() && !action.description.is_empty(), "{}", action.name);
        assert!(action.params.iter().all(|param| !param.description.is_empty()), "{}", action.name);
        assert!(action.platforms().next().is_some(), "{}", action.name);
        if let Some(ends) = &action.ends {
            assert_eq!(all().get(ends).unwrap().idempotence, action.idempotence, "{}", action.name);
        }
    }
}
