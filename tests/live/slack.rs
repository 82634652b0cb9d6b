//! The channel to Slack, which `workspace.rs` plays.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use opmas::alert::{Answer, Channels, Failure, Notice, SendError};
use opmas::diag::SourceFile;
use opmas::model::{Evidence, Finding, Span, Time};
use serde_json::{Value, json};

use crate::http::{Reply, channel_test, say, say_json};
use crate::workspace::{CHANNEL, Instead, TOKEN, Workspace as Server, shown};

fn channels(file: &str, dir: &Path) -> Channels {
    std::fs::write(dir.join("token"), format!("{TOKEN}\n")).unwrap();
    let loaded = Channels::load(&[SourceFile { name: "notifiers/slack.toml".into(), text: file.into() }], dir);
    assert_eq!(loaded.diagnostics, []);
    loaded.channels
}

fn finding() -> Finding {
    serde_json::from_str(include_str!("../data/finding.json")).unwrap()
}

fn notice(finding: Finding) -> Notice {
    Notice::of_findings(vec![Arc::new(finding)], "urgent", "slack", Time(0), vec!["block_ip on router1: enforced".into()])
}

async fn send_more(server: &Server, notice: &Notice, more: &str) -> Result<Answer, SendError> {
    let dir = tempfile::tempdir().unwrap();
    let channels = channels(&server.file(more), dir.path());
    channels.get("slack").unwrap().prepare(notice, "d1d1d1", Time(0)).await?.send().await
}

async fn send(server: &Server, notice: &Notice) -> Result<Answer, SendError> {
    send_more(server, notice, "").await
}

#[tokio::test]
async fn a_finding_is_one_message_with_blocks_and_a_fallback_text() {
    let server = Server::start(vec![]);
    let answer = send(&server, &notice(finding())).await.unwrap();
    assert_eq!((answer.to_string().as_str(), answer.receipt.as_deref()), ("ok, message C0123456789/1795266540.000001", Some("C0123456789/1795266540.000001")));
    let [message] = &server.messages()[..] else { panic!("one message") };
    assert_eq!(message["text"], "[opmas] critical: SSH login after repeated failures (router1)\n203.0.113.9 failed 6 times and then logged in as root.");
    let header =
        json!({"type": "header", "text": {"type": "plain_text", "text": "[opmas] critical: SSH login after repeated failures (router1)", "emoji": false}});
    assert_eq!(message["blocks"][0], header);
    assert_eq!(message["blocks"][1]["text"]["verbatim"], true);
    for said in [
        "*critical (5 of 5): SSH login after repeated failures*\n203.0.113.9 failed",
        "*Device*  router1, site home",
        "```13:01:02 &lt;36&gt;Nov 21 13:01:02 router1 dropbear[812]: Bad password attempt",
        "block_ip on router1: enforced",
        "*Delivery*  d1d1d1",
    ] {
        assert!(shown(message).contains(said), "{said}: {}", shown(message));
    }
    assert_eq!(
        (&message["unfurl_links"], &message["unfurl_media"], &message["link_names"], &message["parse"]),
        (&json!(false), &json!(false), &json!(false), &json!("none"))
    );
}

#[tokio::test]
async fn the_resolved_notice_changes_the_message_in_place() {
    let server = Server::start(vec![]);
    let firing = notice(finding());
    let receipt = send(&server, &firing).await.unwrap().receipt;
    let resolved = firing.clone().resolved(Time(1), receipt.clone());
    let answer = send(&server, &resolved).await.unwrap();
    assert_eq!(answer.receipt, receipt);
    let [message] = &server.messages()[..] else { panic!("one message") };
    assert!(message["text"].as_str().unwrap().starts_with("[opmas] resolved: SSH login"), "{message}");
    assert!(shown(message).contains("*Resolved*\nThis is over since 1970"));
    assert_eq!((&message["parse"], &message["link_names"]), (&json!("none"), &json!(false)));
    assert_eq!(server.calls(), ["chat.postMessage", "chat.update"]);
}

