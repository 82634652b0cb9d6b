//! Whether any of some literals stands in a text: a look at each four bytes of it, which costs much less than the steps of an automaton.

use super::walk::COMMON;

/// Bytes of a gram.
const GRAM: usize = 4;
/// Bits of the filter for each literal, and of it at most: more would not stay in the processor's nearest cache.
const BITS: usize = 256;
const MAX_BITS: usize = 1 << 16;
/// Beyond it too many texts have some gram of theirs.
const MAX_LITERALS: usize = 4_096;

/// Different bytes of shorter literals that are told apart, at most.
const MAX_BYTES: usize = 64;

/// Literals by one gram of each.
#[derive(Debug)]
pub(super) struct Grams {
    /// The grams' places.
    bits: Vec<u64>,
    shift: u32,
    /// By the place of its gram: the gram's offset, and the literal.
    literals: Vec<(u32, u32, Box<str>)>,
    short: Short,
}

/// Literals shorter than a gram, by the bytes that they are of.
#[derive(Debug, Default)]
struct Short {
    /// By byte: its own bit, if it stands in one of them; empty where there is none.
    bits: Vec<u64>,
    literals: Vec<u64>,
}

impl Short {
    /// `None` when they are of too many bytes.
    fn new<'l>(literals: impl Iterator<Item = &'l str>) -> Option<Short> {
        let (mut short, mut known) = (Short::default(), 0);
        for literal in literals {
            short.bits.resize(256, 0);
            for byte in literal.bytes() {
                if short.of(&[byte]) == 0 {
                    let bit = (known < MAX_BYTES).then(|| 1 << known)?;
                    known += 1;
                    for same in [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()] {
                        short.bits.get_mut(usize::from(same)).into_iter().for_each(|own| *own = bit);
                    }
                }
            }
            short.literals.push(short.of(literal.as_bytes()));
        }
        Some(short)
    }

    fn of(&self, text: &[u8]) -> u64 {
        text.iter().fold(0, |all, byte| all | self.bits.get(usize::from(*byte)).copied().unwrap_or(0))
    }

    /// Whether all bytes of one of them stand in a text.
    fn may_stand(&self, text: &[u8]) -> bool {
        if self.literals.is_empty() {
            return false;
        }
        let there = self.of(text);
        self.literals.iter().any(|literal| literal & !there == 0)
    }
}

fn grams(text: &[u8]) -> impl Iterator<Item = [u8; GRAM]> {
    text.windows(GRAM).filter_map(|gram| gram.try_into().ok())
}

/// By byte: the more, the less often it stands in texts.
fn rarities() -> [u8; 256] {
    let mut rarities = [2 * COMMON.len() as u8; 256];
    for (rarity, byte) in (0..).zip(COMMON) {
        rarities.get_mut(usize::from(*byte)).into_iter().for_each(|own| *own = rarity);
    }
    rarities
}

