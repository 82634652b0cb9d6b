//! Small groups as bytes, behind one another in pages: what has grown is written anew at the end, and pages that are mostly gone are cleared.
//!
//! A copy of it shares its pages; one that changes meanwhile is copied first.

use std::sync::Arc;

/// Bytes of a page.
const PAGE: usize = 64 << 10;
/// Most bytes of one group; a longer one is kept apart.
pub(super) const MAX_LEN: usize = 1 << 10;
/// Pages at most: a place is told by 32 bits.
const MAX_PAGES: usize = 1 << 16;
/// Bytes before each group: whose it is, how long it is, how much room it has.
const HEAD: usize = 8;
/// Whose nothing is any more.
const NOBODY: u32 = u32::MAX;
/// Room is a multiple of this, so that most changes stay in their place.
const STEP: usize = 4;
/// One part in so many of all pages may be bytes of what is gone.
const WASTE: usize = 6;

/// Groups as bytes, each with an owner and at a place that it is told when it moves.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    pages: Vec<Page>,
    /// Pages that hold nothing.
    free: Vec<usize>,
    /// The page that is written to.
    last: usize,
    /// Bytes in all pages, and those of what is gone.
    used: usize,
    dead: usize,
}

#[derive(Clone, Debug, Default)]
struct Page {
    bytes: Arc<Vec<u8>>,
    dead: usize,
}

impl Arena {
    /// The bytes of the group at a place.
    pub(super) fn get(&self, place: u32) -> &[u8] {
        let (page, at) = split(place);
        self.pages.get(page).and_then(|page| read(&page.bytes, at)).map_or(&[], |(_, bytes, _)| bytes)
    }

    /// Writes a group that was at a place, or was nowhere: where it is now; `None` when there is no room, and then it is nowhere.
    /// `moved` hears of others that are elsewhere now.
    pub(super) fn put(&mut self, owner: u32, before: Option<u32>, bytes: &[u8], moved: &mut impl FnMut(u32, u32)) -> Option<u32> {
        if let Some(place) = before {
            if self.overwrite(place, bytes) {
                return before;
            }
            self.remove(place);
        }
        self.tidy(moved);
        self.append(owner, bytes)
    }

    /// A group is gone.
    pub(super) fn remove(&mut self, place: u32) {
        let (index, at) = split(place);
        let Some(page) = self.pages.get_mut(index) else { return };
        let Some((_, _, room)) = read(&page.bytes, at) else { return };
        if let Some(owner) = Arc::make_mut(&mut page.bytes).get_mut(at..at + 4) {
            owner.copy_from_slice(&NOBODY.to_le_bytes());
        }
        page.dead += HEAD + room;
        self.dead += HEAD + room;
        if page.dead == page.bytes.len() && index != self.last {
            self.clear(index);
        }
    }

    fn overwrite(&mut self, place: u32, bytes: &[u8]) -> bool {
        let (page, at) = split(place);
        let Some(page) = self.pages.get_mut(page) else { return false };
        match read(&page.bytes, at) {
            Some((_, _, room)) if bytes.len() <= room => {}
            _ => return false,
        }
        let page = Arc::make_mut(&mut page.bytes);
        let begin = at + HEAD;
        if let (Some(to), Ok(len)) = (page.get_mut(begin..begin + bytes.len()), u16::try_from(bytes.len())) {
            to.copy_from_slice(bytes);
            page.get_mut(at + 4..at + 6).into_iter().for_each(|to| to.copy_from_slice(&len.to_le_bytes()));
        }
        true
    }

