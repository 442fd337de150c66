use crate::harness::Prometheus;
pub async fn check_queries(_: &Prometheus, _: (i64, i64)) {}
