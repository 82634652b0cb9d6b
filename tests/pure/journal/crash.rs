//! Processes that die, disks that are full, syncs that fail: each in a process of its own, which is this test binary again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use opmas::journal::{AppendError, DataDir, Health, Ledger, LedgerReader, SpoolConfig, SpoolHandle, verify_spool};

use super::{Folder, line, note, pushed, raw, record, small_segments, start};

/// Names the folder to a test that runs as its own child.
const CHILD: &str = "OPMAS_JOURNAL_TEST_FOLDER";

fn child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// A command that runs one test of this binary as a child, below the given launcher.
fn as_child(launcher: &[&str], test: &str, folder: &Path) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut command = match launcher {
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(me);
            command
        }
        [] => Command::new(me),
    };
    command.args(["--exact", &format!("journal::crash::{test}"), "--nocapture"]).env(CHILD, folder);
    command
}

fn runs_well(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{command:?}: {text}");
}

/// Appends without end, and says what was acknowledged.
fn append_until_killed(folder: &Path) -> ! {
    let say = |what: String| std::io::stdout().write_all(format!("\n{what}\n").as_bytes()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let data = DataDir::open(folder).unwrap();
        // Closed segments are archived all the while.
        let (handle, _) = start(&data, SpoolConfig { keep_bytes: 1, ..small_segments(20_000) });
        handle.retain_from(u64::MAX);
        let (ledger, _) = Ledger::open(&data).unwrap();
        for task in 0..6 {
            let handle = handle.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let text = format!("{}-{task}-{n}", std::process::id());
                    let place = handle.append(vec![pushed(&text)]).await.unwrap();
                    say(format!("spool {} {text}", place.first));
                }
            });
        }
        let file = "/var/log/messages:1:2";
        for n in 0.. {
            // As a source does after a restart: what it is not sure of comes again.
            let next = handle.position(file).map_or(0, |at| at + 1);
            handle.append((next.saturating_sub(3)..=next).map(|offset| line(file, offset)).collect()).await.unwrap();
            say(format!("line {next}"));
            let place = ledger.append((0..1 + n % 3).map(|k| note(&format!("{n}.{k}"))).collect()).await.unwrap();
            say(format!("ledger {} {}", place.last, place.hash));
        }
        unreachable!()
    })
}

#[test]
fn o3_kill_9_loses_nothing_that_was_acknowledged() {
    if let Some(folder) = child() {
        append_until_killed(&folder);
    }
    let folder = Folder::new();
    let (mut spool, mut ledger, mut newest_line) = (BTreeMap::new(), BTreeMap::new(), 0);
    for round in 0..6 {
        let mut process =
            as_child(&[], "o3_kill_9_loses_nothing_that_was_acknowledged", &folder.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(120 + 37 * round));
            process.kill().unwrap();
            process.wait().unwrap();
        });
        for text in said.lines().map_while(Result::ok) {
            match text.split(' ').collect::<Vec<_>>()[..] {
                ["spool", seq, text] => drop(spool.insert(seq.parse::<u64>().unwrap(), text.to_owned())),
                ["line", offset] => newest_line = offset.parse::<u64>().unwrap(),
                ["ledger", last, hash] => drop(ledger.insert(last.parse::<u64>().unwrap(), hash.to_owned())),
                _ => {}
            }
        }
        killer.join().unwrap();
    }
    assert!(spool.len() > 100 && ledger.len() > 10, "the children wrote: {} and {}", spool.len(), ledger.len());
    drop(start(&folder.open(), SpoolConfig::default()));
    let entries = folder.entries();
    assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "no gaps");
    assert!(folder.segments("spool/archive").len() > 3, "and most of it is archived");
    for (seq, text) in &spool {
        assert_eq!(raw(&entries[usize::try_from(*seq).unwrap() - 1]), *text);
    }
    let lines = entries.iter().filter(|e| raw(e) == "line").count() as u64;
    assert!((newest_line + 1..=newest_line + 2).contains(&lines), "o4: each line once: {lines} of {newest_line}");
    let data = DataDir::open_read_only(&folder.path()).unwrap();
    let chain: BTreeMap<_, _> = LedgerReader::open(&data.ledger(), 1).unwrap().map(|e| e.map(|e| (e.seq, e.hash.to_string())).unwrap()).collect();
    for (last, hash) in &ledger {
        assert_eq!(chain.get(last), Some(hash), "acknowledged ledger batches are there");
    }
    assert!(verify_spool(&data).is_good());
}

