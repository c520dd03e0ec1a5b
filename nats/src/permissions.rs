//! What each role may say and hear on NATS: one account, a user for each role, and no more than the contract of
//! `subjects` needs. Who writes which key is the table in `keys`.
//!
//! Buckets are named, because their number is fixed. The log's streams are not: a name is one token, which a wildcard
//! cannot divide, and a later generation has others. So a role that reads the log may read any stream but the buckets
//! that are not its own, which are denied by name; nobody may delete or purge one. `channel` and the persister may
//! make streams, as `provision` may: who finds that the log has lost its end begins a new generation.
//!
//! Answers come to inboxes that only their role may hear. Who answers may publish to any inbox of those who ask: their
//! names cannot be guessed, and `allow_responses` would make nats-server note each message that a reader of the log
//! gets.

use std::fmt::Write as _;

use crate::{
    keys,
    nats_role::{NatsRole, inbox},
    subjects::{self, any},
};

/// Patterns of subjects. What is denied is so although it is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    pub publish: Vec<String>,
    pub deny: Vec<String>,
    pub subscribe: Vec<String>,
}

/// What a role does with a bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Nothing,
    Read,
    /// Read, and hear of changes.
    Watch,
}

impl NatsRole {
    /// For an installation with so many shards.
    pub fn permissions(self, kv_shards: u32) -> Permissions {
        let own = format!("{}.>", inbox(Some(self)));
        let mut p = Permissions { publish: self.says(), deny: Vec::new(), subscribe: self.hears() };
        p.publish.extend(keys::written_by(self, kv_shards));
        p.publish.push(own.clone());
        p.subscribe.push(own);
        p.publish.push(any::stream_info());
        for bucket in buckets(kv_shards) {
            let stream = subjects::bucket_stream(&bucket);
            match self.uses(&bucket) {
                Use::Nothing => p.deny.extend(any::reads_of(&stream)),
                Use::Read => p.publish.push(any::get(&stream)),
                Use::Watch => p.publish.extend([any::get(&stream), any::watch(&stream)]),
            }
        }
        if self != Self::Doctor {
            p.publish.extend([any::get("*"), any::get_direct("*")]);
        }
        match self {
            // Of the log an edge asks for one message or page, and presence for nothing.
            Self::Edge | Self::Presence | Self::Doctor => p.publish.extend(any::pull()),
            Self::Channel | Self::Persister => {
                p.publish.push(any::read_on());
                p.publish.extend(any::pull());
                p.publish.extend(any::make_streams());
            }
            Self::Provision => p.publish.extend(any::make_streams()),
        }
        p
    }

    fn uses(self, bucket: &str) -> Use {
        let (sessions, users) = (bucket.starts_with(subjects::SESSIONS), bucket.starts_with(subjects::USERS));
        match (self, bucket) {
            (Self::Presence, subjects::ROLES) => Use::Read,
            (Self::Presence, bucket) if sessions || users || bucket == subjects::LEASES => Use::Watch,
            (Self::Presence, bucket) if bucket != subjects::CONTROL => Use::Nothing,
            // How far users have read, for the archive.
            (Self::Persister, _) if users => Use::Watch,
            // Users' devices are nothing to who folds the log.
            (Self::Channel, _) if sessions => Use::Nothing,
            (Self::Provision | Self::Doctor, subjects::CONTROL) => Use::Read,
            (_, subjects::CONTROL) | (Self::Edge | Self::Doctor, subjects::LEASES) => Use::Watch,
            (Self::Provision | Self::Doctor, _) => Use::Nothing,
            (Self::Edge, subjects::ROLES) | (_, subjects::LEASES) => Use::Nothing,
            _ => Use::Read,
        }
    }

    /// Besides the interface of JetStream and the keys that it writes (`keys`).
    fn says(self) -> Vec<String> {
        let answers = |role| format!("{}.>", inbox(Some(role)));
        let said = |subjects: &[&str]| subjects.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let services = [any::HEADS, subjects::HISTORY, subjects::DIRECTORY, any::PRESENCE_SERVICES];
        match self {
            Self::Edge => [
                said(&[any::CHAT, any::CTL, any::LIVE_USER_X, any::LIVE_GROUP_X, any::EDGES]),
                said(&services),
                // Pings. What edges ask each other comes to an inbox that is their own.
                vec![answers(Self::Presence)],
            ]
            .concat(),
            Self::Channel => [
                said(&[
                    any::LIVE_USER_E,
                    any::LIVE_GROUP_E,
                    subjects::BEATS,
                    subjects::HISTORY,
                    subjects::DIRECTORY,
                    any::END,
                ]),
                vec![answers(Self::Edge)],
            ]
            .concat(),
            Self::Persister => [
                // Control entries of whoever's account is deleted.
                said(&[any::LIVE_USER_X, any::END, any::CTL]),
                [Self::Edge, Self::Channel, Self::Doctor, Self::Provision].map(answers).into(),
            ]
            .concat(),
            Self::Presence => {
                [said(&[subjects::PRESENCE, any::EDGES]), vec![answers(Self::Edge), answers(Self::Doctor)]].concat()
            }
            // And accounts: `natterjack user`.
            Self::Provision => said(&[any::END, subjects::OPERATORS]),
            // What was lost, and whether anybody says who is here.
            Self::Doctor => said(&[subjects::LOSSES, any::PRESENCE_SERVICES]),
        }
    }

