use natterjack_persister::{external::KeySource, store::cql::Consistency};
use natterjack_protocol::internal::devices::GivesWay;
use natterjack_runtime::config::sections;

use super::*;

fn with(flags: &[(&str, &str)]) -> Result<Settings, Errors> {
    Settings::of(flags)
}

#[test]
fn the_default_file_is_a_good_configuration() {
    let s = with(&[]).unwrap();
    assert_eq!(s.times, Times::default());
    assert_eq!(s.devices, DevicePolicy::default());
    assert_eq!(s.up.port, None);
    assert_eq!(s.log.filter, DEFAULT_FILTER);
}

/// A key that nobody reads would be a promise that nothing keeps.
#[test]
fn every_key_of_the_default_file_is_read() {
    let sources = [
        include_str!("../settings.rs"),
        include_str!("edge.rs"),
        include_str!("nats.rs"),
        include_str!("persister.rs"),
    ]
    .concat();
    for section in sections(DEFAULT) {
        for e in section.entries {
            let key = format!("{}.{}", section.name, e.key);
            let read = sources.matches(&format!("\"{key}\"")).count();
            assert!(read > 0, "{key} is in default.toml and nothing reads it");
        }
    }
}

#[test]
fn the_archive_is_a_file_until_servers_are_named() {
    assert_eq!(with(&[]).unwrap().cql, None);
    let cql = with(&[("cql.contact_points", "a:9042, b:9042"), ("cql.user", "n"), ("cql.consistency", "one")])
        .unwrap()
        .cql
        .unwrap();
    assert_eq!((cql.contact_points.len(), cql.user.as_deref(), cql.consistency), (2, Some("n"), Consistency::One));
    assert!(with(&[("cql.keyspace", "a-b")]).is_err());
}

#[test]
fn one_login_to_nats_and_a_certificate_with_its_key() {
    let nats = with(&[("nats.nkey", "seed"), ("nats.tls.ca", "ca.pem"), ("nats.tls.first", "true")]).unwrap().nats;
    assert_eq!((nats.nkey, nats.tls.ca, nats.tls.first), (Some("seed".into()), Some("ca.pem".into()), true));
    let text = with(&[("nats.user", "a"), ("nats.creds", "b"), ("nats.tls.certificate", "c")]).unwrap_err().to_string();
    assert!(text.contains("nats.tls.key: is missing") && text.contains("nats.user: only one of"), "{text}");
}

#[test]
fn a_certificate_and_its_key_come_together() {
    assert_eq!(with(&[]).unwrap().edge.tls, None);
    let (certificate, key) = (("edge.tls.certificate", "c.pem"), ("edge.tls.key", "k.pem"));
    let files = with(&[certificate, key, ("edge.url", "wss://h")]).unwrap().edge.tls.unwrap();
    assert_eq!((files.certificate, files.key), ("c.pem".into(), "k.pem".into()));
    for (flags, missing) in [(vec![certificate], "edge.tls.key"), (vec![key], "edge.tls.certificate")] {
        let text = with(&flags).unwrap_err().to_string();
        assert!(text.contains(&format!("{missing}: is missing")), "{text}");
    }
    assert!(with(&[certificate, key, ("edge.url", "ws://h")]).unwrap_err().to_string().contains("wss://"));
}

#[test]
fn the_address_for_clients_is_one_that_clients_can_use() {
    let url = |url: &str| with(&[("edge.url", url)]).map(|s| s.edge.url).map_err(|e| e.to_string());
    for (given, taken) in [
        ("", None),
        ("wss://edge1.example.org", Some("wss://edge1.example.org")),
        ("WSS://Edge1.Example.org:443/", Some("wss://edge1.example.org")),
        ("ws://192.168.1.5:8080", Some("ws://192.168.1.5:8080")),
        ("ws://[fd00::5]:8080/", Some("ws://[fd00::5]:8080")),
        ("ws://127.0.0.1:8080", Some("ws://127.0.0.1:8080")),
    ] {
        assert_eq!(url(given).unwrap().as_deref(), taken, "{given}");
    }
    for (given, word) in [
        ("wss://chat.example.org/app", "wss://chat.example.org;"),
        ("wss://chat.example.org/v1/ws", "/v1/ws"),
        ("wss://chat.example.org?x=1", "alone"),
        ("wss://chat.example.org#x", "alone"),
        ("wss://me@chat.example.org", "alone"),
        ("https://chat.example.org", "ws://"),
        ("chat.example.org", "not a URL"),
        ("ws://0.0.0.0:8080", "listen"),
        ("ws://[::]:8080", "listen"),
        ("ws://0:8080", "listen"),
        ("ws://", "not a URL"),
    ] {
        let why = url(given).unwrap_err();
        assert!(why.contains("edge.url") && why.contains(word), "{given}: {why}");
    }
}

