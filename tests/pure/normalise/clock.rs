//! T2: hosts whose clocks are wrong in every way that there is, and what becomes of their lines.

use std::sync::Arc;

use opmas::config::{Folder, is_rule};
use opmas::correlate;
use opmas::engine::pipeline::{Found, Pipeline, Settings};
use opmas::model::{Entry, EntryBody, Event, Inventory, Record, Span, Time};
use opmas::normalise::{Normaliser, Options, State};
use serde_json::Value;

use super::{record, shipped, time};

const HOUR: i64 = 3_600;

/// The RFC 3164 stamp of a device's clock.
fn stamp(clock: Time) -> String {
    jiff::Timestamp::from_nanosecond(clock.0.into()).unwrap().strftime("%b %e %H:%M:%S").to_string()
}

/// Seconds after a moment in the middle of the year 2026.
fn at(seconds: i64) -> Time {
    Time(time("2026-06-20T10:00:00Z").0).plus(Span::secs(seconds))
}

struct Listener {
    normaliser: Normaliser,
    seq: u64,
}

impl Listener {
    fn new() -> Listener {
        Listener { normaliser: Normaliser::new(shipped(), Options::at(at(0))), seq: 0 }
    }

    fn record(host: &str, clock: Time, arrival: Time) -> Record {
        Record { arrival: Some(arrival), peer: Some("192.0.2.1".parse().unwrap()), ..record(format!("<13>{} {host} a: x", stamp(clock))) }
    }

    /// A line that the device wrote at `clock` by its own clock.
    fn hear(&mut self, host: &str, clock: Time, arrival: Time) -> Event {
        self.seq += 1;
        self.normaliser.normalise(self.seq, &Listener::record(host, clock, arrival), &Inventory::default())
    }

    /// A line every ten seconds from `from` to before `to`, by a clock that is `behind` by so many seconds; the last one.
    fn live(&mut self, from: i64, to: i64, behind: i64) -> Event {
        (from..to).step_by(10).map(|second| self.hear("ap1", at(second - behind), at(second))).last().unwrap()
    }
}

fn offset(event: &Event) -> Option<i64> {
    event.fields.get("clock_offset").and_then(Value::as_i64)
}

/// The event's time by a clock that is right, and its offset.
fn told(event: &Event) -> (i64, Option<i64>) {
    (event.time.since(at(0)).as_secs(), offset(event))
}

#[test]
fn t2_until_a_minute_has_passed_arrival_is_the_time() {
    let mut ap = Listener::new();
    for second in [0, 10, 50, 59] {
        let event = ap.hear("ap1", at(second - 2 * HOUR), at(second));
        assert_eq!((told(&event), event.time_from_arrival, event.text("stamp")), ((second, None), true, Some(&*stamp(at(second - 2 * HOUR)))));
    }
    let event = ap.hear("ap1", at(60 - 2 * HOUR), at(60));
    assert_eq!((told(&event), event.time_from_arrival), ((60, Some(2 * HOUR)), false));
    assert_eq!((event.text("timestamp"), event.text("stamp")), (Some("2026-06-20T10:01:00Z"), Some("Jun 20 08:01:00")));
}

#[test]
fn t2_a_zone_that_is_wrong_by_hours_ahead_or_behind() {
    for behind in [-11 * HOUR, -2 * HOUR, 0, 5 * HOUR + HOUR / 2] {
        assert_eq!(told(&Listener::new().live(0, 100, behind)), (90, Some(behind)));
    }
}

#[test]
fn t2_a_hosts_time_does_not_go_back_when_its_clock_becomes_known() {
    // A line a second, 20 ms under way, from a clock that has just struck; then a burst in the second in which the offset is believed.
    let of = |behind: i64, burst: &[i64]| -> Vec<i64> {
        let mut ap = Listener::new();
        let steady = (1..60).map(|second| second * 1_000 + 20);
        let heard = [500].into_iter().chain(steady).chain(burst.iter().copied()).map(|millis| {
            let second = millis.div_euclid(1_000);
            ap.hear("ap1", at(second - behind), at(0).plus(Span::millis(millis))).time.since(at(0)).0 / 1_000_000
        });
        heard.collect()
    };
    for behind in [0, 2 * HOUR, -HOUR] {
        let burst = [60_300, 60_350, 60_700, 60_999, 61_020, 61_300, 61_700, 62_900, 63_020];
        let times = of(behind, &burst);
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(times.last(), Some(&63_020));
    }
}

