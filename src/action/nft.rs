//! Reads back an address in a set from what `nft -j` prints (libnftables-json(5)).
//!
//! Two listings: the tables (so that "no such table" is told from any other error) with the flowtables, and table `inet opmas`. Most of what nft
//! costs a router is its start.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::check::{CommandResult, Readback, ReadbackState, listed, printed_else, too_few};
use super::params::Params;
use super::template::Template;
use super::value::ParamValue;
use crate::model::Span;

/// `nft -j 'list tables; list flowtables'`, `nft -j list table inet opmas`.
pub(super) const LISTINGS: usize = 2;
/// The chains' priority: before fw4's filter chains, so that its accept of established connections comes too late.
const PRIORITY: i64 = -10;
/// How much earlier than asked the device may end the effect: time passes between applying and reading back.
pub(super) const EARLY: Span = Span::secs(30);

/// The table of our own.
const TABLE: &str = "opmas";

/// An element of a set, and the rules that look it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NftSet {
    pub(super) set: Template,
    /// An address: the host, or the first of a network.
    pub(super) element: Template,
    /// The parameter that holds the lifetime.
    pub(super) lifetime: Option<String>,
    /// The element must not be there; then rules do not matter.
    pub(super) absent: bool,
    /// By chain, whose name begins with its hook: the rules that must be there, as [`rule`] writes them.
    pub(super) rules: Vec<(Template, Vec<Template>)>,
}

/// With the values of a call.
struct Wanted {
    set: String,
    element: IpAddr,
    lifetime: Option<Span>,
    rules: Vec<(String, Vec<String>)>,
}

impl NftSet {
    /// Judges whether the element is there, for about its lifetime from now, and whether rules look it up.
    pub(super) fn judge(&self, params: &Params, results: &[CommandResult]) -> Readback {
        let Ok(element) = self.element.render(params).parse() else {
            return Readback::new(ReadbackState::Unknown, "the call has no address");
        };
        let wanted = Wanted { set: self.set.render(params), element, lifetime: self.lifetime(params), rules: self.rules(params) };
        match listings(results) {
            Ok(listings) if self.absent => wanted.absent(&listings.table.unwrap_or_default()),
            Ok(Listings { table: None, .. }) => {
                Readback::new(ReadbackState::Absent, format!("{element} is not in set {}: table inet {TABLE} is not there", wanted.set))
            }
            Ok(Listings { table: Some(table), all }) => wanted.judge(&table, &all),
            Err(why) => Readback::new(ReadbackState::Unknown, why),
        }
    }

    /// For how long it was asked for.
    pub(super) fn lifetime(&self, params: &Params) -> Option<Span> {
        self.lifetime.as_deref().and_then(|name| params.get(name)).and_then(|value| match value {
            ParamValue::Duration(span) => Some(*span),
            _ => None,
        })
    }

    /// By chain, the rules.
    pub(super) fn rules(&self, params: &Params) -> Vec<(String, Vec<String>)> {
        let render = |templates: &[Template]| templates.iter().map(|template| template.render(params)).collect();
        self.rules.iter().map(|(chain, rules)| (chain.render(params), render(rules))).collect()
    }
}

struct Listings {
    /// The objects of our table; `None` when there is no such table.
    table: Option<Vec<Value>>,
    /// Tables and flowtables.
    all: Vec<Value>,
}

fn listings(results: &[CommandResult]) -> Result<Listings, String> {
    let [all, table] = results else {
        return Err(too_few(results, LISTINGS));
    };
    let ours = |object: &Value| object.get("table").is_some_and(|t| text(t, "family") == Some("inet") && text(t, "name") == Some(TABLE));
    let all = objects(all, "nft -j list tables; list flowtables", 2)?;
    let there = all.iter().any(ours);
    let table = if there { Some(objects(table, "nft -j list table inet opmas", 1)?) } else { None };
    Ok(Listings { table, all })
}

