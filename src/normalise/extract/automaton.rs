//! All patterns for one program as one automaton: a single pass over a message says which of them can match.

use regex_automata::hybrid::BuildError;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

use super::pattern::{bounded, bytes};

/// Most memory that its states may take; beyond it they are made anew, which costs time alone. Each thread has its own.
const MAX_STATES: usize = 8 << 20;

type NewCache = Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

/// Its states are made when a message first needs them.
pub(super) struct Automaton {
    dfa: DFA,
    caches: Pool<Cache, NewCache>,
}

impl std::fmt::Debug for Automaton {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Automaton({} patterns)", self.dfa.pattern_len())
    }
}

impl Automaton {
    /// Compiles expressions for whole messages.
    pub(super) fn new(expressions: &[String]) -> Result<Automaton, Box<BuildError>> {
        let states = DFA::config().match_kind(MatchKind::All).cache_capacity(MAX_STATES).skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(states).syntax(bytes()).thompson(bounded().nfa_size_limit(None)).build_many(expressions).map_err(Box::new)?;
        let own = dfa.clone();
        Ok(Automaton { dfa, caches: Pool::new(Box::new(move || own.create_cache())) })
    }

    /// The numbers of the expressions that match, ascending: at least these can type the message. `None` when all are to be tried.
    pub(super) fn candidates(&self, message: &str, found: &mut Vec<usize>) -> Option<()> {
        let mut guard = self.caches.get();
        let cache = &mut *guard;
        let mut state = self.dfa.start_state(cache, &start::Config::new().anchored(Anchored::Yes)).ok()?;
        for byte in message.bytes() {
            state = self.dfa.next_state(cache, state, byte).ok()?;
            if state.is_dead() {
                return Some(());
            }
        }
        state = self.dfa.next_eoi_state(cache, state).ok()?;
        if state.is_match() {
            found.extend((0..self.dfa.match_len(cache, state)).map(|index| self.dfa.match_pattern(cache, state, index).as_usize()));
            found.sort_unstable();
        }
        Some(())
    }
}
