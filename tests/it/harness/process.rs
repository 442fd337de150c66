//! The real binary as a process.

use super::*;

/// The real binary, with the shipped configuration copied into a directory and edited there.
pub struct Process {
    pub child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// Starts `tollgate serve` on a configuration that [`write_config`] wrote, and waits until it
    /// is ready.
    pub async fn start(settings: &Path, public: SocketAddr, admin: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["serve", "--config"]).arg(settings);
        Self::start_by(command.stderr(Stdio::null()), public, admin).await
    }

    /// Starts it by a command of the test's own, and waits until it is ready.
    pub async fn start_by(command: &mut Command, public: SocketAddr, admin: SocketAddr) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let process = Self {
            child,
            public,
            admin,
        };
        wait_ready(admin).await;
        process
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        for _ in 0..1_200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the gate does not end");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `/readyz` says 200.
pub async fn wait_ready(admin: SocketAddr) {
    for _ in 0..600 {
        let request = Request::get("/readyz")
            .header("host", "x")
            .body(Full::default())
            .unwrap();
        if let Ok((StatusCode::OK, _, _)) = try_send(admin, request).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the gate does not become ready");
}
