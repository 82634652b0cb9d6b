//! What `compose/` brings: files that no engine runs in this suite, judged by the tools that read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a tool; what it says, and whether it is content.
fn tool(package: &str, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(program).args(arguments).current_dir(root()).output().unwrap_or_else(|error| panic!("{package} is missing, see tests/run.sh: {error}"));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref())
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// The names that stand directly behind a macro of the metrics crate in `src/`.
pub(crate) fn exported() -> BTreeSet<String> {
    let mut sources = Vec::new();
    files(&root().join("src"), &mut sources);
    let texts: Vec<String> = sources.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut names = BTreeSet::new();
    for text in &texts {
        for call in ["counter!(", "gauge!(", "histogram!("] {
            for rest in text.split(call).skip(1) {
                names.extend(rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()).map(str::to_owned));
            }
        }
    }
    assert!(names.len() > 20, "{names:?}");
    names
}

/// Every word that begins with `opmas_`: metrics, where nothing else is named so.
pub(crate) fn metrics_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("opmas_")).map(|word| word.trim_end_matches("_count").trim_end_matches("_sum").to_owned()).collect()
}

#[test]
fn compose_yaml_is_of_the_compose_specification() {
    let (good, said) = tool("tests/services/checks.sh", root().join("tests/services/checks.sh"), &["compose", "compose/compose.yaml"]);
    assert!(good, "{said}");
    let broken = tempfile::NamedTempFile::new().unwrap();
    fs::write(broken.path(), read("compose/compose.yaml").replace("cap_add:", "cap_ad:")).unwrap();
    let (good, said) = tool("tests/services/checks.sh", root().join("tests/services/checks.sh"), &["compose", broken.path().to_str().unwrap()]);
    assert!(!good && said.contains("cap_ad"), "the judge sees a misspelt key: {said}");
}

#[test]
fn every_file_that_compose_and_the_images_name_is_there() {
    let text = read("compose/compose.yaml");
    let mounted = text.lines().filter_map(|line| line.trim().strip_prefix("- ./")).map(|mount| mount.split(':').next().unwrap());
    let mut seen = 0;
    for path in mounted.chain(["device", "Dockerfile"]) {
        assert!(root().join("compose").join(path).exists(), "{path}");
        seen += 1;
    }
    assert!(seen >= 6);
    let copied = read("compose/device/Dockerfile");
    let copy = copied.lines().find(|line| line.starts_with("COPY")).unwrap();
    for script in copy.split_whitespace().filter(|word| !word.starts_with("--") && !word.contains('/')).skip(1) {
        let (good, said) = tool("dash", "sh", &["-n", &format!("compose/device/{script}")]);
        assert!(good, "{said}");
    }
    // What the build needs and the context leaves out would fail only in the engine.
    let context = read("compose/Dockerfile.dockerignore");
    for needed in ["Cargo.toml", "Cargo.lock", "README.md", "src", "rules", "playbooks", "notifiers", "tests"] {
        assert!(context.lines().any(|line| line == format!("!{needed}")) && root().join(needed).exists(), "{needed}");
    }
}

#[test]
fn the_configuration_in_site_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    files(&root().join("compose/site"), &mut all);
    for path in all {
        let to = dir.path().join(path.strip_prefix(root().join("compose/site")).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).arg("check").current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}

#[test]
fn prometheus_takes_its_configuration_and_the_rules() {
    let (good, said) = tool("prometheus", "promtool", &["check", "config", "--lint-fatal", "compose/prometheus/prometheus.yml"]);
    assert!(good && said.contains("10 rules found"), "{said}");
}

#[test]
fn dashboards_and_rules_name_only_metrics_that_there_are() {
    let exported = exported();
    let mut seen = 0;
    let dashboard: Value = serde_json::from_str(&read("compose/grafana/dashboards/opmas.json")).unwrap();
    let mut expressions = vec![read("compose/prometheus/opmas.rules.yml")];
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["datasource"]["uid"] == "prometheus", "{panel}");
        expressions.extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    for expression in expressions {
        for name in metrics_named(&expression) {
            assert!(exported.contains(&name), "{name} is no metric of opmas: {expression}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
    assert!(read("compose/grafana/provisioning/datasources/prometheus.yaml").contains("uid: prometheus\n"));
}

#[test]
fn the_unit_is_right_and_leaves_little_exposed() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("opmas.service");
    // `verify` looks for the program.
    fs::write(&unit, read("compose/opmas.service").replace("/usr/local/bin/opmas run", &format!("{} run", env!("CARGO_BIN_EXE_opmas")))).unwrap();
    let unit = unit.to_str().unwrap();
    let (good, said) = tool("systemd", "systemd-analyze", &["verify", "--man=no", unit]);
    assert!(good && said.is_empty(), "{said}");
    // Tenths: systemd calls up to 2.0 "OK".
    let (good, said) = tool("systemd", "systemd-analyze", &["security", "--offline=true", "--threshold=20", unit]);
    assert!(good, "{said}");
}
