//! Lines from standard input.

use std::io::Read;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Outlet;
use super::lines::{Line, Lines};
use crate::model::Trust;

/// Bytes of one read.
const READ: usize = 64 * 1024;
/// Reads that wait to be taken.
const WAITING: usize = 4;

/// Reads until the end of input, or until it is stopped.
pub(super) async fn run(outlet: Outlet) {
    let (pieces, mut read) = mpsc::channel(WAITING);
    // A thread of its own, because a read cannot be called off: it must not keep the runtime from ending.
    if let Err(error) = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || read_all(&pieces)) {
        return tracing::error!(source = %outlet.source, %error, "standard input cannot be read");
    }
    let stream: Arc<str> = format!("{}/stdin", outlet.source).into();
    let mut lines = Lines::default();
    loop {
        let piece: Option<Vec<u8>> = tokio::select! {
            piece = read.recv() => piece,
            () = outlet.stopped() => {
                lines.cut();
                None
            }
        };
        let complete = match &piece {
            Some(piece) => lines.push(piece),
            None => lines.finish().into_iter().collect(),
        };
        outlet.meter.truncated.increment(lines.take_truncated());
        let records = complete.into_iter().map(|line: Line| outlet.record(&stream, None, None, Trust::Verified, line.bytes)).collect();
        if outlet.send_all(records).await.is_err() || piece.is_none() {
            return;
        }
    }
}

fn read_all(pieces: &mpsc::Sender<Vec<u8>>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut buffer = vec![0; READ];
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => buffer.truncate(length),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return tracing::error!(%error, "standard input cannot be read"),
        }
        if pieces.blocking_send(buffer).is_err() {
            return;
        }
    }
}
