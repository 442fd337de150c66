//! The items that the tests and the benchmarks use of the rooms. Nobody else may: it is no interface.

pub mod billing {
    pub use crate::billing::{Inputs, statement};
}
pub mod config {
    pub use crate::config::{
        Account, Config, Credential, Endpoint, HealthSettings, Key, ListenAddress, Listens,
        Service, load, reference,
    };
}
pub mod control {
    pub use crate::control::{Inherited, collect, start};
    pub mod admin {
        pub use crate::control::admin::CONNECTIONS;
    }
    pub mod serve {
        pub use crate::control::serve::Running;
    }
}
pub mod http {
    pub mod h1 {
        pub use crate::http::h1::{
            BadHead, FIRST_HEAD, Outbox, READER_BYTES_PER_SECOND, READER_WINDOW, RequestHead,
            request_head,
        };
    }
}
pub mod ledger {
    pub use crate::ledger::{
        ClockWatch, Collected, CollectedBy, Committed, Entry, Gap, Ledger, LedgerOptions, Mismatch,
        OutboxCursor, Range, RangeError, RangeReader, Reader, Record, SourceLedger, StoredRecord,
        Watermark,
    };
}
pub mod metrics {
    pub use crate::metrics::{FAMILIES, Metrics};
}
pub mod model {
    pub use crate::model::{
        AccountId, Action, Bill, Clock, Durability, EventType, Fund, GroupId, KeyId, Mode, Mono,
        Month, Mover, Origin, Outcome, Reason, RequestId, Stop, StoreStart, Threshold, Utc,
        VERSION,
    };
}
pub mod nats {
    pub use crate::nats::{
        BadNatsOptions, Difference, Feed, Fetched, KeyValues, LastRange, LastValue, Nats,
        NatsAddress, NatsCertificate, NatsError, NatsLogin, NatsOptions, NatsStatus, Published,
        Records, SUBJECTS, StreamOptions, Watched,
    };
}
pub mod proxy {
    pub use crate::proxy::{REFUSALS, Retry, UPLOAD_BYTES_PER_SECOND, UPLOAD_GRACE};
    pub mod admission {
        pub use crate::proxy::admission::{Limiter, LimiterKey, Limiters, Now, Quota, Terms};
    }
    pub mod identity {
        pub mod api_key {
            pub use crate::proxy::identity::api_key::{ApiKeyDigest, api_key};
        }
        pub mod tc3 {
            pub use crate::proxy::identity::tc3::{BodyHash, claim};
        }
    }
    pub mod upstream {
        pub use crate::proxy::upstream::Upstreams;
    }
    pub mod policy {
        pub use crate::proxy::policy::Policy;
    }
}
pub mod store {
    pub use crate::store::{
        BadCertificates, Bucket, CheckError, CheckWarning, Checked, Counts, Link, LinkHandle,
        NoConnection, NodeAddress, NodeFault, NodeStatus, Question, QuestionTerms, SAID, Said,
        StoreListener, StoreOptions, StoreStatus, TlsOptions, Topology, Unanswered, check,
    };
}
