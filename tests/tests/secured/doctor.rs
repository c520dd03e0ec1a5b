//! `natterjack doctor` tries the connections that the roles use, and says in words what is wrong with them.

use natterjack_nats::NatsRole;
use natterjack_testkit::{Process, process::Ready, programs};
use natterjack_tests::kit::{Cluster, secured_nats::STRANGER};

/// What it prints.
pub async fn run(args: &[String]) -> String {
    let out = tokio::process::Command::new(programs::natterjack()).arg("doctor").args(args).output().await.unwrap();
    String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap()
}

/// On servers with a user for each role.
pub async fn says_what_is_wrong(cluster: &Cluster) {
    let with = async |role: NatsRole, more: &[(&str, &str)]| {
        let more = more.iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]);
        run(&cluster.command_line(role).into_iter().chain(more).collect::<Vec<_>>()).await
    };
    let (first, stranger) =
        (cluster.nats_url(0).replace("nats://", ""), cluster.nats_url(STRANGER).replace("nats://", ""));
    let only = cluster.nats_url(0);
    for role in NatsRole::ALL {
        let said = with(role, &[]).await;
        for line in [
            &format!("ok    NATS {first}: lets this login in"),
            &format!("FAIL  NATS {stranger}: "),
            "its certificate is of an authority that is not known here",
            &format!("ok    permissions: this user may do what {} does", role.name()),
            "ok    log: generation 2",
        ] {
            assert!(said.contains(line), "{line:?} is missing in {said}");
        }
        assert!(!with(role, &[("nats.urls", &only)]).await.contains("FAIL  NATS"), "{said}");
    }
    let other = cluster.secured_nats().other_authority();
    let at_other_hours = |p: &mut rcgen::CertificateParams| {
        (p.not_before, p.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    };
    let addr = cluster.spare_nats();
    let (certificate, key) = other.write("expired", &other.issue_for(&[addr.ip().to_string()], at_other_hours));
    let config = cluster.folder().join("expired.conf");
    std::fs::write(&config, format!("listen: \"{addr}\"\ntls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n"))
        .unwrap();
    let args = vec!["--config".into(), config.display().to_string()];
    let expired = Process::new("nats-expired", programs::nats_server(), args, &cluster.folder(), Ready::Tcp(addr));
    expired.start().await;
    let (expired_url, other_ca) = (format!("nats://{addr}"), other.ca_file.display().to_string());
    for (role, wrong, says) in [
        (
            NatsRole::Edge,
            vec![("nats.urls", only.as_str()), ("nats.password", "other")],
            "check nats.user and nats.password",
        ),
        (NatsRole::Edge, vec![("nats.urls", &only), ("nats.user", ""), ("nats.password", "")], "named nobody"),
        (
            NatsRole::Edge,
            vec![("nats.urls", &only), ("nats.tls.ca", &other_ca)],
            "name the file with the authority's certificate in nats.tls.ca",
        ),
        (
            NatsRole::Edge,
            vec![("nats.urls", &only), ("nats.tls.ca", "/none.pem")],
            "nats.tls.ca: cannot read /none.pem",
        ),
        (
            NatsRole::Edge,
            vec![("nats.urls", &expired_url), ("nats.tls.ca", &other_ca)],
            "its certificate has expired; renew it on that server",
        ),
    ] {
        let said = with(role, &wrong).await;
        assert!(said.lines().any(|l| l.starts_with("FAIL  NATS") && l.contains(says)), "{says:?} is missing in {said}");
    }
    // An edge's user cannot be a channel.
    let mut args = cluster.command_line(NatsRole::Edge);
    args.extend(["--role".into(), "channel".into()]);
    let said = run(&args).await;
    let line =
        said.lines().find(|l| l.starts_with("FAIL  permissions: this user may not do what channel does")).expect(&said);
    assert!(
        line.contains("\"live.user.*.e\"")
            && line.contains("CHANNEL that `natterjack provision --print-permissions` prints"),
        "{line}"
    );
}
