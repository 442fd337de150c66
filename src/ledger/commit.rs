//! Waiting for a group commit: many calls, one fate.
//!
//! Owns the hand-over of a batch's fate from the writer to the calls that wait for it. Must never
//! know what is in the batch.
//!
//! A wake-up from another thread costs a system call, whether or not the woken runtime sleeps. To
//! wake 64 calls one by one would cost the writer 64 of them. The writer therefore wakes one call
//! of each worker thread, and that call wakes the rest of its thread from inside, which is a push
//! on a local queue.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

const OPEN: u8 = 0;
const DURABLE: u8 = 1;
const NOT_DURABLE: u8 = 2;
/// On the disk, and its calls are about to be told so: nobody can tell them anything else any more.
const SYNCED: u8 = 3;

/// The ledger could not keep the record, which is `gate_failed` now and will not be billed. The
/// client must get tollgate's own failure instead of the upstream's answer (P3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the ledger could not record this call")]
pub struct NotDurable;

/// Records that are written in one transaction.
#[derive(Debug)]
pub(super) struct Batch {
    fate: AtomicU8,
    groups: Mutex<Vec<WaitingThread>>,
}

/// The calls of one thread that wait for one batch.
#[derive(Debug)]
struct WaitingThread {
    thread: ThreadId,
    wakers: Vec<Option<Waker>>,
}

impl Batch {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            fate: AtomicU8::new(OPEN),
            groups: Mutex::new(Vec::new()),
        })
    }

    fn fate(&self) -> Option<Result<(), NotDurable>> {
        match self.fate.load(Ordering::Acquire) {
            OPEN | SYNCED => None,
            DURABLE => Some(Ok(())),
            _ => Some(Err(NotDurable)),
        }
    }

    /// Tells its calls that it is not durable, unless it is. The calls of a disk that hangs are
    /// told so while the commit is under way. Whether they were.
    pub(super) fn give_up(&self) -> bool {
        self.resolve(OPEN, NOT_DURABLE)
    }

    /// Whether nobody has decided about it.
    pub(super) fn is_open(&self) -> bool {
        self.fate.load(Ordering::Acquire) == OPEN
    }

    fn resolve(&self, from: u8, fate: u8) -> bool {
        let mut groups = self.groups.lock();
        let resolved = self
            .fate
            .compare_exchange(from, fate, Ordering::AcqRel, Ordering::Acquire);
        if resolved.is_err() {
            return false;
        }
        let heads: Vec<Waker> = groups
            .iter_mut()
            .filter_map(|group| std::iter::from_fn(|| group.wakers.pop()).flatten().next())
            .collect();
        drop(groups);
        heads.into_iter().for_each(Waker::wake);
        true
    }

    /// Wakes the calls of group `index` that the writer left to the first of them.
    fn pass_on(&self, index: usize) {
        let rest = self
            .groups
            .lock()
            .get_mut(index)
            .map(|group| std::mem::take(&mut group.wakers));
        rest.into_iter().flatten().flatten().for_each(Waker::wake);
    }
}

/// The writer's end of a batch. A batch that is dropped undecided is not durable, so that a writer
/// that dies leaves nobody waiting for ever.
#[derive(Debug)]
pub(super) struct Decision(Option<Arc<Batch>>);

impl Decision {
    pub(super) fn new(batch: Arc<Batch>) -> Self {
        Self(Some(batch))
    }

    /// The commit was synced. `false` when its calls were told an error meanwhile: then its records
    /// must say so.
    pub(super) fn synced(&self) -> bool {
        let exchange = |batch: &Arc<Batch>| {
            batch
                .fate
                .compare_exchange(OPEN, SYNCED, Ordering::AcqRel, Ordering::Acquire)
        };
        self.0.as_ref().is_some_and(|batch| exchange(batch).is_ok())
    }

    /// Tells the calls of a batch that was [`Decision::synced`].
    pub(super) fn durable(mut self) {
        if let Some(batch) = self.0.take() {
            batch.resolve(SYNCED, DURABLE);
        }
    }

    pub(super) fn not_durable(self) {
        drop(self);
    }
}

impl Drop for Decision {
    fn drop(&mut self) {
        if let Some(batch) = self.0.take() {
            batch.resolve(OPEN, NOT_DURABLE);
            // Synced and then dropped: the writer has panicked. An error says less than is true,
            // which is allowed.
            batch.resolve(SYNCED, NOT_DURABLE);
        }
    }
}

/// Resolves when the record is durable (strict), or at once (relaxed). Dropping it changes nothing
/// about the record. Poll it or drop it: one that is kept unpolled holds up the other calls of its
/// thread.
#[must_use = "an answer must not leave before its record is durable (P3)"]
#[derive(Debug)]
pub struct Commit(BatchState);

#[derive(Debug)]
enum BatchState {
    Known(Result<(), NotDurable>),
    Waiting {
        batch: Arc<Batch>,
        /// Group and place in it, once polled.
        place: Option<(usize, usize)>,
    },
}

impl Commit {
    /// The commit of a record that will never be durable.
    pub(crate) fn failed() -> Self {
        Self::known(Err(NotDurable))
    }

    pub(super) fn known(fate: Result<(), NotDurable>) -> Self {
        Self(BatchState::Known(fate))
    }

    pub(super) fn waiting(batch: Arc<Batch>) -> Self {
        Self(BatchState::Waiting { batch, place: None })
    }
}

