//! The ledger of acknowledgements: one line for each reading or event that a server took over. A test that
//! kills the server reconciles it with the rows on disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::terminal::Delivered;

/// A simulator that is killed itself loses at most this much of its ledger.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Ledger(Mutex<State>);

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    flushed: Instant,
    error: Option<io::Error>,
}

impl Ledger {
    /// Creates or empties a CSV file with its heading.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(64 * 1024, File::create(path)?);
        writeln!(file, "terminal,boot,seq,kind")?;
        file.flush()?;
        Ok(Self(Mutex::new(State { file, flushed: Instant::now(), error: None })))
    }

    /// Notes what was acknowledged. The first error is kept and ends the ledger.
    pub(super) fn note(&self, terminal: &str, delivered: &Delivered) {
        let Ok(mut state) = self.0.lock() else { return };
        if state.error.is_some() {
            return;
        }
        let kind = delivered.kind.channel();
        let State { file, flushed, error } = &mut *state;
        let mut write = || {
            for seq in &delivered.seqs {
                writeln!(file, "{terminal},{},{seq},{kind}", delivered.boot)?;
            }
            if flushed.elapsed() > FLUSH_EVERY {
                file.flush()?;
                *flushed = Instant::now();
            }
            io::Result::Ok(())
        };
        *error = write().err();
    }

    /// Writes out the rest; tells whether the file is complete.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Ok(mut state) = self.0.lock() else { return Ok(()) };
        match state.error.take() {
            Some(error) => Err(error),
            None => state.file.flush(),
        }
    }
}
