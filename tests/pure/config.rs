//! A configuration folder through `opmas init` and `opmas check`: what is wrong is named with its remedy.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        let (code, said) = opmas(&["init", site.path("").to_str().unwrap()], Path::new("/"));
        assert_eq!(code, 0, "{said}");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("site").join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Exit code and everything said.
    fn check(&self) -> (i32, String) {
        opmas(&["check"], &self.path(""))
    }

    /// What a check says of another `opmas.toml`; it exits with 1.
    fn refused(&self, settings: &str) -> String {
        self.write("opmas.toml", settings);
        let (code, said) = self.check();
        assert_eq!(code, 1, "{said}");
        said
    }
}

fn opmas(arguments: &[&str], folder: &Path) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(folder).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stderr, output.stdout].concat()).unwrap())
}

#[test]
fn what_init_writes_is_right_and_its_secrets_are_private() {
    let site = Site::new();
    let (code, said) = site.check();
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("opmas:") && !said.contains("is not there"), "{said}");
    assert_eq!(fs::metadata(site.path("secrets")).unwrap().permissions().mode() & 0o777, 0o700);
    site.write("secrets/mail-password", "x");
    fs::set_permissions(site.path("secrets/mail-password"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = site.check();
    assert!(code == 0 && said.contains("warning: secrets/mail-password can be read by others; chmod 600 it"), "{said}");
}

#[test]
fn x1_a_file_that_cannot_be_read_is_named_and_the_rest_is_loaded() {
    let site = Site::new();
    let counts = |said: &str| said.lines().find(|line| line.contains(" rules, ")).unwrap().to_owned();
    let before = counts(&site.check().1);
    site.write("rules/bytes.yml", b"title: \xff");
    site.write("notifiers/bytes.toml", b"\xff");
    symlink("circle.rhai", site.path("playbooks/circle.rhai")).unwrap();
    fs::File::create(site.path("rules/large.yml")).unwrap().set_len(opmas::config::MAX_FILE_BYTES + 1).unwrap();
    symlink("nowhere.yml", site.path("rules/dangling.yml")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(site.path("rules/pipe.yml")).status().unwrap().success());
    let (code, said) = site.check();
    assert_eq!((code, counts(&said)), (1, before));
    for named in ["rules/dangling.yml: is a link to nothing", "rules/pipe.yml: is no regular file"] {
        assert!(said.contains(named), "{named}: {said}");
    }
    for named in
        ["rules/bytes.yml:1:8: is not UTF-8", "notifiers/bytes.toml:1:1: is not UTF-8", "playbooks/circle.rhai: cannot be read", "rules/large.yml: is larger"]
    {
        assert!(said.contains(named), "{named}: {said}");
    }
    fs::remove_dir_all(site.path("rules")).unwrap();
    site.write("rules", "");
    assert_eq!(site.check().0, 1, "a folder that cannot be listed");
}

#[test]
fn an_absent_folder_is_told_of() {
    let site = Site::new();
    fs::remove_dir_all(site.path("playbooks")).unwrap();
    let (code, said) = site.check();
    assert!(code == 0 && said.contains("playbooks/ is not there: the shipped ones are used"), "{said}");
}

#[test]
fn playbooks_that_opmas_brings_do_not_ask_for_rules_that_were_replaced() {
    let site = Site::new();
    for folder in ["rules", "playbooks"] {
        fs::remove_dir_all(site.path(folder)).unwrap();
    }
    fs::create_dir(site.path("rules")).unwrap();
    site.write("rules/own.yml", "title: Own\nlogsource: {product: acme}\ndetection: {s: {a: b}, condition: s}\n");
    let (code, said) = site.check();
    assert!(code == 0 && said.contains("playbooks/ is not there: the shipped ones are used"), "{said}");
}

#[test]
fn check_leaves_the_data_folder_as_it_is() {
    let site = Site::new();
    site.write("lines.log", "");
    site.write("opmas.toml", "data_dir = 'data'\n[source.a]\ntype = 'file'\npath = 'lines.log'\n");
    let (code, said) = site.check();
    assert!(code == 0 && !site.path("data").exists(), "{said}");
}

#[test]
fn check_finds_what_run_would_refuse() {
    let site = Site::new();
    let missing = site.refused("[http]\ntoken_file = 'nope'");
    assert!(missing.contains("opmas.toml:2:1: [http] token_file: cannot read nope: "), "{missing}");
    site.write("empty", "\n");
    assert!(site.refused("[http]\ntoken_file = 'empty'").contains("empty is empty; write a long random word"));
    assert!(site.refused("data_dir = '/nowhere/at/all'").contains("there is no folder /nowhere/at; make it"));
    assert!(site.refused("[source.a]\ntype = 'file'\npath = '/nowhere/log'").contains("/nowhere is no folder"));
    assert!(site.refused("[source.a]\ntype = 'file'\npath = '/proc'").contains("no regular file"));
    assert!(site.refused("[source.a]\ntype = 'syslog'\nlisten = '192.0.2.1:1514'").contains("192.0.2.1:1514: this machine has no such address"));
    assert!(site.refused("[http]\nlisten = '192.0.2.1:1'\ntoken_file = 'opmas.toml'").contains("[http] cannot listen on 192.0.2.1:1"));
    let script = fs::read_to_string(site.path("playbooks/block_source.rhai")).unwrap();
    site.write("playbooks/block_source.rhai", script.replacen("login_after_failures\"", "login_after_failure\"", 1));
    site.write("opmas.toml", "");
    let said = site.check();
    assert!(
        said.0 == 1 && said.1.contains("no rule `openwrt_ssh_login_after_failure` is loaded; did you mean `openwrt_ssh_login_after_failures`?"),
        "{said:?}"
    );
    assert!(said.1.contains("playbooks/block_source.rhai:3:1: "), "{said:?}");
}

#[test]
fn wrong_settings_are_told_with_the_remedy() {
    let site = Site::new();
    let whole = fs::read_to_string(site.path("opmas.toml")).unwrap();
    assert!(site.refused(&format!("{whole}\n[actions]\nblock_ip = 'auto'\n")).contains("`[actions]` is here a second time, first in line "));
    for posture in ["3", "'armde'"] {
        assert!(site.refused(&format!("posture = {posture}")).contains("is no posture; write \"observe\", \"guarded\" or \"armed\""));
    }
    assert!(site.refused("[http]\nlisten = '127.0.0.1'").contains("write \"127.0.0.1:9320\""));
    assert!(site.refused("[lease]\nverify_every = '1ms'").contains("opmas.toml:2:1: verify_every is too little; write \"1s\" or more"));
    for table in ["spool", "dead", "ledger"] {
        let refused = site.refused(&format!("[{table}]\nkeep = '0s'"));
        assert!(refused.contains(&format!("opmas.toml:2:1: [{table}] keep is too little")) && refused.contains("write \"1s\" or more"), "{refused}");
    }
    // What stands in the place of a secret may be the secret.
    let endpoint = "[endpoint.x]\nurl = 'https://x.example/'\n";
    for secret in ["'abc-123'", "1234567", "{ abc-123 = 'x' }", "{ file = 'a', abc-123 = 'b' }", "['abc-123']", "{ file = 1234567 }"] {
        for text in [format!("{endpoint}secrets = {{ Authorization = {secret} }}"), format!("[api.token]\nann = {secret}")] {
            let refused = site.refused(&text);
            assert!(refused.contains("{ file = \"PATH\" } or { env = \"NAME\" }"), "{text}: {refused}");
            assert!(!refused.contains("abc-123") && !refused.contains("1234567"), "{text}: {refused}");
        }
    }
    assert!(site.refused("[spool]\nkeep_bytes = 5").contains("opmas.toml:2:1: keep_bytes is too little; write 1048576 or more"));
    let (code, said) = opmas(&["--config", "rules", "check"], &site.path(""));
    assert!(code == 3 && said.contains("rules is a folder; name the file in it, such as rules/opmas.toml"), "{said}");
    fs::remove_file(site.path("opmas.toml")).unwrap();
    assert_eq!(site.check().0, 3);
}

#[test]
fn brokers_whose_address_would_show_a_password_or_has_no_port_are_refused() {
    let parsed = |servers: &str| {
        let text = format!("[broker.k]\ntype = \"kafka\"\nservers = [\"{servers}\"]\n");
        opmas::config::Settings::parse("opmas.toml", &text, std::path::Path::new("")).map(drop).map_err(|error| error.to_string())
    };
    assert!(parsed("kafka1.example.org:9092").is_ok());
    assert!(parsed("[2001:db8::1]:9092").is_ok());
    for wrong in ["kafka://u:S3cret@127.0.0.1:9092", "u:S3cret@127.0.0.1:9092"] {
        let refusal = parsed(wrong).unwrap_err();
        assert!(refusal.contains("password_file") && !refusal.contains("S3cret"), "{refusal}");
    }
    for wrong in ["kafka1", "kafka1:", ":9092", "kafka1:0", "kafka://kafka1:9092"] {
        assert!(parsed(wrong).unwrap_err().contains("host:9092"), "{wrong}");
    }
}