    fn hears(self) -> Vec<String> {
        let heard: &[&str] = match self {
            Self::Edge => &[any::LIVE_USER, any::LIVE_GROUP, any::EDGES, subjects::BEATS, subjects::PRESENCE],
            Self::Channel => &[any::HEADS],
            Self::Persister => {
                &[subjects::HISTORY, subjects::LOSSES, subjects::DIRECTORY, subjects::OPERATORS, subjects::BEATS]
            }
            Self::Presence => &[any::PRESENCE_SERVICES],
            Self::Provision | Self::Doctor => &[],
        };
        heard.iter().map(|s| (*s).to_owned()).collect()
    }
}

fn buckets(kv_shards: u32) -> Vec<String> {
    let shards = subjects::shard_buckets(kv_shards);
    [subjects::CONTROL, subjects::ROLES, subjects::LEASES].map(str::to_owned).into_iter().chain(shards).collect()
}

/// For the `authorization` block of nats-server: a variable for each role.
pub fn nats_server(kv_shards: u32) -> String {
    let mut out = String::from(
        "# What each role of Natterjack may do on NATS. Made by `natterjack provision --print-permissions`; make it \
         anew with each version.\n\
         # In the configuration of every nats-server, beside this file, with passwords of your own (or nkey: instead \
         of user: and password:):\n\
         #\n\
         #   authorization {\n\
         #       include \"natterjack-permissions.conf\"\n\
         #       users: [\n",
    );
    for role in NatsRole::ALL {
        let (name, variable) = (role.name(), role.name().to_uppercase());
        let _ = writeln!(out, "#           {{ user: {name}, password: \"...\", permissions: ${variable} }}");
    }
    out.push_str("#       ]\n#   }\n");
    for role in NatsRole::ALL {
        let Permissions { publish, deny, subscribe } = role.permissions(kv_shards);
        let _ = write!(out, "\n{}: {{\n    publish: {{\n", role.name().to_uppercase());
        list(&mut out, "allow", &publish);
        list(&mut out, "deny", &deny);
        out.push_str("    }\n    subscribe: {\n");
        list(&mut out, "allow", &subscribe);
        out.push_str("    }\n}\n");
    }
    out
}

