//! A replica that asks for one call after the other, as the way of a call does.

use crate::harness::{BOUND, eventually};
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::model::{Clock, Utc};
use tollgate::testing::store::{
    Link, LinkHandle, Question, QuestionTerms, Said, StoreListener, StoreOptions, Unanswered,
};

pub struct Nobody;
impl StoreListener for Nobody {}

pub struct Asker {
    pub link: Arc<Link>,
    pub handle: LinkHandle,
    terms: QuestionTerms,
    limiter: &'static str,
    /// Those that were granted: epoch and instant of the store.
    pub starts: Vec<(i64, i64)>,
}

impl Asker {
    pub fn new(options: StoreOptions) -> Self {
        Self::for_limiter(options, "acme/faces")
    }

    pub fn for_limiter(options: StoreOptions, limiter: &'static str) -> Self {
        let link = Link::new(options, Clock::default(), Arc::new(Nobody)).unwrap();
        Self::over(Arc::new(link), limiter)
    }

    /// One runtime of a replica.
    pub fn over(link: Arc<Link>, limiter: &'static str) -> Self {
        Self {
            handle: link.on_this_runtime(),
            link,
            terms: QuestionTerms {
                epoch: 0,
                deadline: Utc(0),
            },
            limiter,
            starts: Vec::new(),
        }
    }

    /// Asks until an answer comes in time: the machine may be busy.
    pub async fn in_time(&mut self) -> Result<Said, Unanswered> {
        loop {
            match self.ask().await {
                Err(Unanswered::Late) => {}
                said => return said,
            }
        }
    }

    /// Asks for one call of a quota of 20 a second.
    pub async fn ask(&mut self) -> Result<Said, Unanswered> {
        let question = Question {
            limiter: self.limiter.into(),
            quota: 20,
            n: 1,
            max_delay: Duration::from_millis(50),
        };
        let bucket = self.link.bucket_of(self.limiter);
        let said = self.handle.ask(bucket, &question, self.terms).await?;
        match &said {
            Said::Granted {
                epoch,
                now,
                offsets,
                ..
            } => {
                let start = |offset: &Duration| (*epoch, now.plus(*offset).0);
                self.starts.extend(offsets.iter().map(start));
                self.believe(*epoch, *now);
            }
            Said::Hold { epoch, now, .. }
            | Said::Epoch { epoch, now, .. }
            | Said::Late { epoch, now, .. } => self.believe(*epoch, *now),
            Said::Newer => {}
        }
        Ok(said)
    }

    /// A generous deadline: the replica's belief is tested elsewhere.
    fn believe(&mut self, epoch: i64, now: Utc) {
        let deadline = now.plus(BOUND);
        self.terms = QuestionTerms { epoch, deadline };
    }

    /// Asks each 10 ms until a call is granted. Gives what was said before, each once in a row.
    pub async fn until_granted(&mut self) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        let clock = Clock::default();
        let until = clock.mono().plus(BOUND);
        loop {
            let word = match self.ask().await {
                Ok(Said::Granted { offsets, .. }) if !offsets.is_empty() => return seen,
                Ok(Said::Granted { .. }) => "refused".to_owned(),
                Ok(Said::Hold { .. }) => "hold".to_owned(),
                Ok(Said::Epoch { .. }) => "epoch".to_owned(),
                Ok(Said::Late { .. }) => "late_question".to_owned(),
                Ok(Said::Newer) => "newer".to_owned(),
                Err(why) => why.name().to_owned(),
            };
            if seen.last() != Some(&word) {
                seen.push(word);
            }
            let status = self.link.status();
            assert!(clock.mono() < until, "never granted: {seen:?}, {status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the store answers on each connection.
    pub async fn up(&self) {
        eventually("the store is up", || self.link.status().up).await;
    }
}

/// How long `work` took.
pub async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let begun = Clock::default().mono();
    let done = work.await;
    (Clock::default().mono().since(begun), done)
}