#[tokio::test]
async fn without_the_earlier_message_a_new_one_is_sent() {
    let server = Server::start(vec![]);
    let firing = notice(finding());
    for receipt in [None, Some("nonsense".into()), Some("C0123456789/1.000001".into())] {
        send(&server, &firing.clone().resolved(Time(1), receipt)).await.unwrap();
    }
    assert_eq!(server.calls(), ["chat.postMessage", "chat.postMessage", "chat.update", "chat.postMessage"]);
    for error in ["cant_update_message", "edit_window_closed"] {
        let server = Server::start(vec![Instead::Answer(say_json("200 OK", &json!({"ok": false, "error": error})))]);
        send(&server, &firing.clone().resolved(Time(1), Some("C0123456789/1.000001".into()))).await.unwrap();
        assert_eq!((server.calls().len(), server.messages().len()), (2, 1), "{error}");
    }
}

#[tokio::test]
async fn what_slack_says_decides_whether_it_is_tried_again() {
    let refused = |error: &str| say_json("200 OK", &json!({"ok": false, "error": error}));
    let limited = json!({"ok": false, "error": "ratelimited"});
    let after = |after: Option<i64>| Failure::Retryable { after: after.map(Span::secs) };
    let cases = [
        (say_json("429 Too Many Requests\r\nretry-after: 30", &limited), after(Some(30)), "ratelimited"),
        (say("429 Too Many Requests\r\nretry-after: 99999\r\n\r\n"), after(Some(3_600)), "HTTP 429"),
        (refused("ratelimited"), after(None), "Slack answered ratelimited"),
        (refused("service_unavailable"), after(None), "service_unavailable"),
        (say("503 Service Unavailable\r\n\r\n"), after(None), "HTTP 503"),
        (refused("internal_error"), Failure::Ambiguous, "internal_error"),
        (refused("fatal_error"), Failure::Ambiguous, "fatal_error"),
        (say("500 Internal Server Error\r\n\r\n"), Failure::Ambiguous, "HTTP 500"),
        (say("504 Gateway Timeout\r\n\r\n"), Failure::Ambiguous, "HTTP 504"),
        (say("200 OK\r\ncontent-type: \u{fc}\r\n\r\n<html>log in to this network"), Failure::Ambiguous, "this is not how Slack answers: HTTP 200 OK: <html>"),
        (refused("not_in_channel"), Failure::Permanent, "not_in_channel: write the channel's id into `channel`, and invite the app"),
        (refused("invalid_auth"), Failure::Permanent, "put a valid bot token"),
        (refused("missing_scope"), Failure::Permanent, "chat:write"),
        (say("302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n"), Failure::Permanent, "redirects are not followed"),
        (say(&format!("403 Forbidden\r\n\r\nyour token {TOKEN}\u{1b}[31m")), Failure::Permanent, "your token [secret]\\u{1b}[31m"),
    ];
    for (reply, kind, said) in cases {
        let server = Server::start(vec![Instead::Answer(reply)]);
        let error = send(&server, &notice(finding())).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.detail.starts_with(&format!("http://127.0.0.1:{}: ", server.port)) && error.detail.contains(said), "{error}");
        assert!(!error.detail.contains("xoxb"), "{error}");
        assert_eq!(server.calls().len(), 1, "once");
    }
}

