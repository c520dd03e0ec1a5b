//! `natterjack user`: accounts, for operators. Asks `directory` of the running system with the user of `provision`.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use natterjack_nats::{Nats, NatsRole, RpcError, subjects};
use natterjack_protocol::{
    client::http::UserSession,
    internal::operator::{AccountRow, OperatorAnswer, OperatorRequest},
};

use crate::{roles, settings::Settings, up, utc::utc};

/// Longer than a queue of password hashes.
const ASKED: Duration = Duration::from_secs(15);

const DAY_MS: u64 = 24 * 3_600_000;

#[derive(Args)]
pub struct UserArgs {
    #[command(subcommand)]
    what: UserCommand,
    /// Accounts of the `natterjack up` with this data folder [up.data]. Default: the one that runs in up.data, else of
    /// the roles that nats.urls names.
    #[arg(long, global = true, value_name = "FOLDER", conflicts_with = "roles")]
    pub data: Option<String>,
    /// Accounts of the roles that the configuration names, also if an `up` runs here.
    #[arg(long, global = true)]
    roles: bool,
}

/// NAME is a user's name, or the id of an account.
#[derive(Subcommand)]
enum UserCommand {
    /// List all accounts, in no order.
    List,
    /// Show an account and where it is logged in.
    Show { name: String },
    /// End all logins of an account, at every edge.
    Logout { name: String },
    /// End all logins of an account and allow no new ones.
    Disable { name: String },
    /// Allow logins of an account again.
    Enable { name: String },
    /// Give an account another name. Nobody else gets the old one for a while [accounts.name_hold_days].
    Rename { name: String, new: String },
    /// Delete an account for good. What its user wrote stays, under "deleted user".
    Delete { name: String },
    /// Make an invite and print its code, for `accounts.registration = "invite"`.
    Invite {
        /// How many accounts can be made with it.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        uses: u32,
        /// After how many days it expires.
        #[arg(long, default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
        expires: u32,
    },
    /// Set the password of an account and end all its logins. The password is read from standard input.
    Passwd { name: String },
}

#[expect(clippy::print_stdout, reason = "a report for people")]
pub async fn run(args: UserArgs, mut settings: Settings) -> anyhow::Result<()> {
    let data = &settings.up.data;
    if args.data.is_some() || (!args.roles && up::runs_in(data)) {
        let url = up::nats_url(data).with_context(|| format!("no `natterjack up` has run in {}", data.display()))?;
        settings.nats.urls = vec![url];
    }
    let request = match args.what {
        UserCommand::List => OperatorRequest::List { after: None },
        UserCommand::Show { name } => OperatorRequest::Show { name },
        UserCommand::Rename { name, new } => OperatorRequest::Rename { name, new },
        UserCommand::Delete { name } => OperatorRequest::Delete { name },
        UserCommand::Invite { uses, expires } => {
            OperatorRequest::Invite { uses, good_for: u64::from(expires) * DAY_MS }
        }
        UserCommand::Logout { name } => OperatorRequest::Logout { name },
        UserCommand::Disable { name } => OperatorRequest::Disable { name },
        UserCommand::Enable { name } => OperatorRequest::Enable { name },
        UserCommand::Passwd { name } => OperatorRequest::SetPassword { password: password(&name).await?, name },
    };
    let nats = roles::nats(&settings, NatsRole::Provision);
    let nats = Nats::connect(&nats, "user").await.context("accounts are kept by the running system")?;
    if !matches!(request, OperatorRequest::List { .. }) {
        println!("{}", said(ask(&nats, &request).await?));
        return Ok(());
    }
    let mut after = None;
    loop {
        let OperatorAnswer::Accounts(some) = ask(&nats, &OperatorRequest::List { after }).await? else {
            bail!("directory answered something else; is it of another version?");
        };
        some.iter().for_each(|account| println!("{}", line(account)));
        let Some(last) = some.last() else { return Ok(()) };
        after = Some(last.user.clone());
    }
}

async fn ask(nats: &Nats, request: &OperatorRequest) -> anyhow::Result<OperatorAnswer> {
    match nats.request(subjects::OPERATORS, request, ASKED).await {
        Ok(answer) => Ok(answer),
        Err(RpcError::Refused(refusal)) => bail!("{} ({})", refusal.message, refusal.code.name()),
        Err(e) => Err(e).context("directory, which the persister serves"),
    }
}

/// Typed twice at a terminal, else the first line.
async fn password(name: &str) -> anyhow::Result<String> {
    let first = natterjack_chat::typed_password(format!("New password for {name}: ")).await?;
    ensure!(!first.is_empty(), "no password: it is read from standard input");
    if std::io::stdin().is_terminal() {
        let again = natterjack_chat::typed_password("Once more: ".into()).await?;
        ensure!(first == again, "the two passwords differ; nothing was changed");
    }
    Ok(first)
}

fn said(answer: OperatorAnswer) -> String {
    match answer {
        OperatorAnswer::Accounts(all) => all.iter().map(line).collect::<Vec<_>>().join("\n"),
        OperatorAnswer::Account { account, sessions } => {
            let rows = sessions.iter().map(session);
            std::iter::once(line(&account)).chain(rows).collect::<Vec<_>>().join("\n")
        }
        OperatorAnswer::Invite { code, expires } => format!("{code}  good until {}", utc(expires)),
        OperatorAnswer::Done { account, ended } => format!("{}; {ended} logins ended", line(&account)),
    }
}

fn line(a: &AccountRow) -> String {
    let state = match (a.deleted, a.disabled) {
        (true, _) => "  deleted",
        (false, true) => "  disabled",
        (false, false) => "",
    };
    let name = if a.name.is_empty() { "-" } else { &a.name };
    format!("{name}  {}  since {}{state}", a.user, utc(a.created))
}

fn session(s: &UserSession) -> String {
    let active = s.last_active.map(|ms| format!("  active {}", utc(ms))).unwrap_or_default();
    let known = [&s.name, &s.app].into_iter().flatten().map(|part| format!("  {part}")).collect::<String>();
    let connected = s.edge.as_ref().map(|edge| format!("  connected to {edge}")).unwrap_or_default();
    format!("  device {}  since {}{active}{known}{connected}", s.device, utc(s.since))
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::Token;

    use super::*;

    #[test]
    fn an_account_is_said_in_a_line_and_each_of_its_devices_in_another() {
        let id = |s: &str| Token::parse(s).unwrap();
        let account = AccountRow {
            user: id("u1"),
            name: "Alice".into(),
            created: 1_795_000_000_000,
            disabled: true,
            deleted: false,
        };
        assert_eq!(line(&account), "Alice  u1  since 2026-11-18 11:06:40 UTC  disabled");
        let deleted = AccountRow { name: String::new(), deleted: true, ..account.clone() };
        assert_eq!(line(&deleted), "-  u1  since 2026-11-18 11:06:40 UTC  deleted");
        let session = UserSession {
            device: id("d1"),
            name: Some("Pixel".into()),
            class: None,
            app: None,
            edge: Some("edge-1".into()),
            since: 1_795_000_000_000,
            last_active: None,
            connected: true,
            this: false,
        };
        let all = said(OperatorAnswer::Account { account, sessions: vec![session] });
        assert!(all.ends_with("\n  device d1  since 2026-11-18 11:06:40 UTC  Pixel  connected to edge-1"), "{all}");
    }
}