    fn append(&mut self, owner: u32, bytes: &[u8]) -> Option<u32> {
        let room = bytes.len().next_multiple_of(STEP);
        let (len, cap) = (u16::try_from(bytes.len()).ok()?, u16::try_from(room).ok()?);
        if self.pages.get(self.last).is_none_or(|page| page.bytes.len() + HEAD + room > PAGE) {
            self.last = match self.free.pop() {
                Some(free) => free,
                None if self.pages.len() < MAX_PAGES => {
                    // The first grows as it is needed, others will be full.
                    let size = if self.pages.is_empty() { 0 } else { PAGE };
                    self.pages.push(Page { bytes: Arc::new(Vec::with_capacity(size)), dead: 0 });
                    self.pages.len() - 1
                }
                None => return None,
            };
        }
        let page = Arc::make_mut(&mut self.pages.get_mut(self.last)?.bytes);
        let at = page.len();
        page.extend_from_slice(&owner.to_le_bytes());
        page.extend_from_slice(&len.to_le_bytes());
        page.extend_from_slice(&cap.to_le_bytes());
        page.extend_from_slice(bytes);
        page.resize(at + HEAD + room, 0);
        self.used += HEAD + room;
        u32::try_from(self.last << 16 | at).ok()
    }

    /// Takes what is left out of the page that is gone most, when too much is gone.
    fn tidy(&mut self, moved: &mut impl FnMut(u32, u32)) {
        while self.dead > PAGE && self.dead * WASTE > self.used {
            let most = self.pages.iter().enumerate().filter(|(at, _)| *at != self.last).max_by_key(|(_, page)| page.dead).map(|(at, _)| at);
            let Some(page) = most.filter(|_| self.free.len() + MAX_PAGES - self.pages.len() > 1) else { return };
            let bytes = self.pages.get(page).map(|page| Arc::clone(&page.bytes)).unwrap_or_default();
            for (owner, group) in groups(&bytes) {
                let Some(place) = self.append(owner, group) else { return };
                moved(owner, place);
            }
            self.clear(page);
        }
    }

    fn clear(&mut self, index: usize) {
        if let Some(page) = self.pages.get_mut(index) {
            self.used -= page.bytes.len();
            self.dead -= page.dead.min(page.bytes.len());
            *page = Page::default();
            self.free.push(index);
        }
    }

    /// The pages, shared.
    pub(super) fn pages(&self) -> Vec<Arc<Vec<u8>>> {
        self.pages.iter().map(|page| Arc::clone(&page.bytes)).filter(|bytes| !bytes.is_empty()).collect()
    }
}

fn split(place: u32) -> (usize, usize) {
    ((place >> 16) as usize, (place & 0xffff) as usize)
}

/// The owner, the bytes and the room of what begins here.
fn read(page: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let (head, rest) = page.get(at..)?.split_first_chunk::<HEAD>()?;
    let [a, b, c, d, e, f, g, h] = *head;
    let (len, room) = (usize::from(u16::from_le_bytes([e, f])), usize::from(u16::from_le_bytes([g, h])));
    Some((u32::from_le_bytes([a, b, c, d]), rest.get(..len)?, room))
}

/// The groups of a page that are there, with their owners.
pub(super) fn groups(page: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut at = 0;
    let all = std::iter::from_fn(move || {
        let (owner, bytes, room) = read(page, at)?;
        at += HEAD + room;
        Some((owner, bytes))
    });
    all.filter(|(owner, _)| *owner != NOBODY)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_there_wherever_it_moved(steps in prop::collection::vec((0..400u32, 0..MAX_LEN, any::<u8>(), any::<bool>()), 1..2_000)) {
            let (mut arena, mut places): (Arena, BTreeMap<u32, u32>) = Default::default();
            let mut model: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            for (owner, len, byte, keeps) in steps {
                if !keeps && let Some(place) = places.remove(&owner) {
                    arena.remove(place);
                    model.remove(&owner);
                    continue;
                }
                let bytes = vec![byte; len];
                let mut moved = Vec::new();
                let place = arena.put(owner, places.get(&owner).copied(), &bytes, &mut |owner, place| moved.push((owner, place))).unwrap();
                places.extend(moved);
                places.insert(owner, place);
                model.insert(owner, bytes);
            }
            for (owner, bytes) in &model {
                prop_assert_eq!(arena.get(places[owner]), &bytes[..]);
            }
            let pages = arena.pages();
            let kept: BTreeMap<u32, Vec<u8>> = pages.iter().flat_map(|page| groups(page)).map(|(owner, bytes)| (owner, bytes.to_vec())).collect();
            prop_assert_eq!(kept, model);
            prop_assert!(arena.dead * WASTE <= arena.used + 8 * PAGE);
        }
    }
}
