//! What a window's values come to, kept up to date while the window slides (C10): each entry costs a logarithm of the window's length.
//!
//! All of it is a function of the values alone, not of the way the window went: a restart changes no digit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

/// One value of an entry, as the rule takes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Datum {
    /// For sums, averages and percentiles.
    Number(f64),
    /// For counts of distinct and of equal values: the canonical text (C9).
    Text(Arc<str>),
}

/// A number, also one that is written as a text; no words (`inf`, `nan`), no blanks.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let digits = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
            text.parse().ok().filter(|n: &f64| digits && n.is_finite())
        }
        _ => None,
    }
}

/// Texts and how often each is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    by_text: HashMap<Arc<str>, u64>,
    total: u64,
}

impl Counted {
    pub(super) fn add(&mut self, text: &Arc<str>) {
        *self.by_text.entry(Arc::clone(text)).or_default() += 1;
        self.total += 1;
    }

    pub(super) fn remove(&mut self, text: &Arc<str>) {
        let Some(count) = self.by_text.get_mut(text) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.by_text.remove(text);
        }
    }

    pub(super) fn distinct(&self) -> f64 {
        self.by_text.len() as f64
    }

    /// The share of a text in per cent.
    pub(super) fn share(&self, text: &str) -> Option<f64> {
        self.by_text.get(text).map(|count| *count as f64 * 100.0 / self.total as f64)
    }
}

/// Bits of a float that stand in one cell of a sum.
const CELL: i32 = 32;
/// Bits of a float's fraction.
const FRACTION: u32 = 52;

/// The exact sum of numbers: whole multiples of powers of 2^32, so that what was added can be taken away without a trace.
/// A cell has room for 2^42 numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    cells: BTreeMap<i32, i128>,
    count: u64,
}

impl Sum {
    pub(super) fn add(&mut self, number: f64) {
        self.put(number);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, number: f64) {
        self.put(-number);
        self.count = self.count.saturating_sub(1);
    }

    fn put(&mut self, number: f64) {
        let bits = number.to_bits();
        let (exponent, fraction) = ((bits >> FRACTION) & 0x7ff, bits & ((1 << FRACTION) - 1));
        let whole = if exponent == 0 { fraction } else { fraction | (1 << FRACTION) };
        if whole == 0 {
            return;
        }
        // Whole numbers have no bits below 2^0, so that they meet in one cell.
        let zeros = whole.trailing_zeros();
        let power = i32::try_from(exponent.max(1)).unwrap_or_default() - 1075 + zeros as i32;
        let scaled = i128::from(whole >> zeros) << power.rem_euclid(CELL);
        let cell = self.cells.entry(power.div_euclid(CELL)).or_default();
        *cell += if number < 0.0 { -scaled } else { scaled };
        if *cell == 0 {
            self.cells.remove(&power.div_euclid(CELL));
        }
    }

    /// `None` without any number.
    pub(super) fn sum(&self) -> Option<f64> {
        let total = self.cells.iter().rev().fold(0.0, |total, (cell, whole)| total + *whole as f64 * 2f64.powi(cell * CELL));
        (self.count > 0).then_some(total)
    }

    /// `None` without any number.
    pub(super) fn average(&self) -> Option<f64> {
        self.sum().map(|sum| sum / self.count as f64)
    }
}

/// Numbers with how often each is there, in order.
#[derive(Clone, Debug, Default)]
struct Ordered {
    by_key: BTreeMap<u64, u64>,
    len: u64,
}

impl Ordered {
    fn add(&mut self, key: u64) {
        *self.by_key.entry(key).or_default() += 1;
        self.len += 1;
    }

    /// Whether one was there to be removed.
    fn remove(&mut self, key: u64) -> bool {
        let Some(count) = self.by_key.get_mut(&key) else { return false };
        *count -= 1;
        self.len -= 1;
        if *count == 0 {
            self.by_key.remove(&key);
        }
        true
    }

    fn first(&self) -> Option<u64> {
        self.by_key.first_key_value().map(|(key, _)| *key)
    }

    fn last(&self) -> Option<u64> {
        self.by_key.last_key_value().map(|(key, _)| *key)
    }
}

/// Numbers, split at the rank of a percentile: `low` ends with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranks {
    low: Ordered,
    high: Ordered,
}

impl Ranks {
    pub(super) fn add(&mut self, number: f64, percentile: f64) {
        let key = key(number);
        let below = self.low.last().is_none_or(|last| key <= last);
        if below {
            self.low.add(key)
        } else {
            self.high.add(key)
        }
        self.split(percentile);
    }

