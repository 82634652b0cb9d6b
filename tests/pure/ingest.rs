//! What the body of a request holds: lines, NDJSON, JSON, gzip, and their bounds.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use opmas::model::Payload;
use opmas::source::http::{Form, MAX_BODY, MAX_LINE, MAX_LINES, Parsed, Refused, inflate, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn logs(body: impl AsRef<[u8]>, form: Form) -> Parsed {
    parse(body.as_ref(), form, Payload::Log).unwrap()
}

fn kept(parsed: &Parsed) -> Vec<String> {
    parsed.keep.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

fn told(parsed: &Parsed) -> Vec<(usize, &str)> {
    parsed.rejected.iter().map(|rejected| (rejected.line, rejected.reason.as_str())).collect()
}

#[test]
fn a_content_type_says_the_form_whatever_its_case_and_parameters() {
    assert_eq!(Form::of("text/plain; charset=utf-8"), Some(Form::Text));
    assert_eq!(Form::of("Application/X-NDJSON"), Some(Form::Ndjson));
    assert_eq!(Form::of(" application/json ;x=y"), Some(Form::Json));
    for other in ["", "text/html", "application/jsonp", "application/x-www-form-urlencoded", "text/plain2"] {
        assert_eq!(Form::of(other), None, "{other}");
    }
}

#[test]
fn lines_of_text_are_kept_byte_by_byte_without_the_empty_ones() {
    let parsed = logs(b"\xef\xbb\xbf<30>a b: one \r\n\n  \n\t two\xff\nthree", Form::Text);
    assert_eq!(parsed.keep, [b"<30>a b: one ".to_vec(), b"\t two\xff".to_vec(), b"three".to_vec()]);
    assert_eq!((parsed.accepted, parsed.rejected.len()), (3, 0));
    assert_eq!(logs("", Form::Text), Parsed::default());
}

#[test]
fn each_line_of_ndjson_that_is_none_is_named_and_the_others_are_kept() {
    let body = b"{\"a\":1}\n\n{\"a\":}\r\n  {\"b\":2}  \n[1]\n\"x\"\n{\"c\":\"\xff\"}\n{\"d\":1} {\"e\":2}\n";
    let parsed = logs(body, Form::Ndjson);
    assert_eq!(kept(&parsed), ["{\"a\":1}", "{\"b\":2}"]);
    assert_eq!(parsed.accepted, 2);
    let lines: Vec<usize> = told(&parsed).iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 5, 6, 7, 8]);
    assert!(told(&parsed)[0].1.starts_with("not JSON: "), "{parsed:?}");
    assert_eq!(told(&parsed)[1].1, "not a JSON object");
    assert_eq!(told(&parsed)[3].1, "not UTF-8 from byte 6 on");
    assert!(!logs("[".repeat(100_000), Form::Ndjson).rejected.is_empty(), "depth is no way in");
    assert!(!logs(format!("{{\"a\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000)), Form::Ndjson).rejected.is_empty());
}

#[test]
fn json_is_one_object_or_an_array_of_them_each_as_it_stands() {
    assert_eq!(kept(&logs(" {\"a\":\n 1,\r\n \"b\":\"x\\n\"} ", Form::Json)), ["{\"a\":  1,   \"b\":\"x\\n\"}"], "on one line, nothing else changed");
    let parsed = logs(r#"[{"a":1.0,"b":"],[\"{"}, 7 ,{"c":[1,{"d":2}]},[{}], {}]"#, Form::Json);
    assert_eq!(kept(&parsed), [r#"{"a":1.0,"b":"],[\"{"}"#, r#"{"c":[1,{"d":2}]}"#, "{}"]);
    assert_eq!(told(&parsed), [(2, "not a JSON object"), (4, "not a JSON object")]);
    assert_eq!(logs("[]", Form::Json), Parsed::default());
    assert_eq!(logs(" \n", Form::Json), Parsed::default());
    for broken in ["[{\"a\":1},]", "[{\"a\":1}", "{\"a\":1}{\"b\":2}", "x", "[{\"a\":1}] x]"] {
        let parsed = logs(broken, Form::Json);
        assert!(parsed.keep.is_empty() && told(&parsed).len() == 1, "{broken}: {parsed:?}");
    }
}

#[test]
fn lines_and_answers_are_bounded() {
    let long = "x".repeat(MAX_LINE);
    assert_eq!(logs(&long, Form::Text).accepted, 1);
    let parsed = logs(format!("a\n{long}y\nb"), Form::Text);
    assert_eq!((kept(&parsed), told(&parsed)), (vec!["a".to_owned(), "b".to_owned()], vec![(2, "longer than 262144 bytes")]));
    let parsed = logs("x\n".repeat(150), Form::Ndjson);
    assert_eq!((parsed.rejected.len(), parsed.more_rejected), (100, 50));
    assert_eq!(logs("x\n".repeat(MAX_LINES), Form::Text).accepted, MAX_LINES);
    assert_eq!(parse("x\n".repeat(MAX_LINES + 1).as_bytes(), Form::Text, Payload::Log), Err(Refused::TooManyLines));
    let array = format!("[{}{{}}]", "{},".repeat(MAX_LINES));
    assert_eq!(parse(array.as_bytes(), Form::Json, Payload::Log), Err(Refused::TooManyLines));
}

#[test]
fn m2_what_is_no_finding_is_told_and_goes_to_the_dead_letters() {
    let good = r#"{"title":"t","agent":"a","severity":3}"#;
    let body = format!("{good}\n{{\"title\":\"t\",\"agent\":\"a\",\"severity\":9}}\nnonsense\n");
    let parsed = parse(body.as_bytes(), Form::Ndjson, Payload::Finding).unwrap();
    assert_eq!((parsed.accepted, parsed.keep.len()), (1, 3));
    assert!(told(&parsed)[0].1.contains("and this is 9") && told(&parsed)[0].1.ends_with("(kept as a dead letter)"), "{parsed:?}");
    let parsed = parse(format!("[{good},1]").as_bytes(), Form::Json, Payload::Finding).unwrap();
    assert_eq!((parsed.accepted, kept(&parsed)), (1, vec![good.to_owned(), "1".to_owned()]));
}

#[test]
fn gzip_is_inflated_up_to_the_bound_and_no_further() {
    let whole = vec![b'x'; MAX_BODY];
    assert_eq!(inflate(&gzip(&whole)).unwrap().len(), MAX_BODY);
    assert_eq!(inflate(&gzip(&vec![b'x'; MAX_BODY + 1])), Err(Refused::TooLarge));
    // A thousand to one: what it would become is never made.
    assert_eq!(inflate(&gzip(&vec![0; 512 << 20])), Err(Refused::TooLarge));
    assert_eq!(inflate(&[gzip(b"a\n"), gzip(b"b\n")].concat()).unwrap(), b"a\nb\n", "members are one stream");
    let cut = gzip(b"some lines");
    for broken in [&b""[..], b"plain", &cut[..cut.len() - 1], &cut[..12]] {
        assert!(matches!(inflate(broken), Err(Refused::Gzip(_))), "{broken:?}");
    }
}

/// Any JSON value.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from), ".{0,12}".prop_map(Value::from)];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_members_of_an_array_are_what_a_json_parser_says(members: Vec<bool>, values in prop::collection::vec(value(), 0..8), pretty: bool) {
        let objects: Vec<Value> = values.iter().zip(members.iter().chain(std::iter::repeat(&true))).map(|(value, object)| if *object { json!({"v": value}) } else { value.clone() }).collect();
        let body = if pretty { serde_json::to_string_pretty(&objects) } else { serde_json::to_string(&objects) }.unwrap();
        let parsed = logs(&body, Form::Json);
        let kept: Vec<Value> = parsed.keep.iter().map(|raw| serde_json::from_slice(raw).unwrap()).collect();
        let expected: Vec<Value> = objects.iter().filter(|value| value.is_object()).cloned().collect();
        prop_assert_eq!(kept, expected);
        prop_assert_eq!(parsed.accepted + parsed.rejected.len(), objects.len());
    }

    #[test]
    fn every_line_is_accepted_or_named_once(lines in prop::collection::vec("[ -~\t]{0,20}", 0..40), form in prop::sample::select(vec![Form::Text, Form::Ndjson])) {
        let parsed = logs(lines.join("\n"), form);
        let said: Vec<usize> = lines.iter().enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(at, _)| at + 1).collect();
        prop_assert_eq!(parsed.accepted + parsed.rejected.len(), said.len());
        prop_assert_eq!(parsed.keep.len(), parsed.accepted);
        prop_assert!(parsed.rejected.iter().all(|rejected| said.contains(&rejected.line)));
    }

    #[test]
    fn no_bytes_break_it(body: Vec<u8>, form in prop::sample::select(vec![Form::Text, Form::Ndjson, Form::Json]), finding: bool) {
        let payload = if finding { Payload::Finding } else { Payload::Log };
        let parsed = parse(&body, form, payload).unwrap();
        prop_assert!(parsed.keep.iter().all(|line| !line.is_empty() && !line.contains(&b'\n')));
        let _ = inflate(&body);
        prop_assert_eq!(inflate(&gzip(&body)).unwrap(), body);
    }
}
