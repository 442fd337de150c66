//! A real Prometheus, the one that Debian has, on a free port in a directory of its own. It ends
//! with the test.

use super::*;
use serde_json::Value;

/// A Prometheus.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with this configuration, in which `RULES` is replaced by a file with these rules.
    pub fn start(config: &str, rules: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("rules.yml"), rules).unwrap();
        let config = config.replace("RULES", &path("rules.yml"));
        std::fs::write(path("prometheus.yml"), config).unwrap();
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", path("tsdb")))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("prometheus: {error}; `make test` installs what the tests need")
            });
        Self {
            child,
            address,
            dir,
        }
    }

    /// What an expression is now, series by series; an error is what Prometheus says of it.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        self.ask("query", &[("query", expression)]).await
    }

    /// What an expression was, each second from one instant in seconds to another.
    pub async fn query_range(
        &self,
        expression: &str,
        (from, until): (i64, i64),
    ) -> Result<Vec<Value>, String> {
        let (from, until) = (from.to_string(), until.to_string());
        let fields = [
            ("query", expression),
            ("start", &from),
            ("end", &until),
            ("step", "1"),
        ];
        self.ask("query_range", &fields).await
    }

    async fn ask(&self, what: &str, fields: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(fields).finish();
        let request = Request::post(format!("/api/v1/{what}"))
            .header("host", self.address.to_string())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from(form))
            .unwrap();
        let answer = try_send(self.address, request).await;
        let (_, _, body) = answer.map_err(|error| error.to_string())?;
        let mut body: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        match body["data"]["result"].take() {
            Value::Array(series) => Ok(series),
            _ => Err(body.to_string()),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            eprintln!("prometheus:\n{}", log.unwrap_or_default());
        }
    }
}
