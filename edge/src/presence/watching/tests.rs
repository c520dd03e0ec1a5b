//! Watchers against a model that computes what each sees from everything that was heard.

use std::{cell::RefCell, collections::BTreeMap as Map};

use natterjack_protocol::{
    client::presence::{PresenceChoice, PresenceSettings},
    internal::presence::Connected,
};
use proptest::prelude::*;

use super::*;

fn user(n: u8) -> UserId {
    UserId::parse(&format!("u{n}")).unwrap()
}

fn heard(n: u8, revision: u64, connected: Connected) -> UserPresence {
    UserPresence { revision, connected, ..UserPresence::unknown(user(n)) }
}

fn chosen(n: u8, revision: u64, choice: PresenceChoice, visibility: PresenceVisibility) -> UserPresence {
    let settings = PresenceSettings { choice, since: 5, visibility, receipts: true };
    UserPresence { settings_revision: revision, settings, ..UserPresence::unknown(user(n)) }
}

const CONTACT_OF: Standing = Standing { contact: true, blocked: false, own: false };
const STRANGER: Standing = Standing { contact: false, blocked: false, own: false };
const IN_BLOCK: Standing = Standing { contact: true, blocked: true, own: false };

#[test]
fn what_one_sees_depends_on_how_one_stands() {
    let here = heard(1, 1, Connected::Yes);
    let gone = heard(1, 1, Connected::No(Some(9)));
    let with = |p: &UserPresence, visibility| {
        let settings = PresenceSettings { visibility, ..PresenceSettings::default() };
        UserPresence { settings, ..p.clone() }
    };
    let (online, nothing) = ((PresenceState::Online, None), (PresenceState::Offline, None));
    use PresenceVisibility::{Contacts, Everyone, Nobody};
    for (visibility, standing, sees) in [
        (Everyone, STRANGER, online),
        (Everyone, IN_BLOCK, nothing),
        (Contacts, STRANGER, nothing),
        (Contacts, CONTACT_OF, online),
        (Contacts, IN_BLOCK, nothing),
        (Nobody, CONTACT_OF, nothing),
        (Nobody, Standing { own: true, ..STRANGER }, online),
    ] {
        assert_eq!(view(&with(&here, visibility), false, standing), sees, "{visibility:?} {standing:?}");
        let last_seen = if sees == online { (PresenceState::Offline, Some(9)) } else { nothing };
        assert_eq!(view(&with(&gone, visibility), false, standing), last_seen, "{visibility:?} {standing:?}");
        let unknown = (PresenceState::Unknown, None);
        assert_eq!(view(&with(&here, visibility), true, standing), unknown, "of everybody alike");
        assert_eq!(view(&with(&heard(1, 1, Connected::Unknown), visibility), false, standing), unknown);
    }
}

type Told = Map<u8, Map<UserId, (PresenceState, Option<u64>)>>;

fn tell_all(watching: &mut Watching<u8>, silent: bool, told: &mut Told) -> usize {
    let told = RefCell::new(told);
    watching.news(
        |_| silent,
        |handle, seen| {
            let mut told = told.borrow_mut();
            let of = told.entry(*handle).or_default();
            of.extend(seen.into_iter().map(|p| (p.user, (p.state, p.last_seen))));
            true
        },
    )
}

#[test]
fn who_is_behind_is_told_later_as_it_stands_then() {
    let mut watching = Watching::default();
    let (number, new) = watching.watch(1u8, [(user(1), 0, STRANGER), (user(1), 0, STRANGER), (user(2), 0, STRANGER)]);
    assert_eq!((new.len(), watching.sizes()), (2, (2, 1, 2)));
    watching.hear(&heard(1, 1, Connected::Yes), false);
    assert_eq!(watching.news(|_| false, |_, _| false), 0);
    watching.hear(&heard(1, 2, Connected::No(None)), false);
    watching.hear(&heard(2, 1, Connected::Yes), false);
    let mut told = Told::new();
    assert_eq!(tell_all(&mut watching, false, &mut told), 1, "one frame for both");
    assert_eq!(told[&1][&user(1)], (PresenceState::Offline, None));
    assert_eq!(told[&1][&user(2)], (PresenceState::Online, None));
    assert!(!watching.has_news());
    watching.leave(number);
    assert_eq!(watching.sizes(), (0, 0, 0));
}

#[test]
fn an_answer_does_not_undo_what_came_meanwhile() {
    let mut watching = Watching::default();
    watching.watch(1u8, [(user(1), 0, STRANGER)]);
    assert_eq!(watching.of_shard(0), [user(1)]);
    watching.hear(&heard(1, 5, Connected::No(Some(1))), false);
    watching.hear(&heard(1, 5, Connected::Yes), true);
    let mut told = Told::new();
    tell_all(&mut watching, false, &mut told);
    assert_eq!(told[&1][&user(1)], (PresenceState::Offline, Some(1)));
}

