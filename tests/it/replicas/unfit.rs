//! Stores with which a gate does not start.

use super::fleet::sandbox;
use crate::harness::{StoreServer, free_port};
use std::net::SocketAddr;

#[tokio::test]
async fn a_store_that_is_unfit_or_not_there_is_an_error_of_the_start_with_its_remedy() {
    let upstream: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let evicts = StoreServer::redis(&["--maxmemory-policy", "allkeys-lru"]);
    evicts.ready().await;
    let unfit = sandbox("gate-0", 20, upstream, &evicts.address().to_string()).run(&["serve"]);
    assert_eq!(unfit.code, Some(1), "{unfit:?}");
    for words in ["`admission.store`", "`maxmemory-policy noeviction`"] {
        assert!(unfit.err.contains(words), "{unfit:?}");
    }
    let nobody = format!("127.0.0.1:{}", free_port());
    let gone = sandbox("gate-0", 20, upstream, &nobody).run(&["serve"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    for words in ["`admission.store`", &nobody, "see that it runs"] {
        assert!(gone.err.contains(words), "{gone:?}");
    }
    for said in [&unfit.err, &gone.err] {
        assert_eq!(said.matches("the store at 127.0.0.1").count(), 1, "{said}");
    }
}
