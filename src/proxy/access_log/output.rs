//! The file, or standard output.
//!
//! Owns that each line in it is whole, and that what is lost is counted. Must never give up: a disk
//! that is full may have room later.

use crate::config::AccessLogTo;
use crate::metrics::IntCounter;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
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
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // To open a pipe that nobody reads would wait for a reader.
    if let Ok(there) = std::fs::metadata(path)
        && there.file_type().is_fifo()
    {
        let why = "it is a pipe, and lines go to a file or to `stdout`";
        return Err(named(io::Error::new(ErrorKind::InvalidInput, why)));
    }
    // It has the addresses of clients.
    let file = File::options()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path);
    Ok(Box::new(file.map_err(named)?))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// A disk with room for so many further bytes, and what is on it.
    #[derive(Clone, Default)]
    struct Small(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock();
            if *room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(*room);
            *room -= taken;
            written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_before_the_next_one_and_each_that_is_lost_is_counted_once()
    {
        let (disk, metrics) = (Small::default(), Metrics::new(1));
        let mut output = Output {
            to: Box::new(disk.clone()),
            path: None,
            dropped: metrics.access_log_dropped.clone(),
            fails: false,
            is_torn: false,
        };
        let mut write = |room: usize, lines: &str| {
            disk.0.lock().0 = room;
            let mut buffer = lines.as_bytes().to_vec();
            output.write(&mut buffer);
            assert!(buffer.is_empty());
            let written = String::from_utf8(disk.0.lock().1.clone()).unwrap();
            (written, metrics.access_log_dropped.get())
        };
        assert_eq!(write(100, "a\n"), ("a\n".to_owned(), 0));
        assert_eq!(write(4, "bb\ncc\ndd\n"), ("a\nbb\nc".to_owned(), 2));
        assert_eq!(write(0, "ee\n"), ("a\nbb\nc".to_owned(), 3));
        // The end of the line that was cut off takes the room.
        assert_eq!(write(1, "ff\n"), ("a\nbb\nc\n".to_owned(), 4));
        assert_eq!(write(100, "gg\n"), ("a\nbb\nc\ngg\n".to_owned(), 4));
    }
}
