//! Bodies that pass from one socket to another inside the kernel.

use crate::http::SocketRef;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, unix};

/// The most pipes at once. Bodies beyond them are copied.
///
/// Each has two file descriptors. Beyond 64 MiB of pipes (`pipe-user-pages-soft`) the kernel makes
/// each new pipe of an unprivileged user small. These take half of it: others need some too.
pub(crate) const PIPES: usize = 128;

/// The bytes that a pipe holds.
const PIPE_BYTES: usize = 256 * 1024;

/// The pipes that are open in the whole process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A stream that is read from.
pub(crate) trait ByteReader: AsyncRead + Send + Unpin {
    /// The socket, if it is one whose bytes may pass by inside the kernel.
    fn socket(&self) -> Option<&TcpStream>;

    /// The socket that carries it: to hear of its end, never to read from.
    fn transport(&self) -> Option<SocketRef<'_>> {
        self.socket().map(SocketRef::Tcp)
    }

    /// Whether what the socket has is what is read here, byte by byte.
    fn is_plain(&self) -> bool {
        self.socket().is_some()
    }
}

/// A stream that is written to.
pub(crate) trait ByteWriter: AsyncWrite + Unpin {
    /// The socket, if it is one whose bytes may pass by inside the kernel.
    fn socket(&self) -> Option<&TcpStream>;

    /// The socket that carries it: to hear of its end and to cut it, never to write to.
    fn transport(&self) -> Option<SocketRef<'_>> {
        self.socket().map(SocketRef::Tcp)
    }

    /// Writes a part, at once or not at all. Asks the system, not the runtime.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is taken.
    fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket() {
            Some(socket) => write_now(socket, bytes),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes bytes that were taken before and wait, as [`ByteWriter::write_at_once`] does. A
    /// socket has none.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is taken.
    fn flush_at_once(&mut self) -> io::Result<usize> {
        Ok(0)
    }

    /// Writes the bytes of a pipe, as many as the peer takes. Only to a socket.
    fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
}

impl ByteReader for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl ByteWriter for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        pipe.poll_pour(self, cx)
    }
}

impl ByteReader for OwnedReadHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl ByteWriter for OwnedWriteHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }

    fn poll_pour(&mut self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        pipe.poll_pour(self.as_ref(), cx)
    }
}

impl ByteReader for unix::OwnedReadHalf {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn transport(&self) -> Option<SocketRef<'_>> {
        Some(SocketRef::Unix(self.as_ref()))
    }

    fn is_plain(&self) -> bool {
        true
    }
}

impl ByteWriter for unix::OwnedWriteHalf {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn transport(&self) -> Option<SocketRef<'_>> {
        Some(SocketRef::Unix(self.as_ref()))
    }

    fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write((*self).as_ref(), bytes)?)
    }

    /// Nothing is poured where there is no [`socket`](ByteWriter::socket).
    fn poll_pour(&mut self, _: &mut Pipe, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }
}

/// In memory, so that time can be paused.
#[cfg(test)]
impl ByteReader for tokio::io::ReadHalf<tokio::io::DuplexStream> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

#[cfg(test)]
impl ByteWriter for tokio::io::WriteHalf<tokio::io::DuplexStream> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn poll_pour(&mut self, _: &mut Pipe, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }
}

/// Writes at once or not at all. Asks the system, not the runtime.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing.
pub(crate) fn write_now(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(to, bytes)?)
}

/// Reads at once or not at all; 0 at the end of the stream. Asks the system, not the runtime.
///
/// # Errors
/// `WouldBlock` when nothing has come.
pub(crate) fn read_now(from: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(from, into)?)
}

/// A pipe of the kernel, opened when it is first filled. Its bytes are not copied.
#[derive(Default, Debug)]
pub struct Pipe {
    ends: Ends,
    /// Bytes that are in it.
    held: usize,
}

