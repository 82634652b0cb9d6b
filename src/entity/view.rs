//! Which MAC, address, name and access point belong together, learned from events in their order and asked for a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::Equivalent;
use serde::{Deserialize, Serialize, Serializer};
use smallvec::SmallVec;

use super::buckets::{Buckets, Remains};
use super::value::{canonical_text, mac_digits};
use crate::model::{Event, Span, Time, Trust};

/// What is known of so many addresses, names and MACs; beyond it what nothing was learned of for longest is forgotten.
pub const MAX_KNOWN: usize = 40_000;
/// How often the same was said of one of them that is remembered.
const MAX_FACTS: usize = 8;
/// What nothing has confirmed for so long is not known any more: leases are renewed several times a day.
const HOLDS: Span = Span::secs(7 * 86_400);
/// The field whose names are learned: what a DHCP client calls itself. Other names, such as a router's, are not the client's to take.
const CLIENT_NAME: &str = "client_host";

/// Whether events of this `action` say who is who.
#[must_use]
pub fn teaches(action: &str) -> bool {
    matches!(action, "dhcp_ack" | "neighbour" | "dhcp_release" | "wifi_associated" | "wifi_connected")
}

/// What a group-by asks of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ask {
    /// `entity.ROLE`: the MAC, else the value itself.
    Itself,
    /// `entity.ROLE.mac`
    Mac,
    /// `entity.ROLE.ip`
    Ip,
    /// `entity.ROLE.name`: what it calls itself to the DHCP server.
    Name,
    /// `entity.ROLE.access_point`: the host where it associated last.
    AccessPoint,
}

impl Ask {
    /// The role and the question of a group-by name that begins with `entity.`; `Err` with the word that is no question.
    ///
    /// # Errors
    /// What stands behind the role is none of the words.
    pub fn parse(name: &str) -> Option<Result<(&str, Ask), &str>> {
        let rest = name.strip_prefix("entity.")?;
        let Some((role, word)) = rest.split_once('.') else { return Some(Ok((rest, Ask::Itself))) };
        let words = [("mac", Ask::Mac), ("ip", Ask::Ip), ("name", Ask::Name), ("access_point", Ask::AccessPoint)];
        Some(words.iter().find(|(known, _)| *known == word).map(|(_, ask)| (role, *ask)).ok_or(word))
    }
}

/// That something was so at a time, and then until something else was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Fact {
    from: Time,
    /// `None`: it was given up.
    value: Option<Arc<str>>,
    trust: Trust,
}

/// What is asked of whom: a MAC's digits, an address, or `CLIENT_NAME` and a name.
type Subject = (Ask, Arc<str>);

#[derive(Hash)]
struct Sought<'a>(Ask, &'a str);

impl Equivalent<Subject> for Sought<'_> {
    fn equivalent(&self, (ask, text): &Subject) -> bool {
        (self.0, self.1) == (*ask, text)
    }
}

/// In the order of time; of most there is one.
type Facts = SmallVec<[Fact; 1]>;

/// The facts by subject. What was learned of lately is in `young`; when that is full it is `old`, and what was old and not learned of since
/// is forgotten. A clone shares what neither changes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct View {
    young: Shelf,
    old: Shelf,
    /// What is forgotten.
    #[serde(skip)]
    gone: Remains<Subject, Facts>,
}

/// Facts by subject. It is written as an ordered map is (stable).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "BTreeMap<Subject, Vec<Fact>>")]
struct Shelf(Buckets<Subject, Facts>);

impl Serialize for Shelf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sorted: BTreeMap<&Subject, &[Fact]> = self.0.iter().map(|(subject, facts)| (subject, facts.as_slice())).collect();
        sorted.serialize(serializer)
    }
}

impl From<BTreeMap<Subject, Vec<Fact>>> for Shelf {
    fn from(map: BTreeMap<Subject, Vec<Fact>>) -> Shelf {
        let mut buckets = Buckets::default();
        for (subject, facts) in map {
            buckets.get_or_insert_with(subject, || facts.into());
        }
        Shelf(buckets)
    }
}

impl View {
    /// Takes in what an event says of who is who, if it does.
    pub fn learn(&mut self, event: &Event) {
        let Some(action) = event.text("action").filter(|action| teaches(action)) else { return };
        let of = |name: &str| event.text(name).map(|text| Arc::<str>::from(canonical_text(text, name == CLIENT_NAME)));
        let Some(mac) = event.text("mac").and_then(mac_digits).map(Arc::from) else { return };
        let said = (event.time, event.trust);
        match action {
            "dhcp_ack" | "neighbour" | "dhcp_release" => {
                let here = action != "dhcp_release";
                if let Some(ip) = of("client_ip") {
                    self.put((Ask::Mac, Arc::clone(&ip)), here.then(|| Arc::clone(&mac)), said);
                    self.put((Ask::Ip, Arc::clone(&mac)), here.then_some(ip), said);
                }
                if let Some(name) = of(CLIENT_NAME).filter(|_| here) {
                    self.put((Ask::Mac, called(&name)), Some(Arc::clone(&mac)), said);
                    self.put((Ask::Name, mac), Some(name), said);
                }
            }
            _ => {
                if let Some(point) = event.text("device").or_else(|| event.text("host")) {
                    self.put((Ask::AccessPoint, mac), Some(point.to_lowercase().into()), said);
                }
            }
        }
    }

