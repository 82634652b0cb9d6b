//! What values, conditions and parameters become.

use opmas::sigma::{Body, Condition, Piece, Search, Test};
use proptest::prelude::*;

use super::*;

fn condition(written: &str) -> Condition {
    let text = detection(&format!("  sel_a: {{a: 1}}\n  sel_b: {{a: 2}}\n  filter: {{a: 3}}\n  _own: {{a: 4}}\n  condition: {written}"));
    let loaded = loaded(&text);
    assert_eq!(said(&loaded), [""; 0], "{written}");
    let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!() };
    detection.condition.clone()
}

#[test]
fn conditions_bind_as_the_specification_says() {
    use Condition::{And, Not, Or, Search as S};
    let not = |inner| Not(Box::new(inner));
    assert_eq!(condition("sel_a or sel_b and not filter"), Or(vec![S(0), And(vec![S(1), not(S(2))])]));
    assert_eq!(condition("(sel_a OR sel_b) AND NOT filter"), And(vec![Or(vec![S(0), S(1)]), not(S(2))]));
    assert_eq!(condition("not not sel_a"), not(not(S(0))));
    assert_eq!(condition("1 of sel_*"), Or(vec![S(0), S(1)]));
    assert_eq!(condition("All Of sel_* and not 1 of filter*"), And(vec![And(vec![S(0), S(1)]), not(S(2))]));
    // Names that begin with an underscore are not meant by `them`.
    assert_eq!(condition("1 of them"), Or(vec![S(0), S(1), S(2)]));
    assert_eq!(condition("all of *"), And(vec![S(0), S(1), S(2)]));
    assert_eq!(condition("1 of _*"), S(3));
    assert_eq!(condition("1 of *_*"), Or(vec![S(0), S(1)]));
    assert_eq!(condition("1 of s*_b"), S(1));
    assert_eq!(condition("\n    - sel_a\n    - sel_b"), Or(vec![S(0), S(1)]));
    assert_eq!(condition("|\n    sel_a\n    and sel_b"), And(vec![S(0), S(1)]));
}

fn test(written: &str) -> Test {
    let loaded = loaded(&item(written));
    assert_eq!(said(&loaded), [""; 0], "{written}");
    let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!() };
    match &detection.searches[0].1 {
        Search::All(items) => items[0].tests[0].clone(),
        Search::Keywords(item) => item.tests[0].clone(),
        Search::Any(_) => panic!(),
    }
}

fn text(pieces: &[Piece]) -> Test {
    Test::Text { pattern: pieces.to_vec(), cased: false }
}

fn literal(text: &str) -> Piece {
    Piece::Literal(text.to_owned())
}

