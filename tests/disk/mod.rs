//! A disk under a process, made by `layer.c`: what its page cache holds is not what a power cut
//! leaves.
//!
//! Owns how the layer is built, put under a process and told what to do. The program under test
//! knows nothing of it.
#![allow(dead_code, reason = "each test binary uses what it needs of it")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
/// A count that does not run out.
pub(crate) const ALL: u32 = u32::MAX;
pub(crate) const EIO: u32 = 5;
pub(crate) const ENOSPC: u32 = 28;

/// The words that the layer reads at each call, in the order of its `struct control`.
#[derive(Clone, Copy)]
pub(crate) enum Word {
    /// So many next syncs of a WAL fail with EIO.
    FailWal,
    /// The same of other files.
    FailDb,
    /// So many next writes fail.
    FailWrite,
    /// With this.
    WriteErrno,
    /// Syncs do not return while this is not 0.
    Hang,
    /// Of 100 pages that a failed sync drops, how many read as the disk has them from then on.
    Evict,
    /// The state of the dice; not 0.
    Dice,
    /// Syncs so far.
    Syncs,
    /// Of them, those that failed.
    Failed,
    /// Calls that hang now.
    Hanging,
    /// After so many writes the kernel writes back by itself and fails; told at the next sync.
    LoseAfter,
    /// `FailWrite` counts writes of WALs only.
    FailWriteWalOnly,
}

/// A directory whose files lie on such a disk.
pub(crate) struct Disk {
    control: File,
    root: PathBuf,
    shadow: PathBuf,
}

impl Disk {
    /// Makes one in `home`, for processes that are started with its [`Disk::environment`].
    pub(crate) fn new(home: &Path) -> Self {
        let home = home.canonicalize().unwrap();
        let (root, shadow) = (home.join("root"), home.join("shadow"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&shadow).unwrap();
        fs::write(home.join("control"), [0; PAGE]).unwrap();
        Self::at(root, shadow)
    }

    fn at(root: PathBuf, shadow: PathBuf) -> Self {
        let control = File::options()
            .read(true)
            .write(true)
            .open(shadow.with_file_name("control"))
            .unwrap();
        Self {
            control,
            root,
            shadow,
        }
    }

    /// The disk under this process, if there is one.
    pub(crate) fn of_this_process() -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Self::at(path("DISK_ROOT")?, path("DISK_SHADOW")?))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn environment(&self) -> [(&'static str, OsString); 4] {
        let control = self.shadow.with_file_name("control");
        [
            ("LD_PRELOAD", layer().into()),
            ("DISK_ROOT", self.root.clone().into()),
            ("DISK_SHADOW", self.shadow.clone().into()),
            ("DISK_CONTROL", control.into()),
        ]
    }

    pub(crate) fn set(&self, word: Word, value: u32) {
        self.control
            .write_all_at(&value.to_ne_bytes(), word as u64 * 4)
            .unwrap();
    }

    pub(crate) fn get(&self, word: Word) -> u32 {
        let mut bytes = [0; 4];
        self.control
            .read_exact_at(&mut bytes, word as u64 * 4)
            .unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// Every write fails with this error from now on, or none with 0.
    pub(crate) fn refuse_writes(&self, errno: u32) {
        self.set(Word::WriteErrno, errno);
        self.set(Word::FailWrite, if errno == 0 { 0 } else { ALL });
    }

    /// Puts into the new directory `to` what is on the disk of the files in `from`. Of the pages
    /// that were written and not synced, each is there or not, as `dice` (not 0) falls.
    pub(crate) fn power_cut(&self, from: &Path, to: &Path, mut dice: u64) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let escaped = path.to_str().unwrap().replace('/', "%");
            let Ok(mut disk) = fs::read(self.shadow.join(format!("{escaped}.disk"))) else {
                continue;
            };
            let dirty = fs::read(self.shadow.join(format!("{escaped}.dirty"))).unwrap();
            let cache = fs::read(&path).unwrap();
            for (page, _) in dirty.iter().enumerate().filter(|(_, mark)| **mark != 0) {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                let range = page * PAGE..((page + 1) * PAGE).min(cache.len());
                if dice & 1 == 1 && !range.is_empty() {
                    if disk.len() < range.end {
                        disk.resize(range.end, 0);
                    }
                    disk[range.clone()].copy_from_slice(&cache[range]);
                }
            }
            fs::write(to.join(path.file_name().unwrap()), disk).unwrap();
        }
    }
}

/// Runs the calling test again in a process of its own with such a disk under it. There it gives
/// the disk; here it gives nothing once that process has passed. `here` is any closure of the test:
/// its type has the test's name.
pub(crate) fn under_this_test<T>(here: &T) -> Option<Disk> {
    if let Some(disk) = Disk::of_this_process() {
        return Some(disk);
    }
    let name = test_name(here);
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::new(home.path());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .envs(disk.environment())
        .output()
        .unwrap();
    let log = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{name} on a failing disk:\n{log}");
    assert!(log.contains("1 passed"), "there is no test {name}");
    None
}

/// The name by which the test binary knows the test that `here` is a closure of.
pub(crate) fn test_name<T>(here: &T) -> String {
    let path = std::any::type_name_of_val(here);
    let (_, path) = path.split_once("::").unwrap();
    path.trim_end_matches("::{{closure}}").to_owned()
}

/// The layer, compiled when this version of it is not there yet.
pub(crate) fn layer() -> PathBuf {
    static LAYER: OnceLock<PathBuf> = OnceLock::new();
    LAYER
        .get_or_init(|| {
            let source = include_str!("layer.c");
            let sum = source.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let beside = std::env::current_exe().unwrap();
            let library = beside.with_file_name(format!("disk-layer-{sum:016x}.so"));
            if !library.exists() {
                let own = library.with_extension(std::process::id().to_string());
                let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/disk/layer.c");
                let built = Command::new("cc")
                    .args(["-shared", "-fPIC", "-O2", "-o"])
                    .arg(&own)
                    .args([file, "-ldl"])
                    .status()
                    .unwrap();
                assert!(built.success(), "cc cannot build {file}");
                fs::rename(own, &library).unwrap();
            }
            library
        })
        .clone()
}

/// Waits until it holds. The limit is there to end a broken run, not to measure.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    #[allow(clippy::disallowed_methods, reason = "a test's own patience")]
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        #[allow(clippy::disallowed_methods, reason = "a test's own patience")]
        let now = Instant::now();
        assert!(now < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