#[test]
fn t2_a_login_in_the_second_in_which_the_clock_becomes_known_comes_after_the_guessing() {
    let mut pipeline = shipped_pipeline();
    let mut seq = 0;
    let mut hear = |millis: i64, message: &str| {
        seq += 1;
        let raw = format!("<36>{} ap1 dropbear[7]: {message}", stamp(at(millis.div_euclid(1_000) - HOUR)));
        let arrival = Some(at(0).plus(Span::millis(millis)));
        let body = EntryBody::Record(Record { arrival, peer: Some("192.0.2.1".parse().unwrap()), ..record(raw) });
        pipeline.entry(&Entry { seq, body })
    };
    let quiet = "Early exit: Terminated by signal";
    let lines = [(500, quiet)]
        .into_iter()
        .chain((1..=60).map(|second| (second * 1_000 + 20, quiet)))
        .chain((0..6).map(|n| (60_300 + n * 20, "Bad password attempt for 'root' from 203.0.113.9:4711")))
        .chain([(60_700, "Password auth succeeded for 'root' from 203.0.113.9:4711")]);
    let heard: Vec<Found> = lines.flat_map(|(millis, message)| hear(millis, message)).collect();
    let told: Vec<_> = heard.iter().filter_map(|found| pipeline.finding(found)?.rule.name).collect();
    assert!(told.iter().any(|name| &**name == "openwrt_ssh_login_after_failures"), "{told:?}");
}

#[test]
fn t2_the_least_seen_delay_counts() {
    let mut ap = Listener::new();
    ap.live(0, 100, 0);
    // Half a second under way, or one and a half; the clock has not changed.
    let later = |ap: &mut Listener, second: i64, millis: i64| ap.hear("ap1", at(second), at(second).plus(Span::millis(millis))).time;
    assert_eq!(later(&mut ap, 100, 1_500), at(100));
    assert_eq!(later(&mut ap, 110, 500), at(110));
    // Fifteen seconds in a queue are no other clock, however many wait there.
    (120..135).for_each(|second| assert_eq!(told(&ap.hear("ap1", at(second), at(135))), (second, Some(0))));
}

#[test]
fn t2_a_clock_that_drifts() {
    // Two seconds in an hour, slow and fast: the time is never further off than the jitter and a minute's drift.
    for step in [-1, 1] {
        let mut ap = Listener::new();
        ap.live(0, 100, 0);
        for second in (100..24 * HOUR).step_by(30) {
            let event = ap.hear("ap1", at(second - step * second / 1_800), at(second));
            let error = second - told(&event).0;
            assert!((0..=3).contains(&error), "{error} s at {second}");
        }
        let event = ap.hear("ap1", at(24 * HOUR - step * 48), at(24 * HOUR));
        assert!((offset(&event).unwrap() - step * 48).abs() <= 3, "{event:?}");
    }
}

#[test]
fn t2_a_sparse_clock_that_drifts_is_followed() {
    let mut ap = Listener::new();
    for day in 0..60 {
        let event = ap.hear("ap1", at(day * 24 * HOUR - day * 8), at(day * 24 * HOUR));
        assert!((0..=24).contains(&(day * 24 * HOUR - told(&event).0)), "{day}: {event:?}");
    }
}

#[test]
fn t2_daylight_saving_forth_and_back() {
    let mut ap = Listener::new();
    ap.live(0, 100, -HOUR);
    // Forth: no queue makes lines come early, so it is the clock.
    assert_eq!(told(&ap.live(100, 110, -2 * HOUR)), (100, None));
    assert_eq!(told(&ap.live(110, 170, -2 * HOUR)), (160, Some(-2 * HOUR)));
    // Back: stamps go back, so it is no queue either.
    assert_eq!(told(&ap.live(170, 180, -HOUR)), (170, None));
    assert_eq!(told(&ap.live(180, 240, -HOUR)), (230, Some(-HOUR)));
}

#[test]
fn t2_boot_in_1970_then_ntp() {
    let mut ap = Listener::new();
    ap.live(0, 100, 0);
    for second in 100..130 {
        let event = ap.hear("ap1", Time(second * 1_000_000_000), at(second));
        assert_eq!((told(&event), event.time_from_arrival), ((second, None), true), "the stamp says another day");
    }
    assert_eq!(told(&ap.hear("ap1", at(130), at(130))), (130, Some(0)), "what was believed before the boot holds at once");
    // For longer: the clock of 1970 is believed, and then the right one.
    let mut ap = Listener::new();
    let booted: Vec<i64> = (0..300).map(|second| told(&ap.hear("ap1", Time(second * 1_000_000_000), at(second))).0).collect();
    assert_eq!(booted, (0..300).collect::<Vec<_>>());
    assert_eq!(told(&ap.live(300, 310, 0)), (300, None));
    assert_eq!(told(&ap.live(310, 400, 0)), (390, Some(0)));
}