/// A disk takes no more: nothing is acknowledged, what was half written is cut back; with room again all goes on.
async fn fill_up(folder: &Path, wanted: &str, make_room: impl FnOnce()) {
    let data = DataDir::open(folder).unwrap();
    let (handle, _) = start(&data, SpoolConfig::default());
    let (ledger, _) = Ledger::open(&data).unwrap();
    ledger.append(vec![note("before")]).await.unwrap();
    let (kept, error) = fill(&handle).await;
    assert!(kept > 5 && error.is_temporary(), "{kept} {error}");
    let file = folder.join("spool/00000000000000000001.spool");
    let text = error.to_string();
    assert!(text.contains(wanted) && text.contains(file.to_str().unwrap()), "{text}");
    let health = handle.health().borrow().clone();
    assert!(matches!(&health, Health::Failing { why, .. } if why.contains(wanted)), "{health:?}");
    for _ in 0..3 {
        handle.append(vec![record(None, &vec![b'y'; 200_000])]).await.unwrap_err();
    }
    let (once, large) = (line("again", 7), record(None, &vec![b'y'; 200_000]));
    let (_, back) = handle.try_append(vec![once.clone(), once.clone(), large.clone()]).await.unwrap_err();
    assert_eq!(back, [once.clone(), large], "what was not kept is given back, and what came twice once");
    let report = verify_spool(&data);
    assert!(report.is_good() && report.notes.is_empty(), "cut back to what is whole: {report:?}");
    assert_eq!((report.last, handle.durable()), (Some(kept), kept));
    assert_eq!(*ledger.health().borrow(), Health::Good);

    make_room();
    let appended = handle.append(vec![pushed("after")]).await.unwrap();
    assert_eq!(appended.first, kept + 1, "no place was used up");
    assert_eq!(*handle.health().borrow(), Health::Good);
    assert_eq!(handle.append(vec![once]).await.unwrap().duplicates, 0, "o4: it had not been kept");
    ledger.append(vec![note("after")]).await.unwrap();
    handle.close().await;
    ledger.close().await;
    drop(data);
    let (_, recovery) = start(&DataDir::open(folder).unwrap(), SpoolConfig::default());
    assert_eq!((recovery.last, recovery.torn.len(), recovery.broken.len()), (kept + 2, 0, 0));
}

/// How many entries were kept, and why the next one was not.
async fn fill(handle: &SpoolHandle) -> (u64, AppendError) {
    for kept in 0..10_000 {
        if let Err(error) = handle.append(vec![record(None, &[b'x'; 3_000])]).await {
            return (kept, error);
        }
    }
    panic!("the disk never became full")
}

#[tokio::test]
async fn o3_a_full_disk_acknowledges_nothing_and_recovers() {
    const NAME: &str = "o3_a_full_disk_acknowledges_nothing_and_recovers";
    if let Some(mount) = child() {
        fs::write(mount.join("ballast"), vec![0; 100_000]).unwrap();
        let folder = mount.join("opmas-data");
        return fill_up(&folder, "No space left on device", || fs::remove_file(mount.join("ballast")).unwrap()).await;
    }
    runs_well(on_a_small_disk(NAME, tempfile::tempdir().unwrap().path()));
}

/// One test as a child that has a file system of its own, 400 KB large, in a mount namespace of its own.
fn on_a_small_disk(test: &str, mount: &Path) -> Command {
    let script = format!("mount -t tmpfs -o size=400k opmas-test '{}' && exec \"$0\" \"$@\"", mount.display());
    let namespace: &[&str] = if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
    as_child(&[&["unshare"], namespace, &["sh", "-c", &script]].concat(), test, mount)
}

