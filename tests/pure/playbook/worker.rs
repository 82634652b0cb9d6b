//! The worker process: answers as the library does, and what kills it kills nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use opmas::playbook::worker::Hello;
use opmas::process::{Peer, Role};

use super::*;

async fn worker() -> Peer {
    let mut peer = Peer::spawn_program(Path::new(env!("CARGO_BIN_EXE_opmas")), Role::Worker, &[]).unwrap();
    let hello: Hello = peer.recv().await.unwrap().unwrap();
    println!("{hello:?}");
    peer
}

async fn ask(worker: &mut Peer, request: &Evaluate) -> Option<Evaluation> {
    worker.send(request).await.ok()?;
    worker.recv().await.ok().flatten()
}

#[tokio::test]
async fn it_answers_what_the_library_answers_and_lives_on_after_every_failure() {
    let mut worker = worker().await;
    let scripts = [
        "finding.device.collect_log()",
        "loop { }",
        "fn f(x) { f(x + 1) } f(0)",
        "let s = \"x\"; loop { s += s; }",
        "let a = [1]; loop { a = [a, a]; }",
        "let m = #{}; let i = 0; loop { i += 1; m[`${i}`] = \"x\"; }",
        "let a = []; a.pad(1000, 0); let b = a; let c = a; a.map(|x| b.map(|y| c.map(|z| z)))",
        "let x = ;",
        "eval(\"1\")",
        "try { [1].map(|x| finding.device.collect_log()) } catch { } finding.device.block_ip(\"1\");",
        "print(1)",
    ];
    for script in scripts {
        let request = request(script);
        assert_eq!(ask(&mut worker, &request).await, Some(evaluate(&request)), "{script}");
    }
}

/// How a script that is too much for a worker is answered, and that the next worker is well.
async fn too_much(script: &str) -> (Option<Evaluation>, Option<i32>) {
    let mut first = worker().await;
    let answer = ask(&mut first, &request(script)).await;
    let signal = if answer.is_none() { std::os::unix::process::ExitStatusExt::signal(&first.child().wait().await.unwrap()) } else { None };
    assert_eq!(ask(&mut worker().await, &request("print(1)")).await.unwrap().log, ["1"]);
    (answer, signal)
}

#[tokio::test]
async fn the_memory_of_a_worker_is_limited() {
    // Maps pass their bound by index assignment: 30,000 strings of 32 kB would be a gigabyte.
    let script = "let m = #{}; let s = \"x\"; for i in 0..15 { s += s; } let i = 0; while i < 30000 { i += 1; m[`${i}`] = s + i; } print(\"made\");";
    let (answer, signal) = too_much(script).await;
    assert_eq!((answer, signal), (None, Some(libc::SIGABRT)));
}

#[tokio::test]
async fn the_processor_time_of_a_worker_is_limited() {
    // Few operations, each of which takes long.
    let script = "let s = \"x\"; for i in 0..16 { s += s; } for i in 0..60000 { s.to_upper(); s.to_lower(); s.index_of(\"y\"); }";
    let (answer, signal) = too_much(script).await;
    assert_eq!((answer, signal), (None, Some(libc::SIGXCPU)));
}

#[tokio::test]
async fn values_that_nest_deeply_or_hold_themselves_are_contained() {
    for script in [
        "let a = []; for i in 0..1000 { a = [a]; } print(a);",
        "let m = #{}; for i in 0..500 { m = #{ m: m }; } print(m); finding.device.block_ip(m);",
        "let a = []; let f = || a; a.push(f); print(a);",
        "let f = || 1; for i in 0..10000 { let g = f; f = || g; } print(1);",
    ] {
        let (answer, signal) = too_much(script).await;
        println!("{answer:?} {signal:?}");
        assert!(answer.is_some() || signal.is_some());
    }
}

#[tokio::test]
async fn a_round_trip_is_short() {
    let mut worker = worker().await;
    let request = request("finding.device.block_ip(finding.entity(\"source\"), \"1h\")");
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        ask(&mut worker, &request).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("median {:?}, longest {:?}", times[25], times[49]);
    // A debug build on a busy machine; a release build takes a tenth of it.
    assert!(times[25] < Duration::from_millis(100), "{times:?}");
}

#[tokio::test]
async fn a_request_that_is_not_understood_ends_the_worker() {
    let mut worker = worker().await;
    worker.send(&"nonsense").await.unwrap();
    assert!(worker.recv::<Evaluation>().await.unwrap().is_none());
    assert!(!worker.child().wait().await.unwrap().success());
}
