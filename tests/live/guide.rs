//! The guide's first router, followed to its end on a router, and the attack that `compose/` brings, which it ends in.

#[path = "../pure/guide/book.rs"]
mod book;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::router::{ATTACKER, ROUTER, Router};

#[test]
fn the_first_router_is_enrolled_and_then_defended() {
    let router = Router::up();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The reader logs in to the router with a key that it knows already.
    let tools = router.dir.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let options = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";
    fs::write(tools.join("ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh {options} -i '{}' \"$@\"\n", router.folder().join("id").display())).unwrap();
    fs::set_permissions(tools.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let shell = || {
        let mut shell = router.command("mg", "unshare");
        shell.args(["--pid", "--fork", "--kill-child", "--mount-proc", "bash", "--norc"]).env("PATH", &tools);
        shell
    };
    let (attack, net) = (root.join("compose/device/attack"), |at: &str| format!("nsenter --net={}", router.namespace(at).display()));
    let after = format!(
        "{} {} {ROUTER} >attack.log\ngrep -q 'secret: in' attack.log\n\
         for n in $(seq 100); do {} nft list set inet opmas hosts4 2>/dev/null | grep -q {ATTACKER} && exit 0; sleep 0.1; done\ncat attack.log opmas.log >&2\nexit 1\n",
        net("at"),
        attack.display(),
        net("rt"),
    );
    book::follow(&root.join("docs/guide/first-router.md"), shell, &["run", "router"], &after);
}