impl Grams {
    /// Of folded literals that are looked for in ASCII. `None` when one is too short to tell, or when there are too many to be worth it.
    pub fn new<'l>(literals: impl Iterator<Item = &'l str>) -> Option<Grams> {
        Grams::with_short(literals).filter(|grams| grams.short.literals.is_empty())
    }

    /// As [`Grams::new`], of literals that may be short: for texts of all kinds, most of which do not even have their bytes.
    pub fn with_short<'l>(literals: impl Iterator<Item = &'l str>) -> Option<Grams> {
        // Others stand in no such text.
        let (literals, short): (Vec<&str>, Vec<&str>) = literals.filter(|literal| literal.is_ascii()).partition(|literal| literal.len() >= GRAM);
        if literals.len() > MAX_LITERALS {
            return None;
        }
        let short = Short::new(short.into_iter())?;
        let rarities = rarities();
        let rarity = |byte: u8| rarities.get(usize::from(byte)).map_or(0, |own| u32::from(*own));
        let len = (literals.len() * BITS).next_power_of_two().clamp(64, MAX_BITS);
        let mut made = Grams { bits: vec![0; len / 64], shift: u32::BITS - len.trailing_zeros(), literals: Vec::with_capacity(literals.len()), short };
        for literal in literals {
            let (offset, gram) = (0..).zip(grams(literal.as_bytes())).max_by_key(|(_, gram)| gram.iter().map(|byte| rarity(*byte)).sum::<u32>())?;
            let place = made.place(gram);
            *made.bits.get_mut(place as usize / 64)? |= 1 << (place & 63);
            made.literals.push((place, offset, literal.into()));
        }
        made.literals.sort_unstable();
        Some(made)
    }

    /// Equal for grams that differ by case alone.
    fn place(&self, gram: [u8; GRAM]) -> u32 {
        (u32::from_le_bytes(gram) | 0x2020_2020).wrapping_mul(0x9e37_79b1) >> self.shift
    }

    fn bit(&self, place: u32) -> u64 {
        self.bits.get(place as usize / 64).map_or(0, |word| word >> (place & 63))
    }

    /// Whether one of them stands in an ASCII text; of a short one, whether it may.
    pub fn any_in(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        if self.short.may_stand(bytes) {
            return true;
        }
        // Without a branch for each gram.
        let may = grams(bytes).fold(0, |found, gram| found | self.bit(self.place(gram)));
        may & 1 == 1 && (0..).zip(grams(bytes)).any(|(at, gram)| self.stands(bytes, at, self.place(gram)))
    }

    /// Whether a literal with the gram of this place stands where it has that gram at `at`.
    fn stands(&self, text: &[u8], at: usize, place: u32) -> bool {
        if self.bit(place) & 1 == 0 {
            return false;
        }
        let from = self.literals.partition_point(|(own, ..)| *own < place);
        let same = self.literals.get(from..).unwrap_or_default().iter().take_while(|(own, ..)| *own == place);
        same.filter_map(|(_, offset, literal)| Some((text.get(at.checked_sub(*offset as usize)?..)?, literal.as_bytes())))
            .any(|(rest, literal)| rest.get(..literal.len()).is_some_and(|own| own.eq_ignore_ascii_case(literal)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_literals_tell_nothing_and_none_stand_nowhere() {
        assert!(Grams::new(["abcd", "abc"].into_iter()).is_none());
        assert!(!Grams::new(std::iter::empty()).unwrap().any_in("abcdefgh"));
        assert!(!Grams::new(["grüße"].into_iter()).unwrap().any_in("grusse"), "a text that is ASCII does not hold it");
    }

    #[test]
    fn a_short_one_may_stand_where_its_bytes_do() {
        let grams = Grams::with_short(["=${", "@", "abcd"].into_iter()).unwrap();
        for (text, may) in [("", false), ("a=b", false), ("$ x={", true), ("x@y", true), ("xABCDy", true), ("abc", false)] {
            assert_eq!(grams.any_in(text), may, "{text}");
        }
        let many: Vec<String> = (b'!'..=b'~').map(|byte| char::from(byte).to_lowercase().to_string()).collect();
        assert!(Grams::with_short(many.iter().map(String::as_str)).is_none(), "more bytes than are told apart");
    }

    proptest! {
        #[test]
        fn nothing_that_stands_there_is_passed_over(literals in prop::collection::vec("[ab.\\\\@]{1,6}", 0..40), text in "[abAB.\\\\n\\x0e@~]{0,40}") {
            let grams = Grams::with_short(literals.iter().map(String::as_str)).unwrap();
            prop_assert!(grams.any_in(&text) || !literals.iter().any(|literal| text.to_ascii_lowercase().contains(literal)));
        }

        #[test]
        fn it_finds_what_stands_there_and_nothing_else(literals in prop::collection::vec("[ab.\\\\]{4,7}", 0..200), text in "[abAB.\\\\n\\x0e@~]{0,40}") {
            let grams = Grams::new(literals.iter().map(String::as_str)).unwrap();
            prop_assert_eq!(grams.any_in(&text), literals.iter().any(|literal| text.to_ascii_lowercase().contains(literal)));
        }
    }
}
