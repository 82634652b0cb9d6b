//! Severity 1 info … 5 critical; Sigma's five levels map one to one (semantics M3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How bad it is, 1 to 5. In JSON the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Severity {
    /// 1, Sigma's `informational`.
    Info = 1,
    /// 2
    Low = 2,
    /// 3
    Medium = 3,
    /// 4
    High = 4,
    /// 5
    Critical = 5,
}

impl Severity {
    /// Sigma's word for it: `informational low medium high critical`.
    #[must_use]
    pub fn level(self) -> &'static str {
        match self {
            Severity::Info => "informational",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

impl From<Severity> for u8 {
    fn from(s: Severity) -> u8 {
        s as u8
    }
}

impl TryFrom<u8> for Severity {
    type Error = String;

    fn try_from(n: u8) -> Result<Self, String> {
        Ok(match n {
            1 => Severity::Info,
            2 => Severity::Low,
            3 => Severity::Medium,
            4 => Severity::High,
            5 => Severity::Critical,
            _ => return Err(format!("severity {n} is not one of 1 (info) to 5 (critical)")),
        })
    }
}

impl FromStr for Severity {
    type Err = String;

    /// Sigma's level names.
    fn from_str(level: &str) -> Result<Self, String> {
        Ok(match level {
            "informational" => Severity::Info,
            "low" => Severity::Low,
            "medium" => Severity::Medium,
            "high" => Severity::High,
            "critical" => Severity::Critical,
            _ => return Err(format!("`{level}` is not one of informational, low, medium, high, critical")),
        })
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level())
    }
}