#[test]
fn registration_is_open_until_another_issuer_says_who_is_who() {
    let issuer =
        [("external.issuer", "https://login"), ("external.audience", "chat"), ("external.jwks_file", "keys.json")];
    let rule = |flags: &[(&str, &str)]| with(flags).unwrap().registration;
    assert_eq!((rule(&[]), rule(&issuer)), (RegistrationRule::Open, RegistrationRule::Closed));
    let (open, invite) = (("accounts.registration", "open"), ("accounts.registration", "invite"));
    assert_eq!(rule(&[&issuer[..], &[open]].concat()), RegistrationRule::Open);
    assert_eq!(
        (rule(&[invite]), rule(&[("accounts.registration", "closed")])),
        (RegistrationRule::Invite, RegistrationRule::Closed)
    );
    assert!(with(&[("accounts.registration", "Open")]).is_err_and(|e| e.to_string().contains("accounts.registration")));
}

#[test]
fn an_external_issuer_is_whole_or_not_there() {
    assert_eq!(with(&[]).unwrap().external, None);
    let (issuer, audience) = (("external.issuer", "https://login"), ("external.audience", "chat"));
    let (url, file) = (("external.jwks_url", "https://login/keys"), ("external.jwks_file", "keys.json"));
    let external = with(&[issuer, audience, url]).unwrap().external.unwrap();
    assert_eq!((external.keys, external.subject_claim.as_str()), (KeySource::Url("https://login/keys".into()), "sub"));
    assert!(matches!(with(&[issuer, audience, file]).unwrap().external.unwrap().keys, KeySource::File(_)));
    for here in ["http://127.0.0.1:8080/keys", "http://localhost/keys", "http://[::1]/keys"] {
        assert!(with(&[issuer, audience, ("external.jwks_url", here)]).unwrap().external.is_some(), "{here}");
    }
    for (flags, wrong) in [
        (vec![issuer, url], "external.audience"),
        (vec![issuer, audience], "external.jwks_url"),
        (vec![issuer, audience, url, file], "external.jwks_url"),
        (vec![audience, url], "external.issuer"),
        (vec![("external.issuer", "password"), audience, url], "external.issuer"),
        (vec![issuer, audience, ("external.jwks_url", "ftp://x")], "external.jwks_url"),
        (vec![issuer, audience, ("external.jwks_url", "http://login/keys")], "https://"),
        (vec![issuer, audience, ("external.jwks_url", "http://127.0.0.1@login/keys")], "https://"),
        (vec![issuer, audience, ("external.jwks_url", "login/keys")], "external.jwks_url"),
        (vec![issuer, audience, url, ("external.subject_claim", "")], "external.subject_claim"),
    ] {
        let text = with(&flags).unwrap_err().to_string();
        assert!(text.contains(wrong), "{text}");
    }
}

#[test]
fn operators_and_clients_have_different_addresses() {
    assert_eq!(with(&[]).unwrap().admin, Some(([127, 0, 0, 1], 0).into()));
    assert_eq!(with(&[("admin.listen", "")]).unwrap().admin, None);
    let why = with(&[("admin.listen", "127.0.0.1:8080")]).unwrap_err().to_string();
    assert!(why.contains("admin.listen") && why.contains("edge.listen"), "{why}");
}

#[test]
fn all_errors_at_once() {
    let text = with(&[
        ("edge.id", "a.b"),
        ("edge.listen", "here"),
        ("nats.replicas", "2"),
        ("up.sync", "often"),
        ("times.divisor", "0"),
        ("edge.idle_seconds", "0"),
        ("edge.stall_seconds", "-1"),
        ("limits.exempt", "10.0.0.1/8"),
    ])
    .unwrap_err()
    .to_string();
    for key in [
        "edge.id",
        "edge.listen",
        "nats.replicas",
        "up.sync",
        "times.divisor",
        "edge.idle_seconds",
        "edge.stall_seconds",
        "limits.exempt",
    ] {
        assert!(text.contains(key), "{key} is missing in {text}");
    }
}

#[test]
fn devices_by_class() {
    let s = with(&[("devices.phone", "2"), ("devices.web_when_full", "refuse")]).unwrap().devices;
    assert_eq!((s.phone.count, s.web.gives_way, s.tablet.count), (2, GivesWay::Nobody, 1));
    for (key, value, why) in [
        ("devices.phone", "0", "at least 1"),
        ("devices.other", "30", "at most 32 together"),
        ("devices.tablet_when_full", "nobody", "displace_oldest, displace_least_active, refuse"),
    ] {
        let text = with(&[(key, value)]).unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
    }
}
