//! Trials: four apps of an account, ever, and sixty days each.

use super::*;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(flavor = "multi_thread")]
async fn four_packages_have_a_trial_of_sixty_days_and_the_fifth_is_refused_whatever_became_of_them()
{
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let gate = gate(&house).await;
    let app = |n: usize| format!("com.example.app{n}");
    let ask = async |n: usize, more: Value| {
        let asked = authorize(gate.public, RETAIL_KEY, &app(n), "d", more).await;
        (
            asked.0,
            if asked.0 == StatusCode::OK {
                "granted".to_owned()
            } else {
                reason(&asked)
            },
        )
    };
    let granted = (StatusCode::OK, "granted".to_owned());
    let refused = |why: &str| (StatusCode::FORBIDDEN, why.to_owned());
    assert_eq!(ask(1, nothing()).await, refused("not_licensed"));
    for n in 1..=4 {
        assert_eq!(ask(n, trial()).await, granted, "{n}");
        // Again is no other one.
        assert_eq!(ask(n, trial()).await, granted, "{n}");
        assert_eq!(ask(n, nothing()).await, granted, "{n}");
    }
    assert_eq!(ask(5, trial()).await, refused("trial_limit"));
    assert_eq!(ask(5, nothing()).await, refused("other_package"));
    // Day 60, and day 61.
    gate.mover.advance(60 * DAY - Duration::from_secs(60));
    assert_eq!(ask(4, nothing()).await, granted);
    gate.mover.advance(Duration::from_secs(120));
    assert_eq!(ask(1, nothing()).await, refused("licence_expired"));
    assert_eq!(ask(1, trial()).await, refused("licence_expired"));
    assert_eq!(ask(5, trial()).await, refused("trial_limit"));
    // Another account has its own.
    let other = authorize(gate.public, VIDEO_KEY, &app(5), "d", trial()).await;
    assert_eq!(other.0, StatusCode::OK);
    assert_eq!(other.1["kind"], "trial");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_every_application_that_was_answered_has_its_place() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    for round in 0..4 {
        let mut process = house.start().await;
        let package = format!("com.example.round{round}");
        let (status, said) = authorize(house.public, RETAIL_KEY, &package, "d", trial()).await;
        process.kill();
        assert_eq!(status, StatusCode::OK, "{said}");
    }
    let _process = house.start().await;
    for round in 0..4 {
        let package = format!("com.example.round{round}");
        let (status, said) = authorize(house.public, RETAIL_KEY, &package, "d", nothing()).await;
        assert_eq!(status, StatusCode::OK, "{round}: {said}");
    }
    let fifth = authorize(house.public, RETAIL_KEY, "com.example.round9", "d", trial()).await;
    assert_eq!(reason(&fifth), "trial_limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_at_once_for_the_last_place_of_one_gate_a_single_one_passes() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let gate = gate(&house).await;
    for n in 0..3 {
        authorize(
            gate.public,
            RETAIL_KEY,
            &format!("com.example.app{n}"),
            "d",
            trial(),
        )
        .await;
    }
    assert_eq!(passed(&[gate.public], 50).await, 1);
}

/// How many of so many applications at once, each of another app, are accepted.
pub async fn passed(gates: &[SocketAddr], applications: usize) -> usize {
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..applications {
        let gate = gates[n % gates.len()];
        asked.spawn(async move {
            let package = format!("com.example.last{n}");
            let device = format!("device {n}").replace(' ', "-");
            let answer = authorize(gate, RETAIL_KEY, &package, &device, trial()).await;
            (answer.0, reason(&answer))
        });
    }
    let answers = asked.join_all().await;
    let odd = |(status, why): &&(StatusCode, String)| {
        *status != StatusCode::OK
            && (*status, why.as_str()) != (StatusCode::FORBIDDEN, "trial_limit")
    };
    assert!(answers.iter().find(odd).is_none(), "{answers:?}");
    answers
        .iter()
        .filter(|(status, _)| *status == StatusCode::OK)
        .count()
}
