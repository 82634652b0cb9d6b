//! Every case of every shipped playbook: each step fails, is repeated, and is crashed on, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use opmas::action::Catalogue;
use opmas::config::Folder;
use opmas::model::{Decided, Inventory, RunState, Step};
use opmas::playbook::{CASES, Case, Devices, Play, Playbook, Playbooks, Run, cases, signatures};

use super::*;

struct Shipped {
    catalogue: Catalogue,
    playbooks: Playbooks,
    cases: Vec<(String, Case)>,
}

fn shipped() -> Shipped {
    let files = Folder::Playbooks.shipped();
    let (catalogue, wrong) = Catalogue::load(&opmas::config::shipped_actions());
    assert_eq!(wrong, []);
    let loaded = Playbooks::load(&files, &signatures(&catalogue));
    assert_eq!(loaded.diagnostics, []);
    let with_name = |file: &SourceFile| {
        let name = file.name.rsplit('/').next().unwrap().trim_end_matches(CASES).to_owned();
        cases(file).unwrap().into_iter().map(move |(_, case)| (name.clone(), case))
    };
    let cases = files.iter().filter(|file| file.name.ends_with(CASES)).flat_map(with_name).collect();
    Shipped { catalogue, playbooks: loaded.playbooks, cases }
}

#[test]
fn every_case_of_a_shipped_playbook_holds_and_each_has_one_that_acts_and_one_that_does_not() {
    let shipped = shipped();
    let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (name, case) in &shipped.cases {
        let playbook = shipped.playbooks.get(name).unwrap_or_else(|| panic!("no playbook {name}"));
        let played = case.play(playbook, &shipped.catalogue).unwrap();
        assert_eq!(played.expected, played.found, "{name}: {}", case.name);
        let count = seen.entry(name).or_default();
        if case.steps.is_empty() { count.1 += 1 } else { count.0 += 1 }
    }
    for playbook in shipped.playbooks.iter() {
        assert!(seen.get(&*playbook.name).is_some_and(|(acts, not)| *acts > 0 && *not > 0), "{} has a case that acts and one that does not", playbook.name);
    }
}

/// What happens to the step that is attempted as the n-th.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mishap {
    Fails,
    /// opmas ends before it is made.
    CrashBefore,
    /// opmas ends when it is made and nothing has come back.
    CrashAfter,
}

/// Devices that keep what is done to them.
struct Kept {
    mishap: Option<(usize, Mishap)>,
    attempts: usize,
    /// How often each step's effect was made, by key.
    made: BTreeMap<String, usize>,
}

impl Devices for Kept {
    fn attempt(&mut self, step: &Step) -> Option<(OutcomeState, String)> {
        self.attempts += 1;
        let mishap = self.mishap.filter(|(at, _)| *at == self.attempts).map(|(_, mishap)| mishap);
        match mishap {
            Some(Mishap::Fails) => return Some((OutcomeState::Failed, "no".to_owned())),
            Some(Mishap::CrashBefore) => return None,
            Some(Mishap::CrashAfter) | None => *self.made.entry(step.key.to_string()).or_default() += 1,
        }
        mishap.is_none().then(|| (OutcomeState::Enforced, "made".to_owned()))
    }

    fn read_back(&mut self, step: &Step) -> (OutcomeState, String) {
        let state = if self.made.contains_key(&*step.key) { OutcomeState::Enforced } else { OutcomeState::Undone };
        (state, "read back".to_owned())
    }
}

/// Plays to the end; after every record the run is rebuilt from the ledger, as after a crash.
fn played(play: &Play<'_>, mishap: Option<(usize, Mishap)>) -> (Run, Kept, Vec<Decided>) {
    let (mut devices, mut log) = (Kept { mishap, attempts: 0, made: BTreeMap::new() }, Vec::new());
    let mut ledger = vec![play.begin()];
    for _ in 0..1_000 {
        let mut run = Run::begin(&ledger[0]).unwrap();
        ledger[1..].iter().for_each(|record| run.apply(record).unwrap());
        let records = play.turn(&run, &mut devices, &mut log);
        if records.is_empty() {
            return (run, devices, ledger);
        }
        ledger.extend(records);
    }
    panic!("it does not end: {:?}", ledger.last());
}

