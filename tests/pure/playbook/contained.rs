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

#[test]
fn parallel_is_no_way_around_a_bound() {
    for script in [
        "parallel([1], |x| { loop { } })",
        "let a = []; a.pad(1000, 0); let b = a; let c = a; parallel(a, |x| b.map(|y| c.map(|z| z)))",
        "loop { try { parallel([1, 2], |x| { throw 1 }) } catch { } }",
        "try { parallel([1], |x| { loop { } }) } catch { } print(\"on\"); loop { }",
    ] {
        // Each fork is a call as well: whichever bound comes first.
        let message = stopped(script);
        assert!(message == ENDLESS || message == "the script takes more than 256 steps, the most that a run may have", "{script}: {message}");
    }
    assert_eq!(stopped("fn f(n) { parallel([1], |x| f(n + 1)) } f(0)"), "functions of the script call each other more than 24 deep");
    assert_eq!(
        stopped("let f = Fn(\"g\"); fn g(x) { let f = Fn(\"g\"); parallel([x], f) } f.call(1)"),
        "functions of the script call each other more than 24 deep"
    );
    let (calls, end) = opmas::playbook::plan(&request("let a = []; a.pad(1000, 0); parallel(a, 64, |x| finding.device.collect_log())"));
    assert!(calls.len() <= 256 && matches!(end, Progress::Failed { .. }), "{} {end:?}", calls.len());
    let (calls, end) = opmas::playbook::plan(&request("loop { wait(\"7d\"); }"));
    assert!(calls.len() == 256 && matches!(end, Progress::Failed { .. }), "{end:?}");
}

#[test]
fn what_is_given_to_a_script_cannot_be_changed_or_taken_for_something_else() {
    for script in [
        "finding.title = \"x\";",
        "finding = 1;",
        "finding.device.name = \"other\";",
        "finding.group.src_ip = \"192.0.2.1\"; if finding.group.src_ip != \"203.0.113.9\" { throw \"changed\" } throw \"same\"",
        "let d = devices(); d[0].name = \"barn\"; throw d[0].name",
        "block_ip(\"gate\", \"192.0.2.1\")",
        "block_ip(#{ name: \"gate\" }, \"192.0.2.1\")",
        "finding.device.block_ip(finding)",
        "finding.device.block_ip(finding.device)",
        "finding.device.block_ip([\"192.0.2.1\", [[[[[1]]]]]])",
        "private fn x() { 1 } global::x()",
        "let x = 1; x.call()",
        "Fn(\"eval\").call(\"1\")",
        "call_fn(\"eval\", \"1\")",
        "import_module(\"x\")",
        "#[[ ]]",
    ] {
        let message = stopped(script);
        assert!(!message.contains("changed"), "{script}: {message}");
    }
    // A function of the script's own name for one of ours asks for nothing.
    let shadowed = run("fn wait(x) { print(`waits ${x}`); } wait(\"5m\");");
    assert_eq!((shadowed.progress, shadowed.log), (Progress::Done, vec!["waits 5m".to_owned()]));
}

#[test]
fn large_literals_and_ranges_are_bounded() {
    let list = format!("let a = [{}];", "1,".repeat(3_000));
    assert_eq!(stopped(&list), "size of array literal exceeds the maximum limit (1024)");
    let map = format!("let m = #{{{}}}; m.len();", (0..2_000).map(|n| format!("k{n}: {n},")).collect::<String>());
    assert!(stopped(&map).contains("exceeds the maximum limit (512)"), "{}", stopped(&map));
    let text = format!("let s = \"{}\"; s += s;", "x".repeat(60_000));
    assert_eq!(stopped(&text), "a value grows too large: length of string");
    assert_eq!(stopped("let s = `${\"x\"}`; for n in 0..30 { s = `${s}${s}`; }"), "a value grows too large: length of string");
    assert_eq!(stopped("let n = 0; for x in range(0, 9223372036854775807) { n += 1; }"), ENDLESS);
    assert_eq!(stopped("let n = 9223372036854775807; n += 1;").split(':').next(), Some("addition overflow"));
}