    pub(super) fn remove(&mut self, number: f64, percentile: f64) {
        let key = key(number);
        if !self.low.remove(key) {
            self.high.remove(key);
        }
        self.split(percentile);
    }

    /// The rank p·(n−1), counted from zero.
    fn rank(&self, percentile: f64) -> f64 {
        percentile * (self.low.len + self.high.len).saturating_sub(1) as f64 / 100.0
    }

    fn split(&mut self, percentile: f64) {
        let wanted = if self.low.len + self.high.len == 0 { 0 } else { self.rank(percentile).floor() as u64 + 1 };
        // One number came or went, so that at most one or two change sides.
        while self.low.len > wanted {
            let Some(key) = self.low.last() else { return };
            self.low.remove(key);
            self.high.add(key);
        }
        while self.low.len < wanted {
            let Some(key) = self.high.first() else { return };
            self.high.remove(key);
            self.low.add(key);
        }
    }

    /// Linear between the ranks; `None` without any number.
    pub(super) fn value(&self, percentile: f64) -> Option<f64> {
        let below = value(self.low.last()?);
        let part = self.rank(percentile).fract();
        Some(self.high.first().map(value).filter(|_| part > 0.0).map_or(below, |above| below + (above - below) * part))
    }
}

const SIGN: u64 = 1 << 63;

/// An integer that orders as the number does; both zeros are one.
fn key(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn value(key: u64) -> f64 {
    f64::from_bits(if key & SIGN == 0 { !key } else { key & !SIGN })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn numbers() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(prop_oneof![(-50..50i32).prop_map(f64::from), (-50..50i32).prop_map(|n| f64::from(n) / 8.0), -1e30..1e30], 1..60)
    }

    proptest! {
        #[test]
        fn c10_a_sum_forgets_what_was_taken_away(kept in numbers(), gone in numbers()) {
            let (mut sum, mut plain) = (Sum::default(), Sum::default());
            gone.iter().for_each(|n| sum.add(*n));
            kept.iter().for_each(|n| sum.add(*n));
            gone.iter().rev().for_each(|n| sum.remove(*n));
            kept.iter().rev().for_each(|n| plain.add(*n));
            prop_assert_eq!(sum.sum(), plain.sum());
            gone.iter().chain([&0.1, &0.2]).for_each(|n| plain.add(*n));
            kept.iter().chain(&gone).chain([&0.1]).for_each(|n| plain.remove(*n));
            prop_assert_eq!(plain.sum(), Some(0.2));
        }

        #[test]
        fn c10_a_percentile_is_that_of_the_sorted_list(list in numbers(), cut in 0..60usize, p in 0..=20u32) {
            let p = f64::from(p) * 5.0;
            let mut ranks = Ranks::default();
            list.iter().for_each(|n| ranks.add(*n, p));
            list.iter().take(cut).for_each(|n| ranks.remove(*n, p));
            let mut left: Vec<f64> = list.into_iter().skip(cut).collect();
            left.sort_by(f64::total_cmp);
            let expected = left.len().checked_sub(1).map(|last| {
                let rank = p * last as f64 / 100.0;
                let (low, high) = (left[rank.floor() as usize], left[rank.ceil() as usize]);
                if low == high { low } else { low + (high - low) * rank.fract() }
            });
            prop_assert_eq!(ranks.value(p), expected);
        }
    }

    #[test]
    fn c10_whole_numbers_add_up_exactly_far_beyond_a_float() {
        let mut sum = Sum::default();
        [9_007_199_254_740_992.0, 1.0, 1.0, -9_007_199_254_740_992.0].into_iter().for_each(|n| sum.add(n));
        assert_eq!((sum.sum(), sum.average()), (Some(2.0), Some(0.5)));
        [1e308, -5e-324, 0.0].into_iter().for_each(|n| sum.add(n));
        [1e308, -5e-324, 0.0].into_iter().for_each(|n| sum.remove(n));
        assert_eq!(sum.sum(), Some(2.0));
        assert_eq!(Sum::default().sum(), None);
    }

    #[test]
    fn c10_numeric_strings_are_numbers_and_words_are_not() {
        let numbers = [json!(3), json!("3"), json!("3.0"), json!("+3"), json!("30e-1")];
        assert!(numbers.iter().all(|n| number(n) == Some(3.0)));
        assert!([json!("inf"), json!("NaN"), json!(""), json!(" 3"), json!("e"), json!(true), json!([3]), json!("1e999")].iter().all(|n| number(n).is_none()));
    }
}
