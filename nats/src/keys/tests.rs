use super::*;

#[test]
fn a_familys_first_wildcards_are_filled() {
    assert_eq!(POSITIONS.fill(&[&"channel", &7, &3]), "positions.channel.7.3");
    assert_eq!(POSITIONS.fill(&[&"channel"]), "positions.channel.*.*", "all of one role");
    assert_eq!(THREADS.fill(&[&"u1", &"0a"]), "u1.threads.0a");
    assert_eq!(LAYOUT.fill(&[]), "generation");
}

/// Two families in one bucket have no key in common, so a permission for one is none for the other.
#[test]
fn no_key_is_of_two_families() {
    let wild = |t: &str| t == "*" || t == ROLE;
    let meet = |a: &KeyFamily, b: &KeyFamily| {
        let (a, b): (Vec<_>, Vec<_>) = (a.pattern.split('.').collect(), b.pattern.split('.').collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || wild(a) || wild(b))
    };
    for (i, a) in FAMILIES.iter().enumerate() {
        assert!(!a.writers.is_empty(), "{a:?}");
        for b in FAMILIES[..i].iter().filter(|b| b.bucket == a.bucket) {
            assert!(!meet(a, b), "{a:?} and {b:?}");
        }
    }
}

#[test]
fn a_role_writes_its_own_keys() {
    let channel = written_by(Channel, 2);
    for subject in ["$KV.control.positions.channel.*.*", "$KV.roles.channel.*.*", "$KV.users-1.*.threads.*"] {
        assert!(channel.iter().any(|s| s == subject), "{subject} in {channel:?}");
    }
    let users =
        ["cursors.*", "drafts", "settings"].map(|key| ["users-0", "users-1"].map(|bucket| format!("{bucket}.*.{key}")));
    let sessions = ["sessions-0.*", "sessions-1.*"].map(str::to_owned);
    let edge = ["leases.edge.*".to_owned()].into_iter().chain(users.into_iter().flatten()).chain(sessions);
    assert_eq!(written_by(Edge, 2), edge.map(|key| format!("$KV.{key}")).collect::<Vec<_>>());
    assert!(written_by(NatsRole::Doctor, 2).is_empty());
}
