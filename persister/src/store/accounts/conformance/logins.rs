//! Logins and the refresh tokens that keep them.

use super::*;

pub(super) async fn refresh_tokens<S: Accounts>(store: &S) {
    let f = opened(store, "f1", 1).await;
    assert_eq!(use_token(store, 1, 2, 10).await, gives(&f, 2));
    assert_eq!(use_token(store, 2, 3, 20).await, gives(&f, 3));
    assert_eq!(use_token(store, 9, 4, 30).await, Rotated::Unknown);
    assert_eq!(use_token(store, 1, 4, 30).await, Rotated::Reused(f.clone()), "the one in its place was used");
    assert_eq!(use_token(store, 3, 4, 40).await, Rotated::Revoked, "the newest one went with its family");
    assert_eq!(use_token(store, 1, 4, 40).await, Rotated::Revoked);
    assert_eq!(use_token(store, 4, 5, 40).await, Rotated::Unknown, "a refused rotation gives nothing");
    let f = opened(store, "f3", 30).await;
    assert_eq!(store.revoke(hash(30)).await.unwrap(), Some(f.clone()));
    assert_eq!(store.revoke(hash(30)).await.unwrap(), Some(f), "again");
    assert_eq!(store.revoke(hash(99)).await.unwrap(), None);
    assert_eq!(use_token(store, 30, 31, 10).await, Rotated::Revoked);
    let f = opened(store, "f8", 32).await;
    assert_eq!(use_token(store, 32, 33, 10).await, gives(&f, 33));
    assert_eq!(store.revoke(hash(32)).await.unwrap(), Some(f), "by one that was used");
    assert_eq!(use_token(store, 33, 34, 20).await, Rotated::Revoked);
    assert_eq!(use_token(store, 32, 34, 20).await, Rotated::Revoked, "in time, but the login is over");
}

/// An answer was lost, so the same token comes again.
pub(super) async fn refresh_again<S: Accounts>(store: &S) {
    let f = opened(store, "f6", 60).await;
    for (offered, now) in [(61, 1_000), (62, 1_000), (63, 1_000 + AGAIN), (64, 5)] {
        assert_eq!(use_token(store, 60, offered, now).await, gives(&f, 61), "at {now}");
    }
    for never_given in [62, 63, 64] {
        assert_eq!(use_token(store, never_given, 65, 2_000).await, Rotated::Unknown);
    }
    // The next answer is lost as well, and the one after it.
    for (old, next) in [(61, 66), (66, 67), (67, 68)] {
        assert_eq!(use_token(store, old, next, 80_000).await, gives(&f, next));
        assert_eq!(use_token(store, old, 69, 80_001).await, gives(&f, next));
    }
    assert_eq!(
        use_token(store, 66, 69, 80_002).await,
        Rotated::Reused(f),
        "in time, but the one in its place was used"
    );
    assert_eq!(use_token(store, 68, 69, 80_003).await, Rotated::Revoked);
    // Too late.
    let f = opened(store, "f7", 70).await;
    assert_eq!(use_token(store, 70, 71, 1_000).await, gives(&f, 71));
    assert_eq!(use_token(store, 70, 72, 1_001 + AGAIN).await, Rotated::Reused(f), "the time counts from its first use");
    assert_eq!(use_token(store, 71, 72, 1_001 + AGAIN).await, Rotated::Revoked);
    // It was good when it was used.
    let f = opened(store, "f9", 75).await;
    assert_eq!(use_token(store, 75, 76, 99_999).await, gives(&f, 76));
    assert_eq!(use_token(store, 75, 77, 100_001).await, gives(&f, 76));
    // Many at once: all of them get the same, and that one is good.
    let f = opened(store, "f2", 100).await;
    let all = futures_util::future::join_all((101..121).map(|offered| use_token(store, 100, offered, 1_000))).await;
    let Rotated::Done { salt, .. } = all[0] else { panic!("{all:?}") };
    let given = salt.0[0];
    assert!((101..121).contains(&given) && all.iter().all(|r| *r == gives(&f, given)), "{all:?}");
    for offered in (101..121).filter(|n| *n != given) {
        assert_eq!(use_token(store, offered, 130, 2_000).await, Rotated::Unknown, "nobody was given {offered}");
    }
    let all = futures_util::future::join_all((131..151).map(|offered| use_token(store, given, offered, 2_000))).await;
    assert!(all.iter().all(|r| *r == all[0] && matches!(r, Rotated::Done { .. })), "{all:?}");
}

