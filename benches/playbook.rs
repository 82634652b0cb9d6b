//! What a step costs beyond its action: the script's evaluation in the worker process, with all that was recorded before, and the three
//! ledger records, against what the disk takes for three bare appends with fsync in the same run. `cargo bench --bench playbook`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opmas::journal::{DataDir, Ledger, LedgerConfig};
use opmas::model::{Decided, Finding, Outcome, OutcomeState, Step, Time, Verdict};
use opmas::playbook::worker::Hello;
use opmas::playbook::{ActionSignature, Call, Evaluate, Evaluation, Limits, ParamSignature, Progress, Recorded};
use opmas::process::{Peer, Role};

/// Steps of a run.
const STEPS: usize = 20;
/// Runs.
const RUNS: usize = 10;
/// What a step may cost beyond its action, without what the disk takes.
const LIMIT: Duration = Duration::from_millis(2);

fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(measure());
}

fn request() -> Evaluate {
    let text = include_str!("../tests/data/finding.json");
    let finding: Finding = serde_json::from_str(text).unwrap();
    let param = |name: &str, required| ParamSignature { name: name.into(), required, grammar: None };
    let devices: Vec<_> = (0..50).map(|n| serde_json::from_value(serde_json::json!({"name": format!("ap{n}"), "host": "192.0.2.1"})).unwrap()).collect();
    Evaluate {
        playbook: "bench".into(),
        script: format!("for n in 0..{STEPS} {{ let o = device(`ap${{n}}`).block_ip(`203.0.113.${{n}}`, \"1h\"); print(`${{o.state}}`); }}").into(),
        actions: vec![ActionSignature {
            name: "block_ip".into(),
            params: vec![param("ip", true), param("duration", false)],
            assumed: OutcomeState::Enforced,
            own: false,
        }],
        finding: Box::new(finding),
        devices,
        history: Vec::new(),
        plan: false,
        limits: Limits::default(),
    }
}

fn outcome() -> Outcome {
    Outcome { took_ms: 1, ..Outcome::new(OutcomeState::Enforced, "read back", Time(0)) }
}

fn step(call: &Call) -> Step {
    let commands = vec![vec!["nft".to_owned(), "-f".to_owned(), "-".to_owned()]];
    Step {
        run: "0123456789abcdef".into(),
        key: call.key.clone(),
        playbook: "bench".into(),
        device: call.device.clone(),
        action: call.action.clone(),
        params: call.params.clone(),
        commands,
        stdin: vec![Some("add element inet opmas hosts4 { 203.0.113.9 timeout 3600s }\n".repeat(8))],
        decision: Verdict::Auto,
        reason: "carried out: posture, mode and ceiling allow it".into(),
    }
}

/// The median, and the longest.
fn told(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what:52} median {median:>10.1?}   longest {longest:>10.1?}");
    median
}

async fn measure() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let (ledger, _) = Ledger::open_with(&data, &LedgerConfig::default(), &mut |_| {}).unwrap();
    let mut bare = File::create(dir.path().join("bare")).unwrap();
    let mut worker = Peer::spawn_program(Path::new(env!("CARGO_BIN_EXE_opmas")), Role::Worker, &[]).unwrap();
    worker.recv::<Hello>().await.unwrap().unwrap();
    let (mut evaluated, mut recorded, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let mut request = request();
        loop {
            let begin = Instant::now();
            worker.send(&request).await.unwrap();
            let evaluation: Evaluation = worker.recv().await.unwrap().unwrap();
            let evaluating = begin.elapsed();
            let Progress::Ready(calls) = evaluation.progress else { break };
            let (step, begin) = (step(&calls[0]), Instant::now());
            let (run, key): (Arc<str>, Arc<str>) = (step.run.clone(), step.key.clone());
            ledger.append(vec![Decided::Intent { step: Box::new(step), at: Time(0) }]).await.unwrap();
            ledger.append(vec![Decided::Attempt { run: run.clone(), key: key.clone(), attempt: 1, at: Time(0) }]).await.unwrap();
            ledger.append(vec![Decided::Outcome { run, key: key.clone(), outcome: outcome() }]).await.unwrap();
            let recording = begin.elapsed();
            let begin = Instant::now();
            for bytes in [1_200, 200, 300] {
                bare.write_all(&vec![0; bytes]).unwrap();
                bare.sync_data().unwrap();
            }
            let syncing = begin.elapsed();
            request.history.push(Recorded { key, device: calls[0].device.clone(), action: calls[0].action.clone(), outcome: outcome() });
            evaluated.push(evaluating);
            recorded.push(recording);
            disk.push(syncing);
        }
    }
    println!("{RUNS} runs of {STEPS} steps, 50 devices:");
    let (evaluated, recorded) = (told("evaluation in the worker process", evaluated), told("three ledger records, each on disk", recorded));
    let median = evaluated + recorded.saturating_sub(told("three bare appends with fsync", disk));
    println!("a step beyond its action and the disk: {median:.1?}");
    assert!(median < LIMIT, "a step costs {median:?} beyond its action and the disk; the limit is {LIMIT:?}");
}
