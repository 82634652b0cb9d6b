//! Action files: what loads, and what is said about what does not.

use opmas::action::{Catalogue, CommandsError, Op, Risk};
use opmas::diag::Diagnostic;
use opmas::model::{Platform, Span};
use serde_json::json;

use super::{BLOCK_IP, file, map, shipped};

fn refused(text: &str) -> Diagnostic {
    let (catalogue, mut wrong) = Catalogue::load(&[file("actions/block_ip.toml", text)]);
    assert_eq!((catalogue.iter().count(), wrong.len()), (0, 1), "{wrong:?}");
    wrong.remove(0)
}

/// The shipped file with one text in it replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(BLOCK_IP.contains(from), "{from}");
    BLOCK_IP.replacen(from, to, 1)
}

#[test]
fn the_shipped_action_says_what_it_is() {
    let catalogue = shipped();
    let action = catalogue.get("block_ip").unwrap();
    assert_eq!((action.risk, action.lease.as_deref(), action.limits.time), (Risk::Moderate, Some("duration"), Span::secs(10)));
    let order: Vec<&str> = action.params.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(order, ["ip", "duration"], "the order of the file, not of the alphabet");
    assert!(action.params[0].guarded && !action.params[1].guarded);
    assert_eq!(catalogue.nearest("blok_ip"), Some("block_ip"));
}

#[test]
fn an_address_chooses_its_set_and_the_time_is_in_seconds() {
    let catalogue = shipped();
    let action = catalogue.get("block_ip").unwrap();
    for (ip, set) in [("203.0.113.9", "hosts4"), ("2001:db8::9", "hosts6"), ("::ffff:203.0.113.9", "hosts4")] {
        let params = action.params(&map(json!({"ip": ip, "duration": "2m"}))).unwrap();
        let apply = action.commands(Op::Apply, Platform::OpenwrtFw4, &params).unwrap();
        assert_eq!(apply.len(), 1);
        assert_eq!(apply[0].argv, ["nft", "-f", "-"]);
        let bare = ip.trim_start_matches("::ffff:");
        assert!(apply[0].stdin.as_ref().unwrap().ends_with(&format!("add element inet opmas {set} {{ {bare} timeout 120s }}\n")));
        assert_eq!(action.commands(Op::Verify, Platform::OpenwrtFw4, &params).unwrap().len(), 2);
    }
}

