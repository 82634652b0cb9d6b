//! How a file says that what `verify` prints is judged.

use toml::Spanned;

use super::catalogue::Param;
use super::check::Check;
use super::file::{CheckTable, JsonTable, NftSetTable};
use super::json::{Expected, Wanted};
use super::load::{Text, load_template, named};
use super::nft::NftSet;
use super::template::{Spot, Template};
use super::value::Grammar;
use crate::diag::Diagnostic;

pub(super) fn load_check(text: Text<'_>, written: &Spanned<CheckTable>, params: &[Param]) -> Result<Check, Diagnostic> {
    let templates = |lines: &[Spanned<String>]| -> Result<Vec<Template>, Diagnostic> { lines.iter().map(|line| template(text, line, params)).collect() };
    match written.get_ref() {
        CheckTable::Output => Ok(Check::Output),
        CheckTable::Prints(lines) => templates(lines).map(|lines| Check::Prints { lines }),
        CheckTable::Json(tables) => tables.iter().map(|table| expected(text, table, params)).collect::<Result<_, _>>().map(Check::Json),
        CheckTable::NftSet(table) => nft_set(text, table, params, templates).map(Box::new).map(Check::NftSet),
        CheckTable::Ipset(table) => nft_set(text, table, params, templates).map(Box::new).map(Check::Ipset),
    }
}

fn template(text: Text<'_>, written: &Spanned<String>, params: &[Param]) -> Result<Template, Diagnostic> {
    load_template(text, written, Spot::Argument, params)
}

fn nft_set(
    text: Text<'_>,
    table: &NftSetTable,
    params: &[Param],
    templates: impl Fn(&[Spanned<String>]) -> Result<Vec<Template>, Diagnostic>,
) -> Result<NftSet, Diagnostic> {
    let lifetime = table.lifetime.as_ref().map(|name| {
        let param = named(text, name, params)?;
        let fits = matches!(param.grammar, Grammar::Duration { .. });
        let wrong =
            || text.wrong(name.span(), format!("the check needs a parameter of type duration, and `{}` is of type {}", param.name, param.grammar.word()));
        fits.then(|| param.name.clone()).ok_or_else(wrong)
    });
    let rules = table.rules.iter().map(|(chain, rules)| Ok((template(text, chain, params)?, templates(rules)?)));
    Ok(NftSet {
        set: template(text, &table.set, params)?,
        element: template(text, &table.element, params)?,
        lifetime: lifetime.transpose()?,
        absent: table.absent,
        rules: rules.collect::<Result<_, Diagnostic>>()?,
    })
}

fn expected(text: Text<'_>, table: &JsonTable, params: &[Param]) -> Result<Expected, Diagnostic> {
    let wanted = match (&table.is, &table.has, &table.lacks) {
        (Some(is), None, None) => Wanted::Is(template(text, is, params)?),
        (None, Some(has), None) => Wanted::Has(template(text, has, params)?),
        (None, None, Some(lacks)) => Wanted::Lacks(template(text, lacks, params)?),
        _ => return Err(text.wrong(table.path.span(), "say what is expected there: `is`, `has` or `lacks`, one of them")),
    };
    Ok(Expected { of: table.of, path: template(text, &table.path, params)?, wanted })
}