/// All mishaps of all steps of one playbook for one finding; how many there were.
fn mishaps(playbook: &Playbook, finding: &Finding, inventory: &Inventory, catalogue: &Catalogue) -> usize {
    let play = Play { playbook, finding, inventory, catalogue };
    let (_, well, _) = played(&play, None);
    let mut count = 0;
    for at in 1..=well.attempts {
        for mishap in [Mishap::Fails, Mishap::CrashBefore, Mishap::CrashAfter] {
            let what = format!("{} with {mishap:?} at attempt {at}", playbook.name);
            let (run, devices, ledger) = played(&play, Some((at, mishap)));
            assert!(run.state().0.is_end(), "{what}: {:?}", run.state());
            assert!(devices.made.values().all(|times| *times == 1), "{what}: {:?}", devices.made);
            assert!(run.steps().iter().all(|step| step.outcome.is_some()), "{what}");
            if mishap != Mishap::Fails {
                assert_eq!((&devices.made, run.state().0), (&well.made, RunState::Done), "{what}: a crash changes nothing of what is done");
            }
            // What is left on devices is what the run says that it has done, less what is undone.
            let undone: Vec<_> = play.undone(&run).map(|step| step.key.to_string()).collect();
            let done: Vec<_> = run.done().map(|step| step.key.to_string()).collect();
            assert!(done.iter().all(|key| devices.made.contains_key(key)) && done.len() == devices.made.len(), "{what}");
            if playbook.on_failure == opmas::playbook::OnFailure::Undo && run.state().0 == RunState::Failed {
                assert_eq!(undone, done, "{what}: all that was made has a lifetime, and is undone, the last first");
            }
            // The same ledger cannot be taken further.
            let last = ledger.last().unwrap();
            assert!(run.clone().apply(last).is_err(), "{what}");
            count += 1;
        }
    }
    count
}

#[test]
fn each_step_of_each_shipped_playbook_fails_is_repeated_and_is_crashed_on() {
    let shipped = shipped();
    let mut count = 0;
    for (name, case) in &shipped.cases {
        let (playbook, finding) = (shipped.playbooks.get(name).unwrap(), case.finding().unwrap());
        if playbook.triggered_by(&finding) {
            count += mishaps(playbook, &finding, &case.inventory(), &shipped.catalogue);
        }
    }
    assert!(count >= 6, "{count}");
}

#[test]
fn the_same_holds_for_every_word_of_on_failure() {
    let (catalogue, _) = Catalogue::load(&opmas::config::shipped_actions());
    for word in ["continue", "stop", "undo"] {
        let text = format!(
            "/*---\ntitle='x'\non={{severity=5}}\nmode='auto'\nactions=['block_ip']\non_failure='{word}'\n---*/
            for n in 1..4 {{ for d in devices() {{ d.block_ip(`203.0.113.${{n}}`, `${{n}}h`); }} }}"
        );
        let loaded = Playbooks::load(&[file("p.rhai", &text)], &signatures(&catalogue));
        assert_eq!(loaded.diagnostics, []);
        let inventory = Inventory { devices: devices() };
        assert_eq!(mishaps(loaded.playbooks.get("p").unwrap(), &finding(), &inventory, &catalogue), 27, "{word}");
    }
}

fn opmas_test(path: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).arg("test").arg(path).output().unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn opmas_test_says_which_case_of_a_playbook_does_not_hold() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let header = "/*---\ntitle='x'\non={rule='r'}\nmode='auto'\nactions=['block_ip']\non_failure='undo'\n---*/\n";
    write("p.rhai", &format!("{header}for n in 1..3 {{ finding.device.block_ip(`203.0.113.${{n}}`); }} print(\"both\");"));
    let finding = "finding = { rule = 'r', device = 'ap1' }";
    let step = |n: u8, state: &str| format!("'block_ip duration=1h ip=203.0.113.{n} on ap1: {state}'");
    let right = format!(
        "[[case]]\nname='it goes well'\n{finding}\nsteps=[{}, {}]\nprints=['both']\nend='done'\n
        [[case]]\nname='the second fails'\n{finding}\nsteps=[{}, {}, 'undo block_ip duration=1h ip=203.0.113.1 on ap1']\nend='failed: block_ip'\n
        [[case]]\nname='another rule'\nfinding={{rule='q'}}\nend='not begun'\n",
        step(1, "enforced"),
        step(2, "partial"),
        step(1, "enforced"),
        step(2, "failed, no route")
    );
    write("p.cases.toml", &right);
    assert_eq!(opmas_test(dir.path()), (Some(0), "3 cases hold, 0 do not\n".to_owned()));
    write("p.cases.toml", &right.replace("203.0.113.2 on ap1: partial", "203.0.113.3 on ap1: enforced"));
    let (code, said) = opmas_test(&dir.path().join("p.cases.toml"));
    assert!(code == Some(1) && said.contains("p.cases.toml:1: it goes well") && said.contains("2 cases hold, 1 do not"), "{said}");
    assert!(said.contains("            block_ip duration=1h ip=203.0.113.2 on ap1: enforced\n"), "{said}");
    write("p.cases.toml", "[[case]]\nname='x'\nfinding={rulle='r'}\nend='done'\n");
    let (code, said) = opmas_test(dir.path());
    assert!(code == Some(1) && said.contains("p.cases.toml:3:10: unknown key `rulle`; did you mean `rule`?"), "{said}");
    write("p.cases.toml", "[[case]]\nname='x'\nfinding={severity=9}\nend='done'\n");
    assert!(opmas_test(dir.path()).1.contains("`severity` is 1 to 5"));
    write("q.cases.toml", "[[case]]\nname='x'\nfinding={rule='r'}\nend='done'\n");
    assert!(opmas_test(&dir.path().join("q.cases.toml")).1.contains("there is no playbook `q` that loads"));
    write("p.rhai", "no header");
    assert!(opmas_test(dir.path()).1.contains("p.rhai:1:1: the playbook has no header"));
}
