//! `[endpoint.NAME]`: what is refused with its place, and that no value changes anything but its own place in a request.

use opmas::config::Settings;
use opmas::endpoint::EndpointConfig;
use proptest::prelude::*;
use reqwest::Url;
use serde_json::{Map, Value, json};

fn endpoint(text: &str) -> EndpointConfig {
    let endpoint: EndpointConfig = toml::from_str(text).unwrap();
    endpoint.check().unwrap();
    endpoint
}

fn values(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let cases = [
        ("url = 'http://ipam.example.org/'", "3", "would go unencrypted"),
        ("url = 'https://{host}/x'", "3", "values stand behind the host"),
        ("url = 'https://ipam{x}.example.org/'", "3", "values stand behind the host"),
        ("url = 'https://a/{Ip}'", "3", "`{` begins no value"),
        ("url = 'https://a/{ip'", "3", "`{` begins no value"),
        ("url = 'https://a/x#{ip}'", "3", "behind a `#`"),
        ("url = 'https://user:word@a/'", "3", "user name or password"),
        ("url = 'file:///etc/shadow'", "3", "is not spoken here"),
        ("url = 'https://a/'\nmethod = 'TRACE'", "4", "unknown variant `TRACE`"),
        ("url = 'https://a/'\nheaders = { Host = 'b' }", "4", "`Host` is no header that can be set here"),
        ("url = 'https://a/'\nheaders = { X = \"a\\nb\" }", "4", "no header's value"),
        ("url = 'https://a/'\ntimeout = '6m'", "4", "a timeout of 6m"),
        ("url = 'https://a/'\nanswer_bytes = 0", "4", "0 bytes"),
        ("url = 'https://a/'\ntimeot = '6s'", "4", "timeout"),
    ];
    for (table, line, said) in cases {
        let text = format!("posture = 'armed'\n[endpoint.ipam]\n{table}\n");
        let error = Settings::parse("opmas.toml", &text, std::path::Path::new("")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("opmas.toml:{line}:")) && error.contains(said), "{table}: {error}");
    }
}

#[test]
fn values_stand_in_the_url_in_the_query_or_in_the_body() {
    let note =
        endpoint("url = 'https://ipam.example.org/hosts/{ip}/notes?by={who}'\nheaders = { X-Site = 'attic' }\nsecrets = { Authorization = { file = 'x' } }");
    let planned = note.plan(&values(json!({"ip": "2001:db8::7", "who": "a b&c", "text": "\"}{", "n": [1, {"a": 2}]}))).unwrap();
    assert_eq!(planned.url, "https://ipam.example.org/hosts/2001%3Adb8%3A%3A7/notes?by=a%20b%26c");
    assert_eq!(serde_json::from_str::<Value>(planned.json.as_deref().unwrap()).unwrap(), json!({"text": "\"}{", "n": [1, {"a": 2}]}));
    assert_eq!(note.shown(&planned), ["POST", &planned.url, "X-Site: attic", "Authorization: [secret]"]);
    let look = endpoint("url = 'https://a/x'\nmethod = 'GET'");
    let planned = look.plan(&values(json!({"q": "ö&n=2", "n": 1}))).unwrap();
    assert_eq!((planned.url.as_str(), planned.json), ("https://a/x?n=1&q=%C3%B6%26n%3D2", None));
    for (wrong, why) in [
        (json!({"who": "x"}), "the URL needs `ip`"),
        (json!({"ip": "..", "who": "x"}), "cannot stand in a URL"),
        (json!({"ip": "", "who": "x"}), "cannot stand in a URL"),
        (json!({"ip": {"a": 1}, "who": "x"}), "no text, number or bool"),
    ] {
        assert!(note.plan(&values(wrong.clone())).unwrap_err().contains(why), "{wrong}");
    }
    let planned = look.plan(&values(json!({"q": ["a b", 2, true], "r": []}))).unwrap();
    assert_eq!(planned.url, "https://a/x?q=a+b&q=2&q=true", "a list repeats its name");
    for wrong in [json!({"q": {"a": 1}}), json!({"q": [[1]]}), json!({"q": [null]})] {
        assert!(look.plan(&values(wrong)).unwrap_err().contains("`q` is no text, number or bool"));
    }
}

#[test]
fn what_may_be_sent_again_follows_the_method_unless_the_table_says_so() {
    let repeats = |text: &str| endpoint(&format!("url = 'https://a/'\n{text}")).may_repeat();
    let by_method: Vec<bool> = ["GET", "POST", "PUT", "PATCH", "DELETE"].iter().map(|method| repeats(&format!("method = '{method}'"))).collect();
    assert_eq!(by_method, [true, false, true, false, true]);
    assert!(repeats("repeat = true") && !repeats("method = 'PUT'\nrepeat = false"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_value_is_more_than_data(one in any::<String>(), two in "\\PC*|[./\\\\%?#@:&=\\r\\n]{1,9}") {
        let endpoint = endpoint("url = 'https://ipam.example.org:8443/v1/{one}-x/{two}/end?k={one}&z=1'");
        if let Ok(planned) = endpoint.plan(&values(json!({"one": one, "two": two, "rest": one}))) {
            let url: Url = planned.url.parse().unwrap();
            prop_assert_eq!((url.scheme(), url.host_str(), url.port(), url.username(), url.fragment()), ("https", Some("ipam.example.org"), Some(8443), "", None));
            let segments: Vec<&str> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 4);
            prop_assert_eq!((segments[0], segments[3]), ("v1", "end"));
            let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            prop_assert_eq!(query, [("k".to_owned(), one.clone()), ("z".to_owned(), "1".to_owned())]);
            let body: Value = serde_json::from_str(planned.json.as_deref().unwrap()).unwrap();
            prop_assert_eq!(body, json!({"rest": one}));
        }
    }
}