/// The objects of so many listings, one after the other: the items of their `nftables`.
fn objects(result: &CommandResult, what: &str, listings: usize) -> Result<Vec<Value>, String> {
    let printed = listed(result, what)?;
    let items = |document: Value| match document {
        Value::Object(mut map) => map.remove("nftables").and_then(|items| serde_json::from_value::<Vec<Value>>(items).ok()),
        _ => None,
    };
    let documents = serde_json::Deserializer::from_slice(printed).into_iter();
    let found: Option<Vec<Vec<Value>>> = documents.map(|document| document.ok().and_then(items)).collect();
    match found.filter(|found| found.len() == listings) {
        Some(found) => Ok(found.into_iter().flatten().collect()),
        None => Err(format!("`{what}` {}", printed_else(printed, "a listing in JSON"))),
    }
}

/// The command whose answer [`tables`] reads.
pub const LIST_TABLES: &str = "nft -j list tables";

/// What nft calls itself, and the tables, such as `inet fw4`.
///
/// # Errors
/// It did not list them: what it did instead.
pub fn tables(result: &CommandResult) -> Result<(Option<String>, Vec<String>), String> {
    let objects = objects(result, LIST_TABLES, 1)?;
    let version = objects.iter().find_map(|object| text(object.get("metainfo")?, "version")).map(|version| format!("nftables v{version}"));
    let name = |table: &Value| Some(format!("{} {}", text(table, "family")?, text(table, "name")?));
    Ok((version, objects.iter().filter_map(|object| name(object.get("table")?)).collect()))
}

impl Wanted {
    fn judge(&self, table: &[Value], flowtables: &[Value]) -> Readback {
        let Wanted { set, element, .. } = self;
        let Some(expires_in) = self::element(*element, set, table) else {
            return Readback::new(ReadbackState::Absent, format!("{element} is not in set {set}"));
        };
        let mut wrong: Vec<String> = self.rules.iter().flat_map(|(chain, rules)| chain_faults(chain, rules, table)).collect();
        if let (Some(left), Some(asked)) = (expires_in, self.lifetime)
            && left.0.saturating_add(EARLY.0) < asked.0
        {
            wrong.push("the device will end it earlier than asked".to_owned());
        }
        if dormant(table) {
            wrong.push(format!("table inet {TABLE} is dormant"));
        }
        if flowtables.iter().any(|object| object.get("flowtable").is_some()) {
            wrong.push("flow offloading is on, and packets of offloaded connections pass no forward chain".to_owned());
        }
        let (state, detail) = if wrong.is_empty() {
            let chains: Vec<&str> = self.rules.iter().map(|(chain, _)| chain.as_str()).collect();
            (ReadbackState::Enforced, format!("{element} is in set {set}, and the rules of {} look it up", chains.join(" and ")))
        } else {
            (ReadbackState::Partial, format!("{element} is in set {set}, but {}", wrong.join("; ")))
        };
        Readback { state, detail, expires_in }
    }

    /// That the element is gone, and that no blocked network holds the address.
    fn absent(&self, table: &[Value]) -> Readback {
        let Wanted { set, element, .. } = self;
        if self::element(*element, set, table).is_some() {
            return Readback::new(ReadbackState::Absent, format!("{element} is still in set {set}"));
        }
        let network = |name: &str| {
            let length = name.strip_prefix("nets")?.split_once('_')?.1.parse().ok()?;
            IpNet::new(*element, length).ok().map(|net| net.trunc())
        };
        let sets = table.iter().filter_map(|object| text(object.get("set")?, "name"));
        let around = sets.filter_map(|name| network(name).filter(|net| self::element(net.addr(), name, table).is_some())).next();
        match around {
            Some(net) => Readback::new(ReadbackState::Partial, format!("{element} is not in set {set}, but the network {net} is blocked")),
            None => Readback::new(ReadbackState::Enforced, format!("{element} is not in set {set}")),
        }
    }
}

