//! Work that goes behind the calls.
//!
//! Owns how such work is run: on a thread of its own that yields the processor to the workers. Must
//! never be used for what a call waits for.

/// At the lowest priority a short work would wait seconds for a busy machine.
const NICENESS: i32 = 10;

/// Runs `work` on a thread that yields the processor to the workers, and waits for it: it may take
/// seconds of the processor.
pub(crate) fn run_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let unhurried = || {
        // Linux keeps a priority for each thread. Refused is no harm: then it is as quick as the
        // others.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(unhurried).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