#[derive(Default, Debug)]
enum Ends {
    #[default]
    NotAskedFor,
    /// There are enough already, or the system has none.
    NotToBeHad,
    Open {
        entry: OwnedFd,
        exit: OwnedFd,
    },
}

impl Pipe {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes in the bytes that have come from a socket, at most `at_most`, and returns how many
    /// they were; 0 at the end of the stream. Only when it is empty. `None` when the bytes must be
    /// read instead: there is no pipe to be had, or none that works with this socket. An error of
    /// the socket itself is left for the next read to find.
    pub fn poll_fill(
        &mut self,
        from: &TcpStream,
        at_most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        debug_assert!(self.is_empty(), "what is in it would be lost");
        let at_most = usize::try_from(at_most).map_or(PIPE_BYTES, |most| most.min(PIPE_BYTES));
        loop {
            if matches!(self.ends, Ends::NotToBeHad) {
                return Poll::Ready(Ok(None));
            }
            // Before a pipe is taken: a client that announces a body and sends nothing of it needs
            // none.
            ready!(from.poll_read_ready(cx))?;
            if matches!(self.ends, Ends::NotAskedFor) {
                self.ends = Ends::open();
            }
            let Ends::Open { entry, .. } = &self.ends else {
                continue;
            };
            let moved = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, entry, None, at_most, FLAGS)?)
            });
            match moved {
                Ok(moved) => {
                    self.held = moved;
                    return Poll::Ready(Ok(Some(moved)));
                }
                // An empty pipe has room: it is the socket that has nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.close(),
            }
        }
    }

    /// Gives a socket as many of its bytes as the socket takes, and returns how many they were.
    fn poll_pour(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Ends::Open { exit, .. } = &self.ends else {
            return Poll::Ready(Ok(0));
        };
        loop {
            ready!(to.poll_write_ready(cx))?;
            let moved = to.try_io(Interest::WRITABLE, || {
                Ok(splice(exit, None, to, None, self.held, FLAGS)?)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(moved) => {
                    self.held -= moved;
                    return Poll::Ready(Ok(moved));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives a socket at most `at_most` of its bytes, at once or not at all. Asks the system, not
    /// the runtime.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes nothing.
    pub fn pour_now(&mut self, to: &TcpStream, at_most: usize) -> io::Result<usize> {
        let Ends::Open { exit, .. } = &self.ends else {
            return Ok(0);
        };
        let moved = splice(exit, None, to, None, self.held.min(at_most), FLAGS)?;
        self.held -= moved;
        Ok(moved)
    }

    fn close(&mut self) {
        if let Ends::Open { .. } = std::mem::replace(&mut self.ends, Ends::NotToBeHad) {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.close();
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Ends {
    fn open() -> Self {
        if OPEN.fetch_add(1, Ordering::Relaxed) < PIPES
            && let Ok((exit, entry)) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
            // One that stays small would take more system calls than the copying is worth.
            && fcntl_setpipe_size(&entry, PIPE_BYTES).is_ok()
        {
            return Self::Open { entry, exit };
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
        Self::NotToBeHad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Framing;
    use crate::http::h1::{Body, Coding, Outgoing, Piece};
    use bytes::BytesMut;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    /// A body that comes from a socket; how much of it was piped.
    struct Coming<'a> {
        from: &'a TcpStream,
        framing: Framing,
        piped: &'a Cell<usize>,
    }

    impl Body for Coming<'_> {
        type Error = io::Error;

        fn poll_piece(
            &mut self,
            pipe: Option<&mut Pipe>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Piece>>> {
            if let Some(pipe) = pipe
                && let Some(piped) = ready!(self.framing.poll_fill(pipe, self.from, cx))?
            {
                assert!(piped > 0, "the stream has ended");
                self.piped.update(|sum| sum + piped);
                return Poll::Ready(Some(Ok(Piece::Piped(piped))));
            }
            ready!(self.from.poll_read_ready(cx))?;
            let left = self.framing.left().unwrap().min(20_000) as usize;
            let mut read = vec![0; left];
            match self.from.try_read(&mut read) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                taken => read.truncate(taken?),
            }
            let data = self.framing.take(&mut BytesMut::from(&*read)).unwrap();
            Poll::Ready(data.map(|data| Ok(data.into())))
        }

        fn left(&self) -> Option<u64> {
            self.framing.left()
        }
    }

    /// Sends a body of so many bytes through, written and read in steps of so many; how much of it
    /// was piped.
    async fn passed(length: usize, write: usize, read: usize) -> usize {
        let body: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
        let next = b"the next request";
        let (mut client, inward) = pair().await;
        let (mut outward, mut upstream) = pair().await;
        let sending = async {
            for piece in [&*body, next].concat().chunks(write) {
                client.write_all(piece).await.unwrap();
            }
        };
        let piped = Cell::new(0);
        let coming = Coming {
            from: &inward,
            framing: Framing::Length(length as u64),
            piped: &piped,
        };
        let head = b"a head\r\n\r\n";
        let coding = Coding::Length(length as u64);
        let mut message = Outgoing::new(head.to_vec(), coding, Some(coming));
        let passing = async {
            poll_fn(|cx| message.poll_send(&mut outward, cx))
                .await
                .unwrap();
        };
        let reading = async {
            let (mut all, mut piece) = (Vec::new(), vec![0; read]);
            while all.len() < head.len() + length {
                let taken = upstream.read(&mut piece).await.unwrap();
                all.extend_from_slice(&piece[..taken]);
                if read < 100_000 {
                    tokio::time::sleep(Duration::from_micros(50)).await;
                }
            }
            all
        };
        let ((), (), all) = tokio::join!(sending, passing, reading);
        assert!(all == [head, &*body].concat(), "{length} bytes changed");
        let mut rest = vec![0; next.len()];
        inward.try_read(&mut rest).unwrap();
        assert_eq!(rest, next, "what follows a body is left alone");
        piped.get()
    }

    // In one test, for they share the count of what is open.
    #[tokio::test]
    async fn large_bodies_pass_whole_and_uncopied_as_long_as_there_are_pipes() {
        for (write, read) in [(1_000_000, 1_000_000), (30_000, 9_000), (3_001, 70_000)] {
            assert_eq!(passed(20_000, write, read).await, 0, "too short");
            for length in [40_000, 300_000, 3_000_001] {
                let piped = passed(length, write, read).await;
                let copied = length - piped;
                assert!(copied < 32 * 1024, "{copied} of {length} bytes were copied");
            }
        }

        let (mut client, inward) = pair().await;
        client.write_all(b"a").await.unwrap();
        let fill = async |pipe: &mut Pipe| poll_fn(|cx| pipe.poll_fill(&inward, 1, cx)).await;
        let mut pipes: Vec<Pipe> = (0..PIPES).map(|_| Pipe::default()).collect();
        assert_eq!(fill(&mut pipes[0]).await.unwrap(), Some(1));
        assert!(!pipes[0].is_empty());
        client.write_all(&[b'b'; PIPES]).await.unwrap();
        for pipe in &mut pipes[1..] {
            assert_eq!(fill(pipe).await.unwrap(), Some(1));
        }
        let mut beyond = Pipe::default();
        assert_eq!(fill(&mut beyond).await.unwrap(), None);
        assert_eq!(passed(300_000, 1_000_000, 1_000_000).await, 0, "no pipe");
        pipes.pop();
        assert_eq!(fill(&mut beyond).await.unwrap(), None, "it has been told");
        assert_eq!(fill(&mut Pipe::default()).await.unwrap(), Some(1));
        drop(client);
        drop(pipes);
        assert_eq!(fill(&mut Pipe::default()).await.unwrap(), Some(0));
        assert_eq!(OPEN.load(Ordering::Relaxed), 0);
    }
}