/// `Some(how long still)` when the address is in the set; the inner `None` when it stays for good.
#[expect(clippy::option_option, reason = "absent, without end, and with an end are three answers")]
fn element(address: IpAddr, set: &str, table: &[Value]) -> Option<Option<Span>> {
    let set = table.iter().filter_map(|object| object.get("set")).find(|s| text(s, "name") == Some(set) && is_ours(s))?;
    let elements = set.get("elem")?.as_array()?;
    elements.iter().find_map(|item| {
        let timed = item.get("elem");
        let written = timed.map_or(item, |e| e.get("val").unwrap_or(&Value::Null)).as_str()?;
        let same = written.parse::<IpAddr>().is_ok_and(|ip| ip == address);
        same.then(|| timed.and_then(|e| e.get("expires")).and_then(Value::as_i64).map(Span::secs))
    })
}

fn dormant(table: &[Value]) -> bool {
    let flagged = |flags: &Value| flags.as_str() == Some("dormant") || flags.as_array().is_some_and(|list| list.iter().any(|f| f.as_str() == Some("dormant")));
    table.iter().filter_map(|object| object.get("table")).any(|t| t.get("flags").is_some_and(flagged))
}

/// What is missing or in the way in a chain.
fn chain_faults(name: &str, wanted: &[String], table: &[Value]) -> Vec<String> {
    let hook = name.split('_').next().unwrap_or_default();
    let chain = table.iter().filter_map(|object| object.get("chain")).find(|c| text(c, "name") == Some(name) && is_ours(c));
    match chain {
        None => vec![format!("chain {name} is missing")],
        Some(chain) if !hooked(chain, hook) => vec![format!("chain {name} is not a filter chain at hook {hook}, priority {PRIORITY}")],
        Some(_) => rule_faults(name, wanted, table),
    }
}

fn hooked(chain: &Value, hook: &str) -> bool {
    text(chain, "type") == Some("filter") && text(chain, "hook") == Some(hook) && chain.get("prio").and_then(Value::as_i64) == Some(PRIORITY)
}

fn rule_faults(chain: &str, wanted: &[String], table: &[Value]) -> Vec<String> {
    let rules = table.iter().filter_map(|object| object.get("rule")).filter(|r| text(r, "chain") == Some(chain) && is_ours(r));
    let there: Vec<Option<String>> = rules.map(rule).collect();
    let missing = wanted.iter().filter(|rule| !there.iter().any(|there| there.as_ref() == Some(*rule)));
    let mut faults: Vec<String> = missing.map(|rule| format!("chain {chain} does not have `{rule}`")).collect();
    // A rule that is not ours could accept a packet before our rules see it.
    if there.contains(&None) {
        faults.push(format!("chain {chain} has a rule that opmas did not put there"));
    }
    faults
}

/// A rule that looks an address up in a set, and drops: `ip saddr @hosts4 drop`, `ip saddr & 255.255.255.0 @nets4_24 drop`,
/// `ip saddr @slow4_9 over 9/second drop`, its counter left out; `None` for any other rule.
fn rule(rule: &Value) -> Option<String> {
    let (first, rest) = rule.get("expr")?.as_array()?.split_first()?;
    let (matched, (last, between)) = (first.get("match")?, rest.split_last()?);
    let left = matched.get("left")?;
    let (payload, mask) = match left.get("&").and_then(Value::as_array).map(Vec::as_slice) {
        Some([payload, mask]) => (payload.get("payload")?, format!(" & {}", mask.as_str()?)),
        Some(_) => return None,
        None => (left.get("payload")?, String::new()),
    };
    let mut out = format!("{} {}{mask} {}", text(payload, "protocol")?, text(payload, "field")?, text(matched, "right").filter(|set| set.starts_with('@'))?);
    for statement in between.iter().filter(|statement| statement.get("counter").is_none()) {
        let [limit] = statement.get("set")?.get("stmt")?.as_array()?.as_slice() else { return None };
        let limit = limit.get("limit").filter(|limit| limit.get("inv") == Some(&Value::Bool(true)))?;
        out.push_str(&format!(" over {}/{}", limit.get("rate")?.as_i64()?, text(limit, "per")?));
    }
    last.get("drop")?;
    (text(matched, "op") == Some("==")).then(|| out + " drop")
}

fn is_ours(object: &Value) -> bool {
    text(object, "family") == Some("inet") && text(object, "table") == Some(TABLE)
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}
