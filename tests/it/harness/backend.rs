//! A server behind the gate that can be stopped, killed and started again on its port.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A server of an upstream. `/healthz` says whether it is to be given calls; any other path is a call,
/// which is remembered by its request id.
pub struct Backend {
    pub address: SocketAddr,
    pub calls: Arc<Mutex<Vec<String>>>,
    /// What `/healthz` says.
    pub is_healthy: Arc<AtomicBool>,
    takes: Duration,
    runtime: Option<tokio::runtime::Runtime>,
    stop: watch::Sender<bool>,
}

impl Backend {
    /// Answers a call after so long.
    pub async fn start(takes: Duration) -> Self {
        Self::start_at(([127, 0, 0, 1], free_port()).into(), takes).await
    }

    pub async fn start_at(address: SocketAddr, takes: Duration) -> Self {
        let mut backend = Self {
            address,
            calls: Arc::default(),
            is_healthy: Arc::new(AtomicBool::new(true)),
            takes,
            runtime: None,
            stop: watch::Sender::new(false),
        };
        backend.restart().await;
        backend
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn count(&self) -> usize {
        self.calls.lock().len()
    }

    pub fn turns_healthy(&self, is_healthy: bool) {
        self.is_healthy.store(is_healthy, Ordering::SeqCst);
    }

    /// Starts it on its port again.
    pub async fn restart(&mut self) {
        self.turns_healthy(true);
        self.stop = watch::Sender::new(false);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let (calls, healthy) = (self.calls.clone(), self.is_healthy.clone());
        let (takes, mut stop) = (self.takes, self.stop.subscribe());
        let seen = stop.clone();
        let (is_open, open) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let listener = socket.listen(1024).unwrap();
            is_open.send(()).unwrap();
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let _ = stream.set_nodelay(true);
                        connections.spawn(serve(stream, calls.clone(), healthy.clone(), takes, seen.clone()));
                    }
                    _ = stop.wait_for(|stop| *stop) => break,
                }
            }
            // It accepts no more, finishes what it has, and closes what is idle.
            drop(listener);
            while connections.join_next().await.is_some() {}
        });
        open.await.unwrap();
        self.runtime = Some(runtime);
    }

    /// As a process that is killed: its sockets are gone at once.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// As a process that is asked to end: it takes no more, and finishes what it has.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        tokio::time::timeout(BOUND, self.stop.closed())
            .await
            .unwrap();
        self.kill();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(
    stream: TcpStream,
    calls: Arc<Mutex<Vec<String>>>,
    is_healthy: Arc<AtomicBool>,
    takes: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (calls, is_healthy) = (calls.clone(), is_healthy.clone());
        async move {
            if request.uri().path() == "/healthz" {
                let status = match is_healthy.load(Ordering::SeqCst) {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                return Ok::<_, Infallible>(json(status, "{}"));
            }
            let id = request.headers()["x-request-id"]
                .to_str()
                .unwrap()
                .to_owned();
            calls.lock().push(id);
            let _ = request.into_body().collect().await;
            tokio::time::sleep(takes).await;
            Ok(json(StatusCode::OK, "{}"))
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Clients that call at an even pace, and what they were told.
pub struct Calling {
    told: Arc<Mutex<Vec<Told>>>,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// What a client was told of a call.
#[derive(Clone, Debug)]
pub struct Told {
    pub status: StatusCode,
    pub id: String,
    pub body: String,
}

impl Calling {
    /// So many calls a second to an action that the account may call as often as it likes.
    pub fn start(public: SocketAddr, per_second: u32, key: &'static str) -> Self {
        const CLIENTS: u32 = 25;
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let stop = watch::Sender::new(false);
        let mut clients = JoinSet::new();
        let pace = Duration::from_secs(1) * CLIENTS / per_second;
        for nth in 0..CLIENTS {
            let (told, stop) = (told.clone(), stop.subscribe());
            clients.spawn(async move {
                tokio::time::sleep(pace * nth / CLIENTS).await;
                let mut client = Client::connect(public).await.unwrap();
                let mut tick = tokio::time::interval(pace);
                while !*stop.borrow() {
                    tick.tick().await;
                    let (status, headers, body) = client.send(segment(key)).await.unwrap();
                    let id = headers["x-request-id"].to_str().unwrap().to_owned();
                    let body = String::from_utf8_lossy(&body).into_owned();
                    told.lock().push(Told { status, id, body });
                }
            });
        }
        Self {
            told,
            clients,
            stop,
        }
    }

    /// What they were told so far.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    /// Waits until so many more calls were answered.
    pub async fn more(&self, calls: usize) {
        let wanted = self.told.lock().len() + calls;
        eventually("the calls are answered", || {
            self.told.lock().len() >= wanted
        })
        .await;
    }

    /// Ends, with every call answered.
    pub async fn end(mut self) -> Vec<Told> {
        self.stop.send_replace(true);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
        self.told()
    }
}
