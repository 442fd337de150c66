//! No memory of this program in a core dump.
//!
//! Owns what the system is told about it. Must run before the first secret is read.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::io;

/// From here on the system writes no core dump of this process, and no other process of the same
/// user may read its memory. Root still may.
///
/// # Errors
/// When the system refuses it: a program that cannot keep its secrets reads none.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // A collector of dumps that the kernel pipes them to is not bound by the limit.
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
