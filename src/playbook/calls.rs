//! What is wrong with the calls of a script, as far as it can be seen before it runs.

use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, Stmt};
use serde_json::Value;

use super::evaluate::{ActionSignature, ParamSignature};
use super::host::unknown;
use super::{own, script};
use crate::diag::{Diagnostic, Place, SourceFile, nearest};

/// Names of the language that are near enough to those of actions to be taken for slips of the pen.
const LANGUAGE: &[&str] = &["pop", "push", "pad", "trim", "split", "contains", "replace", "remove", "insert", "index_of", "make_lower", "make_upper"];

/// Everything that is wrong: actions that the header does not allow or that are not there, and arguments that they do not take.
pub(super) fn wrong(file: &SourceFile, ast: &AST, allowed: &[ActionSignature], known: &[ActionSignature]) -> Vec<Diagnostic> {
    let free = own::free();
    let (allowed, known) = ([allowed, &free].concat(), [known, &free].concat());
    let own: Vec<&str> = ast.iter_functions().map(|function| function.name).collect();
    let mut wrong = Vec::new();
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        if let Some((call, method, at)) = path.last().and_then(called) {
            let at = script::place(at).unwrap_or_default();
            match known.iter().find(|action| *action.name == *call.name) {
                _ if own.contains(&&*call.name) => {}
                Some(action) => wrong.extend(check(file, call, (method, at), action, &allowed)),
                None if method => wrong.extend(mistyped(file, &call.name, at, &known)),
                None => {}
            }
        }
        true
    });
    wrong
}

/// A call, whether its object stands before the dot, and where it stands.
fn called<'a>(node: &ASTNode<'a>) -> Option<(&'a FnCallExpr, bool, Position)> {
    match node {
        ASTNode::Expr(Expr::MethodCall(call, at)) => Some((call, true, *at)),
        ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at)) => Some((call, false, *at)),
        _ => None,
    }
}

fn mistyped(file: &SourceFile, name: &str, at: Place, known: &[ActionSignature]) -> Option<Diagnostic> {
    let meant = nearest(name, known.iter().map(|action| &*action.name)).filter(|_| !LANGUAGE.contains(&name))?;
    Some(Diagnostic::new(&*file.name, at, format!("there is no action `{name}`")).help(format!("did you mean `{meant}`?")))
}

fn check(file: &SourceFile, call: &FnCallExpr, (method, at): (bool, Place), action: &ActionSignature, allowed: &[ActionSignature]) -> Vec<Diagnostic> {
    let said = |place: Place, message: String| Diagnostic::new(&*file.name, place, message);
    if !allowed.iter().any(|allowed| allowed.name == action.name) {
        return vec![said(at, format!("the header does not allow `{}`", action.name)).help("add it to `actions`")];
    }
    let given = call.args.get(usize::from(!method && !action.own)..).unwrap_or_default();
    if given.len() > action.params.len().max(1) {
        let names: Vec<&str> = action.params.iter().map(|param| &*param.name).collect();
        return vec![said(at, format!("`{}` takes ({}), and is given {} arguments", action.name, names.join(", "), given.len()))];
    }
    match given {
        [Expr::Map(named, _)] => check_named(file, action, &named.0, at),
        // A map may be in a variable.
        [one] if literal(one).is_none() => Vec::new(),
        _ => {
            let missing = action.params.iter().skip(given.len()).find(|param| param.required);
            let missing = missing.map(|param| said(at, format!("`{}` needs `{}`", action.name, param.name)));
            missing.into_iter().chain(action.params.iter().zip(given).filter_map(|(param, value)| check_value(file, action, param, value, at))).collect()
        }
    }
}

fn check_named(file: &SourceFile, action: &ActionSignature, named: &[(rhai::Ident, Expr)], at: Place) -> Vec<Diagnostic> {
    let checked = |(key, value): &(rhai::Ident, Expr)| match action.params.iter().find(|param| *param.name == *key.name) {
        Some(param) => check_value(file, action, param, value, at),
        None => {
            let known = action.params.iter().map(|param| &*param.name);
            Some(Diagnostic::new(&*file.name, script::place(key.pos).unwrap_or(at), unknown(&action.name, &key.name, known)))
        }
    };
    let given = |param: &&ParamSignature| !named.iter().any(|(key, _)| *key.name == *param.name);
    let missing = action.params.iter().filter(|param| param.required).find(given);
    let missing = missing.map(|param| Diagnostic::new(&*file.name, at, format!("`{}` needs `{}`", action.name, param.name)));
    named.iter().filter_map(checked).chain(missing).collect()
}

/// A value that is written out is of its parameter's grammar.
fn check_value(file: &SourceFile, action: &ActionSignature, param: &ParamSignature, value: &Expr, at: Place) -> Option<Diagnostic> {
    let reason = param.grammar.as_ref()?.parse(&literal(value)?).err()?;
    let place = script::place(value.position()).unwrap_or(at);
    Some(Diagnostic::new(&*file.name, place, format!("`{}` of `{}`: {reason}", param.name, action.name)))
}

fn literal(value: &Expr) -> Option<Value> {
    match value {
        Expr::BoolConstant(value, _) => Some(Value::from(*value)),
        Expr::IntegerConstant(value, _) => Some(Value::from(*value)),
        Expr::FloatConstant(value, _) => Some(Value::from(**value)),
        Expr::StringConstant(value, _) => Some(Value::from(value.as_str())),
        _ => None,
    }
}