impl Future for Commit {
    type Output = Result<(), NotDurable>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (batch, place) = match &mut self.0 {
            BatchState::Known(fate) => return Poll::Ready(*fate),
            BatchState::Waiting { batch, place } => (batch, place),
        };
        let mut groups = batch.groups.lock();
        if let Some(fate) = batch.fate() {
            drop(groups);
            if let Some((group, _)) = place.take() {
                batch.pass_on(group);
            }
            self.0 = BatchState::Known(fate);
            return Poll::Ready(fate);
        }
        let waker = context.waker();
        if let Some((group, at)) = *place {
            let kept = &mut groups[group].wakers[at];
            if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                *kept = Some(waker.clone());
            }
            return Poll::Pending;
        }
        let thread = thread::current().id();
        let group = match groups.iter().position(|group| group.thread == thread) {
            Some(group) => group,
            None => {
                groups.push(WaitingThread {
                    thread,
                    wakers: Vec::new(),
                });
                groups.len() - 1
            }
        };
        *place = Some((group, groups[group].wakers.len()));
        groups[group].wakers.push(Some(waker.clone()));
        Poll::Pending
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if let BatchState::Waiting {
            batch,
            place: Some((group, at)),
        } = &self.0
        {
            let mut groups = batch.groups.lock();
            if batch.fate().is_none() {
                // Else the writer could choose this dead call to wake the others.
                groups[*group].wakers[*at] = None;
            } else {
                // It was chosen, and will not be polled any more.
                drop(groups);
                batch.pass_on(*group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Call {
        commit: Commit,
        woken: Arc<Counted>,
    }

    impl Call {
        fn new(batch: &Arc<Batch>) -> Self {
            let mut call = Self {
                commit: Commit::waiting(batch.clone()),
                woken: Arc::default(),
            };
            assert_eq!(call.poll(), Poll::Pending);
            call
        }

        fn poll(&mut self) -> Poll<Result<(), NotDurable>> {
            let waker = Waker::from(self.woken.clone());
            Pin::new(&mut self.commit).poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    fn decide(batch: Arc<Batch>) {
        let decision = Decision::new(batch);
        assert!(decision.synced());
        decision.durable();
    }

    fn woken(calls: &[Call]) -> usize {
        calls.iter().map(Call::woken).sum()
    }

    #[test]
    fn the_writer_wakes_one_call_of_a_thread_and_that_one_wakes_the_rest() {
        let batch = Batch::new();
        let mut calls: Vec<Call> = (0..64).map(|_| Call::new(&batch)).collect();
        decide(batch);
        assert_eq!(woken(&calls), 1);
        let first = calls.iter().position(|call| call.woken() == 1).unwrap();
        assert_eq!(calls[first].poll(), Poll::Ready(Ok(())));
        assert!(calls.iter().all(|call| call.woken() == 1));
        for call in &mut calls {
            assert_eq!(call.poll(), Poll::Ready(Ok(())));
        }
    }

    #[test]
    fn a_call_that_was_chosen_and_then_dropped_still_wakes_the_rest() {
        let batch = Batch::new();
        let mut calls: Vec<Call> = (0..3).map(|_| Call::new(&batch)).collect();
        decide(batch);
        let first = calls.iter().position(|call| call.woken() == 1).unwrap();
        calls.remove(first);
        assert_eq!(woken(&calls), 2);
    }

    #[test]
    fn a_call_that_was_dropped_before_is_never_chosen() {
        let batch = Batch::new();
        let mut calls: Vec<Call> = (0..3).map(|_| Call::new(&batch)).collect();
        calls.pop();
        calls.pop();
        decide(batch);
        assert_eq!(woken(&calls), 1);
    }

    #[test]
    fn each_thread_gets_its_own_wake_up() {
        let batch = Batch::new();
        let here = Call::new(&batch);
        let there = thread::scope(|scope| scope.spawn(|| Call::new(&batch)).join().unwrap());
        decide(batch);
        assert_eq!((here.woken(), there.woken()), (1, 1));
    }

    #[test]
    fn a_batch_that_nobody_decided_is_not_durable() {
        let batch = Batch::new();
        let mut call = Call::new(&batch);
        drop(Decision::new(batch));
        assert_eq!(call.woken(), 1);
        assert_eq!(call.poll(), Poll::Ready(Err(NotDurable)));
    }

    #[test]
    fn calls_that_were_told_an_error_while_the_commit_went_on_are_told_nothing_else() {
        let batch = Batch::new();
        let mut call = Call::new(&batch);
        let decision = Decision::new(batch.clone());
        batch.give_up();
        assert_eq!(call.poll(), Poll::Ready(Err(NotDurable)));
        assert!(!decision.synced());
        decision.durable();
        assert_eq!(call.poll(), Poll::Ready(Err(NotDurable)));
    }

    #[test]
    fn what_is_synced_cannot_be_given_up_any_more() {
        let batch = Batch::new();
        let mut call = Call::new(&batch);
        let decision = Decision::new(batch.clone());
        assert!(decision.synced());
        batch.give_up();
        assert_eq!(call.poll(), Poll::Pending);
        decision.durable();
        assert_eq!(call.poll(), Poll::Ready(Ok(())));
    }

    #[test]
    fn the_last_waker_is_the_one_that_is_woken() {
        let batch = Batch::new();
        let mut call = Call::new(&batch);
        let before = std::mem::take(&mut call.woken);
        assert_eq!(call.poll(), Poll::Pending);
        decide(batch);
        assert_eq!(before.0.load(Ordering::SeqCst), 0);
        assert_eq!(call.woken(), 1);
    }
}
