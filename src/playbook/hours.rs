//! `time` of a trigger: hours of days of the week, in UTC: `22:00-06:00`, `Sat-Sun`, `Mon-Fri 08:00-18:00`, or a list of such.

use serde::{Deserialize, Deserializer, de};

use crate::model::Time;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Minutes of a day.
const DAY: i64 = 24 * 60;

/// Any of its spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hours(Vec<Hour>);

/// From a time of day, included, to another, not included; what goes over midnight belongs to the day that it begins on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hour {
    days: [bool; 7],
    from: i64,
    to: i64,
}

impl Hours {
    pub(super) fn hold(&self, time: Time) -> bool {
        let minutes = time.0.div_euclid(60_000_000_000);
        self.0.iter().any(|hour| hour.holds(minutes))
    }
}

impl Hour {
    fn holds(&self, minutes: i64) -> bool {
        let (day, minute) = (minutes.div_euclid(DAY), minutes.rem_euclid(DAY));
        // The first day of 1970 was a Thursday.
        let on = |day: i64| usize::try_from((day + 3).rem_euclid(7)).ok().and_then(|day| self.days.get(day)).is_some_and(|on| *on);
        if self.from < self.to {
            return on(day) && (self.from..self.to).contains(&minute);
        }
        (on(day) && minute >= self.from) || (on(day - 1) && minute < self.to)
    }

    fn parse(text: &str) -> Option<Hour> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, hours) = match words.as_slice() {
            [one] if one.contains(':') => (None, Some(*one)),
            [one] => (Some(*one), None),
            [days, hours] => (Some(*days), Some(*hours)),
            _ => return None,
        };
        let (from, to) = match hours {
            Some(hours) => hours.split_once('-').and_then(|(from, to)| Some((minute(from)?, minute(to)?)))?,
            None => (0, DAY),
        };
        Some(Hour { days: days.map_or(Some([true; 7]), self::days)?, from, to })
    }
}

/// `Mon-Fri`, `Sat`, `Fri-Mon`
fn days(text: &str) -> Option<[bool; 7]> {
    let day = |word: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(word));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (day(from)?, day(to)?);
    Some(std::array::from_fn(|n| if from <= to { (from..=to).contains(&n) } else { n >= from || n <= to }))
}

/// `08:30`, at most `24:00`.
fn minute(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str, most: i64| text.parse().ok().filter(|n| text.len() == 2 && (0..=most).contains(n));
    let at = two(hours, 24)? * 60 + two(minutes, 59)?;
    (at <= DAY).then_some(at)
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let super::header::Words(words) = super::header::Words::deserialize(deserializer)?;
        let hour = |word: &std::sync::Arc<str>| {
            Hour::parse(word).ok_or_else(|| de::Error::custom(format!("`{word}` names no hours: write such as \"Mon-Fri 08:00-18:00\", in UTC")))
        };
        words.iter().map(hour).collect::<Result<_, _>>().map(Hours)
    }
}
