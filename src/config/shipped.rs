//! What the binary brings along: rules, extractors, playbooks, actions, channels. Files of the user's own take the place of a whole folder.

use include_dir::{Dir, include_dir};

use crate::diag::SourceFile;

static RULES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/rules");
static PLAYBOOKS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/playbooks");
static NOTIFIERS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/notifiers");

/// The folders that a configuration folder may hold, as `opmas init` writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// `rules/`: Sigma YAML, and `extractors/` below it.
    Rules,
    /// `playbooks/`: Rhai scripts, and `actions/` below it.
    Playbooks,
    /// `notifiers/`: channels and `routes.toml`.
    Notifiers,
}

impl Folder {
    /// All of them.
    pub const ALL: [Folder; 3] = [Folder::Rules, Folder::Playbooks, Folder::Notifiers];

    /// Its name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Folder::Rules => "rules",
            Folder::Playbooks => "playbooks",
            Folder::Notifiers => "notifiers",
        }
    }

    /// The files that the binary brings for it, by path, in order: `rules/openwrt/ssh.yml`.
    #[must_use]
    pub fn shipped(self) -> Vec<SourceFile> {
        let dir = match self {
            Folder::Rules => &RULES,
            Folder::Playbooks => &PLAYBOOKS,
            Folder::Notifiers => &NOTIFIERS,
        };
        let mut files = Vec::new();
        collect(dir, self.name(), &mut files);
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files
    }
}

/// The actions that the binary brings, for the executor: it has no configuration but what it reads itself.
#[must_use]
pub fn shipped_actions() -> Vec<SourceFile> {
    Folder::Playbooks.shipped().into_iter().filter(|file| super::is_action(&file.name)).collect()
}

/// The extractor files that the binary brings, for commands that need no configuration.
#[must_use]
pub fn shipped_extractors() -> Vec<SourceFile> {
    Folder::Rules.shipped().into_iter().filter(|file| super::is_extractor(&file.name)).collect()
}

fn collect(dir: &Dir<'_>, folder: &str, out: &mut Vec<SourceFile>) {
    for file in dir.files() {
        if let Some(text) = file.contents_utf8() {
            out.push(SourceFile { name: format!("{folder}/{}", file.path().display()).into(), text: text.into() });
        }
    }
    for inner in dir.dirs() {
        collect(inner, folder, out);
    }
}
