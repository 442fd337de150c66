//! `deploy/release.sh` with a compiler, a cargo and a tool for profiles that only note what they are asked for. What
//! a real one makes of it takes ten minutes: `make release`.

use crate::harness::{Output, said};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/release.sh");
const RUSTC: &str = r#"
case "$1" in
    -vV) printf 'rustc 1.95.0\nhost: the-host\nrelease: 1.95.0\nLLVM version: 99.1.2\n' ;;
    --print) echo "$BENCH_DIR/sysroot" ;;
esac"#;
/// A build leaves a binary that says with which flags it was built; a run of one that counts leaves counts.
const CARGO: &str = r#"
echo "cargo $1 ${BENCH_BINARY:+of a given binary}" >> "$BENCH_DIR/asked"
if [ "$1" = build ]; then
    mkdir -p "$CARGO_TARGET_DIR/the-host/release"
    printf '#!/bin/sh\necho "built with %s"\n' "$RUSTFLAGS" > "$CARGO_TARGET_DIR/the-host/release/tollgate"
    chmod +x "$CARGO_TARGET_DIR/the-host/release/tollgate"
    for word in $RUSTFLAGS; do
        case $word in -Cprofile-use=*) cat "${word#*=}" >> "$BENCH_DIR/asked" ;; esac
    done
else
    counting=$("$BENCH_BINARY")
    mkdir -p "${counting#*generate=}"
    echo counted > "${counting#*generate=}/1.profraw"
fi"#;
const PROFDATA: &str = r#"
for word; do
    case $word in --output=*) out=${word#*=} ;; *.profraw) cat "$word" > "$out" ;; esac
done
echo "merged" >> "$out""#;

/// An empty directory with these tools.
struct Tools {
    dir: tempfile::TempDir,
}

impl Tools {
    fn new() -> Self {
        let tools = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        tools.put("bin/rustc", RUSTC);
        tools.put("bin/cargo", CARGO);
        tools
    }

    fn put(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\nset -e{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn release(&self, arguments: &[&Path]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut command = Command::new(SCRIPT);
        command
            .args(arguments)
            .env("PATH", path)
            .env("BENCH_DIR", self.dir.path())
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env_remove("RUSTFLAGS")
            .env_remove("BENCH_BINARY")
            .stdin(Stdio::null());
        let said = said(&mut command);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        said
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(self.path("asked")).unwrap()
    }

    /// The profiles beside the binary, which is there: paths and what they hold.
    fn profiles(&self) -> Vec<(PathBuf, String)> {
        let all = std::fs::read_dir(self.path("target/shipped")).unwrap();
        let all = all.map(|entry| entry.unwrap().path());
        let (binary, profiles): (Vec<_>, Vec<_>) = all.partition(|path| path.ends_with("tollgate"));
        assert_eq!(binary.len(), 1);
        let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
        profiles.into_iter().map(read).collect()
    }
}

const TRAINED: &str =
    "cargo build \ncargo bench of a given binary\ncargo build \ncounted\nmerged\n";

#[test]
fn a_release_is_trained_and_built_again_by_what_was_counted() {
    let tools = Tools::new();
    tools.put("sysroot/lib/rustlib/the-host/bin/llvm-profdata", PROFDATA);
    let said = tools.release(&[]);
    assert_eq!(tools.asked(), TRAINED);
    assert!(
        said.out.contains("built with  -Cprofile-use="),
        "{}",
        said.out
    );
    let [(path, profile)] = &tools.profiles()[..] else {
        panic!("{:?}", tools.profiles());
    };
    assert_eq!(profile, "counted\nmerged\n");
    assert!(said.out.contains(path.to_str().unwrap()), "{}", said.out);
}

#[test]
fn a_tool_of_the_system_does_when_it_reads_what_this_compiler_writes() {
    let tools = Tools::new();
    tools.put("bin/llvm-profdata", "\nexit 1");
    tools.put("bin/llvm-profdata-98", "\nexit 1");
    tools.put("bin/llvm-profdata-99", PROFDATA);
    tools.release(&[]);
    assert_eq!(tools.asked(), TRAINED);
}

#[test]
fn without_the_tool_a_release_is_plain_and_says_what_is_missing() {
    let tools = Tools::new();
    std::fs::create_dir_all(tools.path("target/shipped")).unwrap();
    let earlier = tools.path("target/shipped/earlier.profdata");
    std::fs::write(earlier, "of another binary").unwrap();
    let said = tools.release(&[]);
    assert_eq!(tools.asked(), "cargo build \n");
    assert!(
        said.err.contains("rustup component add llvm-tools"),
        "{}",
        said.err
    );
    assert!(said.err.contains("apt-get install llvm-99"), "{}", said.err);
    assert_eq!(said.out.trim_end(), "built with");
    assert_eq!(tools.profiles(), []);
}

#[test]
fn with_the_profile_of_an_earlier_release_nothing_is_trained() {
    let tools = Tools::new();
    let earlier = tools.path("earlier");
    std::fs::write(&earlier, "earlier\n").unwrap();
    let first = tools.release(&[&earlier]);
    assert_eq!(tools.asked(), "cargo build \nearlier\n");
    let [(kept, profile)] = &tools.profiles()[..] else {
        panic!("{:?}", tools.profiles());
    };
    assert_eq!(profile, "earlier\n");
    // The one beside the binary may be given too, and gives the same.
    let second = tools.release(&[kept]);
    assert_eq!(first.out, second.out);
    // Another profile has another name, else cargo would not look at it.
    let other = tools.path("other");
    std::fs::write(&other, "other\n").unwrap();
    assert_ne!(tools.release(&[&other]).out, second.out);
    assert_eq!(tools.profiles().len(), 1);
}
