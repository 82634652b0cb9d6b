//! The field names that rules ask for, and which of an event's keys lead to them.

use std::collections::HashMap;

use crate::normalise;

/// A field's number in the network.
pub(super) type Slot = u32;

/// What a key at the top of an event leads to.
#[derive(Debug, Default)]
pub(super) struct Root {
    name: Box<str>,
    /// The field of just this name.
    pub direct: Option<Slot>,
    /// The fields whose path begins with it, and what is left of each path.
    pub below: Vec<(Slot, Box<str>)>,
}

/// All names, found by the hash that a tape keeps with its keys.
#[derive(Debug, Default)]
pub(super) struct Names {
    roots: Vec<Root>,
    /// Open addressing: the hash, and one more than the root's index. Its length is a power of two.
    table: Vec<(u32, u32)>,
}

impl Names {
    /// The names of fields by slot.
    pub fn new(fields: &[Box<str>]) -> Names {
        let mut roots: Vec<Root> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (slot, field) in (0..).zip(fields) {
            let splits = field.match_indices('.').map(|(dot, _)| (field.get(..dot), field.get(dot + 1..)));
            for (first, rest) in [(Some(&**field), None)].into_iter().chain(splits) {
                let Some(first) = first else { continue };
                let place = *places.entry(first).or_insert_with(|| {
                    roots.push(Root { name: first.into(), ..Root::default() });
                    roots.len() - 1
                });
                let Some(root) = roots.get_mut(place) else { continue };
                match rest {
                    None => root.direct = Some(slot),
                    Some(rest) => root.below.push((slot, rest.into())),
                }
            }
        }
        let table = table(&roots);
        Names { roots, table }
    }

    /// The root of a key.
    pub fn find(&self, key: &str, hash: u32) -> Option<(u32, &Root)> {
        let mask = self.table.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let (own, next) = *self.table.get(at)?;
            let index = next.checked_sub(1)?;
            let root = self.roots.get(index as usize)?;
            if own == hash && *root.name == *key {
                return Some((index, root));
            }
            at = (at + 1) & mask;
        }
    }

    /// A root that [`Names::find`] found.
    pub fn root(&self, index: u32) -> Option<&Root> {
        self.roots.get(index as usize)
    }
}

/// At most half full, so that a search ends.
fn table(roots: &[Root]) -> Vec<(u32, u32)> {
    let mut table = vec![(0, 0); (roots.len() * 2 + 1).next_power_of_two()];
    let mask = table.len() - 1;
    for (index, root) in (1..).zip(roots) {
        let hash = normalise::hash(root.name.as_bytes());
        let mut at = hash as usize & mask;
        while table.get(at).is_some_and(|(_, taken)| *taken != 0) {
            at = (at + 1) & mask;
        }
        if let Some(place) = table.get_mut(at) {
            *place = (hash, index);
        }
    }
    table
}