#[tokio::test]
async fn o7_a_lost_answer_is_ambiguous_for_a_new_message_and_not_for_a_change() {
    let server = Server::start(vec![Instead::Lose, Instead::Answer(Reply::Silence)]);
    assert_eq!(send(&server, &notice(finding())).await.unwrap_err().kind, Failure::Ambiguous);
    assert_eq!(server.messages().len(), 1, "it had arrived");
    assert_eq!(send_more(&server, &notice(finding()), "timeout = '300ms'").await.unwrap_err().kind, Failure::Ambiguous);

    let change = notice(finding()).resolved(Time(1), Some(format!("{CHANNEL}/1795266540.000001").into()));
    for lost in [Instead::Lose, Instead::Answer(say_json("200 OK", &json!({"ok": false, "error": "internal_error"})))] {
        server.instead(lost);
        assert_eq!(send(&server, &change).await.unwrap_err().kind, Failure::Retryable { after: None });
    }
    send(&server, &change).await.unwrap();
    assert_eq!(server.messages().len(), 1);
}

/// Nothing was given away: it is tried again, although a message cannot be repeated.
#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (url, said) in [(format!("http://127.0.0.1:{nobody}"), "refused"), (format!("https://{}/api", silent.local_addr().unwrap()), "timed out")] {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("integration = 'slack'\nchannel = '{CHANNEL}'\ntoken_file = 'token'\nurl = '{url}'\ntimeout = '600ms'");
        let channels = channels(&file, dir.path());
        let error = channels.get("slack").unwrap().prepare(&notice(finding()), "d1", Time(0)).await.unwrap().send().await.unwrap_err();
        assert_eq!(error.kind, Failure::Retryable { after: None }, "{error}");
        assert!(error.detail.contains(said), "{error}");
    }
}

#[tokio::test]
async fn hostile_values_mention_nobody_and_huge_ones_fit() {
    let server = Server::start(vec![]);
    for text in ["<!channel> <@U1> <!here|x> <https://evil.example|click>", "``` *b* ```\n<!everyone>", "&lt;!channel&gt; @here", "\u{202e}<\u{0}>"] {
        let mut finding = finding();
        (finding.title, finding.text, finding.device) = (text.into(), text.into(), Some(text.into()));
        finding.evidence[0].raw = text.into();
        finding.group = [(text.to_owned(), Value::String(text.into()))].into();
        send(&server, &notice(finding)).await.unwrap();
        let messages = server.messages();
        let message = messages.last().unwrap();
        let all = format!("{}\n{}", message["text"].as_str().unwrap(), shown(message));
        assert!(!all.contains(['<', '>']) && !all.contains("&lt;!channel&gt; @here"), "{all}");
        assert_eq!(all.matches("```").count() % 2, 0, "{all}");
    }
    let mut huge = finding();
    huge.evidence = vec![Evidence { raw: "<&👍`é".repeat(10_000).into(), ..huge.evidence[0].clone() }; 1_000];
    (huge.title, huge.text) = ("&".repeat(100_000).into(), "<".repeat(100_000));
    let many = Notice { findings: std::iter::repeat_n(Arc::new(huge), 100).collect(), ..notice(finding()) };
    send(&server, &many).await.unwrap();
    let messages = server.messages();
    assert!(shown(messages.last().unwrap()).ends_with("_The rest does not fit into a message._"));
}

#[test]
fn x1_channel_test_says_what_slack_answered() {
    let server = Server::start(vec![]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    let (code, out, error) = channel_test(dir.path(), "slack", &server.file(""));
    let target = format!("http://127.0.0.1:{}", server.port);
    assert_eq!((code, out), (0, format!("slack: {target} accepted the test message: ok, message C0123456789/1795266540.000001\n")), "{error}");
    assert!(server.messages()[0]["text"].as_str().unwrap().starts_with("[opmas] test of channel slack"));

    let (code, out, error) = channel_test(dir.path(), "slack", &server.file("").replace("#alerts", "#other"));
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(error.starts_with(&format!("opmas: channel slack: {target}: Slack answered channel_not_found: write the channel's id")), "{error}");

    std::fs::write(dir.path().join("token"), "xapp-1-hunter2").unwrap();
    let (code, _, error) = channel_test(dir.path(), "slack", &server.file(""));
    assert_eq!(code, 3);
    assert!(error.contains("the token is no bot token") && !error.contains("hunter2"), "{error}");
}
