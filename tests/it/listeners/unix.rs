//! Clients on a Unix socket.

use super::*;

fn socket_in(dir: &tempfile::TempDir) -> (PathBuf, ListenAddress) {
    let path = dir.path().join("calls.sock");
    (path.clone(), ListenAddress::Unix(path))
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_a_unix_socket_is_answered_as_one_of_this_machine() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = socket_in(&dir);
    let gate = gate_on(&upstream, &[address], |config| {
        config.settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let body = dir.path().join("body");
    let sent = vec![b'x'; 3_000_000];
    std::fs::write(&body, &sent).unwrap();
    for length in [2, sent.len()] {
        std::fs::write(&body, &sent[..length]).unwrap();
        let mut curl = Command::new("curl");
        curl.stdin(Stdio::null())
            .args(["--silent", "--show-error", "--unix-socket"])
            .arg(&path)
            .args([
                "-H",
                &format!("X-Api-Key: {RETAIL_KEY}"),
                "-H",
                "X-Forwarded-For: 203.0.113.7",
            ])
            .args([
                "--write-out",
                "%{http_code}",
                "--output",
                "/dev/null",
                "--data-binary",
            ])
            .arg(format!("@{}", body.display()))
            .arg("http://gate.test/v1/portrait/segment");
        let said = said(&mut curl);
        assert_eq!((said.out.as_str(), said.err.as_str()), ("200", ""));
        assert_eq!(told(&upstream), "203.0.113.7, 127.0.0.1");
        assert_eq!(upstream.seen().pop().unwrap().body.len(), length);
    }
    gate.at_rest().await.assert_conserved();
}

/// R8: how a call ends whose client goes, as on TCP.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_is_seen_on_a_unix_socket_as_on_tcp() {
    let upstream = Upstream::after(Duration::from_millis(600)).await;
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = socket_in(&dir);
    let gate = gate_on(&upstream, &[address], |_| ()).await;
    let connect = async || UnixStream::connect(&path).await.unwrap();
    // In mid-upload.
    let mut stream = connect().await;
    stream
        .write_all(format!("{}half", head(100)).as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    wait_for(&gate, 1).await;
    // During the call, at once and after it has said that it sends no more.
    for half in [false, true] {
        let mut stream = connect().await;
        stream
            .write_all(format!("{}{{}}", head(2)).as_bytes())
            .await
            .unwrap();
        if half {
            stream.shutdown().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(stream);
    }
    wait_for(&gate, 3).await;
    // It merely sends no more, and waits.
    let mut stream = connect().await;
    stream
        .write_all(format!("{}{{}}", head(2)).as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let records = gate.records();
    let ends: Vec<_> = records
        .iter()
        .map(|record| (record.outcome, record.reason))
        .collect();
    let closed = (Outcome::ClientClosed, Reason::Billable);
    let incomplete = (Outcome::ClientIncomplete, Reason::ClientIncomplete);
    assert_eq!(
        ends,
        [
            incomplete,
            closed,
            closed,
            (Outcome::Answered, Reason::Billable)
        ]
    );
    gate.at_rest().await.assert_conserved();
}

async fn wait_for(gate: &Gate, count: usize) {
    eventually("it is recorded", || gate.records().len() >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_is_seen_to_be_cut_where_its_framing_tells() {
    for (answer, is_chunked) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            true,
        ),
    ] {
        let upstream = RawUpstream::scripted(move |mut connection| async move {
            if connection.request().await.is_some() {
                connection.write(answer).await;
            }
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let (path, address) = socket_in(&dir);
        let gate = Gate::start_with(upstream.address, |config| {
            let own: SocketAddr = ([127, 0, 0, 1], 0).into();
            config.settings.listen = Listens::of(vec![own.into(), address]).unwrap();
        })
        .await;
        let stream = UnixStream::connect(&path).await.unwrap();
        let answer = exchanged(stream, format!("{}{{}}", head(2)).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let ends = if is_chunked {
            "0\r\n\r\n"
        } else {
            "half......"
        };
        assert!(
            answer.contains("half") && !answer.ends_with(ends),
            "{answer}"
        );
        drop(gate);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_on_a_unix_socket_gets_its_whole_answer_and_a_large_one_passes_whole() {
    let body = vec![b'y'; 2_000_000];
    let answer = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(),
        body.clone(),
    ]
    .concat();
    let upstream = RawUpstream::scripted(move |mut connection| {
        let answer = answer.clone();
        async move {
            while connection.request().await.is_some() {
                connection.write(&answer).await;
            }
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = socket_in(&dir);
    let gate = Gate::start_with(upstream.address, |config| {
        let own: SocketAddr = ([127, 0, 0, 1], 0).into();
        config.settings.listen = Listens::of(vec![own.into(), address]).unwrap();
    })
    .await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(format!("{}{{}}", head(2)).as_bytes())
        .await
        .unwrap();
    let mut read = Vec::new();
    while !read.ends_with(&body[..1_000]) || read.len() < body.len() {
        let mut piece = [0; 40_000];
        let length = stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "after {} bytes", read.len());
        read.extend_from_slice(&piece[..length]);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(read.ends_with(&body));
    drop(gate);
}

/// The real binary, which listens on `calls.sock` in its directory too.
fn house(upstream: &Upstream) -> (Sandbox, PathBuf) {
    let house = Sandbox::new(upstream.address, &[]);
    let path = house.dir.path().join("calls.sock");
    let both = format!(
        "listen: [\"{}\", \"unix:{}\"]",
        house.public,
        path.display()
    );
    house.edit(
        "tollgate.yaml",
        &format!("listen: {}\n", house.public),
        &format!("{both}\n"),
    );
    (house, path)
}

async fn is_answered(path: &Path) -> bool {
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let call = call("Connection: close\r\n");
            exchanged(stream, call.as_bytes())
                .await
                .starts_with("HTTP/1.1 200 ")
        }
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_a_killed_gate_is_replaced_that_of_a_living_one_is_not_and_the_file_goes_at_the_end()
 {
    let upstream = Upstream::after(Duration::ZERO).await;
    let (house, path) = house(&upstream);
    let mut gate = house.start().await;
    assert!(is_answered(&path).await);
    gate.kill();
    assert!(path.exists() && !is_answered(&path).await);
    let mut gate = house.start().await;
    assert!(is_answered(&path).await);

    // Another gate wants it.
    let (other, own) = self::house(&upstream);
    other.edit(
        "tollgate.yaml",
        own.to_str().unwrap(),
        path.to_str().unwrap(),
    );
    let said = other.run(&["serve"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    let told = format!(
        "cannot listen on unix:{} (`listen`): a process listens on it: stop that one or choose another path",
        path.display()
    );
    assert!(said.err.contains(&told), "{}", said.err);
    assert!(is_answered(&path).await, "nothing was taken from the first");

    gate.signal("TERM");
    assert_eq!(gate.ended().await.code(), Some(0));
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let said = house.run(&["serve"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("there is a file that is no socket"),
        "{}",
        said.err
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}
