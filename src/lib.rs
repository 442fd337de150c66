//! tollgate: the gate in front of an API that is sold by the call or by the QPS.
pub mod clock;
pub mod usage;
pub mod words;
