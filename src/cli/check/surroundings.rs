//! What `run` needs beside the configuration folder: addresses, files, folders.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Settings, Setup};
use crate::source::{self, BindError, SourceConfig};

/// Most files of `secrets/` that are looked at.
const MAX_SECRETS: usize = 1000;
/// Mode bits with which others than the owner read.
const OTHERS_READ: u32 = 0o044;

/// What would keep `run` from starting, one sentence each.
pub(super) fn wrong(setup: &Setup) -> Vec<String> {
    let settings = &setup.settings;
    let mut wrong: Vec<String> = settings.source.iter().filter_map(|(name, config)| source_error(name, config, settings)).collect();
    let unreadable = settings.broker.iter().flat_map(|(name, broker)| broker.unreadable().into_iter().map(move |what| format!("[broker.{name}] {what}")));
    wrong.extend(unreadable);
    wrong.extend(settings.endpoint.iter().flat_map(|(name, endpoint)| endpoint.unreadable().map(move |what| format!("[endpoint.{name}] {what}"))));
    // This reads the tokens of the pages and of sources too.
    wrong.extend(setup.api_tokens().err().map(|error| error.to_string()));
    if let Err(error) = has_address(settings.http.listen) {
        wrong.push(format!("[http] cannot listen on {}: {error}; correct `listen`", settings.http.listen));
    }
    let data = &settings.data_dir;
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if data.exists() && !data.is_dir() {
        wrong.push(format!("data_dir {} is no folder; name another", data.display()));
    } else if !parent.is_dir() {
        wrong.push(format!("data_dir {} cannot be made: there is no folder {}; make it or correct `data_dir`", data.display(), parent.display()));
    }
    wrong
}

fn source_error(name: &str, config: &SourceConfig, settings: &Settings) -> Option<String> {
    match config {
        SourceConfig::Syslog(syslog) => {
            let listen = |error| BindError::Listen { source_name: name.to_owned(), protocol: "udp", address: syslog.listen, error };
            let checked = has_address(syslog.listen).map_err(listen).and_then(|_| source::check_tls(name, syslog));
            checked.err().map(|error| error.to_string())
        }
        SourceConfig::Http(_) => None,
        SourceConfig::File(file) => source::check_file(name, file).err().map(|error| error.to_string()),
        // They take nothing that a running opmas has.
        SourceConfig::Kafka(_) | SourceConfig::Nats(_) | SourceConfig::Stdin => {
            let bound = source::bind(name, config, &settings.data_dir.join("positions"), &settings.broker);
            bound.err().map(|error| error.to_string())
        }
    }
}

/// Whether this machine has the address. The port may be in use: by an opmas that runs.
fn has_address(address: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::bind((address.ip(), 0))
}

/// A sentence for each file with a secret that others than its owner can read.
pub(super) fn readable_by_others(setup: &Setup) -> Vec<String> {
    let secrets = fs::read_dir(setup.paths.base.join("secrets")).into_iter().flatten().take(MAX_SECRETS).flatten().map(|entry| entry.path());
    let of_sources = setup.settings.source.values().filter_map(|source| match source {
        SourceConfig::Http(http) => Some(http.token_file.clone()),
        SourceConfig::Syslog(syslog) => syslog.tls.as_ref().map(|tls| tls.key_file.clone()),
        _ => None,
    });
    let files: BTreeSet<PathBuf> = secrets.chain(setup.settings.http.token_file.clone()).chain(of_sources).collect();
    let open = |path: &&PathBuf| fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & OTHERS_READ != 0);
    files.iter().filter(open).map(|path| format!("warning: {} can be read by others; chmod 600 it", path.display())).collect()
}
