//! The way to the store, for all threads that ask.
//!
//! Owns the connections: each runtime has its own, since a connection belongs to the runtime that
//! opened it. Must never make a question wait for a connection.

use crate::model::Clock;
use crate::store::bucket::Bucket;
use crate::store::core::Core;
use crate::store::dial::BadCertificates;
use crate::store::options::StoreOptions;
use crate::store::question::{Question, QuestionTerms, Said};
use crate::store::routes::Routes;
use crate::store::status::{Counts, StoreListener, StoreStatus};
use crate::store::unanswered::Unanswered;
use std::sync::Arc;

/// The way to the store. One in the process; all threads share it.
pub struct Link {
    core: Arc<Core>,
}

/// The connections of one runtime. They end when this is dropped.
pub struct LinkHandle {
    core: Arc<Core>,
    routes: Routes,
}

impl Link {
    /// Opens nothing yet. Reads the certificates that the machine trusts when TLS is asked for
    /// without certificates: blocks for a moment.
    ///
    /// # Errors
    /// No certificate can be trusted.
    pub fn new(
        options: StoreOptions,
        clock: Clock,
        listener: Arc<dyn StoreListener>,
    ) -> Result<Self, BadCertificates> {
        let core = Arc::new(Core::new(options, clock, listener)?);
        Ok(Self { core })
    }

    /// Begins to keep connections open on the runtime that runs this.
    ///
    /// # Panics
    /// No runtime of tokio runs this.
    pub fn on_this_runtime(&self) -> LinkHandle {
        LinkHandle {
            core: self.core.clone(),
            routes: Routes::new(&self.core),
        }
    }

    /// Where a limiter's window is: the clock and the epoch of an answer are those of its bucket.
    pub fn bucket_of(&self, limiter: &str) -> Bucket {
        Bucket::of(limiter, self.core.options.buckets())
    }

    /// How many buckets there are: [`Bucket::number`] is below it.
    pub fn buckets(&self) -> u16 {
        self.core.options.buckets()
    }

    /// Whether the store answers, since when, and where it is.
    pub fn status(&self) -> StoreStatus {
        self.core.board.read()
    }

    /// How often what happened.
    pub fn counts(&self) -> Counts {
        self.core.counters.read()
    }
}

impl LinkHandle {
    /// Asks once, and waits for the answer no longer than the budget. The instants before and after
    /// this are those of sending and of receiving.
    ///
    /// # Errors
    /// There is no answer that may be used. The store may have granted what was asked for.
    pub async fn ask(
        &self,
        bucket: Bucket,
        question: &Question,
        terms: QuestionTerms,
    ) -> Result<Said, Unanswered> {
        let result = match self.routes.line(bucket) {
            Some(line) => line.ask(bucket, question, terms).await,
            None => Err(Unanswered::Down),
        };
        self.core.counters.count(&result);
        result
    }
}
