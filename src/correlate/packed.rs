//! A group as bytes: small ones rest like that, and all stand like that in checkpoints. Stable within a snapshot version.

use std::sync::Arc;

use super::arena::MAX_LEN;
use super::group::Group;
use super::hosts::Whose;
use super::known::Known;
use super::measure::Datum;
use super::place::Place;
use super::timer::Timer;
use super::window::{Entry, Rare};
use super::wire::{Reader, put, put_overlay, put_signed, put_text};
use crate::model::{Time, Trust};

/// Entries up to which a group rests as bytes, and those that bring more than their places.
const FEW: usize = 8;
const FEW_LONG: usize = 3;
/// Times are mostly apart by whole microseconds.
const UNIT: i64 = 1_000;

// What a group has.
const ARMED: u64 = 1;
const ANNOUNCED: u64 = 1 << 1;
const FIRED: u64 = 1 << 2;
const PRUNED: u64 = 1 << 3;
const WAITS: u64 = 1 << 4;
const SETTLED: u64 = 1 << 5;
const TIMER: u64 = 1 << 6;
const TALLY: u64 = 1 << 7;
const KNOWN: u64 = 1 << 8;

// What an entry has: none of it, mostly, but the first.
const WHOLE: u64 = 1;
const REFS: u64 = 1 << 1;
const WEIGHT: u64 = 1 << 2;
const HELD: u64 = 1 << 3;
const RULE_FIRED: u64 = 1 << 4;
const OPEN: u64 = 1 << 5;
const VALUE: u64 = 1 << 6;
const OVERLAY: u64 = 1 << 7;
const MORE: u64 = 1 << 8;
const BEHIND: u64 = 1 << 9;
const UNCOUNTED: u64 = 1 << 10;
const JOINED: u64 = 1 << 11;

/// Whether a group is to rest as bytes.
pub(super) fn is_small(group: &Group) -> bool {
    let len = group.entries.len();
    let plain = |entry: &Entry| entry.overlay().is_none() && entry.value.is_none() && entry.more().is_empty();
    group.known.is_none() && (len <= FEW_LONG || len <= FEW && group.entries.iter().all(plain))
}

fn flag(yes: bool, flag: u64) -> u64 {
    if yes { flag } else { 0 }
}

/// Writes a group; its stream by number. Whether that is short enough to rest so.
pub(super) fn write(out: &mut Vec<u8>, text: &str, stream: u32, group: &Group) -> bool {
    let Group { entries, armed, announced, fired, pruned, clock, waits_for, tally, settled, timer, known, stream: _ } = group;
    put_text(out, text);
    out.push(u8::from(timer.is_some()));
    out.extend_from_slice(&clock.0.to_le_bytes());
    put(out, u64::from(stream));
    let flags = flag(*armed, ARMED)
        | flag(announced.is_some(), ANNOUNCED)
        | flag(fired.is_some(), FIRED)
        | flag(pruned.is_some(), PRUNED)
        | flag(waits_for.is_some(), WAITS)
        | flag(settled.is_some(), SETTLED)
        | flag(timer.is_some(), TIMER)
        | flag(!tally.is_empty(), TALLY)
        | flag(known.is_some(), KNOWN);
    put(out, flags);
    announced.iter().chain(settled).for_each(|place| put_place(out, *clock, *place));
    fired.iter().chain(pruned).for_each(|time| put_time(out, *clock, *time));
    waits_for.iter().for_each(|whose| put_whose(out, whose));
    if let Some(Timer { opened, due, whose }) = timer {
        put_place(out, *clock, *opened);
        put_time(out, *clock, *due);
        out.push(u8::from(whose.is_some()));
        whose.iter().for_each(|whose| put_whose(out, whose));
    }
    if flags & TALLY != 0 {
        tally.write(out);
    }
    known.iter().for_each(|known| known.write(out));
    put(out, entries.len() as u64);
    let mut before = Place { time: *clock, seq: 0 };
    for entry in entries.iter() {
        write_entry(out, before, entry);
        before = entry.place;
    }
    out.len() <= MAX_LEN
}

fn write_entry(out: &mut Vec<u8>, before: Place, entry: &Entry) {
    let Entry { place, refs, weight, counted, value, trust, held, fired, .. } = entry;
    let (since, overlay, more, behind) = (entry.since(), entry.overlay(), entry.more(), entry.behind());
    let apart = before.time.0.wrapping_sub(place.time.0);
    let flags = flag(apart % UNIT == 0, WHOLE)
        | flag(*refs != 1, REFS)
        | flag(*weight != 1, WEIGHT)
        | flag(*held, HELD)
        | flag(*fired, RULE_FIRED)
        | flag(*trust == Trust::Open, OPEN)
        | flag(value.is_some(), VALUE)
        | flag(overlay.is_some(), OVERLAY)
        | flag(!more.is_empty(), MORE)
        | flag(behind.is_some(), BEHIND)
        | flag(!counted, UNCOUNTED)
        | flag(since != *place, JOINED);
    put(out, flags);
    put_signed(out, if flags & WHOLE != 0 { apart / UNIT } else { apart });
    put_signed(out, place.seq.wrapping_sub(before.seq) as i64);
    if flags & REFS != 0 {
        put(out, *refs);
    }
    if flags & WEIGHT != 0 {
        put(out, u64::from(*weight));
    }
    value.iter().for_each(|datum| put_datum(out, datum));
    overlay.iter().for_each(|overlay| put_overlay(out, overlay));
    if flags & MORE != 0 {
        put(out, more.len() as u64);
        more.iter().for_each(|datum| put_datum(out, datum));
    }
    behind.iter().for_each(|whose| put_whose(out, whose));
    if flags & JOINED != 0 {
        put_place(out, place.time, since);
    }
}

