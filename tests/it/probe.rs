//! `tollgate probe`: the health check of a container, on the real process.

use crate::harness::*;
use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_is_well_when_calls_are_accepted_and_says_why_when_they_are_not() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let ready = format!("http://{}/readyz", house.admin);
    let away = house.run(&["probe"]);
    assert_eq!(away.code, Some(1), "{}", away.out);
    let told = format!("tollgate: {ready} cannot be asked: does tollgate run?");
    assert!(away.err.contains(&told), "{}", away.err);

    let mut command = house.command(&[], &["serve"]);
    let mut gate = Process {
        child: command.stderr(Stdio::null()).spawn().unwrap(),
        public: house.public,
        admin: house.admin,
    };
    // While it holds the first second it lives, and is not ready.
    let starting = format!("tollgate: starting ({ready}, 503)");
    eventually("it starts", || {
        let said = house.run(&["probe"]);
        said.code == Some(1) && said.err.contains(&starting)
    })
    .await;
    assert_eq!(house.run(&["probe", "--live"]).code, Some(0));
    wait_ready(house.admin).await;
    // A mistake that somebody makes in the files does not end the process.
    house.edit("catalog.yaml", "groups:", "grups:");
    house.edit("tollgate.yaml", "upstream:", "upstrem:");
    let well = house.run(&["probe"]);
    let told = format!("calls are accepted: {ready} says so\n");
    assert_eq!((well.code, well.out), (Some(0), told), "{}", well.err);
    gate.kill();
}

#[test]
fn the_probe_asks_on_this_machine_with_the_token_and_does_not_wait_for_ever() {
    let house = Sandbox::new(([127, 0, 0, 1], 9).into(), &[]);
    let port = house.admin.port();
    std::fs::write(
        house.file("admin.token"),
        "a-token-of-the-operators-0123456\n",
    )
    .unwrap();
    let with_token = format!("admin: {{listen: 0.0.0.0:{port}, token: {{file: admin.token}}}}");
    std::fs::write(house.file("tollgate.yaml"), with_token).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let hears = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = String::new();
        // Answers nothing: until the probe gives up.
        stream.read_to_string(&mut head).unwrap();
        head.to_lowercase()
    });
    let said = house.run(&["probe", "--live"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    let told = format!("http://127.0.0.1:{port}/livez does not answer within 4s");
    assert!(said.err.contains(&told), "{}", said.err);
    let head = hears.join().unwrap();
    assert!(head.starts_with("get /livez http/1.1\r\n"), "{head}");
    assert!(
        head.contains("authorization: bearer a-token-of-the-operators-0123456\r\n"),
        "{head}"
    );
}
