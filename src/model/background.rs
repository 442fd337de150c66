//! Work that goes behind the calls.
//!
//! Owns how such work is run: on a thread of its own that yields the processor to the workers. Must
//! never be used for what a call waits for.

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// At the lowest priority a short work would wait seconds for a busy machine.
const NICENESS: i32 = 10;

/// Runs `work` on a thread that yields the processor to the workers, and waits for it: it may take
/// seconds of the processor.
pub(crate) fn run_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_own_thread(|| {
        // Linux keeps a priority for each thread. Refused is no harm: then it is as quick as the
        // others.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
        work()
    })
}

/// Runs `work` on a thread that has a processor only while nobody else wants it, and waits for it. A
/// worker that wakes takes the processor at once; from a thread of low priority it takes it only
/// when that one's turn ends, milliseconds later. On a machine without rest the work takes a
/// hundred times as long, so it must hold nothing that others wait for.
pub(crate) fn run_when_idle<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_own_thread(|| {
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
        work()
    })
}

/// A thread that may lower its priority for good.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy of a thread as the kernel tells it: field 41 of its `stat` (proc(5)).
    fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        after_name.split(' ').nth(38).unwrap().to_owned()
    }

    #[test]
    fn idle_work_has_the_kernels_idle_policy_and_its_thread_alone() {
        const SCHED_IDLE: &str = "5";
        assert_eq!(run_when_idle(policy), SCHED_IDLE);
        assert_ne!(policy(), SCHED_IDLE);
    }
}
