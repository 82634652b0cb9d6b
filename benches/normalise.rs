//! Raw syslog lines normalised a second on one core, with the shipped extractors and with ten times as many, beside `grep -c` over the same
//! file. All figures are CPU time.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use opmas::diag::SourceFile;
use opmas::model::{Inventory, Payload, Record, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use rustix::time::{ClockId, clock_gettime};

/// Lines of the file.
const LINES: usize = 400_000;
/// Times that grep reads it.
const GREPS: u32 = 20;

fn main() {
    let files = shipped();
    let (extractors, _) = Extractors::load(&files);
    let lines = corpus(&files);
    let path = std::env::temp_dir().join(format!("opmas-bench-{}.log", std::process::id()));
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    println!("{} lines of the extractors' examples, {} bytes, {} files of extractors", lines.len(), fs::metadata(&path).unwrap().len(), files.len());
    let once = rate("shipped extractors", extractors, &lines);
    let many: Vec<SourceFile> = files.iter().cloned().chain((1..10).flat_map(|n| files.iter().map(move |file| variant(file, n)))).collect();
    let (many, refused) = Extractors::load(&many);
    println!("{} files of extractors, {} diagnostics", many.len(), refused.len());
    let tenfold = rate("ten times as many", many, &lines);
    println!("ten times the extractors cost {:.2} times as much", once / tenfold);
    let before = children();
    // Its output is read: into /dev/null it would stop at the first match.
    for _ in 0..GREPS {
        let ended = Command::new("grep").args(["-c", "Bad password attempt"]).arg(&path).env("LC_ALL", "C").stderr(Stdio::null()).output().unwrap();
        assert!(ended.status.success());
    }
    println!("grep -c: {:.0} lines/s", f64::from(GREPS) * lines.len() as f64 / (children() - before).max(0.01));
    fs::remove_file(path).unwrap();
}

fn shipped() -> Vec<SourceFile> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/extractors");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| SourceFile { name: path.display().to_string().into(), text: fs::read_to_string(path).unwrap().into() }).collect()
}

/// The file once more, with other words at the end of each wording.
fn variant(file: &SourceFile, n: usize) -> SourceFile {
    let mut text = String::new();
    for line in file.text.lines() {
        let quote = line.strip_prefix("line = ").and_then(|rest| rest.chars().next());
        match quote.and_then(|quote| line.strip_suffix(quote).map(|rest| (rest, quote))) {
            Some((rest, quote)) if !rest.ends_with(":pairs}") => writeln!(text, "{rest} (variant {n}){quote}").unwrap(),
            _ => writeln!(text, "{line}").unwrap(),
        }
    }
    SourceFile { name: format!("{}.{n}", file.name).into(), text: text.into() }
}

/// Every example with a header, again and again.
fn corpus(files: &[SourceFile]) -> Vec<String> {
    let mut examples = Vec::new();
    for file in files {
        let table: toml::Table = file.text.parse().unwrap();
        let program = table["programs"][0].as_str().unwrap();
        for example in table["pattern"].as_array().unwrap().iter().flat_map(|pattern| pattern["example"].as_array().unwrap()) {
            examples.push(format!("{program}[{}]: {}", 100 + examples.len(), example["line"].as_str().unwrap()));
        }
    }
    (0..LINES).map(|n| format!("<30>Nov 21 13:{:02}:{:02} ap{} {}", n / 60 % 60, n % 60, n % 199, examples[n * 7919 % examples.len()])).collect()
}

/// Lines a second.
fn rate(what: &str, extractors: Extractors, lines: &[String]) -> f64 {
    let mut normaliser = Normaliser::new(Arc::new(extractors), Options::at(Time(0)));
    let record = |line: &String| Record {
        id: None,
        source: "routers".into(),
        stream: "routers/udp".into(),
        arrival: Some(Time(1_800_000_000_000_000_000)),
        peer: None,
        trust: Trust::Open,
        raw: line.clone().into_bytes(),
        payload: Payload::Log,
        subject: None,
    };
    let records: Vec<Record> = lines.iter().map(record).collect();
    let (inventory, mut typed) = (Inventory::default(), 0usize);
    // Once before: the automata's states are made.
    for warm in [true, false] {
        let (count, begun) = (if warm { 20_000 } else { records.len() }, cpu());
        typed = 0;
        for (seq, record) in records.iter().take(count).enumerate() {
            typed += usize::from(normaliser.normalise(seq as u64, record, &inventory).fields.contains_key("action"));
        }
        if !warm {
            let rate = count as f64 / (cpu() - begun);
            println!("{what}: {rate:.0} lines/s, {typed} of {count} typed");
            return rate;
        }
    }
    typed as f64
}

/// CPU time of this process, in seconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU time of ended children, in seconds (proc(5): cutime and cstime, in hundredths).
fn children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[13..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
