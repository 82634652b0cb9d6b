//! The Rhai engine: what a script may do, how much, and how its failures read.

use std::rc::Rc;

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage, BasicStringPackage, LogicPackage,
    MoreStringPackage, Package,
};
use rhai::{Dynamic, Engine, EvalAltResult, Module, OptimizationLevel, ParseError, Position};

use super::evaluate::Limits;
use super::session::{Shared, too_many_operations};
use crate::diag::Place;

/// Functions calling functions, closures included.
const MAX_CALLS: usize = 24;
/// Expressions within expressions, in the script and in a function of it.
const MAX_EXPRESSION: (usize, usize) = (48, 24);
/// Bytes of a string.
const MAX_STRING: usize = 64 << 10;
/// Elements of a list, those of lists in it counted too: nesting can be no deeper.
const MAX_LIST: usize = 1024;
/// Entries of a map, those of maps in it counted too. The engine notices at the next call only; operations bound what comes before.
const MAX_MAP: usize = 512;
/// Variables at one time.
const MAX_VARIABLES: usize = 256;
/// Functions of a script, closures included.
const MAX_FUNCTIONS: usize = 128;
/// What would read code at run time.
const FORBIDDEN: [&str; 3] = ["eval", "import", "export"];

thread_local! {
    /// Building the packages takes most of the time of an evaluation, and they never change.
    static PACKAGES: [Rc<Module>; 9] = [
        ArithmeticPackage::new().as_shared_module(),
        LogicPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicStringPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
        BasicIteratorPackage::new().as_shared_module(),
        BasicFnPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
    ];
}

/// The language without host functions, for checking and for running: no clock, no files, no modules, nothing to wait with.
/// Of the packages the core language one is left out: it has `sleep` and `exit`.
pub(super) fn language() -> Engine {
    let mut engine = Engine::new_raw();
    PACKAGES.with(|packages| {
        packages.iter().for_each(|package| {
            engine.register_global_module(package.clone());
        })
    });
    for symbol in FORBIDDEN {
        engine.disable_symbol(symbol);
    }
    engine.set_optimization_level(OptimizationLevel::None).set_strict_variables(true);
    engine.set_max_call_levels(MAX_CALLS).set_max_expr_depths(MAX_EXPRESSION.0, MAX_EXPRESSION.1);
    engine.set_max_string_size(MAX_STRING).set_max_array_size(MAX_LIST).set_max_map_size(MAX_MAP);
    engine.set_max_variables(MAX_VARIABLES).set_max_functions(MAX_FUNCTIONS).set_max_modules(0);
    engine
}

/// The language with the bounds and the log of one evaluation.
pub(super) fn engine(session: &Shared, limits: &Limits) -> Engine {
    let mut engine = language();
    engine.set_max_operations(limits.operations);
    let counting = session.clone();
    // Asked at each operation: what a script catches does not let it go on.
    engine.on_progress(move |_| if counting.borrow_mut().operation() { None } else { Some(Dynamic::UNIT) });
    let printing = session.clone();
    engine.on_print(move |text| printing.borrow_mut().log(text));
    let debugging = session.clone();
    engine.on_debug(move |text, _, _| debugging.borrow_mut().log(text));
    engine
}

/// A message and its place in the file.
pub(super) type Failure = (String, Option<Place>);

/// Why a script does not compile.
pub(super) fn parse_failure(error: &ParseError) -> Failure {
    (lower(&error.err_type().to_string()), place(error.position()))
}

/// Why a script failed, at the innermost place.
pub(super) fn failure(mut error: EvalAltResult, limits: &Limits) -> Failure {
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) = error {
        error = *inner;
    }
    let at = place(error.take_position());
    let message = match error {
        EvalAltResult::ErrorTooManyOperations(_) => too_many_operations(limits),
        EvalAltResult::ErrorStackOverflow(_) => format!("functions of the script call each other more than {MAX_CALLS} deep"),
        EvalAltResult::ErrorTooManyVariables(_) => format!("the script has more than {MAX_VARIABLES} variables at one time"),
        EvalAltResult::ErrorDataTooLarge(what, _) => format!("a value grows too large: {}", lower(&what)),
        EvalAltResult::ErrorRuntime(thrown, _) => thrown.to_string(),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => format!("there is no function `{signature}`"),
        other => lower(&other.to_string()),
    };
    (message.chars().take(500).collect(), at)
}

pub(super) fn place(position: Position) -> Option<Place> {
    let number = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok());
    Some(Place { line: number(position.line())?, column: number(position.position()).unwrap_or(1) })
}

/// Our messages begin with a small letter.
fn lower(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}
