//! What the real binary writes to its log, and at which level.

use crate::harness::*;
use http::StatusCode;
use std::net::SocketAddr;

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_level_is_the_default_and_no_level_hides_an_error() {
    for (level, tells_info) in [("", true), (" ", true), ("INFO", true), ("error", false)] {
        let house = Sandbox::new(nowhere(), &[]);
        let level = format!("TOLLGATE_LOG={level}");
        let _process = house.start_under(&["env", &level]).await;
        house.edit("accounts.yaml", "accounts:", "accounts: [");
        let (status, _) = post_reload(house.admin, "").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let refused = async {
            while !house.log().contains("reload refused") {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let refused = tokio::time::timeout(BOUND, refused).await;
        assert!(refused.is_ok(), "{level}: {}", house.log());
        assert_eq!(house.log().contains("serving"), tells_info, "{level}");
    }
}

#[test]
fn what_is_no_level_ends_the_start_and_names_those_there_are() {
    let house = Sandbox::new(nowhere(), &[]);
    for level in ["wran", "tollgate=inof", "info,", "off", "trace", "=debug"] {
        let named = format!("TOLLGATE_LOG={level}");
        let said = said(&mut house.command(&["env", &named], &["serve"]));
        assert_eq!(said.code, Some(1), "{level}: {}", said.err);
        assert!(
            said.err.contains(&format!("TOLLGATE_LOG: {level:?}"))
                && said.err.contains("write error, warn, info or debug"),
            "{}",
            said.err
        );
    }
    assert!(!house.ledger().exists());
}
