//! Texts that mean harm: bounded cost, no panic.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

#[test]
fn bombs_are_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let of = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(laughs, "a{i}: &a{i} [{of}]").unwrap();
    }
    assert!(said(&loaded(&laughs))[0].contains("larger than 500000 nodes or 16 MiB of text, aliases counted as what they stand for; split the file"));
    let long = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
    assert!(said(&loaded(&long))[0].contains("larger than 500000 nodes or 16 MiB of text"));
    let mut ladder = "a0: &a0 x\n".to_owned();
    for i in 1..100 {
        writeln!(ladder, "a{i}: &a{i} [*a{}]", i - 1).unwrap();
    }
    assert!(said(&loaded(&ladder))[0].contains("nested deeper than 32 levels; nest less"));
    for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), format!("a: &a {}", "[".repeat(40))] {
        assert_eq!(loaded(&deep).diagnostics.len(), 1);
    }
    let stairs: String = (0..2_000).fold(String::new(), |mut text, i| {
        writeln!(text, "{}a:", " ".repeat(i)).unwrap();
        text
    });
    assert!(said(&loaded(&stairs))[0].contains("nested deeper than 32 levels"));
    refused(&"x".repeat((4 << 20) + 1), &["r.yml: the file is larger than 4 MiB; split it"]);
    let params = format!("opmas: {{params: {{a: '{}'}}}}\nb: ['{}']\ntitle: t\n", "x".repeat(10_000), "${a}".repeat(10_000));
    assert!(said(&loaded(&params)).concat().contains("the parameters make this document too large; use shorter parameters"));
}

#[test]
fn a_file_has_a_bounded_number_of_diagnostics() {
    let text = "title: t\n---\n".repeat(1_000);
    assert_eq!(loaded(&text).diagnostics.len(), 100);
}

/// Pieces that rules are made of, for texts that get past the first gate.
const WORDS: &[&str] = &[
    "title: t\n",
    "name: a\n",
    "logsource: {product: x}\n",
    "detection:\n",
    "  sel:\n",
    "    f|contains|all: [a, '*']\n",
    "    - kw\n",
    "  condition: ",
    "1 of them\n",
    "sel and not (",
    "sel\n",
    ")",
    "correlation:\n",
    "  type: event_count\n",
    "  rules: [a]\n",
    "  timespan: 5m\n",
    "  condition: {gte: 3}\n",
    "filter:\n",
    "  rules: [a]\n",
    "---\n",
    "...\n",
    "&x ",
    "*x",
    "!!str ",
    "? ",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "|\n",
    ">-\n",
    "\t",
    "  ",
    "'",
    "\"",
    "\\",
    "#",
    "%YAML 1.2\n",
    "%TAG ! a\n",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\0",
    "\r",
    "\r\n",
    "opmas: {params: {n: 1}}\n",
    "${n}",
    "<<: ",
    "f|re: '('\n",
    "f|cidr: ::/0\n",
    "@",
    "`",
    ",",
    "~",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = loaded(&text);
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..60)) {
        let _ = loaded(&words.concat());
    }

    #[test]
    fn no_mutated_rule_panics(at in 0usize..SHIPPED.len(), gone in 0usize..40, word in proptest::sample::select(WORDS)) {
        let end = (at + gone).min(SHIPPED.len());
        prop_assume!(SHIPPED.is_char_boundary(at) && SHIPPED.is_char_boundary(end));
        let _ = loaded(&[&SHIPPED[..at], word, &SHIPPED[end..]].concat());
    }

    /// A refused file has a place for each mistake, inside the file.
    #[test]
    fn places_stand_in_the_file(at in 0usize..SHIPPED.len(), word in proptest::sample::select(WORDS)) {
        let text = [&SHIPPED[..at], word, &SHIPPED[at..]].concat();
        let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap();
        for diagnostic in loaded(&text).diagnostics {
            prop_assert!((1..=lines + 1).contains(&diagnostic.place.line), "{diagnostic}");
        }
    }
}