fn list(out: &mut String, name: &str, subjects: &[String]) {
    // An empty list would mean: everything.
    if subjects.is_empty() {
        return;
    }
    let _ = writeln!(out, "        {name}: [");
    for subject in subjects {
        let _ = writeln!(out, "            \"{subject}\"");
    }
    out.push_str("        ]\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        let (mut p, mut s) = (pattern.split('.'), subject.split('.'));
        loop {
            match (p.next(), s.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some(a), Some(b)) if a == "*" || a == b => {}
                _ => return false,
            }
        }
    }

    fn may(role: NatsRole, subject: &str) -> bool {
        let p = role.permissions(2);
        let any = |patterns: &[String]| patterns.iter().any(|p| matches(p, subject));
        any(&p.publish) && !any(&p.deny)
    }

    fn hears(role: NatsRole, subject: &str) -> bool {
        role.permissions(2).subscribe.iter().any(|p| matches(p, subject))
    }

    fn only(who: &[NatsRole], subject: &str) {
        for role in NatsRole::ALL {
            assert_eq!(may(role, subject), who.contains(&role), "{role:?} on {subject}");
        }
    }

    use NatsRole::{Channel, Doctor, Edge, Persister, Presence, Provision};

    #[test]
    fn who_may_say_what() {
        let thread = "dm.a.b".parse().unwrap();
        only(&[Edge], &subjects::chat(7, 3, &thread));
        only(&[Edge, Persister], &subjects::ctl(7, 3, &thread));
        only(&[Channel, Persister, Provision], &subjects::end(7, 3));
        let (user, group) = (&"a".parse().unwrap(), &"g".parse().unwrap());
        only(&[Channel], &subjects::live_user(user));
        only(&[Channel], &subjects::live_group(group));
        only(&[Channel], &subjects::beat(3));
        only(&[Edge, Persister], &subjects::live_user_x(user));
        only(&[Edge], &subjects::live_group_x(group));
        only(&[Edge], &subjects::heads(7, 3));
        only(&[Edge, Channel], subjects::HISTORY);
        only(&[Doctor], subjects::LOSSES);
        only(&[Edge, Channel], subjects::DIRECTORY);
        only(&[Provision], subjects::OPERATORS);
        only(&[Channel, Persister], "$KV.groups-1.g");
        only(&[Channel, Persister], "$KV.users-0.a.threads.0");
        for key in ["generation", "lost_end.7.3", "clock.7.3", "log_readers"] {
            only(&[Channel, Persister, Provision], &subjects::bucket_key(subjects::CONTROL, key));
        }
        for key in ["keys.k", "revoked.f", "nothing_before.7", "backup", "positions.persister.7.3"] {
            only(&[Persister], &subjects::bucket_key(subjects::CONTROL, key));
        }
        only(&[Channel], "$KV.control.positions.channel.7.3");
        only(&[Persister], "$KV.roles.persister.7.3");
        only(&[Edge], "$KV.leases.edge.e");
        only(&[Edge, Persister, Presence], "$KV.sessions-1.a");
        only(&[Edge, Persister], "$KV.users-0.a.settings");
        only(&[Presence], "$KV.roles.presence.3");
        only(&[Persister], "$KV.roles.persister.3");
        only(&[Presence], &subjects::presence(3));
        only(&[Edge, Doctor], &subjects::presence_service(3));
        only(&[Edge, Presence], &subjects::edge_service(user));
        only(&[], "anything.else");
    }

    #[test]
    fn streams_are_made_by_some_and_deleted_by_nobody() {
        for verb in ["DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN"] {
            only(&[], &format!("$JS.API.STREAM.{verb}.CHAT-1-0"));
        }
        for verb in ["CREATE", "UPDATE"] {
            only(&[Channel, Persister, Provision], &format!("$JS.API.STREAM.{verb}.CHAT-1-0"));
        }
        only(&[], "$JS.API.CONSUMER.DURABLE.CREATE.CHAT-1-0.x");
        only(&[Channel, Persister], "$JS.API.CONSUMER.CREATE.CHAT-7-3.r1");
    }

    #[test]
    fn a_bucket_is_read_by_those_that_use_it() {
        let get = |bucket: &str| any::get(&subjects::bucket_stream(bucket));
        let watch =
            |bucket: &str| format!("$JS.API.CONSUMER.CREATE.{}.r1.$KV.{bucket}.x", subjects::bucket_stream(bucket));
        only(&[Channel, Persister, Presence], &get(subjects::ROLES));
        only(&[], &watch(subjects::ROLES));
        only(&[Edge, Presence, Doctor], &get(subjects::LEASES));
        only(&[Edge, Presence, Doctor], &watch(subjects::LEASES));
        only(&[Edge, Channel, Persister, Presence], &get(&subjects::users_bucket(1)));
        only(&[Persister, Presence], &watch(&subjects::users_bucket(1)));
        only(&[Edge, Persister, Presence], &get(&subjects::sessions_bucket(0)));
        only(&[Presence], &watch(&subjects::sessions_bucket(0)));
        only(&[Edge, Channel, Persister], &get(&subjects::groups_bucket(0)));
        only(&NatsRole::ALL, &get(subjects::CONTROL));
        only(&[Edge, Channel, Persister, Presence], &watch(subjects::CONTROL));
        // Also not by a reader of the log, whose permission has a wildcard for the stream.
        only(&[], "$JS.API.CONSUMER.CREATE.KV_leases.r1");
    }

    #[test]
    fn answers_are_heard_by_who_asked() {
        for role in NatsRole::ALL {
            for other in NatsRole::ALL {
                assert_eq!(hears(role, &format!("{}.x.1", inbox(Some(other)))), role == other);
            }
            assert!(
                !hears(role, "_INBOX.x.1")
                    && !hears(role, "chat.1.0.dm.a.b")
                    && !hears(role, "$KV.users-0.a.threads.0")
            );
        }
        // Whoever hears a question may answer all who may ask it.
        let edge = "e".parse().unwrap();
        let of_one = [subjects::heads(7, 3), subjects::presence_service(3), subjects::edge_service(&edge)];
        let services =
            [subjects::HISTORY, subjects::LOSSES, subjects::DIRECTORY, subjects::OPERATORS].map(str::to_owned);
        for service in of_one.into_iter().chain(services) {
            let heard: Vec<NatsRole> = NatsRole::ALL.into_iter().filter(|role| hears(*role, &service)).collect();
            assert!(!heard.is_empty(), "nobody hears {service}");
            for asks in NatsRole::ALL.into_iter().filter(|role| may(*role, &service)) {
                for answers in &heard {
                    assert!(
                        may(*answers, &format!("{}.x.1", inbox(Some(asks)))),
                        "{answers:?} cannot answer {asks:?} on {service}"
                    );
                }
            }
        }
        assert!(
            may(Persister, "_INBOX_edge.x.1") && may(Channel, "_INBOX_edge.x.1") && !may(Edge, "_INBOX_channel.x.1")
        );
        assert!(
            hears(Edge, "live.user.a.e")
                && !hears(Persister, "live.user.a.e")
                && hears(Channel, "svc.channel.heads.1.0")
        );
        assert!(hears(Persister, subjects::DIRECTORY) && !hears(Edge, subjects::DIRECTORY));
        assert!(hears(Edge, "svc.edge.e") && !hears(Persister, "svc.edge.e") && !hears(Doctor, "beat.0"));
    }
}
