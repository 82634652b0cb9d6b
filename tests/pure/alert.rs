//! Channels, messages, signatures, and the outbox. What needs a server is in `tests/live`.

mod channels;
mod follow;
mod messages;
mod outbox;
mod signatures;

use std::path::Path;

use opmas::alert::{Channels, Loaded};
use opmas::diag::SourceFile;
use opmas::model::Finding;

fn finding() -> Finding {
    serde_json::from_str(include_str!("../data/finding.json")).unwrap()
}

/// Channel files by name and text.
fn load(files: &[(&str, &str)]) -> Loaded {
    let files: Vec<SourceFile> = files.iter().map(|(name, text)| SourceFile { name: format!("notifiers/{name}.toml").into(), text: (*text).into() }).collect();
    Channels::load(&files, Path::new("/etc/opmas"))
}

const MAIL: &str = "integration = 'email'\nhost = '127.0.0.1'\ntls = 'none'\nfrom = 'a@example.org'\nto = ['b@example.org']";
const HOOK: &str = "integration = 'webhook'\nurl = 'http://127.0.0.1:9/'\nsecret_file = 'hook'";

fn channels() -> Channels {
    let loaded = load(&[("mail", MAIL), ("hook", HOOK)]);
    assert_eq!(loaded.diagnostics, []);
    loaded.channels
}