#[tokio::test]
async fn on_a_full_disk_the_oldest_makes_room_for_what_is_archived() {
    const NAME: &str = "on_a_full_disk_the_oldest_makes_room_for_what_is_archived";
    let Some(mount) = child() else { return runs_well(on_a_small_disk(NAME, tempfile::tempdir().unwrap().path())) };
    let path = mount.join("opmas-data");
    let random = |bytes: usize| {
        let mut taken = vec![0; bytes];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut taken).unwrap();
        taken
    };
    let (handle, _) = start(&DataDir::open(&path).unwrap(), small_segments(20_000));
    for _ in 0..8 {
        handle.append(vec![record(None, &random(20_000))]).await.unwrap();
    }
    handle.close().await;
    for round in 0..=6 {
        // Room for one entry, and not for a segment; at first for all.
        let mut ballast = fs::File::create(mount.join(format!("ballast-{round}"))).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        let full = ballast.metadata().unwrap().len();
        ballast.set_len(if round == 0 { 0 } else { full.saturating_sub(12_000) }).unwrap();
        let data = DataDir::open(&path).unwrap();
        let (handle, _) = start(&data, SpoolConfig { keep_bytes: 1, ..small_segments(1_000_000) });
        // One segment each time.
        handle.retain_from(2 + round);
        assert_eq!(handle.append(vec![pushed("x")]).await.unwrap().first, 9 + round);
        handle.close().await;
        let report = verify_spool(&data);
        assert!(report.is_good() && (report.first > Some(1)) == (round > 0) && report.last == Some(9 + round), "{report:?}");
        assert!(fs::read_dir(path.join("spool/archive")).unwrap().count() > 0, "what was archived last is kept");
    }
}

#[tokio::test]
async fn o3_a_file_that_may_not_grow_acknowledges_nothing_and_recovers() {
    if let Some(folder) = child() {
        let raise = || {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
            let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
            rustix::process::setrlimit(rustix::process::Resource::Fsize, raised).unwrap();
        };
        return fill_up(&folder, "File too large", raise).await;
    }
    let folder = Folder::new();
    let launcher = ["sh", "-c", "trap '' XFSZ; ulimit -S -f 120; exec \"$0\" \"$@\""];
    runs_well(as_child(&launcher, "o3_a_file_that_may_not_grow_acknowledges_nothing_and_recovers", &folder.path()));
}

/// The kernel's answer to `fdatasync` on this file descriptor is from now on an I/O error.
fn make_sync_fail(fd: u64) {
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
    let (fdatasync, arch) = if cfg!(target_arch = "aarch64") { (83, seccompiler::TargetArch::aarch64) } else { (75, seccompiler::TargetArch::x86_64) };
    let on_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, fd).unwrap();
    let rules = [(fdatasync, vec![SeccompRule::new(vec![on_it]).unwrap()])].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(5), arch).unwrap();
    seccompiler::apply_filter_all_threads(&seccompiler::BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// The descriptor under which this process has the file open.
fn descriptor_of(file: &Path) -> u64 {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|e| e.unwrap().path());
    let found = open.filter(|fd| fs::read_link(fd).is_ok_and(|to| to == file)).collect::<Vec<_>>();
    assert_eq!(found.len(), 1);
    found[0].file_name().unwrap().to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn o3_after_a_failed_sync_the_segment_is_not_trusted() {
    let Some(path) = child() else {
        let folder = Folder::new();
        return runs_well(as_child(&[], "o3_after_a_failed_sync_the_segment_is_not_trusted", &folder.path()));
    };
    let data = DataDir::open(&path).unwrap();
    let (handle, _) = start(&data, SpoolConfig::default());
    handle.append(vec![pushed("one")]).await.unwrap();
    let first = path.join("spool/00000000000000000001.spool");
    let acknowledged = fs::metadata(&first).unwrap().len();
    make_sync_fail(descriptor_of(&first));
    let error = handle.append(vec![line("f", 1)]).await.unwrap_err().to_string();
    assert!(error.contains("cannot sync") && error.contains("Input/output error") && error.contains(first.to_str().unwrap()), "{error}");
    let appended = handle.append(vec![line("f", 1)]).await.unwrap();
    assert_eq!((appended.first, appended.duplicates), (2, 0), "it was not kept, so it is no duplicate");
    assert_eq!(fs::metadata(&first).unwrap().len(), acknowledged, "what the sync did not cover is gone");
    assert!(path.join("spool/00000000000000000002.spool").exists(), "and was written anew elsewhere");
    handle.close().await;
    let report = verify_spool(&data);
    assert!(report.is_good() && report.last == Some(2), "{report:?}");
}
