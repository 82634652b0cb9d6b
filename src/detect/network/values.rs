//! One field's predicates over numbers and addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Number;

use super::texts::Predicate;
use crate::detect::check::{address, number, read_number, same_number};
use crate::detect::leaf::Leaf;
use crate::sigma::Comparison;

/// The bounds of one kind of comparison, sorted.
type Bounds = Vec<(f64, Predicate)>;

/// Numbers: those that are equal, and ranges.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    equal: Vec<(f64, Number, Predicate)>,
    /// `lt`, `lte`, `gt`, `gte`.
    bounds: [Bounds; 4],
}

impl Numbers {
    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.equal.is_empty() && self.bounds.iter().all(Vec::is_empty)
    }

    /// Adds an exact number.
    pub fn add(&mut self, number: &Number, predicate: Predicate) {
        self.equal.extend(number.as_f64().map(|float| (float, number.clone(), predicate)));
    }

    /// Adds a range; false for a comparison that is none of the four.
    pub fn add_range(&mut self, comparison: Comparison, bound: f64, predicate: Predicate) -> bool {
        let index = match comparison {
            Comparison::Lt => 0,
            Comparison::Lte => 1,
            Comparison::Gt => 2,
            Comparison::Gte => 3,
            Comparison::Eq | Comparison::Neq => return false,
        };
        self.bounds.get_mut(index).map(|bounds| bounds.push((bound, predicate))).is_some()
    }

    /// Makes it ready, after the last addition.
    pub fn sort(&mut self) {
        self.equal.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.bounds.iter_mut().for_each(|bounds| bounds.sort_by(|a, b| a.0.total_cmp(&b.0)));
    }

    /// Tells the predicates that hold for a value.
    pub fn scan(&self, leaf: Leaf<'_>, mut hit: impl FnMut(Predicate)) {
        if !self.equal.is_empty()
            && let Some(own) = read_number(leaf)
        {
            self.scan_equal(&own, &mut hit);
        }
        if self.bounds.iter().any(|bounds| !bounds.is_empty())
            && let Some(own) = number(leaf)
        {
            self.scan_ranges(own, &mut hit);
        }
    }

    fn scan_equal(&self, own: &Number, hit: &mut impl FnMut(Predicate)) {
        let Some(float) = own.as_f64() else { return };
        // Large integers share a float; zero has two.
        let from = self.equal.partition_point(|(other, ..)| *other < float);
        for (_, other, predicate) in self.equal.get(from..).unwrap_or_default().iter().take_while(|(other, ..)| *other <= float) {
            if same_number(other, own) {
                hit(*predicate);
            }
        }
    }

    fn scan_ranges(&self, own: f64, hit: &mut impl FnMut(Predicate)) {
        let [lt, lte, gt, gte] = &self.bounds;
        let part = |bounds: &Bounds, below: &dyn Fn(f64) -> bool| bounds.partition_point(|(bound, _)| below(*bound));
        let from = [(lt, part(lt, &|bound| bound <= own)), (lte, part(lte, &|bound| bound < own))];
        let to = [(gt, part(gt, &|bound| bound < own)), (gte, part(gte, &|bound| bound <= own))];
        from.into_iter().flat_map(|(bounds, at)| bounds.get(at..).unwrap_or_default()).for_each(|(_, predicate)| hit(*predicate));
        to.into_iter().flat_map(|(bounds, at)| bounds.get(..at).unwrap_or_default()).for_each(|(_, predicate)| hit(*predicate));
    }
}

/// Networks by their prefixes: one probe for each length that occurs.
#[derive(Debug, Default)]
pub(super) struct Nets {
    by_net: HashMap<IpNet, Vec<Predicate>>,
    /// Lengths that occur, for IPv4 and IPv6.
    lengths: [Vec<u8>; 2],
}

impl Nets {
    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.by_net.is_empty()
    }

    /// Adds a network.
    pub fn add(&mut self, net: IpNet, predicate: Predicate) {
        self.by_net.entry(net.trunc()).or_default().push(predicate);
        let [v4, v6] = &mut self.lengths;
        let lengths = if net.addr().is_ipv4() { v4 } else { v6 };
        if !lengths.contains(&net.prefix_len()) {
            lengths.push(net.prefix_len());
        }
    }

    /// Tells the predicates whose network holds the address that a text says.
    pub fn scan(&self, text: &str, mut hit: impl FnMut(Predicate)) {
        if self.by_net.is_empty() {
            return;
        }
        let Some(ip) = address(text) else { return };
        self.probe(ip, &mut hit);
        if ip.to_canonical() != ip {
            self.probe(ip.to_canonical(), &mut hit);
        }
    }

    fn probe(&self, ip: IpAddr, hit: &mut impl FnMut(Predicate)) {
        let [v4, v6] = &self.lengths;
        for length in if ip.is_ipv4() { v4 } else { v6 } {
            let Ok(net) = IpNet::new(ip, *length) else { continue };
            self.by_net.get(&net.trunc()).into_iter().flatten().for_each(|predicate| hit(*predicate));
        }
    }
}
