//! Trying what a confined process must not be able to do: the proof that the confinement holds on this kernel.

use std::fs::File;
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What, in a few words; stable.
    pub what: String,
    /// Why it failed; `None` when it succeeded.
    pub refused: Option<String>,
}

/// What is tried, and how.
type Try = (&'static str, fn() -> io::Result<()>);

/// Tries everything, harmlessly where it succeeds.
#[must_use]
pub fn probe() -> Vec<Attempt> {
    let everyday: [Try; 9] = [
        ("read /etc/passwd", || File::open("/etc/passwd").map(drop)),
        ("list /", || std::fs::read_dir("/").map(drop)),
        ("write /tmp", write_tmp),
        ("udp socket", || UdpSocket::bind("127.0.0.1:0").map(drop)),
        ("tcp connect", tcp_connect),
        ("unix socket", || UnixDatagram::unbound().map(drop)),
        ("execute", execute),
        ("fork", fork),
        ("thread", || std::thread::Builder::new().spawn(|| ()).map(|thread| drop(thread.join()))),
    ];
    let everyday = everyday.into_iter().map(|(what, attempt)| told(what, attempt()));
    everyday.chain(SYSTEM.iter().map(|(what, number, arguments)| told(what, system(*number, *arguments)))).collect()
}

/// System calls with arguments that do nothing where they are permitted, or fail otherwise than by a filter.
const SYSTEM: &[(&str, libc::c_long, [libc::c_long; 4])] = &[
    ("packet socket", libc::SYS_socket, [libc::AF_PACKET as libc::c_long, libc::SOCK_RAW as libc::c_long, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_TRACEME as libc::c_long, 0, 0, 0]),
    ("mount", libc::SYS_mount, [0, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, [0, 0, 0, 0]),
    ("setns", libc::SYS_setns, [-1, 0, 0, 0]),
    ("bpf", libc::SYS_bpf, [0, 0, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0]),
    ("io_uring", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0]),
    ("kexec", libc::SYS_kexec_load, [0, -1, 0, 0]),
    ("new user namespace", libc::SYS_clone, [libc::CLONE_NEWUSER as libc::c_long | libc::CLONE_FS as libc::c_long, 0, 0, 0]),
    ("signal to init", libc::SYS_kill, [1, 0, 0, 0]),
];

fn told(what: &str, outcome: io::Result<()>) -> Attempt {
    Attempt { what: what.to_owned(), refused: outcome.err().map(|error| error.to_string()) }
}

/// Only the filter's and Landlock's own answers count as refused; that the kernel dislikes an argument shows that it was asked.
fn system(number: libc::c_long, [a, b, c, d]: [libc::c_long; 4]) -> io::Result<()> {
    // SAFETY: the arguments of every entry of SYSTEM are numbers, or null where the kernel expects a pointer.
    if unsafe { libc::syscall(number, a, b, c, d) } >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EAFNOSUPPORT)) { Err(error) } else { Ok(()) }
}

fn write_tmp() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("opmas-probe-{}", std::process::id()));
    File::create_new(&path)?;
    std::fs::remove_file(path)
}

/// A refused connection shows that connecting is permitted.
fn tcp_connect() -> io::Result<()> {
    match TcpStream::connect("127.0.0.1:1") {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}

fn execute() -> io::Result<()> {
    Command::new("/bin/true").stdin(Stdio::null()).status().map(drop)
}

fn fork() -> io::Result<()> {
    // SAFETY: the child ends at once.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        0 => unsafe { libc::_exit(0) },
        child => rustix::process::Pid::from_raw(child).map_or(Ok(()), |child| {
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())?;
            Ok(())
        }),
    }
}
