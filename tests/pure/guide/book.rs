//! A page of the guide as a program: its fenced blocks, marked in the info string, which readers of the page do not see.
//!
//! - ` ```sh run `: commands for the machine that opmas runs on; ` ```sh router `: the same, and they need a router;
//!   ` ```sh elsewhere `: commands for a router, or that reach a server on the internet
//! - ` ```LANGUAGE file=PATH `: what the reader writes into a file, relative to the folder that the commands before it are in
//! - ` ```text prints `: lines that the commands before it print, in this order; `…` stands for anything

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// One fenced block.
#[derive(Debug)]
pub struct Block {
    pub line: usize,
    pub language: String,
    pub mark: String,
    pub text: String,
}

/// The blocks of a page.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), inside) {
            (Some(info), false) => {
                let (language, mark) = info.split_once(' ').unwrap_or((info, ""));
                blocks.push(Block { line: index + 1, language: language.into(), mark: mark.into(), text: String::new() });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!inside, "a block that does not end");
    blocks
}

/// The page as a bash script that stops at the first command that fails; what block N prints goes to `OUT/N`.
fn script(blocks: &[Block], out: &Path, marks: &[&str]) -> String {
    let mut script = "sleep() { case $1 in *.*) command sleep \"$1\" ;; *) command sleep $(($1 * PACE)) ;; esac; }\nset -Eeuo pipefail\ntrap 'echo \"the block at line $LINE_OF_PAGE ended with $?\" >&2' ERR\n".to_owned();
    for block in blocks {
        let Block { line, text, .. } = block;
        if let Some(path) = block.mark.strip_prefix("file=") {
            script += &format!("mkdir -p \"$(dirname '{path}')\"\ncat >'{path}' <<'END OF FILE'\n{text}END OF FILE\n");
        } else if block.language == "sh" && marks.contains(&&*block.mark) {
            script += &format!("LINE_OF_PAGE={line}\n{{\n{text}}} >'{}' 2>&1\n", out.join(line.to_string()).display());
        }
    }
    script
}

/// Runs a page with a `shell` (which gets the script as its last argument), and what comes `after` it, and checks what it prints. Its pauses
/// are long enough for a machine that does nothing else: what does not come in them is tried once more from the beginning, with longer ones.
pub fn follow(page: &Path, shell: impl Fn() -> Command, marks: &[&str], after: &str) {
    if let Err(wrong) = follow_at(1, page, shell(), marks, after) {
        eprintln!("{wrong}\nonce more, slowly");
        follow_at(10, page, shell(), marks, after).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// At this pace: seconds for one of the page.
fn follow_at(pace: u32, page: &Path, mut shell: Command, marks: &[&str], after: &str) -> Result<(), String> {
    let name = page.file_name().unwrap().to_string_lossy().into_owned();
    let blocks = blocks(&fs::read_to_string(page).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (out, work) = (folder.path().join("out"), folder.path().join("work"));
    [&out, &work].iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let program = Path::new(env!("CARGO_BIN_EXE_opmas")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let path =
        shell.get_envs().find(|(key, _)| *key == "PATH").and_then(|(_, value)| value).map_or(path.clone(), |first| format!("{}:{path}", first.display()));
    let file = folder.path().join("page.sh");
    fs::write(&file, script(&blocks, &out, marks) + "LINE_OF_PAGE=after\n" + after).unwrap();
    let output = shell.arg(&file).current_dir(&work).env("PATH", path).env("PACE", pace.to_string()).stdin(Stdio::null()).output().unwrap();
    let printed = |line: usize| fs::read_to_string(out.join(line.to_string())).unwrap_or_default();
    let said: String = blocks.iter().map(|block| printed(block.line)).collect();
    if !output.status.success() {
        return Err(format!("{name}: {}\nall that was printed:\n{said}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut last = 0;
    for block in &blocks {
        if block.language == "sh" && marks.contains(&&*block.mark) {
            last = block.line;
        } else if block.mark == "prints" {
            prints(&format!("{name}:{}", block.line), &block.text, &printed(last))?;
        }
    }
    Ok(())
}

/// Every line's fragments stand in what was printed, in their order.
fn prints(place: &str, expected: &str, printed: &str) -> Result<(), String> {
    let mut rest = printed;
    for fragment in expected.lines().flat_map(|line| line.split('…')).map(str::trim).filter(|fragment| !fragment.is_empty()) {
        let at = rest.find(fragment).ok_or_else(|| format!("{place}: `{fragment}` is not printed, or not there:\n{printed}"))?;
        rest = &rest[at + fragment.len()..];
    }
    Ok(())
}
