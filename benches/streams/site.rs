//! One opmas with the shipped packs, in a folder of its own.

use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use crate::program::Program;

pub struct Site {
    program: Program,
    /// Goes away with the value.
    _temporary: tempfile::TempDir,
}

impl Site {
    /// Configured with these tables, not started.
    pub fn new(tables: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        // Free now; between here and the start nobody else asks for ports.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!("data_dir = 'data'\n[http]\nlisten = '127.0.0.1:{port}'\n{tables}");
        std::fs::write(dir.path().join("opmas.toml"), text).unwrap();
        Site { program: Program::new(dir.path(), port, None), _temporary: dir }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The metrics as they are now; none while it does not answer.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.http("/metrics").map(|(_, text)| text).unwrap_or_default())
    }
}

impl Deref for Site {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

pub struct Metrics(String);

impl Metrics {
    /// Summed over the lines that hold all of these.
    pub fn of(&self, name: &str, holds: &str) -> f64 {
        let lines = self.0.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(holds));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
