//! `parallel(list, limit, f)`: calls a function for each element, several at a time. Each call has keys of its own, `<place>.<index>.<place>`,
//! so that it does not matter which ends first; what several ask for is one set of steps.

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, INT, ImmutableString, Map, NativeCallContext};

use super::host::{Raised, unknown};
use super::session::Shared;

/// Calls at a time when a script does not say.
const LIMIT: usize = 10;
/// Most calls at a time.
const MAX_LIMIT: usize = 64;

/// How many at a time, and how many first, one after the other.
#[derive(Clone, Copy)]
struct Terms {
    limit: usize,
    canary: usize,
}

pub(super) fn register(engine: &mut Engine, session: &Shared) {
    let shared = session.clone();
    engine.register_fn("parallel", move |context: NativeCallContext<'_>, list: Array, f: FnPtr| {
        each(&context, &shared, list, Terms { limit: LIMIT, canary: 0 }, &f)
    });
    let shared = session.clone();
    engine.register_fn("parallel", move |context: NativeCallContext<'_>, list: Array, limit: INT, f: FnPtr| {
        each(&context, &shared, list, Terms { limit: number("limit", limit, 1)?, canary: 0 }, &f)
    });
    let shared = session.clone();
    engine.register_fn("parallel", move |context: NativeCallContext<'_>, list: Array, terms: Map, f: FnPtr| each(&context, &shared, list, read(&terms)?, &f));
}

fn read(written: &Map) -> Raised<Terms> {
    let mut terms = Terms { limit: LIMIT, canary: 0 };
    for (key, value) in written {
        let n = value.as_int().map_err(|_| format!("`{key}` of `parallel` is no whole number"))?;
        match key.as_str() {
            "limit" => terms.limit = number(key, n, 1)?,
            "canary" => terms.canary = number(key, n, 0)?,
            _ => return Err(unknown("parallel", key, ["limit", "canary"]).into()),
        }
    }
    Ok(terms)
}

fn number(name: &str, n: INT, least: usize) -> Raised<usize> {
    let within = usize::try_from(n).ok().filter(|n| (least..=MAX_LIMIT).contains(n));
    within.ok_or_else(|| format!("`{name}` of `parallel` is {least} to {MAX_LIMIT}").into())
}

/// The results, in the order of the list. When one of the first `canary` fails, the others are not begun, and the list ends with it.
fn each(context: &NativeCallContext<'_>, session: &Shared, list: Array, terms: Terms, f: &FnPtr) -> Raised<Dynamic> {
    let stopped = || -> Box<EvalAltResult> { EvalAltResult::ErrorTerminated(Dynamic::UNIT, context.call_position()).into() };
    session.borrow_mut().fork().map_err(|_| stopped())?;
    let (mut results, mut unfinished, mut raised) = (Array::new(), 0, None);
    for (index, item) in list.into_iter().enumerate() {
        let one_by_one = index <= terms.canary && terms.canary > 0;
        if unfinished >= if one_by_one { 1 } else { terms.limit } {
            break;
        }
        session.borrow_mut().enter(index);
        let result = alone(f).call_within_context::<Dynamic>(context, (item.flatten(),));
        let (suspended, ended) = session.borrow_mut().leave();
        match result {
            _ if ended => return Err(stopped()),
            _ if suspended => unfinished += 1,
            // The others are not left half done: it is raised when they have ended.
            Err(error) => raised = raised.or(Some(error)),
            Ok(value) => {
                let failed = index < terms.canary && has_failed(&value);
                results.push(value);
                if failed {
                    break;
                }
            }
        }
        if raised.is_some() && index < terms.canary {
            break;
        }
    }
    if unfinished > 0 {
        session.borrow_mut().suspend();
        return Err(stopped());
    }
    raised.map_or(Ok(results.into()), Err)
}

/// With what it has captured copied: calls that do not see each other's changes ask for the same on replay, whichever ends first.
fn alone(f: &FnPtr) -> FnPtr {
    let mut own = f.clone();
    let captured: Vec<Dynamic> = f.iter_curry().map(Dynamic::flatten_clone).collect();
    own.set_curry(captured);
    own
}

/// `false`, or an outcome that is not `ok`; what was only shown has not failed.
fn has_failed(value: &Dynamic) -> bool {
    let shown = |map: &Map| map.get("state").is_some_and(|state| state.read_lock::<ImmutableString>().is_some_and(|state| *state == "planned"));
    let ok = value.read_lock::<Map>().and_then(|map| map.get("ok").and_then(|ok| ok.as_bool().ok()).map(|ok| ok || shown(&map)));
    ok.or_else(|| value.as_bool().ok()) == Some(false)
}
