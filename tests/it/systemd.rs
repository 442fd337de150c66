//! The gate as a service of systemd, whose part the test plays: it passes the socket, hears what the
//! process says, and starts it again.

use crate::failing_disk::disk::{Disk, Word};
use crate::harness::*;
use http::StatusCode;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Passes its standard input as socket 3, and its standard output as socket 4 when it is to pass two.
const ONE_SOCKET: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
const TWO_SOCKETS: &str =
    "exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$@\"";

/// What a service said to systemd, message by message.
#[derive(Clone, Default)]
struct Heard(Arc<parking_lot::Mutex<Vec<String>>>);

impl Heard {
    fn says(&self, line: &str) -> bool {
        self.count(line) > 0
    }

    fn count(&self, line: &str) -> usize {
        let messages = self.0.lock();
        let has = |message: &&String| message.lines().any(|it| it.starts_with(line));
        messages.iter().filter(has).count()
    }

    async fn until(&self, line: &str) {
        eventually(line, || self.says(line)).await;
    }
}

/// Gives `command` a socket of systemd's, whose messages are heard until the process of this test
/// ends. `at` is called with each of them as it comes.
fn heard(house: &Sandbox, command: &mut Command, at: impl Fn(&str) + Send + 'static) -> Heard {
    let path = house.dir.path().join("notify");
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    command.env("NOTIFY_SOCKET", path);
    let heard = Heard::default();
    let own = heard.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length) = socket.recv(&mut bytes) {
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            at(&message);
            own.0.lock().push(message);
        }
    });
    heard
}

