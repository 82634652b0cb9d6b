//! The one thread that starts child processes.
//!
//! PR_SET_PDEATHSIG fires when the *thread* that forked ends, not the process. Threads of a tokio runtime come and go with it, so
//! children are started by a thread that waits for work as long as the process lives.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

struct Job {
    command: Command,
    runtime: Handle,
    answer: Sender<io::Result<Child>>,
}

/// Lives in a static, so that the thread's receiver never ends. Callers block for their answer: no queue builds up.
static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();

/// Starts a command whose process dies with ours and inherits no descriptor but its standard ones. Signals that go to the whole
/// process group or control group (Ctrl-C, the stop of a service manager) do not end it before us: it ignores them.
///
/// # Errors
/// There is no tokio runtime here, or the kernel refuses.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    bind_to_this_process(&mut command);
    let runtime = Handle::try_current().map_err(io::Error::other)?;
    let (answer, answered) = channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner()?.send(Job { command, runtime, answer }).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn spawner() -> io::Result<&'static Sender<Job>> {
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, jobs) = channel();
    std::thread::Builder::new().name("spawner".to_owned()).spawn(move || serve(&jobs))?;
    // When two callers raced, the second thread has no sender any more and ends before it has forked anything.
    Ok(SPAWNER.get_or_init(|| sender))
}

fn serve(jobs: &Receiver<Job>) {
    while let Ok(Job { mut command, runtime, answer }) = jobs.recv() {
        // tokio panics in a runtime without I/O; that must not end this thread, since all children would die with it.
        let child = catch_unwind(AssertUnwindSafe(|| {
            let _inside = runtime.enter();
            command.spawn()
        }));
        // A caller that is gone drops the child, which kills it.
        let _ = answer.send(child.unwrap_or_else(|_| Err(io::Error::other("this tokio runtime cannot watch processes"))));
    }
}

fn bind_to_this_process(command: &mut Command) {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes system calls only: no allocation, no lock.
    unsafe { command.pre_exec(move || before_exec(parent)) };
}

fn before_exec(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the signal was asked for.
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::NotConnected.into());
    }
    close_on_exec();
    ignore(libc::SIGHUP)?;
    ignore(libc::SIGINT)?;
    ignore(libc::SIGTERM)
}

/// An ignored signal stays ignored beyond exec.
fn ignore(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no function of ours is installed as a handler.
    let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Everything beyond the standard descriptors closes at exec, also what a library opened without that flag.
/// Kernels before 5.11 cannot; there the flag that the standard library and tokio set on all they open is all there is.
fn close_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes numbers only and changes no memory.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}