#[derive(Debug, Clone)]
enum Step {
    Watch(u8, Vec<(u8, bool, bool)>),
    Leave(u8),
    Hear(u8, u64, Connected),
    Chose(u8, u64, PresenceChoice, PresenceVisibility),
    Relate(u8, bool, bool),
    Silence(bool),
    Forget,
    Tell,
}

fn step() -> impl Strategy<Value = Step> {
    use PresenceChoice::{Available, Away, Hidden};
    use PresenceVisibility::{Contacts, Everyone, Nobody};
    let connected =
        prop_oneof![Just(Connected::Yes), Just(Connected::Unknown), prop::option::of(1u64..9).prop_map(Connected::No)];
    let choice = prop::sample::select(vec![Available, Away, Hidden]);
    let visibility = prop::sample::select(vec![Everyone, Contacts, Nobody]);
    prop_oneof![
        2 => (0u8..3, prop::collection::vec((0u8..4, any::<bool>(), any::<bool>()), 0..5))
            .prop_map(|(w, u)| Step::Watch(w, u)),
        1 => (0u8..3).prop_map(Step::Leave),
        5 => (0u8..4, 1u64..20, connected).prop_map(|(u, r, c)| Step::Hear(u, r, c)),
        2 => (0u8..4, 1u64..20, choice, visibility).prop_map(|(u, r, c, v)| Step::Chose(u, r, c, v)),
        1 => (0u8..3, any::<bool>(), any::<bool>()).prop_map(|(w, c, b)| Step::Relate(w, c, b)),
        1 => any::<bool>().prop_map(Step::Silence),
        1 => Just(Step::Forget),
        3 => Just(Step::Tell),
    ]
}

struct Model {
    number: WatcherNumber,
    watches: Map<UserId, Standing>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// What each watcher was told, taken together, is what it sees.
    #[test]
    fn the_frames_of_a_watcher_add_up_to_what_it_sees(steps in prop::collection::vec(step(), 1..60)) {
        let (mut watching, mut silent, mut told) = (Watching::default(), false, Told::new());
        let mut watchers: Map<u8, Model> = Map::new();
        let mut known: Map<UserId, UserPresence> = Map::new();
        for step in steps.into_iter().chain([Step::Tell]) {
            match step {
                Step::Watch(w, users) => {
                    if let Some(before) = watchers.remove(&w) {
                        watching.leave(before.number);
                    }
                    let mut watches = Map::new();
                    users.iter().for_each(|(u, contact, blocked)| {
                        watches.insert(user(*u), Standing { contact: *contact, blocked: *blocked, own: false });
                    });
                    let (number, new) = watching.watch(w, watches.iter().map(|(u, s)| (u.clone(), 0, *s)));
                    for (_, user) in new {
                        known.insert(user.clone(), UserPresence::unknown(user));
                    }
                    let all = watching.all(number, |_| silent);
                    told.insert(w, all.into_iter().map(|p| (p.user, (p.state, p.last_seen))).collect());
                    watchers.insert(w, Model { number, watches });
                }
                Step::Leave(w) => {
                    if let Some(before) = watchers.remove(&w) {
                        watching.leave(before.number);
                        told.remove(&w);
                    }
                }
                Step::Hear(u, r, c) => {
                    watching.hear(&heard(u, r, c), false);
                    if let Some(known) = known.get_mut(&user(u)) {
                        known.hear(&heard(u, r, c));
                    }
                }
                Step::Chose(u, r, c, v) => {
                    watching.hear(&chosen(u, r, c, v), false);
                    if let Some(known) = known.get_mut(&user(u)) {
                        known.hear(&chosen(u, r, c, v));
                    }
                }
                Step::Relate(w, contact, blocked) => {
                    if let Some(model) = watchers.get_mut(&w) {
                        let now = Standing { contact, blocked, own: false };
                        model.watches.values_mut().for_each(|s| *s = now);
                        watching.relate(model.number, |_, _| now);
                    }
                }
                Step::Silence(now) => {
                    if silent != now {
                        silent = now;
                        watching.shard_changed(0, false);
                    }
                }
                Step::Forget => {
                    known.iter_mut().for_each(|(u, k)| *k = UserPresence::unknown(u.clone()));
                    watching.shard_changed(0, true);
                }
                Step::Tell => {
                    tell_all(&mut watching, silent, &mut told);
                    for (w, model) in &watchers {
                        let sees: Map<UserId, (PresenceState, Option<u64>)> =
                            model.watches.iter().map(|(u, s)| (u.clone(), view(&known[u], silent, *s))).collect();
                        prop_assert_eq!(&told[w], &sees);
                    }
                }
            }
            let all = watchers.values().flat_map(|m| m.watches.keys());
            let watched: std::collections::BTreeSet<&UserId> = all.collect();
            let pairs = watchers.values().map(|m| m.watches.len()).sum();
            prop_assert_eq!(watching.sizes(), (watched.len(), watchers.len(), pairs));
            known.retain(|u, _| watchers.values().any(|m| m.watches.contains_key(u)));
        }
    }
}
