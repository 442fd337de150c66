//! Upstreams that the test scripts: sound ones, and ones that write bytes.

use super::*;

/// What the upstream saw of a request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its head had arrived, on the machine's monotonic clock.
    pub at: Mono,
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An upstream whose answers the test scripts. It remembers what it saw.
pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<std::sync::atomic::AtomicUsize>,
}

impl Upstream {
    /// Answers 200 with an empty JSON object after `delay`.
    pub async fn after(delay: Duration) -> Self {
        Self::scripted(move |_| async move {
            tokio::time::sleep(delay).await;
            json(
                StatusCode::OK,
                "{\"Response\":{\"RequestId\":\"from-upstream\"}}",
            )
        })
        .await
    }

    /// Answers as `script` says, once the body has arrived whole.
    pub async fn scripted<F, A>(script: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::scripted_at("127.0.0.1:0", script).await
    }

    /// The same on an address of its own.
    pub async fn scripted_at<F, A>(address: &str, script: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (noted, counted) = (seen.clone(), connections.clone());
        // A thread of its own, so that a busy test does not blur the times at the door.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            listener.into_std().map(|listener| {
                runtime.block_on(async move {
                    let listener = TcpListener::from_std(listener).unwrap();
                    while let Ok((stream, _)) = listener.accept().await {
                        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        stream.set_nodelay(true).unwrap();
                        let (script, noted) = (script.clone(), noted.clone());
                        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                            let at = Clock::default().mono();
                            let (script, noted) = (script.clone(), noted.clone());
                            async move {
                                let (parts, body) = request.into_parts();
                                let body = body
                                    .collect()
                                    .await
                                    .map(|body| body.to_bytes())
                                    .unwrap_or_default();
                                let seen = Seen {
                                    at,
                                    method: parts.method.to_string(),
                                    target: parts.uri.to_string(),
                                    headers: parts.headers,
                                    body,
                                };
                                noted.lock().push(seen.clone());
                                Ok::<_, Infallible>(script(seen).await)
                            }
                        });
                        tokio::spawn(
                            hyper::server::conn::http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service),
                        );
                    }
                })
            })
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

pub fn json(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

/// An upstream that reads and writes bytes, for answers that no sound server would give.
pub struct RawUpstream {
    pub address: SocketAddr,
    pub connections: Arc<std::sync::atomic::AtomicUsize>,
    pub requests: Arc<Mutex<Vec<RawRequest>>>,
}

/// A request as it stood on the wire to the upstream.
#[derive(Clone, Debug)]
pub struct RawRequest {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub whole: bool,
}

/// A connection from the gate.
pub struct RawConnection {
    pub stream: TcpStream,
    unread: Vec<u8>,
    requests: Arc<Mutex<Vec<RawRequest>>>,
}

impl RawConnection {
    /// The head of the next request; `None` when the gate closes.
    pub async fn head(&mut self) -> Option<(String, HeaderMap)> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(parse_head(&head));
            }
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// The next request, read by its framing and remembered.
    pub async fn request(&mut self) -> Option<RawRequest> {
        let (line, headers) = self.head().await?;
        Some(self.rest_of_request(line, headers).await)
    }

    /// What follows a head, read by its framing and remembered.
    pub async fn rest_of_request(&mut self, line: String, headers: HeaderMap) -> RawRequest {
        let (body, whole) = read_body(&mut self.stream, &mut self.unread, &headers, false).await;
        let request = RawRequest {
            line,
            headers,
            body,
            whole,
        };
        self.requests.lock().push(request.clone());
        request
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }
}

impl RawUpstream {
    /// Runs `script` on every connection that comes.
    pub async fn scripted<F, A>(script: F) -> Self
    where
        F: Fn(RawConnection) -> A + Clone + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let requests: Arc<Mutex<Vec<RawRequest>>> = Arc::default();
        let (counted, noted) = (connections.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::spawn(script(RawConnection {
                    stream,
                    unread: Vec::new(),
                    requests: noted.clone(),
                }));
            }
        });
        Self {
            address,
            connections,
            requests,
        }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub async fn answering(bytes: &'static str) -> Self {
        Self::scripted(move |mut connection| async move {
            while connection.request().await.is_some() {
                connection.write(bytes).await;
            }
        })
        .await
    }

    pub fn requests(&self) -> Vec<RawRequest> {
        self.requests.lock().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::SeqCst)
    }
}
