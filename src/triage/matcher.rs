//! What a route asks of a finding.

use std::fmt;
use std::str::FromStr;

use crate::model::{Finding, Severity};

/// A comparison with a severity: `>=4`, `<3`, `=5`, `4`, `>=high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeverityTest {
    comparison: Comparison,
    severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

impl Comparison {
    const ALL: [(&'static str, Comparison); 5] =
        [(">=", Comparison::AtLeast), ("<=", Comparison::AtMost), (">", Comparison::Above), ("<", Comparison::Below), ("=", Comparison::Equal)];
}

impl SeverityTest {
    /// Whether a severity passes.
    #[must_use]
    pub fn holds(self, severity: Severity) -> bool {
        match self.comparison {
            Comparison::AtLeast => severity >= self.severity,
            Comparison::AtMost => severity <= self.severity,
            Comparison::Above => severity > self.severity,
            Comparison::Below => severity < self.severity,
            Comparison::Equal => severity == self.severity,
        }
    }
}

impl FromStr for SeverityTest {
    type Err = String;

    /// `[>=|<=|>|<|=]` and 1 to 5 or one of Sigma's level names; without a sign, equality.
    fn from_str(text: &str) -> Result<SeverityTest, String> {
        let text = text.trim();
        let signed = Comparison::ALL.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)));
        let (comparison, word) = signed.unwrap_or((Comparison::Equal, text));
        let word = word.trim();
        let severity = match word.parse::<u8>() {
            Ok(number) => Severity::try_from(number),
            Err(_) => word.parse(),
        };
        severity.map(|severity| SeverityTest { comparison, severity })
    }
}

impl fmt::Display for SeverityTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Comparison::ALL.iter().find(|(_, c)| *c == self.comparison).map_or("=", |(sign, _)| *sign);
        write!(f, "{sign}{}", u8::from(self.severity))
    }
}

/// A closed set of conditions, all of which must hold; within a list, any. An empty matcher matches every finding.
///
/// Texts compare without regard to ASCII case; a `*` at the end stands for any rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// On the severity.
    pub severity: Option<SeverityTest>,
    /// The rule's id or name.
    pub rule: Vec<String>,
    /// Any of the finding's tags.
    pub tag: Vec<String>,
    /// The inventory name of the device; a finding without one does not match.
    pub device: Vec<String>,
    /// The device's site; a finding without one does not match.
    pub site: Vec<String>,
}

impl Matcher {
    /// Why the finding matches, as the conditions that held; `None` when one does not.
    #[must_use]
    pub fn holds(&self, finding: &Finding) -> Option<String> {
        let mut held = Vec::new();
        if let Some(test) = self.severity {
            test.holds(finding.severity).then(|| held.push(format!("severity {} is {test}", u8::from(finding.severity))))?;
        }
        let rule = [Some(&*finding.rule.id), finding.rule.name.as_deref()];
        held.extend(one_of("rule", &self.rule, rule.into_iter().flatten())?);
        held.extend(one_of("tag", &self.tag, finding.tags.iter().map(|tag| &**tag))?);
        held.extend(one_of("device", &self.device, finding.device.as_deref().into_iter())?);
        held.extend(one_of("site", &self.site, finding.site.as_deref().into_iter())?);
        Some(if held.is_empty() { "it takes every finding".to_owned() } else { held.join(", ") })
    }
}

/// Nothing asked: an empty reason. Asked and held: the reason. Asked and not held: `None`.
fn one_of<'a>(what: &str, patterns: &[String], mut values: impl Iterator<Item = &'a str>) -> Option<Option<String>> {
    if patterns.is_empty() {
        return Some(None);
    }
    values.find(|value| patterns.iter().any(|pattern| like(pattern, value))).map(|value| Some(format!("{what} is {value}")))
}

fn like(pattern: &str, value: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => value.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
        None => pattern.eq_ignore_ascii_case(value),
    }
}