pub(super) async fn devices<S: Accounts>(store: &S) {
    let knows = async |user: &str, device: &str| store.has_device(&id(user), &id(device)).await.unwrap();
    assert!(!knows("u1", "phone").await);
    open(store, Family { id: id("f10"), user: id("u1"), device: id("phone") }, 200, 100_000).await;
    assert!(knows("u1", "phone").await);
    for (user, device) in [("u3", "phone"), ("u1", "phon"), ("u1p", "hone"), ("nobody", "phone"), ("u1", "PHONE")] {
        assert!(!knows(user, device).await, "{user} {device}");
    }
    assert!(matches!(use_token(store, 200, 201, 1_000).await, Rotated::Done { .. }));
    assert!(store.revoke(hash(201)).await.unwrap().is_some());
    assert!(knows("u1", "phone").await, "who has logged out may log in again");
}

/// Which logins are not over, and ending them.
pub(super) async fn logins<S: Accounts>(store: &S) {
    let listed = async |device: Option<&str>, now| {
        let device = device.map(id);
        let mut all = store.open_logins(&id("u3"), device.as_ref(), now).await.unwrap();
        all.sort_by_key(|l| l.since);
        all.into_iter().map(|l| (l.family.id.to_string(), l.family.device.to_string(), l.since)).collect::<Vec<_>>()
    };
    let one = |f: &str, d: &str, since| (f.to_owned(), d.to_owned(), since);
    let family = |f: &str, d: &str| Family { id: id(f), user: id("u3"), device: id(d) };
    assert_eq!(listed(None, 1).await, []);
    for (f, d, n) in [("l1", "phone", 210), ("l2", "phone", 211), ("l3", "web", 212)] {
        open(store, family(f, d), n, 100_000).await;
    }
    let (l1, l2, l3) = (one("l1", "phone", 210), one("l2", "phone", 211), one("l3", "web", 212));
    assert_eq!(listed(None, 1).await, [l1.clone(), l2.clone(), l3.clone()]);
    assert_eq!(listed(Some("phone"), 1).await, [l1, l2.clone()]);
    assert_eq!((listed(Some("phon"), 1).await, listed(Some("tablet"), 1).await), (vec![], vec![]));
    store.end_login(&family("l1", "phone")).await.unwrap();
    assert_eq!(use_token(store, 210, 220, 10).await, Rotated::Revoked);
    assert_eq!(listed(None, 1).await, [l2.clone(), l3.clone()], "nobody else's ends");
    // Renewed, it lives on, since the same time.
    assert!(matches!(use_token(store, 212, 221, 10).await, Rotated::Done { .. }));
    assert_eq!(
        (listed(None, 99_999).await, listed(None, 100_000).await),
        (vec![l2.clone(), l3.clone()], vec![l3.clone()])
    );
    assert_eq!(listed(None, 200_000).await, [], "the next one expires, too");
    // Stolen: over as well. And what is over stays so.
    assert!(matches!(use_token(store, 221, 222, 20).await, Rotated::Done { .. }));
    assert!(matches!(use_token(store, 212, 223, 30).await, Rotated::Reused(_)));
    store.revoke(hash(211)).await.unwrap();
    assert_eq!(listed(None, 1).await, []);
    store.end_login(&family("l1", "phone")).await.unwrap();
    store.end_login(&family("never", "phone")).await.unwrap();
    assert_eq!(listed(None, 1).await, []);
}

pub(super) async fn expiry<S: Accounts>(store: &S) {
    open(store, family("f4"), 40, 5_000).await;
    assert_eq!(use_token(store, 40, 41, 5_000).await, Rotated::Expired);
    // A store whose server forgets by itself may do so later.
    store.sweep(6_000).await.unwrap();
    let again = use_token(store, 40, 41, 6_000).await;
    assert!(matches!(again, Rotated::Expired | Rotated::Unknown), "{again:?}");
    let f = opened(store, "f5", 50).await;
    store.sweep(6_000).await.unwrap();
    assert_eq!(use_token(store, 50, 51, 6_000).await, gives(&f, 51), "what is good stays");
}
