use super::*;

const S: Duration = Duration::from_secs(1);

fn readers() -> (Health, Readers) {
    let health = Health::new();
    (health.clone(), Readers::bounded(&health, 10 * S))
}

fn said(health: &Health, part: &str) -> Result<(), String> {
    match &health.report().parts[part] {
        crate::health::State::Ok => Ok(()),
        crate::health::State::Failing(why) => Err(why.clone()),
    }
}

/// Lets the watch look for so long, with the end told each second.
async fn pass(readers: &Readers, seconds: u32, each: impl Fn()) {
    for _ in 0..seconds {
        each();
        let _ = tokio::time::timeout(S, readers.watch()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_stands_still_is_named_though_the_other_moves() {
    let (health, readers) = readers();
    let (a, b) = (readers.open("a.1-0".into()), readers.open("a.1-1".into()));
    assert!(said(&health, "a.1-0").is_err(), "not before the end is known");
    a.at(5);
    b.doing("writing");
    let moved = std::cell::Cell::new(5);
    let go_on = || {
        moved.set(moved.get() + 1);
        a.at(moved.get());
        a.end(moved.get() + 3);
        b.at(7);
        b.end(9);
    };
    pass(&readers, 9, go_on).await;
    assert!(health.report().ready, "{:?}", health.report());
    pass(&readers, 4, go_on).await;
    assert_eq!(said(&health, "a.1-0"), Ok(()));
    let why = said(&health, "a.1-1").unwrap_err();
    assert!(why.contains("from 7") && why.contains("up to 9") && why.contains("writing"), "{why}");
    b.at(9);
    b.end(9);
    assert!(health.report().ready);
    // With nothing to read it may stay for ever.
    pass(&readers, 100, || {
        a.at(100);
        a.end(100);
        b.end(9);
    })
    .await;
    assert!(health.report().ready, "{:?}", health.report());
    drop(b);
    assert!(!health.report().parts.contains_key("a.1-1"));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_known_any_more_is_said_also_of_one_that_rests() {
    let (health, readers) = readers();
    let reader = readers.open("r".into());
    reader.end(100);
    reader.rest();
    pass(&readers, 9, || ()).await;
    assert_eq!(said(&health, "r"), Ok(()), "another process reads what is there");
    pass(&readers, 4, || ()).await;
    assert!(said(&health, "r").unwrap_err().contains("nobody could tell"));
    reader.end(100);
    assert_eq!(said(&health, "r"), Ok(()));
    // It takes over: the clock begins now, not when the other one died.
    reader.begin();
    pass(&readers, 9, || reader.end(100)).await;
    assert_eq!(said(&health, "r"), Ok(()));
    pass(&readers, 3, || reader.end(100)).await;
    assert!(said(&health, "r").unwrap_err().contains("from 0"));
}

#[tokio::test(start_paused = true)]
async fn a_trouble_lasts_until_it_is_over_whatever_goes_well_beside_it() {
    let (health, readers) = readers();
    let reader = readers.open("r".into());
    reader.end(1);
    let (one, other) = (reader.trouble(), reader.trouble());
    one.is(Some("disk full".into()));
    other.is(Some("no such table".into()));
    reader.at(1);
    reader.end(1);
    assert!(said(&health, "r").unwrap_err().contains("disk full (and 1 more)"));
    other.is(None);
    assert_eq!(said(&health, "r").unwrap_err(), "disk full");
    drop(one);
    assert_eq!(said(&health, "r"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_begins_again_further_down_moves() {
    let (health, readers) = readers();
    let reader = readers.open("r".into());
    let place = std::cell::Cell::new(1_000);
    pass(&readers, 30, || {
        place.set(place.get() - 1);
        reader.at(place.get());
        reader.end(2_000);
    })
    .await;
    assert_eq!(said(&health, "r"), Ok(()));
}
