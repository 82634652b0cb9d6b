//! `action: global`, `reset` and `repeat`, and merge keys of YAML: what documents and maps share.

use opmas::sigma::Body;

use super::*;

const GLOBAL: &str = "action: global\ntitle: shared\nlogsource: {product: openwrt}\nlevel: low\ndetection:\n  base: {a: 1}\n---\n";

fn searches(loaded: &Loaded, rule: usize) -> Vec<String> {
    let Body::Detection(detection) = &loaded.set.rules[rule].body else { panic!("a detection") };
    detection.searches.iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn a_global_document_is_laid_under_those_behind_it() {
    let text =
        format!("{GLOBAL}id: one\ndetection: {{s: {{b: 2}}, condition: base and s}}\n---\nid: two\ntitle: own\nlevel: high\ndetection: {{condition: base}}\n");
    let loaded = loaded(&text);
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(
        loaded.set.rules.iter().map(|rule| (&*rule.title, rule.level)).collect::<Vec<_>>(),
        [("shared", Some(Severity::Low)), ("own", Some(Severity::High))]
    );
    assert_eq!((searches(&loaded, 0), searches(&loaded, 1)), (vec!["base".to_owned(), "s".to_owned()], vec!["base".to_owned()]));
}

#[test]
fn reset_ends_it_and_another_takes_its_place() {
    let text = format!(
        "{GLOBAL}detection: {{condition: base}}\n---\naction: reset\n---\ntitle: alone\nlogsource: {{}}\ndetection: {{s: {{c: 1}}, condition: s}}\n---\naction: global\ntitle: next\nlogsource: {{}}\n---\ndetection: {{t: {{d: 1}}, condition: t}}\n"
    );
    let loaded = loaded(&text);
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(loaded.set.rules.iter().map(|rule| &*rule.title).collect::<Vec<_>>(), ["shared", "alone", "next"]);
    assert_eq!(searches(&loaded, 1), ["s"]);
}

#[test]
fn repeat_is_the_document_before_with_changes() {
    let text = "title: a\nid: one\nlogsource: {product: openwrt}\ndetection: {s: {f: 1, g: 2}, condition: s}\n---\naction: repeat\nid: two\nlogsource: {service: dhcp}\ndetection: {s: {f: 3}}\n";
    let loaded = loaded(text);
    assert_eq!(said(&loaded), [""; 0]);
    let Body::Detection(second) = &loaded.set.rules[1].body else { panic!("a detection") };
    assert_eq!((second.logsource.product.as_deref(), second.logsource.service.as_deref()), (Some("openwrt"), Some("dhcp")));
    let opmas::sigma::Search::All(items) = &second.searches[0].1 else { panic!("a map") };
    assert_eq!(items.iter().map(|item| &*item.field).collect::<Vec<_>>(), ["f", "g"]);
    assert_ne!(loaded.set.rules[0].revision, loaded.set.rules[1].revision);
}

#[test]
fn what_is_shared_counts_for_the_revision() {
    let with = |value: u32| loaded(&format!("action: global\ntitle: t\nlogsource: {{}}\ndetection: {{s: {{a: {value}}}}}\n---\ndetection: {{condition: s}}\n"));
    assert_ne!(with(1).set.rules[0].revision, with(2).set.rules[0].revision);
}

#[test]
fn action_is_a_key_like_any_other_in_a_whole_rule() {
    let loaded = loaded("title: t\naction: alert\nlogsource: {}\ndetection: {s: {a: 1}, condition: s}\n");
    assert_eq!((said(&loaded), loaded.set.rules.len()), (vec![], 1));
}

#[test]
fn sharing_does_not_multiply_without_bound() {
    let keys: Vec<String> = (0..2_000).map(|i| format!("k{i}: 1")).collect();
    let text = format!(
        "action: global\ntitle: t\nlogsource: {{}}\ndetection: {{s: {{{}}}}}\n---\n{}",
        keys.join(", "),
        "detection: {condition: s}\n---\n".repeat(1_000)
    );
    assert!(said(&loaded(&text))[0].contains("larger than"), "{:?}", said(&loaded(&text)));
}

#[test]
fn merge_keys_lay_maps_under_the_one_they_stand_in() {
    let fields = |text: &str| {
        let loaded = loaded(&format!("title: t\nlogsource: {{}}\nshared: [&a {{f: 1, g: 2}}, &b {{g: 3, h: 4}}]\ndetection:\n  s: {text}\n  condition: s\n"));
        assert_eq!(said(&loaded), [""; 0], "{text}");
        let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!("a detection") };
        let opmas::sigma::Search::All(items) = &detection.searches[0].1 else { panic!("a map") };
        let mut items: Vec<_> = items.iter().map(|item| format!("{} {:?}", item.field, item.tests)).collect();
        items.sort();
        items
    };
    assert_eq!(fields("{<<: *a}"), fields("{f: 1, g: 2}"));
    assert_eq!(fields("{<<: *a, g: 5}"), fields("{f: 1, g: 5}"), "its own counts, wherever it stands");
    assert_eq!(fields("{g: 5, <<: [*a, *b]}"), fields("{f: 1, g: 5, h: 4}"));
    assert_eq!(fields("{<<: [*b, *a]}"), fields("{f: 1, g: 3, h: 4}"), "the earlier map counts");
    assert_eq!(fields("{<<: text}").len(), 1, "a field of that name");
}
