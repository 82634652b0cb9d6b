//! What the targets share.

use std::cell::RefCell;
use std::sync::LazyLock;

use opmas::config::shipped_extractors;
use opmas::diag::SourceFile;
use opmas::model::{Event, Inventory, Payload, Record, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::sigma::{RuleSet, load};

/// The rules that load of a text; what is wrong with the others stands in the file.
pub fn rules(text: &str) -> RuleSet {
    let loaded = load(&[SourceFile { name: "r.yml".into(), text: text.into() }]);
    let lines = u32::try_from(text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count()).unwrap_or(u32::MAX);
    assert!(loaded.diagnostics.iter().all(|wrong| wrong.place.line <= lines.saturating_add(1)), "{:?}", loaded.diagnostics);
    loaded.set
}

/// The event of a line, by the shipped extractors.
pub fn event(line: &[u8]) -> Event {
    static EXTRACTORS: LazyLock<std::sync::Arc<Extractors>> = LazyLock::new(|| Extractors::load(&shipped_extractors()).0.into());
    thread_local!(static NORMALISER: RefCell<Option<Normaliser>> = const { RefCell::new(None) });
    let record = Record {
        id: None,
        source: "s".into(),
        stream: "s".into(),
        arrival: None,
        peer: None,
        trust: Trust::Open,
        raw: line.to_vec(),
        payload: Payload::Log,
        subject: None,
    };
    NORMALISER.with_borrow_mut(|normaliser| {
        let fresh = || Normaliser::new(EXTRACTORS.clone(), Options::at(Time(0)));
        normaliser.get_or_insert_with(fresh).normalise(0, &record, &Inventory::default())
    })
}