/// What stands before everything else in a group's bytes: its text, whether it has an open timer, its clock, its stream.
pub(super) fn read_head<'a>(reader: &mut Reader<'a>) -> Option<(&'a str, bool, Time, u32)> {
    let text = reader.text()?;
    let timer = reader.byte()? != 0;
    let clock = Time(i64::from_le_bytes(*reader.chunk()?));
    Some((text, timer, clock, u32::try_from(reader.number()?).ok()?))
}

/// Reads what follows the head into a group, whose stream stays.
pub(super) fn read(reader: &mut Reader<'_>, clock: Time, group: &mut Group) -> Option<()> {
    let flags = reader.number()?;
    let has = |flag: u64| flags & flag != 0;
    group.clock = clock;
    group.armed = has(ARMED);
    group.announced = if has(ANNOUNCED) { Some(place(reader, clock)?) } else { None };
    group.settled = if has(SETTLED) { Some(place(reader, clock)?) } else { None };
    group.fired = if has(FIRED) { Some(time(reader, clock)?) } else { None };
    group.pruned = if has(PRUNED) { Some(time(reader, clock)?) } else { None };
    group.waits_for = if has(WAITS) { Some(whose(reader)?) } else { None };
    group.timer = None;
    if has(TIMER) {
        let (opened, due) = (place(reader, clock)?, time(reader, clock)?);
        let whose = if reader.byte()? == 0 { None } else { Some(whose(reader)?) };
        group.timer = Some(Timer { opened, due, whose });
    }
    group.tally.clear();
    if has(TALLY) {
        group.tally.read(reader)?;
    }
    group.known = if has(KNOWN) { Some(Box::new(Known::read(reader)?)) } else { None };
    group.entries.wipe();
    let mut before = Place { time: clock, seq: 0 };
    for _ in 0..reader.len()? {
        let entry = read_entry(reader, before)?;
        before = entry.place;
        group.entries.restore(entry);
    }
    Some(())
}

fn read_entry(reader: &mut Reader<'_>, before: Place) -> Option<Entry> {
    let flags = reader.number()?;
    let has = |flag: u64| flags & flag != 0;
    let apart = reader.signed()?;
    let apart = if has(WHOLE) { apart.checked_mul(UNIT)? } else { apart };
    let place = Place { time: Time(before.time.0.wrapping_sub(apart)), seq: before.seq.wrapping_add(reader.signed()? as u64) };
    let refs = if has(REFS) { reader.number()? } else { 1 };
    let weight = if has(WEIGHT) { u32::try_from(reader.number()?).ok()? } else { 1 };
    let value = if has(VALUE) { Some(datum(reader)?) } else { None };
    let overlay = if has(OVERLAY) { Some(Arc::new(reader.overlay()?)) } else { None };
    let mut more = Vec::new();
    if has(MORE) {
        for _ in 0..reader.len()? {
            more.push(datum(reader)?);
        }
    }
    let behind = if has(BEHIND) { Some(whose(reader)?) } else { None };
    let since = if has(JOINED) { Some(self::place(reader, place.time)?) } else { None };
    let trust = if has(OPEN) { Trust::Open } else { Trust::Verified };
    let (counted, held, fired) = (!has(UNCOUNTED), has(HELD), has(RULE_FIRED));
    let rare = Rare { since, overlay, more, behind }.kept();
    Some(Entry { place, refs, value, rare, weight, counted, trust, held, fired })
}

fn put_time(out: &mut Vec<u8>, clock: Time, time: Time) {
    put_signed(out, clock.0.wrapping_sub(time.0));
}

fn time(reader: &mut Reader<'_>, clock: Time) -> Option<Time> {
    Some(Time(clock.0.wrapping_sub(reader.signed()?)))
}

fn put_place(out: &mut Vec<u8>, clock: Time, place: Place) {
    put_time(out, clock, place.time);
    put(out, place.seq);
}

fn place(reader: &mut Reader<'_>, clock: Time) -> Option<Place> {
    Some(Place { time: time(reader, clock)?, seq: reader.number()? })
}

fn put_whose(out: &mut Vec<u8>, whose: &Whose) {
    let (kind, name) = match whose {
        Whose::Host(name) => (0, name),
        Whose::Stream(name) => (1, name),
    };
    out.push(kind);
    put_text(out, name);
}

fn whose(reader: &mut Reader<'_>) -> Option<Whose> {
    let of = match reader.byte()? {
        0 => Whose::Host,
        1 => Whose::Stream,
        _ => return None,
    };
    Some(of(reader.text()?.into()))
}

fn put_datum(out: &mut Vec<u8>, datum: &Datum) {
    match datum {
        Datum::Number(number) => {
            out.push(0);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Datum::Text(text) => {
            out.push(1);
            put_text(out, text);
        }
    }
}

fn datum(reader: &mut Reader<'_>) -> Option<Datum> {
    match reader.byte()? {
        0 => reader.float().map(Datum::Number),
        1 => reader.text().map(|text| Datum::Text(text.into())),
        _ => None,
    }
}