#[test]
fn an_action_without_undo_says_why() {
    let (head, _) = BLOCK_IP.split_once("# Adding first").unwrap();
    let text = head.replace("[platform.openwrt-fw4]\n", "[platform.openwrt-fw4]\nno_undo = 'it is forever'\n");
    let (catalogue, wrong) = Catalogue::load(&[file("block_ip.toml", &text)]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let action = catalogue.get("block_ip").unwrap();
    let params = action.params(&map(json!({"ip": "203.0.113.9"}))).unwrap();
    let error = action.commands(Op::Undo, Platform::OpenwrtFw4, &params).unwrap_err();
    assert_eq!(error, CommandsError::NoUndo { action: "block_ip".into(), why: "it is forever".into() });
    assert!(refused(head).message.contains("how the action is undone"));
    assert!(refused(&changed("[platform.openwrt-fw4]\n", "[platform.openwrt-fw4]\nno_undo = 'both'\n")).help.unwrap().contains("one of them"));
}

#[test]
fn a_mistake_is_named_with_its_place_and_the_remedy() {
    let cases = [
        ("risk = ", "rsik = ", "actions/block_ip.toml:7:1: unknown key `rsik`; did you mean `risk`?"),
        ("duration.seconds}s }\n\"", "durations.seconds}s }\n\"", "unknown parameter `durations`; did you mean `duration`?"),
        ("${duration.seconds}", "${duration.secs}", "`secs` is not a property of `duration`, which is of type duration"),
        ("${duration.seconds}s }", "${duration.seconds", "has no closing `}`"),
        ("idempotence = [\"ip\"]", "idempotence = [\"pi\"]", "actions/block_ip.toml:9:16: unknown parameter `pi`; did you mean `ip`?"),
        ("idempotence = [\"ip\"]", "idempotence = [\"ip\", \"duration\"]", "the lifetime cannot identify the effect; leave it out of `idempotence`"),
        ("lease = \"duration\"", "lease = \"ip\"", "the lease parameter `ip` is not of type duration"),
        ("lifetime = \"duration\"", "lifetime = \"ip\"", "the check needs a parameter of type duration, and `ip` is of type ip"),
        ("also = [\"linux\"]", "also = [\"linx\"]", "`linx`"),
        ("max = \"30d\"", "max = \"30 days\"", "the bound of a duration is whole seconds"),
        ("max = \"30d\"", "max = \"1s\"\nmin = \"2s\"", "`min` is here a second time"),
        ("default = \"1h\"", "default = \"90d\"", "the default: \"90d\" is not a time between 1s and 30d"),
        ("type = \"ip\"", "type = \"ip\"\nmax = 3", "a parameter of type ip has no key `max`"),
        ("type = \"ip\"", "type = \"address\"", "`address`"),
        ("[\"nft\", \"-f\", \"-\"]", "[\"${ip}\"]", "the program of a command is fixed"),
        ("[\"nft\", \"-f\", \"-\"]", "[]", "a command without a program"),
        ("list flowtables\"]", "list flowtables\"]\n[[platform.openwrt-fw4.verify]]\nargv = [\"true\"]", "reads the output of 2 commands, and `verify` has 3"),
        ("time = \"10s\"", "time = \"10h\"", "`time` must be between 1ms and 5m"),
        ("output_bytes = 1048576", "output_bytes = 0", "`output_bytes` must be between"),
    ];
    for (from, to, wanted) in cases {
        let wrong = refused(&changed(from, to));
        assert!(wrong.to_string().contains(wanted), "{to}: {wrong}");
        assert!(wrong.place.line > 0, "{to}: {wrong}");
    }
}

#[test]
fn an_unknown_platform_is_named() {
    let wrong = refused(&BLOCK_IP.replace("platform.openwrt-fw4", "platform.openwrt-fw5"));
    assert!(wrong.to_string().contains("openwrt-fw5"), "{wrong}");
    assert!(refused(&BLOCK_IP.replace("platform.openwrt-fw4", "limit")).to_string().contains("unknown key `limit`"));
}

#[test]
fn an_unknown_variable_is_shown_where_it_stands_in_the_script() {
    let wrong = refused(&changed("delete element inet opmas hosts${ip.version} { ${ip} }", "delete element inet opmas hosts4 { ${id} }"));
    let line = BLOCK_IP.lines().position(|l| l.starts_with("delete element")).unwrap() + 1;
    assert_eq!(wrong.to_string(), format!("actions/block_ip.toml:{line}:36: unknown parameter `id`; did you mean `ip`?"));
}

#[test]
fn free_text_is_an_argument_and_never_part_of_a_script() {
    let text = "[params.ip]\ntype = \"ip\"\n";
    let with = format!("[params.note]\ntype = 'text'\nmax = 40\ndefault = 'x'\n{text}");
    let logger = BLOCK_IP.replace(text, &with).replace("[\"nft\", \"-f\", \"-\"]", "[\"logger\", \"${note}\"]");
    let (catalogue, wrong) = Catalogue::load(&[file("block_ip.toml", &logger)]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let action = catalogue.get("block_ip").unwrap();
    let params = action.params(&map(json!({"ip": "203.0.113.9", "note": "'; reboot; ' ${ip} $(x)"}))).unwrap();
    let apply = action.commands(Op::Apply, Platform::OpenwrtFw4, &params).unwrap();
    assert_eq!(apply[0].argv, ["logger", "'; reboot; ' ${ip} $(x)"], "a value is not read again");

    for program in ["[\"sh\", \"-c\", \"${note}\"]", "[\"/usr/sbin/nft\", \"${note}\"]"] {
        let wrong = refused(&BLOCK_IP.replace(text, &with).replacen("[\"nft\", \"-f\", \"-\"]", program, 1));
        assert!(wrong.message.contains("`note` is free text"), "{wrong}");
    }
    let wrong = refused(&BLOCK_IP.replace(text, &with).replacen("{ ${ip} timeout 1s }", "{ ${note} }", 1));
    assert!(wrong.message.contains("`note` is free text"), "{wrong}");
}

#[test]
fn a_broken_file_costs_no_other() {
    let (catalogue, wrong) = Catalogue::load(&[file("a.toml", "title = "), file("block_ip.toml", BLOCK_IP), file("Bad-Name.toml", BLOCK_IP)]);
    assert!(catalogue.get("block_ip").is_some());
    assert_eq!(catalogue.iter().count(), 1);
    assert_eq!(wrong.len(), 2);
    assert!(wrong[0].to_string().starts_with("a.toml:1:9: "), "{}", wrong[0]);
}
