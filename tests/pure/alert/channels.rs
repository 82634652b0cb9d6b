//! Channel files: what is accepted, and what is said about what is not.

use std::path::Path;

use opmas::alert::{Channels, Notice, Repeat};
use opmas::diag::SourceFile;
use opmas::model::Time;

use proptest::prelude::*;

use super::{HOOK, MAIL, finding, load};

fn faults(text: &str) -> Vec<String> {
    load(&[("x", text)]).diagnostics.iter().map(ToString::to_string).collect()
}

fn fault(text: &str) -> String {
    let faults = faults(text);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].clone()
}

#[test]
fn the_shipped_channels_load_and_are_disabled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("notifiers");
    let files: Vec<SourceFile> = ["email", "pagerduty", "routes", "slack", "webhook"]
        .map(|name| SourceFile {
            name: format!("notifiers/{name}.toml").into(),
            text: std::fs::read_to_string(folder.join(name).with_extension("toml")).unwrap().into(),
        })
        .to_vec();
    let loaded = Channels::load(&files, "".as_ref());
    assert_eq!(loaded.diagnostics, []);
    let listed: Vec<_> = loaded.channels.iter().map(|c| (&*c.name, c.enabled, c.integration.name(), c.integration.target(), c.integration.repeat())).collect();
    let email = ("email", false, "email", "mail.example.org:587".to_owned(), Repeat::Never);
    let pagerduty = ("pagerduty", false, "pagerduty", "https://events.pagerduty.com".to_owned(), Repeat::ByKey);
    let slack = ("slack", false, "slack", "https://slack.com".to_owned(), Repeat::Never);
    let webhook = ("webhook", false, "webhook", "https://hooks.example.org".to_owned(), Repeat::ByKey);
    assert_eq!(listed, [email, pagerduty, slack, webhook]);
}

#[tokio::test]
async fn nothing_is_sent_to_a_disabled_channel() {
    let loaded = load(&[("x", &format!("{MAIL}\nenabled = false"))]);
    let channel = loaded.channels.get("x").unwrap();
    let error = channel.prepare(&Notice::test("x", Time(0)), "id", Time(0)).await.unwrap_err();
    assert_eq!(error.detail, "notifiers/x.toml:6:11: channel x is disabled; fill the file in and set `enabled = true`");
}

