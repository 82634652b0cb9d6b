//! How far each host's clock is from ours (T2). Lines that say neither zone nor year (RFC 3164) name an instant only with that.
//!
//! ```text
//! delay = arrival − stamp     the offset and what the line waited in queues; so the least one seen is the offset
//! as before, or a little more ─► stamp + offset           the clock goes on
//! more, stamps go on          ─► stamp + offset           a backlog drains; a clock that loses time looks like it, until it is believed
//! more, stamps went back      ─► arrival                  the clock was set back
//! less                        ─► arrival                  no queue does that: the clock was set ahead
//! ```
//! A delay that stays the same for 60 s is a new offset: whatever drains is faster than arrival.
//!
//! Stamps are whole seconds and arrival is finer: a line told by stamp + offset could come before one that was told by arrival and that the
//! host wrote earlier. So a line whose stamp goes on from the last one's has no time before that one's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Span, Time};

/// Clocks that are remembered; of more hosts those not heard of for longest are learned anew.
pub const MAX_CLOCKS: usize = 20_000;
/// How long stamps must advance at the pace of arrival before an offset is believed.
const PACE: Span = Span::secs(60);
/// What delays may differ by while they are the same: stamps are whole seconds, and a moment in a queue is none.
const JITTER: Span = Span::secs(2);
/// And by this part of the time between them: no clock that goes at all loses or gains more.
const DRIFT: i64 = 1_000;
/// By how much a line told by the offset can come before one told by arrival whose stamp is no later: delays that are the same over a minute.
const MOMENT: Span = Span(JITTER.0 + PACE.0 / DRIFT);

/// What a line's clock was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Event time: stamp + offset, or the time of the line before when that is a moment later.
    pub(super) time: Time,
    /// The offset.
    pub(super) offset: Span,
}

/// A host's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Clock {
    /// What is believed, and the newest stamp since.
    believed: Option<(Span, Time)>,
    /// The arrival since when delays have been the same, and the least of them.
    candidate: Option<(Time, Span)>,
    /// The last line that another did not overtake on its way: its stamp, and its event time.
    last: Option<(Time, Time)>,
}

impl Clock {
    fn hear(&mut self, stamp: Time, arrival: Time) -> Option<Known> {
        let known = self.judge(stamp, arrival).map(|known| match self.last {
            Some((last, told)) if stamp >= last && told.since(known.time) <= MOMENT => Known { time: told.max(known.time), ..known },
            _ => known,
        });
        let overtaken = known.is_some() && self.last.is_some_and(|(last, _)| stamp < last && last.since(stamp) <= JITTER);
        if !overtaken {
            self.last = Some((stamp, known.map_or(arrival, |known| known.time)));
        }
        known
    }

    fn judge(&mut self, stamp: Time, arrival: Time) -> Option<Known> {
        let delay = arrival.since(stamp);
        if let Some((offset, newest)) = &mut self.believed
            && is_same(delay, *offset, Span::ZERO)
        {
            *offset = delay.min(*offset);
            *newest = stamp.max(*newest);
            self.candidate = None;
            return Some(Known { time: stamp.plus(*offset), offset: *offset });
        }
        let goes_on = self.candidate.filter(|(since, least)| is_same(delay, *least, arrival.since(*since)));
        let (since, least) = goes_on.map_or((arrival, delay), |(since, least)| (since, least.min(delay)));
        if arrival.since(since) >= PACE {
            (self.believed, self.candidate) = (Some((least, stamp)), None);
            return Some(Known { time: stamp.plus(least), offset: least });
        }
        self.candidate = Some((since, least));
        let (offset, newest) = self.believed.as_mut().filter(|(offset, newest)| delay > *offset && stamp >= newest.minus(JITTER))?;
        *newest = stamp.max(*newest);
        Some(Known { time: stamp.plus(*offset), offset: *offset })
    }
}

fn is_same(a: Span, b: Span, within: Span) -> bool {
    a.0.abs_diff(b.0) <= (JITTER.0 + within.0.max(0) / DRIFT).unsigned_abs()
}

/// The clocks of all hosts, by where they are heard and their name. Those heard of lately are in `young`; when that is full they are `old`,
/// and what was old and not heard of since is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Clocks {
    young: BTreeMap<Arc<str>, Clock>,
    old: BTreeMap<Arc<str>, Clock>,
}

impl Clocks {
    /// A line of `host` came by `way`; `None` while its clock is not known, or was set.
    pub(super) fn hear(&mut self, way: &str, host: &str, stamp: Time, arrival: Time) -> Option<Known> {
        let name = [way, " ", host].concat();
        if let Some(clock) = self.young.get_mut(name.as_str()) {
            return clock.hear(stamp, arrival);
        }
        let mut clock = self.old.remove(name.as_str()).unwrap_or_default();
        let known = clock.hear(stamp, arrival);
        if self.young.len() >= MAX_CLOCKS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name.into(), clock);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_clocks_are_bounded_and_those_in_use_stay() {
        let mut clocks = Clocks::default();
        let at = |secs: i64| Time(secs * 1_000_000_000);
        for n in 0..100_000 {
            clocks.hear("udp", &format!("made-up-{n}"), at(n), at(n));
            if n % 1_000 == 0 {
                clocks.hear("udp", "ap1", at(n), at(n + 7_200));
            }
            assert!(clocks.young.len() + clocks.old.len() <= MAX_CLOCKS);
        }
        assert_eq!(clocks.hear("udp", "ap1", at(100_000), at(107_200)), Some(Known { time: at(107_200), offset: Span::secs(7_200) }));
        assert_eq!(clocks.hear("udp", "made-up-5", at(100_000), at(100_000)), None);
    }
}