    fn put(&mut self, subject: Subject, value: Option<Arc<str>>, (time, trust): (Time, Trust)) {
        let mut known = None;
        if self.young.0.len() >= MAX_KNOWN / 2 && self.young.0.get(&subject).is_none() {
            known = self.old.0.remove(&subject);
            let old = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.gone = old.0.into();
        }
        // By the time when it is old, what was old before is gone.
        self.gone.free_some();
        let View { young, old, .. } = self;
        let known = || known.or_else(|| old.0.remove(&subject)).map(|(_, known)| known).unwrap_or_default();
        let Some(facts) = young.0.get_or_insert_with(subject.clone(), known) else { return };
        let at = facts.partition_point(|fact| fact.from <= time);
        let before = at.checked_sub(1).and_then(|before| facts.get(before));
        let same = before.is_some_and(|before| before.value == value);
        // Whoever can send a datagram does not take a verified one's place.
        let stronger = before.filter(|before| trust < before.trust && time <= before.from.plus(HOLDS));
        match stronger {
            Some(before) if same => facts.insert(at, Fact { from: time, value, trust: before.trust }),
            Some(_) => return,
            None => facts.insert(at, Fact { from: time, value, trust }),
        }
        if facts.len() > MAX_FACTS {
            facts.remove(0);
        }
    }

    fn at(&self, ask: Ask, subject: &str, time: Time) -> Option<&Arc<str>> {
        let sought = Sought(ask, subject);
        let facts = self.young.0.get(&sought).or_else(|| self.old.0.get(&sought))?;
        let before = facts.partition_point(|fact| fact.from <= time).checked_sub(1)?;
        facts.get(before).filter(|fact| time <= fact.from.plus(HOLDS))?.value.as_ref()
    }

    /// What is asked of the entity that `field` holds with this canonical value, as it was at `time`; `None` when that is not known.
    #[must_use]
    pub fn resolve(&self, ask: Ask, field: &str, value: &str, time: Time) -> Option<Arc<str>> {
        let name = if field == CLIENT_NAME { called(value) } else { Arc::from(value) };
        let mac = mac_digits(value).map(Arc::from).or_else(|| self.at(Ask::Mac, &name, time).cloned());
        match ask {
            Ask::Itself => Some(mac.unwrap_or_else(|| Arc::from(value))),
            Ask::Mac => mac,
            _ => self.at(ask, &mac?, time).cloned(),
        }
    }
}

fn called(name: &str) -> Arc<str> {
    format!("{CLIENT_NAME} {name}").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject(n: usize) -> Subject {
        (Ask::Mac, format!("10.0.0.{n}").into())
    }

    proptest! {
        #[test]
        fn c15_it_is_what_was_said_last_before_the_time(said in prop::collection::vec((0..3usize, 0..4usize, 0..40i64, any::<bool>()), 0..8), asked in 0..40i64) {
            let mut view = View::default();
            for (ip, mac, time, here) in &said {
                view.put(subject(*ip), here.then(|| mac.to_string().into()), (Time(*time), Trust::Verified));
            }
            for ip in 0..3 {
                // Of what was said for the same time the last counts.
                let expected = said.iter().enumerate().filter(|(_, (of, _, time, _))| *of == ip && *time <= asked).max_by_key(|(n, (_, _, time, _))| (*time, *n));
                let expected = expected.and_then(|(_, (_, mac, _, here))| here.then(|| mac.to_string()));
                prop_assert_eq!(view.at(Ask::Mac, &subject(ip).1, Time(asked)).map(|mac| mac.to_string()), expected);
            }
        }
    }

    #[test]
    fn c15_an_open_source_does_not_take_a_verified_ones_place() {
        let mut view = View::default();
        let mut put = |mac: &str, secs: i64, trust| view.put(subject(1), Some(mac.into()), (Time(Span::secs(secs).0), trust));
        put("a", 0, Trust::Verified);
        put("b", 10, Trust::Open);
        put("c", 8 * 86_400, Trust::Open);
        put("d", 8 * 86_400 + 1, Trust::Verified);
        let at = |secs: i64| view.at(Ask::Mac, "10.0.0.1", Time(Span::secs(secs).0)).map(|mac| mac.to_string());
        assert_eq!([at(-1), at(10), at(7 * 86_400), at(7 * 86_400 + 1)], [None, Some("a".into()), Some("a".into()), None]);
        assert_eq!([at(8 * 86_400), at(8 * 86_400 + 1)], [Some("c".into()), Some("d".into())]);
    }

    #[test]
    fn c15_it_is_bounded_and_what_is_renewed_stays() {
        let mut view = View::default();
        for n in 0..100_000usize {
            view.put((Ask::Mac, n.to_string().into()), Some("x".into()), (Time(n as i64), Trust::Open));
            view.put(subject(1), Some((n % 20).to_string().into()), (Time(n as i64), Trust::Open));
        }
        assert!(view.young.0.len() + view.old.0.len() <= MAX_KNOWN);
        assert_eq!(view.at(Ask::Mac, "10.0.0.1", Time(99_999)).map(|mac| &**mac), Some("19"));
        assert!(view.young.0.iter().chain(view.old.0.iter()).all(|(_, facts)| facts.len() <= MAX_FACTS));
        let bytes = postcard::to_stdvec(&view).unwrap();
        let read: View = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read.at(Ask::Mac, "10.0.0.1", Time(99_999)), view.at(Ask::Mac, "10.0.0.1", Time(99_999)));
        assert_eq!((read.young.0.len(), read.old.0.len()), (view.young.0.len(), view.old.0.len()));
        assert_eq!(postcard::to_stdvec(&read).unwrap(), bytes);
        // What was written before there were buckets.
        let map: BTreeMap<Subject, Vec<Fact>> = view.young.0.iter().map(|(subject, facts)| (subject.clone(), facts.to_vec())).collect();
        assert_eq!(postcard::to_stdvec(&view.young).unwrap(), postcard::to_stdvec(&map).unwrap());
    }
}