#[test]
fn t2_a_backlog_of_two_hours_in_a_second_keeps_its_own_times() {
    let mut ap = Listener::new();
    ap.live(0, 100, 3 * HOUR);
    let back = 100 + 2 * HOUR;
    for second in (100..back).step_by(10) {
        let arrival = at(back).plus(Span::millis(second * 1_000 / back));
        assert_eq!(told(&ap.hear("ap1", at(second - 3 * HOUR), arrival)), (second, Some(3 * HOUR)));
    }
    assert_eq!(told(&ap.live(back + 10, back + 100, 3 * HOUR)), (back + 90, Some(3 * HOUR)));
}

#[test]
fn t2_a_device_that_jumps_about_changes_nothing_for_itself_and_others() {
    let mut ap = Listener::new();
    ap.live(0, 100, 0);
    ap.hear("ap2", at(0), at(0));
    for (n, clock) in [at(70 * 24 * HOUR), at(-90), at(500), at(40 * HOUR)].into_iter().enumerate() {
        let second = 100 + n as i64 * 10;
        assert_eq!(told(&ap.hear("ap1", clock, at(second))), (second, None));
        assert_eq!(told(&ap.hear("ap1", at(second + 5), at(second + 5))), (second + 5, Some(0)));
    }
    assert_eq!(told(&ap.hear("ap2", at(200), at(200))), (200, Some(0)));
}

#[test]
fn t2_two_devices_of_one_name_have_a_clock_each() {
    let mut both = Listener::new();
    let mut hear = |peer: &str, behind: i64, second: i64| {
        let record = Record { peer: Some(peer.parse().unwrap()), ..Listener::record("OpenWrt", at(second - behind), at(second)) };
        told(&both.normaliser.normalise(second as u64, &record, &Inventory::default()))
    };
    let last = (0..100).map(|second| (hear("192.0.2.1", 0, second), hear("192.0.2.2", 2 * HOUR, second))).last();
    assert_eq!(last, Some(((99, Some(0)), (99, Some(2 * HOUR)))));
}

#[test]
fn t2_what_is_learned_survives_a_checkpoint_at_every_line() {
    let (mut whole, mut parts) = (Listener::new(), Listener::new());
    for (clock, arrival) in (0..200).map(|s| (s - 500, s)).chain((200..400).map(|s| (s - 500, 400))).chain((400..600).map(|s| (s, s))) {
        let kept: State = postcard::from_bytes(&postcard::to_stdvec(parts.normaliser.state()).unwrap()).unwrap();
        parts.normaliser = Normaliser::new(shipped(), Options::at(at(0)));
        parts.normaliser.restore(kept);
        assert_eq!(parts.hear("ap1", at(clock), at(arrival)), whole.hear("ap1", at(clock), at(arrival)));
    }
}

fn shipped_pipeline() -> Pipeline {
    let files: Vec<_> = Folder::Rules.shipped().into_iter().filter(|file| is_rule(&file.name)).collect();
    let rules = Arc::new(correlate::load(&files).set);
    let normaliser = Normaliser::new(shipped(), Options::at(at(0)));
    Pipeline::new(rules, normaliser, Arc::new(Inventory::default()), Settings::default()).unwrap()
}

/// Failed logins, one in `every` seconds for two hours, as the shipped rules see them.
fn guessing(every: i64, arrival: impl Fn(i64) -> Time) -> Vec<Found> {
    let mut pipeline = shipped_pipeline();
    let mut seq = 0;
    let mut hear = |second: i64, arrival: Time, message: &str| {
        seq += 1;
        let raw = format!("<36>{} ap1 dropbear[7]: {message}", stamp(at(second - 5 * HOUR)));
        let body = EntryBody::Record(Record { arrival: Some(arrival), peer: Some("192.0.2.1".parse().unwrap()), ..record(raw) });
        pipeline.entry(&Entry { seq, body })
    };
    (0..100).for_each(|second| drop(hear(second, at(second), "Early exit: Terminated by signal")));
    (100..2 * HOUR).step_by(every as usize).flat_map(|second| hear(second, arrival(second), "Bad password attempt for 'root' from 203.0.113.9:4711")).collect()
}

#[test]
fn t2_a_backlog_makes_no_false_findings_and_hides_none() {
    let drained = |_| at(2 * HOUR);
    let of = |found: Vec<Found>| found.iter().filter(|found| found.group.is_some()).map(|found| (found.place, found.id())).collect::<Vec<_>>();
    assert_eq!(of(guessing(600, drained)), [], "a mistyped password every ten minutes is nobody's guessing");
    let live = of(guessing(5, at));
    assert!(!live.is_empty());
    assert_eq!(of(guessing(5, drained)), live, "the same findings, at the same times, as if they had come at once");
}
