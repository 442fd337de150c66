//! tollgate: the gate in front of an API that is sold by the call or by the QPS.
pub mod admission;
pub mod clock;
pub mod metrics;
pub mod upstream;
pub mod words;
