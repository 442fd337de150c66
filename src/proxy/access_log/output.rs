//! The file, or standard output.
//!
//! Owns that each line in it is whole, and that what is lost is counted. Must never give up: a disk
//! that is full may have room later.

use crate::config::AccessLogTo;
use crate::metrics::IntCounter;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where lines go.
pub(super) struct Output {
    to: Box<dyn Write + Send>,
    /// `None` of standard output.
    path: Option<PathBuf>,
    dropped: IntCounter,
    /// The last write failed.
    fails: bool,
    /// It ended within a line.
    is_torn: bool,
}

fn open(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    // It has the addresses of clients.
    let file = File::options()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path);
    Ok(Box::new(file?))
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl Output {
    pub(super) fn open(to: &AccessLogTo, dropped: IntCounter) -> io::Result<Self> {
        let (to, path): (Box<dyn Write + Send>, _) = match to {
            AccessLogTo::Stdout => (Box::new(io::stdout()), None),
            AccessLogTo::File(path) => (open(path)?, Some(path.clone())),
        };
        Ok(Self {
            to,
            path,
            dropped,
            fails: false,
            is_torn: false,
        })
    }

    /// Opens the file of the same name anew. Where it cannot, the old one stays.
    pub(super) fn reopen(&mut self) {
        let Some(path) = &self.path else {
            return;
        };
        match open(path) {
            Ok(file) => {
                (self.to, self.is_torn) = (file, false);
                tracing::info!(path = %path.display(), "the access log was opened again");
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the access log cannot be opened again: it goes on in the file that it had");
            }
        }
    }

    /// Writes whole lines, and empties the buffer in any case.
    pub(super) fn write(&mut self, buffer: &mut Vec<u8>) {
        if buffer.is_empty() {
            return;
        }
        let mut left: &[u8] = buffer;
        let written = self.mend().and_then(|()| self.write_all(&mut left));
        match &written {
            Ok(()) if self.fails => tracing::info!("the access log can be written again"),
            Err(error) if !self.fails => {
                tracing::warn!(%error, "the access log cannot be written: calls go on, and their lines are lost");
            }
            _ => {}
        }
        self.fails = written.is_err();
        self.dropped.inc_by(lines(left));
        self.is_torn |=
            left.len() < buffer.len() && !buffer[..buffer.len() - left.len()].ends_with(b"\n");
        buffer.clear();
    }

    /// Ends a line that a failed write has begun.
    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.write_all(&mut &b"\n"[..])?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Writes it; `left` is what was not written.
    fn write_all(&mut self, left: &mut &[u8]) -> io::Result<()> {
        while !left.is_empty() {
            match self.to.write(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => *left = left.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to.flush()
    }
}