fn serve_with(house: &Sandbox, script: &str, names: &str) -> Command {
    let mut command = house.command(&["sh", "-c", script, "sh"], &["serve"]);
    command
        .env("LISTEN_FDNAMES", names)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A call on a connection of its own; its status, or why there is none.
fn call_once(public: std::net::SocketAddr) -> Result<String, std::io::Error> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(public)?;
    stream.set_read_timeout(Some(BOUND))?;
    let request = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nhost: x\r\nx-api-key: {STUDIO_KEY}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn owned(socket: &TcpListener) -> Stdio {
    Stdio::from(OwnedFd::from(socket.try_clone().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_when_the_gate_answers_reloads_lives_and_drains() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let sockets = [house.public, house.admin].map(|at| TcpListener::bind(at).unwrap());
    let mut command = serve_with(&house, TWO_SOCKETS, "calls:admin");
    command.stdin(owned(&sockets[0])).stdout(owned(&sockets[1]));
    command.env("WATCHDOG_USEC", "4000000");
    let answered = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (at_ready, public) = (answered.clone(), house.public);
    let heard = heard(&house, &mut command, move |message| {
        if message.starts_with("READY=1") {
            at_ready
                .lock()
                .push(call_once(public).map_err(|error| error.to_string()));
        }
    });
    let mut gate = Process {
        child: command.spawn().unwrap(),
        public,
        admin: house.admin,
    };
    heard.until("READY=1").await;
    assert_eq!(*answered.lock(), [Ok("HTTP/1.1 200 OK".to_owned())]);
    assert!(heard.0.lock()[0].contains("EXTEND_TIMEOUT_USEC="));
    let serving = format!("STATUS=serving on {public}, operators on {}", house.admin);
    assert!(heard.says(&serving), "{:?}", heard.0.lock());
    assert_eq!(get(house.admin, "/readyz").await.0, StatusCode::OK);
    heard.until("WATCHDOG=1").await;

    gate.signal("HUP");
    heard.until("RELOADING=1").await;
    heard.until("MONOTONIC_USEC=").await;
    heard.until("STATUS=reload: nothing is different").await;
    eventually("it is ready again", || heard.count("READY=1") == 2).await;
    house.edit("accounts.yaml", "accounts:", "acounts:");
    gate.signal("HUP");
    heard.until("STATUS=reload refused, ").await;

    assert!(!heard.says("STOPPING=1"));
    gate.signal("TERM");
    heard.until("STOPPING=1").await;
    // limits.drain_notice, limits.drain and what the end itself takes.
    heard.until("EXTEND_TIMEOUT_USEC=70000000").await;
    assert_eq!(gate.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_refuses_no_connection_when_systemd_holds_the_socket() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let socket = TcpListener::bind(house.public).unwrap();
    let start = || {
        let mut command = serve_with(&house, ONE_SOCKET, "calls");
        command.stdin(owned(&socket));
        command.spawn().unwrap()
    };
    let process = |child| Process {
        child,
        public: house.public,
        admin: house.admin,
    };
    let mut gate = process(start());
    wait_ready(house.admin).await;
    let (stop, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (ends, made, public) = (stop.clone(), calls.clone(), house.public);
    // One after the other, each on a connection of its own: 20 a second, which is the quota.
    let client = std::thread::spawn(move || {
        while !ends.load(Ordering::SeqCst) {
            let answer = call_once(public);
            assert!(
                matches!(&answer, Ok(status) if status == "HTTP/1.1 200 OK"),
                "{answer:?}"
            );
            made.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for _ in 0..2 {
        let before = calls.load(Ordering::SeqCst);
        eventually("calls are made", || {
            calls.load(Ordering::SeqCst) >= before + 10
        })
        .await;
        gate.signal("TERM");
        assert_eq!(gate.ended().await.code(), Some(0));
        gate = process(start());
        wait_ready(house.admin).await;
    }
    let before = calls.load(Ordering::SeqCst);
    eventually("calls are made", || {
        calls.load(Ordering::SeqCst) >= before + 3
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    client.join().unwrap();
}

/// As systemd opens them with `ReusePort=yes`: the kernel spreads connections over them, so one that no
/// worker accepts from would keep its clients waiting.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_sockets_of_one_address_each_has_a_worker() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let two = ("workers: auto", "workers: 2");
    let house = Sandbox::new(upstream.address, &[two]);
    let sockets = [(), ()].map(|()| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&house.public.into()).unwrap();
        socket.listen(128).unwrap();
        TcpListener::from(socket)
    });
    let start = |names: &str| {
        let mut command = serve_with(&house, TWO_SOCKETS, names);
        command
            .stdin(owned(&sockets[0]))
            .stdout(owned(&sockets[1]))
            .stderr(Stdio::piped());
        command
    };
    let gate = Process {
        child: start("calls:calls").spawn().unwrap(),
        public: house.public,
        admin: house.admin,
    };
    wait_ready(house.admin).await;
    for _ in 0..20 {
        assert_eq!(call_once(house.public).unwrap(), "HTTP/1.1 200 OK");
    }
    drop(gate);
    house.edit("tollgate.yaml", "workers: 2", "workers: 1");
    let refused = said(&mut start("calls:calls"));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    let told = "systemd passes 2 sockets of the name `calls` to 1 worker(s)";
    assert!(refused.err.contains(told), "{}", refused.err);
}

/// Of two addresses systemd passes a Unix socket; the gate opens the other one itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_that_is_passed_stands_for_its_path_and_its_file_stays() {
    use std::io::{Read, Write};
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let path = house.dir.path().join("calls.sock");
    let both = format!("listen: [{}, \"unix:{}\"]\n", house.public, path.display());
    house.edit(
        "tollgate.yaml",
        &format!("listen: {}\n", house.public),
        &both,
    );
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let passed = || Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    let mut command = serve_with(&house, ONE_SOCKET, "calls");
    command.stdin(passed());
    let mut gate = Process {
        child: command.spawn().unwrap(),
        public: house.public,
        admin: house.admin,
    };
    wait_ready(house.admin).await;
    assert_eq!(call_once(house.public).unwrap(), "HTTP/1.1 200 OK");
    for _ in 0..8 {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let call = format!(
            "POST /v1/portrait/segment HTTP/1.1\r\nhost: x\r\nx-api-key: {STUDIO_KEY}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(call.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    gate.signal("TERM");
    assert_eq!(gate.ended().await.code(), Some(0));
    assert!(path.exists(), "it is systemd's");
    // One that the settings do not name.
    let other = house.dir.path().join("other.sock");
    house.edit(
        "tollgate.yaml",
        path.to_str().unwrap(),
        other.to_str().unwrap(),
    );
    let mut command = serve_with(&house, ONE_SOCKET, "calls");
    let said = said(command.stdin(passed()).stderr(Stdio::piped()));
    assert_eq!(said.code, Some(1));
    let told = format!(
        "and the socket that systemd passes listens on unix:{}: write the same address in both",
        path.display()
    );
    assert!(said.err.contains(&told), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_are_passed_to_another_process_are_ignored() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let mut command = house.command(&[], &["serve"]);
    command.envs([
        ("LISTEN_PID", "1"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDNAMES", "calls"),
    ]);
    let _gate = Process::start_by(command.stderr(Stdio::null()), house.public, house.admin).await;
    assert_eq!(call_once(house.public).unwrap(), "HTTP/1.1 200 OK");
}

#[test]
fn a_socket_that_cannot_be_the_listener_is_refused_with_its_number_and_the_remedy() {
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (unix, _peer) = UnixStream::pair().unwrap();
    let refused = |passed: Stdio, script: &str, names: &str, told: &str| {
        let mut command = serve_with(&house, script, names);
        let said = said(command.stdin(passed).stderr(Stdio::piped()));
        assert_eq!(said.code, Some(1), "{told}: {}", said.err);
        assert!(said.err.contains(told), "{told}: {}", said.err);
    };
    let elsewhere = format!(
        "`listen` is {}, and the socket that systemd passes listens on {}: write the same address in both",
        house.public,
        listener.local_addr().unwrap()
    );
    refused(owned(&listener), ONE_SOCKET, "calls", &elsewhere);
    let name = "socket 3, which systemd passes, has the name `tollgate.socket`: write FileDescriptorName=calls";
    refused(owned(&listener), ONE_SOCKET, "tollgate.socket", name);
    let accepted =
        "socket 3 (`calls`), which systemd passes, does not listen: write Accept=no in its unit";
    refused(
        OwnedFd::from(connected).into(),
        ONE_SOCKET,
        "calls",
        accepted,
    );
    let twin = OwnedFd::from(unix.try_clone().unwrap());
    refused(twin.into(), ONE_SOCKET, "calls", accepted);
    let other = "socket 3 (`admin`), which systemd passes, is no TCP socket (fd 3 is not a valid tcp socket): write ListenStream=";
    refused(OwnedFd::from(unix).into(), ONE_SOCKET, "admin", other);
    let file = "(fd 3 is not a socket)";
    refused(Stdio::null(), ONE_SOCKET, "calls", file);
    let names =
        "the sockets that systemd passes (LISTEN_FDS) cannot be taken: invalid LISTEN_FDNAMES";
    refused(owned(&listener), ONE_SOCKET, "calls:admin", names);
    let many = ONE_SOCKET.replace("LISTEN_FDS=1", "LISTEN_FDS=9");
    refused(owned(&listener), &many, "calls", "Bad file descriptor");
}

/// systemd's own program in the place of the test.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_client_of_a_socket_of_systemd_starts_the_gate_and_is_answered() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let listen = format!("--listen={}", house.public);
    let wrapper = ["systemd-socket-activate", &listen, "--fdname=calls"];
    let mut command = house.command(&wrapper, &["serve"]);
    let _gate = Process {
        child: command.stderr(Stdio::null()).spawn().unwrap(),
        public: house.public,
        admin: house.admin,
    };
    eventually(
        "it listens",
        || matches!(call_once(house.public), Ok(status) if status == "HTTP/1.1 200 OK"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_no_reason_for_the_watchdog() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::new(home.path());
    let ledger = disk.root().join("ledger.db");
    let ledger = ("../var/ledger.db", ledger.to_str().unwrap());
    let patient = ("stall_after: 30s", "stall_after: 300ms");
    let house = Sandbox::new(upstream.address, &[ledger, patient]);
    let mut command = house.command(&[], &["serve"]);
    command
        .envs(disk.environment())
        .env("WATCHDOG_USEC", "400000");
    let heard = heard(&house, &mut command, |_| ());
    let gate = Process::start_by(command.stderr(Stdio::null()), house.public, house.admin).await;
    disk.set(Word::Hang, 1);
    let (status, ..) = send(house.public, segment(RETAIL_KEY)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let before = heard.count("WATCHDOG=1");
    // Longer than the patience of the watchdog.
    eventually("it goes on", || heard.count("WATCHDOG=1") >= before + 40).await;
    disk.set(Word::Hang, 0);
    drop(gate);
}

/// Ends with the test, however that ends; the thread that it holds goes on then.
struct Strace(std::process::Child);

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// The thread of that name, when it has come to give itself the name.
async fn thread_of(process: &Process, name: &str) -> String {
    let tasks = format!("/proc/{}/task", process.child.id());
    let mut found = None;
    eventually(name, || {
        let paths = std::fs::read_dir(&tasks).unwrap();
        let mut paths = paths.map(|task| task.unwrap().path());
        found = paths.find(|task| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        });
        found.is_some()
    })
    .await;
    let thread = found.unwrap();
    thread.file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_not_answered_while_one_worker_hangs() {
    if !rustix::process::geteuid().is_root() {
        use std::io::Write;
        let mut told = std::io::stderr();
        let _ = writeln!(
            told,
            "\nNOT TESTED: to hold a thread of a gate needs root\n"
        );
        return;
    }
    let house = Sandbox::new(
        ([127, 0, 0, 1], 9).into(),
        &[("workers: auto", "workers: 2")],
    );
    let mut command = house.command(&[], &["serve"]);
    command.env("WATCHDOG_USEC", "400000");
    let heard = heard(&house, &mut command, |_| ());
    let gate = Process::start_by(command.stderr(Stdio::null()), house.public, house.admin).await;
    heard.until("WATCHDOG=1").await;
    let worker = thread_of(&gate, "worker-1").await;
    let strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=epoll_wait"])
        .args(["-e", "inject=epoll_wait:delay_enter=60s", "-p", &worker])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let strace = Strace(strace);
    heard.until("STATUS=worker-1 hangs").await;
    let before = heard.count("WATCHDOG=1");
    // The other worker and the control thread work.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(get(house.admin, "/livez").await.0, StatusCode::OK);
    assert_eq!(heard.count("WATCHDOG=1"), before);
    drop(strace);
    eventually("it lives again", || heard.count("WATCHDOG=1") > before).await;
}