#[test]
fn a_broken_file_costs_nothing_else_and_its_name_stays_known() {
    let loaded = load(&[("a", MAIL), ("b", "integration = 'emial'"), ("c", HOOK), ("routes", "not a channel")]);
    assert_eq!(loaded.channels.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(loaded.channels.names().iter().map(|n| &**n).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(loaded.diagnostics[0].to_string(), "notifiers/b.toml:1:15: no integration is named `emial`; did you mean `email`?");
    let twice = load(&[("a", MAIL), ("old/a", HOOK)]);
    assert_eq!(twice.diagnostics[0].to_string(), "notifiers/old/a.toml: a second channel is named `a`, after notifiers/a.toml; rename one of the files");
    assert_eq!(twice.channels.get("a").unwrap().integration.name(), "email");
}

#[test]
fn faults_of_email_channels_name_their_place_and_the_remedy() {
    let with = |line: &str| fault(&format!("{MAIL}\n{line}"));
    assert_eq!(with("hots = 1"), "notifiers/x.toml:6:1: unknown key `hots`; did you mean `host`?");
    let far = MAIL.replace("127.0.0.1", "mail.example.org");
    let unencrypted = "notifiers/x.toml:3:7: mail to mail.example.org would go unencrypted; write `tls = \"starttls\"` or `\"implicit\"`, or `insecure = true`";
    assert_eq!(fault(&far), unencrypted);
    assert!(faults(&format!("{far}\ninsecure = true")).is_empty());
    assert!(faults(&MAIL.replace("127.0.0.1", "::1")).is_empty());
    assert!(with("username = 'u'").contains(":6:12: a user name without a password; write `password_file"));
    assert!(with("password_env = 'P'").contains("a password without a user name"));
    assert!(with("username = 'u'\npassword_env = 'P'\npassword_file = 'p'").contains("both `password_file` and `password_env` are given"));
    assert!(with("password = 'hunter2'").contains("unknown key `password`"));
    assert!(with("timeout = '2h'").contains(":6:11: a timeout of 2h; write one up to 10m"));
    assert!(
        fault(&MAIL.replace("b@example.org", "b@exa\\nmple.org\\r\\nBcc: x@example.org").replace("['", "[\"").replace("']", "\"]"))
            .contains("is no mail address")
    );
    assert!(fault(&MAIL.replace("['b@example.org']", "[]")).contains("0 recipients; name 1 to 50"));
    assert!(fault(&MAIL.replace("127.0.0.1", "[::1]:25")).contains("is no host"));
    assert!(fault("host = 'x'").contains("the key `integration` is missing"));
}

#[test]
fn faults_of_webhook_channels_name_their_place_and_the_remedy() {
    let url = |url: &str| faults(&HOOK.replace("http://127.0.0.1:9/", url));
    assert_eq!(
        url("http://hooks.example.org/x"),
        ["notifiers/x.toml:2:7: messages to hooks.example.org would go unencrypted; write `https://`, or `insecure = true`"]
    );
    assert_eq!(url("ftp://hooks.example.org/x"), ["notifiers/x.toml:2:7: `ftp:` is not spoken here; write `https://host/path`"]);
    assert!(url("https://user:pass@hooks.example.org/x")[0].contains("holds a user name or password"));
    assert!(url("hooks.example.org")[0].contains("this is no URL"));
    // What only looks like this machine is not.
    for far in ["http://127.0.0.1.example.org/", "http://localhost.example.org/", "http://128.0.0.1/"] {
        assert_eq!(url(far).len(), 1, "{far}");
    }
    for near in ["http://localhost:80/", "http://[::1]:80/", "http://127.9.9.9/", "http://[::ffff:127.0.0.1]/", "https://hooks.example.org/x"] {
        assert_eq!(url(near), [""; 0], "{near}");
    }
    assert!(fault(&HOOK.replace("secret_file = 'hook'", "")).contains("the signing secret is missing; write `secret_file"));
    assert!(fault(&format!("{HOOK}\nsecret = 'whsec_x'")).contains("unknown key `secret`"));
}

#[test]
fn faults_of_slack_and_pagerduty_channels_name_their_place_and_the_remedy() {
    let duty = "integration = 'pagerduty'\nrouting_key_file = 'key'";
    let slack = "integration = 'slack'\nchannel = '#alerts'\ntoken_env = 'TOKEN'";
    assert_eq!((faults(duty), faults(slack)), (vec![], vec![]));
    assert_eq!(
        fault("integration = 'pagerduty'"),
        "notifiers/x.toml:1:15: the routing key is missing; write `routing_key_file = \"…\"` or `routing_key_env = \"…\"`"
    );
    assert!(fault(&format!("{duty}\nrouting_key_env = 'K'")).contains("both `routing_key_file` and `routing_key_env` are given; keep one of them"));
    assert!(fault(&format!("{duty}\nrouting_key = 'K'")).contains(":3:1: unknown key `routing_key`; did you mean `routing_key_"));
    assert_eq!(
        fault(&format!("{duty}\nurl = 'http://pd.example.org/'")),
        "notifiers/x.toml:3:7: messages to pd.example.org would go unencrypted; write `https://`, or `insecure = true`"
    );
    for near in ["http://127.0.0.1:9/v2", "https://events.eu.pagerduty.com/v2/enqueue"] {
        assert_eq!(faults(&format!("{duty}\nurl = '{near}'")), [""; 0], "{near}");
    }
    assert!(fault(&slack.replace("token_env = 'TOKEN'", "")).contains("the bot token is missing; write `token_file"));
    assert!(fault(&format!("{slack}\ntoken = 'xoxb-1'")).contains("unknown key `token`"));
    assert!(fault(&slack.replace("channel = '#alerts'\n", "")).contains("channel"));
    for bad in ["", "#", "# alerts", "C01/2", "<!here>"] {
        let said = fault(&slack.replace("#alerts", bad));
        assert_eq!(said, format!("notifiers/x.toml:2:11: `{bad}` is no Slack channel; write its id such as `C0123456789`, or `#name`"));
    }
    assert_eq!(
        faults(&slack.replace("#alerts", "").replace("token_env", "timeout = '1h'\nurl = 'x'\ntoken_env")).len(),
        3,
        "all faults of a file are told at once"
    );
}

#[test]
fn a_secret_of_the_wrong_kind_is_told_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let check = |text: &str, secret: &str| {
        std::fs::write(&path, secret).unwrap();
        let loaded = load(&[("x", &text.replace("FILE", &path.display().to_string()))]);
        loaded.channels.get("x").unwrap().check().map_err(|fault| fault.to_string())
    };
    let duty = "integration = 'pagerduty'\nrouting_key_file = 'FILE'";
    assert_eq!(check(duty, "e93facc04764012d7bfb002500d5d1a6\n"), Ok(()));
    for wrong in ["e93facc04764012d7bfb002500d5d1a", "u+e93facc04764012d7bfb002500d5d1"] {
        assert!(check(duty, wrong).unwrap_err().ends_with("copy the integration key of an Events API v2 integration"));
        assert!(!check(duty, wrong).unwrap_err().contains("e93f"));
    }
    let slack = "integration = 'slack'\nchannel = 'C01'\ntoken_file = 'FILE'";
    assert_eq!((check(slack, "xoxb-1-abc\n"), check(slack, "xoxe.xoxb-1-abc")), (Ok(()), Ok(())));
    for wrong in ["xapp-1-hunter", "xoxb-1\r\nX: hunter", "https://hooks.slack.com/services/hunter"] {
        assert!(check(slack, wrong).unwrap_err().contains("is no bot token") && !check(slack, wrong).unwrap_err().contains("hunter"));
    }
}

#[test]
fn what_cannot_be_read_is_told_before_it_is_needed() {
    let check = |text: &str| load(&[("x", text)]).channels.get("x").unwrap().check().unwrap_err().to_string();
    assert!(check(HOOK).starts_with("notifiers/x.toml: cannot read the secret file /etc/opmas/hook: No such file"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let hook = HOOK.replace("'hook'", &format!("'{}'", path.display()));
    for (content, said) in [("hunter2\n", "not `whsec_` and base64"), ("whsec_aHVudGVyMg==", "is 7 bytes long"), ("", "is empty")] {
        std::fs::write(&path, content).unwrap();
        let fault = check(&hook);
        assert!(fault.contains(said), "{fault}");
        assert!(!fault.contains("hunter2") && !fault.contains("aHVudGVyMg"), "{fault}");
    }
    std::fs::write(&path, format!("whsec_{}\n", "QUJD".repeat(8))).unwrap();
    load(&[("x", &hook)]).channels.get("x").unwrap().check().unwrap();
    std::fs::write(&path, [0xff; 10]).unwrap();
    assert!(check(&hook).contains("is not UTF-8"));
    std::fs::write(&path, "x".repeat(10_000)).unwrap();
    assert!(check(&hook).contains("longer than 4096 bytes"));
    let mail = format!("{MAIL}\nca_file = '{}'", path.display());
    assert!(check(&mail).contains("holds no certificate in PEM"));
}

#[test]
fn a_message_to_a_missing_secret_waits_for_the_owner() {
    let loaded = load(&[("x", HOOK)]);
    let channel = loaded.channels.get("x").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let notice = Notice::of_findings(vec![finding().into()], "r", "x", Time(0), vec![]);
    let error = runtime.block_on(channel.prepare(&notice, "id", Time(0))).unwrap_err();
    assert_eq!(error.kind, opmas::alert::Failure::Retryable { after: None });
}

#[test]
fn a_channel_prints_without_the_parts_of_its_url_that_may_be_secret() {
    let loaded = load(&[("x", &HOOK.replace("127.0.0.1:9/", "127.0.0.1:9/services/T0ken?key=K3y"))]);
    let printed = format!("{:?} {}", loaded.channels, loaded.channels.get("x").unwrap().integration.target());
    assert!(!printed.contains("T0ken") && !printed.contains("K3y"), "{printed}");
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(kind in 0..4usize, key in "host|url|to|from|tls|port|timeout|enabled|secret_file|channel|x", value in "[^\u{0}]{0,40}") {
        let base = [MAIL, HOOK, "integration = 'slack'\ntoken_env = 'T'", "integration = 'pagerduty'\nrouting_key_env = 'R'"][kind];
        load(&[("x", &format!("{base}\n{key} = {value}")), ("y", &value), ("z", &base.replacen("127.0.0.1", &value, 1))]);
    }
}
