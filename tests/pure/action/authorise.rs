//! Who may act: every combination, against the design's sentence "the least of".

use opmas::action::{Catalogue, Ceilings, Mode, Posture, Request, authorise};
use opmas::diag;
use opmas::model::{Trust, Verdict};

use super::shipped;

fn request(posture: Posture, mode: Mode, ceiling: Mode, trust: Trust) -> Request<'static> {
    Request { playbook: "block_source", action: "block_ip", posture, configured: posture, mode, ceiling, trust }
}

#[test]
fn the_least_of_all_decides_in_every_combination() {
    // Written out by hand: 0 observe, 1 approve, 2 auto.
    let postures = [(Posture::Observe, 0), (Posture::Guarded, 1), (Posture::Armed, 2)];
    let modes = [(Mode::Observe, 0), (Mode::Approve, 1), (Mode::Auto, 2)];
    let trusts = [(Trust::Open, 1), (Trust::Verified, 2)];
    let verdicts = [Verdict::Observe, Verdict::Approve, Verdict::Auto];
    let mut seen = 0;
    for (posture, p) in postures {
        for (mode, m) in modes {
            for (ceiling, c) in modes {
                for (trust, t) in trusts {
                    let least = [p, m, c, t].into_iter().min().unwrap();
                    let decision = authorise(&request(posture, mode, ceiling, trust));
                    assert_eq!(decision.verdict, verdicts[least], "{posture:?} {mode:?} {ceiling:?} {trust:?}");
                    let lines = [(p, "posture = \"armed\""), (m, "mode = \"auto\" in block_source.rhai"), (c, "block_ip = \"auto\""), (t, "trusted = true")];
                    for (factor, line) in lines {
                        assert_eq!(decision.reason.contains(line), factor == least && least < 2, "{line}: {}", decision.reason);
                    }
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 54);
}

#[test]
fn one_step_at_a_time_reads_as_a_sentence() {
    let decision = authorise(&request(Posture::Armed, Mode::Auto, Mode::Auto, Trust::Open));
    let wanted =
        "waits for approval: some of the evidence is from a source that anybody can write to (trusted = true at that [source.NAME] in opmas.toml lifts this)";
    assert_eq!(decision.reason, wanted);
    let nothing = authorise(&request(Posture::default(), Mode::Auto, Mode::default(), Trust::Verified));
    assert_eq!(nothing.verdict, Verdict::Observe);
    assert!(
        nothing.reason.starts_with(
            "only shown: posture is observe (posture = \"armed\" in opmas.toml, or opmas posture armed --for 30m --because TEXT, lifts this), and the ceiling"
        ),
        "{}",
        nothing.reason
    );
}

#[test]
fn a_posture_that_a_person_has_set_is_lifted_where_it_was_set() {
    let by_hand = |posture, configured| authorise(&Request { configured, ..request(posture, Mode::Auto, Mode::Auto, Trust::Verified) }).reason;
    let reset = "only shown: posture is observe (opmas posture reset, back to guarded of opmas.toml, lifts this)";
    assert_eq!(by_hand(Posture::Observe, Posture::Guarded), reset);
    assert!(by_hand(Posture::Guarded, Posture::Armed).contains("(opmas posture reset, back to armed of opmas.toml, lifts this)"));
    // Nothing to go back to that would let it go further.
    assert!(by_hand(Posture::Guarded, Posture::Observe).contains("(posture = \"armed\" in opmas.toml, or opmas posture armed --for 30m"));
}

#[derive(Debug, serde::Deserialize)]
struct Config {
    actions: Ceilings,
}

#[test]
fn a_ceiling_for_no_action_has_its_place_and_the_nearest_name() {
    let text = "\n[actions]\nblock_ip = 'auto'\n  blok_ip = 'approve'\n";
    let config: Config = diag::from_toml("opmas.toml", text).unwrap();
    assert_eq!((config.actions.of("block_ip"), config.actions.of("reboot")), (Mode::Auto, Mode::Observe));
    let wrong = config.actions.check(&shipped(), "opmas.toml", text);
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].to_string(), "opmas.toml:4:3: unknown action `blok_ip`; did you mean `block_ip`?");
    let wrong = config.actions.check(&Catalogue::default(), "opmas.toml", text);
    assert_eq!(wrong.len(), 2);
    assert_eq!(wrong[0].to_string(), "opmas.toml:3:1: unknown action `block_ip`; no action is loaded: look at the files in playbooks/actions");
    let wrong = diag::from_toml::<Config>("opmas.toml", "[actions]\nblock_ip = 'atuo'").unwrap_err();
    assert!(wrong.to_string().starts_with("opmas.toml:2:12: ") && wrong.message.contains("atuo"), "{wrong}");
}