#[test]
fn escapes_are_those_of_the_specification() {
    let table: &[(&str, &[Piece])] = &[
        (r"a\b", &[literal(r"a\b")]),
        (r"a\\b", &[literal(r"a\b")]),
        (r"a\*b", &[literal("a*b")]),
        (r"a\?b", &[literal("a?b")]),
        (r"a\\*b", &[literal(r"a\"), Piece::Any, literal("b")]),
        (r"a\\\*b", &[literal(r"a\*b")]),
        (r"a\\\\b", &[literal(r"a\\b")]),
        (r"a\\\b", &[literal(r"a\\b")]),
        (r"a?c*", &[literal("a"), Piece::One, literal("c"), Piece::Any]),
        (r"a\", &[literal(r"a\")]),
        ("", &[]),
    ];
    for (written, expected) in table {
        assert_eq!(test(&format!("f: '{written}'")), text(expected), "{written}");
    }
}

#[test]
fn scalars_are_what_yaml_says() {
    assert_eq!(test("f: 5"), Test::Number(5.into()));
    assert_eq!(test("f: 0x17"), Test::Number(0x17.into()));
    assert_eq!(test("f: -1.5"), Test::Number(serde_json::Number::from_f64(-1.5).unwrap()));
    assert_eq!(test("f: '5'"), text(&[literal("5")]));
    // A version number is not the number that it would be.
    assert_eq!(test("f: 1.10"), text(&[literal("1.10")]));
    assert_eq!(test("f: 007"), text(&[literal("007")]));
    assert_eq!(test("f: true"), Test::Bool(true));
    assert_eq!(test("f: 'true'"), text(&[literal("true")]));
    assert_eq!(test("f: !!str true"), text(&[literal("true")]));
    assert_eq!(test("f: null"), Test::Null);
    assert_eq!(test("f:"), Test::Null);
    assert_eq!(test("f: ''"), text(&[]));
}

#[test]
fn encodings_write_what_the_specification_shows() {
    assert_eq!(test("f|base64: foobar"), text(&[literal("Zm9vYmFy")]));
    let Test::AnyOf(offsets) = test("f|base64offset|contains: foobar") else { panic!() };
    let around = |inner: &str| text(&[Piece::Any, literal(inner), Piece::Any]);
    assert_eq!(offsets, [around("Zm9vYmFy"), around("Zvb2Jhc"), around("mb29iYX")]);
    assert_eq!(test("f|wide: cmd"), text(&[literal("c\0m\0d\0")]));
    assert_eq!(test("f|utf16le: 'c*d'"), text(&[literal("c\0"), Piece::Any, literal("d\0")]));
    assert_eq!(test("f|utf16be: cmd"), text(&[literal("\0c\0m\0d")]));
    assert_eq!(test("f|utf16|base64: cmd"), text(&[literal("//5jAG0AZAA=")]));
    assert_eq!(test("f|windash|contains: ' -a'"), text(&[Piece::Any, literal(" "), Piece::Dash, literal("a"), Piece::Any]));
    assert_eq!(test("f|contains|windash: ' /a'"), text(&[Piece::Any, literal(" "), Piece::Dash, literal("a"), Piece::Any]));
}

proptest! {
    /// Whatever stands around a value, one of its three writings is in the base64 of the whole.
    #[test]
    fn one_of_the_base64_offsets_is_found(before in proptest::collection::vec(any::<u8>(), 0..20), value in "[a-zA-Z0-9 ]{3,20}", after in proptest::collection::vec(any::<u8>(), 0..20)) {
        use base64::Engine as _;
        let whole = base64::engine::general_purpose::STANDARD.encode([&before[..], value.as_bytes(), &after[..]].concat());
        let Test::AnyOf(writings) = test(&format!("f|base64offset: '{value}'")) else { panic!() };
        let found = writings.iter().any(|writing| matches!(writing, Test::Text { pattern, .. } if matches!(&pattern[0], Piece::Literal(text) if whole.contains(text.as_str()))));
        prop_assert!(found, "{value} in {whole}");
    }
}

#[test]
fn parameters_stand_in_scalars() {
    let written = item("f|contains: ['x${n}y', '${w}', '$${n}', '${e`Nv}']") + "opmas: {params: {n: 5, w: '*w'}}\n";
    let filled = loaded(&written);
    assert_eq!(said(&filled), [""; 0]);
    let Body::Detection(detection) = &filled.set.rules[0].body else { panic!() };
    let Search::All(items) = &detection.searches[0].1 else { panic!() };
    assert_eq!(items[0].tests, [text_around("x5y"), text_around("w"), text_around("${n}"), text_around("${e`Nv}")]);
    // A whole plain scalar takes the parameter's type.
    assert_eq!(test_of(&(item("f: ${n}") + "opmas: {params: {n: 5}}\n")), Test::Number(5.into()));
    refused(&(item("f: ${nn}") + "opmas: {params: {n: 5}}\n"), &["r.yml:5:8: unknown parameter `nn`; did you mean `n`?"]);
    // A document without parameters may look for such text.
    assert_eq!(test("f: '${env}'"), text(&[literal("${env}")]));
}

fn text_around(inner: &str) -> Test {
    text(&[Piece::Any, literal(inner), Piece::Any])
}

fn test_of(written: &str) -> Test {
    let loaded = loaded(written);
    assert_eq!(said(&loaded), [""; 0]);
    let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!() };
    let Search::All(items) = &detection.searches[0].1 else { panic!() };
    items[0].tests[0].clone()
}
