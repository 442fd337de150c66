//! A Unix socket on which the gate listens, and its file.
//!
//! Owns the file from the bind to the end. Must never delete a file that is no socket, a socket on
//! which a process listens, or one that another process has put in its place.
//!
//! # Decided
//! - **A file beside it, `PATH.lock`, is locked (`flock`) from the look at an old file until the new
//!   socket listens**: of two processes that start at once the second one sees the first, and takes
//!   nothing from it. The file stays, empty; not the directory, which others may open and lock.
//! - **The file goes while its socket still listens**: until then no other process takes its place,
//!   so that it is known to be ours.

use crate::proxy::sockets::{BACKLOG, ListeningSocket};
use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its owner and its group may connect.
const MODE: u32 = 0o660;
/// How often, and with what pause, the lock is asked for: a second in all. It is
/// held for as long as a bind takes.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Why a path cannot be listened on.
#[derive(thiserror::Error, Debug)]
pub(in crate::control) enum PathError {
    /// Another process has it.
    #[error("a process listens on it: stop that one or choose another path")]
    Taken,
    /// There is something else.
    #[error("there is a file that is no socket: it is left alone; choose another path")]
    NoSocket,
    /// The file beside it is locked.
    #[error("another process has had its `.lock` file locked for a second")]
    Locked,
    /// The file beside it cannot be opened.
    #[error(
        "the file of this name with `.lock` behind it cannot be opened: {0}; let tollgate write in the directory, and \
         remove that file when another user has it or it is something else"
    )]
    Directory(io::Error),
    /// Another error of the system.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The file of a socket that listens; removed when this is dropped.
#[derive(Debug)]
pub(in crate::control) struct SocketFile {
    path: PathBuf,
    /// Device and inode. While the socket is open no other file has them.
    id: (u64, u64),
}

/// Listens on the path. A file that a process left which is gone is replaced.
pub(in crate::control) fn bind(path: &Path) -> Result<(ListeningSocket, SocketFile), PathError> {
    let locked = lock_file(path).map_err(PathError::Directory)?;
    lock(&locked)?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile {
        path: path.to_owned(),
        id: id(path)?,
    };
    // Before it listens nobody can connect.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok((ListeningSocket::Unix(UnixListener::from(socket)), file))
}

/// Only its owner can open it, so that nobody else can lock it.
fn lock_file(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let mut options = File::options();
    options.write(true).create(true).mode(0o600);
    // What somebody links there is not opened, and a pipe is not waited for.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
    let file = options.open(PathBuf::from(name))?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

fn lock(file: &File) -> Result<(), PathError> {
    for _ in 0..TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            Err(error) => return Err(PathError::System(error.into())),
        }
    }
    Err(PathError::Locked)
}

/// Removes the file of a socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), PathError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(found) if !found.file_type().is_socket() => return Err(PathError::NoSocket),
        Ok(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose backlog is full listens too.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        Ok(()) => Err(PathError::Taken),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(PathError::Taken),
        Err(error) => Err(error.into()),
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the file of the socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_for_its_owner_and_group_and_its_file_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls.sock");
        let (socket, file) = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        UnixStream::connect(&path).unwrap();
        drop((file, socket));
        assert!(!path.exists());
    }

    #[test]
    fn the_file_that_a_dead_process_left_is_replaced_and_that_of_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_socket, _file) = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(PathError::Taken)));
        let mut waiting = Vec::new();
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            if socket.connect(&SockAddr::unix(&path).unwrap()).is_err() {
                break;
            }
            waiting.push(socket);
        }
        assert!(matches!(bind(&path), Err(PathError::Taken)), "full");
        // The listener of another kind is alive too.
        let path = dir.path().join("datagrams.sock");
        let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(bind(&path).is_err() && path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone_also_by_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("calls.sock"), dir.path().join("link"));
        fs::write(&path, "precious").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for at in [&path, &link, &dir.path().to_owned()] {
            assert!(matches!(bind(at), Err(PathError::NoSocket)), "{at:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let nowhere = dir.path().join("absent/calls.sock");
        assert!(matches!(bind(&nowhere), Err(PathError::Directory(_))));
    }

    #[test]
    fn a_file_that_another_process_has_put_in_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls.sock");
        let (_socket, file) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        UnixStream::connect(&path).expect("the other one listens");
    }

    #[test]
    fn of_many_that_start_at_once_one_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls.sock");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let tries: Vec<_> = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| bind(&path))).collect();
                starts.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert_eq!(tries.iter().filter(|it| it.is_ok()).count(), 1, "{tries:?}");
        }
    }
}
