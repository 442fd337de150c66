//! Requests as clients send them, and what the clients were told.

use super::*;

/// One GET over a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> (StatusCode, HeaderMap, Bytes) {
    send(
        address,
        Request::get(path)
            .header("host", address.to_string())
            .body(Full::default())
            .unwrap(),
    )
    .await
}

/// One request over a connection of its own. Sets no header by itself.
pub async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (StatusCode, HeaderMap, Bytes) {
    try_send(address, request).await.expect("an answer")
}

pub async fn try_send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let mut client = Client::connect(address).await?;
    client.send(request).await
}

/// A keep-alive connection to the gate.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(
        address: SocketAddr,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let response = self.head(request).await?;
        let (parts, body) = response.into_parts();
        Ok((
            parts.status,
            parts.headers,
            body.collect().await?.to_bytes(),
        ))
    }

    /// The answer as soon as its head is there: from then on the client has been answered.
    pub async fn head(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// A plain call of the group's first action with an API key.
pub fn segment(key: &str) -> Request<Full<Bytes>> {
    plain(
        "POST",
        "/v1/portrait/segment",
        key,
        "{\"Image\":\"iVBORw0KGgo=\"}",
    )
}

pub fn plain(method: &str, path: &str, key: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "gate.test")
        .header("x-api-key", key)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

/// A TC3-signed call in the vendor's dialect, signed with the machine's time.
pub fn signed(id: &str, secret: &str, action: &str, body: &str) -> Request<Full<Bytes>> {
    let now = Clock::default().utc().seconds();
    Request::builder()
        .method("POST")
        .uri("/")
        .header("host", "bda.gate.test")
        .header("content-type", "application/json")
        .header("x-tc-action", action)
        .header("x-tc-version", "2020-03-24")
        .header("x-tc-region", "ap-guangzhou")
        .header("x-tc-timestamp", now.to_string())
        .header(
            "authorization",
            tollgate::cli::demo::sign(id, secret, now, "bda.gate.test", body),
        )
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

/// What clients of the real binary were told, by request id.
#[derive(Default, Debug)]
pub struct ClientLog {
    /// The upstream's answer.
    pub answered: Vec<String>,
    /// Over the cap.
    pub throttled: Vec<String>,
    /// That the call cannot be counted.
    pub not_counted: Vec<String>,
    /// Anything else, as it came.
    pub odd: Vec<String>,
}

impl ClientLog {
    /// Sorts one answer in. The vendor's dialect says in the body what the plain one says in the
    /// head.
    pub fn note(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
        let id = headers
            .get("x-request-id")
            .map(|id| id.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let body = String::from_utf8_lossy(body);
        let code = |code: &str| body.contains(&format!("\"Code\":\"{code}\""));
        let list = match status {
            StatusCode::OK if !body.contains("\"Error\"") => &mut self.answered,
            StatusCode::OK if code("RequestLimitExceeded") => &mut self.throttled,
            StatusCode::OK if code("ServiceUnavailable") || code("InternalError") => {
                &mut self.not_counted
            }
            StatusCode::TOO_MANY_REQUESTS => &mut self.throttled,
            StatusCode::SERVICE_UNAVAILABLE => &mut self.not_counted,
            _ => {
                self.odd.push(format!("{status} {id} {body}"));
                return;
            }
        };
        list.push(id);
    }
}

/// Calls over a keep-alive connection, one every `pace`, and connects again whenever it breaks,
/// until the task is dropped.
pub async fn keep_calling(
    public: SocketAddr,
    request: impl Fn() -> Request<Full<Bytes>>,
    pace: Duration,
    told: Arc<Mutex<ClientLog>>,
) {
    let mut tick = tokio::time::interval(pace);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok(mut client) = Client::connect(public).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        loop {
            tick.tick().await;
            let request = request();
            let is_plain = !request.headers().contains_key("x-tc-action");
            let Ok(response) = client.head(request).await else {
                break;
            };
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            if is_plain || body.is_ok() {
                let body = body.as_deref().unwrap_or_default();
                told.lock().note(parts.status, &parts.headers, body);
            }
            if body.is_err() {
                break;
            }
        }
    }
}

/// `POST /v1/reload` with a query such as `?force=true`, and what it answered.
pub async fn post_reload(admin: SocketAddr, query: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::post(format!("/v1/reload{query}"))
        .header("host", admin.to_string())
        .body(Full::default())
        .unwrap();
    let (status, _, body) = send(admin, request).await;
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&body)));
    (status, body)
}

/// A GET without a body, signed as TC3 wants it.
pub fn signed_get(id: &str, secret: &str, path: &str) -> Request<Full<Bytes>> {
    use hmac::{KeyInit, Mac};
    use sha2::Digest;
    const HOST: &str = "bda.gate.test";
    const FORM: &str = "application/x-www-form-urlencoded";
    let now = Clock::default().utc().seconds();
    let hash = |text: &str| hex::encode(sha2::Sha256::digest(text));
    let date = jiff::Timestamp::from_second(now)
        .unwrap()
        .strftime("%Y-%m-%d")
        .to_string();
    let (bare, query) = path.split_once('?').unwrap_or((path, ""));
    let names = "content-type;host";
    let canonical = format!(
        "GET\n{bare}\n{query}\ncontent-type:{FORM}\nhost:{HOST}\n\n{names}\n{}",
        hash("")
    );
    let scope = format!("{date}/bda/tc3_request");
    let to_sign = format!("TC3-HMAC-SHA256\n{now}\n{scope}\n{}", hash(&canonical));
    let mut key = format!("TC3{secret}").into_bytes();
    for step in [date.as_str(), "bda", "tc3_request", &to_sign] {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(step.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    let signature = hex::encode(key);
    Request::get(path)
        .header("host", HOST)
        .header("content-type", FORM)
        .header("x-tc-timestamp", now.to_string())
        .header(
            "authorization",
            format!("TC3-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"),
        )
        .body(Full::default())
        .unwrap()
}
