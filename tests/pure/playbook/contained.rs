//! What scripts try, and what stops them within one evaluation.

use super::*;

/// Why a script failed.
fn stopped(script: &str) -> String {
    match run(script).progress {
        Progress::Failed { message, .. } => message,
        other => panic!("{other:?} for {script}"),
    }
}

const ENDLESS: &str = "the script takes more than 200000 operations; does a loop not end?";

#[test]
fn loops_end_also_in_closures_and_when_errors_are_caught() {
    for script in [
        "loop { }",
        "let i = 0; while true { i += 1; }",
        "loop { try { throw 1 } catch { } }",
        "for x in 0..1000000000 { }",
        // The engine counts anew in each closure: here 1,000 × 1,000 × 1,000.
        "let a = []; a.pad(1000, 0); let b = a; let c = a; a.map(|x| b.map(|y| c.map(|z| z)))",
        "try { let a = [1]; a.map(|x| { loop { } }) } catch { } loop { try { [1].map(|x| { loop { } }) } catch { } }",
    ] {
        assert_eq!(stopped(script), ENDLESS, "{script}");
    }
}

#[test]
fn recursion_ends() {
    assert_eq!(stopped("fn f(x) { f(x + 1) } f(0)"), "functions of the script call each other more than 24 deep");
    assert_eq!(stopped("fn a(x) { b(x) } fn b(x) { [x].map(|y| a(y)) } a(0)"), "functions of the script call each other more than 24 deep");
    let deep = format!("let x = {}1{};", "(".repeat(500), ")".repeat(500));
    assert_eq!(stopped(&deep), "expression exceeds maximum complexity");
}

#[test]
fn values_stay_small() {
    let large = |what: &str| format!("a value grows too large: {what}");
    assert_eq!(stopped("let s = \"x\"; loop { s += s; }"), large("length of string"));
    assert_eq!(stopped("let s = \"x\"; s.pad(1000000000, 'x')"), large("length of string"));
    assert_eq!(stopped("let a = [1]; loop { a += a; }"), large("size of array/BLOB"));
    assert_eq!(stopped("let a = []; a.pad(1000000000, 0)"), large("size of array/BLOB"));
    assert_eq!(stopped("let a = [1]; loop { a = [a, a]; }"), large("size of array/BLOB"));
    assert_eq!(stopped("let m = #{}; let i = 0; loop { i += 1; m[`${i}`] = i; m.len(); }"), large("size of object map"));
    // An index assignment passes the map's bound until the next call; operations bound it.
    let message = stopped("let m = #{}; let i = 0; loop { i += 1; m[`${i}`] = i; }");
    assert!(message == ENDLESS || message == large("size of object map"), "{message}");
    let many: String = (0..2000).map(|i| format!("let v{i} = {i};\n")).collect();
    assert_eq!(stopped(&many), "the script has more than 256 variables at one time");
}

#[test]
fn there_is_no_way_to_code_files_time_or_waiting() {
    for script in ["eval(\"1\")", "import \"x\" as x;", "export let x = 1;"] {
        assert!(stopped(script).contains("reserved") || stopped(script).contains("disabled"), "{script}: {}", stopped(script));
    }
    for (script, function) in [
        ("sleep(5)", "sleep (i64)"),
        ("timestamp()", "timestamp ()"),
        ("exit()", "exit ()"),
        ("open_file(\"/etc/passwd\")", "open_file (&str | ImmutableString | String)"),
    ] {
        assert_eq!(stopped(script), format!("there is no function `{function}`"));
    }
}

#[test]
fn a_run_has_a_bounded_number_of_steps() {
    let (calls, end) = opmas::playbook::plan(&request("loop { finding.device.collect_log(); }"));
    assert_eq!(calls.len(), 256);
    let Progress::Failed { message, .. } = end else { panic!("{end:?}") };
    assert_eq!(message, "the script takes more than 256 steps, the most that a run may have");
}
