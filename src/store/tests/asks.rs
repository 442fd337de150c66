//! The waiting calls of a limiter.
